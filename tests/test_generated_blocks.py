"""Blocks on axis 2: the bytes of a GenerativeSpace until they are written, page by page."""

import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from faults import FaultyFileSystem

from spectral_alloc import (
    SMEM_COLD,
    CorruptFrameError,
    GenerativeSpace,
    Residency,
    SpectralMemory,
    StaleAddressError,
    UnknownAddressError,
)
from spectral_alloc.generated_blocks import LOCK_COUNT, space_start

PAGE = 4096
GIB = 1 << 30


@pytest.fixture
def mem() -> Iterator[SpectralMemory]:
    """A heap with a small limit."""
    with SpectralMemory(seed=1337, memory_limit="3 MB") as made:
        yield made
        made.check()


def generated(mem: SpectralMemory, address: int) -> bytes:
    """What a block holds before it is written, from the space itself."""
    info = mem.resolve(address)
    assert info.space_start is not None
    count = -(-info.size // mem.space.dtype.itemsize)
    values = mem.space[info.space_start : info.space_start + count]
    return bytes(values.tobytes()[: info.size])


# what is read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 8, 100, PAGE - 1, PAGE, PAGE + 1, 10 * PAGE, 100_003])
def test_a_block_shows_the_space(mem: SpectralMemory, size: int) -> None:
    """Any part of an unwritten block is the bytes of the space from space_start on, and nothing is held for it."""
    address = mem.malloc(size, axis=2)
    expected = generated(mem, address)
    assert mem.read(address) == expected
    for offset, length in ((0, 1), (size - 1, 1), (size // 3, size // 2), (size, 0)):
        assert mem.read(address, offset, length) == expected[offset : offset + length]
    assert mem.where(address) is Residency.REGROWN
    with pytest.raises(IndexError):
        mem.read(address, size, 1)


def test_the_bytes_depend_on_seed_and_address_alone() -> None:
    """The same seed and address give the same bytes in another heap; another seed or address gives others."""
    with SpectralMemory(seed=12) as mem, SpectralMemory(seed=12) as same, SpectralMemory(seed=24) as other:
        blocks = [heap.malloc(1000, axis=2) for heap in (mem, same, other)]
        assert len(set(blocks)) == 1
        found = [heap.read(blocks[0]) for heap in (mem, same, other)]
        assert found[0] == found[1] != found[2]
        assert mem.read(mem.malloc(1000, axis=2)) != found[0]
        assert GenerativeSpace(12)[mem.resolve(blocks[0]).space_start] == np.frombuffer(found[0][:8], "f8")[0]


def test_windows_of_blocks_do_not_overlap() -> None:
    """Blocks of all classes and successive serials have 4 GiB of values each, inside the 2**64 addresses."""
    addresses = [number << 37 | 2 << 32 | serial for serial in (1, 2, 3, 2**31) for number in range(12)]
    for value_bytes in (4, 8):
        starts = sorted(space_start(address, value_bytes) for address in addresses)
        window = (1 << 32) // value_bytes
        assert all(after - before >= window for before, after in itertools.pairwise(starts))
        assert starts[-1] + window <= 1 << 64


def test_a_block_larger_than_the_limit_costs_nothing(mem: SpectralMemory) -> None:
    """4 GiB under a limit of 3 MB: read and written in pieces; only as a whole it does not fit."""
    address = mem.malloc(4 * GIB, axis=2)
    before = mem.get_stats()
    start = mem.resolve(address).space_start
    assert start is not None
    assert mem.read(address, 4 * GIB - 16, 16) == mem.space[start + 2**29 - 2 : start + 2**29].tobytes()
    mem.write(address, b"written", 3 * GIB)
    assert mem.read(address, 3 * GIB - 1, 9)[1:8] == b"written"
    after = mem.get_stats()
    assert (after.generated_blocks, after.written_pages, after.unwritten_pages) == (1, 1, (1 << 20) - 1)
    assert after.bytes_resident - before.bytes_resident < 5 * PAGE
    for use in (mem.view, mem.array, mem.promote):
        with pytest.raises(MemoryError, match=f"{4 * GIB} bytes"):
            use(address)
    mem.realloc(address, 4 * GIB - 5)
    with pytest.raises(MemoryError):
        mem.malloc(4 * GIB)


def test_calloc_on_axis_2_is_zeros(mem: SpectralMemory) -> None:
    """calloc keeps its promise on axis 2, of any size, and its pages are free until they are something else."""
    address = mem.calloc(GIB, axis=2)
    assert mem.read(address, GIB // 2, 10) == bytes(10)
    mem.write(address, b"x", GIB // 2)
    assert mem.read(address, GIB // 2 - 1, 3) == b"\0x\0"
    assert mem.get_stats().written_pages == 1
    mem.write(address, b"\0", GIB // 2)
    assert mem.get_stats().written_pages == 0


def test_another_space_is_attached_before_the_first_block() -> None:
    """Blocks show the attached space, of any kind of values, without its edits; not while there are blocks already."""
    with SpectralMemory(memory_limit="3 MB") as mem:
        for values in ("float32", "uint64", "normal", range(100)):
            space = GenerativeSpace("words", values=values)  # type: ignore[arg-type]
            mem.attach_space(space)
            address = mem.malloc(10_001, axis=2)
            expected = generated(mem, address)
            space[mem.resolve(address).space_start] = 1
            assert mem.read(address) == expected
            with pytest.raises(ValueError, match="axis 2"):
                mem.attach_space(GenerativeSpace())
            mem.free(address)
        with pytest.raises(TypeError):
            mem.attach_space(7)  # type: ignore[arg-type]


# what is written ------------------------------------------------------------------------------------------------------


def test_only_written_pages_are_held(mem: SpectralMemory) -> None:
    """A write holds the pages it changes, and no others, wherever it begins and ends."""
    address = mem.malloc(100 * PAGE, axis=2)
    model = bytearray(generated(mem, address))
    for offset, length, pages in ((5, 3, 1), (2 * PAGE - 1, 2, 3), (10 * PAGE, PAGE, 4), (20 * PAGE + 9, 3 * PAGE, 8)):
        data = os.urandom(length)
        mem.write(address, data, offset)
        model[offset : offset + length] = data
        assert mem.get_stats().written_pages == pages
        assert mem.read(address) == model
    assert mem.where(address) is Residency.REGROWN
    mem.free(address)
    assert mem.get_stats().bytes_requested == mem.get_stats().written_pages == 0


@pytest.mark.parametrize("size", [100, PAGE, 50 * PAGE + 3])
def test_a_page_written_back_is_free_again(mem: SpectralMemory, size: int) -> None:
    """Writing the generated bytes lets the page go, whole or by its last changed byte."""
    address = mem.malloc(size, axis=2)
    before = mem.get_stats()
    expected = generated(mem, address)
    at = size - 1
    mem.write(address, bytes([expected[at] ^ 1]), at)
    assert mem.read(address, at) == bytes([expected[at] ^ 1])
    mem.write(address, expected[at:], at)
    mem.write(address, bytes(size))
    mem.write(address, expected)
    assert mem.read(address) == expected
    after = mem.get_stats()
    assert after.by_residency == before.by_residency
    assert (after.written_pages, after.unwritten_pages) == (0, -(-size // PAGE))
    assert after.bytes_by_residency["hot"] == 0


def test_written_pages_go_to_disk_and_unwritten_ones_nowhere(mem: SpectralMemory) -> None:
    """20 MB of written pages under 3 MB: they leave for the disk, are read back, and the rest still costs nothing."""
    address = mem.malloc(GIB, axis=2)
    chance = np.random.default_rng(1)
    model = {}
    for number in chance.permutation(GIB // PAGE)[:5_000].tolist():
        model[number] = chance.bytes(PAGE)
        mem.write(address, model[number], number * PAGE)
    stats = mem.get_stats()
    assert stats.written_pages == 5_000
    assert stats.bytes_resident < 4_000_000
    assert stats.disk_live_bytes > 15_000_000
    for number, data in model.items():
        assert mem.read(address, number * PAGE, PAGE) == data
    mem.free(address)
    assert mem.get_stats().disk_live_bytes == 0


def test_a_view_brings_a_block_back_whole_and_rest_lets_it_grow_again(mem: SpectralMemory) -> None:
    """Edits through a view are kept as pages when the block rests: at a demotion, at settle, and under pressure."""
    address = mem.malloc(50 * PAGE + 10, axis=2)
    model = bytearray(generated(mem, address))
    mem.write(address, b"before", 7)
    model[7:13] = b"before"

    def demote() -> None:
        mem.demote(address)

    def press() -> None:
        for number in range(1_000):
            if mem.where(address) is Residency.HOT:
                mem.write(mem.malloc(100_000), np.random.default_rng(number).bytes(100_000))

    for turn, rest in enumerate((demote, mem.settle, press)):
        array = mem.array(address)
        assert array.tobytes() == model
        array[turn * 9 * PAGE] = model[turn * 9 * PAGE] = turn + 1
        assert mem.where(address) is Residency.HOT
        del array
        rest()
        assert mem.where(address) is Residency.REGROWN
        assert mem.get_stats().written_pages == 1 + turn
        assert mem.read(address) == model


def test_a_block_written_all_over_leaves_as_any_other(mem: SpectralMemory) -> None:
    """Without an unwritten page there is nothing to grow: the block is a frame, and comes back from it."""
    address = mem.malloc(4 * PAGE, axis=2)
    with mem.view(address) as view:
        view[:] = bytes(range(256)) * 64
    assert mem.demote(address) is Residency.WARM
    assert mem.demote(address) is Residency.COLD
    assert mem.read(address) == bytes(range(256)) * 64


def test_pages_rest_where_their_block_would(mem: SpectralMemory) -> None:
    """Pages of a block made SMEM_COLD go to disk at settle, and by demote one tier at a time."""
    address = mem.malloc(10 * PAGE, SMEM_COLD, axis=2)
    mem.write(address, bytes(range(256)) * 32, PAGE)
    mem.settle()
    assert mem.get_stats().bytes_by_residency["hot"] == 0
    assert mem.get_stats().disk_live_bytes > 0
    assert mem.read(address, PAGE, 2 * PAGE) == bytes(range(256)) * 32
    other = mem.malloc(10 * PAGE, axis=2)
    mem.write(other, bytes(range(256)) * 16)
    mem.demote(other)
    assert mem.get_stats().bytes_by_residency["warm"] > 0


def test_realloc_of_a_generated_block(mem: SpectralMemory) -> None:
    """Pages beyond a smaller size go; a larger one shows more of the space; the first bytes stay."""
    address = mem.malloc(10 * PAGE, axis=2)
    mem.write(address, b"near", PAGE)
    mem.write(address, b"far", 9 * PAGE)
    mem.realloc(address, 5 * PAGE + 7)
    assert mem.get_stats().written_pages == 1
    mem.realloc(address, GIB)
    start = mem.resolve(address).space_start
    assert start is not None
    model = bytearray(mem.space[start : start + 20 * PAGE // 8].tobytes())
    model[PAGE : PAGE + 4] = b"near"
    assert mem.read(address, 0, 20 * PAGE) == model
    mem.realloc(address, 10)
    assert mem.read(address) == model[:10]
    assert mem.get_stats().written_pages == 0


# what goes wrong ------------------------------------------------------------------------------------------------------


def test_a_page_is_nobody_elses(mem: SpectralMemory) -> None:
    """The blocks that hold pages are unknown to callers, and count as part of theirs."""
    address = mem.malloc(10 * PAGE, axis=2)
    mem.write(address, b"x")
    ((page),) = mem._pages(address).values()  # type: ignore[union-attr]
    for use in (mem.free, mem.access, mem.view, mem.read):
        with pytest.raises(UnknownAddressError):
            use(page)
    with pytest.raises(UnknownAddressError):
        mem.write(page, b"y")
    stats = mem.get_stats()
    assert stats.blocks == sum(stats.by_class.values()) == sum(stats.by_residency.values()) == 1
    assert stats.bytes_requested == 10 * PAGE


def test_a_damaged_page_is_named_by_its_block() -> None:
    """Damage on disk raises CorruptFrameError with the block's address; other pages still read."""
    files = FaultyFileSystem()
    with SpectralMemory(file_system=files) as mem:
        address = mem.malloc(10 * PAGE, axis=2)
        mem.write(address, np.random.default_rng(1).bytes(PAGE), PAGE)
        mem.write(address, b"x", 5 * PAGE)
        mem.demote(address)
        mem.demote(address)
        (page,) = [page for number, page in (mem._pages(address) or {}).items() if number == 1]
        assert mem.where(page) is Residency.COLD
        directory = mem._tiers.store.directory
        assert directory is not None
        for name in os.listdir(directory):
            if name.startswith("segment"):
                with open(os.path.join(directory, name), "r+b") as file:
                    file.seek(100)
                    file.write(b"damage")
        with pytest.raises(CorruptFrameError, match=f"{address:#018x}") as caught:
            mem.read(address)
        assert "page 1" in str(caught.value)
        assert mem.read(address, 5 * PAGE, 1) == b"x"
        mem.free(address)


def test_threads_write_and_view_one_generated_block() -> None:
    """Threads write pages of their own while others bring the block back and let it grow: every byte is found."""
    with SpectralMemory(memory_limit="2 MB") as mem:
        address = mem.malloc(64 * PAGE, axis=2)
        expected = np.frombuffer(generated(mem, address), np.uint8).copy()
        failures: list[BaseException] = []

        def work(number: int) -> None:
            chance = np.random.default_rng(number)
            try:
                for turn in range(150):
                    at = (int(chance.integers(16)) * 4 + number) * PAGE + int(chance.integers(PAGE))
                    byte = int(chance.integers(256))
                    mem.write(address, bytes([byte]), at)
                    expected[at] = byte
                    assert mem.read(address, at, 1) == bytes([byte])
                    if turn % 10 == number:
                        mem.view(address).release()
                    elif turn % 10 == 5 + number:
                        mem.demote(address)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert not failures, failures
        assert mem.read(address) == expected.tobytes()
        mem.check()


class Meddled(SpectralMemory):
    """A heap in which something else happens to a block at a moment that another thread could have chosen."""

    __slots__ = ("before_page_read", "before_write")
    before_page_read: Callable[[], object]
    before_write: Callable[[], object]

    def _write_pages(self, address: int, data: Any, offset: int) -> bool:
        self.before_write()
        return super()._write_pages(address, data, offset)

    def _read_page(self, page: int) -> bytes:
        self.before_page_read()
        return super()._read_page(page)


@pytest.fixture
def meddled() -> Iterator[Meddled]:
    """Nothing happens until a test says what."""
    with Meddled(memory_limit="8 MB") as made:
        made.before_write = made.before_page_read = lambda: None
        yield made
        made.check()


@pytest.mark.parametrize("size", [5_000, 2_000])
@pytest.mark.parametrize("length", [100, 1_000])
def test_a_write_to_a_block_that_shrinks_is_refused(meddled: Meddled, size: int, length: int) -> None:
    """A realloc beside a write to the end: IndexError that names offset, length and size, and nothing was written."""
    address = meddled.malloc(9_000, axis=2)
    before = meddled.read(address)
    meddled.before_write = lambda: meddled.realloc(address, size)
    with pytest.raises(IndexError, match=f"{length} bytes from 8000 are not in the {size} bytes"):
        meddled.write(address, b"W" * length, 8_000)
    assert meddled.read(address) == before[:size]
    assert meddled.get_stats().written_pages == 0


def test_a_read_of_a_block_that_shrinks_is_refused(meddled: Meddled) -> None:
    """A realloc beside a read: IndexError, never bytes that lie beyond the block."""
    address = meddled.malloc(9_000, axis=2)
    meddled.write(address, b"x", 8_191)
    meddled.before_page_read = lambda: meddled.realloc(address, 5_000)
    with pytest.raises(IndexError, match="2 bytes from 8190 are not in the 5000 bytes"):
        meddled.read(address, 8_190, 2)


def test_a_write_to_a_block_that_is_freed_says_so(meddled: Meddled) -> None:
    """A free in the middle of a write: StaleAddressError, and no page is left."""
    address = meddled.malloc(9_000, axis=2)
    meddled.write(address, b"x", 8_000)
    meddled.before_page_read = lambda: meddled.free(address)
    with pytest.raises(StaleAddressError):
        meddled.write(address, b"W", 8_001)
    assert meddled.get_stats().blocks == meddled.get_stats().written_pages == 0


def test_a_forked_child_has_the_same_pages(mem: SpectralMemory) -> None:
    """Written and unwritten pages read the same in a child, which writes its own."""
    address = mem.malloc(1000 * PAGE, axis=2)
    mem.write(address, os.urandom(30 * PAGE), 100 * PAGE)
    expected = mem.read(address, 0, 200 * PAGE)
    child = os.fork()
    if child == 0:
        try:
            good = mem.read(address, 0, 200 * PAGE) == expected
            mem.write(address, b"child", 50 * PAGE)
            mem.check()
            os._exit(0 if good else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert mem.read(address, 0, 200 * PAGE) == expected


def test_an_interrupt_leaves_every_page_named(mem: SpectralMemory) -> None:
    """Ctrl-C at any moment of writes, views and demotions: each byte is the old or the new one, and no page is lost."""
    address = mem.malloc(40 * PAGE, axis=2)
    model = bytearray(generated(mem, address))
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for turn in range(80):
            data = bytes([turn]) * 100
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + turn * 0.00002)
                for number in range(40):
                    mem.write(address, data, number * PAGE + turn)
                    if number == turn % 40:
                        mem.view(address).release()
                        mem.demote(address)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            mem.check()
            for number in range(40):
                at = number * PAGE + turn
                found = mem.read(address, at, 100)
                assert found in (data, model[at : at + 100])
                model[at : at + 100] = found
    except KeyboardInterrupt:
        pass  # it came while the timer was being stopped
    finally:
        signal.signal(signal.SIGALRM, previous)
    mem.check()


def test_blocks_share_the_locks_of_pages(mem: SpectralMemory) -> None:
    """More blocks than locks, all written and viewed in turn: a lock is one's own or found free again."""
    blocks = [mem.malloc(3 * PAGE, axis=2) for _ in range(2 * LOCK_COUNT)]
    for turn in range(3):
        for address in blocks:
            mem.write(address, bytes([turn]) * 5, PAGE)
            mem.view(address).release()
            mem.demote(address)
    assert all(mem.read(address, PAGE, 5) == b"\2" * 5 for address in blocks)
