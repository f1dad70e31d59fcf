# The table of shadows for Cython callers; the contract is in core/shadow_table.h.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "shadow_table.h":
    ctypedef struct sa_digest:
        uint64_t word[2]

    ctypedef struct sa_shadow:
        const void *cell
        uint64_t place
        uint32_t frame_bytes, accesses
        sa_digest digest

    ctypedef struct sa_shadow_table:
        sa_shadow *slot
        size_t mask, count

    sa_digest sa_digest_of(const uint8_t *data, size_t length, const uint64_t *key) noexcept
    int sa_digests_equal(sa_digest one, sa_digest other) noexcept
    sa_shadow *sa_shadow_find(const sa_shadow_table *table, const void *cell) noexcept
    int sa_shadow_add(sa_shadow_table *table, const sa_shadow *shadow) noexcept
    void sa_shadow_remove(sa_shadow_table *table, sa_shadow *shadow) noexcept
    sa_shadow *sa_shadow_next(sa_shadow_table *table) noexcept
