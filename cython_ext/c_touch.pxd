# Declarations of core/page_store.h and core/touch.h; the headers are the truth.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "page_store.h" nogil:
    enum:
        SA_PAGE_BYTES
        SA_SECTOR_BYTES

    ctypedef struct sa_segment:
        uint64_t end_sectors
        uint64_t live_sectors

    ctypedef struct sa_page_store:
        uint64_t count
        uint64_t failures
        int error
        sa_segment segments[1]

    uint64_t sa_page_store_disk_bytes(const sa_page_store *store)

cdef extern from "touch.h" nogil:
    enum:
        SA_WINDOW_PAGES
        SA_WINDOW_BYTES
        SA_TOUCH_PAGES_MIN

    ctypedef enum sa_touch_way:
        SA_TOUCH_USERFAULT
        SA_TOUCH_USERFAULT_USER
        SA_TOUCH_SIGNAL
        SA_TOUCH_WAY_COUNT

    ctypedef enum sa_touch_result:
        SA_TOUCH_DONE
        SA_TOUCH_BUSY
        SA_TOUCH_AHEAD
        SA_TOUCH_LOST

    ctypedef int (*sa_touch_fill)(void *context, uint64_t offset, uint8_t *out, size_t bytes)

    ctypedef struct sa_touch_source:
        sa_touch_fill fill
        void *context

    ctypedef struct sa_touch_figures:
        uint64_t faults, write_faults, filled, ahead, evicted, packed, unpacked, regrown, dropped

    ctypedef struct sa_region:
        uint8_t *base
        uint64_t bytes
        uint64_t page_count
        uint64_t pages
        uint64_t pages_max
        sa_page_store store
        sa_touch_figures figures

    ctypedef struct sa_touch_engine:
        pthread_mutex_t lock

    sa_touch_engine sa_touch

    int sa_touch_start(sa_touch_way way)
    sa_region *sa_region_open(uint64_t bytes, sa_touch_source source, uint64_t pages_max, const char *directory,
                              uint32_t item_bytes, uint64_t warm_bytes, uint64_t disk_bytes)
    void sa_region_close(sa_region *region)
    sa_touch_result sa_region_populate(sa_region *region, uint64_t page, uint64_t count)
    int sa_region_shrink(sa_region *region, uint64_t pages)
    int sa_region_pack_all(sa_region *region)
    uint64_t sa_region_list_edited(const sa_region *region, uint64_t *windows, uint64_t room)
    int sa_region_carry_begin(sa_region *region, uint64_t window, uint8_t *bytes, uint64_t *mask)
    void sa_region_carry_end(sa_region *region, uint64_t window, uint64_t mask, int is_done)
    sa_touch_result sa_region_refresh(sa_region *region, uint64_t offset, const uint8_t *bytes, uint32_t length)
    int sa_region_check(const sa_region *region)
    uint64_t sa_region_overhead_bytes(const sa_region *region)
