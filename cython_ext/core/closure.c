/* closure.c: the closedness walk; nouns, invariants, thread rule and cost are in closure.h.
 *
 * Layout: a walker is a scratch (scratch.h: table of objects with unexplained references, stack) and the sums so far.
 * Only objects with more than one reference get an entry: an object met through its single reference is reached by
 * nobody else.
 *
 * Three passes
 *   1. count    list the references of each object once; take one from the entry of what it points to
 *   2. check    contexts: under a dict key (KEY), or where the order of a set depends on the hash (STRICT), only some
 *               types may stand; a tuple that was met again under a stronger context is listed again for that alone
 *   3. escape   whatever is not explained to zero is shared with the outside. An immutable container (tuple, frozenset)
 *               may be, but then all it leads to is within reach of the outside: it must be immutable too, and is
 *               not freed (its bytes are taken back)
 *
 * Invariants: 1. bytes and objects count each object at most once.  2. no pointer to a rule survives classification.
 */
#include "walker.h"

static outcome list_stacked(sa_closure *walker)
{
    sa_scratch *scratch = &walker->scratch;
    for (Py_ssize_t listed = 1; scratch->stack_count > 0; listed++) {
        if (sa_list_object(walker, scratch->stack[--scratch->stack_count]) == STOP) {
            return STOP;
        }
        if (listed > CYCLE_BUDGET && walker->excess > 0 && scratch->entry[0].unexplained == walker->excess) {
            return held(walker, SA_REASON_OUTSIDE);
        }
    }
    return GO_ON;
}

/* The root, whose references by the caller are not counted, and then pass 1. */
static outcome count_references(sa_closure *walker, PyObject *root)
{
    if (sa_scratch_add(&walker->scratch, root, walker->excess) == NULL) {
        return out_of_memory(walker);
    }
    const sa_rule *rule = sa_rules_find(walker->rules, Py_TYPE(root));
    if (rule == NULL) {
        walker->unknown = Py_TYPE(root);
        return STOP;
    }
    if (rule->body == SA_BODY_PIN) {
        return stop(walker, SA_PINNED, rule->reason);
    }
    if (rule->body == SA_BODY_SHARED || rule->body == SA_BODY_FUNCTION || rule->body == SA_BODY_BUILTIN) {
        return pinned(walker, SA_REASON_SHARED_ROOT);
    }
    if (sa_has_weak_reference(root, rule)) {
        return held(walker, SA_REASON_WEAK);
    }
    sa_note_flags(walker, rule);
    sa_count_object(walker, root, rule);
    if (sa_is_leaf(root, rule)) {
        return GO_ON;
    }
    return push(walker, root, 0) == STOP ? STOP : list_stacked(walker);
}

static outcome check_contexts(sa_closure *walker)
{
    sa_scratch *scratch = &walker->scratch;
    for (size_t number = 0; number < scratch->entry_count; number++) {
        sa_entry *found = &scratch->entry[number];
        if (found->pending == 0) {
            continue;
        }
        if (sa_check_again(walker, found->object, found->pending) == STOP || list_stacked(walker) == STOP) {
            return STOP;
        }
    }
    return GO_ON;
}

static outcome find_escapes(sa_closure *walker)
{
    sa_scratch *scratch = &walker->scratch;
    walker->escaping = 1;
    for (size_t number = 0; number < scratch->entry_count; number++) {
        const sa_entry *found = &scratch->entry[number];
        if (found->unexplained == 0 || found->escaped) {
            continue;
        }
        const sa_rule *rule = sa_rules_find(walker->rules, Py_TYPE(found->object));
        if (found->unexplained < 0 && rule != NULL && !sa_is_leaf(found->object, rule)) {
            return pinned(walker, SA_REASON_COUNTS);
        }
        if (sa_reach(walker, found->object, 0) == STOP || list_stacked(walker) == STOP) {
            return STOP;
        }
    }
    return GO_ON;
}

static outcome three_passes(sa_closure *walker, PyObject *root)
{
    if (count_references(walker, root) == STOP) {
        return STOP;
    }
    walker->counted = 1;
    if (walker->scratch.entry[0].unexplained > 0) {
        return held(walker, SA_REASON_OUTSIDE);
    }
    if (walker->excess > 0) {
        walker->flags |= SA_CYCLIC;
    }
    walker->excess = 0;
    return check_contexts(walker) == STOP ? STOP : find_escapes(walker);
}

static int answer(sa_closure *walker, sa_status status, PyObject *reason, sa_verdict *out)
{
    Py_XSETREF(walker->reason, Py_XNewRef(reason));
    uint32_t flags = status == SA_CLOSED ? walker->flags : 0; /* else not all of the graph was seen */
    *out = (sa_verdict){(int32_t)status, flags, walker->bytes, walker->objects, reason};
    return 0;
}

