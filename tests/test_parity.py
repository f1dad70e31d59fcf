"""Stripes: any one or two shards are computed again bit for bit, by either way, in the store and in a
SpectralMemory."""

import itertools
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_alloc import CorruptFrameError, Residency, SpectralMemory
from spectral_alloc._parity import DATA_MAX, encode, recover
from spectral_alloc.cold_store import ColdStore
from spectral_alloc.stripes import Stripes

shards = st.lists(st.binary(max_size=70), min_size=1, max_size=DATA_MAX).filter(any)


@given(shards, st.data())
def test_any_two_lost_shards_come_back(data: list[bytes], choice: st.DataObject) -> None:
    """With P and Q, data shards are found again whichever two of all shards are lost."""
    everything = [*data, *encode(data)]
    lost = choice.draw(st.sets(st.integers(0, len(everything) - 1), max_size=2))
    there = [None if number in lost else shard for number, shard in enumerate(everything)]
    found = recover(there[: len(data)], there[len(data) :])
    assert [shard[: len(given)] for shard, given in zip(found, data, strict=True)] == data


@given(shards, st.data())
def test_one_lost_shard_comes_back_by_xor(data: list[bytes], choice: st.DataObject) -> None:
    """With P alone, any one data shard is found again."""
    lost = choice.draw(st.integers(0, len(data) - 1))
    there = [None if number == lost else shard for number, shard in enumerate(data)]
    assert recover(there, encode(data, False))[lost][: len(data[lost])] == data[lost]


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=DATA_MAX))
def test_both_ways_of_computing_agree(data: list[bytes]) -> None:
    """Vector instructions and tables give the same parity."""
    assert encode(data) == encode(data, portable=True)


def test_q_is_what_the_definition_says() -> None:
    """Q is the sum of the shards times powers of 2 in GF(256) with 0x11D, computed here bit by bit."""

    def times(a: int, b: int) -> int:
        product = 0
        for bit in range(8):
            if b >> bit & 1:
                product ^= a << bit
        for bit in range(14, 7, -1):
            if product >> bit & 1:
                product ^= 0x11D << (bit - 8)
        return product

    data = [random.Random(number).randbytes(33) for number in range(DATA_MAX)]
    expected = bytearray(33)
    factor = 1
    for shard in data:
        for at, byte in enumerate(shard):
            expected[at] ^= times(byte, factor)
        factor = times(factor, 2)
    assert encode(data)[1] == expected


def test_too_much_is_refused() -> None:
    """Three lost shards, two without Q, and stripes of no or eleven shards are ValueErrors."""
    data = [b"a", b"b", b"c"]
    with pytest.raises(ValueError, match="3 data shards are lost"):
        recover([None, None, None], encode(data))
    with pytest.raises(ValueError, match="2 data shards are lost"):
        recover([None, None, b"c"], encode(data, False))
    for wrong in ([], [b"x"] * 11, [b""]):
        with pytest.raises(ValueError, match="1 to 10"):
            encode(wrong)
    for parity_count in (0, 3):
        with pytest.raises(ValueError, match="redundancy"):
            Stripes(ColdStore(), parity_count)


def damage(stripes: Stripes, place: int) -> None:
    """Change one byte on disk."""
    assert stripes.directory is not None
    (path,) = Path(stripes.directory).glob("segment*")
    offset = place & ((1 << 40) - 1)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x55]))


@pytest.mark.parametrize("pair", list(itertools.combinations(range(12), 2)))
def test_any_two_damaged_shards_of_a_full_stripe_are_repaired(pair: tuple[int, int]) -> None:
    """Ten frames and two parities with a flipped bit in any two: every frame reads as it was, and scrub finds it
    whole."""
    stripes = Stripes(ColdStore(), 2)
    frames = [random.Random(number).randbytes(50 + 13 * number) for number in range(10)]
    names = stripes.append(frames, list(range(10)))
    stripe = stripes._stripe_of[names[0]]
    for number in pair:
        damage(stripes, (stripe.data + stripe.parity)[number].place)
    assert stripes.scrub().repaired == 2
    assert stripes.scrub() == (12, 0, ())
    assert [stripes.read(name, len(frame)) for name, frame in zip(names, frames, strict=True)] == frames
    stripes.check()
    stripes.close()


