"""One append-only file of a log and its accounts.

    file     | live and dead frames ... | waste |
             0                          end     end + waste

``torn`` is set while a write is under way and stays set if it fails: the file may then be longer than its
accounts say.
"""

from collections.abc import Callable

from spectral_alloc.file_system import FileSystem, OpenFile

__all__ = ["Segment"]


class Segment(OpenFile):
    """One file, a new one unless ``opener`` says how to open it, and its accounts; it is closed when the last reader
    has let go of the object."""

    def __init__(
        self,
        number: int,
        path: str,
        capacity_bytes: int,
        file_system: FileSystem,
        opener: Callable[[str], int] | None = None,
    ) -> None:
        self.number = number
        self.path: str | None = path
        self.capacity_bytes = capacity_bytes
        self.end_bytes = 0
        self.dead_bytes = 0
        self.waste_bytes = 0
        self.torn = False
        super().__init__(file_system, opener or file_system.create, path)

    @property
    def held_bytes(self) -> int:
        """Bytes that were ever live: what releases add up to when everything in the file is dead."""
        return self.end_bytes

    @property
    def file_bytes(self) -> int:
        """Length of the file, as far as it is known."""
        return self.end_bytes + self.waste_bytes

    @property
    def dead_share(self) -> float:
        """Part of the file that holds nothing any more, from 0 to 1."""
        return (self.dead_bytes + self.waste_bytes) / max(self.held_bytes + self.waste_bytes, 1)

    def is_dead(self) -> bool:
        """Say whether no frame in it is live."""
        return self.dead_bytes >= self.held_bytes

    def mend(self) -> None:
        """Cut off what a failed write left; OSError leaves the segment ``torn``."""
        self._file_system.truncate(self.fd, self.end_bytes)
        self.torn = False
