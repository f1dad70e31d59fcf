"""The cold store: frames in append-only segment files, found again by a *place* of 64 bits.

Words: a *frame* is any bytes the caller wants back; a *segment* is one file; the *active* segment is the one
that is written, all others are *sealed*; bytes are *live* until released and *dead* after; *waste* is what an
unrepaired failed write left at the end of a sealed segment.

    place    | segment number 24 bits | offset in the segment 40 bits |
    segment  | frame | frame | frame | ...    no headers: a frame checks itself, its owner keeps its length

Invariants (``ColdStore.check`` walks them all):
1. 0 <= dead <= end in every segment; a file has end + waste bytes, or more while its segment is ``torn``.
2. Bytes before ``end`` never change and an offset is never used twice, so a place means one frame for ever.
3. Only the active segment grows; a sealed segment of ours without live bytes is unlinked.
4. A segment with ``path`` None was inherited through fork: it is read, never written, unlinked or counted.

Threads: ``append``, ``seal``, ``close`` and ``check`` take the lock; ``read`` and ``release`` never do. What
those two rely on is that CPython runs an attribute update without a call in it, like ``x.dead_bytes += n``,
in one piece under the GIL; were an update ever lost, a file would live longer than it must, and no byte would
be lost.
Cost: append is one system call per batch and read is one; neither copies the frames.
"""

import errno
import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate

from spectral_alloc.errors import ClosedError, CorruptFrameError
from spectral_alloc.file_system import REAL_FILE_SYSTEM, FileSystem
from spectral_alloc.segment import Segment
from spectral_alloc.spill_directory import LOCK_NAME, SpillDirectory, validated_spill_dir
from spectral_alloc.units import format_bytes, parse_bytes

__all__ = ["SEGMENT_BYTES", "ColdStore", "segment_of"]

OFFSET_BITS = 40
SEGMENT_COUNT_MAX = 1 << 24
SEGMENT_BYTES = 64 << 20
SEGMENT_BYTES_MAX = 1 << 30
# Segments double in size until this many hold the store: few open files, yet small enough to compact one by
# one.
SEGMENTS_WANTED = 16
# Under a disk limit segments shrink with the limit, but a file per handful of pages would cost more than it
# frees.
LIMITED_SEGMENT_BYTES_MIN = 64 << 10
# Compacting at half dead costs one byte written for each byte freed.
VICTIM_DEAD_SHARE = 0.5


def segment_of(place: int) -> int:
    """Return the number of the segment that a place lies in.

    >>> segment_of((5 << 40) + 123)
    5
    """
    return place >> OFFSET_BITS


