"""What does a hot entry cost in time? ThermalDict against dict, operation by operation, in one interleaved run.

Method: 1,000 entries, all hot, no memory pressure; each operation runs over all keys; the loop's own cost is measured
and subtracted; 31 repeats in turns; medians, and the ratio of medians. Limits: keys are in cache, so this is the floor
of the overhead per operation, not what a large dict sees.
"""

from collections.abc import Callable

from measure import interleaved, machine, median_and_spread, save

from spectral_alloc import ThermalDict

ENTRIES = 1_000
ROUNDS = 20
REPEATS = 31

KEYS = {
    "str": [f"key-{number}" for number in range(ENTRIES)],
    "int": [number * 7919 for number in range(ENTRIES)],
    "tuple": [(number, "x") for number in range(ENTRIES)],
}


def operations(mapping: dict, keys: list) -> dict[str, Callable[[], object]]:
    """Every measured operation, over all keys, ROUNDS times."""

    def loop() -> None:
        for _ in range(ROUNDS):
            for _key in keys:
                pass

    def get() -> None:
        for _ in range(ROUNDS):
            for key in keys:
                mapping[key]

    def get_method() -> None:
        find = mapping.get
        for _ in range(ROUNDS):
            for key in keys:
                find(key)

    def overwrite() -> None:
        for _ in range(ROUNDS):
            for key in keys:
                mapping[key] = "value"

    def insert() -> None:
        for _ in range(ROUNDS):
            fresh = type(mapping)()
            for key in keys:
                fresh[key] = "value"

    def contains() -> None:
        for _ in range(ROUNDS):
            for key in keys:
                key in mapping  # noqa: B015  # the look-up itself is measured

    def iterate() -> None:
        for _ in range(ROUNDS):
            for _key in mapping:
                pass

    def values() -> None:
        for _ in range(ROUNDS):
            for _value in mapping.values():
                pass

    def items() -> None:
        for _ in range(ROUNDS):
            for _item in mapping.items():
                pass

    return {
        "(loop)": loop,
        "d[k]": get,
        "d.get(k)": get_method,
        "d[k] = v": overwrite,
        "insert": insert,
        "k in d": contains,
        "iterate": iterate,
        "values()": values,
        "items()": items,
    }


def measure(kind: str) -> list[dict[str, object]]:
    """One row per operation for one kind of key."""
    keys = KEYS[kind]
    plain = {key: f"value {key}" for key in keys}
    thermal = ThermalDict(plain)
    cases = {("dict", name): case for name, case in operations(plain, keys).items()}
    cases |= {("thermal", name): case for name, case in operations(thermal, keys).items()}
    seconds = interleaved(cases, REPEATS)
    scale = 1e9 / (ROUNDS * ENTRIES)
    rows = []
    for name in operations(plain, keys):
        if name == "(loop)":
            continue
        figures = {}
        for subject in ("dict", "thermal"):
            has_loop = "(" not in name[-3:] and name != "iterate"
            loop = median_and_spread(seconds[subject, "(loop)"])[0] if has_loop else 0.0
            median, spread = median_and_spread(seconds[subject, name])
            figures[subject] = ((median - loop) * scale, spread * scale)
        rows.append(
            {
                "keys": kind,
                "operation": name,
                "dict_ns": figures["dict"][0],
                "thermal_ns": figures["thermal"][0],
                "spread_ns": figures["thermal"][1],
                "ratio": figures["thermal"][0] / figures["dict"][0],
            }
        )
    return rows


def main() -> None:
    print(machine())
    rows = [row for kind in KEYS for row in measure(kind)]
    print(f"{'keys':8}{'operation':12}{'dict, ns':>10}{'thermal, ns':>13}{'+-':>6}{'ratio':>8}")
    for row in rows:
        print(
            f"{row['keys']:8}{row['operation']:12}{row['dict_ns']:>10.1f}{row['thermal_ns']:>13.1f}"
            f"{row['spread_ns']:>6.1f}{row['ratio']:>8.2f}"
        )
    save("hot_path", rows)


if __name__ == "__main__":
    main()
