/* SPDX-License-Identifier: BSD-2-Clause */
/* ipc/cells.h - messages of any length in cells of one size.
 *
 * Not memory/slab.h: with cells of one size any free cell serves any message,
 * so nothing fragments and nothing is ever moved, and a message of any length
 * is taken from the free ones, or given back, by one store of the list's head,
 * for both are chained by the same word. What is filled in before that store
 * is in cells that are free until then: a dead writer leaves nothing behind.
 *
 * OWNS   the cells, their chaining words, the list of the free ones.
 * HOLDS  a cell is fresh (never handed out), free, or in one message.
 * LOCK   the guard of the object.
 * CRASH  as it was at txn_begin().
 * COST   a message of one cell: one logged store to take, three to give back.
 *
 *   first cell   struct message, then bytes
 *   others       next, CELLS_CONTINUED, then bytes
 *   free         next; the rest means nothing, but that `state` is 0 in one
 *                that was a first cell
 */
#ifndef SHD_IPC_CELLS_H
#define SHD_IPC_CELLS_H

#include "shm/guard/txn.h"
#include "shm/ipc/object.h"
#include "shm/memory/tree.h"

#define CELLS_CONTINUED UINT32_MAX
#define CELLS_MORE_BYTES 8u /* head of a cell that is not the first */
#define CELLS_ALLOC_WORDS 3u
#define CELLS_FREE_WORDS 3u
#define CELLS_EXTEND_WORDS 6u

/* In the object's own part. */
struct cells_header {
    uint64_t cell_bytes; /*  0 a multiple of 64 */
    uint64_t cells_at;   /*  8 byte offset in the segment, a multiple of 64 */
    uint64_t count;      /* 16 */
    uint64_t committed;  /* 24 cells that have memory; only grows, stored
                               without a log */
    uint32_t free;       /* 32 first free cell, in units of 16 bytes; 0 */
    uint32_t used;       /* 36 cells in messages */
    uint64_t fresh;      /* 40 cells handed out at least once */
    uint8_t pad[16];     /* 48 */
};
static_assert(sizeof(struct cells_header) == 64, "layout");

struct message {
    uint32_t next;      /*  0 cell of the chain, or of the free list */
    uint32_t last;      /*  4 cell of the chain */
    uint32_t left;      /*  8 in a tree */
    uint32_t right;     /* 12 */
    uint32_t prev;      /* 16 in a list */
    uint32_t after;     /* 20 */
    uint32_t state;     /* 24 the owner's; 0: free; | MESSAGE_RED */
    uint32_t attempts;  /* 28 */
    uint32_t cells;     /* 32 of the chain */
    uint32_t len;       /* 36 bytes */
    uint64_t id;        /* 40 */
    uint64_t when;      /* 48 ms, the key in the tree; 0: it is in none */
    uint64_t holder;    /* 56 incarnation */
    uint64_t lease;     /* 64 */
    uint64_t pushed_ms; /* 72 wall clock */
    uint64_t from;      /* 80 incarnation of the sender */
    uint64_t tag;       /* 88 */
};
static_assert(sizeof(struct message) == 96, "layout");
static_assert(offsetof(struct message, left) % 8 == 0, "links in a word");

#define MESSAGE_RED (1u << 31)

/* This process's view, constant. */
struct cells {
    const struct segment *segment;
    struct cells_header *header;
    uint64_t bytes; /* of a cell */
    uint64_t at;
    uint64_t inverse; /* 2^64 / (bytes / 64), rounded up */
    uint32_t count;
    struct tree_kind timed; /* trees by `when`, then `id` */
    uint32_t kind;          /* of the object, for messages */
    bool spare; /* a message may have more cells than its bytes need */
    char name[64];
};

/* Bytes of a cell whose message holds message_bytes, and how many bytes of
 * cells there are in the own part from `at` on. */
uint64_t cells_bytes(uint64_t message_bytes);

/* Fills a fresh header: the cells are all of the own part from own_at on. */
void cells_initialize(const struct object *o, struct cells_header *h,
                      uint64_t own_at, uint64_t cell_bytes, uint32_t count);

