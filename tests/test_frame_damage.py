"""Frames that are damaged or crafted: never a wrong value, never memory for a lie."""

import tracemalloc

import numpy as np
import pytest
from frame_records import contents, record, trained_codec
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_alloc import _frame
from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.frame import FrameCodec


@pytest.fixture(scope="module")
def trained() -> FrameCodec:
    return trained_codec()


def seal(body: bytes, version: int = _frame.FRAME_VERSION) -> bytes:
    """A frame with a valid checksum around any body."""
    head = bytes([version])
    return head + _frame.crc32c(body, _frame.crc32c(head)).to_bytes(4, "little") + body


def sample_frames(trained: FrameCodec) -> list[bytes]:
    """One frame of each kind: each codec, joined parts, a shuffled array, several blocks."""
    walk = np.cumsum(np.random.default_rng(2).integers(-9, 9, 200)).astype(np.int64)
    frames = [
        trained.encode([b"short"], [1]),
        FrameCodec("lz4").encode([b"spectral " * 30], [1]),
        FrameCodec("zstd").encode([b"spectral " * 30], [1]),
        trained.encode([record(9000)], [1]),
        FrameCodec("lz4").encode([b"spectral " * 9, b"", b"tail"], [1, 1, 1]),
        FrameCodec().encode([b"stream", walk], [1, 8]),
        FrameCodec("raw").encode([b"stream" * 9, walk, b""], [1, 8, 1]),
        FrameCodec().encode([b"spectral " * 90], [1]),
    ]
    kinds = [[(block[0], block[2], len(block[3])) for block in _frame.parse(one)] for one in frames]
    codecs = (_frame.RAW, _frame.LZ4, _frame.ZSTD, _frame.ZSTD_DICTIONARY)
    assert kinds[:4] == [[(codec, 1, 1)] for codec in codecs]
    assert kinds[4] == [(_frame.LZ4, 1, 3)]
    assert kinds[5] == [(_frame.RAW, 1, 1), (_frame.LZ4, 8, 1)]
    assert [kind[2] for kind in kinds[6]] == [1, 1, 1]
    assert kinds[7] == [(_frame.FORMULA, 1, 1)]
    return frames


def test_every_flipped_byte_is_found(trained):
    """Any byte changed to any other (to eight others in the longest frames) is never a value."""
    for original in sample_frames(trained):
        masks = range(1, 256) if len(original) < 200 else [1 << bit for bit in range(8)]
        damaged = bytearray(original)
        for position in range(len(original)):
            for mask in masks:
                damaged[position] ^= mask
                with pytest.raises(CorruptFrameError):
                    trained.decode(damaged)
                damaged[position] ^= mask
        assert bytes(damaged) == original


def test_every_truncation_and_extension_is_found(trained):
    """A frame of any other length, cut at either end or with bytes added, is never a value."""
    for original in sample_frames(trained):
        variants = [original[:length] for length in range(len(original))]
        variants += [original[length:] for length in range(1, len(original))]
        variants += [original + bytes(extra) for extra in range(1, 20)]
        variants += [original + original, bytes(1) + original, original + b"\xff"]
        for variant in variants:
            with pytest.raises(CorruptFrameError):
                trained.decode(variant)


