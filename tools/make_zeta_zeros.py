"""Compute the table of the first zeros of the zeta function with mpmath, correctly rounded and certified.

    python tools/make_zeta_zeros.py                    # 10,000 zeros, all cores, to the package's data
    python tools/make_zeta_zeros.py --count 100 --output zeros.f64 --workers 1

The table holds gamma_1 < gamma_2 < ... (zeros 1/2 + i gamma) as little-endian float64. How each is made:

1. Start values: a float Riemann-Siegel sum is scanned Gram block by Gram block, the step halved until a
   block of length L shows L sign changes. Nothing is believed here; a wrong start value ends in an error.
2. Refinement: secant steps on mpmath.siegelz at PRECISION_BITS.
3. Certificate of rounding: siegelz has opposite signs at the two points halfway to the neighbouring
   floats. So a zero lies strictly between them, and the float is its correct rounding.
4. Certificate of completeness: these intervals are disjoint, so a table of n values shows at least n zeros
   below T; mpmath.nzeros(T) == n says there are no others. It is asked at the end of every chunk.

Chunks of CHUNK_COUNT values are written to --work-directory as they are finished, each under its final name
only when complete, so a run that was killed continues where it stopped. gmpy2 makes mpmath faster, but is
not needed.
"""

import argparse
import array
import hashlib
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import mpmath

DEFAULT_COUNT = 10_000
DEFAULT_SHA256 = "c54a7329ae32f0a8167d8c12b9141ac5a1dc1a40909e76fa513ae7a5e51e2aea"
DEFAULT_OUTPUT = Path(__file__).resolve().parent.parent / "spectral_alloc" / "data" / "zeta_zeros_10000.f64"

CHUNK_COUNT = 100
PRECISION_BITS = 100
# A sign is believed only where |Z| is this far above the error of siegelz, which is near 2^-PRECISION_BITS.
SIGN_MARGIN = mpmath.ldexp(1, -70)
REFINE_STEPS_MAX = 40
HALVINGS_MAX = 12


class Task(NamedTuple):
    """One chunk: start values of its zeros, of which ``first_index`` is the first, and of the next one."""

    path: Path
    first_index: int
    starts: list[float]
    next_start: float


def theta(t: float) -> float:
    """Riemann-Siegel phase by its asymptotic series, good to 1e-5 from t = 9 on."""
    return t / 2 * math.log(t / math.tau) - t / 2 - math.pi / 8 + 1 / (48 * t) + 7 / (5760 * t**3)


def approximate_z(t: float) -> float:
    """Riemann-Siegel Z(t) in float: the main sum and the first correction."""
    ratio = math.sqrt(t / math.tau)
    terms = int(ratio)
    phase = theta(t)
    main = 2 * sum(math.cos(phase - t * math.log(k)) / math.sqrt(k) for k in range(1, terms + 1))
    part = ratio - terms
    below = math.cos(math.tau * part)
    if abs(below) < 1e-6:  # the quotient is 0/0 at part = 1/4 and 3/4; it is smooth, so a neighbour serves
        part += 1e-5
        below = math.cos(math.tau * part)
    correction = math.cos(math.tau * (part * part - part - 1 / 16)) / below / math.sqrt(ratio)
    return main + (correction if terms % 2 else -correction)


def gram_point(n: int) -> float:
    """The point where theta is n * pi, by Newton's method from the right, where theta is convex."""
    t = max(18.0, 2 * math.pi * (n + 2))
    while True:
        step = (theta(t) - n * math.pi) / (math.log(t / math.tau) / 2)
        t -= step
        if abs(step) < 1e-9 * t:
            return t


def find_root(low: float, high: float) -> float:
    """Halve a sign change of approximate_z down to 1e-10 of its height."""
    low_is_positive = approximate_z(low) > 0
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        if (approximate_z(middle) > 0) == low_is_positive:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def roots_of_block(points: list[float]) -> list[float]:
    """Start values for the zeros of one Gram block, given by its Gram points; one for each interval."""
    interval_count = len(points) - 1
    for _ in range(HALVINGS_MAX):
        values = [approximate_z(t) for t in points]
        steps = zip(pairwise(points), pairwise(values), strict=True)
        changes = [interval for interval, (left, right) in steps if (left > 0) != (right > 0)]
        if len(changes) >= interval_count:
            return [find_root(low, high) for low, high in changes]
        points = [*(t for low, high in pairwise(points) for t in (low, (low + high) / 2)), points[-1]]
    raise ArithmeticError(f"block [{points[0]}, {points[-1]}] has too few sign changes; raise HALVINGS_MAX")


def start_values() -> Iterator[float]:
    """All zeros in order, approximately: Gram block after Gram block from the one of the first zero on."""
    n = -1
    block = [gram_point(n)]
    while True:
        n += 1
        block.append(gram_point(n))
        if (approximate_z(block[-1]) > 0) == (n % 2 == 0):
            yield from roots_of_block(block)
            block = block[-1:]


def half_way(x: float, direction: float) -> mpmath.mpf:
    """The exact midpoint between x and its neighbouring float: beyond it x is not the nearest."""
    return (mpmath.mpf(x) + mpmath.mpf(math.nextafter(x, direction))) / 2


def signed_z(t: mpmath.mpf) -> mpmath.mpf:
    """Z(t), refused where its sign is not beyond doubt."""
    z = mpmath.siegelz(t)
    if abs(z) < SIGN_MARGIN:
        raise ArithmeticError(f"Z({t}) = {z} is too close to 0 to have a certain sign; raise PRECISION_BITS")
    return z


