/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Room is made in the order garbage, expired, then (unless the store is safe)
 * the least recently used, else by compaction. For the live ones:
 *
 *   one of the wanted class is at the tail, or hardly younger
 *       it goes, its cell is taken over
 *   a class has a page's worth of free cells
 *       the cells of its emptiest page move: a free page serves any class
 *   neither
 *       the tail goes, whatever its class
 *
 * so a store is never refused because the sizes in use have changed, nothing
 * goes but for its age, and less than a page a class lies idle.
 *
 * A mark does not tell when the entry was read. When all that is asked for
 * changes at once, those that were read before get their second chance after
 * it, among the new ones, which then go first. It shows: of those that come to
 * the tail again none has been read. So after VAIN_MANY such in a row the
 * pages are gone through, once, and whatever has had its chance and was not
 * read since goes before the tail does. Nothing moves for that: the list stays
 * in its order. (Moving new ones to the front instead hits as often; places
 * near the tail for second chances, or none for old marks, hit less where the
 * keys stay.)
 *
 * Between shards: a shard's share of the pages follows the age of its LRU
 * tail, estimated by when the tail's page was last written to. A shard whose
 * own tail is about as old as the oldest evicts at home.
 */
#include "shm/dict/room.h"
#include "shm/dict/lease.h"
#include "shm/dict/move.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"

#include <string.h>

/* Marked tails that get their second chance in one step. */
#define SECOND_CHANCES 64
/* Second chances in a row that nobody took, until those given are doubted.
 * Fewer, and it is before all the old ones have had theirs; more, and more of
 * the new ones have gone meanwhile. */
#define VAIN_MANY 128u
/* Pages looked at in one step, of which few may be this shard's. */
#define SWEEP_PAGES 512u
/* Entries of other classes that are passed over for one of the wanted. */
#define WINDOW 128
/* Cells freed by one transaction, each with its page's leaving the tree. */
#define COLLECT_CELLS 4
#define COLLECT_WORDS (COLLECT_CELLS * (SLAB_FREE_WORDS + 4u))
/* Transactions in one hold of the lock. */
#define COLLECT_STEPS 16
static_assert(COLLECT_CELLS * COLLECT_STEPS == ROOM_SETTLE_CELLS, "settle");
#define AGE_MASK 0xffffu
/* Shards whose age is compared before evicting at home. */
#define NEIGHBOURS 8u
/* From a list's node, or a chain's cell, back to whose it is: the lock is held
 * meanwhile, for each cell of a page. */
#define OWNER_STEPS 256

/* A leased element, in a transaction of its own. */
#define LEASED_WORDS (LEASE_DROP_WORDS + SLAB_FREE_WORDS + 1u)
static_assert(COLLECT_WORDS <= GUARD_UNDO_MAX, "log");
static_assert(LEASED_WORDS <= COLLECT_WORDS, "log");
static_assert(COLLECT_CELLS <= GUARD_RELEASES_MAX, "log");

static uint32_t class_of(const struct dict *d, uint32_t ref)
{
    uint32_t page = cell_page(&d->pages, ref);

    return page == PAGE_NONE ? SLAB_CLASSES
                             : page_class(&d->pages.table[page]);
}

/* Lets other shards see how old this one's tail is. */
static void publish_tail(const struct dict *d, uint32_t shard, struct txn *t)
{
    struct shard *s = &d->shard[shard];
    uint32_t page = cell_page(&d->pages, atomic_load32(&s->lru.last));
    uint32_t stamp;

    if (page == PAGE_NONE)
        return;
    stamp = (uint32_t)(atomic_load64(&d->pages.table[page].expiry) >> 48);
    if (stamp != atomic_load32(&s->tail_stamp))
        txn_store32(t, &s->tail_stamp, stamp);
}

static bool has_attachments(const struct cell *c)
{
    uint32_t meta = atomic_load32(&c->meta);

    if (cell_kind(meta) == CELL_CHAIN)
        return false;
    if (cell_kind(meta) == CELL_NODE)
        return (meta & CELL_CHAINED) != 0;
    return (meta & CELL_TYPE_MASK) == SHD_LIST ||
           entry_has_chain(
               meta,
               entry_key_len(atomic_load64(
                   &((const struct entry *)(const void *)c)->key_expires)));
}

/* The cell that a value which begins in its entry's ends in, if freeing that
 * takes few stores; 0: put it on the garbage, whatever it is. */
static uint32_t brief_tail(const struct dict *d, uint32_t shard,
                           struct cell *c)
{
    uint32_t meta = atomic_load32(&c->meta), prefix, ref;
    const struct entry *e = (const struct entry *)(const void *)c;
    const uint32_t *chain;
    const struct cell *tail;

