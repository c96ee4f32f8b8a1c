/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * operations: a row of operations on a dict, and on tests/model's naive map
 * beside it. The first byte chooses the dict; then each operation is a byte,
 * and the bytes that its arguments are drawn from. Beyond what tests/model
 * does, operations can be of another worker, and be cut off: before a store of
 * the worker's, which is dead then. What it worked on is as before or as after
 * then, whether somebody reaps or just comes by.
 */
#include "fuzz/workers.h"
#include "tests/model/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB 1024ull
#define OPS_MAX 300u

static const struct mix SMALL = {"small", 30, 10, 60, 0, 0, 0};
static const struct mix MEDIUM = {"0..2000", 10, 5, 25, 60, 0, 0};
static const struct mix LARGEST = {"..value_max", 5, 5, 30, 20, 30, 10};

static const struct config CONFIGS[] = {
    {"8K", 8 * KIB, 0, 0, 24, KEY_MIXED, &SMALL, 15, 6, 0, true},
    {"64K-roomy", 64 * KIB, 0, 0, 30, KEY_MIXED, &SMALL, 20, 12, 0, false},
    {"64K-full", 64 * KIB, 0, 0, 80, KEY_PLAIN, &MEDIUM, 20, 20, 0, true},
    {"64K-largest", 64 * KIB, 0, 0, 40, KEY_BYTE, &LARGEST, 5, 20, 0, true},
    {"64K-tall", 64 * KIB, 0, 1, 60, KEY_PLAIN, &SMALL, 5, 20, 0, false},
    {"128K-4-shards", 128 * KIB, 4, 0, 90, KEY_MIXED, &MEDIUM, 15, 40, 0,
     true},
    {"512K-long", 512 * KIB, 1, 0, 24, KEY_LONG, &LARGEST, 10, 12, 0, true},
    {"512K-split", 512 * KIB, 1, 0, 40, KEY_MIXED, &MEDIUM, 10, 20, 0, false},
};
#define FIRST_CONFIGS 6u /* that have the lower bytes for themselves */
#define BYTES_OF_FIRST 208u
#define CONFIG_COUNT (sizeof(CONFIGS) / sizeof(CONFIGS[0]))

static struct world *worlds[CONFIG_COUNT];
static bool tracing; /* SHDICT_FUZZ_TRACE: says what it does */

static struct world *build(const struct config *c)
{
    struct world *w = calloc(1, sizeof(*w));

    if (w == NULL)
        abort();
    w->config = c;
    w->seed = w->random = 4711;
    workers_build();
    begin(w, 160 * KIB, 8);
    /* Eviction works on a dict that is full. */
    for (uint32_t k = 0; c->evicts && k < c->keys / 2; k++) {
        struct naive_value v = random_value(w);
        uint32_t forced;

        if (v.type == SHD_STRING &&
            shd_store(w->dict, SHD_SET | SHD_SAFE, w->keys[k].bytes,
                      w->keys[k].len, v.type, v.bytes, v.len, 0, 0, 0,
                      &forced) == SHD_OK)
            (void)naive_store(&w->entries[k], now(), SHD_SET, &v, 0, 0);
    }
    refresh(w);
    workers_keep(w->segment);
    return w;
}

/* ---- from input to input --------------------------------------------------- */

static struct naive_entry *entries_kept[CONFIG_COUNT];
static struct world *worlds_kept[CONFIG_COUNT];

/* The map as it was when the segment was kept; its lists are empty. */
static void map_keep(uint32_t c)
{
    const struct world *w = worlds[c];

    worlds_kept[c] = malloc(sizeof(*w));
    entries_kept[c] = calloc(w->config->keys, sizeof(*w->entries));
    if (worlds_kept[c] == NULL || entries_kept[c] == NULL)
        abort();
    *worlds_kept[c] = *w;
    memcpy(entries_kept[c], w->entries, w->config->keys * sizeof(*w->entries));
}

