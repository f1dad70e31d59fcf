/* overlay.c - one table of edits: find, put, remove, grow. Words, layout, invariants, threads and cost: overlay.h. */
#include "overlay.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE_BYTES = 4096, POPULATE_BYTES_MIN = 1 << 20 };

/* The slot that holds the address, or the empty one where a search for it ends. */
static inline sa_slot *slot_of(const sa_table *table, uint64_t secret, uint64_t address) {
    return sa_table_slot(table, sa_table_home(table, secret, address), address);
}

static inline void put(sa_table *table, uint64_t secret, uint64_t address, uint64_t raw) {
    sa_table_put(table, sa_table_home(table, secret, address), sa_table_bit(table, secret, address), address, raw);
}

static size_t slots_bytes(uint32_t slot_bits) { return sizeof(sa_slot) << slot_bits; }

static size_t filter_bytes(uint32_t slot_bits) { return ((size_t)SA_FILTER_BITS_PER_SLOT << slot_bits) / 8; }

static void table_free(sa_table *table) {
    free(table->slots);
    free(table->filter);
    memset(table, 0, sizeof *table);
}

/* Have the system back the whole pages of a table at once: the slots of a few thousand edits lie in all of them, and a
 * fault for each costs half as much again. A system that knows no such advice backs them one by one. */
