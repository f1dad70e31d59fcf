"""The C side of a SpectralMemory for Cython and C users: functions behind the capsule that
``SpectralMemory.capsule`` gives.

    from cpython.pycapsule cimport PyCapsule_GetPointer
    from spectral_alloc.memory_api cimport spectral_memory_api, spectral_memory_block
    cdef spectral_memory_api *api = <spectral_memory_api *>PyCapsule_GetPointer(memory.capsule,
    b"spectral_alloc.SpectralMemory")

The first argument of every function is ``api.heap``. Functions that give an int give 0 for success; 4 means that the
bytes are not in place: read them through Python once, or pin again after ``memory.view(address)``. Zero index 1 to
the number of bands; channel is the position 0 to 6 of its prime; axis 1; hint 0; heat 0 to 1023 (32 a doubling of
accesses). Threads: any, with or without the GIL. The memory budget is charged at the next call from Python. Keep a
reference to the memory for as long as the pointer is used. """

from libc.stdint cimport uint32_t, uint64_t


cdef struct spectral_memory_block:
    uint64_t size
    uint64_t where
    uint64_t frame_bytes
    char *bytes                  # where the block is while it is pinned
    uint32_t state, heat, hint, pins


cdef struct spectral_memory_api:
    int version                  # 1
    void *heap
    uint64_t (*malloc)(void *heap, uint64_t size, uint32_t zero, unsigned channel, unsigned axis, unsigned hint,
                       unsigned heat, int zeroed) noexcept nogil
    int (*free)(void *heap, uint64_t address, spectral_memory_block *freed) noexcept nogil
    int (*access)(void *heap, uint64_t address, uint32_t *state) noexcept nogil
    int (*pin)(void *heap, uint64_t address, spectral_memory_block *block) noexcept nogil
    void (*unpin)(void *heap, uint64_t address) noexcept nogil
    int (*read)(void *heap, uint64_t address, uint64_t offset, uint64_t length, void *target) noexcept nogil
    int (*write)(void *heap, uint64_t address, uint64_t offset, uint64_t length, const void *source) noexcept nogil
