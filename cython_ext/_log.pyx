"""Records of the log for Python: writing heads, walking over a piece of a segment, and the index of what is live.

Nouns: a *record* and its *head* are those of core/log_record.h; a *hint* is what the index needs of one record; a *batch* is a run of
records of which all or none count: every record but its last has the flag CONTINUES.

    hint    | offset 40, kind 8, flags 8 | birth 8 B | frame bytes 8 B | key length 4 B | key ... |     28 bytes and the key
    index   key -> slot     slot: place, birth, frame bytes, flags      tombstones and parked frames have none

Invariants:
  1. The hints of a segment are the same bytes, whether they were kept while it was written or found by a walk over it.
  2. Nothing is read beyond the bytes given, and nothing is allocated that they do not account for.
  3. Of the records of one key the one that was fed last counts.

Threads: the GIL protects everything. Cost: a walk is one checksum over the bytes; feeding a hint about 0.3 us.
"""
cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy, memset

from c_crc32c cimport sa_crc32c
from c_log_record cimport *

# These numbers are stored: never change or reuse one.
cdef enum:
    KIND_PUT = 1
    KIND_TOMBSTONE = 2
    KIND_PARKED = 3
    KIND_DICTIONARY = 4
    KIND_REGROWN = 5
    FLAG_CONTINUES = 1
    FLAG_FLAT = 2
    FLAG_PICKLED = 4
    FLAG_MOVED = 8
    FLAG_IS_REGROWN = 16         # of slots alone: no record has it
    TAG_STR = 115
    TAG_BYTES = 98

cdef enum:
    HINT_HEAD_BYTES = 28
    SALT_BYTES = 16
    OFFSET_BITS = 40

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


