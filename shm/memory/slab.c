/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A page is cut into cells of one class; what is left over at its end stays
 * unused (at most 4 %). The descriptor, not the page, holds the free map, so
 * that a cell's neighbours are never touched by the allocator.
 *
 * The tree of pages by expiry answers "what has expired?" without an index of
 * entries: a page's bound is the earliest expiry of any entry in it, or
 * earlier. A bound is lowered at once and raised only by who has looked into
 * the page, so no expired entry is ever overlooked, and refreshing an entry's
 * expiry costs nothing here.
 */
#include "shm/memory/slab.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"

#include <stdio.h>
#include <stdlib.h>

const uint16_t slab_sizes[SLAB_CLASSES] = {
    48,  64,  80,  96,  112, 128, 160,  192,  224,  256, 304,
    368, 448, 512, 576, 672, 816, 1024, 1360, 2048, 4096};

/* What slab_sizes says, for each 16 bytes. */
const uint8_t slab_class_of[SLAB_CELL_MAX / 16 + 1] = {
    [0 ... 3] = 0, [4] = 1, [5] = 2, [6] = 3, [7] = 4, [8] = 5, [9 ... 10] = 6,
    [11 ... 12] = 7, [13 ... 14] = 8, [15 ... 16] = 9, [17 ... 19] = 10,
    [20 ... 23] = 11, [24 ... 28] = 12, [29 ... 32] = 13, [33 ... 36] = 14,
    [37 ... 42] = 15, [43 ... 51] = 16, [52 ... 64] = 17, [65 ... 85] = 18,
    [86 ... 128] = 19, [129 ... 256] = 20};

/* Its nodes are the page table's. */
static struct tree_kind expiry_kind(const struct pages *p)
{
    uint64_t table = segment_offset(p->segment, p->table);
    struct tree_kind kind = {
        .links_at = offsetof(struct page, left),
        .colour_at = offsetof(struct page, info),
        .colour_mask = PAGE_RED,
        .node_bytes = sizeof(struct page),
        .first = table,
        .end = table + (uint64_t)pages_described(p) * sizeof(struct page),
    };

    return kind;
}

uint32_t slab_class_bytes(uint32_t class)
{
    assert(class < SLAB_CLASSES);
    return slab_sizes[class];
}

static uint32_t class_cells(uint32_t class)
{
    return PAGE_BYTES / slab_sizes[class];
}

uint32_t slab_class_cells(uint32_t class)
{
    assert(class < SLAB_CLASSES);
    return class_cells(class);
}

/* The page a list or a reference names, if it is this owner's; and its class,
 * loaded once: a second load may be anything. */
static struct page *owned_page(const struct pages *p, uint32_t owner,
                               uint32_t number, uint32_t *class)
{
    if (number >= p->max || atomic_load32(&p->table[number].owner) != owner)
        return NULL;
    *class = page_class(&p->table[number]);
    return *class >= SLAB_CLASSES ? NULL : &p->table[number];
}

static uint32_t page_ref(const struct pages *p, const struct page *page)
{
    return (uint32_t)(segment_offset(p->segment, page) / SEGMENT_UNIT);
}

static uint32_t page_number(const struct pages *p, const struct page *page)
{
    return (uint32_t)(page - p->table);
}

static void info_store(struct txn *t, struct page *page, uint32_t free_cells)
{
    uint32_t info = atomic_load32(&page->info);

    txn_store32(t, &page->info, (info & ~0xff00u) | free_cells << 8);
}

/* What a link of a list leads to: a page of the same owner and class. */
static struct page *neighbour(const struct pages *p, const struct page *page,
                              uint32_t class, uint32_t number)
{
    uint32_t its;
    struct page *n =
        owned_page(p, atomic_load32(&page->owner), number - 1, &its);

    return n == NULL || its != class ? NULL : n;
}

static int list_broken(void)
{
    return error_set(SHD_CORRUPT, "slab: a list of free cells leads to a page "
                                  "of another owner");
}

static int partial_push(const struct pages *p, struct slab *s, struct txn *t,
                        struct page *page, uint32_t class)
{
    uint32_t *head = &s->partial[class];
    uint32_t first = atomic_load32(head);
    struct page *old = neighbour(p, page, class, first);

