"""Everything that a program does with a dict gives the same with a ThermalDict, also when every value is on disk."""

import ast
import collections
import collections.abc
import copy
import gc
import io
import json
import operator
import pickle
import pprint
import reprlib
import string
import textwrap
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from tiny import SUBJECTS, Tiny, assert_all_cold

from spectral_alloc import ThermalDict

MISSING = object()


def items() -> dict[str, Any]:
    """Fresh values of several kinds under keys that are identifiers; all but None are closed, being nobody else's."""
    return {
        "number": float("12.5"),
        "text": "".join(["t"] * 50),
        "nothing": None,
        "list": [1, [2, 3], {"x": (4, 5)}],
        "dict": {"inner": [1], "other": {"deep": b"bytes"}},
        "set": {1, 2, 3},
        "array": bytearray(b"abc"),
    }


@pytest.fixture(params=list(SUBJECTS))
def subject_class(request: pytest.FixtureRequest) -> type[ThermalDict]:
    """ThermalDict, then the class that keeps nothing in RAM."""
    return SUBJECTS[request.param]


@pytest.fixture
def subject(subject_class: type[ThermalDict]) -> ThermalDict:
    """A filled dict; where the class is the tiny one, every value is really on disk."""
    filled = subject_class(items())
    if subject_class is Tiny:
        assert_all_cold(filled, [key for key in filled if key != "nothing"])
    return filled


def keywords(**given: Any) -> dict[str, Any]:
    """What a function receives through ``**``."""
    return given


READERS: dict[str, Callable[[Any], Any]] = {
    "dict(d)": dict,
    "{**d}": lambda d: {**d},
    "f(**d)": lambda d: keywords(**d),
    "dict(**d)": lambda d: dict(**d),
    "copy": lambda d: d.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "d | {}": lambda d: d | {},
    "{} | d": lambda d: {} | d,
    "{}.update(d)": lambda d: operator.ior({}, d),
    "OrderedDict(d)": lambda d: dict(collections.OrderedDict(d)),
    "defaultdict(list, d)": lambda d: dict(collections.defaultdict(list, d)),
    "ChainMap(d)": lambda d: {key: collections.ChainMap(d)[key] for key in d},
    "UserDict(d)": lambda d: collections.UserDict(d).data,
    "MappingProxyType(d)": lambda d: types.MappingProxyType(d).copy(),
    "SimpleNamespace(**d)": lambda d: vars(types.SimpleNamespace(**d)),
    "zip(d, d.values())": lambda d: dict(zip(d, d.values(), strict=True)),
    "d.items()": lambda d: dict(d.items()),
    "list(d.items())": lambda d: dict(list(d.items())),
    "reversed twice": lambda d: dict(list(reversed(d.items()))[::-1]),
    "type(name, (), d)": lambda d: {key: vars(type("C", (), d))[key] for key in d},
    "vars(obj).update(d)": lambda d: _updated_namespace(d),
    "eval with d as locals": lambda d: {key: eval(key, {}, d) for key in d},
    "eval with d as globals": lambda d: {key: eval(key, d.copy()) for key in d},
    "itemgetter": lambda d: dict(zip(d, operator.itemgetter(*d)(d), strict=True)),
    "map(d.get, d)": lambda d: dict(zip(d, map(d.get, d), strict=True)),
    "popitem until empty": lambda d: dict([d.popitem() for _ in range(len(d))][::-1]),
    "pop of every key": lambda d: {key: d.pop(key) for key in list(d)},
    "setdefault of every key": lambda d: {key: d.setdefault(key, MISSING) for key in d},
    "literal_eval(repr(d))": lambda d: ast.literal_eval(repr({**d, "array": 0}).replace("'array': 0", _array_repr(d))),
}


def _updated_namespace(d: Any) -> dict[str, Any]:
    namespace = types.SimpleNamespace()
    vars(namespace).update(d)
    return vars(namespace)


def _array_repr(d: Any) -> str:
    return f"'array': {bytes(d['array'])!r}"


