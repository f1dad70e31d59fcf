/* formula_find.c - the search as a whole: series, and what candidates must pass. Words, invariants: formula_search.h. */
#include "formula_search.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 4096 };

/* ---- what stands around a value ---- */

enum { GRAPH_STREAM = 0xB1, SAFE_STREAM = 0xD5, PICKLE_STREAM = 0x80, PICKLE_FRAME = 0x95, PICKLE_TAIL_MAX = 4 };

/* Bytes of one item of a graph stream's tag for flat data, 0 for another tag: docs/graph_stream.md. */
static unsigned flat_item_bytes(unsigned tag) {
    switch (tag) {
    case 0x08: case 0x09: case 0x0C: case 0x0D: return 1;
    case 0x0A: return 2;
    case 0x0B: return 4;
    case 0x15: case 0x16: return 8;
    default: return 0;
    }
}

static int after_varint(const uint8_t *block, size_t bytes, size_t at, uint64_t item_bytes, size_t *head) {
    sa_reader reader = {block + at, block + bytes, NULL};
    uint64_t count = sa_read_varint(&reader);
    uint64_t left = (uint64_t)(reader.end - reader.at);
    if (reader.wrong != NULL || count > left || count * item_bytes != left) return 0;
    *head = (size_t)(reader.at - block);
    return 1;
}

/* Bytes of the length behind an opcode of pickle for one flat value, 0 for another opcode. */
static unsigned pickle_length_bytes(unsigned opcode) {
    return opcode == 'B' || opcode == 'X' ? 4 : opcode == 0x8E || opcode == 0x8D || opcode == 0x96 ? 8 : 0;
}

int sa_formula_envelope(const uint8_t *block, size_t bytes, size_t *head, size_t *tail) {
    *head = *tail = 0;
    if (bytes < SA_BODY_BYTES_MIN) return 0;
    if (block[0] == GRAPH_STREAM) {
        unsigned item_bytes = flat_item_bytes(block[1]);
        return item_bytes != 0 && after_varint(block, bytes, 2, item_bytes, head);
    }
    if (block[0] == SAFE_STREAM) {
        int is_flat = block[1] == 's' || block[1] == 'b' || block[1] == 'a';
        return is_flat && after_varint(block, bytes, 2, 1, head);
    }
    if (block[0] != PICKLE_STREAM || block[1] > 5) return 0;
    size_t at = block[2] == PICKLE_FRAME ? 11 : 2;
    unsigned length_bytes = pickle_length_bytes(block[at]);
    if (length_bytes == 0) return 0;
    sa_reader reader = {block + at + 1, block + bytes, NULL};
    uint64_t length = sa_read_word(&reader, length_bytes), left = (uint64_t)(reader.end - reader.at);
    if (length > left || left - length > PICKLE_TAIL_MAX) return 0;
    *head = at + 1 + length_bytes;
    *tail = (size_t)(left - length);
    return 1;
}

/* ---- settling ---- */

/* The first item from `item` on that differs, or `items`. */
static size_t next_difference(const uint8_t *a, const uint8_t *b, size_t item, size_t items, unsigned width) {
    for (; item < items; item++) {
        size_t at = item * width;
        if (at % 8 == 0) {
            while (at + PIECE_BYTES <= items * width && memcmp(a + at, b + at, PIECE_BYTES) == 0) at += PIECE_BYTES;
            while (at + 8 <= items * width && sa_word_at(a + at) == sa_word_at(b + at)) at += 8;
            item = at / width;
        }
        if (item < items && sa_items_differ(a + item * width, b + item * width, width)) break;
    }
    return item;
}

/* How many items differ; stops counting above `most`. */
static size_t differing(const uint8_t *a, const uint8_t *b, size_t items, unsigned width, size_t most) {
    size_t count = 0;
    for (size_t item = 0; count <= most; item++, count++) {
        item = next_difference(a, b, item, items, width);
        if (item >= items) break;
    }
    return count;
}

static void put_patches(sa_writer *out, const sa_search *search, size_t count, unsigned width) {
    size_t items = search->bytes / width, next = 0, item = 0;
    sa_put_byte(out, SA_PATCH);
    sa_put_byte(out, width);
    sa_put_varint(out, count);
    for (; count > 0; count--, next = ++item) {
        item = next_difference(search->scratch, search->body, item, items, width);
        if (item >= items) { /* somebody writes to the block in spite of the contract */
            out->overflown = 1;
            return;
        }
        sa_put_varint(out, item - next);
        sa_put_bytes(out, search->body + item * width, width);
    }
}

