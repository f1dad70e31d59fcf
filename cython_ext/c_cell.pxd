# Declarations of core/cell.h; the header is the truth.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "cell.h" nogil:
    enum:
        SA_HOT
        SA_BACKED
        SA_DEPARTING
        SA_WARM
        SA_COLD
        SA_DETACHED
        SA_REGROWN
        SA_STATE_COUNT

    ctypedef struct sa_cell:
        void *payload
        uint64_t frame_bytes "next_or_length"
        void *ledger "at.ledger"
        uint32_t charge
        uint32_t state
        uint32_t queue
        uint32_t frequency
        uint32_t flat
        uint32_t kept
        uint16_t count
        uint8_t epoch
        uint8_t band

    int64_t sa_charge_bytes(uint32_t code)
    uint32_t sa_charge_code(int64_t bytes)
    void sa_cell_hit(sa_cell *cell, uint8_t epoch_now)
    void sa_cell_cool(sa_cell *cell, uint8_t epoch_now)
    void sa_cell_mark_recipe(sa_cell *cell, void *ledger)
    int sa_cell_has_recipe(const sa_cell *cell)
    int sa_cell_move_is_legal(const sa_cell *cell, unsigned state)
