/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `armed` is the turn to come when it was armed, never 0. It is set with the
 * guard and cleared without it, by a waker that found nobody asleep, if it is
 * still what it was: whoever has armed since then did so in a later turn, and
 * whoever had armed before and is not asleep yet will find the turn changed.
 *
 * With the guard between look and arm, and between commit and post, either the
 * waker sees the arm or the sleeper the change; the futex compares the turn.
 */
#include "shm/ipc/wait.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int wait_deadline(int64_t wait_ms, uint64_t *until_ms)
{
    if (wait_ms < SHD_FOREVER)
        return error_set(SHD_INVAL, "wait_ms is %lld: 0, ms, or SHD_FOREVER",
                         (long long)wait_ms);
    if (wait_ms == SHD_FOREVER)
        *until_ms = WAIT_NEVER;
    else
        *until_ms = wait_ms == 0 ? 0 : clock_now_ms() + (uint64_t)wait_ms;
    return SHD_OK;
}

static uint32_t next_turn(uint32_t turn)
{
    return turn + 1 == 0 ? 1 : turn + 1;
}

void wait_look(const struct guard *g, uint64_t seq)
{
    for (uint32_t n = 1; n <= WAIT_LOOK_PAUSES; n *= 2) {
        uint64_t now = atomic_load64(&g->seq);

        if (now != seq && (now & 1) == 0)
            return;
        for (uint32_t i = 0; i < n; i++)
            atomic_pause();
    }
}

uint32_t wait_arm(struct guard_wait *w)
{
    uint32_t turn = atomic_load32(&w->turn);

    atomic_store32(&w->armed, next_turn(turn));
    atomic_fence_full();
    return turn;
}

void wait_sleep(struct guard_wait *w, uint32_t turn, uint64_t until_ms)
{
    uint64_t now = clock_now_ms();
    uint64_t ms = until_ms > now ? until_ms - now : 0;
    struct timespec t;

    if (ms > WAIT_SLICE_MS)
        ms = WAIT_SLICE_MS;
    if (ms == 0)
        return;
    t.tv_sec = (time_t)(ms / 1000);
    t.tv_nsec = (long)(ms % 1000) * 1000000;
    /* Woken, another turn, a signal, or the time is over: all the same. */
    (void)syscall(SYS_futex, &w->turn, FUTEX_WAIT, turn, &t, NULL, 0);
}

uint32_t wait_post(struct guard_wait *w)
{
    uint32_t armed = atomic_load32(&w->armed);

    if (armed != 0)
        atomic_add32(&w->turn, 1);
    return armed;
}

void wait_wake(struct guard_wait *w, uint32_t posted, uint32_t count)
{
    int n = count > INT_MAX ? INT_MAX : (int)count;

    if (posted == 0)
        return;
    if (syscall(SYS_futex, &w->turn, FUTEX_WAKE, n, NULL, NULL, 0) < n)
        (void)atomic_cas32(&w->armed, posted, 0);
}
