# Declarations of core/closure.h; the header is the truth.
from cpython.ref cimport PyObject
from libc.stdint cimport int32_t, uint32_t

cdef extern from "closure.h":
    enum:
        SA_CLOSED
        SA_HELD
        SA_PINNED
        SA_FLAT
        SA_PLAIN
        SA_HAS_BUFFERS

    ctypedef struct sa_verdict:
        int32_t status
        uint32_t flags
        Py_ssize_t bytes
        Py_ssize_t objects
        PyObject *reason

    ctypedef struct sa_closure:
        pass

    ctypedef struct sa_closure_api:
        sa_closure *(*create)(const sa_closure_api *api) except NULL
        void (*destroy)(sa_closure *walker) noexcept
        int (*walk)(sa_closure *walker, PyObject *root, Py_ssize_t known_references, sa_verdict *out) except -1
        Py_ssize_t (*size_estimate)(PyObject *value, int node_limit) noexcept
        Py_ssize_t (*size_key)(PyObject *key) noexcept

    const char *SA_CLOSURE_CAPSULE
