"""A durable dict that runs out of memory, at any allocation: what is there is what the log gets in the end."""

from collections.abc import Callable
from typing import Any

import pytest
from simulated import ROOT, SimulatedFileSystem

from spectral_alloc import ThermalDict

PATH = ROOT + "/d"
testcapi = pytest.importorskip("_testcapi")


def run_short_of_memory(action: Callable[[], object], allocation: int) -> bool:
    """Do something while one allocation fails; did that raise MemoryError?"""
    try:
        testcapi.set_nomemory(allocation, allocation + 1)
        action()
    except MemoryError:
        return True
    finally:
        testcapi.remove_mem_hooks()
    return False


def assert_log_has(subject: Any, disk: SimulatedFileSystem) -> None:
    """What the next process finds is what this one has."""
    live = list(subject.items())
    subject.close()
    with ThermalDict.open(PATH, file_system=disk, readonly=True) as left:
        assert list(left.items()) == live


def test_a_commit_that_runs_out_of_memory_loses_nothing(long_mode: bool) -> None:
    """Whichever allocation of a sync() fails, the next one commits what it should have."""
    for allocation in range(400 if long_mode else 120):
        disk = SimulatedFileSystem()
        subject: Any = ThermalDict.open(PATH, file_system=disk)
        subject.update((number, [number]) for number in range(40))
        subject.sync()
        subject[7].append("in place")
        subject.update((number, {"n": number}) for number in range(20, 50))
        del subject[3]
        subject.demote(25)
        run_short_of_memory(subject.sync, allocation)
        assert subject[7] == [7, "in place"]
        assert_log_has(subject, disk)


@pytest.mark.parametrize("residency", [0, 1, 2], ids=["hot", "warm", "cold"])
def test_a_write_that_runs_out_of_memory_is_noted_or_not_made(residency: int) -> None:
    """Whichever allocation of a write fails, the log gets what the dict has then."""
    raised = 0
    for allocation in range(30):
        disk = SimulatedFileSystem()
        subject: Any = ThermalDict.open(PATH, file_system=disk)
        subject.update((number, [number] * 50) for number in range(4))
        subject.sync()
        for key in range(4):
            for _ in range(residency):
                subject.demote(key)
        actions: list[Callable[[], object]] = [
            lambda subject=subject: subject.__setitem__(0, ["new"]),
            lambda subject=subject: subject.__setitem__("new", ["new"]),
            lambda subject=subject: subject.pop(1),
            lambda subject=subject: subject.__delitem__(2),
        ]
        for action in actions:
            raised += run_short_of_memory(action, allocation)
        raised += run_short_of_memory(subject.clear, allocation) if allocation % 2 else 0
        assert_log_has(subject, disk)
    assert raised
