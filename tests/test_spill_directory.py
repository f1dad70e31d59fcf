"""The private directory of a cold store: refused where unsafe, removed at the end, swept after a crash."""

import os
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from faults import FaultyFileSystem

from spectral_alloc.cold_store import ColdStore
from spectral_alloc.file_system import REAL_FILE_SYSTEM, FileSystem
from spectral_alloc.spill_directory import LOCK_NAME, SpillDirectory, validated_spill_dir

AS_ROOT = os.geteuid() == 0
SOMEBODY = 65534

CHILD = """
import sys
from spectral_alloc.cold_store import ColdStore
store = ColdStore(sys.argv[1])
store.append([b"frame" * 1000])
print(store.directory, flush=True)
"""


def child(spill_dir: Path, then: str) -> "subprocess.Popen[str]":
    """A process with a store in ``spill_dir`` that has printed its directory and goes on with ``then``."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + then, str(spill_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def printed_line(process: "subprocess.Popen[str]") -> str:
    """The next line that the child prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: "subprocess.Popen[str]") -> int:
    """Let the child go on by closing its standard input, and return its exit status."""
    process.communicate(timeout=30)
    return process.returncode


def test_missing(tmp_path: Path) -> None:
    """A spill directory that does not exist is refused at once, by name, and is not created."""
    with pytest.raises(FileNotFoundError, match=r"spill_dir does not exist: '.*nowhere'"):
        ColdStore(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"empty path"):
        ColdStore("")
    assert list(tmp_path.iterdir()) == []


def test_not_a_directory(tmp_path: Path) -> None:
    """A file is refused by name, also through a link."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        with pytest.raises(NotADirectoryError, match=f"spill_dir is not a directory: '.*{name}'"):
            ColdStore(tmp_path / name)


def test_not_writable(tmp_path: Path) -> None:
    """A directory without the owner's write permission is refused by name, for root as well."""
    directory = tmp_path / "sealed"
    directory.mkdir(mode=0o500)
    with pytest.raises(PermissionError, match=r"spill_dir is not writable: '.*sealed'"):
        ColdStore(str(directory))


def test_read_only_file_system(tmp_path: Path) -> None:
    """A directory that the kernel says cannot be written is refused, whatever its mode says."""

    class ReadOnly(FileSystem):
        def is_writable(self, path: str) -> bool:
            return False

    with pytest.raises(PermissionError, match="not writable"):
        ColdStore(tmp_path, None, ReadOnly())


@pytest.mark.skipif(not AS_ROOT, reason="only root can give a directory away")
def test_someone_elses(tmp_path: Path) -> None:
    """A directory that belongs to another user is refused by name, also for root."""
    directory = tmp_path / "theirs"
    directory.mkdir(mode=0o777)
    os.chown(directory, SOMEBODY, SOMEBODY)
    with pytest.raises(PermissionError, match=f"another user .uid {SOMEBODY}.*theirs"):
        ColdStore(directory)


def test_writable_by_all_needs_the_sticky_bit(tmp_path: Path) -> None:
    """Where every user may rename our directory nothing is spilled; the sticky bit of /tmp forbids that."""
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(PermissionError, match=r"sticky bit .chmod .t.*open"):
        ColdStore(directory)
    directory.chmod(0o1777)
    ColdStore(directory).close()


@pytest.mark.parametrize("value", [5, b"/tmp", None, ["/tmp"]])
def test_not_a_path(value: object) -> None:
    """Something that is no path of str is a TypeError that shows it."""
    with pytest.raises(TypeError, match="spill_dir must be a str or a path"):
        validated_spill_dir(value, REAL_FILE_SYSTEM)  # type: ignore[arg-type]  # the point of the test


