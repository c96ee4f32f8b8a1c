/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/lease.h - elements of lists that somebody has on a lease.
 *
 * OWNS   cells of kind CELL_NODE and type LEASE_TYPE, and the tree of those of
 *        a shard (shard.leases).
 * HOLDS  a leased element is no longer among its list's elements: it is in the
 *        list's chain of leased ones (entry_list.leased), and its node and its
 *        lease name each other. A list with leased elements has an entry, also
 *        if it has no others. A lease whose node is 0 is an element's that has
 *        gone, or of a move (below).
 * LOCK   the shard's.
 * CRASH  taking, giving back, and being done is one transaction each.
 * COST   O(log n) of the shard's leases. Giving back needs no memory.
 *
 *   entry {first, last, count, leased} -> node -> node -> 0    NEXT
 *                                |         |       |
 *                                |       lease   lease         word 2, both
 * ways shard.leases ----------------+---------+-------+           by (holder,
 * number)
 *
 * Whose list it is a lease knows by the key's order and by the number of the
 * first lease that this chain had: so it finds the entry, wherever that has
 * been moved, and can tell it from another list that has the key now.
 *
 * A MOVE between lists of two shards is made of two leases with one number,
 * that of the first: a copy is leased there before the element goes here.
 *
 *   stage     here: from, the number's shard    there: to
 *   PINNED    leased by the mover               -, or the copy on a lease
 *   LANDED    gone, the lease stays             on a lease, or an element
 *   RETURNED  an element, the lease stays       on a lease, or gone
 *   -         -                                 an element, or not
 *
 * One store makes PINNED into LANDED, and the element be there instead of
 * here. Whoever finds the mover dead makes PINNED into RETURNED, then sees to
 * the copy, and frees the lease here last: so what has become of a copy is
 * told by the lease here as long as there is one there.
 */
#ifndef SHD_DICT_LEASE_H
#define SHD_DICT_LEASE_H

#include "shm/dict/attempt.h"

#define LEASE_TYPE 7u /* of a cell: no value's */

enum { LEASE_LINK = 2 }; /* word of a node: its lease; of a lease: its node */

enum lease_stage {
    LEASE_PLAIN = 0,
    LEASE_PINNED = 1,
    LEASE_LANDED = 2,
    LEASE_RETURNED = 3
};

struct lease {
    struct cell cell; /*  0 words 0 and 1: the tree's; len: how */
    uint64_t holder;  /* 24 incarnation */
    uint64_t number;  /* 32 count << 8 | the shard it was given in */
    uint64_t list;    /* 40 number of the first lease of its chain */
    uint64_t order;   /* 48 of the list's key */
};
static_assert(sizeof(struct lease) == 56, "layout");

/* struct lease.cell.len */
#define LEASE_LEFT 1u
#define LEASE_STAGE_SHIFT 8
#define LEASE_TO_SHIFT 16 /* the shard of the other list */

static inline uint32_t lease_how(bool left, uint32_t stage, uint32_t to)
{
    return (left ? LEASE_LEFT : 0) | stage << LEASE_STAGE_SHIFT |
           to << LEASE_TO_SHIFT;
}

static inline uint32_t lease_stage(const struct lease *l)
{
    return atomic_load32(&l->cell.len) >> LEASE_STAGE_SHIFT & 0xff;
}

static inline uint32_t lease_to(const struct lease *l)
{
    return atomic_load32(&l->cell.len) >> LEASE_TO_SHIFT;
}

static inline uint32_t lease_shard(uint64_t number)
{
    return number & (DICT_SHARDS_MAX - 1);
}

static inline bool lease_is(uint32_t meta)
{
    return (meta & (CELL_KIND_MASK | CELL_TYPE_MASK)) ==
           (CELL_NODE << CELL_KIND_SHIFT | LEASE_TYPE);
}

/* What one transaction stores for a lease more, or one less. */
#define LEASE_ADD_WORDS (SLAB_ALLOC_WORDS + TREE_INSERT_WORDS + 3u)
#define LEASE_DROP_WORDS (TREE_REMOVE_WORDS + SLAB_FREE_BRIEF_WORDS + 2u)
/* An element into the chain of leased ones, or out of it. */
#define LEASE_LINK_WORDS 5u
/* An element out of the others. */
#define LIST_UNLINK_WORDS 4u

/* The lease at ref, or NULL if there is none. */
struct lease *lease_at(const struct dict *d, uint32_t ref);

/* 1: the path ends with it; 0: it ends where it would be; SHD_CORRUPT. */
int lease_find(const struct dict *d, uint32_t shard, uint64_t holder,
               uint64_t number, struct tree_path *path);

/* The first that comes after (holder, number): 1, 0, SHD_CORRUPT. */
int lease_after(const struct dict *d, uint32_t shard, uint64_t holder,
                uint64_t number, const struct lease **out);

/* The last that comes before it. */
int lease_before(const struct dict *d, uint32_t shard, uint64_t holder,
                 uint64_t number, const struct lease **out);

/* The class of its cell; what to make room for. */
uint32_t lease_class(void);

