/* heap.c - the life of a block: malloc, free, access, pin, read, write. Words, layout and invariants are in heap.h.
 *
 * Every public function: find the arena from the address, lock it, find the block, act, unlock.
 *
 * Threads: any; one lock at a time. Cost: in heap.h; read and write of more than COPY_BYTES_LOCKED pin the block and
 * copy without the lock.
 */
#define _GNU_SOURCE
#include "heap_arena.h"

#include <math.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

enum { COPY_BYTES_LOCKED = 4096 };

/* What one access adds to each heat code, in 1/65536 of a code. */
static uint32_t heat_growth[SA_HEAT_COUNT];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void prepare(void) {
    sa_lock_prepare();
    for (int code = 0; code < SA_HEAT_COUNT; code++) {
        double count = exp2((double)code / SA_HEAT_PER_DOUBLING);
        heat_growth[code] = (uint32_t)(SA_HEAT_PER_DOUBLING * (log2(count + 1) - log2(count)) * 65536);
    }
}

/* --- life ------------------------------------------------------------------------------------------------------ */

static int64_t own_bytes(const sa_arena *arena) {
    return (int64_t)((sizeof(sa_arena) + arena->page_bytes - 1) / arena->page_bytes * arena->page_bytes);
}

int sa_heap_new(sa_heap *heap, const uint8_t *steps, uint8_t start) {
    pthread_once(&tables_once, prepare);
    memset(heap, 0, sizeof *heap);
    for (int channel = 0; channel < SA_CHANNEL_COUNT; channel++)
        for (int turn = 0; turn < SA_CLASS_COUNT; turn++)
            heap->cycles[channel][turn] = (uint8_t)((start + turn * steps[channel]) % SA_CLASS_COUNT);
    for (int class = 0; class < SA_CLASS_COUNT; class++) {
        void *page = mmap(NULL, sizeof(sa_arena), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) {
            sa_heap_free_all(heap);
            return -1;
        }
        sa_arena *arena = heap->arenas[class] = page;
        long bytes = sysconf(_SC_PAGESIZE);
        arena->class = (uint32_t)class;
        arena->next_serial = 1;
        arena->page_bytes = bytes > 4096 && bytes <= SA_UNIT_BYTES ? (uint32_t)bytes : 4096;
        arena->page_shift = (uint32_t)__builtin_ctz(arena->page_bytes);
        arena->resident_bytes = own_bytes(arena);
    }
    sa_heap_register(heap);
    return 0;
}

static void drop_range(sa_arena *arena) {
    sa_table_release(arena);
    if (arena->range != NULL) {
        munmap(arena->range, (size_t)arena->unit_limit * SA_UNIT_BYTES);
        munmap(arena->unit_used, sa_books_bytes(arena->unit_limit));
    }
}

void sa_heap_empty(sa_heap *heap) {
    for (int class = 0; class < SA_CLASS_COUNT; class++) {
        sa_arena *arena = heap->arenas[class];
        sa_arena_lock(arena);
        if (arena->pinned_count == 0) {
            drop_range(arena);
            /* All but what comes before the table: the lock, the class, and the serials, so that old addresses are
             * stale. */
            memset(&arena->table, 0, offsetof(sa_arena, page_bytes) - offsetof(sa_arena, table));
            arena->resident_bytes = own_bytes(arena);
        }
        sa_arena_unlock(arena);
    }
}

void sa_heap_free_all(sa_heap *heap) {
    sa_heap_unregister(heap);
    for (int class = 0; class < SA_CLASS_COUNT; class++) {
        sa_arena *arena = heap->arenas[class];
        if (arena == NULL)
            continue;
        drop_range(arena);
        munmap(arena, sizeof(sa_arena));
        heap->arenas[class] = NULL;
    }
}

void sa_heap_set_bands(sa_heap *heap, const uint32_t *band_of_heat) {
    for (int class = 0; class < SA_CLASS_COUNT; class++) {
        sa_arena_lock(heap->arenas[class]);
        heap->arenas[class]->band_of_heat = band_of_heat;
        sa_arena_unlock(heap->arenas[class]);
    }
}

/* --- finding ----------------------------------------------------------------------------------------------------- */

/* Lock the arena of an address and find the block; without success nothing is locked. Inlined, so that no part of *ref
 * is computed that is not used. */
