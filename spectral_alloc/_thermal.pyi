from collections.abc import Iterable
from typing import Any, TypeVar
from weakref import ref

from spectral_alloc._cell import Cell
from spectral_alloc._journal import JournalCore
from spectral_alloc._ledger import Ledger
from spectral_alloc._regrow import Regrowth
from spectral_alloc.move_watch import MoveWatch
from spectral_alloc.tiers import Settings, Tiers

K = TypeVar("K")
V = TypeVar("V")

class DictCore(dict[K, V]):
    _settings: Settings
    _reference: ref[Any]
    _journal: JournalCore | None
    _regrowth: Regrowth | None
    _watch: MoveWatch | None
    @property
    def _ledger(self) -> Ledger: ...
    @property
    def _tiers(self) -> Tiers: ...
    @property
    def _has_tiers(self) -> bool: ...
    def _adopt_tiers(self, tiers: Tiers) -> None: ...
    def _peek(self, key: object, default: Any) -> Any: ...
    def _find(self, key: object) -> Cell | None: ...
    def _settle(self) -> None: ...
    def _pop_last(self) -> Any: ...
    def _sweep(self, cells: int) -> None: ...
    def get_many(self, keys: Iterable[K], default: Any = None) -> list[Any]:
        """Return the list of values for ``keys``, ``default`` where a key is absent."""
