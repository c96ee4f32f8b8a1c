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

static uint64_t ask_delay_ns(struct meter *m)
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
    m->ran_ns = ran;
    m->delay_ns = delay;
    return delay;
}

int meter_open(struct meter *m)
{
    if (schedstat >= 0)
        close(schedstat);
    schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    if (schedstat < 0)
        return -1;
    delay_ns = ask_delay_ns(m);
    last_end_ns = meter_now_ns();
    return 0;
}

void meter_begin(struct meter *m)
{
    uint64_t begin = meter_now_ns();

    if (begin - last_end_ns > METER_LONG_NS || ++since_asked >= METER_BATCH) {
        delay_ns = ask_delay_ns(m);
        begin = meter_now_ns();
    }
    m->busy_since_ns = begin;
}

static void add_episode(struct meter *m, uint64_t begin, uint64_t end,
                        uint64_t stall, uint32_t kind, bool cut)
{
    struct episode *e = &m->episode[m->episodes % METER_EPISODES];

    e->begin_ns = begin;
    e->end_ns = end;
    e->stall_ns = stall;
    e->kind = kind;
    e->cut = cut;
    m->episodes++;
}

void meter_end(struct meter *m, uint32_t kind)
{
    uint64_t end = meter_now_ns(), begin = m->busy_since_ns;
    uint64_t wall = end - begin, stall = wall;

    m->busy_since_ns = 0;
    if (wall > METER_LONG_NS) {
        uint64_t delay = ask_delay_ns(m);

        stall -= delay - delay_ns < wall ? delay - delay_ns : wall;
        delay_ns = delay;
        if (wall > METER_EPISODE_NS)
            add_episode(m, begin, end, stall, kind, false);
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

/* Of another process: its state letter, or '?'. */
static char state_of(int pid)
{
    char path[40], text[300], *end;
    size_t n;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    f = fopen(path, "re");
    if (f == NULL)
        return '?';
    n = fread(text, 1, sizeof(text) - 1, f);
    (void)fclose(f);
    text[n] = '\0';
    end = strrchr(text, ')');
    return end != NULL && end[1] == ' ' ? end[2] : '?';
}

bool meter_is_asleep(int pid)
{
    return state_of(pid) == 'S';
}

static int look_at(int pid, uint64_t *ran_ns, uint64_t *aside_ns)
{
    unsigned long long ran, delay;
    char path[40];
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
    f = fopen(path, "re");
    if (f == NULL)
        return -1;
    int read = fscanf(f, "%llu %llu", &ran, &delay);
    (void)fclose(f);
    *ran_ns = ran;
    *aside_ns = delay;
    return read == 2 ? 0 : -1;
}

void meter_cut(struct meter *m, int pid, uint32_t kind)
{
    uint64_t since = __atomic_load_n(&m->busy_since_ns, __ATOMIC_RELAXED);
    uint64_t now = meter_now_ns(), ran, delay, aside = 0;
    char state;

    if (since == 0 || now < since + METER_EPISODE_NS)
        return;
    state = state_of(pid);
    if (look_at(pid, &ran, &delay) != 0)
        return;
    /* Runnable, and it has not run: the kernel adds the delay up only when it
     * does. Not one that spins. */
    if (state == 'R' && ran >= m->ran_ns && ran - m->ran_ns < now - since)
        aside = now - since - (ran - m->ran_ns);
    else if (state == 'Z' && delay >= m->delay_ns)
        aside = delay - m->delay_ns;
    if (aside > now - since)
        aside = now - since;
    if (aside > 0)
        add_episode(m, since, now, now - since - aside, kind, true);
}

void meter_stopped(struct meter *m, uint64_t since_ns, uint32_t kind)
{
    uint64_t now = meter_now_ns();

    if (now - since_ns > METER_EPISODE_NS)
        add_episode(m, since_ns, now, 0, kind, true);
}

void meter_forget_episodes(struct meter *m)
{
    memset(m->episode, 0, sizeof(m->episode));
    m->episodes = 0;
}

uint64_t meter_explained(const struct meter *const *meters, unsigned count,
                         const struct episode *e)
{
    uint64_t most = 0;

    for (unsigned i = 0; i < count; i++) {
        for (unsigned n = 0; n < METER_EPISODES; n++) {
            const struct episode *o = &meters[i]->episode[n];
            uint64_t from = o->begin_ns > e->begin_ns ? o->begin_ns
                                                      : e->begin_ns;
            uint64_t to = o->end_ns < e->end_ns ? o->end_ns : e->end_ns;
            uint64_t aside = o->end_ns - o->begin_ns - o->stall_ns;

            if (o == e || to <= from)
                continue;
            if (aside > to - from)
                aside = to - from;
            if (aside > most)
                most = aside;
        }
    }
    return most;
}
