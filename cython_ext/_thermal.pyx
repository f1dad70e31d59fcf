"""The dict of cells: CPython's own dict underneath, with the methods that touch values replaced.

Nouns: *DictCore* is the compiled base of ThermalDict; a *cell* is what the underlying dict holds for a key (_cell.pyx); a *hit* finds
a live object; the *slow* functions are for everything else; a *raw* value is one that C code put into the underlying dict
behind our back (``dict.__setitem__(d, k, v)``): it is returned as it is and never moves.

    d[k] -> dict lookup -> Cell -> live object                          this file, core/cell.h: the hit
                                -> frame or place -> tiers.load(cell)   the slow path, tiers.py

Invariants (DictCore._check walks them all):
  1. Each cell in the dict is counted once in ledger.entry_count and charged with its key in ledger.entry_bytes.
  2. len, `in`, key iteration and order are the underlying dict's own; no method of this file changes the order otherwise.
  3. The garbage collector sees a hot value through its dict: cells are not tracked, dict_traverse visits what they own.

Threads: the GIL. Foreign code (__eq__, finalisers, reducers) may re-enter: it runs before a look-up or after the last change.
Cost: a hit is dict's own look-up and about twelve instructions more.
"""
cimport cython
from cpython.dict cimport PyDict_Clear, PyDict_Contains, PyDict_GetItemWithError, PyDict_Next, PyDict_SetItem, PyDict_Size
from cpython.object cimport PyTypeObject, traverseproc, visitproc
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_DECREF, PyObject

from c_cell cimport *
from c_closure cimport *
from c_policy cimport *
from spectral_alloc._cell cimport Backed, Budget, Cell, cell_pool, is_cell, is_exceeded, sa_cell_pool
from spectral_alloc._ledger cimport Ledger

from spectral_alloc import _closure, _stray
from spectral_alloc._cell import EntryGoneError
from spectral_alloc.heat import default_scale

cdef extern from "dict_core.h":
    object sa_dict_pop_or_none(object mapping, object key)
    object sa_dict_iterator(object mapping)
    int sa_is_container(object value) noexcept
    int sa_holds_containers(object key, object value) noexcept
    Cell sa_cell_new(PyTypeObject *type, sa_cell_pool *pool)
    PyObject *sa_cell_swap(sa_cell *core, PyObject *value, unsigned epoch_now) noexcept
    int sa_dict_visit(PyObject *mapping, const sa_policy *policy, Py_ssize_t entry_count, int *holds_containers,
                      visitproc visit, void *arg) noexcept
    void sa_install_slots(PyTypeObject *core_type, PyTypeObject *cell_type, traverseproc traverse) noexcept

cdef extern from "Python.h":
    PyObject *PyDict_SetDefault(object mapping, object key, object value) except NULL

cdef sa_closure_api *closure_api = <sa_closure_api *>PyCapsule_GetPointer(_closure._C_API, SA_CLOSURE_CAPSULE)

cdef enum:
    CELL_BYTES = 48          # asserted in _cell.pyx
    SWEEP_CELLS = 8          # cells weighed again at each tick
    WRITES_PER_TICK = 32
    PULSE_BYTES = 1 << 20    # a smaller dict under no pressure needs no Python side yet
    TICKS_PER_PULSE = 8      # ticks between two looks at the process's memory

cdef object dict_sizeof = dict.__sizeof__, dict_items = dict.items, dict_popitem = dict.popitem, MISSING = object()
cdef sa_cell_pool *pool = cell_pool()

cdef inline Py_ssize_t key_bytes(key) noexcept:
    cdef Py_ssize_t quick = sa_quick_allocation(<PyObject *>key)
    return quick if quick >= 0 else closure_api.size_key(<PyObject *>key)

cdef inline int count_write(DictCore core) except -1:
    core.write_countdown -= 1
    return core.write_tick_slow() if core.write_countdown <= 0 else 0


cdef inline int after_write(DictCore core) except -1:
    count_write(core)
    return core.relieve_slow() if is_exceeded(core.ledger.budget_) else 0


