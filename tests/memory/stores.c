/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The stores, each with what must hold of it.
 *
 * Time stands still between operations (the linker puts the frozen clock under
 * base/clock.c) and the seed decides everything else: a failure comes again
 * with the command that is printed.
 */
#include "tests/memory/torture.h"
#include "shm/base/hash.h"
#include "shm/dict/room.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Of safe stores, one in so many is compared with all that was there before,
 * in case it is refused. */
#define DIGEST_EVERY 200

/* To free one page a shard may have to evict until its free cells are more
 * than can be left over in every class, and then what is in a page. */
#define EVICTIONS_A_PAGE (ROOM_PAGE_CELLS + PAGE_BYTES / SLAB_CELL_MIN)

static struct timespec frozen = {.tv_sec = 1000000, .tv_nsec = 500000};

int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __real_clock_gettime(clockid_t id, struct timespec *t);

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    (void)id;
    *t = frozen;
    return 0;
}

void forward(uint64_t ms)
{
    uint64_t ns = (uint64_t)frozen.tv_nsec + ms % 1000 * 1000000;

    frozen.tv_sec += (time_t)(ms / 1000 + ns / 1000000000);
    frozen.tv_nsec = (long)(ns % 1000000000);
}

static double seconds_of(clockid_t id)
{
    struct timespec t;

    if (__real_clock_gettime(id, &t) != 0)
        return 0;
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

double real_seconds(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

double cpu_seconds(void)
{
    return seconds_of(CLOCK_THREAD_CPUTIME_ID);
}

/* SplitMix64. */
uint64_t below(struct world *w, uint64_t n)
{
    uint64_t z = w->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (z ^ z >> 31) % n;
}

_Noreturn void fail(const struct world *w, const char *format, ...)
{
    va_list args;

    printf("  FAIL %s: ", w->config->name);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n    in operation %" PRIu64 ", %s, mood %s\n    again: "
           "tests/memory/run --only %s --seed %" PRIu64 " --ops %" PRIu64 "\n",
           w->op, w->doing, w->mood, w->config->name, w->seed, w->op + 1);
    fflush(stdout);
    _exit(1);
}

size_t key_make(const struct world *w, uint64_t n, uint32_t shard, char *key)
{
    size_t padding = n % 29 == 5 ? n * 977 % 3000 : 0;

    if (pages_count(&w->d->pages) < 10)
        padding = 0;
    memset(key, 'x', padding);
    for (unsigned i = 0;; i++) {
        size_t len =
            padding + (size_t)sprintf(key + padding, "%" PRIu64 ".%u", n, i);

        if (shard == UINT32_MAX || dict_place(w->d, key, len).shard == shard)
            return len;
    }
}

static int32_t flags_of(uint64_t n)
{
    return (int32_t)(n % 3);
}

static const unsigned char *value_of(const struct world *w, uint64_t n)
{
    return w->pool + n % 4096;
}

/* ---- what an operation did -------------------------------------------- */

struct counts {
    uint64_t evictions, expirations, moves, transactions;
};

static struct counts count(const struct world *w)
{
    struct counts c = {0};

    for (uint32_t i = 0; i < w->d->shards; i++) {
        const struct shard *s = &w->d->shard[i];

        c.evictions += s->evictions;
        c.expirations += s->expirations;
        c.moves += s->moves;
        c.transactions += dict_guard(w->d, i)->seq / 2;
    }
    return c;
}

static void raise_to(const struct world *w, struct worst *worst, uint64_t n,
                     uint64_t len)
{
    if (n > worst->n)
        *worst = (struct worst){n, w->op, len, w->mood};
}

void utilisation_add(struct world *w, struct utilisation *u, uint64_t len)
{
    uint64_t bytes = 0;
    double part;

    for (uint32_t i = 0; i < w->d->shards; i++)
        bytes += w->d->shard[i].slab.bytes;
    part = (double)bytes / ((double)pages_count(&w->d->pages) * PAGE_BYTES);
    u->sum += part;
    u->n++;
    raise_to(w, &u->least, (uint64_t)((1 - part) * 1e6), len);
}

void latency_add(struct world *w, double seconds, double cpu, uint64_t len)
{
    raise_to(w, &w->record->worst_ns, (uint64_t)(seconds * 1e9), len);
    raise_to(w, &w->record->worst_cpu_ns, (uint64_t)(cpu * 1e9), len);
}

/* Pages an item may need for itself alone, each cell in one of its own. */
static uint64_t own_pages(const struct item *item)
{
    return 1 + chain_pages(chain_source_len(&item->chain));
}

static void account_of_work(struct world *w, const struct counts *before,
                            double seconds, double cpu,
                            const struct item *item)
{
    uint64_t ns = (uint64_t)(seconds * 1e9);
    uint64_t cpu_ns = (uint64_t)(cpu * 1e9);
    struct counts now = count(w);
    struct record *r = w->record;
    uint64_t evicted = now.evictions - before->evictions;
    uint64_t pages = own_pages(item);
    uint64_t bound =
        pages * EVICTIONS_A_PAGE + (uint64_t)w->d->shards * ROOM_PAGE_CELLS;

    r->evictions += evicted;
    r->moves += now.moves - before->moves;
    raise_to(w, &r->worst_evictions, evicted, item->len);
    raise_to(w, &r->worst_moves, now.moves - before->moves, item->len);
    raise_to(w, &r->worst_expirations, now.expirations - before->expirations,
             item->len);
    raise_to(w, &r->worst_transactions,
             now.transactions - before->transactions, item->len);
    latency_add(w, seconds, cpu, item->len);
    if (pages == 1) {
        raise_to(w, &r->worst_small_ns, ns, item->len);
        raise_to(w, &r->worst_small_cpu_ns, cpu_ns, item->len);
        raise_to(w, &r->worst_small_evictions, evicted, item->len);
    }
    if (evicted > 0)
        utilisation_add(w, &r->evicting, item->len);
    if (evicted > bound)
        fail(w,
             "a store of %" PRIu64 " pages evicted %" PRIu64
             ", more than %" PRIu64,
             pages, evicted, bound);
}

/* The item that is stored: of `len` bytes, or the most that can be. */
static struct item shape(struct world *w, const char *key, size_t key_len,
                         uint64_t n, size_t len)
{
    uint64_t most = dict_value_max(w->d, key_len) - (n % 3 != 0 ? 8 : 0);
    struct item item = {.key = key,
                        .key_len = key_len,
                        .type = SHD_STRING,
                        .flags = flags_of(n),
                        .value = w->pool,
                        .len = len < most ? len : most};

    if (item_shape(w->d, &item) != SHD_OK)
        fail(w, "an item of %zu bytes has no shape: %s", len,
             shd_last_error());
    return item;
}

static void take_account(struct world *w, struct shd_dict_account *a)
{
    int rc = account_take(w->d, a, w->live);

    if (rc != SHD_OK)
        fail(w, "account: %s", shd_last_error());
    if (account_sum(a) != a->capacity_bytes)
        fail(w, "the account is not the capacity");
}

/* Was there really no room for it? A store that failed has not changed what is
 * alive, so it can be asked afterwards. */
static void check_refusal(struct world *w, const struct item *item,
                          const struct item *more)
{
    struct shd_dict_account a;
    uint32_t shard = dict_place(w->d, item->key, item->key_len).shard;
    uint64_t needed, free;

    take_account(w, &a);
    account_add(&w->live[shard], item);
    if (more != NULL)
        account_add(&w->live[shard], more);
    needed = account_pages_needed(w->d, w->live);
    if (needed <= pages_count(&w->d->pages))
        fail(w, "refused, and %" PRIu64 " pages would do of %u: %s", needed,
             pages_count(&w->d->pages), shd_last_error());
    w->record->refused++;
    free = a.free_cells_bytes + a.free_pages_bytes;
    raise_to(w, &w->record->worst_refused,
             free > item->len ? free - item->len : 0, item->len);
}

/* ---- everything that is alive ----------------------------------------- */

static uint64_t mix(uint64_t h, const void *p, size_t len)
{
    return hash_bytes(p, len, h);
}

static uint64_t digest(struct world *w)
{
    char key[KEY_ROOM], after[KEY_ROOM];
    size_t len, after_len = 0;
    struct shd_value v;
    uint64_t h = 17;
    int rc;

    while ((rc = shd_scan(w->dict, after_len == 0 ? NULL : after, after_len, 0,
                          key, sizeof(key), &len, w->buffer, w->value_max,
                          &v)) == SHD_OK) {
        h = mix(h, key, len);
        h = mix(h, &v.len, sizeof(v.len));
        h = mix(h, &v.ttl_ms, sizeof(v.ttl_ms));
        if (v.type == SHD_STRING)
            h = mix(h, w->buffer, v.len);
        memcpy(after, key, len);
        after_len = len;
    }
    if (rc != SHD_NOTFOUND)
        fail(w, "scan: %s", shd_last_error());
    return h;
}

/* ---- the stores -------------------------------------------------------- */

static void holds(struct world *w, const char *key, size_t key_len, uint64_t n,
                  size_t len)
{
    struct shd_value v;
    int rc = shd_get(w->dict, key, key_len, w->buffer, w->value_max, &v);

    if (rc != SHD_OK || v.len != len ||
        memcmp(w->buffer, value_of(w, n), len) != 0)
        fail(w, "what was stored reads as %s, %" PRIu64 " bytes",
             shd_strerror_name(rc), v.len);
}

static int timed_store(struct world *w, uint32_t op, const struct item *item,
                       uint64_t n, int64_t ttl_ms)
{
    uint32_t forcible = 0;
    struct counts before = count(w);
    double cpu = cpu_seconds(), started = real_seconds();
    int rc = shd_store(w->dict, op, item->key, item->key_len, SHD_STRING,
                       value_of(w, n), item->len, 0, ttl_ms, item->flags,
                       &forcible);

    started = real_seconds() - started;
    account_of_work(w, &before, started, cpu_seconds() - cpu, item);
    if ((forcible != 0) != (count(w).evictions != before.evictions))
        fail(w, "forcible is %u", forcible);
    return rc;
}

void plain(struct world *w, uint64_t n, uint32_t shard, size_t len,
           int64_t ttl_ms)
{
    char key[KEY_ROOM];
    size_t key_len = key_make(w, n, shard, key);
    struct item item;
    int rc;

    w->doing = "a plain store";
    item = shape(w, key, key_len, n, len);
    rc = timed_store(w, SHD_SET, &item, n, ttl_ms);
    w->record->plain++;
    if (rc != SHD_OK)
        fail(w, "%zu bytes: %s: %s", (size_t)item.len, shd_strerror_name(rc),
             shd_last_error());
    holds(w, key, key_len, n, item.len);
}

bool safe(struct world *w, uint64_t n, uint32_t shard, size_t len,
          int64_t ttl_ms)
{
    char key[KEY_ROOM];
    size_t key_len = key_make(w, n, shard, key);
    bool whole = below(w, DIGEST_EVERY) == 0;
    uint64_t before = whole ? digest(w) : 0;
    uint64_t evictions = count(w).evictions;
    struct item item;
    int rc;

    w->doing = "a safe store";
    item = shape(w, key, key_len, n, len);
    rc = timed_store(w, SHD_SET | SHD_SAFE, &item, n, ttl_ms);
    w->record->safe++;
    if (count(w).evictions != evictions)
        fail(w, "it evicted");
    if (rc == SHD_OK) {
        holds(w, key, key_len, n, item.len);
        return true;
    }
    if (rc != SHD_NOMEM)
        fail(w, "%s: %s", shd_strerror_name(rc), shd_last_error());
    check_refusal(w, &item, NULL);
    if (whole && digest(w) != before)
        fail(w, "refused, and something has changed");
    w->record->checked += whole;
    return false;
}

bool push(struct world *w, uint64_t n, size_t len)
{
    char key[KEY_ROOM] = "l";
    size_t key_len = 1 + key_make(w, n, UINT32_MAX, key + 1);
    struct item list = {.key = key, .key_len = key_len, .type = SHD_LIST};
    struct item element = {.type = SHD_STRING, .value = w->pool, .len = len};
    struct counts before = count(w);
    uint64_t length = 0;
    int rc;

    w->doing = "a push";
    if (item_shape(w->d, &list) != SHD_OK ||
        item_shape_node(w->d, &element) != SHD_OK)
        return false;
    if (shd_llen(w->dict, key, key_len, &length) != SHD_OK)
        fail(w, "llen: %s", shd_last_error());
    rc = shd_push(w->dict, (int)(n & 1), key, key_len, SHD_STRING,
                  value_of(w, n), len, 0, NULL);
    w->record->pushes++;
    if (count(w).evictions != before.evictions)
        fail(w, "it evicted");
    if (rc == SHD_OK)
        return true;
    if (rc != SHD_NOMEM)
        fail(w, "%s: %s", shd_strerror_name(rc), shd_last_error());
    /* The element goes where the key is. */
    element.key = key;
    element.key_len = key_len;
    check_refusal(w, &element, length == 0 ? &list : NULL);
    return false;
}

void incr(struct world *w, uint64_t n)
{
    char key[KEY_ROOM];
    size_t key_len = key_make(w, n, UINT32_MAX, key);
    double result;
    int rc;

    w->doing = "an incr";
    rc = shd_incr(w->dict, key, key_len, 1, 1, 0, 0, &result, NULL);
    w->record->plain++;
    if (rc != SHD_OK && rc != SHD_NOTNUMBER)
        fail(w, "%s: %s", shd_strerror_name(rc), shd_last_error());
}

void drop(struct world *w, uint64_t n, uint32_t shard)
{
    char key[KEY_ROOM];
    size_t len = key_make(w, n, shard, key);
    int rc = shd_delete(w->dict, key, len);

    w->doing = "a delete";
    if (rc != SHD_OK && rc != SHD_NOTFOUND)
        fail(w, "%s", shd_last_error());
}

void check(struct world *w)
{
    char report[256] = "";
    int rc = shd_segment_check(w->segment, report, sizeof(report));

    w->doing = "check";
    if (rc != SHD_OK)
        fail(w, "%s: %s", shd_strerror_name(rc), report);
}
