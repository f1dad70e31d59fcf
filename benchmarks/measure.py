"""Shared by the benchmarks: interleaved repeats, medians, and where they were taken."""

import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def interleaved(
    cases: Mapping[str, Callable[[], object]], repeats: int, setup: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each case, measured ``repeats`` times in turns, so that a slow spell of the machine hits all alike.

    Every turn has an order of its own, drawn by chance but the same in every run: who always came after a case that
    empties the caches would find less in them than the others.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases.items())
    chance = random.Random(repeats)
    for _ in range(repeats):
        chance.shuffle(order)
        for name, case in order:
            setup()
            start = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_and_spread(values: list[float]) -> tuple[float, float]:
    """Median, and half the distance between the quartiles."""
    low, _, high = statistics.quantiles(values, n=4)
    return statistics.median(values), (high - low) / 2


def machine() -> dict[str, str]:
    """What a reader needs to place the figures."""
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    return {
        "python": sys.version.split()[0],
        "processor": processor,
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        **{package: version(package) for package in ("numpy", "zstandard", "lz4")},
    }


def save(name: str, result: object) -> None:
    """Write the result as JSON beside the benchmarks."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "result": result}, indent=1))
    print(f"(written to {path})")
