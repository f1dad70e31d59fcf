# The C side of _express.pyx.
from libc.stdint cimport uint8_t

from c_shadow_table cimport sa_digest

cdef class Express:
    cdef object dictionaries     # FrameDictionaries
    cdef object tally            # FrameTally
    cdef list idle_compressors   # (dictionary id, compress), used by nobody now
    cdef dict idle_decompressors # dictionary id -> list of decompress, used by nobody now

    cdef public bint takes_all_raw # codec="raw"
    cdef bint notes_digests      # set: value() leaves the digest of the stream in last_digest
    cdef object last_frame       # what value() read last, until somebody asks for its stream
    cdef bytes last_stream
    cdef sa_digest last_digest

    cpdef object encode(self, bytes stream)
    cdef list encode_many(self, list streams)
    cdef bint stays_raw(self, Py_ssize_t length) noexcept
    cdef object chosen(
        self, bytes stream, unsigned dictionary_id, const uint8_t *payload, Py_ssize_t stored, bytes formula=*
    )
    cdef tuple borrowed(self, object dictionary)
    cdef object compressed(self, list streams, object dictionary)
    cpdef object value(self, object frame)
    cdef object framed(self, unsigned codec, unsigned dictionary_id, Py_ssize_t raw, const uint8_t *payload, Py_ssize_t stored)
    cdef object made_of(self, const uint8_t *stream, Py_ssize_t length)
    cdef object payload_of(self, bytes stream, object dictionary)
    cdef object unpacked(self, object payload, unsigned dictionary_id)
    cdef bytes stream_of_last(self, object frame)
