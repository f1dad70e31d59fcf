/* heap.h - a movable heap: twelve arenas, addresses that stay while bytes move, and nothing shared between arenas.
 *
 * Words: an *address* is a 64-bit number that stands for a block; a *block* is bytes that a caller asked for; an
 * *arena* serves one class; a *unit* is 64 KiB of an arena's range; a *slab* is one unit (four for large cells) cut
 * into equal *cells*; an *extent* is a run of units for one large block; a *stub* is what a cell holds for bytes
 * that are elsewhere; *resident* bytes are pages that were touched and not given back.
 *
 *   address  | zero index 23 | class 4 | channel 3 | axis 2 | serial 32 |    axis 1 bytes, 2 generated, 3 a page of one
 *   meta     | zero index 23 | dirty 1 state 3 | channel 3 | axis 2 | slack 11 pins 9 hint 2 heat 10 |
 *   cell     | meta 8 | state BYTES: the block's bytes | FRAME: raw size 8, frame |
 *            |        | otherwise a stub: raw size 8, unit or place or fill 8, length 8 |
 *   slab     | header | used bits | cell | cell | ... |    filled from the front: its last pages stay untouched
 *   table    | serial 32 | place 32 |      8 bytes for each block, open addressing, one an arena; a place counts words
 *
 * Invariants (sa_heap_check walks them; the numbers are those it reports):
 *   1. A serial is in its arena's table exactly if its block lives; serials are given out in order, so an address
 *      that was freed is not valid again before its arena has given out 2^32 others.
 *   2. A table entry names a used cell of a slab, no two the same one; the other used cells are kept (heap_arena.h).
 *   3. Zero index, channel and axis of an address equal those of its cell's meta.
 *   4. A slab is in its size class's list exactly if it has a free cell and is not being evacuated.
 *   5. A unit is used exactly if a slab or an extent of a live block covers it.
 *   6. resident_bytes is the sum of the touched pages of all units and of the table.
 *   7. pinned_count and the counts of states are those of the metas.
 *
 * Threads: one lock an arena, never two at once, and none while user code runs; any function from any thread without
 * the GIL. Pinned bytes do not move and are read and written without the lock. An arena's struct, lists, table and
 * range are in pages of their own, so two arenas share no lock, no cache line and no page.
 * Cost: malloc, access and free are one table look-up (a line or two) and the line of the cell; a slab's header is
 * looked at when no cell of the size is kept. A table that grows is copied, amortised over the blocks that made it grow.
 */
#ifndef SA_HEAP_H
#define SA_HEAP_H

#include <stddef.h>
#include <stdint.h>

enum {
    SA_CLASS_COUNT = 12,
    SA_CHANNEL_COUNT = 7,
    SA_UNIT_BYTES = 1 << 16,
    SA_UNIT_COUNT_MAX = 1 << 19,        /* 32 GiB of range an arena */
    SA_CELL_COUNT_MAX = 1 << 12,        /* cells of a slab */
    SA_SMALL_BYTES_MAX = 1 << 15,       /* larger blocks have extents */
    SA_SIZE_CLASS_COUNT = 80,           /* 8 bytes apart up to 64, then eight for each doubling */
    SA_LARGE_SLAB_UNITS = 4,            /* units of a slab whose cells are larger than ... */
    SA_LARGE_SLAB_CELL_BYTES = 2048,    /* ... this */
    SA_HEAT_COUNT = 1024,               /* heat codes: 32 for each doubling of 1 + accesses */
    SA_HEAT_PER_DOUBLING = 32,
    SA_PINS_MAX = 511,
    SA_FILL_BY_SPACE = 256,             /* what `where` says of a grown block that is no repeated byte */
    SA_PAGE_BYTES = 4096                /* a generated block holds bytes for those of its pages that were written */
};

enum { SA_AXIS_BYTES = 1, SA_AXIS_GENERATED, SA_AXIS_PAGE };
#define SA_BLOCK_BYTES_MAX ((uint64_t)1 << 32)

/* Where a block is; what its cell holds. */
enum { SA_FREE, SA_BYTES, SA_EXTENT, SA_FRAME, SA_FRAME_EXTENT, SA_PLACE, SA_GROWN, SA_BLOCK_STATE_COUNT };

