# The C side of _formula.pyx, for the other compiled modules.
from libc.stdint cimport uint64_t

from c_generator cimport sa_generator

cdef int note_fill(
    const sa_generator *generator, uint64_t start, uint64_t step, const void *out, size_t out_bytes
) except -1
cdef object flat_formula_of(bytes stream)
