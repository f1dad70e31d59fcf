"""Reading: an array on touch shows what the space holds, within its limit."""

import gc
import threading

import numpy

from spectral_alloc import GenerativeSpace, touch
from spectral_alloc.limits import resident_bytes
from touch_cases import TINY, checked, same, tiny

PAGE_ITEMS = 512


def case_every_kind_of_values() -> None:
    """Values of every kind are those of the space, from any address on, with its edits, at both ends of the space."""
    for values in ("float64", "float32", "uint64", "normal", range(-3, 1000)):
        for start in (0, 12345, 2**64 - 20_000):
            space = GenerativeSpace(seed=7, values=values)
            space[start + 10 : start + 15] = [1, 2, 3, 4, 5]
            space[start + 19_999] = 6
            array = tiny(space, 20_000, start=start)
            assert array.dtype == space.dtype
            assert same(array, space.window(start, 20_000))
            assert same(array[::-1], space.window(start, 20_000)[::-1])
            assert same(array[7::333], space.window(start, 20_000)[7::333])
            checked(array)


def case_random_reads_of_a_tebibyte() -> None:
    """Random reads of an array of 1 TiB are those of the space, and take no more memory than the limit."""
    if touch.way() == touch.EAGER:
        return
    space = GenerativeSpace(seed=1337)
    places = numpy.random.default_rng(1).integers(0, 2**37, 3000)
    space.scatter(places[:100], numpy.arange(100.0))
    array = space.array((2**17, 2**20), resident_limit="1 MB")
    assert array.nbytes == 2**40
    flat = array.reshape(-1)
    assert same(flat[places], space.gather(places))
    assert array[2**17 - 1, 2**20 - 1] == space[2**37 - 1]
    assert 0 < touch.stats(array).resident_bytes <= 1_000_000
    checked(array)


def case_a_sum_stays_within_the_limit() -> None:
    """Going through an array far larger than its limit evicts as it goes: pages, tables and the process stay small."""
    if touch.way() == touch.EAGER:
        return
    space = GenerativeSpace(seed=3)
    array = space.array(2**24, resident_limit="4 MB")
    before = resident_bytes()
    expected = sum(float(space[start : start + 2**20].sum()) for start in range(0, 2**24, 2**20))
    assert abs(float(array.sum()) - expected) < 1e-3
    assert touch.stats(array).resident_bytes <= 4_000_000
    assert resident_bytes() - before < 24_000_000
    assert touch.stats(array).evicted > 2**24 // PAGE_ITEMS * 0.9
    checked(array)


def case_windows_grow_in_sequence_only() -> None:
    """Sequential faults bring many pages each, up and down; random ones bring one."""
    if touch.way() == touch.EAGER:
        return
    space = GenerativeSpace()
    array = space.array(PAGE_ITEMS * 4096, resident_limit="64 MB")
    array.sum()
    forward = touch.stats(array)
    assert forward.filled == 4096
    assert forward.faults < 4096 / 16
    touch.evict(array)
    array[::-PAGE_ITEMS].sum()
    backward = touch.stats(array)
    assert backward.filled == 2 * 4096
    assert backward.faults - forward.faults < 4096 / 16
    touch.evict(array)
    order = numpy.random.default_rng(2).permutation(2048) * 2 * PAGE_ITEMS
    array[order].sum()
    assert touch.stats(array).filled - backward.filled < 2 * 2048


def case_an_ordinary_array() -> None:
    """It is a plain ndarray: views keep the pages, in-place operators, sort, out= and copies work."""
    space = GenerativeSpace(seed=2)
    array = tiny(space, (300, 200))
    assert type(array) is numpy.ndarray
    view = array[10:250:3, ::-1].T
    expected = space.window(0, (300, 200))[10:250:3, ::-1].T
    owner = touch.owner(view)
    assert owner is array.base
    del array
    gc.collect()
    assert same(view, expected)
    view += 1
    assert same(view, expected + 1)
    view[3].sort()
    numpy.multiply(view, 2, out=view)
    expected = expected + 1
    expected[3].sort()
    assert same(view, expected * 2)
    assert bytes(memoryview(view.T[0].copy())) == (expected * 2).T[0].tobytes()
    checked(view)


def case_empty_and_single() -> None:
    """An array of no value and one of a single value work."""
    space = GenerativeSpace(seed=2)
    assert space.array((0, 5)).sum() == 0
    assert space.array((), start=2**64 - 1)[()] == space[2**64 - 1]
    touch.flush(space.array(0))
    assert space.edit_count == 0


def case_four_threads_read_the_space() -> None:
    """Random reads of four threads at once, in an array that holds fourteen pages, are all those of the space."""
    space = GenerativeSpace(seed=11)
    space.scatter(numpy.arange(0, 10**6, 1000), numpy.arange(1000.0))
    array = tiny(space, 10**6)
    wrong: list[int] = []

    def read(seed: int) -> None:
        draw = numpy.random.default_rng(seed)
        for _ in range(30):
            places = draw.integers(0, 10**6, 20)
            wrong.extend(places[array[places] != space.gather(places)].tolist())
            start = int(draw.integers(0, 10**6 - 5000))
            if not same(array[start : start + 5000], space[start : start + 5000]):
                wrong.append(start)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    checked(array)


def case_bad_requests() -> None:
    """What cannot be is refused with an error that names it."""
    space = GenerativeSpace()
    refused = [
        (lambda: space.array(10, "f4"), TypeError, "float64"),
        (lambda: space.array(2**40, start=2**64 - 2**39), IndexError, "2**64 - 1"),
        (lambda: space.array(-1), IndexError, "-1"),
        (lambda: space.array(2.5), TypeError, "2.5"),
        (lambda: space.array(10, resident_limit=1000), ValueError, "1000"),
        (lambda: space.array(10, resident_limit="lots"), ValueError, "lots"),
        (lambda: space.array(10, spill_dir="/nowhere/at/all"), FileNotFoundError, "nowhere"),
        (lambda: space.array(2**62), MemoryError, str(2**65)),
        (lambda: touch.flush(numpy.zeros(5)), TypeError, "on touch"),
        (lambda: touch.owner(numpy.arange(6)[1:]), TypeError, "on touch"),
    ]
    eager = touch.way() == touch.EAGER
    for call, kind, word in refused:
        try:
            call()
        except kind as error:
            assert eager or word in str(error), error
        else:
            raise AssertionError(f"nothing was raised where {word} is wrong")
    array = space.array(10**6, resident_limit=None if eager else TINY)
    if not eager:
        try:
            touch.populate(array)
        except ValueError as error:
            assert "8 MB" in str(error)
        else:
            raise AssertionError("more was populated than stays")
    touch.populate(array[5:900])
