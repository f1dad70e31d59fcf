"""Types of the compiled seam; behaviour and costs are in the docstrings of cython_ext/_edit_journal.pyx."""

from typing import Any

from numpy import uint8, uint64
from numpy.typing import NDArray

from spectral_alloc.file_system import OpenFile

BLOCK_EDITS: int
BLOCK_BYTES_MAX: int
BLOCK_HEADER_BYTES: int
BLOCK_MAGIC: bytes

class Journal:
    capacity: int
    value_bytes: int
    is_always: bool
    pending: memoryview | None
    refusal: str | None
    log: Any
    file: OpenFile | None
    appended_count: int
    written_count: int
    durable_count: int
    end_bytes: int
    durable_bytes: int
    def __init__(
        self, log: Any, file: OpenFile, capacity: int, value_bytes: int, end_bytes: int, is_always: bool
    ) -> None: ...
    @property
    def has_work(self) -> bool: ...
    def wrote(self) -> None: ...
    def synced(self, count: int, size: int, /) -> None: ...
    def moved(self, file: OpenFile | None, end_bytes: int, /) -> None: ...
    def refuse(self, reason: str, /) -> None: ...

def encode_edits(addresses: NDArray[uint64], raws: NDArray[uint64], value_bytes: int) -> bytes: ...
def block_at(data: bytes | memoryview, start: int = 0) -> tuple[int, int] | None: ...
def decode_block(data: bytes | memoryview) -> tuple[NDArray[uint64], NDArray[uint64], NDArray[uint8]]: ...
def mark(value_bytes: int, durable: int) -> bytes: ...
def stamped(blocks: bytes, durable: int) -> bytes: ...
