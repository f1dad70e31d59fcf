"""Segmented append-only files, the part of the log that the ephemeral cold store and the durable log share.

Words: a *segment* is one file; the *active* segment is the one that is written, all others are *sealed*; a *place*
names one
piece of a segment for ever; bytes are *live* until released and *dead* after; *waste* is what an unrepaired failed
write left
at the end of a sealed segment.

    place    | segment number 24 bits | offset in the segment 40 bits |
    segment  | piece | piece | piece | ...        what a piece looks like is the subclass's business

Invariants:
1. 0 <= dead <= held <= end in every segment; a file has end + waste bytes, or more while its segment is ``torn``.
2. Bytes before ``end`` never change and an offset is never used twice, so a place means one piece for ever.
3. Only the active segment grows.

Threads: what changes the table of segments holds the lock; ``release`` and reads never do. What those two rely on is
that
CPython runs an attribute update without a call in it, like ``x.dead_bytes += n``, in one piece under the GIL; were an
update
ever lost, a file would live longer than it must, and no byte would be lost.
"""

import errno
import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import accumulate

from spectral_alloc.errors import ClosedError
from spectral_alloc.file_system import Buffer, FileSystem
from spectral_alloc.segment import Segment
from spectral_alloc.units import format_bytes, parse_bytes

__all__ = ["OFFSET_BITS", "OFFSET_MASK", "SEGMENT_BYTES", "Segments", "segment_of"]

OFFSET_BITS = 40
OFFSET_MASK = (1 << OFFSET_BITS) - 1
SEGMENT_COUNT_MAX = 1 << 24
SEGMENT_BYTES = 8 << 20
SEGMENT_BYTES_MAX = 1 << 30
# Segments double in size until this many hold the store: few open files, yet small enough to compact one by one.
SEGMENTS_WANTED = 16
# Under a disk limit segments shrink with the limit, but a file per handful of pages would cost more than it frees.
LIMITED_SEGMENT_BYTES_MIN = 64 << 10
# Compacting at half dead costs one byte written for each byte freed.
VICTIM_DEAD_SHARE = 0.5


def segment_of(place: int) -> int:
    """Return the number of the segment that a place lies in.

    >>> segment_of((5 << 40) + 123)
    5
    """
    return place >> OFFSET_BITS


