"""Walks over the table of a thermal dict: its values, each brought back only when the walk reaches it, and its cells.

Nouns: a *position* is a place in the underlying dict's table of entries, as PyDict_Next counts it; a *raw* iterator is
the underlying dict's own, over cells or pairs of a key and a cell.

    ValueIterator --next--> raw iterator --> cell ------------------> the value
    PairIterator --next--> position in the table --> key, cell -----> the value    (DictCore.peek where it is not live)

Invariants:
  1. Order, and the errors when the dict changes during iteration, are CPython's.
  2. An exhausted iterator keeps no dict alive.

Threads: the GIL, as for DictCore. Cost: a step is the dict's own and a look at the cell; a value that is not live is loaded.
"""
cimport cython
from cpython.dict cimport PyDict_Next, PyDict_Size
from cpython.object cimport PyObject

from c_cell cimport *
from spectral_alloc._cell cimport Cell, is_cell
from spectral_alloc._thermal cimport DictCore

from spectral_alloc._cell import EntryGoneError

cdef extern from "dict_core.h":
    Py_ssize_t sa_dict_size(PyObject *mapping) noexcept
    bint sa_is_unshared(PyObject *object) noexcept
    tuple sa_refilled_pair(PyObject *pair, PyObject *key, PyObject *value)
    object sa_taken(PyObject *object)
    object sa_taken_payload(PyObject *cell)
    PyObject *sa_next_value(object iterator) except? NULL

cdef object dict_items = dict.items
cdef object dict_values = dict.values


@cython.final
cdef class ValueIterator:
    """Iterates over values in insertion order."""
    cdef DictCore core          # None when exhausted
    cdef object raw             # the underlying dict's own iterator, over cells
    cdef Py_ssize_t position    # where the search for the key of a value that is not live goes on

    def __init__(self, DictCore core not None):
        self.core, self.raw = core, iter(dict_values(core))

    def __iter__(self):
        return self

    def __next__(self):
        cdef PyObject *found = sa_next_value(self.raw)
        if found is NULL:
            self.core = None
            raise StopIteration
        if is_cell(found) and (<Cell>found).core.state == SA_HOT:
            return sa_taken_payload(found)
        return self.fetch_slow(sa_taken(found))

    cdef object fetch_slow(self, found):
        """The value of an entry that is not live."""
        try:
            return self.core.peek(self.key_of(found), found) if type(found) is Cell else found
        except EntryGoneError:
            return next(self)  # which says that the dict changed size during iteration

    cdef object key_of(self, Cell cell):
        """The key of a cell that the raw iterator gave; the next one is looked for behind it."""
        cdef PyObject *key
        cdef PyObject *found
        while PyDict_Next(self.core, &self.position, &key, &found):
            if found == <PyObject *>cell:
                return <object>key
        return key_of_cell(self.core, cell)

    def __length_hint__(self):
        return self.raw.__length_hint__()

    def __reduce__(self):
        cdef Py_ssize_t position = self.position
        rest = [self.fetch_slow(found) for found in _copy_iterator(self.raw)]
        self.position = position
        return iter, (rest,)


