"""What a HeapCore holds, for statistics and tests. Truth: core/heap_figures.c.

Nouns and invariants: core/heap.h. Threads: each function locks one arena at a time. Cost: figures are a copy; the
others go through the blocks, without the GIL.
"""
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from c_heap cimport *
from spectral_alloc._heap cimport HeapCore

cdef enum:
    ADDRESSES_AT_ONCE = 512


def state_bytes(HeapCore core not None, unsigned number, unsigned state):
    """Bytes that a class holds in a state."""
    return sa_heap_state_bytes(&core.heap, number, state)


cdef int64_t state_sum(HeapCore core, unsigned state) noexcept:
    cdef int64_t total = 0
    cdef int number
    for number in range(SA_CLASS_COUNT):
        total += sa_heap_state_bytes(&core.heap, number, state)
    return total


def warm_bytes(HeapCore core not None):
    """Bytes of frames in memory."""
    return state_sum(core, SA_FRAME) + state_sum(core, SA_FRAME_EXTENT)


def live_bytes(HeapCore core not None):
    """Bytes of blocks and frames in memory, without what the heap needs around them."""
    return state_sum(core, SA_BYTES) + state_sum(core, SA_EXTENT) + warm_bytes(core)


def figures(HeapCore core not None, unsigned number):
    """What core/heap.h counts of a class, as a dict."""
    cdef sa_arena_figures counted
    sa_heap_figures(&core.heap, number, &counted)
    return counted


def census(HeapCore core not None):
    """The sa_block_census of each class, as a list of dicts: pages of generated blocks are parts of those. O(blocks)."""
    cdef sa_block_census sums
    cdef int number
    found = []
    for number in range(SA_CLASS_COUNT):
        memset(&sums, 0, sizeof(sums))
        with nogil:
            sa_heap_census(&core.heap, number, &sums)
        found.append(sums)
    return found


def page_count(HeapCore core not None):
    """How many pages of generated blocks are held. O(blocks)."""
    cdef sa_block_census sums
    cdef int number
    memset(&sums, 0, sizeof(sums))
    with nogil:
        for number in range(SA_CLASS_COUNT):
            sa_heap_census(&core.heap, number, &sums)
    return sums.page_count


def bands(HeapCore core not None):
    """The zero index of each heat code."""
    return [core.band_of_heat[code] for code in range(SA_HEAT_COUNT)]


def dirty_bytes(HeapCore core not None):
    """Bytes of pages of each class that are free as a whole, and were not given back."""
    cdef int number
    return [sa_heap_dirty(&core.heap, number) for number in range(SA_CLASS_COUNT)]


def addresses(HeapCore core not None, unsigned number, uint64_t position, unsigned mask):
    """(some addresses of a class in states of the mask, position to go on from; 0 at the end)."""
    cdef uint64_t found[ADDRESSES_AT_ONCE]
    cdef int length
    with nogil:
        length = sa_heap_addresses(&core.heap, number, mask, &position, found, ADDRESSES_AT_ONCE)
    return [found[at] for at in range(length)], position


def check(HeapCore core not None):
    """Walk every invariant. Errors: AssertionError that names the first that is broken. O(blocks + units)."""
    cdef int number
    cdef int broken
    for number in range(SA_CLASS_COUNT):
        with nogil:
            broken = sa_heap_check(&core.heap, number)
        assert broken == 0, f"invariant {broken} of core/heap.h is broken in class {number}"
