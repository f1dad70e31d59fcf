/* edit_sort.c - radix sort by the highest digits, then by insertion. Words, invariant, threads and cost: edit_sort.h. */
#include "edit_sort.h"

#include <string.h>

enum { EDIT_DIGIT_BITS = 11, EDIT_DIGITS = 1 << EDIT_DIGIT_BITS, EDIT_MOVES_PER_EDIT = 4 };

static inline size_t digit_of(const sa_edit *edit, unsigned shift) {
    return edit->address >> shift & (EDIT_DIGITS - 1);
}

/* One pass: order `from` by one digit into `to`. */
static void order_by_digit(const sa_edit *from, sa_edit *to, size_t count, unsigned shift) {
    size_t starts[EDIT_DIGITS] = {0}, sum = 0;
    for (size_t i = 0; i < count; i++) starts[digit_of(from + i, shift)]++;
    for (size_t digit = 0; digit < EDIT_DIGITS; digit++) {
        size_t size = starts[digit];
        starts[digit] = sum;
        sum += size;
    }
    for (size_t i = 0; i < count; i++) to[starts[digit_of(from + i, shift)]++] = from[i];
}

/* 1 if the edits are in order; 0 if that would have taken too many moves, and then they are as they were or nearer to it. */
static int order_by_insertion(sa_edit *edits, size_t count) {
    size_t moves_left = EDIT_MOVES_PER_EDIT * count;
    for (size_t i = 1; i < count; i++) {
        sa_edit edit = edits[i];
        size_t at = i;
        for (; at > 0 && edits[at - 1].address > edit.address && moves_left > 0; at--, moves_left--) edits[at] = edits[at - 1];
        edits[at] = edit;
        if (moves_left == 0) return 0;
    }
    return 1;
}

void sa_edit_sort(sa_edit *edits, sa_edit *spare, size_t count) {
    uint64_t differing = 0;
    for (size_t i = 1; i < count; i++) differing |= edits[i].address ^ edits[0].address;
    unsigned bits = 0;
    while (bits < 64 && differing >> bits != 0) bits++;
    if (bits > 2 * EDIT_DIGIT_BITS) {
        /* addresses that lie anywhere differ in their highest digits, and what is left is a neighbour out of place here
         * and there */
        order_by_digit(edits, spare, count, bits - 2 * EDIT_DIGIT_BITS);
        order_by_digit(spare, edits, count, bits - EDIT_DIGIT_BITS);
        if (order_by_insertion(edits, count)) return;
    }
    sa_edit *from = edits, *to = spare;
    for (unsigned shift = 0; shift < bits; shift += EDIT_DIGIT_BITS) {
        order_by_digit(from, to, count, shift);
        sa_edit *swap = from;
        from = to;
        to = swap;
    }
    if (from != edits) memcpy(edits, from, count * sizeof *edits);
}
