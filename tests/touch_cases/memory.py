"""Arrays of a SpectralMemory, and what arrays of all kinds are charged."""

import gc

import numpy

import spectral_alloc
from spectral_alloc import GenerativeSpace, SpectralMemory, ThermalDict, touch
from touch_cases import TINY, checked, same


def eager() -> bool:
    """Whether arrays are filled at once here."""
    return touch.way() == touch.EAGER


def case_larger_than_its_memory() -> None:
    """An array of thirty times the memory limit is zeros, then what was written, with the memory within its limit."""
    if eager():
        return
    with SpectralMemory(memory_limit="4 MB") as memory:
        array = memory.array(None, "f8", (1 << 11, 1 << 13))
        assert array.nbytes == 1 << 27
        assert not array[::16].any()
        array[::4, :] = numpy.arange(1 << 9)[:, None]
        assert (array[::4, 77] == numpy.arange(1 << 9)).all()
        assert not array[1::4, ::512].any()
        stats = touch.stats(array)
        assert stats.resident_bytes <= stats.limit_bytes <= 1_000_000
        assert stats.packed_pages > 6000
        assert stats.disk_bytes < 1 << 24
        checked(array)


def case_zeros_cost_nothing() -> None:
    """Pages that are all zeros again keep nothing anywhere, and the disk is given back."""
    if eager():
        return
    with SpectralMemory(memory_limit="4 MB") as memory:
        array = memory.array(None, "u2", 1 << 20, resident_limit=TINY)
        array[:] = numpy.random.default_rng(1).integers(1, 60_000, 1 << 20)
        touch.evict(array)
        assert touch.stats(array).packed_pages == 512
        assert touch.stats(array).disk_bytes > 0
        array[:] = 0
        touch.evict(array)
        stats = touch.stats(array)
        assert (stats.packed_pages, stats.disk_bytes, stats.resident_bytes) == (0, 0, 0)
        checked(array)


def case_every_dtype() -> None:
    """Bytes of any dtype but objects come back as they were: bools, text, records, big-endian, long doubles."""
    draw = numpy.random.default_rng(2)
    with SpectralMemory(memory_limit="8 MB") as memory:
        for kind in ("?", "i1", ">f8", "c16", "S5", "U3", "M8[s]", "g", [("a", "i2"), ("b", "f8", 3)], "V4097"):
            dtype = numpy.dtype(kind)
            array = memory.array(None, dtype, 9000 // dtype.itemsize + 40, resident_limit=None if eager() else TINY)
            if dtype.kind in "?SUVM":
                raw = draw.integers(0, 2, array.nbytes).astype("u1")
            else:
                raw = draw.integers(0, 256, array.nbytes).astype("u1")
            array.view("u1").reshape(-1)[:] = raw
            touch.flush(array)
            touch.evict(array)
            assert same(array, raw)
            checked(array)
        try:
            memory.array(None, object, 10)
        except ValueError as error:
            assert "objects" in str(error)
        else:
            raise AssertionError("an array of objects was made")


def case_the_memory_ends_before_its_array() -> None:
    """An array outlives close(), and a closed memory makes none."""
    with SpectralMemory(memory_limit="8 MB") as memory:
        array = memory.array(None, "f8", 10_000, resident_limit=None if eager() else TINY)
        array[:] = 1
        blocks = memory.array(memory.malloc(80), "f8")
        blocks[:] = 2
        for call in (lambda: memory.array(), lambda: memory.array(None, "f8")):
            try:
                call()
            except TypeError as error:
                assert "shape" in str(error)
            else:
                raise AssertionError("an array without a shape was made")
    array[5] = 3
    assert array.sum() == 10_002
    try:
        memory.array(None, "f8", 10)
    except ValueError as error:
        assert "closed" in str(error)
    else:
        raise AssertionError("a closed memory made an array")


def case_charged_to_budgets() -> None:
    """An array is charged its limit; under pressure it gives way to others, and takes the room back when there is."""
    if eager():
        return
    try:
        spectral_alloc.set_memory_limit("40 MB")
        array = GenerativeSpace().array(2**26)
        owner = touch.owner(array)
        assert touch.stats(array).limit_bytes == 10_000_000
        assert 10_000_000 < owner.used_bytes < 10_100_000
        array[: 2**21].sum()
        assert touch.stats(array).resident_bytes > 5_000_000
        spectral_alloc.set_memory_limit("3 MB")
        assert owner.used_bytes <= 3_000_000
        assert touch.stats(array).resident_bytes <= 3_000_000
        spectral_alloc.set_memory_limit("40 MB")
        assert touch.stats(array).limit_bytes == 10_000_000
        values = ThermalDict()
        for number in range(400):
            values[number] = numpy.random.default_rng(number).random(12_500)
        assert owner.budget.used_bytes <= 42_000_000
        assert same(array[:100], GenerativeSpace()[:100])
        checked(array)
        values.close()
        budget, rest = owner.budget, owner.budget.used_bytes - owner.used_bytes
        del array, owner
        gc.collect()
        assert budget.used_bytes == rest
    finally:
        spectral_alloc.set_memory_limit(None)


def case_follows_its_memory() -> None:
    """When the memory's limit falls, so does what its arrays take."""
    if eager():
        return
    with SpectralMemory(memory_limit="16 MB") as memory:
        array = memory.array(None, "f8", 2**22)
        array[:] = 1
        memory.memory_limit = "3 MB"
        touch.flush(array)
        assert memory.budget.used_bytes <= 3_000_000
        assert touch.stats(array).resident_bytes <= 3_000_000
        assert (array == 1).all()
        checked(array)
