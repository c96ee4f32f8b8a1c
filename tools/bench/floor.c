/* SPDX-License-Identifier: BSD-2-Clause */
#include "floor.h"

#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define TIMES 20000
#define ROUNDS 15
#define TURNS 2000

static volatile size_t sink; /* so that the loads are made */

static double now_ns(void)
{
    struct timespec t;

    if (clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        abort();
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *ns)
{
    qsort(ns, ROUNDS, sizeof(*ns), by_value);
    return ns[ROUNDS / 2];
}

static double atomic_ns(void)
{
    static volatile uint64_t word;
    double ns[ROUNDS];

    for (int r = 0; r < ROUNDS; r++) {
        double from = now_ns();

        for (int i = 0; i < TIMES; i++)
            __sync_bool_compare_and_swap(&word, word, word + 1);
        ns[r] = (now_ns() - from) / TIMES;
    }
    return median(ns);
}

static double lock_ns(int robust)
{
    pthread_mutexattr_t a;
    pthread_mutex_t *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    double ns[ROUNDS];

    if (m == MAP_FAILED || pthread_mutexattr_init(&a) != 0 ||
        pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED) != 0 ||
        (robust && pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST)) ||
        pthread_mutex_init(m, &a) != 0)
        abort();
    for (int r = 0; r < ROUNDS; r++) {
        double from = now_ns();

        for (int i = 0; i < TIMES; i++) {
            if (pthread_mutex_lock(m) != 0 || pthread_mutex_unlock(m) != 0)
                abort();
        }
        ns[r] = (now_ns() - from) / TIMES;
    }
    munmap(m, 4096);
    return median(ns);
}

/* One random cycle through all of it: each load's address is what the load
 * before gave. */
static double walk_ns(size_t bytes)
{
    size_t n = bytes / 64, at = 0;
    size_t(*line)[8] = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t random = 88172645463325252ull;
    double ns[ROUNDS];

    if (line == MAP_FAILED)
        return 0;
    for (size_t i = 0; i < n; i++)
        line[i][0] = i;
    for (size_t i = n - 1; i > 0; i--) { /* Sattolo */
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        size_t j = (random * 0x2545f4914f6cdd1dull >> 11) % i;
        size_t x = line[i][0];

        line[i][0] = line[j][0];
        line[j][0] = x;
    }
    for (int r = 0; r < ROUNDS; r++) {
        double from = now_ns();

        for (int i = 0; i < TIMES; i++)
            at = line[at][0];
        ns[r] = (now_ns() - from) / TIMES;
    }
    sink = at;
    munmap(line, bytes);
    return median(ns);
}

static volatile uint64_t ball __attribute__((aligned(64)));

static void pin_to(int nth)
{
    cpu_set_t all, one;

    if (sched_getaffinity(0, sizeof(all), &all) != 0)
        return;
    for (int c = 0; c < CPU_SETSIZE; c++) {
        if (CPU_ISSET(c, &all) && nth-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(c, &one);
            (void)sched_setaffinity(0, sizeof(one), &one);
        }
    }
}

static void *other_side(void *context)
{
    (void)context;
    pin_to(1);
    for (uint64_t i = 0; i < TURNS * ROUNDS; i++) {
        while (ball != 2 * i + 1)
            __sync_synchronize();
        ball = 2 * i + 2;
    }
    return NULL;
}

/* There and back between two processors; 0 where there is only one. */
static double round_trip_ns(void)
{
    cpu_set_t all;
    pthread_t other;
    double ns[ROUNDS];

    if (sched_getaffinity(0, sizeof(all), &all) != 0 || CPU_COUNT(&all) < 2 ||
        pthread_create(&other, NULL, other_side, NULL) != 0)
        return 0;
    pin_to(0);
    for (int r = 0; r < ROUNDS; r++) {
        double from = now_ns();

        for (uint64_t i = 0; i < TURNS; i++) {
            uint64_t n = (uint64_t)r * TURNS + i;

            ball = 2 * n + 1;
            while (ball != 2 * n + 2)
                __sync_synchronize();
        }
        ns[r] = (now_ns() - from) / TURNS;
    }
    pthread_join(other, NULL);
    (void)sched_setaffinity(0, sizeof(all), &all);
    return median(ns);
}

int floor_print(void)
{
    printf("{\"atomic\": %.1f, \"lock\": %.1f, \"robust_lock\": %.1f, "
           "\"round_trip\": %.0f, \"load_64K\": %.1f, \"load_1M\": %.1f, "
           "\"load_32M\": %.1f, \"load_256M\": %.1f}\n",
           atomic_ns(), lock_ns(0), lock_ns(1), round_trip_ns(),
           walk_ns(64u << 10), walk_ns(1u << 20), walk_ns(32u << 20),
           walk_ns(256u << 20));
    return 0;
}
