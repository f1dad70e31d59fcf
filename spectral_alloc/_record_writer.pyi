from spectral_alloc.file_system import Buffer
from spectral_alloc.log_format import Authenticator

class RecordWriter:
    mac_bytes: int
    offset: int
    sequence: int
    held_bytes: int
    tombstone_bytes: int
    dictionary_bytes: int
    lengths: list[int]
    def __init__(
        self,
        salt: int,
        offset: int,
        sequence: int,
        settled_bytes: int,
        atomic: bool = True,
        authenticator: Authenticator | None = None,
        prefix: bytes = b"",
    ) -> None: ...
    def add(self, kind: int, key: bytes, frame: Buffer, flags: int = 0, birth: int = 0) -> None: ...
    def end(self) -> None: ...
    def take(self) -> tuple[bytes, list[int]]: ...
    @property
    def hints(self) -> bytes: ...
