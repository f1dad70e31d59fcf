# The C side of _heap_pages.pyx, for the heap whose pages they are.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from c_heap cimport sa_block
from spectral_alloc._heap_ledger cimport HeapLedger


cdef class HeapPages(HeapLedger):
    cdef dict pages              # of generated blocks
    cdef readonly unsigned long long page_turns

    cdef uint64_t make_page(self, uint64_t parent, const sa_block *block, const void *data, uint64_t size) noexcept
    cdef int free_page(self, uint64_t page, sa_block *freed) noexcept
    cdef int look_at(self, uint64_t address, sa_block *block) noexcept
    cdef int let_grow(self, uint64_t parent, uint32_t state, uint64_t where) noexcept
    cdef uint64_t new_page(self, uint64_t parent, const sa_block *block, const uint8_t[::1] data) except 0
    cdef list free_pages(self, list pages)
    cdef int drop_pages(self, uint64_t parent, uint64_t first) except -1
    cdef int forget_pages(self) except -1