def make_head(uint32_t salt, uint64_t offset, uint64_t sequence, uint64_t birth, int kind, int flags, frame, bytes key not None,
              uint64_t unsettled):
    """The head of a record. Cost: one checksum over frame and key."""
    cdef sa_log_record record
    cdef Py_buffer view
    cdef bytes out = PyBytes_FromStringAndSize(NULL, SA_LOG_HEAD_BYTES)
    PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
    try:
        record.frame_bytes = view.len
        record.frame_crc = sa_crc32c(0, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    record.offset, record.sequence, record.birth = offset, sequence, birth
    record.kind, record.flags = kind, flags
    record.key_bytes = len(key)
    record.key_crc = sa_crc32c(0, PyBytes_AS_STRING(key), len(key))
    record.unsettled = <uint32_t>min(unsettled, <uint64_t>0xFFFFFFFF)
    sa_log_write_head(<uint8_t *>PyBytes_AS_STRING(out), &record, salt)
    return out


def make_record(uint32_t salt, uint64_t offset, uint64_t sequence, uint64_t birth, int kind, int flags, bytes frame not None,
                bytes key not None, uint64_t unsettled):
    """A whole record without a MAC. Cost: one checksum over frame and key, and one copy."""
    cdef sa_log_record record
    cdef bytes out
    cdef uint8_t *at
    cdef uint64_t total
    record.frame_bytes, record.key_bytes = len(frame), len(key)
    record.frame_crc = sa_crc32c(0, PyBytes_AS_STRING(frame), len(frame))
    record.key_crc = sa_crc32c(0, PyBytes_AS_STRING(key), len(key))
    record.offset, record.sequence, record.birth = offset, sequence, birth
    record.kind, record.flags = kind, flags
    record.unsettled = <uint32_t>min(unsettled, <uint64_t>0xFFFFFFFF)
    total = sa_log_record_bytes(&record, 0)
    out = PyBytes_FromStringAndSize(NULL, total)
    at = <uint8_t *>PyBytes_AS_STRING(out)
    memset(at + total - SA_LOG_ALIGN_BYTES, 0, SA_LOG_ALIGN_BYTES)
    sa_log_write_head(at, &record, salt)
    memcpy(at + SA_LOG_HEAD_BYTES, PyBytes_AS_STRING(frame), len(frame))
    memcpy(at + SA_LOG_HEAD_BYTES + len(frame), PyBytes_AS_STRING(key), len(key))
    return out


def make_hint(uint64_t offset, uint64_t birth, int kind, int flags, uint64_t frame_bytes, bytes key not None):
    """The hint of a record."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, HINT_HEAD_BYTES + len(key))
    put_hint(<uint8_t *>PyBytes_AS_STRING(out), offset, birth, kind, flags, frame_bytes, len(key),
             <const uint8_t *>PyBytes_AS_STRING(key))
    return out


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

cdef int by_birth(const void *one, const void *other) noexcept nogil:
    cdef uint64_t first = (<const Slot *>one).birth, second = (<const Slot *>other).birth
    return (first > second) - (first < second)


@cython.final
cdef class LogIndex:
    """What is live in a log, built from the hints of its segments in the order of their numbers.

    Parameters: decode_key(bytes) -> key, for keys that are neither str nor bytes.
    """

    def __init__(self, decode_key):
        self.decode_key = decode_key
        self.numbers, self.keys, self.tombstone_bytes, self.held_bytes, self.dictionaries = {}, [], {}, {}, []
        self.sorted = True

    def __dealloc__(self):
        PyMem_Free(self.slots)

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
            number = self.numbers.pop(key, None)
            if number is not None:
                self.slots[<Py_ssize_t>number].frame_bytes = 0
                self.keys[number] = None
            self.tombstone_bytes[segment] = self.tombstone_bytes.get(segment, 0) + SA_LOG_HEAD_BYTES + key_bytes
        elif kind == KIND_DICTIONARY:
            self.dictionaries.append((segment << OFFSET_BITS | head >> 16, frame_bytes, birth))
        return HINT_HEAD_BYTES + key_bytes

    cdef int put(self, key, uint64_t place, uint64_t birth, uint64_t frame_bytes, uint8_t flags) except -1:
        cdef Py_ssize_t number
        cdef void *grown
        cdef object known
        if self.count == self.room:
            grown = PyMem_Realloc(self.slots, (self.room * 2 + 64) * sizeof(Slot))
            if grown is NULL:
                raise MemoryError()
            self.slots, self.room = <Slot *>grown, self.room * 2 + 64
        known = self.numbers.setdefault(key, self.count)
        number = known
        if number == self.count:
            self.keys.append(key)
            self.count += 1
            self.sorted = self.sorted and birth >= self.last_birth
            self.last_birth = birth
        elif self.slots[number].birth != birth:
            self.sorted = False
        self.slots[number] = Slot(place, birth, frame_bytes, number, flags)
        return 0

    def __len__(self):
        return len(self.numbers)

    cdef void sort(self) noexcept:
        """Order the slots as the keys were first put, once all hints are in."""
        if not self.sorted:
            qsort(self.slots, self.count, sizeof(Slot), by_birth)
            self.sorted = True

    @property
    def pickled_count(self):
        """How many of the live values were pickled."""
        cdef Py_ssize_t position
        cdef long long total = 0
        for position in range(self.count):
            total += self.slots[position].frame_bytes != 0 and (self.slots[position].flags & FLAG_PICKLED) != 0
        return total

    def place_of(self, key):
        """The place of a live key, or None."""
        number = self.numbers.get(key)
        return None if number is None else self.slots[self.position_of(<Py_ssize_t>number)].place

    cdef Py_ssize_t position_of(self, Py_ssize_t number) noexcept:
        """Where the slot of a number is, also after sorting."""
        cdef Py_ssize_t position
        if self.slots[number].number == number:
            return number
        for position in range(self.count):
            if self.slots[position].number == number:
                return position
        return number

    def forget(self, key):
        """Drop a key that is known to be damaged."""
        number = self.numbers.pop(key, None)
        if number is not None:
            self.slots[self.position_of(<Py_ssize_t>number)].frame_bytes = 0

    def live_bytes(self):
        """Segment -> bytes of heads and frames that count."""
        cdef Py_ssize_t position
        cdef dict found = {}
        cdef uint64_t segment, last = 0
        cdef long long total = 0
        for position in range(self.count):
            if self.slots[position].frame_bytes:
                segment = self.slots[position].place >> OFFSET_BITS
                if segment != last:
                    found[last] = found.get(last, 0) + total
                    last, total = segment, 0
                total += SA_LOG_HEAD_BYTES + self.slots[position].frame_bytes
        found[last] = found.get(last, 0) + total
        return found

    def entries(self):
        """All (key, place, frame bytes, birth, flags), in the order in which the keys were first put. Call it after feed."""
        cdef Py_ssize_t position
        cdef list found = []
        self.sort()
        for position in range(self.count):
            if self.slots[position].frame_bytes:
                found.append((self.keys[self.slots[position].number], self.slots[position].place,
                              self.slots[position].frame_bytes, self.slots[position].birth, self.slots[position].flags))
        return found