static int keep_shorter(sa_search *search, sa_text text) {
    if (search->best.bytes != NULL && search->best.length <= text.length) {
        free(text.bytes);
    } else {
        free(search->best.bytes);
        search->best = text;
    }
    return search->best.length <= SA_SHORT_BYTES;
}

int sa_search_consider(sa_search *search, const uint8_t *candidate, size_t length, unsigned width) {
    size_t most = search->bytes / width / SA_PATCH_SHARE;
    if (most == 0) most = 1;
    if (search->scratch == NULL) search->scratch = malloc(search->bytes);
    if (search->scratch == NULL) return search->no_memory = 1;
    if (sa_formula_grow_expression(search->known->loops, candidate, length, search->scratch, search->bytes) != NULL) return 0;
    size_t wrong = differing(search->scratch, search->body, search->bytes / width, width, most);
    if (wrong > most) return 0;
    size_t room = length + (wrong == 0 ? 0 : 12 + wrong * (5 + width));
    sa_text text = {malloc(room), 0};
    if (text.bytes == NULL) return search->no_memory = 1;
    sa_writer out = {text.bytes, text.bytes + room, 0};
    if (wrong != 0) put_patches(&out, search, wrong, width);
    sa_put_bytes(&out, candidate, length);
    text.length = (size_t)(out.at - text.bytes);
    if (out.overflown) {
        free(text.bytes);
        return 0;
    }
    return keep_shorter(search, text);
}

/* ---- series ---- */

static int consider_polynomial(sa_search *search, const sa_polynomial *polynomial) {
    uint8_t bytes[SA_TEXT_BYTES_MAX];
    unsigned wrong = 0, width = sa_type_width(polynomial->type);
    uint64_t mask = ~0ull >> (64 - 8 * width);
    for (unsigned probe = 0; probe < SA_PROBES; probe++) {
        size_t index = sa_probe(probe, search->bytes / width);
        uint64_t item = sa_polynomial_item(polynomial, index) & mask;
        wrong += item != sa_item_at(search->body, index, polynomial->type);
        if (wrong > SA_PROBES_WRONG_MAX) return 0;
    }
    sa_writer out = {bytes, bytes + sizeof bytes, 0};
    sa_put_byte(&out, SA_POLYNOMIAL);
    sa_put_byte(&out, polynomial->type);
    sa_put_byte(&out, polynomial->degree);
    for (unsigned order = 0; order <= polynomial->degree; order++) sa_put_zigzag(&out, polynomial->difference[order]);
    return sa_search_consider(search, bytes, (size_t)(out.at - bytes), width);
}

/* Are the items that a polynomial is fitted to a run of one word, whatever their width? Then so is the polynomial. */
static int is_run(const uint8_t *at) { return memcmp(at, at + 8, 8 * (SA_SERIES_ITEMS_MIN - 1)) == 0; }

static int search_polynomial(sa_search *search) {
    static const uint8_t TYPES[] = {3, 2, 1, 0, SA_TYPE_BIG | 3, SA_TYPE_BIG | 2, SA_TYPE_BIG | 1};
    if (search->is_level) return 0;
    size_t half = search->bytes / 16 * 8;
    if (half >= 8 * SA_SERIES_ITEMS_MIN && is_run(search->body) && is_run(search->body + half)) return 0;
    for (size_t i = 0; i < sizeof TYPES; i++) {
        sa_polynomial polynomial;
        size_t items = search->bytes / sa_type_width(TYPES[i]), middle = items / 2;
        if (search->bytes % sa_type_width(TYPES[i]) != 0 || items < 3 * SA_SERIES_ITEMS_MIN) continue;
        /* In the middle too, should there be an exception among the first items. */
        int fits = sa_polynomial_fit(&polynomial, search->body, 0, TYPES[i]) ||
                   sa_polynomial_fit(&polynomial, search->body, middle, TYPES[i]);
        /* Of degree 0 it would be a constant, which has been looked for. */
        if (fits && polynomial.degree > 0 && consider_polynomial(search, &polynomial)) return 1;
    }
    return 0;
}

