/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A shard's entries in the order of its LRU list, from the one that is to go
 * next: stored anew in that order they are in that order again. What is read
 * may be torn until the section is over: every link and length is checked, and
 * before much memory is taken for a length, whether it is torn already.
 */
#include "shm/base/error.h"
#include "shm/dict/lease.h"
#include "shm/guard/reading.h"
#include "shm/keep/copy.h"

#include <string.h>

#define COPY_LOOK 64u           /* entries, elements between two looks */
#define LENGTH_LOOK (64u << 10) /* bytes of one value before one more */
#define ENTRIES_A_PAGE (PAGE_BYTES / SLAB_CELL_MIN)

struct from {
    const struct dict *d;
    uint32_t shard;
};

/* A value's bytes: a string as it is, a number as a double. */
static int put_value(const struct dict *d, const struct cell *cell,
                     const struct shd_value *v, unsigned char *to)
{
    struct shd_value again;
    uint64_t word;
    int rc;

    if (v->type == SHD_STRING) {
        rc = entry_value(d, cell, to, (size_t)v->len, 0, &again);
        return rc != SHD_OK ? rc : again.len == v->len ? SHD_OK : SHD_CORRUPT;
    }
    memcpy(&word, &v->number, sizeof(word));
    file_put(to, word, 8);
    return SHD_OK;
}

static uint64_t value_bytes(const struct shd_value *v)
{
    return v->type == SHD_STRING ? v->len : 8;
}

/* What the records of a shard may take: each is shorter than its cells, but a
 * damaged link leads to the same cell again, and a damaged length is any. */
static int length_check(struct copy *c, const struct dict *d, uint64_t len)
{
    uint64_t most = ((uint64_t)pages_touchable(&d->pages) + 1) * PAGE_BYTES;

    if (len > most || c->out.used > 2 * most)
        return SHD_CORRUPT;
    return len > LENGTH_LOOK ? copy_still(c) : SHD_OK;
}

static int put_element(struct copy *c, const struct dict *d,
                       const struct cell *node)
{
    unsigned char *value;
    struct shd_value v;
    uint64_t word;
    int rc;

    if (cell_kind(atomic_load32(&node->meta)) != CELL_NODE)
        return SHD_CORRUPT;
    rc = entry_describe(d, node, &v);
    if (rc == SHD_OK && v.type != SHD_STRING && v.type != SHD_NUMBER)
        rc = SHD_CORRUPT;
    if (rc == SHD_OK)
        rc = length_check(c, d, v.len);
    word = v.type;
    if (rc == SHD_OK)
        rc = record_begin(&c->out, RECORD_ELEMENT, &word, 1, 0,
                          value_bytes(&v), NULL, &value);
    if (rc == SHD_OK)
        rc = put_value(d, node, &v, value);
    c->part.elements++;
    return rc;
}

/* How many elements are leased out of a list, and the one that was first. */
static int count_leased(struct copy *c, const struct dict *d, struct cell *e,
                        uint64_t *count, uint32_t *last)
{
    const struct entry_list *l = entry_list(&d->pages, e);
    uint64_t max = (uint64_t)d->pages.max * ENTRIES_A_PAGE;
    uint32_t ref = l == NULL ? 0 : atomic_load32(&l->leased);

    *count = 0;
    *last = 0;
    while (ref != 0) {
        const struct cell *node = cell_at(&d->pages, ref, SLAB_CELL_MIN);
        int rc = node == NULL || ++*count > max ? SHD_CORRUPT
                 : *count % COPY_LOOK == 0      ? copy_still(c)
                                                : SHD_OK;

        if (rc != SHD_OK)
            return rc;
        *last = ref;
        ref = atomic_load32(&node->word[CHAIN_NEXT]);
    }
    return l == NULL ? SHD_CORRUPT : SHD_OK;
}

/* Those that were leased from one end, `count` of both from `ref` on: as they
 * stood before. */
static int put_leased(struct copy *c, const struct dict *d, uint32_t ref,
                      uint64_t count, bool left)
{
    for (; count > 0; count--) {
        const struct cell *node = cell_at(&d->pages, ref, SLAB_CELL_MIN);
        const struct lease *l =
            node == NULL ? NULL : lease_at(d, lease_of(node));
        int rc = l == NULL                ? SHD_CORRUPT
                 : count % COPY_LOOK == 0 ? copy_still(c)
                                          : SHD_OK;

        if (rc == SHD_OK &&
            ((atomic_load32(&l->cell.len) & LEASE_LEFT) != 0) == left)
            rc = put_element(c, d, node);
        if (rc != SHD_OK)
            return rc;
        ref = atomic_load32(&node->word[left ? CHAIN_BACK : CHAIN_NEXT]);
    }
    return SHD_OK;
}

