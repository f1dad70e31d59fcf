# The C side of _shadows.pyx.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from c_shadow_table cimport sa_digest, sa_shadow, sa_shadow_table

cdef sa_digest digest_of_memory(const uint8_t *stream, size_t length) noexcept
cdef sa_digest digest_stream(bytes stream) noexcept


cdef class Shadows:
    cdef sa_shadow_table table
    cdef readonly size_t count_max
    cdef readonly list freed           # (place, frame bytes): dead frames the store has not heard of yet
    cdef const void *pending_cell      # of expect
    cdef uint64_t pending_place
    cdef sa_digest pending_digest
    cdef uint32_t pending_accesses

    cdef sa_digest digest(self, bytes stream) noexcept
    cdef void expect(self, const void *cell, uint64_t place, sa_digest digest, uint32_t accesses) noexcept
    cdef void unexpect(self) noexcept
    cdef int drop(self, uint64_t place, uint64_t frame_bytes) except -1
    cdef int give_up(self, sa_shadow *shadow) except -1
    cdef int keep(self, sa_shadow *shadow) except -1
    cdef const sa_shadow *find(self, const void *cell) noexcept
    cdef bint adopt(self, const void *cell, sa_digest digest, sa_shadow *found) noexcept
    cdef bint leave(self, const void *cell) except *


cdef sa_digest digest_of_parts(parts) except *