def test_three_damaged_shards_are_reported() -> None:
    """What cannot be computed is lost and said so, and the other frames still read."""
    stripes = Stripes(ColdStore(), 2)
    names = stripes.append([bytes([65 + number]) * 20 for number in range(5)], list(range(5)))
    for shard in stripes._stripe_of[names[0]].data[:3]:
        damage(stripes, shard.place)
    assert stripes.scrub().lost == tuple(names[:3])
    with pytest.raises(CorruptFrameError, match="stripe"):
        stripes.read(names[0], 20)
    assert stripes.read(names[4], 20) == b"E" * 20
    stripes.close()


def test_frames_of_one_class_are_never_in_one_stripe() -> None:
    """However classes come, a stripe has no two shards of one, and thin stripes are written anew with their names
    kept."""
    stripes = Stripes(ColdStore(), 1)
    chance = random.Random(3)
    kept: dict[int, bytes] = {}
    for turn in range(30):
        frames = [chance.randbytes(chance.randrange(1, 300)) for _ in range(20)]
        classes = [chance.randrange(12) for _ in frames]
        names = stripes.append(frames, classes)
        for name in names:
            stripe = stripes._stripe_of[name]
            own = [classes[names.index(each)] for each in stripe.names if each in names]
            assert len(own) == len(set(own))
        kept |= dict(zip(names, frames, strict=True))
        for name in [name for name in kept if chance.random() < 0.4]:
            stripes.release(name, len(kept.pop(name)))
        stripes.check()
        assert turn < 3 or stripes.live_bytes < 5 * sum(map(len, kept.values())) + 3_000
    for name, frame in kept.items():
        assert stripes.read(name, len(frame)) == frame
    for name, frame in kept.items():
        stripes.release(name, len(frame))
    assert stripes.live_bytes == 0
    stripes.close()


@pytest.mark.parametrize("redundancy", [1, 2])
def test_a_memory_repairs_its_cold_blocks(redundancy: int) -> None:
    """Blocks on disk whose frames are damaged, one or two a stripe, read as they were; the repairs are counted."""
    with SpectralMemory(redundancy=redundancy) as mem:
        blocks = {}
        for number in range(120):
            address = mem.malloc(3_000, temperature=3)
            blocks[address] = random.Random(number).randbytes(3_000)
            mem.write(address, blocks[address])
        mem.memory_limit = "300 kB"
        mem.settle()
        stripes = mem._tiers.store
        assert isinstance(stripes, Stripes)
        cold = [address for address in blocks if mem.where(address) is Residency.COLD]
        assert len(cold) > 100
        damaged = 0
        for stripe in {id(stripe): stripe for stripe in stripes._stripe_of.values()}.values():
            for shard in stripe.data[:redundancy]:
                damage(stripes, shard.place)
                damaged += 1
        report = mem.scrub()
        assert report.repaired == mem.get_stats().repairs == damaged
        assert report.lost == ()
        assert all(mem.read(address) == data for address, data in blocks.items())
        mem.check()


def test_without_redundancy_a_scrub_names_what_is_lost(tmp_path: Path) -> None:
    """A damaged frame of a heap without parity is named by scrub and by a read; the others are whole."""
    with SpectralMemory(spill_dir=tmp_path) as mem:
        blocks = [mem.malloc(2_000) for _ in range(3)]
        for address in blocks:
            mem.write(address, os.urandom(2_000))
            mem.demote(address)
            mem.demote(address)
        (path,) = tmp_path.rglob("segment*")
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
        report = mem.scrub()
        assert report.lost == (blocks[0],)
        with pytest.raises(CorruptFrameError) as caught:
            mem.read(blocks[0])
        assert caught.value.key == blocks[0]
        assert len(mem.read(blocks[1])) == 2_000
