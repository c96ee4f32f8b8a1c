/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/forest.h - finding keys: a red-black tree under each root.
 *
 * HOLDS  the tree under a root holds the entries whose hash leads there,
 *        ordered by (24 bits of hash, key length, key).
 * LOCK   forest_path: the shard's lock. The others: lock or read section.
 * COST   with about as many roots as entries, one root and one node; never
 *        more than TREE_DEPTH_MAX nodes, also under a collision attack.
 */
#ifndef SHD_DICT_FOREST_H
#define SHD_DICT_FOREST_H

#include "shm/dict/entry.h"

/* 1 and the entry, 0 not there, SHD_CORRUPT. */
static inline int forest_find(const struct dict *d, const struct place *at,
                              const void *key, size_t len, uint32_t *ref);

/* The same, for who wants to change the tree: as tree_find. */
int forest_path(const struct dict *d, const struct place *at, const void *key,
                size_t len, struct tree_path *path);

/* The place of an entry that is stored, and the path to it: 1. SHD_CORRUPT if
 * it cannot be found where its key belongs. */
int forest_path_of(const struct dict *d, uint32_t shard, uint32_t ref,
                   struct place *at, struct tree_path *path);

/* The first entry under the root that is greater than (hash, key); key NULL:
 * the first of all. 1, 0 none, SHD_CORRUPT. */
int forest_after(const struct dict *d, const struct place *at, const void *key,
                 size_t len, uint32_t *ref);

/* ---- how -------------------------------------------------------------- */

static inline __attribute__((always_inline)) int
forest_find(const struct dict *d, const struct place *at, const void *key,
            size_t len, uint32_t *ref)
{
    uint32_t r = atomic_load32(&d->roots[at->root]);

    for (uint32_t depth = 0; r != 0; depth++) {
        const struct entry *e = entry_at(&d->pages, r);
        int order;

        if (e == NULL || depth == TREE_DEPTH_MAX)
            return SHD_CORRUPT;
        order = entry_order(d, at->hash, key, len, e);
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

#endif
