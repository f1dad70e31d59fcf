"""A durable dict from its log: cells for what is live, and the cells that refer to what compaction moves.

Nouns: a *place* is where a record lies; a *row* is what the heat file knows of one entry.

    LogIndex --slots--> Cell COLD (place, frame bytes) --> the dict, in the order of births

Invariants:
  1. restore() fills an empty dict, and only the caller's thread knows it yet.

Threads: the GIL. Cost: restore about 0.4 us for each entry; cells_in one cache line for each entry of the dict.
"""
from cpython.dict cimport PyDict_Next, PyDict_SetItem
from cpython.ref cimport PyObject

from c_cell cimport *
from c_closure cimport *
from spectral_alloc._cell cimport Backed, Cell
from spectral_alloc._journal cimport JournalCore, JournalEntry
from spectral_alloc._ledger cimport Ledger
from spectral_alloc._log cimport LogIndex, Slot
from spectral_alloc._thermal cimport DictCore

from cpython.pycapsule cimport PyCapsule_GetPointer
from spectral_alloc import _closure

cdef sa_closure_api *closure_api = <sa_closure_api *>PyCapsule_GetPointer(_closure._C_API, SA_CLOSURE_CAPSULE)

cdef enum:
    CELL_BYTES = 48          # asserted in _cell.pyx
    OFFSET_BITS = 40
    FLAG_FLAT = 2


def restore(DictCore core not None, LogIndex index not None):
    """Give an empty dict an entry on disk for each live key of an index."""
    cdef Ledger ledger = core.ledger
    cdef Py_ssize_t position
    cdef Slot *slot
    cdef Cell cell
    cdef PyObject *key
    index.sort()
    for position in range(index.count):
        slot = &index.slots[position]
        if slot.frame_bytes == 0:
            continue
        key_object = index.keys[slot.number]
        cell = Cell.__new__(Cell)
        cell.core.state = SA_COLD
        cell.core.payload = <void *><size_t>slot.place
        cell.core.frame_bytes = slot.frame_bytes
        cell.core.ledger = <void *>ledger
        cell.core.flat = (slot.flags & FLAG_FLAT) != 0
        PyDict_SetItem(core, key_object, cell)
        ledger.entry_count += 1
        ledger.cold_count += 1
        ledger.charge_entries(closure_api.size_key(<PyObject *>key_object) + CELL_BYTES)
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


def heat_rows(DictCore core not None, JournalCore journal not None):
    """(place, decayed count, state) of every committed entry that is used at all or not on disk, in the dict's order."""
    cdef PyObject *key
    cdef PyObject *found
    cdef Py_ssize_t position = 0
    cdef unsigned long long place
    cdef JournalEntry entry
    cdef Cell cell
    cdef list rows = []
    while PyDict_Next(core, &position, &key, &found):
        if type(<object>found) is not Cell:
            continue
        cell = <Cell>found
        core.ledger.look(cell)
        if cell.core.count == 0 and cell.core.state == SA_COLD:
            continue
        entry = journal.entries.get(<size_t><PyObject *>cell)
        if entry is not None:
            place = entry.place
        elif cell.core.state == SA_COLD:
            place = <unsigned long long><size_t>cell.core.payload
        elif cell.core.state == SA_BACKED:
            place = (<Backed>cell.core.payload).place
        else:
            continue
        rows.append((place, cell.core.count, cell.core.state))
    return rows


def warm_by_rows(DictCore core not None, dict counts not None):
    """Give the cells on disk at these places their counts back: place -> count. Returns place -> cell for all of them."""
    cdef PyObject *key
    cdef PyObject *found
    cdef Py_ssize_t position = 0
    cdef Cell cell
    cdef dict cells = {}
    while PyDict_Next(core, &position, &key, &found):
        if type(<object>found) is not Cell:
            continue
        cell = <Cell>found
        if cell.core.state != SA_COLD:
            continue
        place = <unsigned long long><size_t>cell.core.payload
        count = counts.get(place)
        if count is not None:
            cell.core.count, cell.core.epoch = count, core.ledger.epoch
            core.ledger.look(cell)
            cells[place] = cell
    return cells
