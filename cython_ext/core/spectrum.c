/* spectrum.c - the nearest band in constant time. Words, layout, invariants, threads and cost: spectrum.h. */
#include "spectrum.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bucket of t, for any double: NaN and what lies left of the range go to the first, what lies right to the
 * last. Subtraction, product and truncation are monotone under rounding, so the whole is (invariant 3). */
static inline int32_t bucket_of(const sa_spectrum *spectrum, double t) {
    double place = (t - spectrum->origin) * spectrum->scale;
    if (!(place > 0.0)) return 0;
    if (place >= (double)spectrum->bucket_count) return spectrum->bucket_count - 1;
    return (int32_t)place;
}

/* 1 when the band after position is strictly nearer to t than the band at position. This is the tie rule. The
 * +inf at the end makes it false at the last position. Along positions it is 1...1 0...0 for every t. */
static inline int next_is_nearer(const double *bands, int32_t position, double t) {
    return bands[position + 1] - t < t - bands[position];
}

/* First position in [low, high] where next_is_nearer is 0: for crowded buckets only. O(log(high - low)). */
static int32_t position_in_crowd_slow(const double *bands, int32_t low, int32_t high, double t) {
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (next_is_nearer(bands, middle, t)) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* Cost: two neighbouring loads of before, then mostly two or three bands, and no division. */
static inline int32_t position_of(const sa_spectrum *spectrum, double t) {
    int32_t bucket = bucket_of(spectrum, t);
    int32_t first = spectrum->before[bucket], end = spectrum->before[bucket + 1];
    int32_t position = first - (first > 0);
    if (end - first > SA_SPECTRUM_WALK_MAX) {
        int32_t last = end < spectrum->count ? end : spectrum->count - 1;
        return position_in_crowd_slow(spectrum->bands, position, last, t);
    }
    while (next_is_nearer(spectrum->bands, position, t)) position++;
    return position;
}

int32_t sa_spectrum_position(const sa_spectrum *spectrum, double t) { return position_of(spectrum, t); }

void sa_spectrum_nearest(const sa_spectrum *spectrum, const double *t, int64_t length, int64_t *out) {
    const int64_t *indices = spectrum->indices;
    for (int64_t k = 0; k < length; k++) out[k] = indices[position_of(spectrum, t[k])];
}

int64_t sa_spectrum_first_bad(const double *t, int64_t length) {
    int64_t k = 0;
    while (k < length && sa_spectrum_is_frequency(t[k])) k++;
    return k;
}

int64_t sa_spectrum_first_unsorted(const double *bands, int64_t count) {
    double previous = 0.0;
    for (int64_t k = 0; k < count; k++) {
        if (!sa_spectrum_is_frequency(bands[k]) || bands[k] <= previous) return k;
        previous = bands[k];
    }
    return count;
}

/* Two passes: count the bands of each bucket one place to the right, then sum up. */
static void fill_before(sa_spectrum *spectrum) {
    memset(spectrum->before, 0, ((size_t)spectrum->bucket_count + 1) * sizeof(int32_t));
    int32_t *before = spectrum->before;
    for (int32_t k = 0; k < spectrum->count; k++) before[bucket_of(spectrum, spectrum->bands[k]) + 1]++;
    for (int32_t k = 0; k < spectrum->bucket_count; k++) before[k + 1] += before[k];
}

int sa_spectrum_new(sa_spectrum *spectrum, const double *bands, const int64_t *indices, int64_t count) {
    size_t band_count = (size_t)count, bucket_count = band_count * SA_SPECTRUM_BUCKETS_PER_BAND;
    size_t bands_bytes = (band_count + 1) * sizeof(double), indices_bytes = band_count * sizeof(int64_t);
    char *block = malloc(bands_bytes + indices_bytes + (bucket_count + 1) * sizeof(int32_t));
    if (block == NULL) return -1;
    spectrum->bands = (double *)block;
    spectrum->indices = (int64_t *)(block + bands_bytes);
    spectrum->before = (int32_t *)(block + bands_bytes + indices_bytes);
    spectrum->count = (int32_t)count;
    spectrum->bucket_count = (int32_t)bucket_count;
    memcpy(spectrum->bands, bands, band_count * sizeof(double));
    spectrum->bands[count] = INFINITY;
    memcpy(spectrum->indices, indices, indices_bytes);
    spectrum->origin = bands[0];
    /* One band, or bands that differ by next to nothing, have no finite scale; then bucket 0 is bisected. */
    double width = bands[count - 1] - bands[0];
    double scale = width > 0.0 ? (double)bucket_count / width : INFINITY;
    spectrum->scale = isfinite(scale) ? scale : 0.0;
    fill_before(spectrum);
    return 0;
}

void sa_spectrum_free(sa_spectrum *spectrum) {
    free(spectrum->bands);
    memset(spectrum, 0, sizeof *spectrum);
}

/* Invariant 2, independent of fill_before: walk bands and buckets side by side. */
static int before_is_valid(const sa_spectrum *spectrum) {
    int32_t seen = 0;
    for (int32_t k = 0; k <= spectrum->bucket_count; k++) {
        while (seen < spectrum->count && bucket_of(spectrum, spectrum->bands[seen]) < k) seen++;
        if (spectrum->before[k] != seen) return 0;
    }
    return spectrum->before[0] == 0 && seen == spectrum->count;
}

int sa_spectrum_check(const sa_spectrum *spectrum) {
    const double *bands = spectrum->bands;
    int32_t count = spectrum->count;
    if (count < 1 || sa_spectrum_first_unsorted(bands, count) != count || !isinf(bands[count])) return 1;
    if (!before_is_valid(spectrum)) return 2;
    for (int32_t k = 0; k < count; k++) {
        if (position_of(spectrum, bands[k]) != k) return 3;
        if (k > 0 && bucket_of(spectrum, bands[k]) < bucket_of(spectrum, bands[k - 1])) return 3;
    }
    return 0;
}
