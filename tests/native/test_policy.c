/* test_policy.c - the tests of policy.c and cell.h that need no Python; tests/test_native.py compiles and runs them.
 *
 * The model that random operations are compared with is in policy_model.h.
 *
 *   test_policy --list      the names of the tests
 *   test_policy NAME        runs one of them; the exit status is 0, or 1 after a line that says what does not hold
 *
 * Threads: one. Cost: the longest test is the random one, some tenths of a second with the sanitizers on.
 */
#include "policy.h"
#include "policy_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            printf("%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);        \
            exit(1);                                                                     \
        }                                                                                \
    } while (0)

#define CHECK_SOUND(policy) CHECK(sa_policy_check(policy) == NULL)
#define CHECK_SAYS(policy, text) CHECK(sa_policy_check(policy) != NULL && strstr(sa_policy_check(policy), text) != NULL)

static const unsigned ALL_QUEUES[] = {SA_QUEUE_SMALL, SA_QUEUE_MAIN,     SA_QUEUE_WARM, SA_QUEUE_HELD,
                                      SA_QUEUE_PINNED, SA_QUEUE_KEPT, SA_QUEUE_SHIPPING, SA_QUEUE_FRESH,
                                      SA_QUEUE_WINDOW};
enum { QUEUES = sizeof ALL_QUEUES / sizeof *ALL_QUEUES };

static uint64_t random_state;

/* xorshift64*: the same numbers on every machine, so that a failure can be repeated. */
static uint64_t random_below(uint64_t limit) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (random_state * 0x2545F4914F6CDD1Dull >> 11) % limit;
}

static sa_cell cell_of(int64_t bytes) {
    sa_cell cell = {.charge = sa_charge_code(bytes), .state = SA_HOT, .queue = SA_QUEUE_NONE};
    return cell;
}

static int64_t bytes_in(const sa_policy *policy, unsigned queue) { return policy->queues[queue].bytes; }

/* --- queues ---------------------------------------------------------------------------------------------------- */

static void queues_keep_order_and_totals(void) {
    sa_policy policy;
    sa_policy_init(&policy);
    CHECK_SOUND(&policy);
    for (unsigned at = 0; at < QUEUES; at++) {
        unsigned queue = ALL_QUEUES[at];
        sa_cell cells[3] = {cell_of(160), cell_of(320), cell_of(640)};
        CHECK(sa_policy_oldest(&policy, queue) == NULL);
        for (int i = 0; i < 3; i++) {
            sa_policy_push(&policy, &cells[i], queue);
            CHECK(cells[i].queue == queue && sa_policy_of_slow(&cells[i]) == &policy);
            CHECK_SOUND(&policy);
        }
        CHECK(sa_policy_oldest(&policy, queue) == &cells[0]);
        CHECK(policy.queues[queue].count == 3 && bytes_in(&policy, queue) == 1120);
        sa_policy_remove(&policy, &cells[1]);
        CHECK(cells[1].queue == SA_QUEUE_NONE && sa_cell_next(&cells[0]) == &cells[2]);
        sa_policy_remove(&policy, &cells[1]); /* in no queue: nothing happens */
        CHECK(policy.queues[queue].count == 2 && bytes_in(&policy, queue) == 800);
        sa_policy_remove(&policy, &cells[0]);
        CHECK(sa_policy_oldest(&policy, queue) == &cells[2]);
        sa_policy_remove(&policy, &cells[2]);
        CHECK(policy.queues[queue].count == 0 && bytes_in(&policy, queue) == 0);
        CHECK_SOUND(&policy);
    }
}

static void admit_sends_newcomers_to_the_window_and_proven_ones_to_main(void) {
    sa_policy policy;
    sa_cell newcomer = cell_of(16), proven = cell_of(16);
    sa_policy_init(&policy);
    newcomer.frequency = proven.frequency = 3;
    sa_policy_admit(&policy, &newcomer, 0);
    sa_policy_admit(&policy, &proven, 1);
    CHECK(newcomer.queue == SA_QUEUE_WINDOW && proven.queue == SA_QUEUE_MAIN);
    CHECK(newcomer.frequency == 0 && proven.frequency == 0);
    CHECK_SOUND(&policy);
}