/* SHD_CORRUPT: it does not describe cells in the object's own part. */
int cells_view(const struct object *o, struct cells_header *h,
               struct cells *out);

/* Cells that a message of len bytes takes, and whether it can be at all. */
uint64_t cells_of(const struct cells *c, uint64_t len);

/* The bytes of a first cell and of each other one. */
static inline uint64_t cells_first_room(const struct cells *c)
{
    return c->bytes - sizeof(struct message);
}

static inline uint64_t cells_more_room(const struct cells *c)
{
    return c->bytes - CELLS_MORE_BYTES;
}

/* A cell whose ref has been checked, or is of a run. */
static inline struct message *cells_of_ref(const struct cells *c, uint32_t ref)
{
    return (struct message *)(void *)(c->segment->base +
                                      (uint64_t)ref * SEGMENT_UNIT);
}

/* The cell at ref, or NULL if there is none that has been handed out. Without
 * a division, which takes as long as all else here: n is a multiple of d, both
 * of 32 bits, if and only if n * inverse, of 64, is less than the inverse
 * (Lemire, Kaser, Kurz: Faster remainder by direct computation, 2019). */
static inline struct message *cells_at(const struct cells *c, uint32_t ref)
{
    uint64_t inside = (uint64_t)ref * SEGMENT_UNIT - c->at;
    uint64_t fresh = atomic_load64(&c->header->fresh);

    if (inside >= (fresh < c->count ? fresh : c->count) * c->bytes ||
        inside % 64 != 0 || inside / 64 * c->inverse >= c->inverse)
        return NULL;
    return cells_of_ref(c, ref);
}

static inline uint32_t cells_ref(const struct cells *c,
                                 const struct message *m)
{
    return (uint32_t)((uint64_t)((const unsigned char *)m -
                                 (const unsigned char *)c->segment->base) /
                      SEGMENT_UNIT);
}

/* Cells that could be taken just now. */
static inline uint64_t cells_left(const struct cells *c)
{
    return c->count - (uint64_t)atomic_load32(&c->header->used);
}

/* Cells to be taken for a message. */
struct cells_run {
    uint32_t first, last; /* refs */
    uint32_t n;
    uint32_t free_after; /* what the header's words are to be */
    uint64_t fresh_after;
    uint32_t joint, joint_to; /* a free cell whose next changes; 0 */
};

/* Finds the cells for a message of len bytes, before txn_begin. SHD_FULL:
 * there are not so many now. SHD_NOMEM: the system has no memory for them.
 * SHD_CORRUPT. */
static inline int cells_find(const struct cells *c, uint64_t len,
                             struct cells_run *run);

/* The same for n cells. */
int cells_find_cells(const struct cells *c, uint64_t n,
                     struct cells_run *run);

/* Fills the bytes of a run, before txn_begin. */
void cells_fill(const struct cells *c, const struct cells_run *run,
                const void *data, uint64_t len);

/* Fills one message of a run, before txn_begin: its bytes, `last`, `cells` and
 * `len`. *ref is its first cell, and becomes that of the run's next message, if
 * there is one. */
struct message *cells_fill_message(const struct cells *c,
                                   const struct cells_run *run, uint32_t *ref,
                                   const void *data, uint64_t len);

/* Takes the cells of a run that is filled: CELLS_ALLOC_WORDS. */
TXN_INLINE void cells_take_run(const struct cells *c, struct txn *t,
                               const struct cells_run *run);

/* Takes them: CELLS_ALLOC_WORDS. The first is a message with `next`, `last`,
 * `cells` and `len` filled in and the rest 0. */
struct message *cells_take(const struct cells *c, struct txn *t,
                           const struct cells_run *run, uint64_t len);

/* Adds the cells of a run to the end of a message's, which has its len still:
 * CELLS_EXTEND_WORDS. */
int cells_extend(const struct cells *c, struct txn *t, struct message *m,
                 const struct cells_run *run);

