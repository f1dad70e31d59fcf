"""Overlay: the edits of one space, and who may touch them when. Truth about the table: core/overlay.h.

Nouns: *edit*, *page*, *raw*, `lock`, `writing` as in core/overlay.h; a call is *bulk* while it works without the GIL.

    GIL only         no bulk call is under way: scalar calls use the table directly, for the GIL is lock enough
    GIL and locks    otherwise scalar readers take `lock`; scalar writers give up the GIL and take `writing` and `lock`

Invariants:
  1. readers and writers count the bulk calls under way; they change under the GIL only.
  2. A thread that holds `writing` or `lock` never waits for the GIL, so waiting for them with the GIL cannot deadlock.
  3. `lock` is held for one page of edits at a time; lists and rebuilds hold only `writing`, which readers never take.
  4. A watcher is a reader as long as it lives, and hears of all edits after they were made. It may show pages of memory
     that are filled by reading the edits, so nobody who holds a lock for writing reads memory of a caller: it is copied.
  5. With watchers, an edit and its telling happen under `telling`.

Threads: any method from any. Forks: before one, all overlays with bulk calls are halted, so a child has whole tables; there
the locks are new and no bulk call is under way. A halted overlay can be read, since a thread may be about to with the GIL.
With a journal, every edit also goes there, in the same order; if it is full its log makes room before the edit is made.
Cost: one edit 20 to 100 ns; see core/overlay_bulk.h for many.
"""
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from c_edit_block cimport *
from c_overlay cimport *
from spectral_alloc._edit_journal cimport Journal

import os
import threading
import weakref

import numpy

from spectral_alloc.errors import LockedError

cdef extern from "sched.h" nogil:
    int sched_yield()

cdef enum:
    PIECE_EDITS = 65536   # edits under one holding of `writing`
    SAMPLE_COUNT = 256

PAGE_ADDRESSES = SA_PAGE_ADDRESSES
SLOT_BYTES = sizeof(sa_slot)

live = weakref.WeakSet()


