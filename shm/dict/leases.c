/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A lease comes to its end: the element is done, or goes back to the end of
 * the list that it came from. If its list has been deleted, has been evicted
 * or is another one by now, the element has gone with it, or lies on the
 * garbage; then there is only the lease to be freed.
 */
#include "shm/dict/lease.h"
#include "shm/base/error.h"
#include "shm/dict/forest.h"

/* Leases that are given back in one hold of the lock. */
#define BACK_A_HOLD 16

#define BACK_WORDS (LEASE_LINK_WORDS + LEASE_RETURN_WORDS + LEASE_DROP_WORDS)
/* The node goes; and its list, if there was nothing else in it. */
#define DONE_WORDS                                                            \
    (LEASE_LINK_WORDS + LEASE_DROP_WORDS + ROOM_DISCARD_WORDS +               \
     ROOM_REMOVE_WORDS + 2u)

static_assert(BACK_WORDS <= GUARD_UNDO_MAX, "log");
static_assert(DONE_WORDS <= GUARD_UNDO_MAX, "log");

/* The element goes from one chain of the list into another. */
#define TAKE_WORDS                                                            \
    (LEASE_ADD_WORDS + LEASE_LINK_WORDS + LIST_UNLINK_WORDS + 2 * LIST_WORDS)

static_assert(TAKE_WORDS <= GUARD_UNDO_MAX, "log");

/* ---- taking ------------------------------------------------------------- */

struct take {
    struct end_call call;
    uint32_t how;
    uint64_t number;
};

static int take(struct attempt *a, struct end_call *c,
                const struct list_end *end)
{
    struct take *take = (struct take *)(void *)c;
    const struct dict *d = a->d;
    struct lease_add add = {.holder = d->env->incarnation,
                            .order = a->at.order,
                            .of = a->old,
                            .node = end->node,
                            .how = take->how,
                            .class = attempt_class(a, c->class)};
    struct txn t;
    int rc = slab_prepare(&d->pages, &a->shard->slab, add.class);

    if (rc != SHD_OK)
        return rc;
    attempt_begin(a, &t, TAKE_WORDS);
    rc = list_unlink(a, &t, end);
    if (rc == SHD_OK)
        rc = lease_add(d, a->at.shard, &t, &add, &take->number);
    if (rc == SHD_OK)
        rc = room_used(d, a->at.shard, &t, a->old);
    return attempt_end(&t, rc);
}

int leases_take(const struct dict *d, bool left, const void *key, size_t len,
                void *buf, size_t size, struct shd_value *v, uint32_t how,
                uint64_t *number)
{
    struct take t = {.call = {take, lease_class(), 1}, .how = how};
    int rc = store_end(d, left, key, len, buf, size, v, &t.call);

    *number = rc == SHD_OK ? t.number : 0;
    return rc;
}

/* ---- one of them ---------------------------------------------------------
 */

/* A lease under the lock of its shard. */
struct held {
    const struct dict *d;
    uint32_t shard;
    struct tree_path path; /* to it */
    struct lease *lease;
    uint32_t node, entry; /* the element's and the list's; 0: it has gone */
};

static void begin(const struct held *h, struct txn *t, uint32_t words)
{
    txn_begin(t, h->d->env->segment, dict_guard(h->d, h->shard), words);
}

/* 1, 0: there is no such lease. */
static int find(struct held *h, uint64_t holder, uint64_t number)
{
    int rc = lease_find(h->d, h->shard, holder, number, &h->path);

    if (rc != 1)
        return rc;
    h->lease = lease_at(h->d, h->path.ref[h->path.depth - 1]);
    h->node = atomic_load32(&h->lease->cell.word[LEASE_LINK]);
    h->entry = 0;
    rc = lease_entry(h->d, h->shard, h->lease, &h->entry);
    if (rc == 0)
        h->entry = 0;
    return rc < 0 ? rc : 1;
}

static bool is_left(const struct held *h)
{
    return (atomic_load32(&h->lease->cell.len) & LEASE_LEFT) != 0;
}

/* The lease alone. */
static int drop(struct held *h)
{
    struct txn t;

    begin(h, &t, LEASE_DROP_WORDS);
    return attempt_end(&t, lease_drop(h->d, h->shard, &t, &h->path));
}

/* Inside a transaction: the element is one of the list's again. */
static int put_back(const struct held *h, struct txn *t)
{
    int rc = lease_unlink(h->d, t, h->lease, h->entry);

    return rc == SHD_OK
               ? lease_node_push(h->d, t, h->entry, h->node, is_left(h))
               : rc;
}

static int back(struct held *h)
{
    struct txn t;
    int rc;

    if (h->entry == 0)
        return drop(h);
    begin(h, &t, BACK_WORDS);
    rc = put_back(h, &t);
    if (rc == SHD_OK)
        rc = lease_drop(h->d, h->shard, &t, &h->path);
    return attempt_end(&t, rc);
}