static void recharge_moves_the_totals_by_what_it_returns(void) {
    sa_policy policy;
    sa_cell linked = cell_of(1600), alone = cell_of(1600);
    sa_policy_init(&policy);
    sa_policy_push(&policy, &linked, SA_QUEUE_HELD);
    static const int64_t sizes[] = {0, 1, 16, 17, 5000000, 1ll << 40, 3, 1600};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t before = bytes_in(&policy, SA_QUEUE_HELD);
        int64_t difference = sa_policy_recharge(&policy, &linked, sizes[i]);
        CHECK(bytes_in(&policy, SA_QUEUE_HELD) == before + difference);
        CHECK(bytes_in(&policy, SA_QUEUE_HELD) == sa_charge_bytes(linked.charge));
        CHECK(sa_policy_recharge(&policy, &alone, sizes[i]) == difference);
        CHECK_SOUND(&policy);
    }
}

/* --- victims --------------------------------------------------------------------------------------------------- */

/* A policy whose MAIN was filled: `main` cells there, then `young` ones in SMALL, all of 160 bytes. */
static void fill(sa_policy *policy, sa_cell *cells, int main, int young) {
    sa_policy_init(policy);
    policy->filled = 1;
    for (int i = 0; i < main + young; i++) {
        cells[i] = cell_of(160);
        sa_policy_push(policy, &cells[i], i < main ? SA_QUEUE_MAIN : SA_QUEUE_SMALL);
    }
}

static void unread_small_cells_leave_first_and_hit_ones_move_to_main(void) {
    sa_policy policy;
    sa_cell cells[8];
    fill(&policy, cells, 4, 4);
    sa_cell_hit(&cells[4], 0);
    CHECK(sa_policy_victim(&policy) == &cells[5]);
    CHECK(cells[4].queue == SA_QUEUE_MAIN && cells[4].frequency == 0);
    CHECK(cells[5].queue == SA_QUEUE_NONE && !cells[5].from_main);
    CHECK(sa_policy_victim(&policy) == &cells[6]);
    CHECK(sa_policy_victim(&policy) == &cells[0]); /* one of six in SMALL is less than its share */
    CHECK(cells[0].from_main);
    CHECK_SOUND(&policy);
}

static void hits_in_the_window_are_forgotten(void) {
    sa_policy policy;
    sa_cell cells[10], newcomer = cell_of(160);
    fill(&policy, cells, 8, 2);
    sa_policy_admit(&policy, &newcomer, 0);
    sa_cell_hit(&newcomer, 0);
    CHECK(sa_policy_victim(&policy) == &cells[8]);
    CHECK(newcomer.queue == SA_QUEUE_SMALL && newcomer.frequency == 0 && newcomer.count == 1);
    CHECK_SOUND(&policy);
}

static void a_hit_main_cell_goes_round_once_for_each_hit(void) {
    sa_policy policy;
    sa_cell cells[3];
    fill(&policy, cells, 3, 0);
    for (int i = 0; i < 9; i++)
        sa_cell_hit(&cells[0], 0);
    sa_cell_hit(&cells[1], 0);
    CHECK(cells[0].frequency == 3 && cells[1].frequency == 1);
    CHECK(sa_policy_victim(&policy) == &cells[2]);
    CHECK(sa_policy_victim(&policy) == &cells[1]);
    uint64_t steps = policy.steps;
    CHECK(sa_policy_victim(&policy) == &cells[0]);
    CHECK(policy.steps - steps == 1); /* the last of three rounds: each victim before took one */
    CHECK(sa_policy_victim(&policy) == NULL);
}

static void the_first_cells_fill_main(void) {
    sa_policy policy;
    sa_cell cells[100];
    sa_policy_init(&policy);
    for (int i = 0; i < 100; i++) {
        cells[i] = cell_of(160);
        sa_policy_admit(&policy, &cells[i], 0);
    }
    for (int i = 0; i < 4; i++)
        CHECK(sa_policy_victim(&policy) == &cells[i]); /* at most 32 are moved for one victim */
    CHECK(policy.filled && cells[70].queue == SA_QUEUE_MAIN && cells[99].queue != SA_QUEUE_MAIN);
    CHECK_SOUND(&policy);
}

