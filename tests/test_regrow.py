"""Regrown values: what a recipe gives back is not kept, edits are, and lies are found out."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from regrow_recipes import REGROWN, Counted, Factory, Instance, all_regrown, record

from spectral_alloc import RegrowError, Residency

# leaving and coming back


def test_values_leave_without_a_trace_and_come_back(tiny: Factory) -> None:
    """With a recipe for all keys nothing is kept, in RAM or on disk, and every read gives the value."""
    d = tiny({key: record(key) for key in range(50)}, regrow=record)
    assert d.where(7) is REGROWN
    assert all_regrown(d)
    d.check()
    assert [d[key] for key in range(50)] == [record(key) for key in range(50)]
    assert (d.stats().hits_regrown, d.stats().regrown_entries) == (50, 50)
    d.check()


def test_a_recipe_for_one_key_gets_its_own_arguments(tiny: Factory) -> None:
    """d.regrow(key, function, *args) regrows that key from function(*args), and leaves the others alone."""
    recipe = Counted(lambda start, stop: list(range(start, stop)))
    d = tiny({"a": list(range(5, 90)), "b": list(range(100))})
    d["a"] = list(range(5, 90))
    d.regrow("a", recipe, 5, 90)
    assert recipe.calls == [], "a recipe runs only when the value leaves"
    d.promote("a")
    d.demote("a")
    assert (d.where("a"), d.where("b")) == (REGROWN, Residency.COLD)
    assert d["a"] == list(range(5, 90))
    assert set(recipe.calls) == {(5, 90)}
    d.check()


@pytest.mark.parametrize(
    "make",
    [
        lambda key: str(key) * 100,
        lambda key: (key, "x" * 50, (1.5, None)),
        lambda key: bytes(300),
        lambda key: {key, "a", (1, 2)},
        lambda key: np.arange(1000.0) + key,
        Instance,
        lambda key: [part := [key], part],
        lambda key: key + 10**30,
    ],
    ids=["str", "tuple", "bytes", "set", "array", "instance", "shared list", "int"],
)
def test_every_kind_of_value(tiny: Factory, make: Callable[[int], Any]) -> None:
    """Builtin values, arrays and instances regrow, with their types and sharing."""
    d = tiny(regrow=make, regrow_always=True)
    for key in range(5):
        d[key] = make(key)
    assert all_regrown(d)
    for key in range(5):
        own, expected = d[key], make(key)
        assert type(own) is type(expected)
        if isinstance(own, Instance):
            assert vars(own) == vars(expected)
        else:
            assert np.all(own == expected)
        if isinstance(own, list):
            assert own[0] is own[1]
    del own
    d.check()


def test_the_recipe_runs_once_for_many_departures(tiny: Factory) -> None:
    """An unchanged value that leaves again is known by its digest: only reads run the recipe."""
    recipe = Counted()
    d = tiny(regrow=recipe, regrow_always=True)
    d[1] = record(1)
    assert d.where(1) is REGROWN
    assert len(recipe.calls) == 1
    for reads in range(1, 6):
        assert d[1] == record(1)
        assert d.where(1) is REGROWN
        assert len(recipe.calls) == 1 + reads


def test_a_value_is_pinned_or_held_as_any_other(tiny: Factory) -> None:
    """What the program holds stays its object; it leaves for its recipe once it is let go."""
    d = tiny(regrow=record)
    held = d[1] = record(1)
    assert d.where(1) is Residency.HOT
    assert d[1] is held
    d.pin(2) if 2 in d else d.__setitem__(2, record(2))
    d.pin(2)
    del held
    d[3] = record(3)
    assert (d.where(1), d.where(2), d.where(3)) == (REGROWN, Residency.HOT, REGROWN)
    d.unpin(2)
    assert d.where(2) is REGROWN
    d.check()


# edits


def test_an_edit_is_never_lost(tiny: Factory) -> None:
    """A value that was edited in place, before or after it was regrown, is stored as any other."""
    d = tiny(regrow=record)
    d["early"] = record("early")
    value = d["early"]
    value["numbers"].append("edited")
    del value
    first = record("first")
    first["numbers"].append("other")
    d["first"] = first
    del first
    for key, last in (("early", "edited"), ("first", "other")):
        assert d.where(key) is Residency.COLD
        assert d[key]["numbers"][-1] == last
    assert d.stats().events["recipe mismatch"] >= 2
    d["early"]["numbers"].pop()
    assert d.where("early") in (REGROWN, Residency.COLD)
    assert d["early"] == record("early")
    d.check()


def test_an_overwritten_value_keeps_its_recipe_and_is_compared(tiny: Factory) -> None:
    """d[key] = other is stored; d[key] = the old value again needs no storing, and no run of the recipe."""
    recipe = Counted()
    d = tiny(regrow=recipe, regrow_always=True)
    d[1] = record(1)
    assert d.where(1) is REGROWN
    runs = len(recipe.calls)
    d[1] = [1, 2, 3]
    assert d.where(1) is Residency.COLD
    d[1] = record(1)
    assert d.where(1) is REGROWN
    assert len(recipe.calls) == runs
    assert d[1] == record(1)
    d.check()


def test_equal_strings_need_not_be_one(tiny: Factory) -> None:
    """Whether equal strings in a value are one object does not count: that is not preserved by any tier."""
    made = itertools.count()

    def recipe(key: str) -> list[str]:
        text = "a text of some length" + key
        return [text, text] if next(made) % 2 else [text, "a text of some length" + key]

    d = tiny(regrow=recipe, regrow_always=True)
    d["k"] = recipe("k")
    for _ in range(4):
        assert d.where("k") is REGROWN
        assert d["k"] == recipe("k")


def test_a_long_string_a_million_times_is_compared_in_bounded_memory(tiny: Factory) -> None:
    """A small graph whose content would be endless is compared by its sharing instead."""
    text = "x" * 100_000
    d = tiny(regrow=lambda key: [text] * 100_000, regrow_always=True)
    d[1] = [text] * 100_000
    assert len(d[1]) == 100_000
    d.check()


# lies and failures


def test_a_recipe_that_lies_from_the_beginning_is_not_used(tiny: Factory) -> None:
    """A recipe that gives something else at the first time is counted, and the value is kept."""
    number = itertools.count()
    d = tiny(regrow=lambda key: [next(number)] * 50, regrow_always=True)
    d["k"] = [99] * 50
    assert d.where("k") is Residency.COLD
    assert d.stats().events["recipe mismatch"] == 1
    assert d["k"] == [99] * 50


def test_a_recipe_that_lies_later_raises(tiny: Factory) -> None:
    """RegrowError names the key, the other keys stay readable, and the key may be deleted or set again."""
    truth = [True]
    d = tiny({key: [key] * 50 for key in "ab"}, regrow=lambda key: [key if truth[0] else "lie"] * 50)
    assert all_regrown(d)
    truth[0] = False
    with pytest.raises(RegrowError, match="'a'") as caught:
        d["a"]
    assert caught.value.key == "a"
    assert isinstance(caught.value, ValueError)
    for operation in (lambda: d.get("a"), lambda: d.pop("a"), lambda: list(d.values()), lambda: d == dict(d.items())):
        with pytest.raises(RegrowError):
            operation()
    assert "a" in d
    truth[0] = True
    assert d["a"] == ["a"] * 50
    truth[0] = False
    del d["a"]
    d["b"] = "new"
    assert list(d.items()) == [("b", "new")]
    d.check()


def test_what_a_recipe_raises_reaches_the_reader_and_the_key_stays(tiny: Factory) -> None:
    """The recipe's own exception comes out; a later read tries again. KeyError would say the key is absent."""
    failure: list[Exception | None] = [None]

    def recipe(key: Any) -> Any:
        if failure[0] is not None:
            raise failure[0]
        return record(key)

    d = tiny({1: record(1)}, regrow=recipe)
    assert d.where(1) is REGROWN
    failure[0] = OSError("no network")
    with pytest.raises(OSError, match="no network"):
        d[1]
    failure[0] = KeyError(1)
    with pytest.raises(RegrowError, match="found no value"):
        d.get(1)
    failure[0] = None
    assert d[1] == record(1)
    failure[0] = OSError("again")
    d[2] = record(2)
    assert d.where(2) is Residency.COLD
    assert d[2] == record(2)
    assert d.stats().events["recipe failed"] >= 1
    d.check()


