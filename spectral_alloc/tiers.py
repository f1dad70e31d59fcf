"""The tiers of one dict: values go down when the ledger is above its limit and come back when they are read.

Words: a *departure* is a value on its way out of HOT, a *shipment* a batch of frames on its way to disk (both in
_departure.pyx); a *relief* is one round of moves that brings the ledger back under its limit.

    HOT --dumps, encode--> WARM --append--> COLD          relieve(); the common way in _passage.pyx, lower()
     ^------------loads, decode------------+              load(), in _passage.pyx

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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from spectral_alloc._departure import Departure, begin_relief, depart_cell, recall_shipments, ship
from spectral_alloc._iteration import stored_cells_after
from spectral_alloc._ledger import frame_bytes_in_memory
from spectral_alloc._passage import Parcel, Passage
from spectral_alloc.allocator import Trimmer
from spectral_alloc.cold_store import ColdStore, segment_of
from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.file_system import REAL_FILE_SYSTEM, FileSystem
from spectral_alloc.frame import FrameCodec
from spectral_alloc.limits import resident_bytes
from spectral_alloc.segments import OFFSET_BITS
from spectral_alloc.serializer import dumps, loads
from spectral_alloc.shared_objects import SharedObjects
from spectral_alloc.spill_directory import validated_spill_dir

if TYPE_CHECKING:
    from spectral_alloc._cell import Cell
    from spectral_alloc._ledger import Ledger
    from spectral_alloc._regrow import Regrowth
    from spectral_alloc._thermal import DictCore
    from spectral_alloc.log import Log

__all__ = ["Settings", "Tiers"]

WARM_SHARES = 0.1, 0.5  # of the bytes that values and frames may take: the least, and the most, for frames
READ_SECONDS_FOR_MOST = 1e-4  # a disk read that takes this long is worth the largest share
BATCH_BYTES = 256 << 10  # frames written to disk in one call
GAP_BYTES = 4 << 10  # between two frames that one read brings: to copy so much costs no more than a call
SLACK_BYTES = 8 << 10  # a relief frees this much more than it must, so that not every write needs one
UPKEEP_BYTES = 256 << 10  # freed between two times that a relief looks after the slower things
SLACK_SHARE = 1 / 64  # ... but no more than this part of the limit
SAMPLE_SHARE = 1 / 32  # of the limit, for samples and dictionaries of the codec
COMPACT_FROM_SHARE = 0.6  # dead bytes by live bytes: begun before they are equal, since writing goes on meanwhile
HELP_FROM_SHARE = 1.0  # ... from which whoever writes must help
SHADOW_SHARE = 1 / 8  # of the limit at most, for noting where frames of values in RAM still lie: 80 bytes a value
SWEEP_CELLS = 4096  # weighed again at each pulse while the process grows faster than the ledger
SWEEP_GROWTH_BYTES = 32 << 20
WRITE_SECONDS_MAX = 1.0  # a relief waits no longer for another thread's write
WRITE_POLL_SECONDS = 0.0002
UNLIMITED = 1 << 62


@dataclass(frozen=True)
class Settings:
    """What ThermalDict.open was given, checked."""

    memory_limit_bytes: int | None = None
    spill_dir: str | None = None
    disk_limit_bytes: int | None = None
    codec: str | None = None
    aliasing: str = "exact"
    file_system: FileSystem = field(default=REAL_FILE_SYSTEM, compare=False)
    regrow: Callable[[Any], Any] | None = None
    regrow_always: bool = False

    def with_memory_limit(self, limit_bytes: int | None) -> "Settings":
        """These settings with another memory limit."""
        return replace(self, memory_limit_bytes=limit_bytes)

    def pickled(self) -> tuple[Any, ...]:
        """What a pickle keeps of these settings, for ``restored``; a recipe must be picklable, as a default factory."""
        places = self.memory_limit_bytes, self.spill_dir, self.disk_limit_bytes
        return *places, self.codec, self.aliasing, self.regrow, self.regrow_always

    @classmethod
    def restored(cls, memory: int | None, spill_dir: str | None, disk: int | None, *others: Any) -> "Settings":
        """The settings of a pickle; a spill directory that is not fit on this machine is replaced by the system's."""
        if spill_dir is not None:
            try:
                spill_dir = validated_spill_dir(spill_dir, REAL_FILE_SYSTEM)
            except OSError:
                spill_dir = None
        codec, aliasing, regrow, regrow_always = others
        return cls(memory, spill_dir, disk, codec, aliasing, regrow=regrow, regrow_always=regrow_always)