/* One walk with all types known: 0, -1, or 1 when walker->unknown has to be classified first. */
static int walk_once(sa_closure *walker, PyObject *root, sa_verdict *out)
{
    walker->unknown = NULL;
    walker->no_memory = walker->escaping = walker->counted = 0;
    walker->flags = SA_FLAT | SA_PLAIN;
    walker->bytes = walker->objects = 0;
    walker->odd_set_count = 0;
    /* The common held case, about 20 ns: what the collector does not track is in no cycle. */
    if (sa_is_immortal(root) || (walker->excess > 0 && !PyObject_GC_IsTracked(root))) {
        return answer(walker, SA_HELD, walker->rules->reason[SA_REASON_OUTSIDE], out);
    }
    walker->no_memory = sa_scratch_begin(&walker->scratch) < 0;
    outcome result = walker->no_memory ? STOP : three_passes(walker, root);
    sa_scratch_end(&walker->scratch);
    if (walker->no_memory) {
        PyErr_NoMemory();
        return -1;
    }
    if (walker->unknown != NULL) {
        return 1;
    }
    return result == STOP ? answer(walker, walker->stop_status, walker->stop_reason, out)
                          : answer(walker, SA_CLOSED, NULL, out);
}

/* Slow path of the walk: Python code runs, and may even drop the root. 0 to go on, 1 answered, -1 an exception. */
static int classify_unknown(sa_closure *walker, PyObject *root, sa_verdict *out)
{
    PyTypeObject *type = (PyTypeObject *)Py_NewRef(walker->unknown);
    const sa_rule *made = NULL;
    Py_INCREF(root);
    int result = sa_rules_classify(walker->rules, type, &made);
    if (result == 1) {
        answer(walker, SA_PINNED, made->reason, out);
    }
    else if (result == 0 && Py_REFCNT(root) == 1) {
        answer(walker, SA_HELD, walker->rules->reason[SA_REASON_OUTSIDE], out);
        result = 1;
    }
    Py_DECREF(type);
    Py_DECREF(root);
    return result;
}

static int walk_until_known(sa_closure *walker, PyObject *root, Py_ssize_t known_references, sa_verdict *out)
{
    uint32_t ran_python = 0;
    for (int attempt = 0; attempt < SA_RULES_LIMIT; attempt++) {
        walker->excess = Py_REFCNT(root) - known_references;
        if (walker->excess < 0) {
            return PyErr_Format(PyExc_ValueError, "known_references is %zd, but the object has %zd references",
                                known_references, Py_REFCNT(root)), -1;
        }
        int result = walk_once(walker, root, out);
        if (result == 1) {
            ran_python = SA_RAN_PYTHON;
            result = classify_unknown(walker, root, out);
            if (result == 0) {
                continue;
            }
        }
        if (result >= 0) {
            out->flags |= ran_python;
        }
        return result < 0 ? -1 : 0;
    }
    return answer(walker, SA_PINNED, walker->rules->reason[SA_REASON_TYPES], out);
}

static int walk(sa_closure *walker, PyObject *root, Py_ssize_t known_references, int weighs, sa_verdict *out)
{
    if (walker->busy) {
        *out = (sa_verdict){SA_HELD, 0, 0, 0, walker->rules->reason[SA_REASON_BUSY]};
        return 0;
    }
    walker->busy = 1;
    walker->weighs = weighs;
    int result = walk_until_known(walker, root, known_references, out);
    walker->busy = 0;
    return result;
}

int sa_closure_walk(sa_closure *walker, PyObject *root, Py_ssize_t known_references, sa_verdict *out)
{
    return walk(walker, root, known_references, 1, out);
}

int sa_closure_look(sa_closure *walker, PyObject *root, Py_ssize_t known_references, sa_verdict *out)
{
    return walk(walker, root, known_references, 0, out);
}

PyObject *sa_closure_odd_sets(const sa_closure *walker)
{
    if (!walker->counted) {
        PyErr_SetString(PyExc_RuntimeError, "the value was not walked to its end: it changed since its last verdict");
        return NULL;
    }
    PyObject *sets = PyList_New((Py_ssize_t)walker->odd_set_count);
    for (size_t number = 0; sets != NULL && number < walker->odd_set_count; number++) {
        PyList_SET_ITEM(sets, (Py_ssize_t)number, Py_NewRef(walker->odd_set[number]));
    }
    return sets;
}

sa_closure *sa_closure_create(sa_rules *rules)
{
    sa_closure *walker = PyMem_Calloc(1, sizeof *walker);
    if (walker == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    walker->rules = rules;
    return walker;
}

void sa_closure_destroy(sa_closure *walker)
{
    if (walker != NULL) {
        sa_scratch_free(&walker->scratch);
        PyMem_RawFree(walker->odd_set);
        Py_XDECREF(walker->reason);
        PyMem_Free(walker);
    }
}

static sa_closure *create_from_api(const sa_closure_api *api)
{
    return sa_closure_create(api->rules);
}

void sa_closure_fill_api(sa_closure_api *api, sa_rules *rules)
{
    *api = (sa_closure_api){
        .abi = SA_CLOSURE_ABI,
        .struct_bytes = sizeof *api,
        .rules = rules,
        .create = create_from_api,
        .destroy = sa_closure_destroy,
        .walk = sa_closure_walk,
        .look = sa_closure_look,
        .size_estimate = sa_size_estimate,
        .size_key = sa_size_key,
    };
}