def certified_zero(start: float) -> float:
    """The correctly rounded zero near a start value: Z changes sign between its rounding boundaries."""
    spread = 1e-5
    slope = (approximate_z(start + spread) - approximate_z(start - spread)) / (2 * spread)
    point = mpmath.mpf(start)
    value = mpmath.siegelz(point)
    step = -value / mpmath.mpf(slope)
    previous_step = mpmath.mpf(1)
    for _ in range(REFINE_STEPS_MAX):
        target = point + step
        candidate = float(target)
        # A secant's next error is about the product of its last two steps; well below an ulp, the float is
        # probably right and worth the two evaluations of the certificate.
        if abs(step * previous_step) * 4 < math.ulp(candidate) / 8:
            low, high = half_way(candidate, -math.inf), half_way(candidate, math.inf)
            z_low, z_high = signed_z(low), signed_z(high)
            if (z_low > 0) != (z_high > 0):
                return candidate
            target, target_value = (low, z_low) if abs(z_low) < abs(z_high) else (high, z_high)
        else:
            target_value = mpmath.siegelz(target)
        if target == point:
            break
        slope = (target_value - value) / (target - point)
        previous_step = target - point
        point, value = target, target_value
        step = -value / slope
    raise ArithmeticError(f"no certified zero near {start} within {REFINE_STEPS_MAX} steps")


def make_chunk(task: Task) -> int:
    """Compute, certify and store one chunk; returns the index of its last zero."""
    with mpmath.workprec(PRECISION_BITS):
        zeros = [certified_zero(start) for start in task.starts]
    if any(a >= b for a, b in pairwise(zeros)):
        raise ArithmeticError(f"zeros {task.first_index}.. are not strictly increasing: {zeros}")
    last_index = task.first_index + len(zeros) - 1
    counted = int(mpmath.nzeros((zeros[-1] + task.next_start) / 2))
    if counted != last_index:
        raise ArithmeticError(f"after zero {last_index} at {zeros[-1]} mpmath counts {counted} zeros")
    write_table(task.path, zeros)
    return last_index


def write_table(path: Path, zeros: list[float]) -> None:
    """Write little-endian float64; the file appears under its name only when it is complete."""
    table = array.array("d", zeros)
    if sys.byteorder == "big":
        table.byteswap()
    partial = path.with_suffix(".partial")
    partial.write_bytes(table.tobytes())
    partial.replace(path)


def read_table(path: Path) -> list[float]:
    table = array.array("d", path.read_bytes())
    if sys.byteorder == "big":
        table.byteswap()
    return table.tolist()


def plan_chunks(count: int, work_directory: Path) -> list[Task]:
    """Cut the first ``count`` zeros in chunks; the same count gives the same files."""
    values = start_values()
    starts = [next(values) for _ in range(count + 1)]
    return [
        Task(
            work_directory / f"zeros_{first + 1:07d}_{min(first + CHUNK_COUNT, count):07d}.f64",
            first + 1,
            starts[first : min(first + CHUNK_COUNT, count)],
            starts[min(first + CHUNK_COUNT, count)],
        )
        for first in range(0, count, CHUNK_COUNT)
    ]


def run_tasks(tasks: list[Task], worker_count: int) -> None:
    """Work through the chunks that have no file yet, reporting each."""
    pending = [task for task in tasks if not task.path.exists()]
    found_count = len(tasks) - len(pending)
    print(f"{len(tasks)} chunks, {found_count} already there; {worker_count} workers", flush=True)
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(worker_count) as pool:
        # The high zeros cost most, so they go first and no worker is left with a long one at the end.
        for done, last_index in enumerate(pool.imap_unordered(make_chunk, pending[::-1]), 1):
            seconds = time.monotonic() - began
            print(f"{seconds:8.1f} s  {done}/{len(pending)}  up to zero {last_index} certified", flush=True)


def join_chunks(tasks: list[Task], output: Path) -> str:
    """Join the chunks to the table, checking length and order; returns the sha256."""
    zeros: list[float] = []
    for task in tasks:
        chunk = read_table(task.path)
        if len(chunk) != len(task.starts):
            raise ArithmeticError(f"{task.path} holds {len(chunk)} zeros, not {len(task.starts)}; delete it")
        zeros += chunk
    if any(a >= b for a, b in pairwise(zeros)):
        raise ArithmeticError("the joined table is not strictly increasing")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_table(output, zeros)
    return hashlib.sha256(output.read_bytes()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description="Compute the table of zeta zeros, certified, with mpmath.")
    parser.add_argument("--count", type=int, default=DEFAULT_COUNT)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work-directory", type=Path, default=Path("build/zeta_zeros"))
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    options = parser.parse_args()
    if options.count < 1 or options.workers < 1:
        parser.error(f"--count and --workers must be at least 1, got {options.count} and {options.workers}")
    options.work_directory.mkdir(parents=True, exist_ok=True)
    tasks = plan_chunks(options.count, options.work_directory)
    run_tasks(tasks, options.workers)
    digest = join_chunks(tasks, options.output)
    print(f"{options.output}: {options.count} zeros, sha256 {digest}")
    if options.count == DEFAULT_COUNT and digest != DEFAULT_SHA256:
        print(f"FAILED: the sha256 should be {DEFAULT_SHA256}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
