/* formula_series.c - growing and fitting of series. Words, invariants, threads and cost: formula_series.h. */
#include "formula_series.h"

#include <math.h>

/* How far around an estimate the step is looked for, in units of its last place. */
enum { STEP_ULPS = 6 };

/* A step that is wrong in its last place gives many items right, so lines are probed more often than other blocks. */
enum { LINE_PROBES = 256, LINE_PROBES_WRONG_MAX = 6 };

/* Flatter lines are not looked for: whole numbers that are read as floats look like them, and take processors long. */
static const double RANGE_MIN = 0x1p-900;

/* Decimal steps have at most so many digits behind the point. */
enum { DECIMALS_MAX = 15 };

/* ---- polynomials ---- */

/* binomial(at, order) for any whole `at`, modulo 2^64. */
static uint64_t binomial(__int128 at, unsigned order) {
    switch (order) {
    case 0: return 1;
    case 1: return (uint64_t)at;
    case 2: return (uint64_t)(at * (at - 1) / 2);
    case 3: return (uint64_t)(at * (at - 1) * (at - 2) / 6);
    default: return (uint64_t)(at * (at - 1) * (at - 2) * (at - 3) / 24);
    }
}

uint64_t sa_polynomial_item(const sa_polynomial *polynomial, uint64_t index) {
    uint64_t item = 0;
    for (unsigned order = 0; order <= polynomial->degree; order++) {
        item += polynomial->difference[order] * binomial((__int128)index, order);
    }
    return item;
}

/* Inlined for each type, so that width and order are constants in the loop. */
static inline __attribute__((always_inline)) void grow_polynomial(
    const sa_polynomial *polynomial, uint8_t *out, size_t items, unsigned type) {
    uint64_t d0 = polynomial->difference[0], d1 = polynomial->difference[1], d2 = polynomial->difference[2];
    uint64_t d3 = polynomial->difference[3], d4 = polynomial->difference[4], mask = ~0ull >> (64 - 8 * sa_type_width(type));
    for (size_t i = 0; i < items; i++, d0 += d1, d1 += d2, d2 += d3, d3 += d4) sa_put_item(out, i, d0 & mask, type);
}

void sa_polynomial_grow(const sa_polynomial *polynomial, uint8_t *out, size_t items) {
    switch (polynomial->type) {
    case 3: grow_polynomial(polynomial, out, items, 3); break;
    case 2: grow_polynomial(polynomial, out, items, 2); break;
    case 1: grow_polynomial(polynomial, out, items, 1); break;
    case SA_TYPE_BIG | 3: grow_polynomial(polynomial, out, items, SA_TYPE_BIG | 3); break;
    case SA_TYPE_BIG | 2: grow_polynomial(polynomial, out, items, SA_TYPE_BIG | 2); break;
    case SA_TYPE_BIG | 1: grow_polynomial(polynomial, out, items, SA_TYPE_BIG | 1); break;
    default: grow_polynomial(polynomial, out, items, 0);
    }
}

/* Six items have a fifth difference: most blocks are none of ours by this one. */
static int is_bent(const uint8_t *block, size_t at, unsigned type) {
    uint64_t v[SA_DEGREE_MAX + 2];
    for (unsigned i = 0; i < SA_DEGREE_MAX + 2; i++) v[i] = sa_item_at(block, at + i, type);
    uint64_t fifth = v[5] - v[0] + 5 * (v[1] - v[4]) + 10 * (v[3] - v[2]);
    return fifth << (64 - 8 * sa_type_width(type)) != 0;
}

int sa_polynomial_fit(sa_polynomial *polynomial, const uint8_t *block, size_t at, unsigned type) {
    uint64_t value[SA_SERIES_ITEMS_MIN], here[SA_DEGREE_MAX + 1];
    unsigned unused = 64 - 8 * sa_type_width(type);
    if (is_bent(block, at, type)) return 0;
    for (unsigned i = 0; i < SA_SERIES_ITEMS_MIN; i++) value[i] = sa_item_at(block, at + i, type);
    unsigned left = SA_SERIES_ITEMS_MIN;
    for (unsigned order = 0; order <= SA_DEGREE_MAX; order++) {
        here[order] = value[0];
        left--;
        for (unsigned i = 0; i < left; i++) value[i] = value[i + 1] - value[i];
    }
    uint64_t rest = 0;
    for (unsigned i = 0; i < left; i++) rest |= value[i];
    if (rest << unused != 0) return 0;
    *polynomial = (sa_polynomial){.type = type};
    for (unsigned order = 0; order <= SA_DEGREE_MAX; order++) {
        uint64_t difference = 0;
        for (unsigned more = 0; order + more <= SA_DEGREE_MAX; more++) {
            difference += here[order + more] * binomial(-(__int128)at, more);
        }
        /* The shortest form of what only counts modulo the width. */
        difference = (uint64_t)((int64_t)(difference << unused) >> unused);
        polynomial->difference[order] = difference;
        if (difference != 0) polynomial->degree = order;
    }
    return 1;
}

