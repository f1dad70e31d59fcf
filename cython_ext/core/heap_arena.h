/* heap_arena.h - the inside of an arena, for the heap_*.c files alone. The words, layout and invariants are in heap.h.
 *
 *   arena    | lock, counters | lists of open slabs, one for each size class | bits and bytes of units |     own
 *   mapping range    | unit 0 | unit 1 | ... |    reserved at once without rights, made writable from the bottom up
 *   pages    one byte a unit: how many of its pages may be resident, counted from its start
 *
 * Invariants: those of heap.h. Every function here expects the arena's lock to be held unless it says otherwise.
 * Threads: the lock is a word that is spun on for a moment and then yielded for; sections under it are short.
 * Cost: stated at each function that is more than a few instructions.
 */
#ifndef SA_HEAP_ARENA_H
#define SA_HEAP_ARENA_H

#include "heap.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

/* Not to be found by other libraries of the process, so that calls inside the heap are direct. */
#pragma GCC visibility push(hidden)

/* --- metas ----------------------------------------------------------------------------------------------------- */

typedef uint64_t sa_meta;

#define SA_FIELD(name, shift, width)                                                                          \
    static inline unsigned sa_meta_##name(sa_meta meta) { return meta >> (shift) & ((1u << (width)) - 1); }   \
    static inline void sa_meta_set_##name(sa_meta *meta, uint64_t value) {                                    \
        *meta = (*meta & ~((((uint64_t)1 << (width)) - 1) << (shift))) | value << (shift);                    \
    }
SA_FIELD(heat, 0, 10)
SA_FIELD(hint, 10, 2)
SA_FIELD(pins, 12, 9)
SA_FIELD(slack, 21, 11) /* cell bytes less bytes held */
SA_FIELD(state, 37, 3)
SA_FIELD(dirty, 40, 1)  /* used since its bytes were last copied out */
#undef SA_FIELD

/* The bits that an address and its meta share. */
#define SA_IDENTITY (~((uint64_t)15 << 37 | 0xFFFFFFFFu))
#define SA_DIRTY_BIT ((uint64_t)1 << 40)

_Static_assert(SA_PINS_MAX == (1 << 9) - 1 && SA_HEAT_COUNT == 1 << 10, "fields of a meta");
_Static_assert((SA_SMALL_BYTES_MAX >> 1) / 8 <= 1 << 11, "slack fits its field");

enum { SA_SLAB_SHIFTS = 16 };

/* --- slabs ----------------------------------------------------------------------------------------------------- */

typedef struct sa_slab {
    struct sa_slab *next, *previous; /* in the list of open slabs of its size class */
    uint32_t unit;
    uint32_t cell_bytes;   /* without the meta */
    uint16_t cells_offset; /* of the first cell, from the slab's start */
    uint16_t cell_count, live_count;
    uint16_t first_word;   /* words of `used` before this one are full */
    uint8_t size_class, unit_count;
    uint8_t is_evacuated;  /* in no list, so that no block moves in */
    uint8_t is_open;       /* in its list */
    uint64_t used[];       /* one bit a cell, bits beyond cell_count set; then the cells */
} sa_slab;

_Static_assert(sizeof(sa_slab) == 40, "a slab header is 40 bytes");

typedef struct sa_stub {
    uint64_t size, where, length;
} sa_stub;

typedef struct sa_size_class {
    uint32_t cell_bytes;
    uint16_t cells_offset, cell_count;
    uint8_t unit_count;
} sa_size_class;

extern sa_size_class sa_size_classes[SA_SIZE_CLASS_COUNT];

/* --- arenas ---------------------------------------------------------------------------------------------------- */

