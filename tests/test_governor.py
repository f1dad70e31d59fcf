"""One limit for the process, shared by its containers."""

import contextlib
import gc
import random
from time import monotonic, sleep

import pytest

import spectral_alloc
from spectral_alloc import Residency, ThermalDict
from spectral_alloc import governor as module
from spectral_alloc.governor import governor


@pytest.fixture
def process_limit():
    """Set the process's limit for one test, and restore the default."""
    yield spectral_alloc.set_memory_limit
    spectral_alloc.set_memory_limit(None)


def fill(d, entries):
    for number in range(entries):
        d[number] = list(range(number, number + 100))


def test_containers_share_the_process_limit(process_limit):
    """Two dicts without a limit of their own stay below the process's limit together, and both stay right."""
    one, two = ThermalDict(), ThermalDict()
    process_limit("2 MB")
    fill(one, 1000)
    fill(two, 1000)
    assert one.stats().used_bytes + two.stats().used_bytes <= 2_000_000
    assert all(d[number] == list(range(number, number + 100)) for d in (one, two) for number in (0, 500, 999))
    one.check()
    two.check()


def test_an_idle_container_makes_room_for_a_busy_one(process_limit):
    """The largest container gives way when another needs room."""
    idle, busy = ThermalDict(), ThermalDict()
    fill(idle, 1000)
    process_limit("4 MB")
    before = idle.stats().used_bytes
    fill(busy, 600)
    assert idle.stats().used_bytes < before
    assert busy.stats().hot_entries > 0


def test_lowering_the_limit_moves_values_at_once(process_limit):
    """When set_memory_limit returns, what can leave has left."""
    d = ThermalDict()
    fill(d, 500)
    assert d.where(0) is Residency.HOT
    process_limit(0)
    assert d.stats().hot_entries == 0
    assert d[7] == list(range(7, 107))


def test_a_limit_of_its_own_counts_against_the_process_limit(process_limit):
    """A container with a large limit of its own still keeps within a smaller process limit."""
    d = ThermalDict.open(memory_limit="1 GB")
    process_limit("1 MB")
    fill(d, 2000)
    assert d.stats().used_bytes <= 1_000_000
    d.close()


@pytest.mark.parametrize(
    ("limit", "error"), [(-1, ValueError), ("lots", ValueError), (1.5, TypeError), ("1 XB", ValueError)]
)
def test_a_bad_limit_changes_nothing(limit, error):
    """A bad limit raises an error that names it, and the old limit stays."""
    before = spectral_alloc.get_memory_limit()
    with pytest.raises(error, match=r"1\.5|-1|lots|XB"):
        spectral_alloc.set_memory_limit(limit)
    assert spectral_alloc.get_memory_limit() == before


def test_a_dropped_container_gives_its_budget_back():
    """When a dict is deallocated its bytes no longer count, and the governor forgets it."""
    gc.collect()
    d = ThermalDict()
    before_bytes, before_count = governor.budget.used_bytes, len(governor.containers())
    fill(d, 100)
    assert governor.budget.used_bytes > before_bytes
    del d
    assert governor.budget.used_bytes <= before_bytes
    assert len(governor.containers()) == before_count - 1


def test_the_heap_is_not_walked_while_the_process_is_within_its_limits(monkeypatch):
    """Asking glibc what its heap holds takes long where it is in many pieces: nobody asks unless the answer matters."""
    asked = []
    monkeypatch.setattr(module, "small_allocation_bytes", lambda: asked.append(1) or 0)
    owner = module.Governor()
    d = ThermalDict.open(memory_limit="64 MB")
    d["key"] = "value"
    owner.register(d)
    for _ in range(50):
        owner.put_down_slack()
        owner._next_slack_seconds = 0.0
    assert len(asked) == 1  # what there was before
    d.close()


def test_a_heap_that_takes_long_to_walk_is_walked_seldom(monkeypatch):
    """What the measurement of slack takes, it takes at most a hundredth of the time."""
    monkeypatch.setattr(module, "small_allocation_bytes", lambda: sleep(0.02) or 0)
    owner = module.Governor()
    for _ in range(100):
        owner.put_down_slack()
    assert owner._next_slack_seconds - monotonic() > 1.0


def test_frames_beyond_their_share_stay_until_room_is_short():
    """Where the share of frames in RAM shrinks, what is above it leaves as room is needed, not all at once."""
    limit = 8_000_000

    def value(n):
        return random.Random(n).randbytes(60).hex() * 6

    with contextlib.closing(ThermalDict.open(memory_limit=limit)) as d:
        d.update((n, value(n)) for n in range(16_000))
        warm = d.stats().warm_bytes
        d._tiers.cold_read_seconds = 0.0
        assert d._tiers.warm_target_bytes < warm / 2
        d._tiers.work(d)
        d.update((n, value(n)) for n in range(16_000, 16_020))
        assert d.stats().warm_bytes > warm * 0.6
        assert limit * 0.9 < d.stats().used_bytes <= limit
        assert d[0] == value(0)
