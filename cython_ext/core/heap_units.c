/* heap_units.c - an arena's range: reserving it, taking and giving runs of units, counting and returning pages.
 *
 * Words, layout, invariants 5 and 6, threads: heap.h. A *dirty* unit is free and has pages that may be resident.
 *
 *   unit_used    one bit a unit                   unit_hint: every unit below is used
 *   unit_slab    | u0 | u1 | ... |  two bytes     of units of slabs: size class, and which unit of the slab
 *   unit_pages   | u0 | u1 | ... |  one byte      pages [0, n) of a unit may be resident, the others are not
 *
 * Cost: a single unit is found from the hint in O(1) as long as the arena has no hole; runs are searched linearly.
 * Free units keep up to an eighth of what the arena holds, so that a block that comes and goes costs no system call.
 */
#define _GNU_SOURCE
#include "heap_arena.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    ADDRESS_SPACE_SHARE = 20,        /* of RLIMIT_AS, for one arena: twelve have 60 %, where a heap has 50 at most */
    ADDRESS_SPACE_LEFT_SHARE = 8,    /* of what is left of it: the program needs some too */
    UNIT_COUNT_MIN = 64,
    UNIT_COUNT_STEP = 64,            /* a word of unit_used */
    WRITABLE_STEP_UNITS = 64,
    STUB_SHARE = 64,                 /* of a range that only stubs may have: blocks must be able to leave it */
    DIRTY_BYTES_KEPT = 1 << 20,
    DIRTY_SHARE = 8
};

static int is_used(const sa_arena *arena, uint32_t unit) { return arena->unit_used[unit >> 6] >> (unit & 63) & 1; }

static void set_used(sa_arena *arena, uint32_t unit, uint32_t count, int used) {
    for (uint32_t at = unit; at < unit + count; at++) {
        uint64_t bit = (uint64_t)1 << (at & 63);
        if (used)
            arena->unit_used[at >> 6] |= bit;
        else
            arena->unit_used[at >> 6] &= ~bit;
    }
}