    if (cell_kind(meta) != CELL_ENTRY || (meta & CELL_CHAINED) == 0)
        return 0;
    prefix = entry_prefix(
        &d->pages, c,
        entry_value_at(meta, entry_key_len(atomic_load64(&e->key_expires))));
    chain = entry_chain(&d->pages, c);
    if (prefix == 0 || prefix == UINT32_MAX || chain == NULL)
        return 0;
    ref = atomic_load32(chain);
    tail = cell_at(&d->pages, ref, sizeof(*tail));
    return ref != 0 && tail != NULL &&
                   atomic_load32(&tail->word[CHAIN_NEXT]) == 0 &&
                   slab_frees_briefly(&d->pages, dict_owner(shard), ref)
               ? ref
               : 0;
}

int room_discard(const struct dict *d, uint32_t shard, struct txn *t,
                 uint32_t ref)
{
    struct shard *s = &d->shard[shard];
    struct cell *c = cell_at(&d->pages, ref, SLAB_CELL_MIN);
    bool alone;

    if (c == NULL)
        return dict_damaged(d, "a link leads outside");
    alone = !has_attachments(c);
    if (!alone) {
        uint32_t tail = brief_tail(d, shard, c);

        alone = tail != 0;
        if (alone) {
            int rc = slab_free(&d->pages, &s->slab, t, dict_owner(shard), tail);

            if (rc != SHD_OK)
                return rc;
        }
    }
    if (alone)
        return slab_free(&d->pages, &s->slab, t, dict_owner(shard), ref);
    txn_store32(t, &c->word[CHAIN_GARBAGE], atomic_load32(&s->garbage));
    txn_store32(t, &s->garbage, ref);
    return SHD_OK;
}

int room_remove(const struct dict *d, uint32_t shard, struct txn *t,
                const struct place *at, struct tree_path *path, int why)
{
    struct shard *s = &d->shard[shard];
    uint32_t ref = path->ref[path->depth - 1];
    bool in_vain =
        why == ROOM_OLD && dict_had_chance(d, ref) && !dict_is_marked(d, ref);
    int rc = tree_remove(t, &d->pages.nodes, at->root, path);

    if (rc == SHD_OK)
        rc = list_remove(&d->pages, t, &s->lru, ref);
    if (rc == SHD_OK)
        rc = room_discard(d, shard, t, ref);
    if (rc != SHD_OK)
        return rc;
    txn_store64(t, &s->entries, atomic_load64(&s->entries) - 1);
    txn_store64(t, &s->shuffles, atomic_load64(&s->shuffles) + 1);
    if (why == ROOM_EXPIRED)
        txn_store64(t, &s->expirations, atomic_load64(&s->expirations) + 1);
    if (why >= ROOM_EVICTED) {
        txn_store64(t, &s->evictions, atomic_load64(&s->evictions) + 1);
        if (in_vain && atomic_load32(&s->vain) < VAIN_MANY)
            txn_store32(t, &s->vain, atomic_load32(&s->vain) + 1);
        publish_tail(d, shard, t);
    }
    return SHD_OK;
}

/* One transaction that removes the entry at ref. */
static int remove_entry(const struct dict *d, uint32_t shard, uint32_t ref,
                        int why)
{
    struct tree_path path;
    struct place at;
    struct txn t;
    int rc = forest_path_of(d, shard, ref, &at, &path);

    if (rc != 1)
        return rc;
    txn_begin(&t, d->env->segment, dict_guard(d, shard), ROOM_REMOVE_WORDS);
    rc = room_remove(d, shard, &t, &at, &path, why);
    if (rc == SHD_OK)
        txn_commit(&t);
    else
        txn_abort(&t);
    return rc;
}

int room_touch(const struct dict *d, uint32_t shard, struct txn *t,
               uint32_t ref)
{
    struct shard *s = &d->shard[shard];
    int rc = list_touch(&d->pages, t, &s->lru, ref);

    if (rc == 1) {
        txn_store64(t, &s->shuffles, atomic_load64(&s->shuffles) + 1);
        rc = SHD_OK;
    }
    return rc;
}

int room_used(const struct dict *d, uint32_t shard, struct txn *t,
              uint32_t ref)
{
    if (dict_has_order(d))
        return room_touch(d, shard, t, ref);
    dict_set_mark(d, ref, true);
    return SHD_OK;
}

/* ---- garbage ---------------------------------------------------------- */

/* Frees the first cells of the chain behind *head, at most *left. */
static int collect_chain(const struct dict *d, uint32_t shard, struct txn *t,
                         uint32_t *head, int *left)
{
    uint32_t ref = atomic_load32(head);
    int rc = SHD_OK;

    /* One that is in a circle is met again, and is free then. */
    for (; ref != 0 && *left > 0 && rc == SHD_OK; --*left) {
        const struct cell *c = cell_at(&d->pages, ref, sizeof(*c));
        uint32_t next;

        if (c == NULL)
            return dict_damaged(d, "a chain leads outside");
        next = atomic_load32(&c->word[CHAIN_NEXT]);
        rc = slab_free(&d->pages, &d->shard[shard].slab, t, dict_owner(shard),
                       ref);
        ref = next;
    }
    txn_store32(t, head, ref);
    return rc;
}

