/* page_store.h - where evicted pages that nothing can regenerate are kept, packed: a warm arena in memory, then files.
 *
 * Words: a *place* is where a packed page lies: a *segment* and its first sector; segment 0 is the *warm* arena, others are
 * *files* without a name; the *active* one is written, *sealed* ones are only read, since a forked process reads them too.
 *
 *   table    | page + 1, place, check, length | ...   2^n entries of 24 bytes, open addressing; a first word of 0 is empty
 *   place    | segment 8 bits | sector 56 bits |      it takes ceil(length / 512) sectors, 1 to 8
 *   spares   one stack for each number of sectors, of the warm arena and of the active file: places to use again
 *
 * Invariants (sa_page_store_check tests 1 to 3, of the second the sums):
 *   1. count is the number of entries in use, at most 5 of 8; between the home of a page and its entry none is empty.
 *   2. live_sectors of a segment is the sum over the entries that lie in it; no two of them share a sector.
 *   3. What lies in a sealed segment is never written again; one without live sectors is closed.
 *   4. Nothing is read from or written to a descriptor that is no longer the file it was.
 *   5. sa_page_store_put keeps the old bytes of a page until the new ones are safe: if it fails nothing has changed.
 *
 * Threads: none of its own; the caller holds a lock. Memory is mapped, never allocated by malloc: the caller may be a signal
 * handler, or serve a thread that is inside malloc.
 * Cost: a page 3 to 10 us and, when the warm arena is full, a system call. Memory: 38 to 77 bytes a page in it.
 */
#ifndef SA_PAGE_STORE_H
#define SA_PAGE_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "page_pack.h"

enum {
    SA_STORE_SEGMENTS_MAX = 32,
    SA_STORE_MERGE_FROM = 16, /* segments in use at which a seal first moves what is left in sealed ones together */
    SA_STORE_SIZES = SA_PAGE_BYTES / SA_SECTOR_BYTES,
    SA_STORE_PATH_BYTES = 4096
};

typedef struct sa_packed {
    uint64_t mark; /* page + 1, 0 in an empty entry */
    uint64_t place;
    uint32_t check; /* CRC-32C of the packed bytes */
    uint32_t length;
} sa_packed;

typedef struct sa_spares {
    uint64_t *sectors;
    uint64_t count, capacity;
} sa_spares;

typedef struct sa_segment {
    int fd; /* -1: not in use; the warm arena has none */
    uint64_t device, inode; /* of the file: a program that closes what it has not opened gives our number to another */
    uint64_t end_sectors, live_sectors;
} sa_segment;

typedef struct sa_page_store {
    sa_packed *table;
    uint64_t count;
    uint32_t bits;
    uint32_t active; /* segment, 0 if no file is being written */
    uint32_t item_bytes;
    int error; /* errno of the last put that failed */
    uint8_t *warm;
    uint64_t warm_sectors;  /* most that may be used */
    uint64_t limit_sectors; /* of all files together */
    uint64_t failures;
    sa_spares spares[2][SA_STORE_SIZES]; /* of the warm arena, of the active file */
    sa_segment segments[SA_STORE_SEGMENTS_MAX];
    sa_page_scratch *scratch;
    char directory[SA_STORE_PATH_BYTES];
} sa_page_store;

_Static_assert(sizeof(sa_packed) == 24, "no padding");

/* 0, or -1 without memory. item_bytes as sa_page_pack takes them; directory exists; scratch is the caller's. */
int sa_page_store_open(sa_page_store *store, const char *directory, uint32_t item_bytes, uint64_t warm_bytes,
                       uint64_t limit_bytes, sa_page_scratch *scratch);
void sa_page_store_close(sa_page_store *store);

/* The entry of a page, or NULL. */
const sa_packed *sa_page_store_find(const sa_page_store *store, uint64_t page);

/* Keep the bytes of a page, in place of older ones. 0; -1 and `error` if memory or disk refuse. */
int sa_page_store_put(sa_page_store *store, uint64_t page, const uint8_t *bytes);

/* Read the bytes of an entry. 0; -1 if the disk fails or the bytes are damaged. */
int sa_page_store_get(sa_page_store *store, const sa_packed *packed, uint8_t *bytes);

/* Forget a page; nothing if it is not here. */
void sa_page_store_remove(sa_page_store *store, uint64_t page);

/* Before a fork: what is on disk now is only read from here on, by both processes. */
void sa_page_store_seal(sa_page_store *store);

/* Memory beside the warm arena; bytes of the files. */
uint64_t sa_page_store_memory_bytes(const sa_page_store *store);
uint64_t sa_page_store_disk_bytes(const sa_page_store *store);

/* 0, or the number of the first invariant that is broken. O(entries). */
int sa_page_store_check(const sa_page_store *store);

#endif
