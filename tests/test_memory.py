"""SpectralMemory: what malloc, access, free, views, arrays and errors do, the prototype's snippets, and where blocks
lie."""

import copy
import gc
import pickle
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from spectral_alloc import (
    SMEM_AUTO,
    SMEM_COLD,
    SMEM_HOT,
    SMEM_WARM,
    ClosedError,
    HierarchicalSpectralMemory,
    Residency,
    SpectralMemory,
    StaleAddressError,
    UnknownAddressError,
)
from spectral_alloc.lattice import PRIMES, interleaving


@pytest.fixture
def mem() -> Iterator[SpectralMemory]:
    """A heap without pressure."""
    with SpectralMemory() as made:
        yield made
        made.check()


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress."""
    return np.random.default_rng(seed).bytes(size)


# the prototype's snippets ---------------------------------------------------------------------------------------------


def test_the_quickstart_keeps_its_promise() -> None:
    """A block at 180.0 is in the band of 179.916 with mismatch 0.084, after 1,000 accesses and a free as well."""
    mem = HierarchicalSpectralMemory(n_zeros=100)
    address = mem.malloc(size=1024, temperature=SMEM_HOT, t_virtual=180.0)
    assert round(mem.resolve(address).gamma, 3) == 179.916
    for _ in range(1_000):
        assert mem.access(address) is Residency.HOT
    assert mem.get_stats()["stm_blocks"] == 1
    mem.free(address)
    stats = mem.get_stats()
    assert round(stats["mean_mismatch"], 3) == 0.084
    assert stats["migrations"] >= 1
    assert stats.blocks == stats.bytes_requested == 0
    mem.close()


def test_three_blocks_rest_in_three_tiers() -> None:
    """A hot, a warm and a cold block lie in memory, in compressed memory and on disk, and all read back."""
    with SpectralMemory() as mem:
        blocks = {}
        for temperature, t in ((SMEM_HOT, 180.0), (SMEM_WARM, 60.0), (SMEM_COLD, 20.0)):
            address = mem.malloc(4096, temperature, t)
            blocks[temperature] = address
        stats = mem.get_stats()
        assert (stats.stm_blocks, stats.ltm_blocks) == (1, 1)
        for address in blocks.values():
            mem.write(address, bytes(range(256)) * 16)
        assert mem.settle() == 3
        found = [mem.where(address) for address in blocks.values()]
        assert found == [Residency.HOT, Residency.WARM, Residency.COLD]
        assert [mem.read(address) for address in blocks.values()] == [bytes(range(256)) * 16] * 3
        mem.check()


# addresses ------------------------------------------------------------------------------------------------------------


def test_an_address_says_where_it_was_made(mem: SpectralMemory) -> None:
    """Zero index, class, channel, axis and serial lie in their bits, and resolve gives them back."""
    address = mem.malloc(77, t_virtual=180.0, channel=13, axis=2)
    info = mem.resolve(address)
    assert (info.zero_index, info.channel, info.axis, info.local, info.size) == (69, 13, 2, 1, 77)
    assert address == 69 << 41 | info.class_ << 37 | PRIMES.index(13) << 34 | 2 << 32 | 1


def test_channels_visit_the_arenas_of_their_class() -> None:
    """Successive blocks of a channel go round the arenas that the lattice says, from the seed's on."""
    for seed in (0, 5, -1):
        with SpectralMemory(seed=seed) as mem:
            for channel in PRIMES:
                visited = [mem.resolve(mem.malloc(8, channel=channel)).class_ for _ in range(24)]
                cycle = interleaving(channel, seed % 12)
                assert visited == list(cycle) * (24 // len(cycle))


def test_an_address_is_never_zero_and_never_repeated(mem: SpectralMemory) -> None:
    """Address 0 is null, and a freed address does not come again."""
    seen = set()
    for _ in range(2_000):
        address = mem.malloc(16)
        assert address
        assert address not in seen
        seen.add(address)
        mem.free(address)
    with pytest.raises(UnknownAddressError):
        mem.read(0)


def test_few_bands_have_no_short_term_regime() -> None:
    """Twenty zeros end at 77.1, so no block of theirs is made above 100: the statistics say so instead of
    pretending."""
    with SpectralMemory(n_zeros=20) as mem:
        mem.malloc(8, t_virtual=180.0)
        assert mem.get_stats().stm_blocks == 0
        assert round(mem.get_stats().mean_mismatch, 1) == 102.9


# errors ---------------------------------------------------------------------------------------------------------------


def test_a_freed_address_is_stale(mem: SpectralMemory) -> None:
    """Every use of a freed address says that it was freed, also a second free; nothing else is damaged."""
    kept, address = mem.malloc(100), mem.malloc(100)
    mem.write(kept, b"kept")
    mem.free(address)
    uses = (mem.free, mem.access, mem.view, mem.read, mem.resolve, mem.array, mem.where, mem.promote, mem.demote)
    for use in uses:
        with pytest.raises(StaleAddressError, match=f"{address:#018x}"):
            use(address)
    with pytest.raises(StaleAddressError):
        mem.write(address, b"x")
    with pytest.raises(StaleAddressError):
        mem.realloc(address, 5)
    assert mem.read(kept, 0, 4) == b"kept"


def test_an_address_that_never_was_is_unknown(mem: SpectralMemory) -> None:
    """Wrong bits anywhere, negative and huge numbers are unknown addresses; what is no int is a TypeError."""
    address = mem.malloc(100)
    wrong = [address ^ 1 << bit for bit in range(64)]
    for number in [*wrong, 0, -1, 1 << 64, 1 << 200, 13 << 37 | 1]:
        with pytest.raises(UnknownAddressError):
            mem.access(number)
        with pytest.raises(UnknownAddressError):
            mem.free(number)
    for thing in ("address", 1.5, None):
        with pytest.raises(TypeError):
            mem.access(thing)  # type: ignore[arg-type]
    assert mem.access(address) is Residency.HOT


def test_a_block_beyond_the_limit_is_refused() -> None:
    """A block that can never fit the memory limit is a MemoryError at once."""
    with SpectralMemory(memory_limit="1 MB") as mem:
        with pytest.raises(MemoryError, match="1000001"):
            mem.malloc(1_000_001)
        with pytest.raises(MemoryError):
            mem.realloc(mem.malloc(10), 2_000_000)


def test_bytes_out_of_range_are_refused(mem: SpectralMemory) -> None:
    """Reads and writes beyond a block, or with negative numbers, are IndexErrors and change nothing."""
    address = mem.malloc(10)
    mem.write(address, b"0123456789")
    for offset, size in ((0, 11), (10, 1), (11, 0), (-1, 2), (2, -1), (1 << 70, 1), (5, 1 << 70)):
        with pytest.raises(IndexError):
            mem.read(address, offset, size)
    for offset, data in ((0, b"x" * 11), (10, b"x"), (-1, b"x"), (1 << 70, b"")):
        with pytest.raises(IndexError):
            mem.write(address, data, offset)
    with pytest.raises(ValueError, match="does not fit"):
        mem.array(address, "f8", 2)
    assert mem.read(address) == b"0123456789"
    assert mem.read(address, 10) == mem.read(address, 3, 0) == b""


# views and arrays -----------------------------------------------------------------------------------------------------


def test_a_viewed_block_stays(mem: SpectralMemory) -> None:
    """While a view is alive its block is neither freed nor resized nor moved; afterwards it is free to go."""
    address = mem.malloc(1000)
    with mem.view(address) as buffer:
        buffer[:5] = b"hello"
        for use in (lambda: mem.free(address), lambda: mem.realloc(address, 2000)):
            with pytest.raises(BufferError):
                use()
        assert mem.demote(address) is Residency.HOT
        assert mem.get_stats().pinned_blocks == 1
    assert mem.read(address, 0, 5) == b"hello"
    assert mem.get_stats().pinned_blocks == 0
    mem.free(address)


def test_a_slice_of_a_view_holds_its_block(mem: SpectralMemory) -> None:
    """Everything derived from a view holds the block, until the last of it is gone."""
    address = mem.malloc(100)
    part = mem.view(address)[10:20]
    with pytest.raises(BufferError):
        mem.free(address)
    del part
    mem.free(address)


def test_a_readonly_view_cannot_be_written(mem: SpectralMemory) -> None:
    """view(readonly=True) refuses assignments."""
    view = mem.view(mem.malloc(10), readonly=True)
    with pytest.raises(TypeError):
        view[0] = 1
    del view


def test_views_end_at_their_most(mem: SpectralMemory) -> None:
    """A block has at most 511 views at once; one more is a clear BufferError, and after a release there is room."""
    address = mem.malloc(10)
    views = [mem.view(address) for _ in range(511)]
    with pytest.raises(BufferError, match="as many views"):
        mem.view(address)
    views.pop()
    views.append(mem.view(address))
    views.clear()
    mem.free(address)


def test_an_array_lives_in_its_block(mem: SpectralMemory) -> None:
    """Arrays of any type and shape share the block's bytes, and keep block and heap alive."""
    address = mem.malloc(8 * 60)
    numbers = mem.array(address, "f8", (5, 12))
    numbers[:] = np.arange(60).reshape(5, 12)
    assert mem.array(address, np.float64)[59] == 59
    assert mem.array(address).dtype == np.uint8
    with pytest.raises(BufferError):
        mem.free(address)
    with pytest.raises(ValueError, match="objects"):
        mem.array(address, object)
    del numbers
    mem.free(address)


def test_a_view_keeps_the_heap_alive() -> None:
    """A view outlives its heap's last name, and the heap is given back when the view is."""
    mem = SpectralMemory()
    address = mem.malloc(100_000)
    view = mem.view(address)
    view[:] = b"x" * 100_000
    gone = weakref.ref(mem)
    del mem
    assert gone() is not None
    assert bytes(view[:3]) == b"xxx"
    del view
    assert gone() is None


# malloc and its kin ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 8, 9, 64, 65, 4095, 4096, 32_768, 32_769, 65_536, 65_537, 3_000_000])
def test_blocks_of_every_kind_of_size(mem: SpectralMemory, size: int) -> None:
    """Cells of all kinds of slabs, and extents: what is written is read, through both ways down and up again."""
    data = noise(size)
    address = mem.malloc(size)
    mem.write(address, data)
    assert mem.read(address) == data
    mem.demote(address)
    mem.demote(address)
    assert mem.where(address) is not Residency.HOT
    assert bytes(mem.view(address)) == data
    assert mem.where(address) is Residency.HOT
    mem.free(address)


@pytest.mark.parametrize("size", [10, 5_000, 40_000, 10_000_000])
def test_calloc_gives_zeros(mem: SpectralMemory, size: int) -> None:
    """Memory that held other bytes is zero for the next block of calloc."""
    for _ in range(24):
        address = mem.malloc(size)
        mem.write(address, b"\xff" * size)
        mem.free(address)
        address = mem.calloc(size)
        assert mem.read(address) == bytes(size)
        mem.free(address)


def test_a_large_calloc_costs_nothing_before_it_is_written(mem: SpectralMemory) -> None:
    """100 blocks of 10 MB of zeros take no memory worth speaking of, and read as zeros."""
    before = mem.get_stats().bytes_resident
    blocks = [mem.calloc(10_000_000) for _ in range(100)]
    assert mem.read(blocks[7], 9_999_990) == bytes(10)
    assert mem.get_stats().bytes_resident - before < 200_000
    assert mem.where(blocks[0]) is Residency.REGROWN


def test_realloc_keeps_the_address_and_the_bytes(mem: SpectralMemory) -> None:
    """Growing and shrinking between all kinds of sizes keeps the first bytes, from any tier."""
    address = mem.malloc(10)
    expected = noise(10)
    mem.write(address, expected)
    for step, size in enumerate((100, 40_000, 39_000, 200_000, 50, 1, 70_000)):
        assert mem.realloc(address, size) == address
        expected = expected[:size]
        assert mem.read(address, 0, len(expected)) == expected
        rest = noise(size - len(expected), step)
        mem.write(address, rest, len(expected))
        expected += rest
        mem.demote(address)
    assert mem.resolve(address).size == 70_000


def test_equal_bytes_shrink_to_a_recipe(mem: SpectralMemory) -> None:
    """A block of one repeated byte leaves memory as its recipe, and comes back from it."""
    address = mem.malloc(100_000)
    mem.write(address, b"\x07" * 100_000)
    assert mem.demote(address) is Residency.REGROWN
    assert mem.read(address, 99_999) == b"\x07"
    assert bytes(mem.view(address)) == b"\x07" * 100_000


def test_retune_moves_a_block_to_another_band(mem: SpectralMemory) -> None:
    """A block given another frequency counts as one migration, and by_band shows where it is now."""
    address = mem.malloc(10, t_virtual=20.0)
    assert round(mem.retune(address, 120.0), 1) == 121.4 or mem.get_stats().migrations == 1
    (band,) = mem.get_stats().by_band
    assert band > 100
    assert mem.resolve(address).zero_index == 2
    with pytest.raises(ValueError, match="t must be"):
        mem.retune(address, -1.0)


def test_heat_falls_and_rises_with_use(mem: SpectralMemory) -> None:
    """A block made cold becomes short-term by a thousand accesses: the bands of its way are counted as migrations."""
    address = mem.malloc(10, SMEM_COLD)
    assert mem.get_stats().ltm_blocks == 1
    for _ in range(1_000):
        mem.access(address)
    stats = mem.get_stats()
    assert (stats.ltm_blocks, stats.stm_blocks) == (0, 1)
    assert 20 < stats.migrations < 60
    assert stats.accesses == 1_000


# the heap as an object ------------------------------------------------------------------------------------------------


def test_a_closed_heap_refuses() -> None:
    """After close every method raises ClosedError; close may be repeated; repr says it."""
    mem = SpectralMemory()
    address = mem.malloc(10)
    mem.close()
    mem.close()
    uses = (
        lambda: mem.malloc(1),
        lambda: mem.free(address),
        lambda: mem.access(address),
        lambda: mem.view(address),
        lambda: mem.read(address),
        lambda: mem.write(address, b""),
        lambda: mem.realloc(address, 1),
        lambda: mem.resolve(address),
        lambda: mem.where(address),
        mem.get_stats,
        mem.compact,
        mem.check,
        mem.__enter__,
    )
    for use in uses:
        with pytest.raises(ClosedError):
            use()
    assert mem.closed
    assert repr(mem) == "<closed SpectralMemory>"


def test_an_array_outlives_the_closing_of_its_heap() -> None:
    """close() with an array alive succeeds; the array keeps its bytes, and the memory goes when the array does."""
    with SpectralMemory(memory_limit="50 MB") as mem:
        budget = mem.budget
        others = [mem.malloc(100_000) for _ in range(50)]
        numbers = mem.array(others[7], "i4")
        numbers[:] = 7
    assert mem.closed
    assert numbers.sum() == 7 * 25_000
    assert 100_000 < budget.used_bytes < 1_000_000
    del numbers, mem
    assert budget.used_bytes == 0


def test_a_heap_cannot_be_pickled_or_copied(mem: SpectralMemory) -> None:
    """Addresses mean nothing elsewhere: pickle and copy say so."""
    for use in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="addresses"):
            use(mem)


