/* graph_writer.c: a graph of builtin objects to bytes; nouns, invariants, thread rule and cost are in graph_stream.h.
 *
 * Layout
 *   frame[0 .. frame_count)   containers begun: the object, and how far its items are written
 *   seen                      object -> offset of its tag, for objects that more than one reference exists to
 *
 * An object met again gets bit 7 of its first tag set then, so a stream has no trace of references from outside.
 */
#include "graph_stream.h"

#include "scratch.h"
#include "set_order.h"

#include <string.h>

enum {
    BUFFER_AT_FIRST = 1024,
    BUFFER_KEPT = 1 << 16, /* memory beyond this is given back after the call */
    VARINT_BYTES_MAX = 10,
    HEADER_BYTES_MAX = 1 + VARINT_BYTES_MAX,
    APART_BYTES_MAX = 1 << 24 /* of a stream with ATOMS_APART: a list of one string a million times is no longer */
};

typedef enum outcome { DONE, BEGUN, REFUSED, NO_MEMORY } outcome; /* BEGUN: a container, whose frame is on top now */

typedef enum kind { KIND_ITEMS, KIND_PAIRS, KIND_MEMBERS } kind;

typedef struct frame {
    PyObject *object;
    PyObject *value;     /* PAIRS: to be written when its key is complete, else NULL */
    Py_ssize_t position; /* of the next item, or of PyDict_Next */
    uint8_t kind;
    uint8_t depth; /* levels within a key or member, 0: not in one */
    uint8_t odd;   /* MEMBERS: the layout follows */
} frame;
_Static_assert(sizeof(frame) == 32, "two of them in a cache line");

typedef struct writer {
    uint8_t *start;
    size_t length, capacity;
    frame *frame;
    size_t frame_count, frame_capacity;
    sa_scratch seen;
    int how;
} writer;

static writer the_writer;

/* ---- bytes ---- */

static int widen(writer *out, size_t more)
{
    size_t wanted = out->capacity == 0 ? BUFFER_AT_FIRST : 2 * out->capacity;
    while (wanted - out->length < more) {
        if (wanted > PY_SSIZE_T_MAX / 2) {
            return -1;
        }
        wanted *= 2;
    }
    uint8_t *larger = PyMem_RawRealloc(out->start, wanted);
    if (larger == NULL) {
        return -1;
    }
    out->start = larger;
    out->capacity = wanted;
    return 0;
}

/* Room for a header and `more` bytes behind it. */
static inline int reserve(writer *out, size_t more)
{
    if (more > PY_SSIZE_T_MAX - 2 * HEADER_BYTES_MAX) {
        return -1;
    }
    return out->capacity - out->length < more + HEADER_BYTES_MAX ? widen(out, more + HEADER_BYTES_MAX) : 0;
}

static inline void put_byte(writer *out, unsigned byte)
{
    out->start[out->length++] = (uint8_t)byte;
}

static inline void put_varint(writer *out, uint64_t value)
{
    while (value >= 0x80) {
        put_byte(out, (unsigned)(value & 0x7F) | 0x80);
        value >>= 7;
    }
    put_byte(out, (unsigned)value);
}

static inline void put_data(writer *out, const void *data, size_t length)
{
    memcpy(out->start + out->length, data, length);
    out->length += length;
}

/* The tag of a container or string: with the count in it when that is short, else with the count behind it. */
static inline void put_head(writer *out, unsigned short_tag, size_t short_max, unsigned tag, size_t count)
{
    if (count <= short_max) {
        put_byte(out, short_tag + (unsigned)count);
        return;
    }
    put_byte(out, tag);
    put_varint(out, count);
}

/* ---- sharing ---- */