cdef inline int enter(DictCore core, Cell cell, key, value) except -1:
    core.holds_containers |= sa_holds_containers(key, value)
    core.ledger.enter(cell, value, key_bytes(key))
    if core._regrowth is not None:
        core._regrowth.entered(cell, key)
    return core.weigh_table() if core.ledger.entry_count >= core.table_check else 0


@cython.auto_pickle(False)  # dict's own protocol: Cython's would refuse the attributes of a subclass
cdef class DictCore(dict):
    """The compiled base of ThermalDict: use that."""

    def __cinit__(self):
        self.ledger = Ledger(self._first_budget(), default_scale())
        self.write_countdown = WRITES_PER_TICK
        self.pulse_countdown = TICKS_PER_PULSE
        self._enrol()  # last, since other threads may find it from here on

    def __dealloc__(self):
        if self.ledger is not None:
            self.ledger.detach_all()

    def __init__(self, *args, **named):
        if len(args) > 1:
            raise TypeError(f"{type(self).__name__} expected at most 1 argument, got {len(args)}")
        # Not update(): a subclass may have its own, which dict's constructor would not call either.
        self.fill(args[0] if args else (), named)

    def __getitem__(self, key):
        cdef PyObject *found = PyDict_GetItemWithError(self, key)
        cdef sa_cell *core
        if found is not NULL and is_cell(found):
            core = &(<Cell>found).core
            if core.state == SA_HOT:
                sa_cell_hit(core, self.ledger.epoch)
                self.ledger.countdown -= 1
                if self.ledger.countdown > 0:
                    return <object>core.payload
                return self.hit_tick_slow(<Cell>found)
        return self.get_slow(key, found, MISSING)

    @cython.binding(False)
    def get(self, key, default=None, /):
        """Return the value for key if key is in the dictionary, else default."""
        cdef PyObject *found = PyDict_GetItemWithError(self, key)
        cdef sa_cell *core
        if found is NULL:
            return default
        if is_cell(found):
            core = &(<Cell>found).core
            if core.state == SA_HOT:
                sa_cell_hit(core, self.ledger.epoch)
                self.ledger.countdown -= 1
                if self.ledger.countdown > 0:
                    return <object>core.payload
                return self.hit_tick_slow(<Cell>found)
        return self.get_slow(key, found, default)

    cdef object get_slow(self, key, PyObject *found, default):
        """The way of all but hits, apart because it needs more registers; MISSING as the default is for __getitem__."""
        if found is NULL:
            return self.missing_slow(key)
        try:
            return self.value_slow(key, <object>found)
        except EntryGoneError:
            return self[key] if default is MISSING else self.get(key, default)

    def __contains__(self, key):
        return PyDict_Contains(self, key)

    cdef object missing_slow(self, key):
        """Nothing was found: there may be a recipe, and a subclass may have __missing__."""
        if self._regrowth is not None:
            found = self._regrowth.missing(self, key)
            if found is not self._regrowth:
                return found
        missing = getattr(type(self), "__missing__", None)
        if missing is None:
            raise KeyError(key)
        return missing.__get__(self, type(self))(key) if hasattr(missing, "__get__") else missing(key)

    cdef object value_slow(self, key, found):
        """The value of what the underlying dict holds, wherever it is; counts as an access."""
        cdef Ledger ledger = self.ledger
        cdef Cell cell
        if type(found) is not Cell:
            return found
        cell = <Cell>found
        if cell.core.state == SA_WARM:
            ledger.hits_warm += 1
        elif cell.core.state == SA_COLD:
            ledger.hits_cold += 1
        elif cell.core.state == SA_REGROWN:
            ledger.hits_regrown += 1
        elif cell.core.state != SA_DETACHED:
            ledger.hits_hot += 1
            value = ledger.live(cell)
            sa_cell_hit(&cell.core, ledger.epoch)
            return value
        ledger.epoch_left -= 1
        value = self.tiers.load(cell, key)
        self.holds_containers |= sa_is_container(value)
        if is_exceeded(ledger.budget_):
            self.relieve_slow()
        if ledger.moves:
            self._tell_moves()
        return value

    cdef object peek(self, key, found):
        """Like value_slow, but a live value is not counted as used: for iteration and comparison."""
        cdef Cell cell
        if type(found) is not Cell:
            return found
        cell = <Cell>found
        if cell.core.state == SA_HOT:
            return <object>cell.core.payload
        return self.value_slow(key, found)

    def _peek(self, key, default):
        """The value of `key` without counting an access, or `default`."""
        cdef PyObject *found = PyDict_GetItemWithError(self, key)
        return default if found is NULL else self.peek(key, <object>found)

    def get_many(self, keys, default=None):
        """Return the list of values for `keys`, `default` where a key is absent; frames on disk are read in disk order."""
        cdef list result = []
        cdef PyObject *found
        wanted = keys if isinstance(keys, (list, tuple)) else list(keys)
        if self.ledger.cold_count:
            self.tiers.prefetch(self, wanted)
        for key in wanted:
            found = PyDict_GetItemWithError(self, key)
            if found is not NULL and is_cell(found) and (<Cell>found).core.state == SA_HOT:
                result.append(<object>(<Cell>found).core.payload)
                sa_cell_hit(&(<Cell>found).core, self.ledger.epoch)
                self.ledger.countdown -= 1
            else:
                result.append(self.get(key, default))
        if self.ledger.countdown <= 0:
            self.tick_slow(None)
        return result

    def __setitem__(self, key, value):
        self.store(key, value)

    cdef int store(self, key, value) except -1:
        """One look-up, for a new key and for an old one: a spare cell is offered to the dict, which keeps it or not."""
        cdef Ledger ledger = self.ledger
        cdef Cell spare = self.spare
        cdef PyObject *found
        cdef PyObject *old
        cdef object dropped = None
        if spare is None:
            if self._journal is not None:
                return self._journal.store(self, key, value)
            spare = sa_cell_new(<PyTypeObject *>Cell, pool)
        else:
            self.spare = None
        found = PyDict_SetDefault(self, key, spare)
        if found == <PyObject *>spare:
            enter(self, spare, key, value)
        elif is_cell(found):
            self.spare = spare
            old = sa_cell_swap(&(<Cell>found).core, <PyObject *>value, ledger.epoch)
            if old is NULL:
                self.holds_containers |= sa_is_container(value)
                dropped = ledger.replace(<Cell>found, value)
            else:
                dropped = <object>old
                Py_DECREF(dropped)
        else:
            PyDict_SetItem(self, key, spare)
            enter(self, spare, key, value)
        return after_write(self)

    cdef int write_tick_slow(self) except -1:
        """After every 32 writes: notice values that grew in place, and the process's memory."""
        self.write_countdown = WRITES_PER_TICK
        self._sweep(SWEEP_CELLS)
        return self.pulse_slow()

    cdef int weigh_table(self) except -1:
        """Charge the dict's own hash table, which grows in leaps."""
        cdef long long table_bytes = dict_sizeof(self)
        self.ledger.charge_entries(table_bytes - self.table_bytes)
        self.table_bytes = table_bytes
        self.table_check = self.ledger.entry_count + self.ledger.entry_count // 16 + 4
        return 0

    def setdefault(self, key, default=None, /):
        """Insert key with a value of default if key is not in the dictionary; return the value for key."""
        cdef Cell spare = sa_cell_new(<PyTypeObject *>Cell, pool)
        cdef PyObject *found = NULL if self._journal is not None else PyDict_SetDefault(self, key, spare)
        if found is NULL:
            return self._journal.setdefault(self, key, default)
        if found != <PyObject *>spare:
            try:
                return self.value_slow(key, <object>found)
            except EntryGoneError:
                return self.setdefault(key, default)
        enter(self, spare, key, default)
        after_write(self)
        return default

    def __delitem__(self, key):
        if self._journal is not None:
            self._journal.delete(self, key)
            return
        dropped = sa_dict_pop_or_none(self, key)  # foreign code runs before the removal, none until forget
        if dropped is None:
            raise KeyError(key)
        if type(dropped) is Cell:
            self.ledger.forget(<Cell>dropped, key_bytes(key))
        count_write(self)

    def pop(self, key, /, *default):
        """Remove key and return its value; without the key return default if given, else raise KeyError."""
        cdef PyObject *found
        if len(default) > 1:
            raise TypeError(f"pop expected at most 2 arguments, got {len(default) + 1}")
        found = PyDict_GetItemWithError(self, key)
        if found is not NULL:
            try:
                # Loaded before it is removed: a damaged frame must raise and leave the entry where it is.
                held = self.peek(key, <object>found)
            except EntryGoneError:
                pass
            value = self.take(key)
            if value is not MISSING:
                return value
        if default:
            return default[0]
        raise KeyError(key)

    cdef object take(self, key):
        """Remove `key` and return its value, or MISSING."""
        if self._journal is not None:
            return self._journal.take(self, key, MISSING)
        self.removing += 1
        try:
            taken = sa_dict_pop_or_none(self, key)
            if taken is None:
                return MISSING
            if type(taken) is not Cell:
                return taken
            try:
                return self.peek(key, taken)
            finally:
                self.ledger.forget(<Cell>taken, key_bytes(key))
        finally:
            self.removing -= 1

    def _pop_last(self):
        """Remove the last entry, whatever the hash of its key is now, and return its value."""
        key, found = next(reversed(dict_items(self)))
        value = self.peek(key, found)
        if dict_popitem(self)[1] is found and type(found) is Cell:
            self.ledger.forget(<Cell>found, key_bytes(key))
        return value

    def clear(self):
        """Remove all items."""
        cdef PyObject *key
        cdef PyObject *found
        cdef Py_ssize_t position = 0, before = self.ledger.used
        cdef list keys = [], cells = []
        if self._journal is not None:
            return self._journal.clear(self)
        self.removing += 1
        try:
            # Out of the dict first: forgetting runs Python code, and no other thread may meet a cell that is forgotten.
            while PyDict_Next(self, &position, &key, &found):
                if is_cell(found):
                    keys.append(<object>key)
                    cells.append(<object>found)
            PyDict_Clear(self)
            while cells:
                last_key = keys.pop()
                self.ledger.forget(<Cell>cells.pop(), key_bytes(last_key))
        finally:
            self.removing -= 1
        self.weigh_table()
        self.ledger.charge_slack(0)
        if self.tiers is not None:
            self.tiers.trim(before - self.ledger.used)

    def update(self, other=(), /, **named):
        """Update from a mapping or an iterable of pairs, then from keyword arguments."""
        self.fill(other, named)

    cdef int fill(self, other, dict named) except -1:
        if type(other) is dict:
            for key, value in other.items():
                self.store(key, value)
        elif hasattr(other, "keys"):
            for key in other.keys():
                self.store(key, other[key])
        else:
            self.update_pairs_slow(other)
        for key, value in named.items():
            self.store(key, value)
        return 0

    cdef int update_pairs_slow(self, pairs) except -1:
        cdef Py_ssize_t index = 0
        for pair in pairs:
            if type(pair) is not tuple and type(pair) is not list:
                try:
                    pair = list(pair)
                except TypeError:
                    raise TypeError(f"cannot convert dictionary update sequence element #{index} to a sequence") from None
            if len(pair) != 2:
                raise ValueError(f"dictionary update sequence element #{index} has length {len(pair)}; 2 is required")
            self.store(pair[0], pair[1])
            index += 1
        return 0

    def __iter__(self):
        # Overridden so that C code (dict(d), {**d}) does not take the short cut that would copy cells.
        return sa_dict_iterator(self)

    cdef object hit_tick_slow(self, Cell cell):
        value = <object>cell.core.payload  # held before the tick, with which it may have to leave
        self.tick_slow(cell)
        return value

    cdef int tick_slow(self, Cell cell) except -1:
        """After every 256 hits: halve heat when due, and notice values that grew in place."""
        self.ledger.tick()
        if cell is not None:
            self.ledger.reweigh(cell)
        self._sweep(SWEEP_CELLS)
        self.pulse_slow()
        if is_exceeded(self.ledger.budget_):
            self.relieve_slow()
        return 0

    cdef int pulse_slow(self) except -1:
        self.pulse_countdown -= 1
        if self.pulse_countdown <= 0:
            self.pulse_countdown = TICKS_PER_PULSE
            if self.tiers is not None or self.ledger.used > PULSE_BYTES:
                self.tiers_slow().pulse(self)
        return 0

    cpdef void _sweep(self, Py_ssize_t cells) noexcept:
        """Weigh the next `cells` values again, round and round the dict."""
        cdef PyObject *key
        cdef PyObject *found
        while cells > 0:
            cells -= 1
            if not PyDict_Next(self, &self.sweep_position, &key, &found):
                self.sweep_position = 0
                return
            if is_cell(found):
                self.ledger.reweigh(<Cell>found)

    cdef object tiers_slow(self):
        """The Python side, made when it is first needed."""
        if self.tiers is None:
            self.tiers = self._make_tiers(self.ledger)
        return self.tiers

    cdef int relieve_slow(self) except -1:
        """The ledger is above its limit: let values leave."""
        if PyDict_Size(self) < self.ledger.entry_count and self.removing == 0:
            self.recount_slow()
        self._relieve_larger()
        if is_exceeded(self.ledger.budget_):
            self.tiers_slow().relieve()
        if is_exceeded(self.ledger.budget_):
            self._relieve_others()
        if self.ledger.moves:
            self._tell_moves()
        return 0

    cdef int recount_slow(self) except -1:
        """Cells were dropped behind our back (``dict.clear(d)``): add up what is left."""
        self.ledger.recount(self, self.table_bytes)
        return 0

    def _settle(self):
        """Let leave what can leave now; every method that reports numbers calls this first."""
        if PyDict_Size(self) < self.ledger.entry_count and self.removing == 0:
            self.recount_slow()
        if is_exceeded(self.ledger.budget_):
            self.relieve_slow()

    def _find(self, key):
        """The cell of `key` (KeyError if absent; None for a raw value)."""
        cdef PyObject *found = PyDict_GetItemWithError(self, key)
        if found is NULL:
            raise KeyError(key)
        return <object>found if is_cell(found) else None

    @property
    def _ledger(self):
        return self.ledger

    def _adopt_tiers(self, tiers):
        self.tiers = tiers

    @property
    def _tiers(self):
        return self.tiers_slow()

    @property
    def _has_tiers(self):
        return self.tiers is not None


cdef int traverse(PyObject *mapping, visitproc visit, void *arg) except -1:
    """Cells are not tracked by the garbage collector: the dict visits the values in their stead."""
    cdef PyObject *member[6]
    member[0], member[1] = <PyObject *>(<DictCore>mapping).tiers, <PyObject *>(<DictCore>mapping)._settings
    member[2], member[3] = <PyObject *>(<DictCore>mapping)._reference, <PyObject *>(<DictCore>mapping)._watch
    member[4], member[5] = <PyObject *>(<DictCore>mapping)._journal, <PyObject *>(<DictCore>mapping)._regrowth
    for index in range(6):
        if member[index] is not NULL and visit(member[index], arg): return 1
    if (<DictCore>mapping).ledger is None:  # it is being made
        return 0
    return sa_dict_visit(mapping, &(<DictCore>mapping).ledger.policy, (<DictCore>mapping).ledger.entry_count,
                         &(<DictCore>mapping).holds_containers, visit, arg)


sa_install_slots(<PyTypeObject *>DictCore, <PyTypeObject *>Cell, traverse)
