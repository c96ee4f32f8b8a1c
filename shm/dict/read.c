/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/read.h"
#include "shm/base/error.h"
#include "shm/dict/counters.h"
#include "shm/dict/forest.h"
#include "shm/dict/place.h"
#include "shm/dict/quick.h"

/* What every get runs through is inlined into both read_value and read_at. */
#define INLINED static inline __attribute__((always_inline))

/* The entry of a key, if it is to be seen. Torn until the caller has validated
 * it. */
INLINED int find(const struct dict *d, const struct place *at, const void *key,
                 size_t len, uint32_t how, bool *live, uint32_t *ref,
                 const struct entry **e)
{
    int rc = forest_find(d, at, key, len, ref);

    *live = false;
    if (rc != 1)
        return rc == 0 ? SHD_NOTFOUND : rc;
    *e = entry_at(&d->pages, *ref);
    if (*e == NULL)
        return SHD_CORRUPT;
    *live = !entry_is_expired(*e);
    return *live || (how & READ_STALE) != 0 ? SHD_OK : SHD_NOTFOUND;
}

/* 1: the value is a long one, which is for read_long_value. */
INLINED int look(const struct dict *d, const struct place *at, const void *key,
                 size_t len, void *buf, size_t size, uint32_t how,
                 struct shd_value *v, bool *live, uint32_t *ref)
{
    const struct entry *e;
    int rc = find(d, at, key, len, how, live, ref, &e);

    if (rc != SHD_OK)
        return rc;
    if ((how & READ_DESCRIBE) != 0)
        return entry_describe(d, &e->cell, v);
    if ((how & READ_VERSION) != 0)
        ((struct read_versioned *)(void *)v)->version = entry_version(d, e);
    return entry_value(d, &e->cell, buf, size, ENTRY_SHORT, v);
}

/* Under the lock, or the dict could be destroyed and its memory be another's
 * between the look and this store. A mark is a hint: if the lock is taken just
 * now it can wait for the next hit. */
static __attribute__((noinline)) void
mark(const struct dict *d, uint32_t shard, uint32_t ref)
{
    struct guard *g = dict_guard(d, shard);

    if (guard_trylock(d->env, g) != SHD_OK)
        return;
    if (dict_enter(d, shard))
        dict_set_mark(d, ref, true);
    guard_unlock(g);
}

static int failed(const struct dict *d, int rc)
{
    if (rc == SHD_CORRUPT)
        return error_set(SHD_CORRUPT,
                         "dict '%s': an entry contradicts "
                         "itself; see `shdict check`",
                         d->name);
    return rc == SHD_GONE ? dict_gone_error(d) : rc;
}

int read_long(const struct dict *d, uint32_t shard, struct chain_cursor *c,
              void *buf, uint64_t len)
{
    unsigned char *to = buf;
    int copied = SHD_OK;

    while (len > 0 && copied == SHD_OK) {
        struct reading r;
        bool valid = false;
        int rc;

        copied = chain_slice_copy(&d->pages, c, &to, &len);
        reading_begin(&r, d->env, dict_guard(d, shard));
        do {
            rc = reading_try(&r);
            if (rc != SHD_OK)
                return rc;
            rc = dict_enter(d, shard) ? SHD_OK : SHD_GONE;
            if (rc == SHD_OK)
                valid = chain_slice_valid(
                    &d->pages, dict_owner(shard),
                    atomic_load64(&d->shard[shard].chains), c);
        } while (!reading_done(&r));
        if (rc != SHD_OK)
            return failed(d, rc);
        if (!valid)
            return 0;
    }
    return copied == SHD_OK ? 1 : failed(d, copied);
}

/* One validated look at a value that was long. 1: it is, and the cursor stands
 * at its beginning. */
