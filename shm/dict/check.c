/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A shard is walked from two sides: from the roots (every tree, every entry,
 * what it owns) and from the pages (every cell handed out). Both must count
 * the same cells: a cell that only the pages know has leaked, one that only a
 * tree knows is used and free at once.
 */
#include "shm/dict/check.h"
#include "shm/base/error.h"
#include "shm/base/hash.h"
#include "shm/dict/account.h"
#include "shm/dict/forest.h"
#include "shm/dict/index.h"
#include "shm/dict/lease.h"
#include "shm/dict/resize.h"

#include <stdio.h>

struct tally {
    uint64_t entries;
    uint64_t cells;
    uint64_t leased; /* elements that name a lease */
};

static int fail(char *report, size_t size, const char *what, uint32_t ref)
{
    snprintf(report, size, "dict: %s (cell %u)", what, ref);
    return SHD_CORRUPT;
}

static int compare(const void *context, const unsigned char *a,
                   const unsigned char *b)
{
    const struct dict *d = context;
    const struct entry *e = (const struct entry *)(const void *)a;
    unsigned char key[ENTRY_KEY_MAX + 8];
    uint32_t len = entry_key_len(atomic_load64(&e->key_expires));

    if (entry_key(d, e, len, key) != SHD_OK)
        return 1;
    return entry_order(d, atomic_load32(&e->cell.meta) >> CELL_HASH_SHIFT, key,
                       len, (const struct entry *)(const void *)b);
}

/* The chain of an entry or a node. */
static int chain_of(const struct dict *d, uint32_t owner, struct cell *c,
                    uint32_t ref, uint64_t bytes, struct tally *t,
                    char *report, size_t size)
{
    const uint32_t *chain = entry_chain(&d->pages, c);

    if (chain == NULL)
        return fail(report, size, "a chain's word crosses its page", ref);
    return chain_check(&d->pages, owner, atomic_load32(chain), ref, bytes,
                       &t->cells, report, size);
}

static int node_check(const struct dict *d, uint32_t owner, uint32_t ref,
                      struct tally *t, char *report, size_t size)
{
    struct cell *c = cell_at(&d->pages, ref, SLAB_CELL_MIN);
    struct shd_value v;
    uint64_t need;

    if (c == NULL || slab_cell_bytes(&d->pages, owner, ref) == 0)
        return fail(report, size, "a list names no cell in use", ref);
    if (cell_kind(c->meta) != CELL_NODE ||
        entry_describe(d, c, &v) != SHD_OK ||
        (v.type != SHD_STRING && v.type != SHD_NUMBER))
        return fail(report, size, "a list names what is no node", ref);
    t->cells++;
    if ((c->meta & CELL_CHAINED) != 0)
        return chain_of(d, owner, c, ref, v.len, t, report, size);
    need = sizeof(*c) + (v.type == SHD_STRING ? v.len : sizeof(double));
    if (need > slab_cell_bytes(&d->pages, owner, ref))
        return fail(report, size, "a node's value is longer than its cell",
                    ref);
    return SHD_OK;
}

/* The elements that are leased out of a list. */
static int leased_check(const struct dict *d, uint32_t shard, uint32_t first,
                        uint32_t ref, const struct place *place,
                        struct tally *t, char *report, size_t size)
{
    uint64_t list = 0, n = 0, max = atomic_load32(&d->shard[shard].n_leases);
    uint32_t back = ref, at = first;

