/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A short value of the same size class is written over the old one, logged
 * word by word. A long one over a long one gets another chain (swap.h). Any
 * other store fills a fresh cell and swings one link.
 */
#include "shm/dict/store.h"
#include "shm/base/error.h"
#include "shm/dict/attempt.h"
#include "shm/dict/over.h"
#include "shm/dict/read.h"
#include "shm/dict/swap.h"

#include <string.h>

#define IN_PLACE_WORDS_MAX                                                    \
    (IN_PLACE_WORDS + SLAB_EXPIRY_WORDS + 2 * LIST_WORDS + 8u)

static_assert(STORE_PLAIN_MAX == IN_PLACE_WORDS * 8, "what fits in place");
static_assert(STORE_WORDS <= GUARD_UNDO_MAX, "log");
static_assert(IN_PLACE_WORDS_MAX <= GUARD_UNDO_MAX, "log");

/* The cells that a store takes: a value that begins in its entry's is ended in
 * another one by the same transaction; a longer chain has been built before. */
static int store_fresh(struct attempt *a, struct item *item, uint32_t class,
                       uint32_t tail_class)
{
    const struct dict *d = a->d;
    struct txn t;
    uint32_t ref, chain = atomic_load32(&a->shard->pending[PENDING_ENTRY]);
    int rc;

    attempt_begin(a, &t, STORE_WORDS);
    rc = slab_alloc(&d->pages, &a->shard->slab, &t, dict_owner(a->at.shard),
                    class, PAGE_NONE, &ref);
    if (rc == SHD_OK && item->prefix != 0) {
        const struct chain_site site = attempt_site(a, PENDING_ENTRY);

        rc = chain_build_one(&site, &t, &item->chain, tail_class, ref, &chain);
    }
    if (rc == SHD_OK) {
        item->version = entry_version_of(&t);
        entry_fill(d, ref, item, &a->at, chain);
        if (item->has_chain && item->prefix == 0)
            rc = attempt_adopt_chain(a, &t, PENDING_ENTRY, ref);
    }
    if (rc == SHD_OK)
        rc = attempt_link(a, &t, ref, item->expires);
    return attempt_end(&t, rc);
}

/* Over a value with a version, which then gets another. */
static bool fits_in_versioned(const struct attempt *a, const struct item *item,
                              uint32_t meta, uint32_t larger)
{
    uint32_t need = entry_value_at(meta, (uint32_t)item->key_len) +
                    (item->type == SHD_STRING ? pad8(item->len) : 8u);
    uint32_t cell =
        slab_cell_bytes(&a->d->pages, dict_owner(a->at.shard), a->old);

    uint32_t last = slab_class(need) + larger;

    return cell >= need &&
           (last >= SLAB_CLASSES || cell <= slab_class_bytes(last));
}

/* Can the item be written over the old value, whose cell may be larger than
 * need be by so many classes? */
static bool fits_in_place(const struct attempt *a, const struct item *item,
                          uint32_t larger)
{
    uint32_t meta, cell, last = item->class + larger;

    if (a->old == 0 || item->has_chain || item->type == SHD_LIST ||
        item->len > IN_PLACE_WORDS * 8)
        return false;
    meta = atomic_load32(&a->entry->cell.meta);
    if ((meta & (CELL_CHAINED | CELL_FLAGS)) != (item->meta & CELL_FLAGS) ||
        (meta & CELL_TYPE_MASK) == SHD_LIST)
        return false;
    if (((meta | item->meta) & CELL_KIND_MASK) != 0)
        return cell_is_versioned(meta) &&
               fits_in_versioned(a, item, meta, larger);
    cell = slab_cell_bytes(&a->d->pages, dict_owner(a->at.shard), a->old);
    return cell >= slab_class_bytes(item->class) &&
           (last >= SLAB_CLASSES || cell <= slab_class_bytes(last));
}