cdef class Overlay:
    """Edits of a space: a table of address -> raw value. Parameters: secret (a word that nobody can guess).

    >>> overlay = Overlay()
    >>> overlay.write([7, 3], [1, 2]); overlay.edits()
    (array([3, 7], dtype=uint64), array([2, 1], dtype=uint64))
    """

    def __cinit__(self, secret=None):
        self.watchers = ()
        self.telling = threading.RLock()
        if sa_overlay_init(&self.core, int.from_bytes(os.urandom(8), "little") if secret is None else secret) != 0:
            raise MemoryError("no memory for a table of edits")
        live.add(self)

    def __dealloc__(self):
        sa_overlay_free(&self.core)

    def __len__(self):
        return self.core.table.count

    @property
    def memory_bytes(self):
        """Memory of the table and its filter."""
        return ((8 * SLOT_BYTES + SA_FILTER_BITS_PER_SLOT) << self.core.table.slot_bits) // 8

    cdef bint find(self, uint64_t address, uint64_t *raw) noexcept:
        if self.writers:
            return sa_overlay_find_shared(&self.core, address, raw)
        return sa_overlay_find(&self.core, address, raw)

    cdef bint is_free(self):
        """Whether one edit can be made under the GIL alone, at once."""
        cdef Journal journal = self.journal
        if self.readers or self.writers or sa_overlay_is_full(&self.core):
            return False
        return journal is None or not (journal.is_always or journal.count == journal.capacity or journal.refusal is not None)

    cdef int put(self, uint64_t address, uint64_t raw) except -1:
        if not self.is_free():
            return self.put_many(&address, &raw, NULL, 1)
        sa_overlay_put(&self.core, address, raw)
        if self.journal is not None:
            self.journal.append(&address, &raw, NULL, 1)
        return 0

    cdef int remove(self, uint64_t address) except -1:
        cdef uint8_t removed = 1
        cdef uint64_t raw = 0
        if not self.find(address, &raw):
            return 0
        raw = 0
        if not self.is_free():
            return self.put_many(&address, &raw, &removed, 1)
        sa_overlay_remove(&self.core, address)
        if self.journal is not None:
            self.journal.append(&address, &raw, &removed, 1)
        return 0

    cdef int put_many(self, const uint64_t *addresses, const uint64_t *raws, const uint8_t *removed, size_t count) except -1:
        if self.watcher_count == 0:
            return self.put_all(addresses, raws, removed, count, None)
        with self.telling:
            # Strong references: what dies between the edit and its telling might carry the old value back. Not before the
            # lock is there: while many wait for it, those who are gone could not go.
            listening = [watcher for reference in self.watchers if (watcher := reference()) is not None]
            return self.put_all(addresses, raws, removed, count, listening)

    cdef int put_all(self, const uint64_t *addresses, const uint64_t *raws, const uint8_t *removed, size_t count,
                     object listening) except -1:
        cdef size_t done = 0
        cdef Py_ssize_t some
        cdef const uint8_t *flags = removed
        cdef Journal journal = self.journal
        if removed == NULL and count > PIECE_EDITS:
            self.reserve(self.new_among(addresses, count))  # once, and not anew for each piece
        while done < count:
            if listening is None and self.watcher_count:
                return self.put_many(addresses + done, raws + done, flags, count - done)
            some = self.put_some(addresses + done, raws + done, flags, count - done)
            if listening and some:
                tell(listening, addresses + done, raws + done, flags, some)
            done += some
            if flags != NULL:
                flags += some
            if some == 0:
                try:
                    journal.log.make_room()
                except OSError as error:
                    error.add_note(f"{done} of {count} edits were made, the others were not")
                    raise
        if journal is not None and journal.is_always:
            journal.log.commit(journal.appended_count)
        return 0

    def watch(self, watcher, /):
        """Let a watcher hear of all edits, by ``edits_came``, until it is gone and has said so with ``unwatch``.

        Edits under way, of which it would not hear, are made when this returns.
        """
        with self.telling:
            self.watchers = (*(old for old in self.watchers if old() is not None), weakref.ref(watcher))
            self.watcher_count += 1
            self.readers += 1
            while self.writers:
                with nogil:
                    sched_yield()

    def unwatch(self):
        """A watcher is gone; its weak reference goes with the next one that comes, since here it may be still alive."""
        self.watcher_count -= 1
        self.readers -= 1
        if self.watcher_count == 0:
            self.watchers = ()

    cdef Py_ssize_t put_some(self, const uint64_t *addresses, const uint64_t *raws, const uint8_t *removed, size_t count) except -1:
        """Make the first edits, as many as the journal has room for and a piece has; 0 if there is no room."""
        cdef int failed = 0
        cdef size_t i, writes = 0
        cdef Journal journal = self.journal
        cdef bint is_logged = journal is not None
        if is_logged and journal.refusal is not None:
            raise LockedError(journal.refusal)
        self.writers += 1
        with nogil:
            pthread_mutex_lock(&self.core.writing)
            count = min(count, <size_t>PIECE_EDITS)
            if is_logged:
                count = min(count, journal.capacity - journal.count)
            if removed == NULL:
                writes = count
            else:
                for i in range(count):
                    writes += not removed[i]
            if writes:
                failed = sa_overlay_reserve(&self.core, writes)
            if failed == 0 and count:
                sa_overlay_scatter(&self.core, addresses, raws, removed, count)
                if is_logged:
                    journal.append(addresses, raws, removed, count)
                if writes < count:
                    sa_overlay_shrink(&self.core)
            pthread_mutex_unlock(&self.core.writing)
        self.writers -= 1
        if failed:
            raise MemoryError(f"no memory for {count} more edits beside {self.core.table.count}")
        return count

    cdef unsigned long long new_among(self, const uint64_t *addresses, size_t count) noexcept:
        """About how many of many addresses have no edit yet, from a sample."""
        cdef size_t i, fresh = 0, step = count // SAMPLE_COUNT
        cdef uint64_t raw
        for i in range(<size_t>SAMPLE_COUNT):
            fresh += not self.find(addresses[i * step], &raw)
        return <unsigned long long>fresh * step

    def set_journal(self, Journal journal, /):
        """Let edits go to a journal from now on, or with None to none; no edit is on its way to the old one then."""
        self.journal = journal
        with nogil:
            pthread_mutex_lock(&self.core.writing)
            pthread_mutex_unlock(&self.core.writing)

    def take(self):
        """The next bytes for the file, None if every edit is in it. Until Journal.wrote() they are the same."""
        cdef Journal journal = self.journal
        if journal.pending is not None:
            return journal.pending
        if journal.spare_count == 0:
            self.writers += 1
            with nogil:
                pthread_mutex_lock(&self.core.writing)
                journal.swap()
                pthread_mutex_unlock(&self.core.writing)
            self.writers -= 1
        return journal.encode() if journal.spare_count else None

    def hand_over(self):
        """Make the edits that wait the ones that are written next, if all before them are in the file; whether it did.

        Cost: O(1), and it never waits.
        """
        cdef Journal journal = self.journal
        cdef bint is_handed_over
        if journal is None or pthread_mutex_trylock(&self.core.writing) != 0:
            return False
        is_handed_over = journal.swap()
        pthread_mutex_unlock(&self.core.writing)
        return is_handed_over

    def replay(self, const uint8_t[::1] data not None):
        """Make the edits of the sound blocks that data begins with, past the journal; returns (their bytes, edits).

        Cost: 30 to 50 ns an edit, without the GIL.
        """
        cdef size_t done = 0, edits = 0
        cdef int failed
        self.writers += 1
        with nogil:
            pthread_mutex_lock(&self.core.writing)
            failed = replay_blocks(&self.core, &data[0], data.shape[0], &done, &edits) if data.shape[0] else 0
            pthread_mutex_unlock(&self.core.writing)
        self.writers -= 1
        if failed:
            raise MemoryError(f"no memory for more edits beside {self.core.table.count}")
        return done, edits

    def reserve(self, unsigned long long count, /):
        """Make room for so many more edits, as far as memory goes."""
        self.writers += 1
        with nogil:
            pthread_mutex_lock(&self.core.writing)
            sa_overlay_reserve(&self.core, count)
            pthread_mutex_unlock(&self.core.writing)
        self.writers -= 1

    cdef void patch_fill(self, uint64_t start, uint64_t step, void *out, size_t count, size_t value_bytes) noexcept:
        self.readers += 1
        with nogil:
            sa_overlay_patch_fill(&self.core, start, step, out, count, value_bytes)
        self.readers -= 1

    cdef void patch_gather(self, const uint64_t *addresses, void *out, size_t count, size_t value_bytes) noexcept:
        self.readers += 1
        with nogil:
            sa_overlay_patch_gather(&self.core, addresses, out, count, value_bytes)
        self.readers -= 1

    def write(self, addresses, raws, removed=None, /):
        """Write edits in order, or remove those whose ``removed`` is not 0. Parameters: uint64 arrays, a uint8 array."""
        cdef const uint64_t[::1] address_view = numpy.ascontiguousarray(addresses, dtype=numpy.uint64)
        cdef const uint64_t[::1] raw_view = numpy.ascontiguousarray(raws, dtype=numpy.uint64)
        cdef const uint8_t[::1] removed_view = None
        cdef const uint8_t *flags = NULL
        cdef size_t count = address_view.shape[0]
        if removed is not None:
            removed_view = numpy.ascontiguousarray(removed, dtype=numpy.uint8)
        if raw_view.shape[0] != <Py_ssize_t>count or (removed is not None and removed_view.shape[0] != <Py_ssize_t>count):
            raise ValueError(f"there are {count} addresses, but {raw_view.shape[0]} values")
        if count == 0:
            return
        if self.watchers:
            address_view, raw_view = numpy.array(address_view), numpy.array(raw_view)
            removed_view = None if removed is None else numpy.array(removed_view)
        if removed is not None:
            flags = &removed_view[0]
        self.put_many(&address_view[0], &raw_view[0], flags, count)

    def edits(self):
        """All edits in the order of their addresses: two uint64 arrays, addresses and raw values.

        Cost: 20 ns an edit and 32 bytes of memory more meanwhile; writers wait for the first half of it, readers never.
        """
        cdef sa_edit *edits
        cdef size_t count, i
        self.readers += 1
        with nogil:
            pthread_mutex_lock(&self.core.writing)
            count = self.core.table.count
            edits = <sa_edit *>PyMem_RawMalloc((2 * count + 1) * sizeof(sa_edit))
            if edits != NULL:
                sa_overlay_list(&self.core, edits)
            pthread_mutex_unlock(&self.core.writing)
            if edits != NULL:
                sa_edit_sort(edits, edits + count, count)
        self.readers -= 1
        if edits == NULL:
            raise MemoryError(f"no memory for a list of {count} edits")
        try:
            pairs = numpy.empty((count, 2), dtype=numpy.uint64)
            fill_pairs(pairs, edits, count)
        finally:
            PyMem_RawFree(edits)
        return numpy.ascontiguousarray(pairs[:, 0]), numpy.ascontiguousarray(pairs[:, 1])

    def clear(self):
        """Remove all edits."""
        self.writers += 1
        with nogil:
            pthread_mutex_lock(&self.core.writing)
            sa_overlay_clear(&self.core)
            pthread_mutex_unlock(&self.core.writing)
        self.writers -= 1

    def copy(self):
        """Another overlay with the same edits."""
        made = Overlay()
        made.write(*self.edits())
        return made

    def check(self):
        """Test every invariant of the table, O(slots); AssertionError names the one that is broken."""
        cdef int broken
        self.readers += 1
        with nogil:
            pthread_mutex_lock(&self.core.writing)
            broken = sa_overlay_check(&self.core)
            pthread_mutex_unlock(&self.core.writing)
        self.readers -= 1
        if broken:
            raise AssertionError(f"invariant {broken} of core/overlay.h is broken")

    def halt(self):
        """Wait until no bulk call is in the middle of writing a page, and let none go on until ``resume``."""
        if self.readers or self.writers:
            with nogil:
                pthread_mutex_lock(&self.core.writing)
            self.halted = True

    def resume(self, bint in_child=False):
        """Undo ``halt``; in a child the locks are made anew, since those who waited for them did not come along."""
        if in_child:
            sa_overlay_renew_locks(&self.core)
            self.readers, self.writers = self.watcher_count, 0
            self.telling = threading.RLock()
            if self.journal is not None:
                self.journal.refuse("the log of this space belongs to the parent process; detach() it to edit in memory")
        elif self.halted:
            pthread_mutex_unlock(&self.core.writing)
        self.halted = False


