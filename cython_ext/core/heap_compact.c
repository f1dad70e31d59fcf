/* heap_compact.c - compaction in small steps, figures, and the walk through all invariants of heap.h.
 *
 * A round over one arena, whose position is | phase 8 | table position 56 |:
 *
 *   PLAN      of each size class the emptiest slabs that the others have room for are closed
 *   EVACUATE  going through the table, blocks in closed slabs move to open ones; empty slabs are given back
 *   SQUEEZE   going through it again, blocks beyond the first `live_count` cells of a slab with room move down in it
 *   FINISH    closed slabs with pinned blocks are opened again, and of one size class after the other pages behind the
 *             last cell go back
 *   SHRINK    the table shrinks, unless it is so long that the copy would take longer than a step may
 *   PURGE     pages of free units go back
 *
 * Invariants: 1. Pinned blocks never move. 2. After any step the arena is as sound as before: a round may be given up.
 *             3. A table that is rebuilt meanwhile only makes a round miss blocks; the next one finds them.
 *
 * Threads: the arena's lock for one step. Cost: a step moves or looks at about as many bytes as it is allowed: an entry
 * that is looked at counts as ENTRY_COST, a page given back as TRIM_COST; but PLAN looks at all open slabs (50 ns each),
 * and SHRINK copies up to SHRINK_COUNT_MAX entries (10 ns each).
 */
#include "heap_arena.h"

enum { PLAN, EVACUATE, SQUEEZE, FINISH, SHRINK, PURGE };
enum { PHASE_SHIFT = 56, ENTRY_COST = 64, TRIM_COST = 1024, PAGE_COST_SHIFT = 3, SHRINK_COUNT_MAX = 1 << 18 };

static void plan_size_class(sa_arena *arena, unsigned number) {
    uint32_t slabs_of_count[SA_CELL_COUNT_MAX + 1];
    uint64_t slabs = 0, live = 0;
    unsigned cells = sa_size_classes[number].cell_count;
    sa_slab *slab = arena->open[number];
    if (slab == NULL || slab->next == NULL)
        return;
    memset(slabs_of_count, 0, (cells + 1) * sizeof *slabs_of_count);
    for (; slab != NULL; slab = slab->next) {
        slabs_of_count[slab->live_count]++;
        slabs++;
        live += slab->live_count;
    }
    uint64_t spare = slabs - (live + cells - 1) / cells;
    unsigned threshold = 0; /* slabs with fewer live cells are spare, and some of those with just as many */
    while (spare > slabs_of_count[threshold])
        spare -= slabs_of_count[threshold++];
    for (slab = arena->open[number]; slab != NULL;) {
        sa_slab *next = slab->next;
        if (slab->live_count < threshold || (slab->live_count == threshold && spare > 0)) {
            spare -= slab->live_count == threshold;
            if (slab->live_count == 0)
                sa_slab_release(arena, slab);
            else
                sa_slab_close(arena, slab);
        }
        slab = next;
    }
}

/* Move a cell's content to a free cell, whose meta is written. Returns the bytes. */
static int64_t move_cell(sa_arena *arena, sa_ref *ref, sa_meta *target) {
    uint64_t filled = ref->cell_bytes - sa_meta_slack(*ref->meta);
    memcpy(target, ref->meta, sizeof(sa_meta) + filled);
    sa_table_move(arena, ref->entry, target);
    sa_cell_give(arena, ref->meta);
    arena->moved_bytes += filled;
    arena->moved_count++;
    return (int64_t)filled;
}

/* The lowest free cell of a slab that is below `index`, taken; or -1. */
static int64_t take_lower_cell(sa_slab *slab, uint32_t index) {
    unsigned word = slab->first_word;
    while (slab->used[word] == ~(uint64_t)0 && word < index / 64)
        word++;
    slab->first_word = (uint16_t)word;
    if (slab->used[word] == ~(uint64_t)0)
        return -1;
    uint32_t lowest = word * 64 + (uint32_t)__builtin_ctzll(~slab->used[word]);
    if (lowest >= index)
        return -1;
    slab->used[word] |= (uint64_t)1 << lowest % 64;
    slab->live_count++;
    return lowest;
}

