# The C side of _thermal.pyx.
from cpython.ref cimport PyObject

from spectral_alloc._cell cimport Cell
from spectral_alloc._ledger cimport Ledger


cdef class DictCore(dict):
    cdef Ledger ledger
    cdef object tiers            # the Python side (tiers.py), or None while nothing had to move
    cdef Cell spare              # offered to the dict at the next write
    cdef long long table_bytes   # of the underlying dict's hash table, as charged
    cdef long long table_check   # entry count at which the table is weighed again
    cdef Py_ssize_t sweep_position
    cdef int holds_containers    # bits: keys, live values that the garbage collector cares for
    cdef int removing            # removals under way, during which fewer entries than cells is no sign of anything
    cdef int write_countdown     # writes until the next tick
    cdef int pulse_countdown     # ticks until the next look at the process's memory
    cdef public object _settings   # tiers.Settings
    cdef public object _reference  # the governor's weak reference to this container
    cdef public object _journal    # journal.Journal: does the writes of a durable dict; None for all others
    cdef public object _regrowth   # _regrow.Regrowth, or None while there is no recipe
    cdef public object _watch      # move_watch.MoveWatch, or None while nobody listens

    cdef object get_slow(self, key, PyObject *found, default)
    cdef object missing_slow(self, key)
    cdef object value_slow(self, key, found)
    cdef object peek(self, key, found)
    cdef int store(self, key, value) except -1
    cdef int write_tick_slow(self) except -1
    cdef int fill(self, other, dict named) except -1
    cdef int weigh_table(self) except -1
    cdef object take(self, key)
    cdef int update_pairs_slow(self, pairs) except -1
    cdef object hit_tick_slow(self, Cell cell)
    cdef int tick_slow(self, Cell cell) except -1
    cdef int pulse_slow(self) except -1
    cpdef void _sweep(self, Py_ssize_t cells) noexcept
    cdef object tiers_slow(self)
    cdef int relieve_slow(self) except -1
    cdef int recount_slow(self) except -1
