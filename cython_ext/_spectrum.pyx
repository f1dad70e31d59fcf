"""Quantizer: owns one sa_spectrum, an immutable table of bands. Truth: core/spectrum.h.

Nouns: *band*, *position*, *index* as in core/spectrum.h; a *frequency* is a finite number > 0.

    Quantizer
      table    sa_spectrum     one allocation: bands | indices | before
    AtomicReference
      value    object          what the readers of now see

Invariants:
  1. table is filled once, in __cinit__, and never written again; check() tests those of core/spectrum.h.
  2. Whatever is refused is refused before an output array is written.
  3. value changes only in replace, which runs no Python code between its test and its assignment.

Threads: a Quantizer is immutable, so every method may run on any thread; nearest releases the GIL. The GIL
makes replace atomic, against signal handlers and finalisers as well as threads.
Cost: index and quantize are O(1), one table query plus the call from Python; memory is 24 bytes a band.
"""

from libc.math cimport fabs
from libc.stdint cimport int32_t, int64_t

from c_spectrum cimport (
    SA_SPECTRUM_BAND_COUNT_MAX, sa_spectrum, sa_spectrum_check, sa_spectrum_first_bad,
    sa_spectrum_first_unsorted, sa_spectrum_free, sa_spectrum_is_frequency, sa_spectrum_nearest,
    sa_spectrum_new, sa_spectrum_position,
)

import numpy


cdef double frequency_of(object t) except? -1.0:
    """The number t as a frequency, or ValueError (TypeError for what is no real number) that names it."""
    cdef double value
    try:
        value = t
    except TypeError as error:
        raise TypeError(f"t must be a real number, got {t!r} of type {type(t).__name__}") from error
    except OverflowError as error:
        kind = type(t).__name__
        raise ValueError(f"t must be a finite number > 0, got an {kind} too large for float64") from error
    if not sa_spectrum_is_frequency(value):
        raise ValueError(f"t must be a finite number > 0, got {t!r}")
    return value


