"""numpy arrays to bytes and back, exactly: owners as owners, views as views of the same memory.

An *owner* has its own memory, in which its items lie densely in some order of axes (C order, Fortran order,
or any other that numpy chose). A *view* shows a part of an owner: it is written as an offset and strides
into that owner, which is written once however many views show it. Nothing else reaches this module: the walk
pins arrays that hold objects, carry metadata, are subclasses, or show memory that no array owns.
"""

import pickle
from typing import Any, Protocol

import numpy as np

from spectral_alloc._closure import BUFFER_BYTES

__all__ = ["flat_bytes", "is_written_by_value", "made_owner", "made_view", "reduce_ndarray"]

_PARAMETRIC_KINDS = "SUMm"  # dtypes with a length or a unit: numpy makes a new object for nearly every array


class _Pickler(Protocol):
    """What writing an array needs from the pickler."""

    def buffer(self, data: Any, item_bytes: int) -> Any:
        """`data` as a part of its own."""


def _axes_by_stride(array: Any) -> tuple[int, ...] | None:
    """The order of axes in which an owner's items lie in memory; None for C order."""
    if array.flags.c_contiguous:
        return None
    return tuple(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))


def flat_bytes(owner: Any) -> Any:
    """All memory of an owner as one writeable or read-only array of bytes, without a copy."""
    if owner.nbytes == 0:
        return np.empty(0, np.uint8)
    axes = _axes_by_stride(owner)
    dense = owner if axes is None else owner.transpose(axes)
    if not dense.flags.c_contiguous:
        raise pickle.PicklingError(
            f"array with shape {owner.shape} and strides {owner.strides} has gaps in its memory"
        )
    return dense.reshape(-1).view(np.uint8)


def _empty_owner(dtype: Any, shape: tuple[int, ...], axes: tuple[int, ...] | None) -> Any:
    if axes is None:
        return np.empty(shape, dtype)
    dense = np.empty([shape[axis] for axis in axes], dtype)
    return np.empty_like(dense.transpose(np.argsort(axes)), order="K", subok=False)


def made_owner(
    dtype: Any, shape: tuple[int, ...], axes: tuple[int, ...] | None, writeable: bool, data: Any
) -> Any:
    """An array with memory of its own, filled with a copy of `data`."""
    owner = _empty_owner(dtype, shape, axes)
    if owner.nbytes:
        flat_bytes(owner)[:] = np.frombuffer(data, np.uint8)
    if not writeable:
        owner.setflags(write=False)
    return owner


def made_view(
    base: Any, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, writeable: bool
) -> Any:
    """A view of the owner `base`."""
    view = np.ndarray(shape, dtype, buffer=flat_bytes(base), offset=offset, strides=strides)
    if not writeable:
        view.setflags(write=False)
    return view


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def _is_same_view(first: Any, second: Any) -> bool:
    return (
        first.base is second.base
        and _address(first) == _address(second)
        and first.strides == second.strides
        and first.flags.writeable == second.flags.writeable
    )


def _reduce_view(view: Any) -> tuple[Any, ...]:
    if type(view.base) is not np.ndarray or view.base.base is not None:
        raise pickle.PicklingError(
            f"array view of memory that {type(view.base).__qualname__} owns cannot be made again"
        )
    arguments = (
        view.base,
        view.dtype,
        view.shape,
        view.strides,
        _address(view) - _address(view.base),
        view.flags.writeable,
    )
    try:
        faithful = _is_same_view(made_view(*arguments), view)  # a rehearsal: it must not fail later
    except (ValueError, TypeError):
        faithful = False
    if not faithful:
        raise pickle.PicklingError(
            f"array view with shape {view.shape} and strides {view.strides} cannot be made again"
        )
    return made_view, arguments


def reduce_ndarray(pickler: _Pickler, array: Any) -> tuple[Any, ...]:
    """How an exact ndarray is written; its data becomes a part of its own from BUFFER_BYTES on.

    :raises pickle.PicklingError: strides that cannot be made again.
    """
    if array.base is not None:
        return _reduce_view(array)
    axes = _axes_by_stride(array)
    if _empty_owner(array.dtype, array.shape, axes).strides != array.strides:
        raise pickle.PicklingError(
            f"array with shape {array.shape} and strides {array.strides} cannot be made again"
        )
    data = flat_bytes(array)
    if array.nbytes >= BUFFER_BYTES:
        part = pickler.buffer(data, _shuffle_bytes(array.dtype))
    else:
        part = data.tobytes()
    return made_owner, (array.dtype, array.shape, axes, array.flags.writeable, part)


def _shuffle_bytes(dtype: Any) -> int:
    """Width of the numbers in an item: what a byte shuffle should be told."""
    if dtype.kind == "c":
        return int(dtype.itemsize) // 2
    return 4 if dtype.kind == "U" else max(1, int(dtype.itemsize))


def is_written_by_value(dtype: Any) -> bool:
    """Whether a dtype is made anew for each array that uses it, so that its identity says nothing."""
    if dtype.kind == "V":
        return False  # its field names can be changed, so the object itself has to come back
    return dtype.kind in _PARAMETRIC_KINDS or dtype is not np.dtype(dtype.str)
