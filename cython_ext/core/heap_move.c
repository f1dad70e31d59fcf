/* heap_move.c - what a block holds is replaced: by a frame, a place, a recipe, or its bytes again; and by another size.
 *
 *   BYTES EXTENT  --copy_out, then replace-->  FRAME FRAME_EXTENT  --copy_out, then replace-->  PLACE
 *        ^------------------------------------------replace--------------------------------------+  GROWN
 *
 * Invariants: 1. A move is refused when the block was used between copy_out and replace (its dirty bit), so no write is
 *                lost; the caller may compress and write to disk without the arena's lock. One mover a block at a time:
 *                a second copy_out would forget that the first one's copy is old (memory_tiers.py sees to that).
 *             2. New storage is taken before the old is given back: without memory nothing has changed.
 *
 * Threads: the arena's lock, also while bytes are copied: 64 KiB take 5 us. Cost: O(bytes).
 */
#include "heap_arena.h"

/* A cell of STAYING_BYTES is as small as what would be left of its block. */
enum { COOLING = 2, COUNT_MAX = 64, STAYING_BYTES = 32 };

/* Lock the arena of an address and find the block. An address without an arena locks the first, where nothing is
 * found. */
static int enter(sa_heap *heap, uint64_t address, sa_arena **arena, sa_ref *ref) {
    unsigned class = sa_address_class(address);
    if (class >= SA_CLASS_COUNT) {
        sa_arena_lock(*arena = heap->arenas[0]);
        return SA_UNKNOWN;
    }
    *arena = heap->arenas[class];
    sa_arena_lock(*arena);
    return sa_find(*arena, address, ref);
}

static int is_in_place(unsigned state) { return state == SA_BYTES || state == SA_EXTENT; }
static int is_copied_out(unsigned state) { return state != SA_PLACE && state != SA_GROWN; }

int sa_heap_copy_out(sa_heap *heap, uint64_t address, uint32_t state, uint64_t length, void *target) {
    sa_arena *arena;
    sa_ref ref;
    sa_block block;
    int status = enter(heap, address, &arena, &ref);
    if (status == SA_OK) {
        sa_describe(arena, &ref, &block);
        if (block.pins > 0)
            status = SA_PINNED;
        else if (block.state != state || sa_block_length(&ref) != length || block.bytes == NULL)
            status = SA_CHANGED;
        else {
            memcpy(target, block.bytes, length);
            sa_meta_set_dirty(ref.meta, 0);
        }
    }
    sa_arena_unlock(arena);
    return status;
}

/* Give a block new storage that `ref` describes already, keeping its identity, heat and hint. */
static void exchange(sa_arena *arena, sa_ref *old, sa_ref *fresh) {
    sa_meta kept = *old->meta & (SA_IDENTITY | ((1u << 12) - 1));
    *fresh->meta |= kept;
    sa_meta_set_dirty(fresh->meta, 1);
    fresh->entry = old->entry;
    sa_state_add(arena, old, -1);
    sa_table_move(arena, old->entry, fresh->meta);
    sa_storage_give(arena, old);
    sa_state_add(arena, fresh, 1);
}

static char *payload_of(sa_arena *arena, const sa_ref *ref) {
    sa_block block;
    sa_describe(arena, ref, &block);
    return block.bytes;
}

int sa_heap_replace(sa_heap *heap, uint64_t address, uint32_t from, uint64_t expected, uint32_t to, const void *data,
                    uint64_t length, uint64_t where, sa_block *old) {
    sa_arena *arena;
    sa_ref ref, fresh;
    int status = enter(heap, address, &arena, &ref);
    if (status != SA_OK)
        goto done;
    sa_describe(arena, &ref, old);
    if (old->pins > 0)
        status = SA_PINNED;
    else if (old->state != from || (is_copied_out(from) && sa_meta_dirty(*ref.meta)) ||
             (!is_copied_out(from) && old->where != expected) ||
             (to == SA_BYTES && length != old->size))
        status = SA_CHANGED;
    else if (sa_storage_take(arena, to, old->size, to == SA_GROWN ? 0 : length, &fresh) != 0)
        status = SA_NO_MEMORY;
    if (status != SA_OK)
        goto done;
    if (to == SA_PLACE || to == SA_GROWN)
        ((sa_stub *)fresh.cell)->where = where;
    else if (data != NULL)
        memcpy(payload_of(arena, &fresh), data, length);
    else
        memset(payload_of(arena, &fresh), (int)where, length);
    exchange(arena, &ref, &fresh);
done:
    sa_arena_unlock(arena);
    return status;
}

int sa_heap_resize(sa_heap *heap, uint64_t address, uint64_t size) {
    sa_arena *arena;
    sa_ref ref, fresh;
    sa_block block;
    int status = enter(heap, address, &arena, &ref);
    if (status != SA_OK)
        goto done;
    sa_describe(arena, &ref, &block);
    if (block.pins > 0)
        status = SA_PINNED;
    else if (!is_in_place(block.state) && block.state != SA_GROWN)
        status = SA_AWAY;
    else if (block.state != SA_GROWN && sa_storage_take(arena, SA_BYTES, size, size, &fresh) != 0)
        status = SA_NO_MEMORY;
    if (status != SA_OK)
        goto done;
    if (block.state == SA_GROWN) {
        sa_state_add(arena, &ref, -1);
        ((sa_stub *)ref.cell)->size = size;
        sa_state_add(arena, &ref, 1);
        goto done;
    }
    memcpy(payload_of(arena, &fresh), block.bytes, size < block.size ? size : block.size);
    exchange(arena, &ref, &fresh);
done:
    sa_arena_unlock(arena);
    return status;
}

/* Keep the coldest: candidates are sorted by heat, and a new one displaces the warmest. */
static int consider(uint64_t *addresses, unsigned *heats, int count, int count_max, uint64_t address, unsigned heat) {
    if (count == count_max && heat >= heats[count - 1])
        return count;
    int at = count < count_max ? count++ : count - 1;
    for (; at > 0 && heats[at - 1] > heat; at--) {
        heats[at] = heats[at - 1];
        addresses[at] = addresses[at - 1];
    }
    heats[at] = heat;
    addresses[at] = address;
    return count;
}

int sa_heap_victims(sa_heap *heap, unsigned class, unsigned mask, unsigned window, uint64_t *addresses, int count_max) {
    sa_arena *arena = heap->arenas[class];
    unsigned heats[COUNT_MAX];
    int count = 0;
    count_max = count_max < COUNT_MAX ? count_max : COUNT_MAX;
    sa_arena_lock(arena);
    uint64_t entries = sa_entry_count(arena);
    for (uint64_t looked = 0; looked < entries && window > 0; looked++) {
        sa_ref ref;
        arena->hand = arena->hand + 1 < entries ? arena->hand + 1 : 0;
        uint32_t *entry = sa_entry_at(arena, arena->hand);
        if (*entry == 0)
            continue;
        sa_ref_of_entry(arena, entry, &ref);
        unsigned state = sa_meta_state(*ref.meta);
        if (!(mask >> state & 1) || sa_meta_pins(*ref.meta) > 0)
            continue;
        if ((state == SA_BYTES || state == SA_FRAME) && ref.cell_bytes <= STAYING_BYTES)
            continue;
        unsigned heat = sa_meta_heat(*ref.meta);
        window--;
        count = consider(addresses, heats, count, count_max, sa_address_of(arena, &ref), heat);
        sa_meta_set_heat(ref.meta, heat > COOLING ? heat - COOLING : 0);
    }
    sa_arena_unlock(arena);
    return count;
}
