# The C side of _record_writer.pyx.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from c_log_record cimport sa_log_record


cdef class RecordWriter:
    cdef uint32_t salt
    cdef uint64_t settled_bytes
    cdef bint atomic             # all records but the last get the flag CONTINUES
    cdef object authenticator    # None: records have no MAC
    cdef bytes prefix            # what the MACs of this segment begin with
    cdef readonly size_t mac_bytes
    cdef readonly uint64_t offset, sequence
    cdef readonly uint64_t held_bytes, tombstone_bytes, dictionary_bytes
    cdef readonly list lengths   # of the records in the chunk
    cdef uint8_t *chunk
    cdef size_t used, room
    cdef uint8_t *hint
    cdef size_t hint_used, hint_room
    cdef sa_log_record last      # the record written last, while it is in the chunk
    cdef size_t last_at, last_hint_at

    cdef int put(self, int kind, int flags, uint64_t birth, const uint8_t *frame, size_t frame_bytes, bytes key) except -1
    cdef int seal(self, sa_log_record *record, size_t at) except -1
