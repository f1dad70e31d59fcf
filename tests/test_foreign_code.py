"""What a program's own classes, keys, hooks and threads do in the middle of a call breaks nothing and loses nothing."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from racing import race

import spectral_alloc
from spectral_alloc import ClosedError, Residency, SpectralMemory, ThermalDict, register_type


class Restored:
    """A value whose way back into memory runs code of the program."""

    def __init__(self, number: int) -> None:
        self.number = number


class Grudge(type):
    """The class of classes that are equal to all others, or use a dict when they are compared."""

    hook: Any = None

    def __eq__(cls, other: object) -> bool:
        if Grudge.hook is not None:
            hook, Grudge.hook = Grudge.hook, None
            hook()
        return True

    __hash__ = type.__hash__


class Basket(metaclass=Grudge):
    """A value of such a class."""

    def __init__(self) -> None:
        self.items: list[str] = []


class Fickle:
    """A key whose hash changes."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return self.number


class Nosy:
    """A key that runs code of the program at the comparison that is counted down to."""

    left = 0
    hook: Any = None

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        Nosy.left -= 1
        if Nosy.left == 0:
            Nosy.hook()
        return isinstance(other, Nosy)


class Slow:
    """An attribute whose end takes a while, in which other threads run."""

    def __del__(self) -> None:
        for _ in range(300):
            pass


@pytest.fixture
def many_limits() -> Iterator[None]:
    """The process's limit is the default again afterwards."""
    yield
    spectral_alloc.set_memory_limit(None)


def test_a_key_outlives_the_load_of_its_value() -> None:
    """A restore function that empties the dict in the middle of items() leaves the key of the pair as it was."""
    junk: list[bytes] = []

    def restore(number: int) -> Restored:
        subject.clear()
        junk.extend(bytes(50 + size % 3) for size in range(1000))
        return Restored(number)

    register_type(Restored, reduce=lambda value: value.number, restore=restore, size=100_000)
    with ThermalDict.open(memory_limit=1) as subject:
        name = "".join(["key-", str(len(junk) + 1)])
        subject[name] = Restored(5)
        del name
        subject["other"] = [1]
        assert subject.where("key-1") is Residency.COLD
        key, value = next(iter(subject.items()))
        assert key == "key-1"
        assert value.number == 5


def test_classes_are_told_apart_by_identity() -> None:
    """A value whose class claims to equal str, or uses the dict when it is compared, is kept as what it is."""
    with ThermalDict.open(memory_limit=1) as subject:
        subject["basket"] = Basket()
        subject.update((number, [number]) for number in range(5))
        assert subject.where("basket") is Residency.COLD
        Grudge.hook = lambda: subject["basket"]
        subject["basket"].items.append("edit")
        Grudge.hook = None
        subject.demote("basket")
        assert subject["basket"].items == ["edit"]
        subject.check()


def test_popitem_finds_a_key_whose_hash_has_changed() -> None:
    """popitem takes the last entry by its place, as dict does, and calls no method of a subclass."""

    class Stubborn(ThermalDict[Any, Any]):
        def pop(self, key: object, *default: object) -> Any:
            raise AssertionError("dict does not call pop")

    key = Fickle(1)
    subject = Stubborn({"first": 1, key: "value"})
    key.number = 2
    assert subject.popitem() == (key, "value")
    assert subject.popitem() == ("first", 1)
    with pytest.raises(KeyError, match="dictionary is empty"):
        subject.popitem()
    subject.check()


def test_operators_call_no_update_of_a_subclass() -> None:
    """copy, | and |= do not call an overridden update, nor repr an overridden items: as dict."""

    class Own(ThermalDict[Any, Any]):
        def update(self, *args: Any, **named: Any) -> None:
            raise AssertionError("dict does not call update")

        def items(self) -> Any:
            raise AssertionError("dict does not call items")

    subject = Own(a=1)
    assert repr(subject | {"b": 2}) == "{'a': 1, 'b': 2}"
    assert subject.copy()["a"] == 1
    subject |= {"c": 3}
    assert subject["c"] == 3


def test_close_calls_no_hook_of_a_subclass() -> None:
    """Classes that want arguments for their subclasses, register or forbid them are closed as others are."""
    seen = []

    class Registered(ThermalDict[Any, Any]):
        def __init_subclass__(cls, *, tag: str, **named: Any) -> None:
            super().__init_subclass__(**named)
            seen.append(tag)

    class Tagged(Registered, tag="tagged"):
        pass

    subject = Tagged(a=[1])
    values, pairs = subject.values(), subject.items()
    subject.close()
    assert subject.closed
    assert seen == ["tagged"]
    for use in (lambda: list(values), lambda: 5 in values, lambda: list(pairs), lambda: ("a", [1]) in pairs):
        with pytest.raises(ClosedError):
            use()


