/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/peek.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/dict/forest.h"
#include "shm/dict/lease.h"

#include <string.h>

/* In a read section: the entry of a key, expired or not. */
static int find(const struct dict *d, const struct place *at, const void *key,
                size_t len, uint32_t *ref, struct entry **e)
{
    int rc = dict_enter(d, at->shard) ? forest_find(d, at, key, len, ref)
                                      : SHD_GONE;

    if (rc != 1)
        return rc == 0 ? SHD_NOTFOUND : rc;
    *e = entry_at(&d->pages, *ref);
    return *e == NULL ? SHD_CORRUPT : SHD_OK;
}

static int answer(const struct dict *d, int rc)
{
    if (rc == SHD_CORRUPT)
        return dict_damaged(d, "an entry contradicts itself; see `shdict "
                               "check`");
    return rc == SHD_GONE ? dict_gone_error(d) : rc;
}

/* ---- an entry --------------------------------------------------------- */

/* Seconds since the page was last written to, by the 16 bits it keeps. */
static uint32_t page_age(const struct dict *d, uint32_t ref)
{
    uint32_t page = cell_page(&d->pages, ref);
    uint64_t stamp, now = clock_coarse_ms() / 1000;

    if (page == PAGE_NONE)
        return 0;
    stamp = atomic_load64(&d->pages.table[page].expiry) >> 48;
    return (uint32_t)(now - stamp) & 0xffff;
}

static int look(const struct dict *d, const struct place *at, const void *key,
                size_t len, struct shd_entry_info *info)
{
    struct shd_value v;
    struct entry *e;
    uint32_t ref;
    int rc = find(d, at, key, len, &ref, &e);

    if (rc == SHD_OK)
        rc = entry_describe(d, &e->cell, &v);
    if (rc != SHD_OK)
        return rc;
    info->type = v.type;
    info->flags = v.flags;
    info->len = v.len;
    info->number = v.number;
    info->ttl_ms = v.ttl_ms;
    info->version = entry_version(d, e);
    info->used = dict_is_marked(d, ref);
    info->age_min_s = page_age(d, ref);
    info->shard = at->shard;
    return SHD_OK;
}

int peek_entry(const struct dict *d, const void *key, size_t len,
               struct shd_entry_info *info)
{
    struct place at = dict_place(d, key, len);
    struct reading r;
    int rc;

    reading_begin(&r, d->env, dict_guard(d, at.shard));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        rc = look(d, &at, key, len, info);
    } while (!reading_done(&r));
    return answer(d, rc);
}

/* ---- a list ----------------------------------------------------------- */

struct range {
    uint64_t from, length;
    uint32_t max, count;
    bool expired;
    unsigned char *buf;
    size_t size;
    struct shd_value *values;
    size_t *at;
};

/* The node number `from`, from whichever end is nearer. */
static int seek(const struct dict *d, const struct entry_list *l,
                const struct range *x, uint32_t *ref)
{
    bool back = x->from > x->length / 2;
    uint64_t steps = back ? x->length - 1 - x->from : x->from;
    uint64_t limit = (uint64_t)d->pages.max * (PAGE_BYTES / SLAB_CELL_MIN);

    if (x->length > limit)
        return SHD_CORRUPT;
    *ref = atomic_load32(back ? &l->last : &l->first);
    for (; steps > 0; steps--) {
        const struct cell *c = cell_at(&d->pages, *ref, SLAB_CELL_MIN);

        if (c == NULL)
            return SHD_CORRUPT;
        *ref = atomic_load32(&c->word[back ? CHAIN_BACK : CHAIN_NEXT]);
    }
    return SHD_OK;
}

static int copy(const struct dict *d, struct range *x, uint32_t ref)
{
    size_t used = 0;

    while (x->count < x->max && x->from + x->count < x->length) {
        const struct cell *c = cell_at(&d->pages, ref, SLAB_CELL_MIN);
        struct shd_value *v = &x->values[x->count];
        int rc = c == NULL ? SHD_CORRUPT
                           : entry_value(d, c, x->buf + used, x->size - used,
                                         0, v);

        if (rc == SHD_SPACE && x->count > 0)
            return SHD_OK;
        if (rc != SHD_OK)
            return rc;
        if (v->type != SHD_STRING && v->type != SHD_NUMBER)
            return SHD_CORRUPT;
        x->at[x->count++] = used;
        used += v->type == SHD_STRING ? (size_t)v->len : 0;
        /* The copy is by words, and aligned. */
        used = (used + 7) & ~(size_t)7;
        used = used < x->size ? used : x->size;
        ref = atomic_load32(&c->word[CHAIN_NEXT]);
    }
    return SHD_OK;
}

