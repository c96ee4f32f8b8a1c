/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A store that needs room works in rounds. Within one hold of the lock it
 * looks the key up, and makes room in its own shard step by step, looking the
 * key up again after each. When its shard has no more to give it lets go,
 * gets pages free wherever the oldest entries are, and begins a new round:
 * so no two locks are ever held. Another worker may take what was freed: each
 * round asks for more than the last, and after many the store fails with
 * SHD_NOMEM.
 *
 * A larger cell than the item's class serves as well: a slightly larger one
 * that is free rather than that another's entry goes, and any when there is
 * nothing else: when a safe store would fail, and in dicts that have fewer
 * pages than there are classes, where a page for each cannot be had.
 */
#include "shm/dict/attempt.h"
#include "shm/base/error.h"
#include "shm/dict/index.h"
#include "shm/dict/place.h"

#include <string.h>

#define ROUNDS 64
/* Steps of making room in one hold of the lock. */
#define ROOM_STEPS 256
/* Rounds after which an old shard's turn is no reason to begin anew. */
#define ROUNDS_FAIR 4
/* Cells of an item that need not be whole pages: an entry, a list's node, and
 * the last of the chain of each. */
#define SMALL_CELLS 4

int attempt_look_up(struct attempt *a, const void *key, size_t len)
{
    int rc = forest_path(a->d, &a->at, key, len, &a->path);

    if (rc < 0)
        return rc;
    a->old = rc == 1 ? a->path.ref[a->path.depth - 1] : 0;
    a->entry = rc == 1 ? entry_at(&a->d->pages, a->old) : NULL;
    if (rc == 1 && a->entry == NULL)
        return dict_damaged(a->d, "an entry leads outside");
    a->live = a->entry != NULL && !entry_is_expired(a->entry);
    a->room.keep = a->old;
    return SHD_OK;
}

void attempt_begin(struct attempt *a, struct txn *t, uint32_t words)
{
    txn_begin(t, a->d->env->segment, a->guard, words);
}

int attempt_end(struct txn *t, int rc)
{
    if (rc == SHD_OK)
        txn_commit(t);
    else
        txn_abort(t);
    return rc;
}

uint32_t attempt_larger(const struct attempt *a, uint32_t class)
{
    const uint32_t *partial = a->shard->slab.partial;
    uint32_t last = a->room.larger ? SLAB_CLASSES : class + ATTEMPT_LARGER;

    if (slab_prepare(&a->d->pages, &a->shard->slab, class) == SHD_OK)
        return class;
    for (uint32_t c = class + 1; c <= last && c < SLAB_CLASSES; c++) {
        if (atomic_load32(&partial[c]) != 0)
            return c;
    }
    return class;
}

int attempt_make_room(struct attempt *a, uint32_t class, int *steps)
{
    int rc;

    if (++*steps > ROOM_STEPS)
        return ATTEMPT_NEED_ROOM;
    /* Nothing that is removed would ever make room. */
    if (pages_count(&a->d->pages) == 0)
        return dict_damaged(a->d, "it has no pages");
    /* The step before may have moved the old value: to be kept, it must be
     * known by its cell. */
    a->room.keep = 0;
    rc =
        forest_find(a->d, &a->at, a->room.key, a->room.key_len, &a->room.keep);
    if (rc < 0)
        return rc;
    rc = room_here(a->d, a->at.shard, class, &a->room);
    return rc < 0 ? rc : rc == 0 ? ATTEMPT_NEED_ROOM : SHD_OK;
}

struct chain_site attempt_site(const struct attempt *a, int slot)
{
    return (struct chain_site){.pages = &a->d->pages,
                               .slab = &a->shard->slab,
                               .guard = a->guard,
                               .owner = dict_owner(a->at.shard),
                               .pending = &a->shard->pending[slot],
                               .built = &a->shard->chains};
}

/* What the old value ends in, if it was a chain when it was looked up: for
 * chain_fill. */
static uint32_t old_chain(const struct attempt *a)
{
    const uint32_t *chain;

    if (a->old == 0 ||
        (atomic_load32(&a->entry->cell.meta) & CELL_CHAINED) == 0)
        return 0;
    chain = entry_chain(&a->d->pages, &a->entry->cell);
    return chain == NULL ? 0 : atomic_load32(chain);
}

static void will_write(const struct attempt *a, uint32_t ref, bool page)
{
    uint32_t n = cell_page(&a->d->pages, ref);

    if (n == PAGE_NONE)
        return;
    atomic_will_write(cell_fresh(&a->d->pages, ref));
    if (page)
        atomic_will_write(&a->d->pages.table[n]);
}

void attempt_will_link(const struct attempt *a)
{
    const struct cell *c;

    if (a->old == 0)
        return;
    c = &a->entry->cell;
    will_write(a, old_chain(a), true);
    will_write(a, a->old, true);
    will_write(a, atomic_load32(&c->word[LIST_PREV]), false);
    will_write(a, atomic_load32(&c->word[LIST_NEXT]), false);
    will_write(a, atomic_load32(&a->shard->lru.first), false);
}

int attempt_build_chain(struct attempt *a, const struct item *item, int slot,
                        int *steps)
{
    const struct chain_site site = attempt_site(a, slot);
    uint64_t left = chain_source_len(&item->chain);
    int reused = atomic_load32(&a->shard->garbage) == 0
                     ? 0
                     : chain_reuse(&site, &a->shard->garbage, left);

    if (reused < 0)
        return reused;
    while (reused == 0 && left > 0) {
        uint32_t class = attempt_class(a, chain_class(left));
        int rc = chain_build_step(&site, class, &left);

        if (rc == SHD_OK)
            *steps = 0;
        else if (rc == SHD_NOMEM)
            rc = attempt_make_room(a, chain_class(left), steps);
        if (rc != SHD_OK)
            return rc;
    }
    return chain_fill(&site, &item->chain, old_chain(a));
}

