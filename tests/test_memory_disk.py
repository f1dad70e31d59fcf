"""The cold side of a SpectralMemory: dead files are reclaimed, and what is cheaper, disk or codec, is measured."""

import os
import random
import warnings

import numpy as np
import pytest
from faults import FaultyFileSystem

from spectral_alloc import SMEM_COLD, Residency, SpectralMemory
from spectral_alloc.disk_costs import RAW_FROM_BYTES, Cost, DiskCosts
from spectral_alloc.memory_disk import DEAD_BYTES_MIN, is_whole

BLOCK_BYTES = 100_000


def cold_blocks(mem: SpectralMemory, count: int) -> dict[int, bytes]:
    """So many blocks on disk."""
    blocks = {}
    for number in range(count):
        address = mem.malloc(BLOCK_BYTES)
        blocks[address] = random.Random(number).randbytes(BLOCK_BYTES)
        mem.write(address, blocks[address])
        mem.demote(address)
        assert mem.demote(address) is Residency.COLD
    return blocks


def keep_every(mem: SpectralMemory, blocks: dict[int, bytes], step: int) -> None:
    """Free all blocks but one in so many."""
    for number, address in enumerate(list(blocks)):
        if number % step:
            mem.free(address)
            del blocks[address]


@pytest.mark.parametrize("redundancy", [0, 1, 2])
def test_files_that_are_mostly_dead_are_written_anew(redundancy: int) -> None:
    """After a random half and more is freed, compact() leaves at most a segment of dead bytes; all blocks read back."""
    with SpectralMemory(memory_limit="30 MB", redundancy=redundancy) as mem:
        blocks = cold_blocks(mem, 300)
        keep_every(mem, blocks, 5)
        before = mem.get_stats()
        assert before.disk_dead_bytes > 10_000_000
        mem.compact()
        after = mem.get_stats()
        assert after.disk_dead_bytes < before.disk_dead_bytes / 2
        assert after.disk_live_bytes + after.disk_dead_bytes < (before.disk_live_bytes + before.disk_dead_bytes) * 0.7
        assert all(mem.read(address) == data for address, data in blocks.items())
        mem.check()


def test_dead_files_go_under_pressure_too() -> None:
    """Without a call of compact(), overwriting cold blocks again and again keeps the disk in bounds."""
    with SpectralMemory(memory_limit="2 MB") as mem:
        blocks = {mem.malloc(BLOCK_BYTES): b"" for _ in range(100)}
        for turn in range(15):
            for number, address in enumerate(blocks):
                if turn == 0 or number % 3:
                    blocks[address] = random.Random(turn * 1000 + number).randbytes(BLOCK_BYTES)
                    mem.write(address, blocks[address])
        stats = mem.get_stats()
        assert stats.disk_dead_bytes < DEAD_BYTES_MIN + stats.disk_live_bytes + (8 << 20)
        assert all(mem.read(address) == data for address, data in blocks.items())
        mem.check()


def test_a_disk_that_refuses_a_compaction_loses_nothing() -> None:
    """A write that fails while frames are moved is noted once; every block is read from its old place."""
    files = FaultyFileSystem()
    with SpectralMemory(memory_limit="30 MB", file_system=files) as mem:
        blocks = cold_blocks(mem, 200)
        keep_every(mem, blocks, 4)
        files.fail("write_at", error=OSError(5, "bad sector"))
        with pytest.warns(RuntimeWarning, match="disk failed"):
            mem.compact()
        files.heal()
        assert mem.get_stats().events == {"disk failed": 1}
        assert all(mem.read(address) == data for address, data in blocks.items())
        mem.compact()
        assert all(mem.read(address) == data for address, data in blocks.items())
        mem.check()


def test_a_damaged_frame_keeps_its_place_in_a_compaction() -> None:
    """A frame that cannot be read is not moved, and the others are."""
    with SpectralMemory(memory_limit="30 MB") as mem:
        blocks = cold_blocks(mem, 200)
        keep_every(mem, blocks, 4)
        broken = next(iter(blocks))
        directory = mem._tiers.store.directory
        assert directory is not None
        size = os.path.getsize(os.path.join(directory, "segment-000000"))
        os.truncate(os.path.join(directory, "segment-000000"), 50_000)
        assert size > 50_000
        mem.compact()
        lost = [address for address in blocks if not is_whole(mem._tiers, address)]
        assert broken in lost
        for address in set(blocks) - set(lost):
            assert mem.read(address) == blocks[address]


