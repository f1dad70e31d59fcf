"""The spectrum: the constant-time quantiser against bisection, and bands that come and go."""

import copy
import functools
import math
import pickle
import re
import sys
import threading
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sortedcontainers import SortedList

from spectral_alloc._spectrum import AtomicReference, Quantizer
from spectral_alloc.spectrum import ZERO_COUNT_MAX, Resonance, Spectrum, zeros

BAND_COUNTS = [1, 2, 3, 20, 100, 1000, 10_000]
LARGEST_FLOAT = sys.float_info.max

frequencies = st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False)


def position_by_bisection(bands: SortedList, t: float) -> int:
    """The specification: the nearer neighbour in float64, the lower one at a tie."""
    above = bands.bisect_left(t)
    if above in (0, len(bands)):
        return max(above - 1, 0)
    return above if bands[above] - t < t - bands[above - 1] else above - 1


def positions_by_search(bands: numpy.ndarray, t: numpy.ndarray) -> numpy.ndarray:
    """position_by_bisection for arrays."""
    above = numpy.searchsorted(bands, t).clip(1, max(len(bands) - 1, 1))
    if len(bands) == 1:
        return numpy.zeros(len(t), dtype=numpy.int64)
    return numpy.where(bands[above] - t < t - bands[above - 1], above, above - 1)


def critical_points(bands: numpy.ndarray) -> numpy.ndarray:
    """Every band and every midpoint, and the floats on either side of each."""
    points = numpy.concatenate([bands, (bands[:-1] + bands[1:]) / 2])
    return numpy.concatenate([points, numpy.nextafter(points, 0), numpy.nextafter(points, numpy.inf)])


# The quantiser against bisection


@pytest.mark.parametrize("count", BAND_COUNTS)
def test_nearest_equals_search_everywhere(count: int) -> None:
    """nearest is right for 10^6 random t and at every band and midpoint, and one ulp to either side."""
    spectrum, bands = Spectrum(count), zeros(count)
    random = numpy.random.default_rng(count).uniform(1e-9, bands[-1] * 1.1, 1_000_000)
    extremes = numpy.array([5e-324, 1e-300, 1.0, bands[-1] * 2, LARGEST_FLOAT])
    for t in (random, critical_points(bands), extremes):
        assert numpy.array_equal(spectrum.nearest(t), positions_by_search(bands, t) + 1)


def test_nearest_equals_search_after_changes() -> None:
    """After hundreds of random changes the answers are still those of a search among the active bands."""
    generator = numpy.random.default_rng(5)
    spectrum = Spectrum(1000)
    for index in generator.choice(numpy.arange(1, 1001), 300, replace=False).tolist():
        spectrum.remove(index)
    for index in generator.choice(numpy.arange(1001, ZERO_COUNT_MAX + 1), 100, replace=False).tolist():
        spectrum.add(index)
    indices = numpy.array(list(spectrum))
    bands = zeros()[indices - 1]
    for t in (generator.uniform(1e-9, 11_000, 1_000_000), critical_points(bands)):
        assert numpy.array_equal(spectrum.nearest(t), indices[positions_by_search(bands, t)])


@pytest.mark.parametrize("count", [100, 10_000])
def test_nearest_equals_sorted_list(count: int) -> None:
    """nearest gives what bisection of the SortedList gives, for 10^6 random t and at every critical point."""
    spectrum = Spectrum(count)
    random = numpy.random.default_rng(7).uniform(1e-9, zeros(count)[-1] * 1.1, 1_000_000)
    t = numpy.concatenate([random, critical_points(zeros(count))])
    bands = spectrum.bands
    expected = [position_by_bisection(bands, value) + 1 for value in t.tolist()]
    assert spectrum.nearest(t).tolist() == expected


@pytest.mark.parametrize("count", BAND_COUNTS)
def test_quantize_equals_nearest(count: int) -> None:
    """quantize, the quantizer's index and nearest agree; gamma is the band's, mismatch the distance."""
    spectrum = Spectrum(count)
    quantizer = Quantizer(zeros(count), range(1, count + 1))
    t = numpy.random.default_rng(count).choice(critical_points(zeros(count)), 2000)
    for value, index in zip(t.tolist(), spectrum.nearest(t).tolist(), strict=True):
        gamma = float(zeros()[index - 1])
        assert spectrum.quantize(value) == Resonance(index, gamma, abs(value - gamma))
        assert quantizer.index(value) == index


