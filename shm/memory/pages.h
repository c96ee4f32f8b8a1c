/* SPDX-License-Identifier: BSD-2-Clause */
/* memory/pages.h - the pages of one dict, and which shard owns each.
 *
 * OWNS   the page table, the map of free pages, the three bounds; not the tag
 *        that lies beside one of them.
 * HOLDS  below the limit: a page's owner word is 0 and its map bit set, or the
 *        owner word names a shard and the bit is clear; only a transaction in
 *        flight makes them differ, and its recovery ends that. From the limit
 *        on no page is claimed, and the map means nothing.
 * LOCK   claiming and releasing: inside a transaction on the claiming shard;
 *        shards compete by one compare-and-swap on the owner word. Extending:
 *        with the lock of any shard. The bounds, and what is done beyond the
 *        limit: as the owner of the pages says (dict/resize.h).
 * CRASH  a page taken by a transaction that never committed goes back.
 * COST   a claim looks at about PAGES_TRUST words of the map, however large
 *        it is: what a search has found full is believed for a while.
 *
 * One page size serves every size class and every long value, so a free page
 * serves any request.
 *
 *      0 ......... committed ......... limit ......... described ...... max
 *      | may be touched |  may be claimed |  on their way |  address room |
 *      |   with memory  | (memory follows)|  out or in    |  without any  |
 *
 * committed may be anywhere up to described: it is above the limit while a
 * dict shrinks.
 */
#ifndef SHD_MEMORY_PAGES_H
#define SHD_MEMORY_PAGES_H

#include "shm/guard/txn.h"
#include "shm/memory/tree.h"

#define PAGE_BYTES 4096u
#define PAGE_NONE UINT32_MAX
/* A search that looked at n words is believed for n / PAGES_TRUST more: pages
 * that other processes free meanwhile are found that much later. */
#define PAGES_TRUST 16u
#define PAGES_RECENT 8u

struct page {
    uint64_t free_map[2]; /*  0 a set bit is a free cell */
    uint32_t prev;        /* 16 page number + 1 in the list of pages with free
                                cells of this shard and class; 0: none */
    uint32_t next;        /* 20 */
    uint32_t left;        /* 24 in the shard's tree of pages by expiry */
    uint32_t right;       /* 28 */
    uint64_t expiry;      /* 32 no entry in the page expires before the low
                                48 bits (ms; 0: none expires); the upper 16:
                                when a cell was last taken, seconds */
    uint32_t owner;       /* 40 shard + 1; 0: free. Atomic. */
    uint32_t info;        /* 44 class | free cells << 8 | PAGE_RED |
                                PAGE_IN_TREE | PAGE_LEAVING */
    uint8_t marks[16];    /* 48 a bit for each 32 bytes, of which no cell is
                                smaller: entries that were read, or had
                                their second chance (dict.h) */
};
static_assert(sizeof(struct page) == 64, "layout");
static_assert(offsetof(struct page, owner) == 40, "layout");
static_assert(offsetof(struct page, marks) == 48, "layout");

#define PAGE_RED (1u << 16)
#define PAGE_IN_TREE (1u << 17)
#define PAGE_LEAVING (1u << 18) /* of no use to the allocator (slab_leave) */
#define PAGE_EXPIRY_MASK ((1ull << 48) - 1)

/* How many pages there are, for whom. */
struct pages_bounds {
    uint64_t state;     /*  0 committed, the pages that may be touched, << 32 |
                              tag. Atomic */
    uint64_t limit;     /*  8 these may be claimed */
    uint64_t described; /* 16 these have memory for their bits of the map and
                              their descriptors */
};
static_assert(sizeof(struct pages_bounds) == 24, "layout");

/* The tag is the pages' owner's: what whoever looks at the pages is to know of
 * besides, in the word that is looked at anyway. Its two low bytes name each
 * one of up to 63 things; a value that is none of those that the view knows is
 * seen as this: */
#define PAGES_TAG_NONE 63u
#define PAGES_TAG_MASK 0xffffffffull
#define PAGES_STATE_UNSEEN (PAGES_TAG_NONE << 8 | PAGES_TAG_NONE)

/* What the dict's extent says of its pages. */
struct pages {
    const struct segment *segment;
    struct page *table;
    uint64_t *map;
    struct pages_bounds *bounds;
    uint64_t *soonest; /* nothing in the dict expires before (ms; 0: nothing
                          does); a hint, may be too low */
    uint64_t state;    /* a past value of bounds->state; in its tag nothing but
                          what may be there: private, relaxed (pages_follow) */
    uint64_t seen; /* bytes of pages that may be touched, goes with `state` */
    struct tree_kind nodes; /* of trees whose nodes are cells of these pages;
                               its `end` goes with `state` */
    uint64_t tags;          /* bits: what the tag's low bytes may be */
    uint32_t full_below; /* no word of the map before this one had a free page
                            when it was last looked at: private, relaxed */
    uint32_t trusted;    /* searches that may still believe that */
    uint32_t recent[PAGES_RECENT]; /* pages this process has given back below
                                      full_below since: private, relaxed */
    uint32_t recents;
    uint32_t found; /* a page that pages_prepare found free, + 1; 0: none.
                       Private, relaxed */
    uint64_t at;  /* byte offset of page 0 in the segment */
    uint32_t max; /* pages there is address room for */
};

