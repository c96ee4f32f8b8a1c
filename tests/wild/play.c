/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/wild/play.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEYS 96
#define CONTROL_KEYS 40
#define BUFFER_MAX 40000u

const char *const PLAY_NAMES[PLAY_DICTS] = {"small", "sharded", "control"};

static const struct shd_dict_options OPTIONS[PLAY_DICTS] = {
    {.struct_size = sizeof(struct shd_dict_options),
     .shards = 1,
     .capacity_bytes = 64 << 10,
     .capacity_max_bytes = 256 << 10},
    {.struct_size = sizeof(struct shd_dict_options),
     .shards = 4,
     .capacity_bytes = 256 << 10,
     .capacity_max_bytes = 512 << 10},
    {.struct_size = sizeof(struct shd_dict_options),
     .shards = 1,
     .capacity_bytes = 256 << 10,
     .capacity_max_bytes = 256 << 10},
};

void play_fail(const struct play *p, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "wild: %s: ", p->doing != NULL ? p->doing : "start");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    abort();
}

/* SplitMix64, or as many bytes as it takes. */
uint64_t play_draw(struct play *p, uint64_t below)
{
    uint64_t z = 0;

    if (p->data != NULL) {
        for (uint64_t m = below - 1; m > 0 && p->left > 0; m >>= 8) {
            z = z << 8 | *p->data++;
            p->left--;
        }
        return z % below;
    }
    z = p->random += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (z ^ z >> 31) % below;
}

int play_answer(struct play *p, int rc)
{
    if (rc > 0 || rc < SHD_ERROR_LAST_)
        play_fail(p, "gave %d, which is no code", rc);
    p->codes[-rc]++;
    return rc;
}

static int answer(struct play *p, int rc)
{
    return play_answer(p, rc);
}

/* ---- material ----------------------------------------------------------- */

struct key {
    unsigned char *bytes;
    size_t len;
};

/* Exactly as long as it is. */
static struct key make_key(uint64_t n)
{
    char text[24];
    struct key k;
    int digits = snprintf(text, sizeof(text), "key%" PRIu64, n);

    k.len = n % 16 == 5 ? 1200 + n : n % 8 == 3 ? 60 : (size_t)digits;
    k.bytes = malloc(k.len);
    if (k.bytes == NULL)
        abort();
    memset(k.bytes, (int)('a' + n % 26), k.len);
    memcpy(k.bytes, text, (size_t)digits);
    return k;
}

static size_t value_len(uint64_t n)
{
    switch (n % 8) {
    case 0: return 3;
    case 1: return 40;
    case 2: return 300;
    case 3: return 1500;
    case 4: return 5000;
    case 5: return 0;
    case 6: return 100;
    default: return n % 5 == 0 ? 20000 : 20;
    }
}

static unsigned char *make_value(uint64_t n, size_t len)
{
    unsigned char *v = malloc(len + (len == 0));

    if (v == NULL)
        abort();
    for (size_t i = 0; i < len; i++)
        v[i] = (unsigned char)(n * 131 + i * 7 + (i >> 8));
    return v;
}

static int store(shd_dict *d, uint32_t op, uint64_t n, uint32_t type,
                 size_t len, int64_t ttl, int32_t flags)
{
    struct key k = make_key(n);
    unsigned char *v = make_value(n, len);
    uint32_t forced;
    int rc = shd_store(d, op, k.bytes, k.len, type, v, len,
                       type == SHD_BOOLEAN ? (double)(n & 1) : (double)n, ttl,
                       flags, &forced);

    free(v);
    free(k.bytes);
    return rc;
}

static int push(shd_dict *d, uint64_t n, size_t len, int left)
{
    struct key k = make_key(n);
    unsigned char *v = make_value(n, len);
    uint64_t length;
    int rc = shd_push(d, left, k.bytes, k.len, SHD_STRING, v, len, 0, &length);

    free(v);
    free(k.bytes);
    return rc;
}

/* ---- a segment ---------------------------------------------------------- */

static void must(struct play *p, int rc)
{
    if (rc != SHD_OK)
        play_fail(p, "%s: %s", shd_strerror_name(rc), shd_last_error());
}

