"""Journal: the edits of a space on their way to its log; and blocks of edits from and to bytes (core/edit_block.h).

Nouns: *edit*, *block* as in core/edit_block.h; *appended*, *written*, *durable* are counts of edits: taken, in the file, on
stable storage; `pending` is bytes that are to be written at `end_bytes` of the file.

    appended -> columns --swap--> spare --encode--> pending --write, wrote()--> file --sync, synced()--> stable storage

Invariants:
  1. appended_count = written_count + spare_count + count; durable_count <= written_count.
  2. pending belongs to the spare edits and to end_bytes until wrote(), which lets go of both at once: a write that failed or
     was interrupted is repeated at the same place.
  3. After refuse() nothing is appended any more.

Threads: append and swap under the overlay's `writing`, or under the GIL while no bulk call is under way, and swap only
while no edit is spare; all else by one thread at a time, the one that has the log's lock.
Cost: append 2 ns an edit; encode see core/edit_block.h. Memory: 51 bytes for each edit of capacity.
"""
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from c_edit_block cimport *
from c_overlay cimport sa_edit

import numpy

BLOCK_EDITS = SA_BLOCK_EDITS
BLOCK_BYTES_MAX = SA_BLOCK_BYTES_MAX
BLOCK_HEADER_BYTES = SA_BLOCK_HEADER_BYTES
BLOCK_MAGIC = b"SAE1"


cdef int columns_allocate(sa_edit_columns *columns, size_t capacity) noexcept:
    columns.addresses = <uint64_t *>PyMem_RawMalloc(capacity * sizeof(uint64_t))
    columns.raws = <uint64_t *>PyMem_RawMalloc(capacity * sizeof(uint64_t))
    columns.removed = <uint8_t *>PyMem_RawMalloc(capacity)
    return columns.addresses != NULL and columns.raws != NULL and columns.removed != NULL


cdef void columns_free(sa_edit_columns *columns) noexcept:
    PyMem_RawFree(columns.addresses)
    PyMem_RawFree(columns.raws)
    PyMem_RawFree(columns.removed)


cdef size_t encode_all(const sa_edit_columns *edits, size_t count, unsigned value_bytes, uint64_t durable, sa_edit *scratch,
                       uint8_t *out) noexcept nogil:
    """Encode any number of edits as blocks, and return their bytes."""
    cdef size_t done = 0, size = 0, piece
    cdef sa_edit_columns part
    while done < count:
        piece = min(count - done, <size_t>SA_BLOCK_EDITS)
        part.addresses = edits.addresses + done
        part.raws = edits.raws + done
        part.removed = edits.removed + done
        size += sa_block_encode(&part, piece, value_bytes, durable, scratch, out + size)
        done += piece
    return size


