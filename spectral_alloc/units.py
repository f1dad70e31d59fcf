"""Amounts of bytes as people write them: "1.5 GB" to a whole number and back."""

import re
from fractions import Fraction
from typing import SupportsIndex

__all__ = ["BYTES_MAX", "format_bytes", "parse_bytes"]

BYTES_MAX = 1 << 60
PREFIXES = "kmgtpe"
AMOUNT_PATTERN = re.compile(
    rf"\s*(?P<number>[0-9]{{1,24}}(?:\.[0-9]{{0,24}})?|\.[0-9]{{1,24}})"
    rf"\s*(?:(?P<prefix>[{PREFIXES}])(?P<binary>i?)b?|b|bytes?)?\s*",
    re.ASCII | re.IGNORECASE,
)


def parse_bytes(value: SupportsIndex | str, name: str = "memory_limit") -> int:
    """Return the whole number of bytes that ``value`` stands for, rounded down.

    Parameters: value (a number of bytes, or a string of a decimal number and a unit: none or B for bytes; kB,
    MB, GB, TB, PB, EB and the bare letters k to e for powers of 1000; KiB to EiB and Ki to Ei for powers of
    1024; case and spaces do not matter), name (what the error messages call it).
    Raises ValueError for anything outside 0 to 2**60 bytes or not understood, TypeError for another type (a
    bool and a float are other types). 0 is allowed: keep nothing that can leave.

    >>> parse_bytes("1.5 GB"), parse_bytes("512MiB"), parse_bytes("2g"), parse_bytes(4096)
    (1500000000, 536870912, 2000000000, 4096)
    >>> parse_bytes("-1 GB")
    Traceback (most recent call last):
    ValueError: memory_limit must be from 0 to 1.15 EB (2**60 bytes), as an int or like "1.5 GB", not '-1 GB'
    """
    if isinstance(value, str):
        amount = amount_of_text(value)
    elif isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f'{name} must be an int (bytes) or a str like "1.5 GB", not {value!r}')
    else:
        amount = value.__index__()
    if amount is None or not 0 <= amount <= BYTES_MAX:
        limits = f'from 0 to {format_bytes(BYTES_MAX)} (2**60 bytes), as an int or like "1.5 GB"'
        raise ValueError(f"{name} must be {limits}, not {value!r}")
    return amount


def amount_of_text(text: str) -> int | None:
    """Return the bytes that a text stands for, None if it is not understood."""
    match = AMOUNT_PATTERN.fullmatch(text)
    if match is None:
        return None
    power = PREFIXES.index(match["prefix"].lower()) + 1 if match["prefix"] else 0
    base = 1024 if match["binary"] else 1000
    # Fraction("1.") is refused by Python 3.11 and accepted later.
    return int(Fraction(match["number"].rstrip(".")) * base**power)


def format_bytes(amount: int) -> str:
    """Return an amount of bytes in powers of 1000 with three significant digits.

    >>> format_bytes(1_500_000_000), format_bytes(48_000_000), format_bytes(999), format_bytes(0)
    ('1.5 GB', '48 MB', '999 B', '0 B')
    """
    sign = "-" if amount < 0 else ""
    scaled = Fraction(abs(amount))
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        digits = 0 if unit == "B" or scaled >= 100 else 1 if scaled >= 10 else 2
        rounded = round(scaled, digits)
        if rounded < 1000:
            return f"{sign}{float(rounded):g} {unit}"
        scaled /= 1000
    return f"{sign}{float(scaled):.3g} EB"