struct sa_arena {
    _Alignas(128) _Atomic uint32_t lock;
    uint32_t class;
    uint32_t next_serial;
    uint32_t dither;             /* rounds the growth of heat up or down */
    uint64_t *table;             /* table_groups * 8 entries, 0 where unused */
    uint64_t table_groups, table_count;
    char *range;                 /* NULL until first used */
    uint32_t unit_limit;         /* units of the range */
    uint32_t unit_writable;      /* units below are readable and writable */
    uint32_t unit_hint;          /* no free unit below */
    uint64_t *unit_used;         /* one bit a unit */
    uint8_t *unit_pages;         /* pages of each unit that may be resident */
    int64_t resident_bytes, free_dirty_bytes, requested_bytes, pinned_count;
    int64_t state_counts[SA_BLOCK_STATE_COUNT], state_bytes[SA_BLOCK_STATE_COUNT];
    uint64_t allocation_count, free_count, access_count, migration_count, moved_bytes, moved_count;
    uint64_t hand;               /* table position of the search for victims */
    uint32_t page_bytes, page_shift;
    const uint32_t *band_of_heat;
    sa_slab *evacuated;          /* slabs that a compaction is emptying */
    sa_slab *open[SA_SIZE_CLASS_COUNT];
};

/* A live block, found. */
typedef struct sa_ref {
    uint64_t *entry;
    sa_slab *slab;
    sa_meta *meta;
    char *cell;
    uint32_t index;
} sa_ref;

static inline void sa_arena_lock(sa_arena *arena) {
    while (atomic_exchange_explicit(&arena->lock, 1, memory_order_acquire)) {
        for (int spin = 0; spin < 100; spin++)
            if (!atomic_load_explicit(&arena->lock, memory_order_relaxed))
                break;
        if (atomic_load_explicit(&arena->lock, memory_order_relaxed))
            sched_yield();
    }
}
static inline void sa_arena_unlock(sa_arena *arena) { atomic_store_explicit(&arena->lock, 0, memory_order_release); }

static inline char *sa_unit_start(const sa_arena *arena, uint32_t unit) {
    return arena->range + (uint64_t)unit * SA_UNIT_BYTES;
}
/* Where a cell begins, from the slab's start: with its meta. */
static inline uint64_t sa_cell_offset(const sa_slab *slab, uint32_t index) {
    return slab->cells_offset + (uint64_t)index * (slab->cell_bytes + sizeof(sa_meta));
}
/* Where a slab begins in its first unit. Not all at the same place, or they would all want the same lines of a cache. */
static inline uint32_t sa_slab_shift(uint32_t unit) { return unit % SA_SLAB_SHIFTS * 64; }
static inline sa_slab *sa_slab_of_unit(const sa_arena *arena, uint32_t unit) {
    return (sa_slab *)(sa_unit_start(arena, unit) + sa_slab_shift(unit));
}
static inline sa_meta *sa_cell_meta(sa_slab *slab, uint32_t index) {
    return (sa_meta *)((char *)slab + sa_cell_offset(slab, index));
}
static inline char *sa_cell_bytes(sa_slab *slab, uint32_t index) { return (char *)(sa_cell_meta(slab, index) + 1); }
static inline uint32_t sa_location(uint32_t unit, uint32_t index) { return 0x80000000u | unit << 12 | index; }

/* The size class of a length from 1 to SA_SMALL_BYTES_MAX. */
static inline unsigned sa_size_class_of(uint64_t length) {
    if (length <= 64)
        return (unsigned)((length + 7) >> 3) - (length != 0);
    unsigned top = 63 - (unsigned)__builtin_clzll(length - 1);
    return 8 + (top - 6) * 8 + (unsigned)((length - 1 - ((uint64_t)1 << top)) >> (top - 3));
}

/* heap_fork.c: locks are held around forks from now on, until unregistered. */
void sa_heap_register(sa_heap *heap);
void sa_heap_unregister(sa_heap *heap);

/* heap_units.c: the range. */
int sa_units_reserve_slow(sa_arena *arena);
/* The first unit of a free run, now used, or UINT32_MAX. O(1) for one unit, O(units) for runs at worst. */
uint32_t sa_units_take(sa_arena *arena, uint32_t count);
void sa_units_give(sa_arena *arena, uint32_t unit, uint32_t count);
/* Note that bytes `start` to `end` of a run are going to be written. */
void sa_units_touch(sa_arena *arena, uint32_t unit, uint64_t start, uint64_t end);
/* Give the pages of a run from byte `end` on back to the system. */
void sa_units_untouch(sa_arena *arena, uint32_t unit, uint32_t count, uint64_t end);
/* Give back pages of free units, about byte_budget of them; 1 if there are more. */
int sa_units_purge_slow(sa_arena *arena, int64_t byte_budget);

