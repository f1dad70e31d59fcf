"""2^64 values that take no memory: find one again, read across a petabyte, edit, restart, compare with a weak mixer."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy

from spectral_alloc import FastGMemContext, GenerativeSpace, SortedSpace
from spectral_alloc.limits import resident_bytes

PETABYTE_VALUES = 1 << 47  # of 8 bytes each
PRIMES = [p for p in range(65535, 65300, -1) if all(p % q for q in range(2, 256))][:16]


def weak_mixer(addresses: numpy.ndarray, seed: int) -> numpy.ndarray:
    """A scheme that claims to have no collisions: 16 residues of address XOR seed, each hashed, all XORed."""
    u = numpy.uint64
    word = numpy.zeros_like(addresses)
    for place, prime in enumerate(PRIMES):
        x = (addresses ^ u(seed)) % u(prime) ^ u(place << 32)
        for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            x = (x ^ x >> u(33)) * u(multiplier)
        word ^= x ^ x >> u(33)
    return word


def find_again(space: GenerativeSpace) -> None:
    address = 12_345_678_901_234_567_890
    bits = space.bits(address)
    print(f"space[{address}] is {space[address]!r}; its bits {bits:#018x} belong to {space.address_of(bits)}")
    ranks = SortedSpace(2**50)
    value = ranks[10**14]
    print(f"of 2^50 sorted numbers, number {10**14} is {value}; its rank is found again: {ranks.index(value)}")


def read_a_petabyte(space: GenerativeSpace) -> None:
    before, start = resident_bytes(), time.perf_counter()
    sample = space[0 : PETABYTE_VALUES : PETABYTE_VALUES // 1_000_000]
    window = space.window((3_000_000_000, 2_000_000_000), (256, 256))
    seconds = time.perf_counter() - start
    grown = (resident_bytes() - before) / 1e6
    print(f"{len(sample):,} values spread over 1 PiB (mean {sample.mean():.4f}) and a 256 x 256 window of the plane "
          f"(mean {window.mean():.4f}): {seconds * 1e3:.0f} ms, {grown:.0f} MB of memory")  # fmt: skip


def survive_a_restart(directory: str) -> None:
    log = Path(directory) / "edits.log"
    with FastGMemContext(1337).attach(log) as context:
        context.write(address=999, value=3.141592653589793)
        context.scatter(numpy.arange(100_000, dtype=numpy.uint64) << numpy.uint64(40), numpy.arange(100_000) / 7)
    code = (
        "import sys; from spectral_alloc import FastGMemContext;"
        "c = FastGMemContext(1337).attach(sys.argv[1]);"
        "print(c.edit_count, c.fetch(address=999), c.fetch(address=99_999 << 40) == 99_999 / 7)"
    )
    told = subprocess.run([sys.executable, "-c", code, log], capture_output=True, text=True, check=True).stdout.strip()
    print(f"another process finds in {os.path.getsize(log):,} bytes of log: {told}")


def compare_with_a_weak_mixer() -> None:
    addresses = numpy.arange(1 << 16, dtype=numpy.uint64)
    shared = len(numpy.intersect1d(weak_mixer(addresses, 1337), weak_mixer(addresses, 1338)))
    ours = [GenerativeSpace(seed).bits(addresses) for seed in (1337, 1338)]
    print(f"words that seeds 1337 and 1338 share, of {len(addresses):,}: weak mixer {shared:,} (one space "
          f"in another order), ours {len(numpy.intersect1d(*ours))}")  # fmt: skip
    steps = [int(numpy.prod(PRIMES[i : i + 3], dtype=object)) for i in range(0, 15, 3)] + [PRIMES[15]]
    corners = [sum(step for bit, step in enumerate(steps) if corner >> bit & 1) for corner in range(64)]
    cube = numpy.array(corners, dtype=numpy.uint64)
    zeros = [
        sum(int(numpy.bitwise_xor.reduce(mixer(cube + numpy.uint64(start)))) == 0 for start in range(100))
        for mixer in (lambda places: weak_mixer(places, 0), GenerativeSpace(0).bits)
    ]
    print(f"XOR over 64 chosen addresses is 0: weak mixer {zeros[0]} of 100 times, ours {zeros[1]} of 100")
    space, count = GenerativeSpace(1337), 1 << 24
    numbers = numpy.arange(count, dtype=numpy.uint64)
    found = space.address_of(space.bits(numbers))
    print("every step of our function can be undone, so no two of 2^64 addresses share a word; "
          f"checked for {count:,}: {bool((found == numbers).all())}")  # fmt: skip


def main() -> None:
    space = GenerativeSpace(seed=1337)
    find_again(space)
    read_a_petabyte(space)
    with tempfile.TemporaryDirectory() as directory:
        survive_a_restart(directory)
    compare_with_a_weak_mixer()
    print("(as float64, values keep 53 of the 64 bits, so equal floats do occur, as often as chance has it)")


if __name__ == "__main__":
    main()
