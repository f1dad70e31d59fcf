/* mixer_loops.h - the loops of one level; mixer.c includes it once for each, so it has no include guard.
 *
 * Words as in mixer.h; a *pack* is SA_LANES words that are computed side by side (a vector of GCC, or one word).
 *
 *   out | head: one by one until out is aligned for packs | packs ... | tail: one by one |
 *
 * Before each inclusion these are defined: SA_LEVEL(name) makes a name of the level; SA_TARGET is the attribute of its
 * functions; SA_LANES; SA_TO_DOUBLE(pack) of words below 2^53 is exact; SA_TO_FLOAT(doubles) of values below 2^24;
 * SA_STREAM(pointer, pack) stores past the caches.
 *
 * Invariants: 1. A pack computes what sa_mix computes for each of its words. 2. Head and tail call the functions of mixer.h.
 * Threads: pure. Cost: one pack takes three multiplications of vectors, which overlap with those of the next packs.
 */
#if SA_LANES == 1
typedef uint64_t SA_LEVEL(words);
typedef double SA_LEVEL(doubles);
typedef float SA_LEVEL(floats);
#else
typedef uint64_t SA_LEVEL(words) __attribute__((vector_size(8 * SA_LANES)));
typedef double SA_LEVEL(doubles) __attribute__((vector_size(8 * SA_LANES)));
typedef float SA_LEVEL(floats) __attribute__((vector_size(4 * SA_LANES)));
#endif

_Static_assert(sizeof(SA_LEVEL(words)) == 8 * SA_LANES, "a pack is its words without padding");

/* The packs of addresses are handed on by pointer: passing them would depend on the level's calling convention. */
SA_TARGET static inline void SA_LEVEL(mix)(const sa_mixer_key *key, const SA_LEVEL(words) *addresses,
                                           SA_LEVEL(words) *bits) {
    SA_LEVEL(words) z = *addresses ^ key->k0;
    SA_MIX_ROUNDS(z, key);
    *bits = z ^ key->k2;
}

SA_TARGET static void SA_LEVEL(unmix)(const sa_mixer_key *key, const uint64_t *bits, uint64_t *out, size_t count) {
    SA_LEVEL(words) z;
    size_t i = 0;
    for (; i + SA_LANES <= count; i += SA_LANES) {
        memcpy(&z, bits + i, sizeof z);
        z ^= key->k2;
        SA_UNMIX_ROUNDS(z, key);
        z ^= key->k0;
        memcpy(out + i, &z, sizeof z);
    }
    for (; i < count; i++) out[i] = sa_unmix(key, bits[i]);
}

SA_TARGET static inline void SA_LEVEL(progression)(uint64_t start, uint64_t step, SA_LEVEL(words) *addresses) {
    uint64_t lanes[SA_LANES];
    for (unsigned lane = 0; lane < SA_LANES; lane++) lanes[lane] = start + lane * step;
    memcpy(addresses, lanes, sizeof lanes);
}

SA_TARGET static inline void SA_LEVEL(to_doubles)(const SA_LEVEL(words) *bits, SA_LEVEL(doubles) *out) {
    *out = SA_TO_DOUBLE(*bits >> 11) * 0x1p-53;
}

SA_TARGET static inline void SA_LEVEL(to_floats)(const SA_LEVEL(words) *bits, SA_LEVEL(floats) *out) {
    *out = SA_TO_FLOAT(SA_TO_DOUBLE(*bits >> 40)) * 0x1p-24f;
}

SA_TARGET static void SA_LEVEL(fill_bits)(const sa_mixer_key *key, uint64_t start, uint64_t step, uint64_t *out,
                                          size_t count) {
    SA_LEVEL(words) addresses, bits;
    size_t i = 0;
    SA_LEVEL(progression)(start, step, &addresses);
    for (; i + SA_LANES <= count; i += SA_LANES, addresses += step * SA_LANES) {
        SA_LEVEL(mix)(key, &addresses, &bits);
        memcpy(out + i, &bits, sizeof bits);
    }
    for (; i < count; i++) out[i] = sa_mix(key, start + i * step);
}

