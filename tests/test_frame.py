"""The frame: every value comes back exactly, every damage is found, and the codecs earn their place."""

import array
import functools
import os
import pickle
import random
import re
import sys
import threading
import tracemalloc
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_alloc import _frame, frame, frame_dictionary
from spectral_alloc._frame_stats import FrameTally, SampleReservoir
from spectral_alloc.errors import CodecError, CorruptFrameError, SpectralAllocError
from spectral_alloc.frame import FrameCodec

ALL_CODECS = [None, "raw", "lz4", "zstd"]
HEADER_BYTES_MAX = 16


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


def contents(parts: list) -> list[bytes]:
    return [bytes(part) for part in parts]


def seal(body: bytes, version: int = _frame.FRAME_VERSION) -> bytes:
    """A frame with a valid checksum around any body."""
    head = bytes([version])
    return head + _frame.crc32c(body, _frame.crc32c(head)).to_bytes(4, "little") + body


@pytest.fixture(scope="module")
def trained() -> FrameCodec:
    return trained_codec()


# Checksum --------------------------------------------------------------------------------------------------


def test_crc32c_gives_the_published_vectors():
    """RFC 3720 B.4 and the check value of the catalogue of CRCs, in hardware and portable."""
    vectors = {
        b"": 0,
        b"123456789": 0xE3069283,
        bytes(32): 0x8A9136AA,
        b"\xff" * 32: 0x62A8AB43,
        bytes(range(32)): 0x46DD794E,
        bytes(range(31, -1, -1)): 0x113FDB5C,
    }
    for data, expected in vectors.items():
        assert _frame.crc32c(data) == expected
        assert _frame.crc32c(data, portable=True) == expected


def test_portable_crc32c_equals_hardware_on_every_alignment_and_length():
    """The lane lengths of the hardware way, and their neighbours, are among the lengths tried."""
    data = memoryview(random.Random(1).randbytes(40_000))
    draw = random.Random(2)
    lengths = [*range(70), *(3 * lane + d for lane in (128, 4096) for d in (-1, 0, 1, 130)), 39_000]
    for length in lengths:
        for start in (0, 1, 7, draw.randrange(900)):
            piece, crc = data[start : start + length], draw.getrandbits(32)
            assert _frame.crc32c(piece, crc) == _frame.crc32c(piece, crc, portable=True)


@given(st.binary(max_size=500), st.integers(0, 500))
def test_crc32c_continues_over_pieces(data, cut):
    """The checksum of a whole is that of its second piece continued from the first."""
    assert _frame.crc32c(data[cut:], _frame.crc32c(data[:cut])) == _frame.crc32c(data)


def test_crc32c_of_a_megabyte_equals_that_of_its_pieces():
    """Work long enough to release the GIL gives the same value."""
    data = random.Random(3).randbytes(1 << 20)
    first = _frame.crc32c(data[:1000], portable=True)
    assert _frame.crc32c(data) == _frame.crc32c(data[1000:], first, portable=True)


# Shuffle ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("item_size", [1, 2, 3, 4, 7, 8, 12, 16, 24, 255])
@pytest.mark.parametrize("portable", [False, True])
def test_shuffle_groups_bytes_by_significance_and_unshuffle_undoes_it(item_size, portable):
    """Plane b holds byte b of every item, and the tail stays; at every length around the vector steps."""
    data = random.Random(4).randbytes(3 * 16 * item_size + item_size)
    for length in {*range(2 * item_size + 2), *range(14 * item_size, 18 * item_size + 2, 3), len(data)}:
        piece = data[:length]
        whole = length // item_size * item_size
        planes = [piece[:whole][plane::item_size] for plane in range(item_size)]
        expected = b"".join(planes) + piece[whole:]
        assert _frame.shuffle(piece, item_size, portable) == expected
        assert _frame.unshuffle(expected, item_size, portable) == piece


def test_shuffle_of_a_megabyte_comes_back():
    """Work long enough to release the GIL gives the same bytes."""
    data = random.Random(5).randbytes((1 << 20) + 5)
    assert _frame.unshuffle(_frame.shuffle(data, 8), 8, portable=True) == data


@pytest.mark.parametrize("item_size", [0, -1, 256])
def test_shuffle_refuses_other_item_sizes(item_size):
    """The message names the size and the limit."""
    with pytest.raises(ValueError, match=rf"{item_size}.*255"):
        _frame.shuffle(b"abc", item_size)


# Round trips -----------------------------------------------------------------------------------------------

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