    for (; at != 0; n++) {
        int rc = n >= max
                     ? fail(report, size,
                            "a list has more leased elements than there "
                            "are leases",
                            ref)
                     : node_check(d, dict_owner(shard), at, t, report, size);
        const struct lease *l;
        const struct cell *c;

        if (rc != SHD_OK)
            return rc;
        c = cell_at(&d->pages, at, SLAB_CELL_MIN);
        l = lease_at(d, c->word[LEASE_LINK]);
        if (c->word[CHAIN_BACK] != back)
            return fail(report, size,
                        "the links of leased elements do not mirror", at);
        if (l == NULL || l->cell.word[LEASE_LINK] != at)
            return fail(report, size, "a leased element has no lease", at);
        if (l->order != place->order || (n > 0 && l->list != list))
            return fail(report, size, "a lease is of another list", at);
        list = l->list;
        t->leased++;
        back = at;
        at = c->word[CHAIN_NEXT];
    }
    return SHD_OK;
}

static int list_nodes_check(const struct dict *d, uint32_t owner,
                            struct cell *e, uint32_t ref, struct tally *t,
                            char *report, size_t size)
{
    const struct entry_list *l = entry_list(&d->pages, e);
    uint32_t back = ref, at;
    uint64_t n = 0;

    if (l == NULL || (l->count == 0 && l->leased == 0))
        return fail(report, size, "a list is empty or crosses its page", ref);
    if (l->count == 0 && (l->first != 0 || l->last != 0))
        return fail(report, size, "a list without elements has an end", ref);
    for (at = l->count == 0 ? ref : l->first; at != ref; n++) {
        int rc = n >= l->count ? SHD_CORRUPT
                               : node_check(d, owner, at, t, report, size);
        const struct cell *c;

        if (rc != SHD_OK)
            return n >= l->count ? fail(report, size,
                                        "a list is longer than its count", ref)
                                 : rc;
        c = cell_at(&d->pages, at, SLAB_CELL_MIN);
        if (c->word[CHAIN_BACK] != back)
            return fail(report, size, "a list's links do not mirror", at);
        if (c->word[LEASE_LINK] != 0)
            return fail(report, size, "an element of a list is leased", at);
        back = at;
        at = c->word[CHAIN_NEXT];
    }
    if (n != l->count || (n > 0 && l->last != back))
        return fail(report, size, "a list's count or end is wrong", ref);
    return SHD_OK;
}

static int list_check_all(const struct dict *d, uint32_t shard, struct cell *e,
                          uint32_t ref, const struct place *at,
                          struct tally *t, char *report, size_t size)
{
    int rc = list_nodes_check(d, dict_owner(shard), e, ref, t, report, size);

    return rc == SHD_OK
               ? leased_check(d, shard, entry_list(&d->pages, e)->leased, ref,
                              at, t, report, size)
               : rc;
}

