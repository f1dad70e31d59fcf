/* touch.c - what happens to pages: filled, written, evicted, carried. Words, invariants, threads and cost: touch.h. */
#include "touch.h"

#include <errno.h>
#include <string.h>

enum { PLACE_ATTEMPTS = 4 };

static const uint64_t ALL_PAGES = ~(uint64_t)0;

sa_touch_engine sa_touch = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t least(uint64_t one, uint64_t other) { return one < other ? one : other; }

/* Bits first .. first + count - 1 of a window, count at least 1. */
static uint64_t bits_of(uint64_t first, uint64_t count) {
    return (count == SA_WINDOW_PAGES ? ALL_PAGES : ((uint64_t)1 << count) - 1) << first;
}

static uint64_t bit_of(uint64_t page) { return (uint64_t)1 << page % SA_WINDOW_PAGES; }

static uint64_t first_bit(uint64_t bits) { return (uint64_t)__builtin_ctzll(bits); }

/* From the first to behind the last bit. */
static uint64_t extent(uint64_t bits) { return (uint64_t)(64 - __builtin_clzll(bits)) - first_bit(bits); }

/* How many bits are set without a gap, from `from` on. */
static uint64_t run_length(uint64_t bits, uint64_t from) {
    uint64_t rest = ~(bits >> from);
    return rest == 0 ? SA_WINDOW_PAGES : (uint64_t)__builtin_ctzll(rest);
}

static int edges(uint64_t bits) { return __builtin_popcountll(bits ^ bits << 1) + (int)(bits >> 63); }

/* Every change of resident and dirty goes through here, which keeps the sums. */
static void set_state(sa_region *region, sa_window *record, uint64_t resident, uint64_t dirty) {
    sa_touch.splits += edges(resident) + edges(dirty) - edges(record->resident) - edges(record->dirty);
    region->pages += (uint64_t)__builtin_popcountll(resident) - (uint64_t)__builtin_popcountll(record->resident);
    record->resident = resident;
    record->dirty = dirty;
}

/* ---- eviction --------------------------------------------------------------------------------------------------- */

static size_t bytes_in_page(const sa_region *region, uint64_t page, uint64_t count) {
    return (size_t)least(count * SA_PAGE_BYTES, region->bytes - page * SA_PAGE_BYTES);
}

/* What the source gives for pages. 0 or SA_TOUCH_BUSY. */
static int ask_source(const sa_region *region, uint64_t page, uint64_t count, uint8_t *out) {
    size_t length = bytes_in_page(region, page, count);
    memset(out + length, 0, count * SA_PAGE_BYTES - length);
    if (region->source.fill != NULL) return region->source.fill(region->source.context, page * SA_PAGE_BYTES, out, length);
    memset(out, 0, length);
    return 0;
}

/* Put a dirty page, which nobody can write now, into the store, unless the source gives it back. 0, -1 if it is refused. */
static int save_page(sa_region *region, uint64_t page) {
    const uint8_t *bytes = region->base + page * SA_PAGE_BYTES;
    if (ask_source(region, page, 1, sa_touch.page_bytes) == 0 && memcmp(bytes, sa_touch.page_bytes, SA_PAGE_BYTES) == 0) {
        sa_page_store_remove(&region->store, page);
        region->figures.regrown++;
        return 0;
    }
    region->figures.packed++;
    return sa_page_store_put(&region->store, page, bytes);
}

/* Nobody can write the dirty pages of a window any more. Under SIGNAL a missing page must not become readable by that. */
static void protect_dirty(sa_region *region, const sa_window *record) {
    uint64_t start = (record->mark - 1) * SA_WINDOW_PAGES, left = record->dirty;
    if (sa_touch.way != SA_TOUCH_SIGNAL) {
        sa_touch.ops->protect(region, start + first_bit(left), extent(left));
        return;
    }
    while (left != 0) {
        uint64_t first = first_bit(left), count = run_length(left, first);
        sa_touch.ops->protect(region, start + first, count);
        left &= ~bits_of(first, count);
    }
}

