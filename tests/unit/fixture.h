/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/unit/fixture.h - for the suites of dict/ and the dict part of api/:
 * an anonymous segment with one dict, reached both through shdict.h and from
 * inside. Every test runs in a process of its own, so nothing is torn down.
 */
#ifndef TESTS_UNIT_FIXTURE_H
#define TESTS_UNIT_FIXTURE_H

#include "tests/unit/expect.h"

#include "shm/api/handle.h"
#include "shm/base/clock.h"
#include "shm/dict/forest.h"
#include "shm/dict/room.h"
#include "shm/dict/read.h"
#include "shm/dict/store.h"
#include "shm/dict/walk.h"

#define VALUE_MAX (2u << 20)

static shd_segment *segment __attribute__((unused));
static shd_dict *dict __attribute__((unused));
static struct dict *inner __attribute__((unused)); /* what is behind dict */
static unsigned char bytes_in[VALUE_MAX] __attribute__((unused));
static unsigned char bytes_out[VALUE_MAX + 8] __attribute__((unused));

static inline struct shd_segment_options segment_options(void)
{
    struct shd_segment_options o;

    memset(&o, 0, sizeof(o));
    o.struct_size = sizeof(o);
    o.size_bytes = 64u << 20;
    o.workers_max = 8;
    o.objects_max = 8;
    o.locks_max = 300;
    return o;
}

static inline struct shd_dict_options dict_options(uint64_t capacity,
                                                   uint32_t shards,
                                                   uint64_t entries)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .shards = shards,
                                 .capacity_bytes = capacity,
                                 .entries_hint = entries};

    return o;
}

static inline void start_named(const char *name, uint64_t capacity,
                               uint32_t shards, uint64_t entries)
{
    struct shd_segment_options so = segment_options();
    struct shd_dict_options o = dict_options(capacity, shards, entries);

    expect(shd_segment_create(name, &so, &segment), SHD_OK);
    expect(shd_dict_open(segment, "d", &o, &dict), SHD_OK);
    inner = &dict->dict;
}

static inline void start(uint64_t capacity)
{
    start_named(NULL, capacity, 1, 0);
}

/* All invariants of everything in the segment. */
static inline void sound(void)
{
    char report[256] = "";
    int rc = shd_segment_check(segment, report, sizeof(report));

    ck_assert_msg(rc == SHD_OK, "%s: %s", shd_strerror_name(rc), report);
}

#define expect_check_names(text)                                              \
    expect_named(shd_segment_check(segment, report, sizeof(report)), text)

static inline struct shd_dict_info info(void)
{
    struct shd_dict_info i = {.struct_size = sizeof(i)};

    expect(shd_dict_info(dict, &i), SHD_OK);
    return i;
}

/* Has the entry been read, or among several shards written to where it is,
 * since it was stored, or made room for? */
static inline bool is_marked(const char *key)
{
    struct place at = dict_place(inner, key, strlen(key));
    uint32_t ref = 0;

    expect(forest_find(inner, &at, key, strlen(key), &ref), 1);
    return dict_is_marked(inner, ref);
}

/* The array of roots that is in use, and how many there are. */
static inline uint32_t grain_now(void)
{
    return index_grain(atomic_load64(&inner->pages.bounds->state));
}

static inline uint32_t *roots_now(void)
{
    return inner->roots[grain_now()];
}

static inline uint32_t roots_count(void)
{
    return (uint32_t)index_roots(inner, grain_now());
}

/* The number of a key's root. */
static inline uint32_t root_number(const char *key)
{
    struct place at = dict_place(inner, key, strlen(key));

    return (uint32_t)(at.order >> grain_now());
}

/* A string of the pattern of `seed`, with everything that can be given. */
static inline int store(uint32_t op, const char *key, size_t len,
                        unsigned seed, int64_t ttl_ms, int32_t flags,
                        uint32_t *forcible)
{
    ck_assert_uint_le(len, VALUE_MAX);
    return shd_store(dict, op, key, strlen(key), SHD_STRING,
                     pattern(bytes_in, len, seed), len, 0, ttl_ms, flags,
                     forcible);
}

static inline int set(const char *key, size_t len, unsigned seed)
{
    return store(SHD_SET, key, len, seed, 0, 0, NULL);
}

static inline int set_ttl(const char *key, int64_t ttl_ms)
{
    return store(SHD_SET, key, strlen(key), 1, ttl_ms, 0, NULL);
}

static inline int set_number(const char *key, double number)
{
    return shd_store(dict, SHD_SET, key, strlen(key), SHD_NUMBER, NULL, 0,
                     number, 0, 0, NULL);
}

