"""The C names of core/log_record.h, declared here and nowhere else."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "log_record.h" nogil:
    enum:
        SA_LOG_HEAD_BYTES
        SA_LOG_ALIGN_BYTES
    ctypedef struct sa_log_record:
        uint64_t offset
        uint64_t sequence
        uint64_t birth
        uint64_t frame_bytes
        uint32_t key_bytes
        uint32_t unsettled
        uint32_t frame_crc
        uint32_t key_crc
        uint8_t kind
        uint8_t flags
    ctypedef enum sa_log_status:
        SA_LOG_GOOD
        SA_LOG_SHORT
        SA_LOG_BAD_HEAD
        SA_LOG_BAD_KEY
        SA_LOG_BAD_FRAME
    uint32_t sa_log_salt(const uint8_t *log_id, uint64_t segment)
    uint64_t sa_log_record_bytes(const sa_log_record *record, size_t mac_bytes)
    void sa_log_write_head(uint8_t *out, const sa_log_record *record, uint32_t salt)
    sa_log_status sa_log_read(const uint8_t *data, size_t available, uint64_t offset, uint64_t file_bytes,
                              uint32_t salt, size_t mac_bytes, int check_bodies, sa_log_record *record)
    size_t sa_log_find(const uint8_t *data, size_t available, size_t start, uint64_t offset, uint64_t file_bytes,
                       uint32_t salt, size_t mac_bytes)
