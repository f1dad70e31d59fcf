"""Recipes in the log of a durable dict: instead of a value's bytes, the name of a function, its arguments and a digest.

    frame    parts: | 0xD6, safe form of (digest, "module:qualname", has arguments) | the arguments, in the value form |

A recipe of all keys has no arguments: it gets the key, and is the one that ``ThermalDict.open(regrow=...)`` is given,
or, in a trusted directory, the one of that name. A recipe for one key names what is called, so it is read only where
pickles are. Only values of builtin types without sets are regrown from a log: other types' bytes are not the same in
every process and release, so that a digest would prove nothing.

Threads: any. User code runs in ``prove``, outside of the journal's lock, and in ``value_of``.
"""

import errno
import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from spectral_alloc import _safe
from spectral_alloc._journal import UNKNOWN
from spectral_alloc.errors import CorruptFrameError, RegrowError, UntrustedError
from spectral_alloc.value_form import WAY_OUT, ValueForm

if TYPE_CHECKING:
    from spectral_alloc._cell import Cell
    from spectral_alloc._journal import JournalEntry
    from spectral_alloc._regrow import Regrowth
    from spectral_alloc.tiers import Tiers

__all__ = ["RECIPE_MARK", "StoredRecipes", "is_recipe", "name_of_function", "named_function"]

RECIPE_MARK = 0xD6  # first byte of part 0; stored: never change it


def is_recipe(parts: Sequence[Any]) -> bool:
    """Do the parts of a frame hold a recipe?"""
    return bool(parts[0][:1] == bytes([RECIPE_MARK]))


def name_of_function(function: Callable[..., Any]) -> str:
    """The name by which any process can import a function; TypeError if it has none.

    >>> name_of_function(sorted)
    'builtins:sorted'
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    found = None
    if module == "__main__":
        raise TypeError(
            f"{function!r} cannot be the recipe of a durable dict: another program cannot import what is defined in "
            "__main__; move it to a module"
        )
    if isinstance(module, str) and isinstance(name, str):
        try:
            found = named_function(f"{module}:{name}")
        except (ImportError, AttributeError):
            found = None
    if found is not function:
        raise TypeError(
            f"{function!r} cannot be the recipe of a durable dict, which stores recipes by name: give a function that "
            "is defined at the top of a module (no lambda, inner function or bound method), and its arguments"
        )
    return f"{module}:{name}"


def named_function(name: str) -> Any:
    """What a name means; ImportError or AttributeError if there is no such thing. Imports its module."""
    module, _, path = name.partition(":")
    found = importlib.import_module(module)
    for step in path.split("."):
        found = getattr(found, step)
    return found


class StoredRecipes:
    """Writes and reads the recipes of one durable dict.

    Parameters: regrowth (what runs them), form (how far the directory is trusted), tiers (whose codec is used, and
    whose disk reads a recipe must beat).
    """

    def __init__(self, regrowth: "Regrowth", form: ValueForm, tiers: "Tiers") -> None:
        self.regrowth, self.form, self.tiers = regrowth, form, tiers
        regrowth.is_stored = True

    # to the log -----------------------------------------------------------------------------------------------------

    def check(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Raise TypeError for a recipe of one key that could not be found again."""
        name_of_function(function)
        if not self.form.is_trusted:
            raise TypeError(f"a recipe is code, and this directory may not name any: {WAY_OUT}")
        self.form.dumps(args)

    def prove(self, entries: "Iterable[JournalEntry]") -> None:
        """Before a commit: run the recipes of what was written, to see whether they give it."""
        for entry in entries:
            if entry.cell is not None and entry.key is not UNKNOWN:
                self.regrowth.prove(entry.cell, entry.key, self.tiers.cold_read_seconds)

    def frame_for(self, cell: "Cell | None", value: Any) -> tuple[bytes, bool] | None:
        """The frame that stands for a value, and whether it names what is called; None if no recipe was proved."""
        stands = None if cell is None else self.regrowth.stands_for(cell, value, self.tiers.cold_read_seconds)
        if stands is None:
            return None
        digest, recipe = stands
        function = self.regrowth.function if recipe is None else recipe.function
        assert function is not None
        head = bytes([RECIPE_MARK]) + _safe.encode((digest, name_of_function(function), recipe is not None))
        parts, item_sizes = ([], []) if recipe is None else self.form.dumps(recipe.args)
        return self.tiers.codec.encode([head, *parts], [1, *item_sizes]), recipe is not None

    # from the log -----------------------------------------------------------------------------------------------------

    def value_of(self, parts: Sequence[Any], cell: "Cell", key: Any, origin: tuple[Any, ...]) -> Any:
        """The value that a frame of the log stands for.

        Raises RegrowError if the function is not there any more or gives something else, UntrustedError, and what the
        function raises.
        """
        found = _safe.decode(bytes(parts[0][1:]))
        if not isinstance(found, tuple) or [type(part) for part in found] != [bytes, str, bool]:
            raise CorruptFrameError("this is no recipe")
        digest, name, has_args = found
        if has_args:
            if not self.regrowth.has_own(cell):
                function = self._function(name, key)
                args = self.form.loads(parts[1:])
                self.regrowth.assign(cell, self.regrowth.make_recipe(key, function, tuple(args)))
        elif self.regrowth.function is None:
            self.regrowth.adopt_function(self._function(name, key))
        return self.regrowth.regrow_stored(cell, key, origin, digest)

    def _function(self, name: str, key: Any) -> Callable[..., Any]:
        if not self.form.is_trusted:
            raise UntrustedError(
                errno.EACCES,
                f"the value of key {key!r} is given by {name}, and importing that could run any code: pass it as "
                "regrow=, or trust=True if only you can write in the directory, or the key= it was written with",
            )
        try:
            function = named_function(name)
        except (ImportError, AttributeError) as error:
            message = f"the recipe of key {key!r} is {name}, which cannot be imported: {error}"
            raise RegrowError(message, key) from error
        if not callable(function):
            raise RegrowError(f"the recipe of key {key!r} is {name}, which cannot be called", key)
        return function  # type: ignore[no-any-return]  # callable() says so
