/* edit_block.c - encoding and decoding of edit blocks. Words, layout, invariants and cost: edit_block.h. */
#include "edit_block.h"

#include <string.h>

#include "crc32c.h"

enum { KIND_WRITES, KIND_REMOVALS, KIND_MIXED };
enum { AT_CHECKSUM = 4, AT_DURABLE = 8, AT_BASE = 16, AT_STEP = 24, AT_COUNT = 32, AT_KIND = 36, AT_WIDTH, AT_FORM, AT_VALUE };

static const uint8_t MAGIC[4] = {'S', 'A', 'E', '1'};

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define SA_LITTLE_WORD(word) __builtin_bswap64(word)
#define SA_LITTLE_HALF(half) __builtin_bswap32(half)
#else
#define SA_LITTLE_WORD(word) (word)
#define SA_LITTLE_HALF(half) (half)
#endif

static inline void store_word(uint8_t *at, uint64_t word) {
    word = SA_LITTLE_WORD(word);
    memcpy(at, &word, sizeof word);
}

static inline void store_half(uint8_t *at, uint32_t half) {
    half = SA_LITTLE_HALF(half);
    memcpy(at, &half, sizeof half);
}

static inline uint64_t load_word(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return SA_LITTLE_WORD(word);
}

static inline uint32_t load_half(const uint8_t *at) {
    uint32_t half;
    memcpy(&half, at, sizeof half);
    return SA_LITTLE_HALF(half);
}

static inline uint64_t load_width(const uint8_t *at, unsigned width) {
    uint64_t word = 0;
    for (unsigned i = 0; i < width; i++) word |= (uint64_t)at[i] << 8 * i;
    return word;
}

static unsigned width_of(uint64_t largest) {
    unsigned width = 0;
    while (width < 8 && largest >> 8 * width != 0) width++;
    return width;
}

static unsigned kind_of(const uint8_t *removed, size_t count) {
    size_t removals = 0;
    for (size_t i = 0; i < count; i++) removals += removed[i];
    return removals == 0 ? KIND_WRITES : removals == count ? KIND_REMOVALS : KIND_MIXED;
}

static int is_progression(const uint64_t *addresses, size_t count) {
    uint64_t step = count > 1 ? addresses[1] - addresses[0] : 0;
    for (size_t i = 2; i < count; i++) {
        if (addresses[i] - addresses[i - 1] != step) return 0;
    }
    return 1;
}

/* Each value is written as a whole word, of which the next one overwrites what is beyond the width. */
static uint8_t *put_values(uint8_t *at, const uint64_t *raws, size_t stride, size_t count, unsigned width) {
    for (size_t i = 0; i < count; i++, at += width) store_word(at, raws[i * stride]);
    return at;
}

static uint8_t *put_removed_bits(uint8_t *at, const uint8_t *removed, size_t count) {
    memset(at, 0, (count + 7) / 8);
    for (size_t i = 0; i < count; i++) at[i / 8] |= (uint8_t)(removed[i] << i % 8);
    return at + (count + 7) / 8;
}

static size_t sealed(uint8_t *out, uint8_t *end, uint64_t durable) {
    size_t size = (size_t)(end - out);
    sa_block_stamp(out, size, durable);
    return size;
}

/* Addresses so far apart that offsets take 8 bytes: in their order the gaps take less. 0 if they do not, and out is used. */
static size_t encode_sorted_slow(const sa_edit_columns *edits, size_t count, unsigned value_bytes, uint64_t durable,
                                 sa_edit *scratch, uint8_t *out) {
    uint64_t largest = 0;
    for (size_t i = 0; i < count; i++) scratch[i] = (sa_edit){edits->addresses[i], edits->raws[i]};
    sa_edit_sort(scratch, scratch + SA_BLOCK_EDITS, count);
    for (size_t i = 1; i < count; i++) {
        uint64_t gap = scratch[i].address - scratch[i - 1].address;
        if (gap > largest) largest = gap;
    }
    unsigned width = width_of(largest);
    if (width == 8) return 0;
    uint64_t before = scratch[0].address;
    uint8_t *at = out + SA_BLOCK_HEADER_BYTES;
    store_word(out + AT_BASE, before);
    out[AT_WIDTH] = (uint8_t)width;
    out[AT_FORM] = 1;
    for (size_t i = 0; i < count; i++, at += width) {
        store_word(at, scratch[i].address - before);
        before = scratch[i].address;
    }
    if (out[AT_KIND] == KIND_WRITES) at = put_values(at, &scratch[0].raw, 2, count, value_bytes);
    return sealed(out, at, durable);
}

