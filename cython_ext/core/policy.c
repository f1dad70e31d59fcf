/* policy.c - see policy.h for the words, the drawing, the invariants and the thread rule. */
#include "policy.h"

#include <stddef.h>

void sa_policy_init(sa_policy *policy) {
    for (unsigned index = 0; index < SA_QUEUE_COUNT; index++) {
        sa_queue *queue = &policy->queues[index];
        queue->head.at.link.next = queue->head.at.link.previous = &queue->head;
        queue->head.queue = SA_QUEUE_SENTINEL;
        queue->head.count = (uint16_t)index;
        queue->bytes = queue->count = 0;
    }
}

sa_policy *sa_policy_of_slow(const sa_cell *cell) {
    while (cell->queue != SA_QUEUE_SENTINEL)
        cell = cell->at.link.next;
    const sa_queue *queue = (const sa_queue *)((const char *)cell - offsetof(sa_queue, head));
    return (sa_policy *)((const char *)(queue - cell->count) - offsetof(sa_policy, queues));
}

void sa_policy_push(sa_policy *policy, sa_cell *cell, unsigned index) {
    sa_queue *queue = &policy->queues[index];
    sa_cell *newest = queue->head.at.link.previous;
    cell->at.link.next = &queue->head;
    cell->at.link.previous = newest;
    newest->at.link.next = cell;
    queue->head.at.link.previous = cell;
    cell->queue = index;
    queue->bytes += sa_charge_bytes(cell->charge);
    queue->count++;
}

void sa_cell_unlink_stray(sa_cell *cell) {
    cell->at.link.previous->at.link.next = cell->at.link.next;
    cell->at.link.next->at.link.previous = cell->at.link.previous;
    cell->at.link.next = cell->at.link.previous = NULL;
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

void sa_policy_admit(sa_policy *policy, sa_cell *cell, int returning) {
    cell->frequency = 0;
    sa_policy_push(policy, cell, returning ? SA_QUEUE_MAIN : SA_QUEUE_SMALL);
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
    return queue->head.at.link.next == &queue->head ? NULL : queue->head.at.link.next;
}

static int small_is_due(const sa_policy *policy) {
    const sa_queue *small = &policy->queues[SA_QUEUE_SMALL], *main = &policy->queues[SA_QUEUE_MAIN];
    if (main->count == 0)
        return 1;
    return small->count > 0 && small->bytes * 100 > (small->bytes + main->bytes) * SA_SMALL_SHARE_PERCENT;
}

sa_cell *sa_policy_victim(sa_policy *policy) {
    for (;;) {
        unsigned from = small_is_due(policy) ? SA_QUEUE_SMALL : SA_QUEUE_MAIN;
        sa_cell *cell = sa_policy_oldest(policy, from);
        if (cell == NULL)
            return NULL;
        sa_policy_remove(policy, cell);
        if (cell->frequency == 0)
            return cell;
        cell->frequency = from == SA_QUEUE_SMALL ? 0 : cell->frequency - 1;
        sa_policy_push(policy, cell, SA_QUEUE_MAIN);
    }
}

void sa_policy_detach_all(sa_policy *policy) {
    for (unsigned index = 0; index < SA_QUEUE_COUNT; index++) {
        sa_queue *queue = &policy->queues[index];
        while (queue->head.at.link.next != &queue->head) {
            sa_cell *cell = queue->head.at.link.next;
            sa_policy_remove(policy, cell);
            cell->state = SA_DETACHED;
        }
    }
}

void sa_policy_resum(sa_policy *policy, unsigned index) {
    sa_queue *queue = &policy->queues[index];
    queue->bytes = queue->count = 0;
    for (const sa_cell *cell = queue->head.at.link.next; cell != &queue->head; cell = cell->at.link.next) {
        queue->bytes += sa_charge_bytes(cell->charge);
        queue->count++;
    }
}

static const char *queue_check(const sa_queue *queue, unsigned index) {
    int64_t bytes = 0, count = 0;
    for (const sa_cell *cell = queue->head.at.link.next; cell != &queue->head; cell = cell->at.link.next) {
        if (cell->queue != index)
            return "a cell is linked in another queue than it names";
        if (cell->at.link.next->at.link.previous != cell)
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
    return NULL;
}
