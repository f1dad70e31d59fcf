/* dict_core.h - what a dict of cells needs from CPython's C API beside Cython's own declarations.
 *
 * Words: a *cell object* is a Cell of _cell.pyx as C sees it; a *core type* is the type object of DictCore.
 *
 *   cell object  | object header 16 | sa_cell 32 |
 *
 * Invariant: a hot value is visited for the garbage collector by the one dict that owns its cell, and only while nothing
 * else holds the cell: a cell that somebody else holds too counts as an outside reference, so that its value is never
 * taken for garbage while it can still be reached.
 *
 * Threads: called with the GIL held. Cost: one cell's cache line per entry.
 */
#ifndef SA_DICT_CORE_H
#define SA_DICT_CORE_H

#include <Python.h>
#include <stddef.h>
#include <string.h>

#include "cell.h"
#include "policy.h"
#include "sizer.h"

_Static_assert((int)SA_ALIGNMENT == (int)SA_CHARGE_UNIT_BYTES, "a quick size is a whole number of charge units, below the first shift");
_Static_assert(SA_PYMALLOC_LIMIT / SA_CHARGE_UNIT_BYTES < 1 << SA_CHARGE_UNIT_BITS, "... so that its code is that number");

typedef struct sa_cell_object {
    PyObject ob_base;
    sa_cell core;
} sa_cell_object;

_Static_assert(offsetof(sa_cell_object, core) == 16, "a Cell is its header and its sa_cell, as _cell.pyx asserts");

/* What a dict holds that the garbage collector cares for, as bits. */
enum { SA_HOLDS_VALUES = 1, SA_HOLDS_KEYS = 2 };

/* May the garbage collector care for it? SA_HOLDS_VALUES or 0. */
static inline int sa_is_container(PyObject *object) {
    return PyType_IS_GC(Py_TYPE(object)) ? SA_HOLDS_VALUES : 0;
}

/* The same of an entry: bits. */
static inline int sa_holds_containers(PyObject *key, PyObject *value) {
    return sa_is_container(value) | (PyType_IS_GC(Py_TYPE(key)) ? SA_HOLDS_KEYS : 0);
}

/* Cells that were freed lately, for the next ones: linked through their payloads. The process has one, in _cell.pyx. */
typedef struct sa_cell_pool {
    sa_cell_object *first;
    int count;
} sa_cell_pool;

#if defined(__SANITIZE_ADDRESS__)
enum { SA_POOL_CELLS_MAX = 0 }; /* so that the use of a cell that was freed is noticed */
#else
enum { SA_POOL_CELLS_MAX = 1024 };
#endif

/* A new empty cell. Cost: at most one allocation. */
static inline PyObject *sa_cell_new(PyTypeObject *type, sa_cell_pool *pool) {
    sa_cell_object *cell = pool->first;
    if (cell != NULL) {
        pool->first = (sa_cell_object *)cell->core.payload;
        pool->count--;
        PyObject_Init((PyObject *)cell, type);
    } else if ((cell = PyObject_New(sa_cell_object, type)) == NULL) {
        return NULL;
    }
    memset(&cell->core, 0, sizeof cell->core);
    return (PyObject *)cell;
}

/* tp_dealloc of Cell. Cython's own would save and restore the pending exception, which costs as much as the rest. */
static inline void sa_cell_free(PyObject *object, sa_cell_pool *pool) {
    sa_cell *core = &((sa_cell_object *)object)->core;
    if (core->queue != SA_QUEUE_NONE)
        sa_cell_unlink_stray(core);
    if (core->payload != NULL && !(SA_NOT_OWNING >> core->state & 1))
        Py_DECREF((PyObject *)core->payload);
    if (pool->count >= SA_POOL_CELLS_MAX) {
        Py_TYPE(object)->tp_free(object);
        return;
    }
    core->payload = pool->first;
    pool->first = (sa_cell_object *)object;
    pool->count++;
}

/* Put `value` into a live cell of an ordinary queue whose charge it does not change, and count the write. Returns the
 * old value, whose reference is the caller's to drop, or NULL if the ledger must do it. About twenty instructions. */
static inline PyObject *sa_cell_swap(sa_cell *core, PyObject *value, uint8_t epoch_now) {
    Py_ssize_t bytes = sa_quick_size(value);
    if (core->state != SA_HOT || bytes < 0 || bytes / SA_CHARGE_UNIT_BYTES != core->charge ||
        !(SA_ORDINARY_QUEUES >> core->queue & 1))
        return NULL;
    PyObject *old = (PyObject *)core->payload;
    core->payload = Py_NewRef(value);
    core->flat = 0;
    sa_cell_hit(core, epoch_now);
    return old;
}

/* The number of entries; PyDict_Size without its checks. */
static inline Py_ssize_t sa_dict_size(PyObject *dict) {
    return PyDict_GET_SIZE(dict);
}

static inline int sa_is_unshared(PyObject *object) {
    return Py_REFCNT(object) == 1;
}

/* The pair (key, value), in a pair that nobody else has kept. */
static inline PyObject *sa_refilled_pair(PyObject *pair, PyObject *key, PyObject *value) {
    PyObject *old_key = PyTuple_GET_ITEM(pair, 0), *old_value = PyTuple_GET_ITEM(pair, 1);
    PyTuple_SET_ITEM(pair, 0, Py_NewRef(key));
    PyTuple_SET_ITEM(pair, 1, Py_NewRef(value));
    Py_INCREF(pair); /* before foreign code runs, so that it finds the pair in use */
    if (!PyObject_GC_IsTracked(pair))
        PyObject_GC_Track(pair); /* the collector leaves out tuples of atoms, which this one may not be any more */
    Py_DECREF(old_key);
    Py_DECREF(old_value);
    return pair;
}

