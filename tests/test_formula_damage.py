"""Formulas that are damaged or crafted: never a wrong block, never more time or memory than its length allows."""

import contextlib
import random
import struct
import tracemalloc

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_alloc import _formula, formula
from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.frame import FrameCodec

LITERAL, TILE, REPEAT, PATCH, ENVELOPE, POLYNOMIAL, AFFINE, SPACE, PERMUTED, MERSENNE, PCG = range(1, 12)
ONE = bytes([LITERAL, 7])
NOTHING = bytes([POLYNOMIAL, 0, 0, 0])
KEY = bytes(range(24))
DOUBLES = struct.Struct("<ddd")
HUGE = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # varint of 2**64 - 1
DEPTH_MAX = 10


def nested(kind: bytes, times: int, inner: bytes) -> bytes:
    """An expression in others of one kind."""
    return kind * times + inner


#: name -> bytes of block, expression
SOUND = {
    "literal": (3, bytes([LITERAL]) + b"abc"),
    "tile": (64, bytes([TILE, 1]) + ONE),
    "repeat": (64, bytes([REPEAT, 8, 3]) + NOTHING),
    "patch": (64, bytes([PATCH, 8, 2, 0, *bytes(8), 6, *bytes(8)]) + NOTHING),
    "envelope": (64, bytes([ENVELOPE, 2, 1]) + b"abc" + NOTHING),
    "polynomial": (64, bytes([POLYNOMIAL, 0x83, 4, 1, 2, 3, 4, 5])),
    "affine": (64, bytes([AFFINE, 0x23]) + DOUBLES.pack(0, 1, 7)),
    "narrow": (64, bytes([AFFINE, 0x42]) + DOUBLES.pack(0, 1, 7)[:16]),
    "space": (64, bytes([SPACE, 0]) + KEY + bytes(8) + b"\x02"),
    "range": (64, bytes([SPACE, 3]) + KEY + bytes(8) + b"\x02\x01\x06"),
    "permuted": (64, bytes([PERMUTED, 8]) + KEY + b"\x07\x00"),
    "mersenne": (64, bytes([MERSENNE, 0, 5, 0])),
    "pcg": (64, bytes([PCG, 2]) + bytes(16) + b"\x01" + bytes(15)),
    "deep": (64, nested(bytes([ENVELOPE, 0, 0]), DEPTH_MAX - 1, NOTHING)),
}
CRAFTED = {
    "nothing": (64, b""),
    "unknown kind 0": (64, b"\x00"),
    "unknown kind 12": (64, b"\x0c"),
    "literal too short": (4, bytes([LITERAL]) + b"abc"),
    "tile of nothing": (64, bytes([TILE, 0]) + ONE),
    "tile as long as the block": (2, bytes([TILE, 2]) + NOTHING),
    "tile longer than the block": (64, bytes([TILE]) + HUGE + NOTHING),
    "number longer than it must be": (64, bytes([TILE, 0x81, 0]) + ONE),
    "number without end": (64, bytes([TILE]) + b"\xff" * 12 + ONE),
    "number beyond 64 bits": (64, bytes([TILE]) + b"\xff" * 9 + b"\x02" + ONE),
    "repeat of 3 bytes": (63, bytes([REPEAT, 3, 3]) + NOTHING),
    "repeat of 0 bytes": (64, bytes([REPEAT, 0, 3]) + NOTHING),
    "repeat once": (64, bytes([REPEAT, 8, 1]) + NOTHING),
    "repeat more often than it fits": (64, bytes([REPEAT, 8, 9]) + NOTHING),
    "repeat of parts": (63, bytes([REPEAT, 8, 3]) + NOTHING),
    "no patches": (64, bytes([PATCH, 8, 0]) + NOTHING),
    "more patches than items": (64, bytes([PATCH, 8, 9]) + NOTHING),
    "patches without end": (1 << 30, bytes([PATCH, 1]) + b"\x80\x80\x80\x01" + NOTHING),
    "patch outside": (64, bytes([PATCH, 8, 1, 8, *bytes(8)]) + NOTHING),
    "second patch outside": (64, bytes([PATCH, 8, 2, 0, *bytes(8), 7, *bytes(8)]) + NOTHING),
    "patch far outside": (64, bytes([PATCH, 8, 1]) + HUGE + bytes(8) + NOTHING),
    "patches of 16 bytes": (64, bytes([PATCH, 16, 1, 0, *bytes(16)]) + NOTHING),
    "envelope of everything": (3, bytes([ENVELOPE, 2, 1]) + b"abc" + NOTHING),
    "envelope beyond its limit": (64, bytes([ENVELOPE, 33, 0]) + bytes(33) + NOTHING),
    "polynomial of degree 5": (64, bytes([POLYNOMIAL, 0, 5, 1, 1, 1, 1, 1, 1])),
    "polynomial of an unknown type": (64, bytes([POLYNOMIAL, 0x43, 0, 1])),
    "polynomial of parts": (63, bytes([POLYNOMIAL, 3, 0, 1])),
    "affine of 2 bytes": (64, bytes([AFFINE, 1]) + DOUBLES.pack(0, 1, 7)[:16]),
    "narrow doubles": (64, bytes([AFFINE, 0x43]) + DOUBLES.pack(0, 1, 7)[:16]),
    "affine of an unknown type": (64, bytes([AFFINE, 0x13]) + DOUBLES.pack(0, 1, 7)[:16]),
    "affine to infinity": (64, bytes([AFFINE, 3]) + DOUBLES.pack(0, float("inf"), 7)[:16]),
    "affine from nan": (64, bytes([AFFINE, 3]) + DOUBLES.pack(float("nan"), 1, 7)[:16]),
    "affine cut short": (64, bytes([AFFINE, 3]) + DOUBLES.pack(0, 1, 7)[:15]),
    "space of an unknown kind": (64, bytes([SPACE, 5]) + KEY + bytes(8) + b"\x02"),
    "space of parts": (63, bytes([SPACE, 0]) + KEY + bytes(8) + b"\x02"),
    "space cut short": (64, bytes([SPACE, 0]) + KEY),
    "permuted beyond its end": (64, bytes([PERMUTED, 8]) + KEY + b"\x06\x00"),
    "permuted from beyond its end": (8, bytes([PERMUTED, 8]) + KEY + b"\x06\x07"),
    "permuted of 2 bytes": (64, bytes([PERMUTED, 2]) + KEY + b"\x7f\x00"),
    "permuted that 4 bytes cannot hold": (64, bytes([PERMUTED, 4]) + KEY + HUGE + b"\x00"),
    "mersenne of an unknown form": (64, bytes([MERSENNE, 2, 5, 0])),
    "mersenne of a long seed": (64, bytes([MERSENNE, 0]) + HUGE + b"\x00"),
    "mersenne after many draws": (64, bytes([MERSENNE, 0, 5]) + HUGE),
    "pcg of an unknown form": (64, bytes([PCG, 3]) + bytes(16) + b"\x01" + bytes(15)),
    "pcg with an even increment": (64, bytes([PCG, 0]) + bytes(16) + b"\x02" + bytes(15)),
    "too deep": (64, nested(bytes([ENVELOPE, 0, 0]), DEPTH_MAX, NOTHING)),
    "much too deep": (64, nested(bytes([ENVELOPE, 0, 0]), 100_000, NOTHING)),
    "no bytes": (0, bytes([LITERAL])),
    "more than a formula may": ((1 << 30) + 1, bytes([TILE, 1]) + ONE),
    "more than there is": (2**48 - 1, bytes([TILE, 1]) + ONE),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_formula_is_grown(name: str) -> None:
    """The shapes that are crafted below are accepted when nothing is wrong with them."""
    raw_bytes, expression = SOUND[name]
    assert len(formula.regrow(b"\x01" + expression, raw_bytes)) == raw_bytes


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_formula_is_refused_without_allocating(name: str) -> None:
    """What breaks a rule raises CorruptFrameError, and no memory is taken for the block."""
    raw_bytes, expression = CRAFTED[name]
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFrameError):
            formula.regrow(b"\x01" + expression, raw_bytes)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 500_000


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused(version: int) -> None:
    """A version that is not known raises."""
    with pytest.raises(CorruptFrameError, match="version"):
        formula.regrow(bytes([version]) + SOUND["tile"][1], 64)