int attempt_adopt_chain(struct attempt *a, struct txn *t, int slot,
                        uint32_t ref)
{
    uint32_t head = atomic_load32(&a->shard->pending[slot]);
    struct cell *c = cell_at(&a->d->pages, head, sizeof(*c));

    if (c == NULL)
        return error_set(SHD_CORRUPT,
                         "dict '%s': what was being built is "
                         "gone",
                         a->d->name);
    txn_store32(t, &c->word[CHAIN_OF], ref);
    txn_store32(t, &a->shard->pending[slot], 0);
    return SHD_OK;
}

int attempt_link(struct attempt *a, struct txn *t, uint32_t ref,
                 uint64_t expires)
{
    const struct dict *d = a->d;
    uint32_t *root = a->at.root;
    int rc;

    dict_set_mark(d, ref, false);
    dict_set_chance(d, ref, false);
    if (a->old != 0) {
        rc = tree_replace(t, &d->pages.nodes, root, &a->path, ref);
        if (rc == SHD_OK)
            rc = list_remove(&d->pages, t, &a->shard->lru, a->old);
        if (rc == SHD_OK)
            rc = room_discard(d, a->at.shard, t, a->old);
        txn_store64(t, &a->shard->shuffles,
                    atomic_load64(&a->shard->shuffles) + 1);
    } else {
        rc = tree_insert(t, &d->pages.nodes, root, &a->path, ref);
        txn_store64(t, &a->shard->entries,
                    atomic_load64(&a->shard->entries) + 1);
    }
    if (rc == SHD_OK)
        rc = list_push(&d->pages, t, &a->shard->lru, ref);
    if (rc == SHD_OK)
        rc = slab_expiry_lower(&d->pages, &a->shard->slab, t,
                               cell_page(&d->pages, ref), expires);
    return rc;
}

void attempt_start(struct attempt *a, const struct dict *d, const void *key,
                   size_t len, bool safe, uint32_t *forcible)
{
    struct place at = place_of_key(d, key, len);

    attempt_start_at(a, d, &at, key, len, safe, forcible);
}

void attempt_start_at(struct attempt *a, const struct dict *d,
                      const struct place *at, const void *key, size_t len,
                      bool safe, uint32_t *forcible)
{
    memset(&a->room, 0, sizeof(a->room));
    a->d = d;
    a->at = *at;
    a->shard = &d->shard[a->at.shard];
    a->guard = dict_guard(d, a->at.shard);
    a->room.safe = safe;
    a->kept_went = false;
    a->room.forcible = forcible;
    a->room.at = a->at;
    a->room.key = key;
    a->room.key_len = len;
    a->room.kept_went = &a->kept_went;
    a->room.last_resort = d->shards == 1;
    a->pages = 1;
    a->ready = 0;
    a->settle = ATTEMPT_SETTLE;
    a->held = false;
    a->spare = false;
}

/* After a round without room. SHD_OK: another round. */
static int round_end(struct attempt *a, int round)
{
    const struct pages *p = &a->d->pages;
    uint64_t pages = a->pages + a->pages * (uint64_t)round / 8;
    uint64_t ready = pages_ready(p, pages, false);
    int rc;

    if (pages > pages_count(p))
        pages = pages_count(p);
    if (ready > a->ready)
        a->ready = ready;
    a->room.stay = round >= ROUNDS_FAIR;
    rc = room_elsewhere(a->d, pages, &a->room);
    if (rc != SHD_NOMEM)
        return rc;
    /* Fewer than might be needed may do. */
    ready = pages_ready(p, pages, true);
    if (ready > a->ready) {
        a->ready = ready;
        return SHD_OK;
    }
    if (a->room.larger || ready + SMALL_CELLS < a->pages)
        return rc;
    a->room.larger = true;
    return SHD_OK;
}

int attempt_run(struct attempt *a,
                int (*body)(struct attempt *a, void *context), void *context)
{
    int rc = ATTEMPT_NEED_ROOM;
    bool helped;

    for (int round = 0; round < ROUNDS && rc == ATTEMPT_NEED_ROOM; round++) {
        rc = a->held ? SHD_OK : dict_lock(a->d, a->at.shard);
        if (rc != SHD_OK)
            return rc;
        a->held = false;
        if (round == 0)
            a->room.larger = pages_count(&a->d->pages) < SLAB_CLASSES;
        rc = body(a, context);
        /* Done or not, that is decided; damage is told who meets it next. */
        helped = index_moves(index_state(a->d)) &&
                 index_help(a->d, a->at.shard) == 1;
        dict_unlock(a->d, a->at.shard);
        if (helped)
            (void)index_help_end(a->d);
        /* What has been done is done: garbage that cannot be freed just now
         * (the lock is busy) stays for the next one. */
        if (atomic_load32(&a->shard->garbage) != 0 &&
            !(rc == SHD_OK && a->spare))
            (void)room_settle(a->d, a->at.shard,
                              rc == ATTEMPT_NEED_ROOM ? 0 : a->settle);
        if (rc != ATTEMPT_NEED_ROOM)
            return rc;
        /* Destroyed meanwhile: none of it is to be touched. */
        if (dict_gone(a->d, a->at.shard))
            return dict_gone_error(a->d);
        rc = round_end(a, round);
        if (rc == SHD_OK)
            rc = ATTEMPT_NEED_ROOM;
    }
    return rc == ATTEMPT_NEED_ROOM
               ? error_set(SHD_NOMEM,
                           "dict '%s': others took the room as "
                           "fast as it was made",
                           a->d->name)
               : rc;
}
