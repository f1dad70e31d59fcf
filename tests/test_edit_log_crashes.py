"""The edit log of a process that forks or is killed: nothing promised is lost, and a child leaves the file alone."""

import os
import random
import signal
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from edit_logs import attach_faulty, reopened
from faults import FaultyFileSystem

from spectral_alloc import GenerativeSpace, LockedError


def exit_status(work: Callable[[], bool]) -> int:
    """The exit status of a forked child: 0 if work says that all is well."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_process_may_read_but_not_write_the_parents_log(tmp_path: Path) -> None:
    """It is told so, and goes on in memory after detach(); the parent's file has nothing of it."""
    space = GenerativeSpace(1).attach(tmp_path / "log", "none")
    space[1] = 1.0

    def work() -> bool:
        for attempt in (lambda: space.write(2, 2.0), lambda: space.scatter([2], 2.0), space.sync):
            with pytest.raises(LockedError, match="parent process"):
                attempt()
        assert space[1] == 1.0
        space.detach()
        space[2] = 2.0
        return space[2] == 2.0 and space[1] == 1.0

    assert exit_status(work) == 0
    space[3] = 3.0
    space.detach()
    assert reopened(tmp_path / "log") == {1: 1.0, 3: 3.0}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("method", ["sync", "write_at", "create"])
@pytest.mark.parametrize("end", ["detach", "exit"])
def test_a_child_never_waits_for_a_thread_of_its_parent(tmp_path: Path, method: str, end: str) -> None:
    """Forked while a thread syncs, writes or compacts the log, it lets the log go, and leaves the file alone."""
    disk, is_held, gate = FaultyFileSystem(), threading.Event(), threading.Event()
    space = GenerativeSpace(1)
    log = attach_faulty(space, tmp_path / "log", disk)
    space[1] = 1.0
    parent = os.getpid()

    def hold() -> None:
        is_held.set()
        assert os.getpid() == parent
        gate.wait(60)

    disk.before(method, hold)
    thread = threading.Thread(target=log.compact)
    thread.start()
    is_held.wait(60)

    def work() -> bool:
        signal.alarm(60)
        for attempt in (space.sync, space.compact, lambda: space.write(2, 2.0)):
            with pytest.raises(LockedError, match="parent process"):
                attempt()
        if end == "exit":
            space._closer()  # as at the end of a program
            return True
        space.detach()
        space[2] = 2.0
        return dict(space.edits()) == {1: 1.0, 2: 2.0}

    before = (tmp_path / "log").read_bytes()
    try:
        assert exit_status(work) == 0
        assert (tmp_path / "log").read_bytes() == before
    finally:
        gate.set()
        thread.join()
    space[3] = 3.0
    space.detach()
    assert reopened(tmp_path / "log") == {1: 1.0, 3: 3.0}


def value_of(number: int) -> float:
    """What the writers below write at an address: exact, and different everywhere."""
    return struct.unpack("<d", struct.pack("<Q", number * 0x9E3779B97F4A7C15 % 2**62))[0]


def write_until_killed(path: Path, durability: str, pipe: int, start: int) -> None:
    """Write edits, and after each that is promised tell its number."""
    space = GenerativeSpace(1).attach(path, durability)
    number = start
    while True:
        if number % 3:
            space[number] = value_of(number)
            number += 1
        else:
            space.scatter(range(number, number + 40), [value_of(n) for n in range(number, number + 40)])
            number += 40
        if durability == "none":
            space.sync()
        os.write(pipe, struct.pack("<Q", number))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_nothing_promised_is_lost_by_kills(tmp_path: Path, long_mode: bool) -> None:
    """100 SIGKILLs at random moments: every edit up to the last promise is there, exactly, and nothing else."""
    path, draw, promised = tmp_path / "log", random.Random(8), 0
    for kill in range(2000 if long_mode else 100):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                write_until_killed(path, ("none", "always")[kill % 2], writer, promised)
            finally:
                os._exit(1)
        os.close(writer)
        first = os.read(reader, 8)
        threading.Event().wait(draw.random() * 0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told = first
        while piece := os.read(reader, 1 << 16):
            told += piece
        os.close(reader)
        promised = struct.unpack("<Q", told[len(told) // 8 * 8 - 8 : len(told) // 8 * 8])[0]
        found = reopened(path)
        assert len(found) >= promised
        assert list(found) == list(range(len(found)))
        assert all(found[number] == value_of(number) for number in found)
        promised = len(found)
        if kill % 20 == 19:
            with GenerativeSpace(1).attach(path) as space:
                space.compact()
