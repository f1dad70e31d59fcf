"""The eviction policy alone: it is the one of policy_twin.py, bounded in work and room; it refuses what is no trace."""

import threading
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_twin import Twin

from spectral_alloc._policy import RULES, Replay, default_rules
from spectral_alloc.policy import CAPACITY_MAX, Replayed, replay, simulate

OBJECTS = 24
REQUESTS = st.lists(st.integers(0, OBJECTS - 1), max_size=400)
SIZES = st.lists(st.integers(1, 40), min_size=OBJECTS, max_size=OBJECTS)
COSTS = st.lists(st.floats(0.001, 1000), min_size=OBJECTS, max_size=OBJECTS)


def as_ids(numbers: Any) -> numpy.ndarray[Any, Any]:
    """Object numbers as Replay wants them."""
    return numpy.asarray(numbers, dtype=numpy.uint32)


def belady_misses(requests: list[int], capacity: int) -> int:
    """The fewest misses that are possible, with every request known in advance."""
    following: dict[int, int] = {}
    next_use = [0] * len(requests)
    for position in reversed(range(len(requests))):
        next_use[position] = following.get(requests[position], len(requests))
        following[requests[position]] = position
    resident: dict[int, int] = {}
    misses = 0
    for position, number in enumerate(requests):
        misses += number not in resident
        resident[number] = next_use[position]
        if len(resident) > capacity:
            del resident[max(resident, key=resident.__getitem__)]
    return misses


def zipf(objects: int, requests: int, seed: int, exponent: float = 0.9) -> numpy.ndarray[Any, Any]:
    """Requests whose popularity falls with the object's number."""
    weights = 1 / numpy.arange(1, objects + 1) ** exponent
    drawn = numpy.random.default_rng(seed).random(requests) * weights.sum()
    return as_ids(numpy.searchsorted(numpy.cumsum(weights), drawn).clip(0, objects - 1))


def compared(replayed: Replay, twin: Twin, requests: list[int]) -> None:
    """Both must agree on every single request."""
    for number in requests:
        replayed.run(as_ids([number]))
        twin.request(number)
        replayed.check()
        assert (replayed.misses, replayed.resident_size) == (twin.misses, twin.resident_size)
        assert (replayed.share, replayed.trust) == (twin.share, twin.trust)


@given(requests=REQUESTS, capacity=st.integers(1, OBJECTS))
@settings(max_examples=60, deadline=None)
def test_the_c_code_is_the_plain_policy(requests: list[int], capacity: int) -> None:
    """On objects of one size the C code misses where the plain Python twin does, request by request."""
    compared(Replay(OBJECTS, capacity), Twin(default_rules(), capacity, [1] * OBJECTS), requests)


@given(requests=REQUESTS, capacity=st.integers(1, 400), sizes=SIZES, costs=st.none() | COSTS)
@settings(max_examples=60, deadline=None)
def test_the_c_code_is_the_plain_policy_with_sizes_and_costs(
    requests: list[int], capacity: int, sizes: list[int], costs: list[float] | None
) -> None:
    """The same with sizes and costs."""
    cost_array = None if costs is None else numpy.asarray(costs, dtype=numpy.float64)
    replayed = Replay(OBJECTS, capacity, numpy.asarray(sizes, dtype=numpy.int64), cost_array)
    compared(replayed, Twin(default_rules(), capacity, sizes, costs), requests)


@given(requests=REQUESTS, capacity=st.integers(1, 12), changed=st.sampled_from(RULES), value=st.floats(0.1, 0.9))
@settings(max_examples=40, deadline=None)
def test_every_rule_is_the_one_it_names(requests: list[int], capacity: int, changed: str, value: float) -> None:
    """A rule that is set otherwise has the same effect in both."""
    rules = default_rules() | {changed: value}
    rules["share_least"] = min(rules["share_least"], rules["share_first"], rules["share_most"])
    rules["share_most"] = max(rules["share_most"], rules["share_first"])
    compared(Replay(OBJECTS, capacity, **rules), Twin(rules, capacity, [1] * OBJECTS), requests)


