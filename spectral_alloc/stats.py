"""What a thermal dict reports about itself."""

from dataclasses import dataclass, fields
from html import escape

from spectral_alloc.units import format_bytes

__all__ = ["ThermalStats"]


@dataclass(frozen=True)
class ThermalStats:
    """A snapshot of one thermal dict; all sizes in bytes, all counts since it was made.

    ``used_bytes`` is the ledger: values, keys, cells, the hash table, frames, dictionaries, and a
    share of the memory that CPython's allocator holds but cannot use (``slack_bytes``). ``held`` entries could leave
    but for a reference that the program has; ``pinned`` ones cannot leave, with the reasons counted. ``used_bytes`` is
    at most ``limit_bytes`` unless held and pinned values alone exceed it, or the disk refuses (see ``events``).
    """

    entries: int
    hot_entries: int
    warm_entries: int
    cold_entries: int
    regrown_entries: int
    held_entries: int
    pinned_entries: int
    pinned: dict[str, int]
    temperatures: dict[str, int]
    bands: dict[float, int]
    mean_mismatch: float
    limit_bytes: int
    used_bytes: int
    hot_bytes: int
    warm_bytes: int
    held_bytes: int
    entry_bytes: int
    buffer_bytes: int
    slack_bytes: int
    disk_live_bytes: int
    disk_dead_bytes: int
    disk_file_bytes: int
    hits_hot: int
    hits_warm: int
    hits_cold: int
    hits_regrown: int
    promotions: int
    demotions: int
    spills: int
    migrations: int
    examined: int
    compression_ratio: float
    codecs: dict[str, dict[str, int]]
    events: dict[str, int]
    slow_read_p50_seconds: float
    slow_read_p99_seconds: float

    def __str__(self) -> str:
        def share(name: str) -> str:
            return f"{getattr(self, f'{name}_entries'):>10,} {name}"

        return "\n".join(
            [
                f"{self.entries:,} entries, {format_bytes(self.used_bytes)} of {format_bytes(self.limit_bytes)} "
                f"in memory, {format_bytes(self.disk_live_bytes)} live on disk",
                f"  {share('hot')} ({format_bytes(self.hot_bytes)}){share('warm')} ({format_bytes(self.warm_bytes)})"
                f"{share('cold')} ({format_bytes(self.disk_live_bytes)} on disk){share('regrown')}",
                f"  hits: {self.hits_hot:,} hot, {self.hits_warm:,} warm, {self.hits_cold:,} cold, "
                f"{self.hits_regrown:,} regrown; "
                f"{self.promotions:,} promotions, {self.demotions:,} demotions, {self.spills:,} spills, "
                f"{self.migrations:,} band migrations",
                f"  compression {self.compression_ratio:.2f}x; slow reads "
                f"p50 {self.slow_read_p50_seconds * 1e6:.0f} us, p99 {self.slow_read_p99_seconds * 1e6:.0f} us",
                f"  temperatures {self.temperatures}; held {self.held_entries:,}; pinned {self.pinned or 'none'}; "
                f"events {self.events or 'none'}",
            ]
        )

    def _repr_html_(self) -> str:
        """Return the snapshot as a bar of residencies over a table, for notebooks."""
        colours = {"hot": "#d9534f", "warm": "#f0ad4e", "cold": "#5b8fc7", "regrown": "#6aa84f"}
        total = max(1, sum(getattr(self, f"{name}_entries") for name in colours))
        offset, bars = 0.0, []
        for name, colour in colours.items():
            width = 400 * getattr(self, f"{name}_entries") / total
            place = f'x="{offset:.1f}" width="{width:.1f}" height="16"'
            bars.append(f'<rect {place} fill="{colour}"><title>{name}</title></rect>')
            offset += width
        shown = [(field.name, str(getattr(self, field.name))) for field in fields(self)]
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in shown
        )
        return f'<svg width="400" height="16">{"".join(bars)}</svg><table>{rows}</table>'
