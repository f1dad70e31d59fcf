# Declarations of core/edit_block.h; the header is the truth.
from libc.stdint cimport uint8_t, uint64_t

from c_overlay cimport sa_edit

cdef extern from "edit_block.h" nogil:
    enum:
        SA_BLOCK_EDITS
        SA_BLOCK_HEADER_BYTES
        SA_BLOCK_BYTES_MAX
        SA_BLOCK_SLACK_BYTES

    ctypedef struct sa_edit_columns:
        uint64_t *addresses
        uint64_t *raws
        uint8_t *removed

    size_t sa_block_encode(const sa_edit_columns *edits, size_t count, unsigned value_bytes, uint64_t durable, sa_edit *scratch,
                           uint8_t *out)
    void sa_block_stamp(uint8_t *block, size_t size, uint64_t durable)
    size_t sa_block_size(const uint8_t *data, size_t length)
    int sa_block_is_sound(const uint8_t *block, size_t size)
    uint64_t sa_block_durable(const uint8_t *block)
    size_t sa_block_decode(const uint8_t *block, size_t size, const sa_edit_columns *out, int *has_removals)