/* Save the dirty pages of a window; returns the bits of those that the store refuses. */
static uint64_t save_dirty(sa_region *region, const sa_window *record) {
    uint64_t start = (record->mark - 1) * SA_WINDOW_PAGES, refused = 0;
    protect_dirty(region, record);
    for (uint64_t left = record->dirty; left != 0; left &= left - 1) {
        if (save_page(region, start + first_bit(left)) != 0) refused |= left & -left;
    }
    return refused;
}

static void drop_pages(sa_region *region, uint64_t window, uint64_t bits) {
    uint64_t start = window * SA_WINDOW_PAGES;
    while (bits != 0) {
        uint64_t first = first_bit(bits), count = run_length(bits, first);
        sa_touch.ops->drop(region, start + first, count);
        bits &= ~bits_of(first, count);
    }
}

/* The oldest window leaves, but for pages that the store refuses. Returns how many pages left. */
static uint64_t evict_oldest(sa_region *region) {
    sa_window *record = sa_window_take_oldest(region);
    uint64_t window = record->mark - 1;
    if (region->pinned == record->mark) {
        sa_window_renew(region, window);
        return 0;
    }
    uint64_t kept = record->dirty != 0 ? save_dirty(region, record) : 0, gone = record->resident & ~kept;
    if (kept != 0) drop_pages(region, window, gone);
    else if (gone != 0) sa_touch.ops->drop(region, window * SA_WINDOW_PAGES + first_bit(gone), extent(gone));
    set_state(region, record, kept, kept);
    region->figures.evicted += (uint64_t)__builtin_popcountll(gone);
    if (kept != 0) sa_window_renew(region, window);
    else sa_window_forget(region, record);
    return (uint64_t)__builtin_popcountll(gone);
}

int sa_region_shrink(sa_region *region, uint64_t pages) {
    for (uint64_t tries = region->window_count; tries != 0 && region->pages > pages; tries--) evict_oldest(region);
    return region->pages > pages ? -1 : 0;
}

static void make_room(sa_region *region, uint64_t count) {
    uint64_t tries = region->window_count;
    if (region->pages + count > region->pages_max) {
        sa_region_shrink(region, region->pages_max > count ? region->pages_max - count : 0);
    }
    if (sa_touch.way != SA_TOUCH_SIGNAL) return;
    while (sa_touch.splits > SA_TOUCH_SPLITS_MAX && tries-- != 0 && region->window_count != 0) evict_oldest(region);
}

int sa_region_pack_all(sa_region *region) {
    int result = 0;
    for (uint64_t i = 0; i >> region->window_bits == 0; i++) {
        sa_window *record = &region->windows[i];
        if (record->mark == 0 || record->dirty == 0) continue;
        uint64_t refused = save_dirty(region, record);
        set_state(region, record, record->resident, refused);
        if (refused != 0) result = -1;
    }
    return result;
}

void sa_region_empty(sa_region *region) {
    for (uint64_t i = 0; i >> region->window_bits == 0; i++) {
        if (region->windows[i].mark != 0) set_state(region, &region->windows[i], 0, 0);
    }
}

/* ---- filling ---------------------------------------------------------------------------------------------------- */

/* Put what pages hold into out; returns how many of them, from the first on, could be had, or -1 if the source is busy. */
static int64_t contents(sa_region *region, uint64_t page, uint64_t count, uint8_t *out) {
    const sa_packed *packed = sa_page_store_find(&region->store, page);
    if ((count > 1 || packed == NULL) && ask_source(region, page, count, out) != 0) return -1;
    for (uint64_t i = 0; i < count && region->store.count != 0; i++) {
        packed = sa_page_store_find(&region->store, page + i);
        if (packed == NULL) continue;
        if (sa_page_store_get(&region->store, packed, out + i * SA_PAGE_BYTES) != 0) return (int64_t)i;
        region->figures.unpacked++;
    }
    return (int64_t)count;
}

