"""parse_bytes and format_bytes: what people write for an amount of memory."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_alloc.units import BYTES_MAX, format_bytes, parse_bytes

POWERS = {
    "": 1, "b": 1, "byte": 1, "bytes": 1,
    "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12, "tb": 10**12,
    "p": 10**15, "pb": 10**15, "e": 10**18, "eb": 10**18,
    "ki": 2**10, "kib": 2**10, "mi": 2**20, "mib": 2**20, "gi": 2**30, "gib": 2**30, "ti": 2**40,
    "tib": 2**40, "pi": 2**50, "pib": 2**50, "ei": 2**60, "eib": 2**60,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1.5 GB", 1_500_000_000),
        ("512MiB", 512 << 20),
        ("48 MB", 48_000_000),
        ("100kB", 100_000),
        ("2g", 2_000_000_000),
        ("4096", 4096),
        (" 4096 B ", 4096),
        ("1 byte", 1),
        (".5k", 500),
        ("1. KiB", 1024),
        ("0", 0),
        ("0.0 TB", 0),
        ("1 EiB", 1 << 60),
    ],
)
def test_amounts_people_write(text: str, amount: int) -> None:
    """Numbers with decimal and binary units mean what they say."""
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("unit", POWERS)
def test_every_unit_in_any_case(unit: str) -> None:
    """A unit is known in lower, upper and mixed case, with and without a space."""
    for spelling in (unit, unit.upper(), unit.capitalize()):
        assert parse_bytes(f"1{spelling}") == POWERS[unit]
        assert parse_bytes(f"1 {spelling}") == POWERS[unit]


def test_fractions_are_exact_and_rounded_down() -> None:
    """Decimal fractions are computed exactly, then the part of a byte is dropped."""
    assert parse_bytes("1.1 GB") == 1_100_000_000
    assert parse_bytes("0.9999 B") == 0
    assert parse_bytes("2.5") == 2
    assert parse_bytes("0.3 KiB") == 307
    assert parse_bytes("1152921504606846975.999") == BYTES_MAX - 1


def test_whole_numbers_pass() -> None:
    """An int, and what counts as one, is the amount itself, up to the bound and not beyond."""

    class Index:
        def __index__(self) -> int:
            return 7

    assert [parse_bytes(n) for n in (0, 1, BYTES_MAX)] == [0, 1, BYTES_MAX]
    assert parse_bytes(Index()) == 7


@pytest.mark.parametrize(
    "value",
    [-1, BYTES_MAX + 1, "", " ", "-5", "-1 GB", "+5", "nan", "inf", "1e9", "GB", "5 XB", "5 GBB", "5 iB",
     "1,5 GB", "1 5", "1_000", "0x10", "1 EiB 1", "2 EiB", "1.15292150460684698e18", "٣", "5 \x00", "9" * 25,
     "1.." , "."],
)  # fmt: skip
def test_nonsense_is_refused_by_name(value: object) -> None:
    """Anything negative, absurd, or not understood is a ValueError with the name, the range and the value."""
    with pytest.raises(ValueError, match=r"^disk_limit must be from 0 to 1\.15 EB") as raised:
        parse_bytes(value, "disk_limit")  # type: ignore[arg-type]  # the point of the test
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize("value", [None, 1.5, 1e9, float("nan"), b"1 GB", True, False, [], {}, 1j])
def test_other_types_are_refused_by_name(value: object) -> None:
    """A float, None, bytes, a bool and anything else is a TypeError with the name and the value."""
    with pytest.raises(TypeError, match=f"^memory_limit must be an int.*{re.escape(repr(value))}"):
        parse_bytes(value)  # type: ignore[arg-type]  # the point of the test


@given(st.fractions(min_value=0, max_value=1000), st.sampled_from(sorted(POWERS)), st.integers(0, 12))
def test_parse_equals_exact_arithmetic(value: Fraction, unit: str, digits: int) -> None:
    """For any decimal number and unit the result is the exact product, rounded down."""
    scaled = int(value * 10**digits)
    text = f"{scaled // 10**digits}.{scaled % 10**digits:0{digits}d}" if digits else str(scaled)
    exact = int(Fraction(scaled, 10**digits) * POWERS[unit])
    if exact <= BYTES_MAX:
        assert parse_bytes(f"{text} {unit}") == exact


@given(st.integers(0, BYTES_MAX))
def test_format_can_be_parsed_back(amount: int) -> None:
    """A formatted amount parses to within half a unit in its third digit."""
    text = format_bytes(amount)
    assert re.fullmatch(r"[0-9.]{1,4} ([kMGTPE]?B)", text)
    assert abs(int(Fraction(text.split()[0]) * POWERS[text.split()[1].lower()]) - amount) <= max(
        amount // 200, 1
    )


def test_format_rounds_into_the_next_unit() -> None:
    """999.9 kB is written 1 MB, never 1000 kB; negative amounts keep their sign."""
    assert format_bytes(999_900) == "1 MB"
    assert format_bytes(9_999) == "10 kB"
    assert format_bytes(-1_500) == "-1.5 kB"
    assert format_bytes(1 << 60) == "1.15 EB"
