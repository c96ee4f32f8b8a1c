/* SPDX-License-Identifier: BSD-2-Clause */
/* differential/clock.c - a clock that stands still until it is told to move,
 * and chance that repeats itself.
 *
 * Loaded before libc (LD_PRELOAD) into an nginx that runs the differential
 * test: stock and ours then read the same time, to the millisecond, and an
 * entry expires when the test says so. Nothing waits, and nothing depends on
 * how loaded the machine is. Our segment's hash seed is the same in every run,
 * and so is what is evicted: a failure can be run again.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/random.h>
#include <sys/time.h>
#include <time.h>

void differential_clock_set(uint64_t ms);

/* Of both clocks; the wall clock is START_S ahead. */
static uint64_t now_ms = 1000000;

#define START_S 1700000000

void differential_clock_set(uint64_t ms)
{
    now_ms = ms;
}

int clock_gettime(clockid_t id, struct timespec *t)
{
    t->tv_sec = (time_t)(now_ms / 1000);
    t->tv_nsec = (long)(now_ms % 1000 * 1000000);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)
        t->tv_sec += START_S;
    return 0;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

ssize_t getrandom(void *buf, size_t len, unsigned int flags)
{
    static uint64_t x = 88172645463325252ull;
    unsigned char *out = buf;

    (void)flags;
    for (size_t i = 0; i < len; i++) { /* xorshift64 */
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out[i] = (unsigned char)(x >> 32);
    }
    return (ssize_t)len;
}
