/* formula.h - formulas: a few bytes from which a block of bytes is regrown, and the search for one that fits a block.
 *
 * Words: a *block* is the bytes that a formula stands for; a formula is a version byte and an *expression*; an expression
 * stands for n bytes, n given by what surrounds it; an *item* is 1, 2, 4 or 8 successive bytes; a *base* is an expression
 * that holds no other; to *grow* is to compute the bytes; *loops* are the functions of spectral_alloc._generator.
 *
 *   formula    01 expression                                   docs/formula.md has the grammar of the expressions
 *
 *   block    | head | item item item ... item item | tail |    ENVELOPE: head and tail as they are, the rest grown
 *            | 0 .. period | 0 .. period | 0 .. pe |           TILE: one period grown, then copied
 *            | a a a | b b b | c c |                           REPEAT: a b c grown, each put down `times` times
 *            | item item ITEM item |                           PATCH: all grown, then some items replaced
 *
 * Invariants:
 *   1. sa_formula_check accepts what sa_formula_grow can grow, and reads no byte outside the formula.
 *   2. Growing n bytes takes time linear in n (expressions nest at most SA_FORMULA_DEPTH_MAX deep, and each is linear in
 *      its own bytes), and no memory but the block itself.
 *   3. sa_formula_find returns a formula only after growing it and comparing every byte.
 *   4. The kinds are stored: none is ever changed or used again for another.
 *
 * Threads: pure, but for the tables of seeds, which are made once and published atomically.
 * Cost: growing 1 to 20 GB/s; a search in vain 2 to 6 us, whatever the size of the block.
 */
#ifndef SA_FORMULA_H
#define SA_FORMULA_H

#include <stddef.h>
#include <stdint.h>

#include "generator.h"

enum {
    SA_FORMULA_VERSION = 1,
    SA_FORMULA_DEPTH_MAX = 10,
    SA_FORMULA_RAW_MAX = 1 << 30, /* a formula is short, so only this bounds what a crafted one makes its reader grow */
    SA_ENVELOPE_BYTES_MAX = 32,
    SA_DEGREE_MAX = 4,
    SA_FORMULA_KEYS_MAX = 16,
    SA_TEXT_BYTES_MAX = 128, /* of a base */
    SA_START_BYTES = 16,
    SA_RUNS_BYTES_MIN = 1 << 12
};

/* Stored: see invariant 4. */
typedef enum sa_formula_kind {
    SA_LITERAL = 1,
    SA_TILE = 2,
    SA_REPEAT = 3,
    SA_PATCH = 4,
    SA_ENVELOPE = 5,
    SA_POLYNOMIAL = 6,
    SA_AFFINE = 7,
    SA_SPACE = 8,
    SA_PERMUTED = 9,
    SA_MERSENNE = 10,
    SA_PCG = 11
} sa_formula_kind;

/* What the generators of random numbers put into the items. Stored. */
typedef enum sa_noise_form { SA_NOISE_DOUBLE = 0, SA_NOISE_RAW = 1, SA_NOISE_FLOAT = 2, SA_NOISE_FORM_COUNT } sa_noise_form;

typedef struct sa_formula_loops {
    void (*fill)(const sa_generator *generator, uint64_t start, uint64_t step, void *out, size_t count);
    void (*gather)(const sa_mixer_key *key, const uint64_t *addresses, uint64_t *out, size_t count);
    void (*unmix)(const sa_mixer_key *key, const uint64_t *bits, uint64_t *out, size_t count);
    /* Negative when the walks take more steps than any key takes that was not made to. */
    int (*permute)(const sa_mixer_key *key, uint64_t last, uint64_t start, uint64_t *out, size_t count);
} sa_formula_loops;

/* What a search may try beyond the block itself. */
typedef struct sa_formula_known {
    const sa_formula_loops *loops;
    const uint8_t *expression; /* a base that begins as the block does; NULL for none */
    size_t expression_bytes;
    size_t key_count;
    sa_mixer_key keys[SA_FORMULA_KEYS_MAX]; /* of spaces */
} sa_formula_known;

typedef enum sa_formula_result {
    SA_FORMULA_NONE = 0,
    SA_FORMULA_FOUND = 1,
    SA_FORMULA_NO_MEMORY = -1
} sa_formula_result;

/* NULL when the formula is sound and stands for raw_bytes bytes, else what is wrong. */
const char *sa_formula_check(const uint8_t *formula, size_t length, uint64_t raw_bytes);

/* Grow a formula that sa_formula_check accepted into out, which is aligned for 64-bit words. NULL, or what is wrong. */
const char *sa_formula_grow(
    const sa_formula_loops *loops, const uint8_t *formula, size_t length, uint8_t *out, size_t raw_bytes);

/* The same for an expression alone, of which raw_bytes bytes are wanted. */
const char *sa_formula_grow_expression(
    const sa_formula_loops *loops, const uint8_t *expression, size_t length, uint8_t *out, size_t raw_bytes);

/* Search a formula for a block; *formula is the caller's to free. */
sa_formula_result sa_formula_find(
    const sa_formula_known *known, const uint8_t *block, size_t raw_bytes, uint8_t **formula, size_t *length);

/* Write the expression of a fill of a space to out, which has room for SA_TEXT_BYTES_MAX; returns its length. */
size_t sa_space_text(const sa_generator *generator, uint64_t start, uint64_t step, uint8_t *out);

/* When a formula says that a block is a fill: the expression of the fill that comes behind it, and its first 16 bytes.
 * Returns the length of the expression, at most SA_TEXT_BYTES_MAX; 0 for other formulas. */
size_t sa_formula_next(
    const sa_formula_loops *loops, const uint8_t *formula, size_t length, size_t raw_bytes, uint8_t *text, uint8_t *first);

/* Do nearly all of 64 places in a block of SA_RUNS_BYTES_MIN and more repeat the 8 bytes before them? 64 cache lines. */
int sa_formula_is_runs(const uint8_t *block, size_t raw_bytes);

/* How many bytes of a block belong to its head and tail: what a stream or pickle puts around one flat value. */
int sa_formula_envelope(const uint8_t *block, size_t raw_bytes, size_t *head, size_t *tail);

#endif