static void map_put_back(uint32_t c)
{
    struct world *w = worlds[c];

    *w = *worlds_kept[c];
    for (uint32_t k = 0; k < w->config->keys; k++) {
        struct naive_entry *e = &w->entries[k];
        struct naive_value *list = e->list;
        size_t room = e->list_room;

        *e = entries_kept[c][k];
        e->list = list;
        e->list_room = room;
        w->keys[k].seen = w->keys[k].disturbed = false;
    }
}

/* ---- an operation that is cut off ------------------------------------------ */

enum change_kind {
    SET, DELETE, INCR, EXPIRE, PUSH, POP, TOUCH, TAKE, APPEND, CAS, VERSION,
    FLUSH_ALL, FLUSH_EXPIRED, RESIZE, MANY, REAP, CHANGES
};

struct change {
    enum change_kind kind;
    uint32_t key, op;
    struct naive_value v;
    double by;
    int64_t ttl;
    int32_t flags;
    bool left;
    uint64_t bytes;
};

static struct change draw_change(struct world *w)
{
    struct change c = {.kind = (enum change_kind)below(w, CHANGES)};

    c.key = (uint32_t)below(w, w->config->keys);
    c.v = random_value(w);
    c.op = (uint32_t)below(w, 6);
    c.op += c.op / 3;
    c.by = (double)below(w, 100);
    c.ttl = random_ttl(w);
    c.flags = random_flags(w);
    c.left = one_in(w, 2);
    c.bytes = w->config->capacity + below(w, w->config->capacity);
    if (c.kind == PUSH && c.v.type == SHD_BOOLEAN)
        c.v.type = SHD_NUMBER;
    if (c.kind == APPEND && c.v.type != SHD_STRING)
        c.v = (struct naive_value){SHD_STRING, w->pool, 7, 0};
    return c;
}

static int store_many(struct world *w, const struct change *c)
{
    const void *keys[3], *bytes[3];
    size_t lens[3];
    struct shd_value values[3] = {{0}};
    int32_t codes[3];
    uint32_t forced;

    for (uint32_t i = 0; i < 3; i++) {
        uint32_t k = (c->key + i) % w->config->keys;

        keys[i] = w->keys[k].bytes;
        lens[i] = w->keys[k].len;
        values[i].type = c->v.type;
        values[i].len = c->v.len;
        values[i].number = c->v.number;
        values[i].flags = c->flags;
        bytes[i] = c->v.bytes;
    }
    return shd_set_multi(w->dict, SHD_SET, 3, keys, lens, values, bytes, codes,
                         &forced);
}

static int change(struct world *w, const struct change *c)
{
    const unsigned char *key = w->keys[c->key].bytes;
    size_t len = w->keys[c->key].len;
    const struct naive_value *v = &c->v;
    uint64_t n;
    uint32_t forced;
    struct shd_value got;
    double sum;

    switch (c->kind) {
    case SET:
        return shd_store(w->dict, c->op, key, len, v->type, v->bytes, v->len,
                         v->number, c->ttl, c->flags, &forced);
    case DELETE: return shd_delete(w->dict, key, len);
    case INCR:
        return shd_incr(w->dict, key, len, c->by, 1, 1, c->ttl, &sum, &forced);
    case EXPIRE: return shd_expire(w->dict, key, len, c->ttl);
    case PUSH:
        return shd_push(w->dict, c->left, key, len, v->type, v->bytes, v->len,
                        v->number, &n);
    case POP:
        return shd_pop(w->dict, c->left, key, len, w->buffer, w->buffer_size,
                       &got);
    case TOUCH: return shd_touch(w->dict, key, len, c->ttl);
    case TAKE:
        return shd_take(w->dict, key, len, w->buffer, w->buffer_size, &got);
    case APPEND:
        return shd_append(w->dict, 0, key, len, w->pool + 50, 33, v->bytes,
                          v->len, c->ttl, &n, &forced);
    case CAS:
        return shd_cas(w->dict, key, len, SHD_NIL, NULL, 0, 0, v->type,
                       v->bytes, v->len, v->number, c->ttl, c->flags, &forced);
    case VERSION:
        return shd_get_versioned(w->dict, key, len, w->buffer, w->buffer_size,
                                 &got, &n);
    case FLUSH_ALL: return shd_flush_all(w->dict);
    case FLUSH_EXPIRED: return shd_flush_expired(w->dict, c->by > 50 ? 3 : 0, &n);
    case RESIZE: return shd_dict_resize(w->dict, c->bytes);
    case MANY: return store_many(w, c);
    default: return shd_reap(w->segment, NULL);
    }
}