/* Whether `object` was written before: then a reference is written now. */
static outcome refer(writer *out, PyObject *object)
{
    sa_entry *found = sa_scratch_find(&out->seen, object);
    if (found == NULL) {
        return sa_scratch_add(&out->seen, object, (Py_ssize_t)out->length) == NULL ? NO_MEMORY : BEGUN;
    }
    out->start[found->unexplained] |= SA_TAG_SHARED;
    put_byte(out, SA_TAG_REFERENCE);
    put_varint(out, (uint64_t)found->unexplained);
    return DONE;
}

/* ---- atoms ---- */

/* Without references to atoms a small graph could make a stream without end. */
static inline int is_too_long(const writer *out, size_t more)
{
    return out->how & SA_GRAPH_ATOMS_APART && out->length + more > APART_BYTES_MAX;
}

static outcome write_big_int(writer *out, PyObject *object)
{
    size_t bits = _PyLong_NumBits(object);
    if (bits == (size_t)-1) {
        PyErr_Clear();
        return REFUSED;
    }
    size_t length = bits / 8 + 1;
    if (reserve(out, length) < 0) {
        return NO_MEMORY;
    }
    put_byte(out, SA_TAG_BIG_INT);
    put_varint(out, length);
#if PY_VERSION_HEX >= 0x030D0000
    int failed = _PyLong_AsByteArray((PyLongObject *)object, out->start + out->length, length, 1, 1, 0) < 0;
#else
    int failed = _PyLong_AsByteArray((PyLongObject *)object, out->start + out->length, length, 1, 1) < 0;
    if (failed) {
        PyErr_Clear();
    }
#endif
    out->length += length;
    return failed ? REFUSED : DONE;
}

static outcome write_int(writer *out, PyObject *object)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow != 0) {
        return write_big_int(out, object);
    }
    if (value >= 0 && value <= SA_SMALL_INT_MAX) {
        put_byte(out, SA_TAG_SMALL_INT + (unsigned)value);
        return DONE;
    }
    put_byte(out, SA_TAG_INT);
    put_varint(out, ((uint64_t)value << 1) ^ (value < 0 ? UINT64_MAX : 0));
    return DONE;
}

static outcome write_str(writer *out, PyObject *object)
{
    size_t count = (size_t)PyUnicode_GET_LENGTH(object);
    int unit = PyUnicode_KIND(object); /* bytes of a character */
    if (Py_REFCNT(object) > 1 && count >= SA_SHARED_LENGTH_MIN && !(out->how & SA_GRAPH_ATOMS_APART)) {
        outcome referred = refer(out, object);
        if (referred != BEGUN) {
            return referred;
        }
    }
    if (is_too_long(out, count * (size_t)unit)) {
        return REFUSED;
    }
    if (count > (size_t)PY_SSIZE_T_MAX / 8 || reserve(out, count * (size_t)unit) < 0) {
        return NO_MEMORY;
    }
    if (PyUnicode_IS_ASCII(object)) {
        put_head(out, SA_TAG_SHORT_ASCII, SA_SHORT_ASCII_MAX, SA_TAG_ASCII, count);
    }
    else {
        put_byte(out, unit == 1 ? SA_TAG_LATIN1 : unit == 2 ? SA_TAG_UCS2 : SA_TAG_UCS4);
        put_varint(out, count);
    }
    put_data(out, PyUnicode_DATA(object), count * (size_t)unit);
    return DONE;
}

static outcome write_blob(writer *out, PyObject *object, unsigned tag, const char *data, size_t length)
{
    int is_apart = tag == SA_TAG_BYTES && (length < SA_SHARED_LENGTH_MIN || out->how & SA_GRAPH_ATOMS_APART);
    if (Py_REFCNT(object) > 1 && !is_apart) {
        outcome referred = refer(out, object);
        if (referred != BEGUN) {
            return referred;
        }
    }
    if (is_too_long(out, length)) {
        return REFUSED;
    }
    if (reserve(out, length) < 0) {
        return NO_MEMORY;
    }
    put_byte(out, tag);
    put_varint(out, length);
    put_data(out, data, length);
    return DONE;
}

