"""The thread of durability="interval": whatever one dict does, the others are settled in time."""

import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from spectral_alloc import ThermalDict
from spectral_alloc.committer import Committer

WAIT_SECONDS = 60.0


class Settled:
    """A journal that notes that it was settled, or raises."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.done = threading.Event()

    def settle(self) -> None:
        """What a committer calls."""
        self.done.set()
        if self.error is not None:
            raise self.error


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[type[BaseException]]:
    """The errors that threads report; the hook itself fails, too."""
    found: list[type[BaseException]] = []

    def hook(arguments: Any) -> None:
        found.append(arguments.exc_type)
        raise RuntimeError("a hook that fails")

    monkeypatch.setattr(threading, "excepthook", hook)
    return found


@pytest.mark.parametrize("error", [ValueError(), MemoryError(), SystemExit(), KeyboardInterrupt()], ids=repr)
def test_a_failing_journal_ends_nothing_for_the_others(
    error: BaseException, reported: list[type[BaseException]]
) -> None:
    """A journal that raises anything is reported, and one that waits behind it is settled, by the same thread."""
    subject, now = Committer(), time.monotonic()
    failing, other, later = Settled(error), Settled(), Settled()
    subject.submit(weakref.ref(failing), now)
    thread = subject._thread
    subject.submit(weakref.ref(other), now + 0.01)
    assert failing.done.wait(WAIT_SECONDS)
    assert other.done.wait(WAIT_SECONDS)
    subject.submit(weakref.ref(later), now)
    assert later.done.wait(WAIT_SECONDS)
    assert subject._thread is thread
    assert reported == [type(error)]


def test_an_error_of_the_thread_itself_forgets_no_journal(
    monkeypatch: pytest.MonkeyPatch, reported: list[type[BaseException]]
) -> None:
    """The thread goes on with what waits, though its own code ran out of memory."""
    subject, turns, turn = Committer(), [0], Committer._turn

    def failing_turn(committer: Committer) -> None:
        turns[0] += 1
        if turns[0] == 2:
            raise MemoryError
        turn(committer)

    monkeypatch.setattr(Committer, "_turn", failing_turn)
    journal = Settled()
    subject.submit(weakref.ref(journal), time.monotonic() + 0.05)
    assert journal.done.wait(WAIT_SECONDS)
    assert reported == [MemoryError]


@pytest.mark.parametrize("interval_seconds", [1e11, float("inf")])
def test_an_interval_without_end_does_no_harm(tmp_path: Path, interval_seconds: float) -> None:
    """A dict that is due in the far future leaves the one that is due soon its promise."""
    with ThermalDict.open(tmp_path / "a", durability="interval", interval_seconds=interval_seconds) as far:
        far["x"] = 1
        with ThermalDict.open(tmp_path / "b", durability="interval", interval_seconds=0.01) as near:
            near["x"] = 1
            end_seconds = time.monotonic() + WAIT_SECONDS
            journal: Any = near._journal
            while not journal.commit_count and time.monotonic() < end_seconds:
                time.sleep(0.01)
            assert ThermalDict.open(tmp_path / "b", readonly=True) == {"x": 1}


def test_arming_beside_a_commit_gives_the_committer_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that arms its journal while another thread disarms it hands over the time at which it is due."""
    subject: Any = ThermalDict.open(tmp_path / "d", durability="interval", interval_seconds=100.0)
    due: list[Any] = []

    class Disarming:
        """What asks whether the time goes by is where the other thread comes in."""

        @property
        def runs_by_itself(self) -> bool:
            """True, and disarmed."""
            subject._journal._disarm()
            return True

        def monotonic(self) -> float:
            """Some time."""
            return 1.0

    monkeypatch.setattr(subject._journal, "clock", Disarming())
    monkeypatch.setattr(
        sys.modules["spectral_alloc.journal"].committer, "submit", lambda journal, seconds: due.append(seconds)
    )
    subject["x"] = 1
    assert due == [101.0]
    subject.close()


def test_a_thread_that_cannot_start_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that could not be handed over says so, and the next one is heard of."""
    subject: Any = ThermalDict.open(tmp_path / "d", durability="interval", interval_seconds=0.01)

    def submit(journal: object, seconds: float) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["spectral_alloc.journal"].committer, "submit", submit)
        with pytest.raises(RuntimeError, match="start"):
            subject["x"] = 1
    subject["x"] = 2
    end_seconds = time.monotonic() + WAIT_SECONDS
    while not subject._journal.commit_count and time.monotonic() < end_seconds:
        time.sleep(0.01)
    assert ThermalDict.open(tmp_path / "d", readonly=True) == {"x": 2}
    subject.close()