/* The same of a chain that is garbage itself; `next` comes after it. */
static int collect_loose(const struct dict *d, uint32_t shard, struct txn *t,
                         uint32_t next, int *left)
{
    uint32_t *garbage = &d->shard[shard].garbage, rest;
    struct cell *c;
    int rc = collect_chain(d, shard, t, garbage, left);

    if (rc != SHD_OK)
        return rc;
    rest = atomic_load32(garbage);
    c = cell_at(&d->pages, rest, sizeof(*c));
    if (rest == 0)
        txn_store32(t, garbage, next);
    else if (c == NULL)
        return dict_damaged(d, "a chain leads outside");
    else
        txn_store32(t, &c->word[CHAIN_GARBAGE], next);
    return SHD_OK;
}

/* Frees the first node of a list on the garbage, or of its chain. */
static int collect_list(const struct dict *d, uint32_t shard, struct txn *t,
                        struct entry_list *l, uint32_t entry, int *left)
{
    uint32_t ref = atomic_load32(&l->first);
    struct cell *node = cell_at(&d->pages, ref, SLAB_CELL_MIN);
    uint32_t next;

    if (node == NULL)
        return dict_damaged(d, "a list leads outside");
    if ((atomic_load32(&node->meta) & CELL_CHAINED) != 0) {
        uint32_t *chain = entry_chain(&d->pages, node);

        if (chain != NULL && atomic_load32(chain) != 0)
            return collect_chain(d, shard, t, chain, left);
    }
    --*left;
    next = atomic_load32(&node->word[CHAIN_NEXT]);
    /* The last node leads back to the entry. */
    txn_store32(t, &l->first, next == entry ? 0 : next);
    return slab_free(&d->pages, &d->shard[shard].slab, t, dict_owner(shard),
                     ref);
}

/* Frees the first leased node of a list on the garbage, or of its chain. Its
 * holder has lost it. */
static int collect_leased(const struct dict *d, uint32_t shard, struct txn *t,
                          struct entry_list *l, int *left)
{
    uint32_t ref = atomic_load32(&l->leased);
    struct cell *node = cell_at(&d->pages, ref, SLAB_CELL_MIN);
    int rc;

    if (node == NULL)
        return dict_damaged(d, "a list's leased element leads outside");
    if ((atomic_load32(&node->meta) & CELL_CHAINED) != 0) {
        uint32_t *chain = entry_chain(&d->pages, node);

        if (chain != NULL && atomic_load32(chain) != 0)
            return collect_chain(d, shard, t, chain, left);
    }
    /* Others have had their part of this transaction's words. */
    if (*left != COLLECT_CELLS) {
        *left = 0;
        return SHD_OK;
    }
    *left = 0;
    rc = lease_of(node) == 0 ? SHD_OK : lease_lose(d, shard, t, ref);
    if (rc != SHD_OK)
        return rc;
    txn_store32(t, &l->leased, atomic_load32(&node->word[CHAIN_NEXT]));
    return slab_free(&d->pages, &d->shard[shard].slab, t, dict_owner(shard),
                     ref);
}

/* Frees of what is on top of the garbage one cell, or *left of a chain; and
 * takes as many off *left. */
static int collect_some(const struct dict *d, uint32_t shard, struct txn *t,
                        int *left)
{
    struct shard *s = &d->shard[shard];
    uint32_t ref = atomic_load32(&s->garbage);
    struct cell *c = cell_at(&d->pages, ref, sizeof(*c));
    uint32_t meta, next;

    if (c == NULL)
        return dict_damaged(d, "the garbage leads outside");
    meta = atomic_load32(&c->meta);
    next = atomic_load32(&c->word[CHAIN_GARBAGE]);
    if (cell_kind(meta) == CELL_CHAIN)
        return collect_loose(d, shard, t, next, left);
    if (has_attachments(c)) {
        if ((meta & CELL_TYPE_MASK) == SHD_LIST) {
            struct entry_list *l = entry_list(&d->pages, c);

            if (l == NULL)
                return dict_damaged(d, "a list crosses its page");
            if (atomic_load32(&l->first) != 0)
                return collect_list(d, shard, t, l, ref, left);
            if (atomic_load32(&l->leased) != 0)
                return collect_leased(d, shard, t, l, left);
        }
        if ((meta & CELL_TYPE_MASK) != SHD_LIST ||
            entry_has_chain(
                meta,
                entry_key_len(atomic_load64(
                    &((const struct entry *)(const void *)c)->key_expires)))) {
            uint32_t *chain = entry_chain(&d->pages, c);

            if (chain == NULL)
                return dict_damaged(d, "a chain crosses its page");
            if (atomic_load32(chain) != 0)
                return collect_chain(d, shard, t, chain, left);
        }
    }
    --*left;
    txn_store32(t, &s->garbage, next);
    return slab_free(&d->pages, &s->slab, t, dict_owner(shard), ref);
}

