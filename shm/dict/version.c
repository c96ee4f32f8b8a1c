/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The first who asks an entry for its version gives it one: it is stored anew
 * in a cell that has a word more. A short value goes the way of any store. A
 * chain is not copied, but handed over to the new cell, in one transaction:
 *
 *   old entry -> chain          old entry -> 0, on the garbage
 *                               new entry -> chain
 */
#include "shm/dict/attempt.h"
#include "shm/dict/store.h"
#include "shm/base/error.h"

static_assert(STORE_WORDS + 2 <= GUARD_UNDO_MAX, "log");

struct version_call {
    struct item item;
    void *buf;
    size_t size;
    struct shd_value *v;
    uint64_t version;
};

/* Copies the entry to a fresh cell with room for a version. */
static void copy_versioned(const struct entry *from, struct entry *to,
                           uint32_t prefix, uint64_t version)
{
    uint32_t meta = atomic_load32(&from->cell.meta);
    uint64_t key_expires = atomic_load64(&from->key_expires);
    uint32_t key_len = entry_key_len(key_expires);
    uint32_t as_versioned = (meta & ~(CELL_KIND_MASK | CELL_RED)) |
                            CELL_VERSIONED << CELL_KIND_SHIFT;
    uint32_t split = entry_version_at(as_versioned, key_len) / 8;
    /* Of a string under a long key the chain's word lies before the value. */
    bool value_word =
        !entry_is_long(key_len) || (meta & CELL_TYPE_MASK) != SHD_STRING;
    uint32_t end =
        (entry_value_at(meta, key_len) + pad8(prefix)) / 8 + value_word;
    const uint64_t *f = (const uint64_t *)(const void *)from;
    uint64_t *t = (uint64_t *)(void *)to;

    for (int i = 0; i < 4; i++)
        atomic_store32(&to->cell.word[i], 0);
    atomic_store32(&to->cell.meta, as_versioned);
    atomic_store32(&to->cell.len, atomic_load32(&from->cell.len));
    atomic_store64(&to->key_expires, key_expires);
    for (uint32_t i = sizeof(*to) / 8; i < split; i++)
        atomic_store64(&t[i], atomic_load64(&f[i]));
    atomic_store64(&t[split], version);
    for (uint32_t i = split; i < end; i++)
        atomic_store64(&t[i + 1], atomic_load64(&f[i]));
}

/* One transaction. The entry owns a chain. */
static int hand_over(struct attempt *a, uint32_t class, uint32_t prefix,
                     uint64_t *version)
{
    const struct dict *d = a->d;
    uint32_t *chain = entry_chain(&d->pages, &a->entry->cell);
    struct cell *head =
        chain == NULL
            ? NULL
            : cell_at(&d->pages, atomic_load32(chain), sizeof(*head));
    struct txn t;
    uint32_t ref;
    int rc;

    if (head == NULL)
        return dict_damaged(d, "a chain leads outside");
    attempt_begin(a, &t, STORE_WORDS + 2);
    rc = slab_alloc(&d->pages, &a->shard->slab, &t, dict_owner(a->at.shard),
                    class, PAGE_NONE, &ref);
    if (rc == SHD_OK) {
        *version = entry_version_of(&t);
        copy_versioned(a->entry, cell_fresh(&d->pages, ref), prefix, *version);
        txn_store32(&t, &head->word[CHAIN_OF], ref);
        txn_store32(&t, chain, 0);
        rc = attempt_link(a, &t, ref,
                          atomic_load64(&a->entry->key_expires) &
                              ENTRY_EXPIRES_MASK);
    }
    return attempt_end(&t, rc);
}

static int hand_over_with_room(struct attempt *a, struct version_call *c)
{
    uint32_t meta = atomic_load32(&a->entry->cell.meta);
    uint32_t at = entry_value_at(meta, (uint32_t)c->item.key_len);
    uint32_t prefix = entry_prefix(&a->d->pages, &a->entry->cell, at);
    uint32_t class = slab_class((uint64_t)at + 16u + prefix);
    int steps = 0;

    if (class >= SLAB_CLASSES)
        return dict_damaged(a->d, "a value's chain begins past its end");
    for (;;) {
        int rc = slab_prepare(&a->d->pages, &a->shard->slab, class);

        if (rc == SHD_OK)
            rc = hand_over(a, class, prefix, &c->version);
        if (rc == SHD_NOMEM)
            rc = attempt_make_room(a, class, &steps);
        else
            return rc;
        if (rc == SHD_OK)
            rc = attempt_look_up(a, c->item.key, c->item.key_len);
        if (rc != SHD_OK)
            return rc;
        /* It is kept, but it may have expired meanwhile. */
        if (!a->live)
            return SHD_NOTFOUND;
    }
}

/* A short value, which has been read: stored as it was, with a version. */
static int store_again(struct attempt *a, struct version_call *c)
{
    struct item *item = &c->item;
    int rc;

    item->type = c->v->type;
    item->flags = c->v->flags;
    item->value = c->buf;
    item->len = c->v->type == SHD_STRING ? c->v->len : 0;
    item->number = c->v->number;
    item->expires = atomic_load64(&a->entry->key_expires) & ENTRY_EXPIRES_MASK;
    rc = item_shape(a->d, item);
    if (rc == SHD_OK && item->has_chain)
        a->pages = chain_pages(chain_source_len(&item->chain)) + 1;
    if (rc == SHD_OK)
        rc = store_locked(a, SHD_REPLACE, item);
    c->version = item->version;
    return rc;
}

static int version_body(struct attempt *a, void *context)
{
    struct version_call *c = context;
    int rc = attempt_look_up(a, c->item.key, c->item.key_len);
    uint32_t meta;

    if (rc != SHD_OK)
        return rc;
    if (!a->live)
        return SHD_NOTFOUND;
    meta = atomic_load32(&a->entry->cell.meta);
    if ((meta & CELL_TYPE_MASK) == SHD_LIST)
        return SHD_ISLIST;
    rc = entry_value(a->d, &a->entry->cell, c->buf, c->size, false, c->v);
    if (rc == SHD_CORRUPT)
        return dict_damaged(a->d, "a value contradicts itself");
    if (rc != SHD_OK)
        return rc;
    c->version = entry_version(a->d, a->entry);
    if (c->version != 0)
        return SHD_OK;
    return entry_has_chain(meta, (uint32_t)c->item.key_len)
               ? hand_over_with_room(a, c)
               : store_again(a, c);
}

int store_version(const struct dict *d, const void *key, size_t len, void *buf,
                  size_t size, struct shd_value *v, uint64_t *version)
{
    struct attempt a;
    struct version_call c = {
        .item = {.key = key, .key_len = len, .kind = CELL_VERSIONED},
        .buf = buf,
        .size = size,
        .v = v};
    int rc;

    attempt_start(&a, d, key, len, false, NULL);
    a.room.must_keep = true;
    rc = attempt_run(&a, version_body, &c);
    if (rc == SHD_OK)
        *version = c.version;
    return rc;
}
