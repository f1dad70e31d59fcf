/* policy.h - who leaves RAM first: lazy queues over bytes that learn how much probation the work at hand rewards.
 *
 * Words: *WINDOW* is where new cells enter: hits there come in bursts and promise nothing, so they are forgotten when a cell
 * goes on to *SMALL*, the probation queue; *MAIN* holds cells that proved themselves. The *young* are WINDOW and SMALL
 * together, the *share* is the part of all three that they may take. *WARM* holds the cells whose frame is in RAM, oldest
 * first; *SHIPPING* those of them whose frame is being written to disk; *FRESH* holds hot cells that the program still
 * reached a moment ago, *HELD* those that it has reached for longer; *PINNED* those that cannot be serialised; *KEPT* those
 * that the user pinned. A *victim* is a hot cell that should leave now. A *ghost* is a WARM or COLD cell: it knows when it was
 * a victim, and from which queue. The *rival* is the cell that MAIN would give up next. The *weight* of a cell is its cost
 * per byte over the mean: 1 where nobody gave costs. A cell's *credit* says how often it still goes round unused.
 *
 *   new --> WINDOW --> SMALL --(hit)--> MAIN --(hit, or credit: once more round)--> MAIN
 *              ^         |                |   ^
 *              |         +---> victim <---+   | a ghost that is read again, not too old, and worth as much as the rival
 *              +-- any other ghost <-- WARM, COLD --+
 *
 * What is learnt: a ghost that SMALL gave up no longer ago than the *margin*, and that a slightly longer SMALL would have kept,
 * makes the share larger; one that MAIN gave up makes it smaller. At rest one more byte is worth the same in both. The
 * *trust* is the part of the worthy ghosts that MAIN lets in: hits of those let in make it larger, misses of those that had
 * to go make it smaller, so that a loop larger than RAM does not wash MAIN out.
 *
 * Invariants (sa_policy_check walks them all, O(cells)):
 *   1. bytes and count of a queue are the sums over its linked cells.
 *   2. Every linked cell names the queue it is linked in; links agree in both directions.
 *   3. Share and trust stay within the rules; clocks are not negative.
 *
 * Threads: the GIL protects everything. Cost: a hit touches no queue (cell.h). Every operation is O(1), a victim amortised
 * O(1): each step of its loop moves a cell on for good, or takes away credit that a hit or an entry has put there.
 * Sources: the queues are those of S3-FIFO (Yang et al., SOSP 2023) and 2Q (Johnson and Shasha, VLDB 1994), the window is that
 * of Clock2Q+, learning from ghosts that of ARC (Megiddo and Modha, FAST 2003) with margins of equal width, the comparison
 * with a rival that of TinyLFU (Einziger et al., ACM TOS 2017), the weight that of GreedyDual-Size-Frequency. docs/policy.md
 * has the figures.
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
    SA_QUEUE_WINDOW = 9,
    SA_QUEUE_COUNT = 10,
    SA_QUEUE_SENTINEL = 15 /* what the head of a queue names; its `count` is the index of the queue */
};

/* The queues whose cells compete, as bits: a write leaves a cell where it is among them. */
enum { SA_ORDINARY_QUEUES = 1u << SA_QUEUE_WINDOW | 1u << SA_QUEUE_SMALL | 1u << SA_QUEUE_MAIN };

/* The queues of live objects. */
enum {
    SA_LIVE_QUEUES = SA_ORDINARY_QUEUES | 1u << SA_QUEUE_FRESH | 1u << SA_QUEUE_HELD | 1u << SA_QUEUE_PINNED | 1u << SA_QUEUE_KEPT
};

typedef struct sa_queue {
    sa_cell head;  /* sentinel: next is the oldest cell, previous the newest */
    int64_t bytes; /* sum of the charges */
    int64_t count; /* number of cells */
} sa_queue;

/* What could be set otherwise. One set serves all work; others are for those who measure what each part is good for. */
typedef struct sa_rules {
    double share_first, share_least, share_most;
    double share_step;      /* times the bytes of the ghost, as a part of the capacity; 0 learns nothing */
    double margin;          /* ghosts up to this age teach, in capacities that their queue gave up since */
    double window_of_young; /* WINDOW takes this part of the share ... */
    double window_most;     /* ... and at most this part of the capacity: bursts do not grow with it */
    double concavity;       /* how far the hits in SMALL must bear out what its ghosts promise; 0: not at all */
    double ghost;           /* up to this age a ghost is recent */
    double trust_step;      /* what a cell that is hit after it was let into MAIN adds to the trust; 0: always trust */
    double trust_loss;      /* a cell that MAIN gave up and that is missed within the margin takes away this part of it */
    double trust_least;
    double rival_slack;     /* a recent ghost may have been used so many times less than the rival */
    double old_factor;      /* an older one must have been used so many times as often */
    double weight_most;     /* weights are cut to this and to its inverse; 1 ignores costs */
    double fill;            /* not 0: the first cells fill MAIN, without probation */
} sa_rules;

