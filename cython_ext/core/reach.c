/* reach.c: what one reference points to; nouns in walker.h, invariants, thread rule and cost in closure.h.
 *
 * Layout: only objects with more than one reference get an entry in the table: an object met through its single
 * reference is reached by nobody else.
 *
 * Invariants: 1. bytes and objects count each object at most once.  2. no pointer to a rule is kept.
 */
#include "walker.h"

enum { OPAQUE_NODES = 16 }; /* looked at to estimate a leaf with hidden parts */

void sa_count_object(sa_closure *walker, PyObject *object, const sa_rule *rule)
{
    walker->objects += walker->escaping ? -1 : 1;
    if (!walker->weighs) {
        return;
    }
    int opaque = rule != NULL && (rule->flags & SA_RULE_OPAQUE);
    Py_ssize_t bytes = opaque ? sa_size_estimate(object, OPAQUE_NODES) : sa_own_bytes(object);
    bytes += rule != NULL ? rule->extra_bytes : 0;
    walker->bytes += walker->escaping ? -bytes : bytes;
}

/* An atom: 5-15 ns, 1 where nothing is weighed, since an atom may be shared with anybody. In pass 3 it is taken back once. */
static outcome reach_leaf(sa_closure *walker, PyObject *child, unsigned tags, const sa_rule *rule)
{
    if (!walker->weighs || (tags & TAG_CHECK) || sa_is_immortal(child)) {
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
    sa_count_object(walker, child, rule);
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
    PyObject *names = module != NULL && PyModule_Check(module) ? PyModule_GetDict(module) : NULL;
    PyObject *found = names != NULL ? PyDict_GetItemWithError(names, known->func_qualname) : NULL;
    if (found == NULL) {
        PyErr_Clear();
    }
    return found == function;
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
    sa_count_object(walker, child, rule);
    return push(walker, child, 0);
}

outcome sa_check_again(sa_closure *walker, PyObject *child, unsigned contexts)
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
    if (PyList_CheckExact(child)) {
        SA_FETCH(((PyListObject *)child)->ob_item);
    }
    sa_count_object(walker, child, rule);
    return push(walker, child, contexts);
}

/* Slow path of reach: anything that is not one of the most frequent atoms. */
static outcome reach_by_rule(sa_closure *walker, PyObject *child, unsigned tags)
{
    const sa_rule *rule = sa_rules_find(walker->rules, Py_TYPE(child));
    if (rule == NULL) {
        walker->unknown = Py_TYPE(child);
        return STOP;
    }
    sa_note_flags(walker, rule);
    switch (rule->body) {
    case SA_BODY_PIN:
        return stop(walker, SA_PINNED, rule->reason);
    case SA_BODY_SHARED:
        return GO_ON;
    case SA_BODY_FUNCTION:
    case SA_BODY_BUILTIN:
        return reach_callable(walker, child, rule);
    default:
        break;
    }
    if ((tags & TAG_CONTEXT) && check_context(walker, child, rule, tags) == STOP) {
        return STOP;
    }
    if (sa_has_weak_reference(child, rule)) {
        return held(walker, SA_REASON_WEAK);
    }
    if (sa_is_leaf(child, rule)) {
        return reach_leaf(walker, child, tags, rule);
    }
    if (walker->escaping) {
        return escape(walker, child, rule);
    }
    unsigned contexts = inherited(rule, tags);
    return tags & TAG_CHECK ? sa_check_again(walker, child, contexts) : count_container(walker, child, rule, contexts);
}

outcome sa_reach(sa_closure *walker, PyObject *child, unsigned tags)
{
    PyTypeObject *type = Py_TYPE(child);
    if (type == &PyUnicode_Type || type == &PyLong_Type || type == &PyBytes_Type ||
        (type == &PyFloat_Type && !(tags & TAG_CONTEXT))) {
        if (!walker->weighs) {
            walker->objects++;
            return GO_ON;
        }
        return reach_leaf(walker, child, tags, NULL);
    }
    if (child == Py_None || type == &PyBool_Type) {
        return GO_ON;
    }
    return reach_by_rule(walker, child, tags);
}

