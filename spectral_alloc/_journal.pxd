# The C side of _journal.pyx, for the other compiled modules.
from c_shadow_table cimport sa_digest
from spectral_alloc._cell cimport Cell
from spectral_alloc._ledger cimport Ledger
from spectral_alloc._thermal cimport DictCore


# What a commit found an entry to be; 0: no commit is writing it.
cdef enum:
    FOUND_GONE = 1
    FOUND_LIVE = 2
    FOUND_WARM = 3
    FOUND_PARKED = 4


cdef class JournalEntry:
    cdef public object key           # UNKNOWN until a write names it
    cdef readonly Cell cell          # None when the entry was removed from its dict
    cdef public unsigned long long place, frame_bytes    # of the committed record; 0 bytes: there is none
    cdef public unsigned long long birth                 # 0: not known
    cdef sa_digest sum           # of the serialised value as committed
    cdef bint has_sum
    cdef public bint flat            # deeply immutable: never compared
    cdef public bint is_recipe   # the committed record is a recipe
    cdef public unsigned char in_flight  # FOUND_..., while a commit is writing it

    cdef bint is_sum(self, sa_digest sum) noexcept


cdef class JournalCore:
    cdef Ledger ledger
    cdef readonly dict entries       # address of a cell -> its JournalEntry
    cdef public dict dirty           # JournalEntry -> None: written since the last commit, oldest first
    cdef public dict edited          # JournalEntry -> None: found changed in place, not committed yet
    cdef readonly dict doomed        # committed place -> JournalEntry that was removed since
    cdef readonly dict parked        # place -> bytes: frames on disk that are not committed
    cdef public bint is_eager        # wrote() wants to hear of every write
    cdef public bint is_armed        # ... but has, and will commit them by itself
    cdef public bint is_strict       # remember() wants to hear of every write before it
    cdef public bint is_readonly
    cdef public dict undo            # key -> value before the transaction, or None outside of one

    cdef JournalEntry make_entry(self, key, Cell cell)
    cdef JournalEntry entry_with(self, DictCore core, key, Cell cell)
    cdef int note_new(self, key, Cell cell) except -1
    cdef int note(self, DictCore core, key, Cell cell) except -1
    cdef object expect_removal(self, JournalEntry entry)
    cdef int spare_removal(self, JournalEntry entry) except -1
    cdef int note_removed(self, JournalEntry entry, address) except -1
    cdef JournalEntry owner(self, Cell cell, unsigned long long place)
    cdef JournalEntry known(self, Cell cell)
    cdef bint has_latest(self, JournalEntry entry) except *
    cdef int take_in(self, Cell cell, unsigned long long place, sa_digest *sum) except -1
    cdef int release_if_at_rest(self, Cell cell) except -1
    cdef int landed(self, JournalEntry entry, thing) except -1
    cdef int put_committed(self, JournalEntry entry, thing, unsigned long long place, unsigned long long frame_bytes,
                           sa_digest *sum, bint flat, unsigned long long parked) except -1
    cdef int removal_committed(self, JournalEntry entry) except -1
    cdef bint has_found(self, JournalEntry entry, thing) except *
    cpdef int give_back(self, dict taken) except -1

cdef sa_digest sum_in(bytes digest) except *
