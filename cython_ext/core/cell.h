/* cell.h - the 32 bytes that say where one entry's value lives, what it costs and how much it is used.
 *
 * Words: a *cell* is the state of one dict entry; its *payload* is the value in the form of its state; its *charge* is
 * the RAM that the payload takes; its *heat* is a decayed count of accesses; an *epoch* is the time in which heat halves.
 *
 *   0        8         14      16          24                                28       30      31     32
 *   | payload | next 48 | stamp | previous   | charge 20 state 3 queue 4 ...   | count  | epoch | band |
 *             | frame_bytes 48  | ledger     |  (COLD cells are in no queue)
 *   | digest, 112 bits        | ledger     |  (REGROWN cells neither)
 *
 * A COLD or WARM cell is its own ghost: `stamp` is the moment at which it was a victim, on the clock of the queue that
 * `from_main` names (policy.h). User-space addresses have 48 bits, so the upper 16 of one link are free for it.
 *
 *   state      payload                          queue
 *   HOT        the live object                  WINDOW SMALL MAIN FRESH HELD PINNED KEPT; NONE while looked at
 *   BACKED     a Backed (live object and place) WINDOW SMALL MAIN FRESH HELD
 *   DEPARTING  the Departure that has the value NONE
 *   WARM       the frame, a bytes object        WARM, or NONE while shipping
 *   COLD       the place on disk, 64 bits       NONE
 *   REGROWN    the digest of the value, 64 bits NONE   (and 48 more in next_or_length; the value is a recipe's)
 *   DETACHED   the live object or NULL          NONE   (no longer an entry: deleted, or its dict is gone)
 *
 * In a durable dict the record at the place of a COLD cell may be a recipe: bit 0 of `ledger` is set then.
 *
 * Invariants (Shelf.check walks them all):
 *   1. A cell is linked in exactly the queue that its `queue` names; NONE is not linked.
 *   2. state and queue fit together as in the table above.
 *   3. Every change of state is one of sa_legal_moves.
 *
 * Threads: the GIL protects every field. Cost: a hit is one load, one compare and one store in the cell's cache line.
 */
#ifndef SA_CELL_H
#define SA_CELL_H

#include <assert.h>
#include <stdint.h>

enum {
    SA_HOT = 0,
    SA_BACKED = 1,
    SA_DEPARTING = 2,
    SA_WARM = 3,
    SA_COLD = 4,
    SA_DETACHED = 5,
    SA_REGROWN = 6,
    SA_STATE_COUNT = 7
};

/* States in which the payload is not a reference that the cell owns. */
enum { SA_NOT_OWNING = 1u << SA_DEPARTING | 1u << SA_COLD | 1u << SA_REGROWN };

/* Row: from; bit: to. DEPARTING is the only way down from HOT, so a value is in some tier at every moment. */
static const uint8_t sa_legal_moves[SA_STATE_COUNT] = {
    [SA_HOT] = 1u << SA_DEPARTING | 1u << SA_DETACHED,
    [SA_BACKED] = 1u << SA_HOT | 1u << SA_COLD | 1u << SA_DETACHED,
    [SA_DEPARTING] = 1u << SA_HOT | 1u << SA_WARM | 1u << SA_COLD | 1u << SA_REGROWN | 1u << SA_DETACHED,
    [SA_WARM] = 1u << SA_HOT | 1u << SA_COLD | 1u << SA_REGROWN | 1u << SA_DETACHED,
    [SA_COLD] = 1u << SA_HOT | 1u << SA_BACKED | 1u << SA_WARM | 1u << SA_DETACHED,
    [SA_DETACHED] = 0,
    [SA_REGROWN] = 1u << SA_HOT | 1u << SA_DETACHED,
};

