"""A program that holds a million records in a dict, run as a child under a memory cap by test_memory_cap.py.

    python million_records.py (dict | thermal) RECORDS READS MEMORY_LIMIT SPILL_DIR

It knows nothing of tiers: the two kinds of dict differ in one line. Prints one line of JSON at the end.
"""

import json
import random
import sys
from array import array
from time import perf_counter
from typing import Any

WORDS = "river stone winter candle harbour meadow thunder silver garden lantern copper shadow orchard".split()
TEXT_CHARACTERS = 800
NUMBERS = 16


def status_bytes(field: str) -> int:
    """One of the sizes in /proc/self/status: VmRSS, VmHWM, VmPeak."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field + ":"))


class Records:
    """Makes record ``number`` again and again, always the same; no two records have an object in common."""

    def __init__(self) -> None:
        source = random.Random(2)
        self.text = " ".join(f"{source.choice(WORDS)}{source.randrange(1000)}" for _ in range(30_000))
        self.numbers = array("d", [source.random() for _ in range(20_000)])
        self.text_starts = len(self.text) - TEXT_CHARACTERS
        self.number_starts = len(self.numbers) - NUMBERS

    def __getitem__(self, number: int) -> dict[str, Any]:
        at, first = number * 7919 % self.text_starts, number * 104_729 % self.number_starts
        return {
            "id": number,
            "name": f"record {number}",
            "text": self.text[at : at + TEXT_CHARACTERS],
            "values": self.numbers[first : first + NUMBERS].tolist(),
        }


def main(kind: str, record_count: int, read_count: int, memory_limit: str, spill_dir: str) -> None:
    """Fill the dict, read part of it back in random order, print figures."""
    records = Records()
    store: dict[int, dict[str, Any]]
    if kind == "thermal":
        from spectral_alloc import ThermalDict

        store = ThermalDict.open(memory_limit=memory_limit, spill_dir=spill_dir)
    else:
        store = {}
    before = status_bytes("VmRSS")
    start = perf_counter()
    for number in range(record_count):
        store[number] = records[number]
    written = perf_counter()
    wanted = random.Random(3).sample(range(record_count), read_count)
    equal = sum(store[number] == records[number] for number in wanted)
    figures: dict[str, Any] = {
        "length": len(store),
        "read": read_count,
        "equal": equal,
        "growth_bytes": status_bytes("VmRSS") - before,
        "peak_bytes": status_bytes("VmHWM"),
        "write_seconds": round(written - start, 1),
        "read_seconds": round(perf_counter() - written, 1),
    }
    if kind == "thermal":
        stats = store.stats()  # type: ignore[attr-defined]  # only reached with a ThermalDict
        names = "used_bytes limit_bytes hot_entries warm_entries cold_entries disk_live_bytes compression_ratio events"
        figures |= {name: getattr(stats, name) for name in names.split()}
        store.close()  # type: ignore[attr-defined]  # as above
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
