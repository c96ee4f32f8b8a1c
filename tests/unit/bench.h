/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/unit/bench.h - for the suites of memory/: pages, two shards' slabs, a
 * list and two guards in a memory file of their own, without a dict.
 *
 *   0        guards   | 2 * 8192
 *   16384    heads    | 4096: struct heads
 *   20480    table    | 64 a page
 *   then     pages    | 4096 each, committed as the code under test does
 */
#ifndef TESTS_UNIT_BENCH_H
#define TESTS_UNIT_BENCH_H

#include "tests/unit/expect.h"

#include <fcntl.h>

#include "shm/memory/chain.h"
#include "shm/memory/list.h"

#define BENCH_HEADS_AT 16384u
#define BENCH_TABLE_AT 20480u
#define BENCH_PAGES_MAX 1024u

struct heads {
    struct slab slab[2];
    struct list list;
    uint32_t pending[2];
    struct pages_bounds bounds;
    uint64_t soonest;
    uint64_t map[BENCH_PAGES_MAX / 64];
};

static struct segment bench __attribute__((unused));
static struct heads *heads __attribute__((unused));
static struct guard *guards[2] __attribute__((unused));
static struct pages pages __attribute__((unused));

static inline void bench_start_on(int fd, uint32_t count)
{
    uint64_t at = BENCH_TABLE_AT + count * sizeof(struct page);

    ck_assert_uint_le(count, BENCH_PAGES_MAX);
    at = (at + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    memset(&bench, 0, sizeof(bench));
    bench.size = at + (uint64_t)count * PAGE_BYTES;
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)bench.size), 0);
    ck_assert_int_eq(posix_fallocate(fd, 0, (off_t)at), 0);
    bench.base = mmap(NULL, bench.size, PROT_READ | PROT_WRITE, MAP_SHARED,
                      fd, 0);
    ck_assert_ptr_ne(bench.base, MAP_FAILED);
    bench.fd = fd;
    bench.writable = true;
    bench.locks_max = 2;
    for (uint32_t i = 0; i < 2; i++)
        guards[i] = guard_at(&bench, i);
    heads = segment_at(&bench, BENCH_HEADS_AT, sizeof(*heads));
    memset(&pages, 0, sizeof(pages));
    pages.segment = &bench;
    pages.table = segment_at(&bench, BENCH_TABLE_AT,
                             count * sizeof(struct page));
    pages.map = heads->map;
    pages.bounds = &heads->bounds;
    pages.soonest = &heads->soonest;
    pages.at = at;
    pages.max = count;
    heads->bounds.limit = heads->bounds.described = count;
    pages_offer(&pages, 0, count, 0);
}

static inline void bench_start(uint32_t count)
{
    bench_start_on(memfd_create("bench", MFD_CLOEXEC), count);
}

static inline void begin_on(struct txn *t, uint32_t shard)
{
    txn_begin(t, &bench, guards[shard], GUARD_UNDO_MAX);
}

static inline void begin(struct txn *t)
{
    begin_on(t, 0);
}

/* One cell in a transaction of its own; owner 1. */
static inline uint32_t take_cell(uint32_t class)
{
    struct txn t;
    uint32_t ref = 0;

    expect(slab_prepare(&pages, &heads->slab[0], class), SHD_OK);
    begin(&t);
    expect(slab_alloc(&pages, &heads->slab[0], &t, 1, class, PAGE_NONE, &ref),
           SHD_OK);
    ck_assert_uint_le(txn_words(&t), SLAB_ALLOC_WORDS);
    txn_commit(&t);
    return ref;
}

static inline void give_cell(uint32_t ref)
{
    struct txn t;

    begin(&t);
    expect(slab_free(&pages, &heads->slab[0], &t, 1, ref), SHD_OK);
    ck_assert_uint_le(txn_words(&t), SLAB_FREE_WORDS);
    txn_commit(&t);
}

/* Heads and table: what an aborted transaction must leave as it was. */
struct snapshot {
    size_t len;
    unsigned char bytes[];
};

static inline struct snapshot *snapshot_take(void)
{
    size_t len = BENCH_TABLE_AT - BENCH_HEADS_AT +
                 pages.max * sizeof(struct page);
    struct snapshot *s = malloc(sizeof(*s) + len);

    ck_assert_ptr_nonnull(s);
    s->len = len;
    memcpy(s->bytes, bench.base + BENCH_HEADS_AT, len);
    return s;
}

static inline void snapshot_unchanged(struct snapshot *s)
{
    ck_assert_int_eq(
        memcmp(s->bytes, bench.base + BENCH_HEADS_AT, s->len), 0);
    free(s);
}

#endif
