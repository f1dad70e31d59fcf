"""Recipes of values: plain data that builds the same graph twice, once for the dict under test, once for the model."""

import array
import collections
import datetime
import decimal
import fractions
import functools
import pathlib
import types
import uuid
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import specimens
from hypothesis import strategies as st

Recipe = tuple[Any, ...]

# one text and one bytes are large, so that a value can exceed a limit that fits the others
ATOM_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**70, -0.0, 0.1, float("nan"), float("inf"), 1j, "", "text", "\ud800", "x" * 5_000]),
    st.sampled_from([b"", b"bytes", b"y" * 5_000, range(3), Ellipsis, int, len, specimens.Plain, specimens.SINGLETON]),
    st.sampled_from(
        [
            decimal.Decimal("1.50"),
            fractions.Fraction(1, 3),
            uuid.UUID(int=7),
            pathlib.PurePosixPath("a/b"),
            pathlib.Path("c"),
            datetime.datetime(2024, 2, 29, 1, 2, 3, 4, datetime.UTC),
            datetime.date(2024, 2, 29),
            datetime.timedelta(1, 2, 3),
            specimens.Colour.GREEN,
            np.float64(0.5),
            np.int32(7),
            np.datetime64("2024-02-29"),
        ]
    ),
)


class Builder:
    """Builds one side of a recipe: ``aliases`` are the live objects of that side which a recipe may mention."""

    def __init__(self, side: int, aliases: Sequence[Any]) -> None:
        self.side = side
        self.aliases = aliases
        self.made: list[Any] = []

    def build(self, recipe: Recipe) -> Any:
        """The value of a recipe."""
        kind, *arguments = recipe
        return getattr(self, kind)(*arguments)

    def _register(self, value: Any) -> Any:
        self.made.append(value)
        return value

    def _each(self, recipes: Sequence[Recipe]) -> list[Any]:
        return [self.build(recipe) for recipe in recipes]

    def atom(self, value: Any) -> Any:
        """The value itself: both sides may share what cannot change."""
        return value

    def back(self, index: int) -> Any:
        """A container of this value that exists already, possibly one around this place: a cycle."""
        return self.made[index % len(self.made)] if self.made else None

    def alias(self, index: int) -> Any:
        """An object that the program holds: shared with whatever else contains it."""
        return self.aliases[index % len(self.aliases)] if self.aliases else None

    def list_of(self, cls: type, recipes: Sequence[Recipe]) -> Any:
        """A list, a deque or a subclass of list."""
        made = self._register(cls())
        made.extend(self._each(recipes))
        return made

    def bounded_deque(self, recipes: Sequence[Recipe]) -> Any:
        """A deque that drops its first elements."""
        made = self._register(collections.deque(maxlen=3))
        made.extend(self._each(recipes))
        return made

    def dict_of(self, make: Callable[[], Any], pairs: Sequence[tuple[Any, Recipe]]) -> Any:
        """A dict or a subclass of it."""
        made = self._register(make())
        for key, recipe in pairs:
            made[key] = self.build(recipe)
        return made

    def tuple_of(self, recipes: Sequence[Recipe]) -> Any:
        """A tuple, possibly of mutable things."""
        return tuple(self._each(recipes))

    def set_of(self, cls: type, elements: Sequence[Any]) -> Any:
        """A set or frozenset of atoms."""
        made = cls(elements)
        return self._register(made) if cls is set else made

    def named_set(self, name: str, inner: Recipe) -> Any:
        """A set of an instance whose hash needs an attribute; the instance may reach the set again."""
        made = self._register(set())
        element = specimens.ByName(name)
        element.friends = self.build(inner)
        made.add(element)
        return made

    def instance(self, cls: type, pairs: Sequence[tuple[str, Recipe]]) -> Any:
        """An instance with attributes, some perhaps unset."""
        made = self._register(cls.__new__(cls))
        for name, recipe in pairs:
            setattr(made, name, self.build(recipe))
        return made

    def call(self, function: Callable[..., Any], recipes: Sequence[Recipe]) -> Any:
        """What a function makes of the built arguments: named tuples, frozen dataclasses, partials."""
        return self._register(function(*self._each(recipes)))

    def finalised(self, number: int) -> Any:
        """An instance with a finaliser that tells its side."""
        return self._register(specimens.Finalised(self.side, number))

    def unpicklable(self, kind: str, inner: Recipe) -> Any:
        """Something that no serialiser can take, with something inside."""
        return self._register(specimens.UNPICKLABLE[kind](self.build(inner)))

    def weak(self, inner: Recipe) -> Any:
        """A list of an instance and of a weak reference to it."""
        target = specimens.Plain()
        target.inner = self.build(inner)
        return self._register([target, weakref.ref(target)])

    def buffer(self, data: bytes) -> Any:
        """A bytearray."""
        return self._register(bytearray(data))

    def machine_array(self, typecode: str, numbers: Sequence[int]) -> Any:
        """An array.array."""
        return self._register(array.array(typecode, numbers))

    def ndarray(self, dtype: str, shape: tuple[int, ...], order: str, first: int) -> Any:
        """An array that owns its data."""
        made = np.empty(shape, dtype, order=order)
        made[...] = np.arange(first, first + made.size).reshape(shape).astype(dtype)
        return self._register(made)

    def object_array(self, recipes: Sequence[Recipe]) -> Any:
        """An array of references."""
        made = self._register(np.empty(len(recipes), object))
        for index, recipe in enumerate(recipes):
            made[index] = self.build(recipe)
        return made

    def array_view(self, size: int) -> Any:
        """An array and a view of it: an edit of one is one of both."""
        owner = np.arange(size + 2.0)
        return self._register([owner, owner[1:]])

    def read_only(self, size: int) -> Any:
        """An array whose elements nobody may assign."""
        made = np.arange(size)
        made.flags.writeable = False
        return self._register(made)

    def exported(self, data: bytes) -> Any:
        """A bytearray with a memoryview beside it."""
        made = bytearray(data)
        return self._register([made, memoryview(made)])


