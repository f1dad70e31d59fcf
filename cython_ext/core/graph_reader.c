/* graph_reader.c: bytes to a graph of builtin objects; nouns, invariants, thread rule and cost are in graph_stream.h.
 *
 * Layout
 *   frame[0 .. frame_count)   containers begun: the object, and how many of its items are still to come
 *   shared[0 .. shared_count) offset of a shared tag -> its object; sorted, since offsets only grow while reading
 *   owed                      objects that the containers begun still need; each takes at least one byte
 *
 * A shared object is borrowed: the graph holds it. Nothing that was read is dropped before the reading ends, for the only
 * way to drop a part, a key or member given twice, ends it.
 *
 * A *tangled* object leads to one that was not complete when it was referred to. Hashing it could meet the hole, so
 * neither may stand in a key or member. No real graph has one there: a cycle leads through something unhashable.
 */
#include "graph_stream.h"

#include "scratch.h"
#include "set_order.h"

#include <string.h>

enum { FRAMES_ON_STACK = 24, SHARED_ON_STACK = 16, VARINT_BITS_MAX = 63, DIGITS_MAX = 1 << 28 };

typedef struct frame {
    PyObject *container; /* owned */
    PyObject *key;       /* DICT: owned, waiting for its value, else NULL */
    Py_ssize_t left;     /* items (DICT: keys and values) still to come */
    Py_ssize_t next;     /* LIST, TUPLE: index of the next item */
    uint32_t shared;     /* 1 + number in `shared`, 0 for none */
    uint32_t tangles;    /* of the reader when this began */
    uint8_t tag;         /* without SA_TAG_SHARED, the long form */
    uint8_t item_depth;  /* levels within a key or member that an item is at, but for keys */
    uint8_t holds_gc;    /* TUPLE: an item may be in a cycle */
} frame;
_Static_assert(sizeof(frame) == 48, "three quarters of a cache line");

typedef struct shared_object {
    uint64_t offset;
    PyObject *object; /* borrowed */
    int clean;        /* complete, and not tangled */
} shared_object;

typedef struct reader {
    const uint8_t *start, *at, *end;
    size_t owed;
    frame *frame;
    size_t frame_count, frame_capacity;
    shared_object *shared;
    size_t shared_count, shared_capacity;
    uint32_t tangles;
    PyObject *damage;
    frame frame_on_stack[FRAMES_ON_STACK];
    shared_object shared_on_stack[SHARED_ON_STACK];
} reader;

static int damaged(const reader *in, const char *what)
{
    PyErr_Format(in->damage, "the graph stream is damaged at byte %zd: %s", (Py_ssize_t)(in->at - in->start), what);
    return -1;
}

static PyObject *no_object(const reader *in, const char *what)
{
    damaged(in, what);
    return NULL;
}

/* ---- bytes ---- */

static int get_varint_slow(reader *in, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift <= VARINT_BITS_MAX && in->at < in->end; shift += 7) {
        uint64_t byte = *in->at++;
        if (shift == VARINT_BITS_MAX && byte > 1) {
            break;
        }
        *value |= (byte & 0x7F) << shift;
        if (byte < 0x80) {
            return 0;
        }
    }
    return damaged(in, "a number is cut short or too long");
}

static inline int get_varint(reader *in, uint64_t *value)
{
    if (in->at < in->end && *in->at < 0x80) {
        *value = *in->at++;
        return 0;
    }
    return get_varint_slow(in, value);
}

/* Bytes left that nobody is owed. */
static inline size_t free_bytes(const reader *in)
{
    size_t left = (size_t)(in->end - in->at);
    return left > in->owed ? left - in->owed : 0;
}

/* The next `count` units of `unit` bytes, which nobody else is owed; NULL when they are not there. */
static inline const uint8_t *take(reader *in, uint64_t count, size_t unit)
{
    const uint8_t *data = in->at;
    if (count > free_bytes(in) / unit) {
        damaged(in, "a length goes beyond its end");
        return NULL;
    }
    in->at += count * unit;
    return data;
}

static int owe(reader *in, uint64_t count)
{
    if (count > free_bytes(in)) {
        return damaged(in, "a count goes beyond its end");
    }
    in->owed += count;
    return 0;
}

/* ---- sharing ---- */

