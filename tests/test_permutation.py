"""Permutations, sorted spaces and residue numbers: exact both ways, small ones in full and large ones by sample."""

import math
import pickle
from collections import Counter
from itertools import combinations, permutations
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from space_twin import twin

from spectral_alloc import GenerativeSpace, SortedSpace
from spectral_alloc.permutation import Permutation
from spectral_alloc.rns import DEFAULT_MODULI, ResidueSystem

SIZES = (1, 2, 3, 4, 5, 17, 64, 100, 1000)
sizes = st.one_of(st.integers(1, 50), st.integers(1, 2**64), st.just(2**64))


@pytest.mark.parametrize("n", SIZES)
def test_a_small_permutation_is_one(n: int) -> None:
    """Every value once; index, slices, arrays and the twin agree."""
    shuffled = Permutation(n, seed="small")
    values = list(shuffled)
    assert sorted(values) == list(range(n))
    assert [shuffled.index(value) for value in values] == list(range(n))
    assert shuffled[:].tolist() == values == shuffled[list(range(n))].tolist()
    assert shuffled[::-1].tolist() == values[::-1]
    assert shuffled.index(values).tolist() == list(range(n))
    assert values == [twin.permuted("small", n, position) for position in range(n)]
    assert len(shuffled) == n


@given(sizes, st.data())
def test_a_permutation_of_any_size_is_undone_by_index(n: int, data: st.DataObject) -> None:
    """index(p[i]) == i, p[i] < n, and the twin says the same."""
    position = data.draw(st.integers(0, n - 1))
    shuffled = GenerativeSpace("any").permutation(n)
    assert shuffled.index(shuffled[position]) == position
    assert shuffled[shuffled.index(position)] == position
    assert shuffled[position] == twin.permuted("any", n, position)


def test_all_orders_of_four_come_up() -> None:
    """Over many seeds each of the 24 permutations of 4 appears about equally often (chi-square, 23 degrees)."""
    counts = Counter(tuple(Permutation(4, seed)) for seed in range(4800))
    assert set(counts) == set(permutations(range(4)))
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 60


def test_a_permutation_moves_neighbours_apart() -> None:
    """Positions and values of a million are uncorrelated."""
    values = Permutation(1_000_000, seed=3)[:].astype(float)
    assert abs(numpy.corrcoef(numpy.arange(len(values)), values)[0, 1]) < 0.005
    assert abs(numpy.corrcoef(values[1:], values[:-1])[0, 1]) < 0.005


@pytest.mark.parametrize("kind", [Permutation, SortedSpace])
def test_wrong_sizes_and_positions_are_named(kind: Any) -> None:
    """No wrapping: -1 is an error, and so is n."""
    for wrong in (0, -5, 2**64 + 1):
        with pytest.raises(ValueError, match=f"n must be 1 to 2\\*\\*64, got {wrong}"):
            kind(wrong)
    for wrong in (1.5, "x", True):
        with pytest.raises(TypeError, match="n must be an int"):
            kind(wrong)
    made = kind(10, seed=1)
    for wrong in (-1, 10, 2**64):
        with pytest.raises(IndexError, match=f"got {wrong}"):
            made[wrong]
        with pytest.raises(IndexError, match=f"got {wrong}"):
            made[[0, wrong]]
    for wrong in (1.5, "x"):
        with pytest.raises(TypeError, match="must be an int"):
            made[wrong]
    assert pickle.loads(pickle.dumps(made)) == made == kind(10, seed=1)
    assert made != kind(11, seed=1)
    assert made != kind(10, seed=2)
    assert hash(made) == hash(kind(10, seed=1))
    assert "10" in repr(made) or "9" in repr(made)


@given(sizes, st.data())
def test_a_sorted_space_finds_every_rank(n: int, data: st.DataObject) -> None:
    """index(s[r]) == r; values increase strictly; the rank of any number is how many values are below it."""
    space = SortedSpace(n, seed="sorted")
    rank = data.draw(st.integers(0, n - 1))
    value = space[rank]
    assert value == twin.sorted_value("sorted", n, rank)
    assert space.index(value) == space.rank(value) == rank
    assert value in space
    if rank + 1 < n:
        following = space[rank + 1]
        assert value < following
        middle = data.draw(st.integers(value + 1, following))
        assert space.rank(middle) == rank + 1
        assert (middle in space) == (middle == following)
    if value < 2**64 - 1 and value + 1 not in space:
        with pytest.raises(ValueError, match="is not among the"):
            space.index(value + 1)


