"""A durable dict from its log: cells for what is live, and the cells that refer to what compaction moves.

Nouns: a *place* is where a record lies; a *row* is what the heat file knows of one entry.

    LogIndex --Cell COLD (place, frame bytes)--> the dict, in the order of births

Invariants:
  1. restore() finishes a dict that the index has filled, and only the caller's thread knows it yet.

Threads: the GIL. Cost: restore about 20 ns for each entry; cells_in one cache line for each entry of the dict.
"""
from cpython.dict cimport PyDict_Next
from cpython.ref cimport PyObject
from libc.string cimport memcpy

from c_cell cimport *
from c_closure cimport *
from spectral_alloc._cell cimport Backed, Cell
from spectral_alloc._journal cimport JournalCore, JournalEntry
from spectral_alloc._ledger cimport Ledger
from spectral_alloc._log cimport LogIndex
from spectral_alloc._thermal cimport DictCore

from cpython.pycapsule cimport PyCapsule_GetPointer
from spectral_alloc import _closure

cdef extern from "dict_core.h":
    int sa_holds_containers(object key, object value) noexcept

cdef sa_closure_api *closure_api = <sa_closure_api *>PyCapsule_GetPointer(_closure._C_API, SA_CLOSURE_CAPSULE)

cdef enum:
    CELL_BYTES = 48          # asserted in _cell.pyx
    OFFSET_BITS = 40
    FLAG_FLAT = 2
    FLAG_IS_REGROWN = 16     # of LogIndex
    ROW_BYTES = 11           # place 8, count 2, state 1


def restore(DictCore core not None, LogIndex index not None):
    """Make entries on disk of the cells that an index put into this dict."""
    cdef Ledger ledger = core.ledger
    cdef PyObject *key
    cdef PyObject *found
    cdef Py_ssize_t position = 0, quick
    cdef long long key_bytes = 0, count = 0
    cdef Cell cell
    if index.cells is not core:
        raise ValueError("the index was made for another dict")
    index.sort()
    while PyDict_Next(core, &position, &key, &found):
        cell = <Cell>found
        cell.core.ledger = <void *>ledger
        if cell.core.count & FLAG_IS_REGROWN:
            sa_cell_mark_recipe(&cell.core, <void *>ledger)
        cell.core.count = 0
        quick = sa_quick_allocation(key)
        key_bytes += quick if quick >= 0 else closure_api.size_key(key)
        core.holds_containers |= sa_holds_containers(<object>key, None)
        count += 1
    ledger.entry_count += count
    ledger.cold_count += count
    ledger.charge_entries(key_bytes + count * CELL_BYTES)
    core.weigh_table()


def cells_in(DictCore core not None, JournalCore journal not None, unsigned long long segment):
    """place -> cell of everything in the dict that refers to a segment."""
    cdef PyObject *key
    cdef PyObject *found
    cdef Py_ssize_t position = 0
    cdef unsigned long long place
    cdef JournalEntry entry
    cdef Cell cell
    cdef dict cells = {}
    while PyDict_Next(core, &position, &key, &found):
        if type(<object>found) is not Cell:
            continue
        cell = <Cell>found
        if cell.core.state == SA_COLD:
            place = <unsigned long long><size_t>cell.core.payload
        elif cell.core.state == SA_BACKED:
            place = (<Backed>cell.core.payload).place
        else:
            continue
        if place >> OFFSET_BITS == segment:
            cells[place] = cell
    for entry in journal.entries.values():
        if entry.frame_bytes and entry.place >> OFFSET_BITS == segment:
            cells[entry.place] = entry.cell
    return cells


cdef unsigned long long committed_place(JournalCore journal, Cell cell) noexcept:
    """Where the committed record of a cell lies; 0 (where a header is) if there is none."""
    cdef JournalEntry entry = journal.entries.get(<size_t><PyObject *>cell)
    if entry is not None:
        return entry.place if entry.frame_bytes else 0
    if cell.core.state == SA_COLD:
        return <unsigned long long><size_t>cell.core.payload
    return (<Backed>cell.core.payload).place if cell.core.state == SA_BACKED else 0


def heat_rows(DictCore core not None, JournalCore journal not None):
    """The rows of every committed entry that is used at all or not on disk, in the dict's order."""
    cdef PyObject *key
    cdef PyObject *found
    cdef Py_ssize_t position = 0, used = 0
    cdef Cell cell
    cdef unsigned long long place
    cdef unsigned short count
    cdef bytearray rows = bytearray(len(core) * ROW_BYTES)
    cdef char *out = rows
    while PyDict_Next(core, &position, &key, &found):
        if type(<object>found) is not Cell:
            continue
        cell = <Cell>found
        core.ledger.look(cell)
        count = cell.core.count
        place = 0 if count == 0 and cell.core.state == SA_COLD else committed_place(journal, cell)
        if place:
            memcpy(out + used, &place, 8)
            memcpy(out + used + 8, &count, 2)
            out[used + 10] = <char>cell.core.state
            used += ROW_BYTES
    return bytes(rows[:used])


cdef class _Return:
    """The rows of a heat file while they are given to the cells of a dict."""
    cdef Ledger ledger
    cdef list cells              # of those that were in RAM
    cdef list counts

    cdef int take(self, Cell cell, const char *data) except -1:
        cdef unsigned short count
        memcpy(&count, data + 8, 2)
        cell.core.count, cell.core.epoch = count, self.ledger.epoch
        self.ledger.look(cell)
        if <unsigned char>data[10] < SA_COLD:
            self.cells.append(cell)
            self.counts.append(count)
        return 0


def bring_back(DictCore core not None, bytes rows not None):
    """Give cells on disk the counts of such rows; returns the cells of those that were in RAM, the hottest last.

    Rows lie in the order of the dict that wrote them, so one pass gives nearly all of them back; the rest is looked up.
    """
    cdef PyObject *key
    cdef PyObject *found
    cdef Py_ssize_t position = 0, at = 0, length = len(rows) // ROW_BYTES * ROW_BYTES
    cdef const char *data = rows
    cdef unsigned long long place
    cdef dict stray = {}
    cdef Cell cell
    cdef _Return back = _Return.__new__(_Return)
    back.ledger, back.cells, back.counts = core.ledger, [], []
    while at < length and PyDict_Next(core, &position, &key, &found):
        if type(<object>found) is Cell and (<Cell>found).core.state == SA_COLD:
            memcpy(&place, data + at, 8)
            if place == <unsigned long long><size_t>(<Cell>found).core.payload:
                back.take(<Cell>found, data + at)
                at += ROW_BYTES
    while at < length:
        memcpy(&place, data + at, 8)
        stray[place] = at
        at += ROW_BYTES
    position = 0
    while stray and PyDict_Next(core, &position, &key, &found):
        if type(<object>found) is Cell and (<Cell>found).core.state == SA_COLD:
            at_stray = stray.pop(<unsigned long long><size_t>(<Cell>found).core.payload, None)
            if at_stray is not None:
                back.take(<Cell>found, data + <Py_ssize_t>at_stray)
    counts = back.counts
    return [back.cells[index] for index in sorted(range(len(counts)), key=counts.__getitem__)]
