"""Shadows: promoted values whose frame is still on disk, so that they may leave again without being compressed or written.

Nouns: as in core/shadow_table.h. A shadow is *kept* when a cold value is installed, *adopted* when the value leaves and its
stream is the same, *left* when the value leaves in another form or its entry goes.

Invariants:
  1. A place given up is in `freed` until the ledger takes it to the store (Ledger.bury); it is in no shadow then.
  2. There are at most count_max shadows; more push out others.

Threads: every method is one C call under the GIL. Cost: a digest 0.1 ns a byte and 10 ns; the rest below 0.1 us.
"""
import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from c_shadow_table cimport *

cdef enum:
    FRAME_BYTES_MAX = 1 << 31
    BYTES_EACH = 80              # a slot, when half of them are taken

cdef uint64_t NO_PLACE = <uint64_t>-1

cdef uint64_t digest_key[4]
cdef bytes random_key = os.urandom(sizeof(digest_key))
memcpy(digest_key, PyBytes_AS_STRING(random_key), sizeof(digest_key))


cdef sa_digest digest_of_memory(const uint8_t *stream, size_t length) noexcept:
    return sa_digest_of(stream, length, digest_key)


cdef sa_digest digest_stream(bytes stream) noexcept:
    return sa_digest_of(<const uint8_t *>PyBytes_AS_STRING(stream), PyBytes_GET_SIZE(stream), digest_key)


cdef sa_digest digest_of_parts(parts) except *:
    """The digest of what a frame of the general way holds: that of the digests of its parts, contiguous buffers."""
    cdef Py_buffer view
    cdef sa_digest digest
    cdef bytearray digests = bytearray()
    for part in parts:
        PyObject_GetBuffer(part, &view, PyBUF_SIMPLE)
        digest = digest_of_memory(<const uint8_t *>view.buf, view.len)
        PyBuffer_Release(&view)
        digests += (<char *>&digest)[:sizeof(digest)]
    return digest_of_memory(<const uint8_t *>PyByteArray_AS_STRING(digests), len(digests))


def digest_bytes(bytes data not None):
    """The digest of some bytes in this process, as 16 bytes."""
    cdef sa_digest digest = digest_stream(data)
    return (<char *>&digest)[:sizeof(digest)]


cdef class Shadows:
    """The shadows of one container, and the places on disk that it has given up."""

    def __cinit__(self):
        self.freed = []
        self.pending_place = NO_PLACE

    def __dealloc__(self):
        free(self.table.slot)

    def __len__(self):
        return self.table.count

    def limit(self, long long bytes_max):
        """Set the RAM that shadows may take; more of them leave as others come."""
        self.count_max = max(0, bytes_max) // BYTES_EACH

    @property
    def frame_bytes(self):
        """Bytes on disk that shadows keep alive."""
        cdef size_t index, total = 0
        if self.table.slot is not NULL:
            for index in range(self.table.mask + 1):
                total += self.table.slot[index].frame_bytes if self.table.slot[index].cell is not NULL else 0
        return total

    @property
    def resident_bytes(self):
        """RAM of the table."""
        return (self.table.mask + 1) * sizeof(sa_shadow) if self.table.slot is not NULL else 0

    cdef sa_digest digest(self, bytes stream) noexcept:
        return digest_stream(stream)


    cdef void expect(self, const void *cell, uint64_t place, sa_digest digest, uint32_t accesses) noexcept:
        """The next drop of `place` is because `cell` takes the value in: its frame becomes a shadow."""
        self.pending_cell, self.pending_place = cell, place
        self.pending_digest, self.pending_accesses = digest, accesses

    cdef void unexpect(self) noexcept:
        self.pending_place = NO_PLACE

    cdef int drop(self, uint64_t place, uint64_t frame_bytes) except -1:
        """A frame that no cell refers to any more: expected, or given up."""
        cdef sa_shadow shadow
        if place == self.pending_place and frame_bytes < <uint64_t>FRAME_BYTES_MAX:
            self.pending_place = NO_PLACE
            shadow.cell, shadow.place, shadow.frame_bytes = self.pending_cell, place, <uint32_t>frame_bytes
            shadow.digest, shadow.accesses = self.pending_digest, self.pending_accesses
            return self.keep(&shadow)
        self.freed.append((place, frame_bytes))
        return 0

    cdef int give_up(self, sa_shadow *shadow) except -1:
        self.freed.append((shadow.place, shadow.frame_bytes))
        sa_shadow_remove(&self.table, shadow)
        return 0

    cdef int keep(self, sa_shadow *shadow) except -1:
        """This frame, of a value that its cell has now, is ours."""
        self.leave(shadow.cell)
        for _ in range(2):  # so that a lower limit is reached in time
            if self.table.count >= self.count_max and self.table.count > 0:
                self.give_up(sa_shadow_next(&self.table))
        if self.count_max == 0 or sa_shadow_add(&self.table, shadow) < 0:
            self.freed.append((shadow.place, shadow.frame_bytes))
        return 0

    cdef const sa_shadow *find(self, const void *cell) noexcept:
        """The shadow of this cell, or NULL; good until the next call."""
        return sa_shadow_find(&self.table, cell)

    cdef bint adopt(self, const void *cell, sa_digest digest, sa_shadow *found) noexcept:
        """Hand on the frame of this cell's value if that still is the same."""
        cdef sa_shadow *shadow = sa_shadow_find(&self.table, cell)
        if shadow is NULL or not sa_digests_equal(shadow.digest, digest):
            return False
        found[0] = shadow[0]
        sa_shadow_remove(&self.table, shadow)
        return True

    cdef bint leave(self, const void *cell) except *:
        """Give up the frame of this cell; True if there was one."""
        cdef sa_shadow *shadow = sa_shadow_find(&self.table, cell)
        if shadow is NULL:
            return False
        self.give_up(shadow)
        return True

    def forsake(self, segments=None, int segment_shift=0):
        """Give up all shadows, or those whose place lies in one of some segments. Returns how many."""
        cdef size_t index, before = self.table.count
        cdef bint again = self.table.count > 0
        while again:  # those behind one that goes move up, perhaps past the end of the table
            again, index = False, 0
            while self.table.count > 0 and index <= self.table.mask:
                if self.table.slot[index].cell is not NULL and (
                    segments is None or self.table.slot[index].place >> segment_shift in segments
                ):
                    self.give_up(&self.table.slot[index])
                    again = True
                else:
                    index += 1
        return before - self.table.count
