/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Producers and consumers of a queue, killed by SIGKILL, and an audit.
 *
 * Each message says which producer made it and its number there; the bytes
 * after that follow from both. The books are in memory of their own, which no
 * death can harm: before a push its number is noted, after it that it has
 * returned; a consumer notes what it got, and, after it, what it acknowledged.
 *
 *   calm   nobody is killed: each message is got and acknowledged exactly once
 *   storm  workers die at any instruction, and others take their place: each
 *          push that returned is got at least once, nothing is acknowledged
 *          twice, what is popped is got at most once
 *   letters  the same, and what has come back twice goes to a third queue, where
 *          it is in the books as what it was: moved once, whoever was killed
 *
 * At the end, with all dead: after a reap nothing is held, what is left can be
 * taken, and then not a cell is in use; and every invariant holds.
 * Last line: N passed, N failed.
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

#define PRODUCERS 3u
#define CONSUMERS 4u
#define WORKERS (PRODUCERS + CONSUMERS)
#define NUMBERS (1u << 20) /* a producer's messages, at most */
#define LONGEST 40000u
#define DELIVERIES_MAX 1000u
#define HUNG_S 60 /* what has not come to anything by then never will */
#define GRAVES_BYTES (96u << 10) /* full now and then */

struct head {
    uint32_t producer, number;
    uint64_t seed;
};

struct books {
    uint32_t begun[PRODUCERS];    /* numbers that may have been pushed */
    uint32_t returned[PRODUCERS]; /* the last one whose push has returned */
    uint8_t pushed[PRODUCERS][NUMBERS];
    uint8_t got[PRODUCERS][NUMBERS]; /* up to 255 times */
    uint8_t acked[PRODUCERS][NUMBERS];
    uint64_t wrong; /* messages whose bytes were not theirs */
    uint64_t failed; /* calls that failed */
    bool stop;
};

static struct books *books;
static shd_segment *segment;
static shd_queue *leased, *popped, *graves; /* the last one or NULL */
static unsigned char text[LONGEST + sizeof(struct head)];
static uint64_t random_state;
static unsigned passed, failures;

