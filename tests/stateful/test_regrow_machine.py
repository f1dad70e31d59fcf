"""ThermalDict with recipes against dict: whatever a program does, it cannot tell that values are not kept."""

from typing import Any, ClassVar

import machine
import recipes
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test


class RegrownMachine(machine.ThermalDictMachine):
    """Values of nested builtin containers, many of which have a recipe, right or wrong."""

    values = recipes.BUILTINS
    opened_with: ClassVar[dict[str, Any]] = {"regrow_always": True}
    total_regrown: ClassVar[int] = 0

    @rule(which=machine.WHICH, key=machine.KEYS, data=st.data(), is_right=st.integers(0, 3))
    def assign_what_can_be_regrown(self, which: int, key: Any, data: st.DataObject, is_right: int) -> None:
        """d[key] = value; d.regrow(key, ...) with a recipe that gives an equal value, or sometimes another."""
        plan = data.draw(self.values)
        pair = self._build(plan)
        self._both(lambda side: self.dicts[which][side].__setitem__(key, pair[side]))
        given = plan if is_right else data.draw(self.values)
        self.dicts[which][0].regrow(key, lambda: recipes.Builder(0, []).build(given))

    @rule(which=machine.WHICH, index=machine.INDEX, data=st.data())
    def regrow_what_is_there(self, which: int, index: int, data: st.DataObject) -> None:
        """d.regrow of a key that is present, wherever its value is: its value must not change"""
        key = self._present(which, index)
        if key in self.dicts[which][1]:
            plan = data.draw(self.values)
            self.dicts[which][0].regrow(key, lambda: recipes.Builder(0, []).build(plan))

    def teardown(self) -> None:
        """As ever; and how many values came back from a recipe."""
        type(self).total_regrown += sum(subject.stats().hits_regrown for subject, _ in self.dicts)
        super().teardown()


def test_a_program_cannot_tell_that_values_are_regrown() -> None:
    """Contents, order, sharing, edits through old references and errors are those of dict after every step."""
    RegrownMachine.total_regrown = 0
    run_state_machine_as_test(RegrownMachine, settings=settings(max_examples=settings().max_examples * 3 // 5))
    assert RegrownMachine.total_regrown > 0, "no value was ever regrown: the machine tested nothing"
