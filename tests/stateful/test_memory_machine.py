"""SpectralMemory against {address: bytearray}: every operation in any order, with and without memory pressure."""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from spectral_alloc import Residency, SpectralMemory, StaleAddressError, UnknownAddressError
from spectral_alloc.lattice import PRIMES

SIZES = st.one_of(st.integers(1, 300), st.sampled_from([4096, 8191, 32_768, 32_769, 65_536, 100_000]))
SEEDS = st.integers(0, 2**32)
LIMITS = [None, "3 MB", "700 kB"]


def content(seed: int, size: int) -> bytes:
    """Bytes of a seed: noise, a pattern, or all equal, so that blocks leave as raw frames, packed frames and
    recipes."""
    if seed % 3 == 0:
        return bytes([seed % 251]) * size
    word = seed.to_bytes(8, "little") if seed % 3 == 1 else bytes((seed * k * k) >> 3 & 0xFF for k in range(1, 98))
    return (word * (size // len(word) + 1))[:size]


class MemoryMachine(RuleBasedStateMachine):
    """The model is a dict of bytearrays; a freed address is remembered as stale."""

    blocks: Bundle[int] = Bundle("blocks")

    @initialize(limit=st.sampled_from(LIMITS), seed=st.integers(-3, 20))
    def start(self, limit: Any, seed: int) -> None:
        """A heap with or without pressure."""
        self.mem = SpectralMemory(memory_limit=limit, seed=seed)
        self.model: dict[int, bytearray] = {}
        self.stale: set[int] = set()
        self.views: dict[int, list[memoryview]] = {}

    @rule(target=blocks, size=SIZES, seed=SEEDS, channel=st.sampled_from(PRIMES), t=st.none() | st.floats(1, 300))
    def malloc(self, size: int, seed: int, channel: int, t: float | None) -> int:
        """A new block, filled."""
        address = self.mem.malloc(size, seed % 4, t, channel=channel)
        assert address not in self.model
        assert address not in self.stale
        data = content(seed, size)
        self.mem.write(address, data)
        self.model[address] = bytearray(data)
        return address

    @rule(target=blocks, size=SIZES, axis=st.sampled_from([1, 2]))
    def calloc(self, size: int, axis: int) -> int:
        """A new block of zeros, or one on the imaginary axis."""
        address = self.mem.calloc(size, axis=axis)
        self.model[address] = bytearray(size)
        return address

    @rule(address=blocks)
    def free(self, address: int) -> None:
        """A free, a double free, or a free while viewed."""
        if address in self.stale:
            with pytest.raises(StaleAddressError):
                self.mem.free(address)
        elif self.views.get(address):
            with pytest.raises(BufferError):
                self.mem.free(address)
        else:
            self.mem.free(address)
            del self.model[address]
            self.stale.add(address)

    @rule(address=blocks, data=st.data())
    def read(self, address: int, data: Any) -> None:
        """A range, in the block or not."""
        if address in self.stale:
            with pytest.raises(StaleAddressError):
                self.mem.read(address)
            return
        expected = self.model[address]
        offset, size = data.draw(st.tuples(st.integers(-1, len(expected) + 1), st.integers(-1, len(expected) + 1)))
        if offset < 0 or size < 0 or offset + size > len(expected):
            with pytest.raises(IndexError):
                self.mem.read(address, offset, size)
        else:
            assert self.mem.read(address, offset, size) == expected[offset : offset + size]

    @rule(address=blocks, seed=SEEDS, data=st.data())
    def write(self, address: int, seed: int, data: Any) -> None:
        """A range, in the block or not."""
        if address in self.stale:
            with pytest.raises(StaleAddressError):
                self.mem.write(address, b"")
            return
        expected = self.model[address]
        offset, size = data.draw(st.tuples(st.integers(0, len(expected)), st.integers(0, len(expected) + 1)))
        given = content(seed, size)
        if offset + size > len(expected):
            with pytest.raises(IndexError):
                self.mem.write(address, given, offset)
        else:
            self.mem.write(address, given, offset)
            expected[offset : offset + size] = given

    @rule(address=blocks, size=SIZES, seed=SEEDS)
    def realloc(self, address: int, size: int, seed: int) -> None:
        """Another size at the same address, unless viewed."""
        if address in self.stale or self.views.get(address):
            with pytest.raises((StaleAddressError, BufferError)):
                self.mem.realloc(address, size)
            return
        self.mem.realloc(address, size)
        kept = self.model[address][:size]
        rest = content(seed, size - len(kept))
        self.mem.write(address, rest, len(kept))
        self.model[address] = kept + rest

    @rule(address=blocks)
    def access(self, address: int) -> None:
        """Counts, and tells where the block is."""
        if address in self.stale:
            with pytest.raises(StaleAddressError):
                self.mem.access(address)
        else:
            assert self.mem.access(address) in Residency

    @rule(address=blocks, seed=SEEDS)
    def view(self, address: int, seed: int) -> None:
        """Hold a view and write through it; the block must not move from now on."""
        if address in self.stale:
            with pytest.raises(StaleAddressError):
                self.mem.view(address)
            return
        buffer = self.mem.view(address)
        expected = self.model[address]
        assert bytes(buffer) == expected
        buffer[: len(expected) // 2 + 1] = expected[: len(expected) // 2 + 1] = content(seed, len(expected) // 2 + 1)
        self.views.setdefault(address, []).append(buffer)

    @precondition(lambda self: any(self.views.values()))
    @rule(data=st.data())
    def release(self, data: Any) -> None:
        """Let one view go, after a last write through it."""
        address = data.draw(st.sampled_from([held for held, views in self.views.items() if views]))
        buffer = self.views[address].pop()
        buffer[0] = self.model[address][0] = (buffer[0] + 1) % 256
        buffer.release()

    @rule(address=blocks, times=st.integers(1, 2))
    def demote(self, address: int, times: int) -> None:
        """Down by hand; a viewed block stays."""
        if address in self.stale:
            return
        for _ in range(times):
            self.mem.demote(address)
        if self.views.get(address):
            assert self.mem.where(address) is Residency.HOT

    @rule(step_bytes=st.sampled_from([200, 5_000, 1 << 20]))
    def compact(self, step_bytes: int) -> None:
        """Moves blocks and changes nothing."""
        self.mem.compact(step_bytes)

    @rule(limit=st.sampled_from(["600 kB", "1 MB", None]))
    def set_limit(self, limit: str | None) -> None:
        """More or less memory from now on."""
        self.mem.memory_limit = limit

    @rule()
    def settle(self) -> None:
        """Blocks made warm or cold go to rest."""
        self.mem.settle()

    @rule(address=blocks, bit=st.sampled_from([*range(32, 37), *range(41, 64)]))
    def forge(self, address: int, bit: int) -> None:
        """An address with a wrong band, channel or axis is never taken for a block."""
        with pytest.raises((UnknownAddressError, StaleAddressError)):
            self.mem.access(address ^ 1 << bit)

    @rule(target=blocks, count=st.integers(1, 60), size=st.integers(1, 2_000))
    def many(self, count: int, size: int) -> Any:
        """Many small blocks at once, so that slabs fill and tables grow."""
        made = [self.mem.malloc(size) for _ in range(count)]
        for number, address in enumerate(made):
            data = content(number, size)
            self.mem.write(address, data)
            self.model[address] = bytearray(data)
        return multiple(*made)

    @invariant()
    def is_sound(self) -> None:
        """All invariants hold, and all blocks are there."""
        if hasattr(self, "mem"):
            self.mem.check()
            assert self.mem.get_stats().blocks == len(self.model)
            for address in list(self.model)[-3:]:
                assert self.mem.resolve(address).size == len(self.model[address])

    def teardown(self) -> None:
        """Every byte of every block, and then the end."""
        if hasattr(self, "mem"):
            for address, expected in self.model.items():
                assert self.mem.read(address) == expected
            for views in self.views.values():
                views.clear()
            self.mem.close()


TestMemoryMachine = MemoryMachine.TestCase