/* What it makes of one entry. */
static int change_naive(const struct change *c, struct naive_entry *e,
                        struct naive_value *joined)
{
    struct naive_value v = {0};
    double sum;
    uint64_t n;

    switch (c->kind) {
    case SET: return naive_store(e, now(), c->op, &c->v, c->ttl, c->flags);
    case MANY: return naive_store(e, now(), SHD_SET, &c->v, 0, c->flags);
    case DELETE: return naive_delete(e, now());
    case INCR: return naive_incr(e, now(), c->by, true, 1, c->ttl, &sum);
    case EXPIRE: return naive_expire(e, now(), c->ttl);
    case PUSH: return naive_push(e, now(), c->left, &c->v, &n);
    case POP: return naive_pop(e, now(), c->left, &v);
    case TOUCH: return naive_touch(e, now(), true, c->ttl);
    case TAKE:
        if (!naive_is_live(e, now()))
            return SHD_NOTFOUND;
        return e->type == SHD_LIST ? SHD_ISLIST : naive_delete(e, now());
    case APPEND: {
        int rc = naive_is_string(e, now());

        if (rc == SHD_NOTSTRING)
            return rc;
        *joined = rc == SHD_OK ? e->value : c->v;
        joined->len += 33; /* the tail of which is not looked at */
        if (rc == SHD_OK) {
            e->value = *joined;
            e->version = 0;
            return rc;
        }
        return naive_store(e, now(), SHD_SET, joined, c->ttl, 0);
    }
    case CAS:
        return naive_cas(e, now(), NULL, &c->v, c->ttl, c->flags);
    case FLUSH_ALL:
        naive_flush(e, now());
        return SHD_OK;
    default:
        return SHD_OK;
    }
}

static bool same_list(struct world *w, uint32_t k, const struct naive_entry *e)
{
    for (size_t i = 0; i < e->list_len; i++) {
        struct shd_value v;
        uint64_t length;
        uint32_t n;
        size_t at;
        int rc = shd_list_read(w->dict, w->keys[k].bytes, w->keys[k].len,
                               SHD_SCAN_EXPIRED, i, 1, w->buffer,
                               w->buffer_size, &v, &at, &n, &length);

        if (rc != SHD_OK || length != e->list_len || v.type != e->list[i].type)
            return false;
        if (v.type == SHD_STRING
                ? v.len != e->list[i].len ||
                      memcmp(w->buffer + at, e->list[i].bytes, v.len) != 0
                : memcmp(&v.number, &e->list[i].number, 8) != 0)
            return false;
    }
    return true;
}

