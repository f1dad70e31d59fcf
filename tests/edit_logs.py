"""What the tests of the edit log share."""

import weakref
from pathlib import Path

from faults import FaultyFileSystem

from spectral_alloc import GenerativeSpace
from spectral_alloc.edit_log import EditLog


def reopened(path: Path, seed: int | str = 1, **settings: object) -> dict[int, float]:
    """The edits that a new space finds in a log."""
    space = GenerativeSpace(seed, **settings).attach(path)
    try:
        return dict(space.edits())
    finally:
        space.detach()


def attach_faulty(space: GenerativeSpace, path: Path, disk: FaultyFileSystem, durability: str = "none") -> EditLog:
    """Attach a space to a log on a disk that fails on demand."""
    space._log = EditLog(path, space.overlay, space.generator, durability=durability, file_system=disk)
    space._closer = weakref.finalize(space, space._log.close_quietly)
    return space._log
