/* SPDX-License-Identifier: BSD-2-Clause */
/* memory/chain.h - values longer than a cell, as a chain of cells.
 *
 * OWNS   cells of kind CELL_CHAIN and the bytes in them.
 * HOLDS  next and back mirror each other; the first cell's back is 0 and its
 *        `of` names the cell the chain belongs to, 0 while it is being built.
 * LOCK   building and freeing: the shard's guard is held. Reading: in a read
 *        section.
 *        What has been written to a reachable chain never changes (it may go
 *        on, with other cells after a place), and every cell has the number of
 *        the chain it was built in, or if it was moved one of its own: so a
 *        reader of a long one copies a slice at a time without the lock, and
 *        needs a read section, as short as for any small value, only to see
 *        that the cells have not become others.
 * CRASH  a chain being built hangs on the shard's `pending` word after every
 *        step: whoever comes next finds and frees it.
 * COST   a chain is built and freed in small transactions, whatever its
 *        length; all but its last cell are whole pages.
 */
#ifndef SHD_MEMORY_CHAIN_H
#define SHD_MEMORY_CHAIN_H

#include "shm/memory/cell.h"

#define CHAIN_DATA_MAX (PAGE_BYTES - (uint32_t)sizeof(struct cell))

/* So much of a chain is copied in one read section, or slice: 64 KiB are. */
#define CHAIN_SLICE_CELLS 17u
#define CHAIN_SLICE_BYTES (CHAIN_SLICE_CELLS * CHAIN_DATA_MAX)

/* Word 3 of a chain's cell is the lower half of its number, until it is on the
 * garbage itself. */
enum {
    CHAIN_NEXT = 0,
    CHAIN_BACK = 1,
    CHAIN_OF = 2,
    CHAIN_GARBAGE = 3,
    CHAIN_NUMBER = 3
};

/* Where the bytes of a chain come from: two pieces, as if joined. */
struct chain_source {
    const unsigned char *first;
    uint64_t first_len;   /* a multiple of 8 when there is a second piece */
    uint64_t first_bytes; /* of them really at `first`; the rest is zeroes */
    const unsigned char *second;
    uint64_t second_len;
};

static inline uint64_t chain_source_len(const struct chain_source *s)
{
    return s->first_len + s->second_len;
}

/* Whole pages that a chain of len bytes takes, its last cell counted as one.
 */
uint64_t chain_pages(uint64_t len);

/* Where a chain is built. */
struct chain_site {
    const struct pages *pages;
    struct slab *slab;
    struct guard *guard;
    uint32_t owner;
    uint32_t *pending; /* it hangs here */
    uint64_t *built;   /* counts the chains of the shard */
};

/* The class of the cell that chain_build_step wants next. */
uint32_t chain_class(uint64_t left);

/* Prepends the cell for the piece of the source which ends at *left (then
 * *left is where it begins), in one transaction. `class` is at least
 * chain_class(*left). SHD_NOMEM: make room and call again. */
int chain_build_step(const struct chain_site *site, uint32_t class,
                     uint64_t *left);

/* Makes the first chain of the garbage the pending one, in one transaction, if
 * it has just the cells that one of `len` bytes is built of: 1; else 0.
 * Nothing is pending. `garbage` is the word where it hangs. */
int chain_reuse(const struct chain_site *site, uint32_t *garbage,
                uint64_t len);

/* The same inside a transaction, at most CHAIN_REUSE_WORDS stores, for one
 * cell that comes to belong to the cell `of`, and is filled. The cell, or 0:
 * it is not one that chain_has_one says yes to. */
#define CHAIN_REUSE_WORDS 4u
bool chain_has_one(const struct chain_site *site, uint32_t ref, uint64_t len);
uint32_t chain_reuse_one(const struct chain_site *site, struct txn *t,
                         const struct chain_source *source, uint32_t *garbage,
                         uint32_t of);

/* Fills the cells of the pending chain once all are there. `goes` is a chain
 * that will be freed when this one has taken its place (0: none, and anything
 * will do): what freeing it looks at is asked for meanwhile. SHD_CORRUPT: it
 * is not what was built. */
int chain_fill(const struct chain_site *site,
               const struct chain_source *source, uint32_t goes);

/* Inside a transaction, at most CHAIN_ONE_WORDS stores: makes a chain of one
 * cell of that class, at *ref, which belongs to the cell `of`. */
#define CHAIN_ONE_WORDS (SLAB_ALLOC_WORDS + 1u)
int chain_build_one(const struct chain_site *site, struct txn *t,
                    const struct chain_source *source, uint32_t class,
                    uint32_t of, uint32_t *ref);

/* Copies bytes from..from+len of the chain out. SHD_CORRUPT (believe it after
 * read_valid): the chain ends early, or leads nowhere. */
int chain_read(const struct pages *p, uint32_t head, uint64_t from, void *to,
               uint64_t len);

/* Where a reader of a long chain is. A read section fills ref, number, built
 * and from, and sets n to 0. */
struct chain_cursor {
    uint32_t ref;    /* the next cell */
    uint32_t number; /* that the first cell must have */
    uint64_t built;  /* chains of the shard when it was found */
    uint64_t from;   /* bytes to skip */
    uint32_t n;      /* cells in the last slice */
    /* The last cell of the slice before, 0: none; then the slice's. */
    uint32_t cell[1 + CHAIN_SLICE_CELLS];
    uint32_t cell_number[1 + CHAIN_SLICE_CELLS];
};

/* Copies a slice outside of any read section: up to *len bytes to *to, both of
 * which move on. SHD_CORRUPT: it leads nowhere. Neither means anything before
 * chain_slice_valid. */
int chain_slice_copy(const struct pages *p, struct chain_cursor *c,
                     unsigned char **to, uint64_t *len);

/* In a read section that was begun afterwards: were all cells of that slice
 * the chain's until now? `built` as it is now. */
bool chain_slice_valid(const struct pages *p, uint32_t owner, uint64_t built,
                       const struct chain_cursor *c);

/* cell_compare over the first len bytes of the chain; 2 if it is corrupt. */
int chain_compare(const struct pages *p, uint32_t head, const void *with,
                  uint64_t len);

/* Are the bytes from..from+len of the chain the same? `from` is a multiple of
 * 8. 1, 0, or 2 if it is corrupt. */
int chain_equal(const struct pages *p, uint32_t head, uint64_t from,
                const void *with, uint64_t len);

/* The chain's last cell, and the one before it (0: there is none).
 * SHD_CORRUPT: it does not end within `cells_max`. */
int chain_last(const struct pages *p, uint32_t head, uint64_t cells_max,
               uint32_t *last, uint32_t *before);

/* Links and lengths of a chain of `total` bytes that belongs to cell `of`,
 * and adds its cells to *cells. */
int chain_check(const struct pages *p, uint32_t owner, uint32_t head,
                uint32_t of, uint64_t total, uint64_t *cells, char *report,
                size_t size);

#endif
