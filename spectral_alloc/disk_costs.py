"""DiskCosts: whether the disk or the codec is the cheaper way to take bytes out of memory and back, as measured.

Words: a *way* is what a block goes through that leaves: the codec (encoded, kept as a frame, decoded), or the disk as
it is (written, read); its *cost* is seconds a byte, there and back.

    cost     moving average of each of the four; a sample counts at most SAMPLE_TIMES_MAX times the average, so that a
             process that was stopped meanwhile does not decide

Invariant: both ways are measured again now and then (TRIAL_EVERY), so a disk that becomes slow, or data that compress
fast, are found. Threads: any; the averages are approximate. Cost: some 200 ns a sample.
"""

from enum import IntEnum

from spectral_alloc._formula import find

__all__ = ["RAW_FROM_BYTES", "Cost", "DiskCosts"]

RAW_FROM_BYTES = 16 << 10  #: below this a call costs more than the bytes
WEIGHT = 1 / 8
SAMPLE_TIMES_MAX = 4
TRIAL_EVERY = 64


class Cost(IntEnum):
    """What is measured."""

    ENCODED = 0
    DECODED = 1
    WRITTEN = 2
    READ = 3


class DiskCosts:
    """Averages of what bytes cost.

    >>> costs = DiskCosts()
    >>> costs.add(Cost.ENCODED, 1000, 1e-3); costs.add(Cost.WRITTEN, 1000, 1e-5)
    >>> sum(costs.disk_is_next() for _ in range(64))
    63
    """

    def __init__(self) -> None:
        self._seconds_per_byte = [0.0] * len(Cost)
        self._turn = 0

    def add(self, cost: Cost, size_bytes: int, seconds: float) -> None:
        """Count one sample of large pieces."""
        if size_bytes < RAW_FROM_BYTES and self._seconds_per_byte[cost]:
            return
        found, known = seconds / max(size_bytes, 1), self._seconds_per_byte[cost]
        found = min(found, known * SAMPLE_TIMES_MAX) if known else found
        self._seconds_per_byte[cost] = known + (found - known) * WEIGHT if known else found

    def takes(self, data: bytes) -> bool:
        """Whether a block goes to disk as it is: large, cheaper there, and nothing that a formula gives."""
        return len(data) >= RAW_FROM_BYTES and self.disk_is_next() and find(data) is None

    def disk_is_next(self) -> bool:
        """Which way the next large block goes: the cheaper one, but for one in TRIAL_EVERY."""
        encoded, decoded, written, read = self._seconds_per_byte
        if not encoded or not written:
            return bool(encoded)
        self._turn += 1
        is_disk_cheaper = written + (read or written) < encoded + decoded
        return is_disk_cheaper != (self._turn % TRIAL_EVERY == 0)
