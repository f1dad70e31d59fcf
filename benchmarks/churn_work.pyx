"""The work of benchmarks/memory.py that must not be Python: churn and random replacement, by malloc or by a capsule.

Nouns: a *subject* is what allocates: the C library (whichever LD_PRELOAD put in its place) or a SpectralMemory. A *slot* is a
place in an array that was touched before anything is measured, so that the array itself is in no figure.

    slots    | pointer or address 8 | ... |
    sizes    | bytes 4 | ... |

Invariant: every live block begins and ends with its slot's number, checked whenever it is freed and at the end of a phase.
Threads: one. Cost: what is measured.
"""
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from spectral_alloc.memory_api cimport spectral_memory_api, spectral_memory_block

from time import perf_counter

cdef uint64_t random_state = 88172645463325252


cdef inline uint64_t random_below(uint64_t limit) noexcept nogil:
    global random_state
    random_state ^= random_state << 13
    random_state ^= random_state >> 7
    random_state ^= random_state << 17
    return (random_state >> 11) % limit


cdef class Work:
    """Slots of one subject; ``memory`` is a SpectralMemory, or None for malloc."""

    cdef spectral_memory_api *api
    cdef object memory
    cdef uint64_t *slots
    cdef uint32_t *sizes
    cdef uint64_t count
    cdef readonly uint64_t live_bytes, live_count

    def __cinit__(self, uint64_t count, memory=None):
        self.memory = memory
        if memory is not None:
            self.api = <spectral_memory_api *>PyCapsule_GetPointer(memory.capsule, b"spectral_alloc.SpectralMemory")
        self.slots = <uint64_t *>malloc(count * 8)
        self.sizes = <uint32_t *>malloc(count * 4)
        memset(self.slots, 0xFF, count * 8)
        memset(self.slots, 0, count * 8)
        memset(self.sizes, 0xFF, count * 4)
        self.count = count

    cdef int put(self, uint64_t slot, uint32_t size) except -1 nogil:
        cdef spectral_memory_block block
        cdef uint64_t address
        cdef char *start
        if self.api is NULL:
            start = <char *>malloc(size)
            address = <uint64_t>start
        else:
            address = self.api.malloc(self.api.heap, size, 25, 2, 1, 0, 100, 0)
            self.api.pin(self.api.heap, address, &block)
            start = block.bytes
        memset(start, <int>slot & 0xFF, size)
        memcpy(start, &slot, 4)
        memcpy(start + size - 4, &slot, 4)
        if self.api is not NULL:
            self.api.unpin(self.api.heap, address)
        self.slots[slot] = address
        self.sizes[slot] = size
        self.live_bytes += size
        self.live_count += 1
        return 0

    cdef int check_one(self, uint64_t slot) except -1 nogil:
        cdef spectral_memory_block block
        cdef char *start = <char *>self.slots[slot]
        cdef uint32_t head = 0, tail = 0
        if self.api is not NULL:
            if self.api.pin(self.api.heap, self.slots[slot], &block) != 0:
                with gil:
                    raise AssertionError(f"block {slot} is not there")
            start = block.bytes
        memcpy(&head, start, 4)
        memcpy(&tail, start + self.sizes[slot] - 4, 4)
        if self.api is not NULL:
            self.api.unpin(self.api.heap, self.slots[slot])
        if head != <uint32_t>slot or tail != <uint32_t>slot:
            with gil:
                raise AssertionError(f"block {slot} holds other bytes")
        return 0

    cdef int take(self, uint64_t slot) except -1 nogil:
        cdef spectral_memory_block block
        self.check_one(slot)
        if self.api is NULL:
            free(<void *>self.slots[slot])
        else:
            self.api.free(self.api.heap, self.slots[slot], &block)
        self.live_bytes -= self.sizes[slot]
        self.live_count -= 1
        self.slots[slot] = 0
        return 0

    def fill(self, uint64_t live_bytes, uint32_t low, uint32_t high):
        """Put blocks of low to high bytes into free slots until so many bytes live."""
        cdef uint64_t slot = 0
        with nogil:
            while self.live_bytes < live_bytes:
                while self.slots[slot] != 0:
                    slot += 1
                self.put(slot, low + <uint32_t>random_below(high - low + 1))

    def thin(self, double share):
        """Free each live block with this probability."""
        cdef uint64_t slot
        cdef uint64_t limit = <uint64_t>(share * 1000000)
        with nogil:
            for slot in range(self.count):
                if self.slots[slot] != 0 and random_below(1000000) < limit:
                    self.take(slot)

    def keep(self, uint64_t count):
        """Free blocks from the front until so many live."""
        cdef uint64_t slot = 0
        with nogil:
            while self.live_count > count:
                if self.slots[slot] != 0:
                    self.take(slot)
                slot += 1

    def replace(self, uint64_t turns, uint32_t low, uint32_t high):
        """Free a random slot's block and put another one there, so many times."""
        cdef uint64_t turn, slot
        with nogil:
            for turn in range(turns):
                slot = random_below(self.count)
                if self.slots[slot] != 0:
                    self.take(slot)
                    self.put(slot, low + <uint32_t>random_below(high - low + 1))

    def check(self):
        """Every live block holds its own number."""
        cdef uint64_t slot
        with nogil:
            for slot in range(self.count):
                if self.slots[slot] != 0:
                    self.check_one(slot)

    def throughput(self, uint64_t turns, uint64_t slots):
        """Nanoseconds a turn of free and malloc in random slots; sizes Pareto from 16 bytes to 64 KiB, 8 bytes written."""
        cdef uint64_t turn, slot, size, address
        cdef spectral_memory_block block
        start = perf_counter()
        with nogil:
            for turn in range(turns):
                slot = random_below(slots)
                size = 16 * 1048576 // (16 + random_below(1048560))
                if size > 65536:
                    size = 65536
                if self.api is NULL:
                    free(<void *>self.slots[slot])
                    address = <uint64_t>malloc(size)
                    (<uint64_t *>address)[0] = slot
                else:
                    if self.slots[slot] != 0:
                        self.api.free(self.api.heap, self.slots[slot], &block)
                    address = self.api.malloc(self.api.heap, size, 25, 2, 1, 0, 100, 0)
                    self.api.pin(self.api.heap, address, &block)
                    (<uint64_t *>block.bytes)[0] = slot
                    self.api.unpin(self.api.heap, address)
                self.slots[slot] = address
        return (perf_counter() - start) / turns * 1e9