    if (first != 0 && old == NULL)
        return list_broken();
    txn_store64(t, (uint64_t *)(void *)&page->prev, (uint64_t)first << 32);
    if (old != NULL)
        txn_store32(t, &old->prev, page_number(p, page) + 1);
    txn_store32(t, head, page_number(p, page) + 1);
    return SHD_OK;
}

static int partial_remove(const struct pages *p, struct slab *s, struct txn *t,
                          const struct page *page, uint32_t class)
{
    uint32_t prev = atomic_load32(&page->prev);
    uint32_t next = atomic_load32(&page->next);
    uint32_t *head = &s->partial[class];
    struct page *before = neighbour(p, page, class, prev);
    struct page *after = neighbour(p, page, class, next);

    if ((prev != 0 && before == NULL) || (next != 0 && after == NULL) ||
        (prev == 0 && atomic_load32(head) != page_number(p, page) + 1))
        return list_broken();
    txn_store32(t, before == NULL ? head : &before->next, next);
    if (after != NULL)
        txn_store32(t, &after->prev, prev);
    return SHD_OK;
}

int slab_prepare(const struct pages *p, const struct slab *s, uint32_t class)
{
    if (atomic_load32(&s->partial[class]) != 0)
        return SHD_OK;
    return pages_prepare(p);
}

/* A page just claimed: nobody but this transaction knows of it, and whatever
 * its descriptor held before means nothing, so it is filled without a log. */
static int page_open(const struct pages *p, struct slab *s, struct txn *t,
                     uint32_t owner, uint32_t class, struct page **opened)
{
    uint32_t n = pages_claim(p, t, owner);
    uint32_t cells = class_cells(class);
    struct page *page;

    if (n == PAGE_NONE)
        return SHD_NOMEM;
    page = *opened = &p->table[n];
    atomic_store64(&page->free_map[0],
                   cells >= 64 ? ~0ull : (1ull << cells) - 1);
    atomic_store64(&page->free_map[1],
                   cells > 64 ? (1ull << (cells - 64)) - 1 : 0);
    atomic_store64(&page->expiry, 0);
    atomic_store32(&page->info, class | cells << 8);
    txn_store32(t, &s->pages, atomic_load32(&s->pages) + 1);
    return partial_push(p, s, t, page, class);
}

static uint64_t stamp_now(void)
{
    return clock_coarse_ms() / 1000 & 0xffff;
}

static void stamp(struct txn *t, struct page *page)
{
    uint64_t expiry = atomic_load64(&page->expiry);
    uint64_t seconds = stamp_now();

    if (expiry >> 48 != seconds)
        txn_store64(t, &page->expiry,
                    (expiry & PAGE_EXPIRY_MASK) | seconds << 48);
}

/* A page that is one cell is free, and then full: in no list on the way. Its
 * descriptor is filled as page_open does it. */
static int page_whole(const struct pages *p, struct slab *s, struct txn *t,
                      uint32_t owner, uint32_t class, uint32_t *ref)
{
    uint32_t n = pages_claim(p, t, owner);
    struct page *page;

    if (n == PAGE_NONE)
        return SHD_NOMEM;
    page = &p->table[n];
    atomic_store64(&page->free_map[0], 0);
    atomic_store64(&page->free_map[1], 0);
    atomic_store64(&page->expiry, stamp_now() << 48);
    atomic_store32(&page->info, class);
    txn_store32(t, &s->pages, atomic_load32(&s->pages) + 1);
    txn_store64(t, &s->bytes, atomic_load64(&s->bytes) + PAGE_BYTES);
    *ref = (uint32_t)((p->at + (uint64_t)n * PAGE_BYTES) / SEGMENT_UNIT);
    return SHD_OK;
}

