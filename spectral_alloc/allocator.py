"""Giving freed memory back to the operating system."""

import ctypes
from time import monotonic

__all__ = ["Trimmer"]

TRIM_BYTES = 32 << 20  # moved out of memory since the last trim
TRIM_SECONDS = 1.0  # a trim walks the C library's heap: about 10 ms for 100 MB
SHRUNK_BYTES = 4 << 20  # fallen since the last peak
SHRUNK_SHARE = 1 / 4  # ... and at least this part of it, so that the walks cost a constant for each byte freed


def _find_malloc_trim() -> "ctypes._NamedFuncPointer | None":
    """malloc_trim of glibc; None on another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None


class Trimmer:
    """Calls glibc's malloc_trim after enough bytes moved, at most once a second, and when what is used shrank a lot.

    Threads: safe; the GIL is released while the heap is walked.
    """

    def __init__(self) -> None:
        self._malloc_trim = _find_malloc_trim()
        self._freed_bytes = 0
        self._peak_bytes = 0
        self._last_seconds = 0.0

    def note(self, freed_bytes: int, used_bytes: int) -> None:
        """Note that bytes were freed, and how many are in use now; trim if it is time. Cost: additions, or a trim."""
        self._freed_bytes += max(0, freed_bytes)
        self._peak_bytes = max(self._peak_bytes, used_bytes)
        shrank = self._peak_bytes - used_bytes >= max(SHRUNK_BYTES, self._peak_bytes * SHRUNK_SHARE)
        moved = self._freed_bytes >= TRIM_BYTES and monotonic() - self._last_seconds >= TRIM_SECONDS
        if shrank or moved:
            self._trim(used_bytes)

    def _trim(self, used_bytes: int) -> None:
        self._last_seconds = monotonic()
        self._freed_bytes = 0
        self._peak_bytes = used_bytes
        if self._malloc_trim is not None:
            self._malloc_trim(0)
