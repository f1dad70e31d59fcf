"""Edits in place of a durable dict are found, whatever the value was before and whatever a commit does meanwhile."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from simulated import ROOT, SimulatedFileSystem

from spectral_alloc import ThermalDict
from spectral_alloc.file_system import Buffer

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


class SlowDisk(SimulatedFileSystem):
    """A disk that, when told to, waits in the middle of the next write of one thread."""

    def __init__(self) -> None:
        super().__init__()
        self.slow_thread = ""
        self.inside, self.go_on = threading.Event(), threading.Event()

    def write_some(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Write, after a wait perhaps."""
        if threading.current_thread().name == self.slow_thread:
            self.slow_thread = ""
            self.inside.set()
            assert self.go_on.wait(60)
        return super().write_some(fd, buffers, offset)

    @contextmanager
    def during(self, action: Callable[[], object]) -> Iterator[None]:
        """The block runs while another thread is inside a write of an action, which then goes on."""
        self.inside.clear()
        self.go_on.clear()
        self.slow_thread = "slow"
        thread = threading.Thread(target=action, name="slow")
        thread.start()
        assert self.inside.wait(60)
        yield
        self.go_on.set()
        thread.join()


def append(found: list[int]) -> None:
    """An edit that changes the length of the frame."""
    found.append(7)


def replace(found: list[int]) -> None:
    """An edit that does not."""
    found[0] = 9


@pytest.mark.parametrize("demotions_before", [0, 1, 2], ids=["hot", "warm", "parked"])
@pytest.mark.parametrize("is_demoted", [False, True], ids=["stays", "leaves"])
@pytest.mark.parametrize("edit", [append, replace])
@pytest.mark.parametrize("aliasing", ["exact", "copy"])
def test_an_edit_beside_a_commit_is_kept(
    edit: Callable[[list[int]], None], demotions_before: int, is_demoted: bool, aliasing: Any
) -> None:
    """What is read, edited and pushed out while a commit writes it is what is read afterwards, and what the next
    commit writes."""
    disk = SlowDisk()
    subject: Any = ThermalDict.open(PATH, file_system=disk, codec="raw", aliasing=aliasing)
    subject["k"] = list(range(300))
    for _ in range(demotions_before):
        subject.demote("k")
    with disk.during(subject.sync):
        edit(subject["k"])
        if is_demoted:
            subject.demote("k")
    wanted = list(range(300))
    edit(wanted)
    subject.demote("k")
    subject.demote("k")
    assert subject["k"] == wanted
    subject.demote("k")
    subject.check()
    subject.close()
    with ThermalDict.open(PATH, file_system=disk, readonly=True) as left:
        assert left["k"] == wanted


class CheckedDisk(SimulatedFileSystem):
    """A disk on which check() may begin before a file is removed, and goes on when its remover is done."""

    def __init__(self) -> None:
        super().__init__()
        self.remover: threading.Thread | None = None
        self.removing, self.checking = threading.Event(), threading.Event()

    def remove(self, path: str) -> None:
        """Remove a file, after check() has begun if it does not wait for this."""
        if self.remover is not None:
            self.removing.set()
            self.checking.wait(0.2)
        super().remove(path)

    def size(self, fd: int) -> int:
        """The size of a file."""
        if self.remover is not None:
            self.checking.set()
            self.remover.join()
        return super().size(fd)


def test_check_stands_segments_that_go_meanwhile() -> None:
    """A compaction that lets its victims go while check() begins has done so before check() looks, or does it after."""
    disk = CheckedDisk()
    subject: Any = ThermalDict.open(PATH, file_system=disk)
    log = subject._journal.log
    for turn in range(2):
        subject.update((number, [turn]) for number in range(10))
        log.seal()
        subject._journal.commit()
    assert any(segment.is_dead() for segment in log.log_segments)
    disk.remover = threading.Thread(target=log.sync)
    disk.remover.start()
    assert disk.removing.wait(60)
    subject.check()
    assert not any(segment.is_dead() for segment in log.log_segments)
    subject.close()