int room_collect(const struct dict *d, uint32_t shard)
{
    struct shard *s = &d->shard[shard];

    if (atomic_load32(&s->garbage) == 0)
        return 0;
    for (int step = 0; step < COLLECT_STEPS; step++) {
        struct txn t;
        int left = COLLECT_CELLS, rc = SHD_OK;

        txn_begin(&t, d->env->segment, dict_guard(d, shard), COLLECT_WORDS);
        while (left > 0 && rc == SHD_OK && atomic_load32(&s->garbage) != 0)
            rc = collect_some(d, shard, &t, &left);
        if (rc != SHD_OK) {
            txn_abort(&t);
            return rc;
        }
        txn_commit(&t);
        if (atomic_load32(&s->garbage) == 0)
            break;
    }
    return 1;
}

int room_settle(const struct dict *d, uint32_t shard, uint64_t holds)
{
    if (holds == 0)
        holds = (uint64_t)d->pages.max * (PAGE_BYTES / SLAB_CELL_MIN) /
                    ROOM_SETTLE_CELLS +
                1;
    while (atomic_load32(&d->shard[shard].garbage) != 0 && holds-- > 0) {
        int rc = dict_lock(d, shard);

        if (rc != SHD_OK)
            return rc;
        rc = room_collect(d, shard);
        dict_unlock(d, shard);
        if (rc < 0)
            return rc;
    }
    return SHD_OK;
}

/* ---- expiry ----------------------------------------------------------- */

/* Looks through a page for an expired entry: its ref, or 0 and the earliest
 * expiry that is left. */
static uint32_t find_expired(const struct dict *d, uint32_t page, uint64_t now,
                             uint64_t *earliest)
{
    uint32_t at = 0, ref;

    *earliest = 0;
    while ((ref = slab_next_used(&d->pages, page, &at)) != 0) {
        const struct entry *e = entry_at(&d->pages, ref);
        uint64_t expires;

        if (e == NULL || cell_kind(atomic_load32(&e->cell.meta)) != CELL_ENTRY)
            continue;
        expires = atomic_load64(&e->key_expires) & ENTRY_EXPIRES_MASK;
        if (expires == 0)
            continue;
        if (expires <= now)
            return ref;
        if (*earliest == 0 || expires < *earliest)
            *earliest = expires;
    }
    return 0;
}

static int raise_bound(const struct dict *d, uint32_t shard, uint32_t page,
                       uint64_t earliest)
{
    struct txn t;
    int rc;

    txn_begin(&t, d->env->segment, dict_guard(d, shard), SLAB_EXPIRY_WORDS);
    rc = slab_expiry_set(&d->pages, &d->shard[shard].slab, &t, page, earliest);
    if (rc == SHD_OK)
        txn_commit(&t);
    else
        txn_abort(&t);
    return rc;
}

int room_expire(const struct dict *d, uint32_t shard, uint64_t max)
{
    struct shard *s = &d->shard[shard];
    uint64_t now = clock_now_ms();
    int removed = 0;

    /* Every turn removes an entry or raises a page's bound past now, and
     * nothing lowers one meanwhile. */
    for (uint64_t turns = 0; turns <= d->pages.max + 128ull; turns++) {
        uint64_t bound, earliest;
        uint32_t page = slab_expiry_first(&d->pages, &s->slab, &bound);
        uint32_t ref;
        int rc;

        if (page == PAGE_NONE || bound > now)
            slab_expiry_publish(&d->pages, &s->slab, dict_guard(d, shard));
        if (page == PAGE_NONE || bound > now || (uint64_t)removed >= max)
            return removed;
        if (atomic_load32(&d->pages.table[page].owner) != dict_owner(shard))
            return dict_damaged(d,
                                "the tree of expiries names another's page");
        /* Entries on the garbage still lie in their pages, expiry and all. */
        rc = room_collect(d, shard);
        if (rc < 0)
            return rc;
        if (rc > 0 && atomic_load32(&s->garbage) != 0)
            return removed;
        if (rc > 0)
            continue;
        ref = find_expired(d, page, now, &earliest);
        if (ref != 0) {
            rc = remove_entry(d, shard, ref, ROOM_EXPIRED);
            removed++;
        } else {
            rc = raise_bound(d, shard, page, earliest);
        }
        if (rc != SHD_OK)
            return rc;
        if (removed >= (int)(PAGE_BYTES / SLAB_CELL_MIN))
            return removed;
    }
    return removed;
}

/* Before which nothing in the shards expires, by their words; 0: nothing
 * does. *where, if not NULL, gets the shard. */
static uint64_t soonest_of_shards(const struct dict *d, uint32_t *where)
{
    uint64_t soonest = 0;

    for (uint32_t i = 0; i < d->shards; i++) {
        uint64_t own = atomic_load64(&d->shard[i].slab.soonest);

        if (own != 0 && (soonest == 0 || own < soonest)) {
            soonest = own;
            if (where != NULL)
                *where = i;
        }
    }
    return soonest;
}

