"""The writes of a durable dict: each is noted in the journal and made in the dict, or neither; and undone if it must be.

Nouns: those of _journal.pyx; a *Write* is a write of durability="always" that is neither acknowledged nor undone.

    d[k] = v --admit--> Write --put: note, change--> dict --after--> Journal.wrote --commit--> acknowledge
                                                                                   --error---> withdraw

Invariants:
  1. A write is noted before anything that can fail follows its change; one that fails before has changed nothing.
  2. Between the note of a cell and its change no foreign code runs; what ran before has not deleted it.
  3. pending has, for each key, the newest Write; its `old` is what the key has if all others of the chain fail or are settled.

Threads: the GIL. Cost: beside the note one look-up; for "always" one object more.
"""
cimport cython
from cpython.dict cimport PyDict_Clear, PyDict_GetItemWithError, PyDict_Next, PyDict_SetItem
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport PyObject

from c_cell cimport *
from c_closure cimport *
from spectral_alloc._cell cimport Cell
from spectral_alloc._journal cimport JournalCore, JournalEntry
from spectral_alloc._thermal cimport DictCore

from spectral_alloc import _closure
from spectral_alloc._cell import EntryGoneError
from spectral_alloc._journal import UNKNOWN

cdef extern from "dict_core.h":
    object sa_dict_pop_or_none(object mapping, object key)
    int sa_is_container(object value) noexcept
    int sa_holds_containers(object key, object value) noexcept

cdef extern from "Python.h":
    PyObject *PyDict_SetDefault(object mapping, object key, object value) except NULL

cdef sa_closure_api *closure_api = <sa_closure_api *>PyCapsule_GetPointer(_closure._C_API, SA_CLOSURE_CAPSULE)

#: What a key has that is not in the dict.
ABSENT = object()


@cython.final
cdef class Write:
    """A write of durability="always" until it is acknowledged or undone."""

    cdef readonly object key
    cdef readonly object old, new    # what the key had and has, perhaps ABSENT
    cdef Write before                # an older one of the key that is as uncertain

    def __init__(self, key, old):
        self.key, self.old = key, old