static void ghosts_move_the_share_towards_their_queue(void) {
    sa_policy policy;
    sa_cell cells[100];
    fill(&policy, cells, 50, 50);
    double before = policy.share;
    sa_cell *ghost = sa_policy_victim(&policy);
    CHECK(ghost == &cells[50]);
    sa_policy_return(&policy, ghost);
    CHECK(policy.share == before); /* nothing in SMALL was hit: a loop would look like this */
    sa_cell_hit(&cells[51], 0);
    ghost = sa_policy_victim(&policy);
    CHECK(ghost == &cells[52]);
    sa_policy_return(&policy, ghost);
    CHECK(policy.share > before);
    policy.share = policy.rules->share_most;
    ghost = sa_policy_victim(&policy);
    CHECK(ghost == &cells[0] && ghost->from_main);
    sa_policy_return(&policy, ghost);
    CHECK(policy.share < policy.rules->share_most && policy.trust < 1);
    before = policy.share;
    sa_policy_remove(&policy, ghost);
    sa_policy_send_off(&policy, ghost);
    sa_policy_return(&policy, ghost);
    CHECK(policy.share == before); /* the user sent it away: nothing is learnt */
    CHECK_SOUND(&policy);
}

static void a_ghost_used_less_than_its_rival_goes_on_probation(void) {
    sa_policy policy;
    sa_cell cells[100];
    fill(&policy, cells, 80, 20);
    for (int i = 0; i < 80; i++)
        cells[i].count = 9;
    sa_cell rare = cell_of(160), frequent = cell_of(160);
    rare.count = 7;
    frequent.count = 8;
    sa_policy_return(&policy, &rare);
    sa_policy_return(&policy, &frequent);
    CHECK(rare.queue == SA_QUEUE_WINDOW && frequent.queue == SA_QUEUE_MAIN);
    CHECK_SOUND(&policy);
}

static double cost_of_one(const sa_cell *cell) { return cell != NULL; }

static void cells_that_cost_more_for_their_bytes_stay_longer(void) {
    sa_policy policy;
    sa_cell cells[64];
    sa_policy_init(&policy);
    policy.cost_of = cost_of_one;
    policy.filled = 1;
    for (int i = 0; i < 64; i++) {
        cells[i] = cell_of(i % 2 ? 16 : 16000);
        sa_policy_admit(&policy, &cells[i], 0);
    }
    for (int i = 0; i < 30; i++) {
        sa_cell *victim = sa_policy_victim(&policy);
        CHECK(victim != NULL && sa_charge_bytes(victim->charge) == 16000);
        CHECK_SOUND(&policy);
    }
}

static void cells_that_cannot_leave_are_never_victims(void) {
    static const unsigned staying[] = {SA_QUEUE_WARM, SA_QUEUE_HELD,     SA_QUEUE_PINNED,
                                       SA_QUEUE_KEPT, SA_QUEUE_SHIPPING, SA_QUEUE_FRESH};
    sa_policy policy;
    sa_cell cells[6];
    sa_policy_init(&policy);
    for (int i = 0; i < 6; i++) {
        cells[i] = cell_of(160);
        sa_policy_push(&policy, &cells[i], staying[i]);
    }
    CHECK(sa_policy_victim(&policy) == NULL);
    for (int i = 0; i < 6; i++)
        CHECK(cells[i].queue == staying[i]);
}

/* --- charges --------------------------------------------------------------------------------------------------- */

static void check_charge(int64_t bytes) {
    int64_t charged = sa_charge_bytes(sa_charge_code(bytes));
    CHECK(charged >= bytes);
    int64_t whole_units = (bytes + SA_CHARGE_UNIT_BYTES - 1) / SA_CHARGE_UNIT_BYTES * SA_CHARGE_UNIT_BYTES;
    CHECK(charged - whole_units <= whole_units >> 14);
    CHECK(sa_charge_bytes(sa_charge_code(charged)) == charged); /* a decoded charge is kept as it is */
}

