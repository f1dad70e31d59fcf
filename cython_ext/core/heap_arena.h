/* heap_arena.h - the inside of an arena, for the heap_*.c files alone. The words, layout and invariants are in heap.h.
 *
 *   arena    | lock, counters | lists of open slabs and of kept cells, one for each size class |     own mapping
 *   range    | unit 0 | unit 1 | ... |    reserved at once without rights, made writable from the bottom up
 *   books    | bits: used | bytes: pages that may be resident, from its start | halves: class and place in slab | a unit
 *   kept     place --> meta: next place --> ...    free cells of one size class, freed last, taken first
 *
 * Invariants: those of heap.h, and: kept cells are used cells of their slab in state FREE, none of a slab that is
 * being evacuated; when half of the blocks are gone, they all go back to their slabs.
 * Every function here expects the arena's lock to be held unless it says otherwise.
 * Threads: the lock (heap_lock.h) is biased to the thread that uses the arena most; sections under it are short.
 * Cost: stated at each function that is more than a few instructions.
 */
#ifndef SA_HEAP_ARENA_H
#define SA_HEAP_ARENA_H

#include "heap.h"
#include "heap_lock.h"

#include <stdatomic.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Not to be found by other libraries of the process, so that calls inside the heap are direct. */
#pragma GCC visibility push(hidden)

/* --- metas ----------------------------------------------------------------------------------------------------- */

typedef uint64_t sa_meta;

enum { SA_SLAB_SHIFTS = 16, SA_HINT_SHIFT = 10, SA_PINS_SHIFT = 12, SA_SLACK_SHIFT = 21, SA_STATE_SHIFT = 37 };

#define SA_FIELD(name, shift, width)                                                                          \
    static inline unsigned sa_meta_##name(sa_meta meta) { return meta >> (shift) & ((1u << (width)) - 1); }   \
    static inline void sa_meta_set_##name(sa_meta *meta, uint64_t value) {                                    \
        *meta = (*meta & ~((((uint64_t)1 << (width)) - 1) << (shift))) | value << (shift);                    \
    }
SA_FIELD(heat, 0, 10)
SA_FIELD(hint, SA_HINT_SHIFT, 2)
SA_FIELD(pins, SA_PINS_SHIFT, 9)
SA_FIELD(slack, SA_SLACK_SHIFT, 11) /* cell bytes less bytes held */
SA_FIELD(state, SA_STATE_SHIFT, 3)
SA_FIELD(dirty, 40, 1)  /* used since its bytes were last copied out */
#undef SA_FIELD

/* The bits that an address and its meta share. */
#define SA_IDENTITY (~((uint64_t)15 << 37 | 0xFFFFFFFFu))
#define SA_DIRTY_BIT ((uint64_t)1 << 40)

_Static_assert(SA_PINS_MAX == (1 << 9) - 1 && SA_HEAT_COUNT == 1 << 10, "fields of a meta");
_Static_assert((SA_SMALL_BYTES_MAX >> 1) / 8 <= 1 << 11, "slack fits its field");

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

/* Free cells of one size class that an arena keeps at hand, at most. */
enum { SA_KEPT_COUNT = 8, SA_KEPT_BYTES = 16 << 10 };

typedef struct sa_size_class {
    uint32_t cell_bytes;
    uint16_t cells_offset, cell_count;
    uint8_t unit_count, kept_max;    /* free cells that an arena keeps at hand */
} sa_size_class;

extern sa_size_class sa_size_classes[SA_SIZE_CLASS_COUNT];

/* --- tables ---------------------------------------------------------------------------------------------------- */

enum { SA_GROUP_ENTRIES = 8, SA_NEIGHBOURS_SHIFT = 1 };

/* One cache line of a table: entry i is serial i, 0 where unused, and place i. */
typedef struct sa_group {
    uint32_t serials[SA_GROUP_ENTRIES], places[SA_GROUP_ENTRIES];
} sa_group;

