"""The passage of one value between tiers in one call: up by load, down by lower.

Nouns: a *departure* is a value on its way out of HOT (_departure.pyx); a *ticket* is one read of one cold frame, shared by all
who wait for it; a *parcel* collects values whose frames would save no RAM, to be written to disk together.

    HOT --write_graph, Express.encode--> WARM              lower(), the rest in spectral_alloc/tiers.py
     |-------- same digest -----------------------> COLD   rests(): its frame never left the disk
     |-------- a recipe gives the same -----------> REGROWN  Regrowth.takes()
     ^------ Express.value ------ WARM or COLD             load()
     ^------ the recipe --------- REGROWN                    Regrowth.read()

Invariants:
  1. A value or frame that the express way declines takes the general way: the same result, or the reason why not.
  2. Every change of state is one call into the ledger or a departure, so an exception anywhere leaves all values in
     some tier.
  3. No ticket outlives the load that made it, and a load in the middle of another one's read never waits for it.

Threads: safe; who wants a frame that is being read waits for that; nothing is locked.
Cost: a load of a 1 KB record 3 us from RAM; a departure 4 us, most of it zstd.
"""
from cpython.bytes cimport PyBytes_GET_SIZE
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from c_cell cimport *
from c_policy cimport *
from c_shadow_table cimport sa_digest, sa_shadow
from spectral_alloc._cell cimport Cell
from spectral_alloc._departure cimport Departure
from spectral_alloc._express cimport Express
from spectral_alloc._graph_stream cimport stream_of
from spectral_alloc._ledger cimport Ledger, frame_bytes_in_memory
from spectral_alloc._journal cimport JournalCore, JournalEntry
from spectral_alloc._regrow cimport Regrowth
from spectral_alloc._shadows cimport Shadows, digest_of_parts, digest_stream

import threading

from spectral_alloc._cell import EntryGoneError
from spectral_alloc._departure import depart
from spectral_alloc._express import OTHER_WAY
from spectral_alloc._ledger import AGAIN
from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.serializer import loads

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident()

cdef enum:
    SLOW_READS_KEPT = 1024
    LARGE_FRAME_BYTES = 8 << 10
    WARM_FROM_ACCESSES = 3       # decayed count of accesses from which a value is worth compressing to spare dear reads

# From the system's cache a read takes a few microseconds, from a disk many.
cdef double DEAR_READ_SECONDS = 20e-6
cdef double READ_WEIGHT = 1 / 32.0  # of one read in the moving average


cdef double seconds_now() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef inline bint is_at(Cell cell, tuple origin) except -1:
    """Is the frame of a cell where it was?"""
    return (cell.core.state == SA_COLD and <size_t>cell.core.payload == <size_t>origin[1]
            and cell.core.frame_bytes == <unsigned long long>origin[2])


cdef class Ticket:
    """One read of one cold frame, shared by all who wait for it."""


cdef class Parcel:
    """Departures with their frames, waiting to be written to disk in one call."""

    def __cinit__(self):
        self.items = []

    def add(self, Departure departure not None, bytes frame not None):
        """Put in a value whose frame takes no less RAM than itself."""
        self.items.append((departure, frame))
        self.size_bytes += departure.value_bytes

    def unpack(self):
        """The items; the parcel is empty afterwards."""
        items, self.items = self.items, []
        self.size_bytes = 0
        return items


