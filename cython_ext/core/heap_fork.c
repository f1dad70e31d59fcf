/* heap_fork.c - forks: the child must find no arena half changed by a thread that it does not have.
 *
 * Nouns: a *heap* is a sa_heap; the *register* is a list of all that live.
 *
 *   heaps -> sa_heap -> sa_heap -> ...      linked through sa_heap.next
 *
 * Invariant: while a fork is under way the forking thread holds every lock of every heap, so no other thread is inside an
 * arena; these handlers run in the fork itself, so no thread that waits for a lock of ours is waited for.
 * Threads: any. Whoever holds an arena's lock waits for nothing. Cost: twelve locks for each heap at a fork.
 */
#include "heap_arena.h"

#include <pthread.h>

static pthread_mutex_t register_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t handlers_once = PTHREAD_ONCE_INIT;
static sa_heap *heaps;

static void before_fork(void) {
    pthread_mutex_lock(&register_lock);
    for (sa_heap *heap = heaps; heap != NULL; heap = heap->next)
        for (int class = 0; class < SA_CLASS_COUNT; class++)
            sa_arena_lock(heap->arenas[class]);
}

static void after_fork(void) {
    for (sa_heap *heap = heaps; heap != NULL; heap = heap->next)
        for (int class = 0; class < SA_CLASS_COUNT; class++)
            sa_arena_unlock(heap->arenas[class]);
    pthread_mutex_unlock(&register_lock);
}

static void set_handlers(void) { pthread_atfork(before_fork, after_fork, after_fork); }

void sa_heap_register(sa_heap *heap) {
    pthread_once(&handlers_once, set_handlers);
    pthread_mutex_lock(&register_lock);
    heap->next = heaps;
    heaps = heap;
    pthread_mutex_unlock(&register_lock);
}

void sa_heap_unregister(sa_heap *heap) {
    pthread_mutex_lock(&register_lock);
    for (sa_heap **at = &heaps; *at != NULL; at = &(*at)->next)
        if (*at == heap) {
            *at = heap->next;
            break;
        }
    pthread_mutex_unlock(&register_lock);
}
