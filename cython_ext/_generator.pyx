"""Generator: the frozen function of a space for one key and kind; Shuffle: a keyed permutation of 0 .. n - 1; Ladder: n
increasing words.

Nouns: *address*, *bits*, *key*, *level* as in core/mixer.h; *kind* and *raw* as in core/generator.h.

    Generator  core  sa_generator     key | low | span | kind | value_bytes
    Shuffle    core  sa_permutation   key | n - 1 | widths of the halves
    Ladder     core  sa_sorted        key | n - 1

Invariants: 1. All are set up in __cinit__ and never change. 2. All loops of the library run in this module, so there is
one level for all; it is taken from the environment at import.
Threads: immutable; arrays are worked on without the GIL. Cost: see core/mixer.h, core/permutation.h.
"""
from libc.stdint cimport int64_t, uint8_t, uint64_t

from c_generator cimport *
from spectral_alloc._address cimport word_of

import os

import numpy

from spectral_alloc._address import as_words

LEVELS = ("baseline", "avx2", "avx512")
LEVEL_VARIABLE = "SPECTRAL_ALLOC_SIMD"
KINDS = ("float64", "float32", "uint64", "range", "normal")


def levels():
    """The names of the levels that this processor runs, slowest first. All give the same bits."""
    return tuple(name for number, name in enumerate(LEVELS) if sa_mixer_has_level(<sa_mixer_level><int>number))


def level():
    """The name of the level in use."""
    return LEVELS[sa_mixer_level_in_use()]


def use_level(name):
    """Use another level from now on, in all threads; ValueError for one that is unknown or not run here.

    >>> use_level("baseline"); level()
    'baseline'
    >>> use_level(levels()[-1])
    """
    if name not in levels():
        raise ValueError(f"the level must be one of {', '.join(levels())} on this processor, not {name!r}")
    sa_mixer_use_level(<sa_mixer_level><int>LEVELS.index(name))


if os.environ.get(LEVEL_VARIABLE):
    try:
        use_level(os.environ[LEVEL_VARIABLE].lower())
    except ValueError as error:
        raise ImportError(f"{LEVEL_VARIABLE}: {error}") from None


cdef sa_mixer_key key_of(words) except *:
    cdef sa_mixer_key key
    first, second, third = words
    key.k0, key.k1, key.k2 = word_of(first, "k0"), word_of(second, "k1"), word_of(third, "k2")
    return key


cdef void fill_of(const sa_generator *generator, uint64_t start, uint64_t step, void *out, size_t count) noexcept nogil:
    sa_generator_fill(generator, start, step, out, count)


cdef void gather_of(const sa_mixer_key *key, const uint64_t *addresses, uint64_t *out, size_t count) noexcept nogil:
    sa_mixer_gather_bits(key, addresses, out, count)


cdef void unmix_of(const sa_mixer_key *key, const uint64_t *bits, uint64_t *out, size_t count) noexcept nogil:
    sa_mixer_unmix(key, bits, out, count)


cdef int permute_of(const sa_mixer_key *key, uint64_t last, uint64_t start, uint64_t *out, size_t count) noexcept nogil:
    cdef sa_permutation permutation
    sa_permutation_init(&permutation, key, last)
    return sa_permutation_fill_bounded(&permutation, start, out, count)


cdef class Generator:
    """The function of a space, version 1: what stands at each of the 2**64 addresses, for one key.

    Parameters: key (three words), kind (position in KINDS), low and span (of kind "range": its first number and how many
    there are, to 2**64). Immutable. Cost: 4 ns a value alone, under 1 ns in arrays. Threads: any.

    >>> generator = Generator((1, 2, 3))
    >>> generator.address_of(generator.bits(999))
    999
    """

    def __cinit__(self, key, int kind=0, int64_t low=0, span=1):
        if not 0 <= kind < SA_KIND_COUNT:
            raise ValueError(f"kind must be 0 to {SA_KIND_COUNT - 1}, got {kind}")
        if not 1 <= span <= 1 << 64:
            raise ValueError(f"span must be 1 to 2**64, got {span}")
        self.core.key = key_of(key)
        self.core.kind = kind
        self.core.value_bytes = 4 if kind == SA_FLOAT32 else 8
        self.core.low = <uint64_t>low
        self.core.span = span & 0xFFFFFFFFFFFFFFFF
        self.key = tuple(key)
        self.kind, self.low, self.span = kind, low, span

    @property
    def value_bytes(self):
        """Bytes of an array element."""
        return self.core.value_bytes

    def __reduce__(self):
        return Generator, (self.key, self.kind, self.low, self.span)

    cdef uint64_t raw(self, uint64_t address) noexcept nogil:
        return sa_generator_raw(&self.core, address)

    cdef void fill(self, uint64_t start, uint64_t step, void *out, size_t count) noexcept nogil:
        sa_generator_fill(&self.core, start, step, out, count)

    cdef void gather(self, const uint64_t *addresses, void *out, size_t count) noexcept nogil:
        sa_generator_gather(&self.core, addresses, out, count)

    def bits(self, address, /):
        """The 64 bits of an address: another word for each. One int, or a uint64 array for many.

        Errors: IndexError outside 0 to 2**64 - 1, TypeError for no integers.
        """
        if isinstance(address, int):
            return sa_mix(&self.core.key, word_of(address, "address"))
        return self.mapped(as_words(address), 0)

    def address_of(self, bits, /):
        """The address that has these bits: the inverse of ``bits``. One int, or a uint64 array for many."""
        if isinstance(bits, int):
            return sa_unmix(&self.core.key, word_of(bits, "bits"))
        return self.mapped(as_words(bits, "bits"), 1)

    def mapped(self, words, bint backwards, /):
        """bits, or with ``backwards`` address_of, of a uint64 array in C order; 0-dimensional ones give an int."""
        result = numpy.empty(words.shape, dtype=numpy.uint64)
        cdef const uint64_t[::1] source = words.reshape(-1)
        cdef uint64_t[::1] target = result.reshape(-1)
        cdef size_t count = source.shape[0]
        if count:
            with nogil:
                if backwards:
                    sa_mixer_unmix(&self.core.key, &source[0], &target[0], count)
                else:
                    sa_mixer_gather_bits(&self.core.key, &source[0], &target[0], count)
        return result if result.ndim else int(result)


