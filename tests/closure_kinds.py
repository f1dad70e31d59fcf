"""Classes and factories of values: one of every supported and of every refused kind."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import pathlib
import re
import types
import typing
import uuid
import zoneinfo
from array import array

import numpy as np


class Plain:
    pass


class Slotted:
    __slots__ = ("first", "second", "third")


class SlottedWithDict:
    __slots__ = ("__dict__", "__weakref__", "first")


class Derived(Slotted):
    __slots__ = ("_Slotted__hidden",)


class WithHooks:
    """Attribute access does other things than storing."""

    def __setattr__(self, name, value):
        object.__setattr__(self, name, [value])

    def __getattr__(self, name):
        return f"no {name}"


class Named(typing.Generic[typing.TypeVar("T")]):
    def __init__(self):
        self.value = []


class WithProperty:
    @property
    def size(self):
        return vars(self)["size"] + 1

    @size.setter
    def size(self, value):
        raise AttributeError("read only")


class ListWithName(list):
    pass


class DictWithName(dict):
    def __setitem__(self, key, value):
        raise TypeError("not this way")


class SetWithName(set):
    pass


class FrozensetWithName(frozenset):
    pass


class TupleWithName(tuple):
    pass


class StrWithName(str):
    pass


class IntWithName(int):
    pass


class FloatWithName(float):
    pass


class BytesWithName(bytes):
    pass


class Colour(enum.Enum):
    RED = (1, 2)
    GREEN = 2


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


Point = collections.namedtuple("Point", "x y", defaults=[0])


class Edge(typing.NamedTuple):
    start: object
    end: object = None


class PointWithName(Point):
    pass


@dataclasses.dataclass
class Record:
    name: str = ""
    items: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: object
    y: object = 0


@dataclasses.dataclass(slots=True)
class SlottedRecord:
    name: str
    items: list


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlotted:
    x: object
    y: object = 0


def local_class():
    class Local:
        pass

    return Local


def filled(value, **attributes):
    for name, attribute in attributes.items():
        object.__setattr__(value, name, attribute)
    return value


def with_attributes(value, **attributes):
    """Past the data descriptors of the class."""
    vars(value).update(attributes)
    return value


def with_odd_key():
    value = Plain()
    vars(value)[1] = [2]
    return value


def readonly(values):
    values.setflags(write=False)
    return values


def frozen_owner_with_view():
    owner = np.arange(10)
    return [owner, owner[2:5], owner[::-1], owner[5]]


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def shared_list():
    part = [1]
    return [part, part, {"part": part}]


def self_list():
    value = []
    value.append(value)
    return value


def tree_with_parents():
    root = Plain()
    root.parent, root.children = None, []
    for number in range(3):
        child = Plain()
        child.parent, child.children, child.number = root, [], number
        root.children.append(child)
    return root


def moved_ordered_dict():
    value = collections.OrderedDict(a=[1], b=2, c=3)
    value.move_to_end("a")
    value.name = "moved"
    return value


def tuple_in_cycle():
    part = []
    value = (part, 1)
    part.append(value)
    return [value]


def named_tuple_in_cycle():
    part = []
    value = Point(part, 1)
    part.append(value)
    return [value]


# name -> factory of a value that nobody else holds; each must be CLOSED and come back exactly
CLOSED_KINDS = {
    "atoms": lambda: [
        None,
        True,
        1,
        -5,
        10**30,
        1.5,
        -0.0,
        float("nan"),
        2j,
        "a",
        "ä€😀" * 3,
        b"xyz",
        ...,
        NotImplemented,
    ],
    "list": lambda: [1, [2, [3]]],
    "dict": lambda: {"b": 1, "a": {"c": [2]}, 3: None, (1, 2): "t"},
    "tuple": lambda: ([1], (2, [3]), ()),
    "set": lambda: [{1, 2, 3}, set("abcdefgh"), frozenset("xyz"), set(), frozenset()],
    "large set": lambda: set(range(5000)),
    "bytearray": lambda: [bytearray(b"abc"), bytearray(5000)],
    "array": lambda: [array("d", [1.0, -0.0]), array("b"), array("u", "äb"), array("q", range(1000))],
    "deque": lambda: [collections.deque([[1], 2], maxlen=5), collections.deque(range(300))],
    "defaultdict": lambda: [collections.defaultdict(list, a=[1]), collections.defaultdict(None, b=1)],
    "OrderedDict": moved_ordered_dict,
    "Counter": lambda: collections.Counter("hello"),
    "SimpleNamespace": lambda: types.SimpleNamespace(b=1, a=[2]),
    "slice and range": lambda: [slice(1, None, 2), range(5), range(10**20), slice([1], 2)],
    "datetime": lambda: [
        datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("UTC")),
        datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "name")),
        datetime.datetime.max,
        datetime.date.min,
        datetime.time(1, 2, 3, 4, fold=1),
        datetime.timedelta(-1, 1, 1),
        datetime.time(1, tzinfo=datetime.UTC),
        datetime.UTC,
    ],
    "numbers": lambda: [
        decimal.Decimal("1.50"),
        decimal.Decimal("NaN123"),
        decimal.Decimal("-0"),
        fractions.Fraction(1, 3),
    ],
    "identifiers": lambda: [
        uuid.UUID(int=5),
        pathlib.PurePosixPath("a/b"),
        pathlib.PureWindowsPath("c:/x"),
        pathlib.Path("/tmp/x"),
        ipaddress.ip_address("1.2.3.4"),
        ipaddress.ip_address("::1"),
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_interface("10.0.0.1/8"),
    ],
    "shared": lambda: [
        Plain,
        local_class(),
        Colour.RED,
        Permission.READ | Permission.WRITE,
        len,
        re,
        re.compile("a+"),
        dict,
        str.upper,
        local_function_at_top,
        list[int],
        int | str,
        typing.Optional[int],  # noqa: UP045 - the object of the old spelling is meant
        np.dtype("f8"),
    ],
    "instance": lambda: filled(Plain(), b=[1], a=2),
    "empty instance": lambda: [Plain(), Slotted(), object()],
    "instance with many attributes": lambda: filled(Plain(), **{f"a{n}": [n] for n in range(60)}),
    "instance of a local class": lambda: filled(local_class()(), a=[1]),
    "slots": lambda: [
        filled(Slotted(), second=[2]),
        filled(Derived(), _Slotted__hidden=[1], third=3),
        Slotted(),
    ],
    "slots and dict": lambda: filled(SlottedWithDict(), first=[1], other=[2]),
    "attribute hooks": lambda: filled(WithHooks(), a=1, b=[2]),
    "generic class": lambda: [Named(), Named[int]()],
    "property over attribute": lambda: [with_attributes(WithProperty(), size=[3])],
    "odd attribute names": lambda: [
        with_attributes(Plain(), **{"ü b": 3, "__reduce_ex__": 4}),
        with_odd_key(),
    ],
    "list subclass": lambda: [filled(ListWithName([1, [2]]), name=["n"]), ListWithName()],
    "dict subclass": lambda: filled(DictWithName({"a": [1]}), name="n"),
    "set subclass": lambda: [
        filled(SetWithName("abc"), name="n"),
        filled(FrozensetWithName("abc"), name=["n"]),
    ],
    "tuple subclass": lambda: filled(TupleWithName(([1], 2)), name="n"),
    "atom subclasses": lambda: [
        filled(StrWithName("ä"), name=["n"]),
        IntWithName(10**20),
        IntWithName(-1),
        FloatWithName("nan"),
        filled(BytesWithName(b"x"), name="n"),
        StrWithName(""),
    ],
    "namedtuple": lambda: [Point([1]), Edge(1, Point(2, 3)), filled(PointWithName(1, [2]), name="n")],
    "dataclass": lambda: [Record("a", [1]), Frozen([1]), SlottedRecord("a", [1]), FrozenSlotted([1])],
    "enum keys": lambda: {Colour.RED: [1], Plain: 2, None: 3},
    "value keys": lambda: {
        (1, ("a", b"b")): 1,
        frozenset([1, 2]): 2,
        datetime.date.min: 3,
        Frozen(1, "a"): 4,
        Point(1, 2): 5,
        decimal.Decimal(1): 6,
        uuid.UUID(int=1): 7,
        FrozenSlotted(1, Frozen(2)): 8,
        np.float64(0.5): 9,
        StrWithName("k"): 10,
    },
    "identity keys": lambda: {Plain(): [1], (Plain(), 1): 2},
    "value members": lambda: {
        (1, "a"),
        Frozen(1),
        Colour.GREEN,
        Point(1, 2),
        np.int64(3),
        np.float64(1.5),
        frozenset("a"),
    },
    "sharing": shared_list,
    "self reference": self_list,
    "parents": tree_with_parents,
    "tuple in a cycle": tuple_in_cycle,
    "namedtuple in a cycle": named_tuple_in_cycle,
    "nesting": lambda: nested(50),
    "numpy scalars": lambda: [
        np.float32(1.5),
        np.int8(-1),
        np.float64("nan"),
        np.str_("ä"),
        np.bytes_(b"x"),
        np.bool_(True),
        np.datetime64("2024-01-01"),
        np.timedelta64(3, "s"),
        np.complex64(1j),
        np.longdouble(1) / 3,
    ],
    "ndarray": lambda: [
        np.arange(12.0),
        np.zeros((0, 3)),
        np.array(5),
        np.array(["a", "bc"]),
        np.array([b"x"]),
        np.array(["2024-01-01"], "M8[D]"),
        np.array([1, 2], ">i4"),
        np.array([np.nan, -0.0]),
    ],
    "large ndarray": lambda: [np.arange(5000, dtype="i4"), np.ones((50, 60), "c16"), np.full(300, "abc")],
    "array orders": lambda: [
        np.asfortranarray(np.arange(600.0).reshape(20, 30)),
        np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2).copy(order="K"),
        np.ones((1, 5, 1)),
        np.ones((3, 0), order="F"),
    ],
    "array views": lambda: [
        np.arange(12).reshape(3, 4),
        np.arange(12)[::-2],
        np.zeros((4, 4)).T,
        np.zeros((4, 4))[1:3, ::2],
        np.broadcast_to(np.zeros(3), (2, 3)),
        np.arange(4).view("u1"),
        np.zeros(3)[:0],
        np.zeros(4, "M8[s]")[1:],
        np.asfortranarray(np.ones((3, 4)))[1:],
    ],
    "shared array memory": frozen_owner_with_view,
    "read-only arrays": lambda: [
        readonly(np.arange(3)),
        readonly(np.arange(300.0)),
        readonly(np.arange(6).reshape(2, 3)),
    ],
    "structured array": lambda: np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")]),
}


def local_function_at_top():
    """Found again by its name."""


def generator():
    yield 1


class WithReduce:
    def __reduce__(self):
        return WithReduce, ()


class WithNew:
    def __new__(cls):
        return object.__new__(cls)


class WithDel:
    def __del__(self):
        pass


class WithState:
    def __getstate__(self):
        return {}


class WithHash:
    def __hash__(self):
        return 1

    def __eq__(self, other):
        return self is other


class ArrayWithName(np.ndarray):
    pass


class OddZone(datetime.tzinfo):
    def utcoffset(self, when):
        return datetime.timedelta(0)


def array_over_bytes():
    return np.frombuffer(bytearray(16), dtype="u1")


# name -> (factory, a word of the reason)
PINNED_KINDS = {
    "generator": (lambda: [generator()], "generator"),
    "lambda": (lambda: [lambda: 0], "function"),
    "function in a function": (lambda: [local_class().__init_subclass__], "built-in"),
    "bound method": (lambda: [filled(Plain(), m=1).__eq__], "method"),
    "method": (lambda: [Record().__init__], "bound method"),
    "bound built-in": (lambda: [[].append], "bound built-in"),
    "iterator": (lambda: [iter([1])], "list_iterator"),
    "memoryview": (lambda: [memoryview(b"abc")], "memoryview"),
    "dict view": (lambda: [{}.keys()], "dict_keys"),
    "mappingproxy": (lambda: [types.MappingProxyType({})], "mappingproxy"),
    "exception": (lambda: [ValueError(1)], "ValueError"),
    "partial": (lambda: [functools.partial(len)], "partial"),
    "reduce": (lambda: [WithReduce()], "WithReduce.__reduce__"),
    "new": (lambda: [WithNew()], "WithNew.__new__"),
    "del": (lambda: [WithDel()], "WithDel.__del__"),
    "getstate": (lambda: [WithState()], "WithState.__getstate__"),
    "hash in a set": (lambda: {WithHash()}, "hash"),
    "hash as a key": (lambda: {WithHash(): 1}, "hash"),
    "identity in a set": (lambda: {Plain()}, "set order"),
    "identity in a tuple in a set": (lambda: {(1, Plain())}, "set order"),
    "identity in a frozen key": (lambda: {Frozen(Plain()): 1}, "set order"),
    "NaN in a set": (lambda: {float("nan")}, "NaN"),
    "NaN as a key": (lambda: {(1, decimal.Decimal("nan")): 1}, "NaN"),
    "numpy NaN kinds in a set": (lambda: {np.float32(1)}, "set order"),
    "ndarray of objects": (lambda: [np.array([[], {}], dtype=object)], "dtype"),
    "ndarray with metadata": (lambda: [np.zeros(3, np.dtype("i4", metadata={"a": 1}))], "dtype"),
    "ndarray subclass": (lambda: [np.zeros(3).view(ArrayWithName)], "subclass of numpy.ndarray"),
    "masked array": (lambda: [np.ma.array([1, 2])], "subclass of numpy.ndarray"),
    "ndarray over bytes": (lambda: [array_over_bytes()], "view"),
    "numpy void": (lambda: [np.void(b"abc")], "scalars"),
    "odd tzinfo": (lambda: [datetime.datetime(2024, 1, 1, tzinfo=OddZone())], "tzinfo"),
    "lock": (lambda: [__import__("threading").Lock()], "lock"),
    "file": (lambda: [open("/dev/null")], "TextIOWrapper"),  # noqa: SIM115
}
