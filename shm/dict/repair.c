/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages first: a page whose owner word cannot be, or is another shard's than
 * its cells say, goes back to the shard that most of its cells belong to. With
 * that alone a shard may be sound again.
 *
 * Then each shard by itself. A cell that looks like an entry may have been
 * deleted: its bytes stay when it is freed. Live is one that two of three
 * witnesses name: the free map (in use), the tree of its root, and a neighbour
 * in the LRU list (a link that is mirrored: who leaves the list is left by
 * both neighbours at once). So one kind of damage brings nothing back.
 *
 * All facts are gathered in private memory before the first store, and every
 * store leaves the facts as they were: links of trees and of the LRU list are
 * written, those of chains and of lists' elements are not. So it can be done
 * again from any point.
 */
#include "shm/dict/repair.h"
#include "shm/base/error.h"
#include "shm/base/hash.h"
#include "shm/dict/check.h"
#include "shm/dict/forest.h"
#include "shm/dict/index.h"
#include "shm/dict/lease.h"
#include "shm/dict/resize.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keys of lost entries that are named. */
#define NAMED_MAX 20u
#define NAME_BYTES 64u
/* From a chain's cell back to its owner, when a page looks for its shard. */
#define CELLS_OF_PAGE (PAGE_BYTES / SLAB_CELL_MIN)
/* Places in the LRU list: from its head, unknown, from its tail. */
#define ORDER_UNKNOWN (1ull << 40)
#define ORDER_TAIL (1ull << 62)

/* Over all shards of a dict, as long as one fails. */
#define ROUNDS 3

struct marks {
    uint64_t handed[2]; /* in use, as the free map says */
    uint64_t tree[2];   /* a tree leads here */
    uint64_t lru[2];    /* the LRU list does, from an end */
    bool guessed;       /* its class: then the free map means nothing */
};

struct found {
    uint64_t place; /* its key's order */
    uint64_t order; /* in the LRU list */
    uint32_t ref;
    uint32_t rank; /* of two with the same key the higher one stays */
};

struct found_lease {
    uint64_t holder, number;
    uint32_t ref;
};

struct work {
    const struct dict *d;
    struct shard *shard;
    struct repair *r;
    uint32_t number, owner;
    struct slab_page *page; /* by number */
    struct marks *marks;    /* of the same */
    uint32_t pages;
    struct found *found;
    size_t n, room;
    bool no_memory;
    uint64_t version_max;
    uint64_t elements_lost;
    uint32_t named;
    struct found_lease *leases;
    size_t n_leases, leases_room;
};

void repair_say(struct repair *r, const char *format, ...)
{
    va_list ap;
    int n;

    if (r->used >= r->size)
        return;
    va_start(ap, format);
    n = vsnprintf(r->text + r->used, r->size - r->used, format, ap);
    va_end(ap);
    r->used += n > 0 ? (size_t)n : 0;
    if (r->used + 1 < r->size) {
        r->text[r->used++] = '\n';
        r->text[r->used] = '\0';
    } else {
        r->used = r->size;
    }
}

/* ---- cells ------------------------------------------------------------ */

static bool bit_of(const uint64_t map[2], uint32_t cell)
{
    return (map[cell / 64] >> cell % 64 & 1) != 0;
}

static void bit_set(uint64_t map[2], uint32_t cell)
{
    map[cell / 64] |= 1ull << cell % 64;
}

/* An entry by its own bytes: a key whose hash is the cell's. */
static bool is_entry(const struct dict *d, uint32_t ref, struct place *at)
{
    const struct entry *e = entry_at(&d->pages, ref);
    unsigned char key[ENTRY_KEY_MAX + 8];
    uint32_t meta, len;

    if (e == NULL)
        return false;
    meta = atomic_load32(&e->cell.meta);
    len = entry_key_len(atomic_load64(&e->key_expires));
    if (len == 0 || cell_kind(meta) != CELL_ENTRY ||
        entry_key(d, e, len, key) != SHD_OK)
        return false;
    *at = dict_place(d, key, len);
    return at->hash == meta >> CELL_HASH_SHIFT;
}

static uint32_t ref_of(const struct dict *d, uint32_t page, uint32_t class,
                       uint32_t cell)
{
    return (uint32_t)((d->pages.at + (uint64_t)page * PAGE_BYTES +
                       (uint64_t)cell * slab_class_bytes(class)) /
                      SEGMENT_UNIT);
}

/* The class under which most cells of a page are entries; SLAB_CLASSES: under
 * none is there any. */
static uint32_t guess_class(const struct dict *d, uint32_t page)
{
    uint32_t best = SLAB_CLASSES, most = 0;

    for (uint32_t class = 0; class < SLAB_CLASSES; class++) {
        uint32_t n = 0;
        struct place at;

        for (uint32_t c = 0; c < slab_class_cells(class); c++)
            n += is_entry(d, ref_of(d, page, class, c), &at);
        if (n > most) {
            most = n;
            best = class;
        }
    }
    return best;
}


/* Whose a cell is, as far as it says: an owner, 0 if nobody can tell. */
static uint32_t cell_owner(const struct dict *d, uint32_t ref)
{
    const struct cell *c = cell_at(&d->pages, ref, SLAB_CELL_MIN);
    struct place at;
    uint32_t back, page, meta;
    int leads;

    if (is_entry(d, ref, &at))
        return dict_owner(at.shard);
    if (c == NULL)
        return 0;
    meta = atomic_load32(&c->meta);
    if (cell_kind(meta) == CELL_ENTRY)
        return 0;
    back = atomic_load32(
        &c->word[lease_is(meta) ? (int)LEASE_LINK : (int)CHAIN_BACK]);
    if (back == 0 && cell_kind(meta) == CELL_CHAIN)
        back = atomic_load32(&c->word[CHAIN_OF]);
    page = back == 0 ? PAGE_NONE : cell_page(&d->pages, back);
    if (page == PAGE_NONE)
        return 0;
    /* One before it, that leads here: then they have the same owner. */
    leads = lease_is(meta) ? LEASE_LINK : CHAIN_NEXT;
    c = cell_at(&d->pages, back, SLAB_CELL_MIN);
    if (is_entry(d, back, &at))
        return dict_owner(at.shard);
    if (c == NULL || atomic_load32(&c->word[leads]) != ref)
        return 0;
    return atomic_load32(&d->pages.table[page].owner);
}

