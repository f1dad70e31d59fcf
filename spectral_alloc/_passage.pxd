# The C side of _passage.pyx.
from c_shadow_table cimport sa_digest
from spectral_alloc._cell cimport Cell
from spectral_alloc._departure cimport Departure
from spectral_alloc._express cimport Express
from spectral_alloc._journal cimport JournalCore
from spectral_alloc._ledger cimport Ledger
from spectral_alloc._regrow cimport Regrowth
from spectral_alloc._shadows cimport Shadows


cdef class Ticket:
    cdef object frame            # None while it is read, and if that failed
    cdef tuple origin
    cdef object gate             # an Event that somebody waits at, or None
    cdef bint is_done


cdef class Parcel:
    cdef readonly list items           # (Departure, frame)
    cdef readonly long long size_bytes # of the values, while they are still in RAM


cdef class Passage:
    cdef readonly Ledger ledger
    cdef public object codec           # FrameCodec: the general way
    cdef public object store           # ColdStore
    cdef public object open_frame      # frame -> value or OTHER_WAY
    cdef readonly Shadows shadows
    cdef readonly Regrowth regrowth      # the recipes of the dict, or None
    cdef Express express
    cdef JournalCore keeper            # of a durable dict: knows what the log has; None of all others
    cdef dict tickets                  # address of a cell -> Ticket of the read under way
    cdef set reading                   # threads that are in the middle of a read
    cdef double slow_reads[1024]       # seconds; a ring
    cdef long long slow_read_count
    cdef public double cold_read_seconds # a moving average
    cdef public double dear_read_seconds # above this values that are used often do not stay on disk

    cdef object frame_of(self, Cell cell, tuple origin)
    cdef object shared_frame_slow(self, Ticket ticket, Cell cell, tuple origin)
    cdef object read_cold(self, Cell cell, tuple origin)
    cdef int forget_ticket(self, Cell cell) except -1
    cdef object installed(self, Cell cell, tuple origin, object frame, bint insist)
    cdef object known_value(self, Cell cell, tuple origin, object frame, key)
    cdef bint may_rest(self, Departure departure) noexcept
    cdef bint rests_in_log(self, Departure departure, bytes stream) except *
    cdef bint rests(self, Departure departure, bytes stream) except *
    cdef bint adopted(self, Departure departure, sa_digest digest, list parts=*) except *
    cdef int note_slow_read(self, double seconds) except -1