extern const sa_rules sa_rules_default;

typedef struct sa_policy {
    sa_queue queues[SA_QUEUE_COUNT]; /* queues[SA_QUEUE_NONE] stays empty */
    const sa_rules *rules;
    double (*cost_of)(const sa_cell *cell); /* what a miss of the cell costs, in any unit; NULL: as many as its bytes */
    double mean_cost, mean_bytes;           /* of the cells that entered lately */
    double share;
    double clocks[2];   /* bytes that SMALL [0] and MAIN [1] gave up, in capacities of their moment */
    double trust, doubt;         /* the part of worthy ghosts let into MAIN; what is put together until one is */
    double small_hits, promises; /* part of the cells leaving SMALL that were hit, or came back within the margin */
    uint32_t fractions; /* credit too small for a round, put together until it is one */
    uint8_t filled;     /* MAIN has been filled for the first time */
    uint64_t steps;     /* cells moved, for those who check the cost */
} sa_policy;

void sa_policy_init(sa_policy *policy);

/* What it takes to bring the value of a cell back from its next tier, in bytes that could be brought back in that time. */
double sa_policy_read_cost(const sa_cell *cell);

/* A cell that is linked nowhere and was never used enters: WINDOW, whatever the pressure. A dozen stores. */
static inline void sa_policy_enter(sa_policy *policy, sa_cell *cell, void *payload, uint32_t charge, uint8_t epoch_now) {
    sa_queue *queue = &policy->queues[SA_QUEUE_WINDOW];
    sa_cell *newest = queue->head.at.previous;
    *cell = (sa_cell){
        .payload = payload,
        .next_or_length = (uintptr_t)&queue->head,
        .at.previous = newest,
        .charge = charge,
        .queue = SA_QUEUE_WINDOW,
        .epoch = epoch_now,
    };
    sa_cell_set_next(newest, cell);
    queue->head.at.previous = cell;
    queue->bytes += sa_charge_bytes(charge);
    queue->count++;
}

/* Append `cell` (linked nowhere) to a queue. */
void sa_policy_push(sa_policy *policy, sa_cell *cell, unsigned queue);

/* Take `cell` out of its queue; nothing happens to a cell in no queue. */
void sa_policy_remove(sa_policy *policy, sa_cell *cell);

/* Take `cell` out of its queue without the totals: for a cell whose dict dropped it behind our back. */
void sa_cell_unlink_stray(sa_cell *cell);

/* A hot cell enters: a new one, or one that is `proven`, since it was in use while it was looked at. */
void sa_policy_admit(sa_policy *policy, sa_cell *cell, int proven);

/* A ghost is used again and enters, its charge and count up to date. */
void sa_policy_return(sa_policy *policy, sa_cell *cell);

/* The value of a cell is replaced: a ghost returns, a cell that was set aside or looked at competes again as a proven one,
 * one that the user pinned stays pinned. */
void sa_policy_renew(sa_policy *policy, sa_cell *cell);

/* The user sends a cell down that was no victim: its return will teach nothing. */
void sa_policy_send_off(sa_policy *policy, sa_cell *cell);

/* Give `cell` a new charge and return the difference in bytes. */
int64_t sa_policy_recharge(sa_policy *policy, sa_cell *cell, int64_t bytes);

/* The hot cell that should leave now, taken out of its queue; NULL when SMALL and MAIN are empty. */
sa_cell *sa_policy_victim(sa_policy *policy);

/* Have the processor fetch the values that are likely to leave next, which have not been used for long. */
static inline void sa_policy_fetch_next(const sa_policy *policy) {
#if defined(__GNUC__)
    __builtin_prefetch(sa_cell_next(&policy->queues[SA_QUEUE_SMALL].head)->payload);
    __builtin_prefetch(sa_cell_next(&policy->queues[SA_QUEUE_MAIN].head)->payload);
#else
    (void)policy;
#endif
}

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