def test_a_forgotten_heap_gives_its_memory_back() -> None:
    """Without close, the budget is uncharged and the object gone as soon as nobody has it."""
    mem = SpectralMemory(memory_limit="50 MB")
    budget = mem.budget
    mem.write(mem.malloc(5_000_000), noise(5_000_000))
    assert budget.used_bytes > 5_000_000
    gone = weakref.ref(mem)
    del mem
    assert gone() is None
    assert budget.used_bytes == 0


@pytest.mark.parametrize(
    "settings",
    [{"n_zeros": 0}, {"n_zeros": 10_001}, {"memory_limit": -1}, {"disk_limit": "x"}, {"codec": "gif"}],
)
def test_bad_settings_are_refused(settings: dict[str, int | str]) -> None:
    """Each setting out of range is a ValueError."""
    with pytest.raises(ValueError, match=r"must be|unknown"):
        SpectralMemory(**settings)  # type: ignore[arg-type]


def test_repr_and_stats_are_readable(mem: SpectralMemory) -> None:
    """repr names bands and bytes; the statistics print, index and turn into a dict."""
    mem.malloc(10, SMEM_AUTO)
    assert "100 bands" in repr(mem)
    stats = mem.get_stats()
    assert "1 blocks" in str(stats)
    assert dict(stats)["blocks"] == 1
    with pytest.raises(KeyError):
        stats["nothing"]
    assert sum(stats.by_class.values()) == sum(stats.by_band.values()) == sum(stats.by_residency.values()) == 1


def test_no_cycle_keeps_a_heap() -> None:
    """A heap is freed by its reference count: the collector finds nothing to do."""
    gc.collect()
    gc.disable()
    try:
        mem = SpectralMemory()
        mem.malloc(10)
        gone = weakref.ref(mem)
        del mem
        assert gone() is None
    finally:
        gc.enable()


def test_a_heap_is_made_once(mem: SpectralMemory) -> None:
    """A second __init__ is refused and changes nothing; a heap that was never made refuses as a closed one does."""
    address = mem.malloc(10)
    mem.write(address, b"0123456789")
    with pytest.raises(RuntimeError, match="made already"):
        mem.__init__()  # type: ignore[misc]
    assert mem.read(address) == b"0123456789"
    unmade = SpectralMemory.__new__(SpectralMemory)
    for use in (unmade.check, unmade.get_stats, unmade.scrub, unmade.compact, lambda: unmade.malloc(5)):
        with pytest.raises(ClosedError):
            use()
    unmade.close()
    assert repr(unmade) == "<closed SpectralMemory>"
