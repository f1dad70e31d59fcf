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
#include "closure.h"

#include "layout.h"
#include "rules.h"
#include "scratch.h"
#include "set_order.h"
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
    BUFFER_BYTES = 1024,        /* see SA_HAS_BUFFERS */
    OPAQUE_NODES = 16           /* looked at to estimate a leaf with hidden parts */
};

typedef enum outcome { GO_ON = 0, STOP = 1 } outcome; /* STOP: a verdict, a type to classify or an error is noted */

struct sa_closure {
    sa_rules *rules;
    sa_scratch scratch;
    PyTypeObject *unknown; /* type that has to be classified before this walk can go on */
    PyObject *reason;      /* owned: of the last verdict */
    PyObject *stop_reason; /* borrowed from the rules */
    int32_t stop_status;
    int no_memory, busy;
    unsigned tags;     /* of the object being listed */
    int escaping;      /* in pass 3 */
    Py_ssize_t excess; /* references to the root that its caller does not account for */
    uint32_t flags;
    Py_ssize_t bytes, objects;
};

static outcome reach(sa_closure *walker, PyObject *child, unsigned tags);

static outcome out_of_memory(sa_closure *walker)
{
    walker->no_memory = 1;
    return STOP;
}

static outcome push(sa_closure *walker, PyObject *object, unsigned tags)
{
    return sa_scratch_push(&walker->scratch, (uintptr_t)object | tags) < 0 ? out_of_memory(walker) : GO_ON;
}

static outcome stop(sa_closure *walker, sa_status status, PyObject *reason)
{
    walker->stop_status = status;
    walker->stop_reason = reason;
    return STOP;
}

static outcome held(sa_closure *walker, sa_reason reason)
{
    return stop(walker, SA_HELD, walker->rules->reason[reason]);
}

static outcome pinned(sa_closure *walker, sa_reason reason)
{
    return stop(walker, SA_PINNED, walker->rules->reason[reason]);
}

/* ---- what a reference points to ---- */

/* An object met for the first time; in pass 3 it is taken back. `rule` is NULL for the most frequent atoms. */
static void count_object(sa_closure *walker, PyObject *object, const sa_rule *rule)
{
    int opaque = rule != NULL && (rule->flags & SA_RULE_OPAQUE);
    Py_ssize_t bytes = opaque ? sa_size_estimate(object, OPAQUE_NODES) : sa_own_bytes(object);
    bytes += rule != NULL ? rule->extra_bytes : 0;
    walker->bytes += walker->escaping ? -bytes : bytes;
    walker->objects += walker->escaping ? -1 : 1;
    if (rule != NULL) {
        walker->flags &= rule->flags & SA_RULE_PLAIN ? ~0u : ~(uint32_t)SA_PLAIN;
        walker->flags &= rule->flags & SA_RULE_VALUE ? ~0u : ~(uint32_t)SA_FLAT;
    }
}

static int has_weak_reference(PyObject *object, const sa_rule *rule)
{
    return rule->weak_offset != 0 && *(PyObject **)((char *)object + rule->weak_offset) != NULL;
}

/* An atom: 5-15 ns. In pass 3 it is taken back once. */
static outcome reach_leaf(sa_closure *walker, PyObject *child, unsigned tags, const sa_rule *rule)
{
    if ((tags & TAG_CHECK) || sa_is_immortal(child)) {
        return GO_ON;
    }
    if (Py_REFCNT(child) > 1) {
        sa_entry *found = sa_scratch_find(&walker->scratch, child);
        if (walker->escaping) {
            if (found == NULL || found->escaped) {
                return GO_ON;
            }
            found->escaped = 1;
        }
        else if (found != NULL) {
            found->unexplained--;
            return GO_ON;
        }
        else if (sa_scratch_add(&walker->scratch, child, Py_REFCNT(child) - 1) == NULL) {
            return out_of_memory(walker);
        }
    }
    count_object(walker, child, rule);
    return GO_ON;
}

/* May an object with this rule stand under a dict key or in a set? */
static outcome check_context(sa_closure *walker, PyObject *child, const sa_rule *rule, unsigned tags)
{
    switch (rule->hash) {
    case SA_HASH_STABLE:
        return sa_is_nan(child) ? pinned(walker, SA_REASON_NAN) : GO_ON;
    case SA_HASH_KEY_ONLY:
    case SA_HASH_IDENTITY:
        return tags & TAG_STRICT ? pinned(walker, SA_REASON_MEMBER) : GO_ON;
    case SA_HASH_MEMBERS:
    case SA_HASH_FIELDS:
        return GO_ON;
    default:
        return pinned(walker, SA_REASON_HASH);
    }
}

