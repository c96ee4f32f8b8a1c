/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/lease.h"
#include "shm/base/error.h"
#include "shm/dict/index.h"

/* Nodes looked at under one root, for one hash. */
#define BELOW_STEPS 4096u

static struct cell *node_at(const struct dict *d, uint32_t ref)
{
    struct cell *c = cell_at(&d->pages, ref, SLAB_CELL_MIN);

    return c != NULL && cell_is_node(atomic_load32(&c->meta)) &&
                   !lease_is(atomic_load32(&c->meta))
               ? c
               : NULL;
}

struct lease *lease_at(const struct dict *d, uint32_t ref)
{
    struct cell *c = cell_at(&d->pages, ref, sizeof(struct lease));

    return c != NULL && lease_is(atomic_load32(&c->meta))
               ? (struct lease *)(void *)c
               : NULL;
}

static int damaged(const struct dict *d)
{
    return dict_damaged(d, "what is said of a lease leads outside");
}

/* ---- the tree ---------------------------------------------------------- */

static int lease_order(uint64_t holder, uint64_t number, const struct lease *l)
{
    uint64_t h = atomic_load64(&l->holder), n = atomic_load64(&l->number);

    if (holder != h)
        return holder < h ? -1 : 1;
    return number == n ? 0 : number < n ? -1 : 1;
}

int lease_find(const struct dict *d, uint32_t shard, uint64_t holder,
               uint64_t number, struct tree_path *path)
{
    uint32_t ref = atomic_load32(&d->shard[shard].leases);

    path->depth = 0;
    while (ref != 0) {
        const struct lease *l = lease_at(d, ref);
        int order;

        if (l == NULL || path->depth == TREE_DEPTH_MAX)
            return damaged(d);
        order = lease_order(holder, number, l);
        path->ref[path->depth] = ref;
        path->side[path->depth++] = order > 0;
        if (order == 0)
            return 1;
        ref = atomic_load32(&l->cell.word[order > 0]);
    }
    return 0;
}

/* The nearest on one side of (holder, number). */
static int lease_beside(const struct dict *d, uint32_t shard, uint64_t holder,
                        uint64_t number, bool after, const struct lease **out)
{
    uint32_t ref = atomic_load32(&d->shard[shard].leases);

    *out = NULL;
    for (uint32_t depth = 0; ref != 0; depth++) {
        const struct lease *l = lease_at(d, ref);
        int order;
        bool fits;

        if (l == NULL || depth == TREE_DEPTH_MAX)
            return damaged(d);
        order = lease_order(holder, number, l);
        fits = after ? order < 0 : order > 0;
        if (fits)
            *out = l;
        ref = atomic_load32(&l->cell.word[after ? !fits : fits]);
    }
    return *out != NULL;
}

int lease_after(const struct dict *d, uint32_t shard, uint64_t holder,
                uint64_t number, const struct lease **out)
{
    return lease_beside(d, shard, holder, number, true, out);
}

int lease_before(const struct dict *d, uint32_t shard, uint64_t holder,
                 uint64_t number, const struct lease **out)
{
    return lease_beside(d, shard, holder, number, false, out);
}

/* ---- one more, one less ------------------------------------------------- */

uint32_t lease_class(void)
{
    return slab_class(sizeof(struct lease));
}

static void lease_fill(struct lease *l, const struct lease_add *a,
                       uint64_t number, uint64_t list)
{
    for (int i = 0; i < 4; i++)
        atomic_store32(&l->cell.word[i], 0);
    atomic_store32(&l->cell.word[LEASE_LINK], a->node);
    atomic_store32(&l->cell.meta, CELL_NODE << CELL_KIND_SHIFT | LEASE_TYPE);
    atomic_store32(&l->cell.len, a->how);
    atomic_store64(&l->holder, a->holder);
    atomic_store64(&l->number, number);
    atomic_store64(&l->list, list);
    atomic_store64(&l->order, a->order);
}

/* Inside a transaction: the first of the chain. */
static int chain_push(const struct dict *d, struct txn *t,
                      struct entry_list *l, uint32_t entry, uint32_t node,
                      uint32_t lease)
{
    struct cell *n = node_at(d, node), *old = NULL;
    uint32_t first = atomic_load32(&l->leased);

    if (first != 0) {
        old = node_at(d, first);
        if (old == NULL)
            return damaged(d);
        txn_store32(t, &old->word[CHAIN_BACK], node);
    }
    if (n == NULL)
        return damaged(d);
    txn_store64(t, (uint64_t *)(void *)&n->word[0],
                (uint64_t)entry << 32 | first);
    txn_store32(t, &n->word[LEASE_LINK], lease);
    txn_store32(t, &l->leased, node);
    return SHD_OK;
}

/* What the leases of that list say of it; number, if there is none. */
static int list_number(const struct dict *d, const struct entry_list *l,
                       uint64_t number, uint64_t *list)
{
    uint32_t first = atomic_load32(&l->leased);
    const struct cell *node;
    const struct lease *lease;

    *list = number;
    if (first == 0)
        return SHD_OK;
    node = node_at(d, first);
    lease = node == NULL ? NULL : lease_at(d, lease_of(node));
    if (lease == NULL)
        return damaged(d);
    *list = atomic_load64(&lease->list);
    return SHD_OK;
}

