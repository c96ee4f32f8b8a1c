/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * At a thread's end the kernel walks the list that set_robust_list() named,
 * and looks at one more lock, `list_op_pending`: the one that the thread was
 * just about to take or to let go of. If that word holds the thread's id it
 * is marked; if it is 0 a waiter is woken, for the one that unlocked may have
 * died before it could. One lock at a time is all we hold, so that place is
 * all we need, and the list with its links in shared memory is not used.
 *
 * libc has registered the list's head, and uses `list_op_pending` itself only
 * inside calls for robust mutexes; none is made while one of ours is held.
 */
#include "shm/guard/robust.h"
#include "shm/base/atomic.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Each but the last needs another's store to the word in between. */
#define TRIES 1000

struct self {
    uint32_t tid; /* 0: not known yet */
    struct robust_list_head *head;
    struct robust_list_head nobodys; /* where the kernel keeps none */
};

/* Reached without a call: two of these are in every store. */
static __thread struct self self __attribute__((tls_model("initial-exec")));

static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_error;

static void forget_self(void)
{
    self.tid = 0;
}

static void look_after_forks(void)
{
    fork_error = pthread_atfork(NULL, NULL, forget_self);
}

static __attribute__((noinline)) int know_self(void)
{
    int rc = pthread_once(&fork_once, look_after_forks);
    size_t len;

    if (rc != 0 || fork_error != 0)
        return rc != 0 ? rc : fork_error;
    if (syscall(SYS_get_robust_list, 0, &self.head, &len) != 0 ||
        self.head == NULL)
        self.head = &self.nobodys;
    self.tid = (uint32_t)syscall(SYS_gettid);
    return 0;
}

/* What the kernel adds futex_offset to. */
static void *pending_of(const uint32_t *word)
{
    return (void *)((uintptr_t)word - (uintptr_t)self.head->futex_offset);
}

static void set_pending(void *p)
{
    atomic_compiler_barrier();
    *(void *volatile *)&self.head->list_op_pending = p;
    atomic_compiler_barrier();
}

/* A word that names this thread, which has no lock, has been overwritten, or
 * its thread was another of that id: as good as dead. */
static bool can_be_had(uint32_t old)
{
    uint32_t tid = old & FUTEX_TID_MASK;

    return tid == 0 || (old & FUTEX_OWNER_DIED) != 0 || tid == self.tid;
}

static int taken(uint32_t old)
{
    return (old & ~FUTEX_WAITERS) == 0 ? 0 : EOWNERDEAD;
}

/* Ready to take it; EBUSY: it is this thread's already; EDEADLK: the thread has
 * another one, which would be lost to the kernel. */
static inline __attribute__((always_inline)) int begin(const uint32_t *word)
{
    int rc = self.tid == 0 ? know_self() : 0;
    const void *pending;

    if (rc != 0)
        return rc;
    pending = self.head->list_op_pending;
    if (pending != NULL)
        return pending == pending_of(word) ? EBUSY : EDEADLK;
    set_pending(pending_of(word));
    return 0;
}

/* Not free just now, and begun. */
static __attribute__((noinline)) int try_taken(uint32_t *word)
{
    uint32_t old = atomic_load32(word);

    if (can_be_had(old) &&
        atomic_cas32(word, old, self.tid | (old & FUTEX_WAITERS)))
        return taken(old);
    set_pending(NULL);
    return EBUSY;
}

int robust_trylock(uint32_t *word)
{
    int rc = begin(word);

    if (rc != 0)
        return rc;
    return atomic_cas32(word, 0, self.tid) ? 0 : try_taken(word);
}

static bool has_passed(const struct timespec *until)
{
    struct timespec now;

    return clock_gettime(CLOCK_MONOTONIC, &now) != 0 ||
           now.tv_sec > until->tv_sec ||
           (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec);
}

int robust_wait(uint32_t *word, const struct timespec *until)
{
    int rc = begin(word);
    uint32_t others = 0; /* that may sleep, for all we know */

    if (rc != 0)
        return rc;
    do {
        uint32_t old = atomic_load32(word);

        if (can_be_had(old)) {
            if (atomic_cas32(word, old,
                             self.tid | (old & FUTEX_WAITERS) | others))
                return taken(old);
            continue;
        }
        if ((old & FUTEX_WAITERS) == 0 &&
            !atomic_cas32(word, old, old | FUTEX_WAITERS))
            continue;
        others = FUTEX_WAITERS;
        /* Whatever it says: the word and the clock say it again. */
        (void)syscall(SYS_futex, word, FUTEX_WAIT_BITSET, old | FUTEX_WAITERS,
                      until, NULL, FUTEX_BITSET_MATCH_ANY);
    } while (!has_passed(until));
    set_pending(NULL);
    return ETIMEDOUT;
}

/* Somebody waits, or it is not ours. */
static __attribute__((noinline)) int unlock_other(uint32_t *word)
{
    int rc = EPERM;

    for (int i = 0; i < TRIES && rc == EPERM; i++) {
        uint32_t old = atomic_load32(word);

        if ((old & ~FUTEX_WAITERS) != self.tid)
            break;
        if (!atomic_cas32(word, old, 0))
            continue;
        rc = 0;
        if ((old & FUTEX_WAITERS) != 0)
            (void)syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    return rc;
}

int robust_unlock(uint32_t *word)
{
    int rc = atomic_cas32(word, self.tid, 0) ? 0 : unlock_other(word);

    set_pending(NULL);
    return rc;
}