int slab_alloc(const struct pages *p, struct slab *s, struct txn *t,
               uint32_t owner, uint32_t class, uint32_t avoid, uint32_t *ref)
{
    uint32_t number = atomic_load32(&s->partial[class]);
    struct page *page;

    assert(class < SLAB_CLASSES);
    if (number != 0 && number - 1 == avoid)
        number = avoid < p->max ? atomic_load32(&p->table[avoid].next) : 0;
    if (number == 0 && slab_sizes[class] == PAGE_BYTES)
        return page_whole(p, s, t, owner, class, ref);
    if (number == 0) {
        int rc = page_open(p, s, t, owner, class, &page);

        if (rc != SHD_OK)
            return rc;
    } else {
        uint32_t its;

        page = owned_page(p, owner, number - 1, &its);
        if (page == NULL || its != class)
            return list_broken();
    }
    unsigned half = atomic_load64(&page->free_map[0]) == 0;
    uint64_t bits = atomic_load64(&page->free_map[half]);
    uint32_t free_cells = page_free_cells(page);

    if (bits == 0 || free_cells == 0)
        return error_set(SHD_CORRUPT, "slab: a page in the list of free "
                                      "cells has none");
    uint32_t cell = half * 64 + (uint32_t)__builtin_ctzll(bits);

    if (cell >= class_cells(class))
        return error_set(SHD_CORRUPT, "slab: a free cell past its page");
    txn_store64(t, &page->free_map[half], bits & (bits - 1));
    info_store(t, page, free_cells - 1);
    stamp(t, page);
    if (free_cells == 1) {
        int rc = partial_remove(p, s, t, page, class);

        if (rc != SHD_OK)
            return rc;
    }
    txn_store64(t, &s->bytes, atomic_load64(&s->bytes) + slab_sizes[class]);
    *ref = (uint32_t)((p->at + (uint64_t)page_number(p, page) * PAGE_BYTES +
                       (uint64_t)cell * slab_sizes[class]) /
                      SEGMENT_UNIT);
    return SHD_OK;
}

/* The page and the cell number of a reference to the start of a cell. */
static struct page *locate(const struct pages *p, uint32_t owner, uint32_t ref,
                           uint32_t *class, uint32_t *cell)
{
    uint64_t at = (uint64_t)ref * SEGMENT_UNIT;
    uint32_t n = pages_number(p, at);
    struct page *page = n == PAGE_NONE ? NULL : owned_page(p, owner, n, class);
    uint32_t inside, bytes;

    if (page == NULL)
        return NULL;
    bytes = slab_sizes[*class];
    inside = (uint32_t)((at - p->at) % PAGE_BYTES);
    *cell = inside / bytes;
    if (inside % bytes != 0 || *cell >= class_cells(*class))
        return NULL;
    return page;
}

static bool cell_is_free(const struct page *page, uint32_t cell)
{
    return (atomic_load64(&page->free_map[cell / 64]) >> cell % 64 & 1) != 0;
}

/* `order` for tree_find: by the bound, then by place. */
struct expiry_key {
    uint64_t expires;
    const unsigned char *page;
};

static int expiry_order(const void *context, const unsigned char *node)
{
    const struct expiry_key *k = context;
    uint64_t expires =
        atomic_load64(&((const struct page *)(const void *)node)->expiry) &
        PAGE_EXPIRY_MASK;

    if (k->expires != expires)
        return k->expires < expires ? -1 : 1;
    return k->page == node ? 0 : k->page < node ? -1 : 1;
}

void slab_soonest_lower(const struct pages *p, uint64_t expires)
{
    /* Each failure is another's success, and brings it down. */
    for (;;) {
        uint64_t now = atomic_load64(p->soonest);

        if ((now != 0 && now <= expires) ||
            atomic_cas64(p->soonest, now, expires))
            return;
    }
}

/* First the shard's word, then the dict's: who raises the dict's looks at the
 * shards' again afterwards, so one of the two sees the other. */
static void soonest_lower(const struct pages *p, struct slab *s, struct txn *t,
                          uint64_t expires)
{
    uint64_t own = atomic_load64(&s->soonest);

    if (own != 0 && own <= expires)
        return;
    txn_store64(t, &s->soonest, expires);
    atomic_fence_full();
    slab_soonest_lower(p, expires);
}

void slab_expiry_publish(const struct pages *p, struct slab *s,
                         struct guard *guard)
{
    uint64_t expires = 0;
    struct txn t;

    if (slab_expiry_first(p, s, &expires) == PAGE_NONE)
        expires = 0;
    if (expires == atomic_load64(&s->soonest))
        return;
    txn_begin(&t, p->segment, guard, 1);
    txn_store64(&t, &s->soonest, expires);
    txn_commit(&t);
}

