/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/dict.h"
#include "shm/base/error.h"
#include "shm/dict/entry.h"

#include <stdio.h>
#include <string.h>

#define BYTES_PER_ROOT 128u
#define ROOTS_MIN 16u
/* 40 bits for shard and root leave 24 that order the tree. */
#define HASH_TOP_BITS_MAX 40u
#define SHARD_BYTES (2ull << 20)
/* Each but the last needs a dict destroyed between being found and looked
 * into. */
#define OPEN_ROUNDS 16

/* Where the parts of an extent lie, relative to its start. */
struct plan {
    uint32_t shards;
    uint32_t root_bits;
    uint32_t pages;
    uint64_t shards_at, map_at, table_at, roots_at, marks_at, pages_at;
    uint64_t bytes;
};

static uint32_t log2_floor(uint64_t n)
{
    return 63u - (uint32_t)__builtin_clzll(n | 1);
}

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

static void plan_lay_out(struct plan *p, uint64_t pages)
{
    uint64_t roots = (uint64_t)p->shards << p->root_bits;

    p->shards_at = sizeof(struct dict_header);
    p->map_at = p->shards_at + (uint64_t)p->shards * sizeof(struct shard);
    p->table_at = p->map_at + (pages + 63) / 64 * 8;
    p->table_at = round_up(p->table_at, SEGMENT_UNIT);
    p->roots_at = p->table_at + pages * sizeof(struct page);
    p->marks_at = p->roots_at + roots * 4;
    p->pages_at = round_up(p->marks_at + roots, PAGE_BYTES);
}

/* As many pages as fit beside their own table. */
static uint64_t pages_that_fit(struct plan *p, uint64_t capacity)
{
    uint64_t pages = 0;

    for (uint64_t step = SEGMENT_SIZE_MAX / PAGE_BYTES; step > 0; step /= 2) {
        plan_lay_out(p, pages + step);
        if (p->pages_at + (pages + step) * PAGE_BYTES <= capacity)
            pages += step;
    }
    return pages;
}

static int plan_make(const struct shd_dict_options *o, struct plan *p)
{
    uint64_t capacity = round_up(o->capacity_bytes, PAGE_BYTES);
    uint64_t entries = o->entries_hint;
    uint64_t pages;

    if (o->capacity_bytes < DICT_CAPACITY_MIN ||
        o->capacity_bytes > SEGMENT_SIZE_MAX)
        return error_set(SHD_INVAL,
                         "capacity of %llu bytes: it must be 8192 to 64 GiB",
                         (unsigned long long)o->capacity_bytes);
    if (o->shards > DICT_SHARDS_MAX || (o->shards & (o->shards - 1)) != 0)
        return error_set(SHD_INVAL, "%u shards: a power of two up to 256",
                         o->shards);
    p->shards = o->shards;
    if (p->shards == 0) {
        uint64_t n = capacity / SHARD_BYTES;

        p->shards = n < 2                 ? 1
                    : n > DICT_SHARDS_MAX ? DICT_SHARDS_MAX
                                          : 1u << log2_floor(n);
    }
    if (entries == 0)
        entries = capacity / BYTES_PER_ROOT;
    if (entries > capacity / SLAB_CELL_MIN)
        entries = capacity / SLAB_CELL_MIN;
    if (entries < (uint64_t)ROOTS_MIN * p->shards)
        entries = (uint64_t)ROOTS_MIN * p->shards;
    p->root_bits = log2_floor(entries / p->shards);
    if (p->root_bits > HASH_TOP_BITS_MAX - log2_floor(p->shards))
        p->root_bits = HASH_TOP_BITS_MAX - log2_floor(p->shards);
    pages = pages_that_fit(p, capacity);
    if (pages == 0)
        return error_set(SHD_INVAL,
                         "capacity of %llu bytes is too small "
                         "for %u shards",
                         (unsigned long long)o->capacity_bytes, p->shards);
    plan_lay_out(p, pages);
    p->pages = (uint32_t)pages;
    p->bytes = capacity;
    return SHD_OK;
}

static int initialize(const struct guard_env *env,
                      const struct catalogue_object *o, void *context)
{
    const struct plan *p = context;
    struct dict_header *h;
    struct dict d;
    int rc = segment_commit(env->segment, o->extent_at, p->pages_at);

    if (rc != SHD_OK)
        return rc;
    h = segment_at(env->segment, o->extent_at, sizeof(*h));
    if (h == NULL)
        return error_set(SHD_CORRUPT, "an extent lies outside the segment");
    h->generation = o->generation;
    h->capacity_bytes = o->size_bytes;
    h->shards = p->shards;
    h->root_bits = p->root_bits;
    h->pages = p->pages;
    h->shards_at = o->extent_at + p->shards_at;
    h->map_at = o->extent_at + p->map_at;
    h->table_at = o->extent_at + p->table_at;
    h->roots_at = o->extent_at + p->roots_at;
    h->marks_at = o->extent_at + p->marks_at;
    h->pages_at = o->extent_at + p->pages_at;
    rc = dict_view(env, o, &d);
    if (rc == SHD_OK)
        pages_initialize(&d.pages);
    return rc;
}

