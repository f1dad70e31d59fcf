"""Counting and checking: how many entries are where and how warm, and whether every sum agrees.

Nouns: a *temperature* comes from the band of an entry's heat; a *residency* is where its value lives.

Invariant: the functions here change nothing but a cell's band, which follows its heat (Ledger.look).

Threads: the GIL; no foreign code runs while cells are walked, except __sizeof__ of nothing. Cost: one cache line per entry.
"""
from cpython.dict cimport PyDict_Next
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport PyObject

from c_cell cimport *
from c_closure cimport *
from c_policy cimport *
from spectral_alloc._cell cimport Cell, is_cell
from spectral_alloc._ledger cimport Ledger
from spectral_alloc._thermal cimport DictCore

from spectral_alloc import _closure
from spectral_alloc._cell import CELL_BYTES, STATE_NAMES

cdef sa_closure_api *closure_api = <sa_closure_api *>PyCapsule_GetPointer(_closure._C_API, SA_CLOSURE_CAPSULE)


def numbers(DictCore core not None):
    """Counts and bytes of one dict, as a dict of names."""
    cdef Ledger ledger = core.ledger
    cdef sa_policy *policy = &ledger.policy
    reasons = {}
    for reason in ledger.reasons.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    hot = (SA_QUEUE_WINDOW, SA_QUEUE_SMALL, SA_QUEUE_MAIN, SA_QUEUE_FRESH, SA_QUEUE_HELD, SA_QUEUE_PINNED, SA_QUEUE_KEPT)
    warm = (SA_QUEUE_WARM, SA_QUEUE_SHIPPING)
    stored_recipes = recipes_stored(core)
    warm_entries = sum([policy.queues[queue].count for queue in warm])
    return {
        "used_bytes": ledger.used,
        "entry_bytes": ledger.entry_bytes,
        "buffer_bytes": ledger.buffer_bytes,
        "slack_bytes": ledger.slack_bytes,
        "entries": ledger.entry_count,
        "hot_entries": ledger.entry_count - warm_entries - ledger.cold_count - ledger.regrown_count,
        "warm_entries": warm_entries,
        "cold_entries": ledger.cold_count - stored_recipes,
        "regrown_entries": ledger.regrown_count + stored_recipes,
        "hot_bytes": sum([policy.queues[queue].bytes for queue in hot]),
        "warm_bytes": sum([policy.queues[queue].bytes for queue in warm]),
        "held_entries": policy.queues[SA_QUEUE_FRESH].count + policy.queues[SA_QUEUE_HELD].count,
        "held_bytes": policy.queues[SA_QUEUE_FRESH].bytes + policy.queues[SA_QUEUE_HELD].bytes,
        "pinned_entries": policy.queues[SA_QUEUE_PINNED].count + policy.queues[SA_QUEUE_KEPT].count,
        "pinned": reasons | ({"pinned by the user": policy.queues[SA_QUEUE_KEPT].count}
                             if policy.queues[SA_QUEUE_KEPT].count else {}),
        "hits_hot": ledger.hot_hits,
        "hits_warm": ledger.hits_warm,
        "hits_cold": ledger.hits_cold,
        "hits_regrown": ledger.hits_regrown,
        "promotions": ledger.promotions,
        "demotions": ledger.demotions,
        "spills": ledger.spills,
        "migrations": ledger.migrations,
        "examined": ledger.examined,
    }


cdef long long recipes_stored(DictCore core) noexcept:
    """Entries of a durable dict of which the log has a recipe."""
    cdef PyObject *key
    cdef PyObject *found
    cdef Py_ssize_t position = 0
    cdef long long count = 0
    while core._journal is not None and PyDict_Next(core, &position, &key, &found):
        count += is_cell(found) and sa_cell_has_recipe(&(<Cell>found).core)
    return count


def band_counts(DictCore core not None):
    """How many entries are in each band of the heat scale: a list, index 0 for the lowest band."""
    cdef PyObject *key
    cdef PyObject *found
    cdef Py_ssize_t position = 0
    cdef long long counts[256]
    for position in range(256):
        counts[position] = 0
    position = 0
    while PyDict_Next(core, &position, &key, &found):
        if type(<object>found) is Cell:
            counts[core.ledger.look(<Cell>found)] += 1
    return [counts[position] for position in range(len(core.ledger.scale.gammas))]


