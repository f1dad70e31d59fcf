"""What prefetch returns: a count that is there at once, or when it is awaited."""

import asyncio
from collections.abc import Generator
from typing import Any

__all__ = ["Prefetch"]


class Prefetch:
    """A prefetch that has run, or that runs beside an event loop: ``await`` it for the number of values moved.

    Threads: await it on the loop that it was made on.
    """

    def __init__(self, moved: "int | asyncio.Future[int]") -> None:
        self._moved = moved

    @property
    def moved(self) -> int:
        """The number of values that were brought into RAM; asyncio.InvalidStateError before the prefetch has run."""
        return self._moved if isinstance(self._moved, int) else self._moved.result()

    def __await__(self) -> Generator[Any, None, int]:
        if isinstance(self._moved, int):
            return self._moved
        return (yield from self._moved)

    def __repr__(self) -> str:
        if isinstance(self._moved, int) or self._moved.done():
            return f"Prefetch(moved={self.moved})"
        return "Prefetch(running)"
