/* crc32c.h - CRC-32C (Castagnoli), the checksum of every frame and log record.
 *
 * Words: a *lane* is one of three independent checksums that run side by side over neighbouring blocks; a
 * *slice* is one of the eight tables of the portable way, for one byte position of an 8-byte word.
 *
 *   hardware   | block 0 | block 1 | block 2 |     each lane: crc32 instruction, 8 bytes a step
 *                  lane 0    lane 1    lane 2      then lane 0 is shifted over two blocks, lane 1 over one,
 * and the three are XORed: a carry-less product per shift portable   | b0 b1 b2 b3 b4 b5 b6 b7 |         XOR
 * of eight table entries, one slice per byte
 *
 * Invariants (tests/test_crc32c.py checks both):
 *   1. sa_crc32c and sa_crc32c_portable agree on every length, alignment and starting value.
 *   2. sa_crc32c(sa_crc32c(0, a), b) is the checksum of a followed by b; that of "123456789" is 0xE3069283.
 *
 * Threads: no state beyond constant tables; the processor is asked at each call, which is one load.
 * Cost: 0.06 ns a byte (1 KiB) down to 0.04 (64 KiB) in hardware, 0.4 ns portable, on a 2.6 GHz server core.
 */
#ifndef SA_CRC32C_H
#define SA_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continues crc (0 at the start) over length bytes of data. */
uint32_t sa_crc32c(uint32_t crc, const void *data, size_t length);

/* The same value without special instructions. */
uint32_t sa_crc32c_portable(uint32_t crc, const void *data, size_t length);

/* 1 where sa_crc32c uses the crc32 instruction of this processor, else 0. */
int sa_crc32c_is_hardware(void);

#endif