/* A part of the extent, or NULL. */
static void *part(const struct segment *s, const struct catalogue_object *o,
                  uint64_t at, uint64_t bytes)
{
    if (at % 8 != 0 || at < o->extent_at ||
        at - o->extent_at > o->extent_bytes ||
        bytes > o->extent_bytes - (at - o->extent_at))
        return NULL;
    return segment_at(s, at, bytes);
}

int dict_view(const struct guard_env *env, const struct catalogue_object *o,
              struct dict *d)
{
    const struct segment *s = env->segment;
    struct dict_header *h = segment_at(s, o->extent_at, sizeof(*h));
    uint64_t roots;

    if (h == NULL || h->generation != o->generation || h->shards == 0 ||
        h->shards > DICT_SHARDS_MAX || (h->shards & (h->shards - 1)) != 0 ||
        h->shards != o->guards || h->root_bits > HASH_TOP_BITS_MAX ||
        h->pages_at % PAGE_BYTES != 0 || h->table_at % SEGMENT_UNIT != 0)
        return error_set(SHD_CORRUPT, "dict '%s': its header is damaged",
                         o->name);
    memset(d, 0, sizeof(*d));
    d->env = env;
    d->generation = o->generation;
    d->capacity_bytes = o->size_bytes;
    d->index_bytes = h->pages_at - o->extent_at;
    d->guards_first = o->guards_first;
    d->shards = h->shards;
    d->shard_bits = log2_floor(h->shards);
    d->root_bits = h->root_bits;
    roots = (uint64_t)d->shards << d->root_bits;
    d->shard = part(s, o, h->shards_at, d->shards * sizeof(struct shard));
    d->roots = part(s, o, h->roots_at, roots * 4);
    d->marks = part(s, o, h->marks_at, roots);
    d->pages.segment = s;
    d->pages.count = h->pages;
    d->pages.at = h->pages_at;
    d->pages.committed = &h->committed;
    d->pages.map = part(s, o, h->map_at, (h->pages + 63ull) / 64 * 8);
    d->pages.table =
        part(s, o, h->table_at, (uint64_t)h->pages * sizeof(struct page));
    /* A damaged link must not lead into locks or another object. */
    d->entries.colour_at = offsetof(struct cell, meta);
    d->entries.colour_mask = CELL_RED;
    d->entries.node_bytes = sizeof(struct entry);
    d->entries.first = h->pages_at;
    d->entries.end = h->pages_at + (uint64_t)h->pages * PAGE_BYTES;
    memcpy(d->name, o->name, sizeof(d->name));
    if (d->shard == NULL || d->roots == NULL || d->marks == NULL ||
        d->pages.map == NULL || d->pages.table == NULL ||
        part(s, o, h->pages_at, (uint64_t)h->pages * PAGE_BYTES) == NULL ||
        guard_at(s, d->guards_first + d->shards - 1) == NULL)
        return error_set(SHD_CORRUPT, "dict '%s': its parts lie outside it",
                         o->name);
    return SHD_OK;
}

/* Has the dict of that name been destroyed since it was found? */
static bool has_moved_on(const struct guard_env *env, const char *name,
                         uint64_t generation)
{
    struct catalogue_object now;
    int rc = catalogue_find(env, name, &now);

    return rc == SHD_NOTFOUND ||
           (rc == SHD_OK && now.generation != generation);
}

static int open_once(const struct guard_env *env, const char *name,
                     const struct shd_dict_options *o, struct dict *out,
                     bool *again)
{
    struct catalogue_object object;
    struct plan plan;
    int rc = catalogue_find(env, name, &object);

    *again = false;
    if (rc == SHD_NOTFOUND && o != NULL && o->capacity_bytes != 0) {
        rc = plan_make(o, &plan);
        if (rc != SHD_OK)
            return rc;
        memset(&object, 0, sizeof(object));
        snprintf(object.name, sizeof(object.name), "%s", name);
        object.kind = SHD_OBJECT_DICT;
        object.size_bytes = o->capacity_bytes;
        object.extent_bytes = plan.bytes;
        object.guards = plan.shards;
        rc = catalogue_create(env, &object, initialize, &plan);
        if (rc == SHD_EXISTS)
            rc = SHD_OK;
    }
    if (rc != SHD_OK)
        return rc;
    if (object.kind != SHD_OBJECT_DICT)
        return error_set(SHD_MISMATCH, "'%s' exists and is no dict", name);
    if (o != NULL && o->capacity_bytes != 0 &&
        o->capacity_bytes != object.size_bytes)
        return error_set(SHD_MISMATCH,
                         "dict '%s' exists with a capacity of %llu bytes, "
                         "not %llu",
                         name, (unsigned long long)object.size_bytes,
                         (unsigned long long)o->capacity_bytes);
    rc = dict_view(env, &object, out);
    *again = rc == SHD_CORRUPT && has_moved_on(env, name, object.generation);
    return rc;
}

