/* heap_table.c - an arena's address table: open addressing from serials to locations.
 *
 *   entry    | serial 32 | location 32 |    0 where unused: a location has its highest bit set
 *   group    eight entries, one cache line; successive serials are neighbours in a group, groups are spread by a
 *            multiplicative hash, so blocks that were made together are looked up together
 *
 * Invariants: 1. At most three quarters of the entries are used (17 of 20 after a compaction, until the next
 * insertion).
 *             2. Between an entry's home and its place no entry is unused; removal moves later ones back to keep that.
 *
 * Threads: the arena's lock. Cost: a look-up reads one line or two; growing by half copies all entries, about 5 ns
 * each.
 */
#define _GNU_SOURCE
#include "heap_arena.h"

#include <sys/mman.h>

enum { GROUP_ENTRIES = SA_GROUP_ENTRIES, GROUPS_MIN = 64 };

void sa_table_insert(sa_arena *arena, uint32_t serial, uint32_t location) {
    uint64_t count = arena->table_groups * GROUP_ENTRIES;
    uint64_t at = sa_table_home(serial, arena->table_groups);
    while (arena->table[at] != 0)
        at = at + 1 == count ? 0 : at + 1;
    arena->table[at] = (uint64_t)serial << 32 | location;
    arena->table_count++;
}

void sa_table_remove(sa_arena *arena, uint64_t *entry) {
    uint64_t count = arena->table_groups * GROUP_ENTRIES;
    uint64_t hole = (uint64_t)(entry - arena->table), at = hole;
    for (;;) {
        at = at + 1 == count ? 0 : at + 1;
        uint64_t later = arena->table[at];
        if (later == 0)
            break;
        uint64_t home = sa_table_home((uint32_t)(later >> 32), arena->table_groups);
        uint64_t from_home = at >= home ? at - home : at + count - home;
        uint64_t from_hole = at >= hole ? at - hole : at + count - hole;
        if (from_home >= from_hole) {
            arena->table[hole] = later;
            hole = at;
        }
    }
    arena->table[hole] = 0;
    arena->table_count--;
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
    arena->table_count = 0;
    for (uint64_t at = 0; at < old_groups * GROUP_ENTRIES; at++)
        if (old[at] != 0)
            sa_table_insert(arena, (uint32_t)(old[at] >> 32), (uint32_t)old[at]);
    if (old != NULL)
        munmap(old, (size_t)bytes_of(arena, old_groups));
    arena->resident_bytes += bytes_of(arena, groups) - bytes_of(arena, old_groups);
    return 0;
}

int sa_table_make_room(sa_arena *arena) {
    if ((arena->table_count + 1) * 4 <= arena->table_groups * GROUP_ENTRIES * 3)
        return 0;
    uint64_t groups = arena->table_groups + arena->table_groups / 2;
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