@pytest.mark.parametrize("how", list(READERS))
def test_every_way_of_reading_gives_the_items_in_order(subject: ThermalDict, how: str) -> None:
    """Every way in which Python or C code takes the items out gives equal values in insertion order."""
    got = READERS[how](subject)
    assert list(got.items()) == list(items().items())


def test_json_equals_that_of_dict(subject_class: type[ThermalDict]) -> None:
    """json.dumps, json.dump and sorted, indented output are those of the dict."""
    plain = {"a": [1, 2], "b": {"c": None, "d": [True, 1.5]}, "z": "text"}
    subject = subject_class(plain)
    for options in ({}, {"indent": 2}, {"sort_keys": True}, {"separators": (",", ":")}):
        assert json.dumps(subject, **options) == json.dumps(plain, **options)
        assert json.dumps({"in": [subject]}, **options) == json.dumps({"in": [plain]}, **options)
    file = io.StringIO()
    json.dump(subject, file)
    assert file.getvalue() == json.dumps(plain)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("pickler", [pickle.dumps, pickle._dumps], ids=["C", "Python"])
def test_pickle(subject: ThermalDict, protocol: int, pickler: Callable[..., bytes]) -> None:
    """A pickled dict comes back as the same class with equal items in order, in each protocol."""
    back = pickle.loads(pickler(subject, protocol))
    assert type(back) is type(subject)
    assert list(back.items()) == list(items().items())


def test_pickle_keeps_sharing(subject_class: type[ThermalDict]) -> None:
    """Two keys that share one object still share it after pickling and after deepcopy, and in copy with the source."""
    shared = [1]
    subject = subject_class(a=shared, b={"in": shared})
    for back in (pickle.loads(pickle.dumps(subject)), copy.deepcopy(subject)):
        assert back["a"] is back["b"]["in"]
        assert back["a"] is not shared
    for alike in (copy.copy(subject), subject.copy(), dict(subject), subject | {}):
        assert alike["a"] is shared


def test_recursive_dict(subject_class: type[ThermalDict]) -> None:
    """A dict that contains itself has dict's repr, pickles, deep-copies and is collected when dropped."""
    subject = subject_class()
    subject["self"] = subject
    subject["list"] = [subject]
    assert repr(subject) == "{'self': {...}, 'list': [{...}]}"
    for back in (pickle.loads(pickle.dumps(subject)), copy.deepcopy(subject)):
        assert back["self"] is back
        assert back["list"][0] is back
    watcher = weakref.ref(subject)
    del subject, back
    gc.collect()
    assert watcher() is None


def test_repr_is_that_of_dict(subject: ThermalDict) -> None:
    """repr, str, format, pprint and reprlib show what they show for a dict."""
    plain = items()
    assert repr(subject) == repr(plain)
    assert str(subject) == str(plain)
    assert f"{subject}" == f"{plain}"
    assert reprlib.repr(dict(subject)) == reprlib.repr(plain)
    assert pprint.pformat(dict(subject)) == pprint.pformat(plain)
    for view in ("keys", "values", "items"):
        assert repr(getattr(subject, view)()) == repr(getattr(plain, view)())


def test_equality(subject: ThermalDict) -> None:
    """== and != give what they give for a dict, whatever stands on the other side."""
    plain = items()
    other = type(subject)(plain)
    for equal in (plain, other, collections.OrderedDict(plain), collections.defaultdict(int, plain), subject):
        assert subject == equal
        assert equal == subject
        assert not subject != equal
        assert not equal != subject
    changed = items()
    changed["dict"]["other"]["deep"] = b"other"
    for different in (changed, type(subject)(changed), collections.OrderedDict(changed), {}, [], None):
        assert subject != different
        assert different != subject
        assert not subject == different
    assert subject.__eq__(list(plain.items())) is NotImplemented
    with pytest.raises(TypeError):
        _ = subject < plain  # type: ignore[operator]


