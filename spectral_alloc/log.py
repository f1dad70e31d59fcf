"""The durable log: records in segment files that survive the process, a torn write, and the loss of power.

Words: a *batch* is what one commit writes: after a crash all of it is there or nothing; *settled* is what an fsync has
covered; a *parked* frame has no key and does not outlive the process: it is RAM moved to disk until the next commit.

    commit(records) --> active segment --sync()--> settled --> dead segments are unlinked
                          full: fsync, hint file, next segment

Invariants (``Log.check`` walks what can be walked):
1. A new segment's header is settled before its first record is written, and a segment before the next one is made:
only the
   last segment can have a torn end.
2. A segment is unlinked only when everything that replaced what was in it is settled.
3. After a failed fsync nothing is believed that it should have covered: the segment is abandoned, and its live
records are
   written again before the next fsync can promise anything.

Threads: ``commit``, ``append`` and ``sync`` from any; ``read`` and ``release`` take no lock. Threads that sync at the
same
time share one fsync. Cost: one system call for about 256 KiB of records, and one fsync per ``sync``.
"""

import errno
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from spectral_alloc import _log
from spectral_alloc._record_writer import RecordWriter
from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.file_system import REAL_FILE_SYSTEM, Buffer, FileSystem
from spectral_alloc.log_format import HEADER_BYTES, HINT, SEGMENT, Authenticator, Header
from spectral_alloc.log_segment import LogSegment, hint_path
from spectral_alloc.segment import Segment
from spectral_alloc.segments import OFFSET_BITS, OFFSET_MASK, SEGMENT_BYTES, Segments, segment_of

__all__ = ["Log", "Record", "log_name"]

CHUNK_BYTES = 256 << 10  # of records written in one call


class Record(NamedTuple):
    """What is to be written: a kind and flags of _log, a key, a frame, and the birth (0: the record's own sequence)."""

    kind: int
    key: bytes
    frame: Buffer
    flags: int = 0
    birth: int = 0


class RecordSource(Protocol):
    """Where the records of a batch come from, some at a time."""

    def prepare(self, mac_bytes: int) -> int:
        """Make the next records ready, about CHUNK_BYTES of them; returns the bytes of the first one, 0 if none is
        left."""

    def fill(self, writer: RecordWriter) -> None:
        """Give the writer what is ready."""


