/* formula_shape.c - the search for constants, tiles and repeats: blocks that contain themselves. Words: formula_search.h.
 *
 * A *needle* is 16 bytes of the body around a change, since those of a level run are everywhere; the next place where they
 * stand again is a *period* to try. Of its two words the search compares the one that has a change in it.
 */
#include "formula_search.h"

#include <stdlib.h>
#include <string.h>

enum {
    MODE_PROBES = 16,
    RUN_BYTES_MIN = 64,           /* of level runs that say what a period may be */
    RUN_BYTES_MAX = 1 << 16,      /* of the items that are repeated, and of level runs that are looked through */
    SOME_BYTES = 64,              /* that are compared at once */
    NEEDLE_BYTES = 16,
    ODD_PERIOD_MAX = 1 << 10,     /* periods of any number of bytes; longer ones are of whole ... */
    LANE_BYTES = 4,               /* ... words of this size, of which ... */
    LANES = 4,                    /* ... so many are compared by an instruction */
    LONG_LOADS = 8,
    PERIOD_MAX = 1 << 16,
    NOISE_PERIOD_MAX = 1 << 14,   /* what compresses badly takes other codecs so little time that ... */
    WORDS_PERIOD_MAX = 1 << 12,   /* ... microseconds count */
    PERIODS_TRIED_MAX = 8,        /* by probes, ... */
    PERIODS_SEEN_MAX = 1 << 8,    /* ... and by the needle, which a run behind the change may show every few bytes */
    RUNS_WRONG_MAX = 4,           /* of SA_PROBES words that differ from those before them */
    CHANGES_MAX = 12,             /* in a long period that is level: an exception is two */
    CHUNKS = 4,
    CHUNK_ITEMS = 512,
    LEVEL_WRONG_MAX = 8,          /* of as many items: a constant with more exceptions than few is what compression is good at */
    CHUNKS_WRONG_MAX = CHUNKS * CHUNK_ITEMS * 3 / SA_PATCH_SHARE /* an exception differs from both its neighbours */
};

typedef uint32_t lanes __attribute__((vector_size(LANES * LANE_BYTES)));

/* Text of a head of at most 12 bytes and an inner expression. Frees the inner one. */
static int consider_shape(sa_search *search, const sa_writer *head, const uint8_t *start, sa_text inner, unsigned width) {
    size_t head_bytes = (size_t)(head->at - start);
    uint8_t *text = malloc(head_bytes + inner.length);
    int is_done = 1;
    if (text == NULL) {
        search->no_memory = 1;
    } else {
        memcpy(text, start, head_bytes);
        memcpy(text + head_bytes, inner.bytes, inner.length);
        is_done = sa_search_consider(search, text, head_bytes + inner.length, width);
    }
    free(text);
    free(inner.bytes);
    return is_done;
}

static inline int is_zero(lanes some) {
    uint64_t half[sizeof some / sizeof(uint64_t)];
    memcpy(half, &some, sizeof some);
    return (half[0] | half[1]) == 0;
}

/* Are SOME_BYTES the same here and there? */
static inline int some_agree(const uint8_t *here, const uint8_t *there) {
    lanes changes = {0, 0, 0, 0};
    for (size_t i = 0; i < SOME_BYTES; i += sizeof changes) {
        lanes a, b;
        memcpy(&a, here + i, sizeof a);
        memcpy(&b, there + i, sizeof b);
        changes |= a ^ b;
    }
    return is_zero(changes);
}

/* How many of some bytes' items differ from those a period before them; may stop counting above `most`. */
static size_t disagreeing(const uint8_t *here, const uint8_t *before, size_t bytes, unsigned width, size_t most) {
    size_t wrong = 0;
    for (size_t at = 0; at < bytes && wrong <= most;) {
        if (at + SOME_BYTES <= bytes && some_agree(here + at, before + at)) {
            at += SOME_BYTES;
            continue;
        }
        size_t end = at + SOME_BYTES < bytes ? at + SOME_BYTES : bytes;
        for (; at < end; at += width) wrong += (size_t)sa_items_differ(here + at, before + at, width);
    }
    return wrong;
}