/* Contexts that the parts of an object inherit. */
static unsigned inherited(const sa_rule *rule, unsigned tags)
{
    if (rule->hash == SA_HASH_FIELDS && (tags & TAG_CONTEXT)) {
        return TAG_STRICT;
    }
    return rule->hash == SA_HASH_MEMBERS ? tags & TAG_CONTEXT : 0;
}

/* A function stands for itself when its module finds it by its name. */
static int is_found_by_name(PyObject *function)
{
    PyFunctionObject *known = (PyFunctionObject *)function;
    PyObject *modules = PyImport_GetModuleDict();
    if (known->func_module == NULL || !PyUnicode_CheckExact(known->func_module) || modules == NULL ||
        !PyDict_CheckExact(modules) || !PyUnicode_CheckExact(known->func_qualname)) {
        return 0;
    }
    PyObject *module = PyDict_GetItemWithError(modules, known->func_module);
    if (module == NULL || !PyModule_Check(module)) {
        return 0;
    }
    PyObject *names = PyModule_GetDict(module);
    return names != NULL && PyDict_GetItemWithError(names, known->func_qualname) == function;
}

static outcome reach_callable(sa_closure *walker, PyObject *child, const sa_rule *rule)
{
    if (rule->body == SA_BODY_FUNCTION) {
        return is_found_by_name(child) ? GO_ON : pinned(walker, SA_REASON_FUNCTION);
    }
    PyObject *owner = PyCFunction_GET_SELF(child);
    return owner == NULL || PyModule_Check(owner) ? GO_ON : pinned(walker, SA_REASON_BOUND);
}

/* Pass 3: take back what the outside shares. */
static outcome escape(sa_closure *walker, PyObject *child, const sa_rule *rule)
{
    if (!(rule->flags & SA_RULE_VALUE)) {
        return held(walker, SA_REASON_OUTSIDE);
    }
    if (Py_REFCNT(child) > 1) {
        sa_entry *found = sa_scratch_find(&walker->scratch, child);
        if (found == NULL || found->escaped) {
            return GO_ON;
        }
        found->escaped = 1;
    }
    count_object(walker, child, rule);
    return push(walker, child, 0);
}

/* Pass 2: list again what was met under weaker contexts. */
static outcome check_again(sa_closure *walker, PyObject *child, unsigned contexts)
{
    if (Py_REFCNT(child) > 1) {
        sa_entry *found = sa_scratch_find(&walker->scratch, child);
        if (found == NULL || (contexts & ~found->contexts) == 0) {
            return GO_ON;
        }
        found->contexts |= contexts;
    }
    return contexts != 0 ? push(walker, child, contexts | TAG_CHECK) : GO_ON;
}

/* Pass 1: a container, met for the first time or again. */
static outcome count_container(sa_closure *walker, PyObject *child, const sa_rule *rule, unsigned contexts)
{
    if (Py_REFCNT(child) > 1) {
        sa_entry *found = sa_scratch_find(&walker->scratch, child);
        if (found != NULL) {
            found->unexplained--;
            found->pending |= contexts & ~found->contexts;
            return GO_ON;
        }
        found = sa_scratch_add(&walker->scratch, child, Py_REFCNT(child) - 1);
        if (found == NULL) {
            return out_of_memory(walker);
        }
        found->contexts = (uint8_t)contexts;
    }
    count_object(walker, child, rule);
    return push(walker, child, contexts);
}

static int is_leaf(PyObject *object, const sa_rule *rule)
{
    return rule->body == SA_BODY_LEAF ||
           (rule->body == SA_BODY_DATETIME && !((PyDateTime_DateTime *)object)->hastzinfo);
}

