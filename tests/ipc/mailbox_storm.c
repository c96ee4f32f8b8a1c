/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Workers that write to each other, ask and answer, killed by SIGKILL, and an
 * audit.
 *
 * Each message says who made it and its number there; its bytes, and those of
 * its answer, follow from both. The books are in memory of their own, which no
 * death can harm: a sender notes a number before it sends it, whom it was sent
 * to after sending returned, and what became of a request; a receiver what it
 * got, and what it had answered when that returned.
 *
 *   calm   nobody is killed: each post is received and each request answered,
 *          exactly once
 *   storm  workers die at any instruction, and others take their place:
 *          nothing is received or answered twice; SHD_DEAD is said of the dead
 *          only; each request of one that lives ends, with its answer if there
 *          was one; each post to one that lives is received
 *
 * At the end nobody has a box, not a cell is in use, and every invariant holds.
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

#define WORKERS 6u
#define NUMBERS (1u << 19) /* a worker's messages, at most */
#define OUTSTANDING 4u
#define LONGEST 30000u
#define HUNG_S 60

enum { NONE, ANSWERED, DEAD, DECLINED, CANCELLED };

struct head {
    uint32_t worker, number;
    uint64_t seed;
    uint32_t request, answer;
};

struct note {
    uint64_t to;      /* sent to; 0: it is not known that it was */
    uint64_t from;    /* the incarnation that sent it */
    uint8_t request;
    uint8_t outcome;  /* of a request */
    uint8_t got;      /* times received */
    uint8_t served;   /* times answered */
};

struct books {
    uint32_t begun[WORKERS];
    uint64_t incarnation[WORKERS]; /* of the worker now; 0: it begins */
    uint32_t busy[WORKERS];        /* its requests that have not ended */
    uint32_t answered[WORKERS];    /* its requests that were answered */
    uint32_t posted;               /* by anybody, ever */
    struct note note[WORKERS][NUMBERS];
    uint64_t wrong;  /* messages whose bytes were not theirs */
    uint64_t failed; /* calls that failed */
    uint64_t untrue; /* SHD_DEAD of one that lives */
    uint32_t stopped; /* workers that send no more */
    bool stop;
};

static struct books *books;
static shd_segment *segment;
static shd_mailbox *mailbox;
static unsigned char text[LONGEST + sizeof(struct head)];
static unsigned char buf[LONGEST + sizeof(struct head)];
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

