/* variates.h - normal variates and whole numbers of a range from the bits of an address, the same on every machine.
 *
 * Words: *bits* as in mixer.h; a *variate* is the number that stands at an address; *span* is how many numbers a range has.
 *
 *   normal  | sign 1 | half 63 |    probability of the tail p = (half + 1/2) * 2^-64, value -+ quantile(p) of the normal law
 *   range   | bits * span, 128 bits | high 64: the number | low 64: below 2^64 mod span, the next bits are taken |
 *
 * The quantile is Wichura's AS 241 (PPND16, Applied Statistics 37, 1988), good to 1e-15. The logarithm is its own series,
 * since those of C libraries differ in the last bit.
 * A rejected word w is replaced by the bits of address w, at most SA_RANGE_DRAWS_MAX times; more are needed once in 2^64.
 *
 * Invariants:
 *   1. Only + - * / and sqrt of IEEE doubles in a fixed order, no contraction into fused operations: so the result is
 *      determined to the last bit, and the twin in plain Python agrees.
 *   2. If all words were equally likely, all numbers of a range would be: words over a multiple of span are rejected.
 *
 * Threads: pure. Cost: normal some 8 ns, in the tails (15 %) 25 ns; a number of a range 2 ns over its bits.
 */
#ifndef SA_VARIATES_H
#define SA_VARIATES_H

#include <float.h>

#include "mixer.h"

_Static_assert(FLT_RADIX == 2 && DBL_MANT_DIG == 53, "double is IEEE binary64");
_Static_assert(FLT_EVAL_METHOD == 0, "operations on double are rounded to double");

enum { SA_RANGE_DRAWS_MAX = 64 };

double sa_normal_of_bits(uint64_t bits);

/* A number from 0 to span - 1; a span of 0 stands for 2^64. */
uint64_t sa_range_of_bits(const sa_mixer_key *key, uint64_t bits, uint64_t span);

#endif
