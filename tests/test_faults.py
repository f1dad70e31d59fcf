"""Whatever fails, no value is lost: disks, files, codecs and serialisers that refuse, and what the dict says of it."""

import errno
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import FaultyFileSystem
from tiny import assert_all_cold, assert_within_budget

from spectral_alloc import Residency, ThermalDict
from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.frame import FrameCodec

Make = Callable[..., ThermalDict]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
BROKEN = OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.fixture
def disk() -> FaultyFileSystem:
    """A file system that fails on demand."""
    return FaultyFileSystem()


@pytest.fixture
def make(tiny: Make, disk: FaultyFileSystem) -> Iterator[Make]:
    """The factory of dicts that keep nothing, on the failing disk; it is healed before they are closed."""
    yield lambda items=(), **settings: tiny(items, **({"file_system": disk} | settings))
    disk.heal()


def value_of(number: int) -> dict[str, Any]:
    """A closed value that takes more RAM than its frame."""
    return {"number": number, "text": f"value {number} " * 20, "parts": [number] * 10}


def is_intact(subject: ThermalDict, count: int) -> bool:
    """Is every value of 0 to count there and what it was?"""
    return len(subject) == count and all(subject[number] == value_of(number) for number in range(count))


def numbered(first: int, end: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Pairs of number and value."""
    return ((number, value_of(number)) for number in range(first, end))


@pytest.mark.parametrize("room", [0, 1, 2_000], ids=["full", "one byte left", "full in the middle"])
def test_a_full_disk_keeps_values_in_memory(make: Make, disk: FaultyFileSystem, room: int) -> None:
    """With a full disk the program goes on with every value, is warned once, and values leave when there is room."""
    subject = make()
    disk.disk_bytes = room
    with pytest.warns(RuntimeWarning, match="disk full") as warned:
        subject.update(numbered(0, 100))
        assert is_intact(subject, 100)
        subject[3]["parts"].append("edited")
        assert subject[3].pop("parts")[-1] == "edited"
        subject[3] = value_of(3)
        stats = subject.stats()
    assert len(warned) == 1
    assert stats.events["disk full"] > 1
    assert stats.cold_entries < stats.entries == 100
    subject.check()
    disk.heal()
    subject["one more"] = []
    assert_all_cold(subject)
    del subject["one more"]
    assert is_intact(subject, 100)
    assert_within_budget(subject)
    subject.check()


def test_a_disk_that_refuses_is_not_a_full_disk(make: Make, disk: FaultyFileSystem) -> None:
    """Another error of a write is counted as "disk failed", warned about once, and loses nothing either."""
    subject = make()
    disk.fail("write_some", error=BROKEN)
    with pytest.warns(RuntimeWarning, match="disk failed.*Input/output error") as warned:
        subject.update(numbered(0, 50))
    assert len(warned) == 1
    assert set(subject.stats().events) == {"disk failed"}
    assert is_intact(subject, 50)
    disk.heal()
    subject.stats()
    assert_all_cold(subject)
    assert is_intact(subject, 50)


def test_no_directory_can_be_made(make: Make, disk: FaultyFileSystem) -> None:
    """A spill directory that cannot be created is a failing disk: values stay, and leave once it can be."""
    subject = make()
    disk.fail("make_directory", error=PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    with pytest.warns(RuntimeWarning, match="disk failed"):
        subject.update(numbered(0, 20))
    assert is_intact(subject, 20)
    disk.heal()
    subject.stats()
    assert_all_cold(subject)


def test_the_disk_limit_holds_and_loses_nothing(make: Make) -> None:
    """The files never exceed disk_limit; what has no room stays in memory, and leaves when other values are deleted."""
    subject = make(disk_limit=200_000)
    with pytest.warns(RuntimeWarning, match="disk_limit of 200 kB") as warned:
        for number in range(300):
            subject[number] = os.urandom(1_000) + b"%d" % number
            assert subject.stats().disk_file_bytes <= 200_000
    assert len(warned) == 1
    stats = subject.stats()
    assert stats.events["disk full"] >= 1
    assert 0 < stats.cold_entries < 300
    assert all(subject[number][1_000:] == b"%d" % number for number in range(300))
    for number in range(250):
        del subject[number]
    for number in range(300, 310):
        subject[number] = os.urandom(1_000) + b"%d" % number
    subject._work()
    assert subject.stats().disk_file_bytes <= 200_000
    assert all(subject[number][1_000:] == b"%d" % number for number in range(250, 310))
    assert_all_cold(subject)
    subject.check()


def test_a_failed_read_is_an_oserror_and_not_a_loss(make: Make, disk: FaultyFileSystem) -> None:
    """A read that fails raises OSError naming the key; live keys are fine, and the value comes back with the disk."""
    subject = make(numbered(0, 20))
    held = subject[19]
    disk.fail("read_some", error=BROKEN, times=2)
    for read in (lambda: subject[7], lambda: subject.pop(7)):
        with pytest.raises(OSError, match="Input/output error") as caught:
            read()
        assert caught.value.errno == errno.EIO
        assert any("key 7" in note for note in caught.value.__notes__)
    assert subject[19] is held
    assert 7 in subject
    assert subject.where(7) is Residency.COLD
    assert is_intact(subject, 20)
    subject.check()


def test_other_keys_are_readable_beside_a_failing_one(make: Make, disk: FaultyFileSystem) -> None:
    """While reads of one key fail every other key can be read, written and deleted."""
    subject = make(numbered(0, 20))
    disk.fail("read_some", error=BROKEN, times=1)
    with pytest.raises(OSError, match="Input/output"):
        subject[0]
    assert all(subject[number] == value_of(number) for number in range(1, 20))
    disk.fail("read_some", error=BROKEN)
    subject[0] = value_of(0)
    del subject[1]
    assert len(subject) == 19
    disk.heal()
    assert subject[0] == value_of(0)


def test_threads_that_wait_for_one_failing_read_all_hear_of_it(make: Make, disk: FaultyFileSystem) -> None:
    """When several threads want one value whose reads fail, each gets the error, and later each gets the value."""
    subject = make(numbered(0, 3))
    disk.fail("read_some", error=BROKEN)
    heard: list[object] = []

    def read() -> None:
        try:
            heard.append(subject[1])
        except OSError as error:
            heard.append(error.errno)

    for expected in (errno.EIO, value_of(1)):
        heard.clear()
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert heard == [expected] * 4
        disk.heal()


def spill_files(subject: ThermalDict) -> list[Path]:
    """The segment files of a dict."""
    return sorted(path for path in Path(subject._tiers.store.directory).iterdir() if path.name != "lock")


def flip_frame(subject: ThermalDict, key: object, at: float) -> Callable[[], None]:
    """Flip one bit of a key's frame on disk, at this share of its length; returns what flips it back."""
    _, place, frame_bytes = subject._ledger.whereabouts(subject._find(key))
    path = Path(subject._tiers.store.directory) / f"segment-{place >> 40:06x}"
    offset = (place & ((1 << 40) - 1)) + min(int(frame_bytes * at), frame_bytes - 1)

    def flip() -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 0x10]))

    flip()
    return flip


