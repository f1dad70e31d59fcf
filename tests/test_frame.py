"""FrameCodec: every value comes back exactly, and the codecs earn their place."""

import array
import pickle
import random
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from frame_records import ALL_CODECS, contents, record, repetitive, trained_codec
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_alloc import _frame, frame
from spectral_alloc._frame_stats import FrameTally
from spectral_alloc.frame import FrameCodec

HEADER_BYTES_MAX = 16


@pytest.fixture(scope="module")
def trained() -> FrameCodec:
    return trained_codec()


PART = st.one_of(
    st.binary(max_size=80),
    st.builds(lambda piece, count: piece * count, st.binary(min_size=1, max_size=9), st.integers(0, 900)),
    st.integers(0, 9000).map(lambda size: random.Random(size).randbytes(size)),
)
ITEM_SIZE = st.sampled_from([1, 2, 3, 4, 8, 16, 40, 256, 10**9])


@pytest.mark.parametrize("codec", ALL_CODECS)
@settings(deadline=None, max_examples=60)
@given(parts=st.lists(st.tuples(PART, ITEM_SIZE), min_size=1, max_size=6))
def test_any_parts_come_back(codec, parts):
    """Whatever the parts, their number, sizes and item sizes, decode gives them back in order."""
    subject = FrameCodec(codec)
    data = [part for part, _ in parts]
    encoded = subject.encode(data, [item_size for _, item_size in parts])
    assert type(encoded) is bytes
    assert len(encoded) <= sum(map(len, data)) + 6 + 17 * len(data)
    assert contents(subject.decode(encoded)) == data
    assert contents(subject.decode(memoryview(bytearray(encoded)))) == data


@pytest.mark.parametrize("codec", ALL_CODECS)
def test_numpy_buffers_of_a_pickle_come_back(codec):
    """Arrays of every layout that pickle protocol 5 hands out, through a frame, equal the originals."""
    walk = np.cumsum(np.random.default_rng(1).normal(size=40_000))
    values = [
        walk,
        walk.astype(np.float32),
        walk.astype(complex),
        np.arange(50_000).reshape(100, 500).T,
        np.zeros(0),
        np.zeros((3, 0)),
        np.array([b"ab", b"c"]),
        np.arange(300, dtype=">i4"),
        np.zeros(70, dtype=[("a", "f8"), ("b", "u1")]),
        array.array("d", walk[:90]),
        bytearray(b"x" * 9000),
    ]
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(values, 5, buffer_callback=buffers.append)
    itemsizes = [1, *(memoryview(buffer).itemsize for buffer in buffers)]
    subject = FrameCodec(codec)
    parts = subject.decode(subject.encode([stream, *buffers], itemsizes))
    back = pickle.loads(parts[0], buffers=parts[1:])
    for value, restored in zip(values, back, strict=True):
        assert type(value) is type(restored)
        np.testing.assert_array_equal(value, restored)


def test_a_small_frame_has_at_most_16_bytes_of_header(trained):
    """Raw and with a dictionary: what a frame of one small part adds to the payload."""
    for data in (b"", b"short", random.Random(6).randbytes(1000)):
        assert len(FrameCodec().encode([data], [1])) - len(data) <= HEADER_BYTES_MAX
    encoded = trained.encode([record(5000)], [1])
    [(codec, dictionary_id, _, _, payload)] = _frame.parse(encoded)
    assert (codec, dictionary_id) == (_frame.ZSTD_DICTIONARY, 1)
    assert len(encoded) - len(payload) <= HEADER_BYTES_MAX


def only_block(encoded: bytes) -> tuple[int, int]:
    """Codec and item size of the last block, that of the array where there is one."""
    codec, _, item_size, _, _ = _frame.parse(encoded)[-1]
    return codec, item_size


def test_incompressible_data_are_stored_raw():
    """Random bytes of any size take their own length and a header, whatever the codec."""
    for size in (40, 700, 5000, 300_000):
        data = random.Random(size).randbytes(size)
        for codec in ALL_CODECS:
            encoded = FrameCodec(codec).encode([data], [1])
            assert only_block(encoded) == (_frame.RAW, 1)
            assert len(encoded) <= size + HEADER_BYTES_MAX


