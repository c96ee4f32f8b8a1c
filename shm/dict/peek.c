/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/peek.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/dict/forest.h"

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
