/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/quick.h - a look that most gets are, in one straight piece: a string
 * or number that lies in its entry's cell behind a short key, and no writer
 * in the way.
 *
 * HOLDS  what it gives is what read.c would have given. Whatever is unusual,
 *        or looks damaged, is QUICK_NOT: then read.c looks, and judges.
 * LOCK   none; nothing shared is written. Everything is loaded once, checked
 *        as everywhere before it is followed, and given after validation.
 * COST   about 150 instructions; a line each of the guard, the header and the
 *        roots, and one or two of the entry.
 */
#ifndef SHD_DICT_QUICK_H
#define SHD_DICT_QUICK_H

#include "shm/dict/entry.h"
#include "shm/dict/index.h"
#include "shm/dict/place.h"

#define QUICK_INLINE static inline __attribute__((always_inline))
#define QUICK_NOT 1
/* Nodes of a tree that are looked at: with about as many roots as entries,
 * more are rare. */
#define QUICK_DEPTH 12

/* An entry that was found. */
struct quick {
    struct entry *e;
    uint64_t inside; /* where it is among the pages, bytes */
    uint32_t ref;
    uint32_t meta;
    uint32_t room; /* bytes to its page's end */
};

/* What a reference leads to. False: outside. */
QUICK_INLINE bool quick_look(const struct dict *d, uint32_t ref,
                             struct quick *q)
{
    uint64_t where = (uint64_t)ref * SEGMENT_UNIT;

    q->ref = ref;
    q->inside = where - d->pages.at;
    q->room = PAGE_BYTES - (uint32_t)(q->inside % PAGE_BYTES);
    if (q->inside >= atomic_load64(&d->pages.seen) || q->room < SLAB_CELL_MIN)
        return false;
    q->e = (struct entry *)(void *)(d->pages.segment->base + where);
    q->meta = atomic_load32(&q->e->cell.meta);
    return true;
}

/* Where the search goes on from a node that is not it. */
QUICK_INLINE uint32_t quick_below(const struct quick *q, uint32_t hash)
{
    return atomic_load32(&q->e->cell.word[hash > q->meta >> CELL_HASH_SHIFT]);
}

/* From the node at ref on: the reference of the one whose 24 bits of hash are
 * those; 0: there is none; QUICK_NOWHERE. Apart, for the root is it as a rule,
 * or there is none. */
#define QUICK_NOWHERE UINT32_MAX
static __attribute__((noinline)) uint32_t
quick_walk(const struct dict *d, uint32_t hash, uint32_t ref)
{
    struct quick q;

    for (int depth = 0; depth < QUICK_DEPTH; depth++) {
        if (!quick_look(d, ref, &q))
            return QUICK_NOWHERE;
        if (q.meta >> CELL_HASH_SHIFT == hash)
            return ref;
        ref = quick_below(&q, hash);
        if (ref == 0)
            return 0;
    }
    return QUICK_NOWHERE;
}

/* The node whose 24 bits of hash are the key's. QUICK_NOT; SHD_NOTFOUND.
 * Only under the grain that the state tells. */
QUICK_INLINE int quick_node(const struct dict *d, const struct place *at,
                            uint64_t state, struct quick *q)
{
    uint32_t ref = atomic_load32(index_root(d, index_grain(state), at->order));

    if (ref != 0 && !quick_look(d, ref, q))
        return QUICK_NOT;
    if (ref != 0 && q->meta >> CELL_HASH_SHIFT != at->hash) {
        ref = quick_below(q, at->hash);
        if (ref != 0) {
            ref = quick_walk(d, at->hash, ref);
            if (ref != 0 && !quick_look(d, ref, q))
                return QUICK_NOT;
        }
    }
    if (ref == 0)
        return index_moves(state) ? QUICK_NOT : SHD_NOTFOUND;
    return SHD_OK;
}