/* Slow path of reach: anything that is not one of the most frequent atoms. */
static outcome reach_by_rule(sa_closure *walker, PyObject *child, unsigned tags)
{
    const sa_rule *rule = sa_rules_find(walker->rules, Py_TYPE(child));
    if (rule == NULL) {
        walker->unknown = Py_TYPE(child);
        return STOP;
    }
    switch (rule->body) {
    case SA_BODY_PIN:
        return stop(walker, SA_PINNED, rule->reason);
    case SA_BODY_SHARED:
        walker->flags &= ~(uint32_t)SA_PLAIN;
        return GO_ON;
    case SA_BODY_FUNCTION:
    case SA_BODY_BUILTIN:
        walker->flags &= ~(uint32_t)SA_PLAIN;
        return reach_callable(walker, child, rule);
    default:
        break;
    }
    if ((tags & TAG_CONTEXT) && check_context(walker, child, rule, tags) == STOP) {
        return STOP;
    }
    if (has_weak_reference(child, rule)) {
        return held(walker, SA_REASON_WEAK);
    }
    if (is_leaf(child, rule)) {
        return reach_leaf(walker, child, tags, rule);
    }
    if (walker->escaping) {
        return escape(walker, child, rule);
    }
    unsigned contexts = inherited(rule, tags);
    return tags & TAG_CHECK ? check_again(walker, child, contexts) : count_container(walker, child, rule, contexts);
}

static outcome reach(sa_closure *walker, PyObject *child, unsigned tags)
{
    PyTypeObject *type = Py_TYPE(child);
    if (type == &PyUnicode_Type || type == &PyLong_Type || type == &PyBytes_Type ||
        (type == &PyFloat_Type && !(tags & TAG_CONTEXT))) {
        return reach_leaf(walker, child, tags, NULL);
    }
    if (child == Py_None || type == &PyBool_Type) {
        return GO_ON;
    }
    return reach_by_rule(walker, child, tags);
}

/* ---- listing the references of one object ---- */

/* Somebody may hold the root, and no reference back to it is in sight: asked while large containers are listed. */
static int is_hopeless(const sa_closure *walker)
{
    const sa_scratch *scratch = &walker->scratch;
    return walker->excess > 0 && scratch->entry[0].unexplained == walker->excess &&
           (scratch->stack_count == 0 || scratch->stack_count > CYCLE_BREADTH);
}

static outcome list_items(sa_closure *walker, PyObject *const *item, Py_ssize_t count, unsigned tags)
{
    for (Py_ssize_t index = 0; index < count; index++) {
        if (item[index] != NULL && reach(walker, item[index], tags) == STOP) {
            return STOP;
        }
        if (index % CYCLE_BUDGET == CYCLE_BUDGET - 1 && is_hopeless(walker)) {
            return held(walker, SA_REASON_OUTSIDE);
        }
    }
    return GO_ON;
}

static outcome list_dict(sa_closure *walker, PyObject *dict, unsigned tags, int references_per_key)
{
    Py_ssize_t position = 0, listed = 0;
    PyObject *key, *value;
    while (PyDict_Next(dict, &position, &key, &value)) {
        for (int reference = 0; reference < references_per_key; reference++) {
            if (reach(walker, key, TAG_KEY | (tags & TAG_CHECK)) == STOP) {
                return STOP;
            }
        }
        if (reach(walker, value, tags) == STOP) {
            return STOP;
        }
        if (++listed % CYCLE_BUDGET == 0 && is_hopeless(walker)) {
            return held(walker, SA_REASON_OUTSIDE);
        }
    }
    return GO_ON;
}

static outcome list_set(sa_closure *walker, PyObject *object)
{
    const PySetObject *set = (const PySetObject *)object;
    for (Py_ssize_t index = 0; index <= set->mask; index++) {
        const setentry *member = &set->table[index];
        if (member->key != NULL && member->hash != -1 &&
            reach(walker, member->key, TAG_STRICT | (walker->tags & TAG_CHECK)) == STOP) {
            return STOP;
        }
    }
    if (walker->escaping || (walker->tags & TAG_CHECK)) {
        return GO_ON;
    }
    int kept = sa_set_order_kept(object);
    if (kept < 0) {
        return out_of_memory(walker);
    }
    return kept ? GO_ON : held(walker, SA_REASON_SET_ORDER);
}

static int visit_reference(PyObject *child, void *walker)
{
    return reach(walker, child, ((sa_closure *)walker)->tags) == STOP;
}