static int search_affine(sa_search *search) {
    static const uint8_t TYPES[] = {
        3, 2, SA_TYPE_NARROW | 2, SA_TYPE_BIG | 3, SA_TYPE_BIG | 2, SA_TYPE_BIG | SA_TYPE_NARROW | 2};
    if (search->is_level) return 0;
    for (size_t i = 0; i < sizeof TYPES; i++) {
        uint8_t bytes[SA_TEXT_BYTES_MAX];
        sa_affine affine;
        unsigned width = sa_type_width(TYPES[i]);
        if (search->bytes % width != 0 || search->bytes / width < SA_SERIES_ITEMS_MIN) continue;
        if (!sa_affine_fit(&affine, search->body, search->bytes / width, TYPES[i])) continue;
        sa_writer out = {bytes, bytes + sizeof bytes, 0};
        sa_put_byte(&out, SA_AFFINE);
        sa_put_byte(&out, affine.type);
        sa_put_word(&out, affine.start, sa_affine_width(affine.type));
        sa_put_word(&out, affine.step, sa_affine_width(affine.type));
        if (affine.type & SA_TYPE_LAST) sa_put_word(&out, affine.stop, sa_affine_width(affine.type));
        if (sa_search_consider(search, bytes, (size_t)(out.at - bytes), width)) return 1;
    }
    return 0;
}

/* ---- all of it ---- */

static int search_known(sa_search *search) {
    const sa_formula_known *known = search->known;
    if (known->expression == NULL || search->depth != 0) return 0;
    return sa_search_consider(search, known->expression, known->expression_bytes, sa_widest(search->bytes));
}

static void search_all(sa_search *search) {
    static int (*const SEARCHES[])(sa_search *) = {
        search_known,  sa_search_constant, sa_search_look, search_polynomial,
        search_affine, sa_search_repeat,   sa_search_tile, sa_search_fill,
    };
    for (size_t i = 0; i < sizeof SEARCHES / sizeof *SEARCHES; i++) {
        if (SEARCHES[i](search)) break;
    }
    free(search->scratch);
    if (search->no_memory) {
        free(search->best.bytes);
        search->best = (sa_text){NULL, 0};
    }
}

sa_text sa_search_part(sa_search *search, const uint8_t *part, size_t bytes) {
    sa_search inner = {.known = search->known, .body = part, .bytes = bytes, .depth = search->depth + 1};
    if (bytes >= SA_BODY_BYTES_MIN) search_all(&inner);
    search->no_memory |= inner.no_memory;
    if (inner.best.bytes != NULL || inner.no_memory || bytes > SA_LITERAL_BYTES_MAX) return inner.best;
    sa_text literal = {malloc(bytes + 1), bytes + 1};
    if (literal.bytes == NULL) {
        search->no_memory = 1;
        return (sa_text){NULL, 0};
    }
    literal.bytes[0] = SA_LITERAL;
    memcpy(literal.bytes + 1, part, bytes);
    return literal;
}

sa_formula_result sa_formula_find(
    const sa_formula_known *known, const uint8_t *block, size_t raw_bytes, uint8_t **formula, size_t *length) {
    size_t head, tail;
    if (raw_bytes < SA_BODY_BYTES_MIN || raw_bytes > SA_FORMULA_RAW_MAX) return SA_FORMULA_NONE;
    int has_envelope = sa_formula_envelope(block, raw_bytes, &head, &tail);
    sa_search search = {.known = known, .body = block + head, .bytes = raw_bytes - head - tail};
    if (search.bytes < SA_BODY_BYTES_MIN) return SA_FORMULA_NONE;
    search_all(&search);
    if (search.best.bytes == NULL) return search.no_memory ? SA_FORMULA_NO_MEMORY : SA_FORMULA_NONE;
    size_t room = 1 + 3 + head + tail + search.best.length;
    *formula = malloc(room);
    if (*formula != NULL) {
        sa_writer out = {*formula, *formula + room, 0};
        sa_put_byte(&out, SA_FORMULA_VERSION);
        if (has_envelope) {
            sa_put_byte(&out, SA_ENVELOPE);
            sa_put_byte(&out, (unsigned)head);
            sa_put_byte(&out, (unsigned)tail);
            sa_put_bytes(&out, block, head);
            sa_put_bytes(&out, block + raw_bytes - tail, tail);
        }
        sa_put_bytes(&out, search.best.bytes, search.best.length);
        *length = (size_t)(out.at - *formula);
    }
    free(search.best.bytes);
    return *formula == NULL ? SA_FORMULA_NO_MEMORY : SA_FORMULA_FOUND;
}
