/* sizer.c: allocation formulas and the sampled estimate; nouns, invariants, thread rule and cost are in sizer.h.
 *
 * Layout of one object in memory, as counted:
 *
 *   [2 words before the header: managed dict] [2 words: GC header] object ... [inline values]    one allocation
 *   + table of a dict, set, list, deque; buffer of a bytearray or array; separate values         one allocation each
 *
 * The estimate looks at all items of a small container, at evenly spaced ones of a large one, and scales by the
 * number of items. An object that many others refer to is counted by a share of it.
 */
#include "sizer.h"

#include "layout.h"

#include <string.h>
#include <structmember.h>

enum {
    MALLOC_HEADER = 8,
    MALLOC_SMALLEST = 32,
    GC_HEADER = 16,
    PREHEADER = 16,
    DEPTH_LIMIT = 24,      /* of the estimate, bounds the C stack */
    KEY_DEPTH_LIMIT = 16,
    FULLY_VISITED = 8,     /* containers up to this length are never sampled */
    SAMPLES_OF_CONTAINERS = 4,
    OWN_REFERENCES = 3     /* an object with no more references than this is counted as whole */
};

static Py_ssize_t round_up(Py_ssize_t bytes, Py_ssize_t step)
{
    return (bytes + step - 1) / step * step;
}

static Py_ssize_t round_malloc(Py_ssize_t bytes)
{
    if (bytes <= 0) {
        return 0;
    }
    Py_ssize_t chunk = round_up(bytes + MALLOC_HEADER, SA_ALIGNMENT);
    return chunk < MALLOC_SMALLEST ? MALLOC_SMALLEST : chunk;
}

Py_ssize_t sa_round_allocation(Py_ssize_t bytes)
{
    if (bytes <= 0) {
        return 0;
    }
    return bytes <= SA_PYMALLOC_LIMIT ? round_up(bytes, SA_ALIGNMENT) : round_malloc(bytes);
}

/* ---- own bytes by type ---- */

static Py_ssize_t str_bytes(PyObject *object)
{
    PyASCIIObject *ascii = (PyASCIIObject *)object;
    Py_ssize_t length = ascii->length;
    Py_ssize_t data = (length + 1) * PyUnicode_KIND(object);
    Py_ssize_t bytes;
    if (PyUnicode_IS_COMPACT_ASCII(object)) {
        return sa_round_allocation((Py_ssize_t)sizeof(PyASCIIObject) + length + 1);
    }
    if (ascii->state.compact) {
        bytes = sa_round_allocation((Py_ssize_t)sizeof(PyCompactUnicodeObject) + data);
    }
    else { /* a subclass: the data is a second allocation */
        bytes = sa_round_allocation(Py_TYPE(object)->tp_basicsize) + sa_round_allocation(data);
    }
    const PyCompactUnicodeObject *cached = (const PyCompactUnicodeObject *)object;
    if (cached->utf8 != NULL && !ascii->state.ascii) {
        bytes += sa_round_allocation(cached->utf8_length + 1);
    }
    return bytes;
}

static Py_ssize_t dict_table_bytes(const PyDictObject *dict)
{
    const sa_dict_keys_head *keys = (const sa_dict_keys_head *)dict->ma_keys;
    Py_ssize_t bytes = 0;
    if (dict->ma_values != NULL) {
#if PY_VERSION_HEX >= 0x030D0000
        const sa_inline_values *values = (const sa_inline_values *)dict->ma_values;
        if (!values->embedded) {
            bytes += sa_round_allocation(8 + round_up(values->capacity, 8) + 8 * (Py_ssize_t)values->capacity);
        }
#else
        bytes += sa_round_allocation(((const uint8_t *)dict->ma_values)[-1] + 8 * (keys->usable + keys->entries));
#endif
    }
    if (keys->references == 1 && keys->log2_size > 0) {
        Py_ssize_t capacity = (((Py_ssize_t)1 << keys->log2_size) << 1) / 3;
        Py_ssize_t entry = keys->kind == 0 ? 24 : 16;
        bytes += sa_round_allocation((Py_ssize_t)sizeof *keys + ((Py_ssize_t)1 << keys->log2_index_bytes) +
                                     capacity * entry);
    }
    return bytes;
}

static Py_ssize_t deque_block_bytes(PyObject *object)
{
    const sa_deque *deque = (const sa_deque *)object;
    Py_ssize_t blocks = (deque->left_index + Py_SIZE(object) + SA_DEQUE_BLOCK_ITEMS - 1) / SA_DEQUE_BLOCK_ITEMS;
    return (blocks < 1 ? 1 : blocks) * sa_round_allocation(SA_DEQUE_BLOCK_BYTES);
}

