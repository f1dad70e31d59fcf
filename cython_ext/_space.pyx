"""SpaceCore: reads and writes of a GenerativeSpace, one address or many; what is not on the hot path is in Python.

Nouns: *raw*, *kind* as in core/generator.h; *edit*, *overlay* as in core/overlay.h.

    read    overlay, if the address has an edit; else generator        write   overlay

Invariants:
  1. One address and many give the same values: arrays are generated whole, then edits are laid over them.
  2. A value that cannot be kept exactly as its kind says is refused before anything is written.

Threads: any method from any thread; arrays are worked on without the GIL. Which locks: _overlay.pyx.
Cost: fetch some 50 ns from Python, of which 5 are the function; arrays see core/mixer.h and core/overlay_bulk.h.
"""
from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from libc.math cimport isfinite, isinf
from libc.stdint cimport int64_t, uint8_t, uint64_t

from c_generator cimport *
from spectral_alloc._address cimport word_of
from spectral_alloc._formula cimport note_fill
from spectral_alloc._generator cimport Generator
from spectral_alloc._overlay cimport Overlay

import operator


cdef double double_of(object value) except? -1.0:
    """A real number as a double; a whole number that a double cannot hold is refused, as are texts."""
    if hasattr(type(value), "__index__"):
        value = operator.index(value)
    elif isinstance(value, (str, bytes, bytearray)):
        raise TypeError(f"value must be a real number, got {value!r} of type {type(value).__name__}")
    try:
        number = float(value)
    except TypeError:
        raise TypeError(f"value must be a real number, got {value!r} of type {type(value).__name__}") from None
    except OverflowError:
        raise ValueError(f"value must fit in a float64, got an int of {value.bit_length()} bits") from None
    if isinstance(value, int) and int(number) != value:
        raise ValueError(f"value must be a number that a float64 holds exactly, got {value}")
    return number


cdef uint64_t float32_raw_of(object value) except? 0:
    cdef double number = double_of(value)
    cdef float narrow = <float>number
    if isinf(narrow) and isfinite(number):
        raise ValueError(f"value must be in the range of float32, got {number}")
    if narrow != number and hasattr(type(value), "__index__"):
        raise ValueError(f"value must be a number that a float32 holds exactly, got {value}")
    return sa_raw_of_float(narrow)


cdef uint64_t whole_raw_of(object value, object low, object high) except? 0:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"value must be an int, got {value!r} of type {type(value).__name__}") from None
    if not low <= number <= high:
        raise ValueError(f"value must be from {low} to {high}, got {number}")
    return number & 0xFFFFFFFFFFFFFFFF


