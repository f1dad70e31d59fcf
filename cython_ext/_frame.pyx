"""Frames: the bytes in which a value is kept in RAM and on disk; docs/frame_format.md shows one in full.

Words: a *part* is one buffer of a value (part 0 its pickle, the others array memory); a *block* is one or
more successive parts that are compressed together; a block's *payload* is what is stored of it.

    offset 0        1              5             6                       end of entries
    | version 1 B | crc32c 4 B LE | part count  | entry ... entry       | payload ... payload |

    first entry of a block   | codec 1 B | dictionary id 1 B | item size 1 B | raw length | stored length |
                               bits 0-3    if codec is 3       if bit 7 of codec: shuffled
    each further part of it  | 0x0F 1 B  | raw length |

Counts and lengths are varints (7 bits a byte, low bits first, bit 7: more follow). The pickle of a small
value costs 11 bytes of header, with a dictionary 12.

Invariants (parse refuses a frame that breaks one, before anything is allocated for it):
    1. The checksum covers every byte but itself, so any flipped byte is found.
    2. The frame ends where its last payload ends.
    3. A raw length is one that the codec can reach from the stored length: equal (raw), 255 times (lz4),
       32,768 times (zstd), up to 1 GiB (formula); a zstd payload states the block's raw length itself.
    4. A shuffled block has one part, and is no formula.

Threads: every function and method is one C call under the GIL, which functions release only for 256 KiB and
more; the buffers given must not change meanwhile.
Cost: pack and parse of a 1 KB frame take 0.25 us each; a further block takes 0.1 us to pack, 0.2 us to parse.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from c_formula cimport SA_FORMULA_RAW_MAX
from c_crc32c cimport sa_crc32c, sa_crc32c_is_hardware, sa_crc32c_portable
from c_shuffle cimport sa_shuffle, sa_shuffle_portable, sa_unshuffle, sa_unshuffle_portable

from spectral_alloc.errors import CorruptFrameError

# These numbers are stored: never change or reuse one.
cdef enum:
    FRAME_VERSION_1 = 0xF1
    CODEC_RAW = 0
    CODEC_LZ4 = 1
    CODEC_ZSTD = 2
    CODEC_ZSTD_DICTIONARY = 3
    CODEC_FORMULA = 4
    CODEC_COUNT = 5
    JOINED = 0x0F
    CODEC_MASK = 0x0F
    SHUFFLED = 0x80

cdef enum:
    CRC_OFFSET = 1
    COUNT_OFFSET = 5
    ENTRY_BYTES_MIN = 2
    FRAME_BYTES_MIN = 9  # version, checksum, count, and one entry of codec, raw length, stored length
    VARINT_BYTES_MAX = 7
    LZ4_GAIN_MAX = 255
    ZSTD_GAIN_MAX = 32768  # a block of 128 KiB from a 3-byte header and one byte
    COPY_BELOW_BYTES = 4096  # copying so few bytes costs less than making a memoryview of them
    RELEASE_GIL_BYTES = 262144  # shorter work costs less than waiting for the GIL again

cdef uint64_t LENGTH_MAX = (<uint64_t>1 << 48) - 1

FRAME_VERSION = FRAME_VERSION_1
RAW = CODEC_RAW
LZ4 = CODEC_LZ4
ZSTD = CODEC_ZSTD
ZSTD_DICTIONARY = CODEC_ZSTD_DICTIONARY
FORMULA = CODEC_FORMULA
CODECS = CODEC_COUNT
ITEM_SIZE_MAX = 255
DICTIONARY_ID_MAX = 255


cdef struct Entry:
    uint8_t codec
    uint8_t dictionary_id
    uint8_t item_size
    uint64_t raw
    uint64_t stored


# Checksum and shuffle ---------------------------------------------------------------------------------------

def crc32c(data, uint32_t crc=0, bint portable=False):
    """Continue the CRC-32C ``crc`` over ``data``; ``portable`` avoids special instructions."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if portable:
            return sa_crc32c_portable(crc, view.buf, view.len)
        if view.len < RELEASE_GIL_BYTES:
            return sa_crc32c(crc, view.buf, view.len)
        with nogil:
            crc = sa_crc32c(crc, view.buf, view.len)
        return crc
    finally:
        PyBuffer_Release(&view)


