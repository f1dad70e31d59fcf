"""A statistical battery for functions of an address: what breaks weak mixers, in the orders in which they break.

    PYTHONPATH=.:tests python tests/battery.py           # the table: smallest p-value of each check and order

Words: a *source* gives the 64-bit word of an address for a seed; an *order* says which addresses (and seeds) follow
each other; a *check* turns words into a p-value, the chance that truly random words look as odd, times the number of
things that the check looked at. A source fails a check below FAIL_BELOW, which chance does once in a billion checks.
Cost: some seconds for each source and order.
"""

import math
from collections.abc import Callable

import numpy
from numpy.typing import NDArray

from spectral_alloc._generator import Generator
from spectral_alloc.space_key import seed_key

Words = NDArray[numpy.uint64]
Source = Callable[[Words, int], Words]
U = numpy.uint64

COUNT = 1 << 21
FAIL_BELOW = 1e-9
RANK_SIZE = 512
LAG_COUNT, LAG_SAMPLES, LAG_SHIFT = 1 << 18, 128, 31
SEEDS_PER_TURN = 16
# the primes below 2**16 from the largest on: those whose sum the published linear complexity of the prototype gives
PRIMES = [p for p in range(65535, 65300, -1) if all(p % q for q in range(2, 256))][:16]


# Sources


def ours(addresses: Words, seed: int) -> Words:
    """The function of GenerativeSpace, version 1."""
    return Generator(seed_key(seed)).bits(addresses)


def murmur(addresses: Words, seed: int) -> Words:
    """The finaliser of MurmurHash3 (fmix64), with the seed XORed in."""
    x = addresses ^ U(seed)
    x = (x ^ x >> U(33)) * U(0xFF51AFD7ED558CCD)
    x = (x ^ x >> U(33)) * U(0xC4CEB9FE1A85EC53)
    return x ^ x >> U(33)


def splitmix(addresses: Words, seed: int) -> Words:
    """SplitMix64 at a position of its counter; the seed is where the counter starts."""
    z = addresses * U(0x9E3779B97F4A7C15) + U(seed)
    z = (z ^ z >> U(30)) * U(0xBF58476D1CE4E5B9)
    z = (z ^ z >> U(27)) * U(0x94D049BB133111EB)
    return z ^ z >> U(31)


def residues(addresses: Words, seed: int) -> Words:
    """The form of the Generative Memory prototype: a table for each of 16 residues, XORed; the seed is XORed in."""
    x = addresses ^ U(seed)
    word = numpy.zeros_like(x)
    for place, prime in enumerate(PRIMES):
        word ^= murmur(x % U(prime), place << 32)
    return word


SOURCES: dict[str, Source] = {"ours": ours, "fmix64": murmur, "SplitMix64": splitmix, "prototype": residues}


# Orders


def bit_reversed(numbers: Words) -> Words:
    """The 64 bits of each number in the opposite order."""
    for shift, mask in (
        (1, 0x5555555555555555), (2, 0x3333333333333333), (4, 0x0F0F0F0F0F0F0F0F),
        (8, 0x00FF00FF00FF00FF), (16, 0x0000FFFF0000FFFF), (32, 0x00000000FFFFFFFF),
    ):  # fmt: skip
        numbers = numbers >> U(shift) & U(mask) | (numbers & U(mask)) << U(shift)
    return numbers


