/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Taking a lock: trylock, a short spin, then timed slices. A slice is the
 * backstop for a wake-up that died with its waiter; between slices the waiter
 * asks whether the owner is dead without the kernel having said so.
 */
#include "shm/guard/guard.h"
#include "shm/base/error.h"
#include "shm/guard/robust.h"
#include "shm/guard/txn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Pauses between one look at a taken lock and the next: first 1, 2, 4, 8, for a
 * holder that is about to go elsewhere. Has it come again meanwhile, or does it
 * stay, then a long rest, in which it does a number of calls with all of it
 * near: who looks all the time takes the line from the holder, and the lock as
 * soon as it is free; then two workers take turns, and each waits for all that
 * the other has just written to come over. After the rest the waiter looks all
 * the time, so that it is its turn. */
#define SPIN_FIRST 8u
#define SPIN_REST 64u
#define SPIN_LAST 40u
#define SLICE_NS (GUARD_SLICE_MS * 1000000l)

struct guard *guard_at(const struct segment *s, uint32_t index)
{
    if (index >= s->locks_max)
        return NULL;
    return segment_at(s, s->guards_at + (uint64_t)index * sizeof(struct guard),
                      sizeof(struct guard));
}

/* The caller holds a lock whose owner died. */
static void recover(const struct guard_env *env, struct guard *g)
{
    /* A fence, or a log that was damaged before, stays as it is. */
    int rc = atomic_load64(&g->damaged) != 0 ? SHD_OK
                                             : txn_recover(env->segment, g);

    if (rc != SHD_OK)
        atomic_store64(&g->damaged, 1);
    atomic_store64(&g->recoveries, atomic_load64(&g->recoveries) + 1);
    atomic_compiler_barrier();
}

/* After any call that may have given the lock. */
static int acquired(const struct guard_env *env, struct guard *g, int rc)
{
    if (rc == EOWNERDEAD)
        recover(env, g);
    else if (rc != 0)
        return error_set(SHD_SYS, "a lock cannot be taken: %s", strerror(rc));
    if (!guard_is_at_rest(g)) {
        (void)robust_unlock(&g->lock);
        return error_set(SHD_CORRUPT, "the log of a lock is damaged");
    }
    atomic_store64(&g->owner, env->incarnation);
    return SHD_OK;
}

static bool is_contended(int rc)
{
    return rc == EBUSY || rc == ETIMEDOUT;
}

/* Is that thread of this pid namespace gone, or dead and not yet waited for?
 * A thread id used again by another thread counts as alive: then the wait
 * ends with SHD_BUSY. */
static bool thread_is_gone(uint32_t tid)
{
    char path[40], stat[256];
    ssize_t n;
    int fd;

    if (kill((pid_t)tid, 0) != 0)
        return errno == ESRCH;
    snprintf(path, sizeof(path), "/proc/%u/stat", tid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, stat, sizeof(stat) - 1);
    close(fd);
    if (n <= 0)
        return false;
    stat[n] = '\0';
    /* "tid (name) S": the name may hold anything, also parentheses. */
    const char *state = strrchr(stat, ')');
    return state != NULL && state[1] == ' ' &&
           (state[2] == 'Z' || state[2] == 'X');
}

/* Fact 9: the word names a thread that is gone, and the kernel never marked
 * it. Marks it as the kernel would have; true: it is marked now. */
