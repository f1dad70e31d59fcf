"""Opening, copying and closing durable dicts: what ThermalDict.open(path) and its methods do.

    path/             mode 0700, ours alone
        lock          flock of the one writer; readers need none
        log-000000 .. hint-000000 ..  heat

Threads: a dict is opened by one thread; the other functions may be called from any.
"""

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from spectral_alloc._log import LogIndex
from spectral_alloc._restore import bring_back, heat_rows, restore
from spectral_alloc.clock import REAL_CLOCK, Clock
from spectral_alloc.durable_tiers import DurableTiers
from spectral_alloc.errors import CorruptLogError, LockedError, UntrustedError
from spectral_alloc.file_system import FileSystem, OpenFile
from spectral_alloc.governor import governor
from spectral_alloc.journal import DURABILITY, Journal
from spectral_alloc.log import Log, log_name
from spectral_alloc.log_dictionaries import load_dictionaries
from spectral_alloc.log_format import HEADER_BYTES, HEAT, Authenticator, Header
from spectral_alloc.log_recovery import Recovery, recover, validated_log_dir
from spectral_alloc.log_segment import hint_path
from spectral_alloc.segments import SEGMENT_BYTES
from spectral_alloc.stored_recipes import name_of_function
from spectral_alloc.tiers import Settings
from spectral_alloc.value_form import ValueForm

if TYPE_CHECKING:
    from spectral_alloc.thermal_dict import ThermalDict

__all__ = ["DurableSettings", "attach", "open_log", "snapshot"]

D = TypeVar("D", bound="ThermalDict[Any, Any]")

INTERVAL_SECONDS = 1.0
LOCK_NAME = "lock"
LOG_ID_BYTES = 16
HEAT_NAME = "heat"
COPY_BYTES = 8 << 20


@dataclass(frozen=True)
class DurableSettings:
    """What ThermalDict.open(path) was given beside the settings of every dict, checked."""

    path: str
    durability: str = "none"
    interval_seconds: float = INTERVAL_SECONDS
    key: bytes | str | None = None
    is_trusted: bool = False
    is_safe: bool = False
    is_readonly: bool = False
    clock: Clock = REAL_CLOCK
    segment_bytes: int = SEGMENT_BYTES

    def __post_init__(self) -> None:
        """Refuse bad values before anything is touched."""
        if self.durability not in DURABILITY:
            raise ValueError(f"durability must be one of {DURABILITY}, not {self.durability!r}")
        if not self.interval_seconds > 0:
            raise ValueError(f"interval_seconds must be positive, not {self.interval_seconds!r}")
        Authenticator(self.key)

    @property
    def form(self) -> ValueForm:
        """How values are written and what may be read."""
        return ValueForm(self.is_trusted or self.key is not None, self.is_safe)


def open_log(
    settings: DurableSettings,
    disk_limit_bytes: int | None,
    file_system: FileSystem,
    *,
    decode_key: Callable[[bytes], object] | None = None,
    cells: dict[Any, Any] | None = None,
    **how: bool,
) -> tuple[Recovery, OpenFile | None]:
    """Lock and recover the log in a directory, which is made if it does not exist (unless it is only to be read).

    ``cells``, if given, is the dict that gets the cells of what is live (LogIndex). Returns the recovery and the lock.
    Raises LockedError if another process writes there, PermissionError for a
    directory of somebody else, CorruptLogError and UntrustedError as ``recover`` does.
    """
    path = settings.path
    try:
        validated_log_dir(path, file_system)
    except FileNotFoundError:
        if settings.is_readonly:
            raise
        file_system.make_directory(path)
        file_system.sync_directory(os.path.dirname(path) or ".")
    lock = None if settings.is_readonly else locked(path, file_system)
    log = Log(
        path,
        b"",
        Authenticator(settings.key),
        disk_limit_bytes,
        file_system,
        segment_bytes=settings.segment_bytes,
        is_readonly=settings.is_readonly,
    )
    lock_id = id_in_lock(path, file_system)
    found = recover(log, LogIndex(decode_key or settings.form.key_of, cells), lock_id=lock_id, **how)
    if not log.log_id:
        log.log_id = secrets.token_bytes(LOG_ID_BYTES)
    if lock is not None:
        if lock_id != log.log_id:
            file_system.write_at(lock.fd, [log.log_id], 0)
        remove_orphans(log)
    return found, lock


