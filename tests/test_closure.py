"""The closedness walk: closed values are found closed, and every kind of outside holder is seen."""

import collections
import functools
import gc
import sys
import weakref

import closure_kinds as kinds
import numpy as np
import pytest

from spectral_alloc import _closure, closure
from spectral_alloc.closure import CLOSED, CYCLIC, FLAT, HAS_BUFFERS, HELD, PINNED, PLAIN, examine


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
    for value in (
        [1j],
        [...],
        [kinds.Plain()],
        [int],
        [collections.OrderedDict()],
        [range(3)],
        [kinds.Colour.RED],
    ):
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
    """Thousands of changes use up the version tags of a class on some versions: then it is pinned."""
    cls = type("Restless", (), {})
    holder = [[cls()]]
    for number in range(3000):
        cls.counter = number
        if number % 300 == 0:
            assert status(holder) in (CLOSED, PINNED)
    assert status(holder) in (CLOSED, PINNED)


def test_classes_whose_code_fails_when_looked_at_are_pinned():
    """An exception of a metaclass during classification becomes the reason; an interrupt comes out."""

    class Meta(type):
        error = KeyError("no name")

        @property
        def __module__(cls):
            raise Meta.error

    class Odd(metaclass=Meta):
        __slots__ = ()

        def __reduce__(self):
            return 0

    verdict = examine([[Odd()]])
    assert (verdict.status, "KeyError" in verdict.reason) == (PINNED, True)
    Meta.error = KeyboardInterrupt()
    Odd.changed = 1
    with pytest.raises(KeyboardInterrupt):
        examine([[Odd()]])
    assert status([[1]]) == CLOSED


def test_classes_that_claim_to_equal_others_are_not_taken_for_them():
    """A metaclass with its own __eq__ and __hash__ does not give its classes the rule of list."""

    class Meta(type):
        def __eq__(cls, other):
            return True

        def __hash__(cls):
            return hash(list)

    class Impostor(metaclass=Meta):
        pass

    class Unhashable(metaclass=type("NoHash", (type,), {"__eq__": lambda cls, other: False})):
        pass

    holder = [[kinds.filled(Impostor(), a=[1]), kinds.filled(Unhashable(), a=1)]]
    assert status(holder) == CLOSED
    inner = holder[0][0].a
    assert status(holder) == HELD
    del inner


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
    closure.register_type(
        Handle, reduce=lambda handle: handle.data, restore=lambda data: kinds.filled(Handle(), data=data)
    )
    assert status(holder) == CLOSED
    inner = holder[0][0].data
    assert status(holder) == HELD
    del inner
    assert status(holder) == CLOSED


def test_registered_c_types_use_their_traverse():
    """A C type with garbage collection tells its references itself."""
    closure.register_type(
        functools.partial,
        reduce=lambda p: (p.func, p.args, p.keywords),
        restore=lambda s: functools.partial(s[0], *s[1], **s[2]),
    )
    try:
        holder = [[functools.partial(len, [1])]]
        assert status(holder) == CLOSED
        inner = holder[0][0].args[0]
        assert status(holder) == HELD
        del inner
    finally:
        del closure._registered[id(functools.partial)]
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