static bool mark_lost_owner(struct guard *g)
{
    uint32_t word = atomic_load32(&g->lock);
    uint32_t tid = word & FUTEX_TID_MASK;

    if (tid == 0 || (word & FUTEX_OWNER_DIED) != 0 || !thread_is_gone(tid) ||
        !atomic_cas32(&g->lock, word,
                      (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED))
        return false;
    guard_kick(g);
    return true;
}

static int wait_in_slices(const struct guard_env *env, struct guard *g)
{
    struct timespec now, until;
    int64_t left_ns = (int64_t)env->wait_ms * 1000000;

    while (left_ns > 0) {
        long slice = left_ns < SLICE_NS ? (long)left_ns : SLICE_NS;
        int rc;

        if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
            return EINVAL;
        until = now;
        until.tv_nsec += slice;
        if (until.tv_nsec >= 1000000000l) {
            until.tv_nsec -= 1000000000l;
            until.tv_sec++;
        }
        rc = robust_wait(&g->lock, &until);
        if (!is_contended(rc))
            return rc;
        /* This may have been the last slice. */
        if (mark_lost_owner(g)) {
            rc = robust_trylock(&g->lock);
            if (!is_contended(rc))
                return rc;
        }
        left_ns -= slice;
    }
    return ETIMEDOUT;
}

int guard_busy(const struct guard *g, uint32_t waited_ms)
{
    return error_set(SHD_BUSY,
                     "a lock was not free within %u ms (holder: worker "
                     "%llu; see `shdict workers`)",
                     waited_ms, (unsigned long long)guard_holder(g));
}

/* After so many pauses; rc if it still is taken. */
static int look_again(struct guard *g, int rc, uint32_t pauses)
{
    for (uint32_t i = 0; i < pauses; i++)
        atomic_pause();
    return atomic_load32(&g->lock) == 0 ? robust_trylock(&g->lock) : rc;
}

static int spin(struct guard *g, int rc)
{
    uint64_t seq = atomic_load64(&g->seq);

    for (uint32_t n = 1; n <= SPIN_FIRST && is_contended(rc); n *= 2) {
        rc = look_again(g, rc, n);
        /* Another transaction than the one that we have met. */
        if (atomic_load64(&g->seq) - seq > 1)
            break;
    }
    if (is_contended(rc))
        rc = look_again(g, rc, SPIN_REST);
    for (uint32_t n = 0; n < SPIN_LAST && is_contended(rc); n++)
        rc = look_again(g, rc, 1);
    return rc;
}

int guard_lock_by(const struct guard_env *env, struct guard *g, int rc)
{
    if (!is_contended(rc))
        return acquired(env, g, rc);
    rc = spin(g, rc);
    if (is_contended(rc))
        rc = wait_in_slices(env, g);
    if (is_contended(rc))
        return guard_busy(g, env->wait_ms);
    rc = acquired(env, g, rc);
    if (rc == SHD_OK)
        atomic_store64(&g->waits, atomic_load64(&g->waits) + 1);
    return rc;
}

int guard_trylock(const struct guard_env *env, struct guard *g)
{
    int rc = robust_trylock(&g->lock);

    if (is_contended(rc))
        return SHD_BUSY;
    return acquired(env, g, rc);
}

/* ---- repair ----------------------------------------------------------- */

int guard_seize(const struct guard_env *env, struct guard *g, bool *sound)
{
    int rc = robust_trylock(&g->lock);

    if (is_contended(rc))
        rc = wait_in_slices(env, g);
    if (is_contended(rc))
        return error_set(SHD_BUSY,
                         "a lock was not free within %u ms (holder: worker "
                         "%llu; see `shdict workers`)",
                         env->wait_ms, (unsigned long long)guard_holder(g));
    if (rc == EOWNERDEAD)
        recover(env, g);
    else if (rc != 0)
        return error_set(SHD_SYS, "a lock cannot be taken: %s", strerror(rc));
    /* A log that nobody who died has left. */
    if (!guard_is_at_rest(g) && atomic_load64(&g->damaged) == 0 &&
        txn_recover(env->segment, g) != SHD_OK)
        atomic_store64(&g->damaged, 1);
    atomic_store64(&g->owner, env->incarnation);
    *sound = guard_is_at_rest(g);
    return SHD_OK;
}

void guard_fence(struct guard *g)
{
    atomic_store64(&g->damaged, 1);
    atomic_fence_full();
    /* Another odd value: who reads past a writer that is stuck sees it move. */
    atomic_store64(&g->seq, (atomic_load64(&g->seq) | 1) + 2);
    atomic_fence_full();
    atomic_store64(&g->state, 0);
    atomic_compiler_barrier();
}

void guard_mend(struct guard *g, uint64_t seq)
{
    uint64_t next = (atomic_load64(&g->seq) | 1) + 1;

    seq += seq & 1;
    atomic_store64(&g->state, 0);
    atomic_compiler_barrier();
    atomic_store64(&g->damaged, 0);
    atomic_compiler_barrier();
    atomic_store64_release(&g->seq, next > seq ? next : seq);
}

/* ---- looking ---------------------------------------------------------- */

int guard_reap(const struct guard_env *env, struct guard *g)
{
    int rc;

    (void)mark_lost_owner(g);
    if ((atomic_load32(&g->lock) & FUTEX_OWNER_DIED) == 0)
        return 0;
    rc = robust_trylock(&g->lock);
    if (is_contended(rc))
        return 0;
    bool died = rc == EOWNERDEAD;
    rc = acquired(env, g, rc);
    if (rc != SHD_OK)
        return rc;
    guard_unlock(g);
    return died;
}

void guard_kick(struct guard *g)
{
    /* It can fail only for an address outside the mapping. */
    (void)syscall(SYS_futex, &g->lock, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    for (uint32_t i = 0; i < GUARD_WAITS; i++)
        if (atomic_load32(&g->wait[i].armed) != 0)
            guard_wait_kick(&g->wait[i]);
}

void guard_wait_kick(struct guard_wait *w)
{
    atomic_store32(&w->armed, 0);
    /* Who armed before that finds another turn; who arms after it is seen by
     * the next one to wake. */
    atomic_add32(&w->turn, 1);
    (void)syscall(SYS_futex, &w->turn, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

uint64_t guard_holder(const struct guard *g)
{
    if ((atomic_load32(&g->lock) & FUTEX_TID_MASK) == 0)
        return 0;
    return atomic_load64(&g->owner);
}

struct guard_holding guard_held_by(const struct guard *g)
{
    struct guard_holding h = {
        .owner = atomic_load64(&g->owner),
        .seq = atomic_load64(&g->seq),
        .alone = atomic_load64(&g->alone),
        .tid = atomic_load32(&g->lock) & FUTEX_TID_MASK};

    return h;
}

int guard_check(const struct guard *g, char *report, size_t size)
{
    const char *what = NULL;

    if (atomic_load64(&g->damaged) != 0)
        what = "its log was found damaged";
    else if (atomic_load64(&g->state) != 0)
        what = "its log is not empty";
    else if ((atomic_load64(&g->seq) & 1) != 0)
        what = "its sequence counter is odd";
    if (what == NULL)
        return SHD_OK;
    snprintf(report, size, "guard: %s", what);
    return SHD_CORRUPT;
}
