/* policy_model.h - the queues of policy.h as plain arrays of cell numbers, oldest first, with nothing clever in it.
 *
 * Words: those of policy.h; a *number* stands for a cell; `credit` is what a cell has in its stamp.
 *
 *   order[queue] = [oldest, ..., newest]     count[queue] of them
 *
 * Invariant: a number is in the order of the queue that queue_of names, once, or in none.
 *
 * Threads: one. Cost: O(cells) for every operation. All cells weigh the same: costs are tested on their own.
 */
#ifndef SA_POLICY_MODEL_H
#define SA_POLICY_MODEL_H

#include "policy.h"

#include <string.h>

enum { MODEL_CELLS = 40 };

typedef struct model {
    int order[SA_QUEUE_COUNT][MODEL_CELLS], count[SA_QUEUE_COUNT]; /* numbers of cells, oldest first */
    int queue_of[MODEL_CELLS], frequency[MODEL_CELLS], credit[MODEL_CELLS], from_main[MODEL_CELLS];
    int64_t bytes[MODEL_CELLS];
    double share, clocks[2];
    int filled, fractions;
} model;

static int64_t model_bytes(const model *m, int queue) {
    int64_t sum = 0;
    for (int i = 0; i < m->count[queue]; i++)
        sum += m->bytes[m->order[queue][i]];
    return sum;
}

static void model_push(model *m, int number, int queue) {
    m->order[queue][m->count[queue]++] = number;
    m->queue_of[number] = queue;
}

static void model_remove(model *m, int number) {
    int queue = m->queue_of[number], at = 0;
    if (queue == SA_QUEUE_NONE)
        return;
    while (m->order[queue][at] != number)
        at++;
    memmove(&m->order[queue][at], &m->order[queue][at + 1], sizeof(int) * (size_t)(--m->count[queue] - at));
    m->queue_of[number] = SA_QUEUE_NONE;
}

static double model_young(const model *m) {
    return (double)(model_bytes(m, SA_QUEUE_WINDOW) + model_bytes(m, SA_QUEUE_SMALL));
}

static double model_capacity(const model *m) {
    double bytes = model_young(m) + (double)model_bytes(m, SA_QUEUE_MAIN);
    return bytes > 0 ? bytes : 1;
}

static int model_oldest(const model *m, int queue) { return m->count[queue] ? m->order[queue][0] : -1; }

static int model_oldest_young(const model *m) {
    int number = model_oldest(m, SA_QUEUE_SMALL);
    return number >= 0 ? number : model_oldest(m, SA_QUEUE_WINDOW);
}

static void model_move(model *m, int number, int queue) {
    model_remove(m, number);
    model_push(m, number, queue);
}

static void model_settle(model *m) {
    const sa_rules *rules = &sa_rules_default;
    if (!m->filled) {
        double target = m->share * model_capacity(m);
        for (int left = 32; left > 0 && !m->filled; left--) {
            int number = model_oldest_young(m);
            m->filled = number < 0 || model_young(m) <= target;
            if (!m->filled)
                model_move(m, number, SA_QUEUE_MAIN);
        }
        return;
    }
    double part = m->share * rules->window_of_young < rules->window_most ? m->share * rules->window_of_young : rules->window_most;
    for (int left = 4; left > 0 && (double)model_bytes(m, SA_QUEUE_WINDOW) > part * model_capacity(m); left--) {
        m->frequency[model_oldest(m, SA_QUEUE_WINDOW)] = 0;
        model_move(m, model_oldest(m, SA_QUEUE_WINDOW), SA_QUEUE_SMALL);
    }
}

static int model_give_up(model *m, int number, int from_main) {
    m->clocks[from_main] += (double)m->bytes[number] / model_capacity(m);
    m->from_main[number] = from_main;
    m->credit[number] = (uint16_t)(m->clocks[from_main] * 256); /* from now on: when it left */
    model_remove(m, number);
    return number;
}

/* The number of the victim, or -1. */
static int model_victim(model *m) {
    model_settle(m);
    for (;;) {
        int number = model_oldest(m, SA_QUEUE_MAIN);
        if (number < 0 || (m->filled && model_young(m) > m->share * model_capacity(m))) {
            number = model_oldest_young(m);
            if (number < 0)
                return -1;
            if (m->frequency[number] == 0 || m->queue_of[number] == SA_QUEUE_WINDOW) {
                if (m->credit[number] < 256)
                    return model_give_up(m, number, 0);
                m->credit[number] -= 256;
                model_move(m, number, SA_QUEUE_SMALL);
                continue;
            }
            m->frequency[number] = 0;
            m->from_main[number] = 1;
        } else {
            m->from_main[number] |= m->frequency[number] > 0;
            int credit = m->credit[number] + 256 * m->frequency[number];
            if (m->frequency[number] > 0 && credit > 768)
                credit = m->credit[number] > 768 ? m->credit[number] : 768;
            m->frequency[number] = 0;
            if (credit < 256) {
                m->fractions += credit;
                if (m->fractions < 256)
                    return model_give_up(m, number, 1);
                m->fractions -= 256;
                credit = 256;
            }
            m->credit[number] = credit - 256;
        }
        model_move(m, number, SA_QUEUE_MAIN);
    }
}

#endif
