# Declarations of core/replay.h and of the rules in core/policy.h; the headers are the truth.
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "policy.h" nogil:
    ctypedef struct sa_rules:
        double share_first, share_least, share_most
        double share_step
        double margin
        double window_of_young
        double window_most
        double concavity
        double ghost
        double trust_step
        double trust_loss
        double trust_least
        double rival_slack
        double old_factor
        double weight_most
        double fill

    const sa_rules sa_rules_default

cdef extern from "replay.h" nogil:
    ctypedef struct sa_replay_policy "sa_policy":
        double share, trust
        uint64_t steps

    ctypedef struct sa_replay:
        sa_replay_policy policy
        int64_t resident_size, resident_count
        int64_t requests, misses
        uint64_t missed_size, missed_size_carries
        double missed_cost

    int sa_replay_open(
        sa_replay *replay, int64_t object_count, int64_t capacity, const int64_t *sizes, const double *costs
    )
    void sa_replay_set_rules(sa_replay *replay, const sa_rules *rules)
    void sa_replay_run(sa_replay *replay, const uint32_t *ids, int64_t count)
    const char *sa_replay_check(const sa_replay *replay)
    void sa_replay_close(sa_replay *replay)
