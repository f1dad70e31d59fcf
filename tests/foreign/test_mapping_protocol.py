"""CPython's own tests of the mapping protocol, as dict passes them, against ThermalDict."""

import pytest

mapping_tests = pytest.importorskip("test.mapping_tests", reason="this Python came without its test suite")

from tiny import Tiny  # noqa: E402

from spectral_alloc import ThermalDict  # noqa: E402 (the import above may skip the module)


class TestBasicThermal(mapping_tests.BasicTestMappingProtocol):
    """The basic protocol holds with everything in RAM."""

    type2test = ThermalDict


class TestMappingThermal(mapping_tests.TestMappingProtocol):
    """The mapping protocol holds with everything in RAM."""

    type2test = ThermalDict


class TestHashMappingThermal(mapping_tests.TestHashMappingProtocol):
    """The hash mapping protocol holds with everything in RAM."""

    type2test = ThermalDict


class TestBasicTiny(mapping_tests.BasicTestMappingProtocol):
    """The basic protocol holds when every value leaves at once."""

    type2test = Tiny


class TestMappingTiny(mapping_tests.TestMappingProtocol):
    """The mapping protocol holds when every value leaves at once."""

    type2test = Tiny


class TestHashMappingTiny(mapping_tests.TestHashMappingProtocol):
    """The hash mapping protocol holds when every value leaves at once."""

    type2test = Tiny


@pytest.mark.parametrize("protocol", ["BasicTestMappingProtocol", "TestMappingProtocol", "TestHashMappingProtocol"])
def test_every_protocol_runs_against_both(protocol: str) -> None:
    """Each of CPython's protocol classes has a subclass here for ThermalDict and one for the tiny dict."""
    base = getattr(mapping_tests, protocol)
    direct = [c for c in globals().values() if isinstance(c, type) and base in c.__bases__]
    assert {c.type2test for c in direct} == {ThermalDict, Tiny}
