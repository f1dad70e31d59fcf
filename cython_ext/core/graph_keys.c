/* graph_keys.c: text, the str of dict keys, and what hashes depend on; thread rule and the rest are in graph_stream.h.
 *
 * Layout: cache[hash of the text] -> str (owned) or NULL; a newer key takes the place of an older one.
 *
 * Records repeat their keys. A key from here costs a comparison instead of an object, a copy and a hash, and the dicts
 * share it. Strings that the program has interned win, since looking up by the identical object is fastest.
 *
 * Invariant: every str here is compact ASCII of at most SA_SHORT_ASCII_MAX characters.
 */
#include "graph_stream.h"

#include <string.h>

enum { CACHE_BITS = 9 };

static PyObject *cache[1 << CACHE_BITS];

static uint32_t part(const uint8_t *data)
{
    uint32_t word;
    memcpy(&word, data, sizeof word);
    return word;
}

/* The place for a text, by its first, middle and last bytes. */
static PyObject **place_of(const uint8_t *data, size_t length)
{
    uint64_t mixed = length;
    if (length >= 4) {
        mixed += (uint64_t)part(data) << 32 | part(data + length - 4);
        mixed ^= (uint64_t)part(data + length / 2 - 2) << 16;
    }
    else if (length > 0) {
        mixed += (uint64_t)data[0] << 32 | (uint64_t)data[length / 2] << 16 | data[length - 1] << 8;
    }
    return &cache[mixed * 0x9E3779B97F4A7C15u >> (64 - CACHE_BITS)];
}

static int has_text(PyObject *known, const uint8_t *data, size_t length)
{
    return known != NULL && (size_t)PyUnicode_GET_LENGTH(known) == length &&
           memcmp(PyUnicode_1BYTE_DATA(known), data, length) == 0;
}

PyObject *sa_ascii_str(const uint8_t *data, size_t length)
{
    uint64_t found = 0, word;
    size_t index = 0;
    for (; index + sizeof word <= length; index += sizeof word) {
        memcpy(&word, data + index, sizeof word);
        found |= word;
    }
    for (; index < length; index++) {
        found |= data[index];
    }
    if (found & 0x8080808080808080u) {
        return NULL;
    }
    if (length <= 1) { /* the interpreter has these already */
        return PyUnicode_FromKindAndData(PyUnicode_1BYTE_KIND, data, (Py_ssize_t)length);
    }
    PyObject *text = PyUnicode_New((Py_ssize_t)length, 0x7F);
    if (text != NULL) {
        memcpy(PyUnicode_1BYTE_DATA(text), data, length);
    }
    return text;
}

Py_UCS4 sa_largest_character(const uint8_t *data, size_t count, size_t unit)
{
    Py_UCS4 largest = 0;
    for (size_t index = 0; unit == 1 && index < count; index++) {
        largest = data[index] > largest ? data[index] : largest;
    }
    for (size_t index = 0; unit == 2 && index < count; index++) {
        uint16_t character;
        memcpy(&character, data + 2 * index, sizeof character);
        largest = character > largest ? character : largest;
    }
    for (size_t index = 0; unit == 4 && index < count; index++) {
        Py_UCS4 character;
        memcpy(&character, data + 4 * index, sizeof character);
        largest = character > largest ? character : largest;
    }
    return largest;
}

PyObject *sa_cached_key(const uint8_t *data, size_t length)
{
    PyObject **place = place_of(data, length);
    if (has_text(*place, data, length)) {
        return Py_NewRef(*place);
    }
    PyObject *made = sa_ascii_str(data, length);
    if (made != NULL) {
        Py_XSETREF(*place, Py_NewRef(made));
    }
    return made;
}

uint32_t sa_int_seed(void)
{
    return 0x80000000u | PY_VERSION_HEX >> 16; /* tables of sets may change with the interpreter */
}

uint32_t sa_process_seed(void)
{
    static uint32_t seed;
    if (seed == 0) {
        PyObject *text = PyUnicode_FromString("the order of sets");
        uint64_t mixed = (uint64_t)PyObject_Hash(Py_None) * 0x9E3779B97F4A7C15u ^ sa_int_seed();
        if (text == NULL) {
            PyErr_Clear();
            return 1; /* a seed that nobody has */
        }
        mixed = (mixed ^ (uint64_t)PyObject_Hash(text)) * 0xBF58476D1CE4E5B9u;
        Py_DECREF(text);
        seed = (uint32_t)(mixed >> 32) | 2;
    }
    return seed;
}

void sa_cache_key(PyObject *key)
{
    size_t length = (size_t)PyUnicode_GET_LENGTH(key);
    if (length > SA_SHORT_ASCII_MAX || !PyUnicode_IS_COMPACT_ASCII(key)) {
        return;
    }
    PyObject **place = place_of(PyUnicode_1BYTE_DATA(key), length);
    PyObject *known = *place;
    if (known == key || (known != NULL && PyUnicode_CHECK_INTERNED(known))) {
        return;
    }
    Py_XSETREF(*place, Py_NewRef(key));
}