static uint64_t random_of(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void say(bool good, const char *what)
{
    printf("  %s %s\n", good ? "ok  " : "FAIL", what);
    passed += good;
    failures += !good;
    fflush(stdout);
}

/* A worker that must not go on, without being killed. */
static void give_up(const char *call, int rc)
{
    fprintf(stderr, "%s gave %s: %s\n", call, shd_strerror_name(rc),
            shd_last_error());
    __atomic_add_fetch(&books->failed, 1, __ATOMIC_RELAXED);
    _exit(1);
}

/* ---- messages ---------------------------------------------------------- */

static size_t length_of(const struct head *h)
{
    uint64_t kind = h->seed % 100;

    return sizeof(*h) + (size_t)(kind < 80   ? h->seed % 200
                                 : kind < 98 ? h->seed % 3000
                                             : h->seed % LONGEST);
}

static void fill(const struct head *h)
{
    uint64_t r = h->seed | 1;

    memcpy(text, h, sizeof(*h));
    for (size_t i = sizeof(*h); i < length_of(h); i++) {
        r = r * 6364136223846793005ull + 1442695040888963407ull;
        text[i] = (unsigned char)(r >> 56);
    }
}

/* Notes what was got; NULL if it is no message of ours. */
static const struct head *note(const unsigned char *bytes, size_t len)
{
    static struct head h;
    static unsigned char copy[sizeof(text)];

    memcpy(copy, bytes, len < sizeof(copy) ? len : sizeof(copy));
    memcpy(&h, copy, sizeof(h));
    if (len < sizeof(h) || h.producer >= PRODUCERS || h.number >= NUMBERS ||
        len != length_of(&h))
        return NULL;
    fill(&h);
    if (memcmp(text, copy, len) != 0)
        return NULL;
    __atomic_add_fetch(&books->got[h.producer][h.number], 1,
                       __ATOMIC_RELAXED);
    return &h;
}

/* ---- workers ----------------------------------------------------------- */

#define BATCH 16u

/* Some at once, from number `from` on. */
static int push_some(uint32_t p, shd_queue *queue, uint32_t from, uint32_t n,
                     int64_t delay)
{
    static unsigned char texts[BATCH][sizeof(text)];
    const void *data[BATCH];
    size_t len[BATCH];
    uint32_t pushed;

    for (uint32_t i = 0; i < n; i++) {
        struct head h = {.producer = p, .number = from + i,
                         .seed = random_of()};

        fill(&h);
        len[i] = length_of(&h);
        memcpy(texts[i], text, len[i]);
        data[i] = texts[i];
    }
    return shd_queue_push_many(queue, n, data, len, delay, SHD_FOREVER, NULL,
                               &pushed);
}

static void produce(uint32_t p, shd_queue *queue)
{
    struct head h = {.producer = p};

    for (;;) {
        uint32_t n = random_of() % 2 == 0
                         ? 1
                         : 1 + (uint32_t)(random_of() % BATCH);
        int64_t delay = random_of() % 20 == 0 ? (int64_t)(random_of() % 5) : 0;
        int rc;

        h.number = books->begun[p];
        if (h.number + n >= NUMBERS)
            return;
        h.seed = random_of();
        books->begun[p] = h.number + n;
        __asm__ __volatile__("" ::: "memory");
        fill(&h);
        if (n > 1) {
            rc = push_some(p, queue, h.number, n, delay);
        } else if (random_of() % 10 == 0) {
            uint64_t lease;

            rc = shd_queue_reserve(queue, length_of(&h), SHD_FOREVER, &lease);
            if (rc == SHD_OK)
                rc = shd_queue_write(queue, lease, 0, text, length_of(&h));
            if (rc == SHD_OK)
                rc = shd_queue_commit(queue, lease, delay, NULL);
        } else {
            rc = shd_queue_push(queue, text, length_of(&h), delay,
                                SHD_FOREVER, NULL);
        }
        if (rc != SHD_OK)
            give_up("push", rc);
        for (uint32_t i = 0; i < n; i++)
            books->pushed[p][h.number + i] = 1;
        __asm__ __volatile__("" ::: "memory");
        books->returned[p] = h.number + n - 1;
        if (books->stop)
            return;
    }
}

static int one_leased(shd_queue *queue, int64_t wait_ms, bool calm)
{
    static unsigned char buf[sizeof(text)];
    struct shd_message m;
    const struct head *h;
    int rc = shd_queue_take(queue, buf, sizeof(buf), wait_ms, &m);

    if (rc != SHD_OK)
        return rc;
    h = note(buf, m.len);
    if (h == NULL || m.attempts > DELIVERIES_MAX ||
        (calm && m.attempts != 1))
        __atomic_add_fetch(&books->wrong, 1, __ATOMIC_RELAXED);
    if (!calm && random_of() % (graves != NULL ? 3 : 50) == 0) {
        rc = shd_queue_nack(queue, m.lease, (int64_t)(random_of() % 3));
    } else {
        rc = shd_queue_ack(queue, m.lease);
        if (rc == SHD_OK && h != NULL)
            __atomic_add_fetch(&books->acked[h->producer][h->number], 1,
                               __ATOMIC_RELAXED);
    }
    return rc;
}

/* Some at once; those whose lease has been lost meanwhile come again. */
static int some_leased(shd_queue *queue, int64_t wait_ms, bool calm)
{
    static unsigned char buf[sizeof(text)];
    struct head heads[BATCH];
    struct shd_message m[BATCH];
    uint64_t leases[BATCH];
    int32_t codes[BATCH];
    size_t at[BATCH];
    uint32_t n;
    int rc = shd_queue_take_many(queue, 1 + (uint32_t)(random_of() % BATCH),
                                 buf, sizeof(buf), wait_ms, m, at, &n);

    if (rc != SHD_OK)
        return rc;
    for (uint32_t i = 0; i < n; i++) {
        const struct head *h = note(buf + at[i], m[i].len);

        if (h == NULL || m[i].attempts > DELIVERIES_MAX ||
            (calm && m[i].attempts != 1)) {
            __atomic_add_fetch(&books->wrong, 1, __ATOMIC_RELAXED);
            return SHD_OK;
        }
        heads[i] = *h;
        leases[i] = m[i].lease;
    }
    if (!calm && random_of() % (graves != NULL ? 3 : 50) == 0)
        rc = shd_queue_nack(queue, leases[--n], (int64_t)(random_of() % 3));
    if (rc == SHD_OK)
        rc = shd_queue_ack_many(queue, n, leases, codes);
    for (uint32_t i = 0; rc == SHD_OK && i < n; i++)
        if (codes[i] == SHD_OK)
            __atomic_add_fetch(
                &books->acked[heads[i].producer][heads[i].number], 1,
                __ATOMIC_RELAXED);
    return rc;
}

static int some_popped(int64_t wait_ms)
{
    static unsigned char buf[sizeof(text)];
    struct shd_message m[BATCH];
    size_t at[BATCH];
    uint32_t n;
    int rc = shd_queue_pop_many(popped, BATCH, buf, sizeof(buf), wait_ms, m,
                                at, &n);

    for (uint32_t i = 0; rc == SHD_OK && i < n; i++)
        if (note(buf + at[i], m[i].len) == NULL)
            __atomic_add_fetch(&books->wrong, 1, __ATOMIC_RELAXED);
    return rc;
}

static int one_popped(int64_t wait_ms)
{
    static unsigned char buf[sizeof(text)];
    struct shd_message m;
    int rc = shd_queue_pop(popped, buf, sizeof(buf), wait_ms, &m);

    if (rc == SHD_OK && note(buf, m.len) == NULL)
        __atomic_add_fetch(&books->wrong, 1, __ATOMIC_RELAXED);
    return rc;
}

/* The last producer, and the last consumer, are those of the other queue. */
static _Noreturn void work(uint32_t worker, bool calm)
{
    int rc = SHD_OK;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    random_state = (unsigned)getpid() * 0x9e3779b97f4a7c15ull | 1;
    if (worker < PRODUCERS) {
        produce(worker, worker + 1 == PRODUCERS ? popped : leased);
        _exit(0);
    }
    while (rc == SHD_OK) {
        bool some = random_of() % 2 == 0;
        shd_queue *queue =
            worker + 2 == WORKERS && graves != NULL ? graves : leased;

        if (worker + 1 == WORKERS)
            rc = some ? some_popped(100) : one_popped(100);
        else
            rc = some ? some_leased(queue, 100, calm)
                      : one_leased(queue, 100, calm);
        if (rc == SHD_NOTFOUND && !books->stop)
            rc = SHD_OK;
    }
    if (rc != SHD_NOTFOUND)
        give_up("a consumer", rc);
    _exit(0);
}

static pid_t start(uint32_t worker, bool calm)
{
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0)
        work(worker, calm);
    return pid;
}