static int store_in_place(struct attempt *a, struct item *item)
{
    struct entry *e = a->entry;
    uint32_t meta = atomic_load32(&e->cell.meta);
    unsigned char *value =
        (unsigned char *)e + entry_value_at(meta, (uint32_t)item->key_len);
    struct txn t;
    int rc;

    attempt_begin(a, &t, IN_PLACE_WORDS_MAX);
    txn_store64(&t, (uint64_t *)(void *)&e->cell.meta,
                (uint64_t)item->len << 32 | (meta & ~CELL_TYPE_MASK) |
                    item->type);
    if ((meta & CELL_FLAGS) != 0)
        txn_store64(&t, (uint64_t *)(void *)(value - 8),
                    (uint32_t)item->flags);
    if (cell_is_versioned(meta)) {
        rc = entry_version_renew(a->d, &t, e);
        if (rc != SHD_OK)
            return attempt_end(&t, rc);
        item->version = entry_version_of(&t);
    }
    if (item->type == SHD_STRING)
        cell_store(&t, value, item->value, item->len);
    else
        cell_store(&t, value, &item->number, sizeof(item->number));
    if ((atomic_load64(&e->key_expires) & ENTRY_EXPIRES_MASK) != item->expires)
        txn_store64(&t, &e->key_expires,
                    item->expires | (uint64_t)item->key_len << 48);
    rc = slab_expiry_lower(&a->d->pages, &a->shard->slab, &t,
                           cell_page(&a->d->pages, a->old), item->expires);
    if (rc == SHD_OK)
        rc = room_used(a->d, a->at.shard, &t, a->old);
    return attempt_end(&t, rc);
}

/* Is the live entry's value that one? */
static int same_value(const struct attempt *a, const struct item *item)
{
    const struct entry *e = a->entry;
    uint32_t meta = atomic_load32(&e->cell.meta);
    uint32_t key_len = entry_key_len(atomic_load64(&e->key_expires));
    uint32_t at = entry_value_at(meta, key_len);
    struct shd_value v;
    int rc = entry_describe(a->d, &e->cell, &v);

    if (rc != SHD_OK)
        return dict_damaged(a->d, "a value contradicts itself");
    if (v.type != item->type)
        return SHD_CHANGED;
    if (v.type != SHD_STRING)
        return v.number == item->number ||
                       (v.number != v.number && item->number != item->number)
                   ? SHD_OK
                   : SHD_CHANGED;
    if (v.len != item->len)
        return SHD_CHANGED;
    if ((meta & CELL_CHAINED) != 0) {
        const uint32_t *chain =
            entry_chain(&a->d->pages, (struct cell *)(uintptr_t)&e->cell);
        uint32_t prefix = entry_prefix(&a->d->pages, &e->cell, at);

        if (chain == NULL || prefix > v.len)
            return dict_damaged(a->d, "a chain leads outside");
        if (cell_compare((const unsigned char *)e + at + 8, item->value,
                         prefix) != 0)
            return SHD_CHANGED;
        rc = chain_equal(&a->d->pages, atomic_load32(chain),
                         entry_is_long(key_len) ? pad8(key_len) : 0,
                         (const unsigned char *)item->value + prefix,
                         v.len - prefix);
        if (rc == 2)
            return dict_damaged(a->d, "a chain leads outside");
        return rc == 1 ? SHD_OK : SHD_CHANGED;
    }
    if (at + v.len > cell_room(&a->d->pages, e))
        return dict_damaged(a->d, "a value crosses its page");
    return cell_compare((const unsigned char *)e + at, item->value, v.len) == 0
               ? SHD_OK
               : SHD_CHANGED;
}

int store_condition(const struct attempt *a, const struct condition *when)
{
    if (when->value != NULL)
        return same_value(a, when->value);
    return entry_version(a->d, a->entry) == when->version ? SHD_OK
                                                          : SHD_CHANGED;
}

/* Finds cells, and fills them. SHD_NOMEM: of *class there is none. */
static int store_anew(struct attempt *a, struct item *item, uint32_t *class)
{
    const struct pages *p = &a->d->pages;
    struct slab *s = &a->shard->slab;
    uint32_t own = attempt_class(a, item->class), tail = 0;
    int rc = slab_prepare(p, s, own);

    *class = item->class;
    /* A cell that is a little too large costs nobody his. */
    if ((rc == SHD_NOMEM || own != item->class) &&
        fits_in_place(a, item, ATTEMPT_LARGER))
        return store_in_place(a, item);
    if (rc == SHD_OK && item->prefix != 0) {
        uint32_t wanted = chain_class(item->chain.second_len);

        tail = attempt_class(a, wanted);
        rc = slab_prepare(p, s, tail);
        if (atomic_load32(&s->partial[own]) != 0)
            *class = wanted;
    }
    if (rc == SHD_OK)
        rc = store_fresh(a, item, own, tail);
    /* Both cells were to have the one free page that has memory. */
    if (rc == SHD_NOMEM && item->prefix != 0 && pages_extend(p) == SHD_OK)
        rc = store_fresh(a, item, own, tail);
    return rc;
}

