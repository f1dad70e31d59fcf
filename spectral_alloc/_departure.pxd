# The C side of _departure.pyx.
from c_shadow_table cimport sa_digest
from spectral_alloc._cell cimport Cell, Pending
from spectral_alloc._ledger cimport Ledger


cdef class Departure(Pending):
    cdef readonly Ledger ledger
    cdef readonly Cell cell
    cdef readonly object value   # the live object
    cdef readonly unsigned flags # of the verdict, for the serialiser
    cdef readonly long long value_bytes
    cdef Py_ssize_t references   # to the value, when it was found closed
    cdef bint sealed             # serialised without running foreign code
    cdef bint exposed            # foreign code ran since the value was found closed

    cdef bint is_pending(self) noexcept
    cdef void restore(self) noexcept
    cdef bint may_commit(self) except *
    cdef bint to_regrown(self, sa_digest digest) except *


cdef class Shipment:
    cdef Ledger ledger
    cdef readonly list cells
    cdef readonly list frames

    cdef void cancel(self) noexcept
    cdef bint regrow(self, Py_ssize_t index, sa_digest digest) except *
