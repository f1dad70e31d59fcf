"""The clock seam: everything in the library that waits for a time asks a ``Clock``, which tests replace."""

import time

__all__ = ["REAL_CLOCK", "Clock"]


class Clock:
    """The machine's monotonic clock.

    Attributes: ``runs_by_itself`` (False for a clock that only a test moves: then nothing happens in the background,
    and
    what is due is done by the next call that could do it).

    >>> REAL_CLOCK.monotonic() <= REAL_CLOCK.monotonic()
    True
    """

    runs_by_itself = True

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


REAL_CLOCK = Clock()
