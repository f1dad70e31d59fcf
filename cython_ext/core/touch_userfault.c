/* touch_userfault.c - the way USERFAULT: faults come as messages of userfaultfd to one thread of ours. See touch.h.
 *
 *   a thread faults -> message -> serve: UFFDIO_COPY fills and wakes it        then windows ahead, while it works on this one
 *   clean pages are placed write-protected -> message -> UFFDIO_WRITEPROTECT lets the write go on
 *
 * A fork gives the child neither the registration nor the thread: pages that are missing there would read as zeros. So the
 * regions are not inherited (MADV_DONTFORK) but by forks that tell us before and after, and there the child registers anew.
 * Nor may the channel end while arrays live, for the same reason, though a program may close descriptors that it has not
 * opened, as daemons do. A second thread waits on it for ever and by that keeps it; what is touched then ends the program.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "touch.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

enum { MESSAGES_MAX = 16, STACK_BYTES = 512 << 10, PAUSE_NANOSECONDS = 20000, LEAVE_SECONDS = 5 };

static const uint64_t NEEDED_IOCTLS =
    (uint64_t)1 << _UFFDIO_COPY | (uint64_t)1 << _UFFDIO_WRITEPROTECT | (uint64_t)1 << _UFFDIO_WAKE;

static int channel = -1;
static int is_user_mode_only;

static struct uffdio_range range_of(const sa_region *region, uint64_t page, uint64_t count) {
    return (struct uffdio_range){(uintptr_t)region->base + page * SA_PAGE_BYTES, count * SA_PAGE_BYTES};
}

/* ---- pages ------------------------------------------------------------------------------------------------------ */

static int64_t place(sa_region *region, uint64_t page, uint64_t count, const uint8_t *bytes, int is_writable) {
    struct uffdio_copy copy = {
        .dst = (uintptr_t)region->base + page * SA_PAGE_BYTES,
        .src = (uintptr_t)bytes,
        .len = count * SA_PAGE_BYTES,
        .mode = is_writable ? 0 : UFFDIO_COPY_MODE_WP,
    };
    if (ioctl(channel, UFFDIO_COPY, &copy) == 0) return (int64_t)count;
    if (copy.copy > 0) return copy.copy / SA_PAGE_BYTES;
    if (errno == EBADF || errno == ENOTTY) sa_touch_fatal("its descriptor of userfaultfd was closed by the program");
    return -errno;
}

static void write_protect(sa_region *region, uint64_t page, uint64_t count, uint64_t mode) {
    struct uffdio_writeprotect change = {.range = range_of(region, page, count), .mode = mode};
    while (ioctl(channel, UFFDIO_WRITEPROTECT, &change) != 0) {
        if (errno != EAGAIN && errno != EINTR) sa_touch_fatal("the kernel does not change the protection of pages");
    }
}

static void protect(sa_region *region, uint64_t page, uint64_t count) {
    write_protect(region, page, count, UFFDIO_WRITEPROTECT_MODE_WP);
}

static void unprotect(sa_region *region, uint64_t page, uint64_t count) { write_protect(region, page, count, 0); }

static void drop(sa_region *region, uint64_t page, uint64_t count) {
    if (madvise(region->base + page * SA_PAGE_BYTES, count * SA_PAGE_BYTES, MADV_DONTNEED) != 0) {
        sa_touch_fatal("the kernel refuses to take pages back");
    }
}

static void wake(sa_region *region, uint64_t page) {
    struct uffdio_range range = range_of(region, page, 1);
    ioctl(channel, UFFDIO_WAKE, &range);
}

static int register_region(const sa_region *region) {
    struct uffdio_register request = {
        .range = range_of(region, 0, region->page_count),
        .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
    };
    if (ioctl(channel, UFFDIO_REGISTER, &request) != 0) return errno;
    return (request.ioctls & NEEDED_IOCTLS) == NEEDED_IOCTLS ? 0 : ENOTSUP;
}

static int reserve(sa_region *region) {
    int error = sa_touch_map(region, PROT_READ | PROT_WRITE);
    if (error != 0) return error;
    if (madvise(region->base, region->page_count * SA_PAGE_BYTES, MADV_DONTFORK) != 0) return errno;
    return register_region(region);
}

const sa_touch_ops sa_touch_userfault_ops = {
    .reserve = reserve,
    .place = place,
    .protect = protect,
    .unprotect = unprotect,
    .drop = drop,
    .wake = wake,
};

/* ---- the thread ------------------------------------------------------------------------------------------------- */

/* What a stream should find filled; the region may be gone when it is its turn. */
typedef struct ahead_task {
    sa_region *region;
    sa_stream *stream;
    uint32_t left;
} ahead_task;

static void pause_briefly(void) {
    struct timespec time = {0, PAUSE_NANOSECONDS};
    nanosleep(&time, NULL);
}