/* Is there nothing in the list but this element? */
static bool is_alone(const struct held *h)
{
    const struct entry *e = entry_at(&h->d->pages, h->entry);
    struct entry_list *l =
        entry_list(&h->d->pages, (struct cell *)(uintptr_t)&e->cell);
    const struct cell *node = cell_at(&h->d->pages, h->node, SLAB_CELL_MIN);

    return l != NULL && node != NULL && atomic_load32(&l->count) == 0 &&
           atomic_load32(&l->leased) == h->node &&
           atomic_load32(&node->word[CHAIN_NEXT]) == 0;
}

/* The element goes, and an empty list. The lease goes with it, or has another
 * stage. */
static int done(struct held *h, uint32_t stage)
{
    const struct dict *d = h->d;
    struct tree_path path;
    struct place at;
    struct txn t;
    bool alone;
    int rc;

    if (h->entry == 0)
        return drop(h);
    alone = is_alone(h);
    if (alone) {
        rc = forest_path_of(d, h->shard, h->entry, &at, &path);
        if (rc != 1)
            return rc;
    }
    begin(h, &t, DONE_WORDS);
    rc = lease_unlink(d, &t, h->lease, h->entry);
    if (rc == SHD_OK)
        rc = stage == LEASE_PLAIN ? lease_drop(d, h->shard, &t, &h->path)
                                  : lease_stage_set(d, &t, h->lease, stage);
    if (rc == SHD_OK)
        rc = room_discard(d, h->shard, &t, h->node);
    if (rc == SHD_OK && alone)
        rc = room_remove(d, h->shard, &t, &at, &path, ROOM_DELETED);
    return attempt_end(&t, rc);
}

/* What has been discarded is freed, as after a pop. */
static void unlock(const struct dict *d, uint32_t shard)
{
    uint32_t garbage = atomic_load32(&d->shard[shard].garbage);

    dict_unlock(d, shard);
    if (garbage != 0)
        (void)room_settle(d, shard, 0);
}

int leases_end(const struct dict *d, uint64_t holder, uint64_t number,
               enum lease_end end)
{
    struct held h = {.d = d, .shard = lease_shard(number)};
    bool lost;
    int rc;

    if (h.shard >= d->shards)
        return SHD_LOST;
    rc = dict_lock(d, h.shard);
    if (rc != SHD_OK)
        return rc;
    rc = find(&h, holder, number);
    if (rc == 0 || (rc == 1 && lease_stage(h.lease) != LEASE_PLAIN)) {
        rc = SHD_LOST;
    } else if (rc == 1) {
        lost = h.entry == 0;
        rc = end == LEASE_DONE ? done(&h, LEASE_PLAIN) : back(&h);
        if (rc == SHD_OK && lost)
            rc = SHD_LOST;
    }
    unlock(d, h.shard);
    return rc;
}

/* ---- moves ------------------------------------------------------------- */

int leases_land(const struct dict *d, uint64_t holder, uint64_t number)
{
    struct held h = {.d = d, .shard = lease_shard(number)};
    int rc = dict_lock(d, h.shard);

    if (rc != SHD_OK)
        return rc;
    rc = find(&h, holder, number);
    if (rc == 1)
        rc = lease_stage(h.lease) == LEASE_PINNED && h.entry != 0
                 ? done(&h, LEASE_LANDED)
                 : SHD_LOST;
    else if (rc == 0)
        rc = SHD_LOST;
    unlock(d, h.shard);
    return rc;
}

/* The element goes back to where it is moved from. */
static int returned(struct held *h)
{
    struct txn t;
    int rc = SHD_OK;

    begin(h, &t, BACK_WORDS);
    if (h->entry != 0)
        rc = put_back(h, &t);
    if (rc == SHD_OK)
        rc = lease_stage_set(h->d, &t, h->lease, LEASE_RETURNED);
    return attempt_end(&t, rc);
}

#define HERE_GONE 2

/* Where it comes from: 1: the copy is the element; 0: it is not; HERE_GONE:
 * there is no lease. *to: the shard it is moved to, if that is told. */
static int here(struct held *h, uint64_t holder, uint64_t number, uint32_t *to)
{
    int rc = find(h, holder, number);

    if (rc != 1)
        return rc == 0 ? HERE_GONE : rc;
    if (lease_stage(h->lease) == LEASE_PLAIN)
        return SHD_LOST;
    *to = lease_to(h->lease);
    if (lease_stage(h->lease) == LEASE_LANDED)
        return 1;
    return lease_stage(h->lease) == LEASE_PINNED ? returned(h) : 0;
}

static int here_locked(const struct dict *d, uint64_t holder, uint64_t number,
                       uint32_t *to)
{
    struct held h = {.d = d, .shard = lease_shard(number)};
    int rc = dict_lock(d, h.shard);

    if (rc != SHD_OK)
        return rc;
    rc = here(&h, holder, number, to);
    unlock(d, h.shard);
    return rc;
}

static int there(const struct dict *d, uint32_t shard, uint64_t holder,
                 uint64_t number, bool landed)
{
    struct held h = {.d = d, .shard = shard};
    int rc = dict_lock(d, shard);

    if (rc != SHD_OK)
        return rc;
    rc = find(&h, holder, number);
    if (rc == 1)
        rc = landed ? back(&h) : done(&h, LEASE_PLAIN);
    unlock(d, shard);
    return rc;
}

