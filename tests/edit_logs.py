"""What the tests of the edit log share."""

from pathlib import Path

from spectral_alloc import GenerativeSpace


def reopened(path: Path, seed: int | str = 1, **settings: object) -> dict[int, float]:
    """The edits that a new space finds in a log."""
    space = GenerativeSpace(seed, **settings).attach(path)
    try:
        return dict(space.edits())
    finally:
        space.detach()
