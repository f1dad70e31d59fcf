"""Forks: a child has the array as it was, and neither process sees what the other writes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable

import numpy

from spectral_alloc import GenerativeSpace, SpectralMemory, touch
from touch_cases import checked, same, tiny

COUNT = 60_000
CHILD_SECONDS = 60


def in_child(work: Callable[[], None]) -> None:
    """Run work in a forked child; AssertionError if it fails there."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        signal.alarm(CHILD_SECONDS)
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitpid(process, 0)[1] == 0


def case_a_child_has_the_array() -> None:
    """Clean, edited and packed pages are in the child as they were; each process goes on by itself, children too."""
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    array[: COUNT // 2 : 3] = 1
    array[COUNT - 100 :] = 2
    array[1000:2000].sum()
    model = array.copy()
    array[COUNT - 1] = model[COUNT - 1] = 9

    def child() -> None:
        assert same(array, model)
        array[::5] = 3
        changed = model.copy()
        changed[::5] = 3
        touch.evict(array)
        assert same(array, changed)
        space.flush()
        assert same(space[:COUNT], changed)
        checked(array)

        def grandchild() -> None:
            array[1] = 7
            touch.evict(array)
            assert array[1] == 7
            assert same(array[2:], changed[2:])

        in_child(grandchild)
        assert same(array, changed)

    in_child(child)
    assert same(array, model)
    space.flush()
    assert same(space[:COUNT], model)
    checked(array)


def case_a_child_flushes_whatever_its_parent_was_flushing() -> None:
    """A child forked while another thread flushes an array waits for nobody: it flushes, and has the edits."""
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    array[7] = 0.5
    is_held, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with touch.owner(array)._flushing, space.overlay.telling:
            is_held.set()
            is_over.wait(CHILD_SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()

    def child() -> None:
        space.flush()
        assert list(space.edits()) == [(7, 0.5)]

    try:
        in_child(child)
    finally:
        is_over.set()
        thread.join()


def case_many_forks_with_packed_pages() -> None:
    """Files of packed pages are sealed by forks, merged and closed: a hundred forks leave few, and lose nothing."""
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    model = space[:COUNT]
    draw = numpy.random.default_rng(4)
    for step in range(100):
        places = draw.integers(0, COUNT, 40)
        array[places] = model[places] = step + draw.random(40)
        touch.evict(array)
        in_child(lambda: None)
        checked(array)
    files = [name for name in os.listdir("/proc/self/fd") if "(deleted)" in target_of(name)]
    assert len(files) < 32
    in_child(lambda: None if same(array, model) else os._exit(3))
    assert same(array, model)


def target_of(name: str) -> str:
    """What a descriptor of ours shows; nothing if it is gone already."""
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        return ""


def case_forks_while_threads_touch() -> None:
    """Forks in the middle of faults, flushes and writes of other threads neither hang nor show a wrong value."""
    space = GenerativeSpace(seed=1, values="uint64")
    space.scatter(numpy.arange(0, COUNT, 64), numpy.arange(0, COUNT, 64))
    array = tiny(space, COUNT)
    generated = space[:COUNT]
    stop = threading.Event()
    failures: list[object] = []

    def work(part: int) -> None:
        draw = numpy.random.default_rng(part)
        while not stop.is_set():
            places = draw.integers(0, COUNT // 8, 10) * 8 + part
            if part < 2 and not (array[places] == generated[places]).all():
                failures.append(places)
            if part == 2:
                array[places] = places
            if part == 3:
                space.scatter(places, places)
                space.flush()

    def child() -> None:
        for part in (0, 1, 4):
            assert same(array[part::8], generated[part::8])
        for part in (2, 3):
            own = array[part::8]
            assert ((own == generated[part::8]) | (own == numpy.arange(part, COUNT, 8))).all()

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            in_child(child)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    checked(array)


def doubled(part: int) -> float:
    """The sum of a part of the array that the fork left here."""
    return float(_shared[part * 1000 : (part + 1) * 1000].sum())


_shared: numpy.ndarray = numpy.zeros(0)


def case_a_pool_of_processes() -> None:
    """Workers of multiprocessing that were forked read the array."""
    global _shared
    space = GenerativeSpace(seed=1)
    _shared = tiny(space, COUNT)
    _shared[5] = 1000
    expected = [float(_shared[part * 1000 : (part + 1) * 1000].sum()) for part in range(20)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(doubled, range(20)) == expected
    _shared = numpy.zeros(0)


def case_other_programs_start() -> None:
    """A subprocess starts and ends beside open arrays, which go on."""
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    array[::100] = 1
    said = subprocess.run(["echo", "here"], capture_output=True, check=True, preexec_fn=lambda: None)
    assert said.stdout == b"here\n"
    assert subprocess.run([sys.executable, "-c", "pass"], check=True).returncode == 0
    assert (array[::100] == 1).all()


def case_a_child_with_the_log_of_its_parent() -> None:
    """A child cannot write its parent's log: its flush says so, its edits stay, and the parent's log is whole."""
    with tempfile.TemporaryDirectory() as directory:
        space = GenerativeSpace(seed=1).attach(os.path.join(directory, "edits.log"))
        array = tiny(space, COUNT)
        array[5] = 1

        def child() -> None:
            array[6] = 2
            try:
                space.flush()
            except OSError as error:
                assert "parent" in str(error)
            else:
                raise AssertionError("the parent's log was written")
            assert array[5:7].tolist() == [1, 2]
            space.detach()
            space.flush()
            assert [space[5], space[6]] == [1, 2]

        in_child(child)
        space.detach()
        assert list(space.edits()) == [(5, 1.0)]


def case_memory_in_a_child() -> None:
    """Arrays of a SpectralMemory are in the child as they were, and apart from then on."""
    with SpectralMemory(memory_limit="8 MB") as memory:
        limit = None if touch.way() == touch.EAGER else "64 KiB"
        array = memory.array(None, "i4", COUNT, resident_limit=limit)
        array[::2] = numpy.arange(COUNT // 2)
        model = array.copy()

        def child() -> None:
            assert same(array, model)
            array[:] = 5
            touch.evict(array)
            assert (array == 5).all()
            assert (memory.array(memory.malloc(100)) >= 0).all()

        in_child(child)
        assert same(array, model)
