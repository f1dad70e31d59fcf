/* listing.c: the references of one object; nouns in walker.h, invariants, thread rule and cost in closure.h.
 *
 * Layout: native part (items, table, factory, base array ...), then attribute dict or values, then slots.
 *
 * Invariants: 1. each counted reference is followed exactly once.  2. an attribute dict belongs to its instance alone
 * (one reference), so it needs no entry; one that somebody else holds makes the value held.
 */
#include "walker.h"

#include "set_order.h"

/* Somebody may hold the root, and no reference back to it is in sight: asked while large containers are listed. */
static int is_hopeless(const sa_closure *walker)
{
    const sa_scratch *scratch = &walker->scratch;
    return walker->excess > 0 && scratch->entry[0].unexplained == walker->excess &&
           (scratch->stack_count == 0 || scratch->stack_count > CYCLE_BREADTH);
}

/* A value that leaves has not been used for long, and its parts lie anywhere: their headers are fetched side by side. */
enum { FETCHED_AHEAD = 16 };

static outcome list_items(sa_closure *walker, PyObject *const *item, Py_ssize_t count, unsigned tags)
{
    for (Py_ssize_t index = 0; index < count && index < FETCHED_AHEAD; index++) {
        SA_FETCH(item[index]);
    }
    for (Py_ssize_t index = 0; index < count; index++) {
        if (index + FETCHED_AHEAD < count) {
            SA_FETCH(item[index + FETCHED_AHEAD]);
        }
        if (item[index] != NULL && sa_reach(walker, item[index], tags) == STOP) {
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
    while (position < FETCHED_AHEAD && PyDict_Next(dict, &position, NULL, &value)) {
        SA_FETCH(value);
    }
    position = 0;
    while (PyDict_Next(dict, &position, &key, &value)) {
        for (int reference = 0; reference < references_per_key; reference++) {
            if (sa_reach(walker, key, TAG_KEY | (tags & TAG_CHECK)) == STOP) {
                return STOP;
            }
        }
        if (sa_reach(walker, value, tags) == STOP) {
            return STOP;
        }
        if (++listed % CYCLE_BUDGET == 0 && is_hopeless(walker)) {
            return held(walker, SA_REASON_OUTSIDE);
        }
    }
    return GO_ON;
}

static outcome note_odd_set(sa_closure *walker, PyObject *set)
{
    if (walker->odd_set_count == walker->odd_set_capacity &&
        sa_scratch_grow((void **)&walker->odd_set, &walker->odd_set_capacity, sizeof *walker->odd_set,
                        SA_ITEMS_AT_FIRST) < 0) {
        return out_of_memory(walker);
    }
    walker->odd_set[walker->odd_set_count++] = set;
    walker->flags = (walker->flags | SA_ODD_SETS) & ~(uint32_t)SA_PLAIN;
    return GO_ON;
}

static outcome list_set(sa_closure *walker, PyObject *object)
{
    const PySetObject *set = (const PySetObject *)object;
    for (Py_ssize_t index = 0; index <= set->mask; index++) {
        const setentry *member = &set->table[index];
        if (member->key != NULL && member->hash != -1 &&
            sa_reach(walker, member->key, TAG_STRICT | (walker->tags & TAG_CHECK)) == STOP) {
            return STOP;
        }
    }
    if (walker->escaping || (walker->tags & TAG_CHECK)) {
        return GO_ON;
    }
    int kept = sa_set_order_kept(object);
    return kept < 0 ? out_of_memory(walker) : kept ? GO_ON : note_odd_set(walker, object);
}

static int visit_reference(PyObject *child, void *walker)
{
    return sa_reach(walker, child, ((sa_closure *)walker)->tags) == STOP;
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
        if (sa_ndarray_data_bytes(array) >= SA_BUFFER_BYTES) {
            walker->flags |= SA_HAS_BUFFERS;
        }
        return GO_ON;
    }
    const sa_ndarray *base = (const sa_ndarray *)array->base;
    if (base == NULL || Py_TYPE(base) != Py_TYPE(object) || base->base != NULL ||
        !(base->flags & SA_NDARRAY_OWNS_DATA) || (array->flags & SA_NDARRAY_WRITE_BACK)) {
        return pinned(walker, SA_REASON_VIEW);
    }
    return sa_reach(walker, array->base, 0);
}

static outcome list_buffer(sa_closure *walker, PyObject *object, const sa_rule *rule)
{
    Py_ssize_t bytes = rule->body == SA_BODY_BYTEARRAY
                           ? Py_SIZE(object)
                           : Py_SIZE(object) * ((const sa_array *)object)->description->item_bytes;
    if (bytes >= SA_BUFFER_BYTES) {
        walker->flags |= SA_HAS_BUFFERS;
    }
    return GO_ON;
}

static outcome list_timezone(sa_closure *walker, PyObject *object)
{
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
    return sa_reach(walker, zone, walker->tags);
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
        if (value != NULL && sa_reach(walker, value, tags) == STOP) {
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
        return factory != NULL && sa_reach(walker, factory, 0) == STOP ? STOP : list_dict(walker, object, 0, 1);
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

outcome sa_list_object(sa_closure *walker, uintptr_t item)
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

