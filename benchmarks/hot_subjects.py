"""The containers that hot.py compares: each as a mapping with room for everything, and the operations that it has.

An operation is a function that runs it over all keys ``rounds`` times, written with the container's natural call, so
that a subscript stays a subscript and a method a method bound once. ``LOOPS`` says which empty loop is its overhead.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

Operation = Callable[[], object]


@dataclass(frozen=True)
class Subject:
    """One container: the package that it is in, a maker (given the room that it needs), and how it is used.

    ``calls`` is "subscript" for mappings, and "methods" for caches that only have get and set; ``is_slow`` if an
    operation takes ten times as long as dict's.
    """

    package: str | None
    make: Callable[[int], Any]
    calls: str = "subscript"
    is_slow: bool = False

    @property
    def is_installed(self) -> bool:
        """Whether its package is there."""
        try:
            return self.package is None or bool(version(self.package))
        except PackageNotFoundError:
            return False

    def filled(self, items: Iterable[tuple[object, object]], room: int) -> Any:
        """A container with these items."""
        container = self.make(room)
        if self.calls == "methods":
            for key, value in items:
                container.set(key, value)
        else:
            for key, value in items:
                container[key] = value
        return container


def make_thermal(_room: int) -> Any:
    from spectral_alloc import ThermalDict

    return ThermalDict()


def make_lru_dict(room: int) -> Any:
    import lru

    return lru.LRU(room)


def make_cachebox(room: int) -> Any:
    import cachebox

    return cachebox.LRUCache(room)


def make_cachetools(room: int) -> Any:
    import cachetools

    return cachetools.LRUCache(room)


def make_theine(room: int) -> Any:
    import theine

    return theine.Cache(room)


def make_moka(room: int) -> Any:
    import moka_py

    return moka_py.Moka(room)


def make_zict(room: int) -> Any:
    import zict

    return zict.LRU(room, {})


SUBJECTS = {
    "dict": Subject(None, lambda _room: {}),
    "thermal": Subject(None, make_thermal),
    "lru-dict": Subject("lru-dict", make_lru_dict),
    "cachebox": Subject("cachebox", make_cachebox),
    "cachetools": Subject("cachetools", make_cachetools, is_slow=True),
    "theine": Subject("theine", make_theine, "methods", is_slow=True),
    "moka-py": Subject("moka-py", make_moka, "methods", is_slow=True),
    "zict.LRU": Subject("zict", make_zict, is_slow=True),
}

# Caches whose shards fill unevenly evict early: room for four times the entries keeps all of them.
ROOM = 4


def empty_loops(keys: Sequence[object], rounds: int) -> dict[str, Operation]:
    """The loops without an operation in them; what they cost is subtracted."""

    def over_keys() -> None:
        for _ in range(rounds):
            for _key in keys:
                pass

    def nothing() -> None:
        pass

    return {"over keys": over_keys, "none": nothing}


def subscript_operations(subject: Subject, container: Any, keys: Sequence[object], rounds: int) -> dict[str, Operation]:
    """Reading and writing of a mapping."""

    def get() -> None:
        for _ in range(rounds):
            for key in keys:
                container[key]

    def overwrite() -> None:
        for _ in range(rounds):
            for key in keys:
                container[key] = "value"

    def insert() -> None:
        for _ in range(rounds):
            fresh = subject.make(ROOM * len(keys))
            for key in keys:
                fresh[key] = "value"

    return {"get": get, "overwrite": overwrite, "insert": insert}


def method_operations(subject: Subject, container: Any, keys: Sequence[object], rounds: int) -> dict[str, Operation]:
    """Reading and writing of a cache that is not a mapping."""
    find, put = container.get, container.set

    def get() -> None:
        for _ in range(rounds):
            for key in keys:
                find(key)

    def overwrite() -> None:
        for _ in range(rounds):
            for key in keys:
                put(key, "value")

    def insert() -> None:
        for _ in range(rounds):
            fresh = subject.make(ROOM * len(keys)).set
            for key in keys:
                fresh(key, "value")

    return {"get": get, "overwrite": overwrite, "insert": insert}


def questions(container: Any, keys: Sequence[object], rounds: int) -> dict[str, Operation]:
    """Membership and length."""

    def contains() -> None:
        for _ in range(rounds):
            for key in keys:
                key in container  # noqa: B015  # the look-up itself is measured

    def length() -> None:
        for _ in range(rounds):
            for _key in keys:
                len(container)

    return {"in": contains, "len": length}


def iterations(container: Any, rounds: int) -> dict[str, Operation]:
    """The three ways to go over a mapping."""

    def keys_of() -> None:
        for _ in range(rounds):
            for _key in container:
                pass

    def values_of() -> None:
        for _ in range(rounds):
            for _value in container.values():
                pass

    def items_of() -> None:
        for _ in range(rounds):
            for _item in container.items():
                pass

    return {"iterate": keys_of, "values()": values_of, "items()": items_of}


def many(container: Any, keys: Sequence[object], rounds: int) -> dict[str, Operation]:
    """One call for all keys, against as many gets whose values are collected too."""
    keys = list(keys)

    def get_many() -> None:
        for _ in range(rounds):
            container.get_many(keys)

    def gets() -> None:
        for _ in range(rounds):
            [container[key] for key in keys]

    return {"get_many": get_many, "as many gets": gets}


LOOPS = dict.fromkeys(("get", "overwrite", "insert", "in", "len"), "over keys")
NEEDED = {"in": "__contains__", "len": "__len__", "iterate": "__iter__", "values()": "values", "items()": "items"}


def operations(subject: Subject, container: Any, keys: Sequence[object], rounds: int) -> dict[str, Operation]:
    """Every operation that this container has."""
    own = method_operations if subject.calls == "methods" else subscript_operations
    found = own(subject, container, keys, rounds)
    found |= questions(container, keys, rounds) | iterations(container, rounds)
    if hasattr(container, "get_many"):
        found |= many(container, keys, rounds)
    return {name: run for name, run in found.items() if hasattr(container, NEEDED.get(name, "get"))}
