"""What the race stores and which keys it uses: the same for every system, made again from a number and a version.

Values are slices of pools that are made once from a fixed seed, so a value costs microseconds to make, no two values
share a mutable object, and what a key must hold now can be made again to compare a read with.
"""

import random
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy

SEED = 7
ZIPF_EXPONENT = 0.99
POOL_WORDS = 60_000
VOCABULARY = 5_000
POOL_NUMBERS = 100_000
TEXT_CHARACTERS = 200
STRING_CHARACTERS = 100
FLOATS = 16
TAGS = 6
ARRAY_ITEMS = 8_192
# Odd and far apart, so that neighbouring numbers and versions take slices that have nothing to do with each other.
NUMBER_STRIDE, VERSION_STRIDE = 7_919, 104_729


def key_of(number: int) -> str:
    """The key of one value; text, since that is what every system can store."""
    return f"user{number:07d}"


def pool_of_text(source: random.Random) -> str:
    """Words of a made-up language whose frequencies fall as in a real one."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words = ["".join(source.choices(syllables, k=source.randint(1, 4))) for _ in range(VOCABULARY)]
    weights = [1 / (rank + 3) for rank in range(VOCABULARY)]
    return " ".join(source.choices(words, weights, k=POOL_WORDS))


class Values(Protocol):
    """Makes the value of a key at a version, and tells whether a value is that."""

    def make(self, number: int, version: int) -> Any:
        """The value, all of its objects new."""

    def is_right(self, value: Any, number: int, version: int) -> bool:
        """Whether ``value`` is what ``make`` gives, in every part."""


class Records:
    """Dicts of eight fields with two lists: about 1.9 KB live, 0.7 KB pickled."""

    def __init__(self) -> None:
        source = random.Random(SEED)
        self.text = pool_of_text(source)
        self.numbers = array("d", [source.random() for _ in range(POOL_NUMBERS)])

    def make(self, number: int, version: int) -> dict[str, Any]:
        """One record."""
        text, at = self.text, number * NUMBER_STRIDE + version * VERSION_STRIDE
        start, first = at % (len(text) - TEXT_CHARACTERS), at % (POOL_NUMBERS - FLOATS)
        name = text[start + 5 : start + 21]
        return {
            "id": number,
            "version": version,
            "name": name,
            "email": f"{name[:8]}.{number}@example.org",
            "scores": self.numbers[first : first + FLOATS].tolist(),
            "tags": [text[begin : begin + 8] for begin in range(start + 20, start + 20 + TAGS * 9, 9)],
            "text": text[start : start + TEXT_CHARACTERS],
            "active": number % 3 == 0,
        }

    def is_right(self, value: Any, number: int, version: int) -> bool:
        """Whether every field is equal."""
        return bool(value == self.make(number, version))


class Arrays:
    """float64 arrays of 64 KB, a random walk each: noise in the low bits, so that compression gains little."""

    def __init__(self) -> None:
        self.walk = numpy.random.default_rng(SEED).normal(size=POOL_NUMBERS).cumsum()

    def slice_of(self, number: int, version: int) -> numpy.ndarray:
        """The part of the pool that the value is a copy of, but for its first two items."""
        start = (number * NUMBER_STRIDE + version * VERSION_STRIDE) % (POOL_NUMBERS - ARRAY_ITEMS)
        return self.walk[start : start + ARRAY_ITEMS]

    def make(self, number: int, version: int) -> numpy.ndarray:
        """One array that begins with its number and version."""
        made = self.slice_of(number, version).copy()
        made[:2] = number, version
        return made

    def is_right(self, value: Any, number: int, version: int) -> bool:
        """Whether every item is equal."""
        if tuple(value[:2]) != (number, version):
            return False
        return bool(numpy.array_equal(value[2:], self.slice_of(number, version)[2:]))


class Strings:
    """Text of 100 characters: 149 bytes live."""

    def __init__(self) -> None:
        self.text = pool_of_text(random.Random(SEED))

    def make(self, number: int, version: int) -> str:
        """One text that begins with its number and version."""
        head = f"{number} {version} "
        start = (number * NUMBER_STRIDE + version * VERSION_STRIDE) % (len(self.text) - STRING_CHARACTERS)
        return head + self.text[start : start + STRING_CHARACTERS - len(head)]

    def is_right(self, value: Any, number: int, version: int) -> bool:
        """Whether every character is equal."""
        return bool(value == self.make(number, version))


@dataclass(frozen=True)
class Workload:
    """How many values of which kind, how many operations, and which share of them writes.

    ``live_bytes`` is what one value takes as objects, measured: peers that count entries or weights are told it.
    """

    values: Callable[[], Values]
    live_bytes: int
    value_count: int
    operation_count: int
    write_share: float

    def scaled(self, scale: float) -> "Workload":
        """The same with fewer values and operations."""
        return replace(
            self,
            value_count=max(1, round(self.value_count * scale)),
            operation_count=max(1, round(self.operation_count * scale)),
        )

    def operations(self) -> tuple[array, bytearray]:
        """The number of the value that each operation uses, and whether it writes.

        Ranks follow a Zipf law; which value has which rank is shuffled, so that popular values are not neighbours in
        the order in which they were stored.
        """
        source = numpy.random.default_rng(SEED)
        weights = numpy.arange(1, self.value_count + 1, dtype=float) ** -ZIPF_EXPONENT
        bounds = weights.cumsum()
        ranks = bounds.searchsorted(source.random(self.operation_count) * bounds[-1])
        numbers = source.permutation(self.value_count)[ranks.clip(max=self.value_count - 1)]
        writes = source.random(self.operation_count) < self.write_share
        return array("L", numbers.astype(numpy.uint64).tobytes()), bytearray(writes.tobytes())


WORKLOADS = {
    "records": Workload(Records, 1_900, 600_000, 400_000, 0.1),
    "records-0": Workload(Records, 1_900, 600_000, 400_000, 0.0),
    "records-50": Workload(Records, 1_900, 600_000, 400_000, 0.5),
    "arrays": Workload(Arrays, 65_700, 16_000, 40_000, 0.1),
    "strings": Workload(Strings, 149, 600_000, 400_000, 0.1),
}
