/* policy.c - see policy.h for the words, the drawing, the invariants and the thread rule. */
#include "policy.h"

#include <stddef.h>

/* Round numbers on a plateau: benchmarks/policy.py prints what other values give. */
const sa_rules sa_rules_default = {
    .share_first = 0.2,
    .share_least = 0.05,
    .share_most = 0.95,
    .share_step = 2,
    .margin = 0.3,
    .window_of_young = 0.5,
    .window_most = 0.05,
    .concavity = 0.5,
    .ghost = 0.7,
    .trust_step = 0.02,
    .trust_loss = 0.35,
    .trust_least = 0.03,
    .rival_slack = 1,
    .old_factor = 2,
    .weight_most = 32,
    .fill = 1,
};

enum {
    STAMPS_PER_CAPACITY = 256, /* 16 bits of them: one in 256 of the ghosts older than 256 capacities looks recent */
    STAMP_OLD = 1 << 15,       /* as old as a ghost can look */
    ROUND = 256,               /* credit for one round */
    HITS_MOST = 3,             /* what sa_cell.frequency counts to */
    RIVAL_STEPS = 16,
    FILL_STEPS = 32,
    WINDOW_STEPS = 4,
    READ_FIXED_BYTES = 4096, /* a read costs some 3 us whatever the size, and about 0.7 ns a byte more */
    MEAN_OF = 256, /* cells that the means of costs look back */
    LOOK_BACK = 100, /* ... and what is counted of cells that leave SMALL */
};

void sa_policy_init(sa_policy *policy) {
    for (unsigned index = 0; index < SA_QUEUE_COUNT; index++) {
        sa_queue *queue = &policy->queues[index];
        sa_cell_set_next(&queue->head, &queue->head);
        queue->head.at.previous = &queue->head;
        queue->head.queue = SA_QUEUE_SENTINEL;
        queue->head.count = (uint16_t)index;
        queue->bytes = queue->count = 0;
    }
    policy->rules = &sa_rules_default;
    policy->cost_of = NULL;
    policy->mean_cost = policy->mean_bytes = 0;
    policy->share = policy->rules->share_first;
    policy->clocks[0] = policy->clocks[1] = 0;
    policy->trust = 1;
    policy->doubt = 0;
    policy->small_hits = policy->promises = 0;
    policy->fractions = 0;
    policy->filled = 0;
    policy->steps = 0;
}

sa_policy *sa_policy_of_slow(const sa_cell *cell) {
    while (cell->queue != SA_QUEUE_SENTINEL)
        cell = sa_cell_next(cell);
    const sa_queue *queue = (const sa_queue *)((const char *)cell - offsetof(sa_queue, head));
    return (sa_policy *)((const char *)(queue - cell->count) - offsetof(sa_policy, queues));
}

void sa_policy_push(sa_policy *policy, sa_cell *cell, unsigned index) {
    sa_queue *queue = &policy->queues[index];
    sa_cell *newest = queue->head.at.previous;
    sa_cell_set_next(cell, &queue->head);
    cell->at.previous = newest;
    sa_cell_set_next(newest, cell);
    queue->head.at.previous = cell;
    cell->queue = index;
    queue->bytes += sa_charge_bytes(cell->charge);
    queue->count++;
}

void sa_cell_unlink_stray(sa_cell *cell) {
    sa_cell *next = sa_cell_next(cell);
    sa_cell_set_next(cell->at.previous, next);
    next->at.previous = cell->at.previous;
    sa_cell_set_next(cell, NULL);
    cell->at.previous = NULL;
    cell->queue = SA_QUEUE_NONE;
}

void sa_policy_remove(sa_policy *policy, sa_cell *cell) {
    if (cell->queue == SA_QUEUE_NONE)
        return;
    sa_queue *queue = &policy->queues[cell->queue];
    queue->bytes -= sa_charge_bytes(cell->charge);
    queue->count--;
    sa_cell_unlink_stray(cell);
}

int64_t sa_policy_recharge(sa_policy *policy, sa_cell *cell, int64_t bytes) {
    int64_t before = sa_charge_bytes(cell->charge);
    cell->charge = sa_charge_code(bytes);
    int64_t difference = sa_charge_bytes(cell->charge) - before;
    policy->queues[cell->queue].bytes += cell->queue == SA_QUEUE_NONE ? 0 : difference;
    return difference;
}

sa_cell *sa_policy_oldest(const sa_policy *policy, unsigned index) {
    const sa_queue *queue = &policy->queues[index];
    sa_cell *oldest = sa_cell_next(&queue->head);
    return oldest == &queue->head ? NULL : oldest;
}

