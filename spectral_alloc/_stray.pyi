from typing import Any, Final

from spectral_alloc._cell import Cell

UNKNOWN_KEY: Final[Any]

def value_of_stray(cell: Cell) -> Any: ...
