/* page_store.c - keeps packed pages. Words, layout, invariants and cost: page_store.h. */
#define _GNU_SOURCE /* O_TMPFILE, mremap */
#include "page_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"

enum { TABLE_BITS_MIN = 7, SPARES_MIN = 512, SECTOR_BITS = 56, NAME_ATTEMPTS = 64 };

static const uint64_t SECTOR_MASK = ((uint64_t)1 << SECTOR_BITS) - 1;

static void *mapped(uint64_t bytes) {
    void *made = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return made == MAP_FAILED ? NULL : made;
}

static uint32_t sectors_of(uint32_t length) { return (length + SA_SECTOR_BYTES - 1) / SA_SECTOR_BYTES; }

/* ---- table ---------------------------------------------------------------------------------------------------- */

/* Neighbouring pages lie together, so that a window's look-ups share cache lines. */
static uint64_t home_of(const sa_page_store *store, uint64_t page) {
    uint64_t hash = (page >> 3) * 0x9E3779B97F4A7C15u;
    return ((hash >> (67 - store->bits)) << 3 | (page & 7)) & (((uint64_t)1 << store->bits) - 1);
}

static sa_packed *entry_of(const sa_page_store *store, uint64_t page) {
    uint64_t mask = ((uint64_t)1 << store->bits) - 1, at = home_of(store, page);
    while (store->table[at].mark != page + 1 && store->table[at].mark != 0) at = (at + 1) & mask;
    return &store->table[at];
}

const sa_packed *sa_page_store_find(const sa_page_store *store, uint64_t page) {
    if (store->count == 0) return NULL;
    const sa_packed *found = entry_of(store, page);
    return found->mark == 0 ? NULL : found;
}

/* Make room for one more entry. 0, or -1 without memory. */
static int reserve_entry(sa_page_store *store) {
    uint64_t size = (uint64_t)1 << store->bits;
    if ((store->count + 1) * 8 <= size * 5) return 0;
    sa_packed *old = store->table, *made = mapped(2 * size * sizeof *made);
    if (made == NULL) return -1;
    store->table = made;
    store->bits++;
    for (uint64_t i = 0; i < size; i++) {
        if (old[i].mark != 0) *entry_of(store, old[i].mark - 1) = old[i];
    }
    munmap(old, size * sizeof *old);
    return 0;
}

/* Entries behind the gap move up, if the gap lies between their home and them. */
static void delete_entry(sa_page_store *store, sa_packed *entry) {
    uint64_t mask = ((uint64_t)1 << store->bits) - 1, gap = (uint64_t)(entry - store->table), at = gap;
    for (;;) {
        at = (at + 1) & mask;
        if (store->table[at].mark == 0) break;
        uint64_t home = home_of(store, store->table[at].mark - 1);
        if (((at - home) & mask) < ((at - gap) & mask)) continue;
        store->table[gap] = store->table[at];
        gap = at;
    }
    store->table[gap] = (sa_packed){0};
    store->count--;
}

/* ---- places --------------------------------------------------------------------------------------------------- */

static void spare(sa_spares *spares, uint64_t sector) {
    if (spares->count == spares->capacity) {
        uint64_t bytes = spares->capacity * sizeof(uint64_t);
        void *made = bytes ? mremap(spares->sectors, bytes, 2 * bytes, MREMAP_MAYMOVE) : mapped(SPARES_MIN * sizeof(uint64_t));
        if (made == NULL || made == MAP_FAILED) return; /* the place is not used again, and no byte is lost */
        spares->sectors = made;
        spares->capacity = bytes ? 2 * spares->capacity : SPARES_MIN;
    }
    spares->sectors[spares->count++] = sector;
}

/* A spare place of so many sectors, or a part of a larger one; 0 if there is none. */
static int take_spare(sa_spares *spares, uint32_t sectors, uint64_t *sector) {
    for (uint32_t size = sectors; size <= SA_STORE_SIZES; size++) {
        if (spares[size - 1].count == 0) continue;
        *sector = spares[size - 1].sectors[--spares[size - 1].count];
        if (size > sectors) spare(&spares[size - sectors - 1], *sector + sectors);
        return 1;
    }
    return 0;
}

