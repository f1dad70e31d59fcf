"""Giving freed memory back to the operating system."""

import ctypes
from time import monotonic

__all__ = ["Trimmer"]

TRIM_BYTES = 32 << 20  # freed since the last trim
TRIM_SECONDS = 1.0  # a trim walks the C library's heap: about 10 ms for 100 MB


def _find_malloc_trim() -> "ctypes._NamedFuncPointer | None":
    """malloc_trim of glibc; None on another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None


class Trimmer:
    """Calls glibc's malloc_trim after enough bytes were freed, at most once a second.

    Threads: safe; the GIL is released while the heap is walked.
    """

    def __init__(self) -> None:
        self._malloc_trim = _find_malloc_trim()
        self._freed_bytes = 0
        self._last_seconds = 0.0

    def freed(self, size_bytes: int) -> None:
        """Note that ``size_bytes`` were freed; trim if it is time. Cost: an addition, but for the trim."""
        self._freed_bytes += max(0, size_bytes)
        if self._freed_bytes < TRIM_BYTES or self._malloc_trim is None:
            return
        now = monotonic()
        if now - self._last_seconds >= TRIM_SECONDS:
            self._last_seconds = now
            self._freed_bytes = 0
            self._malloc_trim(0)
