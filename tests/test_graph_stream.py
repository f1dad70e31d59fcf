"""Graph streams: builtin graphs come back exactly, and no bytes whatever do harm."""

import copy
import gc
import random
import struct
import sys
import tracemalloc

import closure_kinds as kinds
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isomorphism import difference
from test_set_order import HISTORIES, assert_alike_for_ever, set_with_history

from spectral_alloc._graph_stream import GRAPH_VERSION, read_graph, write_graph
from spectral_alloc.errors import CorruptFrameError

HEAD = bytes([GRAPH_VERSION])
LIST_OF, TUPLE_OF, DICT_OF, SET, ODD_SET, FROZENSET, LIST = 0x40, 0x48, 0x50, b"\x11", b"\x13", b"\x12", b"\x0e"
REFERENCE, SHARED, ZERO = b"\x07", 0x80, b"\x60"


def round_trip(value):
    stream = write_graph(value)
    assert type(stream) is bytes
    return read_graph(stream)


atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()))
    | st.text(st.characters(max_codepoint=0xFF))
    | st.binary()
)
keys = st.recursive(
    st.integers() | st.text() | st.binary() | st.booleans() | st.none(),
    lambda inner: st.tuples(inner) | st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=5,
)
values = st.recursive(
    atoms | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner)
        | st.lists(st.floats())
        | st.dictionaries(keys, inner)
        | st.tuples(inner, inner)
        | st.lists(inner).map(tuple)
        | st.sets(keys)
        | st.frozensets(keys)
    ),
    max_leaves=40,
)
# (kind, edges): edges are node numbers, so that nodes are shared and cycles arise
graphs = st.lists(
    st.tuples(st.sampled_from(("list", "dict", "tuple", "set")), st.lists(st.integers(0, 9), max_size=5)),
    min_size=1,
    max_size=10,
)


def build(graph):
    """The root of a graph of builtin containers."""
    nodes = [{"list": list, "dict": dict}.get(kind, lambda: None)() for kind, _ in graph]
    for number, (kind, edges) in enumerate(graph):
        parts = [nodes[e] if e < len(nodes) and nodes[e] is not None else f"leaf {e}" for e in edges]
        if kind == "list":
            nodes[number].extend(parts)
        elif kind == "dict":
            nodes[number].update((f"key {place}", part) for place, part in enumerate(parts))
        else:
            nodes[number] = tuple(parts) if kind == "tuple" else {e * 1000 for e in edges}
    return nodes[0]


@settings(max_examples=250, deadline=None)
@given(values)
def test_any_value_comes_back_bit_by_bit(value):
    """Types, bits, order of items and of sets, whatever the value."""
    assert difference(round_trip(value), value) is None


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs)
def test_any_graph_comes_back_isomorphic(graph):
    """Sharing and cycles through lists, dicts and tuples are as before."""
    value = build(graph)
    assert difference(round_trip(value), value) is None


@settings(max_examples=150, deadline=None)
@given(HISTORIES)
def test_sets_keep_their_order_and_their_future(history):
    """Sets with any history, alone or shared, behave as before for ever."""
    value = [set_with_history(history)]
    value += [frozenset(value[0]), value[0], {"member": frozenset(value[0])}]
    back = round_trip(value)
    assert list(back[1]) == list(value[1])
    assert back[2] is back[0]
    assert list(back[3]["member"]) == list(value[3]["member"])
    assert_alike_for_ever(back[0], value[0])


@pytest.mark.parametrize(
    "bits", [0x7FF8000000000001, 0xFFF0000000000123, 0x7FF0000000000001, 0x8000000000000000, 1, 0x7FF0000000000000]
)
def test_floats_keep_their_bits(bits):
    """NaN payloads, signalling ones too, negative zero and subnormals, alone, in runs, in complex numbers."""
    (number,) = struct.unpack("<d", struct.pack("<Q", bits))
    back = round_trip([number, [number, 1.0, number], (number,), complex(number, 1.5), {"k": number}])
    found = [back[0], back[1][0], back[1][2], back[2][0], back[3].real, back[4]["k"]]
    assert [struct.pack("<d", one) for one in found] == [struct.pack("<Q", bits)] * 6


@pytest.mark.parametrize("bits", [0, 1, 5, 7, 8, 31, 62, 63, 64, 65, 127, 1000, 14_000])
def test_ints_of_every_size_come_back(bits):
    """Both signs around every power of two, also far beyond the machine's words."""
    near = [(1 << bits) + step for step in (-1, 0, 1)]
    value = near + [-one for one in near]
    assert difference(round_trip(value), value) is None


@pytest.mark.parametrize(
    "text",
    ["", "a", "\x7f", "\x80", "\xff", "\u0100", "\ud800", "\udfff\ud800", "\uffff", "\U00010000", "\U0010ffff"],
)
def test_text_of_every_kind_comes_back(text):
    """Each width of characters, lone surrogates too, short and long, as value and as key."""
    for one in (text, text + "a", "a" * 40 + text, text * 1000):
        back = round_trip([one, {one: 1}])
        assert back == [one, {one: 1}]
        assert sys.getsizeof(back[0]) == sys.getsizeof("".join(one))


