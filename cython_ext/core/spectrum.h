/* spectrum.h - finds the band nearest to a frequency in constant time.
 *
 * Words: a *band* is a frequency of the table; its *position* is its place there, from 0; its *index* is the
 * number its owner knows it by (for zeta zeros n of gamma_n), which survives when other bands come and go. A
 * *bucket* is one of bucket_count equal slices of the range from the first band to the last, with everything
 * outside in the end slices.
 *
 *   bands    | b0 | b1 | ... | b(count-1) | +inf |     8 bytes each, strictly increasing; +inf ends all walks
 *   indices  | i0 | i1 | ... | i(count-1) |            8 bytes each
 *   before   | 0 | ... | count |                       4 bytes each, bucket_count + 1 of them:
 *                                                      before[k] = number of bands in the buckets below k
 *   all three in one allocation, in this order.
 *
 * The answer for t is the band b with the smallest |t - b|. Between neighbours low and high it is high when
 * high - t < t - low, both computed in double, else low; so a tie goes to the lower one. The differences are
 * exact where high <= 2 * low (Sterbenz), which holds for all neighbouring zeta zeros. Elsewhere they are
 * correctly rounded, and a t within their rounding of the midpoint is a tie.
 *
 * Invariants (sa_spectrum_check tests all of them):
 *   1. bands are finite, positive and strictly increasing, and bands[count] is +inf.
 *   2. before[0] is 0, before[bucket_count] is count, and before[k] counts the bands whose bucket is below k.
 *   3. The bucket of t never decreases as t grows (each operation is monotone under rounding). Hence all
 *      bands of lower buckets are < t, all of higher ones are > t, and the answer is a position from
 *      before[bucket] - 1 to before[bucket + 1], whatever the rounding at the edges. Tested at every band.
 *
 * Threads: immutable from sa_spectrum_new to sa_spectrum_free, so any number may read without a lock.
 * Cost: a query reads two entries of before and walks at most SA_SPECTRUM_WALK_MAX + 1 bands. A bucket with
 * more than SA_SPECTRUM_WALK_MAX bands is bisected instead; the first n zeros have none, other sets may.
 * Memory: 8 + 8 + 4 * SA_SPECTRUM_BUCKETS_PER_BAND bytes for each band.
 */
#ifndef SA_SPECTRUM_H
#define SA_SPECTRUM_H

#include <float.h>
#include <stdint.h>

enum {
    SA_SPECTRUM_BUCKETS_PER_BAND = 2,    /* half a mean gap each, so most buckets hold no band or one */
    SA_SPECTRUM_WALK_MAX = 8,            /* bands of one bucket that are cheaper to walk than to bisect */
    SA_SPECTRUM_BAND_COUNT_MAX = 1 << 23 /* as many indices as a 23-bit field tells apart */
};

typedef struct sa_spectrum {
    double *bands;       /* count + 1 frequencies, owned; also the start of the one allocation */
    int64_t *indices;    /* count numbers, inside the same allocation */
    int32_t *before;     /* bucket_count + 1 band counts, inside the same allocation */
    double origin;       /* the first band: left edge of bucket 0 */
    double scale;        /* buckets per unit of frequency; 0 puts everything in bucket 0 */
    int32_t count;       /* bands, 1 to SA_SPECTRUM_BAND_COUNT_MAX */
    int32_t bucket_count;
} sa_spectrum;

_Static_assert(SA_SPECTRUM_BAND_COUNT_MAX < INT32_MAX / SA_SPECTRUM_BUCKETS_PER_BAND, "buckets fit int32_t");
_Static_assert(sizeof(double) == 8 && sizeof(int64_t) % _Alignof(int32_t) == 0, "arrays pack without holes");
_Static_assert(sizeof(sa_spectrum) == 3 * sizeof(void *) + 2 * sizeof(double) + 8, "no padding");

/* 1 when t is a frequency: finite and above 0. */
static inline int sa_spectrum_is_frequency(double t) { return t > 0.0 && t <= DBL_MAX; }

/* Position of the first element that is no frequency, or length. O(length). */
int64_t sa_spectrum_first_bad(const double *t, int64_t length);

/* Position of the first band that is no frequency or not above its predecessor, or count. O(count). */
int64_t sa_spectrum_first_unsorted(const double *bands, int64_t count);

/* Fill *spectrum with copies of the bands (as sa_spectrum_first_unsorted accepts) and of their indices; count
 * is 1 to SA_SPECTRUM_BAND_COUNT_MAX. 0, or -1 without memory and *spectrum untouched. O(count). */
int sa_spectrum_new(sa_spectrum *spectrum, const double *bands, const int64_t *indices, int64_t count);

/* Give the memory back; a zeroed struct is fine, too. */
void sa_spectrum_free(sa_spectrum *spectrum);

/* Position of the band nearest to t. Any double is memory-safe; only frequencies have a meaning. O(1). */
int32_t sa_spectrum_position(const sa_spectrum *spectrum, double t);

/* out[k] = index of the band nearest to t[k]. O(length). */
void sa_spectrum_nearest(const sa_spectrum *spectrum, const double *t, int64_t length, int64_t *out);

/* 0, or the number of the first invariant above that is broken. O(count). */
int sa_spectrum_check(const sa_spectrum *spectrum);

#endif
