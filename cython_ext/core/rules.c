/* rules.c: the table from type to rule; nouns, invariants, thread rule and cost are in rules.h.
 *
 * Layout
 *   slot[hash(type)] -> sa_rule -> slot_offset[0 .. slot_count)
 *
 *   A stale rule (its type changed, or died and another type took its address) stays in its slot until the same
 *   address is classified again or the whole table is dropped; sa_rules_find never returns it.
 */
#include "rules.h"

#include "layout.h"

#include <stdlib.h>
#include <string.h>
#include <structmember.h>

enum { SLOTS_AT_FIRST = 256 };
_Static_assert((SLOTS_AT_FIRST & (SLOTS_AT_FIRST - 1)) == 0, "open addressing masks the hash");
_Static_assert(SA_BODY_COUNT < 256 && SA_HASH_COUNT < 256, "codes are kept in one byte");

static const char *const reason_text[SA_REASON_COUNT] = {
    [SA_REASON_OUTSIDE] = "a part of the value is referenced from outside",
    [SA_REASON_WEAK] = "a part of the value has a weak reference",
    [SA_REASON_ATTRIBUTES] = "the attribute dict of an instance is referenced from outside",
    [SA_REASON_BUSY] = "the walker is in use",
    [SA_REASON_COUNTS] = "the reference counts of the value cannot be explained",
    [SA_REASON_SHARED_ROOT] = "classes, functions and modules stand for themselves: storing them frees nothing",
    [SA_REASON_FUNCTION] = "functions that their module does not find by name cannot be serialised",
    [SA_REASON_BOUND] = "bound built-in methods cannot be serialised",
    [SA_REASON_HASH] = "dict keys and set members with a hash of their own cannot be serialised faithfully",
    [SA_REASON_MEMBER] = "set order depends on an address",
    [SA_REASON_NAN] = "a NaN as set member or dict key is found by its address",
    [SA_REASON_DICT_TYPE] = "the __dict__ of an instance is not a plain dict",
    [SA_REASON_VIEW] = "array views of memory that no plain array owns cannot be serialised",
    [SA_REASON_DTYPE] = "arrays of this dtype cannot be serialised (objects, metadata or a type of its own)",
    [SA_REASON_TIMEZONE] = "this kind of tzinfo cannot be serialised",
    [SA_REASON_TYPES] = "the value holds objects of too many types",
};

static size_t slot_of(const sa_rules *rules, const PyTypeObject *type)
{
    uintptr_t address = (uintptr_t)type >> 4;
    return (size_t)(address ^ (address >> 9)) & rules->mask;
}

static void rule_free(sa_rule *rule)
{
    if (rule != NULL) {
        PyMem_Free(rule->slot_offset);
        Py_XDECREF(rule->reason);
        PyMem_Free(rule);
    }
}

/* ---- creation ---- */