/* Some elements are out on a lease. */
static void lease(struct play *p, shd_dict *d, uint64_t n)
{
    struct key k = make_key(n);
    unsigned char *buf = malloc(2000);
    struct shd_value v;
    int rc = shd_ltake(d, n & 1, k.bytes, k.len, buf, 2000, &v, &p->lease);

    must(p, rc == SHD_NOMEM || rc == SHD_NOTFOUND ? SHD_OK : rc);
    free(buf);
    free(k.bytes);
}

static void fill(struct play *p, shd_dict *d, uint64_t keys, bool plain)
{
    for (uint64_t n = 0; n < keys; n++) {
        if (plain || n % 4 != 2) {
            size_t len = value_len(n);
            must(p, store(d, SHD_SET, n, SHD_STRING, len < 6000 ? len : 6000,
                          plain || n % 3 != 0 ? 0 : 50000 + (int64_t)n,
                          n % 5 == 0 ? (int32_t)n : 0));
        } else if (n % 8 == 2) {
            /* A push evicts nothing: some shards may be full. */
            for (int i = 0; i < 5; i++) {
                int rc = push(d, n, value_len(n + (uint64_t)i) % 2000, i & 1);

                must(p, rc == SHD_NOMEM ? SHD_OK : rc);
            }
            if (!plain)
                lease(p, d, n);
        } else {
            must(p, store(d, SHD_SET, n, SHD_NUMBER, 0, 0, 0));
        }
    }
}

void play_create(struct play *p, uint32_t wait_ms)
{
    const struct shd_segment_options o = {.struct_size = sizeof(o),
                                          .size_bytes = 2 << 20,
                                          .workers_max = 16,
                                          .objects_max = 12,
                                          .locks_max = 20,
                                          .wait_ms = wait_ms};
    struct shd_segment_options ro = o;
    char name[24];

    p->doing = "create";
    must(p, shd_segment_create(NULL, &o, &p->segment));
    for (int i = 0; i < PLAY_DICTS; i++) {
        must(p, shd_dict_open(p->segment, PLAY_NAMES[i], &OPTIONS[i],
                              &p->dict[i]));
        fill(p, p->dict[i],
             i == PLAY_CONTROL ? CONTROL_KEYS
             : i == PLAY_SMALL ? 16
                               : KEYS,
             i == PLAY_CONTROL);
    }
    play_ipc_create(p);
    snprintf(name, sizeof(name), "fd:%d", shd_segment_fd(p->segment));
    ro.flags = SHD_ATTACH_READONLY;
    must(p, shd_segment_attach(name, &ro, &p->readonly));
    play_open(p);
}

void play_open(struct play *p)
{
    p->doing = "open";
    for (int i = 0; i < PLAY_DICTS; i++) {
        if (p->dict[i] == NULL && p->segment != NULL &&
            answer(p, shd_dict_open(p->segment, PLAY_NAMES[i], NULL,
                                    &p->dict[i])) != SHD_OK)
            p->dict[i] = NULL;
        if (p->looked[i] == NULL && p->readonly != NULL &&
            answer(p, shd_dict_open(p->readonly, PLAY_NAMES[i], NULL,
                                    &p->looked[i])) != SHD_OK)
            p->looked[i] = NULL;
    }
    play_ipc_open(p);
}

static void verify(struct play *p, shd_dict *d, uint64_t n, bool must_be)
{
    struct key k = make_key(n);
    size_t len = value_len(n) < 6000 ? value_len(n) : 6000;
    unsigned char *buf = malloc(len + (len == 0));
    unsigned char *v = make_value(n, len);
    struct shd_value got;
    int rc;

    p->doing = "verify";
    if (buf == NULL)
        abort();
    rc = shd_get(d, k.bytes, k.len, buf, len, &got);
    if (rc != SHD_OK && (must_be || rc != SHD_NOTFOUND))
        play_fail(p, "key %" PRIu64 " of a sound shard: %s: %s", n,
                  shd_strerror_name(rc), shd_last_error());
    if (rc == SHD_OK &&
        (got.type != SHD_STRING || got.len != len || memcmp(buf, v, len) != 0))
        play_fail(p, "key %" PRIu64 " of a sound shard has another value", n);
    free(v);
    free(buf);
    free(k.bytes);
}

