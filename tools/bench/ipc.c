/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shdict-bench-ipc: messages between processes, beside the kernel's ways and
 * boost's, in one run on one machine. Only ratios within a run mean anything.
 *
 *   latency     one message at a time there and back; half of that is one way.
 *               Each of the two has a processor of its own, if there are as
 *               many, and the median of rows of 16 is given, so that what else
 *               the machine does counts little.
 *               busy: the receiver asks again and again; blocking: it sleeps
 *   throughput  as fast as it goes, nothing lost (the topic is lossless). Once
 *               with one message a call, at both ends; once, for those who can,
 *               with up to 64 a call
 *   1:N         each message to all N: the topic once, the others N times
 *   N:1, N:N    N senders; 1 receiver, or N: each message to all of them for
 *               the topic, to one of them for the others, whose own way that
 *               is, so that row says what a delivery costs
 *   locks       one worker that takes and gives it; two, who both want it all
 *               the time
 *
 * A rate counts deliveries. The line of a cache that two processes hand to
 * each other is the floor of all of them. Rows that begin with "shdict" are
 * ours; a ratio is to the best of those in its column.
 */
#include "tools/bench/ipc.h"

#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/base/atomic.h"

struct shared *shared;
shd_segment *segment;

/* ---- processes ------------------------------------------------------------ */

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static _Noreturn void fail(void)
{
    (void)__sync_fetch_and_add(&shared->failed, 1);
    _exit(1);
}

/* A child that says it is ready, and waits for the start. */
static pid_t begin(void)
{
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0)
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

static void line_up(void)
{
    (void)__sync_fetch_and_add(&shared->ready, 1);
    while (atomic_load64(&shared->go) == 0)
        sched_yield();
}

/* Lets the children, who are ready, run for so long, and ends them; *took is
 * how long it was. False: one failed. */
static bool race(const pid_t *pid, uint32_t n, double length, double *took)
{
    struct timespec t = {.tv_sec = (time_t)length,
                         .tv_nsec = (long)((length - (double)(time_t)length) *
                                           1e9)};
    double began;
    bool good;

    while (atomic_load64(&shared->ready) < n &&
           atomic_load64(&shared->failed) == 0)
        sched_yield();
    began = now();
    atomic_store64(&shared->go, 1);
    nanosleep(&t, NULL);
    for (uint32_t i = 0; i < n; i++)
        shared->done[i].at_end = atomic_load64(&shared->done[i].count);
    *took = now() - began;
    good = atomic_load64(&shared->failed) == 0;
    for (uint32_t i = 0; i < n; i++) {
        (void)kill(pid[i], SIGKILL);
        (void)waitpid(pid[i], NULL, 0);
    }
    (void)!shd_reap(segment, NULL);
    return good;
}

static void count(uint32_t child, uint64_t more)
{
    uint64_t *n = &shared->done[child].count;

    atomic_store64(n, atomic_load64(n) + more);
}

/* What rc says, or again and again what the caller does if there is nothing
 * and nobody waits. False: that. */
static bool went(int rc)
{
    if (rc < 0)
        fail();
    if (rc == 0)
        atomic_pause();
    return rc > 0;
}

static void send_one(const struct way *w, struct channel *c, const void *data,
                     size_t len, bool busy)
{
    while (!went(w->send(c, data, len, 1, !busy)))
        ;
}

static void receive_one(const struct way *w, struct channel *c, void *to,
                        size_t size, bool busy)
{
    while (!went(w->receive(c, to, size, 1, !busy)))
        ;
}

static void prepare_receiver(const struct way *w, struct channel *c, bool busy)
{
    if (w->receiver != NULL && !w->receiver(c))
        fail();
    way_set_waiting(w, c, !busy);
}

static bool make(const struct way *w, struct channel *c, uint32_t number,
                 size_t size)
{
    memset(c, 0, sizeof(*c));
    c->number = number;
    return size <= w->largest && w->make(c, size);
}

/* ---- latency -------------------------------------------------------------- */

/* One of the processors that the run may use, if it may use two. */
static void take_processor(uint32_t side)
{
    cpu_set_t allowed, own;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0 ||
        CPU_COUNT(&allowed) < 2)
        return;
    CPU_ZERO(&own);
    for (uint32_t i = 0, n = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &allowed) && n++ == side)
            CPU_SET(i, &own);
    (void)sched_setaffinity(0, sizeof(own), &own);
}

/* Side 0 has been there and back once more. */
static void lap_count(double *since)
{
    static uint32_t times;
    double t;

    if (++times % LAP != 0)
        return;
    t = now();
    shared->lap_s[shared->laps % LAPS_MAX] = (float)(t - *since);
    shared->laps++;
    *since = t;
}