static void charges_are_exact_to_one_part_in_16384(void) {
    for (int64_t bytes = 0; bytes < 2000000; bytes++)
        check_charge(bytes);
    for (int bits = 20; bits < 50; bits++)
        for (int64_t near = -40; near <= 40; near++) {
            check_charge((1ll << bits) + near);
            check_charge((3ll << (bits - 1)) + near);
        }
    for (int i = 0; i < 1000000; i++)
        check_charge((int64_t)(random_below(1ull << 49) >> random_below(49)));
    CHECK(sa_charge_bytes(sa_charge_code(0)) == 0 && sa_charge_bytes(sa_charge_code(-1)) == 0);
    for (int64_t bytes = 0; bytes < 16 << 15; bytes += 16)
        CHECK(sa_charge_bytes(sa_charge_code(bytes)) == bytes);
}

static void charges_are_monotone_over_the_whole_range(void) {
    /* Every code that sa_charge_code can give, in order, and what lies between two of them. */
    int64_t before = -1;
    for (uint32_t shift = 0; shift < 32; shift++)
        for (uint32_t units = shift ? 1u << (SA_CHARGE_UNIT_BITS - 1) : 0; units >> SA_CHARGE_UNIT_BITS == 0; units++) {
            uint32_t code = shift << SA_CHARGE_UNIT_BITS | units;
            int64_t bytes = sa_charge_bytes(code);
            CHECK(bytes > before);
            CHECK(sa_charge_code(bytes) == code);
            CHECK(sa_charge_code(before + 1) == code);
            before = bytes;
        }
}

static void a_charge_beyond_the_range_is_the_largest_one(void) {
    static const int64_t huge[] = {1ll << 50, (1ll << 50) + 1, 1ll << 60, INT64_MAX};
    int64_t largest = sa_charge_bytes(SA_CHARGE_CODE_MAX);
    CHECK(largest < 1ll << 50 && largest > (1ll << 50) - (1ll << 36));
    for (unsigned i = 0; i < sizeof huge / sizeof *huge; i++) {
        sa_cell cell = cell_of(huge[i]);
        CHECK(sa_charge_bytes(cell.charge) == largest);
    }
}

/* --- cells ----------------------------------------------------------------------------------------------------- */

static void hits_saturate_and_cool_with_the_epochs(void) {
    sa_cell cell = cell_of(16);
    for (int i = 0; i < 70000; i++)
        sa_cell_hit(&cell, 0);
    CHECK(cell.count == UINT16_MAX && cell.frequency == 3);
    sa_cell_cool(&cell, 1);
    CHECK(cell.count == UINT16_MAX / 2 && cell.epoch == 1);
    sa_cell_cool(&cell, 4);
    CHECK(cell.count == UINT16_MAX / 16);
    cell.epoch = 250;
    cell.count = 4000;
    sa_cell_hit(&cell, 2); /* eight epochs later: the number of the epoch has wrapped */
    CHECK(cell.count == 4000 / 256 + 1 && cell.epoch == 2);
    sa_cell_cool(&cell, 18);
    CHECK(cell.count == 0);
    CHECK(cell.charge == sa_charge_code(16) && cell.state == SA_HOT && cell.queue == SA_QUEUE_NONE);
}

static void legal_moves_are_those_of_the_table(void) {
    static const char *const table[SA_STATE_COUNT] = {
        /* to      HBDWCXR    from */
        [SA_HOT] = "..d..x.", [SA_BACKED] = "h...cx.",    [SA_DEPARTING] = "h..wcxr",
        [SA_WARM] = "h...cxr", [SA_COLD] = "hb.w.x.", [SA_DETACHED] = ".......", [SA_REGROWN] = "h....x.",
    };
    for (unsigned from = 0; from < SA_STATE_COUNT; from++) {
        sa_cell cell = {.state = from};
        for (unsigned to = 0; to < SA_STATE_COUNT; to++)
            CHECK(sa_cell_move_is_legal(&cell, to) == (table[from][to] != '.'));
        CHECK(!sa_cell_move_is_legal(&cell, from));
    }
}

/* --- the ends -------------------------------------------------------------------------------------------------- */

