/* generator.h - what stands at an address: the bits of the mixer, seen as values of one kind.
 *
 * Words: a *kind* says what a value is; *raw* is a value as a 64-bit word, which is how edits are kept.
 *
 *   kind       array element   raw
 *   FLOAT64    double          its 64 bits
 *   FLOAT32    float           its 32 bits, above them 0
 *   UINT64     uint64_t        itself
 *   RANGE      int64_t         itself as two's complement, from low to low + span - 1
 *   NORMAL     double          its 64 bits
 *
 * Invariants:
 *   1. sa_generator_raw, fill and gather give the same raw value for the same address.
 *   2. A generator is not changed after it is set up.
 *
 * Threads: pure. Cost: see mixer.h and variates.h; loops of RANGE and NORMAL go over pieces that fit the first cache.
 */
#ifndef SA_GENERATOR_H
#define SA_GENERATOR_H

#include <string.h>

#include "mixer.h"
#include "variates.h"

typedef enum sa_kind { SA_FLOAT64, SA_FLOAT32, SA_UINT64, SA_RANGE, SA_NORMAL, SA_KIND_COUNT } sa_kind;

typedef struct sa_generator {
    sa_mixer_key key;
    uint64_t low;  /* RANGE: the first number, as two's complement */
    uint64_t span; /* RANGE: how many numbers; 0 stands for 2^64 */
    uint32_t kind; /* a sa_kind */
    uint32_t value_bytes; /* of an array element: 4 for FLOAT32, else 8 */
} sa_generator;

_Static_assert(sizeof(sa_generator) == 48, "no padding");

static inline uint64_t sa_raw_of_double(double value) {
    uint64_t raw;
    memcpy(&raw, &value, sizeof raw);
    return raw;
}

static inline double sa_double_of_raw(uint64_t raw) {
    double value;
    memcpy(&value, &raw, sizeof value);
    return value;
}

static inline uint64_t sa_raw_of_float(float value) {
    uint32_t raw;
    memcpy(&raw, &value, sizeof raw);
    return raw;
}

static inline float sa_float_of_raw(uint64_t raw) {
    uint32_t half = (uint32_t)raw;
    float value;
    memcpy(&value, &half, sizeof value);
    return value;
}

static inline uint64_t sa_generator_raw(const sa_generator *generator, uint64_t address) {
    uint64_t bits = sa_mix(&generator->key, address);
    switch (generator->kind) {
    case SA_FLOAT64: return sa_raw_of_double(sa_double_of_bits(bits));
    case SA_FLOAT32: return sa_raw_of_float(sa_float_of_bits(bits));
    case SA_RANGE: return generator->low + sa_range_of_bits(&generator->key, bits, generator->span);
    case SA_NORMAL: return sa_raw_of_double(sa_normal_of_bits(bits));
    default: return bits;
    }
}

/* out has count elements of value_bytes each, and is aligned for them. Element i belongs to address start + i * step. */
void sa_generator_fill(const sa_generator *generator, uint64_t start, uint64_t step, void *out, size_t count);

/* Element i belongs to addresses[i]. */
void sa_generator_gather(const sa_generator *generator, const uint64_t *addresses, void *out, size_t count);

#endif
