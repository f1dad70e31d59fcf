"""Reading ahead, and beside an event loop: the methods of ThermalDict, and what prefetch returns."""

import asyncio
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from spectral_alloc import _census
from spectral_alloc.residency import RESIDENCY_OF_STATE, Residency

if TYPE_CHECKING:
    from spectral_alloc._cell import Cell
    from spectral_alloc._regrow import Regrowth
    from spectral_alloc.tiers import Tiers

__all__ = ["Prefetch", "PrefetchingMethods"]

K = TypeVar("K")
V = TypeVar("V")

_ABSENT: Any = object()


class Prefetch:
    """A prefetch that has run, or that runs beside an event loop: ``await`` it for the number of values moved.

    Threads: await it on the loop that it was made on.
    """

    def __init__(self, moved: "int | asyncio.Future[int]") -> None:
        self._moved = moved

    @property
    def moved(self) -> int:
        """The number of values that were brought into RAM; asyncio.InvalidStateError before the prefetch has run."""
        return self._moved if isinstance(self._moved, int) else self._moved.result()

    def __await__(self) -> Generator[Any, None, int]:
        if isinstance(self._moved, int):
            return self._moved
        return (yield from self._moved)

    def __repr__(self) -> str:
        if isinstance(self._moved, int) or self._moved.done():
            return f"Prefetch(moved={self.moved})"
        return "Prefetch(running)"


class PrefetchingMethods(Generic[K, V]):
    """Added to ThermalDict, which has the rest."""

    __slots__ = ()

    if TYPE_CHECKING:
        _regrowth: Regrowth | None

        @property
        def _tiers(self) -> Tiers: ...
        def _find(self, key: object) -> Cell | None: ...
        def __contains__(self, key: object) -> bool: ...
        def __getitem__(self, key: K) -> V: ...
        def get(self, key: K, default: Any = None) -> Any: ...

    def prefetch(self, keys: Iterable[K]) -> Prefetch:
        """Bring values of ``keys`` that are on disk into compressed RAM, as far as there is room.

        Returns: a Prefetch; on a running event loop the work is done in a thread, ``await`` it there.
        Cost: one disk read per value, in the order on disk. Threads: safe.
        """
        wanted = list(keys)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return Prefetch(self._tiers.prefetch(self, wanted))  # type: ignore[arg-type]  # self is a ThermalDict
        return Prefetch(loop.run_in_executor(None, self._tiers.prefetch, self, wanted))  # type: ignore[arg-type]

    async def aget(self, key: K, default: Any = _ABSENT) -> V:
        """Return the value of ``key`` without blocking the event loop when it must be read, decoded or regrown.

        Raises: KeyError if the key is absent and no default is given.

        >>> import asyncio; from spectral_alloc import ThermalDict
        >>> asyncio.run(ThermalDict(a=1).aget("a"))
        1
        """
        if key not in self and default is not _ABSENT:
            return default  # type: ignore[no-any-return]  # the caller's own type
        if self._is_live(key) if key in self else self._regrowth is None:
            return self[key]
        loop = asyncio.get_running_loop()
        if default is not _ABSENT:
            return await loop.run_in_executor(None, self.get, key, default)
        return await loop.run_in_executor(None, self.__getitem__, key)

    def _is_live(self, key: K) -> bool:
        """Is the value a live object? (Unlike where(), this never makes room first, which could take a while.)"""
        cell = self._find(key)
        return cell is None or RESIDENCY_OF_STATE[_census.state_of(cell)] is Residency.HOT
