"""FileSystem: the few operations that all files go through, and the faulty one that tests use."""

import errno
import os
import stat
from pathlib import Path

import pytest
from faults import FaultyFileSystem
from hypothesis import given
from hypothesis import strategies as st

from spectral_alloc.file_system import BUFFERS_PER_CALL, REAL_FILE_SYSTEM, FileSystem


def test_files_and_directories_are_private(tmp_path: Path) -> None:
    """A new file has mode 0600 and a new directory 0700, whatever the umask allows others."""
    before = os.umask(0)
    try:
        REAL_FILE_SYSTEM.make_directory(str(tmp_path / "d"))
        fd = REAL_FILE_SYSTEM.create(str(tmp_path / "d" / "f"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    assert not os.get_inheritable(fd)
    REAL_FILE_SYSTEM.close(fd)


def test_nothing_that_exists_is_created_or_followed(tmp_path: Path) -> None:
    """create refuses an existing file and a link, also a dangling one; open_existing refuses a link."""
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("target", "link", "dangling"):
        with pytest.raises(FileExistsError):
            REAL_FILE_SYSTEM.create(str(tmp_path / name))
    with pytest.raises(OSError, match="link") as raised:
        REAL_FILE_SYSTEM.open_existing(str(tmp_path / "link"))
    assert raised.value.errno == errno.ELOOP
    assert not (tmp_path / "nowhere").exists()


@given(st.lists(st.binary(max_size=9), max_size=20), st.integers(1, 7), st.integers(0, 20), st.integers(1, 5))
def test_short_system_calls_are_finished(
    tmp_path_factory: pytest.TempPathFactory, buffers: list[bytes], write_max: int, offset: int, read_max: int
) -> None:
    """However few bytes the system moves per call, write_at and read_at move all to the right place."""

    class ShortReads(FaultyFileSystem):
        def read_some(self, fd: int, length: int, offset: int) -> bytes:
            return FileSystem.read_some(self, fd, min(length, read_max), offset)

    disk = ShortReads()
    disk.write_bytes_max = write_max
    path = tmp_path_factory.mktemp("short") / "f"
    fd = disk.create(str(path))
    disk.write_at(fd, buffers, offset)
    data = b"".join(buffers)
    if data:
        assert path.read_bytes() == bytes(offset) + data
    assert disk.read_at(fd, len(data), offset) == data
    disk.close(fd)


def test_more_buffers_than_one_call_takes(tmp_path: Path) -> None:
    """A batch beyond the system's limit is written in few calls, in order."""
    disk = FaultyFileSystem()
    fd = disk.create(str(tmp_path / "f"))
    buffers = [n.to_bytes(2, "big") for n in range(2 * BUFFERS_PER_CALL + 1)]
    disk.write_at(fd, buffers, 0)
    assert disk.calls["write_some"] == 3
    assert (tmp_path / "f").read_bytes() == b"".join(buffers)
    disk.close(fd)


def test_reading_past_the_end_raises(tmp_path: Path) -> None:
    """A read that the file cannot satisfy is an EOFError with the figures, never a shorter answer."""
    fd = REAL_FILE_SYSTEM.create(str(tmp_path / "f"))
    REAL_FILE_SYSTEM.write_at(fd, [b"12345"], 0)
    with pytest.raises(EOFError, match="ends 3 bytes short of a read of 5 bytes at offset 3"):
        REAL_FILE_SYSTEM.read_at(fd, 5, 3)
    REAL_FILE_SYSTEM.close(fd)


def test_a_write_that_makes_no_progress_raises(tmp_path: Path) -> None:
    """A system that writes nothing without an error does not make write_at loop for ever."""

    class Stuck(FileSystem):
        def write_some(self, fd: int, buffers: object, offset: int) -> int:
            return 0

    fd = REAL_FILE_SYSTEM.create(str(tmp_path / "f"))
    with pytest.raises(OSError, match="wrote nothing at offset 7"):
        Stuck().write_at(fd, [b"", b"x"], 7)
    REAL_FILE_SYSTEM.close(fd)


def test_one_lock_per_open_file(tmp_path: Path) -> None:
    """The lock is exclusive between two opens of a file, also in one process, and ends with the fd."""
    path = str(tmp_path / "lock")
    first = REAL_FILE_SYSTEM.create(path)
    second = REAL_FILE_SYSTEM.open_existing(path)
    assert REAL_FILE_SYSTEM.lock(first)
    assert not REAL_FILE_SYSTEM.lock(second)
    REAL_FILE_SYSTEM.close(first)
    assert REAL_FILE_SYSTEM.lock(second)
    REAL_FILE_SYSTEM.close(second)


def test_the_rest_of_the_seam(tmp_path: Path) -> None:
    """Sizes, truncation, sync, listing, removal and free space are those of the system."""
    disk = REAL_FILE_SYSTEM
    path = str(tmp_path / "f")
    fd = disk.create(path)
    disk.write_at(fd, [b"123456"], 0)
    disk.truncate(fd, 4)
    disk.sync(fd)
    assert disk.size(fd) == 4
    assert disk.list_names(str(tmp_path)) == ["f"]
    assert stat.S_ISREG(disk.status(path).st_mode)
    assert disk.is_writable(str(tmp_path))
    assert 0 < disk.free_bytes(str(tmp_path)) < 1 << 60
    disk.remove(path)
    assert disk.read_at(fd, 4, 0) == b"1234"
    disk.close(fd)
    disk.make_directory(path)
    disk.remove_directory(path)
    assert disk.list_names(str(tmp_path)) == []


def test_faults_strike_when_asked(tmp_path: Path) -> None:
    """The faulty file system fails exactly the calls that were named, before or after their work."""
    disk = FaultyFileSystem()
    fd = disk.create(str(tmp_path / "f"))
    disk.fail("write_at", error=OSError(errno.EIO, "early"), after=1, times=2)
    disk.fail("sync", error=KeyboardInterrupt(), late=True, times=1)
    disk.write_at(fd, [b"a"], 0)
    for _ in range(2):
        with pytest.raises(OSError, match="early"):
            disk.write_at(fd, [b"b"], 0)
    disk.write_at(fd, [b"c"], 0)
    assert disk.read_at(fd, 1, 0) == b"c"
    with pytest.raises(KeyboardInterrupt):
        disk.sync(fd)
    disk.sync(fd)
    disk.disk_bytes = 3
    with pytest.raises(OSError, match="No space") as raised:
        disk.write_at(fd, [b"12", b"345"], 1)
    assert raised.value.errno == errno.ENOSPC
    assert disk.size(fd) == 4
    disk.heal()
    disk.write_at(fd, [b"12", b"345"], 1)
    assert disk.calls["write_at"] == 6
    disk.close(fd)
