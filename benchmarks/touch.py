"""Arrays on touch beside numpy.memmap, eager generation and gather; every ratio is of interleaved repeats of one run.

    python benchmarks/touch.py                          # all: writes 8 GB of files beside itself, removes them
    python benchmarks/touch.py --scale 0.05 --repeats 1 --only memory

Prints three tables, with the bars beside, and writes them to benchmarks/results/touch.json.

    speed    in this process: opening 1 TiB, a sum over 1 GiB, single touches at random places
    disk     in processes under a cap of 500 MB: 4 GB of values read in random windows of 256 KiB
    memory   the same cap: 4 GB of zeros of which a quarter is written in random windows, then all read at random

The files of numpy.memmap are cold when a lap begins, as the cap would soon have them; pages of arrays on touch are too.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
from measure import interleaved, save
from memory_cage import children_environment, is_in_memory, memory_cage, python

from spectral_alloc import GenerativeSpace, SpectralMemory, touch

SEED = 1337
TEBIBYTE_COUNT = 1 << 37
SUM_COUNT = 1 << 27
RANDOM_COUNT = 20_000
LAP_COUNT = 1 << 29
WINDOW_COUNT = 1 << 15  # values in a window
CAP_BYTES = 500_000_000
RESIDENT_BYTES = 300_000_000
SUM_RESIDENT_BYTES = 64 << 20
RESULT_MARK = "lap "


def median(values: list[float]) -> float:
    """The middle of the repeats."""
    return statistics.median(values)


# in this process ------------------------------------------------------------------------------------------------------


def speed(scale: float, repeats: int) -> dict[str, object]:
    """Opening, sequential and random reading."""
    space = GenerativeSpace(SEED)
    count = max(int(SUM_COUNT * scale), 1 << 16)
    array = space.array(TEBIBYTE_COUNT, resident_limit=SUM_RESIDENT_BYTES)
    draw = numpy.random.default_rng(1)
    start = 0
    peak = 0

    def sum_on_touch() -> None:
        nonlocal start, peak
        start += count
        array[start : start + count].sum()
        peak = max(peak, touch.stats(array).resident_bytes)

    def fill_eagerly() -> "numpy.ndarray[Any, Any]":
        return space.fill(numpy.empty(count), start)

    def opened() -> None:
        space.array(TEBIBYTE_COUNT, resident_limit=SUM_RESIDENT_BYTES)

    def places() -> "numpy.ndarray[Any, Any]":
        return draw.integers(0, TEBIBYTE_COUNT, RANDOM_COUNT)

    cases: dict[str, Callable[[], object]] = {
        "open 1 TiB": opened,
        "sum, on touch": sum_on_touch,
        "fill, eagerly": fill_eagerly,
        "fill and sum, eagerly": lambda: fill_eagerly().sum(),
        "random touches": lambda: array[places()],
        "gather of the same": lambda: space.gather(places()),
    }
    seconds = interleaved(cases, repeats)
    print(f"way {touch.way()}, {repeats} interleaved repeats           median        best")
    for name in ("open 1 TiB",):
        print(f"  {name:<38} {median(seconds[name]) * 1e6:>9.0f} us {min(seconds[name]) * 1e6:>8.0f} us")
    for name in ("sum, on touch", "fill, eagerly", "fill and sum, eagerly"):
        usual, best = (count * 8 / 1e9 / took for took in (median(seconds[name]), min(seconds[name])))
        print(f"  {name:<38} {usual:>7.2f} GB/s {best:>6.2f} GB/s")
    for name in ("random touches", "gather of the same"):
        each = 1e9 / RANDOM_COUNT
        print(f"  {name:<38} {median(seconds[name]) * each:>9.0f} ns {min(seconds[name]) * each:>8.0f} ns each")
    pairs = list(zip(seconds["sum, on touch"], seconds["fill, eagerly"], strict=True))
    ratio = median([eager / lazy for lazy, eager in pairs])
    best = min(seconds["fill, eagerly"]) / min(seconds["sum, on touch"])
    kept = "kept" if peak <= SUM_RESIDENT_BYTES else "NOT kept"
    met = verdict(ratio, 0.5)
    print(f"  a sum on touch runs at {ratio:.2f} x an eager fill (bar 0.5, {met}); the best of each at {best:.2f} x")
    print(f"  at most {peak / 1e6:.0f} MB resident of {SUM_RESIDENT_BYTES / 1e6:.0f} MB allowed ({kept})")
    return {"way": touch.way(), "seconds": seconds, "sum over fill": ratio, "best": best, "resident": peak}


def verdict(value: float, bar: float) -> str:
    """How a figure stands to its bar."""
    return "met" if value >= bar else "NOT met"


# laps under the cap ---------------------------------------------------------------------------------------------------


def windows(count: int, seed: int) -> "numpy.ndarray[Any, Any]":
    """First items of all windows of an array, in random order."""
    return numpy.random.default_rng(seed).permutation(count // WINDOW_COUNT) * WINDOW_COUNT


def read_all(array: Any, count: int) -> float:
    """The sum of all windows."""
    return float(sum(array[start : start + WINDOW_COUNT].sum() for start in windows(count, 2).tolist()))


def write_some(array: Any, count: int) -> None:
    """A quarter of the windows, with numbers that do not compress in every other one."""
    draw = numpy.random.default_rng(4)
    for number, start in enumerate(windows(count, 3)[: count // WINDOW_COUNT // 4].tolist()):
        values = draw.random(WINDOW_COUNT) if number % 2 else numpy.full(WINDOW_COUNT, float(number))
        array[start : start + WINDOW_COUNT] = values


def lap_disk_touch(directory: Path, count: int) -> float:
    """An array on touch."""
    return read_all(GenerativeSpace(SEED).array(count, resident_limit=RESIDENT_BYTES, spill_dir=directory), count)


def lap_disk_memmap(directory: Path, count: int) -> float:
    """A file that holds the same values."""
    return read_all(numpy.memmap(directory / "values", dtype="f8", mode="r", shape=count), count)


def lap_disk_fill(directory: Path, count: int) -> float:
    """Each window generated into one buffer."""
    space, out = GenerativeSpace(SEED), numpy.empty(WINDOW_COUNT)
    return float(sum(space.fill(out, start).sum() for start in windows(count, 2).tolist()))


def lap_disk_gather(directory: Path, count: int) -> float:
    """Each window gathered by its addresses into one buffer."""
    space, out = GenerativeSpace(SEED), numpy.empty(WINDOW_COUNT)
    addresses = numpy.arange(WINDOW_COUNT, dtype=numpy.uint64)
    starts = windows(count, 2).astype(numpy.uint64)
    return float(sum(space.gather(addresses + start, out=out).sum() for start in starts))


def lap_memory_touch(directory: Path, count: int) -> float:
    """An array on touch of a SpectralMemory."""
    with SpectralMemory(memory_limit=RESIDENT_BYTES, spill_dir=directory) as memory:
        array = memory.array(None, "f8", count, resident_limit=RESIDENT_BYTES)
        write_some(array, count)
        return read_all(array, count)


def lap_memory_memmap(directory: Path, count: int) -> float:
    """A sparse file."""
    array = numpy.memmap(directory / "zeros", dtype="f8", mode="w+", shape=count)
    try:
        write_some(array, count)
        return read_all(array, count)
    finally:
        os.unlink(directory / "zeros")


LAPS = {name.removeprefix("lap_"): lap for name, lap in list(globals().items()) if name.startswith("lap_")}


def run_lap(name: str, directory: Path, count: int) -> None:
    """One lap, in this process: prints seconds, sum and peak resident memory."""
    start = time.perf_counter()
    total = LAPS[name](directory, count)
    figures = {
        "seconds": time.perf_counter() - start,
        "sum": total,
        "peak": peak_bytes(),
    }
    print(RESULT_MARK + json.dumps(figures))


def peak_bytes() -> int:
    """The most that this program has had in memory; that of getrusage counts what ran in the process before."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def chill(path: Path) -> None:
    """Make a file cold: its pages are written and dropped."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_file(path: Path, count: int) -> None:
    """The values of the space in a file."""
    space, out = GenerativeSpace(SEED), numpy.empty(1 << 20)
    with path.open("wb") as file:
        for start in range(0, count, len(out)):
            space.fill(out, start).tofile(file)


def laps(kind: str, scale: float, repeats: int, directory: Path) -> dict[str, object]:
    """All ways of one kind, each in a process under the cap; their sums must agree."""
    count = max(int(LAP_COUNT * scale) // WINDOW_COUNT, 8) * WINDOW_COUNT
    names = [name for name in LAPS if name.startswith(kind)]
    if kind == "disk":
        make_file(directory / "values", count)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    mechanism = ""
    for _ in range(repeats):
        for name in names:
            if name == "disk_memmap":
                chill(directory / "values")
            with memory_cage(CAP_BYTES) as cage:
                mechanism = cage.mechanism
                command = python(__file__, "--lap", name, "--count", count, "--directory", directory)
                done = cage.run(command, env=children_environment())
            lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT_MARK)]
            if not lines:
                print(f"  {name}: no result, exit status {done.returncode}: {done.stderr.strip()[-300:]}")
                continue
            found[name].append(json.loads(lines[0].removeprefix(RESULT_MARK)))
    sums = {round(lap["sum"], 3) for each in found.values() for lap in each}
    assert len(sums) == 1, f"the ways disagree: {sums}"
    what = "read in random windows" if kind == "disk" else "a quarter written, all read, in random windows"
    print(f"{count * 8 / 1e9:.1f} GB {what}, cap {CAP_BYTES / 1e6:.0f} MB by {mechanism}")
    print(" " * 60 + "s: median     best    MB resident")
    medians = {}
    for name, each in found.items():
        seconds = [lap["seconds"] for lap in each]
        if not seconds:
            continue
        medians[name] = median(seconds)
        peak = max(lap["peak"] for lap in each) / 1e6
        print(f"  {name:<58} {median(seconds):>9.2f} {min(seconds):>8.2f} {peak:>14.0f}")
    ratio = medians[f"{kind}_memmap"] / medians[f"{kind}_touch"]
    print(f"  on touch runs at {ratio:.2f} x numpy.memmap (bar 1, {verdict(ratio, 1.0)})")
    return {"laps": found, "ratio": ratio, "mechanism": mechanism}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", choices=("speed", "disk", "memory"))
    parser.add_argument("--directory", type=Path, help="where files are made (default: beside this program)")
    parser.add_argument("--lap", choices=LAPS, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lap:
        run_lap(options.lap, options.directory, options.count)
        return
    result: dict[str, object] = {}
    if options.only in (None, "speed"):
        result["speed"] = speed(options.scale, options.repeats)
    with tempfile.TemporaryDirectory(dir=options.directory or Path(__file__).parent) as name:
        directory = Path(name).resolve()
        if is_in_memory(directory):
            sys.exit(f"{directory} is memory itself: name another --directory")
        for kind in ("disk", "memory"):
            if options.only in (None, kind):
                result[kind] = laps(kind, options.scale, max(1, options.repeats // 2), directory)
    if options.scale == 1.0:
        save("touch", result)


if __name__ == "__main__":
    main()