int slab_expiry_set(const struct pages *p, struct slab *s, struct txn *t,
                    uint32_t page_no, uint64_t expires)
{
    const struct tree_kind kind = expiry_kind(p);
    struct page *page = &p->table[page_no];
    uint64_t expiry = atomic_load64(&page->expiry);
    struct expiry_key key = {expiry & PAGE_EXPIRY_MASK,
                             (const unsigned char *)page};
    struct tree_path path;
    int rc;

    if (key.expires == expires)
        return SHD_OK;
    if ((atomic_load32(&page->info) & PAGE_IN_TREE) != 0) {
        rc = tree_find(p->segment, &kind, atomic_load32(&s->expiry_root),
                       expiry_order, &key, &path);
        if (rc != 1)
            return error_set(SHD_CORRUPT, "slab: a page is not in the tree "
                                          "of expiries");
        rc = tree_remove(t, &kind, &s->expiry_root, &path);
        if (rc != SHD_OK)
            return rc;
        txn_store32(t, &page->info,
                    atomic_load32(&page->info) & ~PAGE_IN_TREE);
    }
    txn_store64(t, &page->expiry, (expiry & ~PAGE_EXPIRY_MASK) | expires);
    if (expires == 0)
        return SHD_OK;
    soonest_lower(p, s, t, expires);
    key.expires = expires;
    rc = tree_find(p->segment, &kind, atomic_load32(&s->expiry_root),
                   expiry_order, &key, &path);
    if (rc != 0)
        return error_set(SHD_CORRUPT, "slab: a page is twice in the tree of "
                                      "expiries");
    rc = tree_insert(t, &kind, &s->expiry_root, &path, page_ref(p, page));
    if (rc != SHD_OK)
        return rc;
    txn_store32(t, &page->info, atomic_load32(&page->info) | PAGE_IN_TREE);
    return SHD_OK;
}

int slab_expiry_lower(const struct pages *p, struct slab *s, struct txn *t,
                      uint32_t page, uint64_t expires)
{
    uint64_t bound;

    if (page >= p->max)
        return error_set(SHD_CORRUPT, "slab: what expires is in no page");
    bound = atomic_load64(&p->table[page].expiry) & PAGE_EXPIRY_MASK;
    if (expires == 0 || (bound != 0 && bound <= expires))
        return SHD_OK;
    return slab_expiry_set(p, s, t, page, expires);
}

uint32_t slab_expiry_first(const struct pages *p, const struct slab *s,
                           uint64_t *expires)
{
    const struct tree_kind kind = expiry_kind(p);
    struct tree_path path;
    const struct page *page;

    if (atomic_load32(&s->expiry_root) == 0 ||
        tree_first(p->segment, &kind, atomic_load32(&s->expiry_root), &path) !=
            1)
        return PAGE_NONE;
    page = (const struct page *)(const void *)tree_node(
        p->segment, &kind, path.ref[path.depth - 1]);
    if (page < p->table || page >= p->table + p->max)
        return PAGE_NONE;
    *expires = atomic_load64(&page->expiry) & PAGE_EXPIRY_MASK;
    return page_number(p, page);
}

int slab_free(const struct pages *p, struct slab *s, struct txn *t,
              uint32_t owner, uint32_t ref)
{
    uint32_t cell, free_cells, class;
    struct page *page = locate(p, owner, ref, &class, &cell);
    bool listed;
    int rc;

    if (page == NULL || cell_is_free(page, cell))
        return error_set(SHD_CORRUPT, "slab: freeing what is no cell in use");
    free_cells = page_free_cells(page) + 1;
    if (free_cells > class_cells(class))
        return error_set(SHD_CORRUPT, "slab: more free cells than cells");
    txn_store64(t, &page->free_map[cell / 64],
                atomic_load64(&page->free_map[cell / 64]) | 1ull << cell % 64);
    /* Of a page that goes back with its one cell nobody reads it. */
    if (slab_sizes[class] != PAGE_BYTES)
        info_store(t, page, free_cells);
    txn_store64(t, &s->bytes, atomic_load64(&s->bytes) - slab_sizes[class]);
    listed = (atomic_load32(&page->info) & PAGE_LEAVING) == 0;
    if (free_cells == class_cells(class)) {
        /* A page of one cell was full until now, so in no list. */
        if (free_cells > 1 && listed) {
            rc = partial_remove(p, s, t, page, class);
            if (rc != SHD_OK)
                return rc;
        }
        rc = slab_expiry_set(p, s, t, page_number(p, page), 0);
        if (rc != SHD_OK)
            return rc;
        txn_store32(t, &s->pages, atomic_load32(&s->pages) - 1);
        pages_release(p, t, page_number(p, page), owner);
    } else if (free_cells == 1 && listed) {
        return partial_push(p, s, t, page, class);
    }
    return SHD_OK;
}