HUGE = b"\xff\xff\xff\xff\xff\xff\x3f"  # varint of 2**48 - 1
HUGE_SIZE = (1 << 45).to_bytes(8, "little")
CRAFTED = {
    "no parts": b"\x00" + bytes(4),
    "more parts than bytes": b"\xff\x7f\x00\x01\x01x",
    "first part joined": b"\x01\x0f\x01x",
    "entries cut short": b"\x02\x00\x01\x01x",
    "length without end": b"\x01\x00" + b"\xff" * 9,
    "length above the limit": b"\x01\x00\xff\xff\xff\xff\xff\xff\x7f\x01x",
    "unknown codec": b"\x01\x05\x01\x01x",
    "formula of nothing": b"\x01\x04\x00\x00",
    "formula huge": b"\x01\x04" + HUGE + b"\x05" + b"\x01\x02\x01\x01x",
    "formula of another version": b"\x01\x04\x40\x05" + b"\x02\x02\x01\x01x",
    "formula of another length": b"\x01\x04\x01\x05" + b"\x01\x02\x01\x01x",
    "formula cut short": b"\x01\x04\x40\x04" + b"\x01\x02\x01\x01",
    "formula and more": b"\x01\x04\x40\x06" + b"\x01\x02\x01\x01xy",
    "formula of an unknown kind": b"\x01\x04\x40\x02" + b"\x01\x0c",
    "formula shuffled": b"\x01\x84\x02\x40\x05" + b"\x01\x02\x01\x01x",
    "unknown codec bit": b"\x01\x10\x01\x01x",
    "joined and shuffled": b"\x02\x00\x01\x01\x8f\x01x",
    "raw longer than stored": b"\x01\x00\x02\x01x",
    "raw huge": b"\x01\x00" + HUGE + b"\x01x",
    "stored huge": b"\x01\x00" + HUGE + HUGE + b"x",
    "lz4 huge": b"\x01\x01" + HUGE + b"\x05" + b"\x1fa\x01\x00\xff",
    "lz4 shorter than declared": b"\x01\x01\x10\x05\x40abcd",
    "lz4 longer than declared": b"\x01\x01\x03\x05\x40abcd",
    "lz4 nothing from nothing": b"\x01\x01\x01\x00",
    "zstd huge": b"\x01\x02" + HUGE + b"\x05" + b"\xe0\x00\x00\x00\x00",
    "zstd states another size": b"\x01\x02\x04\x08\x20\x05\x21\x00\x00abcd",
    "zstd states a huge size": b"\x01\x02\x04\x0f\xe0" + HUGE_SIZE + b"\x21\x00\x00abc",
    "zstd states it after a window": b"\x01\x02\x04\x10\xc0\x90" + HUGE_SIZE + bytes(6),
    "zstd wants a huge window": b"\x01\x02\x04\x0d\x80\xff\x04\x00\x00\x00\x21\x00\x00abcd",
    "zstd without a size": b"\x01\x02\x04\x09\x00\x00\x21\x00\x00abcd",
    "zstd size cut short": b"\x01\x02\x04\x02\xe0\x04",
    "zstd of nothing": b"\x01\x02\x00\x00",
    "zstd with bytes after it": b"\x01\x02\x04\x0a\x20\x04\x21\x00\x00abcdee",
    "zstd of nonsense": b"\x01\x02\x04\x06\x20\x04\xff\xff\xff\xff",
    "dictionary 0": b"\x01\x03\x00\x04\x04abcd",
    "unknown dictionary": b"\x01\x03\x09\x04\x09\x20\x04\x21\x00\x00abcd",
    "items of one byte": b"\x01\x80\x01\x01\x01x",
    "joined to a shuffled block": b"\x02\x80\x02\x02\x02\x0f\x00ab",
    "two blocks, bytes for one": b"\x02\x00\x01\x01\x00\x01\x01x",
    "bytes left over": b"\x01\x00\x01\x01xy",
}


@pytest.mark.parametrize("body", CRAFTED.values(), ids=CRAFTED)
def test_a_crafted_frame_is_refused_without_allocating(body):
    """With a right checksum, lengths that lie raise CorruptFrameError, and no memory is taken for them."""
    subject = FrameCodec()
    crafted = seal(body)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFrameError):
            subject.decode(crafted)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000


def test_the_crafted_frames_fail_for_what_they_say():
    """The same shapes with honest lengths are accepted, so the refusals above are not for another reason."""
    subject = FrameCodec()
    assert contents(subject.decode(seal(b"\x01\x00\x01\x01x"))) == [b"x"]
    assert contents(subject.decode(seal(b"\x01\x01\x04\x05\x40abcd"))) == [b"abcd"]
    assert contents(subject.decode(seal(b"\x01\x02\x04\x09\x20\x04\x21\x00\x00abcd"))) == [b"abcd"]
    assert contents(subject.decode(seal(b"\x02\x00\x01\x02\x0f\x01xy"))) == [b"x", b"y"]
    assert contents(subject.decode(seal(b"\x01\x80\x02\x04\x04acbd"))) == [b"abcd"]
    assert contents(subject.decode(seal(b"\x01\x04\x40\x05\x01\x02\x01\x01x"))) == [b"x" * 64]


def test_another_version_is_refused():
    """A version byte that is not known raises, even under a right checksum."""
    with pytest.raises(CorruptFrameError, match="version byte 0xf2"):
        FrameCodec().decode(seal(b"\x01\x00\x01\x01x", version=0xF2))


@settings(deadline=None, max_examples=400)
@given(st.binary(max_size=60), st.lists(st.sampled_from(sorted(CRAFTED.values())), max_size=2))
def test_any_body_is_refused_or_gives_parts(noise, pieces):
    """Whatever bytes a right checksum covers, decode raises CorruptFrameError or gives bytes-like parts."""
    try:
        parts = FrameCodec().decode(seal(b"".join(pieces) + noise))
    except CorruptFrameError:
        return
    assert all(isinstance(part, bytes | bytearray | memoryview) for part in parts)


@pytest.mark.parametrize("blocks", [
    [],
    [(_frame.CODECS, 0, 1, (1,), b"x")],
    [(_frame.FORMULA, 1, 1, (1,), b"x")],
    [(-1, 0, 1, (1,), b"x")],
    [(_frame.RAW, 1, 1, (1,), b"x")],
    [(_frame.ZSTD_DICTIONARY, 0, 1, (1,), b"x")],
    [(_frame.ZSTD_DICTIONARY, 256, 1, (1,), b"x")],
    [(_frame.RAW, 0, 0, (1,), b"x")],
    [(_frame.RAW, 0, 2, (1, 1), b"xy")],
    [(_frame.RAW, 0, 1, (), b"x")],
    [(_frame.RAW, 0, 1, (1 << 48,), b"x")],
])  # fmt: skip
def test_pack_refuses_blocks_that_cannot_be_written(blocks):
    """What the format has no place for raises ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 - each row has its own message
        _frame.pack(blocks)
