"""The sizer: allocation formulas against the allocator, the estimate against both."""

import collections
import gc
import os
import subprocess
import sys
import tracemalloc

import closure_kinds as kinds
import numpy as np
import pytest
import sizer_values
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_alloc import _closure

PYMALLOC_LIMIT = 512


def rounded(request):
    """What the allocators hand out for a request."""
    if request <= PYMALLOC_LIMIT:
        return (request + 15) // 16 * 16
    return max(32, (request + 8 + 15) // 16 * 16)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 100, 463, 464, 600, 5000])
def test_flat_objects_are_exact(length):
    """str of every width, bytes and int as sys.getsizeof plus rounding."""
    for value in (
        "a" * length + str(length),
        "é" * length + str(length),
        "中" * length,
        "😀" * length,
        b"x" * length + b"yz",
    ):
        if len(value) > 1:
            assert _closure.own_bytes(value) == rounded(sys.getsizeof(value)), type(value)
    assert _closure.own_bytes(10 ** (length + 5)) == rounded(sys.getsizeof(10 ** (length + 5)))
    assert _closure.own_bytes(length + 0.5) == 32


def header(value):
    """Bytes in front of an object that sys.getsizeof already counts (garbage collector and managed dict)."""
    return sys.getsizeof(value) - value.__sizeof__()


@pytest.mark.parametrize("length", [0, 1, 3, 8, 50, 1000])
def test_containers_are_exact(length):
    """Object and tables are counted apart, each rounded as its allocator does."""
    items = list(range(length))
    grown = []
    for item in items:
        grown.append(item)
    for value in (items, grown):
        table = value.__sizeof__() - [].__sizeof__()
        assert _closure.own_bytes(value) == rounded([].__sizeof__() + 16) + rounded(table)
    members = set(items)
    assert _closure.own_bytes(members) == rounded(set().__sizeof__() + 16) + rounded(
        members.__sizeof__() - set().__sizeof__()
    )
    keys = {f"key {item}": item for item in items}
    for mapping in (keys, dict.fromkeys(items)):
        assert _closure.own_bytes(mapping) == rounded(64) + rounded(mapping.__sizeof__() - {}.__sizeof__())
    pair = tuple(items)
    if pair:
        assert _closure.own_bytes(pair) == rounded(sys.getsizeof(pair))
    data = bytearray(length)
    assert _closure.own_bytes(data) == rounded(bytearray().__sizeof__()) + rounded(
        data.__sizeof__() - bytearray().__sizeof__()
    )
    numbers = kinds.array("d", items)
    assert _closure.own_bytes(numbers) == rounded(
        numbers.__sizeof__() - 8 * length + header(numbers)
    ) + rounded(8 * length)
    queue = collections.deque(items)
    assert abs(_closure.own_bytes(queue) - queue.__sizeof__()) <= 16 * (length // 64 + 2) + 32 + 544


def test_arrays_count_the_memory_they_own():
    """Owners count their data, views do not."""
    owner = np.zeros(1000)
    assert 8000 <= _closure.own_bytes(owner) <= 8300
    assert _closure.own_bytes(owner[1:]) < 300
    assert _closure.own_bytes(np.asfortranarray(np.zeros((10, 100)))) >= 8000
    assert _closure.size_estimate(owner[1:]) >= 8000


MAKERS = sorted(sizer_values.MAKERS)


@pytest.mark.parametrize(
    "name", [name for name in MAKERS if name != "numbers"]
)  # tracemalloc sees no rounding
def test_sums_follow_the_memory_that_is_requested(name):
    """Exact and estimated bytes of many values are within a quarter of what tracemalloc saw them ask for."""
    taken, exact, estimated = sizer_values.measure(sizer_values.MAKERS[name], 20_000)
    assert 0.8 <= exact / taken <= 1.25
    assert 0.8 <= estimated / taken <= 1.25


@pytest.mark.long
@pytest.mark.parametrize("name", MAKERS)
def test_sums_follow_the_resident_memory(name):
    """The same against the resident set of a fresh process."""
    tests = os.path.dirname(__file__)
    program = (
        f"import sys; sys.path[:0] = [{tests!r}, {os.path.dirname(tests)!r}]; import sizer_values;"
        f"print(*sizer_values.measure_resident(sizer_values.MAKERS[{name!r}], 100_000))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    taken, estimated = map(float, answer.stdout.split())
    assert 0.75 <= estimated / taken <= 1.3


# ---- the estimate ----


def test_one_large_item_among_few_is_seen():
    """A list or dict of a few items with one large buffer is never taken for small."""
    for place in range(8):
        for factory in (bytearray, bytes, lambda size: np.zeros(size, "u1")):
            items = [1] * 8
            items[place] = factory(50_000_000)
            assert _closure.size_estimate(items) > 50_000_000
            assert _closure.size_estimate(dict(enumerate(items))) > 50_000_000
            assert _closure.size_estimate(tuple(items)) > 50_000_000
            assert _closure.size_estimate({"row": {"data": items}}) > 50_000_000


def test_the_estimate_is_bounded():
    """Long, wide, deep and cyclic values cost a bounded look; the answer is of the right order."""
    long = [[number, str(number)] for number in range(100_000)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    estimate = _closure.size_estimate(long)
    assert tracemalloc.get_traced_memory()[0] - before < 1000
    tracemalloc.stop()
    assert estimate > 100_000 * 100
    assert _closure.size_estimate(kinds.nested(100_000)) > 0
    assert _closure.size_estimate(kinds.self_list()) > 0
    assert _closure.size_estimate(kinds.tree_with_parents()) > 0
    wide = [[[[0] * 10 for _ in range(10)] for _ in range(10)] for _ in range(100)]
    assert 0.5 < _closure.size_estimate(wide) / (100 * 10 * 10 * 150) < 2


def test_objects_shared_by_many_count_a_share():
    """A string that 10,000 items refer to is not counted 10,000 times."""
    text = bytes(1000).decode()
    assert _closure.size_estimate([text] * 10_000) < 100_000
    assert _closure.size_estimate([kinds.Plain] * 100) < 1500


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(kinds.CLOSED_KINDS)), st.integers(0, 200))
def test_any_value_has_a_positive_estimate(name, limit):
    """Any kind of value, any limit: no failure, at least the value's own bytes."""
    value = [kinds.CLOSED_KINDS[name]()]
    assert _closure.size_estimate(value, limit) >= _closure.own_bytes(value) > 0
    for factory, _ in kinds.PINNED_KINDS.values():
        assert _closure.size_estimate(factory()) > 0
        break


# ---- keys ----


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.text() | st.integers() | st.binary() | st.floats() | st.none(),
        lambda inner: st.tuples(inner, inner),
    )
)
def test_the_size_of_a_key_never_changes(key):
    """What happens to a key during its life (hash, utf-8 form, collections) does not change its size."""
    before = _closure.size_key(key)
    hash(key)
    if isinstance(key, str):
        key.isidentifier()
        try:
            key.encode().decode()
            str(key).casefold()
            compile(repr(key), "key", "eval")
        except (UnicodeError, ValueError):
            pass
    gc.collect()
    assert _closure.size_key(key) == before > 0


def test_the_size_of_a_key_is_exact_for_flat_keys():
    """str, bytes and int keys count what they take, whoever else refers to them."""
    for key in ("key 12345", "schlüssel", b"0123456789" * 100, 10**30):
        assert _closure.size_key(key) == rounded(sys.getsizeof(key))
    instance = kinds.Plain()
    before = _closure.size_key(instance)
    instance.__dict__.update({str(number): number for number in range(100)})
    assert _closure.size_key(instance) == before
