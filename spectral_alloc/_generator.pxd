# The C side of _generator.pyx, for the other compiled modules.
from libc.stdint cimport uint64_t

from c_generator cimport sa_generator, sa_mixer_key

cdef sa_mixer_key key_of(words) except *

# The loops for other modules that work without an object of ours.
cdef void fill_of(const sa_generator *generator, uint64_t start, uint64_t step, void *out, size_t count) noexcept nogil
cdef void gather_of(const sa_mixer_key *key, const uint64_t *addresses, uint64_t *out, size_t count) noexcept nogil
cdef void unmix_of(const sa_mixer_key *key, const uint64_t *bits, uint64_t *out, size_t count) noexcept nogil
cdef int permute_of(const sa_mixer_key *key, uint64_t last, uint64_t start, uint64_t *out, size_t count) noexcept nogil


cdef class Generator:
    cdef sa_generator core
    cdef readonly tuple key
    cdef readonly int kind
    cdef readonly object low
    cdef readonly object span

    cdef uint64_t raw(self, uint64_t address) noexcept nogil
    cdef void fill(self, uint64_t start, uint64_t step, void *out, size_t count) noexcept nogil
    cdef void gather(self, const uint64_t *addresses, void *out, size_t count) noexcept nogil
