"""Iteration over the values of a thermal dict, each brought back only when the iteration reaches it.

Nouns: the *raw* iterator is the underlying dict's own, over pairs of a key and a cell.

    ValueIterator --next--> raw --(key, cell)--> DictCore.peek --> the value

Invariants:
  1. Order, and the errors when the dict changes during iteration, are the raw iterator's, which is CPython's.
  2. An exhausted iterator keeps no dict alive.

Threads: the GIL, as for DictCore. Cost: a step is the raw step and a look at the cell; a value that is not live is loaded.
"""
cimport cython

from spectral_alloc._thermal cimport DictCore

from spectral_alloc._cell import EntryGoneError

cdef object dict_items = dict.items


@cython.final
cdef class ValueIterator:
    """Iterates over values or pairs, backwards if asked."""
    cdef DictCore core
    cdef object raw
    cdef bint pairs

    def __init__(self, DictCore core not None, bint pairs, bint backwards):
        raw = dict_items(core)
        self.core, self.pairs = core, pairs
        self.raw = reversed(raw) if backwards else iter(raw)

    def __iter__(self):
        return self

    def __next__(self):
        cdef tuple pair = next(self.raw, None)
        if pair is None:
            self.raw, self.core = iter(()), None  # an exhausted iterator keeps no dict alive
            raise StopIteration
        try:
            value = self.core.peek(pair[0], pair[1])
        except EntryGoneError:
            return next(self)  # which says that the dict changed size during iteration
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
