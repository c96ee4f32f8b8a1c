/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The operations that ngx.shared.DICT lacks.
 *
 * None of them may make room at the cost of the value it works on: a live
 * entry is there afterwards, whatever was evicted. That a version is never
 * given out twice is held by its being greater than all that were.
 */
#include "tests/model/world.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANY 40u
/* What a shard may keep in partly used pages that cannot be gathered, since
 * one of their entries is to be kept. */
#define SLACK_PAGES 8u

static uint32_t type_of(const struct naive_value *v)
{
    return v == NULL ? SHD_NIL : v->type;
}

static const void *bytes_of(const struct naive_value *v)
{
    return v != NULL && v->type == SHD_STRING ? v->bytes : NULL;
}

static size_t len_of(const struct naive_value *v)
{
    return v != NULL && v->type == SHD_STRING ? v->len : 0;
}

/* It was live, and time has not moved: it is there. */
static void check_kept(struct world *w, uint32_t k)
{
    int64_t ttl;
    int rc = shd_ttl(w->dict, w->keys[k].bytes, w->keys[k].len, &ttl);

    if (naive_is_live(entry(w, k), now()) && rc != SHD_OK)
        fail(w, "what it worked on is gone: %s", name_of(rc));
}

/* Is there no room for both, with all else evicted? */
static void check_no_room(struct world *w, uint32_t k, size_t old, size_t new)
{
    uint64_t need = old + new + 2 * w->keys[k].len + 256;

    w->nomem++;
    if (!w->config->evicts)
        fail(w, "no memory though there is room");
    need += need / 64 + SLACK_PAGES * SEGMENT_PAGE;
    if (need < w->info.pages * SEGMENT_PAGE)
        fail(w, "no memory for %zu bytes beside %zu in %" PRIu64 " pages", new,
             old, w->info.pages);
    check_kept(w, k);
}

/* Did a change fail for want of room, as it may? Then nothing has changed. */
static bool refused(struct world *w, uint32_t k, int rc, size_t old,
                    const struct naive_value *v, int32_t flags)
{
    /* A version or flags may cost a word more. */
    if (rc == SHD_TOOBIG && !fits(w, k, len_of(v) + 8, flags)) {
        w->toobig++;
    } else if (rc == SHD_NOMEM) {
        check_no_room(w, k, old, len_of(v));
    } else {
        return false;
    }
    compare(w, k);
    return true;
}

static void stored(struct world *w, struct naive_entry *e, bool was_stored,
                   uint32_t forcible)
{
    if (was_stored && forcible != 0)
        w->may_replace_own++;
    refresh(w);
    saw(w, e);
    e->stored_at = ++w->stores;
    e->changed_since = false;
}

static size_t stored_len(const struct naive_entry *e)
{
    return e->stored && e->type == SHD_STRING ? e->value.len : 0;
}

static void op_cas(struct world *w, uint32_t k)
{
    struct naive_entry *e = entry(w, k);
    struct naive_value fresh = random_value(w), other = random_value(w);
    const struct naive_value *v = one_in(w, 8) ? NULL : &fresh;
    const struct naive_value *old = one_in(w, 6) ? NULL : &other;
    struct shd_dict_info before;
    uint32_t forcible = 77;
    int64_t ttl = random_ttl(w);
    int32_t flags = random_flags(w);
    bool was_stored;
    size_t old_len;
    int rc;

    learn(w, k);
    if (old != NULL && e->stored && e->type != SHD_LIST && !one_in(w, 4))
        other = e->value;
    if (old != NULL && len_of(old) > 0 && one_in(w, 6))
        other.len--;
    was_stored = e->stored;
    old_len = stored_len(e);
    refresh(w);
    before = w->info;
    rc = shd_cas(w->dict, w->keys[k].bytes, w->keys[k].len, type_of(old),
                 bytes_of(old), len_of(old), old == NULL ? 0 : old->number,
                 type_of(v), bytes_of(v), len_of(v), v == NULL ? 0 : v->number,
                 ttl, flags, &forcible);
    if (forcible > 1)
        fail(w, "forcible was not written");
    check_forced(w, &before, v != NULL, forcible);
    if (refused(w, k, rc, old_len, v, flags))
        return;
    expect(w, rc, naive_cas(e, now(), old, v, ttl, flags));
    if (rc == SHD_OK && v != NULL)
        stored(w, e, was_stored, forcible);
    if (one_in(w, 4)) {
        compare(w, k);
        get(w, k, true, w->buffer_size - 1);
    }
}

