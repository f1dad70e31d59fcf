"""SpectralMemory interrupted: Ctrl-C between a frame that is on disk and the block that takes it over, and back."""

from contextlib import suppress
from typing import Any

import pytest

from spectral_alloc import SMEM_COLD, SpectralMemory, stripes
from spectral_alloc._heap import BYTES, PLACE
from spectral_alloc.cold_store import ColdStore
from spectral_alloc.stripes import Stripes

BLOCK_COUNT = 30


class Interrupted(SpectralMemory):
    """A heap in which Ctrl-C comes at one of the moves to a state, before it or right after it."""

    strike_at, strikes_late, strikes_to = 0, False, PLACE

    def _replace(self, *arguments: Any) -> tuple[int, int] | None:
        if arguments[3] != self.strikes_to:
            return super()._replace(*arguments)
        self.strike_at -= 1
        if self.strike_at == 0 and not self.strikes_late:
            raise KeyboardInterrupt
        done = super()._replace(*arguments)
        if self.strike_at == 0:
            raise KeyboardInterrupt
        return done


def block(number: int) -> bytes:
    """Bytes that take a frame of their own."""
    return bytes((number * 7 + at * at) & 0xFF for at in range(3000))


def filled(mem: SpectralMemory) -> dict[int, bytes]:
    """Blocks that are to rest on disk."""
    data = {mem.malloc(3000, SMEM_COLD): block(number) for number in range(BLOCK_COUNT)}
    for address, content in data.items():
        mem.write(address, content)
    return data


def assert_whole(mem: SpectralMemory, data: dict[int, bytes]) -> None:
    """Every block reads as written, and without blocks the disk holds nothing."""
    mem.check()
    for address, content in data.items():
        assert mem.read(address) == content
        mem.free(address)
    mem.check()
    assert mem.get_stats().disk_live_bytes == 0, "frames are on disk that no block has"


@pytest.mark.parametrize("redundancy", [0, 1, 2])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("strike_at", [1, 2, BLOCK_COUNT])
def test_frames_that_no_block_took_over_are_released(redundancy: int, late: bool, strike_at: int) -> None:
    """Ctrl-C while blocks go to disk: those that went are there, and of the others nothing stays on disk."""
    with Interrupted(redundancy=redundancy) as mem:
        data = filled(mem)
        mem.strike_at, mem.strikes_late = strike_at, late
        with pytest.raises(KeyboardInterrupt):
            mem.settle()
        assert_whole(mem, data)


@pytest.mark.parametrize("redundancy", [0, 2])
@pytest.mark.parametrize("late", [False, True])
def test_a_frame_whose_block_came_back_is_released(redundancy: int, late: bool) -> None:
    """Ctrl-C while a block comes back from disk: it is in place or on disk, and its frame is only in the latter."""
    with Interrupted(redundancy=redundancy) as mem:
        data = filled(mem)
        mem.settle()
        mem.strike_at, mem.strikes_late, mem.strikes_to = 1, late, BYTES
        with pytest.raises(KeyboardInterrupt):
            mem.promote(next(iter(data)))
        assert_whole(mem, data)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("strike_at", [1, 5])
def test_an_interrupted_compaction_of_files_loses_no_frame(late: bool, strike_at: int) -> None:
    """Ctrl-C while frames move to another file: each is where its block says, and nowhere else."""
    with Interrupted() as mem:
        data = filled(mem)
        mem.settle()
        for address in list(data)[::3] + list(data)[1::3]:
            mem.free(address)
            del data[address]
        store = mem._tiers.store
        assert isinstance(store, ColdStore)
        store.seal()  # a file that is written still is left alone
        mem.strike_at, mem.strikes_late = strike_at, late
        with pytest.raises(KeyboardInterrupt):
            mem.compact()
        assert_whole(mem, data)


@pytest.mark.parametrize("count", range(1, 30, 3))
def test_interrupted_stripes_hold_what_was_there(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Ctrl-C while stripes are made: earlier frames live in one stripe each, and the new ones do not live."""
    made = Stripes(ColdStore(), 2)
    frames = [bytes([number + 1]) * 50 for number in range(20)]
    names = made.append(frames, list(range(10)) * 2)
    for name in names[::2] + names[1:4:2]:
        made.release(name, 50)  # so that the rest is written anew at the next append
    left = [(name, frame) for name, frame in zip(names, frames, strict=True) if name in names[5::2]]
    checksum, calls = stripes.crc32c, 0

    def interrupting(data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == count:
            raise KeyboardInterrupt
        return checksum(data)

    monkeypatch.setattr(stripes, "crc32c", interrupting)
    with suppress(KeyboardInterrupt):
        for number in range(10):
            left += [(name, b"new") for name in made.append([b"new"] * 5, [0, 1, 2, 3, number])]
    assert calls >= count, "it was not interrupted"
    made.check()
    for name, frame in left:
        assert made.read(name, len(frame)) == frame
    assert made.append([b"more"], [3]) not in [[name] for name, _ in left]
    for name in list(made._stripe_of):
        made.release(name, 0)
    assert made.live_bytes == 0, "shards are left of stripes that are gone"
    made.close()