/* Do a few pieces of the body differ by `most` items at most from what stands a period before them? */
static int pieces_agree(const sa_search *search, size_t period, unsigned width, size_t most) {
    size_t items = (search->bytes - period) / width, wrong = 0;
    size_t some = items / CHUNKS < CHUNK_ITEMS ? items / CHUNKS : CHUNK_ITEMS;
    for (size_t chunk = 0; chunk < CHUNKS && wrong <= most; chunk++) {
        const uint8_t *here = search->body + period + items * chunk / CHUNKS * width;
        wrong += disagreeing(here, here - period, some * width, width, most - wrong);
    }
    return wrong <= most;
}

int sa_search_constant(sa_search *search) {
    unsigned width = sa_widest(search->bytes), votes = 0, wrong = 0;
    size_t items = search->bytes / width;
    const uint8_t *mode = search->body;
    for (unsigned probe = 0; probe < MODE_PROBES; probe++) {
        const uint8_t *item = search->body + sa_probe(probe, items) * width;
        if (votes == 0) mode = item;
        if (sa_items_differ(mode, item, width)) votes--;
        else votes++;
    }
    for (unsigned probe = 0; probe < SA_PROBES; probe++) {
        wrong += (unsigned)sa_items_differ(mode, search->body + sa_probe(probe, items) * width, width);
        if (wrong > SA_PROBES_WRONG_MAX) return 0;
    }
    search->is_level = 1;
    search->is_ragged = !pieces_agree(search, width, width, LEVEL_WRONG_MAX);
    if (search->is_ragged) return 0;
    uint8_t text[2 + 1 + 8] = {SA_TILE, (uint8_t)width, SA_LITERAL};
    memcpy(text + 3, mode, width);
    return sa_search_consider(search, text, 3 + width, width);
}

/* The first byte from `from` + 8 on that is not the one 8 bytes before it; `limit` when there is none before that. */
static size_t level_end(const sa_search *search, size_t from, size_t limit) {
    if (limit > search->bytes) limit = search->bytes;
    size_t at = from + 8;
    while (at + SOME_BYTES <= limit && some_agree(search->body + at, search->body + at - 8)) at += SOME_BYTES;
    while (at + 8 <= limit && sa_word_at(search->body + at) == sa_word_at(search->body + at - 8)) at += 8;
    while (at < limit && search->body[at] == search->body[at - 8]) at++;
    return at < limit ? at : limit;
}

int sa_formula_is_runs(const uint8_t *block, size_t raw_bytes) {
    unsigned wrong = 0;
    for (unsigned probe = 0; probe < SA_PROBES && wrong <= RUNS_WRONG_MAX; probe++) {
        const uint8_t *word = block + 8 + sa_probe(probe, raw_bytes / 8 - 1) * 8;
        wrong += sa_word_at(word) != sa_word_at(word - 8);
    }
    return wrong <= RUNS_WRONG_MAX;
}

static int consider_repeat(sa_search *search, size_t times, unsigned width) {
    uint8_t text[16];
    size_t items = search->bytes / width, inner_items = (items + times - 1) / times;
    unsigned wrong = 0;
    for (unsigned probe = 0; probe < SA_PROBES; probe++) {
        size_t index = sa_probe(probe, items);
        wrong += memcmp(search->body + index * width, search->body + (index - index % times) * width, width) != 0;
        if (wrong > SA_PROBES_WRONG_MAX) return 0;
    }
    uint8_t *part = malloc(inner_items * width);
    if (part == NULL) return search->no_memory = 1;
    for (size_t item = 0; item < inner_items; item++) {
        memcpy(part + item * width, search->body + item * times * width, width);
    }
    sa_text inner = sa_search_part(search, part, inner_items * width);
    free(part);
    if (inner.bytes == NULL) return search->no_memory;
    sa_writer out = {text, text + sizeof text, 0};
    sa_put_byte(&out, SA_REPEAT);
    sa_put_byte(&out, width);
    sa_put_varint(&out, times);
    return consider_shape(search, &out, text, inner, width);
}

