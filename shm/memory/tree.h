/* SPDX-License-Identifier: BSD-2-Clause */
/* memory/tree.h - red-black trees without parent links.
 *
 * OWNS   two links and one colour bit inside each node; where they lie is the
 *        tree_kind's. Nodes are named by 32-bit references in units of 16
 *        bytes from the segment's start; 0 is none.
 * HOLDS  the red-black invariants, between transactions.
 * LOCK   changes: inside a transaction of the guard that owns the tree.
 *        Walks: under the lock, or in a read section (they check every link
 *        and are bounded; what they give is believed after read_valid).
 * CRASH  death anywhere leaves it as it was at txn_begin().
 * COST   O(log n); at most TREE_INSERT_WORDS / TREE_REMOVE_WORDS /
 *        TREE_REPLACE_WORDS stores.
 *
 * The order is the caller's: it descends by itself (or with tree_find) and
 * hands over the path, so no comparison happens in here, and no parent link
 * costs memory or log entries.
 */
#ifndef SHD_MEMORY_TREE_H
#define SHD_MEMORY_TREE_H

#include "shm/guard/txn.h"

/* 2 * log2(2^31 nodes of at least 32 bytes) */
#define TREE_DEPTH_MAX 64u
/* A recolouring step up two levels stores three colours; two rotations and
 * the new node's own words come on top. */
#define TREE_INSERT_WORDS 112u
/* A step up one level stores one colour; swapping with the successor and
 * three rotations come on top. */
#define TREE_REMOVE_WORDS 96u
#define TREE_REPLACE_WORDS 4u

/* Where in a node the tree's parts lie, bytes. The links are two uint32_t in
 * one aligned 8-byte word: left, then right. */
struct tree_kind {
    uint32_t links_at;
    uint32_t colour_at;   /* of an aligned uint32_t */
    uint32_t colour_mask; /* the one bit in it that is set for red */
    uint32_t node_bytes;  /* the least a node occupies, for bounds checks */
    uint64_t first, end;  /* byte offsets between which all nodes lie: what
                             leads elsewhere is damaged; 0, 0: anywhere.
                             `end` may move between two calls: relaxed */
};

/* From the root down. ref[0] is the root; side[i] says where the path goes on
 * from ref[i]: 0 left, 1 right. */
struct tree_path {
    uint32_t depth; /* nodes in the path */
    uint32_t ref[TREE_DEPTH_MAX];
    uint8_t side[TREE_DEPTH_MAX];
};

/* The node's address, or NULL if it would not lie where nodes do. */
static inline unsigned char *tree_node(const struct segment *s,
                                       const struct tree_kind *k, uint32_t ref)
{
    uint64_t at = (uint64_t)ref * SEGMENT_UNIT;

    uint64_t end = atomic_load64(&k->end);

    if (end != 0 && (at < k->first || at + k->node_bytes > end))
        return NULL;
    return segment_at(s, at, k->node_bytes);
}

/* The node's child on a side (0 left, 1 right); node is from tree_node(). */
static inline uint32_t tree_child(const struct tree_kind *k,
                                  const unsigned char *node, unsigned side)
{
    return atomic_load32((const uint32_t *)(const void *)(node + k->links_at) +
                         side);
}

/* Descends comparing with `order`: < 0 go left, > 0 right, 0 found. 1 found:
 * the path ends with the node. 0 not found: it ends with the parent to be and
 * the side; it is empty when the tree is. SHD_CORRUPT. */
int tree_find(const struct segment *s, const struct tree_kind *k,
              uint32_t root,
              int (*order)(const void *context, const unsigned char *node),
              const void *context, struct tree_path *path);

/* Puts the node where the path (from a descent that did not find it) points.
 * SHD_CORRUPT: a link leads outside or the tree is no red-black tree; the
 * caller aborts. */
int tree_insert(struct txn *t, const struct tree_kind *k, uint32_t *root,
                struct tree_path *path, uint32_t ref);

/* Removes the node the path ends with. The path is used up. */
int tree_remove(struct txn *t, const struct tree_kind *k, uint32_t *root,
                struct tree_path *path);

/* Puts another node, equal in the order, in the place of the one the path
 * ends with; it gets the links and the colour. */
int tree_replace(struct txn *t, const struct tree_kind *k, uint32_t *root,
                 const struct tree_path *path, uint32_t ref);

/* Walks: 1 and the path ends with the node; 0 there is none. */
int tree_first(const struct segment *s, const struct tree_kind *k,
               uint32_t root, struct tree_path *path);
int tree_next(const struct segment *s, const struct tree_kind *k,
              struct tree_path *path);

/* Links nodes, given in their order, to a balanced tree and gives its root, 0
 * if there are none. Not logged: for repair, behind a fence. SHD_CORRUPT: a
 * node would not lie where nodes do. */
int tree_build(const struct segment *s, const struct tree_kind *k,
               const uint32_t *refs, uint32_t n, uint32_t *root);

/* Colours, black heights, and order: `compare` of two neighbours must be < 0.
 * *nodes, if not NULL, gets the number. report names the first that fails. */
int tree_check(const struct segment *s, const struct tree_kind *k,
               uint32_t root,
               int (*compare)(const void *context, const unsigned char *a,
                              const unsigned char *b),
               const void *context, uint64_t *nodes, char *report,
               size_t size);

#endif
