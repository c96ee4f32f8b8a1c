/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/check.h - every invariant of one dict.
 * LOCK   none, while a shard stands still for as long as the look at it takes;
 *        else its lock, or on a read-only attachment SHD_BUSY.
 */
#ifndef SHD_DICT_CHECK_H
#define SHD_DICT_CHECK_H

#include "shm/dict/dict.h"

int dict_check(const struct guard_env *env, const struct catalogue_object *o,
               char *report, size_t size);

/* Entries that dict_check has looked at in this process so far, for who shows
 * how far it is. */
uint64_t dict_checked(void);

/* For repair, which has the shard's lock: the shard as a whole; and one entry,
 * wherever it is, or one node of a list, each with all it owns, whose cells
 * are added to *cells. */
int check_shard(const struct dict *d, uint32_t shard, char *report,
                size_t size);
int check_entry(const struct dict *d, uint32_t shard, uint32_t ref,
                uint64_t *cells, char *report, size_t size);
int check_node(const struct dict *d, uint32_t shard, uint32_t ref,
               uint64_t *cells, char *report, size_t size);

/* Without its lock, unless that is needed. */
int check_shard_quiet(const struct dict *d, uint32_t shard, char *report,
                      size_t size);

#endif
