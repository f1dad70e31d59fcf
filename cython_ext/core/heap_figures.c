/* heap_figures.c - what an arena holds: counts for statistics, and the walk through all invariants of heap.h.
 *
 * Nouns, layout and the numbered invariants: heap.h. Threads: the arena's lock. Cost: figures are a copy; census,
 * addresses and check go through the table, O(blocks), check through all units too.
 */
#include "heap_arena.h"

#include <stdlib.h>

int64_t sa_heap_resident(const sa_heap *heap, unsigned class) { return heap->arenas[class]->resident_bytes; }

int64_t sa_heap_dirty(const sa_heap *heap, unsigned class) { return heap->arenas[class]->free_dirty_bytes; }

int64_t sa_heap_state_bytes(const sa_heap *heap, unsigned class, unsigned state) {
    return heap->arenas[class]->state_bytes[state];
}

void sa_heap_figures(sa_heap *heap, unsigned class, sa_arena_figures *figures) {
    sa_arena *arena = heap->arenas[class];
    sa_arena_lock(arena);
    *figures = (sa_arena_figures){
        .block_count = (int64_t)arena->table_count,
        .requested_bytes = arena->away_requested_bytes + arena->state_bytes[SA_BYTES],
        .resident_bytes = arena->resident_bytes,
        .pinned_count = arena->pinned_count,
        .allocation_count = arena->next_serial - 1 - arena->passed_count,
        .free_count = arena->next_serial - 1 - arena->passed_count - arena->table_count,
        .access_count = arena->access_count,
        .migration_count = arena->migration_count,
        .moved_bytes = arena->moved_bytes,
        .moved_count = arena->moved_count,
        .header = (uintptr_t)arena,
        .range = (uintptr_t)arena->range,
        .range_bytes = (uintptr_t)arena->unit_limit * SA_UNIT_BYTES,
    };
    memcpy(figures->state_counts, arena->away_counts, sizeof arena->away_counts);
    figures->state_counts[SA_BYTES] = (int64_t)arena->table_count;
    for (int state = SA_EXTENT; state < SA_BLOCK_STATE_COUNT; state++)
        figures->state_counts[SA_BYTES] -= arena->away_counts[state];
    memcpy(figures->state_bytes, arena->state_bytes, sizeof arena->state_bytes);
    figures->live_bytes = arena->state_bytes[SA_BYTES] + arena->state_bytes[SA_EXTENT] +
                          arena->state_bytes[SA_FRAME] + arena->state_bytes[SA_FRAME_EXTENT];
    sa_arena_unlock(arena);
}

static void count_block(const sa_ref *ref, sa_block_census *sums) {
    unsigned axis = sa_address_axis(*ref->meta), state = sa_meta_state(*ref->meta), heat = sa_meta_heat(*ref->meta);
    int64_t size = (int64_t)sa_block_size(ref);
    if (axis == SA_AXIS_PAGE) {
        sums->page_count++;
        return;
    }
    sums->block_count++;
    sums->requested_bytes += size;
    sums->state_counts[state]++;
    sums->counts[heat]++;
    sums->bytes[heat] += size;
    if (axis == SA_AXIS_GENERATED) {
        sums->generated_count++;
        sums->generated_pages += state == SA_GROWN ? (size + SA_PAGE_BYTES - 1) / SA_PAGE_BYTES : 0;
    }
}

void sa_heap_census(sa_heap *heap, unsigned class, sa_block_census *sums) {
    sa_arena *arena = heap->arenas[class];
    sa_ref ref;
    sa_arena_lock(arena);
    for (uint64_t at = 0; at < sa_entry_count(arena); at++)
        if (*sa_entry_at(arena, at) != 0) {
            sa_ref_of_entry(arena, sa_entry_at(arena, at), &ref);
            count_block(&ref, sums);
        }
    sa_arena_unlock(arena);
}

int sa_heap_addresses(sa_heap *heap, unsigned class, unsigned mask, uint64_t *position, uint64_t *addresses,
                      int count_max) {
    sa_arena *arena = heap->arenas[class];
    int count = 0;
    sa_ref ref;
    sa_arena_lock(arena);
    uint64_t at = *position, entries = sa_entry_count(arena);
    for (; at < entries && count < count_max; at++)
        if (*sa_entry_at(arena, at) != 0) {
            sa_ref_of_entry(arena, sa_entry_at(arena, at), &ref);
            if (mask >> sa_meta_state(*ref.meta) & 1)
                addresses[count++] = sa_address_of(arena, &ref);
        }
    *position = at < entries ? at : 0;
    sa_arena_unlock(arena);
    return count;
}

/* --- check ------------------------------------------------------------------------------------------------------- */

typedef struct tally {
    uint8_t *owner;      /* of each unit: how many slabs and extents cover it */
    int64_t used_cells, counts[SA_BLOCK_STATE_COUNT], bytes[SA_BLOCK_STATE_COUNT], pinned, requested;
} tally;

static int cover(tally *sums, const sa_arena *arena, uint32_t unit, uint32_t count, int weight) {
    for (uint32_t at = unit; at < unit + count; at++) {
        if (at >= arena->unit_writable || !(arena->unit_used[at >> 6] >> (at & 63) & 1))
            return 5;
        sums->owner[at] = (uint8_t)(sums->owner[at] + weight);
    }
    return 0;
}