static int grow(void **memory, size_t *capacity, size_t item_bytes, const void *on_stack)
{
    size_t wanted = 2 * *capacity;
    int first = *memory == on_stack;
    void *larger = wanted > PY_SSIZE_T_MAX / item_bytes ? NULL
                                                        : PyMem_RawRealloc(first ? NULL : *memory, wanted * item_bytes);
    if (larger == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (first) {
        memcpy(larger, on_stack, *capacity * item_bytes);
    }
    *memory = larger;
    *capacity = wanted;
    return 0;
}

static int share(reader *in, uint64_t offset, PyObject *object, int clean)
{
    if (in->shared_count == in->shared_capacity &&
        grow((void **)&in->shared, &in->shared_capacity, sizeof *in->shared, in->shared_on_stack) < 0) {
        return -1;
    }
    in->shared[in->shared_count++] = (shared_object){offset, object, clean};
    return 0;
}

static PyObject *read_reference(reader *in, unsigned depth)
{
    uint64_t offset;
    if (get_varint(in, &offset) < 0) {
        return NULL;
    }
    size_t low = 0, high = in->shared_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (in->shared[middle].offset < offset) {
            low = middle + 1;
        }
        else {
            high = middle;
        }
    }
    if (low == in->shared_count || in->shared[low].offset != offset) {
        return no_object(in, "a reference to nothing");
    }
    if (!in->shared[low].clean) {
        if (depth > 0) {
            return no_object(in, "a key or member that leads to itself");
        }
        in->tangles++;
    }
    return Py_NewRef(in->shared[low].object);
}

/* ---- atoms ---- */

static PyObject *checked_text(const reader *in, PyObject *text)
{
    return text != NULL || PyErr_Occurred() ? text : no_object(in, "characters that are not ASCII");
}

static PyObject *read_ascii(reader *in, uint64_t length)
{
    const uint8_t *data = take(in, length, 1);
    return data == NULL ? NULL : checked_text(in, sa_ascii_str(data, length));
}

static PyObject *read_key(reader *in, size_t length)
{
    const uint8_t *data = take(in, length, 1);
    return data == NULL ? NULL : checked_text(in, sa_cached_key(data, length));
}

/* Characters of 1, 2 or 4 bytes, one of which needs so many. */
static PyObject *read_wide(reader *in, size_t unit)
{
    static const Py_UCS4 most[] = {0, 0xFF, 0xFFFF, 0, 0x10FFFF};
    static const Py_UCS4 least[] = {0, 0x80, 0x100, 0, 0x10000};
    uint64_t count;
    const uint8_t *data = get_varint(in, &count) < 0 ? NULL : take(in, count, unit);
    if (data == NULL) {
        return NULL;
    }
    Py_UCS4 largest = sa_largest_character(data, count, unit);
    if (largest < least[unit] || largest > most[unit]) {
        return no_object(in, "characters that are not of their width");
    }
    if (count == 1) {
        return PyUnicode_FromOrdinal((int)largest);
    }
    PyObject *text = PyUnicode_New((Py_ssize_t)count, most[unit]);
    if (text != NULL) {
        memcpy(PyUnicode_DATA(text), data, count * unit);
    }
    return text;
}

static PyObject *read_int(reader *in)
{
    uint64_t zigzag;
    if (get_varint(in, &zigzag) < 0) {
        return NULL;
    }
    return PyLong_FromLongLong((long long)((zigzag >> 1) ^ (0 - (zigzag & 1))));
}

static PyObject *read_big_int(reader *in)
{
    uint64_t length;
    const uint8_t *data = get_varint(in, &length) < 0 ? NULL : take(in, length, 1);
    if (data == NULL) {
        return NULL;
    }
    return length > DIGITS_MAX ? no_object(in, "an int that is too long") : _PyLong_FromByteArray(data, length, 1, 1);
}

static PyObject *read_float(reader *in)
{
    double value;
    const uint8_t *data = take(in, 1, sizeof value);
    if (data == NULL) {
        return NULL;
    }
    memcpy(&value, data, sizeof value);
    return PyFloat_FromDouble(value);
}

static PyObject *read_complex(reader *in)
{
    double value[2];
    const uint8_t *data = take(in, 1, sizeof value);
    if (data == NULL) {
        return NULL;
    }
    memcpy(value, data, sizeof value);
    return PyComplex_FromDoubles(value[0], value[1]);
}

