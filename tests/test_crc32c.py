"""CRC-32C: the published values, by instruction and by table."""

import random

from hypothesis import given
from hypothesis import strategies as st

from spectral_alloc import _frame


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
