/* touch_signal.c - the way SIGNAL: missing pages are PROT_NONE, and the thread that faults serves itself. See touch.h.
 *
 *   a thread faults -> SIGSEGV -> handler: bytes through /proc/self/mem, which no protection stops; then mprotect shows them
 *   clean pages are readable -> a write faults -> mprotect makes them writable
 *
 * Nobody sees a page half filled, since it is unreadable until it is whole. Protections and handlers are inherited by a fork,
 * so a child goes on as it is; only the way to its own memory is opened anew. Other faults go to the handler that was there
 * before ours. What the handler calls is safe there: the code that is interrupted touches an array, so it is not inside us.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

#include "touch.h"

static int memory = -1; /* /proc/self/mem of the process `memory_owner` */
static pid_t memory_owner;
static struct stat memory_status; /* of it: a program that closes what it has not opened gives our number to another file */
static struct sigaction before;
static volatile sig_atomic_t is_chained;

/* ---- pages ------------------------------------------------------------------------------------------------------ */

static int open_memory(void) {
    struct stat status;
    int is_open = memory >= 0 && fstat(memory, &status) == 0 && status.st_dev == memory_status.st_dev &&
                  status.st_ino == memory_status.st_ino;
    if (is_open && memory_owner == getpid()) return 0;
    if (is_open) close(memory);
    memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    memory_owner = getpid();
    return memory >= 0 ? fstat(memory, &memory_status) : -1;
}

static int64_t place(sa_region *region, uint64_t page, uint64_t count, const uint8_t *bytes, int is_writable) {
    uint8_t *start = region->base + page * SA_PAGE_BYTES;
    if (open_memory() != 0) return -errno;
    for (size_t done = 0, length = count * SA_PAGE_BYTES; done < length;) {
        ssize_t some = pwrite(memory, bytes + done, length - done, (off_t)((uintptr_t)start + done));
        if (some < 0 && errno == EINTR) continue;
        if (some <= 0) return -ENOMEM;
        done += (size_t)some;
    }
    if (mprotect(start, count * SA_PAGE_BYTES, is_writable ? PROT_READ | PROT_WRITE : PROT_READ) != 0) return -errno;
    return (int64_t)count;
}

static void protect(sa_region *region, uint64_t page, uint64_t count) {
    if (mprotect(region->base + page * SA_PAGE_BYTES, count * SA_PAGE_BYTES, PROT_READ) != 0) {
        sa_touch_fatal("the kernel refuses to protect pages");
    }
}

static void unprotect(sa_region *region, uint64_t page, uint64_t count) {
    if (mprotect(region->base + page * SA_PAGE_BYTES, count * SA_PAGE_BYTES, PROT_READ | PROT_WRITE) != 0) {
        sa_touch_fatal("the kernel refuses to make pages writable");
    }
}

/* Unreadable first, so that nobody reads the zeros that stand there without a page. */
static void drop(sa_region *region, uint64_t page, uint64_t count) {
    uint8_t *start = region->base + page * SA_PAGE_BYTES;
    size_t length = count * SA_PAGE_BYTES;
    if (mprotect(start, length, PROT_NONE) != 0 || madvise(start, length, MADV_DONTNEED) != 0) {
        sa_touch_fatal("the kernel refuses to take pages back");
    }
}

static void wake(sa_region *region, uint64_t page) {
    (void)region;
    (void)page;
}

static int reserve(sa_region *region) { return sa_touch_map(region, PROT_NONE); }

const sa_touch_ops sa_touch_signal_ops = {
    .reserve = reserve,
    .place = place,
    .protect = protect,
    .unprotect = unprotect,
    .drop = drop,
    .wake = wake,
};

/* ---- the handler ------------------------------------------------------------------------------------------------ */

/* Whether the access that faulted was a write; 1 also where the machine does not tell: a page may be clean and count as dirty. */
static int is_write_fault(const void *context) {
#if defined(__x86_64__)
    return (((const ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 2) != 0;
#else
    (void)context;
    return 1;
#endif
}

static sa_touch_result serve(const void *address, int is_write) {
    sa_region *region = sa_touch_region_of(address);
    sa_stream *stream = NULL;
    if (region == NULL) return SA_TOUCH_DONE;
    uint64_t page = ((uintptr_t)address - (uintptr_t)region->base) / SA_PAGE_BYTES;
    const sa_window *record = sa_window_find(region, page / SA_WINDOW_PAGES);
    if (record == NULL || (record->resident >> page % SA_WINDOW_PAGES & 1) == 0) {
        return sa_region_serve(region, page, is_write, &stream);
    }
    if (is_write) sa_region_serve_write(region, page);
    return SA_TOUCH_DONE;
}

/* The signal is not ours: let whoever was there before have it. */
static void pass_on(int number, siginfo_t *info, void *context) {
    int is_default = (before.sa_flags & SA_SIGINFO) == 0 && (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN);
    int is_sent = info->si_code <= 0;
    if (is_default || (is_chained && is_sent)) {
        /* Sent after we passed one on: the other handler, having said its last words, gave the signal back to us. */
        struct sigaction plain = {.sa_handler = SIG_DFL};
        sigaction(number, &plain, NULL);
        if (is_sent) raise(number);
        return;
    }
    is_chained = 1;
    if (before.sa_flags & SA_SIGINFO) before.sa_sigaction(number, info, context);
    else before.sa_handler(number);
}

static void on_fault(int number, siginfo_t *info, void *context) {
    int error = errno;
    if (info->si_code <= 0 || sa_touch_region_of(info->si_addr) == NULL) {
        pass_on(number, info, context);
        return;
    }
    sa_touch_result result = SA_TOUCH_BUSY;
    while (result == SA_TOUCH_BUSY) {
        pthread_mutex_lock(&sa_touch.lock);
        result = serve(info->si_addr, is_write_fault(context));
        pthread_mutex_unlock(&sa_touch.lock);
        if (result == SA_TOUCH_BUSY) sched_yield();
    }
    if (result == SA_TOUCH_LOST) sa_touch_fatal("an evicted page is damaged or cannot be read");
    errno = error;
}

int sa_signal_start(void) {
    struct sigaction now, ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    if (open_memory() != 0) return errno;
    if (sigaction(SIGSEGV, NULL, &now) != 0) return errno;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault) return 0;
    sigemptyset(&ours.sa_mask);
    before = now;
    is_chained = 0;
    return sigaction(SIGSEGV, &ours, NULL) == 0 ? 0 : errno;
}
