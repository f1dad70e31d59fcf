"""Ten times the memory limit in numpy arrays: each is a block with an address, edited in place, checked at the end.

    python demos/spectral_memory.py
"""

import numpy as np

from spectral_alloc import SpectralMemory

LIMIT = "16 MB"
ARRAYS, ITEMS = 2_500, 16_000  # 64 kB each, 160 MB together


def main() -> None:
    rng = np.random.default_rng(1)
    with SpectralMemory(memory_limit=LIMIT) as mem:
        blocks = []
        for number in range(ARRAYS):
            address = mem.malloc(ITEMS * 4, t_virtual=60.0)
            mem.array(address, np.int32)[:] = np.arange(number, number + ITEMS)
            blocks.append(address)
        edits = np.zeros(ARRAYS, int)
        for number in np.minimum(rng.zipf(1.2, 20_000) - 1, ARRAYS - 1):
            mem.array(blocks[number], np.int32)[0] += 1
            edits[number] += 1
        print(mem.get_stats())
        for number, address in enumerate(blocks):
            numbers = mem.array(address, np.int32)
            assert numbers[0] == number + edits[number]
            assert numbers[-1] == number + ITEMS - 1
        print(f"{ARRAYS:,} arrays, every edit found; the limit is {LIMIT}, in use are {mem.used_bytes / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