/* With a lock: a shard that may hold something expired; d->shards: none does.
 * What all shards' words say is kept in one of the dict's, so that asking
 * costs a load as a rule. Who raises that one looks at theirs again: who has
 * lowered his meanwhile may have seen the old one (see soonest_lower in
 * memory/slab.c). Death between the two leaves it too high: what expires
 * sooner goes when its own shard makes room. */
static uint32_t shard_with_expired(const struct dict *d, uint64_t now)
{
    uint64_t known = atomic_load64(d->pages.soonest);
    uint32_t where = d->shards;
    uint64_t soonest;

    if (known == 0 || known > now)
        return d->shards;
    soonest = soonest_of_shards(d, &where);
    if (soonest != 0 && soonest <= now)
        return where;
    if (atomic_cas64(d->pages.soonest, known, soonest)) {
        atomic_fence_full();
        soonest = soonest_of_shards(d, NULL);
        if (soonest != 0)
            slab_soonest_lower(&d->pages, soonest);
    }
    return d->shards;
}

/* ---- vacating pages --------------------------------------------------- */

/* The entry that a node or a chain's cell belongs to; 0: none (a chain being
 * built), or too far to look. */
static uint32_t owner_entry(const struct dict *d, uint32_t ref)
{
    for (int steps = 0; steps < OWNER_STEPS; steps++) {
        const struct cell *c = cell_at(&d->pages, ref, SLAB_CELL_MIN);
        uint32_t kind;

        if (c == NULL || ref == 0)
            return 0;
        kind = cell_kind(atomic_load32(&c->meta));
        if (kind == CELL_ENTRY)
            return ref;
        if (kind == CELL_CHAIN && atomic_load32(&c->word[CHAIN_BACK]) == 0)
            ref = atomic_load32(&c->word[CHAIN_OF]);
        else if (lease_is(atomic_load32(&c->meta)))
            ref = atomic_load32(&c->word[LEASE_LINK]);
        else
            ref = atomic_load32(&c->word[CHAIN_BACK]);
    }
    return 0;
}

/* Evicts the owner of a cell. 1, or 0 if it must stay. */
static int evict_owner(const struct dict *d, uint32_t shard, uint32_t ref,
                       const struct room *r, int why)
{
    uint32_t entry = owner_entry(d, ref);
    const struct entry *e = entry_at(&d->pages, entry);
    bool expired;
    int rc;

    if (entry == 0 || e == NULL || entry == r->keep)
        return 0;
    expired = entry_is_expired(e);
    rc = remove_entry(d, shard, entry, expired ? ROOM_EXPIRED : why);
    if (rc != SHD_OK)
        return rc;
    if (!expired && r->forcible != NULL)
        *r->forcible = 1;
    return 1;
}

int room_vacate(const struct dict *d, uint32_t shard, uint32_t page,
                const struct room *r)
{
    const struct page *descriptor = &d->pages.table[page];
    uint32_t class = page_class(descriptor);
    struct room here = *r;
    uint32_t at = 0, ref;
    int done = 0;

    while (atomic_load32(&descriptor->owner) == dict_owner(shard) &&
           page_class(descriptor) == class &&
           (ref = slab_next_used(&d->pages, page, &at)) != 0) {
        int rc = move_cell(d, shard, ref, page, false);

        if (rc == SHD_NOMEM)
            rc = r->safe ? 0 : evict_owner(d, shard, ref, &here, ROOM_EVICTED);
        else if (rc == SHD_OK && ref == here.keep)
            /* What is to be kept has moved; its list may lie here as well. */
            rc = forest_find(d, &r->at, r->key, r->key_len, &here.keep) < 0
                     ? SHD_CORRUPT
                     : 1;
        else if (rc == SHD_OK)
            rc = 1;
        if (rc < 0)
            return rc;
        done |= rc;
        /* What was evicted may have left cells in this very page. */
        rc = room_collect(d, shard);
        if (rc < 0)
            return rc;
        if (atomic_load32(&d->shard[shard].garbage) != 0)
            return 1;
    }
    return done;
}

/* Of the pages of a class with free cells, the one with the fewest used, if
 * the others' free cells take those: then moving them frees it, and evicts
 * nothing. Each page looked at has a free cell, so after a page's worth of
 * pages the answer is yes. */
static uint32_t emptiest(const struct dict *d, uint32_t shard, uint32_t class,
                         uint32_t *used)
{
    uint32_t cells = PAGE_BYTES / slab_class_bytes(class);
    uint32_t number = atomic_load32(&d->shard[shard].slab.partial[class]);
    uint32_t best = PAGE_NONE, most = 0, free_cells = 0;

    for (uint32_t looked = 0;
         looked < cells && number != 0 && number <= d->pages.max; looked++) {
        const struct page *p = &d->pages.table[number - 1];

        free_cells += page_free_cells(p);
        if (page_free_cells(p) > most) {
            most = page_free_cells(p);
            best = number - 1;
        }
        number = atomic_load32(&p->next);
    }
    *used = cells - most;
    return free_cells >= cells ? best : PAGE_NONE;
}

