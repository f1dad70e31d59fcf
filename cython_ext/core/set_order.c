/* set_order.c: replay and arrangement of a set's table; nouns, invariants, thread rule and cost are in set_order.h.
 *
 * Layout
 *   place[0 .. mask]   0 = free, else 1 + index of the real table's entry that was inserted here
 *
 *   The replay follows Objects/setobject.c: linear probing over up to LINEAR_PROBES neighbours, then a jump; the table
 *   grows when fill * 5 >= mask * 3. All members differ, so that no comparison is ever needed.
 *
 * Invariants: 1. place holds each active entry once.  2. at the end fill == used and mask as CPython would have it.
 */
#define PY_SSIZE_T_CLEAN
#include "set_order.h"

#include <stdint.h>
#include <string.h>

enum { LINEAR_PROBES = 9, PERTURB_SHIFT = 5, LARGE_SET = 50000 };
enum { PLACES_ON_STACK = 256, PLACE_BYTES = 4 };
_Static_assert(PLACES_ON_STACK >= PySet_MINSIZE, "the smallest table fits");

static void insert_clean(uint32_t *place, size_t mask, Py_hash_t hash, uint32_t number)
{
    size_t perturb = (size_t)hash;
    size_t index = (size_t)hash & mask;
    for (;;) {
        size_t last = index + LINEAR_PROBES <= mask ? index + LINEAR_PROBES : index;
        for (size_t probe = index; probe <= last; probe++) {
            if (place[probe] == 0) {
                place[probe] = number;
                return;
            }
        }
        perturb >>= PERTURB_SHIFT;
        index = (index * 5 + 1 + perturb) & mask;
    }
}

static size_t grown_size(size_t used)
{
    size_t needed = used > LARGE_SET ? used * 2 : used * 4;
    size_t size = PySet_MINSIZE;
    while (size <= needed) {
        size <<= 1;
    }
    return size;
}

/* Insert the members one by one; `place` and `spare` both have room for the largest table. Returns the final mask. */
static size_t replay(const PySetObject *set, uint32_t **place, uint32_t **spare)
{
    size_t mask = PySet_MINSIZE - 1, fill = 0;
    memset(*place, 0, PySet_MINSIZE * sizeof **place);
    for (Py_ssize_t entry = 0; entry <= set->mask; entry++) {
        if (set->table[entry].key == NULL || set->table[entry].hash == -1) {
            continue;
        }
        insert_clean(*place, mask, set->table[entry].hash, (uint32_t)entry + 1);
        fill++;
        if (fill * 5 < mask * 3) {
            continue;
        }
        size_t size = grown_size(fill);
        memset(*spare, 0, size * sizeof **spare);
        for (size_t index = 0; index <= mask; index++) {
            if ((*place)[index] != 0) {
                insert_clean(*spare, size - 1, set->table[(*place)[index] - 1].hash, (*place)[index]);
            }
        }
        uint32_t *filled = *spare;
        *spare = *place;
        *place = filled;
        mask = size - 1;
    }
    return mask;
}

/* The mask that inserting `used` members one by one leads to. */
static size_t final_mask(size_t used)
{
    size_t mask = PySet_MINSIZE - 1;
    for (size_t fill = 1; fill <= used;) {
        if (fill * 5 >= mask * 3) {
            mask = grown_size(fill) - 1;
        }
        size_t next_growth = (mask * 3 + 4) / 5;
        fill = next_growth > fill ? next_growth : fill + 1;
    }
    return mask;
}

/* The table that pickle would rebuild, replayed: place[slot] = 0 or 1 + the slot that the same member has now. */
typedef struct replayed {
    uint32_t on_stack[2 * PLACES_ON_STACK];
    uint32_t *memory; /* owned, or NULL */
    uint32_t *place;
    size_t mask;
} replayed;

