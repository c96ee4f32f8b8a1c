/* SPDX-License-Identifier: BSD-2-Clause */
/* api/holds.h - what a worker holds of each object.
 *
 * OWNS   nothing: it looks. Each kind of object has a line in the table of
 *        holds.c that counts; a kind without one counts its locks.
 * LOCK   none.
 */
#ifndef SHD_API_HOLDS_H
#define SHD_API_HOLDS_H

#include "shm/guard/guard.h"

/* As shd_worker_hold. */
int holds_at(const struct guard_env *env, uint64_t incarnation,
             uint32_t index, struct shd_hold *hold);

/* Locks of the segment and of all objects that it is the owner of. */
uint32_t holds_locks(const struct segment *s, uint64_t incarnation);

#endif
