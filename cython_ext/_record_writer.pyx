"""Records of one batch as the bytes of its segment, and their hints.

Nouns: record, head, hint and batch are those of _log.pyx; a *chunk* is a run of whole records that one system call writes.

    chunk   | head frame key MAC padding | head frame key MAC padding | ...     taken away by take(), piece by piece
    hints   | hint key | hint key | ...                                         kept until the batch is written

Invariants:
  1. `offset` is where the next record will lie, `sequence` that of the record written last.
  2. The last record is in the chunk until another follows or take() is called, so end() can still say that it was the last.

Threads: the GIL protects everything. Cost: one copy of frame and key, and their checksums: about 0.1 us for a small record.
"""
import errno

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcpy, memset

from c_crc32c cimport sa_crc32c
from c_log_record cimport *
from spectral_alloc._log cimport FLAG_CONTINUES, HINT_HEAD_BYTES, KIND_DICTIONARY, KIND_TOMBSTONE, OFFSET_BITS, put_hint

cdef enum:
    CHUNK_ROOM_MIN = 1 << 12


cdef int grow(uint8_t **memory, size_t *room, size_t wanted) except -1:
    cdef void *grown
    if wanted > room[0]:
        wanted = max(wanted, <size_t>CHUNK_ROOM_MIN)
        wanted += wanted // 2
        grown = PyMem_Realloc(memory[0], wanted)
        if grown is NULL:
            raise MemoryError()
        memory[0], room[0] = <uint8_t *>grown, wanted
    return 0


@cython.final
cdef class RecordWriter:
    """Turns the records of one batch into the bytes of a segment.

    Parameters: salt (of the segment), offset (where the first record will lie), sequence (of the record before it),
    settled_bytes (of the segment), atomic (all of the records or none shall count), authenticator and prefix (for MACs; None
    and b"" without).
    """

    def __init__(self, uint32_t salt, uint64_t offset, uint64_t sequence, uint64_t settled_bytes, bint atomic=True,
                 authenticator=None, bytes prefix not None=b""):
        self.salt, self.offset, self.sequence, self.settled_bytes, self.atomic = salt, offset, sequence, settled_bytes, atomic
        self.authenticator, self.prefix = authenticator, prefix
        self.mac_bytes = 0 if authenticator is None else authenticator.mac_bytes
        self.lengths = []

    def __dealloc__(self):
        PyMem_Free(self.chunk)
        PyMem_Free(self.hint)

    def add(self, int kind, bytes key not None, frame, int flags=0, uint64_t birth=0):
        """One record more; without a birth it is the first of its key."""
        cdef Py_buffer view
        PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
        try:
            self.put(kind, flags, birth, <const uint8_t *>view.buf, view.len, key)
        finally:
            PyBuffer_Release(&view)

    cdef int put(self, int kind, int flags, uint64_t birth, const uint8_t *frame, size_t frame_bytes, bytes key) except -1:
        cdef sa_log_record record
        cdef uint8_t *out
        cdef uint64_t total
        cdef size_t key_bytes = PyBytes_GET_SIZE(key)
        if key_bytes > 0xFFFFFFFF:
            raise OSError(errno.EFBIG, f"a key of {key_bytes} bytes does not fit into a record of the log")
        record.frame_bytes, record.key_bytes = frame_bytes, <uint32_t>key_bytes
        total = sa_log_record_bytes(&record, self.mac_bytes)
        if self.offset + total >= <uint64_t>1 << OFFSET_BITS:
            raise OSError(errno.EFBIG, "a batch does not fit into one segment of the log")
        grow(&self.chunk, &self.room, self.used + total)
        grow(&self.hint, &self.hint_room, self.hint_used + HINT_HEAD_BYTES + key_bytes)
        out = self.chunk + self.used
        record.offset, record.sequence = self.offset, self.sequence + 1
        record.birth = birth if birth else record.sequence
        record.kind, record.flags = <uint8_t>kind, <uint8_t>(flags | (FLAG_CONTINUES if self.atomic else 0))
        record.unsettled = <uint32_t>min(self.offset - self.settled_bytes, <uint64_t>0xFFFFFFFF)
        record.frame_crc = sa_crc32c(0, frame, frame_bytes)
        record.key_crc = sa_crc32c(0, PyBytes_AS_STRING(key), key_bytes)
        memset(out + total - SA_LOG_ALIGN_BYTES, 0, SA_LOG_ALIGN_BYTES)
        memcpy(out + SA_LOG_HEAD_BYTES, frame, frame_bytes)
        memcpy(out + SA_LOG_HEAD_BYTES + frame_bytes, PyBytes_AS_STRING(key), key_bytes)
        self.seal(&record, self.used)
        put_hint(self.hint + self.hint_used, record.offset, record.birth, record.kind, record.flags, frame_bytes,
                 <uint32_t>key_bytes, <const uint8_t *>PyBytes_AS_STRING(key))
        self.lengths.append(total)
        self.last, self.last_at, self.last_hint_at = record, self.used, self.hint_used
        self.hint_used += HINT_HEAD_BYTES + key_bytes
        self.used += total
        self.offset += total
        self.sequence = record.sequence
        if kind == KIND_TOMBSTONE:
            self.tombstone_bytes += SA_LOG_HEAD_BYTES + key_bytes
        else:
            self.held_bytes += SA_LOG_HEAD_BYTES + frame_bytes
            self.dictionary_bytes += SA_LOG_HEAD_BYTES + frame_bytes if kind == KIND_DICTIONARY else 0
        return 0

    cdef int seal(self, sa_log_record *record, size_t at) except -1:
        """Write the head of a record whose frame and key lie in the chunk, and its MAC."""
        cdef uint8_t *out = self.chunk + at
        cdef bytes mac
        cdef Py_ssize_t frame_bytes = record.frame_bytes, key_bytes = record.key_bytes
        cdef char *body = <char *>out + SA_LOG_HEAD_BYTES
        sa_log_write_head(out, record, self.salt)
        if self.authenticator is not None:
            mac = self.authenticator.record_mac(self.prefix, record.offset, (<char *>out)[:SA_LOG_HEAD_BYTES],
                                                body[:frame_bytes], body[frame_bytes:frame_bytes + key_bytes])
            memcpy(body + frame_bytes + key_bytes, PyBytes_AS_STRING(mac), self.mac_bytes)
        return 0

    def end(self):
        """The record that was added last is the last of its batch. Call it before take()."""
        if self.lengths and self.last.flags & FLAG_CONTINUES:
            self.last.flags &= ~FLAG_CONTINUES
            self.seal(&self.last, self.last_at)
            self.hint[self.last_hint_at] = self.last.flags  # the lowest byte of a hint

    def take(self):
        """(bytes of the chunk, list of the lengths of its records); the next chunk begins."""
        taken = PyBytes_FromStringAndSize(<char *>self.chunk, self.used), self.lengths
        self.used, self.lengths = 0, []
        return taken

    @property
    def hints(self):
        """The hints of all records so far."""
        return PyBytes_FromStringAndSize(<char *>self.hint, self.hint_used)
