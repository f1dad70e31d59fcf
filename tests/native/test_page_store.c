/* test_page_store.c - core/page_pack and core/page_store without Python: round trips, damage, full disks, forks' seals.
 *
 *   test_page_store NAME DIRECTORY    runs one test; --list names them
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "page_store.h"

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);     \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

enum { PAGES = 600 };

static const char *directory;
static sa_page_scratch scratch;
static uint64_t state = 88172645463325252u;

static uint64_t draw(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* Pages from random noise to all equal, as `kind` says. */
static void make_page(uint8_t *page, uint64_t kind) {
    uint64_t period = 1 + draw() % 300, low = draw();
    for (size_t i = 0; i < SA_PAGE_BYTES; i++) {
        switch (kind % 6) {
        case 0: page[i] = (uint8_t)draw(); break;
        case 1: page[i] = (uint8_t)kind; break;
        case 2: page[i] = i < period ? (uint8_t)draw() : page[i - period]; break;
        case 3: page[i] = (uint8_t)((low + i / 8 * 3) >> i % 8 * 8); break;
        case 4: page[i] = draw() % 10 == 0 ? (uint8_t)draw() : 7; break;
        default: page[i] = i < 2048 ? (uint8_t)draw() : 0; break;
        }
    }
}

static void packing(void) {
    static const size_t items[] = {1, 2, 4, 8, 16};
    uint8_t page[SA_PAGE_BYTES], back[SA_PAGE_BYTES];
    uint8_t *packed = malloc(SA_PAGE_BYTES);
    for (uint64_t kind = 0; kind < 3000; kind++) {
        size_t item = items[kind % 5];
        make_page(page, kind / 5);
        size_t length = sa_page_pack(page, item, packed, &scratch);
        CHECK(length >= 1 && length <= SA_PAGE_BYTES);
        CHECK(kind / 5 % 6 != 1 || length < 64);
        CHECK(sa_page_unpack(packed, length, item, back, &scratch) == 0);
        CHECK(memcmp(page, back, SA_PAGE_BYTES) == 0);
    }
    free(packed);
}

/* Whatever bytes there are, unpacking ends inside its buffers, which the sanitizer watches. */
static void hostile_bytes(void) {
    uint8_t page[SA_PAGE_BYTES], back[SA_PAGE_BYTES], packed[SA_PAGE_BYTES];
    for (uint64_t round = 0; round < 40000; round++) {
        size_t length = draw() % 600;
        make_page(page, 2);
        size_t whole = sa_page_pack(page, 1, packed, &scratch);
        uint8_t *exact = malloc(length ? length : 1);
        for (size_t i = 0; i < length; i++) exact[i] = (uint8_t)draw();
        if (round % 2 && whole < SA_PAGE_BYTES) {
            length = length < whole ? length : whole;
            memcpy(exact, packed, length);
            if (length) exact[draw() % length] ^= (uint8_t)(1 + draw() % 255);
        }
        sa_page_unpack(exact, length, 1, back, &scratch);
        free(exact);
    }
}

static uint8_t model[PAGES][SA_PAGE_BYTES];
static int is_kept[PAGES];

static void compare(sa_page_store *store) {
    uint8_t back[SA_PAGE_BYTES];
    uint64_t count = 0;
    for (uint64_t page = 0; page < PAGES; page++) {
        const sa_packed *packed = sa_page_store_find(store, page * 977);
        CHECK((packed != NULL) == is_kept[page]);
        if (packed == NULL) continue;
        count++;
        CHECK(sa_page_store_get(store, packed, back) == 0);
        CHECK(memcmp(back, model[page], SA_PAGE_BYTES) == 0);
    }
    CHECK(store->count == count);
    CHECK(sa_page_store_check(store) == 0);
}

static void any_order(uint64_t warm_bytes, uint64_t limit_bytes, int seals) {
    sa_page_store store;
    memset(is_kept, 0, sizeof is_kept);
    CHECK(sa_page_store_open(&store, directory, 8, warm_bytes, limit_bytes, &scratch) == 0);
    for (int step = 0; step < 12000; step++) {
        uint64_t page = draw() % PAGES;
        if (draw() % 4 == 0) {
            sa_page_store_remove(&store, page * 977);
            is_kept[page] = 0;
        } else {
            uint8_t bytes[SA_PAGE_BYTES];
            make_page(bytes, draw());
            if (sa_page_store_put(&store, page * 977, bytes) == 0) {
                memcpy(model[page], bytes, SA_PAGE_BYTES);
                is_kept[page] = 1;
            } else {
                CHECK(limit_bytes != UINT64_MAX);
            }
        }
        if (seals && step % 150 == 0) sa_page_store_seal(&store);
        if (step % 500 == 0) compare(&store);
    }
    CHECK(sa_page_store_disk_bytes(&store) <= limit_bytes);
    compare(&store);
    for (uint64_t page = 0; page < PAGES; page++) sa_page_store_remove(&store, page * 977);
    CHECK(store.count == 0 && sa_page_store_disk_bytes(&store) == 0);
    CHECK(sa_page_store_check(&store) == 0);
    sa_page_store_close(&store);
}

static void in_memory(void) { any_order(64 << 20, 0, 0); }
static void on_disk(void) { any_order(0, UINT64_MAX, 0); }
static void on_both(void) { any_order(300 << 10, UINT64_MAX, 0); }
static void with_seals(void) { any_order(100 << 10, UINT64_MAX, 1); }
static void on_a_full_disk(void) { any_order(50 << 10, 200 << 10, 0); }

static void without_a_directory(void) {
    sa_page_store store;
    uint8_t page[SA_PAGE_BYTES] = {1};
    CHECK(sa_page_store_open(&store, "/nowhere/at/all", 1, 0, UINT64_MAX, &scratch) == 0);
    CHECK(sa_page_store_put(&store, 5, page) == -1 && store.error != 0 && store.failures == 1);
    CHECK(sa_page_store_find(&store, 5) == NULL && sa_page_store_check(&store) == 0);
    sa_page_store_close(&store);
}

/* Packed pages, each as a length of two bytes and its bytes, to be read by another implementation of the format. */
static void blocks(void) {
    uint8_t page[SA_PAGE_BYTES], packed[SA_PAGE_BYTES];
    for (uint64_t kind = 0; kind < 600; kind++) {
        make_page(page, kind);
        size_t length = sa_page_pack(page, 1, packed, &scratch);
        putchar((int)(length & 255));
        putchar((int)(length >> 8));
        fwrite(packed, 1, length, stdout);
        fwrite(page, 1, SA_PAGE_BYTES, stdout);
    }
}

typedef struct named_test {
    const char *name;
    void (*run)(void);
} named_test;

#define TEST(name) {#name, name}

static const named_test TESTS[] = {
    TEST(packing),
    TEST(hostile_bytes),
    TEST(in_memory),
    TEST(on_disk),
    TEST(on_both),
    TEST(with_seals),
    TEST(on_a_full_disk),
    TEST(without_a_directory),
    TEST(blocks),
};

int main(int count, char **arguments) {
    if (count != 3) return 2;
    directory = arguments[2];
    for (size_t i = 0; i < sizeof TESTS / sizeof *TESTS; i++) {
        if (strcmp(arguments[1], TESTS[i].name) == 0) {
            TESTS[i].run();
            return 0;
        }
    }
    return 2;
}
