"""The closedness walk: closed values are found closed, and every kind of outside holder is seen."""

import collections
import gc
import sys
import types
import weakref

import closure_kinds as kinds
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectral_alloc import _closure, closure
from spectral_alloc.closure import CLOSED, CYCLIC, FLAT, HAS_BUFFERS, HELD, ODD_SETS, PINNED, PLAIN, examine


def status(holder, key=0):
    return examine(holder, key).status


def test_every_layout_of_the_interpreter_is_known():
    """All private layouts passed their self-tests, so that no type is pinned for lack of knowledge."""
    assert all(closure._layouts)
    from spectral_alloc import trust

    assert trust.numpy_major(np) in (1, 2)


@pytest.mark.parametrize("name", kinds.CLOSED_KINDS)
def test_values_that_nobody_holds_are_closed(name):
    """Every supported kind is closed when only its slot refers to it."""
    holder = [kinds.CLOSED_KINDS[name]()]
    verdict = examine(holder)
    assert (verdict.status, verdict.reason) == (CLOSED, None)
    assert verdict.bytes > 0
    assert verdict.objects > 0


@pytest.mark.parametrize("name", kinds.CLOSED_KINDS)
def test_a_held_root_is_held(name):
    """One reference to the root is enough to hold any kind."""
    holder = [kinds.CLOSED_KINDS[name]()]
    outside = holder[0]
    assert status(holder) == HELD
    del outside
    assert status(holder) == CLOSED


@pytest.mark.parametrize("name", kinds.PINNED_KINDS)
def test_what_cannot_be_serialised_is_pinned_with_its_reason(name):
    """Every refused kind is pinned, alone or deep inside, and the reason names the culprit."""
    factory, word = kinds.PINNED_KINDS[name]
    for holder in ([factory()], [{"a": [factory()]}]):
        verdict = examine(holder)
        assert verdict.status == PINNED
        assert word in verdict.reason


def test_flat_values_are_flagged():
    """FLAT means that nothing reached can change."""
    closed = [("a" * 50, (1, 2.5, frozenset([b"x" * 50])), kinds.Point(1, 2), kinds.Plain)]
    assert examine(closed).flags & FLAT
    assert not examine([("a", [])]).flags & FLAT
    assert not examine([(1, kinds.Frozen(1))]).flags & FLAT
    assert not examine([bytearray(b"x")]).flags & FLAT


def test_plain_values_are_flagged():
    """PLAIN means that pickle's C code alone writes the value."""
    assert examine([{"a": [1, (2.5, None), {3}, b"x", bytearray(b"y"), frozenset("z")]}]).flags & PLAIN
    for value in ([1j], [...], [kinds.Plain()], [int], [collections.OrderedDict()], [range(3)], [kinds.Colour.RED]):
        assert not examine([[value, 1]]).flags & PLAIN


def test_large_buffers_are_flagged():
    """HAS_BUFFERS is set from 1 KiB on, also for memory behind a view."""
    assert examine([[np.zeros(128)]]).flags & HAS_BUFFERS
    assert not examine([[np.zeros(127)]]).flags & HAS_BUFFERS
    assert examine([np.zeros((100, 100))[1:2]]).flags & HAS_BUFFERS
    assert examine([bytearray(2000)]).flags & HAS_BUFFERS


def test_atoms_held_elsewhere_are_held_as_roots():
    """Dropping a shared or immortal atom frees nothing: as a root it is held."""
    text = "text " * 20
    for value in (1, None, True, "a", (), text):
        assert status([value]) == HELD
    assert status(["".join(["text", "!" * 40])]) == CLOSED


def test_classes_as_roots_are_not_stored():
    """A root that stands for itself never leaves."""
    local = kinds.local_class()
    holder = [local]
    del local
    gc.collect()
    assert status(holder) in (PINNED, HELD)
    assert examine([kinds.local_class()]).status in (PINNED, HELD)


def test_atoms_inside_may_be_shared_but_are_not_counted():
    """A string that somebody else holds does not hold the value, and its bytes are not promised."""
    text = bytes(1000).decode()
    holder = [[text]]
    with_text = examine(holder)
    del text
    without = examine(holder)
    assert with_text.status == without.status == CLOSED
    assert without.bytes - with_text.bytes >= 1000
    assert without.objects - with_text.objects == 1


