/* heap_lock.h - the lock of an arena, which costs its usual thread no atomic exchange.
 *
 * Words: a lock is *biased* to its *owner*, the thread that took it many times in a row; others *revoke* that.
 *
 *   word    1 while somebody is in by an exchange
 *   inside  1 while the owner is in without one
 *   owner   thread pointer, 0 without bias
 *
 * Invariants: 1. At most one of word and inside is set by threads that are in; whoever takes the word while there is
 *                an owner has set owner to 0, made every thread pass a barrier (membarrier), and seen inside at 0.
 *             2. owner becomes a thread only by that thread, while it is in by the word.
 * So the owner stores inside and then looks at owner again: either it sees that it was revoked, or the revoker sees it.
 *
 * Threads: that is what it is for. A thread that ends may leave its bias behind; the next one at its place is it then.
 * Cost: two stores and two loads of one line for the owner; an exchange and a store without bias; a revocation is a
 * system call of a few microseconds, and each doubles the number of turns in a row that earn the bias.
 */
#ifndef SA_HEAP_LOCK_H
#define SA_HEAP_LOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

typedef struct sa_lock {
    _Atomic uint32_t word;
    _Atomic uint32_t inside;
    _Atomic uintptr_t owner;
    uintptr_t last;                /* who was in last by the word */
    uint32_t turns, turns_wanted;  /* of `last` in a row, and how many earn the bias */
} sa_lock;

_Static_assert(sizeof(sa_lock) == 32, "half a cache line");

/* Whether this system lets locks be biased; asked once, before the first lock is taken. */
void sa_lock_prepare(void);
void sa_lock_take_slow(sa_lock *lock);

static inline uintptr_t sa_lock_self(void) {
#if defined(__has_builtin)
#if __has_builtin(__builtin_thread_pointer)
    return (uintptr_t)__builtin_thread_pointer();
#else
    return (uintptr_t)pthread_self();
#endif
#else
    return (uintptr_t)pthread_self();
#endif
}

static inline void sa_lock_take(sa_lock *lock) {
    uintptr_t self = sa_lock_self();
    if (__builtin_expect(atomic_load_explicit(&lock->owner, memory_order_relaxed) == self, 1)) {
        atomic_store_explicit(&lock->inside, 1, memory_order_relaxed);
        /* Only the compiler is kept from turning these round: a revoker's barrier does it for the processor. */
        atomic_signal_fence(memory_order_seq_cst);
        if (__builtin_expect(atomic_load_explicit(&lock->owner, memory_order_acquire) == self, 1))
            return;
        atomic_store_explicit(&lock->inside, 0, memory_order_release);
    }
    sa_lock_take_slow(lock);
}

static inline void sa_lock_give(sa_lock *lock) {
    if (__builtin_expect(atomic_load_explicit(&lock->inside, memory_order_relaxed) != 0, 1))
        atomic_store_explicit(&lock->inside, 0, memory_order_release);
    else
        atomic_store_explicit(&lock->word, 0, memory_order_release);
}

#pragma GCC visibility pop

#endif
