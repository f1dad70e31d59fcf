/* layout.h: the parts of CPython's and numpy's objects that no public header shows, by version.
 *
 * Nouns
 *   managed dict    where an instance keeps the pointer to its attribute dict: before the object, not in it
 *   values          the attribute values of an instance that has no dict yet, ordered by a small byte array
 *
 *   3.11   [-4] values pointer   [-3] dict pointer        (one of them is NULL)
 *   3.12   [-4] weak references  [-3] dict pointer, or values pointer - 1 (odd)
 *   3.13   [-4] weak references  [-3] dict pointer, and values inline behind the object (may both be in use)
 *
 *   values, 3.11 and 3.12:  order[n-1] .. order[0] | count | prefix bytes | value value ...   (pointer is to the first value)
 *   values, 3.13:           capacity | count | embedded | valid | value value ... | order[0] .. order[n-1]
 *
 * Invariants
 *   1. Everything here only reads.
 *   2. A mirror of a private struct is trusted only after the self-tests of _closure.pyx, made at import, agreed.
 *
 * Thread rule: GIL held. Cost: a few loads each.
 */
#ifndef SA_LAYOUT_H
#define SA_LAYOUT_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#if PY_VERSION_HEX < 0x030B0000
#error "CPython 3.11 or newer is needed"
#endif
#ifdef Py_GIL_DISABLED
#error "reference counts of a free-threaded build cannot be compared: build for the GIL"
#endif

#ifndef Py_TPFLAGS_MANAGED_DICT
#define Py_TPFLAGS_MANAGED_DICT (1UL << 4)
#endif
#ifdef Py_TPFLAGS_PREHEADER
#define SA_PREHEADER_FLAGS Py_TPFLAGS_PREHEADER
#else
#define SA_PREHEADER_FLAGS Py_TPFLAGS_MANAGED_DICT
#endif

static inline int sa_is_immortal(PyObject *object)
{
#if PY_VERSION_HEX >= 0x030C0000
    return _Py_IsImmortal(object);
#else
    (void)object;
    return 0;
#endif
}

#if PY_VERSION_HEX >= 0x030C0000
#define SA_FIRST_DIGIT long_value.ob_digit
#else
#define SA_FIRST_DIGIT ob_digit
#endif

/* ---- attribute dicts ---- */

typedef struct sa_attributes {
    PyObject *dict;         /* the materialised dict, or NULL */
    PyObject *const *value; /* values without a dict, in order, may hold NULL; NULL when there are none */
    int value_count;
    Py_ssize_t value_bytes; /* size of the separate allocation of the values, 0 when they are inline */
} sa_attributes;

typedef struct sa_dict_keys_head { /* PyDictKeysObject of 3.11 to 3.13 without its tables */
    Py_ssize_t references;
    uint8_t log2_size;
    uint8_t log2_index_bytes;
    uint8_t kind; /* 0 general, 1 str keys, 2 shared by instances */
    uint32_t version;
    Py_ssize_t usable;
    Py_ssize_t entries;
} sa_dict_keys_head;
_Static_assert(sizeof(sa_dict_keys_head) == 32, "layout of PyDictKeysObject");

static inline Py_ssize_t sa_shared_key_capacity(PyTypeObject *type)
{
    const sa_dict_keys_head *keys = (const sa_dict_keys_head *)((PyHeapTypeObject *)type)->ht_cached_keys;
    return keys == NULL ? 0 : keys->usable + keys->entries;
}

#if PY_VERSION_HEX >= 0x030D0000
typedef struct sa_inline_values { /* struct _dictvalues of 3.13 */
    uint8_t capacity;
    uint8_t count;
    uint8_t embedded;
    uint8_t valid;
    PyObject *value[1];
} sa_inline_values;

static inline const sa_inline_values *sa_inline_values_of(PyObject *object)
{
    return (const sa_inline_values *)((char *)object + Py_TYPE(object)->tp_basicsize);
}
#endif

