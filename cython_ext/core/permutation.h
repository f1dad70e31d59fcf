/* permutation.h - a permutation of 0 .. n - 1 that takes no memory: a Feistel network, walked until it lands below n.
 *
 * Words: a *walk* repeats the network until the number is below n; left and right are the halves of a number.
 *
 *   number  | left: bits / 2 | right: the rest |     bits = those of n - 1, at least 2
 *   round r   even: left  ^= top bits of mix(key, right + r * 2^32)
 *             odd:  right ^= top bits of mix(key, left  + r * 2^32)
 *
 * Invariants:
 *   1. A round undoes itself, so the network is a permutation of the numbers of that many bits, and rounds in reverse order
 *      are its inverse.
 *   2. A walk that starts below n returns below n (it follows a cycle that it is on), so walks are a permutation of them.
 *
 * Threads: pure. Cost: SA_PERMUTATION_ROUNDS mixes a step, fewer than 2 steps on average, as n > 2^(bits - 1).
 */
#ifndef SA_PERMUTATION_H
#define SA_PERMUTATION_H

#include "mixer.h"

enum { SA_PERMUTATION_ROUNDS = 8, SA_PERMUTATION_STEPS_MAX = 8 };

typedef struct sa_permutation {
    sa_mixer_key key;
    uint64_t last; /* n - 1 */
    uint32_t left_bits, right_bits;
} sa_permutation;

_Static_assert(sizeof(sa_permutation) == 40, "no padding");

void sa_permutation_init(sa_permutation *permutation, const sa_mixer_key *key, uint64_t last);

/* Where position goes, and where value comes from; both at most last. */
uint64_t sa_permutation_at(const sa_permutation *permutation, uint64_t position);
uint64_t sa_permutation_index(const sa_permutation *permutation, uint64_t value);

/* out[i] = the permutation at start + i, unless that takes more than SA_PERMUTATION_STEPS_MAX steps an element and some
 * more, as only a key does that was made to: then -1, else 0. */
int sa_permutation_fill_bounded(const sa_permutation *permutation, uint64_t start, uint64_t *out, size_t count);

/* out[i] = the permutation at start + i * step. */
void sa_permutation_fill(const sa_permutation *permutation, uint64_t start, uint64_t step, uint64_t *out, size_t count);

/* words[i] becomes where it goes, or with `backwards` where it comes from. */
void sa_permutation_map(const sa_permutation *permutation, uint64_t *words, size_t count, int backwards);

#endif