@pytest.mark.parametrize("name", SOUND)
def test_every_truncation_and_extension_is_found(name: str) -> None:
    """A formula cut short or followed by anything is none, nor is one for a block of another length of items."""
    raw_bytes, expression = SOUND[name]
    stored = b"\x01" + expression
    for damaged in [*(stored[:length] for length in range(len(stored))), stored + b"\x00"]:
        with pytest.raises(CorruptFrameError):
            formula.regrow(damaged, raw_bytes)


@given(
    st.sampled_from(sorted(SOUND)),
    st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=4),
    st.integers(0, 5_000),
)
def test_any_bytes_are_refused_or_grown(name: str, edits: list[tuple[int, int]], raw_bytes: int) -> None:
    """Whatever bytes a formula has, it raises CorruptFrameError or gives just as many bytes as are declared."""
    stored = bytearray(b"\x01" + SOUND[name][1])
    for place, value in edits:
        stored[place % len(stored)] = value
    with contextlib.suppress(CorruptFrameError):
        assert len(formula.regrow(stored, raw_bytes)) == raw_bytes


@given(st.binary(max_size=80), st.integers(1, 10_000))
def test_noise_is_refused_or_grown(noise: bytes, raw_bytes: int) -> None:
    """Random bytes behind a version are no formula, or one of a block of this length."""
    with contextlib.suppress(CorruptFrameError):
        assert len(formula.regrow(b"\x01" + noise, raw_bytes)) == raw_bytes


