"""A file system in memory that loses power: what was not synced may be gone, in parts, torn at any byte.

    disk = SimulatedFileSystem()                a directory "/disk" in it
    disk.crash_at(17)                           the 17th operation from now raises PowerLoss; later ones do too
    disk.fail_at(17, OSError(errno.EIO, ""))    only the 17th operation raises; writes may be done in part before it
    after = disk.survivor(random.Random(3))     what a machine that boots again might find

What is volatile: bytes written since the last sync of their file (each write survives whole, in part, or not at all,
in any order), and names made or removed since the last sync of their directory. A failed sync has thrown its bytes
away for good: they can be read until the power goes, and no later sync of the file covers them.
"""

import errno
import os
import random
import stat
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from spectral_alloc.clock import Clock
from spectral_alloc.file_system import Buffer, FileSystem

ROOT = "/disk"
SECTOR = 512


class PowerLoss(BaseException):
    """The machine is off."""


class SimulatedClock(Clock):
    """Time that a test moves."""

    runs_by_itself = False

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """The time the test set."""
        return self.now


class _File:
    """An inode: what is in it now, what is certainly on the platter, and the changes between."""

    def __init__(self) -> None:
        self.now = bytearray()
        self.settled = bytearray()
        self.pending: list[tuple[str, int, bytes]] = []
        self.locked_by: int | None = None

    def apply(self, change: tuple[str, int, bytes]) -> None:
        """Make one change to what is on the platter."""
        kind, offset, data = change
        if kind == "truncate":
            del self.settled[offset:]
            self.settled.extend(bytes(offset - len(self.settled)))
        else:
            self.settled.extend(bytes(max(0, offset - len(self.settled))))
            self.settled[offset : offset + len(data)] = data

    def sync(self) -> None:
        """Everything is on the platter."""
        for change in self.pending:
            self.apply(change)
        self.pending.clear()

    def survivor(self, chance: random.Random) -> "_File":
        """The file after the power went."""
        left = _File()
        left.settled = bytearray(self.settled)
        mode = chance.randrange(4)
        for kind, offset, data in self.pending if mode else ():
            if kind == "truncate" or mode == 1:
                left.apply((kind, offset, data))
            elif mode == 2:
                left.apply((kind, offset, data[: chance.randrange(len(data) + 1)]))
                break
            else:
                for start in range(0, len(data), SECTOR):
                    if chance.random() < 0.5:
                        left.apply((kind, offset + start, data[start : start + SECTOR]))
        left.now = bytearray(left.settled)
        return left


