/* page_pack.c - pages made shorter. Words, format, invariants and cost: page_pack.h. */
#include "page_pack.h"

#include <string.h>

#include "shuffle.h"

enum {
    MATCH_BYTES_MIN = 4,
    LITERALS_AT_END = 5,   /* the format ends with literals, so that a reader may copy by words */
    SEARCH_END_BYTES = 12, /* the last match begins at least so far from the end */
    HASH_BITS = 11,
    SKIP_BITS = 5, /* after 2^SKIP_BITS places without a match the steps grow: what has none is left quickly */
    RUN_MASK = 15
};

_Static_assert(sizeof(((sa_page_scratch *)0)->places) == sizeof(uint16_t) << HASH_BITS, "a place for every hash");

static inline uint32_t word_at(const uint8_t *bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

static inline uint32_t hash_of(uint32_t word) { return word * 2654435761u >> (32 - HASH_BITS); }

static uint8_t *put_length(uint8_t *out, size_t length) {
    for (; length >= 255; length -= 255) *out++ = 255;
    *out++ = (uint8_t)length;
    return out;
}

/* Literals and a match of match_bytes at a distance; the last literals have none. NULL if that goes beyond end. */
static uint8_t *put_sequence(uint8_t *out, const uint8_t *end, const uint8_t *literals, size_t literal_count,
                             size_t distance, size_t match_bytes) {
    size_t rest = match_bytes ? match_bytes - MATCH_BYTES_MIN : 0;
    if (out + 1 + literal_count + literal_count / 255 + 1 + 2 + rest / 255 + 1 > end) return NULL;
    uint8_t *token = out++;
    *token = (uint8_t)((literal_count < RUN_MASK ? literal_count : RUN_MASK) << 4 | (rest < RUN_MASK ? rest : RUN_MASK));
    if (literal_count >= RUN_MASK) out = put_length(out, literal_count - RUN_MASK);
    memcpy(out, literals, literal_count);
    out += literal_count;
    if (match_bytes == 0) return out;
    *out++ = (uint8_t)distance;
    *out++ = (uint8_t)(distance >> 8);
    return rest >= RUN_MASK ? put_length(out, rest - RUN_MASK) : out;
}

/* The length of the block, 0 if it would be longer than room. */
static size_t compress(const uint8_t *in, uint8_t *out, size_t room, uint16_t *places) {
    const uint8_t *end = out + room;
    uint8_t *next = out;
    size_t anchor = 0, at = 1, misses = 0;
    memset(places, 0, sizeof(uint16_t) << HASH_BITS);
    while (at < SA_PAGE_BYTES - SEARCH_END_BYTES) {
        uint32_t word = word_at(in + at), hash = hash_of(word);
        size_t from = places[hash];
        places[hash] = (uint16_t)at;
        if (word_at(in + from) != word) {
            at += 1 + (misses++ >> SKIP_BITS);
            continue;
        }
        size_t length = MATCH_BYTES_MIN;
        while (at + length < SA_PAGE_BYTES - LITERALS_AT_END && in[from + length] == in[at + length]) length++;
        next = put_sequence(next, end, in + anchor, at - anchor, at - from, length);
        if (next == NULL) return 0;
        at += length;
        anchor = at;
        misses = 0;
    }
    next = put_sequence(next, end, in + anchor, SA_PAGE_BYTES - anchor, 0, 0);
    return next == NULL ? 0 : (size_t)(next - out);
}

/* Adds the bytes that continue a length of RUN_MASK; -1 if the block ends in them. */
static int more_length(const uint8_t *in, size_t length, size_t *at, size_t *count) {
    uint8_t byte = 255;
    while (byte == 255) {
        if (*at >= length) return -1;
        byte = in[(*at)++];
        *count += byte;
    }
    return 0;
}

static int decompress(const uint8_t *in, size_t length, uint8_t *out) {
    size_t at = 0, made = 0;
    while (at < length) {
        uint8_t token = in[at++];
        size_t literal_count = token >> 4, match_bytes = token & RUN_MASK;
        if (literal_count == RUN_MASK && more_length(in, length, &at, &literal_count) != 0) return -1;
        if (literal_count > length - at || literal_count > SA_PAGE_BYTES - made) return -1;
        memcpy(out + made, in + at, literal_count);
        at += literal_count;
        made += literal_count;
        if (at == length) break;
        if (length - at < 2) return -1;
        size_t distance = in[at] | (size_t)in[at + 1] << 8;
        at += 2;
        if (match_bytes == RUN_MASK && more_length(in, length, &at, &match_bytes) != 0) return -1;
        match_bytes += MATCH_BYTES_MIN;
        if (distance == 0 || distance > made || match_bytes > SA_PAGE_BYTES - made) return -1;
        for (size_t i = 0; i < match_bytes; i++, made++) out[made] = out[made - distance];
    }
    return made == SA_PAGE_BYTES ? 0 : -1;
}

size_t sa_page_pack(const uint8_t *page, size_t item_bytes, uint8_t *packed, sa_page_scratch *scratch) {
    const uint8_t *in = page;
    if (item_bytes > 1) {
        sa_shuffle(scratch->planes, page, SA_PAGE_BYTES, item_bytes);
        in = scratch->planes;
    }
    size_t length = compress(in, packed, SA_PAGE_BYTES - SA_SECTOR_BYTES, scratch->places);
    if (length != 0) return length;
    memcpy(packed, page, SA_PAGE_BYTES);
    return SA_PAGE_BYTES;
}

int sa_page_unpack(const uint8_t *packed, size_t length, size_t item_bytes, uint8_t *page, sa_page_scratch *scratch) {
    if (length == SA_PAGE_BYTES) {
        memcpy(page, packed, SA_PAGE_BYTES);
        return 0;
    }
    if (item_bytes <= 1) return decompress(packed, length, page);
    if (decompress(packed, length, scratch->planes) != 0) return -1;
    sa_unshuffle(page, scratch->planes, SA_PAGE_BYTES, item_bytes);
    return 0;
}