static int look_long(const struct dict *d, const struct place *at,
                     const void *key, size_t len, void *buf, size_t size,
                     uint32_t how, struct shd_value *v, bool *live,
                     uint32_t *ref, struct chain_cursor *cursor)
{
    struct reading r;
    int rc;

    reading_begin(&r, d->env, dict_guard(d, at->shard));
    do {
        const struct entry *e;

        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        rc = dict_enter(d, at->shard)
                 ? find(d, at, key, len, how, live, ref, &e)
                 : SHD_GONE;
        if (rc == SHD_OK && (how & READ_VERSION) != 0)
            ((struct read_versioned *)(void *)v)->version =
                entry_version(d, e);
        if (rc == SHD_OK && cursor != NULL)
            rc = entry_long_value(d, at->shard, &e->cell, size, cursor, v);
        if (rc == SHD_OK)
            rc = entry_value(d, &e->cell, buf, size, 0, v);
    } while (!reading_done(&r));
    return failed(d, rc);
}

/* Apart, so that reading short values does not pay for it. */
static __attribute__((noinline)) int
read_long_value(const struct dict *d, const struct place *at, const void *key,
                size_t len, void *buf, size_t size, uint32_t how,
                struct shd_value *v, bool *live, uint32_t *ref)
{
    struct chain_cursor cursor;

    for (int tries = 0;; tries++) {
        int rc = look_long(d, at, key, len, buf, size, how, v, live, ref,
                           tries < READ_LONG_TRIES ? &cursor : NULL);

        if (rc != 1)
            return rc;
        rc = read_long(d, at->shard, &cursor, buf, v->len);
        if (rc != 0)
            return rc == 1 ? SHD_OK : rc;
    }
}

static __attribute__((noinline)) int
read_placed(const struct dict *d, const struct place *at, const void *key,
            size_t len, void *buf, size_t size, uint32_t how,
            struct shd_value *v)
{
    struct reading r;
    bool live = false;
    uint32_t ref = 0;
    int rc;

    reading_begin(&r, d->env, dict_guard(d, at->shard));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        rc = dict_enter(d, at->shard)
                 ? look(d, at, key, len, buf, size, how, v, &live, &ref)
                 : SHD_GONE;
    } while (!reading_done(&r));
    if (rc != SHD_OK)
        rc = rc == 1 ? read_long_value(d, at, key, len, buf, size, how, v,
                                       &live, &ref)
                     : failed(d, rc);
    counters_read(d, how, rc);
    if (live && (how & READ_NO_MARK) == 0 && d->env->segment->writable &&
        !dict_is_marked(d, ref))
        mark(d, at->shard, ref);
    return rc;
}

/* Counted, and marked, after quick_get. */
INLINED int quick_end(const struct dict *d, uint32_t shard, int rc,
                      const struct quick *q)
{
    counters_read(d, 0, rc);
    if (rc == SHD_OK && d->env->segment->writable && !quick_is_marked(d, q))
        mark(d, shard, q->ref);
    return rc;
}

/* As read_value with nothing asked for but the value of what is no list. Apart,
 * so that what most gets are does not pay for it. */
static __attribute__((noinline)) int
get_slowly(const struct dict *d, const void *key, size_t len, void *buf,
           size_t size, struct shd_value *v)
{
    int rc = read_value(d, key, len, buf, size, 0, v);

    return rc == SHD_OK && v->type == SHD_LIST ? SHD_ISLIST : rc;
}

int read_get(const struct dict *d, const void *key, size_t len, void *buf,
             size_t size, struct shd_value *v)
{
    struct place at = place_of_key(d, key, len);
    struct quick q;
    int rc = quick_get(d, &at, key, len, buf, size, v, &q);

    return rc == QUICK_NOT ? get_slowly(d, key, len, buf, size, v)
                           : quick_end(d, at.shard, rc, &q);
}

int read_value(const struct dict *d, const void *key, size_t len, void *buf,
               size_t size, uint32_t how, struct shd_value *v)
{
    struct place at = place_of_key(d, key, len);

    return read_placed(d, &at, key, len, buf, size, how, v);
}

int read_at(const struct dict *d, const struct place *at, const void *key,
            size_t len, void *buf, size_t size, struct shd_value *v)
{
    struct quick q;
    int rc = quick_get(d, at, key, len, buf, size, v, &q);

    return rc == QUICK_NOT ? read_placed(d, at, key, len, buf, size, 0, v)
                           : quick_end(d, at->shard, rc, &q);
}
