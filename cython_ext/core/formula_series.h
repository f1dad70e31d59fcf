/* formula_series.h - series of items: whole polynomials, and floats that grow by steps as numpy computes them.
 *
 * Words: the *type* of items says their width, byte order and arithmetic; a *series* gives item i of a block from i alone;
 * *differences* are those of Newton: the first item, then the first differences at it, and so on, modulo 2^64.
 *
 *   type   bit 7 big-endian | bit 6 narrow | bit 5 last | 0 | 0 | 0 | bits 0-1: log2 of the width
 *
 *   polynomial   item i = sum of difference k times binomial(i, k), its low bits; neither narrow nor last
 *   affine       item i = fl(fl(i * step) + start) in double or float, as arange, linspace and i * step have it; narrow:
 *                computed in double, stored as float; last: the last item is `stop` instead, as linspace has it
 *
 * Invariants:
 *   1. Growing and sa_affine_item, sa_polynomial_item give the same items.
 *   2. Only + and * of IEEE numbers in this order, no contraction: the same bits on every machine.
 *
 * Threads: pure. Cost: 0.1 to 0.5 ns an item grown, some 100 ns to find that a block is no polynomial of one type.
 */
#ifndef SA_FORMULA_SERIES_H
#define SA_FORMULA_SERIES_H

#include <float.h>

#include "formula.h"

_Static_assert(FLT_RADIX == 2 && DBL_MANT_DIG == 53 && FLT_MANT_DIG == 24, "floats are IEEE 754");
_Static_assert(FLT_EVAL_METHOD == 0, "operations are rounded to their type");

enum {
    SA_TYPE_BIG = 0x80,
    SA_TYPE_NARROW = 0x40,
    SA_TYPE_LAST = 0x20,
    SA_TYPE_WIDTH = 0x03,
    SA_SERIES_ITEMS_MIN = 16,
    SA_PROBES = 64,
    SA_PROBES_WRONG_MAX = 2
};

typedef struct sa_polynomial {
    uint64_t difference[SA_DEGREE_MAX + 1];
    unsigned type, degree;
} sa_polynomial;

typedef struct sa_affine {
    uint64_t start, step, stop; /* raw floats of sa_affine_width bytes */
    unsigned type;
} sa_affine;

static inline unsigned sa_type_width(unsigned type) { return 1u << (type & SA_TYPE_WIDTH); }

/* Bytes of start, step and stop: those of the arithmetic. */
static inline unsigned sa_affine_width(unsigned type) { return type & SA_TYPE_NARROW ? 8 : sa_type_width(type); }

enum { SA_NATIVE_BIG = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 0 : SA_TYPE_BIG };

/* From an item's bytes in the low end of a word to its number, and back. */
static inline uint64_t sa_turned(uint64_t word, unsigned type) {
    return (type & SA_TYPE_BIG) == SA_NATIVE_BIG ? word : __builtin_bswap64(word) >> (64 - 8 * sa_type_width(type));
}

/* The item's bytes as a number of the machine's own byte order. */
static inline uint64_t sa_load_item(const uint8_t *at, unsigned width) {
    uint16_t two;
    uint32_t four;
    uint64_t eight;
    switch (width) {
    case 8: return memcpy(&eight, at, 8), eight;
    case 4: return memcpy(&four, at, 4), four;
    case 2: return memcpy(&two, at, 2), two;
    default: return *at;
    }
}

static inline uint64_t sa_item_at(const uint8_t *items, size_t index, unsigned type) {
    unsigned width = sa_type_width(type);
    return sa_turned(sa_load_item(items + index * width, width), type);
}

static inline void sa_put_item(uint8_t *items, size_t index, uint64_t item, unsigned type) {
    unsigned width = sa_type_width(type);
    uint64_t word = sa_turned(item, type);
    if (SA_NATIVE_BIG) word <<= 64 - 8 * width;
    memcpy(items + index * width, &word, width);
}

uint64_t sa_polynomial_item(const sa_polynomial *polynomial, uint64_t index);
void sa_polynomial_grow(const sa_polynomial *polynomial, uint8_t *out, size_t items);

/* 1 if the SA_SERIES_ITEMS_MIN items from `at` on follow a polynomial, else 0. */
int sa_polynomial_fit(sa_polynomial *polynomial, const uint8_t *block, size_t at, unsigned type);

uint64_t sa_affine_item(const sa_affine *affine, size_t index, size_t items);
void sa_affine_grow(const sa_affine *affine, uint8_t *out, size_t items);

/* 1 if nearly all probes of a block of at least SA_SERIES_ITEMS_MIN items follow a series that numpy makes, else 0. */
int sa_affine_fit(sa_affine *affine, const uint8_t *block, size_t items, unsigned type);

/* Probe number `probe` of SA_PROBES in a block of items: spread over all of it, in no regular distance. */
static inline size_t sa_probe(unsigned probe, size_t items) {
    uint64_t spread = (uint64_t)(probe + 1) * 0x9E3779B97F4A7C15u;
    return (size_t)(((unsigned __int128)spread * items) >> 64);
}

#endif
