# Formulas for Cython callers; the contracts are in core/formula.h and core/formula_noise.h.
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from c_generator cimport sa_generator, sa_mixer_key

cdef extern from "formula.h" nogil:
    enum:
        SA_FORMULA_VERSION
        SA_FORMULA_RAW_MAX
        SA_FORMULA_KEYS_MAX
        SA_PERMUTED
        SA_MERSENNE
        SA_PCG
        SA_NOISE_DOUBLE
        SA_NOISE_RAW
        SA_NOISE_FLOAT
        SA_FORMULA_NONE
        SA_FORMULA_FOUND
        SA_FORMULA_NO_MEMORY
        SA_RUNS_BYTES_MIN

    ctypedef struct sa_formula_loops:
        void (*fill)(const sa_generator *generator, uint64_t start, uint64_t step, void *out, size_t count) noexcept nogil
        void (*gather)(const sa_mixer_key *key, const uint64_t *addresses, uint64_t *out, size_t count) noexcept nogil
        void (*unmix)(const sa_mixer_key *key, const uint64_t *bits, uint64_t *out, size_t count) noexcept nogil
        int (*permute)(const sa_mixer_key *key, uint64_t last, uint64_t start, uint64_t *out, size_t count) noexcept nogil

    ctypedef struct sa_formula_known:
        const sa_formula_loops *loops
        const uint8_t *expression
        size_t expression_bytes
        size_t key_count
        sa_mixer_key keys[SA_FORMULA_KEYS_MAX]

    const char *sa_formula_check(const uint8_t *formula, size_t length, uint64_t raw_bytes)
    const char *sa_formula_grow(
        const sa_formula_loops *loops, const uint8_t *formula, size_t length, uint8_t *out, size_t raw_bytes
    )
    const char *sa_formula_grow_expression(
        const sa_formula_loops *loops, const uint8_t *expression, size_t length, uint8_t *out, size_t raw_bytes
    )
    int sa_formula_find(
        const sa_formula_known *known, const uint8_t *block, size_t raw_bytes, uint8_t **formula, size_t *length
    )
    int sa_formula_is_runs(const uint8_t *block, size_t raw_bytes)
    int sa_formula_envelope(const uint8_t *block, size_t raw_bytes, size_t *head, size_t *tail)
    size_t sa_space_text(const sa_generator *generator, uint64_t start, uint64_t step, uint8_t *out)
    size_t sa_formula_next(
        const sa_formula_loops *loops, const uint8_t *formula, size_t length, size_t raw_bytes, uint8_t *text, uint8_t *first
    )