static uint64_t read64(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static _Noreturn void give_up(const char *call, int rc)
{
    fprintf(stderr, "%s gave %s: %s\n", call, shd_strerror_name(rc),
            shd_last_error());
    count(&books->failed);
    _exit(1);
}

/* ---- messages ---------------------------------------------------------- */

static size_t length_of(const struct head *h)
{
    uint64_t seed = h->answer ? h->seed >> 20 : h->seed;
    uint64_t kind = seed % 100;

    return sizeof(*h) + (size_t)(kind < 80   ? seed % 200
                                 : kind < 98 ? seed % 3000
                                             : seed % LONGEST);
}

static void fill(const struct head *h)
{
    uint64_t r = (h->seed + h->answer) | 1;

    memcpy(text, h, sizeof(*h));
    for (size_t i = sizeof(*h); i < length_of(h); i++) {
        r = r * 6364136223846793005ull + 1442695040888963407ull;
        text[i] = (unsigned char)(r >> 56);
    }
}

/* What lies in buf; false: it is no message of ours. */
static bool read_head(struct head *h, uint64_t len)
{
    memcpy(h, buf, sizeof(*h));
    if (len < sizeof(*h) || h->worker >= WORKERS || h->number >= NUMBERS ||
        len != length_of(h))
        return false;
    fill(h);
    return memcmp(text, buf, len) == 0;
}

/* ---- workers ----------------------------------------------------------- */

static uint64_t me;
static uint32_t self;
static struct {
    uint64_t request;
    uint32_t number;
} asked[OUTSTANDING];

/* A worker's slot is in the lower 16 bits. */
static bool lives(uint64_t incarnation)
{
    struct shd_worker_info w = {.struct_size = sizeof(w)};

    return shd_worker_info(segment, incarnation & 0xffff, &w) == SHD_OK &&
           w.incarnation == incarnation && w.state == SHD_WORKER_ALIVE;
}

static bool is_no(int rc)
{
    return rc == SHD_FULL || rc == SHD_DEAD || rc == SHD_NOTFOUND;
}

static void ended(uint32_t i, uint8_t outcome)
{
    books->note[self][asked[i].number].outcome = outcome;
    __asm__ __volatile__("" ::: "memory");
    asked[i].request = 0;
    if (outcome == ANSWERED)
        __atomic_add_fetch(&books->answered[self], 1, __ATOMIC_RELAXED);
    __atomic_sub_fetch(&books->busy[self], 1, __ATOMIC_RELEASE);
}

static void send_one(void)
{
    uint64_t to = read64(&books->incarnation[random_of() % WORKERS]);
    struct head h = {.worker = self, .number = books->begun[self]};
    uint32_t i = (uint32_t)(random_of() % OUTSTANDING);
    struct note *note = &books->note[self][h.number];
    int64_t wait_ms = random_of() % 8 == 0 ? 2 : 0;
    int rc;

    if (to == 0 || h.number + 1 >= NUMBERS)
        return;
    h.request = asked[i].request == 0 && random_of() % 3 != 0;
    h.seed = random_of();
    note->from = me;
    note->request = (uint8_t)h.request;
    books->begun[self] = h.number + 1;
    __asm__ __volatile__("" ::: "memory");
    fill(&h);
    if (h.request) {
        __atomic_add_fetch(&books->busy[self], 1, __ATOMIC_RELEASE);
        rc = shd_mailbox_request(mailbox, to, text, length_of(&h),
                                 random_of() % 2 ? 0 : random_of() % 1000,
                                 wait_ms, &asked[i].request);
        asked[i].number = h.number;
    } else {
        rc = shd_mailbox_post(mailbox, to, text, length_of(&h), wait_ms,
                              NULL);
    }
    if (rc == SHD_OK) {
        note->to = to;
        if (!h.request)
            __atomic_add_fetch(&books->posted, 1, __ATOMIC_RELAXED);
        return;
    }
    if (!is_no(rc))
        give_up("sending", rc);
    if (rc == SHD_DEAD && lives(to))
        count(&books->untrue);
    if (h.request)
        ended(i, CANCELLED);
}

static void look_at(uint32_t i, int64_t wait_ms)
{
    struct shd_mail m;
    struct head h;
    int rc;

    if (asked[i].request == 0)
        return;
    if (random_of() % 60 == 0) {
        rc = shd_mailbox_cancel(mailbox, asked[i].request);
        if (rc != SHD_OK)
            give_up("cancel", rc);
        ended(i, CANCELLED);
        return;
    }
    rc = shd_mailbox_await(mailbox, asked[i].request, buf, sizeof(buf),
                           wait_ms, &m);
    if (rc == 1)
        return;
    if (rc == SHD_OK) {
        if (!read_head(&h, m.len) || h.worker != self ||
            h.number != asked[i].number || !h.answer)
            count(&books->wrong);
        ended(i, ANSWERED);
    } else if (rc == SHD_DEAD) {
        if (lives(m.to))
            count(&books->untrue);
        ended(i, DEAD);
    } else if (rc == SHD_LOST) {
        ended(i, DECLINED);
    } else {
        give_up("await", rc);
    }
}

static void serve(struct head *h, uint64_t request)
{
    struct note *note = &books->note[h->worker][h->number];
    int rc;

    if (random_of() % 40 == 0) {
        rc = shd_mailbox_decline(mailbox, request);
        if (rc != SHD_OK && rc != SHD_LOST)
            give_up("decline", rc);
        return;
    }
    h->answer = 1;
    fill(h);
    rc = shd_mailbox_answer(mailbox, request, text, length_of(h), 0);
    /* There may be no room for a longer one just now. */
    if (rc == SHD_FULL) {
        rc = shd_mailbox_decline(mailbox, request);
        if (rc == SHD_OK || rc == SHD_LOST)
            return;
    }
    if (rc == SHD_OK)
        __atomic_add_fetch(&note->served, 1, __ATOMIC_RELAXED);
    else if (rc != SHD_LOST)
        give_up("answer", rc);
}

/* false: there was nothing. */
static bool receive_one(int64_t wait_ms)
{
    struct shd_mail m;
    struct head h;
    int rc = shd_mailbox_receive(mailbox, buf, sizeof(buf), wait_ms, &m);

    if (rc == SHD_NOTFOUND)
        return false;
    if (rc != SHD_OK)
        give_up("receive", rc);
    if (!read_head(&h, m.len) || h.answer ||
        (h.request != 0) != (m.request != 0)) {
        count(&books->wrong);
        return true;
    }
    __atomic_add_fetch(&books->note[h.worker][h.number].got, 1,
                       __ATOMIC_RELAXED);
    if (m.request != 0)
        serve(&h, m.request);
    return true;
}

static bool all_quiet(void)
{
    if (__atomic_load_n(&books->stopped, __ATOMIC_ACQUIRE) != WORKERS)
        return false;
    for (uint32_t i = 0; i < WORKERS; i++)
        if (__atomic_load_n(&books->busy[i], __ATOMIC_ACQUIRE) != 0)
            return false;
    return true;
}

static _Noreturn void work(uint32_t worker)
{
    int rc;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    random_state = (unsigned)getpid() * 0x9e3779b97f4a7c15ull | 1;
    self = worker;
    rc = shd_worker_join(segment, &me);
    if (rc == SHD_OK)
        rc = shd_mailbox_listen(mailbox);
    if (rc != SHD_OK)
        give_up("listen", rc);
    __atomic_store_n(&books->incarnation[self], me, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&books->stop, __ATOMIC_ACQUIRE)) {
        if (random_of() % 2 == 0)
            send_one();
        (void)receive_one(random_of() % 4 == 0 ? 1 : 0);
        look_at((uint32_t)(random_of() % OUTSTANDING),
                random_of() % 4 == 0 ? 1 : 0);
    }
    __atomic_add_fetch(&books->stopped, 1, __ATOMIC_RELEASE);
    /* Others want answers as long as they have asked for some. */
    while (!all_quiet()) {
        (void)receive_one(1);
        for (uint32_t i = 0; i < OUTSTANDING; i++)
            look_at(i, 0);
    }
    while (receive_one(20))
        continue;
    _exit(0);
}

