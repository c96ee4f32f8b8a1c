/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/check.h - every invariant of one dict.
 * LOCK   on a writable attachment each shard in turn, for a moment; else it
 *        reads beside the writers and retries, SHD_BUSY if it never stands
 *        still.
 */
#ifndef SHD_DICT_CHECK_H
#define SHD_DICT_CHECK_H

#include "shm/dict/dict.h"

int dict_check(const struct guard_env *env, const struct catalogue_object *o,
               char *report, size_t size);

#endif
