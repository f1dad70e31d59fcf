/* policy.h - who leaves RAM first: S3-FIFO over bytes, with the compressed tier as its ghost list.
 *
 * Words: *SMALL* is the probation queue, where new cells go; *MAIN* holds cells that were hit; *WARM* holds the cells whose
 * frame is in RAM, oldest first; *SHIPPING* those of them whose frame is being written to disk; *FRESH* holds hot cells
 * that the program still reached a moment ago, *HELD* those that it has reached for longer; *PINNED* those that cannot be
 * serialised; *KEPT* those that the user pinned. A *victim* is a hot cell that should leave now.
 *
 *   new --> SMALL --(hit)--> MAIN --(hit: once more round)--> MAIN
 *             |                |
 *             +----> victim <--+          a WARM cell that is read again enters MAIN: it would have been a ghost hit
 *
 * Invariants (sa_policy_check walks them all, O(cells)):
 *   1. bytes and count of a queue are the sums over its linked cells.
 *   2. Every linked cell names the queue it is linked in; links agree in both directions.
 *
 * Threads: the GIL protects everything. Cost: every operation O(1), a victim amortised O(1): each step of its loop
 * takes away one unit of frequency that a hit has put there.
 * Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.
 */
#ifndef SA_POLICY_H
#define SA_POLICY_H

#include "cell.h"

enum {
    SA_QUEUE_NONE = 0,
    SA_QUEUE_SMALL = 1,
    SA_QUEUE_MAIN = 2,
    SA_QUEUE_WARM = 3,
    SA_QUEUE_HELD = 4,
    SA_QUEUE_PINNED = 5,
    SA_QUEUE_KEPT = 6,
    SA_QUEUE_SHIPPING = 7,
    SA_QUEUE_FRESH = 8,
    SA_QUEUE_COUNT = 9,
    SA_QUEUE_SENTINEL = 15 /* what the head of a queue names; its `count` is the index of the queue */
};

/* SMALL is drained first while it holds more than this part of the bytes of SMALL and MAIN. */
enum { SA_SMALL_SHARE_PERCENT = 10 };

typedef struct sa_queue {
    sa_cell head;  /* sentinel: next is the oldest cell, previous the newest */
    int64_t bytes; /* sum of the charges */
    int64_t count; /* number of cells */
} sa_queue;

typedef struct sa_policy {
    sa_queue queues[SA_QUEUE_COUNT]; /* queues[SA_QUEUE_NONE] stays empty */
} sa_policy;

void sa_policy_init(sa_policy *policy);

/* Append `cell` (linked nowhere) to a queue. */
void sa_policy_push(sa_policy *policy, sa_cell *cell, unsigned queue);

/* Take `cell` out of its queue; nothing happens to a cell in no queue. */
void sa_policy_remove(sa_policy *policy, sa_cell *cell);

/* Take `cell` out of its queue without the totals: for a cell whose dict dropped it behind our back. */
void sa_cell_unlink_stray(sa_cell *cell);

/* A hot cell enters: `returning` when it was in RAM or on disk before and has been read again. */
void sa_policy_admit(sa_policy *policy, sa_cell *cell, int returning);

/* Give `cell` a new charge and return the difference in bytes. */
int64_t sa_policy_recharge(sa_policy *policy, sa_cell *cell, int64_t bytes);

/* The hot cell that should leave now, taken out of its queue; NULL when SMALL and MAIN are empty. */
sa_cell *sa_policy_victim(sa_policy *policy);

/* The oldest cell of a queue, or NULL. It stays linked. */
sa_cell *sa_policy_oldest(const sa_policy *policy, unsigned queue);

/* Take the totals of a queue from its links, after cells were unlinked as strays. O(cells). */
void sa_policy_resum(sa_policy *policy, unsigned queue);

/* Unlink every cell, oldest first, and mark it detached. */
void sa_policy_detach_all(sa_policy *policy);

/* The policy whose queue `cell` is linked in. O(cells of the queue): only for stray look-ups. */
sa_policy *sa_policy_of_slow(const sa_cell *cell);

/* NULL, or what is wrong. */
const char *sa_policy_check(const sa_policy *policy);

#endif
