"""The installed CPython's own tests of dict, run with ThermalDict wherever they say dict."""

import pytest

pytest.importorskip("test.test_dict", reason="this Python came without its test suite")

import dict_suite
from tiny import Tiny

from spectral_alloc import ThermalDict

# test -> why it cannot hold for any subclass of dict; everything else of DictTest runs
EXCLUDED = {
    "test_track_literals": "which exact dicts the collector need not track is an internal of CPython",
    "test_track_dynamic": "which exact dicts the collector need not track is an internal of CPython",
    "test_store_evilattr": "obj.__dict__ = d: attribute access uses C functions that no subclass of dict can override",
}
# CPython 3.13 is the first with these
SINCE_3_13 = {"test_store_evilattr"}

DictTestThermal = dict_suite.load("test.test_dict", ThermalDict, "DictTest", EXCLUDED)
DictTestTiny = dict_suite.load("test.test_dict", Tiny, "DictTest", EXCLUDED)


@pytest.mark.parametrize("name", sorted(EXCLUDED))
def test_no_excluded_name_is_stale(name: str) -> None:
    """Every excluded test exists in the suite of this Python, or is known to be newer than it."""
    source, _ = dict_suite.suite_source("test.test_dict")
    assert f"def {name}(" in source or name in SINCE_3_13


def test_the_substitution_reaches_the_tests() -> None:
    """Almost all tests of the suite were rewritten: a silent change of its form would otherwise test plain dict."""
    running = [name for name in dir(DictTestThermal) if name.startswith("test") and getattr(DictTestThermal, name)]
    assert len(running) >= 70


def test_the_rewritten_suite_passes_with_dict_itself() -> None:
    """With dict as the subject the rewritten suite passes: a failure of ours is then a failure of ours."""
    import unittest

    control = dict_suite.load("test.test_dict", dict, "DictTest", [])
    names = [name for name in dir(control) if name.startswith("test") and getattr(control, name)]
    result = unittest.TestResult()
    unittest.TestSuite(control(name) for name in names).run(result)
    assert [test.id() for test, _ in result.failures + result.errors] == []
