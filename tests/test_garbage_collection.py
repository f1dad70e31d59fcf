"""The garbage collector and a thermal dict: it finds what only the dict holds, and leaves what the program holds."""

import gc
import weakref
from typing import Any

import pytest

from spectral_alloc import ThermalDict


@pytest.mark.parametrize("place", ["value", "key"])
def test_a_cycle_through_a_dict_that_held_only_atoms_is_collected(place: str) -> None:
    """The collector skips a dict of atoms, and looks again once something else was written to it."""

    class Holder:
        """Hashable, and refers to the dict that holds it."""

    d = ThermalDict((f"key {number}", number) for number in range(100))
    gc.collect()
    holder = Holder()
    holder.owner = d
    if place == "value":
        d["key 5"] = holder
    else:
        d[holder] = 1
    reference = weakref.ref(holder)
    del d, holder
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("how", ["hot", "pinned", "among cold ones", "raw", "popped behind its back"])
def test_the_collector_finds_values_wherever_their_cells_are(how: str) -> None:
    """A value that refers to its dict is collected with it, and one that the program holds is left as it is."""

    class Owner(list):
        """A list that weak references can follow."""

    d: ThermalDict[str, Any] = ThermalDict.open(memory_limit=200_000)
    held = [d]
    d["held"] = held
    mine = Owner([d])
    if how == "raw":
        dict.__setitem__(d, "mine", mine)
    else:
        d["mine"] = mine
    if how == "pinned":
        d.pin("mine")
    if how == "popped behind its back":
        dict.pop(d, "held")
    if how == "among cold ones":
        for number in range(3000):
            d[f"key {number}"] = [number] * 20
        assert d.stats().cold_entries > 0
    references = weakref.ref(mine), weakref.ref(d)
    del d, mine
    gc.collect()
    assert held[0] is references[1]()
    del held
    gc.collect()
    assert [reference() for reference in references] == [None, None]