/* Under root number `root` of the array of that grain; of none: GRAINS. */
static int entry_check(const struct dict *d, uint32_t shard, uint32_t grain,
                       uint64_t root, uint32_t ref, struct tally *t,
                       char *report, size_t size)
{
    uint32_t owner = dict_owner(shard);
    struct entry *e = entry_at(&d->pages, ref);
    uint32_t bytes = slab_cell_bytes(&d->pages, owner, ref);
    unsigned char key[ENTRY_KEY_MAX + 8];
    struct shd_value v;
    struct place at;
    uint64_t expires, bound, chain = 0, end;
    uint32_t len;

    if (e == NULL || bytes == 0)
        return fail(report, size, "a tree names no cell in use", ref);
    t->entries++;
    t->cells++;
    len = entry_key_len(e->key_expires);
    if (len == 0 || cell_kind(e->cell.meta) != CELL_ENTRY ||
        entry_key(d, e, len, key) != SHD_OK ||
        entry_describe(d, &e->cell, &v) != SHD_OK)
        return fail(report, size, "a tree names what is no entry", ref);
    at = dict_place(d, key, len);
    if (at.shard != shard || (grain < GRAINS && at.order >> grain != root) ||
        at.hash != e->cell.meta >> CELL_HASH_SHIFT)
        return fail(report, size, "a key is under the wrong root", ref);
    expires = e->key_expires & ENTRY_EXPIRES_MASK;
    bound =
        d->pages.table[pages_number(&d->pages, (uint64_t)ref * SEGMENT_UNIT)]
            .expiry &
        PAGE_EXPIRY_MASK;
    if (expires != 0 && (bound == 0 || bound > expires))
        return fail(report, size,
                    "a page's bound is later than an expiry in "
                    "it",
                    ref);
    if (cell_is_versioned(e->cell.meta) &&
        (entry_version(d, e) == 0 ||
         entry_version(d, e) >
             (atomic_load64(&dict_guard(d, shard)->seq) + 1) / 2))
        return fail(report, size, "a version that was never given", ref);
    end = entry_value_at(e->cell.meta, len);
    if (entry_is_long(len))
        chain = pad8(len);
    if ((e->cell.meta & CELL_CHAINED) != 0) {
        uint32_t prefix = entry_prefix(&d->pages, &e->cell, (uint32_t)end);

        if (prefix > v.len)
            return fail(report, size, "a value's chain begins past its end",
                        ref);
        chain += v.len - prefix;
        end += entry_is_long(len) ? 0 : 8 + prefix;
    } else if (v.type == SHD_STRING)
        end += v.len;
    else
        end += v.type == SHD_LIST ? sizeof(struct entry_list) : 8;
    if (end > bytes)
        return fail(report, size, "a value is longer than its cell", ref);
    if (entry_is_long(len) &&
        atomic_load64(entry_long_hash(e)) !=
            hash_bytes(key, len, d->env->segment->hash_seed))
        return fail(report, size, "a long key's hash is another's", ref);
    if (chain > 0) {
        int rc = chain_of(d, owner, &e->cell, ref, chain, t, report, size);

        if (rc != SHD_OK)
            return rc;
    }
    return v.type == SHD_LIST
               ? list_check_all(d, shard, &e->cell, ref, &at, t, report, size)
               : SHD_OK;
}

static int tree_of_root(const struct dict *d, uint32_t shard, uint32_t grain,
                        uint64_t root, struct tally *t, char *report,
                        size_t size)
{
    const struct segment *s = d->env->segment;
    uint32_t top = atomic_load32(&d->roots[grain][root]);
    struct tree_path path;
    uint64_t nodes;
    int rc;

    if (top == 0)
        return SHD_OK;
    rc = tree_check(s, &d->pages.nodes, top, compare, d, &nodes, report, size);
    if (rc != SHD_OK)
        return rc;
    rc = tree_first(s, &d->pages.nodes, top, &path);
    while (rc == 1) {
        int fault = entry_check(d, shard, grain, root,
                                path.ref[path.depth - 1], t, report, size);

        if (fault != SHD_OK)
            return fault;
        rc = tree_next(s, &d->pages.nodes, &path);
    }
    return rc < 0 ? fail(report, size, "a tree cannot be walked", top)
                  : SHD_OK;
}

static int trees_of_grain(const struct dict *d, uint32_t shard, uint32_t grain,
                          struct tally *t, char *report, size_t size)
{
    uint64_t end = index_first(d, shard + 1, grain);
    int rc = SHD_OK;

    for (uint64_t i = index_first(d, shard, grain); rc == SHD_OK && i < end;
         i++)
        rc = tree_of_root(d, shard, grain, i, t, report, size);
    return rc;
}

/* Cells of chains and lists that hang on the garbage: of the chain whose word
 * that is (NULL: it crosses its page). */
static uint64_t attached_cells(const struct dict *d, const uint32_t *word,
                               uint64_t limit)
{
    uint32_t chain = word == NULL ? 0 : atomic_load32(word);
    uint64_t n = 0;

    while (chain != 0 && n <= limit) {
        const struct cell *c = cell_at(&d->pages, chain, sizeof(*c));

        if (c == NULL)
            return limit + 1;
        n++;
        chain = c->word[CHAIN_NEXT];
    }
    return n;
}