/* It has this version: is that the one it had, or a new one? */
static void check_version(struct world *w, struct naive_entry *e, uint64_t got)
{
    if (got == 0 || (e->version != 0 && got != e->version))
        fail(w, "version %" PRIu64 ", should be %" PRIu64, got, e->version);
    if (e->version == 0 && got <= e->newest)
        fail(w, "version %" PRIu64 " for the second time, after %" PRIu64, got,
             e->newest);
    e->version = e->newest = got;
}

static void op_get_versioned(struct world *w, uint32_t k)
{
    struct naive_entry *e = entry(w, k);
    size_t size = some_buffer_size(w);
    struct shd_dict_info before;
    struct shd_value v;
    uint64_t version = 0;
    int rc, wanted = SHD_OK;

    learn(w, k);
    refresh(w);
    before = w->info;
    if (!naive_is_live(e, now()))
        wanted = SHD_NOTFOUND;
    else if (e->type == SHD_LIST)
        wanted = SHD_ISLIST;
    else if (e->type == SHD_STRING && e->value.len > size)
        wanted = SHD_SPACE;
    canary_set(w, size);
    rc = shd_get_versioned(w->dict, w->keys[k].bytes, w->keys[k].len,
                           w->buffer, size, &v, &version);
    canary_check(w, size);
    refresh(w);
    if (w->info.evictions > before.evictions &&
        (!w->config->evicts || e->version != 0 || wanted != SHD_OK))
        fail(w, "reading a version has evicted something");
    check_kept(w, k);
    if (wanted == SHD_OK && e->version == 0 &&
        refused(w, k, rc, stored_len(e), &e->value, e->flags))
        return;
    expect(w, rc, wanted);
    if (rc == SHD_SPACE && v.len != e->value.len)
        fail(w, "needs %zu bytes, and says %" PRIu64, e->value.len, v.len);
    if (rc != SHD_OK)
        return;
    check_value(w, &e->value, &v, w->buffer);
    check_ttl(w, e, v.ttl_ms);
    if (v.flags != e->flags)
        fail(w, "flags %" PRId32 ", should be %" PRId32, v.flags, e->flags);
    check_version(w, e, version);
    e->changed_since = true;
    saw(w, e);
}

static void op_store_versioned(struct world *w, uint32_t k)
{
    struct naive_entry *e = entry(w, k);
    struct naive_value fresh = random_value(w);
    const struct naive_value *v = one_in(w, 8) ? NULL : &fresh;
    struct shd_dict_info before;
    uint32_t forcible = 77;
    uint64_t version, asked;
    int64_t ttl = random_ttl(w);
    int32_t flags = random_flags(w);
    bool was_stored;
    size_t old_len;
    int rc;

    learn(w, k);
    was_stored = e->stored;
    old_len = stored_len(e);
    version = e->version != 0 && !one_in(w, 6) ? e->version
              : one_in(w, 2)                   ? e->newest
              : one_in(w, 2)                   ? 0
                                               : 1 + below(w, 1000);
    if (version > e->newest)
        version = e->newest;
    asked = version;
    refresh(w);
    before = w->info;
    rc = shd_store_versioned(
        w->dict, w->keys[k].bytes, w->keys[k].len, type_of(v), bytes_of(v),
        len_of(v), v == NULL ? 0 : v->number, ttl, flags, &version, &forcible);
    if (forcible > 1)
        fail(w, "forcible was not written");
    check_forced(w, &before, v != NULL, forcible);
    if (rc != SHD_OK && version != asked)
        fail(w, "it failed, and the version was written");
    if (refused(w, k, rc, old_len, v, flags))
        return;
    expect(w, rc, naive_store_versioned(e, now(), asked, v, ttl, flags));
    if (rc != SHD_OK)
        return;
    if (v == NULL) {
        if (version != 0)
            fail(w, "version %" PRIu64 " of nothing", version);
        return;
    }
    stored(w, e, was_stored, forcible);
    check_version(w, e, version);
}

