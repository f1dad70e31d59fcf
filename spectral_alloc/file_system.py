"""The file-system seam: every file the library writes goes through one ``FileSystem``, which tests replace.

Words: an *fd* is an open file descriptor; ``*_some`` methods do one system call and may do less than was
asked, ``*_at`` methods finish the job or raise. Faults are injected by overriding methods, so nothing here is
clever.
Threads: stateless, every method may run in several threads; system calls release the GIL.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

__all__ = ["REAL_FILE_SYSTEM", "Buffer", "FileSystem", "OpenFile"]

Buffer = bytes | bytearray | memoryview

# A file of ours is never reached through a link that somebody else planted, nor inherited by an executed
# program.
COMMON_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
PRIVATE_FILE_MODE = 0o600
PRIVATE_DIRECTORY_MODE = 0o700
BUFFERS_PER_CALL = os.sysconf("SC_IOV_MAX")
# Linux moves at most this many bytes in one call, whatever is asked.
READ_BYTES_MAX = 0x7FFF_F000


class FileSystem:
    """The operating system's files, as few operations as the library needs.

    All paths are absolute strings, all sizes and offsets are bytes, and every error is the system's own
    OSError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     fd = REAL_FILE_SYSTEM.create(directory + "/example")
    ...     REAL_FILE_SYSTEM.write_at(fd, [b"warm", b"cold"], 0)
    ...     REAL_FILE_SYSTEM.read_at(fd, 4, 4)
    ...     REAL_FILE_SYSTEM.close(fd)
    b'cold'
    """

    def create(self, path: str) -> int:
        """Create a private file that must not exist yet and return its fd."""
        return os.open(path, COMMON_FLAGS | os.O_CREAT | os.O_EXCL, PRIVATE_FILE_MODE)

    def open_existing(self, path: str) -> int:
        """Open a file for reading and writing and return its fd; a symbolic link is refused."""
        return os.open(path, COMMON_FLAGS)

    def open_reading(self, path: str) -> int:
        """Open a file for reading only and return its fd; a symbolic link is refused."""
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def write_some(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Write a beginning of at most ``BUFFERS_PER_CALL`` buffers and return how many bytes that was."""
        return os.pwritev(fd, buffers, offset)

    def write_at(self, fd: int, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all buffers one after the other from ``offset``; on an error an unknown part is written.

        Cost: one system call per ``BUFFERS_PER_CALL`` buffers, more if the system writes less than asked.
        """
        pending = list(buffers)
        first = 0
        while first < len(pending):
            written = self.write_some(fd, pending[first : first + BUFFERS_PER_CALL], offset)
            before = (first, offset)
            offset += written
            while first < len(pending) and written >= len(pending[first]):
                written -= len(pending[first])
                first += 1
            if written:
                pending[first] = memoryview(pending[first])[written:]
            if (first, offset) == before:
                raise OSError(errno.EIO, f"the system wrote nothing at offset {offset} and gave no reason")

    def read_some(self, fd: int, length: int, offset: int) -> bytes:
        """Read at most ``length`` bytes; empty at the end of the file."""
        return os.pread(fd, length, offset)

    def read_at(self, fd: int, length: int, offset: int) -> bytes:
        """Read exactly ``length`` bytes; EOFError when the file ends before that."""
        data = self.read_some(fd, length if length <= READ_BYTES_MAX else READ_BYTES_MAX, offset)
        if len(data) == length:
            return data
        return self._read_rest_slow(fd, length, offset, data)

    def _read_rest_slow(self, fd: int, length: int, offset: int, start: bytes) -> bytes:
        parts = [start]
        done = len(start)
        while done < length and parts[-1]:
            parts.append(self.read_some(fd, min(length - done, READ_BYTES_MAX), offset + done))
            done += len(parts[-1])
        if done < length:
            raise EOFError(
                f"file ends {length - done} bytes short of a read of {length} bytes at offset {offset}"
            )
        return b"".join(parts)

    def size(self, fd: int) -> int:
        """Return the length of an open file."""
        return os.fstat(fd).st_size

    def truncate(self, fd: int, length: int) -> None:
        """Cut an open file to ``length`` bytes."""
        os.ftruncate(fd, length)

    def sync(self, fd: int) -> None:
        """Return when the file's bytes, and what is needed to read them back, are on stable storage."""
        os.fdatasync(fd)

    def sync_directory(self, path: str) -> None:
        """Return when the names that were made, changed or removed in a directory are on stable storage."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: str, target: str) -> None:
        """Give a file or directory another name in one piece; a file of that name is replaced."""
        os.rename(source, target)

    def close(self, fd: int) -> None:
        """Close an fd; it is invalid afterwards even if this raises."""
        os.close(fd)

    def remove(self, path: str) -> None:
        """Unlink a file; its bytes live on until the last fd to it is closed."""
        os.unlink(path)

    def make_directory(self, path: str) -> None:
        """Create a directory that only its owner may enter."""
        os.mkdir(path, PRIVATE_DIRECTORY_MODE)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def list_names(self, path: str) -> list[str]:
        """Return the names in a directory, in no order."""
        return os.listdir(path)

    def status(self, path: str) -> os.stat_result:
        """Return owner, mode and kind of a path, without following a link at its end."""
        return os.lstat(path)

    def status_of(self, fd: int) -> os.stat_result:
        """Return owner, mode and kind of an open file."""
        return os.fstat(fd)

    def is_writable(self, path: str) -> bool:
        """Say whether the kernel lets this process create files in a directory; root it lets always."""
        return os.access(path, os.W_OK | os.X_OK, effective_ids=True)

    def lock(self, fd: int) -> bool:
        """Take the exclusive lock of an open file without waiting; False if another open of it has the lock.

        The lock belongs to the open file, so a forked child holds it too, and it ends with the last fd.
        """
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def free_bytes(self, path: str) -> int:
        """Return the bytes that this user may still write to the file system of ``path``."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize


REAL_FILE_SYSTEM = FileSystem()


class OpenFile:
    """A file that is open for as long as somebody refers to this object.

    Parameters: file_system, opener (one of its methods that return an fd), path.
    """

    # What the destructor sees if Ctrl-C strikes before the file is open.
    fd = -1

    def __init__(self, file_system: FileSystem, opener: Callable[[str], int], path: str) -> None:
        self._file_system = file_system
        self.fd = opener(path)

    def __del__(self) -> None:
        if self.fd >= 0:
            with suppress(OSError):
                self._file_system.close(self.fd)
