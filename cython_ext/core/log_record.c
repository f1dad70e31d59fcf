/* log_record.c - see log_record.h for the words, the layout and the invariants. */
#include "log_record.h"

#include <string.h>

#include "crc32c.h"

enum { FRAME_BITS = 48, KIND_SHIFT = 48, FLAGS_SHIFT = 56 };

static const uint64_t frame_mask = ((uint64_t)1 << FRAME_BITS) - 1;

static uint32_t get32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t get64(const uint8_t *at) {
    return (uint64_t)get32(at) | (uint64_t)get32(at + 4) << 32;
}

static void put32(uint8_t *at, uint32_t value) {
    for (int index = 0; index < 4; index++)
        at[index] = (uint8_t)(value >> (8 * index));
}

static void put64(uint8_t *at, uint64_t value) {
    put32(at, (uint32_t)value);
    put32(at + 4, (uint32_t)(value >> 32));
}

static uint32_t head_crc(const uint8_t *head, uint64_t offset, uint32_t salt) {
    uint8_t place[8];
    put64(place, offset);
    return sa_crc32c(sa_crc32c(salt, place, sizeof place), head + 4, SA_LOG_HEAD_BYTES - 4);
}

uint32_t sa_log_salt(const uint8_t log_id[16], uint64_t segment) {
    uint8_t number[8];
    put64(number, segment);
    return sa_crc32c(sa_crc32c(0, log_id, 16), number, sizeof number);
}

uint64_t sa_log_record_bytes(const sa_log_record *record, size_t mac_bytes) {
    uint64_t bytes = SA_LOG_HEAD_BYTES + record->frame_bytes + record->key_bytes + mac_bytes;
    return (bytes + SA_LOG_ALIGN_BYTES - 1) / SA_LOG_ALIGN_BYTES * SA_LOG_ALIGN_BYTES;
}

void sa_log_write_head(uint8_t out[SA_LOG_HEAD_BYTES], const sa_log_record *record, uint32_t salt) {
    put32(out + 4, record->frame_crc);
    put32(out + 8, record->key_crc);
    put32(out + 12, record->unsettled);
    put64(out + 16, record->sequence);
    put64(out + 24, record->birth);
    put64(out + 32, (record->frame_bytes & frame_mask) | (uint64_t)record->kind << KIND_SHIFT |
                        (uint64_t)record->flags << FLAGS_SHIFT);
    put32(out + 40, record->key_bytes);
    put32(out + 44, 0);
    put32(out, head_crc(out, record->offset, salt));
}

static int head_is_good(const uint8_t *head, uint64_t offset, uint64_t file_bytes, uint32_t salt, size_t mac_bytes,
                        sa_log_record *record) {
    /* A look at the reserved bytes costs less than a checksum: most positions of a search end here. */
    if (get32(head + 44) != 0 || get32(head) != head_crc(head, offset, salt))
        return 0;
    record->offset = offset;
    record->frame_crc = get32(head + 4);
    record->key_crc = get32(head + 8);
    record->unsettled = get32(head + 12);
    record->sequence = get64(head + 16);
    record->birth = get64(head + 24);
    record->frame_bytes = get64(head + 32) & frame_mask;
    record->kind = (uint8_t)(get64(head + 32) >> KIND_SHIFT);
    record->flags = (uint8_t)(get64(head + 32) >> FLAGS_SHIFT);
    record->key_bytes = get32(head + 40);
    return sa_log_record_bytes(record, mac_bytes) <= file_bytes - offset;
}

sa_log_status sa_log_read(const uint8_t *data, size_t available, uint64_t offset, uint64_t file_bytes, uint32_t salt,
                          size_t mac_bytes, int check_bodies, sa_log_record *record) {
    if (file_bytes < offset || file_bytes - offset < SA_LOG_HEAD_BYTES)
        return SA_LOG_BAD_HEAD;
    if (available < SA_LOG_HEAD_BYTES) {
        memset(record, 0, sizeof *record);
        return SA_LOG_SHORT;
    }
    if (!head_is_good(data, offset, file_bytes, salt, mac_bytes, record))
        return SA_LOG_BAD_HEAD;
    if (!check_bodies)
        return SA_LOG_GOOD;
    if (sa_log_record_bytes(record, mac_bytes) > available)
        return SA_LOG_SHORT;
    const uint8_t *frame = data + SA_LOG_HEAD_BYTES, *key = frame + record->frame_bytes;
    if (sa_crc32c(0, key, record->key_bytes) != record->key_crc)
        return SA_LOG_BAD_KEY;
    return sa_crc32c(0, frame, record->frame_bytes) == record->frame_crc ? SA_LOG_GOOD : SA_LOG_BAD_FRAME;
}

size_t sa_log_find(const uint8_t *data, size_t available, size_t start, uint64_t offset, uint64_t file_bytes,
                   uint32_t salt, size_t mac_bytes) {
    sa_log_record record;
    size_t at = (start + SA_LOG_ALIGN_BYTES - 1) / SA_LOG_ALIGN_BYTES * SA_LOG_ALIGN_BYTES;
    for (; at + SA_LOG_HEAD_BYTES <= available; at += SA_LOG_ALIGN_BYTES)
        if (head_is_good(data + at, offset + at, file_bytes, salt, mac_bytes, &record))
            return at;
    return available;
}