bool slab_frees_briefly(const struct pages *p, uint32_t owner, uint32_t ref)
{
    uint32_t class, cell;
    const struct page *page = locate(p, owner, ref, &class, &cell);

    return page != NULL &&
           (page_free_cells(page) + 1 < class_cells(class) ||
            (atomic_load32(&page->info) & PAGE_IN_TREE) == 0);
}

bool slab_has_free(const struct pages *p, const struct slab *s, uint32_t class,
                   uint32_t avoid)
{
    uint32_t number = atomic_load32(&s->partial[class]);

    if (number != 0 && number - 1 == avoid)
        number = avoid < p->max ? atomic_load32(&p->table[avoid].next) : 0;
    return number != 0;
}

int slab_leave(const struct pages *p, struct slab *s, struct txn *t,
               uint32_t page_no, bool leave)
{
    struct page *page = &p->table[page_no];
    uint32_t info = atomic_load32(&page->info);
    uint32_t class = info & 0xff;
    int rc = SHD_OK;

    if (class >= SLAB_CLASSES)
        return error_set(SHD_CORRUPT, "slab: page %u has no such size class",
                         page_no);
    if (((info & PAGE_LEAVING) != 0) == leave)
        return SHD_OK;
    if (page_free_cells(page) > 0)
        rc = leave ? partial_remove(p, s, t, page, class)
                   : partial_push(p, s, t, page, class);
    if (rc == SHD_OK)
        txn_store32(t, &page->info, info ^ PAGE_LEAVING);
    return rc;
}

uint32_t slab_cell_bytes(const struct pages *p, uint32_t owner, uint32_t ref)
{
    uint32_t class, cell;
    const struct page *page = locate(p, owner, ref, &class, &cell);

    if (page == NULL || cell_is_free(page, cell))
        return 0;
    return slab_sizes[class];
}

uint32_t slab_next_used(const struct pages *p, uint32_t number, uint32_t *at)
{
    const struct page *page = &p->table[number];
    uint32_t class = page_class(page);

    if (class >= SLAB_CLASSES)
        return 0;
    while (*at < class_cells(class)) {
        uint32_t cell = (*at)++;

        if (!cell_is_free(page, cell))
            return (uint32_t)((p->at + (uint64_t)number * PAGE_BYTES +
                               (uint64_t)cell * slab_sizes[class]) /
                              SEGMENT_UNIT);
    }
    return 0;
}

static int page_compare(const void *context, const unsigned char *a,
                        const unsigned char *b)
{
    struct expiry_key k = {
        atomic_load64(&((const struct page *)(const void *)a)->expiry) &
            PAGE_EXPIRY_MASK,
        a};

    (void)context;
    return expiry_order(&k, b);
}

/* ---- rebuilding ------------------------------------------------------- */

/* All bits of a page's cells. */
static void cells_map(uint32_t class, uint64_t map[2])
{
    uint32_t cells = class_cells(class);

    map[0] = cells >= 64 ? ~0ull : (1ull << cells) - 1;
    map[1] = cells > 64 ? (1ull << (cells - 64)) - 1 : 0;
}

/* `own` is what s is to be: what has just been stored may be another's when it
 * is read again, and a number of a page is an address. */
