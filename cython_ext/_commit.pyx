"""One commit of a durable dict: from noted entries to records, and what becomes of the entries when all is in the log.

Nouns: an *entry* is a JournalEntry that the commit took; its *thing* is what it was at that moment: a live value, a frame, or
the place of a parked one; *ready* is a record that waits for the writer. The *general way* (spectral_alloc/journal.py) is for
values and keys that are not plain builtin data.

    entry, thing --write_graph--> stream --digest--> the same as in the log: nothing to write
                                         --zstd, 2048 at a time--> frame --> ready --> RecordWriter

Invariants:
  1. Records are written in the order of the entries, so that births ascend in the order of the dict.
  2. Nothing that an entry knows changes before finish(), and a commit that is dropped before gives its entries back: an
     exception anywhere leaves all as it was.

Threads: the GIL, and the journal's lock around the whole; it is released while zstd works and while a chunk is written.
Cost: about 0.6 us for a small record beside zstd.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from c_cell cimport *
from c_log_record cimport SA_LOG_HEAD_BYTES
from c_shadow_table cimport sa_digest
from spectral_alloc._cell cimport Cell
from spectral_alloc._express cimport Express
from spectral_alloc._graph_stream cimport stream_of
from spectral_alloc._journal cimport FOUND_GONE, FOUND_LIVE, FOUND_WARM, JournalCore, JournalEntry, sum_in
from spectral_alloc._log cimport FLAG_FLAT, KIND_DICTIONARY, KIND_PUT, KIND_REGROWN, KIND_TOMBSTONE, OFFSET_BITS, TAG_BYTES, TAG_STR
from spectral_alloc._record_writer cimport RecordWriter
from spectral_alloc._shadows cimport digest_stream

from spectral_alloc._journal import UNKNOWN
from spectral_alloc._log import record_bytes
from spectral_alloc._safe import SAFE_MAGIC

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    void *PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef enum:
    READY_BYTES = 1 << 20        # of streams and frames made ready at a time
    STREAMS_AT_ONCE = 2048       # compressed in one call: each may cost a wait for a busy thread to give up the GIL
    STREAMS_UNTRAINED = 512      # compressed one by one, until there is a dictionary
    FLAT_DEPTH = 4
    TAG_SAFE = 111               # "o": a key in the safe form
    SAFE_INT = 105               # "i"

cdef uint8_t safe_magic = SAFE_MAGIC


# What a commit does with an entry.
cdef enum Deed:
    NOTHING = 0                  # it failed, or was not reached
    SAME = 1                     # the log has it already
    WRITE = 2
    ERASE = 3                    # by a tombstone, if the log has it


cdef struct Outcome:
    uint64_t frame_bytes
    uint64_t parked              # place of the parked frame that was written again, or 0
    uint64_t birth               # in the record
    sa_digest sum
    uint8_t deed
    uint8_t flat
    uint8_t has_sum
    uint8_t is_recipe            # the record says how to get the value


cdef struct Ready:
    Py_ssize_t number            # of the entry
    uint64_t birth
    int kind
    int flags


cdef bint is_flat(value, int depth) except *:
    """Is a value certainly immutable all the way down?"""
    kind = type(value)
    if kind is str or kind is int or kind is float or kind is bytes or kind is bool or value is None or kind is complex:
        return True
    if kind is not tuple or depth == 0:
        return False
    for member in <tuple>value:
        if not is_flat(member, depth - 1):
            return False
    return True


cdef bytes int_key(long long number):
    """What log_format.encode_key makes of an int."""
    cdef unsigned long long magnitude = <unsigned long long>number if number >= 0 else 0 - <unsigned long long>number
    cdef int length = 1
    cdef bytes made
    cdef char *out
    while length < 8 and magnitude >> (8 * length - 1):
        length += 1
    if magnitude >> 63:
        length = 9
    made = PyBytes_FromStringAndSize(NULL, 4 + length)
    out = PyBytes_AS_STRING(made)
    out[0], out[1], out[2], out[3] = TAG_SAFE, <char>safe_magic, SAFE_INT, <char>length
    memcpy(out + 4, &number, min(length, 8))
    if length == 9:
        out[12] = -1 if number < 0 else 0
    return made


@cython.final
@cython.no_gc
cdef class Commit:
    """The entries of one commit on their way into the log; a RecordSource of log.py.

    Dropped before finish() it gives its entries back to the journal, which are dirty again.
    Parameters: journal; express (of its codec); general (journal.GeneralWay); with_edited (also what was edited).
    """
    cdef JournalCore journal
    cdef Express express
    cdef object general
    cdef bint has_recipes        # there may be recipes for values
    cdef dict taken              # the entries, as the journal wants them back
    cdef readonly list entries, things
    cdef Py_ssize_t at           # the first entry that was not looked at
    cdef Outcome *outcome        # of each entry
    cdef list frames, keys       # of what is ready
    cdef Ready *ready
    cdef Py_ssize_t ready_room
    cdef Py_ssize_t *written     # the entries of the records, in the order of the records
    cdef readonly Py_ssize_t written_count
    cdef Py_ssize_t written_room
    cdef list dictionaries       # (number, frame) of those that the log does not have, ready before all else
    cdef readonly list failures  # (entry, error)
    cdef bint is_finished

    def __init__(self, JournalCore journal not None, Express express not None, general, bint with_edited):
        self.journal, self.express, self.general = journal, express, general
        self.has_recipes = general.has_recipes
        self.frames, self.keys, self.failures, self.dictionaries = [], [], [], []
        self.taken, self.entries, self.things = journal.gather(with_edited)
        self.name_entries()

    def __dealloc__(self):
        if self.taken is not None:
            self.cancel()
        PyMem_Free(self.outcome)
        PyMem_Free(self.ready)
        PyMem_Free(self.written)

    cpdef int cancel(self) except -1:
        """Give the entries back, unless they are in the log."""
        if not self.is_finished:
            self.is_finished = True
            self.frames = self.keys = self.things = None  # memory, if that is what it failed for
            return self.journal.give_back(self.taken)
        return 0

    def add_edited(self):
        """Add every clean entry whose live value is not what was committed."""
        cdef JournalCore journal = self.journal
        cdef JournalEntry entry
        for entry in list(journal.entries.values()):
            if entry.flat or entry.cell is None or entry.cell.core.state > SA_DEPARTING or not journal.has_latest(entry):
                continue
            value = journal.ledger.live(entry.cell)
            if is_flat(value, FLAT_DEPTH):
                entry.flat = True
                continue
            stream = stream_of(value, True)
            if self.general.is_same(entry, value) if stream is None else entry.is_sum(digest_stream(stream)):
                continue
            self.taken[entry] = None
            self.entries.append(entry)
            self.things.append(value)
            entry.in_flight = FOUND_LIVE
        self.name_entries()

    cdef int name_entries(self) except -1:
        """Find the keys of entries that were only read before they were edited."""
        cdef JournalEntry entry
        for entry in self.entries:
            if entry.key is UNKNOWN:
                self.journal.resolve_keys(self.entries)
                return 0
        return 0

    # entries to records -----------------------------------------------------------------------------------------------

    def prepare(self, size_t mac_bytes):
        """Make the next records ready, unless some are; returns the bytes of the first one, 0 if none is left."""
        if not self.frames and self.at < len(self.entries):
            self.make_ready()
        if self.dictionaries:
            return record_bytes(len(self.dictionaries[0][1]), 0, mac_bytes)
        return record_bytes(len(self.frames[0]), len(self.keys[0]), mac_bytes) if self.frames else 0

    def fill(self, RecordWriter writer not None):
        """Give the writer what is ready."""
        cdef Py_ssize_t index
        cdef Ready *ready
        cdef bytes frame
        cdef void *grown
        cdef Py_ssize_t wanted = self.written_count + len(self.frames) + len(self.dictionaries)
        if wanted > self.written_room:
            self.written_room = 2 * wanted
            grown = PyMem_Realloc(self.written, self.written_room * sizeof(Py_ssize_t))
            if grown is NULL:
                raise MemoryError()
            self.written = <Py_ssize_t *>grown
        for dictionary_id, frame in self.dictionaries:
            writer.put(KIND_DICTIONARY, 0, dictionary_id, <const uint8_t *>PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), b"")
            self.written[self.written_count] = -1
            self.written_count += 1
        self.dictionaries = []
        for index in range(len(self.frames)):
            ready = &self.ready[index]
            frame = self.frames[index]
            writer.put(ready.kind, ready.flags, ready.birth, <const uint8_t *>PyBytes_AS_STRING(frame),
                       PyBytes_GET_SIZE(frame), <bytes>self.keys[index])
            self.outcome[ready.number].birth = ready.birth if ready.birth else writer.sequence
            self.written[self.written_count] = ready.number
            self.written_count += 1
        self.frames, self.keys = [], []

    cdef int make_ready(self) except -1:
        cdef list streams = []
        cdef Py_ssize_t number, index, count = len(self.entries)
        cdef Py_ssize_t most = STREAMS_UNTRAINED if self.express.dictionaries.current is None else STREAMS_AT_ONCE
        cdef size_t size = 0
        cdef JournalEntry entry
        cdef Outcome *out
        if self.outcome is NULL:
            self.outcome = <Outcome *>PyMem_Calloc(max(count, 1), sizeof(Outcome))
            if self.outcome is NULL:
                raise MemoryError()
        while self.at < count and size < READY_BYTES and len(streams) < most:
            number, self.at = self.at, self.at + 1
            entry = self.entries[number]
            try:
                if entry.in_flight == FOUND_GONE:
                    self.outcome[number].deed = ERASE
                    if entry.frame_bytes:
                        self.push(number, KIND_TOMBSTONE, 0, entry, b"")
                    continue
                thing = self.look(number, entry)
            except (OSError, MemoryError):
                raise
            except Exception as error:
                self.outcome[number].deed = NOTHING
                self.failures.append((entry, error))
                continue
            if thing is None:
                continue
            if type(thing) is tuple:  # a frame that is complete
                size += PyBytes_GET_SIZE((<tuple>thing)[0])
            else:
                size += PyBytes_GET_SIZE(thing)
                streams.append(thing)
        if streams:
            self.general.train(count - self.at)
            self.compress(streams)
        # After compressing: a dictionary that another thread has trained meanwhile may be in use already.
        self.dictionaries = self.general.new_dictionaries()
        for index in range(len(self.frames)):
            if self.ready[index].kind != KIND_TOMBSTONE:
                self.outcome[self.ready[index].number].frame_bytes = PyBytes_GET_SIZE(self.frames[index])
        return 0

    cdef int compress(self, list streams) except -1:
        """Put frames where `frames` has None."""
        cdef list made = self.express.encode_many(streams)
        cdef Py_ssize_t index, at = 0
        for index in range(len(self.frames)):
            if self.frames[index] is None:
                frame = made[at]
                self.frames[index] = self.general.frame_of([streams[at]], [1]) if frame is None else frame
                at += 1
        return 0

    cdef object look(self, Py_ssize_t number, JournalEntry entry):
        """Decide what to write of an entry: None for nothing, its stream, or the frame as (frame,), pushed with its key."""
        cdef Outcome *out = &self.outcome[number]
        cdef int flags = 0
        thing = self.things[number]
        if entry.in_flight == FOUND_LIVE:
            out.flat = is_flat(thing, FLAT_DEPTH)
            stream = stream_of(thing, True)
            if stream is not None:
                out.sum, out.has_sum = digest_stream(stream), True
                out.deed = SAME
                recipe = self.general.recipe_of(entry, thing) if self.has_recipes else None
                out.is_recipe = recipe is not None
                if not (entry.frame_bytes and entry.is_sum(out.sum) and entry.is_recipe == out.is_recipe):
                    out.deed = WRITE
                    if recipe is not None:
                        flags = recipe[1] | (FLAG_FLAT if out.flat else 0)
                        self.push(number, KIND_REGROWN, flags, entry, recipe[0])
                        return (recipe[0],)
                    self.push(number, KIND_PUT, FLAG_FLAT if out.flat else 0, entry, None)
                    return stream
                return None
            made = self.general.live(entry, thing)
        else:
            # Of the frame that was found: what was committed before may have been another kind of value.
            out.flat = self.journal.has_found(entry, thing) and entry.cell.core.flat
            if entry.in_flight == FOUND_WARM:
                made = self.general.stored(entry, thing, 0)
            elif thing[0] == entry.place and entry.frame_bytes:
                made = None
            else:
                out.parked = thing[0]
                made = self.general.stored(entry, *thing)
        if made is None:
            out.deed = SAME
            return None
        frame, digest, flags = made
        out.sum, out.has_sum = sum_in(digest), True
        out.deed = WRITE
        self.push(number, KIND_PUT, flags | (FLAG_FLAT if out.flat else 0), entry, frame)
        return (frame,)

    cdef int push(self, Py_ssize_t number, int kind, int flags, JournalEntry entry, bytes frame) except -1:
        """One record more is ready, but for its frame if that is None."""
        cdef Py_ssize_t index = len(self.frames)
        cdef bytes key = self.key_bytes(entry.key)
        cdef void *grown
        if index == self.ready_room:
            grown = PyMem_Realloc(self.ready, (2 * index + STREAMS_AT_ONCE) * sizeof(Ready))
            if grown is NULL:
                raise MemoryError()
            self.ready, self.ready_room = <Ready *>grown, 2 * index + STREAMS_AT_ONCE
        if entry.frame_bytes and not entry.birth and kind != KIND_TOMBSTONE:
            entry.birth = self.general.birth_at(entry.place)
        self.ready[index] = Ready(number, entry.birth if entry.frame_bytes and kind != KIND_TOMBSTONE else 0, kind, flags)
        self.keys.append(key)
        self.frames.append(frame)
        return 0

    cdef bytes key_bytes(self, key):
        """The bytes of a key, as ValueForm.key_bytes makes them."""
        cdef bytes made
        cdef Py_ssize_t length
        cdef int overflow = 0
        cdef long long number
        if type(key) is str and PyUnicode_IS_COMPACT_ASCII(key):
            length = PyUnicode_GET_LENGTH(key)
            made = PyBytes_FromStringAndSize(NULL, length + 1)
            PyBytes_AS_STRING(made)[0] = TAG_STR
            memcpy(PyBytes_AS_STRING(made) + 1, PyUnicode_DATA(key), length)
            return made
        if type(key) is int:
            number = PyLong_AsLongLongAndOverflow(key, &overflow)
            if not overflow:
                return int_key(number)
        return self.general.key_bytes(key)

    # after the log has them ---------------------------------------------------------------------------------------------

    def finish(self, list places not None):
        """All is in the log, each record at its place; returns (segment, bytes) pairs of what is dead now."""
        cdef JournalCore journal = self.journal
        cdef JournalEntry entry
        cdef Outcome *out
        cdef Py_ssize_t index, number
        cdef uint64_t place
        cdef dict dead = {}
        if len(places) != self.written_count:
            raise SystemError(f"{len(places)} places for {self.written_count} records")
        for index in range(self.written_count):
            number, place = self.written[index], places[index]
            if number < 0:
                continue
            entry, out = self.entries[number], &self.outcome[number]
            if entry.frame_bytes:
                bury(dead, entry.place, entry.frame_bytes)
            if out.deed == ERASE:
                journal.removal_committed(entry)
                continue
            entry.birth, entry.is_recipe = out.birth, out.is_recipe
            journal.put_committed(entry, self.things[number], place, out.frame_bytes, &out.sum if out.has_sum else NULL,
                                  out.flat, out.parked)
            if out.parked and journal.parked.pop(out.parked, None) is not None:
                bury(dead, out.parked, out.frame_bytes)
        for number in range(self.at):
            entry = self.entries[number]
            if self.outcome[number].deed == SAME:
                journal.landed(entry, self.things[number])
            elif self.outcome[number].deed == ERASE and entry.in_flight:
                journal.removal_committed(entry)
        journal.give_back({failure[0]: None for failure in self.failures})
        self.is_finished = True
        return list(dead.items())


cdef int bury(dict dead, uint64_t place, uint64_t frame_bytes) except -1:
    segment = place >> OFFSET_BITS
    dead[segment] = dead.get(segment, 0) + frame_bytes + SA_LOG_HEAD_BYTES
    return 0
