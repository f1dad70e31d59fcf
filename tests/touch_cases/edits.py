"""Writing: edits of an array become edits of the space, and edits of the space show in the array."""

import contextlib
import os
import tempfile
import threading
import warnings

import numpy
from racing import race

from spectral_alloc import GenerativeSpace, touch
from spectral_alloc.space_touch import owners
from touch_cases import checked, same, tiny

COUNT = 100_000


def case_edits_survive_eviction_and_arrive() -> None:
    """What is written stays, in and out of memory, and is in the space after a flush: those values and no others."""
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    model = space[:COUNT]
    draw = numpy.random.default_rng(1)
    for step in range(60):
        start, length = int(draw.integers(0, COUNT - 5000)), int(draw.integers(1, 5000))
        chosen = slice(start, start + length, int(draw.integers(1, 4)))
        array[chosen] = step
        model[chosen] = step
        checked(array)
    assert same(array, model)
    touch.evict(array)
    assert same(array, model)
    touch.flush(array)
    assert same(space[:COUNT], model)
    assert space.edit_count == int((model != GenerativeSpace(seed=1)[:COUNT]).sum())
    assert same(array, model)
    checked(array)


def case_unchanged_values_are_no_edits() -> None:
    """Writing what is there anyway makes no edit and keeps no page; writing the generated value removes the edit."""
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    generated = space[:COUNT]
    array[:] = generated
    touch.evict(array)
    assert touch.stats(array).packed_pages == 0
    space.flush()
    assert space.edit_count == 0
    array[500] = 0.5
    space.flush()
    assert list(space.edits()) == [(500, 0.5)]
    array[500] = generated[500]
    space.flush()
    assert space.edit_count == 0


def case_odd_bits_arrive() -> None:
    """NaN payloads, negative zero and single precision arrive bit for bit."""
    for values, word in (("float64", "u8"), ("float32", "u4")):
        space = GenerativeSpace(seed=1, values=values)
        array = tiny(space, 3000)
        bits = array.view(word)
        top = 8 * array.itemsize - 1
        odd = numpy.array([1 << top, (1 << top) - 1, (0x7FF5 if word == "u8" else 0x7FA1) << (top - 15)], dtype=word)
        bits[2000:2003] = odd
        touch.evict(array)
        space.flush()
        assert same(space[2000:2003], odd)


def case_edits_of_the_space_show() -> None:
    """A write to the space shows at once in pages that are clean, edited, packed or missing, in all arrays on them."""
    space = GenerativeSpace(seed=1)
    array, other = tiny(space, COUNT), tiny(space, 1000, start=500)
    model = space[:COUNT]
    array[600:5000:7] = 1
    model[600:5000:7] = 1
    touch.evict(array)
    array[90_000:90_010] = 2
    model[90_000:90_010] = 2
    assert other[3] == array[503]
    for address in (503, 600, 601, 607, 4000, 4096, 90_003, 90_020, 50_000):
        space[address] = address
        model[address] = address
        assert array[address] == address
        assert address > 1499 or address < 500 or other[address - 500] == address
        checked(array)
    space.scatter(numpy.arange(0, COUNT, 1001), numpy.full(len(range(0, COUNT, 1001)), 5.0))
    model[::1001] = 5
    assert same(array, model)
    del space[503], space[90_003], space[4000]
    generated = GenerativeSpace(seed=1)
    model[[503, 90_003, 4000]] = [generated[503], generated[90_003], generated[4000]]
    assert same(array, model)
    space.write(2**40, 1.0)
    space.flush()
    assert same(space[:COUNT], model)
    space.clear_edits()
    assert same(array, generated[:COUNT])
    assert same(other, generated[500:1500])


def case_values_from_the_array_itself() -> None:
    """The space can be written with values and addresses that lie in missing pages of its own arrays, and fill them."""
    space = GenerativeSpace(seed=1, values="uint64")
    array = tiny(space, COUNT)
    array[:1000] = numpy.arange(1000) * 17
    array[50_000:51_000] = numpy.arange(1000) + 300_000
    touch.evict(array)
    space.scatter(array[50_000:51_000], array[:1000])
    assert same(space[300_000:301_000], numpy.arange(1000, dtype="u8") * 17)
    touch.evict(array)
    space.fill(array[:5000], 70_000)
    space.gather(array[50_000:51_000], out=array[60_000:61_000])
    assert same(array[:5000], space[70_000:75_000])
    assert same(array[60_000:61_000], numpy.arange(1000, dtype="u8") * 17)
    checked(array)


def case_attaching_overwrites_no_edit_of_an_array() -> None:
    """An edit that is still in an array only counts: a log with edits is refused, and a new one takes it."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "edits.log")
        with GenerativeSpace(seed=1).attach(path) as space:
            space[3] = 9.0
        with open(path, "rb") as file:
            before = file.read()
        space = GenerativeSpace(seed=1)
        array = tiny(space, COUNT)
        array[3], array[4] = 1.0, 2.0
        model = array.copy()
        try:
            space.attach(path)
            raise AssertionError("it was attached")
        except ValueError as error:
            assert "has edits, and the space has 2 too" in str(error)
        assert same(array, model)
        with open(path, "rb") as file:
            assert file.read() == before
        with space.attach(os.path.join(directory, "new.log")):
            assert same(array, model)
        with GenerativeSpace(seed=1).attach(os.path.join(directory, "new.log")) as found:
            assert list(found.edits()) == [(3, 1.0), (4, 2.0)]


def case_a_log_takes_the_edits() -> None:
    """With a log, edits of arrays are durable after sync and detach; attaching one shows its edits in open arrays."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "edits.log")
        with GenerativeSpace(seed=1).attach(path) as space:
            array = tiny(space, COUNT)
            array[::5000] = 0.5
            touch.evict(array)
            space.sync()
            assert space.log_report().durable_count >= 20
            array[7] = 0.25
        reopened = GenerativeSpace(seed=1)
        array = tiny(reopened, COUNT)
        array[:10].sum()
        with reopened.attach(path):
            assert array[7] == 0.25
            assert (array[::5000] == 0.5).all()
            assert same(array, reopened[:COUNT])