static PyObject *read_blob(reader *in, unsigned tag)
{
    uint64_t length;
    const uint8_t *data = get_varint(in, &length) < 0 ? NULL : take(in, length, 1);
    if (data == NULL) {
        return NULL;
    }
    return tag == SA_TAG_BYTES ? PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)length)
                               : PyByteArray_FromStringAndSize((const char *)data, (Py_ssize_t)length);
}

static PyObject *read_floats(reader *in, int is_list)
{
    uint64_t count;
    const uint8_t *data = get_varint(in, &count) < 0 ? NULL : take(in, count, sizeof(double));
    if (data == NULL) {
        return NULL;
    }
    PyObject *items = is_list ? PyList_New((Py_ssize_t)count) : PyTuple_New((Py_ssize_t)count);
    if (items == NULL) {
        return NULL;
    }
    PyObject **item = is_list ? ((PyListObject *)items)->ob_item : ((PyTupleObject *)items)->ob_item;
    for (size_t index = 0; index < count; index++) {
        double value;
        memcpy(&value, data + index * sizeof value, sizeof value);
        item[index] = PyFloat_FromDouble(value);
        if (item[index] == NULL) {
            Py_DECREF(items);
            return NULL;
        }
    }
    if (!is_list) {
        PyObject_GC_UnTrack(items); /* floats are in no cycle */
    }
    return items;
}

/* ---- containers ---- */

static PyObject *new_container(unsigned tag, Py_ssize_t count)
{
    PyObject *made;
    switch (tag) {
    case SA_TAG_DICT:
        return PyDict_New();
    case SA_TAG_SET:
    case SA_TAG_ODD_SET:
    case SA_TAG_SEEDED_SET:
        return PySet_New(NULL);
    case SA_TAG_FROZENSET:
    case SA_TAG_ODD_FROZENSET:
    case SA_TAG_SEEDED_FROZENSET:
        return PyFrozenSet_New(NULL);
    default:
        made = tag == SA_TAG_LIST ? PyList_New(count) : PyTuple_New(count);
        if (made != NULL && count > 0) {
            PyObject_GC_UnTrack(made); /* until it is complete */
        }
        return made;
    }
}

/* Start a container; the frame is on top, and the caller goes on with its first item. */
static int begin(reader *in, unsigned tag, uint64_t count, uint64_t shared_at, unsigned depth)
{
    if (count > PY_SSIZE_T_MAX / 2) {
        return damaged(in, "a count goes beyond its end");
    }
    uint64_t needed = tag == SA_TAG_DICT ? 2 * count : count;
    if (owe(in, needed) < 0) {
        return -1;
    }
    int is_ordered = tag == SA_TAG_LIST || tag == SA_TAG_TUPLE;
    unsigned item_depth = tag == SA_TAG_DICT || (is_ordered && depth == 0) ? 0 : depth + 1;
    if (item_depth > SA_HASH_DEPTH_MAX + 1) {
        return damaged(in, "a key or member that is nested too deeply");
    }
    if (in->frame_count == in->frame_capacity &&
        grow((void **)&in->frame, &in->frame_capacity, sizeof *in->frame, in->frame_on_stack) < 0) {
        return -1;
    }
    PyObject *made = new_container(tag, (Py_ssize_t)count);
    if (made == NULL) {
        return -1;
    }
    frame *top = &in->frame[in->frame_count++];
    *top = (frame){made, NULL, (Py_ssize_t)needed, 0, 0, in->tangles, (uint8_t)tag, (uint8_t)item_depth, 0};
    if (shared_at != 0) {
        if (share(in, shared_at, made, 0) < 0) {
            return -1;
        }
        top->shared = (uint32_t)in->shared_count;
    }
    return 0;
}