enum sa_status {
    SA_OK,
    SA_STALE,      /* the address was freed */
    SA_UNKNOWN,    /* the address was never given out */
    SA_PINNED,     /* somebody views the block */
    SA_AWAY,       /* the bytes are not in place: bring them back first */
    SA_RANGE,      /* offset and length reach beyond the block */
    SA_NO_MEMORY,
    SA_CHANGED,    /* used since its bytes were copied: the move is off */
    SA_PINS_FULL   /* SA_PINS_MAX views at once */
};

typedef struct sa_arena sa_arena;

typedef struct sa_heap {
    sa_arena *arenas[SA_CLASS_COUNT];
    uint8_t cycles[SA_CHANNEL_COUNT][SA_CLASS_COUNT]; /* the classes of each channel's blocks, one after the other */
    _Atomic uint32_t turns[SA_CHANNEL_COUNT];         /* below SA_CLASS_COUNT */
    struct sa_heap *next;               /* in the register of heap_fork.c */
} sa_heap;

/* What is known of a block without moving it. bytes is set in states BYTES and EXTENT, frame in FRAME and
 * FRAME_EXTENT. */
typedef struct sa_block {
    uint64_t size;
    uint64_t where;        /* place or fill, in states PLACE and GROWN */
    uint64_t frame_bytes;
    char *bytes;
    uint32_t state, heat, hint, pins;
} sa_block;

/* What the blocks of an arena are, but for pages of generated blocks, which count as parts of those. */
typedef struct sa_block_census {
    int64_t block_count, requested_bytes, state_counts[SA_BLOCK_STATE_COUNT];
    int64_t generated_count, generated_pages;      /* blocks of axis 2, and pages of those that are grown */
    int64_t page_count;                            /* pages that were written, of all generated blocks */
    int64_t counts[SA_HEAT_COUNT], bytes[SA_HEAT_COUNT]; /* by heat */
} sa_block_census;

typedef struct sa_arena_figures {
    int64_t block_count, requested_bytes, resident_bytes, live_bytes, pinned_count;
    int64_t state_counts[SA_BLOCK_STATE_COUNT], state_bytes[SA_BLOCK_STATE_COUNT];
    uint64_t allocation_count, free_count, access_count, migration_count, moved_bytes, moved_count;
    uintptr_t header, range, range_bytes;
} sa_arena_figures;

_Static_assert(SA_UNIT_COUNT_MAX * (uint64_t)SA_UNIT_BYTES / 8 == (uint64_t)1 << 32, "a place is 32 bits");

/* --- addresses ------------------------------------------------------------------------------------------------- */

static inline uint64_t sa_address(uint64_t zero, uint64_t class, uint64_t channel, uint64_t axis, uint64_t serial) {
    return zero << 41 | class << 37 | channel << 34 | axis << 32 | serial;
}
static inline unsigned sa_address_class(uint64_t address) { return address >> 37 & 15; }
static inline unsigned sa_address_channel(uint64_t address) { return address >> 34 & 7; }
static inline unsigned sa_address_axis(uint64_t address) { return address >> 32 & 3; }
static inline uint32_t sa_address_zero(uint64_t address) { return (uint32_t)(address >> 41); }

/* Each module has its own copy: calls are direct. */
#pragma GCC visibility push(hidden)

/* --- life ------------------------------------------------------------------------------------------------------ */

/* Make twelve empty arenas; steps has the exponent of each channel's class, start the class of its first block. 0, or -1 without memory. Ranges are reserved when an
 * arena is first used. */
int sa_heap_new(sa_heap *heap, const uint8_t *steps, uint8_t start);
void sa_heap_free_all(sa_heap *heap);
/* Forget all blocks and give all memory back, but for arenas with a viewed block; the heap can still be asked. */
void sa_heap_empty(sa_heap *heap);

/* The band of each heat code (a change of band is a migration), for accesses from now on. */
void sa_heap_set_bands(sa_heap *heap, const uint32_t *band_of_heat);

/* --- blocks ---------------------------------------------------------------------------------------------------- */

/* A new block of size (1 to SA_BLOCK_BYTES_MAX) in the next class of its channel that has room; 0 if none has. The bytes
 * are undefined, or zero if asked. With axis 2 the block is a stub until it is written. O(1). */
uint64_t sa_heap_malloc(sa_heap *heap, uint64_t size, uint32_t zero, unsigned channel, unsigned axis, unsigned hint,
                        unsigned heat, int zeroed);
/* The class whose arena is tried first of those of a channel that could hold so large a block; SA_CLASS_COUNT if none
 * could. */
