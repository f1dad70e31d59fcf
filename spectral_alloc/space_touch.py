"""Arrays of a GenerativeSpace on touch: what GenerativeSpace.array makes.

    array[i] <-> space[start + i]     reading: what the space holds     writing: an edit of the space at the next flush

Invariants:
1. What a page shows is the space, and what was written to the array since; edits made to the space are shown at once.
2. Edits of an array are lost to no eviction, fork or error: they are in the array until they are in the space.

Threads: any; one flush of an array at a time. Cost: docs/touch.md.
"""

import math
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from operator import index
from typing import Any, SupportsIndex

import numpy
from numpy.typing import DTypeLike, NDArray

from spectral_alloc._address import WORD_COUNT, as_word
from spectral_alloc._overlay import Overlay
from spectral_alloc._space import SpaceCore
from spectral_alloc._touch_space import SpaceRegion
from spectral_alloc.touch import (
    EAGER,
    EagerlyTouched,
    Touched,
    budget_of,
    directory_for,
    limit_of,
    warn_of_eager,
    way,
)
from spectral_alloc.units import BYTES_MAX, parse_bytes

__all__ = ["owners", "shape_of", "space_array"]

EDITS_PER_BLOCK = 65536


class TouchedSpace(Touched, SpaceRegion):
    """The pages of an array on a space."""

    space: SpaceCore  #: kept, since its log ends with it

    def _flush(self) -> None:
        for window in self.edited_windows().tolist():
            self.flush_window(window)


class EagerSpace(EagerlyTouched):
    """An array on a space where touching cannot be noticed: filled at once, compared when it is flushed."""

    def __init__(self, nbytes: int, space: SpaceCore, dtype: "numpy.dtype[Any]", start: int) -> None:
        self._overlay, self._start, self._fill = space.overlay, start, space._fill
        generated = SpaceCore()
        generated._set_up(space.generator)
        self._generate = generated._fill
        self._values = numpy.ndarray(nbytes // dtype.itemsize, dtype, buffer=self.data)
        self._raws = self._values.view(numpy.dtype(f"u{dtype.itemsize}"))
        self._flusher: int | None = None
        self._flushing = threading.RLock()
        _eager.add(self)
        self.flush_at_end()
        # Until it is filled, an edit of the space must not come, and no flush take what is not there yet for edits.
        with self._flushing, self._overlay.telling:
            self._overlay.watch(self)
            self._fill(self._values, start, 1)

    def flush(self) -> None:
        """Write what differs from the space to it."""
        with self._flushing:
            for first in range(0, len(self._values), EDITS_PER_BLOCK):
                block = slice(first, first + EDITS_PER_BLOCK)
                with self._overlay.telling:
                    self._carry(first, self._raws[block])

    def _carry(self, first: int, raws: NDArray[Any]) -> None:
        start = self._start + first
        expected, generated = numpy.empty_like(raws), numpy.empty_like(raws)
        self._fill(expected, start, 1)
        differing = numpy.flatnonzero(raws != expected)
        if len(differing) == 0:
            return
        self._generate(generated, start, 1)
        removed = (raws == generated)[differing].astype(numpy.uint8)
        self._flusher = threading.get_ident()
        try:
            addresses = differing.astype(numpy.uint64) + numpy.uint64(start)
            self._overlay.write(addresses, raws[differing].astype(numpy.uint64), removed)
        finally:
            self._flusher = None

    def edits_came(self, addresses: NDArray[Any], raws: NDArray[Any], removed: NDArray[Any] | None, /) -> None:
        """Show edits that were made to the space."""
        if self._flusher == threading.get_ident():
            return
        places = addresses - numpy.uint64(self._start)
        inside = places < len(self._values)
        if removed is None:
            self._raws[places[inside]] = raws[inside]
            return
        for place in places[inside].tolist():
            self._fill(self._values[place : place + 1], self._start + place, 1)

    def __del__(self) -> None:
        if hasattr(self, "_flushing"):
            try:
                if self._process_id == os.getpid() and not sys.is_finalizing():
                    self.flush()
            finally:
                self._overlay.unwatch()


_eager: "weakref.WeakSet[EagerSpace]" = weakref.WeakSet()


def _renew_in_child() -> None:
    """The thread that was flushing did not come along."""
    for eager in tuple(_eager):
        eager._flushing = threading.RLock()


os.register_at_fork(after_in_child=_renew_in_child)


def owners(overlay: Overlay) -> list[Any]:
    """The owners of the open arrays on a space."""
    return [found for reference in overlay.watchers if (found := reference()) is not None]


def shape_of(shape: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, ...]:
    """A shape, or the only length of one, as a tuple of lengths. Errors: TypeError, IndexError for what is none."""
    lengths: Any = shape
    try:
        whole = [index(lengths)]
    except TypeError:
        try:
            whole = [index(length) for length in lengths]
        except TypeError:
            raise TypeError(f"shape must be an int or a sequence of them, not {shape!r}") from None
    return tuple(as_word(length, "a length") for length in whole)


def space_array(
    space: SpaceCore,
    kind: "numpy.dtype[Any]",
    shape: SupportsIndex | Sequence[SupportsIndex],
    dtype: DTypeLike | None,
    start: SupportsIndex,
    resident_limit: int | str | None,
    spill_dir: "str | os.PathLike[str] | None",
    disk_limit: int | str | None,
) -> NDArray[Any]:
    """An array on the values of a space; see GenerativeSpace.array, which says all."""
    first, lengths = as_word(start, "start"), shape_of(shape)
    if dtype is not None and numpy.dtype(dtype) != kind:
        got = numpy.dtype(dtype)
        raise TypeError(f"the values of this space are {kind}, not {got}: make a space with other values=")
    count = math.prod(lengths)
    if first + count > WORD_COUNT:
        raise IndexError(f"an array of {count} values from {first} goes beyond 2**64 - 1")
    nbytes = max(count, 1) * kind.itemsize
    if nbytes > BYTES_MAX:
        raise MemoryError(f"no addresses for an array of {nbytes} bytes")
    directory = directory_for(spill_dir)
    budget = budget_of(resident_limit)
    limit = limit_of(resident_limit, nbytes, budget)
    disk = BYTES_MAX if disk_limit is None else parse_bytes(disk_limit, "disk_limit")
    made: Any
    if way() == EAGER:
        warn_of_eager(nbytes, limit)
        made = EagerSpace(nbytes, space, kind, first)
    else:
        made = TouchedSpace(space.generator, space.overlay, first, max(count, 1), limit, directory, disk)
        made.space = space
        made._settle_in(budget, limit)
        made.watch()
    array: NDArray[Any] = numpy.ndarray(lengths, kind, buffer=made)
    return array
