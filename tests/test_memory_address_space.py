"""SpectralMemory where addresses are scarce: under RLIMIT_AS a heap reaches its limit, and what is in the way goes."""

import subprocess
import sys

import pytest

PROGRAM = """
import faulthandler, random, resource, sys, warnings
from spectral_alloc import SpectralMemory

warnings.simplefilter("error")
faulthandler.dump_traceback_later(60, exit=True)
left, limit, size, count, axis = (int(text) for text in sys.argv[1:])
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
with SpectralMemory(memory_limit=limit) as mem:
    resource.setrlimit(resource.RLIMIT_AS, (used + left, used + left))
    source = random.Random(1)
    blocks = {}
    for number in range(count):
        address = mem.malloc(size, axis=axis)
        mem.write(address, source.randbytes(1000) * (size // 1000), size % 1000)
        blocks[address] = mem.read(address, size // 2, 100)
    assert mem.used_bytes <= limit
    for address, part in blocks.items():
        assert mem.read(address, size // 2, 100) == part
        mem.view(address).release()
    if size <= 1_000_000:  # a larger one does not lie beside its successor
        mem.realloc(address, size + 1000)
    assert mem.read(address, size // 2, 100) == part
    stats = mem.get_stats()
    print(stats.by_residency["hot"], mem.used_bytes)
    mem.check()
"""


def run(*numbers: int) -> list[int]:
    """What the program prints: blocks in place, and bytes in use."""
    command = [sys.executable, "-c", PROGRAM, *map(str, numbers)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert made.returncode == 0, made.stderr
    return [int(text) for text in made.stdout.split()]


def test_a_heap_reaches_its_limit_under_a_limit_of_addresses() -> None:
    """Half of the addresses that are left are used before anything leaves, in blocks of a megabyte."""
    hot, used_bytes = run(480 << 20, 200_000_000, 1_000_000, 300, 1)
    assert hot > 150
    assert used_bytes > 180_000_000


@pytest.mark.parametrize(("size", "axis"), [(1_000_000, 1), (10_000_000, 1), (20_000, 1)])
def test_full_arenas_make_way(size: int, axis: int) -> None:
    """With a limit above the addresses that there are, blocks leave from full arenas, and none is refused or lost."""
    run(300 << 20, 1_000_000_000, size, 400_000_000 // size, axis)
