/* heap_table.c - an arena's address table: open addressing from serials to places.
 *
 *   entry    | serial 32 | place 32 |      0 where unused; HOLE, of serial 0, where an entry was taken out
 *   group    eight entries, one cache line; successive serials are neighbours in a group, groups are spread by a
 *            multiplicative hash, so blocks that were made together are looked up together
 *
 * Invariants: 1. At most three quarters of the entries are used or holes (17 of 20 after a compaction, until the next
 *                insertion); table_filled counts both.
 *             2. Between an entry's home and its place no entry is unused. Holes are filled by later insertions, which
 *                need not look further: a serial is inserted once.
 *
 * Threads: the arena's lock. Cost: a look-up reads one line or two; taking an entry out writes one; a new table is
 * made when it fills, a copy of about 5 ns an entry.
 */
#define _GNU_SOURCE
#include "heap_arena.h"

#include <sys/mman.h>

enum { GROUP_ENTRIES = SA_GROUP_ENTRIES, GROUPS_MIN = 64 };

static const uint64_t HOLE = 1;

void sa_table_insert(sa_arena *arena, uint32_t serial, uint32_t place) {
    uint64_t count = arena->table_groups * GROUP_ENTRIES;
    uint64_t at = sa_table_home(serial, arena->table_groups);
    while (sa_entry_lives(arena->table[at]))
        at = at + 1 == count ? 0 : at + 1;
    arena->table_filled += arena->table[at] == 0;
    arena->table[at] = (uint64_t)serial << 32 | place;
    arena->table_count++;
}

void sa_table_remove(sa_arena *arena, uint64_t *entry) {
    uint64_t *next = entry + 1 == arena->table + arena->table_groups * GROUP_ENTRIES ? arena->table : entry + 1;
    arena->table_count--;
    *entry = HOLE;
    if (*next != 0)
        return;
    /* No search goes on over holes before an unused entry. */
    for (; entry >= arena->table && *entry == HOLE; entry--) {
        *entry = 0;
        arena->table_filled--;
    }
}

static int64_t bytes_of(const sa_arena *arena, uint64_t groups) {
    uint64_t bytes = groups * GROUP_ENTRIES * sizeof(uint64_t);
    return (int64_t)((bytes + arena->page_bytes - 1) / arena->page_bytes * arena->page_bytes);
}

int sa_table_resize_slow(sa_arena *arena, uint64_t groups) {
    uint64_t *old = arena->table, old_groups = arena->table_groups;
    size_t bytes = (size_t)bytes_of(arena, groups);
    uint64_t *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (table == MAP_FAILED)
        return -1;
    arena->table = table;
    arena->table_groups = groups;
    arena->table_count = arena->table_filled = 0;
    for (uint64_t at = 0; at < old_groups * GROUP_ENTRIES; at++)
        if (sa_entry_lives(old[at]))
            sa_table_insert(arena, (uint32_t)(old[at] >> 32), (uint32_t)old[at]);
    if (old != NULL)
        munmap(old, (size_t)bytes_of(arena, old_groups));
    arena->resident_bytes += bytes_of(arena, groups) - bytes_of(arena, old_groups);
    return 0;
}

int sa_table_make_room_slow(sa_arena *arena) {
    uint64_t groups = arena->table_groups;
    /* If half of it is holes, a table of the same size will do. */
    if ((arena->table_count + 1) * 2 > groups * GROUP_ENTRIES)
        groups += groups / 2;
    return sa_table_resize_slow(arena, groups < GROUPS_MIN ? GROUPS_MIN : groups);
}

uint64_t sa_table_groups_for(uint64_t count) {
    uint64_t groups = (count * 20 / 17 + GROUP_ENTRIES) / GROUP_ENTRIES;
    return groups < GROUPS_MIN ? GROUPS_MIN : groups;
}

void sa_table_release(sa_arena *arena) {
    if (arena->table != NULL)
        munmap(arena->table, (size_t)bytes_of(arena, arena->table_groups));
    arena->table = NULL;
}
