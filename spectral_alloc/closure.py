"""Which values may leave HOT: the rule of each type, and the walk that applies it.

A value is *closed* when nobody outside its own entry can reach anything mutable in its object graph. The
walk itself is in C (``core/closure.h``); this module decides, once per type, how a type is walked and
whether its instances can be serialised faithfully. ``docs/closure.md`` has the whole table.
"""

import collections
import copyreg
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import pathlib
import re
import sys
import types
import typing
import uuid
import zoneinfo
from array import array
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from spectral_alloc import _closure, trust
from spectral_alloc._closure import (
    BODY_ARRAY,
    BODY_BASE,
    BODY_BUILTIN,
    BODY_BYTEARRAY,
    BODY_DATETIME,
    BODY_DEFAULT_DICT,
    BODY_DICT,
    BODY_FUNCTION,
    BODY_LEAF,
    BODY_LIST,
    BODY_NDARRAY,
    BODY_OBJECT,
    BODY_ORDERED_DICT,
    BODY_PIN,
    BODY_SET,
    BODY_SHARED,
    BODY_TRAVERSE,
    BODY_TUPLE,
    HASH_FIELDS,
    HASH_IDENTITY,
    HASH_KEY_ONLY,
    HASH_MEMBERS,
    HASH_NONE,
    HASH_STABLE,
    RULE_OPAQUE,
    RULE_OWN_REDUCER,
    RULE_PLAIN,
    RULE_VALUE,
)

__all__ = ["CLOSED", "HELD", "PINNED", "Verdict", "classify", "examine", "register_type", "registered"]

CLOSED: Final = 0
HELD: Final = 1
PINNED: Final = 2

FLAT: Final = 1
PLAIN: Final = 2
HAS_BUFFERS: Final = 4
CYCLIC: Final = 8
RAN_PYTHON: Final = 16
ODD_SETS: Final = 32

Rule = tuple[int, int, int, str | None] | tuple[int, int, int, str | None, int]


class Verdict(NamedTuple):
    """What a walk found; status and flags are constants of this module, bytes is what a drop would free."""

    status: int
    flags: int
    bytes: int
    objects: int
    reason: str | None


def _pin(reason: str) -> Rule:
    return BODY_PIN, 0, HASH_NONE, reason


_LEAF: Final[Rule] = (BODY_LEAF, RULE_VALUE, HASH_STABLE, None)
_PLAIN_LEAF: Final[Rule] = (BODY_LEAF, RULE_VALUE | RULE_PLAIN, HASH_STABLE, None)
_OPAQUE_LEAF: Final[Rule] = (BODY_LEAF, RULE_VALUE | RULE_OPAQUE, HASH_STABLE, None)
_SHARED: Final[Rule] = (BODY_SHARED, RULE_VALUE, HASH_STABLE, None)

