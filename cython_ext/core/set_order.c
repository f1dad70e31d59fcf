/* set_order.c: replay of the insertions of a set; nouns, invariant, thread rule and cost are in set_order.h.
 *
 * Layout
 *   place[0 .. mask]   0 = free, else 1 + index of the real table's entry that was inserted here
 *
 *   The replay follows Objects/setobject.c: linear probing over up to LINEAR_PROBES neighbours, then a jump; the table
 *   grows when fill * 5 >= mask * 3. All members differ, so that no comparison is ever needed.
 *
 * Invariants: 1. place holds each active entry once.  2. At the end fill == used and mask as CPython would have it.
 */
#include "set_order.h"

#include <stdint.h>
#include <string.h>

enum { LINEAR_PROBES = 9, PERTURB_SHIFT = 5, LARGE_SET = 50000 };
enum { PLACES_ON_STACK = 256 };
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

int sa_set_order_kept(PyObject *object)
{
    const PySetObject *set = (const PySetObject *)object;
    uint32_t on_stack[2 * PLACES_ON_STACK];
    if (set->fill != set->used || set->finger != 0 || (size_t)set->mask != final_mask((size_t)set->used)) {
        return 0;
    }
    size_t size = (size_t)set->mask + 1;
    uint32_t *memory = NULL, *place = on_stack, *spare = on_stack + PLACES_ON_STACK;
    if (size > PLACES_ON_STACK) {
        memory = size < UINT32_MAX ? PyMem_Malloc(2 * size * sizeof *memory) : NULL;
        if (memory == NULL) {
            return -1;
        }
        place = memory;
        spare = memory + size;
    }
    int same = replay(set, &place, &spare) == (size_t)set->mask;
    for (size_t index = 0; same && index < size; index++) {
        same = place[index] == (set->table[index].key == NULL ? 0 : (uint32_t)index + 1);
    }
    PyMem_Free(memory);
    return same;
}
