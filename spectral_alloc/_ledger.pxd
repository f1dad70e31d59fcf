# The C side of _ledger.pyx, for the other compiled modules.
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t

from c_closure cimport sa_closure, sa_closure_api
from c_policy cimport sa_policy
from spectral_alloc._cell cimport Cell, Budget
from spectral_alloc._shadows cimport Shadows


cdef enum:
    FRESH_FAILURES = 3           # examinations after which a held value is no longer fresh


cdef class Ledger:
    cdef sa_policy policy
    cdef sa_closure *walker
    cdef Budget budget_
    cdef long long used          # queues + entries + buffers + slack
    cdef long long entry_bytes   # keys, cells and the dict's own table
    cdef long long buffer_bytes  # dictionaries and other shared memory of this container
    cdef long long slack_bytes   # share of the memory that the allocator holds and cannot use
    cdef long long entry_count   # cells that are entries, in whatever state
    cdef long long cold_count
    cdef long long regrown_count
    cdef long long departing_count
    cdef long long held_debt     # objects walked in vain, to be worked off before the next retry
    cdef int held_tries          # retries of long-held values left in this relief
    cdef long long fresh_tries   # retries of fresh ones left in this relief
    cdef uint8_t epoch
    cdef int countdown           # hits until the next tick
    cdef long long epoch_left    # accesses until heat is halved
    cdef bint copy_mode          # aliasing="copy": what the program holds does not keep a value from leaving
    cdef bint gone               # the dict is being deallocated or closed
    cdef long long hits_hot, hits_warm, hits_cold, hits_regrown, promotions, demotions, spills, migrations, examined
    cdef object loader           # weak reference to tiers.load, for stray cells
    cdef object release          # callable(place, frame_bytes): a frame on disk is dead
    cdef void *recipes           # borrowed: the RecipeBook of the dict, or NULL
    cdef Shadows shadows         # promoted values whose frames are still on disk; dead frames the store has not heard of
    cdef dict reasons            # address of a pinned cell -> why it is pinned
    cdef list moves              # cell, from, to, cause, cell, ... when somebody watches, else None
    cdef object scale            # HeatScale, keeps the two tables alive
    cdef const uint8_t *band_of_count
    cdef const unsigned short *stay_from
    cdef const unsigned short *stay_until

    cpdef tuple whereabouts(self, Cell cell)
    cdef int move(self, Cell cell, unsigned state, str cause) except -1
    cdef void charge(self, long long difference) noexcept
    cdef void recharge(self, Cell cell, long long size_bytes) noexcept
    cdef void charge_entries(self, long long difference) noexcept
    cdef void recount(self, object cells, long long table_bytes) noexcept
    cdef int enter(self, Cell cell, object value, long long key_bytes) except -1
    cdef object replace(self, Cell cell, object value)
    cdef object replace_slow(self, Cell cell, object value)
    cdef void unqueue(self, Cell cell) noexcept
    cdef object drop_payload(self, Cell cell)
    cdef int dig(self, unsigned long long place, unsigned long long frame_bytes) except -1
    cdef int bury(self) except -1
    cdef int unback(self, Cell cell) except -1
    cdef int forget(self, Cell cell, long long key_bytes) except -1
    cdef object live(self, Cell cell)
    cdef void reweigh(self, Cell cell) noexcept
    cdef void hold(self, Cell cell) noexcept
    cdef int pin_for(self, Cell cell, str reason) except -1
    cdef void tick(self) noexcept
    cdef int look(self, Cell cell) noexcept
    cdef void detach_all(self) noexcept


cpdef bint is_ledger(size_t address)
cpdef object live_object(Cell cell)
cpdef long long frame_bytes_in_memory(Py_ssize_t length) noexcept
