"""Small values are compressed with a dictionary that is as durable as they are."""

import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from durable_model import PATH, Bench, Witness
from simulated import SimulatedFileSystem

from spectral_alloc import CorruptFrameError, ThermalDict, _log, frame_dictionary, journal, repair, verify
from spectral_alloc.durable import DurableSettings, open_log
from spectral_alloc.file_system import REAL_FILE_SYSTEM
from spectral_alloc.frame import FrameCodec
from spectral_alloc.log import Record
from spectral_alloc.log_dictionaries import COPIES, dictionary_frame
from spectral_alloc.segments import OFFSET_BITS, OFFSET_MASK

COUNT = 3600
MAGIC = b"\x37\xa4\x30\xec"  # of a dictionary of zstd
KEY = b"a secret of enough bytes"


def record(number: int) -> dict[str, Any]:
    """A value like all others, but for some of it."""
    chance = random.Random(number)
    return {"id": number, "name": f"customer {number}", "city": "Braunschweig", "code": chance.randbytes(20).hex()}


def records(first: int = 0, count: int = COUNT) -> dict[str, Any]:
    """Enough of them that one dictionary is trained, and no second one."""
    return {f"key {number}": record(number) for number in range(first, first + count)}


def dictionaries_of(path: Path, key: bytes | None = None) -> list[tuple[int, int, int]]:
    """(place, bytes, number) of the copies in a log."""
    found, _ = open_log(DurableSettings(str(path), key=key, is_readonly=True), None, REAL_FILE_SYSTEM)
    copies = found.index.dictionaries
    found.log.abandon()
    return copies


def made(path: Path, **settings: Any) -> Path:
    """A closed store of such records; the last one vouches for those before it."""
    with ThermalDict.open(path, **settings) as subject:
        subject.update(records(0, COUNT - 1))
        subject.sync()
        subject.update(records(COUNT - 1, 1))
    return path


def file_of(path: Path, place: int) -> tuple[Path, int]:
    """The file and offset of a place."""
    return path / f"log-{place >> OFFSET_BITS:06x}", place & OFFSET_MASK


def spoil(path: Path, place: int, at: int) -> None:
    """Change one byte of the frame at a place."""
    file, offset = file_of(path, place)
    data = bytearray(file.read_bytes())
    data[offset + _log.HEAD_BYTES + at] ^= 0x55
    file.write_bytes(data)


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "keyed"])
def test_values_come_back_and_the_dictionary_is_used_again(tmp_path: Path, key: bytes | None) -> None:
    """The next process reads the values and goes on with the same dictionary; hint files are not needed for that."""
    path = made(tmp_path / "d", key=key)
    assert [number for *_, number in dictionaries_of(path, key)] == [1] * COPIES
    for file in path.glob("hint-*"):
        file.unlink()
    with ThermalDict.open(path, key=key) as subject:
        assert dict(subject) == records()
        before = subject._tiers.codec.stats()["zstd_dictionary"]["frames"]
        subject.update(records(COUNT, 100))
        subject.sync()
        assert subject._tiers.codec.stats()["zstd_dictionary"]["frames"] == before + 100
    assert len(dictionaries_of(path, key)) == COPIES
    with ThermalDict.open(path, key=key, readonly=True) as subject:
        assert dict(subject) == records(0, COUNT + 100)
    assert verify(path, key=key).is_whole


def test_it_makes_the_store_smaller(tmp_path: Path) -> None:
    """The records take less than four fifths of what they take stored as they are."""
    sizes = []
    for codec in (None, "raw"):
        path = made(tmp_path / str(codec), codec=codec)
        sizes.append(sum(file.stat().st_size for file in path.glob("log-*")) - 62 * COUNT)
    assert sizes[0] < 0.8 * sizes[1]


def test_it_survives_compaction_and_goes_into_snapshots(tmp_path: Path) -> None:
    """The copies are moved with the segment that they are in."""
    with ThermalDict.open(tmp_path / "d") as subject:
        subject.update(records())
        subject.sync()
        log: Any = subject._journal.log  # type: ignore[union-attr]  # it is durable
        for turn in range(3):
            log.seal()
            subject._tiers.compact_segments(subject, {segment.number for segment in log.log_segments})
            subject["new"] = turn
            subject.check()
        subject.snapshot(tmp_path / "copy")
    for path in (tmp_path / "d", tmp_path / "copy"):
        assert len(dictionaries_of(path)) == COPIES
        assert verify(path).is_whole
        with ThermalDict.open(path) as subject:
            assert dict(subject) == records() | {"new": 2}