static int over(const struct dict *d, uint64_t holder, uint64_t number)
{
    struct held h = {.d = d, .shard = lease_shard(number)};
    int rc = dict_lock(d, h.shard);

    if (rc != SHD_OK)
        return rc;
    rc = find(&h, holder, number);
    if (rc == 1)
        rc = h.node == 0 ? drop(&h) : SHD_OK;
    unlock(d, h.shard);
    return rc;
}

int leases_resolve(const struct dict *d, uint64_t holder, uint64_t number,
                   uint32_t to)
{
    int landed;

    if (lease_shard(number) >= d->shards)
        return dict_damaged(d, "a lease was given in no shard");
    landed = here_locked(d, holder, number, &to);
    if (landed == SHD_LOST)
        return SHD_OK; /* no move's */
    if (landed < 0)
        return landed;
    /* Who saw the lease there still is late: another has seen to it all. */
    if (landed == HERE_GONE && to == lease_shard(number))
        return SHD_OK;
    if (to >= d->shards || to == lease_shard(number))
        return dict_damaged(d, "something is moved to no shard");
    /* Without a lease here there is no element here either: of a copy that is
     * there all the same, a repair took the original. */
    int rc = there(d, to, holder, number, landed != 0);

    return rc == SHD_OK ? over(d, holder, number) : rc;
}

/* ---- of the dead -------------------------------------------------------- */

int leases_holder(const struct dict *d, uint32_t shard, uint64_t after,
                  uint64_t *holder)
{
    const struct lease *l;
    struct reading r;
    int rc;

    reading_begin(&r, d->env, dict_guard(d, shard));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        rc = !dict_enter(d, shard) ? SHD_GONE
             : atomic_load32(&d->shard[shard].n_leases) == 0
                 ? 0
                 : lease_after(d, shard, after, UINT64_MAX, &l);
        if (rc == 1)
            *holder = atomic_load64(&l->holder);
    } while (!reading_done(&r));
    return rc == SHD_GONE ? dict_gone_error(d) : rc;
}

/* In a read section: those of one shard. */
static int count_held(const struct dict *d, uint32_t shard, uint64_t holder,
                      uint64_t *count)
{
    uint64_t number = 0, n = 0, max = atomic_load32(&d->shard[shard].n_leases);
    const struct lease *l;
    int rc;

    while ((rc = lease_after(d, shard, holder, number, &l)) == 1 &&
           atomic_load64(&l->holder) == holder && n < max) {
        uint64_t next = atomic_load64(&l->number);

        if (next <= number)
            return SHD_CORRUPT;
        number = next;
        n++;
    }
    *count = n;
    return rc < 0 ? rc : SHD_OK;
}

int leases_held(const struct dict *d, uint64_t holder, uint64_t *count)
{
    *count = 0;
    for (uint32_t i = 0; i < d->shards; i++) {
        uint64_t n = 0;
        struct reading r;
        int rc;

        /* Most have none; then who sits on the lock matters to nobody. */
        if (!dict_enter(d, i))
            return dict_gone_error(d);
        if (atomic_load32(&d->shard[i].n_leases) == 0)
            continue;
        reading_begin(&r, d->env, dict_guard(d, i));
        do {
            rc = reading_try(&r);
            if (rc != SHD_OK)
                return rc;
            rc = dict_enter(d, i) ? count_held(d, i, holder, &n) : SHD_GONE;
        } while (!reading_done(&r));
        if (rc != SHD_OK)
            return rc;
        *count += n;
    }
    return SHD_OK;
}

/* With the lock: gives some back, the last one first, so that they stand as
 * they did. 1: there may be more, before *number. 0: there are none. 2:
 * *number is of a move. */
static int back_some(const struct dict *d, uint32_t shard, uint64_t holder,
                     uint64_t *number)
{
    struct held h = {.d = d, .shard = shard};

    for (int i = 0; i < BACK_A_HOLD; i++) {
        const struct lease *l;
        int rc = lease_before(d, shard, holder, *number, &l);

        if (rc != 1 || atomic_load64(&l->holder) != holder)
            return rc < 0 ? rc : 0;
        *number = atomic_load64(&l->number);
        if (lease_stage(l) != LEASE_PLAIN || lease_shard(*number) != shard)
            return 2;
        rc = find(&h, holder, *number);
        if (rc == 1)
            rc = back(&h);
        if (rc < 0)
            return rc;
    }
    return 1;
}

int leases_give_back(const struct dict *d, uint32_t shard, uint64_t holder)
{
    uint64_t number = UINT64_MAX;
    int rc = 1, first = SHD_OK;

    /* Each round begins before the number that the last one ended with. */
    while (rc > 0) {
        rc = dict_lock(d, shard);
        if (rc != SHD_OK)
            return rc;
        rc = back_some(d, shard, holder, &number);
        unlock(d, shard);
        /* A move that another shard is too busy for keeps none of the others
         * from coming back. */
        if (rc == 2) {
            int moved = leases_resolve(d, holder, number, shard);

            first = first == SHD_OK ? moved : first;
        }
    }
    return rc < 0 ? rc : first;
}