/* Is any cell in use what a cell can be? */
static bool class_fits(const struct dict *d, uint32_t page, uint32_t class)
{
    for (uint32_t c = 0; c < slab_class_cells(class); c++) {
        if (!bit_of(d->pages.table[page].free_map, c) &&
            cell_owner(d, ref_of(d, page, class, c)) != 0)
            return true;
    }
    return false;
}

/* The class of a page; a guess if what its descriptor says leads to nothing. A
 * page may have been cut otherwise before: what is found by a guess may be of
 * that time. SLAB_CLASSES: nothing in it can be read. */
static uint32_t class_of(const struct dict *d, uint32_t page, bool *guessed)
{
    uint32_t class = page_class(&d->pages.table[page]), guess;

    *guessed = false;
    if (class < SLAB_CLASSES && class_fits(d, page, class))
        return class;
    guess = guess_class(d, page);
    *guessed = guess != SLAB_CLASSES && guess != class;
    return guess != SLAB_CLASSES ? guess : class < SLAB_CLASSES ? class
                                                                : SLAB_CLASSES;
}

/* ---- pages that lost their owner -------------------------------------- */

/* The shard that most of a page's cells belong to, as an owner; 0: none. */
static uint32_t vote(const struct dict *d, uint32_t page)
{
    uint32_t votes[DICT_SHARDS_MAX + 1] = {0}, best = 0;
    bool guessed;
    uint32_t class = class_of(d, page, &guessed), at = 0;
    const struct page *p = &d->pages.table[page];

    if (class == SLAB_CLASSES)
        return 0;
    for (; at < slab_class_cells(class); at++) {
        uint32_t owner;

        if (!guessed && bit_of(p->free_map, at))
            continue;
        owner = cell_owner(d, ref_of(d, page, class, at));
        if (owner == 0 || owner > d->shards)
            continue;
        votes[owner]++;
        if (votes[owner] > votes[best] || best == 0)
            best = owner;
    }
    return best;
}

/* Taken, as the map says, and nobody's: not only for a moment. */
static bool is_nobodys(const struct dict *d, uint32_t page)
{
    for (int i = 0; i < 100; i++) {
        uint32_t owner = atomic_load32_acquire(&d->pages.table[page].owner);
        uint64_t word = atomic_load64(&d->pages.map[page / 64]);

        if (owner > d->shards)
            return true;
        if (owner != 0 || (word >> page % 64 & 1) != 0)
            return false;
        atomic_pause();
    }
    return page < pages_count(&d->pages);
}

/* Gives pages back to the shards that their cells name. Only those without an
 * owner that can be, and those of shards that fail. */
static void owners_restore(const struct dict *d, const bool *failing,
                           struct repair *r)
{
    for (uint32_t n = 0; n < pages_described(&d->pages); n++) {
        uint32_t *word = &d->pages.table[n].owner;
        uint32_t owner = atomic_load32(word), right;
        bool possible = owner >= 1 && owner <= d->shards;

        if (possible ? !failing[owner - 1] : !is_nobodys(d, n))
            continue;
        right = vote(d, n);
        if (right == 0 || right == owner || !failing[right - 1] ||
            !atomic_cas32(word, owner, right))
            continue;
        atomic_and64(&d->pages.map[n / 64], ~(1ull << n % 64));
        r->done.pages_returned++;
        repair_say(r, "dict '%s': page %u went back to shard %u", d->name, n,
                   right - 1);
    }
}

/* What is left without an owner becomes free. Meanwhile its owner is one that
 * cannot be: nobody claims it, and who dies here leaves it to be freed again. */
static void orphans_free(const struct dict *d, struct repair *r)
{
    for (uint32_t n = 0; n < pages_described(&d->pages); n++) {
        uint32_t *word = &d->pages.table[n].owner, owner;

        if (!is_nobodys(d, n))
            continue;
        owner = atomic_load32(word);
        if (owner >= 1 && owner <= d->shards)
            continue;
        if (!atomic_cas32(word, owner, UINT32_MAX))
            continue;
        atomic_or64(&d->pages.map[n / 64], 1ull << n % 64);
        (void)atomic_cas32(word, UINT32_MAX, 0);
        r->done.pages_freed++;
    }
}

/* ---- the bounds of the pages ------------------------------------------ */

static uint64_t owned_end(const struct dict *d)
{
    uint64_t end = 0;

    for (uint32_t n = 0; n < pages_described(&d->pages); n++) {
        uint32_t owner = atomic_load32(&d->pages.table[n].owner);

        if (owner >= 1 && owner <= d->shards)
            end = n + 1;
    }
    return end;
}

/* With shard 0's lock: what is the index? Arrays that it is not in have none
 * of it, whatever they hold. */
static int index_words(const struct dict *d, uint32_t grain)
{
    struct pages_bounds *b = d->pages.bounds;
    uint64_t state = atomic_load64(&b->state), used;
    int rc = SHD_OK;

    if (!index_tag_sound(d)) {
        rc = pages_set_tag(&d->pages, index_tag(grain, grain, state));
        state = atomic_load64(&b->state);
    }
    used = 1ull << index_grain(state) | 1ull << index_former(state);
    for (uint32_t g = d->grain_min; g <= GRAIN_MAX && rc == SHD_OK; g++)
        rc = (used >> g & 1) != 0 ? index_commit(d, g)
                                  : index_forget(d, g, 0, index_bytes(d, g));
    if (rc != SHD_OK)
        return rc;
    atomic_store64(&d->header->grain, grain);
    atomic_store64(&d->header->arrays, used);
    return SHD_OK;
}

