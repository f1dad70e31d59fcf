# The C side of _regrow.pyx.
from c_shadow_table cimport sa_digest
from spectral_alloc._cell cimport Cell
from spectral_alloc._departure cimport Departure
from spectral_alloc._ledger cimport Ledger
from spectral_alloc._recipe_book cimport Cost, Recipe, RecipeBook
from spectral_alloc._thermal cimport DictCore


cdef class Ticket:
    cdef object lock
    cdef object origin               # what it was run for; None until it is done
    cdef object value
    cdef object error


cdef class Regrowth(RecipeBook):
    cdef readonly object function    # of the whole dict, or None
    cdef readonly bint is_always     # used whatever it costs
    cdef public bint is_stored       # of a durable dict: recipes stand in its log, digests are good in any process
    cdef Cost cost                   # of the function of the whole dict
    cdef dict costs                  # code or type of a function -> Cost
    cdef readonly dict awaiting      # key -> Recipe, of keys that are not there
    cdef readonly dict events        # what happened -> how often
    cdef object objects              # SharedObjects of pickled parts
    cdef object container            # weak reference to the dict
    cdef set busy                    # threads in the middle of a recipe or a read of a frame
    cdef dict tickets                # address of a cell -> Ticket of the run under way
    cdef dict missing_tickets        # key -> Ticket

    cdef int note(self, str event) except -1
    cdef Cost cost_of(self, function)
    cdef int enlist(self, Cell cell, Recipe recipe) except -1
    cdef int comes_back(self, Cell cell, key) except -1
    cdef object run(self, Recipe recipe, key)
    cdef object try_out(self, Recipe recipe, key, Cost cost, double read_seconds)
    cdef bint is_worth(self, Cost cost, double read_seconds) noexcept
    cdef bint may_try(self, Cost cost, double read_seconds) noexcept
    cdef bint digest(self, value, unsigned flags, sa_digest *digest) except *
    cdef bint takes(self, Departure departure, double read_seconds) except *
    cdef bint expects(self, Cell cell, Recipe recipe, Cost cost, double read_seconds, sa_digest *given) except *
    cdef bint is_current(self, Cell cell, Recipe recipe) except *
    cdef object read(self, Ledger ledger, Cell cell, key, tuple origin, bint insist)
    cdef int fill(self, Ticket ticket, Cell cell, key, tuple origin, sa_digest digest) except -1
    cdef object grown(self, Cell cell, key, sa_digest digest)
    cdef object proved(self, Recipe recipe, key, sa_digest digest)
    cdef object supplied(self, DictCore core, key)
