"""The function of the spaces: known answers, the twin, its inverse, and every level of vector instructions."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from space_twin import EDGES, KINDS, expected, twin

from spectral_alloc import GenerativeSpace, SortedSpace, _generator
from spectral_alloc._generator import Generator
from spectral_alloc.permutation import Permutation
from spectral_alloc.space_key import normal_seed, seed_key

VECTORS = Path(__file__).parent / "data" / "space_vectors_1.json"
STRIDES = (1, 2**32, 0x9E3779B97F4A7C15, 2**53 + 1)
words = st.integers(0, 2**64 - 1)
keys = st.tuples(words, words, words)


@pytest.fixture(params=_generator.levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each level that this processor runs, in use."""
    before = _generator.level()
    _generator.use_level(request.param)
    yield request.param
    _generator.use_level(before)


def seeds_of(answer: dict) -> int | str | bytes:
    """The seed that a record of the file is about."""
    kind, text = answer["seed"]["kind"], answer["seed"]["text"]
    return int(text) if kind == "int" else text if kind == "str" else bytes.fromhex(text)


def test_the_file_of_known_answers_is_what_the_twin_computes() -> None:
    """The frozen file and the program in plain Python agree to the last character."""
    assert VECTORS.read_text(encoding="ascii") == json.dumps(twin.vectors(), indent=1, ensure_ascii=True) + "\n"


