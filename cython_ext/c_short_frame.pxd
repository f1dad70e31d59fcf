# Frames of one part for Cython callers; the contract is in core/short_frame.h.

from libc.stdint cimport uint8_t


cdef extern from "short_frame.h":
    enum:
        SA_FRAME_RAW
        SA_FRAME_ZSTD_DICTIONARY
        SA_FRAME_FORMULA
        SA_SHORT_HEAD_BYTES_MAX
        SA_SHORT_RAW_MAX

    ctypedef struct sa_short_frame:
        const uint8_t *payload
        size_t stored, raw
        unsigned codec, dictionary_id

    int sa_short_frame_parse(const uint8_t *frame, size_t length, sa_short_frame *out) noexcept
    size_t sa_short_frame_head(uint8_t *out, unsigned codec, unsigned dictionary_id, size_t raw, size_t stored) noexcept
    void sa_short_frame_seal(uint8_t *frame, size_t length) noexcept