def test_neighbouring_zeros_are_compared_exactly() -> None:
    """Around every midpoint the float64 rule is the true one, with an exact tie given to the lower band."""
    spectrum = Spectrum(2000)
    for index, (low, high) in enumerate(pairwise(zeros(2000).tolist()), 1):
        middle = (low + high) / 2
        for t in (math.nextafter(middle, 0), middle, math.nextafter(middle, math.inf)):
            upper_is_nearer = Fraction(high) - Fraction(t) < Fraction(t) - Fraction(low)
            assert spectrum.quantize(t).index == index + upper_is_nearer


def test_an_exact_tie_goes_to_the_lower_band() -> None:
    """At a midpoint that float64 holds exactly, the lower band is the answer."""
    quantizer = Quantizer([2.0, 4.0, 8.0])
    assert [quantizer.index(t) for t in (3.0, 6.0)] == [0, 1]
    assert [quantizer.index(math.nextafter(t, math.inf)) for t in (3.0, 6.0)] == [1, 2]


@given(st.sets(frequencies, min_size=1, max_size=40), st.lists(frequencies, max_size=20))
@settings(deadline=None)
def test_quantizer_equals_bisection_for_any_bands(bands: set[float], asked: list[float]) -> None:
    """For any bands, from subnormal to the largest float, the quantizer answers as bisection does."""
    sorted_bands = SortedList(bands)
    quantizer = Quantizer(list(sorted_bands))
    quantizer.check()
    with numpy.errstate(over="ignore"):
        points = critical_points(numpy.array(sorted_bands))
    t = [*asked, *(point for point in points.tolist() if 0 < point < math.inf)]
    assert quantizer.nearest(t).tolist() == [position_by_bisection(sorted_bands, value) for value in t]


@pytest.mark.parametrize("far", [[1e6], [1e300], [800.0, 1e6]])  # 800: nearest to a t of the crowded bucket
def test_crowded_bands_are_bisected(far: list[float]) -> None:
    """A thousand bands one ulp apart share a bucket, and are told apart from each other and from the next."""
    crowd = 100.0 + numpy.arange(1000) * math.ulp(100.0)
    bands = numpy.append(crowd, far)
    quantizer = Quantizer(bands)
    quantizer.check()
    t = critical_points(bands)
    assert numpy.array_equal(quantizer.nearest(t), positions_by_search(bands, t))


def test_quantizer_keeps_its_own_copy_and_indices() -> None:
    """A quantizer is independent of the arrays it was made from, and gives back what it was made from."""
    bands, indices = numpy.array([1.0, 5.0]), numpy.array([10, 2**62])
    quantizer = Quantizer(bands, indices)
    bands[:], indices[:] = 7.0, 0
    assert (quantizer.index(4.0), len(quantizer)) == (2**62, 2)
    for twin in (quantizer, pickle.loads(pickle.dumps(quantizer))):
        assert [array.tolist() for array in twin.as_arrays()] == [[1.0, 5.0], [10, 2**62]]


@pytest.mark.parametrize(
    ("bands", "indices", "error", "message"),
    [
        ([], None, ValueError, "bands must be 1 to 8388608, got 0"),
        ([1.0, 1.0], None, ValueError, "increasing, got 1.0 at position 1"),
        ([2.0, 1.0], None, ValueError, "increasing, got 1.0 at position 1"),
        ([0.0, 1.0], None, ValueError, "got 0.0 at position 0"),
        ([1.0, math.inf], None, ValueError, "got inf at position 1"),
        ([1.0, math.nan], None, ValueError, "got nan at position 1"),
        ([1.0], [1, 2], ValueError, "as many as the 1 bands, got 2"),
        ([1.0], [1.5], TypeError, "safe"),
        ([[1.0]], None, ValueError, "dimensions"),
    ],
)
def test_quantizer_refuses_bad_bands(
    bands: list[float], indices: list[int] | None, error: type[Exception], message: str
) -> None:
    """Bands that are no increasing frequencies are refused with the value and its position."""
    with pytest.raises(error, match=re.escape(message)):
        Quantizer(bands, indices)


# Spectrum


def test_zeros_is_read_only_and_bounded() -> None:
    """zeros(n) is the first n of the one table, which nobody can write."""
    assert len(zeros()) == ZERO_COUNT_MAX
    assert numpy.array_equal(zeros(5), zeros()[:5])
    with pytest.raises(ValueError, match="read-only"):
        zeros(3)[0] = 1.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        zeros(3).flags.writeable = True
    for bad in (0, -1, ZERO_COUNT_MAX + 1):
        with pytest.raises(ValueError, match=f"n must be 1 to 10000, got {bad}"):
            zeros(bad)
    with pytest.raises(TypeError, match=r"n must be an int, got 1\.5"):
        zeros(1.5)  # type: ignore[arg-type]


