/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/model/ipc.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/api/handle.h"
#include "shm/base/clock.h"
#include "tests/model/world.h"

const struct ipc_config IPC_CONFIGS[] = {
    {"queue", ipc_queue, 6},
    {"queue-leases-end", ipc_queue_leases_end, 5},
    {"topic", ipc_topic, 8},
    {"topic-lossless", ipc_topic_lossless, 8},
    {"mailbox", ipc_mailbox, 8},
    {NULL, NULL, 0}};

/* splitmix64 */
static uint64_t next_random(struct ipc *x)
{
    uint64_t z = x->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

uint64_t ipc_below(struct ipc *x, uint64_t n)
{
    return next_random(x) % n;
}

bool ipc_one_in(struct ipc *x, uint64_t n)
{
    return ipc_below(x, n) == 0;
}

void ipc_fail(const struct ipc *x, const char *format, ...)
{
    va_list args;

    printf("    %s, operation %" PRIu64 " (%s): ", x->name, x->op, x->doing);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n    last error: %s\n    again: tests/model/run --only %s --seed "
           "%" PRIu64 " --ops %" PRIu64 "\n",
           shd_last_error(), x->name, x->seed, x->ops_asked);
    fflush(stdout);
    _exit(1);
}

void ipc_expect(const struct ipc *x, int got, int wanted)
{
    if (got != wanted)
        ipc_fail(x, "gave %s, should give %s", shd_strerror_name(got),
                 shd_strerror_name(wanted));
}

void ipc_same(const struct ipc *x, const char *what, uint64_t got,
              uint64_t wanted)
{
    if (got != wanted)
        ipc_fail(x, "%s is %" PRIu64 ", should be %" PRIu64, what, got,
                 wanted);
}

/* ---- workers -------------------------------------------------------------- */

/* Its byte is held by a file description of its own, as another process would
 * hold it. */
static void enlist(struct ipc *x, struct ipc_worker *w)
{
    struct segment holder = x->segment->segment;
    char link[40];
    uint32_t index;

    snprintf(link, sizeof(link), "/proc/self/fd/%d",
             x->segment->segment.fd);
    w->fd = open(link, O_RDWR | O_CLOEXEC);
    if (w->fd < 0)
        ipc_fail(x, "no descriptor");
    x->segment->env.incarnation = 0;
    ipc_expect(x, shd_worker_join(x->segment, &w->incarnation), SHD_OK);
    index = w->incarnation & 0xffff;
    holder.fd = w->fd;
    ipc_expect(x, segment_liveness_unlock(&x->segment->segment, index),
               SHD_OK);
    ipc_expect(x, segment_liveness_lock(&holder, index), SHD_OK);
}

void ipc_switch(struct ipc *x)
{
    x->who = (uint32_t)ipc_below(x, IPC_WORKERS);
    x->segment->env.incarnation = ipc_self(x);
}

uint64_t ipc_self(const struct ipc *x)
{
    return x->worker[x->who].incarnation;
}

bool ipc_lives(const struct ipc *x, uint64_t incarnation)
{
    for (uint32_t i = 0; i < IPC_WORKERS; i++)
        if (x->worker[i].incarnation == incarnation)
            return true;
    return false;
}

uint64_t ipc_death(struct ipc *x)
{
    uint32_t i = (x->who + 1 + (uint32_t)ipc_below(x, IPC_WORKERS - 1)) %
                 IPC_WORKERS;
    uint64_t dead = x->worker[i].incarnation;

    (void)close(x->worker[i].fd);
    enlist(x, &x->worker[i]);
    x->segment->env.incarnation = ipc_self(x);
    x->deaths++;
    return dead;
}

/* ---- the rest -------------------------------------------------------------- */

uint64_t ipc_now(void)
{
    return clock_now_ms();
}

void ipc_advance(struct ipc *x)
{
    static const uint64_t STEPS[] = {1, 3, 10, 30, 100};

    clock_test_advance(1 + ipc_below(x, STEPS[ipc_below(x, 5)]));
}

uint32_t ipc_slice(struct ipc *x, size_t len)
{
    return (uint32_t)ipc_below(x, IPC_POOL - len);
}

size_t ipc_length(struct ipc *x, size_t longest)
{
    uint64_t kind = ipc_below(x, 100);
    size_t most = kind < 60 ? 100 : kind < 95 ? 1000 : longest;

    return (size_t)ipc_below(x, (most < longest ? most : longest) + 1);
}

void ipc_run(const struct ipc_config *c, uint64_t seed, uint64_t ops_asked)
{
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .size_bytes = 16u << 20,
                                    .workers_max = 16,
                                    .objects_max = 4};
    struct ipc *x = calloc(1, sizeof(*x));
    uint64_t ops = ops_asked * c->share / 1000;
    double started = seconds();

    if (x == NULL)
        _exit(1);
    x->name = c->name;
    x->doing = "begin";
    x->seed = x->random = seed;
    x->ops_asked = ops_asked;
    for (size_t i = 0; i < IPC_POOL; i++)
        x->pool[i] = (unsigned char)next_random(x);
    ipc_expect(x, shd_segment_create(NULL, &o, &x->segment), SHD_OK);
    for (uint32_t i = 0; i < IPC_WORKERS; i++)
        enlist(x, &x->worker[i]);
    ipc_switch(x);
    c->run(x, ops);
    printf("  ok   %-16s %8" PRIu64 " operations, %6" PRIu64
           " deaths, %.1f s\n",
           c->name, x->op, x->deaths, seconds() - started);
    fflush(stdout);
    _exit(0);
}