static outcome write_complex(writer *out, PyObject *object)
{
    double parts[2] = {PyComplex_RealAsDouble(object), PyComplex_ImagAsDouble(object)};
    put_byte(out, SA_TAG_COMPLEX);
    _Static_assert(sizeof parts <= 2 * HEADER_BYTES_MAX, "the room that is always there");
    if (reserve(out, sizeof parts) < 0) {
        return NO_MEMORY;
    }
    put_data(out, parts, sizeof parts);
    return DONE;
}

/* ---- containers ---- */

static outcome begin(writer *out, PyObject *object, kind kind, unsigned depth)
{
    if (depth > SA_HASH_DEPTH_MAX) {
        return REFUSED;
    }
    if (out->frame_count == out->frame_capacity &&
        sa_scratch_grow((void **)&out->frame, &out->frame_capacity, sizeof *out->frame, SA_ITEMS_AT_FIRST) < 0) {
        return NO_MEMORY;
    }
    out->frame[out->frame_count++] = (frame){object, NULL, 0, (uint8_t)kind, (uint8_t)depth, 0};
    return BEGUN;
}

/* A list or tuple of floats alone: DONE when it was one, BEGUN when not, with nothing written. */
static outcome write_floats(writer *out, PyObject *const *item, size_t count, unsigned tag)
{
    size_t start = out->length;
    if (count > (size_t)PY_SSIZE_T_MAX / 8 || reserve(out, 8 * count) < 0) {
        return NO_MEMORY;
    }
    put_byte(out, tag);
    put_varint(out, count);
    for (size_t index = 0; index < count; index++) {
        if (!PyFloat_CheckExact(item[index])) {
            out->length = start;
            return BEGUN;
        }
        double value = PyFloat_AS_DOUBLE(item[index]);
        put_data(out, &value, sizeof value);
    }
    return DONE;
}

static outcome write_items(writer *out, PyObject *object, unsigned depth)
{
    int is_list = PyList_CheckExact(object);
    size_t count = (size_t)Py_SIZE(object);
    PyObject *const *item = is_list ? ((PyListObject *)object)->ob_item : ((PyTupleObject *)object)->ob_item;
    if (Py_REFCNT(object) > 1 && (is_list || count > 0)) {
        outcome referred = refer(out, object);
        if (referred != BEGUN) {
            return referred;
        }
    }
    if (count > 0 && PyFloat_CheckExact(item[0])) {
        outcome result = write_floats(out, item, count, is_list ? SA_TAG_FLOAT_LIST : SA_TAG_FLOAT_TUPLE);
        if (result != BEGUN) {
            return result;
        }
    }
    put_head(out, is_list ? SA_TAG_SHORT_LIST : SA_TAG_SHORT_TUPLE, SA_SHORT_ITEMS_MAX,
             is_list ? SA_TAG_LIST : SA_TAG_TUPLE, count);
    return count == 0 ? DONE : begin(out, object, KIND_ITEMS, depth);
}

static outcome write_dict(writer *out, PyObject *object)
{
    if (Py_REFCNT(object) > 1) {
        outcome referred = refer(out, object);
        if (referred != BEGUN) {
            return referred;
        }
    }
    put_head(out, SA_TAG_SHORT_DICT, SA_SHORT_DICT_MAX, SA_TAG_DICT, (size_t)PyDict_GET_SIZE(object));
    return PyDict_GET_SIZE(object) == 0 ? DONE : begin(out, object, KIND_PAIRS, 0);
}