def test_merge_and_update(subject_class: type[ThermalDict]) -> None:
    """|, |=, update and the constructor accept what dict accepts and keep the order of first insertion."""
    subject = subject_class([("a", 1), ("b", [2])], c=3)
    assert list((subject | {"b": 5, "d": 6}).items()) == [("a", 1), ("b", 5), ("c", 3), ("d", 6)]
    assert list(({"d": 6, "a": 0} | subject).items()) == [("d", 6), ("a", 1), ("b", [2]), ("c", 3)]
    assert isinstance(subject | {}, ThermalDict)
    assert isinstance({} | subject, ThermalDict)
    same = subject
    same |= [("a", 9)]
    assert same is subject
    subject |= {"e": 1}
    subject.update([["f", 2]], g=3)
    subject.update(subject)
    subject.update(subject_class(h=[4]))
    assert list(subject.items()) == [("a", 9), ("b", [2]), ("c", 3), ("e", 1), ("f", 2), ("g", 3), ("h", [4])]
    with pytest.raises(TypeError):
        _ = subject | [("a", 1)]  # type: ignore[operator]


def test_keyword_items_named_like_settings(subject_class: type[ThermalDict]) -> None:
    """Keyword arguments of the constructor are items whatever their name, as for dict."""
    names = ["self", "memory_limit", "spill_dir", "path", "codec", "iterable", "cls", "args"]
    assert dict(subject_class(**dict.fromkeys(names, 1))) == dict.fromkeys(names, 1)


def test_views_are_live_set_like_and_reversible(subject: ThermalDict) -> None:
    """Views see later changes, combine as sets, know their mapping and reverse."""
    keys, values, pairs = subject.keys(), subject.values(), subject.items()
    assert list(reversed(subject)) == list(reversed(keys)) == list(items())[::-1]
    assert list(reversed(values)) == list(items().values())[::-1]
    subject["new"] = "value"
    assert "new" in keys
    assert "value" in values
    assert ("new", "value") in pairs
    assert ("new", "other") not in pairs
    assert ("list", [1, [2, 3], {"x": (4, 5)}]) in pairs
    assert keys & {"new", "absent"} == {"new"}
    assert {"new", "absent"} - keys == {"absent"}
    assert keys | {"absent"} == {*items(), "new", "absent"}
    assert keys ^ set(items()) == {"new"}
    assert keys.isdisjoint({"absent"})
    assert keys > {"new"}
    assert len(keys) == len(values) == len(pairs) == 8
    for view in (keys, values, pairs):
        assert isinstance(view.mapping, types.MappingProxyType)
        assert view.mapping == subject
    for view, abstract in ((keys, "KeysView"), (values, "ValuesView"), (pairs, "ItemsView")):
        assert isinstance(view, getattr(collections.abc, abstract))


def test_item_view_sets(subject_class: type[ThermalDict]) -> None:
    """The view of items of hashable values is a set like dict's, and errors of unhashable values are dict's."""
    subject = subject_class(a=(1, 2), b="x" * 40)
    assert subject.items() & {("a", (1, 2))} == {("a", (1, 2))}
    assert subject.items() == {"a": (1, 2), "b": "x" * 40}.items()
    assert {("b", "x" * 40)} < subject.items()
    with pytest.raises(TypeError):
        _ = subject_class(a=[1]).items() | set()


def test_missing_in_subclasses(subject_class: type[ThermalDict]) -> None:
    """__missing__ of a subclass serves ``[]`` alone, not get, pop, in or setdefault."""

    class Default(subject_class):  # type: ignore[misc, valid-type]
        def __missing__(self, key: object) -> object:
            self[key] = [key]
            return self[key]

    subject = Default(present=[0])
    assert subject["present"] == [0]
    assert subject.get("x") is None
    assert "x" not in subject
    with pytest.raises(KeyError):
        subject.pop("x")
    assert subject["x"] == ["x"]
    subject["x"].append(1)
    assert subject["x"] == ["x", 1]
    assert "%(y)s" % Default() == "['y']"
    assert "{y}".format_map(Default()) == "['y']"


