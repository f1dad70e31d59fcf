"""HeapCore: what of a SpectralMemory is one call into core/heap.c; and Pin, which keeps a block's bytes in place.

Nouns: *address*, *block*, *arena*, *state* as in core/heap.h; a *Pin* exports one block's bytes as a buffer and
holds them where they are until it is gone; *come back* is what a block does whose bytes are not in place
(memory_tiers.py).

    HeapCore
      heap      sa_heap           twelve arenas
      spectrum  sa_spectrum       the bands that frequencies are quantised to

Invariant: a Pin holds its HeapCore, so ranges are unmapped only when no buffer is left. Others: in
the files of its bases, _heap_ledger.pyx, _heap_pages.pyx and _heap_moves.pyx.

Threads: any method from any thread; the heap locks one arena at a time, and copies of more than BULK_BYTES release
the GIL. Cost: malloc, free and access are O(1): parsing the arguments costs more than the heap does.
"""
cimport cython
from cpython.buffer cimport PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer, PyBUF_SIMPLE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_Clear
from cpython.long cimport PyLong_CheckExact
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport fabs, isfinite, lround
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free as c_free, malloc as c_malloc

from c_heap cimport *
from c_spectrum cimport sa_spectrum, sa_spectrum_free, sa_spectrum_new, sa_spectrum_position
from spectral_alloc._cell cimport Budget, charge_budget, is_exceeded
from spectral_alloc._heap_arguments cimport block_of, bounded, small_of
from spectral_alloc._heap_moves cimport HeapMoves
from spectral_alloc.memory_api cimport spectral_memory_api, spectral_memory_block

from spectral_alloc.memory_errors import refuse, refuse_more, refuse_range, refuse_settings, refuse_size

BLOCK_BYTES_MAX = SA_BLOCK_BYTES_MAX
HEAT_COUNT = SA_HEAT_COUNT
HEAT_PER_DOUBLING = SA_HEAT_PER_DOUBLING
CLASS_COUNT = SA_CLASS_COUNT
BYTES, EXTENT, FRAME, FRAME_EXTENT, PLACE, GROWN = range(1, SA_BLOCK_STATE_COUNT)
CAPSULE_NAME = "spectral_alloc.SpectralMemory"
FILL_BY_SPACE = SA_FILL_BY_SPACE
PAGE_BYTES = SA_PAGE_BYTES

cdef enum:
    BULK_BYTES = 1 << 16
    ROOM_MAX = 8  # times a block's size leaves the arenas, if the block does not fit, before it is refused
    BEYOND_BYTES = 1 << 20  # and a quarter of the limit: so far views and tables may go beyond it

cdef extern from "Python.h":
    unsigned long long_bits "PyLong_AsUnsignedLong"(object) noexcept
ctypedef uint64_t (*malloc_type)(void *, uint64_t, uint32_t, unsigned, unsigned, unsigned, unsigned, int) noexcept nogil
ctypedef int (*free_type)(void *, uint64_t, spectral_memory_block *) noexcept nogil
ctypedef int (*access_type)(void *, uint64_t, uint32_t *) noexcept nogil
ctypedef void (*unpin_type)(void *, uint64_t) noexcept nogil
ctypedef int (*read_type)(void *, uint64_t, uint64_t, uint64_t, void *) noexcept nogil
ctypedef int (*write_type)(void *, uint64_t, uint64_t, uint64_t, const void *) noexcept nogil

assert sizeof(spectral_memory_block) == sizeof(sa_block)
# channel -> its number in an address, 255 for what is no channel
cdef uint8_t channel_numbers[18]
for _prime in range(18):
    channel_numbers[_prime] = 255
for _number, _prime in enumerate((2, 3, 5, 7, 11, 13, 17)):
    channel_numbers[_prime] = _number


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Pin:
    """Exports the bytes of one block, which stay in place until this is deallocated."""

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.start, self.size, self.is_readonly, flags)

    def __dealloc__(self):
        if self.start is not NULL:
            sa_heap_unpin(&self.owner.heap, self.address)


