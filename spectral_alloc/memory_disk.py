"""Walks over the cold frames of one SpectralMemory: the check of all, and the compaction of their files.

Words: a *victim* is a file of the cold store that is at least half dead; its live frames are *moved* to the end of the
log, and the file is removed with the last of them.

Invariant: a block names its old place until its frame is at the new one, and the old place is released by whoever took
it out of the block; a move of which a block has been used, freed or moved meanwhile releases the new place.
Threads: any; no lock is held but that of the store while it writes. Cost: a look at every block, and a read and a write
of the live bytes of the victims, at most half of what is freed.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from spectral_alloc._heap import BYTES, CLASS_COUNT, EXTENT, GROWN, PLACE
from spectral_alloc._heap_census import addresses
from spectral_alloc.cold_store import ColdStore, segment_of
from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.stripes import ScrubReport, Stripes

if TYPE_CHECKING:
    from spectral_alloc.memory_tiers import MemoryTiers

__all__ = ["compact_files", "has_dead_files", "release_all", "scrub"]

DEAD_SHARE = 1.0  # of what lives on disk: from here on files are compacted
DEAD_BYTES_MIN = 8 << 20  # less is not worth a walk
MOVE_BYTES = 256 << 10  # read and written at once
EVERY_STATE = -1


def blocks(tiers: "MemoryTiers", mask: int) -> Iterator[list[int]]:
    """Addresses of all blocks whose state's bit is in the mask, some at a time."""
    for number in range(CLASS_COUNT):
        position = 0
        while True:
            found, position = addresses(tiers.core, number, position, mask & 0xFF)
            yield found
            if position == 0:
                break


def has_dead_files(store: ColdStore | Stripes) -> bool:
    """Whether so much of the disk is dead that a compaction of the files is due."""
    return store.dead_bytes > DEAD_BYTES_MIN + DEAD_SHARE * store.live_bytes and bool(store.victims())


def compact_files(tiers: "MemoryTiers", count_max: int | None = None) -> int:
    """Move the live frames out of the worst victims, at most so many; returns the bytes moved. Raises OSError."""
    store = tiers.store
    victims = set(store.victims()[:count_max])
    if not victims:
        return 0
    if isinstance(store, Stripes):
        return store.move_out_of(victims)
    moved = 0
    pending: list[tuple[int, int, int]] = []
    for found in blocks(tiers, 1 << PLACE):
        for address in found:
            try:
                state, _, where, frame_bytes, *_ = tiers.core._look(address)
            except KeyError:
                continue  # freed meanwhile
            if state == PLACE and segment_of(where) in victims:
                pending.append((address, where, frame_bytes))
        if sum(length for *_, length in pending) >= MOVE_BYTES:
            moved += move_frames(tiers, store, pending)
            pending = []
    return moved + move_frames(tiers, store, pending)


def release_all(store: ColdStore | Stripes, held: list[tuple[int, int]]) -> None:
    """Release pieces at (place, length); Ctrl-C meanwhile costs the disk one of them at most."""
    try:
        while held:
            store.release(*held.pop())
    finally:
        if held:
            release_all(store, held)


def move_frames(tiers: "MemoryTiers", store: ColdStore, pending: list[tuple[int, int, int]]) -> int:
    """Write frames anew; damaged ones stay where they are, so that a read says what is wrong. Returns the bytes."""
    taken, frames = [], []
    for address, where, length in pending:
        try:
            frames.append(store.read(where, length))
        except (CorruptFrameError, OSError):
            continue
        taken.append((address, where, length))
    moved: set[int] = set()
    places = store.append(frames, moving=True) if frames else []
    try:
        for (address, where, length), place in zip(taken, places, strict=True):
            tiers.core._replace(address, PLACE, where, PLACE, None, length, place, moved)
    finally:
        pairs = zip(taken, places, strict=True)
        release_all(store, [(where if place in moved else place, length) for (_, where, length), place in pairs])
    return sum(length for (*_, length), place in zip(taken, places, strict=True) if place in moved)


def scrub(tiers: "MemoryTiers") -> ScrubReport:
    """Check every frame, and repair those on disk that are damaged, where there is parity."""
    checked = repaired = 0
    if isinstance(tiers.store, Stripes):
        checked, repaired, _ = tiers.store.scrub()
    lost = []
    for found in blocks(tiers, EVERY_STATE):
        for address in found:
            checked += 1
            if not is_whole(tiers, address):
                lost.append(address)
    return ScrubReport(checked, repaired, tuple(lost))


def is_whole(tiers: "MemoryTiers", address: int) -> bool:
    """Whether the frame of a block, if it has one, is what it was."""
    with tiers.relieving:
        try:
            # What was not found has moved meanwhile, and is looked for again.
            while (found := tiers.core._look(address))[0] not in (BYTES, EXTENT, GROWN):
                if tiers.bytes_of(address, found) is not None:
                    break
            return True
        except (CorruptFrameError, OSError):
            return False
        except KeyError:
            return True  # freed meanwhile
