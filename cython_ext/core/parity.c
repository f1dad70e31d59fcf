/* parity.c - arithmetic in GF(256) on bytes and on shards. Words, layout, invariants, threads and cost: parity.h. */
#include "parity.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static uint8_t logarithm[256], exponential[512];

__attribute__((constructor)) static void make_tables(void) {
    unsigned value = 1;
    for (unsigned at = 0; at < 255; at++) {
        exponential[at] = exponential[at + 255] = (uint8_t)value;
        logarithm[value] = (uint8_t)at;
        value <<= 1;
        if (value & 256)
            value ^= 0x11D;
    }
}

uint8_t sa_parity_times(uint8_t a, uint8_t b) {
    return a == 0 || b == 0 ? 0 : exponential[logarithm[a] + logarithm[b]];
}

uint8_t sa_parity_over(uint8_t a, uint8_t b) { return a == 0 ? 0 : exponential[logarithm[a] + 255 - logarithm[b]]; }

uint8_t sa_parity_power(unsigned exponent) { return exponential[exponent % 255]; }

void sa_parity_add_portable(uint8_t *target, const uint8_t *source, size_t length, uint8_t factor) {
    uint8_t products[256];
    for (unsigned byte = 0; byte < 256; byte++)
        products[byte] = sa_parity_times((uint8_t)byte, factor);
    for (size_t at = 0; at < length; at++)
        target[at] ^= products[source[at]];
}

#if defined(__x86_64__)
/* Sixteen bytes at once: a product is the sum of those of the two half bytes, each looked up by a shuffle. */
__attribute__((target("ssse3"))) static size_t add_vector(uint8_t *target, const uint8_t *source, size_t length,
                                                         uint8_t factor) {
    uint8_t low[16], high[16];
    for (unsigned half = 0; half < 16; half++) {
        low[half] = sa_parity_times((uint8_t)half, factor);
        high[half] = sa_parity_times((uint8_t)(half << 4), factor);
    }
    const __m128i lows = _mm_loadu_si128((const __m128i *)low), highs = _mm_loadu_si128((const __m128i *)high);
    const __m128i mask = _mm_set1_epi8(15);
    size_t at = 0;
    for (; at + 16 <= length; at += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(source + at));
        __m128i product = _mm_xor_si128(_mm_shuffle_epi8(lows, _mm_and_si128(bytes, mask)),
                                        _mm_shuffle_epi8(highs, _mm_and_si128(_mm_srli_epi64(bytes, 4), mask)));
        __m128i sum = _mm_xor_si128(product, _mm_loadu_si128((const __m128i *)(target + at)));
        _mm_storeu_si128((__m128i *)(target + at), sum);
    }
    return at;
}
#endif

void sa_parity_add(uint8_t *target, const uint8_t *source, size_t length, uint8_t factor) {
    size_t done = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("ssse3"))
        done = add_vector(target, source, length, factor);
#endif
    sa_parity_add_portable(target + done, source + done, length - done, factor);
}

void sa_parity_scale(uint8_t *target, size_t length, uint8_t factor) {
    uint8_t products[256];
    for (unsigned byte = 0; byte < 256; byte++)
        products[byte] = sa_parity_times((uint8_t)byte, factor);
    for (size_t at = 0; at < length; at++)
        target[at] = products[target[at]];
}
