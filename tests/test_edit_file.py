"""Files of edits that are made as a whole, by compaction and for snapshots: damage, full disks, other users."""

import errno
import os
from pathlib import Path

import pytest
from edit_logs import attach_faulty, reopened
from faults import FaultyFileSystem

from spectral_alloc import CorruptLogError, GenerativeSpace, LockedError
from spectral_alloc._edit_journal import BLOCK_HEADER_BYTES
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
    for length in range(end, len(data) + 1):
        path.write_bytes(data[:length])
        assert reopened(path) == (EDITS if length < len(data) - BLOCK_HEADER_BYTES else EDITS | {7: 0.5})


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


def test_a_snapshot_never_takes_the_place_of_the_log_itself(tmp_path: Path) -> None:
    """By whatever name it is called: a linked directory, a link, a second name, the path after a rename."""
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    path = tmp_path / "real" / "log"
    space = GenerativeSpace(1).attach(path, "always")
    space[1] = 1.0
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "second").hardlink_to(path)
    names = [path, tmp_path / "linked" / "log", tmp_path / "link", tmp_path / "second"]
    for name in names:
        with pytest.raises(ValueError, match="is the log itself"):
            space.snapshot(name)
    path.rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="is the log itself"):
        space.snapshot(tmp_path / "moved")
    (tmp_path / "moved").rename(path)
    space[2] = 2.0
    space.detach()
    assert names_in(tmp_path / "real") == ["log"]
    assert reopened(path) == {1: 1.0, 2: 2.0}


def test_a_snapshot_never_takes_the_place_of_the_log_of_another_open_space(tmp_path: Path) -> None:
    """It is refused before anything is written, also where the log came while the snapshot was made."""
    path, other = tmp_path / "log", GenerativeSpace(1)
    other[9] = 9.0
    (tmp_path / "link").symlink_to(path)
    space = GenerativeSpace(1).attach(path, "always")
    space[1] = 1.0
    for name in (path, tmp_path / "link"):
        with pytest.raises(LockedError, match="another open space"):
            other.snapshot(name)
    space[2] = 2.0
    space.detach()
    assert names_in(tmp_path) == ["link", "log"]
    assert reopened(path) == {1: 1.0, 2: 2.0}
    other.snapshot(path)  # nobody has it now
    assert reopened(path) == {9: 9.0}
    disk, late = FaultyFileSystem(), tmp_path / "late"
    attached: list[GenerativeSpace] = []
    log = attach_faulty(other, tmp_path / "own", disk)

    def attach() -> None:
        if not attached:
            attached.append(GenerativeSpace(1).attach(late, "always"))
            attached[0][3] = 3.0

    disk.before("sync", attach)
    with pytest.raises((LockedError, FileNotFoundError)):
        log.snapshot(late)
    disk.heal()
    other.detach()
    attached[0].detach()
    assert reopened(late) == {3: 3.0}


def test_a_log_that_is_replaced_while_it_is_opened_is_refused(tmp_path: Path) -> None:
    """Edits never go to a file that has no name any more."""
    path, disk = tmp_path / "log", FaultyFileSystem()
    whole_file(path, "snapshot")

    def replace() -> None:
        disk.heal()
        whole_file(path, "snapshot")

    disk.before("lock", replace)
    with pytest.raises(LockedError, match="has just been replaced"):
        attach_faulty(GenerativeSpace(1), path, disk)
    assert reopened(path) == EDITS


def test_a_log_that_was_closed_has_no_torn_tail(tmp_path: Path) -> None:
    """Many blocks of one sync, the last thing before detach(): a flipped bit in any of them is an error."""
    path = tmp_path / "log"
    with GenerativeSpace(1).attach(path) as space:
        space.scatter(range(0, 2**40, 2**24), 0.5)
    data = path.read_bytes()
    for place in range(HEADER_BYTES, len(data) - BLOCK_HEADER_BYTES, 9973):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(CorruptLogError, match="is damaged at offset"):
            GenerativeSpace(1).attach(path)
        assert path.read_bytes() == changed


def test_a_mark_is_written_once(tmp_path: Path) -> None:
    """A log that is opened and closed does not grow; one whose process was killed gets its mark at the next closing."""
    path, disk = tmp_path / "log", FaultyFileSystem()
    with GenerativeSpace(1).attach(path) as space:
        space[1] = 1.0
    closed = path.read_bytes()
    for _ in range(3):
        assert reopened(path) == {1: 1.0}
        assert path.read_bytes() == closed
    path.write_bytes(closed[:-BLOCK_HEADER_BYTES])
    assert reopened(path) == {1: 1.0}
    assert path.read_bytes() == closed
    space = GenerativeSpace(1)
    attach_faulty(space, path, disk)
    space[2] = 2.0
    space.sync()
    disk.disk_bytes = 20
    space.detach()  # part of a mark is a torn tail
    assert len(path.read_bytes()) % 8 == len(closed) % 8 + 4
    assert reopened(path) == {1: 1.0, 2: 2.0}
    with GenerativeSpace(1).attach(path) as space:
        space.compact()
    assert reopened(path) == {1: 1.0, 2: 2.0}
    whole = path.stat().st_size
    GenerativeSpace(1).attach(path).detach()
    assert path.stat().st_size == whole
