/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is added at the end goes into the cell that holds the end, as far as it
 * has room: nobody reads past the end before the length changes, so only the
 * word that the end lies in is logged. What is left over becomes more cells.
 * If the last cell of a chain is no whole page, it is built anew with what
 * follows it, for all but the last must be:
 *
 *   a page      entry -> page -> last page, filled up -> new -> new
 *
 *   no page     entry -> page -> last             | freed
 *                            \-> last + new -> new
 *
 * so a long value is not copied to add to it. A short value that grows out of
 * its cell, and whatever is put before a value, is joined in private memory
 * and stored as a whole.
 */
#include "shm/dict/attempt.h"
#include "shm/dict/store.h"
#include "shm/base/error.h"

#include <stdlib.h>
#include <string.h>

#define GROW_WORDS (SLAB_FREE_WORDS + 2 * LIST_WORDS + 12u)

static_assert(GROW_WORDS <= GUARD_UNDO_MAX, "log");

struct append_call {
    struct append *p;
    struct item item; /* the value as a whole, when it is stored so */
    bool tail_built;  /* a new end of the chain is pending */
};

/* Where a value ends. */
struct end {
    uint32_t *chain; /* the entry's word; NULL: it owns none */
    uint32_t last;   /* the cell that holds the end */
    uint32_t before; /* the one before it in the chain; 0: none */
    struct cell *cell;
    uint32_t at;    /* of the end in the cell, bytes */
    uint32_t bytes; /* the cell's */
    uint32_t room;  /* what of the addition goes into it */
};

/* Does the chain go on after its last cell? Else that is built anew. */
static bool goes_on(const struct end *end)
{
    return end->chain != NULL && end->bytes == PAGE_BYTES;
}

static int find_end(const struct attempt *a, const struct append *p,
                    struct end *end)
{
    const struct pages *pages = &a->d->pages;
    uint32_t meta = atomic_load32(&a->entry->cell.meta);
    uint32_t key_len = entry_key_len(atomic_load64(&a->entry->key_expires));
    uint64_t at;

    memset(end, 0, sizeof(*end));
    if ((meta & CELL_CHAINED) != 0) {
        end->chain = entry_chain(pages, &a->entry->cell);
        if (end->chain == NULL ||
            chain_last(pages, atomic_load32(end->chain), pages->max,
                       &end->last, &end->before) != SHD_OK)
            return dict_damaged(a->d, "a chain leads outside");
        end->cell = cell_at(pages, end->last, sizeof(struct cell));
        at = sizeof(struct cell);
    } else {
        end->last = a->old;
        end->cell = &a->entry->cell;
        at = entry_value_at(meta, key_len);
    }
    at += atomic_load32(&end->cell->len);
    end->bytes = slab_cell_bytes(pages, dict_owner(a->at.shard), end->last);
    if (at > end->bytes)
        return dict_damaged(a->d, "a value crosses its cell");
    end->at = (uint32_t)at;
    end->room = end->bytes - end->at;
    if (end->room > p->len)
        end->room = (uint32_t)p->len;
    return SHD_OK;
}

/* Inside a transaction: the value is that long now, and used just now. */
static int grown(struct attempt *a, struct txn *t, uint64_t len)
{
    uint64_t meta = atomic_load32(&a->entry->cell.meta);
    int rc;

    txn_store64(t, (uint64_t *)(void *)&a->entry->cell.meta,
                (uint64_t)len << 32 | meta);
    rc = entry_version_renew(a->d, t, a->entry);
    return rc == SHD_OK ? room_used(a->d, a->at.shard, t, a->old) : rc;
}

/* Inside a transaction: what goes into the cell that holds the end. */
static void fill_up(struct txn *t, const struct append *p,
                    const struct end *end)
{
    uint64_t *word =
        (uint64_t *)(void *)((unsigned char *)end->cell + (end->at & ~7u));
    uint32_t part = end->at & 7, n = end->room;
    uint64_t joined;

    if (n > 0 && part > 0) {
        n = n < 8 - part ? n : 8 - part;
        joined = atomic_load64(word);
        memcpy((unsigned char *)&joined + part, p->value, n);
        txn_store64(t, word++, joined);
        n = end->room - n;
    }
    if (n > 0)
        cell_fill(word, p->value + (end->room - n), n);
}

