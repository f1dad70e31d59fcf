"""GenerativeSpace beside numpy, a dict, and other ways to keep edits; every ratio is of interleaved repeats of one run.

    python benchmarks/space.py                  # all
    python benchmarks/space.py --edits 500000 --repeats 3 --only speed

Prints the speed table and the edit table, and writes both to benchmarks/results/space.json. The bars stand beside.
"""

import argparse
import csv
import importlib.util
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
from measure import interleaved, save

from spectral_alloc import GenerativeSpace, _generator

FILL_COUNT = 1 << 24
TAKE_COUNT = 1 << 27
GATHER_COUNT = 1 << 22
SCALAR_COUNT = 200_000
# Of one work for a thread, since a scheduler may take some milliseconds to give a new thread a core of its own.
FILL_REPEATS = 16


def median(values: list[float]) -> float:
    """The middle of the repeats."""
    return statistics.median(values)


def speed_cases(space: GenerativeSpace) -> dict[str, tuple[int, Callable[[], object]]]:
    """Name -> (values, work) of all that is compared."""
    draw = numpy.random.Generator(numpy.random.SFC64(1))
    out = numpy.zeros(FILL_COUNT)
    halves = numpy.split(out, 2)
    stored = numpy.full(TAKE_COUNT, 0.5)  # written, since pages of zeros would all be one and the same page
    places = draw.integers(0, TAKE_COUNT, GATHER_COUNT)
    addresses = draw.integers(0, 2**64, GATHER_COUNT, dtype=numpy.uint64)
    gathered = numpy.zeros(GATHER_COUNT)
    known = {number: float(number) for number in range(1000)}
    numbers = [number % 1000 for number in range(SCALAR_COUNT)]

    def fill_again_and_again(part: numpy.ndarray[Any, Any], start: int) -> None:
        for _ in range(FILL_REPEATS):
            space.fill(part, start)

    def fill_in_two_threads() -> None:
        threads = [
            threading.Thread(target=fill_again_and_again, args=(half, start))
            for half, start in zip(halves, (0, FILL_COUNT // 2), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def ask(function: Callable[[int], Any]) -> Callable[[], None]:
        def run() -> None:
            for number in numbers:
                function(number)

        return run

    return {
        "fill 128 MB": (FILL_COUNT, lambda: space.fill(out)),
        f"fill 128 MB {FILL_REPEATS} times": (FILL_COUNT * FILL_REPEATS, lambda: fill_again_and_again(out, 0)),
        f"fill 128 MB {FILL_REPEATS} times, two threads": (FILL_COUNT * FILL_REPEATS, fill_in_two_threads),
        "SFC64 random(out=)": (FILL_COUNT, lambda: draw.random(out=out)),
        "out.fill(0.0)": (FILL_COUNT, lambda: out.fill(0.0)),
        "gather, random addresses": (GATHER_COUNT, lambda: space.gather(addresses, out=gathered)),
        "numpy.take from 1 GB": (GATHER_COUNT, lambda: numpy.take(stored, places, out=gathered, mode="clip")),
        "space.fetch(address)": (SCALAR_COUNT, ask(space.fetch)),
        "dict.get(key)": (SCALAR_COUNT, ask(known.get)),
        "a loop and an empty call": (SCALAR_COUNT, ask(lambda number: None)),
    }


BARS = [
    ("fill 128 MB", "SFC64 random(out=)", 2.0),
    ("fill 128 MB", "out.fill(0.0)", 0.8),
    ("gather, random addresses", "numpy.take from 1 GB", 5.0),
    ("space.fetch(address)", "dict.get(key)", 0.5),
    (f"fill 128 MB {FILL_REPEATS} times, two threads", f"fill 128 MB {FILL_REPEATS} times", 1.7),
]


def speed(repeats: int) -> dict[str, object]:
    """Measure and print the speed table."""
    cases = speed_cases(GenerativeSpace(seed=1337))
    seconds = interleaved({name: work for name, (_, work) in cases.items()}, repeats)
    rates = {name: cases[name][0] / median(seconds[name]) for name in cases}
    best = {name: cases[name][0] / min(seconds[name]) for name in cases}
    print(f"level {_generator.level()}, {repeats} interleaved repeats      M values/s: median     best")
    for name in cases:
        print(f"  {name:<50} {rates[name] / 1e6:>10.1f} {best[name] / 1e6:>10.1f}")
    ratios = {}
    for name, other, bar in BARS:
        ratio = median([b / a for a, b in zip(seconds[name], seconds[other], strict=True)])
        ratio *= cases[name][0] / cases[other][0]
        ratios[f"{name} / {other}"] = ratio
        verdict = "met" if ratio >= bar else "NOT met"
        print(f"  {name} is {ratio:.2f} x {other} (bar {bar:g}, {verdict})")
    return {"rates": rates, "best": best, "ratios": ratios}


class Edits:
    """What all ways to keep edits are given: addresses, values, and a directory."""

    def __init__(self, count: int, directory: Path) -> None:
        draw = numpy.random.default_rng(5)
        self.addresses = draw.integers(0, 2**63, count, dtype=numpy.uint64)
        self.values = draw.random(count)
        self.directory = directory

    def path(self, name: str) -> Path:
        """A file that is not there yet."""
        path = self.directory / name
        path.unlink(missing_ok=True)
        return path


def log_scatter(edits: Edits) -> tuple[Path, Callable[[], object]]:
    """Ours, durability="interval", one scatter; closed and thereby synced."""
    path = edits.path("edits.log")
    with GenerativeSpace(1).attach(path) as space:
        space.scatter(edits.addresses, edits.values)
    return path, lambda: GenerativeSpace(1).attach(path, "none").detach()


def numpy_save(edits: Edits) -> tuple[Path, Callable[[], object]]:
    """One array of pairs; cannot be appended to."""
    path = edits.path("edits.npy")
    pairs = numpy.empty(len(edits.values), dtype=[("address", "u8"), ("value", "f8")])
    pairs["address"], pairs["value"] = edits.addresses, edits.values
    numpy.save(path, pairs)
    return path, lambda: numpy.load(path)


def sqlite_rows(edits: Edits) -> tuple[Path, Callable[[], object]]:
    """One table, one transaction."""
    path = edits.path("edits.sqlite")
    with sqlite3.connect(path) as database:
        database.execute("create table edits (address integer primary key, value real) without rowid")
        rows = zip(edits.addresses.astype("i8").tolist(), edits.values.tolist(), strict=True)
        database.executemany("insert or replace into edits values (?, ?)", rows)
    database.close()

    def read() -> object:
        reader = sqlite3.connect(path)
        try:
            return reader.execute("select address, value from edits").fetchall()
        finally:
            reader.close()

    return path, read


def csv_rows(edits: Edits) -> tuple[Path, Callable[[], object]]:
    """Text, with Python's csv module."""
    path = edits.path("edits.csv")
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(zip(edits.addresses.tolist(), edits.values.tolist(), strict=True))
    return path, lambda: numpy.loadtxt(path, delimiter=",", dtype=[("address", "u8"), ("value", "f8")])


def pandas_csv(edits: Edits) -> tuple[Path, Callable[[], object]]:
    """pandas to_csv, what the prototype compared itself with."""
    import pandas

    path = edits.path("pandas.csv")
    pandas.DataFrame({"address": edits.addresses, "value": edits.values}).to_csv(path, index=False)
    return path, lambda: pandas.read_csv(path)


def parquet(edits: Edits) -> tuple[Path, Callable[[], object]]:
    """One Parquet file, pyarrow's defaults."""
    import pyarrow
    import pyarrow.parquet

    path = edits.path("edits.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"address": edits.addresses, "value": edits.values}), path)
    return path, lambda: pyarrow.parquet.read_table(path)


WAYS = {
    "GenerativeSpace log": (log_scatter, None),
    "numpy.save": (numpy_save, None),
    "parquet": (parquet, "pyarrow"),
    "sqlite": (sqlite_rows, None),
    "csv module": (csv_rows, None),
    "pandas to_csv": (pandas_csv, "pandas"),
}


class Stopwatch:
    """Rates of edits, by the clock and by processor time, which other programs on the machine disturb less."""

    def __init__(self) -> None:
        self.clock: list[float] = []
        self.processor: list[float] = []

    def run(self, count: int, work: Callable[[], object]) -> None:
        """Time one piece of work on count edits."""
        start, used = time.perf_counter(), time.process_time()
        work()
        self.clock.append(count / (time.perf_counter() - start))
        self.processor.append(count / (time.process_time() - used))

    def __str__(self) -> str:
        return f"{median(self.clock) / 1e6:>8.1f} {max(self.clock) / 1e6:>8.1f} {median(self.processor) / 1e6:>12.1f}"


def edit_rates(edits: Edits, repeats: int) -> dict[str, Stopwatch]:
    """Edits a second with durability="interval": one by one, by scatter, and replayed."""
    names = ("one by one (bar 2)", "scatter, new space (bar 20)", "scatter, same addresses again", "replay (bar 20)")
    watches = {f"{name}, {kind}": Stopwatch() for kind in ("random", "in order") for name in names}
    count = len(edits.values)
    few = min(count, 500_000)
    for _ in range(repeats):
        for kind, addresses in (("random", edits.addresses), ("in order", numpy.arange(count, dtype=numpy.uint64))):
            one, new, again, replay = (watches[f"{name}, {kind}"] for name in names)
            keys, values = addresses[:few].tolist(), edits.values[:few].tolist()
            with GenerativeSpace(1).attach(edits.path("scalar.log")) as space:
                one.run(few, lambda space=space, keys=keys, values=values: write_each(space, keys, values))
            path = edits.path("scatter.log")
            with GenerativeSpace(1).attach(path) as space:
                for watch in (new, again):
                    watch.run(count, lambda space=space, addresses=addresses: space.scatter(addresses, edits.values))
                space.compact()
            fresh = GenerativeSpace(1)
            replay.run(count, lambda fresh=fresh, path=path: fresh.attach(path, "none"))
            fresh.detach()
    return watches


def write_each(space: GenerativeSpace, addresses: list[int], values: list[float]) -> None:
    """A loop of assignments."""
    for address, value in zip(addresses, values, strict=True):
        space[address] = value


def keep(count: int, repeats: int) -> dict[str, object]:
    """Measure and print the edit table."""
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory(dir=".") as directory:
        edits = Edits(count, Path(directory))
        watches = edit_rates(edits, repeats)
        print("M edits/s with durability='interval'          clock: median     best  processor: median")
        for name, watch in watches.items():
            print(f"  {name:<46} {watch}")
        print(f"{count:,} edits at random addresses:     write s   M edits/s   bytes/edit    read s   M edits/s")
        for name, (write, needs) in WAYS.items():
            if needs is not None and importlib.util.find_spec(needs) is None:
                print(f"  {name:<34} ({needs} is not installed)")
                continue
            writing, reading = [], []
            for _ in range(repeats if write in (log_scatter, numpy_save, parquet) else 1):
                start = time.perf_counter()
                path, read = write(edits)
                writing.append(time.perf_counter() - start)
                start = time.perf_counter()
                read()
                reading.append(time.perf_counter() - start)
            size = path.stat().st_size / count
            took, back = median(writing), median(reading)
            written = f"{took:>8.2f} {count / took / 1e6:>11.1f} {size:>12.2f}"
            print(f"  {name:<34} {written} {back:>9.2f} {count / back / 1e6:>11.1f}")
            result[name] = {"write_seconds": took, "bytes_per_edit": size, "read_seconds": back}
    return {"rates": {name: [watch.clock, watch.processor] for name, watch in watches.items()}, "ways": result}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--edits", type=int, default=5_000_000)
    parser.add_argument("--only", choices=("speed", "edits"))
    options = parser.parse_args()
    result = {}
    if options.only != "edits":
        result["speed"] = speed(options.repeats)
    if options.only != "speed":
        result["edits"] = keep(options.edits, max(1, options.repeats // 3))
    save("space", result)


if __name__ == "__main__":
    main()
