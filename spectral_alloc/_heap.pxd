# The C side of _heap.pyx, for the other compiled modules that look into a heap.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from c_spectrum cimport sa_spectrum
from spectral_alloc._heap_moves cimport HeapMoves
from spectral_alloc.memory_api cimport spectral_memory_api


cdef class Pin:
    cdef HeapCore owner
    cdef uint64_t address
    cdef char *start             # of the block's bytes
    cdef Py_ssize_t size
    cdef bint is_readonly


cdef class HeapCore(HeapMoves):
    cdef sa_spectrum spectrum    # the first zeros, in order
    cdef uint32_t band_of_heat[1024]
    cdef uint32_t default_zero[4]  # for each temperature
    cdef double origin, per_doubling
    cdef double mismatch_sum
    cdef int64_t mismatch_count
    cdef object hot              # what access returns for bytes in place
    cdef spectral_memory_api api

    cdef uint32_t zero_of(self, double t) noexcept
    cdef unsigned heat_of(self, double gamma) noexcept
    cdef double gamma_of(self, uint32_t zero) noexcept
    cdef int64_t size_of(self, object size, unsigned axis) except -1
    cdef bytes read_at(self, uint64_t number, object offset, object size)
    cdef int refuse_beyond(self, uint64_t number, object offset, object length) except -1
    cdef object allocate(self, object size, object temperature, object t_virtual, object channel, object axis,
                         bint zeroed)
    cdef uint64_t allocate_slow(self, uint64_t bytes, uint32_t zero, unsigned channel, unsigned axis, unsigned hint,
                                bint zeroed) except 0
    cdef int settle_new(self, uint64_t address, int64_t bytes) except -1
    cdef int settle_more(self, int64_t bytes) except -1
    cdef int reserve_growth(self, uint64_t address, int64_t bytes) except -1
    cdef bint is_overfull(self) noexcept
    cdef object access_slow(self, uint64_t address, int status, uint32_t state)
    cdef Pin pin(self, uint64_t address, bint is_readonly)
