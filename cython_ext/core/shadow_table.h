/* shadow_table.h: where the frame of a promoted value still lies on disk, and what the value was then.
 *
 * Nouns
 *   shadow   cell address -> place and length of a frame, the digest of the stream in it, and the accesses to the entry
 *            when its value was installed
 *   digest   128 bits of a keyed hash; equal digests mean equal streams, so a frame that is as good as a new one
 *
 * Layout: open addressing by cell address, linear probing; a slot is free while its cell is NULL.
 *
 *   slot[0 .. mask]   | cell | place | frame bytes 4 | accesses 4 | digest 16 |   40 bytes, at most half of them taken
 *
 * Invariants
 *   1. A shadow owns its place: nobody else releases it, and it is released or handed on just once.
 *   2. The cell address is a key and never followed. A shadow of a cell that is gone may be found by another cell at its
 *      address: right all the same, if the digests are equal.
 *
 * Thread rule: GIL held. Cost: 5-10 ns, a cache miss more in a large table.
 */
#ifndef SA_SHADOW_TABLE_H
#define SA_SHADOW_TABLE_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct sa_digest {
    uint64_t word[2];
} sa_digest;

typedef struct sa_shadow {
    const void *cell;
    uint64_t place;
    uint32_t frame_bytes, accesses;
    sa_digest digest;
} sa_shadow;
_Static_assert(sizeof(sa_shadow) == 40, "what a shadow is charged for twice");

typedef struct sa_shadow_table {
    sa_shadow *slot;
    size_t mask, count, hand; /* hand: where the search for one to give up goes on */
} sa_shadow_table;

enum { SA_SHADOW_SLOTS_AT_FIRST = 64, SA_DIGEST_LANES = 4, SA_DIGEST_LANES_FROM = 1024 };

static inline uint64_t sa_folded(uint64_t first, uint64_t second)
{
    unsigned __int128 product = (unsigned __int128)first * second;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* One step of both hashes of a digest over 16 bytes. */
static inline void sa_digest_step(uint64_t hash[2], const uint8_t *data, const uint64_t key[4])
{
    uint64_t word[2], one = hash[0], two = hash[1];
    memcpy(word, data, sizeof word);
    hash[0] = sa_folded(word[0] ^ key[2], word[1] ^ one) + word[0];
    hash[1] = sa_folded(word[1] ^ key[3], word[0] ^ two) + word[1];
}

/* Two multiply-and-fold hashes with keys of their own. Long data take turns over four pairs of them, which do not wait
 * for one another. `key`: 4 random words of this process. */
static inline sa_digest sa_digest_of(const uint8_t *data, size_t length, const uint64_t key[4])
{
    uint64_t hash[SA_DIGEST_LANES][2], last[2] = {0, 0};
    for (size_t lane = 0; lane < SA_DIGEST_LANES; lane++) {
        hash[lane][0] = key[0] ^ (length + lane);
        hash[lane][1] = key[1] + (length ^ lane);
    }
    if (length >= SA_DIGEST_LANES_FROM) {
        for (; length >= SA_DIGEST_LANES * sizeof last; data += SA_DIGEST_LANES * sizeof last) {
            for (size_t lane = 0; lane < SA_DIGEST_LANES; lane++) {
                sa_digest_step(hash[lane], data + lane * sizeof last, key);
            }
            length -= SA_DIGEST_LANES * sizeof last;
        }
        for (size_t lane = 1; lane < SA_DIGEST_LANES; lane++) {
            sa_digest_step(hash[0], (const uint8_t *)hash[lane], key);
        }
    }
    for (; length >= sizeof last; length -= sizeof last, data += sizeof last) {
        sa_digest_step(hash[0], data, key);
    }
    memcpy(last, data, length);
    sa_digest_step(hash[0], (const uint8_t *)last, key);
    uint64_t one = hash[0][0], two = hash[0][1];
    return (sa_digest){{sa_folded(one ^ key[3], two ^ key[2]), sa_folded(one + key[1], two ^ key[0])}};
}

static inline int sa_digests_equal(sa_digest one, sa_digest other)
{
    return one.word[0] == other.word[0] && one.word[1] == other.word[1];
}

static inline size_t sa_shadow_home(const sa_shadow_table *table, const void *cell)
{
    return (size_t)((uint64_t)(uintptr_t)cell * 0x9E3779B97F4A7C15u >> 32) & table->mask;
}

/* The shadow of a cell, or NULL; good until the table changes. */
static inline sa_shadow *sa_shadow_find(const sa_shadow_table *table, const void *cell)
{
    if (table->count == 0) {
        return NULL;
    }
    for (size_t index = sa_shadow_home(table, cell); table->slot[index].cell != NULL; index = (index + 1) & table->mask) {
        if (table->slot[index].cell == cell) {
            return &table->slot[index];
        }
    }
    return NULL;
}

static inline void sa_shadow_place(sa_shadow_table *table, const sa_shadow *shadow)
{
    size_t index = sa_shadow_home(table, shadow->cell);
    while (table->slot[index].cell != NULL) {
        index = (index + 1) & table->mask;
    }
    table->slot[index] = *shadow;
    table->count++;
}

/* Slow path of sa_shadow_add: twice the slots. 0, or -1 without memory. */
static inline int sa_shadow_widen(sa_shadow_table *table)
{
    sa_shadow_table wider = {NULL, table->slot == NULL ? SA_SHADOW_SLOTS_AT_FIRST - 1 : 2 * table->mask + 1, 0, 0};
    wider.slot = calloc(wider.mask + 1, sizeof *wider.slot);
    if (wider.slot == NULL) {
        return -1;
    }
    for (size_t index = 0; table->slot != NULL && index <= table->mask; index++) {
        if (table->slot[index].cell != NULL) {
            sa_shadow_place(&wider, &table->slot[index]);
        }
    }
    free(table->slot);
    *table = wider;
    return 0;
}

/* Add the shadow of a cell that has none. 0, or -1 without memory. */
static inline int sa_shadow_add(sa_shadow_table *table, const sa_shadow *shadow)
{
    if ((table->slot == NULL || 2 * (table->count + 1) > table->mask) && sa_shadow_widen(table) < 0) {
        return -1;
    }
    sa_shadow_place(table, shadow);
    return 0;
}

/* Take a shadow out; those behind it move up, so that no search meets a hole. */
static inline void sa_shadow_remove(sa_shadow_table *table, sa_shadow *shadow)
{
    size_t hole = (size_t)(shadow - table->slot);
    for (size_t index = (hole + 1) & table->mask; table->slot[index].cell != NULL; index = (index + 1) & table->mask) {
        size_t home = sa_shadow_home(table, table->slot[index].cell);
        if (((index - home) & table->mask) >= ((index - hole) & table->mask)) {
            table->slot[hole] = table->slot[index];
            hole = index;
        }
    }
    table->slot[hole].cell = NULL;
    table->count--;
}

/* One to give up when there are too many, or NULL. */
static inline sa_shadow *sa_shadow_next(sa_shadow_table *table)
{
    if (table->count == 0) {
        return NULL;
    }
    do {
        table->hand = (table->hand + 1) & table->mask;
    } while (table->slot[table->hand].cell == NULL);
    return &table->slot[table->hand];
}

#endif