static outcome write_set(writer *out, PyObject *object, unsigned depth)
{
    const PySetObject *set = (const PySetObject *)object;
    int frozen = PyFrozenSet_CheckExact(object);
    if (out->how & SA_GRAPH_NO_SETS) {
        return REFUSED;
    }
    if (Py_REFCNT(object) > 1 && !(frozen && set->used == 0)) {
        outcome referred = refer(out, object);
        if (referred != BEGUN) {
            return referred;
        }
    }
    int kept = sa_set_order_kept(object);
    if (kept < 0) {
        return NO_MEMORY;
    }
    if (!kept && !sa_set_layout_is_sane(object)) {
        return REFUSED;
    }
    unsigned odd_tag = out->how & SA_GRAPH_PORTABLE ? (frozen ? SA_TAG_SEEDED_FROZENSET : SA_TAG_SEEDED_SET)
                                     : (frozen ? SA_TAG_ODD_FROZENSET : SA_TAG_ODD_SET);
    put_byte(out, kept ? (frozen ? SA_TAG_FROZENSET : SA_TAG_SET) : odd_tag);
    put_varint(out, (uint64_t)set->used);
    outcome result = begin(out, object, KIND_MEMBERS, depth + 1);
    if (result == BEGUN) {
        out->frame[out->frame_count - 1].odd = !kept;
    }
    return result;
}

/* Are all members ints, whose hashes are the same in every process? */
static int holds_ints(const PySetObject *set)
{
    for (Py_ssize_t position = 0; position <= set->mask; position++) {
        const setentry *member = &set->table[position];
        if (member->key != NULL && member->hash != -1 && !PyLong_CheckExact(member->key)) {
            return 0;
        }
    }
    return 1;
}

static outcome write_layout(writer *out, PyObject *object)
{
    const PySetObject *set = (const PySetObject *)object;
    size_t places = (size_t)set->used, deleted = (size_t)(set->fill - set->used);
    uint32_t seed;
    if (reserve(out, sizeof seed + 4 * (places + deleted) + 3 * VARINT_BYTES_MAX) < 0) {
        return NO_MEMORY;
    }
    if (out->how & SA_GRAPH_PORTABLE) {
        seed = holds_ints(set) ? sa_int_seed() : sa_process_seed();
        put_data(out, &seed, sizeof seed);
    }
    put_varint(out, deleted);
    put_varint(out, (uint64_t)set->mask);
    put_varint(out, (uint64_t)set->finger);
    if (sa_set_copy_places(object, (char *)out->start + out->length) < 0) {
        return NO_MEMORY;
    }
    out->length += 4 * (places + deleted);
    return DONE;
}

/* ---- any object ---- */

/* `depth`: levels within a key or member that a container here would be at, 0 outside of one. */
static outcome write_object(writer *out, PyObject *object, unsigned depth)
{
    PyTypeObject *type = Py_TYPE(object);
    if (reserve(out, sizeof(double)) < 0) {
        return NO_MEMORY;
    }
    if (type == &PyUnicode_Type) {
        return write_str(out, object);
    }
    if (type == &PyLong_Type) {
        return write_int(out, object);
    }
    if (type == &PyFloat_Type) {
        double value = PyFloat_AS_DOUBLE(object);
        put_byte(out, SA_TAG_FLOAT);
        put_data(out, &value, sizeof value);
        return DONE;
    }
    if (object == Py_None || type == &PyBool_Type) {
        put_byte(out, object == Py_None ? SA_TAG_NONE : object == Py_True ? SA_TAG_TRUE : SA_TAG_FALSE);
        return DONE;
    }
    if (type == &PyList_Type || type == &PyTuple_Type) {
        return write_items(out, object, depth);
    }
    if (type == &PyDict_Type) {
        return write_dict(out, object);
    }
    if (type == &PyBytes_Type) {
        return write_blob(out, object, SA_TAG_BYTES, PyBytes_AS_STRING(object), (size_t)PyBytes_GET_SIZE(object));
    }
    if (type == &PyByteArray_Type) {
        return write_blob(out, object, SA_TAG_BYTEARRAY, PyByteArray_AS_STRING(object),
                          (size_t)PyByteArray_GET_SIZE(object));
    }
    if (type == &PyComplex_Type) {
        return write_complex(out, object);
    }
    return type == &PySet_Type || type == &PyFrozenSet_Type ? write_set(out, object, depth) : REFUSED;
}

