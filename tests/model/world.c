/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/model/world.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/base/clock.h"

#define CANARY 0xa5

/* SplitMix64. */
uint64_t next(struct world *w)
{
    uint64_t z = w->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* As many bytes of a fuzzer's as it takes; zeros when they are used up. */
static uint64_t drawn(struct world *w, uint64_t n)
{
    uint64_t z = 0;

    for (uint64_t m = n - 1; m > 0 && w->left > 0; m >>= 8) {
        z = z << 8 | *w->data++;
        w->left--;
    }
    return z % n;
}

uint64_t below(struct world *w, uint64_t n)
{
    return w->data != NULL ? drawn(w, n) : next(w) % n;
}

bool one_in(struct world *w, uint64_t n)
{
    return below(w, n) == 0;
}

_Noreturn void fail(const struct world *w, const char *format, ...)
{
    va_list args;

    printf("    %s, operation %" PRIu64 ", key %" PRIu32 ": ", w->doing,
           w->op, w->key);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    if (w->data != NULL) {
        printf("\n");
        fflush(stdout);
        abort();
    }
    printf("\n    again: tests/model/run --only %s --seed %" PRIu64
           " --ops %" PRIu64 "\n",
           w->config->name, w->seed, w->ops_asked);
    fflush(stdout);
    _exit(1);
}

const char *name_of(int code)
{
    return shd_strerror_name(code);
}

void expect(const struct world *w, int got, int wanted)
{
    if (got != wanted)
        fail(w, "gave %s, should be %s (%s)", name_of(got), name_of(wanted),
             got < 0 ? shd_last_error() : "");
}

uint64_t now(void)
{
    return clock_now_ms();
}

void refresh(struct world *w)
{
    w->info.struct_size = sizeof(w->info);
    int rc = shd_dict_info(w->dict, &w->info);
    if (rc != SHD_OK)
        fail(w, "shd_dict_info: %s", name_of(rc));
}

struct naive_entry *entry(struct world *w, uint32_t k)
{
    return &w->entries[k];
}

void saw(struct world *w, struct naive_entry *e)
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

void check_ttl(const struct world *w, const struct naive_entry *e,
                      int64_t got)
{
    int64_t wanted = naive_ttl_ms(e, now());

    if (e->flushed ? got >= 0 : got != wanted)
        fail(w, "ttl %" PRId64 ", should be %" PRId64 "%s", got, wanted,
             e->flushed ? " or less" : "");
}

/* Brings the map up to what had to go, for one key. */
void learn(struct world *w, uint32_t k)
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

void check_value(const struct world *w, const struct naive_value *n,
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

void canary_set(struct world *w, size_t size)
{
    w->buffer[size] = CANARY;
}

void canary_check(const struct world *w, size_t size)
{
    if (w->buffer[size] != CANARY)
        fail(w, "a byte after the buffer of %zu was written", size);
}

size_t some_buffer_size(struct world *w)
{
    return one_in(w, 10) ? below(w, 300) : w->buffer_size - 1;
}

void get(struct world *w, uint32_t k, bool stale, size_t size)
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
void compare(struct world *w, uint32_t k)
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

double random_number(struct world *w)
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

struct naive_value random_value(struct world *w)
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

int64_t random_ttl(struct world *w)
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

int32_t random_flags(struct world *w)
{
    return one_in(w, 2) ? 0 : (int32_t)next(w);
}

/* Where lists are wanted, every fourth key is mostly one. */
uint32_t random_key(struct world *w, bool for_list)
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