/* Is key k as e says? Of a string only `known` bytes are compared. */
static bool is_as(struct world *w, uint32_t k, const struct naive_entry *e,
                  size_t known)
{
    const struct key *key = &w->keys[k];
    struct shd_value v;
    int64_t ttl;
    int rc = shd_get_stale(w->dict, key->bytes, key->len, w->buffer,
                           w->buffer_size, &v);

    if (rc != SHD_OK && rc != SHD_NOTFOUND && rc != SHD_ISLIST)
        fail(w, "after a death: %s: %s", name_of(rc), shd_last_error());
    if (!e->stored || rc == SHD_NOTFOUND)
        return !e->stored && rc == SHD_NOTFOUND;
    if ((e->type == SHD_LIST) != (rc == SHD_ISLIST))
        return false;
    if (shd_ttl(w->dict, key->bytes, key->len, &ttl) != SHD_OK ||
        (e->flushed ? ttl >= 0 : ttl != naive_ttl_ms(e, now())))
        return false;
    if (rc == SHD_ISLIST)
        return same_list(w, k, e);
    if (v.type != e->type || v.flags != e->flags)
        return false;
    if (v.type != SHD_STRING)
        return memcmp(&v.number, &e->value.number, 8) == 0;
    return v.len == e->value.len &&
           memcmp(w->buffer, e->value.bytes, v.len < known ? v.len : known) ==
               0;
}

static struct naive_entry copy_of(const struct naive_entry *e)
{
    struct naive_entry copy = *e;

    copy.list_room = e->list_len + 1;
    copy.list = malloc(copy.list_room * sizeof(*copy.list));
    if (copy.list == NULL)
        abort();
    if (e->list_len > 0)
        memcpy(copy.list, e->list, e->list_len * sizeof(*copy.list));
    return copy;
}

/* Does it change that key? */
static bool concerns(const struct world *w, const struct change *c, uint32_t k)
{
    uint32_t n = w->config->keys;

    if (c->kind == FLUSH_ALL || c->kind == FLUSH_EXPIRED)
        return true;
    if (c->kind == RESIZE || c->kind == REAP)
        return false;
    return c->kind == MANY ? (k + n - c->key) % n < 3 : k == c->key;
}

/* The worker has died in it, or it has returned SHD_OK: key k is as it was or
 * as it was to be. Brings the map up to it. */
static void settle(struct world *w, const struct change *c, uint32_t k,
                   bool died)
{
    struct naive_entry *e = entry(w, k), after = copy_of(e);
    struct naive_value joined = {0};
    bool live = naive_is_live(e, now());
    size_t known = SIZE_MAX;
    struct naive_value *list;
    size_t room;

    w->key = k;
    (void)change_naive(c, &after, &joined);
    if (c->kind == APPEND && joined.len > 0)
        known = joined.len - 33;
    if (is_as(w, k, &after, known)) {
        list = e->list, room = e->list_room;
        *e = after;
        after.list = list, after.list_room = room;
        e->version = 0;
        e->changed_since = true;
        if (known != SIZE_MAX) { /* what was added is not in one piece */
            int rc = shd_delete(w->dict, w->keys[k].bytes, w->keys[k].len);

            expect(w, rc, naive_delete(e, now()));
        }
    } else if (is_as(w, k, e, SIZE_MAX)) {
        /* Of several, one may have had to go for another. */
        bool replaced = c->kind == MANY && w->config->evicts && !e->stored;

        if (!died && c->kind != FLUSH_EXPIRED && !replaced)
            fail(w, "it has returned, and is not done");
    } else if ((c->kind == FLUSH_EXPIRED && !live) ||
               (w->config->evicts && is_as(w, k, &(struct naive_entry){0},
                                           0))) {
        naive_clear(e); /* learn() has looked whether it was counted */
    } else {
        fail(w, "half done, or another value");
    }
    e->version = 0;
    if (e->stored) {
        refresh(w);
        saw(w, e);
    }
    free(after.list);
}

