/* formula_grow.c - checking and growing of formulas. Words, invariants, threads and cost: formula.h. */
#include "formula.h"
#include "formula_noise.h"
#include "formula_series.h"
#include "formula_text.h"

#include <math.h>
#include <string.h>

enum { CHUNK_WORDS = 512 };

_Static_assert(
    SA_FLOAT64 == 0 && SA_FLOAT32 == 1 && SA_UINT64 == 2 && SA_RANGE == 3 && SA_NORMAL == 4, "kinds of spaces are stored");

/* One walk over a formula: with out == NULL it only checks. */
typedef struct walker {
    sa_reader reader;
    const sa_formula_loops *loops;
} walker;

static void walk(walker *walk_, uint8_t *out, uint64_t bytes, unsigned depth);

static int is_width(unsigned width) { return width == 1 || width == 2 || width == 4 || width == 8; }

static void wrong(walker *w, const char *what) { sa_read_wrong(&w->reader, what); }

static int is_sound(const walker *w) { return w->reader.wrong == NULL; }

static void walk_literal(walker *w, uint8_t *out, uint64_t bytes) {
    const uint8_t *literal = sa_read_bytes(&w->reader, bytes);
    if (literal != NULL && out != NULL) memcpy(out, literal, bytes);
}

static void walk_tile(walker *w, uint8_t *out, uint64_t bytes, unsigned depth) {
    uint64_t period = sa_read_varint(&w->reader);
    if (is_sound(w) && (period == 0 || period >= bytes)) wrong(w, "a tile is not shorter than what it covers");
    if (!is_sound(w)) return;
    walk(w, out, period, depth);
    if (out == NULL || !is_sound(w)) return;
    for (uint64_t done = period; done < bytes;) {
        uint64_t more = done < bytes - done ? done : bytes - done;
        memcpy(out + done, out, more);
        done += more;
    }
}

/* The inner items are grown at the end of the block; putting them down from the start never overtakes them. */
static void put_repeats(uint8_t *out, uint64_t bytes, uint64_t inner_bytes, unsigned width, uint64_t times) {
    const uint8_t *inner = out + (bytes - inner_bytes);
    uint64_t items = bytes / width, item = 0;
    for (uint64_t at = 0; at < items; item++) {
        uint8_t one[8] = {0};
        uint64_t end = at + times < items ? at + times : items;
        memcpy(one, inner + item * width, width);
        if (width == 1) {
            memset(out + at, one[0], end - at);
            at = end;
        } else if (width == 8) {
            for (; at < end; at++) memcpy(out + at * 8, one, 8);
        } else {
            for (; at < end; at++) memcpy(out + at * width, one, width);
        }
    }
}

static void walk_repeat(walker *w, uint8_t *out, uint64_t bytes, unsigned depth) {
    unsigned width = sa_read_byte(&w->reader);
    uint64_t times = sa_read_varint(&w->reader);
    if (is_sound(w) && !is_width(width)) wrong(w, "items are not of 1, 2, 4 or 8 bytes");
    if (!is_sound(w)) return;
    if (bytes % width != 0 || times < 2 || times > bytes / width) wrong(w, "a repeat does not fit what it covers");
    if (!is_sound(w)) return;
    uint64_t inner_bytes = (bytes / width + times - 1) / times * width;
    walk(w, out == NULL ? NULL : out + (bytes - inner_bytes), inner_bytes, depth);
    if (out != NULL && is_sound(w)) put_repeats(out, bytes, inner_bytes, width, times);
}

static void walk_patch(walker *w, uint8_t *out, uint64_t bytes, unsigned depth) {
    unsigned width = sa_read_byte(&w->reader);
    uint64_t count = sa_read_varint(&w->reader), at = 0;
    if (is_sound(w) && (!is_width(width) || bytes % width != 0)) wrong(w, "patches do not fit what they cover");
    if (is_sound(w) && (count == 0 || count > bytes / width)) wrong(w, "there are more patches than items");
    sa_reader patches = w->reader;
    for (uint64_t patch = 0; patch < count && is_sound(w); patch++) {
        uint64_t gap = sa_read_varint(&w->reader);
        sa_read_bytes(&w->reader, width);
        if (is_sound(w) && gap >= bytes / width - at) wrong(w, "a patch lies outside");
        at += gap + 1;
    }
    if (!is_sound(w)) return;
    walk(w, out, bytes, depth);
    if (out == NULL || !is_sound(w)) return;
    for (at = 0; count > 0; count--, at++) {
        at += sa_read_varint(&patches);
        memcpy(out + at * width, sa_read_bytes(&patches, width), width);
    }
}

static void walk_envelope(walker *w, uint8_t *out, uint64_t bytes, unsigned depth) {
    unsigned head = sa_read_byte(&w->reader), tail = sa_read_byte(&w->reader);
    if (is_sound(w) && (head > SA_ENVELOPE_BYTES_MAX || tail > SA_ENVELOPE_BYTES_MAX || head + tail >= bytes)) {
        wrong(w, "head and tail do not fit");
    }
    const uint8_t *ends = sa_read_bytes(&w->reader, head + tail);
    if (ends == NULL) return;
    /* Grown where words are aligned, then moved. */
    walk(w, out, bytes - head - tail, depth);
    if (out == NULL || !is_sound(w)) return;
    memmove(out + head, out, bytes - head - tail);
    memcpy(out, ends, head);
    memcpy(out + bytes - tail, ends + head, tail);
}

