"""Regrown values: a value that its recipe gives back leaves RAM without a trace, and is made again when it is read.

Nouns: those of _recipe_book.pyx. A *trial* is the run of a recipe when a value leaves for the first time; a *ticket* is one run of a
recipe for a reader, shared by all who wait for the value; the *cost* of a function is the moving average of its runs.

    departing value --digest--+                            HOT -> REGROWN   takes()
                              +-- equal --> digest in cell
    recipe --trial--> digest -+-- not ----> a frame, as for any other value
    REGROWN --recipe--> value --digest--> equal: HOT       not: RegrowError   read()

The digest is that of the graph's content (core/graph_stream.h, ATOMS_APART), for other types that of the pickled parts.

Invariants:
  1. A value is dropped only after its recipe gave an equal one in this process, and the digests of both were taken after.
  2. Recipes are user code: they run without a lock but the ticket's, and the digest of the departing value is taken after the trial.
  3. A thread in the middle of a recipe waits for no ticket and begins no trial: it runs the recipe that it needs itself.

Threads: safe. Cost: a departure that was proved before one digest (0.5 us for a small value); a trial and a read the recipe too.
"""
import threading
from hashlib import blake2b

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint64_t
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from c_cell cimport *
from c_shadow_table cimport sa_digest, sa_digests_equal
from spectral_alloc._cell cimport Cell
from spectral_alloc._departure cimport Departure, Shipment
from spectral_alloc._graph_stream cimport content_of
from spectral_alloc._ledger cimport Ledger
from spectral_alloc._recipe_book cimport Cost, Recipe, RecipeBook, address_of
from spectral_alloc._shadows cimport digest_of_parts, digest_stream
from spectral_alloc._thermal cimport DictCore

from spectral_alloc._cell import EntryGoneError
from spectral_alloc._iteration import key_of_cell
from spectral_alloc._ledger import AGAIN
from spectral_alloc._stray import UNKNOWN_KEY
from spectral_alloc.closure import ODD_SETS
from spectral_alloc.errors import CorruptFrameError, RegrowError
from spectral_alloc.serializer import dumps
from spectral_alloc.shared_objects import SharedObjects

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident()

cdef unsigned FLAG_ODD_SETS = ODD_SETS
cdef uint64_t MORE_MASK = (<uint64_t>1 << 48) - 1   # what a cell has room for beside 64 bits
# A read that takes less comes from the system's cache, which room on the disk is still needed for.
cdef double READ_SECONDS_MIN = 20e-6

cdef enum:
    RUNS_TO_TRUST = 4            # before that a cost says little
    DECLINED_PER_PROBE = 64      # a dear function is measured again now and then
    RISE_MAX = 4                 # times the average: what one run interrupted by others may count for

# A first run that takes less may have been interrupted: it is measured again before it is believed.
cdef double DOUBT_SECONDS = 0.01


cdef double seconds_now() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef class Ticket:
    """One run of a recipe, shared by all who wait for its value."""

    def __cinit__(self):
        self.lock = threading.Lock()