static int look_list(const struct dict *d, const struct place *at,
                     const void *key, size_t len, struct range *x)
{
    const struct entry_list *l;
    struct shd_value v;
    struct entry *e;
    uint32_t ref;
    int rc = find(d, at, key, len, &ref, &e);

    x->count = 0;
    x->length = 0;
    if (rc == SHD_OK)
        rc = entry_describe(d, &e->cell, &v);
    if (rc != SHD_OK)
        return rc;
    if (!x->expired && entry_is_expired(e))
        return SHD_NOTFOUND;
    if (v.type != SHD_LIST)
        return SHD_NOTLIST;
    l = entry_list(&d->pages, &e->cell);
    if (l == NULL)
        return SHD_CORRUPT;
    x->length = v.len;
    if (x->from >= x->length || x->max == 0)
        return SHD_OK;
    rc = seek(d, l, x, &ref);
    return rc == SHD_OK ? copy(d, x, ref) : rc;
}

int peek_list(const struct dict *d, const void *key, size_t len,
              bool expired, uint64_t from, uint32_t max, void *buf,
              size_t size, struct shd_value *values, size_t *at,
              uint32_t *count, uint64_t *length)
{
    struct place place = dict_place(d, key, len);
    struct range x = {.from = from,
                      .max = max,
                      .expired = expired,
                      .buf = buf,
                      .size = size,
                      .values = values,
                      .at = at};
    struct reading r;
    int rc;

    reading_begin(&r, d->env, dict_guard(d, place.shard));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        rc = look_list(d, &place, key, len, &x);
    } while (!reading_done(&r));
    *count = x.count;
    *length = x.length;
    return answer(d, rc);
}

/* ---- a lease ---------------------------------------------------------- */

/* In a read section: the key of the entry at ref. */
static int lease_key(const struct dict *d, uint32_t ref, void *key,
                     size_t size, size_t *len)
{
    const struct entry *e = entry_at(&d->pages, ref);

    if (e == NULL)
        return SHD_CORRUPT;
    *len = entry_key_len(atomic_load64(&e->key_expires));
    return *len > size ? SHD_SPACE : entry_key(d, e, (uint32_t)*len, key);
}

/* In a read section. */
static int look_lease(const struct dict *d, uint32_t shard,
                      const struct lease *l, struct shd_lease_info *info,
                      void *key, size_t size, size_t *len)
{
    const struct cell *node =
        cell_at(&d->pages, atomic_load32(&l->cell.word[LEASE_LINK]),
                SLAB_CELL_MIN);
    struct shd_value v = {.type = 0};
    uint32_t entry = 0;
    int rc = lease_entry(d, shard, l, &entry);

    *len = 0;
    if (rc == 1)
        rc = lease_key(d, entry, key, size, len);
    else if (rc == 0)
        node = NULL;
    if (rc == SHD_OK && node != NULL)
        rc = entry_describe(d, node, &v);
    if (rc != SHD_OK)
        return rc;
    info->shard = shard;
    info->holder = atomic_load64(&l->holder);
    info->lease = atomic_load64(&l->number);
    info->moving = lease_stage(l) != LEASE_PLAIN ||
                   lease_shard(info->lease) != shard;
    info->type = v.type;
    info->len = v.type == SHD_STRING ? v.len : 0;
    return SHD_OK;
}

/* The first in the shard after (holder, number). SHD_NOTFOUND. */
static int peek_in_shard(const struct dict *d, uint32_t shard,
                         uint64_t holder, uint64_t number,
                         struct shd_lease_info *info, void *key, size_t size,
                         size_t *len)
{
    const struct lease *l;
    struct reading r;
    int rc;

    reading_begin(&r, d->env, dict_guard(d, shard));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        rc = dict_enter(d, shard) ? lease_after(d, shard, holder, number, &l)
                                  : SHD_GONE;
        if (rc >= 0)
            rc = rc == 0 ? SHD_NOTFOUND
                         : look_lease(d, shard, l, info, key, size, len);
    } while (!reading_done(&r));
    return answer(d, rc);
}

int peek_lease(const struct dict *d, struct shd_lease_info *info, void *key,
               size_t size, size_t *len)
{
    uint64_t holder = info->holder, number = info->lease;
    int rc = SHD_NOTFOUND;

    for (uint32_t i = info->shard; rc == SHD_NOTFOUND && i < d->shards; i++) {
        if (!dict_enter(d, i))
            return dict_gone_error(d);
        /* Most have none; then who sits on the lock matters to nobody. */
        if (atomic_load32(&d->shard[i].n_leases) != 0)
            rc = peek_in_shard(d, i, holder, number, info, key, size, len);
        holder = number = 0;
    }
    return rc;
}