static inline __attribute__((always_inline)) int enter(sa_heap *heap, uint64_t address, sa_arena **arena, sa_ref *ref) {
    unsigned class = sa_address_class(address);
    if (class >= SA_CLASS_COUNT)
        return SA_UNKNOWN;
    *arena = heap->arenas[class];
    sa_arena_lock(*arena);
    int status = sa_find(*arena, address, ref);
    if (status != SA_OK)
        sa_arena_unlock(*arena);
    return status;
}

/* As enter, for what is often asked of the block that was made last. The entry is not in *ref. */
static inline __attribute__((always_inline)) int enter_recent(sa_heap *heap, uint64_t address, sa_arena **found,
                                                              sa_ref *ref) {
    unsigned class = sa_address_class(address);
    if (class >= SA_CLASS_COUNT)
        return SA_UNKNOWN;
    sa_arena *arena = *found = heap->arenas[class];
    sa_arena_lock(arena);
    uint32_t serial = (uint32_t)address;
    if (serial == arena->recent_serial && serial != 0) {
        sa_ref_of_place(arena, arena->recent_place, ref);
        if (((*ref->meta ^ address) & SA_IDENTITY) == 0)
            return SA_OK;
        sa_arena_unlock(arena);
        return SA_UNKNOWN;
    }
    int status = sa_find(arena, address, ref);
    if (status != SA_OK)
        sa_arena_unlock(arena);
    return status;
}

uint64_t sa_address_of(const sa_arena *arena, const sa_ref *ref) {
    return (*ref->meta & SA_IDENTITY) | (uint64_t)arena->class << 37 | *ref->entry;
}

uint64_t sa_block_size(const sa_ref *ref) {
    if (sa_meta_state(*ref->meta) == SA_BYTES)
        return ref->cell_bytes - sa_meta_slack(*ref->meta);
    return *(const uint64_t *)ref->cell;
}

/* Bytes held for the block: its own, those of its frame, or none. */
uint64_t sa_block_length(const sa_ref *ref) {
    uint64_t filled = ref->cell_bytes - sa_meta_slack(*ref->meta);
    switch (sa_meta_state(*ref->meta)) {
    case SA_BYTES:
        return filled;
    case SA_FRAME:
        return filled - 8;
    default:
        return ((const sa_stub *)ref->cell)->length;
    }
}

void sa_describe(sa_arena *arena, const sa_ref *ref, sa_block *block) {
    unsigned state = sa_meta_state(*ref->meta);
    const sa_stub *stub = (const sa_stub *)ref->cell;
    *block = (sa_block){.size = sa_block_size(ref), .state = state};
    block->heat = sa_meta_heat(*ref->meta);
    block->hint = sa_meta_hint(*ref->meta);
    block->pins = sa_meta_pins(*ref->meta);
    if (state != SA_BYTES && state != SA_EXTENT)
        block->frame_bytes = sa_block_length(ref);
    if (state == SA_BYTES)
        block->bytes = ref->cell;
    else if (state == SA_FRAME)
        block->bytes = ref->cell + 8;
    else if (state == SA_EXTENT || state == SA_FRAME_EXTENT)
        block->bytes = sa_unit_start(arena, (uint32_t)stub->where);
    else
        block->where = stub->where;
}

void sa_state_add(sa_arena *arena, const sa_ref *ref, int sign) {
    unsigned state = sa_meta_state(*ref->meta);
    arena->state_bytes[state] += sign * (int64_t)sa_block_length(ref);
    if (state == SA_BYTES)
        return;
    arena->away_counts[state] += sign;
    arena->away_requested_bytes += sign * (int64_t)sa_block_size(ref);
}

/* As sa_describe, of a block that is known to be in state BYTES. */
static inline void describe_bytes(const sa_ref *ref, sa_block *block) {
    sa_meta meta = *ref->meta;
    *block = (sa_block){.size = ref->cell_bytes - sa_meta_slack(meta), .bytes = ref->cell, .state = SA_BYTES,
                        .heat = sa_meta_heat(meta), .hint = sa_meta_hint(meta), .pins = sa_meta_pins(meta)};
}

/* --- malloc and free --------------------------------------------------------------------------------------------- */

/* *ref is a cell for `filled` bytes; its meta says only state and slack. */
static inline int take_cell(sa_arena *arena, unsigned state, uint64_t filled, sa_ref *ref) {
    unsigned number = sa_size_class_of(filled);
    ref->meta = sa_cell_reuse(arena, number);
    if (ref->meta == NULL && (ref->meta = sa_cell_take(arena, number)) == NULL)
        return -1;
    ref->cell = (char *)(ref->meta + 1);
    ref->cell_bytes = sa_size_classes[number].cell_bytes;
    *ref->meta = (sa_meta)state << SA_STATE_SHIFT | (sa_meta)(ref->cell_bytes - filled) << SA_SLACK_SHIFT;
    return 0;
}

