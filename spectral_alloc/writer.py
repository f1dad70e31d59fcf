"""The background writer: one daemon thread a process that does the slow work of all containers ahead of need.

Words: a *job* is a container with a backlog (Tiers.has_backlog); a *turn* is one call of its work().

Invariants:
1. Containers are held weakly between turns: a waiting job keeps no dict alive.
2. Nothing depends on the writer: a relief that needs room now does the work itself.

Threads: submit from any. The thread starts with the first job and ends after a few idle seconds.
"""

import threading
import weakref
from queue import Empty, SimpleQueue
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
        # One dict, since Ctrl-C between the updates of two would leave a container "queued" for ever.
        self._jobs: dict[int, weakref.ref[Worker]] = {}
        # A SimpleQueue may be used from finalisers, in the middle of its own methods; an Event may not.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, container: "weakref.ref[Worker]") -> None:
        """Queue a turn for a container, unless one is queued. Cost: a dict look-up when it is; never blocks."""
        if id(container) not in self._jobs:
            self._jobs[id(container)] = container
            self._wake.put(None)
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
            while self._jobs:
                self._turn(self._jobs.pop(next(iter(self._jobs))))
            try:
                self._wake.get(timeout=IDLE_SECONDS)
            except Empty:
                # Given up before the last look: a job that comes after it finds no thread and starts another.
                self._thread = None
                if not self._jobs:
                    return
                self._thread = threading.current_thread()

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
        self._jobs, self._wake, self._thread = {}, SimpleQueue(), None
