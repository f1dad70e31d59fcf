"""Region: the memory of an array whose pages come when they are touched. Truth: core/touch.h.

Nouns: *region*, *page*, *window*, *way*, *dirty*, *packed*, *carried* as there; `lock` is that of core/touch.h.

    ndarray -> base: a Region -> sa_region        the region ends when no array shows it any more

Invariants:
  1. `lock` is taken without the GIL, and given back before the GIL is wanted: the thread that serves faults never has the GIL.
  2. What is charged to the budget is the limit, whether pages are there or not, and the tables.

Threads: any. Cost: core/touch.h.
"""
from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from c_touch cimport *
from spectral_alloc._cell cimport Budget, charge_budget, is_exceeded

import os

import numpy

from spectral_alloc.errors import CorruptFrameError

cdef enum:
    REFRESHES_PER_LOCK = 1024
    WARM_SHARE = 8  # one part of the limit in so many is for packed pages

PAGE_BYTES = SA_PAGE_BYTES
WINDOW_BYTES = SA_WINDOW_BYTES
LIMIT_BYTES_MIN = SA_TOUCH_PAGES_MIN * SA_PAGE_BYTES * WARM_SHARE // (WARM_SHARE - 1)
WAYS = ("userfaultfd", "userfaultfd-user", "signal")

def start(int way, /):
    """Begin with a way (position in WAYS) for all regions; it stays. Errors: OSError if the system does not permit it."""
    cdef int error
    if not 0 <= way < SA_TOUCH_WAY_COUNT:
        raise ValueError(f"the way must be 0 to {SA_TOUCH_WAY_COUNT - 1}, not {way}")
    with nogil:
        error = sa_touch_start(<sa_touch_way>way)
    if error:
        raise OSError(error, f"{os.strerror(error)}: arrays on touch by {WAYS[way]}")


