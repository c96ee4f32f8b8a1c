/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/read.h"
#include "shm/base/error.h"
#include "shm/dict/forest.h"

/* One look: torn until the caller has validated it. */
static int look(const struct dict *d, const struct place *at, const void *key,
                size_t len, void *buf, size_t size, uint32_t how,
                struct shd_value *v, bool *live)
{
    const struct entry *e;
    uint32_t ref;
    int rc = forest_find(d, at, key, len, &ref);

    *live = false;
    if (rc != 1)
        return rc == 0 ? SHD_NOTFOUND : rc;
    e = entry_at(&d->pages, ref);
    if (e == NULL)
        return SHD_CORRUPT;
    *live = !entry_is_expired(e);
    if (!*live && (how & READ_STALE) == 0)
        return SHD_NOTFOUND;
    if ((how & READ_DESCRIBE) != 0)
        return entry_describe(d, &e->cell, v);
    return entry_value(d, &e->cell, buf, size, false, v);
}

static int result(const struct dict *d, const struct place *at, uint32_t how,
                  bool live, int rc)
{
    if (rc == SHD_CORRUPT)
        return error_set(SHD_CORRUPT, "dict '%s': an entry contradicts "
                                      "itself; see `shdict check`",
                         d->name);
    if (live && (how & READ_NO_MARK) == 0 && d->env->segment->writable &&
        atomic_load8(&d->marks[at->root]) == 0)
        atomic_store8(&d->marks[at->root], 1);
    return rc;
}

/* The lock is also the way past a dead writer's odd counter. */
static int look_locked(const struct dict *d, const struct place *at,
                       const void *key, size_t len, void *buf, size_t size,
                       uint32_t how, struct shd_value *v)
{
    bool live;
    int rc = dict_lock(d, at->shard);

    if (rc != SHD_OK)
        return rc;
    rc = look(d, at, key, len, buf, size, how, v, &live);
    dict_unlock(d, at->shard);
    return result(d, at, how, live, rc);
}

int read_value(const struct dict *d, const void *key, size_t len, void *buf,
               size_t size, uint32_t how, struct shd_value *v)
{
    struct place at = dict_place(d, key, len);
    const struct guard *g = dict_guard(d, at.shard);
    uint32_t tries = 0;

    for (;;) {
        uint64_t seq;

        if (read_begin(g, &seq)) {
            bool gone = atomic_load64(&g->object) != d->generation;
            bool live;
            int rc = gone ? SHD_GONE
                          : look(d, &at, key, len, buf, size, how, v, &live);

            if (read_valid(g, seq)) {
                if (gone)
                    return error_set(SHD_GONE, "dict '%s' has been destroyed",
                                     d->name);
                return result(d, &at, how, live, rc);
            }
        }
        if (d->env->segment->writable && tries == READ_TRIES)
            return look_locked(d, &at, key, len, buf, size, how, v);
        if (!read_pause(&tries, d->env->wait_ms))
            return error_set(SHD_BUSY, "dict '%s': a change never ended: its "
                                       "worker is dead or stopped",
                             d->name);
    }
}
