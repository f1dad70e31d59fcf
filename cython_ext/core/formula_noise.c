/* formula_noise.c - generators of random numbers, and the tables of seeds. Words, invariants, threads, cost: formula_noise.h. */
#include "formula_noise.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLOT_BITS = 17,
    SLOTS = 1 << SLOT_BITS, /* twice the seeds, so that a search ends soon */
    NO_SEED = 0xFFFF, /* in the low half of a slot; in the high half stand bits of the print, to compare first */
    LANES = 16 /* seeds that are expanded together */
};

_Static_assert((int)SA_SEEDS == (int)NO_SEED, "a slot holds a seed, or this");

/* Bytes of an item, the low ones first. */
static inline void put_item(uint8_t *out, uint64_t item, size_t bytes) {
    if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__) item = __builtin_bswap64(item);
    memcpy(out, &item, bytes);
}

/* ---- MT19937 ---- */

static const uint32_t SEED_MULTIPLIER = 1812433253u;

void sa_mersenne_seed(sa_mersenne *mersenne, uint32_t seed) {
    for (uint32_t i = 0; i < SA_MERSENNE_WORDS; i++) {
        mersenne->word[i] = seed;
        seed = SEED_MULTIPLIER * (seed ^ seed >> 30) + i + 1;
    }
    mersenne->next = SA_MERSENNE_WORDS;
}

static inline uint32_t twist(uint32_t here, uint32_t after, uint32_t ahead) {
    uint32_t mixed = (here & 0x80000000u) | (after & 0x7FFFFFFFu);
    return ahead ^ mixed >> 1 ^ (-(after & 1) & 0x9908B0DFu);
}

static inline uint32_t temper(uint32_t word) {
    word ^= word >> 11;
    word ^= word << 7 & 0x9D2C5680u;
    word ^= word << 15 & 0xEFC60000u;
    return word ^ word >> 18;
}

static void refill(sa_mersenne *mersenne) {
    uint32_t *word = mersenne->word;
    size_t i = 0;
    for (; i < SA_MERSENNE_WORDS - SA_MERSENNE_AHEAD; i++) word[i] = twist(word[i], word[i + 1], word[i + SA_MERSENNE_AHEAD]);
    for (; i < SA_MERSENNE_WORDS - 1; i++) {
        word[i] = twist(word[i], word[i + 1], word[i + SA_MERSENNE_AHEAD - SA_MERSENNE_WORDS]);
    }
    word[i] = twist(word[i], word[0], word[SA_MERSENNE_AHEAD - 1]);
    mersenne->next = 0;
}

uint32_t sa_mersenne_draw(sa_mersenne *mersenne) {
    if (mersenne->next == SA_MERSENNE_WORDS) refill(mersenne);
    return temper(mersenne->word[mersenne->next++]);
}

static inline double double_of_draws(uint32_t first, uint32_t second) {
    return ((double)(int32_t)(first >> 5) * 67108864.0 + (double)(int32_t)(second >> 6)) / 9007199254740992.0;
}

static uint64_t mersenne_item(sa_mersenne *mersenne, sa_noise_form form) {
    uint32_t first = sa_mersenne_draw(mersenne), second = sa_mersenne_draw(mersenne);
    if (form == SA_NOISE_DOUBLE) return sa_raw_of_double(double_of_draws(first, second));
    return (uint64_t)second << 32 | first;
}

void sa_mersenne_grow(sa_mersenne *mersenne, sa_noise_form form, uint8_t *out, size_t bytes) {
    size_t at = 0;
    for (; at + 8 <= bytes; at += 8) {
        put_item(out + at, mersenne_item(mersenne, form), 8);
    }
    if (at < bytes) put_item(out + at, mersenne_item(mersenne, form), bytes - at);
}

/* ---- PCG64 ---- */

static unsigned __int128 pcg_multiplier(void) {
    return (unsigned __int128)0x2360ED051FC65DA4u << 64 | 0x4385DF649FCCF645u;
}

enum { POOL = 4 };

typedef struct hasher {
    uint32_t constant, multiplier;
} hasher;

