/* sorted.c - values and ranks of a sorted space. Words, invariants, threads and cost: sorted.h. */
#include "sorted.h"

__extension__ typedef unsigned __int128 wide;

static inline wide begin_of(const sa_sorted *sorted, wide rank) {
    wide n = (wide)sorted->last + 1;
    return ((rank << 64) + sorted->last) / n;
}

uint64_t sa_sorted_value(const sa_sorted *sorted, uint64_t rank) {
    if (sorted->last == UINT64_MAX) return rank;
    wide begin = begin_of(sorted, rank), width = begin_of(sorted, (wide)rank + 1) - begin;
    uint64_t bits = sa_mix(&sorted->key, rank);
    if (width >> 64 != 0) return bits;
    return (uint64_t)begin + (uint64_t)(bits * width >> 64);
}

uint64_t sa_sorted_cell(const sa_sorted *sorted, uint64_t word) {
    if (sorted->last == UINT64_MAX) return word;
    return (uint64_t)(word * ((wide)sorted->last + 1) >> 64);
}

void sa_sorted_fill(const sa_sorted *sorted, uint64_t start, uint64_t step, uint64_t *out, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = sa_sorted_value(sorted, start + i * step);
}

void sa_sorted_values(const sa_sorted *sorted, uint64_t *words, size_t count) {
    for (size_t i = 0; i < count; i++) words[i] = sa_sorted_value(sorted, words[i]);
}

void sa_sorted_ranks(const sa_sorted *sorted, uint64_t *words, uint8_t *found, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint64_t rank = sa_sorted_cell(sorted, words[i]), value = sa_sorted_value(sorted, rank);
        if (found != NULL) found[i] = value == words[i];
        words[i] = rank + (value < words[i]);
    }
}
