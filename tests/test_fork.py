"""fork: the child has the same contents and files of its own, whatever threads and the writer were doing."""

import copy
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import assert_all_cold

from spectral_alloc import ThermalDict
from spectral_alloc.cold_store import ColdStore

KEYS = range(60)
PATIENCE_SECONDS = 60


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Many files, many switches of threads, no warning that a forked process has threads: it must work with them."""
    monkeypatch.setitem(ColdStore.__init__.__kwdefaults__, "segment_bytes", 64 << 10)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
    sys.setswitchinterval(before)


def value(key: int, turn: int = 0) -> dict[str, Any]:
    return {"key": key, "turn": turn, "noise": bytearray(os.urandom(300)), "list": [key] * 50}


def forked(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked child, which leaves at once; the child's process id."""
    process_id = os.fork()
    if process_id:
        return process_id
    status = 1
    try:
        signal.alarm(PATIENCE_SECONDS)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait_for(process_id: int) -> None:
    """Wait for a child that must have succeeded."""
    _, status = os.waitpid(process_id, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def use(subject: ThermalDict, contents: dict[int, Any]) -> None:
    """Read everything, write, edit in place, demote, delete: all as in any dict."""
    subject.check()
    for key, expected in contents.items():
        assert subject[key] == expected, key
    for key in list(contents)[::2]:
        subject[key]["list"].append("edited")
    subject["new"] = value(1)
    subject.demote("new")
    subject.demote("new")
    del subject[next(iter(contents))]
    subject.stats()
    for key in list(contents)[2::2]:
        assert subject[key]["list"][-1] == "edited"
    assert subject["new"]["list"] == [1] * 50
    subject.memory_limit = 1
    stats = subject.stats()
    # The frames of the parent's other threads are still in this process, and hold what they were using.
    assert (stats.hot_entries - stats.held_entries, stats.warm_entries) == (0, 0), stats
    subject.check()


@pytest.mark.parametrize("memory_limit", [1, 40_000])
def test_fork_while_threads_and_writer_work(
    tiny: Callable[..., ThermalDict], long_mode: bool, memory_limit: int
) -> None:
    """Children forked while threads and the writer are busy have all keys, and disturb neither parent nor files."""
    subject = tiny(((key, value(key)) for key in KEYS), memory_limit=memory_limit)
    stop = threading.Event()
    contents = copy.deepcopy({key: subject[key] for key in KEYS[:10]})
    errors: list[BaseException] = []

    def churn(index: int) -> None:
        turn = 0
        try:
            while not stop.is_set():
                turn += 1
                for key in KEYS[10 + index :: 3]:
                    subject[key] = value(key, turn)
                    assert subject[key]["turn"] == turn
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=churn, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(40 if long_mode else 6):
            time.sleep(0.005)

            def child() -> None:
                assert list(subject) == list(KEYS)
                assert all(subject[key]["key"] == key for key in KEYS)
                use(subject, contents)
                subject.close()

            wait_for(forked(child))
            assert {key: subject[key] for key in contents} == contents
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert not errors
    subject.check()
    assert len(subject) == len(KEYS)


def test_child_outlives_the_parents_files(tiny: Callable[..., ThermalDict]) -> None:
    """A child reads its cold values after the parent has closed the dict and removed its directory."""
    subject = tiny((key, value(key)) for key in KEYS)
    expected = copy.deepcopy(dict(subject))
    subject.stats()
    assert_all_cold(subject)
    read_end, write_end = os.pipe()

    def child() -> None:
        assert os.read(read_end, 1) == b"x"
        use(subject, expected)
        subject.close()

    process_id = forked(child)
    directory = subject._tiers.store.directory
    subject.close()
    assert directory is not None
    assert not os.path.exists(directory)
    os.write(write_end, b"x")
    wait_for(process_id)
    os.close(read_end)
    os.close(write_end)


def test_orphan_reads_after_its_parent_has_exited(tmp_path: Path) -> None:
    """A grandchild goes on with its values when the process that wrote them has ended with all its finalisers."""
    read_end, write_end = os.pipe()

    def parent() -> None:
        subject = ThermalDict.open(memory_limit=1, spill_dir=tmp_path)
        subject.update((key, value(key)) for key in KEYS)
        contents = copy.deepcopy(dict(subject))

        def orphan() -> None:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while os.path.exists(directory):
                assert time.monotonic() < deadline
                time.sleep(0.001)
            use(subject, contents)
            subject.close()
            os.write(write_end, b"fine")

        directory = subject._tiers.store.directory
        assert directory is not None
        forked(orphan)
        subject.close()

    wait_for(forked(parent))
    os.close(write_end)
    assert os.read(read_end, 4) == b"fine"
    os.close(read_end)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("leave", ["close", "die"])
def test_end_of_a_child_leaves_the_parents_directory(tiny: Callable[..., ThermalDict], leave: str) -> None:
    """However a child ends, the parent's files stay, and those of a dead child are swept by whoever comes next."""
    subject = tiny((key, value(key)) for key in KEYS)
    before = subject._tiers.store.directory
    names = sorted(os.listdir(before))

    def child() -> None:
        subject["child"] = value(1)
        subject.stats()
        if leave == "close":
            subject.close()

    wait_for(forked(child))
    assert sorted(os.listdir(before)) == names
    other = tiny({"next": [1]})
    assert_all_cold(other)
    homes = {store.directory for store in (subject._tiers.store, other._tiers.store)}
    assert {os.path.join(os.path.dirname(before), name) for name in os.listdir(os.path.dirname(before))} == homes
    assert all(subject[key]["key"] == key for key in KEYS)
    subject.check()


def of_worker(subject: ThermalDict, answers: Any) -> None:
    """What a worker process does."""
    subject["worker"] = value(2)
    answers.put([subject[key]["key"] for key in KEYS] + [len(subject), subject._tiers.store.directory])


def test_multiprocessing(tiny: Callable[..., ThermalDict]) -> None:
    """Workers of multiprocessing's fork context have the contents, and remove what they wrote, and only that."""
    subject = tiny((key, value(key)) for key in KEYS)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=of_worker, args=(subject, answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    results = [answers.get(timeout=PATIENCE_SECONDS) for _ in workers]
    for worker in workers:
        worker.join(PATIENCE_SECONDS)
        assert worker.exitcode == 0
    for *keys, count, directory in results:
        assert (keys, count) == (list(KEYS), len(KEYS) + 1)
        assert directory != subject._tiers.store.directory
        assert not os.path.exists(directory)
    assert "worker" not in subject
    assert all(subject[key]["key"] == key for key in KEYS)
    subject.check()
    answers.close()
    answers.join_thread()