def test_keyboard_interrupt_in_a_recipe_loses_nothing(tiny: Factory) -> None:
    """Ctrl-C inside a trial or a read leaves the value where it was."""
    interrupting = [True]

    def recipe(key: Any) -> Any:
        if interrupting[0]:
            raise KeyboardInterrupt
        return record(key)

    d = tiny(regrow=recipe)
    d[1] = record(1)
    with pytest.raises(KeyboardInterrupt):
        d.where(1)
    interrupting[0] = False
    d.check()
    assert d[1] == record(1)
    assert d.where(1) is REGROWN
    interrupting[0] = True
    with pytest.raises(KeyboardInterrupt):
        d[1]
    interrupting[0] = False
    assert d[1] == record(1)
    d.check()


def test_a_recipe_may_use_the_dict(tiny: Factory) -> None:
    """A recipe that reads and writes other keys, even through other recipes, works at any depth."""
    d = tiny(regrow_always=True)

    def recipe(number: int) -> list[int]:
        d["last"] = number
        return [number, *d[number - 1][:20]] if number else [0]

    for number in range(30):
        d[number] = recipe(number)
        d.regrow(number, recipe, number)
    for number in range(30):
        d.promote(number)
        d.demote(number)
    assert d.where(29) is REGROWN
    assert [d[number][0] for number in range(30)] == list(range(30))
    d.check()


