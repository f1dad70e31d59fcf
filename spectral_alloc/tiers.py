"""The tiers of one dict: values go down when the ledger is above its limit and come back when they are read.

Words: a *departure* is a value on its way out of HOT, a *shipment* a batch of frames on its way to disk (both in
_departure.pyx); a *relief* is one round of moves that brings the ledger back under its limit.

    HOT --dumps, encode--> WARM --append--> COLD          relieve()
     ^------------loads, decode------------+              load()

Invariants:
1. This module only decides and converts; every change of state is one call into _ledger.pyx or _departure.pyx, so an
   exception between two lines of Python (Ctrl-C too) leaves every value in some tier.
2. User code (reducers, finalisers) runs without any lock held here; one ticket's lock covers one read of one frame.

Threads: any; two threads may relieve one ledger at once, each with its own departures.
"""

import errno
import threading
import warnings
import weakref
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Any

from spectral_alloc._cell import EntryGoneError
from spectral_alloc._departure import Departure, begin_relief, depart, depart_cell, recall_shipments, ship
from spectral_alloc._iteration import stored_cells_after
from spectral_alloc._ledger import AGAIN, frame_bytes_in_memory
from spectral_alloc.allocator import Trimmer
from spectral_alloc.cold_store import ColdStore, segment_of
from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.file_system import REAL_FILE_SYSTEM, FileSystem
from spectral_alloc.frame import FrameCodec
from spectral_alloc.limits import resident_bytes
from spectral_alloc.serializer import dumps, loads
from spectral_alloc.shared_objects import SharedObjects
from spectral_alloc.spill_directory import validated_spill_dir

if TYPE_CHECKING:
    from spectral_alloc._cell import Cell
    from spectral_alloc._ledger import Ledger
    from spectral_alloc._thermal import DictCore
    from spectral_alloc.log import Log

__all__ = ["Settings", "Tiers"]

WARM_SHARE = 0.5  # of the bytes that values and frames may take
BATCH_BYTES = 256 << 10  # frames written to disk in one call
SLACK_BYTES = 64 << 10  # a relief frees this much more than it must, so that not every write needs one
SLACK_SHARE = 1 / 64  # ... but no more than this part of the limit
SAMPLE_SHARE = 1 / 32  # of the limit, for samples and dictionaries of the codec
SWEEP_CELLS = 4096  # weighed again at each pulse while the process grows faster than the ledger
SWEEP_GROWTH_BYTES = 32 << 20
COMPACT_FROM_SHARE = 0.6  # dead bytes by live bytes: begun before they are equal, since writing goes on meanwhile
SLOW_READS_KEPT = 1024
WRITE_SECONDS_MAX = 1.0  # a relief waits no longer for another thread's write
WRITE_POLL_SECONDS = 0.0002


@dataclass(frozen=True)
class Settings:
    """What ThermalDict.open was given, checked."""

    memory_limit_bytes: int | None = None
    spill_dir: str | None = None
    disk_limit_bytes: int | None = None
    codec: str | None = None
    aliasing: str = "exact"
    file_system: FileSystem = field(default=REAL_FILE_SYSTEM, compare=False)

    def with_memory_limit(self, limit_bytes: int | None) -> "Settings":
        """These settings with another memory limit."""
        return replace(self, memory_limit_bytes=limit_bytes)

    def pickled(self) -> tuple[int | None, str | None, int | None, str | None, str]:
        """What a pickle keeps of these settings, for ``restored``."""
        return self.memory_limit_bytes, self.spill_dir, self.disk_limit_bytes, self.codec, self.aliasing

    @classmethod
    def restored(
        cls, memory: int | None, spill_dir: str | None, disk: int | None, codec: str | None, aliasing: str
    ) -> "Settings":
        """The settings of a pickle; a spill directory that is not fit on this machine is replaced by the system's."""
        if spill_dir is not None:
            try:
                spill_dir = validated_spill_dir(spill_dir, REAL_FILE_SYSTEM)
            except OSError:
                spill_dir = None
        return cls(memory, spill_dir, disk, codec, aliasing)


class _Ticket:
    """One read of one cold frame, shared by all who wait for it."""

    __slots__ = ("frame", "lock", "origin")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.frame: bytes | None = None
        self.origin: object = None