/* From the node `at` on, until 0 or the entry. */
static uint64_t node_cells(const struct dict *d, uint32_t at, uint32_t ref,
                           uint64_t limit, struct tally *t)
{
    uint64_t n = 0;

    while (at != 0 && at != ref && n <= limit) {
        struct cell *c = cell_at(&d->pages, at, SLAB_CELL_MIN);

        if (c == NULL)
            return limit + 1;
        n++;
        if ((c->meta & CELL_CHAINED) != 0)
            n += attached_cells(d, entry_chain(&d->pages, c), limit);
        t->leased += c->word[LEASE_LINK] != 0;
        at = c->word[CHAIN_NEXT];
    }
    return n;
}

static uint64_t list_cells(const struct dict *d, struct cell *e, uint32_t ref,
                           uint64_t limit, struct tally *t)
{
    const struct entry_list *l = entry_list(&d->pages, e);

    return l == NULL ? 0
                     : node_cells(d, l->first, ref, limit, t) +
                           node_cells(d, l->leased, ref, limit, t);
}

/* What a lock's holder was building is one chain, and not yet anybody's. */
static int pending_check(const struct dict *d, uint32_t shard, uint32_t ref,
                         uint64_t limit, struct tally *t, char *report,
                         size_t size)
{
    if (ref != 0 && slab_cell_bytes(&d->pages, dict_owner(shard), ref) == 0)
        return fail(report, size, "what is being built is no cell in use",
                    ref);
    t->cells += attached_cells(d, &ref, limit);
    return SHD_OK;
}

int check_entry(const struct dict *d, uint32_t shard, uint32_t ref,
                uint64_t *cells, char *report, size_t size)
{
    struct tally t = {0, *cells, 0};
    int rc = entry_check(d, shard, GRAINS, 0, ref, &t, report, size);

    *cells = t.cells;
    return rc;
}

int check_node(const struct dict *d, uint32_t shard, uint32_t ref,
               uint64_t *cells, char *report, size_t size)
{
    struct tally t = {0, *cells, 0};
    int rc = node_check(d, dict_owner(shard), ref, &t, report, size);

    *cells = t.cells;
    return rc;
}

/* What waits to be freed is in use as far as the pages know. */
static int garbage_check(const struct dict *d, uint32_t shard, uint32_t ref,
                         uint64_t limit, struct tally *t, char *report,
                         size_t size)
{
    uint64_t n = 0;

    while (ref != 0 && n <= limit) {
        struct cell *c = cell_at(&d->pages, ref, SLAB_CELL_MIN);
        const struct entry *e = (const struct entry *)(const void *)c;

        if (c == NULL ||
            slab_cell_bytes(&d->pages, dict_owner(shard), ref) == 0)
            return fail(report, size, "the garbage names no cell in use", ref);
        n++;
        if (cell_kind(c->meta) == CELL_CHAIN) {
            n += attached_cells(d, &c->word[CHAIN_NEXT], limit);
        } else {
            bool is_entry = cell_kind(c->meta) == CELL_ENTRY;

            if ((c->meta & CELL_CHAINED) != 0 ||
                (is_entry && entry_is_long(entry_key_len(e->key_expires))))
                n += attached_cells(d, entry_chain(&d->pages, c), limit);
            if (is_entry && (c->meta & CELL_TYPE_MASK) == SHD_LIST)
                n += list_cells(d, c, ref, limit, t);
        }
        ref = c->word[CHAIN_GARBAGE];
    }
    t->cells += n;
    return SHD_OK;
}

