/* heap_table.c - an arena's address table: open addressing from serials to places, in groups of eight entries.
 *
 *   group    | serial x 8 | place x 8 |    one cache line; a serial of 0 is an unused entry
 *   home     of a serial: four successive ones have the same, so blocks that were made together are looked up together
 *
 * Invariants: 1. At most three quarters of the entries are used (15 of 16 after a compaction, until the next insertion).
 *             2. An entry is in its home, or in a later group if all groups from its home on to there are full.
 *
 * Threads: the arena's lock. Cost: a look-up compares eight serials at once and reads one line, seldom two; taking an
 * entry out of a full group looks at the next one; growing by half copies all entries, about 5 ns each.
 */
#define _GNU_SOURCE
#include "heap_arena.h"

#include <sys/mman.h>

enum { GROUPS_MIN = 64 };

/* A hole was made in a full group: an entry that stands behind it because of that group moves in, and so on. */
void sa_table_close_slow(sa_arena *arena, uint32_t *hole) {
    uint64_t groups = arena->table_groups;
    uint64_t hole_group = (uint64_t)((const char *)hole - (const char *)arena->table) / sizeof(sa_group);
    for (uint64_t at = hole_group;;) {
        at = at + 1 == groups ? 0 : at + 1;
        sa_group *group = &arena->table[at];
        int was_full = sa_group_matches(group, 0) == 0;
        uint64_t behind = at >= hole_group ? at - hole_group : at + groups - hole_group;
        for (unsigned slot = 0; slot < SA_GROUP_ENTRIES; slot++) {
            uint32_t serial = group->serials[slot];
            uint64_t home = sa_table_home(serial, groups);
            uint64_t displaced = at >= home ? at - home : at + groups - home;
            if (serial == 0 || displaced < behind)
                continue;
            hole[0] = serial;
            hole[SA_GROUP_ENTRIES] = group->places[slot];
            hole = &group->serials[slot];
            *hole = 0;
            hole_group = at;
            break;
        }
        if (!was_full)
            return;
    }
}

static int64_t bytes_of(const sa_arena *arena, uint64_t groups) {
    uint64_t bytes = groups * sizeof(sa_group);
    return (int64_t)((bytes + arena->page_bytes - 1) / arena->page_bytes * arena->page_bytes);
}

int sa_table_resize_slow(sa_arena *arena, uint64_t groups) {
    sa_group *old = arena->table;
    uint64_t old_groups = arena->table_groups;
    size_t bytes = (size_t)bytes_of(arena, groups);
    sa_group *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (table == MAP_FAILED)
        return -1;
    arena->table = table;
    arena->table_groups = groups;
    arena->table_count = 0;
    for (uint64_t at = 0; at < old_groups; at++)
        for (unsigned slot = 0; slot < SA_GROUP_ENTRIES; slot++)
            if (old[at].serials[slot] != 0)
                sa_table_insert(arena, old[at].serials[slot], old[at].places[slot]);
    if (old != NULL)
        munmap(old, (size_t)bytes_of(arena, old_groups));
    arena->resident_bytes += bytes_of(arena, groups) - bytes_of(arena, old_groups);
    return 0;
}

int sa_table_make_room_slow(sa_arena *arena) {
    uint64_t groups = arena->table_groups + arena->table_groups / 2;
    return sa_table_resize_slow(arena, groups < GROUPS_MIN ? GROUPS_MIN : groups);
}

uint64_t sa_table_groups_for(uint64_t count) {
    uint64_t groups = (count * 16 / 15 + SA_GROUP_ENTRIES) / SA_GROUP_ENTRIES;
    return groups < GROUPS_MIN ? GROUPS_MIN : groups;
}

void sa_table_release(sa_arena *arena) {
    if (arena->table != NULL)
        munmap(arena->table, (size_t)bytes_of(arena, arena->table_groups));
    arena->table = NULL;
}