int store_locked(struct attempt *a, uint32_t op, struct item *item)
{
    int steps = 0;
    int rc = SHD_OK;
    bool built = false, swaps;

    /* A page may be left where two kinds of cells find none. */
    if (a->room.larger && item->prefix != 0) {
        item_unsplit(item);
        if (item->has_chain)
            a->pages = chain_pages(chain_source_len(&item->chain)) + 1;
    }
    for (;;) {
        uint32_t class;

        rc = attempt_look_up(a, item->key, item->key_len);
        if (rc != SHD_OK)
            break;
        if ((op & 3) == SHD_ADD && a->live) {
            rc = SHD_EXISTS;
            break;
        }
        /* It may have removed the old value itself, to make room. */
        if ((op & 3) == SHD_REPLACE && !a->live && !a->kept_went) {
            rc = SHD_NOTFOUND;
            break;
        }
        if (item->when != NULL) {
            rc = store_condition(a, item->when);
            if (rc != SHD_OK)
                break;
        }
        if (fits_in_place(a, item, IN_PLACE_LARGER))
            return store_in_place(a, item);
        swaps = item->has_chain && swap_fits(a, item);
        if (swaps)
            swap_will_store(a);
        else if (item->has_chain)
            attempt_will_link(a);
        if (item->has_chain && item->prefix == 0 && !built) {
            rc = attempt_build_chain(a, item, PENDING_ENTRY, &steps);
            if (rc != SHD_OK)
                break;
            /* Making room may have changed the trees: look again. */
            built = true;
            continue;
        }
        rc = swaps ? swap_store(a, item, &class)
                   : store_anew(a, item, &class);
        if (rc != SHD_NOMEM)
            break;
        rc = attempt_make_room(a, class, &steps);
        if (rc == ATTEMPT_NEED_ROOM && a->room.safe &&
            fits_in_place(a, item, SLAB_CLASSES))
            return store_in_place(a, item);
        if (rc != SHD_OK)
            break;
    }
    if (atomic_load32(&a->shard->pending[PENDING_ENTRY]) != 0 &&
        dict_abandon(a->d, a->at.shard) != SHD_OK)
        return SHD_CORRUPT;
    return rc;
}

struct store_call {
    uint32_t op;
    struct item *item;
};

static int store_body(struct attempt *a, void *context)
{
    struct store_call *c = context;

    return store_locked(a, c->op, c->item);
}

/* What can never fit needs no lock to be refused. But the key's state has the
 * first word, as for what does fit. */
static int too_big(const struct dict *d, uint32_t op, const struct item *item)
{
    struct shd_value v;
    int rc;

    if ((op & 3) == SHD_SET)
        return SHD_TOOBIG;
    rc = read_value(d, item->key, item->key_len, NULL, 0,
                    READ_DESCRIBE | READ_NO_MARK, &v);
    if (rc == SHD_OK)
        return (op & 3) == SHD_ADD ? SHD_EXISTS : SHD_TOOBIG;
    return rc == SHD_NOTFOUND && (op & 3) == SHD_ADD ? SHD_TOOBIG : rc;
}

static int store_held(const struct dict *d, const struct place *at, bool held,
                      uint32_t op, struct item *item, uint32_t *forcible)
{
    struct attempt a;
    struct store_call call = {op, item};

    attempt_start_at(&a, d, at, item->key, item->key_len, (op & SHD_SAFE) != 0,
                  forcible);
    a.held = held;
    a.room.must_keep = item->when != NULL;
    if (item->has_chain)
        a.pages = chain_pages(chain_source_len(&item->chain)) + 1;
    return attempt_run(&a, store_body, &call);
}

