/* formula_fill.c - the search for fills: values of our own spaces, and numpy's random numbers. Words: formula_search.h,
 * formula_noise.h, mixer.h.
 *
 * A block *looks like* doubles or floats between 0 and 1, or like raw words, when all its probes do; most blocks do not at
 * the first. Only then the dearer searches follow: of the 2^11 words that a double may come from, and of the tables.
 */
#include "formula_noise.h"
#include "formula_search.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOST_BITS = 11, /* of a word that became a double */
    GUESSES = 1 << LOST_BITS,
    GUESSES_AT_ONCE = 256,
    DOUBLE_KEYS_MAX = 2, /* for which 2^11 guesses are made: 3 to 7 us each */
    ODD_MIN = 12,   /* of SA_PROBES, with a chance of one half each: fewer, or as many even ones, in 10^-6 of all cases */
    BITS_SLACK = 160,
    HIGH_SLACK = 60,
    EARLY_PROBES = 16, /* whose set bits are ... */
    EARLY_SLACK = 96,  /* ... within six standard deviations of half for random words */
    RAW_BYTES_MIN = 1 << 15 /* compressed data look like raw words, and the tables are not made for little of it */
};

size_t sa_space_text(const sa_generator *generator, uint64_t start, uint64_t step, uint8_t *text) {
    sa_writer out = {text, text + SA_TEXT_BYTES_MAX, 0};
    sa_put_byte(&out, SA_SPACE);
    sa_put_byte(&out, generator->kind);
    sa_put_word(&out, generator->key.k0, 8);
    sa_put_word(&out, generator->key.k1, 8);
    sa_put_word(&out, generator->key.k2, 8);
    sa_put_word(&out, start, 8);
    sa_put_zigzag(&out, step);
    if (generator->kind == SA_RANGE) {
        sa_put_zigzag(&out, generator->low);
        sa_put_varint(&out, generator->span);
    }
    return (size_t)(out.at - text);
}

static int consider_space(sa_search *search, unsigned kind, const sa_mixer_key *key, uint64_t start, uint64_t step) {
    uint8_t text[SA_TEXT_BYTES_MAX];
    sa_generator generator = {.key = *key, .kind = kind, .value_bytes = 8};
    return sa_search_consider(search, text, sa_space_text(&generator, start, step, text), 8);
}

static size_t mersenne_text(sa_noise_form form, uint64_t seed, uint64_t skip, uint8_t *text) {
    sa_writer out = {text, text + SA_TEXT_BYTES_MAX, 0};
    sa_put_byte(&out, SA_MERSENNE);
    sa_put_byte(&out, form);
    sa_put_varint(&out, seed);
    sa_put_varint(&out, skip);
    return (size_t)(out.at - text);
}

static size_t pcg_text(sa_noise_form form, const sa_pcg *pcg, uint8_t *text) {
    sa_writer out = {text, text + SA_TEXT_BYTES_MAX, 0};
    sa_put_byte(&out, SA_PCG);
    sa_put_byte(&out, form);
    sa_put_word(&out, (uint64_t)pcg->state, 8);
    sa_put_word(&out, (uint64_t)(pcg->state >> 64), 8);
    sa_put_word(&out, (uint64_t)pcg->increment, 8);
    sa_put_word(&out, (uint64_t)(pcg->increment >> 64), 8);
    return (size_t)(out.at - text);
}

static int search_words_at(sa_search *search, size_t item) {
    const uint8_t *at = search->body + item * 8;
    uint64_t word[4] = {sa_word_at(at), sa_word_at(at + 8), sa_word_at(at + 16), sa_word_at(at + 24)};
    for (size_t i = 0; i < search->known->key_count; i++) {
        const sa_mixer_key *key = &search->known->keys[i];
        uint64_t address = sa_unmix(key, word[0]), step = sa_unmix(key, word[1]) - address;
        /* One word again and again is a constant. */
        if (step == 0 || sa_mix(key, address + 2 * step) != word[2] || sa_mix(key, address + 3 * step) != word[3]) continue;
        if (consider_space(search, SA_UINT64, key, address - item * step, step)) return 1;
    }
    return 0;
}

static uint64_t bits_of_double(uint64_t raw) { return (uint64_t)(sa_double_of_raw(raw) * 0x1p53); }