cdef class Passage:
    """The common ways of Tiers, which adds the decisions, the disk and the general ways."""

    def __init__(self, Ledger ledger not None, codec, store):
        self.ledger, self.codec, self.store = ledger, codec, store
        self.express = codec.express
        self.shadows = ledger.shadows
        self.open_frame = codec.express.value
        self.dear_read_seconds = DEAR_READ_SECONDS
        self.forget_readers()

    def consult(self, JournalCore journal not None):
        """From now on a journal says what is on disk for good; frames of other kinds are read by general_value of a subclass."""
        self.keeper = journal
        self.express.notes_digests = True

    def adopt_recipes(self, Regrowth regrowth):
        """Set the recipes of the dict; a thread that runs one, like one that reads a frame, waits for no other."""
        if regrowth is not None:
            regrowth.share_busy(self.reading)
        self.regrowth = regrowth

    def forget_readers(self):
        """After a fork: no ticket of the parent's threads is valid here."""
        self.tickets, self.reading = {}, set()
        if self.regrowth is not None:
            self.regrowth.share_busy(self.reading)
            self.regrowth.forget_readers()

    # up -----------------------------------------------------------------------------------------------------------------

    def load(self, Cell cell not None, key, bint insist=False):
        """Return the value of an entry that is not live, installing it where it earns that; EntryGoneError if it is gone."""
        cdef tuple origin
        cdef double start
        while True:
            origin = self.ledger.whereabouts(cell)
            if origin[0] == "live":
                return origin[1]
            if origin[0] == "gone":
                raise EntryGoneError(key)
            if origin[0] == "regrown":
                own = self.regrowth.read(self.ledger, cell, key, origin, insist)
                if own is not AGAIN:
                    return own
                continue
            start = seconds_now()
            try:
                frame = origin[1] if origin[0] == "warm" else self.frame_of(cell, origin)
                if frame is None:
                    continue
                if self.keeper is not None:
                    own = self.ledger.arrive(cell, origin, self.known_value(cell, origin, frame, key), insist)
                else:
                    own = self.installed(cell, origin, frame, insist)
            except CorruptFrameError as error:
                raise CorruptFrameError(f"the stored value of key {key!r} is damaged: {error}", key) from error
            except OSError as error:
                error.add_note(f"while reading the value of key {key!r} from {self.store.directory}")
                raise
            finally:
                # Not before the value is installed: until then whoever comes late shares the frame.
                self.forget_ticket(cell)
                if self.keeper is not None:
                    self.keeper.release_if_at_rest(cell)
            self.note_slow_read(seconds_now() - start)
            if own is not AGAIN:
                if self.regrowth is not None:
                    self.regrowth.comes_back(cell, key)
                return own

    cdef object known_value(self, Cell cell, tuple origin, object frame, key):
        """The value of a frame of a durable dict; what the log has is known from now on, by its digest."""
        value = self.open_frame(frame)
        if value is OTHER_WAY:
            return self.general_value(frame, cell, origin, key)
        if origin[0] == "cold":
            self.keeper.take_in(cell, origin[1], &self.express.last_digest)
        return value

    cdef object installed(self, Cell cell, tuple origin, object frame, bint insist):
        """Ledger.arrive; the frame of a cold value stays on disk, its shadow, in case the value leaves unchanged.

        That of an immutable value stays its own, whether it is installed or not.
        """
        cdef bytes stream
        cdef sa_digest digest
        cdef bint casts_shadow = origin[0] == "cold" and not cell.core.flat
        value = self.open_frame(frame)
        if value is OTHER_WAY:
            parts = self.codec.decode(frame)
            if casts_shadow:
                digest = digest_of_parts(parts)
            value = loads(parts)
        else:
            stream = self.express.stream_of_last(frame)
            casts_shadow = casts_shadow and stream is not None
            if casts_shadow:
                digest = self.shadows.digest(stream)
        if not casts_shadow:
            return self.ledger.arrive(cell, origin, value, insist)
        self.shadows.expect(<void *>cell, origin[1], digest, cell.core.count + 1)
        try:
            return self.ledger.arrive(cell, origin, value, insist)
        finally:
            self.shadows.unexpect()

    cdef int note_slow_read(self, double seconds) except -1:
        self.slow_reads[self.slow_read_count % SLOW_READS_KEPT] = seconds
        self.slow_read_count += 1
        return 0

    @property
    def slow_read_seconds(self):
        """Durations of the last reads that had to decode a frame."""
        return [self.slow_reads[index] for index in range(min(self.slow_read_count, SLOW_READS_KEPT))]

    def drop_ticket(self, Cell cell not None):
        """The frame of this cell is installed, or will not be."""
        self.forget_ticket(cell)

    cdef int forget_ticket(self, Cell cell) except -1:
        if self.tickets:
            self.tickets.pop(<size_t><void *>cell, None)
        return 0

    def fetch(self, Cell cell not None, tuple origin not None):
        """Read a cold frame once for all who want it until the caller drops the ticket; None if it has moved."""
        return self.frame_of(cell, origin)

    cdef object frame_of(self, Cell cell, tuple origin):
        cdef Ticket mine, ticket
        thread = PyThread_get_thread_ident()
        if thread in self.reading:
            # A finaliser or signal handler in the middle of a read: to wait here could be to wait for oneself.
            return self.read_cold(cell, origin)
        mine = Ticket.__new__(Ticket)
        mine.origin = origin
        ticket = self.tickets.setdefault(<size_t><void *>cell, mine)
        if ticket is not mine:
            return self.shared_frame_slow(ticket, cell, origin)
        try:
            self.reading.add(thread)
            mine.frame = self.read_cold(cell, origin)
        finally:
            self.reading.discard(thread)
            mine.is_done = True
            if mine.gate is not None:
                mine.gate.set()
        return mine.frame

    cdef object shared_frame_slow(self, Ticket ticket, Cell cell, tuple origin):
        """What another thread reads, or has read and not installed yet."""
        gate = threading.Event()
        # Nothing from here to the wait lets another thread run: whoever is done later finds the gate.
        if not ticket.is_done:
            if ticket.gate is None:
                ticket.gate = gate
            ticket.gate.wait()
        return ticket.frame if ticket.frame is not None and ticket.origin == origin else self.read_cold(cell, origin)

    cdef object read_cold(self, Cell cell, tuple origin):
        """Read a frame from disk; None if the entry has moved meanwhile."""
        cdef double start
        if not is_at(cell, origin):
            return None
        try:
            start = seconds_now()
            frame = self.store.read(origin[1], origin[2])
            self.cold_read_seconds += (seconds_now() - start - self.cold_read_seconds) * READ_WEIGHT
            return frame
        except (OSError, CorruptFrameError):
            if not is_at(cell, origin):
                return None
            raise

    def forsake(self, segments=None, int segment_shift=0):
        """Give up the frames of shadows, all or those in some segments of the store; returns how many."""
        count = self.shadows.forsake(segments, segment_shift)
        self.ledger.bury()
        return count

    cdef bint may_rest(self, Departure departure) noexcept:
        """Would the value, if it is the same as its frame on disk, better be COLD again than compressed anew and WARM?

        A value that was used again while it was HOT is worth RAM. So is one that was used often of late, if the disk itself
        answers: while the system's cache does, a read costs less than compressing. But a large frame that is not much
        smaller than its value saves less RAM than it costs to compress and, soon after, to write again.
        """
        cdef const sa_shadow *shadow = self.shadows.find(<void *>departure.cell)
        cdef unsigned accesses = departure.cell.core.count
        if shadow is NULL:
            return False
        if shadow.frame_bytes >= LARGE_FRAME_BYTES and 2 * <long long>shadow.frame_bytes > departure.value_bytes:
            return True
        if accesses >= WARM_FROM_ACCESSES and self.cold_read_seconds > self.dear_read_seconds:
            return False
        return accesses <= shadow.accesses

    cdef bint rests(self, Departure departure, bytes stream) except *:
        """Is the frame of this value still on disk, and the value not worth a place in RAM? Then it is COLD again."""
        if self.keeper is not None:
            return self.rests_in_log(departure, stream)
        return self.may_rest(departure) and self.adopted(departure, self.shadows.digest(stream))

    def rests_whole(self, Departure departure not None, list parts not None):
        """The same for the parts of a value that takes the general way; they are let go of if it rests."""
        return self.may_rest(departure) and self.adopted(departure, digest_of_parts(parts), parts)

    cdef bint adopted(self, Departure departure, sa_digest digest, list parts=None) except *:
        cdef sa_shadow shadow
        if not self.shadows.adopt(<void *>departure.cell, digest, &shadow):
            return False
        if parts is not None:
            parts.clear()  # they export the value's memory: while they are there, it is not closed
        if not departure.to_cold(shadow.place, shadow.frame_bytes):
            self.shadows.drop(shadow.place, shadow.frame_bytes)
            self.ledger.bury()
        return True

    cdef bint rests_in_log(self, Departure departure, bytes stream) except *:
        """Has the log this value? Then it is COLD at its committed place; if it was edited, the journal hears of it."""
        cdef JournalEntry entry = self.keeper.known(departure.cell)
        if entry is None or not self.keeper.has_latest(entry):
            return False
        if not entry.flat and not entry.is_sum(digest_stream(stream)):
            self.keeper.edited[entry] = None
            return False
        if departure.to_cold(entry.place, entry.frame_bytes):
            self.keeper.release_if_at_rest(departure.cell)
        return True

    # down ---------------------------------------------------------------------------------------------------------------

    def lower(self, long long slack, long long warm_bytes_max, long long parcel_bytes_max, Parcel parcel not None):
        """Let values leave the express way until the caller has something to decide.

        Returns a Departure that needs the general way; False if nothing can leave; or None, when the limit less `slack` is met, more than
        `warm_bytes_max` are WARM, or the parcel holds `parcel_bytes_max` or all that is missing.
        """
        cdef Ledger ledger = self.ledger
        cdef Departure departure
        cdef object stream, frame
        while True:
            departure = depart(ledger, slack)
            if departure is None:
                return False
            if self.regrowth is not None and self.regrowth.takes(departure, self.cold_read_seconds):
                departure = None
                if ledger.budget_.excess(slack) <= parcel.size_bytes:
                    return None
                continue
            try:
                # What the log gets must be readable in another process too.
                stream = stream_of(departure.value, self.keeper is not None)
            except MemoryError:
                stream = None  # the general way meets it again, and knows what to do
            if stream is None:
                return departure
            departure.sealed = not departure.exposed
            frame = None if self.rests(departure, stream) else self.express.encode(stream)
            if frame is None and departure.is_pending():
                departure.sealed = False
                return departure
            if frame is None:
                pass
            elif frame_bytes_in_memory(PyBytes_GET_SIZE(frame)) >= departure.value_bytes:
                parcel.add(departure, frame)
            else:
                departure.to_warm(frame)
            departure = None
            if ledger.budget_.excess(slack) <= parcel.size_bytes or parcel.size_bytes >= parcel_bytes_max:
                return None
            if ledger.policy.queues[SA_QUEUE_WARM].bytes > warm_bytes_max:
                return None