_Static_assert(sizeof(sa_group) == 64, "a group is a cache line");

/* Bit i: serial i of the group is this one. */
static inline unsigned sa_group_matches(const sa_group *group, uint32_t serial) {
#if defined(__SSE2__)
    const __m128i *halves = (const __m128i *)group->serials, wanted = _mm_set1_epi32((int)serial);
    int low = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(_mm_load_si128(halves), wanted)));
    int high = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(_mm_load_si128(halves + 1), wanted)));
    return (unsigned)(low | high << 4);
#else
    unsigned bits = 0;
    for (unsigned at = 0; at < SA_GROUP_ENTRIES; at++)
        bits |= (unsigned)(group->serials[at] == serial) << at;
    return bits;
#endif
}

/* --- arenas ---------------------------------------------------------------------------------------------------- */

struct sa_arena {
    _Alignas(128) sa_lock lock;
    uint32_t class;
    uint32_t dither;             /* rounds the growth of heat up or down */
    uint32_t recent_serial, recent_place; /* of the block made last, until it moves or is freed; else 0 */
    uint64_t next_serial;        /* its low 32 bits; 1 and the serials that were given out or passed over */
    sa_group *table;
    uint64_t table_groups, table_count;
    char *range;                 /* NULL until first used */
    uint16_t *unit_slab;          /* of each unit: size class 7, units from the start of its slab 2 */
    uint64_t access_count, migration_count;
    sa_slab *evacuated;          /* slabs that a compaction is emptying */
    uint64_t flush_below;        /* blocks: with fewer, kept cells go back */
    int64_t state_bytes[SA_BLOCK_STATE_COUNT];
    int64_t away_counts[SA_BLOCK_STATE_COUNT], away_requested_bytes; /* of all blocks but those in state BYTES */
    uint64_t passed_count;       /* serials that were passed over */
    uint32_t unit_limit;         /* units of the range */
    uint32_t unit_writable;      /* units below are readable and writable */
    uint32_t unit_hint;          /* no free unit below */
    uint64_t *unit_used;         /* one bit a unit */
    uint8_t *unit_pages;         /* pages of each unit that may be resident */
    int64_t resident_bytes, free_dirty_bytes, pinned_count;
    uint64_t moved_bytes, moved_count;
    uint64_t hand;               /* table position of the search for victims */
    sa_slab *open[SA_SIZE_CLASS_COUNT];
    uint32_t kept[SA_SIZE_CLASS_COUNT];       /* the place of the cell that was kept last; its meta is the next place */
    uint8_t kept_count[SA_SIZE_CLASS_COUNT];
    uint32_t page_bytes, page_shift;
    const uint32_t *band_of_heat;
};

/* A live block, found. */
typedef struct sa_ref {
    uint32_t *entry;             /* the serial; its place is SA_GROUP_ENTRIES behind */
    sa_meta *meta;
    char *cell;
    uint32_t cell_bytes;
} sa_ref;

static inline void sa_arena_lock(sa_arena *arena) { sa_lock_take(&arena->lock); }
static inline void sa_arena_unlock(sa_arena *arena) { sa_lock_give(&arena->lock); }

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
/* The place of a cell: its meta's distance from the range's start, in words. */
static inline uint32_t sa_place_of(const sa_arena *arena, const sa_meta *meta) {
    return (uint32_t)((uint64_t)((const char *)meta - arena->range) / sizeof(sa_meta));
}
static inline sa_meta *sa_meta_at(const sa_arena *arena, uint32_t place) { return (sa_meta *)arena->range + place; }
static inline unsigned sa_size_class_at(const sa_arena *arena, const sa_meta *meta) {
    return arena->unit_slab[(uint64_t)((const char *)meta - arena->range) / SA_UNIT_BYTES] & 127;
}

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
static inline size_t sa_books_bytes(uint64_t units) { return units / 8 + units * (sizeof(uint16_t) + 1); }
int sa_units_reserve_slow(sa_arena *arena);
/* The first unit of a free run, now used, or UINT32_MAX; the last ones are for stubs. O(1) for one unit, O(units) for
 * runs at worst. */
