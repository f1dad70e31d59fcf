# The C side of _express.pyx.

cdef class Express:
    cdef object dictionaries     # FrameDictionaries
    cdef object tally            # FrameTally
    cdef list idle_compressors   # (dictionary id, compress), used by nobody now
    cdef dict idle_decompressors # dictionary id -> list of decompress, used by nobody now

    cdef object last_frame       # what value() read last, until somebody asks for its stream
    cdef bytes last_stream

    cpdef object encode(self, bytes stream)
    cpdef object value(self, object frame)
    cdef object framed(self, unsigned codec, unsigned dictionary_id, Py_ssize_t raw, bytes payload)
    cdef object payload_of(self, bytes stream, object dictionary)
    cdef object unpacked(self, object payload, unsigned dictionary_id)
    cdef bytes stream_of_last(self, object frame)
