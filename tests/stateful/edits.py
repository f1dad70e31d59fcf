"""Edits in place, chosen by type, and the ways in which a program keeps hold of an object without naming it."""

import array
import collections
import functools
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import specimens

Edit = Callable[[Any, Any], Any]

MISSING = object()


def _set_item(index: int) -> Edit:
    def edit(target: Any, value: Any) -> None:
        target[index] = value

    return edit


def _delete_slice(target: Any, value: Any) -> None:
    del target[:1]


def _new_namespace(target: Any, value: Any) -> None:
    target.__dict__ = {"a": value}


def _new_class(target: Any, value: Any) -> None:
    target.__class__ = specimens.OtherPlain


def _write_first(target: Any, value: Any) -> None:
    target.flat[0] = 1


def _write_reference(target: Any, value: Any) -> None:
    target[0] = value


def _add_one(target: Any, value: Any) -> None:
    target += 1


LIST_EDITS: list[Edit] = [
    lambda t, v: t.append(v),
    lambda t, v: t.insert(0, v),
    lambda t, v: t.extend([v, v]),
    lambda t, v: t.pop(),
    lambda t, v: t.reverse(),
    lambda t, v: t.clear(),
    _set_item(0),
    _delete_slice,
]
DICT_EDITS: list[Edit] = [
    lambda t, v: t.__setitem__("k", v),
    lambda t, v: t.setdefault("s", v),
    lambda t, v: t.update(u=v),
    lambda t, v: t.pop("k", None),
    lambda t, v: t.popitem(),
    lambda t, v: t.clear(),
]
SET_EDITS: list[Edit] = [lambda t, v: t.add(5), lambda t, v: t.discard(1), lambda t, v: t.update({6, "seven"})]
DEQUE_EDITS: list[Edit] = [
    lambda t, v: t.append(v),
    lambda t, v: t.appendleft(v),
    lambda t, v: t.popleft(),
    lambda t, v: t.rotate(1),
]
BYTE_EDITS: list[Edit] = [
    lambda t, v: t.append(7),
    lambda t, v: t.extend(b"grown" * 2_000),
    lambda t, v: t.reverse(),
    lambda t, v: t.pop(),
    lambda t, v: t.__setitem__(0, 9),
    _delete_slice,
]
ARRAY_EDITS: list[Edit] = [
    lambda t, v: t.append(7),
    lambda t, v: t.extend(array.array(t.typecode, [1, 2, 3])),
    lambda t, v: t.pop(),
    lambda t, v: t.__setitem__(0, 9),
]
NDARRAY_EDITS: list[Edit] = [_write_first, _add_one, lambda t, v: t.sort(), lambda t, v: t.fill(0)]
OBJECT_ARRAY_EDITS: list[Edit] = [_write_reference, lambda t, v: t.fill(v)]
INSTANCE_EDITS: list[Edit] = [
    lambda t, v: setattr(t, "a", v),
    lambda t, v: setattr(t, "new", v),
    lambda t, v: delattr(t, "a"),
    lambda t, v: t.put(v),
    _new_namespace,
    _new_class,
]


def edits_of(target: Any) -> list[Edit]:
    """The edits that make sense for the type of the target; instances of unknown types get attributes."""
    if isinstance(target, np.ndarray):
        return OBJECT_ARRAY_EDITS if target.dtype.hasobject else NDARRAY_EDITS
    table = {
        list: LIST_EDITS, dict: DICT_EDITS, set: SET_EDITS, collections.deque: DEQUE_EDITS,
        bytearray: BYTE_EDITS, array.array: ARRAY_EDITS,
    }  # fmt: skip
    for base, edits in table.items():
        if isinstance(target, base):
            return edits
    return INSTANCE_EDITS


def apply_edit(index: int, target: Any, value: Any) -> Any:
    """Run one edit of the target."""
    edits = edits_of(target)
    return edits[index % len(edits)](target, value)


def is_editable(value: Any) -> bool:
    """Whether the value has an identity that a program can observe through edits."""
    return isinstance(
        value, list | dict | set | collections.deque | bytearray | array.array | np.ndarray | types.SimpleNamespace
    ) or (type(value).__module__ == specimens.__name__ and not isinstance(
        value, tuple | specimens.Colour | specimens.Frozen | specimens.Key | specimens.Singleton
    ))  # fmt: skip