def test_link_to_a_good_directory(tmp_path: Path) -> None:
    """A link is fine if its target is, and later changes of the link do not matter."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = ColdStore(tmp_path / "link")
    (tmp_path / "link").unlink()
    store.append([b"x"])
    assert store.directory is not None
    assert Path(store.directory).parent == tmp_path / "real"
    store.close()


def test_relative_path_outlives_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative spill directory means what it meant when the store was made."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    store = ColdStore("here")
    monkeypatch.chdir("/")
    store.append([b"x"])
    assert len(list((tmp_path / "here").iterdir())) == 1
    store.close()


def test_default_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a spill directory the system's one is used, and only from the first append on."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = ColdStore()
    assert store.directory is None
    assert list(tmp_path.iterdir()) == []
    store.append([b"x"])
    assert [str(path) for path in tmp_path.iterdir()] == [store.directory]
    store.close()


def test_private_and_removed_at_close(tmp_path: Path) -> None:
    """The directory has mode 0700 and a recognisable name, its files 0600, and close removes it all."""
    store = ColdStore(tmp_path)
    store.append([b"x"])
    (directory,) = tmp_path.iterdir()
    assert directory.name.startswith("spectral_alloc-")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_removed_with_the_store(tmp_path: Path) -> None:
    """A store that is forgotten without close takes its directory along."""
    store = ColdStore(tmp_path)
    store.append([b"x"])
    del store
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("then", ["", "sys.exit(3)", "raise RuntimeError('expected by the test')"])
def test_removed_at_exit(tmp_path: Path, then: str) -> None:
    """A process that ends without close removes its directory, also after an exception."""
    process = subprocess.run(
        [sys.executable, "-c", CHILD + "keep = store\n" + then, str(tmp_path)], capture_output=True, text=True
    )
    assert process.stdout.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert "Exception ignored" not in process.stderr


@pytest.mark.parametrize("append", ["", "store.append([b'own'])"])
def test_exit_of_a_forked_child(tmp_path: Path, append: str) -> None:
    """The exit handlers of a forked child remove its own directory and never its parent's."""
    then = f"""
import os
child = os.fork()
if child == 0:
    {append}
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert store.read(0, 5) == b"frame"
store.check()
print(os.listdir(sys.argv[1]) == [os.path.basename(store.directory)])
"""
    process = child(tmp_path, then)
    assert Path(printed_line(process)).parent == tmp_path
    assert printed_line(process) == "True"
    assert finish(process) == 0
    assert list(tmp_path.iterdir()) == []


def test_still_readable_at_exit(tmp_path: Path) -> None:
    """An exit handler that runs after the directory is gone reads and appends, but makes no new directory."""
    then = """
def late():
    (place,) = store.append([b"late"])
    assert store.read(place, 4) == b"late" and store.read(0, 5) == b"frame"
    store.seal()
    try:
        store.append([b"later"])
    except FileNotFoundError:
        print("read", flush=True)
"""
    # Handlers run in the reverse order of their registration, so this one runs after the store's.
    ahead = "import atexit\natexit.register(lambda: late())\n"
    process = subprocess.run(
        [sys.executable, "-c", ahead + CHILD + then, str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert process.stdout.splitlines()[1:] == ["read"], process.stderr
    assert list(tmp_path.iterdir()) == []


def test_swept_after_a_kill(tmp_path: Path) -> None:
    """What a killed process left is removed when the next store in that directory starts, and not before."""
    process = child(tmp_path, "sys.stdin.read()")
    left = Path(printed_line(process))
    process.kill()
    finish(process)
    assert (left / "segment-000000").stat().st_size == 5000
    store = ColdStore(tmp_path)
    assert left.exists()
    store.append([b"x"])
    assert [str(path) for path in tmp_path.iterdir()] == [store.directory]
    store.close()


def test_living_process_is_not_swept(tmp_path: Path) -> None:
    """The directory of another living process, and of another store of this one, stays."""
    process = child(tmp_path, "sys.stdin.read(); store.append([store.read(0, 5)]); store.check()")
    theirs = Path(printed_line(process))
    first, second = ColdStore(tmp_path), ColdStore(tmp_path)
    first.append([b"x"])
    second.append([b"x"])
    assert {str(path) for path in tmp_path.iterdir()} == {str(theirs), first.directory, second.directory}
    assert (theirs / "segment-000000").exists()
    first.close()
    second.close()
    assert list(tmp_path.iterdir()) == [theirs]
    assert finish(process) == 0
    assert list(tmp_path.iterdir()) == []


def test_forked_child_of_a_killed_parent_is_not_swept(tmp_path: Path) -> None:
    """While a forked child can still read the files of its killed parent, the parent's directory stays."""
    then = """
import os
if os.fork() == 0:
    print(os.getpid(), flush=True)
    sys.stdin.read()
    assert store.read(0, 5) == b"frame"
    os._exit(0)
os.wait()
"""
    process = child(tmp_path, then)
    theirs = Path(printed_line(process))
    grandchild = int(printed_line(process))
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    store = ColdStore(tmp_path)
    store.append([b"x"])
    assert theirs.exists()
    store.close()
    exit_fd = os.pidfd_open(grandchild)
    finish(process)
    assert select.select([exit_fd], [], [], 30)[0] == [exit_fd]
    os.close(exit_fd)
    store = ColdStore(tmp_path)
    store.append([b"x"])
    store.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "spectral_alloc-backup",
        "spectral_alloc-0123456789abcdeg",
        "spectral_alloc-0123456789abcdef0",
        "other",
        "x" * 31,
    ],
)
def test_other_names_are_not_swept(tmp_path: Path, name: str) -> None:
    """A directory whose name is not exactly one of ours is left alone, even if it looks abandoned."""
    (tmp_path / name).mkdir()
    (tmp_path / name / LOCK_NAME).touch()
    SpillDirectory(str(tmp_path), REAL_FILE_SYSTEM).remove()
    assert (tmp_path / name / LOCK_NAME).exists()


