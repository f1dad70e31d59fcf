"""The common way through the codec in one call: one graph stream, one zstd block with the container's dictionary.

Nouns: the *general way* is FrameCodec (spectral_alloc/frame.py) with the serialiser; a *short frame* is one part in one block
(core/short_frame.h). Express does what these do for the values that most dicts are full of, and declines all else.

    value --write_graph--> stream --encode--> short frame --value--> value

Invariants:
  1. A frame made here is the one that the general way would make, and either way reads it.
  2. Where anything is unusual (no dictionary yet, other sizes, other codecs, damage, a failing library) the answer is
     None or OTHER_WAY, and nothing has changed: the general way then does it, or says what is wrong.
  3. A zstd context is in the idle list or in the hands of one call, never both: contexts cannot be shared.

Threads: safe under the GIL; zstandard releases it while it works.
Cost: 0.4 us beside what zstd takes to compress, 0.3 us beside what it takes to decompress and the value to be made.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from c_short_frame cimport *
from spectral_alloc._formula cimport flat_formula_of
from spectral_alloc._graph_stream cimport GRAPH_STREAM, value_of
from spectral_alloc._shadows cimport digest_of_memory

from spectral_alloc.frame_dictionary import zstd_decompressor

# Of the general way too, which has them from here.
cpdef enum:
    COMPRESS_FROM_BYTES = 64     # shorter blocks are stored raw
    LARGE_FROM_BYTES = 4096      # blocks below are small: they repeat little within themselves, much among each other
    FORMULA_FROM_BYTES = 512     # in shorter blocks no formula is looked for
    FORMULA_SURE_BYTES = 64      # a formula of at most so many bytes is taken without a look at what compression makes

cdef enum:
    DICTIONARIES_KEPT = 4        # whose decompressors are kept: each takes 100 KiB
    OBSERVE_EVERY = 8            # of the values that are encoded many at a time
    TOGETHER_FROM = 64           # streams: one call for all makes a context of its own, which takes 80 us

cdef double raw_above_share = 0.95
#: Compressed to more than this share of the raw length, a block is stored raw: reading it is worth more.
RAW_ABOVE_SHARE = raw_above_share

#: What value returns for a frame that only the general way can read.
OTHER_WAY = object()


cdef class Express:
    """Encodes and decodes the values of one FrameCodec in one call where they are of the common kind.

    Parameters: dictionaries and tally of that codec.
    """

    def __init__(self, dictionaries, tally):
        self.dictionaries = dictionaries
        self.tally = tally
        self.idle_compressors = []
        self.idle_decompressors = {}

    cpdef object encode(self, bytes stream):
        """The frame of a stream, or None if this is for the general way."""
        cdef Py_ssize_t length = PyBytes_GET_SIZE(stream)
        cdef bytes payload, formula = None
        if self.stays_raw(length):
            return self.framed(SA_FRAME_RAW, 0, length, <const uint8_t *>PyBytes_AS_STRING(stream), length)
        if length >= LARGE_FROM_BYTES:
            return None
        dictionary = self.dictionaries.current
        if dictionary is None:
            return None
        if length >= FORMULA_FROM_BYTES:
            try:
                formula = flat_formula_of(stream)
            except MemoryError:
                return None
        if formula is not None and PyBytes_GET_SIZE(formula) <= FORMULA_SURE_BYTES:
            return self.framed(
                SA_FRAME_FORMULA, 0, length, <const uint8_t *>PyBytes_AS_STRING(formula), PyBytes_GET_SIZE(formula)
            )
        try:
            payload = self.payload_of(stream, dictionary)
        except Exception:
            return None
        self.dictionaries.observe(stream, PyBytes_GET_SIZE(payload))
        return self.chosen(
            stream, dictionary.id, <const uint8_t *>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), formula
        )

    cdef list encode_many(self, list streams):
        """The same for many streams, which zstd gets in one call, so that others can run meanwhile."""
        cdef list made = []
        cdef list chosen = []
        cdef Py_ssize_t index, length
        cdef Py_buffer view
        cdef bytes stream
        dictionary = self.dictionaries.current
        for stream in streams:
            length = PyBytes_GET_SIZE(stream)
            if self.stays_raw(length):
                made.append(self.framed(SA_FRAME_RAW, 0, length, <const uint8_t *>PyBytes_AS_STRING(stream), length))
            else:
                made.append(None)
                if dictionary is not None and length < LARGE_FROM_BYTES:
                    chosen.append(stream)
        payloads = self.compressed(chosen, dictionary) if chosen else None
        if payloads is None:
            return made
        length, index = 0, 0
        for stream in streams:
            if made[index] is None and PyBytes_GET_SIZE(stream) < LARGE_FROM_BYTES:
                PyObject_GetBuffer(payloads[length], &view, PyBUF_SIMPLE)
                try:
                    made[index] = self.chosen(stream, dictionary.id, <const uint8_t *>view.buf, view.len)
                    if length % OBSERVE_EVERY == 0:
                        self.dictionaries.observe(stream, view.len)
                finally:
                    PyBuffer_Release(&view)
                length += 1
            index += 1
        return made

    cdef object compressed(self, list streams, object dictionary):
        """A sequence of their payloads, None if zstd fails."""
        try:
            known = self.borrowed(dictionary)
            compressor = known[1].__self__
            if len(streams) >= TOGETHER_FROM and hasattr(compressor, "multi_compress_to_buffer"):
                payloads = compressor.multi_compress_to_buffer(streams, 0)
            else:
                payloads = [known[1](stream) for stream in streams]
            self.idle_compressors.append(known)
            return payloads
        except Exception:
            return None

    cdef inline bint stays_raw(self, Py_ssize_t length) noexcept:
        return length < COMPRESS_FROM_BYTES or (self.takes_all_raw and length <= SA_SHORT_RAW_MAX)

    cdef object chosen(
        self, bytes stream, unsigned dictionary_id, const uint8_t *payload, Py_ssize_t stored, bytes formula=None
    ):
        """The frame of a payload, or of a formula that is shorter, or of the stream itself where both gain too little."""
        cdef Py_ssize_t length = PyBytes_GET_SIZE(stream)
        cdef bint is_raw = stored > raw_above_share * length
        if formula is not None and PyBytes_GET_SIZE(formula) < (length if is_raw else stored):
            return self.framed(
                SA_FRAME_FORMULA, 0, length, <const uint8_t *>PyBytes_AS_STRING(formula), PyBytes_GET_SIZE(formula)
            )
        if is_raw:
            return self.framed(SA_FRAME_RAW, 0, length, <const uint8_t *>PyBytes_AS_STRING(stream), length)
        return self.framed(SA_FRAME_ZSTD_DICTIONARY, dictionary_id, length, payload, stored)

    cdef tuple borrowed(self, object dictionary):
        cdef tuple known = None
        if self.idle_compressors:
            known = self.idle_compressors.pop()
        if known is None or known[0] is not dictionary:
            known = (dictionary, dictionary.compressor().compress)
        return known

    cdef object payload_of(self, bytes stream, object dictionary):
        cdef tuple known = self.borrowed(dictionary)
        payload = known[1](stream)
        self.idle_compressors.append(known)
        return payload

    cdef object framed(self, unsigned codec, unsigned dictionary_id, Py_ssize_t raw, const uint8_t *payload, Py_ssize_t stored):
        cdef uint8_t head[SA_SHORT_HEAD_BYTES_MAX]
        cdef size_t head_bytes = sa_short_frame_head(head, codec, dictionary_id, raw, stored)
        cdef bytes frame = PyBytes_FromStringAndSize(NULL, head_bytes + stored)
        cdef uint8_t *start = <uint8_t *>PyBytes_AS_STRING(frame)
        memcpy(start, head, head_bytes)
        memcpy(start + head_bytes, payload, stored)
        sa_short_frame_seal(start, head_bytes + stored)
        self.tally.encoded(codec, raw, head_bytes + stored)
        return frame

    cpdef object value(self, object frame):
        """The value in a frame, or OTHER_WAY; CorruptFrameError if a sound frame holds a damaged graph stream."""
        cdef sa_short_frame short
        cdef bytes data
        if type(frame) is not bytes or not sa_short_frame_parse(
            <const uint8_t *>PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), &short
        ):
            return OTHER_WAY
        if short.codec == SA_FRAME_RAW:
            return self.made_of(short.payload, short.stored) if is_graph(short.payload, short.stored) else OTHER_WAY
        try:
            data = self.unpacked(
                PyBytes_FromStringAndSize(<const char *>short.payload, short.stored), short.dictionary_id
            )
        except Exception:
            return OTHER_WAY
        if data is None or <size_t>PyBytes_GET_SIZE(data) != short.raw:
            return OTHER_WAY
        if not is_graph(<const uint8_t *>PyBytes_AS_STRING(data), short.raw):
            return OTHER_WAY
        made = self.made_of(<const uint8_t *>PyBytes_AS_STRING(data), short.raw)
        self.last_frame, self.last_stream = frame, data
        return made

    cdef object made_of(self, const uint8_t *stream, Py_ssize_t length):
        made = value_of(stream, length)
        if self.notes_digests:  # last: making the value may start the collector, and that other reads
            self.last_digest = digest_of_memory(stream, length)
        return made

    cdef bytes stream_of_last(self, object frame):
        """The stream of the frame that value() read last, once; None if it was another, or stored raw."""
        stream = self.last_stream if self.last_frame is frame else None
        self.last_frame = self.last_stream = None
        return stream

    cdef object unpacked(self, object payload, unsigned dictionary_id):
        cdef list idle = self.idle_decompressors.get(dictionary_id)
        if idle is None:
            if dictionary_id != 0 and self.dictionaries.find(dictionary_id) is None:
                return None
            if len(self.idle_decompressors) >= DICTIONARIES_KEPT:
                self.idle_decompressors.clear()
            idle = self.idle_decompressors.setdefault(dictionary_id, [])
        decompress = idle.pop() if idle else zstd_decompressor(self.dictionaries.find(dictionary_id)).decompress
        # By position: size unknown, one frame, nothing behind it. Keywords would cost 0.16 us more.
        data = decompress(payload, 0, False, False)
        idle.append(decompress)
        return data


cdef bint is_graph(const uint8_t *data, size_t length) noexcept:
    return length > 0 and data[0] == GRAPH_STREAM