/* Addresses that this process uses; 0 where the system does not tell. */
static uint64_t address_bytes_used(void) {
    char text[32] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    return length > 0 ? strtoull(text, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

/* The units of a range that leaves addresses to the other arenas and to the program. */
static uint64_t units_wanted(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return SA_UNIT_COUNT_MAX;
    uint64_t used = address_bytes_used(), left = limit.rlim_cur > used ? limit.rlim_cur - used : 0;
    uint64_t share = limit.rlim_cur / ADDRESS_SPACE_SHARE, rest = left / ADDRESS_SPACE_LEFT_SHARE;
    uint64_t units = (share < rest ? share : rest) / SA_UNIT_BYTES / UNIT_COUNT_STEP * UNIT_COUNT_STEP;
    return units < UNIT_COUNT_MIN ? UNIT_COUNT_MIN : units < SA_UNIT_COUNT_MAX ? units : SA_UNIT_COUNT_MAX;
}

/* Reserve addresses for as many units as the system allows. */
int sa_units_reserve_slow(sa_arena *arena) {
    uint64_t units = units_wanted();
    for (; units >= UNIT_COUNT_MIN; units = units / 2 / UNIT_COUNT_STEP * UNIT_COUNT_STEP) {
        /* One unit more, so that the range can begin at a multiple of a unit. */
        size_t bytes = (units + 1) * SA_UNIT_BYTES;
        char *range = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (range == MAP_FAILED)
            continue;
        size_t books = sa_books_bytes(units);
        void *book = mmap(NULL, books, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (book == MAP_FAILED) {
            munmap(range, bytes);
            return -1;
        }
        size_t head = (SA_UNIT_BYTES - (uintptr_t)range % SA_UNIT_BYTES) % SA_UNIT_BYTES;
        if (head > 0)
            munmap(range, head);
        munmap(range + head + units * SA_UNIT_BYTES, SA_UNIT_BYTES - head);
        arena->range = range + head;
        arena->unit_limit = (uint32_t)units;
        arena->unit_used = book;
        arena->unit_slab = (uint16_t *)((char *)book + units / 8);
        arena->unit_pages = (uint8_t *)(arena->unit_slab + units);
        /* Huge pages would keep two megabytes for one small block. */
        madvise(arena->range, units * SA_UNIT_BYTES, MADV_NOHUGEPAGE);
        return 0;
    }
    return -1;
}

/* The first of `count` free units in a row from the hint on and below a limit, or UINT32_MAX. */
static uint32_t find_run(const sa_arena *arena, uint32_t count, uint32_t limit) {
    uint32_t unit = arena->unit_hint;
    while (unit < limit && limit - unit >= count) {
        uint64_t free_bits = ~arena->unit_used[unit >> 6] >> (unit & 63);
        if (free_bits == 0) {
            unit = (unit | 63) + 1;
            continue;
        }
        unit += (uint32_t)__builtin_ctzll(free_bits);
        uint32_t length = 1;
        while (length < count && unit + length < limit && !is_used(arena, unit + length))
            length++;
        if (length == count && unit + count <= limit)
            return unit;
        unit += length;
    }
    return UINT32_MAX;
}

static int make_writable_slow(sa_arena *arena, uint32_t end) {
    uint64_t wanted = end + arena->unit_writable / 4 + WRITABLE_STEP_UNITS;
    uint64_t units = wanted < arena->unit_limit ? wanted : arena->unit_limit;
    for (;;) {
        char *from = sa_unit_start(arena, arena->unit_writable);
        size_t bytes = (units - arena->unit_writable) * SA_UNIT_BYTES;
        if (mprotect(from, bytes, PROT_READ | PROT_WRITE) == 0) {
            arena->unit_writable = (uint32_t)units;
            return 0;
        }
        if (units == end)
            return -1;
        units = end;
    }
}

/* Where units begin that only stubs may have. */
static uint32_t stub_units_start(const sa_arena *arena) { return arena->unit_limit - arena->unit_limit / STUB_SHARE; }

uint64_t sa_units_bytes_max(const sa_arena *arena) {
    /* One unit is that of the stub, or of the meta. */
    uint32_t units = stub_units_start(arena);
    return units > 0 ? (uint64_t)(units - 1) * SA_UNIT_BYTES : 0;
}

uint32_t sa_units_take(sa_arena *arena, uint32_t count, int is_for_stubs) {
    if (arena->range == NULL && sa_units_reserve_slow(arena) != 0)
        return UINT32_MAX;
    uint32_t unit = find_run(arena, count, is_for_stubs ? arena->unit_limit : stub_units_start(arena));
    if (unit == UINT32_MAX || (unit + count > arena->unit_writable && make_writable_slow(arena, unit + count) != 0))
        return UINT32_MAX;
    set_used(arena, unit, count, 1);
    if (unit == arena->unit_hint)
        arena->unit_hint = unit + count;
    for (uint32_t at = unit; at < unit + count; at++)
        arena->free_dirty_bytes -= (int64_t)arena->unit_pages[at] << arena->page_shift;
    return unit;
}

void sa_units_give(sa_arena *arena, uint32_t unit, uint32_t count) {
    set_used(arena, unit, count, 0);
    if (unit < arena->unit_hint)
        arena->unit_hint = unit;
    for (uint32_t at = unit; at < unit + count; at++)
        arena->free_dirty_bytes += (int64_t)arena->unit_pages[at] << arena->page_shift;
    if (arena->free_dirty_bytes > DIRTY_BYTES_KEPT + arena->resident_bytes / DIRTY_SHARE)
        sa_units_purge_slow(arena, INT64_MAX);
}

void sa_units_touch(sa_arena *arena, uint32_t unit, uint64_t start, uint64_t end) {
    for (uint32_t at = (uint32_t)(start >> 16); ((uint64_t)at << 16) < end; at++) {
        uint64_t within = end - ((uint64_t)at << 16);
        within = within < SA_UNIT_BYTES ? within : SA_UNIT_BYTES;
        unsigned pages = (unsigned)((within + arena->page_bytes - 1) >> arena->page_shift);
        if (pages > arena->unit_pages[unit + at]) {
            arena->resident_bytes += (int64_t)(pages - arena->unit_pages[unit + at]) << arena->page_shift;
            arena->unit_pages[unit + at] = (uint8_t)pages;
        }
    }
}

/* Give back the pages of `unit` beyond the first `keep`. Returns the bytes. */
static int64_t drop_pages(sa_arena *arena, uint32_t unit, unsigned keep) {
    unsigned pages = arena->unit_pages[unit];
    if (pages <= keep)
        return 0;
    int64_t bytes = (int64_t)(pages - keep) << arena->page_shift;
    if (madvise(sa_unit_start(arena, unit) + ((size_t)keep << arena->page_shift), (size_t)bytes, MADV_DONTNEED) != 0)
        return 0;
    arena->unit_pages[unit] = (uint8_t)keep;
    arena->resident_bytes -= bytes;
    return bytes;
}

void sa_units_untouch(sa_arena *arena, uint32_t unit, uint32_t count, uint64_t end) {
    for (uint32_t at = 0; at < count; at++) {
        uint64_t start = (uint64_t)at << 16;
        uint64_t kept = end <= start ? 0 : end - start < SA_UNIT_BYTES ? end - start : SA_UNIT_BYTES;
        drop_pages(arena, unit + at, (unsigned)((kept + arena->page_bytes - 1) >> arena->page_shift));
    }
}

/* A run of dirty units is given back in one system call: each whole, since a page without memory costs nothing
 * there. From the top, since units are taken from the bottom. */
int sa_units_purge_slow(sa_arena *arena, int64_t byte_budget) {
    uint32_t end = arena->unit_writable;
    while (end > arena->unit_hint && arena->free_dirty_bytes > 0) {
        if (is_used(arena, end - 1) || arena->unit_pages[end - 1] == 0) {
            end--;
            continue;
        }
        if (byte_budget <= 0)
            return 1;
        uint32_t unit = end;
        int64_t bytes = 0;
        while (unit > arena->unit_hint && !is_used(arena, unit - 1) && arena->unit_pages[unit - 1] > 0 &&
               bytes < byte_budget)
            bytes += (int64_t)arena->unit_pages[--unit] << arena->page_shift;
        if (madvise(sa_unit_start(arena, unit), (size_t)(end - unit) * SA_UNIT_BYTES, MADV_DONTNEED) != 0)
            return 0;
        memset(arena->unit_pages + unit, 0, end - unit);
        arena->resident_bytes -= bytes;
        arena->free_dirty_bytes -= bytes;
        byte_budget -= bytes;
        end = unit;
    }
    return 0;
}
