/* formula_noise.h - numpy's two most used generators of random numbers: MT19937 (np.random.seed) and PCG64 (default_rng).
 *
 * Words: a *seed* is the number given to np.random.seed or default_rng; a *draw* is one output of the generator (32 bits
 * of MT19937, 64 of PCG64); a *form* is what is made of draws; a *table* finds the seed whose first draws begin a block.
 *
 *   form     MT19937                              PCG64
 *   DOUBLE   (a >> 5, b >> 6) * 2^-53, two draws  (draw >> 11) * 2^-53
 *   RAW      the draws, little-endian             the draws, little-endian
 *   FLOAT    -                                    (half >> 8) * 2^-24 of the low half, then of the high half
 *
 *   sa_pcg   state 128 | increment 128, odd
 *
 * Invariants:
 *   1. The same seeds give what numpy gives: its streams of these forms have not changed since 1.17.
 *   2. A table is made once in a process, and never changes.
 *
 * Threads: pure but for the tables, which are published atomically; two threads may make one at once, one is kept.
 * Cost: MT19937 1.5 to 2.5 GB/s, PCG64 4 to 6 GB/s; a table 5 to 30 ms once and 512 KiB; a look-up 0.1 us.
 */
#ifndef SA_FORMULA_NOISE_H
#define SA_FORMULA_NOISE_H

#include "formula.h"

enum {
    SA_MERSENNE_WORDS = 624,
    SA_MERSENNE_AHEAD = 397,
    SA_SEEDS = 65535,      /* seeds from 0 on that are in the tables */
    SA_SKIP_SHARE = 16,    /* see sa_mersenne_skip_max */
    SA_SKIP_MIN = 1 << 18
};

typedef struct sa_mersenne {
    uint32_t word[SA_MERSENNE_WORDS];
    size_t next;
} sa_mersenne;

typedef struct sa_pcg {
    unsigned __int128 state, increment;
} sa_pcg;

typedef enum sa_seed_table { SA_MERSENNE_SEEDS, SA_PCG_SEEDS, SA_PCG_FLOAT_SEEDS, SA_SEED_TABLE_COUNT } sa_seed_table;

void sa_mersenne_seed(sa_mersenne *mersenne, uint32_t seed);
uint32_t sa_mersenne_draw(sa_mersenne *mersenne);
/* Put down `bytes` bytes of a form; a last item that does not fit whole is cut. */
void sa_mersenne_grow(sa_mersenne *mersenne, sa_noise_form form, uint8_t *out, size_t bytes);

/* As default_rng(seed). */
void sa_pcg_seed(sa_pcg *pcg, uint32_t seed);
uint64_t sa_pcg_draw(sa_pcg *pcg);
void sa_pcg_grow(sa_pcg *pcg, sa_noise_form form, uint8_t *out, size_t bytes);
/* Go on by any number of draws at once. */
void sa_pcg_advance(sa_pcg *pcg, uint64_t draws);

/* Draws that a block of a form takes. */
static inline uint64_t sa_noise_draws(sa_formula_kind kind, sa_noise_form form, uint64_t bytes) {
    if (kind == SA_PCG) return (bytes + 7) / 8;
    return form == SA_NOISE_DOUBLE ? (bytes + 7) / 8 * 2 : (bytes + 3) / 4;
}

/* How many draws may lie between the seed and the block: each of them is computed to regrow it. */
static inline uint64_t sa_mersenne_skip_max(uint64_t bytes) { return SA_SKIP_SHARE * (bytes / 4) + SA_SKIP_MIN; }

/* What the first draws after seeding show of themselves: the 53 bits of a double, or the 48 of two floats. */
uint64_t sa_seed_print(sa_seed_table table, uint32_t seed);

/* The seed below SA_SEEDS that has this print, or -1, also when there is no memory for the table. */
int32_t sa_seed_of(sa_seed_table table, uint64_t print);

#endif
