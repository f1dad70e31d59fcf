"""The tables of sets: recognised when they would come out the same, and given back when not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_alloc import _closure
from spectral_alloc.closure import CLOSED, ODD_SETS, PLAIN, examine


def test_sets_whose_history_shows_are_flagged():
    """Deleted members, a moved pop() search or an unusual table size are seen, so that dumps keeps them."""
    deleted = set(range(20))
    deleted.discard(3)
    popped = set(range(20))
    popped.pop()
    roomy = set(range(1000)).copy()
    for number in range(5, 1000):
        roomy.discard(number)
    for value in (deleted, popped, roomy):
        verdict = examine([[value.copy()]])
        assert not _closure.set_order_kept(value)
        assert verdict.status == CLOSED
    holder = [[deleted]]
    del deleted, value
    verdict = examine(holder)
    assert (verdict.status, verdict.flags & (ODD_SETS | PLAIN)) == (CLOSED, ODD_SETS)
    assert not examine([[set(range(20))]]).flags & ODD_SETS


HISTORIES = st.lists(
    st.tuples(st.sampled_from(["add", "discard", "pop"]), st.integers(-200, 200)), max_size=200
)


def rebuilt(members):
    """What pickle does: each member added once, in iteration order."""
    fresh = set()
    fresh.update(tuple(members))
    return fresh


def set_with_history(history):
    members = set()
    for action, number in history:
        key = number * 7919 if number % 3 else f"text {number}"
        if action == "pop":
            if members:
                members.pop()
        else:
            getattr(members, action)(key)
    return members


def assert_alike_for_ever(first, second):
    assert list(first) == list(second)
    for extra in range(10_000, 10_060):
        first.add(extra)
        second.add(extra)
    assert list(first) == list(second)
    assert [first.pop() for _ in range(40)] == [second.pop() for _ in range(40)]
    assert list(first) == list(second)


@settings(max_examples=300, deadline=None)
@given(HISTORIES)
def test_a_set_found_unchanged_comes_out_the_same(history):
    """Whatever its history: if the replay says so, rebuilding gives the same order, now and later."""
    members = set_with_history(history)
    if _closure.set_order_kept(members):
        assert_alike_for_ever(members, rebuilt(members))


@settings(max_examples=300, deadline=None)
@given(HISTORIES)
def test_an_arranged_set_is_the_same_set(history):
    """A rebuilt set, given the layout of the first, behaves like it for ever."""
    members = set_with_history(history)
    other = rebuilt(members)
    _closure.arrange_set(other, _closure.set_layout(members))
    assert_alike_for_ever(members, other)


def test_wrong_layouts_are_refused():
    """A layout that does not fit changes nothing."""
    members = set(range(10))
    places, gone, mask, finger = _closure.set_layout(members)
    wrong = [
        (places[:-4], gone, mask, finger),
        (places[4:] + places[:4], gone, mask, finger),
        (places[:4] * 10, gone, mask, finger),
        (places, places, mask, finger),
        (places, gone, mask - 1, finger),
        (places, gone, 7, finger),
        (places, gone, mask, -1),
    ]
    for layout in wrong:
        with pytest.raises(ValueError, match="not a layout"):
            _closure.arrange_set(members, layout)
    with pytest.raises(TypeError):
        _closure.arrange_set([], (places, gone, mask, finger))
    assert list(members) == list(range(10))