/* Tables and buffers that the native part of the object owns besides the object itself. */
static Py_ssize_t outer_bytes(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    if (PyDict_Check(object)) {
        Py_ssize_t bytes = dict_table_bytes((PyDictObject *)object);
        if (PyODict_Check(object)) {
            bytes += PyDict_GET_SIZE(object) * SA_ORDERED_DICT_NODE_BYTES;
            bytes += sa_round_allocation(8 * ((const sa_ordered_dict *)object)->fast_node_count);
        }
        return bytes;
    }
    if (PyList_Check(object)) {
        return sa_round_allocation(8 * ((PyListObject *)object)->allocated);
    }
    if (PyAnySet_Check(object)) {
        const PySetObject *set = (const PySetObject *)object;
        return set->table == set->smalltable ? 0
                                             : sa_round_allocation((set->mask + 1) * (Py_ssize_t)sizeof(setentry));
    }
    if (PyByteArray_Check(object)) {
        return sa_round_allocation(((PyByteArrayObject *)object)->ob_alloc);
    }
    if (strcmp(type->tp_name, "collections.deque") == 0) {
        return deque_block_bytes(object);
    }
    if (strcmp(type->tp_name, "array.array") == 0) {
        const sa_array *array = (const sa_array *)object;
        return sa_round_allocation(array->allocated * array->description->item_bytes);
    }
    if (strcmp(type->tp_name, "numpy.ndarray") == 0) {
        const sa_ndarray *array = (const sa_ndarray *)object;
        Py_ssize_t data = sa_ndarray_data_bytes(array);
        Py_ssize_t shape = array->dimension_count > 0 ? 16 * (Py_ssize_t)array->dimension_count : 0;
        return round_malloc(data > 0 ? data : array->flags & SA_NDARRAY_OWNS_DATA ? SA_ALIGNMENT : 0) + round_malloc(shape);
    }
    return 0;
}

/* Bytes in front of and behind the C struct of an instance. */
static Py_ssize_t around_bytes(PyObject *object, PyTypeObject *type)
{
    Py_ssize_t bytes = 0;
    if (PyType_IS_GC(type)) {
        bytes += GC_HEADER;
    }
    if (type->tp_flags & SA_PREHEADER_FLAGS) {
        bytes += PREHEADER;
    }
#if PY_VERSION_HEX >= 0x030D0000
    if (type->tp_flags & Py_TPFLAGS_INLINE_VALUES) {
        Py_ssize_t capacity = sa_inline_values_of(object)->capacity;
        bytes += 8 + round_up(capacity, 8) + 8 * capacity;
    }
#endif
    return bytes;
}

static Py_ssize_t struct_bytes(PyObject *object, PyTypeObject *type)
{
    Py_ssize_t bytes = type->tp_basicsize;
    if (type->tp_itemsize != 0) {
        Py_ssize_t items = PyLong_Check(object) ? sa_int_digits(object) : Py_SIZE(object);
        items += (type->tp_flags & Py_TPFLAGS_HEAPTYPE) != 0; /* the allocator of classes adds a sentinel */
        bytes += type->tp_itemsize * (items < 0 ? -items : items);
    }
    else if (PyLong_Check(object)) {
        bytes += (Py_ssize_t)sizeof(digit) * sa_int_digits(object);
    }
    return bytes;
}

/* Slow path of sa_own_bytes: every type but the most frequent ones. */
static Py_ssize_t own_bytes_generic(PyObject *object, PyTypeObject *type)
{
    if (PyUnicode_Check(object)) {
        return str_bytes(object);
    }
    Py_ssize_t bytes = sa_round_allocation(around_bytes(object, type) + struct_bytes(object, type));
    if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) {
        bytes += sa_round_allocation(sa_managed_attributes(object).value_bytes);
    }
    return bytes + outer_bytes(object);
}

Py_ssize_t sa_own_bytes(PyObject *object)
{
    Py_ssize_t quick = sa_quick_size(object);
    if (quick >= 0) {
        return quick;
    }
    return sa_is_immortal(object) ? 0 : own_bytes_generic(object, Py_TYPE(object));
}

/* ---- keys ---- */

