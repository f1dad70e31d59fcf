/* touch.h - arrays whose pages come when they are touched: regions of address space, filled on a fault, emptied when full.
 *
 * Words: a *region* is a reserved range of addresses that an array lies on; its *source* says what stands in a page that was
 * never written; a *window* is 64 neighbouring pages of a region; a page is *resident* (in memory), *dirty* (may differ from
 * source and store), *packed* (its bytes are in the store, page_store.h), *carried* (a copy of it is on its way to where edits
 * are kept); a *stream* is a run of faults that follow each other; a *way* is how faults reach us:
 *
 *   USERFAULT  userfaultfd; one thread of ours serves all regions      the kernel's own accesses are served too, if we may
 *   SIGNAL     PROT_NONE and SIGSEGV; the thread that faults serves    the kernel's accesses to missing pages fail (EFAULT)
 *
 *   windows  | window + 1, resident, dirty, carried | ...   2^n records of 32 bytes, open addressing; three words of bits
 *   ring     | window | window | ...                        oldest first: who leaves first
 *
 *              fill (from store or source)                 write                 evict: protect, pack, drop
 *   missing ---------------------------------> clean  ----------------> dirty  ---------------------------> missing, packed
 *      ^--------------- drop ------------------'  ^---- carried, unchanged since: sa_region_carry_end ----'
 *
 * Invariants (sa_region_check tests 1 to 3):
 *   1. A window with a record is in the ring once; pages is the sum of the bits of resident; dirty pages are resident.
 *   2. Pages that are missing and not packed are what the source gives.
 *   3. pages is at most pages_max, but while the store refuses pages that nothing else has (they stay; nothing is lost).
 *   4. A clean page is protected against writing, so a write faults, and is served under `lock` like everything else: no
 *      write comes between the look at a page and its eviction. That is why the kernel's asynchronous write protection is not
 *      used: it lets the write through, and one between scan and eviction would be lost.
 *   5. Who holds `lock` touches resident pages only, waits for nothing, and allocates nothing by malloc: a thread may fault
 *      while it holds the GIL or a lock of malloc. A source that would have to wait says SA_TOUCH_BUSY; then all is let go of
 *      and tried again, after others.
 *
 * Threads: `lock` (one for all regions) is held by every function but those that say so.
 * Forks: through pthread_atfork, and not later in the hooks of Python: between two of those another thread may take the GIL
 * and fault, and if `lock` were held then, nobody could go on. The child has its own pages, store and server.
 * Cost: a fault of one page 5 to 10 us, 64 at once some 90 us; eviction 0.2 us a clean page, 5 to 15 a dirty one.
 * Memory: 51 to 102 bytes a resident window, and what page_store.h says.
 */
#ifndef SA_TOUCH_H
#define SA_TOUCH_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "page_store.h"

enum {
    SA_WINDOW_PAGES = 64,
    SA_WINDOW_BYTES = SA_WINDOW_PAGES * SA_PAGE_BYTES,
    SA_REGIONS_MAX = 1024,
    SA_STREAMS = 4,
    SA_TOUCH_PAGES_MIN = 14, /* of pages_max: an instruction may need several pages at once, in several threads */
    SA_TOUCH_GROWTH = 4,     /* each fault of a stream fills so many times what the one before did */
    SA_TOUCH_AHEAD_MAX = 3,  /* windows that are filled before a stream asks for them */
    SA_TOUCH_SPLITS_MAX = 24000 /* under SIGNAL; the system allows a process 65530 pieces of address space */
};

typedef enum sa_touch_way { SA_TOUCH_USERFAULT, SA_TOUCH_USERFAULT_USER, SA_TOUCH_SIGNAL, SA_TOUCH_WAY_COUNT } sa_touch_way;

typedef enum sa_touch_result { SA_TOUCH_DONE, SA_TOUCH_BUSY, SA_TOUCH_AHEAD, SA_TOUCH_LOST } sa_touch_result;

/* What stands in `bytes` bytes from `offset` of a region, into out; 0, or SA_TOUCH_BUSY if it would have to wait. */
typedef int (*sa_touch_fill)(void *context, uint64_t offset, uint8_t *out, size_t bytes);

typedef struct sa_touch_source {
    sa_touch_fill fill; /* NULL: zeros */
    void *context;
} sa_touch_source;

typedef struct sa_window {
    uint64_t mark; /* window + 1, 0 in an empty record */
    uint64_t resident, dirty, carried;
} sa_window;

typedef struct sa_stream {
    uint64_t low, high; /* pages that were filled last */
    uint32_t width;     /* of the next fill before growth */
    uint32_t ahead;
    uint64_t used; /* number of the fault */
    int is_writing;
} sa_stream;

typedef struct sa_touch_figures {
    uint64_t faults, write_faults, filled, ahead, evicted, packed, unpacked, regrown, dropped;
} sa_touch_figures;

typedef struct sa_region {
    uint8_t *base;
    uint64_t bytes; /* of the array; the last page may go beyond */
    uint64_t page_count;
    sa_touch_source source;
    sa_window *windows;
    uint64_t *ring;
    uint64_t ring_head, window_count;
    uint32_t window_bits;
    uint64_t pages, pages_max;
    uint64_t pinned; /* window + 1 that is being carried, else 0; it is not evicted */
    uint64_t write_next;
    uint32_t write_width;
    sa_stream streams[SA_STREAMS];
    sa_page_store store;
    sa_touch_figures figures;
} sa_region;

