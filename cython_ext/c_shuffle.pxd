"""The C names of core/shuffle.h, declared here and nowhere else."""

from libc.stdint cimport uint8_t


cdef extern from "shuffle.h" nogil:
    void sa_shuffle(uint8_t *out, const uint8_t *data, size_t length, size_t item_size)
    void sa_unshuffle(uint8_t *out, const uint8_t *data, size_t length, size_t item_size)
    void sa_shuffle_portable(uint8_t *out, const uint8_t *data, size_t length, size_t item_size)
    void sa_unshuffle_portable(uint8_t *out, const uint8_t *data, size_t length, size_t item_size)
