"""ColdStore: what was appended is read back exactly, whatever fails, forks or runs at the same time."""

import errno
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import FaultyFileSystem

from spectral_alloc.cold_store import SEGMENT_BYTES, ColdStore, segment_of
from spectral_alloc.errors import ClosedError, CorruptFrameError

FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")

MakeStore = Callable[..., ColdStore]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeStore]:
    """A factory of stores with small segments; they are checked, closed, and must leave nothing."""
    stores: list[ColdStore] = []

    def make_store(file_system: FaultyFileSystem | None = None, **settings: int) -> ColdStore:
        settings = {"segment_bytes": 1000} | settings
        store = ColdStore(
            tmp_path, settings.pop("disk_limit_bytes", None), file_system or FaultyFileSystem(), **settings
        )
        stores.append(store)
        return store

    yield make_store
    for store in stores:
        store.close()
    assert list(tmp_path.iterdir()) == []


def files_of(store: ColdStore) -> list[str]:
    """Names of the segment files in the store's directory."""
    assert store.directory is not None
    return sorted(name for name in os.listdir(store.directory) if name != "lock")


def test_frames_come_back(make: MakeStore) -> None:
    """Places are distinct, name segment and offset, and give the frames back in any order."""
    store = make()
    frames = [bytes([n]) * (n + 1) for n in range(100)]
    places = store.append(frames[:50]) + store.append(frames[50:])
    assert len(set(places)) == 100
    assert [store.read(place, n + 1) for n, place in reversed(list(enumerate(places)))] == frames[::-1]
    assert places[1] == 1
    assert {segment_of(place) for place in places} == set(range(store.segment_count))
    assert (store.write_count, store.read_count) == (100, 100)
    assert store.live_bytes == store.file_bytes == sum(map(len, frames))
    store.check()


def test_a_batch_is_one_write_in_one_segment(make: MakeStore) -> None:
    """A batch is written by one system call, and is not split over two files even if it exceeds a segment."""
    disk = FaultyFileSystem()
    store = make(disk)
    store.append([b"x" * 600])
    places = store.append([b"y" * 10] * 300)
    assert disk.calls["write_some"] == 2
    assert {segment_of(place) for place in places} == {1}
    assert store.read(places[299], 10) == b"y" * 10
    store.check()


def test_nothing_happens_before_the_first_frame(make: MakeStore, tmp_path: Path) -> None:
    """A store that was never written has no directory; an empty batch makes none either."""
    store = make()
    assert store.append([]) == []
    store.seal()
    store.check()
    assert store.victims() == []
    assert (store.directory, store.segment_count, store.file_bytes) == (None, 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_empty_frames_are_refused(make: MakeStore) -> None:
    """An empty frame would share its place with the next one, so its whole batch is refused."""
    store = make()
    with pytest.raises(ValueError, match="must not be empty"):
        store.append([b"x", b""])
    assert store.file_bytes == 0


@pytest.mark.parametrize(
    "settings", [{"disk_limit_bytes": -1}, {"segment_bytes": 0}, {"segment_bytes": 1 << 40}]
)
def test_bad_settings(make: MakeStore, settings: dict[str, int]) -> None:
    """Negative and absurd sizes are refused when the store is made, with name and value."""
    (name, value) = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"{name.removesuffix('_bytes')}.* not {value}"):
        make(**settings)


@pytest.mark.parametrize("place", [5, 1 << 40, -1, 7 << 40, (1 << 64) - 1, 0])
def test_unknown_places_are_refused(make: MakeStore, place: int) -> None:
    """A place that the store never gave, or a length beyond the end, is a CorruptFrameError that names it."""
    store = make()
    store.append([b"12345"])
    with pytest.raises(CorruptFrameError, match="place"):
        store.read(place, 6)
    with pytest.raises(CorruptFrameError, match="place"):
        store.read(0, -1)


def test_a_damaged_file_is_noticed(make: MakeStore) -> None:
    """A file that was cut from outside gives CorruptFrameError for its lost frames and the others as ever."""
    store = make()
    first, second = store.append([b"first", b"second"])
    os.truncate(f"{store.directory}/segment-000000", 7)
    with pytest.raises(CorruptFrameError, match="segment 0 is damaged"):
        store.read(second, 6)
    assert store.read(first, 5) == b"first"
    with pytest.raises(AssertionError, match="segment 0 has 7, not 11 bytes"):
        store.check()