@pytest.mark.usefixtures("many_switches", "many_limits")
@pytest.mark.parametrize("base", [ThermalDict, SpectralMemory])
def test_a_container_that_ends_is_reached_by_nobody(base: type) -> None:
    """While the attributes of a container go, and threads run in between, the governor does not find it any more."""

    class Subclass(base):  # type: ignore[misc]  # whichever
        pass

    stop = threading.Event()
    errors: list[BaseException] = []

    def guarded(work: Any) -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as error:
            errors.append(error)

    def make_and_drop() -> None:
        subject = Subclass()
        subject.extra = Slow()
        del subject

    def set_limits() -> None:
        spectral_alloc.set_memory_limit("300 MB")
        spectral_alloc.set_memory_limit("200 MB")

    race([lambda: guarded(make_and_drop)] * 2 + [lambda: guarded(set_limits)], stop)
    assert errors == []


def test_settings_of_a_durable_dict_need_a_path() -> None:
    """Without a path nothing is durable: settings that ask for it are refused, as is a path that names nothing."""
    for settings in ({"durability": "always"}, {"readonly": True}, {"key": "x" * 16}, {"interval_seconds": 5.0}):
        with pytest.raises(ValueError, match="need a path"):
            ThermalDict.open(**settings)
    with pytest.raises(ValueError, match="path must name a directory, not ''"):
        ThermalDict.open("")


def test_a_callback_is_checked_at_once() -> None:
    """on_move refuses what cannot be called when it is given, not when a value moves."""
    with pytest.raises(TypeError, match="callback must be callable, not 5"):
        ThermalDict().on_move(5)  # type: ignore[arg-type]  # the mistake


def test_moves_are_told_by_the_key_that_moved() -> None:
    """A new entry in the place of a deleted one is told of by its own key, and what a read moves is told at once."""
    with ThermalDict.open() as subject:
        told: list[tuple[object, str]] = []
        stop = subject.on_move(lambda move: told.append((move.key, move.target.name)))
        subject["old"] = [1] * 50
        subject.demote("old")
        del subject["old"]
        subject["new"] = [1] * 50
        subject.demote("new")
        assert subject["new"] == [1] * 50
        assert told == [("old", "WARM"), ("new", "WARM"), ("new", "HOT")]
        stop()
        stop()


def test_a_recipe_is_given_the_key_of_the_entry() -> None:
    """An equal key of another type finds a regrown value, whichever of the two the entry has."""
    with ThermalDict.open(memory_limit=0, regrow_always=True, regrow=lambda n: [n * k for k in range(100)]) as subject:
        subject[7] = [7 * k for k in range(100)]
        assert subject.where(7) is Residency.REGROWN
        assert subject[7.0] == [7 * k for k in range(100)]
        assert type(subject[7][1]) is int
        assert subject.where(7) is Residency.REGROWN
        assert subject.pop(numpy.int64(7))[99] == 693
        made = subject[numpy.int64(100)]
        del made
        assert subject.where(100) is Residency.REGROWN
        assert type(subject[100][1]) is numpy.int64


def test_a_durable_dict_overwrites_nothing_of_others(tmp_path: Path) -> None:
    """A directory with a file of the program's own called lock or heat is refused; it stays as it is."""
    for name in ("lock", "heat"):
        place = tmp_path / name
        place.mkdir()
        (place / name).write_text("precious text, not ours")
        with pytest.raises(ValueError, match="is not ours and would be overwritten"):
            ThermalDict.open(place)
        assert [(path.name, path.read_text()) for path in place.iterdir()] == [(name, "precious text, not ours")]
    torn = tmp_path / "torn"
    torn.mkdir()
    with pytest.raises(FileNotFoundError, match="no durable dict is kept here"):
        spectral_alloc.verify(torn)
    (torn / "lock").write_bytes(b"12345")
    with ThermalDict.open(torn) as subject:
        subject["a"] = 1


@pytest.mark.parametrize("comparison", range(1, 8))
def test_a_write_finds_its_entry_gone(tmp_path: Path, comparison: int) -> None:
    """A key that is deleted while a durable write of it compares keys has what was written, live and on disk."""
    with ThermalDict.open(tmp_path / "d", trust=True) as subject:
        subject[Nosy()] = ["old"]
    with ThermalDict.open(tmp_path / "d", trust=True) as subject:
        Nosy.hook = lambda: subject.pop(Nosy(), None)
        Nosy.left = comparison
        subject[Nosy()] = ["new"]
        Nosy.left = 0
        assert list(subject.values()) == [["new"]]
        subject.check()
    with ThermalDict.open(tmp_path / "d", trust=True) as subject:
        assert list(subject.values()) == [["new"]]