def test_immutable_containers_may_be_shared_if_all_inside_is_immutable():
    """A tuple of atoms may be held outside; a tuple that leads to a list may not."""
    shared = (1, bytes(100).decode(), (2.5, frozenset([10**20])))
    holder = [[shared, shared]]
    with_shared = examine(holder)
    del shared
    alone = examine(holder)
    assert with_shared.status == alone.status == CLOSED
    assert alone.bytes - with_shared.bytes > 300
    leads_to_list = (1, (2, []))
    holder = [[leads_to_list]]
    assert status(holder) == HELD
    del leads_to_list
    assert status(holder) == CLOSED


def test_frozen_instances_are_not_values():
    """An instance that somebody holds may be compared by identity: it holds the value."""
    point = kinds.Frozen(1)
    holder = [[point]]
    assert status(holder) == HELD


def test_cycles_are_closed_and_flagged():
    """References from inside do not hold the root."""
    holder = [kinds.self_list()]
    assert examine(holder).flags & CYCLIC
    assert status([kinds.tree_with_parents()]) == CLOSED
    outside = holder[0]
    assert status(holder) == HELD
    del outside
    assert status(holder) == CLOSED


def test_a_held_root_of_a_large_graph_is_given_up_early():
    """A root that somebody holds is not searched for ever: the walk sees at most a bounded part."""
    holder = [[[number] for number in range(200_000)]]
    outside = holder[0]
    verdict = examine(holder)
    assert verdict.status == HELD
    assert verdict.objects < 140_000
    assert outside is holder[0]
    holder = [list(range(1000, 2_000_000))]
    outside = holder[0]
    assert examine(holder).objects < 10_000


def test_large_cyclic_graphs_are_closed():
    """References back to the root that come early keep the search going to the end."""
    nodes = [kinds.Plain() for _ in range(20_000)]
    for number, node in enumerate(nodes):
        node.all, node.next = nodes, nodes[number - 1]
    holder = [nodes]
    del nodes, node
    assert status(holder) == CLOSED
    holder[0][0].all = None
    for node in holder[0]:
        node.all = node.next = None


def test_depth_does_not_matter():
    """A list nested a million deep is walked without deep recursion."""
    holder = [kinds.nested(1_000_000)]
    verdict = examine(holder)
    assert (verdict.status, verdict.objects) == (CLOSED, 1_000_001)
    inner = holder[0][0][0]
    assert status(holder) == HELD
    del inner


# ---- every kind of outside holder ----


def hold_iterator(value):
    iterator = iter(value)
    next(iterator, None)
    return iterator


def hold_cell(value):
    def closure_of():
        return value

    return closure_of


def hold_frame(value):
    def running():
        kept = value
        yield kept

    generator = running()
    next(generator)
    return generator


CONTAINER_HOLDERS = {
    "reference": lambda value: value,
    "closure cell": hold_cell,
    "generator frame": hold_frame,
    "bound method": lambda value: value.__repr__,
    "tuple": lambda value: (value,),
    "instance": lambda value: kinds.filled(kinds.Plain(), held=value),
    "slot": lambda value: kinds.filled(kinds.Slotted(), first=value),
}

