"""HeapLedger: what a heap has taken, as its budget knows it. Truth: resident_bytes of core/heap_arena.h.

Nouns: a *budget* is a limit and what is used of it (_cell.pyx); *charged* is what it knows of each arena; an *entry* is
a row of the index of written pages (_heap.pyx); *reserved* is what a block is about to take, for which room is made.

    charged      12 x int64      resident bytes of each arena
    index_bytes  int64           entries and tables of written pages
    reserved     int64           of reservations that are held now

Invariant: the budget is charged with the sum of all, which is what is there when a call returns; what C users allocate
in between is charged at the next call.
Threads: the GIL. Cost: a few instructions where nothing has changed.
"""
from libc.stdint cimport int64_t

from c_heap cimport *
from spectral_alloc._cell cimport Budget, charge_budget, is_exceeded


cdef class HeapLedger:
    """The accounts of one heap."""

    def _relieve(self):
        """Make room: SpectralMemory does."""

    cdef int64_t charged_bytes(self) noexcept:
        cdef int64_t total = self.index_bytes
        cdef int number
        for number in range(SA_CLASS_COUNT):
            total += self.charged[number]
        return total

    cdef void charge(self, unsigned number) noexcept:
        cdef int64_t resident = sa_heap_resident(&self.heap, number)
        if resident != self.charged[number]:
            charge_budget(self.budget_, resident - self.charged[number])
            self.charged[number] = resident

    cdef void charge_all(self) noexcept:
        cdef int number
        for number in range(SA_CLASS_COUNT):
            self.charge(number)

    cdef void charge_index(self, int64_t difference) noexcept:
        """Count bytes of the index of written pages."""
        self.index_bytes += difference
        charge_budget(self.budget_, difference)

    cdef void reserve(self, int64_t difference) noexcept:
        """Count bytes that are not there yet, so that room is made for them."""
        self.reserved += difference
        charge_budget(self.budget_, difference)

    def _forget_reserved(self):
        """In the child of a fork the threads that made reservations do not exist."""
        self.forks += 1
        if self.budget_ is not None:
            self.reserve(-self.reserved)

    cdef int settle(self, unsigned number) except -1:
        """Charge what an arena has taken, and make room if that is too much."""
        self.charge(number)
        if is_exceeded(self.budget_):
            self._relieve()
        return 0

    @property
    def used_bytes(self):
        """Bytes of memory that are charged to the budget: touched pages and tables of all arenas, and the index."""
        return self.charged_bytes()

    @property
    def counted_bytes(self):
        """Of the memory of the C library and of CPython's allocator, which slack is shared by, nothing is used."""
        return 0

    @property
    def budget(self):
        """The budget that the heap is charged to."""
        return self.budget_

    def rebudget(self, Budget budget not None):
        """Charge another budget from now on."""
        self.charge_all()
        charge_budget(self.budget_, -self.charged_bytes() - self.reserved)
        self.budget_ = budget
        charge_budget(budget, self.charged_bytes() + self.reserved)

    def excess_bytes(self, long long slack=0):
        """Bytes above the limit less `slack`; negative when there is room."""
        self.charge_all()
        return self.budget_.excess(slack)

    def charge_slack(self, long long slack_bytes):
        """Nothing: the heap's pages are its own."""

