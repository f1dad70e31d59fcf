"""Opening a log: find its segments, tell a torn end from damage, and build the index of what is live.

Words: a *claim* is what a record says about the bytes before it: that an fsync had covered them when it was written.
What is
wrong in a region that somebody claims was damaged afterwards, and is reported; what is wrong at the end of the last
segment,
where nobody claims anything, was never finished, and is cut off.

Threads: none but the caller's knows the log yet. Cost: with hint files one read of those; without, one walk over the
segments.
"""

import errno
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field

from spectral_alloc import _log
from spectral_alloc._log import LogIndex
from spectral_alloc.errors import CorruptFrameError, CorruptLogError, UntrustedError
from spectral_alloc.file_system import FileSystem, OpenFile
from spectral_alloc.log import Log, log_name
from spectral_alloc.log_format import HEADER_BYTES, HINT, SEGMENT, Header, decode_key
from spectral_alloc.log_segment import LogSegment, hint_path

__all__ = ["Damage", "Recovery", "recover", "validated_log_dir"]

NAME_PATTERN = re.compile("log-([0-9a-f]{6})")
PIECE_BYTES = 8 << 20  # read at a time by a walk


def validated_log_dir(path: str, file_system: FileSystem) -> None:
    """Raise unless a directory is safe to read a log from: ours, and nobody else may write in it.

    Raises FileNotFoundError, NotADirectoryError or PermissionError naming the path.
    """
    status = file_system.status(path)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "a durable dict is a directory, and this is none", path)
    if status.st_uid != os.geteuid():
        raise PermissionError(errno.EACCES, f"the directory belongs to another user (uid {status.st_uid})", path)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EACCES, "other users may write in the directory; chmod go-w it", path)


@dataclass(frozen=True)
class Damage:
    """One damaged place: file name, offset, length in bytes, key where it is known (else None), and what is wrong.

    ``is_keyless``: it belongs to no key, so that no value is lost.
    """

    file: str
    offset: int
    length: int
    key: object
    what: str
    is_keyless: bool = False

    def __str__(self) -> str:
        where = f"{self.file} at offset {self.offset}, {self.length} bytes"
        return f"{where}: {self.what}" + (f" (key {self.key!r})" if self.key is not None else "")


@dataclass
class Recovery:
    """What was found: the log, ready to be written on, its index, the damage, and the bytes that were cut off its
    end."""

    log: Log
    index: LogIndex
    damage: list[Damage] = field(default_factory=list)
    torn_bytes: int = 0
    hinted_count: int = 0


def segment_numbers(directory: str, file_system: FileSystem) -> list[int]:
    """Numbers of the segment files in a directory, ascending."""
    matches = map(NAME_PATTERN.fullmatch, file_system.list_names(directory))
    return sorted(int(match[1], 16) for match in matches if match is not None)


