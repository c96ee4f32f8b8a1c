/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/dict/dict.h"
#include "shm/base/error.h"
#include "shm/dict/counters.h"
#include "shm/dict/entry.h"
#include "shm/dict/index.h"

#include <stdio.h>
#include <string.h>

/* One shard up to SHARDS_FROM, with one order of all entries. Then at least so
 * many that two writers seldom meet at one lock; more as there is more to put
 * in order. */
#define SHARDS_FROM (4ull << 20)
#define SHARDS_SOME 8u
#define SHARD_BYTES (2ull << 20)
/* Address room that is reserved unless it is said how much. */
#define RESERVE_TIMES 16u
#define RESERVE_MIN (64ull << 20)
/* Below that a page for more roots is worse than trees that are deeper. */
#define INDEX_FROM 65536u
#define PREFAULT_PAGES 512u /* in one hold of a lock */
/* Each but the last needs a dict destroyed between being found and looked
 * into. */
#define OPEN_ROUNDS 16

/* Where the parts of an extent lie, relative to its start. */
struct plan {
    uint32_t shards;
    uint32_t bits; /* log2 of the roots */
    uint64_t entries;
    struct index_shape shape;
    uint32_t pages, pages_max;
    uint64_t shards_at, map_at, table_at, roots_at, pages_at, arrays_at;
    uint64_t capacity, capacity_max; /* multiples of 4096 */
    uint64_t bytes;
    bool fixed; /* the index: there is no room for another one */
};

static uint32_t log2_floor(uint64_t n)
{
    return 63u - (uint32_t)__builtin_clzll(n | 1);
}

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/* Memory of everything before the pages: what of the map and the table is not
 * needed for that many pages has none. Relative to the extent's start. */
static uint64_t index_bytes_of(uint64_t map_at, uint64_t table_at,
                               uint64_t pages)
{
    uint64_t map_end = round_up(map_at + pages_map_bytes(pages), PAGE_BYTES);
    uint64_t table_first = table_at / PAGE_BYTES * PAGE_BYTES;
    uint64_t table_end =
        round_up(table_at + pages_table_bytes(pages), PAGE_BYTES);

    return table_first <= map_end ? table_end
                                  : map_end + table_end - table_first;
}

/* As many pages as fit into the capacity, which is at most SEGMENT_SIZE_MAX,
 * beside their index. */
static uint64_t fitting_pages(uint64_t map_at, uint64_t table_at,
                              uint64_t capacity)
{
    uint64_t pages = capacity / PAGE_BYTES;

    while (pages > 0) {
        uint64_t bytes =
            index_bytes_of(map_at, table_at, pages) + pages * PAGE_BYTES;
        uint64_t over;

        if (bytes <= capacity)
            break;
        over = (bytes - capacity + PAGE_BYTES - 1) / PAGE_BYTES;
        /* Without those pages the index is smaller as well. */
        over -= over / (PAGE_BYTES / sizeof(struct page));
        pages -= over < pages ? over : pages;
    }
    while (index_bytes_of(map_at, table_at, pages + 1) +
               (pages + 1) * PAGE_BYTES <=
           capacity)
        pages++;
    return pages;
}

static void plan_lay_out(struct plan *p, uint64_t pages)
{
    p->shards_at = sizeof(struct dict_header);
    p->roots_at = p->shards_at + (uint64_t)p->shards * sizeof(struct shard);
    p->map_at = round_up(p->roots_at + (4ull << p->bits), 8);
    p->table_at = p->map_at + pages_map_bytes(pages);
    p->table_at = round_up(p->table_at, SEGMENT_UNIT);
    p->pages_at = round_up(p->table_at + pages_table_bytes(pages), PAGE_BYTES);
}

/* How far an extent of that many pages is over the capacity, in pages. */
static uint64_t plan_over(struct plan *p, uint64_t pages, uint64_t capacity)
{
    uint64_t bytes;

    plan_lay_out(p, pages);
    bytes = p->pages_at + pages * PAGE_BYTES;
    return bytes <= capacity
               ? 0
               : (bytes - capacity + PAGE_BYTES - 1) / PAGE_BYTES;
}

/* Room for as many pages as make up that capacity, beside their table. False:
 * nothing is left for a page. */