uint32_t sa_units_take(sa_arena *arena, uint32_t count, int is_for_stubs);
/* The largest extent that fits the range when it is empty. */
uint64_t sa_units_bytes_max(const sa_arena *arena);
void sa_units_give(sa_arena *arena, uint32_t unit, uint32_t count);
/* Note that bytes `start` to `end` of a run are going to be written. */
void sa_units_touch(sa_arena *arena, uint32_t unit, uint64_t start, uint64_t end);
/* Give the pages of a run from byte `end` on back to the system. */
void sa_units_untouch(sa_arena *arena, uint32_t unit, uint32_t count, uint64_t end);
/* Give back pages of free units, about byte_budget of them; 1 if there are more. */
int sa_units_purge_slow(sa_arena *arena, int64_t byte_budget);

/* heap_slab.c: cells. */
/* A free cell of a size class, or NULL without memory; of a slab. O(1). */
sa_meta *sa_cell_take(sa_arena *arena, unsigned number);
void sa_cell_give(sa_arena *arena, sa_meta *meta);
/* The slab that a cell is in, and the cell's number in it. */
sa_slab *sa_slab_of_cell(const sa_arena *arena, const sa_meta *meta, uint32_t *index);
/* Give all kept cells to their slabs. O(size classes). */
void sa_cells_flush_slow(sa_arena *arena);

/* A kept cell of a size class, or NULL. */
static inline sa_meta *sa_cell_reuse(sa_arena *arena, unsigned number) {
    if (arena->kept_count[number] == 0)
        return NULL;
    sa_meta *meta = sa_meta_at(arena, arena->kept[number]);
    arena->kept[number] = (uint32_t)*meta;
    arena->kept_count[number]--;
    return meta;
}

/* Keep a cell that was in use, for the next block of its size class, or give it back. */
static inline void sa_cell_keep(sa_arena *arena, sa_meta *meta) {
    unsigned number = sa_size_class_at(arena, meta);
    if (arena->kept_count[number] >= sa_size_classes[number].kept_max || arena->evacuated != NULL) {
        sa_cell_give(arena, meta);
        return;
    }
    *meta = arena->kept[number];
    arena->kept[number] = sa_place_of(arena, meta);
    arena->kept_count[number]++;
    if (arena->table_count < arena->flush_below)
        sa_cells_flush_slow(arena);
}

void sa_slab_open(sa_arena *arena, sa_slab *slab);
void sa_slab_close(sa_arena *arena, sa_slab *slab);
void sa_slab_release(sa_arena *arena, sa_slab *slab);

/* heap_table.c: serials to places. */
static inline uint64_t sa_table_home(uint32_t serial, uint64_t groups) {
    uint64_t hash = (uint32_t)((serial >> SA_NEIGHBOURS_SHIFT) * 0x9E3779B1u);
    return hash * groups >> 32;
}

/* Entry `at` of a table, in the order of groups; unused where its serial is 0. */
static inline uint32_t *sa_entry_at(const sa_arena *arena, uint64_t at) {
    return &arena->table[at / SA_GROUP_ENTRIES].serials[at % SA_GROUP_ENTRIES];
}
static inline uint64_t sa_entry_count(const sa_arena *arena) { return arena->table_groups * SA_GROUP_ENTRIES; }

/* Have the processor fetch the group of the next serial: by the time that all arenas have had their turn, it is there. */
static inline void sa_table_fetch_next(const sa_arena *arena) {
#if defined(__GNUC__)
    __builtin_prefetch(&arena->table[sa_table_home((uint32_t)arena->next_serial, arena->table_groups)], 1);
#else
    (void)arena;
#endif
}

