/* touch_windows.c - the records of windows and the ring they leave by. Words and invariants: touch.h. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "touch.h"

enum { WINDOW_BITS_MIN = 7 };

static void *mapped(uint64_t bytes) {
    void *made = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return made == MAP_FAILED ? NULL : made;
}

static uint64_t mask_of(const sa_region *region) { return ((uint64_t)1 << region->window_bits) - 1; }

static uint64_t home_of(const sa_region *region, uint64_t window) {
    return window * 0x9E3779B97F4A7C15u >> (64 - region->window_bits);
}

static sa_window *record_of(const sa_region *region, uint64_t window) {
    uint64_t at = home_of(region, window);
    while (region->windows[at].mark != window + 1 && region->windows[at].mark != 0) at = (at + 1) & mask_of(region);
    return &region->windows[at];
}

int sa_windows_open(sa_region *region) {
    region->window_bits = WINDOW_BITS_MIN;
    region->windows = mapped(sizeof(sa_window) << WINDOW_BITS_MIN);
    region->ring = mapped(sizeof(uint64_t) << WINDOW_BITS_MIN);
    return region->windows != NULL && region->ring != NULL ? 0 : -1;
}

void sa_windows_close(sa_region *region) {
    if (region->windows != NULL) munmap(region->windows, sizeof(sa_window) << region->window_bits);
    if (region->ring != NULL) munmap(region->ring, sizeof(uint64_t) << region->window_bits);
}

sa_window *sa_window_find(const sa_region *region, uint64_t window) {
    sa_window *record = record_of(region, window);
    return record->mark == 0 ? NULL : record;
}

/* Twice the room. 0, or -1 without memory. */
static int grow_slow(sa_region *region) {
    uint64_t size = (uint64_t)1 << region->window_bits;
    sa_window *old = region->windows, *windows = mapped(2 * size * sizeof *windows);
    uint64_t *ring = mapped(2 * size * sizeof *ring);
    if (windows == NULL || ring == NULL) {
        if (windows != NULL) munmap(windows, 2 * size * sizeof *windows);
        if (ring != NULL) munmap(ring, 2 * size * sizeof *ring);
        return -1;
    }
    for (uint64_t i = 0; i < region->window_count; i++) ring[i] = region->ring[(region->ring_head + i) & (size - 1)];
    munmap(region->ring, size * sizeof *ring);
    region->ring = ring;
    region->ring_head = 0;
    region->windows = windows;
    region->window_bits++;
    for (uint64_t i = 0; i < size; i++) {
        if (old[i].mark != 0) *record_of(region, old[i].mark - 1) = old[i];
    }
    munmap(old, size * sizeof *old);
    return 0;
}

sa_window *sa_window_make(sa_region *region, uint64_t window) {
    sa_window *record = record_of(region, window);
    if (record->mark != 0) return record;
    if ((region->window_count + 1) * 8 > ((uint64_t)5 << region->window_bits)) {
        if (grow_slow(region) != 0) return NULL;
        record = record_of(region, window);
    }
    *record = (sa_window){window + 1, 0, 0, 0};
    region->ring[(region->ring_head + region->window_count++) & mask_of(region)] = window;
    return record;
}

sa_window *sa_window_take_oldest(sa_region *region) {
    uint64_t window = region->ring[region->ring_head];
    region->ring_head = (region->ring_head + 1) & mask_of(region);
    region->window_count--;
    return record_of(region, window);
}

void sa_window_renew(sa_region *region, uint64_t window) {
    region->ring[(region->ring_head + region->window_count++) & mask_of(region)] = window;
}

/* Records behind the gap move up, if the gap lies between their home and them. */
void sa_window_forget(sa_region *region, sa_window *record) {
    uint64_t mask = mask_of(region), gap = (uint64_t)(record - region->windows), at = gap;
    for (;;) {
        at = (at + 1) & mask;
        if (region->windows[at].mark == 0) break;
        uint64_t home = home_of(region, region->windows[at].mark - 1);
        if (((at - home) & mask) < ((at - gap) & mask)) continue;
        region->windows[gap] = region->windows[at];
        gap = at;
    }
    region->windows[gap] = (sa_window){0};
}

int sa_windows_check(const sa_region *region) {
    uint64_t records = 0, pages = 0;
    for (uint64_t i = 0; i >> region->window_bits == 0; i++) {
        const sa_window *record = &region->windows[i];
        if (record->mark == 0) continue;
        if (record_of(region, record->mark - 1) != record || (record->dirty & ~record->resident) != 0) return 1;
        records++;
        pages += (uint64_t)__builtin_popcountll(record->resident);
    }
    if (records != region->window_count || pages != region->pages) return 1;
    for (uint64_t i = 0; i < region->window_count; i++) {
        if (sa_window_find(region, region->ring[(region->ring_head + i) & mask_of(region)]) == NULL) return 1;
    }
    return 0;
}