/* Place pages at addresses that have none. 0, or -1 if there is no memory for them now. */
static int place_pages(sa_region *region, uint64_t page, uint64_t count, const uint8_t *bytes, int is_writable) {
    uint64_t done = 0;
    for (int attempt = 0; done < count && attempt < PLACE_ATTEMPTS;) {
        int64_t some = sa_touch.ops->place(region, page + done, count - done, bytes + done * SA_PAGE_BYTES, is_writable);
        if (some > 0) done += (uint64_t)some;
        else if (some == -ENOMEM) sa_region_shrink(region, region->pages / 2);
        if (some <= 0) attempt++;
    }
    return done == count ? 0 : -1;
}

/* Bring in pages of one window that are missing. LOST if the first of them cannot be read; others are then left out. */
static sa_touch_result fill_pages(sa_region *region, uint64_t first, uint64_t count, int is_writable) {
    make_room(region, count);
    sa_window *record = sa_window_make(region, first / SA_WINDOW_PAGES);
    if (record == NULL) {
        sa_region_shrink(region, region->pages / 2);
        return SA_TOUCH_BUSY;
    }
    uint64_t wanted = bits_of(first % SA_WINDOW_PAGES, count) & ~record->resident, start = first - first % SA_WINDOW_PAGES;
    while (wanted != 0) {
        uint64_t at = first_bit(wanted), run = run_length(wanted, at);
        int64_t ready = contents(region, start + at, run, sa_touch.window_bytes);
        if (ready < 0) return SA_TOUCH_BUSY;
        if (ready == 0) return SA_TOUCH_LOST;
        if (place_pages(region, start + at, (uint64_t)ready, sa_touch.window_bytes, is_writable) != 0) return SA_TOUCH_BUSY;
        record = sa_window_make(region, first / SA_WINDOW_PAGES);
        if (record == NULL) return SA_TOUCH_BUSY;
        uint64_t placed = bits_of(at, (uint64_t)ready), dirty = is_writable ? placed : 0;
        set_state(region, record, record->resident | placed, record->dirty | dirty);
        record->carried &= ~dirty;
        region->figures.filled += (uint64_t)ready;
        if ((uint64_t)ready < run) return SA_TOUCH_LOST;
        wanted &= ~placed;
    }
    return SA_TOUCH_DONE;
}

static int is_resident(const sa_region *region, uint64_t page) {
    const sa_window *record = sa_window_find(region, page / SA_WINDOW_PAGES);
    return record != NULL && (record->resident & bit_of(page)) != 0;
}

sa_touch_result sa_region_populate(sa_region *region, uint64_t page, uint64_t count) {
    for (uint64_t end = page + count; page < end;) {
        uint64_t some = least(end - page, SA_WINDOW_PAGES - page % SA_WINDOW_PAGES);
        sa_touch_result result = fill_pages(region, page, some, 0);
        if (result != SA_TOUCH_DONE) return result;
        page += some;
    }
    return SA_TOUCH_DONE;
}

/* ---- faults ----------------------------------------------------------------------------------------------------- */

sa_region *sa_touch_region_of(const void *address) {
    for (uint32_t i = 0; i < sa_touch.region_count; i++) {
        sa_region *region = sa_touch.regions[i];
        if ((uintptr_t)address - (uintptr_t)region->base < region->page_count * SA_PAGE_BYTES) return region;
    }
    return NULL;
}

/* The stream that a fault continues, or the one that was idle for longest, begun anew. */
static sa_stream *stream_of(sa_region *region, uint64_t page, int is_write) {
    sa_stream *idle = &region->streams[0];
    for (int i = 0; i < SA_STREAMS; i++) {
        sa_stream *stream = &region->streams[i];
        int is_next = stream->width != 0 && (page == stream->high || page + 1 == stream->low);
        if (is_next && stream->is_writing == is_write) return stream;
        if (stream->used < idle->used) idle = stream;
    }
    *idle = (sa_stream){.low = page + 1, .high = page, .is_writing = is_write};
    return idle;
}

