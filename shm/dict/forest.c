/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/forest.h"
#include "shm/base/error.h"
#include "shm/dict/place.h"

static inline __attribute__((always_inline)) int
path_inlined(const struct dict *d, const uint32_t *root, uint32_t hash,
             const void *key, size_t len, struct tree_path *path)
{
    uint32_t r = atomic_load32(root);

    path->depth = 0;
    while (r != 0) {
        const struct entry *e = entry_at(&d->pages, r);
        int order;

        if (e == NULL || path->depth == TREE_DEPTH_MAX)
            return error_set(SHD_CORRUPT,
                             "dict '%s': a tree leads outside or "
                             "is too deep",
                             d->name);
        order = entry_order(d, hash, key, len, e);
        if (order == ENTRY_CORRUPT)
            return error_set(SHD_CORRUPT, "dict '%s': a key leads outside",
                             d->name);
        path->ref[path->depth] = r;
        path->side[path->depth] = order > 0;
        path->depth++;
        if (order == 0)
            return 1;
        r = atomic_load32(&e->cell.word[order > 0]);
    }
    return 0;
}

static __attribute__((noinline)) int
path_below(const struct dict *d, const uint32_t *root, uint32_t hash,
           const void *key, size_t len, struct tree_path *path)
{
    return path_inlined(d, root, hash, key, len, path);
}

/* The former one first, so that the path which is left, when there is no such
 * key, is the one where it would be put. */
static __attribute__((noinline)) int
path_while_moving(const struct dict *d, uint64_t state, struct place *at,
                  const void *key, size_t len, struct tree_path *path)
{
    int rc;

    at->root = index_root(d, index_former(state), at->order);
    rc = path_below(d, at->root, at->hash, key, len, path);
    if (rc != 0)
        return rc;
    at->root = index_root(d, index_grain(state), at->order);
    return path_below(d, at->root, at->hash, key, len, path);
}

int forest_path(const struct dict *d, struct place *at, const void *key,
                size_t len, struct tree_path *path)
{
    uint64_t state = index_state(d);

    if (index_moves(state))
        return path_while_moving(d, state, at, key, len, path);
    at->root = index_root(d, index_grain(state), at->order);
    return path_inlined(d, at->root, at->hash, key, len, path);
}

int forest_find_former(const struct dict *d, const struct place *at,
                       uint64_t state, const void *key, size_t len,
                       uint32_t *ref)
{
    return forest_find_below(d, index_root(d, index_former(state), at->order),
                             at->hash, key, len, ref);
}

/* Long keys are rare: they are copied onto a stack of their own. */
static __attribute__((noinline)) int
path_of_long(const struct dict *d, const struct entry *e, struct place *at,
             const uint32_t *root, struct tree_path *path)
{
    unsigned char key[ENTRY_KEY_MAX + 8];
    uint32_t len = entry_key_len(atomic_load64(&e->key_expires));
    int rc = entry_key(d, e, len, key);

    if (rc != SHD_OK)
        return rc;
    return root == NULL ? forest_path(d, at, key, len, path)
                        : path_below(d, root, at->hash, key, len, path);
}

int forest_path_below(const struct dict *d, const uint32_t *root,
                      const struct entry *e, struct tree_path *path)
{
    uint32_t len = entry_key_len(atomic_load64(&e->key_expires));
    struct place at = {.hash =
                           atomic_load32(&e->cell.meta) >> CELL_HASH_SHIFT};

    if (entry_is_long(len))
        return path_of_long(d, e, &at, root, path);
    if (len == 0 || sizeof(*e) + pad8(len) > cell_room(&d->pages, e))
        return SHD_CORRUPT;
    return path_below(d, root, at.hash, e + 1, len, path);
}

struct place dict_place(const struct dict *d, const void *key, size_t len)
{
    return place_of_key(d, key, len);
}

int forest_path_of(const struct dict *d, uint32_t shard, uint32_t ref,
                   struct place *at, struct tree_path *path)
{
    struct entry *e = entry_at(&d->pages, ref);
    uint32_t len;
    int rc = SHD_CORRUPT;

    if (e == NULL)
        return error_set(SHD_CORRUPT, "dict '%s': a link leads outside",
                         d->name);
    len = entry_key_len(atomic_load64(&e->key_expires));
    if (entry_is_long(len)) {
        *at = place_of_hash(d, atomic_load64(entry_long_hash(e)));
        rc = path_of_long(d, e, at, NULL, path);
    } else if (sizeof(*e) + pad8(len) <= cell_room(&d->pages, e)) {
        *at = dict_place(d, e + 1, len);
        rc = forest_path(d, at, e + 1, len, path);
    }
    if (rc != 1 || at->shard != shard || path->ref[path->depth - 1] != ref)
        return error_set(SHD_CORRUPT,
                         "dict '%s': an entry is not where its "
                         "key belongs",
                         d->name);
    return 1;
}

int forest_after(const struct dict *d, const uint32_t *root, uint32_t hash,
                 const void *key, size_t len, uint32_t *ref)
{
    uint32_t r = atomic_load32(root);
    uint32_t best = 0;

    for (uint32_t depth = 0; r != 0; depth++) {
        const struct entry *e = entry_at(&d->pages, r);
        int order;

        if (e == NULL || depth == TREE_DEPTH_MAX)
            return SHD_CORRUPT;
        if (key != NULL)
            order = entry_order(d, hash, key, len, e);
        else
            order = hash <= atomic_load32(&e->cell.meta) >> CELL_HASH_SHIFT
                        ? -1
                        : 1;
        if (order == ENTRY_CORRUPT)
            return SHD_CORRUPT;
        if (order < 0)
            best = r;
        r = atomic_load32(&e->cell.word[order >= 0]);
    }
    *ref = best;
    return best != 0;
}