cdef class WritingJournal(JournalCore):
    """The compiled part of Journal (journal.py): hears of every write."""
    cdef readonly dict pending       # key -> its newest Write

    def __cinit__(self, *args, **named):
        self.pending = {}

    cdef Write admit(self, key):
        """Before a write changes anything: raise if it cannot be made durable, and keep what may have to be undone."""
        if self.is_readonly:
            self.refuse()
        if type(key) is not str and type(key) is not int and type(key) is not bytes:
            self.check_key(key)
        return self.remember(key) if self.is_strict or self.undo is not None else None

    # writes that may be undone --------------------------------------------------------------------------------------

    cdef int enlist(self, Write write, Cell cell, new) except -1:
        """A write is about to change a cell, None for a new key."""
        write.before, write.new = self.pending.get(write.key), new
        if cell is None:
            write.old = ABSENT
        elif cell.core.state == SA_HOT:
            write.old = <object>cell.core.payload
        elif write.before is not None:
            write.old = write.before.new
        self.pending[write.key] = write
        return 0

    cdef bint delist(self, Write write, bint is_settled) except *:
        """A write is settled or fails. Is it the newest of its key?"""
        cdef Write newer = self.pending.get(write.key)
        if newer is write:
            if is_settled or write.before is None:
                del self.pending[write.key]  # what it has overwritten is overwritten for good
            else:
                self.pending[write.key] = write.before
            return True
        while newer is not None and newer.before is not write:
            newer = newer.before
        if newer is not None:
            newer.old = write.new if is_settled else write.old
            newer.before = None if is_settled else write.before
        return False

    def acknowledge(self, list writes not None):
        """These writes are settled: they are undone no more."""
        cdef Write write
        for write in writes:
            self.delist(write, True)

    def withdraw(self, DictCore core not None, list writes not None):
        """Give the dict back what it had before these writes, where nobody has written since."""
        cdef Write write
        cdef list dropped = []
        for write in writes:
            if not self.delist(write, False):
                continue
            # No foreign code since: nobody can have written in between.
            if write.old is not ABSENT:
                dropped.append(self.put(core, write.key, write.old, None))
                continue
            taken = self.remove(core, write.key, None)
            if type(taken) is Cell:
                self.ledger.forget(<Cell>taken, closure_api.size_key(<PyObject *>write.key))

    # the writes of the dict -----------------------------------------------------------------------------------------

    def store(self, DictCore core not None, key, value):
        """What DictCore.store does, noted."""
        cdef Write write = self.admit(key)
        cdef object dropped = self.put(core, key, value, write)
        self.after(core, write)
        return 0

    cdef object put(self, DictCore core, key, value, Write write):
        """Store and note, or neither: one look-up, and no foreign code between it and the note. Returns what to drop last."""
        cdef Cell spare = Cell.__new__(Cell)
        cdef PyObject *found = PyDict_SetDefault(core, key, spare)
        cdef object raw = None
        cdef Cell cell
        if found != <PyObject *>spare and type(<object>found) is Cell:
            cell = <Cell>found  # held: to ask for its own key may run the keys' code, which may delete it
            self.note(core, key, cell)
            if cell.core.state == SA_DETACHED:
                return self.put(core, key, value, write)
            if write is not None:
                self.enlist(write, cell, value)
            core.holds_containers |= sa_is_container(value)
            return self.ledger.replace(cell, value)
        try:
            if found != <PyObject *>spare:
                raw = <object>found
                PyDict_SetItem(core, key, spare)
            self.note_new(key if raw is None else self.own_key(core, key), spare)
            if write is not None:
                self.enlist(write, None, value)
        except BaseException:
            self.entries.pop(<size_t><PyObject *>spare, None)
            if raw is None:
                sa_dict_pop_or_none(core, key)
            else:
                PyDict_SetItem(core, key, raw)
            raise
        core.holds_containers |= sa_holds_containers(key, value)
        self.ledger.enter(spare, value, closure_api.size_key(<PyObject *>key))
        if core._regrowth is not None:
            core._regrowth.entered(spare, key)
        if self.ledger.entry_count >= core.table_check:
            core.weigh_table()
        return raw

    cdef int after(self, DictCore core, writes) except -1:
        """What every write ends with; `writes` is its Write, a list of them, or None."""
        if self.is_eager and not self.is_armed:
            self.wrote(writes if type(writes) is list else [] if writes is None else [writes])
        core.write_countdown -= 1
        if core.write_countdown <= 0:
            core.write_tick_slow()
        if self.ledger.budget_.excess(0) > 0:
            core.relieve_slow()
        return 0

    def setdefault(self, DictCore core not None, key, default):
        """What DictCore.setdefault does."""
        value = core._peek(key, UNKNOWN)
        if value is not UNKNOWN:
            return core[key]
        self.store(core, key, default)
        return default

    cdef object remove(self, DictCore core, key, Write write):
        """Remove and note, or neither. Returns the cell, which the caller forgets, a raw value, or None without the key."""
        cdef PyObject *found = PyDict_GetItemWithError(core, key)
        cdef JournalEntry entry
        cdef Cell cell
        cdef unsigned long long place
        cdef object address, taken = None
        if found is NULL:
            return None
        if type(<object>found) is not Cell:
            return sa_dict_pop_or_none(core, key)
        cell = <Cell>found
        entry = self.entry_with(core, key, cell)
        address, place = self.expect_removal(entry), entry.place
        try:
            if write is not None:
                self.enlist(write, cell, ABSENT)
            taken = sa_dict_pop_or_none(core, key)
        finally:
            if taken is not cell and entry.cell is not None:  # the keys' own code has changed the dict
                self.spare_removal(entry)
        if taken is not cell and type(taken) is Cell:
            entry = self.entry_with(core, key, <Cell>taken)
            address, place = self.expect_removal(entry), entry.place
        if type(taken) is Cell:
            self.note_removed(entry, address)
            if entry.frame_bytes and entry.place != place:
                self.doomed[entry.place] = entry
        return taken

    def delete(self, DictCore core not None, key):
        """What DictCore.__delitem__ does."""
        cdef Write write = self.admit(key)
        cdef object dropped = self.remove(core, key, write)
        if dropped is None:
            raise KeyError(key)
        if type(dropped) is Cell:
            self.ledger.forget(<Cell>dropped, closure_api.size_key(<PyObject *>key))
        self.after(core, write)

    def take(self, DictCore core not None, key, missing):
        """What DictCore.take does: remove a key and return its value, which is read before."""
        cdef PyObject *found = PyDict_GetItemWithError(core, key)
        cdef Write write
        cdef object cell = None, value = missing
        if found is NULL:
            return missing
        write = self.admit(key)
        while cell is None or found != <PyObject *>cell:
            found = PyDict_GetItemWithError(core, key)
            if found is NULL:
                return missing
            cell = <object>found
            try:
                value = core.peek(key, cell)
            except EntryGoneError:
                pass  # another thread has removed it
            found = PyDict_GetItemWithError(core, key)
        cell = self.remove(core, key, write)
        if type(cell) is Cell:
            self.ledger.forget(<Cell>cell, closure_api.size_key(<PyObject *>key))
            self.after(core, write)
        return value

    def clear(self, DictCore core not None):
        """What DictCore.clear does, in one piece."""
        cdef PyObject *key
        cdef PyObject *found
        cdef Py_ssize_t position = 0, index
        cdef list keys = [], cells = [], entries = [], addresses = []
        cdef JournalEntry entry
        cdef Write write
        cdef list writes = self.admit_clear()
        try:
            while PyDict_Next(core, &position, &key, &found):
                keys.append(<object>key)
                cells.append(<object>found)
                if type(<object>found) is Cell:
                    entry = self.known(<Cell>found)
                    entry = self.make_entry(<object>key, <Cell>found) if entry is None else entry
                    entry.key = <object>key
                    entries.append(entry)
                    addresses.append(self.expect_removal(entry))
            for write in writes:
                found = PyDict_GetItemWithError(core, write.key)
                if found is not NULL and type(<object>found) is Cell:
                    self.enlist(write, <Cell>found, ABSENT)
        except BaseException:
            for entry in entries:
                self.spare_removal(entry)
            raise
        core.removing += 1
        try:
            PyDict_Clear(core)
            for index in range(len(entries)):  # pop() may need memory
                self.note_removed(<JournalEntry>entries[index], addresses[index])
            self.forget_all(keys, cells)
        finally:
            core.removing -= 1
        core.weigh_table()
        self.after(core, writes)

    cdef int forget_all(self, list keys, list cells) except -1:
        """Forget cells that have left the dict: all of them, also if Ctrl-C comes in between."""
        cdef object stopped = None
        cdef Py_ssize_t index
        for index in range(len(cells)):
            try:
                if type(cells[index]) is Cell:
                    self.ledger.forget(<Cell>cells[index], closure_api.size_key(<PyObject *>keys[index]))
            except BaseException as error:
                stopped = error
        if stopped is not None:
            raise stopped
        return 0
