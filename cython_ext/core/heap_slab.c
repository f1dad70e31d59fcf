/* heap_slab.c - cells: size classes, slabs, and the lists of slabs that have room.
 *
 * Words, layout, invariants 2 and 4, threads: heap.h.
 *
 *   open[size class] -> slab <-> slab <-> ...      each has a free cell; full slabs are in no list
 *   evacuated        -> slab <-> ...               a compaction empties these; nothing moves in
 *
 * The lowest free cell is taken, so the live cells of a slab are in its first pages as far as possible. The few cells
 * that were freed last are kept apart (heap_arena.h), for blocks that come and go: no slab is looked at for them.
 * Cost: taking a cell looks at `used` from first_word on, usually one word; at most 64.
 */
#include "heap_arena.h"

enum { FLUSH_FROM_COUNT = 32 };

sa_size_class sa_size_classes[SA_SIZE_CLASS_COUNT];

static uint32_t cell_bytes_of(unsigned number) {
    if (number < 8)
        return 8 * (number + 1);
    unsigned top = 6 + (number - 8) / 8;
    return (1u << top) + ((number - 8) % 8 + 1) * (1u << (top - 3));
}

/* Each module that has a copy of this has a table of its own, filled when it is loaded. */
__attribute__((constructor)) static void make_size_classes(void) {
    for (unsigned number = 0; number < SA_SIZE_CLASS_COUNT; number++) {
        sa_size_class *made = &sa_size_classes[number];
        uint32_t bytes = cell_bytes_of(number);
        uint32_t units = bytes > SA_LARGE_SLAB_CELL_BYTES ? SA_LARGE_SLAB_UNITS : 1;
        /* A cell, its meta and its bit; less the header and a word of bits that is not full. */
        uint64_t room = (uint64_t)units * SA_UNIT_BYTES - SA_SLAB_SHIFTS * 64 - sizeof(sa_slab) - 8;
        uint64_t count = room * 8 / ((bytes + sizeof(sa_meta)) * 8 + 1);
        count = count > SA_CELL_COUNT_MAX ? SA_CELL_COUNT_MAX : count;
        uint64_t cells = sizeof(sa_slab) + (count + 63) / 64 * 8;
        uint64_t kept = SA_KEPT_BYTES / bytes < SA_KEPT_COUNT ? SA_KEPT_BYTES / bytes : SA_KEPT_COUNT;
        *made = (sa_size_class){bytes, (uint16_t)cells, (uint16_t)count, (uint8_t)units, (uint8_t)kept};
    }
}

static void unlink_slab(sa_slab **list, sa_slab *slab) {
    if (slab->previous != NULL)
        slab->previous->next = slab->next;
    else
        *list = slab->next;
    if (slab->next != NULL)
        slab->next->previous = slab->previous;
    slab->next = slab->previous = NULL;
}

static void link_slab(sa_slab **list, sa_slab *slab) {
    slab->previous = NULL;
    slab->next = *list;
    if (slab->next != NULL)
        slab->next->previous = slab;
    *list = slab;
}

void sa_slab_open(sa_arena *arena, sa_slab *slab) {
    if (slab->is_evacuated)
        unlink_slab(&arena->evacuated, slab);
    slab->is_evacuated = 0;
    if (slab->live_count == slab->cell_count)
        return;
    slab->is_open = 1;
    link_slab(&arena->open[slab->size_class], slab);
}

/* Out of the list of open slabs, for evacuation. */
void sa_slab_close(sa_arena *arena, sa_slab *slab) {
    unlink_slab(&arena->open[slab->size_class], slab);
    slab->is_open = 0;
    slab->is_evacuated = 1;
    link_slab(&arena->evacuated, slab);
}

void sa_slab_release(sa_arena *arena, sa_slab *slab) {
    uint32_t unit = slab->unit, count = slab->unit_count;
    unlink_slab(slab->is_evacuated ? &arena->evacuated : &arena->open[slab->size_class], slab);
    sa_units_give(arena, unit, count);
}