unsigned sa_heap_class_for(const sa_heap *heap, unsigned channel, uint64_t size);
/* Free a block that nobody views; *freed says what it was, so that a place on disk can be released. O(1). */
int sa_heap_free(sa_heap *heap, uint64_t address, sa_block *freed);
/* Count touches; *state says where the block is. O(1). */
int sa_heap_access(sa_heap *heap, uint64_t address, uint32_t *state);
/* Describe a block without counting. */
int sa_heap_look(sa_heap *heap, uint64_t address, sa_block *block);
/* Count an access and keep the bytes where they are until sa_heap_unpin. SA_AWAY if they are not in place. */
int sa_heap_pin(sa_heap *heap, uint64_t address, sa_block *block);
void sa_heap_unpin(sa_heap *heap, uint64_t address);
/* Copy from or to a block, counting an access. SA_AWAY if the bytes are not in place. O(length). */
int sa_heap_read(sa_heap *heap, uint64_t address, uint64_t offset, uint64_t length, void *target);
int sa_heap_write(sa_heap *heap, uint64_t address, uint64_t offset, uint64_t length, const void *source);
/* Give a block another size at the same address; its first bytes stay. SA_PINNED while viewed, SA_AWAY if its bytes
 * are neither in place nor grown. */
int sa_heap_resize(sa_heap *heap, uint64_t address, uint64_t size);
/* Change the hint and, unless heat is negative, the heat of a block. */
int sa_heap_retune(sa_heap *heap, uint64_t address, unsigned hint, int heat);

/* --- tiers ----------------------------------------------------------------------------------------------------- */

/* Copy size bytes of an unviewed block in place, or a frame, and mark the block as unused since. SA_CHANGED if its
 * state or length is not what the caller thinks. */
int sa_heap_copy_out(sa_heap *heap, uint64_t address, uint32_t state, uint64_t length, void *target);
/* Replace what a block holds, if it is still in state `from`, unviewed and, where it has bytes, unused since copy_out.
 * to FRAME: `data` is a frame of `length`; to PLACE: where and length; to GROWN: where; to BYTES: `data` of the block's
 * size, or NULL for `where` as fill. From PLACE the place must be `expected`. *old says what it was. */
int sa_heap_replace(sa_heap *heap, uint64_t address, uint32_t from, uint64_t expected, uint32_t to, const void *data,
                    uint64_t length, uint64_t where, sa_block *old);
/* The next `count_max` unviewed blocks in states of the mask (bit 1 << state), coldest first, out of a window of the
 * table behind a hand that goes round; all that it passes cool a little. Returns how many. */
int sa_heap_victims(sa_heap *heap, unsigned class, unsigned mask, unsigned window, uint64_t *addresses, int count_max);

/* --- compaction and figures -------------------------------------------------------------------------------------- */

/* Work on one arena until about byte_budget bytes were moved or looked at: evacuate sparse slabs, make the rest
 * dense, shrink the table, give pages back. *position is 0 at the start of a round, and 0 again when it is over.
 * Returns bytes moved. */
int64_t sa_heap_compact_step(sa_heap *heap, unsigned class, int64_t byte_budget, uint64_t *position);

/* Give back about so many bytes of pages that are free as a whole; returns how many. */
int64_t sa_heap_purge(sa_heap *heap, unsigned class, int64_t byte_budget);

int64_t sa_heap_resident(const sa_heap *heap, unsigned class);
/* Of these, pages of units that hold nothing: kept for the next block. */
int64_t sa_heap_dirty(const sa_heap *heap, unsigned class);
int64_t sa_heap_state_bytes(const sa_heap *heap, unsigned class, unsigned state);
void sa_heap_figures(sa_heap *heap, unsigned class, sa_arena_figures *figures);
/* Add the blocks of a class to the sums. O(blocks). */
void sa_heap_census(sa_heap *heap, unsigned class, sa_block_census *sums);
/* Copy up to count_max addresses of blocks in states of the mask (bit 1 << state) from table position *position on;
 * *position is 0 at the end. Returns how many. */
int sa_heap_addresses(sa_heap *heap, unsigned class, unsigned mask, uint64_t *position, uint64_t *addresses,
                      int count_max);
/* 0, or the number of the first invariant above that is broken. O(blocks + units). */
int sa_heap_check(sa_heap *heap, unsigned class);

#pragma GCC visibility pop

#endif