/* Bytes that fit into the cells that a message has. */
static inline uint64_t cells_room(const struct cells *c,
                                  const struct message *m)
{
    return cells_first_room(c) +
           (uint64_t)(atomic_load32(&m->cells) - 1) * cells_more_room(c);
}

/* Gives the message's cells back: CELLS_FREE_WORDS. */
int cells_give(const struct cells *c, struct txn *t, struct message *m);

/* Bytes from..from+len of the message: copied out, or filled in. Of one that
 * nobody else can change. SHD_CORRUPT: the chain ends early. */
int cells_read(const struct cells *c, const struct message *m, uint64_t from,
               void *to, uint64_t len);
int cells_write(const struct cells *c, struct message *m, uint64_t from,
                const void *data, uint64_t len);

static inline int cells_find(const struct cells *c, uint64_t len,
                             struct cells_run *run)
{
    uint32_t ref = atomic_load32(&c->header->free);
    const struct message *m;

    /* Most take one cell that has been used before. */
    if (len > cells_first_room(c) || ref == 0 || cells_left(c) == 0 ||
        (m = cells_at(c, ref)) == NULL)
        return cells_find_cells(c, cells_of(c, len), run);
    run->first = run->last = ref;
    run->n = 1;
    run->free_after = atomic_load32(&m->next);
    run->fresh_after = atomic_load64(&c->header->fresh);
    run->joint = run->joint_to = 0;
    return SHD_OK;
}

TXN_INLINE void cells_take_run(const struct cells *c, struct txn *t,
                               const struct cells_run *run)
{
    uint64_t used = (uint64_t)atomic_load32(&c->header->used) + run->n;

    if (run->joint != 0)
        txn_store32(t, &cells_of_ref(c, run->joint)->next, run->joint_to);
    txn_store64(t, (uint64_t *)(void *)&c->header->free,
                used << 32 | run->free_after);
    if (run->fresh_after != atomic_load64(&c->header->fresh))
        txn_store64(t, &c->header->fresh, run->fresh_after);
}

/* ---- lists and trees of messages --------------------------------------- */

/* One aligned word. */
struct message_list {
    uint32_t first; /* 0 */
    uint32_t last;  /* 4 */
};
#define MESSAGE_LIST_WORDS 4u

int message_append(const struct cells *c, struct txn *t,
                   struct message_list *l, struct message *m);
int message_prepend(const struct cells *c, struct txn *t,
                    struct message_list *l, struct message *m);
int message_remove(const struct cells *c, struct txn *t,
                   struct message_list *l, struct message *m);

/* By m->when, which must not be 0. */
int message_time(const struct cells *c, struct txn *t, uint32_t *root,
                 struct message *m);
int message_untime(const struct cells *c, struct txn *t, uint32_t *root,
                   struct message *m);

/* The first by time; NULL: the tree is empty, or damaged. */
struct message *message_first(const struct cells *c, uint32_t root);

/* ---- checking ---------------------------------------------------------- */

/* Which cells have been seen, and what is said of them. */
struct cells_check {
    const struct cells *cells;
    uint8_t *seen; /* [count] */
    uint64_t used, bytes;
    char *report;
    size_t size;
};

/* SHD_NOMEM. Ends with cells_check_end, which compares the sums. */
int cells_check_begin(struct cells_check *k, const struct cells *c,
                      char *report, size_t size);

/* The message's chain; each of its cells must not have been seen. */
int cells_check_message(struct cells_check *k, const struct message *m);

/* Each of the list's messages: its links, its chain, its state (without
 * MESSAGE_RED) in the set `states`, bits by number. */
int cells_check_list(struct cells_check *k, const struct message_list *l,
                     uint64_t count, uint32_t states, const char *name);

/* The tree's order and colours; *nodes gets the number. */
int cells_check_tree(struct cells_check *k, uint32_t root, uint64_t *nodes);

/* Says what is wrong, with the cell's number. SHD_CORRUPT. */
int cells_check_failed(struct cells_check *k, const struct message *m,
                       const char *what);

int cells_check_end(struct cells_check *k, int rc);

#endif