/* As attempt_run ends. */
static inline int unlock_quick(const struct dict *d, const struct place *at)
{
    uint32_t garbage = atomic_load32(&d->shard[at->shard].garbage);

    dict_unlock(d, at->shard);
    if (garbage != 0)
        (void)room_settle(d, at->shard, ATTEMPT_SETTLE);
    return SHD_OK;
}

/* With the lock, which it lets go of: it was not so simple. Apart, so that what
 * most stores are does not pay for it. */
static __attribute__((noinline)) int
plain_held(const struct dict *d, const struct place *at, uint32_t op,
           struct item *item, uint32_t *forcible)
{
    int rc = item_shape(d, item);

    if (rc == SHD_OK)
        return store_held(d, at, true, op, item, forcible);
    dict_unlock(d, at->shard);
    return rc == SHD_TOOBIG ? too_big(d, op, item) : rc;
}

int store_plain(const struct dict *d, uint32_t op, const void *key,
                size_t key_len, uint32_t type, const void *value, size_t len,
                double number, uint64_t expires, uint32_t *forcible)
{
    struct place at = place_of_key(d, key, key_len);
    const void *from = type == SHD_STRING ? value : &number;
    uint32_t bytes = type == SHD_STRING ? (uint32_t)len : 8;
    int rc = dict_lock(d, at.shard);

    if (rc != SHD_OK)
        return rc;
    if (dict_has_order(d))
        rc = over_set(d, &at, key, key_len, type, from, bytes, expires, true);
    else
        rc = over_set(d, &at, key, key_len, type, from, bytes, expires, false);
    if (rc == SHD_OK)
        return unlock_quick(d, &at);
    struct item item = {.key = key,
                        .key_len = key_len,
                        .type = type,
                        .value = value,
                        .len = len,
                        .number = number,
                        .expires = expires};
    return plain_held(d, &at, op, &item, forcible);
}

int store_item(const struct dict *d, uint32_t op, struct item *item,
               uint32_t *forcible)
{
    struct place at;
    int rc;

    if (item->kind == 0 && item->when == NULL &&
        store_is_plain(op, item->key_len, item->type, item->len, item->flags))
        return store_plain(d, op, item->key, item->key_len, item->type,
                           item->value, item->len, item->number, item->expires,
                           forcible);
    rc = item_shape(d, item);
    if (rc == SHD_TOOBIG)
        return too_big(d, op, item);
    if (rc != SHD_OK)
        return rc;
    at = place_of_key(d, item->key, item->key_len);
    return store_held(d, &at, false, op, item, forcible);
}

/* ---- delete, expire, incr --------------------------------------------- */

static int delete_body(struct attempt *a, void *context)
{
    const struct item *key = context;
    int rc = attempt_look_up(a, key->key, key->key_len);
    struct txn t;

    if (rc != SHD_OK)
        return rc;
    if (a->old == 0)
        return SHD_NOTFOUND;
    if (key->when != NULL) {
        rc = a->live ? store_condition(a, key->when) : SHD_NOTFOUND;
        if (rc != SHD_OK)
            return rc;
    }
    attempt_begin(a, &t, ROOM_REMOVE_WORDS);
    rc = attempt_end(&t, room_remove(a->d, a->at.shard, &t, &a->at, &a->path,
                                     a->live ? ROOM_DELETED : ROOM_EXPIRED));
    return rc == SHD_OK && !a->live ? SHD_NOTFOUND : rc;
}

int store_delete(const struct dict *d, const void *key, size_t len)
{
    return store_delete_if(d, key, len, NULL);
}

int store_delete_if(const struct dict *d, const void *key, size_t len,
                    const struct condition *when)
{
    struct attempt a;
    struct item item = {.key = key, .key_len = len, .when = when};

    attempt_start(&a, d, key, len, true, NULL);
    a.settle = 0;
    return attempt_run(&a, delete_body, &item);
}