int sa_storage_take(sa_arena *arena, unsigned state, uint64_t size, uint64_t length, sa_ref *ref) {
    int is_stub = state == SA_PLACE || state == SA_GROWN;
    uint64_t head = state == SA_FRAME ? sizeof(uint64_t) : 0;
    int is_large = !is_stub && head + length > SA_SMALL_BYTES_MAX;
    uint32_t unit = 0, units = (uint32_t)((length + SA_UNIT_BYTES - 1) / SA_UNIT_BYTES);
    uint64_t filled = is_stub || is_large ? sizeof(sa_stub) : head + length;
    if (is_large) {
        state = state == SA_FRAME ? SA_FRAME_EXTENT : SA_EXTENT;
        if ((unit = sa_units_take(arena, units, 0)) == UINT32_MAX)
            return -1;
    }
    if (take_cell(arena, state, filled, ref) != 0) {
        if (is_large)
            sa_units_give(arena, unit, units);
        return -1;
    }
    if (is_large)
        sa_units_touch(arena, unit, 0, length);
    if (is_stub || is_large)
        *(sa_stub *)ref->cell = (sa_stub){size, unit, length};
    else if (state == SA_FRAME)
        *(uint64_t *)ref->cell = size;
    return 0;
}

void sa_storage_give(sa_arena *arena, sa_ref *ref) {
    unsigned state = sa_meta_state(*ref->meta);
    if (state == SA_EXTENT || state == SA_FRAME_EXTENT) {
        const sa_stub *stub = (const sa_stub *)ref->cell;
        uint32_t units = (uint32_t)((stub->length + SA_UNIT_BYTES - 1) / SA_UNIT_BYTES);
        sa_units_give(arena, (uint32_t)stub->where, units);
    }
    sa_cell_give(arena, ref->meta);
}

static uint32_t fresh_serial_slow(sa_arena *arena) {
    /* After 2^32 blocks the serials begin again; those of blocks that still live are passed over. */
    for (;; arena->next_serial++, arena->passed_count++) {
        uint32_t serial = (uint32_t)arena->next_serial;
        if (serial != 0 && sa_table_find(arena, serial) == NULL)
            return serial;
    }
}

static inline uint32_t fresh_serial(sa_arena *arena) {
    uint32_t serial = arena->next_serial >> 32 == 0 ? (uint32_t)arena->next_serial : fresh_serial_slow(arena);
    arena->next_serial++;
    return serial;
}

static inline unsigned next_class(sa_heap *heap, unsigned channel) {
    /* Two threads at once may take the same turn: that costs a little evenness, where counting both would cost as much as
     * a lock. */
    uint32_t turn = atomic_load_explicit(&heap->turns[channel], memory_order_relaxed);
    atomic_store_explicit(&heap->turns[channel], turn == SA_CLASS_COUNT - 1 ? 0 : turn + 1, memory_order_relaxed);
    return heap->cycles[channel][turn];
}

/* A cell for `size` bytes in place, or what a block that is not goes by. */
static inline int take_block(sa_arena *arena, uint64_t size, int is_grown, sa_ref *ref) {
    if (__builtin_expect(sa_table_make_room(arena) != 0, 0))
        return -1;
    if (__builtin_expect(is_grown, 0))
        return sa_storage_take(arena, SA_GROWN, size, 0, ref);
    return size <= SA_SMALL_BYTES_MAX ? take_cell(arena, SA_BYTES, size, ref)
                                      : sa_storage_take(arena, SA_BYTES, size, size, ref);
}

unsigned sa_heap_class_for(const sa_heap *heap, unsigned channel, uint64_t size) {
    uint32_t first = atomic_load_explicit(&heap->turns[channel], memory_order_relaxed);
    for (uint32_t turn = 0; turn < SA_CLASS_COUNT; turn++) {
        unsigned class = heap->cycles[channel][(first + turn) % SA_CLASS_COUNT];
        if (size <= sa_units_bytes_max(heap->arenas[class]))
            return class;
    }
    return SA_CLASS_COUNT;
}

/* As take_block, in the first of the following classes that has room; its arena, locked, or NULL. After one round it is
 * the turn of the class again that was full first. */
