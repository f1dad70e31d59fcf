# The C side of _cell.pyx, for the other compiled modules.
from cpython.object cimport PyObject, PyTypeObject

from c_cell cimport sa_cell

cdef extern from "dict_core.h":
    ctypedef struct sa_cell_pool:
        pass
    bint sa_is_type(PyObject *found, PyTypeObject *type) noexcept


cdef class Cell:
    cdef sa_cell core            # at a fixed offset, so that a sa_cell* can be turned back into its Cell


cdef inline bint is_cell(PyObject *found) noexcept:
    return sa_is_type(found, <PyTypeObject *>Cell)


cdef sa_cell_pool *cell_pool() noexcept


cdef class Backed:
    cdef object value            # the live object, deeply immutable
    cdef unsigned long long place
    cdef unsigned long long frame_bytes


cdef class Pending:
    cdef void cancel(self) noexcept


cdef class Budget:
    cdef long long used          # bytes charged by every ledger below this budget
    cdef long long limit         # bytes
    cdef readonly Budget parent  # the process's budget, or None

    cdef long long excess(self, long long slack) noexcept


cdef inline void charge_budget(Budget budget, long long difference) noexcept:
    """Add to what is used below `budget`."""
    budget.used += difference
    if budget.parent is not None:
        budget.parent.used += difference


cdef inline bint is_exceeded(Budget budget) noexcept:
    """Is more used than `budget` or its parent allows?"""
    return budget.used > budget.limit or (budget.parent is not None and budget.parent.used > budget.parent.limit)
