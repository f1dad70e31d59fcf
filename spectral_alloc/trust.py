"""Self-tests of the private object layouts that the closedness walk reads.

CPython shows neither the attribute layout of instances nor the structs of some containers in public headers.
What ``core/layout.h`` says about them is compared here, at import, with what the running interpreter answers
to plain Python questions. A layout that fails its test is not used: its types are pinned, which costs memory,
never exactness.
"""

import collections
import decimal
import types
from array import array
from typing import Any, NamedTuple

from spectral_alloc import _closure

__all__ = ["Layouts", "check_layouts", "numpy_major"]


class Layouts(NamedTuple):
    """Which private layouts are as core/layout.h says."""

    instances: bool = False
    sets: bool = False
    arrays: bool = False
    defaultdicts: bool = False
    decimals: bool = False


class _Plain:
    pass


class _Slotted:
    __slots__ = ("__dict__", "__weakref__", "first", "second")


class _ListWithAttributes(list[Any]):
    pass


class _TupleWithAttributes(tuple[Any, ...]):
    pass


def _attributes_agree(instance: Any) -> bool:
    """Attributes before and after deletion, without and with a dict, must read as vars() shows them."""
    for name in ("a", "b", "c", "d"):
        setattr(instance, name, [name])
    del instance.b
    instance.b = ["again"]
    read = _closure.instance_state(instance)[0] or {}
    shown = vars(instance)
    address = _closure.managed_dict_address(instance)
    again = _closure.instance_state(instance)[0] or {}
    return (
        list(read.items()) == list(shown.items()) == list(again.items())
        and all(read[name] is shown[name] for name in shown)
        and address in (id(shown), None)
    )


def _holders_are_seen(make: Any) -> bool:
    """A held attribute dict or attribute value must be seen, and nothing else must be."""
    holder = [make()]
    holder[0].a = []
    free_before = _closure.examine(holder)[0]
    held_value = holder[0].a
    with_value = _closure.examine(holder)[0]
    del held_value
    held_dict = vars(holder[0])
    with_dict = _closure.examine(holder)[0]
    del held_dict
    free_after = _closure.examine(holder)[0]
    return (free_before, with_value, with_dict, free_after) == (0, 1, 1, 0)


def _instances_agree() -> bool:
    kinds = (_Plain, _Slotted, _ListWithAttributes, _TupleWithAttributes)
    return all(_attributes_agree(kind()) and _holders_are_seen(kind) for kind in kinds)


def _rebuilt(members: set[int]) -> set[int]:
    """What pickle does: each member added once, in iteration order."""
    fresh: set[int] = set()
    fresh.update(tuple(members))
    return fresh


def _sets_agree() -> bool:
    """The replay must say that a set comes out the same just when it does."""
    for count in (0, 1, 4, 5, 30, 200, 2000):
        for step in (1, 7, 1 << 20, -3):
            members = set(range(0, count * step, step)) if count else set()
            kept = _closure.set_order_kept(members)
            again = _rebuilt(members)
            if kept != (list(again) == list(members) and again.__sizeof__() == members.__sizeof__()):
                return False
    return all(_arranged_alike(count) for count in (3, 8, 40, 700))


def _arranged_alike(count: int) -> bool:
    """A set with a history, and a rebuilt one arranged like it, must stay alike whatever is done to both."""
    first = set(range(0, 97 * count, 97))
    for member in range(0, 97 * count, 97 * 3):
        first.discard(member)
    first.pop()
    second = _rebuilt(first)
    _closure.arrange_set(second, _closure.set_layout(first))
    same = list(first) == list(second) and first.__sizeof__() == second.__sizeof__()
    for member in range(1, 40 * count, 31):
        first.add(member)
        second.add(member)
    return (
        same
        and list(first) == list(second)
        and [first.pop() for _ in first.copy()] == [second.pop() for _ in second.copy()]
    )


def _arrays_agree() -> bool:
    values = array("i", range(10))
    values.append(1)
    outside = values.__sizeof__() - array("i").__sizeof__()
    return bool(_closure.array_allocated_items(values) * values.itemsize == outside)


def check_layouts() -> Layouts:
    """Compare every private layout with the interpreter; about 1 ms, once at import."""
    decimals = {
        text: _closure.is_nan(decimal.Decimal(text)) for text in ("nan", "snan", "-nan", "0", "-1.5", "inf")
    }
    return Layouts(
        instances=_instances_agree(),
        sets=_sets_agree(),
        arrays=_arrays_agree(),
        defaultdicts=(
            _closure.defaultdict_factory_address(collections.defaultdict(list)) == id(list)
            and _closure.defaultdict_factory_address(collections.defaultdict()) == 0
        ),
        decimals=decimals
        == {"nan": True, "snan": True, "-nan": True, "0": False, "-1.5": False, "inf": False},
    )


def numpy_major(numpy: types.ModuleType) -> int:
    """1 or 2, the version of numpy whose array and dtype layouts are in use; 0 when they are not known."""
    major = int(numpy.__version__.split(".")[0])
    if major not in (1, 2):
        return 0
    owner = numpy.arange(24, dtype="f8")
    view = owner.reshape(2, 3, 4)[:, ::-1]
    frozen = owner.copy()
    frozen.setflags(write=False)
    dtypes = [
        "?",
        "i1",
        "f4",
        "f8",
        ">f8",
        "c16",
        "S3",
        "U3",
        "M8[s]",
        "m8[D]",
        "V4",
        "O",
        [("a", "i4"), ("b", "O")],
    ]
    agree = all(
        _closure.ndarray_fields(values)
        == (
            values.__array_interface__["data"][0],
            values.shape,
            values.strides,
            id(values.base) if values.base is not None else 0,
            id(values.dtype),
            values.flags.owndata,
            values.flags.writeable,
        )
        for values in (owner, view, frozen, numpy.zeros((0, 3)), numpy.array(1, "f4"))
    ) and all(
        _closure.dtype_fields(dtype, major)
        == (dtype.kind, dtype.num, dtype.hasobject, dtype.metadata is not None)
        for dtype in (*map(numpy.dtype, dtypes), numpy.dtype("i4", metadata={"unit": "m"}))
    )
    return major if agree else 0
