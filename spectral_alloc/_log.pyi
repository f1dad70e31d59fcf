from collections.abc import Callable
from typing import Any

from spectral_alloc.file_system import Buffer

PUT: int
TOMBSTONE: int
PARKED: int
DICTIONARY: int
REGROWN: int
IS_REGROWN: int
CONTINUES: int
FLAT: int
PICKLED: int
MOVED: int
HEAD_BYTES: int

def salt(log_id: bytes, segment: int) -> int: ...
def record_bytes(frame_bytes: int, key_bytes: int, mac_bytes: int) -> int: ...
def walk(
    data: Buffer,
    offset: int,
    file_bytes: int,
    salt: int,
    mac_bytes: int = 0,
    check_mac: Callable[[int, bytes, bytes, bytes, bytes], bool] | None = None,
) -> Walk: ...
def find_record(
    data: Buffer, start: int, offset: int, file_bytes: int, salt: int, mac_bytes: int = 0
) -> int | None: ...
def read_head(
    data: Buffer, offset: int, file_bytes: int, salt: int, mac_bytes: int = 0
) -> tuple[int, int, int, int, int, int, int] | None: ...

class Walk:
    status: str
    damaged: list[tuple[int, int, bytes | None]]
    at: int
    needed: int
    last_sequence: int
    claimed: int
    count: int
    @property
    def hints(self) -> bytes: ...

class LogIndex:
    tombstone_bytes: dict[int, int]
    held_bytes: dict[int, int]
    dictionaries: list[tuple[int, int, int]]
    def __init__(self, decode_key: Callable[[bytes], Any], cells: dict[Any, Any] | None = None) -> None: ...
    def __len__(self) -> int: ...
    def feed(self, hints: bytes, segment: int, whole: bool = False) -> int | None: ...
    def sort(self) -> None: ...
    @property
    def pickled_count(self) -> int: ...
    def place_of(self, key: object) -> int | None: ...
    def forget(self, key: object) -> None: ...
    def live_bytes(self) -> dict[int, int]: ...
    def entries(self) -> list[tuple[Any, int, int, int, int]]: ...