def neighbours(frames: "list[tuple[int, int, Cell]]") -> "Iterator[list[tuple[int, int, Cell]]]":
    """Frames (place, length, cell), in the order of their places, in runs that are worth one read.

    >>> [len(run) for run in neighbours([(0, 10, None), (12, 10, None), (90_000, 10, None)])]
    [2, 1]
    """
    run: list[tuple[int, int, Cell]] = []
    for item in frames:
        if run:
            end = run[-1][0] + run[-1][1]
            if item[0] - end > GAP_BYTES or item[0] + item[1] - run[0][0] > BATCH_BYTES:
                yield run
                run = []
        run.append(item)
    if run:
        yield run


class Tiers(Passage):
    """Moves the values of one ledger between RAM and disk.

    Parameters: ``ledger``; ``settings``; ``store`` (made from the settings if None).
    Cost: a relief is proportional to what it moves; a load is one decode, and one disk read when cold.
    Threads: safe.
    """

    sample_share = SAMPLE_SHARE

    def __init__(self, ledger: "Ledger", settings: Settings, store: "ColdStore | Log | None" = None) -> None:
        samples = int(ledger.value_bytes_allowed * self.sample_share)
        # What the codec keeps to train its dictionaries counts against the limit, so a small dict must keep little.
        codec = FrameCodec(settings.codec, sample_limit_bytes=samples)
        codec.express.takes_all_raw = settings.codec == "raw"
        store = store or ColdStore(settings.spill_dir, settings.disk_limit_bytes, settings.file_system)
        super().__init__(ledger, codec, store)
        self.settings = settings
        self.objects = SharedObjects()
        self.cold_read_seconds = READ_SECONDS_FOR_MOST
        self.shadows.limit(int(ledger.value_bytes_allowed * SHADOW_SHARE))
        self.events: Counter[str] = Counter()
        self.trimmer = Trimmer()
        self.on_backlog: Callable[[], None] = lambda: None
        self.core_of: Callable[[], DictCore[Any, Any] | None] = lambda: None
        self._compacting = threading.RLock()
        self.on_pulse: Callable[[], None] = lambda: None
        self._writing: set[int] = set()
        self._freed_bytes = 0
        self._sweep_left = 0
        self._resident_at_sweep = resident_bytes()
        self._serve(self.store.release)

    def _serve(self, release: Callable[[int, int], None]) -> None:
        """Tell the ledger who hears of dead frames, and who loads a stray cell."""
        self.ledger.serve(release, weakref.WeakMethod(self.load))

    def serve_recipes(self, regrowth: "Regrowth | None") -> None:
        """Let values leave for their recipes from now on."""
        self.adopt_recipes(regrowth)

    # down -----------------------------------------------------------------------------------------------------------

    def relieve(self) -> None:
        """Let values leave until the ledger is within its limit, or nothing can leave any more."""
        ledger = self.ledger
        if threading.get_ident() in self._writing:
            return  # a finaliser that ran while this thread was writing to disk: the relief under way goes on
        allowed_bytes = ledger.value_bytes_allowed
        before = ledger.used_bytes
        begin_relief(ledger)
        self._lower_all(int(min(SLACK_BYTES, allowed_bytes * SLACK_SHARE)))
        self._await_writes()
        self._freed_bytes += before - ledger.used_bytes
        # Of all that is counted: where keys and cells leave little for values, reliefs are small, upkeep must be rare.
        if self._freed_bytes >= min(UPKEEP_BYTES, before * SLACK_SHARE) or ledger.excess_bytes() > 0:
            self._keep_up()

    def _lower_all(self, slack: int) -> None:
        """Send values and frames a tier down, until the limit less ``slack`` is met or nothing can leave."""
        ledger = self.ledger
        target = self.warm_target_bytes
        parcel = Parcel()
        disk_works = True
        while ledger.excess_bytes(slack) > 0:
            surplus = ledger.warm_bytes - target
            if surplus > 0 and disk_works:
                # No more than is needed: where the share of frames has shrunk, the others stay until room is short.
                wanted = min(surplus, ledger.excess_bytes(slack))
                disk_works = self.spill(max(wanted, min(BATCH_BYTES, ledger.warm_bytes // 4)))
            departure = self.lower(slack, target if disk_works else UNLIMITED, BATCH_BYTES, parcel)
            if departure is False:
                break
            if departure is not None:
                self._send_down(departure, parcel)
            del departure
            if parcel.items and parcel.size_bytes >= min(BATCH_BYTES, ledger.excess_bytes(slack)):
                self._send_parcel(parcel)
        if parcel.items:
            self._send_parcel(parcel)
        if disk_works and ledger.warm_bytes and ledger.excess_bytes() > 0:
            self.spill(ledger.excess_bytes(slack))

    def _keep_up(self) -> None:
        """What a relief leaves to be done, now and then: sums that change slowly, and the background writer's work."""
        freed_bytes, self._freed_bytes = self._freed_bytes, 0
        self._charge_upkeep()
        self.trim(freed_bytes)
        if self.has_backlog:
            self.on_backlog()
        if self.store.dead_bytes > HELP_FROM_SHARE * self.store.live_bytes:
            self._help_compacting()

    def _help_compacting(self) -> None:
        """Who writes faster than the background compacts must help, so that the files stay small at any speed."""
        core = self.core_of()
        if core is None or self._compacting._is_owned():  # type: ignore[attr-defined]  # what Condition asks
            return
        with self._compacting:
            # While this thread waited, the background may have done it.
            if self.store.dead_bytes > HELP_FROM_SHARE * self.store.live_bytes and self.wants_compaction:
                self.compact(core)

    def _charge_upkeep(self) -> None:
        """Charge what changes slowly; less slack where fewer values are left to leave for it."""
        self._charge_buffers()
        self.ledger.charge_slack(self.ledger.used_bytes - self.ledger.counted_bytes)

    def _charge_buffers(self) -> None:
        self.shadows.limit(int(self.ledger.value_bytes_allowed * SHADOW_SHARE))
        self.ledger.charge_buffers(self.codec.resident_bytes + self.shadows.resident_bytes + self._recipe_bytes())

    def _recipe_bytes(self) -> int:
        """RAM of what is known of recipes, whose share is set again."""
        if self.regrowth is None:
            return 0
        self.regrowth.limit(int(self.ledger.value_bytes_allowed * SHADOW_SHARE))
        return self.regrowth.resident_bytes

    def _await_writes(self) -> None:
        """While the limit is exceeded only for frames that another thread is writing, let that thread finish."""
        latest = monotonic() + WRITE_SECONDS_MAX
        while self.ledger.shipping_bytes and self.ledger.excess_bytes() > 0 and monotonic() < latest:
            sleep(WRITE_POLL_SECONDS)

    @property
    def warm_target_bytes(self) -> int:
        """Frames in RAM beyond this many bytes are the first to go when room is needed.

        A frame in RAM saves the disk read, a live value the decoding too: where the system's page cache answers reads
        in microseconds, room is better spent on live values.
        """
        least, most = WARM_SHARES
        share = min(most, max(least, most * self.cold_read_seconds / READ_SECONDS_FOR_MOST))
        return int(self.ledger.value_bytes_allowed * share)

    def _send_down(self, departure: Departure, parcel: Parcel) -> None:
        """The general way down: serialise a value; it becomes WARM, or goes into ``parcel`` for the disk."""
        if self.regrowth is not None and self.regrowth.takes_departure(departure, self.cold_read_seconds):
            return
        try:
            parts, itemsizes = self._dumps(departure.value, departure.flags)
        except (MemoryError, OSError) as error:
            departure.hold()
            self._note("serialising failed", error)
            return
        except Exception as error:
            departure.pin(f"{type(error).__name__}: {error}"[:200])
            self._note("unserialisable", error)
            return
        if self.rests_whole(departure, parts):
            return
        try:
            frame = self.codec.encode(parts, itemsizes)
        except Exception as error:
            del parts
            departure.hold()
            self._note("codec failed", error)
            return
        del parts
        if frame_bytes_in_memory(len(frame)) >= departure.value_bytes:
            parcel.add(departure, frame)
        else:
            departure.to_warm(frame)

    def _send_parcel(self, parcel: Parcel) -> None:
        """Write the frames of values that take no more RAM than their frames, and let go of the values."""
        items = parcel.unpack()
        places = self._append([frame for _, frame in items])
        if places is None:
            for departure, _ in items:
                departure.hold()
            return
        for (departure, frame), place in zip(items, places, strict=True):
            if not departure.to_cold(place, len(frame)):
                self.store.release(place, len(frame))

    def spill(self, size_bytes: int, only: "Cell | None" = None) -> bool:
        """Write the oldest warm frames to disk, ``size_bytes`` of them if there are; False if the disk refuses."""
        while size_bytes > 0:
            shipment = ship(self.ledger, min(size_bytes, BATCH_BYTES), only)
            if shipment is None:
                return True  # the background writer may have the last ones under way
            before = self.ledger.warm_bytes
            if self.regrowth is not None and self.regrowth.recipes:
                self.regrowth.takes_shipped(shipment, self._value_of, self.cold_read_seconds)
            places = self._append(shipment.frames)
            if places is None:
                return False
            for place, frame_bytes in shipment.commit(places):
                self.store.release(place, frame_bytes)
            size_bytes -= max(1, before - self.ledger.warm_bytes)
            if only is not None:
                break
        return True

    def _value_of(self, frame: bytes) -> Any:
        return loads(self.codec.decode(frame))

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
            if full and self.forsake():
                self._writing.discard(thread)
                return self._append(frames, moving)
            self._note("disk full" if full else "disk failed", error)
            return None
        finally:
            self._writing.discard(thread)

    def _note(self, event: str, error: BaseException, outcome: str = "The value stays in memory") -> None:
        """Count an event, and warn about the first of its kind, saying what came of it."""
        self.events[event] += 1
        if self.events[event] == 1:
            message = f"{event}: {error}. {outcome}; stats().events counts how often this happens."
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    # up -------------------------------------------------------------------------------------------------------------

    def _dumps(self, value: Any, flags: int) -> tuple[list[Any], Sequence[int]]:
        """The parts and item sizes of a value that leaves RAM the general way."""
        return dumps(value, flags, objects=self.objects)

    def _warm_up(self, cell: "Cell", origin: tuple[Any, ...], frame: bytes) -> bool:
        """A frame that was read from disk becomes WARM; False if its entry has moved."""
        return self.ledger.warm_up(cell, origin, frame)

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
                frame = self.fetch(cell, origin)
                moved += frame is not None and self._warm_up(cell, origin, frame)
            finally:
                self.drop_ticket(cell)
            if self.ledger.excess_bytes() > 0:
                self.relieve()
        return moved

    # by hand --------------------------------------------------------------------------------------------------------

    def demote(self, cell: "Cell") -> bool:
        """Move one value a tier down; False if it cannot leave now."""
        parcel = Parcel()
        departure = depart_cell(self.ledger, cell)
        if departure is None:
            self.spill(1, cell)
            return bool(self.ledger.whereabouts(cell)[0] in ("cold", "regrown"))
        self._send_down(departure, parcel)
        if parcel.items:
            self._send_parcel(parcel)
        return bool(self.ledger.whereabouts(cell)[0] != "live")

    # in the background ------------------------------------------------------------------------------------------------

    @property
    def has_backlog(self) -> bool:
        """Is there work for the background writer?"""
        return self.codec.train_due or self._ahead_bytes() > 0 or self.wants_compaction

    def _ahead_bytes(self) -> int:
        """Bytes of frames to write ahead of need: what is lacking to some room, of the frames beyond their share."""
        target = self.warm_target_bytes
        return min(int(self.ledger.warm_bytes - 0.8 * target), self.ledger.excess_bytes(target // 8)) if target else 0

    @property
    def wants_compaction(self) -> bool:
        """Is much of the disk dead, and half of some segment?"""
        return self.store.dead_bytes > COMPACT_FROM_SHARE * self.store.live_bytes and bool(self.store.victims())

    def work(self, core: "DictCore[Any, Any]") -> None:
        """One turn of the background writer: write frames ahead of need, train a dictionary, compact."""
        if self.codec.train_due:
            self.codec.train()
            self._charge_upkeep()
        self.spill(self._ahead_bytes())
        if self.wants_compaction:
            self.compact(core)

    def compact(self, core: "DictCore[Any, Any]") -> None:
        """Move the live frames out of segments that are mostly dead, so that the files can go."""
        with self._compacting:
            self._compact(core)

    def _compact(self, core: "DictCore[Any, Any]") -> None:
        victims = set(self.store.victims())
        self.forsake(victims, OFFSET_BITS)
        position = 0
        while position >= 0 and victims:
            position, cells = stored_cells_after(core, position, SWEEP_CELLS)
            places = [(*place, cell) for cell in cells if (place := self.ledger.place_of(cell)) is not None]
            moving = sorted((item for item in places if segment_of(item[0]) in victims), key=lambda item: item[0])
            for run in neighbours(moving):
                self._move_frames(run)

    def _move_frames(self, run: "list[tuple[int, int, Cell]]") -> None:
        """Move frames that lie close together, in one read and one write."""
        first, (last, last_bytes, _) = run[0][0], run[-1]
        try:
            data = self.store.read(first, last + last_bytes - first)
            frames = [data[place - first : place - first + frame_bytes] for place, frame_bytes, _ in run]
            new_places = self._append(frames, moving=True)
        except (OSError, CorruptFrameError):
            # One of them is gone or damaged: an entry keeps its place, and a read of it will say what is wrong.
            if len(run) > 1:
                for item in run:
                    self._move_frames([item])
            return
        if new_places is None:
            return
        for (place, frame_bytes, cell), new_place in zip(run, new_places, strict=True):
            moved = self.ledger.relocate(cell, place, new_place)
            self.store.release(place if moved else new_place, frame_bytes)

    # upkeep -----------------------------------------------------------------------------------------------------------

    def pulse(self, core: "DictCore[Any, Any]") -> None:
        """Called every few hundred accesses: if the process grew a lot, weigh the values again, a part at a time."""
        resident = resident_bytes()
        if resident - self._resident_at_sweep > max(SWEEP_GROWTH_BYTES, self.ledger.value_bytes_allowed // 8):
            self._sweep_left = len(core)
            self._resident_at_sweep = resident
        self._resident_at_sweep = min(self._resident_at_sweep, resident)
        if self.regrowth is not None:
            self._charge_buffers()
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
        self._writing = set()
        self._compacting = threading.RLock()
        self.forget_readers()
        recall_shipments(self.ledger)
        self.codec.after_fork()
        self.store.after_fork_in_child()

    def close(self) -> None:
        """Give back the files."""
        self.store.close()
