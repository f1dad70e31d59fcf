# The C side of _recipe_book.pyx.
from libc.stdint cimport uint64_t

from c_shadow_table cimport sa_digest, sa_shadow_table
from spectral_alloc._cell cimport Cell


cdef class Cost:
    cdef double seconds              # of one run, a moving average
    cdef long long run_count, declined_count


cdef class Recipe:
    cdef readonly object key, function
    cdef readonly tuple args
    cdef readonly long long size_bytes
    cdef Cost cost

    cdef int weigh(self) except -1


cdef class RecipeBook:
    cdef readonly dict recipes       # address of a cell -> Recipe
    cdef readonly dict keys          # address of a cell -> key, until its dict-wide recipe was tried
    cdef sa_shadow_table proofs
    cdef size_t proofs_max
    cdef long long recipe_bytes      # of the recipes in `recipes`

    cdef void keep(self, Cell cell, uint64_t digest, uint64_t more) noexcept
    cdef bint proof_of(self, Cell cell, sa_digest *digest) noexcept
    cdef void disprove(self, Cell cell) noexcept
    cdef object forget(self, Cell cell)


cdef size_t address_of(Cell cell) noexcept