static Py_ssize_t key_bytes(PyObject *key, int depth)
{
    PyTypeObject *type = Py_TYPE(key);
    Py_ssize_t quick = sa_quick_allocation(key);
    if (quick > 0) {
        return quick;
    }
    if (PyUnicode_Check(key)) { /* without the utf-8 form, which comes into being later */
        Py_ssize_t length = PyUnicode_GET_LENGTH(key);
        Py_ssize_t head = PyUnicode_IS_ASCII(key) ? (Py_ssize_t)sizeof(PyASCIIObject)
                                                  : (Py_ssize_t)sizeof(PyCompactUnicodeObject);
        return sa_round_allocation(head + (length + 1) * PyUnicode_KIND(key));
    }
    Py_ssize_t bytes = type->tp_basicsize + (PyType_IS_GC(type) ? GC_HEADER : 0);
    if (PyLong_Check(key)) {
        bytes = (Py_ssize_t)offsetof(PyLongObject, SA_FIRST_DIGIT) + (Py_ssize_t)sizeof(digit) * sa_int_digits(key);
    }
    else if (PyBytes_Check(key)) {
        bytes += Py_SIZE(key);
    }
    else if (PyTuple_Check(key)) {
        Py_ssize_t items = 0;
        for (Py_ssize_t index = 0; depth < KEY_DEPTH_LIMIT && index < PyTuple_GET_SIZE(key); index++) {
            items += key_bytes(PyTuple_GET_ITEM(key, index), depth + 1);
        }
        return sa_round_allocation(bytes + 8 * PyTuple_GET_SIZE(key)) + items;
    }
    return sa_round_allocation(bytes);
}

Py_ssize_t sa_size_key(PyObject *key)
{
    return key_bytes(key, 0);
}

/* ---- estimate ---- */

typedef struct sample {
    int nodes_left; /* hard limit of objects looked at */
    int depth;
} sample;

static double estimate(PyObject *object, int budget, sample *state);

/* The part of a child's bytes that its parent answers for. */
static double shared_part(PyObject *child, double bytes)
{
    Py_ssize_t references = Py_REFCNT(child);
    return references <= OWN_REFERENCES ? bytes : bytes * 2.0 / (double)references;
}

/* Atoms take the short way, about 5 ns. */
static double child_bytes(PyObject *child, int budget, sample *state)
{
    if (child != NULL && (PyUnicode_CheckExact(child) || PyLong_CheckExact(child) || PyFloat_CheckExact(child))) {
        state->nodes_left--;
        Py_ssize_t bytes = sa_own_bytes(child);
        return Py_REFCNT(child) <= OWN_REFERENCES ? (double)bytes : shared_part(child, (double)bytes);
    }
    if (child == NULL || sa_is_immortal(child) || PyType_Check(child) || PyFunction_Check(child) ||
        PyModule_Check(child) || PyCFunction_Check(child)) {
        return 0;
    }
    return shared_part(child, estimate(child, budget, state));
}

static int is_container(PyObject *object)
{
    return object != NULL && (PyType_IS_GC(Py_TYPE(object)) || (Py_TYPE(object)->tp_flags & Py_TPFLAGS_MANAGED_DICT));
}

/* How many of `count` items to look at. */
static Py_ssize_t sample_count(Py_ssize_t count, PyObject *first, int budget)
{
    if (count <= FULLY_VISITED || count <= budget) {
        return count;
    }
    Py_ssize_t wanted = is_container(first) ? SAMPLES_OF_CONTAINERS : budget;
    return wanted < SAMPLES_OF_CONTAINERS ? SAMPLES_OF_CONTAINERS : wanted;
}

static double items_bytes(PyObject *const *item, Py_ssize_t count, int budget, sample *state)
{
    if (count == 0) {
        return 0;
    }
    Py_ssize_t looked_at = sample_count(count, item[count / 2], budget);
    double bytes = 0;
    for (Py_ssize_t index = 0; index < looked_at; index++) {
        Py_ssize_t place = (Py_ssize_t)(((double)index + 0.5) * (double)count / (double)looked_at);
        bytes += child_bytes(item[place], (int)(budget / looked_at), state);
    }
    return bytes * (double)count / (double)looked_at;
}

static double all_dict_items_bytes(PyObject *dict, int budget, sample *state)
{
    Py_ssize_t position = 0;
    PyObject *key, *value;
    double bytes = 0;
    while (PyDict_Next(dict, &position, &key, &value)) {
        bytes += child_bytes(key, 1, state) + child_bytes(value, budget, state);
    }
    return bytes;
}

static double dict_items_bytes(PyObject *dict, int budget, sample *state)
{
    Py_ssize_t count = PyDict_GET_SIZE(dict), position = 0, used = 0;
    PyObject *key, *value;
    double bytes = 0;
    if (count == 0 || !PyDict_Next(dict, &position, &key, &value)) {
        return 0;
    }
    Py_ssize_t looked_at = sample_count(count, value, budget / 2);
    if (looked_at == count) {
        return all_dict_items_bytes(dict, (int)(budget / count), state);
    }
    for (Py_ssize_t index = 0; index < looked_at; index++) {
        position = (Py_ssize_t)((double)index * (double)count / (double)looked_at);
        if (!PyDict_Next(dict, &position, &key, &value)) {
            break;
        }
        bytes += child_bytes(key, 1, state) + child_bytes(value, (int)(budget / looked_at), state);
        used++;
    }
    return used == 0 ? 0 : bytes * (double)count / (double)used;
}

