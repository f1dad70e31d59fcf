"""The eviction policy on real and made-up traces: misses, what each part of it is good for, sizes, and speed.

    python benchmarks/policy.py FOLDER [--json OUT] [--quick]

FOLDER holds one NAME.npy or NAME.npy.xz for each trace: uint32 object numbers, one for each request. If there is a
baselines.json ({NAME: {fraction: {policy: miss ratio, ..., "cache_objects": n}}}), its capacities are used and every
cell is compared with the best policy in it; else capacities are 0.1, 1, 5, 10 and 20 % of the objects and cells are
compared with the default rules. NAME.sizes.npy (one size for each request) adds the comparison over bytes.

Method: misses are exact and the same in every run; speed is that of the best of three replays of the longest trace.
"""

import argparse
import io
import json
import lzma
import math
import time
from pathlib import Path
from typing import Any

import numpy
from policy_peers import greedy_dual, least_recently_used, s3_fifo

from spectral_alloc._policy import Replay
from spectral_alloc.policy import replay

FRACTIONS = (0.001, 0.01, 0.05, 0.1, 0.2)
NOT_ONLINE = ("cache_objects", "Belady")

#: What is left out, and the rules that leave it out.
ABLATIONS: dict[str, dict[str, float]] = {
    "all parts": {},
    "share fixed at 10 %": {"share_step": 0.0, "share_first": 0.1},
    "share fixed at 20 %": {"share_step": 0.0},
    "no window": {"window_most": 0.0},
    "no comparison with the rival": {"rival_slack": 1e9},
    "no old ghosts": {"old_factor": 1e9},
    "no ghosts in MAIN": {"ghost": 0.0, "old_factor": 1e9},
    "always trust": {"trust_step": 0.0},
    "no concavity test": {"concavity": 0.0},
    "MAIN not filled first": {"fill": 0.0},
}

#: Other values of the rules: the plateau.
VARIATIONS: dict[str, tuple[float, ...]] = {
    "share_first": (0.1, 0.3),
    "share_step": (1.0, 4.0),
    "share_least": (0.02, 0.1),
    "margin": (0.2, 0.4),
    "window_of_young": (0.3, 0.7),
    "window_most": (0.03, 0.1),
    "concavity": (0.25, 1.0),
    "ghost": (0.5, 1.0),
    "trust_step": (0.01, 0.05),
    "trust_loss": (0.25, 0.5),
    "rival_slack": (0.0, 2.0),
    "old_factor": (1.0, 4.0),
}

Cell = tuple[str, str, numpy.ndarray, int, dict[str, float]]


def load(path: Path) -> numpy.ndarray:
    """One array of a folder."""
    data = path.read_bytes()
    return numpy.load(io.BytesIO(lzma.decompress(data) if path.suffix == ".xz" else data), allow_pickle=False)


def traces_of(folder: Path) -> dict[str, Path]:
    """Name and file of every trace."""
    files = sorted([*folder.rglob("*.npy"), *folder.rglob("*.npy.xz")])
    return {path.name.split(".npy")[0]: path for path in files}


def cells_of(folder: Path, known: dict[str, Any]) -> list[Cell]:
    """Every trace with every capacity."""
    cells: list[Cell] = []
    for name, path in traces_of(folder).items():
        if name.endswith(".sizes"):
            continue
        ids = load(path).astype(numpy.uint32)
        objects = int(ids.max()) + 1
        for fraction in known.get(name, FRACTIONS):
            row = known.get(name, {}).get(fraction, {})
            capacity = row.get("cache_objects", max(1, round(float(fraction) * objects)))
            cells.append((name, str(fraction), ids, capacity, row))
    return cells


