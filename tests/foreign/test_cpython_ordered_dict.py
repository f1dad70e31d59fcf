"""Those of the installed CPython's tests of OrderedDict which a dict passes, run against ThermalDict."""

import unittest
from typing import Any

import pytest

ordered = pytest.importorskip("test.test_ordered_dict", reason="this Python came without its test suite")

from tiny import Tiny  # noqa: E402

from spectral_alloc import ThermalDict  # noqa: E402 (the import above may skip the module)


def case(subject: type, name: str) -> unittest.TestCase:
    """One test of OrderedDictTests with ``subject`` in place of OrderedDict."""
    body: dict[str, Any] = {"OrderedDict": subject, "module": __import__(subject.__module__)}
    return type("OrderTests", (ordered.OrderedDictTests, unittest.TestCase), body)(name)


def dict_passes(name: str) -> bool:
    """Whether the builtin dict passes the test, so that it is about order and not about OrderedDict's extras."""
    result = unittest.TestResult()
    case(dict, name).run(result)
    return result.wasSuccessful() and not result.skipped


ALL_TESTS = [name for name in dir(ordered.OrderedDictTests) if name.startswith("test")]
ORDER_TESTS = [name for name in ALL_TESTS if dict_passes(name)]
CPYTHON_SELECTION = [name for name in dir(ordered.CPythonBuiltinDictTests) if name.startswith("test")]


def test_the_selection_contains_that_of_cpython() -> None:
    """The tests that CPython itself runs against dict are all among those run here."""
    assert len(CPYTHON_SELECTION) >= 13
    assert set(CPYTHON_SELECTION) <= set(ORDER_TESTS)


@pytest.mark.parametrize("name", ORDER_TESTS)
@pytest.mark.parametrize("subject", [ThermalDict, Tiny])
def test_order(subject: type, name: str) -> None:
    """A test about insertion order that dict passes, passes."""
    result = unittest.TestResult()
    case(subject, name).run(result)
    problems = [text for _, text in result.failures + result.errors]
    assert problems == [], problems[0]
