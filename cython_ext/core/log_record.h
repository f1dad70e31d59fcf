/* log_record.h - one record of the log: its 48 byte head, and the walk over a piece of a segment.
 *
 * Words: a *record* is a head, a frame, a key and sometimes a MAC, padded to 8 bytes; a *salt* is what the checksum of a
 * head begins with: it depends on the log and the segment, so that a copy of a record elsewhere is no record.
 *
 *    0          4           8         12          16        24      32                    40          44
 *   | head crc | frame crc | key crc | unsettled | sequence | birth | frame bytes 48      | key bytes | 0 |
 *                                                                   | kind 8 | flags 8    |
 *   48                48 + frame bytes      + key bytes     + MAC        up to a multiple of 8
 *   | frame ...       | key ...             | MAC ...       | zeros |
 *
 * The head crc covers the offset of the record and bytes 4 to 47. All numbers are little-endian.
 *
 * Invariants (sa_log_read refuses a record that breaks one):
 *   1. The head crc is right, the reserved bytes are 0, and the record ends within its file.
 *   2. Then lengths and kind are as they were written, so damage in key or frame does not lose the next record.
 *
 * Threads: no state. Cost: one checksum over the bytes of the record, about 20 ns and 0.1 ns a byte.
 */
#ifndef SA_LOG_RECORD_H
#define SA_LOG_RECORD_H

#include <stddef.h>
#include <stdint.h>

enum { SA_LOG_HEAD_BYTES = 48, SA_LOG_ALIGN_BYTES = 8 };

typedef struct sa_log_record {
    uint64_t offset;      /* of the head, in its segment */
    uint64_t sequence;
    uint64_t birth;       /* sequence of the record that first made the key, since it was last absent */
    uint64_t frame_bytes;
    uint32_t key_bytes;
    uint32_t unsettled;   /* bytes before this record that no fsync had covered when it was written */
    uint32_t frame_crc;
    uint32_t key_crc;
    uint8_t kind;
    uint8_t flags;
} sa_log_record;

typedef enum sa_log_status {
    SA_LOG_GOOD = 0,
    SA_LOG_SHORT = 1,     /* the head is good, but the record ends after the bytes given */
    SA_LOG_BAD_HEAD = 2,  /* no record here */
    SA_LOG_BAD_KEY = 3,   /* the head is good, the key is damaged */
    SA_LOG_BAD_FRAME = 4  /* head and key are good, the frame is damaged */
} sa_log_status;

/* What the checksums of the heads of one segment begin with. */
uint32_t sa_log_salt(const uint8_t log_id[16], uint64_t segment);

/* Bytes of a record in its file. */
uint64_t sa_log_record_bytes(const sa_log_record *record, size_t mac_bytes);

/* Write a head; the checksums of frame and key are taken from `record`. */
void sa_log_write_head(uint8_t out[SA_LOG_HEAD_BYTES], const sa_log_record *record, uint32_t salt);

/* Read the record at `data`, which lies at `offset` of a file of `file_bytes`; `available` bytes are at hand. With
 * `check_bodies` 0 only the head is looked at. The fields are valid unless SA_LOG_BAD_HEAD is returned. */
sa_log_status sa_log_read(const uint8_t *data, size_t available, uint64_t offset, uint64_t file_bytes, uint32_t salt,
                          size_t mac_bytes, int check_bodies, sa_log_record *record);

/* The first position from `start` on, a multiple of 8, at which a good head lies; `available` if there is none. */
size_t sa_log_find(const uint8_t *data, size_t available, size_t start, uint64_t offset, uint64_t file_bytes,
                   uint32_t salt, size_t mac_bytes);

#endif
