"""One lap of the race: one system, one workload, in this process. Started by race.py inside a memory cage.

    python race_lap.py '{"system": "thermal", "workload": "records", ...}'

Stores every value, then runs the operations. Each operation is timed alone, from before the subscript to after it;
making the values to write and comparing the values read happens between the timed parts. Prints one line of JSON.
"""

import json
import os
import sys
from array import array
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import Any

import numpy
from race_systems import COMMIT_WRITES, SYSTEMS, Setup, batch, details
from race_workloads import WORKLOADS, Values, key_of

QUANTILES = {"p50_us": 0.5, "p99_us": 0.99, "p99.9_us": 0.999}
TIMER_SAMPLES = 10_000


def status_bytes(field: str) -> int:
    """One of the sizes in /proc/self/status: VmRSS, VmHWM, RssAnon."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def folder_bytes(folder: Path) -> int:
    """What the files below a folder occupy on disk."""
    total = 0
    for parent, _, names in os.walk(folder):
        total += sum(os.lstat(os.path.join(parent, name)).st_blocks * 512 for name in names)
    return total


def fill(store: Any, values: Values, count: int, seconds: float) -> dict[str, float]:
    """Store every value at version 0; stops at the time limit."""
    start = perf_counter()
    done = 0
    while done < count and perf_counter() - start < seconds:
        end = min(count, done + COMMIT_WRITES)
        with batch(store):
            for number in range(done, end):
                store[key_of(number)] = values.make(number, 0)
        done = end
    return {"filled": done, "fill_seconds": perf_counter() - start}


def lap(
    store: Any, values: Values, numbers: array, writes: bytearray, count: int, seconds: float
) -> tuple[array, int, float]:
    """Run the operations; returns the nanoseconds of each, how many reads were wrong, and the wall time."""
    versions = array("L", bytes(8 * count))
    took = array("Q")
    wrong = 0
    start = perf_counter()
    deadline = perf_counter_ns() + int(seconds * 1e9)
    for number, writes_now in zip(numbers, writes, strict=True):
        key = key_of(number)
        if writes_now:
            versions[number] += 1
            value = values.make(number, versions[number])
            before = perf_counter_ns()
            store[key] = value
            after = perf_counter_ns()
        else:
            before = perf_counter_ns()
            value = store[key]
            after = perf_counter_ns()
            wrong += not values.is_right(value, number, versions[number])
        took.append(after - before)
        if after > deadline:
            break
    return took, wrong, perf_counter() - start


def timer_ns() -> float:
    """What reading the clock twice costs; it is part of every time reported."""
    times = []
    for _ in range(TIMER_SAMPLES):
        before = perf_counter_ns()
        times.append(perf_counter_ns() - before)
    return float(numpy.median(times))


def run(
    system: str, workload: str, scale: float, directory: str, memory_bytes: int, seconds: float
) -> dict[str, Any]:
    """Fill and race; the figures of this lap."""
    work = WORKLOADS[workload].scaled(scale)
    values = work.values()
    numbers, writes = work.operations()
    store = SYSTEMS[system].open(Setup(Path(directory), memory_bytes, work.value_count, work.live_bytes))
    result: dict[str, Any] = {"value_count": work.value_count, "rss_start_bytes": status_bytes("VmRSS")}
    result |= fill(store, values, work.value_count, seconds)
    result["details_after_fill"] = details(system, store)
    if result["filled"] == work.value_count:
        took, wrong, wall = lap(store, values, numbers, writes, work.value_count, seconds)
        busy = sum(took) / 1e9
        result |= {
            "operations": len(took),
            "operations_wanted": len(numbers),
            "wrong": wrong,
            "busy_seconds": busy,
            "wall_seconds": wall,
            "operations_per_second": len(took) / busy,
            "max_us": max(took) / 1e3,
            "timer_ns": timer_ns(),
        }
        for name, share in QUANTILES.items():
            result[name] = float(numpy.quantile(numpy.frombuffer(took, dtype=numpy.uint64), share)) / 1e3
    result |= {
        "rss_peak_bytes": status_bytes("VmHWM"),
        "anonymous_bytes": status_bytes("RssAnon"),
        "disk_bytes": folder_bytes(Path(directory)),
        "details": details(system, store),
    }
    return result


def main() -> None:
    print(json.dumps(run(**json.loads(sys.argv[1]))), flush=True)
    # The figures are taken; closing half a million files or objects properly would only cost time.
    os._exit(0)


if __name__ == "__main__":
    main()
