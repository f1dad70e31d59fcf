"""GenerativeSpace: reading, windows, copies, equality, and a clear error for everything that is wrong."""

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from space_twin import twin

from spectral_alloc import FastGMemContext, GenerativeSpace
from spectral_alloc.hilbert import SIDE, hilbert_places

LAST = 2**64 - 1


def message(text: str) -> str:
    """A pattern for an exact message."""
    return "^" + re.escape(text) + "$"


ADDRESS_ERRORS: list[tuple[Any, type[Exception], str]] = [
    (-1, IndexError, "address must be from 0 to 2**64 - 1, got -1"),
    (2**64, IndexError, "address must be from 0 to 2**64 - 1, got 18446744073709551616"),
    (1.5, TypeError, "address must be an int, got 1.5 of type float"),
    ("x", TypeError, "address must be an int, got 'x' of type str"),
    (None, TypeError, "address must be an int, got None of type NoneType"),
    (slice(0, 10, 0), ValueError, "step of a slice must not be 0"),
    (slice(-1, 10), IndexError, "start of a slice must be from 0 to 18446744073709551616, got -1"),
    (slice(0, 2**64 + 1), IndexError, f"stop of a slice must be from 0 to {2**64}, got {2**64 + 1}"),
    (slice(0, 1.5), TypeError, "stop of a slice must be an int, got 1.5 of type float"),
    (numpy.array([0.5]), TypeError, "addresses must be integers, got an array of float64"),
    (numpy.array([True]), TypeError, "addresses must be integers, got an array of bool"),
    (numpy.array([3, -7]), IndexError, "addresses must be from 0 to 2**64 - 1, got -7 at position 1"),
    ([1, 2**64], IndexError, f"addresses must be from 0 to 2**64 - 1, got {2**64} at position 1"),
    ([1, "x"], TypeError, "addresses must be an int, got 'x' of type str at position 1"),
]


@pytest.mark.parametrize(("address", "kind", "text"), ADDRESS_ERRORS, ids=lambda value: str(value)[:30])
def test_a_wrong_address_is_named(address: Any, kind: type[Exception], text: str) -> None:
    """Reading, writing and deleting raise the same clear error, and nothing is written."""
    space = GenerativeSpace(1)

    def assign() -> None:
        space[address] = 0.5

    def remove() -> None:
        del space[address]

    for attempt in (lambda: space[address], assign, remove):
        with pytest.raises(kind, match=message(text)):
            attempt()
    assert space.edit_count == 0


VALUE_ERRORS: list[tuple[str | range, Any, type[Exception], str]] = [
    ("float64", "x", TypeError, "value must be a real number, got 'x' of type str"),
    ("float64", None, TypeError, "value must be a real number, got None of type NoneType"),
    ("float64", 1j, TypeError, "value must be a real number, got 1j of type complex"),
    ("float64", 2**53 + 1, ValueError, f"value must be a number that a float64 holds exactly, got {2**53 + 1}"),
    ("float64", 2**2000, ValueError, "value must fit in a float64, got an int of 2001 bits"),
    ("float32", 1e300, ValueError, "value must be in the range of float32, got 1e+300"),
    ("float32", 2**24 + 1, ValueError, f"value must be a number that a float32 holds exactly, got {2**24 + 1}"),
    ("uint64", 1.0, TypeError, "value must be an int, got 1.0 of type float"),
    ("uint64", -1, ValueError, f"value must be from 0 to {LAST}, got -1"),
    (range(3), 2**63, ValueError, f"value must be from {-(2**63)} to {2**63 - 1}, got {2**63}"),
]


@pytest.mark.parametrize(("values", "value", "kind", "text"), VALUE_ERRORS, ids=str)
def test_a_wrong_value_is_named(values: str | range, value: Any, kind: type[Exception], text: str) -> None:
    """A value that its kind cannot hold exactly is refused before anything is written."""
    space = GenerativeSpace(1, values=values)
    with pytest.raises(kind, match=message(text)):
        space.write(address=5, value=value)
    with pytest.raises(kind, match=message(text)):
        space[5] = value
    assert space.edit_count == 0


