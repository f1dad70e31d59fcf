"""Edits against a plain dict over the twin: a Hypothesis machine, adversarial tables, threads, and forks."""

import os
import threading
from typing import Any

import numpy
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from space_twin import EDGES, expected, twin

from spectral_alloc import GenerativeSpace
from spectral_alloc._overlay import PAGE_ADDRESSES, Overlay

LAST = 2**64 - 1
near = st.sampled_from([0, 1, 505, 512, 2**40, 2**63, LAST - 40])
addresses = st.one_of(
    st.builds(lambda base, offset: min(base + offset, LAST), near, st.integers(0, 40)),
    st.integers(0, LAST),
    st.sampled_from(EDGES),
)
floats = st.one_of(st.floats(allow_nan=False), st.integers(-(2**53), 2**53))


class EditMachine(RuleBasedStateMachine):
    """A space and the dict that says what was written; whatever else is asked for comes from the twin."""

    @initialize(seed=st.one_of(st.integers(), st.text(max_size=5), st.binary(max_size=5)))
    def begin(self, seed: int | str | bytes) -> None:
        """An empty space."""
        self.space = GenerativeSpace(seed)
        self.key = twin.seed_key(seed)
        self.model: dict[int, float] = {}

    def value(self, address: int) -> float:
        """What must stand at an address."""
        return self.model[address] if address in self.model else expected("float64", self.key, address)

    @rule(address=addresses, value=floats, is_item=st.booleans())
    def write(self, address: int, value: float, is_item: bool) -> None:
        """One edit."""
        if is_item:
            self.space[address] = value
        else:
            self.space.write(address=address, value=value)
        self.model[address] = float(value)

    @rule(pairs=st.lists(st.tuples(addresses, floats), max_size=30))
    def scatter(self, pairs: list[tuple[int, float]]) -> None:
        """Many; the last one for an address stays."""
        self.space.scatter([address for address, _ in pairs], [float(value) for _, value in pairs])
        self.model.update((address, float(value)) for address, value in pairs)

    @rule(base=near, count=st.integers(0, 700), step=st.sampled_from([1, 2, 513, -1]), value=floats)
    def assign_slice(self, base: int, count: int, step: int, value: float) -> None:
        """A progression."""
        start = base if step > 0 else min(base + 700, LAST)
        chosen = [address for address in range(start, start + count * step, step) if 0 <= address <= LAST]
        end = max(-1, min(start + count * step, 2**64))
        self.space[start : None if end == -1 else end : step] = value
        self.model.update(dict.fromkeys(chosen, float(value)))

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """One edit away, or an address that has none."""
        known = st.sampled_from(sorted(self.model)) if self.model else addresses
        address = data.draw(st.one_of(known, addresses))
        del self.space[address]
        self.model.pop(address, None)

    @rule(base=near, count=st.integers(0, 2000), step=st.sampled_from([1, 3, 511]))
    def delete_slice(self, base: int, count: int, step: int) -> None:
        """Every edit of a progression."""
        stop = min(base + count, 2**64)
        del self.space[base:stop:step]
        for address in [address for address in self.model if address in range(base, stop, step)]:
            del self.model[address]

    @rule()
    def clear(self) -> None:
        """All edits away."""
        self.space.clear_edits()
        self.model.clear()

    @rule(base=near, count=st.integers(1, 1200))
    def read_slice(self, base: int, count: int) -> None:
        """A slice against the model."""
        stop = min(base + count, 2**64)
        wanted = GenerativeSpace(self.space.seed)[base:stop].tolist()
        for address in [address for address in self.model if base <= address < stop]:
            wanted[address - base] = self.model[address]
        assert self.space[base:stop].tolist() == wanted

    @rule(chosen=st.lists(addresses, max_size=20))
    def gather(self, chosen: list[int]) -> None:
        """Gather and scalars against the model, and against the twin where nothing was written."""
        wanted = [self.value(address) for address in chosen]
        assert self.space.gather(chosen).tolist() == wanted
        assert [self.space[address] for address in chosen] == wanted
        assert [self.space.is_edited(address) for address in chosen] == [address in self.model for address in chosen]

    @rule()
    def copy(self) -> None:
        """Go on with a copy."""
        copied = self.space.copy()
        assert copied == self.space
        self.space = copied

    @invariant()
    def agrees(self) -> None:
        """The table is sound, and its edits are the model's, in order."""
        if hasattr(self, "space"):
            self.space.check()
            assert self.space.edit_count == len(self.model)
            assert list(self.space.edits()) == sorted(self.model.items())


TestEditMachine = EditMachine.TestCase


