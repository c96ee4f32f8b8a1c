/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/base/clock.h"
#include "shm/base/atomic.h"

#include <time.h>

/* Longer than a tick of the coarse clock on any kernel (HZ=100: 10 ms). */
#define TICK_MS 11

static uint64_t test_offset_ms;

static uint64_t read_ms(clockid_t id)
{
    struct timespec t;

    /* Cannot fail: the ids are constants every Linux has. */
    (void)clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t clock_now_ms(void)
{
    return read_ms(CLOCK_MONOTONIC) + atomic_load64(&test_offset_ms) + 1;
}

uint64_t clock_coarse_ms(void)
{
    return read_ms(CLOCK_MONOTONIC_COARSE) + atomic_load64(&test_offset_ms) +
           1;
}

bool clock_is_past(uint64_t deadline_ms)
{
    uint64_t coarse = clock_coarse_ms();

    if (coarse >= deadline_ms)
        return true;
    if (deadline_ms - coarse > TICK_MS)
        return false;
    return clock_now_ms() >= deadline_ms;
}

uint64_t clock_wall_ms(void)
{
    return read_ms(CLOCK_REALTIME) + atomic_load64(&test_offset_ms);
}

uint64_t clock_wall_coarse_ms(void)
{
    return read_ms(CLOCK_REALTIME_COARSE) + atomic_load64(&test_offset_ms);
}

void clock_test_advance(uint64_t ms)
{
    atomic_store64(&test_offset_ms, atomic_load64(&test_offset_ms) + ms);
}
