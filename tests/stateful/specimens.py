"""Classes whose instances the state machines store: ordinary ones, and ones that mislead a serialiser."""

import collections
import dataclasses
import enum
import threading
from collections.abc import Callable
from typing import Any, ClassVar


class Hook:
    """What misbehaving specimens call back while the dict works; it never calls itself."""

    function: ClassVar[Callable[[], None] | None] = None
    busy: ClassVar[bool] = False

    @classmethod
    def call(cls) -> None:
        """Run the function of the moment, unless it is running."""
        if cls.function is None or cls.busy:
            return
        cls.busy = True
        try:
            cls.function()
        finally:
            cls.busy = False


class EvilError(Exception):
    """Raised on purpose by specimens."""


class Key:
    """A key of which half collide; comparing it calls the hook, or raises while ``raising`` is set."""

    raising: ClassVar[bool] = False

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        Hook.call()
        return self.number % 2

    def __eq__(self, other: object) -> bool:
        if Key.raising:
            raise EvilError("comparing keys")
        Hook.call()
        return isinstance(other, Key) and self.number == other.number

    def __repr__(self) -> str:
        return f"Key({self.number})"


class Plain:
    """An ordinary instance with attributes and a method that edits it."""

    def put(self, value: object) -> None:
        """Set one attribute."""
        self.put_here = value


class OtherPlain(Plain):
    """What an instance of Plain can become by assigning ``__class__``."""


class Slotted:
    """Attributes in slots alone, one of which may be unset."""

    __slots__ = ("a", "b")


class SlottedAndDict(Slotted):
    """Slots and a namespace together."""


@dataclasses.dataclass
class Data:
    """A mutable dataclass."""

    a: Any = None
    b: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    """A frozen dataclass whose fields may be mutable all the same."""

    a: Any = None
    b: Any = None


Pair = collections.namedtuple("Pair", ["a", "b"])


class Colour(enum.Enum):
    """Members are compared with ``is`` by everybody."""

    RED = 1
    GREEN = (2, 3)


class ListChild(list):
    """A list with a namespace."""


class DictChild(dict):
    """A dict with a namespace."""


class ByName:
    """An element of sets whose hash needs an attribute: unpickling it inside a cycle fails."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        Hook.call()
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByName) and self.name == other.name


class Lossy:
    """Pickles without an error, and comes back without one of its attributes."""

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "cache"}


class Counting:
    """Its restoration is seen by the program, so it must never be restored."""

    restored: ClassVar[int] = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        Counting.restored += 1


class ReduceRaises:
    """Cannot be serialised, and says so with an error that no pickler expects."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise EvilError("reducing")


class ReduceReenters:
    """Uses the dict while the dict serialises it."""

    def __reduce__(self) -> Any:
        Hook.call()
        return ReduceReenters, (), vars(self)


class EqRaises:
    """Cannot be compared with anything."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise EvilError("comparing values")


class HashRaises:
    """Says that it has a hash and does not."""

    def __hash__(self) -> int:
        raise EvilError("hashing a value")


class AnyAttribute:
    """Answers every question about special methods that is asked through the instance."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class NeedsArgument:
    """Its ``__new__`` takes an argument that a copy would not know."""

    def __new__(cls, argument: object) -> "NeedsArgument":
        self = super().__new__(cls)
        self.argument = argument
        return self


class Finalised:
    """Tells when it dies; ``side`` is 0 for the instance in the dict under test and 1 for that in the model.

    The side is kept beside the instance, as both sides must look alike. A copy, which only the dict under test could
    make, is not in the table and counts for its side.
    """

    died: ClassVar[tuple[list[int], list[int]]] = ([], [])
    log_of_id: ClassVar[dict[int, list[int]]] = {}

    def __init__(self, side: int, number: int) -> None:
        Finalised.log_of_id[id(self)] = Finalised.died[side]
        self.number = number

    @classmethod
    def start_logs(cls) -> None:
        """Begin anew; what is left of an earlier run goes on writing to the logs of that run."""
        cls.died = ([], [])

    def __del__(self) -> None:
        Finalised.log_of_id.pop(id(self), Finalised.died[0]).append(getattr(self, "number", -1))


class Singleton:
    """Serialised by name; identity is its meaning."""

    def __reduce__(self) -> str:
        return "SINGLETON"


SINGLETON = Singleton()


def counter(start: int) -> Any:
    """A generator, which nothing can serialise."""
    while True:
        yield start
        start += 1


# calls itself Plain without being the class that an import finds
IMPOSTOR = type("Plain", (), {"__module__": __name__, "__qualname__": "Plain"})
LOCAL = type("Local", (), {"__qualname__": "function.<locals>.Local"})


def local_function(captured: object) -> Callable[[], object]:
    """A closure over an object; nothing can serialise it."""
    return lambda: captured


UNPICKLABLE: dict[str, Callable[[Any], Any]] = {
    "generator": lambda inner: counter(3),
    "closure": local_function,
    "lock": lambda inner: threading.Lock(),
    "impostor": lambda inner: IMPOSTOR(),
    "local class": lambda inner: LOCAL(),
}