static void op_take(struct world *w, uint32_t k)
{
    struct naive_entry *e = entry(w, k);
    size_t size = some_buffer_size(w);
    struct shd_value v;
    int rc, wanted = SHD_OK;

    learn(w, k);
    if (!naive_is_live(e, now()))
        wanted = SHD_NOTFOUND;
    else if (e->type == SHD_LIST)
        wanted = SHD_ISLIST;
    else if (e->type == SHD_STRING && e->value.len > size)
        wanted = SHD_SPACE;
    canary_set(w, size);
    rc = shd_take(w->dict, w->keys[k].bytes, w->keys[k].len, w->buffer, size,
                  &v);
    canary_check(w, size);
    expect(w, rc, wanted);
    if (rc == SHD_SPACE && v.len != e->value.len)
        fail(w, "needs %zu bytes, and says %" PRIu64, e->value.len, v.len);
    if (rc != SHD_OK) {
        compare(w, k);
        return;
    }
    check_value(w, &e->value, &v, w->buffer);
    check_ttl(w, e, v.ttl_ms);
    if (v.flags != e->flags)
        fail(w, "flags %" PRId32 ", should be %" PRId32, v.flags, e->flags);
    expect(w, naive_delete(e, now()), SHD_OK);
    learn(w, k);
}

static void op_touch(struct world *w, uint32_t k)
{
    bool expires = one_in(w, 2);
    int64_t ttl = random_ttl(w);

    learn(w, k);
    expect(w,
           shd_touch(w->dict, w->keys[k].bytes, w->keys[k].len,
                     expires ? ttl : SHD_KEEP_TTL),
           naive_touch(entry(w, k), now(), expires, ttl));
    entry(w, k)->changed_since = true;
    learn(w, k);
}

/* What is added lies beside the value in the pool: so the two joined are a
 * slice of it as well. */
static size_t beside(struct world *w, const struct naive_value *v, bool left)
{
    size_t at = (size_t)(v->bytes - w->pool);
    size_t most = left ? at : POOL_BYTES + w->value_max - at - v->len;
    size_t len;

    switch (below(w, 4)) {
    case 0:
        len = below(w, 10);
        break;
    case 1:
        len = below(w, 300);
        break;
    case 2:
        len = below(w, 5000);
        break;
    default:
        len = below(w, v->len + 1);
        break;
    }
    if (w->config->mix->large == 0 && v->len + len > 4000)
        len = below(w, 5);
    return len < most ? len : most;
}

