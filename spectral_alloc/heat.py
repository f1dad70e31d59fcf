"""Heat on the spectrum: how a decayed access count becomes a frequency, a band and a temperature.

An entry that was accessed ``count`` times (decayed) has the frequency ``t = gamma_1 + 13.5 * log2(1 + count)``; its
band is the zeta zero nearest to ``t``. The bands are wide where counts are small and noisy and narrow where they are
large.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from spectral_alloc.spectrum import Spectrum

__all__ = ["COLD_BELOW", "COUNT_LIMIT", "HOT_ABOVE", "HeatScale", "default_scale"]

COUNT_LIMIT = 1 << 16  # counts are 16 bits wide in core/cell.h
HOT_ABOVE = 100.0  # the short-term regime of the spectrum
COLD_BELOW = 30.0  # the long-term regime of the spectrum
FREQUENCY_PER_DOUBLING = 13.5  # one access stays cold (27.6 quantises to 25.0), one hundred are hot (104 -> 103.7)
DEAD_BAND = 0.25  # part of a cell by which a count must overshoot before the entry changes its band
BAND_COUNT = 100


@dataclass(frozen=True)
class HeatScale:
    """Lookup tables from a count to a band, with the counts at which a band is left.

    Attributes: ``gammas`` (frequency of each band), ``frequencies`` (of each count), ``band_of_count`` (65,536 bytes:
    the nearest band), ``stay_from`` and ``stay_until`` (uint16 per band: an entry keeps its band while its count is
    between).
    """

    gammas: tuple[float, ...]
    frequencies: tuple[float, ...]
    band_of_count: bytes
    stay_from: bytes
    stay_until: bytes

    @property
    def temperatures(self) -> tuple[str, ...]:
        """The temperature of each band: "cold", "warm" or "hot"."""
        return tuple("hot" if gamma > HOT_ABOVE else "cold" if gamma < COLD_BELOW else "warm" for gamma in self.gammas)


@cache
def default_scale() -> HeatScale:
    """Return the scale on the first 100 zeta zeros (made once, about 70 kB)."""
    spectrum = Spectrum(BAND_COUNT)
    gammas = np.array([spectrum.gamma(index) for index in range(1, BAND_COUNT + 1)])
    frequency = gammas[0] + FREQUENCY_PER_DOUBLING * np.log2(1.0 + np.arange(COUNT_LIMIT))
    band = np.asarray(spectrum.nearest(frequency)) - 1
    edges = (gammas[1:] + gammas[:-1]) / 2
    low = np.concatenate([[0.0], edges])
    high = np.concatenate([edges, [np.inf]])
    width = np.where(np.isinf(high), 2 * (gammas - low), high - low)
    stay_from = np.searchsorted(frequency, low - DEAD_BAND * width, side="left")
    stay_until = np.searchsorted(frequency, high + DEAD_BAND * width, side="right") - 1
    return HeatScale(
        gammas=tuple(gammas.tolist()),
        frequencies=tuple(frequency.tolist()),
        band_of_count=band.astype(np.uint8).tobytes(),
        stay_from=stay_from.astype(np.uint16).tobytes(),
        stay_until=np.maximum(stay_until, 0).astype(np.uint16).tobytes(),
    )
