"""The plane of 2**32 by 2**32 points along the addresses by Hilbert's curve: near points have near addresses.

Words: a *point* is a row and a column; its *place* is its address. A step along the curve is one in row or column.
Invariant: rows and columns below 2**k are the places below 4**k, for every k; so places and points match one to one.
Threads: stateless. Cost: 32 passes over an array.
"""

import numpy
from numpy.typing import NDArray

__all__ = ["SIDE", "hilbert_places"]

SIDE_BITS = 32
SIDE = 1 << SIDE_BITS


def hilbert_places(rows: NDArray[numpy.uint64], columns: NDArray[numpy.uint64]) -> NDArray[numpy.uint64]:
    """Return the address of each point. Parameters: uint64 arrays below 2**32 that broadcast together.

    >>> axis = numpy.arange(2, dtype=numpy.uint64)
    >>> hilbert_places(axis[:, None], axis[None, :])
    array([[0, 1],
           [3, 2]], dtype=uint64)
    """
    y, x = (part.copy() for part in numpy.broadcast_arrays(rows, columns))
    places = numpy.zeros(x.shape, dtype=numpy.uint64)
    one = numpy.uint64(1)
    for bit in reversed(range(SIDE_BITS)):
        shift, mask = numpy.uint64(bit), numpy.uint64((1 << bit) - 1)
        right, up = x >> shift & one, y >> shift & one
        places = places << numpy.uint64(2) | (numpy.uint64(3) * right ^ up)
        x, y = x & mask, y & mask
        # the quarter that the curve enters decides how the pattern in it is turned
        is_flipped, is_swapped = (up == 0) & (right == 1), up == 0
        x, y = numpy.where(is_flipped, mask - x, x), numpy.where(is_flipped, mask - y, y)
        x, y = numpy.where(is_swapped, y, x), numpy.where(is_swapped, x, y)
    return places