@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 1.0])
def test_a_flipped_bit_names_its_key_and_spares_the_others(make: Make, at: float) -> None:
    """Damage in a spill file raises CorruptFrameError with the key, whatever the bit; all other keys are readable."""
    subject = make({("key", number): value_of(number) for number in range(20)})
    assert_all_cold(subject)
    repair = flip_frame(subject, ("key", 7), at)
    for read in (
        lambda: subject["key", 7],
        lambda: subject.get(("key", 7)),
        lambda: subject.pop(("key", 7)),
        lambda: list(subject.values()),
        lambda: subject == {("key", number): value_of(number) for number in range(20)},
    ):
        with pytest.raises(CorruptFrameError, match=r"key \('key', 7\)") as caught:
            read()
        assert caught.value.key == ("key", 7)
    assert all(subject["key", number] == value_of(number) for number in range(20) if number != 7)
    assert len(subject) == 20
    repair()
    assert subject["key", 7] == value_of(7)
    flip_frame(subject, ("key", 8), at)
    subject["key", 8] = "anew"
    assert subject["key", 8] == "anew"
    flip_frame(subject, ("key", 9), at)
    del subject["key", 9]
    assert ("key", 9) not in subject


def test_a_truncated_file_is_damage_too(make: Make) -> None:
    """A spill file that was cut off gives CorruptFrameError for what is missing and the values before that."""
    subject = make(numbered(0, 20))
    (path,) = spill_files(subject)
    os.truncate(path, path.stat().st_size // 2)
    good = bad = 0
    for number in range(20):
        try:
            assert subject[number] == value_of(number)
            good += 1
        except CorruptFrameError as error:
            assert error.key == number  # noqa: PT017 (either outcome is right, and both are counted)
            bad += 1
    assert good > 0 < bad
    assert good + bad == len(subject) == 20


def test_a_failing_codec_keeps_values_live(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """When compressing fails the values stay live and writable, with one warning, and leave once it works again."""
    subject = make()

    def refuse(self: FrameCodec, *arguments: object) -> bytes:
        raise RuntimeError("the codec is out of order")

    with monkeypatch.context() as patch:
        patch.setattr(FrameCodec, "encode", refuse)
        with pytest.warns(RuntimeWarning, match="codec failed: the codec is out of order") as warned:
            subject.update(numbered(0, 50))
            assert is_intact(subject, 50)
            stats = subject.stats()
        assert len(warned) == 1
        assert stats.events["codec failed"] > 1
        assert stats.hot_entries == stats.held_entries == 50
        subject.check()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(2_000):
            subject["other"] = number
            if subject.stats().hot_entries == 0:
                break
    del subject["other"]
    assert_all_cold(subject)
    assert is_intact(subject, 50)


class Unpicklable:
    """Refuses to be serialised for as long as ``refusing``."""

    refusing = True

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.refusing:
            raise TypeError(f"number {self.number} stays here")
        return Unpicklable, (self.number,)


def test_unpicklable_values_are_pinned(make: Make) -> None:
    """Values that cannot be serialised stay the very objects, are counted with a reason, and hinder no other value."""
    subject = make(numbered(0, 20))
    lock, generator, refusing = threading.Lock(), (n for n in range(3)), Unpicklable(1)
    special = {"lock": [lock], "generator": [generator], "refusing": [refusing], "function": [lambda: 1]}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        subject.update((key, value) for key, value in list(special.items()))
        held = special.pop("lock")
        special.clear()
        stats = subject.stats()
        for number in range(200):
            subject["other"] = [number]
    assert len(warned) <= 1, [str(one.message) for one in warned]
    assert subject["lock"] is held
    assert subject["lock"][0] is lock
    assert next(subject["generator"][0]) == 0
    assert subject["refusing"][0] is refusing
    assert subject["function"][0]() == 1
    del held
    stats = subject.stats()
    assert stats.pinned_entries >= 3
    assert sum(stats.pinned.values()) == stats.pinned_entries
    assert all(isinstance(reason, str) and reason for reason in stats.pinned)
    assert all(subject.where(number) is Residency.COLD for number in range(20))
    assert_within_budget(subject)
    subject.check()
    subject["refusing"] = value_of(1)
    subject["generator"] = value_of(2)
    assert subject.where("refusing") is Residency.COLD
    assert subject.stats().pinned_entries == stats.pinned_entries - 2


def test_a_reducer_that_fails_is_warned_about_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A serialiser that raises in the middle pins the value, says why in stats, and warns once for all values."""
    subject = make()

    def refuse(value: object, flags: int, **_settings: object) -> Any:
        raise ValueError("cannot be written down")

    with monkeypatch.context() as patch:
        patch.setattr("spectral_alloc.tiers.dumps", refuse)
        with pytest.warns(RuntimeWarning, match="unserialisable: cannot be written down") as warned:
            subject.update(numbered(0, 30))
        assert len(warned) == 1
        stats = subject.stats()
        assert stats.events["unserialisable"] == 30
        assert stats.pinned == {"ValueError: cannot be written down": 30}
    assert is_intact(subject, 30)
    subject.update(numbered(0, 30))
    assert_all_cold(subject)
    assert is_intact(subject, 30)


def test_out_of_memory_while_serialising_is_not_for_good(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A MemoryError of the serialiser only holds the value back: it leaves when there is memory again."""
    subject = make()

    def refuse(value: object, flags: int, **_settings: object) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("spectral_alloc.tiers.dumps", refuse)
        with pytest.warns(RuntimeWarning, match="serialising failed") as warned:
            subject.update(numbered(0, 10))
            assert is_intact(subject, 10)
    assert len(warned) == 1
    assert subject.stats().pinned_entries == 0
    for step in range(100):
        subject["other"] = [step]
    del subject["other"]
    assert_all_cold(subject)
    assert is_intact(subject, 10)