def children(value: Any) -> list[Any]:
    """What is directly inside, in an order that is the same on both sides."""
    if isinstance(value, list | tuple | collections.deque):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, np.ndarray):
        return list(value.flat) if value.dtype.hasobject else []
    if is_editable(value):
        # one by one: vars() and dir() would change how CPython 3.13 stores the attributes
        inside = [getattr(value, name, MISSING) for name in ("a", "b", "new", "inner")]
        return [child for child in inside if child is not MISSING]
    return []


class Holder:
    """A thing that keeps an object reachable in a way of its own, and can edit or show it."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def use(self, edit: int, value: Any) -> Any:
        """Edit the object, or advance, through the thing held."""
        return None

    def shown(self) -> Any:
        """What the program sees through the thing, to be compared."""
        return None

    def release(self) -> None:
        """Let go of the object as a program would."""


class NamespaceHolder(Holder):
    """``vars(obj)``: on CPython 3.13 the object does not show that it is held."""

    def use(self, edit: int, value: Any) -> Any:
        self.thing[("a", "new")[edit % 2]] = value

    def shown(self) -> Any:
        return self.thing


class ViewHolder(Holder):
    """A view of a dict."""

    def shown(self) -> Any:
        return list(self.thing)


class IteratorHolder(Holder):
    """An iterator over a container."""

    def use(self, edit: int, value: Any) -> Any:
        return next(self.thing, "exhausted")


class CallHolder(Holder):
    """A bound method, a closure or a partial that edits the object."""

    def use(self, edit: int, value: Any) -> Any:
        return self.thing(value)


class ExportHolder(Holder):
    """A memoryview of an object that owns a buffer."""

    def use(self, edit: int, value: Any) -> Any:
        flat = self.thing.cast("B")
        flat[0] = 1
        flat.release()

    def shown(self) -> Any:
        # The bytes of an array of objects are addresses, which differ between the two programs.
        return self.thing.obj if self.thing.format == "O" else self.thing.tobytes()

    def release(self) -> None:
        self.thing.release()


class WeakHolder(Holder):
    """A weak reference: it must die when the program's last reference does, and not before."""

    def use(self, edit: int, value: Any) -> Any:
        target = self.thing()
        return "dead" if target is None else apply_edit(edit, target, value)

    def shown(self) -> Any:
        return self.thing()


class OuterHolder(Holder):
    """A container of the program's own that contains the object."""

    def use(self, edit: int, value: Any) -> Any:
        return apply_edit(edit, self.thing["in"][0], value)

    def shown(self) -> Any:
        return self.thing


def _closure(target: Any) -> Callable[[Any], Any]:
    def edit(value: Any) -> Any:
        return apply_edit(0, target, value)

    return edit


def _running_generator(target: Any) -> Any:
    def generate() -> Any:
        value = yield None
        while True:
            value = yield apply_edit(1, target, value)

    generator = generate()
    next(generator)
    return generator.send


def _bound_method(target: Any) -> Any:
    names = ("append", "update", "add", "put", "__setattr__")
    name = next(name for name in names if hasattr(target, name))
    method = getattr(target, name)
    return {"update": lambda v: method({1}), "__setattr__": functools.partial(method, "a")}.get(name, method)


HOLDERS: dict[str, tuple[type[Holder], Callable[[Any], Any]]] = {
    "vars": (NamespaceHolder, vars),
    "values": (ViewHolder, lambda t: t.values()),
    "items": (ViewHolder, lambda t: t.items()),
    "iterator": (IteratorHolder, lambda t: iter(t)),
    "reversed": (IteratorHolder, lambda t: reversed(t)),
    "bound method": (CallHolder, _bound_method),
    "closure": (CallHolder, _closure),
    "generator": (CallHolder, _running_generator),
    "partial": (CallHolder, lambda t: functools.partial(apply_edit, 2, t)),
    "memoryview": (ExportHolder, memoryview),
    "weakref": (WeakHolder, weakref.ref),
    "outer": (OuterHolder, lambda t: {"in": [t]}),
}


def hold(kind: str, target: Any) -> Holder | None:
    """Hold the target in one way, or None where its type has no such way."""
    holder, take = HOLDERS[kind]
    if kind in ("iterator", "reversed") and not isinstance(target, list | dict | collections.deque | array.array):
        return None
    try:
        return holder(take(target))
    except (TypeError, AttributeError, ValueError, BufferError):
        return None
