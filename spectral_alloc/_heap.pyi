"""Types of the compiled seam; behaviour and costs are in the docstrings of cython_ext/_heap.pyx and of memory.py."""

from collections.abc import Sequence
from typing import Final

from numpy import float64, int64
from numpy.typing import NDArray
from typing_extensions import Buffer

from spectral_alloc._cell import Budget
from spectral_alloc._heap_moves import HeapMoves
from spectral_alloc.residency import Residency

BLOCK_BYTES_MAX: Final[int]
HEAT_COUNT: Final[int]
HEAT_PER_DOUBLING: Final[int]
CLASS_COUNT: Final[int]
FILL_BY_SPACE: Final[int]
PAGE_BYTES: Final[int]
CAPSULE_NAME: Final[str]
BYTES: Final[int]
EXTENT: Final[int]
FRAME: Final[int]
FRAME_EXTENT: Final[int]
PLACE: Final[int]
GROWN: Final[int]

class Pin: ...

class HeapCore(HeapMoves):
    def _open(
        self,
        budget: Budget,
        gammas: NDArray[float64],
        indices: NDArray[int64],
        steps: Sequence[int],
        start: int,
        residencies: Sequence[Residency | None],
        defaults: Sequence[float],
        per_doubling: float,
    ) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def capsule(self) -> object: ...
    @property
    def _mismatch(self) -> tuple[float, int]: ...
    def malloc(
        self, size: int, temperature: int = 0, t_virtual: float | None = None, *, channel: int = 5, axis: int = 1
    ) -> int: ...
    def calloc(
        self, size: int, temperature: int = 0, t_virtual: float | None = None, *, channel: int = 5, axis: int = 1
    ) -> int: ...
    def free(self, address: int) -> None: ...
    def access(self, address: int, /) -> Residency: ...
    def view(self, address: int, *, readonly: bool = False) -> memoryview: ...
    def read(self, address: int, offset: int = 0, size: int | None = None) -> bytes: ...
    def write(self, address: int, data: Buffer, offset: int = 0) -> None: ...
    def realloc(self, address: int, size: int) -> int: ...
    def _resize(self, number: int, size: int) -> int: ...
    def _read_page(self, page: int) -> bytes: ...
    def _make_way(self, number: int, size: int, wanted: int = 0) -> bool: ...
    def _make_room(self) -> None: ...
    def _touch(self, address: int) -> None: ...
    def _close(self) -> None: ...
