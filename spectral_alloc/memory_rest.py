"""Moves by hand: a block goes a tier down, blocks go to rest where they were made to, and frames are looked at.

Words as in memory_tiers.py, of whose lock and moves this makes use; a block *rests* on the tier of its temperature.

    demote   HOT -> WARM -> COLD     settle   SMEM_WARM -> WARM, SMEM_COLD -> COLD     rest   whole -> grown (axis 2)

Invariants: those of memory_tiers.py. Threads: any; one mover at a time. Cost: that of the moves.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from spectral_alloc._heap import BYTES, EXTENT, FRAME, FRAME_EXTENT
from spectral_alloc.generated_blocks import GENERATED_AXIS, axis_of
from spectral_alloc.memory_disk import EVERY_STATE, blocks

if TYPE_CHECKING:
    from spectral_alloc.memory_tiers import MemoryTiers

__all__ = ["AUTO", "COLD", "HOT", "WARM", "demote", "rest", "settle"]

AUTO, HOT, WARM, COLD = range(4)  # temperatures, which are also the hints of core/heap.h


def demote(tiers: "MemoryTiers", address: int) -> None:
    """Move one block a tier down, if it is not viewed."""
    with tiers.relieving:
        state, _, _, frame_bytes, *_ = tiers.core._look(address)
        if state in (BYTES, EXTENT):
            tiers.let_leave(address, None)
        elif state in (FRAME, FRAME_EXTENT):
            frame = tiers.core._copy_out(address, state, frame_bytes)
            if frame is not None:
                tiers.write([(address, state, frame)])
        else:
            for page in list((tiers.core._pages(address) or {}).values()):
                with suppress(KeyError):  # let go by another thread
                    demote(tiers, page)


def rest(tiers: "MemoryTiers", address: int) -> None:
    """Let a generated block in place grow again, but for its written pages."""
    if not tiers.is_inside():
        with tiers.relieving:
            let_grow(tiers, address)


def let_grow(tiers: "MemoryTiers", address: int) -> None:
    """As rest, for whoever holds the lock of moves already."""
    state, size, _, _, _, _, pins, _ = tiers.core._look(address)
    if state in (BYTES, EXTENT) and pins == 0:
        data = tiers.core._copy_out(address, state, size)
        if data is not None:
            tiers.generated.leave(address, state, data)


def settle(tiers: "MemoryTiers") -> int:
    """Put blocks that were made SMEM_WARM or SMEM_COLD where they are to rest; returns how many moves it took."""
    before = tiers.demotions
    for found in blocks(tiers, EVERY_STATE):
        settle_some(tiers, found)
    return tiers.demotions - before


def settle_some(tiers: "MemoryTiers", found: list[int]) -> None:
    """As settle, of some blocks, under one lock."""
    pending: list[tuple[int, int, bytes]] = []
    with tiers.relieving:
        for address in found:
            try:
                if axis_of(address) == GENERATED_AXIS:
                    let_grow(tiers, address)
                state, _, _, _, _, hint, pins, _ = tiers.core._look(address)
                if pins or hint not in (WARM, COLD):
                    continue
                if state in (BYTES, EXTENT):
                    tiers.let_leave(address, None)
                state, _, _, frame_bytes, *_ = tiers.core._look(address)
            except KeyError:
                continue  # freed meanwhile
            if hint == COLD and state in (FRAME, FRAME_EXTENT):
                frame = tiers.core._copy_out(address, state, frame_bytes)
                if frame is not None:
                    pending.append((address, state, frame))
        tiers.write(pending)