cdef int replay_blocks(sa_overlay *overlay, const uint8_t *data, size_t length, size_t *done, size_t *edits) noexcept nogil:
    """Make the edits of all whole sound blocks at the front of data. 0, or -1 without memory."""
    cdef uint64_t addresses[SA_BLOCK_EDITS]
    cdef uint64_t raws[SA_BLOCK_EDITS]
    cdef uint8_t removed[SA_BLOCK_EDITS]
    cdef sa_edit_columns columns
    cdef size_t size, count
    cdef int has_removals
    columns.addresses, columns.raws, columns.removed = addresses, raws, removed
    while done[0] < length:
        size = sa_block_size(data + done[0], length - done[0])
        if size == 0 or size > length - done[0] or not sa_block_is_sound(data + done[0], size):
            return 0
        count = sa_block_decode(data + done[0], size, &columns, &has_removals)
        if sa_overlay_reserve(overlay, count) != 0:
            return -1
        sa_overlay_scatter(overlay, addresses, raws, removed if has_removals else NULL, count)
        done[0] += size
        edits[0] += count
    return 0


cdef int tell(object listening, const uint64_t *addresses, const uint64_t *raws, const uint8_t *removed,
              Py_ssize_t count) except -1:
    """Let watchers know of edits."""
    places, values, flags = copied(addresses, count), copied(raws, count), None
    if removed != NULL:
        flags = numpy.array(<const uint8_t[:count]>removed)
    for watcher in listening:
        watcher.edits_came(places, values, flags)
    return 0


cdef object copied(const uint64_t *words, Py_ssize_t count):
    return numpy.array(<const uint64_t[:count]>words)


cdef int fill_pairs(uint64_t[:, ::1] pairs, const sa_edit *edits, size_t count) except -1:
    if count:
        memcpy(&pairs[0, 0], edits, count * sizeof(sa_edit))
    return 0


def halt_all():
    """Halt every overlay; a fork is about to copy them."""
    for overlay in tuple(live):
        overlay.halt()


def resume_all(in_child=False):
    """Let them go on, in the parent or in the child."""
    for overlay in tuple(live):
        overlay.resume(in_child)


os.register_at_fork(before=halt_all, after_in_parent=resume_all, after_in_child=lambda: resume_all(True))