static void populate(void *range, size_t bytes) {
#if defined(MADV_POPULATE_WRITE)
    uintptr_t start = ((uintptr_t)range + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES, end = (uintptr_t)range + bytes;
    if (bytes >= POPULATE_BYTES_MIN) madvise((void *)start, (end - start) / PAGE_BYTES * PAGE_BYTES, MADV_POPULATE_WRITE);
#else
    (void)range, (void)bytes;
#endif
}

static int table_init(sa_table *table, uint32_t slot_bits) {
    memset(table, 0, sizeof *table);
    if (slot_bits > SA_SLOT_BITS_MAX) return -1;
    table->slot_bits = slot_bits;
    table->slots = calloc(1, slots_bytes(slot_bits));
    table->filter = calloc(1, filter_bytes(slot_bits));
    if (table->slots != NULL) populate(table->slots, slots_bytes(slot_bits));
    if (table->slots != NULL && table->filter != NULL) return 0;
    table_free(table);
    return -1;
}

static void locks_init(sa_overlay *overlay) {
    pthread_rwlockattr_t kind;
    pthread_rwlockattr_init(&kind);
#if defined(__GLIBC__)
    pthread_rwlockattr_setkind_np(&kind, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    pthread_rwlock_init(&overlay->lock, &kind);
    pthread_rwlockattr_destroy(&kind);
    pthread_mutex_init(&overlay->writing, NULL);
}

int sa_overlay_init(sa_overlay *overlay, uint64_t secret) {
    overlay->secret = secret;
    if (table_init(&overlay->table, SA_SLOT_BITS_MIN) != 0) return -1;
    locks_init(overlay);
    return 0;
}

void sa_overlay_free(sa_overlay *overlay) {
    if (overlay->table.slots == NULL) return;
    table_free(&overlay->table);
    pthread_rwlock_destroy(&overlay->lock);
    pthread_mutex_destroy(&overlay->writing);
}

void sa_overlay_renew_locks(sa_overlay *overlay) { locks_init(overlay); }

/* Cost: one filter word; if the page is dirty, the lines of slots from the home on. */
int sa_overlay_find(const sa_overlay *overlay, uint64_t address, uint64_t *raw) {
    const sa_table *table = &overlay->table;
    if (!sa_overlay_is_dirty(overlay, address)) return 0;
    if (address == UINT64_MAX) {
        *raw = table->last_raw;
        return (int)table->has_last;
    }
    const sa_slot *slot = slot_of(table, overlay->secret, address);
    *raw = slot->raw;
    return slot->mark != 0;
}

int sa_overlay_is_full(const sa_overlay *overlay) {
    return overlay->table.count + 1 > (3ull << overlay->table.slot_bits) / 4;
}

/* Move all edits to a table of this size. Old slots are nearly in the order of their hashes, so both tables are walked
 * from front to back. O(slots). */
static int rebuild_slow(sa_overlay *overlay, uint32_t slot_bits) {
    sa_table made, old = overlay->table;
    if (table_init(&made, slot_bits) != 0) return -1;
    if (old.has_last) put(&made, overlay->secret, UINT64_MAX, old.last_raw);
    for (uint64_t i = 0; i <= sa_table_mask(&old); i++) {
        if (old.slots[i].mark != 0) put(&made, overlay->secret, old.slots[i].mark - 1, old.slots[i].raw);
    }
    pthread_rwlock_wrlock(&overlay->lock);
    overlay->table = made;
    pthread_rwlock_unlock(&overlay->lock);
    table_free(&old);
    return 0;
}

static uint32_t slot_bits_for(uint64_t count) {
    uint32_t bits = SA_SLOT_BITS_MIN;
    while (bits <= SA_SLOT_BITS_MAX && count > (5ull << bits) / 8) bits++;
    return bits;
}

int sa_overlay_reserve(sa_overlay *overlay, uint64_t more) {
    uint64_t wanted = more > UINT64_MAX - overlay->table.count ? UINT64_MAX : overlay->table.count + more;
    if (wanted <= (3ull << overlay->table.slot_bits) / 4) return 0;
    return rebuild_slow(overlay, slot_bits_for(wanted));
}

int sa_overlay_put(sa_overlay *overlay, uint64_t address, uint64_t raw) {
    if (sa_overlay_is_full(overlay) && sa_overlay_reserve(overlay, 1) != 0) return -1;
    put(&overlay->table, overlay->secret, address, raw);
    return 0;
}

/* Empty a slot, and move up those behind it that would be cut off from their homes (invariant 2). */
static void vacate(sa_table *table, uint64_t secret, uint64_t hole) {
    uint64_t mask = sa_table_mask(table);
    for (uint64_t at = (hole + 1) & mask; table->slots[at].mark != 0; at = (at + 1) & mask) {
        uint64_t home = sa_table_home(table, secret, table->slots[at].mark - 1);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table->slots[hole] = table->slots[at];
            hole = at;
        }
    }
    table->slots[hole] = (sa_slot){0, 0};
}

int sa_overlay_remove(sa_overlay *overlay, uint64_t address) {
    sa_table *table = &overlay->table;
    if (!sa_overlay_is_dirty(overlay, address)) return 0;
    if (address == UINT64_MAX) {
        int was = (int)table->has_last;
        table->count -= table->has_last;
        table->has_last = 0;
        return was;
    }
    sa_slot *slot = slot_of(table, overlay->secret, address);
    if (slot->mark == 0) return 0;
    vacate(table, overlay->secret, (uint64_t)(slot - table->slots));
    table->count--;
    return 1;
}

void sa_overlay_shrink(sa_overlay *overlay) {
    uint32_t wanted = slot_bits_for(overlay->table.count * 2);
    if (wanted + 2 <= overlay->table.slot_bits) rebuild_slow(overlay, wanted);
}

void sa_overlay_clear(sa_overlay *overlay) {
    sa_table made, old = overlay->table;
    if (table_init(&made, SA_SLOT_BITS_MIN) != 0) {
        memset(old.slots, 0, slots_bytes(old.slot_bits));
        memset(old.filter, 0, filter_bytes(old.slot_bits));
        overlay->table.count = overlay->table.has_last = 0;
        return;
    }
    pthread_rwlock_wrlock(&overlay->lock);
    overlay->table = made;
    pthread_rwlock_unlock(&overlay->lock);
    table_free(&old);
}

void sa_overlay_list(const sa_overlay *overlay, sa_edit *edits) {
    const sa_table *table = &overlay->table;
    for (uint64_t i = 0; i <= sa_table_mask(table); i++) {
        if (table->slots[i].mark != 0) *edits++ = (sa_edit){table->slots[i].mark - 1, table->slots[i].raw};
    }
    if (table->has_last) *edits = (sa_edit){UINT64_MAX, table->last_raw};
}

int sa_overlay_check(const sa_overlay *overlay) {
    const sa_table *table = &overlay->table;
    uint64_t used = table->has_last;
    for (uint64_t i = 0; i <= sa_table_mask(table); i++) {
        if (table->slots[i].mark == 0) continue;
        uint64_t address = table->slots[i].mark - 1;
        used++;
        if (slot_of(table, overlay->secret, address) != &table->slots[i]) return 2;
        if (!sa_overlay_is_dirty(overlay, address)) return 3;
    }
    if (used != table->count) return 1;
    if (table->has_last && !sa_overlay_is_dirty(overlay, UINT64_MAX)) return 3;
    return table->count > (3ull << table->slot_bits) / 4 ? 4 : 0;
}