cdef class Regrowth(RecipeBook):
    """The recipes of one dict, and the only one who runs them.

    Parameters: function (key -> value, for all keys, or None), is_always (whatever it costs).
    """

    def __init__(self, function=None, bint is_always=False):
        self.function, self.is_always = function, is_always
        self.costs, self.awaiting, self.events = {}, {}, {}
        self.objects = SharedObjects()
        self.cost = None if function is None else self.cost_of(function)
        self.busy = set()
        self.forget_readers()

    def attach(self, DictCore core not None, container):
        """Serve a dict; returns the Regrowth that it has, if another thread was first. `container`: a weak reference to it."""
        if core._regrowth is None:
            core._regrowth, self.container = self, container
            core.ledger.recipes = <void *>self
        return core._regrowth

    def share_busy(self, set busy not None):
        """Set the set of threads that must not wait: those that read a frame are in it too."""
        self.busy = busy

    def forget_readers(self):
        """After a fork: no ticket of the parent's threads is valid here."""
        self.tickets, self.missing_tickets = {}, {}
        self.busy.clear()

    @property
    def resident_bytes(self):
        """RAM of everything here."""
        return self.index_bytes + self.recipe_bytes

    cdef int note(self, str event) except -1:
        self.events[event] = self.events.get(event, 0) + 1
        return 0

    # recipes ------------------------------------------------------------------------------------------------------------

    cdef Cost cost_of(self, function):
        """The cost of a function, shared by all that run the same code."""
        kind = getattr(function, "__code__", None)
        return self.costs.setdefault(type(function) if kind is None else kind, Cost.__new__(Cost))

    def make_recipe(self, key, function, tuple args not None):
        """A recipe for one key."""
        cdef Recipe recipe = Recipe.__new__(Recipe)
        recipe.key, recipe.function, recipe.args = key, function, args
        recipe.cost = self.cost_of(function)
        recipe.weigh()
        return recipe

    def assign(self, Cell cell not None, Recipe recipe not None):
        """Give an entry a recipe of its own. False if it is REGROWN by an older one: its value must come back first."""
        if cell.core.state == SA_REGROWN:
            return False
        if cell.core.state != SA_DETACHED:
            self.enlist(cell, recipe)
        return True

    def wait_for(self, key, Recipe recipe not None):
        """Keep a recipe for a key that is not there."""
        self.awaiting[key] = recipe

    cdef int enlist(self, Cell cell, Recipe recipe) except -1:
        cdef object dropped = self.forget(cell)
        self.recipes[address_of(cell)] = recipe
        self.recipe_bytes += recipe.size_bytes
        return 0

    def entered(self, Cell cell not None, key):
        """A cell became an entry; what was known of another at its address means nothing any more."""
        cdef Recipe recipe = self.awaiting.pop(key, None) if self.awaiting else None
        cdef object dropped = self.forget(cell)
        if recipe is not None:
            self.enlist(cell, recipe)
        elif self.function is not None:
            self.keys[address_of(cell)] = key

    cdef int comes_back(self, Cell cell, key) except -1:
        """A value came back from a frame: it is untried if nobody remembers what its recipe gives."""
        cdef sa_digest digest
        if self.function is None or self.is_stored or cell.core.state != SA_HOT or key is UNKNOWN_KEY or key is None:
            return 0
        address = address_of(cell)
        if address not in self.recipes and not self.proof_of(cell, &digest):
            self.keys[address] = key
        return 0

    def recipe_list(self):
        """(key, function, args) of all recipes for one key."""
        cdef Recipe recipe
        return [(recipe.key, recipe.function, recipe.args) for recipe in [*self.recipes.values(), *self.awaiting.values()]]

    def has_own(self, Cell cell not None):
        """Is there a recipe for this entry alone?"""
        return address_of(cell) in self.recipes

    def covers(self, Cell cell not None):
        """Is there a recipe for an entry?"""
        return self.function is not None or address_of(cell) in self.recipes

    # running ------------------------------------------------------------------------------------------------------------

    cdef object run(self, Recipe recipe, key):
        """The value that a recipe gives: `recipe`, or if that is None the function of the whole dict."""
        cdef Cost cost = self.cost if recipe is None else recipe.cost
        cdef double start = seconds_now(), took
        value = self.function(key) if recipe is None else recipe.function(*recipe.args)
        took = seconds_now() - start
        if cost.run_count == 0 or took < cost.seconds:
            cost.seconds = took if cost.run_count < RUNS_TO_TRUST else (cost.seconds + took) / 2
        else:
            cost.seconds += (min(took, RISE_MAX * cost.seconds) - cost.seconds) / 8
        cost.run_count += 1
        return value

    cdef object try_out(self, Recipe recipe, key, Cost cost, double read_seconds):
        """A trial: run a recipe, and while a function is new, often enough to know what it takes."""
        value = self.run(recipe, key)
        while cost.run_count < RUNS_TO_TRUST and cost.seconds < DOUBT_SECONDS and not self.is_worth(cost, read_seconds):
            value = self.run(recipe, key)
        return value

    cdef bint is_worth(self, Cost cost, double read_seconds) noexcept:
        """Does a recipe cost less than reading a frame from disk?"""
        return self.is_always or cost.seconds <= max(read_seconds, READ_SECONDS_MIN)

    cdef bint may_try(self, Cost cost, double read_seconds) noexcept:
        """... or is too little known to tell?"""
        if cost.run_count < RUNS_TO_TRUST or self.is_worth(cost, read_seconds):
            return True
        cost.declined_count += 1
        return cost.declined_count % DECLINED_PER_PROBE == 0

    cdef bint digest(self, value, unsigned flags, sa_digest *digest) except *:
        """Take the digest of a value; False if it has none."""
        cdef bytes content = content_of(value, self.is_stored)
        if content is None:
            if self.is_stored or flags & FLAG_ODD_SETS:
                return False
            digest[0] = digest_of_parts(dumps(value, 0, objects=self.objects)[0])
        elif self.is_stored:
            memcpy(digest.word, PyBytes_AS_STRING(blake2b(content, digest_size=sizeof(digest.word)).digest()), sizeof(digest.word))
        else:
            digest[0] = digest_stream(content)
        digest.word[1] &= MORE_MASK
        return True

    # down ---------------------------------------------------------------------------------------------------------------

    cdef bint takes(self, Departure departure, double read_seconds) except *:
        """Drop a departing value if its recipe gives it back; True if that was tried, and nothing is left to do."""
        cdef Recipe recipe = self.recipes.get(address_of(departure.cell))
        cdef Cost cost = self.cost if recipe is None else recipe.cost
        cdef sa_digest given, own
        if cost is None or self.is_stored:
            return False
        departure.exposed = True  # from here on user code may run
        if not self.expects(departure.cell, recipe, cost, read_seconds, &given):
            return False
        if not departure.is_pending():
            return True
        try:
            if not self.digest(departure.value, departure.flags, &own):
                return False
        except Exception:
            return False  # the general way meets it again, and knows what to do
        if not sa_digests_equal(given, own):
            self.note("recipe mismatch")
            return False
        if departure.to_regrown(own):
            self.disprove(departure.cell)  # the cell has its digest itself now
        return True

    cdef bint expects(self, Cell cell, Recipe recipe, Cost cost, double read_seconds, sa_digest *given) except *:
        """What the recipe of an entry gives, from memory or by a trial; False if it is not worth it or fails."""
        cdef unsigned long thread
        if self.proof_of(cell, given):
            return self.is_worth(cost, read_seconds)
        thread = PyThread_get_thread_ident()
        if thread in self.busy:
            return False
        key = self.keys.pop(address_of(cell), UNKNOWN_KEY)
        if recipe is None and key is UNKNOWN_KEY:
            return False
        if not self.may_try(cost, read_seconds):
            self.note("recipe dearer than a read")
            return False
        self.busy.add(thread)
        try:
            if not self.digest(self.try_out(recipe, key, cost, read_seconds), 0, given):
                return False
        except Exception:
            self.note("recipe failed")
            return False
        except BaseException:
            if key is not UNKNOWN_KEY:
                self.keys[address_of(cell)] = key
            raise
        finally:
            self.busy.discard(thread)
        if self.is_current(cell, recipe):
            self.keep(cell, given.word[0], given.word[1])
        return self.is_worth(cost, read_seconds)

    cdef bint is_current(self, Cell cell, Recipe recipe) except *:
        """Is this still the recipe of an entry, after user code ran?"""
        return cell.core.state != SA_DETACHED and self.recipes.get(address_of(cell)) is recipe

    def takes_departure(self, Departure departure not None, double read_seconds):
        """takes() for a departure that went the general way; False at once if it was asked before."""
        return not departure.exposed and self.takes(departure, read_seconds)

    def takes_shipped(self, Shipment shipment not None, value_of, double read_seconds):
        """Drop the frames of a shipment whose values their recipes give back; `value_of` reads a frame."""
        cdef Py_ssize_t index = 0
        cdef Recipe recipe
        cdef sa_digest given, own
        while index < len(shipment.cells):
            cell, frame = <Cell>shipment.cells[index], shipment.frames[index]
            recipe = self.recipes.get(address_of(cell))
            if recipe is not None and self.expects(cell, recipe, recipe.cost, read_seconds, &given):
                if self.digest(value_of(frame), FLAG_ODD_SETS, &own) and sa_digests_equal(given, own):
                    if shipment.regrow(index, own):
                        self.disprove(cell)
                        continue
            index += 1

    # up -----------------------------------------------------------------------------------------------------------------

    cdef object read(self, Ledger ledger, Cell cell, key, tuple origin, bint insist):
        """Regrow a value and install it: what Ledger.arrive returns. Others who want it wait for the same run."""
        cdef unsigned long thread = PyThread_get_thread_ident()
        cdef Ticket ticket
        cdef sa_digest digest
        digest.word[0], digest.word[1] = origin[1], origin[2]
        if thread in self.busy:
            return ledger.arrive(cell, origin, self.grown(cell, key, digest), insist)
        address = address_of(cell)
        ticket = self.tickets.get(address)
        if ticket is None:
            ticket = self.tickets.setdefault(address, Ticket.__new__(Ticket))
        try:
            self.busy.add(thread)
            with ticket.lock:
                if ticket.origin != origin:
                    if ledger.whereabouts(cell) != origin:
                        return AGAIN
                    self.fill(ticket, cell, key, origin, digest)
            if ticket.error is not None:
                raise ticket.error
            return ledger.arrive(cell, origin, ticket.value, insist)
        finally:
            self.busy.discard(thread)
            if self.tickets.get(address) is ticket:
                del self.tickets[address]

    cdef int fill(self, Ticket ticket, Cell cell, key, tuple origin, sa_digest digest) except -1:
        """Run a recipe for all who wait for a ticket. KeyboardInterrupt is not theirs: the next of them runs it again."""
        try:
            ticket.value, ticket.error = self.grown(cell, key, digest), None
        except Exception as error:
            ticket.value, ticket.error = None, error
        ticket.origin = origin
        return 0

    cdef object grown(self, Cell cell, key, sa_digest digest):
        """The value that a REGROWN entry had, from its recipe; RegrowError if that gives another."""
        cdef Recipe recipe = self.recipes.get(address_of(cell))
        asked = key
        if recipe is not None:
            key = recipe.key
        elif key is UNKNOWN_KEY:
            key = key_of_cell(self.container(), cell)
        if recipe is None and self.function is None:
            raise RegrowError(f"there is no recipe for the value of key {key!r}: open the dict with regrow=", key)
        try:
            return self.proved(recipe, key, digest)
        except Exception:
            if key is not asked:
                raise
            # The key that was asked for may be equal to the entry's and of another type, of which a recipe gives another value.
            key = key_of_cell(self.container(), cell)
            if type(key) is type(asked):
                raise
        return self.proved(recipe, key, digest)

    cdef object proved(self, Recipe recipe, key, sa_digest digest):
        """What a recipe gives, if it is what was there; else RegrowError."""
        cdef sa_digest given
        try:
            value = self.run(recipe, key)
        except KeyError as error:
            # A KeyError would say that the key is not there.
            raise RegrowError(f"the recipe of key {key!r} found no value any more: {error!r}", key) from error
        try:
            same = self.digest(value, 0, &given) and sa_digests_equal(given, digest)
        except Exception:
            same = False
        if not same:
            raise RegrowError(f"the recipe of key {key!r} gave something else than the value that it stands for", key)
        return value

    # in a log -----------------------------------------------------------------------------------------------------------

    def prove(self, Cell cell not None, key, double read_seconds):
        """Before a commit: try the recipe of an entry out, if it was not."""
        cdef sa_digest given
        cdef Recipe recipe = self.recipes.get(address_of(cell))
        cdef Cost cost = self.cost if recipe is None else recipe.cost
        if cost is not None:
            if recipe is None:
                self.keys[address_of(cell)] = key
            self.expects(cell, recipe, cost, read_seconds, &given)
            self.keys.pop(address_of(cell), None)

    def stands_for(self, Cell cell not None, value, double read_seconds):
        """(digest, Recipe or None for that of all keys) if an entry's recipe was proved to give this very value; else None."""
        cdef sa_digest given, own
        cdef Recipe recipe = self.recipes.get(address_of(cell))
        cdef Cost cost = self.cost if recipe is None else recipe.cost
        if cost is None or not self.proof_of(cell, &given) or not self.is_worth(cost, read_seconds):
            return None
        if not self.digest(value, 0, &own) or not sa_digests_equal(given, own):
            return None
        return (<char *>own.word)[:sizeof(own.word)], recipe

    def regrow_stored(self, Cell cell not None, key, tuple origin not None, bytes digest not None):
        """The value of which the log has this digest; others who want it wait for the same run."""
        cdef unsigned long thread = PyThread_get_thread_ident()
        cdef Ticket ticket
        cdef sa_digest expected
        if len(digest) != sizeof(expected.word):
            raise CorruptFrameError(f"the digest of a recipe has {sizeof(expected.word)} bytes, not {len(digest)}")
        memcpy(expected.word, PyBytes_AS_STRING(digest), sizeof(expected.word))
        if thread in self.busy:
            return self.grown(cell, key, expected)
        address = address_of(cell)
        ticket = self.tickets.setdefault(address, Ticket.__new__(Ticket))
        try:
            self.busy.add(thread)
            with ticket.lock:
                if ticket.origin != origin:
                    self.fill(ticket, cell, key, origin, expected)
            if ticket.error is not None:
                raise ticket.error
            self.keep(cell, expected.word[0], expected.word[1])
            return ticket.value
        finally:
            self.busy.discard(thread)
            if self.tickets.get(address) is ticket:
                del self.tickets[address]

    def adopt_function(self, function):
        """Use a function for all keys from now on, if there is none."""
        if self.function is None:
            self.function, self.cost = function, self.cost_of(function)

    # missing keys -------------------------------------------------------------------------------------------------------

    def missing(self, DictCore core not None, key):
        """The value of a key that is not there, inserted; this Regrowth itself if there is no recipe for it.

        A recipe that raises KeyError knows of no such key: then a subclass's __missing__ has its turn.
        """
        try:
            return self.supplied(core, key)
        except EntryGoneError:
            raise
        except KeyError as error:
            if hasattr(type(core), "__missing__"):
                return self
            raise KeyError(key) from error

    cdef object supplied(self, DictCore core, key):
        """Others who want the same missing key wait for the same run."""
        cdef Recipe recipe = self.awaiting.get(key) if self.awaiting else None
        cdef unsigned long thread = PyThread_get_thread_ident()
        cdef Ticket ticket
        if recipe is None and self.function is None:
            return self
        if thread in self.busy:
            return DictCore.setdefault(core, key, self.run(recipe, key))
        ticket = self.missing_tickets.setdefault(key, Ticket.__new__(Ticket))
        try:
            self.busy.add(thread)
            with ticket.lock:
                if ticket.origin is None:
                    try:
                        ticket.value = self.run(recipe, key)
                    except Exception as error:
                        ticket.error = error
                    ticket.origin = ()
            if ticket.error is not None:
                raise ticket.error
        finally:
            self.busy.discard(thread)
            if self.missing_tickets.get(key) is ticket:
                del self.missing_tickets[key]
        return DictCore.setdefault(core, key, ticket.value)