static int compare_laps(const void *a, const void *b)
{
    const float *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* ns one way, of what a race of `took` seconds has left. */
static double one_way(double took)
{
    uint64_t n = shared->laps < LAPS_MAX ? shared->laps : LAPS_MAX;

    if (n == 0)
        return took / (double)(shared->done[0].at_end + 1) / 2 * 1e9;
    qsort(shared->lap_s, n, sizeof(shared->lap_s[0]), compare_laps);
    return (double)shared->lap_s[n / 2] / LAP / 2 * 1e9;
}

static double line_latency(double length)
{
    uint64_t *word = &shared->line[8];
    pid_t pid[2];
    double took, since;

    memset(shared, 0, sizeof(*shared));
    for (uint64_t side = 0; side < 2; side++) {
        pid[side] = begin();
        if (pid[side] != 0)
            continue;
        take_processor((uint32_t)side);
        line_up();
        since = now();
        for (uint64_t i = 0;; i += 2) {
            while (atomic_load64(word) != i + side)
                atomic_pause();
            atomic_store64(word, i + side + 1);
            count((uint32_t)side, 1);
            if (side == 0)
                lap_count(&since);
        }
    }
    (void)race(pid, 2, length, &took);
    return one_way(took);
}

/* There and back, again and again. */
static _Noreturn void ping(const struct way *w, struct channel *there,
                           struct channel *back, size_t size, bool busy,
                           uint32_t side)
{
    static unsigned char data[SIZE_MAX_BYTES];
    double since;

    take_processor(side);
    if (w->call == NULL || side == 1)
        prepare_receiver(w, side == 0 ? back : there, busy);
    line_up();
    since = now();
    for (;;) {
        if (w->call != NULL && side == 0) {
            while (!went(w->call(there, data, size, !busy)))
                ;
        } else if (w->call != NULL) {
            while (!went(w->serve(there, data, size, !busy)))
                ;
        } else if (side == 0) {
            send_one(w, there, data, size, busy);
            receive_one(w, back, data, size, busy);
        } else {
            receive_one(w, there, data, size, busy);
            send_one(w, back, data, size, busy);
        }
        count(side, 1);
        if (side == 0)
            lap_count(&since);
    }
}

/* ns one way; < 0: it cannot. */
static double latency(const struct way *w, size_t size, double length,
                      bool busy)
{
    struct channel there, back;
    pid_t pid[2];
    double took;
    bool good;

    if (!make(w, &there, 0, size))
        return -1;
    if (!make(w, &back, 1, size)) {
        w->drop(&there);
        return -1;
    }
    memset(shared, 0, sizeof(*shared));
    for (uint32_t side = 0; side < 2; side++) {
        pid[side] = begin();
        if (pid[side] == 0)
            ping(w, &there, &back, size, busy, side);
    }
    good = race(pid, 2, length, &took) && shared->done[0].at_end > 0;
    w->drop(&there);
    w->drop(&back);
    return good ? one_way(took) : -1;
}

/* ---- throughput ----------------------------------------------------------- */

struct pattern {
    const char *title;
    uint32_t senders, receivers;
    bool to_all; /* each message; else, for who has one channel a receiver, to
                    them in turn */
    bool busy;
};

static const struct pattern PATTERNS[] = {{"1:1", 1, 1, true, false},
                                          {"1:1, busy", 1, 1, true, true},
                                          {"1:4", 1, 4, true, false},
                                          {"4:1", 4, 1, true, false},
                                          {"4:4", 4, 4, false, false}};
#define PATTERNS_COUNT (sizeof(PATTERNS) / sizeof(PATTERNS[0]))

static _Noreturn void sender(const struct way *w, const struct pattern *p,
                             struct channel *c, size_t size, uint32_t batch,
                             uint32_t first)
{
    static unsigned char data[SIZE_MAX_BYTES];
    uint32_t channels = w->broadcast ? 1 : p->receivers;
    uint32_t each = p->to_all && !w->broadcast ? channels : 1;

    line_up();
    for (uint32_t i = first;; i++)
        for (uint32_t k = 0; k < each; k++) {
            struct channel *to = &c[(i + k) % channels];

            while (!went(w->send(to, data, size, batch, !p->busy)))
                ;
        }
}

static _Noreturn void receiver(const struct way *w, const struct pattern *p,
                               struct channel *c, size_t size, uint32_t batch,
                               uint32_t child)
{
    static unsigned char data[SIZE_MAX_BYTES];

    prepare_receiver(w, c, p->busy);
    line_up();
    for (;;) {
        int rc = w->receive(c, data, size, batch, !p->busy);

        if (went(rc))
            count(child, (uint64_t)rc);
    }
}

/* Deliveries a second; < 0: it cannot. */
static double throughput(const struct way *w, const struct pattern *p,
                         size_t size, uint32_t batch, double length)
{
    struct channel c[CHANNELS_MAX];
    uint32_t channels = w->broadcast ? 1 : p->receivers, have = 0;
    uint32_t children = p->receivers + p->senders;
    pid_t pid[2 * CHANNELS_MAX];
    uint64_t got = 0;
    double took = 1;
    bool good;

    while (have < channels && make(w, &c[have], have, size))
        have++;
    good = have == channels;
    memset(shared, 0, sizeof(*shared));
    /* Receivers first: what nobody has subscribed to need not be read. */
    for (uint32_t i = 0; good && i < p->receivers; i++) {
        pid[i] = begin();
        if (pid[i] == 0)
            receiver(w, p, &c[w->broadcast ? 0 : i], size, batch, i);
    }
    while (good && atomic_load64(&shared->ready) < p->receivers &&
           atomic_load64(&shared->failed) == 0)
        sched_yield();
    for (uint32_t i = 0; good && i < p->senders; i++) {
        pid[p->receivers + i] = begin();
        if (pid[p->receivers + i] == 0)
            sender(w, p, c, size, batch, i);
    }
    good = good && race(pid, children, length, &took);
    for (uint32_t i = 0; i < have; i++)
        w->drop(&c[i]);
    for (uint32_t i = 0; i < p->receivers; i++)
        got += shared->done[i].at_end;
    return good && got > 0 ? (double)got / took : -1;
}

/* ---- locks ---------------------------------------------------------------- */

/* Times a second that `workers` have had it, and *changes: that it went from
 * one to the other. < 0: it cannot. */
static double lock_rate(const struct lock_way *w, uint32_t workers,
                        double length, double *changes)
{
    pid_t pid[2];
    double took;
    uint64_t n = 0;
    bool good = w->make();

    memset(shared, 0, sizeof(*shared));
    for (uint32_t i = 0; good && i < workers; i++) {
        pid[i] = begin();
        if (pid[i] != 0)
            continue;
        line_up();
        for (;;) {
            if (!w->take())
                fail();
            if (shared->owner != i + 1) {
                shared->owner = i + 1;
                shared->changes++;
            }
            if (!w->give())
                fail();
            count(i, 1);
        }
    }
    good = good && race(pid, workers, length, &took);
    for (uint32_t i = 0; i < workers; i++)
        n += shared->done[i].at_end;
    *changes = good ? (double)shared->changes / took : -1;
    return good ? (double)n / took : -1;
}

/* ---- tables --------------------------------------------------------------- */

static const size_t SIZES[] = {8, 64, 1024, 8192, 65536};
#define SIZES_COUNT (sizeof(SIZES) / sizeof(SIZES[0]))
#define WAYS_MAX 16u

static bool json, any_json;
static const char *only; /* this table; NULL: all */

static bool wanted(const char *title)
{
    return only == NULL || strcmp(only, title) == 0;
}

struct table {
    const char *title, *unit;
    bool more_is_better;
    double value[WAYS_MAX][SIZES_COUNT];
};

static void write_json(const struct table *t, uint32_t batch)
{
    for (size_t w = 0; WAYS[w].name != NULL; w++) {
        for (size_t i = 0; i < SIZES_COUNT; i++) {
            if (t->value[w][i] < 0)
                continue;
            printf("%s\n  {\"table\": \"%s\", \"unit\": \"%s\", "
                   "\"batch\": %u, \"way\": \"%s\", \"ours\": %s, "
                   "\"bytes\": %zu, \"value\": %.1f}",
                   any_json ? "," : "", t->title, t->unit, batch, WAYS[w].name,
                   WAYS[w].ours ? "true" : "false", SIZES[i],
                   t->value[w][i]);
            any_json = true;
        }
    }
}

static double best_of_ours(const struct table *t, size_t column)
{
    double best = -1;

    for (size_t w = 0; WAYS[w].name != NULL; w++) {
        double v = t->value[w][column];

        if (WAYS[w].ours && v > 0 &&
            (best < 0 || (t->more_is_better ? v > best : v < best)))
            best = v;
    }
    return best;
}

static void print_table(const struct table *t, uint32_t batch)
{
    if (json) {
        write_json(t, batch);
        return;
    }
    printf("\n%s, %s%s (ours is so many times as good)\n  %-20s", t->title,
           t->unit, batch > 1 ? ", up to 64 a call" : "", "bytes");
    for (size_t i = 0; i < SIZES_COUNT; i++)
        printf(" %18zu", SIZES[i]);
    printf("\n");
    for (size_t w = 0; WAYS[w].name != NULL; w++) {
        printf("  %-20s", WAYS[w].name);
        for (size_t i = 0; i < SIZES_COUNT; i++) {
            double v = t->value[w][i], best = best_of_ours(t, i);

            if (v < 0 || best < 0)
                printf(" %18s", "-");
            else
                printf(" %11.0f %5.1fx", v,
                       t->more_is_better ? best / v : v / best);
        }
        printf("\n");
    }
    fflush(stdout);
}

static void table_latency(const char *title, double length, bool busy)
{
    struct table t = {.title = title, .unit = "ns one way"};

    if (!wanted(title))
        return;
    for (size_t w = 0; WAYS[w].name != NULL; w++)
        for (size_t i = 0; i < SIZES_COUNT; i++)
            t.value[w][i] = latency(&WAYS[w], SIZES[i], length, busy);
    print_table(&t, 1);
}

static void table_throughput(const struct pattern *p, uint32_t batch,
                             double length)
{
    struct table t = {.title = p->title,
                      .unit = "deliveries a second",
                      .more_is_better = true};

    if (!wanted(p->title))
        return;
    for (size_t w = 0; WAYS[w].name != NULL; w++)
        for (size_t i = 0; i < SIZES_COUNT; i++)
            t.value[w][i] =
                WAYS[w].send == NULL || (batch > 1 && !WAYS[w].many)
                    ? -1
                    : throughput(&WAYS[w], p, SIZES[i], batch, length);
    print_table(&t, batch);
}

static void table_locks(double length)
{
    if (!wanted("locks"))
        return;
    if (!json)
        printf("\nlocks, times a second\n  %-20s %14s %14s %14s\n", "",
               "one worker", "two workers", "of them changes");
    for (size_t i = 0; LOCK_WAYS[i].name != NULL; i++) {
        const struct lock_way *w = &LOCK_WAYS[i];
        double ignored, changes;
        double one = lock_rate(w, 1, length, &ignored);
        double two = lock_rate(w, 2, length, &changes);

        if (json)
            printf("%s\n  {\"way\": \"%s\", \"ours\": %s, \"one\": %.1f, "
                   "\"two\": %.1f, \"changes\": %.1f}",
                   i == 0 ? "" : ",", w->name, w->ours ? "true" : "false", one,
                   two, changes);
        else
            printf("  %-20s %14.0f %14.0f %14.0f\n", w->name, one, two,
                   changes);
    }
}

int main(int argc, char **argv)
{
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .size_bytes = 256u << 20,
                                    .workers_max = 256};
    struct rlimit room = {RLIM_INFINITY, RLIM_INFINITY};
    double length = 0.5, floor_ns;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            length = 0.02;
        } else if (strcmp(argv[i], "--length") == 0 && i + 1 < argc) {
            length = strtod(argv[++i], NULL);
        } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
            only = argv[++i];
        } else if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else {
            fprintf(stderr, "usage: shdict-bench-ipc [--quick | --length "
                            "SECONDS] [--only TABLE] [--json]\n"
                            "  --length  of each measurement, 0.5\n"
                            "  --only    \"latency, busy\", \"1:4\", "
                            "\"locks\" ...\n");
            return 2;
        }
    }
    if (!(length > 0 && length < 1e6))
        return 2;
    /* More for POSIX queues than a user has; it may be refused. */
    (void)setrlimit(RLIMIT_MSGQUEUE, &room);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED ||
        shd_segment_create(NULL, &o, &segment) != SHD_OK) {
        fprintf(stderr, "shdict-bench-ipc: %s\n", shd_last_error());
        return 1;
    }
    floor_ns = line_latency(length);
    if (json)
        printf("{\"processors\": %ld, \"cache_line_ns\": %.1f, \"results\": [",
               sysconf(_SC_NPROCESSORS_ONLN), floor_ns);
    else
        printf("%ld processors; a cache line from one process to another: "
               "%.0f ns\n",
               sysconf(_SC_NPROCESSORS_ONLN), floor_ns);
    table_latency("latency, busy", length, true);
    table_latency("latency, blocking", length, false);
    for (size_t i = 0; i < PATTERNS_COUNT; i++) {
        table_throughput(&PATTERNS[i], 1, length);
        table_throughput(&PATTERNS[i], BATCH_MAX, length);
    }
    if (json)
        printf("\n], \"locks\": [");
    table_locks(length);
    if (json)
        printf("\n]}\n");
    return 0;
}
