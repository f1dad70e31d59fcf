/* edit_sort.h - edits as pairs, and the order of their addresses.
 *
 * Words: an *edit* is an address with a raw value; a *digit* is EDIT_DIGIT_BITS bits of an address.
 *
 *   | address 8 | raw 8 | address 8 | raw 8 | ...
 *
 * Invariant: the sort is stable: edits of one address keep their order. Threads: pure. Cost: three passes over edits that lie
 * evenly in their span; else a pass for each digit in which they differ, 9 at most. Some 8 ns an edit and pass where they
 * fit no cache.
 */
#ifndef SA_EDIT_SORT_H
#define SA_EDIT_SORT_H

#include <stddef.h>
#include <stdint.h>

typedef struct sa_edit {
    uint64_t address;
    uint64_t raw;
} sa_edit;

_Static_assert(sizeof(sa_edit) == 16, "an edit is two words");

/* Sort by address; `spare` has count edits of room. */
void sa_edit_sort(sa_edit *edits, sa_edit *spare, size_t count);

#endif
