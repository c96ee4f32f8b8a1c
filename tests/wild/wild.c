/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wild [--seconds N] [--scribbles N] [--seed N] [--case N] - stray writes
 * into a segment, and whether a healthy worker keeps its head.
 *
 * ALONE. One process, which plays the healthy worker. The compiler has put a
 * call in front of each load and store of the library; at some of them, chosen
 * by the seed, a stray write happens. So what is overwritten between a check
 * and its use is found, and found again: a case is a seed and a number. Time
 * stands still; which threads are alive is decided by their ids. An operation
 * that makes more accesses than any bounded one does hangs.
 *
 * BESIDE. Workers in processes of their own, one of which is killed now and
 * then, and one process that does nothing but overwrite what they work on, and
 * now and then puts back what was there first.
 *
 * The program is compiled with the address and undefined behaviour sanitizers.
 */
#include "tests/wild/scribble.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OPS_A_CASE 60
#define CASES_A_CHILD 16
/* The longest operation that is right takes under a twentieth of it. */
#define ACCESSES_MAX 400000000ull
#define WORKERS 3
#define STALL_SECONDS 60
#define KILL_MS 300

struct totals {
    uint64_t cases, ops, scribbles, inside; /* inside: during an operation */
    uint64_t codes[1 - SHD_ERROR_LAST_];
    uint64_t alive[WORKERS]; /* beside: operations of each worker */
    uint64_t kills;
    uint64_t repairs, rebuilt, reset, lost;
    uint64_t at; /* the case that is running */
};

static struct totals *totals;
static uint64_t seed = 1;
/* Without a bound: so many cases alone, the same on any machine, and so many
 * seconds beside. */
#define CASES 3400
static double budget = 6;
static bool bounded_by_time;
static uint64_t scribbles_wanted = UINT64_MAX;
static int64_t only_case = -1;

/* ---- in front of each access -------------------------------------------- */

static struct scribbler *armed;
static uint64_t accesses, next_scribble, inside_seed;
static const unsigned char *first, *end;
static const struct play *playing;

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t z = a * 0x9e3779b97f4a7c15ull + b;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static void access_to(const void *p)
{
    struct scribbler *s = armed;

    if (s == NULL || (const unsigned char *)p < first ||
        (const unsigned char *)p >= end)
        return;
    accesses++;
    if (accesses > ACCESSES_MAX)
        play_fail(playing, "comes to no end");
    if (accesses < next_scribble)
        return;
    armed = NULL;
    scribble(s);
    totals->inside++;
    inside_seed = mix(inside_seed, 3);
    next_scribble = accesses + 1 + (inside_seed >> 8) %
                                       (1u << (inside_seed & 15));
    armed = s;
}

#ifdef __clang__
#define COVERED(name, type)                                                   \
    void __sanitizer_cov_##name(const type *p);                               \
    void __sanitizer_cov_##name(const type *p)                                \
    {                                                                         \
        access_to(p);                                                         \
    }
COVERED(load1, uint8_t)
COVERED(load2, uint16_t)
COVERED(load4, uint32_t)
COVERED(load8, uint64_t)
COVERED(load16, void)
COVERED(store1, uint8_t)
COVERED(store2, uint16_t)
COVERED(store4, uint32_t)
COVERED(store8, uint64_t)
COVERED(store16, void)
#else /* to count branches as gcc has them: see tests/crash/coverage */
static void hook_load(const volatile void *p, size_t len)
{
    (void)len;
    access_to((const void *)p);
}

static void hook_store(const volatile void *p, size_t len)
{
    hook_load(p, len);
}
#include "tests/hooks/hooks.h"
#endif

/* ---- a world that repeats ----------------------------------------------- */

static bool alone;
static uint64_t frozen_ms = 1000000000;

#define WRAP(type, name, ...)                                                 \
    type __real_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__);                                          \
    type __wrap_##name(__VA_ARGS__)

WRAP(int, clock_gettime, clockid_t id, struct timespec *t)
{
    if (!alone)
        return __real_clock_gettime(id, t);
    t->tv_sec = (time_t)(frozen_ms / 1000);
    t->tv_nsec = (long)(frozen_ms % 1000 * 1000000);
    return 0;
}

WRAP(ssize_t, getrandom, void *to, size_t len, unsigned flags)
{
    if (!alone)
        return __real_getrandom(to, len, flags);
    memset(to, 0x37, len);
    return (ssize_t)len;
}

