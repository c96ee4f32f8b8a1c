/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A list is an entry whose value names its first and last node; nodes are
 * cells linked both ways, and the ends lead back to the entry, so that any of
 * them can be moved knowing its neighbours only.
 *
 *   entry {first, last, count} <-> node <-> node <-> node <-> entry
 *
 * One whose elements are all on a lease has neither first nor last.
 */
#include "shm/dict/lease.h"
#include "shm/dict/read.h"
#include "shm/dict/store.h"
#include "shm/base/error.h"

#include <string.h>

#define PUSH_WORDS                                                            \
    (SLAB_ALLOC_WORDS + 2 * LIST_WORDS + SLAB_EXPIRY_WORDS + 9u)
/* A new list: its entry, its first node, and the old entry's end. */
#define CREATE_WORDS (2 * SLAB_ALLOC_WORDS + LINK_WORDS + 12u)
/* Without the last node, the entry goes too. */
#define POP_WORDS (ROOM_REMOVE_WORDS + SLAB_FREE_WORDS + 2 * LIST_WORDS + 8u)

/* A new list, the copy of an element, and its lease. */
#define ARRIVE_WORDS                                                          \
    (2 * SLAB_ALLOC_WORDS + LINK_WORDS - SLAB_EXPIRY_WORDS +                  \
     LEASE_ADD_WORDS + LEASE_LINK_WORDS + 12u)

static_assert(CREATE_WORDS <= GUARD_UNDO_MAX, "log");
static_assert(ARRIVE_WORDS <= GUARD_UNDO_MAX, "log");
static_assert(POP_WORDS <= GUARD_UNDO_MAX, "log");

struct push_call {
    struct item list; /* the entry */
    struct item element;
    uint64_t expires; /* STORE_KEEP: as it is */
    bool left;
    uint64_t *length;
    uint64_t pushed;             /* the length after it */
    uint32_t class, entry_class; /* to take cells from: `prepare` */
    struct lease_add *arrival;   /* it comes on a lease; NULL: it is pushed */
};

static int damaged(const struct attempt *a)
{
    return error_set(SHD_CORRUPT, "dict '%s': a list leads outside",
                     a->d->name);
}

static struct cell *node_at(const struct attempt *a, uint32_t ref)
{
    return cell_at(&a->d->pages, ref, SLAB_CELL_MIN);
}

/* A filled node that nobody can reach yet. */
static int node_make(struct attempt *a, struct txn *t, const struct item *item,
                     uint32_t class, uint32_t *ref)
{
    const struct dict *d = a->d;
    int rc = slab_alloc(&d->pages, &a->shard->slab, t, dict_owner(a->at.shard),
                        class, PAGE_NONE, ref);

    if (rc != SHD_OK)
        return rc;
    node_fill(d, *ref, item,
              atomic_load32(&a->shard->pending[PENDING_ELEMENT]));
    return item->has_chain ? attempt_adopt_chain(a, t, PENDING_ELEMENT, *ref)
                           : SHD_OK;
}

/* Inside a transaction: the list has been used, and gets its expiry. */
static inline __attribute__((always_inline)) int
push_used(struct attempt *a, const struct push_call *c, struct txn *t)
{
    int rc = SHD_OK;

    if (c->expires != STORE_KEEP) {
        txn_store64(t, &a->entry->key_expires,
                    c->expires | (uint64_t)c->list.key_len << 48);
        rc = slab_expiry_lower(&a->d->pages, &a->shard->slab, t,
                               cell_page(&a->d->pages, a->old), c->expires);
    }
    return rc == SHD_OK ? room_used(a->d, a->at.shard, t, a->old) : rc;
}

/* All that is there is leased: it gets its first element. */
static __attribute__((noinline)) int push_to_leased(struct attempt *a,
                                                    struct push_call *c)
{
    struct txn t;
    uint32_t ref;
    int rc;

