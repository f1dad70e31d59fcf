"""Types of the compiled seam; behaviour and costs are in the docstrings of cython_ext/_address.pyx."""

from typing import Any, SupportsIndex

from numpy import uint64
from numpy.typing import ArrayLike, NDArray

WORD_COUNT: int

def as_word(value: SupportsIndex, name: str = "address") -> int: ...
def as_words(values: ArrayLike, name: str = "addresses") -> NDArray[uint64]: ...
def as_words_slow(objects: NDArray[Any], name: str) -> NDArray[uint64]: ...