/* All of it goes into the cell. */
static int add_in_place(struct attempt *a, const struct append *p,
                        const struct end *end)
{
    struct txn t;

    attempt_begin(a, &t, GROW_WORDS);
    fill_up(&t, p, end);
    if (end->chain != NULL)
        txn_store32(&t, &end->cell->len,
                    atomic_load32(&end->cell->len) + (uint32_t)p->len);
    return attempt_end(&t, grown(a, &t, p->length));
}

/* Builds on the shard's pending word what the chain shall end with. */
static int build_tail(struct attempt *a, const struct append *p,
                      const struct end *end)
{
    uint32_t old = end->at - (uint32_t)sizeof(struct cell);
    struct item item = {0};
    unsigned char *joined = NULL;
    int steps = 0, rc;

    if (goes_on(end)) {
        item.chain.second = p->value + end->room;
        item.chain.second_len = p->len - end->room;
    } else {
        joined = malloc(old + p->len);
        if (joined == NULL)
            return error_set(SHD_NOMEM, "no memory to append to a value");
        cell_copy_out(joined, end->cell + 1, old);
        memcpy(joined + old, p->value, p->len);
        item.chain.second = joined;
        item.chain.second_len = old + p->len;
    }
    a->pages = chain_pages(item.chain.second_len) + 1;
    rc = attempt_build_chain(a, &item, PENDING_ENTRY, &steps);
    free(joined);
    return rc;
}

/* Makes the chain end with what is pending. */
static int swing(struct attempt *a, const struct append *p,
                 const struct end *end)
{
    const struct dict *d = a->d;
    uint32_t *pending = &a->shard->pending[PENDING_ENTRY];
    uint32_t head = atomic_load32(pending);
    uint32_t after = goes_on(end) ? end->last : end->before;
    struct cell *h = cell_at(&d->pages, head, sizeof(*h));
    struct cell *before = cell_at(&d->pages, after, sizeof(*before));
    struct txn t;
    int rc = SHD_OK;

    if (h == NULL || (after != 0 && before == NULL))
        return dict_damaged(d, "a chain leads outside");
    attempt_begin(a, &t, GROW_WORDS);
    if (after != 0) {
        txn_store32(&t, &before->word[CHAIN_NEXT], head);
        txn_store32(&t, &h->word[CHAIN_BACK], after);
    } else {
        txn_store32(&t, end->chain, head);
        txn_store32(&t, &h->word[CHAIN_OF], a->old);
    }
    txn_store32(&t, pending, 0);
    if (goes_on(end)) {
        fill_up(&t, p, end);
        txn_store32(&t, &end->cell->len, CHAIN_DATA_MAX);
    } else {
        rc = slab_free(&d->pages, &a->shard->slab, &t, dict_owner(a->at.shard),
                       end->last);
    }
    return attempt_end(&t, rc == SHD_OK ? grown(a, &t, p->length) : rc);
}

/* Stores old and new joined. */
static int store_joined(struct attempt *a, struct append_call *c, uint64_t old,
                        const struct shd_value *v)
{
    struct append *p = c->p;
    unsigned char *joined = malloc(p->length + 8);
    struct item *item = &c->item;
    struct shd_value again;
    int rc;

    if (joined == NULL)
        return error_set(SHD_NOMEM, "no memory to append to a value");
    rc = entry_value(a->d, &a->entry->cell, joined + (p->left ? p->len : 0),
                     old, false, &again);
    if (rc != SHD_OK) {
        free(joined);
        return dict_damaged(a->d, "a value contradicts itself");
    }
    memcpy(joined + (p->left ? 0 : old), p->value, p->len);
    item->kind = cell_is_versioned(atomic_load32(&a->entry->cell.meta))
                     ? CELL_VERSIONED
                     : CELL_ENTRY;
    item->flags = v->flags;
    item->expires = atomic_load64(&a->entry->key_expires) & ENTRY_EXPIRES_MASK;
    item->value = joined;
    item->len = p->length;
    rc = item_shape(a->d, item);
    if (rc == SHD_OK && item->has_chain)
        a->pages = chain_pages(chain_source_len(&item->chain)) + 1;
    if (rc == SHD_OK)
        rc = store_locked(a, SHD_REPLACE, item);
    free(joined);
    return rc;
}

