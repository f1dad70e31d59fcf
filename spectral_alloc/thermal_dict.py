"""ThermalDict: a dict that outgrows RAM and stays a dict."""

import copyreg
import os
from collections.abc import Callable
from contextlib import suppress
from reprlib import recursive_repr
from statistics import quantiles
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

from spectral_alloc import _census, durable
from spectral_alloc._cell import Budget
from spectral_alloc._departure import review
from spectral_alloc._iteration import recall_departures
from spectral_alloc._ledger import Ledger
from spectral_alloc._thermal import DictCore
from spectral_alloc.clock import REAL_CLOCK, Clock
from spectral_alloc.closing import closed_class
from spectral_alloc.cold_store import ColdStore
from spectral_alloc.durable_methods import DurableMethods
from spectral_alloc.errors import ClosedError
from spectral_alloc.file_system import REAL_FILE_SYSTEM, FileSystem
from spectral_alloc.governor import governor
from spectral_alloc.move_watch import Move, MoveWatch
from spectral_alloc.prefetching import PrefetchingMethods
from spectral_alloc.regrow import RegrowMethods, checked_recipe
from spectral_alloc.residency import RESIDENCY_OF_STATE, Residency
from spectral_alloc.segments import SEGMENT_BYTES
from spectral_alloc.stats import ThermalStats
from spectral_alloc.tiers import Settings, Tiers
from spectral_alloc.units import parse_bytes
from spectral_alloc.views import ThermalItems, ThermalValues

__all__ = ["ThermalDict"]

K = TypeVar("K")
V = TypeVar("V")

_ABSENT: Any = object()
ALIASING = ("exact", "copy")