static inline uint32_t hashed(hasher *hash, uint32_t value) {
    value ^= hash->constant;
    hash->constant *= hash->multiplier;
    value *= hash->constant;
    return value ^ value >> 16;
}

static inline uint32_t mixed(uint32_t x, uint32_t y) {
    uint32_t result = 0xCA01F9DDu * x - 0x4973F715u * y;
    return result ^ result >> 16;
}

/* numpy's SeedSequence for a seed of one word. */
void sa_pcg_seed(sa_pcg *pcg, uint32_t seed) {
    hasher hash = {0x43B0D7E5u, 0x931E8875u};
    uint32_t pool[POOL], word[2 * POOL];
    for (int i = 0; i < POOL; i++) pool[i] = hashed(&hash, i == 0 ? seed : 0);
    for (int from = 0; from < POOL; from++) {
        for (int to = 0; to < POOL; to++) {
            if (from != to) pool[to] = mixed(pool[to], hashed(&hash, pool[from]));
        }
    }
    hash = (hasher){0x8B51F9DDu, 0x58F38DEDu};
    for (int i = 0; i < 2 * POOL; i++) word[i] = hashed(&hash, pool[i % POOL]);
    unsigned __int128 part[4];
    for (int i = 0; i < 4; i++) part[i] = (uint64_t)word[2 * i + 1] << 32 | word[2 * i];
    pcg->increment = (part[2] << 64 | part[3]) << 1 | 1;
    pcg->state = (pcg->increment + (part[0] << 64 | part[1])) * pcg_multiplier() + pcg->increment;
}

uint64_t sa_pcg_draw(sa_pcg *pcg) {
    pcg->state = pcg->state * pcg_multiplier() + pcg->increment;
    uint64_t high = (uint64_t)(pcg->state >> 64), folded = high ^ (uint64_t)pcg->state;
    unsigned turn = (unsigned)(high >> 58);
    return folded >> turn | folded << (-turn & 63);
}

void sa_pcg_advance(sa_pcg *pcg, uint64_t draws) {
    unsigned __int128 factor = 1, sum = 0, step_factor = pcg_multiplier(), step_sum = pcg->increment;
    for (; draws > 0; draws >>= 1) {
        if (draws & 1) {
            factor *= step_factor;
            sum = sum * step_factor + step_sum;
        }
        step_sum *= step_factor + 1;
        step_factor *= step_factor;
    }
    pcg->state = factor * pcg->state + sum;
}

static inline uint64_t pcg_item(sa_pcg *pcg, sa_noise_form form) {
    uint64_t draw = sa_pcg_draw(pcg);
    if (form == SA_NOISE_DOUBLE) return sa_raw_of_double((double)(int64_t)(draw >> 11) * (1.0 / 9007199254740992.0));
    if (form == SA_NOISE_RAW) return draw;
    float low = (float)(int32_t)((uint32_t)draw >> 8) * (1.0f / 16777216.0f);
    float high = (float)(int32_t)(draw >> 40) * (1.0f / 16777216.0f);
    return sa_raw_of_float(high) << 32 | sa_raw_of_float(low);
}

void sa_pcg_grow(sa_pcg *pcg, sa_noise_form form, uint8_t *out, size_t bytes) {
    sa_pcg here = *pcg; /* in registers: through the pointer every draw would go by memory */
    size_t at = 0;
    for (; at + 8 <= bytes; at += 8) {
        put_item(out + at, pcg_item(&here, form), 8);
    }
    if (at < bytes) put_item(out + at, pcg_item(&here, form), bytes - at);
    *pcg = here;
}

/* ---- tables of seeds ---- */

static _Atomic(uint32_t *) tables[SA_SEED_TABLE_COUNT];

static inline uint64_t mersenne_print(uint32_t first, uint32_t second) { return (uint64_t)(first >> 5) << 26 | second >> 6; }

static inline uint64_t pcg_print(sa_seed_table table, uint64_t draw) {
    return table == SA_PCG_SEEDS ? draw >> 11 : (draw >> 40) << 24 | (uint32_t)draw >> 8;
}