size_t sa_block_encode(const sa_edit_columns *edits, size_t count, unsigned value_bytes, uint64_t durable, sa_edit *scratch,
                       uint8_t *out) {
    uint64_t least = UINT64_MAX, most = 0;
    unsigned kind = kind_of(edits->removed, count), width = 0;
    memset(out, 0, SA_BLOCK_HEADER_BYTES);
    memcpy(out, MAGIC, sizeof MAGIC);
    store_half(out + AT_COUNT, (uint32_t)count);
    out[AT_KIND] = (uint8_t)kind;
    out[AT_VALUE] = (uint8_t)value_bytes;
    uint8_t *at = out + SA_BLOCK_HEADER_BYTES;
    if (is_progression(edits->addresses, count)) {
        store_word(out + AT_BASE, edits->addresses[0]);
        store_word(out + AT_STEP, count > 1 ? edits->addresses[1] - edits->addresses[0] : 0);
    } else {
        for (size_t i = 0; i < count; i++) {
            if (edits->addresses[i] < least) least = edits->addresses[i];
            if (edits->addresses[i] > most) most = edits->addresses[i];
        }
        width = width_of(most - least);
        if (width == 8 && kind != KIND_MIXED) {
            size_t size = encode_sorted_slow(edits, count, value_bytes, durable, scratch, out);
            if (size != 0) return size;
        }
        store_word(out + AT_BASE, least);
        out[AT_WIDTH] = (uint8_t)width;
        out[AT_FORM] = 0;
        for (size_t i = 0; i < count; i++, at += width) store_word(at, edits->addresses[i] - least);
    }
    if (kind == KIND_MIXED) at = put_removed_bits(at, edits->removed, count);
    if (kind != KIND_REMOVALS) at = put_values(at, edits->raws, 1, count, value_bytes);
    return sealed(out, at, durable);
}

void sa_block_stamp(uint8_t *block, size_t size, uint64_t durable) {
    store_word(block + AT_DURABLE, durable);
    store_half(block + AT_CHECKSUM, sa_crc32c(0, block + AT_DURABLE, size - AT_DURABLE));
}

size_t sa_block_size(const uint8_t *data, size_t length) {
    if (length < SA_BLOCK_HEADER_BYTES || memcmp(data, MAGIC, sizeof MAGIC) != 0) return 0;
    size_t count = load_half(data + AT_COUNT), value_bytes = data[AT_VALUE], width = data[AT_WIDTH];
    if (count > SA_BLOCK_EDITS || width > 8 || data[AT_FORM] > 1) return 0;
    if (data[AT_KIND] > KIND_MIXED || (value_bytes != 4 && value_bytes != 8)) return 0;
    size_t size = SA_BLOCK_HEADER_BYTES + count * width;
    if (data[AT_KIND] == KIND_MIXED) size += (count + 7) / 8;
    if (data[AT_KIND] != KIND_REMOVALS) size += count * value_bytes;
    return size;
}

int sa_block_is_sound(const uint8_t *block, size_t size) {
    return load_half(block + AT_CHECKSUM) == sa_crc32c(0, block + AT_DURABLE, size - AT_DURABLE);
}

uint64_t sa_block_durable(const uint8_t *block) { return load_word(block + AT_DURABLE); }

/* A column of numbers of some bytes each; whole words are read while they lie inside the block. */
static const uint8_t *get_column(const uint8_t *at, const uint8_t *end, uint64_t *out, size_t count, unsigned width) {
    uint64_t mask = width == 8 ? UINT64_MAX : (1ull << 8 * width) - 1;
    size_t i = 0;
    for (; i < count && end - at >= 8; i++, at += width) out[i] = load_word(at) & mask;
    for (; i < count; i++, at += width) out[i] = load_width(at, width);
    return at;
}

size_t sa_block_decode(const uint8_t *block, size_t size, const sa_edit_columns *out, int *has_removals) {
    size_t count = load_half(block + AT_COUNT);
    unsigned width = block[AT_WIDTH], kind = block[AT_KIND];
    uint64_t base = load_word(block + AT_BASE), step = load_word(block + AT_STEP);
    const uint8_t *at = block + SA_BLOCK_HEADER_BYTES, *end = block + size;
    if (width == 0) {
        for (size_t i = 0; i < count; i++) out->addresses[i] = base + i * step;
    } else {
        at = get_column(at, end, out->addresses, count, width);
        for (size_t i = 0; i < count; i++) {
            out->addresses[i] += base;
            if (block[AT_FORM] == 1) base = out->addresses[i];
        }
    }
    *has_removals = kind != KIND_WRITES;
    memset(out->removed, kind == KIND_REMOVALS, count);
    if (kind == KIND_MIXED) {
        for (size_t i = 0; i < count; i++) out->removed[i] = at[i / 8] >> i % 8 & 1;
        at += (count + 7) / 8;
    }
    if (kind == KIND_REMOVALS) memset(out->raws, 0, count * sizeof *out->raws);
    else get_column(at, end, out->raws, count, block[AT_VALUE]);
    return count;
}