/* A page that moving can free, of all classes the one with the fewest bytes to
 * move; or PAGE_NONE. */
static uint32_t compactable(const struct dict *d, uint32_t shard)
{
    uint32_t found = PAGE_NONE, least = PAGE_BYTES;

    for (uint32_t class = 0; class + 1 < SLAB_CLASSES; class ++) {
        uint32_t used;
        uint32_t page = emptiest(d, shard, class, &used);

        if (page != PAGE_NONE && used * slab_class_bytes(class) < least) {
            found = page;
            least = used * slab_class_bytes(class);
        }
    }
    return found;
}

/* Frees a page by moving alone. 1, or 0 if none can be. */
static int compact(const struct dict *d, uint32_t shard, const struct room *r)
{
    uint32_t page = compactable(d, shard);
    struct room move_only = *r;

    move_only.safe = true;
    return page == PAGE_NONE ? 0 : room_vacate(d, shard, page, &move_only);
}

/* ---- choosing --------------------------------------------------------- */

/* An entry of the page that has had its second chance and was not read since;
 * 0: none. */
static uint32_t find_passed_over(const struct dict *d, uint32_t page,
                                 uint32_t keep)
{
    uint32_t at = 0, ref;

    while ((ref = slab_next_used(&d->pages, page, &at)) != 0) {
        const struct cell *c;

        if (!dict_had_chance(d, ref) || dict_is_marked(d, ref) || ref == keep)
            continue;
        /* What else there is in pages may have the bits of who was there. */
        c = cell_at(&d->pages, ref, sizeof(*c));
        if (c != NULL && cell_kind(atomic_load32(&c->meta)) == CELL_ENTRY)
            return ref;
    }
    return 0;
}

/* How far the pages have been gone through, and what is thought since. */
static void sweep_to(const struct dict *d, uint32_t shard, uint32_t page,
                     bool doubt)
{
    struct shard *s = &d->shard[shard];
    struct txn t;

    txn_begin(&t, d->env->segment, dict_guard(d, shard), 2);
    txn_store32(&t, &s->swept, page);
    if (!doubt)
        txn_store32(&t, &s->vain, 0);
    txn_commit(&t);
}

/* The next one to go while second chances are in doubt; 0: go by the list, for
 * now or, once all pages have been looked at, altogether. */
static uint32_t sweep(const struct dict *d, uint32_t shard, uint32_t keep)
{
    uint32_t from = atomic_load32(&d->shard[shard].swept), page = from;
    uint32_t pages = pages_described(&d->pages), ref = 0;

    for (uint32_t n = 0; n < SWEEP_PAGES && page < pages; n++, page++) {
        if (atomic_load32(&d->pages.table[page].owner) == dict_owner(shard))
            ref = find_passed_over(d, page, keep);
        if (ref != 0)
            break;
    }
    if (page >= pages)
        sweep_to(d, shard, 0, false);
    else if (page != from)
        sweep_to(d, shard, page, true);
    return ref;
}

/* Gives the marked tail its second chance. */
static int second_chance(const struct dict *d, uint32_t shard, uint32_t ref)
{
    struct shard *s = &d->shard[shard];
    bool again = dict_had_chance(d, ref);
    struct txn t;
    int rc;

    dict_set_mark(d, ref, false);
    dict_set_chance(d, ref, true);
    txn_begin(&t, d->env->segment, dict_guard(d, shard), 2 * LIST_WORDS + 6);
    rc = room_touch(d, shard, &t, ref);
    if (rc != SHD_OK) {
        txn_abort(&t);
        return rc;
    }
    if (again && atomic_load32(&s->vain) != 0) {
        txn_store32(&t, &s->vain, 0);
        txn_store32(&t, &s->swept, 0);
    }
    publish_tail(d, shard, &t);
    txn_commit(&t);
    return SHD_OK;
}

/* The least recently used entry that is not marked, as one is that was read,
 * or changed among shards; 0: none. */
static int pick_tail(const struct dict *d, uint32_t shard, uint32_t keep,
                     uint32_t *tail)
{
    struct shard *s = &d->shard[shard];
    uint32_t ref;

    for (int i = 0; i < SECOND_CHANCES; i++) {
        int rc;

        ref = atomic_load32(&s->lru.last);
        if (ref == 0 || ref == keep)
            break;
        if (i == 0 && atomic_load32(&s->vain) >= VAIN_MANY &&
            !dict_had_chance(d, ref)) {
            *tail = sweep(d, shard, keep);
            if (*tail != 0)
                return SHD_OK;
        }
        if (!dict_is_marked(d, ref) || ref == atomic_load32(&s->lru.first))
            break;
        rc = second_chance(d, shard, ref);
        if (rc != SHD_OK)
            return rc;
    }
    ref = atomic_load32(&s->lru.last);
    if (ref != 0 && ref == keep) {
        const struct cell *c = cell_at(&d->pages, ref, sizeof(*c));

        if (c == NULL)
            return dict_damaged(d, "the LRU list leads outside");
        /* Alone in the shard, even the one to keep has to go. */
        if (atomic_load32(&c->word[LIST_PREV]) != 0)
            ref = atomic_load32(&c->word[LIST_PREV]);
    }
    *tail = ref;
    return SHD_OK;
}