/* The entry of a serial, which is not 0, or NULL. O(1). */
static inline uint32_t *sa_table_find(const sa_arena *arena, uint32_t serial) {
    uint64_t groups = arena->table_groups;
    if (groups == 0)
        return NULL;
    for (uint64_t at = sa_table_home(serial, groups);; at = at + 1 == groups ? 0 : at + 1) {
        sa_group *group = &arena->table[at];
        unsigned found = sa_group_matches(group, serial);
        if (__builtin_expect(found != 0, 1))
            return &group->serials[__builtin_ctz(found)];
        if (sa_group_matches(group, 0) != 0)
            return NULL;
    }
}
/* Room for one more entry, or -1 without memory; amortised O(1). */
int sa_table_make_room_slow(sa_arena *arena);
static inline int sa_table_make_room(sa_arena *arena) {
    if ((arena->table_count + 1) * 4 <= sa_entry_count(arena) * 3)
        return 0;
    return sa_table_make_room_slow(arena);
}
static inline void sa_table_insert(sa_arena *arena, uint32_t serial, uint32_t place) {
    uint64_t groups = arena->table_groups, at = sa_table_home(serial, groups);
    unsigned unused;
    while ((unused = sa_group_matches(&arena->table[at], 0)) == 0)
        at = at + 1 == groups ? 0 : at + 1;
    unsigned slot = (unsigned)__builtin_ctz(unused);
    arena->table[at].serials[slot] = serial;
    arena->table[at].places[slot] = place;
    arena->recent_serial = serial;
    arena->recent_place = place;
    arena->table_count++;
}
void sa_table_close_slow(sa_arena *arena, uint32_t *hole);
/* The block of an entry is at another place now. */
static inline void sa_table_move(sa_arena *arena, uint32_t *entry, const sa_meta *meta) {
    entry[SA_GROUP_ENTRIES] = sa_place_of(arena, meta);
    arena->recent_serial = 0;
}
static inline void sa_table_remove(sa_arena *arena, uint32_t *entry) {
    if (*entry == arena->recent_serial)
        arena->recent_serial = 0;
    const sa_group *group = (const sa_group *)((uintptr_t)entry & ~(uintptr_t)(sizeof(sa_group) - 1));
    int was_full = sa_group_matches(group, 0) == 0;
    *entry = 0;
    arena->table_count--;
    if (was_full)
        sa_table_close_slow(arena, entry);
}
int sa_table_resize_slow(sa_arena *arena, uint64_t groups);
uint64_t sa_table_groups_for(uint64_t count);
void sa_table_release(sa_arena *arena);

/* heap.c: blocks. */
static inline void sa_ref_of_place(const sa_arena *arena, uint32_t place, sa_ref *ref) {
    ref->entry = NULL;
    ref->meta = sa_meta_at(arena, place);
    ref->cell = (char *)(ref->meta + 1);
    ref->cell_bytes = sa_size_classes[sa_size_class_at(arena, ref->meta)].cell_bytes;
}

static inline void sa_ref_of_entry(const sa_arena *arena, uint32_t *entry, sa_ref *ref) {
    sa_ref_of_place(arena, entry[SA_GROUP_ENTRIES], ref);
    ref->entry = entry;
}

/* SA_OK and *ref, or why there is no such block. */
static inline int sa_find(sa_arena *arena, uint64_t address, sa_ref *ref) {
    uint32_t serial = (uint32_t)address;
    uint32_t *entry = serial == 0 ? NULL : sa_table_find(arena, serial);
    if (entry == NULL)
        return serial != 0 && (arena->next_serial >> 32 || serial < arena->next_serial) ? SA_STALE : SA_UNKNOWN;
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
/* Add a block to the counts of its state, or with sign -1 take it out. Blocks in place are counted by the table. */
void sa_state_add(sa_arena *arena, const sa_ref *ref, int sign);

#pragma GCC visibility pop

#endif
