"""Down from RAM: which value leaves next, the walk that decides whether it may, and the commit of each move.

Nouns: a *Departure* is a value on its way out of HOT; a *Shipment* is a batch of frames on its way to disk; a *relief* is one
round of departures, begun when the ledger is above its limit.

    victim (policy) --> examine: walk --> closed  --> Departure --serialise--> to_warm / to_cold / to_regrown: walk again, drop
                                      |-> held    --> FRESH, later HELD: retried, a bounded number in each relief
                                      +-> pinned  --> PINNED, with a reason

Invariants:
  1. A Departure or Shipment that is dropped before its commit puts its cells back: an exception anywhere loses nothing.
  2. A value is dropped only when it was closed before and after it was serialised, and its entry was not used in between:
     every use of a departing entry calls the departure off. A *sealed* departure was serialised without running any
     code but ours and looked at again by its reference count alone: nobody could have reached the value but through
     gc.get_objects, which lists what the collector tracks, and with a part of a value it always tracks its root.

Threads: the GIL protects everything; serialising and writing happen between the calls, without any lock of this file.
Cost: a departure is two walks over the value's graph, a sealed one is one; a retry of a held value usually one look at a reference count.
"""
cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject

from c_cell cimport *
from c_closure cimport *
from c_policy cimport *
from c_shadow_table cimport sa_digest
from spectral_alloc._cell cimport Backed, Cell, Pending
from spectral_alloc._ledger cimport FRESH_FAILURES, Ledger, frame_bytes_in_memory

from spectral_alloc import _closure

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object value)

cdef extern from *:
    """
    #define SA_CELL_OF(node, offset) ((PyObject *)((char *)(node) - (offset)))
    """
    PyObject *SA_CELL_OF(sa_cell *node, size_t offset)

cdef sa_closure_api *closure_api = <sa_closure_api *>PyCapsule_GetPointer(_closure._C_API, SA_CLOSURE_CAPSULE)

cdef enum:
    HELD_TRIES = 4               # retries of long-held values in one relief
    HELD_DEBT_PAID = 4096        # objects walked in vain that one relief forgives: some 40 us


cdef size_t core_offset():
    """Where the C part of a Cell begins."""
    cdef Cell probe = Cell.__new__(Cell)
    return (<char *>&probe.core) - (<char *><PyObject *>probe)


cdef size_t cell_offset = core_offset()


def begin_relief(Ledger ledger not None):
    """Open a round of departures: pay off walks that were in vain, so that held values cost a bounded time."""
    ledger.held_debt = max(0, ledger.held_debt - HELD_DEBT_PAID)
    ledger.held_tries = HELD_TRIES if ledger.held_debt == 0 else 0
    ledger.fresh_tries = ledger.policy.queues[SA_QUEUE_FRESH].count
    review(ledger)


def depart(Ledger ledger not None, long long slack=0):
    """The next value that leaves HOT, or None when the limit less `slack` is met or nothing can leave now."""
    cdef sa_cell *node
    cdef Cell cell
    cdef Departure departure
    while ledger.fresh_tries > 0 and ledger.budget_.excess(slack) > 0:
        ledger.fresh_tries -= 1
        node = sa_policy_oldest(&ledger.policy, SA_QUEUE_FRESH)
        if node is NULL:
            break
        cell = <Cell><object>SA_CELL_OF(node, cell_offset)  # held: a walk may run foreign code, which may delete it
        departure = examine(ledger, cell)
        if departure is not None:
            return departure
    while ledger.budget_.excess(slack) > 0:
        node = sa_policy_victim(&ledger.policy)
        if node is NULL:
            if review(ledger) == 0:
                break
            continue
        sa_policy_fetch_next(&ledger.policy)
        cell = <Cell><object>SA_CELL_OF(node, cell_offset)
        departure = examine(ledger, cell)
        if departure is not None:
            return departure
    return None


