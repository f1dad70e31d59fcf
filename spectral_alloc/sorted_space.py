"""SortedSpace: n sorted 64-bit numbers that take no memory, searched in constant time.

Words: the *rank* of a number is how many values of the space are below it.
Invariant: values increase strictly with the rank, by construction (core/sorted.h); a search is exact for any n.
Frozen with the function of the spaces, version 1. Threads: immutable.
"""

from typing import Any, SupportsIndex, overload

import numpy
from numpy.typing import ArrayLike, NDArray

from spectral_alloc._address import as_word, as_words
from spectral_alloc._generator import Ladder
from spectral_alloc.progression import checked_size, progression
from spectral_alloc.space_key import VERSION, Seed, normal_seed, seed_key

__all__ = ["SortedSpace"]


class SortedSpace:
    """n sorted, different 64-bit numbers, spread over all of them; rank and value are found from each other in O(1).

    Parameters: n (1 to 2**64), seed (int, str or bytes).
    Errors: ValueError for another n, TypeError for what is no int.
    ``s[rank]``, ``s[a:b:c]``, ``s[array]`` give values. Equal if n and seed are. Memory: O(1).
    Cost: a value 40 ns, a rank 60 ns, from Python some more; arrays without the GIL. Threads: immutable.

    >>> space = SortedSpace(2**50)
    >>> value = space[123_456_789]
    >>> space.index(value), space.rank(value), space.rank(value + 1)
    (123456789, 123456789, 123456790)
    """

    __slots__ = ("_ladder", "_seed", "n")

    def __init__(self, n: SupportsIndex, seed: Seed = 0) -> None:
        self.n = checked_size(n)
        self._seed = normal_seed(seed)
        self._ladder = Ladder(seed_key(self._seed, f"sorted {self.n}"), self.n)

    @overload
    def __getitem__(self, rank: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, rank: slice | ArrayLike) -> NDArray[numpy.uint64]: ...
    def __getitem__(self, rank: Any) -> Any:
        if isinstance(rank, slice):
            return self._ladder.fill(*progression(rank, self.n, itemsize=8))
        if isinstance(rank, numpy.ndarray | list | tuple):
            return self._ladder.values(as_words(rank, "ranks"))
        return self._ladder.at(rank)

    @overload
    def rank(self, number: SupportsIndex) -> int: ...
    @overload
    def rank(self, number: ArrayLike) -> NDArray[numpy.uint64]: ...
    def rank(self, number: Any) -> Any:
        """Return how many values are below a number from 0 to 2**64 - 1, or below each of an array of them.

        Errors: IndexError outside, TypeError for what is no integer. Cost: O(1) each.

        >>> SortedSpace(1000).rank(0), SortedSpace(1000).rank([2**64 - 1]).tolist()
        (0, [1000])
        """
        is_many = isinstance(number, numpy.ndarray | list | tuple)
        words = as_words(number, "numbers") if is_many else numpy.array([as_word(number, "number")], dtype=numpy.uint64)
        ranks, _ = self._ladder.ranks(words)
        return ranks if is_many else int(ranks[0])

    def index(self, value: SupportsIndex) -> int:
        """Return the rank of a value. Errors: ValueError when the space does not have it, as a list. Cost: O(1)."""
        words = numpy.array([as_word(value, "value")], dtype=numpy.uint64)
        ranks, found = self._ladder.ranks(words)
        if not found[0]:
            raise ValueError(f"{words[0]} is not among the {self.n} values")
        return int(ranks[0])

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | numpy.integer) or not 0 <= value < 1 << 64:
            return False
        _, found = self._ladder.ranks(numpy.array([value], dtype=numpy.uint64))
        return bool(found[0])

    def __len__(self) -> int:
        return self.n

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SortedSpace):
            return NotImplemented
        return (self.n, seed_key(self._seed)) == (other.n, seed_key(other._seed))

    def __hash__(self) -> int:
        return hash((self.n, seed_key(self._seed)))

    def __reduce__(self) -> tuple[type["SortedSpace"], tuple[int, int | str | bytes]]:
        return SortedSpace, (self.n, self._seed)

    def __repr__(self) -> str:
        return f"<SortedSpace of {self.n} values, seed {self._seed!r}, version {VERSION}>"
