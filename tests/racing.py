"""Threads that race each other for a while."""

import threading
from collections.abc import Callable, Sequence

SECONDS = 1.0


def race(works: Sequence[Callable[[], object]], stop: threading.Event) -> None:
    """Run each of some functions in a thread of its own; after a second they are told to stop, and awaited."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    stop.wait(SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
