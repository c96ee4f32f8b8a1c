/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shdict-bench-death: from a worker's SIGKILL to its recovery, with a
 * supervisor that watches by shd_watch.
 *
 * A worker changes a dict as fast as it can and is killed at a random moment;
 * a neighbour does the same all the time, and measures how long its longest
 * operation took around each death. Printed: from just before kill() to the
 * moment when all that the dead one left was recovered, as the supervisor's
 * event tells it; and the neighbour's stalls.
 *
 * Then a consumer that has a message on a lease is killed, while another one
 * waits for messages: from just before kill() to the moment when that one has
 * the message; with the supervisor and, fewer times, without.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/shdict.h"

#define ROUNDS_DEFAULT 500u
#define KEYS 1000u
#define ALONE_DIVISOR 25u /* without a supervisor it takes 250 ms at worst */
#define TARGET_MS 5

static struct {
    uint64_t longest_ns; /* of the neighbour, since the parent set it to 0 */
    uint64_t operations;
} *shared;

static shd_segment *segment;
static shd_dict *dict;
static shd_queue *queue;
static char name[64];

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "%s: %s (%s)\n", what, strerror(errno), shd_last_error());
    if (name[0] != '\0' && shd_segment_destroy(name) != SHD_OK)
        fprintf(stderr, "%s: %s\n", name, shd_last_error());
    exit(1);
}

static pid_t start(void (*work)(void))
{
    pid_t parent = getpid(), pid = fork();

    if (pid < 0)
        die("fork");
    if (pid > 0)
        return pid;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(1);
    work();
    _exit(1);
}

static void change(uint64_t n)
{
    char key[24], value[200] = "";
    int len = snprintf(key, sizeof(key), "k%" PRIu64, n % KEYS);

    if (shd_set(dict, key, (size_t)len, value, n % sizeof(value), 0) !=
        SHD_OK)
        _exit(2);
}

static void worker(void)
{
    for (uint64_t n = 0;; n++)
        change(n);
}

static void neighbour(void)
{
    for (uint64_t n = 0;; n++) {
        uint64_t before = now_ns();
        change(n);
        uint64_t took = now_ns() - before;
        if (took > __atomic_load_n(&shared->longest_ns, __ATOMIC_RELAXED))
            __atomic_store_n(&shared->longest_ns, took, __ATOMIC_RELAXED);
        shared->operations++;
    }
}

/* ---- a message that changes hands --------------------------------------- */

static int taken[2], received[2], go[2];

static uint64_t take(void)
{
    struct shd_message m;
    char bytes[64];

    if (shd_queue_take(queue, bytes, sizeof(bytes), SHD_FOREVER, &m) != SHD_OK)
        _exit(5);
    return m.lease;
}

static void victim(void)
{
    (void)take();
    if (write(taken[1], "", 1) != 1)
        _exit(6);
    for (;;)
        pause();
}

static void heir(void)
{
    char byte;

    for (;;) {
        if (read(go[0], &byte, 1) != 1)
            _exit(7);
        uint64_t lease = take(), at = now_ns();
        if (shd_queue_ack(queue, lease) != SHD_OK ||
            write(received[1], &at, sizeof(at)) != sizeof(at))
            _exit(8);
    }
}

static int told[2];

static void supervisor(void)
{
    struct shd_watch_options o = {.struct_size = sizeof(o),
                                  .flags = SHD_WATCH_SUPERVISE};
    struct shd_watch_event e = {.struct_size = sizeof(e)};
    shd_watch *watch;

    if (shd_watch_open(segment, &o, &watch) != SHD_OK)
        _exit(3);
    for (;;) {
        int rc = shd_watch_next(watch, -1, &e);
        if (rc == SHD_NOTFOUND)
            continue;
        if (rc != SHD_OK || write(told[1], &e, sizeof(e)) != sizeof(e))
            _exit(4);
    }
}

/* Until the supervisor has told that of the process. */
static struct shd_watch_event await(pid_t pid, uint32_t what)
{
    struct shd_watch_event e;

    do {
        if (read(told[0], &e, sizeof(e)) != sizeof(e))
            die("the supervisor has ended");
    } while (e.pid != (uint32_t)pid || e.event != what);
    return e;
}

