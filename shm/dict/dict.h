/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/dict.h - one dict: its extent, its shards, how a process sees it.
 *
 * OWNS   the extent of an object of kind SHD_OBJECT_DICT:
 *          header    256 bytes
 *          shards    512 each
 *          roots     4 each, as many as the dict was made with
 *          page map  a bit a page      } of as many pages as the dict may
 *          table     64 a page         } ever have (memory/pages.h)
 *          pages     4096 each, from the next multiple of 4096 on
 *          arrays    of roots, of all other lengths (dict/index.h)
 *        The extent is address room for the largest capacity; memory is taken
 *        for the pages in use, their bits and their descriptors, and for one
 *        array of roots: for two while one takes the place of the other.
 * HOLDS  an entry is in the tree of its hash's root, in its shard's LRU list,
 *        in a cell of a page of its shard, and nowhere else.
 * LOCK   shard i is guarded by guard guards_first + i of the catalogue's
 *        object; its `object` word holds the dict's generation.
 *        The header's second half: dict/resize.h.
 * CRASH  the header's first half is constant once the catalogue shows the
 *        dict.
 *
 * A key's place is the upper `order_bits` of its hash: its order. From the
 * top: the shard, then so many bits as the fewest roots there may be need,
 * then 24 that are stored with the entry. The index has a grain: a root holds
 * the keys whose orders agree in all but their last `grain` bits, and its tree
 * is in order of the 24. So walking roots and trees in order walks the keys in
 * the order of (order, key), whatever the grain is.
 */
#ifndef SHD_DICT_DICT_H
#define SHD_DICT_DICT_H

#include "shm/guard/reading.h"
#include "shm/memory/catalogue.h"
#include "shm/memory/list.h"

#define DICT_CAPACITY_MIN 8192u
#define DICT_SHARDS_MAX 256u
#define GRAIN_MAX 24u
#define GRAINS 64u /* PAGES_TAG_NONE included */

struct dict_header {
    uint64_t generation;         /*  0 the catalogue's, for checking */
    uint64_t capacity_max_bytes; /*  8 that room is reserved for */
    uint32_t shards;             /* 16 a power of two */
    uint32_t order_bits;         /* 20 */
    uint32_t pages_max;          /* 24 */
    uint32_t grain_first;        /* 28 of the array of roots at roots_at */
    uint64_t shards_at;          /* 32 byte offsets in the segment */
    uint64_t map_at;             /* 40 */
    uint64_t table_at;           /* 48 */
    uint64_t roots_at;           /* 56 */
    uint64_t pages_at;           /* 64 */
    uint64_t arrays_at;          /* 72 */
    uint32_t grain_min;          /* 80 the finest there is an array for */
    uint32_t reserved;           /* 84 */
    uint64_t entries_hint;       /* 88 as asked for: of a dict of */
    uint64_t capacity_first;     /* 96 this capacity */
    uint8_t pad1[24];            /* 104 */
    /* Changed by resizing; committed also whenever memory is needed, by
     * compare-and-swap. The tag is the index's (dict/index.h): */
    struct pages_bounds bounds; /* 128 */
    uint64_t capacity_bytes;    /* 152 as asked for */
    uint64_t resizes;           /* 160 changes of the limit so far */
    uint64_t unsettled;         /* 168 1: a resize has been begun and is not
                                       finished */
    uint64_t grain;             /* 176 the index's, for that capacity */
    uint64_t arrays;            /* 184 bits: grains whose arrays may have
                                       memory */
    uint64_t soonest;           /* 192 nothing expires before; a hint */
    uint8_t pad3[56];           /* 200 */
};
static_assert(sizeof(struct dict_header) == 256, "layout");
static_assert(offsetof(struct dict_header, bounds) == 128, "layout");
static_assert(offsetof(struct dict_header, unsettled) == 168, "layout");

/* The head of a shard. All of it changes in the shard's transactions. */
struct shard {
    struct list lru;      /*  0 first: last stored anew, or changed if there is
                                an order (dict_has_order); last: next to go */
    uint64_t entries;     /*  8 */
    uint32_t pending[2];  /* 16 chains that are being built by the lock's
                                holder: of an entry, of a list's element;
                                left by a dead one, they are garbage */
    uint32_t garbage;     /* 24 cells unlinked and not yet freed, linked by
                                word 3; an entry brings its list or chain */
    uint32_t tail_stamp;  /* 28 when the LRU tail's page was last written to,
                                s; a hint for other shards */
    uint64_t evictions;   /* 32 */
    uint64_t expirations; /* 40 */
    uint64_t moves;       /* 48 cells moved */
    uint64_t shuffles;    /* 56 entries that left their place in the LRU */
    struct slab slab;     /* 64 */
    uint64_t chains;      /* 176 numbers of chains, and of moved cells of
                                chains, given so far: the last one */
    uint32_t leases;      /* 184 tree of leased elements (dict/lease.h) */
    uint32_t n_leases;    /* 188 */
    uint64_t lease_count; /* 192 leases given so far */
    uint32_t vain;        /* 200 second chances in a row that were not taken */
    uint32_t swept;       /* 204 pages looked through for more of those */
    uint64_t helped;      /* 208 the index is changed to this tag << 32 | so
                                 many former roots are known to be empty */
    uint8_t pad[296];     /* 216 */
};
static_assert(sizeof(struct shard) == 512, "layout");
static_assert(offsetof(struct shard, lease_count) == 192, "layout");
static_assert(offsetof(struct shard, pending) % 8 == 0, "layout");
static_assert(offsetof(struct shard, slab) == 64, "layout");

