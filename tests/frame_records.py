"""Records to encode, and a codec that was trained on them; shared by the tests of frames."""

import functools
import pickle
import random
from collections.abc import Iterable

from spectral_alloc.frame import FrameCodec

ALL_CODECS = [None, "raw", "lz4", "zstd"]


@functools.cache
def words(kind: str) -> list[str]:
    """The vocabulary of one kind of records."""
    draw = random.Random(kind)
    return ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=3 + number % 8)) for number in range(800)]


def record(number: int, kind: str = "person") -> bytes:
    """The pickle of a dict of about 1 KB, like its neighbours of the same kind in structure and in words."""
    draw = random.Random(f"{kind}{number}")
    vocabulary = words(kind)
    value = {
        f"{kind}_id": number,
        f"{kind}_name": " ".join(draw.choices(vocabulary, k=3)),
        f"{kind}_tags": draw.choices(vocabulary[:100], k=8),
        f"{kind}_scores": [round(draw.random(), 3) for _ in range(10)],
        f"{kind}_notes": " ".join(draw.choices(vocabulary, k=90)),
    }
    return pickle.dumps(value, 5)


def trained_codec(count: int = 700, codec: str | None = None) -> FrameCodec:
    """A codec that has seen records and trained its first dictionary on them."""
    result = FrameCodec(codec)
    for number in range(count):
        result.encode([record(number)], [1])
    assert result.train_due
    assert result.train()
    return result


def repetitive(count: int) -> bytes:
    """Text of `count` numbered lines that lz4 likes, and no formula gives."""
    return b"".join(b"spectral allocation %d, " % number**2 for number in range(count))


def contents(parts: Iterable[bytes | bytearray | memoryview]) -> list[bytes]:
    return [bytes(part) for part in parts]