/* Inside a transaction: the element at `node`, which is in no list, is leased
 * out of the list of the entry at `of`. number 0: a new one, else one that
 * has been given. *number gets it. SHD_NOMEM: of the class there is no cell.
 */
struct lease_add {
    uint64_t holder, number, order;
    uint32_t of, node, how, class;
};
int lease_add(const struct dict *d, uint32_t shard, struct txn *t,
              const struct lease_add *a, uint64_t *number);

/* Inside a transaction: it is out of the tree, and its cell is free, or on the
 * garbage. Its node, if it has one, does not name it any more. */
int lease_drop(const struct dict *d, uint32_t shard, struct txn *t,
               struct tree_path *path);

/* Inside a transaction: the leased element at `node` goes with its list. What
 * was to be moved has not been, and its lease says so. */
int lease_lose(const struct dict *d, uint32_t shard, struct txn *t,
               uint32_t node);

/* Inside a transaction: the lease has no element any more, and another stage.
 */
int lease_stage_set(const struct dict *d, struct txn *t, struct lease *l,
                    uint32_t stage);

/* The entry whose list the lease's node is leased out of: 1; 0: the list has
 * gone, or the lease has no node; SHD_CORRUPT. */
int lease_entry(const struct dict *d, uint32_t shard, const struct lease *l,
                uint32_t *entry);

/* Inside a transaction: takes its node out of the entry's chain. */
int lease_unlink(const struct dict *d, struct txn *t, const struct lease *l,
                 uint32_t entry);

/* Inside a transaction: the node, in no list, becomes an element at that end.
 */
#define LEASE_RETURN_WORDS 6u
int lease_node_push(const struct dict *d, struct txn *t, uint32_t entry,
                    uint32_t node, bool left);

/* Inside a transaction: the cell that holds a lease has been copied to `new`.
 */
int lease_moved(const struct dict *d, uint32_t shard, struct txn *t,
                uint32_t new, const struct tree_path *path);

/* A leased node's lease, 0: it is not leased. */
static inline uint32_t lease_of(const struct cell *node)
{
    return atomic_load32(&node->word[LEASE_LINK]);
}

/* ---- lists.c: what is done with an end of a list ------------------------ */

struct list_end {
    struct entry_list *list;
    struct cell *cell;
    uint32_t node;
    bool left;
};

/* Called with the lock and the list's live entry looked up, once the value has
 * been copied. SHD_NOMEM: room is made for a cell of `class`, and it is called
 * again; LIST_AGAIN: that at once. */
#define LIST_AGAIN 4
struct end_call {
    int (*act)(struct attempt *a, struct end_call *c,
               const struct list_end *end);
    uint32_t class;
    uint64_t pages; /* that may be needed */
};
int store_end(const struct dict *d, bool left, const void *key, size_t len,
              void *buf, size_t size, struct shd_value *v,
              struct end_call *call);

/* Inside a transaction: the element is in no list. */
int list_unlink(const struct attempt *a, struct txn *t,
                const struct list_end *end);

/* Inside a transaction: an empty list, to which an element is added, for the
 * key that was looked up. */
int list_entry_make(struct attempt *a, struct txn *t, const struct item *list,
                    uint32_t class, uint32_t *entry);

/* Pushes what is leased from the first: `arrival` has holder, number and how.
 */
int store_arrive(const struct dict *d, const struct item *element,
                 const void *key, size_t key_len, struct lease_add *arrival);

/* ---- leases.c: every change of one lease. Each takes the shard's lock ----
 */

/* What becomes of one. */
enum lease_end { LEASE_DONE, LEASE_BACK };

/* As shd_ltake: by this process, with `how`. */
int leases_take(const struct dict *d, bool left, const void *key, size_t len,
                void *buf, size_t size, struct shd_value *v, uint32_t how,
                uint64_t *number);

/* SHD_LOST: that holder has no such lease, or what is leased has gone with its
 * list; then it is over all the same. */
int leases_end(const struct dict *d, uint64_t holder, uint64_t number,
               enum lease_end end);

/* lmove.c: moves of this process that a busy lock has kept from their end. */
void lmove_go_on(const struct dict *d);

/* PINNED becomes LANDED. SHD_LOST: the element has gone with its list. */
int leases_land(const struct dict *d, uint64_t holder, uint64_t number);

/* A move goes on, or back, as its stage tells, and is over. `to`: the shard of
 * a copy that was found. Any number of workers may do it at once. */
int leases_resolve(const struct dict *d, uint64_t holder, uint64_t number,
                   uint32_t to);

/* The first holder after that one in the shard: *holder; 0: there is none. A
 * hint, without the lock. */
int leases_holder(const struct dict *d, uint32_t shard, uint64_t after,
                  uint64_t *holder);

/* How many that holder has in all shards. Takes no lock. */
int leases_held(const struct dict *d, uint64_t holder, uint64_t *count);

/* A dead holder's leases in the shard come to their end: what it had goes
 * back, or where it was moved to. */
int leases_give_back(const struct dict *d, uint32_t shard, uint64_t holder);

#endif
