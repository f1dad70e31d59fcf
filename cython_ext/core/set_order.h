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

#endif
