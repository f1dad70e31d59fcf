"""What the settings that a SpectralMemory is given become, and what is said of those that are none.

Its compiled part has the like for sizes, offsets and addresses in _heap_arguments.pxd.

Cost: O(1). Threads: stateless.
"""

from operator import index
from typing import Any, SupportsIndex

import numpy as np

from spectral_alloc.stripes import PARITY_MAX

__all__ = ["item_bytes", "redundancy_of", "whole"]


def whole(number: SupportsIndex, name: str) -> int:
    """A number as an int; what is none, a float above all, is a TypeError that names its argument.

    >>> whole(3.0, "seed")
    Traceback (most recent call last):
    TypeError: seed must be an int, not 3.0
    """
    try:
        return index(number)
    except TypeError:
        raise TypeError(f"{name} must be an int, not {number!r}") from None


def redundancy_of(redundancy: SupportsIndex) -> int:
    """The number of parity shards; ValueError for more than there can be."""
    count = whole(redundancy, "redundancy")
    if not 0 <= count <= PARITY_MAX:
        raise ValueError(f"redundancy must be 0 to {PARITY_MAX} parity shards, not {redundancy!r}")
    return count


def item_bytes(kind: "np.dtype[Any]") -> int:
    """The bytes of an item, of which a block is to hold as many as fit; ValueError for items of none."""
    if kind.itemsize == 0:
        raise ValueError(f"any number of items of dtype {kind} fits a block, since they have 0 bytes: give a shape")
    return kind.itemsize