def test_a_recipe_that_uses_its_own_entry_calls_the_departure_off(tiny: Factory) -> None:
    """An edit that the recipe makes to the very value that is leaving is not lost."""
    d = tiny(regrow_always=True)
    edits: list[int] = []

    def recipe() -> list[int]:
        if "k" in d and not edits:
            edits.append(1)
            d["k"].append(77)
        return [1] * 40

    d["k"] = [1] * 40
    d.regrow("k", recipe)
    d.promote("k")
    d.demote("k")
    assert d["k"] == [1] * 40 + [77]
    d.check()


def test_a_recipe_that_deletes_or_replaces_its_entry(tiny: Factory) -> None:
    """User code may do anything to the entry in the middle of its departure."""
    d = tiny(regrow_always=True)

    def deleting() -> list[int]:
        d.pop("gone", None)
        return [1] * 40

    def replacing() -> list[int]:
        d["other"] = [2] * 40
        return [1] * 40

    d.update(gone=[1] * 40, other=[1] * 40)
    d.regrow("gone", deleting)
    d.regrow("other", replacing)
    for key in ("gone", "other"):
        if key in d:
            d[key]
    d["more"] = [3]
    d.check()
    assert "gone" not in d
    assert d["other"] == [2] * 40


# measured cost


def test_a_recipe_dearer_than_a_disk_read_is_not_used(tiny: Factory) -> None:
    """The moving average of a function's runs decides; regrow_always overrides it."""
    d = tiny(regrow=lambda key: time.sleep(0.002) or record(key))
    for key in range(20):
        d[key] = record(key)
    assert d.stats().regrown_entries == 0
    assert d.stats().events["recipe dearer than a read"] > 10
    assert d[3] == record(3)
    sure = tiny(regrow=lambda key: time.sleep(0.002) or record(key), regrow_always=True)
    sure[1] = record(1)
    assert sure.where(1) is REGROWN
