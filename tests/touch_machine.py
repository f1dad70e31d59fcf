"""Arrays on touch against plain numpy arrays: a Hypothesis state machine in which nearly every touch evicts.

    python tests/touch_machine.py --examples 25        (the way: SPECTRAL_ALLOC_TOUCH)
"""

import argparse
import contextlib
import faulthandler
import gc
import os

import numpy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from spectral_alloc import GenerativeSpace, SpectralMemory, touch

COUNT = 40_000  # 79 pages of float64, of which 14 can be in memory
GUARD_SECONDS = 600
spans = st.tuples(st.integers(0, COUNT - 1), st.integers(1, COUNT), st.integers(1, 1100))
numbers = st.floats(0, 1) | st.sampled_from([0.0, -0.0, numpy.nan, numpy.inf])


def chosen(span: tuple[int, int, int]) -> slice:
    """A slice inside the array."""
    start, length, step = span
    return slice(start, min(COUNT, start + length), step)


class Touching(RuleBasedStateMachine):
    """An array on a space, an array of a memory, and what both must hold; besides, what the space must."""

    @initialize(seed=st.integers(0, 3), start=st.sampled_from([0, 77, 2**64 - COUNT]))
    def begin(self, seed: int, start: int) -> None:
        """A space with an array from an address on, another array that overlaps it, and an array of zeros."""
        lazy = touch.way() != touch.EAGER
        self.start, self.limit = start, "64 KiB" if lazy else None
        self.space = GenerativeSpace(seed=seed)
        self.generated = GenerativeSpace(seed=seed).window(start, COUNT)
        self.memory = SpectralMemory(memory_limit="8 MB")
        self.array = self.space.array(COUNT, start=start, resident_limit=self.limit)
        self.zeros = self.memory.array(None, "f8", COUNT, resident_limit=self.limit)
        self.model, self.kept = self.generated.copy(), self.generated.copy()
        self.zero_model = numpy.zeros(COUNT)

    @rule(span=spans)
    def read(self, span: tuple[int, int, int]) -> None:
        """A slice is what the model has."""
        assert self.array[chosen(span)].tobytes() == self.model[chosen(span)].tobytes()
        assert self.zeros[chosen(span)].tobytes() == self.zero_model[chosen(span)].tobytes()

    @rule(span=spans, number=numbers)
    def write(self, span: tuple[int, int, int], number: float) -> None:
        """Write a slice of both arrays."""
        for array in (self.array, self.model, self.zeros, self.zero_model):
            array[chosen(span)] = number

    @rule(span=spans)
    def write_back(self, span: tuple[int, int, int]) -> None:
        """Write what a slice held to begin with."""
        self.array[chosen(span)] = self.model[chosen(span)] = self.generated[chosen(span)]
        self.zeros[chosen(span)] = self.zero_model[chosen(span)] = 0.0

    @rule(span=spans, number=numbers)
    def write_the_space(self, span: tuple[int, int, int], number: float) -> None:
        """Edits of the space are in the array at once, whatever the array held there."""
        items = numpy.arange(COUNT)[chosen(span)][:500]
        addresses = items.astype(numpy.uint64) + numpy.uint64(self.start)
        self.space.scatter(addresses, numpy.full(len(items), number))
        self.model[items] = self.kept[items] = number

    @rule(item=st.integers(0, COUNT - 1))
    def delete_from_the_space(self, item: int) -> None:
        """A deleted edit shows the generated value, if there was one in the space; else nothing changes."""
        if self.space.is_edited(self.start + item):
            del self.space[self.start + item]
            self.model[item] = self.kept[item] = self.generated[item]

    @rule(span=spans)
    def copy_within(self, span: tuple[int, int, int]) -> None:
        """Write the space with values that lie in its own array."""
        items = numpy.arange(COUNT)[chosen(span)][:300]
        addresses = items[::-1].astype(numpy.uint64) + numpy.uint64(self.start)
        values = self.model[items].copy()
        self.space.scatter(addresses, self.array[items[0] : items[-1] + 1 : chosen(span).step])
        self.model[items[::-1]] = self.kept[items[::-1]] = values

    @rule()
    def flush(self) -> None:
        """After a flush the space is the array."""
        self.space.flush()
        touch.flush(self.zeros)
        self.kept = self.model.copy()

    @rule()
    def evict(self) -> None:
        """All pages leave memory."""
        touch.evict(self.array)
        touch.evict(self.zeros)
        assert touch.way() == touch.EAGER or touch.stats(self.array).resident_bytes == 0

    @precondition(lambda self: touch.way() != touch.EAGER)
    @rule(kilobytes=st.integers(64, 400))
    def limit_anew(self, kilobytes: int) -> None:
        """Another limit."""
        touch.owner(self.array).set_limit(kilobytes << 10)

    @rule(span=spans)
    def populate(self, span: tuple[int, int, int]) -> None:
        """Bring pages in; too many are refused."""
        with contextlib.suppress(ValueError):
            touch.populate(self.zeros[chosen(span)])

    @rule()
    def reopen(self) -> None:
        """When the array goes its edits are in the space, and another array shows them."""
        self.array = None
        gc.collect()
        self.kept = self.model.copy()
        self.array = self.space.array(COUNT, start=self.start, resident_limit=self.limit)

    @rule(span=spans)
    def fork(self, span: tuple[int, int, int]) -> None:
        """A child has both arrays as they are, and writes its own."""
        process = os.fork()
        if process == 0:
            status = 1
            try:
                same = self.array.tobytes() == self.model.tobytes()
                same = same and self.zeros.tobytes() == self.zero_model.tobytes()
                self.array[chosen(span)] = self.zeros[chosen(span)] = 0.75
                touch.evict(self.array)
                status = 0 if same and (self.array[chosen(span)] == 0.75).all() else 2
            finally:
                os._exit(status)
        assert os.waitpid(process, 0)[1] == 0

    @invariant()
    def check(self) -> None:
        """The invariants of pages and edits hold, and the space is what it must be."""
        if not hasattr(self, "array"):
            return
        for array in (self.array, self.zeros):
            if hasattr(touch.owner(array), "check"):
                touch.owner(array).check()
        self.space.check()
        assert self.space.window(self.start, COUNT).tobytes() == self.kept.tobytes()

    def teardown(self) -> None:
        """Everything is what the model has, to the last byte."""
        if hasattr(self, "array"):
            assert self.array.tobytes() == self.model.tobytes()
            assert self.zeros.tobytes() == self.zero_model.tobytes()
            self.memory.close()


def main() -> None:
    """Run so many examples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10)
    options = parser.parse_args()
    faulthandler.dump_traceback_later(GUARD_SECONDS, exit=True)
    suppressed = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    limits = settings(
        max_examples=options.examples,
        stateful_step_count=30,
        deadline=None,
        database=None,
        suppress_health_check=suppressed,
    )
    run_state_machine_as_test(Touching, settings=limits)
    print(f"{options.examples} examples by {touch.way()}")


if __name__ == "__main__":
    main()
