/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/guard/reading.h"
#include "shm/base/error.h"

#include <time.h>

/* A read-only attachment cannot take the lock: it gives the writers this many
 * rounds of PAUSE_NS more. */
#define PATIENT_TRIES 50u
#define PAUSE_NS 1000000l

void reading_begin(struct reading *r, const struct guard_env *env,
                   struct guard *g)
{
    r->env = env;
    r->guard = g;
    r->seq = 0;
    r->tries = 0;
    r->locked = false;
}

int reading_try(struct reading *r)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    int rc;

    while (r->tries++ < READ_TRIES) {
        if (read_begin(r->guard, &r->seq))
            return SHD_OK;
        atomic_pause();
    }
    if (r->env->segment->writable) {
        rc = guard_lock(r->env, r->guard);
        r->locked = rc == SHD_OK;
        return rc;
    }
    while (r->tries++ < READ_TRIES + PATIENT_TRIES) {
        /* Cut short by a signal it is a shorter pause, no more. */
        (void)nanosleep(&pause, NULL);
        if (read_begin(r->guard, &r->seq))
            return SHD_OK;
    }
    return error_set(SHD_BUSY,
                     "the data under a lock never stood still: its writer "
                     "may be stopped or dead (a worker, or `shdict reap`, "
                     "recovers it)");
}

bool reading_done(struct reading *r)
{
    if (!r->locked)
        return read_valid(r->guard, r->seq);
    guard_unlock(r->guard);
    r->locked = false;
    return true;
}