    attempt_begin(a, &t, PUSH_WORDS);
    rc = node_make(a, &t, &c->element, c->class, &ref);
    if (rc == SHD_OK)
        rc = lease_node_push(a->d, &t, a->old, ref, c->left);
    if (rc == SHD_OK)
        rc = push_used(a, c, &t);
    c->pushed = 1;
    return attempt_end(&t, rc);
}

static int push_to_live(struct attempt *a, struct push_call *c)
{
    struct entry_list *l = entry_list(&a->d->pages, &a->entry->cell);
    struct cell *end, *node;
    struct txn t;
    uint32_t ref, end_ref;
    int rc;

    if (l == NULL)
        return damaged(a);
    end_ref = atomic_load32(c->left ? &l->first : &l->last);
    end = node_at(a, end_ref);
    if (end == NULL)
        return end_ref == 0 ? push_to_leased(a, c) : damaged(a);
    c->pushed = atomic_load64(entry_list_counts(l)) + 1;
    attempt_begin(a, &t, PUSH_WORDS);
    rc = node_make(a, &t, &c->element, c->class, &ref);
    if (rc == SHD_OK) {
        node = cell_fresh(&a->d->pages, ref);
        atomic_store32(&node->word[c->left ? CHAIN_NEXT : CHAIN_BACK],
                       end_ref);
        atomic_store32(&node->word[c->left ? CHAIN_BACK : CHAIN_NEXT], a->old);
        txn_store32(&t, &end->word[c->left ? CHAIN_BACK : CHAIN_NEXT], ref);
        txn_store32(&t, c->left ? &l->first : &l->last, ref);
        txn_store64(&t, entry_list_counts(l), c->pushed);
        rc = push_used(a, c, &t);
    }
    return attempt_end(&t, rc);
}

static int push_to_new(struct attempt *a, struct push_call *c)
{
    const struct dict *d = a->d;
    struct txn t;
    uint32_t entry, node = 0;
    int rc;

    attempt_begin(a, &t, CREATE_WORDS);
    rc = slab_alloc(&d->pages, &a->shard->slab, &t, dict_owner(a->at.shard),
                    c->entry_class, PAGE_NONE, &entry);
    if (rc == SHD_OK)
        rc = node_make(a, &t, &c->element, c->class, &node);
    if (rc == SHD_OK) {
        struct cell *e = cell_fresh(&d->pages, entry);
        struct cell *n = cell_fresh(&d->pages, node);
        /* By what was shaped here, not by what the cell says meanwhile. */
        struct entry_list *l =
            (void *)((unsigned char *)e +
                     entry_value_at(c->list.meta, (uint32_t)c->list.key_len));

        entry_fill(d, entry, &c->list, &a->at,
                   atomic_load32(&a->shard->pending[PENDING_ENTRY]));
        atomic_store32(&l->first, node);
        atomic_store32(&l->last, node);
        atomic_store64(entry_list_counts(l), 1);
        atomic_store32(&n->word[CHAIN_NEXT], entry);
        atomic_store32(&n->word[CHAIN_BACK], entry);
        if (c->list.has_chain)
            rc = attempt_adopt_chain(a, &t, PENDING_ENTRY, entry);
    }
    if (rc == SHD_OK)
        rc = attempt_link(a, &t, entry, c->list.expires);
    c->pushed = 1;
    return attempt_end(&t, rc);
}

int list_entry_make(struct attempt *a, struct txn *t, const struct item *list,
                    uint32_t class, uint32_t *entry)
{
    const struct dict *d = a->d;
    int rc = slab_alloc(&d->pages, &a->shard->slab, t, dict_owner(a->at.shard),
                        class, PAGE_NONE, entry);

    if (rc != SHD_OK)
        return rc;
    entry_fill(d, *entry, list, &a->at,
               atomic_load32(&a->shard->pending[PENDING_ENTRY]));
    if (list->has_chain)
        rc = attempt_adopt_chain(a, t, PENDING_ENTRY, *entry);
    return rc == SHD_OK ? attempt_link(a, t, *entry, list->expires) : rc;
}

