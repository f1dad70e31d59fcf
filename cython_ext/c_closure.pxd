# What C and Cython callers of the closedness walk see; contracts are in core/closure.h and core/sizer.h.

from cpython.ref cimport PyObject
from libc.stdint cimport int32_t, uint32_t


cdef extern from "closure.h":
    enum:
        SA_CLOSED
        SA_HELD
        SA_PINNED
    enum:
        SA_FLAT
        SA_PLAIN
        SA_HAS_BUFFERS
        SA_CYCLIC
        SA_RAN_PYTHON
        SA_ODD_SETS

    ctypedef struct sa_verdict:
        int32_t status
        uint32_t flags
        Py_ssize_t bytes
        Py_ssize_t objects
        void *reason  # borrowed str or NULL: cast with <object> before the walker walks again

    ctypedef struct sa_closure
    ctypedef struct sa_rules

    const char *SA_CLOSURE_CAPSULE
    uint32_t SA_CLOSURE_ABI

    # Objects are passed as pointers: a reference that Cython took for the call would be counted as one from outside.
    ctypedef struct sa_closure_api:
        uint32_t abi
        uint32_t struct_bytes
        sa_rules *rules
        sa_closure *(*create)(const sa_closure_api *api) except NULL
        void (*destroy)(sa_closure *walker) noexcept
        int (*walk)(sa_closure *walker, PyObject *root, Py_ssize_t known_references, sa_verdict *out) except -1
        int (*look)(sa_closure *walker, PyObject *root, Py_ssize_t known_references, sa_verdict *out) except -1
        Py_ssize_t (*size_estimate)(PyObject *value, int node_limit) noexcept
        Py_ssize_t (*size_key)(PyObject *key) noexcept


cdef extern from "sizer.h":
    Py_ssize_t sa_quick_allocation(PyObject *object) noexcept
    Py_ssize_t sa_quick_size(PyObject *value) noexcept
