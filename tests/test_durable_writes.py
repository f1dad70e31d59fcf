"""A write of a durable dict has happened, in memory and on disk, or has not: whatever fails, whoever else writes."""

import errno
import random
import threading
from contextlib import suppress
from typing import Any

import pytest
from simulated import ROOT, SimulatedFileSystem

from spectral_alloc import ThermalDict

PATH = ROOT + "/d"
FULL = OSError(errno.ENOSPC, "injected")


def reopened(disk: SimulatedFileSystem) -> dict[Any, Any]:
    """What a process finds that opens the dict now."""
    with ThermalDict.open(PATH, file_system=disk, readonly=True) as left:
        return dict(left)


def always(disk: SimulatedFileSystem, **settings: Any) -> Any:
    """A dict whose writes are settled when they return."""
    return ThermalDict.open(PATH, file_system=disk, durability="always", **settings)


class BlockingDisk(SimulatedFileSystem):
    """A disk on which the next write of the thread "first" waits, and fails then."""

    def __init__(self) -> None:
        super().__init__()
        self.is_blocking = False
        self.inside, self.go_on = threading.Event(), threading.Event()

    def write_some(self, fd: int, buffers: Any, offset: int) -> int:
        """Write, or wait and fail."""
        if self.is_blocking and threading.current_thread().name == "first":
            self.is_blocking = False
            self.inside.set()
            assert self.go_on.wait(60)
            raise FULL
        return super().write_some(fd, buffers, offset)


def test_what_was_not_written_is_not_undone() -> None:
    """A KeyError, or Ctrl-C before a write, leaves nothing that a later failing write of the thread would undo."""
    disk = SimulatedFileSystem()
    subject = always(disk)
    with pytest.raises(KeyError):
        del subject["k"]
    with subject.transaction():
        subject["k"] = "committed"
    disk.disk_bytes = 0
    with pytest.raises(OSError, match="No space"):
        subject["big"] = random.Random(1).randbytes(100_000)
    disk.heal()
    assert dict(subject) == {"k": "committed"}
    subject.close()
    assert reopened(disk) == {"k": "committed"}


@pytest.mark.parametrize("limit", ["1 MB", 0], ids=["hot", "cold"])
@pytest.mark.parametrize("second", ["set", "delete", "clear"])
@pytest.mark.parametrize("is_there", [True, False], ids=["old", "new"])
def test_a_failing_write_leaves_the_later_one_of_another_thread(limit: Any, second: str, is_there: bool) -> None:
    """When the first of two writes of a key fails, what the second put there stays, in memory and on disk."""
    disk = BlockingDisk()
    subject = always(disk, memory_limit=limit)
    if is_there:
        subject["k"] = ["old"] * 50
    failures: list[OSError] = []

    def write_first() -> None:
        try:
            subject["k"] = ["one"] * 50
        except OSError as error:
            failures.append(error)

    def write_second() -> None:
        if second == "set":
            subject["k"] = ["two"] * 50
        elif second == "delete":
            del subject["k"]
        else:
            subject.clear()

    disk.is_blocking = True
    threads = [threading.Thread(target=write_first, name="first"), threading.Thread(target=write_second)]
    threads[0].start()
    assert disk.inside.wait(60)
    threads[1].start()
    threads[1].join(0.2)  # it cannot be settled before the first one has failed
    disk.go_on.set()
    for thread in threads:
        thread.join()
    assert len(failures) == 1
    wanted = {"k": ["two"] * 50} if second == "set" else {}
    assert dict(subject) == wanted
    assert not subject._journal.pending
    subject.check()
    subject.close()
    assert reopened(disk) == wanted


def test_of_failing_writes_of_one_key_none_has_happened() -> None:
    """Each of two writes that fail, in either order, gives back what the key had before both."""
    for order in ((0, 1), (1, 0)):
        subject = always(SimulatedFileSystem())
        subject["k"] = "old"
        journal = subject._journal
        writes = []
        for value in ("one", "two"):
            write = journal.remember("k")
            journal.is_eager, wrote = False, journal.is_eager
            remembered = journal.remember
            journal.remember = lambda key, write=write: write
            subject["k"] = value
            journal.remember, journal.is_eager = remembered, wrote
            writes.append(write)
        for number in order:
            journal.withdraw(subject, [writes[number]])
        assert dict(subject) == {"k": "old"}
        assert not journal.pending
        subject.close()


@pytest.mark.parametrize("failure", [1, 2, 3])
def test_a_clear_that_fails_has_not_happened(failure: int) -> None:
    """Whichever operation of the disk refuses, all entries are there again, in their order."""
    disk = SimulatedFileSystem()
    subject = always(disk)
    wanted = {number: [number] * 20 for number in range(40)}
    subject.update(wanted)
    for number in range(0, 40, 3):
        subject.demote(number)
        subject.demote(number)
    disk.fail_at(failure, FULL, times=10)
    try:
        subject.clear()
    except OSError:
        assert list(subject.items()) == list(wanted.items())
    else:
        wanted = {}
    disk.heal()
    subject.check()
    subject.close()
    assert reopened(disk) == wanted


@pytest.mark.parametrize("change", ["set", "delete", "pop", "clear", "undo", "touch"])
def test_the_key_of_an_entry_stays_what_it_is(change: str) -> None:
    """An equal key of another type changes or removes the entry of the key that is there, in the log too."""
    disk = SimulatedFileSystem()
    with ThermalDict.open(PATH, file_system=disk) as subject:
        subject[1], subject[(1, 0)], subject["s"] = "a", "a", "a"
    with ThermalDict.open(PATH, file_system=disk) as subject:
        for key in (True, (True, False)):
            if change == "set":
                subject[key] = "b"
            elif change == "delete":
                del subject[key]
            elif change == "pop":
                assert subject.pop(key) == "a"
            elif change == "clear":
                subject[key] = subject["s"] = "b"
                subject.clear()
            elif change == "undo":
                with suppress(ZeroDivisionError), subject.transaction():
                    del subject[key]
                    raise ZeroDivisionError
            else:
                subject._journal.touch(subject._find(key), key)
        wanted = repr(dict(subject))
    with ThermalDict.open(PATH, file_system=disk, readonly=True) as left:
        assert repr(dict(left)) == wanted
        assert {type(key) for key in left} <= {int, str, tuple}


def test_clear_is_one_piece_under_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while frames are let go of comes after the whole of clear(), for the dict, its sums and its log."""
    disk = SimulatedFileSystem()
    subject: Any = ThermalDict.open(PATH, file_system=disk)
    with subject.transaction():
        for number in range(20):
            subject[number] = [number] * 100
            subject.demote(number)
            subject.demote(number)
        released = subject._journal.release

        def release(place: int, frame_bytes: int) -> None:
            released(place, frame_bytes)
            raise KeyboardInterrupt

        monkeypatch.setattr(subject._journal, "release", release)
        with pytest.raises(KeyboardInterrupt):
            subject.clear()
        monkeypatch.undo()
        assert dict(subject) == {}
    subject.check()
    subject["x"] = 1
    subject.close()
    assert reopened(disk) == {"x": 1}
