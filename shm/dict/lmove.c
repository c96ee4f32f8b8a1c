/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Within one shard an element is moved by relinking its node: one transaction,
 * and no byte of it is copied. Between two it is leased here, copied there on
 * a lease of the same number, and then one store makes it be there instead of
 * here (dict/lease.h draws it). The target is as good as pushed to from that
 * store on: if its list is deleted, or evicted, before the copy can be seen,
 * that has happened to a list with the element in it.
 */
#include "shm/dict/lease.h"
#include "shm/base/error.h"
#include "shm/dict/place.h"
#include "shm/dict/store.h"

#include <stdlib.h>

#define RELINK_WORDS                                                          \
    (LIST_UNLINK_WORDS + LEASE_RETURN_WORDS + ROOM_REMOVE_WORDS +             \
     2 * (LIST_WORDS + 2u) + 2u)
/* A list's entry comes, and the other's may go. */
#define MAKE_WORDS                                                            \
    (SLAB_ALLOC_WORDS + LINK_WORDS - SLAB_EXPIRY_WORDS + 2u + RELINK_WORDS)

static_assert(RELINK_WORDS <= GUARD_UNDO_MAX, "log");
static_assert(MAKE_WORDS <= GUARD_UNDO_MAX, "log");

/* ---- within a shard ------------------------------------------------------
 */

struct here {
    struct end_call call;
    const struct lmove *m;
    struct item list; /* the target's entry, if there is none */
    struct place to;
};

/* Inside a transaction: what is left of where it came from. `empty`: it was
 * the only element, and none is leased. */
static int leave(const struct attempt *a, struct txn *t, bool empty)
{
    struct tree_path path;
    struct place at;
    int rc;

    if (!empty)
        return room_used(a->d, a->at.shard, t, a->old);
    /* The trees may have changed since it was looked up. */
    rc = forest_path_of(a->d, a->at.shard, a->old, &at, &path);
    return rc == 1
               ? room_remove(a->d, a->at.shard, t, &at, &path, ROOM_DELETED)
               : rc;
}

/* Inside a transaction: out of the one list, into the other. */
static int relink(const struct attempt *a, struct txn *t,
                  const struct list_end *end, uint32_t to, bool left)
{
    bool empty =
        to != a->old && atomic_load64(entry_list_counts(end->list)) == 1;
    int rc = list_unlink(a, t, end);

    if (rc == SHD_OK)
        rc = lease_node_push(a->d, t, to, end->node, left);
    return rc == SHD_OK ? leave(a, t, empty) : rc;
}

static int into_list(struct attempt *a, const struct here *h, uint32_t to,
                     const struct list_end *end)
{
    bool stays = to == a->old && (end->left == h->m->to_left ||
                                  atomic_load32(&end->list->count) == 1);
    struct txn t;
    int rc = SHD_OK;

    attempt_begin(a, &t, RELINK_WORDS);
    if (!stays)
        rc = relink(a, &t, end, to, h->m->to_left);
    if (rc == SHD_OK)
        rc = room_used(a->d, a->at.shard, &t, to);
    return attempt_end(&t, rc);
}

static int into_new(struct attempt *a, const struct here *h,
                    struct attempt *to, const struct list_end *end)
{
    struct slab *slab = &a->shard->slab;
    uint32_t class, entry;
    struct txn t;
    int steps = 0, rc;

    if (h->list.has_chain &&
        atomic_load32(&a->shard->pending[PENDING_ENTRY]) == 0) {
        rc = attempt_build_chain(to, &h->list, PENDING_ENTRY, &steps);
        return rc == SHD_OK ? LIST_AGAIN : rc;
    }
    class = attempt_class(a, h->list.class);
    rc = slab_prepare(&a->d->pages, slab, class);
    if (rc != SHD_OK)
        return rc;
    attempt_begin(a, &t, MAKE_WORDS);
    rc = list_entry_make(to, &t, &h->list, class, &entry);
    if (rc == SHD_OK)
        rc = relink(a, &t, end, entry, h->m->to_left);
    return attempt_end(&t, rc);
}

static int move_here(struct attempt *a, struct end_call *c,
                     const struct list_end *end)
{
    struct here *h = (struct here *)(void *)c;
    struct attempt to = *a;
    int rc;

    to.at = h->to;
    rc = attempt_look_up(&to, h->m->to, h->m->to_len);
    if (rc != SHD_OK)
        return rc;
    if (!to.live)
        return into_new(a, h, &to, end);
    if ((atomic_load32(&to.entry->cell.meta) & CELL_TYPE_MASK) != SHD_LIST)
        return SHD_NOTLIST;
    return into_list(a, h, to.old, end);
}