static sa_slab *slab_new_slow(sa_arena *arena, unsigned number) {
    const sa_size_class *size_class = &sa_size_classes[number];
    uint32_t unit = sa_units_take(arena, size_class->unit_count, size_class->cell_bytes == sizeof(sa_stub));
    if (unit == UINT32_MAX)
        return NULL;
    sa_slab *slab = sa_slab_of_unit(arena, unit);
    uint32_t shift = sa_slab_shift(unit);
    sa_units_touch(arena, unit, shift, shift + size_class->cells_offset);
    unsigned words = (size_class->cell_count + 63u) / 64;
    memset(slab, 0, sizeof *slab + words * 8);
    slab->unit = unit;
    slab->cell_bytes = size_class->cell_bytes;
    slab->cells_offset = size_class->cells_offset;
    slab->cell_count = size_class->cell_count;
    slab->size_class = (uint8_t)number;
    slab->unit_count = size_class->unit_count;
    for (uint32_t at = 0; at < slab->unit_count; at++)
        arena->unit_slab[unit + at] = (uint16_t)(number | at << 7);
    if (size_class->cell_count % 64 != 0)
        slab->used[words - 1] = ~(uint64_t)0 << size_class->cell_count % 64;
    sa_slab_open(arena, slab);
    return slab;
}

sa_meta *sa_cell_take(sa_arena *arena, unsigned number) {
    sa_slab *slab = arena->open[number];
    if (slab == NULL && (slab = slab_new_slow(arena, number)) == NULL)
        return NULL;
    unsigned word = slab->first_word;
    while (slab->used[word] == ~(uint64_t)0)
        word++;
    unsigned bit = (unsigned)__builtin_ctzll(~slab->used[word]);
    slab->used[word] |= (uint64_t)1 << bit;
    slab->first_word = (uint16_t)word;
    if (++slab->live_count == slab->cell_count) {
        unlink_slab(&arena->open[number], slab);
        slab->is_open = 0;
    }
    if (arena->flush_below < arena->table_count / 2 && arena->table_count >= FLUSH_FROM_COUNT)
        arena->flush_below = arena->table_count / 2;
    uint32_t index = word * 64 + bit;
    uint64_t start = sa_slab_shift(slab->unit) + sa_cell_offset(slab, index);
    sa_units_touch(arena, slab->unit, start, start + sizeof(sa_meta) + slab->cell_bytes);
    return sa_cell_meta(slab, index);
}

sa_slab *sa_slab_of_cell(const sa_arena *arena, const sa_meta *meta, uint32_t *index) {
    uint32_t unit = (uint32_t)((uint64_t)((const char *)meta - arena->range) / SA_UNIT_BYTES);
    sa_slab *slab = sa_slab_of_unit(arena, unit - (arena->unit_slab[unit] >> 7));
    uint64_t offset = (uint64_t)((const char *)meta - (const char *)slab) - slab->cells_offset;
    *index = (uint32_t)(offset / (slab->cell_bytes + sizeof(sa_meta)));
    return slab;
}

void sa_cell_give(sa_arena *arena, sa_meta *meta) {
    uint32_t index;
    sa_slab *slab = sa_slab_of_cell(arena, meta, &index);
    unsigned word = index / 64;
    slab->used[word] &= ~((uint64_t)1 << index % 64);
    *meta = 0;
    if (word < slab->first_word)
        slab->first_word = (uint16_t)word;
    slab->live_count--;
    if (slab->is_evacuated) {
        if (slab->live_count == 0)
            sa_slab_release(arena, slab);
        return;
    }
    if (!slab->is_open)
        sa_slab_open(arena, slab);
    /* The last open slab of a size class stays, for the next block. */
    else if (slab->live_count == 0 && (slab->next != NULL || slab->previous != NULL))
        sa_slab_release(arena, slab);
}

void sa_cells_flush_slow(sa_arena *arena) {
    sa_meta *meta;
    for (unsigned number = 0; number < SA_SIZE_CLASS_COUNT; number++)
        while ((meta = sa_cell_reuse(arena, number)) != NULL)
            sa_cell_give(arena, meta);
    arena->flush_below = (arena->table_count + 1) / 2;
}