def crc32c_is_hardware():
    """Say whether this processor computes CRC-32C by instruction."""
    return sa_crc32c_is_hardware() != 0


cdef int check_item_size(Py_ssize_t item_size) except -1:
    if item_size < 1 or item_size > ITEM_SIZE_MAX:
        raise ValueError(f"item size {item_size} is not between 1 and {ITEM_SIZE_MAX}")
    return 0


ctypedef void (*Mover)(uint8_t *out, const uint8_t *data, size_t length, size_t item_size) noexcept nogil


cdef void move(Mover mover, char *out, const Py_buffer *view, size_t item_size) noexcept:
    if view.len < RELEASE_GIL_BYTES:
        mover(<uint8_t *>out, <const uint8_t *>view.buf, view.len, item_size)
        return
    with nogil:
        mover(<uint8_t *>out, <const uint8_t *>view.buf, view.len, item_size)


def shuffle(data, Py_ssize_t item_size, bint portable=False):
    """Return the bytes of ``data`` with those of equal significance of each item together."""
    cdef Py_buffer view
    cdef bytes out
    check_item_size(item_size)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        out = PyBytes_FromStringAndSize(NULL, view.len)
        move(sa_shuffle_portable if portable else sa_shuffle, PyBytes_AS_STRING(out), &view, item_size)
        return out
    finally:
        PyBuffer_Release(&view)


def unshuffle(data, Py_ssize_t item_size, bint portable=False):
    """Undo :func:`shuffle`."""
    cdef Py_buffer view
    cdef Mover mover
    cdef bytearray out
    check_item_size(item_size)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        out = PyByteArray_FromStringAndSize(NULL, view.len)
        mover = sa_unshuffle_portable if portable else sa_unshuffle
        move(mover, PyByteArray_AS_STRING(out), &view, item_size)
        return out
    finally:
        PyBuffer_Release(&view)


# Writing ----------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t varint_bytes(uint64_t value) noexcept nogil:
    cdef Py_ssize_t count = 1
    while value >= 0x80:
        value >>= 7
        count += 1
    return count


cdef inline uint8_t *put_varint(uint8_t *at, uint64_t value) noexcept nogil:
    while value >= 0x80:
        at[0] = <uint8_t>(value | 0x80)
        at += 1
        value >>= 7
    at[0] = <uint8_t>value
    return at + 1


cdef uint32_t frame_checksum(const uint8_t *frame, Py_ssize_t length) noexcept nogil:
    return sa_crc32c(sa_crc32c(0, frame, CRC_OFFSET), frame + COUNT_OFFSET, length - COUNT_OFFSET)


cdef uint32_t stored_checksum(const uint8_t *frame) noexcept nogil:
    cdef uint32_t crc = 0
    cdef int index
    for index in range(4):
        crc |= <uint32_t>frame[CRC_OFFSET + index] << (8 * index)
    return crc


cdef void fill(
    uint8_t *frame, Py_ssize_t length, uint8_t *at, const Py_buffer *payloads, Py_ssize_t count
) noexcept nogil:
    """Copy the payloads to ``at`` and set the checksum."""
    cdef Py_ssize_t index
    cdef uint32_t crc
    for index in range(count):
        memcpy(at, payloads[index].buf, payloads[index].len)
        at += payloads[index].len
    crc = frame_checksum(frame, length)
    for index in range(4):
        frame[CRC_OFFSET + index] = <uint8_t>(crc >> (8 * index))


