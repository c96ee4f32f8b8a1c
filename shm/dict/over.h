/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/over.h - the store that most are, in one straight piece: a short value
 * over another in the same cell, which has its class.
 *
 * HOLDS  as store.c's in-place store. Whatever is unusual, or looks damaged,
 *        is QUICK_NOT, before anything has been stored: store.c does it, and
 *        judges.
 * LOCK   the shard's is held.
 * CRASH  one transaction; all that could fail has been looked at before.
 * COST   about 350 instructions beside the lock's: at most OVER_WORDS stores.
 */
#ifndef SHD_DICT_OVER_H
#define SHD_DICT_OVER_H

#include "shm/dict/quick.h"
#include "shm/memory/list.h"

/* Longest value that is overwritten in place, words of 8 bytes. */
#define IN_PLACE_WORDS 32u
/* Classes by which its cell may be larger than it need be. */
#define IN_PLACE_LARGER 1u
#define OVER_WORDS (IN_PLACE_WORDS + 8u)
static_assert(OVER_WORDS <= GUARD_UNDO_MAX, "log");

/* An entry, and how it comes to the front of the LRU list, if it does. */
struct over {
    struct quick q;
    struct list_way way;
    uint64_t key_expires;
};

/* Is there an entry of that key, with a short value? QUICK_NOT. `order`:
 * dict_has_order(d), which the caller makes two pieces of. */
QUICK_INLINE int over_find(const struct dict *d, const struct place *at,
                           const void *key, size_t len, bool order,
                           struct over *o)
{
    struct list *lru = &d->shard[at->shard].lru;
    int rc;

    if (order)
        atomic_will_write(lru);
    rc = quick_node(d, at, index_state(d), &o->q);
    if (rc != SHD_OK)
        return QUICK_NOT;
    atomic_will_write(o->q.e);
    atomic_will_write((const unsigned char *)o->q.e + 64);
    o->key_expires = atomic_load64(&o->q.e->key_expires);
    if (!quick_is(&o->q, o->key_expires, key, len))
        return QUICK_NOT;
    return !order || list_way_find(&d->pages, lru, o->q.ref, &o->q.e->cell,
                                   &o->way)
               ? SHD_OK
               : QUICK_NOT;
}

/* Does a value of so many bytes, a multiple of 8, belong into its cell? One
 * that has become a little shorter stays (IN_PLACE_LARGER), so that a value
 * whose length varies somewhat does not move each time. */
QUICK_INLINE bool over_fits(const struct dict *d, const struct place *at,
                            const struct over *o, size_t key_len,
                            uint32_t bytes)
{
    uint32_t need = (uint32_t)sizeof(*o->q.e) + pad8(key_len) + bytes, class;
    uint32_t cell = slab_bytes_at(&d->pages, dict_owner(at->shard),
                                  o->q.inside, &class);

    return need <= cell && (class <= IN_PLACE_LARGER ||
                            slab_sizes[class - 1 - IN_PLACE_LARGER] < need);
}

QUICK_INLINE unsigned char *over_value(const struct over *o, size_t key_len)
{
    return (unsigned char *)o->q.e + sizeof(*o->q.e) + pad8(key_len);
}

QUICK_INLINE void over_begin(const struct dict *d, const struct place *at,
                             struct txn *t)
{
    txn_begin(t, d->pages.segment, dict_guard(d, at->shard), OVER_WORDS);
}

/* As room_used; and commits. */
QUICK_INLINE void over_end(const struct dict *d, const struct place *at,
                           struct txn *t, bool order, const struct over *o)
{
    struct shard *s = &d->shard[at->shard];

    if (!order) {
        quick_set_mark(d, &o->q);
    } else if (o->way.first != o->q.ref) {
        list_way_go(t, &s->lru, o->q.ref, &o->way);
        txn_store64(t, &s->shuffles, atomic_load64(&s->shuffles) + 1);
    }
    txn_commit(t);
}

/* SHD_SET of a string or number without flags, and of no long key. `bytes` of
 * a number: 8. */
QUICK_INLINE int over_set(const struct dict *d, const struct place *at,
                          const void *key, size_t key_len, uint32_t type,
                          const void *value, uint32_t bytes, uint64_t expires,
                          bool order)
{
    uint64_t len = type == SHD_STRING ? bytes : 0;
    struct over o;
    struct txn t;
    uint64_t head;

    if (over_find(d, at, key, key_len, order, &o) != SHD_OK ||
        (o.q.meta & CELL_TYPE_MASK) == SHD_LIST ||
        !over_fits(d, at, &o, key_len, pad8(bytes)) ||
        !slab_expiry_is_below(&d->pages, o.q.inside, expires))
        return QUICK_NOT;
    over_begin(d, at, &t);
    head = len << 32 | (o.q.meta & ~CELL_TYPE_MASK) | type;
    if (atomic_load64((uint64_t *)(void *)&o.q.e->cell.meta) != head)
        txn_store64(&t, (uint64_t *)(void *)&o.q.e->cell.meta, head);
    if ((o.key_expires & ENTRY_EXPIRES_MASK) != expires)
        txn_store64(&t, &o.q.e->key_expires,
                    expires | (uint64_t)key_len << 48);
    cell_store(&t, over_value(&o, key_len), value, bytes);
    over_end(d, at, &t, order, &o);
    return SHD_OK;
}

/* Adds to a live number. */
QUICK_INLINE int over_incr(const struct dict *d, const struct place *at,
                           const void *key, size_t len, double by,
                           bool order, double *result)
{
    struct over o;
    struct txn t;
    uint64_t *word, bits;
    double number;

    if (over_find(d, at, key, len, order, &o) != SHD_OK ||
        (o.q.meta & CELL_TYPE_MASK) != SHD_NUMBER ||
        entry_is_expired(o.q.e))
        return QUICK_NOT;
    word = (uint64_t *)(void *)over_value(&o, len);
    bits = atomic_load64(word);
    memcpy(&number, &bits, sizeof(number));
    number += by;
    memcpy(&bits, &number, sizeof(number));
    over_begin(d, at, &t);
    txn_store64(&t, word, bits);
    over_end(d, at, &t, order, &o);
    *result = number;
    return SHD_OK;
}

#endif
