/* parity.h - two parity shards over a stripe of data shards: any two lost shards are computed from the others.
 *
 * Words: a *shard* is bytes, thought of as continued by zeros; a *stripe* is up to SA_STRIPE_DATA_MAX data shards D0, D1, ...
 * with P = D0 + D1 + ... and Q = D0 + g D1 + g^2 D2 + ..., in the field GF(256) with the polynomial 0x11D and g = 2.
 *
 *   stripe   | D0 | D1 | ... | Dn-1 | P | Q |       each at most as long as the longest, as P and Q are
 *
 * Invariants (tests/test_parity.py): 1. Lost shards, one or two of any kind, are found again bit for bit.
 *                                    2. The vector way and the portable way agree on every length and factor.
 * Threads: no state beyond constant tables, filled before main code runs. Cost: P is an XOR, 0.1 ns a byte; Q and recovery
 * look up half bytes: 0.15 ns a byte with SSSE3, 1.5 ns without.
 */
#ifndef SA_PARITY_H
#define SA_PARITY_H

#include <stddef.h>
#include <stdint.h>

enum { SA_STRIPE_DATA_MAX = 10 };

/* target += factor * source, over `length` bytes; the second never uses vector instructions. */
void sa_parity_add(uint8_t *target, const uint8_t *source, size_t length, uint8_t factor);
void sa_parity_add_portable(uint8_t *target, const uint8_t *source, size_t length, uint8_t factor);

/* target *= factor. */
void sa_parity_scale(uint8_t *target, size_t length, uint8_t factor);

/* Products, quotients (by what is not 0) and powers of g in the field. */
uint8_t sa_parity_times(uint8_t a, uint8_t b);
uint8_t sa_parity_over(uint8_t a, uint8_t b);
uint8_t sa_parity_power(unsigned exponent);

#endif
