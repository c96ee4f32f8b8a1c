/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/guard/reading.h"
#include "shm/base/error.h"
#include "shm/guard/undone.h"

#include <time.h>

#define NAP_NS 100000l
/* A transaction takes microseconds: one that is open after these naps (and is
 * not another one, which undone_enter sees) is stuck. */
#define STUCK_NAPS 100

/* The last transaction that was found stuck: who comes by again, as a walk does
 * for each key, need not wait to believe it. A hint, which threads may race
 * for: undone_enter sees by itself whether anything moves. */
static uint64_t stuck_guard, stuck_seq;

static bool is_known_to_be_stuck(const struct reading *r)
{
    return atomic_load64(&stuck_guard) == (uintptr_t)r->guard &&
           atomic_load64(&stuck_seq) == atomic_load64(&r->guard->seq);
}

/* Reads what was there before the transaction that is open, if that one does
 * not move. */
static bool enter_undone(struct reading *r)
{
    atomic_store64(&stuck_guard, 0);
    atomic_store64(&stuck_seq, atomic_load64(&r->guard->seq));
    r->undone = undone_enter(r->env->segment, r->guard);
    if (r->undone == NULL)
        return false;
    atomic_store64(&stuck_guard, (uintptr_t)r->guard);
    return true;
}

/* A read-only attachment cannot take the lock: it naps between its tries. */
static bool nap(const struct reading *r)
{
    const struct timespec t = {.tv_nsec = NAP_NS};

    if (r->tries - READ_TRIES > r->env->wait_ms * (1000000l / NAP_NS))
        return false;
    /* Cut short by a signal it is a shorter nap, no more. */
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
    return true;
}

static bool attempt(struct reading *r)
{
    r->epoch = atomic_load64_acquire(&undone_epoch);
    return (r->epoch & 1) == 0 && read_begin(r->guard, &r->seq);
}

static bool attempts(struct reading *r)
{
    for (; r->tries <= READ_TRIES; r->tries++) {
        atomic_pause();
        if (attempt(r))
            return true;
    }
    return false;
}

static int lock_or_look_again(struct reading *r)
{
    struct guard_env slice = *r->env;

    do {
        uint32_t left = r->env->wait_ms - r->waited_ms;
        int rc;

        slice.wait_ms = left < GUARD_SLICE_MS ? left : GUARD_SLICE_MS;
        rc = guard_lock(&slice, r->guard);
        r->locked = rc == SHD_OK;
        if (rc != SHD_BUSY)
            return rc;
        r->waited_ms += slice.wait_ms;
        r->tries = 1;
        if (attempts(r))
            return SHD_OK;
    } while (r->waited_ms < r->env->wait_ms);
    return guard_busy(r->guard, r->env->wait_ms);
}

int reading_again(struct reading *r)
{
    if (attempts(r))
        return SHD_OK;
    if (r->env->segment->writable)
        return lock_or_look_again(r);
    if (is_known_to_be_stuck(r) && enter_undone(r))
        return SHD_OK;
    for (; nap(r); r->tries++) {
        if (attempt(r))
            return SHD_OK;
        if (r->tries >= READ_TRIES + STUCK_NAPS && enter_undone(r))
            return SHD_OK;
    }
    return error_set(SHD_BUSY,
                     "the data under a lock never stood still, and its log "
                     "cannot be undone; see `shdict check`");
}

bool reading_leave(struct reading *r)
{
    bool still = true;

    if (r->locked)
        guard_unlock(r->guard);
    else
        still = undone_leave(r->undone);
    r->locked = false;
    r->undone = NULL;
    return still;
}