def test_what_resists_the_sweep_does_not_stop_the_store(tmp_path: Path) -> None:
    """A link, a file and a full directory without a lock under our name are left, and the store starts."""
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / LOCK_NAME).touch()
    (tmp_path / "spectral_alloc-0000000000000001").symlink_to(tmp_path / "target")
    (tmp_path / "spectral_alloc-0000000000000002").touch()
    (tmp_path / "spectral_alloc-0000000000000003").mkdir()
    (tmp_path / "spectral_alloc-0000000000000003" / "foreign").touch()
    before = sorted(tmp_path.rglob("*"))
    SpillDirectory(str(tmp_path), REAL_FILE_SYSTEM).remove()
    assert sorted(tmp_path.rglob("*")) == before


def test_empty_directory_is_swept(tmp_path: Path) -> None:
    """A directory whose process died before it made the lock file goes too."""
    (tmp_path / "spectral_alloc-0000000000000001").mkdir()
    SpillDirectory(str(tmp_path), REAL_FILE_SYSTEM).remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not AS_ROOT, reason="only root can give a directory away")
def test_someone_elses_leftover_is_not_swept(tmp_path: Path) -> None:
    """An abandoned directory of another user is not ours to remove, not even as root."""
    left = tmp_path / "spectral_alloc-0000000000000001"
    left.mkdir()
    (left / LOCK_NAME).touch()
    os.chown(left, SOMEBODY, SOMEBODY)
    SpillDirectory(str(tmp_path), REAL_FILE_SYSTEM).remove()
    assert (left / LOCK_NAME).exists()


@pytest.mark.parametrize("moment", ["create", "lock", "status"])
def test_creator_survives_a_sweeper_at_any_moment(tmp_path: Path, moment: str) -> None:
    """A second process that sweeps while the directory is half made costs a new attempt, nothing else."""
    disk = FaultyFileSystem()
    sweeps = []

    def sweep_once() -> None:
        if not sweeps:
            sweeps.append(1)
            SpillDirectory(str(tmp_path), REAL_FILE_SYSTEM).remove()

    disk.before(moment, sweep_once)
    home = SpillDirectory(str(tmp_path), disk)
    assert sweeps == [1]
    assert [str(path) for path in tmp_path.iterdir()] == [home.path]
    assert os.listdir(home.path) == [LOCK_NAME]
    home.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["make_directory", "create", "lock", "status"])
@pytest.mark.parametrize("error", [PermissionError(13, "injected"), KeyboardInterrupt()])
def test_failing_creation_leaves_nothing(tmp_path: Path, method: str, error: BaseException) -> None:
    """An error or Ctrl-C while the directory is made reaches the caller and leaves no trace."""
    disk = FaultyFileSystem()
    disk.fail(method, error=error, times=1)
    with pytest.raises(type(error)):
        SpillDirectory(str(tmp_path), disk)
    assert list(tmp_path.iterdir()) == []
    SpillDirectory(str(tmp_path), disk).remove()