static int fits(const struct attempt *a, uint64_t len)
{
    if (len <= dict_value_max(a->d, a->room.key_len))
        return SHD_OK;
    return error_set(SHD_TOOBIG,
                     "a value of %llu bytes is larger than dict '%s'",
                     (unsigned long long)len, a->d->name);
}

static int store_init(struct attempt *a, struct append_call *c)
{
    struct append *p = c->p;
    uint64_t len = (uint64_t)p->init_len + p->len;
    unsigned char *joined;
    struct item *item = &c->item;
    int rc = fits(a, len);

    /* Nothing is copied in vain, for the lock is held. */
    if (rc != SHD_OK)
        return rc;
    joined = malloc(len + 8);
    if (joined == NULL)
        return error_set(SHD_NOMEM, "no memory to append to a value");
    memcpy(joined + (p->left ? p->len : 0), p->init, p->init_len);
    memcpy(joined + (p->left ? 0 : p->init_len), p->value, p->len);
    item->kind = CELL_ENTRY;
    item->flags = 0;
    item->expires = p->init_expires;
    item->value = joined;
    item->len = len;
    rc = item_shape(a->d, item);
    if (rc == SHD_OK && item->has_chain)
        a->pages = chain_pages(chain_source_len(&item->chain)) + 1;
    if (rc == SHD_OK)
        rc = store_locked(a, SHD_ADD, item);
    free(joined);
    if (rc == SHD_OK)
        p->length = len;
    return rc;
}

static int append_to(struct attempt *a, struct append_call *c)
{
    struct append *p = c->p;
    struct shd_value v;
    struct end end;
    int rc = entry_describe(a->d, &a->entry->cell, &v);

    if (rc != SHD_OK)
        return dict_damaged(a->d, "a value contradicts itself");
    if (v.type != SHD_STRING)
        return SHD_NOTSTRING;
    p->length = v.len + p->len;
    rc = fits(a, p->length);
    if (rc != SHD_OK)
        return rc;
    if (p->left)
        return store_joined(a, c, v.len, &v);
    rc = find_end(a, p, &end);
    if (rc != SHD_OK)
        return rc;
    if (c->tail_built)
        return swing(a, p, &end);
    if (end.room == p->len)
        return add_in_place(a, p, &end);
    /* What begins in the entry's cell is short, and stays so. */
    if (end.chain == NULL ||
        entry_prefix(&a->d->pages, &a->entry->cell,
                     entry_value_at(atomic_load32(&a->entry->cell.meta),
                                    (uint32_t)p->key_len)) != 0)
        return store_joined(a, c, v.len, &v);
    rc = build_tail(a, p, &end);
    if (rc != SHD_OK)
        return rc;
    /* Making room may have moved the entry and its cells: look again. */
    c->tail_built = true;
    rc = attempt_look_up(a, p->key, p->key_len);
    if (rc != SHD_OK)
        return rc;
    return a->live ? append_to(a, c) : SHD_NOTFOUND;
}

static int append_body(struct attempt *a, void *context)
{
    struct append_call *c = context;
    struct append *p = c->p;
    int rc = attempt_look_up(a, p->key, p->key_len);

    c->tail_built = false;
    if (rc == SHD_OK)
        rc = a->live ? append_to(a, c) : SHD_NOTFOUND;
    /* Also when it has expired while room was made. */
    if (rc == SHD_NOTFOUND && p->init != NULL) {
        rc = dict_abandon(a->d, a->at.shard);
        if (rc == SHD_OK)
            rc = store_init(a, c);
    }
    if (atomic_load32(&a->shard->pending[PENDING_ENTRY]) != 0 &&
        dict_abandon(a->d, a->at.shard) != SHD_OK)
        return SHD_CORRUPT;
    return rc;
}

int store_append(const struct dict *d, struct append *p, uint32_t *forcible)
{
    struct attempt a;
    struct append_call c = {
        .p = p,
        .item = {.key = p->key, .key_len = p->key_len, .type = SHD_STRING}};

    attempt_start(&a, d, p->key, p->key_len, false, forcible);
    a.room.must_keep = true;
    return attempt_run(&a, append_body, &c);
}