def test_the_example_of_the_design() -> None:
    """t = 180 lies 0.084 from gamma_69 = 179.916."""
    resonance = Spectrum(100).quantize(180.0)
    assert resonance.index == 69
    assert resonance.gamma == pytest.approx(179.916, abs=1e-3)
    assert resonance.mismatch == pytest.approx(0.084, abs=1e-3)


def test_a_bad_count_is_refused() -> None:
    """A count outside 1 to 10,000 is a ValueError with value and limit, one that is no int a TypeError."""
    for count in (0, -5, ZERO_COUNT_MAX + 1, 10**30):
        with pytest.raises(ValueError, match=f"n_zeros must be 1 to 10000, got {count}$"):
            Spectrum(count)
    for no_count in (1.0, "3", None):
        with pytest.raises(TypeError, match=f"n_zeros must be an int, got {no_count!r} of type"):
            Spectrum(no_count)  # type: ignore[arg-type]


@pytest.mark.parametrize("t", [math.nan, math.inf, -math.inf, 0.0, -0.0, -1.5, 0, -3, Fraction(-1, 2)])
def test_a_bad_frequency_is_refused(t: float) -> None:
    """A number that is not finite and above 0 is a ValueError that names it, alone and in an array."""
    spectrum = Spectrum(3)
    with pytest.raises(ValueError, match=re.escape(f"got {t!r}")):
        spectrum.quantize(t)
    with pytest.raises(ValueError, match="position 2"):
        spectrum.nearest([1.0, 2.0, t, math.nan])
    with pytest.raises(ValueError, match=re.escape("position (1, 0)")):
        spectrum.nearest([[1.0, 2.0], [t, 3.0]])


@pytest.mark.parametrize("t", ["14.1", b"1", None, 1 + 0j, [1.0], object()])
def test_what_is_no_number_is_refused(t: object) -> None:
    """What is no real number is a TypeError that names it, also as an element of an array."""
    spectrum = Spectrum(3)
    with pytest.raises(TypeError, match=re.escape(f"got {t!r} of type {type(t).__name__}")):
        spectrum.quantize(t)  # type: ignore[arg-type]
    elements = numpy.empty(3, dtype=object)
    elements[:] = [1.0, 2.0, 3.0]
    elements[1] = t
    with pytest.raises(TypeError, match=re.escape(f"got {t!r} of type {type(t).__name__} at position 1")):
        spectrum.nearest(elements)


def test_numbers_beyond_float64_are_refused() -> None:
    """An int that no float64 can hold is a ValueError like infinity, and so is it in an array."""
    with pytest.raises(ValueError, match="an int too large for float64"):
        Spectrum(3).quantize(10**400)
    with pytest.raises(ValueError, match="an int too large for float64 at position 1"):
        Spectrum(3).nearest([1, 10**400])


@pytest.mark.parametrize(
    "array", ["14.1", ["a", "b"], [1.0, "2"], [None], numpy.array(["2026-01-01"], "M8[ns]"), 1j]
)
def test_arrays_of_something_else_are_refused(array: object) -> None:
    """Strings, None, dates and complex numbers are a TypeError also where numpy could convert them."""
    with pytest.raises(TypeError, match="t must be"):
        Spectrum(3).nearest(array)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "t", [20, numpy.float32(20), numpy.int8(20), Fraction(20), Decimal(20), mpmath.mpf(20)]
)
def test_any_real_number_is_a_frequency(t: float) -> None:
    """All number types give the answer of their float64 value, alone and as an element."""
    assert Spectrum(3).quantize(t) == Spectrum(3).quantize(20.0)
    assert Spectrum(3).nearest([t, 1e3]).tolist() == [2, 3]


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "f2", "longdouble", "i8", ">i4", "u1", "O"])
def test_nearest_takes_every_number_dtype(dtype: str) -> None:
    """The answer depends on the values, not on dtype, byte order or strides."""
    values = numpy.arange(1, 61).astype(dtype)
    expected = positions_by_search(zeros(100), numpy.arange(1.0, 61.0)) + 1
    spectrum = Spectrum(100)
    assert numpy.array_equal(spectrum.nearest(values), expected)
    assert numpy.array_equal(spectrum.nearest(values[::-3]), expected[::-3])
    grid = values.reshape(3, 4, 5).transpose(2, 0, 1)
    assert numpy.array_equal(spectrum.nearest(grid), expected.reshape(3, 4, 5).transpose(2, 0, 1))