def slowest() -> dict[str, tuple[int, bytes]]:
    """What takes longest for the length of its block: deep nests, many patches, long skips, walks of permutations."""
    size, patches = 1 << 19, bytes([PATCH, 1]) + b"\xe0\xd4\x03" + b"\x00\x00" * 60_000
    return {
        "nest": (size + 9, nested(bytes([ENVELOPE, 1, 0, 9]), 9, bytes([SPACE, 4]) + KEY + bytes(8) + b"\x02")),
        "patches": (size, nested(patches, DEPTH_MAX - 1, NOTHING)),
        "skips": (size, bytes([MERSENNE, 0, 5]) + b"\xff\xff\x3f"),
        "walks": (size, bytes([PERMUTED, 8]) + KEY + b"\x80\x80\x04" + b"\x00"),
    }


@pytest.mark.parametrize("name", slowest())
def test_the_slowest_formulas_come_to_an_end(name: str) -> None:
    """What a block of half a megabyte can be made to cost is a constant times its length."""
    raw_bytes, expression = slowest()[name]
    assert len(formula.regrow(b"\x01" + expression, raw_bytes)) == raw_bytes


def test_walks_of_few_numbers_end() -> None:
    """Permutations of three numbers, whose walks are the longest, are those of the network in plain Python."""
    rounds = 8
    mask, multiplier = 2**64 - 1, 0xBEA225F9EB34556D

    def mixed(key: tuple[int, int, int], word: int) -> int:
        z = word ^ key[0]
        z = ((z ^ z >> 32) * multiplier + key[1]) & mask
        z = (z ^ z >> 29) * multiplier & mask
        z = (z ^ z >> 32) * multiplier & mask
        return z ^ z >> 29 ^ key[2]

    def step(key: tuple[int, int, int], number: int) -> int:
        left, right = number >> 1, number & 1
        for turn in range(rounds):
            if turn % 2 == 0:
                left ^= mixed(key, right + (turn << 32)) >> 63
            else:
                right ^= mixed(key, left + (turn << 32)) >> 63
        return left << 1 | right

    draw = random.Random(1)
    for _ in range(200):
        key = (draw.getrandbits(64), draw.getrandbits(64), draw.getrandbits(64))
        expression = bytes([PERMUTED, 8]) + b"".join(word.to_bytes(8, "little") for word in key) + b"\x02\x00"
        walked = []
        for number in range(3):
            at = step(key, number)
            while at > 2:
                at = step(key, at)
            walked.append(at)
        assert numpy.frombuffer(formula.regrow(b"\x01" + expression, 24), "u8").tolist() == walked


def test_a_damaged_formula_names_itself() -> None:
    """The message tells that a formula is damaged, of how many bytes, and why."""
    with pytest.raises(CorruptFrameError, match=r"formula of 64 bytes is damaged: it is cut short"):
        formula.regrow(b"\x01" + SOUND["pcg"][1][:-1], 64)


def test_a_frame_of_a_formula_is_checked_before_it_is_grown() -> None:
    """A frame that says another raw length than its formula can give is damaged."""
    block = numpy.arange(10_000, dtype="u8").tobytes()
    frame = FrameCodec().encode([block], [8])
    assert len(frame) < 32
    with pytest.raises(CorruptFrameError):
        FrameCodec().decode(frame[:-1])


def test_only_known_words_are_remembered() -> None:
    """Starts of other lengths and keys of other words are refused."""
    with pytest.raises(ValueError, match="16 bytes"):
        _formula.remember_start(b"short", b"")
    with pytest.raises(IndexError, match="k2"):
        _formula.remember_key((1, 2, 2**64))
    assert not _formula.remember_expression(b"\xff")
