"""Formulas for Python: find one for a block of bytes, grow a block from one; and what this process knows of fills made lately.

Nouns: *formula*, *block*, *expression*, *base* as in core/formula.h; a *start* is the first 16 bytes of a fill, which lead to
the expression that gives it; a *key* is that of a GenerativeSpace.

    starts   dict: 16 bytes -> expression, at most STARTS_MAX, the oldest leave first
    natural  the same for spaces of small seeds from address 0 on; made at the first search
    recent   keys of the spaces used last, the latest first, at most SA_FORMULA_KEYS_MAX

Invariants:
  1. A formula that `find` returns has been grown and compared with the block, byte by byte.
  2. `grow` allocates nothing before the formula has been checked as a whole.
  3. Starts and keys only say what to try: forgetting them loses hits, wrong ones lose time.

Threads: safe under the GIL, which is released for blocks of 256 KiB and more; what is known is copied before.
Cost: `find` in vain 1 to 5 us for any block, a hit 2 to 4 times what growing takes.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memmove

from c_formula cimport *
from c_generator cimport SA_FLOAT32, SA_FLOAT64, SA_UINT64, sa_generator, sa_mixer_key
from spectral_alloc._generator cimport Generator, fill_of, gather_of, key_of, permute_of, unmix_of

from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.space_key import seed_key

cdef enum:
    START_BYTES = 16
    STARTS_MAX = 1024
    SMALL_SEEDS = 64
    NOTE_BYTES_MIN = 1024        # shorter fills are worth little
    RELEASE_GIL_BYTES = 262144   # shorter work costs less than waiting for the GIL again
    TEXT_BYTES_MAX = 128         # as core/formula.h: SA_TEXT_BYTES_MAX

FORMULA_VERSION = SA_FORMULA_VERSION
RAW_BYTES_MAX = SA_FORMULA_RAW_MAX
KEYS_MAX = SA_FORMULA_KEYS_MAX
NOTE_FROM_BYTES = NOTE_BYTES_MIN
PERMUTED, MERSENNE, PCG = SA_PERMUTED, SA_MERSENNE, SA_PCG
NOISE_DOUBLE, NOISE_RAW, NOISE_FLOAT = SA_NOISE_DOUBLE, SA_NOISE_RAW, SA_NOISE_FLOAT

cdef sa_formula_loops loops
loops.fill, loops.gather, loops.unmix, loops.permute = fill_of, gather_of, unmix_of, permute_of

cdef dict starts = {}
cdef dict natural = {}
cdef sa_mixer_key recent[SA_FORMULA_KEYS_MAX]
cdef size_t recent_count = 0


# What is known ----------------------------------------------------------------------------------------------

cdef void remember(const sa_mixer_key *key) noexcept:
    """Put a key first."""
    global recent_count
    cdef size_t place = 0
    while place < recent_count and memcmp(&recent[place], key, sizeof(key[0])) != 0:
        place += 1
    if place == SA_FORMULA_KEYS_MAX:
        place -= 1
    elif place == recent_count:
        recent_count += 1
    memmove(&recent[1], &recent[0], place * sizeof(key[0]))
    recent[0] = key[0]


def remember_key(words):
    """Try the key of a space, three words, for every block that looks like its values."""
    cdef sa_mixer_key key = key_of(words)
    remember(&key)


def remember_start(bytes first not None, bytes expression not None):
    """Try an expression for every block that begins with these 16 bytes."""
    if PyBytes_GET_SIZE(first) != START_BYTES:
        raise ValueError(f"a start has {START_BYTES} bytes, not {len(first)}")
    starts.pop(first, None)
    starts[first] = expression
    while len(starts) > STARTS_MAX:
        starts.pop(next(iter(starts)), None)


cdef int know_small_seeds() except -1:
    """Fill `natural`; what a program of a few lines asks of a space."""
    cdef sa_generator generator
    cdef uint8_t text[TEXT_BYTES_MAX]
    cdef uint8_t first[START_BYTES]
    cdef size_t text_bytes
    cdef dict made = {}
    for seed in range(SMALL_SEEDS):
        generator.key = key_of(seed_key(seed))
        generator.low, generator.span = 0, 1
        for kind in (SA_FLOAT64, SA_FLOAT32, SA_UINT64):
            generator.kind, generator.value_bytes = kind, 4 if kind == SA_FLOAT32 else 8
            text_bytes = sa_space_text(&generator, 0, 1, text)
            fill_of(&generator, 0, 1, first, START_BYTES // generator.value_bytes)
            made[PyBytes_FromStringAndSize(<const char *>first, START_BYTES)] = PyBytes_FromStringAndSize(
                <const char *>text, text_bytes
            )
    natural.update(made)
    return 0


def forget():
    """Know nothing any more, as a new process."""
    global recent_count
    starts.clear()
    recent_count = 0


def known_counts():
    """How many starts and keys are known."""
    return len(starts), recent_count


cdef int note_fill(
    const sa_generator *generator, uint64_t start, uint64_t step, const void *out, size_t out_bytes
) except -1:
    """Remember a fill of a space."""
    cdef uint8_t text[TEXT_BYTES_MAX]
    if out_bytes < NOTE_BYTES_MIN:
        return 0
    remember(&generator.key)
    remember_start(
        PyBytes_FromStringAndSize(<const char *>out, START_BYTES),
        PyBytes_FromStringAndSize(<const char *>text, sa_space_text(generator, start, step, text)),
    )
    return 0


def space_expression(Generator generator not None, uint64_t start, uint64_t step):
    """The expression of a fill of a space."""
    cdef uint8_t text[TEXT_BYTES_MAX]
    return PyBytes_FromStringAndSize(<const char *>text, sa_space_text(&generator.core, start, step, text))


def remember_expression(bytes expression not None):
    """Remember the start of an expression by growing it; returns whether there is one, that is, it is sound."""
    cdef uint8_t first[START_BYTES]
    cdef const char *wrong = sa_formula_grow_expression(
        &loops, <const uint8_t *>PyBytes_AS_STRING(expression), PyBytes_GET_SIZE(expression), first, START_BYTES
    )
    if wrong is NULL:
        remember_start(PyBytes_FromStringAndSize(<const char *>first, START_BYTES), expression)
    return wrong is NULL


# Finding and growing ----------------------------------------------------------------------------------------

cdef object found(const uint8_t *block, size_t raw_bytes):
    cdef sa_formula_known known
    cdef uint8_t *formula = NULL
    cdef size_t length = 0, head = 0, tail = 0
    cdef int result
    cdef bytes start
    cdef object expression = None
    known.loops, known.expression, known.expression_bytes, known.key_count = &loops, NULL, 0, recent_count
    memcpy(known.keys, recent, recent_count * sizeof(sa_mixer_key))
    if not natural:
        know_small_seeds()
    sa_formula_envelope(block, raw_bytes, &head, &tail)
    if raw_bytes - head - tail >= START_BYTES:
        start = PyBytes_FromStringAndSize(<const char *>block + head, START_BYTES)
        expression = starts.get(start)
        if expression is None:
            expression = natural.get(start)
    if expression is not None:
        known.expression = <const uint8_t *>PyBytes_AS_STRING(expression)
        known.expression_bytes = PyBytes_GET_SIZE(expression)
    if raw_bytes < RELEASE_GIL_BYTES:
        result = sa_formula_find(&known, block, raw_bytes, &formula, &length)
    else:
        with nogil:
            result = sa_formula_find(&known, block, raw_bytes, &formula, &length)
    if result == SA_FORMULA_NO_MEMORY:
        raise MemoryError()
    if result == SA_FORMULA_NONE:
        return None
    try:
        note_next(formula, length, raw_bytes)
        return PyBytes_FromStringAndSize(<const char *>formula, length)
    finally:
        free(formula)


cdef int note_next(const uint8_t *formula, size_t length, size_t raw_bytes) except -1:
    """A program that made one fill may have made the next from the same generator."""
    cdef uint8_t text[TEXT_BYTES_MAX]
    cdef uint8_t first[START_BYTES]
    cdef size_t text_bytes = sa_formula_next(&loops, formula, length, raw_bytes, text, first)
    if text_bytes > 0:
        remember_start(
            PyBytes_FromStringAndSize(<const char *>first, START_BYTES),
            PyBytes_FromStringAndSize(<const char *>text, text_bytes),
        )
    return 0


cdef bint is_flat(const uint8_t *block, size_t raw_bytes) noexcept:
    """Not a stream, or one of a single flat value: what many values make of a small block is no formula."""
    cdef size_t head, tail
    if raw_bytes == 0 or block[0] not in (0xB1, 0xD5, 0x80):
        return True
    return sa_formula_envelope(block, raw_bytes, &head, &tail) != 0


cdef object flat_formula_of(bytes stream):
    cdef const uint8_t *block = <const uint8_t *>PyBytes_AS_STRING(stream)
    if not is_flat(block, PyBytes_GET_SIZE(stream)):
        return None
    return found(block, PyBytes_GET_SIZE(stream))


def find(block):
    """The formula of a block (bytes-like, contiguous), or None; MemoryError where there is none to compare with."""
    cdef Py_buffer view
    PyObject_GetBuffer(block, &view, PyBUF_SIMPLE)
    try:
        return found(<const uint8_t *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


def is_runs(block):
    """Whether a block (bytes-like, contiguous) is little else than runs, judged by 64 places of it."""
    cdef Py_buffer view
    PyObject_GetBuffer(block, &view, PyBUF_SIMPLE)
    try:
        return view.len >= SA_RUNS_BYTES_MIN and sa_formula_is_runs(<const uint8_t *>view.buf, view.len) != 0
    finally:
        PyBuffer_Release(&view)


def find_flat(block):
    """As `find`, but None at once for a stream of anything but one flat value."""
    cdef Py_buffer view
    PyObject_GetBuffer(block, &view, PyBUF_SIMPLE)
    try:
        if not is_flat(<const uint8_t *>view.buf, view.len):
            return None
        return found(<const uint8_t *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


def grow(formula, uint64_t raw_bytes):
    """The block of a formula as bytes; CorruptFrameError for one that is not sound, or does not stand for so many bytes."""
    cdef Py_buffer view
    cdef bytes block
    cdef uint8_t *out
    cdef const char *wrong
    PyObject_GetBuffer(formula, &view, PyBUF_SIMPLE)
    try:
        wrong = sa_formula_check(<const uint8_t *>view.buf, view.len, raw_bytes)
        if wrong is NULL:
            block = PyBytes_FromStringAndSize(NULL, raw_bytes)
            out = <uint8_t *>PyBytes_AS_STRING(block)
            if raw_bytes < RELEASE_GIL_BYTES:
                wrong = sa_formula_grow(&loops, <const uint8_t *>view.buf, view.len, out, raw_bytes)
            else:
                with nogil:
                    wrong = sa_formula_grow(&loops, <const uint8_t *>view.buf, view.len, out, raw_bytes)
        if wrong is not NULL:
            raise CorruptFrameError(f"the formula of {raw_bytes} bytes is damaged: {wrong.decode()}")
        return block
    finally:
        PyBuffer_Release(&view)