/* ---- floats ---- */

static double wide_of(uint64_t raw, unsigned width) {
    return width == 8 ? sa_double_of_raw(raw) : (double)sa_float_of_raw(raw);
}

static uint64_t raw_of(double value, unsigned width) {
    return width == 8 ? sa_raw_of_double(value) : sa_raw_of_float((float)value);
}

static inline uint64_t affine_raw(const sa_affine *affine, size_t index) {
    if (sa_affine_width(affine->type) == 4) {
        float product = (float)index * sa_float_of_raw(affine->step);
        return sa_raw_of_float(product + sa_float_of_raw(affine->start));
    }
    double product = (double)index * sa_double_of_raw(affine->step);
    double sum = product + sa_double_of_raw(affine->start);
    return affine->type & SA_TYPE_NARROW ? sa_raw_of_float((float)sum) : sa_raw_of_double(sum);
}

static uint64_t last_raw(const sa_affine *affine) {
    return affine->type & SA_TYPE_NARROW ? sa_raw_of_float((float)sa_double_of_raw(affine->stop)) : affine->stop;
}

uint64_t sa_affine_item(const sa_affine *affine, size_t index, size_t items) {
    return affine->type & SA_TYPE_LAST && index + 1 == items ? last_raw(affine) : affine_raw(affine, index);
}

static void grow_doubles(const sa_affine *affine, uint8_t *out, size_t items) {
    double start = sa_double_of_raw(affine->start), step = sa_double_of_raw(affine->step);
    for (size_t i = 0; i < items; i++) {
        double product = (double)(int32_t)i * step, sum = product + start;
        memcpy(out + 8 * i, &sum, 8);
    }
}

_Static_assert(SA_FORMULA_RAW_MAX <= INT32_MAX, "an index of an item is a 32-bit number, which converts faster");

static void grow_floats(const sa_affine *affine, uint8_t *out, size_t items) {
    float start = sa_float_of_raw(affine->start), step = sa_float_of_raw(affine->step);
    for (size_t i = 0; i < items; i++) {
        float product = (float)(int32_t)i * step, sum = product + start;
        memcpy(out + 4 * i, &sum, 4);
    }
}

static void grow_slowly(const sa_affine *affine, uint8_t *out, size_t items) {
    for (size_t i = 0; i < items; i++) sa_put_item(out, i, affine_raw(affine, i), affine->type);
}

void sa_affine_grow(const sa_affine *affine, uint8_t *out, size_t items) {
    unsigned width = sa_type_width(affine->type);
    if ((affine->type & SA_TYPE_BIG) != SA_NATIVE_BIG || affine->type & SA_TYPE_NARROW) {
        grow_slowly(affine, out, items);
    } else if (width == 8) {
        grow_doubles(affine, out, items);
    } else {
        grow_floats(affine, out, items);
    }
    if (affine->type & SA_TYPE_LAST && items > 0) sa_put_item(out, items - 1, last_raw(affine), affine->type);
}

/* ---- fitting floats ---- */

typedef struct fitting {
    const uint8_t *block;
    size_t items;
    sa_affine *affine;
    unsigned most; /* wrong probes */
} fitting;

static double item_value(const fitting *fit, size_t index) {
    return wide_of(sa_item_at(fit->block, index, fit->affine->type), sa_type_width(fit->affine->type));
}

/* Does the candidate give all probes but `most`? */
static int agrees(const fitting *fit, double start, double step, unsigned type) {
    unsigned wrong = 0, width = sa_affine_width(type);
    if (!isfinite(step)) return 0;
    fit->affine->type = type;
    fit->affine->start = raw_of(start, width);
    fit->affine->step = raw_of(step, width);
    fit->affine->stop = type & SA_TYPE_LAST ? raw_of(item_value(fit, fit->items - 1), width) : 0;
    for (unsigned probe = 0; probe < LINE_PROBES; probe++) {
        size_t index = sa_probe(probe, fit->items);
        if (sa_affine_item(fit->affine, index, fit->items) != sa_item_at(fit->block, index, type)) {
            if (++wrong > fit->most) return 0;
        }
    }
    return 1;
}

