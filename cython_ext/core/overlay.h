/* overlay.h - the edits of a GenerativeSpace: a sparse table of address -> raw value in front of what is generated.
 *
 * Words: an *edit* is an address with the raw value written there; a *slot* holds one; a *group* is 8 neighbouring
 * addresses; a *page* is SA_PAGE_ADDRESSES neighbouring addresses; a *dirty* page may have edits, any other has none.
 *
 *   slots   | address + 1, value | address + 1, value | ...   2^n of 16 bytes; the first word is 0 in an empty slot
 *             home of an edit: | top bits of hash(group) | address mod 8 |, then the next free slot, round the end
 *   filter  one bit for each of 4 * 2^n hashes of a page: 1 if a page with this hash may have edits
 *   last    the edit of address 2^64 - 1, whose first word would be 0, stands apart
 *
 * Invariants (sa_overlay_check tests all):
 *   1. count is the number of slots in use, plus one if has_last.
 *   2. Between the home of an edit and its slot no slot is empty, so a search may end at the first empty one.
 *   3. The bit of the page of every edit is set, for any of the 2^52 pages. A bit without edits costs time only.
 *   4. At most 5 of 8 slots are in use after sa_overlay_reserve, and at most 3 of 4 ever.
 *
 * Threads: `lock` guards slots, filter and last; `writing` (taken first) is held by the one writer. A bulk writer holds
 * `lock` for a page of edits at a time, and a table is rebuilt beside the old one, with `lock` held only to exchange them.
 * The functions here take `lock` to exchange tables only; their callers see to it that nobody else writes meanwhile.
 * Those of overlay_bulk.h take the locks they need.
 * Cost: a look-up is one filter word and, if dirty, one or two lines of slots; neighbouring edits share these lines.
 * Memory: 26 to 51 bytes an edit, right after growth the more.
 */
#ifndef SA_OVERLAY_H
#define SA_OVERLAY_H

#ifndef _GNU_SOURCE /* the reader-writer locks are not in C11 */
#define _GNU_SOURCE
#endif

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "edit_sort.h"

enum {
    SA_GROUP_BITS = 3,
    SA_PAGE_BITS = 9,
    SA_PAGE_ADDRESSES = 1 << SA_PAGE_BITS,
    SA_SLOT_BITS_MIN = 6,
    SA_SLOT_BITS_MAX = 40,
    SA_FILTER_BITS_PER_SLOT = 4
};

typedef struct sa_slot {
    uint64_t mark; /* address + 1, 0 in an empty slot */
    uint64_t raw;
} sa_slot;

typedef struct sa_table {
    sa_slot *slots;   /* 2^slot_bits */
    uint64_t *filter; /* SA_FILTER_BITS_PER_SLOT bits for each slot */
    uint32_t slot_bits;
    uint32_t has_last;
    uint64_t last_raw;
    uint64_t count;
} sa_table;

typedef struct sa_overlay {
    sa_table table;
    uint64_t secret; /* enters the hash, so that nobody can choose addresses that collide */
    pthread_rwlock_t lock;
    pthread_mutex_t writing;
} sa_overlay;

_Static_assert(sizeof(sa_slot) == 16, "an edit is two words");
_Static_assert(SA_FILTER_BITS_PER_SLOT << SA_SLOT_BITS_MIN >= 64, "the filter is whole words");

/* 0, or -1 without memory. */
int sa_overlay_init(sa_overlay *overlay, uint64_t secret);
void sa_overlay_free(sa_overlay *overlay);

/* New locks, for a child process: nobody but the caller exists there. */
void sa_overlay_renew_locks(sa_overlay *overlay);

static inline uint64_t sa_overlay_hash(uint64_t word, uint64_t secret) {
    word = (word ^ secret) * 0x9E3779B97F4A7C15u;
    word ^= word >> 32;
    return word * 0xD6E8FEB86659FD93u;
}

static inline uint64_t sa_table_mask(const sa_table *table) { return (1ull << table->slot_bits) - 1; }

static inline uint64_t sa_table_home(const sa_table *table, uint64_t secret, uint64_t address) {
    uint64_t group = sa_overlay_hash(address >> SA_GROUP_BITS, secret) >> (64 + SA_GROUP_BITS - table->slot_bits);
    return group << SA_GROUP_BITS | (address & ((1u << SA_GROUP_BITS) - 1));
}

/* The place in the filter of the page of an address. */
static inline uint64_t sa_table_bit(const sa_table *table, uint64_t secret, uint64_t address) {
    return sa_overlay_hash(address >> SA_PAGE_BITS, secret) >> (62 - table->slot_bits);
}

static inline sa_slot *sa_table_slot(const sa_table *table, uint64_t home, uint64_t address) {
    uint64_t mask = sa_table_mask(table), mark = address + 1;
    while (table->slots[home].mark != mark && table->slots[home].mark != 0) home = (home + 1) & mask;
    return &table->slots[home];
}

/* Needs a free slot. */
static inline void sa_table_put(sa_table *table, uint64_t home, uint64_t bit, uint64_t address, uint64_t raw) {
    table->filter[bit / 64] |= 1ull << bit % 64;
    if (address == UINT64_MAX) {
        table->count += !table->has_last;
        table->has_last = 1;
        table->last_raw = raw;
        return;
    }
    sa_slot *slot = sa_table_slot(table, home, address);
    table->count += slot->mark == 0;
    *slot = (sa_slot){address + 1, raw};
}

static inline int sa_overlay_is_dirty(const sa_overlay *overlay, uint64_t address) {
    uint64_t bit = sa_table_bit(&overlay->table, overlay->secret, address);
    return (int)(overlay->table.filter[bit / 64] >> bit % 64 & 1);
}

/* 1 and *raw if the address has an edit, else 0. */
int sa_overlay_find(const sa_overlay *overlay, uint64_t address, uint64_t *raw);

/* 0; -1 without memory, and nothing changed. May rebuild the table. */
int sa_overlay_put(sa_overlay *overlay, uint64_t address, uint64_t raw);

/* 1 if there was an edit, else 0. */
int sa_overlay_remove(sa_overlay *overlay, uint64_t address);

/* Whether a put may have to rebuild the table, which takes long. */
int sa_overlay_is_full(const sa_overlay *overlay);

/* Make room for `more` edits. Takes `lock` to exchange the tables; the caller is the one writer. 0, or -1 without memory. */
int sa_overlay_reserve(sa_overlay *overlay, uint64_t more);

/* Give back memory after removals, if much is unused; as sa_overlay_reserve, but failing costs nothing. */
void sa_overlay_shrink(sa_overlay *overlay);

/* Remove all edits. */
void sa_overlay_clear(sa_overlay *overlay);

/* Copy the edits, in no order, to an array of table.count elements. */
void sa_overlay_list(const sa_overlay *overlay, sa_edit *edits);

/* 0, or the number of the first invariant that is broken. O(slots). */
int sa_overlay_check(const sa_overlay *overlay);

#endif
