# The C side of _heap_moves.pyx, for the heap whose blocks move.
from spectral_alloc._heap_pages cimport HeapPages


cdef class HeapMoves(HeapPages):
    cdef bint is_closed

    cdef int raise_if_closed(self) except -1
