"""Compaction: what is live in mostly dead segments is written again, so that their files can go.

Words: a *victim* is a segment to be emptied; an *owner* is a cell or a journal entry that refers to a place
(_restore.pyx).

Commits are kept out while a piece is copied, writes are not: what is live is what the last commit says, whatever the
dict has by now.

A live record is copied with its birth and flags; the copy counts for itself. A tombstone is copied while an older
segment may still hold what it deletes, unless its key has been committed again. The victims go after the next fsync,
which covers the copies.

Cost: at half dead, one byte written for each byte freed, so the log writes at most twice what the dict commits
(measured by ``Log.write_amplification``). The journal's lock is held for one piece of about 1 MiB at a time.
"""

from collections.abc import Iterator
from struct import Struct
from typing import TYPE_CHECKING, Any

from spectral_alloc import _log
from spectral_alloc._restore import cells_in
from spectral_alloc.errors import CorruptFrameError, CorruptLogError, UntrustedError
from spectral_alloc.log import Log, Record, log_name
from spectral_alloc.log_format import HEADER_BYTES
from spectral_alloc.log_segment import LogSegment
from spectral_alloc.segments import OFFSET_BITS, VICTIM_DEAD_SHARE

if TYPE_CHECKING:
    from spectral_alloc._cell import Cell
    from spectral_alloc._thermal import DictCore
    from spectral_alloc.journal import Journal

__all__ = ["compact_segments", "compaction_victims"]

HINT = Struct("<QQQI")
PIECE_BYTES = 1 << 20
COMPACT_FROM_SHARE = 0.6  # dead bytes by live bytes: begun before they are equal, since writing goes on meanwhile
SMALL_SEGMENTS_MAX = 32  # each open and close leaves a small one
TOMBSTONE_BYTES_MIN = 1 << 20


