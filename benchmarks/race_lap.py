"""One lap of the race: one system, one workload, in this process. Started by race.py inside a memory cage.

    python race_lap.py '{"system": "thermal", "workload": "records", ...}'

Stores every value, then runs the operations. Each operation is timed alone, from before the subscript to after it;
making the values to write and comparing the values read happens between the timed parts. The processor time of this
thread is taken around that, since it is what a busy machine does not change. Prints one line of JSON.
"""

import json
import os
import sys
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, perf_counter_ns, thread_time_ns
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


@dataclass
class Times:
    """The nanoseconds of each operation, those of the processor for all, the reads that were wrong, the wall time."""

    took: array = field(default_factory=lambda: array("Q"))
    processor_ns: int = 0
    wrong: int = 0
    wall_seconds: float = 0.0


def lap(store: Any, values: Values, numbers: array, writes: bytearray, count: int, seconds: float) -> Times:
    """Run the operations until all are done or the time is over."""
    versions = array("L", bytes(8 * count))
    times = Times()
    start = perf_counter()
    deadline = perf_counter_ns() + int(seconds * 1e9)
    for number, writes_now in zip(numbers, writes, strict=True):
        key = key_of(number)
        if writes_now:
            versions[number] += 1
            value = values.make(number, versions[number])
            began = thread_time_ns()
            before = perf_counter_ns()
            store[key] = value
            after = perf_counter_ns()
        else:
            began = thread_time_ns()
            before = perf_counter_ns()
            value = store[key]
            after = perf_counter_ns()
        times.processor_ns += thread_time_ns() - began
        times.took.append(after - before)
        times.wrong += not writes_now and not values.is_right(value, number, versions[number])
        if after > deadline:
            break
    times.wall_seconds = perf_counter() - start
    return times


def clock_ns(clock: Callable[[], int]) -> float:
    """What reading a clock twice costs."""
    return float(numpy.median([-clock() + clock() for _ in range(TIMER_SAMPLES)]))


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
        times = lap(store, values, numbers, writes, work.value_count, seconds)
        took, done = times.took, len(times.took)
        busy = sum(took) / 1e9
        result |= {
            "operations": done,
            "operations_wanted": len(numbers),
            "wrong": times.wrong,
            "busy_seconds": busy,
            "wall_seconds": times.wall_seconds,
            "operations_per_second": done / busy,
            "processor_us": (times.processor_ns / done - clock_ns(thread_time_ns)) / 1e3,
            "max_us": max(took) / 1e3,
            "timer_ns": clock_ns(perf_counter_ns),
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
