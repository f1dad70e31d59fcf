/* mixer.c - the levels of the function, and the choice among them. Words, invariants, threads and cost: mixer.h. */
#include "mixer.h"

#include <stdatomic.h>
#include <string.h>

typedef struct sa_mixer_loops {
    void (*fill_bits)(const sa_mixer_key *, uint64_t, uint64_t, uint64_t *, size_t);
    void (*fill_doubles)(const sa_mixer_key *, uint64_t, uint64_t, double *, size_t);
    void (*fill_floats)(const sa_mixer_key *, uint64_t, uint64_t, float *, size_t);
    void (*stream_bits)(const sa_mixer_key *, uint64_t, uint64_t, uint64_t *, size_t);
    void (*stream_doubles)(const sa_mixer_key *, uint64_t, uint64_t, double *, size_t);
    void (*gather_bits)(const sa_mixer_key *, const uint64_t *, uint64_t *, size_t);
    void (*gather_doubles)(const sa_mixer_key *, const uint64_t *, double *, size_t);
    void (*gather_floats)(const sa_mixer_key *, const uint64_t *, float *, size_t);
    void (*stream_gather_bits)(const sa_mixer_key *, const uint64_t *, uint64_t *, size_t);
    void (*stream_gather_doubles)(const sa_mixer_key *, const uint64_t *, double *, size_t);
    void (*unmix)(const sa_mixer_key *, const uint64_t *, uint64_t *, size_t);
} sa_mixer_loops;

#if defined(__x86_64__) && defined(__GNUC__)
#define SA_HAS_VECTORS 1
#include <immintrin.h>
#else
#define SA_HAS_VECTORS 0
#endif

#define SA_LEVEL(name) baseline_##name
#define SA_TARGET
#define SA_LANES 1
#define SA_TO_DOUBLE(word) ((double)(int64_t)(word))
#define SA_TO_FLOAT(value) ((float)(value))
#if SA_HAS_VECTORS
#define SA_STREAM(pointer, word) _mm_stream_si64((long long *)(void *)(pointer), (long long)(word))
#define SA_STREAM_END() _mm_sfence()
#else
#define SA_STREAM(pointer, word) memcpy((pointer), &(word), sizeof(word))
#define SA_STREAM_END() ((void)0)
#endif
#include "mixer_loops.h"

#if SA_HAS_VECTORS

/* Halves of a word below 2^53 become the low bits of 2^84 and of 2^52; both subtractions and the sum are exact. */
#define SA_LEVEL(name) avx2_##name
#define SA_TARGET __attribute__((target("avx2")))
#define SA_LANES 4
#define SA_TO_DOUBLE(pack)                                                                     \
    (((avx2_doubles)((pack) >> 32 | 0x4530000000000000u) - (0x1p84 + 0x1p52)) +                \
     (avx2_doubles)(((pack) & 0xFFFFFFFFu) | 0x4330000000000000u))
#define SA_TO_FLOAT(pack) __builtin_convertvector((pack), avx2_floats)
#define SA_STREAM(pointer, pack) _mm256_stream_si256((__m256i *)(void *)(pointer), (__m256i)(pack))
#define SA_STREAM_END() _mm_sfence()
#include "mixer_loops.h"

#define SA_LEVEL(name) avx512_##name
#define SA_TARGET __attribute__((target("avx512f,avx512dq,avx512vl")))
#define SA_LANES 8
#define SA_TO_DOUBLE(pack) ((avx512_doubles)_mm512_cvtepi64_pd((__m512i)(pack)))
#define SA_TO_FLOAT(pack) __builtin_convertvector((pack), avx512_floats)
#define SA_STREAM(pointer, pack) _mm512_stream_si512((__m512i *)(void *)(pointer), (__m512i)(pack))
#define SA_STREAM_END() _mm_sfence()
#include "mixer_loops.h"

static const sa_mixer_loops *const LOOPS[SA_LEVEL_COUNT] = {&baseline_loops, &avx2_loops, &avx512_loops};

int sa_mixer_has_level(sa_mixer_level level) {
    if (level == SA_LEVEL_AVX512) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
    }
    return level == SA_LEVEL_BASELINE || (level == SA_LEVEL_AVX2 && __builtin_cpu_supports("avx2"));
}

#else

static const sa_mixer_loops *const LOOPS[SA_LEVEL_COUNT] = {&baseline_loops, &baseline_loops, &baseline_loops};

int sa_mixer_has_level(sa_mixer_level level) { return level == SA_LEVEL_BASELINE; }

#endif

/* SA_LEVEL_COUNT until the first use. */
static atomic_int level_in_use = SA_LEVEL_COUNT;

sa_mixer_level sa_mixer_level_in_use(void) {
    int level = atomic_load_explicit(&level_in_use, memory_order_relaxed);
    if (level == SA_LEVEL_COUNT) {
        level = SA_LEVEL_COUNT - 1;
        while (!sa_mixer_has_level((sa_mixer_level)level)) level--;
        atomic_store_explicit(&level_in_use, level, memory_order_relaxed);
    }
    return (sa_mixer_level)level;
}

void sa_mixer_use_level(sa_mixer_level level) {
    atomic_store_explicit(&level_in_use, (int)level, memory_order_relaxed);
}

static const sa_mixer_loops *loops(void) { return LOOPS[sa_mixer_level_in_use()]; }

void sa_mixer_fill_bits(const sa_mixer_key *key, uint64_t start, uint64_t step, uint64_t *out, size_t count) {
    int streams = count * sizeof *out >= SA_STREAM_BYTES_MIN;
    (streams ? loops()->stream_bits : loops()->fill_bits)(key, start, step, out, count);
}

void sa_mixer_fill_doubles(const sa_mixer_key *key, uint64_t start, uint64_t step, double *out, size_t count) {
    int streams = count * sizeof *out >= SA_STREAM_BYTES_MIN;
    (streams ? loops()->stream_doubles : loops()->fill_doubles)(key, start, step, out, count);
}

void sa_mixer_fill_floats(const sa_mixer_key *key, uint64_t start, uint64_t step, float *out, size_t count) {
    loops()->fill_floats(key, start, step, out, count);
}

void sa_mixer_gather_bits(const sa_mixer_key *key, const uint64_t *addresses, uint64_t *out, size_t count) {
    int streams = count * sizeof *out >= SA_STREAM_BYTES_MIN && out != addresses;
    (streams ? loops()->stream_gather_bits : loops()->gather_bits)(key, addresses, out, count);
}

void sa_mixer_gather_doubles(const sa_mixer_key *key, const uint64_t *addresses, double *out, size_t count) {
    int streams = count * sizeof *out >= SA_STREAM_BYTES_MIN;
    (streams ? loops()->stream_gather_doubles : loops()->gather_doubles)(key, addresses, out, count);
}

void sa_mixer_gather_floats(const sa_mixer_key *key, const uint64_t *addresses, float *out, size_t count) {
    loops()->gather_floats(key, addresses, out, count);
}

void sa_mixer_unmix(const sa_mixer_key *key, const uint64_t *bits, uint64_t *out, size_t count) {
    loops()->unmix(key, bits, out, count);
}