cdef class Quantizer:
    """An immutable table of bands that finds the nearest one to a frequency in constant time.

    Parameters: bands (float64 frequencies, strictly increasing), indices (int64, the number that each band is
    known by; from 0 when left out). Both are copied.
    Errors: ValueError when bands are empty, too many, not frequencies or not increasing, or indices are not
    as many; TypeError when indices are not integers.
    Between two bands the answer is the upper one exactly when ``upper - t < t - lower`` in float64: a tie
    goes to the lower band.
    Cost: O(bands) to build, 24 bytes a band; see the methods. Threads: immutable, share it freely.

    >>> quantizer = Quantizer([14.0, 21.0, 25.0], indices=[1, 2, 3])
    >>> quantizer.index(20.0), quantizer.index(17.5), quantizer.index(1e9)
    (2, 1, 3)
    >>> quantizer.quantize(20.0)
    (2, 21.0, 1.0)
    >>> quantizer.nearest([1.0, 17.6, 30.0])
    array([1, 2, 3])
    """

    cdef sa_spectrum table

    def __cinit__(self, bands, indices=None):
        cdef const double[::1] band_view = numpy.ascontiguousarray(bands, dtype=numpy.float64)
        cdef int64_t count = band_view.shape[0]
        cdef const int64_t[::1] index_view = as_int64(numpy.arange(count) if indices is None else indices)
        cdef int64_t unsorted
        if not 1 <= count <= SA_SPECTRUM_BAND_COUNT_MAX:
            raise ValueError(f"bands must be 1 to {SA_SPECTRUM_BAND_COUNT_MAX}, got {count}")
        if index_view.shape[0] != count:
            raise ValueError(f"indices must be as many as the {count} bands, got {index_view.shape[0]}")
        unsorted = sa_spectrum_first_unsorted(&band_view[0], count)
        if unsorted != count:
            wrong = f"got {band_view[unsorted]!r} at position {unsorted}"
            raise ValueError(f"bands must be finite, > 0 and strictly increasing, {wrong}")
        if sa_spectrum_new(&self.table, &band_view[0], &index_view[0], count) != 0:
            raise MemoryError(f"no memory for a table of {count} bands")

    def __dealloc__(self):
        sa_spectrum_free(&self.table)

    def __len__(self):
        return self.table.count

    def __reduce__(self):
        return Quantizer, self.as_arrays()

    def as_arrays(self):
        """Copies of the bands and of their indices, as two arrays. O(bands)."""
        cdef int32_t count = self.table.count
        return numpy.array(<double[:count]>self.table.bands), numpy.array(<int64_t[:count]>self.table.indices)

    def index(self, t, /):
        """The index of the band nearest to t. O(1); ValueError or TypeError that names a bad t."""
        return self.table.indices[sa_spectrum_position(&self.table, frequency_of(t))]

    def quantize(self, t, /):
        """Index and frequency of the band nearest to t, and its distance from t. O(1); errors as index."""
        cdef double value = frequency_of(t)
        cdef int32_t position = sa_spectrum_position(&self.table, value)
        cdef double band = self.table.bands[position]
        return self.table.indices[position], band, fabs(value - band)

    def nearest(self, array, /, out=None):
        """The indices of the bands nearest to the elements of an array, as int64 in its shape.

        Parameters: array (anything that numpy takes as numbers), out (an int64 array for the result,
        C-contiguous, in the same shape; a new one when left out). Returns out.
        Errors: those of index for the first bad element, naming its position; then out is unchanged.
        Cost: O(elements), without the GIL. A float64 array in C order is not copied.
        """
        source = as_float64(array)
        if out is None:
            out = numpy.empty(source.shape, dtype=numpy.int64)
        elif not isinstance(out, numpy.ndarray) or out.dtype != numpy.int64 or not out.dtype.isnative:
            raise TypeError(f"out must be an int64 array, got {getattr(out, 'dtype', type(out))}")
        elif out.shape != source.shape or not out.flags.c_contiguous or not out.flags.writeable:
            wanted = f"writable, C-contiguous and of shape {source.shape}"
            raise ValueError(f"out must be {wanted}, got shape {out.shape} with\n{out.flags}")
        cdef const double[::1] source_view = source.reshape(-1)
        cdef int64_t[::1] out_view = out.reshape(-1)
        cdef int64_t length = source_view.shape[0]
        cdef int64_t bad
        if length == 0:
            return out
        with nogil:
            bad = sa_spectrum_first_bad(&source_view[0], length)
            if bad == length:
                sa_spectrum_nearest(&self.table, &source_view[0], length, &out_view[0])
        if bad != length:
            wrong = f"got {source_view[bad]!r} at {place_of(bad, source.shape)}"
            raise ValueError(f"t must be finite numbers > 0, {wrong}")
        return out

    def check(self):
        """Test every invariant of the table, O(bands); AssertionError names the one that is broken."""
        cdef int broken = sa_spectrum_check(&self.table)
        if broken != 0:
            raise AssertionError(f"invariant {broken} of core/spectrum.h is broken")


cdef class AtomicReference:
    """A reference that is replaced only when it still is what the writer started from.

    A lock would serve threads as well; this also serves a fork in the middle of a change, and a change that a
    signal handler or a finaliser makes in the middle of another one.
    Cost: O(1). Threads: any.

    >>> reference = AtomicReference("old")
    >>> reference.replace("other", "new"), reference.value
    (False, 'old')
    """

    cdef readonly object value

    def __cinit__(self, value):
        self.value = value

    def replace(self, expected, value, /):
        """Make value the new one if expected is the present one; returns whether it did."""
        cdef object previous = self.value  # so that its finaliser runs after the change
        if previous is not expected:
            return False
        self.value = value
        return True


def place_of(position, shape):
    """How a message names the element of an array that has this position in C order."""
    if len(shape) == 1:
        return f"position {position}"
    return "position " + repr(tuple(map(int, numpy.unravel_index(position, shape))))


def as_int64(indices):
    """An array-like of integers as int64 in C order; fractions are refused, not cut off."""
    return numpy.asarray(indices).astype(numpy.int64, order="C", casting="safe")


def as_float64(array):
    """An array-like as float64 in C order; elements that are no real numbers are named by position."""
    converted = numpy.asarray(array)
    if converted.dtype.kind in "biuf":
        return numpy.asarray(converted, dtype=numpy.float64, order="C")
    if converted.dtype.kind not in "OUSc":
        raise TypeError(f"t must be real numbers, got an array of {converted.dtype}")
    return as_float64_slow(numpy.asarray(array, dtype=object))


def as_float64_slow(objects):
    """The same for arrays of Python objects, one by one, so that each is judged as a single t is."""
    result = numpy.empty(objects.shape, dtype=numpy.float64)
    flat = result.reshape(-1)
    for position, element in enumerate(objects.flat):
        try:
            flat[position] = frequency_of(element)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error} at {place_of(position, objects.shape)}") from error
    return result
