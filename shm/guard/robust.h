/* SPDX-License-Identifier: BSD-2-Clause */
/* guard/robust.h - a lock of one word that survives its holder.
 *
 * OWNS   one aligned word of the segment: the holder's thread id |
 *        FUTEX_WAITERS | FUTEX_OWNER_DIED; 0: free. And the place `pending`
 *        of the calling thread's list of robust locks, which libc keeps.
 * HOLDS  no address is ever read from the segment: who overwrites the word
 *        can make the lock free or stuck, and nothing else. (A robust mutex
 *        of libc keeps the links of the thread's list of locks in itself,
 *        and follows them: a stray write there is a write to anywhere.)
 * LOCK   it is one; a thread has at most one at a time.
 * CRASH  from before the word is taken until after it has been let go of it
 *        is the thread's pending one: the kernel looks there at the thread's
 *        end, whatever ends it, sets FUTEX_OWNER_DIED and wakes a waiter.
 *        Where the kernel keeps no lists (emulators) the word goes on naming
 *        a thread that is gone, which guard_lock looks for.
 * COST   one compare-and-swap each way, no system call.
 */
#ifndef SHD_GUARD_ROBUST_H
#define SHD_GUARD_ROBUST_H

#include <stdint.h>
#include <time.h>

/* 0: taken. EOWNERDEAD: taken, and whoever had it has died. EBUSY. EDEADLK: the
 * thread has another one. Or the error number of a process that cannot look
 * after its forks. */
int robust_trylock(uint32_t *word);

/* The same, waiting until that time of CLOCK_MONOTONIC: ETIMEDOUT. */
int robust_wait(uint32_t *word, const struct timespec *until);

/* EPERM: it was not the caller's any more, and is left as it is. */
int robust_unlock(uint32_t *word);

#endif