/* Which of the words that give the first double has a neighbour that gives the second? */
static int search_doubles(sa_search *search) {
    uint64_t words[GUESSES_AT_ONCE], addresses[GUESSES_AT_ONCE];
    uint64_t first = bits_of_double(sa_word_at(search->body)), second = bits_of_double(sa_word_at(search->body + 8));
    for (size_t i = 0; i < search->known->key_count && i < DOUBLE_KEYS_MAX; i++) {
        const sa_mixer_key *key = &search->known->keys[i];
        for (uint64_t guess = 0; guess < GUESSES; guess += GUESSES_AT_ONCE) {
            for (uint64_t j = 0; j < GUESSES_AT_ONCE; j++) words[j] = first << LOST_BITS | (guess + j);
            search->known->loops->unmix(key, words, addresses, GUESSES_AT_ONCE);
            for (uint64_t j = 0; j < GUESSES_AT_ONCE; j++) addresses[j]++;
            search->known->loops->gather(key, addresses, words, GUESSES_AT_ONCE);
            for (uint64_t j = 0; j < GUESSES_AT_ONCE; j++) {
                if (words[j] >> LOST_BITS != second) continue;
                if (consider_space(search, SA_FLOAT64, key, addresses[j] - 1, 1)) return 1;
            }
        }
    }
    return 0;
}

static int consider_mersenne(sa_search *search, sa_noise_form form, uint64_t print) {
    uint8_t text[SA_TEXT_BYTES_MAX];
    int32_t seed = sa_seed_of(SA_MERSENNE_SEEDS, print);
    if (seed < 0) return 0;
    return sa_search_consider(search, text, mersenne_text(form, (uint64_t)seed, 0, text), sa_widest(search->bytes));
}

static int consider_pcg(sa_search *search, sa_noise_form form, uint64_t print) {
    uint8_t text[SA_TEXT_BYTES_MAX];
    int32_t seed = sa_seed_of(form == SA_NOISE_FLOAT ? SA_PCG_FLOAT_SEEDS : SA_PCG_SEEDS, print);
    sa_pcg pcg;
    if (seed < 0) return 0;
    sa_pcg_seed(&pcg, (uint32_t)seed);
    return sa_search_consider(search, text, pcg_text(form, &pcg, text), sa_widest(search->bytes));
}

/* Whether a value is in [0, 1) and a whole multiple of 1 / steps; counts the odd multiples. */
static int is_on_grid(double value, double steps, unsigned *odd) {
    if (!(value >= 0 && value < 1)) return 0;
    uint64_t whole = (uint64_t)(value * steps);
    *odd += whole & 1;
    return (double)whole == value * steps;
}

static int looks_like_doubles(const sa_search *search) {
    unsigned odd = 0;
    for (unsigned probe = 0; probe < SA_PROBES; probe++) {
        uint64_t raw = sa_item_at(search->body, sa_probe(probe, search->bytes / 8), 3);
        if (!is_on_grid(sa_double_of_raw(raw), 0x1p53, &odd)) return 0;
    }
    return odd >= ODD_MIN && odd <= SA_PROBES - ODD_MIN;
}

static int looks_like_floats(const sa_search *search) {
    unsigned odd = 0;
    for (unsigned probe = 0; probe < SA_PROBES; probe++) {
        uint64_t raw = sa_item_at(search->body, sa_probe(probe, search->bytes / 4), 2);
        if (!is_on_grid(sa_float_of_raw(raw), 0x1p24, &odd)) return 0;
    }
    return odd >= ODD_MIN && odd <= SA_PROBES - ODD_MIN;
}

/* Set bits of a word, counted side by side: processors without an instruction for it call a function. */
static int bit_count(uint64_t word) {
    word -= word >> 1 & 0x5555555555555555u;
    word = (word & 0x3333333333333333u) + (word >> 2 & 0x3333333333333333u);
    return (int)(((word + (word >> 4)) & 0x0F0F0F0F0F0F0F0Fu) * 0x0101010101010101u >> 56);
}

static int looks_like_words(const sa_search *search) {
    int bits = 0, high = 0;
    for (unsigned probe = 0; probe < SA_PROBES; probe++) {
        uint64_t word = sa_word_at(search->body + sa_probe(probe, search->bytes / 8) * 8);
        bits += bit_count(word);
        high += bit_count(word & 0x8080808080808080u);
        if (probe == EARLY_PROBES - 1 && abs(bits - 32 * EARLY_PROBES) > EARLY_SLACK) return 0;
    }
    int all = 64 * SA_PROBES, bytes = 8 * SA_PROBES;
    return bits > all / 2 - BITS_SLACK && bits < all / 2 + BITS_SLACK && high > bytes / 2 - HIGH_SLACK &&
           high < bytes / 2 + HIGH_SLACK;
}

int sa_search_look(sa_search *search) {
    if (search->is_level) search->look = SA_LOOKS_PLAIN;
    else if (search->bytes % 8 == 0 && looks_like_doubles(search)) search->look = SA_LOOKS_DOUBLES;
    else if (search->bytes % 4 == 0 && looks_like_floats(search)) search->look = SA_LOOKS_FLOATS;
    else search->look = looks_like_words(search) ? SA_LOOKS_WORDS : SA_LOOKS_PLAIN;
    return 0;
}