static void op_cut_off(struct world *w)
{
    struct change c = draw_change(w);
    uint64_t stop = 1 + below(w, one_in(w, 4) ? 2000 : 120);
    struct shd_dict_info before;
    volatile bool died = true;
    volatile int rc = SHD_OK;

    w->key = c.key;
    if (tracing)
        fprintf(stderr, "    %d of %" PRIu32 " by %" PRIu32 ", up to store "
                        "%" PRIu64 "\n", c.kind, c.key, workers_current(),
                stop);
    for (uint32_t k = 0; k < w->config->keys; k++)
        learn(w, k);
    refresh(w);
    before = w->info;
    if (workers_try(stop)) {
        rc = change(w, &c);
        workers_done();
        died = false;
    }
    if (rc == SHD_CORRUPT || rc == SHD_BUSY || rc == SHD_SYS)
        fail(w, "gave %s: %s", name_of(rc), shd_last_error());
    if (one_in(w, 3))
        expect(w, shd_reap(w->segment, NULL), SHD_OK);
    refresh(w);
    /* Whom it removed before it got so far cannot be told from whom it was
     * about to replace. */
    w->may_replace_own += w->info.evictions - before.evictions;
    for (uint32_t k = 0; k < w->config->keys; k++) {
        w->key = k;
        /* To delete what has expired finds nothing, and removes it. */
        if ((died || rc == SHD_OK ||
             (c.kind == DELETE && rc == SHD_NOTFOUND)) &&
            concerns(w, &c, k))
            settle(w, &c, k, died);
        else
            learn(w, k);
    }
    if (c.kind == RESIZE) {
        rc = shd_dict_resize(w->dict, c.bytes);
        expect(w, rc, SHD_OK);
        refresh(w);
        w->fresh_free = w->info.pages * SEGMENT_PAGE;
    }
}

/* ---- workers --------------------------------------------------------------- */

static void op_worker(struct world *w)
{
    uint64_t incarnation;
    uint32_t reaped;

    switch (below(w, 6)) {
    case 0:
    case 1:
        workers_become((uint32_t)below(w, WORKERS));
        break;
    case 2:
        workers_kill((uint32_t)below(w, WORKERS));
        break;
    case 3:
        expect(w, shd_reap(w->segment, &reaped), SHD_OK);
        break;
    case 4:
        if (workers_incarnation(workers_current()) != 0)
            expect(w, shd_worker_leave(w->segment), SHD_OK);
        break;
    default:
        expect(w, shd_worker_join(w->segment, &incarnation), SHD_OK);
        break;
    }
}

/* ---- an input -------------------------------------------------------------- */

static void operate(struct world *w)
{
    uint32_t n = (uint32_t)below(w, OPERATION_COUNT + 8);

    w->op++;
    w->key = (uint32_t)below(w, w->config->keys);
    if (tracing)
        fprintf(stderr, "%" PRIu64 ": %" PRIu32 " %s\n", w->op, n,
                n < OPERATION_COUNT ? OPERATIONS[n].name : "");
    if (n < OPERATION_COUNT) {
        const struct operation *o = &OPERATIONS[n];

        w->doing = o->name;
        if (o->of_key != NULL)
            o->of_key(w, w->key);
        else
            o->of_all(w);
    } else if (n < OPERATION_COUNT + 4) {
        w->doing = "cut off";
        op_cut_off(w);
    } else if (n == OPERATION_COUNT + 4) {
        w->doing = "worker";
        op_worker(w);
    } else if (n == OPERATION_COUNT + 5) {
        w->doing = "check";
        check_segment(w);
    } else {
        random_op(w);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t c;
    struct world *w;

    if (size < 2)
        return 0;
    c = data[0] < BYTES_OF_FIRST
            ? data[0] % FIRST_CONFIGS
            : FIRST_CONFIGS + data[0] % (CONFIG_COUNT - FIRST_CONFIGS);
    if (worlds[c] == NULL) {
        worlds[c] = build(&CONFIGS[c]);
        map_keep(c);
        tracing = getenv("SHDICT_FUZZ_TRACE") != NULL;
    }
    w = worlds[c];
    map_put_back(c);
    workers_begin(w->segment);
    w->data = data + 1;
    w->left = size - 1;
    while (w->left > 0 && w->op < OPS_MAX)
        operate(w);
    w->left = 0;
    w->doing = "end";
    end(w);
    workers_end();
    return 0;
}