class Segments:
    """The table of segments, their accounts, the disk limit, and what to do after a failed write.

    Parameters: disk_limit_bytes (the files never hold more; None for no limit), file_system, segment_bytes (size of the
    first files), title (what error messages call the whole). Raises ValueError or TypeError for a bad limit.

    >>> from spectral_alloc.file_system import REAL_FILE_SYSTEM
    >>> Segments(None, REAL_FILE_SYSTEM, 1000, "log").file_bytes
    0
    """

    def __init__(self, disk_limit_bytes: int | None, file_system: FileSystem, segment_bytes: int, title: str) -> None:
        self._disk_limit_bytes = None if disk_limit_bytes is None else parse_bytes(disk_limit_bytes, "disk_limit")
        self._file_system = file_system
        if not 1 <= segment_bytes <= SEGMENT_BYTES_MAX:
            raise ValueError(f"segment_bytes must be from 1 to {SEGMENT_BYTES_MAX}, not {segment_bytes!r}")
        self._segment_bytes = segment_bytes
        self._title = title
        self._lock = threading.RLock()
        self._segments: dict[int, Segment] = {}
        self._active: Segment | None = None
        self._next_number = 0
        self._process_id = os.getpid()
        self._closed = False
        self._bad_release_count = 0
        self.write_count = 0
        self.read_count = 0
        #: Bytes of the batches that were appended, and the part of them that compaction moved.
        self.written_bytes = 0
        self.moved_bytes = 0

    def _write(self, segment: Segment, chunks: Iterable[tuple[Sequence[Buffer], list[int]]], moving: bool) -> list[int]:
        """Append chunks, each some buffers and the lengths of its pieces, all or none; returns the place of each piece.

        The caller holds the lock. Chunks are asked for one by one, so that whoever makes them need not keep them all.
        """
        start = end = segment.end_bytes
        places: list[int] = []
        segment.torn = True
        try:
            for buffers, lengths in chunks:
                self._file_system.write_at(segment.fd, buffers, end)
                places.extend(accumulate(lengths, initial=(segment.number << OFFSET_BITS) + end))
                end = places.pop() & OFFSET_MASK
            segment.end_bytes = end
            segment.torn = False
            self.write_count += len(places)
            self.written_bytes += end - start
            self.moved_bytes += end - start if moving else 0
            return places
        except BaseException:
            # Also for Ctrl-C after the write: the caller never learns the places, so the bytes must not count.
            segment.end_bytes = start
            segment.torn = True
            with suppress(OSError):
                segment.mend()
            raise

    def _release(self, place: int, held_bytes: int) -> Segment | None:
        """Count a piece as dead; returns its segment if that has no live piece any more. Cost: no lock."""
        segment = self._segments.get(place >> OFFSET_BITS)
        if segment is None or not 0 < held_bytes <= segment.held_bytes - segment.dead_bytes:
            self._bad_release_count += 1
            return None
        segment.dead_bytes += held_bytes
        # An append that seals the segment at this moment either is seen here or sees this update.
        return segment if segment.is_dead() and segment is not self._active else None

    def victims(self, dead_fraction: float = VICTIM_DEAD_SHARE) -> list[int]:
        """Return the numbers of the sealed segments that are at least so far dead, worst first.

        To compact one, append its live frames with ``moving=True`` and release their old places.
        """
        if not 0 <= dead_fraction <= 1:
            raise ValueError(f"dead_fraction must be from 0 to 1, not {dead_fraction!r}")
        self._raise_if_closed()
        worst_first = sorted(self._own_segments(), key=lambda segment: segment.dead_share, reverse=True)
        return [s.number for s in worst_first if s is not self._active and s.dead_share >= dead_fraction]

    @property
    def is_limited(self) -> bool:
        """Whether there is a disk limit."""
        return self._disk_limit_bytes is not None

    @property
    def live_bytes(self) -> int:
        """Bytes of this process's files that are not released."""
        return sum(segment.held_bytes - segment.dead_bytes for segment in self._own_segments())

    @property
    def dead_bytes(self) -> int:
        """Bytes of this process's files that hold nothing any more."""
        return sum(segment.dead_bytes + segment.waste_bytes for segment in self._own_segments())

    @property
    def file_bytes(self) -> int:
        """Bytes of this process's files, which the disk limit is about; inherited files do not count."""
        return sum(segment.file_bytes for segment in self._own_segments())

    @property
    def segment_count(self) -> int:
        """Number of open segment files, the inherited ones included."""
        return len(self._segments)

    @property
    def write_amplification(self) -> float:
        """Bytes written divided by those that were not written to move something; 1.0 before the first write."""
        return self.written_bytes / max(self.written_bytes - self.moved_bytes, 1) if self.written_bytes else 1.0

    def _check_segment(self, segment: Segment) -> None:
        """Raise AssertionError if the accounts of a segment are wrong."""
        number = segment.number
        size = self._file_system.size(segment.fd)
        assert self._segments[number] is segment, f"segment {number} is filed under another number"
        assert number < self._next_number, f"segment {number} is from the future"
        assert 0 <= segment.dead_bytes <= segment.held_bytes, f"segment {number}: {segment.dead_bytes} bytes dead"
        if segment.path is None:
            assert size >= segment.end_bytes, f"segment {number} lost bytes that its parent process wrote"
            return
        if segment.torn:
            assert size >= segment.file_bytes, f"segment {number} has {size} of {segment.file_bytes} bytes"
        else:
            assert size == segment.file_bytes, f"segment {number} has {size}, not {segment.file_bytes} bytes"
        assert segment.waste_bytes == 0 or segment is not self._active, f"segment {number} is written after its waste"

    def _own_segments(self) -> list[Segment]:
        # list() of a dict view is one piece under the GIL; a loop over the view could meet a retiring thread.
        return [segment for segment in list(self._segments.values()) if segment.path is not None]

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise ClosedError(f"the {self._title} is closed")

    def _enter(self) -> None:
        """Prepare to take the lock; OSError if this very thread is inside it already.

        A destructor or a signal handler may use the store in the middle of our own write. Waiting would last for ever
        and going on would tear the outer write, so the caller keeps its frames and tries again later.
        """
        self._notice_fork()
        if self._lock._is_owned():  # type: ignore[attr-defined]  # what threading.Condition asks, not in typeshed
            raise OSError(errno.EDEADLK, f"the {self._title} is used from inside one of its own operations")

    def _notice_fork(self) -> None:
        if os.getpid() != self._process_id:
            self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Make a forked copy independent; the subclass says how."""
        raise NotImplementedError

    def _settle_active(self) -> None:
        """Repair the active segment after a failed write, or seal it with its waste if that fails."""
        segment = self._active
        if segment is None or not segment.torn:
            return
        try:
            segment.mend()
        except OSError:
            self._active = None
            with suppress(OSError):
                segment.waste_bytes = max(0, self._file_system.size(segment.fd) - segment.end_bytes)
                segment.torn = False

    def _refuse_beyond_limit(self, total_bytes: int, moving: bool) -> None:
        limit = self._disk_limit_bytes
        if limit is None:
            return
        allowed_bytes = limit if moving else limit - limit // SEGMENTS_WANTED
        if self.file_bytes + total_bytes <= allowed_bytes:
            return
        self._make_room_slow()
        used_bytes = self.file_bytes
        if used_bytes + total_bytes > allowed_bytes:
            message = (
                f"disk_limit of {format_bytes(limit)} leaves no room for {format_bytes(total_bytes)}: "
                f"{format_bytes(used_bytes)} in use, {format_bytes(self.dead_bytes)} of it dead, "
                f"{format_bytes(limit - limit // SEGMENTS_WANTED)} usable without compaction"
            )
            raise OSError(errno.ENOSPC, message)

    def _make_room_slow(self) -> None:
        """Before an append is refused: let go of what needs no move."""
        if self._active is not None and self._active.dead_share >= VICTIM_DEAD_SHARE:
            # Sealed, so that it frees its bytes at once or is a victim of the compaction that must follow.
            self._active = None
        self._retire_dead_segments()

    def _segment_with_room(self, total_bytes: int) -> Segment:
        segment = self._active
        if segment is not None and segment.end_bytes + total_bytes <= segment.capacity_bytes:
            return segment
        if segment is None or segment.held_bytes > 0:
            segment = self._open_segment_slow()
        return segment

    def _capacity_bytes(self) -> int:
        wanted_bytes = min(self.file_bytes // SEGMENTS_WANTED, SEGMENT_BYTES_MAX)
        capacity_bytes = self._segment_bytes
        while capacity_bytes < wanted_bytes:
            capacity_bytes *= 2
        if self._disk_limit_bytes is None:
            return capacity_bytes
        return min(capacity_bytes, max(self._disk_limit_bytes // SEGMENTS_WANTED, LIMITED_SEGMENT_BYTES_MIN))

    def _new_number(self) -> int:
        number = self._next_number
        if number == SEGMENT_COUNT_MAX:
            raise OSError(errno.EFBIG, f"the {self._title} has used all its {SEGMENT_COUNT_MAX} segment numbers")
        # Counted before the file exists: an interrupted creation leaves a file under a number that is not tried again.
        self._next_number = number + 1
        return number

    def _open_segment_slow(self) -> Segment:
        """Seal the active segment and start a new one; OSError leaves the old one active."""
        raise NotImplementedError

    def _retire_dead_segments(self) -> None:
        """Unlink sealed segments without live bytes that nobody retired yet; the caller holds the lock."""
        for segment in self._own_segments():
            if segment is not self._active and segment.is_dead():
                self._retire(segment)

    def _retire(self, segment: Segment) -> None:
        """Unlink a segment and forget it; one that cannot be unlinked stays counted and is tried again."""
        self._notice_fork()
        path = segment.path
        if path is not None:
            try:
                self._file_system.remove(path)
            except FileNotFoundError:
                pass
            except OSError:
                return
        self._segments.pop(segment.number, None)