/* This process's view: private memory, constant but for what it has seen of
 * the pages' bounds. */
struct dict {
    const struct guard_env *env;
    struct dict_header *header;
    uint64_t generation;
    uint32_t shards;
    uint32_t shard_bits;
    uint8_t order_bits;
    uint8_t hash_shift;  /* 64 - order_bits */
    uint8_t shard_shift; /* of an order: what is left is the shard */
    uint8_t grain_first;
    uint8_t grain_min;
    struct guard *guards; /* [shards] */
    struct shard *shard;  /* [shards] */
    struct pages pages;
    uint64_t counters; /* address of this process's line (counters.h); 0: it
                          counts nothing */
    char name[64];
    uint32_t *roots[GRAINS]; /* by grain; where there is no array: a root that
                                leads outside */
};

/* Where a key belongs. */
struct place {
    uint64_t order;
    uint32_t shard;
    uint32_t hash;  /* 24 bits */
    uint32_t *root; /* as a look for its path has found it (forest.h) */
};

/* An upper bound of what a process may find in guards of dicts, and of the
 * layout: goes into the segment's fingerprint. */
uint64_t dict_fingerprint(void);

/* Opens the dict of that name, or makes it as o says, see shd_dict_open. */
int dict_open(const struct guard_env *env, const char *name,
              const struct shd_dict_options *o, struct dict *out);

/* A view of an object of the catalogue. SHD_CORRUPT: the header does not
 * fit the object. */
int dict_view(const struct guard_env *env, const struct catalogue_object *o,
              struct dict *out);

/* The same for repair: the bounds of the pages may be anything. */
int dict_view_unbounded(const struct guard_env *env,
                        const struct catalogue_object *o, struct dict *d);

/* The capacity of an object of kind SHD_OBJECT_DICT; SHD_CORRUPT. */
int dict_capacity_of(const struct guard_env *env,
                     const struct catalogue_object *o, uint64_t *bytes);

static inline uint64_t dict_capacity(const struct dict *d)
{
    return atomic_load64(&d->header->capacity_bytes);
}

/* The grain of the index of a dict of that capacity. */
uint32_t dict_grain_of(const struct dict *d, uint64_t capacity_bytes);

/* What to make a dict with so that it gets the same index; 0: nothing. */
uint64_t dict_entries_hint(const struct dict *d);

/* What of the capacity is not in pages, if there are that many. */
uint64_t dict_index_bytes(const struct dict *d, uint64_t pages,
                          uint32_t grain);

/* The pages of a dict of that capacity; 0: it is too small for its index. Not
 * more than pages.max. */
uint32_t dict_pages_of(const struct dict *d, uint64_t capacity_bytes,
                       uint32_t grain);

struct place dict_place(const struct dict *d, const void *key, size_t len);

static inline struct guard *dict_guard(const struct dict *d, uint32_t shard)
{
    return &d->guards[shard];
}

/* The byte of marks of the entry at ref, and *bit, its bit; NULL if ref leads
 * outside. A hit sets it, making room clears it. Marks are hints: they are
 * stored beside transactions, under the shard's lock, so that what else is in
 * the byte stays as it is. */
static inline uint8_t *dict_mark(const struct dict *d, uint32_t ref,
                                 uint8_t *bit)
{
    uint64_t at = (uint64_t)ref * SEGMENT_UNIT;
    uint32_t page = pages_number(&d->pages, at);
    uint32_t part = (uint32_t)((at - d->pages.at) % PAGE_BYTES / 32);

    *bit = (uint8_t)(1u << part % 8);
    return page == PAGE_NONE ? NULL : &d->pages.table[page].marks[part / 8];
}

static inline bool dict_is_marked(const struct dict *d, uint32_t ref)
{
    uint8_t bit;
    const uint8_t *byte = dict_mark(d, ref, &bit);

    return byte != NULL && (atomic_load8(byte) & bit) != 0;
}

/* With the shard's lock. Stores only what changes. */
static inline void dict_set_mark(const struct dict *d, uint32_t ref,
                                 bool marked)
{
    uint8_t bit;
    uint8_t *byte = dict_mark(d, ref, &bit);

    if (byte != NULL && ((atomic_load8(byte) & bit) != 0) != marked)
        atomic_store8(byte, atomic_load8(byte) ^ bit);
}

