"""A durable dict: what is in it comes back, in order, with its heat; edits are found; transactions are whole."""

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from simulated import ROOT, SimulatedClock, SimulatedFileSystem

from spectral_alloc import ClosedError, CorruptFrameError, CorruptLogError, Residency, ThermalDict

PATH = ROOT + "/d"


def commits(subject: ThermalDict[Any, Any]) -> int:
    """How many batches were written."""
    journal: Any = subject._journal
    return int(journal.commit_count)


def test_order_survives_everything(tmp_path: Path) -> None:
    """Keys come back in the order of their insertion, after overwrites, deletions, compaction and several openings."""
    path, model = tmp_path / "d", {}
    for turn in range(4):
        with ThermalDict.open(path, segment_bytes=2000) as subject:
            assert list(subject) == list(model)
            for number in range(60):
                key = (number * 7 + turn) % 50
                if number % 5 == turn and key in model:
                    del subject[key], model[key]
                else:
                    subject[key] = model[key] = [turn, number]
            subject.sync()
            journal: Any = subject._journal
            journal.log.seal()
            tiers: Any = subject._tiers
            tiers.compact_segments(subject, {segment.number for segment in journal.log.log_segments})
            subject.check()
    with ThermalDict.open(path) as subject:
        assert list(subject.items()) == list(model.items())


def test_heat_and_tiers_come_back(tmp_path: Path) -> None:
    """After a close and an open, entries have their temperatures, and those that were in RAM return there by
    themselves."""
    path = tmp_path / "d"
    with ThermalDict.open(path) as subject:
        subject.update((number, [number]) for number in range(50))
        for _ in range(100):
            _ = subject[7]
        subject.sync()
        for number in range(10, 50):
            subject.demote(number)
        temperatures = {number: subject.temperature(number) for number in subject}
        places = {number: subject.where(number) for number in subject}
    assert temperatures[7] == "hot"
    with ThermalDict.open(path) as subject:
        assert {number: subject.temperature(number) for number in subject} == temperatures
        end_seconds = time.monotonic() + 20.0
        while subject.where(0) is not Residency.HOT and time.monotonic() < end_seconds:
            time.sleep(0.01)
        found = {number: subject.where(number) for number in subject}
        assert found == places
        assert subject[7] == [7]