HOLDERS = {
    "list": (lambda: [[1], 2], {**CONTAINER_HOLDERS, "iterator": hold_iterator, "reversed": reversed}),
    "dict": (
        lambda: {"a": [1]},
        {
            **CONTAINER_HOLDERS,
            "iterator": hold_iterator,
            "keys": lambda value: value.keys(),
            "values": lambda value: value.values(),
            "items iterator": lambda value: iter(value.items()),
            "proxy": types.MappingProxyType,
        },
    ),
    "set": (lambda: {1, 2}, {**CONTAINER_HOLDERS, "iterator": hold_iterator, "weakref": weakref.ref}),
    "deque": (lambda: collections.deque([1]), {**CONTAINER_HOLDERS, "iterator": hold_iterator, "weakref": weakref.ref}),
    "defaultdict": (lambda: collections.defaultdict(list), {**CONTAINER_HOLDERS, "items": lambda value: value.items()}),
    "OrderedDict": (
        lambda: collections.OrderedDict(a=[1]),
        {**CONTAINER_HOLDERS, "items": lambda value: value.items(), "weakref": weakref.ref},
    ),
    "namespace": (lambda: types.SimpleNamespace(a=[1]), {**CONTAINER_HOLDERS, "vars": vars}),
    "bytearray": (lambda: bytearray(b"abc"), {**CONTAINER_HOLDERS, "memoryview": memoryview}),
    "array": (
        lambda: kinds.array("d", [1]),
        {**CONTAINER_HOLDERS, "memoryview": memoryview, "weakref": weakref.ref, "frombuffer": np.frombuffer},
    ),
    "ndarray": (
        lambda: np.arange(5),
        {
            **CONTAINER_HOLDERS,
            "memoryview": memoryview,
            "view": lambda value: value[1:],
            "weakref": weakref.ref,
            "flat": lambda value: value.flat,
            "data": lambda value: value.data,
        },
    ),
    "ndarray view": (
        lambda: np.arange(12).reshape(3, 4),
        {"view": lambda value: value[1:], "base": lambda value: value.base, "memoryview": memoryview},
    ),
    "instance": (
        lambda: kinds.filled(kinds.Plain(), a=[1], b=2),
        {
            **CONTAINER_HOLDERS,
            "vars": vars,
            "dict items": lambda value: vars(value).items(),
            "dict iterator": lambda value: iter(vars(value)),
            "dict method": lambda value: vars(value).get,
            "attribute": lambda value: value.a,
            "weakref": weakref.ref,
            "weakref proxy": weakref.proxy,
            "weak dict": lambda value: weakref.WeakValueDictionary(a=value),
        },
    ),
    "instance with many attributes": (
        lambda: kinds.filled(kinds.Plain(), **{f"a{number}": [number] for number in range(60)}),
        {"vars": vars, "attribute": lambda value: value.a59, "weakref": weakref.ref},
    ),
    "slots": (
        lambda: kinds.filled(kinds.Derived(), first=[1], _Slotted__hidden=[2]),
        {**CONTAINER_HOLDERS, "slot value": lambda value: value.first, "other": lambda value: value._Slotted__hidden},
    ),
    "slots and dict": (
        lambda: kinds.filled(kinds.SlottedWithDict(), first=[1], other=[2]),
        {"vars": vars, "attribute": lambda value: value.other, "slot": lambda value: value.first, "weakref": weakref.ref},
    ),
    "list subclass": (
        lambda: kinds.filled(kinds.ListWithName([[1]]), name=[2]),
        {"vars": vars, "attribute": lambda value: value.name, "item": lambda value: value[0], "weakref": weakref.ref},
    ),
    "dict subclass": (
        lambda: kinds.filled(kinds.DictWithName(a=[1]), name=[2]),
        {"vars": vars, "attribute": lambda value: value.name, "item": lambda value: value["a"], "weakref": weakref.ref},
    ),
    "tuple subclass": (
        lambda: kinds.filled(kinds.TupleWithName([[1]]), name=[2]),
        {"vars": vars, "attribute": lambda value: value.name, "item": lambda value: value[0]},
    ),
    "str subclass": (
        lambda: kinds.filled(kinds.StrWithName("abc"), name=[2]),
        {**CONTAINER_HOLDERS, "vars": vars, "attribute": lambda value: value.name},
    ),
    "namedtuple": (lambda: kinds.Point([1]), {"item": lambda value: value.x, "reference": lambda value: value}),
    "dataclass": (lambda: kinds.Record("a", [1]), {"vars": vars, "field": lambda value: value.items}),
    "identity key": (lambda: {kinds.Plain(): 1}, {"key": lambda value: next(iter(value))}),
    "slice": (lambda: slice([1], 2), {"start": lambda value: value.start, "reference": lambda value: value}),
}


class Wrapper:
    """Stands for the rest of a larger value."""

    def __init__(self, inner):
        self.inner = inner


def unwrapped(value):
    while type(value) is Wrapper:
        value = value.inner
    return value