cdef size_t room_for(size_t count) noexcept nogil:
    """Bytes that the blocks of count edits take at most."""
    return (count // SA_BLOCK_EDITS + 1) * SA_BLOCK_BYTES_MAX + SA_BLOCK_SLACK_BYTES


cdef class Journal:
    """The edits of a space that its log has not written yet. Parameters: log (has make_room() and commit()), file (where
    they go), capacity (edits), value_bytes (4 or 8), end_bytes (of the file), is_always (every edit waits for stable storage)."""

    def __cinit__(self, log, file, size_t capacity, unsigned value_bytes, unsigned long long end_bytes, bint is_always):
        self.scratch = <sa_edit *>PyMem_RawMalloc(2 * SA_BLOCK_EDITS * sizeof(sa_edit))
        if not (columns_allocate(&self.columns, capacity) & columns_allocate(&self.spare, capacity)) or self.scratch == NULL:
            raise MemoryError(f"no memory for a journal of {capacity} edits")
        self.log, self.file, self.is_always = log, file, is_always
        self.capacity, self.value_bytes = capacity, value_bytes
        self.end_bytes = self.durable_bytes = end_bytes
        # for all blocks to come: new memory for each writing would cost more than the writing
        self.buffer = bytearray(room_for(capacity))

    def __dealloc__(self):
        columns_free(&self.columns)
        columns_free(&self.spare)
        PyMem_RawFree(self.scratch)

    cdef void append(self, const uint64_t *addresses, const uint64_t *raws, const uint8_t *removed, size_t count) noexcept nogil:
        memcpy(self.columns.addresses + self.count, addresses, count * sizeof(uint64_t))
        memcpy(self.columns.raws + self.count, raws, count * sizeof(uint64_t))
        if removed == NULL:
            memset(self.columns.removed + self.count, 0, count)
        else:
            memcpy(self.columns.removed + self.count, removed, count)
        self.count += count
        self.appended_count += count

    cdef bint swap(self) noexcept nogil:
        """Make the edits that wait the spare ones, if no edit is spare; whether it did. Asked here, under `writing`: what
        was seen before that may have changed."""
        if self.spare_count != 0:
            return False
        self.columns, self.spare = self.spare, self.columns
        self.count, self.spare_count = 0, self.count
        return True

    cdef object encode(self):
        """Make pending of the spare edits. O(edits), without the GIL."""
        cdef uint8_t *out = <uint8_t *><char *>self.buffer
        cdef size_t size
        with nogil:
            size = encode_all(&self.spare, self.spare_count, self.value_bytes, self.durable_bytes, self.scratch, out)
        self.pending = memoryview(self.buffer)[:size]
        return self.pending

    def wrote(self):
        """The pending bytes are in the file."""
        self.end_bytes += len(self.pending)
        self.written_count += self.spare_count
        self.spare_count = 0
        self.pending = None

    def synced(self, unsigned long long count, unsigned long long size, /):
        """The first ``count`` edits and ``size`` bytes of the file are on stable storage."""
        self.durable_count, self.durable_bytes = count, size

    def moved(self, file, unsigned long long end_bytes, /):
        """The log goes on in another file, which is on stable storage up to its end, or with None nowhere."""
        self.file = file
        self.end_bytes = self.durable_bytes = end_bytes
        self.durable_count = self.written_count

    def refuse(self, reason, /):
        """Take no edit any more, and say why."""
        self.refusal = reason

    @property
    def has_work(self):
        """Whether there are edits that are not on stable storage."""
        return self.appended_count != self.durable_count


def encode_edits(const uint64_t[::1] addresses not None, const uint64_t[::1] raws not None, unsigned value_bytes):
    """Blocks that write these edits, in this order, as bytes.

    >>> len(encode_edits(numpy.arange(4096, dtype="u8"), numpy.zeros(4096, dtype="u8"), 8))
    32808
    """
    cdef size_t count = addresses.shape[0], size
    cdef sa_edit_columns columns
    cdef bytes removed = bytes(count)
    cdef bytearray out = bytearray(room_for(count))
    cdef sa_edit *scratch = <sa_edit *>PyMem_RawMalloc(2 * SA_BLOCK_EDITS * sizeof(sa_edit))
    cdef uint8_t *target = <uint8_t *><char *>out
    if count == 0 or scratch == NULL:
        PyMem_RawFree(scratch)
        return b""
    columns.addresses, columns.raws = <uint64_t *>&addresses[0], <uint64_t *>&raws[0]
    columns.removed = <uint8_t *>PyBytes_AS_STRING(removed)
    with nogil:
        size = encode_all(&columns, count, value_bytes, 0, scratch, target)
        PyMem_RawFree(scratch)
    return bytes(memoryview(out)[:size])


def block_at(const uint8_t[::1] data not None, size_t start=0):
    """(size, durable) of the sound block that begins there, or None.

    >>> block_at(b"nothing")
    """
    cdef size_t length = data.shape[0], size
    if length < start + SA_BLOCK_HEADER_BYTES:
        return None
    size = sa_block_size(&data[start], length - start)
    if size == 0 or size > length - start or not sa_block_is_sound(&data[start], size):
        return None
    return size, sa_block_durable(&data[start])


def decode_block(const uint8_t[::1] data not None):
    """(addresses, raws, removed) of a sound block: what block_at has accepted."""
    cdef size_t count
    cdef int has_removals
    addresses, raws = numpy.empty(SA_BLOCK_EDITS, dtype=numpy.uint64), numpy.empty(SA_BLOCK_EDITS, dtype=numpy.uint64)
    removed = numpy.empty(SA_BLOCK_EDITS, dtype=numpy.uint8)
    cdef uint64_t[::1] address_view = addresses, raw_view = raws
    cdef uint8_t[::1] removed_view = removed
    cdef sa_edit_columns columns
    columns.addresses, columns.raws, columns.removed = &address_view[0], &raw_view[0], &removed_view[0]
    count = sa_block_decode(&data[0], data.shape[0], &columns, &has_removals)
    return addresses[:count], raws[:count], removed[:count]


def mark(unsigned value_bytes, uint64_t durable):
    """A block without edits, which says how many bytes of a file are on stable storage.

    >>> block_at(mark(8, 1000))
    (40, 1000)
    """
    return stamped(BLOCK_MAGIC + bytes(SA_BLOCK_HEADER_BYTES - len(BLOCK_MAGIC) - 1) + bytes([value_bytes]), durable)


def stamped(bytes blocks not None, uint64_t durable):
    """The whole blocks at the front of bytes, with another ``durable`` and its checksums."""
    cdef bytearray out = bytearray(blocks)
    cdef uint8_t *at = <uint8_t *><char *>out
    cdef size_t length = len(out), done = 0, size
    while done + SA_BLOCK_HEADER_BYTES <= length:
        size = sa_block_size(at + done, length - done)
        if size == 0 or size > length - done:
            break
        sa_block_stamp(at + done, size, durable)
        done += size
    return bytes(memoryview(out)[:done])
