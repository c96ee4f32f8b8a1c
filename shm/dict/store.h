/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/store.h - every change of one key.
 *
 * LOCK   each takes its shard's lock itself; none is held between calls.
 * CRASH  one transaction decides each; what goes before it (building a chain,
 *        making room) changes no other value, and is freed if it is lost.
 * COST   one lock, one transaction; in a full dict the room it needs.
 *
 * Results and errors: as the functions of the same names in shdict.h. The
 * arguments have been checked.
 */
#ifndef SHD_DICT_STORE_H
#define SHD_DICT_STORE_H

#include "shm/dict/entry.h"

/* What a store may depend on: what is there must be this value (flags and
 * expiry do not count), or if it is NULL must have this version. */
struct condition {
    const struct item *value;
    uint64_t version;
};

/* expires: absolute, ms; 0 never. With item->when (SHD_REPLACE only): also
 * SHD_CHANGED; makes no room at the cost of what is there. */
int store_item(const struct dict *d, uint32_t op, struct item *item,
               uint32_t *forcible);

/* The same for what most stores are: SHD_SET of a short string, a number or a
 * boolean, without flags, under a key that is not long. */
#define STORE_PLAIN_MAX 256u
static inline bool store_is_plain(uint32_t op, size_t key_len, uint32_t type,
                                  uint64_t len, int32_t flags)
{
    return (op & 3) == SHD_SET && flags == 0 && key_len <= ENTRY_KEY_INLINE &&
           type != SHD_LIST && len <= STORE_PLAIN_MAX;
}

/* len: 0 of what is no string. */
int store_plain(const struct dict *d, uint32_t op, const void *key,
                size_t key_len, uint32_t type, const void *value, size_t len,
                double number, uint64_t expires, uint32_t *forcible);

int store_delete(const struct dict *d, const void *key, size_t len);

/* Deletes it if the condition holds. SHD_NOTFOUND, SHD_CHANGED. */
int store_delete_if(const struct dict *d, const void *key, size_t len,
                    const struct condition *when);
int store_incr(const struct dict *d, const void *key, size_t len, double by,
               bool has_init, double init, uint64_t init_expires,
               double *result, uint32_t *forcible);
int store_expire(const struct dict *d, const void *key, size_t len,
                 uint64_t expires);

/* STORE_KEEP: the list's expiry stays as it is. */
#define STORE_KEEP UINT64_MAX
int store_push(const struct dict *d, bool left, struct item *element,
               const void *key, size_t key_len, uint64_t expires,
               uint64_t *length);
int store_pop(const struct dict *d, bool left, const void *key, size_t len,
              void *buf, size_t size, struct shd_value *v);

/* lmove.c: as shd_lmove. */
struct lmove {
    const void *from, *to;
    size_t from_len, to_len;
    bool from_left, to_left;
};
int store_lmove(const struct dict *d, const struct lmove *m, void *buf,
                size_t size, struct shd_value *v);

/* take.c: reads and deletes at once; makes it the last to be evicted, and
 * gives it an expiry (or STORE_KEEP). */
int store_take(const struct dict *d, const void *key, size_t len, void *buf,
               size_t size, struct shd_value *v);
int store_touch(const struct dict *d, const void *key, size_t len,
                uint64_t expires);

/* version.c: reads a value with its version, and gives it one if it has none.
 * Takes the lock: for when read_value found none. */
int store_version(const struct dict *d, const void *key, size_t len, void *buf,
                  size_t size, struct shd_value *v, uint64_t *version);

/* append.c: extends a string at either end. `init` NULL: it must be there. */
struct append {
    const void *key;
    size_t key_len;
    const unsigned char *value;
    size_t len;
    const unsigned char *init;
    size_t init_len;
    uint64_t init_expires;
    bool left;
    uint64_t length; /* out */
};
int store_append(const struct dict *d, struct append *p, uint32_t *forcible);

/* Every entry, in small steps. */
int store_flush_all(const struct dict *d);
int store_flush_expired(const struct dict *d, uint64_t max, uint64_t *freed);

#endif