static int create_file(const char *directory) {
    char name[SA_STORE_PATH_BYTES + 64];
    int fd = open(directory, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return fd;
    for (int attempt = 0; attempt < NAME_ATTEMPTS; attempt++) {
        snprintf(name, sizeof name, "%s/spectral_alloc-pages-%d-%d", directory, (int)getpid(), attempt);
        fd = open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) unlink(name);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

uint64_t sa_page_store_disk_bytes(const sa_page_store *store) {
    uint64_t sectors = 0;
    for (int i = 1; i < SA_STORE_SEGMENTS_MAX; i++) {
        if (store->segments[i].fd >= 0) sectors += store->segments[i].end_sectors;
    }
    return sectors * SA_SECTOR_BYTES;
}

/* A file to write to, in store->active. 0, or -1 and errno. */
static int open_active_slow(sa_page_store *store) {
    for (uint32_t i = 1; i < SA_STORE_SEGMENTS_MAX; i++) {
        if (store->segments[i].fd >= 0) continue;
        struct stat status;
        int fd = create_file(store->directory);
        if (fd < 0) return -1;
        if (fstat(fd, &status) != 0) {
            close(fd);
            return -1;
        }
        store->segments[i] = (sa_segment){.fd = fd, .device = status.st_dev, .inode = status.st_ino};
        store->active = i;
        return 0;
    }
    errno = EMFILE;
    return -1;
}

/* Where sectors can be written: in the warm arena if it has room, else in the active file. 0, or -1 and errno. */
static int take_place(sa_page_store *store, uint32_t sectors, uint64_t *place) {
    uint64_t sector;
    sa_segment *warm = &store->segments[0];
    if (take_spare(store->spares[0], sectors, &sector)) {
        *place = sector;
        return 0;
    }
    if (warm->end_sectors + sectors <= store->warm_sectors) {
        *place = warm->end_sectors;
        warm->end_sectors += sectors;
        return 0;
    }
    if (store->active == 0 && open_active_slow(store) != 0) return -1;
    sa_segment *file = &store->segments[store->active];
    if (!take_spare(store->spares[1], sectors, &sector)) {
        if (sa_page_store_disk_bytes(store) / SA_SECTOR_BYTES + sectors > store->limit_sectors) {
            errno = ENOSPC;
            return -1;
        }
        sector = file->end_sectors;
        file->end_sectors += sectors;
    }
    *place = (uint64_t)store->active << SECTOR_BITS | sector;
    return 0;
}

/* Whether the descriptor is still our file; else 0 and errno. */
static int is_ours(const sa_segment *segment) {
    struct stat status;
    if (fstat(segment->fd, &status) != 0) return 0;
    errno = EBADF;
    return status.st_dev == segment->device && status.st_ino == segment->inode;
}

static void give_place_back(sa_page_store *store, uint64_t place, uint32_t sectors) {
    uint32_t number = (uint32_t)(place >> SECTOR_BITS);
    if (number == 0 || number == store->active) spare(&store->spares[number != 0][sectors - 1], place & SECTOR_MASK);
}

static void close_segment(sa_segment *segment) {
    if (is_ours(segment)) close(segment->fd);
    *segment = (sa_segment){.fd = -1};
}

/* Nothing is left in a segment that is written: all of it can be used again, and none of the disk need be kept. */
static void start_anew(sa_page_store *store, uint32_t number) {
    sa_segment *segment = &store->segments[number];
    for (int i = 0; i < SA_STORE_SIZES; i++) store->spares[number != 0][i].count = 0;
    if (number == 0 || (is_ours(segment) && ftruncate(segment->fd, 0) == 0)) segment->end_sectors = 0;
}

/* A page is no longer at its place. */
static void release(sa_page_store *store, uint64_t place, uint32_t sectors) {
    uint32_t number = (uint32_t)(place >> SECTOR_BITS);
    sa_segment *segment = &store->segments[number];
    segment->live_sectors -= sectors;
    if (segment->live_sectors != 0) give_place_back(store, place, sectors);
    else if (number == 0 || number == store->active) start_anew(store, number);
    else close_segment(segment);
}

static int write_at(sa_page_store *store, uint64_t place, const uint8_t *bytes, uint32_t length) {
    uint64_t offset = (place & SECTOR_MASK) * SA_SECTOR_BYTES;
    uint32_t number = (uint32_t)(place >> SECTOR_BITS), done = 0;
    if (number == 0) {
        memcpy(store->warm + offset, bytes, length);
        return 0;
    }
    if (!is_ours(&store->segments[number])) return -1;
    while (done < length) {
        ssize_t some = pwrite(store->segments[number].fd, bytes + done, length - done, (off_t)(offset + done));
        if (some < 0 && errno == EINTR) continue;
        if (some <= 0) return -1;
        done += (uint32_t)some;
    }
    return 0;
}

static int read_at(const sa_page_store *store, uint64_t place, uint8_t *bytes, uint32_t length) {
    uint64_t offset = (place & SECTOR_MASK) * SA_SECTOR_BYTES;
    uint32_t number = (uint32_t)(place >> SECTOR_BITS), done = 0;
    if (number == 0) {
        memcpy(bytes, store->warm + offset, length);
        return 0;
    }
    if (!is_ours(&store->segments[number])) return -1;
    while (done < length) {
        ssize_t some = pread(store->segments[number].fd, bytes + done, length - done, (off_t)(offset + done));
        if (some < 0 && errno == EINTR) continue;
        if (some <= 0) return -1;
        done += (uint32_t)some;
    }
    return 0;
}

/* ---- pages ---------------------------------------------------------------------------------------------------- */

/* Writes packed bytes to a new place. 0, or -1 and nothing has changed. */
static int put_packed(sa_page_store *store, const uint8_t *packed, uint32_t length, uint64_t *place) {
    uint32_t sectors = sectors_of(length);
    if (take_place(store, sectors, place) != 0) return -1;
    if (write_at(store, *place, packed, length) != 0) {
        int error = errno ? errno : EIO;
        give_place_back(store, *place, sectors);
        errno = error;
        return -1;
    }
    store->segments[*place >> SECTOR_BITS].live_sectors += sectors;
    return 0;
}

int sa_page_store_put(sa_page_store *store, uint64_t page, const uint8_t *bytes) {
    static uint8_t packed[SA_PAGE_BYTES]; /* the caller's lock guards it */
    uint64_t place;
    uint32_t length = (uint32_t)sa_page_pack(bytes, store->item_bytes, packed, store->scratch);
    errno = ENOMEM;
    if (reserve_entry(store) != 0 || put_packed(store, packed, length, &place) != 0) {
        store->error = errno;
        store->failures++;
        return -1;
    }
    sa_packed *entry = entry_of(store, page);
    if (entry->mark != 0) release(store, entry->place, sectors_of(entry->length));
    store->count += entry->mark == 0;
    *entry = (sa_packed){page + 1, place, sa_crc32c(0, packed, length), length};
    return 0;
}

int sa_page_store_get(sa_page_store *store, const sa_packed *entry, uint8_t *bytes) {
    static uint8_t packed[SA_PAGE_BYTES]; /* as above */
    if (read_at(store, entry->place, packed, entry->length) != 0) return -1;
    if (sa_crc32c(0, packed, entry->length) != entry->check) return -1;
    return sa_page_unpack(packed, entry->length, store->item_bytes, bytes, store->scratch);
}

void sa_page_store_remove(sa_page_store *store, uint64_t page) {
    sa_packed *entry = (sa_packed *)sa_page_store_find(store, page);
    if (entry == NULL) return;
    release(store, entry->place, sectors_of(entry->length));
    delete_entry(store, entry);
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

int sa_page_store_open(sa_page_store *store, const char *directory, uint32_t item_bytes, uint64_t warm_bytes,
                       uint64_t limit_bytes, sa_page_scratch *scratch) {
    memset(store, 0, sizeof *store);
    for (int i = 0; i < SA_STORE_SEGMENTS_MAX; i++) store->segments[i].fd = -1;
    snprintf(store->directory, sizeof store->directory, "%s", directory);
    store->item_bytes = item_bytes;
    store->warm_sectors = warm_bytes / SA_SECTOR_BYTES;
    store->limit_sectors = limit_bytes / SA_SECTOR_BYTES;
    store->scratch = scratch;
    store->bits = TABLE_BITS_MIN;
    store->table = mapped(sizeof(sa_packed) << TABLE_BITS_MIN);
    store->warm = mapped(store->warm_sectors * SA_SECTOR_BYTES + SA_SECTOR_BYTES);
    if (store->table != NULL && store->warm != NULL) return 0;
    sa_page_store_close(store);
    return -1;
}

void sa_page_store_close(sa_page_store *store) {
    if (store->table != NULL) munmap(store->table, sizeof(sa_packed) << store->bits);
    if (store->warm != NULL) munmap(store->warm, store->warm_sectors * SA_SECTOR_BYTES + SA_SECTOR_BYTES);
    for (int i = 0; i < SA_STORE_SIZES; i++) {
        for (int j = 0; j < 2; j++) {
            sa_spares *spares = &store->spares[j][i];
            if (spares->capacity) munmap(spares->sectors, spares->capacity * sizeof(uint64_t));
        }
    }
    for (int i = 1; i < SA_STORE_SEGMENTS_MAX; i++) {
        if (store->segments[i].fd >= 0) close_segment(&store->segments[i]);
    }
    memset(store, 0, sizeof *store);
}

/* Move what is left in sealed files to the active one, as far as the disk lets it, so that they can be closed. */
static void merge_slow(sa_page_store *store) {
    static uint8_t packed[SA_PAGE_BYTES]; /* as above */
    for (uint64_t i = 0; i >> store->bits == 0; i++) {
        sa_packed *entry = &store->table[i];
        uint64_t old = entry->place, place;
        if (entry->mark == 0 || old >> SECTOR_BITS == 0 || old >> SECTOR_BITS == store->active) continue;
        if (read_at(store, old, packed, entry->length) != 0 || put_packed(store, packed, entry->length, &place) != 0) return;
        entry->place = place;
        release(store, old, sectors_of(entry->length));
    }
}

void sa_page_store_seal(sa_page_store *store) {
    int used = 0;
    if (store->active == 0) return;
    for (int i = 1; i < SA_STORE_SEGMENTS_MAX; i++) used += store->segments[i].fd >= 0;
    if (used >= SA_STORE_MERGE_FROM) merge_slow(store);
    sa_segment *segment = &store->segments[store->active];
    for (int i = 0; i < SA_STORE_SIZES; i++) store->spares[1][i].count = 0;
    store->active = 0;
    if (segment->live_sectors == 0) close_segment(segment);
}

uint64_t sa_page_store_memory_bytes(const sa_page_store *store) {
    uint64_t bytes = sizeof(sa_packed) << store->bits;
    for (int i = 0; i < SA_STORE_SIZES; i++) {
        bytes += (store->spares[0][i].capacity + store->spares[1][i].capacity) * sizeof(uint64_t);
    }
    return bytes;
}

int sa_page_store_check(const sa_page_store *store) {
    uint64_t live[SA_STORE_SEGMENTS_MAX] = {0}, count = 0;
    for (uint64_t i = 0; i >> store->bits == 0; i++) {
        const sa_packed *entry = &store->table[i];
        if (entry->mark == 0) continue;
        uint64_t number = entry->place >> SECTOR_BITS, end = (entry->place & SECTOR_MASK) + sectors_of(entry->length);
        if (entry_of(store, entry->mark - 1) != entry) return 1;
        if (entry->length == 0 || entry->length > SA_PAGE_BYTES || number >= SA_STORE_SEGMENTS_MAX) return 2;
        if (end > store->segments[number].end_sectors) return 2;
        live[number] += sectors_of(entry->length);
        count++;
    }
    if (count != store->count || count * 8 > ((uint64_t)5 << store->bits)) return 1;
    for (uint32_t i = 0; i < SA_STORE_SEGMENTS_MAX; i++) {
        if (live[i] != store->segments[i].live_sectors) return 2;
        if (i != 0 && i != store->active && (store->segments[i].fd >= 0) != (live[i] != 0)) return 3;
    }
    return 0;
}
