/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/model/naive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Any time to live beyond it never ends: the year 10000 comes before. */
#define FOREVER_MS (1ll << 60)

static uint64_t deadline(uint64_t now_ms, int64_t ttl_ms)
{
    if (ttl_ms == 0 || ttl_ms >= FOREVER_MS)
        return 0;
    return now_ms + (uint64_t)ttl_ms;
}

bool naive_is_live(const struct naive_entry *e, uint64_t now_ms)
{
    return e->stored && (e->deadline_ms == 0 || now_ms < e->deadline_ms);
}

int64_t naive_ttl_ms(const struct naive_entry *e, uint64_t now_ms)
{
    if (e->deadline_ms == 0)
        return 0;
    if (e->deadline_ms == now_ms)
        return -1;
    return (int64_t)(e->deadline_ms - now_ms);
}

void naive_clear(struct naive_entry *e)
{
    e->stored = false;
    e->list_len = 0;
    e->leased = 0;
    e->version = 0;
}

static void put(struct naive_entry *e, uint32_t type,
                const struct naive_value *v, uint64_t deadline_ms,
                int32_t flags)
{
    static uint64_t ids;

    naive_clear(e);
    e->stored = true;
    e->list_id = ++ids;
    e->type = type;
    e->value = *v;
    e->flags = flags;
    e->deadline_ms = deadline_ms;
    e->flushed = false;
}

int naive_store(struct naive_entry *e, uint64_t now_ms, uint32_t op,
                const struct naive_value *v, int64_t ttl_ms, int32_t flags)
{
    bool live = naive_is_live(e, now_ms);

    if ((op & 3) == SHD_ADD && live)
        return SHD_EXISTS;
    if ((op & 3) == SHD_REPLACE && !live)
        return SHD_NOTFOUND;
    put(e, v->type, v, deadline(now_ms, ttl_ms), flags);
    return SHD_OK;
}

int naive_delete(struct naive_entry *e, uint64_t now_ms)
{
    bool live = naive_is_live(e, now_ms);

    naive_clear(e);
    return live ? SHD_OK : SHD_NOTFOUND;
}

int naive_incr(struct naive_entry *e, uint64_t now_ms, double by,
               bool has_init, double init, int64_t ttl_ms, double *result)
{
    struct naive_value v = {.type = SHD_NUMBER};

    if (naive_is_live(e, now_ms)) {
        if (e->type != SHD_NUMBER)
            return SHD_NOTNUMBER;
        e->value.number += by;
        e->version = 0;
        *result = e->value.number;
        return SHD_OK;
    }
    if (!has_init)
        return SHD_NOTFOUND;
    v.number = init + by;
    put(e, SHD_NUMBER, &v, deadline(now_ms, ttl_ms), 0);
    *result = v.number;
    return SHD_OK;
}

int naive_expire(struct naive_entry *e, uint64_t now_ms, int64_t ttl_ms)
{
    if (!e->stored)
        return SHD_NOTFOUND;
    e->deadline_ms = deadline(now_ms, ttl_ms);
    e->flushed = false;
    e->version = 0;
    return SHD_OK;
}

static bool same(const struct naive_value *a, const struct naive_value *b)
{
    if (a->type != b->type)
        return false;
    if (a->type == SHD_STRING)
        return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
    return a->number == b->number ||
           (a->number != a->number && b->number != b->number);
}

int naive_cas(struct naive_entry *e, uint64_t now_ms,
              const struct naive_value *old, const struct naive_value *v,
              int64_t ttl_ms, int32_t flags)
{
    bool live = naive_is_live(e, now_ms);

    if (old == NULL && live)
        return SHD_EXISTS;
    if (old != NULL && !live)
        return SHD_NOTFOUND;
    if (old != NULL && (e->type == SHD_LIST || !same(&e->value, old)))
        return SHD_CHANGED;
    if (v != NULL)
        put(e, v->type, v, deadline(now_ms, ttl_ms), flags);
    else if (live)
        naive_clear(e);
    return SHD_OK;
}

