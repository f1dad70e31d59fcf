"""Types of the compiled module; the words are explained in cython_ext/_express.pyx."""

from typing import Any, Final

from spectral_alloc._frame_stats import FrameTally
from spectral_alloc.frame_dictionary import FrameDictionaries

OTHER_WAY: Final[object]
COMPRESS_FROM_BYTES: int
LARGE_FROM_BYTES: int
FORMULA_FROM_BYTES: int
FORMULA_SURE_BYTES: int
RAW_ABOVE_SHARE: float

class Express:
    takes_all_raw: bool
    def __init__(self, dictionaries: FrameDictionaries, tally: FrameTally) -> None: ...
    def encode(self, stream: bytes) -> bytes | None: ...
    def value(self, frame: object) -> Any: ...
