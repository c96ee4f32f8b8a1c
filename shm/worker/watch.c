/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What wakes it:
 *   a pidfd      its worker's process is gone; the kernel has walked its robust
 *                list and let go of its liveness byte before
 *   inotify      a worker has joined: registry_join reads a byte of the file
 *   the timer    the backstop: whom no pidfd could be had for (no descriptor
 *                left, exec instead of exit), and the limits
 *
 * Both limits count the time that passed while this process looked on: at
 * each tick what is unchanged since the last one is so much older, and never
 * more than two ticks. So a machine that stood still (suspended, a frozen
 * cgroup) makes nobody look hung.
 *
 * A lock counts as held on when at each look the same thread has it and the
 * sequence counter is the same, which each change moves. A holder is found by
 * the thread's number among the workers' processes, because the owner word is
 * stored a moment after the lock is taken.
 */
#include "shm/worker/watch.h"
#include "shm/base/error.h"
#include "shm/memory/catalogue.h"
#include "shm/segment/protect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 1000u
#define TICK_MS_LEAST 20u
#define LOOKS 8u     /* within a limit */
#define RETRY_MS 20u /* a reap that could not have a lock */
#define BATCH 64

enum { WAKE_TIMER = 0, WAKE_JOIN = 1, WAKE_WORKER = 2 };

/* A worker as it was seen when it had joined. */
struct seen {
    uint64_t incarnation; /* 0: nobody */
    uint64_t beat_ms;
    uint32_t silent_ms;
    uint32_t pid;
    int32_t worker_id;
    uint32_t generation;
    uint32_t phase;
    int pidfd;
    bool gone; /* its pidfd says so; it is told when its slot is free */
    bool told; /* that it hangs */
    char name[32];
};

struct held {
    struct guard_holding by;
    uint32_t ms;
    bool told;
};

struct watch {
    const struct guard_env *env;
    uint32_t hang_ms, lock_ms, tick_ms;
    int epoll_fd, timer_fd, inotify_fd;
    uint64_t ticked_ms;
    uint64_t reaped_ms;
    bool tick; /* came, and watch_look has not answered yet */
    uint32_t gone;
    uint32_t slots_seen; /* none above has ever been used */
    struct seen *seen;   /* one a slot */
    struct held *held;   /* one a guard */
    struct shd_watch_event *event;
    size_t events, taken, room;
};

