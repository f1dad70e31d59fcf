/* replay.h - a trace of requests against policy.h, without a dict: who would have missed?
 *
 * Words: a *trace* is a row of object numbers below `object_count`; an object is *resident* while its cell is in a queue.
 *
 *   sa_replay.cells   [ sa_cell 0 | sa_cell 1 | ... ]   one for each object, 32 bytes; payload: the cost, a double
 *
 * Invariants:
 *   1. The sizes of the resident objects never add up to more than the capacity.
 *   2. An object larger than the capacity is never resident.
 *
 * Threads: one at a time for each sa_replay; no Python. Cost: one cell for each object, O(1) amortised for each request.
 */
#ifndef SA_REPLAY_H
#define SA_REPLAY_H

#include "policy.h"

typedef struct sa_replay {
    sa_policy policy;
    sa_cell *cells;
    int64_t object_count;
    const int64_t *sizes; /* of each object; NULL: 1 */
    int64_t capacity;     /* in the unit of the sizes */
    int64_t resident_size, resident_count;
    int64_t requests, misses;
    uint64_t missed_size, missed_size_carries; /* the sum of their sizes, and how often it went beyond 2^64 */
    double missed_cost;
    int64_t epoch_left; /* requests until heat is halved */
    uint8_t epoch;
} sa_replay;

/* Requests for each resident object in which heat halves. */
enum { SA_REPLAY_EPOCH_PER_OBJECT = 16 };

/* The charge of one unit of size, so that objects of size 1 are told apart. */
enum { SA_REPLAY_UNIT_BYTES = SA_CHARGE_UNIT_BYTES };

/* 0, or -1 without memory. `sizes` and `costs` (NULL: as many as the sizes) have object_count numbers. */
int sa_replay_open(sa_replay *replay, int64_t object_count, int64_t capacity, const int64_t *sizes, const double *costs);

/* Set the rules before the first request; they are not copied. */
void sa_replay_set_rules(sa_replay *replay, const sa_rules *rules);

void sa_replay_run(sa_replay *replay, const uint32_t *ids, int64_t count);

/* NULL, or what is wrong. */
const char *sa_replay_check(const sa_replay *replay);

void sa_replay_close(sa_replay *replay);

#endif
