/* overlay_bulk.c - arrays against the edits. Words, invariants, threads and cost: overlay_bulk.h. */
#include "overlay_bulk.h"

#include <string.h>

#if defined(__GNUC__)
#define SA_FETCH_AHEAD(pointer) __builtin_prefetch(pointer)
/* GCC takes a function that does nothing but fetch for one without effect, and drops calls that it has not inlined. */
#define SA_ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define SA_FETCH_AHEAD(pointer) ((void)(pointer))
#define SA_ALWAYS_INLINE inline
#endif

enum { AHEAD_COUNT = 16 };

static inline void store(void *out, size_t i, uint64_t raw, size_t value_bytes) {
    if (value_bytes == 4) {
        uint32_t half = (uint32_t)raw;
        memcpy((char *)out + 4 * i, &half, sizeof half);
    } else {
        memcpy((char *)out + 8 * i, &raw, sizeof raw);
    }
}

static SA_ALWAYS_INLINE void fetch_ahead(const sa_overlay *overlay, uint64_t address) {
    SA_FETCH_AHEAD(&overlay->table.slots[sa_table_home(&overlay->table, overlay->secret, address)]);
}

/* How many of the next addresses lie in the page of the first, at least 1. */
static size_t run_in_page(uint64_t address, uint64_t step, size_t count) {
    uint64_t offset = address % SA_PAGE_ADDRESSES, run;
    if (step - 1 < SA_PAGE_ADDRESSES) run = (SA_PAGE_ADDRESSES - 1 - offset) / step + 1;
    else if (0 - step - 1 < SA_PAGE_ADDRESSES) run = offset / (0 - step) + 1;
    else run = 1;
    return run < count ? (size_t)run : count;
}

static void patch_fill_page(const sa_overlay *overlay, uint64_t start, uint64_t step, char *out, size_t count,
                            size_t value_bytes) {
    uint64_t raw;
    for (size_t done = 0, run; done < count; done += run) {
        uint64_t address = start + done * step;
        run = run_in_page(address, step, count - done);
        if (!sa_overlay_is_dirty(overlay, address)) continue;
        for (size_t i = 0; i < run; i++) {
            if (i % (AHEAD_COUNT / 2) == 0) fetch_ahead(overlay, address + (i + AHEAD_COUNT) * step);
            if (sa_overlay_find(overlay, address + i * step, &raw)) store(out, done + i, raw, value_bytes);
        }
    }
}

void sa_overlay_patch_fill(sa_overlay *overlay, uint64_t start, uint64_t step, void *out, size_t count, size_t value_bytes) {
    for (size_t done = 0, piece; done < count; done += piece) {
        piece = count - done < SA_PAGE_ADDRESSES ? count - done : SA_PAGE_ADDRESSES;
        pthread_rwlock_rdlock(&overlay->lock);
        patch_fill_page(overlay, start + done * step, step, (char *)out + done * value_bytes, piece, value_bytes);
        pthread_rwlock_unlock(&overlay->lock);
    }
}

int sa_overlay_try_patch_fill(sa_overlay *overlay, uint64_t start, void *out, size_t count, size_t value_bytes) {
    for (size_t done = 0, piece; done < count; done += piece) {
        piece = count - done < SA_PAGE_ADDRESSES ? count - done : SA_PAGE_ADDRESSES;
        if (pthread_rwlock_tryrdlock(&overlay->lock) != 0) return -1;
        int has_edits = overlay->table.count != 0;
        if (has_edits) patch_fill_page(overlay, start + done, 1, (char *)out + done * value_bytes, piece, value_bytes);
        pthread_rwlock_unlock(&overlay->lock);
        if (!has_edits) return 0;
    }
    return 0;
}

static void patch_gather_page(const sa_overlay *overlay, const uint64_t *addresses, char *out, size_t count,
                              size_t value_bytes) {
    uint64_t raw;
    uint16_t dirty[SA_PAGE_ADDRESSES];
    size_t dirty_count = 0;
    for (size_t i = 0; i < count; i++) {
        dirty[dirty_count] = (uint16_t)i;
        dirty_count += (size_t)sa_overlay_is_dirty(overlay, addresses[i]);
    }
    for (size_t i = 0; i < dirty_count; i++) {
        if (i + AHEAD_COUNT < dirty_count) fetch_ahead(overlay, addresses[dirty[i + AHEAD_COUNT]]);
        if (sa_overlay_find(overlay, addresses[dirty[i]], &raw)) store(out, dirty[i], raw, value_bytes);
    }
}

void sa_overlay_patch_gather(sa_overlay *overlay, const uint64_t *addresses, void *out, size_t count, size_t value_bytes) {
    for (size_t done = 0, piece; done < count; done += piece) {
        piece = count - done < SA_PAGE_ADDRESSES ? count - done : SA_PAGE_ADDRESSES;
        pthread_rwlock_rdlock(&overlay->lock);
        patch_gather_page(overlay, addresses + done, (char *)out + done * value_bytes, piece, value_bytes);
        pthread_rwlock_unlock(&overlay->lock);
    }
}

static SA_ALWAYS_INLINE void fetch_place(const sa_table *table, uint64_t home, uint64_t bit) {
    SA_FETCH_AHEAD(&table->slots[home]);
    SA_FETCH_AHEAD(&table->filter[bit / 64]);
}

/* All places are worked out first, then fetched a fixed way ahead of the edit that is being made. */
static void put_page(sa_overlay *overlay, const uint64_t *addresses, const uint64_t *raws, size_t count) {
    uint64_t homes[SA_PAGE_ADDRESSES], bits[SA_PAGE_ADDRESSES];
    sa_table *table = &overlay->table;
    for (size_t i = 0; i < count; i++) {
        homes[i] = sa_table_home(table, overlay->secret, addresses[i]);
        bits[i] = sa_table_bit(table, overlay->secret, addresses[i]);
        if (i < AHEAD_COUNT) fetch_place(table, homes[i], bits[i]);
    }
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD_COUNT < count) fetch_place(table, homes[i + AHEAD_COUNT], bits[i + AHEAD_COUNT]);
        sa_table_put(table, homes[i], bits[i], addresses[i], raws[i]);
    }
}

static void put_or_remove(sa_overlay *overlay, const uint64_t *addresses, const uint64_t *raws, const uint8_t *removed,
                          size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD_COUNT < count) fetch_ahead(overlay, addresses[i + AHEAD_COUNT]);
        if (removed[i]) sa_overlay_remove(overlay, addresses[i]);
        else sa_overlay_put(overlay, addresses[i], raws[i]);
    }
}

void sa_overlay_scatter(sa_overlay *overlay, const uint64_t *addresses, const uint64_t *raws, const uint8_t *removed,
                        size_t count) {
    for (size_t done = 0, piece; done < count; done += piece) {
        piece = count - done < SA_PAGE_ADDRESSES ? count - done : SA_PAGE_ADDRESSES;
        pthread_rwlock_wrlock(&overlay->lock);
        if (removed == NULL) put_page(overlay, addresses + done, raws + done, piece);
        else put_or_remove(overlay, addresses + done, raws + done, removed + done, piece);
        pthread_rwlock_unlock(&overlay->lock);
    }
}

int sa_overlay_find_shared(sa_overlay *overlay, uint64_t address, uint64_t *raw) {
    pthread_rwlock_rdlock(&overlay->lock);
    int found = sa_overlay_find(overlay, address, raw);
    pthread_rwlock_unlock(&overlay->lock);
    return found;
}