class SimulatedFileSystem(FileSystem):
    """Files in memory. Attributes: ``count`` (operations so far), ``disk_bytes`` (ENOSPC beyond),
    ``write_bytes_max``."""

    def __init__(self) -> None:
        self.names: dict[str, _File | None] = {ROOT: None}
        self.settled_names: dict[str, _File | None] = {ROOT: None}
        self.open_files: dict[int, tuple[_File, bool]] = {}
        self.next_fd = 1000
        self.count = 0
        self.off = False
        self.disk_bytes = 1 << 40
        self.write_bytes_max = 1 << 40
        self._crash_at: int | None = None
        self._fail_at: tuple[int, int, BaseException] | None = None
        self.failures = 0

    def crash_at(self, operation: int) -> None:
        """Lose the power at an operation from now on, the first being 1."""
        self._crash_at = self.count + operation

    def fail_at(self, operation: int, error: BaseException, times: int = 1) -> None:
        """Let some operations from now on fail."""
        self._fail_at = (self.count + operation, self.count + operation + times, error)

    def heal(self) -> None:
        """Nothing fails any more."""
        self._fail_at = None
        self.disk_bytes = 1 << 40

    def survivor(self, chance: random.Random) -> "SimulatedFileSystem":
        """What is left when the power comes back; this one is as it was, so several can be asked for."""
        left = SimulatedFileSystem()
        made: dict[int, _File] = {}
        names = dict(self.settled_names)
        changed = [name for name in {**self.names, **self.settled_names} if self._differs(name)]
        for name in changed:
            if chance.random() < 0.5:
                if name in self.names:
                    names[name] = self.names[name]
                else:
                    names.pop(name, None)
        for name, file in names.items():
            if file is not None and id(file) not in made:
                made[id(file)] = file.survivor(chance)
            left.names[name] = made[id(file)] if file is not None else None
        left.settled_names = dict(left.names)
        return left

    def _differs(self, name: str) -> bool:
        return self.names.get(name, self) is not self.settled_names.get(name, self)

    # every operation -------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        """Count an operation that changes the disk, and fail if it is its turn."""
        if self.off:
            raise PowerLoss
        self.count += 1
        if self._crash_at is not None and self.count >= self._crash_at:
            self.off = True
            raise PowerLoss

    def _strike(self) -> None:
        if self._fail_at is not None and self._fail_at[0] <= self.count < self._fail_at[1]:
            self.failures += 1
            raise self._fail_at[2]

    def _file(self, path: str) -> _File:
        file = self.names.get(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return file

    def _open(self, file: _File, writable: bool) -> int:
        self.next_fd += 1
        self.open_files[self.next_fd] = (file, writable)
        return self.next_fd

    def _used(self) -> int:
        return sum(len(file.now) for file in list(self.names.values()) if file is not None)

    # the interface
    # -----------------------------------------------------------------------------------------------------

    def create(self, path: str) -> int:
        """Create a file."""
        self._step()
        self._strike()
        if path in self.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if os.path.dirname(path) not in self.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        file = self.names[path] = _File()
        return self._open(file, True)

    def open_existing(self, path: str) -> int:
        """Open for writing."""
        if self.off:
            raise PowerLoss
        return self._open(self._file(path), True)

    def open_reading(self, path: str) -> int:
        """Open for reading."""
        if self.off:
            raise PowerLoss
        return self._open(self._file(path), False)

    def write_some(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Write, perhaps less than asked; the power may go in the middle."""
        file, writable = self.open_files[fd]
        assert writable
        data = b"".join(buffers)[: self.write_bytes_max]
        try:
            self._step()
            self._strike()
        except PowerLoss:
            if self.count == self._crash_at:
                self._write(file, data[: len(data) // 2], offset)
            raise
        except OSError:
            self._write(file, data[: len(data) // 2], offset)
            raise
        room = self.disk_bytes - self._used() - max(0, offset + len(data) - len(file.now)) + len(data)
        if room < len(data):
            if room <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[:room]
        self._write(file, data, offset)
        return len(data)

    def _write(self, file: _File, data: bytes, offset: int) -> None:
        file.now.extend(bytes(max(0, offset - len(file.now))))
        file.now[offset : offset + len(data)] = data
        file.pending.append(("write", offset, data))

    def read_some(self, fd: int, length: int, offset: int) -> bytes:
        """Read."""
        if self.off:
            raise PowerLoss
        return bytes(self.open_files[fd][0].now[offset : offset + length])

    def size(self, fd: int) -> int:
        """Length of a file."""
        return len(self.open_files[fd][0].now)

    def truncate(self, fd: int, length: int) -> None:
        """Cut a file."""
        self._step()
        self._strike()
        file = self.open_files[fd][0]
        del file.now[length:]
        file.now.extend(bytes(length - len(file.now)))
        file.pending.append(("truncate", length, b""))

    def sync(self, fd: int) -> None:
        """Settle a file; a failing sync throws away what it should have settled."""
        self._step()
        file = self.open_files[fd][0]
        try:
            self._strike()
        except OSError:
            file.pending = [change for change in file.pending if change[0] == "truncate"]
            raise
        file.sync()

    def sync_directory(self, path: str) -> None:
        """Settle the names in a directory."""
        self._step()
        self._strike()
        inside = {name for name in {**self.names, **self.settled_names} if os.path.dirname(name) == path}
        for name in inside:
            if name in self.names:
                self.settled_names[name] = self.names[name]
            else:
                self.settled_names.pop(name, None)

    def rename(self, source: str, target: str) -> None:
        """Rename a file or a directory with all that is in it."""
        self._step()
        self._strike()
        moved = [name for name in self.names if name == source or name.startswith(source + "/")]
        if not moved:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
        for name in moved:
            self.names[target + name[len(source) :]] = self.names.pop(name)
            if name != source and name in self.settled_names:
                self.settled_names[target + name[len(source) :]] = self.settled_names.pop(name)

    def close(self, fd: int) -> None:
        """Close a file; its lock goes with it."""
        file, _ = self.open_files.pop(fd)
        if file.locked_by == fd:
            file.locked_by = None

    def remove(self, path: str) -> None:
        """Unlink a file."""
        self._step()
        self._strike()
        self._file(path)
        del self.names[path]

    def make_directory(self, path: str) -> None:
        """Make a directory."""
        self._step()
        self._strike()
        if path in self.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self.names[path] = None

    def remove_directory(self, path: str) -> None:
        """Remove a directory."""
        self._step()
        self._strike()
        del self.names[path]

    def list_names(self, path: str) -> list[str]:
        """The names in a directory."""
        return [os.path.basename(name) for name in self.names if os.path.dirname(name) == path]

    def status(self, path: str) -> Any:
        """Owner and kind."""
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        kind = stat.S_IFDIR | 0o700 if self.names[path] is None else stat.S_IFREG | 0o600
        return SimpleNamespace(st_mode=kind, st_uid=os.geteuid(), st_size=0)

    def status_of(self, fd: int) -> Any:
        """Owner and kind of an open file."""
        return SimpleNamespace(st_mode=stat.S_IFREG | 0o600, st_uid=os.geteuid(), st_size=self.size(fd))

    def is_writable(self, path: str) -> bool:
        """Always."""
        return True

    def lock(self, fd: int) -> bool:
        """Take the lock of a file."""
        file = self.open_files[fd][0]
        if file.locked_by is not None and file.locked_by in self.open_files and file.locked_by != fd:
            return False
        file.locked_by = fd
        return True

    def free_bytes(self, path: str) -> int:
        """What is left."""
        return self.disk_bytes - self._used()