static void detach_all_leaves_no_cell_linked(void) {
    sa_policy policy;
    sa_cell cells[3 * QUEUES];
    sa_policy_init(&policy);
    for (int i = 0; i < 3 * QUEUES; i++) {
        cells[i] = cell_of(100 * i);
        sa_policy_push(&policy, &cells[i], ALL_QUEUES[i % QUEUES]);
    }
    sa_policy_detach_all(&policy);
    for (int i = 0; i < 3 * QUEUES; i++) {
        CHECK(cells[i].state == SA_DETACHED && cells[i].queue == SA_QUEUE_NONE);
        CHECK(sa_cell_next(&cells[i]) == NULL && cells[i].at.previous == NULL);
    }
    for (unsigned queue = 0; queue < SA_QUEUE_COUNT; queue++)
        CHECK(policy.queues[queue].count == 0 && policy.queues[queue].bytes == 0);
    CHECK_SOUND(&policy);
}

static void resum_makes_up_for_strays(void) {
    sa_policy policy;
    sa_cell cells[5];
    sa_policy_init(&policy);
    for (int i = 0; i < 5; i++) {
        cells[i] = cell_of(160 << i);
        sa_policy_push(&policy, &cells[i], SA_QUEUE_WARM);
    }
    sa_cell_unlink_stray(&cells[0]);
    sa_cell_unlink_stray(&cells[3]);
    CHECK_SAYS(&policy, "counts more cells than it holds");
    sa_policy_resum(&policy, SA_QUEUE_WARM);
    CHECK_SOUND(&policy);
    CHECK(policy.queues[SA_QUEUE_WARM].count == 3 && bytes_in(&policy, SA_QUEUE_WARM) == 160 * (2 + 4 + 16));
}

static void check_catches_what_is_broken(void) {
    sa_policy policy;
    sa_cell cells[4];
    sa_policy_init(&policy);
    for (int i = 0; i < 4; i++) {
        cells[i] = cell_of(160);
        sa_policy_push(&policy, &cells[i], SA_QUEUE_MAIN);
    }
    CHECK_SOUND(&policy);
    cells[2].at.previous = &cells[0];
    CHECK_SAYS(&policy, "links of a queue disagree");
    cells[2].at.previous = &cells[1];
    policy.queues[SA_QUEUE_MAIN].head.at.previous = &cells[0];
    CHECK_SAYS(&policy, "links of a queue disagree");
    policy.queues[SA_QUEUE_MAIN].head.at.previous = &cells[3];
    cells[1].queue = SA_QUEUE_SMALL;
    CHECK_SAYS(&policy, "another queue than it names");
    cells[1].queue = SA_QUEUE_MAIN;
    cells[3].charge = sa_charge_code(176);
    CHECK_SAYS(&policy, "not the sum of its charges");
    cells[3].charge = sa_charge_code(160);
    policy.queues[SA_QUEUE_MAIN].count = 3;
    CHECK_SAYS(&policy, "holds more cells than it counts");
    policy.queues[SA_QUEUE_MAIN].count = 5;
    CHECK_SAYS(&policy, "counts more cells than it holds");
    policy.queues[SA_QUEUE_MAIN].count = 4;
    CHECK_SOUND(&policy);
}

/* --- the model ------------------------------------------------------------------------------------------------- */

enum { MODEL_STEPS = 60000 };

static void check_against_model(const sa_policy *policy, const sa_cell *cells, const model *m) {
    CHECK_SOUND(policy);
    for (int queue = 0; queue < SA_QUEUE_COUNT; queue++) {
        const sa_cell *cell = sa_cell_next(&policy->queues[queue].head);
        for (int i = 0; i < m->count[queue]; i++, cell = sa_cell_next(cell))
            CHECK(cell == &cells[m->order[queue][i]]);
        CHECK(cell == &policy->queues[queue].head);
        CHECK(policy->queues[queue].count == m->count[queue] && bytes_in(policy, (unsigned)queue) == model_bytes(m, queue));
    }
    for (int number = 0; number < MODEL_CELLS; number++) {
        CHECK((int)cells[number].queue == m->queue_of[number]);
        CHECK((int)cells[number].frequency == m->frequency[number]);
        CHECK((int)cells[number].stamp == m->credit[number] && (int)cells[number].from_main == m->from_main[number]);
    }
}

