"""Residencies and the legal moves between them."""

import weakref

from spectral_alloc import LEGAL_TRANSITIONS, Residency, ThermalDict
from spectral_alloc._cell import LEGAL_MOVES


def test_the_table_of_legal_transitions():
    """Values go down one way, through a departure, and come up from any tier; nothing else is legal."""
    hot, warm, cold, regrown = Residency.HOT, Residency.WARM, Residency.COLD, Residency.REGROWN
    stored = {(hot, warm), (hot, cold), (warm, cold), (warm, hot), (cold, warm), (cold, hot)}
    assert stored | {(hot, regrown), (warm, regrown), (regrown, hot)} == LEGAL_TRANSITIONS
    assert ("hot", "warm") not in LEGAL_MOVES, "a live value leaves only as a departure"
    assert not any(source == "detached" for source, _ in LEGAL_MOVES)


def test_every_observed_move_is_legal():
    """Under pressure, reads, writes, prefetches and deletions, each reported move is in the table."""
    seen = set()
    with ThermalDict.open(memory_limit="200 kB") as d:
        d.on_move(lambda move: seen.add((move.source, move.target)))
        for number in range(3000):
            d[number] = [number] * 20
            d.get(number // 2)
            d[number // 3] = str(number) * 30
            if number % 10 == 0:
                d.prefetch([number // 4])
                del d[number]
        d.check()
    assert seen <= LEGAL_TRANSITIONS
    assert len(seen) >= 4


def test_a_weak_reference_to_a_value_that_was_read_lives_as_long_as_the_entry():
    """A frozenset that comes back is the entry's own object at once, so a weak reference to it stays alive."""
    with ThermalDict.open(memory_limit=1) as d:
        d["key"] = frozenset({1000, 2000})
        assert d.where("key") is Residency.COLD
        reference = weakref.ref(d["key"])
        d["other"] = [1]
        assert reference() is d["key"]


def test_stats_know_which_values_are_still_held():
    """A value that was held under pressure and has been let go is not reported as held, though it may stay live."""
    with ThermalDict.open(memory_limit="100 kB") as d:
        held = [list(range(number, number + 50)) for number in range(200)]
        d.update(enumerate(held))
        assert d.stats().held_entries == 200
        d.memory_limit = "10 MB"
        held.clear()
        assert d.stats().held_entries == 0
        assert d.stats().hot_entries == 200
        d.check()
