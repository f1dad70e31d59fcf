"""Which store serves more data than memory fastest? Every system in a fresh process inside the same memory cage.

    python benchmarks/race.py                                   # the records: 600,000 of them under 420 MB
    python benchmarks/race.py --workload all --seconds 600      # arrays, strings, 0 % and 50 % writes too
    python benchmarks/race.py --scale 0.01                      # everything smaller: seconds
    python benchmarks/race.py --only thermal --only rocksdict --repeats 3

Method: see docs/race.md. Systems that are not installed are left out; a system that needs longer than ``--seconds`` for
storing the values or for the operations is stopped, and the table says how far it came.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measure import machine, save
from memory_cage import children_environment, is_in_memory, memory_cage, python
from race_systems import SYSTEMS
from race_workloads import WORKLOADS

CAP_BYTES = 420_000_000
LIMIT_BYTES = 120_000_000
# Interpreter, numpy, the pools of the workload and the program's pages: they do not shrink with the scale.
FIXED_BYTES = 90_000_000
# A single call that never returns is given up: storing and racing may each take the limit, and then some.
GRACE_SECONDS = 60.0
LAP = Path(__file__).with_name("race_lap.py")
COLUMNS = {
    "ops/s": "operations_per_second",
    "CPU us": "processor_us",
    "p50 us": "p50_us",
    "p99 us": "p99_us",
    "p99.9 us": "p99.9_us",
    "peak MB": "rss_peak_bytes",
    "disk MB": "disk_bytes",
    "fill s": "fill_seconds",
}


def scratch_folder() -> Path:
    """A folder on a disk: files in memory would count twice and cost nothing."""
    for parent in (Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()):
        if not is_in_memory(parent.resolve()):
            return Path(tempfile.mkdtemp(prefix="spectral_alloc_race_", dir=parent))
    raise SystemExit("every folder for temporary files is in memory: set TMPDIR to one on a disk")


def run_lap(system: str, workload: str, scale: float, seconds: float) -> dict[str, Any]:
    """One system, one workload, one process; what it reports, or how it ended."""
    cap_bytes = FIXED_BYTES + round((CAP_BYTES - FIXED_BYTES) * scale)
    folder = scratch_folder()
    task = {
        "system": system,
        "workload": workload,
        "scale": scale,
        "directory": str(folder),
        "memory_bytes": round(LIMIT_BYTES * scale),
        "seconds": seconds,
    }
    options: dict[str, Any] = {"env": children_environment(), "timeout": 2 * seconds + GRACE_SECONDS}
    command = python(LAP, json.dumps(task))
    try:
        if not SYSTEMS[system].is_caged:
            done = subprocess.run(command, capture_output=True, text=True, **options)
            return {"cage": "none"} | outcome(done)
        with memory_cage(cap_bytes) as cage:
            figures = outcome(cage.run(command, **options))
            return figures | {"cage": cage.mechanism, "cap_bytes": cap_bytes, "cage_peak_bytes": cage.peak_bytes()}
    except subprocess.TimeoutExpired:
        return {"failure": f"no answer within {options['timeout']:.0f} s"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def outcome(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The figures that a lap printed, or why there are none."""
    if done.returncode == 0:
        return dict(json.loads(done.stdout))
    last = done.stderr.strip().splitlines()[-1:] or ["no message"]
    killed = "killed: over the cap" if done.returncode in (-9, 137) else last[0]
    return {"failure": f"exit status {done.returncode}: {killed}"}


def typical(laps: list[dict[str, Any]]) -> dict[str, Any]:
    """The lap with the median throughput, with the throughput of all; a failed lap if there is one."""
    failed = [lap for lap in laps if "operations_per_second" not in lap]
    if failed:
        return failed[0]
    ordered = sorted(laps, key=lambda lap: lap["operations_per_second"])
    rates = [lap["operations_per_second"] for lap in laps]
    return ordered[(len(ordered) - 1) // 2] | {"all_operations_per_second": rates, "median": statistics.median(rates)}


def note(lap: dict[str, Any]) -> str:
    """What the figures alone do not say."""
    if "failure" in lap:
        return str(lap["failure"])
    if lap["filled"] < lap["value_count"]:
        return f"stored {lap['filled']:,} of {lap['value_count']:,} values in {lap['fill_seconds']:.0f} s"
    notes = []
    if lap["operations"] < lap["operations_wanted"]:
        notes.append(f"{lap['operations']:,} operations in {lap['wall_seconds']:.0f} s")
    if lap["wrong"]:
        notes.append(f"{lap['wrong']:,} WRONG VALUES")
    return "; ".join(notes)


def print_table(workload: str, laps: dict[str, dict[str, Any]]) -> None:
    """One line for each system, the fastest first."""
    print(f"\n{workload}")
    print(f"{'system':17}" + "".join(f"{title:>10}" for title in COLUMNS) + "  note")
    for name, lap in sorted(laps.items(), key=lambda item: -item[1].get("operations_per_second", 0)):
        cells = []
        for column in COLUMNS.values():
            value = lap.get(column)
            scale = 1e6 if column.endswith("_bytes") else 1
            digits = 0 if column.endswith(("_bytes", "_second")) else 1
            cells.append(f"{'-':>10}" if value is None else f"{value / scale:>10,.{digits}f}")
        print(f"{name:17}{''.join(cells)}  {note(lap)}", flush=True)


def race(
    workloads: list[str], systems: list[str], scale: float, seconds: float, repeats: int
) -> dict[str, dict[str, Any]]:
    """Every workload with every system; repeats take turns, so that a slow spell of the machine hits all alike."""
    results: dict[str, dict[str, Any]] = {}
    for workload in workloads:
        laps: dict[str, list[dict[str, Any]]] = {name: [] for name in systems}
        for turn in range(repeats):
            for name in systems:
                print(f"({workload}: {name}, {turn + 1} of {repeats})", flush=True)
                laps[name].append(run_lap(name, workload, scale, seconds))
        results[workload] = {name: typical(taken) for name, taken in laps.items()}
        print_table(workload, results[workload])
    return results


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="ThermalDict against its peers, in a memory cage.")
    parser.add_argument("--scale", type=float, default=1.0, help="share of values, operations, limit and cap")
    parser.add_argument("--only", action="append", choices=SYSTEMS, help="only this system (may be repeated)")
    parser.add_argument("--workload", action="append", choices=[*WORKLOADS, "all"], help="default: records")
    parser.add_argument("--seconds", type=float, default=300.0, help="for storing the values, and for the operations")
    parser.add_argument("--repeats", type=int, default=1, help="laps of each system; the median one is shown")
    return parser.parse_args()


def main() -> None:
    given = parse()
    systems = [name for name in given.only or SYSTEMS if SYSTEMS[name].is_installed]
    missing = sorted(set(given.only or SYSTEMS) - set(systems))
    workloads = list(WORKLOADS) if "all" in (given.workload or ()) else given.workload or ["records"]
    about = machine() | {package: version(package) for name in systems for package in SYSTEMS[name].packages}
    print(about)
    if missing:
        print(f"(not installed: {', '.join(missing)}; pip install '.[bench]')")
    results = race(workloads, systems, given.scale, given.seconds, given.repeats)
    configured = {name: SYSTEMS[name].configuration for name in systems}
    limits = {"cap_bytes": CAP_BYTES, "limit_bytes": LIMIT_BYTES, "scale": given.scale, "seconds": given.seconds}
    save("race", {"about": about, "limits": limits, "configurations": configured, "laps": results})


if __name__ == "__main__":
    main()
