/* heap_lock.c - the slow side of an arena's lock: waiting, revoking a bias, and earning one.
 *
 * Words, layout, invariants, threads: heap_lock.h. Cost: an exchange when nobody is in; a revocation is a system call
 * that interrupts the processors on which this process runs.
 */
#define _GNU_SOURCE
#include "heap_lock.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    TURNS_WANTED = 64,
    TURNS_WANTED_MAX = 1 << 20,
    SPINS = 100,
    /* linux/membarrier.h, which not every system's headers have */
    PRIVATE_EXPEDITED = 1 << 3,
    REGISTER_PRIVATE_EXPEDITED = 1 << 4
};

static int is_bias_possible;

#ifdef SYS_membarrier
static int barrier(int command) { return (int)syscall(SYS_membarrier, command, 0, 0); }
#else
static int barrier(int command) {
    (void)command;
    return -1;
}
#endif

void sa_lock_prepare(void) { is_bias_possible = barrier(REGISTER_PRIVATE_EXPEDITED) == 0; }

static void take_word(sa_lock *lock) {
    while (atomic_exchange_explicit(&lock->word, 1, memory_order_acquire)) {
        for (int spin = 0; spin < SPINS; spin++)
            if (!atomic_load_explicit(&lock->word, memory_order_relaxed))
                break;
        if (atomic_load_explicit(&lock->word, memory_order_relaxed))
            sched_yield();
    }
}

static void end_bias(sa_lock *lock) {
    atomic_store_explicit(&lock->owner, 0, memory_order_seq_cst);
    /* A kernel that forgets the registration in a fork is told again. */
    while (barrier(PRIVATE_EXPEDITED) != 0)
        barrier(REGISTER_PRIVATE_EXPEDITED);
    while (atomic_load_explicit(&lock->inside, memory_order_acquire))
        sched_yield();
}

void sa_lock_take_slow(sa_lock *lock) {
    uintptr_t self = sa_lock_self();
    take_word(lock);
    uint32_t wanted = lock->turns_wanted > 0 ? lock->turns_wanted : TURNS_WANTED;
    if (atomic_load_explicit(&lock->owner, memory_order_relaxed) != 0) {
        end_bias(lock);
        lock->turns_wanted = wanted < TURNS_WANTED_MAX ? wanted * 2 : wanted;
        lock->turns = 0;
    } else if (lock->last == self && is_bias_possible) {
        if (++lock->turns >= wanted)
            atomic_store_explicit(&lock->owner, self, memory_order_relaxed);
    } else
        lock->turns = 0;
    lock->last = self;
}