cdef Entry read_block(tuple block, uint64_t stored) except *:
    """Check one block given to pack, and return its first entry without the raw length."""
    cdef Py_ssize_t codec = block[0], dictionary_id = block[1], item_size = block[2]
    cdef tuple raw_lengths = <tuple?>block[3]
    cdef Entry entry
    if not 0 <= codec < CODEC_COUNT:
        raise ValueError(f"codec {codec} is not between 0 and {CODEC_COUNT - 1}")
    if not (1 if codec == CODEC_ZSTD_DICTIONARY else 0) <= dictionary_id <= (
        DICTIONARY_ID_MAX if codec == CODEC_ZSTD_DICTIONARY else 0
    ):
        raise ValueError(f"dictionary id {dictionary_id} does not go with codec {codec}")
    check_item_size(item_size)
    if len(raw_lengths) == 0 or (item_size > 1 and len(raw_lengths) != 1):
        raise ValueError(f"a block of item size {item_size} cannot have {len(raw_lengths)} parts")
    entry.codec = <uint8_t>codec
    entry.dictionary_id = <uint8_t>dictionary_id
    entry.item_size = <uint8_t>item_size
    entry.raw = 0
    entry.stored = stored
    return entry


cdef Py_ssize_t entries_bytes(Entry entry, tuple raw_lengths) except -1:
    """Return how many bytes the entries of a block take."""
    cdef uint64_t raw
    cdef Py_ssize_t total = varint_bytes(entry.stored) + (entry.dictionary_id != 0) + (entry.item_size > 1)
    for raw in raw_lengths:
        if raw > LENGTH_MAX:
            raise ValueError(f"a part of {raw} bytes exceeds the limit of {LENGTH_MAX}")
        total += 1 + varint_bytes(raw)
    return total


cdef uint8_t *put_entries(uint8_t *at, Entry entry, tuple raw_lengths) except NULL:
    cdef Py_ssize_t index
    at[0] = entry.codec | (SHUFFLED if entry.item_size > 1 else 0)
    at += 1
    if entry.dictionary_id != 0:
        at[0] = entry.dictionary_id
        at += 1
    if entry.item_size > 1:
        at[0] = entry.item_size
        at += 1
    at = put_varint(at, raw_lengths[0])
    at = put_varint(at, entry.stored)
    for index in range(1, len(raw_lengths)):
        at[0] = JOINED
        at = put_varint(at + 1, raw_lengths[index])
    return at


def pack(list blocks not None):
    """Return the frame of ``blocks``, each ``(codec, dictionary id, item size, raw lengths, payload)``."""
    cdef Py_ssize_t count = len(blocks), held = 0, part_count = 0, header = COUNT_OFFSET, stored = 0, index
    cdef Py_buffer only
    cdef Py_buffer *payloads = &only
    cdef Entry entry
    cdef tuple block
    cdef bytes frame
    cdef uint8_t *start
    cdef uint8_t *at
    if count == 0:
        raise ValueError("a frame has at least one block")
    if count > 1:
        payloads = <Py_buffer *>PyMem_Malloc(count * sizeof(Py_buffer))
        if payloads == NULL:
            raise MemoryError()
    try:
        for index in range(count):
            block = <tuple?>blocks[index]
            PyObject_GetBuffer(block[4], &payloads[index], PyBUF_SIMPLE)
            held += 1
            entry = read_block(block, payloads[index].len)
            header += entries_bytes(entry, block[3])
            part_count += len(<tuple>block[3])
            stored += payloads[index].len
        header += varint_bytes(part_count)
        frame = PyBytes_FromStringAndSize(NULL, header + stored)
        start = <uint8_t *>PyBytes_AS_STRING(frame)
        start[0] = FRAME_VERSION_1
        at = put_varint(start + COUNT_OFFSET, part_count)
        for index in range(count):
            block = <tuple>blocks[index]
            at = put_entries(at, read_block(block, payloads[index].len), block[3])
        if stored < RELEASE_GIL_BYTES:
            fill(start, header + stored, at, payloads, count)
        else:
            with nogil:
                fill(start, header + stored, at, payloads, count)
        return frame
    finally:
        for index in range(held):
            PyBuffer_Release(&payloads[index])
        if payloads != &only:
            PyMem_Free(payloads)