static uint64_t now_ms(void)
{
    struct timespec t;

    /* Not base/clock.h's: tests move that one. */
    if (clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        abort();
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- opening and closing ------------------------------------------------ */

static uint32_t tick_of(const struct watch *w)
{
    uint32_t least = TICK_MS * LOOKS;

    if (w->hang_ms != 0 && w->hang_ms < least)
        least = w->hang_ms;
    if (w->lock_ms != 0 && w->lock_ms < least)
        least = w->lock_ms;
    least /= LOOKS;
    return least < TICK_MS_LEAST ? TICK_MS_LEAST : least;
}

static int set_timer(const struct watch *w, uint32_t first_ms)
{
    struct itimerspec t = {
        .it_value = {first_ms / 1000, (long)(first_ms % 1000) * 1000000},
        .it_interval = {w->tick_ms / 1000,
                        (long)(w->tick_ms % 1000) * 1000000}};

    if (timerfd_settime(w->timer_fd, 0, &t, NULL) != 0)
        return error_errno("setting a timer");
    return SHD_OK;
}

static int add(const struct watch *w, int fd, uint64_t what)
{
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = what};

    if (epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0)
        return error_errno("watching a descriptor");
    return SHD_OK;
}

/* Where there is no inotify to be had, joins are seen at the next tick. */
static int open_inotify(struct watch *w)
{
    char path[32];

    w->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (w->inotify_fd < 0)
        return SHD_OK;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", w->env->segment->fd);
    if (inotify_add_watch(w->inotify_fd, path, IN_ACCESS) < 0) {
        (void)close(w->inotify_fd);
        w->inotify_fd = -1;
        return SHD_OK;
    }
    return add(w, w->inotify_fd, WAKE_JOIN);
}

static int open_descriptors(struct watch *w)
{
    int rc;

    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    w->timer_fd =
        timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (w->epoll_fd < 0 || w->timer_fd < 0)
        return error_errno("watching workers");
    rc = add(w, w->timer_fd, WAKE_TIMER);
    if (rc == SHD_OK)
        rc = set_timer(w, w->tick_ms);
    return rc == SHD_OK ? open_inotify(w) : rc;
}

int watch_open(const struct guard_env *env,
               const struct shd_watch_options *o, struct watch **out)
{
    struct watch *w = calloc(1, sizeof(*w));
    int rc;

    if (w == NULL)
        return error_set(SHD_NOMEM, "this process has no memory");
    w->env = env;
    w->epoll_fd = w->timer_fd = w->inotify_fd = -1;
    w->hang_ms = o->hang_ms;
    w->lock_ms = o->lock_ms;
    w->tick_ms = tick_of(w);
    w->ticked_ms = w->reaped_ms = now_ms();
    w->seen = calloc(env->segment->workers_max, sizeof(*w->seen));
    w->held = calloc(env->segment->locks_max, sizeof(*w->held));
    if (w->seen == NULL || w->held == NULL)
        rc = error_set(SHD_NOMEM, "this process has no memory");
    else
        rc = open_descriptors(w);
    /* First the watch for joins, then a look: nobody slips through. */
    if (rc == SHD_OK)
        rc = watch_look(w, NULL);
    if (rc != SHD_OK) {
        watch_close(w);
        return rc;
    }
    *out = w;
    return SHD_OK;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

void watch_after_fork(struct watch *w)
{
    for (uint32_t i = 0; i < w->slots_seen; i++) {
        if (w->seen[i].incarnation != 0)
            close_fd(&w->seen[i].pidfd);
    }
    close_fd(&w->inotify_fd);
    close_fd(&w->timer_fd);
    close_fd(&w->epoll_fd);
}

void watch_close(struct watch *w)
{
    watch_after_fork(w);
    free(w->seen);
    free(w->held);
    free(w->event);
    free(w);
}

int watch_fd(const struct watch *w)
{
    return w->epoll_fd;
}

/* Closing alone is not enough: a child just forked may have it open still. */
static void unwatch(const struct watch *w, struct seen *seen)
{
    if (seen->pidfd >= 0)
        (void)epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, seen->pidfd, NULL);
    close_fd(&seen->pidfd);
}

/* ---- waiting ------------------------------------------------------------ */

/* What there is to read says no more than that it is there. */
static void drain(int fd)
{
    char bytes[4096];

    while (read(fd, bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes))
        ;
}

/* Is the slot still that of the worker that was seen, and its byte free? Who
 * has left is not dead. */
static void note_death(struct watch *w, uint32_t index)
{
    const struct segment *s = w->env->segment;
    struct seen *seen = &w->seen[index];

    if (seen->incarnation == 0 || seen->gone ||
        atomic_load64(&registry_slot_at(s, index)->incarnation) !=
            seen->incarnation ||
        segment_liveness_is_locked(s, index) != 0)
        return;
    seen->gone = true;
    w->gone++;
}

static void woken(struct watch *w, uint64_t what)
{
    if (what == WAKE_TIMER) {
        drain(w->timer_fd);
        w->tick = true;
    } else if (what == WAKE_JOIN) {
        drain(w->inotify_fd);
    } else {
        /* It stays readable: no more of it. */
        unwatch(w, &w->seen[what - WAKE_WORKER]);
        note_death(w, (uint32_t)(what - WAKE_WORKER));
    }
}

int watch_wait(struct watch *w, int64_t timeout_ms, bool *reap)
{
    struct epoll_event event[BATCH];
    int wait = timeout_ms < 0         ? -1
               : timeout_ms > INT32_MAX ? INT32_MAX
                                        : (int)timeout_ms;
    uint32_t paused = protect_pause();
    int n = epoll_wait(w->epoll_fd, event, BATCH, wait);

    protect_resume(paused);
    *reap = false;
    if (n < 0 && errno != EINTR)
        return error_errno("waiting for workers");
    if (n <= 0)
        return SHD_NOTFOUND;
    for (int i = 0; i < n; i++)
        woken(w, event[i].data.u64);
    *reap = w->tick && now_ms() - w->reaped_ms >= TICK_MS;
    for (uint32_t i = 0; *reap && i < w->slots_seen; i++)
        note_death(w, i);
    *reap = *reap || w->gone > 0;
    return SHD_OK;
}

/* ---- telling ------------------------------------------------------------ */

static struct shd_watch_event *new_event(struct watch *w, uint32_t kind)
{
    struct shd_watch_event *e;

    if (w->events == w->room) {
        size_t room = w->room * 2 + 16;
        struct shd_watch_event *more = realloc(w->event, room * sizeof(*more));

        if (more == NULL)
            return NULL;
        w->event = more;
        w->room = room;
    }
    e = &w->event[w->events++];
    memset(e, 0, sizeof(*e));
    e->struct_size = sizeof(*e);
    e->event = kind;
    e->worker_id = -1;
    return e;
}

static struct shd_watch_event *tell(struct watch *w, uint32_t kind,
                                    const struct seen *seen)
{
    struct shd_watch_event *e = new_event(w, kind);

    if (e == NULL)
        return NULL;
    e->incarnation = seen->incarnation;
    e->pid = seen->pid;
    e->worker_id = seen->worker_id;
    e->generation = seen->generation;
    e->phase = seen->phase;
    memcpy(e->name, seen->name, sizeof(e->name));
    return e;
}

static int no_memory(void)
{
    return error_set(SHD_NOMEM, "this process has no memory");
}

bool watch_take(struct watch *w, struct shd_watch_event *e)
{
    if (w->taken == w->events) {
        w->taken = w->events = 0;
        return false;
    }
    *e = w->event[w->taken++];
    return true;
}

/* ---- who is there ------------------------------------------------------- */

/* The slot is another's or nobody's by now. Whoever reaped it has left word
 * there, also of one whose end was not seen here before. */
static int forget(struct watch *w, struct seen *seen,
                  const struct registry_slot *slot,
                  const struct watch_reaped *reaped, bool *told)
{
    bool died = seen->gone || atomic_load64(&slot->died) == seen->incarnation;
    struct shd_watch_event *e =
        tell(w, died ? SHD_WATCH_DIED : SHD_WATCH_LEFT, seen);

    if (e == NULL)
        return no_memory();
    if (died && reaped != NULL) {
        e->at_ns = reaped->ended_ns;
        e->took_ns = reaped->ended_ns - reaped->began_ns;
        e->recovered = *told ? 0 : reaped->recovered;
        *told = true;
    }
    w->gone -= seen->gone;
    unwatch(w, seen);
    memset(seen, 0, sizeof(*seen));
    seen->pidfd = -1;
    return SHD_OK;
}

static int meet(struct watch *w, uint32_t index, uint64_t incarnation)
{
    struct seen *seen = &w->seen[index];
    struct registry_slot slot;
    bool dead;
    int rc = registry_at(w->env, index, &slot, &dead);

    if (rc == SHD_NOTFOUND)
        return SHD_OK;
    if (rc != SHD_OK || slot.incarnation != incarnation)
        return rc == SHD_BUSY ? SHD_OK : rc; /* at the next look */
    seen->incarnation = incarnation;
    seen->pid = slot.pid;
    seen->worker_id = slot.worker_id;
    seen->generation = slot.generation;
    seen->phase = slot.phase;
    memcpy(seen->name, slot.name, sizeof(seen->name));
    /* No pidfd: dead already, of another pid namespace, no descriptor left.
     * Then the ticks find its death. */
    rc = roster_process(w->env, incarnation, &seen->pidfd);
    if (rc == SHD_OK && add(w, seen->pidfd, WAKE_WORKER + index) != SHD_OK)
        close_fd(&seen->pidfd);
    if (index >= w->slots_seen)
        w->slots_seen = index + 1;
    note_death(w, index);
    return tell(w, SHD_WATCH_JOINED, seen) != NULL ? SHD_OK : no_memory();
}

static int look_at_phase(struct watch *w, struct seen *seen, uint32_t phase)
{
    if (seen->incarnation == 0 || seen->phase == phase)
        return SHD_OK;
    seen->phase = phase;
    return tell(w, SHD_WATCH_PHASE, seen) != NULL ? SHD_OK : no_memory();
}

static int look_at_slots(struct watch *w, const struct watch_reaped *reaped)
{
    uint64_t own = atomic_load64(&w->env->incarnation);
    bool told = false;
    int rc = SHD_OK;

    for (uint32_t i = 0; i < w->env->segment->workers_max && rc == SHD_OK;
         i++) {
        const struct registry_slot *slot =
            registry_slot_at(w->env->segment, i);
        uint64_t now = atomic_load64(&slot->incarnation);

        if (now == w->seen[i].incarnation) {
            rc = look_at_phase(w, &w->seen[i], atomic_load32(&slot->phase));
            continue;
        }
        if (w->seen[i].incarnation != 0)
            rc = forget(w, &w->seen[i], slot, reaped, &told);
        if (rc == SHD_OK && now != 0 && now != own)
            rc = meet(w, i, now);
    }
    return rc;
}

/* ---- who hangs ---------------------------------------------------------- */

static int look_at_hearts(struct watch *w, uint32_t passed_ms)
{
    for (uint32_t i = 0; i < w->slots_seen; i++) {
        struct seen *seen = &w->seen[i];
        struct shd_watch_event *e;
        uint64_t beat;

        if (seen->incarnation == 0 || seen->gone)
            continue;
        beat = atomic_load64(
            &registry_slot_at(w->env->segment, i)->heartbeat_ms);
        if (beat == 0 || beat != seen->beat_ms) {
            seen->beat_ms = beat;
            seen->silent_ms = 0;
            seen->told = false;
            continue;
        }
        seen->silent_ms += passed_ms;
        if (seen->told || seen->silent_ms < w->hang_ms)
            continue;
        e = tell(w, SHD_WATCH_HUNG, seen);
        if (e == NULL)
            return no_memory();
        e->for_ms = seen->silent_ms;
        seen->told = true;
    }
    return SHD_OK;
}

static bool has_thread(const struct seen *seen, uint32_t tid)
{
    char path[48];

    if (seen->incarnation == 0 || seen->gone)
        return false;
    snprintf(path, sizeof(path), "/proc/%u/task/%u", seen->pid, tid);
    return access(path, F_OK) == 0;
}

static const struct seen *holder(const struct watch *w,
                                 const struct guard_holding *by)
{
    uint32_t index = registry_index(by->owner);

    if (index < w->slots_seen && has_thread(&w->seen[index], by->tid))
        return &w->seen[index];
    for (uint32_t i = 0; i < w->slots_seen; i++) {
        if (has_thread(&w->seen[i], by->tid))
            return &w->seen[i];
    }
    return NULL;
}

static void name_object(const struct watch *w, const struct guard *g,
                        char name[64])
{
    uint64_t generation = atomic_load64(&g->object);
    struct catalogue_object o;

    for (uint32_t i = 0; generation != 0 && i < w->env->segment->objects_max;
         i++) {
        if (catalogue_at(w->env, i, &o) != SHD_OK ||
            o.generation != generation)
            continue;
        memcpy(name, o.name, sizeof(o.name));
        return;
    }
}

static int tell_held(struct watch *w, const struct guard *g,
                     const struct held *held)
{
    const struct seen *seen = holder(w, &held->by);
    struct shd_watch_event *e;

    /* Of this very process it is nobody else's business. */
    if (seen == NULL && held->by.owner == atomic_load64(&w->env->incarnation))
        return SHD_OK;
    e = seen != NULL ? tell(w, SHD_WATCH_STUCK, seen)
                     : new_event(w, SHD_WATCH_STUCK);
    if (e == NULL)
        return no_memory();
    e->for_ms = held->ms;
    name_object(w, g, e->object);
    return SHD_OK;
}

static int look_at_locks(struct watch *w, uint32_t passed_ms)
{
    uint32_t guards = catalogue_guards(w->env->segment);
    int rc = SHD_OK;

    for (uint32_t i = 0; i < guards && rc == SHD_OK; i++) {
        const struct guard *g = guard_at(w->env->segment, i);
        struct held *held = &w->held[i];
        struct guard_holding by = guard_held_by(g);

        if (by.tid == 0 && held->by.tid == 0)
            continue;
        if (by.tid == 0 || by.tid != held->by.tid ||
            by.owner != held->by.owner || by.seq != held->by.seq ||
            by.alone != held->by.alone) {
            *held = (struct held){.by = by};
            continue;
        }
        held->ms += passed_ms;
        if (held->told || held->ms < w->lock_ms)
            continue;
        held->told = true;
        rc = tell_held(w, g, held);
    }
    return rc;
}

static int answer_tick(struct watch *w)
{
    uint64_t now = now_ms(), passed = now - w->ticked_ms;
    uint32_t counts;
    int rc = SHD_OK;

    w->tick = false;
    w->ticked_ms = now;
    counts = passed < 2ull * w->tick_ms ? (uint32_t)passed : 2 * w->tick_ms;
    if (w->hang_ms != 0)
        rc = look_at_hearts(w, counts);
    if (rc == SHD_OK && w->lock_ms != 0)
        rc = look_at_locks(w, counts);
    return rc;
}

int watch_look(struct watch *w, const struct watch_reaped *reaped)
{
    int rc;

    if (reaped != NULL)
        w->reaped_ms = now_ms();
    rc = look_at_slots(w, reaped);
    if (rc == SHD_OK && w->tick)
        rc = answer_tick(w);
    /* Who is gone and still has a slot kept it from the reap. */
    if (rc == SHD_OK && w->gone > 0)
        rc = set_timer(w, RETRY_MS);
    return rc;
}
