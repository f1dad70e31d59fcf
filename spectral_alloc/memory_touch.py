"""Arrays of a SpectralMemory on touch: zeros until they are written, larger than its memory limit if need be.

    page: in memory --evict--> gone, if it is all zeros        what SpectralMemory calls HOT and REGROWN
                    --evict--> packed, in memory, then on disk                    WARM and COLD

The frames and the cold store of SpectralMemory are not used for such pages: they are Python's, and a page must come
back while the thread that wants it holds the GIL. What takes their place is cython_ext/core/page_store.h, in C.

Invariants: those of cython_ext/core/touch.h. Threads: any. Cost: docs/touch.md.
"""

import math
import os
import weakref
from collections.abc import Sequence
from typing import Any, Protocol, SupportsIndex

import numpy
from numpy.typing import DTypeLike, NDArray

from spectral_alloc._cell import Budget
from spectral_alloc._touch import ZeroRegion
from spectral_alloc.space_touch import shape_of
from spectral_alloc.touch import EAGER, EagerlyTouched, Touched, directory_for, limit_of, warn_of_eager, way
from spectral_alloc.units import BYTES_MAX

__all__ = ["memory_array"]

SHUFFLED_ITEM_BYTES = (2, 4, 8, 16)


class _Memory(Protocol):
    """What a SpectralMemory is to its arrays."""

    @property
    def budget(self) -> Budget: ...
    @property
    def closed(self) -> bool: ...


class TouchedMemory(Touched, ZeroRegion):
    """The pages of an array of a memory."""

    _memory: "weakref.ref[_Memory]"

    def _flush(self) -> None:
        self.pack()

    def _look_after(self) -> None:
        """Follow the memory to another budget, too."""
        memory = self._memory()
        if memory is not None and not memory.closed and memory.budget is not self.budget:
            self.rebudget(memory.budget)
            self.relieve()
        super()._look_after()


def memory_array(
    memory: _Memory,
    shape: SupportsIndex | Sequence[SupportsIndex],
    dtype: DTypeLike,
    resident_limit: int | str | None,
    spill_dir: "str | os.PathLike[str] | None",
    disk_bytes: int | None,
) -> NDArray[Any]:
    """A new array of zeros whose pages are charged to a memory's budget; see SpectralMemory.array.

    Errors: ValueError for a dtype of objects or a limit that is too low, TypeError, IndexError, MemoryError.
    """
    kind, lengths = numpy.dtype(dtype), shape_of(shape)
    if kind.hasobject:
        raise ValueError(f"an array on touch holds bytes, not Python objects: not {kind}")
    nbytes = max(math.prod(lengths) * kind.itemsize, 1)
    if nbytes > BYTES_MAX:
        raise MemoryError(f"no addresses for an array of {nbytes} bytes")
    limit = limit_of(resident_limit, nbytes, memory.budget)
    made: Any
    if way() == EAGER:
        warn_of_eager(nbytes, limit)
        made = EagerlyTouched(nbytes)
        made.flush_at_end()
    else:
        item_bytes = kind.itemsize if kind.itemsize in SHUFFLED_ITEM_BYTES else 1
        disk = BYTES_MAX if disk_bytes is None else disk_bytes
        made = TouchedMemory(nbytes, limit, directory_for(spill_dir), item_bytes, disk)
        made._memory = weakref.ref(memory)
        made._settle_in(memory.budget, limit)
    array: NDArray[Any] = numpy.ndarray(lengths, kind, buffer=made)
    return array