static outcome list_ndarray(sa_closure *walker, PyObject *object)
{
    const sa_ndarray *array = (const sa_ndarray *)object;
    const sa_dtype_head *dtype = (const sa_dtype_head *)array->dtype;
    int second = walker->rules->numpy_major >= 2;
    uint64_t dtype_flags = second ? dtype->new_flags : dtype->old_flags;
    int metadata = second ? SA_DTYPE_METADATA_2 : SA_DTYPE_METADATA_1;
    if (dtype->type_number < 0 || dtype->type_number >= SA_DTYPE_BUILTIN_COUNT ||
        (dtype_flags & SA_DTYPE_HOLDS_OBJECTS) || *(PyObject *const *)((const char *)dtype + metadata) != NULL) {
        return pinned(walker, SA_REASON_DTYPE);
    }
    if ((array->flags & SA_NDARRAY_OWNS_DATA) && array->base == NULL) {
        if (sa_ndarray_data_bytes(array) >= BUFFER_BYTES) {
            walker->flags |= SA_HAS_BUFFERS;
        }
        return GO_ON;
    }
    const sa_ndarray *base = (const sa_ndarray *)array->base;
    if (base == NULL || Py_TYPE(base) != Py_TYPE(object) || base->base != NULL ||
        !(base->flags & SA_NDARRAY_OWNS_DATA) || (array->flags & SA_NDARRAY_WRITE_BACK)) {
        return pinned(walker, SA_REASON_VIEW);
    }
    return reach(walker, array->base, 0);
}

static outcome list_buffer(sa_closure *walker, PyObject *object, const sa_rule *rule)
{
    Py_ssize_t bytes = rule->body == SA_BODY_BYTEARRAY
                           ? Py_SIZE(object)
                           : Py_SIZE(object) * ((const sa_array *)object)->description->item_bytes;
    if (bytes >= BUFFER_BYTES) {
        walker->flags |= SA_HAS_BUFFERS;
    }
    return GO_ON;
}

static outcome list_timezone(sa_closure *walker, PyObject *object)
{
    (void)PyDateTimeAPI; /* a variable of datetime.h, which is included for its structs */
    /* datetime and time keep it at different offsets; both are subclassed by nothing that reaches here */
    PyObject *zone = strcmp(Py_TYPE(object)->tp_name, "datetime.time") == 0
                         ? ((PyDateTime_Time *)object)->tzinfo
                         : ((PyDateTime_DateTime *)object)->tzinfo;
    const sa_rule *rule = sa_rules_find(walker->rules, Py_TYPE(zone));
    if (rule == NULL) {
        walker->unknown = Py_TYPE(zone);
        return STOP;
    }
    if (rule->body != SA_BODY_LEAF && rule->body != SA_BODY_SHARED) {
        return pinned(walker, SA_REASON_TIMEZONE);
    }
    return reach(walker, zone, walker->tags);
}

static outcome list_attributes(sa_closure *walker, PyObject *object, const sa_rule *rule, unsigned tags)
{
    PyObject *dict = NULL;
    if (rule->dict_kind == SA_DICT_MANAGED) {
        sa_attributes attributes = sa_managed_attributes(object);
        dict = attributes.dict;
        if (attributes.value != NULL && list_items(walker, attributes.value, attributes.value_count, tags) == STOP) {
            return STOP;
        }
    }
    else if (rule->dict_kind == SA_DICT_OFFSET) {
        dict = *sa_dict_slot(object, rule->dict_offset);
    }
    if (dict != NULL) {
        if (!PyDict_CheckExact(dict)) {
            return pinned(walker, SA_REASON_DICT_TYPE);
        }
        if (Py_REFCNT(dict) != 1) {
            return held(walker, SA_REASON_ATTRIBUTES);
        }
        if (!(walker->tags & TAG_CHECK)) {
            Py_ssize_t bytes = sa_own_bytes(dict);
            walker->bytes += walker->escaping ? -bytes : bytes;
        }
        if (list_dict(walker, dict, tags, 1) == STOP) {
            return STOP;
        }
    }
    for (Py_ssize_t index = 0; index < rule->slot_count; index++) {
        PyObject *value = *(PyObject **)((char *)object + rule->slot_offset[index]);
        if (value != NULL && reach(walker, value, tags) == STOP) {
            return STOP;
        }
    }
    return GO_ON;
}

