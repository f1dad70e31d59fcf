"""What does an entry cost in memory beyond a dict's own slot? By residency, from the ledger and the process itself.

Method: each case runs in a process of its own; 300,000 int keys (kept alive outside, so that they cost the dict
nothing) with one value each; the growth of resident memory is compared with that of a plain dict. "Bookkeeping" is what
remains after the plain dict's slot: for hot entries the values exist in both; cold ones have no value in RAM.
"""

import gc
import json
import subprocess
import sys

from measure import save

from spectral_alloc import ThermalDict
from spectral_alloc._cell import CELL_BYTES
from spectral_alloc.limits import resident_bytes

ENTRIES = 300_000
VALUE_BYTES = 200


def grown(kind: str) -> dict[str, float]:
    """Resident bytes per entry of one kind of dict, in this process."""
    keys = list(range(1_000_000, 1_000_000 + ENTRIES))
    values = [bytes([number % 251]) * VALUE_BYTES for number in range(ENTRIES)]
    if kind in ("warm", "cold"):
        values = [f"{number:>10}" * 20 for number in range(ENTRIES)]
    subject: dict = {} if kind in ("dict", "slot") else ThermalDict.open(memory_limit="4 GB")
    gc.collect()
    before = resident_bytes()
    for key, value in zip(keys, values, strict=True):
        subject[key] = None if kind == "slot" else value
    del value
    if kind in ("warm", "cold"):
        values.clear()
        subject.memory_limit = "40 MB" if kind == "warm" else 0
    stats = subject.stats() if isinstance(subject, ThermalDict) else None
    gc.collect()
    result = {"resident_bytes": (resident_bytes() - before) / ENTRIES}
    if stats is not None:
        result |= {
            "ledger_bytes": stats.used_bytes / ENTRIES,
            "hot": stats.hot_entries,
            "warm": stats.warm_entries,
            "cold": stats.cold_entries,
        }
    return result


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(grown(sys.argv[1])))
        return
    rows = {}
    for kind in ("slot", "hot", "cold"):
        done = subprocess.run([sys.executable, __file__, kind], stdout=subprocess.PIPE, check=True, text=True)
        rows[kind] = json.loads(done.stdout)
    slot = rows["slot"]["resident_bytes"]
    print(f"a plain dict's slot (key and value held outside): {slot:.1f} bytes an entry")
    print(f"a cell: {CELL_BYTES} bytes, in whatever state; a warm entry adds its frame, a cold one nothing in RAM")
    print(f"hot, value held outside too: {rows['hot']['resident_bytes'] - slot:.1f} bytes an entry beyond dict's slot")
    cold = rows["cold"]
    share = f"{cold['cold']:,} of {ENTRIES:,} entries cold"
    print(f"cold ({share}): ledger {cold['ledger_bytes']:.1f} bytes an entry, keys included")
    save("bookkeeping", rows)


if __name__ == "__main__":
    main()
