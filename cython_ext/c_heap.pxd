"""Extern declarations of core/heap.h; the meaning, invariants and costs stand there."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t


cdef extern from "heap.h" nogil:
    enum:
        SA_CLASS_COUNT
        SA_CHANNEL_COUNT
        SA_SMALL_BYTES_MAX
        SA_SIZE_CLASS_COUNT
        SA_HEAT_COUNT
        SA_HEAT_PER_DOUBLING
        SA_PINS_MAX
        SA_UNIT_BYTES
        SA_FILL_BY_SPACE
        SA_PAGE_BYTES
        SA_AXIS_BYTES
        SA_AXIS_GENERATED
        SA_AXIS_PAGE
        SA_FREE
        SA_BYTES
        SA_EXTENT
        SA_FRAME
        SA_FRAME_EXTENT
        SA_PLACE
        SA_GROWN
        SA_BLOCK_STATE_COUNT
        SA_OK
        SA_STALE
        SA_UNKNOWN
        SA_PINNED
        SA_AWAY
        SA_RANGE
        SA_NO_MEMORY
        SA_CHANGED
        SA_PINS_FULL

    uint64_t SA_BLOCK_BYTES_MAX

    ctypedef struct sa_heap:
        pass

    ctypedef struct sa_block:
        uint64_t size
        uint64_t where
        uint64_t frame_bytes
        char *bytes
        uint32_t state, heat, hint, pins

    ctypedef struct sa_block_census:
        int64_t block_count, requested_bytes
        int64_t state_counts[7]
        int64_t generated_count, generated_pages, page_count
        int64_t counts[1024]
        int64_t bytes[1024]

    ctypedef struct sa_arena_figures:
        int64_t block_count, requested_bytes, resident_bytes, live_bytes, pinned_count
        int64_t state_counts[7]
        int64_t state_bytes[7]
        uint64_t allocation_count, free_count, access_count, migration_count, moved_bytes, moved_count
        uintptr_t header, range, range_bytes

    unsigned sa_address_class(uint64_t address)
    unsigned sa_address_channel(uint64_t address)
    unsigned sa_address_axis(uint64_t address)
    uint32_t sa_address_zero(uint64_t address)

    int sa_heap_new(sa_heap *heap, const uint8_t *steps, uint8_t start)
    void sa_heap_free_all(sa_heap *heap)
    void sa_heap_empty(sa_heap *heap)
    void sa_heap_set_bands(sa_heap *heap, const uint32_t *band_of_heat)
    uint64_t sa_heap_malloc(sa_heap *heap, uint64_t size, uint32_t zero, unsigned channel, unsigned axis, unsigned hint,
                            unsigned heat, int zeroed)
    unsigned sa_heap_class_for(const sa_heap *heap, unsigned channel, uint64_t size)
    int sa_heap_free(sa_heap *heap, uint64_t address, sa_block *freed)
    int sa_heap_access(sa_heap *heap, uint64_t address, uint32_t *state)
    int sa_heap_look(sa_heap *heap, uint64_t address, sa_block *block)
    int sa_heap_pin(sa_heap *heap, uint64_t address, sa_block *block)
    void sa_heap_unpin(sa_heap *heap, uint64_t address)
    int sa_heap_read(sa_heap *heap, uint64_t address, uint64_t offset, uint64_t length, void *target)
    int sa_heap_write(sa_heap *heap, uint64_t address, uint64_t offset, uint64_t length, const void *source)
    int sa_heap_resize(sa_heap *heap, uint64_t address, uint64_t size)
    int sa_heap_retune(sa_heap *heap, uint64_t address, unsigned hint, int heat)
    int sa_heap_copy_out(sa_heap *heap, uint64_t address, uint32_t state, uint64_t length, void *target)
    int sa_heap_replace(sa_heap *heap, uint64_t address, uint32_t source, uint64_t expected, uint32_t to,
                        const void *data, uint64_t length, uint64_t where, sa_block *old)
    int sa_heap_victims(sa_heap *heap, unsigned number, unsigned mask, unsigned window, uint64_t *addresses,
                        int count_max)
    int64_t sa_heap_compact_step(sa_heap *heap, unsigned number, int64_t byte_budget, uint64_t *position)
    int64_t sa_heap_purge(sa_heap *heap, unsigned number, int64_t byte_budget)
    int64_t sa_heap_dirty(const sa_heap *heap, unsigned number)
    int64_t sa_heap_resident(const sa_heap *heap, unsigned number)
    int64_t sa_heap_state_bytes(const sa_heap *heap, unsigned number, unsigned state)
    void sa_heap_figures(sa_heap *heap, unsigned number, sa_arena_figures *figures)
    void sa_heap_census(sa_heap *heap, unsigned number, sa_block_census *sums)
    int sa_heap_addresses(sa_heap *heap, unsigned number, unsigned mask, uint64_t *position, uint64_t *addresses, int count_max)
    int sa_heap_check(sa_heap *heap, unsigned number)
