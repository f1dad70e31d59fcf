"""The stubs of the compiled modules name what is there, with the parameters that it has."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import pytest

STUBS = sorted((Path(__file__).resolve().parent.parent / "spectral_alloc").glob("*.pyi"))
by_stub = pytest.mark.parametrize("stub", STUBS, ids=lambda path: path.stem)
Parameters = list[tuple[str, Any, bool]]


def parsed(stub: Path) -> tuple[list[ast.stmt], Any]:
    """The statements of a stub, and the module that it describes."""
    return ast.parse(stub.read_text(encoding="utf-8")).body, importlib.import_module(f"spectral_alloc.{stub.stem}")


def is_comparable(statement: ast.stmt) -> TypeGuard[ast.FunctionDef]:
    """Whether it is a function whose parameters CPython can show: special methods of compiled classes have none."""
    is_function = isinstance(statement, ast.FunctionDef)
    return is_function and not statement.decorator_list and not statement.name.startswith("__")


def stub_parameters(function: ast.FunctionDef) -> Parameters:
    """(name, kind, has a default) of every parameter that a stub gives a function."""
    made = ast.FunctionDef(**{field: getattr(function, field, None) for field in function._fields})
    made.decorator_list, made.returns = [], None
    space: dict[str, Any] = {}
    tree = ast.Module([ast.ImportFrom("__future__", [ast.alias("annotations")], 0), made], [])
    exec(compile(ast.fix_missing_locations(tree), "stub", "exec"), space)
    return parameters(space[function.name])


def parameters(function: Any) -> Parameters:
    """The same of a function that exists."""
    found = inspect.signature(function).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default is not parameter.empty) for parameter in found]


def described(body: list[ast.stmt], owner: Any) -> Iterator[tuple[str, ast.stmt, Any]]:
    """(name, statement, the thing or None) of what a stub declares in a module or class; types of its own left out."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement.name, statement, inspect.getattr_static(owner, statement.name, None)
        elif isinstance(statement, ast.AnnAssign) and statement.value is None:
            name = ast.unparse(statement.target)
            yield name, statement, inspect.getattr_static(owner, name, None)


def differences(body: list[ast.stmt], owner: Any) -> Iterator[str]:
    """What a stub says of a module or class that is not so."""
    for name, statement, thing in described(body, owner):
        if thing is None:
            yield f"{name} is not in {owner!r}"
        elif isinstance(statement, ast.ClassDef):
            yield from differences(statement.body, thing)
        elif is_comparable(statement) and stub_parameters(statement) != parameters(thing):
            yield f"{name}{inspect.signature(thing)} has other parameters in the stub"


@by_stub
def test_what_a_stub_declares_exists(stub: Path) -> None:
    """Every name is in the compiled module, and every function has the stub's parameters, kinds and defaults."""
    assert list(differences(*parsed(stub))) == []


def undeclared(body: list[ast.stmt], owner: Any, inherited: tuple[type, ...]) -> Iterator[str]:
    """Public functions, methods and classes that were compiled here and that the stub does not have."""
    declared = {name: statement for name, statement, _ in described(body, owner)}
    for name, thing in vars(owner).items():
        is_own = getattr(thing, "__module__", owner.__name__) in (owner.__name__, getattr(owner, "__module__", None))
        if name.startswith("_") or not is_own or not callable(thing) or any(hasattr(base, name) for base in inherited):
            continue
        if name not in declared:
            yield f"{owner.__name__}.{name}"
        elif isinstance(thing, type):
            statement = declared[name]
            assert isinstance(statement, ast.ClassDef)
            yield from undeclared(statement.body, thing, thing.__bases__)


@by_stub
def test_what_is_compiled_is_declared(stub: Path) -> None:
    """No public function, class or method of a compiled module is missing in its stub."""
    assert list(undeclared(*parsed(stub), ())) == []


def test_a_wrong_stub_is_found() -> None:
    """A name too many, a missing default, another kind and another name of a parameter are each reported."""
    module = importlib.import_module("spectral_alloc._frame")
    wrong = (
        "def crc33c(data): ...",
        "def crc32c(data, crc, portable=False): ...",
        "def crc32c(data, /, crc=0, portable=False): ...",
        "def crc32c(data, sum=0, portable=False): ...",
        "VERSION: int",
    )
    for line in wrong:
        assert len(list(differences(ast.parse(line).body, module))) == 1, line
    assert "spectral_alloc._frame.crc32c" in set(undeclared([], module, ()))