def test_nearest_keeps_the_shape() -> None:
    """The result is int64 in the shape of the argument, empty and 0-dimensional ones included."""
    for shape in [(), (0,), (3, 0, 2), (1, 1), (4,)]:
        result = Spectrum(3).nearest(numpy.full(shape, 20.0))
        assert (result.shape, result.dtype) == (shape, numpy.int64)
        assert (result == 2).all()


def test_nearest_writes_to_out() -> None:
    """out is filled and returned; when the argument or out is bad it stays as it was."""
    spectrum, t = Spectrum(3), numpy.array([1.0, 20.0])
    out = numpy.full(2, -7)
    assert spectrum.nearest(t, out) is out
    assert out.tolist() == [1, 2]
    out[:] = -7
    with pytest.raises(ValueError, match="position 1"):
        spectrum.nearest([1.0, math.nan], out)
    for bad in (numpy.full(3, -7), numpy.full((2, 1), -7), numpy.full(4, -7)[::2]):
        with pytest.raises(ValueError, match=re.escape("of shape (2,)")):
            spectrum.nearest(t, bad)
        assert (bad == -7).all()
    for wrong in (numpy.zeros(2), numpy.zeros(2, ">i8"), [0, 0]):
        with pytest.raises(TypeError, match="out must be an int64 array"):
            spectrum.nearest(t, wrong)  # type: ignore[arg-type]
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        spectrum.nearest(t, out)


def test_a_spectrum_speaks_of_zero_indices() -> None:
    """Length, membership, iteration, gamma and bands agree; what is no active index is not in it."""
    spectrum = Spectrum(3)
    assert (len(spectrum), list(spectrum)) == (3, [1, 2, 3])
    assert [spectrum.gamma(index) for index in spectrum] == list(spectrum.bands) == zeros(3).tolist()
    assert all(index in spectrum for index in (1, 2, 3, numpy.int32(2)))
    assert not any(absent in spectrum for absent in (0, -1, 4, 10**30, 1.0, "1", None, zeros(1)[0]))
    assert repr(spectrum) == "<Spectrum of 3 bands from 14.135 to 25.011>"


@pytest.mark.parametrize("method", ["gamma", "cell", "remove"])
def test_an_absent_band_is_a_key_error(method: str) -> None:
    """Asking for or removing a zero that is no band is a KeyError that names it."""
    with pytest.raises(KeyError, match="zero 4 is not an active band"):
        getattr(Spectrum(3), method)(4)


@pytest.mark.parametrize("method", ["gamma", "cell", "remove", "add"])
def test_a_bad_index_is_refused(method: str) -> None:
    """An index out of range is a ValueError with the limit, one that is no int a TypeError."""
    spectrum = Spectrum(3)
    for bad in (0, -1, ZERO_COUNT_MAX + 1):
        with pytest.raises(ValueError, match=f"index must be 1 to 10000, got {bad}"):
            getattr(spectrum, method)(bad)
    with pytest.raises(TypeError, match=r"index must be an int, got 1\.0"):
        getattr(spectrum, method)(1.0)
    assert list(spectrum) == [1, 2, 3]


def test_add_and_remove_refuse_what_makes_no_sense() -> None:
    """Adding a band twice and removing the last one are ValueErrors that leave the bands as they are."""
    spectrum = Spectrum(1)
    with pytest.raises(ValueError, match="zero 1 is a band already"):
        spectrum.add(1)
    with pytest.raises(ValueError, match="zero 1 is the last band"):
        spectrum.remove(1)
    assert list(spectrum) == [1]
    spectrum.check()


def test_bands_taken_before_a_change_stay_as_they_are() -> None:
    """A change puts a new SortedList in place, so that whoever iterates the old one is not disturbed."""
    spectrum = Spectrum(3)
    before = spectrum.bands
    spectrum.remove(2)
    assert list(before) == zeros(3).tolist()
    assert list(spectrum.bands) == zeros()[[0, 2]].tolist()


def test_check_notices_bands_changed_from_outside() -> None:
    """check() fails when somebody wrote to the SortedList."""
    spectrum = Spectrum(3)
    spectrum.bands.add(1.0)
    with pytest.raises(AssertionError, match="changed from outside"):
        spectrum.check()


def test_copies_are_independent() -> None:
    """pickle, copy and deepcopy give a spectrum of the same bands that changes on its own."""
    spectrum = Spectrum(5)
    spectrum.remove(3)
    for twin in (pickle.loads(pickle.dumps(spectrum)), copy.copy(spectrum), copy.deepcopy(spectrum)):
        twin.add(3)
        twin.check()
        assert (list(twin), list(spectrum)) == ([1, 2, 3, 4, 5], [1, 2, 4, 5])