static void op_append(struct world *w, uint32_t k)
{
    struct naive_entry *e = entry(w, k);
    struct naive_value v, init = {.type = SHD_STRING};
    struct shd_dict_info before;
    const unsigned char *add;
    uint32_t forcible = 77;
    uint64_t length = 4711;
    bool left = one_in(w, 4), has_init = one_in(w, 2), was_stored;
    int64_t ttl = random_ttl(w);
    size_t len, old_len;
    int rc, wanted;

    learn(w, k);
    init.len = below(w, 40);
    init.bytes = w->pool + POOL_BYTES / 2 + below(w, 1000);
    wanted = naive_is_string(e, now());
    v = wanted == SHD_OK ? e->value : init;
    len = beside(w, &v, left);
    add = left ? v.bytes - len : v.bytes + v.len;
    was_stored = e->stored;
    old_len = stored_len(e);
    if (wanted == SHD_NOTFOUND && was_stored && w->config->evicts)
        w->may_replace_own++; /* the expired entry may be removed first */
    refresh(w);
    before = w->info;
    rc = shd_append(w->dict, left, w->keys[k].bytes, w->keys[k].len, add, len,
                    has_init ? init.bytes : NULL, init.len, ttl, &length,
                    &forcible);
    if (forcible > 1)
        fail(w, "forcible was not written");
    check_forced(w, &before, wanted != SHD_NOTSTRING, forcible);
    v.bytes = left ? add : v.bytes;
    v.len += len;
    if (wanted == SHD_OK || has_init) {
        if (rc == SHD_OK && !fits(w, k, v.len, 0))
            fail(w, "%zu bytes, over value_max_bytes", v.len);
        if (refused(w, k, rc, old_len, &v, e->flags))
            return;
    }
    if (wanted == SHD_NOTFOUND && has_init) {
        wanted = naive_store(e, now(), SHD_ADD, &v, ttl, 0);
    } else if (wanted == SHD_OK) {
        e->value = v;
        e->version = 0;
    }
    expect(w, rc, wanted);
    if (rc != SHD_OK)
        return;
    if (length != v.len)
        fail(w, "length %" PRIu64 ", should be %zu", length, v.len);
    stored(w, e, was_stored, forcible);
    if (one_in(w, 2))
        get(w, k, false, w->buffer_size - 1);
}

struct many {
    uint32_t n, key[MANY];
    const void *keys[MANY], *bytes[MANY];
    size_t lens[MANY], at[MANY];
    struct shd_value values[MANY];
    int32_t codes[MANY];
};

static void op_get_multi(struct world *w)
{
    static struct many m;
    size_t size = some_buffer_size(w);
    int worst = SHD_OK, rc;
    size_t used = 0;

    m.n = (uint32_t)below(w, MANY + 1);
    for (uint32_t i = 0; i < m.n; i++) {
        m.key[i] = w->key = random_key(w, false);
        learn(w, m.key[i]);
        m.keys[i] = w->keys[m.key[i]].bytes;
        m.lens[i] = w->keys[m.key[i]].len;
    }
    canary_set(w, size);
    rc = shd_get_multi(w->dict, m.n, m.keys, m.lens, w->buffer, size, m.values,
                       m.at, m.codes);
    canary_check(w, size);
    for (uint32_t i = 0; i < m.n; i++) {
        struct naive_entry *e = entry(w, m.key[i]);
        int wanted = SHD_OK;

        w->key = m.key[i];
        if (!naive_is_live(e, now()))
            wanted = SHD_NOTFOUND;
        else if (e->type == SHD_LIST)
            wanted = SHD_ISLIST;
        else if (e->type == SHD_STRING && e->value.len > size - used)
            wanted = SHD_SPACE;
        expect(w, m.codes[i], wanted);
        if (wanted == SHD_SPACE && worst == SHD_OK)
            worst = SHD_SPACE;
        if (wanted != SHD_OK)
            continue;
        check_value(w, &e->value, &m.values[i], w->buffer + m.at[i]);
        check_ttl(w, e, m.values[i].ttl_ms);
        if (m.values[i].flags != e->flags)
            fail(w, "flags %" PRId32 ", should be %" PRId32, m.values[i].flags,
                 e->flags);
        used += e->type == SHD_STRING ? e->value.len : 0;
    }
    expect(w, rc, worst);
}

/* Different keys, or what went could not be told from what was replaced. */
static void choose_keys(struct world *w, struct many *m)
{
    uint32_t wanted = 1 + (uint32_t)below(w, MANY);

    m->n = 0;
    for (uint32_t i = 0; i < wanted; i++) {
        uint32_t k = random_key(w, false), j = 0;

        while (j < m->n && m->key[j] != k)
            j++;
        if (j == m->n)
            m->key[m->n++] = k;
    }
}