static bool plan_reserve(struct plan *p, uint64_t capacity_max)
{
    uint64_t pages = capacity_max / PAGE_BYTES;
    uint64_t over;

    p->capacity_max = capacity_max;
    while ((over = plan_over(p, pages, capacity_max)) > 0) {
        if (over >= pages)
            return false;
        pages -= over;
    }
    /* With fewer pages their table has become smaller as well. */
    while (plan_over(p, pages + 1, capacity_max) == 0)
        pages++;
    plan_lay_out(p, pages);
    p->pages_max = (uint32_t)pages;
    p->arrays_at = p->pages_at + pages * PAGE_BYTES;
    p->shape = index_shape(log2_floor(p->shards), p->bits,
                           index_bits(p->entries, p->capacity,
                                      log2_floor(p->shards), capacity_max),
                           p->fixed);
    p->bytes = p->arrays_at + index_arrays_bytes(&p->shape);
    pages = fitting_pages(p->map_at, p->table_at, p->capacity);
    p->pages = (uint32_t)(pages < p->pages_max ? pages : p->pages_max);
    return p->pages > 0;
}

/* How much to reserve if nobody has said so: plenty, but no more than leaves
 * room for hundreds of such dicts, and for a few of the largest. `room` is
 * what the segment has left. */
static uint64_t reserve_default(uint64_t capacity, uint64_t room)
{
    uint64_t most = 2 * capacity < room / 4 ? 2 * capacity : room / 4;
    uint64_t wanted = RESERVE_TIMES * capacity;

    if (most < room / 64)
        most = room / 64;
    if (wanted < RESERVE_MIN)
        wanted = RESERVE_MIN;
    if (wanted > most)
        wanted = most / PAGE_BYTES * PAGE_BYTES;
    return wanted > capacity ? wanted : capacity;
}

/* The bits of a map for 64 MiB can cost a small dict one of its few pages:
 * then it is content with room for 16 times its size, or with none. */
static bool plan_reserve_default(struct plan *p, uint64_t room)
{
    uint64_t wanted = reserve_default(p->capacity, room);
    uint64_t less = RESERVE_TIMES * p->capacity;
    uint32_t pages;

    if (wanted <= less)
        return plan_reserve(p, wanted) || plan_reserve(p, p->capacity);
    if (!plan_reserve(p, less))
        return plan_reserve(p, p->capacity);
    pages = p->pages;
    if (plan_reserve(p, wanted) && p->pages >= pages)
        return true;
    return plan_reserve(p, less);
}

static int reserve_check(const struct shd_dict_options *o)
{
    if (o->capacity_max_bytes == 0 ||
        (o->capacity_max_bytes >= o->capacity_bytes &&
         o->capacity_max_bytes <= SEGMENT_SIZE_MAX))
        return SHD_OK;
    return error_set(SHD_INVAL,
                     "capacity_max_bytes of %llu: it must be at least "
                     "capacity_bytes (%llu), and at most 64 GiB",
                     (unsigned long long)o->capacity_max_bytes,
                     (unsigned long long)o->capacity_bytes);
}

/* Shards, roots, and where the parts lie. `room`: see reserve_default. */
static int plan_make(const struct shd_dict_options *o, uint64_t room,
                     struct plan *p)
{
    uint64_t capacity = round_up(o->capacity_bytes, PAGE_BYTES);
    uint64_t largest = o->capacity_max_bytes > capacity
                           ? round_up(o->capacity_max_bytes, PAGE_BYTES)
                           : capacity;
    int rc = reserve_check(o);

    if (rc != SHD_OK)
        return rc;
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

        p->shards = capacity < SHARDS_FROM ? 1
                    : n < SHARDS_SOME      ? SHARDS_SOME
                    : n > DICT_SHARDS_MAX  ? DICT_SHARDS_MAX
                                           : 1u << log2_floor(n);
    }
    p->entries = o->entries_hint;
    if (p->entries > largest / SLAB_CELL_MIN)
        p->entries = largest / SLAB_CELL_MIN;
    p->bits =
        index_bits(p->entries, capacity, log2_floor(p->shards), capacity);
    p->capacity = capacity;
    if (o->capacity_max_bytes != 0 ? plan_reserve(p, largest)
                                   : plan_reserve_default(p, room))
        return SHD_OK;
    return error_set(SHD_INVAL,
                     "capacity of %llu bytes is too small for %u shards and "
                     "%llu roots",
                     (unsigned long long)o->capacity_bytes, p->shards,
                     1ull << p->bits);
}