void play_verify_control(struct play *p)
{
    for (uint64_t n = 0; n < CONTROL_KEYS; n++)
        verify(p, p->dict[PLAY_CONTROL], n, true);
}

void play_verify_shards(struct play *p, uint32_t but)
{
    shd_dict *d = p->dict[PLAY_SHARDED];

    for (uint64_t n = 0; n < KEYS; n++) {
        struct key k = make_key(n);
        uint32_t shard = dict_place(&d->dict, k.bytes, k.len).shard;

        free(k.bytes);
        /* Those that play_op never stores anew; they may be evicted. */
        if (shard != but && n % 4 == 1)
            verify(p, d, n, false);
    }
}

/* ---- operations --------------------------------------------------------- */

/* One that play_verify_shards does not want to see unchanged. */
static uint64_t some_key(struct play *p)
{
    uint64_t n = play_draw(p, KEYS + 32);

    return n % 4 == 1 ? n + 1 : n;
}

static size_t some_size(struct play *p)
{
    static const size_t SIZES[] = {0, 8, 64, 4096, 9000, BUFFER_MAX};

    return SIZES[play_draw(p, 6)];
}

static int64_t some_ttl(struct play *p)
{
    return play_draw(p, 3) == 0 ? 1 + (int64_t)play_draw(p, 5000) : 0;
}

static void check_string(struct play *p, int rc, const struct shd_value *v,
                         size_t size)
{
    if (rc == SHD_OK && v->type == SHD_STRING && v->len > size)
        play_fail(p, "%" PRIu64 " bytes in a buffer of %zu", v->len, size);
    if (rc == SHD_OK && v->type > SHD_BOOLEAN)
        play_fail(p, "a value of type %" PRIu32, v->type);
}

static void read_some(struct play *p, shd_dict *d)
{
    struct key k = make_key(play_draw(p, KEYS + 32));
    size_t size = some_size(p);
    unsigned char *buf = malloc(size + (size == 0));
    struct shd_value v;
    uint64_t n;
    int64_t ttl;
    int rc = SHD_OK;

    switch (play_draw(p, 5)) {
    case 0:
    case 1:
        p->doing = "get";
        rc = shd_get(d, k.bytes, k.len, buf, size, &v);
        check_string(p, rc, &v, size);
        break;
    case 2:
        p->doing = "get_stale";
        rc = shd_get_stale(d, k.bytes, k.len, buf, size, &v);
        check_string(p, rc, &v, size);
        break;
    case 3:
        p->doing = "ttl";
        rc = shd_ttl(d, k.bytes, k.len, &ttl);
        break;
    default:
        p->doing = "llen";
        rc = shd_llen(d, k.bytes, k.len, &n);
        break;
    }
    (void)answer(p, rc);
    free(buf);
    free(k.bytes);
}

/* From the start, or on from where the last one was. */
static void walk(struct play *p, shd_dict *d)
{
    unsigned char *key = malloc(65535), *after = malloc(65535);
    size_t size = some_size(p), len = 0, after_len = 0;
    unsigned char *buf = malloc(size + (size == 0));
    uint32_t flags = play_draw(p, 2) ? SHD_SCAN_EXPIRED : 0;
    struct shd_value v;

    p->doing = "scan";
    if (key == NULL || after == NULL || buf == NULL)
        abort();
    for (int i = 0; i < 400; i++) {
        int rc = answer(p, shd_scan(d, i == 0 ? NULL : after, after_len, flags,
                                    key, 65535, &len, buf, size, &v));

        if (rc != SHD_OK)
            break;
        if (len == 0 || len > 65535)
            play_fail(p, "a key of %zu bytes", len);
        memcpy(after, key, len);
        after_len = len;
    }
    free(buf);
    free(after);
    free(key);
}

