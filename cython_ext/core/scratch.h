/* scratch.h: the memory of one walk: a table of objects with their unexplained references, and a stack.
 *
 * Layout
 *   place[hash(object)] -> entry[number] = {object, unexplained, contexts, pending, escaped}
 *   stack[0 .. stack_count)   object addresses with tags in the low bits
 *
 * Invariants: 1. at most half of the places are taken.  2. entries keep the order of their making, entry 0 is the root.
 * Thread rule: as the walker that owns it. Cost: find or add 3-10 ns while the table is in the cache.
 */
#ifndef SA_SCRATCH_H
#define SA_SCRATCH_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    SA_PLACES_AT_FIRST = 128,
    SA_ITEMS_AT_FIRST = 64,
    SA_ITEMS_KEPT = 1 << 16 /* memory beyond this is given back after the walk */
};
_Static_assert((SA_PLACES_AT_FIRST & (SA_PLACES_AT_FIRST - 1)) == 0, "open addressing masks the hash");

typedef struct sa_entry {
    PyObject *object;
    Py_ssize_t unexplained; /* references that have not been met yet */
    uint8_t contexts;       /* listed under these */
    uint8_t pending;        /* to be checked under these too */
    uint8_t escaped;        /* found within reach of the outside */
} sa_entry;
_Static_assert(sizeof(sa_entry) == 24, "three words");

typedef struct sa_scratch {
    uint32_t *place; /* 1 + number of the entry; 0 is free */
    size_t place_mask, place_capacity;
    sa_entry *entry;
    size_t entry_count, entry_capacity;
    uintptr_t *stack;
    size_t stack_count, stack_capacity;
} sa_scratch;

static inline int sa_scratch_grow(void **memory, size_t *capacity, size_t item_bytes, size_t at_first)
{
    size_t wanted = *capacity == 0 ? at_first : 2 * *capacity;
    void *larger = wanted < SIZE_MAX / item_bytes ? PyMem_RawRealloc(*memory, wanted * item_bytes) : NULL;
    if (larger == NULL) {
        return -1;
    }
    *memory = larger;
    *capacity = wanted;
    return 0;
}

/* Empty; 0, or -1 without memory. */
static inline int sa_scratch_begin(sa_scratch *scratch)
{
    if (scratch->place == NULL && sa_scratch_grow((void **)&scratch->place, &scratch->place_capacity,
                                                  sizeof *scratch->place, SA_PLACES_AT_FIRST) < 0) {
        return -1;
    }
    scratch->place_mask = SA_PLACES_AT_FIRST - 1;
    memset(scratch->place, 0, SA_PLACES_AT_FIRST * sizeof *scratch->place);
    scratch->entry_count = scratch->stack_count = 0;
    return 0;
}

static inline void sa_scratch_free(sa_scratch *scratch)
{
    PyMem_RawFree(scratch->place);
    PyMem_RawFree(scratch->entry);
    PyMem_RawFree(scratch->stack);
    memset(scratch, 0, sizeof *scratch);
}

static inline void sa_scratch_end(sa_scratch *scratch)
{
    if (scratch->entry_capacity > SA_ITEMS_KEPT || scratch->stack_capacity > SA_ITEMS_KEPT) {
        sa_scratch_free(scratch);
    }
}

static inline size_t sa_scratch_place(const sa_scratch *scratch, const PyObject *object)
{
    uint64_t mixed = (uint64_t)(uintptr_t)object * 0x9E3779B97F4A7C15u;
    return (size_t)(mixed >> 32) & scratch->place_mask;
}

static inline sa_entry *sa_scratch_find(const sa_scratch *scratch, const PyObject *object)
{
    uint32_t number;
    size_t place = sa_scratch_place(scratch, object);
    while ((number = scratch->place[place]) != 0) {
        if (scratch->entry[number - 1].object == object) {
            return &scratch->entry[number - 1];
        }
        place = (place + 1) & scratch->place_mask;
    }
    return NULL;
}

/* Slow path of sa_scratch_add: twice the places, all entries placed again. */
static inline int sa_scratch_widen(sa_scratch *scratch)
{
    size_t wanted = 2 * (scratch->place_mask + 1);
    if (wanted > UINT32_MAX || (wanted > scratch->place_capacity &&
                                sa_scratch_grow((void **)&scratch->place, &scratch->place_capacity,
                                                sizeof *scratch->place, SA_PLACES_AT_FIRST) < 0)) {
        return -1;
    }
    scratch->place_mask = wanted - 1;
    memset(scratch->place, 0, wanted * sizeof *scratch->place);
    for (size_t number = 0; number < scratch->entry_count; number++) {
        size_t place = sa_scratch_place(scratch, scratch->entry[number].object);
        while (scratch->place[place] != 0) {
            place = (place + 1) & scratch->place_mask;
        }
        scratch->place[place] = (uint32_t)number + 1;
    }
    return 0;
}

/* The entry of an object that has none yet; NULL without memory. The pointer is good until the next one is added. */
static inline sa_entry *sa_scratch_add(sa_scratch *scratch, PyObject *object, Py_ssize_t unexplained)
{
    if (2 * (scratch->entry_count + 1) > scratch->place_mask && sa_scratch_widen(scratch) < 0) {
        return NULL;
    }
    if (scratch->entry_count == scratch->entry_capacity &&
        sa_scratch_grow((void **)&scratch->entry, &scratch->entry_capacity, sizeof *scratch->entry,
                        SA_ITEMS_AT_FIRST) < 0) {
        return NULL;
    }
    size_t place = sa_scratch_place(scratch, object);
    while (scratch->place[place] != 0) {
        place = (place + 1) & scratch->place_mask;
    }
    size_t number = scratch->entry_count++;
    scratch->place[place] = (uint32_t)number + 1;
    scratch->entry[number] = (sa_entry){object, unexplained, 0, 0, 0};
    return &scratch->entry[number];
}

static inline int sa_scratch_push(sa_scratch *scratch, uintptr_t item)
{
    if (scratch->stack_count == scratch->stack_capacity &&
        sa_scratch_grow((void **)&scratch->stack, &scratch->stack_capacity, sizeof *scratch->stack,
                        SA_ITEMS_AT_FIRST) < 0) {
        return -1;
    }
    scratch->stack[scratch->stack_count++] = item;
    return 0;
}

#endif
