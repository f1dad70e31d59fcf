"""Files of edits that are made as a whole, by compaction and for snapshots: damage, full disks, other users."""

import errno
import os
from pathlib import Path

import pytest
from edit_logs import attach_faulty, reopened
from faults import FaultyFileSystem

from spectral_alloc import CorruptLogError, GenerativeSpace, LockedError
from spectral_alloc.edit_file import BESIDE, HEADER_BYTES
from spectral_alloc.file_system import REAL_FILE_SYSTEM, OpenFile

EDITS = {address**5: address / 8 for address in range(40)}


def whole_file(path: Path, way: str) -> bytes:
    """A file of EDITS that was made by compaction or as a snapshot."""
    space = GenerativeSpace(1)
    space.scatter(list(EDITS), list(EDITS.values()))
    if way == "snapshot":
        space.snapshot(path)
    else:
        space.attach(path, "none")
        space.compact()
        space.detach()
    return path.read_bytes()


def names_in(directory: Path) -> list[str]:
    """The names in a directory, sorted."""
    return sorted(os.listdir(directory))


@pytest.mark.parametrize("way", ["snapshot", "compact"])
def test_a_file_that_was_made_as_a_whole_has_no_torn_tail(tmp_path: Path, way: str) -> None:
    """Any bit that flips in it, or its end missing, is an error, and the file stays as it is."""
    data, path = whole_file(tmp_path / "whole", way), tmp_path / "changed"
    for place in range(HEADER_BYTES, len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        for changed in (bytes(flipped), data[:place]):
            path.write_bytes(changed)
            space = GenerativeSpace(1)
            with pytest.raises(CorruptLogError, match="was made with"):
                space.attach(path, "none")
            assert space.edit_count == 0
            assert path.read_bytes() == changed
    assert reopened(tmp_path / "whole") == EDITS


@pytest.mark.parametrize("way", ["snapshot", "compact"])
def test_what_was_added_to_a_whole_file_may_be_torn(tmp_path: Path, way: str) -> None:
    """A log that goes on behind a snapshot or a compaction is cut where it was being written, and no earlier."""
    path, end = tmp_path / "log", len(whole_file(tmp_path / "log", way))
    with GenerativeSpace(1).attach(path) as space:
        space[7] = 0.5
    data = path.read_bytes()
    for length in range(end, len(data)):
        path.write_bytes(data[:length])
        assert reopened(path) == EDITS
    path.write_bytes(data)
    assert reopened(path) == EDITS | {7: 0.5}


def test_what_was_added_while_a_compaction_ran_belongs_to_the_whole(tmp_path: Path) -> None:
    """An edit made before the new file took its place is in it when it is published, and its damage is an error."""
    disk, space, path = FaultyFileSystem(), GenerativeSpace(1), tmp_path / "log"
    log = attach_faulty(space, path, disk)
    space[1] = 1.0
    beside = path.with_name(path.name + BESIDE)
    disk.before("write_at", lambda: beside.exists() and space.write(2, 2.0))  # its edits have been listed by then
    log.compact()
    disk.heal()
    data = bytearray(path.read_bytes())
    space.detach()
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptLogError, match="was made with"):
        GenerativeSpace(1).attach(path)


def test_a_full_disk_ends_a_compaction_and_not_the_next_one(tmp_path: Path) -> None:
    """What was written of the new file goes, and with room again compaction works."""
    disk, space, path = FaultyFileSystem(), GenerativeSpace(1), tmp_path / "log"
    log = attach_faulty(space, path, disk)
    space.scatter(list(EDITS), list(EDITS.values()))
    space.sync()
    for room in (0, 30, 100):
        disk.disk_bytes = room
        with pytest.raises(OSError, match="No space") as full:
            log.compact()
        assert full.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match="No space"):
            log.snapshot(tmp_path / "other")
        assert names_in(tmp_path) == ["log"]
    disk.heal()
    log.compact()
    log.snapshot(tmp_path / "other")
    space.detach()
    assert names_in(tmp_path) == ["log", "other"]
    assert reopened(path) == reopened(tmp_path / "other") == EDITS


def test_a_file_that_a_stopped_process_left_beside_is_taken_over(tmp_path: Path) -> None:
    """By compaction and by snapshots; one that is being written by another space is not touched."""
    path, target = tmp_path / "log", tmp_path / "other"
    space = GenerativeSpace(1).attach(path)
    space[1] = 1.0
    for name, work in ((path, space.compact), (target, lambda: space.snapshot(target))):
        beside = Path(f"{name}{BESIDE}")
        beside.write_bytes(b"part of a file")
        held = OpenFile(REAL_FILE_SYSTEM, REAL_FILE_SYSTEM.open_existing, str(beside))
        assert REAL_FILE_SYSTEM.lock(held.fd)
        with pytest.raises(LockedError, match="being written"):
            work()
        assert beside.read_bytes() == b"part of a file"
        del held
        work()
        assert not beside.exists()
        assert reopened(target) == {1: 1.0} if name is target else path.stat().st_size > HEADER_BYTES
    space.detach()
    assert reopened(path) == {1: 1.0}