static void rebuild_page(const struct pages *p, struct slab *own,
                         const struct slab_page *from)
{
    struct page *page = &p->table[from->number];
    uint64_t stamp = atomic_load64(&page->expiry) & ~PAGE_EXPIRY_MASK;
    uint64_t all[2];
    uint32_t free_cells;

    cells_map(from->class, all);
    for (int i = 0; i < 2; i++) {
        all[i] &= ~from->used[i];
        atomic_store64(&page->free_map[i], all[i]);
    }
    free_cells = (uint32_t)(__builtin_popcountll(all[0]) +
                            __builtin_popcountll(all[1]));
    atomic_store64(&page->expiry, stamp | from->expires);
    atomic_store32(&page->info, from->class | free_cells << 8 |
                                    (from->expires != 0 ? PAGE_IN_TREE : 0) |
                                    (from->leaving ? PAGE_LEAVING : 0));
    atomic_and64(&p->map[from->number / 64],
                 ~(1ull << from->number % 64));
    if (free_cells > 0 && !from->leaving) {
        uint32_t first = own->partial[from->class];

        atomic_store32(&page->prev, 0);
        atomic_store32(&page->next, first);
        if (first != 0)
            atomic_store32(&p->table[first - 1].prev, from->number + 1);
        own->partial[from->class] = from->number + 1;
    }
    own->pages++;
    own->bytes += (uint64_t)(class_cells(from->class) - free_cells) *
                  slab_sizes[from->class];
}

