/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/unit/arena.h - the memory floor's suites on a segment of their own:
 * a memfd with one guard, the pages of one dict, and room for the heads of
 * what is tested. No catalogue, no dict.
 */
#ifndef TESTS_UNIT_ARENA_H
#define TESTS_UNIT_ARENA_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/memory/list.h"

#define ARENA_HEADS_AT 4096u
#define ARENA_GUARD_AT 8192u
#define ARENA_MAP_AT 16384u
#define ARENA_TABLE_AT 20480u
#define ARENA_PAGES_MAX 1024u
#define ARENA_PAGES_AT (ARENA_TABLE_AT + ARENA_PAGES_MAX * 64u)
#define ARENA_BYTES (ARENA_PAGES_AT + ARENA_PAGES_MAX * PAGE_BYTES)
#define ARENA_OWNER 7u
static_assert(ARENA_PAGES_AT % PAGE_BYTES == 0, "pages are aligned");

/* What a shard's head would hold. */
struct arena_heads {
    struct slab slab;
    struct list list;
    uint32_t pending;
    uint32_t pad;
    struct pages_bounds bounds;
    uint64_t soonest;
    struct slab other; /* of another shard */
    uint64_t chains;
};

static struct segment arena_segment;
static struct guard *arena_guard;
static struct pages arena_pages;
static struct arena_heads *arena;
static unsigned char *arena_image;
static uint64_t arena_random_state;

static inline uint32_t arena_random(uint32_t below)
{
    arena_random_state ^= arena_random_state << 13;
    arena_random_state ^= arena_random_state >> 7;
    arena_random_state ^= arena_random_state << 17;
    return (uint32_t)((arena_random_state >> 16) % below);
}

/* `count` pages, none of them committed yet. */
static inline void arena_start(uint32_t count)
{
    struct segment *s = &arena_segment;
    int fd = memfd_create("arena", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, ARENA_BYTES), 0);
    ck_assert_uint_le(count, ARENA_PAGES_MAX);
    memset(s, 0, sizeof(*s));
    s->base = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                   0);
    ck_assert_ptr_ne(s->base, MAP_FAILED);
    s->size = ARENA_BYTES;
    s->fd = fd;
    s->writable = true;
    s->locks_max = 1;
    s->guards_at = ARENA_GUARD_AT;
    arena_guard = guard_at(s, 0);
    arena = segment_at(s, ARENA_HEADS_AT, sizeof(*arena));
    arena_pages = (struct pages){
        .segment = s,
        .table = segment_at(s, ARENA_TABLE_AT, count * sizeof(struct page)),
        .map = segment_at(s, ARENA_MAP_AT, (count + 63) / 64 * 8),
        .bounds = &arena->bounds,
        .soonest = &arena->soonest,
        .at = ARENA_PAGES_AT,
        .max = count,
    };
    arena->bounds.limit = arena->bounds.described = count;
    pages_offer(&arena_pages, 0, count, 0);
    arena_image = malloc(ARENA_BYTES);
    ck_assert_ptr_nonnull(arena_image);
    arena_random_state = 0x9e3779b97f4a7c15ull;
}

static inline void arena_stop(void)
{
    free(arena_image);
    ck_assert_int_eq(munmap(arena_segment.base, ARENA_BYTES), 0);
    ck_assert_int_eq(close(arena_segment.fd), 0);
}

static inline void arena_begin(struct txn *t, uint32_t words)
{
    txn_begin(t, &arena_segment, arena_guard, words);
}

/* Remembers every byte but the guard's. */
static inline void arena_remember(void)
{
    memcpy(arena_image, arena_segment.base, ARENA_BYTES);
}

/* A free page's descriptor and contents mean nothing, all else counts. */
static inline void arena_expect_remembered(void)
{
    const unsigned char *now = arena_segment.base, *was = arena_image;

    ck_assert_mem_eq(was, now, ARENA_GUARD_AT);
    ck_assert_mem_eq(was + ARENA_MAP_AT, now + ARENA_MAP_AT,
                     ARENA_TABLE_AT - ARENA_MAP_AT);
    for (uint32_t n = 0; n < arena_pages.max; n++) {
        size_t entry = ARENA_TABLE_AT + n * sizeof(struct page);
        size_t page = ARENA_PAGES_AT + n * (size_t)PAGE_BYTES;
        uint32_t owner;

        memcpy(&owner, was + entry + offsetof(struct page, owner), 4);
        if (owner == 0 && arena_pages.table[n].owner == 0)
            continue;
        if (memcmp(was + entry, now + entry, sizeof(struct page)) != 0 ||
            memcmp(was + page, now + page, PAGE_BYTES) != 0)
            ck_abort_msg("page %u is not what it was", n);
    }
}

/* Puts everything back, so that a test can damage it again. */
static inline void arena_restore(void)
{
    memcpy(arena_segment.base, arena_image, ARENA_GUARD_AT);
    memcpy(arena_segment.base + ARENA_MAP_AT, arena_image + ARENA_MAP_AT,
           ARENA_BYTES - ARENA_MAP_AT);
}

static inline struct cell *arena_cell(uint32_t ref)
{
    struct cell *c = cell_at(&arena_pages, ref, sizeof(*c));

    if (c == NULL)
        ck_abort_msg("the test's own reference %u is no cell", ref);
    return c;
}

static inline int arena_run(Suite *suite)
{
    SRunner *r = srunner_create(suite);
    int bad;

    srunner_run_all(r, CK_ENV);
    bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* The check says corrupt, and names what was damaged. */
#define arena_expect_named(expression, text)                                  \
    do {                                                                      \
        char report[256] = "";                                                \
        int got_ = (expression);                                              \
        ck_assert_msg(got_ == SHD_CORRUPT, "%s: %d", text, got_);             \
        ck_assert_msg(strstr(report, text) != NULL, "'%s' does not name '%s'", \
                      report, text);                                          \
    } while (0)

#define arena_expect_sound(expression)                                        \
    do {                                                                      \
        char report[256] = "";                                                \
        int got_ = (expression);                                              \
        ck_assert_msg(got_ == SHD_OK, "%s", report);                          \
    } while (0)

#endif