/* With shard 0's lock: limit and capacity from whichever can be believed. */
static int bounds_words(const struct dict *d)
{
    struct dict_header *h = d->header;
    uint64_t capacity = dict_capacity(d), described = h->bounds.described;
    uint32_t grain = dict_grain_of(d, capacity);
    uint64_t limit = capacity > h->capacity_max_bytes
                         ? 0
                         : dict_pages_of(d, capacity, grain);
    int rc;

    if (limit == 0) {
        limit = h->bounds.limit;
        if (limit == 0 || limit > d->pages.max)
            limit = d->pages.max;
        capacity =
            dict_index_bytes(d, limit, d->grain_first) + limit * PAGE_BYTES;
        if (capacity > h->capacity_max_bytes)
            capacity = h->capacity_max_bytes;
        grain = dict_grain_of(d, capacity);
        limit = dict_pages_of(d, capacity, grain);
    }
    if (limit == 0)
        return error_set(SHD_CORRUPT, "dict '%s': its header is damaged",
                         d->name);
    if (described < limit || described > d->pages.max)
        described = limit;
    rc = index_words(d, grain);
    if (rc == SHD_OK)
        rc = pages_describe(&d->pages, 0, described);
    if (rc != SHD_OK)
        return rc;
    atomic_store64(&h->capacity_bytes, capacity);
    atomic_store64(&h->unsettled,
                   described != limit || !resize_index_is(d, grain));
    atomic_store64(&h->bounds.described, described);
    atomic_store64(&h->bounds.limit, limit);
    if (pages_committed(&d->pages) > described)
        pages_set_committed(&d->pages, 0);
    pages_offer(&d->pages, 0, limit, d->pages.max);
    return SHD_OK;
}

/* Also: what somebody owns has memory, and may be touched. */
static int bounds_repair(const struct dict *d, struct repair *r)
{
    struct guard *g = dict_guard(d, 0);
    char what[256] = "";
    bool sound;
    int rc = guard_seize(d->env, g, &sound);

    if (rc != SHD_OK)
        return rc;
    if (dict_gone(d, 0)) {
        guard_unlock(g);
        return dict_gone_error(d);
    }
    if (resize_check(d, what, sizeof(what)) != SHD_OK) {
        guard_fence(g);
        rc = bounds_words(d);
        if (rc == SHD_OK && sound)
            guard_mend(g, 0);
        repair_say(r, "dict '%s': %s: set to what the capacity says", d->name,
                   what);
        r->done.bounds++;
    }
    uint64_t end = rc == SHD_OK ? owned_end(d) : 0;

    if (rc == SHD_OK && end > pages_committed(&d->pages)) {
        rc = segment_commit(d->env->segment, d->pages.at, end * PAGE_BYTES);
        if (rc == SHD_OK) {
            pages_set_committed(&d->pages, end);
            repair_say(r, "dict '%s': %llu pages have memory", d->name,
                       (unsigned long long)end);
            r->done.bounds++;
        }
    }
    pages_follow(&d->pages);
    guard_unlock(g);
    return rc;
}

/* ---- gathering the facts ---------------------------------------------- */

static bool work_pages(struct work *w)
{
    const struct pages *p = &w->d->pages;
    uint32_t described = pages_described(p), n = 0;
    uint32_t committed = pages_touchable(p);

    for (uint32_t i = 0; i < described; i++)
        n += atomic_load32(&p->table[i].owner) == w->owner;
    w->page = calloc(n + 1ull, sizeof(*w->page));
    w->marks = calloc(n + 1ull, sizeof(*w->marks));
    if (w->page == NULL || w->marks == NULL)
        return false;
    for (uint32_t i = 0; i < described && w->pages < n; i++) {
        const struct page *page = &p->table[i];
        struct slab_page *sp = &w->page[w->pages];
        struct marks *m = &w->marks[w->pages];

        if (atomic_load32(&page->owner) != w->owner)
            continue;
        sp->number = i;
        sp->class = class_of(w->d, i, &m->guessed);
        sp->leaving = (atomic_load32(&page->info) & PAGE_LEAVING) != 0 &&
                      i >= pages_count(p);
        if (sp->class == SLAB_CLASSES) {
            sp->class = 0; /* nothing in it can be read */
        } else if (i < committed) {
            for (uint32_t c = 0; c < slab_class_cells(sp->class); c++) {
                if (m->guessed || !bit_of(page->free_map, c))
                    bit_set(m->handed, c);
            }
        }
        w->pages++;
    }
    return true;
}

/* The page and the cell of a reference to the start of a cell of this shard;
 * false if it is none. */