def test_very_deep_graphs_come_back():
    """Depth costs heap, not stack: lists, dicts and tuples, 100,000 levels each, and a cycle at the bottom."""
    value = bottom = []
    for _ in range(100_000):
        value = [value]
    for _ in range(100_000):
        value = {"down": value}
    for _ in range(100_000):
        value = (value,)
    bottom.append(value)
    back = round_trip(value)
    one, other = value, back
    for _ in range(100_000):
        one, other = one[0], other[0]
    for _ in range(100_000):
        one, other = one["down"], other["down"]
    for _ in range(100_001):
        one, other = one[0], other[0]
    assert other is back
    assert one is value


def test_keys_may_nest_as_far_as_hashing_is_safe():
    """A key of 60 tuples comes back; one of 1,000 is left to pickle, since hashing uses the C stack."""
    for depth in (60, 1000):
        key = "core"
        for _ in range(depth):
            key = (key,)
        stream = write_graph({key: [key]})
        if depth == 60:
            back = read_graph(stream)
            assert back == {key: [key]}
            assert next(iter(back)) is back[key][0]
        else:
            assert stream is None


def test_other_types_are_refused():
    """Anything but the exact builtin types is left to pickle, wherever it stands."""
    for name in ("Plain", "ListWithName", "Point", "Colour"):
        odd = {"Point": lambda: kinds.Point(1, 2), "Colour": lambda: kinds.Colour.RED}.get(name, getattr(kinds, name))()
        for value in (odd, [1, odd], {"k": {"k": odd}}, (1, (odd,))):
            assert write_graph(value) is None
    assert write_graph([range(3)]) is None
    assert write_graph([...]) is None


def test_the_bytes_tell_nothing_of_references_from_outside():
    """The same graph gives the same bytes, whoever holds parts of it; a stream tells whether a value changed."""
    value = [{"name": "somebody", "tags": ["one tag", "other tag"]}, ("a tuple", 1.5)]
    stream = write_graph(value)
    held = [value, value[0]["tags"], value[1], value[0]]
    assert write_graph(value) == stream
    assert write_graph(read_graph(stream)) == stream
    assert len(held) == 4
    assert write_graph(copy.deepcopy(value)) == stream
    value[0]["tags"][1] = "other tab"
    assert write_graph(value) != stream


def test_keys_are_shared_among_values():
    """Dicts read one after the other have the same key objects; those that the program interned come first."""
    names = ["".join(["key ", str(number)]) for number in range(20)]
    stream = write_graph(dict.fromkeys(names, 0))
    for first, second in zip(read_graph(stream), read_graph(stream), strict=True):
        assert first is second
    interned = sys.intern("".join(["interned", " by the program"]))
    assert next(iter(read_graph(write_graph({interned: 1})))) is interned


def test_the_collector_sees_what_can_be_in_a_cycle():
    """What was read is tracked where it must be: a cycle made of it is collected."""
    back = round_trip([[], [[]], ([],), (1, 2), {"a": []}, [1.5, 2.5]])
    for part in back[:3] + back[4:]:
        assert gc.is_tracked(part)

    class Witness:
        alive = 0

        def __del__(self):
            Witness.alive -= 1

    for part in (back[0], back[1], back[2][0], back[4], back[5]):
        Witness.alive += 1
        cycle = {"self": part, "witness": Witness()}
        if type(part) is dict:
            part["cycle"] = cycle
        else:
            part.append(cycle)
    del back, part, cycle
    gc.collect()
    assert Witness.alive == 0


# ---- damage ----


def samples():
    """A value for every tag, with sharing, cycles, odd sets and keys that are tuples."""
    odd = set(range(40))
    for member in range(30):
        odd.discard(member)
    part, text = [1, "text that is shared"], "text that is shared"
    cycle = [part, text, part, (part, text)]
    cycle.append(cycle)
    return [
        [None, True, False, 5, -5, 1 << 40, -(1 << 100), 1.5, 2j],
        ["", "short", "x" * 50, "\xe9", "\u20ac", "\U0001f600"],
        [b"bytes", bytearray(b"array"), [1.5, 2.5], (1.5, 2.5), (), [], {}, set(), frozenset()],
        cycle,
        {"key": part, ("a", ("b", frozenset([1, 2]))): (part, 1), b"other": {3: {4: 5}}},
        [odd, frozenset(odd), odd, {frozenset(odd): 1}],
        list(range(300)),
        tuple([number] for number in range(20)),
        {number: str(number) for number in range(40)},
    ]


def reads_or_says_damaged(stream):
    """Read bytes that may be anything; a value that results is whole: it can be written and read again."""
    try:
        value = read_graph(stream)
    except CorruptFrameError:
        return False
    again = write_graph(value)
    assert again is None or difference(read_graph(again), value) is None
    repr(value)
    return True


def test_every_changed_byte_is_harmless():
    """Each byte of each sample set to many others gives some whole value or CorruptFrameError."""
    for value in samples():
        stream = bytearray(write_graph(value))
        for position in range(len(stream)):
            original = stream[position]
            for mask in (1, 2, 8, 16, 64, 128, 255):
                stream[position] = original ^ mask
                reads_or_says_damaged(stream)
            stream[position] = original
        assert difference(read_graph(stream), value) is None