/* The steps that take `start` to all probes within rounding: narrows low and high; 0 if there are none. */
static int narrow_step(const fitting *fit, double start, double *low, double *high) {
    int is_float = sa_type_width(fit->affine->type) == 4;
    unsigned wrong = 0;
    *low = -INFINITY;
    *high = INFINITY;
    for (unsigned probe = 0; probe < SA_PROBES; probe++) {
        size_t index = sa_probe(probe, fit->items);
        double value = item_value(fit, index), size = fabs(value) > fabs(start) ? fabs(value) : fabs(start);
        double slack = size * (is_float ? FLT_EPSILON : DBL_EPSILON) * 1.5;
        double least = (value - slack - start) / (double)index, most = (value + slack - start) / (double)index;
        if (index == 0) continue;
        if (!(least <= *high && most >= *low)) {
            if (++wrong > SA_PROBES_WRONG_MAX) return 0;
            continue;
        }
        if (least > *low) *low = least;
        if (most < *high) *high = most;
    }
    return isfinite(*low) && isfinite(*high);
}

/* A step that a program may have written: few decimals, or one over a whole number. */
static int fit_written_step(const fitting *fit, double start, double low, double high, unsigned type) {
    double middle = low + (high - low) / 2, scale = 1;
    for (unsigned digits = 0; digits <= DECIMALS_MAX; digits++, scale *= 10) {
        double whole = nearbyint(middle * scale), step = whole / scale;
        if (fabs(whole) >= 0x1p53) break;
        if (step >= low && step <= high && step != 0 && agrees(fit, start, step, type)) return 1;
    }
    double inverse = 1 / nearbyint(1 / middle);
    return inverse >= low && inverse <= high && agrees(fit, start, inverse, type);
}

static int fit_near_step(const fitting *fit, double start, double middle, unsigned type) {
    double step = middle, below = middle, above = middle;
    for (unsigned ulps = 0; ulps <= 2 * STEP_ULPS; ulps++) {
        if (agrees(fit, start, step, type)) return 1;
        if (sa_affine_width(type) == 8) {
            step = ulps % 2 ? (below = nextafter(below, -INFINITY)) : (above = nextafter(above, INFINITY));
        } else {
            step = ulps % 2 ? (below = nextafterf((float)below, -INFINITY)) : (above = nextafterf((float)above, INFINITY));
        }
    }
    return 0;
}

/* One way to compute: in the width of the items, or in double for floats. */
static int fit_one_way(const fitting *fit, double low, double high, unsigned type) {
    unsigned width = sa_affine_width(type);
    double first = item_value(fit, 0), second = item_value(fit, 1), last = item_value(fit, fit->items - 1);
    double step = width == 8 ? second - first : (double)((float)second - (float)first);
    /* The difference of two narrow items says little of a step that was a double. */
    if (!(type & SA_TYPE_NARROW) && agrees(fit, first, step, type)) return 1;
    if (width == 8) step = (last - first) / (double)(fit->items - 1);
    else step = (double)(((float)last - (float)first) / (float)(fit->items - 1));
    if (agrees(fit, first, step, type | SA_TYPE_LAST)) return 1;
    if (fit_written_step(fit, first, low, high, type)) return 1;
    return fit_near_step(fit, first, low + (high - low) / 2, type);
}

/* Nearly all blocks leave here: the first four items, and three far ones, are on no line, or on a level one. */
static int is_on_a_line(const fitting *fit) {
    double first = item_value(fit, 0), last = item_value(fit, fit->items - 1);
    double range = last - first;
    if (!isfinite(range) || fabs(range) < RANGE_MIN) return 0;
    double mean = range / (double)(fit->items - 1);
    double size = fabs(first) > fabs(last) ? fabs(first) : fabs(last);
    double slack = size * (sa_type_width(fit->affine->type) == 4 ? FLT_EPSILON : DBL_EPSILON) * 8 + fabs(range) * 1e-12;
    unsigned wrong = 0;
    for (unsigned probe = 0; probe < 8; probe++) {
        size_t index = probe < 4 ? probe : sa_probe(probe, fit->items);
        wrong += !(fabs(item_value(fit, index) - first - mean * (double)index) <= slack);
    }
    return wrong <= 1;
}

int sa_affine_fit(sa_affine *affine, const uint8_t *block, size_t items, unsigned type) {
    fitting fit = {block, items, affine, 0};
    double low, high;
    *affine = (sa_affine){.type = type};
    if (!is_on_a_line(&fit)) return 0;
    if (!narrow_step(&fit, item_value(&fit, 0), &low, &high)) return 0;
    if (fit_one_way(&fit, low, high, type)) return 1;
    fit.most = LINE_PROBES_WRONG_MAX;
    return fit_one_way(&fit, low, high, type);
}