static inline int get(const char *key, struct shd_value *v)
{
    return shd_get(dict, key, strlen(key), bytes_out, VALUE_MAX, v);
}

static inline int get_stale(const char *key, struct shd_value *v)
{
    return shd_get_stale(dict, key, strlen(key), bytes_out, VALUE_MAX, v);
}

static inline int del(const char *key)
{
    return shd_delete(dict, key, strlen(key));
}

/* The key holds a string of the pattern of `seed`. */
static inline void holds_bytes(const void *key, size_t key_len, size_t len,
                               unsigned seed)
{
    struct shd_value v;

    memset(bytes_out, 0x5a, len + 8);
    expect(shd_get(dict, key, key_len, bytes_out, len, &v), SHD_OK);
    ck_assert_uint_eq(v.type, SHD_STRING);
    ck_assert_uint_eq(v.len, len);
    pattern(bytes_in, len, seed);
    ck_assert_int_eq(memcmp(bytes_out, bytes_in, len), 0);
    /* Not a byte too many: the buffer was that large. */
    for (int i = 0; i < 8; i++)
        ck_assert_uint_eq(bytes_out[len + (size_t)i], 0x5a);
}

static inline void holds(const char *key, size_t len, unsigned seed)
{
    holds_bytes(key, strlen(key), len, seed);
}

static inline void holds_number(const char *key, double number)
{
    struct shd_value v;

    expect(get(key, &v), SHD_OK);
    ck_assert_uint_eq(v.type, SHD_NUMBER);
    ck_assert_double_eq(v.number, number);
}

/* Is it stored and live? Does not count as use. */
static inline bool is_there(const char *key)
{
    int64_t ttl;
    int rc = shd_ttl(dict, key, strlen(key), &ttl);

    if (rc != SHD_NOTFOUND)
        expect(rc, SHD_OK);
    return rc == SHD_OK && ttl >= 0;
}

static inline int push(int left, const char *key, size_t len, unsigned seed)
{
    return shd_push(dict, left, key, strlen(key), SHD_STRING,
                    pattern(bytes_in, len, seed), len, 0, NULL);
}

static inline void pops_bytes(int left, const void *key, size_t key_len,
                              size_t len, unsigned seed)
{
    struct shd_value v;

    expect(shd_pop(dict, left, key, key_len, bytes_out, VALUE_MAX, &v),
           SHD_OK);
    ck_assert_uint_eq(v.type, SHD_STRING);
    ck_assert_uint_eq(v.len, len);
    pattern(bytes_in, len, seed);
    ck_assert_int_eq(memcmp(bytes_out, bytes_in, len), 0);
}

static inline void pops(int left, const char *key, size_t len, unsigned seed)
{
    pops_bytes(left, key, strlen(key), len, seed);
}

static inline uint64_t llen(const char *key)
{
    uint64_t n = 77;

    expect(shd_llen(dict, key, strlen(key), &n), SHD_OK);
    return n;
}

/* Nothing is stored, nothing has leaked. */
static inline void all_is_free(void)
{
    struct shd_dict_info i = info();

    ck_assert_uint_eq(i.entries, 0);
    ck_assert_uint_eq(i.cells_bytes, 0);
    ck_assert_uint_eq(i.pages_free, i.pages);
    ck_assert_uint_eq(i.free_bytes, i.pages * 4096);
    for (uint32_t s = 0; s < inner->shards; s++)
        ck_assert_uint_eq(inner->shard[s].garbage, 0);
    sound();
}

/* The entry of a key, from inside. */
static inline uint32_t ref_of_bytes(const void *key, size_t len)
{
    struct place at = dict_place(inner, key, len);
    uint32_t ref;

    expect(forest_find(inner, &at, key, len, &ref), 1);
    return ref;
}

static inline uint32_t ref_of(const char *key)
{
    return ref_of_bytes(key, strlen(key));
}

static inline struct entry *entry_of(const char *key)
{
    return entry_at(&inner->pages, ref_of(key));
}

static inline struct cell *cell_of(uint32_t ref)
{
    struct cell *c = cell_at(&inner->pages, ref, SLAB_CELL_MIN);

    ck_assert_ptr_nonnull(c);
    return c;
}

/* A worker of this dict that is killed at the end of the braces. */
#define dying_worker(body)                                                    \
    do {                                                                      \
        pid_t pid_ = fork();                                                  \
        ck_assert_int_ge(pid_, 0);                                            \
        if (pid_ == 0) {                                                      \
            body;                                                             \
            kill(getpid(), SIGKILL);                                          \
        }                                                                     \
        wait_killed(pid_);                                                    \
    } while (0)

#endif
