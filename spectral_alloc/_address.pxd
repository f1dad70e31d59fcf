# The C side of _address.pyx, for the other compiled modules.
from libc.stdint cimport uint64_t


cdef uint64_t word_of(object value, str name) except? 0
