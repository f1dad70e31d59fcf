# Declarations of core/touch_space.h; the header is the truth.
from libc.stdint cimport uint8_t, uint64_t

from c_generator cimport sa_generator
from c_overlay cimport sa_overlay

cdef extern from "touch_space.h" nogil:
    ctypedef struct sa_touch_space:
        const sa_generator *generator
        sa_overlay *overlay
        uint64_t start

    ctypedef struct sa_touch_edits:
        uint64_t *addresses
        uint64_t *raws
        uint8_t *removed
        size_t count

    int sa_touch_space_fill(void *context, uint64_t offset, uint8_t *out, size_t bytes)
    int sa_touch_space_diff(const sa_touch_space *space, uint64_t offset, const uint8_t *page, size_t bytes,
                            sa_touch_edits *edits)