static int expire_body(struct attempt *a, void *context)
{
    const struct item *item = context;
    int rc = attempt_look_up(a, item->key, item->key_len);
    struct txn t;

    if (rc != SHD_OK)
        return rc;
    if (a->old == 0)
        return SHD_NOTFOUND;
    attempt_begin(a, &t, SLAB_EXPIRY_WORDS + 2);
    txn_store64(&t, &a->entry->key_expires,
                item->expires | (uint64_t)item->key_len << 48);
    rc = entry_version_renew(a->d, &t, a->entry);
    if (rc == SHD_OK)
        rc = slab_expiry_lower(&a->d->pages, &a->shard->slab, &t,
                               cell_page(&a->d->pages, a->old), item->expires);
    return attempt_end(&t, rc);
}

int store_expire(const struct dict *d, const void *key, size_t len,
                 uint64_t expires)
{
    struct attempt a;
    struct item item = {.key = key, .key_len = len, .expires = expires};

    attempt_start(&a, d, key, len, true, NULL);
    return attempt_run(&a, expire_body, &item);
}

struct incr_call {
    struct item item; /* with init, and its expiry */
    double by;
    double *result;
    bool has_init;
};

static int incr_live(struct attempt *a, struct incr_call *c)
{
    uint32_t meta = atomic_load32(&a->entry->cell.meta);
    uint32_t at = entry_value_at(meta, (uint32_t)c->item.key_len);
    struct shd_value v;
    uint64_t word;
    struct txn t;
    int rc;

    if ((meta & CELL_TYPE_MASK) != SHD_NUMBER)
        return SHD_NOTNUMBER;
    rc = entry_describe(a->d, &a->entry->cell, &v);
    if (rc != SHD_OK)
        return rc;
    v.number += c->by;
    memcpy(&word, &v.number, sizeof(word));
    attempt_begin(a, &t, 2 * LIST_WORDS + 4);
    txn_store64(&t, (uint64_t *)(void *)((unsigned char *)a->entry + at),
                word);
    if (cell_is_versioned(meta))
        rc = entry_version_renew(a->d, &t, a->entry);
    if (rc == SHD_OK)
        rc = room_used(a->d, a->at.shard, &t, a->old);
    rc = attempt_end(&t, rc);
    if (rc == SHD_OK)
        *c->result = v.number;
    return rc;
}

static int incr_body(struct attempt *a, void *context)
{
    struct incr_call *c = context;
    int rc = attempt_look_up(a, c->item.key, c->item.key_len);

    if (rc != SHD_OK)
        return rc;
    if (a->live)
        return incr_live(a, c);
    if (!c->has_init)
        return SHD_NOTFOUND;
    rc = store_locked(a, SHD_SET, &c->item);
    if (rc == SHD_OK)
        *c->result = c->item.number;
    return rc;
}

/* With the lock, which it lets go of. Apart, so that what most calls are does
 * not pay for it. */
static __attribute__((noinline)) int incr_held(const struct dict *d,
                                               const struct place *at,
                                               struct incr_call *c,
                                               uint32_t *forcible)
{
    struct attempt a;
    /* Without an init nothing is stored that might not fit. */
    int rc = c->has_init ? item_shape(d, &c->item) : SHD_OK;

    if (rc != SHD_OK) {
        dict_unlock(d, at->shard);
        return rc;
    }
    attempt_start_at(&a, d, at, c->item.key, c->item.key_len, false, forcible);
    a.held = true;
    if (c->item.has_chain)
        a.pages = chain_pages(chain_source_len(&c->item.chain)) + 1;
    return attempt_run(&a, incr_body, c);
}

int store_incr(const struct dict *d, const void *key, size_t len, double by,
               bool has_init, double init, uint64_t init_expires,
               double *result, uint32_t *forcible)
{
    struct place at = place_of_key(d, key, len);
    int rc = dict_lock(d, at.shard);

    if (rc != SHD_OK)
        return rc;
    if (dict_has_order(d))
        rc = over_incr(d, &at, key, len, by, true, result);
    else
        rc = over_incr(d, &at, key, len, by, false, result);
    if (rc == SHD_OK)
        return unlock_quick(d, &at);
    struct incr_call c = {.item = {.key = key,
                                   .key_len = len,
                                   .type = SHD_NUMBER,
                                   .number = init + by,
                                   .expires = init_expires},
                          .by = by,
                          .result = result,
                          .has_init = has_init};
    return incr_held(d, &at, &c, forcible);
}