static int compare_leases(const void *context, const unsigned char *a,
                          const unsigned char *b)
{
    const struct dict *d = context;
    const struct lease *x = (const struct lease *)(const void *)a;
    const struct lease *y = (const struct lease *)(const void *)b;

    if (cell_room(&d->pages, a) < sizeof(*x) ||
        cell_room(&d->pages, b) < sizeof(*y))
        return 1;
    if (x->holder != y->holder)
        return x->holder < y->holder ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static int lease_check(const struct dict *d, uint32_t shard, uint32_t ref,
                       uint64_t *with_node, char *report, size_t size)
{
    const struct lease *l = lease_at(d, ref);
    uint32_t owner = dict_owner(shard), node, stage;
    const struct cell *c;

    if (l == NULL || slab_cell_bytes(&d->pages, owner, ref) < sizeof(*l))
        return fail(report, size, "the tree of leases names no lease", ref);
    stage = lease_stage(l);
    node = l->cell.word[LEASE_LINK];
    c = cell_at(&d->pages, node, SLAB_CELL_MIN);
    if (l->holder == 0 || lease_shard(l->number) >= d->shards ||
        (lease_shard(l->number) == shard &&
         l->number >> 8 > d->shard[shard].lease_count) ||
        stage > LEASE_RETURNED)
        return fail(report, size, "a lease that was never given", ref);
    if ((node == 0) != (stage == LEASE_LANDED || stage == LEASE_RETURNED))
        return fail(report, size, "a lease's stage is not its element's", ref);
    if (node != 0 &&
        (c == NULL || slab_cell_bytes(&d->pages, owner, node) == 0 ||
         cell_kind(c->meta) != CELL_NODE || c->word[LEASE_LINK] != ref))
        return fail(report, size, "a lease is of what is not leased", ref);
    *with_node += node != 0;
    return SHD_OK;
}

/* The tree, and that each lease's element has been found in a list. */
static int leases_check(const struct dict *d, uint32_t shard, struct tally *t,
                        char *report, size_t size)
{
    const struct segment *s = d->env->segment;
    uint32_t top = d->shard[shard].leases;
    uint64_t n = 0, with_node = 0;
    struct tree_path path;
    int rc = SHD_OK;

    if (top != 0) {
        rc = tree_check(s, &d->pages.nodes, top, compare_leases, d, &n, report,
                        size);
        if (rc != SHD_OK)
            return rc;
        rc = tree_first(s, &d->pages.nodes, top, &path);
    }
    while (rc == 1) {
        int fault = lease_check(d, shard, path.ref[path.depth - 1], &with_node,
                                report, size);

        if (fault != SHD_OK)
            return fault;
        rc = tree_next(s, &d->pages.nodes, &path);
    }
    if (rc < 0)
        return fail(report, size, "the tree of leases cannot be walked", top);
    t->cells += n;
    if (n != d->shard[shard].n_leases || with_node != t->leased) {
        snprintf(report, size,
                 "dict: shard %u counts %u leases and its tree holds %llu, "
                 "%llu of elements; %llu elements are leased",
                 shard, d->shard[shard].n_leases, (unsigned long long)n,
                 (unsigned long long)with_node, (unsigned long long)t->leased);
        return SHD_CORRUPT;
    }
    return SHD_OK;
}

/* Pages that are out of their shard's lists: only while the dict is resized.
 * The flag first, then the word: it is set before, and cleared after. */
static int leaving_check(const struct dict *d, uint32_t shard, char *report,
                         size_t size)
{
    for (uint32_t n = 0; n < pages_described(&d->pages); n++) {
        const struct page *p = &d->pages.table[n];

        if (atomic_load32(&p->owner) != dict_owner(shard) ||
            (atomic_load32(&p->info) & PAGE_LEAVING) == 0 ||
            atomic_load64_acquire(&d->header->unsettled) != 0)
            continue;
        snprintf(report, size,
                 "dict: page %u is leaving, and nothing is resized", n);
        return SHD_CORRUPT;
    }
    return SHD_OK;
}

int check_shard(const struct dict *d, uint32_t shard, char *report,
                size_t size)
{
    const struct shard *s = &d->shard[shard];
    struct tally t = {0, 0, 0};
    uint64_t cells = 0, state = index_state(d);
    int rc = shard == 0 ? resize_check(d, report, size) : SHD_OK;

    if (rc == SHD_OK && !index_sound(state))
        rc = fail(report, size, "the index is said to be what it is not", 0);

    if (rc == SHD_OK)
        rc = pages_check(&d->pages, dict_owner(shard), d->shards + 1, report,
                         size);
    if (rc == SHD_OK)
        rc = leaving_check(d, shard, report, size);
    if (rc == SHD_OK)
        rc = slab_check(&d->pages, &s->slab, dict_owner(shard), &cells, report,
                        size);
    if (rc == SHD_OK)
        rc = list_check(&d->pages, &s->lru, s->entries, report, size);
    if (rc == SHD_OK)
        rc = trees_of_grain(d, shard, index_grain(state), &t, report, size);
    if (rc == SHD_OK && index_moves(state))
        rc = trees_of_grain(d, shard, index_former(state), &t, report, size);
    if (rc == SHD_OK)
        rc = garbage_check(d, shard, s->garbage, cells, &t, report, size);
    for (int i = 0; rc == SHD_OK && i < 2; i++)
        rc = pending_check(d, shard, s->pending[i], cells, &t, report, size);
    if (rc != SHD_OK)
        return rc;
    rc = leases_check(d, shard, &t, report, size);
    if (rc != SHD_OK)
        return rc;
    if (t.entries != s->entries || t.cells != cells) {
        snprintf(report, size,
                 "dict: shard %u counts %llu entries and its trees hold %llu; "
                 "%llu cells are handed out and %llu are used",
                 shard, (unsigned long long)s->entries,
                 (unsigned long long)t.entries, (unsigned long long)cells,
                 (unsigned long long)t.cells);
        return SHD_CORRUPT;
    }
    return SHD_OK;
}

/* A report counts only if nothing moved meanwhile. */
int check_shard_quiet(const struct dict *d, uint32_t shard, char *report,
                      size_t size)
{
    struct guard *g = dict_guard(d, shard);
    struct reading r;
    int rc;

    reading_begin(&r, d->env, g);
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK) {
            snprintf(report, size, "%s", shd_last_error());
            return rc;
        }
        rc = dict_enter(d, shard) ? guard_check(g, report, size) : SHD_GONE;
        if (rc == SHD_OK)
            rc = check_shard(d, shard, report, size);
    } while (!reading_done(&r));
    return rc;
}

