"""Residue numbers: an address as its residues over coprime moduli, and back, exactly (Chinese remainder theorem).

Words: the *range* of a system is the product of its moduli; numbers below it and tuples of residues match one to one.
A *channel* is the residue of one modulus: neighbouring numbers take turns over its values, as interleaving needs.

    number  <->  (number mod m0, number mod m1, ...)        back: Garner's mixed radix, digit by digit

Invariants: 1. The moduli have no common factor by pairs. 2. ``number(residues(x)) == x`` for every x below the range.
This is a notation, not a hash: residues of sums are sums of residues.
Threads: immutable. Cost: one division for each modulus; back a product for each pair of them.
"""

import math
import operator
from collections.abc import Sequence
from typing import SupportsIndex

import numpy
from numpy.typing import ArrayLike, NDArray

from spectral_alloc._address import as_words

__all__ = ["DEFAULT_MODULI", "ResidueSystem"]

# 2**16 + 1 and the four largest primes below 2**16: four such factors would stay just under 2**64.
DEFAULT_MODULI = (65537, 65521, 65519, 65497, 65479)
MODULUS_MAX = 1 << 32
WORD_COUNT = 1 << 64


class ResidueSystem:
    """Coprime moduli, and the numbers below their product.

    Parameters: moduli (2 to 2**32 each, without common factors by pairs; the default covers all addresses).
    Errors: ValueError for moduli out of range, with a common factor, or none; TypeError for what is no int.

    >>> system = ResidueSystem((3, 5, 7))
    >>> system.residues(52), system.number((1, 2, 3)), system.range
    ((1, 2, 3), 52, 105)
    """

    __slots__ = ("_inverses", "moduli", "range")

    def __init__(self, moduli: Sequence[SupportsIndex] = DEFAULT_MODULI) -> None:
        self.moduli = tuple(operator.index(modulus) for modulus in moduli)
        if not self.moduli:
            raise ValueError("there must be at least one modulus")
        for position, modulus in enumerate(self.moduli):
            if not 2 <= modulus <= MODULUS_MAX:
                raise ValueError(f"a modulus must be 2 to 2**32, got {modulus}")
            for other in self.moduli[:position]:
                if math.gcd(modulus, other) != 1:
                    shared = math.gcd(modulus, other)
                    raise ValueError(f"moduli must be coprime, but {other} and {modulus} share {shared}")
        self.range = math.prod(self.moduli)
        # of the product of the moduli before each one, modulo it
        self._inverses = tuple(
            pow(math.prod(self.moduli[:position]), -1, modulus) for position, modulus in enumerate(self.moduli)
        )

    def residues(self, number: SupportsIndex) -> tuple[int, ...]:
        """Return the residues of a number from 0 to range - 1.

        Errors: ValueError outside, TypeError for what is no int. Cost: one division for each modulus.

        >>> ResidueSystem().residues(2**64 - 1)
        (0, 50624, 18001, 21045, 13881)
        """
        value = operator.index(number)
        if not 0 <= value < self.range:
            raise ValueError(f"number must be from 0 to {self.range - 1}, got {value}")
        return tuple(value % modulus for modulus in self.moduli)

    def number(self, residues: Sequence[SupportsIndex]) -> int:
        """Return the one number below the range that has these residues, exactly.

        Errors: ValueError for another count of residues or one that is not below its modulus, TypeError for no ints.
        """
        digits = [operator.index(residue) for residue in residues]
        if len(digits) != len(self.moduli):
            raise ValueError(f"there must be {len(self.moduli)} residues, got {len(digits)}")
        total, product = 0, 1
        for digit, modulus, inverse in zip(digits, self.moduli, self._inverses, strict=True):
            if not 0 <= digit < modulus:
                raise ValueError(f"the residue of {modulus} must be from 0 to {modulus - 1}, got {digit}")
            total += (digit - total) * inverse % modulus * product
            product *= modulus
        return total

    def residue_array(self, numbers: ArrayLike) -> NDArray[numpy.uint64]:
        """Return the residues of an array of numbers below 2**64 and the range, with one more axis for the moduli.

        Errors: ValueError for numbers not below the range, IndexError and TypeError as for addresses. Cost: some ns.

        >>> ResidueSystem((3, 5, 7)).residue_array([52, 53]).tolist()
        [[1, 2, 3], [2, 3, 4]]
        """
        words = as_words(numbers, "numbers")
        if self.range < WORD_COUNT and words.size and int(words.max()) >= self.range:
            raise ValueError(f"numbers must be from 0 to {self.range - 1}, got {words.max()}")
        return words[..., None] % numpy.array(self.moduli, dtype=numpy.uint64)

    def number_array(self, residues: ArrayLike) -> NDArray[numpy.uint64]:
        """Return the numbers that have these residues: the inverse of ``residue_array``.

        Errors: ValueError for another count of residues, one not below its modulus, or a number of 2**64 or more.
        """
        words = as_words(residues, "residues")
        moduli = numpy.array(self.moduli, dtype=numpy.uint64)
        if words.ndim == 0 or words.shape[-1] != len(moduli):
            raise ValueError(f"the last axis must have {len(moduli)} residues, got shape {words.shape}")
        if (words >= moduli).any():
            raise ValueError(f"residues must be below their moduli {self.moduli}")
        total = numpy.zeros(words.shape[:-1], dtype=numpy.uint64)
        product = 1
        for position, modulus in enumerate(self.moduli):
            # all operands are below 2**32, so that products fit 64 bits
            lacking = (words[..., position] + (moduli[position] - total % moduli[position])) % moduli[position]
            digit = lacking * numpy.uint64(self._inverses[position]) % moduli[position]
            room = (WORD_COUNT - 1 - total.astype(object)) // product if product * modulus > WORD_COUNT else None
            if room is not None and (digit.astype(object) > room).any():
                raise ValueError("these residues belong to a number of 2**64 or more; use number() for it")
            if product < WORD_COUNT:
                total = total + digit * numpy.uint64(product)
            product *= modulus
        return total

    def __eq__(self, other: object) -> bool:
        return self.moduli == other.moduli if isinstance(other, ResidueSystem) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.moduli)

    def __reduce__(self) -> tuple[type["ResidueSystem"], tuple[tuple[int, ...]]]:
        return ResidueSystem, (self.moduli,)

    def __repr__(self) -> str:
        return f"ResidueSystem({self.moduli!r})"