def mean_mismatch(DictCore core not None):
    """Mean distance of the entries' frequencies from the zeros of their bands; 0.0 without entries."""
    cdef PyObject *key
    cdef PyObject *found
    cdef Py_ssize_t position = 0
    cdef double total = 0
    cdef long long entries = 0
    frequencies, gammas = core.ledger.scale.frequencies, core.ledger.scale.gammas
    while PyDict_Next(core, &position, &key, &found):
        if type(<object>found) is Cell:
            band = core.ledger.look(<Cell>found)
            total += abs(<double>frequencies[(<Cell>found).core.count] - <double>gammas[band])
            entries += 1
    return total / entries if entries else 0.0


def heat_of(DictCore core not None, Cell cell not None):
    """(decayed access count, band index from 0) of one entry."""
    cdef int band = core.ledger.look(cell)
    return cell.core.count, band


def state_of(Cell cell not None):
    """The name of a cell's state; a COLD one whose record is a recipe counts as REGROWN."""
    return STATE_NAMES[SA_REGROWN] if sa_cell_has_recipe(&cell.core) else STATE_NAMES[cell.core.state]


cdef str misplaced(Cell cell):
    """NULL-like None, or how the state and the queue of a cell disagree."""
    cdef unsigned state = cell.core.state, queue = cell.core.queue
    if state == SA_HOT:
        fine = queue in (SA_QUEUE_WINDOW, SA_QUEUE_SMALL, SA_QUEUE_MAIN, SA_QUEUE_FRESH, SA_QUEUE_HELD, SA_QUEUE_PINNED, SA_QUEUE_KEPT)
    elif state == SA_BACKED:
        fine = queue in (SA_QUEUE_WINDOW, SA_QUEUE_SMALL, SA_QUEUE_MAIN, SA_QUEUE_FRESH, SA_QUEUE_HELD)
    elif state == SA_WARM:
        fine = queue in (SA_QUEUE_WARM, SA_QUEUE_SHIPPING)
    else:
        fine = queue == SA_QUEUE_NONE and state in (SA_DEPARTING, SA_COLD, SA_REGROWN)
    return None if fine else f"a {STATE_NAMES[state]} cell is in queue {queue}"


def check(DictCore core not None):
    """Walk every invariant of the cells, the queues and the sums; AssertionError says which one is broken."""
    cdef Ledger ledger = core.ledger
    cdef PyObject *key
    cdef PyObject *found
    cdef Py_ssize_t position = 0
    cdef long long charges = 0, entries = 0, entry_bytes = 0, cold = 0, departing = 0, regrown = 0
    cdef Cell cell
    cdef const char *wrong = sa_policy_check(&ledger.policy)
    assert wrong is NULL, wrong.decode()
    while PyDict_Next(core, &position, &key, &found):
        if type(<object>found) is not Cell:
            continue
        cell = <Cell>found
        problem = misplaced(cell)
        assert problem is None, f"{problem} (key {<object>key!r})"
        if cell.core.state == SA_REGROWN:
            regrown += 1
            assert core._regrowth is not None and core._regrowth.covers(cell), f"no recipe (key {<object>key!r})"
            assert cell.core.charge == 0, f"a regrown value is charged (key {<object>key!r})"
        elif cell.core.state != SA_COLD:
            assert cell.core.payload is not NULL, f"no payload (key {<object>key!r})"
        charges += sa_charge_bytes(cell.core.charge)
        entries += 1
        entry_bytes += closure_api.size_key(key) + <long long>CELL_BYTES
        cold += cell.core.state == SA_COLD
        departing += cell.core.state == SA_DEPARTING
    assert entries == ledger.entry_count, f"{entries} cells, {ledger.entry_count} counted"
    assert cold == ledger.cold_count, f"{cold} cold cells, {ledger.cold_count} counted"
    assert regrown == ledger.regrown_count, f"{regrown} regrown cells, {ledger.regrown_count} counted"
    assert departing == ledger.departing_count, f"{departing} departing cells, {ledger.departing_count} counted"
    assert entry_bytes + core.table_bytes == ledger.entry_bytes, "the entries' bytes are not the sum of keys and cells"
    assert charges + ledger.entry_bytes + ledger.buffer_bytes + ledger.slack_bytes == ledger.used, "used is not the sum of its parts"
    assert ledger.used <= ledger.budget_.used, "the budget knows less than its ledger"
    assert len(ledger.reasons) == ledger.policy.queues[SA_QUEUE_PINNED].count, "a pinned entry has no reason"