def test_arrays_of_wrong_types_and_shapes_are_refused() -> None:
    """scatter, fill and gather name what does not fit, and leave everything as it was."""
    space = GenerativeSpace(1)
    attempts: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: space.scatter([1, 2], [0.5]), ValueError, "values must be one number or of shape"),
        (lambda: space.scatter([1], ["x"]), TypeError, "values must be float64 or convert to it safely"),
        (lambda: space.scatter([1], [1j]), TypeError, "got an array of complex128"),
        (lambda: space.scatter([1, 2], [1, 2**53 + 1]), ValueError, r"9007199254740993\) at position 1"),
        (lambda: space.fill(numpy.empty(3, dtype="f4")), TypeError, "out must be an array of float64, got an array of"),
        (lambda: space.fill([0.0]), TypeError, "got list"),  # type: ignore[arg-type]
        (lambda: space.fill(numpy.empty((4, 4))[:, 1]), ValueError, "C-contiguous"),
        (lambda: space.fill(numpy.broadcast_to(0.5, 3)), ValueError, "writable"),
        (lambda: space.fill(numpy.empty(3), start=LAST), IndexError, "3 of them from 18446744073709551615 end at"),
        (lambda: space.fill(numpy.empty(3), start=1, step=-1), IndexError, "end at -1"),
        (lambda: space.fill(numpy.empty(3), step=0), ValueError, "step must not be 0"),
        (lambda: space.gather([1, 2], out=numpy.empty(3)), ValueError, "out must be of shape"),
        (lambda: space[:], MemoryError, "a slice of 18446744073709551616 values does not fit"),
        (lambda: space.window(LAST, 2), IndexError, "a window of 2 values from"),
        (lambda: space.window((0, 0), 4), ValueError, "two lengths"),
        (lambda: space.window((0, SIDE - 1), (1, 2)), IndexError, "columns must be from 0 to 2"),
        (lambda: GenerativeSpace(1, values="uint64").scatter([1], [-1]), ValueError, "values must be from 0 to"),
        (lambda: GenerativeSpace(1, values="uint64").scatter([1], [0.5]), TypeError, "values must be uint64"),
        (lambda: GenerativeSpace(1, values="float32").scatter([1], [1e300]), ValueError, "that float32 holds"),
    ]
    for attempt, kind, text in attempts:
        with pytest.raises(kind, match=text):
            attempt()
    assert space.edit_count == 0


@pytest.mark.parametrize("wrong", ["float16", range(5, 5), range(0, 10, 2), range(2**63 + 1), 7])
def test_an_unknown_kind_of_values_is_refused(wrong: Any) -> None:
    """The error names what was given and what would do."""
    with pytest.raises((ValueError, TypeError), match="values must be"):
        GenerativeSpace(1, values=wrong)


def test_slices_never_wrap_around() -> None:
    """Ends are addresses: none is counted from the end, and beyond the end is an error, not less."""
    space = GenerativeSpace(4)
    key = twin.seed_key(4)
    assert space[LAST - 2 :].tolist() == [twin.float64(key, LAST - 2 + i) for i in range(3)]
    assert space[2::-1].tolist() == [twin.float64(key, address) for address in (2, 1, 0)]
    assert space[5:5].size == space[9:5].size == space[5:9:-1].size == space[2**64 :].size == 0
    assert space[:: 2**62].tolist() == [twin.float64(key, i * 2**62) for i in range(4)]
    assert space[:: -(2**63)].tolist() == [twin.float64(key, LAST), twin.float64(key, 2**63 - 1)]


def test_edits_show_in_every_way_to_read() -> None:
    """Scalar, slice, strided slice, fill, gather and windows give the edits, and the rest as generated."""
    space, plain = GenerativeSpace(6), GenerativeSpace(6)
    edits = {0: -1.0, 511: 2.0, 512: 3.0, 2**40: 4.0, LAST - 1: 5.0, LAST: float("inf")}
    for address, value in edits.items():
        space[address] = value
    for start, stop, step in ((0, 2000, 1), (0, 2000, 511), (LAST - 999, 2**64, 1), (2**40 + 5, 2**40 - 9, -1)):
        addresses = range(start, stop, step)
        wanted = [edits.get(address, plain[address]) for address in addresses]
        assert space[start:stop:step].tolist() == wanted
        assert [space[address] for address in addresses] == wanted
        assert space.gather(numpy.array(addresses, dtype=numpy.uint64)).tolist() == wanted
    assert space.window(500, (4, 5)).reshape(-1).tolist() == space[500:520].tolist()
    assert space.window((0, 0), (1, 1)).tolist() == [[-1.0]]
    assert list(space.edits()) == sorted(edits.items())


