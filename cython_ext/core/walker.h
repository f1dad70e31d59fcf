/* walker.h: the state of a walker, shared by the three files of the walk (closure.c, reach.c, listing.c).
 *
 * Nouns
 *   tags      what is known about the place where an object was met: under a dict key, in a set, checked only
 *   outcome   of every step: go on, or stop because the verdict, a type to classify or an error is noted in the walker
 *
 * Layout: a stack item is an object's address with the tags in its low bits.
 * Invariants, thread rule and cost: closure.h.
 */
#ifndef SA_WALKER_H
#define SA_WALKER_H

#include "closure.h"

#include "layout.h"
#include "rules.h"
#include "scratch.h"
#include "sizer.h"

#include <datetime.h>

enum { /* tags of a stack item, in the low bits of an object's address */
    TAG_KEY = 1,    /* under a dict key */
    TAG_STRICT = 2, /* under a set member, or a field that a hash is made of */
    TAG_CHECK = 4,  /* pass 2: contexts only, nothing is counted */
    TAG_ALL = 7,
    TAG_CONTEXT = TAG_KEY | TAG_STRICT
};
_Static_assert(_Alignof(max_align_t) > TAG_ALL, "tags fit below the alignment of an object");

enum {
    CYCLE_BUDGET = 4096,        /* objects looked at for a reference back to a root that somebody may hold */
    CYCLE_BREADTH = 1 << 16,    /* containers kept waiting meanwhile */
};

typedef enum outcome { GO_ON = 0, STOP = 1 } outcome; /* STOP: a verdict, a type to classify or an error is noted */

struct sa_closure {
    sa_rules *rules;
    sa_scratch scratch;
    PyObject **odd_set; /* borrowed; sets whose table would not be rebuilt as it is */
    size_t odd_set_count, odd_set_capacity;
    PyTypeObject *unknown; /* type that has to be classified before this walk can go on */
    PyObject *reason;      /* owned: of the last verdict */
    PyObject *stop_reason; /* borrowed from the rules */
    int32_t stop_status;
    int no_memory, busy;
    int weighs;   /* sums are wanted: atoms count, each once */
    int counted; /* pass 1 is complete: all sets were seen */
    unsigned tags;     /* of the object being listed */
    int escaping;      /* in pass 3 */
    Py_ssize_t excess; /* references to the root that its caller does not account for */
    uint32_t flags;
    Py_ssize_t bytes, objects;
};

static inline outcome out_of_memory(sa_closure *walker)
{
    walker->no_memory = 1;
    return STOP;
}

#if defined(__GNUC__)
#define SA_FETCH(pointer) __builtin_prefetch(pointer)
#else
#define SA_FETCH(pointer) ((void)(pointer))
#endif

static inline outcome push(sa_closure *walker, PyObject *object, unsigned tags)
{
    return sa_scratch_push(&walker->scratch, (uintptr_t)object | tags) < 0 ? out_of_memory(walker) : GO_ON;
}

static inline outcome stop(sa_closure *walker, sa_status status, PyObject *reason)
{
    walker->stop_status = status;
    walker->stop_reason = reason;
    return STOP;
}

static inline outcome held(sa_closure *walker, sa_reason reason)
{
    return stop(walker, SA_HELD, walker->rules->reason[reason]);
}

static inline outcome pinned(sa_closure *walker, sa_reason reason)
{
    return stop(walker, SA_PINNED, walker->rules->reason[reason]);
}

static inline int sa_is_leaf(PyObject *object, const sa_rule *rule)
{
    (void)PyDateTimeAPI; /* a variable of datetime.h, which is included for its structs */
    return rule->body == SA_BODY_LEAF ||
           (rule->body == SA_BODY_DATETIME && !((PyDateTime_DateTime *)object)->hastzinfo);
}

static inline int sa_has_weak_reference(PyObject *object, const sa_rule *rule)
{
    return rule->weak_offset != 0 && *(PyObject **)((char *)object + rule->weak_offset) != NULL;
}

static inline void sa_note_flags(sa_closure *walker, const sa_rule *rule)
{
    walker->flags &= rule->flags & SA_RULE_PLAIN ? ~0u : ~(uint32_t)SA_PLAIN;
    walker->flags &= rule->flags & SA_RULE_VALUE ? ~0u : ~(uint32_t)SA_FLAT;
}

/* ---- reach.c ---- */

/* Follow one reference to `child`, met under `tags`: explain it, and put the child on the stack when it is new. */
outcome sa_reach(sa_closure *walker, PyObject *child, unsigned tags);

/* The same for an entry of the table that was met under weaker contexts before (pass 2). */
outcome sa_check_again(sa_closure *walker, PyObject *child, unsigned contexts);

/* Add an object met for the first time to the sums; in pass 3 take it back. `rule` is NULL for frequent atoms. */
void sa_count_object(sa_closure *walker, PyObject *object, const sa_rule *rule);

/* ---- listing.c ---- */

/* Follow every reference of the object of a stack item, each exactly once. */
outcome sa_list_object(sa_closure *walker, uintptr_t item);

#endif