static void list_keys(struct play *p, shd_dict *d)
{
    uint64_t max = play_draw(p, 3) == 0 ? 7 : 0;
    shd_keys *keys = NULL;
    uint64_t sum = 0;
    size_t len;

    p->doing = "keys";
    if (answer(p, shd_keys_get(d, max, &keys)) != SHD_OK)
        return;
    for (uint64_t i = 0; i < shd_keys_count(keys); i++) {
        const char *k = shd_keys_at(keys, i, &len);

        for (size_t b = 0; b < len; b++)
            sum += (unsigned char)k[b];
    }
    if (max != 0 && shd_keys_count(keys) > max)
        play_fail(p, "%" PRIu64 " keys", shd_keys_count(keys));
    shd_keys_free(keys);
    p->ops += sum & 0; /* the bytes were read */
}

static void read_many(struct play *p, shd_dict *d)
{
    struct key k[8];
    const void *keys[8];
    size_t lens[8], at[8], size = some_size(p);
    unsigned char *buf = malloc(size + (size == 0));
    struct shd_value v[8];
    int32_t codes[8];

    p->doing = "get_multi";
    for (int i = 0; i < 8; i++) {
        k[i] = make_key(play_draw(p, KEYS));
        keys[i] = k[i].bytes;
        lens[i] = k[i].len;
    }
    (void)answer(p, shd_get_multi(d, 8, keys, lens, buf, size, v, at, codes));
    for (int i = 0; i < 8; i++) {
        if (answer(p, codes[i]) == SHD_OK && v[i].type == SHD_STRING &&
            (at[i] > size || v[i].len > size - at[i]))
            play_fail(p, "%" PRIu64 " bytes at %zu of %zu", v[i].len, at[i],
                      size);
        free(k[i].bytes);
    }
    free(buf);
}

/* As an operator's picture is made: whatever is damaged, it has an end. */
static void look_at_pages(struct play *p, shd_dict *d)
{
    struct shd_page page[64];
    uint64_t first = 0;
    uint32_t n;

    p->doing = "dict_pages";
    while (answer(p, shd_dict_pages(d, first, page, 64, &n)) == SHD_OK &&
           n > 0) {
        for (uint32_t i = 0; i < n; i++)
            if (page[i].state > SHD_PAGE_DAMAGED ||
                page[i].cell_bytes > 4096 ||
                page[i].entries + page[i].elements + page[i].pieces >
                    page[i].cells)
                play_fail(p, "page %" PRIu64 " in state %u", first + i,
                          page[i].state);
        first += n;
        if (first > 1u << 24)
            play_fail(p, "%" PRIu64 " pages", first);
    }
}

static void look_at_layout(struct play *p, shd_segment *s, uint64_t size)
{
    struct shd_region r = {.struct_size = sizeof(r)};
    shd_layout *layout;
    uint64_t at = 0;
    int rc;

    p->doing = "layout";
    rc = answer(p, shd_layout_get(s, &layout));
    if (rc != SHD_OK && rc != SHD_CORRUPT)
        return;
    for (uint64_t i = 0; shd_layout_at(layout, i, &r) == SHD_OK; i++) {
        if (r.at != at || r.used_bytes > r.bytes || r.memory_bytes > r.bytes ||
            memchr(r.object, 0, sizeof(r.object)) == NULL)
            play_fail(p, "part %" PRIu64 " of the file", i);
        at += r.bytes;
    }
    if (at != size)
        play_fail(p, "parts of %" PRIu64 " bytes", at);
    shd_layout_free(layout);
}

static void look(struct play *p, shd_segment *s, shd_dict *d)
{
    struct shd_dict_info i = {.struct_size = sizeof(i)};
    struct shd_dict_account a = {.struct_size = sizeof(a)};
    struct shd_segment_info si = {.struct_size = sizeof(si)};
    struct shd_object_info oi = {.struct_size = sizeof(oi)};
    struct shd_worker_info wi = {.struct_size = sizeof(wi)};
    uint64_t bytes;
    char report[160];

    switch (play_draw(p, 8)) {
    case 0:
        p->doing = "dict_info";
        (void)answer(p, shd_dict_info(d, &i));
        look_at_pages(p, d);
        break;
    case 1:
        p->doing = "account";
        (void)answer(p, shd_dict_account(d, &a));
        break;
    case 2:
        p->doing = "segment_info";
        if (answer(p, shd_segment_info(s, &si)) == SHD_OK)
            look_at_layout(p, s, si.size_bytes);
        break;
    case 3:
        p->doing = "object_info";
        if (answer(p, shd_object_info(s, (uint32_t)play_draw(p, 9), &oi)) ==
                SHD_OK &&
            memchr(oi.name, 0, sizeof(oi.name)) == NULL)
            play_fail(p, "a name without an end");
        break;
    case 4:
        p->doing = "worker_info";
        if (answer(p, shd_worker_info(s, (uint32_t)play_draw(p, 17), &wi)) ==
                SHD_OK &&
            memchr(wi.name, 0, sizeof(wi.name)) == NULL)
            play_fail(p, "a name without an end");
        break;
    case 5:
        p->doing = "capacity";
        (void)answer(p, shd_capacity(d, &bytes));
        (void)answer(p, shd_free_space(d, &bytes));
        break;
    default:
        p->doing = "check";
        if (answer(p, shd_segment_check(s, report, sizeof(report))) ==
                SHD_CORRUPT &&
            memchr(report, 0, sizeof(report)) == NULL)
            play_fail(p, "a report without an end");
        break;
    }
}

