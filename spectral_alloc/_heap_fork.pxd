# The C side of _heap_fork.pyx.
from c_heap cimport sa_heap


cdef class Lockable:
    cdef sa_heap *locked         # set once, before keep_through_forks
    cdef object __weakref__
