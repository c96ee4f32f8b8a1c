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

#endif