static int64_t bytes_of(const sa_policy *policy, unsigned queue) { return policy->queues[queue].bytes; }

static int64_t young_bytes(const sa_policy *policy) {
    return bytes_of(policy, SA_QUEUE_WINDOW) + bytes_of(policy, SA_QUEUE_SMALL);
}

/* The bytes that compete for room, and at least 1 to divide by: the capacity, whenever there are victims. */
static int64_t capacity_bytes(const sa_policy *policy) {
    int64_t bytes = young_bytes(policy) + bytes_of(policy, SA_QUEUE_MAIN);
    return bytes > 0 ? bytes : 1;
}

static void pass_on(sa_policy *policy, sa_cell *cell, unsigned queue) {
    sa_policy_remove(policy, cell);
    sa_policy_push(policy, cell, queue);
    policy->steps++;
}

static sa_cell *oldest_young(const sa_policy *policy) {
    sa_cell *cell = sa_policy_oldest(policy, SA_QUEUE_SMALL);
    return cell != NULL ? cell : sa_policy_oldest(policy, SA_QUEUE_WINDOW);
}

static double bytes_to_divide_by(const sa_cell *cell) {
    int64_t bytes = sa_charge_bytes(cell->charge);
    return bytes > SA_CHARGE_UNIT_BYTES ? (double)bytes : SA_CHARGE_UNIT_BYTES;
}

double sa_policy_read_cost(const sa_cell *cell) {
    return READ_FIXED_BYTES + (double)sa_charge_bytes(cell->charge);
}

static double weight_of(const sa_policy *policy, const sa_cell *cell) {
    if (policy->cost_of == NULL || policy->mean_cost <= 0)
        return 1;
    double weight = policy->cost_of(cell) / bytes_to_divide_by(cell) * (policy->mean_bytes / policy->mean_cost);
    double most = policy->rules->weight_most;
    return weight > most ? most : weight * most < 1 ? 1 / most : weight;
}

/* A cell comes to SMALL or MAIN: whoever weighs more than most may go round unused more often. */
static void give_credit(sa_policy *policy, sa_cell *cell) {
    if (policy->cost_of == NULL)
        return;
    double part = policy->mean_bytes > 0 ? 1.0 / MEAN_OF : 1;
    policy->mean_bytes += part * (bytes_to_divide_by(cell) - policy->mean_bytes);
    policy->mean_cost += part * (policy->cost_of(cell) - policy->mean_cost);
    double weight = weight_of(policy, cell);
    cell->stamp = weight > 1 ? (uint16_t)((weight - 1) * ROUND) : 0;
}

/* Nothing is weighed at the entry to WINDOW: what is never under pressure should not pay for it. */
void sa_policy_admit(sa_policy *policy, sa_cell *cell, int proven) {
    cell->frequency = 0;
    cell->from_main = 0;
    cell->stamp = 0;
    if (proven)
        give_credit(policy, cell);
    sa_policy_push(policy, cell, proven ? SA_QUEUE_MAIN : SA_QUEUE_WINDOW);
}

static double within(double value, double least, double most) {
    return value < least ? least : value > most ? most : value;
}

static void change_trust(sa_policy *policy, double steps) {
    double trust = policy->trust + steps * policy->rules->trust_step;
    policy->trust = within(trust, policy->rules->trust_least, 1);
}

/* Pay for one more round with what hits have earned since the last one; false if that is not enough. */
static int pays_a_round(sa_policy *policy, sa_cell *cell) {
    if (cell->frequency > 0 && !cell->from_main) {
        cell->from_main = 1; /* in use since it was let in: counted once */
        change_trust(policy, 1);
    }
    double weight = cell->frequency > 0 ? weight_of(policy, cell) : 1;
    uint32_t credit = cell->stamp + (uint32_t)(cell->frequency * weight * ROUND);
    uint32_t most = (uint32_t)(HITS_MOST * weight * ROUND);
    if (cell->frequency > 0 && credit > most)
        credit = most > cell->stamp ? most : cell->stamp;
    cell->frequency = 0;
    if (credit < ROUND) {
        policy->fractions += credit;
        credit = 0;
        if (policy->fractions < ROUND) {
            cell->stamp = 0;
            return 0;
        }
        policy->fractions -= ROUND;
        credit = ROUND;
    }
    cell->stamp = (uint16_t)(credit - ROUND);
    return 1;
}