def interleaved(source: Source, count: int) -> Words:
    """16 addresses of one seed, then the same addresses of the next, and so on."""
    addresses = numpy.arange(SEEDS_PER_TURN, dtype=U)
    return numpy.concatenate([source(addresses, seed) for seed in range(count // SEEDS_PER_TURN)])


ORDERS: dict[str, Callable[[Source, int], Words]] = {
    "sequential": lambda source, count: source(numpy.arange(count, dtype=U), 1337),
    "strided": lambda source, count: source(numpy.arange(count, dtype=U) << U(32), 1337),
    "bit-reversed": lambda source, count: source(bit_reversed(numpy.arange(count, dtype=U)), 1337),
    "interleaved": interleaved,
}


# Chances


def normal_chance(z: float) -> float:
    """That a normal variate is at least so far from 0."""
    return math.erfc(abs(z) / math.sqrt(2))


def squares_chance(chi: float, degrees: int) -> float:
    """That a sum of squares is at least so large (Wilson and Hilferty)."""
    z = ((chi / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / math.sqrt(2 / (9 * degrees))
    return math.erfc(z / math.sqrt(2)) / 2


def poisson_chance(seen: int, mean: float) -> float:
    """That at least, or at most, so many rare events happen; whichever is smaller, doubled."""
    if mean > 1000:
        return normal_chance((seen - mean) / math.sqrt(mean))
    below = math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(seen))
    exactly = math.exp(seen * math.log(mean) - mean - math.lgamma(seen + 1))
    above = math.fsum(
        math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(seen, seen + 200 + int(10 * mean))
    )
    return min(1.0, 2 * min(below + exactly, above))


def bit_counts(words: Words) -> NDArray[numpy.int64]:
    """How many words have each bit set."""
    bits = numpy.unpackbits(words.view(numpy.uint8).reshape(-1, 8), axis=1, bitorder="little")
    return bits.sum(axis=0, dtype=numpy.int64)


def most_uneven(words: Words, looked_at: int) -> float:
    """The p-value of the bit that is set least evenly."""
    counts = bit_counts(words)
    z = max(abs(counts - len(words) / 2)) / math.sqrt(len(words) / 4)
    return min(1.0, normal_chance(float(z)) * looked_at)


# Checks


def flips(words: Words) -> float:
    """Between words at distances of powers of two, bits, and pairs of bits some places apart, flip half the time."""
    distances = [1 << k for k in range(0, 20, 3)]
    apart = (0, 1, 2, 3, 7, 16, 31)
    lowest = 1.0
    for distance in distances:
        blocks = words.reshape(-1, 2, distance)
        changed = (blocks[:, 0] ^ blocks[:, 1]).reshape(-1)
        for shift in apart:
            rotated = changed if shift == 0 else changed ^ (changed >> U(shift) | changed << U(64 - shift))
            lowest = min(lowest, most_uneven(rotated, 64 * len(distances) * len(apart)))
    return lowest


def binary_rank(words: Words) -> float:
    """Matrices of bits have the ranks that random ones have: rows of whole words, of bytes of words, of single bits."""
    raw = words.view(numpy.uint8).reshape(-1, 8)
    size_bytes = RANK_SIZE * RANK_SIZE // 8
    pieces = [raw.reshape(-1)[start * size_bytes :][:size_bytes] for start in range(8)]
    pieces += [numpy.ascontiguousarray(raw[:, byte]).reshape(-1)[:size_bytes] for byte in range(8)]
    for bit in (0, 1, 2, 31, 32, 61, 62, 63):
        bits = (words[: RANK_SIZE**2] >> U(bit) & U(1)).astype(numpy.uint8)
        pieces.append(numpy.packbits(bits))
    lowest = 1.0
    for piece in pieces:
        lost = RANK_SIZE - rank_of([int.from_bytes(row.tobytes(), "little") for row in piece.reshape(RANK_SIZE, -1)])
        # a random matrix loses k dimensions with a chance near 3.5 * 2**(-k * k)
        lowest = min(lowest, 3.5 * 2.0 ** -min(lost * lost, 1000) * len(pieces))
    return min(1.0, lowest)


def rank_of(rows: list[int]) -> int:
    """The rank of rows of bits."""
    by_length: dict[int, int] = {}
    for row in rows:
        rest = row
        while rest:
            pivot = by_length.setdefault(rest.bit_length(), rest)
            if pivot is rest:
                break
            rest ^= pivot
    return len(by_length)


def birthday_spacings(words: Words) -> float:
    """2**12 birthdays in a year of 2**32 days: spacings that come twice are Poisson with a mean of 4 (Marsaglia)."""
    lowest, places, groups = 1.0, (0, 8, 16, 24, 32), len(words) >> 12
    for place in places:
        days = numpy.sort((words >> U(place) & U(0xFFFFFFFF)).reshape(groups, -1), axis=1)
        spacings = numpy.sort(numpy.diff(days, axis=1), axis=1)
        repeats = int((spacings[:, 1:] == spacings[:, :-1]).sum())
        lowest = min(lowest, poisson_chance(repeats, groups * 4.0) * len(places))
    return min(1.0, lowest)


def gaps(words: Words) -> float:
    """The distances between words that lie in the lowest eighth, by their high, middle and low bits, are geometric."""
    lowest, places = 1.0, (61, 40, 20, 0)
    for place in places:
        hits = numpy.flatnonzero((words >> U(place) & U(7)) == 0)
        lengths = numpy.minimum(numpy.diff(hits), 60)
        seen = numpy.bincount(lengths, minlength=61)[1:]
        share = (7 / 8) ** numpy.arange(60) / 8
        share[-1] = (7 / 8) ** 59
        expected = share * len(lengths)
        lowest = min(lowest, squares_chance(float(((seen - expected) ** 2 / expected).sum()), 59) * len(places))
    return min(1.0, lowest)


def runs(words: Words) -> float:
    """Ups and downs change as often as they should; so do the values of single bits."""
    is_up = words[1:] > words[:-1]
    turns = int((is_up[1:] != is_up[:-1]).sum())
    count = len(words)
    chances = [normal_chance((turns - (2 * count - 4) / 3) / math.sqrt((16 * count - 29) / 90))]
    chances.append(most_uneven(words[1:] ^ words[:-1], 64))
    return min(1.0, 2 * min(chances))


def lag_spacings(words: Words) -> float:
    """Differences of words at one distance do not repeat: a few starts, 2**18 distances; Poisson."""
    starts = numpy.arange(LAG_SAMPLES)
    mask = U((1 << 64 - LAG_SHIFT) - 1)
    first, repeats = words[starts] >> U(LAG_SHIFT), 0
    for begin in range(1, LAG_COUNT, 4096):
        lags = numpy.arange(begin, min(begin + 4096, LAG_COUNT))
        differences = (words[lags[:, None] + starts] >> U(LAG_SHIFT)) - first & mask
        differences.sort(axis=1)
        repeats += int((differences[:, 1:] == differences[:, :-1]).sum())
    mean = LAG_COUNT * (LAG_SAMPLES * (LAG_SAMPLES - 1) / 2) / 2.0 ** (64 - LAG_SHIFT)
    return poisson_chance(min(repeats, 10**6), mean)


CHECKS: dict[str, Callable[[Words], float]] = {
    "flips": flips,
    "binary rank": binary_rank,
    "birthday spacings": birthday_spacings,
    "gaps": gaps,
    "runs": runs,
    "lag spacings": lag_spacings,
}


def neighbouring_seeds(source: Source) -> float:
    """Words of neighbouring seeds differ in half of their bits, and the two sets of words have nothing in common."""
    addresses = numpy.arange(1 << 16, dtype=U)
    pairs = [(0, 1), (1336, 1337), (1337, 1338), (2**31 - 1, 2**31), (5, 5 ^ 2**40)]
    lowest = 1.0
    for first, second in pairs:
        one, two = source(addresses, first), source(addresses, second)
        lowest = min(lowest, most_uneven(one ^ two, 64 * len(pairs) * 2))
        common = len(numpy.intersect1d(one, two))
        lowest = min(lowest, poisson_chance(min(common, 10**6), 2.0**32 / 2.0**64) * len(pairs) * 2 if common else 1.0)
    return lowest


def table(names: list[str], count: int = COUNT) -> dict[str, dict[str, dict[str, float]]]:
    """Source -> order -> check -> p-value."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in names:
        found[name] = {}
        for order, make in ORDERS.items():
            words = make(SOURCES[name], count)
            found[name][order] = {check: work(words) for check, work in CHECKS.items()}
        found[name]["two seeds"] = {"neighbours": neighbouring_seeds(SOURCES[name])}
    return found


def main() -> None:
    """Print the table."""
    print(f"smallest p-values over {COUNT:,} words; below {FAIL_BELOW:g} (marked *) is a failure")
    for name in SOURCES:
        for order, chances in table([name])[name].items():
            marks = (f"{check} {chance:.0e}{'*' if chance < FAIL_BELOW else ' '}" for check, chance in chances.items())
            print(f"{name:>11} {order:>13}: {'  '.join(marks)}", flush=True)


if __name__ == "__main__":
    main()
