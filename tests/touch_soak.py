"""Threads, forks, flushes and evictions on arrays on touch for as many seconds as wanted; every value is checked.

    python tests/touch_soak.py --seconds 600 --seed 1

Item i of an array of words holds what the space generates, or i * 2^24 + version: so a value tells whether it is one
that was ever written there. Each writer owns a part of the items and knows exactly what they hold; readers and forked
children know that a version lies between what was written when they began and when they ended. Prints a line of JSON.
"""

import argparse
import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable

import numpy

from spectral_alloc import GenerativeSpace, SpectralMemory, touch

COUNT = 300_000
PARTS = 6  # of them the last two are nobody's
VERSION_BITS = 24
CHILD_SECONDS = 120


class Soak:
    """Two arrays with fourteen pages in memory each at first, what was written to them, and the threads that do."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.space = GenerativeSpace(seed=seed, values="uint64")
        self.memory = SpectralMemory(memory_limit="4 MB")
        limit = None if touch.way() == touch.EAGER else "64 KiB"
        self.array = self.space.array(COUNT, resident_limit=limit)
        self.zeros = self.memory.array(None, "u8", COUNT, resident_limit=limit)
        self.generated = self.space[:COUNT]
        self.versions = numpy.zeros((2, COUNT), dtype=numpy.uint64)
        self.stop = threading.Event()
        self.failures: list[str] = []
        self.counts = {"writes": 0, "reads": 0, "flushes": 0, "forks": 0, "evictions": 0}

    def values(self, which: int, items: numpy.ndarray, versions: numpy.ndarray) -> numpy.ndarray:
        """What items hold at these versions."""
        unwritten = self.generated[items] if which == 0 else numpy.zeros(len(items), dtype=numpy.uint64)
        written = (items.astype(numpy.uint64) << numpy.uint64(VERSION_BITS)) + versions
        return numpy.where(versions == 0, unwritten, written)

    def expect(
        self, which: int, items: numpy.ndarray, got: numpy.ndarray, low: numpy.ndarray, high: numpy.ndarray
    ) -> None:
        """Values are of versions from low to high; AssertionError with the first that is not."""
        mask = numpy.uint64((1 << VERSION_BITS) - 1)
        is_unwritten = got == self.values(which, items, numpy.zeros(len(items), dtype=numpy.uint64))
        versions = numpy.where(is_unwritten, numpy.uint64(0), got & mask)
        right = (got == self.values(which, items, versions)) & (low <= versions) & (versions <= high)
        if not right.all():
            first = int(numpy.argmin(right))
            found = f"array {which}, item {items[first]}: {got[first]:#x}, versions {low[first]} to {high[first]}"
            raise AssertionError(f"{found}, {int((~right).sum())} wrong of {len(items)}")

    def write(self, part: int) -> None:
        """Write own items of both arrays, singly, strided or through the space, and read them back at once."""
        draw = numpy.random.default_rng((self.seed, part))
        while not self.stop.is_set():
            which = int(draw.integers(0, 2))
            if draw.random() < 0.3:
                start = int(draw.integers(0, COUNT // PARTS - 400))
                items = numpy.arange(start, start + 400) * PARTS + part
            else:
                items = numpy.unique(draw.integers(0, COUNT // PARTS, 12)) * PARTS + part
            versions = self.versions[which, items] + numpy.uint64(1)
            values = self.values(which, items, versions)
            if which == 0 and part == 3:
                self.space.scatter(items, values)
            else:
                (self.array, self.zeros)[which][items] = values
            got = (self.array, self.zeros)[which][items]
            self.versions[which, items] = versions
            assert (got == values).all(), f"part {part} of array {which} does not hold what was just written"
            self.counts["writes"] += len(items)

    def read(self, part: int) -> None:
        """Read anybody's items, in sequence and at random."""
        draw = numpy.random.default_rng((self.seed, part, 1))
        while not self.stop.is_set():
            which = int(draw.integers(0, 2))
            start = int(draw.integers(0, COUNT - 3000))
            items = numpy.arange(start, start + 3000) if draw.random() < 0.5 else draw.integers(0, COUNT, 30)
            self.compare(which, items)
            self.counts["reads"] += len(items)

    def compare(self, which: int, items: numpy.ndarray) -> None:
        """Read items, and check them against the versions before and after; a write in progress is one ahead."""
        low = self.versions[which, items]
        got = (self.array, self.zeros)[which][items]
        self.expect(which, items, got, low, self.versions[which, items] + numpy.uint64(1))

    def tend(self) -> None:
        """Flush, evict, change limits, check."""
        draw = numpy.random.default_rng((self.seed, 2))
        while not self.stop.is_set():
            choice = draw.random()
            array = (self.array, self.zeros)[int(draw.integers(0, 2))]
            if choice < 0.5:
                touch.flush(array)
                self.counts["flushes"] += 1
            elif choice < 0.7:
                touch.evict(array)
                self.counts["evictions"] += 1
            elif hasattr(touch.owner(array), "check"):
                touch.owner(array).set_limit(int(draw.integers(64, 2048)) << 10)
                touch.owner(array).check()
            time.sleep(0.02)

    def fork(self) -> None:
        """Fork a child that reads all, writes, evicts, flushes, and reads all again."""
        sys.stdout.flush()
        process = os.fork()
        if process != 0:
            deadline = time.monotonic() + CHILD_SECONDS
            while (done := os.waitpid(process, os.WNOHANG))[0] == 0:
                if time.monotonic() > deadline:
                    os.kill(process, signal.SIGABRT)
                    os.waitpid(process, 0)
                    raise AssertionError("a child hangs")
                time.sleep(0.01)
            assert done[1] == 0, f"a child failed: {done[1]}"
            self.counts["forks"] += 1
            return
        status = 1
        try:
            self.live_as_child()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def live_as_child(self) -> None:
        """All items are of a version as the fork found them; then this process's own writes hold."""
        everything = numpy.arange(COUNT)
        for which in (0, 1):
            self.compare(which, everything)
            items = everything[which::7]
            values = self.values(which, items, self.versions[which, items] + numpy.uint64(7))
            array = (self.array, self.zeros)[which]
            array[items] = values
            touch.evict(array)
            assert (array[items] == values).all(), "a child lost its own writes"
            touch.flush(array)
            assert (array[items] == values).all(), "a child lost its own writes in a flush"
        assert (self.space[:COUNT] == self.array).all(), "a child's space is not its array"

    def guarded(self, work: Callable[..., None], *arguments: int) -> None:
        """Work, and tell of what goes wrong."""
        try:
            work(*arguments)
        except BaseException:
            self.failures.append(traceback.format_exc())
            self.stop.set()

    def run(self, seconds: float) -> None:
        """All of it at once, then a last look at everything."""
        works: list[tuple[Callable[..., None], int]] = [(self.write, part) for part in range(PARTS - 2)]
        works += [(self.read, 0), (self.read, 1)]
        threads = [threading.Thread(target=self.guarded, args=work) for work in works]
        threads.append(threading.Thread(target=self.guarded, args=(self.tend,)))
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.stop.is_set():
            self.guarded(self.fork)
            time.sleep(0.05)
        self.stop.set()
        for thread in threads:
            thread.join()
        assert self.failures == [], "\n".join(self.failures)
        everything = numpy.arange(COUNT)
        for which in (0, 1):
            got = (self.array, self.zeros)[which][everything]
            self.expect(which, everything, got, self.versions[which], self.versions[which])
        self.space.flush()
        assert (self.space[:COUNT] == self.array).all()
        self.space.check()


def main() -> None:
    """Run for so many seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    faulthandler.enable()
    # A deadlock in which nobody has the GIL for ever would otherwise be a hang without a word.
    faulthandler.dump_traceback_later(options.seconds * 3 + 240, exit=True)
    soak = Soak(options.seed)
    start = time.monotonic()
    soak.run(options.seconds)
    figures = touch.stats(soak.array)._asdict() | {"seconds": round(time.monotonic() - start, 1)} | soak.counts
    print(json.dumps(figures))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