def case_a_flush_meets_no_half_made_or_half_gone_array() -> None:
    """Arrays of a space come and go, with edits, while other threads flush it: no error, and every edit arrives."""
    space = GenerativeSpace(seed=1)
    kept = tiny(space, 1000)
    turns, is_over, errors = 1000, threading.Event(), []

    def flush() -> None:
        try:
            while not is_over.is_set():
                space.flush()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=flush) for _ in range(2)]
    for thread in threads:
        thread.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for turn in range(turns):
            array = space.array(1000, start=2000 + turn)
            array[0] = turn
            del array
            if turn % 20 == 0:
                space.array(200_000, start=10**9)
    is_over.set()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    assert list(space.edits()) == [(2000 + turn, float(turn)) for turn in range(turns)]
    checked(kept)


def case_deleting_the_array_flushes() -> None:
    """When the last view of an array goes, its edits are in the space."""
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT)
    array[::1000] = 3
    view = array[::2000]
    del array
    assert space.edit_count == 0
    del view
    assert space.edit_count == 100


def case_writers_flushes_and_the_space_at_once() -> None:
    """Threads that write an array, flush it and write the space lose nothing, with everything evicted all the time."""
    space = GenerativeSpace(seed=1, values="uint64")
    array = tiny(space, 40_000)
    model = space[:40_000]
    stop = threading.Event()

    def write(part: int) -> None:
        draw = numpy.random.default_rng(part)
        for step in range(150):
            places = draw.integers(0, 10_000, 20) * 4 + part
            value = part * 1000 + step
            if part == 3:
                space.scatter(places, numpy.full(20, value))
            else:
                array[places] = value
            model[places] = value
            assert (array[places] == value).all(), (part, step)

    failures: list[BaseException] = []

    def guarded(part: int) -> None:
        try:
            write(part)
        except BaseException as error:
            failures.append(error)

    def flush() -> None:
        while not stop.is_set():
            space.flush()

    flusher = threading.Thread(target=flush)
    threads = [threading.Thread(target=guarded, args=(part,)) for part in range(4)]
    for thread in (flusher, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    flusher.join()
    assert failures == []
    assert same(array, model)
    space.flush()
    assert same(space[:40_000], model)
    checked(array)


def case_a_full_disk_loses_nothing() -> None:
    """Edited pages that the disk refuses stay in memory, beyond the limit, with a warning; a flush lets them go."""
    if touch.way() == touch.EAGER:
        return
    space = GenerativeSpace(seed=1)
    array = tiny(space, COUNT, disk_limit=20_000)
    model = numpy.random.default_rng(3).random(COUNT)
    array[:] = model
    assert same(array, model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stats = touch.stats(array)
    assert [str(entry.message).endswith("No space left on device") for entry in caught] == [True]
    assert stats.failures > 0
    assert stats.resident_bytes > stats.limit_bytes
    assert stats.disk_bytes <= 20_000
    space.flush()
    assert same(space[:COUNT], model)
    touch.evict(array)
    assert touch.stats(array).resident_bytes == 0
    assert same(array, model)


def case_a_refused_flush_keeps_the_edits() -> None:
    """When the space refuses edits the flush says so, and they are in the array until it takes them."""
    with tempfile.TemporaryDirectory() as directory:
        space = GenerativeSpace(seed=1).attach(os.path.join(directory, "edits.log"))
        array = tiny(space, COUNT)
        array[:100] = 4
        space.overlay.journal.refuse("not now")
        with contextlib.suppress(OSError):
            space.flush()
            raise AssertionError("the refusal was not seen")
        assert (array[:100] == 4).all()
        touch.evict(array)
        assert (array[:100] == 4).all()
        space.overlay.set_journal(None)
        space.flush()
        assert (space[:100] == 4).all()
        checked(array)


def case_arrays_come_and_go_beside_edits() -> None:
    """Threads edit a space while others make arrays of it and drop them: each array shows the edits; none stays."""
    space = GenerativeSpace(seed=1)
    kept = tiny(space, COUNT)
    stop = threading.Event()
    wrong: list[object] = []

    def edit(place: int) -> None:
        step = 0
        while not stop.is_set():
            step += 1
            space[place] = step
            if kept[place] != step:
                wrong.append((place, step, kept[place]))

    def make() -> None:
        while not stop.is_set():
            array = space.array(1000, resident_limit="1 MB")
            first = array[5]
            array[700] = 0.5
            if array[5] < first or array[700] != 0.5:
                wrong.append((first, array[5], array[700]))

    race([lambda: edit(5), lambda: edit(6), make, make], stop)
    assert wrong == []
    assert space[700] == 0.5
    assert kept[5] == space[5]
    assert len(owners(space.overlay)) == 1
    checked(kept)
