"""Permutations of 0 .. n - 1 for any n up to 2**64, computed instead of stored.

Words: position i *goes to* value ``p[i]``; ``p.index(v)`` is where v comes from.
Invariant: ``p.index(p[i]) == i`` for every i. Frozen with the function of the spaces, version 1.
Threads: immutable. Cost: some 60 to 120 ns each way, O(1) memory; arrays without the GIL.
"""

from collections.abc import Iterator
from typing import Any, SupportsIndex, overload

import numpy
from numpy.typing import ArrayLike, NDArray

from spectral_alloc._address import as_words
from spectral_alloc._formula import NOTE_FROM_BYTES, remember_expression
from spectral_alloc._generator import Shuffle
from spectral_alloc.formula import permuted_expressions
from spectral_alloc.progression import checked_size, progression
from spectral_alloc.space_key import VERSION, Seed, normal_seed, seed_key

__all__ = ["Permutation"]

BLOCK_COUNT = 4096
WORD_BYTES = 8


class Permutation:
    """A permutation of 0 .. n - 1 for a seed: random access both ways, no memory.

    Parameters: n (1 to 2**64), seed (int, str or bytes).
    Errors: ValueError for another n, TypeError for what is no int.
    ``p[i]``, ``p[a:b:s]``, ``p[array]`` give where positions go; iteration goes through all. Equal if n and seed are.
    Threads: immutable, share it freely.

    >>> shuffled = Permutation(10, seed=1)
    >>> sorted(shuffled) == list(range(10)), shuffled.index(shuffled[3])
    (True, 3)
    """

    __slots__ = ("_seed", "_shuffle", "key", "n")

    def __init__(self, n: SupportsIndex, seed: Seed = 0) -> None:
        self.n = checked_size(n)
        self._seed = normal_seed(seed)
        #: The three words that it is computed from.
        self.key = seed_key(self._seed, f"permutation {self.n}")
        self._shuffle = Shuffle(self.key, self.n)

    @overload
    def __getitem__(self, position: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, position: slice | ArrayLike) -> NDArray[numpy.uint64]: ...
    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            start, step, count = progression(position, self.n, itemsize=WORD_BYTES)
            if step == 1 and count * WORD_BYTES >= NOTE_FROM_BYTES:
                # So that the array, should it ever be stored, is found to be this.
                for expression in permuted_expressions(self.key, self.n - 1, start):
                    remember_expression(expression)
            return self._shuffle.fill(start, step, count)
        if isinstance(position, numpy.ndarray | list | tuple):
            return self._shuffle.mapped(as_words(position, "positions"), False)
        return self._shuffle.at(position)

    @overload
    def index(self, value: SupportsIndex) -> int: ...
    @overload
    def index(self, value: ArrayLike) -> NDArray[numpy.uint64]: ...
    def index(self, value: Any) -> Any:
        """Return the position that goes to a value, or the positions of an array of values.

        Errors: IndexError outside 0 to n - 1, TypeError for what is no integer. Cost: as ``p[i]``.

        >>> Permutation(2**64, seed="ada").index(Permutation(2**64, seed="ada")[12345])
        12345
        """
        if isinstance(value, numpy.ndarray | list | tuple):
            return self._shuffle.mapped(as_words(value, "values"), True)
        return self._shuffle.index(value)

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        for start in range(0, self.n, BLOCK_COUNT):
            yield from self._shuffle.fill(start, 1, min(BLOCK_COUNT, self.n - start)).tolist()

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and 0 <= value < self.n

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Permutation):
            return NotImplemented
        return (self.n, seed_key(self._seed)) == (other.n, seed_key(other._seed))

    def __hash__(self) -> int:
        return hash((self.n, seed_key(self._seed)))

    def __reduce__(self) -> tuple[type["Permutation"], tuple[int, int | str | bytes]]:
        return Permutation, (self.n, self._seed)

    def __repr__(self) -> str:
        return f"<Permutation of 0 .. {self.n - 1}, seed {self._seed!r}, version {VERSION}>"
