"""The spectrum: zeros of the Riemann zeta function in use as bands of a frequency scale.

Nouns: *gamma_n* is the imaginary part of the n-th zero 1/2 + i gamma_n. A *band* is one zero with its *cell*,
the frequencies nearer to it than to any other active zero. A band is known by its *zero index* n, never by
the float.
"""

import functools
import importlib.resources
import math
import operator
from collections.abc import Callable, Iterator
from typing import NamedTuple, SupportsFloat, SupportsIndex

import numpy
from numpy.typing import ArrayLike, NDArray
from sortedcontainers import SortedList  # type: ignore[import-untyped]  # ships no types

from spectral_alloc._spectrum import AtomicReference, Quantizer
from spectral_alloc.errors import SpectralAllocError

__all__ = ["ZERO_COUNT_MAX", "Resonance", "Spectrum", "zeros"]

#: How many zeros ship with the package.
ZERO_COUNT_MAX = 10_000

_TABLE_NAME = "zeta_zeros_10000.f64"


class Resonance(NamedTuple):
    """A frequency's nearest band: its zero index, its gamma, and ``mismatch``, their distance."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs of three numbers
    gamma: float
    mismatch: float


class _Active(NamedTuple):
    """All that depends on the set of active bands, replaced as one so that no reader sees half a change."""

    indices: NDArray[numpy.int64]  #: zero indices, increasing, read-only
    bands: SortedList  #: their gammas
    quantizer: Quantizer  #: the same again, as the C table


@functools.cache
def _table() -> NDArray[numpy.float64]:
    data = importlib.resources.files("spectral_alloc").joinpath("data", _TABLE_NAME).read_bytes()
    if len(data) != 8 * ZERO_COUNT_MAX:
        raise SpectralAllocError(
            f"{_TABLE_NAME} has {len(data)} bytes instead of {8 * ZERO_COUNT_MAX}; reinstall spectral_alloc"
        )
    table = numpy.frombuffer(data, dtype="<f8").astype(numpy.float64)
    table.flags.writeable = False
    return table


def _bounded_index(name: str, value: SupportsIndex) -> int:
    """The value as an int from 1 to ZERO_COUNT_MAX, or TypeError or ValueError."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}") from error
    if not 1 <= number <= ZERO_COUNT_MAX:
        raise ValueError(f"{name} must be 1 to {ZERO_COUNT_MAX}, got {number}")
    return number


def zeros(n: SupportsIndex = ZERO_COUNT_MAX) -> NDArray[numpy.float64]:
    """The first n gammas in order, each the float64 nearest to the true value, as a read-only array.

    Parameters: n (1 to 10,000). Returns float64, gamma_1 first.
    Errors: ValueError or TypeError for another n; SpectralAllocError when the file has the wrong length.
    Cost: the first call reads 80 kB, later ones are a view of it. Threads: any.

    >>> zeros(3).tolist()
    [14.134725141734695, 21.022039638771556, 25.01085758014569]
    """
    return _table()[: _bounded_index("n", n)]


def _active(indices: NDArray[numpy.int64]) -> _Active:
    """The state for some zero indices, which are increasing and at least one. O(bands)."""
    gammas = _table()[indices - 1]
    indices.flags.writeable = False
    return _Active(indices, SortedList(gammas.tolist()), Quantizer(gammas, indices))