# Reading ----------------------------------------------------------------------------------------------------

cdef struct Cursor:
    const uint8_t *at
    const uint8_t *end


cdef int damaged(str what) except -1:
    raise CorruptFrameError(f"the frame is damaged: {what}")


cdef int get_byte(Cursor *cursor, uint8_t *value) except -1:
    if cursor.at == cursor.end:
        damaged("it ends within its header")
    value[0] = cursor.at[0]
    cursor.at += 1
    return 0


cdef int get_varint(Cursor *cursor, uint64_t *value) except -1:
    cdef uint8_t byte = 0x80
    cdef int index
    value[0] = 0
    for index in range(VARINT_BYTES_MAX):
        get_byte(cursor, &byte)
        value[0] |= <uint64_t>(byte & 0x7F) << (7 * index)
        if byte < 0x80:
            break
    if byte >= 0x80 or value[0] > LENGTH_MAX:
        damaged("a length exceeds the limit")
    return 0


cdef int get_entry(Cursor *cursor, Entry *entry) except -1:
    """Read one entry; for a joined part the codec is JOINED and nothing is stored."""
    cdef uint8_t byte = 0
    get_byte(cursor, &byte)
    entry.codec = byte & CODEC_MASK
    entry.dictionary_id = 0
    entry.item_size = 1
    entry.stored = 0
    if byte == JOINED:
        return get_varint(cursor, &entry.raw)
    if byte & ~(SHUFFLED | CODEC_MASK) or entry.codec >= CODEC_COUNT:
        damaged(f"unknown codec {byte}")
    if entry.codec == CODEC_ZSTD_DICTIONARY:
        get_byte(cursor, &entry.dictionary_id)
        if entry.dictionary_id == 0:
            damaged("dictionary id 0")
    if byte & SHUFFLED:
        get_byte(cursor, &entry.item_size)
        if entry.item_size < 2:
            damaged(f"shuffled items of {entry.item_size} bytes")
    get_varint(cursor, &entry.raw)
    get_varint(cursor, &entry.stored)
    return 0


cdef int check_gain(Entry block) except -1:
    """Invariant 3, for a block whose raw length is the sum over its parts."""
    cdef bint plausible
    if block.codec == CODEC_RAW:
        plausible = block.raw == block.stored
    elif block.codec == CODEC_LZ4:
        plausible = block.raw <= block.stored * LZ4_GAIN_MAX
    elif block.codec == CODEC_FORMULA:
        plausible = block.raw <= SA_FORMULA_RAW_MAX and block.item_size == 1
    else:
        plausible = block.raw <= block.stored * ZSTD_GAIN_MAX
    if not plausible:
        damaged(f"codec {block.codec} cannot make {block.raw} bytes of {block.stored}")
    return 0


cdef int check_entries(Cursor *cursor, uint64_t part_count) except -1:
    """Check all entries, and that the payloads fill the rest; leaves the cursor at the first payload."""
    cdef Entry block, entry
    cdef uint64_t index, stored
    get_entry(cursor, &block)
    if block.codec == JOINED:
        damaged("its first part continues another")
    stored = block.stored
    for index in range(1, part_count):
        get_entry(cursor, &entry)
        if entry.codec == JOINED:
            block.raw += entry.raw
            if block.item_size > 1 or block.raw > LENGTH_MAX:
                damaged("a part joins a block that cannot hold it")
            continue
        check_gain(block)
        block = entry
        stored += block.stored
        if stored > LENGTH_MAX:
            damaged("its payloads exceed the limit")
    check_gain(block)
    if stored != <uint64_t>(cursor.end - cursor.at):
        damaged(f"{cursor.end - cursor.at} bytes of payload where {stored} are declared")
    return 0