static uint32_t grown(const sa_region *region, uint32_t width) {
    uint64_t most = least(region->pages_max / 4, SA_WINDOW_PAGES);
    return (uint32_t)least(width == 0 ? 1 : width * SA_TOUCH_GROWTH, most);
}

static uint32_t grown_ahead(const sa_region *region, uint32_t ahead) {
    uint64_t most = least(region->pages_max / (8 * SA_WINDOW_PAGES), SA_TOUCH_AHEAD_MAX);
    return (uint32_t)least(ahead + 1, most);
}

sa_touch_result sa_region_serve(sa_region *region, uint64_t page, int is_write, sa_stream **stream) {
    if (is_resident(region, page)) {
        sa_touch.ops->wake(region, page);
        return SA_TOUCH_DONE;
    }
    sa_stream *own = stream_of(region, page, is_write);
    uint32_t width = grown(region, own->width);
    uint64_t window_start = page - page % SA_WINDOW_PAGES, first = page, count = 1;
    if (own->width != 0 && page == own->high) {
        count = least(width, least(window_start + SA_WINDOW_PAGES, region->page_count) - page);
    } else if (own->width != 0) {
        first = page + 1 >= window_start + width ? page + 1 - width : window_start;
        count = page + 1 - first;
    }
    sa_touch_result result = fill_pages(region, first, count, is_write);
    if (result == SA_TOUCH_LOST && !is_resident(region, page)) result = fill_pages(region, page, 1, is_write);
    if (result == SA_TOUCH_BUSY || (result == SA_TOUCH_LOST && !is_resident(region, page))) return result;
    own->used = ++region->figures.faults;
    own->width = width;
    own->low = first;
    own->high = first + count;
    if (width < SA_WINDOW_PAGES || first != page) return SA_TOUCH_DONE;
    own->ahead = grown_ahead(region, own->ahead);
    *stream = own;
    return own->ahead != 0 ? SA_TOUCH_AHEAD : SA_TOUCH_DONE;
}

sa_touch_result sa_region_fill_ahead(sa_region *region, sa_stream *stream) {
    uint64_t page = stream->high;
    if (page >= region->page_count) return SA_TOUCH_LOST;
    uint64_t count = least(SA_WINDOW_PAGES - page % SA_WINDOW_PAGES, region->page_count - page);
    sa_touch_result result = fill_pages(region, page, count, stream->is_writing);
    if (result != SA_TOUCH_DONE) return result;
    stream->high += count;
    region->figures.ahead += count;
    return SA_TOUCH_DONE;
}

void sa_region_serve_write(sa_region *region, uint64_t page) {
    sa_window *record = sa_window_find(region, page / SA_WINDOW_PAGES);
    if (record == NULL || (record->resident & bit_of(page)) == 0) {
        sa_touch.ops->wake(region, page);
        return;
    }
    uint64_t at = page % SA_WINDOW_PAGES;
    region->write_width = page == region->write_next ? grown(region, region->write_width) : 1;
    uint64_t count = least(region->write_width, run_length(record->resident, at));
    count = least(count, SA_WINDOW_PAGES - at);
    set_state(region, record, record->resident, record->dirty | bits_of(at, count));
    record->carried &= ~bits_of(at, count);
    region->write_next = page + count;
    region->figures.write_faults++;
    sa_touch.ops->unprotect(region, page, count);
}

/* ---- edits ------------------------------------------------------------------------------------------------------ */