/* The entries: invariants 2, 3 and the extents' part of 5. */
static int check_entry(sa_arena *arena, uint32_t *entry, tally *sums) {
    sa_ref ref;
    if (sa_table_find(arena, *entry) != entry)
        return 1;
    sa_ref_of_entry(arena, entry, &ref);
    uint32_t index;
    sa_slab *slab = sa_slab_of_cell(arena, ref.meta, &index);
    if (index >= slab->cell_count || sa_cell_meta(slab, index) != ref.meta)
        return 2;
    if (!(slab->used[index / 64] >> index % 64 & 1) || sa_meta_state(*ref.meta) == SA_FREE)
        return 2;
    if (sa_address_class(*ref.meta & SA_IDENTITY) != 0 || sa_address_axis(*ref.meta) == 0)
        return 3;
    unsigned state = sa_meta_state(*ref.meta);
    sums->counts[state]++;
    sums->bytes[state] += (int64_t)sa_block_length(&ref);
    sums->requested += (int64_t)sa_block_size(&ref);
    sums->pinned += sa_meta_pins(*ref.meta) > 0;
    /* The first entry of each slab answers for the slab. */
    uint32_t first = 0;
    while (!(slab->used[first / 64] >> first % 64 & 1))
        first++;
    if (first == index) {
        uint32_t live = 0;
        for (uint32_t cell = 0; cell < slab->cell_count; cell++)
            live += slab->used[cell / 64] >> cell % 64 & 1;
        sums->used_cells += live;
        if (live != slab->live_count)
            return 2;
        if (!slab->is_evacuated && slab->is_open != (live < slab->cell_count))
            return 4;
        if (cover(sums, arena, slab->unit, slab->unit_count, 1) != 0)
            return 5;
    }
    if (state == SA_EXTENT || state == SA_FRAME_EXTENT) {
        const sa_stub *stub = (const sa_stub *)ref.cell;
        uint32_t units = (uint32_t)((stub->length + SA_UNIT_BYTES - 1) / SA_UNIT_BYTES);
        return cover(sums, arena, (uint32_t)stub->where, units, 1);
    }
    return 0;
}

static int check_lists(sa_arena *arena, tally *sums) {
    for (unsigned number = 0; number < SA_SIZE_CLASS_COUNT; number++)
        for (sa_slab *slab = arena->open[number]; slab != NULL; slab = slab->next) {
            if (!slab->is_open || slab->is_evacuated || slab->live_count == slab->cell_count ||
                (slab->next != NULL && slab->next->previous != slab))
                return 4;
            if (slab->live_count == 0 && cover(sums, arena, slab->unit, slab->unit_count, 1) != 0)
                return 5;
        }
    return 0;
}

static int check_units(const sa_arena *arena, const tally *sums) {
    uint64_t table = (arena->table_groups * sizeof(sa_group) + arena->page_bytes - 1) / arena->page_bytes * arena->page_bytes;
    uint64_t own = (sizeof(sa_arena) + arena->page_bytes - 1) / arena->page_bytes * arena->page_bytes;
    int64_t resident = (int64_t)(table + own), dirty = 0;
    for (uint32_t unit = 0; unit < arena->unit_writable; unit++) {
        int used = arena->unit_used[unit >> 6] >> (unit & 63) & 1;
        if (sums->owner[unit] != used || (!used && unit < arena->unit_hint))
            return 5;
        resident += (int64_t)arena->unit_pages[unit] << arena->page_shift;
        dirty += used ? 0 : (int64_t)arena->unit_pages[unit] << arena->page_shift;
    }
    return resident == arena->resident_bytes && dirty == arena->free_dirty_bytes ? 0 : 6;
}

/* Kept cells: as many as are counted, each a used one of its size class in state FREE. */
static int check_kept(const sa_arena *arena) {
    for (unsigned number = 0; number < SA_SIZE_CLASS_COUNT; number++) {
        if (arena->kept_count[number] > sa_size_classes[number].kept_max)
            return 2;
        uint32_t place = arena->kept[number];
        for (unsigned at = 0; at < arena->kept_count[number]; at++) {
            uint32_t index;
            const sa_meta *meta = sa_meta_at(arena, place);
            place = (uint32_t)*meta;
            sa_slab *slab = sa_slab_of_cell(arena, meta, &index);
            if (slab->size_class != number || sa_cell_meta(slab, index) != meta || sa_meta_state(*meta) != SA_FREE ||
                !(slab->used[index / 64] >> index % 64 & 1) || slab->is_evacuated)
                return 2;
        }
    }
    return 0;
}

static int check_locked(sa_arena *arena, tally *sums) {
    int64_t entries = 0;
    int broken;
    if ((broken = check_kept(arena)) != 0)
        return broken;
    sa_cells_flush_slow(arena);
    for (uint64_t at = 0; at < sa_entry_count(arena); at++) {
        if (*sa_entry_at(arena, at) == 0)
            continue;
        entries++;
        if ((broken = check_entry(arena, sa_entry_at(arena, at), sums)) != 0)
            return broken;
    }
    if (entries != (int64_t)arena->table_count)
        return 1;
    if (entries != sums->used_cells)
        return 2;
    if ((broken = check_lists(arena, sums)) != 0 || (broken = check_units(arena, sums)) != 0)
        return broken;
    sums->counts[SA_BYTES] = 0; /* what the table and the others leave */
    if (sums->pinned != arena->pinned_count ||
        sums->requested != arena->away_requested_bytes + arena->state_bytes[SA_BYTES] ||
        memcmp(sums->counts, arena->away_counts, sizeof sums->counts) != 0 ||
        memcmp(sums->bytes, arena->state_bytes, sizeof sums->bytes) != 0)
        return 7;
    return 0;
}

int sa_heap_check(sa_heap *heap, unsigned class) {
    sa_arena *arena = heap->arenas[class];
    sa_arena_lock(arena);
    tally sums = {.owner = calloc(arena->unit_writable + 1, 1)};
    int broken = sums.owner == NULL ? 0 : check_locked(arena, &sums);
    free(sums.owner);
    sa_arena_unlock(arena);
    return broken;
}
