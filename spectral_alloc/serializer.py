"""Values to bytes and back, exactly: what comes back cannot be told from what left.

Graphs of builtin types alone become graph streams (docs/graph_stream.md), written and read in C. All others go
through a pickler that asks neither the classes nor copyreg how an object wants to be pickled, but writes what the
object is: its class, attributes, slots and items. Classes, functions, enum members and the like are written by
identity, through a table of the container (shared_objects.py).
"""

import collections
import importlib
import io
import pickle
import sys
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final

from spectral_alloc import _closure
from spectral_alloc._closure import BUFFER_BYTES
from spectral_alloc._graph_stream import GRAPH_VERSION, read_graph, write_graph
from spectral_alloc.closure import ODD_SETS, PLAIN, registered
from spectral_alloc.shared_objects import PROCESS_OBJECTS, SharedObjects, shared

__all__ = ["BUFFER_BYTES", "dumps", "loads"]

BytesLike = bytes | bytearray | memoryview
Reduced = tuple[Any, ...]

_PROTOCOL: Final = 5
ARRAY_HEADS_MAX: Final = 64


def dumps(
    value: Any, flags: int = 0, *, portable: bool = False, objects: SharedObjects = PROCESS_OBJECTS
) -> tuple[list[BytesLike], list[int]]:
    """Serialise a value whose walk said that it is closed.

    :param value: any value; only for closed ones is the result faithful.
    :param flags: flags of its verdict: of sets of a custom order, and of what plain pickle writes exactly.
    :param portable: write classes and functions by name, so that another process can read the result (there,
        sets have another order); by default by identity, which only this process and its forks understand.
    :param objects: numbers what is written by identity; the result can be read while it is alive.
    :returns: parts and item sizes in bytes, one for each part: ``parts[0]`` is a graph stream or a pickle stream,
        which their first bytes tell apart, the others are the data of arrays of at least BUFFER_BYTES. Parts of
        numpy arrays show the live array's memory: copy or compress them, and let go of them, before the closedness
        of the value is checked again.
    :raises pickle.PicklingError: a part of the value cannot be serialised faithfully; the text says which.
    :raises RecursionError: nested too deeply.

    Cost: a graph stream a quarter of pickle.dumps; else about 1 us per instance. Thread: any; user code runs
    only for types registered with a `reduce`.

    >>> parts, item_sizes = dumps({"a": [1, 2.5, None]})
    >>> loads(parts)
    {'a': [1, 2.5, None]}
    """
    stream = write_graph(value, portable)
    if stream is not None:
        return [stream], [1]
    return _pickled(value, flags, portable, objects)


def _pickled(
    value: Any, flags: int, portable: bool, objects: SharedObjects
) -> tuple[list[BytesLike], list[int]]:
    """The slow way of dumps: something in the value is not of a builtin type, or its keys nest very deeply."""
    if flags & PLAIN:
        return [pickle.dumps(value, _PROTOCOL)], [1]
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(value) is numpy.ndarray and value.base is None and value.nbytes >= BUFFER_BYTES:
        return _array_parts(value, portable, objects)
    return _pickled_graph(value, flags, portable, objects)


def _array_parts(array: Any, portable: bool, objects: SharedObjects) -> tuple[list[BytesLike], list[int]]:
    """An array that is the whole value: but for its memory it is written like the last one of its outline."""
    outline = id(array.dtype), array.shape, array.strides, array.flags.writeable, portable
    known = objects.array_heads.get(outline)
    if known is not None:
        _, head, item_sizes = known
        return [head, pickle.PickleBuffer(_arrays().flat_bytes(array)).raw()], [*item_sizes]
    parts, item_sizes = _pickled_graph(array, 0, portable, objects)
    if len(objects.array_heads) >= ARRAY_HEADS_MAX:
        objects.array_heads.clear()
    objects.array_heads[outline] = array.dtype, parts[0], item_sizes  # the dtype lives on, so that its id stays its own
    return parts, item_sizes


