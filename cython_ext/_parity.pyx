"""encode and recover: the parity shards of a stripe, and its lost shards. Truth: core/parity.h.

Nouns: *shard*, *stripe*, P, Q as there. A lost shard is None.

    shards   [D0, D1, ..., P, Q]        P and Q as long as the longest data shard

Invariants: those of core/parity.h; what is given is never changed.
Threads: stateless; the arithmetic releases the GIL. Cost: a pass over the stripe for P, one for Q, and as many for recovery.
"""
from libc.stdint cimport uint8_t
from libc.stddef cimport size_t

from c_parity cimport *

DATA_MAX = SA_STRIPE_DATA_MAX


cdef int add(bytearray target, const uint8_t[::1] source, uint8_t factor, bint portable=False) except -1:
    """target += factor * source."""
    cdef uint8_t[::1] sums = target
    cdef size_t length = source.shape[0]
    if length == 0:
        return 0
    with nogil:
        if portable:
            sa_parity_add_portable(&sums[0], &source[0], length, factor)
        else:
            sa_parity_add(&sums[0], &source[0], length, factor)
    return 0


def encode(data, bint two=True, bint portable=False):
    """The parity shards of 1 to 10 data shards, not all empty: [P], or [P, Q] if two. ValueError for other numbers."""
    cdef int number
    length = max(map(len, data), default=0)
    if not 1 <= len(data) <= SA_STRIPE_DATA_MAX or length == 0:
        raise ValueError(f"a stripe has 1 to {SA_STRIPE_DATA_MAX} data shards, not all empty; got {len(data)}")
    shards = [bytearray(length) for _ in range(2 if two else 1)]
    for number, shard in enumerate(data):
        add(shards[0], shard, 1, portable)
        if two:
            add(shards[1], shard, sa_parity_power(number), portable)
    return [bytes(shard) for shard in shards]


def recover(data, parity):
    """All data shards of a stripe whose lost ones are None, the recovered ones as long as the parity.

    Parameters: data (shards or None), parity ([P] or [P, Q], each or None). Errors: ValueError when more are lost than
    parity shards are there.
    """
    lost = [number for number, shard in enumerate(data) if shard is None]
    whole = [shard for shard in parity if shard is not None]
    if len(lost) > len(whole):
        raise ValueError(f"{len(lost)} data shards are lost, and only {len(whole)} parity shards are there")
    if not lost:
        return list(data)
    cdef uint8_t first = sa_parity_power(lost[0]), second
    found = list(data)
    p = None if parity[0] is None else bytearray(parity[0])
    q = bytearray(parity[1]) if len(parity) > 1 and parity[1] is not None else None
    for number, shard in enumerate(data):
        if shard is None:
            continue
        if p is not None:
            add(p, shard, 1)
        if q is not None:
            add(q, shard, sa_parity_power(number))
    if len(lost) == 1:
        # p holds the shard itself, q the shard times its factor.
        found[lost[0]] = bytes(p) if p is not None else bytes(scaled(q, sa_parity_over(1, first)))
        return found
    # p = x + y and q = a x + b y, so y = (q + a p) / (a + b).
    second = sa_parity_power(lost[1])
    add(q, p, first)
    y = scaled(q, sa_parity_over(1, first ^ second))
    add(p, y, 1)
    found[lost[0]], found[lost[1]] = bytes(p), bytes(y)
    return found


cdef bytearray scaled(bytearray shard, uint8_t factor):
    cdef uint8_t[::1] values = shard
    with nogil:
        sa_parity_scale(&values[0], values.shape[0], factor)
    return shard
