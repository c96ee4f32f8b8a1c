/* SPDX-License-Identifier: BSD-2-Clause */
/* Time stands still but for clock_test_advance(). */
#include "tests/model/world.h"

#include <time.h>

static struct timespec frozen = {.tv_sec = 1000000, .tv_nsec = 500000};

int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __real_clock_gettime(clockid_t id, struct timespec *t);

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    (void)id;
    *t = frozen;
    return 0;
}

double seconds(void)
{
    struct timespec t;

    if (__real_clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        return 0;
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
