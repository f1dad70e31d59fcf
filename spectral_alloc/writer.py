"""The background writer: one daemon thread a process that does the slow work of all containers ahead of need.

Words: a *job* is a container with a backlog (Tiers.has_backlog); a *turn* is one call of its work().

Invariants:
1. Containers are held weakly between turns: a waiting job keeps no dict alive.
2. Nothing depends on the writer: a relief that needs room now does the work itself.

Threads: submit from any. The thread starts with the first job and ends after a few idle seconds.
"""

import threading
import weakref
from typing import Protocol

from spectral_alloc.errors import ClosedError

__all__ = ["Writer"]

IDLE_SECONDS = 2.0


class Worker(Protocol):
    """What the writer needs of a container."""

    def _work(self) -> None: ...


class Writer:
    """Runs ``container._work()`` in the background, once for each submit that came since the last turn."""

    def __init__(self) -> None:
        # One dict and not a queue with a set beside it: Ctrl-C between two updates would leave a container for ever "queued".
        self._jobs: dict[int, weakref.ref[Worker]] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def submit(self, container: "weakref.ref[Worker]") -> None:
        """Queue a turn for a container, unless one is queued. Cost: a set look-up when it is; never blocks."""
        if id(container) not in self._jobs:
            self._jobs[id(container)] = container
            self._wake.set()
        thread = self._thread
        if thread is None or not thread.is_alive():
            self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="spectral_alloc writer", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:
            self._thread = None  # the interpreter is shutting down, or is out of threads: reliefs do the work

    def _run(self) -> None:
        while self._thread is threading.current_thread():
            if not self._jobs:
                self._wake.clear()
                if not self._jobs and not self._wake.wait(IDLE_SECONDS):
                    # Given up before the last look: a job that comes after it finds no thread and starts another.
                    self._thread = None
                    if not self._jobs:
                        return
                    self._thread = threading.current_thread()
                continue
            self._turn(self._jobs.pop(next(iter(self._jobs))))

    def _turn(self, reference: "weakref.ref[Worker]") -> None:
        container = reference()
        if container is None:
            return
        try:
            container._work()
        except ClosedError:
            pass  # closed during the turn: nothing is left to do for it
        except Exception as error:  # a failing container must not end the writer for the others
            threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, None)))

    def after_fork_in_child(self) -> None:
        """The thread did not come along."""
        self._jobs, self._wake, self._thread = {}, threading.Event(), None