static int64_t consider_entry(sa_arena *arena, uint32_t *entry, unsigned phase) {
    sa_ref ref;
    uint32_t index;
    sa_ref_of_entry(arena, entry, &ref);
    sa_slab *slab = sa_slab_of_cell(arena, ref.meta, &index);
    if (phase == EVACUATE) {
        if (!slab->is_evacuated || sa_meta_pins(*ref.meta) > 0)
            return 0;
        /* Only into slabs that are there: a new one would take back what this gives. */
        if (arena->open[slab->size_class] == NULL)
            return 0;
        return move_cell(arena, &ref, sa_cell_take(arena, slab->size_class));
    }
    if (!slab->is_open || index < slab->live_count || sa_meta_pins(*ref.meta) > 0)
        return 0;
    int64_t lower = take_lower_cell(slab, index);
    return lower < 0 ? 0 : move_cell(arena, &ref, sa_cell_meta(slab, (uint32_t)lower));
}

/* Give back the pages behind the last used cell of a slab. */
static void trim_slab(sa_arena *arena, sa_slab *slab) {
    unsigned word = (slab->cell_count + 63u) / 64;
    uint64_t bits = 0;
    while (word-- > 0) {
        bits = slab->used[word];
        if (word == slab->cell_count / 64u && slab->cell_count % 64 != 0)
            bits &= ~(~(uint64_t)0 << slab->cell_count % 64);
        if (bits != 0)
            break;
    }
    if (bits == 0)
        return;
    uint64_t cells = word * 64 + 64 - (uint64_t)__builtin_clzll(bits);
    uint64_t end = sa_slab_shift(slab->unit) + sa_cell_offset(slab, (uint32_t)cells);
    sa_units_untouch(arena, slab->unit, slab->unit_count, end);
}

/* Trim the slabs of size classes from *number on; the budget may be overdrawn by one class. */
static void finish(sa_arena *arena, uint64_t *number, int64_t byte_budget) {
    while (arena->evacuated != NULL)
        sa_slab_open(arena, arena->evacuated);
    for (; *number < SA_SIZE_CLASS_COUNT && byte_budget > 0; ++*number)
        for (sa_slab *slab = arena->open[*number]; slab != NULL;) {
            sa_slab *next = slab->next;
            byte_budget -= TRIM_COST;
            if (slab->live_count == 0)
                sa_slab_release(arena, slab);
            else
                trim_slab(arena, slab);
            slab = next;
        }
}

static void shrink(sa_arena *arena) {
    uint64_t groups = sa_table_groups_for(arena->table_count);
    if (arena->table_count <= SHRINK_COUNT_MAX && groups * 5 < arena->table_groups * 4)
        sa_table_resize_slow(arena, groups);
}

int64_t sa_heap_purge(sa_heap *heap, unsigned class, int64_t byte_budget) {
    sa_arena *arena = heap->arenas[class];
    sa_arena_lock(arena);
    int64_t before = arena->resident_bytes;
    sa_units_purge_slow(arena, byte_budget);
    int64_t given = before - arena->resident_bytes;
    sa_arena_unlock(arena);
    return given;
}

int64_t sa_heap_compact_step(sa_heap *heap, unsigned class, int64_t byte_budget, uint64_t *position) {
    sa_arena *arena = heap->arenas[class];
    unsigned phase = (unsigned)(*position >> PHASE_SHIFT);
    uint64_t at = *position << (64 - PHASE_SHIFT) >> (64 - PHASE_SHIFT);
    int64_t moved = 0;
    sa_arena_lock(arena);
    switch (phase) {
    case PLAN:
        sa_cells_flush_slow(arena);
        for (unsigned number = 0; number < SA_SIZE_CLASS_COUNT; number++)
            plan_size_class(arena, number);
        phase = EVACUATE;
        break;
    case EVACUATE:
    case SQUEEZE:
        for (; at < sa_entry_count(arena) && byte_budget > 0; at++) {
            uint32_t *entry = sa_entry_at(arena, at);
            int64_t bytes = *entry == 0 ? 0 : consider_entry(arena, entry, phase);
            moved += bytes;
            byte_budget -= bytes + ENTRY_COST;
        }
        if (at >= sa_entry_count(arena)) {
            phase++;
            at = 0;
        }
        break;
    case FINISH:
        finish(arena, &at, byte_budget);
        if (at == SA_SIZE_CLASS_COUNT) {
            phase = SHRINK;
            at = 0;
        }
        break;
    case SHRINK:
        shrink(arena);
        phase = PURGE;
        break;
    default:
        phase = sa_units_purge_slow(arena, byte_budget << PAGE_COST_SHIFT) ? PURGE : PLAN;
    }
    sa_arena_unlock(arena);
    *position = (uint64_t)phase << PHASE_SHIFT | at;
    return moved;
}
