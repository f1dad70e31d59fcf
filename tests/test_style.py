"""The limits on size, the docstrings, and the examples: what the README, the docs and the docstrings show does run."""

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("spectral_alloc", "cython_ext", "tests", "tools", "demos", "benchmarks", "docs", ".ci")
LINES_MAX = {".py": 500, ".pyi": 500, ".pyx": 500, ".pxd": 500, ".c": 600, ".h": 600}
FUNCTION_LINES_MAX = 70
TEXT = {*LINES_MAX, ".md", ".toml", ".sh", ""}
# the classes in brackets keep these two lines from finding themselves
UNFINISHED = re.compile(r"\b(T[O]DO|F[I]XME|X[X]X)\b")
HOME = re.compile(r"/(h[o]me|r[o]ot|U[s]ers)/\w")
FENCED = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
C_FUNCTION = re.compile(r"[a-zA-Z][^;=]*\([^;]*$")
CYTHON_FUNCTION = re.compile(r"( *)(?:async def|def|cdef (?!class|extern|enum|struct)[^=(]*\b\w+(?=\()|cpdef )")


def sources() -> Iterator[Path]:
    """Every text file of the project."""
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT and path.name[0] != ".")
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts:
                yield path


FILES = [path for path in sources() if path.name not in ("LICENSE", ".coverage")]
PYTHON = [path for path in FILES if path.suffix == ".py"]
MODULES = sorted(path.stem for path in (ROOT / "spectral_alloc").glob("*.py*") if path.suffix in (".py", ".pyi"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def name_of(path: Path) -> str:
    """The path as test ids show it."""
    return str(path.relative_to(ROOT))


def by_file(paths: list[Path]) -> pytest.MarkDecorator:
    """One test for each file."""
    return pytest.mark.parametrize("path", paths, ids=name_of)


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method in a file, also nested ones."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_there_is_something_to_look_at() -> None:
    """The lists of files below are not empty by mistake."""
    assert len(FILES) > 100
    assert len(PYTHON) > 50
    assert {"thermal_dict", "_thermal", "__init__"} <= set(MODULES)


@by_file(FILES)
def test_a_file_is_short_finished_and_at_home_anywhere(path: Path) -> None:
    """No file is longer than its kind may be, leaves something open, or names a folder of somebody's machine."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LINES_MAX.get(path.suffix, 1_000)
    assert [line for line in lines if UNFINISHED.search(line) or HOME.search(line)] == []


@by_file(PYTHON)
def test_a_python_function_is_short(path: Path) -> None:
    """No function is longer than 70 lines, its docstring included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions(tree)}
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES_MAX} == {}


def c_functions(lines: list[str]) -> Iterator[tuple[str, int]]:
    """(first line, number of lines) of every function: from its name in the first column to a brace there."""
    start = 0
    for number, line in enumerate(lines):
        if C_FUNCTION.match(line):
            start = number
        elif line == "}":
            yield lines[start], number - start + 1


def cython_functions(lines: list[str]) -> Iterator[tuple[str, int]]:
    """(first line, number of lines) of every function: up to the next line that is not indented deeper."""
    for start, line in enumerate(lines):
        head = CYTHON_FUNCTION.match(line)
        if head is None:
            continue
        size = 1
        for number, later in enumerate(lines[start + 1 :], start + 1):
            is_closing = later.strip().startswith(")")
            if later.strip() and not is_closing and len(later) - len(later.lstrip()) <= len(head[1]):
                break
            size = number - start + 1 if later.strip() else size
        yield line, size


@by_file([path for path in FILES if path.suffix in (".c", ".h", ".pyx")])
def test_a_c_or_cython_function_is_short(path: Path) -> None:
    """No function is longer than 70 lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = list((cython_functions if path.suffix == ".pyx" else c_functions)(lines))
    assert found or path.suffix == ".h"
    assert [item for item in found if item[1] > FUNCTION_LINES_MAX] == []


@by_file([path for path in PYTHON if path.name.startswith("test_")])
def test_a_test_says_what_must_hold(path: Path) -> None:
    """Every test has a docstring."""
    tests = [node for node in functions(ast.parse(path.read_text(encoding="utf-8"))) if node.name.startswith("test")]
    assert [test.name for test in tests if not ast.get_docstring(test)] == []


def undocumented(body: list[ast.stmt], inside: str = "") -> Iterator[str]:
    """Names of public functions, classes and methods without a docstring; setters share that of their property."""
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        marks = {ast.unparse(mark) for mark in node.decorator_list}
        if not ast.get_docstring(node) and not marks & {f"{node.name}.setter", "overload"}:
            yield f"{inside}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, f"{node.name}.")


@by_file([path for path in PYTHON if path.parent.name == "spectral_alloc"])
def test_what_is_public_is_documented(path: Path) -> None:
    """Every module, and every public function, class and method of the package, has a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert list(undocumented(tree.body)) == []


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    """Every example in a module's docstrings gives what it shows."""
    module = importlib.import_module("spectral_alloc" if name == "__init__" else f"spectral_alloc.{name}")
    assert doctest.testmod(module).failed == 0


@by_file(PAGES)
def test_examples_on_pages_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of Python on a page runs from top to bottom, and gives what it shows if it is a session."""
    monkeypatch.chdir(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert path.name != "README.md" or FENCED.search(text)
    space: dict[str, object] = {"__name__": path.stem}
    for block in FENCED.findall(text):
        if ">>>" not in block:
            exec(compile(block, str(path), "exec"), space)
    assert doctest.testfile(str(path), module_relative=False).failed == 0
