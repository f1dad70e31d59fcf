/* replay.c - see replay.h for the words, the drawing, the invariants and the thread rule. */
#include "replay.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(double) <= sizeof(void *), "a cost fits where a payload would be");

static double cost_of(const sa_cell *cell) {
    double cost;
    memcpy(&cost, &cell->payload, sizeof cost);
    return cost;
}

int sa_replay_open(sa_replay *replay, int64_t object_count, int64_t capacity, const int64_t *sizes, const double *costs) {
    memset(replay, 0, sizeof *replay);
    replay->cells = calloc(object_count > 0 ? (size_t)object_count : 1, sizeof *replay->cells);
    if (replay->cells == NULL)
        return -1;
    sa_policy_init(&replay->policy);
    replay->object_count = object_count;
    replay->sizes = sizes;
    replay->capacity = capacity;
    for (int64_t i = 0; costs != NULL && i < object_count; i++)
        memcpy(&replay->cells[i].payload, &costs[i], sizeof *costs);
    replay->policy.cost_of = costs != NULL ? cost_of : NULL;
    return 0;
}

void sa_replay_set_rules(sa_replay *replay, const sa_rules *rules) {
    replay->policy.rules = rules;
    replay->policy.share = rules->share_first;
}

static int64_t size_of(const sa_replay *replay, int64_t object) {
    return replay->sizes == NULL ? 1 : replay->sizes[object];
}

static void tick_slow(sa_replay *replay) {
    replay->epoch++;
    replay->epoch_left = SA_REPLAY_EPOCH_PER_OBJECT * (replay->resident_count + 1);
}

static void miss_slow(sa_replay *replay, sa_cell *cell, int64_t object) {
    int64_t size = size_of(replay, object);
    int is_new = cell->charge == 0;
    replay->misses++;
    replay->missed_size += (uint64_t)size;
    replay->missed_size_carries += replay->missed_size < (uint64_t)size;
    replay->missed_cost += replay->policy.cost_of != NULL ? cost_of(cell) : (double)size;
    if (size > replay->capacity)
        return;
    cell->charge = sa_charge_code(size < INT64_MAX / SA_REPLAY_UNIT_BYTES ? size * SA_REPLAY_UNIT_BYTES : INT64_MAX);
    if (is_new)
        sa_policy_admit(&replay->policy, cell, 0);
    else
        sa_policy_return(&replay->policy, cell);
    replay->resident_size += size;
    replay->resident_count++;
    while (replay->resident_size > replay->capacity) {
        sa_cell *victim = sa_policy_victim(&replay->policy);
        replay->resident_size -= size_of(replay, victim - replay->cells);
        replay->resident_count--;
    }
}

void sa_replay_run(sa_replay *replay, const uint32_t *ids, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        sa_cell *cell = &replay->cells[ids[i]];
        if (--replay->epoch_left < 0)
            tick_slow(replay);
        if (cell->charge == 0)
            cell->epoch = replay->epoch;
        sa_cell_hit(cell, replay->epoch);
        if (cell->queue == SA_QUEUE_NONE)
            miss_slow(replay, cell, ids[i]);
    }
    replay->requests += count;
}

const char *sa_replay_check(const sa_replay *replay) {
    int64_t size = 0, count = 0;
    for (int64_t i = 0; i < replay->object_count; i++)
        if (replay->cells[i].queue != SA_QUEUE_NONE) {
            size += size_of(replay, i);
            count++;
        }
    if (size != replay->resident_size || count != replay->resident_count)
        return "the resident objects are not those that were counted";
    return size > replay->capacity ? "the resident objects are larger than the capacity" : sa_policy_check(&replay->policy);
}

void sa_replay_close(sa_replay *replay) {
    free(replay->cells);
    replay->cells = NULL;
}
