/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/entry.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/base/hash.h"

#include <string.h>

#define NODE_VALUE_AT ((uint32_t)sizeof(struct cell))
/* What fits into a cell of that size is in one: there two are seldom a
 * twentieth smaller, and cost a get or a store half as much again. */
#define SPLIT_BYTES 512u
#define SPLIT_PAGES_MIN 64u

static uint32_t key_len_of(const struct cell *c)
{
    return entry_key_len(
        atomic_load64(&((const struct entry *)(const void *)c)->key_expires));
}

/* Where the value of an entry or a node begins. */
static inline __attribute__((always_inline)) uint32_t
value_at(const struct cell *c, uint32_t meta)
{
    return cell_is_node(meta) ? NODE_VALUE_AT
                              : entry_value_at(meta, key_len_of(c));
}

static void *inside(const struct pages *p, struct cell *c, uint32_t at,
                    uint32_t bytes)
{
    if (at + bytes > cell_room(p, c))
        return NULL;
    return (unsigned char *)c + at;
}

uint32_t *entry_chain(const struct pages *p, struct cell *c)
{
    uint32_t meta = atomic_load32(&c->meta);
    uint32_t at = value_at(c, meta);

    if (cell_kind(meta) == CELL_ENTRY && entry_is_long(key_len_of(c)))
        at = sizeof(struct entry);
    return inside(p, c, at, 8);
}

uint32_t entry_prefix(const struct pages *p, const struct cell *c, uint32_t at)
{
    uint32_t room = cell_room(p, c), prefix;

    if (cell_kind(atomic_load32(&c->meta)) != CELL_ENTRY ||
        entry_is_long(key_len_of(c)))
        return 0;
    if (at + 8 > room)
        return UINT32_MAX;
    prefix = atomic_load32(
        (const uint32_t *)(const void *)((const unsigned char *)c + at + 4));
    return prefix > room - at - 8 || prefix > atomic_load32(&c->len)
               ? UINT32_MAX
               : prefix;
}

struct entry_list *entry_list(const struct pages *p, struct cell *c)
{
    return inside(p, c, value_at(c, atomic_load32(&c->meta)),
                  sizeof(struct entry_list));
}

static uint32_t value_bytes(const struct item *item)
{
    switch (item->type) {
    case SHD_LIST:
        return sizeof(struct entry_list);
    case SHD_STRING:
        return pad8(item->len);
    default:
        return sizeof(double);
    }
}

/* Whole pages for the chain, and one for the cell that owns it. */
static int fits(const struct dict *d, const struct item *item)
{
    uint64_t pages;

    if (!item->has_chain)
        return SHD_OK;
    if (dict_gone(d, 0))
        return dict_gone_error(d);
    pages = 1 + chain_pages(chain_source_len(&item->chain));
    if (item->len <= UINT32_MAX && pages <= pages_count(&d->pages))
        return SHD_OK;
    /* Then what was looked at is no longer the dict's. */
    if (dict_gone(d, 0))
        return dict_gone_error(d);
    return error_set(SHD_TOOBIG,
                     "the item needs %llu pages of 4096 bytes, the dict "
                     "'%s' has %u",
                     (unsigned long long)pages, d->name,
                     pages_count(&d->pages));
}

/* A string whose cell would be over SPLIT_BYTES, where the classes are far
 * apart: begun in a smaller cell, `head` bytes into it, and ended in a chain
 * of one cell, if both together are smaller by a twentieth. Not where pages are
 * so few that two kinds of cells might not both find one. */
static bool split(const struct dict *d, struct item *item, uint64_t head)
{
    uint64_t whole = slab_class_bytes(slab_class(head + pad8(item->len)));
    uint64_t best = whole * 19 / 20;

    /* No lock is held: nothing of a destroyed dict is to be touched. */
    if (dict_gone(d, 0) || pages_count(&d->pages) < SPLIT_PAGES_MIN)
        return false;
    item->prefix = 0;
    for (uint32_t class = slab_class(whole) - 1;
         slab_class_bytes(class) * 2 >= head + item->len; class --) {
        uint32_t bytes = slab_class_bytes(class);
        uint64_t prefix = (bytes - head - 8) & ~7ull;
        uint32_t rest;

        if (bytes < head + 16 || prefix >= item->len)
            break;
        rest = slab_class_bytes(
            slab_class(sizeof(struct cell) + item->len - prefix));
        if (bytes + rest <= best) {
            best = bytes + rest;
            item->prefix = (uint32_t)prefix;
        }
    }
    return item->prefix > 0;
}

