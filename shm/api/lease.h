/* SPDX-License-Identifier: BSD-2-Clause */
/* api/lease.h - which holders of leases are dead: a dict cannot tell.
 *
 * LOCK   each shard's, taken by what is called.
 * CRASH  a lease is given back in one transaction; anybody goes on.
 * COST   a system call for each holder of leases in the shard.
 */
#ifndef SHD_API_LEASE_H
#define SHD_API_LEASE_H

#include "shm/dict/dict.h"

/* Gives back what the dead have on a lease in one shard; and brings this
 * process's own unfinished moves to their end. 1: the caller looks again, for
 * something may have come back. 0: nothing has. */
int lease_look(const struct dict *d, uint32_t shard);

/* The same in all shards of all dicts: for a reap. */
int lease_reap_all(const struct guard_env *env);

#endif