ATOM = st.tuples(st.just("atom"), ATOM_VALUES)
BACK = st.tuples(st.just("back"), st.integers(0, 5))
ALIAS = st.tuples(st.just("alias"), st.integers(0, 7))
LEAF = st.one_of(ATOM, ATOM, BACK, ALIAS)
NAMES = st.sampled_from(["a", "b"])
KEYS = st.sampled_from(["k", "l", 0, (1, "t"), None])
ELEMENTS = st.lists(st.sampled_from([1, 2.5, "s", (1, (2,)), None, b"b", frozenset({1})]), max_size=4)


def _lists(inner: Any) -> Any:
    return st.lists(inner, max_size=3)


def _builtins(inner: Any) -> Any:
    pairs = st.lists(st.tuples(KEYS, inner), max_size=3)
    list_types = st.sampled_from([list, list, list, collections.deque])
    dict_types = st.sampled_from(
        [dict, dict, dict, collections.OrderedDict, functools.partial(collections.defaultdict, list)]
    )
    return st.one_of(
        st.tuples(st.just("list_of"), list_types, _lists(inner)),
        st.tuples(st.just("dict_of"), dict_types, pairs),
        st.tuples(st.just("tuple_of"), _lists(inner)),
        st.tuples(st.just("set_of"), st.sampled_from([set, frozenset]), ELEMENTS),
        st.tuples(st.just("bounded_deque"), _lists(inner)),
    )


def _instances(inner: Any) -> Any:
    attributes = st.lists(st.tuples(NAMES, inner), max_size=2)
    two = st.lists(inner, min_size=2, max_size=2)
    classes = [
        specimens.Plain, specimens.Plain, specimens.Slotted, specimens.SlottedAndDict, specimens.Data,
        specimens.ListChild, specimens.DictChild, specimens.Lossy, specimens.Counting, specimens.ReduceRaises,
        specimens.ReduceReenters, specimens.EqRaises, specimens.HashRaises, specimens.AnyAttribute,
        types.SimpleNamespace,
    ]  # fmt: skip
    functions = [specimens.Pair, specimens.Frozen, functools.partial(functools.partial, specimens.local_function)]
    return st.one_of(
        st.tuples(st.just("instance"), st.sampled_from(classes), attributes),
        st.tuples(st.just("instance"), st.sampled_from(classes), attributes),
        st.tuples(st.just("call"), st.sampled_from(functions), two),
        st.tuples(st.just("call"), st.just(specimens.NeedsArgument), st.lists(inner, min_size=1, max_size=1)),
        st.tuples(st.just("call"), st.just(ValueError), two),
        st.tuples(st.just("named_set"), st.sampled_from("xy"), inner),
        st.tuples(st.just("finalised"), st.integers(0, 3)),
        st.tuples(st.just("weak"), inner),
        st.tuples(st.just("unpicklable"), st.sampled_from(sorted(specimens.UNPICKLABLE)), inner),
        st.tuples(st.just("list_of"), st.just(list), _lists(inner)),
        st.tuples(st.just("dict_of"), st.just(dict), st.lists(st.tuples(KEYS, inner), max_size=2)),
    )


def _buffers(inner: Any) -> Any:
    data = st.sampled_from([b"", b"abc", b"z" * 3_000])
    shapes = st.sampled_from([(), (0,), (3,), (2, 3), (500,)])
    dtypes = st.sampled_from(["f8", "i4", "u1", ">i2", "?", "c16", "U2", "M8[s]"])
    return st.one_of(
        st.tuples(st.just("buffer"), data),
        st.tuples(st.just("machine_array"), st.sampled_from("bdIq"), st.lists(st.integers(0, 9), max_size=4)),
        st.tuples(st.just("ndarray"), dtypes, shapes, st.sampled_from("CF"), st.integers(0, 9)),
        st.tuples(st.just("object_array"), _lists(inner)),
        st.tuples(st.just("array_view"), st.integers(1, 3)),
        st.tuples(st.just("read_only"), st.integers(0, 3)),
        st.tuples(st.just("exported"), data),
        st.tuples(st.just("list_of"), st.just(list), _lists(inner)),
        st.tuples(st.just("instance"), st.just(specimens.Plain), st.lists(st.tuples(NAMES, inner), max_size=2)),
    )


def values_of(extend: Callable[[Any], Any]) -> Any:
    """The strategy of recipes made of atoms, back references, held objects and what ``extend`` puts around them."""
    return st.recursive(LEAF, extend, max_leaves=8)


BUILTINS = values_of(_builtins)
INSTANCES = values_of(_instances)
BUFFERS = values_of(_buffers)
