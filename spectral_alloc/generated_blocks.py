"""Generated blocks: what a SpectralMemory holds on axis 2, the bytes of a GenerativeSpace until they are written.

Words: the *content* of a block is what it holds where nobody has written: the bytes of a space, or one repeated byte
(calloc); a *page* is 4 KiB of it; a *written* page differs from the content and is held by a block of its own, which
grows cold like any other; a block is *grown* while it is content and pages, *whole* while its bytes are in place.

    address  ->  window of the space, 4 GiB of values     first value at (12 local + class) x values in 4 GiB, mod 2**64
    grown    ->  | content | written page | content | content | written page | ...
                 write: a page that differs is kept, one that equals the content is let go
    grown  --come_back-->  whole        view, array, writes to blocks of one page
    whole  --leave------>  grown        if a page at least is content; else it leaves as other blocks do

Invariants:
1. Bytes of a block are those of its written pages, and of the content elsewhere: no page holds what the content says.
2. The content depends on the seed (or the attached space's function) and the address; never on edits of the space.
3. Pages and size of a block change under its lock, of which blocks share LOCK_COUNT; a relief only ever tries one. Only
   free takes no lock: whoever misses a page looks whether the block is still there.

Threads: any. Readers take no lock: what they read counts if no block turned whole or grown meanwhile.
Cost: a page takes 0.6 us to generate and as much again to compare.
"""

import threading
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_alloc._heap import CLASS_COUNT, FILL_BY_SPACE, GROWN, PAGE_BYTES, HeapCore
from spectral_alloc._heap_census import page_count
from spectral_alloc.errors import CorruptFrameError
from spectral_alloc.generative_space import GenerativeSpace
from spectral_alloc.memory_errors import refuse_range

__all__ = ["GENERATED_AXIS", "GeneratedBlocks", "axis_of", "space_start"]

GENERATED_AXIS = 2
WINDOW_BYTES = 1 << 32  # the largest block
LOCK_COUNT = 16
PIECE_PAGES = 64  # written or compared at once

Bytes = NDArray[np.uint8]


def axis_of(address: int) -> int:
    """The axis that an address says: 1 stored, 2 generated, 3 a page of a generated block."""
    return address >> 32 & 3