cdef int check_zstd(const uint8_t *payload, Entry block) except -1:
    """Require a zstd payload to state the block's raw length, so that zstd allocates no more than that.

    The zstd frame header without magic number: one descriptor byte (bits 6-7 width of the size field, bit 5
    single segment, all others 0: no checksum, no dictionary id), a window byte unless single segment, then the
    size in 1, 2, 4 or 8 bytes (in 2, less 256; in 1 only if single segment, else there is none).
    """
    cdef uint64_t size = 0
    cdef int width, index, window = 1
    if block.stored == 0 or payload[0] & 0x1F or payload[0] < 0x20:
        damaged("not a zstd payload with its size")
    if payload[0] & 0x20:
        window = 0
    width = 1 << (payload[0] >> 6)
    if block.stored < <uint64_t>(1 + window + width):
        damaged("a zstd payload is cut short")
    for index in range(width):
        size |= <uint64_t>payload[1 + window + index] << (8 * index)
    if width == 2:
        size += 256
    if size != block.raw:
        damaged(f"a zstd payload of {size} bytes where {block.raw} are declared")
    return 0


cdef list build_blocks(
    object frame, const uint8_t *start, Cursor cursor, const uint8_t *payload, uint64_t part_count
):
    """Make the blocks from entries that check_entries has accepted."""
    cdef Entry block, entry
    cdef list blocks = [], raw_lengths
    cdef object view = None, stored
    cdef uint64_t index = 0
    get_entry(&cursor, &block)
    while index < part_count:
        raw_lengths = [block.raw]
        index += 1
        while index < part_count:
            get_entry(&cursor, &entry)
            if entry.codec != JOINED:
                break
            raw_lengths.append(entry.raw)
            block.raw += entry.raw
            index += 1
        if block.codec == CODEC_ZSTD or block.codec == CODEC_ZSTD_DICTIONARY:
            check_zstd(payload, block)
        if block.stored < COPY_BELOW_BYTES:
            stored = PyBytes_FromStringAndSize(<const char *>payload, block.stored)
        else:
            if view is None:
                view = memoryview(frame).cast("B")
            stored = view[payload - start:payload - start + <Py_ssize_t>block.stored]
        blocks.append((block.codec, block.dictionary_id, block.item_size, tuple(raw_lengths), stored))
        payload += block.stored
        block = entry
    return blocks


def parse(frame):
    """Return the blocks of a frame as pack takes them, or raise CorruptFrameError."""
    cdef Py_buffer view
    cdef const uint8_t *start
    cdef Cursor cursor, entries
    cdef uint64_t part_count = 0
    cdef uint32_t crc
    PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
    try:
        if view.len < FRAME_BYTES_MIN:
            damaged(f"{view.len} bytes are fewer than the {FRAME_BYTES_MIN} of the smallest frame")
        start = <const uint8_t *>view.buf
        if start[0] != FRAME_VERSION_1:
            damaged(f"version byte {start[0]:#x} instead of {FRAME_VERSION_1:#x}")
        if view.len < RELEASE_GIL_BYTES:
            crc = frame_checksum(start, view.len)
        else:
            with nogil:
                crc = frame_checksum(start, view.len)
        if crc != stored_checksum(start):
            damaged(f"checksum {crc:#010x} instead of {stored_checksum(start):#010x} over {view.len} bytes")
        cursor.at = start + COUNT_OFFSET
        cursor.end = start + view.len
        get_varint(&cursor, &part_count)
        if part_count == 0 or part_count > <uint64_t>(cursor.end - cursor.at) / ENTRY_BYTES_MIN:
            damaged(f"{part_count} parts in {view.len} bytes")
        entries = cursor
        check_entries(&cursor, part_count)
        return build_blocks(frame, start, entries, cursor.at, part_count)
    finally:
        PyBuffer_Release(&view)
