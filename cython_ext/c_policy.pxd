# Declarations of core/policy.h; the header is the truth.
from libc.stdint cimport int64_t, uint8_t, uint32_t

from c_cell cimport sa_cell

cdef extern from "policy.h" nogil:
    enum:
        SA_QUEUE_NONE
        SA_QUEUE_SMALL
        SA_QUEUE_MAIN
        SA_QUEUE_WARM
        SA_QUEUE_HELD
        SA_QUEUE_PINNED
        SA_QUEUE_KEPT
        SA_QUEUE_SHIPPING
        SA_QUEUE_FRESH
        SA_QUEUE_WINDOW
        SA_QUEUE_COUNT
        SA_ORDINARY_QUEUES

    ctypedef struct sa_queue:
        int64_t bytes
        int64_t count

    ctypedef struct sa_policy:
        sa_queue *queues
        double share
        double (*cost_of)(const sa_cell *cell) noexcept

    void sa_policy_init(sa_policy *policy)
    double sa_policy_read_cost(const sa_cell *cell) noexcept
    void sa_policy_enter(sa_policy *policy, sa_cell *cell, void *payload, uint32_t charge, uint8_t epoch_now)
    void sa_policy_push(sa_policy *policy, sa_cell *cell, unsigned queue)
    void sa_policy_remove(sa_policy *policy, sa_cell *cell)
    void sa_cell_unlink_stray(sa_cell *cell)
    void sa_policy_admit(sa_policy *policy, sa_cell *cell, int proven)
    void sa_policy_return(sa_policy *policy, sa_cell *cell)
    void sa_policy_renew(sa_policy *policy, sa_cell *cell)
    void sa_policy_send_off(sa_policy *policy, sa_cell *cell)
    int64_t sa_policy_recharge(sa_policy *policy, sa_cell *cell, int64_t bytes)
    sa_cell *sa_policy_victim(sa_policy *policy)
    void sa_policy_fetch_next(const sa_policy *policy)
    sa_cell *sa_policy_oldest(const sa_policy *policy, unsigned queue)
    void sa_policy_resum(sa_policy *policy, unsigned queue)
    void sa_policy_detach_all(sa_policy *policy)
    sa_policy *sa_policy_of_slow(const sa_cell *cell)
    const char *sa_policy_check(const sa_policy *policy)