/* The next value of a dict's own iterator over values; NULL without an exception at its end. */
static inline PyObject *sa_next_value(PyObject *iterator) {
    return PyDictIterValue_Type.tp_iternext(iterator);
}

/* What a reference is to; in C, since Cython would count it once more. */
static inline PyObject *sa_taken(PyObject *object) {
    return object;
}

/* The value of a live cell, whose reference is given up. */
static inline PyObject *sa_taken_payload(PyObject *cell) {
    PyObject *value = Py_NewRef((PyObject *)((sa_cell_object *)cell)->core.payload);
    Py_DECREF(cell);
    return value;
}

/* Remove `key` and return its value, None when the key is absent, NULL with an error set (new references). */
static inline PyObject *sa_dict_pop_or_none(PyObject *dict, PyObject *key) {
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *value = NULL;
    int found = PyDict_Pop(dict, key, &value);
    if (found < 0)
        return NULL;
    return found ? value : Py_NewRef(Py_None);
#else
    return _PyDict_Pop(dict, key, Py_None);
#endif
}

static inline PyObject *sa_dict_iterator(PyObject *dict) {
    return PyDict_Type.tp_iter(dict);
}

static inline int sa_is_type(PyObject *object, PyTypeObject *type) {
    return Py_IS_TYPE(object, type);
}

/* Set once, when the module that includes this header is imported; a traverseproc has no other way to it. */
static PyTypeObject *sa_cell_type;

/* Visit the value of a cell that nothing but its dict holds; its bit is added to *containers. */
static inline int sa_cell_visit(sa_cell_object *cell, int *containers, visitproc visit, void *arg) {
    PyObject *value = (PyObject *)cell->core.payload;
    if (cell->core.state != SA_HOT || cell->core.flat || value == NULL)
        return 0;
    *containers |= sa_is_container(value);
    if (Py_REFCNT(cell) == 1)
        Py_VISIT(value);
    return 0;
}

/* Visit the live values by the queues that their cells are in. Cost: a cache line for each, however many are not live. */
static inline int sa_queues_visit(const sa_policy *policy, int *containers, visitproc visit, void *arg) {
    for (unsigned queue = 0; queue < SA_QUEUE_COUNT; queue++) {
        if (!(SA_LIVE_QUEUES >> queue & 1))
            continue;
        const sa_cell *head = &policy->queues[queue].head;
        for (sa_cell *core = sa_cell_next(head); core != head; core = sa_cell_next(core)) {
            int status = sa_cell_visit((sa_cell_object *)((char *)core - offsetof(sa_cell_object, core)), containers, visit, arg);
            if (status != 0)
                return status;
        }
    }
    return 0;
}

/* Visit the keys, and the values that only their cell, and it only this dict, holds: all entries. */
static inline int sa_entries_visit_slow(PyObject *dict, int *containers, visitproc visit, void *arg) {
    PyObject *key, *found;
    Py_ssize_t position = 0;
    while (PyDict_Next(dict, &position, &key, &found)) {
        if (PyType_IS_GC(Py_TYPE(key))) {
            *containers |= SA_HOLDS_KEYS;
            Py_VISIT(key);
        }
        if (Py_IS_TYPE(found, sa_cell_type)) {
            int status = sa_cell_visit((sa_cell_object *)found, containers, visit, arg);
            if (status != 0)
                return status;
        } else {
            *containers |= SA_HOLDS_VALUES;
            Py_VISIT(found);
        }
    }
    return 0;
}

/* Visit what the dict owns. `*holds_containers` says whether there may be any that the collector cares for; it becomes 0
 * when there are none, so that a dict of atoms is not walked again until something else is written to it. A value that is
 * not visited is only taken as still in use. With as many entries as cells that were entered no value is a raw one. */
static inline int sa_dict_visit(PyObject *dict, const sa_policy *policy, Py_ssize_t entry_count, int *holds_containers,
                                visitproc visit, void *arg) {
    int containers = 0, status = 0;
    if (*holds_containers == 0)
        return 0;
    if (*holds_containers == SA_HOLDS_VALUES && PyDict_GET_SIZE(dict) == entry_count)
        status = sa_queues_visit(policy, &containers, visit, arg);
    else
        status = sa_entries_visit_slow(dict, &containers, visit, arg);
    if (status == 0)
        *holds_containers = containers;
    return status;
}

/* The members of a DictCore are left to its deallocation, since a method may still be called on it until then; so
 * tp_clear is dict's own. `in` is too; but dict publishes that as a plain method, which would give subclasses written
 * in Python a slow slot, so DictCore publishes it as what it is, a slot. */
static inline void sa_install_slots(PyTypeObject *core_type, PyTypeObject *cell_type, traverseproc traverse) {
    sa_cell_type = cell_type;
    core_type->tp_traverse = traverse;
    core_type->tp_clear = PyDict_Type.tp_clear;
    PyObject *contains = PyDict_GetItemString(core_type->tp_dict, "__contains__");
    core_type->tp_as_sequence->sq_contains = PyDict_Type.tp_as_sequence->sq_contains;
    if (contains != NULL && Py_IS_TYPE(contains, &PyWrapperDescr_Type))
        ((PyWrapperDescrObject *)contains)->d_wrapped = (void *)PyDict_Type.tp_as_sequence->sq_contains;
}

#endif