static int initialize(const struct guard_env *env,
                      const struct catalogue_object *o, void *context)
{
    const struct plan *p = context;
    struct dict_header *h;
    struct dict d;
    int rc = segment_commit(env->segment, o->extent_at,
                            p->map_at + pages_map_bytes(p->pages));

    if (rc == SHD_OK)
        rc = segment_commit(env->segment, o->extent_at + p->table_at,
                            pages_table_bytes(p->pages));

    if (rc != SHD_OK)
        return rc;
    h = segment_at(env->segment, o->extent_at, sizeof(*h));
    if (h == NULL)
        return error_set(SHD_CORRUPT, "an extent lies outside the segment");
    h->generation = o->generation;
    h->capacity_max_bytes = p->capacity_max;
    h->shards = p->shards;
    h->order_bits = p->shape.order_bits;
    h->pages_max = p->pages_max;
    h->grain_first = p->shape.grain_first;
    h->grain_min = p->shape.grain_min;
    h->entries_hint = p->entries;
    h->capacity_first = p->capacity;
    h->shards_at = o->extent_at + p->shards_at;
    h->map_at = o->extent_at + p->map_at;
    h->table_at = o->extent_at + p->table_at;
    h->roots_at = o->extent_at + p->roots_at;
    h->pages_at = o->extent_at + p->pages_at;
    h->arrays_at = o->extent_at + p->arrays_at;
    h->grain = h->grain_first;
    h->arrays = 1ull << h->grain_first;
    h->bounds.state = index_tag(h->grain_first, h->grain_first, 0);
    h->bounds.limit = p->pages;
    h->bounds.described = p->pages;
    h->capacity_bytes = o->size_bytes;
    rc = dict_view(env, o, &d);
    if (rc == SHD_OK)
        pages_offer(&d.pages, 0, p->pages, 0);
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

/* Each by itself: together they are looked at by dict_check, for they move. */
static bool bounds_sound(const struct dict *d)
{
    const struct dict_header *h = d->header;

    return atomic_load64(&h->bounds.limit) > 0 &&
           atomic_load64(&h->bounds.limit) <= h->pages_max &&
           atomic_load64(&h->bounds.described) <= h->pages_max &&
           pages_committed(&d->pages) <= h->pages_max &&
           index_has(d, atomic_load64(&h->grain)) && index_tag_sound(d);
}

int dict_view(const struct guard_env *env, const struct catalogue_object *o,
              struct dict *d)
{
    int rc = dict_view_unbounded(env, o, d);

    if (rc == SHD_OK && !bounds_sound(d))
        rc = error_set(SHD_CORRUPT, "dict '%s': its header is damaged",
                       o->name);
    return rc;
}

/* What cannot change while there is a dict, copied once: what is checked is
 * what is used. */
static void header_read(const struct dict_header *from, struct dict_header *h)
{
    const uint64_t *word = (const uint64_t *)(const void *)from;
    uint64_t *copy = (uint64_t *)(void *)h;

    memset(h, 0, sizeof(*h));
    for (size_t i = 0; i < offsetof(struct dict_header, bounds) / 8; i++)
        copy[i] = atomic_load64(&word[i]);
}

static bool header_sound(const struct dict_header *h,
                         const struct catalogue_object *o)
{
    return h->generation == o->generation && h->shards > 0 &&
           h->shards <= DICT_SHARDS_MAX &&
           (h->shards & (h->shards - 1)) == 0 && h->shards == o->guards &&
           h->order_bits <= ORDER_BITS_MAX &&
           h->order_bits >= GRAIN_MAX + log2_floor(h->shards) &&
           h->grain_min >= GRAIN_MIN && h->grain_min <= h->grain_first &&
           h->grain_first <= GRAIN_MAX && h->capacity_first >= PAGE_BYTES &&
           h->capacity_first <= SEGMENT_SIZE_MAX &&
           h->entries_hint <= SEGMENT_SIZE_MAX &&
           h->capacity_max_bytes <= SEGMENT_SIZE_MAX &&
           h->pages_at % PAGE_BYTES == 0 && h->table_at % SEGMENT_UNIT == 0;
}

int dict_view_unbounded(const struct guard_env *env,
                        const struct catalogue_object *o, struct dict *d)
{
    const struct segment *s = env->segment;
    struct dict_header *shared = segment_at(s, o->extent_at, sizeof(*shared));
    struct dict_header copy, *const h = &copy;
    struct index_shape shape;
    uint64_t max;
    int rc;

    if (shared != NULL)
        header_read(shared, h);
    if (shared == NULL || !header_sound(h, o))
        return error_set(SHD_CORRUPT, "dict '%s': its header is damaged",
                         o->name);
    memset(d, 0, sizeof(*d));
    d->env = env;
    d->header = shared;
    d->generation = o->generation;
    d->guards = guard_at(s, o->guards_first);
    d->shards = h->shards;
    d->shard_bits = log2_floor(h->shards);
    shape = (struct index_shape){h->order_bits, h->grain_first, h->grain_min};
    rc = index_view(
        d, &shape,
        part(s, o, h->roots_at, index_array_bytes(&shape, shape.grain_first)),
        part(s, o, h->arrays_at, index_arrays_bytes(&shape)));
    d->shard = part(s, o, h->shards_at, d->shards * sizeof(struct shard));
    max = h->pages_max;
    d->pages.segment = s;
    d->pages.max = (uint32_t)max;
    d->pages.at = h->pages_at;
    d->pages.bounds = &shared->bounds;
    d->pages.soonest = &shared->soonest;
    d->pages.map = part(s, o, h->map_at, pages_map_bytes(max));
    d->pages.table = part(s, o, h->table_at, pages_table_bytes(max));
    /* A damaged link must not lead into locks or another object. */
    d->pages.nodes.colour_at = offsetof(struct cell, meta);
    d->pages.nodes.colour_mask = CELL_RED;
    d->pages.nodes.node_bytes = sizeof(struct entry);
    d->pages.nodes.first = h->pages_at;
    d->pages.nodes.end = h->pages_at;
    memcpy(d->name, o->name, sizeof(d->name));
    if (rc != SHD_OK || d->shard == NULL || d->pages.map == NULL ||
        d->pages.table == NULL ||
        part(s, o, h->pages_at, max * PAGE_BYTES) == NULL ||
        d->guards == NULL ||
        guard_at(s, o->guards_first + d->shards - 1) !=
            d->guards + (d->shards - 1))
        return error_set(SHD_CORRUPT, "dict '%s': its parts lie outside it",
                         o->name);
    return SHD_OK;
}

int dict_capacity_of(const struct guard_env *env,
                     const struct catalogue_object *o, uint64_t *bytes)
{
    struct dict d;
    int rc = dict_view(env, o, &d);

    if (rc == SHD_OK)
        *bytes = dict_capacity(&d);
    return rc;
}

/* A part's place in the extent. */
static uint64_t place_of(const struct dict *d, const void *p)
{
    return segment_offset(d->env->segment, p) -
           segment_offset(d->env->segment, d->header);
}

static int64_t extra_bytes(const struct dict *d, uint32_t grain)
{
    const struct index_shape s = {d->order_bits, d->grain_first, d->grain_min};

    return index_extra_bytes(&s, place_of(d, d->roots[d->grain_first]), grain);
}

uint32_t dict_grain_of(const struct dict *d, uint64_t capacity_bytes)
{
    uint32_t bits =
        index_bits(d->header->entries_hint, d->header->capacity_first,
                   d->shard_bits, round_up(capacity_bytes, PAGE_BYTES));
    uint32_t grain = d->order_bits > bits ? d->order_bits - bits : 0;

    if (grain < d->grain_first && capacity_bytes < INDEX_FROM)
        return d->grain_first;
    return grain > GRAIN_MAX      ? GRAIN_MAX
           : grain < d->grain_min ? d->grain_min
                                  : grain;
}

uint64_t dict_entries_hint(const struct dict *d)
{
    uint64_t hint = d->header->entries_hint, first = d->header->capacity_first;

    return hint > first / SLAB_CELL_MIN || first < PAGE_BYTES
               ? hint
               : dict_capacity(d) / PAGE_BYTES * hint / (first / PAGE_BYTES);
}

uint64_t dict_index_bytes(const struct dict *d, uint64_t pages, uint32_t grain)
{
    return index_bytes_of(place_of(d, d->pages.map),
                          place_of(d, d->pages.table), pages) +
           (uint64_t)extra_bytes(d, grain);
}

uint32_t dict_pages_of(const struct dict *d, uint64_t capacity_bytes,
                       uint32_t grain)
{
    int64_t capacity =
        (int64_t)round_up(capacity_bytes, PAGE_BYTES) - extra_bytes(d, grain);
    uint64_t pages;

    if (capacity <= 0)
        return 0;
    pages = fitting_pages(place_of(d, d->pages.map),
                          place_of(d, d->pages.table), (uint64_t)capacity);
    return pages < d->pages.max ? (uint32_t)pages : d->pages.max;
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

/* `room` of address room are left in one piece. */
static int create(const struct guard_env *env, const char *name,
                  const struct shd_dict_options *o, uint64_t room,
                  struct catalogue_object *object)
{
    struct plan plan;
    int rc;

    memset(&plan, 0, sizeof(plan));
    plan.fixed = room == 0;
    rc = plan_make(o, room, &plan);
    if (rc != SHD_OK)
        return rc;
    memset(object, 0, sizeof(*object));
    snprintf(object->name, sizeof(object->name), "%s", name);
    object->kind = SHD_OBJECT_DICT;
    object->size_bytes = o->capacity_bytes;
    object->extent_bytes = plan.bytes;
    object->guards = plan.shards;
    rc = catalogue_create(env, object, initialize, &plan);
    /* Others may have been quicker: without a reservation it may do, or if it
     * is said how much without room for another index. */
    if (rc == SHD_NOMEM && room > 0)
        return create(env, name, o, 0, object);
    return rc;
}

static int open_once(const struct guard_env *env, const char *name,
                     const struct shd_dict_options *o, struct dict *out,
                     bool *again)
{
    struct catalogue_object object;
    uint64_t room;
    int rc = catalogue_find(env, name, &object);

    *again = false;
    if (rc == SHD_NOTFOUND && o != NULL && o->capacity_bytes != 0) {
        rc = catalogue_room(env, &room);
        if (rc == SHD_OK)
            rc = create(env, name, o, room, &object);
        if (rc == SHD_EXISTS)
            rc = SHD_OK;
    }
    if (rc != SHD_OK)
        return rc;
    if (object.kind != SHD_OBJECT_DICT)
        return error_set(SHD_MISMATCH, "'%s' exists and is no dict", name);
    rc = dict_view(env, &object, out);
    if (rc == SHD_OK && o != NULL && o->capacity_bytes != 0 &&
        (o->flags & SHD_DICT_ANY_CAPACITY) == 0 &&
        o->capacity_bytes != dict_capacity(out))
        rc = error_set(SHD_MISMATCH,
                       "dict '%s' exists with a capacity of %llu bytes, not "
                       "%llu (`shdict resize` or shd_dict_resize changes it)",
                       name, (unsigned long long)dict_capacity(out),
                       (unsigned long long)o->capacity_bytes);
    if (rc == SHD_OK)
        counters_open(out);
    *again = (rc == SHD_CORRUPT || rc == SHD_MISMATCH) &&
             has_moved_on(env, name, object.generation);
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

int dict_lock_rest(const struct dict *d, uint32_t shard)
{
    int rc =
        dict_enter(d, shard) ? dict_abandon(d, shard) : dict_gone_error(d);

    if (rc != SHD_OK)
        dict_unlock(d, shard);
    return rc;
}

/* A step under the lock, so that the dict is not destroyed meanwhile: 1, or 0
 * when all is done. */
static int prefault_step(const struct dict *d, uint64_t *page)
{
    uint64_t count;
    int rc = dict_lock(d, 0);

    if (rc != SHD_OK)
        return rc;
    /* The limit changes under this lock only. */
    count = pages_count(&d->pages);
    if (pages_committed(&d->pages) < count) {
        rc = pages_extend(&d->pages);
        rc = rc == SHD_OK ? 1 : rc;
    } else if (*page < count) {
        uint64_t pages = count - *page;

        pages = pages < PREFAULT_PAGES ? pages : PREFAULT_PAGES;
        segment_prefault(d->env->segment, d->pages.at + *page * PAGE_BYTES,
                         pages * PAGE_BYTES);
        *page += pages;
        rc = 1;
    }
    dict_unlock(d, 0);
    return rc;
}

/* As much of the map and of the table as has memory. */
static void prefault_index(const struct dict *d)
{
    const struct segment *s = d->env->segment;
    uint64_t header = segment_offset(s, d->header), count;
    uint64_t map = segment_offset(s, d->pages.map);
    uint32_t grain;

    if (dict_lock(d, 0) != SHD_OK)
        return; /* whoever goes on is told */
    count = pages_count(&d->pages);
    segment_prefault(s, header, map + pages_map_bytes(count) - header);
    segment_prefault(s, segment_offset(s, d->pages.table),
                     pages_table_bytes(count));
    grain = index_grain(index_state(d));
    if (index_has(d, grain))
        segment_prefault(s, segment_offset(s, d->roots[grain]),
                         index_bytes(d, grain));
    dict_unlock(d, 0);
}

int dict_prefault(const struct dict *d)
{
    uint64_t page = 0;
    int rc;

    prefault_index(d);
    do {
        rc = prefault_step(d, &page);
    } while (rc == 1);
    return rc;
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
    return dict_value_max_of(pages_count(&d->pages), key_len);
}

int dict_info(const struct dict *d, struct shd_dict_info *info)
{
    uint64_t cells = 0;
    uint32_t grain;

    if (dict_gone(d, 0))
        return dict_gone_error(d);
    grain = index_grain(atomic_load64(&d->pages.bounds->state));
    info->shards = d->shards;
    info->generation = d->generation;
    info->capacity_bytes = dict_capacity(d);
    info->capacity_max_bytes = d->header->capacity_max_bytes;
    info->resizes = atomic_load64(&d->header->resizes);
    info->resizing = atomic_load64(&d->header->unsettled) != 0;
    info->pages = pages_count(&d->pages);
    info->index_bytes = dict_index_bytes(
        d, info->pages, (uint32_t)atomic_load64(&d->header->grain));
    info->pages_free = pages_free(&d->pages);
    info->pages_committed = pages_committed(&d->pages);
    info->roots = index_has(d, grain) ? index_roots(d, grain) : 0;
    info->entries = 0;
    info->evictions = 0;
    info->expirations = 0;
    info->moves = 0;
    info->recoveries = 0;
    info->lock_waits = 0;
    info->changes = 0;
    info->leases = 0;
    for (uint32_t i = 0; i < d->shards; i++) {
        const struct shard *s = &d->shard[i];
        const struct guard *g = dict_guard(d, i);

        cells += atomic_load64(&s->slab.bytes);
        info->entries += atomic_load64(&s->entries);
        info->changes += atomic_load64(&g->seq) / 2;
        info->leases += atomic_load32(&s->n_leases);
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
    counters_sum(d, &info->hits, &info->misses);
    memcpy(info->name, d->name, sizeof(info->name));
    return SHD_OK;
}

int dict_shard_info(const struct dict *d, uint32_t shard,
                    struct shd_shard_info *info)
{
    const struct shard *s = &d->shard[shard];
    const struct guard *g = dict_guard(d, shard);

    if (dict_gone(d, shard))
        return dict_gone_error(d);
    info->pages = atomic_load32(&s->slab.pages);
    info->entries = atomic_load64(&s->entries);
    info->changes = atomic_load64(&g->seq) / 2;
    info->evictions = atomic_load64(&s->evictions);
    info->lock_waits = atomic_load64(&g->waits);
    info->holder = guard_holder(g);
    return dict_gone(d, shard) ? dict_gone_error(d) : SHD_OK;
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
                              GRAIN_MAX,
                              index_bits(0, 0, 0, 1ull << 30)};
    uint64_t h = 0;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        h = (h ^ sizes[i]) * 0x100000001b3ull;
    return h;
}
