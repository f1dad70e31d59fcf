"""ColdStore under threads, forks and workers: no frame is lost, no process touches another one's files."""

import multiprocessing
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import FaultyFileSystem

from spectral_alloc.cold_store import ColdStore, segment_of
from spectral_alloc.errors import ClosedError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ColdStore]:
    """A store with small segments, which must leave nothing."""
    subject = ColdStore(tmp_path, segment_bytes=1000)
    yield subject
    subject.close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads change every few bytecodes."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_child(work: Callable[[], object]) -> None:
    """Run ``work`` in a forked child and assert that it did not raise."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.usefixtures("impatient")
def test_threads(store: ColdStore) -> None:
    """Threads that append, read, release and compact at once find their own frames; the accounts add up."""
    errors: list[BaseException] = []

    def churn(seed: int) -> None:
        dice = random.Random(seed)
        held: dict[int, bytes] = {}
        try:
            for step in range(300):
                frames = [
                    b"%d-%d-%d" % (seed, step, n) + b"." * dice.randrange(80)
                    for n in range(dice.randrange(1, 4))
                ]
                held.update(zip(store.append(frames), frames, strict=True))
                for place, frame in dice.sample(sorted(held.items()), min(3, len(held))):
                    assert store.read(place, len(frame)) == frame
                while len(held) > 20:
                    place = dice.choice(sorted(held))
                    store.release(place, len(held.pop(place)))
                if step % 20 == 0:
                    victims = set(store.victims(0.2))
                    for place in [place for place in held if segment_of(place) in victims]:
                        frame = held.pop(place)
                        held[store.append([frame], moving=True)[0]] = frame
                        store.release(place, len(frame))
                    store.check()
            for place, frame in held.items():
                assert store.read(place, len(frame)) == frame
                store.release(place, len(frame))
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    store.seal()
    assert (store.live_bytes, store.segment_count) == (0, 0)
    store.check()


@pytest.mark.usefixtures("impatient")
def test_every_thread_releases_its_part_of_one_segment(store: ColdStore) -> None:
    """Releases of one segment from many threads are all counted, so that the segment goes."""
    for _ in range(5):
        places = store.append([b"x"] * 4000)
        store.seal()
        threads = [
            threading.Thread(
                target=lambda part: [store.release(place, 1) for place in part], args=(places[n::8],)
            )
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.segment_count == 0
    store.check()


@pytest.mark.usefixtures("impatient")
def test_close_under_readers_and_writers(tmp_path: Path) -> None:
    """Threads that use the store while it is closed get right bytes or ClosedError, nothing else."""
    for _ in range(10):
        store = ColdStore(tmp_path, segment_bytes=100)
        (place,) = store.append([b"frame"])
        outcomes: list[object] = []

        def use(store: ColdStore = store, place: int = place, outcomes: list[object] = outcomes) -> None:
            try:
                while True:
                    assert store.read(place, 5) == b"frame"
                    store.append([b"x" * 60])
            except BaseException as error:
                outcomes.append(type(error))

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        store.close()
        for thread in threads:
            thread.join()
        assert outcomes == [ClosedError] * 4
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("told", [True, False])
def test_fork(store: ColdStore, tmp_path: Path, told: bool) -> None:
    """A forked child reads the parent's frames and writes to its own directory, told of the fork or not."""
    (old,) = store.append([b"o" * 900])
    (shared,) = store.append([b"s" * 500])

    def in_the_child() -> None:
        if told:
            store.after_fork_in_child()
            store.after_fork_in_child()
            assert (store.directory, store.file_bytes, store.live_bytes, store.dead_bytes) == (None, 0, 0, 0)
        assert (store.read(old, 900), store.read(shared, 500)) == (b"o" * 900, b"s" * 500)
        store.release(old, 900)
        (own,) = store.append([b"c" * 100])
        assert len({segment_of(place) for place in (old, shared, own)}) == 3
        assert (store.read(shared, 500), store.read(own, 100)) == (b"s" * 500, b"c" * 100)
        assert store.file_bytes == 100
        assert len(list(tmp_path.iterdir())) == 2
        assert store.segment_count == 2
        store.check()
        store.close()
        assert len(list(tmp_path.iterdir())) == 1

    files = sorted(tmp_path.rglob("*"))
    in_child(in_the_child)
    assert sorted(tmp_path.rglob("*")) == files
    assert (store.read(old, 900), store.read(shared, 500)) == (b"o" * 900, b"s" * 500)
    assert store.append([b"p" * 100]) == [shared + 500]
    store.check()