/* Is it an entry of that key whose value lies behind the key? */
QUICK_INLINE bool quick_is(const struct quick *q, uint64_t key_expires,
                           const void *key, size_t len)
{
    return (q->meta & (CELL_KIND_MASK | CELL_CHAINED | CELL_FLAGS)) == 0 &&
           key_expires >> 48 == len && len <= ENTRY_KEY_INLINE &&
           sizeof(*q->e) + pad8(len) + 8 <= q->room &&
           cell_compare(q->e + 1, key, len) == 0;
}

QUICK_INLINE int quick_value(const struct quick *q, const void *key,
                             size_t len, void *buf, size_t size,
                             struct shd_value *v)
{
    const struct entry *e = q->e;
    uint64_t key_expires = atomic_load64(&e->key_expires);
    uint64_t expires = key_expires & ENTRY_EXPIRES_MASK;
    uint64_t bytes = atomic_load32(&e->cell.len);
    uint64_t at = sizeof(*e) + pad8(len);
    const unsigned char *value = (const unsigned char *)e + at;
    uint64_t word = 0;

    if (!quick_is(q, key_expires, key, len))
        return QUICK_NOT;
    v->ttl_ms = 0;
    if (expires != 0) {
        v->ttl_ms = (int64_t)(expires - clock_now_ms());
        if (v->ttl_ms <= 0)
            return QUICK_NOT;
    }
    v->type = q->meta & CELL_TYPE_MASK;
    v->flags = 0;
    v->len = bytes;
    if (v->type == SHD_STRING && bytes <= size && at + bytes <= q->room)
        cell_copy_out(buf, value, bytes);
    else if (v->type == SHD_NUMBER || v->type == SHD_BOOLEAN)
        word = atomic_load64((const uint64_t *)(const void *)value);
    else
        return QUICK_NOT;
    memcpy(&v->number, &word, sizeof(word));
    return SHD_OK;
}

/* SHD_OK and the entry it was, SHD_NOTFOUND, or QUICK_NOT. */
QUICK_INLINE int quick_get(const struct dict *d, const struct place *at,
                           const void *key, size_t len, void *buf, size_t size,
                           struct shd_value *v, struct quick *q)
{
    const struct guard *g = dict_guard(d, at->shard);
    uint64_t state = index_state(d);
    uint64_t epoch = atomic_load64_acquire(&undone_epoch);
    uint64_t seq;
    int rc;

    if (!read_begin(g, &seq) || (epoch & 1) != 0 || dict_gone(d, at->shard) ||
        atomic_load64(&d->pages.bounds->state) != state)
        return QUICK_NOT;
    rc = quick_node(d, at, state, q);
    if (rc == SHD_OK)
        rc = quick_value(q, key, len, buf, size, v);
    return read_valid(g, seq) && atomic_load64(&undone_epoch) == epoch
               ? rc
               : QUICK_NOT;
}

/* The byte of marks of what was found (dict_mark). */
QUICK_INLINE uint8_t *quick_marks(const struct dict *d, const struct quick *q)
{
    struct page *page = &d->pages.table[q->inside / PAGE_BYTES];

    return &page->marks[q->inside % PAGE_BYTES / 32 / 8];
}

QUICK_INLINE bool quick_is_marked(const struct dict *d, const struct quick *q)
{
    uint32_t part = (uint32_t)(q->inside % PAGE_BYTES / 32);

    return (atomic_load8(quick_marks(d, q)) >> part % 8 & 1) != 0;
}

/* With the shard's lock: dict_set_mark. */
QUICK_INLINE void quick_set_mark(const struct dict *d, const struct quick *q)
{
    uint32_t bit = 1u << q->inside % PAGE_BYTES / 32 % 8;
    uint8_t *byte = quick_marks(d, q);
    uint32_t old = atomic_load8(byte);

    if ((old & bit) == 0)
        atomic_store8(byte, (uint8_t)(old | bit));
}

#endif
