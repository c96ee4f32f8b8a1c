/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/peek.h - looking at an entry, into a list, and at what is leased of
 * lists, without using them.
 *
 * LOCK   as dict/read.h; no mark is written.
 * CRASH  nothing is changed.
 * COST   peek_list: walks from the nearer end to the first element asked for.
 */
#ifndef SHD_DICT_PEEK_H
#define SHD_DICT_PEEK_H

#include "shm/dict/read.h"

/* As shd_entry_info; expired entries too. */
int peek_entry(const struct dict *d, const void *key, size_t len,
               struct shd_entry_info *info);

/* As shd_list_read. */
int peek_list(const struct dict *d, const void *key, size_t len,
              bool expired, uint64_t from, uint32_t max, void *buf,
              size_t size, struct shd_value *values, size_t *at,
              uint32_t *count, uint64_t *length);

/* As shd_lease_next, but for `dead`, which a dict cannot tell. */
int peek_lease(const struct dict *d, struct shd_lease_info *info, void *key,
               size_t size, size_t *len);

#endif