/* The attributes of an object whose type has Py_TPFLAGS_MANAGED_DICT. */
static inline sa_attributes sa_managed_attributes(PyObject *object)
{
    sa_attributes found = {NULL, NULL, 0, 0};
    void **slot = (void **)object - 3;
#if PY_VERSION_HEX >= 0x030D0000
    found.dict = *slot;
    if (found.dict == NULL && (Py_TYPE(object)->tp_flags & Py_TPFLAGS_INLINE_VALUES)) {
        const sa_inline_values *values = sa_inline_values_of(object);
        if (values->valid) {
            found.value = values->value;
            found.value_count = values->capacity;
        }
    }
#else
    PyObject **values;
#if PY_VERSION_HEX >= 0x030C0000
    uintptr_t tagged = (uintptr_t)*slot;
    values = (tagged & 1) ? (PyObject **)(tagged + 1) : NULL;
    if (values == NULL) {
        found.dict = (PyObject *)tagged;
    }
#else
    values = *(slot - 1);
    found.dict = *slot;
#endif
    if (values != NULL) {
        Py_ssize_t capacity = sa_shared_key_capacity(Py_TYPE(object));
        found.value = values;
        found.value_count = (int)capacity;
        found.value_bytes = ((const uint8_t *)values)[-1] + capacity * (Py_ssize_t)sizeof(PyObject *);
    }
#endif
    return found;
}

/* Where an unmanaged attribute dict pointer lies; tp_dictoffset is not 0. */
static inline PyObject **sa_dict_slot(PyObject *object, Py_ssize_t offset)
{
    if (offset < 0) { /* behind the items of a variable-size object (3.11 only) */
        Py_ssize_t count = Py_SIZE(object);
        offset += (Py_ssize_t)_PyObject_VAR_SIZE(Py_TYPE(object), count < 0 ? -count : count);
    }
    return (PyObject **)((char *)object + offset);
}

/* ---- containers implemented in C modules, up to the last field that is read ---- */

typedef struct sa_defaultdict { /* defdictobject, Modules/_collectionsmodule.c */
    PyDictObject dict;
    PyObject *default_factory;
} sa_defaultdict;

typedef struct sa_deque { /* dequeobject, Modules/_collectionsmodule.c */
    PyObject_VAR_HEAD
    void *left_block;
    void *right_block;
    Py_ssize_t left_index;
} sa_deque;

enum { SA_DEQUE_BLOCK_ITEMS = 64, SA_DEQUE_BLOCK_BYTES = 8 * (64 + 2) };

typedef struct sa_ordered_dict { /* struct _odictobject, Objects/odictobject.c */
    PyDictObject dict;
    void *first;
    void *last;
    void *fast_nodes;
    Py_ssize_t fast_node_count;
} sa_ordered_dict;

enum { SA_ORDERED_DICT_NODE_BYTES = 32 };

typedef struct sa_array { /* arrayobject, Modules/arraymodule.c */
    PyObject_VAR_HEAD
    char *items;
    Py_ssize_t allocated;
    const struct {
        char typecode;
        int item_bytes;
    } *description;
} sa_array;

typedef struct sa_decimal { /* PyDecObject, Modules/_decimal: mpd_t begins with its flags */
    PyObject_HEAD
    Py_hash_t hash;
    uint8_t flags;
} sa_decimal;

enum { SA_DECIMAL_NAN = 4 | 8 }; /* MPD_NAN | MPD_SNAN */

/* ---- numpy: PyArrayObject_fields, stable since numpy 1.0; the descriptor changed in 2.0 ---- */

typedef struct sa_ndarray {
    PyObject_HEAD
    char *data;
    int dimension_count;
    Py_ssize_t *shape;
    Py_ssize_t *strides;
    PyObject *base;
    PyObject *dtype;
    int flags;
    PyObject *weak_references;
} sa_ndarray;

enum { SA_NDARRAY_OWNS_DATA = 0x0004, SA_NDARRAY_WRITEABLE = 0x0400, SA_NDARRAY_WRITE_BACK = 0x2000 };

typedef struct sa_dtype_head {
    PyObject_HEAD
    PyTypeObject *scalar_type;
    char kind;
    char letter;
    char byte_order;
    unsigned char old_flags; /* numpy 1 */
    int type_number;
    uint64_t new_flags; /* numpy 2 */
} sa_dtype_head;

enum { SA_DTYPE_HOLDS_OBJECTS = 1, SA_DTYPE_BUILTIN_COUNT = 24, SA_DTYPE_METADATA_1 = 72, SA_DTYPE_METADATA_2 = 56 };

/* Bytes of the data that an owning array allocated: its items lie densely, in whatever order of axes. */
static inline Py_ssize_t sa_ndarray_data_bytes(const sa_ndarray *array)
{
    Py_ssize_t largest = 0;
    if (!(array->flags & SA_NDARRAY_OWNS_DATA)) {
        return 0;
    }
    for (int axis = 0; axis < array->dimension_count; axis++) {
        Py_ssize_t span = array->shape[axis] * array->strides[axis];
        if (array->shape[axis] == 0) {
            return 0;
        }
        if (span > largest) {
            largest = span;
        }
    }
    return largest;
}

#endif
