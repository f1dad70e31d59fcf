# Declarations of core/edit_sort.h, core/overlay.h and core/overlay_bulk.h; the headers are the truth.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_rwlock_t:
        pass
    int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
    int pthread_rwlock_unlock(pthread_rwlock_t *lock)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_trylock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef extern from "edit_sort.h" nogil:
    ctypedef struct sa_edit:
        uint64_t address
        uint64_t raw

    void sa_edit_sort(sa_edit *edits, sa_edit *spare, size_t count)

cdef extern from "overlay.h" nogil:
    enum:
        SA_PAGE_ADDRESSES
        SA_FILTER_BITS_PER_SLOT

    ctypedef struct sa_slot:
        uint64_t mark
        uint64_t raw

    ctypedef struct sa_table:
        uint32_t slot_bits
        uint64_t count

    ctypedef struct sa_overlay:
        sa_table table
        pthread_rwlock_t lock
        pthread_mutex_t writing

    int sa_overlay_init(sa_overlay *overlay, uint64_t secret)
    void sa_overlay_free(sa_overlay *overlay)
    void sa_overlay_renew_locks(sa_overlay *overlay)
    int sa_overlay_find(const sa_overlay *overlay, uint64_t address, uint64_t *raw)
    int sa_overlay_put(sa_overlay *overlay, uint64_t address, uint64_t raw)
    int sa_overlay_remove(sa_overlay *overlay, uint64_t address)
    int sa_overlay_is_full(const sa_overlay *overlay)
    int sa_overlay_reserve(sa_overlay *overlay, uint64_t more)
    void sa_overlay_shrink(sa_overlay *overlay)
    void sa_overlay_clear(sa_overlay *overlay)
    void sa_overlay_list(const sa_overlay *overlay, sa_edit *edits)
    int sa_overlay_check(const sa_overlay *overlay)

cdef extern from "overlay_bulk.h" nogil:
    void sa_overlay_patch_fill(sa_overlay *overlay, uint64_t start, uint64_t step, void *out, size_t count, size_t value_bytes)
    void sa_overlay_patch_gather(sa_overlay *overlay, const uint64_t *addresses, void *out, size_t count, size_t value_bytes)
    void sa_overlay_scatter(sa_overlay *overlay, const uint64_t *addresses, const uint64_t *raws, const uint8_t *removed,
                            size_t count)
    int sa_overlay_find_shared(sa_overlay *overlay, uint64_t address, uint64_t *raw)