def test_dead_segments_go_at_once(make: MakeStore) -> None:
    """A sealed segment is unlinked and closed by the release of its last frame; the active one stays."""
    store = make()
    places = [store.append([b"x" * 400])[0] for _ in range(5)]
    assert files_of(store) == ["segment-000000", "segment-000001", "segment-000002"]
    store.release(places[0], 400)
    store.release(places[4], 400)
    assert store.dead_bytes == 800
    store.release(places[1], 400)
    assert files_of(store) == ["segment-000001", "segment-000002"]
    assert (store.segment_count, store.file_bytes, store.dead_bytes) == (2, 1200, 400)
    store.check()
    store.seal()
    assert files_of(store) == ["segment-000001"]
    store.check()


def test_sealing_by_append_retires_what_is_dead(make: MakeStore) -> None:
    """A segment whose frames died while it was active goes when the next one is started."""
    store = make()
    (place,) = store.append([b"x" * 900])
    store.release(place, 900)
    assert store.file_bytes == 900
    store.append([b"y" * 900])
    assert files_of(store) == ["segment-000001"]


def test_double_release_is_reported(make: MakeStore) -> None:
    """Releasing what is not live never raises and never frees more than it should; check reports it."""
    store = make()
    (place,) = store.append([b"12345"])
    store.release(place, 5)
    store.check()
    store.release(place, 5)
    assert (store.live_bytes, store.dead_bytes) == (0, 5)
    with pytest.raises(AssertionError, match="1 releases of bytes that were not live"):
        store.check()


def test_compaction(make: MakeStore) -> None:
    """Victims are the sealed segments that are dead enough, worst first; moving their frames frees them."""
    store = make(segment_bytes=100)
    held = {n: (store.append([b"%050d" % n])[0]) for n in range(20)}
    for n in (0, 4, 8, 9, 18):
        store.release(held.pop(n), 50)
    assert store.victims() == [0, 2]
    store.seal()
    assert store.victims() == [0, 2, 9]
    assert store.victims(0.6) == []
    for number in store.victims():
        for n in [n for n, place in held.items() if segment_of(place) == number]:
            (place,) = store.append([store.read(held[n], 50)], moving=True)
            store.release(held[n], 50)
            held[n] = place
    assert store.victims() == []
    assert store.dead_bytes == 0
    assert {n: int(store.read(place, 50)) for n, place in held.items()} == {n: n for n in held}
    store.check()


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_bad_dead_fraction(make: MakeStore, fraction: float) -> None:
    """A dead fraction outside 0 to 1 is refused by value."""
    with pytest.raises(ValueError, match=f"from 0 to 1, not {fraction}"):
        make().victims(fraction)


def test_segments_grow_with_the_store(make: MakeStore) -> None:
    """A store of any size has few open files, because later segments are larger."""
    store = make(segment_bytes=100)
    for _ in range(2000):
        store.append([b"x" * 100])
    assert store.segment_count < 100


def test_disk_limit_refuses_before_anything_changes(make: MakeStore) -> None:
    """An append beyond the limit raises ENOSPC naming the limit; room that is released can be used again."""
    disk = FaultyFileSystem()
    store = make(disk, disk_limit_bytes=1600)
    kept, dropped = store.append([b"k" * 700, b"d" * 800])
    writes = disk.calls["write_at"]
    with pytest.raises(
        OSError, match=r"disk_limit of 1\.6 kB leaves no room for 1 B: 1\.5 kB in use"
    ) as raised:
        store.append([b"x"])
    assert raised.value.errno == errno.ENOSPC
    assert disk.calls["write_at"] == writes
    assert store.file_bytes == 1500
    store.release(dropped, 800)
    with pytest.raises(OSError, match="800 B of it dead"):
        store.append([b"x"])
    assert store.victims() == [0]
    with pytest.raises(OSError, match="no room for 700 B"):
        store.append([store.read(kept, 700)], moving=True)
    store.release(kept, 700)
    assert store.file_bytes == 0
    store.append([b"y" * 1500])
    store.check()


def test_disk_limit_keeps_room_for_compaction(make: MakeStore) -> None:
    """A store that is full to its limit and half dead can still be compacted."""
    limit = 4 << 20
    store = make(disk_limit_bytes=limit, segment_bytes=SEGMENT_BYTES)
    held: list[int] = []

    def fill() -> None:
        while True:
            held.extend(store.append([os.urandom(10_000)]))

    with pytest.raises(OSError, match="disk_limit"):
        fill()
    for place in held[::2]:
        store.release(place, 10_000)
    alive = held[1::2]
    while victims := store.victims(0.4):
        before = store.file_bytes
        moved = [place for place in alive if segment_of(place) == victims[0]]
        for place in moved:
            alive.append(store.append([store.read(place, 10_000)], moving=True)[0])
            alive.remove(place)
            store.release(place, 10_000)
            assert store.file_bytes <= limit
        assert store.file_bytes < before
    assert store.file_bytes < limit * 0.6
    store.append([b"x" * 10_000] * 100)
    store.check()


