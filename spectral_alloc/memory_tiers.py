"""The tiers of one SpectralMemory: blocks go down when the heap is above its limit and come back when they are used.

Words: a *relief* is one round of moves that brings the heap back under its limit; a *victim* is a block that leaves;
a block *comes back* when its bytes are wanted; a *recipe* is the byte that a block of equal bytes is filled with.

    HOT --encode--> WARM --append--> COLD         relieve(); by hand: memory_rest.py
     |                                |
     +--all bytes equal--> REGROWN    |           a recipe and no frame
     ^---------------decode-----------+---        come_back()

Invariants:
1. Every change of a block is one call into core/heap_move.c, which refuses if the block was used since its bytes were
   copied; so an exception between two lines of Python leaves every block in some tier, and no write is lost.
2. One mover a block: moves down hold ``relieving``, moves up hold the block's ticket (core/heap_move.c, invariant 1).
3. A place on disk is released by whoever took it out of its block.

Threads: any. No lock is held while another is waited for, but a ticket while its block's frame is read.
"""

import errno
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from time import perf_counter

from spectral_alloc._heap import (
    BYTES,
    CLASS_COUNT,
    EXTENT,
    FRAME,
    FRAME_EXTENT,
    GROWN,
    PLACE,
    HeapCore,
)
from spectral_alloc._heap_census import dirty_bytes, live_bytes, state_bytes, warm_bytes
from spectral_alloc.cold_store import ColdStore
from spectral_alloc.disk_costs import Cost, DiskCosts
from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.frame import FrameCodec
from spectral_alloc.generated_blocks import GENERATED_AXIS, GeneratedBlocks, axis_of
from spectral_alloc.memory_disk import compact_files, has_dead_files, release_all
from spectral_alloc.stripes import Stripes

__all__ = ["STEP_BYTES", "MemoryTiers"]

HOT_MASK = 1 << BYTES | 1 << EXTENT
WARM_MASK = 1 << FRAME | 1 << FRAME_EXTENT
WARM_SHARE = 0.35  # of the limit: frames in RAM beyond it go to disk first
BATCH_BYTES = 256 << 10  # frames written to disk in one call
SLACK_BYTES = 2 << 20  # a relief frees this much more than it must, so that not every call needs one
SLACK_SHARE = 1 / 16  # ... but no more than this part of the limit
WINDOW, VICTIMS = 48, 12  # blocks that a search for victims looks at, and how many of them leave, at most
FRAME_WINS_SHARE = 0.9  # a frame of more than this share of its block is not worth its place in RAM
ITEM_BYTES = 8  # blocks of whole words are tried as arrays of them
SHUFFLE_FROM_BYTES = 512
PROBE_FROM_BYTES = 64
GARBAGE_SHARE = 1 / 8  # of resident bytes: from here on compaction is tried before blocks leave
STEP_BYTES = 256 << 10  # moved or looked at in one compaction step
FUTILE_SHARE = 1 / 8  # growth that makes a relief worth another try at once
ROOM_MAX = 16  # times a block's size leaves its arena, if the block does not fit, before it is refused
FAILURES_MAX = 2  # searches without a victim before a relief gives up
SKIPS_MAX = 256  # calls that do not try again after a relief that gave up