/* The copy of an element, on a lease, in a list that is there or not. */
static __attribute__((noinline)) int arrive(struct attempt *a,
                                            struct push_call *c)
{
    struct lease_add *add = c->arrival;
    uint64_t number;
    struct txn t;
    int rc = SHD_OK;

    add->of = a->old;
    add->order = a->at.order;
    attempt_begin(a, &t, ARRIVE_WORDS);
    if (!a->live)
        rc = list_entry_make(a, &t, &c->list, c->entry_class, &add->of);
    else
        rc = room_used(a->d, a->at.shard, &t, a->old);
    if (rc == SHD_OK)
        rc = node_make(a, &t, &c->element, c->class, &add->node);
    if (rc == SHD_OK)
        rc = lease_add(a->d, a->at.shard, &t, add, &number);
    return attempt_end(&t, rc);
}

/* Chooses the classes; *class is the one whose cells are wanting. */
static int prepare(const struct attempt *a, struct push_call *c, bool live,
                   uint32_t *class)
{
    const struct pages *p = &a->d->pages;
    const struct slab *s = &a->shard->slab;
    int rc;

    c->class = *class = attempt_class(a, c->element.class);
    rc = slab_prepare(p, s, c->class);
    if (rc != SHD_OK || live)
        return rc;
    c->entry_class = *class = attempt_class(a, c->list.class);
    rc = slab_prepare(p, s, c->entry_class);
    if (rc != SHD_OK || c->class == c->entry_class ||
        atomic_load32(&s->partial[c->class]) != 0 ||
        atomic_load32(&s->partial[c->entry_class]) != 0 ||
        pages_ready(p, 2, false) >= 2 || pages_extend(p) == SHD_OK)
        return rc;
    /* Either wants a page of its own, and there is one. It holds both, if a
     * cell may be larger than it must. */
    if (!a->room.larger || c->class == SLAB_CLASSES - 1)
        return SHD_NOMEM;
    if (c->class > c->entry_class)
        c->entry_class = c->class;
    else
        c->class = c->entry_class;
    return SHD_OK;
}

static int prepare_lease(const struct attempt *a, const struct push_call *c,
                         uint32_t *class)
{
    *class = c->arrival->class = attempt_class(a, lease_class());
    return slab_prepare(&a->d->pages, &a->shard->slab, *class);
}

static int push_locked(struct attempt *a, struct push_call *c)
{
    bool entry_built = false, element_built = false;
    int steps = 0;

    for (;;) {
        uint32_t class;
        int rc = attempt_look_up(a, c->list.key, c->list.key_len);

        if (rc != SHD_OK)
            return rc;
        if (a->live &&
            (atomic_load32(&a->entry->cell.meta) & CELL_TYPE_MASK) != SHD_LIST)
            return SHD_NOTLIST;
        if (c->element.has_chain && !element_built) {
            rc = attempt_build_chain(a, &c->element, PENDING_ELEMENT, &steps);
            if (rc != SHD_OK)
                return rc;
            element_built = true;
            continue;
        }
        if (!a->live && c->list.has_chain && !entry_built) {
            rc = attempt_build_chain(a, &c->list, PENDING_ENTRY, &steps);
            if (rc != SHD_OK)
                return rc;
            entry_built = true;
            continue;
        }
        rc = prepare(a, c, a->live, &class);
        if (c->arrival != NULL) {
            if (rc == SHD_OK)
                rc = prepare_lease(a, c, &class);
            if (rc == SHD_OK)
                rc = arrive(a, c);
        } else if (rc == SHD_OK) {
            rc = a->live ? push_to_live(a, c) : push_to_new(a, c);
        }
        if (rc != SHD_NOMEM)
            return rc;
        rc = attempt_make_room(a, class, &steps);
        if (rc != SHD_OK)
            return rc;
    }
}

