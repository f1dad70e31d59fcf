from typing import Any, Final

from spectral_alloc._cell import Cell
from spectral_alloc._ledger import Ledger
from spectral_alloc._thermal import DictCore

UNKNOWN: Final[object]

class JournalEntry:
    key: Any
    cell: Cell | None
    place: int
    frame_bytes: int
    birth: int
    flat: bool
    is_recipe: bool
    in_flight: int
    @property
    def digest(self) -> bytes | None: ...

class JournalCore:
    entries: dict[int, JournalEntry]
    dirty: dict[JournalEntry, None]
    edited: dict[JournalEntry, None]
    doomed: dict[int, JournalEntry]
    parked: dict[int, int]
    is_eager: bool
    is_armed: bool
    is_strict: bool
    is_readonly: bool
    undo: dict[Any, Any] | None
    def _serve(self, ledger: Ledger) -> None: ...
    def own_key(self, core: DictCore[Any, Any], key: Any) -> Any: ...
    def entry_of(self, cell: Cell) -> JournalEntry | None: ...
    def adopt(self, cell: Cell, origin: tuple[Any, ...], digest: bytes) -> None: ...
    def let_go(self, cell: Cell) -> None: ...
    def touch(self, cell: Cell, key: Any) -> None: ...
    def is_clean(self, entry: JournalEntry) -> bool: ...
    def owns(self, cell: Cell | None, place: int) -> bool: ...
    def relocate(self, cell: Cell | None, place: int, new_place: int) -> bool: ...
    def gather(self, with_edited: bool) -> tuple[dict[JournalEntry, None], list[JournalEntry], list[Any]]: ...
    def give_back(self, taken: dict[JournalEntry, None]) -> int: ...