/* From a consumer's death to when the other one has its message. */
static uint64_t hand_over(bool watched)
{
    uint64_t killed, at;
    char byte;
    pid_t pid = start(victim);

    if (shd_queue_push(queue, "job", 3, 0, 0, NULL) != SHD_OK ||
        read(taken[0], &byte, 1) != 1 || write(go[1], "", 1) != 1)
        die("a message to be taken");
    usleep((useconds_t)(1000 + random() % 3000)); /* the other one sleeps */
    killed = now_ns();
    if (kill(pid, SIGKILL) != 0 ||
        read(received[0], &at, sizeof(at)) != sizeof(at) ||
        waitpid(pid, NULL, 0) != pid)
        die("a message to be handed over");
    if (watched)
        await(pid, SHD_WATCH_DIED); /* it must not wait for a reader */
    return at - killed;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void print(const char *what, uint64_t *ns, uint32_t n)
{
    qsort(ns, n, sizeof(*ns), by_value);
    printf("  %-34s p50 %7.1f us, p99 %7.1f us, max %7.1f us\n", what,
           (double)ns[n / 2] / 1e3, (double)ns[n - 1 - n / 100] / 1e3,
           (double)ns[n - 1] / 1e3);
}

static void print_handed_over(uint64_t *ns, uint32_t n, uint32_t alone)
{
    uint32_t late = 0;

    for (uint32_t i = 0; i < n; i++)
        late += ns[i] > TARGET_MS * 1000000u;
    printf("death of a consumer, %u rounds, the same supervisor:\n", n);
    print("SIGKILL to another one having it", ns, n);
    printf("  the target is %d ms: %u of %u were later\n", TARGET_MS, late, n);
    print("without a supervisor", ns + n, alone);
}

static void prepare(void)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = 1 << 20,
                                 .shards = 1};
    struct shd_queue_options q = {.struct_size = sizeof(q)};

    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || pipe(told) != 0 || pipe(taken) != 0 ||
        pipe(received) != 0 || pipe(go) != 0)
        die("mmap, pipe");
    snprintf(name, sizeof(name), "bench-death-%d", (int)getpid());
    if (shd_segment_create(name, NULL, &segment) != SHD_OK ||
        shd_dict_open(segment, "d", &o, &dict) != SHD_OK ||
        shd_queue_open(segment, "q", &q, &queue) != SHD_OK)
        die("segment");
}

int main(int argc, char **argv)
{
    uint32_t rounds = argc == 3 && strcmp(argv[1], "--rounds") == 0
                          ? (uint32_t)strtoul(argv[2], NULL, 10)
                          : ROUNDS_DEFAULT;
    uint32_t inside = 0;

    if ((argc != 1 && argc != 3) || rounds == 0) {
        fprintf(stderr, "usage: shdict-bench-death [--rounds N]\n");
        return 2;
    }
    prepare();
    uint64_t *delay = calloc(rounds, sizeof(*delay));
    uint64_t *work = calloc(rounds, sizeof(*work));
    uint64_t *stall = calloc(rounds, sizeof(*stall));
    uint32_t alone = 1 + rounds / ALONE_DIVISOR;
    uint64_t *handed = calloc(rounds + alone, sizeof(*handed));
    if (!delay || !work || !stall || !handed)
        die("calloc");
    pid_t watcher = start(supervisor), beside = start(neighbour);
    await(beside, SHD_WATCH_JOINED);
    srandom((unsigned)getpid());
    for (uint32_t i = 0; i < rounds; i++) {
        pid_t pid = start(worker);
        await(pid, SHD_WATCH_JOINED);
        usleep((useconds_t)(random() % 3000));
        __atomic_store_n(&shared->longest_ns, 0, __ATOMIC_RELAXED);
        uint64_t killed = now_ns();
        if (kill(pid, SIGKILL) != 0)
            die("kill");
        struct shd_watch_event e = await(pid, SHD_WATCH_DIED);
        delay[i] = e.at_ns - killed;
        work[i] = e.took_ns;
        inside += e.recovered > 0;
        stall[i] = __atomic_load_n(&shared->longest_ns, __ATOMIC_RELAXED);
        if (waitpid(pid, NULL, 0) != pid)
            die("waitpid");
    }
    kill(beside, SIGKILL);
    waitpid(beside, NULL, 0);
    await(beside, SHD_WATCH_DIED);
    pid_t consumer = start(heir);
    for (uint32_t i = 0; i < rounds; i++)
        handed[i] = hand_over(true);
    kill(watcher, SIGKILL);
    waitpid(watcher, NULL, 0);
    for (uint32_t i = 0; i < alone; i++)
        handed[rounds + i] = hand_over(false);
    kill(consumer, SIGKILL);
    while (wait(NULL) > 0 || errno == EINTR)
        ;
    printf("death of a worker, %u rounds, a supervisor by shd_watch:\n",
           rounds);
    print("SIGKILL to everything recovered", delay, rounds);
    print("  of it the recovery itself", work, rounds);
    print("longest operation of a neighbour", stall, rounds);
    printf("  %u of them died inside a critical section and were undone by the "
           "supervisor\n  (the neighbour met the others' first); %" PRIu64
           " operations of the neighbour\n",
           inside, shared->operations);
    print_handed_over(handed, rounds, alone);
    if (shd_segment_destroy(name) != SHD_OK)
        die("destroy");
    return 0;
}
