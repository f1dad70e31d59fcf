"""What is known of the recipes of one dict's entries: which entry has which, and what it gave when it was tried.

Nouns: a *recipe* is a function with its arguments that gives a value again; a *proof* is the digest of what the recipe of an entry
gave; an entry is *untried* while its value leaves for the first time: then its key must be known, since it is the argument.

    recipes   address of a cell -> Recipe, for entries with one of their own          (d.regrow)
    keys      address of a cell -> key, for untried entries of a dict-wide recipe     (ThermalDict.open(regrow=...))
    proofs    address of a cell -> digest, for entries that were tried and are not REGROWN; a table of core/shadow_table.h

Invariants:
  1. An address stands for an entry only until `forget`; no address is ever followed.
  2. A REGROWN cell keeps its digest itself, so an entry of a dict-wide recipe costs nothing here while it is REGROWN.
  3. There are at most `proofs_max` proofs; more push out others, whose entries are tried again when they leave next.

Threads: every method is one C call under the GIL. Cost: below 0.1 us.
"""
import sys

from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

from c_shadow_table cimport *
from spectral_alloc._cell cimport Cell

cdef enum:
    PROOF_BYTES = 80             # a slot, when half of them are taken
    PROOFS_MIN = 64
    ADDRESS_BYTES = 32           # the int in keys and recipes
    RECIPE_BYTES = 72            # a Recipe with what the garbage collector adds


cdef size_t address_of(Cell cell) noexcept:
    return <size_t><PyObject *>cell


cdef class Cost:
    """What the runs of one function take: shared by all recipes that run its code."""


cdef class Recipe:
    """A function and its arguments, which give the value of one key."""

    cdef int weigh(self) except -1:
        """Count its RAM: this object and its arguments, not what those hold."""
        self.size_bytes = RECIPE_BYTES + sys.getsizeof(self.args) + sum([sys.getsizeof(arg) for arg in self.args])
        return 0


cdef class RecipeBook:
    """The base of Regrowth (_regrow.pyx): what Ledger must know of it."""

    def __cinit__(self, *args, **named):
        self.recipes, self.keys = {}, {}
        self.proofs_max = PROOFS_MIN

    def __dealloc__(self):
        free(self.proofs.slot)

    cdef void keep(self, Cell cell, uint64_t digest, uint64_t more) noexcept:
        """A REGROWN cell gets its value back: remember what its recipe gives."""
        cdef sa_shadow proof
        cdef sa_shadow *known = sa_shadow_find(&self.proofs, <void *>cell)
        if known is not NULL:
            sa_shadow_remove(&self.proofs, known)
        if self.proofs.count >= self.proofs_max:
            sa_shadow_remove(&self.proofs, sa_shadow_next(&self.proofs))
        proof.cell, proof.place, proof.frame_bytes, proof.accesses = <void *>cell, 0, 0, 0
        proof.digest.word[0], proof.digest.word[1] = digest, more
        sa_shadow_add(&self.proofs, &proof)  # without memory it is tried again

    cdef bint proof_of(self, Cell cell, sa_digest *digest) noexcept:
        """What the recipe of a cell gave, if that is known."""
        cdef sa_shadow *known = sa_shadow_find(&self.proofs, <void *>cell)
        if known is NULL:
            return False
        digest[0] = known.digest
        return True

    cdef void disprove(self, Cell cell) noexcept:
        """The recipe of a cell is another now."""
        cdef sa_shadow *known = sa_shadow_find(&self.proofs, <void *>cell)
        if known is not NULL:
            sa_shadow_remove(&self.proofs, known)

    cdef object forget(self, Cell cell):
        """A cell is no longer an entry; returns what the caller drops last."""
        self.disprove(cell)
        if self.keys is None or self.recipes is None:
            return None  # the garbage collector was here
        address = address_of(cell)
        recipe = self.recipes.pop(address, None)
        if recipe is not None:
            self.recipe_bytes -= (<Recipe>recipe).size_bytes
        return self.keys.pop(address, None), recipe

    def limit(self, long long bytes_max):
        """Set the RAM that proofs may take."""
        self.proofs_max = max(PROOFS_MIN, bytes_max // PROOF_BYTES)

    @property
    def proof_count(self):
        """Entries that were tried and are not REGROWN."""
        return self.proofs.count

    @property
    def index_bytes(self):
        """RAM of the tables, without the recipes themselves."""
        cdef long long total = (self.proofs.mask + 1) * sizeof(sa_shadow) if self.proofs.slot is not NULL else 0
        for table in (self.recipes, self.keys):
            total += sys.getsizeof(table) + ADDRESS_BYTES * len(table)
        return total