sa_rules *sa_rules_create(PyObject *classify)
{
    sa_rules *rules = PyMem_Calloc(1, sizeof *rules);
    if (rules == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    rules->slot = PyMem_Calloc(SLOTS_AT_FIRST, sizeof *rules->slot);
    rules->mask = SLOTS_AT_FIRST - 1;
    rules->classify = Py_NewRef(classify);
    int complete = rules->slot != NULL;
    for (int code = 0; code < SA_REASON_COUNT; code++) {
        rules->reason[code] = PyUnicode_FromString(reason_text[code]);
        complete &= rules->reason[code] != NULL;
    }
    if (!complete) {
        sa_rules_destroy(rules);
        PyErr_NoMemory();
        return NULL;
    }
    return rules;
}

void sa_rules_forget(sa_rules *rules)
{
    for (size_t index = 0; index <= rules->mask; index++) {
        sa_rule *rule = rules->slot[index];
        rules->slot[index] = NULL;
        rule_free(rule);
    }
    rules->count = 0;
}

void sa_rules_destroy(sa_rules *rules)
{
    if (rules == NULL) {
        return;
    }
    if (rules->slot != NULL) {
        sa_rules_forget(rules);
        PyMem_Free(rules->slot);
    }
    for (int code = 0; code < SA_REASON_COUNT; code++) {
        Py_XDECREF(rules->reason[code]);
    }
    Py_XDECREF(rules->classify);
    Py_XDECREF(rules->generic_bases);
    PyMem_Free(rules);
}

/* ---- look-up ---- */

const sa_rule *sa_rules_find(const sa_rules *rules, PyTypeObject *type)
{
    for (size_t index = slot_of(rules, type);; index = (index + 1) & rules->mask) {
        const sa_rule *rule = rules->slot[index];
        if (rule == NULL) {
            return NULL;
        }
        if (rule->type == type) {
            if (!(type->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
                return rule;
            }
            return rule->version != 0 && rule->version == type->tp_version_tag ? rule : NULL;
        }
    }
}

static void place(sa_rules *rules, sa_rule *rule)
{
    size_t index = slot_of(rules, rule->type);
    while (rules->slot[index] != NULL && rules->slot[index]->type != rule->type) {
        index = (index + 1) & rules->mask;
    }
    sa_rule *previous = rules->slot[index];
    rules->slot[index] = rule;
    rules->count += previous == NULL;
    rule_free(previous);
}

/* Room for one more rule, at most half full. */
static int make_room(sa_rules *rules)
{
    if (rules->count >= SA_RULES_LIMIT) {
        sa_rules_forget(rules);
    }
    if (2 * (rules->count + 1) <= rules->mask + 1) {
        return 0;
    }
    size_t old_mask = rules->mask;
    sa_rule **old = rules->slot;
    sa_rule **wider = PyMem_Calloc(2 * (old_mask + 1), sizeof *wider);
    if (wider == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    rules->slot = wider;
    rules->mask = 2 * (old_mask + 1) - 1;
    rules->count = 0;
    for (size_t index = 0; index <= old_mask; index++) {
        if (old[index] != NULL) {
            place(rules, old[index]);
        }
    }
    PyMem_Free(old);
    return 0;
}

/* ---- layout of a class ---- */

/* Slots that a class statement with __slots__ made in `type` itself; -1 when there are members of another kind. */
static Py_ssize_t own_slots(const PyTypeObject *type)
{
    Py_ssize_t count = 0;
    if (type->tp_members != NULL) {
        for (const PyMemberDef *member = type->tp_members; member->name != NULL; member++, count++) {
            if (member->type != T_OBJECT_EX || member->flags != 0) {
                return -1;
            }
        }
    }
    return count;
}

/* By identity: a metaclass could make its classes equal to any other. */
static int is_generic_base(const sa_rules *rules, const PyTypeObject *type)
{
    for (Py_ssize_t index = 0; rules->generic_bases != NULL && index < PyTuple_GET_SIZE(rules->generic_bases); index++) {
        if (PyTuple_GET_ITEM(rules->generic_bases, index) == (const PyObject *)type) {
            return 1;
        }
    }
    return 0;
}

const char *sa_layout_problem(const sa_rules *rules, PyTypeObject *type, PyTypeObject *native)
{
    while (type != native) {
        PyTypeObject *base = type->tp_base;
        if (base == NULL) {
            return "has another native base than its rule says";
        }
        Py_ssize_t slots = own_slots(type);
        Py_ssize_t expected = base->tp_basicsize + 8 * slots;
        if (type->tp_dictoffset != 0 && base->tp_dictoffset == 0 && !(type->tp_flags & Py_TPFLAGS_MANAGED_DICT)) {
            expected += 8;
        }
        if (type->tp_weaklistoffset > 0 && base->tp_weaklistoffset == 0) {
            expected += 8;
        }
        int adds_nothing = is_generic_base(rules, type);
        if (slots < 0 || type->tp_basicsize != expected || type->tp_itemsize != base->tp_itemsize) {
            return "keeps state in C";
        }
        if (!adds_nothing && (!(type->tp_flags & Py_TPFLAGS_HEAPTYPE) || type->tp_dealloc != rules->class_dealloc ||
                              type->tp_alloc != PyType_GenericAlloc)) {
            return "is implemented in C";
        }
        type = base;
    }
    return NULL;
}

/* Offsets of all slots of an instance, of the class itself and of its bases. */
static int list_slots(sa_rule *rule, PyTypeObject *type)
{
    Py_ssize_t count = 0;
    for (PyTypeObject *owner = type; owner != NULL; owner = owner->tp_base) {
        if ((owner->tp_flags & Py_TPFLAGS_HEAPTYPE) && own_slots(owner) > 0) {
            count += own_slots(owner);
        }
    }
    if (count == 0) {
        return 0;
    }
    rule->slot_offset = PyMem_New(Py_ssize_t, count);
    if (rule->slot_offset == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (PyTypeObject *owner = type; owner != NULL; owner = owner->tp_base) {
        if ((owner->tp_flags & Py_TPFLAGS_HEAPTYPE) && own_slots(owner) > 0) {
            for (const PyMemberDef *member = owner->tp_members; member->name != NULL; member++) {
                rule->slot_offset[rule->slot_count++] = member->offset;
            }
        }
    }
    return 0;
}

static int describe_layout(sa_rule *rule, PyTypeObject *type)
{
    rule->weak_offset = type->tp_weaklistoffset;
    if (rule->body == SA_BODY_TRAVERSE && (rule->flags & SA_RULE_OWN_REDUCER)) {
        return 0; /* tp_traverse already reports the attributes */
    }
    if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) {
        rule->dict_kind = SA_DICT_MANAGED;
    }
    else if (type->tp_dictoffset != 0) {
        rule->dict_kind = SA_DICT_OFFSET;
        rule->dict_offset = type->tp_dictoffset;
    }
    return list_slots(rule, type);
}

/* ---- classification ---- */

static uint32_t version_of(PyTypeObject *type)
{
    if (!(type->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
        return 0;
    }
#if PY_VERSION_HEX >= 0x030C0000
    PyUnstable_Type_AssignVersionTag(type);
#else
    PyObject *name = PyUnicode_InternFromString("__reduce_ex__"); /* a look-up gives the type its version tag */
    if (name == NULL) {
        PyErr_Clear();
        return 0;
    }
    _PyType_Lookup(type, name);
    Py_DECREF(name);
#endif
    return type->tp_version_tag;
}

static sa_rule *rule_from(PyTypeObject *type, PyObject *answer)
{
    int body, flags, hash;
    Py_ssize_t extra_bytes = 0;
    PyObject *reason;
    if (!PyArg_ParseTuple(answer, "iiiO|n:classify", &body, &flags, &hash, &reason, &extra_bytes)) {
        return NULL;
    }
    if (body < 0 || body >= SA_BODY_COUNT || hash < 0 || hash >= SA_HASH_COUNT ||
        (body == SA_BODY_PIN) != (PyUnicode_Check(reason) != 0)) {
        PyErr_Format(PyExc_ValueError, "classify(%R) returned %R", type, answer);
        return NULL;
    }
    sa_rule *rule = PyMem_Calloc(1, sizeof *rule);
    if (rule == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    rule->type = type;
    rule->body = (uint8_t)body;
    rule->flags = (uint8_t)flags;
    rule->hash = (uint8_t)hash;
    rule->extra_bytes = extra_bytes;
    if (body == SA_BODY_PIN) {
        rule->reason = Py_NewRef(reason);
    }
    if (body != SA_BODY_SHARED && describe_layout(rule, type) < 0) {
        rule_free(rule);
        return NULL;
    }
    return rule;
}

static int pin_unversioned(sa_rule *rule)
{
    PyObject *reason = PyUnicode_FromFormat("class %s changes too often to be trusted", rule->type->tp_name);
    if (reason == NULL) {
        return -1;
    }
    rule->body = SA_BODY_PIN;
    Py_XSETREF(rule->reason, reason);
    return 0;
}

int sa_rules_classify(sa_rules *rules, PyTypeObject *type, const sa_rule **made)
{
    uint32_t version = version_of(type); /* before the Python code: a change made meanwhile makes the rule stale */
    PyObject *answer = PyObject_CallOneArg(rules->classify, (PyObject *)type);
    if (answer == NULL) {
        return -1;
    }
    sa_rule *rule = rule_from(type, answer);
    Py_DECREF(answer);
    if (rule == NULL) {
        return -1;
    }
    rule->version = version;
    int versioned = version != 0 || !(type->tp_flags & Py_TPFLAGS_HEAPTYPE);
    if ((!versioned && pin_unversioned(rule) < 0) || make_room(rules) < 0) {
        rule_free(rule);
        return -1;
    }
    place(rules, rule);
    *made = rule;
    return versioned ? 0 : 1;
}

/* ---- NaN ---- */

int sa_is_nan(PyObject *object)
{
    if (PyFloat_Check(object)) {
        double value = PyFloat_AS_DOUBLE(object);
        return value != value;
    }
    if (PyComplex_Check(object)) {
        Py_complex value = ((PyComplexObject *)object)->cval;
        return value.real != value.real || value.imag != value.imag;
    }
    if (strcmp(Py_TYPE(object)->tp_name, "decimal.Decimal") == 0) {
        return (((const sa_decimal *)object)->flags & SA_DECIMAL_NAN) != 0;
    }
    return 0;
}