def id_in_lock(path: str, file_system: FileSystem) -> bytes:
    """The log id in the lock file, b"" if there is none: the way to the records of a segment with a damaged header."""
    try:
        file = OpenFile(file_system, file_system.open_reading, os.path.join(path, LOCK_NAME))
        return file_system.read_at(file.fd, LOG_ID_BYTES, 0)
    except (OSError, EOFError):
        return b""


def locked(path: str, file_system: FileSystem) -> OpenFile:
    """The lock of a directory; LockedError if a living process has it."""
    refuse_foreign(path, file_system)
    name = os.path.join(path, LOCK_NAME)
    try:
        lock = OpenFile(file_system, file_system.open_existing, name)
    except FileNotFoundError:
        try:
            lock = OpenFile(file_system, file_system.create, name)
        except FileExistsError:
            lock = OpenFile(file_system, file_system.open_existing, name)
    if file_system.status_of(lock.fd).st_uid != os.geteuid():
        raise PermissionError(errno.EACCES, "the lock file belongs to another user", name)
    if not file_system.lock(lock.fd):
        message = "it is open for writing, in this process or another one; open it with readonly=True to read"
        raise LockedError(errno.EWOULDBLOCK, message, path)
    return lock


def refuse_foreign(path: str, file_system: FileSystem) -> None:
    """ValueError for a directory without a log whose files of our names are not ours: they would be overwritten."""
    if is_place_of_log(path, file_system, with_lock=False):
        return
    # A crash may have left a part of a lock.
    for name, bytes_max, start in ((LOCK_NAME, LOG_ID_BYTES, b""), (HEAT_NAME, None, HEAT)):
        try:
            file = OpenFile(file_system, file_system.open_reading, os.path.join(path, name))
        except FileNotFoundError:
            continue
        size = file_system.size(file.fd)
        is_longer = bytes_max is not None and size > bytes_max
        if is_longer or (size and file_system.read_some(file.fd, len(start), 0) != start):
            place = os.path.join(path, name)
            raise ValueError(f"{place} is not ours and would be overwritten: give the dict a directory of its own")


def is_place_of_log(path: str, file_system: FileSystem, with_lock: bool = True) -> bool:
    """Has a directory a log in it, or (if that counts) the lock of an empty one?"""
    first = log_name(0).rstrip("0123456789")
    return any(name.startswith(first) or (with_lock and name == LOCK_NAME) for name in file_system.list_names(path))


def checked_place(path: "str | bytes | os.PathLike[str] | None", is_durable: bool) -> str | None:
    """The absolute path of a durable dict; ValueError for an empty one, or for none where settings ask for one."""
    if path is None:
        if is_durable:
            raise ValueError("durability, interval_seconds, key and readonly need a path: without one nothing is kept")
        return None
    if not os.fspath(path):
        raise ValueError(f"path must name a directory, not {path!r}")
    return os.path.abspath(os.fsdecode(path))


def remove_orphans(log: Log) -> None:
    """Remove hint files whose segment is gone."""
    file_system = log._file_system
    wanted = {os.path.basename(hint_path(segment.path)) for segment in log.log_segments if segment.path is not None}
    with suppress(OSError):
        for name in file_system.list_names(log.directory):
            if name.startswith("hint-") and name not in wanted:
                file_system.remove(os.path.join(log.directory, name))


def attach(made: "ThermalDict[Any, Any]", settings: Settings, durable: DurableSettings) -> None:
    """Make a new, empty dict durable: fill it from its log, and report its writes to a journal from now on."""
    if settings.regrow is not None:
        name_of_function(settings.regrow)
    try:
        found, lock = open_log(durable, settings.disk_limit_bytes, settings.file_system, cells=made)
    except BaseException:
        dict.clear(made)  # of cells that are no entries yet
        raise
    try:
        require_trust(found, durable)
        tiers = DurableTiers(made._ledger, settings, found.log)
        journal = Journal(
            made, found.log, tiers.codec, durable.form, durable.durability, durable.interval_seconds, durable.clock
        )
        journal.lock = lock
        journal.logged = load_dictionaries(tiers.codec, found)
        tiers.serve(journal)
        reference = made._reference
        tiers.on_backlog = journal.on_backlog = lambda: governor.writer.submit(reference)
        tiers.on_pulse = governor.put_down_slack
        restore(made, found.index)
        made._adopt_tiers(tiers)
        made._journal = journal
        tiers.serve_recipes(made._regrowth)
        bring_back_heat(made, tiers)
    except BaseException:
        dict.clear(made)
        found.log.abandon()
        raise


