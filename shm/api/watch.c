/* SPDX-License-Identifier: BSD-2-Clause */
/* shd_watch: worker/watch.c with the reaps it finds due, and the claim to be
 * the segment's supervisor. */
#include "shm/api/handle.h"
#include "shm/base/error.h"
#include "shm/worker/watch.h"

#include "shm/api/gates.h" /* last */

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct shd_watch {
    shd_segment *segment;
    struct watch *watch; /* NULL: a child's, after the fork */
    int claim_fd;        /* -1: no supervisor */
    bool shared;         /* children keep the claim until they exec */
    struct shd_watch *next;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    if (clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        abort();
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- fork --------------------------------------------------------------- */

void handle_watches_after_fork(shd_segment *segment)
{
    for (struct shd_watch *w = segment->watches; w != NULL; w = w->next) {
        if (w->watch != NULL)
            watch_after_fork(w->watch);
        w->watch = NULL; /* its memory stays: no allocator here */
        if (!w->shared && w->claim_fd >= 0) {
            (void)close(w->claim_fd);
            w->claim_fd = -1;
        }
    }
}

/* ---- opening and closing ------------------------------------------------ */

static int refuse_second(shd_segment *segment)
{
    uint64_t who = roster_supervisor(&segment->env);
    uint32_t index = registry_index(who);
    struct registry_slot slot;
    bool dead;

    if (who != 0 && index < segment->segment.workers_max &&
        registry_at(&segment->env, index, &slot, &dead) == SHD_OK &&
        slot.incarnation == who && !dead)
        return error_set(SHD_EXISTS, "process %u supervises the segment",
                         slot.pid);
    return error_set(SHD_EXISTS,
                     "another process supervises the segment, or a child of "
                     "one that is gone has not got to its exec yet");
}

static int claim(shd_segment *segment, struct shd_watch *w)
{
    uint64_t incarnation;
    int rc = shd_worker_join(segment, &incarnation);

    if (rc == SHD_OK)
        rc = segment_supervision_lock(&segment->segment, &w->claim_fd);
    if (rc == SHD_BUSY)
        return refuse_second(segment);
    return rc == SHD_OK ? roster_set_supervisor(&segment->env, incarnation)
                        : rc;
}

static int check_options(const struct shd_watch_options *o)
{
    if (o->struct_size != sizeof(*o))
        return error_set(SHD_INVAL,
                         "options: struct_size is %u, this library's is %zu",
                         o->struct_size, sizeof(*o));
    if ((o->flags & ~(uint32_t)(SHD_WATCH_SUPERVISE |
                                SHD_WATCH_HOLD_IN_CHILDREN)) != 0)
        return error_set(SHD_INVAL, "options: unknown flags 0x%x", o->flags);
    return SHD_OK;
}

static void release(struct shd_watch *w)
{
    if (w->watch != NULL)
        watch_close(w->watch);
    if (w->claim_fd >= 0)
        (void)close(w->claim_fd);
    free(w);
}

static int open_watch(shd_segment *segment,
                      const struct shd_watch_options *o, struct shd_watch *w)
{
    int rc = SHD_OK;

    w->segment = segment;
    w->claim_fd = -1;
    w->shared = (o->flags & SHD_WATCH_HOLD_IN_CHILDREN) != 0;
    if ((o->flags & SHD_WATCH_SUPERVISE) != 0)
        rc = claim(segment, w);
    return rc == SHD_OK ? watch_open(&segment->env, o, &w->watch) : rc;
}

int shd_watch_open(shd_segment *segment, const struct shd_watch_options *o,
                   shd_watch **out)
{
    static const struct shd_watch_options defaults = {
        .struct_size = sizeof(defaults)};
    struct shd_watch *w;
    int rc = handle_writer(segment);

    if (rc == SHD_OK && out == NULL)
        rc = error_set(SHD_INVAL, "out is NULL");
    if (o == NULL)
        o = &defaults;
    if (rc == SHD_OK)
        rc = check_options(o);
    if (rc != SHD_OK)
        return rc;
    w = calloc(1, sizeof(*w));
    if (w == NULL)
        return error_set(SHD_NOMEM, "this process has no memory");
    rc = open_watch(segment, o, w);
    if (rc != SHD_OK) {
        release(w);
        return rc;
    }
    handle_tables_lock();
    w->next = segment->watches;
    segment->watches = w;
    handle_tables_unlock();
    *out = w;
    return SHD_OK;
}

int shd_watch_close(shd_watch *watch)
{
    struct shd_watch **at;

    if (watch == NULL)
        return error_set(SHD_INVAL, "the watch is NULL");
    handle_tables_lock();
    at = &watch->segment->watches;
    while (*at != NULL && *at != watch)
        at = &(*at)->next;
    if (*at == watch)
        *at = watch->next;
    handle_tables_unlock();
    release(watch);
    return SHD_OK;
}

static int usable(const shd_watch *watch)
{
    if (watch == NULL)
        return error_set(SHD_INVAL, "the watch is NULL");
    if (watch->watch == NULL)
        return error_set(SHD_CLOSED, "the watch is the parent's: a child "
                                     "opens its own");
    return handle_reader(watch->segment);
}

int shd_watch_fd(shd_watch *watch)
{
    int rc = usable(watch);

    return rc == SHD_OK ? watch_fd(watch->watch) : rc;
}

/* ---- events ------------------------------------------------------------- */

static uint64_t recoveries(const struct segment *s)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < catalogue_guards(s); i++)
        n += atomic_load64(&guard_at(s, i)->recoveries);
    return n;
}

/* A lock that was not to be had keeps some from being freed: the watch sees
 * that they are still there, and asks again. */
static void reap(shd_segment *segment, struct watch_reaped *r)
{
    uint64_t before = recoveries(&segment->segment);
    int ignored;

    r->began_ns = now_ns();
    ignored = shd_reap(segment, NULL);
    r->ended_ns = now_ns();
    r->recovered = recoveries(&segment->segment) - before;
    (void)ignored;
}

int shd_watch_next(shd_watch *watch, int64_t timeout_ms,
                   struct shd_watch_event *event)
{
    uint64_t end = now_ns() / 1000000 + (uint64_t)timeout_ms;
    struct watch_reaped r;
    bool due;
    int rc = usable(watch);

    if (rc == SHD_OK &&
        (event == NULL || event->struct_size != sizeof(*event)))
        rc = error_set(SHD_INVAL,
                       "event is NULL, or its struct_size is not %zu",
                       sizeof(*event));
    while (rc == SHD_OK && !watch_take(watch->watch, event)) {
        uint64_t now = now_ns() / 1000000;
        int64_t left = timeout_ms < 0 ? -1
                       : now < end    ? (int64_t)(end - now)
                                      : 0;

        rc = watch_wait(watch->watch, left, &due);
        if (rc != SHD_OK)
            return rc;
        if (due)
            reap(watch->segment, &r);
        rc = watch_look(watch->watch, due ? &r : NULL);
    }
    return rc;
}
