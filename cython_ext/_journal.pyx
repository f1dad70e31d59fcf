"""What a durable dict remembers of its writes until they are committed, and where the committed value of each live entry lies.

Nouns: a *commit* writes what changed as one batch of the log; an entry is *dirty* from a write until its commit, *edited* when its
value was found changed in place, *clean* when the log has what the dict has; a *parked* frame was moved to disk before its commit.

    cell COLD or BACKED, clean     no JournalEntry: its place is the committed one
    every other cell               entries[address of the cell] -> JournalEntry -> committed place, digest
    removed since the last commit  a JournalEntry without a cell, in dirty alone

Invariants:
  1. The log's live frames are those at the places of clean COLD and BACKED cells, of JournalEntries, and in `parked`.
  2. Every dirty or edited entry that is in the dict is in `entries`.
  3. The order of `dirty` is the order of the first writes, so a commit keeps the dict's order.

Threads: the GIL; every method here changes its tables in one piece. Cost: noting a write is two dict operations.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.dict cimport PyDict_Contains
from cpython.ref cimport PyObject
from libc.string cimport memcpy

from c_cell cimport *
from c_shadow_table cimport sa_digest, sa_digests_equal
from spectral_alloc._cell cimport Backed, Cell
from spectral_alloc._ledger cimport Ledger
from spectral_alloc._thermal cimport DictCore

#: The key of an entry that was read but not written.
UNKNOWN = object()


# Not tracked by the garbage collector: like the cell it belongs to, it is as alive as its dict.
@cython.final
@cython.no_gc
cdef class JournalEntry:
    """What the journal knows about one entry."""

    cdef bint is_sum(self, sa_digest sum) noexcept:
        """Is this the digest of what the log has?"""
        return self.has_sum and sa_digests_equal(self.sum, sum)

    @property
    def digest(self):
        """The digest of the serialised value as committed; None: not known."""
        return (<char *>&self.sum)[:sizeof(self.sum)] if self.has_sum else None


@cython.final
cdef class _KeyProbe:
    """Equal to a key of a dict, which it notes: a look-up alone does not say which key it found."""
    cdef object key, found
    cdef Py_hash_t hash_of_key

    def __hash__(self):
        return self.hash_of_key

    def __eq__(self, other):
        if self.key is not other and not self.key == other:
            return False
        self.found = other
        return True


cdef sa_digest sum_in(bytes digest) except *:
    """The C form of a digest."""
    cdef sa_digest sum
    if len(digest) != sizeof(sum):
        raise ValueError(f"a digest has {sizeof(sum)} bytes, not {len(digest)}")
    memcpy(&sum, PyBytes_AS_STRING(digest), sizeof(sum))
    return sum


cdef size_t address_of(Cell cell) noexcept:
    return <size_t><PyObject *>cell


cdef class JournalCore:
    """The tables of Journal (journal.py); _journal_writes.pyx fills them."""

    def __cinit__(self, *args, **named):
        self.entries, self.dirty, self.edited, self.parked, self.doomed = {}, {}, {}, {}, {}

    def _serve(self, Ledger ledger not None):
        """Set the ledger whose cells this journal follows."""
        self.ledger = ledger

    # what a write means ---------------------------------------------------------------------------------------------

    cdef JournalEntry make_entry(self, key, Cell cell):
        cdef JournalEntry entry = JournalEntry.__new__(JournalEntry)
        entry.key, entry.cell = key, cell
        if cell.core.state == SA_COLD:
            entry.place, entry.frame_bytes = <unsigned long long><size_t>cell.core.payload, cell.core.frame_bytes
            entry.is_recipe = sa_cell_has_recipe(&cell.core)
        elif cell.core.state == SA_BACKED:
            entry.place = (<Backed>cell.core.payload).place
            entry.frame_bytes = (<Backed>cell.core.payload).frame_bytes
        self.entries[address_of(cell)] = entry
        return entry

    def own_key(self, DictCore core not None, key):
        """The key that the dict has for an equal one, which the log has too (1 for True); UNKNOWN if it cannot be told."""
        cdef _KeyProbe probe = _KeyProbe.__new__(_KeyProbe)
        probe.key, probe.found, probe.hash_of_key = key, UNKNOWN, hash(key)
        PyDict_Contains(core, probe)
        return probe.found

    cdef JournalEntry entry_with(self, DictCore core, key, Cell cell):
        """What is known of a cell, its key included."""
        cdef JournalEntry entry = self.entries.get(address_of(cell))
        if entry is None:
            entry = self.make_entry(UNKNOWN, cell)
        if entry.key is UNKNOWN:
            entry.key = self.own_key(core, key)
        return entry

    cdef int note_new(self, key, Cell cell) except -1:
        """A cell entered the dict; what was known of a dropped cell at the same address means nothing any more."""
        cdef JournalEntry entry = self.make_entry(key, cell)
        try:
            self.dirty[entry] = None
        except BaseException:
            del self.entries[address_of(cell)]
            raise
        return 0

    cdef int note(self, DictCore core, key, Cell cell) except -1:
        """The value of a cell is about to be replaced."""
        cdef JournalEntry entry = self.entry_with(core, key, cell)
        self.dirty[entry] = None
        return 0

    cdef object expect_removal(self, JournalEntry entry):
        """Make room for the note of a removal: when the key is gone, nothing may fail. Returns what note_removed wants."""
        if entry.key is UNKNOWN:
            self.resolve_keys([entry])
        self.dirty[entry] = None
        if entry.frame_bytes:
            self.doomed[entry.place] = entry
        return address_of(entry.cell)

    cdef int spare_removal(self, JournalEntry entry) except -1:
        """The removal that was expected did not happen."""
        self.doomed.pop(entry.place, None)
        return 0

    cdef int note_removed(self, JournalEntry entry, address) except -1:
        """A cell has left the dict, as was expected. Makes no object."""
        self.entries.pop(address, None)
        self.edited.pop(entry, None)
        entry.cell = None
        if entry.frame_bytes or entry.in_flight:
            self.dirty[entry] = None
        else:
            self.dirty.pop(entry, None)
        return 0

    # what the tiers report ------------------------------------------------------------------------------------------

    cdef JournalEntry known(self, Cell cell):
        return self.entries.get(address_of(cell))

    def entry_of(self, Cell cell not None):
        """The JournalEntry of a cell, or None."""
        return self.known(cell)

    def adopt(self, Cell cell not None, tuple origin not None, bytes digest not None):
        """A frame is about to be read into RAM: keep its place. Nothing happens if the cell has moved on."""
        cdef sa_digest sum = sum_in(digest)
        if origin[0] == "cold" or origin[0] == "recipe":
            self.take_in(cell, origin[1], &sum)

    cdef int take_in(self, Cell cell, unsigned long long place, sa_digest *sum) except -1:
        cdef JournalEntry entry
        if cell.core.state != SA_COLD or <unsigned long long><size_t>cell.core.payload != place:
            return 0
        if place in self.parked or (self.doomed and place in self.doomed):
            return 0  # never committed; or taken out of the dict, and read for whoever took it
        if self.known(cell) is None:
            entry = self.make_entry(UNKNOWN, cell)
            entry.sum, entry.has_sum = sum[0], True
            entry.flat = cell.core.flat
        return 0

    def touch(self, Cell cell not None, key):
        """The next commit looks at an entry as if it had been written."""
        cdef DictCore core = self.container()
        if cell.core.state != SA_DETACHED and core is not None:
            self.note(core, key, cell)

    def let_go(self, Cell cell not None):
        """Forget the entry of a cell that is on disk and clean: the cell says all that is known."""
        self.release_if_at_rest(cell)

    cdef int release_if_at_rest(self, Cell cell) except -1:
        cdef JournalEntry entry
        if cell.core.state != SA_COLD:
            return 0
        cdef unsigned long long place = <unsigned long long><size_t>cell.core.payload
        cdef unsigned long long frame_bytes = cell.core.frame_bytes
        entry = self.known(cell)
        if entry is not None and self.has_latest(entry):
            # Compaction may have moved the frame while the cell was on its way here, a commit may have written a parked one.
            cell.core.payload, cell.core.frame_bytes = <void *><size_t>entry.place, entry.frame_bytes
            if entry.is_recipe:
                sa_cell_mark_recipe(&cell.core, <void *>self.ledger)
            del self.entries[address_of(cell)]
            if place != entry.place and place in self.parked:
                self.release(place, frame_bytes)
        return 0

    def is_clean(self, JournalEntry entry not None):
        """Has the log what the dict has, as far as writes and known edits go?"""
        return self.has_latest(entry)

    cdef bint has_latest(self, JournalEntry entry) except *:
        return (entry.frame_bytes != 0 and not entry.in_flight and entry not in self.dirty
                and (not self.edited or entry not in self.edited))

    # what compaction asks -------------------------------------------------------------------------------------------

    cdef JournalEntry owner(self, Cell cell, unsigned long long place):
        """The JournalEntry whose committed record is at `place`: that of a cell, or of a removed entry."""
        cdef JournalEntry entry = self.doomed.get(place)
        if entry is None and cell is not None:
            entry = self.entries.get(address_of(cell))
        return entry if entry is not None and entry.frame_bytes and entry.place == place else None

    def owns(self, Cell cell, unsigned long long place):
        """Does a cell, its JournalEntry or a removed entry refer to a place?"""
        if self.owner(cell, place) is not None:
            return True
        at = None if cell is None else self.ledger.place_of(cell)
        return at is not None and at[0] == place

    def relocate(self, Cell cell, unsigned long long place, unsigned long long new_place):
        """Compaction copied a record: whoever refers to it refers to the copy now. False if nobody does any more."""
        cdef JournalEntry entry = self.owner(cell, place)
        cdef bint is_moved = entry is not None
        if entry is not None:
            entry.place = new_place
            if self.doomed.pop(place, None) is not None:
                self.doomed[new_place] = entry
        if cell is not None and self.ledger.relocate(cell, place, new_place):
            is_moved = True
        return is_moved

    # commits ----------------------------------------------------------------------------------------------------------

    def gather(self, bint with_edited):
        """Take the dirty entries, and the edited ones if asked, as they are at this moment.

        Returns them as keys of a dict and as a list, and the list of what they are: None if gone, a live value, a frame, or
        (place, bytes) of a parked one; `in_flight` says which. An exception leaves them dirty.
        """
        cdef JournalEntry entry
        cdef list things = []
        cdef dict taken = self.dirty, unwritten = {}, unedited = {}
        cdef tuple gathered
        if with_edited:
            taken.update(self.edited)
            self.edited = unedited
        gathered = (taken, list(taken), things)
        self.dirty = unwritten
        try:
            for entry in gathered[1]:
                if entry.cell is None or entry.cell.core.state == SA_DETACHED:  # DETACHED: dropped behind our back
                    entry.in_flight = FOUND_GONE
                    things.append(None)
                elif entry.cell.core.state == SA_WARM:
                    entry.in_flight = FOUND_WARM
                    things.append(<object>entry.cell.core.payload)
                elif entry.cell.core.state == SA_COLD:
                    entry.in_flight = FOUND_PARKED
                    things.append((<unsigned long long><size_t>entry.cell.core.payload, entry.cell.core.frame_bytes))
                else:
                    entry.in_flight = FOUND_LIVE
                    things.append(self.ledger.live(entry.cell))
        except BaseException:
            self.give_back(taken)
            raise
        return gathered

    cdef bint has_found(self, JournalEntry entry, thing) except *:
        """Has the cell still the very frame that gather found there?"""
        if entry.cell is None:
            return False
        if entry.in_flight == FOUND_WARM:
            return entry.cell.core.state == SA_WARM and entry.cell.core.payload == <void *><PyObject *>thing
        return (entry.in_flight == FOUND_PARKED and entry.cell.core.state == SA_COLD
                and <unsigned long long><size_t>entry.cell.core.payload == <unsigned long long>thing[0])

    cpdef int give_back(self, dict taken) except -1:
        """A commit failed: what gather took is dirty as before it. Needs memory only where more was written meanwhile."""
        cdef JournalEntry entry
        for entry in taken:
            entry.in_flight = 0
        if self.dirty:
            taken.update(self.dirty)
        self.dirty = taken
        return 0

    cdef int landed(self, JournalEntry entry, thing) except -1:
        """The log has what gather found of an entry, `thing`: it is clean unless its cell has something else by now.

        A live value may differ too, but is compared before it leaves or is synced; a frame is taken for what was committed.
        """
        cdef Cell cell = entry.cell
        if cell is not None and (
                cell.core.state == SA_DEPARTING  # compared with nothing, since its entry was in flight
                or (cell.core.state == SA_WARM and not self.has_found(entry, thing))
                or (cell.core.state == SA_COLD and <unsigned long long><size_t>cell.core.payload in self.parked)):
            self.dirty[entry] = None
        entry.in_flight = 0
        return 0

    cdef int put_committed(self, JournalEntry entry, thing, unsigned long long place, unsigned long long frame_bytes,
                           sa_digest *sum, bint flat, unsigned long long parked) except -1:
        """A record of what gather found of an entry is in the log.

        `sum` is NULL where the digest is not known, `parked` the place of the parked frame that was written, or 0.
        """
        cdef bint is_moved
        if (self.doomed and self.doomed.pop(entry.place, None) is not None) or entry.cell is None:
            self.doomed[place] = entry  # removed while its value was written
        entry.place, entry.frame_bytes, entry.flat = place, frame_bytes, flat
        entry.has_sum = sum is not NULL
        if sum is not NULL:
            entry.sum = sum[0]
        is_moved = entry.cell is not None and parked and self.ledger.relocate(entry.cell, parked, place)
        self.landed(entry, thing)
        if is_moved:
            entry.cell.core.flat = flat
            self.release_if_at_rest(entry.cell)
        return 0

    cdef int removal_committed(self, JournalEntry entry) except -1:
        """A tombstone is in the log, or none was needed."""
        self.doomed.pop(entry.place, None)
        entry.frame_bytes = 0
        entry.in_flight = 0
        self.dirty.pop(entry, None)
        return 0
