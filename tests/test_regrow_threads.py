"""Recipes and threads: one run for all who wait, errors for all who wait, no deadlock, no lost edit."""

import gc
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from regrow_recipes import REGROWN, Factory, record

from spectral_alloc import RegrowError, ThermalDict

PATIENCE_SECONDS = 60.0
READERS = 6

pytestmark = pytest.mark.usefixtures("many_switches")


def outcomes(*works: Callable[[], object]) -> list[Any]:
    """What each work, in a thread of its own, returned or raised; AssertionError if one hangs."""
    found: list[Any] = [None] * len(works)

    def run(number: int, work: Callable[[], object]) -> None:
        try:
            found[number] = work()
        except BaseException as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(works)]
    for thread in threads:
        thread.start()
    end_seconds = time.monotonic() + PATIENCE_SECONDS
    for thread in threads:
        thread.join(max(0.0, end_seconds - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "threads hang"
    return found


class Gate:
    """A recipe whose runs in threads wait until enough readers are there."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function, self.runs, self.is_shut = function, 0, False
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, key: Any) -> Any:
        if self.is_shut:
            self.runs += 1
            self.entered.set()
            assert self.opened.wait(PATIENCE_SECONDS)
        return self.function(key)

    def open_soon(self) -> None:
        """Let the runs go on when all others have had time to wait."""
        assert self.entered.wait(PATIENCE_SECONDS)
        time.sleep(0.2)
        self.opened.set()


@pytest.mark.parametrize("present", [True, False])
def test_concurrent_reads_run_the_recipe_once(tiny: Factory, present: bool) -> None:
    """Readers of one key, regrown or missing, share one run and, since the value is mutable, one object."""
    gate = Gate(record)
    d = tiny({1: record(1)} if present else {}, regrow=gate, regrow_always=True)
    if present:
        assert d.where(1) is REGROWN
    gate.is_shut = True
    found = outcomes(*[lambda: d[1]] * READERS, gate.open_soon)[:READERS]
    assert gate.runs == 1
    assert all(value is found[0] for value in found)
    assert found[0] == record(1)
    del found
    d.check()


@pytest.mark.parametrize("present", [True, False])
def test_an_exception_reaches_all_who_wait(tiny: Factory, present: bool) -> None:
    """One failing run fails every reader that waited for it; the key stays as it was, and later reads try again."""
    failing = [False]

    def function(key: int) -> Any:
        if failing[0]:
            raise OSError("out of order")
        return record(key)

    gate = Gate(function)
    d = tiny({1: record(1)} if present else {}, regrow=gate, regrow_always=True)
    if present:
        assert d.where(1) is REGROWN
    gate.is_shut = failing[0] = True
    found = outcomes(*[lambda: d[1]] * READERS, gate.open_soon)[:READERS]
    assert [str(error) for error in found] == ["out of order"] * READERS
    assert gate.runs == 1
    gate.is_shut = failing[0] = False
    assert (1 in d) is present
    assert d[1] == record(1)
    d.check()


def test_an_interrupt_is_not_handed_on(tiny: Factory) -> None:
    """KeyboardInterrupt in one reader's run is its own: of those who wait, the next one runs the recipe."""
    runs: list[int] = []

    def function(key: int) -> Any:
        runs.append(threading.get_ident())
        if len(runs) == 1:
            raise KeyboardInterrupt
        return record(key)

    gate = Gate(function)
    d = tiny(regrow=gate, regrow_always=True)
    d[1] = record(1)
    runs.append(0)
    assert d.where(1) is REGROWN
    runs.clear()
    gate.is_shut = True
    found = outcomes(*[lambda: d[1]] * READERS, gate.open_soon)[:READERS]
    assert sum(isinstance(one, KeyboardInterrupt) for one in found) == 1
    assert sum(isinstance(one, dict) for one in found) == READERS - 1
    assert len(runs) == 2
    del found
    d.check()


def test_a_slow_recipe_blocks_no_other_key(tiny: Factory) -> None:
    """While one key's recipe waits, other keys are read, regrown, written and deleted."""
    gate = Gate(record)
    d = tiny({key: record(key) for key in range(10)}, regrow=lambda key: gate(key) if key == 0 else record(key))
    assert d.stats().regrown_entries == 10
    gate.is_shut = True

    def others() -> None:
        assert gate.entered.wait(PATIENCE_SECONDS)
        assert [d[key] for key in range(1, 10)] == [record(key) for key in range(1, 10)]
        d[5] = "new"
        del d[6]
        d.stats()
        gate.opened.set()

    assert outcomes(lambda: d[0], others) == [record(0), None]
    d.check()


def test_recipes_that_need_each_other_do_not_deadlock(tiny: Factory) -> None:
    """Two recipes that read each other's key, begun in two threads at once: each thread runs what it needs itself."""
    for _ in range(20):
        d = tiny(regrow_always=True)
        depth = threading.local()
        reading: list[bool] = []

        def recipe(own: str, other: str, d: ThermalDict = d, depth: Any = depth, reading: Any = reading) -> list[str]:
            depth.now = getattr(depth, "now", 0) + 1
            try:
                if depth.now < 3 and reading:
                    d[other]
                return [own] * 40
            finally:
                depth.now -= 1

        for own, other in (("a", "b"), ("b", "a")):
            d[own] = [own] * 40
            d.regrow(own, recipe, own, other)
        assert d.stats().regrown_entries == 2
        reading.append(True)
        assert outcomes(lambda d=d: d["a"], lambda d=d: d["b"]) == [["a"] * 40, ["b"] * 40]
        d.check()


def test_a_finaliser_that_reads_the_dict_does_not_deadlock(tiny: Factory) -> None:
    """The collector may run a finaliser in the middle of a recipe's run, and that may read the same key."""

    class Reading:
        def __init__(self, d: ThermalDict) -> None:
            self.d, self.me = d, self

        def __del__(self) -> None:
            self.d.get(1)

    def recipe(key: int) -> Any:
        gc.collect()
        return record(key)

    d = tiny({1: record(1)}, regrow=recipe, regrow_always=True)
    assert d.where(1) is REGROWN
    for _ in range(10):
        Reading(d)
        assert outcomes(lambda: d[1]) == [record(1)]
    gc.collect()
    d.check()


@pytest.mark.parametrize("limit", [1, 40_000])
def test_races_lose_no_edit(tiny: Factory, limit: int, long_mode: bool) -> None:
    """Threads read, edit, overwrite, delete and register at once; each key ends as its own thread left it."""
    d = tiny(memory_limit=limit, regrow=lambda key: [key, "text" * 20], regrow_always=True)
    steps = 6000 if long_mode else 600

    def work(number: int) -> None:
        draw, model = random.Random(number), {}
        for step in range(steps):
            key = number * 100 + draw.randrange(6)
            other = draw.randrange(READERS) * 100 + draw.randrange(6)
            what = draw.randrange(7)
            if what == 0:
                d[key] = model[key] = [key, "text" * 20]
                model[key] = list(model[key])
            elif what == 1 and key in model:
                d[key].append(step)
                model[key].append(step)
            elif what == 2 and key in model:
                assert d.pop(key) == model.pop(key)
            elif what == 3:
                assert d[key] == model.setdefault(key, [key, "text" * 20])
            elif what == 4 and key in model:
                d.regrow(key, lambda key=key: [key, "text" * 20])
            elif what == 5:
                value = d.get(other)
                assert value is None or value[0] == other
            elif key in model:
                assert d.get(key) == model[key]
        for key, value in model.items():
            assert d[key] == value

    assert outcomes(*[lambda number=number: work(number) for number in range(READERS)]) == [None] * READERS
    d.check()


def test_a_lie_reaches_all_who_wait(tiny: Factory) -> None:
    """RegrowError is an exception like any other: every reader that waited gets it."""
    gate = Gate(lambda key: ["lie"] if gate.is_shut else [key] * 40)
    d = tiny({1: [1] * 40}, regrow=gate, regrow_always=True)
    assert d.where(1) is REGROWN
    gate.is_shut = True
    found = outcomes(*[lambda: d[1]] * READERS, gate.open_soon)[:READERS]
    assert [type(error) for error in found] == [RegrowError] * READERS
    gate.is_shut = False
    assert d[1] == [1] * 40