cdef class SpaceCore:
    """A generator with edits over it; see GenerativeSpace, which adds everything that need not be fast."""

    def __cinit__(self, *arguments, **settings):
        self.generator = Generator((0, 0, 0))
        self.overlay = Overlay()

    def _set_up(self, Generator generator not None, Overlay overlay=None, /):
        """Take another generator, and edits if given."""
        self.generator = generator
        if overlay is not None:
            self.overlay = overlay

    cdef uint64_t raw_of(self, object value) except? 0:
        """The raw value of what a user wrote; TypeError or ValueError for what its kind cannot hold."""
        cdef int kind = self.generator.core.kind
        if kind == SA_FLOAT64 or kind == SA_NORMAL:
            return sa_raw_of_double(PyFloat_AS_DOUBLE(value) if PyFloat_CheckExact(value) else double_of(value))
        if kind == SA_FLOAT32:
            return float32_raw_of(value)
        if kind == SA_UINT64:
            return whole_raw_of(value, 0, (1 << 64) - 1)
        return whole_raw_of(value, -(1 << 63), (1 << 63) - 1)

    cdef object value_of(self, uint64_t raw):
        """The Python number of a raw value."""
        cdef int kind = self.generator.core.kind
        if kind == SA_FLOAT64 or kind == SA_NORMAL:
            return sa_double_of_raw(raw)
        if kind == SA_FLOAT32:
            return <double>sa_float_of_raw(raw)
        return raw if kind == SA_UINT64 else <int64_t>raw

    cdef object read(self, uint64_t address):
        cdef uint64_t raw
        if (self.overlay.core.table.count != 0 or self.overlay.writers != 0) and self.overlay.find(address, &raw):
            return self.value_of(raw)
        return self.value_of(sa_generator_raw(&self.generator.core, address))

    def fetch(self, address):
        """The value at an address: what was written there last, else what the function gives.

        Parameters: address (int from 0 to 2**64 - 1). Errors: IndexError outside, TypeError for what is no int.
        Cost: some 50 ns, nothing is kept. Threads: any.

        >>> from spectral_alloc import GenerativeSpace
        >>> GenerativeSpace(seed=1337).fetch(address=999)
        0.5468769536579655
        """
        return self.read(word_of(address, "address"))

    def write(self, address, value):
        """Put a value at an address; it stays there until it is deleted or written again.

        Parameters: address (int from 0 to 2**64 - 1), value (a number of the space's kind).
        Errors: IndexError, TypeError, ValueError that name what is wrong, and nothing is written; MemoryError.
        Cost: some 100 ns, 26 to 51 bytes of memory. Threads: any.
        """
        cdef uint64_t word = word_of(address, "address")
        self.overlay.put(word, self.raw_of(value))

    def __getitem__(self, address):
        if PyLong_CheckExact(address):
            return self.read(word_of(address, "address"))
        return self._get_item(address)

    def __setitem__(self, address, value):
        cdef uint64_t word
        if PyLong_CheckExact(address):
            word = word_of(address, "address")
            self.overlay.put(word, self.raw_of(value))
        else:
            self._set_item(address, value)

    def __delitem__(self, address):
        if PyLong_CheckExact(address):
            self.overlay.remove(word_of(address, "address"))
        else:
            self._delete_item(address)

    def is_edited(self, address):
        """Whether a value was written at an address. Errors: as ``fetch``. Cost: O(1)."""
        cdef uint64_t raw
        return self.overlay.find(word_of(address, "address"), &raw)

    def _fill(self, out, uint64_t start, uint64_t step, /):
        """Put the values of start, start + step, ... into an array of the space's type, in C order."""
        cdef Py_buffer view
        cdef size_t count
        cdef bint patched = self.overlay.writers != 0 or self.overlay.core.table.count != 0
        PyObject_GetBuffer(out, &view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        try:
            count = <size_t>view.len // self.generator.core.value_bytes
            with nogil:
                self.generator.fill(start, step, view.buf, count)
            if patched and count:
                self.overlay.patch_fill(start, step, view.buf, count, self.generator.core.value_bytes)
            note_fill(&self.generator.core, start, step, view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def _gather(self, out, addresses, /):
        """Put the values of a uint64 array of addresses into an array of the space's type; both in C order."""
        cdef const uint64_t[::1] wanted = addresses
        cdef Py_buffer view
        cdef size_t count = wanted.shape[0]
        cdef bint patched = self.overlay.writers != 0 or self.overlay.core.table.count != 0
        if count == 0:
            return
        PyObject_GetBuffer(out, &view, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        try:
            if <size_t>view.len != count * self.generator.core.value_bytes:
                raise ValueError(f"out has {view.len} bytes for {count} values")
            with nogil:
                self.generator.gather(&wanted[0], view.buf, count)
            if patched:
                self.overlay.patch_gather(&wanted[0], view.buf, count, self.generator.core.value_bytes)
        finally:
            PyBuffer_Release(&view)

    def _scatter(self, addresses, raws, removed=None, /):
        """Write raw values, or remove edits: arrays as Overlay.write takes them."""
        self.overlay.write(addresses, raws, removed)

    def _raw(self, value, /):
        """The raw value of a number, as ``write`` would keep it."""
        return self.raw_of(value)

    def _value(self, uint64_t raw, /):
        """The number of a raw value."""
        return self.value_of(raw)
