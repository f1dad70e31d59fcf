"""The views of a thermal dict that show values: items() and values(). Keys have the underlying dict's own view."""

from collections.abc import ItemsView as AbstractItemsView
from collections.abc import Iterator
from collections.abc import ValuesView as AbstractValuesView
from reprlib import recursive_repr
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from spectral_alloc._iteration import PairIterator, ReversedIterator, ValueIterator

if TYPE_CHECKING:
    from spectral_alloc.thermal_dict import ThermalDict

__all__ = ["ThermalItems", "ThermalValues"]

K = TypeVar("K")
V = TypeVar("V")


def _opened(mapping: "ThermalDict[Any, Any]") -> "ThermalDict[Any, Any]":
    """The dict of a view; ClosedError from one that is closed, where every method refuses."""
    mapping.__len__()
    return mapping


class ThermalValues(AbstractValuesView[V], Generic[V]):
    """The values of a thermal dict, in insertion order; each is brought back only when the iteration reaches it."""

    __slots__ = ()
    _mapping: "ThermalDict[Any, V]"

    def __iter__(self) -> Iterator[V]:
        return ValueIterator(_opened(self._mapping))

    def __reversed__(self) -> Iterator[V]:
        return ReversedIterator(_opened(self._mapping), False)

    def __contains__(self, value: object) -> bool:
        return any(value is own or value == own for own in self)

    @recursive_repr("...")
    def __repr__(self) -> str:
        return f"dict_values({list(self)!r})"

    @property
    def mapping(self) -> "MappingProxyType[Any, V]":
        """A read-only view of the dict."""
        return MappingProxyType(self._mapping)


class ThermalItems(AbstractItemsView[K, V], Generic[K, V]):
    """The (key, value) pairs of a thermal dict, in insertion order; a set as far as values can be hashed."""

    __slots__ = ()
    _mapping: "ThermalDict[K, V]"

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return PairIterator(_opened(self._mapping))

    def __reversed__(self) -> Iterator[tuple[K, V]]:
        return ReversedIterator(_opened(self._mapping), True)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        own = _opened(self._mapping)._peek(item[0], _ABSENT)
        return own is not _ABSENT and (own is item[1] or bool(own == item[1]))

    @recursive_repr("...")
    def __repr__(self) -> str:
        return f"dict_items({list(self)!r})"

    @property
    def mapping(self) -> "MappingProxyType[K, V]":
        """A read-only view of the dict."""
        return MappingProxyType(self._mapping)


_ABSENT: Any = object()
