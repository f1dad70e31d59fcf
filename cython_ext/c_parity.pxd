"""Extern declarations of core/parity.h; the meaning, invariants and costs stand there."""

from libc.stdint cimport uint8_t


cdef extern from "parity.h" nogil:
    enum:
        SA_STRIPE_DATA_MAX

    void sa_parity_add(uint8_t *target, const uint8_t *source, size_t length, uint8_t factor)
    void sa_parity_add_portable(uint8_t *target, const uint8_t *source, size_t length, uint8_t factor)
    void sa_parity_scale(uint8_t *target, size_t length, uint8_t factor)
    uint8_t sa_parity_times(uint8_t a, uint8_t b)
    uint8_t sa_parity_over(uint8_t a, uint8_t b)
    uint8_t sa_parity_power(unsigned exponent)
