# The C side of _edit_journal.pyx, for the other compiled modules.
from libc.stdint cimport uint8_t, uint64_t

from c_edit_block cimport sa_edit_columns
from c_overlay cimport sa_edit


cdef class Journal:
    cdef sa_edit_columns columns       # edits that came since the last swap
    cdef sa_edit_columns spare         # edits that are being written
    cdef sa_edit *scratch
    cdef size_t count                  # of edits in columns
    cdef size_t spare_count
    cdef readonly size_t capacity
    cdef readonly unsigned value_bytes
    cdef readonly bint is_always       # every edit waits until it is on stable storage
    cdef bytearray buffer              # what pending is a view of
    cdef readonly object pending       # the spare edits as blocks, until they are written
    cdef readonly object refusal       # why no edit is taken any more, or None
    cdef readonly object log           # what makes room and commits
    cdef readonly object file          # where pending goes, or None
    cdef readonly unsigned long long appended_count, written_count, durable_count
    cdef readonly unsigned long long end_bytes, durable_bytes

    cdef void append(self, const uint64_t *addresses, const uint64_t *raws, const uint8_t *removed, size_t count) noexcept nogil
    cdef bint swap(self) noexcept nogil
    cdef object encode(self)