def test_limit_is_checked_against_this_batch(make: MakeStore) -> None:
    """A batch larger than the limit is refused on an empty store, and creates nothing."""
    store = make(disk_limit_bytes=0)
    with pytest.raises(OSError, match="disk_limit of 0 B"):
        store.append([b"x"])
    assert store.directory is None


@pytest.mark.parametrize("error", [FULL, BROKEN, KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("late", [False, True])
def test_a_failed_write_changes_nothing(make: MakeStore, error: BaseException, late: bool) -> None:
    """After an error or Ctrl-C in a write earlier frames are there, nothing is counted, the store goes on."""
    disk = FaultyFileSystem()
    store = make(disk)
    (first,) = store.append([b"first"])
    disk.fail("write_at", error=error, times=1, late=late)
    with pytest.raises(type(error)):
        store.append([b"lost"] * 3)
    assert (store.file_bytes, store.write_count) == (5, 1)
    store.check()
    (second,) = store.append([b"second"])
    assert (store.read(first, 5), store.read(second, 6)) == (b"first", b"second")
    assert store.segment_count == 1
    store.check()


def test_a_disk_that_fills_up_in_a_write(make: MakeStore) -> None:
    """A write that is cut short by a full disk gives the disk its bytes back; later the store goes on."""
    disk = FaultyFileSystem()
    store = make(disk)
    (first,) = store.append([b"first"])
    disk.disk_bytes = 70
    with pytest.raises(OSError, match="No space"):
        store.append([b"x" * 50, b"y" * 50])
    assert os.path.getsize(f"{store.directory}/segment-000000") == 5
    store.check()
    disk.heal()
    (second,) = store.append([b"y" * 50])
    assert (store.read(first, 5), store.read(second, 50)) == (b"first", b"y" * 50)
    store.check()


def test_a_write_that_cannot_be_undone(make: MakeStore) -> None:
    """If undoing a failed write fails too, the segment is sealed and its waste counted as dead."""
    disk = FaultyFileSystem()
    store = make(disk)
    (first,) = store.append([b"first"])
    disk.disk_bytes = 70
    disk.fail("truncate", error=BROKEN)
    with pytest.raises(OSError, match="No space"):
        store.append([b"x" * 100])
    store.check()
    disk.disk_bytes = 1000
    (second,) = store.append([b"second"])
    assert (segment_of(first), segment_of(second)) == (0, 1)
    assert (store.read(first, 5), store.read(second, 6)) == (b"first", b"second")
    assert (store.live_bytes, store.dead_bytes, store.file_bytes) == (11, 70, 81)
    assert store.victims() == [0]
    store.check()
    store.release(first, 5)
    assert (store.dead_bytes, files_of(store)) == (0, ["segment-000001"])
    store.check()


def test_a_torn_segment_is_repaired_later(make: MakeStore) -> None:
    """If cutting off the failed write fails once, the next append does it and stays in the segment."""
    disk = FaultyFileSystem()
    store = make(disk)
    disk.disk_bytes = 70
    disk.fail("truncate", error=BROKEN, times=1)
    with pytest.raises(OSError, match="No space"):
        store.append([b"x" * 100])
    store.check()
    disk.heal()
    assert store.append([b"x"]) == [0]
    assert os.path.getsize(f"{store.directory}/segment-000000") == 1
    store.check()


@pytest.mark.parametrize("method", ["create", "make_directory", "lock", "list_names"])
@pytest.mark.parametrize("error", [FULL, OSError(errno.EMFILE, "Too many open files"), KeyboardInterrupt()])
def test_a_failed_start_can_be_retried(make: MakeStore, method: str, error: BaseException) -> None:
    """If the directory or a file cannot be made the append fails, and the next one succeeds."""
    disk = FaultyFileSystem()
    store = make(disk)
    disk.fail(method, error=error, times=1)
    if method == "list_names" and isinstance(error, OSError):
        store.append([b"x"])
    else:
        with pytest.raises(type(error)):
            store.append([b"x"])
    store.append([b"y" * 900])
    disk.fail("create", error=error, times=1)
    with pytest.raises(type(error)):
        store.append([b"z" * 900])
    (place,) = store.append([b"z" * 900])
    assert store.read(place, 900) == b"z" * 900
    store.check()


def test_failing_reads_harm_nobody(make: MakeStore) -> None:
    """EIO from a read reaches the caller; the same frame and others can be read afterwards."""
    disk = FaultyFileSystem()
    store = make(disk)
    first, second = store.append([b"first", b"second"])
    disk.fail("read_at", error=BROKEN, times=1)
    with pytest.raises(OSError, match="Input/output"):
        store.read(first, 5)
    assert (store.read(first, 5), store.read(second, 6)) == (b"first", b"second")
    assert store.read_count == 2


def test_a_failing_unlink_is_retried(make: MakeStore) -> None:
    """A dead segment that cannot be unlinked stays counted, and goes when the next segment starts."""
    disk = FaultyFileSystem()
    store = make(disk)
    places = [store.append([b"x" * 900])[0] for _ in range(2)]
    disk.fail("remove", error=BROKEN, times=1)
    store.release(places[0], 900)
    assert (store.file_bytes, store.dead_bytes) == (1800, 900)
    store.append([b"x" * 900])
    assert (store.file_bytes, store.dead_bytes) == (1800, 0)
    store.check()


def test_a_directory_that_was_cleaned_away(make: MakeStore, tmp_path: Path) -> None:
    """When a cleaner of temporary files removes the directory nothing is lost, and a new one is made."""
    store = make()
    (first,) = store.append([b"x" * 900])
    assert store.directory is not None
    for name in os.listdir(store.directory):
        os.unlink(f"{store.directory}/{name}")
    os.rmdir(store.directory)
    (second,) = store.append([b"y" * 900])
    assert (store.read(first, 900), store.read(second, 900)) == (b"x" * 900, b"y" * 900)
    assert [str(path) for path in tmp_path.iterdir()] == [store.directory]
    store.check()
    store.release(first, 900)
    store.check()


def test_closed(make: MakeStore, tmp_path: Path) -> None:
    """After close everything but release and close raises ClosedError, and nothing is left on disk."""
    store = make()
    (place,) = store.append([b"x"])
    store.close()
    store.close()
    assert list(tmp_path.iterdir()) == []
    store.release(place, 1)
    appends = (lambda: store.append([b"x"]), lambda: store.append([]))
    for use in (*appends, lambda: store.read(place, 1), store.seal, store.victims, store.check):
        with pytest.raises(ClosedError, match="closed"):
            use()
    assert (store.directory, store.segment_count, store.file_bytes) == (None, 0, 0)


def test_a_close_that_fails_can_be_repeated(make: MakeStore, tmp_path: Path) -> None:
    """An error while the directory is removed reaches the caller, and the next close finishes the work."""
    disk = FaultyFileSystem()
    store = make(disk)
    store.append([b"x"])
    for method in ("remove", "remove_directory"):
        disk.fail(method, error=BROKEN, times=1)
        with pytest.raises(OSError, match="Input/output"):
            store.close()
        with pytest.raises(ClosedError):
            store.append([b"x"])
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_file_stays_open_for_its_readers(make: MakeStore) -> None:
    """A segment that dies during a read is unlinked at once, but closed only when the read is done."""
    disk = FaultyFileSystem()
    store = make(disk)
    (place,) = store.append([b"x" * 900])
    store.append([b"y" * 900])

    def release_meanwhile() -> None:
        store.release(place, 900)
        assert files_of(store) == ["segment-000001"]
        assert disk.calls["close"] == 0

    disk.before("read_at", release_meanwhile)
    assert store.read(place, 900) == b"x" * 900
    assert disk.calls["close"] == 1


def test_release_does_not_wait_for_a_write(make: MakeStore) -> None:
    """While one thread is stuck in a write, others read, release and unlink; so do its own destructors."""
    disk = FaultyFileSystem()
    store = make(disk)
    places = [store.append([b"x" * 900])[0] for _ in range(3)]
    writing, go_on = threading.Event(), threading.Event()

    class Cell:
        pass

    def stuck() -> None:
        cell = Cell()
        weakref.finalize(cell, store.release, places[1], 900)
        del cell
        writing.set()
        assert go_on.wait(30)

    disk.before("write_at", stuck)
    thread = threading.Thread(target=store.append, args=([b"y" * 900],))
    thread.start()
    assert writing.wait(30)
    store.release(places[0], 900)
    assert store.read(places[2], 900) == b"x" * 900
    assert files_of(store) == ["segment-000002", "segment-000003"]
    go_on.set()
    thread.join()
    store.check()


def test_no_descriptor_is_left(make: MakeStore) -> None:
    """Closing, and retiring segments, closes every file that the store opened."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        store = make()
        places = [store.append([b"x" * 900])[0] for _ in range(5)]
        for place in places[:3]:
            store.release(place, 900)
        store.close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