static void op_set_multi(struct world *w)
{
    static struct many m;
    static struct naive_value v[MANY];
    struct shd_dict_info before;
    uint32_t forcible = 77, op = one_in(w, 3) ? SHD_SET | SHD_SAFE : SHD_SET;
    uint64_t dead = 0; /* expired ones that it deletes */
    int worst = SHD_OK, rc;

    choose_keys(w, &m);
    for (uint32_t i = 0; i < m.n; i++) {
        w->key = m.key[i];
        w->keys[m.key[i]].disturbed = true;
        learn(w, m.key[i]);
        v[i] = random_value(w);
        m.keys[i] = w->keys[m.key[i]].bytes;
        m.lens[i] = w->keys[m.key[i]].len;
        m.bytes[i] = bytes_of(&v[i]);
        m.values[i].type = v[i].type;
        m.values[i].len = v[i].len;
        m.values[i].number = v[i].number;
        m.values[i].ttl_ms = random_ttl(w);
        m.values[i].flags = random_flags(w);
        if (one_in(w, 10)) {
            struct naive_entry *e = entry(w, m.key[i]);

            m.values[i].type = SHD_NIL;
            dead += e->stored && !naive_is_live(e, now());
        }
    }
    refresh(w);
    before = w->info;
    rc = shd_set_multi(w->dict, op, m.n, m.keys, m.lens, m.values, m.bytes,
                       m.codes, &forcible);
    if (forcible > 1)
        fail(w, "forcible was not written");
    if (!w->config->evicts)
        before.expirations += dead;
    check_forced(w, &before, (op & SHD_SAFE) == 0, forcible);
    for (uint32_t i = 0; i < m.n; i++) {
        struct naive_entry *e = entry(w, m.key[i]);
        bool safe = (op & SHD_SAFE) != 0, was_stored = e->stored;

        w->key = m.key[i];
        if (m.codes[i] != SHD_OK && worst == SHD_OK)
            worst = m.codes[i];
        /* Room may have been made of it for one before it. */
        if (was_stored && (w->info.evictions > before.evictions ||
                           w->info.expirations > before.expirations))
            w->may_replace_own++;
        if (m.values[i].type == SHD_NIL) {
            expect(w, m.codes[i], SHD_OK);
            (void)naive_delete(e, now());
            continue;
        }
        if (m.codes[i] == SHD_TOOBIG && v[i].type == SHD_STRING &&
            !fits(w, m.key[i], v[i].len, m.values[i].flags)) {
            w->toobig++;
            continue;
        }
        if (m.codes[i] == SHD_NOMEM && safe && w->config->evicts) {
            w->nomem++;
            continue;
        }
        expect(w, m.codes[i],
               naive_store(e, now(), op, &v[i], m.values[i].ttl_ms,
                           m.values[i].flags));
        e->stored_at = ++w->stores;
        e->changed_since = false;
        /* One after it may have removed it again. */
        e->evictions = before.evictions;
        e->expirations = before.expirations;
    }
    expect(w, rc, worst);
}

void beyond_op(struct world *w, uint32_t k)
{
    switch (below(w, 64)) {
    case 0:
        w->doing = "get_multi";
        op_get_multi(w);
        return;
    case 1:
        w->doing = "set_multi";
        op_set_multi(w);
        return;
    default:
        break;
    }
    switch (below(w, 8)) {
    case 0:
    case 1:
        w->doing = "cas";
        op_cas(w, k);
        break;
    case 2:
        w->doing = "get_versioned";
        op_get_versioned(w, k);
        break;
    case 3:
        w->doing = "store_versioned";
        op_store_versioned(w, k);
        break;
    case 4:
        w->doing = "take";
        op_take(w, k);
        break;
    case 5:
        w->doing = "touch";
        op_touch(w, k);
        break;
    default:
        w->doing = "append";
        op_append(w, k);
        break;
    }
}
