/* sizer.h: what an object costs in memory, from formulas, without running Python code.
 *
 * Nouns
 *   own bytes   what freeing this one object would give back to the allocator: object with its GC header, and the
 *               tables or buffers that only it owns, each rounded as its allocator rounds
 *   estimate    own bytes of a value and of what it holds, sampled when it holds much
 *
 * Invariants
 *   1. Nothing here runs Python code, allocates a Python object or changes a reference count.
 *   2. sa_size_key(key) is the same at each call during the life of the key (only what cannot change is counted).
 *   3. The estimate is exact for str, bytes, numbers, arrays and for containers with at most node_limit objects
 *      none of which is met twice.
 *
 * Thread rule: call with the GIL held. Cost: own bytes 2-10 ns; an estimate about 10 ns per node (450 ns for a record of
 * 26 fields), at most 8 * node_limit nodes.
 */
#ifndef SA_SIZER_H
#define SA_SIZER_H

#include <Python.h>

#include "layout.h"

enum {
    SA_PYMALLOC_LIMIT = 512, /* larger requests go to malloc */
    SA_ALIGNMENT = 16        /* of pymalloc and of glibc's malloc */
};

/* What the two allocators really hand out for a request. */
Py_ssize_t sa_round_allocation(Py_ssize_t bytes);

static inline Py_ssize_t sa_int_digits(PyObject *object)
{
#if PY_VERSION_HEX >= 0x030C0000
    Py_ssize_t digits = (Py_ssize_t)(((PyLongObject *)object)->long_value.lv_tag >> 3);
#else
    Py_ssize_t digits = Py_SIZE(object);
    digits = digits < 0 ? -digits : digits;
#endif
    return digits < 1 ? 1 : digits;
}

/* Own bytes of a short ASCII str, an int or a float as it is allocated, immortal or not; -1 for every other object.
 * About ten instructions: what a write and the generic path both begin with. */
static inline Py_ssize_t sa_quick_allocation(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    Py_ssize_t bytes;
    if (type == &PyUnicode_Type && PyUnicode_IS_COMPACT_ASCII(object)) {
        bytes = (Py_ssize_t)sizeof(PyASCIIObject) + PyUnicode_GET_LENGTH(object) + 1;
    }
    else if (type == &PyLong_Type) {
        bytes = (Py_ssize_t)offsetof(PyLongObject, SA_FIRST_DIGIT) + (Py_ssize_t)sizeof(digit) * sa_int_digits(object);
    }
    else if (type == &PyFloat_Type) {
        bytes = (Py_ssize_t)sizeof(PyFloatObject);
    }
    else {
        return -1;
    }
    return bytes <= SA_PYMALLOC_LIMIT ? (bytes + SA_ALIGNMENT - 1) & ~(Py_ssize_t)(SA_ALIGNMENT - 1) : -1;
}

/* The same for a value: an immortal one costs nothing, and neither do None, True and False. */
static inline Py_ssize_t sa_quick_size(PyObject *value)
{
    if (value == Py_None || Py_IS_TYPE(value, &PyBool_Type)) {
        return 0;
    }
    Py_ssize_t bytes = sa_quick_allocation(value);
    return bytes > 0 && sa_is_immortal(value) ? 0 : bytes;
}

/* Own bytes of one object (of any type; unknown types count their C struct only). 0 for an immortal object. */
Py_ssize_t sa_own_bytes(PyObject *object);

#define SA_SIZE_NODE_LIMIT 64

/* Estimated bytes of `value` with everything it holds, after looking at about node_limit objects at most
 * (0: SA_SIZE_NODE_LIMIT). Classes, functions and modules count 0. Never fails. */
Py_ssize_t sa_size_estimate(PyObject *value, int node_limit);

/* Bytes of a dict key: exact for str, bytes, numbers and tuples of those (to a bounded depth), else its C struct. */
Py_ssize_t sa_size_key(PyObject *key);

#endif