class ThermalDict(DictCore[K, V], PrefetchingMethods[K, V], RegrowMethods, DurableMethods):
    """A dict whose values move between live objects, compressed RAM and disk, so that it fits a memory limit.

    ``ThermalDict(...)`` takes exactly what ``dict(...)`` takes and shares the process's memory limit (set_memory_limit,
    by default half of what the process may use); ``ThermalDict.open(...)`` takes settings. It behaves as dict does:
    order, views, in-place edits of values, errors. What differs is time and memory; see docs/closure.md for the rule
    that keeps a value in memory while the program can still reach it.

    Cost: reading or overwriting a live value is a dict look-up and a few instructions; reading a compressed one takes
    microseconds, one on disk a read of its frame. Threads: any method from any thread.

    >>> from spectral_alloc import ThermalDict
    >>> d = ThermalDict.open(memory_limit="64 MB")
    >>> d["a"] = [1, 2]
    >>> d["a"].append(3)
    >>> d
    {'a': [1, 2, 3]}
    >>> d.close()
    """

    # Of this class and not of its base: weak references end before an attribute of a subclass does.
    __slots__ = ("__weakref__",)

    # construction ---------------------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: "str | os.PathLike[str] | None" = None,
        *,
        memory_limit: int | str | None = None,
        spill_dir: "str | os.PathLike[str] | None" = None,
        disk_limit: int | str | None = None,
        codec: str | None = None,
        regrow: Callable[[Any], Any] | None = None,
        regrow_always: bool = False,
        aliasing: str = "exact",
        durability: str = "none",
        interval_seconds: float = 1.0,
        key: bytes | str | None = None,
        trust: bool = False,
        readonly: bool = False,
        file_system: FileSystem = REAL_FILE_SYSTEM,
        clock: Clock = REAL_CLOCK,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Self:
        """Return a dict with settings of its own: an empty one, or with a ``path`` the durable one that is kept there.

        Parameters of a durable dict: ``path`` (a directory, made if need be), ``durability`` ("none", "interval" with
        ``interval_seconds``, "always"), ``key`` (at least 16 bytes: everything on disk is authenticated), ``trust``
        (values may be pickled: only you can write to the directory), ``readonly``; docs/durable.md explains them.

        Of all: ``memory_limit`` (bytes or text such as "1.5 GB" for values, keys and bookkeeping; None
        shares the process's limit), ``spill_dir`` (existing directory for a private directory of spill files; None
        for the system's temporary directory), ``disk_limit`` (bytes or text; None for no limit), ``codec`` ("raw",
        "lz4", "zstd" or None for automatic), ``aliasing`` ("exact", or "copy" if the program treats values as
        immutable: then a value may leave while the program still holds it), ``regrow`` (a pure function that gives the
        value of any key: docs/regrow.md) and ``regrow_always`` (even if that takes longer than a disk read). The others
        are for tests.
        Raises: ValueError or TypeError for a bad setting, FileNotFoundError, NotADirectoryError or PermissionError for
        a bad directory; each names what was given.
        Threads: safe.

        >>> from spectral_alloc import ThermalDict
        >>> with ThermalDict.open(memory_limit="1 MB") as d:
        ...     d["x"] = 1
        ...     d.memory_limit
        1000000
        """
        is_durable = durability != "none" or readonly or key is not None or interval_seconds != 1.0
        where = durable.checked_place(path, is_durable)
        if aliasing not in ALIASING:
            raise ValueError(f"aliasing must be one of {ALIASING}, not {aliasing!r}")
        settings = Settings(
            memory_limit_bytes=None if memory_limit is None else parse_bytes(memory_limit, "memory_limit"),
            spill_dir=os.fspath(spill_dir) if isinstance(spill_dir, os.PathLike) else spill_dir,
            disk_limit_bytes=None if disk_limit is None else parse_bytes(disk_limit, "disk_limit"),
            codec=None if codec == "safe" and path is not None else codec,
            aliasing=aliasing,
            file_system=file_system,
            regrow=None if regrow is None else checked_recipe(regrow),
            regrow_always=regrow_always,
        )
        made = cls.__new__(cls)
        if where is None:
            made._configure(settings, ColdStore(settings.spill_dir, settings.disk_limit_bytes, settings.file_system))
        else:
            made._configure(settings)
            durable_settings = durable.DurableSettings(
                where, durability, interval_seconds, key, trust, codec == "safe", readonly, clock, segment_bytes
            )
            durable.attach(made, settings, durable_settings)
        made.__init__()  # type: ignore[misc]  # a subclass's own constructor, after the settings are in force
        return made

    def _first_budget(self) -> Budget:
        """Called by the compiled constructor: the process's."""
        self._settings = Settings()
        return governor.budget

    def _enrol(self) -> None:
        """Called by the compiled constructor: register with the governor."""
        self._reference = governor.register(self)

    def _configure(self, settings: Settings, store: ColdStore | None = None) -> None:
        self._settings = settings
        if settings.memory_limit_bytes is not None:
            self._ledger.budget = governor.own_budget(settings.memory_limit_bytes)
        self._ledger.ignores_aliases = settings.aliasing == "copy"
        if settings.regrow is not None:
            self._grown()
        if store is not None:
            self._adopt_tiers(self._make_tiers(self._ledger, store))

    def _make_tiers(self, ledger: Ledger, store: ColdStore | None = None) -> Tiers:
        tiers = Tiers(ledger, self._settings, store)
        reference = self._reference
        tiers.on_backlog = lambda: governor.writer.submit(reference)
        tiers.core_of = reference
        tiers.on_pulse = governor.put_down_slack
        tiers.serve_recipes(self._regrowth)
        return tiers

    def _like(self) -> Self:
        """An empty dict of the same class with the same settings."""
        made = type(self).__new__(type(self))
        made._configure(self._settings)
        return made

    # dict -------------------------------------------------------------------------------------------------------------

    def items(self) -> ThermalItems[K, V]:  # type: ignore[override]  # dict's view type cannot be subclassed
        """Return a set-like view of the (key, value) pairs; a value is brought back when the iteration reaches it."""
        return ThermalItems(self)

    def values(self) -> ThermalValues[V]:  # type: ignore[override]  # dict's view type cannot be subclassed
        """Return a view of the values; a value is brought back when the iteration reaches it."""
        return ThermalValues(self)

    def popitem(self) -> tuple[K, V]:
        """Remove and return the last inserted (key, value) pair; KeyError if the dictionary is empty."""
        while dict.__len__(self):
            key, found = next(reversed(dict.items(self)))
            value = DictCore.pop(self, key, _ABSENT)
            if value is _ABSENT and next(reversed(dict.items(self)), (None, None))[1] is found:
                # Its key has another hash than when it came: only its place finds it.
                value = self._pop_last()
            if value is not _ABSENT:
                return key, value
        raise KeyError("popitem(): dictionary is empty")

    def copy(self) -> Self:
        """Return a shallow copy with the same settings; the two dicts share every value that can be edited in place."""
        made = self._like()
        DictCore.update(made, self)
        made._take_recipes(self._recipes())
        return made

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, dict):
            return NotImplemented
        made = self.copy()
        DictCore.update(made, other)
        return made

    def __ror__(self, other: Any) -> Any:
        if not isinstance(other, dict):
            return NotImplemented
        made = self._like()
        DictCore.update(made, other)
        DictCore.update(made, self)
        return made

    def __ior__(self, other: Any) -> Self:  # type: ignore[override]  # dict's overloads say less
        DictCore.update(self, other)  # as dict does it, not by a subclass's own
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, dict):
            return NotImplemented
        if len(self) != len(other):
            return False
        find = other._peek if isinstance(other, ThermalDict) else lambda key, default: dict.get(other, key, default)
        for key in list(self):
            own, its = self._peek(key, _ABSENT), find(key, _ABSENT)
            if own is not its and (own is _ABSENT or its is _ABSENT or not own == its):
                return False
        return True

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__ = None  # type: ignore[assignment]  # as dict

    @recursive_repr("{...}")
    def __repr__(self) -> str:
        return "{" + ", ".join(f"{key!r}: {value!r}" for key, value in ThermalItems(self)) + "}"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        settings = (*self._settings.pickled(), self._recipes())
        return _restore, (type(self), *settings), self.__getstate__(), None, iter(self.items())

    # where things are -----------------------------------------------------------------------------------------------

    def where(self, key: K) -> Residency:
        """Return where the value of ``key`` lives now, without counting an access.

        Raises: KeyError. Cost: a look-up, and what must leave first if the limit is exceeded. Threads: safe.

        >>> from spectral_alloc import ThermalDict
        >>> ThermalDict(a=1).where("a")
        <Residency.HOT: 'hot'>
        """
        self._settle()
        cell = self._find(key)
        return Residency.HOT if cell is None else RESIDENCY_OF_STATE[_census.state_of(cell)]

    def temperature(self, key: K) -> str:
        """Return "hot", "warm" or "cold": how much the entry is used, wherever its value lives.

        Raises: KeyError. Cost: a look-up. Threads: safe.

        >>> from spectral_alloc import ThermalDict
        >>> d = ThermalDict(a=1, b=2)
        >>> for _ in range(100): _ = d["a"]
        >>> d.temperature("a"), d.temperature("b")
        ('hot', 'cold')
        """
        cell = self._find(key)
        scale = self._ledger.heat_scale
        return scale.temperatures[0 if cell is None else _census.heat_of(self, cell)[1]]

    def thermal_status(self) -> dict[str, int]:
        """Return how many entries are hot, warm and cold by use: {"hot": n, "warm": n, "cold": n}.

        Cost: one cache line per entry. Threads: safe.

        >>> from spectral_alloc import ThermalDict
        >>> ThermalDict(a=1, b=2).thermal_status()
        {'hot': 0, 'warm': 0, 'cold': 2}
        """
        status = {"hot": 0, "warm": 0, "cold": 0}
        for temperature, count in zip(self._ledger.heat_scale.temperatures, _census.band_counts(self), strict=True):
            status[temperature] += count
        return status

    def stats(self) -> ThermalStats:
        """Return a snapshot of counts and sizes; prints well, and shows as a bar and a table in notebooks.

        Cost: one cache line per entry, and a walk of each value that was held at the last look. Threads: safe.

        >>> from spectral_alloc import ThermalDict
        >>> ThermalDict(a=1).stats().entries
        1
        """
        review(self._ledger, True)
        self._settle()
        tiers, scale = self._tiers, self._ledger.heat_scale
        bands = {gamma: count for gamma, count in zip(scale.gammas, _census.band_counts(self), strict=True) if count}
        reads = sorted(tiers.slow_read_seconds)
        cuts = quantiles(reads, n=100) if len(reads) > 1 else [sum(reads)] * 99
        return ThermalStats(
            **_census.numbers(self),
            temperatures=self.thermal_status(),
            bands=bands,
            mean_mismatch=_census.mean_mismatch(self),
            limit_bytes=self.memory_limit,
            disk_live_bytes=tiers.store.live_bytes,
            disk_dead_bytes=tiers.store.dead_bytes,
            disk_file_bytes=tiers.store.file_bytes,
            compression_ratio=tiers.codec.ratio,
            codecs=tiers.codec.stats(),
            events=tiers.events | (self._regrowth.events if self._regrowth is not None else {}),
            slow_read_p50_seconds=cuts[49],
            slow_read_p99_seconds=cuts[98],
        )

    def check(self) -> None:
        """Walk every invariant of the cells, queues, sums and files; AssertionError names a broken one.

        Cost: one cache line per entry, and more for the files. Threads: call it while no other thread uses the dict.

        >>> from spectral_alloc import ThermalDict
        >>> ThermalDict(a=1).check()
        """
        self._settle()
        _census.check(self)
        if self._has_tiers:
            self._tiers.store.check()

    # by hand --------------------------------------------------------------------------------------------------------

    @property
    def memory_limit(self) -> int:
        """The limit in bytes that this dict keeps to, its own or the process's; it may be set while running."""
        return self._ledger.budget.limit_bytes

    @memory_limit.setter
    def memory_limit(self, limit: int | str | None) -> None:
        limit_bytes = None if limit is None else parse_bytes(limit, "memory_limit")
        self._settings = self._settings.with_memory_limit(limit_bytes)
        self._ledger.budget = governor.budget if limit_bytes is None else governor.own_budget(limit_bytes)
        self._settle()

    def pin(self, key: K) -> None:
        """Keep the value of ``key`` live in memory until unpin(key) or del.

        Raises: KeyError. Threads: safe.

        >>> from spectral_alloc import ThermalDict
        >>> d = ThermalDict(a=[1])
        >>> d.pin("a"); d.stats().pinned
        {'pinned by the user': 1}
        >>> d.unpin("a"); d.stats().pinned
        {}
        """
        self._keep(key, True)

    def unpin(self, key: K) -> None:
        """Let the value of ``key`` leave memory again (see pin)."""
        self._keep(key, False)

    def _keep(self, key: K, kept: bool) -> None:
        cell = self._find(key)
        if cell is not None:
            value = self._tiers.load(cell, key, insist=True)
            self._ledger.keep(cell, kept)
            del value
        self._settle()

    def promote(self, key: K) -> Residency:
        """Make the value of ``key`` a live object, if there is room, and return where it is now. Raises: KeyError."""
        cell = self._find(key)
        if cell is not None:
            self._tiers.load(cell, key, insist=True)
        self._settle()
        return Residency.HOT if cell is None else RESIDENCY_OF_STATE[_census.state_of(cell)]

    def demote(self, key: K) -> Residency:
        """Move the value of ``key`` one tier down, if it can leave, and return where it is now. Raises: KeyError.

        >>> from spectral_alloc import ThermalDict
        >>> with ThermalDict.open() as d:
        ...     d["a"] = list(range(1000))
        ...     d.demote("a"), d.demote("a"), d["a"] == list(range(1000))
        (<Residency.WARM: 'warm'>, <Residency.COLD: 'cold'>, True)
        """
        cell = self._find(key)
        if cell is None:
            return Residency.HOT
        self._tiers.demote(cell)
        self._tell_moves()
        self._settle()
        return RESIDENCY_OF_STATE[_census.state_of(cell)]

    def on_move(self, callback: Callable[[Move], None]) -> Callable[[], None]:
        """Call ``callback(move)`` after every move of a value between tiers; returns a function that ends this.

        Threads: the callback runs outside all locks, in the thread whose call follows the move, and may use the dict.

        >>> from spectral_alloc import ThermalDict
        >>> d = ThermalDict(a=list(range(100)))
        >>> stop = d.on_move(lambda move: print(move.key, move.source.name, "->", move.target.name, move.cause))
        >>> _ = d.demote("a")
        a HOT -> WARM pressure
        >>> stop()
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {callback!r}")
        watch = self._watch or MoveWatch()
        self._watch = watch
        watch.callbacks.append(callback)
        self._ledger.watch(True)

        def stop() -> None:
            if callback in watch.callbacks:
                watch.callbacks.remove(callback)
            if not watch.callbacks:
                self._watch = None
                self._ledger.watch(False)

        return stop

    def _tell_moves(self) -> None:
        """Deliver recorded moves, if anybody listens."""
        moves = self._ledger.take_moves()
        if moves and self._watch is not None:
            self._watch.tell(self, moves)

    # life cycle -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of everything; a durable dict is settled first, the spill files of any other removed.

        Any later use raises ClosedError, closing again is fine.
        """
        if self._journal is not None:
            durable.detach(self)
        self.clear()
        if self._has_tiers:
            self._tiers.close()
        governor.withdraw(self._reference)
        self.__class__ = closed_class(type(self))

    @property
    def closed(self) -> bool:
        """Has close() been called?"""
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # for the governor -------------------------------------------------------------------------------------------------

    def _join(self, parent: Budget) -> None:
        """A process limit was set: a budget of our own now counts against it too."""
        budget = self._ledger.budget
        if budget is not parent and budget.parent is None:
            self._ledger.budget = Budget(budget.limit_bytes, parent)

    def _relieve_larger(self) -> None:
        governor.relieve_larger(self)

    def _relieve_others(self) -> None:
        governor.relieve_others(self)

    def _work(self) -> None:
        """A turn of the background writer."""
        with suppress(ClosedError):  # closed in the middle of the turn
            self._tiers.work(self)

    def _after_fork_in_child(self) -> None:
        recall_departures(self)
        if self._has_tiers:
            self._tiers.after_fork_in_child()


_AnyThermalDict: TypeAlias = ThermalDict[Any, Any]


def _restore(cls: type[_AnyThermalDict], *settings: Any) -> _AnyThermalDict:
    """Make the empty dict that a pickle or a copy is filled into: of Settings.pickled(), and single keys' recipes."""
    made: _AnyThermalDict = copyreg.__newobj__(cls)  # type: ignore[attr-defined]  # undocumented, but what pickle uses
    made._configure(Settings.restored(*settings[:-1]))
    made._take_recipes(settings[-1])
    return made
