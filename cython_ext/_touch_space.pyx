"""SpaceRegion: the memory of an array on addresses of a GenerativeSpace. Truth: core/touch_space.h, core/touch.h.

Nouns: *region*, *window*, *carried* as in core/touch.h; *overlay*, *edit*, *raw* as in core/overlay.h.

    fault -> generator and overlay -> page        flush: page -> what differs -> overlay        space.write -> overlay -> page

Invariants:
  1. From watch on, before any page is there, its overlay counts one reader more, so that every writer takes the
     overlay's locks.
  2. A page counts as edited until its edits are in the overlay: an error or an interrupt on the way loses none.
  3. Between a write to the space and its showing here no flush begins (Overlay.telling): it would take the old value that
     is here for an edit.
  4. What a flush writes is not told to the region that it comes from, or it would undo newer edits there.

Threads: any; one flush of a region at a time (spectral_alloc/space_touch.py sees to it).
Cost: a flush takes 0.3 us an edited page and what the overlay takes for each edit.
"""
cimport cython
from libc.stdint cimport uint8_t, uint64_t

from c_overlay cimport *
from c_touch cimport *
from c_touch_space cimport *
from spectral_alloc._generator cimport Generator
from spectral_alloc._overlay cimport Overlay
from spectral_alloc._touch cimport Region

import threading

import numpy

from spectral_alloc.errors import CorruptFrameError


cdef class SpaceRegion(Region):
    """A region that shows a space. Parameters: generator, overlay, start (address of the first value), count (of values),
    limit_bytes, directory (for edited pages that leave memory), disk_bytes (the most of it).
    """

    cdef sa_touch_space space
    cdef readonly Generator generator
    cdef readonly Overlay overlay
    cdef object flusher  # ident of the thread that flushes, None if none does
    cdef uint64_t count
    cdef bint is_watching

    def __cinit__(self, Generator generator, Overlay overlay, uint64_t start, count, long long limit_bytes, directory,
                  long long disk_bytes, *more):
        cdef sa_touch_source source
        self.generator, self.overlay = generator, overlay
        self.space.generator, self.space.overlay, self.space.start = &generator.core, &overlay.core, start
        self.count = count
        source.fill, source.context = sa_touch_space_fill, &self.space
        self.map(count * generator.core.value_bytes, source, limit_bytes, directory, generator.core.value_bytes, disk_bytes)

    def __dealloc__(self):
        self.shut()
        if self.is_watching:
            self.overlay.unwatch()

    def watch(self):
        """Hear of edits of the space, and be flushed with it, from now on: when all that this needs has been set up."""
        self.overlay.watch(self)
        self.is_watching = True

    def edits_came(self, addresses, raws, removed, /):
        """Show edits that were made to the space: uint64 arrays, and where removed is not 0 the generated value."""
        if self.flusher == threading.get_ident():
            return
        cdef uint64_t[::1] offsets
        cdef uint64_t[::1] values
        cdef const uint8_t[::1] flags
        cdef size_t i, count
        cdef uint64_t address
        cdef int failed
        places = addresses - numpy.uint64(self.space.start)
        inside = places < numpy.uint64(self.count)
        if not inside.any():
            return
        offsets, values = places[inside] * numpy.uint64(self.generator.core.value_bytes), raws[inside]
        count = offsets.shape[0]
        if removed is not None:
            flags = removed[inside]
            for i in range(count):
                if flags[i]:
                    address = self.space.start + offsets[i] // self.generator.core.value_bytes
                    values[i] = self.generator.raw(address)
        with nogil:
            failed = self.refresh(&offsets[0], &values[0], self.generator.core.value_bytes, count)
        if failed:
            raise CorruptFrameError("an evicted page of an array on touch is lost; the space has the edits, the array has not")

    def flush_window(self, uint64_t window, /):
        """Carry what was edited in a window to the space. Errors: those of Overlay.write; then it counts as edited still."""
        cdef Carrier buffers = Carrier(self.generator.core.value_bytes)
        with self.overlay.telling:
            self.carry(buffers, window)

    cdef int carry(self, Carrier buffers, uint64_t window) except -1:
        """The same. Nobody else writes the space meanwhile: a new value there would be taken for an old one of the array."""
        cdef uint64_t mask = 0
        cdef bint is_done = False
        cdef int failed
        with nogil:
            failed = self.begin(window, buffers.bytes_view(), &mask)
        if failed:
            raise CorruptFrameError(f"an evicted page of window {window} of an array on touch is lost")
        try:
            with nogil:
                self.diff(buffers, window, mask)
            if buffers.edits.count:
                self.flusher = threading.get_ident()
                try:
                    self.overlay.write(*buffers.taken())
                finally:
                    self.flusher = None
            is_done = True
        finally:
            with nogil:
                self.end(window, mask, is_done)
        return 0

    cdef void diff(self, Carrier buffers, uint64_t window, uint64_t mask) noexcept nogil:
        """Find what differs in the pages of a mask."""
        cdef uint64_t i, offset, length
        cdef uint8_t *pages = buffers.bytes_view()
        buffers.edits.count = 0
        for i in range(<uint64_t>SA_WINDOW_PAGES):
            if mask >> i & 1 == 0:
                continue
            offset = window * SA_WINDOW_BYTES + i * SA_PAGE_BYTES
            length = min(<uint64_t>SA_PAGE_BYTES, self.core.bytes - offset)
            while sa_touch_space_diff(&self.space, offset, pages + i * SA_PAGE_BYTES, length, &buffers.edits) != 0:
                sched_yield()


@cython.internal
cdef class Carrier:
    """Room for a window on its way, and for as many edits as it can have."""

    cdef sa_touch_edits edits
    cdef object pages, addresses, raws, removed
    cdef uint8_t[::1] page_view
    cdef uint64_t[::1] address_view
    cdef uint64_t[::1] raw_view
    cdef uint8_t[::1] removed_view

    def __cinit__(self, int value_bytes):
        room = SA_WINDOW_BYTES // value_bytes
        self.pages = numpy.empty(SA_WINDOW_BYTES, dtype=numpy.uint8)
        self.addresses, self.raws = numpy.empty(room, dtype=numpy.uint64), numpy.empty(room, dtype=numpy.uint64)
        self.removed = numpy.empty(room, dtype=numpy.uint8)
        self.page_view, self.removed_view = self.pages, self.removed
        self.address_view, self.raw_view = self.addresses, self.raws
        self.edits.addresses, self.edits.raws = &self.address_view[0], &self.raw_view[0]
        self.edits.removed = &self.removed_view[0]

    cdef uint8_t *bytes_view(self) noexcept nogil:
        return &self.page_view[0]

    cdef tuple taken(self):
        """The edits as Overlay.write takes them."""
        count = self.edits.count
        return self.addresses[:count], self.raws[:count], self.removed[:count]
