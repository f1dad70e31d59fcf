"""Records of the log for Python: walking over a piece of a segment, and the index of what is live.

Nouns: a *record* and its *head* are those of core/log_record.h; a *hint* is what the index needs of one record; a *batch* is a run of
records of which all or none count: every record but its last has the flag CONTINUES.

    hint    | offset 40, kind 8, flags 8 | birth 8 B | frame bytes 8 B | key length 4 B | key ... |     28 bytes and the key
    index   key -> Cell, COLD: place, frame bytes, birth, flags     tombstones and parked frames have none

Invariants:
  1. The hints of a segment are the same bytes, whether they were kept while it was written or found by a walk over it.
  2. Nothing is read beyond the bytes given, and nothing is allocated that they do not account for.
  3. Of the records of one key the one that was fed last counts.

Threads: the GIL protects everything. Cost: a walk is one checksum over the bytes; feeding a hint about 0.15 us.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_Clear, PyDict_GetItemWithError, PyDict_Next, PyDict_SetItem, PyDict_Size
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from c_cell cimport *
from c_log_record cimport *
from spectral_alloc._cell cimport Cell

cdef extern from "dict_core.h":
    object sa_dict_pop_or_none(object mapping, object key)

cdef extern from "Python.h":
    PyObject *PyDict_SetDefault(object mapping, object key, object value) except NULL

PUT, TOMBSTONE, PARKED, DICTIONARY, REGROWN = KIND_PUT, KIND_TOMBSTONE, KIND_PARKED, KIND_DICTIONARY, KIND_REGROWN
CONTINUES, FLAT, PICKLED, MOVED = FLAG_CONTINUES, FLAG_FLAT, FLAG_PICKLED, FLAG_MOVED
IS_REGROWN = FLAG_IS_REGROWN
HEAD_BYTES = SA_LOG_HEAD_BYTES


def salt(bytes log_id not None, uint64_t segment):
    """What the checksums of the heads of a segment begin with."""
    if len(log_id) != SALT_BYTES:
        raise ValueError(f"a log id has {SALT_BYTES} bytes, not {len(log_id)}")
    return sa_log_salt(<const uint8_t *>PyBytes_AS_STRING(log_id), segment)


def record_bytes(uint64_t frame_bytes, uint32_t key_bytes, size_t mac_bytes):
    """Bytes of a record in its file."""
    cdef sa_log_record record
    record.frame_bytes, record.key_bytes = frame_bytes, key_bytes
    return sa_log_record_bytes(&record, mac_bytes)


cdef void put_hint(uint8_t *out, uint64_t offset, uint64_t birth, uint64_t kind, uint64_t flags, uint64_t frame_bytes,
                   uint32_t key_bytes, const uint8_t *key) noexcept:
    # The hints of one machine are read on any other of the same byte order; Linux on all that we build for is little-endian.
    cdef uint64_t head = offset << 16 | kind << 8 | flags
    memcpy(out, &head, 8)
    memcpy(out + 8, &birth, 8)
    memcpy(out + 16, &frame_bytes, 8)
    memcpy(out + 24, &key_bytes, 4)
    memcpy(out + HINT_HEAD_BYTES, key, key_bytes)


# walking --------------------------------------------------------------------------------------------------------------

@cython.final
cdef class Walk:
    """What a walk over a piece of a segment found; see walk()."""

    def __cinit__(self):
        self.status = "end"
        self.damaged = []

    def __dealloc__(self):
        PyMem_Free(self.out)

    cdef int emit(self, const sa_log_record *record, const uint8_t *key) except -1:
        cdef size_t wanted = self.used + HINT_HEAD_BYTES + record.key_bytes
        cdef void *grown
        if wanted > self.room:
            grown = PyMem_Realloc(self.out, wanted * 2)
            if grown is NULL:
                raise MemoryError()
            self.out, self.room = <uint8_t *>grown, wanted * 2
        put_hint(self.out + self.used, record.offset, record.birth, record.kind, record.flags, record.frame_bytes,
                 record.key_bytes, key)
        self.used = wanted
        self.last_sequence = max(self.last_sequence, record.sequence)
        self.count += 1
        return 0

    @property
    def hints(self):
        """Hints of the good records, and of those whose frame is damaged."""
        return PyBytes_FromStringAndSize(<char *>self.out, self.used) if self.used else b""


def walk(data, uint64_t offset, uint64_t file_bytes, uint32_t salt, size_t mac_bytes=0, check_mac=None):
    """Walk over the records in ``data``, which lies at ``offset`` of a file of ``file_bytes``; returns a Walk.

    It stops with status "end" (after the last byte of the file), "short" (the next record ends after ``data``: give ``needed``
    bytes from ``offset + at``), or "bad" (no record at ``offset + at``). Records whose key or frame is damaged are listed in
    ``damaged`` as (offset, bytes, key or None); check_mac(offset, head, frame, key, mac) says whether a MAC is right.
    Cost: one checksum over the bytes.
    """
    cdef Walk found = Walk.__new__(Walk)
    cdef Py_buffer view
    cdef sa_log_record record
    cdef sa_log_status status
    cdef size_t at = 0
    cdef uint64_t total
    cdef const uint8_t *key
    cdef const uint8_t *start
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        start = <const uint8_t *>view.buf
        while offset + at < file_bytes:
            status = sa_log_read(start + at, view.len - at, offset + at, file_bytes, salt, mac_bytes, True, &record)
            if status == SA_LOG_BAD_HEAD:
                found.status = "bad"
                break
            total = sa_log_record_bytes(&record, mac_bytes)
            if status == SA_LOG_SHORT:
                found.status = "short"
                found.needed = total
                break
            key = start + at + SA_LOG_HEAD_BYTES + record.frame_bytes
            if status == SA_LOG_GOOD and check_mac is not None and not mac_is_right(check_mac, start + at, &record, mac_bytes):
                status = SA_LOG_BAD_KEY
            if status != SA_LOG_GOOD:
                found.damaged.append((offset + at, total, key[:record.key_bytes] if status == SA_LOG_BAD_FRAME else None))
            if status != SA_LOG_BAD_KEY:
                found.emit(&record, key)
            found.claimed = max(found.claimed, offset + at - min(<uint64_t>record.unsettled, offset + at))
            at += total
        found.at = at
        return found
    finally:
        PyBuffer_Release(&view)


cdef bint mac_is_right(check_mac, const uint8_t *at, const sa_log_record *record, size_t mac_bytes) except -1:
    cdef const uint8_t *frame = at + SA_LOG_HEAD_BYTES
    cdef const uint8_t *key = frame + record.frame_bytes
    cdef const uint8_t *mac = key + record.key_bytes
    return check_mac(record.offset, (<const char *>at)[:SA_LOG_HEAD_BYTES], (<const char *>frame)[:record.frame_bytes],
                     (<const char *>key)[:record.key_bytes], (<const char *>mac)[:mac_bytes])


def find_record(data, size_t start, uint64_t offset, uint64_t file_bytes, uint32_t salt, size_t mac_bytes=0):
    """The first position in ``data`` from ``start`` on at which a good head lies, or None. Cost: 5 ns a byte at worst."""
    cdef Py_buffer view
    cdef size_t at
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        at = sa_log_find(<const uint8_t *>view.buf, view.len, start, offset, file_bytes, salt, mac_bytes)
        return at if at < <size_t>view.len else None
    finally:
        PyBuffer_Release(&view)


def read_head(data, uint64_t offset, uint64_t file_bytes, uint32_t salt, size_t mac_bytes=0):
    """(sequence, birth, kind, flags, frame bytes, key bytes, record bytes) of the head in ``data``, or None."""
    cdef Py_buffer view
    cdef sa_log_record record
    cdef sa_log_status status
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        status = sa_log_read(<const uint8_t *>view.buf, view.len, offset, file_bytes, salt, mac_bytes, False, &record)
    finally:
        PyBuffer_Release(&view)
    if status != SA_LOG_GOOD:
        return None
    return (record.sequence, record.birth, record.kind, record.flags, record.frame_bytes, record.key_bytes,
            sa_log_record_bytes(&record, mac_bytes))


# the index -------------------------------------------------------------------------------------------------------------

cdef inline uint64_t birth_of(Cell cell) noexcept:
    return <uint64_t><size_t>cell.core.ledger


@cython.final
cdef class LogIndex:
    """What is live in a log, built from the hints of its segments in the order of their numbers.

    Parameters: decode_key(bytes) -> key, for keys that are neither str nor bytes; cells, an empty dict that gets a Cell for each
    key. Until _restore.pyx makes entries of them the cells keep the birth where the ledger will be, and the flags of the record
    in place of the count.
    """

    def __init__(self, decode_key, cells=None):
        if cells is not None and (not isinstance(cells, dict) or PyDict_Size(cells)):
            raise TypeError(f"cells must be an empty dict, not a {type(cells).__name__}")
        self.decode_key = decode_key
        self.cells = {} if cells is None else cells
        self.tombstone_bytes, self.held_bytes, self.dictionaries = {}, {}, []
        self.is_sorted = True

    cdef object key_of(self, const uint8_t *key, uint32_t key_bytes):
        if key_bytes and key[0] == TAG_STR:
            return PyUnicode_DecodeUTF8(<const char *>key + 1, key_bytes - 1, "surrogatepass")
        if key_bytes and key[0] == TAG_BYTES:
            return (<const char *>key)[1:key_bytes]
        return self.decode_key((<const char *>key)[:key_bytes])

    def feed(self, bytes hints not None, uint64_t segment, bint whole=False):
        """Take in the hints of a segment; a batch without its end does not count unless ``whole``.

        Returns the offset of the first record of such a batch, or None; ``held_bytes`` gets the bytes of heads and frames. Raises ValueError for hints that are none.
        """
        cdef const uint8_t *start = <const uint8_t *>PyBytes_AS_STRING(hints)
        cdef size_t at = 0, length = len(hints), batch = 0
        cdef uint64_t head
        cdef uint32_t key_bytes
        self.fed_bytes = 0
        while at < length:
            if length - at < HINT_HEAD_BYTES:
                raise ValueError("a hint is cut short")
            memcpy(&head, start + at, 8)
            memcpy(&key_bytes, start + at + 24, 4)
            if key_bytes > length - at - HINT_HEAD_BYTES:
                raise ValueError("the key of a hint is cut short")
            at += HINT_HEAD_BYTES + key_bytes
            if not head & FLAG_CONTINUES or (whole and at == length):
                while batch < at:
                    batch += self.apply(start + batch, segment)
        self.held_bytes[segment] = self.fed_bytes
        if batch == length:
            return None
        memcpy(&head, start + batch, 8)
        return head >> 16

    cdef size_t apply(self, const uint8_t *hint, uint64_t segment) except 0:
        cdef uint64_t head, birth, frame_bytes
        cdef uint32_t key_bytes
        cdef int kind
        memcpy(&head, hint, 8)
        memcpy(&birth, hint + 8, 8)
        memcpy(&frame_bytes, hint + 16, 8)
        memcpy(&key_bytes, hint + 24, 4)
        kind = (head >> 8) & 0xFF
        if kind != KIND_TOMBSTONE:
            self.fed_bytes += SA_LOG_HEAD_BYTES + frame_bytes
        if kind == KIND_PUT or kind == KIND_REGROWN:
            self.put(self.key_of(hint + HINT_HEAD_BYTES, key_bytes), segment << OFFSET_BITS | head >> 16, birth, frame_bytes,
                     (head & 0xFF) | (FLAG_IS_REGROWN if kind == KIND_REGROWN else 0))
        elif kind == KIND_TOMBSTONE:
            key = self.key_of(hint + HINT_HEAD_BYTES, key_bytes)
            sa_dict_pop_or_none(self.cells, key)
            self.tombstone_bytes[segment] = self.tombstone_bytes.get(segment, 0) + SA_LOG_HEAD_BYTES + key_bytes
        elif kind == KIND_DICTIONARY:
            self.dictionaries.append((segment << OFFSET_BITS | head >> 16, frame_bytes, birth))
        return HINT_HEAD_BYTES + key_bytes

    cdef int put(self, key, uint64_t place, uint64_t birth, uint64_t frame_bytes, uint8_t flags) except -1:
        cdef PyObject *found
        cdef Cell cell = self.spare
        if cell is None:
            cell = Cell.__new__(Cell)
        self.spare = None
        found = PyDict_SetDefault(self.cells, key, cell)
        if found == <PyObject *>cell:
            self.is_sorted = self.is_sorted and birth >= self.last_birth
            self.last_birth = birth
        else:
            self.spare, cell = cell, <Cell>found
            self.is_sorted = self.is_sorted and birth == birth_of(cell)
        cell.core.state = SA_COLD
        cell.core.payload = <void *><size_t>place
        cell.core.frame_bytes = frame_bytes
        cell.core.ledger = <void *><size_t>birth
        cell.core.flat = (flags & FLAG_FLAT) != 0
        cell.core.count = flags
        return 0

    def __len__(self):
        return PyDict_Size(self.cells)

    def sort(self):
        """Order the keys as they were first put, once all hints are in. Cost: nothing, unless compaction moved some."""
        cdef PyObject *key
        cdef PyObject *found
        cdef Py_ssize_t position = 0
        cdef list rows = []
        if self.is_sorted:
            return
        while PyDict_Next(self.cells, &position, &key, &found):
            rows.append((birth_of(<Cell>found), len(rows), <object>key, <object>found))
        rows.sort()
        PyDict_Clear(self.cells)
        for row in rows:
            PyDict_SetItem(self.cells, row[2], row[3])
        self.is_sorted = True

    @property
    def pickled_count(self):
        """How many of the live values were pickled."""
        cdef PyObject *key
        cdef PyObject *found
        cdef Py_ssize_t position = 0
        cdef long long total = 0
        while PyDict_Next(self.cells, &position, &key, &found):
            total += ((<Cell>found).core.count & FLAG_PICKLED) != 0
        return total

    def place_of(self, key):
        """The place of a live key, or None."""
        cdef PyObject *found = PyDict_GetItemWithError(self.cells, key)
        return None if found is NULL else <uint64_t><size_t>(<Cell>found).core.payload

    def forget(self, key):
        """Drop a key that is known to be damaged."""
        sa_dict_pop_or_none(self.cells, key)

    def live_bytes(self):
        """Segment -> bytes of heads and frames that count."""
        cdef PyObject *key
        cdef PyObject *cell
        cdef Py_ssize_t position = 0
        cdef dict found = {}
        cdef uint64_t segment, last = 0
        cdef long long total = 0
        while PyDict_Next(self.cells, &position, &key, &cell):
            segment = <uint64_t><size_t>(<Cell>cell).core.payload >> OFFSET_BITS
            if segment != last:
                found[last] = found.get(last, 0) + total
                last, total = segment, 0
            total += SA_LOG_HEAD_BYTES + (<Cell>cell).core.frame_bytes
        found[last] = found.get(last, 0) + total
        return found

    def entries(self):
        """All (key, place, frame bytes, birth, flags), in the order in which the keys were first put. Call it after feed."""
        cdef PyObject *key
        cdef PyObject *found
        cdef Py_ssize_t position = 0
        cdef list rows = []
        self.sort()
        while PyDict_Next(self.cells, &position, &key, &found):
            rows.append((<object>key, <uint64_t><size_t>(<Cell>found).core.payload, (<Cell>found).core.frame_bytes,
                         birth_of(<Cell>found), (<Cell>found).core.count))
        return rows
