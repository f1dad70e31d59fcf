/* page_pack.h - one page of 4 KiB made shorter and back, without allocating: what evicted pages go through.
 *
 * Words: a *page* is SA_PAGE_BYTES bytes; its *planes* are those of shuffle.h; *packed* is what is kept of it.
 *
 *   packed   | an LZ4 block of the planes |     shorter than a page: length says so
 *            | the page itself            |     length == SA_PAGE_BYTES: what would save less than a sector stays as it is
 *
 * Invariants (tests/native/test_touch.c checks all):
 *   1. sa_page_unpack undoes sa_page_pack for every page and every item size.
 *   2. sa_page_unpack never writes outside the page nor reads outside packed, whatever packed is; it says if it is none.
 *   3. The short form is a block as the LZ4 block format has it, so that other programs can read it.
 *
 * Threads: no state but the scratch, which is the caller's: a signal handler may have no stack for it.
 * Cost: 3 to 10 us to pack a page, 1 to 2 to unpack it.
 */
#ifndef SA_PAGE_PACK_H
#define SA_PAGE_PACK_H

#include <stddef.h>
#include <stdint.h>

enum { SA_PAGE_BYTES = 4096, SA_SECTOR_BYTES = 512 };

_Static_assert(SA_PAGE_BYTES % SA_SECTOR_BYTES == 0, "a page as it is fills whole sectors");

typedef struct sa_page_scratch {
    uint8_t planes[SA_PAGE_BYTES];
    uint16_t places[2048]; /* where a hash of four bytes was seen last */
} sa_page_scratch;

_Static_assert(sizeof(sa_page_scratch) == 2 * SA_PAGE_BYTES, "two pages without padding");

/* packed has SA_PAGE_BYTES bytes. item_bytes: 1 for bytes, 2, 4, 8 or 16 for numbers. Returns the length of packed. */
size_t sa_page_pack(const uint8_t *page, size_t item_bytes, uint8_t *packed, sa_page_scratch *scratch);

/* 0, or -1 if packed is not what sa_page_pack made with these item bytes. */
int sa_page_unpack(const uint8_t *packed, size_t length, size_t item_bytes, uint8_t *page, sa_page_scratch *scratch);

#endif
