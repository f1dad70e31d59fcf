"""What must hold for arrays on touch, as functions without pytest: a case that hangs hangs a process of its own.

`python -m touch_cases NAME ...` runs cases and prints a line of JSON for each; test_touch.py reads these lines. A case
is a function whose name begins with case_ (or alone_, if it ends its process or changes it for good).
"""

from typing import Any

import numpy
from numpy.typing import NDArray

from spectral_alloc import GenerativeSpace, touch

TINY = "64 KiB"  # the least limit there is: fourteen pages and two packed, so that nearly every touch evicts


def checked(array: NDArray[Any]) -> None:
    """The invariants of an array's pages hold."""
    owner = touch.owner(array)
    if hasattr(owner, "check"):
        owner.check()


def tiny(space: GenerativeSpace, shape: Any, **settings: Any) -> NDArray[Any]:
    """An array with the least memory that there is, or with enough where nothing can be evicted."""
    limit = None if touch.way() == touch.EAGER else TINY
    return space.array(shape, **({"resident_limit": limit} | settings))


def same(array: NDArray[Any], other: NDArray[Any]) -> bool:
    """The same bytes."""
    return numpy.asarray(array).tobytes() == numpy.asarray(other).tobytes()