int sa_search_repeat(sa_search *search) {
    if (search->depth >= SA_NESTED_MAX || search->is_level) return 0;
    size_t end = level_end(search, 0, RUN_BYTES_MAX);
    for (unsigned width = 1; width <= 8; width *= 2) {
        size_t items = search->bytes / width, times = 1;
        if (search->bytes % width != 0) break;
        while (times * width < 8 && memcmp(search->body, search->body + times * width, width) == 0) times++;
        if (times * width >= 8) times = end / width;
        if (times < 2 || times > items / 2 || end == RUN_BYTES_MAX) continue;
        if (consider_repeat(search, times, width)) return 1;
    }
    return 0;
}

/* ---- tiles ---- */

static int is_period(const sa_search *search, size_t period) {
    unsigned wrong = 0;
    for (unsigned probe = 0; probe < SA_PROBES; probe++) {
        size_t place = period + sa_probe(probe, search->bytes - period - 7);
        /* With the first period, not the one before: what shifts a little in each agrees with its neighbours. */
        wrong += sa_word_at(search->body + place) != sa_word_at(search->body + place % period);
        if (wrong > SA_PROBES_WRONG_MAX) return 0;
    }
    return 1;
}

/* Where in 2 * size bytes are `size` that are not all alike? At the start, the end, or in the middle. */
static size_t changing_part(const uint8_t *bytes, size_t size) {
    if (memcmp(bytes, bytes + 1, size - 1) != 0) return 0;
    return memcmp(bytes + size, bytes + size + 1, size - 1) != 0 ? size : size / 2;
}

/* The first period from `period` to `most`, in steps of 1 or LANE_BYTES, behind which the word at `at` stands again; 0 for
 * none. `part` is where in the word LANE_BYTES are that are not all alike: these are compared, many at once. */
static inline size_t next_match(const uint8_t *at, size_t part, size_t period, size_t most, size_t step) {
    const size_t loads = step == 1 ? LANE_BYTES : LONG_LOADS, apart = step == 1 ? 1 : sizeof(lanes);
    const size_t stride = loads * LANES * step;
    uint64_t word = sa_word_at(at);
    uint32_t lane;
    memcpy(&lane, at + part, LANE_BYTES);
    const lanes wanted = {lane, lane, lane, lane};
    for (; period + stride <= most; period += stride) {
        lanes some = {0, 0, 0, 0};
        for (size_t i = 0; i < loads; i++) {
            lanes here;
            memcpy(&here, at + part + period + i * apart, sizeof here);
            some |= (lanes)(here == wanted);
        }
        if (is_zero(some)) continue;
        for (size_t one = period; one < period + stride; one += step) {
            if (sa_word_at(at + one) == word) return one;
        }
    }
    for (; period <= most; period += step) {
        if (sa_word_at(at + period) == word) return period;
    }
    return 0;
}

/* The next period above `after` to try, at most `most`; 0 for none. */
static size_t next_period(const sa_search *search, size_t needle, size_t after, size_t most) {
    const uint8_t *at = search->body + needle;
    at += changing_part(at, 8);
    size_t part = changing_part(at, LANE_BYTES), period = after + 1;
    if (period < ODD_PERIOD_MAX) {
        size_t found = next_match(at, part, period, most < ODD_PERIOD_MAX ? most : ODD_PERIOD_MAX - 1, 1);
        if (found != 0) return found;
        period = ODD_PERIOD_MAX;
    }
    return next_match(at, part, (period + LANE_BYTES - 1) / LANE_BYTES * LANE_BYTES, most, LANE_BYTES);
}

