"""Time of one nearest-band query: the C table against bisection, in one run.

    python benchmarks/bench_spectrum.py

Method: random t, uniform over the bands; the best of 7 repetitions for each way, the ways taking turns, so
that a slow moment of the machine hits none of them alone. Printed: ns per query, ratio to SortedList.bisect.
"""

import time
from collections.abc import Callable

import numpy

from spectral_alloc._spectrum import Quantizer
from spectral_alloc.spectrum import Spectrum, zeros

QUERY_COUNT = 50_000
REPETITIONS = 7


def ways(count: int, array: numpy.ndarray) -> dict[str, Callable[[], object]]:
    """Each way to answer all queries of the array."""
    spectrum = Spectrum(count)
    quantizer = Quantizer(zeros(count))
    queries = array.tolist()
    bands = spectrum.bands
    return {
        "SortedList.bisect": lambda: [bands.bisect(t) for t in queries],
        "Spectrum.quantize": lambda: [spectrum.quantize(t) for t in queries],
        "Quantizer.index": lambda: [quantizer.index(t) for t in queries],
        "numpy.searchsorted": lambda: numpy.searchsorted(zeros(count), array),
        "Spectrum.nearest": lambda: spectrum.nearest(array),
    }


def best_ns(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest time of each way, per query."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(REPETITIONS):
        for name, call in calls.items():
            began = time.perf_counter_ns()
            call()
            best[name] = min(best[name], (time.perf_counter_ns() - began) / QUERY_COUNT)
    return best


def main() -> None:
    print(f"{'bands':>6}  {'way':<20} {'ns/query':>9}  ratio")
    for count in (100, 1000, 10_000):
        array = numpy.random.default_rng(0).uniform(1.0, zeros(count)[-1], QUERY_COUNT)
        best = best_ns(ways(count, array))
        for name, ns in best.items():
            print(f"{count:>6}  {name:<20} {ns:>9.1f}  {ns / best['SortedList.bisect']:.3f}")


if __name__ == "__main__":
    main()