class _Records:
    """A source of records that exist."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.left = iter(records)
        self.ready: list[Record] = []

    def prepare(self, mac_bytes: int) -> int:
        ready_bytes = 0
        for record in self.left:
            self.ready.append(record)
            ready_bytes += len(record.frame)
            if ready_bytes >= CHUNK_BYTES:
                break
        first = self.ready[0] if self.ready else None
        return 0 if first is None else _log.record_bytes(len(first.frame), len(first.key), mac_bytes)

    def fill(self, writer: RecordWriter) -> None:
        ready, self.ready = self.ready, []
        for kind, key, frame, flags, birth in ready:
            writer.add(kind, key, frame, flags, birth)


def log_name(number: int) -> str:
    """The file name of a segment.

    >>> log_name(3)
    'log-000003'
    """
    return f"log-{number:06x}"


class Log(Segments):
    """A log in a directory that exists and belongs to the caller, who has locked it (see log_recovery.open_log).

    Parameters: directory (absolute), log_id (16 bytes), authenticator, disk_limit_bytes, file_system, segment_bytes
    (size of
    the first segments), is_readonly. Errors: OSError of the system, ENOSPC beyond the limit, EROFS when it is
    read-only;
    ClosedError. Whatever is raised, earlier records stay readable and nothing of the batch counts.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     log = Log(directory, bytes(16), Authenticator(None))
    ...     (place,) = log.commit([Record(_log.PUT, b"skey", b"a frame")])
    ...     log.sync()
    ...     log.read(place, 7)
    ...     log.close()
    b'a frame'
    """

    def __init__(
        self,
        directory: str,
        log_id: bytes,
        authenticator: Authenticator,
        disk_limit_bytes: int | None = None,
        file_system: FileSystem = REAL_FILE_SYSTEM,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        is_readonly: bool = False,
    ) -> None:
        super().__init__(disk_limit_bytes, file_system, segment_bytes, "log")
        self.directory = directory
        self.log_id = log_id
        self.authenticator = authenticator
        self.is_readonly = is_readonly
        #: Sequence of the last record that was written, and of the last that is settled.
        self.sequence = 0
        self.settled_sequence = 0
        self._sync_lock = threading.RLock()
        self.sync_count = 0
        self.hint_failure_count = 0

    # writing --------------------------------------------------------------------------------------------------------

    def append(self, frames: Sequence[bytes], *, moving: bool = False) -> list[int]:
        """Park frames: like ColdStore.append; they are gone when the log is opened again."""
        return self.commit([Record(_log.PARKED, b"", frame) for frame in frames], moving=moving)

    def commit(self, records: Iterable[Record], *, moving: bool = False, batch: bool = True) -> list[int]:
        """Write records, all or none of them also after a crash, and return their places; nothing is settled yet.

        Parameters: records, moving (as for ColdStore.append), batch (False: each record counts for itself, as copies
        made by compaction do).
        """
        return self.write(_Records(records), moving=moving, batch=batch)

    def write(self, source: RecordSource, *, moving: bool = False, batch: bool = True) -> list[int]:
        """The same for records that are made while others are written."""
        self._enter()
        with self._lock:
            self._raise_if_closed()
            if self.is_readonly:
                raise OSError(errno.EROFS, f"the log in {self.directory} was opened for reading only")
            needed_bytes = source.prepare(self.authenticator.mac_bytes)
            if not needed_bytes:
                return []
            self._settle_active()
            self._refuse_beyond_limit(needed_bytes, moving)
            segment = self._segment_with_room(needed_bytes)
            assert isinstance(segment, LogSegment)
            work = _Batch(self, segment, source, moving, batch)
            try:
                return self._write(segment, work.chunks(), moving)
            finally:
                # Also when Ctrl-C came after the write: what is in the file must be in the hints.
                if segment.end_bytes == work.end_bytes > work.start_bytes:
                    work.settle_accounts()

    def _segment_with_room(self, total_bytes: int) -> Segment:
        segment = self._active
        if segment is not None and segment.end_bytes + total_bytes <= segment.capacity_bytes:
            return segment
        if segment is None or segment.end_bytes > HEADER_BYTES:
            segment = self._open_segment_slow()
        return segment

    def _make_room_slow(self) -> None:
        """Nothing can be let go of without an fsync, which is the journal's business."""

    def _open_segment_slow(self) -> Segment:
        """Settle the active segment and start a new one; OSError leaves the old one active, or abandoned as suspect."""
        if isinstance(self._active, LogSegment):
            self._settle(self._active)
            self._write_hints(self._active)
        before = max(self.log_segments, key=lambda segment: segment.number, default=None)
        number = self._new_number()
        # What a failed fsync should have covered is not vouched for.
        end = before.settled_bytes if before is not None else 0
        numbers = (before.number if before is not None else 0, end, self.sequence)
        header = Header(SEGMENT, self.log_id, number, numbers)
        path = os.path.join(self.directory, log_name(number))
        segment = LogSegment(header, path, self._capacity_bytes(), self._file_system)
        try:
            self._file_system.write_at(segment.fd, [header.pack(self.authenticator)], 0)
            self._file_system.sync(segment.fd)
            self._file_system.sync_directory(self.directory)
        except BaseException:
            with suppress(OSError):
                self._file_system.remove(path)
            raise
        segment.end_bytes = segment.settled_bytes = segment.hinted_bytes = HEADER_BYTES
        self._segments[number] = segment
        self._active = segment
        return segment

    # settling ---------------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Return when every record that was written before the call is settled.

        Raises OSError if the disk refuses: the active segment is then suspect (``suspects``). Cost: one fsync, shared
        with the
        threads that wait for the same.
        """
        wanted = self.sequence
        if self._sync_lock._is_owned():  # type: ignore[attr-defined]  # as in _enter
            raise OSError(errno.EDEADLK, "the log is synced from inside one of its own syncs")
        with self._sync_lock:
            if self.settled_sequence >= wanted and not self.suspects:
                return
            self._raise_if_closed()
            unsettled = [number for number in self.suspects if not self._segments[number].is_dead()]
            if unsettled:
                raise OSError(errno.EIO, f"an fsync failed: {log_name(unsettled[0])} must be written again first")
            with self._lock:
                segment, sequence = self._active, self.sequence
                dead = [s for s in self._own_segments() if s is not segment and s.is_dead()]
                end = segment.end_bytes if segment is not None else 0
            if isinstance(segment, LogSegment):
                self._settle(segment, end)
            self.settled_sequence = max(self.settled_sequence, sequence)
            for old in dead:
                self._retire(old)
            if dead:
                self._file_system.sync_directory(self.directory)

    def _settle(self, segment: LogSegment, end_bytes: int | None = None) -> None:
        """Cover a segment by an fsync, up to what it holds now at least."""
        end = segment.end_bytes if end_bytes is None else end_bytes
        if segment.settled_bytes >= end:
            return
        try:
            self.sync_count += 1
            self._file_system.sync(segment.fd)
        except OSError:
            segment.is_suspect = True
            if self._active is segment:
                self._active = None
            raise
        segment.settled_bytes = max(segment.settled_bytes, end)

    @property
    def suspects(self) -> list[int]:
        """Numbers of segments of which an fsync failed; their live records must be moved before sync can promise
        anything."""
        return [segment.number for segment in self.log_segments if segment.is_suspect]

    @property
    def log_segments(self) -> list[LogSegment]:
        """The segments that are known now, in no order."""
        return [segment for segment in list(self._segments.values()) if isinstance(segment, LogSegment)]

    def seal(self) -> None:
        """Settle the active segment, write its hint file, and start a new one with the next record."""
        self._enter()
        with self._lock:
            self._raise_if_closed()
            segment = self._active
            if isinstance(segment, LogSegment):
                self._settle_active()
                if self._active is segment:
                    self._settle(segment)
                    self._write_hints(segment)
                    self._active = None

    def _write_hints(self, segment: LogSegment) -> None:
        """Write the hint file of a settled segment; without one the next open walks over the segment, so failing is
        fine."""
        is_whole = segment.hinted_bytes == segment.end_bytes and not segment.is_suspect and not segment.is_damaged
        if segment.has_hint_file or not is_whole or segment.path is None:
            return
        hints = b"".join(segment.hints)
        header = Header(HINT, self.log_id, segment.number, (segment.end_bytes, segment.last_sequence, len(hints)))
        path = hint_path(segment.path)
        try:
            with suppress(FileNotFoundError):
                self._file_system.remove(path)
            fd = self._file_system.create(path)
            try:
                self._file_system.write_at(fd, [header.pack(self.authenticator, hints), hints], 0)
            finally:
                self._file_system.close(fd)
            segment.has_hint_file = True
        except OSError:
            self.hint_failure_count += 1
        segment.hints = []

    def _retire(self, segment: Segment) -> None:
        """Unlink a segment and its hint file; the hint goes first, for it means nothing alone."""
        if segment.path is not None:
            with suppress(OSError):
                self._file_system.remove(hint_path(segment.path))
        super()._retire(segment)

    # reading ----------------------------------------------------------------------------------------------------------

    def read(self, place: int, length: int) -> bytes:
        """Return the frame of ``length`` bytes at ``place``; errors and cost as for ColdStore.read."""
        segment = self._segments.get(place >> OFFSET_BITS)
        offset = place & OFFSET_MASK
        if not isinstance(segment, LogSegment) or not 0 < length <= segment.end_bytes - offset - _log.HEAD_BYTES:
            self._raise_if_closed()
            raise CorruptFrameError(f"no frame of {length} bytes at place {place:#x} of the log")
        try:
            if self.authenticator.is_keyed:
                return self._read_authentic(segment, offset, length)
            data = self._file_system.read_at(segment.fd, length, offset + _log.HEAD_BYTES)
        except EOFError as error:
            raise CorruptFrameError(f"{log_name(segment.number)} is damaged: {error}") from None
        self.read_count += 1
        return data

    def _read_authentic(self, segment: LogSegment, offset: int, length: int) -> bytes:
        """Read a frame and check the MAC of its record."""
        head, frame, key, mac = self._read_parts(segment, offset)
        if not self.authenticator.is_right(mac, segment.header.prefix, offset.to_bytes(8, "little"), head, frame, key):
            message = f"the record at offset {offset} was not written with this key"
            raise CorruptFrameError(f"{log_name(segment.number)}: {message}")
        if len(frame) != length:
            raise CorruptFrameError(f"{log_name(segment.number)}: another record is at offset {offset}")
        self.read_count += 1
        return frame

    def _read_parts(self, segment: LogSegment, offset: int) -> tuple[bytes, bytes, bytes, bytes]:
        """Head, frame, key and MAC of a record; CorruptFrameError if the head is damaged."""
        head = self._file_system.read_at(segment.fd, _log.HEAD_BYTES, offset)
        mac_bytes = self.authenticator.mac_bytes
        fields = _log.read_head(head, offset, segment.end_bytes, segment.salt, mac_bytes)
        if fields is None:
            raise CorruptFrameError(f"{log_name(segment.number)}: the head of the record at offset {offset} is damaged")
        *_, frame_bytes, key_bytes, _ = fields
        body = self._file_system.read_at(segment.fd, frame_bytes + key_bytes + mac_bytes, offset + _log.HEAD_BYTES)
        key_end = frame_bytes + key_bytes
        return head, body[:frame_bytes], body[frame_bytes:key_end], body[key_end:]

    def birth_at(self, place: int) -> int:
        """The birth in the head of a record, 0 if the head cannot be read."""
        segment = self._segments.get(segment_of(place))
        if not isinstance(segment, LogSegment):
            return 0
        offset = place & OFFSET_MASK
        try:
            head = self._file_system.read_at(segment.fd, _log.HEAD_BYTES, offset)
        except (OSError, EOFError):
            return 0
        fields = _log.read_head(head, offset, segment.end_bytes, segment.salt, self.authenticator.mac_bytes)
        return 0 if fields is None else fields[1]

    def release(self, place: int, length: int) -> None:
        """Declare a frame dead; its segment is unlinked by a later sync(). Never raises. Cost: no lock."""
        self._release(place, length + _log.HEAD_BYTES)

    def release_bytes(self, number: int, held_bytes: int) -> None:
        """The same for many frames of one segment, heads included."""
        self._release(number << OFFSET_BITS, held_bytes)

    # the end ----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Settle everything, write the last hint file, and let go of the files; may be repeated after an OSError."""
        self._enter()
        if not self._closed and not self.is_readonly and os.getpid() == self._process_id:
            self.sync()
            self.seal()
        self.abandon()

    def abandon(self) -> None:
        """Let go of the files without settling anything."""
        # A write of another thread, compaction perhaps, ends before: the lock file of the directory is let go of next.
        with self._lock:
            self._closed = True
            self._active = None
            self._segments.clear()

    def after_fork_in_child(self) -> None:
        """In the child of a fork the log can only be read: it belongs to the parent."""
        if os.getpid() == self._process_id:
            return
        self._lock, self._sync_lock = threading.RLock(), threading.RLock()
        self._process_id = os.getpid()
        self.is_readonly = True
        self._active = None

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold. Cost: two system calls per segment."""
        self._enter()
        with self._sync_lock, self._lock:  # the first is that of who lets segments go, compaction perhaps
            self._raise_if_closed()
            assert self._bad_release_count == 0, f"{self._bad_release_count} releases of bytes that were not live"
            for segment in self._own_segments():
                if not self.is_readonly:
                    self._check_segment(segment)
            assert self.settled_sequence <= self.sequence


class _Batch:
    """One commit while it is written: its chunks, and the accounts that count when all is done."""

    def __init__(self, log: Log, segment: LogSegment, source: RecordSource, moving: bool, atomic: bool) -> None:
        self.log, self.segment, self.source, self.moving = log, segment, source, moving
        self.start_bytes = self.end_bytes = segment.end_bytes
        authenticator = log.authenticator if log.authenticator.is_keyed else None
        self.writer = RecordWriter(
            segment.salt,
            segment.end_bytes,
            log.sequence,
            segment.settled_bytes,
            atomic,
            authenticator,
            segment.header.prefix,
        )

    def chunks(self) -> Iterator[tuple[list[Buffer], list[int]]]:
        """Buffers of about CHUNK_BYTES, with the length of each record in them."""
        written, is_last = 0, False
        while not is_last:
            self.source.fill(self.writer)
            is_last = not self.source.prepare(self.writer.mac_bytes)
            if is_last:
                self.writer.end()
            chunk, lengths = self.writer.take()
            if written:
                self.log._refuse_beyond_limit(written + len(chunk), self.moving)
            written += len(chunk)
            self.end_bytes = self.writer.offset
            yield [chunk], lengths

    def settle_accounts(self) -> None:
        """All is written: let it count."""
        segment, writer = self.segment, self.writer
        segment.held += writer.held_bytes
        segment.tombstone_bytes += writer.tombstone_bytes
        segment.dictionary_bytes += writer.dictionary_bytes
        segment.hints.append(writer.hints)
        segment.hinted_bytes = self.end_bytes
        segment.last_sequence = self.log.sequence = writer.sequence