/* Who cannot be served now is woken, and faults again behind the others: what it waits for may wait for one of them. */
static void serve(const struct uffd_msg *message, ahead_task *task) {
    uint64_t address = message->arg.pagefault.address, flags = message->arg.pagefault.flags;
    sa_touch_result result = SA_TOUCH_DONE;
    sa_stream *stream = NULL;
    pthread_mutex_lock(&sa_touch.lock);
    sa_region *region = sa_touch_region_of((const void *)(uintptr_t)address);
    if (region != NULL) {
        uint64_t page = (address - (uintptr_t)region->base) / SA_PAGE_BYTES;
        if (flags & UFFD_PAGEFAULT_FLAG_WP) sa_region_serve_write(region, page);
        else result = sa_region_serve(region, page, (flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0, &stream);
        if (result == SA_TOUCH_AHEAD) *task = (ahead_task){region, stream, stream->ahead};
        if (result == SA_TOUCH_BUSY) wake(region, page);
    }
    pthread_mutex_unlock(&sa_touch.lock);
    if (result == SA_TOUCH_BUSY) pause_briefly();
    if (result == SA_TOUCH_LOST) sa_touch_fatal("an evicted page is damaged or cannot be read");
}

static void fill_one_ahead(ahead_task *task) {
    int is_known = 0;
    pthread_mutex_lock(&sa_touch.lock);
    for (uint32_t i = 0; i < sa_touch.region_count; i++) is_known |= sa_touch.regions[i] == task->region;
    int is_done = is_known && sa_region_fill_ahead(task->region, task->stream) == SA_TOUCH_DONE;
    pthread_mutex_unlock(&sa_touch.lock);
    task->left = is_done ? task->left - 1 : 0;
}

/* The number is still that of the channel: only a userfaultfd finds fault with the range. */
static int is_channel(int fd) {
    struct uffdio_range nothing = {0, 0};
    return ioctl(fd, UFFDIO_WAKE, &nothing) != 0 && errno == EINVAL;
}

/* Somebody closed it. If that was on the way to exec, there are no arrays in a moment; else a touch would wait for ever. */
static void leave_slowly(void) {
    struct timespec time = {LEAVE_SECONDS, 0};
    nanosleep(&time, NULL);
    sa_touch_fatal("its descriptor of userfaultfd was closed by the program");
}

static void *keep(void *own_channel) {
    struct pollfd nothing = {(int)(intptr_t)own_channel, 0, 0};
    while (poll(&nothing, 1, -1) < 0 && errno == EINTR) continue;
    return NULL;
}

static void *run(void *own_channel) {
    struct uffd_msg messages[MESSAGES_MAX];
    ahead_task task = {NULL, NULL, 0};
    int fd = (int)(intptr_t)own_channel;
    for (;;) {
        if (!is_channel(fd)) leave_slowly();
        ssize_t length = read(fd, messages, sizeof messages);
        for (ssize_t i = 0; (i + 1) * (ssize_t)sizeof *messages <= length; i++) {
            if (messages[i].event == UFFD_EVENT_PAGEFAULT) serve(&messages[i], &task);
        }
        /* Before the next message: whoever is woken here often takes this processor, and then is never ahead of its reads. */
        while (task.left != 0) fill_one_ahead(&task);
        if (length > 0) continue;
        if (errno != EAGAIN && errno != EINTR) leave_slowly();
        struct pollfd ready = {fd, POLLIN, 0};
        poll(&ready, 1, -1);
    }
    return NULL;
}

static int start_thread(void *(*function)(void *)) {
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_attr_init(&attributes) != 0) return ENOMEM;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the threads of the program */
    int error = pthread_create(&thread, &attributes, function, (void *)(intptr_t)channel);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

static int open_channel(void) {
    int flags = O_CLOEXEC | O_NONBLOCK;
    int fd = (int)syscall(SYS_userfaultfd, flags | (is_user_mode_only ? UFFD_USER_MODE_ONLY : 0));
    if (fd >= 0 || errno != EPERM || is_user_mode_only) return fd;
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0) {
        errno = EPERM;
        return -1;
    }
    fd = ioctl(device, USERFAULTFD_IOC_NEW, flags);
    int error = errno;
    close(device);
    errno = error;
    return fd;
}

static int start(void) {
    struct uffdio_api request = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP};
    int error = 0;
    channel = open_channel();
    if (channel < 0) return errno ? errno : EPERM;
    if (ioctl(channel, UFFDIO_API, &request) != 0) error = errno;
    for (uint32_t i = 0; i < sa_touch.region_count && error == 0; i++) error = register_region(sa_touch.regions[i]);
    if (error == 0) error = start_thread(keep);
    if (error == 0) error = start_thread(run);
    if (error == 0) return 0;
    close(channel);
    channel = -1;
    return error;
}

int sa_userfault_start(int is_user_only) {
    is_user_mode_only = is_user_only;
    return start();
}

void sa_userfault_inherit(int is_inherited) {
    for (uint32_t i = 0; i < sa_touch.region_count; i++) {
        const sa_region *region = sa_touch.regions[i];
        madvise(region->base, region->page_count * SA_PAGE_BYTES, is_inherited ? MADV_DOFORK : MADV_DONTFORK);
    }
}

int sa_userfault_restart_in_child(void) {
    if (is_channel(channel)) close(channel);
    int error = start();
    if (error != 0) return error;
    for (uint32_t i = 0; i < sa_touch.region_count; i++) protect(sa_touch.regions[i], 0, sa_touch.regions[i]->page_count);
    sa_userfault_inherit(0);
    return 0;
}