static bool ended_well(pid_t pid)
{
    int status;

    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

static void nap(long us)
{
    struct timespec t = {.tv_sec = us / 1000000,
                         .tv_nsec = us % 1000000 * 1000};

    (void)nanosleep(&t, NULL);
}

/* ---- the books --------------------------------------------------------- */

static void audit(bool calm)
{
    uint64_t pushes = 0, lost = 0, twice = 0, again = 0, unpushed = 0;

    for (uint32_t p = 0; p < PRODUCERS; p++) {
        bool once = p + 1 == PRODUCERS; /* by pop */

        for (uint32_t n = 0; n < books->begun[p]; n++) {
            uint8_t got = books->got[p][n], acked = books->acked[p][n];

            pushes += books->pushed[p][n];
            /* Who popped it may have died before it wrote that down. */
            lost += books->pushed[p][n] && got == 0 && (calm || !once);
            twice += acked > 1 || (once && got > 1);
            again += got > 1;
            unpushed += !books->pushed[p][n] && calm;
        }
    }
    printf("  %" PRIu64 " pushes returned, %" PRIu64 " messages delivered "
           "again\n", pushes, again);
    say(pushes > 0, "messages were pushed");
    say(lost == 0, "each push that returned was delivered");
    say(twice == 0, calm ? "and only once"
                         : "nothing was acknowledged, or popped, twice");
    if (calm)
        say(again == 0 && unpushed == 0, "nothing came back");
    say(books->wrong == 0, "bytes and attempts are what they should be");
    say(books->failed == 0, "no call failed");
}

static void nothing_is_left(void)
{
    struct shd_queue_info a = {.struct_size = sizeof(a)}, b = a;
    char report[400] = "";
    int rc = shd_reap(segment, NULL);

    say(rc == SHD_OK, "the dead are reaped");
    rc = shd_queue_info(leased, &a);
    say(rc == SHD_OK && a.leased == 0 && a.reservations == 0,
        "nobody dead holds a message");
    rc = shd_segment_check(segment, report, sizeof(report));
    if (rc != SHD_OK)
        printf("  %s\n", report);
    say(rc == SHD_OK, "every invariant holds");
    /* Some are delayed by a few ms. */
    while (one_leased(leased, 50, false) == SHD_OK ||
           (graves != NULL && one_leased(graves, 50, false) == SHD_OK))
        ;
    while (one_popped(50) == SHD_OK)
        ;
    if (graves != NULL) {
        rc = shd_queue_info(graves, &b);
        say(rc == SHD_OK && b.cells_used == 0 && b.reservations == 0 &&
                b.pushed > 0,
            "dead letters were moved, and nothing leaks where they went");
        printf("  %" PRIu64 " letters moved\n", b.pushed);
    }
    rc = shd_queue_info(leased, &a);
    if (rc == SHD_OK)
        rc = shd_queue_info(popped, &b);
    say(rc == SHD_OK && a.cells_used == 0 && b.cells_used == 0 &&
            a.bytes == 0 && b.bytes == 0 && a.dead == 0,
        "no cell leaks");
    printf("  %" PRIu64 " redelivered, %" PRIu64 " for a death\n",
           a.redelivered, a.orphaned);
}

static bool open_all(bool letters)
{
    struct shd_segment_options so = {.struct_size = sizeof(so),
                                     .size_bytes = 64 << 20,
                                     .workers_max = 64};
    struct shd_queue_options o = {.struct_size = sizeof(o),
                                  .capacity_bytes = 512 << 10,
                                  .deliveries_max = DELIVERIES_MAX};

    struct shd_queue_options g = {.struct_size = sizeof(g),
                                  .capacity_bytes = GRAVES_BYTES};

    memset(books, 0, sizeof(*books));
    graves = NULL;
    if (shd_segment_create(NULL, &so, &segment) != SHD_OK ||
        shd_queue_open(segment, "popped", &o, &popped) != SHD_OK)
        return false;
    if (letters) {
        o.deliveries_max = 2;
        o.dead_to = "graves";
        if (shd_queue_open(segment, "graves", &g, &graves) != SHD_OK)
            return false;
    }
    return shd_queue_open(segment, "leased", &o, &leased) == SHD_OK;
}

static void close_all(void)
{
    if (shd_segment_close(segment) != SHD_OK)
        say(false, "the segment is closed");
}

static double now_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Producers end first: then consumers end when nothing comes any more. */
static void calm(double seconds)
{
    pid_t pid[WORKERS];
    bool good = true;

    printf("calm\n");
    if (!open_all(false)) {
        say(false, "a segment and two queues");
        return;
    }
    for (uint32_t i = 0; i < WORKERS; i++)
        pid[i] = start(i, true);
    nap((long)(seconds * 1e6));
    books->stop = true;
    for (uint32_t i = 0; i < WORKERS; i++)
        good = ended_well(pid[i]) && good;
    say(good, "everybody comes to an end");
    nothing_is_left();
    audit(true);
    close_all();
}

/* On a loaded machine a worker may have been killed before it came to anything:
 * those who are left go on until something was pushed, and a letter moved. */
static void wait_for_something(void)
{
    double late = now_s() + HUNG_S;

    while (now_s() < late) {
        struct shd_queue_info i = {.struct_size = sizeof(i), .pushed = 1};
        bool some = false;

        for (uint32_t p = 0; p < PRODUCERS; p++)
            some |= __atomic_load_n(&books->returned[p], __ATOMIC_RELAXED) > 0;
        if (graves != NULL && shd_queue_info(graves, &i) != SHD_OK)
            return;
        if (some && i.pushed > 0)
            return;
        nap(2000);
    }
}

static uint64_t storm(double seconds, bool letters)
{
    pid_t pid[WORKERS];
    uint64_t kills = 0;
    double end = now_s() + seconds;
    int status;

    printf(letters ? "letters\n" : "storm\n");
    if (!open_all(letters)) {
        say(false, "a segment and its queues");
        return 0;
    }
    for (uint32_t i = 0; i < WORKERS; i++)
        pid[i] = start(i, false);
    while (now_s() < end) {
        uint32_t i = (uint32_t)(random_of() % WORKERS);

        nap((long)(random_of() % 4000));
        (void)kill(pid[i], SIGKILL);
        if (waitpid(pid[i], &status, 0) != pid[i])
            break;
        kills += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        /* Now and then nobody reaps, and those who wait find out. */
        if (random_of() % 2 == 0 && shd_reap(segment, NULL) != SHD_OK)
            say(false, "a reap");
        pid[i] = start(i, false);
    }
    wait_for_something();
    for (uint32_t i = 0; i < WORKERS; i++) {
        (void)kill(pid[i], SIGKILL);
        (void)waitpid(pid[i], &status, 0);
    }
    printf("  %" PRIu64 " killed\n", kills);
    say(kills > 0, "workers were killed");
    nothing_is_left();
    audit(false);
    close_all();
    return kills;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 6;
    uint64_t kills = 0;

    if (seconds <= 0) {
        fprintf(stderr, "usage: queue_storm [SECONDS]\n");
        return 2;
    }
    random_state = (uint64_t)time(NULL) << 20 | (uint64_t)getpid();
    books = mmap(NULL, sizeof(*books), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (books == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    for (double end = now_s() + seconds; now_s() < end;) {
        double part = seconds < 60 ? seconds : 60;

        calm(part / 4);
        kills += storm(part / 2, false);
        kills += storm(part / 4, true);
    }
    printf("= %" PRIu64 " kills\n", kills);
    printf("%u passed, %u failed\n", passed, failures);
    return failures == 0 ? 0 : 1;
}
