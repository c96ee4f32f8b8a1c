/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/move.h"
#include "shm/base/error.h"
#include "shm/dict/forest.h"
#include "shm/dict/lease.h"

#define MOVE_WORDS                                                            \
    (SLAB_ALLOC_WORDS + SLAB_FREE_WORDS + TREE_REPLACE_WORDS + LIST_WORDS +   \
     SLAB_EXPIRY_WORDS + 6u)

static_assert(MOVE_WORDS <= GUARD_UNDO_MAX, "log");

/* What of a list leads back to its entry. */
static int relink_ends(const struct dict *d, struct txn *t, struct cell *e,
                       uint32_t new)
{
    struct entry_list *l = entry_list(&d->pages, e);
    struct cell *first, *last, *leased;
    bool any, some;

    if (l == NULL)
        return dict_damaged(d, "a list crosses its page");
    any = atomic_load32(&l->count) != 0;
    some = atomic_load32(&l->leased) != 0;
    first = cell_at(&d->pages, atomic_load32(&l->first), sizeof(*first));
    last = cell_at(&d->pages, atomic_load32(&l->last), sizeof(*last));
    leased = cell_at(&d->pages, atomic_load32(&l->leased), sizeof(*leased));
    if ((any && (first == NULL || last == NULL)) || (some && leased == NULL))
        return dict_damaged(d, "a list leads outside");
    if (any) {
        txn_store32(t, &first->word[CHAIN_BACK], new);
        txn_store32(t, &last->word[CHAIN_NEXT], new);
    }
    if (some)
        txn_store32(t, &leased->word[CHAIN_BACK], new);
    return SHD_OK;
}

/* Makes what points to an entry point to its new cell. */
static int relink_entry(const struct dict *d, uint32_t shard, struct txn *t,
                        uint32_t old, uint32_t new, const struct place *at,
                        struct tree_path *path)
{
    struct entry *e = cell_fresh(&d->pages, new);
    uint32_t meta = atomic_load32(&e->cell.meta);
    uint64_t key_expires = atomic_load64(&e->key_expires);
    int rc = tree_replace(t, &d->pages.nodes, at->root, path, new);

    if (rc == SHD_OK)
        rc = list_replace(&d->pages, t, &d->shard[shard].lru, old, new);
    if (rc != SHD_OK)
        return rc;
    if (entry_has_chain(meta, entry_key_len(key_expires))) {
        uint32_t *chain = entry_chain(&d->pages, &e->cell);
        struct cell *c =
            chain == NULL
                ? NULL
                : cell_at(&d->pages, atomic_load32(chain), sizeof(*c));
        if (c == NULL)
            return dict_damaged(d, "a chain leads outside");
        txn_store32(t, &c->word[CHAIN_OF], new);
    }
    if ((meta & CELL_TYPE_MASK) == SHD_LIST) {
        rc = relink_ends(d, t, &e->cell, new);
        if (rc != SHD_OK)
            return rc;
    }
    return slab_expiry_lower(&d->pages, &d->shard[shard].slab, t,
                             cell_page(&d->pages, new),
                             key_expires & ENTRY_EXPIRES_MASK);
}

/* The word of a node's neighbour that names the node: of another node, or of
 * the list's entry. */
static uint32_t *node_named_by(const struct dict *d, uint32_t neighbour,
                               bool as_first)
{
    struct cell *c = cell_at(&d->pages, neighbour, SLAB_CELL_MIN);
    struct entry_list *l;

    if (c == NULL)
        return NULL;
    if (cell_kind(atomic_load32(&c->meta)) == CELL_NODE)
        return &c->word[as_first ? CHAIN_NEXT : CHAIN_BACK];
    l = entry_list(&d->pages, c);
    if (l == NULL)
        return NULL;
    return as_first ? &l->first : &l->last;
}

/* Of a node among the elements. */
static int relink_element(const struct dict *d, struct txn *t, uint32_t new)
{
    struct cell *c = cell_fresh(&d->pages, new);
    uint32_t *before =
        node_named_by(d, atomic_load32(&c->word[CHAIN_BACK]), true);
    uint32_t *after =
        node_named_by(d, atomic_load32(&c->word[CHAIN_NEXT]), false);

    if (before == NULL || after == NULL)
        return dict_damaged(d, "a list leads outside");
    txn_store32(t, before, new);
    txn_store32(t, after, new);
    return SHD_OK;
}

/* Of a node that is leased: its neighbours in that chain, and its lease. */
static int relink_leased(const struct dict *d, struct txn *t, uint32_t new)
{
    const struct cell *c = cell_fresh(&d->pages, new);
    uint32_t back = atomic_load32(&c->word[CHAIN_BACK]);
    uint32_t next = atomic_load32(&c->word[CHAIN_NEXT]);
    struct cell *b = cell_at(&d->pages, back, SLAB_CELL_MIN);
    struct cell *n = cell_at(&d->pages, next, SLAB_CELL_MIN);
    struct lease *l = lease_at(d, lease_of(c));
    uint32_t *before = NULL;

    if (b != NULL && cell_kind(atomic_load32(&b->meta)) == CELL_NODE) {
        before = &b->word[CHAIN_NEXT];
    } else if (b != NULL) {
        struct entry_list *list = entry_list(&d->pages, b);

        before = list == NULL ? NULL : &list->leased;
    }
    if (before == NULL || (next != 0 && n == NULL) || l == NULL)
        return dict_damaged(d, "a leased element leads outside");
    txn_store32(t, before, new);
    if (next != 0)
        txn_store32(t, &n->word[CHAIN_BACK], new);
    txn_store32(t, &l->cell.word[LEASE_LINK], new);
    return SHD_OK;
}