uint64_t sa_seed_print(sa_seed_table table, uint32_t seed) {
    if (table == SA_MERSENNE_SEEDS) {
        uint32_t word[3] = {seed}, now = seed, ahead[2] = {0, 0};
        for (uint32_t i = 1; i < SA_MERSENNE_AHEAD + 2; i++) {
            now = SEED_MULTIPLIER * (now ^ now >> 30) + i;
            if (i < 3) word[i] = now;
            if (i >= SA_MERSENNE_AHEAD) ahead[i - SA_MERSENNE_AHEAD] = now;
        }
        return mersenne_print(temper(twist(word[0], word[1], ahead[0])), temper(twist(word[1], word[2], ahead[1])));
    }
    sa_pcg pcg;
    sa_pcg_seed(&pcg, seed);
    return pcg_print(table, sa_pcg_draw(&pcg));
}

static inline uint64_t spread(uint64_t print) { return print * 0x9E3779B97F4A7C15u; }

static inline size_t slot_of(uint64_t print) { return (size_t)(spread(print) >> (64 - SLOT_BITS)); }

static inline uint32_t entry_of(uint64_t print, uint32_t seed) { return (uint32_t)(spread(print) >> 16) << 16 | seed; }

static inline int is_taken(uint32_t entry) { return (entry & NO_SEED) != NO_SEED; }

static void put_seed(uint32_t *table, uint64_t print, uint32_t seed) {
    size_t slot = slot_of(print);
    while (is_taken(table[slot])) slot = (slot + 1) % SLOTS;
    table[slot] = entry_of(print, seed);
}

/* Sixteen seeds at a time, since each is a chain of 398 multiplications. */
static void put_mersenne_seeds(uint32_t *table) {
    for (uint32_t base = 0; base < SA_SEEDS; base += LANES) {
        uint32_t word[3][LANES], ahead[2][LANES], now[LANES];
        for (uint32_t lane = 0; lane < LANES; lane++) now[lane] = word[0][lane] = base + lane;
        for (uint32_t i = 1; i < SA_MERSENNE_AHEAD + 2; i++) {
            for (uint32_t lane = 0; lane < LANES; lane++) {
                now[lane] = SEED_MULTIPLIER * (now[lane] ^ now[lane] >> 30) + i;
            }
            if (i < 3) memcpy(word[i], now, sizeof now);
            if (i >= SA_MERSENNE_AHEAD) memcpy(ahead[i - SA_MERSENNE_AHEAD], now, sizeof now);
        }
        for (uint32_t lane = 0; lane < LANES && base + lane < SA_SEEDS; lane++) {
            uint32_t first = temper(twist(word[0][lane], word[1][lane], ahead[0][lane]));
            uint32_t second = temper(twist(word[1][lane], word[2][lane], ahead[1][lane]));
            put_seed(table, mersenne_print(first, second), base + lane);
        }
    }
}

static const uint32_t *table_slowly(sa_seed_table which) {
    uint32_t *made = malloc(SLOTS * sizeof *made), *before = NULL;
    if (made == NULL) return NULL;
    memset(made, 0xFF, SLOTS * sizeof *made);
    if (which == SA_MERSENNE_SEEDS) {
        put_mersenne_seeds(made);
    } else {
        for (uint32_t seed = 0; seed < SA_SEEDS; seed++) put_seed(made, sa_seed_print(which, seed), seed);
    }
    if (atomic_compare_exchange_strong(&tables[which], &before, made)) return made;
    free(made);
    return before;
}

int32_t sa_seed_of(sa_seed_table which, uint64_t print) {
    const uint32_t *table = atomic_load_explicit(&tables[which], memory_order_acquire);
    if (table == NULL) table = table_slowly(which);
    if (table == NULL) return -1;
    for (size_t slot = slot_of(print); is_taken(table[slot]); slot = (slot + 1) % SLOTS) {
        uint32_t seed = table[slot] & NO_SEED;
        if (table[slot] == entry_of(print, seed) && sa_seed_print(which, seed) == print) return (int32_t)seed;
    }
    return -1;
}
