/* SPDX-License-Identifier: BSD-2-Clause */
/* guard/read.h - the optimistic read section: reading without the lock.
 *
 * HOLDS  what was loaded between read_begin and a read_valid that says yes is
 *        one state, between two transactions of the guard.
 * LOCK   none, and nothing shared is written.
 * CRASH  a reader that dies leaves no trace; one that meets a dead writer's
 *        odd counter takes the lock instead, which recovers.
 * COST   two loads of one line.
 *
 * Whatever is loaded in between may be torn: it is copied by atomic words,
 * every offset and length is checked before it is followed, every walk is
 * bounded, and nothing leaves before read_valid.
 */
#ifndef SHD_GUARD_READ_H
#define SHD_GUARD_READ_H

#include "shm/guard/guard.h"

/* Tries before a reader takes the lock: a transaction lasts about as long as
 * a few of them. */
#define READ_TRIES 16

/* False while a transaction is open: pause, and try again. */
static inline bool read_begin(const struct guard *g, uint64_t *seq)
{
    *seq = atomic_load64_acquire(&g->seq);
    return (*seq & 1) == 0;
}

static inline bool read_valid(const struct guard *g, uint64_t seq)
{
    atomic_fence_acquire();
    return atomic_load64(&g->seq) == seq;
}

#endif
