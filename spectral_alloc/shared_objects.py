"""What frames name by number: classes, functions, modules, enum members; kept alive while a frame may need them.

Words: a *table* numbers the objects that the frames of one container name; a frame holds two numbers, its table's too.

Invariant: an object keeps its number, and stays alive, as long as its table does; a container that goes takes its
table along, and with it the last references to classes that were made in a function.

Threads: any; no lock, since a fork could copy it taken.
"""

import itertools
import weakref
from typing import Any

__all__ = ["PROCESS_OBJECTS", "SharedObjects", "shared"]

_tables: "dict[int, weakref.ref[SharedObjects]]" = {}
_table_numbers = itertools.count()


class SharedObjects:
    """The objects that the frames of one container name by number.

    Cost: a look-up in a dict each way. Threads: safe.

    >>> table = SharedObjects()
    >>> shared(table.number, table.number_of(SharedObjects)) is SharedObjects
    True
    """

    __slots__ = ("__weakref__", "_numbers", "_objects", "_spare_numbers", "array_heads", "number")

    def __init__(self) -> None:
        self._objects: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._spare_numbers = itertools.count()
        #: What the serializer wrote for arrays of one outline, which names objects of this table.
        self.array_heads: dict[Any, Any] = {}
        number = self.number = next(_table_numbers)
        _tables[number] = weakref.ref(self, lambda _: _tables.pop(number, None))

    def number_of(self, value: Any) -> int:
        """The number of an object, which is kept alive from now on."""
        number = self._numbers.get(id(value))
        if number is None:
            # Of two threads here one number is used, the other stays unused.
            number = next(self._spare_numbers)
            self._objects[number] = value
            number = self._numbers.setdefault(id(value), number)
        return number

    def __getitem__(self, number: int) -> Any:
        """The object that has this number."""
        return self._objects[number]


def shared(table_number: int, number: int) -> Any:
    """The object that a frame names; KeyError if its table is gone. Named in the frames: its place must not change."""
    table = _tables[table_number]()
    if table is None:
        raise KeyError(table_number)
    return table[number]


#: For values that are serialised for no container.
PROCESS_OBJECTS = SharedObjects()
