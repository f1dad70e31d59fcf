# _graph_stream.pyx: closed graphs of builtin types as bytes, and back, for Python.
#
# Nouns, layout, invariants, thread rule and cost are in core/graph_stream.h, every tag in docs/graph_stream.md.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport uint8_t

from spectral_alloc.errors import CorruptFrameError


cdef extern from "graph_stream.h":
    enum:
        SA_GRAPH_VERSION
    PyObject *sa_graph_write(PyObject *root, int portable) except? NULL
    object sa_graph_read(const uint8_t *data, Py_ssize_t length, object damage)


GRAPH_VERSION = SA_GRAPH_VERSION
assert <int>SA_GRAPH_VERSION == <int>GRAPH_STREAM


cdef object stream_of(object value, bint portable):
    cdef PyObject *stream = sa_graph_write(<PyObject *>value, portable)
    if stream == NULL:
        return None
    made = <object>stream
    Py_DECREF(made)
    return made


cdef object value_of(const uint8_t *data, Py_ssize_t length):
    return sa_graph_read(data, length, CorruptFrameError)


def write_graph(value, bint portable=False):
    """The graph stream of a value, or None if a part of it is not of a builtin type that streams know."""
    return stream_of(value, portable)


def read_graph(data):
    """The value of a graph stream; CorruptFrameError if the bytes are not one that write_graph made."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return value_of(<const uint8_t *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