typedef struct sa_cell {
    void *payload; /* owned, but in SA_NOT_OWNING; what it is depends on `state` */
    uint64_t next_or_length : 48; /* linked: the next cell, borrowed; COLD: bytes of the frame on disk; REGROWN: digest */
    uint64_t stamp : 16;          /* ghost: when it was a victim, in 1/256 of a capacity; else its credit (policy.h) */
    union {
        struct sa_cell *previous; /* borrowed: neighbour in the queue */
        void *ledger;             /* borrowed: whose COLD or REGROWN cell it is, for a stray comparison */
    } at;
    uint32_t charge : 20;   /* sa_charge code of the payload's RAM */
    uint32_t state : 3;     /* SA_HOT ... SA_REGROWN */
    uint32_t queue : 4;     /* SA_QUEUE_... of policy.h */
    uint32_t frequency : 2; /* hits since the policy last looked, saturating */
    uint32_t flat : 1;      /* the value is deeply immutable, so its frame never goes stale */
    uint32_t kept : 1;      /* the user pinned it */
    uint32_t from_main : 1; /* ghost: the queue that gave it up, MAIN or SMALL; in MAIN: it was hit since it entered */
    uint16_t count;         /* accesses, halved once an epoch, saturating */
    uint8_t epoch;          /* epoch of the last halving, modulo 256 */
    uint8_t band;           /* band of the heat spectrum at the last look */
} sa_cell;

_Static_assert(sizeof(void *) == 8, "addresses are cut to 48 bits, which user space on 64-bit Linux stays within");
_Static_assert(sizeof(sa_cell) == 32, "the bookkeeping promise of docs/architecture.md counts on 32 bytes");

/* Say that what lies at the place of a COLD cell is a recipe. */
static inline void sa_cell_mark_recipe(sa_cell *cell, void *ledger) { cell->at.ledger = (void *)((uintptr_t)ledger | 1); }

static inline int sa_cell_has_recipe(const sa_cell *cell) {
    return cell->state == SA_COLD && (uintptr_t)cell->at.ledger & 1;
}

static inline sa_cell *sa_cell_next(const sa_cell *cell) { return (sa_cell *)(uintptr_t)cell->next_or_length; }

static inline void sa_cell_set_next(sa_cell *cell, const sa_cell *next) { cell->next_or_length = (uintptr_t)next; }

/* A charge is kept as 15 bits of units and 5 bits of shift, in units of 16 bytes: exact to 2^-14, up to 2^50 bytes;
 * more than that is charged as the largest charge, since a code of more bits would be cut to a small one. Only decoded
 * codes are ever added to a ledger, so rounding cannot make the ledger drift. */
enum { SA_CHARGE_UNIT_BITS = 15, SA_CHARGE_UNIT_BYTES = 16, SA_CHARGE_CODE_MAX = (1 << 20) - 1 };

static inline int64_t sa_charge_bytes(uint32_t code) {
    return ((int64_t)(code & ((1u << SA_CHARGE_UNIT_BITS) - 1)) * SA_CHARGE_UNIT_BYTES) << (code >> SA_CHARGE_UNIT_BITS);
}

static inline uint32_t sa_charge_code(int64_t bytes) {
    uint64_t units = bytes <= 0 ? 0 : ((uint64_t)bytes + SA_CHARGE_UNIT_BYTES - 1) / SA_CHARGE_UNIT_BYTES;
    uint32_t shift = 0;
    while (units >> SA_CHARGE_UNIT_BITS) {
        units = (units + 1) >> 1;
        shift++;
    }
    uint32_t code = shift << SA_CHARGE_UNIT_BITS | (uint32_t)units;
    return code <= SA_CHARGE_CODE_MAX ? code : SA_CHARGE_CODE_MAX;
}

/* Halve the count once for every epoch since the last look. */
static inline void sa_cell_cool(sa_cell *cell, uint8_t epoch_now) {
    uint8_t epochs = (uint8_t)(epoch_now - cell->epoch);
    cell->count = epochs >= 16 ? 0 : (uint16_t)(cell->count >> epochs);
    cell->epoch = epoch_now;
}

/* Record one access: about six instructions, one cache line. */
static inline void sa_cell_hit(sa_cell *cell, uint8_t epoch_now) {
    if (cell->epoch != epoch_now)
        sa_cell_cool(cell, epoch_now);
    if (cell->count != UINT16_MAX)
        cell->count++;
    if (cell->frequency != 3)
        cell->frequency++;
}

static inline int sa_cell_move_is_legal(const sa_cell *cell, unsigned state) {
    return sa_legal_moves[cell->state] >> state & 1;
}

#endif