def test_data_choose_their_codec():
    """Near repetition goes to lz4, a small alphabet to zstd, integers to shuffle, sparse floats to plain lz4."""
    draw = np.random.default_rng(3)
    walk = np.cumsum(draw.integers(-9, 9, 8192)).astype(np.int64)
    sparse = np.where(draw.random(8192) < 0.02, draw.random(8192), 0.0)
    digits = bytes(random.Random(7).choices(b"0123456789", k=50_000))
    cases = [
        ([repetitive(5000)], [1], (_frame.LZ4, 1)),
        ([b"spectral allocation " * 5000], [1], (_frame.FORMULA, 1)),
        ([digits], [1], (_frame.ZSTD, 1)),
        ([b"", walk], [1, 8], (_frame.LZ4, 8)),
        ([b"", sparse], [1, 8], (_frame.LZ4, 1)),
        ([b"", np.frombuffer(draw.bytes(65_536))], [1, 8], (_frame.RAW, 1)),
    ]
    for parts, itemsizes, expected in cases:
        assert only_block(FrameCodec().encode(parts, itemsizes)) == expected
    assert only_block(FrameCodec("zstd").encode([b"", walk], [1, 8])) == (_frame.ZSTD, 8)


def test_a_part_longer_than_lz4_takes_is_left_to_the_others(monkeypatch):
    """Beyond the limit of LZ4, zstd is chosen by itself, and raw where LZ4 was asked for."""
    monkeypatch.setattr(frame, "LZ4_BYTES_MAX", 50_000)
    data = repetitive(5000)
    for codec, expected in ((None, _frame.ZSTD), ("lz4", _frame.RAW)):
        encoded = FrameCodec(codec).encode([data], [1])
        assert only_block(encoded)[0] == expected
        assert contents(FrameCodec().decode(encoded)) == [data]


def test_small_values_without_dictionary_use_what_proves_better():
    """Small values with repetition only go to lz4, those with a small alphabet to zstd."""
    repeating, digits = FrameCodec(sample_limit_bytes=0), FrameCodec(sample_limit_bytes=0)
    for number in range(100):
        draw = random.Random(number)
        repeating.encode([(draw.randbytes(100) * 8)[:-1] + bytes([number])], [1])
        digits.encode([bytes(draw.choices(b"0123456789", k=800))], [1])
    assert repeating.stats()["lz4"]["frames"] > 90
    assert digits.stats()["zstd"]["frames"] > 90


def test_unknown_codecs_are_refused():
    """The message names the value and the known codecs; what is not a str is a TypeError."""
    with pytest.raises(ValueError, match=r"'lzma'.*'raw', 'lz4', 'zstd'"):
        FrameCodec("lzma")
    for bad in (7, b"lz4", ["lz4"]):
        with pytest.raises(TypeError, match=type(bad).__name__):
            FrameCodec(bad)
    assert [FrameCodec(codec).codec for codec in ALL_CODECS] == ALL_CODECS


def test_bad_parts_are_refused():
    """No parts, item sizes that do not match or are not positive, parts without contiguous memory."""
    subject = FrameCodec()
    with pytest.raises(ValueError, match="at least one part"):
        subject.encode([], [])
    with pytest.raises(ValueError, match="2 item sizes for 1 parts"):
        subject.encode([b"x"], [1, 1])
    for bad in (0, -4):
        with pytest.raises(ValueError, match=f"item size {bad}"):
            subject.encode([b"x", b"y"], [1, bad])
    with pytest.raises(ValueError, match="part 1 is not contiguous"):
        subject.encode([b"x", np.arange(100)[::2]], [1, 8])
    with pytest.raises(TypeError):
        subject.encode(["text"], [1])
    with pytest.raises(TypeError):
        subject.decode("text")
    assert all(counts["frames"] == 0 for counts in subject.stats().values())


def test_stats_and_ratio_count_what_was_encoded():
    """Sums over the codecs are the totals, and the ratio is their quotient; 1.0 for an unused codec."""
    subject = FrameCodec()
    assert subject.ratio == 1.0
    data = [b"tiny", repetitive(400)[:10_000], random.Random(1).randbytes(9000)]
    frames = [subject.encode([part], [1]) for part in data]
    stats = subject.stats()
    assert stats["raw"]["frames"] == 2
    assert stats["lz4"] == {"frames": 1, "raw_bytes": 10_000, "frame_bytes": len(frames[1]), "failures": 0}
    raw_bytes, frame_bytes = sum(map(len, data)), sum(map(len, frames))
    assert sum(counts["raw_bytes"] for counts in stats.values()) == raw_bytes
    assert sum(counts["frame_bytes"] for counts in stats.values()) == frame_bytes
    assert subject.ratio == raw_bytes / frame_bytes
    with pytest.raises(ValueError, match=f"codec {_frame.CODECS}"):
        FrameTally().failed(_frame.CODECS)


def test_the_dump_in_the_docs_is_what_its_snippet_prints():
    """docs/frame_format.md shows real bytes."""
    page = (Path(__file__).parent.parent / "docs" / "frame_format.md").read_text()
    snippet, dump = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", page, re.DOTALL).groups()
    printed = StringIO()
    with redirect_stdout(printed):
        exec(compile(snippet, "frame_format.md", "exec"), {})
    assert printed.getvalue() == dump