/* heap_slab.c: cells. */
void sa_size_classes_init(void);
/* A free cell for `length` bytes of any state, in *slab and *index; -1 without memory. O(1). */
int sa_cell_take(sa_arena *arena, uint64_t length, sa_slab **slab, uint32_t *index);
void sa_cell_give(sa_arena *arena, sa_slab *slab, uint32_t index);
void sa_slab_open(sa_arena *arena, sa_slab *slab);
void sa_slab_close(sa_arena *arena, sa_slab *slab);
void sa_slab_release(sa_arena *arena, sa_slab *slab);

/* heap_table.c: serials to locations. */
enum { SA_GROUP_ENTRIES = 8 };
static inline uint64_t sa_table_home(uint32_t serial, uint64_t groups) {
    uint64_t hash = (uint32_t)((serial >> 3) * 0x9E3779B1u);
    return (hash * groups >> 32) * SA_GROUP_ENTRIES + (serial & 7);
}

/* The entry of a serial, or NULL. O(1). */
static inline uint64_t *sa_table_find(sa_arena *arena, uint32_t serial) {
    uint64_t count = arena->table_groups * SA_GROUP_ENTRIES;
    if (count == 0)
        return NULL;
    uint64_t at = sa_table_home(serial, arena->table_groups);
    for (;;) {
        uint64_t entry = arena->table[at];
        if ((uint32_t)(entry >> 32) == serial && entry != 0)
            return &arena->table[at];
        if (entry == 0)
            return NULL;
        at = at + 1 == count ? 0 : at + 1;
    }
}
/* Room for one more entry, or -1 without memory; amortised O(1). */
int sa_table_make_room(sa_arena *arena);
void sa_table_insert(sa_arena *arena, uint32_t serial, uint32_t location);
void sa_table_remove(sa_arena *arena, uint64_t *entry);
int sa_table_resize_slow(sa_arena *arena, uint64_t groups);
uint64_t sa_table_groups_for(uint64_t count);
void sa_table_release(sa_arena *arena);

/* heap.c: blocks. */
static inline void sa_ref_of_entry(sa_arena *arena, uint64_t *entry, sa_ref *ref) {
    uint32_t location = (uint32_t)*entry & 0x7FFFFFFF;
    ref->entry = entry;
    ref->index = location & (SA_CELL_COUNT_MAX - 1);
    ref->slab = sa_slab_of_unit(arena, location >> 12);
    ref->meta = sa_cell_meta(ref->slab, ref->index);
    ref->cell = (char *)(ref->meta + 1);
}

/* SA_OK and *ref, or why there is no such block. */
static inline int sa_find(sa_arena *arena, uint64_t address, sa_ref *ref) {
    uint32_t serial = (uint32_t)address;
    uint64_t *entry = sa_table_find(arena, serial);
    if (entry == NULL)
        return arena->allocation_count >> 32 || (serial != 0 && serial < arena->next_serial) ? SA_STALE : SA_UNKNOWN;
    sa_ref_of_entry(arena, entry, ref);
    return ((*ref->meta ^ address) & SA_IDENTITY) == 0 ? SA_OK : SA_UNKNOWN;
}

void sa_describe(sa_arena *arena, const sa_ref *ref, sa_block *block);
uint64_t sa_block_size(const sa_ref *ref);
uint64_t sa_block_length(const sa_ref *ref);
uint64_t sa_address_of(const sa_arena *arena, const sa_ref *ref);
/* Storage for `size` bytes (state BYTES), a frame of `length` bytes (FRAME) or a stub (PLACE, GROWN) in *ref,
 * without a table entry; -1 without memory. */
int sa_storage_take(sa_arena *arena, unsigned state, uint64_t size, uint64_t length, sa_ref *ref);
void sa_storage_give(sa_arena *arena, sa_ref *ref);
/* Add a block to the counts of its state, or with sign -1 take it out. */
void sa_state_add(sa_arena *arena, const sa_ref *ref, int sign);

#pragma GCC visibility pop

#endif