def test_large_blocks_go_the_cheaper_way() -> None:
    """Blocks go to disk as they are while that costs less than packing them, with a trial of the other way at times."""
    costs = DiskCosts()
    assert not costs.disk_is_next()
    costs.add(Cost.ENCODED, 1 << 20, 1e-2)
    assert costs.disk_is_next()
    costs.add(Cost.WRITTEN, 1 << 20, 1e-3)
    taken = [costs.disk_is_next() for _ in range(200)]
    assert taken.count(False) == 3
    for _ in range(60):
        costs.add(Cost.READ, 1 << 20, 1.0)
    assert [costs.disk_is_next() for _ in range(200)].count(True) <= 4


def test_a_block_that_a_formula_gives_is_not_written() -> None:
    """Where the disk is cheaper than packing, a ramp still leaves as its formula, and noise goes to disk."""
    costs = DiskCosts()
    costs.add(Cost.ENCODED, 1 << 20, 1e-2)
    costs.add(Cost.WRITTEN, 1 << 20, 1e-3)
    assert not costs.takes(np.arange(RAW_FROM_BYTES, dtype="i8").tobytes())
    assert costs.takes(random.Random(1).randbytes(RAW_FROM_BYTES))
    assert not costs.takes(random.Random(1).randbytes(RAW_FROM_BYTES - 1))


def test_one_stopped_sample_does_not_decide() -> None:
    """A sample that took a thousand times as long moves the average by less than half of it."""
    costs = DiskCosts()
    for cost in Cost:
        costs.add(cost, 1 << 20, 1e-3 if cost is not Cost.ENCODED else 2e-3)
    costs.add(Cost.READ, 1 << 20, 1.0)
    assert [costs.disk_is_next() for _ in range(10)].count(True) >= 9


def test_a_disk_limit_means_packed_frames() -> None:
    """With a disk limit bytes on disk count, so blocks that pack are packed."""
    word = bytes(range(256)) * 400
    with SpectralMemory(memory_limit="1 MB", disk_limit="3 MB") as mem:
        blocks = [mem.malloc(len(word)) for _ in range(200)]
        for address in blocks:
            mem.write(address, word)
        assert mem.get_stats().events == {}
        assert all(mem.read(address) == word for address in blocks)


def test_pages_of_freed_blocks_are_used_again_before_the_system_is_asked() -> None:
    """Under pressure the heap stays within its limit, and most of the limit holds blocks."""
    with SpectralMemory(memory_limit="8 MB") as mem:
        blocks = {mem.malloc(60_000): number for number in range(400)}
        for turn in range(3):
            for address, number in blocks.items():
                mem.write(address, random.Random(number + turn).randbytes(60_000))
                assert mem.used_bytes <= 8_000_000
        stats = mem.get_stats()
        assert stats.bytes_by_residency["hot"] + stats.bytes_by_residency["warm"] > 5_000_000
    assert RAW_FROM_BYTES <= 60_000


def test_a_block_that_moves_during_a_scrub_is_not_lost() -> None:
    """A frame that another thread has just taken elsewhere is looked for again, and is whole."""

    class Moved(SpectralMemory):
        """A heap in which a block comes back and leaves again between the look at it and the reading of it."""

        __slots__ = ("moves",)
        moves: int

        def _copy_out(self, address: int, state: int, length: int) -> bytes | None:
            if self.moves > 0:
                self.moves -= 1
                return None
            return super()._copy_out(address, state, length)

    with Moved() as mem:
        mem.moves = 0
        address = mem.malloc(10_000)
        mem.write(address, bytes(range(250)) * 40)
        assert mem.demote(address) is Residency.WARM
        mem.moves = 2
        assert mem.scrub().lost == ()
        assert mem.moves == 0


def test_a_disk_limit_below_a_batch_is_used() -> None:
    """Frames go to disk one by one where a batch of them is larger than the disk limit."""
    with SpectralMemory(disk_limit="200 kB") as mem, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is full in the end
        for number in range(40):
            mem.write(mem.malloc(10_000, SMEM_COLD), random.Random(number).randbytes(10_000))
        mem.settle()
        assert mem.get_stats().disk_live_bytes > 100_000
        mem.check()


class Interrupted(SpectralMemory):
    """A heap whose relief is interrupted."""

    __slots__ = ()

    def _relieve(self) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_malloc_leaves_no_block() -> None:
    """Ctrl-C in the relief of a malloc: nobody has the address, so there is no block."""
    with Interrupted(memory_limit="1 MB") as mem:
        made: list[int] = []
        with pytest.raises(KeyboardInterrupt):
            made.extend(mem.malloc(20_000) for _ in range(100))
        assert mem.get_stats().blocks == len(made) > 0
