/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading and deleting at once; using and expiring at once. */
#include "shm/dict/attempt.h"
#include "shm/dict/store.h"
#include "shm/base/error.h"

#define TOUCH_WORDS (SLAB_EXPIRY_WORDS + 2 * LIST_WORDS + 4u)

static_assert(TOUCH_WORDS <= GUARD_UNDO_MAX, "log");

struct take_call {
    const void *key;
    size_t len;
    void *buf;
    size_t size;
    struct shd_value *v;
};

static int take_body(struct attempt *a, void *context)
{
    const struct take_call *c = context;
    int rc = attempt_look_up(a, c->key, c->len);
    struct txn t;

    if (rc != SHD_OK)
        return rc;
    if (!a->live)
        return SHD_NOTFOUND;
    if ((atomic_load32(&a->entry->cell.meta) & CELL_TYPE_MASK) == SHD_LIST)
        return SHD_ISLIST;
    rc = entry_value(a->d, &a->entry->cell, c->buf, c->size, false, c->v);
    if (rc == SHD_CORRUPT)
        return dict_damaged(a->d, "a value contradicts itself");
    if (rc != SHD_OK)
        return rc;
    attempt_begin(a, &t, ROOM_REMOVE_WORDS);
    return attempt_end(&t, room_remove(a->d, a->at.shard, &t, &a->at, &a->path,
                                       ROOM_DELETED));
}

int store_take(const struct dict *d, const void *key, size_t len, void *buf,
               size_t size, struct shd_value *v)
{
    struct attempt a;
    struct take_call c = {key, len, buf, size, v};

    attempt_start(&a, d, key, len, true, NULL);
    return attempt_run(&a, take_body, &c);
}

static int touch_body(struct attempt *a, void *context)
{
    const struct item *item = context;
    int rc = attempt_look_up(a, item->key, item->key_len);
    struct txn t;

    if (rc != SHD_OK)
        return rc;
    if (!a->live)
        return SHD_NOTFOUND;
    attempt_begin(a, &t, TOUCH_WORDS);
    if (item->expires != STORE_KEEP) {
        txn_store64(&t, &a->entry->key_expires,
                    item->expires | (uint64_t)item->key_len << 48);
        rc = entry_version_renew(a->d, &t, a->entry);
        if (rc == SHD_OK)
            rc = slab_expiry_lower(&a->d->pages, &a->shard->slab, &t,
                                   cell_page(&a->d->pages, a->old),
                                   item->expires);
    }
    if (rc == SHD_OK)
        rc = room_touch(a->d, a->at.shard, &t, a->old);
    return attempt_end(&t, rc);
}

int store_touch(const struct dict *d, const void *key, size_t len,
                uint64_t expires)
{
    struct attempt a;
    struct item item = {.key = key, .key_len = len, .expires = expires};

    attempt_start(&a, d, key, len, true, NULL);
    return attempt_run(&a, touch_body, &item);
}
