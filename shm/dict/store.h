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

/* expires: absolute, ms; 0 never. */
int store_item(const struct dict *d, uint32_t op, struct item *item,
               uint32_t *forcible);
int store_delete(const struct dict *d, const void *key, size_t len);
int store_incr(const struct dict *d, const void *key, size_t len, double by,
               bool has_init, double init, uint64_t init_expires,
               double *result, uint32_t *forcible);
int store_expire(const struct dict *d, const void *key, size_t len,
                 uint64_t expires);
int store_push(const struct dict *d, bool left, struct item *element,
               const void *key, size_t key_len, uint64_t *length);
int store_pop(const struct dict *d, bool left, const void *key, size_t len,
              void *buf, size_t size, struct shd_value *v);

/* Every entry, in small steps. */
int store_flush_all(const struct dict *d);
int store_flush_expired(const struct dict *d, uint64_t max, uint64_t *freed);

#endif
