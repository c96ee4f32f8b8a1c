/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/read.h"
#include "shm/base/error.h"
#include "shm/dict/forest.h"

/* What every get runs through is inlined into both read_value and read_at. */
#define INLINED static inline __attribute__((always_inline))

/* One look: torn until the caller has validated it. */
INLINED int look(const struct dict *d, const struct place *at, const void *key,
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
    if ((how & READ_VERSION) != 0)
        ((struct read_versioned *)(void *)v)->version = entry_version(d, e);
    return entry_value(d, &e->cell, buf, size, false, v);
}

/* Under the lock, or the dict could be destroyed and its memory be another's
 * between the look and this store. A mark is a hint: if the lock is taken just
 * now it can wait for the next hit. */
static __attribute__((noinline)) void mark(const struct dict *d,
                                           const struct place *at)
{
    struct guard *g = dict_guard(d, at->shard);

    if (guard_trylock(d->env, g) != SHD_OK)
        return;
    if (!dict_gone(d, at->shard))
        atomic_store8(&d->marks[at->root], 1);
    guard_unlock(g);
}

INLINED int result(const struct dict *d, const struct place *at, uint32_t how,
                   bool live, int rc)
{
    if (rc == SHD_CORRUPT)
        return error_set(SHD_CORRUPT,
                         "dict '%s': an entry contradicts "
                         "itself; see `shdict check`",
                         d->name);
    if (live && (how & READ_NO_MARK) == 0 && d->env->segment->writable &&
        atomic_load8(&d->marks[at->root]) == 0)
        mark(d, at);
    return rc;
}

INLINED int read_placed(const struct dict *d, const struct place *at,
                        const void *key, size_t len, void *buf, size_t size,
                        uint32_t how, struct shd_value *v)
{
    struct reading r;
    bool live = false;
    int rc;

    reading_begin(&r, d->env, dict_guard(d, at->shard));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        pages_follow(&d->pages);
        rc = dict_gone(d, at->shard)
                 ? SHD_GONE
                 : look(d, at, key, len, buf, size, how, v, &live);
    } while (!reading_done(&r));
    return rc == SHD_GONE ? dict_gone_error(d) : result(d, at, how, live, rc);
}

int read_value(const struct dict *d, const void *key, size_t len, void *buf,
               size_t size, uint32_t how, struct shd_value *v)
{
    struct place at = dict_place(d, key, len);

    return read_placed(d, &at, key, len, buf, size, how, v);
}

int read_at(const struct dict *d, const struct place *at, const void *key,
            size_t len, void *buf, size_t size, uint32_t how,
            struct shd_value *v)
{
    return read_placed(d, at, key, len, buf, size, how, v);
}
