/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The forest's order is that of (order, key length, key), all of which a key
 * alone determines, whatever the grain of the index: so a key is a cursor,
 * stored or not. While the index is changed both its arrays are walked, a
 * piece of the order at a time, and the lesser of what is next is next.
 *
 * The order of age is the LRU list's, from its tail; among several shards it is
 * no more than whose turn it is (dict_has_order). A batch is copied under
 * the lock; then the lock is let go. If any entry has left its place in the
 * list meanwhile (shard.shuffles tells) the walk's position means nothing:
 * what is left is taken in the forest's order, leaving out what has been
 * given. So each key that is there throughout is given exactly once, and
 * nobody waits for longer than a batch.
 */
#include "shm/dict/walk.h"
#include "shm/base/error.h"
#include "shm/dict/forest.h"
#include "shm/dict/read.h"

#include <stdlib.h>
#include <string.h>

/* Roots looked at in one read section. */
#define ROOTS_A_LOOK 4096u
/* Entries, and bytes of keys, copied in one hold of the lock. */
#define BATCH_ENTRIES 256u
#define BATCH_BYTES (2u * 65536u)
#define PAGE_ENTRIES_MAX (PAGE_BYTES / SLAB_CELL_MIN)

struct cursor {
    uint64_t order;
    bool from_key; /* else from that order's first on */
    size_t len;
    unsigned char key[ENTRY_KEY_MAX + 8];
};

struct found {
    unsigned char *key; /* ENTRY_KEY_MAX + 8 bytes */
    size_t key_len;
    void *buf;
    size_t size;
    struct shd_value *v;
    bool whole;   /* copy a long value under the lock if need be */
    bool is_long; /* else it is not copied yet: */
    struct chain_cursor value; /* it begins here */
};

/* The first entry after the cursor's, if `here`, or not before `from`, and
 * before `end`, in one array: 1, 0 none, or an error. */
static int first_of(const struct dict *d, uint32_t grain, uint64_t from,
                    uint64_t end, const struct cursor *here, uint32_t *ref,
                    uint64_t *order)
{
    const uint64_t mask = (1ull << GRAIN_MAX) - 1;

    for (uint64_t root = from >> grain; root << grain < end; root++) {
        bool first = root == from >> grain;
        uint64_t begin = first ? from : root << grain;
        const struct entry *e;
        int rc =
            forest_after(d, &d->roots[grain][root], (uint32_t)(begin & mask),
                         first && here != NULL ? here->key : NULL,
                         here != NULL ? here->len : 0, ref);

        if (rc < 0)
            return rc;
        if (rc == 0)
            continue;
        e = entry_at(&d->pages, *ref);
        if (e == NULL)
            return SHD_CORRUPT;
        *order =
            (begin & ~mask) | atomic_load32(&e->cell.meta) >> CELL_HASH_SHIFT;
        if (*order >> grain != root || *order < begin)
            return SHD_CORRUPT;
        return *order < end;
    }
    return 0;
}

/* Is the one entry before the other? Of the same order; uses `key`. */
static int is_before(const struct dict *d, uint32_t ref, uint32_t other,
                     unsigned char *key)
{
    const struct entry *e = entry_at(&d->pages, ref);
    const struct entry *o = entry_at(&d->pages, other);
    uint32_t len;
    int rc;

    if (e == NULL || o == NULL)
        return SHD_CORRUPT;
    len = entry_key_len(atomic_load64(&e->key_expires));
    rc = entry_key(d, e, len, key);
    if (rc != SHD_OK)
        return rc;
    rc = entry_order(d, atomic_load32(&e->cell.meta) >> CELL_HASH_SHIFT, key,
                     len, o);
    return rc == ENTRY_CORRUPT ? SHD_CORRUPT : rc < 0;
}

/* The same in both arrays. `key` is room for one. */
static int first_of_all(const struct dict *d, uint64_t state, uint64_t from,
                        uint64_t end, const struct cursor *here,
                        unsigned char *key, uint32_t *ref, uint64_t *order)
{
    uint32_t other;
    uint64_t its;
    int rc = first_of(d, index_grain(state), from, end, here, ref, order), rc2;

    if (rc < 0 || !index_moves(state))
        return rc;
    rc2 = first_of(d, index_former(state), from, end, here, &other, &its);
    if (rc2 == 1 && rc == 1 && its == *order) {
        rc2 = is_before(d, other, *ref, key);
    } else if (rc2 == 1 && rc == 1) {
        rc2 = its < *order;
    }
    if (rc2 < 0)
        return rc2;
    if (rc2 == 1) {
        *ref = other;
        *order = its;
    }
    return rc == 1 || rc2 == 1;
}

/* Where a piece of the order that begins there ends: with a root of both
 * arrays, but not after more of them than fit into one look. */