static int by_expiry(const void *a, const void *b)
{
    const struct slab_page *x = a, *y = b;

    if (x->expires != y->expires)
        return x->expires < y->expires ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

static int rebuild_tree(const struct pages *p, struct slab *s,
                        struct slab_page *page, uint32_t n)
{
    const struct tree_kind kind = expiry_kind(p);
    uint32_t *refs = malloc((n + 1ull) * sizeof(*refs));
    uint32_t root, in_tree = 0;
    int rc;

    if (refs == NULL)
        return error_set(SHD_NOMEM, "no memory to rebuild a tree of pages");
    qsort(page, n, sizeof(*page), by_expiry);
    for (uint32_t i = 0; i < n; i++) {
        if (page[i].expires != 0 && (page[i].used[0] | page[i].used[1]) != 0)
            refs[in_tree++] = page_ref(p, &p->table[page[i].number]);
    }
    rc = tree_build(p->segment, &kind, refs, in_tree, &root);
    atomic_store32(&s->expiry_root, root);
    /* The first in the tree's order. */
    atomic_store64(&s->soonest, 0);
    for (uint32_t i = n; i-- > 0;) {
        if (page[i].expires != 0 && (page[i].used[0] | page[i].used[1]) != 0)
            atomic_store64(&s->soonest, page[i].expires);
    }
    if (atomic_load64(&s->soonest) != 0)
        slab_soonest_lower(p, atomic_load64(&s->soonest));
    free(refs);
    return rc;
}

int slab_rebuild(const struct pages *p, struct slab *s, uint32_t owner,
                 const struct slab_page *page, uint32_t n)
{
    struct slab_page *sorted = malloc((n + 1ull) * sizeof(*sorted));
    struct slab own = {0};
    int rc;

    if (sorted == NULL)
        return error_set(SHD_NOMEM, "no memory to rebuild a slab");
    /* From the last on: low pages come first in the lists. */
    for (uint32_t i = n; i-- > 0;) {
        uint32_t number = page[i].number;

        sorted[i] = page[i];
        if ((page[i].used[0] | page[i].used[1]) != 0) {
            rebuild_page(p, &own, &page[i]);
            continue;
        }
        atomic_store64(&p->table[number].expiry, 0);
        atomic_or64(&p->map[number / 64], 1ull << number % 64);
        atomic_compiler_barrier();
        (void)atomic_cas32(&p->table[number].owner, owner, 0);
    }
    atomic_store64(&s->bytes, own.bytes);
    atomic_store32(&s->pages, own.pages);
    for (uint32_t c = 0; c < SLAB_CLASSES; c++)
        atomic_store32(&s->partial[c], own.partial[c]);
    rc = rebuild_tree(p, s, sorted, n);
    free(sorted);
    return rc;
}

/* ---- check ------------------------------------------------------------ */

/* One page of the owner: its own numbers. */
static const char *page_fault(const struct page *page, uint32_t *class)
{
    uint32_t free_cells, cells;
    bool in_tree = (atomic_load32(&page->info) & PAGE_IN_TREE) != 0;

    *class = page_class(page);
    if (*class >= SLAB_CLASSES)
        return "has no such size class";
    cells = class_cells(*class);
    free_cells = (uint32_t)(__builtin_popcountll(page->free_map[0]) +
                            __builtin_popcountll(page->free_map[1]));
    for (uint32_t c = cells; c < 128; c++) {
        if (cell_is_free(page, c))
            return "has a free cell past its end";
    }
    if (free_cells != page_free_cells(page))
        return "counts its free cells wrongly";
    if (free_cells == cells)
        return "is empty and has not gone back";
    if (in_tree != ((page->expiry & PAGE_EXPIRY_MASK) != 0))
        return "is wrongly in or out of the tree of expiries";
    return NULL;
}

static int list_check(const struct pages *p, const struct slab *s,
                      uint32_t owner, uint32_t class, uint64_t *listed,
                      char *report, size_t size)
{
    uint32_t prev = 0;
    uint32_t number = atomic_load32(&s->partial[class]);

    while (number != 0) {
        uint32_t its;
        const struct page *page = owned_page(p, owner, number - 1, &its);

        if (page == NULL || its != class || page->prev != prev ||
            (page->info & PAGE_LEAVING) != 0 || page_free_cells(page) == 0 ||
            ++*listed > p->max) {
            snprintf(report, size,
                     "slab: list of free cells of class %u is broken at page "
                     "%u",
                     class, number - 1);
            return SHD_CORRUPT;
        }
        prev = number;
        number = atomic_load32(&page->next);
    }
    return SHD_OK;
}

int slab_check(const struct pages *p, const struct slab *s, uint32_t owner,
               uint64_t *cells, char *report, size_t size)
{
    const struct tree_kind kind = expiry_kind(p);
    uint64_t bytes = 0, partial = 0, listed = 0, in_tree = 0, nodes = 0;
    uint32_t pages = 0;

    *cells = 0;
    for (uint32_t n = 0; n < pages_described(p); n++) {
        const struct page *page = &p->table[n];
        const char *fault;
        uint32_t class;

        if (atomic_load32(&page->owner) != owner)
            continue;
        fault = page_fault(page, &class);
        if (fault != NULL) {
            snprintf(report, size, "slab: page %u %s", n, fault);
            return SHD_CORRUPT;
        }
        uint32_t used = class_cells(class) - page_free_cells(page);
        *cells += used;
        bytes += (uint64_t)used * slab_sizes[class];
        partial +=
            page_free_cells(page) > 0 && (page->info & PAGE_LEAVING) == 0;
        in_tree += (page->info & PAGE_IN_TREE) != 0;
        pages++;
    }
    for (uint32_t c = 0; c < SLAB_CLASSES; c++) {
        int rc = list_check(p, s, owner, c, &listed, report, size);

        if (rc != SHD_OK)
            return rc;
    }
    int rc = tree_check(p->segment, &kind, atomic_load32(&s->expiry_root),
                        page_compare, NULL, &nodes, report, size);
    if (rc != SHD_OK)
        return rc;
    uint64_t expires = 0;
    if (slab_expiry_first(p, s, &expires) != PAGE_NONE &&
        (s->soonest == 0 || s->soonest > expires)) {
        snprintf(report, size,
                 "slab: something expires at %llu, its shard says that "
                 "nothing does before %llu",
                 (unsigned long long)expires, (unsigned long long)s->soonest);
        return SHD_CORRUPT;
    }
    if (listed != partial || nodes != in_tree || bytes != s->bytes ||
        pages != s->pages) {
        snprintf(report, size,
                 "slab: shard counts %u pages and %llu bytes, its pages say "
                 "%u and %llu; %llu of %llu pages with free cells are listed, "
                 "%llu of %llu with expiries are in the tree",
                 s->pages, (unsigned long long)s->bytes, pages,
                 (unsigned long long)bytes, (unsigned long long)listed,
                 (unsigned long long)partial, (unsigned long long)nodes,
                 (unsigned long long)in_tree);
        return SHD_CORRUPT;
    }
    return SHD_OK;
}
