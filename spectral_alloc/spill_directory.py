"""The private directory of a cold store: locked while alive, removed at the end, swept after a crash.

    spill_dir/                              given by the user, or the system's directory for temporary files
        spectral_alloc-0123456789abcdef/    mode 0700, one per store and process
            lock                            exclusive flock, held as long as a process can still use the files
            segment-000000 ...              written by cold_store.py

Invariants:
1. A directory whose lock can be taken has no living user: its process died, or never finished creating it.
2. Only the process that created a directory removes it while its lock is held; a forked child never does.
3. The lock file is removed after everything else, so that an interrupted removal is finished by the next
sweep.
"""

import errno
import os
import re
import secrets
import stat
from contextlib import suppress

from spectral_alloc.file_system import FileSystem, OpenFile

__all__ = ["SpillDirectory", "validated_spill_dir"]

NAME_PREFIX = "spectral_alloc-"
NAME_PATTERN = re.compile(NAME_PREFIX + "[0-9a-f]{16}")
LOCK_NAME = "lock"
# Each attempt fails only if another process sweeps in the microseconds between two of our system calls.
CREATE_ATTEMPTS = 16


def validated_spill_dir(spill_dir: str | os.PathLike[str], file_system: FileSystem) -> str:
    """Return the absolute path, links resolved, of a directory that is safe and fit to hold spilled values.

    Raises FileNotFoundError, NotADirectoryError or PermissionError naming the path. A directory is refused if
    another user than root owns it, if every user may rename what is in it (world-writable without the sticky
    bit), or if it is not writable; one whose owner has no write permission counts as not writable even for
    root.

    >>> from spectral_alloc.file_system import REAL_FILE_SYSTEM
    >>> validated_spill_dir("/proc/version", REAL_FILE_SYSTEM)
    Traceback (most recent call last):
    NotADirectoryError: [Errno 20] spill_dir is not a directory: '/proc/version'
    """
    given = os.fspath(spill_dir) if isinstance(spill_dir, (str, os.PathLike)) else None
    if not isinstance(given, str):
        raise TypeError(f"spill_dir must be a str or a path of str, not {spill_dir!r}")
    if not given:
        raise FileNotFoundError(errno.ENOENT, "spill_dir is an empty path", given)
    path = os.path.realpath(given)
    try:
        status = file_system.status(path)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "spill_dir does not exist", given) from None
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "spill_dir is not a directory", given)
    if status.st_uid not in (0, os.geteuid()):
        raise PermissionError(errno.EACCES, f"spill_dir belongs to another user (uid {status.st_uid})", given)
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        message = (
            "spill_dir is writable by every user; set its sticky bit (chmod +t) or use a private directory"
        )
        raise PermissionError(errno.EACCES, message, given)
    owner_may_write = status.st_uid != os.geteuid() or status.st_mode & stat.S_IWUSR
    if not owner_may_write or not file_system.is_writable(path):
        raise PermissionError(errno.EACCES, "spill_dir is not writable", given)
    return path


class SpillDirectory:
    """One private directory inside ``parent``, locked from birth; creating it sweeps those of dead processes.

    Parameters: parent (a path from ``validated_spill_dir``), file_system. Raises OSError, and then leaves
    nothing.
    Cost: a few system calls, and the removal of what crashed processes left. Threads: the caller's lock.

    >>> import tempfile
    >>> from spectral_alloc.file_system import REAL_FILE_SYSTEM
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     home = SpillDirectory(parent, REAL_FILE_SYSTEM)
    ...     os.listdir(home.path)
    ...     home.remove()
    ...     os.listdir(parent)
    ['lock']
    []
    """

    def __init__(self, parent: str, file_system: FileSystem) -> None:
        self._file_system = file_system
        self._process_id = os.getpid()
        # Dropped with this object: a directory that nobody can remove any more is swept by the next store.
        self._lock: OpenFile | None = None
        self.removed = False
        sweep(parent, file_system)
        for _ in range(CREATE_ATTEMPTS):
            self.path = os.path.join(parent, NAME_PREFIX + secrets.token_hex(8))
            if self._create():
                return
        raise OSError(errno.EBUSY, "cannot create a private directory that stays", parent)

    def _create(self) -> bool:
        """Create and lock ``self.path``; False if a sweeping process took the newcomer for a dead one."""
        file_system = self._file_system
        file_system.make_directory(self.path)
        try:
            try:
                self._lock = OpenFile(file_system, file_system.create, os.path.join(self.path, LOCK_NAME))
            except FileNotFoundError:
                return False
            # A sweeper that had the lock first has removed the file, though our fd to it is still good.
            if file_system.lock(self._lock.fd) and self._lock_file_exists():
                return True
            self._lock = None
            return False
        except BaseException:
            with suppress(OSError):
                remove_private_directory(self.path, file_system)
            self._lock = None
            raise

    def _lock_file_exists(self) -> bool:
        try:
            self._file_system.status(os.path.join(self.path, LOCK_NAME))
        except FileNotFoundError:
            return False
        return True

    def remove(self) -> None:
        """Remove the directory if this process created it, and let go of the lock; may be repeated."""
        if self._process_id == os.getpid():
            remove_private_directory(self.path, self._file_system)
            self.removed = True
            self._process_id = 0
        self._lock = None


def remove_private_directory(path: str, file_system: FileSystem) -> None:
    """Remove a private directory, its lock file last; one that is already gone is fine."""
    with suppress(FileNotFoundError):
        for name in file_system.list_names(path):
            if name != LOCK_NAME:
                with suppress(FileNotFoundError):
                    file_system.remove(os.path.join(path, name))
        with suppress(FileNotFoundError):
            file_system.remove(os.path.join(path, LOCK_NAME))
        file_system.remove_directory(path)


def sweep(parent: str, file_system: FileSystem) -> None:
    """Remove from ``parent`` the private directories of this user that no living process holds.

    What cannot be removed is left for a later sweep: a failure here must not keep a new store from starting.
    """
    with suppress(OSError):
        for name in file_system.list_names(parent):
            if NAME_PATTERN.fullmatch(name):
                with suppress(OSError):
                    remove_if_dead(os.path.join(parent, name), file_system)


def remove_if_dead(path: str, file_system: FileSystem) -> None:
    """Remove one private directory if it is ours and its lock is free; OSError when it resists."""
    status = file_system.status(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    try:
        lock = OpenFile(file_system, file_system.open_existing, os.path.join(path, LOCK_NAME))
    except FileNotFoundError:
        # Its process died, or is, before the lock file was made: only an empty directory goes, and a living
        # creator notices that and starts again.
        file_system.remove_directory(path)
        return
    if file_system.lock(lock.fd):
        remove_private_directory(path, file_system)
