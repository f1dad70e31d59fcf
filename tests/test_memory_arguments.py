"""SpectralMemory: what its methods take as sizes, offsets and settings, and what they say of anything else."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from spectral_alloc import SpectralMemory


@pytest.fixture
def mem() -> Iterator[SpectralMemory]:
    """A heap without pressure."""
    with SpectralMemory() as made:
        yield made
        made.check()


@pytest.mark.parametrize("size", [0, -1, (1 << 32) + 1, 1 << 64, 1 << 200])
def test_absurd_sizes_are_refused(mem: SpectralMemory, size: int) -> None:
    """A size of 0, below, or beyond 4 GiB is a ValueError that names it, for malloc, calloc and realloc."""
    address = mem.malloc(10)
    for use in (lambda: mem.malloc(size), lambda: mem.calloc(size), lambda: mem.realloc(address, size)):
        with pytest.raises(ValueError, match=str(size)):
            use()
    assert mem.get_stats().blocks == 1


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"temperature": 4}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 1 << 70}, "temperature"),
        ({"channel": 4}, "channel"),
        ({"channel": -1}, "channel"),
        ({"channel": (1 << 32) + 5}, "channel"),
        ({"channel": 19}, "channel"),
        ({"axis": 0}, "axis"),
        ({"axis": 3}, "axis"),
        ({"axis": -1}, "axis"),
        ({"axis": (1 << 32) + 1}, "axis"),
        ({"t_virtual": 0.0}, "t_virtual"),
        ({"t_virtual": float("nan")}, "t_virtual"),
        ({"t_virtual": float("inf")}, "t_virtual"),
        ({"t_virtual": -5}, "t_virtual"),
    ],
)
def test_bad_settings_of_a_block_are_named(mem: SpectralMemory, settings: dict[str, float], name: str) -> None:
    """Temperature, channel, axis and frequency out of range are ValueErrors that name them; no block is made."""
    with pytest.raises(ValueError, match=name):
        mem.malloc(10, **settings)  # type: ignore[arg-type]
    assert mem.get_stats().blocks == 0


@pytest.mark.parametrize("wrong", [1.0, 1.9, float("nan"), "1", None, b"1"])
def test_what_is_no_int_is_refused_by_name(mem: SpectralMemory, wrong: Any) -> None:
    """A float or a text where an int is asked for is a TypeError that names the argument, and changes nothing."""
    address = mem.malloc(10)
    mem.write(address, b"0123456789")
    uses: list[tuple[str, Callable[[], object]]] = [
        ("size", lambda: mem.malloc(wrong)),
        ("size", lambda: mem.calloc(wrong, axis=2)),
        ("size", lambda: mem.realloc(address, wrong)),
        ("temperature", lambda: mem.malloc(10, wrong)),
        ("channel", lambda: mem.malloc(10, channel=wrong)),
        ("axis", lambda: mem.malloc(10, axis=wrong)),
        ("offset", lambda: mem.read(address, wrong, 1)),
        ("offset", lambda: mem.write(address, b"X", wrong)),
    ]
    if wrong is not None:
        uses.append(("size", lambda: mem.read(address, 0, wrong)))
    for name, use in uses:
        with pytest.raises(TypeError, match=f"^{name} must be an int, not "):
            use()
    assert mem.get_stats().blocks == 1
    assert mem.read(address) == b"0123456789"


def test_integers_of_any_type_are_taken(mem: SpectralMemory) -> None:
    """What says its integer itself serves as size, offset, temperature, channel and axis."""
    address = mem.malloc(np.int64(10), np.int8(2), channel=np.uint8(7), axis=np.uint64(1))  # type: ignore[arg-type]
    mem.write(address, b"ab", np.uint64(8))  # type: ignore[arg-type]
    assert mem.read(address, np.int16(8), np.int64(2)) == b"ab"  # type: ignore[arg-type]
    assert mem.resolve(mem.realloc(address, np.int32(5))).size == 5  # type: ignore[arg-type]
    assert mem.resolve(address).channel == 7
    with pytest.raises(ValueError, match="0"):
        mem.malloc(np.int64(0))  # type: ignore[arg-type]
    mem.memory_limit = 1 << 20
    with pytest.raises(MemoryError, match="never fits"):
        mem.malloc(np.int64(1 << 22))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [np.int64(5), (np.int32(5),), [np.uint8(5)], np.array([5]), 5])
def test_lengths_of_an_array_are_integers_of_any_type(mem: SpectralMemory, shape: Any) -> None:
    """What says its integer itself serves as a length of an array on a block, alone and in a shape."""
    array = mem.array(mem.calloc(80), "f8", shape)
    assert array.shape == (5,)


@pytest.mark.parametrize("shape", [1.0, "5", (2, 1.5), (None,), {2.0: 1}, object()])
def test_what_is_no_shape_is_refused_by_name(mem: SpectralMemory, shape: Any) -> None:
    """A float or a text as a length is a TypeError that names the shape, and the block is not viewed after it."""
    address = mem.calloc(80)
    with pytest.raises(TypeError, match=r"^shape must be "):
        mem.array(address, "f8", shape)
    assert mem.resolve(address).pins == 0


@pytest.mark.parametrize("kind", ["S", "U", "V0"])
def test_items_without_bytes_need_a_shape(mem: SpectralMemory, kind: str) -> None:
    """As many items as fit are asked for, of a dtype of 0 bytes: a ValueError that names the dtype."""
    address = mem.calloc(80)
    with pytest.raises(ValueError, match=f"{np.dtype(kind)}.* 0 bytes"):
        mem.array(address, kind)
    assert mem.resolve(address).pins == 0


@pytest.mark.parametrize("setting", ["redundancy", "seed"])
@pytest.mark.parametrize("wrong", [1.0, "a", None, b"1", (1,)])
def test_settings_of_a_heap_that_are_no_ints_are_named(setting: str, wrong: Any) -> None:
    """A heap whose redundancy or seed is no int is refused with a TypeError that names the setting."""
    with pytest.raises(TypeError, match=f"^{setting} must be an int, not "):
        SpectralMemory(**{setting: wrong})


@pytest.mark.parametrize("wrong", [-1, 3, 1 << 70])
def test_redundancy_out_of_range_is_named(wrong: int) -> None:
    """Parity shards below 0 or above 2 are a ValueError that names them."""
    with pytest.raises(ValueError, match=f"^redundancy must be 0 to 2 parity shards, not {wrong}"):
        SpectralMemory(redundancy=wrong)


def test_settings_of_a_heap_are_integers_of_any_type() -> None:
    """Seed and redundancy may be NumPy's, and mean what the same int means."""
    made = SpectralMemory(seed=np.int64(3), redundancy=np.uint8(1))
    with made as mem, SpectralMemory(seed=3, redundancy=1) as twin:
        assert mem.space == twin.space
        address = mem.malloc(100)
        assert address == twin.malloc(100)
        for each in (mem, twin):
            each.write(address, bytes(range(100)))
            each.demote(address)
            each.demote(address)
        assert mem.scrub() == twin.scrub()


@pytest.mark.parametrize("wrong", [1.0, "1", None])
def test_moves_by_hand_name_what_is_no_int(mem: SpectralMemory, wrong: Any) -> None:
    """promote and demote of what is no address, and steps of what is no size, are TypeErrors that say so."""
    for move in (mem.promote, mem.demote):
        with pytest.raises(TypeError, match=r"^an address is an int, not "):
            move(wrong)
    with pytest.raises(TypeError, match=r"^step_bytes must be an int, not "):
        mem.compact(wrong)
    with pytest.raises(ValueError, match=r"^step_bytes must be at least 1"):
        mem.compact(np.int64(0))
    assert mem.compact(np.int64(1 << 20)) == mem.compact(1 << 200) == 0