WRAP(int, kill, pid_t pid, int signal_number)
{
    if (!alone || (pid & 1) != 0)
        return alone ? 0 : __real_kill(pid, signal_number);
    errno = ESRCH;
    return -1;
}

/* Nobody else lets go of it. */
WRAP(int, robust_wait, uint32_t *word, const struct timespec *until)
{
    return alone ? ETIMEDOUT : __real_robust_wait(word, until);
}

WRAP(int, clock_nanosleep, clockid_t id, int flags, const struct timespec *t,
     struct timespec *left)
{
    return alone ? 0 : __real_clock_nanosleep(id, flags, t, left);
}

static double seconds(void)
{
    struct timespec t;

    if (__real_clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        abort();
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- alone -------------------------------------------------------------- */

static void put_back(const struct play *p, const unsigned char *image)
{
    memcpy(p->segment->segment.base, image, p->segment->segment.size);
}

/* One shard was damaged, in any way: a repair makes all of it sound, and then
 * nothing is found damaged any more. */
static void serve_again(struct play *p)
{
    struct shd_repair done = {.struct_size = sizeof(done)};
    uint64_t corrupt = p->codes[-SHD_CORRUPT];
    char report[2000] = "";
    int rc = shd_segment_repair(p->segment, &done, report, sizeof(report));

    p->doing = "repair";
    if (rc == SHD_BUSY) /* the lock names a thread that lives */
        return;
    if (rc != SHD_OK)
        play_fail(p, "of one shard: %s: %s", shd_strerror_name(rc), report);
    totals->repairs++;
    totals->rebuilt += done.rebuilt;
    totals->reset += done.reset;
    totals->lost += done.entries_lost;
    for (int i = 0; i < 30; i++)
        play_op(p);
    if (p->codes[-SHD_CORRUPT] != corrupt)
        play_fail(p, "is corrupt after a repair: %s", shd_last_error());
    rc = shd_segment_check(p->segment, report, sizeof(report));
    if (rc != SHD_OK)
        play_fail(p, "check after a repair: %s", report);
}

static void one_case(struct play *p, const unsigned char *image,
                     uint64_t number)
{
    enum scribble_where where = (enum scribble_where)(number % 3);
    uint64_t from = mix(seed, number);
    struct scribbler s;

    /* What is known of subscriptions is of the case before. */
    play_ipc_forget(p);
    put_back(p, image);
    p->unrepaired = false;
    scribble_start(&s, p, where, (uint32_t)(from % 4), mix(from, 1));
    p->random = mix(from, 2);
    inside_seed = mix(from, 4);
    frozen_ms += 10;
    playing = p;
    for (int i = 0; i < OPS_A_CASE; i++) {
        if (inside_seed % 3 == 0)
            scribble(&s);
        accesses = 0;
        next_scribble = 1 + (inside_seed >> 8) % (1u << (inside_seed & 15));
        armed = &s;
        play_op(p);
        armed = NULL;
        inside_seed = mix(inside_seed, 5);
        frozen_ms += play_draw(p, 3) == 0 ? play_draw(p, 400) : 0;
    }
    if (where != SCRIBBLE_ANYWHERE)
        play_verify_control(p);
    /* A repair that is scribbled into may have fenced a sound shard off, until
     * the next one is through. */
    if (where == SCRIBBLE_SHARD && !p->unrepaired)
        play_verify_shards(p, s.shard);
    if (where == SCRIBBLE_SHARD) {
        serve_again(p);
        play_verify_shards(p, s.shard);
    }
    totals->cases++;
    totals->scribbles += s.done;
}

static void play_cases(uint64_t number, uint64_t n)
{
    struct play p = {0};
    unsigned char *image;

    alone = true;
    play_create(&p, 10);
    first = p.segment->segment.base;
    end = first + p.segment->segment.size;
    image = malloc(p.segment->segment.size);
    if (image == NULL)
        abort();
    memcpy(image, first, p.segment->segment.size);
    /* What cannot be seen in a case must not depend on those before it: where
     * a search for a free page begins is a hint only, but the rest is not. */
    for (uint64_t i = 0; i < n; i++) {
        totals->at = number + i;
        one_case(&p, image, number + i);
    }
    totals->ops += p.ops;
    for (int i = 0; i <= -SHD_ERROR_LAST_; i++)
        totals->codes[i] += p.codes[i];
    exit(0); /* not _exit: a build that counts branches writes them down */
}

static const char *ending(int status, char text[40])
{
    if (WIFSIGNALED(status))
        snprintf(text, 40, "signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(text, 40, "exit %d", WEXITSTATUS(status));
    return text;
}

static unsigned play_alone(void)
{
    uint64_t batch = only_case < 0 ? 0 : (uint64_t)only_case / CASES_A_CHILD;
    double until = seconds() + budget;
    unsigned failed = 0;
    char text[40];

    do {
        int status = 0;
        pid_t pid;

        fflush(stdout);
        pid = fork();
        if (pid == 0)
            play_cases(batch * CASES_A_CHILD,
                       only_case < 0 ? CASES_A_CHILD
                                     : (uint64_t)only_case % CASES_A_CHILD +
                                           1);
        if (pid < 0 || waitpid(pid, &status, 0) != pid)
            abort();
        if (status != 0) {
            failed++;
            printf("  FAIL case %" PRIu64 ": %s\n"
                   "    again: tests/wild/run --seed %" PRIu64
                   " --case %" PRIu64 "\n",
                   totals->at, ending(status, text), seed, totals->at);
            fflush(stdout);
        }
        batch++;
    } while (only_case < 0 && failed < 10 &&
             (bounded_by_time ? seconds() < until
                              : batch * CASES_A_CHILD < CASES) &&
             totals->scribbles < scribbles_wanted);
    return failed;
}

/* ---- beside ------------------------------------------------------------- */

static _Noreturn void work(struct play *p, unsigned who, uint64_t random)
{
    p->random = random;
    for (;;) {
        play_op(p);
        atomic_store64(&totals->alive[who], totals->alive[who] + 1);
    }
}

static _Noreturn void overwrite(struct play *p, const unsigned char *image)
{
    const struct timespec nap = {.tv_nsec = 50000};
    struct scribbler s;
    uint64_t n = 0, before = totals->scribbles;

    scribble_start(&s, p, SCRIBBLE_ANYWHERE, 0, seed);
    for (;;) {
        /* Few at a time while there is something to damage; then a flood. */
        for (uint64_t i = 0; i < (n % 8 == 7 ? 20000 : 50); i++)
            scribble(&s);
        totals->scribbles = before + s.done;
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        if (n++ % 8 == 7)
            put_back(p, image);
    }
}

static pid_t begin_worker(struct play *p, unsigned who, uint64_t random)
{
    pid_t pid = fork();

    if (pid == 0)
        work(p, who, random);
    if (pid < 0)
        abort();
    return pid;
}

/* Whoever is killed has come to the end of an operation just before: what says
 * why it is about to die is not cut off. False having told of its end. */
static bool is_well(unsigned who, pid_t pid)
{
    const struct timespec nap = {.tv_nsec = 1000000};
    uint64_t seen = atomic_load64(&totals->alive[who]);
    double until = seconds() + STALL_SECONDS;
    int status;
    char text[40];

    while (atomic_load64(&totals->alive[who]) == seen) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            printf("  FAIL a worker beside stray writes: %s\n",
                   ending(status, text));
            return false;
        }
        if (seconds() > until) {
            printf("  FAIL a worker beside stray writes: no operation came to "
                   "its end within %d s\n",
                   STALL_SECONDS);
            return false;
        }
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
    }
    return true;
}

static unsigned play_beside(void)
{
    double until = seconds() + budget, killed = seconds(), moved[WORKERS];
    uint64_t seen[WORKERS] = {0}, before = totals->scribbles, generation = 0;
    pid_t pid[WORKERS], scribbler;
    struct play p = {0};
    unsigned char *image;
    unsigned failed = 0;
    char text[40];

    alone = false;
    play_create(&p, 10);
    image = malloc(p.segment->segment.size);
    if (image == NULL)
        abort();
    memcpy(image, p.segment->segment.base, p.segment->segment.size);
    for (unsigned i = 0; i < WORKERS; i++) {
        pid[i] = begin_worker(&p, i, mix(seed, i));
        moved[i] = seconds();
    }
    scribbler = fork();
    if (scribbler == 0)
        overwrite(&p, image);
    while (failed == 0 && seconds() < until &&
           totals->scribbles - before < scribbles_wanted) {
        const struct timespec nap = {.tv_nsec = 5000000};

        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        for (unsigned i = 0; i < WORKERS; i++) {
            int status;

            if (waitpid(pid[i], &status, WNOHANG) == pid[i]) {
                failed++;
                printf("  FAIL a worker beside stray writes: %s\n",
                       ending(status, text));
                pid[i] = 0;
                continue;
            }
            if (totals->alive[i] != seen[i]) {
                seen[i] = totals->alive[i];
                moved[i] = seconds();
            } else if (seconds() - moved[i] > STALL_SECONDS) {
                failed++;
                printf("  FAIL a worker beside stray writes: no operation "
                       "came to its end within %d s\n",
                       STALL_SECONDS);
            }
        }
        if (failed == 0 && seconds() - killed > KILL_MS / 1000.0) {
            unsigned i = (unsigned)(generation++ % WORKERS);

            if (!is_well(i, pid[i])) {
                failed++;
                pid[i] = 0;
                break;
            }
            (void)__real_kill(pid[i], SIGKILL);
            (void)waitpid(pid[i], NULL, 0);
            pid[i] = begin_worker(&p, i, mix(seed, generation + 100));
            totals->kills++;
            killed = seconds();
        }
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        totals->ops += totals->alive[i];
        if (pid[i] > 0) {
            if (failed == 0 && !is_well(i, pid[i])) {
                failed++;
                continue;
            }
            (void)__real_kill(pid[i], SIGKILL);
            (void)waitpid(pid[i], NULL, 0);
        }
    }
    (void)__real_kill(scribbler, SIGKILL);
    (void)waitpid(scribbler, NULL, 0);
    free(image);
    return failed;
}

/* ---- both --------------------------------------------------------------- */

static void tell(const char *what, double took)
{
    printf("  %s: %" PRIu64 " scribbles, %" PRIu64 " of them in the middle of "
           "an operation; %" PRIu64 " operations in %" PRIu64
           " cases; %" PRIu64 " workers killed; %.0f s\n",
           what, totals->scribbles, totals->inside, totals->ops,
           totals->cases, totals->kills, took);
    if (totals->cases == 0)
        return;
    printf("    %" PRIu64 " times one shard repaired, and sound: %" PRIu64
           " rebuilt, %" PRIu64 " emptied, %" PRIu64 " entries lost\n   ",
           totals->repairs, totals->rebuilt, totals->reset, totals->lost);
    for (int i = 0; i <= -SHD_ERROR_LAST_; i++) {
        if (totals->codes[i] != 0)
            printf(" %s %" PRIu64, shd_strerror_name(-i), totals->codes[i]);
    }
    printf("\n");
}

static uint64_t number(const char *text)
{
    char *rest;
    uint64_t n = strtoull(text, &rest, 10);

    if (*text == '\0' || *rest != '\0') {
        fprintf(stderr, "wild: '%s' is no number\n", text);
        exit(2);
    }
    return n;
}

int main(int argc, char **argv)
{
    unsigned failed = 0, passed = 0;
    bool only_beside = false, only_alone = false;
    double start;

    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;

        if (strcmp(argv[i], "--seconds") == 0 && more)
            budget = (double)number(argv[++i]) / 2, bounded_by_time = true;
        else if (strcmp(argv[i], "--scribbles") == 0 && more)
            scribbles_wanted = number(argv[++i]) / 2;
        else if (strcmp(argv[i], "--seed") == 0 && more)
            seed = number(argv[++i]);
        else if (strcmp(argv[i], "--case") == 0 && more)
            only_case = (int64_t)number(argv[++i]);
        else if (strcmp(argv[i], "--alone") == 0)
            only_alone = true;
        else if (strcmp(argv[i], "--beside") == 0)
            only_beside = true;
        else {
            fprintf(stderr,
                    "usage: wild [--seconds N] [--scribbles N] [--seed N] "
                    "[--case N] [--alone] [--beside]\n");
            return 2;
        }
    }
    /* As long as it takes. */
    if (scribbles_wanted != UINT64_MAX && !bounded_by_time)
        budget = 1e9, bounded_by_time = true;
    totals = mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (totals == MAP_FAILED)
        return 2;
    if (!only_beside) {
        start = seconds();
        unsigned bad = play_alone();
        tell("alone", seconds() - start);
        failed += bad;
        passed += bad == 0;
    }
    if (only_case < 0 && !only_alone) {
        memset(totals, 0, sizeof(*totals));
        start = seconds();
        unsigned bad = play_beside();
        tell("beside", seconds() - start);
        failed += bad;
        passed += bad == 0;
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0 || passed == 0;
}