def _pickled_graph(
    value: Any, flags: int, portable: bool, objects: SharedObjects
) -> tuple[list[BytesLike], list[int]]:
    buffer = io.BytesIO()
    pickler = _ExactPickler(buffer, portable, objects)
    pickler.dump(_Arranged(value) if flags & ODD_SETS and not portable else value)
    return [buffer.getvalue(), *(part.raw() for part in pickler.buffers)], [1, *pickler.item_sizes]


def loads(parts: Sequence[BytesLike]) -> Any:
    """Make the value again.

    :param parts: what dumps returned, as any bytes-like objects; their memory is not kept.
    :returns: a new value.
    :raises CorruptFrameError, pickle.UnpicklingError, IndexError: the parts are not what dumps returned (check them
        before: pickle runs code; graph streams do not).

    Cost: a graph stream half of pickle.loads. Thread: any.
    """
    if parts[0][0] == GRAPH_VERSION:
        return read_graph(parts[0])
    if len(parts) == 1:
        return pickle.loads(parts[0])
    return pickle.loads(parts[0], buffers=parts[1:])


# ---- how objects are made again; these functions are named in the streams ----

_NATIVE_BASES: Final[dict[int, type]] = {
    _closure.BODY_OBJECT: object,
    _closure.BODY_LIST: list,
    _closure.BODY_DICT: dict,
    _closure.BODY_SET: set,
    _closure.BODY_ORDERED_DICT: collections.OrderedDict,
    _closure.BODY_DEFAULT_DICT: collections.defaultdict,
}


def made(cls: type, body: int) -> Any:
    """An empty instance, made by the constructor of its native base alone."""
    native = _NATIVE_BASES[body]
    return _closure.new_instance(cls, cls if native is object and not cls.__flags__ & _HEAP_TYPE else native)


_HEAP_TYPE: Final = 1 << 9


def filled(instance: Any, state: tuple[dict[Any, Any] | None, tuple[Any, ...] | None, Any]) -> None:
    """Give an empty instance its attributes, slots and items, without running a method of its class."""
    attributes, slots, items = state
    if items is not None:
        _ITEM_FILLERS[_native_type(instance)](instance, items)
    _closure.restore_instance(instance, attributes, slots)


def _native_type(instance: Any) -> type:
    for native in _ITEM_FILLERS:
        if issubclass(type(instance), native):  # isinstance would ask the instance for its __class__
            return native
    raise TypeError(f"{type(instance).__qualname__} has no items")


def _fill_ordered(instance: Any, items: tuple[list[Any], list[Any] | None]) -> None:
    _closure.fill_dict(instance, items[0])
    for key in items[1] or ():
        collections.OrderedDict.move_to_end(instance, key)


def _fill_default(instance: Any, items: tuple[Any, list[Any]]) -> None:
    instance.default_factory = items[0]
    _closure.fill_dict(instance, items[1])


_ITEM_FILLERS: Final[dict[type, Callable[[Any, Any], None]]] = {
    collections.OrderedDict: _fill_ordered,
    collections.defaultdict: _fill_default,
    collections.deque: collections.deque.extend,
    list: list.extend,
    dict: _closure.fill_dict,
    set: set.update,
}


def made_tuple(cls: type, items: tuple[Any, ...]) -> Any:
    """An instance of a subclass of tuple."""
    return tuple.__new__(cls, items)


def made_frozenset(cls: type, items: list[Any]) -> Any:
    """An instance of a subclass of frozenset, its members added in the old order."""
    return frozenset.__new__(cls, items)


def made_base(cls: Any, value: Any) -> Any:
    """An instance of a subclass of str, bytes, int or float."""
    return type(value).__new__(cls, value)


def made_deque(maxlen: int | None) -> Any:
    """An empty deque."""
    return collections.deque(maxlen=maxlen)


def made_array(typecode: str, data: BytesLike) -> Any:
    """An array.array with a copy of these bytes."""
    values = array(typecode)
    values.frombytes(data)
    return values