int dict_open(const struct guard_env *env, const char *name,
              const struct shd_dict_options *o, struct dict *out)
{
    bool again = true;
    int rc = SHD_CORRUPT;

    for (int i = 0; i < OPEN_ROUNDS && again; i++)
        rc = open_once(env, name, o, out, &again);
    return rc;
}

int dict_abandon(const struct dict *d, uint32_t shard)
{
    struct shard *s = &d->shard[shard];

    for (int i = 0; i < 2; i++) {
        uint32_t ref = atomic_load32(&s->pending[i]);
        struct cell *c = cell_at(&d->pages, ref, sizeof(*c));
        struct txn t;

        if (ref == 0)
            continue;
        if (c == NULL)
            return error_set(SHD_CORRUPT,
                             "dict '%s': what was being built "
                             "leads outside",
                             d->name);
        txn_begin(&t, d->env->segment, dict_guard(d, shard), 3);
        txn_store32(&t, &c->word[CHAIN_GARBAGE], atomic_load32(&s->garbage));
        txn_store32(&t, &s->garbage, ref);
        txn_store32(&t, &s->pending[i], 0);
        txn_commit(&t);
    }
    return SHD_OK;
}

int dict_gone_error(const struct dict *d)
{
    return error_set(SHD_GONE, "dict '%s' has been destroyed", d->name);
}

int dict_damaged(const struct dict *d, const char *what)
{
    return error_set(SHD_CORRUPT, "dict '%s': %s", d->name, what);
}

int dict_lock(const struct dict *d, uint32_t shard)
{
    struct guard *g = dict_guard(d, shard);
    int rc = guard_lock(d->env, g);

    if (rc != SHD_OK)
        return rc;
    if (dict_gone(d, shard))
        rc = dict_gone_error(d);
    else
        rc = dict_abandon(d, shard);
    if (rc != SHD_OK)
        guard_unlock(g);
    return rc;
}

void dict_unlock(const struct dict *d, uint32_t shard)
{
    guard_unlock(dict_guard(d, shard));
}

uint64_t dict_value_max_of(uint64_t pages, size_t key_len)
{
    uint64_t inline_max = SLAB_CELL_MAX - sizeof(struct entry);
    uint64_t chain_max = pages == 0 ? 0 : (pages - 1) * CHAIN_DATA_MAX;
    uint64_t max;

    if (entry_is_long((uint32_t)key_len))
        max = chain_max > pad8(key_len) ? chain_max - pad8(key_len) : 0;
    else if (chain_max > inline_max - pad8(key_len))
        max = chain_max;
    else
        max = inline_max - pad8(key_len);
    return max > UINT32_MAX ? UINT32_MAX : max;
}

uint64_t dict_value_max(const struct dict *d, size_t key_len)
{
    return dict_value_max_of(d->pages.count, key_len);
}

int dict_info(const struct dict *d, struct shd_dict_info *info)
{
    uint64_t cells = 0;

    info->shards = d->shards;
    info->generation = d->generation;
    info->capacity_bytes = d->capacity_bytes;
    info->index_bytes = d->index_bytes;
    info->pages = d->pages.count;
    info->pages_free = pages_free(&d->pages);
    info->pages_committed = atomic_load64(d->pages.committed);
    info->roots = (uint64_t)d->shards << d->root_bits;
    info->entries = 0;
    info->evictions = 0;
    info->expirations = 0;
    info->moves = 0;
    info->recoveries = 0;
    info->lock_waits = 0;
    for (uint32_t i = 0; i < d->shards; i++) {
        const struct shard *s = &d->shard[i];
        const struct guard *g = dict_guard(d, i);

        cells += atomic_load64(&s->slab.bytes);
        info->entries += atomic_load64(&s->entries);
        info->evictions += atomic_load64(&s->evictions);
        info->expirations += atomic_load64(&s->expirations);
        info->moves += atomic_load64(&s->moves);
        info->recoveries += atomic_load64(&g->recoveries);
        info->lock_waits += atomic_load64(&g->waits);
        /* Else what has been summed up may be another object's bytes. */
        if (dict_gone(d, i))
            return dict_gone_error(d);
    }
    info->cells_bytes = cells;
    info->free_bytes = info->pages * PAGE_BYTES > cells
                           ? info->pages * PAGE_BYTES - cells
                           : 0;
    info->value_max_bytes = dict_value_max(d, 1);
    memcpy(info->name, d->name, sizeof(info->name));
    return SHD_OK;
}

uint64_t dict_fingerprint(void)
{
    const uint64_t sizes[] = {sizeof(struct guard),
                              sizeof(struct catalogue_object),
                              sizeof(struct dict_header),
                              sizeof(struct shard),
                              sizeof(struct page),
                              sizeof(struct slab),
                              sizeof(struct entry),
                              CELL_VERSIONED,
                              ENTRY_KEY_INLINE,
                              SLAB_CLASSES,
                              CHAIN_NUMBER,
                              BYTES_PER_ROOT};
    uint64_t h = 0;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        h = (h ^ sizes[i]) * 0x100000001b3ull;
    return h;
}
