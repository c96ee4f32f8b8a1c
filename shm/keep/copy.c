/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A try that has been overtaken by a change ends early: copy_still looks each
 * COPY_LOOK entries, so that tries beside a busy writer cost little before the
 * lock is taken. The tries have brought what is copied into the cache and made
 * the buffer large enough, so the lock is held for as little as can be.
 */
#include "shm/keep/copy.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/guard/reading.h"

#include <string.h>
#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int copy_still(struct copy *c)
{
    const struct reading *r = c->reading;

    if (r->locked)
        return now_ns() - c->since_ns > c->hold_ms * 1000000ull ? SHD_BUSY
                                                                : SHD_OK;
    return r->undone != NULL || read_valid(r->guard, r->seq) ? SHD_OK
                                                             : SHD_CHANGED;
}

static int too_long(const struct copy *c, const char *name)
{
    return error_set(SHD_BUSY,
                     "copying a part of '%s' takes longer than %u ms, for "
                     "which its lock may be held: allow more, or save while "
                     "nobody changes it",
                     name, c->hold_ms);
}

int copy_run(struct copy *c, const struct guard_env *env, struct guard *g,
             const char *name,
             int (*part)(struct copy *c, const void *context),
             const void *context)
{
    struct reading r;
    bool locked;
    int rc;

    reading_begin(&r, env, g);
    c->reading = &r;
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        locked = r.locked;
        c->out.used = 0;
        c->part_skipped = 0;
        memset(&c->part, 0, sizeof(c->part));
        c->since_ns = now_ns();
        c->now_ms = clock_now_ms();
        c->seq = locked || r.undone != NULL ? atomic_load64(&g->seq) : r.seq;
        rc = part(c, context);
    } while (!reading_done(&r));
    if (locked && now_ns() - c->since_ns > c->held_ns)
        c->held_ns = now_ns() - c->since_ns;
    if (rc == SHD_BUSY)
        return too_long(c, name);
    if (rc != SHD_OK)
        return rc;
    c->sums.objects += c->part.objects;
    c->sums.entries += c->part.entries;
    c->sums.elements += c->part.elements;
    c->sums.messages += c->part.messages;
    c->sums.events += c->part.events;
    c->skipped += c->part_skipped;
    return SHD_OK;
}
