"""The C names of core/crc32c.h, declared here and nowhere else."""

from libc.stdint cimport uint32_t


cdef extern from "crc32c.h" nogil:
    uint32_t sa_crc32c(uint32_t crc, const void *data, size_t length)
    uint32_t sa_crc32c_portable(uint32_t crc, const void *data, size_t length)
    int sa_crc32c_is_hardware()