uint64_t sa_region_list_edited(const sa_region *region, uint64_t *windows, uint64_t room) {
    uint64_t count = 0;
    for (uint64_t i = 0; i >> region->window_bits == 0; i++) {
        const sa_window *record = &region->windows[i];
        if (record->mark == 0 || record->dirty == 0) continue;
        if (count < room) windows[count] = record->mark - 1;
        count++;
    }
    for (uint64_t i = 0; i >> region->store.bits == 0; i++) {
        if (region->store.table[i].mark == 0) continue;
        if (count < room) windows[count] = (region->store.table[i].mark - 1) / SA_WINDOW_PAGES;
        count++;
    }
    return count;
}

int sa_region_carry_begin(sa_region *region, uint64_t window, uint8_t *bytes, uint64_t *mask) {
    sa_window *record = sa_window_make(region, window);
    uint64_t start = window * SA_WINDOW_PAGES;
    if (record == NULL) return -1;
    *mask = record->dirty;
    if (record->dirty != 0) protect_dirty(region, record);
    for (uint64_t i = 0; i < SA_WINDOW_PAGES; i++) {
        uint8_t *out = bytes + i * SA_PAGE_BYTES;
        const sa_packed *packed = sa_page_store_find(&region->store, start + i);
        if (packed == NULL && (record->dirty >> i & 1) == 0) continue;
        *mask |= (uint64_t)1 << i;
        if (record->resident >> i & 1) memcpy(out, region->base + (start + i) * SA_PAGE_BYTES, SA_PAGE_BYTES);
        else if (sa_page_store_get(&region->store, packed, out) != 0) return -1;
    }
    record->carried = *mask;
    region->pinned = window + 1;
    return 0;
}

void sa_region_carry_end(sa_region *region, uint64_t window, uint64_t mask, int is_done) {
    sa_window *record = sa_window_find(region, window);
    region->pinned = 0;
    if (record == NULL) return;
    uint64_t arrived = is_done ? record->carried & mask : 0;
    set_state(region, record, record->resident, record->dirty & ~arrived);
    for (uint64_t left = arrived; left != 0; left &= left - 1) {
        sa_page_store_remove(&region->store, window * SA_WINDOW_PAGES + first_bit(left));
    }
    record->carried = 0;
    sa_region_shrink(region, region->pages_max);
}

sa_touch_result sa_region_refresh(sa_region *region, uint64_t offset, const uint8_t *bytes, uint32_t length) {
    uint64_t page = offset / SA_PAGE_BYTES;
    const sa_packed *packed = sa_page_store_find(&region->store, page);
    sa_window *record = sa_window_find(region, page / SA_WINDOW_PAGES);
    int is_here = record != NULL && (record->resident & bit_of(page)) != 0;
    if (!is_here && packed == NULL) return SA_TOUCH_DONE;
    if (is_here && packed == NULL && (record->dirty & bit_of(page)) == 0) {
        sa_touch.ops->drop(region, page, 1);
        set_state(region, record, record->resident & ~bit_of(page), record->dirty);
        region->figures.dropped++;
        return SA_TOUCH_DONE;
    }
    if (!is_here) {
        sa_touch_result result = fill_pages(region, page, 1, 1);
        if (result != SA_TOUCH_DONE) return result;
        record = sa_window_find(region, page / SA_WINDOW_PAGES);
    }
    record->carried &= ~bit_of(page);
    sa_touch.ops->unprotect(region, page, 1);
    set_state(region, record, record->resident, record->dirty | bit_of(page));
    memcpy(region->base + offset, bytes, length);
    return SA_TOUCH_DONE;
}

/* ---- figures ---------------------------------------------------------------------------------------------------- */

int sa_region_check(const sa_region *region) {
    if (sa_windows_check(region) != 0) return 1;
    if (sa_page_store_check(&region->store) != 0) return 2;
    return region->pages > region->pages_max && region->store.failures == 0 && region->pinned == 0 ? 3 : 0;
}

uint64_t sa_region_overhead_bytes(const sa_region *region) {
    return ((sizeof(sa_window) + sizeof(uint64_t)) << region->window_bits) + sa_page_store_memory_bytes(&region->store);
}