def require_trust(found: Recovery, durable: DurableSettings) -> None:
    """Raise UntrustedError if what is live was pickled and may not be unpickled."""
    if found.index.pickled_count and not durable.form.is_trusted:
        raise UntrustedError(
            errno.EACCES,
            f"{found.index.pickled_count} values were stored by pickle or recipe, and reading them could run any code: "
            "pass trust=True if only you can write in the directory, or the key= it was written with",
            durable.path,
        )


# heat -----------------------------------------------------------------------------------------------------------------


def write_heat(container: "ThermalDict[Any, Any]", journal: Journal) -> None:
    """Keep how much each entry is used and where it was; nothing depends on it, so failing is fine."""
    log = journal.log
    rows = heat_rows(container, journal)
    path = os.path.join(log.directory, HEAT_NAME)
    file_system = log._file_system
    with suppress(OSError):
        with suppress(FileNotFoundError):
            file_system.remove(path)
        fd = file_system.create(path)
        try:
            header = Header(HEAT, log.log_id, 0, (0, 0, len(rows)))
            file_system.write_at(fd, [header.pack(log.authenticator, rows), rows], 0)
        finally:
            file_system.close(fd)


def bring_back_heat(container: "ThermalDict[Any, Any]", tiers: DurableTiers) -> None:
    """Give the entries their heat, and let the background bring back what was in RAM, the hottest first."""
    log = tiers.store
    file_system = log._file_system
    try:
        file = OpenFile(file_system, file_system.open_reading, os.path.join(log.directory, HEAT_NAME))
        data = file_system.read_at(file.fd, file_system.size(file.fd), 0)
        rows = data[HEADER_BYTES:]
        Header.parse(data, HEAT, log.authenticator, HEAT_NAME, rows)
    except (OSError, EOFError):
        return
    tiers.returning = bring_back(container, rows)
    if tiers.returning:
        tiers.on_backlog()


# the end, and copies
# ----------------------------------------------------------------------------------------------------


def detach(container: "ThermalDict[Any, Any]") -> None:
    """Commit and settle everything, and make the dict an ephemeral one, whose entries may be dropped."""
    journal = container._journal
    assert isinstance(journal, Journal)
    journal.close()
    if not journal.is_readonly:
        write_heat(container, journal)
    journal.log.close()
    container._journal = None
    journal.lock = None


def snapshot(container: "ThermalDict[Any, Any]", target: str) -> None:
    """Write what the dict is now to another directory, which must not exist; the dict can be used meanwhile.

    Raises FileExistsError, OSError. A crash leaves nothing under that name.
    """
    journal = container._journal
    assert isinstance(journal, Journal)
    log = journal.log
    file_system = log._file_system
    target = os.path.abspath(target)
    if target == log.directory or exists(target, file_system):
        raise FileExistsError(errno.EEXIST, "a snapshot needs a path that does not exist", target)
    journal.sync()
    with journal.holding():
        if not log.is_readonly:
            log.seal()
        segments = log.log_segments
    partial = f"{target}.partial-{secrets.token_hex(4)}"
    file_system.make_directory(partial)
    try:
        for segment in segments:
            assert segment.path is not None
            copy_file(file_system, segment.fd, segment.end_bytes, os.path.join(partial, os.path.basename(segment.path)))
        file_system.sync_directory(partial)
        file_system.rename(partial, target)
        file_system.sync_directory(os.path.dirname(target))
    except BaseException:
        with suppress(OSError):
            for name in file_system.list_names(partial):
                file_system.remove(os.path.join(partial, name))
            file_system.remove_directory(partial)
        raise


def exists(path: str, file_system: FileSystem) -> bool:
    """Is there anything under this name?"""
    try:
        file_system.status(path)
    except FileNotFoundError:
        return False
    return True


def copy_file(file_system: FileSystem, source_fd: int, length: int, target: str) -> None:
    """Copy the beginning of an open file to a new one, and settle it."""
    fd = file_system.create(target)
    try:
        for offset in range(0, length, COPY_BYTES):
            data = file_system.read_at(source_fd, min(COPY_BYTES, length - offset), offset)
            file_system.write_at(fd, [data], offset)
        file_system.sync(fd)
    except EOFError as error:
        raise CorruptLogError(f"{target} could not be copied: {error}") from None
    finally:
        file_system.close(fd)
