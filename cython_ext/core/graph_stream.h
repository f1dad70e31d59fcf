/* graph_stream.h: closed graphs of builtin types as bytes, and back.
 *
 * Nouns
 *   graph stream  one byte of version, then the root; each object is a tag byte and what the tag says follows
 *   shared        an object that the graph refers to more than once: bit 7 of its tag is set, and each later reference is
 *                 a REFERENCE to the offset of that tag
 *   layout        the table of a set that would not come out as it was from its members alone (set_order.h)
 *   seed          a number that processes share whose hashes are the same: those of ints always are
 *
 * Layout of a stream (docs/graph_stream.md has every tag)
 *
 *   offset 0          1
 *   | version 0xB1    | tag  [length or count, varint]  [data, or the items in order]
 *
 * Invariants
 *   1. Writing runs no Python code, makes no object that the collector tracks, and keeps the GIL: what it writes is
 *      the graph of one moment. It changes nothing, so its cost is paid without side effects when it refuses.
 *   2. What is written depends on the graph alone (values, order, sharing), not on counts of outside references.
 *   3. Reading believes nothing: each length is checked against the bytes left less what is still owed to containers
 *      already begun, so memory is bounded by a constant times the length of the stream.
 *   4. Neither direction uses C stack by depth. Only parts that are hashed are limited in depth, as hashing recurses.
 *   5. Nothing incomplete is ever hashed, and the collector sees lists and tuples only when they are complete.
 *
 * Thread rule: GIL held throughout; one static writer, which cannot be re-entered by invariant 1; readers nest.
 * Cost: about 3-10 ns per atom written, 10-25 ns per object read.
 */
#ifndef SA_GRAPH_STREAM_H
#define SA_GRAPH_STREAM_H

#include <Python.h>
#include <stdint.h>

/* These numbers are stored: never change or reuse one. */
enum {
    SA_GRAPH_VERSION = 0xB1,
    SA_TAG_NONE = 0x00,
    SA_TAG_FALSE = 0x01,
    SA_TAG_TRUE = 0x02,
    SA_TAG_INT = 0x03,         /* zigzag varint of 64 bits */
    SA_TAG_BIG_INT = 0x04,     /* length, two's complement, little-endian */
    SA_TAG_FLOAT = 0x05,       /* 8 bytes */
    SA_TAG_COMPLEX = 0x06,     /* 16 bytes */
    SA_TAG_REFERENCE = 0x07,   /* offset of the tag of a shared object */
    SA_TAG_ASCII = 0x08,       /* length, characters of 1 byte below 0x80 */
    SA_TAG_LATIN1 = 0x09,      /* length, characters of 1 byte, one of them at least 0x80 */
    SA_TAG_UCS2 = 0x0A,        /* length, characters of 2 bytes, one of them at least 0x100 */
    SA_TAG_UCS4 = 0x0B,        /* length, characters of 4 bytes, one of them at least 0x10000 */
    SA_TAG_BYTES = 0x0C,       /* length, bytes */
    SA_TAG_BYTEARRAY = 0x0D,   /* length, bytes */
    SA_TAG_LIST = 0x0E,        /* count, items */
    SA_TAG_TUPLE = 0x0F,       /* count, items */
    SA_TAG_DICT = 0x10,        /* count, key and value of each */
    SA_TAG_SET = 0x11,         /* count, members */
    SA_TAG_FROZENSET = 0x12,   /* count, members */
    SA_TAG_ODD_SET = 0x13,     /* count, members, layout */
    SA_TAG_ODD_FROZENSET = 0x14,
    SA_TAG_FLOAT_LIST = 0x15,  /* count, 8 bytes each */
    SA_TAG_FLOAT_TUPLE = 0x16, /* count, 8 bytes each */
    SA_TAG_SEEDED_SET = 0x17,  /* count, members, seed of 4 bytes, layout */
    SA_TAG_SEEDED_FROZENSET = 0x18,
    SA_TAG_COUNT = 0x19,
    SA_TAG_SHORT_ASCII = 0x20, /* + length, 0 to 31 */
    SA_TAG_SHORT_LIST = 0x40,  /* + count, 0 to 7 */
    SA_TAG_SHORT_TUPLE = 0x48, /* + count, 0 to 7 */
    SA_TAG_SHORT_DICT = 0x50,  /* + count, 0 to 15 */
    SA_TAG_SMALL_INT = 0x60,   /* + value, 0 to 31 */
    SA_TAG_SHARED = 0x80       /* set on the tag of a shared object */
};
enum { SA_SHORT_ASCII_MAX = 31, SA_SHORT_ITEMS_MAX = 7, SA_SHORT_DICT_MAX = 15, SA_SMALL_INT_MAX = 31 };

enum {
    SA_HASH_DEPTH_MAX = 64,    /* levels of tuples and frozensets within a dict key or set member */
    SA_SHARED_LENGTH_MIN = 4   /* shorter strings are written again: a reference would be no shorter */
};

/* The stream of the graph of `root`, a new bytes object. NULL with MemoryError; NULL without an exception when a part is of
 * another type or beyond a limit. `how`: PORTABLE writes layouts with the seed of this process: where hashes differ, they are not used;
 * ATOMS_APART writes a string or bytes object at every place where it stands, so that the stream does not tell whether
 * equal ones are one; NO_SETS refuses sets, whose order another process would not get. */
enum { SA_GRAPH_PORTABLE = 1, SA_GRAPH_ATOMS_APART = 2, SA_GRAPH_NO_SETS = 4 };
PyObject *sa_graph_write(PyObject *root, int how);

/* Make the graph again. New reference; NULL with MemoryError, or with CorruptFrameError from `damage` (an exception type)
 * if the bytes are not a stream that sa_graph_write makes. */
PyObject *sa_graph_read(const uint8_t *data, Py_ssize_t length, PyObject *damage);

/* The seed of this process, and that of sets of ints; never 0. */
uint32_t sa_process_seed(void);
uint32_t sa_int_seed(void);

/* A str of these characters, new reference; NULL with MemoryError, or without an exception when one is not ASCII. */
PyObject *sa_ascii_str(const uint8_t *data, size_t length);

/* The same for a dict key of at most SA_SHORT_ASCII_MAX characters, from a small cache. */
PyObject *sa_cached_key(const uint8_t *data, size_t length);

/* The largest of some characters of 1, 2 or 4 bytes. */
Py_UCS4 sa_largest_character(const uint8_t *data, size_t count, size_t unit);

/* Let the cache use this very str for its text from now on. */
void sa_cache_key(PyObject *key);

#endif