/* A string that is longer than a cell begins in its entry's, if that takes what
 * a page leaves of it, and a version beside it: two cells, not three. */
static bool split_page(const struct dict *d, struct item *item, uint64_t head)
{
    uint64_t rest = item->len > CHAIN_DATA_MAX ? item->len - CHAIN_DATA_MAX : 1;

    if (rest > SLAB_CELL_MAX || head + 16 + pad8(rest) > SLAB_CELL_MAX ||
        dict_gone(d, 0) || pages_count(&d->pages) < SPLIT_PAGES_MIN)
        return false;
    item->prefix = pad8(rest);
    return true;
}

static bool is_split(const struct dict *d, struct item *item, uint64_t head)
{
    return head + item->len > SLAB_CELL_MAX ? split_page(d, item, head)
                                            : split(d, item, head);
}

int item_shape(const struct dict *d, struct item *item)
{
    bool is_long = entry_is_long((uint32_t)item->key_len);
    uint64_t bytes;

    item->prefix = 0;
    item->meta = item->type | item->kind << CELL_KIND_SHIFT;
    if (item->flags != 0)
        item->meta |= CELL_FLAGS;
    bytes = entry_value_at(item->meta, (uint32_t)item->key_len);
    memset(&item->chain, 0, sizeof(item->chain));
    if (is_long) {
        item->chain.first = item->key;
        item->chain.first_bytes = item->key_len;
        item->chain.first_len = pad8(item->key_len);
    }
    if (item->type == SHD_STRING && !is_long &&
        bytes + item->len > SPLIT_BYTES && is_split(d, item, bytes)) {
        item->chain.second = (const unsigned char *)item->value + item->prefix;
        item->chain.second_len = item->len - item->prefix;
        item->meta |= CELL_CHAINED;
        bytes += 8 + item->prefix;
    } else if (item->type == SHD_STRING &&
               (is_long || bytes + item->len > SLAB_CELL_MAX)) {
        item->chain.second = item->value;
        item->chain.second_len = item->len;
        item->meta |= CELL_CHAINED;
        bytes += is_long ? 0 : 8;
    } else {
        bytes += value_bytes(item);
    }
    item->has_chain = chain_source_len(&item->chain) > 0;
    item->class = slab_class(bytes);
    return fits(d, item);
}

void item_unsplit(struct item *item)
{
    uint64_t bytes = entry_value_at(item->meta, (uint32_t)item->key_len);

    if (item->prefix == 0)
        return;
    item->prefix = 0;
    if (bytes + item->len > SLAB_CELL_MAX) {
        item->chain.second = item->value;
        item->chain.second_len = item->len;
        item->class = slab_class(bytes + 8);
        return;
    }
    item->meta &= ~CELL_CHAINED;
    item->has_chain = false;
    memset(&item->chain, 0, sizeof(item->chain));
    item->class = slab_class(bytes + pad8(item->len));
}

int item_shape_node(const struct dict *d, struct item *item)
{
    uint64_t bytes = NODE_VALUE_AT;

    item->prefix = 0;
    item->meta = item->type | CELL_NODE << CELL_KIND_SHIFT;
    memset(&item->chain, 0, sizeof(item->chain));
    if (item->type == SHD_STRING && bytes + item->len > SLAB_CELL_MAX) {
        item->chain.second = item->value;
        item->chain.second_len = item->len;
        item->meta |= CELL_CHAINED;
        bytes += 8;
    } else {
        bytes += value_bytes(item);
    }
    item->has_chain = chain_source_len(&item->chain) > 0;
    item->class = slab_class(bytes);
    return fits(d, item);
}

static void value_fill(unsigned char *to, const struct item *item,
                       uint32_t chain)
{
    uint64_t word = 0;

    if ((item->meta & CELL_CHAINED) != 0) {
        atomic_store64((uint64_t *)(void *)to,
                       chain | (uint64_t)item->prefix << 32);
        cell_fill(to + 8, item->value, item->prefix);
    } else if (item->type == SHD_STRING) {
        cell_fill(to, item->value, item->len);
    } else if (item->type == SHD_LIST) {
        atomic_store64((uint64_t *)(void *)to, 0);
        atomic_store64((uint64_t *)(void *)(to + 8), 0);
    } else {
        memcpy(&word, &item->number, sizeof(word));
        atomic_store64((uint64_t *)(void *)to, word);
    }
}

