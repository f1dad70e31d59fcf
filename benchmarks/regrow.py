"""What does a value cost that can be made again? A million of them, 1 KB each, in dicts that do and do not know it.

    python benchmarks/regrow.py                          # all, a million entries each
    python benchmarks/regrow.py --entries 50000 --only "one recipe" --keys int

Method: each store is filled in a process of its own with str values of 1 KB under int or str keys; then 100,000 values
are read in random order and compared. RAM is the growth of the process's resident memory from before the first entry,
and what the ledger says, divided by the entries: keys, table and bookkeeping are in both. Times are of the processor,
in us, and include making the value to store or to compare. "keys alone" is a dict of None and the same function: less
cannot be had, and it keeps no edits.
"""

import argparse
import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from measure import save

from spectral_alloc import ThermalDict
from spectral_alloc.limits import resident_bytes

ENTRIES = 1_000_000
READS = 100_000
LIMIT_BYTES_EACH = {"int": 126, "str": 147}
UNBOUNDED_SHARE = 10  # a plain dict of all values gets a tenth of the entries
KEYS: dict[str, Callable[[int], Any]] = {"int": lambda number: number, "str": lambda number: f"key-{number:08d}"}


def value_of(key: Any) -> str:
    """The value of a key: 1 KB."""
    return f"{key!s:>16}" * 64


class KeysAlone(dict[Any, Any]):
    """Keys and a function, nothing else."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, None)

    def __getitem__(self, key: Any) -> Any:
        return value_of(key)


def one_recipe(limit_bytes: int) -> ThermalDict[Any, Any]:
    """A dict that can make all its values again."""
    return ThermalDict.open(memory_limit=limit_bytes, regrow=value_of)


class RecipeEach(ThermalDict[Any, Any]):
    """A dict that is told for each key how its value is made."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        self.regrow(key, value_of, key)


STORES: dict[str, Callable[[int], Any]] = {
    "dict": lambda limit_bytes: {},
    "keys alone": lambda limit_bytes: KeysAlone(),
    "no recipe": lambda limit_bytes: ThermalDict.open(memory_limit=limit_bytes),
    "a recipe for each key": lambda limit_bytes: RecipeEach.open(memory_limit=limit_bytes),
    "one recipe": one_recipe,
}


def lap(name: str, kind: str, entries: int) -> dict[str, Any]:
    """Fill one store, read from it, and say what it cost."""
    key_of = KEYS[kind]
    entries = entries // UNBOUNDED_SHARE if name == "dict" else entries
    store = STORES[name](entries * LIMIT_BYTES_EACH[kind])
    for number in range(-1000, 0):  # what the first values load and allocate for good is not the store's
        store[key_of(number)] = value_of(key_of(number))
    for number in range(-1000, 0):
        del store[key_of(number)]
    gc.collect()
    before, start = resident_bytes(), time.process_time()
    for number in range(entries):
        key = key_of(number)
        store[key] = value_of(key)
    filled = time.process_time()
    found: dict[str, Any] = {"entries": entries, "fill_us": (filled - start) / entries * 1e6}
    if isinstance(store, ThermalDict):
        stats = store.stats()
        found |= {"ledger_bytes_each": stats.used_bytes / entries, "regrown": stats.regrown_entries}
        found |= {"disk_bytes_each": stats.disk_file_bytes / entries, "fixed_bytes_each": stats.entry_bytes / entries}
    gc.collect()
    found["resident_bytes_each"] = (resident_bytes() - before) / entries
    wanted = random.Random(1).choices(range(entries), k=min(READS, entries))
    start = time.process_time()
    wrong = sum(store[key_of(number)] != value_of(key_of(number)) for number in wanted)
    found |= {"read_us": (time.process_time() - start) / len(wanted) * 1e6, "wrong": wrong}
    if isinstance(store, ThermalDict):
        found["disk_bytes_each_at_the_end"] = store.stats().disk_file_bytes / entries
        store.check()
    return found


def measured(name: str, kind: str, entries: int) -> dict[str, Any]:
    """The lap of a store in a process of its own."""
    command = [sys.executable, __file__, "--lap", "--only", name, "--keys", kind, "--entries", str(entries)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} with {kind} keys failed: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--only", choices=STORES)
    parser.add_argument("--keys", choices=KEYS)
    parser.add_argument("--lap", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.lap:
        print(json.dumps(lap(chosen.only, chosen.keys, chosen.entries)))
        return
    result: dict[str, Any] = {}
    print("| keys | store | RAM, B each | ledger, B each | of it key, slot, cell | disk, B each | fill | read |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in [chosen.keys] if chosen.keys else KEYS:
        for name in [chosen.only] if chosen.only else STORES:
            found = result[f"{kind}, {name}"] = measured(name, kind, chosen.entries)
            assert found["wrong"] == 0
            cells = [f"{found['resident_bytes_each']:.0f}"]
            for figure in ("ledger_bytes_each", "fixed_bytes_each", "disk_bytes_each_at_the_end"):
                cells.append(f"{found[figure]:.0f}" if figure in found else "-")
            print(f"| {kind} | {name} | {' | '.join(cells)} | {found['fill_us']:.1f} | {found['read_us']:.1f} |")
    save("regrow", result)


if __name__ == "__main__":
    main()
