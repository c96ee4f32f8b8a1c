/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which of the two it is, the process's first protected mapping decides; it
 * stays so. Then the key is the process's for good: one that is given back
 * could be handed out again while pages still carry it.
 *
 * With mprotect, `inside` counts the threads that may write. All that a
 * signal handler could meet half done is done with signals blocked: then the
 * mutex is free, and a thread whose `depth` is not 0 can write.
 */
#include "shm/segment/protect.h"
#include "shm/base/atomic.h"
#include "shm/shdict.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define VARIABLE "SHDICT_WRITE_PROTECT"

uint32_t protect_on;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static sigset_t fork_mask; /* of who forks: with the mutex */
static struct protect_mapping *mappings;
static uint32_t how; /* SHD_PROTECT_KEYS, SHD_PROTECT_PAGES; 0: not decided */
static int key;
static uint32_t inside;
static __thread uint32_t depth __attribute__((tls_model("initial-exec")));

static void lock(sigset_t *before)
{
    sigset_t all;
    int rc;

    (void)sigfillset(&all);
    rc = pthread_sigmask(SIG_SETMASK, &all, before);
    if (rc == 0)
        rc = pthread_mutex_lock(&mutex);
    assert(rc == 0);
    (void)rc;
}

static void unlock(const sigset_t *before)
{
    int rc = pthread_mutex_unlock(&mutex);

    if (rc == 0)
        rc = pthread_sigmask(SIG_SETMASK, before, NULL);
    assert(rc == 0);
    (void)rc;
}

/* ---- mappings ----------------------------------------------------------- */

bool protect_wanted(uint32_t flags)
{
    const char *asked = getenv(VARIABLE);

    return (flags & SHD_WRITE_PROTECT) != 0 ||
           (asked != NULL &&
            (strcmp(asked, "1") == 0 || strcmp(asked, "mprotect") == 0));
}

static uint32_t decide(void)
{
    const char *asked = getenv(VARIABLE);

    if (asked != NULL && strcmp(asked, "mprotect") == 0)
        return SHD_PROTECT_PAGES;
    key = pkey_alloc(0, 0);
    return key >= 0 ? SHD_PROTECT_KEYS : SHD_PROTECT_PAGES;
}

/* With the mutex: of all that are protected. */
static void set_pages(int protection)
{
    int saved = errno;

    for (struct protect_mapping *m = mappings; m != NULL; m = m->next) {
        int rc = mprotect(m->base, m->size, protection);

        /* One mapping of ours, as a whole: nothing is split. */
        assert(rc == 0);
        (void)rc;
    }
    errno = saved;
}

void protect_add(struct protect_mapping *m, void *base, uint64_t size)
{
    sigset_t before;
    int saved = errno;

    lock(&before);
    if (how == 0)
        atomic_store32_release(&how, decide());
    if (how == SHD_PROTECT_PAGES ||
        pkey_mprotect(base, size, PROT_READ | PROT_WRITE, key) == 0) {
        m->base = base;
        m->size = size;
        m->next = mappings;
        mappings = m;
        atomic_store32_release(&protect_on, protect_on + 1);
    }
    unlock(&before);
    errno = saved;
}

void protect_remove(struct protect_mapping *m)
{
    struct protect_mapping **at = &mappings;
    sigset_t before;

    if (m->base == NULL)
        return;
    lock(&before);
    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    m->base = NULL;
    atomic_store32_release(&protect_on, protect_on - 1);
    unlock(&before);
}

uint32_t protect_how(const struct protect_mapping *m)
{
    return m->base != NULL ? atomic_load32(&how) : 0;
}

/* ---- calls -------------------------------------------------------------- */

/* With the mutex. */
static void come_in(void)
{
    if (inside++ == 0)
        set_pages(PROT_READ | PROT_WRITE);
}

static void go_out(void)
{
    if (--inside == 0)
        set_pages(PROT_READ);
}

bool protect_enter(void)
{
    sigset_t before;

    if (atomic_load32_acquire(&how) == SHD_PROTECT_KEYS) {
        depth++;
        /* Not depth tells whether it can write: a signal handler cannot. */
        if (pkey_get(key) == 0)
            return false;
        (void)pkey_set(key, 0);
        return true;
    }
    /* Also before it is decided: this call may be the one that does. */
    if (depth > 0) {
        depth++;
        return true;
    }
    lock(&before);
    come_in();
    depth = 1;
    unlock(&before);
    return true;
}

void protect_leave(bool entered)
{
    sigset_t before;

    if (atomic_load32_acquire(&how) == SHD_PROTECT_KEYS) {
        if (entered)
            (void)pkey_set(key, PKEY_DISABLE_WRITE);
        depth--;
        return;
    }
    if (depth > 1) {
        depth--;
        return;
    }
    lock(&before);
    depth = 0;
    go_out();
    unlock(&before);
}

bool protect_is_inside(void)
{
    return depth > 0;
}

uint32_t protect_pause(void)
{
    uint32_t paused = depth;
    sigset_t before;

    if (atomic_load32(&protect_on) == 0 || paused == 0 ||
        atomic_load32_acquire(&how) != SHD_PROTECT_PAGES)
        return 0;
    lock(&before);
    depth = 0;
    go_out();
    unlock(&before);
    return paused;
}

void protect_resume(uint32_t paused)
{
    sigset_t before;

    if (paused == 0)
        return;
    lock(&before);
    come_in();
    depth = paused;
    unlock(&before);
}

/* ---- fork --------------------------------------------------------------- */

void protect_before_fork(void)
{
    sigset_t before;

    lock(&before);
    fork_mask = before;
}

void protect_after_fork(bool child)
{
    sigset_t before = fork_mask;

    if (child && how != SHD_PROTECT_KEYS) {
        /* The other threads are not there any more. */
        uint32_t now = depth > 0 ? 1 : 0;

        if (inside > 0 && now == 0)
            set_pages(PROT_READ);
        inside = now;
    }
    unlock(&before);
}
