/* shuffle.c - see shuffle.h. */
#include "shuffle.h"

#include <string.h>

/* Moves the items from first to count; count is that of the whole array, since it is the length of a plane.
 */
static void shuffle_items(uint8_t *out, const uint8_t *in, size_t first, size_t count, size_t item_size) {
    for (size_t plane = 0; plane < item_size; plane++) {
        for (size_t item = first; item < count; item++) {
            out[plane * count + item] = in[item * item_size + plane];
        }
    }
}

static void unshuffle_items(uint8_t *out, const uint8_t *in, size_t first, size_t count, size_t item_size) {
    for (size_t item = first; item < count; item++) {
        for (size_t plane = 0; plane < item_size; plane++) {
            out[item * item_size + plane] = in[plane * count + item];
        }
    }
}

static void copy_tail(uint8_t *out, const uint8_t *in, size_t length, size_t item_size) {
    size_t tail = length % item_size;
    if (tail > 0) {
        memcpy(out + (length - tail), in + (length - tail), tail);
    }
}

void sa_shuffle_portable(uint8_t *out, const uint8_t *in, size_t length, size_t item_size) {
    shuffle_items(out, in, 0, length / item_size, item_size);
    copy_tail(out, in, length, item_size);
}

void sa_unshuffle_portable(uint8_t *out, const uint8_t *in, size_t length, size_t item_size) {
    unshuffle_items(out, in, 0, length / item_size, item_size);
    copy_tail(out, in, length, item_size);
}

#if defined(__x86_64__) && defined(__GNUC__)

#include <emmintrin.h>

/* Items that one step moves: then a plane's share of a step is one 16-byte register. */
enum { STEP = 16 };

/* One perfect shuffle of the 16 * size bytes in the registers: byte i of the first half goes to 2 * i, of the
 * second to 2 * i + 1. Seen on the index of a byte this rotates its bits left by one place. An array of 16
 * items has the index bits | item (4) | byte (log2 size) | and its planes have | byte | item |, so four
 * rotations shuffle and log2 size rotations unshuffle. */
static inline __attribute__((always_inline)) void rotate_index(__m128i *registers, const int size) {
    __m128i rotated[16];
#pragma GCC unroll 8
    for (int i = 0; i < size / 2; i++) {
        rotated[2 * i] = _mm_unpacklo_epi8(registers[i], registers[i + size / 2]);
        rotated[2 * i + 1] = _mm_unpackhi_epi8(registers[i], registers[i + size / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < size; i++) {
        registers[i] = rotated[i];
    }
}

/* Shuffles whole steps; returns the number of items moved. size is a constant at each call, so all loops
 * unroll. */
static inline __attribute__((always_inline)) size_t shuffle_steps(uint8_t *out, const uint8_t *in,
                                                                  size_t count, const int size) {
    size_t item = 0;
    for (; item + STEP <= count; item += STEP) {
        __m128i registers[16];
#pragma GCC unroll 16
        for (int i = 0; i < size; i++) {
            registers[i] = _mm_loadu_si128((const __m128i *)(in + item * (size_t)size + 16 * (size_t)i));
        }
#pragma GCC unroll 4
        for (int round = 0; round < 4; round++) {
            rotate_index(registers, size);
        }
#pragma GCC unroll 16
        for (int i = 0; i < size; i++) {
            _mm_storeu_si128((__m128i *)(out + (size_t)i * count + item), registers[i]);
        }
    }
    return item;
}

static inline __attribute__((always_inline)) size_t unshuffle_steps(uint8_t *out, const uint8_t *in,
                                                                    size_t count, const int size,
                                                                    const int rounds) {
    size_t item = 0;
    for (; item + STEP <= count; item += STEP) {
        __m128i registers[16];
#pragma GCC unroll 16
        for (int i = 0; i < size; i++) {
            registers[i] = _mm_loadu_si128((const __m128i *)(in + (size_t)i * count + item));
        }
#pragma GCC unroll 4
        for (int round = 0; round < rounds; round++) {
            rotate_index(registers, size);
        }
#pragma GCC unroll 16
        for (int i = 0; i < size; i++) {
            _mm_storeu_si128((__m128i *)(out + item * (size_t)size + 16 * (size_t)i), registers[i]);
        }
    }
    return item;
}

static size_t shuffle_vector(uint8_t *out, const uint8_t *in, size_t count, size_t item_size) {
    switch (item_size) {
    case 2:
        return shuffle_steps(out, in, count, 2);
    case 4:
        return shuffle_steps(out, in, count, 4);
    case 8:
        return shuffle_steps(out, in, count, 8);
    case 16:
        return shuffle_steps(out, in, count, 16);
    default:
        return 0;
    }
}

static size_t unshuffle_vector(uint8_t *out, const uint8_t *in, size_t count, size_t item_size) {
    switch (item_size) {
    case 2:
        return unshuffle_steps(out, in, count, 2, 1);
    case 4:
        return unshuffle_steps(out, in, count, 4, 2);
    case 8:
        return unshuffle_steps(out, in, count, 8, 3);
    case 16:
        return unshuffle_steps(out, in, count, 16, 4);
    default:
        return 0;
    }
}

#else

static size_t shuffle_vector(uint8_t *out, const uint8_t *in, size_t count, size_t item_size) { return 0; }

static size_t unshuffle_vector(uint8_t *out, const uint8_t *in, size_t count, size_t item_size) { return 0; }

#endif

void sa_shuffle(uint8_t *out, const uint8_t *in, size_t length, size_t item_size) {
    size_t count = length / item_size;
    size_t done = shuffle_vector(out, in, count, item_size);
    shuffle_items(out, in, done, count, item_size);
    copy_tail(out, in, length, item_size);
}

void sa_unshuffle(uint8_t *out, const uint8_t *in, size_t length, size_t item_size) {
    size_t count = length / item_size;
    size_t done = unshuffle_vector(out, in, count, item_size);
    unshuffle_items(out, in, done, count, item_size);
    copy_tail(out, in, length, item_size);
}
