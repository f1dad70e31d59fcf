"""A dict that outgrows RAM and stays a dict.

>>> from spectral_alloc import ThermalDict
>>> d = ThermalDict.open(memory_limit="256 MB")
>>> d["key"] = {"any": ["value"]}
"""

try:
    from spectral_alloc import _cell as _cell
except ImportError as error:  # a source tree in which nothing was built yet
    raise ImportError(
        f"the compiled modules of spectral_alloc do not load ({error}); in a source tree, build them with: "
        "python setup.py build_ext --inplace   (or run: make build)"
    ) from error

from importlib.metadata import PackageNotFoundError, version

from spectral_alloc.closure import register_type
from spectral_alloc.errors import (
    ClosedError,
    CorruptFrameError,
    CorruptLogError,
    LockedError,
    RegrowError,
    SpectralAllocError,
    StaleAddressError,
    UnknownAddressError,
    UntrustedError,
)
from spectral_alloc.generative_space import FastGMemContext, GenerativeSpace
from spectral_alloc.governor import get_memory_limit, set_memory_limit
from spectral_alloc.log_check import CheckReport, repair, verify
from spectral_alloc.memory import (
    SMEM_AUTO,
    SMEM_COLD,
    SMEM_HOT,
    SMEM_WARM,
    HierarchicalSpectralMemory,
    SpectralMemory,
)
from spectral_alloc.memory_stats import MemoryStats
from spectral_alloc.move_watch import Move
from spectral_alloc.residency import LEGAL_TRANSITIONS, Residency
from spectral_alloc.sorted_space import SortedSpace
from spectral_alloc.spectrum import Resonance, Spectrum
from spectral_alloc.stats import ThermalStats
from spectral_alloc.thermal_dict import ThermalDict

__all__ = [
    "LEGAL_TRANSITIONS",
    "SMEM_AUTO",
    "SMEM_COLD",
    "SMEM_HOT",
    "SMEM_WARM",
    "CheckReport",
    "ClosedError",
    "CorruptFrameError",
    "CorruptLogError",
    "FastGMemContext",
    "GenerativeSpace",
    "HierarchicalSpectralMemory",
    "LockedError",
    "MemoryStats",
    "Move",
    "RegrowError",
    "Residency",
    "Resonance",
    "SortedSpace",
    "SpectralAllocError",
    "SpectralMemory",
    "Spectrum",
    "StaleAddressError",
    "ThermalDict",
    "ThermalStats",
    "UnknownAddressError",
    "UntrustedError",
    "get_memory_limit",
    "register_type",
    "repair",
    "set_memory_limit",
    "verify",
]

try:
    __version__ = version("spectral_alloc")
except PackageNotFoundError:  # imported from a source tree that was not installed
    __version__ = "0+source"
