/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/guard/read.h"

#include <errno.h>
#include <time.h>

#define NAP_NS 100000l

bool read_pause(uint32_t *tries, uint32_t wait_ms)
{
    struct timespec nap = {0, NAP_NS};

    if (++*tries <= READ_TRIES) {
        atomic_pause();
        return true;
    }
    /* A signal may cut a nap short: it counts as one all the same. */
    if (*tries - READ_TRIES > wait_ms * (1000000l / NAP_NS))
        return false;
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
    return true;
}
