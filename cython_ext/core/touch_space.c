/* touch_space.c - spaces under arrays on touch. Words and invariants: touch_space.h. */
#define _GNU_SOURCE /* the reader-writer locks are not in C11 */
#include "touch_space.h"

#include "overlay_bulk.h"

int sa_touch_space_fill(void *context, uint64_t offset, uint8_t *out, size_t bytes) {
    const sa_touch_space *space = context;
    size_t value_bytes = space->generator->value_bytes, count = bytes / value_bytes;
    uint64_t first = space->start + offset / value_bytes;
    sa_generator_fill(space->generator, first, 1, out, count);
    return sa_overlay_try_patch_fill(space->overlay, first, out, count, value_bytes) == 0 ? 0 : SA_TOUCH_BUSY;
}

static uint64_t raw_at(const uint8_t *bytes, size_t i, size_t value_bytes) {
    uint64_t raw = 0;
    if (value_bytes == 8) {
        memcpy(&raw, bytes + 8 * i, 8);
    } else {
        uint32_t half;
        memcpy(&half, bytes + 4 * i, 4);
        raw = half;
    }
    return raw;
}

int sa_touch_space_diff(const sa_touch_space *space, uint64_t offset, const uint8_t *page, size_t bytes,
                        sa_touch_edits *edits) {
    _Alignas(64) uint8_t expected[SA_PAGE_BYTES];
    size_t value_bytes = space->generator->value_bytes;
    if (sa_touch_space_fill((void *)space, offset, expected, bytes) != 0) return SA_TOUCH_BUSY;
    if (memcmp(expected, page, bytes) == 0) return 0;
    for (size_t i = 0; i < bytes / value_bytes; i++) {
        uint64_t raw = raw_at(page, i, value_bytes), address = space->start + offset / value_bytes + i;
        if (raw == raw_at(expected, i, value_bytes)) continue;
        edits->addresses[edits->count] = address;
        edits->raws[edits->count] = raw;
        edits->removed[edits->count++] = raw == sa_generator_raw(space->generator, address);
    }
    return 0;
}