class MemoryTiers:
    """Moves the blocks of one heap between RAM and disk.

    Parameters: ``core`` (the heap), ``store`` (frames on disk, with parity or without), ``codec``, ``generated``.
    Cost: a relief is proportional to what it moves; a block that comes back is one decode, and one disk read when cold.
    Threads: safe.
    """

    def __init__(
        self, core: HeapCore, store: ColdStore | Stripes, codec: FrameCodec, generated: GeneratedBlocks
    ) -> None:
        # Weak, since the heap owns this object: a heap that nobody has must be given back at once.
        self._core = weakref.ref(core)
        self.store = store
        self.codec = codec
        self.generated = generated
        #: Large blocks go to disk as they are while that costs less than to pack them, and the disk is not short.
        self.costs = DiskCosts()
        self._raw = FrameCodec("raw") if codec.codec is None and not store.is_limited else None
        self.events: Counter[str] = Counter()
        self.promotions = self.demotions = self.spills = self.compactions = 0
        self.step_seconds_max, self.victim_heat, self._victim_bytes = 0.0, 0.0, 1.0
        self._garbage_floor_bytes = self._futile_bytes = self._skips = 0
        self._backoff = 1
        self.obstacle = ""  # what failed in the last relief
        self.relieving = threading.RLock()
        self._tickets: dict[int, threading.RLock] = {}
        self.guarded: list[int] = []

    @property
    def core(self) -> HeapCore:
        """The heap. Whoever calls here holds it."""
        core = self._core()
        assert core is not None
        return core

    # up ---------------------------------------------------------------------------------------------------------------

    def come_back(self, address: int) -> None:
        """Bring the bytes of a block into place; raises StaleAddressError, CorruptFrameError, OSError or
        MemoryError."""
        state, size, *_ = self.core._look(address)
        if state == GROWN and (axis_of(address) != GENERATED_AXIS or size <= self.core.budget.limit_bytes):
            self.core._reserve(address, size)  # it holds nothing now: this is as if it were new
        wanted = 1
        while (error := self._bring(address)) is not None:
            wanted *= 2
            if wanted > ROOM_MAX or not self.make_way(address >> 37 & 15, wanted * self.core._look(address)[1] // 2):
                raise error
        if self.core.excess_bytes() > 0:
            # Not at the cost of the block itself: whoever wanted it would bring it back for ever.
            self.guarded.append(address)
            try:
                self.core._relieve()
            finally:
                self.guarded.remove(address)

    def _bring(self, address: int) -> MemoryError | None:
        """As come_back, without making room; the error if its arena has none."""
        ticket = self._tickets.setdefault(address, threading.RLock())
        try:
            with ticket, self._pages_lock(address):
                while (found := self.core._look(address))[0] not in (BYTES, EXTENT):
                    state, size, where = found[:3]
                    data = self.bytes_of(address, found)
                    if data is None:
                        continue
                    done: set[int] = set()
                    try:
                        self.core._replace(address, state, where, BYTES, data or None, size, where & 0xFF, done)
                    except MemoryError as error:
                        return error
                    finally:
                        if done and state == PLACE:
                            self.store.release(where, found[3])
                    self.promotions += len(done)
        finally:
            self._tickets.pop(address, None)
        return None

    def _pages_lock(self, address: int) -> "threading.RLock | nullcontext[None]":
        """What is held while a generated block becomes whole: nobody writes its pages meanwhile."""
        return self.generated.lock(address) if axis_of(address) == GENERATED_AXIS else nullcontext()

    def bytes_of(self, address: int, found: tuple[int, ...]) -> "bytes | bytearray | memoryview | None":
        """The bytes of a block that are not in place; empty for a recipe, None if the block has moved meanwhile."""
        state, size, where, frame_bytes = found[:4]
        if state == GROWN:
            return self._grown(address, size) if axis_of(address) == GENERATED_AXIS else b""
        try:
            start = perf_counter()
            if state == PLACE:
                frame: bytes | None = self.store.read(where, frame_bytes)
                self.costs.add(Cost.READ, frame_bytes, -start + (start := perf_counter()))
            else:
                frame = self.core._copy_out(address, state, frame_bytes)
            if frame is None:
                return None
            (data,) = self.codec.decode(frame)
            if frame_bytes < size:
                self.costs.add(Cost.DECODED, size, perf_counter() - start)
        except (CorruptFrameError, OSError) as error:
            if self.core._look(address)[:4] != found[:4]:
                return None  # freed or moved by another thread between the look and the read
            if isinstance(error, OSError):
                error.add_note(f"while reading the block at address {address:#018x} from {self.store.directory}")
                raise
            raise CorruptFrameError(f"the block at address {address:#018x} is damaged: {error}", address) from error
        if len(data) != size:
            raise CorruptFrameError(f"the block at address {address:#018x} has {len(data)} of {size} bytes", address)
        return data

    def _grown(self, address: int, size: int) -> "memoryview | None":
        """All bytes of a block of axis 2 that is grown; MemoryError for one that never fits the limit."""
        limit = self.core.budget.limit_bytes
        if size > limit:
            block = f"the block of {size} bytes at address {address:#018x}"
            raise MemoryError(f"{block} never fits the memory limit of {limit} bytes as a whole: read and write parts")
        found = self.generated.read(address, 0, size)
        return None if found is None else found.data

    def read_away(self, address: int, offset: int, length: int) -> bytes | None:
        """Bytes of a block that is not in place without making room for it, or None after it came back.

        One read of a cold block does not push out hot ones: it comes back when it has become as warm as those that
        leave.
        """
        found = self.core._look(address)
        if self.is_due(address):
            self.come_back(address)
            return None
        if found[0] in (BYTES, EXTENT):
            return None
        if found[0] == GROWN and axis_of(address) == GENERATED_AXIS:
            part = self.generated.read(address, offset, length)
            return None if part is None else part.tobytes()
        data = self.bytes_of(address, found)
        if data is None:
            return None
        if found[0] == GROWN and not data:
            return bytes([found[2] & 0xFF]) * length
        return bytes(memoryview(data)[offset : offset + length])

    def is_due(self, address: int) -> bool:
        """Whether a block that is away has earned its place: there is room, or it is as warm as those that leave.

        A recipe costs nothing where it is.
        """
        state, size, _, _, heat, *_ = self.core._look(address)
        if state == GROWN:
            return False
        return self.core.excess_bytes(2 * size) <= 0 or heat >= self.victim_heat

    # down -------------------------------------------------------------------------------------------------------------

    def relieve(self) -> None:
        """Let blocks leave until the heap is within its limit, or nothing can leave any more."""
        if self.is_inside():
            return
        with self.relieving:
            used = self.core.used_bytes
            limit = self.core.budget.limit_bytes
            slack = int(min(SLACK_BYTES, limit * SLACK_SHARE))
            if self._skips > 0 and used <= self._futile_bytes * (1 + FUTILE_SHARE):
                self._skips -= 1
                return
            self.obstacle = ""
            is_within = self._relieve_to(limit, slack)
            if has_dead_files(self.store):
                self.compact_files(1)
            if is_within:
                self._backoff = 1
                return
            # What is left is viewed, or costs more elsewhere than here: not looked through again at every call.
            self._futile_bytes = self.core.used_bytes
            self._skips, self._backoff = self._backoff, min(self._backoff * 2, SKIPS_MAX)

    def try_again(self) -> None:
        """Let the next relief look through everything, also after one that gave up: a disk may have room again."""
        self._skips = 0

    def _relieve_to(self, limit: int, slack: int) -> bool:
        """Free what is above the limit and the slack; False if the heap is above its limit still."""
        failures = 0
        while failures < FAILURES_MAX:
            excess = self._purged(slack)
            if excess <= 0:
                return True
            if self._garbage_bytes() - self._garbage_floor_bytes > max(excess, limit * GARBAGE_SHARE):
                self.compact(STEP_BYTES)
                continue
            freed = self._spill_surplus(limit, excess) + self._let_victims_leave(excess)
            if freed == 0:
                freed = self._spill(excess)
            failures = 0 if freed > 0 else failures + 1
        self.compact(STEP_BYTES)
        return self._purged(0) <= 0

    def make_way(self, number: int, size_bytes: int, wanted: int = 0) -> bool:
        """Let about so many bytes of one class leave, whose arena has no addresses left; whether anything did.

        The block at address ``wanted`` stays.
        """
        if self.is_inside():
            return False
        self.guarded.append(wanted)
        try:
            return self._made_way(number, size_bytes)
        finally:
            self.guarded.remove(wanted)

    def _made_way(self, number: int, size_bytes: int) -> bool:
        freed = failures = 0
        with self.relieving:
            while freed < size_bytes and failures < FAILURES_MAX:
                pending: list[tuple[int, int, bytes]] = []
                step = 0
                for address in self.core._victims(number, HOT_MASK, WINDOW, VICTIMS):
                    step += self.let_leave(address, pending)
                step = step + self.write(pending) or self._spill(size_bytes - freed, [number])
                freed += step
                failures = 0 if step > 0 else failures + 1
            self._compact_class(number, STEP_BYTES)
        return freed > 0

    def _purged(self, slack: int) -> int:
        """Bytes that must leave still, after free pages were given back as far as the limit demands.

        What comes back next takes the others, and the system need not give them out again."""
        excess = int(self.core.excess_bytes())
        if excess <= 0:
            return 0
        free = dirty_bytes(self.core)
        if excess > sum(free):
            return excess - sum(free) + slack
        for share in (2, 1):
            for number in sorted(range(CLASS_COUNT), key=free.__getitem__, reverse=True):
                if excess <= 0:
                    return 0
                excess -= self.core._purge(number, min(excess, free[number] // share))
        return max(excess, 0)

    def is_inside(self) -> bool:
        """Whether this thread is in a relief already: a finaliser or signal handler in the middle of it."""
        return bool(self.relieving._is_owned())  # type: ignore[attr-defined]  # what threading.Condition asks

    def _garbage_bytes(self) -> int:
        """Resident bytes that hold neither blocks nor frames, nor are free as a whole."""
        return int(self.core.used_bytes - live_bytes(self.core) - sum(dirty_bytes(self.core)))

    def _spill_surplus(self, limit: int, excess: int) -> int:
        surplus = warm_bytes(self.core) - int(limit * WARM_SHARE)
        return self._spill(min(max(surplus, BATCH_BYTES), excess * 2)) if surplus > 0 else 0

    def _let_victims_leave(self, excess: int) -> int:
        """Let about so many bytes leave, those that hold most first; returns what was freed.

        From all classes, so that what comes back finds free pages in its own.
        """
        count = max(1, min(VICTIMS, int(excess / CLASS_COUNT / self._victim_bytes) + 1))
        classes = sorted(range(CLASS_COUNT), key=self._hot_bytes, reverse=True)
        pending: list[tuple[int, int, bytes]] = []
        freed = 0
        for number in classes:
            for address in self.core._victims(number, HOT_MASK, count * WINDOW // VICTIMS, count):
                freed += self.let_leave(address, pending)
                if sum(len(frame) for *_, frame in pending) >= BATCH_BYTES:
                    freed += self.write(pending)
                if freed >= excess:
                    return freed
        return freed + self.write(pending)

    def _hot_bytes(self, number: int) -> int:
        return state_bytes(self.core, number, BYTES) + state_bytes(self.core, number, EXTENT)

    def let_leave(self, address: int, pending: list[tuple[int, int, bytes]] | None) -> int:
        """Encode one block; it becomes a recipe or WARM, or waits in ``pending`` for the disk. Returns bytes freed."""
        try:
            state, size, _, _, heat, _, pins, _ = self.core._look(address)
        except KeyError:
            return 0  # freed meanwhile
        if state not in (BYTES, EXTENT) or pins or address in self.guarded:
            return 0
        data = self.core._copy_out(address, state, size)
        if data is None:
            return 0
        self.victim_heat += (heat - self.victim_heat) / 16
        self._victim_bytes += (size - self._victim_bytes) / 16
        if axis_of(address) == GENERATED_AXIS and (freed := self.generated.leave(address, state, data)) is not None:
            self.demotions += freed > 0
            return freed
        if size >= PROBE_FROM_BYTES and data[0] == data[-1] == data[size // 2] and data == data[:1] * size:
            return size if self._replaced(address, state, GROWN, None, 0, data[0]) else 0
        if pending is not None and self._raw is not None and self.costs.takes(data):
            pending.append((address, state, self._raw.encode([data], [1])))
            return 0
        itemsize = ITEM_BYTES if size >= SHUFFLE_FROM_BYTES and size % ITEM_BYTES == 0 else 1
        start = perf_counter()
        try:
            frame = self.codec.encode([data], [itemsize])
        except Exception as error:
            self._note("codec failed", error)
            return 0
        self.costs.add(Cost.ENCODED, size, perf_counter() - start)
        if pending is not None and len(frame) + 8 > size * FRAME_WINS_SHARE:
            pending.append((address, state, frame))
            return 0
        done = self._replaced(address, state, FRAME, frame, len(frame), 0)
        if done is None and pending is not None:  # its arena is full: there is room on disk
            pending.append((address, state, frame))
        elif done is None:
            self._note("no memory for a frame", MemoryError(f"the arena of {address:#018x} is full"))
        return size - len(frame) if done else 0

    def _replaced(
        self, address: int, state: int, to: int, data: bytes | None, length: int, where: int, *taken: set[int]
    ) -> bool | None:
        """Whether a block was replaced; None if there is no memory for what is to stand for it."""
        try:
            done = self.core._replace(address, state, 0, to, data, length, where, *taken)
        except MemoryError as error:
            if to != FRAME:
                self._note("no memory for a stub", error)
            return None
        self.demotions += done is not None
        return done is not None

    def _spill(self, size_bytes: int, classes: Sequence[int] = range(CLASS_COUNT)) -> int:
        """Write the coldest frames of these classes to disk, about so many bytes; returns what was freed."""
        pending: list[tuple[int, int, bytes]] = []
        gathered = 0
        for number in sorted(classes, key=self._frame_bytes, reverse=True):
            for address in self.core._victims(number, WARM_MASK, WINDOW, WINDOW):
                try:
                    state, _, _, frame_bytes, *_ = self.core._look(address)
                except KeyError:
                    continue
                frame = self.core._copy_out(address, state, frame_bytes) if state in (FRAME, FRAME_EXTENT) else None
                if frame is not None:
                    pending.append((address, state, frame))
                    gathered += len(frame)
                if gathered >= size_bytes:
                    return self.write(pending)
        return self.write(pending)

    def _frame_bytes(self, number: int) -> int:
        return state_bytes(self.core, number, FRAME) + state_bytes(self.core, number, FRAME_EXTENT)

    def write(self, pending: list[tuple[int, int, bytes]]) -> int:
        """Append frames to the cold store and let their blocks go; returns bytes freed, 0 if the disk refuses."""
        freed = 0
        batch_bytes = BATCH_BYTES
        while pending:
            batch = [pending.pop()]
            while pending and sum(len(frame) for *_, frame in batch) < batch_bytes:
                batch.append(pending.pop())
            places: list[int] = []
            taken: set[int] = set()
            start = perf_counter()
            try:
                places = self._append(batch)
                self.costs.add(Cost.WRITTEN, sum(len(frame) for *_, frame in batch), perf_counter() - start)
                for (address, state, frame), place in zip(batch, places, strict=True):
                    if self._replaced(address, state, PLACE, None, len(frame), place, taken):
                        self.spills += 1
                        freed += len(frame)
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                if full and len(batch) > 1:  # fewer may fit
                    pending.extend(reversed(batch))
                    batch_bytes = sum(len(frame) for *_, frame in batch) // 4
                    continue
                self._note("disk full" if full else "disk failed", error)
                pending.clear()
                return freed
            finally:
                pairs = zip(batch, places, strict=False)
                release_all(self.store, [(place, len(frame)) for (*_, frame), place in pairs if place not in taken])
        return freed

    def _append(self, batch: list[tuple[int, int, bytes]]) -> list[int]:
        frames = [frame for *_, frame in batch]
        if isinstance(self.store, Stripes):
            return self.store.append(frames, [address >> 37 & 15 for address, *_ in batch])
        return self.store.append(frames)

    def _note(self, event: str, error: BaseException) -> None:
        """Count an event, and warn about the first of its kind."""
        self.events[event] += 1
        self.obstacle = f"{event}: {error}"
        if self.events[event] == 1:
            message = f"{event}: {error}. The block stays in memory; get_stats().events counts how often this happens."
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    def compact_files(self, count_max: int | None) -> None:
        """Move live frames out of so many files at most that are mostly dead."""
        try:
            compact_files(self, count_max)
        except OSError as error:
            self._note("disk failed", error)

    # compaction -------------------------------------------------------------------------------------------------------

    def compact(self, step_bytes: int) -> int:
        """One round over all classes in steps of about so many bytes; returns bytes moved."""
        moved = sum(self._compact_class(number, step_bytes) for number in range(CLASS_COUNT))
        self.compactions += 1
        # What one compaction leaves, the next one will not find either.
        self._garbage_floor_bytes = self._garbage_bytes()
        return moved

    def _compact_class(self, number: int, step_bytes: int) -> int:
        moved = position = 0
        while True:
            start = perf_counter()
            bytes_moved, position = self.core._compact_step(number, step_bytes, position)
            self.step_seconds_max = max(self.step_seconds_max, perf_counter() - start)
            moved += bytes_moved
            if position == 0:
                return moved

    # upkeep -----------------------------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """No lock or ticket of the parent's other threads is valid here."""
        self.relieving, self._tickets, self.guarded = threading.RLock(), {}, []
        self.codec.after_fork()
        self.generated.after_fork_in_child()
        self.store.after_fork_in_child()
