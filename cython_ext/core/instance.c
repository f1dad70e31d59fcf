/* instance.c: reading and writing the state of instances; nouns, invariants, thread rule and cost are in instance.h.
 *
 * Layout: see layout.h. The names of inline values are the keys that all instances of the class share:
 *
 *   class -> shared keys: head | index table | {name, -} {name, -} ...      order[i] = number of the i-th set value
 */
#include "instance.h"

#include "layout.h"

typedef struct key_entry { /* PyDictUnicodeEntry */
    PyObject *name;
    PyObject *unused_value;
} key_entry;
_Static_assert(sizeof(key_entry) == 16, "layout of PyDictUnicodeEntry");

static int add_inline_values(PyObject *dict, PyObject *instance, PyObject *const *value, int value_count)
{
    const sa_dict_keys_head *keys = (const sa_dict_keys_head *)((PyHeapTypeObject *)Py_TYPE(instance))->ht_cached_keys;
    const key_entry *entries =
        (const key_entry *)((const char *)(keys + 1) + ((size_t)1 << keys->log2_index_bytes));
#if PY_VERSION_HEX >= 0x030D0000
    int count = ((const sa_inline_values *)((const char *)value - offsetof(sa_inline_values, value)))->count;
    const uint8_t *order = (const uint8_t *)&value[value_count];
    int step = 1;
#else
    int count = ((const uint8_t *)value)[-2];
    const uint8_t *order = (const uint8_t *)value - 3;
    int step = -1;
#endif
    for (int place = 0; place < count && place < value_count; place++) {
        int number = order[step * place];
        if (PyDict_SetItem(dict, entries[number].name, value[number]) < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *attribute_dict(PyObject *instance, const sa_rule *rule)
{
    if (rule->dict_kind == SA_DICT_MANAGED) {
        return sa_managed_attributes(instance).dict;
    }
    return rule->dict_kind == SA_DICT_OFFSET ? *sa_dict_slot(instance, rule->dict_offset) : NULL;
}

PyObject *sa_instance_attributes(PyObject *instance, const sa_rule *rule)
{
    PyObject *held = attribute_dict(instance, rule);
    if (held != NULL) {
        return PyDict_GET_SIZE(held) == 0 ? Py_NewRef(Py_None) : PyDict_Copy(held);
    }
    sa_attributes inline_part = {NULL, NULL, 0, 0};
    if (rule->dict_kind == SA_DICT_MANAGED) {
        inline_part = sa_managed_attributes(instance);
    }
    if (inline_part.value == NULL) {
        return Py_NewRef(Py_None);
    }
    PyObject *dict = PyDict_New();
    if (dict != NULL && add_inline_values(dict, instance, inline_part.value, inline_part.value_count) < 0) {
        Py_CLEAR(dict);
    }
    if (dict != NULL && PyDict_GET_SIZE(dict) == 0) {
        Py_SETREF(dict, Py_NewRef(Py_None));
    }
    return dict;
}

PyObject *sa_instance_slots(PyObject *instance, const sa_rule *rule)
{
    Py_ssize_t set = 0;
    for (Py_ssize_t number = 0; number < rule->slot_count; number++) {
        set += *(PyObject **)((char *)instance + rule->slot_offset[number]) != NULL;
    }
    if (set == 0) {
        return Py_NewRef(Py_None);
    }
    PyObject *slots = PyTuple_New(2 * set);
    Py_ssize_t place = 0;
    for (Py_ssize_t number = 0; slots != NULL && number < rule->slot_count; number++) {
        PyObject *value = *(PyObject **)((char *)instance + rule->slot_offset[number]);
        if (value == NULL) {
            continue;
        }
        PyObject *index = PyLong_FromSsize_t(number);
        if (index == NULL) {
            Py_CLEAR(slots);
            break;
        }
        PyTuple_SET_ITEM(slots, place++, index);
        PyTuple_SET_ITEM(slots, place++, Py_NewRef(value));
    }
    return slots;
}

PyObject *sa_instance_new(PyTypeObject *type, PyTypeObject *native)
{
    PyObject *no_arguments = PyTuple_New(0);
    if (no_arguments == NULL) {
        return NULL;
    }
    PyObject *instance = native->tp_new(type, no_arguments, NULL);
    Py_DECREF(no_arguments);
    return instance;
}

/* A data descriptor of the class (a property) would take the value instead of the attribute dict. */
static int is_taken_by_class(PyTypeObject *type, PyObject *name)
{
    PyObject *found = _PyType_Lookup(type, name);
    return found != NULL && Py_TYPE(found)->tp_descr_set != NULL;
}

/* Slow path of restore_attribute: around the class, into the attribute dict. */
static int restore_into_dict(PyObject *instance, PyObject *name, PyObject *value)
{
    PyObject *dict = PyObject_GenericGetDict(instance, NULL);
    int result = dict == NULL ? -1 : PyDict_SetItem(dict, name, value);
    Py_XDECREF(dict);
    return result;
}

static int restore_attribute(PyObject *instance, PyObject *name, PyObject *value)
{
    if (!PyUnicode_CheckExact(name)) {
        return restore_into_dict(instance, name, value);
    }
    Py_INCREF(name);
    PyUnicode_InternInPlace(&name); /* as the shared keys of the class and the names in its method cache are */
    int result = is_taken_by_class(Py_TYPE(instance), name) ? restore_into_dict(instance, name, value)
                                                            : PyObject_GenericSetAttr(instance, name, value);
    Py_DECREF(name);
    return result;
}

static int restore_attributes(PyObject *instance, PyObject *attributes)
{
    Py_ssize_t position = 0;
    PyObject *name, *value;
    while (PyDict_Next(attributes, &position, &name, &value)) {
        if (restore_attribute(instance, name, value) < 0) {
            return -1;
        }
    }
    return 0;
}

static int restore_slots(PyObject *instance, const sa_rule *rule, PyObject *slots)
{
    for (Py_ssize_t place = 0; place + 1 < PyTuple_GET_SIZE(slots); place += 2) {
        Py_ssize_t number = PyLong_AsSsize_t(PyTuple_GET_ITEM(slots, place));
        if (number < 0 || number >= rule->slot_count) {
            if (!PyErr_Occurred()) {
                PyErr_Format(PyExc_ValueError, "slot %zd of %zd of %s", number, rule->slot_count,
                             Py_TYPE(instance)->tp_name);
            }
            return -1;
        }
        PyObject **slot = (PyObject **)((char *)instance + rule->slot_offset[number]);
        Py_XSETREF(*slot, Py_NewRef(PyTuple_GET_ITEM(slots, place + 1)));
    }
    return 0;
}

int sa_instance_restore(PyObject *instance, const sa_rule *rule, PyObject *attributes, PyObject *slots)
{
    if (slots != Py_None && (!PyTuple_CheckExact(slots) || restore_slots(instance, rule, slots) < 0)) {
        return PyErr_Occurred() ? -1 : (PyErr_SetString(PyExc_TypeError, "slots must be a tuple"), -1);
    }
    if (attributes == Py_None) {
        return 0;
    }
    if (!PyDict_CheckExact(attributes)) {
        PyErr_SetString(PyExc_TypeError, "attributes must be a dict");
        return -1;
    }
    return restore_attributes(instance, attributes);
}

/* ---- items of dicts ---- */

PyObject *sa_dict_items(PyObject *dict)
{
    PyObject *items = PyList_New(2 * PyDict_GET_SIZE(dict));
    Py_ssize_t position = 0, place = 0;
    PyObject *key, *value;
    while (items != NULL && PyDict_Next(dict, &position, &key, &value)) {
        PyList_SET_ITEM(items, place++, Py_NewRef(key));
        PyList_SET_ITEM(items, place++, Py_NewRef(value));
    }
    return items;
}

int sa_dict_fill(PyObject *dict, PyObject *items)
{
    for (Py_ssize_t place = 0; place + 1 < PyList_GET_SIZE(items); place += 2) {
        PyObject *key = Py_NewRef(PyList_GET_ITEM(items, place)); /* a hash written in Python could change the list */
        PyObject *value = Py_NewRef(PyList_GET_ITEM(items, place + 1));
        int result = PyODict_Check(dict) ? PyODict_SetItem(dict, key, value) : PyDict_SetItem(dict, key, value);
        Py_DECREF(key);
        Py_DECREF(value);
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}