static void walk_polynomial(walker *w, uint8_t *out, uint64_t bytes) {
    sa_polynomial polynomial = {.type = sa_read_byte(&w->reader)};
    polynomial.degree = sa_read_byte(&w->reader);
    if (polynomial.degree > SA_DEGREE_MAX || (polynomial.type & ~(SA_TYPE_BIG | SA_TYPE_WIDTH)) ||
        bytes % sa_type_width(polynomial.type) != 0) {
        wrong(w, "a polynomial of an unknown type or degree");
    }
    for (unsigned order = 0; is_sound(w) && order <= polynomial.degree; order++) {
        polynomial.difference[order] = sa_read_zigzag(&w->reader);
    }
    if (out != NULL && is_sound(w)) sa_polynomial_grow(&polynomial, out, bytes / sa_type_width(polynomial.type));
}

static int is_finite_raw(uint64_t raw, unsigned width) {
    return width == 8 ? isfinite(sa_double_of_raw(raw)) : isfinite(sa_float_of_raw(raw));
}

static void walk_affine(walker *w, uint8_t *out, uint64_t bytes) {
    sa_affine affine = {.type = sa_read_byte(&w->reader)};
    unsigned item_width = sa_type_width(affine.type), width = sa_affine_width(affine.type);
    unsigned flags = SA_TYPE_BIG | SA_TYPE_NARROW | SA_TYPE_LAST | SA_TYPE_WIDTH;
    if ((affine.type & ~flags) || item_width < 4 || (affine.type & SA_TYPE_NARROW && item_width != 4) ||
        bytes % item_width != 0) {
        wrong(w, "a series of an unknown type");
    }
    if (!is_sound(w)) return;
    affine.start = sa_read_word(&w->reader, width);
    affine.step = sa_read_word(&w->reader, width);
    if (affine.type & SA_TYPE_LAST) affine.stop = sa_read_word(&w->reader, width);
    if (!is_finite_raw(affine.start, width) || !is_finite_raw(affine.step, width) || !is_finite_raw(affine.stop, width)) {
        wrong(w, "a series of numbers that are not finite");
    }
    if (out != NULL && is_sound(w)) sa_affine_grow(&affine, out, bytes / item_width);
}

static sa_mixer_key read_key(sa_reader *reader) {
    sa_mixer_key key;
    key.k0 = sa_read_word(reader, 8);
    key.k1 = sa_read_word(reader, 8);
    key.k2 = sa_read_word(reader, 8);
    return key;
}

static void fill_in_pieces(
    const sa_formula_loops *loops, const sa_generator *generator, uint64_t start, uint64_t step, uint8_t *out, uint64_t count) {
    uint64_t words[CHUNK_WORDS];
    for (uint64_t done = 0; done < count; done += CHUNK_WORDS) {
        uint64_t some = count - done < CHUNK_WORDS ? count - done : CHUNK_WORDS;
        loops->fill(generator, start + done * step, step, words, some);
        memcpy(out + done * generator->value_bytes, words, some * generator->value_bytes);
    }
}

static void walk_space(walker *w, uint8_t *out, uint64_t bytes) {
    sa_generator generator = {.kind = sa_read_byte(&w->reader), .value_bytes = 8, .span = 1};
    if (generator.kind == SA_FLOAT32) generator.value_bytes = 4;
    if (SA_NATIVE_BIG) wrong(w, "fills of spaces are regrown on little-endian machines");
    if (generator.kind >= SA_KIND_COUNT || bytes % generator.value_bytes != 0) wrong(w, "a space of an unknown kind");
    generator.key = read_key(&w->reader);
    uint64_t start = sa_read_word(&w->reader, 8), step = sa_read_zigzag(&w->reader);
    if (generator.kind == SA_RANGE) {
        generator.low = sa_read_zigzag(&w->reader);
        generator.span = sa_read_varint(&w->reader);
    }
    if (out == NULL || !is_sound(w)) return;
    uint64_t count = bytes / generator.value_bytes;
    if ((uintptr_t)out % 8 == 0) w->loops->fill(&generator, start, step, out, count);
    else fill_in_pieces(w->loops, &generator, start, step, out, count);
}

