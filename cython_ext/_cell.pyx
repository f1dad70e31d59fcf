"""The smallest parts of a thermal dict: the cell of one entry and the budget that entries are charged to.

Nouns: a *Cell* is what the underlying dict holds for a key; a *Backed* is an immutable value whose frame is also on disk; a
*Budget* is a limit in bytes; the *pool* has cells that were freed, for the next ones. The layout, the states and the legal
moves of a cell are in core/cell.h.

    Cell   | object header 16 | sa_cell 32 |   = 48 bytes, asserted below
    Backed | object header 16 | value | place | frame_bytes |

Invariants:
  1. A cell is owned by one dict alone, which visits its value for the garbage collector; so cells are not tracked.
  2. Budget.used is the sum over the ledgers charged to it.

Threads: the GIL protects everything.
"""
cimport cython
from cpython.object cimport PyObject, PyTypeObject, destructor

from c_cell cimport *

cdef extern from "dict_core.h":
    void sa_cell_free(PyObject *object, sa_cell_pool *pool) noexcept

CELL_BYTES = 48

class EntryGoneError(KeyError):
    """The entry was deleted by another thread between its look-up and the reading of its value."""


cdef object resolve = None


def set_resolver(function):
    """Set what finds the value of a stray cell (_ledger.pyx does, which knows where values are)."""
    global resolve
    resolve = function

STATE_NAMES = {SA_HOT: "hot", SA_BACKED: "backed", SA_DEPARTING: "departing", SA_WARM: "warm", SA_COLD: "cold",
               SA_DETACHED: "detached", SA_REGROWN: "regrown"}
LEGAL_MOVES = frozenset(
    (STATE_NAMES[source], STATE_NAMES[target])
    for source in range(SA_STATE_COUNT) for target in range(SA_STATE_COUNT)
    if sa_cell_move_is_legal(&_cell_in_state(source).core, target)
)


cdef Cell _cell_in_state(unsigned state):
    cdef Cell cell = Cell.__new__(Cell)
    cell.core.state = state
    return cell


@cython.final
@cython.no_gc
cdef class Cell:
    """The state of one entry. Users never meet one, but C code that compares dicts may: a cell equals what its value equals."""

    def __eq__(self, other):
        own, its = resolve(self), resolve(other) if type(other) is Cell else other
        return own is its or own == its

    def __repr__(self):
        return repr(resolve(self))


cdef sa_cell_pool pool


cdef sa_cell_pool *cell_pool() noexcept:
    """The cells that wait to be used again."""
    return &pool


cdef void cell_dealloc(PyObject *cell) noexcept:
    sa_cell_free(cell, &pool)


(<PyTypeObject *>Cell).tp_dealloc = cell_dealloc

@cython.final
@cython.no_gc
cdef class Backed:
    """An immutable value in RAM whose frame is still on disk, so that it can leave again without being written."""


@cython.no_gc
cdef class Pending:
    """What a departing cell points to: a move that can still be called off."""

    cdef void cancel(self) noexcept:
        """Put the value back."""


@cython.final
@cython.no_gc
cdef class Budget:
    """A limit in bytes that one or many ledgers are charged to."""

    def __init__(self, long long limit_bytes, Budget parent=None):
        self.limit = limit_bytes
        self.parent = parent

    @property
    def used_bytes(self):
        return self.used

    @property
    def limit_bytes(self):
        return self.limit

    @limit_bytes.setter
    def limit_bytes(self, long long value):
        self.limit = value

    cdef long long excess(self, long long slack) noexcept:
        """Bytes by which this budget or its parent is above its limit less `slack`."""
        cdef long long own = self.used - self.limit + slack
        if self.parent is None:
            return own
        return max(own, self.parent.used - self.parent.limit + slack)

assert Cell.__basicsize__ == CELL_BYTES, Cell.__basicsize__