static uint64_t piece_end(uint64_t state, uint64_t from)
{
    uint32_t a = index_grain(state), b = index_former(state);
    uint32_t coarse = a > b ? a : b, fine = a > b ? b : a;
    uint64_t end = ((from >> coarse) + 1) << coarse;
    uint64_t most = ((from >> fine) + ROOTS_A_LOOK) << fine;

    return end < most ? end : most;
}

/* What is to be known of an entry. */
static int describe(const struct dict *d, uint32_t shard, uint32_t ref,
                    struct found *f)
{
    const struct entry *e = entry_at(&d->pages, ref);
    int rc;

    if (e == NULL)
        return SHD_CORRUPT;
    f->key_len = entry_key_len(atomic_load64(&e->key_expires));
    if (f->key_len == 0)
        return SHD_CORRUPT;
    rc = entry_key(d, e, (uint32_t)f->key_len, f->key);
    if (rc != SHD_OK)
        return rc;
    rc = f->whole
             ? 0
             : entry_long_value(d, shard, &e->cell, f->size, &f->value, f->v);
    f->is_long = rc == 1;
    if (rc == 0)
        rc = entry_value(d, &e->cell, f->buf, f->size, ENTRY_PARTIAL, f->v);
    return rc >= 0 ? 1 : rc;
}

/* Looks on from the cursor through some roots of its shard: 1 found, 0 none
 * before *order, or an error. Torn until validated. */
static int look(const struct dict *d, const struct cursor *c, struct found *f,
                uint64_t *order)
{
    const struct cursor *here = c->from_key ? c : NULL;
    uint64_t state = index_state(d), from = c->order;
    uint64_t shard = from >> d->shard_shift;
    uint64_t end = (shard + 1) << d->shard_shift;
    uint64_t most;

    if (!index_sound(state))
        return SHD_CORRUPT;
    most = ((from >> index_grain(state)) + ROOTS_A_LOOK) << index_grain(state);
    while (from < end && from < most) {
        uint64_t piece = piece_end(state, from);
        uint32_t ref;
        int rc =
            first_of_all(d, state, from, piece, here, f->key, &ref, order);

        if (rc < 0)
            return rc;
        if (rc == 1)
            return describe(d, (uint32_t)shard, ref, f);
        from = piece;
        here = NULL;
    }
    *order = from;
    return 0;
}

/* One validated look; but for the bytes of a long value. */
static int look_once(const struct dict *d, const struct cursor *c,
                     struct found *f, uint64_t *order)
{
    uint32_t shard = (uint32_t)(c->order >> d->shard_shift);
    struct reading r;
    int rc;

    f->is_long = false;
    reading_begin(&r, d->env, dict_guard(d, shard));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        rc = dict_enter(d, shard) ? look(d, c, f, order) : SHD_GONE;
    } while (!reading_done(&r));
    return rc == SHD_GONE ? dict_gone_error(d) : rc;
}

static int look_valid(const struct dict *d, const struct cursor *c,
                      struct found *f, uint64_t *order)
{
    for (int tries = 0;; tries++) {
        int rc, copied;

        f->whole = tries == READ_LONG_TRIES;
        rc = look_once(d, c, f, order);
        if (rc != 1 || !f->is_long)
            return rc;
        copied = read_long(d, (uint32_t)(c->order >> d->shard_shift),
                           &f->value, f->buf, f->v->len);
        if (copied != 0)
            return copied;
    }
}

/* The next entry from the cursor on, which then stands on it. 1, or 0: the
 * end. */
static int step(const struct dict *d, struct cursor *c, struct found *f)
{
    while (c->order >> d->shard_shift < d->shards) {
        uint64_t order;
        int rc = look_valid(d, c, f, &order);

        if (rc < 0)
            return rc;
        c->order = order;
        c->from_key = rc == 1;
        if (rc == 1) {
            c->len = f->key_len;
            memcpy(c->key, f->key, c->len);
            return 1;
        }
    }
    return 0;
}

int walk_after(const struct dict *d, const void *after, size_t after_len,
               bool expired, void *key_buf, size_t key_size, size_t *key_len,
               void *buf, size_t size, struct shd_value *v)
{
    unsigned char key[ENTRY_KEY_MAX + 8];
    struct found f = {.key = key, .buf = buf, .size = size, .v = v};
    struct cursor c;

    c.order = 0;
    c.from_key = after != NULL;
    c.len = after_len;
    if (after != NULL) {
        c.order = dict_place(d, after, after_len).order;
        memcpy(c.key, after, after_len);
    }
    for (;;) {
        int rc = step(d, &c, &f);

        if (rc <= 0)
            return rc == 0 ? SHD_NOTFOUND : rc;
        if (expired || v->ttl_ms >= 0)
            break;
    }
    *key_len = f.key_len;
    if (f.key_len > key_size)
        return SHD_SPACE;
    memcpy(key_buf, key, f.key_len);
    return SHD_OK;
}

/* ---- by age ----------------------------------------------------------- */