def test_every_truncation_and_extension_is_found():
    """A stream of any other length is damage."""
    for value in samples():
        stream = write_graph(value)
        for length in range(len(stream)):
            assert not reads_or_says_damaged(stream[:length])
        for extra in (b"\0", ZERO, stream):
            assert not reads_or_says_damaged(stream + extra)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from([*range(0x17), 0x20, 0x23, 0x40, 0x41, 0x48, 0x49, 0x50, 0x51, 0x60, 0x61, 0x87, 0x8E,
                                 0x92, 0xC1, 0xC9, 0xD1, 0xA3]) | st.integers(0, 255), max_size=60))  # fmt: skip
def test_any_bytes_are_harmless(body):
    """Bytes that look like streams, and bytes that do not."""
    reads_or_says_damaged(HEAD + bytes(body))
    reads_or_says_damaged(bytes(body))


def test_spliced_streams_are_harmless():
    """Pieces of real streams in any order: references lead to wrong objects, counts lie, types are swapped."""
    generator = random.Random(7)
    streams = [write_graph(value)[1:] for value in samples()]
    for _ in range(4000):
        pieces = []
        for _ in range(generator.randrange(1, 5)):
            stream = generator.choice(streams)
            start = generator.randrange(len(stream))
            pieces.append(stream[start : start + generator.randrange(1, 60)])
        reads_or_says_damaged(HEAD + b"".join(pieces))


def number(value):
    """A varint."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


CRAFTED = {
    "a tuple whose key leads back to it": bytes([TUPLE_OF + 1 | SHARED, DICT_OF + 1, TUPLE_OF + 1])
    + REFERENCE + b"\x01" + ZERO,
    "a complete tuple around an incomplete one as key": bytes([TUPLE_OF + 2 | SHARED, TUPLE_OF + 1 | SHARED])
    + REFERENCE + b"\x01" + bytes([DICT_OF + 1]) + REFERENCE + b"\x02" + ZERO,
    "a frozenset in itself": bytes([FROZENSET[0] | SHARED, 1]) + REFERENCE + b"\x01",
    "a list as key": bytes([DICT_OF + 1, LIST_OF]) + ZERO,
    "a set in a set": SET + b"\x01" + SET + b"\x00",
    "a key given twice": bytes([DICT_OF + 2]) + ZERO * 4,
    "a shared value dropped by the same key": bytes([LIST_OF + 2, DICT_OF + 2]) + ZERO + bytes([0x24 | SHARED])
    + b"text" + ZERO + ZERO + REFERENCE + b"\x04",
    "a member given twice": SET + b"\x02" + ZERO * 2,
    "a reference to nothing": bytes([LIST_OF + 1]) + REFERENCE + b"\x01",
    "a reference to what is not shared": bytes([LIST_OF + 2, LIST_OF]) + REFERENCE + b"\x02",
    "text that is not ASCII": b"\x21\x80",
    "wide text that is narrow": b"\x0a\x01a\0",
    "a character beyond Unicode": b"\x0b\x01\0\0\x11\0",
    "a number of 65 bits": b"\x03" + b"\xff" * 9 + b"\x02",
    "a number without end": b"\x03" + b"\xff" * 40,
    "a key of 100 tuples": bytes([DICT_OF + 1]) + bytes([TUPLE_OF + 1]) * 100 + ZERO * 2,
    "a set with a table for millions": ODD_SET + b"\x01" + ZERO + b"\0" + number((1 << 24) - 1) + b"\0" + b"\0" * 4,
    "a set with a place outside of its table": ODD_SET + b"\x01" + ZERO + b"\0\x07\0\x08\0\0\0",
    "a set with a place that is never searched": ODD_SET + b"\x01" + ZERO + b"\0\x1f\0\x1e\0\0\0",
    "an unknown tag": b"\x1f",
}  # fmt: skip


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_streams_are_refused(name):
    """What no writer makes is damage, not a crash and not a value."""
    with pytest.raises(CorruptFrameError):
        read_graph(HEAD + CRAFTED[name])


def test_streams_of_other_versions_are_refused():
    """Nothing, a lone version and another version are damage."""
    for stream in (b"", HEAD, b"\xb0\x60", b"\x80\x05N."):
        with pytest.raises(CorruptFrameError):
            read_graph(stream)


def test_lies_about_length_take_no_memory():
    """Counts are checked before anything is made, also when every level repeats the lie."""
    huge = number(1 << 40)
    lies = [bytes([tag]) + huge + b"\0" * 100 for tag in range(0x08, 0x17)]
    lies += [LIST + number(50_000) + b"\0" * 9 + LIST + number(50_000) + b"\0" * 50_000]
    lies += [(LIST + number(60_000)) * 20_000 + b"\0" * 1000]
    tracemalloc.start()
    try:
        for lie in lies:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(CorruptFrameError):
                read_graph(HEAD + lie)
            assert tracemalloc.get_traced_memory()[1] - before < 3_000_000
    finally:
        tracemalloc.stop()