/* Is every byte of it accounted for? */
static int sum_check(const struct dict *d, char *report, size_t size)
{
    struct shd_dict_account a;
    int rc = account_take(d, &a, NULL);

    if (rc != SHD_OK) {
        snprintf(report, size, "%s", shd_last_error());
        return rc;
    }
    if (account_sum(&a) == a.capacity_bytes)
        return SHD_OK;
    snprintf(report, size,
             "dict: of %llu bytes of capacity its parts explain %llu",
             (unsigned long long)a.capacity_bytes,
             (unsigned long long)account_sum(&a));
    return SHD_CORRUPT;
}

static uint64_t checked;

uint64_t dict_checked(void)
{
    return atomic_load64(&checked);
}

int dict_check(const struct guard_env *env, const struct catalogue_object *o,
               char *report, size_t size)
{
    struct dict d;
    int rc = dict_view(env, o, &d);

    if (rc != SHD_OK) {
        snprintf(report, size, "%s", shd_last_error());
        return rc;
    }
    for (uint32_t i = 0; i < d.shards && rc == SHD_OK; i++) {
        rc = check_shard_quiet(&d, i, report, size);
        if (rc == SHD_OK)
            atomic_store64(&checked, atomic_load64(&checked) +
                                         atomic_load64(&d.shard[i].entries));
    }
    if (rc == SHD_OK)
        rc = sum_check(&d, report, size);
    /* Destroyed while we looked: there is nothing to check any more. */
    return rc == SHD_GONE ? SHD_OK : rc;
}
