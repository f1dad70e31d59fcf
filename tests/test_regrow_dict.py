"""Regrown values in the life of a dict: missing keys, removals, views, copies, garbage, fork."""

import asyncio
import copy
import functools
import gc
import os
import pickle
import threading
import weakref
from collections import defaultdict
from typing import Any

import pytest
from regrow_recipes import REGROWN, Counted, Factory, all_regrown, record

from spectral_alloc import Residency, ThermalDict

# missing keys


def test_a_missing_key_is_made_and_inserted(tiny: Factory) -> None:
    """d[key] regrows an absent key as a defaultdict would; get, in and len do not see it."""
    d = tiny(regrow=record)
    assert (d.get(5), 5 in d, len(d)) == (None, False, 0)
    assert d[5] == record(5)
    assert (5 in d, list(d)) == (True, [5])
    d[5]["numbers"].append("kept")
    assert d[5]["numbers"][-1] == "kept"
    del d[5]
    assert d[5] == record(5)
    assert (d.pop(6, None), d.setdefault(7, "own")) == (None, "own")
    d.check()


def test_a_recipe_for_an_absent_key_waits_for_it(tiny: Factory) -> None:
    """d.regrow of an absent key gives its value when it is read, or stands for the value that is assigned."""
    recipe = Counted(lambda: list(range(60)))
    d = tiny(regrow_always=True)
    d.regrow("read", recipe)
    d.regrow("assigned", recipe)
    assert ("read" in d, d.get("read"), len(d)) == (False, None, 0)
    assert d["read"] == list(range(60))
    d["assigned"] = list(range(60))
    assert (d.where("read"), d.where("assigned")) == (REGROWN, REGROWN)
    with pytest.raises(KeyError):
        d["another"]
    del d["assigned"]
    with pytest.raises(KeyError):
        d["assigned"]
    d.check()


def test_a_recipe_that_knows_no_such_key(tiny: Factory) -> None:
    """KeyError from the recipe is KeyError of the key; then a subclass's __missing__ has its turn."""

    def recipe(key: str) -> str:
        return {"known": "value"}[key]

    d = tiny(regrow=recipe)
    with pytest.raises(KeyError, match="other") as caught:
        d["other"]
    assert isinstance(caught.value.__cause__, KeyError)

    class Falling(ThermalDict):
        def __missing__(self, key: str) -> str:
            return f"no {key}"

    with Falling.open(regrow=recipe) as falling:
        assert (falling["known"], falling["other"], list(falling)) == ("value", "no other", ["known"])
    with Falling.open() as plain:
        plain.regrow("one", lambda: 1)
        assert (plain["one"], plain["two"]) == (1, "no two")


