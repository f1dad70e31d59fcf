"""Edits in place of a durable dict are found, whatever the value was before and whatever a commit does meanwhile."""

import pytest
from simulated import ROOT, SimulatedFileSystem

from spectral_alloc import ThermalDict

PATH = ROOT + "/d"


@pytest.mark.parametrize("demotions", [1, 2], ids=["warm", "parked"])
def test_an_edit_of_what_took_the_place_of_an_immutable_value_is_found(demotions: int) -> None:
    """A list that replaced a string and left RAM before its commit is still looked at by the next sync, here and in a
    reopened dict."""
    disk = SimulatedFileSystem()
    with ThermalDict.open(PATH, file_system=disk) as subject:
        subject["k"] = "text"
        subject.sync()
        subject["k"] = list(range(100))
        for _ in range(demotions):
            subject.demote("k")
        subject.sync()
        subject["k"].append("edit")
        subject.sync()
        subject["k"].append("last")
    with ThermalDict.open(PATH, file_system=disk) as again:
        assert again["k"][100:] == ["edit", "last"]
        again["k"].append("later")
    with ThermalDict.open(PATH, file_system=disk, readonly=True) as left:
        assert left["k"] == [*range(100), "edit", "last", "later"]


def test_edits_of_values_that_a_transaction_pushed_out_are_found() -> None:
    """The same under a memory limit, where values leave by themselves."""
    disk = SimulatedFileSystem()
    with ThermalDict.open(PATH, file_system=disk, memory_limit="20 kB") as subject:
        subject.update(dict.fromkeys(range(100), "text"))
        subject.sync()
        with subject.transaction():
            subject.update((number, list(range(1000, 1100))) for number in range(100))
        for number in range(100):
            subject[number].append("edit")
        subject.update((number, list(range(100))) for number in range(200, 300))
        assert [number for number in range(100) if subject[number][-1] != "edit"] == []
    with ThermalDict.open(PATH, file_system=disk, readonly=True) as left:
        assert [number for number in range(100) if left[number][-1] != "edit"] == []
