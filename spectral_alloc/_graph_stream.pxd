# The C side of _graph_stream.pyx.
from libc.stdint cimport uint8_t

cdef enum:
    GRAPH_STREAM = 0xB1          # first byte of a graph stream

cdef object stream_of(object value, bint portable)
cdef object content_of(object value, bint portable)
cdef object value_of(const uint8_t *data, Py_ssize_t length)
