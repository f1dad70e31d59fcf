/* touch_space.h - a GenerativeSpace as the source of an array on touch, and what of a page are edits.
 *
 * Words as in generator.h, overlay.h and touch.h; an *item* is one value of the array.
 *
 *   item i of the array   <->   address start + i of the space: what the generator gives there, or the edit
 *
 * Invariants:
 *   1. sa_touch_space_fill gives what GenerativeSpace.fill gives, or says SA_TOUCH_BUSY.
 *   2. sa_touch_space_diff names exactly the items of which the bytes are not those of fill.
 *
 * Threads: any; generator and overlay must outlive the source. Nothing waits, nothing is allocated.
 * Cost: under 1 ns an item; with edits nearby see overlay_bulk.h.
 */
#ifndef SA_TOUCH_SPACE_H
#define SA_TOUCH_SPACE_H

#include "generator.h"
#include "overlay.h"
#include "touch.h"

typedef struct sa_touch_space {
    const sa_generator *generator;
    sa_overlay *overlay;
    uint64_t start;
} sa_touch_space;

/* What an address should be set to: an edit, or none where the value is the generated one. */
typedef struct sa_touch_edits {
    uint64_t *addresses, *raws;
    uint8_t *removed;
    size_t count;
} sa_touch_edits;

/* An sa_touch_fill; context is a sa_touch_space. */
int sa_touch_space_fill(void *context, uint64_t offset, uint8_t *out, size_t bytes);

/* Append to edits the items in which `bytes` bytes from an offset, at most a page, differ from the space. 0 or SA_TOUCH_BUSY. */
int sa_touch_space_diff(const sa_touch_space *space, uint64_t offset, const uint8_t *page, size_t bytes,
                        sa_touch_edits *edits);

#endif
