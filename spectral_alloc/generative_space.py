"""GenerativeSpace: 2**64 addresses that already hold a value, computed when it is read, with edits over them.

Words: an *address* is a whole number from 0 to 2**64 - 1; what the function gives there is the *generated* value; an
*edit* is a value that was written over it; the *kind* says what values are (value_kind.py); *bits* are the 64 bits of
an address that its generated value is made of: a bijection, so that every word is the bits of exactly one address.

Invariants:
1. A value depends on seed, version, kind and address, and on the edit if there is one; on nothing else, on any machine.
2. One address, slices, fill and gather give the same values, at every level of vector instructions, from any thread.

Threads: any method from any thread; arrays are worked on without the GIL. Which locks: cython_ext/_overlay.pyx.
"""

import contextlib
import math
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, SupportsIndex, overload

import numpy
from numpy.typing import ArrayLike, DTypeLike, NDArray

from spectral_alloc._address import WORD_COUNT, as_word, as_words
from spectral_alloc._formula import remember_key
from spectral_alloc._generator import Generator
from spectral_alloc._overlay import Overlay
from spectral_alloc._space import SpaceCore
from spectral_alloc.edit_file import save_snapshot
from spectral_alloc.edit_log import EditLog, LogReport
from spectral_alloc.errors import LockedError
from spectral_alloc.file_system import REAL_FILE_SYSTEM
from spectral_alloc.hilbert import SIDE, hilbert_places
from spectral_alloc.permutation import Permutation
from spectral_alloc.progression import WORD_MASK, progression
from spectral_alloc.space_key import VERSION, Seed, normal_seed, seed_key
from spectral_alloc.space_touch import owners, space_array
from spectral_alloc.value_kind import Values, value_kind

__all__ = ["FastGMemContext", "GenerativeSpace"]

EDITS_PER_BLOCK = 4096