/* Seconds since the tail's page was written to, as published. */
static uint32_t tail_age(const struct dict *d, uint32_t shard, uint32_t now)
{
    return (now - atomic_load32(&d->shard[shard].tail_stamp)) & AGE_MASK;
}

static uint32_t now_seconds(void)
{
    return (uint32_t)(clock_coarse_ms() / 1000);
}

/* Is this shard's turn to evict, or is another one's tail a good deal older? A
 * few others are asked, other ones each time: each is a cache line, and one
 * that lags behind is found soon enough. */
static bool evicts_at_home(const struct dict *d, uint32_t shard)
{
    uint32_t now = now_seconds();
    uint32_t own = tail_age(d, shard, now);
    uint32_t first =
        (uint32_t)atomic_load64(&dict_guard(d, shard)->seq) / 2 * NEIGHBOURS;

    for (uint32_t n = 0; n < NEIGHBOURS && n < d->shards; n++) {
        uint32_t i = (first + n) & (d->shards - 1);
        uint32_t age = tail_age(d, i, now);

        if (atomic_load64(&d->shard[i].entries) != 0 &&
            age > own + own / 4 + 1)
            return false;
    }
    return true;
}

/* The entry to evict for the sake of a cell of a class: the tail, or if that
 * is of another class, one of this class that is hardly younger. 0: none. */
static int pick_victim(const struct dict *d, uint32_t shard, uint32_t class,
                       uint32_t keep, uint32_t *victim)
{
    uint32_t ref;
    int rc = pick_tail(d, shard, keep, victim);

    if (rc != SHD_OK || class >= SLAB_CLASSES || class_of(d, *victim) == class)
        return rc;
    ref = *victim;
    for (int i = 0; i < WINDOW && ref != 0; i++) {
        const struct cell *c = cell_at(&d->pages, ref, sizeof(*c));

        if (c == NULL)
            return dict_damaged(d, "the LRU list leads outside");
        if (ref != keep && class_of(d, ref) == class &&
            !dict_is_marked(d, ref)) {
            *victim = ref;
            break;
        }
        ref = atomic_load32(&c->word[LIST_PREV]);
    }
    return SHD_OK;
}

/* Evicts one entry; but rather frees a page by moving, if the entry's cell is
 * of no use and that can be. 1, or 0 if there is nothing more to take. */
static int evict_step(const struct dict *d, uint32_t shard, uint32_t class,
                      const struct room *r)
{
    uint32_t victim = 0, got;
    struct room all = *r;
    int rc = pick_victim(d, shard, class, r->keep, &victim);

    if (rc != SHD_OK)
        return rc;
    if (victim == 0 || (victim == r->keep && !r->last_resort))
        return 0;
    if (victim == r->keep && r->must_keep)
        return 0;
    got = class_of(d, victim);
    if (got != class && !(r->larger && got > class)) {
        rc = compact(d, shard, r);
        if (rc != 0)
            return rc;
    }
    if (victim == r->keep) {
        all.keep = 0;
        if (r->kept_went != NULL)
            *r->kept_went = true;
    }
    return evict_owner(d, shard, victim, &all, ROOM_OLD);
}

/* What is free of charge: garbage, and what has expired. */
static int free_step(const struct dict *d, uint32_t shard)
{
    int rc = room_collect(d, shard);

    if (rc != 0)
        return rc;
    rc = room_expire(d, shard, UINT64_MAX);
    return rc > 0 ? 1 : rc;
}

int room_here(const struct dict *d, uint32_t shard, uint32_t class,
              const struct room *r)
{
    int rc = free_step(d, shard);

    if (rc != 0)
        return rc;
    if (r->safe)
        return compact(d, shard, r);
    /* Not for ever: entries may expire elsewhere as fast as they are removed
     * there. */
    if (d->shards > 1 && !r->stay &&
        (shard_with_expired(d, clock_now_ms()) != d->shards ||
         !evicts_at_home(d, shard)))
        return 0;
    return evict_step(d, shard, class, r);
}

/* The shard to take from: the one with the oldest tail that is not in
 * `spent`. */
static uint32_t pick_shard(const struct dict *d, const uint8_t *spent)
{
    uint32_t now = now_seconds();
    uint32_t best = d->shards, best_age = 0;

    for (uint32_t i = 0; i < d->shards; i++) {
        uint32_t age = tail_age(d, i, now);

        if (spent[i] || (best < d->shards && age < best_age))
            continue;
        if (best < d->shards && age == best_age &&
            atomic_load32(&d->shard[i].slab.pages) <=
                atomic_load32(&d->shard[best].slab.pages))
            continue;
        best = i;
        best_age = age;
    }
    return best;
}

