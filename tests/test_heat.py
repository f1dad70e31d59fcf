"""The heat scale: counts, frequencies, bands and temperatures."""

import numpy as np

from spectral_alloc import Spectrum, ThermalDict
from spectral_alloc.heat import COUNT_LIMIT, default_scale


def test_band_of_every_count_is_the_nearest_zero():
    """The table of bands agrees with Spectrum.nearest for all 65,536 counts."""
    scale = default_scale()
    nearest = np.asarray(Spectrum(len(scale.gammas)).nearest(np.array(scale.frequencies))) - 1
    assert np.frombuffer(scale.band_of_count, dtype=np.uint8).tolist() == nearest.tolist()


def test_a_band_is_kept_while_the_count_is_in_its_widened_cell():
    """Every count lies in the range in which its own band is kept, and the ranges of neighbours overlap."""
    scale = default_scale()
    band = np.frombuffer(scale.band_of_count, dtype=np.uint8)
    first = np.frombuffer(scale.stay_from, dtype=np.uint16)[band]
    last = np.frombuffer(scale.stay_until, dtype=np.uint16)[band]
    counts = np.arange(COUNT_LIMIT)
    assert (first <= counts).all()
    assert (counts <= last).all()


def test_temperatures_follow_use():
    """Never read is cold, read once is cold, read some times is warm, read a hundred times is hot."""
    d = ThermalDict(never=0, once=0, some=0, often=0)
    d["once"]
    for _ in range(10):
        d["some"]
    for _ in range(100):
        d["often"]
    assert [d.temperature(key) for key in d] == ["cold", "cold", "warm", "hot"]
    assert d.thermal_status() == {"hot": 1, "warm": 1, "cold": 2}


def test_heat_fades_when_others_are_used():
    """An entry that was hot cools to cold while only another one is used."""
    d = ThermalDict(old=0, new=0)
    for _ in range(1000):
        d["old"]
    assert d.temperature("old") == "hot"
    for _ in range(1_000_000):
        d["new"]
    assert d.temperature("old") == "cold"
    assert d.temperature("new") == "hot"


def test_a_count_that_wavers_within_the_dead_band_does_not_migrate():
    """Once in a band, one access more or less at its edge is no migration; crossing it clearly is."""
    scale = default_scale()
    d = ThermalDict(key=0)
    band = np.frombuffer(scale.band_of_count, dtype=np.uint8)
    edge = int(np.flatnonzero(np.diff(band.astype(int)) != 0)[20])  # the last count of some band
    for _ in range(edge):
        d["key"]
    d.temperature("key")
    before = d.stats().migrations
    d["key"]  # one over the edge
    d.temperature("key")
    assert d.stats().migrations == before
    for _ in range(edge):
        d["key"]
    d.temperature("key")
    assert d.stats().migrations == before + 1