static bool locate(const struct work *w, uint32_t ref, uint32_t *page,
                   uint32_t *cell)
{
    const struct pages *p = &w->d->pages;
    uint64_t at = (uint64_t)ref * SEGMENT_UNIT;
    uint32_t number = pages_number(p, at), low = 0, high = w->pages;
    uint32_t inside, bytes;

    if (ref == 0 || number == PAGE_NONE)
        return false;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (w->page[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == w->pages || w->page[low].number != number)
        return false;
    bytes = slab_class_bytes(w->page[low].class);
    inside = (uint32_t)((at - p->at) % PAGE_BYTES);
    *page = low;
    *cell = inside / bytes;
    return inside % bytes == 0 &&
           *cell < slab_class_cells(w->page[low].class);
}

/* Marks; false if it is marked already, or is no cell. */
#define mark(w, ref, which)                                                   \
    ({                                                                        \
        uint32_t page_, cell_;                                                \
        bool new_ = locate(w, ref, &page_, &cell_) &&                         \
                    !bit_of((w)->marks[page_].which, cell_);                  \
        if (new_)                                                             \
            bit_set((w)->marks[page_].which, cell_);                          \
        new_;                                                                 \
    })

static bool is_ours(const struct work *w, uint32_t ref, struct place *at)
{
    return is_entry(w->d, ref, at) && at->shard == w->number;
}

static void mark_tree(struct work *w, uint32_t grain, uint64_t root)
{
    uint32_t stack[2 * TREE_DEPTH_MAX], depth = 0;
    struct place at;

    stack[depth++] = atomic_load32(&w->d->roots[grain][root]);
    while (depth > 0) {
        uint32_t ref = stack[--depth];
        const struct entry *e;

        if (ref == 0 || !is_ours(w, ref, &at) || at.order >> grain != root ||
            !mark(w, ref, tree))
            continue;
        e = entry_at(&w->d->pages, ref);
        for (int side = 0; side < 2 && depth < 2 * TREE_DEPTH_MAX; side++)
            stack[depth++] = atomic_load32(&e->cell.word[side]);
    }
}

static void mark_trees(struct work *w, uint32_t grain)
{
    uint64_t end = index_first(w->d, w->number + 1, grain);

    for (uint64_t i = index_first(w->d, w->number, grain); i < end; i++)
        mark_tree(w, grain, i);
}

static bool found_add(struct work *w, uint32_t ref, const struct place *at,
                      uint64_t order, uint32_t rank)
{
    if (w->n == w->room) {
        size_t room = w->room == 0 ? 1024 : 2 * w->room;
        struct found *more = realloc(w->found, room * sizeof(*more));

        if (more == NULL) {
            w->no_memory = true;
            return false;
        }
        w->found = more;
        w->room = room;
    }
    w->found[w->n++] = (struct found){at->order, order, ref, rank};
    return true;
}

/* From an end of the list as far as it leads to entries. */
static void mark_lru(struct work *w, uint32_t from, int next, uint64_t order,
                     int64_t step)
{
    struct place at;

    for (uint32_t ref = from; ref != 0 && is_ours(w, ref, &at) &&
                              mark(w, ref, lru);) {
        if (!found_add(w, ref, &at, order, 1))
            return;
        order += (uint64_t)step;
        ref = atomic_load32(&entry_at(&w->d->pages, ref)->cell.word[next]);
    }
}

/* Does a neighbour in the LRU list know of it? */
static bool is_linked(const struct work *w, uint32_t ref)
{
    const struct entry *e = entry_at(&w->d->pages, ref);
    struct place at;

    for (int side = LIST_PREV; side <= LIST_NEXT; side++) {
        uint32_t other = atomic_load32(&e->cell.word[side]);
        int back = side == LIST_PREV ? LIST_NEXT : LIST_PREV;

        if (other != 0 && is_ours(w, other, &at) &&
            atomic_load32(&entry_at(&w->d->pages, other)->cell.word[back]) ==
                ref)
            return true;
    }
    return atomic_load32(&w->shard->lru.first) == ref &&
           atomic_load32(&w->shard->lru.last) == ref;
}

/* 0: not live; of two with one key the higher one stays. */
static uint32_t rank_of(const struct work *w, const struct marks *m,
                        uint32_t cell, uint32_t ref)
{
    bool handed = bit_of(m->handed, cell) && !m->guessed;
    bool tree = bit_of(m->tree, cell), linked = is_linked(w, ref);

    if (handed + tree + linked < 2)
        return 0;
    return 1 + 2u * tree + linked;
}

static void name_lost(struct work *w, uint32_t ref, const char *why)
{
    unsigned char key[ENTRY_KEY_MAX + 8];
    const struct entry *e = entry_at(&w->d->pages, ref);
    uint32_t len;
    char name[NAME_BYTES + 1];

    if (e == NULL || w->named++ >= NAMED_MAX)
        return;
    len = entry_key_len(atomic_load64(&e->key_expires));
    if (entry_key(w->d, e, len, key) != SHD_OK)
        return;
    len = len < NAME_BYTES ? len : NAME_BYTES;
    for (uint32_t i = 0; i < len; i++)
        name[i] = isprint(key[i]) ? (char)key[i] : '?';
    name[len] = '\0';
    repair_say(w->r, "dict '%s': lost \"%s\": %s", w->d->name, name, why);
}

/* Those that the LRU list did not lead to as well; and how sure we are of each.
 */
static void gather(struct work *w)
{
    size_t listed = w->n;
    struct place at;

    for (size_t i = 0; i < listed; i++) {
        uint32_t page, cell;

        w->found[i].rank =
            locate(w, w->found[i].ref, &page, &cell)
                ? rank_of(w, &w->marks[page], cell, w->found[i].ref)
                : 0;
    }
    for (uint32_t i = 0; i < w->pages && !w->no_memory; i++) {
        const struct marks *m = &w->marks[i];
        uint32_t class = w->page[i].class;

        for (uint32_t c = 0; c < slab_class_cells(class); c++) {
            uint32_t ref = ref_of(w->d, w->page[i].number, class, c);
            uint32_t rank;

            if (bit_of(m->lru, c) || !is_ours(w, ref, &at))
                continue;
            rank = rank_of(w, m, c, ref);
            if (rank > 0)
                (void)found_add(w, ref, &at, ORDER_UNKNOWN, rank);
        }
    }
}

/* ---- choosing --------------------------------------------------------- */

static int by_key(const void *a, const void *b, void *context)
{
    const struct found *x = a, *y = b;
    const struct work *w = context;
    const struct entry *e = entry_at(&w->d->pages, x->ref);
    unsigned char key[ENTRY_KEY_MAX + 8];
    uint32_t len;

    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    len = entry_key_len(atomic_load64(&e->key_expires));
    if (entry_key(w->d, e, len, key) != SHD_OK)
        return 0;
    return entry_order(w->d, atomic_load32(&e->cell.meta) >> CELL_HASH_SHIFT,
                       key, len, entry_at(&w->d->pages, y->ref));
}

/* Without those of rank 0, and of each key only the surest. */
static void choose(struct work *w)
{
    size_t n = 0;

    for (size_t i = 0; i < w->n; i++) {
        if (w->found[i].rank > 0)
            w->found[n++] = w->found[i];
    }
    w->n = n;
    if (n > 0) /* else there may be no array */
        qsort_r(w->found, n, sizeof(*w->found), by_key, w);
    n = 0;
    for (size_t i = 0; i < w->n; i++) {
        if (n > 0 && by_key(&w->found[n - 1], &w->found[i], w) == 0) {
            if (w->found[i].rank > w->found[n - 1].rank)
                w->found[n - 1] = w->found[i];
        } else {
            w->found[n++] = w->found[i];
        }
    }
    w->n = n;
}

/* The descriptors say what is believed, so that checks can be made. */
static void describe(struct work *w)
{
    for (size_t i = 0; i < w->n; i++) {
        const struct entry *e = entry_at(&w->d->pages, w->found[i].ref);
        uint64_t expires = atomic_load64(&e->key_expires) & ENTRY_EXPIRES_MASK;
        uint32_t page, cell;

        if (!locate(w, w->found[i].ref, &page, &cell))
            continue;
        bit_set(w->marks[page].handed, cell);
        if (expires != 0 && (w->page[page].expires == 0 ||
                             expires < w->page[page].expires))
            w->page[page].expires = expires;
    }
    for (uint32_t i = 0; i < w->pages; i++) {
        struct page *page = &w->d->pages.table[w->page[i].number];
        uint64_t expiry = atomic_load64(&page->expiry);

        for (int h = 0; h < 2; h++)
            atomic_store64(&page->free_map[h], ~w->marks[i].handed[h]);
        atomic_store32(&page->info, w->page[i].class);
        atomic_store64(&page->expiry, (expiry & ~PAGE_EXPIRY_MASK) |
                                          w->page[i].expires);
    }
}

/* ---- what an entry owns ----------------------------------------------- */

/* Cuts a list's elements where they are no longer whole. */
static uint32_t cut_elements(struct work *w, struct entry_list *l,
                             uint32_t ref)
{
    uint64_t cells = 0, limit = (uint64_t)w->pages * CELLS_OF_PAGE;
    uint32_t back = ref, at = l->first, n = 0;
    struct cell *last = NULL;
    char why[256];

    while (at != ref && n < limit) {
        struct cell *c = cell_at(&w->d->pages, at, SLAB_CELL_MIN);

        if (c == NULL || atomic_load32(&c->word[CHAIN_BACK]) != back ||
            atomic_load32(&c->word[LEASE_LINK]) != 0 ||
            check_node(w->d, w->number, at, &cells, why, sizeof(why)) !=
                SHD_OK)
            break;
        n++;
        last = c;
        back = at;
        at = atomic_load32(&c->word[CHAIN_NEXT]);
    }
    if (l->count > n && l->count < limit)
        w->elements_lost += l->count - n;
    if (last == NULL) {
        atomic_store64((uint64_t *)(void *)&l->first, 0);
    } else {
        atomic_store32(&last->word[CHAIN_NEXT], ref);
        atomic_store32(&l->last, back);
    }
    atomic_store32(&l->count, n);
    return n;
}

/* A lease as it can be of an element of that list; `list` 0: of any chain. */
static bool is_lease(const struct work *w, const struct lease *l,
                     uint32_t node, uint64_t order, uint64_t list)
{
    return l != NULL && l->cell.word[LEASE_LINK] == node &&
           l->order == order && l->holder != 0 &&
           (list == 0 || l->list == list) &&
           lease_shard(l->number) < w->d->shards &&
           lease_stage(l) <= LEASE_PINNED;
}

/* The same for those that are leased; false if there are none. */
static bool cut_leased(struct work *w, struct entry_list *l, uint32_t ref,
                       uint64_t order)
{
    uint64_t cells = 0, list = 0, n = 0;
    uint64_t limit = (uint64_t)w->pages * CELLS_OF_PAGE;
    uint32_t back = ref, at = l->leased;
    struct cell *last = NULL;
    char why[256];

    while (at != 0 && n < limit) {
        struct cell *c = cell_at(&w->d->pages, at, SLAB_CELL_MIN);
        const struct lease *lease =
            c == NULL ? NULL : lease_at(w->d, lease_of(c));

        if (c == NULL || atomic_load32(&c->word[CHAIN_BACK]) != back ||
            !is_lease(w, lease, at, order, list) ||
            check_node(w->d, w->number, at, &cells, why, sizeof(why)) !=
                SHD_OK)
            break;
        list = lease->list;
        n++;
        last = c;
        back = at;
        at = atomic_load32(&c->word[CHAIN_NEXT]);
    }
    w->elements_lost += at != 0;
    if (last == NULL)
        atomic_store32(&l->leased, 0);
    else
        atomic_store32(&last->word[CHAIN_NEXT], 0);
    return last != NULL;
}

/* Keeps a list's elements as far as they are whole; false if that is none. */
static bool list_cut(struct work *w, uint32_t ref)
{
    struct cell *entry = cell_at(&w->d->pages, ref, SLAB_CELL_MIN);
    struct entry_list *l = entry_list(&w->d->pages, entry);
    struct place at;
    bool any;

    if (l == NULL || !is_ours(w, ref, &at))
        return false;
    any = cut_elements(w, l, ref) > 0;
    return cut_leased(w, l, ref, at.order) || any;
}

/* A version that was never given is given now. */
static void version_repair(struct work *w, uint32_t ref)
{
    struct entry *e = entry_at(&w->d->pages, ref);
    uint32_t meta = atomic_load32(&e->cell.meta);
    uint32_t len = entry_key_len(atomic_load64(&e->key_expires));
    uint64_t seq = atomic_load64(&dict_guard(w->d, w->number)->seq);
    uint64_t version = entry_version(w->d, e);

    if (!cell_is_versioned(meta) ||
        entry_value_at(meta, len) > cell_room(&w->d->pages, e))
        return;
    if (version == 0 || version > (seq + 1) / 2)
        atomic_store64((uint64_t *)(void *)((unsigned char *)e +
                                            entry_version_at(meta, len)),
                       (seq + 1) / 2);
}

/* It follows from the key. */
static void long_hash_repair(struct work *w, uint32_t ref)
{
    const struct dict *d = w->d;
    struct entry *e = entry_at(&d->pages, ref);
    uint32_t len = entry_key_len(atomic_load64(&e->key_expires));
    unsigned char key[ENTRY_KEY_MAX + 8];
    uint64_t hash;

    if (!entry_is_long(len) ||
        entry_value_at(atomic_load32(&e->cell.meta), len) >
            cell_room(&d->pages, e) ||
        entry_key(d, e, len, key) != SHD_OK)
        return;
    hash = hash_bytes(key, len, d->env->segment->hash_seed);
    if (atomic_load64(entry_long_hash(e)) != hash)
        atomic_store64(entry_long_hash(e), hash);
}

/* Goes over all cells of an entry that was found whole: `claim` says whether
 * to take them, or to see whether all of them can be had. */
static bool claim_cell(struct work *w, uint32_t ref, bool claim)
{
    uint32_t page, cell;

    if (!locate(w, ref, &page, &cell))
        return false;
    if (bit_of(w->page[page].used, cell))
        return false;
    if (claim)
        bit_set(w->page[page].used, cell);
    return true;
}

/* Leases that are kept come into a tree of their own. */
static bool claim_lease(struct work *w, uint32_t ref, bool claim)
{
    const struct lease *l = lease_at(w->d, ref);

    if (l == NULL || !claim_cell(w, ref, claim))
        return false;
    if (!claim)
        return true;
    if (w->n_leases == w->leases_room) {
        size_t room = w->leases_room == 0 ? 256 : 2 * w->leases_room;
        struct found_lease *more = realloc(w->leases, room * sizeof(*more));

        if (more == NULL) {
            w->no_memory = true;
            return false;
        }
        w->leases = more;
        w->leases_room = room;
    }
    w->leases[w->n_leases++] =
        (struct found_lease){atomic_load64(&l->holder),
                             atomic_load64(&l->number), ref};
    return true;
}

static bool claim_chain(struct work *w, struct cell *of, bool claim)
{
    const struct pages *p = &w->d->pages;
    uint32_t ref = atomic_load32(entry_chain(p, of));

    while (ref != 0) {
        if (!claim_cell(w, ref, claim))
            return false;
        ref = atomic_load32(
            &cell_at(p, ref, sizeof(struct cell))->word[CHAIN_NEXT]);
    }
    return true;
}

/* Nodes from `at` on, with their leases; `end` is what the last one leads to.
 */
static bool claim_nodes(struct work *w, uint32_t at, uint32_t end, bool claim)
{
    while (at != end) {
        struct cell *node = cell_at(&w->d->pages, at, SLAB_CELL_MIN);

        if (!claim_cell(w, at, claim) ||
            ((atomic_load32(&node->meta) & CELL_CHAINED) != 0 &&
             !claim_chain(w, node, claim)))
            return false;
        if (lease_of(node) != 0 && !claim_lease(w, lease_of(node), claim))
            return false;
        at = atomic_load32(&node->word[CHAIN_NEXT]);
    }
    return true;
}

static bool claim_entry(struct work *w, uint32_t ref, bool claim)
{
    const struct pages *p = &w->d->pages;
    struct entry *e = entry_at(p, ref);
    uint32_t meta = atomic_load32(&e->cell.meta);
    const struct entry_list *l;

    if (!claim_cell(w, ref, claim))
        return false;
    if (entry_has_chain(meta, entry_key_len(atomic_load64(&e->key_expires))) &&
        !claim_chain(w, &e->cell, claim))
        return false;
    if ((meta & CELL_TYPE_MASK) != SHD_LIST)
        return true;
    l = entry_list(p, &e->cell);
    return claim_nodes(w, l->count == 0 ? ref : l->first, ref, claim) &&
           claim_nodes(w, l->leased, 0, claim);
}

/* Keeps those that are whole with all they own. */
static void keep_whole(struct work *w)
{
    size_t n = 0;

    for (size_t i = 0; i < w->n; i++) {
        struct found *f = &w->found[i];
        uint64_t cells = 0;
        char why[256] = "";
        uint32_t type = atomic_load32(&entry_at(&w->d->pages, f->ref)
                                           ->cell.meta) &
                        CELL_TYPE_MASK;

        version_repair(w, f->ref);
        long_hash_repair(w, f->ref);
        int rc =
            check_entry(w->d, w->number, f->ref, &cells, why, sizeof(why));

        if (rc != SHD_OK && type == SHD_LIST && list_cut(w, f->ref)) {
            cells = 0;
            rc =
                check_entry(w->d, w->number, f->ref, &cells, why, sizeof(why));
        }
        if (rc != SHD_OK) {
            name_lost(w, f->ref, why);
        } else if (!claim_entry(w, f->ref, false)) {
            name_lost(w, f->ref, "what it owns is another's as well");
        } else {
            (void)claim_entry(w, f->ref, true);
            w->found[n++] = *f;
        }
    }
    w->n = n;
}

/* ---- writing ---------------------------------------------------------- */

/* Where it is damaged which arrays there are, whoever looks is refused. */
static void clear_trees(const struct dict *d, uint32_t shard)
{
    uint64_t state = index_state(d);
    uint32_t grains[2] = {index_grain(state), index_former(state)};

    for (int i = 0; i < 2 && index_sound(state); i++) {
        uint64_t end = index_first(d, shard + 1, grains[i]);

        for (uint64_t n = index_first(d, shard, grains[i]); n < end; n++)
            atomic_store32(&d->roots[grains[i]][n], 0);
    }
}

/* All under their new roots. */
static int write_roots(struct work *w)
{
    const struct dict *d = w->d;
    uint32_t grain = index_grain(index_state(d));
    uint32_t *refs = malloc((w->n + 1) * sizeof(*refs));
    int rc = SHD_OK;

    if (refs == NULL)
        return error_set(SHD_NOMEM, "no memory to rebuild the roots");
    clear_trees(d, w->number);
    for (size_t i = 0; i < w->n && rc == SHD_OK;) {
        uint64_t root = w->found[i].place >> grain;
        uint32_t n = 0;

        while (i < w->n && w->found[i].place >> grain == root)
            refs[n++] = w->found[i++].ref;
        rc = tree_build(d->env->segment, &d->pages.nodes, refs, n,
                        &d->roots[grain][root]);
    }
    free(refs);
    return rc;
}

static int by_holder(const void *a, const void *b)
{
    const struct found_lease *x = a, *y = b;

    if (x->holder != y->holder)
        return x->holder < y->holder ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* Those of elements that are kept. What was on its way between two shards, and
 * had gone here, is there. */
static int write_leases(struct work *w)
{
    struct shard *s = w->shard;
    uint64_t count = atomic_load64(&s->lease_count);
    uint32_t *refs = malloc((w->n_leases + 1) * sizeof(*refs)), top = 0;
    int rc;

    if (refs == NULL)
        return error_set(SHD_NOMEM, "no memory to rebuild the leases");
    if (w->n_leases > 0)
        qsort(w->leases, w->n_leases, sizeof(*w->leases), by_holder);
    for (size_t i = 0; i < w->n_leases; i++) {
        uint64_t number = w->leases[i].number;

        if (lease_shard(number) == w->number && number >> 8 > count)
            count = number >> 8;
        refs[i] = w->leases[i].ref;
    }
    rc = tree_build(w->d->env->segment, &w->d->pages.nodes, refs,
                    (uint32_t)w->n_leases, &top);
    free(refs);
    atomic_store32(&s->leases, top);
    atomic_store32(&s->n_leases, (uint32_t)w->n_leases);
    atomic_store64(&s->lease_count, count);
    return rc;
}

static int by_order(const void *a, const void *b)
{
    const struct found *x = a, *y = b;

    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return x->ref < y->ref ? -1 : x->ref > y->ref;
}

static void write_lru(struct work *w)
{
    const struct pages *p = &w->d->pages;
    size_t n = w->n;

    if (n > 0)
        qsort(w->found, n, sizeof(*w->found), by_order);
    for (size_t i = 0; i < n; i++) {
        struct entry *e = entry_at(p, w->found[i].ref);

        atomic_store32(&e->cell.word[LIST_PREV],
                       i == 0 ? 0 : w->found[i - 1].ref);
        atomic_store32(&e->cell.word[LIST_NEXT],
                       i + 1 == n ? 0 : w->found[i + 1].ref);
    }
    atomic_store32(&w->shard->lru.first, n == 0 ? 0 : w->found[0].ref);
    atomic_store32(&w->shard->lru.last, n == 0 ? 0 : w->found[n - 1].ref);
    atomic_store64(&w->shard->entries, n);
    atomic_store64(&w->shard->shuffles,
                   atomic_load64(&w->shard->shuffles) + 1);
    atomic_store32(&w->shard->pending[0], 0);
    atomic_store32(&w->shard->pending[1], 0);
    atomic_store32(&w->shard->garbage, 0);
}

/* The earliest expiry of what stays. */
static void page_expiries(struct work *w)
{
    for (uint32_t i = 0; i < w->pages; i++)
        w->page[i].expires = 0;
    for (size_t i = 0; i < w->n; i++) {
        const struct entry *e = entry_at(&w->d->pages, w->found[i].ref);
        uint64_t expires = atomic_load64(&e->key_expires) & ENTRY_EXPIRES_MASK;
        uint32_t page, cell;

        if (expires != 0 && locate(w, w->found[i].ref, &page, &cell) &&
            (w->page[page].expires == 0 || expires < w->page[page].expires))
            w->page[page].expires = expires;
    }
}

/* ---- a shard ---------------------------------------------------------- */

static int rebuild(struct work *w)
{
    uint64_t state = index_state(w->d);
    int rc;

    if (!index_sound(state))
        return dict_damaged(w->d, "its index is said to be what it is not");
    if (!work_pages(w))
        return error_set(SHD_NOMEM, "no memory to rebuild a shard");
    mark_trees(w, index_grain(state));
    if (index_moves(state))
        mark_trees(w, index_former(state));
    mark_lru(w, atomic_load32(&w->shard->lru.first), LIST_NEXT, 0, 1);
    mark_lru(w, atomic_load32(&w->shard->lru.last), LIST_PREV, ORDER_TAIL, -1);
    gather(w);
    if (w->no_memory)
        return error_set(SHD_NOMEM, "no memory to rebuild a shard");
    choose(w);
    describe(w);
    /* Until they are counted, as many as there may be. */
    atomic_store32(&w->shard->n_leases, w->pages * CELLS_OF_PAGE);
    keep_whole(w);
    if (w->no_memory)
        return error_set(SHD_NOMEM, "no memory to rebuild a shard");
    page_expiries(w);
    rc = write_roots(w);
    if (rc == SHD_OK)
        rc = write_leases(w);
    if (rc == SHD_OK)
        write_lru(w);
    if (rc == SHD_OK)
        rc = slab_rebuild(&w->d->pages, &w->shard->slab, w->owner, w->page,
                          w->pages);
    return rc;
}

static void reset(const struct dict *d, uint32_t shard)
{
    struct shard *s = &d->shard[shard];

    clear_trees(d, shard);
    for (uint32_t n = 0; n < pages_described(&d->pages); n++) {
        struct page *page = &d->pages.table[n];

        if (atomic_load32(&page->owner) != dict_owner(shard))
            continue;
        atomic_store64(&page->expiry, 0);
        atomic_or64(&d->pages.map[n / 64], 1ull << n % 64);
        atomic_store32_release(&page->owner, 0);
    }
    memset(&s->lru, 0, sizeof(s->lru));
    memset(&s->slab, 0, sizeof(s->slab));
    s->entries = 0;
    s->pending[0] = s->pending[1] = 0;
    s->garbage = 0;
    s->leases = s->n_leases = 0;
    s->vain = s->swept = 0;
    s->shuffles++;
}

/* Behind the fence: down the ladder until the check finds nothing. */
static int shard_rungs(const struct dict *d, uint32_t shard, const char *why,
                       struct repair *r)
{
    struct work w = {.d = d,
                     .shard = &d->shard[shard],
                     .r = r,
                     .number = shard,
                     .owner = dict_owner(shard)};
    uint64_t had = atomic_load64(&w.shard->entries);
    char left[256] = "";
    int rc = rebuild(&w);
    uint64_t kept = w.n, lost;

    if (had > (uint64_t)d->pages.max * CELLS_OF_PAGE)
        had = 0; /* damaged as well */
    if (rc == SHD_OK)
        rc = check_shard(d, shard, left, sizeof(left));
    free(w.page);
    free(w.marks);
    free(w.found);
    free(w.leases);
    if (rc == SHD_NOMEM || rc == SHD_BUSY)
        return rc;
    if (rc == SHD_OK) {
        lost = had > kept ? had - kept : 0;
        repair_say(r,
                   "dict '%s': shard %u (%s): rebuilt from its cells: %llu "
                   "entries kept, %llu lost, %llu elements of lists lost",
                   d->name, shard, why, (unsigned long long)kept,
                   (unsigned long long)lost,
                   (unsigned long long)w.elements_lost);
        r->done.rebuilt++;
        r->done.entries_kept += kept;
        r->done.entries_lost += lost;
        r->done.elements_lost += w.elements_lost;
        return SHD_OK;
    }
    reset(d, shard);
    repair_say(r,
               "dict '%s': shard %u (%s): could not be rebuilt (%s), and was "
               "emptied: %llu entries lost",
               d->name, shard, why, left, (unsigned long long)had);
    r->done.reset++;
    r->done.entries_lost += had;
    rc = check_shard(d, shard, left, sizeof(left));
    return rc == SHD_OK ? rc : error_set(rc, "%s", left);
}

static int shard_repair(const struct dict *d, uint32_t shard,
                        struct repair *r)
{
    struct guard *g = dict_guard(d, shard);
    char why[256] = "";
    bool sound;
    int rc = guard_seize(d->env, g, &sound);

    if (rc != SHD_OK)
        return rc;
    if (!dict_enter(d, shard)) {
        guard_unlock(g);
        return dict_gone_error(d);
    }
    if (sound)
        rc = check_shard(d, shard, why, sizeof(why));
    else
        rc = guard_check(g, why, sizeof(why));
    if (rc == SHD_CORRUPT) {
        guard_fence(g);
        rc = shard_rungs(d, shard, why, r);
        if (rc == SHD_OK)
            guard_mend(g, 0);
    }
    guard_unlock(g);
    return rc;
}

/* Which shards fail, and how many. */
static int find_failing(const struct dict *d, bool *failing, uint32_t *bad)
{
    char why[256];

    *bad = 0;
    for (uint32_t i = 0; i < d->shards; i++) {
        /* First what a dead holder left is undone: that changes the shard, and
         * readers need no lock, and do not see that one is none any more. */
        int rc = guard_trylock(d->env, dict_guard(d, i));

        if (rc == SHD_OK)
            guard_unlock(dict_guard(d, i));
        if (rc != SHD_CORRUPT)
            rc = check_shard_quiet(d, i, why, sizeof(why));
        if (rc == SHD_GONE)
            return rc;
        failing[i] = rc == SHD_CORRUPT;
        *bad += failing[i];
    }
    return SHD_OK;
}

/* What one shard's repair finds damaged of another's is seen by the next
 * round. */
static int shards_repair(const struct dict *d, bool *failing,
                         struct repair *r)
{
    uint32_t bad;
    int rc = SHD_OK;

    for (int round = 0; round < ROUNDS && rc == SHD_OK; round++) {
        rc = find_failing(d, failing, &bad);
        if (rc != SHD_OK || bad == 0)
            return rc;
        owners_restore(d, failing, r);
        orphans_free(d, r);
        for (uint32_t i = 0; i < d->shards && rc == SHD_OK; i++) {
            if (failing[i])
                rc = shard_repair(d, i, r);
        }
    }
    return rc;
}

int repair_dict(const struct guard_env *env, const struct catalogue_object *o,
                struct repair *r)
{
    bool failing[DICT_SHARDS_MAX];
    char why[256] = "";
    struct dict d;
    int rc = dict_view_unbounded(env, o, &d);

    if (rc != SHD_OK) {
        repair_say(r, "%s: it can only be removed", shd_last_error());
        return rc;
    }
    rc = bounds_repair(&d, r);
    if (rc == SHD_OK)
        rc = shards_repair(&d, failing, r);
    if (rc != SHD_OK) {
        repair_say(r, "dict '%s': %s", d.name, shd_last_error());
        return rc;
    }
    rc = dict_check(env, o, why, sizeof(why));
    if (rc != SHD_OK)
        repair_say(r, "dict '%s': %s", d.name, why);
    return rc;
}
