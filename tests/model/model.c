/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random operations on a dict and on a naive map beside it; every result must
 * be the same.
 *
 * Time stands still between operations (the linker puts the frozen clock of
 * this file under base/clock.c) and moves by clock_test_advance(), and the
 * seed decides everything else too, the segment's hash seed included: so a
 * failure comes again with the command that is printed with it, and an expiry
 * is never "about" now.
 *
 * A dict that has room for everything must agree with the map exactly. Where
 * the dict is too small for its keys, the map cannot know who had to go; it
 * learns (shd_ttl marks nothing as used), and holds the dict to this:
 *   - an entry may be gone only if a counter of removals has moved since it
 *     was last seen, and no more may be gone than were removed;
 *   - what is there is what was stored last;
 *   - an operation with SHD_SAFE, and a push, removes nothing that lives;
 *   - a failed operation leaves the old value;
 *   - what fits value_max_bytes never fails a plain store;
 *   - forcible is 1 when, and only when, something live was removed.
 * At the end everything is deleted, and every byte must be free again.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/api/handle.h"
#include "shm/base/clock.h"
#include "shm/shdict.h"
#include "tests/model/naive.h"

#define POOL_BYTES (1u << 20)
#define KEY_MAX 65535u
#define OPS_DEFAULT 10200000ull
#define SEED_DEFAULT 20240607ull

/* ---- configurations: data --------------------------------------------- */

/* Of 100 values, how many are of which kind. */
struct mix {
    const char *name;
    unsigned number, boolean, small, medium, large, largest;
};
static const struct mix MIX_NUMBERS = {"numbers", 100, 0, 0, 0, 0, 0};
static const struct mix MIX_SMALL = {"small", 30, 10, 60, 0, 0, 0};
static const struct mix MIX_MEDIUM = {"0..2000", 10, 5, 25, 60, 0, 0};
static const struct mix MIX_LARGE = {"..64K", 5, 5, 20, 30, 40, 0};
static const struct mix MIX_LARGEST = {"..value_max", 5, 5, 30, 30, 20, 10};

enum key_form { KEY_BYTE, KEY_PLAIN, KEY_MIXED, KEY_LONG };

struct config {
    const char *name;
    uint64_t capacity;
    uint32_t shards; /* 0: by capacity */
    uint64_t hint;   /* entries_hint */
    uint32_t keys;
    enum key_form form;
    const struct mix *mix;
    unsigned lists;    /* of 100 operations, on lists */
    uint32_t list_max; /* elements */
    unsigned share;    /* of all operations, in thousandths */
    bool evicts;       /* too small for its keys */
};

#define KIB 1024ull
#define MIB (1024 * KIB)

static const struct config CONFIGS[] = {
    {"8K-numbers", 8 * KIB, 0, 0, 12, KEY_PLAIN, &MIX_NUMBERS, 0, 0, 60,
     true},
    {"8K-full", 8 * KIB, 0, 0, 120, KEY_MIXED, &MIX_SMALL, 15, 6, 90, true},
    {"8K-largest", 8 * KIB, 0, 0, 40, KEY_BYTE, &MIX_LARGEST, 5, 6, 60, true},
    {"64K-roomy", 64 * KIB, 0, 0, 60, KEY_PLAIN, &MIX_SMALL, 20, 12, 120,
     false},
    {"64K-full", 64 * KIB, 0, 0, 1500, KEY_MIXED, &MIX_SMALL, 20, 20, 120,
     true},
    {"64K-medium", 64 * KIB, 0, 0, 200, KEY_PLAIN, &MIX_MEDIUM, 20, 20, 80,
     true},
    {"64K-largest", 64 * KIB, 0, 0, 60, KEY_BYTE, &MIX_LARGEST, 5, 20, 30,
     true},
    {"1M-roomy", 1 * MIB, 0, 0, 600, KEY_MIXED, &MIX_SMALL, 20, 15, 100,
     false},
    {"1M-tall-trees", 1 * MIB, 0, 1, 600, KEY_MIXED, &MIX_SMALL, 10, 15, 60,
     false},
    {"1M-full", 1 * MIB, 0, 0, 4000, KEY_MIXED, &MIX_MEDIUM, 20, 60, 60,
     true},
    {"1M-large", 1 * MIB, 0, 0, 120, KEY_LONG, &MIX_LARGE, 10, 30, 25, true},
    {"1M-largest", 1 * MIB, 0, 0, 100, KEY_BYTE, &MIX_LARGEST, 5, 30, 10,
     true},
    {"8M-roomy", 8 * MIB, 0, 0, 4000, KEY_MIXED, &MIX_SMALL, 20, 20, 60,
     false},
    {"8M-full", 8 * MIB, 0, 0, 40000, KEY_MIXED, &MIX_MEDIUM, 10, 40, 40,
     true},
    {"2M-16-shards", 2 * MIB, 16, 0, 60000, KEY_PLAIN, &MIX_SMALL, 20, 40,
     40, true},
    {"512K-4-shards", 512 * KIB, 4, 0, 1500, KEY_MIXED, &MIX_MEDIUM, 15, 40,
     40, true},
    {"64M-roomy", 64 * MIB, 0, 0, 50000, KEY_MIXED, &MIX_SMALL, 10, 30, 40,
     false},
    {"64M-full", 64 * MIB, 0, 0, 12000, KEY_MIXED, &MIX_LARGE, 5, 40, 15,
     true},
};
#define CONFIG_COUNT (sizeof(CONFIGS) / sizeof(CONFIGS[0]))

/* ---- the world of one configuration ------------------------------------ */

