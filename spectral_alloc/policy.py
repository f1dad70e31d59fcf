"""The eviction policy of ThermalDict, alone: replay a trace of requests and count what would have missed.

Nouns: a *trace* is the row of objects that a program asked for, as numbers; a request for an object that is not
*resident* is a *miss*; the *size* of an object is what it takes of the capacity, its *cost* what a miss of it costs.

The C code (cython_ext/core/policy.c) is the one that decides which value leaves a ThermalDict; docs/policy.md says how.
"""

import operator
from typing import NamedTuple, SupportsIndex

import numpy
from numpy.typing import ArrayLike, NDArray

from spectral_alloc._policy import Replay

__all__ = ["CAPACITY_MAX", "Replayed", "replay", "simulate"]

#: The largest capacity, and the largest sum of sizes: beyond it, sizes would be rounded to the same charge.
CAPACITY_MAX = 2**45

# Fewer numbers than this for each request: more would be cells that nobody asks for.
_SPARSE_FACTOR = 4


class Replayed(NamedTuple):
    """What one replay came to: requests and misses, with the sizes and costs of the misses."""

    requests: int
    misses: int
    missed_size: int
    missed_cost: float


def _checked_capacity(capacity: SupportsIndex) -> int:
    try:
        number = operator.index(capacity)
    except TypeError as error:
        raise TypeError(f"capacity must be an int, got {capacity!r} of type {type(capacity).__name__}") from error
    if not 1 <= number <= CAPACITY_MAX:
        raise ValueError(f"capacity must be 1 to {CAPACITY_MAX}, got {number}")
    return number


def _checked_ids(ids: ArrayLike) -> NDArray[numpy.uint32]:
    array = numpy.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"ids must have one dimension, got {array.ndim}")
    if array.size == 0:
        return numpy.zeros(0, dtype=numpy.uint32)
    if array.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers, got dtype {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > numpy.iinfo(numpy.uint32).max:
        raise ValueError(f"ids must be 0 to {numpy.iinfo(numpy.uint32).max}, got {low if low < 0 else high}")
    return numpy.ascontiguousarray(array, dtype=numpy.uint32)


def _checked_sizes(sizes: ArrayLike, count: int) -> NDArray[numpy.int64]:
    array = numpy.asarray(sizes)
    if array.dtype.kind not in "iu":
        raise TypeError(f"sizes must be integers, got dtype {array.dtype}")
    if array.shape != (count,):
        raise ValueError(f"sizes must have one number for each of {count} objects, got shape {array.shape}")
    if count and not 1 <= int(array.min()) <= int(array.max()) <= CAPACITY_MAX:
        wrong = int(array.min()) if array.min() < 1 else int(array.max())
        raise ValueError(f"sizes must be 1 to {CAPACITY_MAX}, got {wrong}")
    return numpy.ascontiguousarray(array, dtype=numpy.int64)


def _checked_costs(costs: ArrayLike, count: int) -> NDArray[numpy.float64]:
    array = numpy.asarray(costs)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"costs must be numbers, got dtype {array.dtype}")
    if array.shape != (count,):
        raise ValueError(f"costs must have one number for each of {count} objects, got shape {array.shape}")
    if count and not (numpy.isfinite(array) & (array > 0)).all():
        wrong = array[~(numpy.isfinite(array) & (array > 0))][0]
        raise ValueError(f"costs must be finite and > 0, got {wrong}")
    return numpy.ascontiguousarray(array, dtype=numpy.float64)


def replay(
    ids: ArrayLike, capacity: SupportsIndex, sizes: ArrayLike | None = None, costs: ArrayLike | None = None
) -> Replayed:
    """Replay one trace and return what it came to.

    Parameters: ids (object numbers 0 to 2**32 - 1, one for each request; small numbers are fastest), capacity (in the
    unit of the sizes), sizes (one integer >= 1 for each object number up to the largest; 1 when left out), costs (one
    number > 0 for each object number, what a miss costs; the sizes when left out, so that bytes count; all 1 to
    count misses).
    Returns a Replayed. An object larger than the capacity always misses.
    Errors: TypeError and ValueError for what is no such array or number, MemoryError for too many objects.
    Cost: 32 bytes for each object; O(1) amortised and some 50 ns for each request. Threads: any; the GIL is released.

    >>> replay([0, 1, 0, 2, 0, 1], capacity=3, sizes=[1, 2, 2])
    Replayed(requests=6, misses=4, missed_size=7, missed_cost=7.0)
    """
    capacity_checked = _checked_capacity(capacity)
    requests = _checked_ids(ids)
    object_count = int(requests.max()) + 1 if requests.size else 0
    sizes_checked = None if sizes is None else _checked_sizes(sizes, object_count)
    costs_checked = None if costs is None else _checked_costs(costs, object_count)
    if object_count > _SPARSE_FACTOR * requests.size:
        present, positions = numpy.unique(requests, return_inverse=True)
        requests = positions.astype(numpy.uint32)
        object_count = len(present)
        sizes_checked = None if sizes_checked is None else sizes_checked[present]
        costs_checked = None if costs_checked is None else costs_checked[present]
    run = Replay(object_count, capacity_checked, sizes_checked, costs_checked)
    run.run(requests)
    return Replayed(run.requests, run.misses, run.missed_size, run.missed_cost)


def simulate(
    ids: ArrayLike, capacity: SupportsIndex, sizes: ArrayLike | None = None, costs: ArrayLike | None = None
) -> int:
    """Replay one trace and return the number of misses; parameters, errors, cost and threads as of ``replay``.

    >>> simulate([0, 1, 0, 2, 0, 3, 0, 4], capacity=2)
    5
    >>> simulate([0, 1, 2, 0, 1, 2, 0, 1, 2], capacity=3)
    3
    """
    return replay(ids, capacity, sizes, costs).misses
