/* edit_block.h - the blocks of an edit log: up to SA_BLOCK_EDITS edits in columns, under one CRC-32C.
 *
 * Words: a *block* is the unit of the log; its *base* and *width* say how addresses are shortened; an edit is a *write* or a
 * *removal*. All numbers are little-endian.
 *
 *    0  magic 4        "SAE1"
 *    4  checksum 4     CRC-32C of the bytes from 8 to the end of the block
 *    8  durable 8      how many bytes of the file were on stable storage when the block was made
 *   16  base 8
 *   24  step 8
 *   32  count 4        0 to SA_BLOCK_EDITS; a block of 0 is a *mark*, which says `durable` and no more
 *   36  kind 1         0 all writes, 1 all removals, 2 mixed
 *   37  width 1        bytes of an address, 0 to 8
 *   38  form 1         0 address = base + offset; 1 address = the one before (at first base) + gap; with width 0 and either
 *                      form address i = base + i * step
 *   39  value width 1  4 or 8
 *   40  count * width  offsets or gaps
 *       mixed only: (count + 7) / 8 bytes, bit i set if edit i is a removal
 *       unless all are removals: count * value width, raw values (of removals 0)
 *
 * Invariants:
 *   1. Edits take effect in the order of the block. Where a block is sorted (form 1), edits of one address keep their order.
 *   2. What sa_block_size accepts has fields in their ranges; what sa_block_is_sound accepts has no changed byte.
 *   3. Decoding reads no byte outside the block.
 *
 * Threads: pure. Cost: 2 ns an edit to encode or decode, 30 ns more where addresses lie all over 2^64 and are sorted.
 * Size: 8 bytes an edit for progressions, 12 to 15 for addresses within 2^32 to 2^56, 15 for random ones from 2^64, plus 40
 * for the block.
 */
#ifndef SA_EDIT_BLOCK_H
#define SA_EDIT_BLOCK_H

#include "edit_sort.h"

enum {
    SA_BLOCK_EDITS = 4096,
    SA_BLOCK_HEADER_BYTES = 40,
    SA_BLOCK_BYTES_MAX = SA_BLOCK_HEADER_BYTES + SA_BLOCK_EDITS * 16 + SA_BLOCK_EDITS / 8,
    SA_BLOCK_SLACK_BYTES = 8 /* beyond a block that is encoded, since columns are written by words */
};

_Static_assert(SA_BLOCK_EDITS % 8 == 0, "the bits of a full block are whole bytes");

typedef struct sa_edit_columns {
    uint64_t *addresses;
    uint64_t *raws;
    uint8_t *removed; /* 1 for a removal */
} sa_edit_columns;

/* Encode count edits, 1 to SA_BLOCK_EDITS, into out, which has room for SA_BLOCK_BYTES_MAX + SA_BLOCK_SLACK_BYTES. `scratch`
 * has room for 2 * SA_BLOCK_EDITS edits. Returns the size of the block. */
size_t sa_block_encode(const sa_edit_columns *edits, size_t count, unsigned value_bytes, uint64_t durable, sa_edit *scratch,
                       uint8_t *out);

/* Write another `durable` into a block, and the checksum that goes with it. */
void sa_block_stamp(uint8_t *block, size_t size, uint64_t durable);

/* The size of the block whose first `length` bytes, at least SA_BLOCK_HEADER_BYTES, are at `data`; 0 if it is no block. */
size_t sa_block_size(const uint8_t *data, size_t length);

/* 1 if no byte of the block has changed, else 0. */
int sa_block_is_sound(const uint8_t *block, size_t size);

uint64_t sa_block_durable(const uint8_t *block);

/* Decode a sound block into columns with room for SA_BLOCK_EDITS; returns the count. *has_removals: whether any is one. */
size_t sa_block_decode(const uint8_t *block, size_t size, const sa_edit_columns *out, int *has_removals);

#endif