cdef class Region:
    """Memory that is filled when it is touched; a buffer, which numpy makes arrays of. See spectral_alloc.touch.

    Weak references are those of the Python classes below it: they end before anything of an object does. Those of a
    class like this one would last until __dealloc__ is over, and give others an object that is half gone.
    """

    cdef int map(self, nbytes, sa_touch_source source, long long limit_bytes, directory, int item_bytes,
                 long long disk_bytes) except -1:
        """Reserve addresses for so many bytes. The limit is at least LIMIT_BYTES_MIN."""
        cdef bytes path = os.fsencode(directory)
        cdef const char *where = path
        cdef uint64_t size = nbytes
        cdef long long warm = limit_bytes // WARM_SHARE
        cdef uint64_t pages = <uint64_t>((limit_bytes - warm) // SA_PAGE_BYTES)
        with nogil:
            self.core = sa_region_open(size, source, pages, where, item_bytes, warm, disk_bytes)
        if self.core == NULL:
            raise MemoryError(f"no addresses for an array of {nbytes} bytes: {os.strerror(errno)}")
        self.limit = limit_bytes
        return 0

    def __dealloc__(self):
        if self.budget_ is not None:
            charge_budget(self.budget_, -self.charged)
        self.shut()

    cdef void shut(self) noexcept:
        """Give the addresses back; nobody reads the source for them any more."""
        cdef sa_region *core = self.core
        self.core = NULL
        if core != NULL:
            with nogil:
                sa_region_close(core)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.core.base, <Py_ssize_t>self.core.bytes, 0, flags)

    # budget -----------------------------------------------------------------------------------------------------------

    cdef int charge(self) noexcept:
        cdef long long wanted = self.limit + <long long>sa_region_overhead_bytes(self.core)
        charge_budget(self.budget_, wanted - self.charged)
        self.charged = wanted
        return 0

    @property
    def budget(self):
        """The budget that the region is charged to."""
        return self.budget_

    def rebudget(self, Budget budget not None, /):
        """Charge another budget from now on."""
        if self.budget_ is not None:
            charge_budget(self.budget_, -self.charged)
        self.charged = 0
        self.budget_ = budget
        self.charge()

    @property
    def used_bytes(self):
        """Bytes that are charged: the limit, and tables."""
        return self.charged

    @property
    def counted_bytes(self):
        """Of the memory of the C library and of CPython's allocator, which slack is shared by, nothing is used."""
        return 0

    def excess_bytes(self, long long slack=0):
        """Bytes by which the budget is above its limit less ``slack``; negative when there is room."""
        self.charge()
        return self.budget_.excess(slack)

    def charge_slack(self, long long slack_bytes):
        """Nothing: the pages are the region's own."""

    @property
    def limit_bytes(self):
        """The most that pages in memory and packed pages in memory may take."""
        return self.limit

    def set_limit(self, long long limit_bytes, /):
        """Take another limit, at least LIMIT_BYTES_MIN; pages above it leave at once, as far as the disk takes edited ones."""
        limit_bytes = max(limit_bytes, <long long>SA_TOUCH_PAGES_MIN * SA_PAGE_BYTES * WARM_SHARE // (WARM_SHARE - 1))
        cdef long long warm = <long long>self.core.store.segments[0].end_sectors * SA_SECTOR_BYTES
        cdef uint64_t pages = <uint64_t>max((limit_bytes - max(warm, limit_bytes // WARM_SHARE)) // SA_PAGE_BYTES,
                                            <long long>SA_TOUCH_PAGES_MIN)
        with nogil:
            pthread_mutex_lock(&sa_touch.lock)
            self.core.pages_max = pages
            sa_region_shrink(self.core, pages)
            pthread_mutex_unlock(&sa_touch.lock)
        self.limit = limit_bytes
        self.charge()

    # pages ------------------------------------------------------------------------------------------------------------

    @property
    def nbytes(self):
        """Bytes of the array."""
        return self.core.bytes

    @property
    def address(self):
        """Where the array begins."""
        return <size_t>self.core.base

    def populate(self, uint64_t offset, uint64_t length, /):
        """Bring in the pages of a range. Errors: CorruptFrameError if an evicted one cannot be read."""
        cdef sa_touch_result result = SA_TOUCH_DONE
        cdef uint64_t page = offset // SA_PAGE_BYTES, end = (offset + length + SA_PAGE_BYTES - 1) // SA_PAGE_BYTES
        cdef uint64_t some
        while page < end:
            some = min(end - page, SA_WINDOW_PAGES - page % SA_WINDOW_PAGES)
            with nogil:
                pthread_mutex_lock(&sa_touch.lock)
                result = sa_region_populate(self.core, page, some)
                pthread_mutex_unlock(&sa_touch.lock)
                if result == SA_TOUCH_BUSY:
                    sched_yield()
            if result == SA_TOUCH_LOST:
                raise CorruptFrameError(f"an evicted page among {page} to {page + some - 1} of an array on touch is lost")
            if result == SA_TOUCH_DONE:
                page += some

    def evict(self):
        """Let all pages leave memory; edited ones go to the store. False if the disk refuses some, which stay."""
        cdef int refused
        with nogil:
            pthread_mutex_lock(&sa_touch.lock)
            refused = sa_region_shrink(self.core, 0)
            pthread_mutex_unlock(&sa_touch.lock)
        return refused == 0

    def pack(self):
        """Put edited pages into the store; they stay in memory too. False if the disk refuses some."""
        cdef int refused
        with nogil:
            pthread_mutex_lock(&sa_touch.lock)
            refused = sa_region_pack_all(self.core)
            pthread_mutex_unlock(&sa_touch.lock)
        return refused == 0

    def edited_windows(self):
        """Numbers of the windows with pages that may differ from the source, in order."""
        cdef uint64_t room = 0, count = 1
        cdef uint64_t[::1] view
        while count > room:
            room = count + 16
            found = numpy.empty(room, dtype=numpy.uint64)
            view = found
            with nogil:
                pthread_mutex_lock(&sa_touch.lock)
                count = sa_region_list_edited(self.core, &view[0], room)
                pthread_mutex_unlock(&sa_touch.lock)
        # Not numpy.unique, which imports when it is first called: a fork in another thread's import would stop a child here.
        found = numpy.sort(found[:count])
        is_first = numpy.ones(count, dtype=numpy.bool_)
        is_first[1:] = found[1:] != found[:-1]
        return found[is_first]

    cdef int begin(self, uint64_t window, uint8_t *bytes, uint64_t *mask) noexcept nogil:
        """Copy the edited pages of a window, to be carried; -1 if one cannot be read."""
        pthread_mutex_lock(&sa_touch.lock)
        cdef int result = sa_region_carry_begin(self.core, window, bytes, mask)
        pthread_mutex_unlock(&sa_touch.lock)
        return result

    cdef void end(self, uint64_t window, uint64_t mask, bint is_done) noexcept nogil:
        """The copies have arrived, or not."""
        pthread_mutex_lock(&sa_touch.lock)
        sa_region_carry_end(self.core, window, mask, is_done)
        pthread_mutex_unlock(&sa_touch.lock)

    cdef int refresh(self, const uint64_t *offsets, const uint64_t *raws, uint32_t value_bytes, size_t count) noexcept nogil:
        """The source has new values at these offsets; -1 if a page cannot be read."""
        cdef size_t done = 0, stop
        cdef sa_touch_result result = SA_TOUCH_DONE
        while done < count:
            stop = min(count, done + <size_t>REFRESHES_PER_LOCK)
            pthread_mutex_lock(&sa_touch.lock)
            while done < stop:
                result = sa_region_refresh(self.core, offsets[done], <const uint8_t *>&raws[done], value_bytes)
                if result != SA_TOUCH_DONE:
                    break
                done += 1
            pthread_mutex_unlock(&sa_touch.lock)
            if result == SA_TOUCH_LOST:
                return -1
            if result == SA_TOUCH_BUSY:
                sched_yield()
        return 0

    # figures ----------------------------------------------------------------------------------------------------------

    def figures(self):
        """What has happened, by name, in pages but for the faults; and what there is now."""
        cdef sa_touch_figures counts
        cdef uint64_t resident, packed, disk, failures
        with nogil:
            pthread_mutex_lock(&sa_touch.lock)
            counts = self.core.figures
            resident, packed, failures = self.core.pages, self.core.store.count, self.core.store.failures
            disk = sa_page_store_disk_bytes(&self.core.store)
            pthread_mutex_unlock(&sa_touch.lock)
        return {
            "resident_bytes": resident * SA_PAGE_BYTES, "packed_pages": packed, "disk_bytes": disk, "faults": counts.faults,
            "write_faults": counts.write_faults, "filled": counts.filled, "ahead": counts.ahead, "evicted": counts.evicted,
            "packed": counts.packed, "unpacked": counts.unpacked, "regrown": counts.regrown, "dropped": counts.dropped,
            "failures": failures,
        }

    @property
    def failure(self):
        """Why the store last refused a page, as a number of errno; 0 if it never did."""
        return self.core.store.error

    def check(self):
        """Test the invariants of core/touch.h; AssertionError names the one that is broken. O(pages in tables)."""
        cdef int broken
        with nogil:
            pthread_mutex_lock(&sa_touch.lock)
            broken = sa_region_check(self.core)
            pthread_mutex_unlock(&sa_touch.lock)
        if broken:
            raise AssertionError(f"invariant {broken} of core/touch.h is broken")


cdef class ZeroRegion(Region):
    """A region of zeros, until it is written. Parameters: nbytes, limit_bytes, directory, item_bytes, disk_bytes."""

    def __cinit__(self, nbytes, long long limit_bytes, directory, int item_bytes, long long disk_bytes, *more):
        cdef sa_touch_source source
        source.fill, source.context = NULL, NULL
        self.map(nbytes, source, limit_bytes, directory, item_bytes, disk_bytes)


cdef class EagerRegion:
    """Memory that is there at once, as a buffer. Parameters: nbytes. Errors: MemoryError."""

    cdef readonly object data
    cdef uint8_t[::1] view

    def __cinit__(self, nbytes, *more):
        self.data = numpy.zeros(nbytes, dtype=numpy.uint8)
        self.view = self.data

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, &self.view[0], self.view.shape[0], 0, flags)

    @property
    def nbytes(self):
        """Bytes of the array."""
        return self.view.shape[0]

    @property
    def address(self):
        """Where the array begins."""
        return <size_t>&self.view[0]
