"""A program that compares what a ThermalDict says it uses with what its process grew by; run by test_budget.py.

    python memory_growth.py (records | nested) MEMORY_LIMIT ENTRIES SPILL_DIR

Prints one line of JSON: the ledger, the growth of resident memory, and what came back after all was deleted.
"""

import json
import sys
from typing import Any

from spectral_alloc import ThermalDict
from spectral_alloc.limits import resident_bytes


def make_record(number: int) -> dict[str, Any]:
    """A flat record of text and numbers, about 1.2 kB."""
    numbers = [number + step / 16 for step in range(12)]
    return {"id": number, "name": f"name {number}", "text": f"{number} some text " * 30, "numbers": numbers}


def make_nested(number: int) -> dict[str, Any]:
    """A record of records, some 1.5 kB in many small objects."""
    parts = [{"sku": f"part {number}-{step}", "amount": number + step, "price": step / 7} for step in range(5)]
    return {"id": number, "parts": parts, "owner": {"name": f"owner {number}", "tags": {f"tag {number % 97}"}}}


def main(kind: str, limit: str, count: int, spill_dir: str) -> None:
    """Fill, measure, delete, measure."""
    make = {"records": make_record, "nested": make_nested}[kind]
    with ThermalDict.open(memory_limit=limit, spill_dir=spill_dir) as store:
        # What the first values of a process load and allocate for good is not the dict's.
        store.update({number: make(number) for number in range(2_000)})
        for number in range(2_000):
            store.demote(number)
        assert store[7] == make(7)
        store.clear()
        before = resident_bytes()
        for number in range(count):
            store[number] = make(number)
        assert all(store[number] == make(number) for number in range(0, count, 50))
        used, full = store.stats().used_bytes, resident_bytes()
        for number in range(count):
            del store[number]
        store["last"] = []
        after = resident_bytes()
    figures = {"used_bytes": used, "resident_growth_bytes": full - before, "returned_bytes": full - after}
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
