"""Whether two object graphs are alike: same types, same atoms, and the same objects shared in the same places."""

import array
import collections
import datetime
import decimal
import enum
import fractions
import functools
import operator
import pathlib
import struct
import types
import uuid
import weakref
from typing import Any

import numpy as np
import specimens

ATOMS = (
    type(None), bool, int, str, bytes, complex, range, decimal.Decimal, fractions.Fraction, uuid.UUID,
    pathlib.PurePath, datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, type(...), slice,
)  # fmt: skip
BY_IDENTITY = (type, enum.Enum, types.BuiltinFunctionType, types.ModuleType, specimens.Singleton, specimens.Key)
LOCK = type(specimens.UNPICKLABLE["lock"](None))


class Isomorphism:
    """A one-to-one map between the mutable objects seen on either side; it keeps them alive while it lives.

    With ``materialise`` the namespace of each instance is compared as an object. Without, attributes are read one by
    one, because ``vars(obj)`` changes how CPython stores them and would hide one way of holding them from the tests.
    """

    def __init__(self, materialise: bool) -> None:
        self.materialise = materialise
        self.partner_of_subject: dict[int, tuple[Any, Any]] = {}
        self.partner_of_model: dict[int, tuple[Any, Any]] = {}
        self.pending: list[tuple[Any, Any, str]] = []

    def bind(self, subject: Any, model: Any, where: str) -> bool:
        """Note that the two stand for each other; False where that was known, an error where it contradicts."""
        known_subject = self.partner_of_subject.get(id(subject))
        known_model = self.partner_of_model.get(id(model))
        if known_subject is None and known_model is None:
            self.partner_of_subject[id(subject)] = self.partner_of_model[id(model)] = (subject, model)
            return True
        agreed = known_subject is not None and known_subject[1] is model
        agreed = agreed and known_model is not None and known_model[0] is subject
        assert agreed, f"{where}: shared in one graph and not in the other: {type(subject).__name__}"
        return False

    def compare(self, subject: Any, model: Any, where: str) -> None:
        """Compare two values and everything that they reach."""
        self.pending.append((subject, model, where))
        while self.pending:
            self._pair(*self.pending.pop())

    def _pair(self, subject: Any, model: Any, where: str) -> None:
        known = self.partner_of_model.get(id(model))
        if known is not None and known[1] is model:
            self.bind(subject, model, where)
            return
        assert type(subject) is type(model), f"{where}: {type(subject).__name__} for {type(model).__name__}"
        if isinstance(model, BY_IDENTITY):
            assert subject is model, f"{where}: another object than {model!r}"
        elif isinstance(model, float):
            assert struct.pack("d", subject) == struct.pack("d", model), f"{where}: {subject!r} for {model!r}"
        elif isinstance(model, ATOMS):
            assert subject == model, f"{where}: {subject!r} for {model!r}"
        elif isinstance(model, np.generic):
            assert (subject.dtype, subject.tobytes()) == (model.dtype, model.tobytes()), where
        elif self._may_be_copied(model) or self.bind(subject, model, where):
            self._inside(subject, model, where)

    @staticmethod
    def _may_be_copied(model: Any) -> bool:
        """Immutable containers: what they hold is compared, their own identity is not promised."""
        return isinstance(model, tuple | frozenset)

    def _inside(self, subject: Any, model: Any, where: str) -> None:
        if isinstance(model, list | tuple | collections.deque):
            self._sequence(subject, model, where)
            assert getattr(subject, "maxlen", None) == getattr(model, "maxlen", None), where
        elif isinstance(model, dict):
            self._sequence(list(subject), list(model), f"{where} keys")
            self._sequence(list(subject.values()), list(model.values()), f"{where} values")
            self._push(getattr(subject, "default_factory", None), getattr(model, "default_factory", None), where)
        elif isinstance(model, set | frozenset):
            self._sequence(sorted(subject, key=element_order), sorted(model, key=element_order), where)
        elif isinstance(model, bytearray | array.array):
            assert subject == model, f"{where}: {subject[:40]!r} for {model[:40]!r}"
        elif isinstance(model, np.ndarray):
            self._array(subject, model, where)
        elif isinstance(model, memoryview):
            assert bytes(subject) == bytes(model), where
            self._push(subject.obj, model.obj, f"{where}.obj")
        else:
            self._special(subject, model, where)
        self._attributes(subject, model, where)

    def _special(self, subject: Any, model: Any, where: str) -> None:
        if isinstance(model, weakref.ref):
            self._push(subject(), model(), f"{where}()")
        elif isinstance(model, types.MethodType):
            assert subject.__func__ is model.__func__, where
            self._push(subject.__self__, model.__self__, f"{where}.__self__")
        elif isinstance(model, types.FunctionType):
            assert subject.__code__ is model.__code__, where
            cells = [[cell.cell_contents for cell in side.__closure__ or ()] for side in (subject, model)]
            self._sequence(*cells, f"{where} closure")
        elif isinstance(model, functools.partial):
            self._push((subject.func, subject.args), (model.func, model.args), where)
        elif isinstance(model, BaseException):
            self._push(subject.args, model.args, f"{where}.args")
            self._push(subject.__cause__, model.__cause__, f"{where}.__cause__")
            assert (subject.__traceback__ is None) == (model.__traceback__ is None), where
        elif isinstance(model, LOCK):
            assert subject.locked() == model.locked(), where
        elif hasattr(type(model), "__next__"):
            assert operator.length_hint(subject) == operator.length_hint(model), where

    def _array(self, subject: Any, model: Any, where: str) -> None:
        assert (subject.dtype, subject.shape, subject.strides) == (model.dtype, model.shape, model.strides), where
        assert str(subject.flags) == str(model.flags), f"{where}: {subject.flags}"
        self._push(subject.base, model.base, f"{where}.base")
        if model.dtype.hasobject:
            self._sequence(list(subject.flat), list(model.flat), where)
        else:
            assert subject.tobytes() == model.tobytes(), where

    def _attributes(self, subject: Any, model: Any, where: str) -> None:
        slots = {name for cls in type(model).__mro__ for name in slots_of(cls)}
        for name in slots:
            assert hasattr(subject, name) == hasattr(model, name), f"{where}.{name}"
            if hasattr(model, name):
                self._push(getattr(subject, name), getattr(model, name), f"{where}.{name}")
        names = getattr(model, "__dict__", None)
        if not isinstance(names, dict) or isinstance(model, types.FunctionType):
            return
        if self.materialise or id(names) in self.partner_of_model:
            self._push(vars(subject), names, f"vars({where})")
            return
        for name, value in names.items():
            if name in slots:
                continue  # a slot hides the item of the namespace
            assert hasattr(subject, name), f"{where}.{name} is missing"
            self._push(getattr(subject, name), value, f"{where}.{name}")

    def _sequence(self, subject: Any, model: Any, where: str) -> None:
        assert len(subject) == len(model), f"{where}: {len(subject)} items for {len(model)}"
        for index, (left, right) in enumerate(zip(subject, model, strict=True)):
            self._push(left, right, f"{where}[{index}]")

    def _push(self, subject: Any, model: Any, where: str) -> None:
        self.pending.append((subject, model, where))


def slots_of(cls: type) -> list[str]:
    """Names of the attributes in slots that one class of an MRO declares in Python."""
    names = vars(cls).get("__slots__", ())
    names = [names] if isinstance(names, str) else list(names)
    return [name for name in names if isinstance(vars(cls).get(name), types.MemberDescriptorType)]


def element_order(element: Any) -> tuple[str, str]:
    """A total order of the elements that recipes put into sets."""
    return type(element).__name__, getattr(element, "name", None) or repr(element)


def assert_alike(subject: Any, model: Any) -> None:
    """The two values have the same types, atoms and sharing throughout."""
    Isomorphism(materialise=True).compare(subject, model, "value")