struct key {
    unsigned char *bytes;
    size_t len;
    bool seen;      /* in the walk that is going on */
    bool disturbed; /* changed during it */
};

struct world {
    const struct config *config;
    uint64_t seed, ops_asked, random, op, stores;
    shd_segment *segment;
    shd_dict *dict;
    struct shd_dict_info info; /* as of refresh() */
    uint64_t value_max, fresh_free;
    struct key *keys;
    struct naive_entry *entries;
    unsigned char *pool, *buffer, *key_buffer;
    size_t buffer_size;
    const char *doing; /* the operation, for failures */
    uint32_t key;      /* of it */
    bool walking;      /* a walk is going on: no steps that touch all keys */
    /* Live and expired entries found gone, and stores that may have removed
     * the very entry they replaced. */
    uint64_t gone_live, gone_expired, may_replace_own;
    uint64_t checks, walks, nomem, toobig, no_space;
};

static struct timespec frozen = {.tv_sec = 1000000, .tv_nsec = 500000};

int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __real_clock_gettime(clockid_t id, struct timespec *t);

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    (void)id;
    *t = frozen;
    return 0;
}

static double seconds(void)
{
    struct timespec t;

    if (__real_clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        return 0;
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* SplitMix64. */
static uint64_t next(struct world *w)
{
    uint64_t z = w->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static uint64_t below(struct world *w, uint64_t n)
{
    return next(w) % n;
}

static bool one_in(struct world *w, uint64_t n)
{
    return below(w, n) == 0;
}

static _Noreturn void fail(const struct world *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static _Noreturn void fail(const struct world *w, const char *format, ...)
{
    va_list args;

    printf("    %s, operation %" PRIu64 ", key %" PRIu32 ": ", w->doing,
           w->op, w->key);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n    again: tests/model/run --only %s --seed %" PRIu64
           " --ops %" PRIu64 "\n",
           w->config->name, w->seed, w->ops_asked);
    fflush(stdout);
    _exit(1);
}

static const char *name_of(int code)
{
    return shd_strerror_name(code);
}

static void expect(const struct world *w, int got, int wanted)
{
    if (got != wanted)
        fail(w, "gave %s, should be %s (%s)", name_of(got), name_of(wanted),
             got < 0 ? shd_last_error() : "");
}

static uint64_t now(void)
{
    return clock_now_ms();
}

static void refresh(struct world *w)
{
    w->info.struct_size = sizeof(w->info);
    int rc = shd_dict_info(w->dict, &w->info);
    if (rc != SHD_OK)
        fail(w, "shd_dict_info: %s", name_of(rc));
}

static struct naive_entry *entry(struct world *w, uint32_t k)
{
    return &w->entries[k];
}

static void saw(struct world *w, struct naive_entry *e)
{
    e->evictions = w->info.evictions;
    e->expirations = w->info.expirations;
}

/* The dict has no such entry; the map has. */
static void accept_gone(struct world *w, uint32_t k)
{
    struct naive_entry *e = entry(w, k);
    bool live = naive_is_live(e, now());

    if (!w->config->evicts)
        fail(w, "key %" PRIu32 " (%s) is gone though there is room", k,
             live ? "live" : "expired");
    if (live && w->info.evictions == e->evictions)
        fail(w, "key %" PRIu32 " is gone, and nothing has been evicted", k);
    if (w->info.evictions == e->evictions &&
        w->info.expirations == e->expirations)
        fail(w, "key %" PRIu32 " is gone, and nothing has been removed", k);
    if (live)
        w->gone_live++;
    else
        w->gone_expired++;
    naive_clear(e);
}

static void check_ttl(const struct world *w, const struct naive_entry *e,
                      int64_t got)
{
    int64_t wanted = naive_ttl_ms(e, now());

    if (e->flushed ? got >= 0 : got != wanted)
        fail(w, "ttl %" PRId64 ", should be %" PRId64 "%s", got, wanted,
             e->flushed ? " or less" : "");
}

/* Brings the map up to what had to go, for one key. */
static void learn(struct world *w, uint32_t k)
{
    struct naive_entry *e = entry(w, k);
    int64_t ttl;
    int rc = shd_ttl(w->dict, w->keys[k].bytes, w->keys[k].len, &ttl);

    if (w->config->evicts)
        refresh(w);
    if (rc != SHD_OK && rc != SHD_NOTFOUND)
        fail(w, "shd_ttl: %s", name_of(rc));
    if (rc == SHD_OK && !e->stored)
        fail(w, "it is there, but was never stored, or was deleted");
    if (rc == SHD_NOTFOUND && e->stored)
        accept_gone(w, k);
    if (rc == SHD_OK) {
        check_ttl(w, e, ttl);
        saw(w, e);
    }
}

static void check_value(const struct world *w, const struct naive_value *n,
                        const struct shd_value *v, const void *bytes)
{
    if (v->type != n->type)
        fail(w, "type %" PRIu32 ", should be %" PRIu32, v->type, n->type);
    if (n->type == SHD_STRING) {
        if (v->len != n->len)
            fail(w, "%" PRIu64 " bytes, should be %zu", v->len, n->len);
        if (bytes != NULL && memcmp(bytes, n->bytes, n->len) != 0)
            fail(w, "another value than the last one stored");
    } else if (memcmp(&v->number, &n->number, sizeof(double)) != 0 &&
               !(isnan(v->number) && isnan(n->number))) {
        fail(w, "number %g, should be %g", v->number, n->number);
    }
}

/* Calls with a buffer of that size and looks that nothing was written past
 * it. */
#define CANARY 0xa5
static void canary_set(struct world *w, size_t size)
{
    w->buffer[size] = CANARY;
}

static void canary_check(const struct world *w, size_t size)
{
    if (w->buffer[size] != CANARY)
        fail(w, "a byte after the buffer of %zu was written", size);
}

static size_t some_buffer_size(struct world *w)
{
    return one_in(w, 10) ? below(w, 300) : w->buffer_size - 1;
}

static void get(struct world *w, uint32_t k, bool stale, size_t size)
{
    struct naive_entry *e = entry(w, k);
    struct shd_value v;
    bool live = naive_is_live(e, now());
    int wanted, rc;

    if (!e->stored || (!stale && !live))
        wanted = SHD_NOTFOUND;
    else if (e->type == SHD_LIST)
        wanted = SHD_ISLIST;
    else if (e->type == SHD_STRING && e->value.len > size)
        wanted = SHD_SPACE;
    else
        wanted = SHD_OK;
    canary_set(w, size);
    rc = (stale ? shd_get_stale : shd_get)(w->dict, w->keys[k].bytes,
                                           w->keys[k].len, w->buffer, size,
                                           &v);
    canary_check(w, size);
    expect(w, rc, wanted);
    if (rc == SHD_SPACE && v.len != e->value.len)
        fail(w, "needs %zu bytes, and says %" PRIu64, e->value.len, v.len);
    if (rc != SHD_OK)
        return;
    check_value(w, &e->value, &v, w->buffer);
    if (v.flags != e->flags)
        fail(w, "flags %" PRId32 ", should be %" PRId32, v.flags, e->flags);
    check_ttl(w, e, v.ttl_ms);
}

/* Everything there is to know of a key, marking nothing. */
static void compare(struct world *w, uint32_t k)
{
    struct naive_entry *e = entry(w, k);
    uint64_t length, wanted_length;
    int rc;

    learn(w, k);
    if (!naive_is_live(e, now()))
        get(w, k, true, w->buffer_size - 1);
    rc = shd_llen(w->dict, w->keys[k].bytes, w->keys[k].len, &length);
    expect(w, rc, naive_llen(e, now(), &wanted_length));
    if (rc == SHD_OK && length != wanted_length)
        fail(w, "%" PRIu64 " elements, should be %" PRIu64, length,
             wanted_length);
}

/* ---- random material --------------------------------------------------- */

static double random_number(struct world *w)
{
    static const double ODD[] = {0.0, -0.0, 1e308, -1e-310, INFINITY,
                                 -INFINITY, 9007199254740993.0};

    if (one_in(w, 8))
        return ODD[below(w, sizeof(ODD) / sizeof(ODD[0]))];
    if (one_in(w, 50))
        return NAN;
    return (double)(int64_t)below(w, 2000001) - 1000000;
}

static size_t random_len(struct world *w, unsigned kind)
{
    const struct mix *m = w->config->mix;

    if (kind < m->small)
        return below(w, 33);
    kind -= m->small;
    if (kind < m->medium)
        return below(w, 2001);
    kind -= m->medium;
    if (kind < m->large) {
        uint64_t most = w->value_max < 65536 ? w->value_max : 65536;
        return below(w, most + 1);
    }
    return w->value_max + 1 - below(w, one_in(w, 2) ? 3 : 64);
}

static struct naive_value random_value(struct world *w)
{
    const struct mix *m = w->config->mix;
    struct naive_value v = {0};
    unsigned kind = (unsigned)below(w, 100);

    if (kind < m->number) {
        v.type = SHD_NUMBER;
        v.number = random_number(w);
    } else if (kind < m->number + m->boolean) {
        v.type = SHD_BOOLEAN;
        v.number = (double)below(w, 2);
    } else {
        v.type = SHD_STRING;
        v.len = random_len(w, kind - m->number - m->boolean);
        v.bytes = w->pool + below(w, POOL_BYTES);
    }
    return v;
}

static int64_t random_ttl(struct world *w)
{
    switch (below(w, 16)) {
    case 0: return 1;
    case 1: return 1 + (int64_t)below(w, 20);
    case 2:
    case 3: return 1 + (int64_t)below(w, 3000);
    case 4: return 1 + (int64_t)below(w, 400000);
    case 5: return INT64_MAX - (int64_t)below(w, 100);
    case 6: return 86400000ll * 365 * 100;
    default: return 0;
    }
}

static int32_t random_flags(struct world *w)
{
    return one_in(w, 2) ? 0 : (int32_t)next(w);
}

/* Where lists are wanted, every fourth key is mostly one. */
static uint32_t random_key(struct world *w, bool for_list)
{
    uint32_t n = w->config->keys;
    uint32_t k = (uint32_t)below(w, one_in(w, 2) ? n : n / 8 + 1);

    if (w->config->lists > 0 && !one_in(w, 10)) {
        k -= k % 4;
        if (!for_list && k + 1 < n)
            k += 1 + (uint32_t)below(w, k + 3 < n ? 3 : n - k - 1);
    }
    return k;
}

/* ---- operations --------------------------------------------------------- */

/* What value_max_bytes promises of that key. User flags may cost a word. */
static bool fits(const struct world *w, uint32_t k, size_t len, int32_t flags)
{
    return len + (flags != 0 ? 8 : 0) <=
           dict_value_max(&w->dict->dict, w->keys[k].len);
}

/* May a store that evicts nothing say that there is no room? Only in a dict
 * that is too small, and only if what is free could not be gathered: each
 * shard may keep a partly used page for each class of cells. */
static void check_nomem(struct world *w, uint32_t k, size_t len)
{
    uint64_t need = (len + w->keys[k].len + 256) * 3 / 2;

    w->nomem++;
    if (!w->config->evicts)
        fail(w, "no memory though there is room");
    refresh(w);
    if (w->info.shards == 1 &&
        w->info.pages_free * SEGMENT_PAGE > need + SEGMENT_PAGE)
        fail(w, "no memory for %zu bytes with %" PRIu64 " free pages", len,
             w->info.pages_free);
    /* All but one page of each class could be made full by moving cells; what
     * is then free is whole pages. */
    if (w->info.shards == 1 &&
        w->info.free_bytes > need + SLAB_CLASSES * SEGMENT_PAGE)
        fail(w, "no memory for %zu bytes with %" PRIu64 " free bytes", len,
             w->info.free_bytes);
}

/* After a change that gave `forcible`; `before` is the dict's info then. */
static void check_forced(struct world *w, const struct shd_dict_info *before,
                         bool allowed, uint32_t forcible)
{
    refresh(w);
    uint64_t evicted = w->info.evictions - before->evictions;

    if (evicted > 0 && !allowed)
        fail(w, "removed %" PRIu64 " live entries", evicted);
    if (forcible != (evicted > 0))
        fail(w, "forcible is %" PRIu32 ", and %" PRIu64
             " live entries were removed", forcible, evicted);
    if (!w->config->evicts && evicted + w->info.expirations -
                                      before->expirations > 0)
        fail(w, "removed entries though there is room");
}

static void op_store(struct world *w, uint32_t k)
{
    struct naive_entry *e = entry(w, k);
    struct naive_value v = random_value(w);
    struct shd_dict_info before;
    uint32_t op = (uint32_t)below(w, 4), forcible = 77;
    int64_t ttl = random_ttl(w);
    int32_t flags = random_flags(w);
    bool was_stored, looking;
    int rc, wanted;

    op = op == 3 ? SHD_SET : op;
    if (one_in(w, 3))
        op |= SHD_SAFE;
    learn(w, k);
    was_stored = e->stored;
    /* Counting costs more than storing: not every time where nothing is
     * ever removed. */
    looking = w->config->evicts || one_in(w, 16);
    if (looking)
        refresh(w);
    before = w->info;
    rc = shd_store(w->dict, op, w->keys[k].bytes, w->keys[k].len, v.type,
                   v.type == SHD_STRING ? v.bytes : NULL, v.len, v.number,
                   ttl, flags, &forcible);
    if (forcible > 1)
        fail(w, "forcible was not written");
    if (looking)
        check_forced(w, &before, (op & SHD_SAFE) == 0, forcible);
    else if (forcible != 0)
        fail(w, "forcible though there is room");
    if (rc == SHD_TOOBIG && v.type == SHD_STRING &&
        !fits(w, k, v.len, flags)) {
        w->toobig++;
    } else if (rc == SHD_OK && v.type == SHD_STRING &&
               !fits(w, k, v.len, 0)) {
        fail(w, "stored %zu bytes, over value_max_bytes", v.len);
    } else if (rc == SHD_NOMEM && (op & SHD_SAFE) != 0) {
        check_nomem(w, k, v.len);
    } else {
        wanted = naive_store(e, now(), op, &v, ttl, flags);
        expect(w, rc, wanted);
        if (rc == SHD_OK) {
            e->stored_at = ++w->stores;
            e->changed_since = false;
            if (was_stored && forcible != 0)
                w->may_replace_own++;
            refresh(w);
            saw(w, e);
        }
    }
    if (rc != SHD_OK || one_in(w, 4)) {
        compare(w, k);
        get(w, k, true, w->buffer_size - 1);
    }
}

static void op_delete(struct world *w, uint32_t k)
{
    learn(w, k);
    expect(w, shd_delete(w->dict, w->keys[k].bytes, w->keys[k].len),
           naive_delete(entry(w, k), now()));
    learn(w, k);
}

static void op_incr(struct world *w, uint32_t k)
{
    struct naive_entry *e = entry(w, k);
    struct shd_dict_info before;
    double by = random_number(w), init = random_number(w);
    double result = 4711, wanted_result = 0;
    bool has_init = one_in(w, 2), live;
    uint32_t forcible = 77;
    int64_t ttl = random_ttl(w);
    int rc;

    learn(w, k);
    live = naive_is_live(e, now());
    if (e->stored && !live && w->config->evicts)
        w->may_replace_own++; /* the expired entry may be removed first */
    refresh(w);
    before = w->info;
    rc = shd_incr(w->dict, w->keys[k].bytes, w->keys[k].len, by, has_init,
                  init, ttl, &result, &forcible);
    if (forcible > 1)
        fail(w, "forcible was not written");
    check_forced(w, &before, has_init && !live, forcible);
    expect(w, rc, naive_incr(e, now(), by, has_init, init, ttl,
                             &wanted_result));
    if (rc != SHD_OK)
        return;
    if (memcmp(&result, &wanted_result, sizeof(result)) != 0 &&
        !(isnan(result) && isnan(wanted_result)))
        fail(w, "result %g, should be %g", result, wanted_result);
    saw(w, e);
    e->changed_since = true;
    if (one_in(w, 4))
        get(w, k, true, w->buffer_size - 1);
}

static void op_expire(struct world *w, uint32_t k)
{
    int64_t ttl = random_ttl(w);

    learn(w, k);
    expect(w, shd_expire(w->dict, w->keys[k].bytes, w->keys[k].len, ttl),
           naive_expire(entry(w, k), now(), ttl));
    entry(w, k)->changed_since = true;
    learn(w, k);
}

static void op_push(struct world *w, uint32_t k)
{
    struct naive_entry *e = entry(w, k);
    struct naive_value v;
    struct shd_dict_info before;
    uint64_t length = 4711, wanted = 0;
    bool left = one_in(w, 2);
    int rc;

    do
        v = random_value(w);
    while (v.type == SHD_BOOLEAN);
    learn(w, k);
    refresh(w);
    before = w->info;
    rc = shd_push(w->dict, left, w->keys[k].bytes, w->keys[k].len, v.type,
                  v.type == SHD_STRING ? v.bytes : NULL, v.len, v.number,
                  &length);
    check_forced(w, &before, false, 0);
    if (rc == SHD_NOMEM) {
        check_nomem(w, k, v.len);
        /* Over an expired entry: that one may have gone to make room. */
        compare(w, k);
        return;
    }
    if (rc == SHD_TOOBIG && v.type == SHD_STRING && !fits(w, k, v.len + 64, 0)) {
        compare(w, k);
        return;
    }
    expect(w, rc, naive_push(e, now(), left, &v, &wanted));
    if (rc != SHD_OK)
        return;
    if (length != wanted)
        fail(w, "%" PRIu64 " elements, should be %" PRIu64, length, wanted);
    saw(w, e);
    e->changed_since = true;
}

static void op_pop(struct world *w, uint32_t k)
{
    struct naive_entry *e = entry(w, k);
    bool left = one_in(w, 2);
    size_t size = some_buffer_size(w);
    struct naive_value n = {0};
    struct shd_value v;
    int rc;

    learn(w, k);
    if (naive_is_live(e, now()) && e->type == SHD_LIST)
        n = e->list[left ? 0 : e->list_len - 1];
    canary_set(w, size);
    rc = shd_pop(w->dict, left, w->keys[k].bytes, w->keys[k].len, w->buffer,
                 size, &v);
    canary_check(w, size);
    if (n.type == SHD_STRING && n.len > size) {
        expect(w, rc, SHD_SPACE);
        if (v.len != n.len)
            fail(w, "needs %zu bytes, and says %" PRIu64, n.len, v.len);
        w->no_space++;
        compare(w, k);
        return;
    }
    expect(w, rc, naive_pop(e, now(), left, &n));
    if (rc != SHD_OK)
        return;
    check_value(w, &n, &v, w->buffer);
    e->changed_since = true;
    if (!e->stored)
        learn(w, k);
}

/* What no argument check may let through: nothing changes. */
static void op_wrong(struct world *w, uint32_t k)
{
    const struct key *key = &w->keys[k];
    shd_dict *d = w->dict;
    uint32_t forcible;
    uint64_t length;
    double result;
    struct shd_value v;

    learn(w, k);
    expect(w, shd_set(d, key->bytes, 0, "x", 1, 0), SHD_EMPTYKEY);
    expect(w, shd_set(d, w->pool, KEY_MAX + 1, "x", 1, 0), SHD_LONGKEY);
    expect(w, shd_get(d, key->bytes, 0, w->buffer, 10, &v), SHD_EMPTYKEY);
    expect(w, shd_get(d, w->pool, KEY_MAX + 1, w->buffer, 10, &v),
           SHD_LONGKEY);
    expect(w, shd_set(d, key->bytes, key->len, "x", 1, -1), SHD_INVAL);
    expect(w, shd_expire(d, key->bytes, key->len, -5), SHD_INVAL);
    expect(w, shd_store(d, 3, key->bytes, key->len, SHD_STRING, "x", 1, 0, 0,
                        0, &forcible), SHD_INVAL);
    expect(w, shd_store(d, 8, key->bytes, key->len, SHD_STRING, "x", 1, 0, 0,
                        0, &forcible), SHD_INVAL);
    expect(w, shd_store(d, SHD_SET, key->bytes, key->len, SHD_LIST, "x", 1, 0,
                        0, 0, &forcible), SHD_INVAL);
    expect(w, shd_store(d, SHD_SET, key->bytes, key->len, 99, "x", 1, 0, 0, 0,
                        &forcible), SHD_INVAL);
    expect(w, shd_push(d, 1, key->bytes, key->len, SHD_BOOLEAN, NULL, 0, 1,
                       &length), SHD_INVAL);
    expect(w, shd_incr(d, key->bytes, key->len, 1, 1, 1, -1, &result,
                       &forcible), SHD_INVAL);
    compare(w, k);
}

static void op_flush_expired(struct world *w)
{
    uint64_t max = one_in(w, 3) ? 0 : 1 + below(w, 10), freed = 4711;
    uint64_t expired = 0, left = 0;

    for (uint32_t k = 0; k < w->config->keys; k++) {
        learn(w, k);
        expired += entry(w, k)->stored && !naive_is_live(entry(w, k), now());
    }
    expect(w, shd_flush_expired(w->dict, max, &freed), SHD_OK);
    if (freed != (max != 0 && max < expired ? max : expired))
        fail(w, "freed %" PRIu64 " of %" PRIu64 ", at most %" PRIu64, freed,
             expired, max);
    refresh(w);
    for (uint32_t k = 0; k < w->config->keys; k++) {
        struct naive_entry *e = entry(w, k);
        int64_t ttl;

        if (!e->stored)
            continue;
        int rc = shd_ttl(w->dict, w->keys[k].bytes, w->keys[k].len, &ttl);
        bool live = naive_is_live(e, now());
        w->key = k;
        if (rc == SHD_NOTFOUND && live)
            fail(w, "a live entry was freed");
        if (rc == SHD_NOTFOUND) {
            naive_clear(e);
        } else {
            expect(w, rc, SHD_OK);
            saw(w, e);
            left += !live;
        }
    }
    if (left != expired - freed)
        fail(w, "%" PRIu64 " expired entries are left, should be %" PRIu64,
             left, expired - freed);
}

static void op_flush_all(struct world *w)
{
    expect(w, shd_flush_all(w->dict), SHD_OK);
    for (uint32_t k = 0; k < w->config->keys; k++)
        naive_flush(entry(w, k), now());
    compare(w, (uint32_t)below(w, w->config->keys));
}

static void random_op(struct world *w);

static int key_number(const struct world *w, const unsigned char *bytes,
                      size_t len, uint32_t *k)
{
    uint32_t n = 0;

    if (w->config->form == KEY_BYTE) {
        n = bytes[0];
    } else {
        size_t i = 0;
        while (i < len && bytes[i] >= '0' && bytes[i] <= '9' && n < 100000000)
            n = n * 10 + bytes[i++] - '0';
    }
    if (n >= w->config->keys || w->keys[n].len != len ||
        memcmp(w->keys[n].bytes, bytes, len) != 0)
        return -1;
    *k = n;
    return 0;
}

static void walk_step(struct world *w, const struct shd_value *v, uint32_t k,
                      bool expired_too)
{
    struct naive_entry *e = entry(w, k);

    w->key = k;
    if (w->keys[k].seen)
        fail(w, "a walk gave a key twice");
    w->keys[k].seen = true;
    if (!e->stored)
        fail(w, "a walk gave a key that is not stored");
    if (!expired_too && !naive_is_live(e, now()))
        fail(w, "a walk gave an expired key");
    if (v->type != e->type)
        fail(w, "type %" PRIu32 ", should be %" PRIu32, v->type, e->type);
    if (e->type == SHD_LIST) {
        if (v->len != e->list_len)
            fail(w, "%" PRIu64 " elements, should be %zu", v->len,
                 e->list_len);
    } else {
        check_value(w, &e->value, v, w->buffer);
        if (v->flags != e->flags)
            fail(w, "flags %" PRId32 ", should be %" PRId32, v->flags,
                 e->flags);
    }
    check_ttl(w, e, v->ttl_ms);
    saw(w, e);
}

/* Walks over all keys, changing some underway if `meddle`. */
static void op_walk(struct world *w, bool expired_too, bool meddle)
{
    unsigned char *after = NULL;
    size_t after_len = 0;
    uint64_t count = 0;

    w->walks++;
    w->walking = true;
    refresh(w);
    for (uint32_t k = 0; k < w->config->keys; k++)
        w->keys[k].seen = w->keys[k].disturbed = false;
    for (;;) {
        struct shd_value v;
        size_t len;
        uint32_t k;
        int rc = shd_scan(w->dict, after, after_len,
                          expired_too ? SHD_SCAN_EXPIRED : 0, w->key_buffer,
                          KEY_MAX, &len, w->buffer, w->buffer_size, &v);

        if (rc == SHD_NOTFOUND)
            break;
        expect(w, rc, SHD_OK);
        if (len == 0 || len > KEY_MAX ||
            key_number(w, w->key_buffer, len, &k) != 0)
            fail(w, "a walk gave a key that never was");
        walk_step(w, &v, k, expired_too);
        count++;
        after = w->keys[k].bytes;
        after_len = w->keys[k].len;
        if (meddle && one_in(w, 4)) {
            random_op(w);
            w->doing = "walk with changes";
            refresh(w);
        }
    }
    for (uint32_t k = 0; k < w->config->keys; k++) {
        struct naive_entry *e = entry(w, k);

        if (w->keys[k].seen || w->keys[k].disturbed || !e->stored ||
            (!expired_too && !naive_is_live(e, now())))
            continue;
        /* The walk did not see it: so it must be gone. */
        w->key = k;
        learn(w, k);
        if (e->stored)
            fail(w, "a walk left out a key that was there throughout");
    }
    w->walking = false;
    if (!meddle && expired_too) {
        refresh(w);
        if (count != w->info.entries)
            fail(w, "the walk saw %" PRIu64 " entries, info says %" PRIu64,
                 count, w->info.entries);
    }
}

/* The map is up to date for all keys: does the bookkeeping add up? */
static void audit(struct world *w)
{
    w->doing = "walk";
    op_walk(w, true, false);
    w->doing = "audit";
    if (w->gone_live > w->info.evictions)
        fail(w, "%" PRIu64 " live entries are gone, %" PRIu64
             " were removed", w->gone_live, w->info.evictions);
    if (w->gone_live + w->gone_expired >
        w->info.evictions + w->info.expirations)
        fail(w, "more entries are gone than were removed");
    if (w->info.evictions >
        w->gone_live + w->gone_expired + w->may_replace_own)
        fail(w, "%" PRIu64 " evictions, but only %" PRIu64
             " entries are gone", w->info.evictions,
             w->gone_live + w->gone_expired + w->may_replace_own);
    if (w->info.free_bytes > w->fresh_free)
        fail(w, "%" PRIu64 " bytes free, more than when it was fresh",
             w->info.free_bytes);
}

static void op_keys(struct world *w)
{
    uint64_t live = 0, count, last = 0;
    uint64_t max = one_in(w, 2) ? 0 : 1 + below(w, w->config->keys);
    shd_keys *keys;

    audit(w);
    w->doing = "keys";
    for (uint32_t k = 0; k < w->config->keys; k++) {
        live += naive_is_live(entry(w, k), now());
        w->keys[k].seen = false;
    }
    expect(w, shd_keys_get(w->dict, max, &keys), SHD_OK);
    count = shd_keys_count(keys);
    if (count != (max != 0 && max < live ? max : live))
        fail(w, "%" PRIu64 " keys of %" PRIu64 ", at most %" PRIu64, count,
             live, max);
    for (uint64_t i = 0; i < count; i++) {
        size_t len = 0;
        uint32_t k;
        const char *bytes = shd_keys_at(keys, i, &len);

        if (bytes == NULL || len == 0 ||
            key_number(w, (const unsigned char *)bytes, len, &k) != 0)
            fail(w, "key %" PRIu64 " of the list never was", i);
        w->key = k;
        if (w->keys[k].seen)
            fail(w, "twice in the list");
        w->keys[k].seen = true;
        if (!naive_is_live(entry(w, k), now()))
            fail(w, "in the list, and not live");
        /* The order is told only within a shard, and eviction promotes. */
        if (w->info.shards != 1 || w->config->evicts ||
            entry(w, k)->changed_since)
            continue;
        if (entry(w, k)->stored_at < last)
            fail(w, "in the list after one that was stored later");
        last = entry(w, k)->stored_at;
    }
    if (shd_keys_at(keys, count, &(size_t){0}) != NULL)
        fail(w, "a key past the end of the list");
    shd_keys_free(keys);
}

static void op_advance(struct world *w)
{
    static const uint64_t STEPS[] = {1, 1, 1, 10, 10, 1000, 5000, 100000};

    clock_test_advance(1 + below(w, STEPS[below(w, 8)]));
}

static void list_op(struct world *w)
{
    uint32_t k = w->key = random_key(w, true);
    struct naive_entry *e = entry(w, k);
    uint64_t length, wanted;

    w->keys[k].disturbed = true;
    if (one_in(w, 8)) {
        w->doing = "llen";
        learn(w, k);
        expect(w, shd_llen(w->dict, w->keys[k].bytes, w->keys[k].len,
                           &length), naive_llen(e, now(), &wanted));
        if (naive_llen(e, now(), &wanted) == SHD_OK && length != wanted)
            fail(w, "%" PRIu64 " elements, should be %" PRIu64, length,
                 wanted);
        return;
    }
    bool full = e->stored && e->type == SHD_LIST &&
                e->list_len >= w->config->list_max;
    if (!full && below(w, 100) < 55) {
        w->doing = "push";
        op_push(w, k);
    } else {
        w->doing = "pop";
        op_pop(w, k);
    }
}

static void key_op(struct world *w)
{
    uint32_t k = w->key = random_key(w, false);
    unsigned n = (unsigned)below(w, 100);

    if (n < 30) {
        w->doing = "get";
        learn(w, k);
        get(w, k, false, some_buffer_size(w));
        return;
    }
    if (n < 38) {
        w->doing = "get_stale";
        learn(w, k);
        get(w, k, true, some_buffer_size(w));
        return;
    }
    if (n < 41) {
        w->doing = "compare";
        compare(w, k);
        return;
    }
    w->keys[k].disturbed = true;
    if (n < 76) {
        w->doing = "store";
        op_store(w, k);
    } else if (n < 84) {
        w->doing = "delete";
        op_delete(w, k);
    } else if (n < 94) {
        w->doing = "incr";
        op_incr(w, k);
    } else if (n < 99 || !one_in(w, 10)) {
        w->doing = "expire";
        op_expire(w, k);
    } else {
        w->doing = "wrong arguments";
        op_wrong(w, k);
    }
}

static void random_op(struct world *w)
{
    uint64_t rare = 40ull * w->config->keys + 20000;

    w->op++;
    if (!w->walking) {
        uint64_t n = below(w, rare);

        w->key = 0;
        if (n < 3) {
            w->doing = "flush_expired";
            op_flush_expired(w);
            return;
        }
        if (n < 4) {
            w->doing = "flush_all";
            op_flush_all(w);
            return;
        }
        if (n < 8) {
            bool expired = one_in(w, 2), meddle = one_in(w, 2);
            w->doing = meddle ? "walk with changes" : "walk";
            op_walk(w, expired, meddle);
            return;
        }
        if (n < 10) {
            op_keys(w);
            return;
        }
        if (one_in(w, 60)) {
            op_advance(w);
            return;
        }
    }
    if (below(w, 100) < w->config->lists)
        list_op(w);
    else
        key_op(w);
}

/* ---- beginning and end -------------------------------------------------- */

static size_t key_padding(struct world *w, uint32_t k)
{
    switch (w->config->form) {
    case KEY_MIXED:
        return k % 16 == 3 ? 1 + below(w, 200) : 0;
    case KEY_LONG:
        return k % 8 == 3 ? 1 + below(w, 5000) : k == 5 ? KEY_MAX - 2 : 0;
    default:
        return 0;
    }
}

/* "17", or "17:" and random bytes; or one byte. */
static void make_keys(struct world *w)
{
    uint32_t n = w->config->keys;

    w->keys = calloc(n, sizeof(*w->keys));
    w->entries = calloc(n, sizeof(*w->entries));
    if (w->keys == NULL || w->entries == NULL)
        fail(w, "no memory for the test");
    for (uint32_t k = 0; k < n; k++) {
        size_t padding = key_padding(w, k);
        unsigned char *b = malloc(padding + 16);
        int len;

        if (b == NULL)
            fail(w, "no memory for the test");
        w->keys[k].bytes = b;
        if (w->config->form == KEY_BYTE) {
            b[0] = (unsigned char)k;
            w->keys[k].len = 1;
            continue;
        }
        len = sprintf((char *)b, padding > 0 ? "%" PRIu32 ":" : "%" PRIu32, k);
        memcpy(b + len, w->pool + below(w, POOL_BYTES - padding), padding);
        w->keys[k].len = (size_t)len + padding;
    }
}

static void begin(struct world *w)
{
    struct shd_segment_options so = {.struct_size = sizeof(so)};
    struct shd_dict_options o = {.struct_size = sizeof(o)};

    so.size_bytes = w->config->capacity * 2 + 16 * MIB;
    so.workers_max = 4;
    so.objects_max = 4;
    so.locks_max = 256;
    w->doing = "begin";
    expect(w, shd_segment_create(NULL, &so, &w->segment), SHD_OK);
    /* The kernel's random number would make failures come but once. */
    w->segment->segment.hash_seed = w->seed;
    segment_header(&w->segment->segment)->hash_seed = w->seed;
    o.shards = w->config->shards;
    o.capacity_bytes = w->config->capacity;
    o.entries_hint = w->config->hint;
    expect(w, shd_dict_open(w->segment, "model", &o, &w->dict), SHD_OK);
    refresh(w);
    w->value_max = w->info.value_max_bytes;
    w->fresh_free = w->info.free_bytes;
    if (w->value_max == 0 || w->value_max > w->config->capacity)
        fail(w, "value_max_bytes is %" PRIu64, w->value_max);
    w->pool = malloc(POOL_BYTES + w->value_max + 64);
    w->buffer_size = w->value_max + 4096 + 65536;
    w->buffer = malloc(w->buffer_size + 1);
    w->key_buffer = malloc(KEY_MAX);
    if (w->pool == NULL || w->buffer == NULL || w->key_buffer == NULL)
        fail(w, "no memory for the test");
    for (size_t i = 0; i < POOL_BYTES + w->value_max; i += 8) {
        uint64_t r = next(w);
        memcpy(w->pool + i, &r, 8);
    }
    make_keys(w);
}

static void check_segment(struct world *w)
{
    char report[512] = "";
    int rc = shd_segment_check(w->segment, report, sizeof(report));

    w->doing = "check";
    w->checks++;
    if (rc != SHD_OK)
        fail(w, "%s: %s", name_of(rc), report);
}

/* Everything goes; is every byte free again? */
static void end(struct world *w)
{
    uint64_t freed = 0;
    bool by_flush = (w->seed & 1) != 0;

    audit(w);
    w->doing = "end";
    if (by_flush) {
        expect(w, shd_flush_all(w->dict), SHD_OK);
        expect(w, shd_flush_expired(w->dict, 0, &freed), SHD_OK);
    } else {
        for (uint32_t k = 0; k < w->config->keys; k++) {
            int rc = shd_delete(w->dict, w->keys[k].bytes, w->keys[k].len);
            w->key = k;
            expect(w, rc, naive_delete(entry(w, k), now()));
        }
    }
    refresh(w);
    if (w->info.entries != 0)
        fail(w, "%" PRIu64 " entries are left", w->info.entries);
    if (w->info.free_bytes != w->fresh_free)
        fail(w, "a leak: %" PRIu64 " bytes free, %" PRIu64
             " when it was fresh", w->info.free_bytes, w->fresh_free);
    if (w->info.cells_bytes != 0)
        fail(w, "%" PRIu64 " bytes in cells of an empty dict",
             w->info.cells_bytes);
    check_segment(w);
}

static _Noreturn void run(const struct config *c, uint64_t seed,
                          uint64_t ops_asked)
{
    struct world *w = calloc(1, sizeof(*w));
    double started = seconds();
    uint64_t ops = ops_asked * c->share / 1000, every;

    if (w == NULL)
        _exit(1);
    w->config = c;
    w->seed = w->random = seed;
    w->ops_asked = ops_asked;
    begin(w);
    every = ops / 40 + 1;
    while (w->op < ops) {
        random_op(w);
        if (w->op % every == 0)
            check_segment(w);
    }
    end(w);
    printf("  ok   %-14s %8" PRIu64 " operations, %7" PRIu64
           " evicted, %6" PRIu64 " expired, %6" PRIu64 " no memory, %5" PRIu64
           " too big, %4" PRIu64 " walks, %2" PRIu64 " checks, %.1f s\n",
           c->name, w->op, w->info.evictions, w->info.expirations, w->nomem,
           w->toobig, w->walks, w->checks, seconds() - started);
    fflush(stdout);
    _exit(0);
}

/* Each configuration in a process of its own: a crash fails only it. */
static bool run_apart(const struct config *c, uint64_t seed, uint64_t ops)
{
    int status;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child < 0) {
        perror("fork");
        return false;
    }
    if (child == 0)
        run(c, seed, ops);
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            perror("waitpid");
            return false;
        }
    }
    if (WIFSIGNALED(status))
        printf("    killed by signal %d (%s)\n    again: tests/model/run "
               "--only %s --seed %" PRIu64 " --ops %" PRIu64 "\n",
               WTERMSIG(status), strsignal(WTERMSIG(status)), c->name, seed,
               ops);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        printf("  FAIL %s\n", c->name);
        return false;
    }
    return true;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: model [--seed N] [--ops N] [--only CONFIGURATION]\n"
            "  --ops N  operations over all configurations, default %llu\n",
            OPS_DEFAULT);
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t seed = SEED_DEFAULT, ops = OPS_DEFAULT;
    const char *only = NULL;
    unsigned passed = 0, failed = 0;

    for (int i = 1; i < argc; i += 2) {
        if (i + 1 >= argc)
            return usage();
        if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--ops") == 0)
            ops = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else
            return usage();
    }
    printf("model: seed %" PRIu64 ", %" PRIu64 " operations\n", seed, ops);
    for (size_t i = 0; i < CONFIG_COUNT; i++) {
        if (only != NULL && strcmp(only, CONFIGS[i].name) != 0)
            continue;
        if (run_apart(&CONFIGS[i], seed, ops))
            passed++;
        else
            failed++;
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}