static int push_body(struct attempt *a, void *context)
{
    int rc = push_locked(a, context);

    if (rc != SHD_OK && dict_abandon(a->d, a->at.shard) != SHD_OK)
        return SHD_CORRUPT;
    /* A chain for a new list's key, and then the list was there. */
    if (rc == SHD_OK && atomic_load32(&a->shard->pending[PENDING_ENTRY]) != 0)
        rc = dict_abandon(a->d, a->at.shard);
    return rc;
}

/* As for what does fit, the key's state has the first word. */
static int too_big(const struct dict *d, const void *key, size_t len)
{
    struct shd_value v;
    int rc =
        read_value(d, key, len, NULL, 0, READ_DESCRIBE | READ_NO_MARK, &v);

    if (rc == SHD_OK && v.type != SHD_LIST)
        return SHD_NOTLIST;
    return rc == SHD_OK || rc == SHD_NOTFOUND ? SHD_TOOBIG : rc;
}

/* c->element and the list's key are set. */
static inline __attribute__((always_inline)) int push_run(const struct dict *d,
                                                          struct push_call *c)
{
    struct attempt a;
    int rc = item_shape(d, &c->list);

    if (rc == SHD_OK)
        rc = item_shape_node(d, &c->element);
    if (rc == SHD_TOOBIG)
        return too_big(d, c->list.key, c->list.key_len);
    if (rc != SHD_OK)
        return rc;
    attempt_start(&a, d, c->list.key, c->list.key_len, true, NULL);
    a.pages = (c->arrival != NULL ? 3 : 2) +
              chain_pages(chain_source_len(&c->list.chain)) +
              chain_pages(chain_source_len(&c->element.chain));
    return attempt_run(&a, push_body, c);
}

int store_push(const struct dict *d, bool left, struct item *element,
               const void *key, size_t key_len, uint64_t expires,
               uint64_t *length)
{
    struct push_call c = {
        .list = {.key = key,
                 .key_len = key_len,
                 .type = SHD_LIST,
                 .expires = expires == STORE_KEEP ? 0 : expires},
        .element = *element,
        .expires = expires,
        .left = left};
    int rc = push_run(d, &c);

    if (rc == SHD_OK && length != NULL)
        *length = (uint32_t)c.pushed;
    return rc;
}

int store_arrive(const struct dict *d, const struct item *element,
                 const void *key, size_t key_len, struct lease_add *arrival)
{
    struct push_call c = {
        .list = {.key = key, .key_len = key_len, .type = SHD_LIST},
        .element = *element,
        .expires = STORE_KEEP,
        .arrival = arrival};

    return push_run(d, &c);
}

struct pop_call {
    const void *key;
    size_t len;
    bool left;
    void *buf;
    size_t size;
    struct shd_value *v;
    struct end_call *call; /* does something else; NULL: pops it */
    bool ahead;      /* buf holds a long value: that of this chain */
    bool may_repeat; /* copy another one before taking the lock */
    struct chain_cursor chain;
};

/* pop_body's result: it is another long value by now. */
#define POP_AGAIN 3

static int pop_last(struct attempt *a, struct txn *t, uint32_t node,
                    struct entry_list *l)
{
    int rc;

    /* The entry goes as an empty list: its node is freed here. */
    txn_store64(t, (uint64_t *)(void *)&l->first, 0);
    rc = room_discard(a->d, a->at.shard, t, node);
    return rc != SHD_OK ? rc
                        : room_remove(a->d, a->at.shard, t, &a->at, &a->path,
                                      ROOM_DELETED);
}