/* Before there was a victim nothing was on probation: the oldest cells are MAIN. So a loop larger than the capacity finds a
 * MAIN that lasts. A bounded number of cells each time, so that no call is long. */
static void fill_main_slow(sa_policy *policy) {
    double young_target = policy->share * (double)capacity_bytes(policy);
    for (int left = FILL_STEPS; left > 0 && !policy->filled; left--) {
        sa_cell *cell = oldest_young(policy);
        policy->filled = policy->rules->fill == 0 || cell == NULL || (double)young_bytes(policy) <= young_target;
        if (!policy->filled) {
            give_credit(policy, cell);
            pass_on(policy, cell, SA_QUEUE_MAIN);
        }
    }
}

static void trim_window(sa_policy *policy) {
    double part = policy->share * policy->rules->window_of_young;
    double target = (part < policy->rules->window_most ? part : policy->rules->window_most) * (double)capacity_bytes(policy);
    for (int left = WINDOW_STEPS; left > 0 && (double)bytes_of(policy, SA_QUEUE_WINDOW) > target; left--) {
        sa_cell *cell = sa_policy_oldest(policy, SA_QUEUE_WINDOW);
        cell->frequency = 0;
        give_credit(policy, cell);
        pass_on(policy, cell, SA_QUEUE_SMALL);
    }
}

static uint16_t stamp_of_now(const sa_policy *policy, int from_main) {
    return (uint16_t)(uint64_t)(policy->clocks[from_main] * STAMPS_PER_CAPACITY);
}

/* Take a victim out and let it remember when and where it was one. */
static sa_cell *give_up(sa_policy *policy, sa_cell *cell, int from_main) {
    policy->clocks[from_main] += (double)sa_charge_bytes(cell->charge) / (double)capacity_bytes(policy);
    cell->from_main = (unsigned)from_main;
    cell->stamp = stamp_of_now(policy, from_main);
    sa_policy_remove(policy, cell);
    return cell;
}

sa_cell *sa_policy_victim(sa_policy *policy) {
    if (!policy->filled)
        fill_main_slow(policy);
    else
        trim_window(policy);
    for (;;) {
        sa_cell *cell = sa_policy_oldest(policy, SA_QUEUE_MAIN);
        double young_target = policy->share * (double)capacity_bytes(policy);
        if (cell == NULL || (policy->filled && (double)young_bytes(policy) > young_target)) {
            cell = oldest_young(policy);
            if (cell == NULL)
                return NULL;
            if (cell->frequency > 0 && cell->queue == SA_QUEUE_SMALL) {
                cell->frequency = 0;
                cell->from_main = 1;
                policy->small_hits += (1 - policy->small_hits) / LOOK_BACK;
                pass_on(policy, cell, SA_QUEUE_MAIN);
            } else if (cell->stamp >= ROUND) {
                cell->stamp -= ROUND;
                pass_on(policy, cell, SA_QUEUE_SMALL);
            } else {
                policy->small_hits -= policy->small_hits / LOOK_BACK;
                policy->promises -= policy->promises / LOOK_BACK;
                return give_up(policy, cell, 0);
            }
        } else if (pays_a_round(policy, cell)) {
            pass_on(policy, cell, SA_QUEUE_MAIN);
        } else {
            return give_up(policy, cell, 1);
        }
    }
}

void sa_policy_send_off(sa_policy *policy, sa_cell *cell) {
    cell->from_main = 0;
    cell->stamp = (uint16_t)(stamp_of_now(policy, 0) + STAMP_OLD);
}

/* The cell that MAIN would give up next, or NULL; cells with credit go round, a bounded number of them. */
static sa_cell *rival_of(sa_policy *policy) {
    sa_cell *cell = sa_policy_oldest(policy, SA_QUEUE_MAIN);
    for (int left = RIVAL_STEPS; left > 0 && cell != NULL && pays_a_round(policy, cell); left--) {
        pass_on(policy, cell, SA_QUEUE_MAIN);
        cell = sa_policy_oldest(policy, SA_QUEUE_MAIN);
    }
    return cell;
}

/* A ghost near the end of its queue: that queue should have been longer, by as much as the ghost takes. But where SMALL is
 * hit less than its ghosts promise for the next bytes, more bytes gain no more hits: so it is in a loop. */
static void learn(sa_policy *policy, const sa_cell *ghost) {
    const sa_rules *rules = policy->rules;
    double step = rules->share_step * (double)sa_charge_bytes(ghost->charge) / (double)capacity_bytes(policy);
    if (ghost->from_main) {
        change_trust(policy, -rules->trust_loss);
        step = -step;
    } else {
        policy->promises += 1.0 / LOOK_BACK;
        double borne_out = rules->concavity * policy->promises * policy->share / rules->margin;
        if (policy->small_hits < borne_out)
            step *= policy->small_hits / borne_out;
    }
    policy->share = within(policy->share + step, rules->share_least, rules->share_most);
}