/* How a way does things to pages; each is called with `lock` held. place returns pages placed or -errno. */
typedef struct sa_touch_ops {
    int (*reserve)(sa_region *region);
    int64_t (*place)(sa_region *region, uint64_t page, uint64_t count, const uint8_t *bytes, int is_writable);
    void (*protect)(sa_region *region, uint64_t page, uint64_t count);
    void (*unprotect)(sa_region *region, uint64_t page, uint64_t count);
    void (*drop)(sa_region *region, uint64_t page, uint64_t count);
    void (*wake)(sa_region *region, uint64_t page);
} sa_touch_ops;

extern const sa_touch_ops sa_touch_userfault_ops, sa_touch_signal_ops;

typedef struct sa_touch_engine {
    pthread_mutex_t lock;
    const sa_touch_ops *ops; /* NULL before a start */
    sa_touch_way way;
    uint32_t region_count;
    int64_t splits; /* changes of resident or dirty from page to page: under SIGNAL each may split the address space */
    sa_region *regions[SA_REGIONS_MAX];
    uint8_t *window_bytes; /* scratch: one window, one page, and what packing needs */
    uint8_t *page_bytes;
    sa_page_scratch *pack_scratch;
} sa_touch_engine;

extern sa_touch_engine sa_touch;

_Static_assert(sizeof(sa_window) == 32, "two records a cache line");
_Static_assert(SA_WINDOW_PAGES == 64, "the pages of a window are the bits of a word");

/* ---- these take `lock` themselves ------------------------------------------------------------------------------- */

/* Begin with a way; it stays. 0, or errno if the system does not permit it. */
int sa_touch_start(sa_touch_way way);

/* A new region, or NULL and errno. */
sa_region *sa_region_open(uint64_t bytes, sa_touch_source source, uint64_t pages_max, const char *directory,
                          uint32_t item_bytes, uint64_t warm_bytes, uint64_t disk_bytes);
void sa_region_close(sa_region *region);

/* ---- faults (called by the ways, with `lock` held) ---------------------------------------------------------------- */

sa_region *sa_touch_region_of(const void *address);

/* What every way begins with: the addresses of a region, mapped with a protection and without memory. 0 or an errno. */
int sa_touch_map(sa_region *region, int protection);

/* A missing page was read or written. SA_TOUCH_AHEAD: call sa_region_fill_ahead with *stream when nobody waits. */
sa_touch_result sa_region_serve(sa_region *region, uint64_t page, int is_write, sa_stream **stream);

/* A write to a protected page. */
void sa_region_serve_write(sa_region *region, uint64_t page);

/* Fill the next window of a stream. SA_TOUCH_DONE if there was something to fill. */
sa_touch_result sa_region_fill_ahead(sa_region *region, sa_stream *stream);

/* ---- from Python, with `lock` held ------------------------------------------------------------------------------- */

/* Bring pages in. DONE, BUSY or LOST. */
sa_touch_result sa_region_populate(sa_region *region, uint64_t page, uint64_t count);

/* Evict until at most so many pages are resident; the limit itself is the caller's. 0, -1 if the store refuses. */
int sa_region_shrink(sa_region *region, uint64_t pages);

/* Put dirty pages into the store, all of them; they stay resident, clean. 0, -1 if it refuses. */
int sa_region_pack_all(sa_region *region);

/* Windows with dirty or packed pages, in no order, at most `room` of them; returns how many there are. */
uint64_t sa_region_list_edited(const sa_region *region, uint64_t *windows, uint64_t room);

/* Copy the dirty and packed pages of a window to bytes (page i of it at i * SA_PAGE_BYTES), pin the window.
 * 0 and their bits, -1 if a page cannot be read. */
int sa_region_carry_begin(sa_region *region, uint64_t window, uint8_t *bytes, uint64_t *mask);

/* The copies have arrived (is_done) or not. Pages that were not written since are clean then. */
void sa_region_carry_end(sa_region *region, uint64_t window, uint64_t mask, int is_done);

/* The source now gives these bytes (item_bytes of them, at this offset) whatever a page has: resident clean pages are dropped,
 * others are written. DONE, BUSY or LOST. */
sa_touch_result sa_region_refresh(sa_region *region, uint64_t offset, const uint8_t *bytes, uint32_t length);

/* All pages are gone, whoever took them. */
void sa_region_empty(sa_region *region);

/* 0, or the number of the first invariant that is broken. */
int sa_region_check(const sa_region *region);

/* Memory beside the pages. */
uint64_t sa_region_overhead_bytes(const sa_region *region);

/* ---- windows (touch_windows.c) ----------------------------------------------------------------------------------- */

int sa_windows_open(sa_region *region);
void sa_windows_close(sa_region *region);
sa_window *sa_window_find(const sa_region *region, uint64_t window);

/* The record of a window, new and last in the ring if it had none; NULL without memory. */
sa_window *sa_window_make(sa_region *region, uint64_t window);

/* The oldest window is taken out of the ring; its record stays until sa_window_forget or sa_window_renew. */
sa_window *sa_window_take_oldest(sa_region *region);
void sa_window_renew(sa_region *region, uint64_t window);
void sa_window_forget(sa_region *region, sa_window *record);
int sa_windows_check(const sa_region *region);

/* ---- the thread of USERFAULT (touch_userfault.c), the handler of SIGNAL (touch_signal.c) --------------------------- */

int sa_userfault_start(int is_user_only);
int sa_userfault_restart_in_child(void);
void sa_userfault_inherit(int is_inherited); /* whether a fork copies the regions */

/* Put our handler first, again if somebody has put another there since. 0, or errno. */
int sa_signal_start(void);

/* Say why the program cannot go on, and end it: there is no other way to refuse an access to memory. */
_Noreturn void sa_touch_fatal(const char *reason);

#endif
