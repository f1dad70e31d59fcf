/* set_order.h: the table of a set: would it come out the same, and how to give it back.
 *
 * A program can see the order of a set, and pop() shows where its search stood. Both depend on the table: its size, the
 * place of each member, deleted places, the search finger. They in turn depend on the history of the set, not only on
 * its members; a set rebuilt by pickle has the history "each member added once, in iteration order".
 *
 * Nouns
 *   odd set   a set that would not come out the same by being rebuilt: small ones rarely, large ones nearly always
 *   layout    (place of each member, places of deleted members, mask, finger); the members in the order that the
 *             rebuilt set will have, so that they need not be named
 *
 * Invariants
 *   1. sa_set_order_kept makes no Python object and runs no Python code: it replays the insertions with stored hashes.
 *   2. sa_set_arrange changes the places of the members, never the members; it refuses a layout in which any
 *      member could not be found. It is only right while hashes are the same: in this process.
 *   The self-test in spectral_alloc/trust.py compares both with real sets before they are used.
 *
 * Thread rule: GIL held. Cost: about 5 ns per member to replay, 10 ns to arrange.
 */
#ifndef SA_SET_ORDER_H
#define SA_SET_ORDER_H

#include <Python.h>

/* 1 the same, 0 odd, -1 no memory (no exception set). `set` is a set, frozenset or subclass. */
int sa_set_order_kept(PyObject *set);

/* New tuple (places, deleted places, mask, finger): two bytes of uint32, two ints. */
PyObject *sa_set_layout(PyObject *set);

/* Give a set just rebuilt by pickle the layout that it had. 0, or -1 with an exception set and nothing changed. */
int sa_set_arrange(PyObject *set, PyObject *layout);

/* The same without Python objects. */
typedef struct sa_set_places {
    const char *members; /* 4 bytes each: places in the order of the rebuilt set */
    Py_ssize_t member_count;
    const char *deleted; /* 4 bytes each */
    Py_ssize_t deleted_count;
    Py_ssize_t mask, finger;
} sa_set_places;

/* Write the places of the members, then those of deleted members: 4 bytes each, `fill` of them. 0; -1 no memory (no
 * exception set). The set's table has less than 2^32 places. */
int sa_set_copy_places(PyObject *set, char *out);

int sa_set_arrange_places(PyObject *set, const sa_set_places *layout);

/* A table has so many places per entry, and per SPREAD_FREE more, at most: a bound on what reading a layout may take. */
enum { SA_SET_SPREAD_MAX = 32, SA_SET_SPREAD_FREE = 8 };
int sa_set_layout_is_sane(PyObject *set);

#endif
