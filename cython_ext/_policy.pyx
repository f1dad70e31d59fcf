"""Replay: owns one sa_replay, a trace of requests run against the policy of ThermalDict. Truth: core/replay.h.

Nouns: *trace*, *resident* as in core/replay.h; *rules* are the constants of core/policy.h, by name.

    Replay
      core    sa_replay       cells of all objects, the policy's queues and sums
      rules   sa_rules        a copy of the defaults with what the caller changed
      sizes, costs            kept for the core, which borrows them

Invariants: those of core/replay.h and core/policy.h; check() walks them all.

Threads: one thread may use a Replay at a time, enforced by ValueError; run releases the GIL.
Cost: 32 bytes for each object; a request is O(1), amortised.
"""
from libc.stdint cimport int64_t, uint32_t

from c_replay cimport *

cdef double *rule(sa_rules *rules, str name) except NULL:
    """Where a rule is kept."""
    cdef double *found = NULL
    if name == "share_first": found = &rules.share_first
    elif name == "share_least": found = &rules.share_least
    elif name == "share_most": found = &rules.share_most
    elif name == "share_step": found = &rules.share_step
    elif name == "margin": found = &rules.margin
    elif name == "window_of_young": found = &rules.window_of_young
    elif name == "window_most": found = &rules.window_most
    elif name == "concavity": found = &rules.concavity
    elif name == "ghost": found = &rules.ghost
    elif name == "trust_step": found = &rules.trust_step
    elif name == "trust_loss": found = &rules.trust_loss
    elif name == "trust_least": found = &rules.trust_least
    elif name == "rival_slack": found = &rules.rival_slack
    elif name == "old_factor": found = &rules.old_factor
    elif name == "weight_most": found = &rules.weight_most
    elif name == "fill": found = &rules.fill
    if found is NULL:
        raise ValueError(f"there is no rule {name!r}; the rules are {', '.join(RULES)}")
    return found


#: The names of the rules, in the order of core/policy.h.
RULES = (
    "share_first", "share_least", "share_most", "share_step", "margin", "window_of_young", "window_most", "concavity",
    "ghost", "trust_step", "trust_loss", "trust_least", "rival_slack", "old_factor", "weight_most", "fill",
)


def default_rules():
    """The rules that ThermalDict uses, by name."""
    cdef sa_rules rules = sa_rules_default
    return {name: rule(&rules, name)[0] for name in RULES}


cdef class Replay:
    """Requests against the policy alone; spectral_alloc.policy checks the arguments.

    Parameters: object_count, capacity (int64, in the unit of the sizes), sizes (int64 of every object, or None: 1),
    costs (float64 of every object, or None: as the sizes), and rules by name, for those who measure.
    """

    cdef sa_replay core
    cdef sa_rules rules
    cdef object sizes, costs
    cdef bint busy

    def __cinit__(self, int64_t object_count, int64_t capacity, sizes=None, costs=None, **rules):
        cdef const int64_t[::1] size_view
        cdef const double[::1] cost_view
        cdef const int64_t *size_data = NULL
        cdef const double *cost_data = NULL
        if sizes is not None and object_count > 0:
            size_view = sizes
            size_data = &size_view[0]
        if costs is not None and object_count > 0:
            cost_view = costs
            cost_data = &cost_view[0]
        self.sizes, self.costs = sizes, costs
        self.rules = sa_rules_default
        for name, value in rules.items():
            rule(&self.rules, name)[0] = value
        if sa_replay_open(&self.core, object_count, capacity, size_data, cost_data) != 0:
            raise MemoryError(f"no memory for {object_count} cells")
        sa_replay_set_rules(&self.core, &self.rules)

    def __dealloc__(self):
        sa_replay_close(&self.core)

    def run(self, const uint32_t[::1] ids not None):
        """Request every object of ids, each below object_count, in order; the GIL is released."""
        cdef int64_t count = ids.shape[0]
        if self.busy:
            raise ValueError("another thread is running this Replay")
        if count == 0:
            return
        self.busy = True
        with nogil:
            sa_replay_run(&self.core, &ids[0], count)
        self.busy = False

    def check(self):
        """Walk every invariant; AssertionError says which one is broken."""
        cdef const char *wrong = sa_replay_check(&self.core)
        assert wrong is NULL, wrong.decode()

    @property
    def requests(self):
        """Requests run."""
        return self.core.requests

    @property
    def misses(self):
        """Requests for objects that were not resident."""
        return self.core.misses

    @property
    def missed_size(self):
        """Sizes of all misses."""
        return (int(self.core.missed_size_carries) << 64) + self.core.missed_size

    @property
    def missed_cost(self):
        """Costs of all misses."""
        return self.core.missed_cost

    @property
    def resident_size(self):
        """Sizes of the resident objects."""
        return self.core.resident_size

    @property
    def resident_count(self):
        """Number of the resident objects."""
        return self.core.resident_count

    @property
    def share(self):
        """The part of the capacity that the young may take now, which the policy learns."""
        return self.core.policy.share

    @property
    def trust(self):
        """The part of the worthy ghosts that MAIN lets in now."""
        return self.core.policy.trust

    @property
    def steps(self):
        """Cells moved between or within queues since the start."""
        return self.core.policy.steps
