"""The cold store: frames in append-only segment files, found again by a *place* of 64 bits.

The log without what must outlive its process: the files, places and accounts of segments.py, in a private directory
that
is removed at the end. Words: a *frame* is any bytes the caller wants back; the others are those of segments.py.

    segment  | frame | frame | frame | ...    no headers: a frame checks itself, its owner keeps its length

Invariants beside those of segments.py (``ColdStore.check`` walks them all):
1. A sealed segment of ours without live bytes is unlinked.
2. A segment with ``path`` None was inherited through fork: it is read, never written, unlinked or counted.

Threads: ``append``, ``seal``, ``close`` and ``check`` take the lock; ``read`` and ``release`` never do.
Cost: append is one system call per batch and read is one; neither copies the frames.
"""

import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress

from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.file_system import REAL_FILE_SYSTEM, FileSystem
from spectral_alloc.segment import Segment
from spectral_alloc.segments import OFFSET_BITS, OFFSET_MASK, SEGMENT_BYTES, Segments, segment_of
from spectral_alloc.spill_directory import LOCK_NAME, SpillDirectory, validated_spill_dir

__all__ = ["SEGMENT_BYTES", "ColdStore", "segment_of"]


class ColdStore(Segments):
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
        super().__init__(disk_limit_bytes, file_system, segment_bytes, "cold store")
        self._home: SpillDirectory | None = None
        # Every directory this store ever used: one, unless it was forked or its directory was cleaned away.
        self._homes: list[SpillDirectory] = []
        weakref.finalize(self, remove_quietly, self._homes)

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
        places: list[int] = []
        try:
            with self._lock:
                self._raise_if_closed()
                if not lengths:
                    return []
                self._settle_active()
                self._refuse_beyond_limit(total_bytes, moving)
                segment = self._segment_with_room(total_bytes)
                places = self._write(segment, [(frames, lengths)], moving)
            return places  # noqa: RET504  # they must have a name where it is interrupted
        except BaseException:  # Ctrl-C on the way out: the caller never learns the places
            for place, length in zip(places, lengths, strict=False):
                self.release(place, length)
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
        offset = place & OFFSET_MASK
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
        segment = self._release(place, length)
        if segment is not None:
            self._retire(segment)

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

    def _open_segment_slow(self) -> Segment:
        """Seal the active segment and start a new one; OSError leaves the old one active."""
        number = self._new_number()
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


def remove_quietly(homes: list[SpillDirectory]) -> None:
    """Remove private directories where nobody is left to hear of a failure; the next sweep tries again."""
    for home in homes:
        with suppress(OSError):
            home.remove()
