/* set_order.h: would a set rebuilt from its members, in iteration order, be the same set to its user?
 *
 * A program can see the order of a set, and pop() shows where its search stood. Both depend on the table: its size, the
 * place of each member, deleted places, the search finger. They in turn depend on the history of the set, not only on
 * its members; a rebuilt set has the history "each member added once".
 *
 * Invariant: no Python object is made and no Python code runs: the insertions are replayed on a table of numbers with
 * the stored hashes. sa_set_order_self_test must agree with real sets before the answer is used (_closure.pyx).
 *
 * Thread rule: GIL held. Cost: about 5 ns per member.
 */
#ifndef SA_SET_ORDER_H
#define SA_SET_ORDER_H

#include <Python.h>

/* 1 the same, 0 different, -1 no memory (no exception set). `set` is a set, frozenset or subclass. */
int sa_set_order_kept(PyObject *set);

#endif