def test_parent_goes_on_after_fork(store: ColdStore) -> None:
    """What the parent unlinks, compacts and closes stays readable in the child, and a grandchild reads on."""
    (old,) = store.append([b"o" * 900])
    (shared,) = store.append([b"s" * 500])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            store.after_fork_in_child()
            os.close(writer)
            assert os.read(reader, 1) == b""
            (own,) = store.append([b"c" * 100])

            def in_the_grandchild() -> None:
                store.after_fork_in_child()
                assert store.read(old, 900) + store.read(shared, 500) == b"o" * 900 + b"s" * 500
                assert store.read(own, 100) == b"c" * 100

            in_child(in_the_grandchild)
            store.close()
            status = 0
        finally:
            os._exit(status)
    os.close(reader)
    store.release(old, 900)
    store.close()
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_child_that_closes_leaves_the_parents_files(store: ColdStore, tmp_path: Path) -> None:
    """A child that closes the store leaves the parent's directory alone, with and without one of its own."""
    (place,) = store.append([b"x" * 900])
    in_child(store.close)
    in_child(lambda: (store.append([b"c"]), store.close()))
    assert [str(path) for path in tmp_path.iterdir()] == [store.directory]
    assert store.read(place, 900) == b"x" * 900
    store.check()


def test_fork_while_another_thread_writes(tmp_path: Path) -> None:
    """A child forked during another thread's append has no stuck lock, and the parent's write arrives."""
    disk = FaultyFileSystem()
    store = ColdStore(tmp_path, None, disk, segment_bytes=1000)
    (first,) = store.append([b"first"])
    writing, go_on = threading.Event(), threading.Event()
    results: list[int] = []

    def stuck() -> None:
        writing.set()
        assert go_on.wait(30)

    disk.before("write_at", stuck)
    thread = threading.Thread(target=lambda: results.extend(store.append([b"second"])))
    thread.start()
    assert writing.wait(30)

    def in_the_child() -> None:
        disk.heal()
        (own,) = store.append([b"own"])
        assert (store.read(first, 5), store.read(own, 3)) == (b"first", b"own")
        store.check()
        store.close()

    in_child(in_the_child)
    go_on.set()
    thread.join()
    assert store.read(results[0], 6) == b"second"
    store.check()
    store.close()
    assert list(tmp_path.iterdir()) == []


STORE_OF_WORKERS: list[ColdStore] = []


def work_in_pool(number: int) -> bytes:
    """Append to the inherited store and read back a frame of the parent's and one's own."""
    (store,) = STORE_OF_WORKERS
    (place,) = store.append([b"%04d" % number])
    return store.read(0, 6) + store.read(place, 4)


def test_worker_processes_clean_up(store: ColdStore, tmp_path: Path) -> None:
    """Workers of multiprocessing, which skip the ordinary exit handlers, remove their directories."""
    assert store.append([b"shared"]) == [0]
    STORE_OF_WORKERS[:] = [store]
    try:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(work_in_pool, range(20), chunksize=1) == [b"shared%04d" % n for n in range(20)]
            pool.close()
            pool.join()
    finally:
        STORE_OF_WORKERS.clear()
    assert [str(path) for path in tmp_path.iterdir()] == [store.directory]
