/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/model/world.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/clock.h"
#include "shm/dict/account.h"

/* What value_max_bytes promises of that key. User flags may cost a word. */
bool fits(const struct world *w, uint32_t k, size_t len, int32_t flags)
{
    return len + (flags != 0 ? 8 : 0) <=
           dict_value_max(&w->dict->dict, w->keys[k].len);
}

/* May an operation that evicts nothing say that there is no room? Only in a
 * dict that is too small, and only if what is alive and the item need more
 * pages than there are: see shdict.h, WHAT FITS. */
static void check_nomem(struct world *w, uint32_t k, const struct item *item,
                        const struct item *list)
{
    const struct dict *d = &w->dict->dict;
    uint32_t shard = dict_place(d, w->keys[k].bytes, w->keys[k].len).shard;
    struct account_cells *live = calloc(d->shards, sizeof(*live));
    struct shd_dict_account a;
    uint64_t needed;

    w->nomem++;
    if (!w->config->evicts)
        fail(w, "no memory though there is room");
    if (live == NULL)
        fail(w, "no memory for the test");
    expect(w, account_take(d, &a, live), SHD_OK);
    account_add(&live[shard], item);
    if (list != NULL)
        account_add(&live[shard], list);
    needed = account_pages_needed(d, live);
    free(live);
    if (needed <= pages_count(&d->pages))
        fail(w, "no memory for %" PRIu64 " bytes, and %" PRIu64
             " pages would do of %" PRIu32, item->len, needed, pages_count(&d->pages));
}

static struct item item_of(const struct world *w, uint32_t k,
                           const struct naive_value *v, int32_t flags)
{
    return (struct item){.key = w->keys[k].bytes,
                         .key_len = w->keys[k].len,
                         .type = v->type,
                         .flags = flags,
                         .value = v->bytes,
                         .len = v->type == SHD_STRING ? v->len : 0,
                         .number = v->number};
}

void check_no_element(struct world *w, uint32_t k,
                      const struct naive_value *element)
{
    struct item item = item_of(w, k, element, 0);

    expect(w, item_shape_node(&w->dict->dict, &item), SHD_OK);
    check_nomem(w, k, &item, NULL);
}

/* After a change that gave `forcible`; `before` is the dict's info then. */
void check_forced(struct world *w, const struct shd_dict_info *before,
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
        struct item item = item_of(w, k, &v, flags);

        expect(w, item_shape(&w->dict->dict, &item), SHD_OK);
        check_nomem(w, k, &item, NULL);
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
    bool left = one_in(w, 2), expires = one_in(w, 4);
    int64_t ttl = random_ttl(w);
    int rc;

    do
        v = random_value(w);
    while (v.type == SHD_BOOLEAN);
    learn(w, k);
    refresh(w);
    before = w->info;
    if (expires)
        rc = shd_push_expire(w->dict, left, w->keys[k].bytes, w->keys[k].len,
                             v.type, v.type == SHD_STRING ? v.bytes : NULL,
                             v.len, v.number, ttl, &length);
    else
        rc = shd_push(w->dict, left, w->keys[k].bytes, w->keys[k].len, v.type,
                      v.type == SHD_STRING ? v.bytes : NULL, v.len, v.number,
                      &length);
    check_forced(w, &before, false, 0);
    if (rc == SHD_NOMEM) {
        struct item list = {.key = w->keys[k].bytes,
                            .key_len = w->keys[k].len,
                            .type = SHD_LIST};
        struct item element = item_of(w, k, &v, 0);

        expect(w, item_shape(&w->dict->dict, &list), SHD_OK);
        expect(w, item_shape_node(&w->dict->dict, &element), SHD_OK);
        expect(w, shd_llen(w->dict, list.key, list.key_len, &length), SHD_OK);
        check_nomem(w, k, &element, length == 0 ? &list : NULL);
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
    if (expires)
        expect(w, naive_expire(e, now(), ttl), SHD_OK);
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
    if (naive_is_live(e, now()) && e->type == SHD_LIST && e->list_len > 0)
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

/* Up to twice the capacity; down to three quarters of it, where entries may go
 * at all. */
static void op_resize(struct world *w)
{
    uint64_t usual = w->config->capacity, bytes;
    uint64_t least = w->config->evicts ? usual - usual / 4 : usual;
    struct shd_dict_info before;
    int rc;

    if (least < 8192)
        least = 8192;
    bytes = one_in(w, 4) ? usual : least + below(w, 2 * usual - least + 1);
    refresh(w);
    before = w->info;
    rc = shd_dict_resize(w->dict, bytes);
    refresh(w);
    if (rc == SHD_INVAL && bytes < usual &&
        w->info.capacity_bytes == before.capacity_bytes)
        return; /* too little for its index */
    expect(w, rc, SHD_OK);
    if (w->info.capacity_bytes != bytes || w->info.resizing != 0)
        fail(w, "%" PRIu64 " bytes, should be %" PRIu64 "%s",
             w->info.capacity_bytes, bytes,
             w->info.resizing ? ", and unfinished" : "");
    if (w->info.evictions != before.evictions &&
        (!w->config->evicts || bytes >= before.capacity_bytes))
        fail(w, "%" PRIu64 " evicted though there is room",
             w->info.evictions - before.evictions);
    if (w->info.index_bytes + w->info.pages * SEGMENT_PAGE >
        (bytes + SEGMENT_PAGE - 1) / SEGMENT_PAGE * SEGMENT_PAGE)
        fail(w, "%" PRIu64 " pages are more than %" PRIu64 " bytes",
             w->info.pages, bytes);
    w->fresh_free = w->info.pages * SEGMENT_PAGE;
    compare(w, (uint32_t)below(w, w->config->keys));
}

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
void audit(struct world *w)
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
    if (one_in(w, 3)) {
        lease_op(w, k);
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
    if (n < 50) {
        beyond_op(w, k);
    } else if (n < 76) {
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

void random_op(struct world *w)
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
        if (n < 20) {
            w->doing = "resize";
            op_resize(w);
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

/* ---- by number ----------------------------------------------------------- */

static void run_get(struct world *w, uint32_t k)
{
    learn(w, k);
    get(w, k, one_in(w, 2), some_buffer_size(w));
}

static void run_list(struct world *w, uint32_t k)
{
    const struct naive_entry *e = entry(w, k);

    if (e->list_len < w->config->list_max || e->type != SHD_LIST)
        op_push(w, k);
    else
        op_pop(w, k);
}

static void run_walk(struct world *w)
{
    bool expired = one_in(w, 2);

    if (!w->walking)
        op_walk(w, expired, one_in(w, 2));
}

static void run_beyond(struct world *w, uint32_t k)
{
    beyond_op(w, k);
}

const struct operation OPERATIONS[] = {
    {"store", op_store, NULL},
    {"get", run_get, NULL},
    {"delete", op_delete, NULL},
    {"incr", op_incr, NULL},
    {"expire", op_expire, NULL},
    {"push", run_list, NULL},
    {"pop", op_pop, NULL},
    {"compare", compare, NULL},
    {"beyond", run_beyond, NULL},
    {"advance", NULL, op_advance},
    {"flush_expired", NULL, op_flush_expired},
    {"flush_all", NULL, op_flush_all},
    {"resize", NULL, op_resize},
    {"walk", NULL, run_walk},
    {"keys", NULL, op_keys},
    {"wrong arguments", op_wrong, NULL},
};
const uint32_t OPERATION_COUNT = sizeof(OPERATIONS) / sizeof(OPERATIONS[0]);