def compaction_victims(log: Log) -> list[int]:
    """Numbers of the segments to move now, worst first; empty while moving does not pay.

    A segment that is at least half dead pays, when much of the log is dead or the segment is all dead. Beside that
    the oldest is a victim when tombstones take more than what is live, and small segments are when there are many.
    """
    sealed = [s for s in log.log_segments if s is not log._active and not s.is_damaged]
    dead = [s for s in sealed if s.dead_share >= VICTIM_DEAD_SHARE]
    if log.dead_bytes < COMPACT_FROM_SHARE * log.live_bytes:
        dead = [s for s in dead if s.held <= s.dead_bytes]
    dead.sort(key=lambda s: s.dead_share, reverse=True)
    victims = [s.number for s in dead]
    tombstones = sum(s.tombstone_bytes for s in sealed)
    if sealed and tombstones > max(TOMBSTONE_BYTES_MIN, log.live_bytes):
        victims.append(min(s.number for s in sealed))
    small = [s for s in sealed if s.end_bytes < log._segment_bytes // SMALL_SEGMENTS_MAX]
    if len(small) >= SMALL_SEGMENTS_MAX:
        victims += [s.number for s in small]
    return list(dict.fromkeys(victims))


def compact_segments(core: "DictCore[Any, Any]", journal: "Journal", log: Log, victims: set[int]) -> None:
    """Copy what is live in some segments to the end of the log, settle it, and let their files go.

    Raises OSError if the disk refuses: what was copied by then is where it is, and the rest stays where it was.
    """
    if log._active is not None and log._active.number in victims:
        log.seal()
    for number in sorted(victims):
        segment = log._segments.get(number)
        if not isinstance(segment, LogSegment) or segment is log._active:
            continue
        try:
            _empty(core, journal, log, segment)
        except CorruptLogError:
            segment.is_damaged = True
        if not log.suspects:
            log.sync()
    log.sync()


def _empty(core: "DictCore[Any, Any]", journal: "Journal", log: Log, segment: LogSegment) -> None:
    """Copy what is live in one segment."""
    # An unlinked older file may come back with the power: a tombstone for what was in it is dropped only after this.
    log._file_system.sync_directory(log.directory)
    mover = _Mover(core, journal, log, segment)
    at = HEADER_BYTES
    while at < segment.end_bytes:
        with journal.holding():
            at = mover.piece(at)
    if segment.dead_bytes >= segment.held - segment.dictionary_bytes:
        # Everything that was of use is elsewhere.
        segment.dead_bytes, segment.dictionary_bytes, segment.tombstone_bytes = segment.held, 0, 0


def hints_in(hints: bytes) -> Iterator[tuple[int, int, int, int, int, bytes]]:
    """(offset, kind, flags, birth, frame bytes, key) of each hint."""
    at = 0
    while at < len(hints):
        head, birth, frame_bytes, key_bytes = HINT.unpack_from(hints, at)
        at += HINT.size
        yield head >> 16, head >> 8 & 0xFF, head & 0xFF, birth, frame_bytes, hints[at : at + key_bytes]
        at += key_bytes


class _Mover:
    """Copies one segment, piece by piece."""

    def __init__(self, core: "DictCore[Any, Any]", journal: "Journal", log: Log, segment: LogSegment) -> None:
        log._raise_if_closed()  # by another thread: then nothing is left to do
        self.core, self.journal, self.log, self.segment = core, journal, log, segment
        self.owners = cells_in(core, journal, segment.number)
        self.is_oldest = segment.number == min(log._segments, default=0)

    def piece(self, at: int) -> int:
        """Copy what is live in about 1 MiB from offset ``at`` on; returns where the next piece begins."""
        log, segment = self.log, self.segment
        walk = _log.Walk()
        wanted = PIECE_BYTES
        while not walk.count:
            data = log._file_system.read_at(segment.fd, min(wanted, segment.end_bytes - at), at)
            mac_bytes, check_mac = log.authenticator.mac_bytes, segment.mac_checker(log.authenticator)
            walk = _log.walk(data, at, segment.end_bytes, segment.salt, mac_bytes, check_mac)
            if walk.damaged or walk.status == "bad" or not (walk.count or walk.needed > len(data)):
                raise CorruptLogError(f"{log_name(segment.number)} is damaged near offset {at + walk.at}")
            wanted = max(wanted, walk.needed)
        records: list[Record] = []
        moved: list[tuple[int, Cell | None]] = []
        for offset, kind, flags, birth, frame_bytes, key in hints_in(walk.hints):
            place = segment.number << OFFSET_BITS | offset
            if self._is_wanted(place, kind, key):
                start = offset - at + _log.HEAD_BYTES
                flags = flags & ~_log.CONTINUES | _log.MOVED
                records.append(Record(kind, key, data[start : start + frame_bytes], flags, birth))
                moved.append((place, self.owners.get(place)))
        places = log.commit(records, moving=True, batch=False) if records else []
        for record, (old, cell), new in zip(records, moved, places, strict=True):
            self._relocate(record, cell, old, new)
        return at + walk.at

    def _is_wanted(self, place: int, kind: int, key: bytes) -> bool:
        """Is a record of use still?"""
        if kind == _log.TOMBSTONE:
            return not self.is_oldest and self._is_needed(key)
        return kind == _log.DICTIONARY or self.journal.owns(self.owners.get(place), place)

    def _is_needed(self, key: bytes) -> bool:
        """Would what a tombstone deletes come back without it? Not where its key was put and committed again."""
        name: object = None
        try:
            name = self.journal.form.key_of(key)
            cell = self.core._find(name)
        except (KeyError, CorruptFrameError, UntrustedError):
            # Put and committed again, and removed since: the next commit says so.
            return all(entry.key != name for entry in list(self.journal.doomed.values()))
        entry = self.journal.entry_of(cell) if cell is not None else None
        return cell is None or (entry is not None and not entry.frame_bytes)

    def _relocate(self, record: Record, cell: "Cell | None", old: int, new: int) -> None:
        """Let the owner refer to the copy, unless it has gone elsewhere meanwhile: then the copy is dead at once."""
        frame_bytes = len(record.frame)
        if record.kind == _log.PARKED:
            # The ledger releases parked frames at any time, from any thread: whoever holds the place then decides.
            self.journal.parked[new] = frame_bytes
            is_moved = cell is not None and self.core._ledger.relocate(cell, old, new)
            self.journal.release(old if is_moved else new, frame_bytes)
        elif record.kind in (_log.PUT, _log.REGROWN):
            self.log.release(old if self.journal.relocate(cell, old, new) else new, frame_bytes)
