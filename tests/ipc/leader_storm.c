/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Workers that stand for leader, resign, drain, and are killed by SIGKILL.
 *
 * Who finds that it leads writes itself into a word of the books, and takes
 * itself out before it looks again or resigns: what it finds there is nobody,
 * or one that is dead. Tokens only grow. With all kills done exactly one of
 * those that live leads, and none that drains.
 * Last line: N passed, N failed.
 */
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

#define WORKERS 6u
#define HUNG_S 60

struct books {
    uint64_t leads;  /* incarnation; 0: nobody says so just now */
    uint64_t token;  /* the last one seen */
    uint64_t terms;  /* looks that said yes, with another token than before */
    uint64_t inherited; /* of them from one that died */
    uint64_t two;    /* leaders at once */
    uint64_t back;   /* tokens that were smaller than one before */
    uint64_t failed; /* calls that failed */
    uint32_t stopped;
    uint32_t last;   /* who lead when all was quiet */
    bool stop;
};

static struct books *books;
static shd_segment *segment;
static shd_leader *leader;
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

static void count(uint64_t *what)
{
    __atomic_add_fetch(what, 1, __ATOMIC_RELAXED);
}

static _Noreturn void give_up(const char *call, int rc)
{
    fprintf(stderr, "%s gave %s: %s\n", call, shd_strerror_name(rc),
            shd_last_error());
    count(&books->failed);
    _exit(1);
}

/* A worker's slot is in the lower 16 bits. */
static bool lives(uint64_t incarnation)
{
    struct shd_worker_info w = {.struct_size = sizeof(w)};

    return shd_worker_info(segment, incarnation & 0xffff, &w) == SHD_OK &&
           w.incarnation == incarnation && w.state == SHD_WORKER_ALIVE;
}

static void put_out(uint64_t me)
{
    uint64_t mine = me;

    (void)__atomic_compare_exchange_n(&books->leads, &mine, 0, false,
                                      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static bool look(uint64_t me, int64_t wait_ms)
{
    struct shd_grant g;
    uint64_t before;
    int rc;

    put_out(me);
    rc = shd_leader_look(leader, wait_ms, &g);
    if (rc == 1)
        return false;
    if (rc != SHD_OK)
        give_up("look", rc);
    before = __atomic_exchange_n(&books->leads, me, __ATOMIC_SEQ_CST);
    if (before != 0 && before != me && lives(before))
        count(&books->two);
    before = __atomic_exchange_n(&books->token, g.token, __ATOMIC_SEQ_CST);
    if (before > g.token)
        count(&books->back);
    if (before != g.token) {
        count(&books->terms);
        if (g.former == SHD_FORMER_DIED)
            count(&books->inherited);
    }
    return true;
}

static _Noreturn void work(void)
{
    uint64_t me;
    int rc;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    random_state = (unsigned)getpid() * 0x9e3779b97f4a7c15ull | 1;
    rc = shd_worker_join(segment, &me);
    if (rc != SHD_OK)
        give_up("join", rc);
    while (!__atomic_load_n(&books->stop, __ATOMIC_ACQUIRE)) {
        (void)look(me, (int64_t)(random_of() % 3));
        if (random_of() % 50 == 0) {
            put_out(me);
            rc = shd_leader_resign(leader);
            if (rc != SHD_OK)
                give_up("resign", rc);
        }
        /* As a rolling restart does with it; it will not lead again. */
        if (random_of() % 400 == 0) {
            rc = shd_worker_set_phase(segment, me, SHD_PHASE_DRAINING);
            for (int i = 0; rc == SHD_OK && i < 20; i++)
                (void)look(me, 1);
            put_out(me);
            if (rc == SHD_OK)
                rc = shd_leader_resign(leader);
            if (rc == SHD_OK)
                rc = shd_worker_set_phase(segment, me, SHD_PHASE_READY);
            if (rc != SHD_OK)
                give_up("draining", rc);
        }
    }
    /* All look, then all look again, and say what they saw. */
    (void)look(me, 0);
    __atomic_add_fetch(&books->stopped, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&books->stopped, __ATOMIC_SEQ_CST) < WORKERS)
        (void)look(me, 1);
    if (look(me, 0))
        __atomic_add_fetch(&books->last, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&books->stopped, 1, __ATOMIC_SEQ_CST);
    /* And nobody dies before all have. */
    while (__atomic_load_n(&books->stopped, __ATOMIC_SEQ_CST) < 2 * WORKERS)
        (void)usleep(1000);
    _exit(0);
}

static pid_t start(void)
{
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0)
        work();
    return pid;
}

