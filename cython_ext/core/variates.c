/* variates.c - normal variates and numbers of a range. Words, invariants, threads and cost: variates.h. */
#include "variates.h"

#include <math.h>
#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

__extension__ typedef unsigned __int128 wide;

#define LN2_HIGH 0x1.62e42fee00000p-1 /* 33 bits: times an exponent it is exact */
#define LN2_LOW 0x1.a39ef35793c76p-33

/* 1 / 21, 1 / 19, ... 1 / 3: the series of artanh beyond its first term. */
static const double ODD_RECIPROCALS[10] = {1.0 / 21.0, 1.0 / 19.0, 1.0 / 17.0, 1.0 / 15.0, 1.0 / 13.0,
                                           1.0 / 11.0, 1.0 / 9.0,  1.0 / 7.0,  1.0 / 5.0,  1.0 / 3.0};

/* Natural logarithm of a normal double above 0: x = m * 2^e with m from sqrt(1/2) to sqrt(2), and the series of
 * 2 * artanh((m - 1) / (m + 1)). The error stays below 2 units in the last place. */
static double logarithm(double x) {
    uint64_t word;
    memcpy(&word, &x, sizeof word);
    /* 0x95F62 / 2^20 is how far sqrt(2) lies below 2 in the leading bits of the mantissa */
    uint64_t shifted = word + ((uint64_t)0x95F62 << 32);
    int exponent = (int)(shifted >> 52) - 1023;
    word -= (uint64_t)exponent << 52;
    double m;
    memcpy(&m, &word, sizeof m);
    double s = (m - 1.0) / (m + 1.0), t = s * s;
    double series = ODD_RECIPROCALS[0];
    for (int i = 1; i < 10; i++) series = series * t + ODD_RECIPROCALS[i];
    return exponent * LN2_HIGH + (s * 2.0 + (s * 2.0 * t * series + exponent * LN2_LOW));
}

/* coefficients[0] is that of the highest power. */
static inline double polynomial(const double coefficients[8], double x) {
    double sum = coefficients[0];
    for (int i = 1; i < 8; i++) sum = sum * x + coefficients[i];
    return sum;
}

static const double CENTRE_ABOVE[8] = {
    2.5090809287301226727e+3, 3.3430575583588128105e+4, 6.7265770927008700853e+4, 4.5921953931549871457e+4,
    1.3731693765509461125e+4, 1.9715909503065514427e+3, 1.3314166789178437745e+2, 3.3871328727963666080e+0};
static const double CENTRE_BELOW[8] = {
    5.2264952788528545610e+3, 2.8729085735721942674e+4, 3.9307895800092710610e+4, 2.1213794301586595867e+4,
    5.3941960214247511077e+3, 6.8718700749205790830e+2, 4.2313330701600911252e+1, 1.0};
static const double TAIL_ABOVE[8] = {
    7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e+0,
    3.64784832476320460504e+0, 5.76949722146069140550e+0, 4.63033784615654529590e+0, 1.42343711074968357734e+0};
static const double TAIL_BELOW[8] = {
    1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
    6.89767334985100004550e-1, 1.67638483018380384940e+0, 2.05319162663775882187e+0, 1.0};
static const double FAR_ABOVE[8] = {
    2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
    2.96560571828504891230e-1, 1.78482653991729133580e+0, 5.46378491116411436990e+0, 6.65790464350110377720e+0};
static const double FAR_BELOW[8] = {
    2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
    1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0};

/* The value above which a normal variate lies with probability p, for 2^-65 <= p < 0.075. */
static double tail_quantile_slow(double p) {
    double r = sqrt(-logarithm(p));
    if (r <= 5.0) {
        r = r - 1.6;
        return polynomial(TAIL_ABOVE, r) / polynomial(TAIL_BELOW, r);
    }
    r = r - 5.0;
    return polynomial(FAR_ABOVE, r) / polynomial(FAR_BELOW, r);
}

/* Cost: two polynomials and a division; one in seven goes to a tail. */
double sa_normal_of_bits(uint64_t bits) {
    double p = ((double)(int64_t)(bits & INT64_MAX) + 0.5) * 0x1p-64;
    double distance = 0.5 - p, value;
    if (distance <= 0.425) {
        double r = 0.180625 - distance * distance;
        value = distance * polynomial(CENTRE_ABOVE, r) / polynomial(CENTRE_BELOW, r);
    } else {
        value = tail_quantile_slow(p);
    }
    return bits >> 63 ? -value : value;
}

/* Cost: one multiplication, but for a share of span / 2^64 of the words. */
uint64_t sa_range_of_bits(const sa_mixer_key *key, uint64_t bits, uint64_t span) {
    if (span == 0) return bits;
    wide product = (wide)bits * span;
    if ((uint64_t)product < span) {
        uint64_t rejected_below = (0 - span) % span;
        for (int draws = 1; (uint64_t)product < rejected_below && draws < SA_RANGE_DRAWS_MAX; draws++) {
            bits = sa_mix(key, bits);
            product = (wide)bits * span;
        }
    }
    return (uint64_t)(product >> 64);
}