def space_start(address: int, value_bytes: int) -> int:
    """The address in the space of a block's first value, from the class and the serial of the block's own address.

    No two blocks of a heap share a value before it has made 2**35 of them (2**34 for values of four bytes).

    >>> space_start(3 << 37 | 2 << 32 | 1, 8) == (12 * 1 + 3) << 29
    True
    """
    number = (address & 0xFFFFFFFF) * CLASS_COUNT + (address >> 37 & 15)
    return number * (WINDOW_BYTES // value_bytes) % (1 << 64)


class GeneratedBlocks:
    """Reads and writes the blocks of one heap that are generated.

    Parameters: ``core`` (the heap), ``seed`` (of the space, until one is attached).
    """

    def __init__(self, core: HeapCore, seed: int) -> None:
        self._core = weakref.ref(core)
        self._seed = seed
        self._space: GenerativeSpace | None = None
        self._function: GenerativeSpace | None = None
        self._locks = [threading.RLock() for _ in range(LOCK_COUNT)]

    @property
    def core(self) -> HeapCore:
        """The heap. Whoever calls here holds it."""
        core = self._core()
        assert core is not None
        return core

    # the space --------------------------------------------------------------------------------------------------------

    @property
    def space(self) -> GenerativeSpace:
        """The space that blocks show; made when it is first asked for."""
        if self._space is None:
            self.attach(GenerativeSpace(self._seed))
        assert self._space is not None
        return self._space

    def attach(self, space: GenerativeSpace) -> None:
        """Let blocks show another space: its function, without edits."""
        self._function = GenerativeSpace(space.seed, values=space.values)
        self._space = space

    def lock(self, address: int) -> threading.RLock:
        """What is held while the pages of a block change."""
        return self._locks[address % LOCK_COUNT]

    # content ----------------------------------------------------------------------------------------------------------

    def content(self, address: int, where: int, offset: int, length: int) -> Bytes:
        """Bytes of a block where nobody has written; ``where`` is the heap says: a byte, or FILL_BY_SPACE."""
        if where != FILL_BY_SPACE:
            return np.full(length, where, np.uint8)
        if self._function is None:
            self.attach(self.space)
        function = self._function
        assert function is not None
        value_bytes = function.dtype.itemsize
        first = offset // value_bytes
        values = np.empty(-(-(offset + length) // value_bytes) - first, function.dtype)
        function.fill(values, space_start(address, value_bytes) + first)
        return values.view(np.uint8)[offset - first * value_bytes :][:length]

    # reading ----------------------------------------------------------------------------------------------------------

    def read(self, address: int, offset: int, length: int) -> "Bytes | None":
        """Bytes of a grown block; None if it is whole now."""
        core = self.core
        while True:
            turns = core.page_turns
            state, size, where, *_ = core._look(address)
            if state != GROWN:
                return None
            if offset + length > size:
                refuse_range(address, size, offset, length)  # made smaller since the range was looked at
            found = self._read(address, where, offset, length)
            if found is not None and core.page_turns == turns:
                return found

    def _read(self, address: int, where: int, offset: int, length: int) -> "Bytes | None":
        """As read, of what pages there are now; None if one was let go meanwhile."""
        found = self.content(address, where, offset, length)
        pages = self.core._pages(address)
        if not pages:
            return found
        first, end = offset // PAGE_BYTES, -(-(offset + length) // PAGE_BYTES)
        if end - first < len(pages):
            numbers = [number for number in range(first, end) if number in pages]
        else:
            numbers = [number for number in list(pages) if first <= number < end]
        for number in numbers:
            page = self._page(address, number)
            if page is None:
                return None
            skipped = max(offset - number * PAGE_BYTES, 0)
            at = number * PAGE_BYTES + skipped - offset
            part = page[skipped : skipped + length - at]
            found[at : at + len(part)] = part
        return found

    def _page(self, address: int, number: int) -> "Bytes | None":
        """The bytes of a written page, as many as there were when it was written; None if there is none."""
        page = (self.core._pages(address) or {}).get(number)
        if page is None:
            return None
        try:
            return np.frombuffer(self.core._read_page(page), np.uint8)
        except KeyError:
            return None  # let go, or replaced, by another thread
        except CorruptFrameError as error:
            name = f"page {number} of the block at address {address:#018x}"
            raise CorruptFrameError(f"{name} is damaged: {error}", address) from error

    # writing ----------------------------------------------------------------------------------------------------------

    def write(self, address: int, data: Any, offset: int) -> bool:
        """Write to a grown block of several pages; False if it is whole, or is to come back and be written in place.

        Raises MemoryError when the heap is full and nothing can leave, and IndexError when another thread has made the
        block smaller; pages before that stay written.
        """
        source = np.frombuffer(data, np.uint8)
        done = 0
        while done < len(source):
            with self.lock(address):
                state, size, where, *_ = self.core._look(address)
                if state != GROWN or size <= PAGE_BYTES:
                    return False
                if offset + len(source) > size:
                    refuse_range(address, size, offset, len(source))
                written = self._try_piece(address, where, source[done:], offset + done, size)
            if written == 0 and not self.core._make_way(address >> 37 & 15, PIECE_PAGES * PAGE_BYTES):
                raise MemoryError(f"the system has no memory for pages of the block at address {address:#018x}")
            done += written
            self.core._make_room()
        return True

    def _try_piece(self, address: int, where: int, source: Bytes, offset: int, size: int) -> int:
        """As _write_piece; 0 if no arena has addresses for the pages, of which some may be written."""
        try:
            return self._write_piece(address, where, source, offset, size)
        except MemoryError:
            return 0

    def _write_piece(self, address: int, where: int, source: Bytes, offset: int, size: int) -> int:
        """Write some pages; returns the bytes of ``source`` that are in them."""
        first = offset // PAGE_BYTES
        end = min(-(-(offset + len(source)) // PAGE_BYTES), first + PIECE_PAGES)
        start, length = first * PAGE_BYTES, min(end * PAGE_BYTES, size) - first * PAGE_BYTES
        count = min(len(source), start + length - offset)
        content = self.content(address, where, start, length)
        fresh = content.copy()
        for number in sorted(number for number in list(self.core._pages(address) or ()) if first <= number < end):
            page = self._page(address, number)
            if page is None:
                self.core._look(address)  # only a free takes pages without the lock: it says so
            assert page is not None, "a page was let go without the lock"
            part = fresh[(number - first) * PAGE_BYTES :][: len(page)]
            part[:] = page[: len(part)]
        fresh[offset - start :][:count] = source[:count]
        self._keep(address, first, content, fresh)
        return count

    def _keep(self, address: int, first: int, content: Bytes, fresh: Bytes) -> None:
        """Keep the pages that differ from the content, and let go of the others."""
        different = differing(content, fresh)
        for number in range(len(different)):
            if different[number]:
                page = fresh[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
                self.core._put_page(address, first + number, page.data)
            else:
                self.core._drop_page(address, first + number)

    def resize(self, address: int, size: int) -> bool:
        """Give a block another size; False if it must come back before. What is new is content, or what was there."""
        with self.lock(address):
            return self.core._resize(address, size) == 0

    # leaving ----------------------------------------------------------------------------------------------------------

    def leave(self, address: int, state: int, data: bytes) -> int | None:
        """Let a whole block, whose bytes were copied out, grow again, but for its written pages; returns bytes freed.

        None if every page is written: then there is nothing to gain.
        """
        lock = self.lock(address)
        if not lock.acquire(blocking=False):
            return 0
        try:
            whole = np.frombuffer(data, np.uint8)
            where, numbers = self._written_pages(address, whole)
            if len(numbers) * PAGE_BYTES >= len(whole):
                return None
            if not self.core._split(address, state, where, numbers, whole.data):
                return 0
            return max(len(whole) - len(numbers) * PAGE_BYTES, 1)
        finally:
            lock.release()

    def _written_pages(self, address: int, whole: Bytes) -> tuple[int, list[int]]:
        """The content that fits the bytes of a block best, and the pages that differ from it."""
        written: dict[int, list[int]] = {FILL_BY_SPACE: [], 0: []}
        for start in range(0, len(whole), PIECE_PAGES * PAGE_BYTES):
            piece = whole[start : start + PIECE_PAGES * PAGE_BYTES]
            for where, numbers in written.items():
                different = differing(self.content(address, where, start, len(piece)), piece)
                numbers.extend((np.flatnonzero(different) + start // PAGE_BYTES).tolist())
        return min(written.items(), key=lambda found: len(found[1]))

    def after_fork_in_child(self) -> None:
        """No lock of the parent's other threads is valid here."""
        self._locks = [threading.RLock() for _ in range(LOCK_COUNT)]

    # checking ---------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise AssertionError if a page is held that the content would give, lies beyond its block, or has none."""
        held = page_count(self.core)
        named = sum(len(pages) for pages in self.core._written().values())
        assert held == named, f"{held} pages are held, and {named} are named"
        for address, pages in list(self.core._written().items()):
            state, size, where, *_ = self.core._look(address)
            assert state == GROWN, f"{address:#018x} has pages and is whole"
            assert axis_of(address) == GENERATED_AXIS, f"{address:#018x} has pages and is not on axis 2"
            for number in pages:
                page = self._page(address, number)
                start = number * PAGE_BYTES
                assert start < size, f"page {number} of {address:#018x} lies beyond its end"
                assert page is not None, f"page {number} of {address:#018x} is not there"
                length = min(len(page), size - start)
                if length == len(page):
                    content = self.content(address, where, start, length)
                    assert not np.array_equal(content, page), f"page {number} of {address:#018x} holds its content"


def differing(content: Bytes, fresh: Bytes) -> NDArray[np.bool_]:
    """Which pages of two equally long pieces differ; the last page may be shorter."""
    full = len(content) // PAGE_BYTES * PAGE_BYTES
    mine, its = (piece[:full].view(np.uint64).reshape(-1, PAGE_BYTES // 8) for piece in (content, fresh))
    found: NDArray[np.bool_] = np.any(mine != its, axis=1)
    if full < len(content):
        found = np.append(found, not np.array_equal(content[full:], fresh[full:]))
    return found
