"""Types of the compiled module; the words and the layout of a frame are drawn in cython_ext/_frame.pyx."""

from typing import Final, TypeAlias

from typing_extensions import Buffer

FRAME_VERSION: Final[int]
RAW: Final[int]
LZ4: Final[int]
ZSTD: Final[int]
ZSTD_DICTIONARY: Final[int]
FORMULA: Final[int]
CODECS: Final[int]
ITEM_SIZE_MAX: Final[int]
DICTIONARY_ID_MAX: Final[int]

# codec, dictionary id (0: none), item size (1: not shuffled), raw length of each part, payload
Block: TypeAlias = tuple[int, int, int, tuple[int, ...], Buffer]
ParsedBlock: TypeAlias = tuple[int, int, int, tuple[int, ...], bytes | memoryview]

def crc32c(data: Buffer, crc: int = 0, portable: bool = False) -> int: ...
def crc32c_is_hardware() -> bool: ...
def shuffle(data: Buffer, item_size: int, portable: bool = False) -> bytes: ...
def unshuffle(data: Buffer, item_size: int, portable: bool = False) -> bytearray: ...
def pack(blocks: list[Block]) -> bytes: ...
def parse(frame: Buffer) -> list[ParsedBlock]: ...
