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