class Spectrum:
    """The active bands, and the nearest one to any frequency in constant time.

    Starts with the first ``n_zeros`` zeros; bands can be added and removed at any time. The length is the
    number of active bands; ``in`` and iteration speak of zero indices, in order.
    Parameters: n_zeros (1 to 10,000).
    Errors: ValueError for n_zeros out of range, TypeError when it is no int.
    Cost: O(bands) to build and for each add and remove. Memory: 24 bytes a band for the C table, 8 for the
    indices and about 32 for the SortedList of floats.
    Threads: any number may read while others add and remove. Each call sees the bands of one moment.

    >>> spectrum = Spectrum(100)
    >>> spectrum.quantize(180.0)
    Resonance(index=69, gamma=179.916484020257, mismatch=0.08351597974299807)
    >>> spectrum.remove(69)
    >>> spectrum.quantize(180.0).index, len(spectrum), 69 in spectrum
    (68, 99, False)
    """

    __slots__ = ("__weakref__", "_reference")

    _reference: "AtomicReference[_Active]"  # quoted, as the compiled class cannot be subscripted

    def __init__(self, n_zeros: SupportsIndex = 100) -> None:
        count = _bounded_index("n_zeros", n_zeros)
        self._reference = AtomicReference(_active(numpy.arange(1, count + 1, dtype=numpy.int64)))

    # Looking up

    def quantize(self, t: SupportsFloat | SupportsIndex) -> Resonance:
        """The band nearest to a frequency; at equal distance from two, the lower one.

        Parameters: t (finite, above 0). Returns a Resonance.
        Errors: ValueError for any other number, TypeError for what is no real number.
        Cost: O(1), one query of the C table; nothing is kept. Threads: any.

        >>> Spectrum(2).quantize(20).index
        2
        """
        # As Resonance._make does, without a Python frame.
        return tuple.__new__(Resonance, self._reference.value.quantizer.quantize(t))

    def nearest(self, array: ArrayLike, out: NDArray[numpy.int64] | None = None) -> NDArray[numpy.int64]:
        """The zero indices of the bands nearest to all elements of an array, as quantize gives them.

        Parameters: array (any shape, anything that numpy takes as numbers), out (C-contiguous int64 array of
        the same shape for the result; new when left out). Returns out.
        Errors: ValueError or TypeError naming the first bad element and its position; then out is unchanged.
        Cost: O(elements), with the GIL released; a float64 array in C order is not copied. Threads: any.

        >>> Spectrum(3).nearest([1, 20.0, 1e6])
        array([1, 2, 3])
        """
        return self._reference.value.quantizer.nearest(array, out)

    @property
    def bands(self) -> SortedList:
        """The active gammas as a SortedList, to read; change the bands by add and remove.

        Every change puts a new list here, so one that was taken before stays as it is. Cost: O(1).

        >>> Spectrum(2).bands
        SortedList([14.134725141734695, 21.022039638771556])
        """
        return self._reference.value.bands

    def gamma(self, index: SupportsIndex) -> float:
        """The frequency of an active band.

        Errors: KeyError when the band is not active, ValueError or TypeError for what is no zero index.
        Cost: O(log bands). Threads: any.

        >>> Spectrum(2).gamma(1)
        14.134725141734695
        """
        number = _bounded_index("index", index)
        _position(self._reference.value, number)
        return float(_table()[number - 1])

    def cell(self, index: SupportsIndex) -> tuple[float, float]:
        """The frequencies that quantise to a band: exactly the floats with ``low < t <= high``.

        The lowest cell begins at 0.0, the highest ends at infinity, which is no frequency itself.
        Errors: KeyError when the band is not active, ValueError or TypeError for what is no zero index.
        Cost: O(log bands). Threads: any.

        >>> Spectrum(2).cell(1)
        (0.0, 17.578382390253125)
        """
        number = _bounded_index("index", index)
        active = self._reference.value
        position = _position(active, number)
        low = 0.0 if position == 0 else _edge_above(active, position - 1)
        high = math.inf if position == len(active.indices) - 1 else _edge_above(active, position)
        return low, high

    def __len__(self) -> int:
        return len(self._reference.value.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self._reference.value.indices.tolist())

    def __contains__(self, index: object) -> bool:
        try:
            number = operator.index(index)  # type: ignore[arg-type]  # anything may be asked for, as in a list
        except TypeError:
            return False
        return 1 <= number <= ZERO_COUNT_MAX and _is_active(self._reference.value, number)

    def __repr__(self) -> str:
        active = self._reference.value
        low, high = _table()[active.indices[[0, -1]] - 1]
        return f"<Spectrum of {len(active.indices)} bands from {low:.3f} to {high:.3f}>"

    # Changing

    def add(self, index: SupportsIndex) -> None:
        """Make a zero a band.

        Parameters: index (zero index, 1 to 10,000).
        Errors: ValueError when it is a band already or out of range, TypeError when it is no int.
        Cost: O(bands): a new table is built and put in place at once. Threads: any.

        >>> spectrum = Spectrum(2); spectrum.add(10_000); list(spectrum)
        [1, 2, 10000]
        """
        number = _bounded_index("index", index)

        def added(active: _Active) -> NDArray[numpy.int64]:
            if _is_active(active, number):
                raise ValueError(f"zero {number} is a band already")
            return numpy.insert(active.indices, active.indices.searchsorted(number), number)

        self._change(added)

    def remove(self, index: SupportsIndex) -> None:
        """Make a zero no band any more; its cell goes to its neighbours.

        Parameters: index (zero index, 1 to 10,000).
        Errors: KeyError when it is no band, ValueError when it is the last one or out of range, TypeError
        when it is no int.
        Cost: O(bands): a new table is built and put in place at once. Threads: any.

        >>> spectrum = Spectrum(3); spectrum.remove(2); list(spectrum)
        [1, 3]
        """
        number = _bounded_index("index", index)

        def removed(active: _Active) -> NDArray[numpy.int64]:
            position = _position(active, number)
            if len(active.indices) == 1:
                raise ValueError(f"zero {number} is the last band, and a spectrum needs one")
            return numpy.delete(active.indices, position)

        self._change(removed)

    def _change(self, changed: Callable[[_Active], NDArray[numpy.int64]]) -> None:
        """Put what ``changed`` makes of the present bands in place; again when another writer was faster."""
        while True:
            active = self._reference.value
            if self._reference.replace(active, _active(changed(active))):
                return

    # Keeping

    def check(self) -> None:
        """Test that indices, SortedList and C table agree with each other and with the zeros, in O(bands).

        Errors: AssertionError that says what is broken.

        >>> Spectrum(20).check()
        """
        active = self._reference.value
        active.quantizer.check()
        table_bands, table_indices = active.quantizer.as_arrays()
        if not numpy.array_equal(table_indices, active.indices) or not (numpy.diff(active.indices) > 0).all():
            raise AssertionError("zero indices are not increasing, or the C table has others")
        if not numpy.array_equal(table_bands, _table()[active.indices - 1]):
            raise AssertionError("the bands of the C table are not the zeros of their indices")
        if list(active.bands) != table_bands.tolist():
            raise AssertionError("the SortedList has other bands than the C table: changed from outside?")

    def __reduce__(self) -> tuple[Callable[[list[int]], "Spectrum"], tuple[list[int]]]:
        return _restored, (list(self),)


def _restored(indices: list[int]) -> Spectrum:
    """A Spectrum with these bands: what pickle and copy call."""
    spectrum = Spectrum(1)
    spectrum._reference = AtomicReference(_active(numpy.array(indices, dtype=numpy.int64)))
    return spectrum


def _is_active(active: _Active, index: int) -> bool:
    position = int(active.indices.searchsorted(index))
    return position < len(active.indices) and int(active.indices[position]) == index


def _position(active: _Active, index: int) -> int:
    if not _is_active(active, index):
        raise KeyError(f"zero {index} is not an active band")
    return int(active.indices.searchsorted(index))


def _edge_above(active: _Active, position: int) -> float:
    """The largest float that quantises to a band, by asking the quantizer: the tie rule stands there only."""
    index = int(active.indices[position])
    edge = float(_table()[active.indices[position : position + 2] - 1].sum()) / 2
    while active.quantizer.index(edge) != index:
        edge = math.nextafter(edge, 0.0)
    while active.quantizer.index(above := math.nextafter(edge, math.inf)) == index:
        edge = above
    return edge
