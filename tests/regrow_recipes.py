"""Recipes and values for the tests of regrown values."""

from collections.abc import Callable
from typing import Any

from spectral_alloc import Residency, ThermalDict

Factory = Callable[..., ThermalDict]
REGROWN = Residency.REGROWN


def record(key: Any) -> dict[str, Any]:
    """A value of builtin containers that is the same each time."""
    return {"key": key, "numbers": list(range(30)), "text": f"the text of {key!r}"}


class Counted:
    """A recipe that knows what it was called with."""

    def __init__(self, function: Callable[..., Any] = record) -> None:
        self.function = function
        self.calls: list[Any] = []

    def __call__(self, *args: Any) -> Any:
        self.calls.append(args[0] if len(args) == 1 else args)
        return self.function(*args)


class Instance:
    """A value that is not of a builtin type."""

    def __init__(self, number: int) -> None:
        self.number, self.items = number, [number]


def all_regrown(subject: ThermalDict) -> bool:
    """Is no value kept in any form?"""
    stats = subject.stats()
    bytes_kept = stats.warm_bytes + stats.hot_bytes + stats.disk_file_bytes
    return stats.regrown_entries == len(subject) and bytes_kept == 0


def words(key: Any) -> list[str]:
    """A recipe that a durable dict can name."""
    return [f"the words of {key}", *("some more text" for _ in range(9))]


def other_words(key: Any) -> list[str]:
    """What the recipe of that name became in another release."""
    return words(key)[::-1]


def mixed(key: int) -> Any:
    """Values of many kinds, one of them a set of strings."""
    text = f"text {key}"
    return [text, [text, text], {text: (1.5, -0.0)}, {text, "a", "b", "c"}, (b"x" * key, 2**80), text * 40][key % 6]


def sums(numbers: Any, count: int) -> list[float]:
    """A recipe with an array among its arguments."""
    return [float(numbers[start::count].sum()) for start in range(count)]
