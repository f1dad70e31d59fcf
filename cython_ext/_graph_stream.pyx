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
        SA_GRAPH_PORTABLE
        SA_GRAPH_ATOMS_APART
        SA_GRAPH_NO_SETS
    PyObject *sa_graph_write(PyObject *root, int how) except? NULL
    object sa_graph_read(const uint8_t *data, Py_ssize_t length, object damage)


GRAPH_VERSION = SA_GRAPH_VERSION
assert <int>SA_GRAPH_VERSION == <int>GRAPH_STREAM


cdef object written(object value, int how):
    cdef PyObject *stream = sa_graph_write(<PyObject *>value, how)
    if stream == NULL:
        return None
    made = <object>stream
    Py_DECREF(made)
    return made


cdef object stream_of(object value, bint portable):
    return written(value, SA_GRAPH_PORTABLE if portable else 0)


cdef object content_of(object value, bint portable):
    return written(value, SA_GRAPH_ATOMS_APART | (SA_GRAPH_PORTABLE | SA_GRAPH_NO_SETS if portable else 0))


cdef object value_of(const uint8_t *data, Py_ssize_t length):
    return sa_graph_read(data, length, CorruptFrameError)


def write_graph(value, bint portable=False):
    """The graph stream of a value, or None if a part of it is not of a builtin type that streams know."""
    return stream_of(value, portable)


def graph_content(value, bint portable=False):
    """Bytes that are equal for values that no program can tell apart, or None; with `portable` in any process (no sets then).

    Unlike a stream they do not tell which equal strings are one object.
    """
    return content_of(value, portable)


def read_graph(data):
    """The value of a graph stream; CorruptFrameError if the bytes are not one that write_graph made."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return value_of(<const uint8_t *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