int lease_add(const struct dict *d, uint32_t shard, struct txn *t,
              const struct lease_add *a, uint64_t *number)
{
    struct shard *s = &d->shard[shard];
    struct cell *entry = cell_at(&d->pages, a->of, SLAB_CELL_MIN);
    struct entry_list *l = entry == NULL ? NULL : entry_list(&d->pages, entry);
    uint64_t given = atomic_load64(&s->lease_count) + 1, list;
    struct tree_path path;
    uint32_t ref;
    int rc;

    if (l == NULL)
        return damaged(d);
    /* A chain's number is one of this shard's, whoever numbered the lease. */
    rc = list_number(d, l, given << 8 | shard, &list);
    *number = a->number != 0 ? a->number : given << 8 | shard;
    if (rc == SHD_OK)
        rc = lease_find(d, shard, a->holder, *number, &path);
    if (rc != SHD_OK)
        return rc == 1 ? damaged(d) : rc;
    rc = slab_alloc(&d->pages, &s->slab, t, dict_owner(shard), a->class,
                    PAGE_NONE, &ref);
    if (rc != SHD_OK)
        return rc;
    lease_fill(cell_fresh(&d->pages, ref), a, *number, list);
    rc = tree_insert(t, &d->pages.nodes, &s->leases, &path, ref);
    txn_store64(t, &s->lease_count, given);
    txn_store32(t, &s->n_leases, atomic_load32(&s->n_leases) + 1);
    return rc == SHD_OK ? chain_push(d, t, l, a->of, a->node, ref) : rc;
}

int lease_drop(const struct dict *d, uint32_t shard, struct txn *t,
               struct tree_path *path)
{
    struct shard *s = &d->shard[shard];
    uint32_t ref = path->ref[path->depth - 1];
    struct lease *l = lease_at(d, ref);
    struct cell *node;
    uint32_t named;
    int rc;

    if (l == NULL)
        return damaged(d);
    named = atomic_load32(&l->cell.word[LEASE_LINK]);
    node = named == 0 ? NULL : node_at(d, named);
    if (named != 0 && (node == NULL || lease_of(node) != ref))
        return damaged(d);
    if (node != NULL)
        txn_store32(t, &node->word[LEASE_LINK], 0);
    rc = tree_remove(t, &d->pages.nodes, &s->leases, path);
    if (rc != SHD_OK)
        return rc;
    txn_store32(t, &s->n_leases, atomic_load32(&s->n_leases) - 1);
    if (slab_frees_briefly(&d->pages, dict_owner(shard), ref))
        return slab_free(&d->pages, &s->slab, t, dict_owner(shard), ref);
    txn_store32(t, &l->cell.word[CHAIN_GARBAGE], atomic_load32(&s->garbage));
    txn_store32(t, &s->garbage, ref);
    return SHD_OK;
}

int lease_stage_set(const struct dict *d, struct txn *t, struct lease *l,
                    uint32_t stage)
{
    uint32_t how = atomic_load32(&l->cell.len);
    struct cell *node = node_at(d, atomic_load32(&l->cell.word[LEASE_LINK]));

    if (node == NULL)
        return damaged(d);
    txn_store32(t, &node->word[LEASE_LINK], 0);
    txn_store32(t, &l->cell.word[LEASE_LINK], 0);
    txn_store32(t, &l->cell.len,
                (how & ~(0xffu << LEASE_STAGE_SHIFT)) |
                    stage << LEASE_STAGE_SHIFT);
    return SHD_OK;
}

int lease_lose(const struct dict *d, uint32_t shard, struct txn *t,
               uint32_t node)
{
    const struct cell *n = node_at(d, node);
    struct lease *l = n == NULL ? NULL : lease_at(d, lease_of(n));
    struct tree_path path;
    int rc;

    if (l == NULL || atomic_load32(&l->cell.word[LEASE_LINK]) != node)
        return damaged(d);
    if (lease_stage(l) != LEASE_PLAIN)
        return lease_stage_set(d, t, l, LEASE_RETURNED);
    rc = lease_find(d, shard, atomic_load64(&l->holder),
                    atomic_load64(&l->number), &path);
    return rc == 1 ? lease_drop(d, shard, t, &path) : rc < 0 ? rc : damaged(d);
}

int lease_moved(const struct dict *d, uint32_t shard, struct txn *t,
                uint32_t new, const struct tree_path *path)
{
    const struct lease *l = cell_fresh(&d->pages, new);
    uint32_t named = atomic_load32(&l->cell.word[LEASE_LINK]);
    struct cell *node = named == 0 ? NULL : node_at(d, named);

    if (named != 0 && node == NULL)
        return damaged(d);
    if (node != NULL)
        txn_store32(t, &node->word[LEASE_LINK], new);
    return tree_replace(t, &d->pages.nodes, &d->shard[shard].leases, path,
                        new);
}

/* ---- its list ---------------------------------------------------------- */

