/* short_frame.h: frames of one part in one block that is not shuffled, which is nearly all of them.
 *
 * Layout: docs/frame_format.md; cython_ext/_frame.pyx reads and writes frames of every form, and says what is wrong with
 * a damaged one. This file only recognises the common form, in one pass, and writes its head.
 *
 *   | version | crc32c 4 | count = 1 | codec | [dictionary id] | raw length | stored length | payload |
 *
 * Invariant: what sa_short_frame_parse accepts, _frame.parse accepts with the same fields.
 *
 * Thread rule: none needed. Cost: the checksum and some 10 ns.
 */
#ifndef SA_SHORT_FRAME_H
#define SA_SHORT_FRAME_H

#include "crc32c.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    SA_FRAME_VERSION = 0xF1,
    SA_FRAME_RAW = 0,
    SA_FRAME_ZSTD = 2,
    SA_FRAME_ZSTD_DICTIONARY = 3,
    SA_FRAME_FORMULA = 4, /* written here, read the general way */
    SA_FRAME_COUNT_AT = 5,
    SA_SHORT_HEAD_BYTES_MAX = 14, /* with lengths below 2^21 */
    SA_SHORT_RAW_MAX = 1 << 20    /* longer ones gain nothing here */
};

typedef struct sa_short_frame {
    const uint8_t *payload;
    size_t stored, raw;
    unsigned codec, dictionary_id; /* RAW, ZSTD or ZSTD_DICTIONARY */
} sa_short_frame;

static inline const uint8_t *sa_short_length(const uint8_t *at, const uint8_t *end, size_t *length)
{
    *length = 0;
    for (unsigned shift = 0; shift <= 14 && at < end; shift += 7) {
        uint8_t byte = *at++;
        *length |= (size_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            return at;
        }
    }
    return NULL;
}

/* Does a zstd payload (without magic number, checksum and dictionary id) state just this size? */
static inline int sa_short_zstd_size_is(const uint8_t *payload, size_t stored, size_t raw)
{
    if (stored < 2 || (payload[0] & 0x1F) != 0 || payload[0] < 0x20) {
        return 0;
    }
    size_t window = payload[0] & 0x20 ? 0 : 1, width = (size_t)1 << (payload[0] >> 6);
    uint64_t size = 0;
    if (stored < 1 + window + width) {
        return 0;
    }
    for (size_t index = 0; index < width; index++) {
        size |= (uint64_t)payload[1 + window + index] << (8 * index);
    }
    return size + (width == 2 ? 256 : 0) == raw;
}

static inline uint32_t sa_frame_checksum(const uint8_t *frame, size_t length)
{
    return sa_crc32c(sa_crc32c(0, frame, 1), frame + SA_FRAME_COUNT_AT, length - SA_FRAME_COUNT_AT);
}

/* 1 when the frame is sound and of this form; 0 when _frame.parse must look at it. */
static inline int sa_short_frame_parse(const uint8_t *frame, size_t length, sa_short_frame *out)
{
    const uint8_t *at = frame + SA_FRAME_COUNT_AT + 2, *end = frame + length;
    if (length < 9 || frame[0] != SA_FRAME_VERSION || frame[SA_FRAME_COUNT_AT] != 1) {
        return 0;
    }
    out->codec = frame[SA_FRAME_COUNT_AT + 1];
    out->dictionary_id = 0;
    if (out->codec == SA_FRAME_ZSTD_DICTIONARY) {
        out->dictionary_id = *at++;
    }
    else if (out->codec != SA_FRAME_RAW && out->codec != SA_FRAME_ZSTD) {
        return 0;
    }
    at = sa_short_length(at, end, &out->raw);
    at = at == NULL ? NULL : sa_short_length(at, end, &out->stored);
    if (at == NULL || out->stored != (size_t)(end - at) || out->raw > SA_SHORT_RAW_MAX ||
        (out->codec == SA_FRAME_ZSTD_DICTIONARY && out->dictionary_id == 0)) {
        return 0;
    }
    out->payload = at;
    uint32_t stored_sum;
    memcpy(&stored_sum, frame + 1, sizeof stored_sum);
    if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || sa_frame_checksum(frame, length) != stored_sum) {
        return 0;
    }
    return out->codec == SA_FRAME_RAW ? out->raw == out->stored : sa_short_zstd_size_is(at, out->stored, out->raw);
}

/* Write the head for a payload that follows it; returns its length, at most SA_SHORT_HEAD_BYTES_MAX. */
static inline size_t sa_short_frame_head(uint8_t *out, unsigned codec, unsigned dictionary_id, size_t raw, size_t stored)
{
    size_t length[2] = {raw, stored};
    uint8_t *at = out + SA_FRAME_COUNT_AT;
    out[0] = SA_FRAME_VERSION;
    *at++ = 1;
    *at++ = (uint8_t)codec;
    if (codec == SA_FRAME_ZSTD_DICTIONARY) {
        *at++ = (uint8_t)dictionary_id;
    }
    for (int index = 0; index < 2; index++) {
        for (; length[index] >= 0x80; length[index] >>= 7) {
            *at++ = (uint8_t)(length[index] | 0x80);
        }
        *at++ = (uint8_t)length[index];
    }
    return (size_t)(at - out);
}

/* Set the checksum of a frame whose head and payload are complete. */
static inline void sa_short_frame_seal(uint8_t *frame, size_t length)
{
    uint32_t sum = sa_frame_checksum(frame, length);
    for (int index = 0; index < 4; index++) {
        frame[1 + index] = (uint8_t)(sum >> (8 * index));
    }
}

#endif