def test_subclass_attributes_and_overrides(subject_class: type[ThermalDict]) -> None:
    """A subclass may have attributes, slots, an __init__ and overridden methods, as with dict."""

    class Named(subject_class):  # type: ignore[misc, valid-type]
        def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.name = name

        def __setitem__(self, key: object, value: object) -> None:
            super().__setitem__(key, ("set", value))

    subject = Named("n", {"a": [1]})
    assert (subject.name, subject["a"]) == ("n", [1])
    subject["b"] = 2
    subject.update(c=3)
    subject.setdefault("d", 4)
    assert dict(subject) == {"a": [1], "b": ("set", 2), "c": 3, "d": 4}
    assert weakref.ref(subject)() is subject
    assert isinstance(subject, dict | collections.abc.MutableMapping)
    assert issubclass(subject_class, collections.abc.MutableMapping)
    assert subject_class.__hash__ is None
    assert subject_class.__class_getitem__(int) is not None


def test_fromkeys(subject_class: type[ThermalDict]) -> None:
    """fromkeys gives an instance of the class, and all its keys share the one value."""
    subject = subject_class.fromkeys("abc", value := [])
    assert type(subject) is subject_class
    subject["a"].append(1)
    assert value == [1]
    assert subject["b"] is subject["c"] is value
    assert subject_class.fromkeys([1, 2]) == {1: None, 2: None}


def test_pattern_matching(subject: ThermalDict) -> None:
    """A mapping pattern takes values apart and collects the rest."""
    match subject:
        case {"number": 12.5, "dict": {"inner": [first]}, **rest}:
            assert first == 1
            assert list(rest) == ["text", "nothing", "list", "set", "array"]
            assert rest["list"] == items()["list"]
        case _:
            pytest.fail("the pattern must match")


def test_formatting(subject: ThermalDict) -> None:
    """%-formatting, format_map, Template and str.translate read values through it."""
    assert "%(number).1f %(text).3s" % subject == "12.5 ttt"
    assert "{number:.1f} {list[1][0]}".format_map(subject) == "12.5 2"
    assert string.Template("$number").substitute(subject) == "12.5"
    assert "abc".translate(type(subject)({ord("a"): "xyz", ord("b"): None})) == "xyzc"


def test_consumers_of_keys_and_values(subject_class: type[ThermalDict]) -> None:
    """sorted, min, max, sum, any, unpacking and the in operator work as on dict."""
    subject = subject_class(b=[2], a=[3], c=[1])
    assert sorted(subject) == ["a", "b", "c"]
    assert sorted(subject.items(), key=operator.itemgetter(1)) == [("c", [1]), ("b", [2]), ("a", [3])]
    assert max(subject, key=subject.__getitem__) == "a"
    assert min(subject.values()) == [1]
    assert sum(v[0] for v in subject.values()) == 6
    first, *rest = subject
    assert (first, rest) == ("b", ["a", "c"])
    assert [1] in subject.values()
    assert bool(subject)
    assert not subject_class()


def test_errors_are_those_of_dict(subject_class: type[ThermalDict]) -> None:
    """Missing and unhashable keys, bad arguments and an empty popitem raise what dict raises, with the same words."""
    calls: list[Callable[[Any], Any]] = [
        lambda d: d["absent"],
        lambda d: d[(1, 2)],
        lambda d: d[None],
        lambda d: d[[]],
        lambda d: d.__setitem__([], 1),
        lambda d: d.__delitem__("absent"),
        lambda d: d.__delitem__([]),
        lambda d: d.pop("absent"),
        lambda d: d.pop([]),
        lambda d: d.get([]),
        lambda d: d.setdefault([], 1),
        lambda d: [] in d,
        lambda d: d.update(3),
        lambda d: d.update([(1, 2, 3)]),
        lambda d: d.update([1]),
        lambda d: hash(d),
        lambda d: d.popitem() and d.popitem() and d.popitem(),
    ]
    for call in calls:
        with pytest.raises(Exception) as theirs:  # noqa: PT011 (whatever dict raises is the expectation)
            call({"a": 1})
        with pytest.raises(theirs.type) as ours:
            call(subject_class(a=1))
        expected = textwrap.shorten(str(theirs.value).replace("'dict'", f"'{subject_class.__name__}'"), 200)
        assert textwrap.shorten(str(ours.value), 200) == expected
        assert len(ours.value.args) == len(theirs.value.args)


