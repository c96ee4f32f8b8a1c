/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processes that all store into a full dict at once, values of up to an eighth
 * of it: none of their plain stores may fail, though each takes the room that
 * another has just made. What they do when is up to the scheduler.
 */
#include "tests/memory/torture.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 3
#define LARGEST_PART 8

static _Noreturn void store_all_the_time(struct world *w, unsigned which)
{
    size_t most = w->value_max / LARGEST_PART;
    uint64_t stores = 0;

    w->random = w->seed + which;
    w->record += which;
    while (stores % 64 != 0 || real_seconds() < w->until) {
        char key[32];
        int len =
            snprintf(key, sizeof(key), "k%" PRIu64, below(w, w->config->keys));
        uint64_t kind = below(w, 10);
        size_t size = below(w, kind < 5 ? 60 : kind < 8 ? 5000 : most);
        double cpu = cpu_seconds(), started = real_seconds();
        int rc;

        size = size < most ? size : most;
        rc = shd_set(w->dict, key, (size_t)len, w->pool, size, 0);
        w->op = stores;
        started = real_seconds() - started;
        latency_add(w, started, cpu_seconds() - cpu, size);
        if (rc != SHD_OK)
            fail(w, "store %" PRIu64 " of process %u, %zu bytes: %s: %s",
                 stores, which, size, shd_strerror_name(rc), shd_last_error());
        w->record->plain = ++stores;
    }
    _exit(0);
}

static void join(struct record *to, const struct record *from)
{
    to->plain += from->plain;
    if (from->worst_ns.n > to->worst_ns.n)
        to->worst_ns = from->worst_ns;
    if (from->worst_cpu_ns.n > to->worst_cpu_ns.n)
        to->worst_cpu_ns = from->worst_cpu_ns;
}

void beside(struct world *w)
{
    struct record *sum = w->record;
    unsigned failed = 0;
    pid_t child[PROCESSES];

    w->record = mmap(NULL, PROCESSES * sizeof(*sum), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (w->record == MAP_FAILED)
        fail(w, "no memory for the test");
    w->doing = w->mood = "stores beside each other";
    /* A processor that is elsewhere for long is not what is looked for. */
    w->segment->env.wait_ms = 60000;
    fflush(stdout);
    for (unsigned i = 0; i < PROCESSES; i++) {
        child[i] = fork();
        if (child[i] < 0)
            fail(w, "fork failed");
        if (child[i] == 0)
            store_all_the_time(w, i);
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        int status;

        if (waitpid(child[i], &status, 0) != child[i] || status != 0)
            failed++;
    }
    if (failed > 0)
        fail(w, "%u of %d processes failed", failed, PROCESSES);
    for (unsigned i = 0; i < PROCESSES; i++)
        join(sum, &w->record[i]);
    w->record = sum;
    check(w);
}
