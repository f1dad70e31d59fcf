"""A user of a SpectralMemory's capsule that knows memory_api.pxd alone, for test_memory_threads.py.

Nouns: *address* and *block* as in memory_api.pxd. Layout: 64 slots of addresses in `hammer`, each block beginning with a
word that its address and its thread determine.

Invariant: `hammer` counts every answer that is not what one thread alone would get; 0 is what it must return.
Threads: any, without the GIL. Cost: what is tested.
"""
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uint64_t
from spectral_alloc.memory_api cimport spectral_memory_api, spectral_memory_block

def fill_and_sum(memory, int count):
    cdef spectral_memory_api *api
    api = <spectral_memory_api *>PyCapsule_GetPointer(memory.capsule, b"spectral_alloc.SpectralMemory")
    cdef spectral_memory_block block
    cdef uint64_t address = 0
    cdef long total = 0
    cdef int number
    assert api.version == 1
    with nogil:
        for number in range(count):
            address = api.malloc(api.heap, 8, 69, 2, 1, 0, 300, 0)
            if api.pin(api.heap, address, &block) == 0:
                (<long *>block.bytes)[0] = number
                api.unpin(api.heap, address)
            if api.pin(api.heap, address, &block) == 0:
                total += (<long *>block.bytes)[0]
                api.unpin(api.heap, address)
            if number % 2 == 0:
                api.free(api.heap, address, &block)
    return total, address

def hammer(memory, unsigned seed, int count):
    cdef spectral_memory_api *api
    api = <spectral_memory_api *>PyCapsule_GetPointer(memory.capsule, b"spectral_alloc.SpectralMemory")
    cdef spectral_memory_block block
    cdef uint64_t addresses[64]
    cdef uint64_t word
    cdef unsigned chance = seed
    cdef int number, at, wrong = 0
    for at in range(64):
        addresses[at] = 0
    with nogil:
        for number in range(count):
            chance = chance * 1664525 + 1013904223
            at = chance >> 26
            if addresses[at] != 0:
                wrong += api.read(api.heap, addresses[at], 0, 8, &word) != 0 or word != addresses[at] + seed
                wrong += api.free(api.heap, addresses[at], &block) != 0
                wrong += api.free(api.heap, addresses[at], &block) != 1
            addresses[at] = api.malloc(api.heap, 8 + chance % 500, 69, 0, 1, 0, 300, 0)
            word = addresses[at] + seed
            wrong += api.write(api.heap, addresses[at], 0, 8, &word) != 0
        for at in range(64):
            if addresses[at] != 0:
                wrong += api.free(api.heap, addresses[at], &block) != 0
    return wrong