class _Opener:
    """One opening of a log, from file names to a Recovery."""

    def __init__(self, log: Log, index: LogIndex, is_checking: bool, lock_id: bytes, file_system: FileSystem) -> None:
        self.log, self.index, self.file_system = log, index, file_system
        self.is_checking = is_checking
        self.lock_id = lock_id
        self.found = Recovery(log, index)

    def segments(self) -> list[LogSegment]:
        """Open every segment file; one whose making was interrupted is removed."""
        opened: list[LogSegment] = []
        directory, log = self.log.directory, self.log
        for number in segment_numbers(directory, self.file_system):
            path = os.path.join(directory, log_name(number))
            try:
                segment = self._open(path, number)
            except FileNotFoundError:
                continue  # compaction by the writer, while we are a reader
            if segment is None:
                if not log.is_readonly:
                    self.file_system.remove(path)
                log._next_number = number + 1
                continue
            opened.append(segment)
            log._segments[number] = segment
            log._next_number = number + 1
        return opened

    def _open(self, path: str, number: int) -> LogSegment | None:
        file_system, log, name = self.file_system, self.log, os.path.basename(path)
        opener = file_system.open_reading if log.is_readonly else file_system.open_existing
        file = OpenFile(file_system, opener, path)
        status = file_system.status_of(file.fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(errno.EACCES, "a file of the log belongs to another user, or is no file", path)
        size = file_system.size(file.fd)
        damage = None
        try:
            data = file_system.read_at(file.fd, min(size, HEADER_BYTES), 0)
            header = Header.parse(data, SEGMENT, log.authenticator, name)
            if header.log_id != (log.log_id or header.log_id) or header.number != number:
                raise CorruptLogError(f"{name} belongs to another log, or to another place in this one")
            log.log_id = header.log_id
        except UntrustedError:
            raise
        except CorruptLogError as error:
            if size <= HEADER_BYTES:
                return None  # it holds no record: its making was interrupted, or nothing is lost
            log.log_id = log.log_id or self.lock_id
            if not log.log_id:
                raise
            header = Header(SEGMENT, log.log_id, number, (0, 0, 0))
            damage = Damage(name, 0, HEADER_BYTES, None, str(error))
        segment = LogSegment(header, path, log._segment_bytes, file_system, lambda _: _taken(file))
        if damage is not None and (self.is_checking or hints_of(log, segment) is None):
            # With a hint file nothing in the header is needed.
            segment.is_damaged = True
            self.found.damage.append(damage)
        return segment

    def read_all(self, segments: list[LogSegment]) -> None:
        """Feed the index with every segment, in order."""
        ends = {after.header.numbers[0]: after.header.numbers[1] for after in segments}
        for segment in segments:
            last = segment is segments[-1]
            self._read(segment, None if last else ends.get(segment.number))
            self.log.sequence = max(self.log.sequence, segment.last_sequence)
        self._take_accounts()

    def _read(self, segment: LogSegment, claimed_end: int | None) -> None:
        log, file_system = self.log, self.file_system
        size = file_system.size(segment.fd)
        hints = None if self.is_checking else hints_of(log, segment)
        if hints is not None:
            segment.end_bytes = segment.hinted_bytes = size
            segment.has_hint_file = True
            self.found.hinted_count += 1
            self.index.feed(hints, segment.number)
        else:
            is_last = segment is log._segments[max(log._segments)]
            end = size if claimed_end is None or claimed_end == 0 else min(size, claimed_end)
            if claimed_end is not None and size < claimed_end:
                what = f"the file ends {claimed_end - size} bytes before its end"
                self._report(segment, size, claimed_end - size, None, what)
            walk = _SegmentWalk(self, segment, end)
            # A hint file is written when its segment is settled, so it claims all of it.
            segment.hints = walk.run(is_last and hints_of(log, segment) is None)
            segment.end_bytes = segment.hinted_bytes = walk.end
            segment.waste_bytes = max(0, size - walk.end)
            joined = b"".join(segment.hints)
            unfinished = self.index.feed(joined, segment.number, whole=not is_last or segment.is_damaged)
            if unfinished is not None:
                self._cut(segment, unfinished, size)
        segment.settled_bytes = segment.end_bytes

    def _cut(self, segment: LogSegment, offset: int, size: int) -> None:
        """The last batch has no end: none of it counts."""
        segment.end_bytes = segment.hinted_bytes = offset
        segment.waste_bytes = size - offset
        segment.hints = [_hints_before(b"".join(segment.hints), offset)]

    def finish(self) -> None:
        """Cut off what was never finished, and settle what is left: from here on it is promised."""
        for segment in self.log._own_segments():
            assert isinstance(segment, LogSegment)
            if segment.number == max(self.log._segments):
                self.found.torn_bytes = segment.waste_bytes
            if self.log.is_readonly or segment.has_hint_file:
                continue
            if segment.waste_bytes and not segment.is_damaged:
                self.file_system.truncate(segment.fd, segment.end_bytes)
                segment.waste_bytes = 0
            self.file_system.sync(segment.fd)
            self.log._write_hints(segment)
        self.log.settled_sequence = self.log.sequence

    def _take_accounts(self) -> None:
        live = self.index.live_bytes()
        dictionaries: dict[int, int] = {}
        for place, frame_bytes, _ in self.index.dictionaries:
            number = place >> 40
            dictionaries[number] = dictionaries.get(number, 0) + frame_bytes + _log.HEAD_BYTES
        for number, segment in self.log._segments.items():
            assert isinstance(segment, LogSegment)
            segment.held = self.index.held_bytes.get(number, 0)
            segment.dictionary_bytes = dictionaries.get(number, 0)
            segment.dead_bytes = segment.held - live.get(number, 0) - segment.dictionary_bytes
            segment.tombstone_bytes = self.index.tombstone_bytes.get(number, 0)

    def _report(self, segment: LogSegment, offset: int, length: int, key: bytes | None, what: str) -> None:
        segment.is_damaged = True
        name = None
        if key is not None:
            with suppress(CorruptFrameError, KeyError, UnicodeDecodeError):
                name = decode_key(key)
        self.found.damage.append(Damage(log_name(segment.number), offset, length, name, what, key == b""))


def hints_of(log: Log, segment: LogSegment) -> bytes | None:
    """The hints of a segment's hint file, None if there is none that fits: then the segment itself is read."""
    assert segment.path is not None
    path = hint_path(segment.path)
    file_system, name = log._file_system, os.path.basename(path)
    try:
        file = OpenFile(file_system, file_system.open_reading, path)
        head = file_system.read_at(file.fd, HEADER_BYTES, 0)
        hints = file_system.read_at(file.fd, file_system.size(file.fd) - HEADER_BYTES, HEADER_BYTES)
        size = file_system.size(segment.fd)
    except (OSError, EOFError):
        return None
    try:
        header = Header.parse(head, HINT, log.authenticator, name, hints)
    except (CorruptLogError, UntrustedError):
        return None
    end, last_sequence, hint_bytes = header.numbers
    fits = (header.log_id, header.number) == (log.log_id, segment.number)
    if not fits or end != size or hint_bytes != len(hints):
        return None
    segment.last_sequence = last_sequence
    return hints


def _taken(file: OpenFile) -> int:
    """The descriptor of an open file, which that object no longer closes."""
    fd, file.fd = file.fd, -1
    return fd


def _hints_before(hints: bytes, offset: int) -> bytes:
    """The hints of the records before an offset."""
    at = 0
    while at < len(hints) and int.from_bytes(hints[at : at + 8], "little") >> 16 < offset:
        at += 28 + int.from_bytes(hints[at + 24 : at + 28], "little")
    return hints[:at]


class _SegmentWalk:
    """A walk over one segment, piece by piece, that goes on behind damage."""

    def __init__(self, opener: _Opener, segment: LogSegment, end: int) -> None:
        self.opener, self.segment, self.file_bytes = opener, segment, end
        self.hints: list[bytes] = []
        self.end = HEADER_BYTES
        self.claimed = 0
        self.suspicions: list[tuple[int, int, bytes | None, str, int]] = []

    def run(self, is_last: bool) -> list[bytes]:
        """The hints of all records that count; sets ``end``, reports damage."""
        log, segment = self.opener.log, self.segment
        at, wanted, authenticator = HEADER_BYTES, PIECE_BYTES, log.authenticator
        check_mac = segment.mac_checker(authenticator)
        while at < self.file_bytes:
            piece = self._read(at, min(wanted, self.file_bytes - at))
            walk = _log.walk(piece, at, self.file_bytes, segment.salt, authenticator.mac_bytes, check_mac)
            self._take(walk)
            at += walk.at
            self.end = at
            wanted = PIECE_BYTES
            if walk.status == "short":
                wanted = max(walk.needed, PIECE_BYTES)
            elif walk.status == "bad":
                found = self._find(at)
                length = (self.file_bytes if found is None else found) - at
                self.suspicions.append((at, length, None, "no record where one should be", len(self.hints)))
                if found is None:
                    break
                at = found
        return self._judge(is_last)

    def _take(self, walk: "_log.Walk") -> None:
        # How many hints a suspicion cuts off is known only by offset, so the position in the list is that before the
        # piece.
        for offset, length, key in walk.damaged:
            what = "the key or the head is damaged" if key is None else "the frame is damaged"
            self.suspicions.append((offset, length, key, what, len(self.hints)))
        if walk.count:
            self.hints.append(walk.hints)
        self.claimed = max(self.claimed, walk.claimed)
        self.segment.last_sequence = max(self.segment.last_sequence, walk.last_sequence)

    def _judge(self, is_last: bool) -> list[bytes]:
        """Suspicions in what was claimed are damage; the first one beyond is where the log ends."""
        claimed = self.claimed if is_last else self.file_bytes
        for offset, length, key, what, _ in self.suspicions:
            if offset >= claimed:
                self.end = offset
                return [_hints_before(b"".join(self.hints), offset)]
            self.opener._report(self.segment, offset, length, key, what)
        if self.suspicions and self.suspicions[-1][0] + self.suspicions[-1][1] >= self.file_bytes:
            self.end = self.file_bytes
        return self.hints

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return self.opener.file_system.read_at(self.segment.fd, length, offset)
        except EOFError as error:
            raise CorruptLogError(f"{log_name(self.segment.number)} changed while it was read: {error}") from None

    def _find(self, at: int) -> int | None:
        """The offset of the next good head."""
        start = at + 8
        while start < self.file_bytes:
            piece = self._read(start, min(PIECE_BYTES, self.file_bytes - start))
            mac_bytes = self.opener.log.authenticator.mac_bytes
            found = _log.find_record(piece, 0, start, self.file_bytes, self.segment.salt, mac_bytes)
            if found is not None:
                return start + found
            if start + len(piece) >= self.file_bytes:
                return None
            start += len(piece) - _log.HEAD_BYTES // 8 * 8
        return None


def recover(
    log: Log, index: LogIndex, *, is_checking: bool = False, is_repairing: bool = False, lock_id: bytes = b""
) -> Recovery:
    """Read the segments in ``log.directory`` into a new Log object and an index.

    Parameters: log (with nothing in it; log_id b"" to take that of the files), is_checking (read every byte, hint
    files or
    not), is_repairing (damage to records whose key is not known is tolerated), lock_id (the log id that the lock file
    has, for when the header that has it is damaged). Raises CorruptLogError for such damage,
    UntrustedError for a wrong key.
    """
    opener = _Opener(log, index, is_checking, lock_id, log._file_system)
    try:
        opener.read_all(opener.segments())
    except (ValueError, UnicodeDecodeError) as error:
        raise CorruptLogError(f"the log in {log.directory} is damaged: {error}") from error
    found = opener.found
    unknown = [damage for damage in found.damage if damage.key is None and not damage.is_keyless]
    if unknown and not is_repairing and not is_checking:
        raise CorruptLogError(
            f"the log in {log.directory} is damaged: {unknown[0]}. repair(path) keeps all that is undamaged"
        )
    if not is_checking or is_repairing:
        opener.finish()
    return found
