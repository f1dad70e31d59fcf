"""A checker: are two object graphs the same to a program that holds only their roots?"""

import collections
import enum
import re
import struct
import types
import zoneinfo
from array import array

import numpy as np

SHARED_TYPES = (type, enum.Enum, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, re.Pattern)


def difference(first, second):
    """Where two graphs differ (types, values, order, sharing, cycles), as text; None when they do not."""
    forward, backward = {}, {}
    waiting = [("root", first, second)]
    keep_alive = []
    while waiting:
        path, one, other = waiting.pop()
        if type(one) is not type(other):
            return f"{path}: {type(one)} and {type(other)}"
        if isinstance(one, (*SHARED_TYPES, zoneinfo.ZoneInfo)):
            if one is not other:
                return f"{path}: {one!r} is another object"
            continue
        parts = parts_of(one)
        if parts is None:
            if atom_bits(one) != atom_bits(other):
                return f"{path}: {one!r} and {other!r}"
            continue
        if id(one) in forward or (id(other) in backward and not shares_by_value(one)):
            if forward.get(id(one)) != id(other) and not shares_by_value(one):
                return f"{path}: sharing differs"
            if id(one) in forward:
                continue
        forward[id(one)], backward[id(other)] = id(other), id(one)
        other_parts = parts_of(other)
        keep_alive.append((parts, other_parts))
        if len(parts) != len(other_parts):
            return f"{path}: {len(parts)} and {len(other_parts)} parts"
        waiting.extend(
            (f"{path}/{place}", *pair) for place, pair in enumerate(zip(parts, other_parts, strict=True))
        )
    return None


def shares_by_value(value):
    """Equal empty tuples and frozensets may be one object or two."""
    return type(value) in (tuple, frozenset) and not value


def atom_bits(value):
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, complex):
        return struct.pack("<dd", value.real, value.imag)
    if isinstance(value, np.generic):
        return value.dtype.str, value.tobytes()
    return repr(value), getattr(value, "fold", None)


def native_parts(value):
    if isinstance(value, collections.deque):
        return [value.maxlen, *value]
    if isinstance(value, collections.OrderedDict):
        return [part for pair in collections.OrderedDict.items(value) for part in pair] + [
            part for pair in dict.items(value) for part in pair
        ]
    if isinstance(value, dict):
        factory = [value.default_factory] if isinstance(value, collections.defaultdict) else []
        return factory + [part for pair in dict.items(value) for part in pair]
    for native in (list, tuple, set, frozenset):
        if isinstance(value, native):
            return list(native.__iter__(value))
    if isinstance(value, np.ndarray):
        flags = value.flags
        return [
            value.base,
            value.dtype.str,
            value.shape,
            value.strides,
            flags.writeable,
            flags.owndata,
            flags.c_contiguous,
            value.tobytes(),
            value.ctypes.data - value.base.ctypes.data if value.base is not None else 0,
        ]
    if type(value) in (bytearray, array):
        return [bytes(value), getattr(value, "typecode", "")]
    return []


def parts_of(value):
    """What a mutable or composite object consists of, in order; None for atoms."""
    cls = type(value)
    if cls is object:
        return []
    ordinary = bool(cls.__flags__ & 1 << 9) and cls.__module__ not in (
        "decimal",
        "uuid",
        "fractions",
        "pathlib",
    )
    known = (
        list,
        tuple,
        dict,
        set,
        frozenset,
        collections.deque,
        bytearray,
        array,
        np.ndarray,
        types.SimpleNamespace,
    )
    if isinstance(value, np.generic) or not (isinstance(value, known) or ordinary):
        return None
    parts = native_parts(value)
    if isinstance(value, (str, bytes, int, float)):
        parts.append(atom_bits(value))
    slots = [
        name for base in cls.__mro__ for name in vars(base).get("__slots__", ()) if isinstance(name, str)
    ]
    for name in slots:
        if name not in ("__dict__", "__weakref__"):
            parts.append([object.__getattribute__(value, name)] if _has_slot(value, name) else ["unset"])
    if hasattr(value, "__dict__"):
        parts.extend(part for pair in vars(value).items() for part in pair)
    return parts


def _has_slot(value, name):
    try:
        object.__getattribute__(value, name)
    except AttributeError:
        return False
    return True
