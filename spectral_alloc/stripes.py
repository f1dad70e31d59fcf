"""Redundant resonances: cold frames in stripes with parity, so that damaged or lost ones are computed again.

Words: a *shard* is a frame or a parity of frames; a *stripe* is up to ten frames, no two of one class, with one
parity shard (XOR) or two (Reed-Solomon, core/parity.h); a frame's *name* is the place that was given out for it,
which stays when its shard is written anew elsewhere; a stripe is *thin* when half of its frames are dead.

    stripe   | frame of class 3 | frame of class 0 | ... | P | Q |      each shard with its place, length and CRC-32C

Invariants (``check`` walks them):
1. A shard is on disk as long as its stripe: dead frames are needed to compute live ones.
2. Every live frame is in exactly one stripe; a stripe has a live frame. ``_stripe_of`` alone says so, and Ctrl-C
   between two lines finds nothing half done.
3. Thin stripes are written anew at the next append, so the disk holds at most about twice what is live, and parity.

Threads: any; one lock, which is held while a stripe is read or written.
Cost: append writes a tenth to a fifth more; a damaged frame takes a read of its stripe.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from spectral_alloc._frame import crc32c
from spectral_alloc._parity import DATA_MAX, encode, recover
from spectral_alloc.cold_store import ColdStore, segment_of
from spectral_alloc.errors import CorruptFrameError

__all__ = ["PARITY_MAX", "ScrubReport", "Stripes"]

PARITY_MAX = 2
THIN_SHARE = 0.5


class ScrubReport(NamedTuple):
    """What a scrub found: shards that were read, damaged ones that were repaired, and names that are lost for good."""

    checked: int
    repaired: int
    lost: tuple[int, ...]


@dataclass
class _Shard:
    """One shard: where it is now, and what it must be."""

    place: int
    length: int
    checksum: int


@dataclass
class _Stripe:
    """Shards that are computed from each other."""

    names: list[int]  #: of the frames, those that are dead too
    data: list[_Shard]
    parity: list[_Shard]

    def is_in(self, segments: set[int]) -> bool:
        """Whether a shard lies in one of these files."""
        return bool(segments) and any(segment_of(shard.place) in segments for shard in self.data + self.parity)


class Stripes:
    """A cold store whose frames survive the loss of one or two shards of each stripe.

    Parameters: ``store``; ``parity_count`` (1 or 2). Raises ValueError for another number.

    >>> stripes = Stripes(ColdStore(), 2)
    >>> names = stripes.append([b"frame 0", b"frame 1"], [0, 1])
    >>> stripes.read(names[1], 7), stripes.scrub()
    (b'frame 1', ScrubReport(checked=4, repaired=0, lost=()))
    >>> stripes.close()
    """

    def __init__(self, store: ColdStore, parity_count: int) -> None:
        if not 1 <= parity_count <= PARITY_MAX:
            raise ValueError(f"redundancy must be 0 to {PARITY_MAX} parity shards, not {parity_count!r}")
        self.store = store
        self.repairs = 0
        self._parity_count = parity_count
        self._stripe_of: dict[int, _Stripe] = {}
        self._lock = threading.RLock()

    def append(self, frames: Sequence[bytes], classes: Sequence[int]) -> list[int]:
        """Write frames with their parity and return the name of each; raises what ColdStore.append does.

        Parameters: frames, classes (of the blocks, one a frame: a stripe has no two frames of one class).
        """
        return self._append(frames, classes, set())

    def move_out_of(self, segments: set[int]) -> int:
        """Write the stripes that have a shard in these files of the store anew; returns the bytes of their frames."""
        with self._lock:
            before = self.store.live_bytes
            self._append([], [], segments)
            return before

    def _append(self, frames: Sequence[bytes], classes: Sequence[int], segments: set[int]) -> list[int]:
        with self._lock:
            named: list[tuple[int | None, bytes, int]] = [(None, *pair) for pair in zip(frames, classes, strict=True)]
            thin = self._thin(segments)
            old = [pair for stripe in thin for pair in self._live_frames(stripe)]
            for number, (name, frame) in enumerate(old):
                named.append((name, frame, number % DATA_MAX))
            groups = grouped([number for *_, number in named])
            shards: list[bytes] = []
            for group in groups:
                data = [named[number][1] for number in group]
                shards += data + encode(data, self._parity_count == PARITY_MAX)
            places = self.store.append(shards, moving=bool(old)) if old else self.store.append(shards)
            names = [-1] * len(named)
            made: list[_Stripe] = []
            try:
                written = map(_Shard, places, map(len, shards), map(crc32c, shards))
                for group in groups:
                    data_shards = [next(written) for _ in group]
                    for number, shard in zip(group, data_shards, strict=True):
                        known = named[number][0]
                        names[number] = shard.place if known is None else known
                    parity = [next(written) for _ in range(self._parity_count)]
                    made.append(_Stripe([names[number] for number in group], data_shards, parity))
                for stripe in made:
                    self._stripe_of.update(dict.fromkeys(stripe.names, stripe))
                for stripe in thin:
                    self._forget(stripe)
                return names[: len(frames)]
            except BaseException:
                # Ctrl-C above all: the caller never learns the new names, so what they name must not live.
                for name in names[: len(frames)]:
                    self._stripe_of.pop(name, None)
                kept = [shard for stripe in made if self._live(stripe) for shard in stripe.data + stripe.parity]
                adopted = {shard.place for shard in kept}
                for place, frame in zip(places, shards, strict=True):
                    if place not in adopted:
                        self.store.release(place, len(frame))
                for stripe in thin:
                    self._forget(stripe)
                raise

    def _live(self, stripe: _Stripe) -> list[int]:
        """The names of a stripe's frames that live."""
        return [name for name in stripe.names if self._stripe_of.get(name) is stripe]

    def _thin(self, segments: set[int]) -> list[_Stripe]:
        """Stripes of which so few frames live that writing them anew saves disk, or with a shard in these files."""
        stripes = {id(stripe): stripe for stripe in self._stripe_of.values()}.values()
        return [s for s in stripes if len(self._live(s)) <= len(s.names) * THIN_SHARE or s.is_in(segments)]

    def _live_frames(self, stripe: _Stripe) -> list[tuple[int, bytes]]:
        """(name, frame) of all live frames of a stripe that can be read."""
        found = []
        for name in sorted(self._live(stripe)):
            try:
                found.append((name, self._frame(stripe, name)))
            except (CorruptFrameError, OSError):
                continue  # a read of it will say what is wrong
        return found

    def read(self, name: int, length: int) -> bytes:
        """The frame of a name, repaired if its shard is damaged; raises CorruptFrameError if too much is."""
        with self._lock:
            stripe = self._stripe_of.get(name)
            if stripe is None:
                raise CorruptFrameError(f"no frame of {length} bytes has the name {name:#x}")
            return self._frame(stripe, name)

    def _frame(self, stripe: _Stripe, name: int) -> bytes:
        number = stripe.names.index(name)
        frame = self._shard(stripe.data[number])
        if frame is None:
            self._repair(stripe)
            frame = self._shard(stripe.data[number])
        if frame is None:
            raise CorruptFrameError(f"the frame named {name:#x} is damaged, and so is too much of its stripe")
        return frame

    def _shard(self, shard: _Shard) -> bytes | None:
        """The bytes of a shard, None if they are damaged."""
        try:
            data = self.store.read(shard.place, shard.length)
        except (CorruptFrameError, OSError):
            return None
        return data if crc32c(data) == shard.checksum else None

    def _repair(self, stripe: _Stripe) -> int:
        """Write the damaged shards of a stripe anew, if they can be computed; returns how many."""
        data, parity = [self._shard(shard) for shard in stripe.data], [self._shard(shard) for shard in stripe.parity]
        if data.count(None) + parity.count(None) == 0:
            return 0
        try:
            whole = recover(data, parity)
        except ValueError:
            return 0
        whole = [frame[: shard.length] for frame, shard in zip(whole, stripe.data, strict=True)]
        again = encode(whole, self._parity_count == PARITY_MAX)
        shards = stripe.data + stripe.parity
        damaged = [number for number, found in enumerate([*data, *parity]) if found is None]
        fixed = [[*whole, *again][number] for number in damaged]
        if any(crc32c(bytes_) != shards[number].checksum for number, bytes_ in zip(damaged, fixed, strict=True)):
            return 0
        for number, place in zip(damaged, self.store.append(fixed), strict=True):
            self.store.release(shards[number].place, shards[number].length)
            shards[number].place = place
        self.repairs += len(damaged)
        return len(damaged)

    def release(self, name: int, length: int) -> None:
        """Declare a frame dead. Never raises."""
        with self._lock:
            stripe = self._stripe_of.get(name)
            try:
                self._stripe_of.pop(name, None)
            finally:
                if stripe is not None:
                    self._forget(stripe)

    def _forget(self, stripe: _Stripe) -> None:
        """Let the shards of a stripe go if no frame of it lives any more."""
        if self._live(stripe):
            return
        for shards in (stripe.data, stripe.parity):
            while shards:
                shard = shards.pop()
                self.store.release(shard.place, shard.length)

    def scrub(self) -> ScrubReport:
        """Read every shard, and repair what is damaged. O(disk)."""
        checked = repaired = 0
        lost: list[int] = []
        with self._lock:
            for stripe in list({id(stripe): stripe for stripe in self._stripe_of.values()}.values()):
                checked += len(stripe.data) + len(stripe.parity)
                repaired += self._repair(stripe)
                for name, shard in zip(stripe.names, stripe.data, strict=True):
                    if self._stripe_of.get(name) is stripe and self._shard(shard) is None:
                        lost.append(name)
        return ScrubReport(checked, repaired, tuple(lost))

    @property
    def live_bytes(self) -> int:
        """Bytes of shards that are needed."""
        return self.store.live_bytes

    @property
    def dead_bytes(self) -> int:
        """Bytes of files that hold nothing any more."""
        return self.store.dead_bytes

    @property
    def is_limited(self) -> bool:
        """Whether the store has a disk limit."""
        return self.store.is_limited

    def victims(self) -> list[int]:
        """Files of the store that are at least half dead, worst first."""
        return self.store.victims()

    @property
    def directory(self) -> str | None:
        """The private directory of the store."""
        return self.store.directory

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold; for tests."""
        self.store.check()
        with self._lock:
            for name, stripe in self._stripe_of.items():
                assert name in stripe.names, f"{name:#x} is in a stripe that does not know it"
                assert len(stripe.data) == len(stripe.names) <= DATA_MAX, "a stripe is too long"
                assert len(stripe.parity) == self._parity_count, "a stripe lacks parity"

    def close(self) -> None:
        """Forget all frames and remove the files."""
        self._stripe_of.clear()
        self.store.close()

    def after_fork_in_child(self) -> None:
        """The parent's other threads, and their lock, do not exist here."""
        self._lock = threading.RLock()
        self.store.after_fork_in_child()


def grouped(classes: Sequence[int]) -> list[list[int]]:
    """Positions in groups of at most ten, no two of one class in a group.

    >>> grouped([0, 1, 0, 2])
    [[0, 1, 3], [2]]
    """
    groups: list[list[int]] = []
    taken: list[set[int]] = []
    for number, class_ in enumerate(classes):
        for group, there in zip(groups, taken, strict=True):
            if class_ not in there and len(group) < DATA_MAX:
                group.append(number)
                there.add(class_)
                break
        else:
            groups.append([number])
            taken.append({class_})
    return groups