static int replay_begin(replayed *table, const PySetObject *set)
{
    size_t size = final_mask((size_t)set->used) + 1;
    uint32_t *spare = table->on_stack + PLACES_ON_STACK;
    table->memory = NULL;
    table->place = table->on_stack;
    if (size > PLACES_ON_STACK) {
        table->memory = size < UINT32_MAX ? PyMem_Malloc(2 * size * sizeof *table->memory) : NULL;
        if (table->memory == NULL) {
            return -1;
        }
        table->place = table->memory;
        spare = table->memory + size;
    }
    table->mask = replay(set, &table->place, &spare);
    return 0;
}

int sa_set_order_kept(PyObject *object)
{
    const PySetObject *set = (const PySetObject *)object;
    replayed table;
    if (set->fill != set->used || set->finger != 0 || (size_t)set->mask != final_mask((size_t)set->used)) {
        return 0;
    }
    if (replay_begin(&table, set) < 0) {
        return -1;
    }
    int same = 1;
    for (size_t index = 0; same && index <= table.mask; index++) {
        same = table.place[index] == (set->table[index].key == NULL ? 0 : (uint32_t)index + 1);
    }
    PyMem_Free(table.memory);
    return same;
}

/* ---- layouts ---- */

static char *put_place(char *out, size_t index)
{
    uint32_t place = (uint32_t)index;
    memcpy(out, &place, sizeof place);
    return out + sizeof place;
}

int sa_set_copy_places(PyObject *object, char *out)
{
    const PySetObject *set = (const PySetObject *)object;
    replayed table;
    if (replay_begin(&table, set) < 0) {
        return -1;
    }
    for (size_t index = 0; index <= table.mask; index++) {
        if (table.place[index] != 0) {
            out = put_place(out, table.place[index] - 1);
        }
    }
    PyMem_Free(table.memory);
    for (Py_ssize_t index = 0; index <= set->mask; index++) {
        if (set->table[index].key != NULL && set->table[index].hash == -1) {
            out = put_place(out, (size_t)index);
        }
    }
    return 0;
}

int sa_set_layout_is_sane(PyObject *object)
{
    const PySetObject *set = (const PySetObject *)object;
    return (size_t)set->mask < UINT32_MAX && set->mask / SA_SET_SPREAD_MAX < set->fill + SA_SET_SPREAD_FREE;
}

PyObject *sa_set_layout(PyObject *object)
{
    const PySetObject *set = (const PySetObject *)object;
    if ((size_t)set->mask >= UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "set too large to be laid out");
        return NULL;
    }
    PyObject *all = PyBytes_FromStringAndSize(NULL, set->fill * PLACE_BYTES);
    if (all == NULL) {
        return NULL;
    }
    if (sa_set_copy_places(object, PyBytes_AS_STRING(all)) < 0) {
        Py_DECREF(all);
        return PyErr_NoMemory();
    }
    const char *places = PyBytes_AS_STRING(all);
    Py_ssize_t member_bytes = set->used * PLACE_BYTES;
    PyObject *layout = Py_BuildValue("(y#y#nn)", places, member_bytes, places + member_bytes,
                                     (set->fill - set->used) * PLACE_BYTES, set->mask, set->finger);
    Py_DECREF(all);
    return layout;
}

/* What CPython puts in the place of a deleted member: no header tells, but any set shows. Borrowed, immortal. */
static PyObject *deleted_mark(void)
{
    PyObject *probe = PySet_New(NULL), *mark = NULL;
    if (probe != NULL && PySet_Add(probe, Py_None) == 0 && PySet_Discard(probe, Py_None) == 1) {
        for (Py_ssize_t index = 0; index < PySet_MINSIZE; index++) {
            const setentry *entry = &((PySetObject *)probe)->table[index];
            mark = entry->hash == -1 ? entry->key : mark;
        }
    }
    Py_XDECREF(probe);
    if (mark == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_SystemError, "deleted set members are not marked as expected");
    }
    return mark;
}

