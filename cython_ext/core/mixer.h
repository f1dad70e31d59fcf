/* mixer.h - the function of a GenerativeSpace, version 1: a keyed bijection of 64-bit words (mx3, three multiplications).
 *
 * Words: an *address* is any 64-bit word; its *bits* are what the bijection makes of it; a *key* is three words, hashed
 * from a seed; a *level* is one compiled form of the loops; *streaming* stores go past the caches to memory.
 *
 *   address -> ^k0 -> z ^= z >> 32, z *= C, z += k1 -> z ^= z >> 29, z *= C -> z ^= z >> 32, z *= C -> z ^= z >> 29 -> ^k2 -> bits
 *   double  = (bits >> 11) * 2^-53      float = (bits >> 40) * 2^-24      both in [0, 1), never 1
 *
 * Invariants:
 *   1. Every step is a bijection of 64-bit words, so sa_mix is one for every key, and sa_unmix(sa_mix(a)) == a.
 *   2. The function is frozen: tests/data/space_vectors_1.json holds what a program in plain Python computed.
 *   3. All levels give the same bits: they run the same integer steps, and the conversions to double and float are exact.
 *
 * Threads: no state but the level, which is set at import and by tests; every function is pure.
 * Cost: 0.5 to 1.3 ns a value in loops, some 4 ns alone. A fill or gather of at least SA_STREAM_BYTES_MIN bytes is
 * written with streaming stores, since lines that are read before they are overwritten cost more than the values.
 */
#ifndef SA_MIXER_H
#define SA_MIXER_H

#include <stddef.h>
#include <stdint.h>

#define SA_MIX_MULTIPLIER 0xBEA225F9EB34556Du
#define SA_MIX_INVERSE 0xDD01F46A7E6FFC65u /* SA_MIX_MULTIPLIER * SA_MIX_INVERSE == 1 modulo 2^64 */

enum { SA_STREAM_BYTES_MIN = 1 << 20 };

typedef enum sa_mixer_level { SA_LEVEL_BASELINE, SA_LEVEL_AVX2, SA_LEVEL_AVX512, SA_LEVEL_COUNT } sa_mixer_level;

typedef struct sa_mixer_key {
    uint64_t k0, k1, k2;
} sa_mixer_key;

_Static_assert(sizeof(sa_mixer_key) == 24, "a key is three words without padding");

/* The rounds between the two keyed XORs, for a word or a pack of words: a macro, since a pack's type differs by level. */
#define SA_MIX_ROUNDS(z, key)     \
    do {                          \
        z ^= z >> 32;             \
        z *= SA_MIX_MULTIPLIER;   \
        z += (key)->k1;           \
        z ^= z >> 29;             \
        z *= SA_MIX_MULTIPLIER;   \
        z ^= z >> 32;             \
        z *= SA_MIX_MULTIPLIER;   \
        z ^= z >> 29;             \
    } while (0)

static inline uint64_t sa_mix(const sa_mixer_key *key, uint64_t address) {
    uint64_t z = address ^ key->k0;
    SA_MIX_ROUNDS(z, key);
    return z ^ key->k2;
}

/* The same rounds undone. */
#define SA_UNMIX_ROUNDS(z, key)   \
    do {                          \
        z ^= z >> 29 ^ z >> 58;   \
        z *= SA_MIX_INVERSE;      \
        z ^= z >> 32;             \
        z *= SA_MIX_INVERSE;      \
        z ^= z >> 29 ^ z >> 58;   \
        z -= (key)->k1;           \
        z *= SA_MIX_INVERSE;      \
        z ^= z >> 32;             \
    } while (0)

/* The address whose bits these are. */
static inline uint64_t sa_unmix(const sa_mixer_key *key, uint64_t bits) {
    uint64_t z = bits ^ key->k2;
    SA_UNMIX_ROUNDS(z, key);
    return z ^ key->k0;
}

static inline double sa_double_of_bits(uint64_t bits) { return (double)(int64_t)(bits >> 11) * 0x1p-53; }

static inline float sa_float_of_bits(uint64_t bits) { return (float)(int32_t)(bits >> 40) * 0x1p-24f; }

/* out[i] belongs to address start + i * step modulo 2^64. */
void sa_mixer_fill_bits(const sa_mixer_key *key, uint64_t start, uint64_t step, uint64_t *out, size_t count);
void sa_mixer_fill_doubles(const sa_mixer_key *key, uint64_t start, uint64_t step, double *out, size_t count);
void sa_mixer_fill_floats(const sa_mixer_key *key, uint64_t start, uint64_t step, float *out, size_t count);

/* out[i] belongs to addresses[i]; the two may be the same array. */
void sa_mixer_gather_bits(const sa_mixer_key *key, const uint64_t *addresses, uint64_t *out, size_t count);
void sa_mixer_gather_doubles(const sa_mixer_key *key, const uint64_t *addresses, double *out, size_t count);
void sa_mixer_gather_floats(const sa_mixer_key *key, const uint64_t *addresses, float *out, size_t count);

/* out[i] is the address whose bits are bits[i]. */
void sa_mixer_unmix(const sa_mixer_key *key, const uint64_t *bits, uint64_t *out, size_t count);

/* 1 if this processor runs the level, else 0. */
int sa_mixer_has_level(sa_mixer_level level);

/* The level in use; at first the highest that the processor runs. */
sa_mixer_level sa_mixer_level_in_use(void);

/* Use a level that sa_mixer_has_level. */
void sa_mixer_use_level(sa_mixer_level level);

#endif