/* With the lock of a shard: one step towards a free page of its. */
static int page_step(const struct dict *d, uint32_t shard,
                     const struct room *r)
{
    int rc = free_step(d, shard);

    if (rc != 0)
        return rc;
    return r->safe ? compact(d, shard, r)
                   : evict_step(d, shard, SLAB_CLASSES, r);
}

/* Commits more of the dict's memory, under a lock: else the dict could be
 * destroyed meanwhile, and the watermark be a word of another object. */
static int extend(const struct dict *d, uint32_t home)
{
    int rc;

    if (pages_committed(&d->pages) >= pages_count(&d->pages))
        return SHD_NOMEM;
    rc = dict_lock(d, home);
    if (rc != SHD_OK)
        return rc;
    rc = pages_extend(&d->pages);
    dict_unlock(d, home);
    return rc;
}

/* page_step in whichever shard, with the entry to keep looked up anew if it is
 * its. */
static int page_step_locked(const struct dict *d, uint32_t shard,
                            const struct room *r)
{
    struct room here = *r;
    int rc = dict_lock(d, shard);

    if (rc != SHD_OK)
        return rc;
    here.keep = 0;
    if (shard == r->at.shard && r->key != NULL)
        rc = forest_find(d, &r->at, r->key, r->key_len, &here.keep);
    if (rc >= 0)
        rc = page_step(d, shard, &here);
    dict_unlock(d, shard);
    return rc;
}

/* A step in the shard to take from. 1, or 0: there is none any more. */
static int step_anywhere(const struct dict *d, uint8_t *spent, struct room *r)
{
    uint32_t shard = pick_shard(d, spent);
    int rc;

    if (shard == d->shards) {
        if (r->safe || r->last_resort)
            return 0;
        r->last_resort = true;
        shard = r->at.shard;
        spent[shard] = 0;
    }
    rc = page_step_locked(d, shard, r);
    if (rc == 0)
        spent[shard] = 1;
    return rc < 0 ? rc : 1;
}

/* Removes a page's worth of what has expired, in whichever shard. 1, or 0:
 * nothing has. What is asked without a lock is a hint; with one the dict is
 * there, and its word may be stored to. */
static int expire_anywhere(const struct dict *d, const struct room *r)
{
    uint64_t now = clock_now_ms(), known = atomic_load64(d->pages.soonest);
    struct room move_only = *r;
    uint32_t shard;
    int rc;

    if (known == 0 || known > now)
        return 0;
    rc = dict_lock(d, r->at.shard);
    if (rc != SHD_OK)
        return rc;
    shard = shard_with_expired(d, now);
    dict_unlock(d, r->at.shard);
    if (shard == d->shards)
        return 0;
    rc = dict_lock(d, shard);
    if (rc != SHD_OK)
        return rc;
    move_only.keep = 0;
    move_only.key = NULL;
    rc = free_step(d, shard);
    if (rc >= 0)
        rc = compact(d, shard, &move_only);
    dict_unlock(d, shard);
    return rc < 0 ? rc : 1;
}

int room_elsewhere(const struct dict *d, uint64_t pages, const struct room *r)
{
    uint8_t spent[DICT_SHARDS_MAX] = {0};
    bool expired = false;
    struct room here = *r;
    /* Each step frees a page, or an entry, or finds a shard spent. */
    uint64_t steps = (uint64_t)d->pages.max * (PAGE_BYTES / SLAB_CELL_MIN) +
                     4ull * d->shards;
    int rc = 1;

    here.larger = false;
    while (steps-- > 0 && rc != 0) {
        uint64_t ready = pages_ready(&d->pages, pages, false);

        if (ready >= pages)
            return SHD_OK;
        rc = extend(d, r->at.shard);
        if (rc == SHD_GONE || rc == SHD_CORRUPT)
            return rc;
        if (rc == SHD_OK) {
            rc = 1;
            continue;
        }
        rc = expire_anywhere(d, r);
        if (rc < 0)
            return rc;
        if (rc > 0) {
            expired = true;
            continue;
        }
        /* Whoever asks may evict at home now. */
        if (expired && !r->safe)
            return SHD_OK;
        /* Counting anew only when that may be enough: one step expires or
         * frees fewer cells than a page can have. */
        for (uint64_t n = 1 + (pages - ready) / (PAGE_BYTES / SLAB_CELL_MIN);
             n > 0; n--) {
            rc = step_anywhere(d, spent, &here);
            if (rc <= 0)
                break;
        }
        if (rc < 0)
            return rc;
    }
    /* Others may have given pages back that the searches had not seen. */
    if (pages_ready(&d->pages, pages, true) >= pages)
        return SHD_OK;
    return error_set(SHD_NOMEM, "dict '%s' has no room", d->name);
}