static int search_floats(sa_search *search) {
    uint64_t low = (uint64_t)(sa_float_of_raw(sa_item_at(search->body, 0, 2)) * 0x1p24f);
    uint64_t high = (uint64_t)(sa_float_of_raw(sa_item_at(search->body, 1, 2)) * 0x1p24f);
    return consider_pcg(search, SA_NOISE_FLOAT, high << 24 | low);
}

static int search_raw(sa_search *search) {
    uint64_t word = sa_item_at(search->body, 0, 3);
    uint32_t first = (uint32_t)word, second = (uint32_t)(word >> 32);
    if (consider_pcg(search, SA_NOISE_RAW, word >> LOST_BITS)) return 1;
    return consider_mersenne(search, SA_NOISE_RAW, (uint64_t)(first >> 5) << 26 | second >> 6);
}

static int search_noise(sa_search *search) {
    uint64_t print;
    switch (search->look) {
    case SA_LOOKS_DOUBLES:
        print = bits_of_double(sa_item_at(search->body, 0, 3));
        return consider_pcg(search, SA_NOISE_DOUBLE, print) || consider_mersenne(search, SA_NOISE_DOUBLE, print) ||
               search_doubles(search);
    case SA_LOOKS_FLOATS: return search_floats(search);
    case SA_LOOKS_WORDS: return search->bytes >= RAW_BYTES_MIN && search_raw(search);
    default: return 0;
    }
}

int sa_search_fill(sa_search *search) {
    if (search->bytes % 8 == 0 && (search_words_at(search, 0) || search_words_at(search, search->bytes / 16))) return 1;
    return search_noise(search);
}

/* ---- what comes next ---- */

static size_t next_mersenne(sa_reader *reader, size_t bytes, uint8_t *text, uint8_t *first) {
    sa_noise_form form = (sa_noise_form)sa_read_byte(reader);
    uint64_t seed = sa_read_varint(reader), skip = sa_read_varint(reader) + sa_noise_draws(SA_MERSENNE, form, bytes);
    sa_mersenne mersenne;
    if (skip > sa_mersenne_skip_max(bytes)) return 0;
    sa_mersenne_seed(&mersenne, (uint32_t)seed);
    for (uint64_t draw = 0; draw < skip; draw++) (void)sa_mersenne_draw(&mersenne);
    sa_mersenne_grow(&mersenne, form, first, SA_START_BYTES);
    return mersenne_text(form, seed, skip, text);
}

static size_t next_pcg(sa_reader *reader, size_t bytes, uint8_t *text, uint8_t *first) {
    sa_noise_form form = (sa_noise_form)sa_read_byte(reader);
    uint64_t part[4];
    for (int i = 0; i < 4; i++) part[i] = sa_read_word(reader, 8);
    sa_pcg pcg = {(unsigned __int128)part[1] << 64 | part[0], (unsigned __int128)part[3] << 64 | part[2]};
    sa_pcg_advance(&pcg, sa_noise_draws(SA_PCG, form, bytes));
    size_t length = pcg_text(form, &pcg, text);
    sa_pcg_grow(&pcg, form, first, SA_START_BYTES);
    return length;
}

size_t sa_formula_next(
    const sa_formula_loops *loops, const uint8_t *formula, size_t length, size_t raw_bytes, uint8_t *text, uint8_t *first) {
    sa_reader reader = {formula + 1, formula + length, NULL};
    unsigned kind = sa_read_byte(&reader);
    if (kind == SA_ENVELOPE) {
        unsigned ends = sa_read_byte(&reader);
        ends += sa_read_byte(&reader);
        sa_read_bytes(&reader, ends);
        raw_bytes -= ends;
        kind = sa_read_byte(&reader);
    }
    if (kind == SA_MERSENNE) return next_mersenne(&reader, raw_bytes, text, first);
    if (kind == SA_PCG) return next_pcg(&reader, raw_bytes, text, first);
    if (kind != SA_SPACE) return 0;
    size_t left = (size_t)(reader.end - reader.at);
    unsigned value_bytes = *reader.at == SA_FLOAT32 ? 4 : 8;
    const uint8_t *expression = reader.at - 1;
    sa_read_bytes(&reader, 1 + sizeof(sa_mixer_key));
    uint64_t start = sa_read_word(&reader, 8), step = sa_read_zigzag(&reader);
    start += raw_bytes / value_bytes * step;
    memcpy(text, expression, left + 1);
    sa_writer out = {text + 2 + sizeof(sa_mixer_key), text + left + 1, 0};
    sa_put_word(&out, start, 8);
    return sa_formula_grow_expression(loops, text, left + 1, first, SA_START_BYTES) == NULL ? left + 1 : 0;
}