# Damage ----------------------------------------------------------------------------------------------------


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
    ]
    kinds = [[(block[0], block[2], len(block[3])) for block in _frame.parse(one)] for one in frames]
    codecs = (_frame.RAW, _frame.LZ4, _frame.ZSTD, _frame.ZSTD_DICTIONARY)
    assert kinds[:4] == [[(codec, 1, 1)] for codec in codecs]
    assert kinds[4] == [(_frame.LZ4, 1, 3)]
    assert kinds[5] == [(_frame.RAW, 1, 1), (_frame.LZ4, 8, 1)]
    assert [kind[2] for kind in kinds[6]] == [1, 1, 1]
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
    "unknown codec": b"\x01\x04\x01\x01x",
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
    [(4, 0, 1, (1,), b"x")],
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


# Choosing --------------------------------------------------------------------------------------------------


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
    """Repetition goes to lz4, a small alphabet to zstd, integers to shuffle, sparse floats to plain lz4."""
    draw = np.random.default_rng(3)
    walk = np.cumsum(draw.integers(-9, 9, 8192)).astype(np.int64)
    sparse = np.where(draw.random(8192) < 0.02, draw.random(8192), 0.0)
    digits = bytes(random.Random(7).choices(b"0123456789", k=50_000))
    cases = [
        ([b"spectral allocation " * 5000], [1], (_frame.LZ4, 1)),
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
    data = b"spectral allocation " * 5000
    for codec, expected in ((None, _frame.ZSTD), ("lz4", _frame.RAW)):
        encoded = FrameCodec(codec).encode([data], [1])
        assert only_block(encoded)[0] == expected
        assert contents(FrameCodec().decode(encoded)) == [data]


def test_small_values_without_dictionary_use_what_proves_better():
    """Small values with repetition only go to lz4, those with a small alphabet to zstd."""
    repeating, digits = FrameCodec(sample_limit_bytes=0), FrameCodec(sample_limit_bytes=0)
    for number in range(100):
        draw = random.Random(number)
        repeating.encode([draw.randbytes(100) * 8], [1])
        digits.encode([bytes(draw.choices(b"0123456789", k=800))], [1])
    assert repeating.stats()["lz4"]["frames"] > 90
    assert digits.stats()["zstd"]["frames"] > 90


# Dictionaries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [None, "zstd"])
def test_a_trained_dictionary_shortens_similar_small_values(codec):
    """Records that training never saw take a quarter less at least, and old frames stay readable."""
    subject = FrameCodec(codec)
    before = {number: subject.encode([record(number)], [1]) for number in range(700)}
    fresh = range(10_000, 10_200)
    plain_bytes = sum(len(subject.encode([record(number)], [1])) for number in fresh)
    assert subject.train()
    after = {number: subject.encode([record(number)], [1]) for number in fresh}
    assert sum(map(len, after.values())) < 0.75 * plain_bytes
    for number, encoded in {**before, **after}.items():
        assert contents(subject.decode(encoded)) == [record(number)]
    assert subject.stats()["zstd_dictionary"]["frames"] == len(fresh)


def test_training_is_due_only_with_samples_enough():
    """Before that, and with codecs that have no dictionary or no memory for samples, train() does nothing."""
    subject = FrameCodec()
    for number in range(400):
        subject.encode([record(number)], [1])
    assert not subject.train_due
    assert not subject.train()
    for other in (FrameCodec("lz4"), FrameCodec("raw"), FrameCodec(sample_limit_bytes=50_000)):
        for number in range(600):
            other.encode([record(number)], [1])
        assert not other.train_due
        assert other.resident_bytes == 0


def test_resident_bytes_count_samples_and_dictionaries(trained):
    """Samples stay within their limit, and a dictionary is counted with its tables."""
    subject = FrameCodec(sample_limit_bytes=100_000)
    for number in range(300):
        subject.encode([record(number)], [1])
    assert 90_000 < subject.resident_bytes < 110_000
    assert trained.resident_bytes > frame_dictionary.DICTIONARY_BYTES_MAX // 2


def test_training_without_gain_keeps_no_dictionary_and_in_the_end_no_samples():
    """Random values are tried at both thresholds, then left alone."""
    subject = FrameCodec()
    draw = random.Random(8)
    trainings = 0
    for _ in range(9000):
        subject.encode([draw.randbytes(120)], [1])
        if subject.train_due:
            trainings += 1
            assert not subject.train()
    assert trainings == 2
    assert subject.resident_bytes == 0
    assert subject.stats()["zstd_dictionary"]["frames"] == 0


def test_a_long_run_is_trained_on_again_from_all_its_parts():
    """At the second threshold the samples represent the whole run, and a dictionary for both halves wins."""
    subject = FrameCodec()
    for number in range(9000):
        kind = "person" if number < 600 or number % 2 else "order"
        subject.encode([record(number % 3000, kind)], [1])
        if subject.train_due:
            subject.train()
    last = subject.encode([record(77_777, "order")], [1])
    assert _frame.parse(last)[0][1] == 2


def test_drift_collects_afresh_and_the_next_dictionary_restores_the_ratio():
    """Unlike values bring the ratio under 80 %: training is due again, and all frames stay readable."""
    subject = FrameCodec()
    dictionaries = subject._dictionaries
    for number in range(9000):
        subject.encode([record(number % 1500)], [1])
        if subject.train_due:
            subject.train()
    assert not subject.train_due
    assert not dictionaries.drifted
    old = subject.encode([record(50_000)], [1])
    sizes = []
    while not subject.train_due:
        sizes.append(len(subject.encode([record(len(sizes), "order")], [1])))
        assert len(sizes) < 3000, "drift was never noticed"
    assert dictionaries.drifted
    new_id = _frame.parse(old)[0][1] + 1
    assert subject.train()
    assert not dictionaries.drifted
    new = subject.encode([record(99_999, "order")], [1])
    assert _frame.parse(new)[0][1] == new_id
    assert len(new) < 0.8 * sizes[-1]
    assert contents(subject.decode(old)) == [record(50_000)]
    assert contents(subject.decode(new)) == [record(99_999, "order")]


def test_the_number_of_dictionaries_is_bounded(monkeypatch):
    """At the cap nothing is sampled or trained any more, however much the values drift."""
    monkeypatch.setattr(frame_dictionary, "DICTIONARIES_MAX", 1)
    subject = trained_codec()
    held_bytes = subject.resident_bytes
    for number in range(2000):
        subject.encode([record(number, f"kind{number % 7}" * 9)], [1])
    assert not subject.train_due
    assert subject.resident_bytes == held_bytes


def test_a_dictionary_of_another_container_is_not_used(trained):
    """A frame names a dictionary of its own container; where that number is unknown, it is damage."""
    encoded = trained.encode([record(123)], [1])
    with pytest.raises(CorruptFrameError, match="dictionary 1"):
        FrameCodec().decode(encoded)


def test_decompressors_of_many_dictionaries_are_dropped_and_made_again(monkeypatch, trained):
    """A thread keeps few of them, and reads frames of all."""
    monkeypatch.setattr(frame, "DECOMPRESSORS_MAX", 1)
    frames = {number: trained.encode([record(number)], [1]) for number in range(3)}
    plain = FrameCodec("zstd").encode([b"spectral " * 30], [1])
    for number, encoded in frames.items():
        assert contents(trained.decode(plain)) == [b"spectral " * 30]
        assert contents(trained.decode(encoded)) == [record(number)]
    assert len(trained._contexts.decompressors) == 1


def test_the_reservoir_is_bounded_and_represents_the_whole_run():
    """Neither limit is exceeded, and early, middle and late offers are kept in like numbers."""
    reservoir = SampleReservoir(300, 6000, seed=3)
    for number in range(30_000):
        reservoir.offer(b"%06d" % number + bytes(number % 20))
        assert reservoir.byte_count <= 6000
    samples = reservoir.samples()
    assert len(samples) <= 300
    assert sum(map(len, samples)) == reservoir.byte_count
    assert reservoir.offered_count == 30_000
    assert reservoir.resident_bytes > reservoir.byte_count
    thirds = [sum(1 for sample in samples if int(sample[:6]) // 10_000 == third) for third in range(3)]
    assert min(thirds) > len(samples) / 6
    with pytest.raises(ValueError, match="0 samples"):
        SampleReservoir(0, 10)


# Threads, fork, failures -----------------------------------------------------------------------------------


def test_threads_encode_decode_and_train_at_the_same_time():
    """Every thread gets its values back while dictionaries change under it; every frame is counted."""
    subject = FrameCodec()
    threads, rounds = 6, 1500
    failures: list[BaseException] = []
    done = threading.Event()

    def work(seed: int) -> None:
        draw = random.Random(seed)
        kept: list[tuple[bytes, bytes]] = []
        try:
            for number in range(rounds):
                kind = "person" if number < rounds // 2 else "order"
                data = record(draw.randrange(400), kind)
                if number % 9 == 0:
                    data = draw.randbytes(draw.randrange(9000))
                kept.append((data, subject.encode([data], [1])))
                old, encoded = kept[draw.randrange(len(kept))]
                assert contents(subject.decode(encoded)) == [old]
        except BaseException as error:
            failures.append(error)

    def train() -> None:
        while not done.is_set():
            subject.train()
            subject.stats()

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(threads)]
    trainer = threading.Thread(target=train)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        for thread in (trainer, *workers):
            thread.start()
        for thread in workers:
            thread.join()
    finally:
        done.set()
        trainer.join()
        sys.setswitchinterval(interval)
    assert failures == []
    assert sum(counts["frames"] for counts in subject.stats().values()) == threads * rounds
    assert subject.stats()["zstd_dictionary"]["frames"] > 0


def test_a_second_training_at_the_same_time_returns_at_once(monkeypatch):
    """While one thread trains, train() elsewhere is False and encode goes on."""
    subject = FrameCodec()
    for number in range(600):
        subject.encode([record(number)], [1])
    inside, leave = threading.Event(), threading.Event()
    real = zstandard.train_dictionary

    def slow(*arguments, **options):
        inside.set()
        assert leave.wait(10)
        return real(*arguments, **options)

    monkeypatch.setattr(zstandard, "train_dictionary", slow)
    results: list[bool] = []
    trainer = threading.Thread(target=lambda: results.append(subject.train()))
    trainer.start()
    try:
        assert inside.wait(10)
        assert not subject.train()
        assert contents(subject.decode(subject.encode([record(1)], [1]))) == [record(1)]
    finally:
        leave.set()
        trainer.join()
    assert results == [True]


def test_a_forked_child_goes_on_while_the_parent_was_training(trained):
    """The child reads old frames, encodes, and can train, though the lock was held at the fork."""
    encoded = trained.encode([record(3)], [1])
    subject = FrameCodec()
    for number in range(600):
        subject.encode([record(number)], [1])
    with subject._dictionaries._training:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                trained.after_fork()
                subject.after_fork()
                good = contents(trained.decode(encoded)) == [record(3)] and subject.train()
                good = good and contents(subject.decode(subject.encode([record(4)], [1]))) == [record(4)]
                status = 0 if good else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


class Refusing:
    """A compressor that fails as told."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def compress(self, data: bytes, **options: object) -> bytes:
        raise self.error


@pytest.mark.parametrize(("error", "expected"), [
    (RuntimeError("broken library"), CodecError),
    (zstandard.ZstdError("broken library"), CodecError),
    (MemoryError(), MemoryError),
    (KeyboardInterrupt(), KeyboardInterrupt),
])  # fmt: skip
def test_a_failing_codec_raises_cleanly_and_stays_usable(monkeypatch, error, expected):
    """encode raises, the failure is counted (an interrupt is none), and the next encode works."""
    large, small = b"spectral allocation " * 500, record(1)
    subject = trained_codec()
    for code, data in ((_frame.LZ4, large), (_frame.ZSTD_DICTIONARY, small)):
        before = subject.stats()[frame.CODEC_NAMES[code]]
        with monkeypatch.context() as patch:
            patch.setattr(frame.lz4.block, "compress", Refusing(error).compress)
            patch.setattr(subject._contexts, "trained", (1, Refusing(error)))
            with pytest.raises(expected) as caught:
                subject.encode([data], [1])
        subject._contexts.trained = None
        after = subject.stats()[frame.CODEC_NAMES[code]]
        assert after == {**before, "failures": before["failures"] + (expected is not KeyboardInterrupt)}
        assert expected is not CodecError or isinstance(caught.value, SpectralAllocError)
        assert contents(subject.decode(subject.encode([data], [1]))) == [data]


def test_a_failing_plain_compressor_is_replaced():
    """After a failure of zstd without dictionary, the thread makes itself a new context."""
    subject = FrameCodec("zstd")
    subject._contexts.plain = Refusing(zstandard.ZstdError("broken library"))
    with pytest.raises(CodecError, match="zstd failed on 1000 bytes: broken library"):
        subject.encode([b"x" * 1000], [1])
    assert contents(subject.decode(subject.encode([b"x" * 1000], [1]))) == [b"x" * 1000]
    assert subject.stats()["zstd"]["failures"] == 1


# Surface ---------------------------------------------------------------------------------------------------


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
    data = [b"tiny", b"spectral allocation " * 500, random.Random(1).randbytes(9000)]
    frames = [subject.encode([part], [1]) for part in data]
    stats = subject.stats()
    assert stats["raw"]["frames"] == 2
    assert stats["lz4"] == {"frames": 1, "raw_bytes": 10_000, "frame_bytes": len(frames[1]), "failures": 0}
    raw_bytes, frame_bytes = sum(map(len, data)), sum(map(len, frames))
    assert sum(counts["raw_bytes"] for counts in stats.values()) == raw_bytes
    assert sum(counts["frame_bytes"] for counts in stats.values()) == frame_bytes
    assert subject.ratio == raw_bytes / frame_bytes
    with pytest.raises(ValueError, match="codec 4"):
        FrameTally().failed(4)


def test_the_dump_in_the_docs_is_what_its_snippet_prints():
    """docs/frame_format.md shows real bytes."""
    page = (Path(__file__).parent.parent / "docs" / "frame_format.md").read_text()
    snippet, dump = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", page, re.DOTALL).groups()
    printed = StringIO()
    with redirect_stdout(printed):
        exec(compile(snippet, "frame_format.md", "exec"), {})
    assert printed.getvalue() == dump
