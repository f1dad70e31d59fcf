/* edit_sort.c - radix sort from the lowest digit up. Words, invariant, threads and cost: edit_sort.h. */
#include "edit_sort.h"

#include <string.h>

enum { EDIT_DIGIT_BITS = 11, EDIT_DIGITS = 1 << EDIT_DIGIT_BITS };

static inline size_t digit_of(const sa_edit *edit, unsigned shift) {
    return edit->address >> shift & (EDIT_DIGITS - 1);
}

void sa_edit_sort(sa_edit *edits, sa_edit *spare, size_t count) {
    sa_edit *from = edits, *to = spare;
    for (unsigned shift = 0; shift < 64 && count > 1; shift += EDIT_DIGIT_BITS) {
        size_t starts[EDIT_DIGITS] = {0}, sum = 0;
        for (size_t i = 0; i < count; i++) starts[digit_of(from + i, shift)]++;
        if (starts[digit_of(from, shift)] == count) continue;
        for (size_t digit = 0; digit < EDIT_DIGITS; digit++) {
            size_t size = starts[digit];
            starts[digit] = sum;
            sum += size;
        }
        for (size_t i = 0; i < count; i++) to[starts[digit_of(from + i, shift)]++] = from[i];
        sa_edit *swap = from;
        from = to;
        to = swap;
    }
    if (from != edits) memcpy(edits, from, count * sizeof *edits);
}
