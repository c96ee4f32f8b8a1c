/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Taking a lock: trylock, a short spin, then timed slices. A slice is the
 * backstop for a wake-up that died with its waiter; between slices the waiter
 * asks whether the owner is dead without the kernel having said so.
 *
 * glibc's lock word is the first int of the mutex: the owner's thread id, the
 * bit FUTEX_WAITERS, and FUTEX_OWNER_DIED once the kernel has cleaned up.
 */
#include "shm/guard/guard.h"
#include "shm/base/error.h"
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

#ifndef __GLIBC__
#error "the layout of a robust mutex's lock word is known for glibc only"
#endif

#define SPINS 64
#define SLICE_NS 30000000l

static uint32_t *lock_word(const struct guard *g)
{
    return (uint32_t *)(uintptr_t)&g->mutex.__data.__lock;
}

struct guard *guard_at(const struct segment *s, uint32_t index)
{
    if (index >= s->locks_max)
        return NULL;
    return segment_at(s, s->guards_at + (uint64_t)index * sizeof(struct guard),
                      sizeof(struct guard));
}

int guard_init(struct guard *g)
{
    pthread_mutexattr_t a;
    int rc = pthread_mutexattr_init(&a);

    if (rc == 0) {
        rc = pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
        if (rc == 0)
            rc = pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
        if (rc == 0)
            rc = pthread_mutex_init(&g->mutex, &a);
        pthread_mutexattr_destroy(&a);
    }
    if (rc != 0)
        return error_set(SHD_UNSUPPORTED,
                         "robust process-shared mutexes: error %d", rc);
    return SHD_OK;
}

/* The caller holds a mutex whose owner died. */
static int recover(const struct guard_env *env, struct guard *g)
{
    int rc = txn_recover(env->segment, g);

    if (rc != SHD_OK)
        atomic_store64(&g->damaged, 1);
    atomic_store64(&g->recoveries, atomic_load64(&g->recoveries) + 1);
    atomic_compiler_barrier();
    if (pthread_mutex_consistent(&g->mutex) != 0)
        return error_set(SHD_CORRUPT, "a lock lost its robustness");
    return SHD_OK;
}

/* After any pthread call that may have given the mutex. */
static int acquired(const struct guard_env *env, struct guard *g, int rc)
{
    if (rc == EOWNERDEAD) {
        rc = recover(env, g);
        if (rc != SHD_OK) {
            (void)pthread_mutex_unlock(&g->mutex);
            return rc;
        }
    } else if (rc != 0) {
        return error_set(SHD_CORRUPT, "a lock is damaged: error %d", rc);
    }
    if (atomic_load64(&g->damaged) != 0 || (atomic_load64(&g->seq) & 1) != 0 ||
        atomic_load64(&g->state) != 0) {
        (void)pthread_mutex_unlock(&g->mutex);
        return error_set(SHD_CORRUPT, "the log of a lock is damaged");
    }
    atomic_store64(&g->owner, env->incarnation);
    return SHD_OK;
}

static bool is_contended(int rc)
{
    return rc == EBUSY || rc == ETIMEDOUT || rc == EAGAIN;
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
 * it. Marks it as the kernel would have. */
static void mark_lost_owner(struct guard *g)
{
    uint32_t word = atomic_load32(lock_word(g));
    uint32_t tid = word & FUTEX_TID_MASK;

    if (tid == 0 || (word & FUTEX_OWNER_DIED) != 0 || !thread_is_gone(tid))
        return;
    if (atomic_cas32(lock_word(g), word,
                     (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED))
        guard_kick(g);
}

#ifdef __SANITIZE_THREAD__
/* The thread sanitizer's runtime (gcc 12) does not know
 * pthread_mutex_clocklock and has to be told. Weak: the same instrumentation
 * is also used with other hooks. */
void __tsan_mutex_pre_lock(void *m, unsigned flags) __attribute__((weak));
void __tsan_mutex_post_lock(void *m, unsigned flags, int recursion)
    __attribute__((weak));

static int tell_sanitizer(struct guard *g, int rc)
{
    if ((rc == 0 || rc == EOWNERDEAD) && __tsan_mutex_pre_lock != NULL &&
        __tsan_mutex_post_lock != NULL) {
        __tsan_mutex_pre_lock(&g->mutex, 0);
        __tsan_mutex_post_lock(&g->mutex, 0, 0);
    }
    return rc;
}
#else
static int tell_sanitizer(struct guard *g, int rc)
{
    (void)g;
    return rc;
}
#endif

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
        rc = pthread_mutex_clocklock(&g->mutex, CLOCK_MONOTONIC, &until);
        if (!is_contended(rc))
            return tell_sanitizer(g, rc);
        mark_lost_owner(g);
        left_ns -= slice;
    }
    return ETIMEDOUT;
}

int guard_lock(const struct guard_env *env, struct guard *g)
{
    int rc = pthread_mutex_trylock(&g->mutex);

    if (!is_contended(rc))
        return acquired(env, g, rc);
    for (int i = 0; i < SPINS && is_contended(rc); i++) {
        atomic_pause();
        if (atomic_load32(lock_word(g)) == 0)
            rc = pthread_mutex_trylock(&g->mutex);
    }
    if (is_contended(rc))
        rc = wait_in_slices(env, g);
    if (is_contended(rc))
        return error_set(SHD_BUSY,
                         "a lock was not free within %u ms (holder: worker "
                         "%llu; see `shdict workers`)",
                         env->wait_ms, (unsigned long long)guard_holder(g));
    rc = acquired(env, g, rc);
    if (rc == SHD_OK)
        atomic_store64(&g->waits, atomic_load64(&g->waits) + 1);
    return rc;
}

int guard_trylock(const struct guard_env *env, struct guard *g)
{
    int rc = pthread_mutex_trylock(&g->mutex);

    if (is_contended(rc))
        return SHD_BUSY;
    return acquired(env, g, rc);
}

void guard_unlock(struct guard *g)
{
    int rc = pthread_mutex_unlock(&g->mutex);

    assert(rc == 0);
    (void)rc;
}

int guard_reap(const struct guard_env *env, struct guard *g)
{
    int rc;

    mark_lost_owner(g);
    if ((atomic_load32(lock_word(g)) & FUTEX_OWNER_DIED) == 0)
        return 0;
    rc = pthread_mutex_trylock(&g->mutex);
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
    (void)syscall(SYS_futex, lock_word(g), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

uint64_t guard_holder(const struct guard *g)
{
    if ((atomic_load32(lock_word(g)) & FUTEX_TID_MASK) == 0)
        return 0;
    return atomic_load64(&g->owner);
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
