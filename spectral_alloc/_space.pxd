# The C side of _space.pyx, for the other compiled modules.
from libc.stdint cimport uint64_t

from spectral_alloc._generator cimport Generator
from spectral_alloc._overlay cimport Overlay


cdef class SpaceCore:
    cdef readonly Generator generator
    cdef readonly Overlay overlay

    cdef uint64_t raw_of(self, object value) except? 0
    cdef object value_of(self, uint64_t raw)
    cdef object read(self, uint64_t address)