static void walk_permuted(walker *w, uint8_t *out, uint64_t bytes) {
    unsigned width = sa_read_byte(&w->reader);
    sa_mixer_key key = read_key(&w->reader);
    uint64_t last = sa_read_varint(&w->reader), start = sa_read_varint(&w->reader);
    if (is_sound(w) && ((width != 4 && width != 8) || bytes % width != 0)) wrong(w, "numbers are not of 4 or 8 bytes");
    if (!is_sound(w)) return;
    uint64_t count = bytes / width;
    if (start > last || count - 1 > last - start || (width == 4 && last > UINT32_MAX)) {
        wrong(w, "a permutation of fewer numbers than it must give");
    }
    uint64_t words[CHUNK_WORDS];
    for (uint64_t done = 0; out != NULL && is_sound(w) && done < count; done += CHUNK_WORDS) {
        uint64_t some = count - done < CHUNK_WORDS ? count - done : CHUNK_WORDS;
        if (w->loops->permute(&key, last, start + done, words, some) < 0) wrong(w, "a permutation that takes too long");
        for (uint64_t i = 0; i < some; i++) sa_put_item(out, done + i, words[i], width == 8 ? 3 : 2);
    }
}

static void walk_mersenne(walker *w, uint8_t *out, uint64_t bytes) {
    unsigned form = sa_read_byte(&w->reader);
    uint64_t seed = sa_read_varint(&w->reader), skip = sa_read_varint(&w->reader);
    if (form != SA_NOISE_DOUBLE && form != SA_NOISE_RAW) wrong(w, "numbers of an unknown form");
    if (seed > UINT32_MAX || skip > sa_mersenne_skip_max(bytes)) wrong(w, "a seed or a number of draws beyond its limit");
    if (out == NULL || !is_sound(w)) return;
    sa_mersenne mersenne;
    sa_mersenne_seed(&mersenne, (uint32_t)seed);
    while (skip-- > 0) (void)sa_mersenne_draw(&mersenne);
    sa_mersenne_grow(&mersenne, (sa_noise_form)form, out, bytes);
}

static unsigned __int128 read_wide(sa_reader *reader) {
    uint64_t low = sa_read_word(reader, 8), high = sa_read_word(reader, 8);
    return (unsigned __int128)high << 64 | low;
}

static void walk_pcg(walker *w, uint8_t *out, uint64_t bytes) {
    unsigned form = sa_read_byte(&w->reader);
    sa_pcg pcg;
    pcg.state = read_wide(&w->reader);
    pcg.increment = read_wide(&w->reader);
    if (is_sound(w) && form >= SA_NOISE_FORM_COUNT) wrong(w, "numbers of an unknown form");
    if (is_sound(w) && (pcg.increment & 1) == 0) wrong(w, "an even increment");
    if (out != NULL && is_sound(w)) sa_pcg_grow(&pcg, (sa_noise_form)form, out, bytes);
}

/* One expression of `bytes` bytes, at least one. */
static void walk(walker *w, uint8_t *out, uint64_t bytes, unsigned depth) {
    if (depth == SA_FORMULA_DEPTH_MAX) {
        wrong(w, "it is nested too deeply");
        return;
    }
    unsigned kind = sa_read_byte(&w->reader);
    if (!is_sound(w)) return;
    switch (kind) {
    case SA_LITERAL: walk_literal(w, out, bytes); break;
    case SA_TILE: walk_tile(w, out, bytes, depth + 1); break;
    case SA_REPEAT: walk_repeat(w, out, bytes, depth + 1); break;
    case SA_PATCH: walk_patch(w, out, bytes, depth + 1); break;
    case SA_ENVELOPE: walk_envelope(w, out, bytes, depth + 1); break;
    case SA_POLYNOMIAL: walk_polynomial(w, out, bytes); break;
    case SA_AFFINE: walk_affine(w, out, bytes); break;
    case SA_SPACE: walk_space(w, out, bytes); break;
    case SA_PERMUTED: walk_permuted(w, out, bytes); break;
    case SA_MERSENNE: walk_mersenne(w, out, bytes); break;
    case SA_PCG: walk_pcg(w, out, bytes); break;
    default: wrong(w, "an expression of an unknown kind");
    }
}

static const char *walk_whole(walker *w, uint8_t *out, uint64_t raw_bytes, int has_version) {
    if (raw_bytes == 0 || raw_bytes > SA_FORMULA_RAW_MAX) return "it stands for nothing, or for more than a formula may";
    if (has_version && sa_read_byte(&w->reader) != SA_FORMULA_VERSION) wrong(w, "its version is unknown");
    if (is_sound(w)) walk(w, out, raw_bytes, 0);
    if (is_sound(w) && w->reader.at != w->reader.end) wrong(w, "bytes are left over");
    return w->reader.wrong;
}

const char *sa_formula_check(const uint8_t *formula, size_t length, uint64_t raw_bytes) {
    walker w = {.reader = {formula, formula + length, NULL}, .loops = NULL};
    return walk_whole(&w, NULL, raw_bytes, 1);
}

const char *sa_formula_grow(
    const sa_formula_loops *loops, const uint8_t *formula, size_t length, uint8_t *out, size_t raw_bytes) {
    walker w = {.reader = {formula, formula + length, NULL}, .loops = loops};
    return walk_whole(&w, out, raw_bytes, 1);
}

const char *sa_formula_grow_expression(
    const sa_formula_loops *loops, const uint8_t *expression, size_t length, uint8_t *out, size_t raw_bytes) {
    walker w = {.reader = {expression, expression + length, NULL}, .loops = loops};
    return walk_whole(&w, out, raw_bytes, 0);
}
