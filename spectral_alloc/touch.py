"""Arrays on touch: ordinary numpy arrays, larger than memory if need be, whose pages come when they are touched.

Words: the *owner* of an array is the object at the end of its chain of ``base``: it has the pages; the *way* is how
touching is noticed; the others are those of cython_ext/core/touch.h. ``GenerativeSpace.array`` and
``SpectralMemory.array`` make them.

    "userfaultfd"        a thread of ours serves, also when the kernel touches pages in a system call; needs a privilege
    "userfaultfd-user"   the same without the privilege: a system call on missing pages fails with EFAULT (see populate)
    "signal"             PROT_NONE and SIGSEGV, where userfaultfd is not permitted; system calls as above
    "eager"              neither is permitted: the array is filled at once, with a warning

The best one that the system permits is taken at the first array; SPECTRAL_ALLOC_TOUCH in the environment takes another.

Threads: any. Forks: the child has the array as it was. Cost: docs/touch.md.
"""

import os
import sys
import tempfile
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
from numpy.typing import NDArray

from spectral_alloc import _touch
from spectral_alloc._cell import Budget
from spectral_alloc.errors import LockedError
from spectral_alloc.file_system import REAL_FILE_SYSTEM
from spectral_alloc.governor import governor
from spectral_alloc.spill_directory import validated_spill_dir
from spectral_alloc.units import BYTES_MAX, format_bytes, parse_bytes

__all__ = ["EagerlyTouched", "TouchStats", "Touched", "evict", "flush", "owner", "populate", "stats", "way"]

WAY_VARIABLE = "SPECTRAL_ALLOC_TOUCH"
EAGER = "eager"
DEFAULT_SHARE = 4  # one part of the budget in so many is an array's limit if none is given
_start = threading.Lock()
_way: str | None = None


def way() -> str:
    """How touching is noticed in this process: "userfaultfd", "userfaultfd-user", "signal" or "eager".

    Errors: ValueError for another word in SPECTRAL_ALLOC_TOUCH, OSError if the one named there is not permitted,
    NotImplementedError on other systems than Linux.

    >>> way() in ("userfaultfd", "userfaultfd-user", "signal", "eager")
    True
    """
    global _way
    with _start:
        if _way is None:
            _way = _started(os.environ.get(WAY_VARIABLE, ""))
        if _way == "signal":
            _touch.start(_touch.WAYS.index(_way))  # another handler may have been put before ours
        return _way


def _started(wish: str) -> str:
    """Start the way that was asked for, or the first one that works."""
    if sys.platform != "linux":
        raise NotImplementedError(f"arrays on touch need Linux, and this is {sys.platform}; use window() or gather()")
    if wish == EAGER:
        return EAGER
    if wish and wish not in _touch.WAYS:
        known = ", ".join((*_touch.WAYS, EAGER))
        raise ValueError(f"{WAY_VARIABLE} must be one of {known}, not {wish!r}")
    for name in (wish,) if wish else _touch.WAYS:
        try:
            _touch.start(_touch.WAYS.index(name))
            return name
        except OSError:
            if wish:
                raise
    return EAGER


class TouchStats(NamedTuple):
    """What has become of an array's pages since it was made; pages are of 4096 bytes."""

    way: str
    limit_bytes: int  #: the most that pages in memory may take, packed ones included
    resident_bytes: int  #: pages in memory now
    packed_pages: int  #: edited pages that have left memory, compressed in memory or on disk
    disk_bytes: int  #: of the files of those
    faults: int
    write_faults: int  #: first writes to pages that were there
    filled: int  #: pages that came, of them ``ahead`` before they were asked for
    ahead: int
    evicted: int
    packed: int  #: edited pages that left
    unpacked: int  #: ... and came back
    regrown: int  #: pages that were written, but held what they would hold anyway when they left
    dropped: int  #: pages that left since the space was written there
    failures: int  #: pages that the disk refused; they stay in memory


if TYPE_CHECKING:
    _Base = _touch.Region  # what every subclass is besides
else:
    _Base = object


