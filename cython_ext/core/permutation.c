/* permutation.c - permutations by cycle walking. Words, invariants, threads and cost: permutation.h. */
#include "permutation.h"

void sa_permutation_init(sa_permutation *permutation, const sa_mixer_key *key, uint64_t last) {
    uint32_t bits = 2;
    while (bits < 64 && last >> bits != 0) bits++;
    permutation->key = *key;
    permutation->last = last;
    permutation->left_bits = bits / 2;
    permutation->right_bits = bits - bits / 2;
}

static inline void round_of(const sa_permutation *permutation, uint64_t round, uint64_t *left, uint64_t *right) {
    if (round % 2 == 0) {
        *left ^= sa_mix(&permutation->key, *right + (round << 32)) >> (64 - permutation->left_bits);
    } else {
        *right ^= sa_mix(&permutation->key, *left + (round << 32)) >> (64 - permutation->right_bits);
    }
}

/* One pass of the network over a number of left_bits + right_bits bits. */
static inline uint64_t step(const sa_permutation *permutation, uint64_t number, int backwards) {
    uint64_t left = number >> permutation->right_bits;
    uint64_t right = number & ((1ull << permutation->right_bits) - 1);
    for (uint64_t round = 0; round < SA_PERMUTATION_ROUNDS; round++) {
        round_of(permutation, backwards ? SA_PERMUTATION_ROUNDS - 1 - round : round, &left, &right);
    }
    return left << permutation->right_bits | right;
}

uint64_t sa_permutation_at(const sa_permutation *permutation, uint64_t position) {
    do position = step(permutation, position, 0);
    while (position > permutation->last);
    return position;
}

uint64_t sa_permutation_index(const sa_permutation *permutation, uint64_t value) {
    do value = step(permutation, value, 1);
    while (value > permutation->last);
    return value;
}

int sa_permutation_fill_bounded(const sa_permutation *permutation, uint64_t start, uint64_t *out, size_t count) {
    uint64_t steps = SA_PERMUTATION_STEPS_MAX * (uint64_t)count + 64 * SA_PERMUTATION_STEPS_MAX;
    for (size_t i = 0; i < count; i++) {
        uint64_t position = start + i;
        do {
            if (steps-- == 0) return -1;
            position = step(permutation, position, 0);
        } while (position > permutation->last);
        out[i] = position;
    }
    return 0;
}

void sa_permutation_fill(const sa_permutation *permutation, uint64_t start, uint64_t step_, uint64_t *out, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = sa_permutation_at(permutation, start + i * step_);
}

void sa_permutation_map(const sa_permutation *permutation, uint64_t *words, size_t count, int backwards) {
    for (size_t i = 0; i < count; i++) {
        words[i] = backwards ? sa_permutation_index(permutation, words[i]) : sa_permutation_at(permutation, words[i]);
    }
}
