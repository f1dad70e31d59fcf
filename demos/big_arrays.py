"""More numpy arrays than memory: 600 MB of float64 under a limit of 100 MB, sums checked."""

import resource
import time

import numpy as np

from spectral_alloc import ThermalDict

ARRAYS, SIDE = 300, 500  # 300 arrays of 2 MB


def field(number: int) -> np.ndarray:
    """A smooth field with a little noise, as simulations have: it compresses, but not to nothing."""
    x = np.linspace(0, 4 * np.pi, SIDE)
    noise = np.random.default_rng(number).integers(0, 1 << 10, (SIDE, SIDE)) * 2.0**-30
    return np.round(np.outer(np.sin(x + number), np.cos(x)), 6) + noise


def main() -> None:
    with ThermalDict.open(memory_limit="100 MB") as fields:
        start = time.perf_counter()
        sums = []
        for number in range(ARRAYS):
            fields[number] = field(number)
            sums.append(fields[number].sum())
        stored = time.perf_counter()
        for number in range(ARRAYS):
            fields[number][0, 0] += 1.0  # an edit in place
        wrong = sum(not np.isclose(fields[number].sum(), sums[number] + 1.0) for number in range(ARRAYS))
        read = time.perf_counter()
        print(fields.stats())
        print(f"{ARRAYS * SIDE * SIDE * 8 / 1e6:,.0f} MB of arrays stored in {stored - start:.1f} s, ", end="")
        print(f"edited and summed in {read - stored:.1f} s, wrong sums: {wrong}")
        print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6:,.0f} MB")
        assert wrong == 0


if __name__ == "__main__":
    main()