static outcome go_on_with_items(writer *out, frame *top)
{
    PyObject *object = top->object;
    PyObject *const *item =
        PyList_CheckExact(object) ? ((PyListObject *)object)->ob_item : ((PyTupleObject *)object)->ob_item;
    Py_ssize_t count = Py_SIZE(object), position = top->position;
    unsigned depth = top->depth == 0 ? 0 : top->depth + 1u;
    while (position < count) {
        top->position = position + 1; /* `top` moves when a frame is pushed */
        outcome result = write_object(out, item[position++], depth);
        if (result != DONE) {
            return result;
        }
    }
    return DONE;
}

static outcome go_on_with_pairs(writer *out, frame *top)
{
    PyObject *dict = top->object, *key, *value = top->value;
    top->value = NULL;
    if (value != NULL) {
        outcome result = write_object(out, value, 0);
        if (result != DONE) {
            return result;
        }
    }
    Py_ssize_t position = top->position;
    while (PyDict_Next(dict, &position, &key, &value)) {
        top->position = position;
        top->value = value;
        outcome result = write_object(out, key, 1);
        if (result != DONE) {
            return result;
        }
        top->value = NULL;
        if (PyUnicode_CheckExact(key) && PyUnicode_CHECK_INTERNED(key)) {
            sa_cache_key(key);
        }
        result = write_object(out, value, 0);
        if (result != DONE) {
            return result;
        }
    }
    return DONE;
}

static outcome go_on_with_members(writer *out, frame *top)
{
    PyObject *object = top->object;
    const PySetObject *set = (const PySetObject *)object;
    int odd = top->odd;
    while (top->position <= set->mask) {
        const setentry *member = &set->table[top->position++];
        if (member->key != NULL && member->hash != -1) {
            outcome result = write_object(out, member->key, top->depth);
            if (result != DONE) {
                return result;
            }
        }
    }
    return odd ? write_layout(out, object) : DONE;
}

static outcome write_graph(writer *out, PyObject *root)
{
    outcome result = write_object(out, root, 0);
    while (out->frame_count > 0 && (result == DONE || result == BEGUN)) {
        frame *top = &out->frame[out->frame_count - 1];
        size_t depth = out->frame_count;
        result = top->kind == KIND_ITEMS   ? go_on_with_items(out, top)
                 : top->kind == KIND_PAIRS ? go_on_with_pairs(out, top)
                                           : go_on_with_members(out, top);
        out->frame_count = result == DONE ? depth - 1 : out->frame_count;
    }
    return result;
}

static void give_back(writer *out)
{
    if (out->capacity > BUFFER_KEPT) {
        PyMem_RawFree(out->start);
        out->start = NULL;
        out->capacity = 0;
    }
    if (out->frame_capacity > SA_ITEMS_KEPT) {
        PyMem_RawFree(out->frame);
        out->frame = NULL;
        out->frame_capacity = 0;
    }
}

PyObject *sa_graph_write(PyObject *root, int how)
{
    writer *out = &the_writer;
    PyObject *stream = NULL;
    out->length = out->frame_count = 0;
    out->how = how;
    if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__) {
        return NULL;
    }
    if (sa_scratch_begin(&out->seen) < 0 || reserve(out, 1) < 0) {
        return PyErr_NoMemory();
    }
    put_byte(out, SA_GRAPH_VERSION);
    outcome result = write_graph(out, root);
    if (result == DONE) {
        stream = PyBytes_FromStringAndSize((const char *)out->start, (Py_ssize_t)out->length);
    }
    else if (result == NO_MEMORY) {
        PyErr_NoMemory();
    }
    sa_scratch_end(&out->seen);
    give_back(out);
    return stream;
}