@pytest.mark.parametrize("n", [1, 2, 1000, 2**20 + 7])
def test_a_whole_sorted_space_agrees_with_bisection(n: int) -> None:
    """All values in order, slices and arrays alike, and searchsorted gives the same ranks."""
    space = SortedSpace(n)
    values = space[:]
    assert (numpy.diff(values) > 0).all() if n > 1 else len(values) == 1
    assert (space[numpy.arange(n)] == values).all()
    numbers = numpy.random.default_rng(n).integers(0, 2**64, 5000, dtype=numpy.uint64)
    assert (space.rank(numbers) == numpy.searchsorted(values, numbers)).all()
    assert space[::-3].tolist() == values[::-3].tolist()
    assert "x" not in space
    assert -1 not in space


def test_residues_give_the_number_back_exactly() -> None:
    """All numbers of a small system; the edges of the default one, alone and in arrays."""
    small = ResidueSystem((4, 9, 5))
    assert len({small.residues(number) for number in range(180)}) == 180
    assert all(small.number(small.residues(number)) == number for number in range(180))
    assert small.number_array(small.residue_array(numpy.arange(180))).tolist() == list(range(180))
    system = ResidueSystem()
    edges = [0, 1, 2**32, 2**63, 2**64 - 1]
    assert system.number_array(system.residue_array(edges)).tolist() == edges
    assert system.range > 2**64


@given(st.lists(st.sampled_from([2**32, 2**32 - 1, 65537, 65521, 3, 7, 11, 13]), unique=True, min_size=1), st.data())
def test_any_coprime_moduli_reconstruct(moduli: list[int], data: st.DataObject) -> None:
    """Exact beyond 64 bits, too."""
    if any(math.gcd(*pair) > 1 for pair in combinations(moduli, 2)):
        with pytest.raises(ValueError, match="coprime"):
            ResidueSystem(moduli)
        return
    system = ResidueSystem(moduli)
    number = data.draw(st.integers(0, system.range - 1))
    assert system.number(system.residues(number)) == number
    if number < 2**64:
        assert system.number_array([list(system.residues(number))]).tolist() == [number]
    else:
        with pytest.raises(ValueError, match="use number"):
            system.number_array([list(system.residues(number))])


def test_wrong_moduli_and_residues_are_named() -> None:
    """Common factors, ranges and counts."""
    for wrong, text in (((6, 9), "6 and 9 share 3"), ((1, 5), "got 1"), ((), "at least one"), ((2**33,), "got 85")):
        with pytest.raises(ValueError, match=text):
            ResidueSystem(wrong)
    system = ResidueSystem((3, 5))
    for attempt, text in (
        (lambda: system.residues(15), "from 0 to 14, got 15"),
        (lambda: system.residues(-1), "got -1"),
        (lambda: system.number((1,)), "there must be 2 residues"),
        (lambda: system.number((3, 0)), "residue of 3 must be from 0 to 2, got 3"),
        (lambda: system.residue_array([15]), "from 0 to 14, got 15"),
        (lambda: system.number_array([[3, 0]]), "below their moduli"),
        (lambda: system.number_array([1]), "last axis must have 2"),
    ):
        with pytest.raises(ValueError, match=text):
            attempt()
    with pytest.raises(TypeError):
        system.residues(1.5)  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(system)) == system == ResidueSystem((3, 5))
    assert repr(system) == "ResidueSystem((3, 5))"
    assert len(DEFAULT_MODULI) == 5


def test_residues_of_a_xor_cube_cancel() -> None:
    """Why residues are no hash: any table per modulus, XORed, is always 0 over a cube of 64 addresses."""
    moduli = (3, 5, 7, 11, 13, 17)
    generator = numpy.random.default_rng(1)
    tables = [generator.integers(0, 2**64, modulus, dtype=numpy.uint64) for modulus in moduli]
    steps = [3, 5, 7, 11, 13, 17]
    total = numpy.uint64(0)
    for corner in range(64):
        address = 1000 + sum(step for bit, step in enumerate(steps) if corner >> bit & 1)
        for table, modulus in zip(tables, moduli, strict=True):
            total ^= table[address % modulus]
    assert total == 0