def made_registered(cls: type, state: Any) -> Any:
    """An object of a type that register_type was told about."""
    entry = registered(cls)
    if entry is None or entry.restore is None:
        raise pickle.UnpicklingError(f"{cls.__qualname__} is no longer registered with a restore function")
    return entry.restore(state)


def arranged(value: Any, sets: list[Any], layouts: list[Any]) -> Any:
    """`value`, after the sets in it that have an order of their own got it back."""
    for members, layout in zip(sets, layouts, strict=True):
        _closure.arrange_set(members, layout)
    return value


# ---- how objects are written ----


class _Arranged:
    """A value with sets whose order pickle would change: their layouts are written behind it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def reduced(self) -> Reduced:
        sets = _closure.odd_sets(self.value)
        return arranged, (self.value, sets, [_closure.set_layout(members) for members in sets])


class _ExactPickler(pickle.Pickler):
    """Writes instances by their state; asks no reducer of a class or of copyreg, but for known leaf types."""

    dispatch_table: dict[type, Callable[[Any], Any]] = {}  # noqa: RUF012 - pickle reads it here; empty shuts out copyreg

    def __init__(self, stream: io.BytesIO, portable: bool, objects: SharedObjects) -> None:
        self.buffers: list[pickle.PickleBuffer] = []
        self.item_sizes: list[int] = []
        self.portable = portable
        self.objects = objects
        super().__init__(stream, _PROTOCOL, buffer_callback=self.buffers.append)

    def reducer_override(self, value: Any) -> Any:
        """How to write `value`; called by pickle for all that its C code does not write itself."""
        if type(value) is _Arranged:
            return value.reduced()
        body, flags, _ = _closure.rule_of(type(value))
        if flags & _closure.RULE_OWN_REDUCER:
            return _reduce_registered(value)
        return _REDUCERS[body](self, value)

    def buffer(self, data: Any, item_bytes: int) -> Any:
        """`data` as a part of its own; called right before its reduced form is returned."""
        self.item_sizes.append(item_bytes)
        return pickle.PickleBuffer(data)


def _refuse(pickler: _ExactPickler, value: Any) -> Any:
    raise pickle.PicklingError(
        f"{type(value).__module__}.{type(value).__qualname__} objects cannot be serialised"
    )


def _reduce_leaf(pickler: _ExactPickler, value: Any) -> Any:
    if type(value) is complex:
        return complex, (value.real, value.imag)
    if value is Ellipsis or value is NotImplemented:
        return _reduce_shared(pickler, value)
    return NotImplemented


def _by_its_own_reducer(pickler: _ExactPickler, value: Any) -> Any:
    return NotImplemented


def _reduce_shared(pickler: _ExactPickler, value: Any) -> Any:
    if pickler.portable or id(value) in _OWN_FUNCTIONS or _is_dtype_value(value):
        return NotImplemented
    return shared, (pickler.objects.number, pickler.objects.number_of(value))


def _is_dtype_value(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    if numpy is None or not issubclass(type(value), numpy.dtype):
        return False
    return bool(_arrays().is_written_by_value(value))


def _reduce_registered(value: Any) -> Reduced:
    entry = registered(type(value))
    if entry is None or entry.reduce is None:
        raise pickle.PicklingError(
            f"{type(value).__qualname__} is no longer registered with a reduce function"
        )
    return made_registered, (type(value), entry.reduce(value))


def _with_state(
    made_by: Callable[..., Any], arguments: tuple[Any, ...], value: Any, items: Any = None
) -> Reduced:
    attributes, slots = _closure.instance_state(value)
    if attributes is None and slots is None and items is None:
        return made_by, arguments
    return made_by, arguments, (attributes, slots, items), None, None, filled


def _reduce_object(pickler: _ExactPickler, value: Any) -> Reduced:
    return _with_state(made, (type(value), _closure.BODY_OBJECT), value)


def _reduce_list(pickler: _ExactPickler, value: Any) -> Reduced:
    return _with_state(made, (type(value), _closure.BODY_LIST), value, list.copy(value) or None)


def _reduce_dict(pickler: _ExactPickler, value: Any) -> Reduced:
    return _with_state(made, (type(value), _closure.BODY_DICT), value, _closure.dict_items(value) or None)


def _reduce_set(pickler: _ExactPickler, value: Any) -> Reduced:
    if isinstance(value, frozenset):
        return _with_state(made_frozenset, (type(value), list(frozenset.__iter__(value))), value)
    return _with_state(made, (type(value), _closure.BODY_SET), value, list(set.__iter__(value)) or None)


def _reduce_tuple(pickler: _ExactPickler, value: Any) -> Reduced:
    return _with_state(made_tuple, (type(value), tuple(tuple.__iter__(value))), value)


def _reduce_base(pickler: _ExactPickler, value: Any) -> Reduced:
    return _with_state(made_base, (type(value), _closure.base_value(value)), value)


def _reduce_ordered(pickler: _ExactPickler, value: Any) -> Reduced:
    # The dict beneath has an order of its own, which dict.items(value) shows once keys were moved.
    flat = _closure.dict_items(value)
    order = list(value)
    moved = order if any(key is not other for key, other in zip(order, flat[::2], strict=True)) else None
    items = (flat, moved) if flat else None
    return _with_state(made, (type(value), _closure.BODY_ORDERED_DICT), value, items)


def _reduce_default(pickler: _ExactPickler, value: Any) -> Reduced:
    items = (value.default_factory, _closure.dict_items(value))
    return _with_state(made, (type(value), _closure.BODY_DEFAULT_DICT), value, items)


def _reduce_traversed(pickler: _ExactPickler, value: Any) -> Any:
    if type(value) is collections.deque:
        return made_deque, (value.maxlen,), (None, None, list(value)), None, None, filled
    return NotImplemented  # slice


def _reduce_array(pickler: _ExactPickler, value: "array[Any]") -> Reduced:
    data: Any = value.tobytes()  # a copy: an exported array could not grow while its part is held
    if len(data) >= BUFFER_BYTES:
        data = pickler.buffer(data, value.itemsize)
    return made_array, (value.typecode, data)


def _arrays() -> Any:
    """spectral_alloc.arrays, which imports numpy: only when a program that uses arrays has done so itself."""
    return importlib.import_module("spectral_alloc.arrays")


def _reduce_ndarray(pickler: _ExactPickler, value: Any) -> Any:
    return _arrays().reduce_ndarray(pickler, value)


_REDUCERS: Final[dict[int, Callable[[_ExactPickler, Any], Any]]] = {
    _closure.BODY_PIN: _refuse,
    _closure.BODY_LEAF: _reduce_leaf,
    _closure.BODY_SHARED: _reduce_shared,
    _closure.BODY_FUNCTION: _reduce_shared,
    _closure.BODY_BUILTIN: _reduce_shared,
    _closure.BODY_OBJECT: _reduce_object,
    _closure.BODY_LIST: _reduce_list,
    _closure.BODY_TUPLE: _reduce_tuple,
    _closure.BODY_DICT: _reduce_dict,
    _closure.BODY_ORDERED_DICT: _reduce_ordered,
    _closure.BODY_DEFAULT_DICT: _reduce_default,
    _closure.BODY_SET: _reduce_set,
    _closure.BODY_TRAVERSE: _reduce_traversed,
    _closure.BODY_BYTEARRAY: _by_its_own_reducer,
    _closure.BODY_ARRAY: _reduce_array,
    _closure.BODY_NDARRAY: _reduce_ndarray,
    _closure.BODY_DATETIME: _by_its_own_reducer,
    _closure.BODY_BASE: _reduce_base,
}

# Functions that the streams name: written by name, for writing them by number would need one of them.
_OWN_FUNCTIONS: Final = frozenset(
    map(
        id,
        (
            shared,
            made,
            filled,
            made_tuple,
            made_frozenset,
            made_base,
            made_deque,
            made_array,
            made_registered,
            arranged,
        ),
    )
)
