/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/entry.h - what lies in an entry's cell, and in a list node's.
 *
 *   entry   0        24                   32
 *           | cell   | expires, key_len   | key | version | flags | value |
 *   node    | cell   | value |
 *
 *   key    the bytes, padded to 8; a key over ENTRY_KEY_INLINE bytes instead
 *          as u32 chain, u32 0, u64 hash, and its bytes open the chain
 *   version  8 bytes, only in a CELL_VERSIONED, see below
 *   flags  8 bytes, only with CELL_FLAGS
 *   value  string: the bytes, or with CELL_CHAINED u32 chain, u32 prefix, and
 *          `prefix` of the bytes, the others are in the chain (under a
 *          long key nothing: the bytes follow the key in its chain);
 *          number, boolean: a double; list: u32 first, u32 last, u32 count,
 *          u32 leased
 *
 * VERSIONS. An entry has no version until somebody asks for it, and then
 * carries one until it is stored anew in another cell, or goes. The version is
 * the number of the transaction that gave it: the shard's sequence counter,
 * which never goes back, also when a transaction is undone. So it costs
 * nothing to keep, no two changes in a shard's life have the same, and "no
 * version" differs from every version that was ever given out: who stores
 * over it in another cell need not know of versions at all. (The other design
 * was a table of counters beside the roots, one for all entries of a root: no
 * bit in the entry and no cell to change at the first asking, but 8 bytes for
 * each root whether asked for or not, one store more in every set, and an
 * entry whose neighbour changed would seem changed.)
 *
 * LOCK   reading: under the lock or in a read section; then every length is
 *        checked against the page's end.
 */
#ifndef SHD_DICT_ENTRY_H
#define SHD_DICT_ENTRY_H

#include "shm/base/clock.h"
#include "shm/dict/dict.h"
#include "shm/memory/chain.h"

#define ENTRY_KEY_MAX 65535u
#define ENTRY_KEY_INLINE 1024u
#define ENTRY_EXPIRES_MASK ((1ull << 48) - 1)

struct entry {
    struct cell cell;     /*  0 */
    uint64_t key_expires; /* 24 expires (ms, 48 bits; 0 never) | key_len<<48 */
};
static_assert(sizeof(struct entry) == 32, "layout");

struct entry_list {
    uint32_t first;  /*  0 node; 0: no element but leased ones */
    uint32_t last;   /*  4 node */
    uint32_t count;  /*  8 with leased, one word */
    uint32_t leased; /* 12 node: the first of those on a lease (lease.h) */
};
static_assert(sizeof(struct entry_list) == 16, "layout");

/* Both words of how many there are: 1 is one element and no leased one. */
static inline uint64_t *entry_list_counts(struct entry_list *l)
{
    return (uint64_t *)(void *)&l->count;
}

struct condition;

/* What is to be stored, and the shape it takes. */
struct item {
    const void *key;
    size_t key_len;
    uint32_t type;
    int32_t flags;
    const void *value;
    uint64_t len;
    double number;
    uint64_t expires; /* absolute, 0: never */
    uint32_t kind;    /* CELL_ENTRY, or CELL_VERSIONED to give it a version */
    uint64_t version; /* that it got when it was stored, if it has one */
    const struct condition *when; /* store.h; NULL: none */
    /* filled by item_shape: */
    uint32_t meta; /* without the hash */
    uint32_t class;
    uint32_t prefix; /* bytes of a chained value before its chain */
    bool has_chain;
    struct chain_source chain;
};

static inline uint32_t pad8(uint64_t n)
{
    return (uint32_t)((n + 7) & ~7ull);
}

static inline uint32_t entry_key_len(uint64_t key_expires)
{
    return (uint32_t)(key_expires >> 48);
}

static inline bool entry_is_long(uint32_t key_len)
{
    return key_len > ENTRY_KEY_INLINE;
}

/* All 64 bits of a long key's hash, behind the word of its chain: what moves
 * the entry need not read the chain. */
static inline uint64_t *entry_long_hash(struct entry *e)
{
    return (uint64_t *)(void *)(e + 1) + 1;
}

/* Byte offset of the value (and the chain word of a short key). */
static inline uint32_t entry_value_at(uint32_t meta, uint32_t key_len)
{
    return (uint32_t)sizeof(struct entry) +
           (entry_is_long(key_len) ? 16u : pad8(key_len)) +
           ((meta & CELL_FLAGS) != 0 ? 8u : 0u) +
           (cell_is_versioned(meta) ? 8u : 0u);
}

/* Byte offset of the version of a versioned one. */
static inline uint32_t entry_version_at(uint32_t meta, uint32_t key_len)
{
    return entry_value_at(meta, key_len) - 8u -
           ((meta & CELL_FLAGS) != 0 ? 8u : 0u);
}

/* The version a transaction gives: never 0. */
static inline uint64_t entry_version_of(const struct txn *t)
{
    return (t->id + 1) / 2;
}

/* Does an entry or a node with that meta own a chain? */
static inline bool entry_has_chain(uint32_t meta, uint32_t key_len)
{
    return (meta & CELL_CHAINED) != 0 || entry_is_long(key_len);
}

/* The chain word of an entry or node that owns one; NULL if out of page. */
uint32_t *entry_chain(const struct pages *p, struct cell *c);

/* Bytes of a chained value that lie in its cell, where the value begins at
 * byte `at`; UINT32_MAX: more than there is. */
uint32_t entry_prefix(const struct pages *p, const struct cell *c,
                      uint32_t at);

/* The list of an entry of type SHD_LIST, or NULL if out of page. */
struct entry_list *entry_list(const struct pages *p, struct cell *c);