static int relink_node(const struct dict *d, struct txn *t, uint32_t new)
{
    struct cell *c = cell_fresh(&d->pages, new);
    int rc = lease_of(c) != 0 ? relink_leased(d, t, new)
                              : relink_element(d, t, new);

    if (rc != SHD_OK)
        return rc;
    if ((atomic_load32(&c->meta) & CELL_CHAINED) != 0) {
        uint32_t *chain = entry_chain(&d->pages, c);
        struct cell *head =
            chain == NULL
                ? NULL
                : cell_at(&d->pages, atomic_load32(chain), sizeof(*head));
        if (head == NULL)
            return dict_damaged(d, "a chain leads outside");
        txn_store32(t, &head->word[CHAIN_OF], new);
    }
    return SHD_OK;
}

static int relink_chain(const struct dict *d, uint32_t shard, struct txn *t,
                        uint32_t old, uint32_t new)
{
    struct cell *c = cell_fresh(&d->pages, new);
    uint64_t number = atomic_load64(&d->shard[shard].chains) + 1;
    uint32_t next = atomic_load32(&c->word[CHAIN_NEXT]);
    uint32_t back = atomic_load32(&c->word[CHAIN_BACK]);
    uint32_t of = atomic_load32(&c->word[CHAIN_OF]);
    struct cell *n = cell_at(&d->pages, next, sizeof(*n));
    uint32_t *named = NULL;

    if (back != 0) {
        struct cell *b = cell_at(&d->pages, back, sizeof(*b));

        named = b == NULL ? NULL : &b->word[CHAIN_NEXT];
    } else if (of != 0) {
        struct cell *o = cell_at(&d->pages, of, SLAB_CELL_MIN);

        named = o == NULL ? NULL : entry_chain(&d->pages, o);
    } else {
        uint32_t *pending = d->shard[shard].pending;

        named = &pending[atomic_load32(&pending[0]) != old];
    }
    if (named == NULL || atomic_load32(named) != old ||
        (next != 0 && n == NULL))
        return dict_damaged(d, "a chain's links contradict themselves");
    txn_store32(t, named, new);
    if (next != 0)
        txn_store32(t, &n->word[CHAIN_BACK], new);
    /* Where it lay, or comes to lie once more, something else may have been
     * meanwhile: with another number it is another cell for who was reading it
     * without the lock. */
    txn_store64(t, &d->shard[shard].chains, number);
    atomic_store32(&c->word[CHAIN_NUMBER], (uint32_t)number);
    return SHD_OK;
}

static int path_to_lease(const struct dict *d, uint32_t shard, uint32_t ref,
                         struct tree_path *path)
{
    const struct lease *l = lease_at(d, ref);
    int rc = l == NULL ? 0
                       : lease_find(d, shard, atomic_load64(&l->holder),
                                    atomic_load64(&l->number), path);

    if (rc == 1 && path->ref[path->depth - 1] == ref)
        return SHD_OK;
    return rc < 0 ? rc : dict_damaged(d, "a lease is not in its tree");
}

int move_cell(const struct dict *d, uint32_t shard, uint32_t ref,
              uint32_t page, bool may_claim)
{
    struct shard *s = &d->shard[shard];
    uint32_t class = page_class(&d->pages.table[page]);
    struct cell *from =
        class < SLAB_CLASSES
            ? cell_at(&d->pages, ref, slab_class_bytes(class))
            : NULL;
    uint32_t kind, new = 0;
    bool leases;
    struct tree_path path;
    struct place at;
    struct txn t;
    int rc = SHD_OK;

    if (from == NULL)
        return dict_damaged(d, "a cell crosses its page");
    kind = cell_kind(atomic_load32(&from->meta));
    leases = lease_is(atomic_load32(&from->meta));
    if (!slab_has_free(&d->pages, &s->slab, class, page) &&
        (!may_claim || pages_prepare(&d->pages) != SHD_OK))
        return SHD_NOMEM;
    if (kind == CELL_ENTRY) {
        rc = forest_path_of(d, shard, ref, &at, &path);
        if (rc != 1)
            return rc;
    } else if (leases) {
        rc = path_to_lease(d, shard, ref, &path);
        if (rc != SHD_OK)
            return rc;
    }
    txn_begin(&t, d->env->segment, dict_guard(d, shard), MOVE_WORDS);
    rc = slab_alloc(&d->pages, &s->slab, &t, dict_owner(shard), class, page,
                    &new);
    if (rc == SHD_OK) {
        struct cell *to = cell_fresh(&d->pages, new);
        uint32_t words = slab_class_bytes(class) / 8;

        for (uint32_t i = 0; i < words; i++)
            atomic_store64(
                (uint64_t *)(void *)to + i,
                atomic_load64((const uint64_t *)(const void *)from + i));
        dict_set_mark(d, new, dict_is_marked(d, ref));
        dict_set_chance(d, new, dict_had_chance(d, ref));
        if (kind == CELL_ENTRY)
            rc = relink_entry(d, shard, &t, ref, new, &at, &path);
        else if (leases)
            rc = lease_moved(d, shard, &t, new, &path);
        else if (kind == CELL_NODE)
            rc = relink_node(d, &t, new);
        else
            rc = relink_chain(d, shard, &t, ref, new);
    }
    if (rc == SHD_OK)
        rc = slab_free(&d->pages, &s->slab, &t, dict_owner(shard), ref);
    if (rc != SHD_OK) {
        txn_abort(&t);
        return rc;
    }
    txn_store64(&t, &s->moves, atomic_load64(&s->moves) + 1);
    txn_store64(&t, &s->shuffles, atomic_load64(&s->shuffles) + 1);
    txn_commit(&t);
    return SHD_OK;
}