# Types whose rule does not depend on how their class is written: all are known exactly, none is a user's
# class.
_EXACT: Final[dict[type, Rule]] = {
    str: _PLAIN_LEAF,
    bytes: _PLAIN_LEAF,
    int: _PLAIN_LEAF,
    float: _PLAIN_LEAF,
    bool: _PLAIN_LEAF,
    type(None): _PLAIN_LEAF,
    complex: _LEAF,
    type(Ellipsis): _LEAF,
    type(NotImplemented): _LEAF,
    range: _OPAQUE_LEAF,
    list: (BODY_LIST, RULE_PLAIN, HASH_NONE, None),
    dict: (BODY_DICT, RULE_PLAIN, HASH_NONE, None),
    tuple: (BODY_TUPLE, RULE_VALUE | RULE_PLAIN, HASH_MEMBERS, None),
    set: (BODY_SET, RULE_PLAIN, HASH_NONE, None),
    frozenset: (BODY_SET, RULE_VALUE | RULE_PLAIN, HASH_MEMBERS, None),
    bytearray: (BODY_BYTEARRAY, RULE_PLAIN, HASH_NONE, None),
    collections.deque: (BODY_TRAVERSE, 0, HASH_NONE, None),
    collections.OrderedDict: (BODY_ORDERED_DICT, 0, HASH_NONE, None),
    types.SimpleNamespace: (BODY_OBJECT, 0, HASH_NONE, None),
    slice: (BODY_TRAVERSE, RULE_VALUE, HASH_MEMBERS, None),
    datetime.timedelta: _LEAF,
    datetime.date: _LEAF,
    datetime.datetime: (BODY_DATETIME, RULE_VALUE, HASH_STABLE, None),
    datetime.time: (BODY_DATETIME, RULE_VALUE, HASH_STABLE, None),
    datetime.timezone: _LEAF,
    decimal.Decimal: _LEAF,
    fractions.Fraction: _OPAQUE_LEAF,
    uuid.UUID: _OPAQUE_LEAF,
    pathlib.PurePosixPath: _OPAQUE_LEAF,
    pathlib.PureWindowsPath: _OPAQUE_LEAF,
    type(pathlib.Path()): _OPAQUE_LEAF,
    ipaddress.IPv4Address: _OPAQUE_LEAF,
    ipaddress.IPv6Address: _OPAQUE_LEAF,
    ipaddress.IPv4Network: _OPAQUE_LEAF,
    ipaddress.IPv6Network: _OPAQUE_LEAF,
    ipaddress.IPv4Interface: _OPAQUE_LEAF,
    ipaddress.IPv6Interface: _OPAQUE_LEAF,
    zoneinfo.ZoneInfo: _SHARED,
    re.Pattern: _SHARED,
    types.ModuleType: _SHARED,
    types.GenericAlias: _SHARED,
    types.UnionType: _SHARED,
    type(str.upper): _SHARED,  # method descriptors live as long as their class
    type(str.__len__): _SHARED,
    types.FunctionType: (BODY_FUNCTION, RULE_VALUE, HASH_STABLE, None),
    types.BuiltinFunctionType: (BODY_BUILTIN, RULE_VALUE, HASH_STABLE, None),
}

