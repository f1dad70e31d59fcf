"""Slices of spaces: addresses a, a + s, a + 2s ..., checked, without the wrapping of negative indices.

Words: a *progression* is its first address, its step modulo 2**64, and how many there are.
Invariant: every address of a progression lies below the size; -1 never means the last one.
Threads: stateless. Cost: O(1).
"""

import operator
from typing import Any, SupportsIndex

__all__ = ["checked_size", "progression"]

WORD_MASK = (1 << 64) - 1
# What a process on x86-64 or arm64 can address at all.
ARRAY_BYTES_MAX = 1 << 47


def bound(name: str, value: Any, size: int) -> int:
    """Return an end of a slice as an int from 0 to size."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} of a slice must be an int, got {value!r} of type {type(value).__name__}") from None
    if not 0 <= number <= size:
        raise IndexError(f"{name} of a slice must be from 0 to {size}, got {number}")
    return number


def progression(index: slice, size: int, itemsize: int) -> tuple[int, int, int]:
    """Return first address, step modulo 2**64 and count of a slice.

    Parameters: index (a slice whose ends are absent or from 0 to size), size (how many addresses there are), itemsize
    (bytes of an array element).
    Errors: IndexError for ends outside, ValueError for a step of 0, TypeError for what is no int, MemoryError for more
    elements than an address space holds.

    >>> progression(slice(10, 20, 3), 2**64, 8)
    (10, 3, 4)
    >>> progression(slice(10, None, -5), 2**64, 8)[2]
    3
    """
    step = 1 if index.step is None else operator.index(index.step)
    if step == 0:
        raise ValueError("step of a slice must not be 0")
    if step > 0:
        start = 0 if index.start is None else bound("start", index.start, size)
        stop = size if index.stop is None else bound("stop", index.stop, size)
        count = max(0, -(-(stop - start) // step))
    else:
        start = size - 1 if index.start is None else bound("start", index.start, size - 1)
        stop = -1 if index.stop is None else bound("stop", index.stop, size)
        count = max(0, -((stop - start) // -step))
    if count * itemsize > ARRAY_BYTES_MAX:
        raise MemoryError(f"a slice of {count} values does not fit in memory; read it in pieces, or with a larger step")
    return start & WORD_MASK if count else 0, step & WORD_MASK, count


def checked_size(n: SupportsIndex) -> int:
    """Return how many positions there are: 1 to 2**64.

    Errors: TypeError for what is no int (a bool is rather a forgotten argument), ValueError for another n.

    >>> checked_size(10)
    10
    """
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n must be an int, got {n!r} of type {type(n).__name__}")
    size = n.__index__()
    if not 1 <= size <= 1 << 64:
        raise ValueError(f"n must be 1 to 2**64, got {size}")
    return size
