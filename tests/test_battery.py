"""The statistical battery: our function passes it in every order, and what is known to be weak fails it."""

import numpy
import pytest
from battery import (
    CHECKS,
    COUNT,
    FAIL_BELOW,
    ORDERS,
    PRIMES,
    SOURCES,
    neighbouring_seeds,
    poisson_chance,
    rank_of,
    table,
)

WEAK = [("fmix64", "sequential"), ("SplitMix64", "bit-reversed"), ("prototype", "interleaved")]


@pytest.mark.long
def test_our_function_passes_in_every_order() -> None:
    """No check of any order comes near the threshold."""
    for order, chances in table(["ours"])["ours"].items():
        for check, chance in chances.items():
            assert chance > 1e-5, (order, check, chance)


@pytest.mark.long
@pytest.mark.parametrize(("source", "order"), WEAK)
def test_the_battery_finds_weak_functions(source: str, order: str) -> None:
    """Each fails at least one check in the order in which it is known to be weak."""
    words = ORDERS[order](SOURCES[source], COUNT)
    assert min(check(words) for check in CHECKS.values()) < FAIL_BELOW


def test_the_prototypes_seeds_are_one_space_permuted() -> None:
    """Neighbouring seeds of the prototype have the same words; ours have none in common."""
    assert neighbouring_seeds(SOURCES["prototype"]) < FAIL_BELOW
    assert neighbouring_seeds(SOURCES["ours"]) > 1e-5


def test_xor_over_a_cube_of_the_prototype_is_always_zero() -> None:
    """The corners of a cube with steps that are products of primes cancel in the prototype, and not in ours."""
    groups = [PRIMES[0:3], PRIMES[3:6], PRIMES[6:9], PRIMES[9:12], PRIMES[12:15], PRIMES[15:]]
    steps = [int(numpy.prod(group, dtype=object)) for group in groups]
    corners = [sum(step for bit, step in enumerate(steps) if corner >> bit & 1) for corner in range(64)]
    for start in range(0, 10**15, 10**14):
        addresses = numpy.array([start + corner for corner in corners], dtype=numpy.uint64)
        assert numpy.bitwise_xor.reduce(SOURCES["prototype"](addresses, 0)) == 0
        assert numpy.bitwise_xor.reduce(SOURCES["ours"](addresses, 0)) != 0


def test_the_chances_are_right() -> None:
    """Ranks of small matrices, and Poisson tails, against values worked out by hand."""
    assert rank_of([0b101, 0b011, 0b110]) == 2
    assert rank_of([1, 2, 4, 0]) == 3
    assert poisson_chance(0, 1.0) == pytest.approx(2 * 0.36787944, rel=1e-6)
    assert poisson_chance(10, 1.0) == pytest.approx(2 * 1.1142547e-7, rel=1e-5)
    assert poisson_chance(1, 1.0) == 1.0
