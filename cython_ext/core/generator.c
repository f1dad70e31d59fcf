/* generator.c - arrays of values of each kind. Words, invariants, threads and cost: generator.h. */
#include "generator.h"

enum { PIECE_COUNT = 2048 };

/* Turn bits into the values of RANGE or NORMAL where they stand. */
static void transform(const sa_generator *generator, uint64_t *words, size_t count) {
    if (generator->kind == SA_NORMAL) {
        for (size_t i = 0; i < count; i++) words[i] = sa_raw_of_double(sa_normal_of_bits(words[i]));
    } else if (generator->kind == SA_RANGE) {
        for (size_t i = 0; i < count; i++) {
            words[i] = generator->low + sa_range_of_bits(&generator->key, words[i], generator->span);
        }
    }
}

void sa_generator_fill(const sa_generator *generator, uint64_t start, uint64_t step, void *out, size_t count) {
    if (generator->kind == SA_FLOAT64) {
        sa_mixer_fill_doubles(&generator->key, start, step, out, count);
    } else if (generator->kind == SA_FLOAT32) {
        sa_mixer_fill_floats(&generator->key, start, step, out, count);
    } else if (generator->kind == SA_UINT64) {
        sa_mixer_fill_bits(&generator->key, start, step, out, count);
    } else {
        uint64_t *words = out;
        for (size_t done = 0, piece; done < count; done += piece) {
            piece = count - done < PIECE_COUNT ? count - done : PIECE_COUNT;
            sa_mixer_fill_bits(&generator->key, start + done * step, step, words + done, piece);
            transform(generator, words + done, piece);
        }
    }
}

void sa_generator_gather(const sa_generator *generator, const uint64_t *addresses, void *out, size_t count) {
    if (generator->kind == SA_FLOAT64) {
        sa_mixer_gather_doubles(&generator->key, addresses, out, count);
    } else if (generator->kind == SA_FLOAT32) {
        sa_mixer_gather_floats(&generator->key, addresses, out, count);
    } else if (generator->kind == SA_UINT64) {
        sa_mixer_gather_bits(&generator->key, addresses, out, count);
    } else {
        uint64_t *words = out;
        for (size_t done = 0, piece; done < count; done += piece) {
            piece = count - done < PIECE_COUNT ? count - done : PIECE_COUNT;
            sa_mixer_gather_bits(&generator->key, addresses + done, words + done, piece);
            transform(generator, words + done, piece);
        }
    }
}