/* One period of the body: the first, or should that have an exception, one that another is equal to. */
static const uint8_t *usual_period(const sa_search *search, size_t period) {
    size_t last = search->bytes / period - 1;
    const uint8_t *first = search->body, *middle = first + (last + 1) / 2 * period, *end = first + last * period;
    return memcmp(first, end, period) != 0 && memcmp(middle, end, period) == 0 ? end : first;
}

static int consider_tile(sa_search *search, size_t period) {
    uint8_t text[16];
    unsigned width = sa_widest(search->bytes | period);
    /* A level body agrees with itself at any distance, but for its exceptions. */
    if (!pieces_agree(search, period, width, search->is_level ? 0 : CHUNKS_WRONG_MAX)) return 0;
    sa_text inner = sa_search_part(search, usual_period(search, period), period);
    if (inner.bytes == NULL) return search->no_memory;
    sa_writer out = {text, text + sizeof text, 0};
    sa_put_byte(&out, SA_TILE);
    sa_put_varint(&out, period);
    return consider_shape(search, &out, text, inner, width);
}

static int search_tile_at(sa_search *search, size_t from, size_t most_tried) {
    size_t limit = from + RUN_BYTES_MAX < search->bytes ? from + RUN_BYTES_MAX : search->bytes;
    size_t needle = level_end(search, from, limit) - 8, period = 0;
    if (needle + 8 == limit || needle + 2 * NEEDLE_BYTES > search->bytes) return 0;
    size_t most = search->bytes - needle - NEEDLE_BYTES;
    if (most > search->bytes / 2) most = search->bytes / 2;
    if (most > most_tried) most = most_tried;
    const uint8_t *at = search->body + needle;
    for (unsigned tried = 0, seen = 0; tried < PERIODS_TRIED_MAX && seen < PERIODS_SEEN_MAX; seen++) {
        period = next_period(search, needle, period, most);
        if (period == 0) return 0;
        if (memcmp(at, at + period, NEEDLE_BYTES) != 0) continue;
        if (is_period(search, period)) return consider_tile(search, period);
        tried++;
    }
    return 0;
}

/* The longest period that is worth looking for. One longer than a literal has to be a formula; one that begins with a run
 * has then to be level but for few exceptions, or repeated items. Where it is certain that it is neither, the search ends
 * there: runs are what compression is quick at, so that microseconds count. */
static size_t longest_period(const sa_search *search) {
    if (search->look != SA_LOOKS_PLAIN) return search->look == SA_LOOKS_WORDS ? WORDS_PERIOD_MAX : NOISE_PERIOD_MAX;
    size_t end = level_end(search, 0, RUN_BYTES_MAX);
    if (search->is_ragged) {
        for (unsigned change = 1; change < CHANGES_MAX && end < PERIOD_MAX; change++) end = level_end(search, end, PERIOD_MAX);
        return end > SA_LITERAL_BYTES_MAX ? end : SA_LITERAL_BYTES_MAX;
    }
    int is_uneven = end >= RUN_BYTES_MIN && 2 * end <= search->bytes && level_end(search, end, 2 * end) < 2 * end;
    return is_uneven && !search->is_level ? SA_LITERAL_BYTES_MAX : PERIOD_MAX;
}

int sa_search_tile(sa_search *search) {
    if (search->depth >= SA_NESTED_MAX) return 0;
    size_t most = longest_period(search);
    if (search_tile_at(search, 0, most)) return 1;
    if (search->look != SA_LOOKS_PLAIN) return 0;
    /* The first needle may have had an exception in it. */
    size_t again = search->is_ragged ? SA_LITERAL_BYTES_MAX : NOISE_PERIOD_MAX;
    return search_tile_at(search, search->bytes / 2, most < again ? most : again);
}