def test_deleting_brings_the_generated_value_back() -> None:
    """One address, a slice with a step in either direction, and an array of addresses; absent edits are no error."""
    space, plain = GenerativeSpace(7), GenerativeSpace(7)
    space[0:100] = numpy.arange(100)
    space[LAST] = 1.0
    del space[3]
    del space[3]
    del space[10:20]
    del space[90:50:-10]
    del space[[0, 1, 2000]]
    left = sorted({*range(100), LAST} - {3, 0, 1} - set(range(10, 20)) - set(range(90, 50, -10)))
    assert [address for address, _ in space.edits()] == left
    assert space[3] == plain[3]
    del space[:]
    assert space.edit_count == 0
    assert space == plain


def test_slices_and_arrays_can_be_assigned() -> None:
    """One number or as many as there are addresses; arrays of any shape."""
    space = GenerativeSpace()
    space[10:20:3] = 5
    space[numpy.array([[1, 2], [3, 4]])] = numpy.array([[1, 2], [3, 4]], dtype="f4")
    space[100:97:-1] = [1.0, 2.0, 3.0]
    assert dict(space.edits()) == {
        **dict.fromkeys((10, 13, 16, 19), 5.0), 1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 100: 1.0, 99: 2.0, 98: 3.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="values must be one number or of shape"):
        space[0:3] = [1.0, 2.0]


@pytest.mark.parametrize("values", ["float64", "float32", "uint64", "normal", range(-3, 9)], ids=str)
def test_copies_pickles_and_equality(values: str | range) -> None:
    """A copy is equal until one of them is written; equality is of seed, values and edits."""
    space = GenerativeSpace("copy", values=values)
    space[5], space[LAST] = 2, 7
    others = [space.copy(), copy.copy(space), copy.deepcopy(space), pickle.loads(pickle.dumps(space))]
    for other in others:
        assert other == space
        assert type(other) is GenerativeSpace
        assert other.values == values
        assert other[5] == 2
        assert other[4:7].tolist() == space[4:7].tolist()
        other[6] = 3
        assert other != space
        assert not space.is_edited(6)
    assert space != GenerativeSpace("copy", values=values)
    assert GenerativeSpace("a") != GenerativeSpace("b")
    assert GenerativeSpace(1) != GenerativeSpace(1, values="uint64")
    assert (space == 5) is False
    with pytest.raises(TypeError, match="unhashable"):
        hash(space)


def test_a_space_is_not_a_sequence_by_accident() -> None:
    """Iteration and `in` would take for ever, so they say what to do instead."""
    space = GenerativeSpace(1)
    with pytest.raises(TypeError, match=r"iterate over a slice, or over space\.edits"):
        iter(space)
    with pytest.raises(TypeError, match="is_edited"):
        0.5 in space  # noqa: B015
    assert not hasattr(space, "__len__")


def test_special_floats_are_kept_to_the_bit() -> None:
    """NaN with its payload, minus zero, infinities and subnormals come back as they were."""
    raws = numpy.array([0x7FF8DEADBEEF0001, 1 << 63, 0x7FF << 52, 0xFFF << 52, 1], dtype=numpy.uint64)
    space = GenerativeSpace()
    space.scatter(range(5), raws.view(numpy.float64))
    assert (space[:5].view(numpy.uint64) == raws).all()
    assert str(space[1]) == "-0.0"
    space.write(9, raws.view(numpy.float64)[0])
    assert (space[9:10].view(numpy.uint64) == raws[0]).all()


def test_the_alias_has_the_signatures_of_the_prototype() -> None:
    """FastGMemContext(seed).fetch(address=) and .write(address=, value=)."""
    context = FastGMemContext(1337)
    assert context.fetch(address=999) == GenerativeSpace(1337)[999]
    context.write(address=999, value=3.141592653589793)
    assert context.fetch(address=999) == 3.141592653589793
    assert type(context.copy()) is FastGMemContext
    assert repr(context) == "<FastGMemContext seed=1337 values='float64', 1 edits>"


def test_names_complete_and_help_is_there() -> None:
    """Every public name has a docstring, and dir() shows it."""
    space = GenerativeSpace()
    wanted = set("fetch write fill gather scatter bits address_of permutation window edits".split())
    assert wanted <= set(dir(space))
    for name in dir(GenerativeSpace):
        is_named = name.startswith("_") or name in ("generator", "overlay", "version")
        assert is_named or getattr(GenerativeSpace, name).__doc__


