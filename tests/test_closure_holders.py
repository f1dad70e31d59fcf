"""Outside holders of every kind, of every part of every kind of value, are seen; and none is imagined."""

import collections
import gc
import types
import weakref

import closure_kinds as kinds
import numpy as np
import pytest
from closure_graphs import build, graphs, parts_inside
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectral_alloc.closure import CLOSED, HELD, PINNED, examine


def status(holder, key=0):
    return examine(holder, key).status


def hold_iterator(value):
    iterator = iter(value)
    next(iterator, None)
    return iterator


def hold_cell(value):
    def closure_of():
        return value

    return closure_of


def hold_frame(value):
    def running():
        kept = value
        yield kept

    generator = running()
    next(generator)
    return generator


CONTAINER_HOLDERS = {
    "reference": lambda value: value,
    "closure cell": hold_cell,
    "generator frame": hold_frame,
    "bound method": lambda value: value.__repr__,
    "tuple": lambda value: (value,),
    "instance": lambda value: kinds.filled(kinds.Plain(), held=value),
    "slot": lambda value: kinds.filled(kinds.Slotted(), first=value),
}

HOLDERS = {
    "list": (lambda: [[1], 2], {**CONTAINER_HOLDERS, "iterator": hold_iterator, "reversed": reversed}),
    "dict": (
        lambda: {"a": [1]},
        {
            **CONTAINER_HOLDERS,
            "iterator": hold_iterator,
            "keys": lambda value: value.keys(),
            "values": lambda value: value.values(),
            "items iterator": lambda value: iter(value.items()),
            "proxy": types.MappingProxyType,
        },
    ),
    "set": (lambda: {1, 2}, {**CONTAINER_HOLDERS, "iterator": hold_iterator, "weakref": weakref.ref}),
    "deque": (
        lambda: collections.deque([1]),
        {**CONTAINER_HOLDERS, "iterator": hold_iterator, "weakref": weakref.ref},
    ),
    "defaultdict": (
        lambda: collections.defaultdict(list),
        {**CONTAINER_HOLDERS, "items": lambda value: value.items()},
    ),
    "OrderedDict": (
        lambda: collections.OrderedDict(a=[1]),
        {**CONTAINER_HOLDERS, "items": lambda value: value.items(), "weakref": weakref.ref},
    ),
    "namespace": (lambda: types.SimpleNamespace(a=[1]), {**CONTAINER_HOLDERS, "vars": vars}),
    "bytearray": (lambda: bytearray(b"abc"), {**CONTAINER_HOLDERS, "memoryview": memoryview}),
    "array": (
        lambda: kinds.array("d", [1]),
        {**CONTAINER_HOLDERS, "memoryview": memoryview, "weakref": weakref.ref, "frombuffer": np.frombuffer},
    ),
    "ndarray": (
        lambda: np.arange(5),
        {
            **CONTAINER_HOLDERS,
            "memoryview": memoryview,
            "view": lambda value: value[1:],
            "weakref": weakref.ref,
            "flat": lambda value: value.flat,
            "data": lambda value: value.data,
        },
    ),
    "ndarray view": (
        lambda: np.arange(12).reshape(3, 4),
        {"view": lambda value: value[1:], "base": lambda value: value.base, "memoryview": memoryview},
    ),
    "instance": (
        lambda: kinds.filled(kinds.Plain(), a=[1], b=2),
        {
            **CONTAINER_HOLDERS,
            "vars": vars,
            "dict items": lambda value: vars(value).items(),
            "dict iterator": lambda value: iter(vars(value)),
            "dict method": lambda value: vars(value).get,
            "attribute": lambda value: value.a,
            "weakref": weakref.ref,
            "weakref proxy": weakref.proxy,
            "weak dict": lambda value: weakref.WeakValueDictionary(a=value),
        },
    ),
    "instance with many attributes": (
        lambda: kinds.filled(kinds.Plain(), **{f"a{number}": [number] for number in range(60)}),
        {"vars": vars, "attribute": lambda value: value.a59, "weakref": weakref.ref},
    ),
    "slots": (
        lambda: kinds.filled(kinds.Derived(), first=[1], _Slotted__hidden=[2]),
        {
            **CONTAINER_HOLDERS,
            "slot value": lambda value: value.first,
            "other": lambda value: value._Slotted__hidden,
        },
    ),
    "slots and dict": (
        lambda: kinds.filled(kinds.SlottedWithDict(), first=[1], other=[2]),
        {
            "vars": vars,
            "attribute": lambda value: value.other,
            "slot": lambda value: value.first,
            "weakref": weakref.ref,
        },
    ),
    "list subclass": (
        lambda: kinds.filled(kinds.ListWithName([[1]]), name=[2]),
        {
            "vars": vars,
            "attribute": lambda value: value.name,
            "item": lambda value: value[0],
            "weakref": weakref.ref,
        },
    ),
    "dict subclass": (
        lambda: kinds.filled(kinds.DictWithName(a=[1]), name=[2]),
        {
            "vars": vars,
            "attribute": lambda value: value.name,
            "item": lambda value: value["a"],
            "weakref": weakref.ref,
        },
    ),
    "tuple subclass": (
        lambda: kinds.filled(kinds.TupleWithName([[1]]), name=[2]),
        {"vars": vars, "attribute": lambda value: value.name, "item": lambda value: value[0]},
    ),
    "str subclass": (
        lambda: kinds.filled(kinds.StrWithName("abc"), name=[2]),
        {**CONTAINER_HOLDERS, "vars": vars, "attribute": lambda value: value.name},
    ),
    "namedtuple": (
        lambda: kinds.Point([1]),
        {"item": lambda value: value.x, "reference": lambda value: value},
    ),
    "dataclass": (lambda: kinds.Record("a", [1]), {"vars": vars, "field": lambda value: value.items}),
    "identity key": (lambda: {kinds.Plain(): 1}, {"key": lambda value: next(iter(value))}),
    "slice": (lambda: slice([1], 2), {"start": lambda value: value.start, "reference": lambda value: value}),
}