@cython.final
cdef class PairIterator:
    """Iterates over pairs of a key and a value in insertion order."""
    cdef DictCore core      # None when exhausted
    cdef tuple reusable     # the last pair, used again if nobody kept it
    cdef Py_ssize_t position
    cdef Py_ssize_t size    # of the dict at the start; -1 once it has changed
    cdef Py_ssize_t left

    def __init__(self, DictCore core not None):
        self.core = core
        self.size = self.left = PyDict_Size(core)

    def __iter__(self):
        return self

    def __next__(self):
        cdef PyObject *key
        cdef PyObject *found
        if self.core is None:
            raise StopIteration
        if sa_dict_size(<PyObject *>self.core) != self.size:
            self.size = -1
            raise RuntimeError("dictionary changed size during iteration")
        if not PyDict_Next(self.core, &self.position, &key, &found):
            self.core = self.reusable = None
            raise StopIteration
        if self.left == 0:
            self.core = self.reusable = None
            raise RuntimeError("dictionary keys changed during iteration")
        self.left -= 1
        if is_cell(found) and (<Cell>found).core.state == SA_HOT:
            if self.reusable is None or not sa_is_unshared(<PyObject *>self.reusable):
                self.reusable = (<object>key, <object>(<Cell>found).core.payload)
                return self.reusable
            return sa_refilled_pair(<PyObject *>self.reusable, key, <PyObject *>(<Cell>found).core.payload)
        return self.fetch_slow(key, found)

    cdef object fetch_slow(self, PyObject *key, PyObject *found):
        """The pair of an entry that is not live; held, since the dict may let go of both while the value is loaded."""
        cdef object name = <object>key, entry = <object>found
        try:
            return name, self.core.peek(name, entry)
        except EntryGoneError:
            return next(self)  # which says that the dict changed size during iteration

    def __length_hint__(self):
        return 0 if self.core is None or PyDict_Size(self.core) != self.size else self.left

    def __reduce__(self):
        return iter, (rest_of(self.core, self.position) if self.core is not None else [],)


cdef list rest_of(DictCore core, Py_ssize_t position):
    """Pairs from `position` on."""
    cdef PyObject *key
    cdef PyObject *found
    cdef list rest = []
    while PyDict_Next(core, &position, &key, &found):
        rest.append((<object>key, <object>found))
    return [(name, core.peek(name, cell)) for name, cell in rest]


@cython.final
cdef class ReversedIterator:
    """Iterates over values or pairs, the newest entry first."""
    cdef DictCore core
    cdef object raw
    cdef bint pairs

    def __init__(self, DictCore core not None, bint pairs):
        self.core, self.pairs = core, pairs
        self.raw = reversed(dict_items(core))

    def __iter__(self):
        return self

    def __next__(self):
        cdef tuple pair = next(self.raw, None)
        if pair is None:
            self.raw, self.core = iter(()), None
            raise StopIteration
        try:
            value = self.core.peek(pair[0], pair[1])
        except EntryGoneError:
            return next(self)
        return (pair[0], value) if self.pairs else value

    def __length_hint__(self):
        return self.raw.__length_hint__()

    def __reduce__(self):
        cdef list rest = [(key, self.core.peek(key, found)) for key, found in _copy_iterator(self.raw)]
        return iter, (rest if self.pairs else [value for key, value in rest],)


def _copy_iterator(raw):
    """The pairs that a raw iterator has still to give, without moving it."""
    rest = raw.__reduce__()[1]
    return rest[0] if rest else ()


def all_cells(DictCore core not None):
    """All (key, cell) pairs of a dict."""
    return [(key, found) for key, found in dict_items(core) if type(found) is Cell]


def key_of_cell(DictCore core not None, Cell cell not None):
    """The key of a cell that its dict has; KeyError. Cost: a walk over the dict."""
    cdef PyObject *key
    cdef PyObject *found
    cdef Py_ssize_t position = 0
    while PyDict_Next(core, &position, &key, &found):
        if found == <PyObject *>cell:
            return <object>key
    raise EntryGoneError(cell)


def stored_cells_after(DictCore core not None, Py_ssize_t position, Py_ssize_t limit):
    """Up to `limit` slots of the table from `position`: (next position or -1, the cells whose frame is on disk)."""
    cdef PyObject *key
    cdef PyObject *found
    cdef list cells = []
    while limit > 0:
        limit -= 1
        if not PyDict_Next(core, &position, &key, &found):
            return -1, cells
        if is_cell(found):
            if (<Cell>found).core.state == SA_COLD or (<Cell>found).core.state == SA_BACKED:
                cells.append(<object>found)
    return position, cells


def recall_departures(DictCore core not None):
    """After a fork: call off the departures of threads that did not come along."""
    cdef PyObject *key
    cdef PyObject *found
    cdef Py_ssize_t position = 0
    while core.ledger.departing_count > 0 and PyDict_Next(core, &position, &key, &found):
        if is_cell(found) and (<Cell>found).core.state == SA_DEPARTING:
            core.ledger.live(<Cell>found)