def test_the_library_gives_the_known_answers(level: str) -> None:
    """Every value in the frozen file, one by one and as an array, at every level."""
    file = json.loads(VECTORS.read_text(encoding="ascii"))
    addresses = [int(address, 16) for address in file["addresses"]]
    for answer in file["answers"]:
        seed = seeds_of(answer)
        assert [f"{word:016x}" for word in seed_key(seed)] == answer["key"]
        kinds = {name: answer[name] for name in ("float64", "float32", "normal")}
        for name, wanted in kinds.items():
            space = GenerativeSpace(seed, values=name)
            assert [space[address].hex() for address in addresses] == wanted
            assert [float(value).hex() for value in space.gather(addresses)] == wanted
        space = GenerativeSpace(seed, values="uint64")
        assert [f"{space[address]:016x}" for address in addresses] == answer["bits"]
        assert [f"{bits:016x}" for bits in space.bits(addresses)] == answer["bits"]
        for (low, span), wanted in zip(file["ranges"], answer["range"], strict=True):
            if low + span <= 2**63:
                space = GenerativeSpace(seed, values=range(low, low + span))
                assert [space[address] for address in addresses] == wanted
        for n, permuted, values in zip(file["sizes"], answer["permutation"], answer["sorted"], strict=True):
            places = sorted({0, n // 2, n - 1})
            assert [Permutation(n, seed)[place] for place in places] == permuted
            assert [SortedSpace(n, seed)[place] for place in places] == values


@given(keys, st.lists(words, min_size=1, max_size=40))
def test_address_of_inverts_bits_for_any_key(key: tuple[int, int, int], addresses: list[int]) -> None:
    """inverse(f(x)) == x and f(inverse(x)) == x, alone and in arrays, and the twin agrees."""
    generator = Generator(key)
    for address in (*addresses, *EDGES):
        bits = generator.bits(address)
        assert bits == twin.mix(key, address)
        assert generator.address_of(bits) == address == twin.unmix(key, bits)
        assert generator.bits(generator.address_of(address)) == address
    array = numpy.array(addresses, dtype=numpy.uint64)
    assert (generator.address_of(generator.bits(array)) == array).all()


@pytest.mark.parametrize("stride", STRIDES)
def test_no_two_of_many_addresses_share_their_bits(stride: int, long_mode: bool) -> None:
    """2**26 consecutive and strided addresses: each is found again, and (fewer, unless long) no word is there twice."""
    generator = Generator(seed_key("distinct"))
    block_count = 1 << 22
    for start in range(0, 1 << 26, block_count):
        numbers = numpy.arange(start, start + block_count, dtype=numpy.uint64) * numpy.uint64(stride)
        assert (generator.address_of(generator.bits(numbers)) == numbers).all()
    count = 1 << (26 if long_mode else 20)
    bits = generator.bits(numpy.arange(count, dtype=numpy.uint64) * numpy.uint64(stride))
    bits.sort()
    assert (bits[1:] > bits[:-1]).all()


@pytest.mark.parametrize("values", KINDS, ids=str)
def test_all_ways_to_read_agree_with_the_twin(level: str, values: str | range) -> None:
    """Scalar, slice, gather and fill give the twin's values, for every length of head and tail, at both ends."""
    space = GenerativeSpace("ways", values=values)
    key = seed_key("ways")
    for start in (0, 3, 2**32 - 20, 2**64 - 70):
        wanted = [expected(values, key, address) for address in range(start, start + 70)]
        assert [space[address] for address in range(start, start + 70)] == wanted
        for length in (*range(20), 33, 70):
            assert space[start : start + length].tolist() == wanted[:length]
            assert space.gather(numpy.arange(start, start + length, dtype=numpy.uint64)).tolist() == wanted[:length]
            out = numpy.empty(length + 1, dtype=space.dtype)
            assert space.fill(out[1:], start=start).tolist() == wanted[:length]
        assert space[start : start + 70 : 7].tolist() == wanted[::7]
        assert space[start + 69 : start : -3].tolist() == wanted[69:0:-3]


@pytest.mark.parametrize("values", ["float64", "uint64", "float32", "normal", range(10)], ids=str)
def test_large_fills_agree_with_small_ones(level: str, values: str | range) -> None:
    """Where stores go past the caches, from any alignment, nothing changes."""
    space = GenerativeSpace("large", values=values)
    count = (1 << 20) // 4 + 13
    base = numpy.empty(count + 8, dtype=space.dtype)
    for offset in (0, 1, 5):
        for start, step in ((7, 1), (2**63, 2**40 + 1), (2**64 - 1, -3)):
            out = space.fill(base[offset : offset + count], start=start, step=step)
            addresses = numpy.uint64(start) + numpy.arange(count, dtype=numpy.uint64) * numpy.uint64(step % 2**64)
            assert (out == space.gather(addresses)).all()


def test_levels_are_bit_identical_on_random_addresses() -> None:
    """A million random addresses give the same bytes at every level."""
    addresses = numpy.random.default_rng(1).integers(0, 2**64, 1 << 20, dtype=numpy.uint64)
    before = _generator.level()
    seen = {}
    try:
        for name in _generator.levels():
            _generator.use_level(name)
            seen[name] = [GenerativeSpace(3, values=kind).gather(addresses).tobytes() for kind in KINDS]
    finally:
        _generator.use_level(before)
    assert all(found == seen["baseline"] for found in seen.values())


def test_floats_stay_below_one() -> None:
    """The largest words give the largest float below 1, never 1; the smallest give 0."""
    for values, largest in (("float64", 1 - 2.0**-53), ("float32", 1 - 2.0**-24)):
        space = GenerativeSpace(5, values=values)
        top, bottom = space.address_of(2**64 - 1), space.address_of(0)
        assert (space[top], space[bottom]) == (largest, 0.0)
        assert space.gather([top, bottom] * 20).tolist() == [largest, 0.0] * 20


def test_normal_variates_are_the_quantiles_of_the_bits() -> None:
    """Against the standard library to 1e-12, in centre and tails, symmetric, and in order of the bits."""
    space = GenerativeSpace(8, values="normal")
    law = NormalDist()
    halves = [*range(2**62, 2**63, 2**56), *(2**e for e in range(10, 63))]
    for half in halves:
        value, mirrored = space[space.address_of(half)], space[space.address_of(half | 2**63)]
        assert value == -mirrored
        assert math.isclose(value, -law.inv_cdf((half + 0.5) / 2**64), rel_tol=1e-12, abs_tol=1e-12)
    values = [space[space.address_of(half)] for half in sorted(halves)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("span", [3, 10, 2**62 + 1, 2**63 - 1])
def test_numbers_of_a_range_are_even(span: int) -> None:
    """Chi-square over 12 equal cells stays small, also where a modulo would be off by a factor of two."""
    sample = GenerativeSpace("even", values=range(span))[: 1 << 16]
    cells = min(span, 12)
    edges = [span * cell // cells for cell in range(cells + 1)]
    counts = numpy.diff(numpy.searchsorted(numpy.sort(sample), edges))
    wanted = numpy.diff(numpy.array(edges, dtype=object)) * len(sample) / span
    assert float(((counts - wanted) ** 2 / wanted).sum()) < 45
    assert sample.min() >= 0
    assert sample.max() < span


def test_rejected_words_take_the_bits_of_the_next_address() -> None:
    """Words below 2**64 mod span are replaced, as the twin says; the number of draws is bounded."""
    span = 2**63 - 1
    space, key = GenerativeSpace("reject", values=range(span)), seed_key("reject")
    rejected = space.address_of(0)
    assert twin.mix(key, rejected) * span % 2**64 < 2**64 % span
    assert space[rejected] == twin.number(key, rejected, 0, span) == space.gather([rejected])[0]


def test_seeds_of_different_types_and_sizes_are_different_spaces() -> None:
    """Equal only if equal as seeds: an int is not its text, a text not its bytes; numpy integers are ints."""
    seeds = [0, -1, 1, 255, -256, 2**64, 2**1000, "", "0", "1", b"", b"0", b"\x00", "é", "e\u0301", "\ud800"]
    assert len({seed_key(seed) for seed in seeds}) == len(seeds)
    assert normal_seed(numpy.int64(5)) == 5
    assert GenerativeSpace(numpy.uint8(7)) == GenerativeSpace(7)
    for wrong in (1.5, None, True, [1], bytearray(b"x")):
        with pytest.raises(TypeError, match="seed must be an int, str or bytes"):
            GenerativeSpace(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", _generator.levels())
def test_the_environment_chooses_the_level(name: str) -> None:
    """SPECTRAL_ALLOC_SIMD sets the level at import, in any case of letters."""
    code = "from spectral_alloc import _generator; print(_generator.level())"
    environment = {**os.environ, "SPECTRAL_ALLOC_SIMD": name.upper()}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == name


def test_an_unknown_level_is_an_import_error() -> None:
    """A level that does not exist is named, with those that do."""
    code = "import spectral_alloc"
    environment = {**os.environ, "SPECTRAL_ALLOC_SIMD": "avx9000"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "the level must be one of baseline" in done.stderr
    assert "avx9000" in done.stderr
    with pytest.raises(ValueError, match="the level must be one of"):
        _generator.use_level("sse")
