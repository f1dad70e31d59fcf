"""What a dict becomes when it is closed: an instance of a subclass that refuses everything.

Changing the class costs the open dict nothing: no method of it asks whether it is closed.
"""

from functools import cache
from typing import Any

from spectral_alloc.errors import ClosedError

__all__ = ["closed_class"]


# special methods of a dict that refuse when it is closed
_SPECIAL = frozenset(
    {"__getitem__", "__setitem__", "__delitem__", "__contains__", "__iter__", "__len__", "__reversed__"}
    | {"__eq__", "__ne__", "__or__", "__ror__", "__ior__", "__reduce_ex__", "__reduce__"}
)
# ... and what a closed dict still has
_KEPT = frozenset(
    {"close", "closed", "__enter__", "__exit__", "__class__", "__new__", "__init__", "__slots__", "__repr__", "__del__"}
)


def _refuse(self: object, *args: object, **named: object) -> Any:
    """Every method of a closed dict."""
    raise ClosedError("this ThermalDict is closed; its entries are gone")


class _Unannounced:
    """The first base of a closed class: the hook of the user's class is for classes of the user."""

    __slots__ = ()

    def __init_subclass__(cls, **named: object) -> None:
        pass


@cache
def closed_class(cls: type[dict[Any, Any]]) -> Any:
    """Return a subclass of a dict class in which everything but closing again refuses."""
    names = {name for base in cls.__mro__ for name in vars(base) if base is not object} - _KEPT
    refusing = {name: _refuse for name in names if callable(getattr(cls, name, None)) and not name.startswith("_")}
    special = {name: _refuse for name in names if name.startswith("__") and name in dir(dict) and name in _SPECIAL}
    space: dict[str, Any] = refusing | special
    space |= {
        "__slots__": (),
        "__module__": cls.__module__,
        "closed": property(lambda self: True),
        "memory_limit": property(_refuse, _refuse),
        "close": lambda self: None,
        "__exit__": lambda self, *details: None,
        "__enter__": _refuse,
        "__repr__": lambda self: f"<closed {cls.__name__}>",
        "_settle": lambda self: None,
        "_work": lambda self: None,
        "_after_fork_in_child": lambda self: None,
    }
    return type(cls.__name__, (_Unannounced, cls), space)