class Tiers:
    """Moves the values of one ledger between RAM and disk.

    Parameters: ``ledger``; ``settings``; ``store`` (made from the settings if None).
    Cost: a relief is proportional to what it moves; a load is one decode, and one disk read when cold.
    Threads: safe.
    """

    sample_share = SAMPLE_SHARE

    def __init__(self, ledger: "Ledger", settings: Settings, store: "ColdStore | Log | None" = None) -> None:
        self.ledger = ledger
        self.settings = settings
        samples = int(ledger.value_bytes_allowed * self.sample_share)
        # What the codec keeps to train its dictionaries counts against the limit, so a small dict must keep little.
        self.objects = SharedObjects()
        self.codec = FrameCodec(settings.codec, sample_limit_bytes=samples)
        own = (settings.spill_dir, settings.disk_limit_bytes, settings.file_system)
        self.store: ColdStore | Log = store or ColdStore(*own)
        self.events: Counter[str] = Counter()
        # An array, not a list of floats: floats that stay would keep arenas of values that have left.
        self.slow_read_seconds = array("d")
        self._slow_read_count = 0
        self.trimmer = Trimmer()
        self.on_backlog: Callable[[], None] = lambda: None
        self.on_pulse: Callable[[], None] = lambda: None
        self._tickets: dict[int, _Ticket] = {}
        self._writing: set[int] = set()
        self._reading: set[int] = set()
        self._sweep_left = 0
        self._resident_at_sweep = resident_bytes()
        self._serve(self.store.release)

    def _serve(self, release: Callable[[int, int], None]) -> None:
        """Tell the ledger who hears of dead frames, and who loads a stray cell."""
        self.ledger.serve(release, weakref.WeakMethod(self.load))

    # down -----------------------------------------------------------------------------------------------------------

    def relieve(self) -> None:
        """Let values leave until the ledger is within its limit, or nothing can leave any more."""
        ledger = self.ledger
        if threading.get_ident() in self._writing:
            return  # a finaliser that ran while this thread was writing to disk: the relief under way goes on
        slack = int(min(SLACK_BYTES, ledger.value_bytes_allowed * SLACK_SHARE))
        begin_relief(ledger)
        disk_works = True
        small: list[tuple[Departure, bytes]] = []
        small_bytes = 0
        before = ledger.used_bytes
        while ledger.excess_bytes(slack) > 0:
            surplus = ledger.warm_bytes - self.warm_target_bytes
            if surplus > 0 and disk_works:
                disk_works = self.spill(max(surplus, min(BATCH_BYTES, ledger.warm_bytes // 4)))
            departure = depart(ledger, slack)
            if departure is None:
                break
            small_bytes += self._send_down(departure, small)
            del departure
            if small and small_bytes >= min(BATCH_BYTES, ledger.excess_bytes(slack)):
                self._send_small(small)
                small_bytes = 0
        if small:
            self._send_small(small)
        if disk_works and ledger.warm_bytes and ledger.excess_bytes() > 0:
            self.spill(ledger.excess_bytes(slack))
        self._await_writes()
        ledger.charge_buffers(self.codec.resident_bytes)
        ledger.charge_slack(ledger.used_bytes - ledger.counted_bytes)  # less of it where fewer values are left to leave
        self.trim(before - ledger.used_bytes)
        if self.has_backlog:
            self.on_backlog()

    def _await_writes(self) -> None:
        """While the limit is exceeded only for frames that another thread is writing, let that thread finish."""
        latest = monotonic() + WRITE_SECONDS_MAX
        while self.ledger.shipping_bytes and self.ledger.excess_bytes() > 0 and monotonic() < latest:
            sleep(WRITE_POLL_SECONDS)

    @property
    def warm_target_bytes(self) -> int:
        """Frames in RAM beyond this many bytes are the first to go when room is needed."""
        return int(self.ledger.value_bytes_allowed * WARM_SHARE)

    def _send_down(self, departure: Departure, small: list[tuple[Departure, bytes]]) -> int:
        """Serialise a departing value; it becomes WARM, or waits in ``small`` to be written if a frame saves no RAM.

        Returns the bytes of the value if it waits, else 0.
        """
        try:
            parts, itemsizes = self._dumps(departure.value, departure.flags)
        except (MemoryError, OSError) as error:
            departure.hold()
            self._note("serialising failed", error)
            return 0
        except Exception as error:
            departure.pin(f"{type(error).__name__}: {error}"[:200])
            self._note("unserialisable", error)
            return 0
        try:
            frame = self.codec.encode(parts, itemsizes)
        except Exception as error:
            del parts
            departure.hold()
            self._note("codec failed", error)
            return 0
        del parts
        if frame_bytes_in_memory(len(frame)) >= departure.value_bytes:
            small.append((departure, frame))
            return departure.value_bytes
        departure.to_warm(frame)
        return 0

    def _send_small(self, small: list[tuple[Departure, bytes]]) -> None:
        """Write the frames of values that take no more RAM than their frames, and let go of the values."""
        batch = small[:]
        small.clear()
        places = self._append([frame for _, frame in batch])
        if places is None:
            for departure, _ in batch:
                departure.hold()
            return
        for (departure, frame), place in zip(batch, places, strict=True):
            if not departure.to_cold(place, len(frame)):
                self.store.release(place, len(frame))

    def spill(self, size_bytes: int, only: "Cell | None" = None) -> bool:
        """Write the oldest warm frames to disk, ``size_bytes`` of them if there are; False if the disk refuses."""
        while size_bytes > 0:
            shipment = ship(self.ledger, min(size_bytes, BATCH_BYTES), only)
            if shipment is None:
                return True  # the background writer may have the last ones under way
            before = self.ledger.warm_bytes
            places = self._append(shipment.frames)
            if places is None:
                return False
            for place, frame_bytes in shipment.commit(places):
                self.store.release(place, frame_bytes)
            size_bytes -= max(1, before - self.ledger.warm_bytes)
            if only is not None:
                break
        return True

    def _append(self, frames: Sequence[bytes], moving: bool = False) -> list[int] | None:
        """Append frames to the cold store; None if the disk refuses, which is counted and warned about once."""
        thread = threading.get_ident()
        if thread in self._writing:
            return None
        try:
            self._writing.add(thread)
            return self.store.append(frames, moving=moving)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            self._note("disk full" if full else "disk failed", error)
            return None
        finally:
            self._writing.discard(thread)

    def _note(self, event: str, error: BaseException) -> None:
        """Count an event, and warn about the first of its kind."""
        self.events[event] += 1
        if self.events[event] == 1:
            message = f"{event}: {error}. The value stays in memory; stats().events counts how often this happens."
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    # up -------------------------------------------------------------------------------------------------------------

    def load(self, cell: "Cell", key: object, insist: bool = False) -> Any:
        """Return the value of an entry that is not live, installing it where it earns that; KeyError if it is gone."""
        while True:
            origin = self.ledger.whereabouts(cell)
            if origin[0] == "live":
                return origin[1]
            if origin[0] == "gone":
                raise EntryGoneError(key)
            start = perf_counter()
            try:
                frame = origin[1] if origin[0] == "warm" else self._fetch(cell, origin)
                if frame is None:
                    continue
                value = self._loads(self.codec.decode(frame), cell, origin)
                own = self.ledger.arrive(cell, origin, value, insist)
            except CorruptFrameError as error:
                raise CorruptFrameError(f"the stored value of key {key!r} is damaged: {error}", key) from error
            except OSError as error:
                error.add_note(f"while reading the value of key {key!r} from {self.store.directory}")
                raise
            finally:
                # Not before the value is installed: until then whoever comes late shares the frame.
                self._tickets.pop(id(cell), None)
            self._note_slow_read(perf_counter() - start)
            if own is not AGAIN:
                return own

    def _dumps(self, value: Any, flags: int) -> tuple[Sequence[Any], Sequence[int]]:
        """The parts and item sizes of a value that leaves RAM."""
        return dumps(value, flags, objects=self.objects)

    def _loads(self, parts: Sequence[Any], cell: "Cell", origin: tuple[Any, ...]) -> Any:
        """The value of the parts that were read for a cell; it is about to be installed."""
        return loads(parts)

    def _warm_up(self, cell: "Cell", origin: tuple[Any, ...], frame: bytes) -> bool:
        """A frame that was read from disk becomes WARM; False if its entry has moved."""
        return bool(self.ledger.warm_up(cell, origin, frame))

    def _note_slow_read(self, seconds: float) -> None:
        """Keep the durations of the last reads."""
        if len(self.slow_read_seconds) < SLOW_READS_KEPT:
            self.slow_read_seconds.append(seconds)
        else:
            self.slow_read_seconds[self._slow_read_count % SLOW_READS_KEPT] = seconds
        self._slow_read_count += 1

    def _fetch(self, cell: "Cell", origin: tuple[Any, ...]) -> bytes | None:
        """Read a cold frame once for all who want it until the caller drops the ticket; None if it has moved."""
        thread = threading.get_ident()
        if thread in self._reading:
            # A finaliser or signal handler in the middle of a read: to wait here could be to wait for oneself.
            return self._read_cold(cell, origin)
        ticket = self._tickets.setdefault(id(cell), _Ticket())
        try:
            self._reading.add(thread)
            with ticket.lock:
                if ticket.frame is None or ticket.origin != origin:
                    ticket.frame, ticket.origin = self._read_cold(cell, origin), origin
                return ticket.frame
        finally:
            self._reading.discard(thread)

    def _read_cold(self, cell: "Cell", origin: tuple[Any, ...]) -> bytes | None:
        """Read a frame from disk; None if the entry has moved meanwhile."""
        if self.ledger.whereabouts(cell) != origin:
            return None
        try:
            return self.store.read(origin[1], origin[2])
        except (OSError, CorruptFrameError):
            if self.ledger.whereabouts(cell) != origin:
                return None
            raise

    def prefetch(self, core: "DictCore[Any, Any]", keys: Sequence[object]) -> int:
        """Bring the cold frames of ``keys`` into RAM, in the order they lie on disk; returns how many."""
        origins = []
        for key in keys:
            try:
                cell = core._find(key)
            except (KeyError, TypeError):
                continue
            if cell is None:
                continue  # live, and never weighed
            origin = self.ledger.whereabouts(cell)
            if origin[0] == "cold":
                origins.append((origin[1], origin, cell))
        origins.sort(key=lambda item: item[0])
        moved = 0
        for _, origin, cell in origins:
            if self.ledger.warm_bytes >= self.warm_target_bytes:
                break
            try:
                frame = self._fetch(cell, origin)
                moved += frame is not None and self._warm_up(cell, origin, frame)
            finally:
                self._tickets.pop(id(cell), None)
        return moved

    # by hand --------------------------------------------------------------------------------------------------------

    def demote(self, cell: "Cell") -> bool:
        """Move one value a tier down; False if it cannot leave now."""
        small: list[tuple[Departure, bytes]] = []
        departure = depart_cell(self.ledger, cell)
        if departure is None:
            self.spill(1, cell)
            return bool(self.ledger.whereabouts(cell)[0] == "cold")
        self._send_down(departure, small)
        if small:
            self._send_small(small)
        return bool(self.ledger.whereabouts(cell)[0] != "live")

    # in the background ------------------------------------------------------------------------------------------------

    @property
    def has_backlog(self) -> bool:
        """Is there work for the background writer?"""
        frames_are_many = self.ledger.warm_bytes > 0.9 * self.warm_target_bytes > 0
        return self.codec.train_due or frames_are_many or self.wants_compaction

    @property
    def wants_compaction(self) -> bool:
        """Is much of the disk dead, and half of some segment?"""
        return self.store.dead_bytes > COMPACT_FROM_SHARE * self.store.live_bytes and bool(self.store.victims())

    def work(self, core: "DictCore[Any, Any]") -> None:
        """One turn of the background writer: write frames ahead of need, train a dictionary, compact."""
        if self.codec.train_due:
            self.codec.train()
            self.ledger.charge_buffers(self.codec.resident_bytes)
        target = self.warm_target_bytes
        if self.ledger.excess_bytes(target // 8) > 0 and self.ledger.warm_bytes > 0.9 * target > 0:
            self.spill(int(self.ledger.warm_bytes - 0.8 * target))
        if self.wants_compaction:
            self.compact(core)

    def compact(self, core: "DictCore[Any, Any]") -> None:
        """Move the live frames out of segments that are mostly dead, so that the files can go."""
        victims = set(self.store.victims())
        position = 0
        while position >= 0 and victims:
            position, cells = stored_cells_after(core, position, SWEEP_CELLS)
            for cell in cells:
                place = self.ledger.place_of(cell)
                if place is not None and segment_of(place[0]) in victims:
                    self._move_frame(cell, *place)

    def _move_frame(self, cell: "Cell", place: int, frame_bytes: int) -> None:
        try:
            places = self._append([self.store.read(place, frame_bytes)], moving=True)
        except (OSError, CorruptFrameError):
            return  # the entry keeps its place; a read of it will say what is wrong
        if places is not None:
            moved = self.ledger.relocate(cell, place, places[0])
            self.store.release(place if moved else places[0], frame_bytes)

    # upkeep -----------------------------------------------------------------------------------------------------------

    def pulse(self, core: "DictCore[Any, Any]") -> None:
        """Called every few hundred accesses: if the process grew a lot, weigh the values again, a part at a time."""
        resident = resident_bytes()
        if resident - self._resident_at_sweep > max(SWEEP_GROWTH_BYTES, self.ledger.value_bytes_allowed // 8):
            self._sweep_left = len(core)
            self._resident_at_sweep = resident
        self._resident_at_sweep = min(self._resident_at_sweep, resident)
        self.on_pulse()
        self.trim(0)
        if self._sweep_left > 0:
            core._sweep(min(SWEEP_CELLS, self._sweep_left))
            self._sweep_left -= SWEEP_CELLS

    def trim(self, freed_bytes: int) -> None:
        """Let the C library give freed memory back to the operating system, after enough of it was freed."""
        self.trimmer.note(freed_bytes, self.ledger.counted_bytes)

    def after_fork_in_child(self) -> None:
        """No lock, thread or ticket of the parent is valid here."""
        self._tickets, self._writing, self._reading = {}, set(), set()
        recall_shipments(self.ledger)
        self.codec.after_fork()
        self.store.after_fork_in_child()

    def close(self) -> None:
        """Give back the files."""
        self.store.close()
