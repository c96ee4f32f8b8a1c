/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/storm/meter.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Of the calling process: private. */
static int schedstat = -1;
static uint64_t delay_ns, last_end_ns;
static unsigned since_asked;

uint64_t meter_now_ns(void)
{
    struct timespec t;

    if (clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        abort();
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static unsigned bucket_of(uint64_t ns)
{
    unsigned log, i;

    if (ns < 8)
        return (unsigned)ns;
    log = 63 - (unsigned)__builtin_clzll(ns);
    i = (log - 2) * 8 + (unsigned)(ns >> (log - 3) & 7);
    return i < METER_BUCKETS ? i : METER_BUCKETS - 1;
}

static uint64_t bucket_end(unsigned i)
{
    if (i < 8)
        return i;
    return ((uint64_t)(i % 8 + 9) << (i / 8 - 1)) - 1;
}

void histogram_add(struct histogram *h, uint64_t ns)
{
    h->bucket[bucket_of(ns)]++;
    h->count++;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

void histogram_merge(struct histogram *into, const struct histogram *h)
{
    for (unsigned i = 0; i < METER_BUCKETS; i++) {
        into->bucket[i] += h->bucket[i];
        /* Not h->count: a worker may have died between the two. */
        into->count += h->bucket[i];
    }
    if (h->max_ns > into->max_ns)
        into->max_ns = h->max_ns;
}

uint64_t histogram_quantile(const struct histogram *h, double q)
{
    uint64_t below = 0, rank = (uint64_t)((double)h->count * q);

    for (unsigned i = 0; i < METER_BUCKETS; i++) {
        below += h->bucket[i];
        if (below > rank)
            return bucket_end(i) < h->max_ns ? bucket_end(i) : h->max_ns;
    }
    return h->max_ns;
}

static uint64_t ask_delay_ns(void)
{
    char text[100];
    ssize_t n = pread(schedstat, text, sizeof(text) - 1, 0);
    unsigned long long ran, delay;

    since_asked = 0;
    if (n <= 0)
        return 0;
    text[n] = '\0';
    if (sscanf(text, "%llu %llu", &ran, &delay) != 2)
        return 0;
    return delay;
}

int meter_open(void)
{
    if (schedstat >= 0)
        close(schedstat);
    schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    if (schedstat < 0)
        return -1;
    delay_ns = ask_delay_ns();
    last_end_ns = meter_now_ns();
    return 0;
}

void meter_begin(struct meter *m)
{
    uint64_t begin = meter_now_ns();

    if (begin - last_end_ns > METER_LONG_NS || ++since_asked >= METER_BATCH) {
        delay_ns = ask_delay_ns();
        begin = meter_now_ns();
    }
    m->busy_since_ns = begin;
}

void meter_end(struct meter *m, uint32_t kind)
{
    uint64_t end = meter_now_ns();
    uint64_t wall = end - m->busy_since_ns, stall = wall;

    m->busy_since_ns = 0;
    if (wall > METER_LONG_NS) {
        uint64_t delay = ask_delay_ns();

        stall -= delay - delay_ns < wall ? delay - delay_ns : wall;
        delay_ns = delay;
        end = meter_now_ns();
    }
    if (wall > m->wall.max_ns)
        m->worst_wall_kind = kind;
    if (stall > m->stall.max_ns)
        m->worst_stall_kind = kind;
    histogram_add(&m->wall, wall);
    histogram_add(&m->stall, stall);
    last_end_ns = end;
}
