# The C side of _overlay.pyx, for the other compiled modules.
from libc.stdint cimport uint8_t, uint64_t

from c_overlay cimport sa_overlay
from spectral_alloc._edit_journal cimport Journal


cdef class Overlay:
    cdef sa_overlay core
    cdef int readers     # calls under way that read without the GIL
    cdef int writers     # calls under way that write without the GIL
    cdef bint halted     # `writing` is held for a fork
    cdef readonly tuple watchers  # weak references to those who want to know of edits
    cdef int watcher_count
    cdef readonly object telling   # held from an edit until its watchers know of it
    cdef readonly Journal journal  # where edits go besides the table, or None
    cdef object __weakref__

    cdef bint find(self, uint64_t address, uint64_t *raw) noexcept
    cdef int put(self, uint64_t address, uint64_t raw) except -1
    cdef int remove(self, uint64_t address) except -1
    cdef bint is_free(self)
    cdef int put_many(self, const uint64_t *addresses, const uint64_t *raws, const uint8_t *removed, size_t count) except -1
    cdef int put_all(self, const uint64_t *addresses, const uint64_t *raws, const uint8_t *removed, size_t count,
                     object listening) except -1
    cdef unsigned long long new_among(self, const uint64_t *addresses, size_t count) noexcept
    cdef Py_ssize_t put_some(self, const uint64_t *addresses, const uint64_t *raws, const uint8_t *removed, size_t count) except -1
    cdef void patch_fill(self, uint64_t start, uint64_t step, void *out, size_t count, size_t value_bytes) noexcept
    cdef void patch_gather(self, const uint64_t *addresses, void *out, size_t count, size_t value_bytes) noexcept