struct batch {
    uint32_t next;     /* where the walk goes on; 0: the list's end */
    uint64_t shuffles; /* of the shard when it was made */
    uint64_t passed;   /* entries of the shard so far */
    uint32_t n;
    size_t used;
    uint16_t len[BATCH_ENTRIES];
    unsigned char bytes[BATCH_BYTES + 8];
};

/* With the lock: copies live keys from the cell `from` on towards the list's
 * front. */
static int batch_fill(const struct dict *d, uint32_t shard, uint32_t from,
                      struct batch *b)
{
    uint32_t ref = from;

    b->n = 0;
    b->used = 0;
    b->shuffles = atomic_load64(&d->shard[shard].shuffles);
    for (uint32_t i = 0; i < BATCH_ENTRIES && ref != 0; i++) {
        const struct entry *e = entry_at(&d->pages, ref);
        uint32_t len;
        int rc;

        if (e == NULL)
            return error_set(SHD_CORRUPT,
                             "dict '%s': the LRU list leads "
                             "outside",
                             d->name);
        if (b->passed++ > (uint64_t)d->pages.max * PAGE_ENTRIES_MAX)
            return error_set(SHD_CORRUPT,
                             "dict '%s': the LRU list goes in "
                             "circles",
                             d->name);
        len = entry_key_len(atomic_load64(&e->key_expires));
        if (len == 0)
            return dict_damaged(d, "an entry without a key");
        if (!entry_is_expired(e)) {
            if (b->used + len > BATCH_BYTES)
                break;
            rc = entry_key(d, e, len, b->bytes + b->used);
            if (rc != SHD_OK)
                return rc;
            b->len[b->n++] = (uint16_t)len;
            b->used += len;
        }
        ref = atomic_load32(&e->cell.word[LIST_PREV]);
    }
    b->next = ref;
    return SHD_OK;
}

struct walk {
    uint64_t left;
    int (*add)(void *context, const void *key, size_t len);
    bool (*seen)(void *context, const void *key, size_t len);
    void *context;
};

static int give(struct walk *w, const void *key, size_t len)
{
    int rc;

    if (w->left == 0)
        return SHD_OK;
    rc = w->add(w->context, key, len);
    if (rc == SHD_OK)
        w->left--;
    return rc;
}

/* What is left of one shard, or of all from `shard` on, in the forest's
 * order. */
static int rest_by_hash(const struct dict *d, uint32_t shard, bool only,
                        struct walk *w)
{
    unsigned char key[ENTRY_KEY_MAX + 8];
    struct shd_value v;
    struct found f = {.key = key, .v = &v};
    struct cursor c;

    c.order = (uint64_t)shard << d->shard_shift;
    c.from_key = false;
    c.len = 0;
    while (w->left > 0) {
        int rc = step(d, &c, &f);

        if (rc <= 0)
            return rc;
        if (only && c.order >> d->shard_shift != shard)
            return SHD_OK;
        if (v.ttl_ms < 0 || w->seen(w->context, key, f.key_len))
            continue;
        rc = give(w, key, f.key_len);
        if (rc != SHD_OK)
            return rc;
    }
    return SHD_OK;
}

static int shard_by_age(const struct dict *d, uint32_t shard, struct batch *b,
                        struct walk *w)
{
    bool first = true;

    b->passed = 0;
    while (w->left > 0 && (first || b->next != 0)) {
        unsigned char *key = b->bytes;
        uint32_t from = b->next;
        int rc = dict_lock(d, shard);

        if (rc != SHD_OK)
            return rc;
        if (first)
            from = atomic_load32(&d->shard[shard].lru.last);
        bool moved =
            !first && atomic_load64(&d->shard[shard].shuffles) != b->shuffles;

        if (!moved)
            rc = batch_fill(d, shard, from, b);
        dict_unlock(d, shard);
        if (rc != SHD_OK)
            return rc;
        if (moved)
            return rest_by_hash(d, shard, true, w);
        first = false;
        for (uint32_t i = 0; i < b->n && rc == SHD_OK; i++) {
            rc = give(w, key, b->len[i]);
            key += b->len[i];
        }
        if (rc != SHD_OK)
            return rc;
    }
    return SHD_OK;
}

int walk_keys(const struct dict *d, uint64_t max,
              int (*add)(void *context, const void *key, size_t len),
              bool (*seen)(void *context, const void *key, size_t len),
              void *context)
{
    struct walk w = {max == 0 ? UINT64_MAX : max, add, seen, context};
    struct batch *b;
    int rc = SHD_OK;

    if (!d->env->segment->writable)
        return rest_by_hash(d, 0, false, &w);
    b = malloc(sizeof(*b));
    if (b == NULL)
        return error_set(SHD_NOMEM, "no memory for a batch of keys");
    for (uint32_t i = 0; i < d->shards && rc == SHD_OK && w.left > 0; i++)
        rc = shard_by_age(d, i, b, &w);
    free(b);
    return rc;
}