@pytest.mark.parametrize("with_hints", [True, False], ids=["hints", "walk"])
def test_one_damaged_copy_costs_nothing(tmp_path: Path, with_hints: bool) -> None:
    """A flipped byte in either copy is reported, and every value is read; the next writer makes copies anew."""
    whole = made(tmp_path / "whole")
    for turn, (place, frame_bytes, _) in enumerate(dictionaries_of(whole)):
        for at in (5, frame_bytes // 2):
            path = tmp_path / f"{turn}-{at}"
            shutil.copytree(whole, path)
            spoil(path, place, at)
            for hint in path.glob("hint-*"):
                if not with_hints:
                    hint.unlink()
            assert not verify(path).is_whole
            with ThermalDict.open(path) as subject:
                assert dict(subject) == records()
                subject["new"] = 1
            assert len(dictionaries_of(path)) == 2 * COPIES
            repair(path)
            assert verify(path).is_whole
            with ThermalDict.open(path) as subject:
                assert dict(subject) == records() | {"new": 1}


def test_a_lost_dictionary_is_never_replaced_by_another(tmp_path: Path) -> None:
    """Its values raise CorruptFrameError naming their key, others are readable, and new ones get a new number."""
    path = made(tmp_path / "d")
    for place, _, _ in dictionaries_of(path):
        spoil(path, place, 20)
    with ThermalDict.open(path) as subject:
        assert subject["key 0"] == record(0)  # written before there was a dictionary
        with pytest.raises(CorruptFrameError, match="key 3599"):
            subject["key 3599"]
        subject.update(records(COUNT))
    assert {number for *_, number in dictionaries_of(path)} == {1, 2}
    with ThermalDict.open(path) as subject:
        assert all(subject[key] == value for key, value in records(COUNT).items())
        with pytest.raises(CorruptFrameError, match="key 3599"):
            subject["key 3599"]
    report = repair(path)
    assert {"key 3599"} <= {damage.key for damage in report.damage}
    with ThermalDict.open(path) as subject:
        everything = records(0, 2 * COUNT)
        assert all(everything[key] == value for key, value in subject.items())
        assert len(subject) == 2 * COUNT - sum(damage.key is not None for damage in report.damage)


def test_a_crafted_dictionary_does_no_harm(tmp_path: Path) -> None:
    """Whatever stands where a dictionary should be, with right checksums: the values are read and written."""
    chance = random.Random(1)
    path, expected = made(tmp_path / "d"), records()
    frames = [
        dictionary_frame(Crafted(content, means), 1)  # type: ignore[arg-type]  # it has the one method
        for content in (b"", b"x", MAGIC, MAGIC + chance.randbytes(3000), chance.randbytes(99))
        for means in ((1.0, 1.0), (0.0, 0.0), (float("nan"), -1.0))
    ]
    for frame in [*frames, FrameCodec("raw").encode([b"alone"], [1])]:
        with ThermalDict.open(path) as subject:
            log: Any = subject._journal.log  # type: ignore[union-attr]  # it is durable
            log.commit([journal_record(number, frame) for number in (1, 7, 300)])
            log.sync()
        with ThermalDict.open(path) as subject:
            assert all(subject[key] == value for key, value in expected.items())
            subject.update(records(COUNT, 20))
        with ThermalDict.open(path) as subject:
            assert dict(subject) == records(0, COUNT + 20)


def journal_record(number: int, frame: bytes) -> Any:
    """A record that says it is a dictionary."""
    return Record(_log.DICTIONARY, b"", frame, 0, number)


class Crafted:
    """What dictionary_frame asks for."""

    def __init__(self, content: bytes, means: tuple[float, float]) -> None:
        self.content, self.means = content, means

    def content_of(self, number: int) -> tuple[bytes, float, float]:
        """Something else than a dictionary."""
        return self.content, *self.means


def low_thresholds(patch: pytest.MonkeyPatch) -> None:
    """A dictionary for a handful of values, trained by commits alone: the background would come when it likes."""
    train, own = frame_dictionary.FrameDictionaries.train, threading.get_ident()
    patch.setattr(
        frame_dictionary.FrameDictionaries, "train", lambda self: threading.get_ident() == own and train(self)
    )
    for module, name, value in (
        (frame_dictionary, "TRAIN_AT_OFFERED", (32, 64)),
        (frame_dictionary, "SAMPLE_BYTES_MIN", 500),
        (frame_dictionary, "DICTIONARY_BYTES_MIN", 300),
        (frame_dictionary, "WORTHWHILE_SHARE", 2.0),
        (journal, "TRAIN_FOR_ENTRIES", 0),
    ):
        patch.setattr(module, name, value)


@pytest.mark.parametrize("mode", ["none", "interval", "always"])
def test_a_crash_loses_no_dictionary(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Power lost at any operation of the disk: every value that is found can be read, and is one that was written."""
    low_thresholds(monkeypatch)
    disk = Witness(random.Random(4))
    bench = Bench(disk, durability=mode, memory_limit=200_000, segment_bytes=4000)
    disk.where = lambda: bench.where
    chance = random.Random(7)
    steps: list[tuple[str, Callable[[], tuple[Any, ...]]]] = [
        ("set", lambda: ("set", f"k{chance.randrange(30)}", [f"no. {chance.randrange(99)}" + " Braunschweig" * 5])),
        ("other", lambda: (chance.choice(["sync", "time", "compact", "seal", "reopen"]),)),
    ]
    trained = 0
    for number in range(200):
        bench.run(steps[number % 5 == 4][1]())
        trained += bool(bench.subject._tiers.codec.dictionaries.ids)
    assert trained
    bench.subject.close()
    bench.promised = bench.synced = len(bench.moments) - 1
    disk.left.append((disk.survivor(disk.chance), *bench.where))
    used = 0
    for number, (left, *where) in enumerate(disk.left):
        found = bench.found_on(left)
        assert bench.may_be(found, *where), (number, where)
        used += bool(found)
    assert used > 50


def test_a_full_disk_loses_no_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that fails with the dictionary in it is done again, dictionary and all."""
    low_thresholds(monkeypatch)
    disk = SimulatedFileSystem()
    for operation in range(1, 12):
        path = f"{PATH}{operation}"
        with ThermalDict.open(path, file_system=disk) as subject:
            subject.update(records(0, 40))
            subject._journal.commit()  # type: ignore[union-attr]  # it is durable
            subject.update(records(40, 20))
            disk.fail_at(operation, OSError(28, "injected"), times=1)
            try:
                subject.sync()
            except OSError:
                subject.sync()
            assert subject._tiers.codec.dictionaries.ids
        with ThermalDict.open(path, file_system=disk) as subject:
            assert dict(subject) == records(0, 60)
            assert subject._tiers.codec.dictionaries.ids
