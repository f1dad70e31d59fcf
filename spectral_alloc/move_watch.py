"""Callbacks that hear of every move between tiers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectral_alloc._iteration import all_cells
from spectral_alloc.residency import RESIDENCY_OF_STATE, Residency

if TYPE_CHECKING:
    from spectral_alloc._cell import Cell
    from spectral_alloc._thermal import DictCore

__all__ = ["Move", "MoveWatch"]


@dataclass(frozen=True)
class Move:
    """One move of one value: ``cause`` is "pressure", "read", "write" or "prefetch"."""

    key: Any
    source: Residency
    target: Residency
    cause: str


class MoveWatch:
    """The callbacks of one container, and the keys of its cells while there is at least one callback.

    Cost: a dict entry per key while somebody listens. Threads: callbacks run outside all locks, in the thread whose
    call came next after the move.
    """

    def __init__(self) -> None:
        self.callbacks: list[Callable[[Move], None]] = []
        self._keys: dict[int, Any] = {}

    def tell(self, core: "DictCore[Any, Any]", moves: "list[tuple[Cell, str, str, str]]") -> None:
        """Call every callback with every move whose entry still exists."""
        are_new = False
        for cell, source, target, cause in moves:
            if not self._has_key_of(core, cell):
                if are_new:
                    continue  # deleted since
                self._keys, are_new = {id(cell): key for key, cell in all_cells(core)}, True
                if not self._has_key_of(core, cell):
                    continue
            move = Move(self._keys[id(cell)], RESIDENCY_OF_STATE[source], RESIDENCY_OF_STATE[target], cause)
            for callback in tuple(self.callbacks):
                callback(move)

    def _has_key_of(self, core: "DictCore[Any, Any]", cell: "Cell") -> bool:
        """Is the key of a cell known? That of one that ended before, and was at this address, is not its own."""
        try:
            return id(cell) in self._keys and core._find(self._keys[id(cell)]) is cell
        except KeyError:
            return False
