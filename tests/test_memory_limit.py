"""SpectralMemory: the memory limit where nothing can leave, kept by all that makes a block take more."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import pytest

from spectral_alloc import Residency, SpectralMemory

pytestmark = pytest.mark.filterwarnings("ignore:disk full:RuntimeWarning")

LIMIT_BYTES = 2_000_000
#: So far above its limit a heap may be before it refuses: docs/spectral_memory.md.
MOST_BYTES = LIMIT_BYTES + LIMIT_BYTES // 4 + (1 << 20)
BLOCK_BYTES = 1_000_000


@pytest.fixture
def full() -> Iterator[SpectralMemory]:
    """A heap without a disk that random bytes have filled as far as malloc lets them."""
    with SpectralMemory(memory_limit=LIMIT_BYTES, disk_limit=0) as mem:
        fill(mem)
        yield mem
        assert mem.used_bytes == mem.budget.used_bytes, "room is held for a block that did not come"
        mem.check()


def fill(mem: SpectralMemory) -> list[int]:
    """Allocate blocks of random bytes until one, or its bytes, are refused; returns their addresses."""
    made: list[int] = []
    with suppress(MemoryError):
        while len(made) < 20:
            made.append(mem.malloc(BLOCK_BYTES))
            mem.write(made[-1], os.urandom(BLOCK_BYTES))
    assert len(made) < 20, "nothing was refused"
    return made


def test_realloc_is_refused_where_malloc_is(full: SpectralMemory) -> None:
    """A realloc for whose bytes there is no room is a MemoryError, and the block has its size and bytes still."""
    address = full.malloc(1000)
    full.write(address, bytes(range(250)) * 4)
    before = full.used_bytes
    for _ in range(20):
        with pytest.raises(MemoryError, match="no room"):
            full.realloc(address, BLOCK_BYTES)
    assert full.read(address) == bytes(range(250)) * 4
    assert full.used_bytes <= max(before, MOST_BYTES)
    assert full.resolve(full.realloc(address, 10)).size == 10


@pytest.mark.parametrize("axis", [1, 2])
def test_a_block_out_of_place_is_not_made_larger_than_room(full: SpectralMemory, axis: int) -> None:
    """A realloc of a block that is packed, or on axis 2 and whole, is refused too, and it reads as before."""
    address = full.malloc(20_000, axis=axis)
    full.write(address, bytes(range(250)) * 80)
    if axis == 1:
        assert full.demote(address) == Residency.WARM
    else:
        full.promote(address)
    with pytest.raises(MemoryError, match="no room"):
        full.realloc(address, BLOCK_BYTES)
    assert full.read(address) == bytes(range(250)) * 80


@pytest.mark.parametrize(
    "use",
    [
        lambda mem, address: mem.write(address, b"12345678"),
        lambda mem, address: mem.view(address),
        lambda mem, address: mem.array(address),
        lambda mem, address: mem.promote(address),
    ],
    ids=["write", "view", "array", "promote"],
)
def test_a_block_that_holds_nothing_yet_is_refused_bytes(
    full: SpectralMemory, use: Callable[[SpectralMemory, int], object]
) -> None:
    """What would give a calloc'd block its bytes is a MemoryError without room, and it holds nothing still."""
    address = full.calloc(BLOCK_BYTES)
    with pytest.raises(MemoryError, match="no room"):
        use(full, address)
    assert full.where(address) == Residency.REGROWN
    assert full.read(address, 0, 8) == bytes(8)
    assert full.resolve(address).pins == 0


def test_many_blocks_of_calloc_keep_to_the_limit() -> None:
    """Blocks that were made before any of them had bytes get them as long as there is room, and no longer."""
    with SpectralMemory(memory_limit=LIMIT_BYTES, disk_limit=0) as mem:
        blocks = [mem.calloc(BLOCK_BYTES) for _ in range(20)]
        written = 0
        for address in blocks:
            with suppress(MemoryError):
                mem.write(address, os.urandom(BLOCK_BYTES))
                written += 1
            assert mem.used_bytes <= MOST_BYTES
        assert 2 <= written <= 3
        mem.free(blocks[0])
        mem.write(blocks[-1], os.urandom(BLOCK_BYTES))  # there is room again
        mem.check()


def test_realloc_makes_room_where_others_can_leave() -> None:
    """With a disk a realloc lets others leave instead of being refused, for blocks in place and for those away."""
    generator = np.random.default_rng(1)
    with SpectralMemory(memory_limit=LIMIT_BYTES) as mem:
        data = {mem.malloc(20_000): generator.bytes(20_000) for _ in range(300)}
        for address, block in data.items():
            mem.write(address, block)
        for address in list(data)[::30]:
            mem.realloc(address, BLOCK_BYTES)
            mem.write(address, data[address], BLOCK_BYTES - 20_000)
            assert mem.used_bytes <= MOST_BYTES
        for address, block in data.items():
            assert mem.read(address, 0, 20_000) == block
        assert mem.used_bytes == mem.budget.used_bytes
        mem.check()


def test_a_limit_raised_meanwhile_keeps_no_room_for_a_block() -> None:
    """A limit that is raised while realloc looks for room is the one that counts, and no budget keeps the room."""

    class Raised(SpectralMemory):
        """A heap whose limit is raised in the middle of a relief."""

        def _relieve(self) -> None:
            if self.budget.limit_bytes == LIMIT_BYTES:
                self.memory_limit = 100 * LIMIT_BYTES

    with Raised(memory_limit=LIMIT_BYTES) as mem:
        address, old = mem.malloc(1000), mem.budget
        mem.realloc(address, LIMIT_BYTES - 1000)
        assert mem.budget is not old
        assert mem.used_bytes == mem.budget.used_bytes
        assert old.used_bytes == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_the_child_of_a_fork_holds_no_room_for_a_thread_it_lacks() -> None:
    """A fork while another thread's realloc looks for room leaves the child's budget with what is there alone."""
    status: list[int] = []

    class Forking(SpectralMemory):
        """A heap beside whose relief another thread forks."""

        def _relieve(self) -> None:
            if not status:
                thread = threading.Thread(target=fork)
                thread.start()
                thread.join()
            super()._relieve()

    def fork() -> None:
        child = os.fork()
        if child == 0:
            os._exit(0 if mem.used_bytes == mem.budget.used_bytes else 3)
        status.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    with Forking(memory_limit=LIMIT_BYTES) as mem:
        mem.realloc(mem.malloc(1000), LIMIT_BYTES - 1000)
        assert status == [0]
        assert mem.used_bytes == mem.budget.used_bytes