@given(requests=REQUESTS, capacity=st.integers(1, OBJECTS))
@settings(max_examples=60, deadline=None)
def test_no_policy_can_miss_less_than_belady(requests: list[int], capacity: int) -> None:
    """Misses lie between those of the offline optimum and all requests; the first request of an object misses."""
    misses = simulate(requests, capacity)
    assert belady_misses(requests, capacity) <= misses <= len(requests)
    assert misses >= len(set(requests))


def test_nothing_is_missed_twice_when_all_fits() -> None:
    """With room for every object each is missed once."""
    ids = zipf(500, 5000, seed=1)
    assert simulate(ids, 500) == len(set(ids.tolist()))


@pytest.mark.parametrize("capacity", [1, 2, 3, 10, 100, 1000, 5000])
def test_the_work_for_a_request_is_bounded(capacity: int) -> None:
    """Cells moved stay below a constant times the requests, whatever the capacity."""
    loop = numpy.tile(numpy.arange(2000, dtype=numpy.uint32), 10)
    for ids in (zipf(20000, 60000, seed=2), loop, as_ids(numpy.arange(20000))):
        run = Replay(int(ids.max()) + 1, capacity)
        run.run(ids)
        run.check()
        assert run.steps <= 6 * run.requests
        assert run.resident_count <= capacity


def test_the_work_is_bounded_with_the_most_unequal_costs() -> None:
    """Objects of very different weight cost a bounded number of moves, too."""
    ids = zipf(5000, 50000, seed=3)
    sizes = numpy.where(numpy.arange(5000) % 7 == 0, 100_000, 1).astype(numpy.int64)
    run = Replay(5000, 1_000_000, sizes, numpy.ones(5000))
    run.run(ids)
    run.check()
    assert run.steps <= default_rules()["weight_most"] * run.requests


def test_a_scan_does_not_wash_out_what_is_in_use() -> None:
    """Objects that are asked for again and again survive a scan through ten times the capacity."""
    hot = numpy.arange(50, dtype=numpy.uint32)
    warm = numpy.tile(hot, 20)
    scan = numpy.arange(100, 1100, dtype=numpy.uint32)
    ids = numpy.concatenate([warm, scan, hot])
    before = numpy.concatenate([warm, scan])
    assert simulate(ids, 100) - simulate(before, 100) <= 5


@pytest.mark.parametrize(("capacity", "most"), [(500, 0.65), (800, 0.4), (950, 0.3)])
def test_a_loop_larger_than_the_capacity_keeps_part_of_it(capacity: int, most: float) -> None:
    """A loop over 1,000 objects misses far less often than always, as it does when the least recently used leaves."""
    loop = numpy.tile(numpy.arange(1000, dtype=numpy.uint32), 40)
    assert simulate(loop, capacity) < most * len(loop)