def test_only_what_can_be_called_is_a_recipe(tiny: Factory) -> None:
    """Anything else is refused before something changed."""
    with pytest.raises(TypeError, match="callable"):
        ThermalDict.open(regrow=5)  # type: ignore[arg-type]
    d = tiny({1: 2})
    with pytest.raises(TypeError, match="callable"):
        d.regrow(1, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unhashable"):
        d.regrow([], record)


# the recipe's life


def test_del_takes_the_recipe_along(tiny: Factory) -> None:
    """A deleted key's own recipe is gone; a new value under the key is stored."""
    d = tiny(regrow_always=True)
    for how in (lambda: d.__delitem__("k"), lambda: d.pop("k"), d.popitem, d.clear):
        d["k"] = [1] * 50
        d.regrow("k", lambda: [1] * 50)
        d.promote("k")
        d.demote("k")
        assert d.where("k") is REGROWN
        how()
        assert "k" not in d
        d["k"] = [1] * 50
        assert d.where("k") is Residency.COLD
        del d["k"]
    assert d._regrowth is not None
    assert (d._regrowth.recipes, d._regrowth.keys, d._regrowth.recipe_list()) == ({}, {}, [])
    d.check()


def test_a_new_recipe_replaces_the_old_one(tiny: Factory) -> None:
    """The value comes back by the old recipe before the new one counts."""
    d = tiny(regrow_always=True)
    d["k"] = [1] * 50
    d.regrow("k", lambda: [1] * 50)
    d.promote("k")
    d.demote("k")
    assert d.where("k") is REGROWN
    d.regrow("k", lambda: [2] * 50)
    assert d["k"] == [1] * 50
    d.demote("k")
    assert d.where("k") is not REGROWN
    d.regrow("k", lambda: [1] * 50)
    d.promote("k")
    d.demote("k")
    assert d.where("k") is REGROWN
    d.check()


def test_a_warm_value_leaves_for_its_recipe_instead_of_the_disk() -> None:
    """WARM values with a recipe of their own are compared when they would be written."""
    with ThermalDict.open(regrow_always=True) as d:
        d.update(a=list(range(900)), b=list(range(900)), c=list(range(900)))
        for key in d:
            assert d.demote(key) is Residency.WARM
        d.regrow("a", lambda: list(range(900)))
        d.regrow("b", lambda: list(range(901)))
        assert [d.demote(key) for key in d] == [REGROWN, Residency.COLD, Residency.COLD]
        d.check()
        assert [d[key] == list(range(900)) for key in d] == [True] * 3


# all the other methods


def test_dict_methods_work_on_regrown_values(tiny: Factory) -> None:
    """Views, comparisons, unions, removals, get_many, prefetch and aget give the values."""
    model = {key: record(key) for key in range(12)}
    d = tiny({key: record(key) for key in range(12)}, regrow=record)
    assert all_regrown(d)
    assert list(d.values()) == list(model.values())
    assert list(d.items()) == list(model.items())
    assert list(reversed(d.values())) == list(reversed(model.values()))
    assert d == model
    assert model == d
    assert dict(d) == {**d} == model
    assert d | {"x": 1} == model | {"x": 1}
    assert d.get_many([3, 99, 4]) == [record(3), None, record(4)]
    assert d.prefetch([1, 2]).moved == 0
    assert asyncio.run(d.aget(3)) == record(3)
    assert asyncio.run(d.aget(77)) == record(77)
    assert d.pop(77) == record(77)
    assert d.setdefault(5) == record(5)
    assert d.popitem() == (11, record(11))
    assert d.pop(4) == record(4)
    del d[5]
    assert d.promote(6) is REGROWN, "no room to stay"
    assert repr(d) == repr({key: model[key] for key in (0, 1, 2, 3, 6, 7, 8, 9, 10)})
    assert sum(d.thermal_status().values()) == len(d) == 9
    d.check()


def test_moves_are_told(tiny: Factory) -> None:
    """on_move hears of values that leave for their recipes and come back."""
    d = tiny(regrow=record)
    seen: list[tuple[Any, Residency, Residency, str]] = []
    d.on_move(lambda move: seen.append((move.key, move.source, move.target, move.cause)))
    d[1] = record(1)
    assert d.where(1) is REGROWN
    assert d[1] == record(1)
    d["other"] = record("other")
    assert (1, Residency.HOT, REGROWN, "pressure") in seen
    assert (1, REGROWN, Residency.HOT, "read") in seen


def test_foreign_code_compares_regrown_values(tiny: Factory) -> None:
    """C code that compares the tables of two dicts finds the value of a regrown cell."""
    d = tiny({1: record(1)}, regrow=record)
    assert d.where(1) is REGROWN
    assert defaultdict(list, {1: record(1)}) == d
    assert dict.pop(d, 1) == record(1)
    dict.clear(d)
    d[1] = "other"
    assert d[1] == "other"
    d.check()


def test_copies_take_the_recipes_along(tiny: Factory) -> None:
    """copy, copy.copy, deepcopy and pickle give equal dicts with the same recipes."""
    d = tiny({key: record(key) for key in range(4)}, regrow=record, regrow_always=True)
    d.regrow(2, functools.partial(record, 2))
    d.regrow("absent", record, "absent")
    for made in (d.copy(), copy.copy(d), copy.deepcopy(d), pickle.loads(pickle.dumps(d))):
        assert made == d
        assert [key for key, _, _ in made._recipes()] == [2, "absent"]
        assert made[99] == record(99)
        assert made["absent"] == record("absent")
        made.check()
        made.close()
    assert "absent" not in d
    del made
    gc.collect()
    assert all_regrown(d)
    with ThermalDict.open(regrow=lambda key: key) as unnamed, pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(unnamed)


def test_a_closed_dict_refuses(tiny: Factory) -> None:
    """regrow of a closed dict raises ClosedError, which is a ValueError."""
    d = ThermalDict.open(regrow=record)
    d[1] = record(1)
    d.close()
    with pytest.raises(ValueError, match="closed"):
        d.regrow(1, record, 1)


def test_recipes_that_refer_to_the_dict_are_garbage_with_it() -> None:
    """A cycle of a dict and its recipe is found by the garbage collector."""

    class Watched(ThermalDict):
        pass

    for always in (False, True):
        d = Watched.open(memory_limit=1)
        d.regrow("k", functools.partial(lambda own: [len(own)] * 30, d))
        whole = Watched.open(memory_limit=1, regrow=lambda key, own=d: [key, own])
        d["k"], whole["k"] = [1] * 30 if always else "other", "v"
        references = [weakref.ref(d), weakref.ref(whole)]
        del d, whole
        gc.collect()
        assert [reference() for reference in references] == [None, None]


def test_a_child_process_regrows(tiny: Factory) -> None:
    """After fork the child reads regrown values, also when a thread of the parent was running a recipe."""
    going, finish = threading.Event(), threading.Event()
    parent = os.getpid()

    def recipe(key: int) -> Any:
        if key == 1 and threading.current_thread() is not threading.main_thread() and os.getpid() == parent:
            going.set()
            finish.wait(10)
        return record(key)

    d = tiny({key: record(key) for key in range(5)}, regrow=recipe, regrow_always=True)
    assert all_regrown(d)
    reader = threading.Thread(target=d.__getitem__, args=(1,))
    reader.start()
    assert going.wait(10)
    child = os.fork()
    if child == 0:
        try:
            d.check()
            os._exit(0 if [d[key] for key in range(5)] == [record(key) for key in range(5)] else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    finish.set()
    reader.join(10)
    d.check()


def test_the_ledger_counts_recipes() -> None:
    """Recipes for single keys are charged; a recipe for all keys costs a regrown entry nothing."""
    with ThermalDict.open(memory_limit=1) as single, ThermalDict.open(memory_limit=1, regrow=record) as whole:
        for key in range(3000):
            whole[key] = record(key)
            single.regrow(key, record, key)
            single[key] = record(key)
        assert all_regrown(single)
        assert all_regrown(whole)
        single._tiers._charge_buffers()
        whole._tiers._charge_buffers()
        assert single.stats().buffer_bytes > 3000 * 150
        assert whole._regrowth is not None
        assert whole._regrowth.keys == whole._regrowth.recipes == {}
        assert whole.stats().used_bytes < 3000 * 150
        for d in (single, whole):
            d.check()
