/* formula_search.h - what the searches of formula_find.c, formula_shape.c and formula_fill.c share.
 *
 * Words: a *search* looks for an expression of one *body* (a block, or a part of one that is repeated); a *candidate* is an
 * expression that fits the probes; it is *settled* by growing it and comparing all bytes, where at most one item in
 * SA_PATCH_SHARE may differ; `best` is the shortest that was settled.
 *
 *   sa_search   body, bytes, depth | best (owned) | scratch (owned, `bytes` long, NULL until the first candidate)
 *
 * Invariant: what stands in `best` has been grown and found equal to the body.
 *
 * Threads: a search belongs to one call. Cost: a search whose probes find nothing allocates nothing.
 */
#ifndef SA_FORMULA_SEARCH_H
#define SA_FORMULA_SEARCH_H

#include "formula.h"
#include "formula_series.h"
#include "formula_text.h"

enum {
    SA_SHORT_BYTES = 64,        /* no search goes on for less than this */
    SA_BODY_BYTES_MIN = 64,
    SA_LITERAL_BYTES_MAX = 4096, /* of a period that no formula gives */
    SA_PATCH_SHARE = 100,
    SA_NESTED_MAX = 2           /* tiles and repeats within each other */
};

typedef struct sa_text {
    uint8_t *bytes;
    size_t length;
} sa_text;

typedef enum sa_noise_look { SA_LOOKS_PLAIN, SA_LOOKS_DOUBLES, SA_LOOKS_FLOATS, SA_LOOKS_WORDS } sa_noise_look;

typedef struct sa_search {
    const sa_formula_known *known;
    const uint8_t *body;
    size_t bytes;
    unsigned depth;
    int no_memory;
    int is_level;  /* nearly all probes are one and the same item, ... */
    int is_ragged; /* ... with more exceptions than patches are for */
    sa_noise_look look;
    sa_text best;
    uint8_t *scratch;
} sa_search;

/* Settle a candidate; patches are items of `width` bytes. 1 when the search may end: best is short, or memory is out. */
int sa_search_consider(sa_search *search, const uint8_t *candidate, size_t length, unsigned width);

/* The expression of a part: found, or the part itself if that is short. bytes is NULL for neither; the caller frees it. */
sa_text sa_search_part(sa_search *search, const uint8_t *part, size_t bytes);

/* The searches, in their order; each returns 1 when the search may end. */
int sa_search_constant(sa_search *search);
/* Only sets `look`: the probes look like values of a generator of random numbers, or like nothing of the kind. */
int sa_search_look(sa_search *search);
int sa_search_repeat(sa_search *search);
int sa_search_tile(sa_search *search);
int sa_search_fill(sa_search *search);

/* The widest items that fill some bytes. */
static inline unsigned sa_widest(size_t bytes) { return bytes % 8 == 0 ? 8 : bytes % 4 == 0 ? 4 : bytes % 2 == 0 ? 2 : 1; }

/* Are two items of 1, 2, 4 or 8 bytes not the same bits? */
static inline int sa_items_differ(const uint8_t *a, const uint8_t *b, unsigned width) {
    switch (width) {
    case 8: return memcmp(a, b, 8) != 0;
    case 4: return memcmp(a, b, 4) != 0;
    case 2: return memcmp(a, b, 2) != 0;
    default: return *a != *b;
    }
}

static inline uint64_t sa_word_at(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

#endif
