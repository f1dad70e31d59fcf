"""Where blocks really lie: arenas share no page, no cache line and no lock; compaction keeps bytes, pins and budget."""

import ctypes
import itertools
import random

import pytest

from spectral_alloc import SpectralMemory
from spectral_alloc._heap import CLASS_COUNT
from spectral_alloc._heap_census import figures
from spectral_alloc.limits import resident_bytes

PAGE_BYTES = 4096
LINE_BYTES = 128  # two lines, since processors fetch pairs


def place_of(mem: SpectralMemory, address: int) -> int:
    """The real address of a block's first byte."""
    return int(mem._look(address)[7])


def filled(mem: SpectralMemory, count: int, seed: int) -> dict[int, bytes]:
    """Blocks of mixed sizes and channels with known bytes."""
    chance = random.Random(seed)
    blocks = {}
    for _ in range(count):
        size = min(int(chance.paretovariate(0.7) * 12), 100_000)
        address = mem.malloc(size, channel=chance.choice((2, 3, 5, 7, 11, 13, 17)))
        data = chance.randbytes(size)
        mem.write(address, data)
        blocks[address] = data
    return blocks


def test_blocks_of_different_classes_share_no_page_and_no_line() -> None:
    """From the real addresses of 5,000 blocks: no page and no pair of cache lines holds bytes of two classes."""
    with SpectralMemory() as mem:
        blocks = filled(mem, 5_000, 1)
        owner: dict[int, int] = {}
        for address, data in blocks.items():
            start = place_of(mem, address)
            for line in range(start // LINE_BYTES, (start + len(data) - 1) // LINE_BYTES + 1):
                assert owner.setdefault(line, address >> 37 & 15) == address >> 37 & 15
        pages: dict[int, int] = {}
        for line, number in owner.items():
            assert pages.setdefault(line * LINE_BYTES // PAGE_BYTES, number) == number
        assert set(pages.values()) == set(range(CLASS_COUNT))


def test_the_bytes_lie_where_the_heap_says() -> None:
    """Reading the process's memory at a block's place gives the block's bytes."""
    with SpectralMemory() as mem:
        for address, data in filled(mem, 200, 2).items():
            assert ctypes.string_at(place_of(mem, address), len(data)) == data


def test_arenas_have_ranges_locks_and_lists_of_their_own() -> None:
    """The mapped ranges are disjoint; header pages, with lock and free lists, are pages apart from each other and from
    all ranges."""
    with SpectralMemory() as mem:
        filled(mem, 500, 3)
        counted = [figures(mem, number) for number in range(CLASS_COUNT)]
        areas = [(each["range"], each["range"] + each["range_bytes"]) for each in counted]
        areas += [(each["header"], each["header"] + PAGE_BYTES) for each in counted]
        for (start, end), (other_start, other_end) in itertools.combinations(areas, 2):
            assert end <= other_start or other_end <= start
        assert all(start % PAGE_BYTES == 0 for start, _ in areas)


def test_a_block_lies_in_the_range_of_its_class() -> None:
    """The class bits of an address name the range that holds the bytes."""
    with SpectralMemory() as mem:
        for address in filled(mem, 500, 4):
            home = figures(mem, address >> 37 & 15)
            assert home["range"] <= place_of(mem, address) < home["range"] + home["range_bytes"]


def test_the_same_class_shares_pages() -> None:
    """Small blocks of one class do lie on common pages: separation is by class, not by block."""
    with SpectralMemory() as mem:
        places = {place_of(mem, mem.malloc(64, channel=2)) // PAGE_BYTES for _ in range(50)}
        assert len(places) < 5


@pytest.mark.parametrize("seed", range(3))
def test_compaction_keeps_every_byte_and_gives_memory_back(seed: int) -> None:
    """After a random nine of ten blocks are freed, compaction brings resident bytes near live ones; nothing is lost."""
    with SpectralMemory() as mem:
        chance = random.Random(seed)
        blocks = {}
        for _ in range(40_000):
            size = chance.randrange(64, 257)
            address = mem.malloc(size)
            data = chance.randbytes(size)
            mem.write(address, data)
            blocks[address] = data
        for address in [address for address in blocks if chance.random() < 0.9]:
            mem.free(address)
            del blocks[address]
        live = sum(map(len, blocks.values()))
        assert mem.get_stats().bytes_resident > 5 * live
        assert mem.compact() > 0
        mem.check()
        stats = mem.get_stats()
        assert stats.bytes_requested == live
        assert stats.bytes_resident < 3.2 * live
        for address, data in blocks.items():
            assert mem.read(address) == data


def test_pinned_blocks_never_move() -> None:
    """Compaction passes blocks with a view, whose bytes stay at their real address; afterwards they move as others
    do."""
    with SpectralMemory() as mem:
        blocks = [mem.malloc(100, channel=2) for _ in range(20_000)]
        kept = blocks[::50]
        views = {address: mem.view(address) for address in kept[::2]}
        for address in set(blocks) - set(kept):
            mem.free(address)
        places = {address: place_of(mem, address) for address in kept}
        mem.compact()
        mem.check()
        assert all(place_of(mem, address) == places[address] for address in views)
        assert any(place_of(mem, address) != places[address] for address in set(kept) - set(views))
        views.clear()
        before = mem.get_stats().bytes_resident
        mem.compact()
        mem.check()
        assert mem.get_stats().bytes_resident < before


def test_a_round_that_is_given_up_leaves_a_sound_heap() -> None:
    """Steps of one entry each, with blocks freed, made and viewed in between: all invariants hold after each."""
    with SpectralMemory() as mem:
        chance = random.Random(5)
        blocks = filled(mem, 3_000, 6)
        for address in [address for address in blocks if chance.random() < 0.8]:
            mem.free(address)
            del blocks[address]
        positions = [0] * CLASS_COUNT
        for step in range(600):
            number = step % CLASS_COUNT
            _, positions[number] = mem._compact_step(number, 300, positions[number])
            if step % 7 == 0 and blocks:
                address = chance.choice(list(blocks))
                mem.free(address)
                del blocks[address]
            if step % 5 == 0:
                address = mem.malloc(chance.randrange(1, 5_000))
                blocks[address] = mem.read(address)
            if step % 20 == 0:
                mem.check()
        for address, data in blocks.items():
            assert mem.read(address) == data


def test_resident_memory_of_the_process_follows() -> None:
    """What the heap says it gave back, the system got back: RSS falls with it."""
    with SpectralMemory() as mem:
        blocks = [mem.malloc(1_000) for _ in range(60_000)]
        for address in blocks:
            mem.write(address, b"x" * 1_000)
        full = resident_bytes()
        counted = mem.get_stats().bytes_resident
        for address in blocks:
            mem.free(address)
        mem.compact()
        fallen = full - resident_bytes()
        assert mem.get_stats().bytes_resident < counted / 20
        assert fallen > 0.8 * counted
