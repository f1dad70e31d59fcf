"""The edit log: the edits of a space in one append-only file, in checksummed blocks, so that they outlive the process.

Words: a *block* is up to 4096 edits under one CRC-32C (core/edit_block.h); edits are *appended* in memory, *written* to
the file, *durable* on stable storage; the *tail* is what lies beyond the last durable byte; *torn* is a tail that was
being written when the process or the machine stopped.

    file  | header 64 B | block | block | ...        (edit_file.py, core/edit_block.h)

Invariants:
1. The file holds the edits in the order in which the space took them, up to a point; what is before its end never
   changes.
2. What sync() or "always" covered, or is older than the interval with "interval", is durable.
3. A block that is damaged at a place that was durable when a later block was made, or when the file got its name as a
   whole, or when it was closed, is an error; any other is a torn tail, and is cut off.
4. A compacted file takes the place of the old one only when it is durable.

Threads: any; one lock orders those that write the file, another those that sync it. An edit waits for the disk only
with "always", or when 65,536 edits wait already; with "interval" a thread of the log writes these while the next ones
are made. Forks: a child must not write, and says so; its locks are new ones, so that it can let the log go at any time.
Cost: 8 to 16 bytes an edit, one system call for up to 65,536 edits, one sync for all edits of all threads that wait.
"""

import os
import threading
import time
import weakref
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple

from spectral_alloc._edit_journal import BLOCK_BYTES_MAX, Journal, mark, stamped
from spectral_alloc._generator import Generator
from spectral_alloc._overlay import Overlay
from spectral_alloc.edit_file import (
    BESIDE,
    HEADER_BYTES,
    checked_header,
    file_beside,
    header_of,
    is_marked,
    is_named,
    later_durable,
    save_snapshot,
    seal,
    write_edits,
)
from spectral_alloc.errors import ClosedError, CorruptLogError, LockedError
from spectral_alloc.file_system import REAL_FILE_SYSTEM, FileSystem, OpenFile

__all__ = ["DURABILITIES", "EditLog", "LogReport"]

DURABILITIES = ("none", "interval", "always")
JOURNAL_EDITS = 65_536
CHUNK_BYTES = 1 << 20
# Below this share of new addresses among replayed edits, the length of the file says little about the table's size.
DISTINCT_SHARE_MIN = 0.9


class LogReport(NamedTuple):
    """Where a log stands: its path and durability, edits taken and durable since it was attached, edits replayed then,
    bytes of the file, and bytes of a torn tail that were cut off."""

    path: str
    durability: str
    appended_count: int
    durable_count: int
    replayed_count: int
    file_bytes: int
    torn_bytes: int


