"""What stands at the addresses of a space: its kind of values, their numpy type, and arrays of them as raw words.

    values=     "float64"   "float32"   "uint64"   "normal"   range(low, high)
    dtype        float64     float32     uint64     float64    int64

Invariant: an array is taken only if its numbers stay what they are, but for rounding of floats; else it raises.
Threads: stateless. Cost: O(1), arrays one pass; sequences with numbers beyond what their kind holds exactly some 200 ns
a number more.
"""

import math
from contextlib import suppress
from operator import index
from typing import Any, NamedTuple

import numpy
from numpy.typing import ArrayLike, NDArray

from spectral_alloc._generator import KINDS

__all__ = ["ValueKind", "Values", "value_kind"]

Values = str | range

DTYPES = {"float64": "f8", "float32": "f4", "uint64": "u8", "normal": "f8"}
INT64_MIN, INT64_END = -(1 << 63), 1 << 63


class ValueKind(NamedTuple):
    """A kind of values: the setting it came from, its code, its numpy type, and low and span of a range."""

    values: Values
    code: int
    dtype: "numpy.dtype[Any]"
    low: int = 0
    span: int = 1

    def raws(self, values: ArrayLike, shape: tuple[int, ...]) -> NDArray[numpy.uint64]:
        """Return values as raw words, one for each address.

        Parameters: values (an array or sequence of numbers of this kind, in this shape, or one number), shape (that of
        the addresses). Errors: ValueError for another shape or a number out of range, TypeError for another type.
        Cost: a pass or two.
        """
        given = numpy.asarray(values)
        if given.dtype.kind in "fO" and self._may_be_rounded(values, given):
            given = self._from_objects(numpy.array(values, dtype=object), given)
        if given.shape not in (shape, ()):
            raise ValueError(f"values must be one number or of shape {shape}, got shape {given.shape}")
        converted = numpy.broadcast_to(self._converted(given.reshape(-1)).reshape(given.shape), shape)
        if self.dtype.itemsize == 4:
            return numpy.ascontiguousarray(converted).view(numpy.uint32).astype(numpy.uint64)
        return numpy.ascontiguousarray(converted).view(numpy.uint64)

    def _may_be_rounded(self, values: ArrayLike, given: NDArray[Any]) -> bool:
        """Whether numpy may have rounded an int: among floats, and among ints that no type has all, it makes it one."""
        if given.dtype.kind == "O":
            return True
        if isinstance(values, float) or hasattr(values, "__array__"):
            return False
        return self.dtype.kind != "f" or bool((numpy.abs(given) >= 1 << numpy.finfo(self.dtype).nmant).any())

    def _from_objects(self, items: NDArray[Any], given: NDArray[Any]) -> NDArray[Any]:
        """The same numbers with every int as it was; or what numpy made of them, if they are not of this kind."""
        if items.shape != given.shape:
            return given
        flat = items.reshape(-1).tolist()
        wholes = wholes_among(flat)
        if self.dtype.kind != "f":
            if len(wholes) < len(flat):
                return given
            limits = numpy.iinfo(self.dtype)
            for number in wholes.values():
                if not limits.min <= number <= limits.max:
                    raise ValueError(f"values must be from {limits.min} to {limits.max}, got {number}")
            return numpy.array(list(wholes.values()), dtype=self.dtype).reshape(items.shape)
        if given.dtype.kind == "O":
            if any(place not in wholes and not isinstance(item, float) for place, item in enumerate(flat)):
                return given
            given = numpy.array([nearest(item) for item in flat]).reshape(items.shape)
        with numpy.errstate(over="ignore"):
            converted = given.reshape(-1).astype(self.dtype)
        for place, number in wholes.items():
            if not numpy.isfinite(converted[place]) or int(converted[place]) != number:
                raise ValueError(f"values must be numbers that {self.dtype} holds, got {number} at position {place}")
        return given

    def _converted(self, given: NDArray[Any]) -> NDArray[Any]:
        """The same numbers, one after the other, in this kind's numpy type."""
        if given.dtype == self.dtype:
            return given
        if given.size == 0:
            return given.astype(self.dtype)
        if given.dtype.kind in "iu" and self.dtype.kind in "iu":
            limits = numpy.iinfo(self.dtype)
            least, most = int(given.min()), int(given.max())
            if not (limits.min <= least and most <= limits.max):
                outside = least if least < limits.min else most
                raise ValueError(f"values must be from {limits.min} to {limits.max}, got {outside}")
            return given.astype(self.dtype)
        if given.dtype.kind not in "iuf" or self.dtype.kind != "f":
            raise TypeError(f"values must be {self.dtype} or convert to it safely, got an array of {given.dtype}")
        with numpy.errstate(over="ignore"):
            converted = given.astype(self.dtype)
        is_changed = rounded(given, converted) if given.dtype.kind in "iu" else overflown(given, converted)
        if is_changed.any():
            position = int(numpy.argmax(is_changed))
            wrong = f"got {given[position]!r} at position {position}"
            raise ValueError(f"values must be numbers that {self.dtype} holds, {wrong}")
        return converted


def wholes_among(items: list[Any]) -> dict[int, int]:
    """The whole numbers among items, by their places."""
    found = {}
    for place, item in enumerate(items):
        with suppress(TypeError):
            found[place] = index(item)
    return found


def nearest(number: float) -> float:
    """A number as a float, infinite if it is too large for one."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def rounded(given: NDArray[Any], converted: NDArray[Any]) -> NDArray[numpy.bool_]:
    """Where a whole number became another one; floats hold small ones, the rest is asked one by one."""
    exact = 1 << numpy.finfo(converted.dtype).nmant
    found = (given > exact) | (given < -exact) if given.dtype.kind == "i" else given > exact
    found[found] = [int(new) != int(old) for new, old in zip(converted[found], given[found], strict=True)]
    return found


def overflown(given: NDArray[Any], converted: NDArray[Any]) -> NDArray[numpy.bool_]:
    """Where a finite number became infinite."""
    became: NDArray[numpy.bool_] = numpy.isinf(converted) & numpy.isfinite(given)
    return became


def value_kind(values: Values) -> ValueKind:
    """Return the kind that a setting asks for.

    Parameters: values ("float64", "float32", "uint64", "normal", or a range with a step of 1 within int64).
    Errors: ValueError for another name, an empty range, another step, or numbers outside int64; TypeError else.

    >>> value_kind(range(1, 7)).span
    6
    >>> value_kind("float16")
    Traceback (most recent call last):
    ValueError: values must be 'float64', 'float32', 'uint64', 'normal' or a range, not 'float16'
    """
    names = [name for name in KINDS if name != "range"]
    if isinstance(values, range):
        if values.step != 1 or values.start >= values.stop:
            raise ValueError(f"values must be a range with a step of 1 that is not empty, not {values!r}")
        if values.start < INT64_MIN or values.stop > INT64_END:
            raise ValueError(f"values must be a range within -2**63 to 2**63, not {values!r}")
        return ValueKind(values, KINDS.index("range"), numpy.dtype("i8"), values.start, values.stop - values.start)
    if not isinstance(values, str):
        raise TypeError(f"values must be the name of a kind or a range, not {values!r} of type {type(values).__name__}")
    if values not in names:
        raise ValueError(f"values must be {', '.join(map(repr, names))} or a range, not {values!r}")
    return ValueKind(values, KINDS.index(values), numpy.dtype(DTYPES[values]))