/* Is it that entry's? 1, 0. */
static int is_of(const struct dict *d, const struct lease *l, uint32_t ref)
{
    struct entry *e = entry_at(&d->pages, ref);
    const struct entry_list *list;
    const struct lease *first;
    const struct cell *node;
    uint32_t leased;

    if ((atomic_load32(&e->cell.meta) & CELL_TYPE_MASK) != SHD_LIST)
        return 0;
    list = entry_list(&d->pages, &e->cell);
    if (list == NULL)
        return damaged(d);
    leased = atomic_load32(&list->leased);
    if (leased == 0)
        return 0;
    node = node_at(d, leased);
    first = node == NULL ? NULL : lease_at(d, lease_of(node));
    if (first == NULL)
        return damaged(d);
    return atomic_load64(&first->list) == atomic_load64(&l->list);
}

/* Among those of its hash under one root; hardly ever is there another. */
static int entry_below(const struct dict *d, const uint32_t *root,
                       const struct lease *l, uint32_t *entry)
{
    const uint32_t hash =
        (uint32_t)atomic_load64(&l->order) & ((1u << GRAIN_MAX) - 1);
    uint32_t stack[2 * TREE_DEPTH_MAX], depth = 0;
    uint32_t steps = BELOW_STEPS;

    stack[depth++] = atomic_load32(root);
    while (depth > 0) {
        uint32_t ref = stack[--depth], other;
        const struct entry *e;
        int rc;

        if (ref == 0)
            continue;
        e = entry_at(&d->pages, ref);
        if (e == NULL || steps-- == 0 || depth + 2 > 2 * TREE_DEPTH_MAX)
            return damaged(d);
        other = atomic_load32(&e->cell.meta) >> CELL_HASH_SHIFT;
        if (hash <= other)
            stack[depth++] = atomic_load32(&e->cell.word[0]);
        if (hash >= other)
            stack[depth++] = atomic_load32(&e->cell.word[1]);
        rc = hash == other ? is_of(d, l, ref) : 0;
        *entry = ref;
        if (rc != 0)
            return rc;
    }
    return 0;
}

int lease_entry(const struct dict *d, uint32_t shard, const struct lease *l,
                uint32_t *entry)
{
    uint64_t order = atomic_load64(&l->order), state = index_state(d);
    int rc;

    if (atomic_load32(&l->cell.word[LEASE_LINK]) == 0)
        return 0;
    if (order >> d->shard_shift != shard || !index_sound(state))
        return damaged(d);
    rc = entry_below(d, index_root(d, index_grain(state), order), l, entry);
    if (rc == 0 && index_moves(state))
        rc = entry_below(d, index_root(d, index_former(state), order), l,
                         entry);
    return rc;
}

int lease_unlink(const struct dict *d, struct txn *t, const struct lease *l,
                 uint32_t entry)
{
    uint32_t ref = atomic_load32(&l->cell.word[LEASE_LINK]);
    struct entry *e = entry_at(&d->pages, entry);
    struct entry_list *list =
        e == NULL ? NULL : entry_list(&d->pages, &e->cell);
    struct cell *node = node_at(d, ref), *before, *after;
    uint32_t next, back;

    if (list == NULL || node == NULL)
        return damaged(d);
    next = atomic_load32(&node->word[CHAIN_NEXT]);
    back = atomic_load32(&node->word[CHAIN_BACK]);
    before = back == entry ? NULL : node_at(d, back);
    after = next == 0 ? NULL : node_at(d, next);
    if ((before == NULL && atomic_load32(&list->leased) != ref) ||
        (back != entry && before == NULL) || (next != 0 && after == NULL))
        return damaged(d);
    txn_store32(t, before == NULL ? &list->leased : &before->word[CHAIN_NEXT],
                next);
    if (after != NULL)
        txn_store32(t, &after->word[CHAIN_BACK], back);
    return SHD_OK;
}

int lease_node_push(const struct dict *d, struct txn *t, uint32_t entry,
                    uint32_t node, bool left)
{
    struct entry *e = entry_at(&d->pages, entry);
    struct entry_list *l = e == NULL ? NULL : entry_list(&d->pages, &e->cell);
    struct cell *n = node_at(d, node), *end;
    uint32_t end_ref;

    if (l == NULL || n == NULL)
        return damaged(d);
    end_ref = atomic_load32(left ? &l->first : &l->last);
    if (end_ref == 0) {
        txn_store64(t, (uint64_t *)(void *)&n->word[0],
                    (uint64_t)entry << 32 | entry);
        txn_store64(t, (uint64_t *)(void *)&l->first,
                    (uint64_t)node << 32 | node);
    } else {
        end = node_at(d, end_ref);
        if (end == NULL)
            return damaged(d);
        txn_store64(t, (uint64_t *)(void *)&n->word[0],
                    left ? (uint64_t)entry << 32 | end_ref
                         : (uint64_t)end_ref << 32 | entry);
        txn_store32(t, &end->word[left ? CHAIN_BACK : CHAIN_NEXT], node);
        txn_store32(t, left ? &l->first : &l->last, node);
    }
    txn_store32(t, &l->count, atomic_load32(&l->count) + 1);
    return SHD_OK;
}