static sa_arena *take_block_slow(sa_heap *heap, unsigned channel, uint64_t size, int is_grown, sa_ref *ref) {
    for (int turn = 1; turn < SA_CLASS_COUNT; turn++) {
        sa_arena *arena = heap->arenas[next_class(heap, channel)];
        sa_arena_lock(arena);
        if (take_block(arena, size, is_grown, ref) == 0)
            return arena;
        sa_arena_unlock(arena);
    }
    return NULL;
}

uint64_t sa_heap_malloc(sa_heap *heap, uint64_t size, uint32_t zero, unsigned channel, unsigned axis, unsigned hint,
                        unsigned heat, int zeroed) {
    sa_arena *arena = heap->arenas[next_class(heap, channel)];
    int is_grown = axis == SA_AXIS_GENERATED || (zeroed && size > SA_SMALL_BYTES_MAX);
    sa_ref ref;
    sa_arena_lock(arena);
    if (__builtin_expect(take_block(arena, size, is_grown, &ref) != 0, 0)) {
        sa_arena_unlock(arena);
        if ((arena = take_block_slow(heap, channel, size, is_grown, &ref)) == NULL)
            return 0;
    }
    uint64_t address = sa_address(zero, arena->class, channel, axis, fresh_serial(arena));
    *ref.meta |= (address & SA_IDENTITY) | SA_DIRTY_BIT | (sa_meta)hint << SA_HINT_SHIFT | heat;
    sa_table_insert(arena, (uint32_t)address, sa_place_of(arena, ref.meta));
    if (__builtin_expect(sa_meta_state(*ref.meta) == SA_BYTES, 1))
        arena->state_bytes[SA_BYTES] += (int64_t)size;
    else
        sa_state_add(arena, &ref, 1);
    if (zeroed && !is_grown)
        memset(ref.cell, 0, size);
    if (axis == SA_AXIS_GENERATED && !zeroed)
        ((sa_stub *)ref.cell)->where = SA_FILL_BY_SPACE;
    sa_table_fetch_next(arena);
    sa_arena_unlock(arena);
    return address;
}

static int free_slow(sa_arena *arena, uint32_t *entry, sa_block *freed) {
    sa_ref ref;
    sa_ref_of_entry(arena, entry, &ref);
    if (sa_meta_pins(*ref.meta) > 0)
        return SA_PINNED;
    sa_describe(arena, &ref, freed);
    sa_state_add(arena, &ref, -1);
    sa_table_remove(arena, ref.entry);
    sa_storage_give(arena, &ref);
    return SA_OK;
}

int sa_heap_free(sa_heap *heap, uint64_t address, sa_block *freed) {
    sa_arena *arena;
    sa_ref ref;
    int status = enter(heap, address, &arena, &ref);
    if (status != SA_OK)
        return status;
    if (__builtin_expect(sa_meta_state(*ref.meta) == SA_BYTES && sa_meta_pins(*ref.meta) == 0, 1)) {
        describe_bytes(&ref, freed);
        arena->state_bytes[SA_BYTES] -= (int64_t)freed->size;
        sa_table_remove(arena, ref.entry);
        sa_cell_keep(arena, ref.meta);
    } else
        status = free_slow(arena, ref.entry, freed);
    sa_arena_unlock(arena);
    return status;
}

/* --- use --------------------------------------------------------------------------------------------------------- */

/* One access: heat grows as the logarithm of 1 + accesses, its fraction rounded up in so many of 65536 cases. */
static inline void touch(sa_arena *arena, sa_ref *ref) {
    unsigned heat = sa_meta_heat(*ref->meta);
    arena->dither += 0x9E3779B1u;
    unsigned grown = heat + ((heat_growth[heat] + (arena->dither >> 16)) >> 16);
    arena->access_count++;
    *ref->meta |= SA_DIRTY_BIT;
    if (grown == heat || heat == SA_HEAT_COUNT - 1)
        return;
    grown = grown < SA_HEAT_COUNT ? grown : SA_HEAT_COUNT - 1;
    sa_meta_set_heat(ref->meta, grown);
    if (arena->band_of_heat != NULL && arena->band_of_heat[grown] != arena->band_of_heat[heat])
        arena->migration_count++;
}

int sa_heap_access(sa_heap *heap, uint64_t address, uint32_t *state) {
    sa_arena *arena;
    sa_ref ref;
    int status = enter(heap, address, &arena, &ref);
    if (status != SA_OK)
        return status;
    touch(arena, &ref);
    *state = sa_meta_state(*ref.meta);
    sa_arena_unlock(arena);
    return SA_OK;
}

