/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/forest.h - finding keys: a red-black tree under each root.
 *
 * HOLDS  the tree under a root holds the entries whose order leads there,
 *        ordered by (24 bits of it, key length, key). While the index is
 *        changed an entry may be under its former root (dict/index.h): looks
 *        look there too, and what is new goes under the new one.
 * LOCK   forest_path: the shard's lock. The others: lock or read section.
 * COST   with about as many roots as entries, one root and one node; never
 *        more than TREE_DEPTH_MAX nodes, also under a collision attack.
 */
#ifndef SHD_DICT_FOREST_H
#define SHD_DICT_FOREST_H

#include "shm/dict/entry.h"
#include "shm/dict/index.h"

/* 1 and the entry, 0 not there, SHD_CORRUPT. */
static inline int forest_find(const struct dict *d, const struct place *at,
                              const void *key, size_t len, uint32_t *ref);

/* The same, for who wants to change the tree: as tree_find; at->root gets the
 * root it is under, or would come under. */
int forest_path(const struct dict *d, struct place *at, const void *key,
                size_t len, struct tree_path *path);

/* Under one root: where there is, or would be, the key of an entry that is
 * stored. */
int forest_path_below(const struct dict *d, const uint32_t *root,
                      const struct entry *e, struct tree_path *path);

/* The place of an entry that is stored, and the path to it: 1. SHD_CORRUPT if
 * it cannot be found where its key belongs. */
int forest_path_of(const struct dict *d, uint32_t shard, uint32_t ref,
                   struct place *at, struct tree_path *path);

/* The first entry under the root that is greater than (24 bits of hash, key);
 * key NULL: not less than the hash. 1, 0 none, SHD_CORRUPT. */
int forest_after(const struct dict *d, const uint32_t *root, uint32_t hash,
                 const void *key, size_t len, uint32_t *ref);

/* ---- how -------------------------------------------------------------- */

/* Under one root. */
static inline __attribute__((always_inline)) int
forest_find_below(const struct dict *d, const uint32_t *root, uint32_t hash,
                  const void *key, size_t len, uint32_t *ref)
{
    uint32_t r = atomic_load32(root);

    for (uint32_t depth = 0; r != 0; depth++) {
        const struct entry *e = entry_at(&d->pages, r);
        int order;

        if (e == NULL || depth == TREE_DEPTH_MAX)
            return SHD_CORRUPT;
        order = entry_order(d, hash, key, len, e);
        if (order == 0) {
            *ref = r;
            return 1;
        }
        if (order == ENTRY_CORRUPT)
            return SHD_CORRUPT;
        r = atomic_load32(&e->cell.word[order > 0]);
    }
    return 0;
}

/* forest_find while the index is changed, where it has not found it. */
int forest_find_former(const struct dict *d, const struct place *at,
                       uint64_t state, const void *key, size_t len,
                       uint32_t *ref);

static inline __attribute__((always_inline)) int
forest_find(const struct dict *d, const struct place *at, const void *key,
            size_t len, uint32_t *ref)
{
    uint64_t state = index_state(d);
    int rc = forest_find_below(d, index_root(d, index_grain(state), at->order),
                               at->hash, key, len, ref);

    return rc == 0 && index_moves(state)
               ? forest_find_former(d, at, state, key, len, ref)
               : rc;
}

#endif
