"""What a codec counts and samples while it encodes: FrameTally, SampleReservoir and DriftGauge.

Words: a frame is counted under one *codec*, the number in spectral_alloc._frame of that of its largest block;
a *sample* is the raw bytes of one small value.

    FrameTally        | frames | raw bytes | frame bytes | failures |    4 x 8 B for each codec
    SampleReservoir   kept: list of bytes; byte_count <= bytes_max; len(kept) <= samples_max
    DriftGauge        moving averages of raw and stored bytes | frames noted | least ratio | drifted

Invariants:
    1. byte_count is the sum of the lengths of kept, and neither limit is ever exceeded.
    2. Once a sample has been turned away, kept grows no more, so that late offers have no better chance.

Threads: each method is one C call that runs no Python code, so under the GIL it is atomic: threads, signal
handlers and finalisers that come in between lose nothing, and no lock can be left held.
Cost: some 40 ns a call; memory is what resident_bytes says.
"""

import sys

from libc.stdint cimport int64_t, uint64_t

from spectral_alloc._frame import CODECS

cdef enum:
    CODEC_COUNT = 5

if CODECS != CODEC_COUNT:
    raise ImportError("the tally has not a row for each codec of a frame")


cdef class FrameTally:
    """Counts frames and bytes per codec; each method is atomic, so threads and interrupts lose nothing."""

    cdef int64_t frames[CODEC_COUNT]
    cdef int64_t raw[CODEC_COUNT]
    cdef int64_t framed[CODEC_COUNT]
    cdef int64_t failures[CODEC_COUNT]

    cdef int check(self, unsigned int codec) except -1:
        if codec >= CODEC_COUNT:
            raise ValueError(f"codec {codec} is not between 0 and {CODEC_COUNT - 1}")
        return 0

    def encoded(self, unsigned int codec, int64_t raw_bytes, int64_t frame_bytes):
        """Count one frame whose largest block used ``codec``."""
        self.check(codec)
        self.frames[codec] += 1
        self.raw[codec] += raw_bytes
        self.framed[codec] += frame_bytes

    def failed(self, unsigned int codec):
        """Count one failure of ``codec``."""
        self.check(codec)
        self.failures[codec] += 1

    def counts(self, unsigned int codec):
        """Return frames, raw bytes, frame bytes and failures of ``codec``."""
        self.check(codec)
        return self.frames[codec], self.raw[codec], self.framed[codec], self.failures[codec]


cdef Py_ssize_t SAMPLE_OVERHEAD_BYTES = sys.getsizeof(b"") + <Py_ssize_t>sizeof(void *)


cdef class SampleReservoir:
    """A bounded, uniform sample of all byte strings offered; each method is atomic, so threads need no lock.

    Until a limit is reached everything is kept; from then on the n-th offer replaces a random sample with
    probability (samples kept) / n, unless the replacement would exceed the limit of bytes.
    """

    cdef list kept
    cdef readonly Py_ssize_t byte_count
    cdef readonly int64_t offered_count
    cdef Py_ssize_t samples_max
    cdef Py_ssize_t bytes_max
    cdef bint full
    cdef uint64_t state

    def __init__(self, Py_ssize_t samples_max, Py_ssize_t bytes_max, uint64_t seed=1):
        if samples_max < 1 or bytes_max < 1:
            raise ValueError(f"a reservoir of {samples_max} samples and {bytes_max} bytes holds nothing")
        self.kept = []
        self.samples_max = samples_max
        self.bytes_max = bytes_max
        self.state = seed * 2 + 1  # the generator below never leaves zero

    def offer(self, bytes data not None):
        """Keep ``data``, perhaps in place of another sample, or drop it."""
        cdef Py_ssize_t index, count = len(self.kept), grown = self.byte_count + len(data)
        self.offered_count += 1
        if not self.full and count < self.samples_max and grown <= self.bytes_max:
            self.kept.append(data)
            self.byte_count = grown
            return
        self.full = True
        self.state ^= self.state >> 12
        self.state ^= self.state << 25
        self.state ^= self.state >> 27
        index = <Py_ssize_t>((self.state * <uint64_t>0x2545F4914F6CDD1D >> 11) % <uint64_t>self.offered_count)
        if index >= count:
            return
        grown -= len(<bytes>self.kept[index])
        if grown <= self.bytes_max:
            self.kept[index] = data
            self.byte_count = grown

    @property
    def resident_bytes(self):
        """The memory of the samples: their bytes, object headers and places in the list."""
        return self.byte_count + len(self.kept) * SAMPLE_OVERHEAD_BYTES

    def samples(self):
        """Return the samples kept, in a new list."""
        return list(self.kept)


cdef class DriftGauge:
    """Notices when small values no longer compress as they did when the dictionary was trained.

    Parameters: weight of one frame in the moving averages, frames_min noted before they are trusted.
    """

    cdef double weight, raw, stored, ratio_min
    cdef int64_t frames_min, count
    cdef readonly bint drifted

    def __init__(self, double weight, int64_t frames_min):
        self.weight, self.frames_min = weight, frames_min

    def restart(self, double raw_mean, double stored_mean, double ratio_min):
        """Begin again with averages that the training found; a ratio below `ratio_min` will be drift."""
        self.raw, self.stored, self.ratio_min = raw_mean, stored_mean, ratio_min
        self.count = 0
        self.drifted = False

    def note(self, int64_t raw_bytes, int64_t stored_bytes):
        """Take note of one frame; True when this is the one that shows the drift."""
        self.raw += (raw_bytes - self.raw) * self.weight
        self.stored += (min(stored_bytes, raw_bytes) - self.stored) * self.weight
        self.count += 1
        if self.drifted or self.count <= self.frames_min or self.raw >= self.ratio_min * self.stored:
            return False
        self.drifted = True
        return True
