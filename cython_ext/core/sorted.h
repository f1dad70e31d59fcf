/* sorted.h - n words in increasing order, computed: the value of a rank, and the rank of a value, both at once.
 *
 * Words: the words are cut into n *cells* of equal size (to one word); the value of a *rank* is a hashed place in its cell.
 *
 *   words  | cell 0 | cell 1 | ... | cell n-1 |      cell r begins at ceil(r * 2^64 / n)
 *              ^        ^               ^            the value: begin + high 64 bits of mix(r) * width
 *
 * Invariants:
 *   1. Cells are disjoint and in order, so values increase strictly.
 *   2. A word v lies in cell floor(v * n / 2^64), as begin(r) <= v < begin(r + 1) says the same. So its rank is a product.
 *
 * Threads: pure. Cost: a value two divisions of 128 bits, some 30 ns; a rank one multiplication.
 */
#ifndef SA_SORTED_H
#define SA_SORTED_H

#include "mixer.h"

typedef struct sa_sorted {
    sa_mixer_key key;
    uint64_t last; /* n - 1 */
} sa_sorted;

_Static_assert(sizeof(sa_sorted) == 32, "no padding");

/* The value of a rank from 0 to last. */
uint64_t sa_sorted_value(const sa_sorted *sorted, uint64_t rank);

/* The cell that any word lies in: the rank of a value. */
uint64_t sa_sorted_cell(const sa_sorted *sorted, uint64_t word);

/* out[i] = value of rank start + i * step. */
void sa_sorted_fill(const sa_sorted *sorted, uint64_t start, uint64_t step, uint64_t *out, size_t count);

/* words[i], a rank, becomes its value. */
void sa_sorted_values(const sa_sorted *sorted, uint64_t *words, size_t count);

/* words[i] becomes how many values are below it; found[i], if wanted, whether it is one itself. May give last + 1, which
 * is 0 where n is 2^64: that cannot be, since then every word is a value. */
void sa_sorted_ranks(const sa_sorted *sorted, uint64_t *words, uint8_t *found, size_t count);

#endif
