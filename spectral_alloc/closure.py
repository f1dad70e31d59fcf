"""Which values may leave HOT: the rule of each type, and the walk that applies it.

A value is *closed* when nobody outside its own entry can reach anything mutable in its object graph. The
walk itself is in C (``core/closure.h``); this module decides, once per type, how a type is walked and
whether its instances can be serialised faithfully. ``docs/closure.md`` has the whole table.
"""

import collections
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
from spectral_alloc.classes import (
    ABSTRACT,
    GENERIC_BASES,
    HAVE_GC,
    HEAP_TYPE,
    NATIVE_BODIES,
    attribute_of_class,
    full_name,
    has_copyreg_reducer,
    hash_kind,
    native_base,
    state_method,
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

# Forms of annotations: made once, kept by the modules that use them.
_TYPING_FORMS: Final = frozenset(
    id(type(form))
    for form in (
        typing.Any,
        typing.Optional[int],  # noqa: UP045 - as for List
        typing.List[int],  # noqa: UP006 - the object that this old spelling makes is what is meant
        typing.Callable[[int], int],
        typing.TypeVar("_T"),
    )
)


def _classify_class(cls: type) -> Rule:
    """The rule of a class that is not known by name."""
    name = full_name(cls)
    native = native_base(cls)
    if not any(native is known for known in NATIVE_BODIES):
        return _pin(f"{name} objects cannot be serialised: {native.__qualname__} keeps state in C")
    problem = _closure.layout_problem(cls, native)
    if problem is not None:
        return _pin(f"{name} objects cannot be serialised: the class {problem} (see register_type)")
    method = state_method(cls, native)
    if method is not None:
        return _pin(f"{name} objects cannot be serialised faithfully: {method} handles state of its own")
    if has_copyreg_reducer(cls):
        return _pin(f"{name} objects cannot be serialised faithfully: copyreg has a reducer for them")
    if cls.__flags__ & ABSTRACT:
        return _pin(f"{name} objects cannot be made again: the class is abstract")
    if cls.__dictoffset__ != 0 and not _layouts.instances:
        return _pin(f"{name} objects cannot be walked: the attribute layout of this interpreter is not known")
    body, native_kind = NATIVE_BODIES[native]
    if body == BODY_SET and not _layouts.sets:
        return _pin(f"{name} objects cannot be serialised: the set layout of this interpreter is not known")
    immutable = native in (tuple, frozenset) and cls.__dictoffset__ == 0
    return body, RULE_VALUE if immutable else 0, hash_kind(cls, native, native_kind), None


# ---- numpy, when the program uses it ----


def _classify_numpy(cls: type, numpy: types.ModuleType) -> Rule | None:
    if cls is numpy.ndarray:
        major = trust.numpy_major(numpy)
        _closure.set_numpy_major(major)
        if major == 0:
            return _pin(f"numpy {numpy.__version__} keeps arrays in a layout that is not known")
        return BODY_NDARRAY, 0, HASH_NONE, None
    if issubclass(cls, numpy.ndarray):
        return _pin(f"{full_name(cls)} objects cannot be serialised: a subclass of numpy.ndarray")
    if issubclass(cls, numpy.dtype):
        return _SHARED
    if not issubclass(cls, numpy.generic):
        return None
    if cls.__flags__ & HEAP_TYPE or issubclass(cls, (numpy.void, numpy.object_)):
        return _pin(f"{full_name(cls)} scalars cannot be serialised")
    may_be_nan = (numpy.inexact, numpy.datetime64, numpy.timedelta64)
    checked_here = cls is numpy.float64  # a float, whose NaN the walk recognises
    kind = HASH_KEY_ONLY if issubclass(cls, may_be_nan) and not checked_here else HASH_STABLE
    return BODY_LEAF, RULE_VALUE, kind, None


# ---- every type ----


def classify(cls: type) -> Rule:
    """Decide how objects of exactly this type are walked.

    :param cls: any type.
    :returns: (body, flags, hash kind, reason or None), codes of ``core/rules.h``. A class whose own code
        fails while it is looked at is pinned with that error.

    Called by the walk once per type and version of the type. Cost: about 20 us. Thread: any, GIL held.
    """
    try:
        return _decide(cls)
    except Exception as error:  # user code of a metaclass; even its text could raise
        return _pin(f"a class could not be looked at: its own code raised {type(error).__name__}")


def _decide(cls: type) -> Rule:
    found = _registered.get(id(cls))
    if found is not None:
        return found.rule
    rule = _exact_rules.get(id(cls))
    if rule is not None:
        return rule
    if id(cls) in _refusals:
        return _pin(_refusals[id(cls)])
    if issubclass(cls, type) or issubclass(cls, enum.Enum) or id(cls) in _TYPING_FORMS:
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

    cls: type
    rule: Rule
    reduce: Callable[[Any], Any] | None
    restore: Callable[[Any], Any] | None


_registered: dict[int, Registered] = {}  # by id: a metaclass could make its classes equal to others


def registered(cls: type) -> Registered | None:
    """What register_type was told about exactly this type, None for all others."""
    return _registered.get(id(cls))


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
    if id(cls) in _exact_rules or issubclass(cls, (type, enum.Enum)):
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
        _registered[id(cls)] = Registered(cls, (*rule[:4], size or 0), reduce, restore)
    finally:
        _closure.forget_rules()


def _atom_rule(cls: type) -> Rule:
    method = attribute_of_class(cls, "__hash__")
    by_content = HASH_NONE if method is None else HASH_STABLE
    kind = HASH_IDENTITY if method is vars(object)["__hash__"] else by_content
    return BODY_LEAF, RULE_VALUE | RULE_OPAQUE, kind, None


def _own_reducer_rule(cls: type) -> Rule:
    """By its own layout when class statements made it, else by tp_traverse, else as a leaf."""
    kind = hash_kind(cls, object, HASH_IDENTITY)
    native = native_base(cls)
    if (
        any(native is known for known in NATIVE_BODIES)
        and _closure.layout_problem(cls, native) is None
        and _layouts.instances
    ):
        return NATIVE_BODIES[native][0], RULE_OWN_REDUCER, kind, None
    if cls.__flags__ & HAVE_GC:
        return BODY_TRAVERSE, RULE_OWN_REDUCER, kind, None
    return BODY_OBJECT, RULE_OWN_REDUCER, kind, None


# Looked up by id: a metaclass could make its classes equal to any of these.
_exact_rules = {id(known): rule for known, rule in _EXACT.items()}
_refusals = {id(known): reason for known, reason in _REFUSED.items()}


def _apply(layouts: trust.Layouts) -> None:
    """Rules of the types whose private layout is or is not known."""
    if not layouts.sets:
        for known in (set, frozenset):
            _exact_rules[id(known)] = _pin("sets cannot be serialised: the set layout is not known")
    if layouts.arrays:
        _exact_rules[id(array)] = (BODY_ARRAY, 0, HASH_NONE, None)
    if layouts.defaultdicts:
        _exact_rules[id(collections.defaultdict)] = (BODY_DEFAULT_DICT, 0, HASH_NONE, None)
    if not layouts.decimals:
        _exact_rules[id(decimal.Decimal)] = (BODY_LEAF, RULE_VALUE, HASH_KEY_ONLY, None)


_closure.set_classifier(classify, GENERIC_BASES, 0)
_layouts = trust.Layouts(instances=True, sets=True)  # while they are tested
_layouts = trust.check_layouts()
_apply(_layouts)
_closure.forget_rules()