cdef class HeapCore(HeapMoves):
    """The compiled part of SpectralMemory; see there for what each method promises."""

    def _open(self, Budget budget, gammas, indices, steps, int start, residencies, defaults, double per_doubling):
        """Make the arenas; `residencies` by state, `defaults` a frequency by temperature. Called once."""
        cdef const double[::1] bands = gammas
        cdef const int64_t[::1] numbers = indices
        cdef uint8_t exponents[SA_CHANNEL_COUNT]
        cdef int code
        for code in range(SA_CHANNEL_COUNT):
            exponents[code] = steps[code]
        if sa_spectrum_new(&self.spectrum, &bands[0], &numbers[0], bands.shape[0]) != 0:
            raise MemoryError(f"no memory for {bands.shape[0]} bands")
        if sa_heap_new(&self.heap, exponents, start) != 0:
            raise MemoryError("no memory for twelve arenas")
        self.origin, self.per_doubling = bands[0], per_doubling
        for code in range(SA_HEAT_COUNT):
            self.band_of_heat[code] = self.zero_of(self.origin + per_doubling * code / SA_HEAT_PER_DOUBLING)
        sa_heap_set_bands(&self.heap, self.band_of_heat)
        for code in range(4):
            self.default_zero[code] = self.zero_of(defaults[code])
        self.hot = residencies[SA_BYTES]
        self.budget_, self.pages = budget, {}
        self.charge_all()

    def __dealloc__(self):
        if self.budget_ is not None:
            charge_budget(self.budget_, -self.charged_bytes())
        sa_heap_free_all(&self.heap)
        sa_spectrum_free(&self.spectrum)

    # spectrum ---------------------------------------------------------------------------------------------------------

    cdef uint32_t zero_of(self, double t) noexcept:
        return <uint32_t>self.spectrum.indices[sa_spectrum_position(&self.spectrum, t)]

    cdef unsigned heat_of(self, double gamma) noexcept:
        cdef long code = lround((gamma - self.origin) / self.per_doubling * SA_HEAT_PER_DOUBLING)
        return 0 if code < 0 else SA_HEAT_COUNT - 1 if code >= SA_HEAT_COUNT else <unsigned>code

    cdef double gamma_of(self, uint32_t zero) noexcept:
        """The frequency of a zero that is one of the first in order, as they are here."""
        return self.spectrum.bands[zero - 1]

    # life of a block ------------------------------------------------------------------------------------------------

    def malloc(self, size, temperature=0, t_virtual=None, *, channel=5, axis=1):
        """A new block of undefined bytes: its address, never 0. Class and errors: docs/spectral_memory.md. O(1)."""
        return self.allocate(size, temperature, t_virtual, channel, axis, False)

    def calloc(self, size, temperature=0, t_virtual=None, *, channel=5, axis=1):
        """A new block of zeros, which costs no memory before it is written if it is larger than 32 KiB. As malloc."""
        return self.allocate(size, temperature, t_virtual, channel, axis, True)

    cdef int64_t size_of(self, object size, unsigned axis) except -1:
        """The size of a block as C has it; what is out of bounds is refused. One on axis 2 need not fit the limit."""
        cdef int64_t bytes = small_of(size, "size")
        if bytes < 1 or bytes > <int64_t>SA_BLOCK_BYTES_MAX or (axis != SA_AXIS_GENERATED and bytes > self.budget_.limit):
            refuse_size(size, self.budget_.limit, SA_BLOCK_BYTES_MAX)
        return bytes

    cdef object allocate(self, object size, object temperature, object t_virtual, object channel, object axis,
                         bint zeroed):
        cdef int64_t bytes, prime, plane, hint
        cdef uint32_t zero
        cdef uint64_t address
        cdef double t
        self.raise_if_closed()
        hint, prime, plane = small_of(temperature, "temperature"), small_of(channel, "channel"), small_of(axis, "axis")
        if not 0 <= hint <= 3 or not 0 <= prime <= 17 or channel_numbers[prime] == 255 or not 1 <= plane <= 2:
            refuse_settings(temperature, channel, axis)
        bytes = self.size_of(size, <unsigned>plane)
        if t_virtual is None:
            zero = self.default_zero[hint]
        else:
            t = t_virtual
            if not isfinite(t) or t <= 0:
                raise ValueError(f"t_virtual must be a finite number > 0, not {t_virtual!r}")
            zero = self.zero_of(t)
            self.mismatch_sum += fabs(t - self.gamma_of(zero))
            self.mismatch_count += 1
        address = sa_heap_malloc(&self.heap, <uint64_t>bytes, zero, channel_numbers[prime], <unsigned>plane,
                                 <unsigned>hint, self.heat_of(self.gamma_of(zero)), zeroed)
        if address == 0:
            address = self.allocate_slow(bytes, zero, channel_numbers[prime], <unsigned>plane, <unsigned>hint, zeroed)
        self.charge(sa_address_class(address))
        if is_exceeded(self.budget_):
            self.settle_new(address, bytes)
        return address

    cdef int settle_new(self, uint64_t address, int64_t bytes) except -1:
        """Make room for a new block; without it, and when that is interrupted, there is no new block."""
        try:
            self.settle_more(bytes)
        except BaseException:
            self.free(address)
            raise
        return 0

    cdef int settle_more(self, int64_t bytes) except -1:
        """Make room until no more is above the limit than may be, or refuse the bytes for which it was made."""
        self._relieve()
        if self.is_overfull():
            self._relieve_at_last()
        if self.is_overfull():
            refuse_more(bytes, self.budget_.limit, self.charged_bytes(), self._obstacle())
        return 0

    def _guarded(self):
        """Addresses of blocks that stay in place while room is made: SpectralMemory's."""
        return []

    def _reserve(self, uint64_t address, int64_t more):
        """Before a block takes so many bytes more: there is room for them, or a MemoryError and nothing has changed."""
        cdef unsigned forks = self.forks
        self.raise_if_closed()
        if self.budget_.excess(more) <= 0:
            return
        guarded = self._guarded()
        guarded.append(address)
        self.reserve(more)
        try:
            self.settle_more(more)
        finally:
            if self.forks == forks:
                self.reserve(-more)
            guarded.remove(address)

    cdef int reserve_growth(self, uint64_t address, int64_t bytes) except -1:
        """As _reserve, for what a block of that many bytes takes more than the block takes now."""
        cdef sa_block block
        if sa_heap_look(&self.heap, address, &block) != SA_OK or block.pins > 0:
            return 0  # it will be refused
        if block.state == SA_GROWN or bytes <= <int64_t>block.size:
            return 0
        if block.state == SA_FRAME or block.state == SA_FRAME_EXTENT:
            bytes -= <int64_t>block.frame_bytes
        elif block.state != SA_PLACE:
            bytes -= <int64_t>block.size
        self._reserve(address, bytes)
        return 0

    def _make_way(self, number, size, wanted=0):
        """Let blocks leave an arena that is full: SpectralMemory does."""
        return False

    cdef uint64_t allocate_slow(self, uint64_t bytes, uint32_t zero, unsigned channel, unsigned axis, unsigned hint,
                                bint zeroed) except 0:
        """A block for which no arena has addresses left: some of what is in the way leaves."""
        cdef uint64_t address = 0
        cdef uint64_t room = bytes
        cdef unsigned number
        while address == 0:
            number = sa_heap_class_for(&self.heap, channel, bytes)
            if number == SA_CLASS_COUNT or room > bytes * ROOM_MAX or not self._make_way(number, room):
                raise MemoryError(f"the system has no memory for a block of {bytes} bytes")
            room *= 2
            address = sa_heap_malloc(&self.heap, bytes, zero, channel, axis, hint, self.heat_of(self.gamma_of(zero)),
                                     zeroed)
        return address

    cdef bint is_overfull(self) noexcept:
        """Is so much above the limit that cannot leave that no more may come?"""
        return is_exceeded(self.budget_) and self.budget_.excess(0) > (self.budget_.limit >> 2) + BEYOND_BYTES

    def _make_room(self):
        """After pages were written: within the limit again, or a MemoryError."""
        if is_exceeded(self.budget_):
            self.settle_more(SA_PAGE_BYTES)

    def free(self, address):
        """Free a block; StaleAddressError if that was done, BufferError while it is viewed. O(1)."""
        cdef uint64_t number = block_of(address)
        cdef sa_block freed
        self.raise_if_closed()
        cdef int status = sa_heap_free(&self.heap, number, &freed)
        if status != SA_OK:
            refuse(status, number)
        self.charge(sa_address_class(number))
        if freed.state == SA_PLACE:
            self._release(freed.where, freed.frame_bytes)
        if sa_address_axis(number) == SA_AXIS_GENERATED:
            self.drop_pages(number, 0)

    @cython.binding(False)  # a plain method is called in half the time, but must tell its signature itself
    @cython.embedsignature(False)
    def access(self, address):
        """access($self, address, /)\n--\n
Count an access, bring the block back if it has earned that, and return its Residency. O(1) if in place."""
        cdef uint64_t number = long_bits(address) if PyLong_CheckExact(address) else block_of(address)
        cdef uint32_t state
        cdef int status = SA_UNKNOWN
        if number == <uint64_t>-1:
            PyErr_Clear()
            number = block_of(address)
        if not self.is_closed and self.budget_ is not None and sa_address_axis(number) != SA_AXIS_PAGE:
            status = sa_heap_access(&self.heap, number, &state)
            if status == SA_OK and state <= SA_EXTENT:
                return self.hot
        return self.access_slow(number, status, state)

    cdef object access_slow(self, uint64_t address, int status, uint32_t state):
        self.raise_if_closed()
        if status != SA_OK:
            refuse(status, address)
        return self._accessed_slow(address, state)

    def _touch(self, uint64_t address):
        """Count an access, wherever the block is."""
        cdef uint32_t state
        sa_heap_access(&self.heap, address, &state)

    cdef Pin pin(self, uint64_t address, bint is_readonly):
        cdef sa_block block
        cdef int status
        cdef Pin made = Pin.__new__(Pin)
        self.raise_if_closed()
        while True:
            status = sa_heap_pin(&self.heap, address, &block)
            if status == SA_OK:
                break
            if status != SA_AWAY:
                refuse(status, address)
            self._come_back(address)
        made.owner, made.address, made.is_readonly = self, address, is_readonly
        made.size = <Py_ssize_t>block.size
        made.start = block.bytes
        return made

    def view(self, address, *, bint readonly=False):
        """A memoryview of the block's bytes, which stay in place until it is released."""
        return PyMemoryView_FromObject(self.pin(block_of(address), readonly))

    def read(self, address, offset=0, size=None):
        """Bytes of a block; IndexError beyond its end. One read of a cold block does not push out hot ones."""
        return self.read_at(block_of(address), offset, size)

    cdef bytes read_at(self, uint64_t number, object offset, object size):
        cdef uint64_t at, length
        cdef sa_block block
        cdef int status
        self.raise_if_closed()
        status = sa_heap_look(&self.heap, number, &block)
        if status != SA_OK:
            refuse(status, number)
        if not bounded(block.size, offset, block.size - offset if size is None else size, &at, &length):
            refuse_range(number, block.size, offset, size)
        cdef bytes result = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
        cdef char *target = PyBytes_AS_STRING(result)
        while True:
            if length > BULK_BYTES:
                with nogil:
                    status = sa_heap_read(&self.heap, number, at, length, target)
            else:
                status = sa_heap_read(&self.heap, number, at, length, target)
            if status == SA_OK:
                return result
            if status == SA_RANGE:
                self.refuse_beyond(number, offset, length)
            if status != SA_AWAY:
                refuse(status, number)
            passing = self._read_away(number, at, length)
            if passing is not None:
                return passing

    cdef int refuse_beyond(self, uint64_t number, object offset, object length) except -1:
        """Refuse bytes that were in the block when they were asked for: another thread has made it smaller."""
        cdef sa_block block
        cdef int status = sa_heap_look(&self.heap, number, &block)
        if status != SA_OK:
            refuse(status, number)
        refuse_range(number, block.size, offset, length)

    def write(self, address, data, offset=0):
        """Copy a bytes-like object into a block; IndexError beyond its end, and then nothing was written."""
        cdef uint64_t number = block_of(address)
        cdef uint64_t at, length
        cdef sa_block block
        cdef Py_buffer source
        cdef int status
        self.raise_if_closed()
        status = sa_heap_look(&self.heap, number, &block)
        if status != SA_OK:
            refuse(status, number)
        PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
        try:
            if not bounded(block.size, offset, source.len, &at, &length):
                refuse_range(number, block.size, offset, source.len)
            while True:
                if length > BULK_BYTES:
                    with nogil:
                        status = sa_heap_write(&self.heap, number, at, length, source.buf)
                else:
                    status = sa_heap_write(&self.heap, number, at, length, source.buf)
                if status == SA_OK:
                    break
                if status == SA_RANGE:
                    self.refuse_beyond(number, offset, length)
                if status != SA_AWAY:
                    refuse(status, number)
                if sa_address_axis(number) == SA_AXIS_GENERATED and self._write_pages(number, data, at):
                    return
                self._come_back(number)
        finally:
            PyBuffer_Release(&source)
        if sa_address_axis(number) == SA_AXIS_GENERATED and block.size <= SA_PAGE_BYTES:
            self._written_small(number)

    def realloc(self, address, size):
        """Give a block another size at the same address; its first bytes stay, new ones are undefined.

        MemoryError when there is no room for what it is larger by; then the block is as it was."""
        cdef uint64_t number = block_of(address)
        self.raise_if_closed()
        cdef int64_t bytes = self.size_of(size, sa_address_axis(number))
        cdef bint is_generated = sa_address_axis(number) == SA_AXIS_GENERATED
        self.reserve_growth(number, bytes)
        while not (self._resize_pages(number, bytes) if is_generated else self._resize(number, bytes) == SA_OK):
            self._come_back(number)
        self.settle(sa_address_class(number))
        return address

    def _resize(self, uint64_t number, uint64_t size):
        """Give a block another size and drop the pages beyond it; SA_AWAY if it must come back before."""
        cdef int status = sa_heap_resize(&self.heap, number, size)
        cdef uint64_t room = size
        cdef unsigned full = sa_address_class(number)
        while status == SA_NO_MEMORY and room <= size * ROOM_MAX and self._make_way(full, room, number):
            room *= 2
            status = sa_heap_resize(&self.heap, number, size)
        if status != SA_OK and status != SA_AWAY:
            refuse(status, number)
        if status == SA_OK and sa_address_axis(number) == SA_AXIS_GENERATED:
            self.page_turns += 1
            self.drop_pages(number, (size + SA_PAGE_BYTES - 1) // SA_PAGE_BYTES)
        return status

    # what the pages of generated blocks are made of -------------------------------------------------------------------

    cdef uint64_t make_page(self, uint64_t parent, const sa_block *block, const void *data, uint64_t size) noexcept:
        cdef uint64_t page = sa_heap_malloc(&self.heap, size, sa_address_zero(parent), sa_address_channel(parent),
                                            SA_AXIS_PAGE, block.hint, block.heat, False)
        if page != 0:
            sa_heap_write(&self.heap, page, 0, size, data)
            self.charge(sa_address_class(page))
        return page

    cdef int free_page(self, uint64_t page, sa_block *freed) noexcept:
        return sa_heap_free(&self.heap, page, freed)

    cdef int look_at(self, uint64_t address, sa_block *block) noexcept:
        return sa_heap_look(&self.heap, address, block)

    cdef int let_grow(self, uint64_t parent, uint32_t state, uint64_t where) noexcept:
        cdef sa_block old
        return sa_heap_replace(&self.heap, parent, state, 0, SA_GROWN, NULL, 0, where, &old)

    def _read_page(self, uint64_t page):
        """The bytes of a written page."""
        return self.read_at(page, 0, None)

    # the end --------------------------------------------------------------------------------------------------------

    @property
    def _mismatch(self):
        """(sum of mismatches, number of frequencies that were given)."""
        return self.mismatch_sum, self.mismatch_count

    def _close(self):
        """Give the memory back; from now on every method refuses."""
        self.is_closed = True
        sa_heap_empty(&self.heap)
        self.forget_pages()
        self.charge_all()

    @property
    def closed(self):
        """Whether close() was called, or nothing was ever opened."""
        return self.is_closed or self.budget_ is None

    @property
    def capsule(self):
        """A PyCapsule with a spectral_memory_api, for Cython and C users (memory_api.pxd); it does not keep the heap."""
        self.raise_if_closed()
        self.api.version = 1
        self.api.heap = &self.heap
        self.api.malloc = <malloc_type>sa_heap_malloc
        self.api.free = <free_type>sa_heap_free
        self.api.access = <access_type>sa_heap_access
        self.api.pin = <free_type>sa_heap_pin
        self.api.unpin = <unpin_type>sa_heap_unpin
        self.api.read = <read_type>sa_heap_read
        self.api.write = <write_type>sa_heap_write
        return PyCapsule_New(&self.api, b"spectral_alloc.SpectralMemory", NULL)