static int read_layout(reader *in, PyObject *set, int is_seeded)
{
    uint32_t seed = 0;
    uint64_t deleted, mask, finger;
    sa_set_places layout = {.member_count = PySet_GET_SIZE(set)};
    if (is_seeded) {
        const uint8_t *data = take(in, 1, sizeof seed);
        if (data == NULL) {
            return -1;
        }
        memcpy(&seed, data, sizeof seed);
    }
    if (get_varint(in, &deleted) < 0 || get_varint(in, &mask) < 0 || get_varint(in, &finger) < 0) {
        return -1;
    }
    layout.members = (const char *)take(in, (uint64_t)layout.member_count, 4);
    layout.deleted = layout.members == NULL ? NULL : (const char *)take(in, deleted, 4);
    if (layout.deleted == NULL) {
        return -1;
    }
    uint64_t fill = deleted + (uint64_t)layout.member_count;
    if (mask / SA_SET_SPREAD_MAX >= fill + SA_SET_SPREAD_FREE || finger > PY_SSIZE_T_MAX) {
        return damaged(in, "a table of a set that is too large");
    }
    layout.deleted_count = (Py_ssize_t)deleted;
    layout.mask = (Py_ssize_t)mask;
    layout.finger = (Py_ssize_t)finger;
    if (is_seeded && seed != sa_process_seed() && seed != sa_int_seed()) {
        return 0;
    }
    return sa_set_arrange_places(set, &layout);
}

/* The container on top has all its items: take it off. New reference (the frame's own). */
static PyObject *complete(reader *in)
{
    frame *top = &in->frame[in->frame_count - 1];
    PyObject *made = top->container;
    int is_seeded = top->tag == SA_TAG_SEEDED_SET || top->tag == SA_TAG_SEEDED_FROZENSET;
    int is_odd = is_seeded || top->tag == SA_TAG_ODD_SET || top->tag == SA_TAG_ODD_FROZENSET;
    if (is_odd && read_layout(in, made, is_seeded) < 0) {
        return NULL;
    }
    if ((top->tag == SA_TAG_LIST && top->next > 0) || (top->tag == SA_TAG_TUPLE && top->holds_gc)) {
        PyObject_GC_Track(made);
    }
    if (top->shared != 0) {
        in->shared[top->shared - 1].clean = top->tangles == in->tangles;
    }
    in->frame_count--;
    return made;
}

/* Give `item`, a new reference, to the container on top. */
static int deliver(reader *in, PyObject *item)
{
    frame *top = &in->frame[in->frame_count - 1];
    PyObject *key = top->key;
    int failed;
    top->left--;
    switch (top->tag) {
    case SA_TAG_LIST:
        ((PyListObject *)top->container)->ob_item[top->next++] = item;
        return 0;
    case SA_TAG_TUPLE:
        ((PyTupleObject *)top->container)->ob_item[top->next++] = item;
        top->holds_gc |= (uint8_t)PyObject_IS_GC(item);
        return 0;
    case SA_TAG_DICT:
        if (key == NULL) {
            top->key = item;
            return 0;
        }
        top->key = NULL;
        failed = PyDict_SetItem(top->container, key, item) < 0 || PyDict_GET_SIZE(top->container) != ++top->next;
        Py_DECREF(key);
        break;
    default:
        failed = PySet_Add(top->container, item) < 0 || PySet_GET_SIZE(top->container) != ++top->next;
        break;
    }
    Py_DECREF(item);
    return !failed ? 0 : PyErr_Occurred() ? -1 : damaged(in, "a key or member that is there twice");
}

/* ---- any object ---- */

/* A complete object, as a new reference; NULL after an exception, or when a container was begun. */
static PyObject *read_long_form(reader *in, unsigned tag, uint64_t shared_at, unsigned depth)
{
    uint64_t count;
    switch (tag) {
    case SA_TAG_NONE:
        return Py_NewRef(Py_None);
    case SA_TAG_FALSE:
        return Py_NewRef(Py_False);
    case SA_TAG_TRUE:
        return Py_NewRef(Py_True);
    case SA_TAG_INT:
        return read_int(in);
    case SA_TAG_BIG_INT:
        return read_big_int(in);
    case SA_TAG_FLOAT:
        return read_float(in);
    case SA_TAG_COMPLEX:
        return read_complex(in);
    case SA_TAG_REFERENCE:
        return read_reference(in, depth);
    case SA_TAG_ASCII:
        return get_varint(in, &count) < 0 ? NULL : read_ascii(in, count);
    case SA_TAG_LATIN1:
        return read_wide(in, 1);
    case SA_TAG_UCS2:
        return read_wide(in, 2);
    case SA_TAG_UCS4:
        return read_wide(in, 4);
    case SA_TAG_BYTES:
    case SA_TAG_BYTEARRAY:
        return read_blob(in, tag);
    case SA_TAG_FLOAT_LIST:
    case SA_TAG_FLOAT_TUPLE:
        return read_floats(in, tag == SA_TAG_FLOAT_LIST);
    default:
        if (tag < SA_TAG_LIST || tag > SA_TAG_SEEDED_FROZENSET) {
            return no_object(in, "an unknown tag");
        }
        if (get_varint(in, &count) == 0) {
            begin(in, tag, count, shared_at, depth);
        }
        return NULL;
    }
}

