"""What does a hot entry cost, in time, in bytes and in garbage collections? ThermalDict and caches against dict.

    python benchmarks/hot.py                                  # all three tables
    python benchmarks/hot.py --table times --only thermal     # one table, one subject (dict is always measured)

Times: 1,000 entries, all hot, no pressure. Each operation runs over all keys, the empty loop is subtracted, and all
subjects take turns at each operation; a ratio is taken within one repeat, so that a slow spell of the machine hits
both of its sides. Shown: nanoseconds (median), ratio to dict (median, and half the distance between its quartiles).
Keys are in cache: this is the floor of the overhead per operation, not what a large dict sees.

Bytes: growth of resident memory for 300,000 entries whose keys and values are held outside too, each subject in a
process of its own; what a plain dict grows by is its slot. Cold: the values are not held outside, and all on disk.

Collections: gc.collect with 1,000,000 hot entries, each subject in a process of its own that has loaded the same
modules, by turns; the values are text (nothing to follow, and a dict of them is not even visited), or
lists of two numbers.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from hot_subjects import LOOPS, ROOM, SUBJECTS, Operation, empty_loops, operations
from measure import interleaved, machine, median_and_spread, save
from memory_cage import children_environment

ENTRIES = 1_000
ROUNDS = 20
REPEATS = 31
SLOW_SHARE = 10  # what takes microseconds needs fewer rounds, and must not part the fast ones in time
BYTES_ENTRIES = 300_000
COLLECTED_ENTRIES = 1_000_000
COLLECTIONS = 7
TURNS = 3
VALUE_CHARACTERS = 200

Cases = dict[tuple[str, str], tuple[Operation, int]]  # (subject, operation) -> what to run, and its rounds

KEYS: dict[str, Callable[[int], object]] = {
    "str": lambda number: f"key-{number}",
    "int": lambda number: number * 7919,
    "tuple": lambda number: (number, "x"),
}
COLLECTED: dict[str, Callable[[int], object]] = {
    "text": lambda number: f"{number}",
    "lists": lambda number: [number, number],
}


def cases_of(subjects: list[str], keys: list[object], rounds: int) -> Cases:
    """Everything to be timed, the subjects of one operation in a row, and how many rounds each runs."""
    found: Cases = {("", name): (run, rounds) for name, run in empty_loops(keys, rounds).items()}
    for name in subjects:
        subject = SUBJECTS[name]
        own_rounds = max(1, rounds // SLOW_SHARE) if subject.is_slow else rounds
        container = subject.filled(((key, f"value {key}") for key in keys), ROOM * len(keys))
        found |= {
            (name, title): (run, own_rounds)
            for title, run in operations(subject, container, keys, own_rounds).items()
        }
    titles = list(dict.fromkeys(title for _, title in found))
    return {case: found[case] for case in sorted(found, key=lambda case: titles.index(case[1]))}


def times(kind: str, subjects: list[str], entries: int, rounds: int, repeats: int) -> list[dict[str, Any]]:
    """One row for each operation and subject, for one kind of key."""
    keys = [KEYS[kind](number) for number in range(entries)]
    cases = cases_of(subjects, keys, rounds)
    seconds = interleaved({case: run for case, (run, _) in cases.items()}, repeats)

    def net(case: tuple[str, str]) -> list[float]:
        empty = "", LOOPS.get(case[1], "none")
        scale, empty_scale = (1e9 / (cases[measured][1] * entries) for measured in (case, empty))
        pairs = zip(seconds[case], seconds[empty], strict=True)
        return [took * scale - loop * empty_scale for took, loop in pairs]

    rows = []
    for case in cases:
        name, title = case
        if not name:
            continue
        base = ("thermal", "as many gets") if title == "get_many" else ("dict", title)
        row: dict[str, Any] = {"keys": kind, "operation": title, "subject": name}
        row["ns"], row["spread_ns"] = median_and_spread(net(case))
        if base in cases:
            ratios = [took / other for took, other in zip(net(case), net(base), strict=True)]
            row["ratio"], row["spread"] = median_and_spread(ratios)
        rows.append(row)
    return rows


def grown(name: str, kind: str, entries: int) -> dict[str, float]:
    """Bytes that one entry takes in a container of a kind (hot or cold), in this process."""
    from spectral_alloc.limits import resident_bytes

    keys = list(range(1_000_000, 1_000_000 + entries))
    # A few values for all entries: hot ones belong to nobody here. Cold ones must differ and be let go.
    shared = [bytes([number]) * VALUE_CHARACTERS for number in range(251)]
    values = (shared[number % 251] for number in range(entries))
    if kind == "cold":
        values = (f"{number:>10}" * (VALUE_CHARACTERS // 10) for number in range(entries))
    if kind == "cold":
        from spectral_alloc import ThermalDict

        before = resident_bytes()
        container: Any = ThermalDict.open(memory_limit=0)
        for key, value in zip(keys, values, strict=True):
            container[key] = value
    else:
        before = resident_bytes()
        container = SUBJECTS[name].filled(zip(keys, values, strict=True), ROOM * entries)
    gc.collect()
    result = {"resident_bytes": (resident_bytes() - before) / entries}
    if name == "thermal":
        stats = container.stats()
        result |= {"cold_share": stats.cold_entries / entries, "hot_share": stats.hot_entries / entries}
        result["ledger_bytes"] = stats.used_bytes / entries
    return result


def collected(name: str, kind: str, entries: int) -> dict[str, float]:
    """The shortest time of a full collection while a container of a kind of values exists."""
    import spectral_alloc  # noqa: F401 - what modules hold is collected too: for all subjects the same

    values = [COLLECTED[kind](number) for number in range(entries)]
    container = SUBJECTS[name].filled(enumerate(values), ROOM * entries)
    values.clear()
    gc.collect()
    took = []
    for _ in range(COLLECTIONS):
        start = time.perf_counter()
        gc.collect()
        took.append(time.perf_counter() - start)
    del container
    return {"milliseconds": min(took) * 1e3}


CHILDREN: dict[str, Callable[[str, str, int], dict[str, float]]] = {"bytes": grown, "collections": collected}


def in_child(table: str, name: str, kind: str, entries: int) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--child", table, name, kind, str(entries)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=children_environment())
    return dict(json.loads(done.stdout))


def bytes_rows(subjects: list[str], entries: int) -> list[dict[str, Any]]:
    """Bytes beyond a dict's own slot: for a hot entry of every subject, for a cold one of ThermalDict."""
    slot = in_child("bytes", "dict", "hot", entries)["resident_bytes"]
    rows: list[dict[str, Any]] = [{"subject": "dict", "kind": "hot", "slot_bytes": slot, "beyond_bytes": 0.0}]
    wanted = [(name, "hot") for name in subjects if name != "dict"]
    for name, kind in [*wanted, *([("thermal", "cold")] if "thermal" in subjects else [])]:
        figures = in_child("bytes", name, kind, entries)
        rows.append({"subject": name, "kind": kind, "beyond_bytes": figures["resident_bytes"] - slot} | figures)
    return rows