/* Whether CPython's search would find this very object in the table. */
static int is_found(const setentry *table, size_t mask, const PyObject *key, Py_hash_t hash)
{
    size_t perturb = (size_t)hash;
    size_t index = (size_t)hash & mask;
    for (size_t jumps = 0; jumps <= mask + 64; jumps++) {
        size_t last = index + LINEAR_PROBES <= mask ? index + LINEAR_PROBES : index;
        for (size_t probe = index; probe <= last; probe++) {
            if (table[probe].key == NULL || table[probe].key == key) {
                return table[probe].key == key;
            }
        }
        perturb >>= PERTURB_SHIFT;
        index = (index * 5 + 1 + perturb) & mask;
    }
    return 0;
}

static int put(setentry *table, size_t mask, const char *places, Py_ssize_t number, setentry entry)
{
    uint32_t place;
    memcpy(&place, places + PLACE_BYTES * number, sizeof place);
    if (place > mask || table[place].key != NULL) {
        return -1;
    }
    table[place] = entry;
    return 0;
}

/* Fill an empty table with the members, each at its place; -1 when a place is wrong or a member would not be found. */
static int fill_table(const PySetObject *set, setentry *table, size_t mask, const sa_set_places *layout, PyObject *mark)
{
    Py_ssize_t number = 0;
    for (Py_ssize_t index = 0; index <= set->mask; index++) {
        const setentry *entry = &set->table[index];
        if (entry->key != NULL && entry->hash != -1 && put(table, mask, layout->members, number++, *entry) < 0) {
            return -1;
        }
    }
    for (number = 0; number < layout->deleted_count; number++) {
        if (put(table, mask, layout->deleted, number, (setentry){mark, -1}) < 0) {
            return -1;
        }
    }
    for (Py_ssize_t index = 0; index <= set->mask; index++) {
        const setentry *entry = &set->table[index];
        if (entry->key != NULL && entry->hash != -1 && !is_found(table, mask, entry->key, entry->hash)) {
            return -1;
        }
    }
    return 0;
}

static void take_table(PySetObject *set, setentry *table, Py_ssize_t mask, Py_ssize_t fill, Py_ssize_t finger)
{
    setentry *old = set->table == set->smalltable ? NULL : set->table;
    memset(set->smalltable, 0, sizeof set->smalltable);
    if (mask == PySet_MINSIZE - 1) {
        memcpy(set->smalltable, table, sizeof set->smalltable);
        PyMem_Free(table);
        table = set->smalltable;
    }
    set->table = table;
    set->mask = mask;
    set->fill = fill;
    set->finger = finger;
    PyMem_Free(old);
}

int sa_set_arrange_places(PyObject *object, const sa_set_places *layout)
{
    PySetObject *set = (PySetObject *)object;
    PyObject *mark = deleted_mark();
    Py_ssize_t mask = layout->mask, fill = set->used + layout->deleted_count;
    if (mark == NULL) {
        return -1;
    }
    setentry *table = NULL;
    if (layout->member_count == set->used && mask >= PySet_MINSIZE - 1 && mask < (Py_ssize_t)UINT32_MAX &&
        (mask & (mask + 1)) == 0 && fill <= mask && layout->finger >= 0) {
        table = PyMem_Calloc((size_t)mask + 1, sizeof *table);
        if (table == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    if (table == NULL || fill_table(set, table, (size_t)mask, layout, mark) < 0) {
        PyMem_Free(table);
        PyErr_Format(PyExc_ValueError, "this is not a layout of a set of %zd members", set->used);
        return -1;
    }
    take_table(set, table, mask, fill, layout->finger);
    return 0;
}

int sa_set_arrange(PyObject *object, PyObject *layout)
{
    sa_set_places places;
    if (!PyArg_ParseTuple(layout, "y#y#nn:arrange", &places.members, &places.member_count, &places.deleted,
                          &places.deleted_count, &places.mask, &places.finger)) {
        return -1;
    }
    if (places.member_count % PLACE_BYTES != 0) {
        places.mask = 0;
    }
    places.member_count /= PLACE_BYTES;
    places.deleted_count /= PLACE_BYTES;
    return sa_set_arrange_places(object, &places);
}
