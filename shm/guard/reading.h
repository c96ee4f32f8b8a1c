/* SPDX-License-Identifier: BSD-2-Clause */
/* guard/reading.h - a read section that comes to an end.
 *
 * OWNS   the policy of repeating: READ_TRIES without the lock; then with it,
 *        and READ_TRIES more after each slice of waiting for it, for who keeps
 *        it need not have a transaction open; or on a read-only attachment
 *        with pauses, and if the writer is stuck from a private copy without
 *        what it had begun (guard/undone.h).
 * HOLDS  what the last round loaded is one state of the guard's data.
 * LOCK   the guard's, if it came to that, between try and done.
 * CRASH  as guard/read.h.
 *
 *     reading_begin(&r, env, g);
 *     do {
 *         rc = reading_try(&r);
 *         if (rc != SHD_OK)
 *             return rc;
 *         rc = ... load, with every check, into private memory ...
 *     } while (!reading_done(&r));
 */
#ifndef SHD_GUARD_READING_H
#define SHD_GUARD_READING_H

#include <string.h>

#include "shm/guard/read.h"
#include "shm/guard/undone.h"

struct reading {
    const struct guard_env *env;
    struct guard *guard;
    uint64_t seq;
    uint32_t tries;
    uint32_t waited_ms; /* for the lock, in vain */
    bool locked;
    struct undone *undone; /* not NULL: reading a private copy */
    uint64_t epoch;        /* undone_epoch before the try */
};

static inline void reading_begin(struct reading *r,
                                 const struct guard_env *env, struct guard *g)
{
    r->env = env;
    r->guard = g;
    r->tries = 0;
    r->waited_ms = 0;
    r->locked = false;
    r->undone = NULL;
}

/* Another try than the first. */
int reading_again(struct reading *r);

/* SHD_OK: load now. SHD_BUSY (within wait_ms), SHD_CORRUPT: it will not come
 * to rest. */
static inline int reading_try(struct reading *r)
{
    r->epoch = atomic_load64_acquire(&undone_epoch);
    if (r->tries++ == 0 && (r->epoch & 1) == 0 &&
        read_begin(r->guard, &r->seq))
        return SHD_OK;
    return reading_again(r);
}

/* reading_done, with the lock or from a private copy. */
bool reading_leave(struct reading *r);

/* Was what has been loaded since reading_try one state? */
static inline bool reading_done(struct reading *r)
{
    if (r->locked || r->undone != NULL)
        return reading_leave(r);
    return read_valid(r->guard, r->seq) &&
           atomic_load64(&undone_epoch) == r->epoch;
}

/* Copies len bytes, a multiple of 8, by whole words. Both are aligned. */
static inline void reading_copy(void *to, const void *from, size_t len)
{
    const uint64_t *f = from;

    for (size_t i = 0; i < len / 8; i++) {
        uint64_t word = atomic_load64(&f[i]);

        memcpy((char *)to + i * 8, &word, 8);
    }
}

#endif