static void look_at_segment(struct play *p)
{
    struct shd_segment_info i = {.struct_size = sizeof(i)};

    p->doing = "segment_info";
    (void)answer(p, shd_segment_info(p->readonly, &i));
}

static int lmove(struct play *p, shd_dict *d, const struct key *from,
                 unsigned char *buf, size_t size)
{
    struct key to = make_key(some_key(p));
    struct shd_value v;
    int rc = shd_lmove(d, (int)play_draw(p, 2), from->bytes, from->len,
                       (int)play_draw(p, 2), to.bytes, to.len, buf, size, &v);

    check_string(p, rc, &v, size);
    free(to.bytes);
    return rc;
}

static void change_key(struct play *p, shd_dict *d)
{
    uint64_t n = some_key(p);
    struct key k = make_key(n);
    size_t size = some_size(p), len = value_len(play_draw(p, 64));
    unsigned char *buf = malloc(size + (size == 0));
    unsigned char *value = make_value(n, len);
    struct shd_value v;
    uint64_t version = 0, length;
    uint32_t forced;
    double result;
    int rc;

    switch (play_draw(p, 15)) {
    case 0:
        p->doing = "delete";
        rc = shd_delete(d, k.bytes, k.len);
        break;
    case 1:
        p->doing = "incr";
        rc = shd_incr(d, k.bytes, k.len, 1, 1, 5, some_ttl(p), &result,
                      &forced);
        break;
    case 2:
        p->doing = "take";
        rc = shd_take(d, k.bytes, k.len, buf, size, &v);
        check_string(p, rc, &v, size);
        break;
    case 3:
        p->doing = "append";
        rc = shd_append(d, (int)play_draw(p, 2), k.bytes, k.len, value, len,
                        value, len, 0, &length, &forced);
        break;
    case 4:
        p->doing = "expire";
        rc = shd_expire(d, k.bytes, k.len, some_ttl(p));
        break;
    case 5:
        p->doing = "touch";
        rc = shd_touch(d, k.bytes, k.len, some_ttl(p));
        break;
    case 6:
        p->doing = "cas";
        rc = shd_cas(d, k.bytes, k.len, SHD_STRING, value, len, 0, SHD_STRING,
                     value, len, 0, some_ttl(p), 7, &forced);
        break;
    case 7:
        p->doing = "get_versioned";
        rc = shd_get_versioned(d, k.bytes, k.len, buf, size, &v, &version);
        check_string(p, rc, &v, size);
        if (rc == SHD_OK) {
            p->doing = "store_versioned";
            rc = shd_store_versioned(d, k.bytes, k.len, SHD_STRING, value, len,
                                     0, 0, 0, &version, &forced);
        }
        break;
    case 8:
    case 9:
        p->doing = "pop";
        rc = shd_pop(d, (int)play_draw(p, 2), k.bytes, k.len, buf, size, &v);
        check_string(p, rc, &v, size);
        break;
    case 10:
        p->doing = "ltake";
        rc = shd_ltake(d, (int)play_draw(p, 2), k.bytes, k.len, buf, size, &v,
                       &p->lease);
        check_string(p, rc, &v, size);
        break;
    case 11:
        p->doing = "end of a lease";
        rc = play_draw(p, 2) ? shd_lack(d, p->lease) : shd_lnack(d, p->lease);
        break;
    case 12:
        p->doing = "lmove";
        rc = lmove(p, d, &k, buf, size);
        break;
    default:
        p->doing = "push";
        rc = shd_push_expire(d, (int)play_draw(p, 2), k.bytes, k.len,
                             SHD_STRING, value, len, 0, some_ttl(p), &length);
        break;
    }
    (void)answer(p, rc);
    free(value);
    free(buf);
    free(k.bytes);
}