@pytest.mark.parametrize("view", ["keys", "values", "items", "__iter__", "__reversed__"])
@pytest.mark.parametrize("change", ["insert", "delete", "clear", "replace"])
def test_mutation_during_iteration(subject_class: type[ThermalDict], view: str, change: str) -> None:
    """A change of the size during iteration raises dict's error at the next step; a new value alone does not."""

    def outcome(d: Any) -> tuple[type, str] | list[Any]:
        iterator = iter(getattr(d, view)())
        seen = [next(iterator)]
        try:
            {"insert": lambda: d.update(new=[1]), "delete": lambda: d.pop("text"), "clear": d.clear,
             "replace": lambda: d.update(text=["other"])}[change]()
            seen.extend(iterator)
        except RuntimeError as error:
            return type(error), str(error)
        return seen

    assert outcome(subject_class(items())) == outcome(items())


def test_iterators_know_their_length_and_stay_exhausted(subject: ThermalDict) -> None:
    """length_hint counts down, an exhausted iterator stays so, and iterators pickle as dict's do."""
    for view in ("keys", "values", "items"):
        iterator = iter(getattr(subject, view)())
        assert operator.length_hint(iterator) == len(subject)
        next(iterator)
        assert operator.length_hint(iterator) == len(subject) - 1
        rest = pickle.loads(pickle.dumps(iterator))
        assert list(rest) == list(getattr(items(), view)())[1:]
        assert len(list(iterator)) == len(subject) - 1
        subject["number"] = 12.5
        assert next(iterator, MISSING) is MISSING


def test_edits_in_place_stay(subject: ThermalDict) -> None:
    """An edit through d[k], through a held value and through a held inner object are all there afterwards."""
    subject["list"].append(9)
    held, inner = subject["dict"], subject["list"][1]
    subject["unrelated"] = [0] * 100
    inner.append("inner")
    held["inner"].append("held")
    subject["set"] |= {4}
    assert subject["list"] == [1, [2, 3, "inner"], {"x": (4, 5)}, 9]
    assert subject["dict"] is held
    assert subject["list"][1] is inner
    assert held["inner"] == [1, "held"]
    assert subject["set"] == {1, 2, 3, 4}


def test_insertion_order_survives_everything(subject_class: type[ThermalDict]) -> None:
    """Replacing keeps a key's place, deleting and inserting again moves it to the end."""
    subject, plain = subject_class(), {}
    for d in (subject, plain):
        for n in range(50):
            d[n % 17] = [n]
        for n in range(0, 17, 3):
            del d[n]
        for n in range(17):
            d.setdefault(n, [n])
        d.popitem()
        d[5] = "replaced"
    assert list(subject.items()) == list(plain.items())


def test_pairs_that_are_kept_are_not_used_again() -> None:
    """items() may give the same tuple again only if nobody kept the last one."""
    d = ThermalDict((number, str(number)) for number in range(50))
    assert list(d.items()) == [(number, str(number)) for number in range(50)]
    iterator = iter(d.items())
    first = next(iterator)
    assert next(iterator) == (1, "1")
    assert first == (0, "0")


@pytest.mark.parametrize("view", ["values", "items"])
def test_a_view_iterator_of_a_changed_dict_says_so_for_good(view: str) -> None:
    """After a change of size the iterator raises, again and again, as dict's does."""
    for mapping in ({1: 1, 2: 2}, ThermalDict({1: 1, 2: 2})):
        iterator = iter(getattr(mapping, view)())
        next(iterator)
        mapping[3] = 3
        for _ in range(2):
            with pytest.raises(RuntimeError, match="changed size"):
                next(iterator)
        assert iterator.__length_hint__() == 0
