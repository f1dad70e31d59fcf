"""HeapPages: the pages of generated blocks that were written. A *page* is 4 KiB of a block of axis 2, held by a block of
axis 3; what no block holds is generated (generated_blocks.py).

    pages        {address of a generated block: {page number: address of the block that holds it}}
    page_turns   how often a block went from grown to whole or back, or got another size: a reader can tell that pages
                 have moved

Invariant: each block of axis 3 is named once in `pages`, under a block of axis 2 that is grown; both are changed in one
call, that runs no Python code until it is done (release on disk comes last).
Threads: the GIL; who changes the pages of a block holds its lock in generated_blocks.py.
Cost: a dict entry for each written page, which is charged to the budget.
"""
from c_heap cimport *
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from spectral_alloc._heap_ledger cimport HeapLedger

from spectral_alloc.memory_errors import refuse

cdef enum:
    ENTRY_BYTES = 128  # of a page in the index, with its numbers, and of a table of them
    TABLE_BYTES = 256


cdef class HeapPages(HeapLedger):
    """Pages of generated blocks, in a heap that says how they are made and freed."""

    cdef uint64_t make_page(self, uint64_t parent, const sa_block *block, const void *data, uint64_t size) noexcept:
        """A block of axis 3 with these bytes, as warm as its parent; 0 without memory."""
        return 0

    cdef int free_page(self, uint64_t page, sa_block *freed) noexcept:
        """Free a block of axis 3."""
        return SA_UNKNOWN

    cdef int look_at(self, uint64_t address, sa_block *block) noexcept:
        """Describe a block without counting an access."""
        return SA_UNKNOWN

    cdef int let_grow(self, uint64_t parent, uint32_t state, uint64_t where) noexcept:
        """Let go of the bytes of a generated block."""
        return SA_UNKNOWN

    cdef uint64_t new_page(self, uint64_t parent, const sa_block *block, const uint8_t[::1] data) except 0:
        cdef uint64_t page = self.make_page(parent, block, &data[0], <uint64_t>data.shape[0])
        if page == 0:
            refuse(SA_NO_MEMORY, parent)
        return page

    def _pages(self, uint64_t parent):
        """{page number: address of the block that holds it} of a generated block, or None."""
        return self.pages.get(parent)

    def _written(self):
        """The pages of all blocks."""
        return self.pages

    cdef int forget_pages(self) except -1:
        """All blocks are gone."""
        self.pages.clear()
        self.charge_index(-self.index_bytes)
        return 0

    cdef list free_pages(self, list pages):
        """Free blocks of axis 3; what of theirs lies on disk, to be released last, since that is Python."""
        cdef sa_block freed
        places = []
        for page in pages:
            if self.free_page(page, &freed) == SA_OK and freed.state == SA_PLACE:
                places.append((freed.where, freed.frame_bytes))
        self.charge_all()
        return places

    cdef int drop_pages(self, uint64_t parent, uint64_t first) except -1:
        """Forget the pages of a block from `first` on."""
        cdef dict table = self.pages.get(parent)
        if table is None:
            return 0
        numbers = [number for number in table if number >= first]
        places = self.free_pages([table.pop(number) for number in numbers])
        self.charge_index(-<int64_t>len(numbers) * ENTRY_BYTES)
        if not table:
            del self.pages[parent]
            self.charge_index(-TABLE_BYTES)
        for place in places:
            self._release(*place)
        return 0

    def _put_page(self, uint64_t parent, number, const uint8_t[::1] data):
        """Keep the bytes of a page of a block that is grown."""
        cdef sa_block block
        cdef dict known = self.pages.get(parent)
        cdef dict table = {} if known is None else known
        cdef int status = self.look_at(parent, &block)
        if status != SA_OK or block.state != SA_GROWN:
            refuse(status if status != SA_OK else SA_CHANGED, parent)
        old = table.get(number)
        table[number] = self.new_page(parent, &block, data)
        if known is None:
            self.pages[parent] = table
            self.charge_index(TABLE_BYTES)
        if old is None:
            self.charge_index(ENTRY_BYTES)
        else:
            for place in self.free_pages([old]):
                self._release(*place)

    def _drop_page(self, uint64_t parent, number):
        """Forget one page, if it is held: it would hold what is generated again."""
        cdef dict table = self.pages.get(parent)
        if table is None or number not in table:
            return
        page = table.pop(number)
        places = self.free_pages([page])
        self.charge_index(-ENTRY_BYTES)
        if not table:
            del self.pages[parent]
            self.charge_index(-TABLE_BYTES)
        for place in places:
            self._release(*place)

    def _split(self, uint64_t parent, uint32_t state, uint64_t where, numbers, const uint8_t[::1] data):
        """Let go of the bytes of a generated block, but for the pages of these numbers; False if it was used since."""
        cdef sa_block block
        cdef dict table = {}
        cdef Py_ssize_t start
        cdef int status = self.look_at(parent, &block)
        try:
            if status == SA_OK:
                for number in numbers:
                    start = number * SA_PAGE_BYTES
                    table[number] = self.new_page(parent, &block, data[start:start + SA_PAGE_BYTES])
                status = self.let_grow(parent, state, where)
            if status == SA_OK:
                if table:
                    self.pages[parent] = table
                    self.charge_index(TABLE_BYTES + <int64_t>len(table) * ENTRY_BYTES)
                table = {}
                self.page_turns += 1
        finally:
            self.free_pages(list(table.values()))
            self.charge_all()
        return status == SA_OK