static int within(const struct dict *d, const struct lmove *m,
                  const struct place *to, void *buf, size_t size,
                  struct shd_value *v)
{
    struct here h = {
        .call = {.act = move_here},
        .m = m,
        .list = {.key = m->to, .key_len = m->to_len, .type = SHD_LIST},
        .to = *to};
    int rc = item_shape(d, &h.list);

    if (rc != SHD_OK)
        return rc;
    h.call.class = h.list.class;
    h.call.pages = 1 + chain_pages(chain_source_len(&h.list.chain));
    return store_end(d, m->from_left, m->from, m->from_len, buf, size, v,
                     &h.call);
}

/* ---- between shards ------------------------------------------------------
 */

/* Moves of this process that could not be brought to their end, for a lock was
 * busy: who comes next tries again. What finds no place here waits until this
 * worker is gone. */
#define LEFT_MAX 64u

static struct left {
    uint64_t number; /* 0: nothing; 1: being filled or emptied */
    uint64_t holder, generation;
    uint32_t to;
} left[LEFT_MAX];

static uint32_t n_left;

static void remember(const struct dict *d, uint64_t number, uint32_t to)
{
    for (uint32_t i = 0; i < LEFT_MAX; i++) {
        if (!atomic_cas64(&left[i].number, 0, 1))
            continue;
        left[i].holder = d->env->incarnation;
        left[i].generation = d->generation;
        left[i].to = to;
        atomic_store64_release(&left[i].number, number);
        atomic_store32(&n_left, 1);
        return;
    }
}

static void resolve(const struct dict *d, uint64_t number, uint32_t to)
{
    int rc = leases_resolve(d, d->env->incarnation, number, to);

    if (rc == SHD_BUSY || rc == SHD_SYS)
        remember(d, number, to);
}

void lmove_go_on(const struct dict *d)
{
    if (atomic_load32(&n_left) == 0)
        return;
    atomic_store32(&n_left, 0);
    for (uint32_t i = 0; i < LEFT_MAX; i++) {
        uint64_t number = atomic_load64(&left[i].number);
        struct left l;

        if (number <= 1 || !atomic_cas64(&left[i].number, number, 1))
            continue;
        l = left[i];
        if (l.generation != d->generation) {
            atomic_store64_release(&left[i].number, number);
            atomic_store32(&n_left, 1);
            continue;
        }
        atomic_store64_release(&left[i].number, 0);
        if (l.holder == d->env->incarnation)
            resolve(d, number, l.to);
    }
}

/* The value is in buf: puts a copy there, on a lease. */
static int copy(const struct dict *d, const struct lmove *m, const void *buf,
                const struct shd_value *v, uint64_t number)
{
    const struct item element = {.type = v->type,
                                 .value = buf,
                                 .len = v->type == SHD_STRING ? v->len : 0,
                                 .number = v->number};
    struct lease_add add = {.holder = d->env->incarnation,
                            .number = number,
                            .how = lease_how(m->to_left, LEASE_PLAIN, 0)};

    return store_arrive(d, &element, m->to, m->to_len, &add);
}

static int between(const struct dict *d, const struct lmove *m, uint32_t to,
                   void *buf, size_t size, struct shd_value *v)
{
    uint64_t number;
    int rc = leases_take(d, m->from_left, m->from, m->from_len, buf, size, v,
                         lease_how(m->from_left, LEASE_PINNED, to), &number);

    if (rc != SHD_OK)
        return rc;
    rc = copy(d, m, buf, v, number);
    if (rc == SHD_OK)
        rc = leases_land(d, d->env->incarnation, number);
    resolve(d, number, to);
    /* Its list has gone in the meantime, and with it the element. */
    return rc == SHD_LOST ? SHD_NOTFOUND : rc;
}

int store_lmove(const struct dict *d, const struct lmove *m, void *buf,
                size_t size, struct shd_value *v)
{
    struct place from = place_of_key(d, m->from, m->from_len);
    struct place to = place_of_key(d, m->to, m->to_len);

    lmove_go_on(d);
    return from.shard == to.shard ? within(d, m, &to, buf, size, v)
                                  : between(d, m, to.shard, buf, size, v);
}