def test_the_curve_visits_neighbours() -> None:
    """On a square of 2**k, places are 0 .. 4**k - 1, each once, and a step along the curve is one on the plane."""
    axis = numpy.arange(64, dtype=numpy.uint64)
    places = hilbert_places(axis[:, None], axis[None, :])
    rows, columns = numpy.unravel_index(numpy.argsort(places, axis=None), places.shape)
    assert sorted(places.reshape(-1).tolist()) == list(range(64 * 64))
    assert (abs(numpy.diff(rows)) + abs(numpy.diff(columns)) == 1).all()
    corner = numpy.array([SIDE - 1], dtype=numpy.uint64)
    assert hilbert_places(corner * 0, corner).tolist() in ([LAST], [0])  # a corner where the curve ends
    space = GenerativeSpace(3)
    begin = 2**31 - 2
    window = space.window((begin, begin), (4, 3))
    rows_, columns_ = numpy.arange(begin, begin + 4, dtype="u8"), numpy.arange(begin, begin + 3, dtype="u8")
    assert (window == space.gather(hilbert_places(rows_[:, None], columns_[None, :]))).all()


def test_whole_numbers_that_a_float_rounds_are_found() -> None:
    """Of an array of integers, just those that a float32 or float64 cannot hold are refused."""
    for values, limit in (("float32", 2**24), ("float64", 2**53)):
        space = GenerativeSpace(values=values)
        kept = [0, -limit, limit, limit + 2, -limit - 2, 2**62, -(2**63)]
        space.scatter(range(len(kept)), kept)
        assert space[: len(kept)].tolist() == kept
        for wrong in (limit + 1, -limit - 1, 2**63 - 1):
            with pytest.raises(ValueError, match=f"{wrong}.*at position 2"):
                space.scatter([1, 2, 3], [0, 1, wrong])
        with pytest.raises(ValueError, match="at position 0"):
            space.scatter([1], numpy.array([2**64 - 1], dtype=numpy.uint64))


@pytest.mark.parametrize(("values", "limit"), [("float32", 2**24), ("float64", 2**53), ("normal", 2**53)])
def test_ints_among_floats_are_not_rounded(values: str, limit: int) -> None:
    """In a list that numpy makes floats of, an int is kept as it is or refused, and then nothing is written."""
    space = GenerativeSpace(values=values)
    for wrong in (limit + 1, -limit - 1, 2**63 + 1, 2**64 - 1, 2**70 + 1, 2**2000):
        for given in ([0.5, wrong], [-1, wrong], numpy.array([0.5, wrong], dtype=object)):
            with pytest.raises(ValueError, match=rf"{wrong}\D.*at position 1"):
                space.scatter([1, 2], given)
        with pytest.raises(ValueError, match=f"{wrong}"):
            space.scatter([1, 2], wrong)
    with pytest.raises(ValueError, match=f"got {limit + 1} at position 2"):
        space.scatter([[1, 2], [3, 4]], [[0.5, limit], [limit + 1, 0.25]])
    with pytest.raises(ValueError, match="at position 0"):
        space[10:12] = [limit + 1, 0.5]
    assert space.edit_count == 0
    kept = [0.5, limit, -limit, limit + 2, 2**63, 2**70, -(2**100), 1e30, float("inf"), True]
    space.scatter(range(len(kept)), kept)
    assert space[: len(kept)].tolist() == [numpy.dtype(space.dtype).type(number) for number in kept]
    space.scatter([1], numpy.array([1e300 if limit == 2**53 else 1e30]))  # arrays of floats are rounded, not ints


@pytest.mark.parametrize(("values", "kept"), [("uint64", [1, LAST, 2**63]), (range(9), [-(2**63), 2**63 - 1, -1])])
def test_ints_of_all_64_bits_can_be_given_in_a_list(values: str | range, kept: list[int]) -> None:
    """Whatever numpy makes of such a list; what is outside is named, and floats among ints are refused."""
    space = GenerativeSpace(values=values)
    for given in (kept, tuple(kept), numpy.array(kept, dtype=object), [numpy.array(number) for number in kept]):
        space.scatter([5, 6, 7], given)
        assert space[5:8].tolist() == kept
        space.clear_edits()
    for wrong in (2**64, -(2**63) - 1, 2**2000):
        with pytest.raises(ValueError, match=f"got {wrong}"):
            space.scatter([5, 6], [1, wrong])
    for given in ([1, 0.5], [2**64 - 1, 0.5], [2**70, "x"], [None, 1]):
        with pytest.raises(TypeError, match="values must be"):
            space.scatter([5, 6], given)
    assert space.edit_count == 0
