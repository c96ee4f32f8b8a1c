/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/forest.h"
#include "shm/base/error.h"
#include "shm/dict/place.h"

int forest_path(const struct dict *d, const struct place *at, const void *key,
                size_t len, struct tree_path *path)
{
    uint32_t r = atomic_load32(&d->roots[at->root]);

    path->depth = 0;
    while (r != 0) {
        const struct entry *e = entry_at(&d->pages, r);
        int order;

        if (e == NULL || path->depth == TREE_DEPTH_MAX)
            return error_set(SHD_CORRUPT,
                             "dict '%s': a tree leads outside or "
                             "is too deep",
                             d->name);
        order = entry_order(d, at->hash, key, len, e);
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

/* Long keys are rare: they are copied onto a stack of their own. */
static __attribute__((noinline)) int path_of_long(const struct dict *d,
                                                  const struct entry *e,
                                                  const struct place *at,
                                                  struct tree_path *path)
{
    unsigned char key[ENTRY_KEY_MAX + 8];
    uint32_t len = entry_key_len(atomic_load64(&e->key_expires));
    int rc = entry_key(d, e, len, key);

    return rc != SHD_OK ? rc : forest_path(d, at, key, len, path);
}

struct place dict_place(const struct dict *d, const void *key, size_t len)
{
    return place_of_key(d, key, len);
}

int forest_path_of(const struct dict *d, uint32_t shard, uint32_t ref,
                   struct place *at, struct tree_path *path)
{
    const struct entry *e = entry_at(&d->pages, ref);
    uint32_t len;
    int rc = SHD_CORRUPT;

    if (e == NULL)
        return error_set(SHD_CORRUPT, "dict '%s': a link leads outside",
                         d->name);
    len = entry_key_len(atomic_load64(&e->key_expires));
    if (entry_is_long(len)) {
        *at = place_of_hash(
            d, atomic_load64((const uint64_t *)(const void *)(e + 1) + 1));
        rc = path_of_long(d, e, at, path);
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

int forest_after(const struct dict *d, const struct place *at, const void *key,
                 size_t len, uint32_t *ref)
{
    uint32_t r = atomic_load32(&d->roots[at->root]);
    uint32_t best = 0;

    for (uint32_t depth = 0; r != 0; depth++) {
        const struct entry *e = entry_at(&d->pages, r);
        int order;

        if (e == NULL || depth == TREE_DEPTH_MAX)
            return SHD_CORRUPT;
        order = key == NULL ? -1 : entry_order(d, at->hash, key, len, e);
        if (order == ENTRY_CORRUPT)
            return SHD_CORRUPT;
        if (order < 0)
            best = r;
        r = atomic_load32(&e->cell.word[order >= 0]);
    }
    *ref = best;
    return best != 0;
}