/* Is it the turn of a worthy ghost to be let in? */
static int is_trusted(sa_policy *policy) {
    policy->doubt += policy->trust;
    if (policy->doubt < 1)
        return 0;
    policy->doubt -= 1;
    return 1;
}

/* Has a ghost been of as much use as the cell that would leave for it? */
static int is_worthy(sa_policy *policy, const sa_cell *ghost, sa_cell *rival, int is_recent) {
    sa_cell_cool(rival, ghost->epoch);
    double own = ghost->count * weight_of(policy, ghost), other = rival->count * weight_of(policy, rival);
    const sa_rules *rules = policy->rules;
    return is_recent ? own + rules->rival_slack >= other : own > rules->old_factor * other + 1;
}

void sa_policy_return(sa_policy *policy, sa_cell *cell) {
    double age = (uint16_t)(stamp_of_now(policy, cell->from_main) - cell->stamp) / (double)STAMPS_PER_CAPACITY;
    if (age < policy->rules->margin)
        learn(policy, cell);
    int is_recent = age < policy->rules->ghost;
    sa_cell *rival = policy->filled ? rival_of(policy) : NULL;
    int worthy = rival != NULL && is_worthy(policy, cell, rival, is_recent) && (!is_recent || is_trusted(policy));
    sa_policy_admit(policy, cell, worthy);
}

void sa_policy_renew(sa_policy *policy, sa_cell *cell) {
    unsigned queue = cell->queue;
    if (queue == SA_QUEUE_KEPT)
        return;
    sa_policy_remove(policy, cell);
    if (queue == SA_QUEUE_NONE || queue == SA_QUEUE_WARM || queue == SA_QUEUE_SHIPPING)
        sa_policy_return(policy, cell);
    else
        sa_policy_admit(policy, cell, 1);
}

void sa_policy_detach_all(sa_policy *policy) {
    for (unsigned index = 0; index < SA_QUEUE_COUNT; index++) {
        sa_queue *queue = &policy->queues[index];
        for (sa_cell *cell = sa_cell_next(&queue->head), *next; cell != &queue->head; cell = next) {
            next = sa_cell_next(cell);
            sa_cell_set_next(cell, NULL);
            cell->at.previous = NULL;
            cell->state = SA_DETACHED;
            cell->queue = SA_QUEUE_NONE;
        }
        sa_cell_set_next(&queue->head, &queue->head);
        queue->head.at.previous = &queue->head;
        queue->bytes = queue->count = 0;
    }
}

void sa_policy_resum(sa_policy *policy, unsigned index) {
    sa_queue *queue = &policy->queues[index];
    queue->bytes = queue->count = 0;
    for (const sa_cell *cell = sa_cell_next(&queue->head); cell != &queue->head; cell = sa_cell_next(cell)) {
        queue->bytes += sa_charge_bytes(cell->charge);
        queue->count++;
    }
}

static const char *queue_check(const sa_queue *queue, unsigned index) {
    int64_t bytes = 0, count = 0;
    for (const sa_cell *cell = sa_cell_next(&queue->head); cell != &queue->head; cell = sa_cell_next(cell)) {
        if (cell->queue != index)
            return "a cell is linked in another queue than it names";
        if (sa_cell_next(cell)->at.previous != cell)
            return "the links of a queue disagree";
        if (++count > queue->count)
            return "a queue holds more cells than it counts";
        bytes += sa_charge_bytes(cell->charge);
    }
    if (count != queue->count)
        return "a queue counts more cells than it holds";
    return bytes == queue->bytes ? NULL : "the bytes of a queue are not the sum of its charges";
}

const char *sa_policy_check(const sa_policy *policy) {
    for (unsigned index = 0; index < SA_QUEUE_COUNT; index++) {
        const char *wrong = queue_check(&policy->queues[index], index);
        if (wrong != NULL)
            return wrong;
    }
    if (policy->share < policy->rules->share_least || policy->share > policy->rules->share_most)
        return "the share is outside its rules";
    if (policy->trust < policy->rules->trust_least || policy->trust > 1)
        return "the trust is outside its rules";
    return policy->clocks[0] >= 0 && policy->clocks[1] >= 0 ? NULL : "a clock is negative";
}