def review(Ledger ledger not None, bint all_of_them=False):
    """Look at some long-held values again; those that were let go compete in MAIN once more. Returns how many were.

    A constant number is looked at in a relief, and more as long as that succeeds: one released value announces others.
    `all_of_them` looks at every one, for whoever reports numbers.
    """
    cdef sa_cell *node
    cdef Cell cell
    cdef sa_verdict verdict
    cdef long long released = 0
    cdef long long tries = ledger.policy.queues[SA_QUEUE_HELD].count if all_of_them else ledger.held_tries
    if all_of_them:
        tries += ledger.policy.queues[SA_QUEUE_FRESH].count
    while tries > 0 and (all_of_them or ledger.held_debt <= 0):
        tries -= 1
        node = sa_policy_oldest(&ledger.policy, SA_QUEUE_HELD)
        if node is NULL and all_of_them:
            node = sa_policy_oldest(&ledger.policy, SA_QUEUE_FRESH)
        if node is NULL:
            break
        cell = <Cell><object>SA_CELL_OF(node, cell_offset)
        if is_held(ledger, cell, &verdict):
            ledger.held_debt += verdict.objects
            cell.core.frequency = FRESH_FAILURES
            ledger.hold(cell)
        elif cell.core.queue == SA_QUEUE_NONE and cell.core.state <= SA_BACKED:
            sa_policy_admit(&ledger.policy, &cell.core, True)
            released += 1
            tries += 0 if all_of_them else HELD_TRIES
    ledger.held_tries = 0
    return released


cdef bint is_held(Ledger ledger, Cell cell, sa_verdict *verdict) except *:
    """Take a live cell out of its queue and look whether the program can still reach its value."""
    cdef void *payload
    verdict.objects = 1
    sa_policy_remove(&ledger.policy, &cell.core)
    payload = cell.core.payload
    value = (<Backed>payload).value if cell.core.state == SA_BACKED else <object>payload
    ledger.examined += 1
    try:
        closure_api.look(ledger.walker, <PyObject *>value, 2, verdict)
    except Exception:
        return is_untouched(cell, payload)  # the next examination pins it, with the reason
    except BaseException:
        put_back(ledger, cell, payload)
        raise
    return verdict.status == SA_HELD and is_untouched(cell, payload)


cdef bint is_untouched(Cell cell, void *payload) noexcept:
    """Is a live cell that was taken out of its queue as it was? A walk that meets a new type runs code that may use it."""
    return cell.core.state <= SA_BACKED and cell.core.payload == payload and cell.core.queue == SA_QUEUE_NONE


cdef void put_back(Ledger ledger, Cell cell, void *payload) noexcept:
    """Ctrl-C stopped a walk, or memory is short: the entry competes again."""
    if is_untouched(cell, payload):
        sa_policy_admit(&ledger.policy, &cell.core, True)


cdef Departure examine(Ledger ledger, Cell cell):
    """Walk the value of a hot cell; file it as departing, held or pinned. None unless it departs."""
    cdef sa_verdict verdict
    cdef object value
    cdef Departure departure
    ledger.unqueue(cell)
    if cell.core.state == SA_BACKED:
        fall_back(ledger, cell)
        return None
    value = <object>cell.core.payload
    ledger.examined += 1
    # Two references are ours: the cell's and the local variable's.
    try:
        closure_api.look(ledger.walker, <PyObject *>value, 2, &verdict)
    except Exception as error:
        reason = f"its type could not be examined: {error!r}"
        if is_untouched(cell, <void *>value):
            ledger.pin_for(cell, reason)
        return None
    except BaseException:
        put_back(ledger, cell, <void *>value)
        raise
    if not is_untouched(cell, <void *>value):
        return None
    if verdict.status == SA_PINNED:
        ledger.pin_for(cell, <object>verdict.reason if verdict.reason is not NULL else "unknown")
        return None
    if verdict.status == SA_HELD and (not ledger.copy_mode or verdict.flags & SA_FLAT):
        ledger.held_debt += verdict.objects
        ledger.hold(cell)
        return None
    try:
        departure = Departure.__new__(Departure)
    except MemoryError:
        put_back(ledger, cell, <void *>value)
        raise
    departure.ledger = ledger
    departure.cell = cell
    departure.value = value
    departure.flags = verdict.flags if verdict.status == SA_CLOSED else 0
    departure.value_bytes = sa_charge_bytes(cell.core.charge)
    cell.core.flat = (departure.flags & SA_FLAT) != 0
    ledger.move(cell, SA_DEPARTING, "pressure")
    cell.core.payload = <void *>departure
    Py_DECREF(value)
    departure.references = Py_REFCNT(value) - 1  # without the local variable
    return departure