# Why the values of frequent other types stay HOT; any type not named here is refused by a general sentence.
_REFUSED: Final[dict[type, str]] = {
    types.GeneratorType: "generator objects cannot be serialised",
    types.CoroutineType: "coroutine objects cannot be serialised",
    types.AsyncGeneratorType: "asynchronous generator objects cannot be serialised",
    types.MethodType: "bound methods cannot be serialised faithfully: they hold their object",
    types.FrameType: "frame objects cannot be serialised",
    types.TracebackType: "traceback objects cannot be serialised",
    types.CellType: "closure cells cannot be serialised",
    types.MappingProxyType: "mappingproxy objects cannot be serialised: they show somebody else's dict",
    memoryview: "memoryview objects cannot be serialised: they show somebody else's memory",
    staticmethod: "staticmethod objects cannot be serialised",
    classmethod: "classmethod objects cannot be serialised",
    property: "property objects cannot be serialised",
}

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
_NATIVE_BODIES: Final[dict[type, tuple[int, int]]] = {
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

# Bases whose own code does not count as the class's: they add methods, not state.
_TRANSPARENT_BASES: Final = frozenset({collections.Counter})

_GENERIC_BASES: Final = (typing.Generic, typing.Protocol)  # Generic is written in C since 3.12

# Forms of annotations: made once, kept by the modules that use them.
_TYPING_FORMS: Final = frozenset(
    type(form)
    for form in (
        typing.Any,
        typing.Optional[int],  # noqa: UP045 - as for List
        typing.List[int],  # noqa: UP006 - the object that this old spelling makes is what is meant
        typing.Callable[[int], int],
        typing.TypeVar("_T"),
    )
)


# ---- classes made by class statements ----

_HEAP_TYPE: Final = 1 << 9
_HAVE_GC: Final = 1 << 14
_ABSTRACT: Final = 1 << 20


def _native_base(cls: type) -> type:
    """The base whose C struct the instances have: the first that no class statement made."""
    for base in cls.__mro__:
        if base is not object and (base in _NATIVE_BODIES or not base.__flags__ & _HEAP_TYPE):
            return base
    return object


def _is_named_tuple(cls: type) -> bool:
    """Whether collections.namedtuple or typing.NamedTuple wrote the constructor of this class."""
    new = vars(cls).get("__new__")
    new = new.__func__ if isinstance(new, staticmethod) else new
    return isinstance(new, types.FunctionType) and new.__globals__.get("__name__", "").startswith(
        "namedtuple_"
    )


def _state_method(cls: type, native: type) -> str | None:
    """`Class.method` of the first method that handles hidden state, None when there is none."""
    for base in cls.__mro__:
        if base is native or base is object or base in _TRANSPARENT_BASES or base in _GENERIC_BASES:
            continue
        for name in _STATE_METHODS:
            method = vars(base).get(name)
            if method is None or (isinstance(method, types.FunctionType) and method in _GENERATED_METHODS):
                continue
            if name in ("__new__", "__getnewargs__") and _is_named_tuple(base):
                continue
            return f"{base.__qualname__}.{name}"
    return None


def _attribute_of_class(cls: type, name: str) -> object:
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return None


def _hash_is_generated(cls: type) -> bool:
    """Whether dataclass(frozen=True) wrote __hash__ and __eq__ of this very class from its fields."""
    parameters = vars(cls).get("__dataclass_params__")
    method = vars(cls).get("__hash__")
    equal = vars(cls).get("__eq__")
    if parameters is None or not (parameters.frozen and parameters.eq):
        return False
    if not isinstance(method, types.FunctionType) or not isinstance(equal, types.FunctionType):
        return False
    names = [f.name for f in dataclasses.fields(cls) if (f.compare if f.hash is None else f.hash)]
    members = "".join(f"self.{name}," for name in names)
    expected: dict[str, Any] = {}
    exec(
        f"def __hash__(self):\n return hash(({members}))", expected
    )  # the very text that dataclasses compiles
    code, own = expected["__hash__"].__code__, method.__code__
    return (own.co_code, own.co_names, own.co_consts) == (
        code.co_code,
        code.co_names,
        code.co_consts,
    ) and equal.__code__.co_filename == own.co_filename == "<string>"


def _hash_kind(cls: type, native: type, native_kind: int) -> int:
    method, equal = _attribute_of_class(cls, "__hash__"), _attribute_of_class(cls, "__eq__")
    if method is vars(native).get("__hash__") and equal is vars(native).get("__eq__"):
        return native_kind
    return HASH_FIELDS if native is object and _hash_is_generated(cls) else HASH_NONE


def _classify_class(cls: type) -> Rule:
    """The rule of a class that is not known by name."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    native = _native_base(cls)
    if native not in _NATIVE_BODIES:
        return _pin(f"{name} objects cannot be serialised: {native.__qualname__} keeps state in C")
    problem = _closure.layout_problem(cls, native)
    if problem is not None:
        return _pin(f"{name} objects cannot be serialised: the class {problem} (see register_type)")
    method = _state_method(cls, native)
    if method is not None:
        return _pin(f"{name} objects cannot be serialised faithfully: {method} handles state of its own")
    if cls in copyreg.dispatch_table:
        return _pin(f"{name} objects cannot be serialised faithfully: copyreg has a reducer for them")
    if cls.__flags__ & _ABSTRACT:
        return _pin(f"{name} objects cannot be made again: the class is abstract")
    if cls.__dictoffset__ != 0 and not _layouts.instances:
        return _pin(f"{name} objects cannot be walked: the attribute layout of this interpreter is not known")
    body, native_kind = _NATIVE_BODIES[native]
    if body == BODY_SET and not _layouts.sets:
        return _pin(f"{name} objects cannot be serialised: the set layout of this interpreter is not known")
    immutable = native in (tuple, frozenset) and cls.__dictoffset__ == 0
    return body, RULE_VALUE if immutable else 0, _hash_kind(cls, native, native_kind), None


# ---- numpy, when the program uses it ----


def _classify_numpy(cls: type, numpy: types.ModuleType) -> Rule | None:
    if cls is numpy.ndarray:
        major = trust.numpy_major(numpy)
        _closure.set_numpy_major(major)
        if major == 0:
            return _pin(f"numpy {numpy.__version__} keeps arrays in a layout that is not known")
        return BODY_NDARRAY, 0, HASH_NONE, None
    if issubclass(cls, numpy.ndarray):
        return _pin(
            f"{cls.__module__}.{cls.__qualname__} objects cannot be serialised: a subclass of numpy.ndarray"
        )
    if issubclass(cls, numpy.dtype):
        return _SHARED
    if not issubclass(cls, numpy.generic):
        return None
    if cls.__flags__ & _HEAP_TYPE or issubclass(cls, (numpy.void, numpy.object_)):
        return _pin(f"{cls.__module__}.{cls.__qualname__} scalars cannot be serialised")
    may_be_nan = (numpy.inexact, numpy.datetime64, numpy.timedelta64)
    checked_here = cls is numpy.float64  # a float, whose NaN the walk recognises
    kind = HASH_KEY_ONLY if issubclass(cls, may_be_nan) and not checked_here else HASH_STABLE
    return BODY_LEAF, RULE_VALUE, kind, None


# ---- every type ----


def classify(cls: type) -> Rule:
    """Decide how objects of exactly this type are walked.

    :param cls: any type.
    :returns: (body, flags, hash kind, reason or None), codes of ``core/rules.h``.

    Called by the walk once per type and version of the type. Cost: about 20 us. Thread: any, GIL held.
    """
    found = _registered.get(cls)
    if found is not None:
        return found.rule
    rule = _EXACT.get(cls)
    if rule is not None:
        return rule
    if cls in _REFUSED:
        return _pin(_REFUSED[cls])
    if issubclass(cls, type) or issubclass(cls, enum.Enum) or cls in _TYPING_FORMS:
        return _SHARED
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "ndarray"):
        rule = _classify_numpy(cls, numpy)
        if rule is not None:
            return rule
    return _classify_class(cls)


def examine(holder: list[Any] | dict[Any, Any], key: Any = 0) -> Verdict:
    """Walk ``holder[key]`` and say whether it could leave, counting only the holder's own reference as the
    caller's.

    :param holder: list or dict whose slot is the only allowed outside reference to the value.
    :param key: index or key of the value.
    :returns: status CLOSED, HELD or PINNED; bytes that dropping the value would free; the reason if it may
        not leave.
    :raises KeyError, IndexError: no such item.

    Cost: 20 ns when held, else about 10-25 ns per object. Thread: any, GIL held.

    >>> examine([[1, 2, "three"]]).status == CLOSED
    True
    >>> row = [1, 2, "three"]
    >>> examine([row]).reason
    'a part of the value is referenced from outside'
    """
    return Verdict._make(_closure.examine(holder, key))


# ---- types of the program's own ----


class Registered(NamedTuple):
    """What register_type was told about a type."""

    rule: Rule
    reduce: Callable[[Any], Any] | None
    restore: Callable[[Any], Any] | None


_registered: dict[type, Registered] = {}


def registered(cls: type) -> Registered | None:
    """What register_type was told about exactly this type, None for all others."""
    return _registered.get(cls)


def register_type(
    cls: type,
    *,
    atom: bool = False,
    reduce: Callable[[Any], Any] | None = None,
    restore: Callable[[Any], Any] | None = None,
    size: int | None = None,
) -> None:
    """Declare how objects of exactly this type leave HOT and come back.

    :param cls: the type; subclasses are not included.
    :param atom: the objects are immutable values, compared and hashed by content: they are shared freely, and
        serialised by plain pickle.
    :param reduce: gives the whole state of an object as a value that can itself be serialised.
    :param restore: makes an equal object from that state.
    :param size: bytes that each object keeps in memory of C that Python does not see.
    :raises TypeError: not a type, or the wrong combination of arguments.
    :raises ValueError: the type has a rule that cannot be replaced, or `size` is negative.

    The references inside an object are found by the type's own ``tp_traverse`` (all of them must be reported
    there) or, for a class made by a class statement, in its attributes and slots. A C type without garbage
    collection is taken for a leaf that refers to nothing. `reduce` and `restore` run at demotion and
    promotion: they must be pure.
    Cost: one dict entry; all rules are made again. Thread: any.

    >>> class Celsius:
    ...     __slots__ = ("degrees",)
    ...     def __reduce__(self): raise TypeError("not by pickle")
    >>> def restored(degrees):
    ...     made = Celsius(); made.degrees = degrees; return made
    >>> register_type(Celsius, reduce=lambda value: value.degrees, restore=restored)
    """
    if not isinstance(cls, type):
        raise TypeError(f"cls must be a type, not {cls!r}")
    if cls in _EXACT or issubclass(cls, (type, enum.Enum)):
        raise ValueError(f"{cls.__qualname__} has a fixed rule that cannot be replaced")
    if atom == (reduce is not None) or (reduce is None) != (restore is None):
        raise TypeError(
            f"register_type({cls.__qualname__}): give either atom=True, or both reduce and restore"
        )
    if reduce is not None and not (callable(reduce) and callable(restore)):
        raise TypeError(f"register_type({cls.__qualname__}): reduce and restore must be callable")
    if size is not None and size < 0:
        raise ValueError(f"register_type({cls.__qualname__}): size is {size}, but must be 0 bytes or more")
    rule = _atom_rule(cls) if atom else _own_reducer_rule(cls)
    try:
        _registered[cls] = Registered((*rule[:4], size or 0), reduce, restore)
    finally:
        _closure.forget_rules()


def _atom_rule(cls: type) -> Rule:
    method = _attribute_of_class(cls, "__hash__")
    by_content = HASH_NONE if method is None else HASH_STABLE
    kind = HASH_IDENTITY if method is vars(object)["__hash__"] else by_content
    return BODY_LEAF, RULE_VALUE | RULE_OPAQUE, kind, None


def _own_reducer_rule(cls: type) -> Rule:
    """By its own layout when class statements made it, else by tp_traverse, else as a leaf."""
    kind = _hash_kind(cls, object, HASH_IDENTITY)
    native = _native_base(cls)
    if native in _NATIVE_BODIES and _closure.layout_problem(cls, native) is None and _layouts.instances:
        return _NATIVE_BODIES[native][0], RULE_OWN_REDUCER, kind, None
    if cls.__flags__ & _HAVE_GC:
        return BODY_TRAVERSE, RULE_OWN_REDUCER, kind, None
    return BODY_OBJECT, RULE_OWN_REDUCER, kind, None


_closure.set_classifier(classify, _GENERIC_BASES, 0)
_layouts = trust.Layouts(instances=True, sets=True)
_layouts = trust.check_layouts()
if not _layouts.sets:
    for _type in (set, frozenset):
        _EXACT[_type] = _pin("sets cannot be serialised: the set layout of this interpreter is not known")
if _layouts.arrays:
    _EXACT[array] = (BODY_ARRAY, 0, HASH_NONE, None)
if _layouts.defaultdicts:
    _EXACT[collections.defaultdict] = (BODY_DEFAULT_DICT, 0, HASH_NONE, None)
if not _layouts.decimals:
    _EXACT[decimal.Decimal] = (BODY_LEAF, RULE_VALUE, HASH_KEY_ONLY, None)
_closure.forget_rules()
