"""Types of the compiled seam; behaviour and costs are in the docstrings of cython_ext/_touch_space.pyx."""

import os
from typing import Any, Final

from numpy.typing import NDArray

from spectral_alloc._generator import Generator
from spectral_alloc._overlay import Overlay
from spectral_alloc._touch import Region

class SpaceRegion(Region):
    generator: Final[Generator]
    overlay: Final[Overlay]
    def __init__(
        self,
        generator: Generator,
        overlay: Overlay,
        start: int,
        count: int,
        limit_bytes: int,
        directory: str | os.PathLike[str],
        disk_bytes: int,
    ) -> None: ...
    def watch(self) -> None: ...
    def edits_came(self, addresses: NDArray[Any], raws: NDArray[Any], removed: NDArray[Any] | None, /) -> None: ...
    def flush_window(self, window: int, /) -> None: ...
