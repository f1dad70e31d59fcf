"""ThermalDict against dict: whatever a program does, it cannot tell the difference."""

from typing import Any, ClassVar

import machine
import pytest
import recipes
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test


class BuiltinsMachine(machine.ThermalDictMachine):
    """Values of nested builtin containers."""

    values = recipes.BUILTINS


class InstancesMachine(machine.ThermalDictMachine):
    """Values of instances, good and evil."""

    values = recipes.INSTANCES


class BuffersMachine(machine.ThermalDictMachine):
    """Values that own memory of their own: bytearrays, arrays, numpy arrays."""

    values = recipes.BUFFERS


@pytest.mark.parametrize("kind", [BuiltinsMachine, InstancesMachine, BuffersMachine], ids=lambda kind: kind.__name__)
def test_a_program_cannot_tell(kind: type[machine.ThermalDictMachine]) -> None:
    """Contents, order, sharing, edits through old references and errors are those of dict after every step."""
    kind.total_demotions = kind.total_promotions = 0
    run_state_machine_as_test(kind)
    assert kind.total_demotions > 0, "no value ever left RAM: the machine tested nothing"
    assert kind.total_promotions > 0, "no value ever came back: the machine tested nothing"


@pytest.mark.parametrize("kind", [BuiltinsMachine, InstancesMachine, BuffersMachine], ids=lambda kind: kind.__name__)
def test_the_machine_finds_lost_edits(kind: type[machine.ThermalDictMachine]) -> None:
    """With aliasing="copy", where an edit through an old reference may be lost, the machine notices one."""

    class CopyingMachine(kind):  # type: ignore[misc, valid-type]  # the base is a parameter
        opened_with: ClassVar[dict[str, Any]] = {"aliasing": "copy"}

    search = settings(max_examples=100, phases=[Phase.generate], database=None, report_multiple_bugs=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(CopyingMachine, settings=search)