/* Inside a transaction: takes the node at an end out of the elements. */
static inline __attribute__((always_inline)) int
unlink_end(const struct attempt *a, struct txn *t, bool left,
           const struct cell *n, struct entry_list *l)
{
    uint32_t next = atomic_load32(&n->word[left ? CHAIN_NEXT : CHAIN_BACK]);
    struct cell *e = node_at(a, next);

    if (e == NULL)
        return damaged(a);
    if (next == a->old) {
        /* The last one, and others are leased. */
        if (atomic_load32(&l->count) != 1)
            return damaged(a);
        txn_store64(t, (uint64_t *)(void *)&l->first, 0);
        return SHD_OK;
    }
    txn_store32(t, &e->word[left ? CHAIN_BACK : CHAIN_NEXT], a->old);
    txn_store32(t, left ? &l->first : &l->last, next);
    return SHD_OK;
}

static int pop_one(struct attempt *a, const struct pop_call *c, uint32_t node,
                   const struct cell *n, struct entry_list *l, struct txn *t)
{
    int rc = unlink_end(a, t, c->left, n, l);

    if (rc != SHD_OK)
        return rc;
    txn_store64(t, entry_list_counts(l),
                atomic_load64(entry_list_counts(l)) - 1);
    rc = room_discard(a->d, a->at.shard, t, node);
    return rc != SHD_OK ? rc : room_used(a->d, a->at.shard, t, a->old);
}

int list_unlink(const struct attempt *a, struct txn *t,
                const struct list_end *end)
{
    int rc = unlink_end(a, t, end->left, end->cell, end->list);

    txn_store32(t, &end->list->count, atomic_load32(&end->list->count) - 1);
    return rc;
}

/* The node at the end, as a read section finds it; NULL: as the pop will. */
static const struct cell *end_of(const struct dict *d, const struct place *at,
                                 const struct pop_call *c)
{
    const struct entry_list *l;
    struct cell *e;
    uint32_t ref;

    if (forest_find(d, at, c->key, c->len, &ref) != 1)
        return NULL;
    e = cell_at(&d->pages, ref, SLAB_CELL_MIN);
    if (e == NULL || (atomic_load32(&e->meta) & CELL_TYPE_MASK) != SHD_LIST)
        return NULL;
    l = entry_list(&d->pages, e);
    return l == NULL ? NULL
                     : cell_at(&d->pages,
                               atomic_load32(c->left ? &l->first : &l->last),
                               SLAB_CELL_MIN);
}

/* Copies a long value from the list's end without the lock: what a chain holds
 * never changes, so the pop needs but to see that the chain is still there. */
static int copy_ahead(const struct dict *d, const struct place *at,
                      struct pop_call *c)
{
    struct reading r;
    int rc;

    reading_begin(&r, d->env, dict_guard(d, at->shard));
    do {
        const struct cell *node;

        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        node = dict_enter(d, at->shard) ? end_of(d, at, c) : NULL;
        rc = node == NULL ? 0
                          : entry_long_value(d, at->shard, node, c->size,
                                             &c->chain, c->v);
    } while (!reading_done(&r));
    c->ahead = false;
    if (rc != 1)
        return SHD_OK;
    rc = read_long(d, at->shard, &c->chain, c->buf, c->v->len);
    c->ahead = rc == 1;
    return rc < 0 ? rc : SHD_OK;
}

/* Is the node's value the chain that was copied? */
static bool is_copied(const struct attempt *a, const struct pop_call *c,
                      struct cell *n)
{
    const uint32_t *chain = entry_chain(&a->d->pages, n);
    const struct cell *head;

    if (!c->ahead || (atomic_load32(&n->meta) & CELL_CHAINED) == 0 ||
        chain == NULL)
        return false;
    head = cell_at(&a->d->pages, atomic_load32(chain), sizeof(*head));
    return head != NULL &&
           atomic_load32(&head->word[CHAIN_NUMBER]) == c->chain.number &&
           atomic_load64(&a->shard->chains) - c->chain.built < UINT32_MAX;
}

