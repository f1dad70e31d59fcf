"""The tables of sets: recognised when they would come out the same, and given back when not."""

import ast
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_alloc import CorruptFrameError, _closure
from spectral_alloc._graph_stream import read_graph, write_graph
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


@settings(max_examples=60)
@given(HISTORIES, st.booleans())
def test_portable_streams_keep_the_order_in_this_process(history, frozen):
    """What a durable dict writes comes back with its table here, whatever the members are."""
    first = set_with_history(history)
    value = frozenset(first) if frozen else first
    again = read_graph(write_graph(value, True))
    assert (list(again), type(again)) == (list(value), type(value))
    if not frozen:
        assert_alike_for_ever(first, again)


def test_another_process_keeps_the_order_of_ints_and_reads_the_rest():
    """With another hash seed a set of ints has its order, and one of strings its members."""
    ints = {number * 977 % 10_007 for number in range(300)}
    for number in sorted(ints)[::2]:
        ints.discard(number)
    texts = set_with_history([("add", number) for number in range(100)] + [("discard", number) for number in range(50)])
    code = (
        "import sys; from spectral_alloc._graph_stream import read_graph\n"
        "for text in sys.argv[1:]: print([str(member) for member in read_graph(bytes.fromhex(text))])"
    )
    streams = [write_graph(value, True).hex() for value in (ints, texts)]
    command = [sys.executable, "-c", code, *streams]
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    first, second = (ast.literal_eval(line) for line in done.stdout.splitlines())
    assert first == [str(member) for member in ints]
    assert sorted(second) == sorted(map(str, texts))


def test_a_crafted_layout_with_the_right_seed_is_refused():
    """A layout whose places do not fit raises CorruptFrameError, with the seed as without."""
    ints = {number * 977 % 10_007 for number in range(60)}
    ints.discard(977)
    stream = write_graph(ints, True)
    assert stream[1] == 0x17
    for at in range(len(stream) - 50, len(stream)):
        crafted = stream[:at] + bytes([stream[at] ^ 0xFF]) + stream[at + 1 :]
        try:
            assert set(read_graph(crafted)) == ints
        except CorruptFrameError:
            continue