/* Is there one order of all entries, that of their last stores, to be kept?
 * Among several shards there is none that anybody could see: there a change
 * where the entry is marks it, and leaves the list, three other entries' lines
 * and the shard's head, as they are. */
static inline bool dict_has_order(const struct dict *d)
{
    return d->shards == 1;
}

/* Beside the mark: has it had a second chance since it was stored? The same
 * kind of hint, in the next bit, which is no other cell's: a cell has as many
 * bits as it has whole 32 bytes, and one more if it begins between two. So
 * each second one of the smallest has none (NULL). */
static inline uint8_t *dict_chance(const struct dict *d, uint32_t ref,
                                   uint8_t *bit)
{
    uint64_t at = (uint64_t)ref * SEGMENT_UNIT;
    uint32_t page = pages_number(&d->pages, at);
    uint32_t inside = (uint32_t)((at - d->pages.at) % PAGE_BYTES);
    uint32_t part = inside / 32 + 1;

    *bit = (uint8_t)(1u << part % 8);
    if (page == PAGE_NONE || part / 8 >= sizeof(d->pages.table->marks) ||
        (inside % 32 == 0 && page_class(&d->pages.table[page]) == 0))
        return NULL;
    return &d->pages.table[page].marks[part / 8];
}
static_assert(SLAB_CELL_MIN >= 32 + SEGMENT_UNIT, "the bits of a cell");

static inline bool dict_had_chance(const struct dict *d, uint32_t ref)
{
    uint8_t bit;
    const uint8_t *byte = dict_chance(d, ref, &bit);

    return byte != NULL && (atomic_load8(byte) & bit) != 0;
}

/* As dict_set_mark. */
static inline void dict_set_chance(const struct dict *d, uint32_t ref,
                                   bool had)
{
    uint8_t bit;
    uint8_t *byte = dict_chance(d, ref, &bit);

    if (byte != NULL && ((atomic_load8(byte) & bit) != 0) != had)
        atomic_store8(byte, atomic_load8(byte) ^ bit);
}

/* The owner word of pages of a shard. */
static inline uint32_t dict_owner(uint32_t shard)
{
    return shard + 1;
}

enum { PENDING_ENTRY = 0, PENDING_ELEMENT = 1 };

/* With the lock: what is being built becomes garbage. */
int dict_abandon(const struct dict *d, uint32_t shard);

/* Has the dict been destroyed? Under the lock or in a read section. */
static inline bool dict_gone(const struct dict *d, uint32_t shard)
{
    return atomic_load64(&dict_guard(d, shard)->object) != d->generation;
}

/* The beginning of what is done under the lock, or of a try of a read section:
 * false if the dict has been destroyed. Then none of its extent is touched,
 * for its memory has been given back: whoever touches it takes memory anew,
 * and gets SIGBUS if the system has none. */
static inline bool dict_enter(const struct dict *d, uint32_t shard)
{
    if (dict_gone(d, shard))
        return false;
    pages_follow(&d->pages);
    return true;
}

int dict_gone_error(const struct dict *d);

/* SHD_CORRUPT, and says what of the dict is damaged. */
int dict_damaged(const struct dict *d, const char *what);

/* Takes the shard's lock for a change, and puts what a dead holder was
 * building onto the garbage. SHD_GONE: the dict was destroyed. */
static inline int dict_lock(const struct dict *d, uint32_t shard);
static inline void dict_unlock(const struct dict *d, uint32_t shard);

/* The largest value that a key of key_len bytes can have. */
uint64_t dict_value_max(const struct dict *d, size_t key_len);

/* The same if it had so many pages. */
uint64_t dict_value_max_of(uint64_t pages, size_t key_len);
/* Commits all of the dict's memory, and maps it into this process, in steps
 * that hold a lock each for some 0.1 ms. SHD_NOMEM: the system has not so
 * much; what it had stays the dict's. */
int dict_prefault(const struct dict *d);

int dict_info(const struct dict *d, struct shd_dict_info *info);

/* As shd_shard_info. */
int dict_shard_info(const struct dict *d, uint32_t shard,
                    struct shd_shard_info *info);

/* ---- how -------------------------------------------------------------- */

/* With the lock: the rest of dict_lock. */
int dict_lock_rest(const struct dict *d, uint32_t shard);

static inline __attribute__((always_inline)) int
dict_lock(const struct dict *d, uint32_t shard)
{
    int rc = guard_lock(d->env, dict_guard(d, shard));

    if (rc != SHD_OK)
        return rc;
    /* Both pending words in one look: they lie side by side. */
    if (dict_enter(d, shard) &&
        atomic_load64((const uint64_t *)(const void *)d->shard[shard]
                          .pending) == 0)
        return SHD_OK;
    return dict_lock_rest(d, shard);
}

static inline void dict_unlock(const struct dict *d, uint32_t shard)
{
    guard_unlock(dict_guard(d, shard));
}

#endif