static double set_items_bytes(const PySetObject *set, int budget, sample *state)
{
    Py_ssize_t wanted = set->used <= budget ? set->mask + 1 : 2 * (Py_ssize_t)budget;
    Py_ssize_t seen = 0;
    double bytes = 0;
    if (wanted > set->mask + 1) {
        wanted = set->mask + 1;
    }
    for (Py_ssize_t index = 0; index < wanted; index++) {
        const setentry *entry = &set->table[(Py_ssize_t)((double)index * (double)(set->mask + 1) / (double)wanted)];
        if (entry->key != NULL && entry->hash != -1) {
            bytes += child_bytes(entry->key, 1, state);
            seen++;
        }
    }
    return seen == 0 ? 0 : bytes * (double)set->used / (double)seen;
}

static double attribute_bytes(PyObject *object, PyTypeObject *type, int budget, sample *state)
{
    double bytes = 0;
    PyObject *dict = NULL;
    if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT) {
        sa_attributes attributes = sa_managed_attributes(object);
        dict = attributes.dict;
        for (int index = 0; attributes.value != NULL && index < attributes.value_count; index++) {
            bytes += child_bytes(attributes.value[index], budget / attributes.value_count, state);
        }
    }
    else if (type->tp_dictoffset != 0) {
        dict = *sa_dict_slot(object, type->tp_dictoffset);
    }
    if (dict != NULL) {
        bytes += child_bytes(dict, budget, state);
    }
    for (PyTypeObject *owner = type; owner != NULL && (owner->tp_flags & Py_TPFLAGS_HEAPTYPE); owner = owner->tp_base) {
        for (const PyMemberDef *member = owner->tp_members; member != NULL && member->name != NULL; member++) {
            if (member->type == T_OBJECT_EX) {
                bytes += child_bytes(*(PyObject **)((char *)object + member->offset), budget / 2, state);
            }
        }
    }
    return bytes;
}

typedef struct visited {
    sample *state;
    double bytes;
    int left;
    int budget;
} visited;

static int visit_child(PyObject *child, void *context)
{
    visited *parent = context;
    parent->bytes += child_bytes(child, parent->budget, parent->state);
    return --parent->left <= 0;
}

/* Items of the native part of a container. */
static double native_bytes(PyObject *object, PyTypeObject *type, int budget, sample *state)
{
    if (PyDict_Check(object)) {
        return dict_items_bytes(object, budget, state);
    }
    if (PyList_Check(object)) {
        return items_bytes(((PyListObject *)object)->ob_item, PyList_GET_SIZE(object), budget, state);
    }
    if (PyTuple_Check(object)) {
        return items_bytes(((PyTupleObject *)object)->ob_item, PyTuple_GET_SIZE(object), budget, state);
    }
    if (PyAnySet_Check(object)) {
        return set_items_bytes((const PySetObject *)object, budget, state);
    }
    if (strcmp(type->tp_name, "collections.deque") == 0 && Py_SIZE(object) > 0) {
        Py_ssize_t looked_at = sample_count(Py_SIZE(object), NULL, budget);
        visited seen = {state, 0, (int)looked_at, (int)(budget / looked_at)};
        type->tp_traverse(object, visit_child, &seen);
        return seen.bytes * (double)Py_SIZE(object) / (double)looked_at;
    }
    if (strcmp(type->tp_name, "numpy.ndarray") == 0 && ((const sa_ndarray *)object)->base != NULL) {
        return child_bytes(((const sa_ndarray *)object)->base, budget, state);
    }
    return 0;
}

static double estimate(PyObject *object, int budget, sample *state)
{
    PyTypeObject *type = Py_TYPE(object);
    double bytes = (double)sa_own_bytes(object);
    if (--state->nodes_left <= 0 || state->depth >= DEPTH_LIMIT || PyType_Check(object)) {
        return bytes;
    }
    state->depth++;
    bytes += native_bytes(object, type, budget, state);
    if ((type->tp_flags & Py_TPFLAGS_MANAGED_DICT) || type->tp_dictoffset != 0 ||
        ((type->tp_flags & Py_TPFLAGS_HEAPTYPE) && type->tp_members != NULL)) {
        bytes += attribute_bytes(object, type, budget, state);
    }
    state->depth--;
    return bytes;
}

Py_ssize_t sa_size_estimate(PyObject *value, int node_limit)
{
    int budget = node_limit > 0 ? node_limit : SA_SIZE_NODE_LIMIT;
    sample state = {8 * budget, 0};
    double bytes = estimate(value, budget, &state);
    return bytes < (double)PY_SSIZE_T_MAX ? (Py_ssize_t)bytes : PY_SSIZE_T_MAX;
}
