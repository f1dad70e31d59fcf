# The C side of _log.pyx.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from c_log_record cimport sa_log_record
from spectral_alloc._cell cimport Cell


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
    FLAG_IS_REGROWN = 16         # of the index alone: no record has it
    TAG_STR = 115
    TAG_BYTES = 98

cdef enum:
    HINT_HEAD_BYTES = 28
    SALT_BYTES = 16
    OFFSET_BITS = 40


cdef class Walk:
    cdef readonly str status
    cdef readonly list damaged
    cdef readonly size_t at
    cdef readonly uint64_t needed
    cdef readonly uint64_t last_sequence
    cdef readonly uint64_t claimed   # offset up to which the records say that an fsync had covered everything
    cdef readonly Py_ssize_t count
    cdef uint8_t *out
    cdef size_t used
    cdef size_t room

    cdef int emit(self, const sa_log_record *record, const uint8_t *key) except -1


cdef class LogIndex:
    cdef object decode_key
    cdef object cells            # key -> Cell: a dict, of a subclass perhaps
    cdef Cell spare              # offered to the dict at the next put
    cdef readonly dict tombstone_bytes   # segment -> bytes of tombstones in it
    cdef readonly dict held_bytes        # segment -> bytes of heads and frames in it
    cdef uint64_t fed_bytes
    cdef readonly list dictionaries      # (place, frame bytes, id)
    cdef bint is_sorted          # births ascend in the order of the dict
    cdef uint64_t last_birth

    cdef object key_of(self, const uint8_t *key, uint32_t key_bytes)
    cdef size_t apply(self, const uint8_t *hint, uint64_t segment) except 0
    cdef int put(self, key, uint64_t place, uint64_t birth, uint64_t frame_bytes, uint8_t flags) except -1

cdef void put_hint(uint8_t *out, uint64_t offset, uint64_t birth, uint64_t kind, uint64_t flags, uint64_t frame_bytes,
                   uint32_t key_bytes, const uint8_t *key) noexcept