int naive_store_versioned(struct naive_entry *e, uint64_t now_ms,
                          uint64_t version, const struct naive_value *v,
                          int64_t ttl_ms, int32_t flags)
{
    bool live = naive_is_live(e, now_ms);

    if (version == 0 && live)
        return SHD_EXISTS;
    if (version != 0 && !live)
        return SHD_NOTFOUND;
    if (version != 0 && version != e->version)
        return SHD_CHANGED;
    if (v != NULL)
        put(e, v->type, v, deadline(now_ms, ttl_ms), flags);
    else if (live)
        naive_clear(e);
    return SHD_OK;
}

int naive_touch(struct naive_entry *e, uint64_t now_ms, bool expires,
                int64_t ttl_ms)
{
    if (!naive_is_live(e, now_ms))
        return SHD_NOTFOUND;
    return expires ? naive_expire(e, now_ms, ttl_ms) : SHD_OK;
}

int naive_is_string(const struct naive_entry *e, uint64_t now_ms)
{
    if (!naive_is_live(e, now_ms))
        return SHD_NOTFOUND;
    return e->type == SHD_STRING ? SHD_OK : SHD_NOTSTRING;
}

void naive_flush(struct naive_entry *e, uint64_t now_ms)
{
    if (!e->stored)
        return;
    if (naive_is_live(e, now_ms))
        e->deadline_ms = now_ms;
    e->flushed = true;
}

static void insert(struct naive_entry *e, bool left,
                   const struct naive_value *v)
{
    if (e->list_len == e->list_room) {
        e->list_room = e->list_room * 2 + 8;
        e->list = realloc(e->list, e->list_room * sizeof(*e->list));
        if (e->list == NULL) {
            perror("realloc");
            abort();
        }
    }
    if (left) {
        memmove(e->list + 1, e->list, e->list_len * sizeof(*e->list));
        e->list[0] = *v;
    } else {
        e->list[e->list_len] = *v;
    }
    e->list_len++;
}

int naive_push(struct naive_entry *e, uint64_t now_ms, bool left,
               const struct naive_value *v, uint64_t *length)
{
    if (!naive_is_live(e, now_ms))
        put(e, SHD_LIST, &(struct naive_value){.type = SHD_LIST}, 0, 0);
    if (e->type != SHD_LIST)
        return SHD_NOTLIST;
    insert(e, left, v);
    *length = e->list_len;
    return SHD_OK;
}

int naive_pop(struct naive_entry *e, uint64_t now_ms, bool left,
              struct naive_value *v)
{
    if (!naive_is_live(e, now_ms))
        return SHD_NOTFOUND;
    if (e->type != SHD_LIST)
        return SHD_NOTLIST;
    if (e->list_len == 0)
        return SHD_NOTFOUND;
    e->list_len--;
    if (left) {
        *v = e->list[0];
        memmove(e->list, e->list + 1, e->list_len * sizeof(*e->list));
    } else {
        *v = e->list[e->list_len];
    }
    if (e->list_len + e->leased == 0)
        naive_clear(e);
    return SHD_OK;
}

int naive_take(struct naive_entry *e, uint64_t now_ms, bool left,
               struct naive_value *v, uint64_t *id)
{
    int rc;

    e->leased++;
    rc = naive_pop(e, now_ms, left, v);
    if (rc != SHD_OK)
        e->leased--;
    *id = e->list_id;
    return rc;
}

int naive_done(struct naive_entry *e, uint64_t id)
{
    if (!e->stored || e->list_id != id)
        return SHD_LOST;
    e->leased--;
    if (e->list_len + e->leased == 0)
        naive_clear(e);
    return SHD_OK;
}

int naive_back(struct naive_entry *e, uint64_t id, bool left,
               const struct naive_value *v)
{
    if (!e->stored || e->list_id != id)
        return SHD_LOST;
    e->leased--;
    insert(e, left, v);
    return SHD_OK;
}

int naive_llen(const struct naive_entry *e, uint64_t now_ms, uint64_t *length)
{
    *length = 0;
    if (!naive_is_live(e, now_ms))
        return SHD_OK;
    if (e->type != SHD_LIST)
        return SHD_NOTLIST;
    *length = e->list_len;
    return SHD_OK;
}
