/* arena.h - how much memory CPython's small-object allocator holds, counted where it gets and returns its arenas.
 *
 * Words: an *arena* is the large block (1 MiB in CPython 3.11 to 3.13) from which objects of up to 512 bytes are cut; it goes
 * back to the operating system only when every object in it is gone, so keys that stay can keep arenas of values that left.
 *
 *   sa_arena_counter | the allocator that was installed before | bytes |
 *
 * Invariant: bytes is what was allocated less what was freed since the counter was installed; it may be negative, because
 * arenas that are older than the counter are freed through it too. Only differences mean something.
 *
 * Threads: CPython calls the arena allocator with the GIL held. Cost: two additions per arena.
 */
#ifndef SA_ARENA_H
#define SA_ARENA_H

#include <Python.h>
#include <stdint.h>

typedef struct sa_arena_counter {
    PyObjectArenaAllocator original; /* does the work */
    int64_t bytes;                   /* held by arenas, since installation */
} sa_arena_counter;

static inline void *sa_arena_allocate(void *context, size_t size) {
    sa_arena_counter *counter = context;
    void *arena = counter->original.alloc(counter->original.ctx, size);
    counter->bytes += arena == NULL ? 0 : (int64_t)size;
    return arena;
}

static inline void sa_arena_release(void *context, void *arena, size_t size) {
    sa_arena_counter *counter = context;
    counter->bytes -= (int64_t)size;
    counter->original.free(counter->original.ctx, arena, size);
}

/* `counter` must live as long as the process. */
static inline void sa_arena_install(sa_arena_counter *counter) {
    PyObject_GetArenaAllocator(&counter->original);
    counter->bytes = 0;
    PyObjectArenaAllocator counting = {counter, sa_arena_allocate, sa_arena_release};
    PyObject_SetArenaAllocator(&counting);
}

#endif