SA_TARGET static void SA_LEVEL(fill_doubles)(const sa_mixer_key *key, uint64_t start, uint64_t step, double *out,
                                             size_t count) {
    SA_LEVEL(words) addresses, bits;
    SA_LEVEL(doubles) values;
    size_t i = 0;
    SA_LEVEL(progression)(start, step, &addresses);
    for (; i + SA_LANES <= count; i += SA_LANES, addresses += step * SA_LANES) {
        SA_LEVEL(mix)(key, &addresses, &bits);
        SA_LEVEL(to_doubles)(&bits, &values);
        memcpy(out + i, &values, sizeof values);
    }
    for (; i < count; i++) out[i] = sa_double_of_bits(sa_mix(key, start + i * step));
}

SA_TARGET static void SA_LEVEL(stream_bits)(const sa_mixer_key *key, uint64_t start, uint64_t step, uint64_t *out,
                                            size_t count) {
    SA_LEVEL(words) addresses, bits;
    size_t i = 0;
    for (; i < count && (uintptr_t)(out + i) % sizeof bits != 0; i++) out[i] = sa_mix(key, start + i * step);
    SA_LEVEL(progression)(start + i * step, step, &addresses);
    for (; i + SA_LANES <= count; i += SA_LANES, addresses += step * SA_LANES) {
        SA_LEVEL(mix)(key, &addresses, &bits);
        SA_STREAM(out + i, bits);
    }
    SA_STREAM_END();
    for (; i < count; i++) out[i] = sa_mix(key, start + i * step);
}

SA_TARGET static void SA_LEVEL(stream_doubles)(const sa_mixer_key *key, uint64_t start, uint64_t step, double *out,
                                               size_t count) {
    SA_LEVEL(words) addresses, bits;
    SA_LEVEL(doubles) values;
    size_t i = 0;
    for (; i < count && (uintptr_t)(out + i) % sizeof bits != 0; i++) {
        out[i] = sa_double_of_bits(sa_mix(key, start + i * step));
    }
    SA_LEVEL(progression)(start + i * step, step, &addresses);
    for (; i + SA_LANES <= count; i += SA_LANES, addresses += step * SA_LANES) {
        SA_LEVEL(mix)(key, &addresses, &bits);
        SA_LEVEL(to_doubles)(&bits, &values);
        memcpy(&bits, &values, sizeof bits);
        SA_STREAM(out + i, bits);
    }
    SA_STREAM_END();
    for (; i < count; i++) out[i] = sa_double_of_bits(sa_mix(key, start + i * step));
}

SA_TARGET static void SA_LEVEL(fill_floats)(const sa_mixer_key *key, uint64_t start, uint64_t step, float *out,
                                            size_t count) {
    SA_LEVEL(words) addresses, bits;
    SA_LEVEL(floats) values;
    size_t i = 0;
    SA_LEVEL(progression)(start, step, &addresses);
    for (; i + SA_LANES <= count; i += SA_LANES, addresses += step * SA_LANES) {
        SA_LEVEL(mix)(key, &addresses, &bits);
        SA_LEVEL(to_floats)(&bits, &values);
        memcpy(out + i, &values, sizeof values);
    }
    for (; i < count; i++) out[i] = sa_float_of_bits(sa_mix(key, start + i * step));
}

SA_TARGET static void SA_LEVEL(gather_bits)(const sa_mixer_key *key, const uint64_t *addresses, uint64_t *out,
                                            size_t count) {
    SA_LEVEL(words) wanted, bits;
    size_t i = 0;
    for (; i + SA_LANES <= count; i += SA_LANES) {
        memcpy(&wanted, addresses + i, sizeof wanted);
        SA_LEVEL(mix)(key, &wanted, &bits);
        memcpy(out + i, &bits, sizeof bits);
    }
    for (; i < count; i++) out[i] = sa_mix(key, addresses[i]);
}

