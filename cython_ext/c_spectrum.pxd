"""Extern declarations of core/spectrum.h; the meaning, invariants and costs stand there."""

from libc.stdint cimport int32_t, int64_t


cdef extern from "spectrum.h" nogil:
    enum:
        SA_SPECTRUM_BAND_COUNT_MAX

    ctypedef struct sa_spectrum:
        double *bands
        int64_t *indices
        int32_t count

    bint sa_spectrum_is_frequency(double t)
    int64_t sa_spectrum_first_bad(const double *t, int64_t length)
    int64_t sa_spectrum_first_unsorted(const double *bands, int64_t count)
    int sa_spectrum_new(sa_spectrum *spectrum, const double *bands, const int64_t *indices, int64_t count)
    void sa_spectrum_free(sa_spectrum *spectrum)
    int32_t sa_spectrum_position(const sa_spectrum *spectrum, double t)
    void sa_spectrum_nearest(const sa_spectrum *spectrum, const double *t, int64_t length, int64_t *out)
    int sa_spectrum_check(const sa_spectrum *spectrum)