def test_cells_are_exactly_what_quantises_to_their_band() -> None:
    """Cells touch each other and cover everything; both ends of each are right to the last float."""
    spectrum = Spectrum(300)
    for index in range(2, 300, 7):
        spectrum.remove(index)
    spectrum.add(10_000)
    previous_high = 0.0
    for index in spectrum:
        low, high = spectrum.cell(index)
        assert low == previous_high
        assert spectrum.quantize(math.nextafter(low, math.inf)).index == index
        assert spectrum.quantize(min(high, LARGEST_FLOAT)).index == index
        previous_high = high
    assert previous_high == math.inf


class SpectrumMachine(RuleBasedStateMachine):
    """A Spectrum behaves as a SortedList of gammas that is bisected."""

    def __init__(self) -> None:
        super().__init__()
        self.subject = Spectrum(3)
        self.index_of_gamma = {gamma: index for index, gamma in enumerate(zeros(3).tolist(), 1)}
        self.bands = SortedList(self.index_of_gamma)

    @rule(index=st.one_of(st.integers(1, 12), st.integers(1, ZERO_COUNT_MAX)))
    def toggle(self, index: int) -> None:
        """Removing and adding a band do to the spectrum what they do to the list."""
        gamma = float(zeros()[index - 1])
        if gamma not in self.index_of_gamma:
            self.subject.add(index)
            self.index_of_gamma[gamma] = index
            self.bands.add(gamma)
        elif len(self.bands) > 1:
            self.subject.remove(index)
            del self.index_of_gamma[gamma]
            self.bands.remove(gamma)

    @precondition(lambda self: len(self.bands) > 1)
    @rule(data=st.data())
    def ask_at_an_edge(self, data: st.DataObject) -> None:
        """Midpoints and bands, and their neighbours, quantise as by bisection."""
        points = critical_points(numpy.array(self.bands))
        self.ask(data.draw(st.sampled_from(points.tolist())))
        expected = [self.expected(t) for t in points.tolist()]
        assert self.subject.nearest(points).tolist() == expected

    @rule(t=st.one_of(st.floats(1e-3, 11_000), frequencies))
    def ask(self, t: float) -> None:
        """Any frequency quantises as by bisection."""
        index = self.expected(t)
        gamma = float(zeros()[index - 1])
        assert self.subject.quantize(t) == (index, gamma, abs(t - gamma))

    def expected(self, t: float) -> int:
        return self.index_of_gamma[self.bands[position_by_bisection(self.bands, t)]]

    @invariant()
    def bands_agree(self) -> None:
        """The bands are those of the model and the structures are valid."""
        self.subject.check()
        assert self.subject.bands == self.bands
        assert list(self.subject) == [self.index_of_gamma[gamma] for gamma in self.bands]


TestSpectrumMachine = SpectrumMachine.TestCase
TestSpectrumMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


# Threads


def test_readers_see_the_bands_of_one_moment() -> None:
    """While bands come and go, each call answers from one set of bands and never fails."""
    spectrum = Spectrum(100)
    with_band, without_band = spectrum.quantize(180.0), Resonance(68, float(zeros()[67]), 180.0 - zeros()[67])
    array = numpy.full(5000, 180.0)
    stop = threading.Event()
    seen: set[object] = set()
    errors: list[object] = []

    def read() -> None:
        try:
            while not stop.is_set():
                answers = set(spectrum.nearest(array).tolist())
                seen.update([spectrum.quantize(180.0), len(spectrum), len(list(spectrum)), len(answers)])
                spectrum.check()
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for thread in readers:
        thread.start()
    for _ in range(300):
        spectrum.remove(69)
        spectrum.add(69)
    stop.set()
    for thread in readers:
        thread.join()
    assert errors == []
    assert seen <= {with_band, without_band, 100, 99, 1}


def test_writers_lose_no_change(request: pytest.FixtureRequest) -> None:
    """Bands that several threads add at once are all there."""
    request.addfinalizer(functools.partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)
    spectrum = Spectrum(1)
    start = threading.Barrier(4)

    def add(first: int) -> None:
        start.wait()
        for index in range(first, 402, 4):
            spectrum.add(index)

    writers = [threading.Thread(target=add, args=(first,)) for first in range(2, 6)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    assert list(spectrum) == list(range(1, 402))
    spectrum.check()


def test_a_reference_is_replaced_only_from_what_was_expected() -> None:
    """A writer that started from an older value changes nothing and is told so."""
    reference = AtomicReference("old")
    assert reference.replace("old", "new") is True
    assert reference.replace("old", "other") is False
    assert reference.value == "new"