class Touched(_Base):
    """The owner of an array's pages: what keeps them within their limit, and carries edits. A buffer of all its bytes.

    Errors and cost: the functions of this module, which take the array, say them. Threads: any.
    """

    def _settle_in(self, budget: Budget, wanted_bytes: int) -> None:
        """Begin: pages are charged to a budget, and what is too much there must leave elsewhere."""
        self._wanted_bytes = wanted_bytes
        self._has_warned = False
        self._flushing = threading.RLock()
        self._process_id = os.getpid()
        self.rebudget(budget)
        self._reference = governor.register(self)
        self.flush_at_end()
        _owners.add(self)
        if self.excess_bytes() > 0:
            governor.relieve_larger(self)
            if self.excess_bytes() > 0:
                governor.relieve_others(self)
            self.relieve()

    def flush_at_end(self) -> None:
        """Have edits carried when the program ends, before what was opened earlier is closed."""
        before = getattr(self, "_last", None)
        if before is not None:
            before.detach()
        self._last = weakref.finalize(self, _flush_last, weakref.ref(self))

    def flush(self) -> None:
        """Carry edits to where they are kept."""
        with self._flushing:
            self._flush()
        self._look_after()

    def _flush(self) -> None:
        raise NotImplementedError

    def stats(self) -> TouchStats:
        """What has become of the pages."""
        self._look_after()
        return TouchStats(way=way(), limit_bytes=self.limit_bytes, **self.figures())

    def _look_after(self) -> None:
        """Take back room that was given to others and is free again; warn of a disk that refuses pages."""
        room = -self.excess_bytes()
        if room > 0 and self.limit_bytes < self._wanted_bytes:
            self.set_limit(min(self._wanted_bytes, self.limit_bytes + room))
        if self.failure and not self._has_warned:
            self._has_warned = True
            reason = f"edited pages stay in memory, since the disk refuses them: {os.strerror(self.failure)}"
            warnings.warn(reason, RuntimeWarning, stacklevel=4)

    def __del__(self) -> None:
        # At the end of the program _flush_last has been here, and numpy may be gone.
        if hasattr(self, "_flushing") and not sys.is_finalizing():
            try:
                self._flush()
            except LockedError:
                # A forked child cannot write the log of its parent; its edits end with it.
                if self._process_id == os.getpid():
                    raise

    # what the governor asks for ---------------------------------------------------------------------------------------

    @property
    def _ledger(self) -> "Touched":
        return self

    @property
    def _tiers(self) -> "Touched":
        return self

    def relieve(self) -> None:
        """Give up what is above the budget, as far as an array can."""
        excess = self.excess_bytes()
        if excess > 0 and self.limit_bytes > _touch.LIMIT_BYTES_MIN:
            self.set_limit(self.limit_bytes - excess)

    def _join(self, parent: Budget) -> None:
        if self.budget is not parent and self.budget.parent is None:
            self.rebudget(Budget(self.budget.limit_bytes, parent))

    def _settle(self) -> None:
        if self.excess_bytes() > 0:
            self.relieve()
        else:
            self._look_after()

    def _work(self) -> None:
        """Nothing is left to the background writer."""

    def _after_fork_in_child(self) -> None:
        """Nothing: core/touch_life.c has done it when the fork returned."""


class EagerlyTouched(_touch.EagerRegion):
    """The owner of an array that was filled at once: all of it is in memory, and stays there."""

    @property
    def limit_bytes(self) -> int:
        """Twice what there is, so that all of it may be populated."""
        return 2 * self.nbytes

    def flush_at_end(self) -> None:
        """Have edits carried when the program ends, before what was opened earlier is closed."""
        before = getattr(self, "_last", None)
        if before is not None:
            before.detach()
        self._last = weakref.finalize(self, _flush_last, weakref.ref(self))
        self._process_id = os.getpid()

    def flush(self) -> None:
        """Carry edits to where they are kept: nowhere else, unless a subclass knows better."""

    def stats(self) -> TouchStats:
        """The size; nothing ever happens to the pages."""
        return TouchStats(EAGER, self.nbytes, self.nbytes, *[0] * (len(TouchStats._fields) - 3))

    def populate(self, offset: int, length: int, /) -> None:
        """Nothing: all is there."""

    def evict(self) -> None:
        """Nothing: it would be lost."""


_owners: "weakref.WeakSet[Touched]" = weakref.WeakSet()


def _flush_last(reference: "weakref.ref[Touched | EagerlyTouched]") -> None:
    """At the end of the program: edits of arrays that are still alive."""
    touched = reference()
    if touched is not None and touched._process_id == os.getpid():
        touched.flush()


def _renew_in_child() -> None:
    """The thread that was flushing did not come along."""
    for touched in tuple(_owners):
        touched._flushing = threading.RLock()


os.register_at_fork(after_in_child=_renew_in_child)


