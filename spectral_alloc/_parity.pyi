from collections.abc import Sequence
from typing import Final

DATA_MAX: Final[int]

def encode(data: Sequence[bytes], two: bool = True, portable: bool = False) -> list[bytes]: ...
def recover(data: Sequence[bytes | None], parity: Sequence[bytes | None]) -> list[bytes]: ...
