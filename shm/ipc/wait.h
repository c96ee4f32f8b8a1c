/* SPDX-License-Identifier: BSD-2-Clause */
/* ipc/wait.h - sleeping until something is done under a guard.
 *
 * A place is a futex word and a word that says whether anybody may be asleep
 * (struct guard_wait, in memory that is never anything else).
 *
 *   to sleep, with the guard: look; nothing there: wait_arm; let go of the
 *     guard; wait_sleep; begin again
 *   to wake, with the guard: commit; wait_post; let go of the guard; wait_wake
 *
 * HOLDS  who armed before a change was committed is woken by whoever made it,
 *        or finds the turn changed before it falls asleep.
 * LOCK   arm and post: with the guard that what is waited for is done under.
 *        Sleep and wake: without.
 * CRASH  a death between commit and wake, or of one that was woken, leaves
 *        sleepers: reap kicks every place (guard_kick), and a sleeper comes
 *        back after WAIT_SLICE_MS by itself.
 * COST   nobody asleep: one load for the waker.
 */
#ifndef SHD_IPC_WAIT_H
#define SHD_IPC_WAIT_H

#include "shm/guard/guard.h"

#define WAIT_SLICE_MS 250u
#define WAIT_NEVER UINT64_MAX /* no deadline */
#define WAIT_ALL UINT32_MAX

/* Who would sleep looks first, after 1, 2, 4 ... so many pauses of the
 * processor: some microseconds, less than falling asleep and being woken
 * take. */
#define WAIT_LOOK_PAUSES 64u

/* A deadline for wait_ms (shdict.h, WAITING), as of clock_now_ms(). SHD_INVAL:
 * it is under -1. */
int wait_deadline(int64_t wait_ms, uint64_t *until_ms);

/* A deadline that begins with the first question for it: who need not wait need
 * not read the clock. */
struct wait_end {
    int64_t wait_ms;
    uint64_t until_ms; /* once it has been asked for */
    bool asked;
};

/* SHD_INVAL: as wait_deadline. */
static inline int wait_begin(struct wait_end *e, int64_t wait_ms)
{
    e->wait_ms = wait_ms;
    e->until_ms = 0;
    e->asked = wait_ms == 0;
    return wait_ms >= SHD_FOREVER ? SHD_OK
                                  : wait_deadline(wait_ms, &e->until_ms);
}

static inline uint64_t wait_until(struct wait_end *e)
{
    if (!e->asked)
        (void)wait_deadline(e->wait_ms, &e->until_ms);
    e->asked = true;
    return e->until_ms;
}

/* Looks so long whether a transaction has ended under the guard since its
 * counter was seq. */
void wait_look(const struct guard *g, uint64_t seq);

/* Somebody is going to sleep: gives the turn to sleep in. */
uint32_t wait_arm(struct guard_wait *w);

/* Sleeps until the turn is another one, clock_now_ms() >= until_ms, or a slice
 * is over: which of them it was is for the caller to look at. */
void wait_sleep(struct guard_wait *w, uint32_t turn, uint64_t until_ms);

/* Something has been committed: 0 if nobody may be asleep, else what wait_wake
 * wants. */
uint32_t wait_post(struct guard_wait *w);

/* Wakes at most `count` sleepers (WAIT_ALL: all). */
void wait_wake(struct guard_wait *w, uint32_t posted, uint32_t count);

#endif