void entry_fill(const struct dict *d, uint32_t ref, const struct item *item,
                const struct place *place, uint32_t chain)
{
    struct entry *e = cell_fresh(&d->pages, ref);
    unsigned char *bytes = (unsigned char *)e;
    uint32_t key_len = (uint32_t)item->key_len;
    uint32_t at = entry_value_at(item->meta, key_len);
    bool is_long = entry_is_long(key_len);

    for (int i = 0; i < 4; i++)
        atomic_store32(&e->cell.word[i], 0);
    atomic_store32(&e->cell.meta, item->meta | place->hash << CELL_HASH_SHIFT);
    atomic_store32(&e->cell.len, (uint32_t)item->len);
    atomic_store64(&e->key_expires, item->expires | (uint64_t)key_len << 48);
    if (is_long) {
        atomic_store64((uint64_t *)(void *)(bytes + sizeof(*e)), chain);
        atomic_store64(
            entry_long_hash(e),
            hash_bytes(item->key, key_len, d->env->segment->hash_seed));
    } else {
        cell_fill(bytes + sizeof(*e), item->key, key_len);
    }
    if (item->kind == CELL_VERSIONED)
        atomic_store64((uint64_t *)(void *)(bytes + entry_version_at(
                                                        item->meta, key_len)),
                       item->version);
    if (item->flags != 0)
        atomic_store64((uint64_t *)(void *)(bytes + at - 8),
                       (uint32_t)item->flags);
    if (!(is_long && item->type == SHD_STRING))
        value_fill(bytes + at, item, chain);
}

void node_fill(const struct dict *d, uint32_t ref, const struct item *item,
               uint32_t chain)
{
    struct cell *c = cell_fresh(&d->pages, ref);

    for (int i = 0; i < 4; i++)
        atomic_store32(&c->word[i], 0);
    atomic_store32(&c->meta, item->meta);
    atomic_store32(&c->len, (uint32_t)item->len);
    value_fill((unsigned char *)c + NODE_VALUE_AT, item, chain);
}

int entry_order_long(const struct dict *d, const void *key, size_t len,
                     const struct entry *e)
{
    int order = chain_compare(
        &d->pages, atomic_load32((const uint32_t *)(const void *)(e + 1)), key,
        len);

    return order == 2 ? ENTRY_CORRUPT : -order;
}

int entry_key(const struct dict *d, const struct entry *e, uint32_t len,
              void *to)
{
    if (entry_is_long(len))
        return chain_read(
            &d->pages, atomic_load32((const uint32_t *)(const void *)(e + 1)),
            0, to, len);
    if (sizeof(*e) + pad8(len) > cell_room(&d->pages, e))
        return SHD_CORRUPT;
    cell_copy_out(to, e + 1, len);
    return SHD_OK;
}

int64_t entry_ttl(uint64_t key_expires)
{
    uint64_t expires = key_expires & ENTRY_EXPIRES_MASK;
    int64_t left;

    if (expires == 0)
        return 0;
    left = (int64_t)expires - (int64_t)clock_now_ms();
    /* 0 is taken for "never": an entry that expires just now has expired. */
    return left == 0 ? -1 : left;
}

static uint64_t *version_word(struct entry *e, uint32_t meta)
{
    uint32_t key_len = entry_key_len(atomic_load64(&e->key_expires));

    return (uint64_t *)(void *)((unsigned char *)e +
                                entry_version_at(meta, key_len));
}

uint64_t entry_version(const struct dict *d, const struct entry *e)
{
    uint32_t meta = atomic_load32(&e->cell.meta);
    uint32_t len = entry_key_len(atomic_load64(&e->key_expires));

    if (!cell_is_versioned(meta) ||
        entry_value_at(meta, len) > cell_room(&d->pages, e))
        return 0;
    return atomic_load64(version_word((struct entry *)(uintptr_t)e, meta));
}

int entry_version_renew(const struct dict *d, struct txn *t, struct entry *e)
{
    uint32_t meta = atomic_load32(&e->cell.meta);
    uint32_t len = entry_key_len(atomic_load64(&e->key_expires));

    if (!cell_is_versioned(meta))
        return SHD_OK;
    if (entry_value_at(meta, len) > cell_room(&d->pages, e))
        return dict_damaged(d, "an entry crosses its page");
    txn_store64(t, version_word(e, meta), entry_version_of(t));
    return SHD_OK;
}

int entry_describe(const struct dict *d, const struct cell *c,
                   struct shd_value *v)
{
    uint32_t meta = atomic_load32(&c->meta);
    const unsigned char *bytes = (const unsigned char *)c;
    uint32_t at = value_at(c, meta);
    uint64_t word;