SA_TARGET static void SA_LEVEL(gather_doubles)(const sa_mixer_key *key, const uint64_t *addresses, double *out,
                                               size_t count) {
    SA_LEVEL(words) wanted, bits;
    SA_LEVEL(doubles) values;
    size_t i = 0;
    for (; i + SA_LANES <= count; i += SA_LANES) {
        memcpy(&wanted, addresses + i, sizeof wanted);
        SA_LEVEL(mix)(key, &wanted, &bits);
        SA_LEVEL(to_doubles)(&bits, &values);
        memcpy(out + i, &values, sizeof values);
    }
    for (; i < count; i++) out[i] = sa_double_of_bits(sa_mix(key, addresses[i]));
}

SA_TARGET static void SA_LEVEL(stream_gather_bits)(const sa_mixer_key *key, const uint64_t *addresses, uint64_t *out,
                                                   size_t count) {
    SA_LEVEL(words) wanted, bits;
    size_t i = 0;
    for (; i < count && (uintptr_t)(out + i) % sizeof bits != 0; i++) out[i] = sa_mix(key, addresses[i]);
    for (; i + SA_LANES <= count; i += SA_LANES) {
        memcpy(&wanted, addresses + i, sizeof wanted);
        SA_LEVEL(mix)(key, &wanted, &bits);
        SA_STREAM(out + i, bits);
    }
    SA_STREAM_END();
    for (; i < count; i++) out[i] = sa_mix(key, addresses[i]);
}

SA_TARGET static void SA_LEVEL(stream_gather_doubles)(const sa_mixer_key *key, const uint64_t *addresses, double *out,
                                                      size_t count) {
    SA_LEVEL(words) wanted, bits;
    SA_LEVEL(doubles) values;
    size_t i = 0;
    for (; i < count && (uintptr_t)(out + i) % sizeof bits != 0; i++) {
        out[i] = sa_double_of_bits(sa_mix(key, addresses[i]));
    }
    for (; i + SA_LANES <= count; i += SA_LANES) {
        memcpy(&wanted, addresses + i, sizeof wanted);
        SA_LEVEL(mix)(key, &wanted, &bits);
        SA_LEVEL(to_doubles)(&bits, &values);
        memcpy(&bits, &values, sizeof bits);
        SA_STREAM(out + i, bits);
    }
    SA_STREAM_END();
    for (; i < count; i++) out[i] = sa_double_of_bits(sa_mix(key, addresses[i]));
}

SA_TARGET static void SA_LEVEL(gather_floats)(const sa_mixer_key *key, const uint64_t *addresses, float *out,
                                              size_t count) {
    SA_LEVEL(words) wanted, bits;
    SA_LEVEL(floats) values;
    size_t i = 0;
    for (; i + SA_LANES <= count; i += SA_LANES) {
        memcpy(&wanted, addresses + i, sizeof wanted);
        SA_LEVEL(mix)(key, &wanted, &bits);
        SA_LEVEL(to_floats)(&bits, &values);
        memcpy(out + i, &values, sizeof values);
    }
    for (; i < count; i++) out[i] = sa_float_of_bits(sa_mix(key, addresses[i]));
}

static const sa_mixer_loops SA_LEVEL(loops) = {
    SA_LEVEL(fill_bits),      SA_LEVEL(fill_doubles), SA_LEVEL(fill_floats),    SA_LEVEL(stream_bits),
    SA_LEVEL(stream_doubles), SA_LEVEL(gather_bits),  SA_LEVEL(gather_doubles), SA_LEVEL(gather_floats),
    SA_LEVEL(stream_gather_bits), SA_LEVEL(stream_gather_doubles), SA_LEVEL(unmix),
};

#undef SA_LEVEL
#undef SA_TARGET
#undef SA_LANES
#undef SA_TO_DOUBLE
#undef SA_TO_FLOAT
#undef SA_STREAM
#undef SA_STREAM_END
