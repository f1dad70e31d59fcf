# Declarations of core/mixer.h, core/variates.h, core/generator.h, core/permutation.h and
# core/sorted.h; the headers are the truth.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "mixer.h" nogil:
    ctypedef enum sa_mixer_level:
        SA_LEVEL_BASELINE
        SA_LEVEL_AVX2
        SA_LEVEL_AVX512
        SA_LEVEL_COUNT

    ctypedef struct sa_mixer_key:
        uint64_t k0, k1, k2

    uint64_t sa_mix(const sa_mixer_key *key, uint64_t address)
    uint64_t sa_unmix(const sa_mixer_key *key, uint64_t bits)
    void sa_mixer_gather_bits(const sa_mixer_key *key, const uint64_t *addresses, uint64_t *out, size_t count)
    void sa_mixer_unmix(const sa_mixer_key *key, const uint64_t *bits, uint64_t *out, size_t count)
    int sa_mixer_has_level(sa_mixer_level level)
    sa_mixer_level sa_mixer_level_in_use()
    void sa_mixer_use_level(sa_mixer_level level)

cdef extern from "generator.h" nogil:
    ctypedef enum sa_kind:
        SA_FLOAT64
        SA_FLOAT32
        SA_UINT64
        SA_RANGE
        SA_NORMAL
        SA_KIND_COUNT

    ctypedef struct sa_generator:
        sa_mixer_key key
        uint64_t low
        uint64_t span
        uint32_t kind
        uint32_t value_bytes

    uint64_t sa_raw_of_double(double value)
    double sa_double_of_raw(uint64_t raw)
    uint64_t sa_raw_of_float(float value)
    float sa_float_of_raw(uint64_t raw)
    uint64_t sa_generator_raw(const sa_generator *generator, uint64_t address)
    void sa_generator_fill(const sa_generator *generator, uint64_t start, uint64_t step, void *out, size_t count)
    void sa_generator_gather(const sa_generator *generator, const uint64_t *addresses, void *out, size_t count)

cdef extern from "permutation.h" nogil:
    ctypedef struct sa_permutation:
        sa_mixer_key key
        uint64_t last

    void sa_permutation_init(sa_permutation *permutation, const sa_mixer_key *key, uint64_t last)
    uint64_t sa_permutation_at(const sa_permutation *permutation, uint64_t position)
    uint64_t sa_permutation_index(const sa_permutation *permutation, uint64_t value)
    int sa_permutation_fill_bounded(const sa_permutation *permutation, uint64_t start, uint64_t *out, size_t count)
    void sa_permutation_fill(const sa_permutation *permutation, uint64_t start, uint64_t step, uint64_t *out, size_t count)
    void sa_permutation_map(const sa_permutation *permutation, uint64_t *words, size_t count, int backwards)

cdef extern from "sorted.h" nogil:
    ctypedef struct sa_sorted:
        sa_mixer_key key
        uint64_t last

    uint64_t sa_sorted_value(const sa_sorted *sorted, uint64_t rank)
    void sa_sorted_fill(const sa_sorted *sorted, uint64_t start, uint64_t step, uint64_t *out, size_t count)
    void sa_sorted_values(const sa_sorted *sorted, uint64_t *words, size_t count)
    void sa_sorted_ranks(const sa_sorted *sorted, uint64_t *words, uint8_t *found, size_t count)