class ColdStore:
    """Frames on disk for as long as the process lives, appended in batches and read by place.

    Parameters: spill_dir (an existing directory; None for the system's directory for temporary files),
    disk_limit_bytes (the files never hold more; None for no limit), file_system, segment_bytes (size of the
    first segment files). Raises what ``validated_spill_dir`` raises, and ValueError or TypeError for a bad
    limit. Nothing is created before the first ``append``. ``write_count`` and ``read_count`` count frames.
    Threads: every method from any thread, also from a destructor in the middle of another call.

    >>> store = ColdStore()
    >>> place, other = store.append([b"a frame", b"another"])
    >>> store.read(place, 7)
    b'a frame'
    >>> store.release(place, 7)
    >>> store.live_bytes, store.dead_bytes
    (7, 7)
    >>> store.close()
    """

    def __init__(
        self,
        spill_dir: str | os.PathLike[str] | None = None,
        disk_limit_bytes: int | None = None,
        file_system: FileSystem = REAL_FILE_SYSTEM,
        *,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._spill_dir = None if spill_dir is None else validated_spill_dir(spill_dir, file_system)
        self._disk_limit_bytes = (
            None if disk_limit_bytes is None else parse_bytes(disk_limit_bytes, "disk_limit")
        )
        self._file_system = file_system
        if not 1 <= segment_bytes <= SEGMENT_BYTES_MAX:
            raise ValueError(f"segment_bytes must be from 1 to {SEGMENT_BYTES_MAX}, not {segment_bytes!r}")
        self._segment_bytes = segment_bytes
        self._lock = threading.RLock()
        self._segments: dict[int, Segment] = {}
        self._active: Segment | None = None
        self._next_number = 0
        self._home: SpillDirectory | None = None
        # Every directory this store ever used: one, unless it was forked or its directory was cleaned away.
        self._homes: list[SpillDirectory] = []
        weakref.finalize(self, remove_quietly, self._homes)
        self._process_id = os.getpid()
        self._closed = False
        self._bad_release_count = 0
        self.write_count = 0
        self.read_count = 0

    def append(self, frames: Sequence[bytes], *, moving: bool = False) -> list[int]:
        """Write frames one after the other and return the place of each.

        Parameters: frames (all of one batch lie in one segment), moving (True when the frames replace ones
        that will be released, as in compaction: one sixteenth of the disk limit is kept for that).
        Raises OSError (ENOSPC beyond the disk limit or on a full disk, or what the system says), ClosedError,
        ValueError for an empty frame. A destructor or signal handler that interrupts another append of its
        thread gets OSError (EDEADLK). Whatever is raised, earlier frames stay readable and nothing is
        counted. Cost: one system call per 1024 frames.
        """
        self._enter()
        lengths = [len(frame) for frame in frames]
        total_bytes = sum(lengths)
        if 0 in lengths:
            raise ValueError("a frame must not be empty: it would share its place with the next one")
        with self._lock:
            self._raise_if_closed()
            if not lengths:
                return []
            self._settle_active()
            self._refuse_beyond_limit(total_bytes, moving)
            segment = self._segment_with_room(total_bytes)
            start = segment.end_bytes
            segment.torn = True
            try:
                self._file_system.write_at(segment.fd, frames, start)
                places = list(accumulate(lengths, initial=(segment.number << OFFSET_BITS) + start))
                places.pop()
                segment.end_bytes = start + total_bytes
                segment.torn = False
                self.write_count += len(places)
                return places
            except BaseException:
                # Also for Ctrl-C after the write: the caller never learns the places, so the bytes must not
                # count.
                segment.end_bytes = start
                segment.torn = True
                with suppress(OSError):
                    segment.mend()
                raise

    def read(self, place: int, length: int) -> bytes:
        """Return the ``length`` bytes at ``place``.

        Raises CorruptFrameError when the store does not hold so many bytes there (a damaged file, or a frame
        that was released meanwhile: a caller who moves frames looks up the place again), OSError,
        ClosedError.
        Cost: one system call with the GIL released. Threads: no lock, and a file is not closed under a
        reader.
        """
        segment = self._segments.get(place >> OFFSET_BITS)
        offset = place & ((1 << OFFSET_BITS) - 1)
        if segment is None or not 0 < length <= segment.end_bytes - offset:
            self._raise_if_closed()
            raise CorruptFrameError(f"no {length} bytes at place {place:#x} of the cold store")
        try:
            data = self._file_system.read_at(segment.fd, length, offset)
        except EOFError as error:
            raise CorruptFrameError(f"segment {segment.number} is damaged: {error}") from None
        self.read_count += 1
        return data

    def release(self, place: int, length: int) -> None:
        """Declare a frame dead; a sealed segment without live bytes is unlinked at once.

        Each frame is released once. Never raises for an unknown place (``check`` reports those), a closed
        store or a failing disk: it is called where cells are deallocated. Cost: no lock; one unlink when the
        segment dies.
        """
        segment = self._segments.get(place >> OFFSET_BITS)
        if segment is None or not 0 < length <= segment.end_bytes - segment.dead_bytes:
            self._bad_release_count += 1
            return
        segment.dead_bytes += length
        # An append that seals the segment at this moment either is seen here or sees this update: one of us
        # retires.
        if segment.is_dead() and segment is not self._active:
            self._retire(segment)

    def victims(self, dead_fraction: float = VICTIM_DEAD_SHARE) -> list[int]:
        """Return the numbers of the sealed segments that are at least so far dead, worst first.

        To compact one, append its live frames with ``moving=True`` and release their old places.
        """
        if not 0 <= dead_fraction <= 1:
            raise ValueError(f"dead_fraction must be from 0 to 1, not {dead_fraction!r}")
        self._raise_if_closed()
        worst_first = sorted(self._own_segments(), key=lambda segment: segment.dead_share, reverse=True)
        return [s.number for s in worst_first if s is not self._active and s.dead_share >= dead_fraction]

    def seal(self) -> None:
        """End the active segment, so that it can be a victim; the next append starts a new one."""
        self._enter()
        with self._lock:
            self._raise_if_closed()
            self._settle_active()
            self._active = None
            self._retire_dead_segments()

    def close(self) -> None:
        """Forget all frames and remove the directory; may be repeated, and after an OSError should be."""
        self._enter()
        self._closed = True
        with self._lock:
            self._active = None
            self._segments.clear()
            for home in self._homes:
                home.remove()
            self._home = None

    def after_fork_in_child(self) -> None:
        """Make a forked copy independent: it reads the parent's frames, and writes to a directory of its own.

        Called from the child of a fork, before it uses the store from several threads; repeating it is
        harmless, and the store notices a fork by itself before it writes or unlinks.
        """
        if os.getpid() == self._process_id:
            return
        # The parent's other threads do not exist here, so a lock that one of them held is never given back.
        self._lock = threading.RLock()
        self._active = None
        for segment in list(self._segments.values()):
            segment.path = None
        # The parent's directory stays in _homes with its lock open: while we can read the files in it, it
        # counts as alive even if the parent crashes.
        self._home = None
        self._process_id = os.getpid()

    @property
    def live_bytes(self) -> int:
        """Bytes of this process's files that are not released."""
        return sum(segment.end_bytes - segment.dead_bytes for segment in self._own_segments())

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
    def directory(self) -> str | None:
        """The private directory, None before the first append and after ``close``."""
        home = self._home
        return None if home is None else home.path

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold. Cost: two system calls per segment."""
        self._enter()
        with self._lock:
            self._raise_if_closed()
            self._retire_dead_segments()
            assert self._bad_release_count == 0, (
                f"{self._bad_release_count} releases of bytes that were not live"
            )
            own = self._own_segments()
            names = {os.path.basename(segment.path) for segment in own if segment.path is not None}
            for segment in list(self._segments.values()):
                self._check_segment(segment)
            assert self._active is None or self._active in own, "the active segment is not in the table"
            assert self.live_bytes + self.dead_bytes == self.file_bytes
            if self._home is None:
                assert not own, "segments without a directory"
                return
            for name in set(self._file_system.list_names(self._home.path)) - names - {LOCK_NAME}:
                status = self._file_system.status(os.path.join(self._home.path, name))
                assert status.st_size == 0, f"file {name} holds bytes that no segment accounts for"

    def _check_segment(self, segment: Segment) -> None:
        number = segment.number
        size = self._file_system.size(segment.fd)
        assert self._segments[number] is segment, f"segment {number} is filed under another number"
        assert number < self._next_number, f"segment {number} is from the future"
        assert 0 <= segment.dead_bytes <= segment.end_bytes, (
            f"segment {number}: {segment.dead_bytes} bytes dead"
        )
        if segment.path is None:
            assert size >= segment.end_bytes, f"segment {number} lost bytes that its parent process wrote"
            return
        if segment.torn:
            assert size >= segment.file_bytes, f"segment {number} has {size} of {segment.file_bytes} bytes"
        else:
            assert size == segment.file_bytes, f"segment {number} has {size}, not {segment.file_bytes} bytes"
        assert segment.waste_bytes == 0 or segment is not self._active, (
            f"segment {number} is written after its waste"
        )

    def _own_segments(self) -> list[Segment]:
        # list() of a dict view is one piece under the GIL; a loop over the view could meet a retiring thread.
        return [segment for segment in list(self._segments.values()) if segment.path is not None]

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise ClosedError("the cold store is closed")

    def _enter(self) -> None:
        """Prepare to take the lock; OSError if this very thread is inside it already.

        A destructor or a signal handler may use the store in the middle of our own write. Waiting would last
        for ever and going on would tear the outer write, so the caller keeps its frames and tries again
        later.
        """
        self._notice_fork()
        if self._lock._is_owned():  # type: ignore[attr-defined]  # what threading.Condition asks, not in typeshed
            raise OSError(errno.EDEADLK, "the cold store is used from inside one of its own operations")

    def _notice_fork(self) -> None:
        if os.getpid() != self._process_id:
            self.after_fork_in_child()

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
        if self._active is not None and self._active.dead_share >= VICTIM_DEAD_SHARE:
            # Sealed, so that it frees its bytes at once or is a victim of the compaction that must follow.
            self._active = None
        self._retire_dead_segments()
        used_bytes = self.file_bytes
        if used_bytes + total_bytes > allowed_bytes:
            message = (
                f"disk_limit of {format_bytes(limit)} leaves no room for {format_bytes(total_bytes)}: "
                f"{format_bytes(used_bytes)} in use, {format_bytes(self.dead_bytes)} of it dead, "
                f"{format_bytes(limit - limit // SEGMENTS_WANTED)} usable without compaction"
            )
            raise OSError(errno.ENOSPC, message)

    def _segment_with_room(self, total_bytes: int) -> Segment:
        segment = self._active
        if segment is not None and segment.end_bytes + total_bytes <= segment.capacity_bytes:
            return segment
        if segment is None or segment.end_bytes > 0:
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

    def _open_segment_slow(self) -> Segment:
        """Seal the active segment and start a new one; OSError leaves the old one active."""
        number = self._next_number
        if number == SEGMENT_COUNT_MAX:
            raise OSError(errno.EFBIG, f"the cold store has used all its {SEGMENT_COUNT_MAX} segment numbers")
        # Counted before the file exists: an interrupted creation leaves a file under a number that is not
        # tried again.
        self._next_number = number + 1
        try:
            segment = self._create_segment(number, self._home or self._make_home_slow())
        except FileNotFoundError:
            if self._home is None or self._home.removed:
                raise
            # Cleaners of temporary files remove directories that look old; our open files outlive that.
            segment = self._create_segment(number, self._make_home_slow())
        self._segments[number] = segment
        self._active = segment
        self._retire_dead_segments()
        return segment

    def _create_segment(self, number: int, home: SpillDirectory) -> Segment:
        path = os.path.join(home.path, f"segment-{number:06x}")
        return Segment(number, path, self._capacity_bytes(), self._file_system)

    def _make_home_slow(self) -> SpillDirectory:
        parent = self._spill_dir or validated_spill_dir(tempfile.gettempdir(), self._file_system)
        self._homes.append(SpillDirectory(parent, self._file_system))
        self._home = self._homes[-1]
        worker = sys.modules.get("multiprocessing.util")
        if worker is not None:
            # Worker processes of multiprocessing leave without running the finaliser made in __init__.
            worker.Finalize(self, remove_quietly, args=(self._homes,), exitpriority=0)
        return self._home

    def _retire_dead_segments(self) -> None:
        """Unlink sealed segments without live bytes that nobody retired yet; the caller holds the lock."""
        for segment in self._own_segments():
            if segment is not self._active and segment.is_dead():
                self._retire(segment)

    def _retire(self, segment: Segment) -> None:
        self._notice_fork()
        path = segment.path
        if path is not None:
            try:
                self._file_system.remove(path)
            except FileNotFoundError:
                pass
            except OSError:
                # Still counted in file_bytes, and tried again when the next segment is opened.
                return
        self._segments.pop(segment.number, None)


def remove_quietly(homes: list[SpillDirectory]) -> None:
    """Remove private directories where nobody is left to hear of a failure; the next sweep tries again."""
    for home in homes:
        with suppress(OSError):
            home.remove()