/* The entry at ref, or NULL. */
static inline struct entry *entry_at(const struct pages *p, uint32_t ref)
{
    return (struct entry *)(void *)cell_at(p, ref, SLAB_CELL_MIN);
}

static inline bool entry_is_expired(const struct entry *e)
{
    uint64_t expires = atomic_load64(&e->key_expires) & ENTRY_EXPIRES_MASK;

    return expires != 0 && clock_is_past(expires);
}

/* Works out meta, class and chain. SHD_TOOBIG: over the dict's pages. */
int item_shape(const struct dict *d, struct item *item);

/* A value that was to begin in one cell and end in another goes into one, or
 * into a chain of its own. */
void item_unsplit(struct item *item);

/* The same as item_shape for a list node (no key, no flags). */
int item_shape_node(const struct dict *d, struct item *item);

/* Fills a fresh cell for the item, links left 0; chain: its chain's head. */
void entry_fill(const struct dict *d, uint32_t ref, const struct item *item,
                const struct place *place, uint32_t chain);
void node_fill(const struct dict *d, uint32_t ref, const struct item *item,
               uint32_t chain);

/* Orders (hash, key length, key) against an entry: < 0, 0, > 0;
 * ENTRY_CORRUPT. */
#define ENTRY_CORRUPT 1000
static inline int entry_order(const struct dict *d, uint32_t hash,
                              const void *key, size_t len,
                              const struct entry *e);

/* Copies the key out: `len` bytes, which is its length as the caller loaded it
 * once and found room for; in a read section a second load may differ. */
int entry_key(const struct dict *d, const struct entry *e, uint32_t len,
              void *to);

enum {
    ENTRY_PARTIAL = 1, /* a value that does not fit is no error */
    ENTRY_SHORT = 2    /* 1, and nothing is copied, for a long value: see
                          entry_long_value */
};

/* The value of an entry or a node into buf/v; SHD_SPACE, SHD_CORRUPT. */
static inline int entry_value(const struct dict *d, const struct cell *c,
                              void *buf, size_t size, uint32_t how,
                              struct shd_value *v);

/* In a read section: is it a string that fits in size bytes and is longer than
 * what is copied in one go? Then 1, and *c and *v say where and what (see
 * read_long); else 0. SHD_CORRUPT. */
int entry_long_value(const struct dict *d, uint32_t shard,
                     const struct cell *c, size_t size,
                     struct chain_cursor *cursor, struct shd_value *v);

/* The version, 0 if it carries none. */
uint64_t entry_version(const struct dict *d, const struct entry *e);

/* Inside a transaction that changes an entry where it is: another version, if
 * it carries one. One word. SHD_CORRUPT: its place would be past the page. */
int entry_version_renew(const struct dict *d, struct txn *t, struct entry *e);

/* Type, flags, length, number and ttl only. */
int entry_describe(const struct dict *d, const struct cell *c,
                   struct shd_value *v);

/* ---- how -------------------------------------------------------------- */

/* Once hash and length are the same: a long key, which lies in a chain. */
int entry_order_long(const struct dict *d, const void *key, size_t len,
                     const struct entry *e);

static inline int entry_order(const struct dict *d, uint32_t hash,
                              const void *key, size_t len,
                              const struct entry *e)
{
    uint32_t other = atomic_load32(&e->cell.meta) >> CELL_HASH_SHIFT;
    uint32_t key_len;

    if (hash != other)
        return hash < other ? -1 : 1;
    key_len = entry_key_len(atomic_load64(&e->key_expires));
    if (len != key_len)
        return len < key_len ? -1 : 1;
    if (entry_is_long(key_len))
        return entry_order_long(d, key, len, e);
    if (sizeof(*e) + pad8(key_len) > cell_room(&d->pages, e))
        return ENTRY_CORRUPT;
    return -cell_compare(e + 1, key, len);
}

/* Any value, and any fault. */
int entry_value_other(const struct dict *d, const struct cell *c, void *buf,
                      size_t size, uint32_t how, struct shd_value *v);

/* ms left, 0: it never expires. */
int64_t entry_ttl(uint64_t key_expires);

/* What nearly all are: a string or a number that lies in its entry's cell,
 * behind a short key. */
static inline int entry_value(const struct dict *d, const struct cell *c,
                              void *buf, size_t size, uint32_t how,
                              struct shd_value *v)
{
    uint32_t meta = atomic_load32(&c->meta);
    uint64_t key_expires = atomic_load64(
        &((const struct entry *)(const void *)c)->key_expires);
    uint64_t len = atomic_load32(&c->len);
    uint32_t at = (uint32_t)sizeof(struct entry) +
                  pad8(entry_key_len(key_expires));
    uint32_t room = cell_room(&d->pages, c);
    uint32_t type = meta & CELL_TYPE_MASK;
    uint64_t word = 0;

    if ((meta & (CELL_KIND_MASK | CELL_CHAINED | CELL_FLAGS)) != 0 ||
        entry_is_long(entry_key_len(key_expires)))
        return entry_value_other(d, c, buf, size, how, v);
    if (type == SHD_STRING && len <= size && at + len <= room) {
        cell_copy_out(buf, (const unsigned char *)c + at, len);
    } else if (type == SHD_NUMBER && at + 8 <= room) {
        word = atomic_load64((const uint64_t *)(const void *)(
            (const unsigned char *)c + at));
    } else {
        return entry_value_other(d, c, buf, size, how, v);
    }
    v->type = type;
    v->len = len;
    memcpy(&v->number, &word, sizeof(word));
    v->flags = 0;
    v->ttl_ms = (key_expires & ENTRY_EXPIRES_MASK) == 0
                    ? 0
                    : entry_ttl(key_expires);
    return SHD_OK;
}

#endif
