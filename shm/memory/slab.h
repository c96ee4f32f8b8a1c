/* SPDX-License-Identifier: BSD-2-Clause */
/* memory/slab.h - fixed-size cells cut from a dict's pages, for one shard.
 *
 * OWNS   the shard's pages: their free maps and the lists of those that have
 *        free cells; never a cell's contents.
 * HOLDS  each cell is free or handed out, never both; a page with free cells
 *        is in its class's list, unless it is leaving; a page without used
 *        cells has gone back.
 * LOCK   caller is inside a transaction on the shard (slab_rebuild: behind its
 *        fence).
 * CRASH  death anywhere leaves it as it was at txn_begin().
 * COST   O(1); at most SLAB_ALLOC_WORDS / SLAB_FREE_WORDS stores.
 */
#ifndef SHD_MEMORY_SLAB_H
#define SHD_MEMORY_SLAB_H

#include "shm/memory/pages.h"

#define SLAB_CLASSES 21u
#define SLAB_CELL_MAX PAGE_BYTES
#define SLAB_CELL_MIN 48u
#define SLAB_ALLOC_WORDS 12u
/* The page may leave the tree of pages by expiry with its last cell. */
#define SLAB_FREE_WORDS (8u + TREE_REMOVE_WORDS)
/* It may not: slab_frees_briefly. */
#define SLAB_FREE_BRIEF_WORDS 8u
#define SLAB_EXPIRY_WORDS (TREE_REMOVE_WORDS + TREE_INSERT_WORDS + 5u)
#define SLAB_LEAVE_WORDS 5u

/* In the shard's head. */
struct slab {
    uint64_t bytes;                 /*  0 in cells handed out */
    uint32_t expiry_root;           /*  8 tree of pages by expiry */
    uint32_t pages;                 /* 12 owned */
    uint32_t partial[SLAB_CLASSES]; /* 16 page number + 1; 0: none */
    uint32_t pad;                   /* 100 */
    uint64_t soonest;               /* 104 nothing of the shard expires before
                                         (ms; 0: nothing does) */
};
static_assert(sizeof(struct slab) == 112, "layout");
static_assert(offsetof(struct slab, soonest) == 104, "layout");

/* The smallest class whose cells hold that many bytes; SLAB_CLASSES if none
 * does. */
static inline uint32_t slab_class(uint64_t bytes);

/* Bytes of a cell of the class. */
uint32_t slab_class_bytes(uint32_t class);

/* Can slab_alloc work without a new page, or with one that is free? SHD_OK,
 * SHD_NOMEM: room must be made. Call it before txn_begin. */
int slab_prepare(const struct pages *p, const struct slab *s, uint32_t class);

/* A cell of the class; *ref names it in units of 16 bytes. `avoid` is a page
 * not to take it from (PAGE_NONE: any). SHD_NOMEM: another shard was quicker
 * or nothing is left; the caller aborts. SHD_CORRUPT. */
int slab_alloc(const struct pages *p, struct slab *s, struct txn *t,
               uint32_t owner, uint32_t class, uint32_t avoid, uint32_t *ref);

/* SHD_CORRUPT: it is not a cell of this shard that is handed out. */
int slab_free(const struct pages *p, struct slab *s, struct txn *t,
              uint32_t owner, uint32_t ref);

/* Will slab_free of that cell be content with SLAB_FREE_BRIEF_WORDS? */
bool slab_frees_briefly(const struct pages *p, uint32_t owner, uint32_t ref);

/* Is there a free cell of the class in a page other than `avoid`? */
bool slab_has_free(const struct pages *p, const struct slab *s, uint32_t class,
                   uint32_t avoid);

/* A page that is leaving keeps its cells, and hands out none: it is in no list
 * until it comes back or has been emptied. */
int slab_leave(const struct pages *p, struct slab *s, struct txn *t,
               uint32_t page, bool leave);

