"""Stray cells: C code may take a cell out of its dict's table and compare it; this finds the value, wherever it is.

Nouns: a *stray* is a cell that foreign C code met: CPython compares the tables of two dicts without asking ours when the other side
is a defaultdict or the like, and never changes them.

    Cell -> its ledger (by the queue that it is linked in, or by the address that it keeps) -> Ledger.loader -> the value

Invariant: an address is followed only while it is that of a ledger that lives.

Threads: the GIL. Cost: a warm cell is found by walking its queue, any other at once.
"""
from cpython.ref cimport PyObject

from c_cell cimport *
from c_policy cimport *
from spectral_alloc._cell cimport Budget, Cell
from spectral_alloc._ledger cimport Ledger, is_ledger, live_object

from spectral_alloc._cell import set_resolver
from spectral_alloc.heat import default_scale


def value_of_stray(Cell cell not None):
    """The value of a cell that C code took out of its dict, wherever it is.

    Cost: a warm cell is found by walking its queue. `defaultdict(...) == thermal_dict` ends here, since CPython then compares
    the two underlying dicts and never asks ours.
    """
    cdef size_t address
    if cell.core.state <= SA_DEPARTING:
        return live_object(cell)
    if cell.core.state == SA_DETACHED:
        return <object>cell.core.payload if cell.core.payload is not NULL else None
    if cell.core.state == SA_COLD or cell.core.state == SA_REGROWN:
        address = <size_t>cell.core.ledger & ~<size_t>1
    else:
        address = <size_t>sa_policy_of_slow(&cell.core) - policy_offset
    if not is_ledger(address):
        raise SystemError("the dict of this cell is gone")
    return (<Ledger><object><PyObject *>address).loader()(cell, UNKNOWN_KEY)


#: What a loader gets for a key that nobody knows.
UNKNOWN_KEY = "(unknown)"


cdef size_t offset_of_policy(Ledger probe):
    return (<char *>&probe.policy) - (<char *><PyObject *>probe)


cdef size_t policy_offset = offset_of_policy(Ledger.__new__(Ledger, Budget.__new__(Budget, 0), default_scale()))
set_resolver(value_of_stray)