int sa_heap_look(sa_heap *heap, uint64_t address, sa_block *block) {
    sa_arena *arena;
    sa_ref ref;
    int status = enter(heap, address, &arena, &ref);
    if (status != SA_OK)
        return status;
    sa_describe(arena, &ref, block);
    sa_arena_unlock(arena);
    return SA_OK;
}

int sa_heap_retune(sa_heap *heap, uint64_t address, unsigned hint, int heat) {
    sa_arena *arena;
    sa_ref ref;
    int status = enter(heap, address, &arena, &ref);
    if (status != SA_OK)
        return status;
    sa_meta_set_hint(ref.meta, hint);
    if (heat >= 0)
        sa_meta_set_heat(ref.meta, (uint64_t)heat);
    sa_arena_unlock(arena);
    return SA_OK;
}

static int pin_slow(sa_arena *arena, sa_meta *meta, sa_block *block) {
    sa_ref ref;
    sa_ref_of_place(arena, sa_place_of(arena, meta), &ref);
    unsigned state = sa_meta_state(*ref.meta), pins = sa_meta_pins(*ref.meta);
    int status = state != SA_BYTES && state != SA_EXTENT ? SA_AWAY : pins == SA_PINS_MAX ? SA_PINS_FULL : SA_OK;
    if (status == SA_OK) {
        touch(arena, &ref);
        sa_meta_set_pins(ref.meta, pins + 1);
        arena->pinned_count += pins == 0;
    }
    sa_describe(arena, &ref, block);
    return status;
}

int sa_heap_pin(sa_heap *heap, uint64_t address, sa_block *block) {
    sa_arena *arena;
    sa_ref ref;
    int status = enter_recent(heap, address, &arena, &ref);
    if (status != SA_OK)
        return status;
    if (__builtin_expect(sa_meta_state(*ref.meta) == SA_BYTES && sa_meta_pins(*ref.meta) == 0, 1)) {
        touch(arena, &ref);
        *ref.meta += (sa_meta)1 << SA_PINS_SHIFT;
        arena->pinned_count++;
        describe_bytes(&ref, block);
    } else
        status = pin_slow(arena, ref.meta, block);
    sa_arena_unlock(arena);
    return status;
}

void sa_heap_unpin(sa_heap *heap, uint64_t address) {
    sa_arena *arena;
    sa_ref ref;
    if (enter_recent(heap, address, &arena, &ref) != SA_OK)
        return;
    unsigned pins = sa_meta_pins(*ref.meta);
    sa_meta_set_pins(ref.meta, pins - (pins > 0));
    arena->pinned_count -= pins == 1;
    sa_arena_unlock(arena);
}

/* Copy `length` bytes at `offset`; `target` or `source` is NULL. */
static int transfer(sa_heap *heap, uint64_t address, uint64_t offset, uint64_t length, void *target,
                    const void *source) {
    sa_arena *arena;
    sa_ref ref;
    sa_block block;
    int status = enter(heap, address, &arena, &ref);
    if (status != SA_OK)
        return status;
    unsigned pins = sa_meta_pins(*ref.meta), is_pinned = length > COPY_BYTES_LOCKED && pins < SA_PINS_MAX;
    sa_describe(arena, &ref, &block);
    if (offset > block.size || length > block.size - offset)
        status = SA_RANGE;
    else if (block.state != SA_BYTES && block.state != SA_EXTENT)
        status = SA_AWAY;
    if (status != SA_OK) {
        sa_arena_unlock(arena);
        return status;
    }
    touch(arena, &ref);
    if (is_pinned) {
        sa_meta_set_pins(ref.meta, pins + 1);
        arena->pinned_count += pins == 0;
        sa_arena_unlock(arena);
    }
    if (target != NULL)
        memcpy(target, block.bytes + offset, length);
    else
        memcpy(block.bytes + offset, source, length);
    if (is_pinned)
        sa_heap_unpin(heap, address);
    else
        sa_arena_unlock(arena);
    return SA_OK;
}

int sa_heap_read(sa_heap *heap, uint64_t address, uint64_t offset, uint64_t length, void *target) {
    return transfer(heap, address, offset, length, target, NULL);
}

int sa_heap_write(sa_heap *heap, uint64_t address, uint64_t offset, uint64_t length, const void *source) {
    return transfer(heap, address, offset, length, NULL, source);
}
