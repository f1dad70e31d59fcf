"""Where a value lives, and which moves between these places are legal."""

from enum import Enum

from spectral_alloc._cell import LEGAL_MOVES

__all__ = ["LEGAL_TRANSITIONS", "RESIDENCY_OF_STATE", "Residency"]


class Residency(Enum):
    """Where the value of an entry lives."""

    HOT = "hot"  #: a live object
    WARM = "warm"  #: a compressed frame in RAM
    COLD = "cold"  #: a frame on disk
    REGROWN = "regrown"  #: only its recipe


#: A cell has finer states than users see: a departing value is still live, a backed one is live and on disk.
RESIDENCY_OF_STATE = {
    "hot": Residency.HOT,
    "backed": Residency.HOT,
    "departing": Residency.HOT,
    "warm": Residency.WARM,
    "cold": Residency.COLD,
    "regrown": Residency.REGROWN,
}

#: The moves a value can make, as (from, to); enforced where cells change their state (_ledger.pyx).
LEGAL_TRANSITIONS = frozenset(
    (RESIDENCY_OF_STATE[source], RESIDENCY_OF_STATE[target])
    for source, target in LEGAL_MOVES
    if source in RESIDENCY_OF_STATE
    and target in RESIDENCY_OF_STATE
    and RESIDENCY_OF_STATE[source] is not RESIDENCY_OF_STATE[target]
)