/* Like read_long_form, for the tag at hand. */
static PyObject *read_object(reader *in, unsigned depth, int is_key)
{
    if (in->at >= in->end) {
        return no_object(in, "it ends too early");
    }
    in->owed--;
    uint64_t shared_at = 0; /* no tag is at offset 0: the version is */
    unsigned tag = *in->at++;
    PyObject *made;
    if (tag & SA_TAG_SHARED) {
        shared_at = (uint64_t)(in->at - 1 - in->start);
        tag &= ~(unsigned)SA_TAG_SHARED;
    }
    if (tag >= SA_TAG_SMALL_INT) {
        made = PyLong_FromLong((long)tag - SA_TAG_SMALL_INT);
    }
    else if (tag >= SA_TAG_SHORT_DICT) {
        begin(in, SA_TAG_DICT, tag - SA_TAG_SHORT_DICT, shared_at, depth);
        return NULL;
    }
    else if (tag >= SA_TAG_SHORT_LIST) {
        begin(in, tag >= SA_TAG_SHORT_TUPLE ? SA_TAG_TUPLE : SA_TAG_LIST, tag & SA_SHORT_ITEMS_MAX, shared_at, depth);
        return NULL;
    }
    else if (tag >= SA_TAG_SHORT_ASCII) {
        made = is_key ? read_key(in, tag - SA_TAG_SHORT_ASCII) : read_ascii(in, tag - SA_TAG_SHORT_ASCII);
    }
    else {
        made = read_long_form(in, tag, shared_at, depth);
    }
    if (shared_at != 0 && made != NULL && tag != SA_TAG_REFERENCE && share(in, shared_at, made, 1) < 0) {
        Py_CLEAR(made);
    }
    return made;
}

static PyObject *read_graph(reader *in)
{
    PyObject *made = read_object(in, 0, 0);
    while (made == NULL ? !PyErr_Occurred() : in->frame_count > 0) {
        if (made != NULL && deliver(in, made) < 0) {
            return NULL;
        }
        frame *top = &in->frame[in->frame_count - 1];
        if (top->left == 0) {
            made = complete(in);
            continue;
        }
        int is_key = top->tag == SA_TAG_DICT && top->key == NULL;
        made = read_object(in, is_key ? 1 : top->item_depth, is_key);
    }
    if (made != NULL && in->at != in->end) {
        Py_DECREF(made);
        return no_object(in, "it goes on after its end");
    }
    return made;
}

/* What hashing or arranging said of crafted bytes is damage; only a lack of memory is not. */
static void explain(const reader *in)
{
    if (!PyErr_ExceptionMatches(PyExc_MemoryError) && !PyErr_ExceptionMatches(in->damage)) {
        PyErr_Clear();
        damaged(in, "a part that could not be made");
    }
}

PyObject *sa_graph_read(const uint8_t *data, Py_ssize_t length, PyObject *damage)
{
    reader in;
    in.start = in.at = data;
    in.end = data + length;
    in.owed = 1;
    in.frame = in.frame_on_stack;
    in.shared = in.shared_on_stack;
    in.frame_capacity = FRAMES_ON_STACK;
    in.shared_capacity = SHARED_ON_STACK;
    in.frame_count = in.shared_count = in.tangles = 0;
    in.damage = damage;
    if (length < 2 || *in.at++ != SA_GRAPH_VERSION || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__) {
        return no_object(&in, "not of this version");
    }
    /* What is being made cannot be garbage, and a value of many containers would start one collection after another. */
    int collects = PyGC_Disable();
    PyObject *made = read_graph(&in);
    if (collects) { PyGC_Enable(); }
    if (made == NULL) {
        explain(&in);
    }
    while (in.frame_count > 0) {
        frame *top = &in.frame[--in.frame_count];
        Py_XDECREF(top->key);
        Py_DECREF(top->container);
    }
    if (in.frame != in.frame_on_stack) {
        PyMem_RawFree(in.frame);
    }
    if (in.shared != in.shared_on_stack) {
        PyMem_RawFree(in.shared);
    }
    return made;
}