@pytest.mark.parametrize(("name", "how"), [(name, how) for name, (_, hows) in HOLDERS.items() for how in hows])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_every_kind_of_holder_is_seen(name, how, depth):
    """While the holder lives the value is held, and when it is gone the value is closed again."""
    factory, hows = HOLDERS[name]
    holder = [factory()]
    for _ in range(depth):
        holder = [Wrapper(holder.pop())]
    assert status(holder) == CLOSED
    keeper = hows[how](unwrapped(holder[0]))
    assert status(holder) == HELD
    del keeper
    gc.collect()
    assert status(holder) == CLOSED


def test_two_instances_with_one_attribute_dict_are_held():
    """Sharing of an attribute dict would not survive, so it holds."""
    first, second = kinds.Plain(), kinds.Plain()
    second.__dict__ = first.__dict__
    holder = [[first, second]]
    del first, second
    assert status(holder) == HELD


def test_an_instance_that_refers_to_its_own_attribute_dict_is_held():
    """An attribute dict met from elsewhere in the same value holds it."""
    holder = [kinds.Plain()]
    holder[0].own = vars(holder[0])
    assert status(holder) == HELD


def test_replaced_attribute_dicts_are_followed():
    """After `instance.__dict__ = {...}` the new dict is what counts."""
    attributes = {"a": [1]}
    holder = [kinds.Plain()]
    holder[0].old = [2]
    holder[0].__dict__ = attributes
    assert status(holder) == HELD
    del attributes
    assert status(holder) == CLOSED
    inner = holder[0].a
    assert status(holder) == HELD
    del inner


def test_an_attribute_dict_of_another_type_is_pinned():
    """A subclass of dict as __dict__ would come back as a plain dict."""
    holder = [kinds.Plain()]
    holder[0].__dict__ = collections.OrderedDict(a=1)
    assert status(holder) == PINNED


# ---- classes that change ----


def test_a_patched_class_is_classified_again():
    """A method that handles state, added later to a class or its base, pins; removing it frees again."""
    base = type("Base", (), {})
    derived = type("Derived", (base,), {})
    holder = [[derived()]]
    assert status(holder) == CLOSED
    base.__reduce__ = lambda self: (derived, ())
    assert "Base.__reduce__" in examine(holder).reason
    del base.__reduce__
    assert status(holder) == CLOSED
    derived.__del__ = lambda self: None
    assert "Derived.__del__" in examine(holder).reason
    del derived.__del__
    assert status(holder) == CLOSED


def test_classes_do_not_stay_alive_for_their_rules():
    """The table of rules keeps no class, and a new class at an old address gets its own rule."""
    for number in range(3000):
        members = {"__reduce__": lambda self: 0} if number % 2 else {}
        cls = type(f"Made{number}", (), members)
        alive = weakref.ref(cls)
        holder = [[cls()]]
        del cls
        assert status(holder) == (PINNED if number % 2 else CLOSED)
        del holder
        if number % 500 == 0:
            gc.collect()
            assert alive() is None


def test_a_class_that_changes_forever_is_pinned_not_looped_over():
    """Thousands of changes use up the version tags of a class on some versions: then it is pinned or still known."""
    cls = type("Restless", (), {})
    holder = [[cls()]]
    for number in range(3000):
        cls.counter = number
        if number % 300 == 0:
            assert status(holder) in (CLOSED, PINNED)
    assert status(holder) in (CLOSED, PINNED)


def test_errors_of_metaclasses_while_classifying_are_raised():
    """An exception of user code during classification comes out, and the walker works on."""

    class Meta(type):
        @property
        def __module__(cls):
            raise KeyError("no name")

    class Odd(metaclass=Meta):
        __slots__ = ()

        def __reduce__(self):
            return 0

    holder = [[Odd()]]
    with pytest.raises(KeyError):
        examine(holder)
    assert status([[1]]) == CLOSED


# ---- sets ----


def test_sets_whose_history_shows_are_flagged():
    """Deleted members, a moved pop() search or an unusual table size are seen, so that dumps writes the layout."""
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


HISTORIES = st.lists(st.tuples(st.sampled_from(["add", "discard", "pop"]), st.integers(-200, 200)), max_size=200)


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
    """Whatever its history: if the replay says that order is kept, rebuilding gives the same order, now and later."""
    members = set_with_history(history)
    if _closure.set_order_kept(members):
        assert_alike_for_ever(members, set(list(members)))


