"""ColdStore interrupted: by Ctrl-C at any line of an operation, and by code that uses it from inside one."""

import errno
import functools
import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from faults import FaultyFileSystem

from spectral_alloc.cold_store import ColdStore
from spectral_alloc.file_system import REAL_FILE_SYSTEM
from spectral_alloc.spill_directory import SpillDirectory

PACKAGE = str(Path(sys.modules[ColdStore.__module__].__file__ or "").parent)
KEPT = b"kept frame"

OPERATIONS: dict[str, Callable[[ColdStore, list[int]], object]] = {
    "append": lambda store, places: store.append([b"x" * 30, b"y" * 30]),
    "append to a new segment": lambda store, places: store.append([b"x" * 900]),
    "release": lambda store, places: store.release(places[0], 500),
    "release of a last frame": lambda store, places: store.release(places[1], 1000),
    "seal": lambda store, places: store.seal(),
    "close": lambda store, places: store.close(),
}


def is_destructor(frame: FrameType | None) -> bool:
    """Whether a frame runs inside a destructor, where exceptions are not raised but printed."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def interrupted(work: Callable[[], object], line_count: int) -> bool:
    """Run ``work`` with Ctrl-C at its ``line_count``-th line; False if it has fewer lines."""
    seen = 0
    entered: set[tuple[int, int]] = set()

    def is_out_of_reach(frame: FrameType) -> bool:
        # A real Ctrl-C is delivered after calls and backward jumps only. Tracing strikes in two more spots,
        # where no handler covers the no-operation that it stops at: a line `try:`, and the line of a `with`
        # on the way out.
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        spot = (id(frame), frame.f_lineno)
        leaving = line.startswith("with ") and spot in entered
        entered.add(spot)
        return leaving or line == "try:"

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(PACKAGE) or is_destructor(frame):
            return None
        if event == "line" and not is_out_of_reach(frame):
            seen += 1
            if seen == line_count:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(KeyboardInterrupt):
            work()
    finally:
        sys.settrace(before)
    return seen >= line_count


def interrupted_stores(
    tmp_path: Path, operation: Callable[[ColdStore, list[int]], object], twice: bool
) -> Iterator[tuple[ColdStore, int, int]]:
    """Yield a store after each possible interrupt, the place of KEPT, and the live bytes before.

    ``twice`` interrupts the first write and the first unlink as well, right after they are done.
    """
    line_count, struck = 1, True
    while struck:
        disk = FaultyFileSystem()
        store = ColdStore(tmp_path, None, disk, segment_bytes=1000)
        places = (
            store.append([b"a" * 500, KEPT])[:1] + store.append([b"b" * 1000]) + store.append([b"c" * 500])
        )
        live_bytes = store.live_bytes
        if twice:
            disk.fail("write_at", error=KeyboardInterrupt(), times=1, late=True)
            disk.fail("remove", error=KeyboardInterrupt(), times=1, late=True)
        struck = interrupted(functools.partial(operation, store, places), line_count)
        disk.heal()
        if struck:
            yield store, 500, live_bytes
        store.close()
        line_count += 1
    assert line_count > 3


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "close"])
def test_interrupted_operations(tmp_path: Path, name: str, twice: bool) -> None:
    """After one Ctrl-C, or two in a row, earlier frames are there, invariants hold, and appending goes on.

    An interrupted append counts nothing.
    """
    for store, kept, live_bytes in interrupted_stores(tmp_path, OPERATIONS[name], twice):
        assert store.read(kept, len(KEPT)) == KEPT
        store.check()
        if name.startswith("append"):
            assert store.live_bytes == live_bytes
        (place,) = store.append([b"z" * 10])
        assert (store.read(place, 10), store.read(kept, len(KEPT))) == (b"z" * 10, KEPT)
        store.check()


def test_interrupted_first_append(tmp_path: Path) -> None:
    """Ctrl-C while the directory is made or swept leaves at most what the next store sweeps away."""
    line_count, struck = 1, True
    while struck:
        stale = tmp_path / "spectral_alloc-0000000000000001"
        stale.mkdir(exist_ok=True)
        (stale / "lock").touch()
        store = ColdStore(tmp_path)
        struck = interrupted(functools.partial(store.append, [b"x"]), line_count)
        (place,) = store.append([b"y"])
        assert store.read(place, 1) == b"y"
        store.check()
        store.close()
        SpillDirectory(str(tmp_path), REAL_FILE_SYSTEM).remove()
        assert list(tmp_path.iterdir()) == []
        line_count += 1
    assert line_count > 30


@pytest.mark.parametrize("twice", [False, True])
def test_interrupted_close(tmp_path: Path, twice: bool) -> None:
    """A close that was interrupted is finished by the next one."""
    for store, _, _ in interrupted_stores(tmp_path, OPERATIONS["close"], twice):
        store.close()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["write_at", "create", "make_directory"])
def test_use_from_inside_an_append(tmp_path: Path, method: str) -> None:
    """A destructor or signal handler in the middle of an append is refused, and the append succeeds."""
    disk = FaultyFileSystem()
    store = ColdStore(tmp_path, None, disk)
    refused: list[str] = []

    def use_inside() -> None:
        for use in (lambda: store.append([b"inner"]), store.seal, store.close, store.check):
            with pytest.raises(OSError, match="inside one of its own operations") as raised:
                use()
            assert raised.value.errno == errno.EDEADLK
        refused.append(method)

    disk.before(method, use_inside)
    (place,) = store.append([b"outer"])
    disk.heal()
    assert refused
    assert store.read(place, 5) == b"outer"
    assert store.live_bytes == 5
    store.check()
    store.close()