class Wrapper:
    """Stands for the rest of a larger value."""

    def __init__(self, inner):
        self.inner = inner


def unwrapped(value):
    while type(value) is Wrapper:
        value = value.inner
    return value


@pytest.mark.parametrize(
    ("name", "how"), [(name, how) for name, (_, hows) in HOLDERS.items() for how in hows]
)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_every_kind_of_holder_is_seen(name, how, depth):
    """While the holder lives the value is held, and when it is gone the value is closed again."""
    factory, hows = HOLDERS[name]
    holder = [factory()]
    for _ in range(depth):
        holder = [Wrapper(holder.pop())]
    assert status(holder) == CLOSED
    keeper = hows[how](unwrapped(holder[0]))
    assert status(holder) == HELD
    del keeper
    gc.collect()
    assert status(holder) == CLOSED


def test_two_instances_with_one_attribute_dict_are_held():
    """Sharing of an attribute dict would not survive, so it holds."""
    first, second = kinds.Plain(), kinds.Plain()
    second.__dict__ = first.__dict__
    holder = [[first, second]]
    del first, second
    assert status(holder) == HELD


def test_an_instance_that_refers_to_its_own_attribute_dict_is_held():
    """An attribute dict met from elsewhere in the same value holds it."""
    holder = [kinds.Plain()]
    holder[0].own = vars(holder[0])
    assert status(holder) == HELD


def test_replaced_attribute_dicts_are_followed():
    """After `instance.__dict__ = {...}` the new dict is what counts."""
    attributes = {"a": [1]}
    holder = [kinds.Plain()]
    holder[0].old = [2]
    holder[0].__dict__ = attributes
    assert status(holder) == HELD
    del attributes
    assert status(holder) == CLOSED
    inner = holder[0].a
    assert status(holder) == HELD
    del inner


def test_an_attribute_dict_of_another_type_is_pinned():
    """A subclass of dict as __dict__ would come back as a plain dict."""
    holder = [kinds.Plain()]
    holder[0].__dict__ = collections.OrderedDict(a=1)
    assert status(holder) == PINNED


KEEPERS = [
    lambda value: value,
    hold_cell,
    hold_frame,
    lambda value: iter(value) if isinstance(value, (list, dict, set, collections.deque)) else (value,),
    lambda value: vars(value) if hasattr(value, "__dict__") else value,
    lambda value: value.values() if isinstance(value, dict) else value,
    lambda value: memoryview(value) if isinstance(value, (bytearray, np.ndarray)) else value.__repr__,
    lambda value: weakref.ref(value) if type(value).__weakrefoffset__ else value,
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs, st.integers(0, 100), st.sampled_from(KEEPERS))
def test_any_holder_of_any_part_of_any_graph_is_seen(graph, which, keep):
    """Sharing and cycles inside never hide an outside holder, and never hold a value that has none."""
    holder = build(graph)
    if type(holder[0]) is tuple and not holder[0]:
        return
    assert status(holder) == CLOSED
    inside = parts_inside(holder[0])
    if not inside:
        return
    keeper = keep(inside[which % len(inside)])
    del inside
    assert status(holder) == HELD
    del keeper
    assert status(holder) == CLOSED