/* The last one leads back to the entry. */
static int put_elements(struct copy *c, const struct dict *d, uint32_t entry,
                        struct cell *e, uint64_t count)
{
    const struct entry_list *l = entry_list(&d->pages, e);
    uint32_t ref = l == NULL    ? 0
                   : count == 0 ? entry
                                : atomic_load32(&l->first);
    uint64_t n = 0;

    while (ref != entry && n < count) {
        const struct cell *node = cell_at(&d->pages, ref, SLAB_CELL_MIN);
        int rc = node == NULL             ? SHD_CORRUPT
                 : n % COPY_LOOK == 0 ? copy_still(c)
                                          : SHD_OK;

        if (rc == SHD_OK)
            rc = put_element(c, d, node);
        if (rc != SHD_OK)
            return rc;
        n++;
        ref = atomic_load32(&node->word[CHAIN_NEXT]);
    }
    return n == count && ref == entry ? SHD_OK : SHD_CORRUPT;
}

/* What is leased is the list's: who restores it has no leases. */
static int put_list(struct copy *c, const struct dict *d, uint32_t entry,
                    struct cell *e, uint64_t count, uint64_t leased,
                    uint32_t last)
{
    int rc = put_leased(c, d, last, leased, true);

    if (rc == SHD_OK)
        rc = put_elements(c, d, entry, e, count);
    if (rc == SHD_OK && leased > 0)
        rc = put_leased(c, d, atomic_load32(&entry_list(&d->pages, e)->leased),
                        leased, false);
    return rc;
}

static int put_entry(struct copy *c, const struct dict *d, uint32_t ref,
                     struct entry *e)
{
    uint64_t key_expires = atomic_load64(&e->key_expires);
    uint64_t expires = key_expires & ENTRY_EXPIRES_MASK;
    uint32_t key_len = entry_key_len(key_expires);
    unsigned char *key, *value;
    struct shd_value v;
    uint64_t word[3], leased = 0;
    uint32_t last = 0;
    bool is_list;
    int rc;

    if (expires != 0 && expires <= c->now_ms) {
        c->part_skipped++;
        return SHD_OK;
    }
    rc = key_len == 0 ? SHD_CORRUPT : entry_describe(d, &e->cell, &v);
    if (rc == SHD_OK)
        rc = length_check(c, d, v.len);
    if (rc != SHD_OK)
        return rc;
    is_list = v.type == SHD_LIST;
    if (is_list)
        rc = count_leased(c, d, &e->cell, &leased, &last);
    if (rc != SHD_OK)
        return rc;
    word[0] = record_type(v.type, dict_is_marked(d, ref), v.flags);
    word[1] = copy_wall(c, expires);
    word[2] = v.len + leased;
    rc = record_begin(&c->out, is_list ? RECORD_LIST : RECORD_ENTRY, word,
                      is_list ? 3 : 2, key_len,
                      is_list ? 0 : value_bytes(&v), &key, &value);
    if (rc == SHD_OK)
        rc = entry_key(d, e, key_len, key);
    if (rc == SHD_OK)
        rc = is_list ? put_list(c, d, ref, &e->cell, v.len, leased, last)
                     : put_value(d, &e->cell, &v, value);
    c->part.entries++;
    return rc;
}

static int entries(struct copy *c, const void *context)
{
    const struct from *f = context;
    const struct dict *d = f->d;
    uint64_t max = (uint64_t)d->pages.max * ENTRIES_A_PAGE;
    uint32_t ref;

    if (!dict_enter(d, f->shard))
        return SHD_GONE;
    ref = atomic_load32(&d->shard[f->shard].lru.last);
    for (uint64_t n = 0; ref != 0; n++) {
        struct entry *e = entry_at(&d->pages, ref);
        int rc = e == NULL || n > max     ? SHD_CORRUPT
                 : n % COPY_LOOK == 0 ? copy_still(c)
                                          : SHD_OK;

        if (rc == SHD_OK)
            rc = put_entry(c, d, ref, e);
        if (rc != SHD_OK)
            return rc;
        ref = atomic_load32(&e->cell.word[LIST_PREV]);
    }
    return c->part.entries + c->part_skipped ==
                   atomic_load64(&d->shard[f->shard].entries)
               ? SHD_OK
               : SHD_CORRUPT;
}

int copy_shard(struct copy *c, const struct dict *d, uint32_t shard)
{
    const struct from f = {d, shard};
    int rc = copy_run(c, d->env, dict_guard(d, shard), d->name, entries, &f);

    if (rc == SHD_GONE)
        return dict_gone_error(d);
    if (rc == SHD_CORRUPT)
        return dict_damaged(d, "its entries contradict each other");
    return rc;
}
