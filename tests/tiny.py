"""A ThermalDict that keeps nothing: its limit is so small that every closed value leaves RAM at once."""

from collections.abc import Iterable
from typing import Any

from spectral_alloc import Residency, ThermalDict

TINY_LIMIT_BYTES = 1

SUBJECTS: dict[str, type[ThermalDict]] = {}


class Tiny(ThermalDict):
    """The limit is set in ``__new__``, so that it also holds in subclasses with an ``__init__`` of their own."""

    def __new__(cls, /, *args: Any, **kwargs: Any) -> "Tiny":
        self = super().__new__(cls, *args, **kwargs)
        self.memory_limit = TINY_LIMIT_BYTES
        return self

    # dict gives the base class here; CPython's suites ask for the class under test
    def copy(self) -> "Tiny":
        return Tiny(super().copy())

    def __or__(self, other: Any) -> Any:
        merged = super().__or__(other)
        return merged if merged is NotImplemented else Tiny(merged)

    def __ror__(self, other: Any) -> Any:
        merged = super().__ror__(other)
        return merged if merged is NotImplemented else Tiny(merged)


SUBJECTS["thermal"] = ThermalDict
SUBJECTS["tiny"] = Tiny


def assert_all_cold(subject: ThermalDict, keys: Iterable[object] | None = None) -> None:
    """Every value (or those of ``keys``) is on disk and not in RAM: a test about cold values is about cold values."""
    for key in list(subject) if keys is None else keys:
        assert subject.where(key) is Residency.COLD, f"{key!r} is {subject.where(key)}"


def assert_within_budget(subject: ThermalDict) -> None:
    """The ledger is within the limit, or no closed value is left in RAM: only held and pinned ones are."""
    stats = subject.stats()
    if stats.used_bytes <= stats.limit_bytes:
        return
    assert stats.hot_entries == stats.held_entries + stats.pinned_entries, stats
    assert stats.warm_entries == 0, stats
