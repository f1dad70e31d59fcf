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

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from sys import modules
from typing import Any

from spectral_alloc.closure import register_type
from spectral_alloc.errors import (
    ClosedError,
    CodecError,
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
    "CodecError",
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

_MODULES = "errors", "lattice", "policy", "rns"  # for users; loaded when they are asked for


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"spectral_alloc.{name}")
    module = modules[__name__]  # from it Python guesses what was meant
    raise AttributeError(f"module 'spectral_alloc' has no attribute {name!r}", name=name, obj=module)


def __dir__() -> list[str]:
    """What is for users; the other modules are how it is made."""
    return sorted([*__all__, *_MODULES, *(name for name in globals() if name.startswith("__"))])