@settings(max_examples=300, deadline=None)
@given(HISTORIES)
def test_an_arranged_set_is_the_same_set(history):
    """A rebuilt set, given the layout of the first, behaves like it for ever."""
    members = set_with_history(history)
    other = set(list(members))
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


# ---- keys of dicts ----


def test_a_tuple_met_again_as_a_key_is_checked_as_a_key():
    """An object allowed as an item but not as a set member is found out, whichever place is met first."""

    def made(order):
        pair = (kinds.Plain(), 1)
        parts = [[pair], {pair}]
        return parts[::order]

    assert status([made(1)]) == PINNED
    assert status([made(-1)]) == PINNED
    assert status([[kinds.Point(kinds.Plain()), 1]]) == CLOSED


# ---- the interface ----


def test_holders_other_than_lists_and_dicts_are_refused():
    """The walk needs a slot whose reference is known."""
    with pytest.raises(TypeError, match="list or a dict"):
        examine(([],))
    with pytest.raises(IndexError):
        examine([1], 3)
    with pytest.raises(KeyError):
        examine({}, "missing")
    with pytest.raises(ValueError, match="known_references"):
        _closure.examine([[]], 0, 5)
    assert examine({"k": [1]}, "k").status == CLOSED


def test_known_references_are_not_held_against_the_value():
    """A caller that has taken a reference itself says so."""
    value = [1]
    holder = [value]
    assert _closure.examine(holder, 0, 1)[0] == HELD
    assert _closure.examine(holder, 0, 2)[0] == CLOSED
    assert sys.getrefcount(value) == 3


def test_the_walk_changes_no_reference_count():
    """Reference counts are the same before and after a walk that stopped anywhere."""
    part = [1]
    for value in (part, [part, part], (part, kinds.generator()), {1: part}):
        holder = [[value]]
        before = sys.getrefcount(part), sys.getrefcount(value)
        examine(holder)
        assert (sys.getrefcount(part), sys.getrefcount(value)) == before


def test_the_capsule_is_there():
    """Other extension modules reach the walk without Python calls."""
    assert "spectral_alloc._closure._C_API" in repr(_closure._C_API)


# ---- types of the program's own ----


def test_registered_types_are_walked_by_their_references():
    """A registered class is held by what it refers to, and its old rule is gone at once."""

    class Handle:
        def __reduce__(self):
            raise TypeError("not by pickle")

    holder = [[kinds.filled(Handle(), data=[1])]]
    assert status(holder) == PINNED
    closure.register_type(Handle, reduce=lambda handle: handle.data, restore=lambda data: kinds.filled(Handle(), data=data))
    assert status(holder) == CLOSED
    inner = holder[0][0].data
    assert status(holder) == HELD
    del inner
    assert status(holder) == CLOSED


def test_registered_c_types_use_their_traverse():
    """A C type with garbage collection tells its references itself."""
    import functools

    closure.register_type(functools.partial, reduce=lambda p: (p.func, p.args, p.keywords), restore=lambda s: functools.partial(s[0], *s[1], **s[2]))
    try:
        holder = [[functools.partial(len, [1])]]
        assert status(holder) == CLOSED
        inner = holder[0][0].args[0]
        assert status(holder) == HELD
        del inner
    finally:
        del closure._registered[functools.partial]
        _closure.forget_rules()


def test_registered_atoms_are_shared_freely():
    """An atom may be held outside; its extra bytes are counted."""

    class Money:
        def __init__(self, cents):
            self.cents = cents

        def __reduce__(self):
            return Money, (self.cents,)

    closure.register_type(Money, atom=True, size=100_000)
    money = Money(5)
    holder = [[money, money]]
    assert status(holder) == CLOSED
    shared = examine(holder).bytes
    del money
    assert examine(holder).bytes - shared >= 100_000


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((3,), TypeError),
        ((kinds.Plain,), TypeError),
        ((list, ("atom",)), ValueError),
        ((kinds.Colour, ("atom",)), ValueError),
        ((kinds.Plain, ("atom", "reduce")), TypeError),
        ((kinds.Plain, ("reduce",)), TypeError),
    ],
)
def test_wrong_registrations_are_refused(arguments, error):
    """Each message names the type or the argument, and nothing is registered."""
    cls, options = arguments[0], arguments[1] if len(arguments) > 1 else ()
    given_options = {name: True if name == "atom" else len for name in options}
    with pytest.raises(error):
        closure.register_type(cls, **given_options)
    with pytest.raises(ValueError, match="-5"):
        closure.register_type(kinds.Plain, atom=True, size=-5)
    assert not isinstance(cls, type) or closure.registered(cls) is None