def limit_of(resident_limit: int | str | None, nbytes: int, budget: Budget) -> int:
    """The bytes that an array's pages may take: what was asked for, or a part of the budget; no more than is of use."""
    if resident_limit is None:
        most = budget.limit_bytes // DEFAULT_SHARE
    else:
        most = parse_bytes(resident_limit, "resident_limit")
        if most < _touch.LIMIT_BYTES_MIN:
            raise ValueError(f"resident_limit must be at least {_touch.LIMIT_BYTES_MIN} bytes, not {resident_limit!r}")
    # Beside pages, one part in eight of the limit is for packed ones.
    return max(_touch.LIMIT_BYTES_MIN, min(most, nbytes + nbytes // 4 + _touch.WINDOW_BYTES))


def budget_of(resident_limit: int | str | None) -> Budget:
    """Whom an array's pages are charged to; with a limit of their own, to the process's limit only if that was set."""
    return governor.budget if resident_limit is None else governor.own_budget(BYTES_MAX)


def directory_for(directory: "str | os.PathLike[str] | None") -> str:
    """Where files of edited pages are made, checked. Errors: those of validated_spill_dir."""
    return validated_spill_dir(tempfile.gettempdir() if directory is None else directory, REAL_FILE_SYSTEM)


def warn_of_eager(nbytes: int, most_bytes: int) -> None:
    """Say that an array is filled at once; MemoryError if it must not be so large."""
    reason = "neither userfaultfd nor a SIGSEGV handler is permitted here"
    if nbytes > most_bytes:
        size, most = format_bytes(nbytes), format_bytes(most_bytes)
        raise MemoryError(f"{reason}, and an array of {size} is beyond its limit of {most}")
    warnings.warn(f"{reason}: the array is filled at once", RuntimeWarning, stacklevel=4)


# what users call ------------------------------------------------------------------------------------------------------


def owner(array: NDArray[Any]) -> Any:
    """The owner of an array on touch, or of a view of one. Errors: TypeError for another array.

    >>> from spectral_alloc import GenerativeSpace
    >>> array = GenerativeSpace().array((4, 4))
    >>> owner(array[1:, 2]) is array.base
    True
    """
    found: Any = array
    while isinstance(found, numpy.ndarray | memoryview):
        found = found.base if isinstance(found, numpy.ndarray) else found.obj
    if not hasattr(found, "flush_at_end"):
        raise TypeError(f"not an array on touch: its memory belongs to {type(found).__name__}")
    return found


def flush(array: NDArray[Any]) -> None:
    """Carry the edits of an array to where they are kept: the space's edits, or the tiers of the memory.

    Happens by itself when the array goes and when the program ends. Errors: those of the space's log (the edits then
    stay in the array), CorruptFrameError if a page that left cannot be read. Cost: a microsecond for each page that was
    written, and an edit for each value that differs.

    >>> from spectral_alloc import GenerativeSpace
    >>> space = GenerativeSpace()
    >>> array = space.array(1000)
    >>> array[5] = 0.5
    >>> flush(array)
    >>> list(space.edits())
    [(5, 0.5)]
    """
    owner(array).flush()


def stats(array: NDArray[Any]) -> TouchStats:
    """What has become of an array's pages. Errors: TypeError. O(1).

    >>> from spectral_alloc import GenerativeSpace
    >>> stats(GenerativeSpace().array(1000)).evicted
    0
    """
    result: TouchStats = owner(array).stats()
    return result


def populate(array: NDArray[Any]) -> None:
    """Bring the pages of an array or of a view into memory, so that a system call may touch them whatever the way is.

    Errors: ValueError if they are more than half of what may be in memory, since they would not stay;
    CorruptFrameError.

    >>> from spectral_alloc import GenerativeSpace
    >>> array = GenerativeSpace().array(2**30)
    >>> populate(array[2**29 : 2**29 + 1000])
    """
    touched = owner(array)
    low, high = bounds_of(array)
    if high - low > touched.limit_bytes // 2:
        most = format_bytes(touched.limit_bytes // 2)
        raise ValueError(f"{format_bytes(high - low)} do not stay in memory: at most {most} can be brought in at once")
    if high > low:
        touched.populate(low - touched.address, high - low)


def bounds_of(array: NDArray[Any]) -> tuple[int, int]:
    """The first address of an array's memory and the one behind its last."""
    low = high = int(array.__array_interface__["data"][0])
    if array.size == 0:
        return low, low
    for length, stride in zip(array.shape, array.strides, strict=True):
        low, high = low + min(0, (length - 1) * stride), high + max(0, (length - 1) * stride)
    return low, high + array.itemsize


def evict(array: NDArray[Any]) -> None:
    """Let all pages of an array leave memory; edits stay edits. Errors: TypeError.

    Cost: 0.2 us a page, 10 us an edited one.
    """
    owner(array).evict()
