/* touch_life.c - regions begin and end, and live through forks. Words, invariants and threads: touch.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "touch.h"

void sa_touch_fatal(const char *reason) {
    static const char who[] = "spectral_alloc: an array on touch cannot go on: ";
    ssize_t ignored = write(STDERR_FILENO, who, sizeof who - 1);
    ignored = write(STDERR_FILENO, reason, strlen(reason));
    ignored = write(STDERR_FILENO, "\n", 1);
    (void)ignored;
    abort();
}

int sa_touch_map(sa_region *region, int protection) {
    uint64_t bytes = region->page_count * SA_PAGE_BYTES;
    uint8_t *base = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return errno;
    region->base = base;
    madvise(base, bytes, MADV_NOHUGEPAGE); /* a kernel without huge pages refuses, and needs no telling */
    madvise(base, bytes, MADV_DONTDUMP);
    return 0;
}

static void fork_begin(void) {
    pthread_mutex_lock(&sa_touch.lock);
    for (uint32_t i = 0; i < sa_touch.region_count; i++) sa_page_store_seal(&sa_touch.regions[i]->store);
    if (sa_touch.ops == &sa_touch_userfault_ops) sa_userfault_inherit(1);
}

static void fork_end(void) {
    if (sa_touch.ops == &sa_touch_userfault_ops) sa_userfault_inherit(0);
    pthread_mutex_unlock(&sa_touch.lock);
}

static void fork_child(void) {
    int error = 0;
    pthread_mutex_init(&sa_touch.lock, NULL);
    for (uint32_t i = 0; i < sa_touch.region_count; i++) {
        sa_region *region = sa_touch.regions[i];
        sa_window *pinned = region->pinned != 0 ? sa_window_find(region, region->pinned - 1) : NULL;
        if (pinned != NULL) pinned->carried = 0;
        region->pinned = 0;
    }
    if (sa_touch.ops == &sa_touch_userfault_ops) error = sa_userfault_restart_in_child();
    if (error == 0) return;
    /* Missing pages would read as zeros: nothing can be read instead. */
    for (uint32_t i = 0; i < sa_touch.region_count; i++) {
        mprotect(sa_touch.regions[i]->base, sa_touch.regions[i]->page_count * SA_PAGE_BYTES, PROT_NONE);
    }
    static const char message[] = "spectral_alloc: no arrays on touch in this forked process: the kernel refuses userfaultfd\n";
    ssize_t ignored = write(STDERR_FILENO, message, sizeof message - 1);
    (void)ignored;
}

static int start(sa_touch_way way) {
    if (sa_touch.window_bytes == NULL) {
        size_t bytes = SA_WINDOW_BYTES + SA_PAGE_BYTES + sizeof(sa_page_scratch);
        uint8_t *made = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (made == MAP_FAILED) return ENOMEM;
        sa_touch.page_bytes = made + SA_WINDOW_BYTES;
        sa_touch.pack_scratch = (sa_page_scratch *)(made + SA_WINDOW_BYTES + SA_PAGE_BYTES);
        if (pthread_atfork(fork_begin, fork_end, fork_child) != 0) return ENOMEM;
        sa_touch.window_bytes = made;
    }
    if (sysconf(_SC_PAGESIZE) != SA_PAGE_BYTES) return ENOTSUP;
    if (way == SA_TOUCH_SIGNAL) return sa_signal_start();
    return sa_touch.ops == NULL ? sa_userfault_start(way == SA_TOUCH_USERFAULT_USER) : 0;
}

int sa_touch_start(sa_touch_way way) {
    pthread_mutex_lock(&sa_touch.lock);
    int error = sa_touch.ops != NULL && sa_touch.way != way ? EBUSY : start(way);
    if (error == 0) {
        sa_touch.ops = way == SA_TOUCH_SIGNAL ? &sa_touch_signal_ops : &sa_touch_userfault_ops;
        sa_touch.way = way;
    }
    pthread_mutex_unlock(&sa_touch.lock);
    return error;
}

static void free_region(sa_region *region) {
    if (region->base != NULL) munmap(region->base, region->page_count * SA_PAGE_BYTES);
    sa_windows_close(region);
    sa_page_store_close(&region->store);
    free(region);
}

static int set_up(sa_region *region, const char *directory, uint32_t item_bytes, uint64_t warm_bytes, uint64_t disk_bytes) {
    if (sa_touch.ops == NULL || sa_touch.region_count == SA_REGIONS_MAX) return EMFILE;
    if (sa_windows_open(region) != 0) return ENOMEM;
    if (sa_page_store_open(&region->store, directory, item_bytes, warm_bytes, disk_bytes, sa_touch.pack_scratch) != 0) {
        return ENOMEM;
    }
    return sa_touch.ops->reserve(region);
}

sa_region *sa_region_open(uint64_t bytes, sa_touch_source source, uint64_t pages_max, const char *directory,
                          uint32_t item_bytes, uint64_t warm_bytes, uint64_t disk_bytes) {
    sa_region *region = calloc(1, sizeof *region);
    if (region == NULL) return NULL;
    region->bytes = bytes;
    region->page_count = bytes / SA_PAGE_BYTES + (bytes % SA_PAGE_BYTES != 0);
    region->source = source;
    region->pages_max = pages_max < SA_TOUCH_PAGES_MIN ? SA_TOUCH_PAGES_MIN : pages_max;
    pthread_mutex_lock(&sa_touch.lock);
    int error = set_up(region, directory, item_bytes, warm_bytes, disk_bytes);
    if (error == 0) sa_touch.regions[sa_touch.region_count++] = region;
    pthread_mutex_unlock(&sa_touch.lock);
    if (error == 0) return region;
    free_region(region);
    errno = error;
    return NULL;
}

void sa_region_close(sa_region *region) {
    pthread_mutex_lock(&sa_touch.lock);
    for (uint32_t i = 0; i < sa_touch.region_count; i++) {
        if (sa_touch.regions[i] == region) sa_touch.regions[i] = sa_touch.regions[--sa_touch.region_count];
    }
    sa_region_empty(region);
    free_region(region);
    pthread_mutex_unlock(&sa_touch.lock);
}
