"""The committer: one daemon thread a process that settles journals of durability="interval" when they are due."""

import heapq
import threading
import time
import weakref
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

from spectral_alloc.errors import ClosedError

__all__ = ["Committer", "committer"]

IDLE_SECONDS = 5.0
WAIT_SECONDS_MAX = 3600.0  # what any system can wait in one call; a journal may be due in a thousand years
PAUSE_SECONDS = 0.1  # after an error of the thread itself: out of memory, perhaps


class Settling(Protocol):
    """What the committer needs of a journal."""

    def settle(self) -> None:
        """Make durable what was written."""


class Committer:
    """Calls ``journal.settle()`` at the time that was asked for.

    Journals are held weakly. An error is reported like one of a thread, and the next write submits the journal again;
    it ends neither the thread nor what other journals were promised.
    Threads: submit from any; the thread starts with the first journal and ends after a few idle seconds.
    """

    def __init__(self) -> None:
        # A SimpleQueue may be used from finalisers, in the middle of its own methods.
        self._queue: SimpleQueue[tuple[float, weakref.ref[Settling]]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        #: A heap; the number keeps ties in order. Of the thread alone.
        self._waiting: list[tuple[float, int, weakref.ref[Settling]]] = []
        self._number = 0

    def submit(self, journal: "weakref.ref[Settling]", due_seconds: float) -> None:
        """Ask for a journal to be settled at a time of the monotonic clock."""
        self._queue.put((due_seconds, journal))
        thread = self._thread
        if thread is None or not thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="spectral_alloc committer", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while self._thread is threading.current_thread():
            try:
                self._turn()
            except BaseException as error:
                self._report(error)
                time.sleep(PAUSE_SECONDS)

    def _turn(self) -> None:
        """Wait for the next journal, or until one is due, and settle what is due."""
        waiting = self._waiting
        left_seconds = waiting[0][0] - time.monotonic() if waiting else IDLE_SECONDS
        try:
            due_seconds, reference = self._queue.get(timeout=min(max(0.0, left_seconds), WAIT_SECONDS_MAX))
            self._number += 1
            heapq.heappush(waiting, (due_seconds, self._number, reference))
        except Empty:
            if not waiting:
                self._thread = None
                if self._queue.empty():
                    return
                self._thread = threading.current_thread()
        while waiting and waiting[0][0] <= time.monotonic():
            self._settle(heapq.heappop(waiting)[2])

    def _settle(self, reference: "weakref.ref[Settling]") -> None:
        journal = reference()
        if journal is None:
            return
        try:
            journal.settle()
        except ClosedError:
            pass
        except BaseException as error:  # one failing dict must not end the others' durability, whatever it raises
            self._report(error)

    def _report(self, error: BaseException) -> None:
        """Say what went wrong, in the way the program has chosen for threads."""
        with suppress(BaseException):  # a hook that fails has had its say
            threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, None)))

    def after_fork_in_child(self) -> None:
        """The thread did not come along."""
        self._queue, self._thread, self._waiting = SimpleQueue(), None, []


committer = Committer()