static pid_t start(uint32_t worker)
{
    pid_t pid;

    fflush(stdout);
    __atomic_store_n(&books->incarnation[worker], 0, __ATOMIC_RELEASE);
    __atomic_store_n(&books->busy[worker], 0, __ATOMIC_RELEASE);
    __atomic_store_n(&books->answered[worker], 0, __ATOMIC_RELEASE);
    pid = fork();
    if (pid == 0)
        work(worker);
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

/* ---- the books --------------------------------------------------------- */

static bool survived(uint64_t incarnation)
{
    for (uint32_t i = 0; i < WORKERS; i++)
        if (incarnation != 0 && books->incarnation[i] == incarnation)
            return true;
    return false;
}

static void audit(bool calm)
{
    uint64_t posts = 0, requests = 0, lost = 0, twice = 0, open = 0;
    uint64_t unanswered = 0, unserved = 0, dead = 0, answered = 0;

    for (uint32_t w = 0; w < WORKERS; w++) {
        for (uint32_t n = 0; n < books->begun[w]; n++) {
            const struct note *i = &books->note[w][n];

            twice += i->got > 1 || i->served > 1;
            if (i->to == 0)
                continue;
            posts += !i->request;
            requests += i->request;
            lost += !i->request && i->got == 0 && survived(i->to);
            if (!i->request || !survived(i->from))
                continue;
            answered += i->outcome == ANSWERED;
            dead += i->outcome == DEAD;
            open += i->outcome == NONE;
            unanswered += i->served > 0 && i->outcome != ANSWERED &&
                          i->outcome != CANCELLED;
            /* Who answered may have died before it wrote that down. */
            unserved += i->outcome == ANSWERED && i->served == 0 &&
                        survived(i->to);
        }
    }
    printf("  %" PRIu64 " posts, %" PRIu64 " requests; of survivors %" PRIu64
           " answered, %" PRIu64 " failed by a death\n",
           posts, requests, answered, dead);
    say(posts > 0 && requests > 0 && answered > 0,
        "messages were sent, and answered");
    say(lost == 0, "each post to one that lived was received");
    say(twice == 0, "nothing was received, or answered, twice");
    say(open == 0, "each request of one that lived has ended");
    say(unanswered == 0 && unserved == 0,
        "each answer came to who asked, and none from nobody");
    say(books->untrue == 0 && (!calm || dead == 0),
        "only the dead were said to be dead");
    say(books->wrong == 0, "bytes are what they should be");
    say(books->failed == 0, "no call failed");
}

static void nothing_is_left(void)
{
    struct shd_mailbox_info i = {.struct_size = sizeof(i)};
    char report[400] = "";
    int rc = shd_reap(segment, NULL);

    say(rc == SHD_OK, "the dead are reaped");
    rc = shd_segment_check(segment, report, sizeof(report));
    if (rc != SHD_OK)
        printf("  %s\n", report);
    say(rc == SHD_OK, "every invariant holds");
    rc = shd_mailbox_info(mailbox, &i);
    say(rc == SHD_OK && i.cells_used == 0 && i.bytes == 0 && i.boxes == 0 &&
            i.waiting == 0 && i.working == 0 && i.answers == 0,
        "no cell, no box leaks");
    printf("  %" PRIu64 " answered, %" PRIu64 " declined, %" PRIu64
           " failed, %" PRIu64 " withdrawn\n",
           i.answered, i.declined, i.failed, i.withdrawn);
}

static bool open_all(void)
{
    struct shd_segment_options so = {.struct_size = sizeof(so),
                                     .size_bytes = 64 << 20,
                                     .workers_max = 64};
    struct shd_mailbox_options o = {.struct_size = sizeof(o),
                                    .capacity_bytes = 512 << 10};

    memset(books, 0, sizeof(*books));
    return shd_segment_create(NULL, &so, &segment) == SHD_OK &&
           shd_mailbox_open(segment, "storm", &o, &mailbox) == SHD_OK;
}

/* On a loaded machine those who live may not have come to anything yet. */
static void wait_for_something(void)
{
    double late = now_s() + HUNG_S;
    uint32_t answered = 0;

    while (now_s() < late) {
        for (uint32_t i = 0; i < WORKERS; i++)
            answered +=
                __atomic_load_n(&books->answered[i], __ATOMIC_RELAXED);
        if (answered > 0 &&
            __atomic_load_n(&books->posted, __ATOMIC_RELAXED) > 0)
            return;
        nap(2000);
    }
}

/* All come to an end, or hang and are killed. */
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

static uint64_t round_of(double seconds, bool calm)
{
    double end = now_s() + seconds;
    pid_t pid[WORKERS];
    uint64_t kills = 0;

    printf("%s\n", calm ? "calm" : "storm");
    if (!open_all()) {
        say(false, "a segment and a mailbox");
        return 0;
    }
    for (uint32_t i = 0; i < WORKERS; i++)
        pid[i] = start(i);
    while (now_s() < end) {
        uint32_t i = (uint32_t)(random_of() % WORKERS);
        int status;

        nap(calm ? 20000 : (long)(random_of() % 6000));
        if (calm)
            continue;
        (void)kill(pid[i], SIGKILL);
        if (waitpid(pid[i], &status, 0) != pid[i])
            break;
        kills += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        /* Now and then nobody reaps, and those who wait find out. */
        if (random_of() % 2 == 0 && shd_reap(segment, NULL) != SHD_OK)
            say(false, "a reap");
        pid[i] = start(i);
    }
    wait_for_something();
    say(end_all(pid), "everybody comes to an end");
    if (!calm) {
        printf("  %" PRIu64 " killed\n", kills);
        say(kills > 0, "workers were killed");
    }
    nothing_is_left();
    audit(calm);
    if (shd_segment_close(segment) != SHD_OK)
        say(false, "the segment is closed");
    return kills;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 5;
    uint64_t kills = 0;

    if (seconds <= 0) {
        fprintf(stderr, "usage: mailbox_storm [SECONDS]\n");
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

        (void)round_of(part / 4, true);
        kills += round_of(part * 3 / 4, false);
    }
    printf("= %" PRIu64 " kills\n", kills);
    printf("%u passed, %u failed\n", passed, failures);
    return failures == 0 ? 0 : 1;
}
