"""What the allocators hold, and giving freed memory back to the operating system."""

import ctypes
from time import monotonic

from spectral_alloc._arena import arena_bytes

__all__ = ["Trimmer", "small_allocation_bytes"]

TRIM_BYTES = 32 << 20  # moved out of memory since the last trim
TRIM_SECONDS = 1.0  # a trim walks the C library's heap: about 10 ms for 100 MB, ...
TRIM_COST_TIMES = 20  # ... and where it takes long, so many times that passes before the next one
TRIM_LONG_SECONDS = 0.05
SHRUNK_BYTES = 4 << 20  # fallen since the last peak
SHRUNK_SHARE = 1 / 4  # ... and at least this part of it, so that the walks cost a constant for each byte freed


def _find_malloc_trim() -> "ctypes._NamedFuncPointer | None":
    """malloc_trim of glibc; None on another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None


class _MallocInfo(ctypes.Structure):
    """struct mallinfo2 of glibc; only ``arena``, the bytes of the heap without separately mapped blocks, is used."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def _find_mallinfo() -> "ctypes._NamedFuncPointer | None":
    """mallinfo2 of glibc 2.33 and later; None elsewhere."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    mallinfo.restype = _MallocInfo
    return mallinfo


_mallinfo = _find_mallinfo()


def small_allocation_bytes() -> int:
    """Return the bytes that the allocators of small objects hold: CPython's arenas and the C library's heap.

    Only differences mean something: the arenas are counted from the import of the library on. Blocks that the C library
    maps apart (large arrays) are not in it. Cost: a few microseconds. Threads: safe.

    >>> isinstance(small_allocation_bytes(), int)
    True
    """
    return arena_bytes() + (0 if _mallinfo is None else int(_mallinfo().arena))


class Trimmer:
    """Calls glibc's malloc_trim after enough bytes moved, at most once a second, and when what is used shrank a lot.

    The heap is the whole program's: where a trim takes long, there are few.

    Threads: safe; the GIL is released while the heap is walked.
    """

    def __init__(self) -> None:
        self._malloc_trim = _find_malloc_trim()
        self._freed_bytes = 0
        self._peak_bytes = 0
        self._last_seconds = 0.0
        self._pause_seconds = 0.0  # after the last trim

    def note(self, freed_bytes: int, used_bytes: int) -> None:
        """Note that bytes were freed, and how many are in use now; trim if it is time. Cost: additions, or a trim."""
        self._freed_bytes += max(0, freed_bytes)
        self._peak_bytes = max(self._peak_bytes, used_bytes)
        shrank = self._peak_bytes - used_bytes >= max(SHRUNK_BYTES, self._peak_bytes * SHRUNK_SHARE)
        if shrank or self._freed_bytes >= TRIM_BYTES:
            since_seconds = monotonic() - self._last_seconds
            if since_seconds >= (self._pause_seconds if shrank else max(TRIM_SECONDS, self._pause_seconds)):
                self._trim(used_bytes)

    def _trim(self, used_bytes: int) -> None:
        self._last_seconds = monotonic()
        self._freed_bytes = 0
        self._peak_bytes = used_bytes
        if self._malloc_trim is not None:
            self._malloc_trim(0)
            taken_seconds = monotonic() - self._last_seconds
            self._pause_seconds = TRIM_COST_TIMES * taken_seconds if taken_seconds > TRIM_LONG_SECONDS else 0.0
