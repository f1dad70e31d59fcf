# The C side of _touch.pyx, for the other compiled modules.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from c_touch cimport sa_region, sa_touch_source
from spectral_alloc._cell cimport Budget


cdef class Region:
    cdef sa_region *core        # NULL before it is mapped and after it ended
    cdef Budget budget_
    cdef long long charged      # bytes charged to the budget
    cdef long long limit        # bytes of pages in memory and of packed pages in memory, at most

    cdef int map(self, nbytes, sa_touch_source source, long long limit_bytes, directory, int item_bytes,
                 long long disk_bytes) except -1
    cdef int charge(self) noexcept
    cdef void shut(self) noexcept
    cdef int begin(self, uint64_t window, uint8_t *bytes, uint64_t *mask) noexcept nogil
    cdef void end(self, uint64_t window, uint64_t mask, bint is_done) noexcept nogil
    cdef int refresh(self, const uint64_t *offsets, const uint64_t *raws, uint32_t value_bytes, size_t count) noexcept nogil