# ---- arbitrary graphs and holders ----

MUTABLE = ("list", "dict", "instance", "slots", "deque", "ordered", "default", "named list", "namespace", "record")
IMMUTABLE = ("tuple", "point", "frozen", "set", "bytes", "array", "view")

graphs = st.lists(
    st.tuples(st.sampled_from(MUTABLE + IMMUTABLE), st.lists(st.integers(0, 11), max_size=4)), min_size=1, max_size=12
)


def build(graph):
    """[root] of the graph; node numbers that an immutable node cannot refer to stand for numbers."""
    empty = {
        "list": list,
        "dict": dict,
        "instance": kinds.Plain,
        "slots": kinds.SlottedWithDict,
        "deque": collections.deque,
        "ordered": collections.OrderedDict,
        "default": lambda: collections.defaultdict(list),
        "named list": kinds.ListWithName,
        "namespace": types.SimpleNamespace,
        "record": kinds.Record,
    }
    nodes = [empty[kind]() if kind in empty else None for kind, _ in graph]
    for number, (kind, edges) in enumerate(graph):
        parts = [nodes[e] if e < len(nodes) and nodes[e] is not None else e * 1000 for e in edges]
        if kind in ("tuple", "frozen"):
            nodes[number] = tuple(parts) if kind == "tuple" else kinds.Frozen(parts[:1], tuple(parts))
        elif kind == "point":
            nodes[number] = kinds.Point(parts, number)
        elif kind == "set":
            nodes[number] = set(list({e * 1000 for e in edges}))
        elif kind == "bytes":
            nodes[number] = bytearray(edges)
        elif kind in ("array", "view"):
            nodes[number] = np.arange(10 + number * 100.0)[:: 1 if kind == "array" else 2][number:]
        else:
            fill(nodes[number], parts)
    kept = set(map(id, parts_inside(nodes[0])))
    for node in nodes:  # what the root does not lead to must not hold it from a dead cycle
        if id(node) not in kept:
            if isinstance(node, (list, dict, set, collections.deque)):
                node.clear()
            if hasattr(node, "__dict__") and not isinstance(node, kinds.Frozen):
                vars(node).clear()
    return [nodes[0]]


def fill(node, parts):
    for place, part in enumerate(parts):
        if isinstance(node, (list, collections.deque)):
            node.append(part)
        elif isinstance(node, dict):
            node[f"key {place}"] = part
        else:
            setattr(node, f"attribute_{place}", part)


def parts_inside(root):
    """All mutable objects of a graph, the root first, without keeping any."""
    seen, waiting = {}, [root]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, (int, str, type, float)):
            continue
        seen[id(value)] = value
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, collections.deque)):
            waiting.extend(value)
        if hasattr(value, "__dict__"):
            waiting.extend(vars(value).values())
    return [value for value in seen.values() if not isinstance(value, (tuple, kinds.Point))]


KEEPERS = [
    lambda value: value,
    hold_cell,
    hold_frame,
    lambda value: iter(value) if isinstance(value, (list, dict, set, collections.deque)) else (value,),
    lambda value: vars(value) if hasattr(value, "__dict__") else value,
    lambda value: value.values() if isinstance(value, dict) else value,
    lambda value: memoryview(value) if isinstance(value, (bytearray, np.ndarray)) else value.__repr__,
    lambda value: weakref.ref(value) if type(value).__weakrefoffset__ else value,
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs, st.integers(0, 100), st.sampled_from(KEEPERS))
def test_any_holder_of_any_part_of_any_graph_is_seen(graph, which, keep):
    """Sharing and cycles inside never hide an outside holder, and never hold a value that has none."""
    holder = build(graph)
    if type(holder[0]) is tuple and not holder[0]:
        return
    assert status(holder) == CLOSED
    inside = parts_inside(holder[0])
    if not inside:
        return
    keeper = keep(inside[which % len(inside)])
    del inside
    assert status(holder) == HELD
    del keeper
    assert status(holder) == CLOSED
