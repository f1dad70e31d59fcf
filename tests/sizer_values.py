"""Makers of many values, and what they take by three measures: allocator, walk, estimate."""

import gc
import tracemalloc

import closure_kinds as kinds

from spectral_alloc import _closure
from spectral_alloc.closure import examine


def small_record(number):
    return {"id": number + 1000, "name": f"user {number}", "score": number / 7}


def record(number):
    return {
        f"field {place}": f"value {place} of {number}" if place % 2 else number * 1000 + place
        for place in range(20)
    }


MAKERS = {
    "records": record,
    "small records": small_record,
    "instances": lambda number: kinds.filled(
        kinds.Plain(), number=number + 1000, text=f"text {number}", score=number / 7
    ),
    "slots": lambda number: kinds.filled(kinds.Slotted(), first=number + 1000, second=f"text {number}"),
    "lists": lambda number: [number + place for place in range(1000, 1020)],
    "texts": lambda number: f"a text of some length, and its number is {number}",
    "tuples": lambda number: (number + 1000, f"text {number}", (number / 7, None)),
    "numbers": lambda number: number / 7,
    "nested": lambda number: {
        "rows": [small_record(number + row) for row in range(5)],
        "tags": [f"tag {number}", "x"],
    },
    "sets": lambda number: {number + place for place in range(1000, 1006)},
}


def measure(make, count):
    """(bytes that tracemalloc saw, sum of exact bytes, sum of estimates) of `count` values."""
    gc.collect()
    values = [None] * count
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(count):
        values[number] = make(number)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    exact = sum(examine(values, number).bytes for number in range(count))
    estimated = 0
    for number in range(count):
        estimated += _closure.size_estimate(values[number])
    return taken, exact, estimated


def resident_bytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def measure_resident(make, count):
    """(growth of the resident set, sum of estimates) of `count` values."""
    values = [None] * count
    make(0)
    gc.collect()
    before = resident_bytes()
    for number in range(count):
        values[number] = make(number)
    taken = resident_bytes() - before
    return taken, sum(map(_closure.size_estimate, values))