def collections_rows(subjects: list[str], entries: int, turns: int) -> list[dict[str, Any]]:
    """Milliseconds of a collection for each kind of value and subject, and the ratio to dict within a turn."""
    rows = []
    for kind in COLLECTED:
        taken: dict[str, list[float]] = {name: [] for name in subjects}
        for _ in range(turns):
            for name in subjects:
                taken[name].append(in_child("collections", name, kind, entries)["milliseconds"])
        for name, milliseconds in taken.items():
            ratios = [took / other for took, other in zip(milliseconds, taken["dict"], strict=True)]
            best = {"milliseconds": min(milliseconds), "ratio": sorted(ratios)[len(ratios) // 2]}
            rows.append({"values": kind, "subject": name} | best)
    return rows


def print_times(rows: list[dict[str, Any]], subjects: list[str]) -> None:
    """For each kind of key: a line for each operation, a column for each subject."""
    cells = {(row["keys"], row["operation"], row["subject"]): row for row in rows}
    for kind in dict.fromkeys(row["keys"] for row in rows):
        print(f"\n{kind} keys: dict in ns, the others as multiples of dict (+- spread)")
        print(f"{'':14}{'dict ns':>9}" + "".join(f"{name:>15}" for name in subjects if name != "dict"))
        for title in dict.fromkeys(row["operation"] for row in rows if row["keys"] == kind):
            own = cells.get((kind, title, "dict"))
            line = f"{title:14}" + (f"{own['ns']:>9.1f}" if own else f"{'':>9}")
            for name in subjects:
                row = cells.get((kind, title, name))
                if name == "dict":
                    continue
                if row is None:
                    line += f"{'-':>15}"
                elif "ratio" in row:
                    line += f"{row['ratio']:>9.2f} +-{row['spread']:>4.2f}"
                else:
                    line += f"{row['ns']:>12.1f} ns"
            print(line)
    print("(get_many: as a multiple of as many gets, both collecting the values)")


def print_bytes(rows: list[dict[str, Any]]) -> None:
    """One line for each subject."""
    print(f"\nbytes of an entry beyond dict's own slot ({rows[0]['slot_bytes']:.1f} bytes), key and value not counted")
    for row in rows[1:]:
        share = f"  ({row['cold_share']:.0%} of the entries cold)" if row["kind"] == "cold" else ""
        print(f"{row['subject']:12}{row['kind']:6}{row['beyond_bytes']:>8.1f}{share}")


def print_collections(rows: list[dict[str, Any]], entries: int) -> None:
    """One line for each kind of value and subject."""
    print(f"\ngc.collect with {entries:,} hot entries")
    for row in rows:
        print(f"{row['values']:8}{row['subject']:12}{row['milliseconds']:>9.2f} ms{row['ratio']:>9.2f} x dict")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="What a hot entry costs, against dict and caches.")
    parser.add_argument("--table", action="append", choices=("times", "bytes", "collections"), help="default: all")
    parser.add_argument("--only", action="append", choices=SUBJECTS, help="only this subject (may be repeated)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of entries and repeats")
    parser.add_argument("--child", nargs=4, metavar=("TABLE", "SUBJECT", "KIND", "ENTRIES"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = parse()
    if given.child:
        table, name, kind, entries = given.child
        print(json.dumps(CHILDREN[table](name, kind, int(entries))))
        return
    chosen = [name for name in SUBJECTS if name == "dict" or name in (given.only or SUBJECTS)]
    subjects = [name for name in chosen if SUBJECTS[name].is_installed]
    packages = [SUBJECTS[name].package for name in subjects]
    about = machine() | {package: version(package) for package in packages if package}
    print(about)
    if len(subjects) < len(chosen):
        print(f"(not installed: {', '.join(sorted(set(chosen) - set(subjects)))}; pip install '.[bench]')")
    tables = given.table or ["times", "bytes", "collections"]
    result: dict[str, Any] = {"about": about}
    if "times" in tables:
        repeats = max(3, round(REPEATS * given.scale))
        result["times"] = [row for kind in KEYS for row in times(kind, subjects, ENTRIES, ROUNDS, repeats)]
        print_times(result["times"], subjects)
    if "bytes" in tables:
        result["bytes"] = bytes_rows(subjects, round(BYTES_ENTRIES * given.scale))
        print_bytes(result["bytes"])
    if "collections" in tables:
        entries = round(COLLECTED_ENTRIES * given.scale)
        result["collections"] = collections_rows(subjects, entries, TURNS)
        print_collections(result["collections"], entries)
    save("hot", result)


if __name__ == "__main__":
    main()
