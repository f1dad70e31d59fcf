"""Which functions of a module are cases."""

from collections.abc import Callable
from types import ModuleType


def cases_of(module: ModuleType) -> dict[str, Callable[[], None]]:
    """Name -> function of the cases that a module defines."""
    return {name: thing for name, thing in vars(module).items() if name.startswith(("case_", "alone_"))}