def synthetic() -> list[Cell]:
    """Made-up traces of one kind of work each."""
    generator = numpy.random.default_rng(0)
    weights = 1 / numpy.arange(1, 20001) ** 0.9
    drawn = generator.random(200_000) * weights.sum()
    zipf = numpy.searchsorted(numpy.cumsum(weights), drawn).clip(0, 19_999)
    loop = numpy.tile(numpy.arange(1000), 40)
    scans = [
        part
        for turn in range(20)
        for part in (zipf[turn * 5000 : turn * 5000 + 5000], numpy.arange(3000) + 30_000 + turn * 3000)
    ]
    beside = numpy.stack([zipf[:100_000], numpy.tile(numpy.arange(1000) + 30_000, 100)], 1).ravel()
    recent = (numpy.arange(200_000) // 4 - generator.geometric(1 / 150, 200_000) + 5000).clip(0)
    shuffled = generator.permutation(20_000)[zipf]
    made = {
        "loop, 50 % fits": (loop, 500),
        "loop, 80 % fits": (loop, 800),
        "loop, 95 % fits": (loop, 950),
        "zipf 0.9": (zipf, 1000),
        "zipf and scans": (numpy.concatenate(scans), 1000),
        "zipf, other zipf, loop": (numpy.concatenate([zipf, shuffled, numpy.tile(numpy.arange(1500), 40)]), 1000),
        "moving working set": (recent, 300),
        "zipf beside a loop": (beside, 1200),
    }
    return [(name, "", ids.astype(numpy.uint32), capacity, {}) for name, (ids, capacity) in made.items()]


def miss_ratio(cell: Cell, rules: dict[str, float]) -> float:
    """Misses for each request."""
    _, _, ids, capacity, _ = cell
    run = Replay(int(ids.max()) + 1, capacity, **rules)
    run.run(ids)
    return run.misses / len(ids)


def best_known(cell: Cell) -> tuple[float, str] | None:
    """The lowest miss ratio among the known policies, and whose it is."""
    online = [(ratio, name) for name, ratio in cell[4].items() if name not in NOT_ONLINE]
    return min(online) if online else None


def score(cells: list[Cell], ratios: list[float], default: list[float]) -> tuple[float, float, str]:
    """Geometric mean and worst of the ratios to the best known policy in each cell, or to the default rules."""
    relative = []
    for cell, ratio, usual in zip(cells, ratios, default, strict=True):
        known = best_known(cell)
        relative.append((ratio / (known[0] if known else usual), f"{cell[0]}@{cell[1]}"))
    worst = max(relative)
    return math.exp(sum(math.log(value) for value, _ in relative) / len(relative)), *worst


def least_recent_ratio(cell: Cell) -> float:
    """Miss ratio of LRU, for the made-up traces."""
    ids = cell[2].tolist()
    return least_recently_used(ids, cell[3], [1] * (max(ids) + 1))[0] / len(ids)


def weighted_rows(folder: Path) -> list[dict[str, Any]]:
    """Object and byte miss ratios over sizes, against the peers, for every trace that has sizes."""
    rows = []
    files = traces_of(folder)
    for name, path in files.items():
        if f"{name}.sizes" not in files:
            continue
        ids = load(path).astype(numpy.uint32)
        sizes = numpy.zeros(int(ids.max()) + 1, dtype=numpy.int64)
        numpy.maximum.at(sizes, ids, load(files[f"{name}.sizes"]).astype(numpy.int64))
        requests, plain, total = ids.tolist(), sizes.tolist(), int(sizes[ids].sum())
        for fraction in FRACTIONS:
            capacity = int(sizes.sum() * fraction)
            ours = replay(ids, capacity, sizes)
            objects = replay(ids, capacity, sizes, numpy.ones(len(sizes)))
            found = {
                "ours, bytes": (ours.misses, ours.missed_size),
                "ours, objects": (objects.misses, objects.missed_size),
                "GDSF, objects": greedy_dual(requests, capacity, plain),
                "GDSF, bytes": greedy_dual(requests, capacity, plain, by_bytes=True),
                "S3-FIFO": s3_fifo(requests, capacity, plain),
                "LRU": least_recently_used(requests, capacity, plain),
            }
            for policy, (misses, missed) in found.items():
                row = {"trace": name, "fraction": fraction, "policy": policy}
                rows.append(row | {"object_miss_ratio": misses / len(ids), "byte_miss_ratio": missed / total})
    return rows


def requests_per_second(cells: list[Cell]) -> dict[str, float]:
    """The slowest, median and fastest of all cells, each the best of three replays."""
    speeds = []
    for _, _, ids, capacity, _ in cells:
        best = math.inf
        for _ in range(3):
            run = Replay(int(ids.max()) + 1, capacity)
            start = time.perf_counter()
            run.run(ids)
            best = min(best, time.perf_counter() - start)
        speeds.append(len(ids) / best)
    speeds.sort()
    return {"slowest": speeds[0], "median": speeds[len(speeds) // 2], "fastest": speeds[-1]}


def print_rule(label: str, value: tuple[float, float, str], by_trace: dict[str, float]) -> None:
    """One line of the ablation table."""
    parts = " ".join(f"{ratio:6.3f}" for ratio in by_trace.values())
    print(f"{label:32s} {value[0]:.4f}  worst {value[1]:.3f} {value[2]:20s} {parts}")


def compared(cells: list[Cell], rules: dict[str, dict[str, float]], default: list[float]) -> dict[str, Any]:
    """Score of every set of rules, printed and returned."""
    found = {}
    names = list(dict.fromkeys(cell[0] for cell in cells))
    print(f"{'':32s} mean    worst" + " " * 27 + " ".join(f"{name[:6]:>6s}" for name in names))
    for label, changed in rules.items():
        ratios = [miss_ratio(cell, changed) for cell in cells]
        by_trace = {}
        for name in names:
            chosen = [i for i, cell in enumerate(cells) if cell[0] == name]
            pick = [cells[i] for i in chosen], [ratios[i] for i in chosen], [default[i] for i in chosen]
            by_trace[name] = score(*pick)[0]
        value = score(cells, ratios, default)
        print_rule(label, value, by_trace)
        found[label] = {"mean": value[0], "worst": value[1], "worst_cell": value[2], "by_trace": by_trace}
    return found


def print_cells(cells: list[Cell], ratios: list[float]) -> list[dict[str, Any]]:
    """One line for each cell."""
    rows = []
    for cell, ratio in zip(cells, ratios, strict=True):
        known = best_known(cell)
        beside = f"  best known {known[0]:.4f} ({known[1]}), ratio {ratio / known[0]:.3f}" if known else ""
        print(f"{cell[0]:14s} {cell[1]:>6s} {cell[3]:8d} objects  miss {ratio:.4f}{beside}")
        rows.append({"trace": cell[0], "fraction": cell[1], "capacity": cell[3], "miss_ratio": ratio})
    return rows


def main() -> None:
    """Print every table, and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="without the variations of the rules")
    arguments = parser.parse_args()
    baselines = arguments.folder / "baselines.json"
    known = json.loads(baselines.read_text()) if baselines.exists() else {}
    cells = cells_of(arguments.folder, known)
    default = [miss_ratio(cell, {}) for cell in cells]
    result: dict[str, Any] = {"cells": print_cells(cells, default)}
    print("\nwithout one part (ratios to the best known policy of each cell, or to all parts; then by trace)")
    result["ablations"] = compared(cells, ABLATIONS, default)
    if not arguments.quick:
        print("\nother values of the rules")
        others = {f"{name} = {value:g}": {name: value} for name, values in VARIATIONS.items() for value in values}
        result["variations"] = compared(cells, others, default)
    print("\nmade-up traces: miss ratio of LRU, of all parts, and without one part")
    made = synthetic()
    result["made_up"] = {cell[0]: {"LRU": least_recent_ratio(cell)} for cell in made}
    for label in ("all parts", "share fixed at 20 %", "no comparison with the rival", "always trust"):
        for cell in made:
            result["made_up"][cell[0]][label] = miss_ratio(cell, ABLATIONS[label])
    for name, found in result["made_up"].items():
        print(f"{name:24s} " + "  ".join(f"{label} {ratio:.3f}" for label, ratio in found.items()))
    result["weighted"] = weighted_rows(arguments.folder)
    for row in result["weighted"]:
        print(
            f"{row['trace']:14s} {row['fraction']:6.1%} of all bytes  {row['policy']:14s}"
            f"  objects {row['object_miss_ratio']:.4f}  bytes {row['byte_miss_ratio']:.4f}"
        )
    result["requests_per_second"] = requests_per_second(cells)
    speeds = (f"{name} {value / 1e6:.1f}" for name, value in result["requests_per_second"].items())
    print("\nmillions of requests a second: " + ", ".join(speeds))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
