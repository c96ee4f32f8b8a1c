/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/walk.h - all keys of a dict, in the order of the forest or of age.
 *
 * LOCK   walk_after: as dict/read.h. walk_keys: each shard's lock for a batch
 *        at a time; on a read-only attachment none, in the forest's order.
 * CRASH  nothing shared is written.
 */
#ifndef SHD_DICT_WALK_H
#define SHD_DICT_WALK_H

#include "shm/dict/entry.h"

/* As shd_scan. */
int walk_after(const struct dict *d, const void *after, size_t after_len,
               bool expired, void *key_buf, size_t key_size, size_t *key_len,
               void *buf, size_t size, struct shd_value *v);

/* As shd_keys_get: `add` is called for each key, 0 or an error that ends the
 * walk. max 0: all. */
int walk_keys(const struct dict *d, uint64_t max,
              int (*add)(void *context, const void *key, size_t len),
              bool (*seen)(void *context, const void *key, size_t len),
              void *context);

#endif