/* Bytes of the cell that ref names, or 0 if no cell handed out to `owner`
 * starts there. */
uint32_t slab_cell_bytes(const struct pages *p, uint32_t owner, uint32_t ref);

/* The next cell in use of a page, from cell number *at on (which moves past
 * it); 0: no more. */
uint32_t slab_next_used(const struct pages *p, uint32_t page, uint32_t *at);

/* Something in the page expires at that time (ms). */
int slab_expiry_lower(const struct pages *p, struct slab *s, struct txn *t,
                      uint32_t page, uint64_t expires);

/* Nothing in the page expires before that time; 0: nothing does at all. */
int slab_expiry_set(const struct pages *p, struct slab *s, struct txn *t,
                    uint32_t page, uint64_t expires);

/* The page that may have the earliest expiry, and *expires, its bound; or
 * PAGE_NONE. */
uint32_t slab_expiry_first(const struct pages *p, const struct slab *s,
                           uint64_t *expires);

/* With the lock, outside of transactions: s->soonest is what the tree says. */
void slab_expiry_publish(const struct pages *p, struct slab *s,
                         struct guard *guard);

/* Lowers *p->soonest to `expires`, if that is sooner. */
void slab_soonest_lower(const struct pages *p, uint64_t expires);

/* For repair, what is known of a page. */
struct slab_page {
    uint64_t used[2]; /* a set bit is a cell in use, unlike in a free map */
    uint64_t expires; /* the earliest in it (ms), 0: none does */
    uint32_t number;
    uint32_t class;
    bool leaving;
};

/* Cells in a page of the class. */
uint32_t slab_class_cells(uint32_t class);

/* Writes the descriptors of all pages of an owner anew, and its lists, tree
 * and counts; those with nothing in use go back. Not logged: for repair,
 * behind a fence. SHD_NOMEM: this process has no memory. */
int slab_rebuild(const struct pages *p, struct slab *s, uint32_t owner,
                 const struct slab_page *page, uint32_t n);

/* Free maps, counts, lists and tree of one shard, and *cells, the number of
 * cells handed out. */
int slab_check(const struct pages *p, const struct slab *s, uint32_t owner,
               uint64_t *cells, char *report, size_t size);

/* ---- how -------------------------------------------------------------- */

/* Bytes of the cells of each class, rising. */
extern const uint16_t slab_sizes[SLAB_CLASSES];
extern const uint8_t slab_class_of[SLAB_CELL_MAX / 16 + 1];

static inline uint32_t slab_class(uint64_t bytes)
{
    return bytes > SLAB_CELL_MAX ? SLAB_CLASSES
                                 : slab_class_of[(bytes + 15) / 16];
}

/* slab_cell_bytes of what is at byte `inside` of the pages, which can be
 * touched, and *class: its class. */
static inline uint32_t slab_bytes_at(const struct pages *p, uint32_t owner,
                                     uint64_t inside, uint32_t *class)
{
    const struct page *page = &p->table[inside / PAGE_BYTES];
    uint32_t at = (uint32_t)(inside % PAGE_BYTES), bytes, cell;

    *class = page_class(page);
    if (atomic_load32(&page->owner) != owner || *class >= SLAB_CLASSES)
        return 0;
    bytes = slab_sizes[*class];
    cell = at / bytes;
    if (at % bytes != 0 || at + bytes > PAGE_BYTES ||
        (atomic_load64(&page->free_map[cell / 64]) >> cell % 64 & 1) != 0)
        return 0;
    return bytes;
}

/* Would slab_expiry_lower leave everything as it is? */
static inline bool slab_expiry_is_below(const struct pages *p, uint64_t inside,
                                        uint64_t expires)
{
    uint64_t bound = atomic_load64(&p->table[inside / PAGE_BYTES].expiry) &
                     PAGE_EXPIRY_MASK;

    return expires == 0 || (bound != 0 && bound <= expires);
}

#endif