cdef int fall_back(Ledger ledger, Cell cell) except -1:
    """A backed value leaves without being written again, unless the program holds it."""
    cdef Backed backed = <Backed>cell.core.payload
    cdef sa_verdict verdict
    try:
        closure_api.look(ledger.walker, <PyObject *>backed.value, 1, &verdict)
    except Exception:
        verdict.status = SA_HELD  # out of memory: tried again later
    except BaseException:
        put_back(ledger, cell, <void *>backed)
        raise
    if not is_untouched(cell, <void *>backed):
        return 0
    if verdict.status != SA_CLOSED and not ledger.copy_mode:
        ledger.hold(cell)
        return 0
    ledger.recharge(cell, 0)
    ledger.move(cell, SA_COLD, "pressure")
    cell.core.payload = <void *><size_t>backed.place
    cell.core.frame_bytes = backed.frame_bytes
    cell.core.ledger = <void *>ledger
    cell.core.frequency = 0
    ledger.demotions += 1
    Py_DECREF(backed)
    return 0


def depart_cell(Ledger ledger not None, Cell cell not None):
    """Like depart, for one entry that the user names: its Departure, or None if it is not hot or cannot leave now."""
    if cell.core.state != SA_HOT or cell.core.kept:
        return None
    sa_policy_send_off(&ledger.policy, &cell.core)
    return examine(ledger, cell)


def recall_shipments(Ledger ledger not None):
    """After a fork: what other threads were writing is theirs no more, since they did not come along."""
    cdef sa_cell *node = sa_policy_oldest(&ledger.policy, SA_QUEUE_SHIPPING)
    while node is not NULL:
        sa_policy_remove(&ledger.policy, node)
        sa_policy_push(&ledger.policy, node, SA_QUEUE_WARM)
        node = sa_policy_oldest(&ledger.policy, SA_QUEUE_SHIPPING)


def ship(Ledger ledger not None, long long size_bytes, Cell only=None):
    """A batch of the oldest warm frames, at least `size_bytes` if there are as many, to be written to disk; or None."""
    cdef Shipment shipment = Shipment.__new__(Shipment)
    cdef sa_cell *node
    cdef Cell cell
    shipment.ledger = ledger
    shipment.cells, shipment.frames = [], []
    while size_bytes > 0:
        node = sa_policy_oldest(&ledger.policy, SA_QUEUE_WARM) if only is None else &only.core
        if node is NULL or node.queue != SA_QUEUE_WARM:
            break
        cell = <Cell><object>SA_CELL_OF(node, cell_offset)
        shipment.cells.append(cell)
        shipment.frames.append(<object>cell.core.payload)
        sa_policy_remove(&ledger.policy, node)
        sa_policy_push(&ledger.policy, node, SA_QUEUE_SHIPPING)
        size_bytes -= sa_charge_bytes(node.charge)
    return shipment if shipment.cells else None


@cython.final
@cython.no_gc
cdef class Departure(Pending):
    """A value on its way out of HOT: whoever drops this before a commit puts the value back."""

    def __dealloc__(self):
        if self.cell is not None:
            self.cancel()

    cdef bint is_pending(self) noexcept:
        return self.cell.core.state == SA_DEPARTING and self.cell.core.payload == <void *>self

    cdef void restore(self) noexcept:
        """Back to HOT, in no queue."""
        Py_INCREF(self.value)
        self.cell.core.payload = <void *>self.value
        self.cell.core.state = SA_HOT
        self.ledger.departing_count -= 1

    cdef void cancel(self) noexcept:
        """Somebody uses the entry, or serialising failed: the value stays, as one that was hit."""
        if not self.is_pending():
            return
        self.restore()
        if self.ledger.gone:
            self.cell.core.state = SA_DETACHED
        else:
            sa_policy_admit(&self.ledger.policy, &self.cell.core, True)

    def pin(self, str reason):
        """The value cannot be serialised: it stays HOT for good, and `reason` is counted."""
        if self.is_pending() and not self.ledger.gone:
            self.restore()
            self.ledger.pin_for(self.cell, reason)

    def hold(self):
        """The value cannot leave now for a reason outside it (a failing codec or disk): it is retried later."""
        if self.is_pending() and not self.ledger.gone:
            self.restore()
            self.ledger.hold(self.cell)

    cdef bint may_commit(self) except *:
        """Is the value still untouched and closed? It is walked again: serialising it may have run foreign code."""
        cdef sa_verdict verdict
        if not self.is_pending() or self.ledger.gone:
            return False
        if self.sealed and Py_REFCNT(self.value) == self.references:
            return True
        closure_api.look(self.ledger.walker, <PyObject *>self.value, 1, &verdict)
        if not self.is_pending():
            return False
        if verdict.status == SA_CLOSED or (verdict.status == SA_HELD and self.ledger.copy_mode):
            return True
        self.restore()
        self.ledger.hold(self.cell)
        return False

    def to_warm(self, bytes frame not None):
        """Keep the frame in RAM instead of the value; False if the value was used meanwhile and stays HOT."""
        if not self.may_commit():
            return False
        Py_INCREF(frame)
        self.ledger.move(self.cell, SA_WARM, "pressure")
        self.cell.core.payload = <void *>frame
        self.cell.core.frequency = 0
        sa_policy_push(&self.ledger.policy, &self.cell.core, SA_QUEUE_WARM)
        self.ledger.recharge(self.cell, frame_bytes_in_memory(PyBytes_GET_SIZE(frame)))
        self.ledger.demotions += 1
        self.ledger.shadows.leave(<void *>self.cell)
        self.value = None
        self.ledger.bury()
        return True

    def to_cold(self, unsigned long long place, unsigned long long frame_bytes):
        """The frame is on disk already; False if the value was used meanwhile and stays HOT."""
        if not self.may_commit():
            return False
        self.ledger.move(self.cell, SA_COLD, "pressure")
        self.cell.core.payload = <void *><size_t>place
        self.cell.core.frame_bytes = frame_bytes
        self.cell.core.ledger = <void *>self.ledger
        self.cell.core.frequency = 0
        self.ledger.recharge(self.cell, 0)
        self.ledger.demotions += 1
        self.ledger.shadows.leave(<void *>self.cell)
        self.value = None
        self.ledger.bury()
        return True

    cdef bint to_regrown(self, sa_digest digest) except *:
        """A recipe gives the value back; False if the value was used meanwhile and stays HOT."""
        if not self.may_commit():
            return False
        become_regrown(self.ledger, self.cell, digest)
        self.ledger.demotions += 1
        self.ledger.shadows.leave(<void *>self.cell)
        self.value = None
        self.ledger.bury()
        return True