class EditLog:
    """The log of one space; GenerativeSpace.attach makes it. Opening replays the file into the space.

    Parameters: path, overlay and generator (of the space), durability ("none": the file is written when 65,536 edits
    wait and at sync; "interval": and synced within interval_seconds; "always": an edit returns when it is durable),
    interval_seconds, file_system.
    Errors: ValueError for a file of another space or another durability, LockedError if it is open elsewhere,
    CorruptLogError for damage before its tail, OSError of the system.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        overlay: Overlay,
        generator: Generator,
        *,
        durability: str = "interval",
        interval_seconds: float = 0.1,
        file_system: FileSystem = REAL_FILE_SYSTEM,
    ) -> None:
        if durability not in DURABILITIES:
            raise ValueError(f"durability must be one of {', '.join(DURABILITIES)}, not {durability!r}")
        if not 0.001 <= interval_seconds <= 3600:
            raise ValueError(f"interval_seconds must be 0.001 to 3600, not {interval_seconds!r}")
        self.path = os.path.abspath(path)
        self.durability = durability
        self._interval_seconds = interval_seconds
        self._overlay, self._generator, self._file_system = overlay, generator, file_system
        self._process_id = os.getpid()
        self._torn_bytes = self._replayed_count = 0
        # Up to here something in the file says that it was durable.
        self._vouched_bytes = HEADER_BYTES
        self._make_locks()
        _logs.add(self)
        self._open()

    def _make_locks(self) -> None:
        """New locks and orders: for a new log, or in a child, where those who held the old ones did not come along."""
        # Whoever wants both takes _syncing first. The disk's slow work is done under it alone, so that edits that find
        # the journal full need not wait for it. Re-entrant, since one part of the work is done by way of another.
        self._syncing = threading.RLock()
        self._lock = threading.RLock()
        self._compacting = threading.Lock()
        self._orders: SimpleQueue[str] = SimpleQueue()

    # Opening

    def _open(self) -> None:
        """Open or make the file, replay it, and let edits go to it."""
        try:
            file = OpenFile(self._file_system, self._file_system.open_existing, self.path)
        except FileNotFoundError:
            file = OpenFile(self._file_system, self._file_system.create, self.path)
        if not self._file_system.lock(file.fd):
            raise LockedError(f"{self.path} is the log of another open space, here or in another process")
        if not is_named(self._file_system, self.path, file):
            raise LockedError(f"{self.path} has just been replaced by another space, here or in another process")
        with suppress(FileNotFoundError):
            self._file_system.remove(self.path + BESIDE)
        try:
            self._take_over(file, self._begin(file))
        except BaseException:
            self._overlay.set_journal(None)
            if self._replayed_count:
                self._overlay.clear()
            raise
        if self.durability == "interval":
            threading.Thread(
                target=_keep_synced,
                args=(weakref.ref(self), self._orders, self._interval_seconds),
                name="spectral_alloc edit log",
                daemon=True,
            ).start()

    def _take_over(self, file: OpenFile, end: int) -> None:
        """Let edits go to the file from its end on."""
        value_bytes, is_always = self._generator.value_bytes, self.durability == "always"
        self._journal = Journal(self, file, JOURNAL_EDITS, value_bytes, end, is_always)
        addresses, raws = self._overlay.edits() if end == HEADER_BYTES else ((), ())
        self._overlay.set_journal(self._journal)
        if len(addresses):
            # what was edited before there was a log is written once more, so that it goes there
            self._overlay.write(addresses, raws)
            self.sync()

    def _begin(self, file: OpenFile) -> int:
        """Check the header, or write it to a file that has none yet; replay, and return the end."""
        header, size = header_of(self._generator), self._file_system.size(file.fd)
        found = self._file_system.read_at(file.fd, min(size, HEADER_BYTES), 0)
        if len(found) < HEADER_BYTES and header.startswith(found):
            self._file_system.write_at(file.fd, [header], 0)
            self._file_system.sync(file.fd)
            self._file_system.sync_directory(os.path.dirname(self.path))
            return HEADER_BYTES
        return self._replay(file, size, checked_header(self.path, found, self._generator))

    def _replay(self, file: OpenFile, size: int, complete: int) -> int:
        """Make the edits of the file, cut off a torn tail, and return the end."""
        if len(self._overlay) and size > HEADER_BYTES:
            advice = f"the space has {len(self._overlay)} too: attach it before writing, or clear_edits()"
            raise ValueError(f"{self.path} has edits, and {advice}")
        if size < complete:
            raise CorruptLogError(f"{self.path} ends at offset {size}, but it was made with {complete} bytes")
        place = HEADER_BYTES
        while place < size:
            data = self._file_system.read_at(file.fd, min(CHUNK_BYTES, size - place), place)
            done, edits = self._overlay.replay(data)
            self._replayed_count += edits
            place += done
            rest = len(data) - done
            if rest >= BLOCK_BYTES_MAX or (rest and place + rest == size):
                self._cut(file, place, size, complete)
                break
            if len(self._overlay) >= DISTINCT_SHARE_MIN * self._replayed_count:
                self._overlay.reserve((size - place) * self._replayed_count // (place - HEADER_BYTES))
        # what the last process left in the system's cache counts as durable from here on
        self._file_system.sync(file.fd)
        self._vouched_bytes = place if is_marked(file, place, self._file_system) else max(complete, HEADER_BYTES)
        return place

    def _cut(self, file: OpenFile, place: int, size: int, complete: int) -> None:
        """Cut off what follows the last sound block, unless the header or a later block proves it was durable once."""
        if place < complete:
            raise CorruptLogError(f"{self.path} is damaged at offset {place}, and was made with {complete} bytes")
        start = place
        while start < size:
            data = self._file_system.read_at(file.fd, min(CHUNK_BYTES, size - start), start)
            if later_durable(data, 1 if start == place else 0) > place:
                raise CorruptLogError(f"{self.path} is damaged at offset {place}, before edits that are sound")
            # a block that lies across the end of a chunk is whole in the next one
            start += len(data) if start + len(data) == size else len(data) - BLOCK_BYTES_MAX
        self._torn_bytes = size - place
        self._file_system.truncate(file.fd, place)

    # Writing

    def _own_file(self) -> OpenFile:
        """The file, for the process that opened it."""
        file = self._journal.file
        if file is None:
            raise ClosedError(f"the log {self.path} was detached")
        if os.getpid() != self._process_id:
            raise LockedError(f"the log {self.path} belongs to the parent process, {self._process_id}")
        return file

    def make_room(self) -> None:
        """Let a writer go on whose journal is full: the thread of the log writes what waits, or the caller does.

        Errors: OSError; then they wait on, and the next call tries again. Cost: O(1), or 10 ns an edit.
        """
        if self.durability == "interval" and self._overlay.hand_over():
            self._orders.put("write")
        else:
            self.write()

    def write(self) -> None:
        """Write edits that wait to the file, without a sync: those of half the journal, or those that failed last time.

        Errors: OSError; then they wait on, and the next call tries again. Cost: 10 ns an edit.
        """
        with self._lock:
            file = self._own_file()
            blocks = self._overlay.take()
            if blocks is not None:
                self._file_system.write_at(file.fd, [blocks], self._journal.end_bytes)
                self._journal.wrote()

    def sync(self) -> None:
        """Return when all edits that were made before the call are on stable storage. Errors: OSError, ClosedError."""
        with self._syncing:
            with self._lock:
                file = self._own_file()
                wanted = self._journal.appended_count
                while self._journal.written_count < wanted:
                    self.write()
                count, end = self._journal.written_count, self._journal.end_bytes
            if self._journal.durable_bytes < end:
                self._file_system.sync(file.fd)
                self._journal.synced(count, end)

    def commit(self, count: int) -> None:
        """Return when the first ``count`` edits are durable; threads that wait together share one sync."""
        with self._syncing:
            if self._journal.durable_count < count:
                self.sync()

    def work(self, order: str) -> None:
        """Write, or sync at the end of an interval, in the thread of the log; an error stays for the next caller."""
        with suppress(OSError, ClosedError):
            if order == "write":
                self.write()
            elif self._journal.has_work:
                self.sync()

    # Compacting and closing

    def compact(self) -> None:
        """Replace the file by one that has only the present edits, sorted; edits go on meanwhile.

        Errors: OSError; then the old file stays. Cost: 50 ns an edit, and the room of both files.
        """
        with self._compacting:
            self.sync()
            start = self._journal.end_bytes
            with file_beside(self.path, self._file_system) as made:
                end = write_edits(made, self._overlay, self._generator, self._file_system)
                with self._syncing, self._lock:
                    self._take_place(made, end, start)

    def _take_place(self, made: OpenFile, end: int, start: int) -> None:
        """Add to a file that has the present edits what was written since, and put it in the place of the log's."""
        self.sync()
        old, place = self._own_file(), start
        while place < self._journal.end_bytes:
            data = self._file_system.read_at(old.fd, min(CHUNK_BYTES, self._journal.end_bytes - place), place)
            blocks = stamped(data, 0)
            self._file_system.write_at(made.fd, [blocks], end)
            place += len(blocks)
            end += len(blocks)
        seal(made, self._generator, end, self._file_system)
        try:
            self._file_system.rename(self.path + BESIDE, self.path)
        finally:
            # an interrupt may come after the rename was done
            if is_named(self._file_system, self.path, made):
                self._journal.moved(made, end)
                self._vouched_bytes = end
        self._file_system.sync_directory(os.path.dirname(self.path))

    def snapshot(self, path: str | os.PathLike[str]) -> None:
        """Write the present edits to another file, as a log of its own.

        Errors: OSError; ValueError for this file under any name, LockedError for the log of another open space.
        """
        target, file = os.path.abspath(path), self._journal.file
        is_own = file is not None and is_named(self._file_system, os.path.realpath(target), file)
        if target == self.path or is_own:
            raise ValueError(f"{target} is the log itself; compact() shortens it")
        save_snapshot(target, self._overlay, self._generator, self._file_system)

    def close(self) -> None:
        """Make all edits durable and let go of the file; nothing happens the second time.

        Errors: OSError; then the log stays open. In a child process the parent's file is let go as it is.
        """
        with self._syncing, self._lock:
            if self._journal.file is None:
                return
            if os.getpid() == self._process_id:
                self.sync()
                self._overlay.set_journal(None)
                # edits that other threads made between the two
                while self._journal.has_work:
                    self._overlay.set_journal(self._journal)
                    self.sync()
                    self._overlay.set_journal(None)
                self._vouch()
            else:
                self._overlay.set_journal(None)
            self._orders.put("stop")
            file = self._journal.file
            self._journal.moved(None, self._journal.end_bytes)
            # at once and not with the last reference, since the lock of the file ends with it
            fd, file.fd = file.fd, -1
            self._file_system.close(fd)

    def _vouch(self) -> None:
        """Say in the file that all of it is durable, so that damage in the last blocks is not taken for a torn tail.

        The mark itself need not last: without it, the file is as good as that of a process that was killed.
        """
        journal, end = self._journal, self._journal.end_bytes
        if journal.file is not None and end > self._vouched_bytes:
            with suppress(OSError):
                self._file_system.write_at(journal.file.fd, [mark(journal.value_bytes, end)], end)

    def close_quietly(self) -> None:
        """``close`` for a finaliser: what the system refuses is lost."""
        with suppress(OSError, ClosedError):
            self.close()

    def report(self) -> LogReport:
        """Where the log stands now. Cost: O(1)."""
        journal = self._journal
        return LogReport(
            self.path,
            self.durability,
            journal.appended_count,
            journal.durable_count,
            self._replayed_count,
            journal.end_bytes,
            self._torn_bytes,
        )


_logs: "weakref.WeakSet[EditLog]" = weakref.WeakSet()


def _renew_in_child() -> None:
    """After a fork: a child never waits for a thread of its parent, whatever that was doing with a log."""
    for log in tuple(_logs):
        log._make_locks()


os.register_at_fork(after_in_child=_renew_in_child)


def _keep_synced(reference: "weakref.ref[EditLog]", orders: "SimpleQueue[str]", interval_seconds: float) -> None:
    """The background thread of "interval"; it ends with its log."""
    due = time.monotonic() + interval_seconds
    while True:
        order, left_seconds = "sync", due - time.monotonic()
        if left_seconds > 0:
            with suppress(Empty):
                order = orders.get(timeout=left_seconds)
        if order == "sync":
            due = time.monotonic() + interval_seconds
        log = reference()
        if log is None or order == "stop":
            return
        log.work(order)
        del log