class GenerativeSpace(SpaceCore):
    """2**64 addresses that hold a value each: a pure function of the seed and the address, until one is written.

    Parameters: seed (int of any size, str or bytes; hashed, so that spaces of different seeds are unrelated), values
    (what stands at the addresses: "float64" and "float32" in [0, 1), "uint64", "normal", or a range for whole numbers).
    Errors: TypeError, ValueError for another seed or values.
    ``space[a]``, ``space[a:b:s]``, ``space[array]`` read, assignments write, ``del`` brings the generated value back.
    Addresses outside 0 to 2**64 - 1 raise IndexError; nothing wraps around. Equal if seed, values and edits are.
    Cost: a value 50 ns from Python, under 1 ns in arrays; an edit 26 to 51 bytes. Threads: any.

    >>> space = GenerativeSpace(seed=1337)
    >>> space[999] == space.fetch(address=999), [space[2**64 - 1]] == space[2**64 - 1 : 2**64].tolist()
    (True, True)
    >>> generated = space[999]
    >>> space[999] = 3.14
    >>> space[998:1001].tolist() == [space[998], 3.14, space[1000]]
    True
    >>> del space[999]
    >>> space[999] == generated
    True
    """

    #: Version of the function; the values of a version never change.
    version = VERSION

    def __init__(self, seed: Seed = 0, *, values: Values = "float64") -> None:
        self._seed = normal_seed(seed)
        self._kind = value_kind(values)
        self._log: EditLog | None = None
        self._set_up(Generator(seed_key(self._seed), self._kind.code, self._kind.low, self._kind.span))
        remember_key(self.generator.key)

    @property
    def seed(self) -> int | str | bytes:
        """The seed that the space was made with."""
        return self._seed

    @property
    def values(self) -> Values:
        """What stands at the addresses, as it was given."""
        return self._kind.values

    @property
    def dtype(self) -> "numpy.dtype[Any]":
        """The numpy type of arrays of values."""
        return self._kind.dtype

    # Reading many

    def _get_item(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._slice(index)
        if isinstance(index, numpy.ndarray | list):
            return self.gather(index)
        return self.fetch(index)

    def _slice(self, index: slice) -> NDArray[Any]:
        start, step, count = progression(index, WORD_COUNT, self.dtype.itemsize)
        out = numpy.empty(count, dtype=self.dtype)
        self._fill(out, start, step)
        return out

    def fill(self, out: NDArray[Any], start: SupportsIndex = 0, step: SupportsIndex = 1) -> NDArray[Any]:
        """Put the values of start, start + step, ... into an array, in C order.

        Parameters: out (a writable C-contiguous array of this space's dtype, of any shape), start (the first address),
        step (not 0; may be negative). Returns out.
        Errors: TypeError, ValueError for another out or step, IndexError if an address lies outside; out is unchanged.
        Cost: under 1 ns a value; from 1 MB on, stores go past the caches. Threads: any, without the GIL.

        >>> import numpy
        >>> space = GenerativeSpace(seed=1)
        >>> bool((space.fill(numpy.empty((2, 3)), start=5) == space[5:11].reshape(2, 3)).all())
        True
        """
        self._check_out(out)
        first, stride = as_word(start, "start"), 1 if step == 1 else step.__index__()
        if stride == 0:
            raise ValueError("step must not be 0")
        last = first + stride * max(out.size - 1, 0)
        if not 0 <= last < WORD_COUNT:
            many = f"{out.size} of them from {first}"
            raise IndexError(f"addresses must be from 0 to 2**64 - 1, but {many} end at {last}")
        self._fill(out, first, stride & WORD_MASK)
        return out

    def gather(self, addresses: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the values of many addresses, in the shape of the array.

        Parameters: addresses (integers from 0 to 2**64 - 1), out (an array for the result; new when left out).
        Errors: IndexError naming the first address outside and its position, TypeError, ValueError as ``fill``.
        Cost: some 2 ns a value, twice that with edits nearby. Threads: any, without the GIL.

        >>> GenerativeSpace(values="uint64").gather([7, 2**64 - 1]).dtype
        dtype('uint64')
        """
        words = as_words(addresses)
        if out is None:
            out = numpy.empty(words.shape, dtype=self.dtype)
        self._check_out(out)
        if out.shape != words.shape:
            raise ValueError(f"out must be of shape {words.shape}, got {out.shape}")
        self._gather(out, words.reshape(-1))
        return out

    def _check_out(self, out: Any) -> None:
        """Refuse what values cannot be put into."""
        if not isinstance(out, numpy.ndarray) or out.dtype != self.dtype:
            got = f"an array of {out.dtype}" if isinstance(out, numpy.ndarray) else f"{type(out).__name__}"
            raise TypeError(f"out must be an array of {self.dtype}, got {got}")
        if not out.flags.c_contiguous or not out.flags.writeable:
            raise ValueError("out must be C-contiguous and writable")

    def window(self, start: SupportsIndex | tuple[int, int], shape: SupportsIndex | tuple[int, ...]) -> NDArray[Any]:
        """Return a part of the space as an array of its own.

        Parameters: start (an address: the window is filled from there in C order; or a row and a column below 2**32: a
        window on the plane that Hilbert's curve lays along the addresses, where what is near has near addresses), shape
        (of the array; two lengths on the plane).
        Errors: IndexError if the window leaves the space, ValueError and TypeError for another shape, MemoryError.
        Cost: as ``fill``; on the plane some 300 ns a value more, for the curve. Threads: any.

        >>> space = GenerativeSpace(seed=1)
        >>> space.window(10, (2, 2)).tolist() == [[space[10], space[11]], [space[12], space[13]]]
        True
        >>> space.window((0, 0), (2, 2)).tolist() == [[space[0], space[1]], [space[3], space[2]]]
        True
        """
        lengths = tuple(as_word(length, "a length") for length in (shape if isinstance(shape, tuple) else (shape,)))
        if not isinstance(start, tuple):
            first, count = as_word(start, "start"), math.prod(lengths)
            if first + count > WORD_COUNT:
                raise IndexError(f"a window of {count} values from {first} goes beyond 2**64 - 1")
            return self._slice(slice(first, first + count)).reshape(lengths)
        if len(start) != 2 or len(lengths) != 2:
            raise ValueError(f"a window on the plane needs a row, a column and two lengths, got {start} and {lengths}")
        axes = []
        for name, begin, length in zip(("row", "column"), start, lengths, strict=True):
            end = as_word(begin, name) + length
            if end > SIDE:
                raise IndexError(f"{name}s must be from 0 to 2**32 - 1, but the window ends at {end}")
            axes.append(numpy.arange(begin, end, dtype=numpy.uint64))
        return self.gather(hilbert_places(axes[0][:, None], axes[1][None, :]))

    def array(
        self,
        shape: SupportsIndex | Sequence[SupportsIndex],
        dtype: DTypeLike | None = None,
        start: SupportsIndex = 0,
        *,
        resident_limit: int | str | None = None,
        spill_dir: str | os.PathLike[str] | None = None,
        disk_limit: int | str | None = None,
    ) -> NDArray[Any]:
        """An ordinary numpy array of the values from start on, larger than memory if need be: pages come when touched.

        Parameters: shape, dtype (that of this space), start (address of the first value), resident_limit (bytes, or
        text such as "500 MB", that its pages may take in memory; None: a quarter of the process's limit), spill_dir,
        disk_limit (for edited pages that leave memory). The array is written like any other; its edits are in the space
        after ``flush``, and at the latest when the array goes. Edits of the space are seen in the array at once.
        Errors: IndexError beyond 2**64 - 1, TypeError for another dtype, ValueError, MemoryError without addresses.
        Cost: opens in microseconds; a random touch 5 to 10 us, in sequence under 1 ns a byte: ``gather`` is for speed.
        Threads: any. docs/touch.md tells the limits.

        >>> space = GenerativeSpace(seed=1337)
        >>> array = space.array((2**17, 2**20))                        # a tebibyte
        >>> bool(array[99, 7] == space[99 * 2**20 + 7]), array.nbytes == 2**40
        (True, True)
        """
        limits = resident_limit, spill_dir, disk_limit
        return space_array(self, self.dtype, shape, dtype, start, *limits)

    def flush(self) -> None:
        """Make what was written to arrays of this space edits of it. Errors: as ``spectral_alloc.touch.flush``.

        >>> space = GenerativeSpace(seed=1)
        >>> array = space.array(100)
        >>> array[7] = 0.5
        >>> space.flush(); space[7]
        0.5
        """
        for owner in owners(self.overlay):
            owner.flush()

    # Writing many

    def _set_item(self, index: Any, values: Any) -> None:
        if isinstance(index, slice):
            self.scatter(self._slice_addresses(index), values)
        elif isinstance(index, numpy.ndarray | list):
            self.scatter(index, values)
        else:
            self.write(index, values)

    def _delete_item(self, index: Any) -> None:
        if isinstance(index, slice):
            start, step, count = progression(index, WORD_COUNT, 0)
            edited, _ = self.overlay.edits()
            places = (edited - numpy.uint64(start)) if step >> 63 == 0 else (numpy.uint64(start) - edited)
            stride = step if step >> 63 == 0 else WORD_COUNT - step
            self._remove(edited[(places % numpy.uint64(stride) == 0) & (places // numpy.uint64(stride) < count)])
        elif isinstance(index, numpy.ndarray | list):
            self._remove(as_words(index).reshape(-1))
        else:
            del self[as_word(index)]

    def _remove(self, addresses: NDArray[numpy.uint64]) -> None:
        """Take edits away."""
        removed = numpy.ones(len(addresses), dtype=numpy.uint8)
        self._scatter(addresses, numpy.zeros(len(addresses), dtype=numpy.uint64), removed)

    def _slice_addresses(self, index: slice) -> NDArray[numpy.uint64]:
        """The addresses of a slice."""
        start, step, count = progression(index, WORD_COUNT, 8)
        return numpy.uint64(start) + numpy.arange(count, dtype=numpy.uint64) * numpy.uint64(step)

    def scatter(self, addresses: ArrayLike, values: ArrayLike) -> None:
        """Write many values; of several for one address the last stays.

        Parameters: addresses (integers from 0 to 2**64 - 1), values (numbers of this kind in the same shape, or one).
        Errors: IndexError, TypeError, ValueError that name what is wrong, and nothing is written; MemoryError.
        With a log on a full disk it raises OSError with a note that says how many edits, from the first on, were made.
        Cost: 10 to 30 ns an edit, without the GIL; others see it page by page. Threads: any.

        >>> space = GenerativeSpace()
        >>> space.scatter([1, 2**64 - 1], [0.5, 0.25]); list(space.edits())
        [(1, 0.5), (18446744073709551615, 0.25)]
        """
        words = as_words(addresses)
        raws = self._kind.raws(values, words.shape)
        self._scatter(words.reshape(-1), raws.reshape(-1))

    # The function itself

    @overload
    def bits(self, address: int) -> int: ...
    @overload
    def bits(self, address: NDArray[Any] | list[int]) -> NDArray[numpy.uint64]: ...
    def bits(self, address: Any) -> Any:
        """Return the 64 bits that the function gives an address, edited or not; no two addresses have the same.

        Parameters: address (one, or an array). Errors: IndexError outside, TypeError. Cost: 5 ns, arrays 1 ns each.

        >>> space = GenerativeSpace(seed=1337)
        >>> space.bits(999) >> 11 == space[999] * 2**53
        True
        """
        return self.generator.bits(address if isinstance(address, numpy.ndarray | list) else as_word(address))

    @overload
    def address_of(self, bits: int) -> int: ...
    @overload
    def address_of(self, bits: NDArray[Any] | list[int]) -> NDArray[numpy.uint64]: ...
    def address_of(self, bits: Any) -> Any:
        """Return the one address that has these bits: the inverse of ``bits``, in constant time.

        >>> space = GenerativeSpace(seed=1337)
        >>> space.address_of(space.bits(999)), [space.address_of(0)] == space.address_of([0]).tolist()
        (999, True)
        """
        return self.generator.address_of(bits if isinstance(bits, numpy.ndarray | list) else as_word(bits, "bits"))

    def permutation(self, n: SupportsIndex) -> Permutation:
        """Return a permutation of 0 .. n - 1 that belongs to this seed, with random access and no memory.

        >>> sorted(GenerativeSpace(seed=1).permutation(4))
        [0, 1, 2, 3]
        """
        return Permutation(n, self._seed)

    # Edits

    @property
    def edit_count(self) -> int:
        """How many addresses have been written and not deleted."""
        return len(self.overlay)

    def edit_arrays(self) -> tuple[NDArray[numpy.uint64], NDArray[Any]]:
        """Return all edits in the order of their addresses: an array of addresses and one of values.

        Cost: some 20 ns an edit; writers wait for the first half of it, readers never.
        """
        addresses, raws = self.overlay.edits()
        if self.dtype.itemsize == 4:
            return addresses, raws.astype(numpy.uint32).view(self.dtype)
        return addresses, raws.view(self.dtype)

    def edits(self) -> Iterator[tuple[int, Any]]:
        """Iterate over (address, value) of all edits at the time of the call, in the order of the addresses."""
        addresses, values = self.edit_arrays()
        for start in range(0, len(addresses), EDITS_PER_BLOCK):
            block = slice(start, start + EDITS_PER_BLOCK)
            yield from zip(addresses[block].tolist(), values[block].tolist(), strict=True)

    def clear_edits(self) -> None:
        """Take all edits away: every address holds its generated value again."""
        if self.overlay.journal is None and not owners(self.overlay):
            self.overlay.clear()
        else:
            self._remove(self.overlay.edits()[0])

    def copy(self) -> "GenerativeSpace":
        """Return another space with the same seed, values and edits; neither sees later edits of the other."""
        return _restored(type(self), self._seed, self.values, *self.overlay.edits())

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> "GenerativeSpace":
        return self.copy()

    def __reduce__(self) -> tuple[Callable[..., "GenerativeSpace"], tuple[Any, ...]]:
        return _restored, (type(self), self._seed, self.values, *self.overlay.edits())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GenerativeSpace):
            return NotImplemented
        mine, its = self.generator, other.generator
        if (mine.key, mine.kind, mine.low, mine.span) != (its.key, its.kind, its.low, its.span):
            return False
        return all(map(numpy.array_equal, self.overlay.edits(), other.overlay.edits()))

    __hash__ = None  # type: ignore[assignment]  # it changes when it is written

    # Edits that last

    def attach(
        self, path: str | os.PathLike[str], durability: str = "interval", *, interval_seconds: float = 0.1
    ) -> "GenerativeSpace":
        """Keep the edits in a log: those that are in the file now, and all that are made from now on.

        Parameters: path (made if it is not there), durability ("none": written in batches and at ``sync``, "interval":
        and on stable storage after interval_seconds, "always": before a write returns), interval_seconds (0.001 to
        3600). Returns the space; leaving ``with`` detaches. Edits made before, in arrays too, go to a log that is new.
        Errors: ValueError for the log of another space, or if both have edits; LockedError if the file is in use;
        CorruptLogError if it is damaged, OSError; those of ``flush``.
        Cost: 50 ns for each edit in the file. Later 5 ns an edit more, and the disk's time with "always".

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with GenerativeSpace(seed=1).attach(directory + "/edits.log") as space:
        ...         space[999] = 3.14
        ...     with GenerativeSpace(seed=1).attach(directory + "/edits.log") as space:
        ...         space[999]
        3.14
        """
        if self._log is not None:
            raise ValueError(f"the space has a log already, {self._log.path}; detach() it first")
        self.flush()  # what is only in arrays counts too: the edits of the file would be shown over it
        self._log = EditLog(
            path, self.overlay, self.generator, durability=durability, interval_seconds=interval_seconds
        )
        self._closer = weakref.finalize(self, self._log.close_quietly)
        for owner in owners(self.overlay):
            with self.overlay.telling:
                owner.edits_came(*self.overlay.edits(), None)
            owner.flush_at_end()
        return self

    def detach(self) -> None:
        """Make all edits durable and go on in memory only; nothing happens without a log. Errors: OSError."""
        if self._log is not None:
            with contextlib.suppress(LockedError):  # a forked child's log takes nothing: the edits stay in the arrays
                self.flush()
            self._log.close()
            self._closer.detach()
            self._log = None

    def _attached(self) -> EditLog:
        """The log, or an error that says that there is none."""
        if self._log is None:
            raise ValueError("the space has no log; attach() one first")
        return self._log

    def sync(self) -> None:
        """Return when all edits made before the call, in arrays too, are durable.

        Errors: ValueError without a log, OSError.
        """
        log = self._attached()
        self.flush()
        log.sync()

    def compact(self) -> None:
        """Shorten the log to the present edits; edits and reads go on meanwhile. Errors: as ``sync``; then it stays."""
        self._attached().compact()

    def snapshot(self, path: str | os.PathLike[str]) -> None:
        """Write the present edits to a file that ``attach`` takes, as a whole or not at all.

        Errors: ValueError for the log of this space, under whatever name; LockedError for that of another open one, and
        if another snapshot is being written there; OSError. Cost: 50 ns an edit.
        """
        if self._log is not None:
            self._log.snapshot(path)
        else:
            save_snapshot(os.path.abspath(path), self.overlay, self.generator, REAL_FILE_SYSTEM)

    def log_report(self) -> LogReport:
        """Where the log stands: edits taken and durable, bytes, what was replayed and cut off when it was attached."""
        return self._attached().report()

    def __enter__(self) -> "GenerativeSpace":
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    def check(self) -> None:
        """Test every invariant of the table of edits, O(edits); AssertionError says which is broken."""
        self.overlay.check()

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a space has 2**64 values: iterate over a slice, or over space.edits()")

    def __contains__(self, item: object) -> bool:
        raise TypeError("every value is somewhere: ask space.is_edited(address), or space.address_of(bits)")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} seed={self._seed!r} values={self.values!r}, {self.edit_count} edits>"


class FastGMemContext(GenerativeSpace):
    """A GenerativeSpace under the name and with the signatures of an older prototype; the values are other ones.

    >>> context = FastGMemContext(1337)
    >>> context.write(address=999, value=3.14)
    >>> context.fetch(address=999)
    3.14
    """

    def __init__(self, seed: Seed = 0, *, values: Values = "float64") -> None:
        super().__init__(seed, values=values)


def _restored(
    kind: type[GenerativeSpace],
    seed: Seed,
    values: Values,
    addresses: NDArray[numpy.uint64],
    raws: NDArray[numpy.uint64],
) -> GenerativeSpace:
    """A space with these edits: what copy and pickle call."""
    space = kind(seed, values=values)
    overlay = Overlay()
    overlay.write(addresses, raws)
    space._set_up(space.generator, overlay)
    return space