def test_sync_of_an_unchanged_dict_writes_nothing(tmp_path: Path, long_mode: bool) -> None:
    """However many hot values there are, sync() compares them and writes nothing; an edited one is written alone."""
    count = 100_000 if long_mode else 5_000
    with ThermalDict.open(tmp_path / "d") as subject:
        subject.update((number, {"id": number, "tags": ["a"]}) for number in range(count))
        subject.sync()
        log: Any = subject._journal
        before = (commits(subject), log.log.written_bytes, log.log.sync_count)
        subject.sync()
        assert (commits(subject), log.log.written_bytes, log.log.sync_count) == before
        subject[count // 2]["tags"].append("b")
        written = log.log.write_count
        subject.sync()
        assert log.log.write_count == written + 1
    with ThermalDict.open(tmp_path / "d") as subject:
        assert subject[count // 2] == {"id": count // 2, "tags": ["a", "b"]}
        for number in range(0, count, 7):
            _ = subject[number]
        subject.sync()
        assert commits(subject) == 0


def test_held_values_are_followed() -> None:
    """An edit through a reference taken long ago is found, also when the value had been on disk and in a reopened
    dict."""
    disk = SimulatedFileSystem()
    subject = ThermalDict.open(PATH, file_system=disk)
    held: list[int] = []
    subject["held"] = held
    subject.sync()
    held.append(1)
    subject.close()
    subject = ThermalDict.open(PATH, file_system=disk)
    held = subject["held"]
    subject.sync()
    held.append(2)
    subject.sync()
    assert subject.demote("held") is Residency.HOT
    subject.close()
    with ThermalDict.open(PATH, file_system=disk) as again:
        assert again["held"] == [1, 2]


def test_a_transaction_is_all_or_nothing_in_memory_too() -> None:
    """An exception undoes every write of the transaction, also deletions and new keys, and says what it was."""
    disk = SimulatedFileSystem()
    subject = ThermalDict.open(PATH, file_system=disk)
    subject.update(a=[1], b=2)
    kept = subject["a"]
    with pytest.raises(KeyError, match="stop"), subject.transaction():
        subject["a"] = 3
        subject["c"] = 4
        del subject["b"]
        subject.pop("c")
        raise KeyError("stop")
    assert dict(subject) == {"a": [1], "b": 2}
    assert subject["a"] is kept
    with pytest.raises(RuntimeError, match="open already"), subject.transaction(), subject.transaction():
        pass
    with subject.transaction():
        subject.clear()
        subject["only"] = 1
    subject._journal.log.abandon()  # type: ignore[union-attr]  # as a killed process leaves it
    left = ThermalDict.open(PATH, file_system=disk, readonly=True)
    assert dict(left) == {"only": 1}


def test_writes_of_others_wait_for_a_transaction(tmp_path: Path) -> None:
    """With durability="always" a write of another thread is acknowledged after the transaction, and is not undone by
    it."""
    with ThermalDict.open(tmp_path / "d", durability="always") as subject:
        inside, done = threading.Event(), threading.Event()

        def write() -> None:
            inside.wait(20)
            subject["other"] = 1
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        with pytest.raises(ValueError, match="undo"), subject.transaction():
            subject["mine"] = 1
            inside.set()
            assert not done.wait(0.2)
            raise ValueError("undo")
        thread.join(20)
        assert done.is_set()
        assert dict(subject) == {"other": 1}
    with ThermalDict.open(tmp_path / "d") as subject:
        assert dict(subject) == {"other": 1}


def test_the_interval_is_kept() -> None:
    """With durability="interval" a write is settled by the first write after the interval; real clocks need no
    write."""
    disk, clock = SimulatedFileSystem(), SimulatedClock()
    subject = ThermalDict.open(PATH, file_system=disk, clock=clock, durability="interval", interval_seconds=3)
    subject["a"] = 1
    assert commits(subject) == 0
    clock.now = 3.5
    subject["b"] = 2
    assert commits(subject) == 1
    subject.close()


def test_the_interval_passes_by_itself(tmp_path: Path) -> None:
    """With a real clock a write is settled although nothing more is written."""
    with ThermalDict.open(tmp_path / "d", durability="interval", interval_seconds=0.05) as subject:
        subject["a"] = [1]
        end_seconds = time.monotonic() + 20.0
        while commits(subject) == 0 and time.monotonic() < end_seconds:
            time.sleep(0.01)
        with ThermalDict.open(tmp_path / "d", readonly=True) as reader:
            assert dict(reader) == {"a": [1]}


def test_a_long_interval_delays_no_short_one(tmp_path: Path) -> None:
    """Dicts with intervals of their own are each settled when they are due, whichever was written first."""
    with (
        ThermalDict.open(tmp_path / "slow", durability="interval", interval_seconds=3600) as slow,
        ThermalDict.open(tmp_path / "quick", durability="interval", interval_seconds=0.05) as quick,
    ):
        for turn in range(3):
            slow["a"], quick["a"] = turn, turn
            end = time.monotonic() + 20
            log = quick._journal.log  # type: ignore[union-attr]  # it is durable
            while log.settled_sequence <= turn and time.monotonic() < end:
                time.sleep(0.01)
            assert log.settled_sequence == turn + 1
        assert slow._journal.dirty  # type: ignore[union-attr]


def test_many_threads_share_their_fsyncs(tmp_path: Path) -> None:
    """Threads that write with durability="always" all find their writes settled, each by an fsync of its own or
    another's."""
    with ThermalDict.open(tmp_path / "d", durability="always") as subject:

        def write(start: int) -> None:
            for number in range(25):
                subject[start, number] = [number]

        threads = [threading.Thread(target=write, args=(start,)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        subject.check()
        expected = dict(subject)
        assert len(expected) == 200
    with ThermalDict.open(tmp_path / "d") as subject:
        assert dict(subject) == expected


def test_copies_are_not_durable(tmp_path: Path) -> None:
    """A copy, a pickle and the result of | are dicts of their own, without a path."""
    with ThermalDict.open(tmp_path / "d") as subject:
        subject["a"] = [1]
        for other in (
            subject.copy(),
            copy.copy(subject),
            copy.deepcopy(subject),
            pickle.loads(pickle.dumps(subject)),
            subject | {},
        ):
            assert dict(other) == {"a": [1]}
            other["b"] = 2
            with pytest.raises(OSError, match="with a path"):
                other.transaction()
            other.close()
        assert list(subject) == ["a"]


def test_a_forked_child_can_read_and_not_write(tmp_path: Path) -> None:
    """The child sees what the parent had and is refused when it writes; the parent goes on, and its lock ends with
    it."""
    with ThermalDict.open(tmp_path / "d") as subject:
        subject["a"] = [1]
        subject.sync()
        child = os.fork()
        if child == 0:
            fine = subject["a"] == [1]
            try:
                subject["b"] = 2
                fine = False
            except OSError:
                pass
            os._exit(0 if fine else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        subject["c"] = 3
    with ThermalDict.open(tmp_path / "d") as subject:
        assert dict(subject) == {"a": [1], "c": 3}


def test_a_subclass_can_be_durable(tmp_path: Path) -> None:
    """open(path) of a subclass gives an instance of it, with its entries."""

    class Table(ThermalDict[str, int]):
        def __missing__(self, key: str) -> int:
            return -1

    with Table.open(tmp_path / "d") as table:
        table["a"] = 1
    with Table.open(tmp_path / "d") as table:
        assert (table["a"], table["b"]) == (1, -1)
        assert list(table) == ["a"]


def test_more_than_fits_into_memory(tmp_path: Path) -> None:
    """A durable dict keeps to its memory limit; what leaves is not written twice, and edits of what left are found."""
    with ThermalDict.open(tmp_path / "d", memory_limit=1_000_000, segment_bytes=1 << 20) as subject:
        model = {number: [number] * 40 for number in range(5_000)}
        for number in model:
            subject[number] = list(model[number])
        for number in range(0, 5_000, 11):
            subject[number].append(-1)
            model[number].append(-1)
        subject.check()
        assert subject.stats().used_bytes <= 1_000_000
        journal: Any = subject._journal
        assert journal.log.write_amplification <= 2
        assert dict(subject) == model
    with ThermalDict.open(tmp_path / "d", memory_limit=1_000_000) as subject:
        assert dict(subject) == model


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"durability": "sometimes"}, ValueError), ({"interval_seconds": 0}, ValueError), ({"path": 7}, TypeError)],
)
def test_bad_settings_are_refused(tmp_path: Path, settings: dict[str, Any], error: type[Exception]) -> None:
    """A bad setting is refused by name before anything is made."""
    with pytest.raises(error):
        ThermalDict.open(**{"path": tmp_path / "d"} | settings)
    assert not (tmp_path / "d").exists()


def test_closed_and_missing(tmp_path: Path) -> None:
    """A closed dict refuses; a path that does not exist is made for writing only; a file is no durable dict."""
    with pytest.raises(FileNotFoundError):
        ThermalDict.open(tmp_path / "d", readonly=True)
    subject = ThermalDict.open(tmp_path / "d")
    subject.close()
    subject.close()
    for use in (subject.sync, subject.transaction, lambda: subject.snapshot(tmp_path / "e")):
        with pytest.raises(ClosedError):
            use()
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file"):
        ThermalDict.open(tmp_path / "file")


def test_the_command_line(tmp_path: Path) -> None:
    """verify says whether a dict is whole by its exit status, and repair makes it so."""
    path = tmp_path / "d"
    with ThermalDict.open(path) as subject:
        subject.update(a="x" * 100, b="y" * 100)
    run = [sys.executable, "-m", "spectral_alloc"]

    def status_of(command: str) -> tuple[int, str]:
        done = subprocess.run([*run, command, str(path)], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert status_of("verify") == (0, "2 entries in 1 segments, 0 damaged places\n")
    segment = path / "log-000000"
    data = bytearray(segment.read_bytes())
    data[160] ^= 1
    segment.write_bytes(data)
    status, text = status_of("verify")
    assert status == 1
    assert "log-000000 at offset 96" in text
    assert "'a'" in text
    with ThermalDict.open(path, readonly=True) as subject:
        with pytest.raises(CorruptFrameError, match="'a'"):
            subject["a"]
        assert subject["b"] == "y" * 100
    assert status_of("repair")[0] == 1
    assert status_of("verify")[0] == 0
    with ThermalDict.open(path) as subject:
        assert dict(subject) == {"b": "y" * 100}
    assert issubclass(CorruptLogError, OSError)


def test_a_dict_that_is_dropped_lets_go_of_everything(tmp_path: Path) -> None:
    """Neither closed nor collected by hand, it frees its lock, its files and its parts."""
    subject = ThermalDict.open(tmp_path / "d")
    subject["a"] = [1]
    subject.sync()
    parts = [weakref.ref(subject._journal), weakref.ref(subject._tiers), weakref.ref(subject._tiers.store)]
    del subject
    assert [part() for part in parts] == [None] * 3
    with ThermalDict.open(tmp_path / "d") as subject:
        assert subject == {"a": [1]}


def test_a_set_keeps_its_order_while_it_is_away(tmp_path: Path) -> None:
    """A set with a history that leaves RAM and comes back is iterated, and popped, as if it had stayed."""
    members = {f"m{number}" for number in range(200)}
    for number in range(0, 200, 3):
        members.discard(f"m{number}")
    with ThermalDict.open(tmp_path / "d") as subject:
        subject["s"] = [members]
        order = list(members)
        del members
        subject.sync()
        assert subject.demote("s")
        assert subject.where("s") is not Residency.HOT
        assert list(subject["s"][0]) == order


def test_an_edit_that_left_ram_finds_its_key(tmp_path: Path) -> None:
    """A value that was read, edited and sent away before the sync is stored under its key, also after a failure."""
    with ThermalDict.open(tmp_path / "d") as subject:
        subject.update({f"k{number}": [number] for number in range(20)})
    with ThermalDict.open(tmp_path / "d") as subject:
        for number in range(20):
            subject.promote(f"k{number}")
            subject[f"k{number}"].append("edited")
            assert subject.demote(f"k{number}")
        subject["bad"] = object
        subject["bad"] = lambda: None
        with pytest.raises(TypeError, match="bad"):
            subject.sync()
        del subject["bad"]
    with ThermalDict.open(tmp_path / "d") as subject:
        assert subject == {f"k{number}": [number, "edited"] for number in range(20)}
