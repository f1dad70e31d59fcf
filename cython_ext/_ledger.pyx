"""The ledger of one dict: its cells, what they cost, which tier they are in, and every move between tiers.

Nouns: a *Cell* is what the underlying dict holds for a key (_cell.pyx); the *Ledger* owns the queues of the cells and the sum of
their charges. Values go down in _departure.pyx; here they enter, are replaced, come up again and are forgotten.

    dict --key--> Cell --payload--> live object | frame | place on disk
                   ^ linked in a queue of Ledger.policy          Ledger.used --> Budget.used --> Budget.parent.used

Invariants (Ledger.check walks them all):
  1. used == bytes of all queues + bytes in departure + entry_bytes + buffer_bytes + slack_bytes, and the budget holds at least that.
  2. A cell's state changes only in Ledger.move, along core/cell.h's sa_legal_moves.
  3. A value is in some tier at every moment: each move installs the new payload before it drops the old one.

Threads: the GIL protects everything; a method that may run foreign code (finalisers of a dropped value) does so last.
Cost: every move O(1), but for the walk over the value's graph when it departs.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject

from c_cell cimport *
from c_closure cimport *
from c_policy cimport *
from spectral_alloc._cell cimport Backed, Budget, Cell, Pending, charge_budget, is_cell
from spectral_alloc._recipe_book cimport RecipeBook
from spectral_alloc._shadows cimport Shadows

from spectral_alloc import _closure
from spectral_alloc._cell import STATE_NAMES
from spectral_alloc.heat import default_scale

cdef sa_closure_api *closure_api = <sa_closure_api *>PyCapsule_GetPointer(_closure._C_API, SA_CLOSURE_CAPSULE)

cdef enum:
    TICK = 256                   # hits between two ticks: growth is noticed soon, and a hit pays nothing
    SIZE_NODE_LIMIT = 64         # objects that the sampled sizer looks at
    CELL_BYTES = 48              # object header and core, asserted in _cell.pyx
    BYTES_HEADER = 33            # of a bytes object
    EPOCH_ACCESSES = 65536       # shortest epoch; a large dict has 64 accesses per entry
    EPOCH_ACCESSES_PER_ENTRY = 64

#: What arrive returns when the entry has moved: ask for its whereabouts again.
AGAIN = object()


cpdef long long frame_bytes_in_memory(Py_ssize_t length) noexcept:
    """RAM that a frame of `length` bytes takes while it is WARM, as the allocator rounds it."""
    cdef long long size = length + BYTES_HEADER
    return (size + 15) & ~15 if size <= 512 else (size + 8 + 15) & ~15

cdef inline Py_ssize_t value_bytes(object value) noexcept:
    """RAM of a value, estimated by a sample if it holds others."""
    cdef Py_ssize_t quick = sa_quick_size(<PyObject *>value)
    return quick if quick >= 0 else closure_api.size_estimate(<PyObject *>value, SIZE_NODE_LIMIT)


cdef set live_ledgers = set()  # addresses, so that a stray cell cannot lead to a ledger that is gone


cpdef bint is_ledger(size_t address):
    """Is that the address of a ledger that lives?"""
    return address in live_ledgers


cpdef object live_object(Cell cell):
    """The live object of a cell that has one; a departure is called off."""
    if cell.core.state == SA_DEPARTING:
        (<Pending>cell.core.payload).cancel()
    if cell.core.state == SA_BACKED:
        return (<Backed>cell.core.payload).value
    if cell.core.state == SA_HOT:
        return <object>cell.core.payload
    raise SystemError(f"a {STATE_NAMES[cell.core.state]} cell has no live object")


# Not tracked: it is part of no cycle, and its dict uses it until the last moment of a deallocation in a cycle.
@cython.final
@cython.no_gc
cdef class Ledger:
    """Cells, queues and sums of one dict (see the head of this file)."""

    def __cinit__(self, Budget budget not None, scale):
        sa_policy_init(&self.policy)
        self.policy.cost_of = sa_policy_read_cost
        self.walker = closure_api.create(closure_api)
        live_ledgers.add(<size_t><void *>self)
        self.budget_ = budget
        self.countdown = TICK
        self.epoch_left = EPOCH_ACCESSES
        self.reasons = {}
        self.shadows = Shadows.__new__(Shadows)
        self.scale = scale
        self.band_of_count = <const uint8_t *>PyBytes_AS_STRING(scale.band_of_count)
        self.stay_from = <const unsigned short *>PyBytes_AS_STRING(scale.stay_from)
        self.stay_until = <const unsigned short *>PyBytes_AS_STRING(scale.stay_until)

    def __dealloc__(self):
        live_ledgers.discard(<size_t><void *>self)
        self.detach_all()
        closure_api.destroy(self.walker)

    # sums ---------------------------------------------------------------------------------------------------------

    cdef void charge(self, long long difference) noexcept:
        self.used += difference
        charge_budget(self.budget_, difference)

    cdef void recharge(self, Cell cell, long long size_bytes) noexcept:
        self.charge(sa_policy_recharge(&self.policy, &cell.core, size_bytes))

    def charge_buffers(self, long long buffer_bytes):
        """Set the bytes of memory that this container holds beside its entries."""
        self.charge(buffer_bytes - self.buffer_bytes)
        self.buffer_bytes = buffer_bytes

    def charge_slack(self, long long slack_bytes):
        """Set the part of the allocator's unusable memory that is put down to this container, if values can leave for it."""
        cdef long long movable = 0
        for queue in (SA_QUEUE_WINDOW, SA_QUEUE_SMALL, SA_QUEUE_MAIN, SA_QUEUE_WARM, SA_QUEUE_SHIPPING, SA_QUEUE_FRESH):
            movable += self.policy.queues[queue].bytes
        slack_bytes = min(slack_bytes, movable + max(0, self.slack_bytes - self.budget_.excess(0)))
        self.charge(slack_bytes - self.slack_bytes)
        self.slack_bytes = slack_bytes

    cdef void charge_entries(self, long long difference) noexcept:
        self.entry_bytes += difference
        self.charge(difference)

    def excess_bytes(self, long long slack=0):
        """Bytes above the limit less `slack`; negative when there is room."""
        return self.budget_.excess(slack)

    @property
    def budget(self):
        return self.budget_

    @budget.setter
    def budget(self, Budget budget not None):
        charge_budget(self.budget_, -self.used)
        self.budget_ = budget
        charge_budget(budget, self.used)

    cdef void recount(self, object cells, long long table_bytes) noexcept:
        """The dict dropped cells behind our back (``dict.clear(d)``): take the sums from what is left."""
        cdef PyObject *key
        cdef PyObject *found
        cdef Py_ssize_t position = 0
        cdef long long used = table_bytes + self.buffer_bytes + self.slack_bytes
        self.entry_bytes, self.entry_count, self.cold_count, self.regrown_count = table_bytes, 0, 0, 0
        while PyDict_Next(cells, &position, &key, &found):
            if is_cell(found):
                self.entry_bytes += closure_api.size_key(key) + CELL_BYTES
                self.entry_count += 1
                self.cold_count += (<Cell>found).core.state == SA_COLD
                self.regrown_count += (<Cell>found).core.state == SA_REGROWN
        used += self.entry_bytes - table_bytes
        for queue in range(SA_QUEUE_COUNT):
            sa_policy_resum(&self.policy, queue)
            used += self.policy.queues[queue].bytes
        self.charge(used - self.used)

    # moves ---------------------------------------------------------------------------------------------------------

    cdef int move(self, Cell cell, unsigned state, str cause) except -1:
        if not sa_cell_move_is_legal(&cell.core, state):
            raise SystemError(f"a cell cannot go from {STATE_NAMES[cell.core.state]} to {STATE_NAMES[state]}")
        if self.moves is not None and state != SA_DEPARTING:
            source = SA_HOT if cell.core.state == SA_DEPARTING or cell.core.state == SA_BACKED else cell.core.state
            target = SA_HOT if state == SA_BACKED else state
            if source != target and state != SA_DETACHED:
                # Flat, since making a tuple could start the garbage collector, and with it foreign code, here.
                self.moves.append(cell)
                self.moves.append(STATE_NAMES[source])
                self.moves.append(STATE_NAMES[target])
                self.moves.append(cause)
        self.cold_count += (state == SA_COLD) - (cell.core.state == SA_COLD)
        self.departing_count += (state == SA_DEPARTING) - (cell.core.state == SA_DEPARTING)
        self.regrown_count += (state == SA_REGROWN) - (cell.core.state == SA_REGROWN)
        cell.core.state = state
        return 0

    cdef int enter(self, Cell cell, object value, long long key_bytes) except -1:
        """Make `cell` a new entry that holds `value`. Cost: one estimate of the value's size."""
        cdef uint32_t charge = sa_charge_code(value_bytes(value))
        Py_INCREF(value)
        sa_policy_enter(&self.policy, &cell.core, <void *>value, charge, self.epoch)
        self.entry_count += 1
        self.entry_bytes += key_bytes + CELL_BYTES
        self.charge(sa_charge_bytes(charge) + key_bytes + CELL_BYTES)
        return 0

    cdef void unqueue(self, Cell cell) noexcept:
        """Take a cell out of its queue, and forget why it was pinned if it was."""
        if cell.core.queue == SA_QUEUE_PINNED:
            self.reasons.pop(<size_t><PyObject *>cell, None)
        sa_policy_remove(&self.policy, &cell.core)

    cdef object drop_payload(self, Cell cell):
        """Empty `cell` and return what the caller drops last, when a new state is set; its frame on disk goes to the graves."""
        cdef object dropped = None
        if cell.core.queue == SA_QUEUE_PINNED:
            self.reasons.pop(<size_t><PyObject *>cell, None)
        if cell.core.state == SA_COLD:
            self.dig(<unsigned long long><size_t>cell.core.payload, cell.core.frame_bytes)
        elif cell.core.state == SA_REGROWN:
            if self.recipes is not NULL:
                (<RecipeBook>self.recipes).keep(cell, <uint64_t><size_t>cell.core.payload, cell.core.frame_bytes)
        elif cell.core.state != SA_DEPARTING and cell.core.payload is not NULL:
            dropped = <object>cell.core.payload
            Py_DECREF(dropped)
            if cell.core.state == SA_BACKED:
                self.dig((<Backed>dropped).place, (<Backed>dropped).frame_bytes)
        cell.core.payload = NULL
        return dropped

    cdef int dig(self, unsigned long long place, unsigned long long frame_bytes) except -1:
        """A frame on disk is dead; the store hears of it in bury, when no cell is half changed."""
        return self.shadows.drop(place, frame_bytes)

    cdef int bury(self) except -1:
        """Tell the store about dead frames. Runs Python code, so it comes last."""
        cdef list graves = self.shadows.freed
        while graves:
            self.release(*graves.pop())
        return 0

    cdef object replace(self, Cell cell, object value):
        """Let `cell` hold `value`; returns the old payload, which the caller drops last."""
        cdef object dropped
        if cell.core.state != SA_HOT or not SA_ORDINARY_QUEUES >> cell.core.queue & 1:
            return self.replace_slow(cell, value)
        dropped = <object>cell.core.payload
        Py_DECREF(dropped)
        Py_INCREF(value)
        cell.core.payload = <void *>value
        cell.core.flat = False
        sa_cell_hit(&cell.core, self.epoch)
        self.recharge(cell, value_bytes(value))
        return dropped

    cdef object replace_slow(self, Cell cell, object value):
        """The same for a cell whose value is not live, or is held or pinned."""
        cdef object dropped = self.drop_payload(cell)
        Py_INCREF(value)
        cell.core.payload = <void *>value
        if cell.core.state != SA_HOT:
            self.move(cell, SA_HOT, "write")
        cell.core.flat = False
        sa_cell_hit(&cell.core, self.epoch)
        self.recharge(cell, value_bytes(value))
        sa_policy_renew(&self.policy, &cell.core)
        self.bury()
        return dropped

    cdef int unback(self, Cell cell) except -1:
        """Make a backed value an ordinary live one: its frame on disk is dead."""
        cdef Backed backed = <Backed>cell.core.payload
        self.dig(backed.place, backed.frame_bytes)
        self.move(cell, SA_HOT, "read")
        Py_INCREF(backed.value)
        cell.core.payload = <void *>backed.value
        Py_DECREF(backed)
        return 0

    cdef int forget(self, Cell cell, long long key_bytes) except -1:
        """`cell` is no longer an entry. A live value or a frame in RAM stays in it, for the caller."""
        cdef object dropped = None
        if cell.core.state == SA_COLD or cell.core.state == SA_REGROWN:
            self.drop_payload(cell)
        elif cell.core.state == SA_BACKED:
            self.unback(cell)
        elif cell.core.state == SA_DEPARTING:
            (<Pending>cell.core.payload).cancel()
        self.shadows.leave(<void *>cell)
        self.unqueue(cell)
        self.recharge(cell, 0)
        self.move(cell, SA_DETACHED, "delete")
        self.entry_count -= 1
        self.charge_entries(-key_bytes - CELL_BYTES)
        if self.recipes is not NULL:
            dropped = (<RecipeBook>self.recipes).forget(cell)  # dropped last: it may be foreign
        return self.bury()

    cdef object live(self, Cell cell):
        return live_object(cell)

    cdef void reweigh(self, Cell cell) noexcept:
        """Estimate a live value's size again: it may have grown in place."""
        if cell.core.state == SA_HOT and not cell.core.flat:
            self.recharge(cell, value_bytes(<object>cell.core.payload))

    cdef void hold(self, Cell cell) noexcept:
        """Set a held value aside: for an early retry at first, then for the slow rotation."""
        if cell.core.frequency >= FRESH_FAILURES:
            sa_policy_push(&self.policy, &cell.core, SA_QUEUE_HELD)
        else:
            cell.core.frequency += 1
            sa_policy_push(&self.policy, &cell.core, SA_QUEUE_FRESH)
        self.reweigh(cell)

    cdef int pin_for(self, Cell cell, str reason) except -1:
        self.reasons[<size_t><PyObject *>cell] = reason
        sa_policy_push(&self.policy, &cell.core, SA_QUEUE_PINNED)
        return 0

    # up -------------------------------------------------------------------------------------------------------------

    cpdef tuple whereabouts(self, Cell cell):
        """Where the value of a cell is: ("live", object), ("warm", frame), ("cold", place, frame_bytes),
        ("recipe", place, frame_bytes), ("regrown", digest, more of it) or ("gone",).
        """
        if cell.core.state == SA_WARM:
            return ("warm", <object>cell.core.payload)
        if cell.core.state == SA_COLD:
            return ("recipe" if sa_cell_has_recipe(&cell.core) else "cold", <unsigned long long><size_t>cell.core.payload,
                    cell.core.frame_bytes)
        if cell.core.state == SA_REGROWN:
            return ("regrown", <unsigned long long><size_t>cell.core.payload, cell.core.frame_bytes)
        return ("gone",) if cell.core.state == SA_DETACHED else ("live", self.live(cell))

    def arrive(self, Cell cell, tuple origin, object value, bint insist=False):
        """Install a value read from `origin` (of whereabouts) and return the object that the entry now has.

        Not installed: a string, bytes or number that is read for the first time in its tier, unless `insist`. (Of other
        immutable values a program may keep a weak reference, and see that it got a copy.) AGAIN is returned if
        the entry has moved or changed since `origin`: what was read may be stale, and an edit of it would be lost.
        """
        cdef Backed backed
        cdef object frame = None
        if cell.core.state == SA_HOT or cell.core.state == SA_BACKED or cell.core.state == SA_DEPARTING:
            return self.live(cell)
        if cell.core.state == SA_DETACHED:
            return value  # deleted while it was read: the read came first
        if origin[0] == "warm":
            if cell.core.state != SA_WARM or cell.core.payload != <void *><PyObject *>origin[1]:
                return AGAIN
        elif cell.core.state != (SA_REGROWN if origin[0] == "regrown" else SA_COLD):
            return AGAIN
        elif <size_t>cell.core.payload != <size_t>origin[1]:
            return AGAIN
        sa_cell_hit(&cell.core, self.epoch)
        cls = type(value)  # by identity: to compare classes may run code of theirs
        if (cell.core.frequency < 2 and not insist
                and (cls is str or cls is bytes or cls is int or cls is float or cls is complex)):
            return value
        self.promotions += 1
        if cell.core.flat and origin[0] == "cold":
            backed = Backed.__new__(Backed)
            backed.value, backed.place, backed.frame_bytes = value, origin[1], origin[2]
            Py_INCREF(backed)
            cell.core.payload = <void *>backed
            self.move(cell, SA_BACKED, "read")
        else:
            frame = self.drop_payload(cell)
            Py_INCREF(value)
            cell.core.payload = <void *>value
            self.move(cell, SA_HOT, "read")
        sa_policy_remove(&self.policy, &cell.core)
        self.recharge(cell, value_bytes(value))
        sa_policy_return(&self.policy, &cell.core)
        self.bury()
        return value

    def warm_up(self, Cell cell, tuple origin, bytes frame):
        """A cold cell's frame comes back into RAM; False if the entry has changed since `origin`."""
        if cell.core.state != SA_COLD or <size_t>cell.core.payload != <size_t>origin[1]:
            return False
        self.drop_payload(cell)
        Py_INCREF(frame)
        cell.core.payload = <void *>frame
        self.move(cell, SA_WARM, "prefetch")
        sa_policy_push(&self.policy, &cell.core, SA_QUEUE_WARM)
        self.recharge(cell, frame_bytes_in_memory(len(frame)))
        self.bury()
        return True

    def place_of(self, Cell cell):
        """(place, frame_bytes) of a frame on disk, or None: also of an immutable value that is in RAM as well."""
        cdef Backed backed
        if cell.core.state == SA_COLD:
            return <unsigned long long><size_t>cell.core.payload, cell.core.frame_bytes
        if cell.core.state == SA_BACKED:
            backed = <Backed>cell.core.payload
            return backed.place, backed.frame_bytes
        return None

    def relocate(self, Cell cell, unsigned long long place, unsigned long long new_place):
        """Compaction moved a frame; False if the entry no longer refers to `place`."""
        cdef Backed backed
        if cell.core.state == SA_COLD and <size_t>cell.core.payload == place:
            cell.core.payload = <void *><size_t>new_place
            return True
        if cell.core.state == SA_BACKED and (<Backed>cell.core.payload).place == place:
            (<Backed>cell.core.payload).place = new_place
            return True
        return False

    @property
    def hot_hits(self):
        """Accesses that found a live object."""
        return self.hits_hot + TICK - self.countdown

    @property
    def heat_scale(self):
        return self.scale

    @property
    def used_bytes(self):
        return self.used

    @property
    def counted_bytes(self):
        return self.used - self.slack_bytes

    @property
    def value_bytes_allowed(self):
        """Bytes that values and frames may take: what the limit leaves beside keys, cells, buffers and slack."""
        return max(0, self.used - self.budget_.excess(0) - self.entry_bytes - self.buffer_bytes - self.slack_bytes)

    @property
    def warm_bytes(self):
        """Bytes of frames in RAM, those on their way to disk included."""
        return self.policy.queues[SA_QUEUE_WARM].bytes + self.policy.queues[SA_QUEUE_SHIPPING].bytes

    @property
    def ignores_aliases(self):
        """aliasing="copy": what the program still holds does not keep a value from leaving."""
        return self.copy_mode

    @ignores_aliases.setter
    def ignores_aliases(self, bint value):
        self.copy_mode = value

    @property
    def shipping_bytes(self):
        """Bytes of frames that are being written to disk now, by whichever thread."""
        return self.policy.queues[SA_QUEUE_SHIPPING].bytes

    def serve(self, release, loader):
        """Set who hears of dead frames on disk (place, frame_bytes), and a weak reference to who loads a stray cell."""
        self.release, self.loader = release, loader

    def watch(self, bint moves):
        """Set whether moves are recorded for take_moves."""
        self.moves = ([] if self.moves is None else self.moves) if moves else None

    def take_moves(self):
        """The recorded (cell, from, to, cause), oldest first, and forget them."""
        cdef list moves = self.moves
        if not moves:
            return []
        self.moves = []
        return list(zip(moves[0::4], moves[1::4], moves[2::4], moves[3::4]))

    def keep(self, Cell cell not None, bint kept):
        """Pin or unpin a live entry for the user."""
        if cell.core.kept == kept or cell.core.state == SA_DETACHED:
            return
        self.live(cell)
        if cell.core.state == SA_BACKED:
            self.unback(cell)
        cell.core.kept = kept
        self.unqueue(cell)
        if kept:
            sa_policy_push(&self.policy, &cell.core, SA_QUEUE_KEPT)
        else:
            sa_policy_admit(&self.policy, &cell.core, True)
        self.bury()

    # heat -----------------------------------------------------------------------------------------------------------

    cdef void tick(self) noexcept:
        """After every TICK hits: count them, and halve all heat once an epoch."""
        self.hits_hot += TICK
        self.countdown = TICK
        self.epoch_left -= TICK
        if self.epoch_left <= 0:
            self.epoch += 1
            self.epoch_left = max(<long long>EPOCH_ACCESSES, self.entry_count * EPOCH_ACCESSES_PER_ENTRY)

    cdef int look(self, Cell cell) noexcept:
        """The band of a cell now; counts a migration when it leaves its band by more than the dead band."""
        if cell.core.epoch != self.epoch:
            sa_cell_cool(&cell.core, self.epoch)
        if cell.core.count < self.stay_from[cell.core.band] or cell.core.count > self.stay_until[cell.core.band]:
            cell.core.band = self.band_of_count[cell.core.count]
            self.migrations += 1
        return cell.core.band

    cdef void detach_all(self) noexcept:
        """The dict is going away: no cell may point into this ledger any more, and the budget gets its bytes back."""
        self.gone = True
        self.recipes = NULL
        sa_policy_detach_all(&self.policy)
        charge_budget(self.budget_, -self.used)
        self.used = 0
