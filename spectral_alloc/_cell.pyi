from collections.abc import Callable
from typing import Final

CELL_BYTES: Final[int]
STATE_NAMES: Final[dict[int, str]]
LEGAL_MOVES: Final[frozenset[tuple[str, str]]]

class EntryGone(KeyError): ...

class Cell: ...

class Budget:
    def __init__(self, limit_bytes: int, parent: Budget | None = None) -> None: ...
    @property
    def used_bytes(self) -> int: ...
    limit_bytes: int
    @property
    def parent(self) -> Budget | None: ...

def set_resolver(function: Callable[[Cell], object]) -> None: ...
