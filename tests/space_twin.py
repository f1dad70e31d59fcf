"""The twin of the function in plain Python (tools/space_vectors.py), for tests that compare the library with it."""

import importlib.util
from pathlib import Path
from types import ModuleType

TOOL = Path(__file__).resolve().parent.parent / "tools" / "space_vectors.py"


def load_twin() -> ModuleType:
    """The program as a module."""
    specification = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


twin = load_twin()
EDGES = (0, 1, 2**11 - 1, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)
KINDS = ("float64", "float32", "uint64", "normal", range(-5, 6), range(-(2**63), 2**63), range(2**63 - 1))


def expected(values: str | range, key: tuple[int, int, int], address: int) -> float | int:
    """What the twin says stands at an address."""
    if isinstance(values, range):
        return twin.number(key, address, values.start, values.stop - values.start)
    functions = {"float64": twin.float64, "float32": twin.float32, "uint64": twin.mix, "normal": twin.normal}
    return functions[values](key, address)