def test_recency_is_learnt() -> None:
    """A working set that moves on is followed: the share of the young grows well beyond its first value."""
    generator = numpy.random.default_rng(4)
    recent = [int(position // 4 - generator.geometric(1 / 150)) for position in range(60000)]
    ids = as_ids(numpy.asarray(recent) - min(recent))
    run = Replay(int(ids.max()) + 1, 300)
    run.run(ids)
    assert run.share > 2 * default_rules()["share_first"]


def test_costs_decide_between_objects_of_one_size() -> None:
    """When misses of some objects cost a hundred times more, the cost of all misses falls."""
    ids = zipf(4000, 60000, seed=5, exponent=0.6)
    costs = numpy.where(numpy.arange(4000) % 10 == 0, 100.0, 1.0)
    sizes = numpy.ones(4000, dtype=numpy.int64)
    plain = sum(costs[number] for number in misses_of(ids, 400))
    assert replay(ids, 400, sizes, costs).missed_cost < 0.9 * plain


def misses_of(ids: numpy.ndarray[Any, Any], capacity: int) -> list[int]:
    """The objects that are missed when nothing is known of their costs."""
    run = Replay(int(ids.max()) + 1, capacity)
    missed = []
    for number in ids:
        before = run.misses
        run.run(as_ids([number]))
        if run.misses > before:
            missed.append(int(number))
    return missed


def test_small_objects_stay_when_misses_count() -> None:
    """With a cost of 1 for each object fewer requests miss than when bytes count."""
    generator = numpy.random.default_rng(6)
    ids = zipf(3000, 60000, seed=7)
    sizes = generator.integers(1, 1000, int(ids.max()) + 1)
    objects = replay(ids, 100_000, sizes, numpy.ones(len(sizes)))
    by_bytes = replay(ids, 100_000, sizes)
    assert objects.misses < by_bytes.misses
    assert by_bytes.missed_cost == by_bytes.missed_size <= objects.missed_size


@pytest.mark.parametrize("count", [2**18 - 1, 2**18 + 5, 2**20 + 5])
def test_sizes_of_misses_add_up_beyond_64_bits(count: int) -> None:
    """The sum is exact however large it gets: the largest size, missed so often that 2**63 and 2**65 are passed."""
    replayed = replay(numpy.zeros(count, dtype=numpy.uint32), 1, sizes=[CAPACITY_MAX])
    assert replayed.misses == count
    assert replayed.missed_size == count * CAPACITY_MAX
    assert replayed.missed_cost == float(count * CAPACITY_MAX)


def test_an_object_larger_than_the_capacity_always_misses() -> None:
    """It is let in by nobody, and puts nobody out."""
    assert replay([0, 1, 0, 1, 0], 10, [3, 11]) == Replayed(5, 3, 25, 25.0)


def test_object_numbers_may_be_sparse() -> None:
    """Few requests for large numbers cost no memory for the numbers between them, and miss the same."""
    ids = zipf(50, 500, seed=8)
    names = numpy.arange(50) * 80_000_000 + 7
    assert simulate(names[ids], 10) == simulate(numpy.unique(ids, return_inverse=True)[1], 10)


def test_any_integer_array_is_a_trace() -> None:
    """Lists, other integer types and strided arrays are converted; nothing is a trace too."""
    ids = zipf(50, 500, seed=10)
    expected = simulate(ids, 10)
    assert simulate(ids.tolist(), 10) == simulate(ids.astype(numpy.int16), 10) == expected
    assert simulate(numpy.repeat(ids, 2)[::2], numpy.int64(10)) == expected
    assert replay([], 1) == Replayed(0, 0, 0, 0.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0], 0), ValueError, "capacity must be 1 to .*, got 0"),
        (([0], -1), ValueError, "got -1"),
        (([0], CAPACITY_MAX + 1), ValueError, str(CAPACITY_MAX + 1)),
        (([0], 1.5), TypeError, "capacity must be an int, got 1.5 of type float"),
        (([0.5], 1), TypeError, "ids must be integers, got dtype float64"),
        ((["a"], 1), TypeError, "ids must be integers"),
        (([[0]], 1), ValueError, "one dimension, got 2"),
        (([-1], 1), ValueError, "got -1"),
        (([2**32], 1), ValueError, str(2**32)),
        (([0, 1], 1, [1]), ValueError, "each of 2 objects, got shape"),
        (([0], 1, [0]), ValueError, "sizes must be 1 to .*, got 0"),
        (([0], 1, [0.5]), TypeError, "sizes must be integers"),
        (([0], 1, [1], [0.0]), ValueError, "costs must be finite and > 0, got 0.0"),
        (([0], 1, [1], [float("nan")]), ValueError, "got nan"),
        (([0], 1, [1], ["x"]), TypeError, "costs must be numbers"),
        (([0], 1, [1], [1.0, 2.0]), ValueError, "each of 1 objects"),
    ],
)
def test_what_is_no_trace_is_refused(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    """The exception names the value and the limit."""
    with pytest.raises(error, match=message):
        simulate(*arguments)


def test_an_unknown_rule_is_refused() -> None:
    """The exception names those that there are."""
    with pytest.raises(ValueError, match="no rule 'speed'; the rules are share_first"):
        Replay(1, 1, speed=2.0)


def test_traces_are_replayed_in_threads_at_once() -> None:
    """Replays of different threads do not disturb one another."""
    traces = [zipf(2000, 40000, seed) for seed in range(4)]
    expected = [simulate(ids, 200) for ids in traces]
    found = [0] * 4

    def work(position: int) -> None:
        found[position] = simulate(traces[position], 200)

    threads = [threading.Thread(target=work, args=(position,)) for position in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
