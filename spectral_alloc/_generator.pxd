# The C side of _generator.pyx, for the other compiled modules.
from libc.stdint cimport uint64_t

from c_generator cimport sa_generator


cdef class Generator:
    cdef sa_generator core
    cdef readonly tuple key
    cdef readonly int kind
    cdef readonly object low
    cdef readonly object span

    cdef uint64_t raw(self, uint64_t address) noexcept nogil
    cdef void fill(self, uint64_t start, uint64_t step, void *out, size_t count) noexcept nogil
    cdef void gather(self, const uint64_t *addresses, void *out, size_t count) noexcept nogil
