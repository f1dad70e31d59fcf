"""Damage to a durable dict is harmless, or reported by key or offset; it is never a wrong value, and the rest stays."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spectral_alloc import CorruptFrameError, CorruptLogError, ThermalDict, UntrustedError, repair, verify
from spectral_alloc.file_system import FileSystem
from spectral_alloc.log_format import HEADER_BYTES


class Hasty(FileSystem):
    """The real file system without waiting for the disk: these tests lose no power."""

    def sync(self, fd: int) -> None:
        """Nothing."""

    def sync_directory(self, path: str) -> None:
        """Nothing."""


HASTY = Hasty()
KEY = b"a secret of enough bytes"
MODEL: dict[Any, Any] = {"a": [1, 2, 3], "b": {"x": "y" * 40}, 7: "seven", ("t", 1): None, "late": [9]}


def make_store(path: Path, is_closed: bool, key: bytes | None) -> None:
    """A small store with overwrites, a deletion and two segments; unless ``is_closed`` as a killed process leaves
    it."""
    subject = ThermalDict.open(path, key=key, file_system=HASTY)
    subject.update(MODEL | {"a": "old", "gone": 1, "late": 0})
    subject.sync()
    subject._journal.log.seal()  # type: ignore[union-attr]  # it is durable
    subject["a"] = MODEL["a"]
    del subject["gone"]
    subject.sync()
    # What a killed process settled last nothing vouches for: damage there looks like a write that was never finished.
    subject["late"] = [10]
    subject["late"] = MODEL["late"]
    subject.sync()
    if is_closed:
        subject.close()
        return
    kept = path.with_name("kept")
    shutil.copytree(path, kept)
    subject.close()
    shutil.rmtree(path)
    kept.rename(path)


def values_of(path: Path, key: bytes | None) -> tuple[dict[Any, Any], set[Any]]:
    """What can be read, and the keys of which reading says that they are damaged."""
    good: dict[Any, Any] = {}
    bad: set[Any] = set()
    with ThermalDict.open(path, readonly=True, key=key, file_system=HASTY) as subject:
        for name in list(subject):
            try:
                good[name] = subject[name]
            except CorruptFrameError as error:
                assert error.key == name
                bad.add(name)
    return good, bad


def check_flipped(path: Path, key: bytes | None) -> str:
    """Open a damaged store in every way; returns how the damage shows."""
    how = "harmless"
    try:
        good, bad = values_of(path, key)
    except (CorruptLogError, UntrustedError) as error:
        assert "log-" in str(error)
        how, good, bad = "open", {}, set()
    else:
        assert all(good[name] == MODEL[name] for name in good if name != "late")
        assert good.get("late") in ((MODEL["late"], 0) if "killed" in str(path) else (MODEL["late"],)) or "late" in bad
        assert good.keys() | bad == MODEL.keys()
        how = "key" if bad else how
    report = verify_or_refuse(path, key)
    assert how == "harmless" or report is None or not report.is_whole
    if report is not None:
        check_repaired(path, key)
    return how


def verify_or_refuse(path: Path, key: bytes | None) -> Any:
    """The report, None if the key does not fit a damaged header."""
    try:
        return verify(path, key=key, file_system=HASTY)
    except UntrustedError:
        assert key is not None
        return None


def check_repaired(path: Path, key: bytes | None) -> None:
    """After repair all but what was damaged is there."""
    report = repair(path, key=key, file_system=HASTY)
    good, bad = values_of(path, key)
    assert not bad
    lost = MODEL.keys() - good.keys()
    assert len(lost) <= len(report.damage) or lost == {"late"}
    for name, value in good.items():
        # Where the damaged record could not be identified an older value may come back.
        assert value == MODEL.get(name) or not report.is_whole or (name == "late" and "killed" in str(path))


def flips(contents: dict[str, bytes], all_values: bool) -> Iterator[tuple[str, int, int]]:
    """(file, offset, new byte) for each byte of each file, with every other value in headers if asked for."""
    chance = random.Random(1)
    for name, data in sorted(contents.items()):
        for offset, byte in enumerate(data):
            is_header = offset < HEADER_BYTES and name.startswith(("log", "hint"))
            if all_values and is_header:
                values = [value for value in range(256) if value != byte]
            else:
                values = [byte ^ 1 << chance.randrange(8)]
            for value in values:
                yield name, offset, value


def put_back(path: Path, contents: dict[str, bytes]) -> None:
    """Give a directory the files that it had; removing the directory itself would take longer than all else."""
    for name in os.listdir(path):
        if name not in contents:
            os.unlink(path / name)
    for name, data in contents.items():
        (path / name).write_bytes(data)


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "keyed"])
@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "killed"])
def test_every_flipped_byte_is_harmless_or_reported(
    tmp_path: Path, is_closed: bool, key: bytes | None, long_mode: bool
) -> None:
    """Each byte of a small store in turn: no wrong value, other keys readable, repair keeps what is undamaged."""
    path = tmp_path / ("closed" if is_closed else "killed")
    make_store(path, is_closed, key)
    contents = {file.name: file.read_bytes() for file in path.iterdir()}
    seen: set[str] = set()
    for number, (name, offset, value) in enumerate(flips(contents, long_mode)):
        if not long_mode and number % 7:
            continue
        put_back(path, contents)
        data = bytearray(contents[name])
        data[offset] = value
        (path / name).write_bytes(data)
        try:
            seen.add(check_flipped(path, key))
        except AssertionError as error:
            error.add_note(f"{name}, offset {offset}, value {value}")
            raise
    print(f"{number + 1} flips of {'closed' if is_closed else 'killed'} {'keyed' if key else 'plain'}: {sorted(seen)}")
    assert "harmless" in seen
    assert len(seen) > 1


def test_a_file_cut_short_anywhere_is_reported(tmp_path: Path) -> None:
    """A segment of a closed store that lost its end is damage, not a torn end, and other keys are readable."""
    path = tmp_path / "d"
    make_store(path, True, None)
    segment = sorted(path.glob("log-*"))[-1]
    data = segment.read_bytes()
    for length in range(HEADER_BYTES, len(data), 7):
        segment.write_bytes(data[:length])
        hint = segment.with_name(segment.name.replace("log", "hint"))
        good, bad = values_of(path, None) if not hint.exists() else ({}, set())
        assert all(value in (MODEL[name], "old") for name, value in good.items())
        assert not bad


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: os.chmod(path, 0o777),
        lambda path: (path / "log-000000").unlink() or (path / "log-000000").symlink_to("/proc/version"),
        lambda path: (path / "log-000000").unlink() or (path / "log-000000").mkdir(),
    ],
)
def test_what_others_could_have_planted_is_refused(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """A directory that others may write, and a link or directory in place of a file, are refused with an OSError."""
    path = tmp_path / "d"
    make_store(path, True, None)
    spoil(path)
    with pytest.raises(OSError, match="d"):
        ThermalDict.open(path)