@pytest.mark.parametrize("count", [0, 1, 48, 49, 5000, 100_000])
@pytest.mark.parametrize("shape", ["dense", "sparse", "strided", "ends"])
def test_tables_of_every_size_and_shape_are_sound(count: int, shape: str) -> None:
    """Grown by scatter or one by one, shrunk by removal: every edit is found, and no other."""
    numbers = numpy.arange(count, dtype=numpy.uint64)
    made = {
        "dense": numbers + numpy.uint64(77),
        "sparse": numbers * numpy.uint64(0x9E3779B97F4A7C15),
        "strided": numbers * numpy.uint64(512),
        "ends": numbers - numpy.uint64(count // 2),
    }[shape]
    overlay = Overlay()
    overlay.write(made, numbers)
    overlay.check()
    assert len(overlay) == count
    found, raws = overlay.edits()
    order = numpy.argsort(made)
    assert (found == made[order]).all()
    assert (raws == numbers[order]).all()
    removed = numpy.ones(count - count // 3, dtype=numpy.uint8)
    overlay.write(made[count // 3 :], numbers[count // 3 :], removed)
    overlay.check()
    assert set(overlay.edits()[0].tolist()) == set(made[: count // 3].tolist())
    assert overlay.memory_bytes <= max(16_000, 220 * (count // 3))


def test_the_page_filter_is_right_everywhere() -> None:
    """A write above 2**37.9, where the prototype said "clean", and on every power of two, is seen by bulk reads."""
    space = GenerativeSpace(9)
    chosen = sorted({min(2**e + d, LAST) for e in range(65) for d in (-1, 0, 1) if 2**e + d >= 0})
    space.scatter(chosen, numpy.arange(len(chosen)))
    assert space.gather(chosen).tolist() == list(range(len(chosen)))
    for rank, address in enumerate(chosen):
        assert space[address : address + 1].tolist() == [rank]
        clean = (address ^ 2**50) if address < 2**49 else address ^ 2**20
        assert clean in chosen or space[clean] == twin.float64(twin.seed_key(9), clean)


def test_addresses_chosen_to_collide_do_not() -> None:
    """Two tables hash with different secrets, so what is slow in one is not in the other; given secrets repeat."""
    first, second = Overlay(secret=1), Overlay(secret=1)
    numbers = numpy.arange(1000, dtype=numpy.uint64) << numpy.uint64(54)
    for overlay in (first, second, Overlay()):
        overlay.write(numbers, numbers)
        overlay.check()


def test_overlay_write_refuses_unequal_lengths() -> None:
    """Nothing is written."""
    overlay = Overlay()
    for arguments in (([1, 2], [3]), ([1], [2], [0, 0])):
        with pytest.raises(ValueError, match="addresses, but"):
            overlay.write(*arguments)
    assert len(overlay) == 0


def run_all(jobs: list[Any]) -> None:
    """Run jobs in threads, and raise what one of them raised."""
    failures: list[BaseException] = []

    def guarded(job: Any) -> None:
        try:
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_threads_that_read_and_write_see_whole_values() -> None:
    """Scatters, scalar writes, deletions and all kinds of reads at once: every value is one that some writer wrote."""
    space, plain = GenerativeSpace(10), GenerativeSpace(10)
    span = 20 * PAGE_ADDRESSES
    start = LAST - span
    chosen = numpy.arange(start, start + span, dtype=numpy.uint64)
    generated = plain.gather(chosen)
    is_over = threading.Event()

    def write(number: int) -> None:
        order = numpy.random.default_rng(number).permutation(span)
        for turn in range(12):
            space.scatter(chosen[order], chosen[order] % 1000 + 2000.0 * (number + 1))
            for address in chosen[order[:50]].tolist():
                space[address] = address % 1000 + 2000.0 * (number + 1)
            if turn % 4 == 3:
                del space[start : start + span]
        is_over.set()

    def verify(values: Any, offset: int) -> None:
        wanted = generated[offset : offset + len(values)]
        edits = values - chosen[offset : offset + len(values)] % 1000
        assert ((values == wanted) | (edits == 2000) | (edits == 4000)).all()

    def read() -> None:
        while not is_over.is_set():
            verify(space[start : start + span], 0)
            verify(space.gather(chosen[77:]), 77)
            verify(numpy.array([space[address] for address in range(start + 5, start + 25)]), 5)
            assert (numpy.diff(space.edit_arrays()[0]) > 0).all()

    run_all([lambda: write(0), lambda: write(1), read, read])
    space.check()


def test_threads_that_fill_agree() -> None:
    """Four threads give the bytes that one gives."""
    space = GenerativeSpace(11)
    space[100] = 5.0
    wanted = space[: 1 << 18].tobytes()
    found: list[bytes] = []
    run_all([lambda: found.append(space.fill(numpy.empty(1 << 18)).tobytes()) for _ in range(4)])
    assert found == [wanted] * 4


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_in_the_middle_of_a_scatter_has_a_whole_table() -> None:
    """The child's table is sound, its locks are free, and every edit is old or new."""
    space = GenerativeSpace(12)
    chosen = numpy.random.default_rng(5).integers(0, 2**64, 200_000, dtype=numpy.uint64)
    is_over = threading.Event()

    def write() -> None:
        while not is_over.is_set():
            space.scatter(chosen, 1.0)
            space.clear_edits()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    space.check()
                    values = set(space.edit_arrays()[1].tolist())
                    space[5] = 2.0
                    space.scatter(chosen[:100], 3.0)
                    status = 0 if values <= {1.0} and space[5] == 2.0 and space[int(chosen[0])] == 3.0 else 2
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        is_over.set()
        writer.join()
    space.check()