static int pop_value(const struct attempt *a, const struct pop_call *c,
                     struct cell *n)
{
    if (is_copied(a, c, n))
        return entry_describe(a->d, n, c->v);
    int rc = entry_value(a->d, n, c->buf, c->size,
                         c->may_repeat ? ENTRY_SHORT : 0, c->v);

    return rc == 1 ? POP_AGAIN : rc;
}

static int pop_body(struct attempt *a, void *context)
{
    const struct pop_call *c = context;
    struct entry_list *l;
    struct cell *n;
    struct txn t;
    uint32_t node;
    int rc = attempt_look_up(a, c->key, c->len);

    if (rc != SHD_OK)
        return rc;
    if (!a->live)
        return SHD_NOTFOUND;
    if ((atomic_load32(&a->entry->cell.meta) & CELL_TYPE_MASK) != SHD_LIST)
        return SHD_NOTLIST;
    l = entry_list(&a->d->pages, &a->entry->cell);
    if (l == NULL)
        return damaged(a);
    node = atomic_load32(c->left ? &l->first : &l->last);
    n = node_at(a, node);
    if (n == NULL || cell_kind(atomic_load32(&n->meta)) != CELL_NODE)
        return node == 0 && atomic_load32(&l->count) == 0 ? SHD_NOTFOUND
                                                          : damaged(a);
    rc = pop_value(a, c, n);
    if (rc != SHD_OK)
        return rc;
    if (c->call != NULL) {
        const struct list_end end = {l, n, node, c->left};

        return c->call->act(a, c->call, &end);
    }
    attempt_begin(a, &t, POP_WORDS);
    rc = atomic_load64(entry_list_counts(l)) == 1
             ? pop_last(a, &t, node, l)
             : pop_one(a, c, node, n, l, &t);
    return attempt_end(&t, rc);
}

/* Until there are the cells for what is done with it. */
static int end_body(struct attempt *a, void *context)
{
    const struct pop_call *c = context;
    int steps = 0, rc;

    do {
        rc = pop_body(a, context);
        if (rc == SHD_NOMEM)
            rc = attempt_make_room(a, c->call->class, &steps);
        else if (rc != LIST_AGAIN)
            break;
    } while (rc == SHD_OK || rc == LIST_AGAIN);
    if (atomic_load32(&a->shard->pending[PENDING_ENTRY]) != 0 &&
        dict_abandon(a->d, a->at.shard) != SHD_OK)
        return SHD_CORRUPT;
    return rc;
}

static inline __attribute__((always_inline)) int
pop_run(const struct dict *d, struct pop_call *c,
        int (*body)(struct attempt *a, void *context))
{
    struct attempt a;
    int rc = POP_AGAIN;

    attempt_start(&a, d, c->key, c->len, true, NULL);
    a.settle = 0;
    if (c->call != NULL)
        a.pages = c->call->pages;
    for (int tries = 0; rc == POP_AGAIN; tries++) {
        c->may_repeat = tries < READ_LONG_TRIES;
        /* The first time nobody knows that the value is a long one. */
        rc = tries == 0 ? SHD_OK : copy_ahead(d, &a.at, c);
        if (rc == SHD_OK)
            rc = attempt_run(&a, body, c);
    }
    return rc;
}

int store_pop(const struct dict *d, bool left, const void *key, size_t len,
              void *buf, size_t size, struct shd_value *v)
{
    struct pop_call c = {.key = key,
                         .len = len,
                         .left = left,
                         .buf = buf,
                         .size = size,
                         .v = v};

    return pop_run(d, &c, pop_body);
}

int store_end(const struct dict *d, bool left, const void *key, size_t len,
              void *buf, size_t size, struct shd_value *v,
              struct end_call *call)
{
    struct pop_call c = {.key = key,
                         .len = len,
                         .left = left,
                         .buf = buf,
                         .size = size,
                         .v = v,
                         .call = call};

    return pop_run(d, &c, end_body);
}
