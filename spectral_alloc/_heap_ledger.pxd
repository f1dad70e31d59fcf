# The C side of _heap_ledger.pyx, for the heap that is charged.
from libc.stdint cimport int64_t

from c_heap cimport sa_heap
from spectral_alloc._cell cimport Budget


cdef class HeapLedger:
    cdef sa_heap heap
    cdef int64_t charged[12]     # resident bytes of each arena that the budget knows of
    cdef int64_t index_bytes     # of the index of written pages
    cdef int64_t reserved        # for blocks that are about to take more
    cdef unsigned forks          # how often reservations were forgotten, since those who made them are not here
    cdef Budget budget_          # None before HeapCore._open

    cdef int64_t charged_bytes(self) noexcept
    cdef void charge(self, unsigned number) noexcept
    cdef void charge_all(self) noexcept
    cdef void charge_index(self, int64_t difference) noexcept
    cdef void reserve(self, int64_t difference) noexcept
    cdef int settle(self, unsigned number) except -1
