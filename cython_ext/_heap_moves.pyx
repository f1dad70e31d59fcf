"""HeapMoves: the calls of core/heap_move.c and core/heap_compact.c that move blocks between tiers and between slabs.

Nouns: *address*, *state*, *frame*, *place* as in core/heap.h; who decides on moves is memory_tiers.py.

Invariant: each call leaves a block in one state or the other, with what it takes charged; who gets a place back releases it.
Threads: any; bytes are copied without the GIL. Cost: O(bytes).
"""
from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer, PyBUF_SIMPLE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t

from c_heap cimport *
from spectral_alloc._heap_arguments cimport address_of
from spectral_alloc._heap_pages cimport HeapPages

from spectral_alloc.errors import ClosedError
from spectral_alloc.memory_errors import refuse

cdef extern from "heap_lock.h" nogil:
    void sa_lock_prepare()

sa_lock_prepare()  # this module's copy of core/heap_lock.c


cdef class HeapMoves(HeapPages):
    """Moves of the blocks of one heap, each a single step."""

    cdef int raise_if_closed(self) except -1:
        if self.is_closed or self.budget_ is None:
            raise ClosedError("this SpectralMemory is closed; its blocks are gone")
        return 0

    @property
    def _is_open(self):
        """Whether the arenas were made, be they closed or not."""
        return self.budget_ is not None

    def _look(self, address):
        """(state, size, where, frame bytes, heat, hint, pins, address of the bytes) of a block."""
        cdef uint64_t number = address_of(address)
        cdef sa_block block
        self.raise_if_closed()
        cdef int status = sa_heap_look(&self.heap, number, &block)
        if status != SA_OK:
            refuse(status, number)
        return (block.state, block.size, block.where, block.frame_bytes, block.heat, block.hint, block.pins,
                <size_t>block.bytes)

    def _copy_out(self, uint64_t address, uint32_t state, uint64_t length):
        """The bytes or the frame of a block, marked as unused since; None if it is not as the caller thinks."""
        cdef bytes result = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
        cdef char *target = PyBytes_AS_STRING(result)
        cdef int status
        with nogil:
            status = sa_heap_copy_out(&self.heap, address, state, length, target)
        return result if status == SA_OK else None

    def _replace(self, uint64_t address, uint32_t source, uint64_t expected, uint32_t to, data, uint64_t length,
                 uint64_t where, set taken=None):
        """Replace what a block holds; the place to release (or -1) if that was done, else None.

        `where` is added to `taken` if it was done: in here no Ctrl-C can come between."""
        cdef sa_block old
        cdef int status
        cdef Py_buffer buffer
        buffer.buf = NULL
        if data is not None:
            PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            with nogil:
                status = sa_heap_replace(&self.heap, address, source, expected, to, buffer.buf, length, where, &old)
        finally:
            if data is not None:
                PyBuffer_Release(&buffer)
        if status == SA_NO_MEMORY:
            refuse(status, address)
        self.charge(sa_address_class(address))
        if status != SA_OK:
            return None
        if taken is not None:
            taken.add(where)
        if source == SA_GROWN:
            self.page_turns += 1
            self.drop_pages(address, 0)
        if old.state == SA_PLACE:
            return old.where, old.frame_bytes
        return -1, 0

    def _retune(self, address, unsigned hint, int heat):
        """Set hint and, unless negative, heat of a block."""
        cdef uint64_t number = address_of(address)
        cdef int status = sa_heap_retune(&self.heap, number, hint, heat)
        if status != SA_OK:
            refuse(status, number)

    def _victims(self, unsigned number, unsigned mask, unsigned window, int count):
        """Addresses of the coldest unviewed blocks of a class in a window behind its hand."""
        cdef uint64_t found[64]
        cdef int length = sa_heap_victims(&self.heap, number, mask, window, found, min(count, 64))
        return [found[at] for at in range(length)]

    def _compact_step(self, unsigned number, int64_t byte_budget, uint64_t position):
        """One step of a round over a class: (bytes moved, position, 0 at the end)."""
        cdef int64_t moved
        with nogil:
            moved = sa_heap_compact_step(&self.heap, number, byte_budget, &position)
        self.charge(number)
        return moved, position

    def _purge(self, unsigned number, int64_t byte_budget):
        """Give back about so many bytes of free pages of a class; returns how many."""
        cdef int64_t given = sa_heap_purge(&self.heap, number, byte_budget)
        self.charge(number)
        return given
