"""CPython's test.test_dict with every dict display, comprehension and ``dict`` name replaced by another class."""

import ast
import importlib.util
import sys
import types
import unittest
from collections.abc import Callable, Iterable
from typing import Any

SUBJECT = "_subject_"
DISPLAY = "_display_"
COMPREHENSION = "_comprehension_"


def suite_source(module_name: str) -> tuple[str, str]:
    """The source text and the path of an installed module, without importing it."""
    spec = importlib.util.find_spec(module_name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{module_name} is not installed")
    with open(spec.origin, encoding="utf-8") as file:
        return file.read(), spec.origin


class Substitution(ast.NodeTransformer):
    """Rewrites one module; ``count`` is the number of replacements made so far.

    The second argument of assertEqual and assertNotEqual keeps its display, so that subject and dict are compared.
    """

    def __init__(self) -> None:
        self.count = 0

    def _call(self, name: str, argument: ast.expr, old: ast.expr) -> ast.expr:
        self.count += 1
        return ast.copy_location(ast.Call(ast.Name(name, ast.Load()), [argument], []), old)

    def visit_Dict(self, node: ast.Dict) -> ast.expr:
        """A display becomes a list of pairs; ``**other`` becomes a pair whose first item is the class itself."""
        pairs: list[ast.expr] = []
        for key, value in zip(node.keys, node.values, strict=True):
            first = ast.Name(SUBJECT, ast.Load()) if key is None else self.visit(key)
            pairs.append(ast.Tuple([first, self.visit(value)], ast.Load()))
        return self._call(DISPLAY, ast.List(pairs, ast.Load()), node)

    def visit_DictComp(self, node: ast.DictComp) -> ast.expr:
        """A comprehension becomes a generator of pairs."""
        self.generic_visit(node)
        pair = ast.Tuple([node.key, node.value], ast.Load())
        return self._call(COMPREHENSION, ast.GeneratorExp(pair, node.generators), node)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """The builtin's name becomes the subject's."""
        if node.id != "dict" or not isinstance(node.ctx, ast.Load):
            return node
        self.count += 1
        return ast.copy_location(ast.Name(SUBJECT, ast.Load()), node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Expected values written as displays stay dicts."""
        function = node.func
        compares = isinstance(function, ast.Attribute) and function.attr in ("assertEqual", "assertNotEqual")
        kept = node.args[1] if compares and len(node.args) > 1 and isinstance(node.args[1], ast.Dict) else None
        self.generic_visit(node)
        if kept is not None:
            original = ast.parse(ast.unparse(kept), mode="eval").body if self._untouched(kept) else None
            if original is not None:
                node.args[1] = ast.copy_location(original, node)
                self.count -= 1
        return node

    @staticmethod
    def _untouched(display: ast.Dict) -> bool:
        """Whether nothing inside the display was itself replaced."""
        return not any(isinstance(n, ast.Name) and n.id == SUBJECT for n in ast.walk(display))


def load(module_name: str, subject: type, class_name: str, excluded: Iterable[str]) -> type[unittest.TestCase]:
    """The test class of the module with ``subject`` for dict, without the excluded tests and those without a dict."""
    source, path = suite_source(module_name)
    tree = ast.parse(source, path)
    without_dict = substitute(tree, class_name)
    module = types.ModuleType(f"{module_name} with {subject.__name__}")
    vars(module).update({SUBJECT: subject, DISPLAY: display_of(subject), COMPREHENSION: comprehension_of(subject)})
    sys.modules[module.__name__] = module
    exec(compile(ast.fix_missing_locations(tree), path, "exec"), vars(module))
    original = getattr(module, class_name)
    body: dict[str, Any] = dict.fromkeys([*excluded, *without_dict])
    return type(f"{class_name}_{subject.__name__}", (original,), body)


def substitute(tree: ast.Module, class_name: str) -> list[str]:
    """Rewrite the tree; return the class's tests in which, and in whose helpers, there was nothing to replace."""
    rewritten, tests = set(), {}
    for statement in tree.body:
        transformer = Substitution()
        if not isinstance(statement, ast.ClassDef):
            transformer.visit(statement)
            continue
        for function in statement.body:
            before = transformer.count
            transformer.visit(function)
            if statement.name != class_name or not isinstance(function, ast.FunctionDef):
                continue
            if transformer.count > before:
                rewritten.add(function.name)
            elif function.name.startswith("test"):
                tests[function.name] = {n.attr for n in ast.walk(function) if isinstance(n, ast.Attribute)}
    return [name for name, used in tests.items() if not used & rewritten]


def display_of(subject: type) -> Callable[[list[tuple[Any, Any]]], Any]:
    """Fills an instance pair by pair as a display does: each key is hashed once."""

    def display(pairs: list[tuple[Any, Any]]) -> Any:
        result = subject()
        for key, value in pairs:
            if key is subject:
                result.update(value)
            else:
                result[key] = value
        return result

    return display


def comprehension_of(subject: type) -> Callable[[Iterable[tuple[Any, Any]]], Any]:
    """Fills an instance as a comprehension does, while the generator runs."""

    def comprehension(pairs: Iterable[tuple[Any, Any]]) -> Any:
        result = subject()
        for key, value in pairs:
            result[key] = value
        return result

    return comprehension
