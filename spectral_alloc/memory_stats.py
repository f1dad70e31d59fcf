"""What a SpectralMemory reports about itself."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from spectral_alloc._heap import CLASS_COUNT, EXTENT, FRAME, FRAME_EXTENT, GROWN, PLACE, HeapCore
from spectral_alloc._heap_census import bands, census, figures
from spectral_alloc.heat import COLD_BELOW, HOT_ABOVE
from spectral_alloc.residency import Residency
from spectral_alloc.spectrum import zeros
from spectral_alloc.units import format_bytes

__all__ = ["RESIDENCY_OF_BLOCK", "MemoryStats", "gather"]

#: The residency of each state of core/heap.h; a free cell has none.
RESIDENCY_OF_BLOCK = (
    None,
    Residency.HOT,
    Residency.HOT,
    Residency.WARM,
    Residency.WARM,
    Residency.COLD,
    Residency.REGROWN,
)


@dataclass(frozen=True)
class MemoryStats:
    """A snapshot of one SpectralMemory; sizes in bytes, counts of events since it was made. ``stats["name"]`` works
    too.

    ``bytes_requested`` is what the callers asked for, ``bytes_resident`` the pages that are in memory for it, frames
    and bookkeeping included; ``fragmentation`` is the part of these that holds neither blocks nor frames.
    ``mean_mismatch`` is the mean distance from the frequencies that were asked for to their bands. A *migration* is
    a change of a block's band by its heat. STM blocks have a band above 100 now, LTM blocks one below 30.
    ``generated_blocks`` are on axis 2; of the 4 KiB pages of those that are not in place as a whole, ``written_pages``
    are held, here or on disk, and ``unwritten_pages`` hold nothing anywhere.
    """

    blocks: int
    bytes_requested: int
    bytes_resident: int
    bytes_live: int
    fragmentation: float
    limit_bytes: int
    mean_mismatch: float
    migrations: int
    stm_blocks: int
    ltm_blocks: int
    pinned_blocks: int
    generated_blocks: int
    written_pages: int
    unwritten_pages: int
    allocations: int
    frees: int
    accesses: int
    by_residency: dict[str, int]
    bytes_by_residency: dict[str, int]
    by_class: dict[int, int]
    by_band: dict[float, int]
    promotions: int
    demotions: int
    spills: int
    compactions: int
    compacted_bytes: int
    compaction_step_seconds_max: float
    disk_live_bytes: int
    disk_dead_bytes: int
    repairs: int
    events: dict[str, int]

    def __getitem__(self, name: str) -> Any:
        """A figure by its name, as from a dict. Raises KeyError."""
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def keys(self) -> list[str]:
        """The names of all figures, so that ``dict(stats)`` works."""
        return [field.name for field in fields(self)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __str__(self) -> str:
        places = ", ".join(f"{count:,} {name}" for name, count in self.by_residency.items() if count)
        return "\n".join(
            [
                f"{self.blocks:,} blocks of {format_bytes(self.bytes_requested)}: {places or 'none'}",
                f"  {format_bytes(self.bytes_resident)} of {format_bytes(self.limit_bytes)} resident, "
                f"fragmentation {self.fragmentation:.1%}, {format_bytes(self.disk_live_bytes)} live on disk",
                f"  {self.promotions:,} promotions, {self.demotions:,} demotions, {self.spills:,} spills, "
                f"{self.migrations:,} band migrations, {self.compactions:,} compactions",
                f"  {self.generated_blocks:,} generated blocks, {self.written_pages:,} of their pages written, "
                f"{self.unwritten_pages:,} not",
                f"  STM {self.stm_blocks:,}, LTM {self.ltm_blocks:,}, mean mismatch {self.mean_mismatch:.3f}; "
                f"events {self.events or 'none'}",
            ]
        )


def gather(core: HeapCore, **given: Any) -> MemoryStats:
    """Count what a heap holds, and add what its owner knows. O(blocks), without the GIL where it is long."""
    classes = [figures(core, number) for number in range(CLASS_COUNT)]
    total = {name: sum(each[name] for each in classes) for name in classes[0] if not name.startswith("state_")}
    users = census(core)
    users_total = {name: sum(each[name] for each in users) for name in users[0] if isinstance(users[0][name], int)}
    counts = [sum(each["state_counts"][state] for each in users) for state in range(GROWN + 1)]
    sizes = [sum(each["state_bytes"][state] for each in classes) for state in range(GROWN + 1)]
    by_residency = {place.value: 0 for place in Residency}
    bytes_by_residency = dict(by_residency)
    for state, place in enumerate(RESIDENCY_OF_BLOCK):
        if place is not None:
            by_residency[place.value] += counts[state]
            bytes_by_residency[place.value] += sizes[state]
    assert EXTENT < FRAME < FRAME_EXTENT < PLACE
    gammas = zeros()
    by_band: dict[float, int] = {}
    for zero, *of_classes in zip(bands(core), *(each["counts"] for each in users), strict=True):
        if count := sum(of_classes):
            gamma = float(gammas[zero - 1])
            by_band[gamma] = by_band.get(gamma, 0) + count
    mismatch_sum, mismatch_count = core._mismatch
    resident = core.used_bytes
    return MemoryStats(
        blocks=users_total["block_count"],
        bytes_requested=users_total["requested_bytes"],
        bytes_resident=resident,
        bytes_live=total["live_bytes"],
        fragmentation=1 - total["live_bytes"] / resident if resident else 0.0,
        limit_bytes=core.budget.limit_bytes,
        mean_mismatch=mismatch_sum / mismatch_count if mismatch_count else 0.0,
        stm_blocks=sum(count for gamma, count in by_band.items() if gamma > HOT_ABOVE),
        ltm_blocks=sum(count for gamma, count in by_band.items() if gamma < COLD_BELOW),
        pinned_blocks=total["pinned_count"],
        generated_blocks=users_total["generated_count"],
        written_pages=users_total["page_count"],
        unwritten_pages=users_total["generated_pages"] - users_total["page_count"],
        allocations=total["allocation_count"],
        frees=total["free_count"],
        accesses=total["access_count"],
        by_residency=by_residency,
        bytes_by_residency=bytes_by_residency,
        by_class={number: each["block_count"] for number, each in enumerate(users)},
        by_band=by_band,
        migrations=total["migration_count"] + given.pop("retuned"),
        compacted_bytes=total["moved_bytes"],
        **given,
    )