    v->type = meta & CELL_TYPE_MASK;
    v->len = atomic_load32(&c->len);
    v->number = 0;
    v->flags = 0;
    v->ttl_ms = 0;
    /* The flags lie just before it. */
    if (at > cell_room(&d->pages, c))
        return SHD_CORRUPT;
    if (!cell_is_node(meta)) {
        v->ttl_ms = entry_ttl(atomic_load64(
            &((const struct entry *)(const void *)c)->key_expires));
        if ((meta & CELL_FLAGS) != 0)
            v->flags = (int32_t)atomic_load32(
                (const uint32_t *)(const void *)(bytes + at - 8));
    }
    switch (v->type) {
    case SHD_STRING:
        return SHD_OK;
    case SHD_LIST:
        if (at + sizeof(struct entry_list) > cell_room(&d->pages, c))
            return SHD_CORRUPT;
        v->len =
            atomic_load32((const uint32_t *)(const void *)(bytes + at + 8));
        return SHD_OK;
    case SHD_NUMBER:
    case SHD_BOOLEAN:
        if (at + 8 > cell_room(&d->pages, c))
            return SHD_CORRUPT;
        word = atomic_load64((const uint64_t *)(const void *)(bytes + at));
        memcpy(&v->number, &word, sizeof(word));
        return SHD_OK;
    default:
        return SHD_CORRUPT;
    }
}

int entry_value_other(const struct dict *d, const struct cell *c, void *buf,
                      size_t size, uint32_t how, struct shd_value *v)
{
    uint32_t meta = atomic_load32(&c->meta);
    uint32_t at = value_at(c, meta);
    int rc = entry_describe(d, c, v);

    if (rc != SHD_OK || v->type != SHD_STRING)
        return rc;
    if (v->len > size)
        return (how & ENTRY_PARTIAL) != 0 ? SHD_OK : SHD_SPACE;
    if ((meta & CELL_CHAINED) != 0) {
        uint64_t from = 0;
        uint32_t prefix = entry_prefix(&d->pages, c, at);
        const uint32_t *chain =
            entry_chain(&d->pages, (struct cell *)(uintptr_t)c);

        if (chain == NULL || prefix > v->len)
            return SHD_CORRUPT;
        if (v->len > CHAIN_SLICE_BYTES && (how & ENTRY_SHORT) != 0)
            return 1;
        cell_copy_out(buf, (const unsigned char *)c + at + 8, prefix);
        if (prefix == v->len) /* buf may be NULL */
            return SHD_OK;
        if (cell_kind(meta) == CELL_ENTRY && entry_is_long(key_len_of(c)))
            from = pad8(key_len_of(c));
        return chain_read(&d->pages, atomic_load32(chain), from,
                          (unsigned char *)buf + prefix, v->len - prefix);
    }
    if (at + v->len > cell_room(&d->pages, c))
        return SHD_CORRUPT;
    cell_copy_out(buf, (const unsigned char *)c + at, v->len);
    return SHD_OK;
}

int entry_long_value(const struct dict *d, uint32_t shard,
                     const struct cell *c, size_t size,
                     struct chain_cursor *cursor, struct shd_value *v)
{
    uint32_t meta = atomic_load32(&c->meta);
    const struct cell *head;
    const uint32_t *chain;
    int rc;

    if ((meta & CELL_CHAINED) == 0)
        return 0;
    rc = entry_describe(d, c, v);
    if (rc != SHD_OK || v->type != SHD_STRING || v->len > size ||
        v->len <= CHAIN_SLICE_BYTES)
        return rc;
    chain = entry_chain(&d->pages, (struct cell *)(uintptr_t)c);
    /* Only what is short begins in its entry's cell. */
    if (chain == NULL || entry_prefix(&d->pages, c, value_at(c, meta)) != 0)
        return SHD_CORRUPT;
    cursor->ref = atomic_load32(chain);
    head = cell_at(&d->pages, cursor->ref, sizeof(*head));
    if (head == NULL)
        return SHD_CORRUPT;
    cursor->number = atomic_load32(&head->word[CHAIN_NUMBER]);
    cursor->built = atomic_load64(&d->shard[shard].chains);
    cursor->from = 0;
    cursor->n = 0;
    if (cell_kind(meta) == CELL_ENTRY && entry_is_long(key_len_of(c)))
        cursor->from = pad8(key_len_of(c));
    return 1;
}