static void nap(long us)
{
    struct timespec t = {.tv_sec = us / 1000000,
                         .tv_nsec = us % 1000000 * 1000};

    (void)nanosleep(&t, NULL);
}

static double now_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool end_all(const pid_t pid[WORKERS])
{
    double late = now_s() + HUNG_S;
    bool good = true;

    __atomic_store_n(&books->stop, true, __ATOMIC_RELEASE);
    for (uint32_t i = 0; i < WORKERS; i++) {
        int status;
        pid_t got;

        while ((got = waitpid(pid[i], &status, WNOHANG)) == 0 &&
               now_s() < late)
            nap(2000);
        if (got == 0) {
            (void)kill(pid[i], SIGKILL);
            got = waitpid(pid[i], &status, 0);
        }
        good = good && got == pid[i] && WIFEXITED(status) &&
               WEXITSTATUS(status) == 0;
    }
    return good;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 3, end;
    struct shd_segment_options so = {.struct_size = sizeof(so),
                                     .size_bytes = 16 << 20,
                                     .workers_max = 64};
    struct shd_lock_options o = {.struct_size = sizeof(o),
                                 .flags = SHD_LOCK_CREATE};
    pid_t pid[WORKERS];
    uint64_t kills = 0;
    char report[400] = "";
    int rc;

    if (seconds <= 0) {
        fprintf(stderr, "usage: leader_storm [SECONDS]\n");
        return 2;
    }
    random_state = (uint64_t)time(NULL) << 20 | (uint64_t)getpid();
    books = mmap(NULL, sizeof(*books), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (books == MAP_FAILED ||
        shd_segment_create(NULL, &so, &segment) != SHD_OK ||
        shd_leader_open(segment, "storm", &o, &leader) != SHD_OK) {
        say(false, "a segment and a leader");
        printf("%u passed, %u failed\n", passed, failures);
        return 1;
    }
    for (uint32_t i = 0; i < WORKERS; i++)
        pid[i] = start();
    for (end = now_s() + seconds; now_s() < end;) {
        uint32_t i = (uint32_t)(random_of() % WORKERS);
        int status;

        nap((long)(random_of() % 6000));
        (void)kill(pid[i], SIGKILL);
        if (waitpid(pid[i], &status, 0) != pid[i])
            break;
        kills += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        /* Now and then nobody reaps, and those who stand find out. */
        if (random_of() % 2 == 0 && shd_reap(segment, NULL) != SHD_OK)
            say(false, "a reap");
        pid[i] = start();
    }
    /* On a loaded machine nobody may have looked yet. */
    for (end = now_s() + HUNG_S;
         now_s() < end &&
         __atomic_load_n(&books->terms, __ATOMIC_RELAXED) == 0;)
        nap(2000);
    say(end_all(pid), "everybody comes to an end");
    printf("  %" PRIu64 " killed, %" PRIu64 " leaders, %" PRIu64
           " of them after a death\n",
           kills, books->terms, books->inherited);
    say(kills > 0 && books->terms > 0, "leaders came and were killed");
    say(books->two == 0, "there were never two");
    say(books->back == 0, "tokens only grow");
    say(books->last == 1, "one leads at the end");
    say(books->failed == 0, "no call failed");
    rc = shd_reap(segment, NULL);
    say(rc == SHD_OK, "the dead are reaped");
    rc = shd_segment_check(segment, report, sizeof(report));
    if (rc != SHD_OK)
        printf("  %s\n", report);
    say(rc == SHD_OK, "every invariant holds");
    if (shd_segment_close(segment) != SHD_OK)
        say(false, "the segment is closed");
    printf("= %" PRIu64 " kills\n", kills);
    printf("%u passed, %u failed\n", passed, failures);
    return failures == 0 ? 0 : 1;
}
