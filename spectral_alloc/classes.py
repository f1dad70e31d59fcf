"""What a class statement made: the questions about a class that decide whether its instances can leave.

Nothing here asks the class itself: a metaclass may lie about ``__dict__`` or ``__eq__``, so that only the
descriptors of ``type`` are used and classes are compared by identity.
"""

import collections
import copyreg
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

from spectral_alloc._closure import (
    BODY_BASE,
    BODY_DICT,
    BODY_LIST,
    BODY_OBJECT,
    BODY_SET,
    BODY_TUPLE,
    HASH_FIELDS,
    HASH_IDENTITY,
    HASH_MEMBERS,
    HASH_NONE,
    HASH_STABLE,
)

__all__ = [
    "ABSTRACT",
    "GENERIC_BASES",
    "HAVE_GC",
    "HEAP_TYPE",
    "NATIVE_BODIES",
    "attribute_of_class",
    "full_name",
    "has_copyreg_reducer",
    "hash_kind",
    "native_base",
    "state_method",
]

HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE
HAVE_GC: Final = 1 << 14  # Py_TPFLAGS_HAVE_GC
ABSTRACT: Final = 1 << 20  # Py_TPFLAGS_IS_ABSTRACT

_own_attributes: Final[Callable[[type], Mapping[str, Any]]] = type.__dict__["__dict__"].__get__
_bases_in_order: Final[Callable[[type], tuple[type, ...]]] = type.__dict__["__mro__"].__get__

# Methods by which a class says that its state is not just its attributes and slots.
_STATE_METHODS: Final = (
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__setstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
    "__new__",
    "__del__",
    "__class__",
)

# What of these the standard library writes by itself into ordinary classes, without any state behind it.
_GENERATED_METHODS: Final = frozenset(
    getattr(dataclasses, name)
    for name in ("_dataclass_getstate", "_dataclass_setstate")
    if hasattr(dataclasses, name)
)

# Native bases over which ordinary classes are supported.
NATIVE_BODIES: Final[dict[type, tuple[int, int]]] = {
    object: (BODY_OBJECT, HASH_IDENTITY),
    list: (BODY_LIST, HASH_NONE),
    dict: (BODY_DICT, HASH_NONE),
    set: (BODY_SET, HASH_NONE),
    frozenset: (BODY_SET, HASH_MEMBERS),
    tuple: (BODY_TUPLE, HASH_MEMBERS),
    str: (BODY_BASE, HASH_STABLE),
    bytes: (BODY_BASE, HASH_STABLE),
    int: (BODY_BASE, HASH_STABLE),
    float: (BODY_BASE, HASH_STABLE),
}

GENERIC_BASES: Final = (typing.Generic, typing.Protocol)  # Generic is written in C since 3.12

_NATIVE_IDS: Final = frozenset(map(id, NATIVE_BODIES))

# Bases whose own code does not count as the class's: they add methods, not state.
_TRANSPARENT_IDS: Final = frozenset(map(id, (object, collections.Counter, *GENERIC_BASES)))


def native_base(cls: type) -> type:
    """The base whose C struct the instances have: the first that no class statement made."""
    for base in _bases_in_order(cls):
        if base is not object and (id(base) in _NATIVE_IDS or not base.__flags__ & HEAP_TYPE):
            return base
    return object


def _is_named_tuple(cls: type) -> bool:
    """Whether collections.namedtuple or typing.NamedTuple wrote the constructor of this class."""
    new = _own_attributes(cls).get("__new__")
    new = new.__func__ if isinstance(new, staticmethod) else new
    return isinstance(new, types.FunctionType) and new.__globals__.get("__name__", "").startswith(
        "namedtuple_"
    )


def state_method(cls: type, native: type) -> str | None:
    """`Class.method` of the first method that handles hidden state, None when there is none."""
    for base in _bases_in_order(cls):
        if base is native or id(base) in _TRANSPARENT_IDS:
            continue
        for name in _STATE_METHODS:
            method = _own_attributes(base).get(name)
            if method is None or (isinstance(method, types.FunctionType) and method in _GENERATED_METHODS):
                continue
            if name in ("__new__", "__getnewargs__") and _is_named_tuple(base):
                continue
            return f"{base.__qualname__}.{name}"
    return None


def attribute_of_class(cls: type, name: str) -> object:
    """What the class or its first base that has it says under `name`, unbound; None without."""
    for base in _bases_in_order(cls):
        if name in _own_attributes(base):
            return _own_attributes(base)[name]
    return None


def _hash_is_generated(cls: type) -> bool:
    """Whether dataclass(frozen=True) wrote __hash__ and __eq__ of this very class from its fields."""
    parameters = _own_attributes(cls).get("__dataclass_params__")
    method = _own_attributes(cls).get("__hash__")
    equal = _own_attributes(cls).get("__eq__")
    if parameters is None or not (parameters.frozen and parameters.eq):
        return False
    if not isinstance(method, types.FunctionType) or not isinstance(equal, types.FunctionType):
        return False
    names = [f.name for f in dataclasses.fields(cls) if (f.compare if f.hash is None else f.hash)]
    members = "".join(f"self.{name}," for name in names)
    expected: dict[str, Any] = {}
    text = f"def __hash__(self):\n return hash(({members}))"  # the very text that dataclasses compiles
    exec(text, expected)
    code, own = expected["__hash__"].__code__, method.__code__
    same_code = (own.co_code, own.co_names, own.co_consts) == (code.co_code, code.co_names, code.co_consts)
    return same_code and equal.__code__.co_filename == own.co_filename == "<string>"


def hash_kind(cls: type, native: type, native_kind: int) -> int:
    """How instances are hashed and compared: as the native base does, by generated code, or by their own."""
    method, equal = attribute_of_class(cls, "__hash__"), attribute_of_class(cls, "__eq__")
    if method is _own_attributes(native).get("__hash__") and equal is _own_attributes(native).get("__eq__"):
        return native_kind
    return HASH_FIELDS if native is object and _hash_is_generated(cls) else HASH_NONE


def full_name(cls: type) -> str:
    """module.Class, for reasons."""
    return f"{cls.__module__}.{cls.__qualname__}"


def has_copyreg_reducer(cls: type) -> bool:
    """Whether somebody registered a reducer for exactly this class with copyreg."""
    return any(known is cls for known in copyreg.dispatch_table)
