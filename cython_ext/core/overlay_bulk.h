/* overlay_bulk.h - arrays against the edits: lay edits over what was generated, write and remove many.
 *
 * Words as in overlay.h; a *patch* puts the raw values of edits into an array of values (`value_bytes` of 4 or 8 each).
 *
 *   patch    values of a page's worth of addresses under the read lock, then the lock is given up for a moment
 *   scatter  a page's worth of edits under the write lock, then the same; their slots are fetched ahead of need
 *
 * Invariants:
 *   1. `lock` is held for at most SA_PAGE_ADDRESSES edits at a time, so nobody waits longer than for that.
 *   2. A reader sees every edit that was complete before it started, and none in halves.
 *   3. The last of several edits of one address in one scatter wins.
 *
 * Threads: patches from any number; sa_overlay_scatter and sa_overlay_erase by the holder of `writing`.
 * Cost: patch 0.1 ns a value where pages are clean, a look-up (10 to 50 ns) where they are dirty; scatter 10 to 30 ns an edit.
 */
#ifndef SA_OVERLAY_BULK_H
#define SA_OVERLAY_BULK_H

#include "overlay.h"

/* Element i of out belongs to address start + i * step. */
void sa_overlay_patch_fill(sa_overlay *overlay, uint64_t start, uint64_t step, void *out, size_t count, size_t value_bytes);

/* The same with step 1, but never waits: -1 if somebody writes now, and then out is patched in part. Else 0. */
int sa_overlay_try_patch_fill(sa_overlay *overlay, uint64_t start, void *out, size_t count, size_t value_bytes);

/* Element i of out belongs to addresses[i]. */
void sa_overlay_patch_gather(sa_overlay *overlay, const uint64_t *addresses, void *out, size_t count, size_t value_bytes);

/* Write count edits, for which sa_overlay_reserve has made room. removed[i] != 0 removes instead; NULL removes none. */
void sa_overlay_scatter(sa_overlay *overlay, const uint64_t *addresses, const uint64_t *raws, const uint8_t *removed,
                        size_t count);

/* 1 and *raw if the address has an edit, under the read lock. */
int sa_overlay_find_shared(sa_overlay *overlay, uint64_t address, uint64_t *raw);

#endif