cdef int become_regrown(Ledger ledger, Cell cell, sa_digest digest) except -1:
    """A cell in no queue has its digest alone from now on; its old payload is the caller's to drop."""
    ledger.move(cell, SA_REGROWN, "pressure")
    cell.core.payload = <void *><size_t>digest.word[0]
    cell.core.frame_bytes = digest.word[1]
    cell.core.ledger = <void *>ledger
    cell.core.frequency = 0
    ledger.recharge(cell, 0)
    return 0


@cython.final
@cython.no_gc
cdef class Shipment:
    """Warm frames on their way to disk; they stay readable, and whoever drops this before commit leaves them WARM."""

    def __dealloc__(self):
        if self.cells is not None and not self.ledger.gone:
            self.cancel()

    cdef void cancel(self) noexcept:
        cdef Cell cell
        for entry in self.cells:
            cell = <Cell>entry
            if cell.core.queue == SA_QUEUE_SHIPPING:
                sa_policy_remove(&self.ledger.policy, &cell.core)
                sa_policy_push(&self.ledger.policy, &cell.core, SA_QUEUE_WARM)

    cdef bint regrow(self, Py_ssize_t index, sa_digest digest) except *:
        """A recipe gives the value of a frame back: take it out of the batch, and let go of it. False if it has moved."""
        cdef Cell cell = <Cell>self.cells[index]
        cdef bytes frame = <bytes>self.frames[index]
        if cell.core.queue != SA_QUEUE_SHIPPING or cell.core.payload != <void *>frame or self.ledger.gone:
            return False
        sa_policy_remove(&self.ledger.policy, &cell.core)
        become_regrown(self.ledger, cell, digest)
        Py_DECREF(frame)
        del self.cells[index]
        del self.frames[index]
        return True

    def commit(self, list places not None):
        """The frames lie at `places`: let go of them. Returns the (place, frame_bytes) that nobody needs any more."""
        cdef Cell cell
        cdef bytes frame
        cdef list orphans = []
        for cell, frame, place in zip(self.cells, self.frames, places, strict=True):
            if cell.core.queue != SA_QUEUE_SHIPPING or cell.core.payload != <void *>frame or self.ledger.gone:
                orphans.append((place, len(frame)))
                continue
            sa_policy_remove(&self.ledger.policy, &cell.core)
            self.ledger.move(cell, SA_COLD, "pressure")
            cell.core.payload = <void *><size_t>(<unsigned long long>place)
            cell.core.frame_bytes = PyBytes_GET_SIZE(frame)
            cell.core.ledger = <void *>self.ledger
            Py_DECREF(frame)
            self.ledger.recharge(cell, 0)
            self.ledger.spills += 1
        self.cells = []
        return orphans