/* A bound, which is no more than the room whatever the segment says. */
static inline uint32_t pages_bound(const struct pages *p,
                                   const uint64_t *bound)
{
    uint64_t n = atomic_load64(bound);

    return n < p->max ? (uint32_t)n : p->max;
}

/* What lies in memory, as the segment says. */
static inline uint64_t pages_committed(const struct pages *p)
{
    return atomic_load64(&p->bounds->state) >> 32;
}

/* The same, but no more than there is room for. */
static inline uint32_t pages_touchable(const struct pages *p)
{
    uint64_t n = pages_committed(p);

    return n < p->max ? (uint32_t)n : p->max;
}

/* Pages that there are descriptors of. */
static inline uint32_t pages_described(const struct pages *p)
{
    return pages_bound(p, &p->bounds->described);
}

/* Pages that the dict may use just now. A damaged limit leads to no page
 * without a descriptor. */
static inline uint32_t pages_count(const struct pages *p)
{
    uint32_t limit = pages_bound(p, &p->bounds->limit);
    uint32_t described = pages_described(p);

    return limit < described ? limit : described;
}

static inline uint32_t page_class(const struct page *p)
{
    return atomic_load32(&p->info) & 0xff;
}

static inline uint32_t page_free_cells(const struct page *p)
{
    return atomic_load32(&p->info) >> 8 & 0xff;
}

/* pages_follow, when there is something to be seen. */
void pages_see(const struct pages *p);

/* Looks where the committed pages end, and at the tag. At the beginning of
 * what is done with the lock, and of each try of a read section: what can be
 * found in the shard's data lies before that end until a transaction of the
 * shard, and pages_claim looks by itself. */
static inline void pages_follow(const struct pages *p)
{
    if (atomic_load64(&p->bounds->state) != atomic_load64(&p->state))
        pages_see(p);
}

/* For repair. */
void pages_set_committed(const struct pages *p, uint64_t to);

/* Changes the tag: one atomic store, not logged. Whoever may do so is to be
 * alone. SHD_BUSY: the word changed each time it was looked at. */
int pages_set_tag(const struct pages *p, uint64_t tag);

/* The page a byte offset lies in, or PAGE_NONE outside of the pages that may
 * be touched. */
static inline __attribute__((always_inline)) uint32_t
pages_number(const struct pages *p, uint64_t at)
{
    uint64_t inside = at - p->at; /* huge if `at` comes before page 0 */

    if (inside >= atomic_load64(&p->seen))
        return PAGE_NONE;
    return (uint32_t)(inside / PAGE_BYTES);
}

static inline unsigned char *pages_address(const struct pages *p, uint32_t n)
{
    return p->segment->base + p->at + (uint64_t)n * PAGE_BYTES;
}

/* The bytes that the map, and the table, of so many pages take. */
static inline uint64_t pages_map_bytes(uint64_t pages)
{
    return (pages + 63) / 64 * 8;
}

static inline uint64_t pages_table_bytes(uint64_t pages)
{
    return pages * sizeof(struct page);
}

/* Takes memory for the descriptors and bits of pages from..to. */
int pages_describe(const struct pages *p, uint64_t from, uint64_t to);

/* Sets the bits of those that nobody owns. From `fresh` on none has ever been
 * owned: their descriptors are not looked at. */
void pages_offer(const struct pages *p, uint64_t from, uint64_t to,
                 uint64_t fresh);

/* Gives the memory of pages from..to back to the system, and lowers the
 * committed bound to `from`. None of them may be anybody's, or get an owner.
 * SHD_CORRUPT: one has an owner. */
int pages_drop(const struct pages *p, uint64_t from, uint64_t to);

/* The same for the descriptors and bits of all pages from `from` on, as far as
 * whole pages of memory hold nothing else. */
int pages_forget(const struct pages *p, uint64_t from);

/* Sees to it that a free page can be claimed without a system call: commits
 * memory for it if need be. SHD_NOMEM: no page is free, or the system has no
 * memory for one more. Call it before txn_begin. */
int pages_prepare(const struct pages *p);

/* A free page, now owned by `owner`; or PAGE_NONE. Its descriptor holds
 * nothing yet. */
uint32_t pages_claim(const struct pages *p, struct txn *t, uint32_t owner);

/* Gives a page of that owner back when the transaction commits. */
void pages_release(const struct pages *p, struct txn *t, uint32_t n,
                   uint32_t owner);

/* All free pages just now. Looks at the whole map. */
uint64_t pages_free(const struct pages *p);

/* Free pages that can be claimed without asking the system for memory; stops
 * counting at `want`. As far as the last searches are to be believed, or when
 * `exact` by looking at the map from its start. */
uint64_t pages_ready(const struct pages *p, uint64_t want, bool exact);

/* Commits memory for more pages. SHD_NOMEM: all below the limit have it, or
 * the system has no more. */
int pages_extend(const struct pages *p);

/* Owner words against the map, and that owners are below `owners`, under the
 * lock of owner `mine` or in its read section: other shards may be claiming
 * and releasing beside it. */
int pages_check(const struct pages *p, uint32_t mine, uint32_t owners,
                char *report, size_t size);

#endif