static void step_of_unlinked(sa_policy *policy, sa_cell *cell, model *m, int number) {
    if (random_below(2)) {
        int proven = (int)random_below(2);
        sa_policy_admit(policy, cell, proven);
        m->frequency[number] = m->credit[number] = m->from_main[number] = 0;
        model_push(m, number, proven ? SA_QUEUE_MAIN : SA_QUEUE_WINDOW);
    } else {
        unsigned queue = ALL_QUEUES[random_below(QUEUES)];
        sa_policy_push(policy, cell, queue);
        model_push(m, number, (int)queue);
    }
}

static void step_of_linked(sa_policy *policy, sa_cell *cell, model *m, int number) {
    unsigned queue = cell->queue;
    if (random_below(2)) {
        sa_policy_remove(policy, cell);
    } else {
        sa_cell_unlink_stray(cell);
        sa_policy_resum(policy, queue);
    }
    model_remove(m, number);
}

static void random_operations_agree_with_the_model(void) {
    sa_policy policy;
    sa_cell cells[MODEL_CELLS];
    model m = {.share = sa_rules_default.share_first};
    sa_policy_init(&policy);
    memset(cells, 0, sizeof cells);
    for (int step = 0; step < MODEL_STEPS; step++) {
        int number = (int)random_below(MODEL_CELLS);
        sa_cell *cell = &cells[number];
        uint64_t dice = random_below(1000);
        if (dice < 150) {
            sa_cell *victim = sa_policy_victim(&policy);
            int expected = model_victim(&m);
            CHECK(victim == (expected < 0 ? NULL : &cells[expected]));
        } else if (dice < 400) {
            sa_cell_hit(cell, (uint8_t)(step >> 8));
            m.frequency[number] += m.frequency[number] < 3;
        } else if (dice < 550) {
            int64_t bytes = (int64_t)(random_below(1ull << 45) >> random_below(46));
            sa_policy_recharge(&policy, cell, bytes);
            m.bytes[number] = sa_charge_bytes(sa_charge_code(bytes));
        } else if (dice < 999) {
            (cell->queue == SA_QUEUE_NONE ? step_of_unlinked : step_of_linked)(&policy, cell, &m, number);
        } else {
            sa_policy_detach_all(&policy);
            memset(m.count, 0, sizeof m.count);
            memset(m.queue_of, 0, sizeof m.queue_of);
        }
        check_against_model(&policy, cells, &m);
    }
}

/* --- the list -------------------------------------------------------------------------------------------------- */

#define TEST(name) {#name, name}

static const struct {
    const char *name;
    void (*run)(void);
} TESTS[] = {
    TEST(queues_keep_order_and_totals),
    TEST(admit_sends_newcomers_to_the_window_and_proven_ones_to_main),
    TEST(recharge_moves_the_totals_by_what_it_returns),
    TEST(unread_small_cells_leave_first_and_hit_ones_move_to_main),
    TEST(a_hit_main_cell_goes_round_once_for_each_hit),
    TEST(hits_in_the_window_are_forgotten),
    TEST(the_first_cells_fill_main),
    TEST(ghosts_move_the_share_towards_their_queue),
    TEST(a_ghost_used_less_than_its_rival_goes_on_probation),
    TEST(cells_that_cost_more_for_their_bytes_stay_longer),
    TEST(cells_that_cannot_leave_are_never_victims),
    TEST(charges_are_exact_to_one_part_in_16384),
    TEST(charges_are_monotone_over_the_whole_range),
    TEST(a_charge_beyond_the_range_is_the_largest_one),
    TEST(hits_saturate_and_cool_with_the_epochs),
    TEST(legal_moves_are_those_of_the_table),
    TEST(detach_all_leaves_no_cell_linked),
    TEST(resum_makes_up_for_strays),
    TEST(check_catches_what_is_broken),
    TEST(random_operations_agree_with_the_model),
};
enum { TEST_COUNT = sizeof TESTS / sizeof *TESTS };

int main(int count, char **arguments) {
    random_state = 20260101;
    int ran = 0;
    for (int i = 0; count == 2 && i < TEST_COUNT; i++) {
        if (strcmp(arguments[1], "--list") == 0)
            ran += puts(TESTS[i].name) >= 0;
        if (strcmp(arguments[1], TESTS[i].name) == 0) {
            TESTS[i].run();
            ran++;
        }
    }
    if (ran == 0)
        printf("usage: test_policy --list | NAME\n");
    return ran == 0 ? 2 : 0;
}
