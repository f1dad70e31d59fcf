"""Recipes of values: the methods of ThermalDict that are about regrowing (docs/regrow.md).

Words: a *recipe* is a function, with its arguments, that gives the value of a key again; the one of the whole dict is
called with the key. What runs them is compiled (cython_ext/_regrow.pyx).
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from weakref import ref

from spectral_alloc._regrow import Regrowth
from spectral_alloc.journal import Journal

if TYPE_CHECKING:
    from spectral_alloc._cell import Cell
    from spectral_alloc._journal import JournalCore
    from spectral_alloc.tiers import Settings, Tiers

__all__ = ["RegrowMethods", "checked_recipe"]

Recipes = Iterable[tuple[Any, Callable[..., Any], tuple[Any, ...]]]


def checked_recipe(function: Any) -> Callable[..., Any]:
    """A function that may be a recipe; TypeError for what cannot be called."""
    if not callable(function):
        raise TypeError(f"a recipe must be callable, not {type(function).__qualname__}")
    return function  # type: ignore[no-any-return]  # callable() says so


class RegrowMethods:
    """Added to ThermalDict, which has the rest."""

    __slots__ = ()

    if TYPE_CHECKING:
        _journal: JournalCore | None
        _regrowth: Regrowth | None
        _settings: Settings
        _reference: ref[Any]

        @property
        def _tiers(self) -> Tiers: ...
        @property
        def _has_tiers(self) -> bool: ...
        def _find(self, key: object) -> Cell | None: ...

    def regrow(self, key: Any, function: Callable[..., Any], /, *args: Any) -> None:
        """Say that ``function(*args)`` gives the value of ``key``: then it need not be stored once it leaves memory.

        The function must be pure, and give a new object each time. It is run once when the value leaves, and only if
        the two are equal it stands for the value; one that was edited or replaced is stored as any other. An absent
        key gets its value when it is read, ``d[key]``. The recipe goes with its key (``del``), or when another comes.

        Parameters: key, function, and its arguments, which should take little memory: they are kept.
        Raises: TypeError for a function that cannot be called, in a durable dict also for one that has no importable
        name. RegrowError comes from reading, when the function gives something else than it did.
        Cost: a look-up, and about 200 bytes for each key; ``ThermalDict.open(regrow=...)`` takes none. Threads: safe.

        >>> from spectral_alloc import ThermalDict
        >>> with ThermalDict.open() as d:
        ...     d["squares"] = [number * number for number in range(1000)]
        ...     d.regrow("squares", lambda count: [number * number for number in range(count)], 1000)
        ...     d.demote("squares"), d["squares"][30]
        (<Residency.REGROWN: 'regrown'>, 900)
        """
        checked_recipe(function)
        regrowth = self._grown()
        journal = self._journal
        if isinstance(journal, Journal):
            journal.check_recipe(function, args)
        recipe = regrowth.make_recipe(key, function, args)
        try:
            cell = self._find(key)
        except KeyError:
            regrowth.wait_for(key, recipe)
            return
        # What C code put into the table behind our back never moves, and needs no recipe.
        tiers = self._tiers
        # In a log an older recipe may stand for the value, which must come back by that one first.
        while cell is not None and (
            tiers.ledger.whereabouts(cell)[0] == "recipe" or not regrowth.assign(cell, recipe)
        ):
            tiers.load(cell, key, insist=True)
        if journal is not None and cell is not None:
            journal.touch(cell, key)

    def _grown(self) -> Regrowth:
        """The recipes of this dict, from now on if it had none."""
        if self._regrowth is None:
            made = Regrowth(self._settings.regrow, self._settings.regrow_always)
            made.attach(self, self._reference)  # type: ignore[arg-type]  # self is a ThermalDict
            if self._has_tiers:
                self._tiers.serve_recipes(self._regrowth)
        assert self._regrowth is not None
        return self._regrowth

    def _take_recipes(self, recipes: Recipes) -> None:
        """Take over recipes for single keys, of another dict or of a pickle."""
        for key, function, args in recipes:
            self.regrow(key, function, *args)

    def _recipes(self) -> tuple[tuple[Any, Callable[..., Any], tuple[Any, ...]], ...]:
        """The recipes for single keys."""
        return () if self._regrowth is None else tuple(self._regrowth.recipe_list())