/* What is about a whole dict or the segment. */
static void change_much(struct play *p, shd_dict *d)
{
    struct shd_dict_options o = OPTIONS[PLAY_SMALL];
    struct shd_repair done = {.struct_size = sizeof(done)};
    shd_dict *other;
    char report[200] = "";
    uint64_t freed;
    uint32_t reaped;

    switch (play_draw(p, 8)) {
    case 0:
        p->doing = "flush_all";
        (void)answer(p, shd_flush_all(d));
        break;
    case 1:
    case 2:
        p->doing = "flush_expired";
        (void)answer(p, shd_flush_expired(d, play_draw(p, 20), &freed));
        break;
    case 3:
    case 4:
        p->doing = "resize";
        (void)answer(p, shd_dict_resize(d, (48 + play_draw(p, 220)) << 10));
        break;
    case 5:
        if (play_draw(p, 2) == 0) {
            p->doing = "reap";
            (void)answer(p, shd_reap(p->segment, &reaped));
            break;
        }
        p->doing = "repair";
        p->unrepaired =
            answer(p, shd_segment_repair(p->segment, &done, report,
                                         sizeof(report))) != SHD_OK;
        if (memchr(report, 0, sizeof(report)) == NULL)
            play_fail(p, "a report without an end");
        break;
    default:
        p->doing = "open and destroy";
        o.capacity_bytes = 8192 + (play_draw(p, 4) << 14);
        o.capacity_max_bytes = o.capacity_bytes;
        if (answer(p, shd_dict_open(p->segment, "other", &o, &other)) !=
            SHD_OK)
            break;
        (void)answer(p, store(other, SHD_SET, 1, SHD_STRING, 100, 0, 0));
        read_some(p, other);
        (void)answer(p, shd_dict_close(other));
        (void)answer(p, shd_dict_destroy(p->segment, "other"));
        break;
    }
}

static void read_op(struct play *p, shd_segment *s, shd_dict *d)
{
    uint64_t what = play_draw(p, 16);

    if (what < 10)
        read_some(p, d);
    else if (what < 12)
        read_many(p, d);
    else if (what < 13)
        walk(p, d);
    else if (what < 14)
        list_keys(p, d);
    else
        look(p, s, d);
}

void play_read(struct play *p)
{
    shd_dict *d = p->looked[play_draw(p, 3) == 0 ? PLAY_SHARDED : PLAY_SMALL];

    p->ops++;
    if (play_draw(p, 5) == 0)
        play_ipc_read(p);
    else if (d == NULL)
        look_at_segment(p);
    else
        read_op(p, p->readonly, d);
}

void play_op(struct play *p)
{
    uint64_t which = play_draw(p, 3) == 0 ? PLAY_SHARDED : PLAY_SMALL;
    uint64_t what = play_draw(p, 80);
    shd_dict *d = p->dict[which];

    p->ops++;
    if (what >= 64) {
        play_ipc_op(p);
    } else if (what < 8 && p->looked[which] != NULL) {
        read_op(p, p->readonly, p->looked[which]);
    } else if (d == NULL) {
        play_open(p);
    } else if (what < 28) {
        read_op(p, p->segment, d);
    } else if (what < 44) {
        uint64_t n = some_key(p);

        p->doing = "store";
        (void)answer(p, store(d, (uint32_t)play_draw(p, 8) % 7, n,
                              SHD_STRING + (uint32_t)play_draw(p, 3),
                              value_len(play_draw(p, 64)), some_ttl(p),
                              (int32_t)play_draw(p, 3)));
    } else if (what < 62) {
        change_key(p, d);
    } else {
        change_much(p, d);
    }
}