cdef class Shuffle:
    """A permutation of 0 .. n - 1 for a key, without memory: cycle walking over a Feistel network.

    Parameters: key (three words), n (1 to 2**64). Immutable. Cost: some 60 ns a step, under 2 steps on average.

    >>> shuffle = Shuffle((1, 2, 3), 10)
    >>> sorted(shuffle.at(position) for position in range(10)) == list(range(10))
    True
    >>> shuffle.index(shuffle.at(7))
    7
    """

    cdef sa_permutation core

    def __cinit__(self, key, n):
        if not 1 <= n <= 1 << 64:
            raise ValueError(f"n must be 1 to 2**64, got {n}")
        cdef sa_mixer_key words = key_of(key)
        sa_permutation_init(&self.core, &words, n - 1)

    cdef uint64_t below(self, value, str name) except? 0:
        cdef uint64_t word = word_of(value, name)
        if word > self.core.last:
            raise IndexError(f"{name} must be from 0 to {self.core.last}, got {word}")
        return word

    def at(self, position, /):
        """Where a position goes; IndexError outside 0 to n - 1."""
        return sa_permutation_at(&self.core, self.below(position, "position"))

    def index(self, value, /):
        """The position that goes to a value; IndexError outside 0 to n - 1."""
        return sa_permutation_index(&self.core, self.below(value, "value"))

    def fill(self, uint64_t start, uint64_t step, size_t count, /):
        """Where start + i * step go, for i below count, as a uint64 array. The caller keeps them below n."""
        result = numpy.empty(count, dtype=numpy.uint64)
        cdef uint64_t[::1] target = result
        if count:
            with nogil:
                sa_permutation_fill(&self.core, start, step, &target[0], count)
        return result

    def mapped(self, words, bint backwards, /):
        """at, or with ``backwards`` index, of a uint64 array in C order; IndexError for the first one not below n."""
        result = words.copy()
        cdef uint64_t[::1] target = result.reshape(-1)
        cdef size_t count = target.shape[0]
        if count:
            if result.max() > self.core.last:
                position = int(numpy.argmax(result.reshape(-1) > self.core.last))
                wrong = f"got {result.reshape(-1)[position]} at position {position}"
                raise IndexError(f"all must be from 0 to {self.core.last}, {wrong}")
            with nogil:
                sa_permutation_map(&self.core, &target[0], count, backwards)
        return result


cdef class Ladder:
    """n words in increasing order for a key; see SortedSpace. Parameters: key (three words), n (1 to 2**64). Immutable.

    >>> ladder = Ladder((1, 2, 3), 10)
    >>> ladder.ranks(ladder.fill(0, 1, 10))[0].tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    cdef sa_sorted core

    def __cinit__(self, key, n):
        if not 1 <= n <= 1 << 64:
            raise ValueError(f"n must be 1 to 2**64, got {n}")
        self.core.key = key_of(key)
        self.core.last = n - 1

    def at(self, rank, /):
        """The value of a rank; IndexError outside 0 to n - 1."""
        cdef uint64_t word = word_of(rank, "rank")
        if word > self.core.last:
            raise IndexError(f"rank must be from 0 to {self.core.last}, got {word}")
        return sa_sorted_value(&self.core, word)

    def fill(self, uint64_t start, uint64_t step, size_t count, /):
        """The values of ranks start + i * step, for i below count. The caller keeps them below n."""
        result = numpy.empty(count, dtype=numpy.uint64)
        cdef uint64_t[::1] target = result
        if count:
            with nogil:
                sa_sorted_fill(&self.core, start, step, &target[0], count)
        return result

    def values(self, ranks, /):
        """The values of a uint64 array of ranks in C order; IndexError for the first one not below n."""
        result = ranks.copy()
        cdef uint64_t[::1] target = result.reshape(-1)
        cdef size_t count = target.shape[0]
        if count:
            if result.max() > self.core.last:
                raise IndexError(f"ranks must be from 0 to {self.core.last}, got {result.max()}")
            with nogil:
                sa_sorted_values(&self.core, &target[0], count)
        return result

    def ranks(self, words, /):
        """How many values are below each word of a uint64 array in C order, and whether it is a value itself."""
        result, found = words.copy(), numpy.empty(words.shape, dtype=numpy.uint8)
        cdef uint64_t[::1] target = result.reshape(-1)
        cdef uint8_t[::1] hits = found.reshape(-1)
        cdef size_t count = target.shape[0]
        if count:
            with nogil:
                sa_sorted_ranks(&self.core, &target[0], &hits[0], count)
        return result, found.view(numpy.bool_)