static outcome list_native(sa_closure *walker, PyObject *object, const sa_rule *rule, unsigned tags)
{
    switch (rule->body) {
    case SA_BODY_LIST:
        return list_items(walker, ((PyListObject *)object)->ob_item, PyList_GET_SIZE(object), 0);
    case SA_BODY_TUPLE:
        return list_items(walker, ((PyTupleObject *)object)->ob_item, PyTuple_GET_SIZE(object), tags);
    case SA_BODY_DICT:
        return list_dict(walker, object, 0, 1);
    case SA_BODY_ORDERED_DICT:
        return list_dict(walker, object, 0, 2);
    case SA_BODY_DEFAULT_DICT: {
        PyObject *factory = ((sa_defaultdict *)object)->default_factory;
        return factory != NULL && reach(walker, factory, 0) == STOP ? STOP : list_dict(walker, object, 0, 1);
    }
    case SA_BODY_SET:
        return list_set(walker, object);
    case SA_BODY_TRAVERSE:
        return Py_TYPE(object)->tp_traverse(object, visit_reference, walker) ? STOP : GO_ON;
    case SA_BODY_NDARRAY:
        return list_ndarray(walker, object);
    case SA_BODY_BYTEARRAY:
    case SA_BODY_ARRAY:
        return list_buffer(walker, object, rule);
    case SA_BODY_DATETIME:
        return list_timezone(walker, object);
    default:
        return GO_ON;
    }
}

static outcome list_object(sa_closure *walker, uintptr_t item)
{
    PyObject *object = (PyObject *)(item & ~(uintptr_t)TAG_ALL);
    unsigned tags = (unsigned)(item & TAG_ALL);
    const sa_rule *rule = sa_rules_find(walker->rules, Py_TYPE(object));
    if (rule == NULL) { /* a class changed itself away since it was pushed: only a broken tp_traverse can do that */
        walker->unknown = Py_TYPE(object);
        return STOP;
    }
    walker->tags = tags;
    if (list_native(walker, object, rule, tags) == STOP) {
        return STOP;
    }
    return rule->dict_kind != SA_DICT_NONE || rule->slot_count != 0 ? list_attributes(walker, object, rule, tags)
                                                                     : GO_ON;
}

/* ---- the walk ---- */

static outcome list_stacked(sa_closure *walker)
{
    sa_scratch *scratch = &walker->scratch;
    for (Py_ssize_t listed = 1; scratch->stack_count > 0; listed++) {
        if (list_object(walker, scratch->stack[--scratch->stack_count]) == STOP) {
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
    if (has_weak_reference(root, rule)) {
        return held(walker, SA_REASON_WEAK);
    }
    count_object(walker, root, rule);
    return is_leaf(root, rule) || push(walker, root, 0) == STOP ? (outcome)walker->no_memory : list_stacked(walker);
}

static outcome check_contexts(sa_closure *walker)
{
    sa_scratch *scratch = &walker->scratch;
    for (size_t number = 0; number < scratch->entry_count; number++) {
        sa_entry *found = &scratch->entry[number];
        if (found->pending == 0) {
            continue;
        }
        if (check_again(walker, found->object, found->pending) == STOP || list_stacked(walker) == STOP) {
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
        if (found->unexplained < 0 && rule != NULL && !is_leaf(found->object, rule)) {
            return pinned(walker, SA_REASON_COUNTS);
        }
        if (reach(walker, found->object, 0) == STOP || list_stacked(walker) == STOP) {
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
    *out = (sa_verdict){(int32_t)status, walker->flags, walker->bytes, walker->objects, reason};
    return 0;
}

/* One walk with all types known: 0, -1, or 1 when walker->unknown has to be classified first. */
static int walk_once(sa_closure *walker, PyObject *root, sa_verdict *out)
{
    walker->unknown = NULL;
    walker->no_memory = walker->escaping = 0;
    walker->flags = SA_FLAT | SA_PLAIN;
    walker->bytes = walker->objects = 0;
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

int sa_closure_walk(sa_closure *walker, PyObject *root, Py_ssize_t known_references, sa_verdict *out)
{
    if (walker->busy) {
        *out = (sa_verdict){SA_HELD, 0, 0, 0, walker->rules->reason[SA_REASON_BUSY]};
        return 0;
    }
    walker->busy = 1;
    int result = walk_until_known(walker, root, known_references, out);
    walker->busy = 0;
    return result;
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
        .size_estimate = sa_size_estimate,
        .size_key = sa_size_key,
    };
}
