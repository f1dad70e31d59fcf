"""A durable dict beside a plain one on a disk that may lose power at any operation, and what may be found afterwards.

Words: a *moment* is the plain dict's contents after an operation; *promised* is the last moment that a durability
promise covered. What a reopened dict may be: the keys and their order of one moment since the promise, each with a
value that it had between its last write (or the last sync) and that moment: an edit in place may be missing until the
next sync().
"""

import random
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from simulated import ROOT, SimulatedClock, SimulatedFileSystem

from spectral_alloc import ThermalDict

PATH = ROOT + "/d"
KEYS = st.sampled_from([f"k{number}" for number in range(10)] + [7, (1, "x")])
VALUES = st.one_of(
    st.integers(0, 99),
    st.text("ab", max_size=6),
    st.integers(0, 60).map(lambda count: [count] * count),
)
OPERATIONS = st.one_of(
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("edit"), KEYS, st.integers(0, 99)),
    st.tuples(st.just("edit"), KEYS, st.integers(0, 99)),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("sync")),
    st.tuples(st.just("transaction"), st.lists(st.tuples(KEYS, VALUES), max_size=4)),
    st.tuples(st.just("failing transaction"), st.lists(st.tuples(KEYS, VALUES), max_size=4)),
    st.tuples(st.just("time")),
    st.tuples(st.sampled_from(["compact", "seal", "reopen", "clear", "sync", "time", "time"])),
)

Moment = list[tuple[Any, Any]]


def copied(value: Any) -> Any:
    """A list of its own."""
    return list(value) if isinstance(value, list) else value


class Bench:
    """One dict, its model, and its history.

    Parameters: disk, settings (of ThermalDict.open). ``on_operation`` is called before each operation of the disk.
    """

    def __init__(self, disk: SimulatedFileSystem, **settings: Any) -> None:
        self.disk = disk
        self.clock = SimulatedClock()
        given = {"durability": "none", "memory_limit": 6000, "segment_bytes": 1500}
        self.settings: dict[str, Any] = given | settings | {"file_system": disk, "clock": self.clock}
        self.moments: list[Moment] = [[]]
        self.written: list[dict[Any, int]] = [{}]
        self.promised = self.synced = 0
        self.subject: ThermalDict[Any, Any] = ThermalDict.open(PATH, **self.settings)
        self.model: dict[Any, Any] = dict(self.subject)
        self.note({})

    def note(self, writes: dict[Any, int]) -> None:
        """The model has changed."""
        self.moments.append([(key, copied(value)) for key, value in self.model.items()])
        self.written.append(self.written[-1] | writes)

    def run(self, operation: tuple[Any, ...]) -> None:
        """Do one operation to both; the moment after it is noted before the dict may have settled it."""
        name, *arguments = operation
        first = len(self.moments)
        done = getattr(self, "do_" + name.replace(" ", "_"))(*arguments)
        now = len(self.moments) - 1
        if done:
            self.synced = now
        is_write = name in ("set", "delete", "clear") and now >= first
        if done or name == "transaction" or (self.settings["durability"] == "always" and is_write):
            self.promised = now

    def expect(self, key: Any = None) -> None:
        """The model is what the dict will be."""
        self.note({} if key is None else {key: len(self.moments)})

    def do_set(self, key: Any, value: Any) -> bool:
        """d[key] = value"""
        self.model[key] = copied(value)
        self.expect(key)
        self.subject[key] = copied(value)
        return False

    def do_delete(self, key: Any) -> bool:
        """del d[key]"""
        if key in self.model:
            del self.model[key]
            self.expect(key)
            del self.subject[key]
        return False

    def do_edit(self, key: Any, number: int) -> bool:
        """d[key].append(number)"""
        value = self.subject.get(key)
        if isinstance(value, list):
            self.model[key].append(number)
            self.expect()
            value.append(number)
            return False
        return False

    def do_get(self, key: Any) -> bool:
        """d.get(key)"""
        assert self.subject.get(key) == self.model.get(key)
        return False

    def do_sync(self) -> bool:
        """d.sync()"""
        self.subject.sync()
        return True

    def do_transaction(self, items: list[tuple[Any, Any]]) -> bool:
        """Several writes as one."""
        for key, value in items:
            self.model[key] = copied(value)
        self.note({key: len(self.moments) for key, _ in items})
        with self.subject.transaction():
            for key, value in items:
                self.subject[key] = copied(value)
        return False

    def do_failing_transaction(self, items: list[tuple[Any, Any]]) -> bool:
        """Several writes that are undone."""
        try:
            with self.subject.transaction():
                for key, value in items:
                    self.subject[key] = copied(value)
                raise KeyError("undo")
        except KeyError:
            pass
        return False

    def do_time(self) -> bool:
        """Two seconds pass."""
        self.clock.now += 2.0
        return False

    def do_clear(self) -> bool:
        """d.clear()"""
        self.model.clear()
        self.note(dict.fromkeys(self.written[-1], len(self.moments)))
        self.subject.clear()
        return False

    def do_seal(self) -> bool:
        """End the segment, which writes its hint file."""
        self.subject._journal.log.seal()
        return False

    def do_compact(self) -> bool:
        """Move everything that is live."""
        journal = self.subject._journal
        journal.commit()
        journal.log.seal()
        numbers = {segment.number for segment in journal.log.log_segments}
        self.subject._tiers.compact_segments(self.subject, numbers)
        return False

    def do_reopen(self) -> bool:
        """Close, and open again."""
        self.subject.close()
        self.promised = self.synced = len(self.moments) - 1
        self.subject = ThermalDict.open(PATH, **self.settings)
        assert list(self.subject.items()) == list(self.model.items())
        return True

    @property
    def where(self) -> tuple[int, int, int]:
        """The last moment whose writes are promised, the last whose edits in place are, and the last of all."""
        return self.promised, self.synced, len(self.moments) - 1

    def may_be(self, found: Moment, promised: int, synced: int, now: int) -> bool:
        """Is this what may be found when the power went at ``where``?"""
        return any(self._fits(found, at, synced) for at in range(now, promised - 1, -1))

    def _fits(self, found: Moment, at: int, synced: int) -> bool:
        if [key for key, _ in found] != [key for key, _ in self.moments[at]]:
            return False
        return all(self._had(key, value, at, synced) for key, value in found)

    def _had(self, key: Any, value: Any, at: int, synced: int) -> bool:
        since = min(max(self.written[at].get(key, 0), synced), at)
        values = (dict(self.moments[moment]).get(key) for moment in range(since, at + 1))
        return any(type(value) is type(own) and value == own for own in values)

    def found_on(self, disk: SimulatedFileSystem) -> Moment:
        """What a dict that is opened on a disk has."""
        settings = self.settings | {"file_system": disk, "memory_limit": None}
        subject = ThermalDict.open(PATH, **settings)
        try:
            subject.check()
            return [(key, copied(value)) for key, value in subject.items()]
        finally:
            subject.close()


class Witness(SimulatedFileSystem):
    """A disk that keeps what would be left if the power went at each of its operations."""

    def __init__(self, chance: random.Random, every: int = 1) -> None:
        super().__init__()
        self.chance, self.every = chance, every
        self.left: list[tuple[SimulatedFileSystem, int, int, int]] = []
        self.where: Callable[[], tuple[int, int, int]] | None = None

    def _step(self) -> None:
        super()._step()
        if self.where is not None and self.count % self.every == 0:
            self.left.append((self.survivor(self.chance), *self.where()))
