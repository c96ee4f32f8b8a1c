/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A storm over topics, locks and semaphores: workers hold, wait, publish and
 * subscribe, and are killed by SIGKILL at any moment; each is replaced. What
 * they do is written down in memory beside the segment (the books), by rules
 * that hold whenever the writer dies, and compared with what must be so:
 *
 *   lock        who gets it finds nobody in the books, or one who was killed,
 *               and is told so; tokens only grow
 *   semaphore   the same of each permit
 *   topics      who goes on by a name is given each event, or told that it was
 *               missed, from where the one before it had got to; data is whole;
 *               received + missed = published, in the end
 *   lossless    the same, and nothing is missed while its subscriber lives
 *   in the end  nothing is held, nobody is in line, every permit can be had,
 *               every invariant holds
 *
 * A worker that is not killed must get what it waits for: the books say how
 * often. Killed is written down before the kill.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/base/atomic.h"
#include "shm/shdict.h"

#define PERMITS 3u
#define NAMES 2u /* subscribers by name, of each topic */
#define PATIENCE_MS 60000
#define WORKERS_EVER 2000000u
#define EVENT_MAX 700u

enum role {
    HOLDER,   /* of the lock */
    INSIDE,   /* of the semaphore */
    PUBLISHER, /* of both topics */
    LISTENER, /* to the lossy one, without a name */
    NAMED,    /* of the lossy one */
    STRICT,   /* named, of the lossless one */
    ROLES
};
static const uint32_t COUNTS[ROLES] = {4, 5, 2, 1, NAMES, NAMES};

/* How far a name has got: two copies, and which one counts. */
struct progress {
    uint32_t which, pad;
    struct got {
        uint64_t upto; /* number of the last event that is accounted for */
        uint64_t received, missed;
    } got[2];
};

struct books {
    uint64_t stop;
    uint64_t stop_publishing;
    struct held {
        uint64_t holder; /* number of the worker that has it; 0: none */
        uint64_t token;  /* the last one */
        uint64_t died;   /* times one was told its predecessor had died */
    } lock, permit[PERMITS];
    uint64_t guarded[2]; /* changed under the lock: equal when nobody holds */
    uint64_t acquired, entered, published[2], listened, lapped;
    uint64_t failures;
    struct progress named[NAMES], strict[NAMES];
    uint8_t killed[WORKERS_EVER];
};

static struct books *books;
static shd_segment *segment;
static uint64_t self; /* this worker's number, from 1 */
static uint64_t seed;

/* ---- helpers -------------------------------------------------------------- */

static void complain(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

static void complain(const char *format, ...)
{
    va_list list;
    char text[400];
    int n = snprintf(text, sizeof(text), "FAIL worker %" PRIu64 ": ", self);

    va_start(list, format);
    vsnprintf(text + n, sizeof(text) - (size_t)n, format, list);
    va_end(list);
    printf("%s\n", text);
    fflush(stdout);
    __sync_fetch_and_add(&books->failures, 1);
}

static bool is_good(int rc, const char *what)
{
    if (rc == SHD_OK)
        return true;
    complain("%s gave %s: %s", what, shd_strerror_name(rc), shd_last_error());
    return false;
}

static uint64_t random_next(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed >> 11;
}

static bool is_over(void)
{
    return atomic_load64(&books->stop) != 0;
}

static void nap_us(long us)
{
    struct timespec t = {.tv_sec = us / 1000000,
                         .tv_nsec = us % 1000000 * 1000};

    nanosleep(&t, NULL);
}

static bool was_killed(uint64_t worker)
{
    return worker < WORKERS_EVER && atomic_load8(&books->killed[worker]) != 0;
}

static void count(uint64_t *n)
{
    (void)__sync_fetch_and_add(n, 1);
}

/* ---- the lock ------------------------------------------------------------- */

/* Writes this worker down as the holder of one permit. */
static void take(struct held *h, const struct shd_grant *grant,
                 const char *what)
{
    uint64_t former = __sync_lock_test_and_set(&h->holder, self);

    if (former != 0 && !was_killed(former))
        complain("two holders: worker %" PRIu64 " has the %s too", former,
                 what);
    if (former != 0 && grant->former != SHD_FORMER_DIED)
        complain("worker %" PRIu64 " died with the %s, and nobody told",
                 former, what);
    if (grant->token <= h->token)
        complain("token %" PRIu64 " of the %s after %" PRIu64, grant->token,
                 what, h->token);
    h->token = grant->token;
    h->died += grant->former == SHD_FORMER_DIED;
}

static void part_with(struct held *h, const char *what)
{
    if (!__sync_bool_compare_and_swap(&h->holder, self, 0))
        complain("another one has written itself down as holding the %s",
                 what);
}

static void hold(const struct shd_grant *grant)
{
    take(&books->lock, grant, "lock");
    if (grant->former != SHD_FORMER_DIED &&
        books->guarded[0] != books->guarded[1])
        complain("what the lock guards was left half changed");
    books->guarded[0] = grant->token;
    if (random_next() % 4 == 0)
        nap_us((long)(random_next() % 300));
    books->guarded[1] = grant->token;
    atomic_compiler_barrier();
    part_with(&books->lock, "lock");
}

static void work_holder(void)
{
    struct shd_lock_options o = {.struct_size = sizeof(o),
                                 .flags = SHD_LOCK_CREATE};
    struct shd_grant grant;
    shd_lock *lock;

    if (!is_good(shd_lock_open(segment, "lock", SHD_OBJECT_LOCK, &o, &lock),
                 "opening the lock"))
        return;
    while (!is_over()) {
        if (!is_good(shd_lock_acquire(lock, PATIENCE_MS, 0, &grant),
                     "acquiring the lock"))
            return;
        hold(&grant);
        count(&books->acquired);
        if (!is_good(shd_lock_release(lock, grant.token), "releasing"))
            return;
    }
}

/* ---- the semaphore -------------------------------------------------------- */

static void work_inside(void)
{
    struct shd_lock_options o = {.struct_size = sizeof(o),
                                 .flags = SHD_LOCK_CREATE,
                                 .permits = PERMITS};
    struct shd_grant grant;
    shd_lock *semaphore;

    if (!is_good(shd_lock_open(segment, "semaphore", SHD_OBJECT_SEMAPHORE, &o,
                               &semaphore),
                 "opening the semaphore"))
        return;
    while (!is_over()) {
        struct held *permit;

        if (!is_good(shd_lock_acquire(semaphore, PATIENCE_MS, 0, &grant),
                     "acquiring a permit"))
            return;
        permit = &books->permit[grant.token % PERMITS];
        take(permit, &grant, "permit");
        if (random_next() % 4 == 0)
            nap_us((long)(random_next() % 300));
        part_with(permit, "permit");
        count(&books->entered);
        if (!is_good(shd_lock_release(semaphore, grant.token),
                     "giving a permit back"))
            return;
    }
}

/* ---- topics --------------------------------------------------------------- */

static shd_topic *open_topic(bool lossless)
{
    struct shd_topic_options o = {.struct_size = sizeof(o),
                                  .flags = SHD_TOPIC_CREATE,
                                  .capacity_bytes = 32768};
    shd_topic *topic = NULL;

    if (lossless)
        o.flags |= SHD_TOPIC_LOSSLESS;
    (void)is_good(shd_topic_open(segment, lossless ? "strict" : "news", &o,
                                 &topic),
                  "opening a topic");
    return topic;
}

/* An event tells its length and its bytes by its first eight. */
static size_t make_event(unsigned char *to, uint64_t n)
{
    size_t len = 8 + n % (EVENT_MAX - 8);

    memcpy(to, &n, 8);
    for (size_t i = 8; i < len; i++)
        to[i] = (unsigned char)(n + i * 5);
    return len;
}

static bool is_event(const unsigned char *at, uint64_t len)
{
    unsigned char want[EVENT_MAX];
    uint64_t n;

    if (len < 8)
        return false;
    memcpy(&n, at, 8);
    return make_event(want, n) == len && memcmp(at, want, len) == 0;
}

static void work_publisher(void)
{
    shd_topic *news = open_topic(false), *strict = open_topic(true);
    unsigned char event[EVENT_MAX];

    if (news == NULL || strict == NULL)
        return;
    while (!is_over() && atomic_load64(&books->stop_publishing) == 0) {
        bool lossless = random_next() % 2 == 0;
        size_t len = make_event(event, random_next());
        int rc = shd_topic_publish(lossless ? strict : news, event, len, 50,
                                   NULL);

        /* Its subscribers may be slow. */
        if (lossless && rc == SHD_FULL)
            continue;
        if (!is_good(rc, "publishing"))
            return;
        count(&books->published[lossless]);
        if (random_next() % 8 == 0)
            nap_us((long)(random_next() % 200));
    }
}

/* Accounts for a batch: what came before it was missed. */
static void account(struct progress *p, const struct shd_event *events,
                    uint32_t n, uint64_t missed, bool strict, bool first)
{
    struct got g = p->got[p->which];
    uint64_t base = events[0].seq - missed; /* everything from here on */

    if (base > g.upto + 1)
        complain("events %" PRIu64 " to %" PRIu64 " were neither given nor "
                 "said to be missed", g.upto + 1, base - 1);
    if (strict && missed > 0 && !first)
        complain("%" PRIu64 " events of a lossless topic were missed by one "
                 "who was there", missed);
    if (events[0].seq > g.upto + 1)
        g.missed += events[0].seq - 1 - g.upto;
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0 && events[i].seq != events[i - 1].seq + 1)
            complain("event %" PRIu64 " after %" PRIu64, events[i].seq,
                     events[i - 1].seq);
        g.received += events[i].seq > g.upto;
    }
    if (events[0].seq - 1 > g.upto)
        g.upto = events[0].seq - 1;
    if (events[n - 1].seq > g.upto)
        g.upto = events[n - 1].seq;
    p->got[1 - p->which] = g;
    atomic_compiler_barrier();
    atomic_store32(&p->which, 1 - p->which);
}

static void check_events(const unsigned char *buf,
                         const struct shd_event *events, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!is_event(buf + events[i].at, events[i].len))
            complain("event %" PRIu64 " is torn", events[i].seq);
}

/* Until all has been read that was published. */
static void work_named(uint32_t number, bool lossless)
{
    struct progress *p =
        lossless ? &books->strict[number] : &books->named[number];
    static unsigned char buf[65536];
    static struct shd_event events[64];
    shd_topic *topic = open_topic(lossless);
    shd_subscription *s;
    char name[16];
    bool first = true;
    uint64_t late = 0;

    snprintf(name, sizeof(name), "name %u", number);
    if (topic == NULL ||
        !is_good(shd_topic_subscribe(topic, name, SHD_FROM_OLDEST, &s),
                 "subscribing by name"))
        return;
    for (;;) {
        bool over = is_over();
        uint64_t missed;
        uint32_t n;
        int rc = shd_subscription_next(s, buf, sizeof(buf), 20, events,
                                       1 + (uint32_t)(random_next() % 64), &n,
                                       &missed);

        if (rc == SHD_NOTFOUND && over)
            break;
        if (rc == SHD_NOTFOUND)
            continue;
        if (!is_good(rc, "reading"))
            return;
        late += missed;
        if (n == 0)
            continue;
        check_events(buf, events, n);
        account(p, events, n, late, lossless, first);
        late = 0;
        first = false;
        if (random_next() % 16 == 0)
            nap_us((long)(random_next() % 2000));
    }
    (void)is_good(shd_subscription_close(s), "closing a subscription");
}

static void work_listener(void)
{
    static unsigned char buf[65536];
    static struct shd_event events[64];
    shd_topic *topic = open_topic(false);
    shd_subscription *s;
    uint64_t want = 0;

    if (topic == NULL ||
        !is_good(shd_topic_subscribe(topic, NULL, SHD_FROM_NOW, &s),
                 "subscribing"))
        return;
    while (!is_over()) {
        uint64_t missed;
        uint32_t n;
        int rc = shd_subscription_next(s, buf, sizeof(buf), 20, events, 64, &n,
                                       &missed);

        if (rc == SHD_NOTFOUND)
            continue;
        if (!is_good(rc, "listening"))
            return;
        check_events(buf, events, n);
        if (missed > 0)
            count(&books->lapped);
        for (uint32_t i = 0; i < n; i++) {
            if (want == 0)
                want = events[i].seq;
            else if (i == 0)
                want += missed;
            if (events[i].seq != want)
                complain("event %" PRIu64 " instead of %" PRIu64,
                         events[i].seq, want);
            want = events[i].seq + 1;
        }
        if (n == 0)
            want += missed;
        count(&books->listened);
        if (random_next() % 64 == 0)
            nap_us(20000);
    }
}

/* ---- the parent ----------------------------------------------------------- */

struct place {
    enum role role;
    uint32_t number; /* among those of its role */
    pid_t pid;
    uint64_t worker;
};

#define PLACES_MAX 32u
static struct place places[PLACES_MAX];
static uint32_t places_count;
static uint64_t workers;

static _Noreturn void work(const struct place *p)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        _exit(1);
    self = p->worker;
    seed = seed * 0x9e3779b97f4a7c15ull + self * 2 + 1;
    switch (p->role) {
    case HOLDER:
        work_holder();
        break;
    case INSIDE:
        work_inside();
        break;
    case PUBLISHER:
        work_publisher();
        break;
    case LISTENER:
        work_listener();
        break;
    default:
        work_named(p->number, p->role == STRICT);
        break;
    }
    _exit(0);
}

static bool begin(struct place *p)
{
    p->worker = ++workers;
    fflush(stdout);
    p->pid = fork();
    if (p->pid == 0)
        work(p);
    return p->pid > 0;
}

static bool begin_all(void)
{
    for (int role = 0; role < ROLES; role++)
        for (uint32_t i = 0; i < COUNTS[role]; i++) {
            struct place *p = &places[places_count++];

            p->role = (enum role)role;
            p->number = i;
            if (!begin(p))
                return false;
        }
    return true;
}

/* True if it was killed, and not before by itself. */
static bool kill_one(struct place *p)
{
    int status;

    atomic_store8(&books->killed[p->worker], 1);
    atomic_fence_full();
    if (kill(p->pid, SIGKILL) != 0 || waitpid(p->pid, &status, 0) != p->pid)
        return false;
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        complain("worker %" PRIu64 " ended by itself: 0x%x", p->worker,
                 (unsigned)status);
        return false;
    }
    return true;
}

static bool end_all(bool publishers)
{
    bool good = true;

    for (uint32_t i = 0; i < places_count; i++) {
        int status = 0;

        if ((places[i].role == PUBLISHER) != publishers)
            continue;
        if (waitpid(places[i].pid, &status, 0) != places[i].pid ||
            status != 0) {
            complain("worker %" PRIu64 " ended with 0x%x", places[i].worker,
                     (unsigned)status);
            good = false;
        }
    }
    return good;
}

/* The names are there before the first event: from then on nothing may go by
 * untold. */
static bool make_names(void)
{
    for (int lossless = 0; lossless < 2; lossless++) {
        shd_topic *topic = open_topic(lossless);

        for (uint32_t i = 0; topic != NULL && i < NAMES; i++) {
            shd_subscription *s;
            char name[16];

            snprintf(name, sizeof(name), "name %u", i);
            if (!is_good(shd_topic_subscribe(topic, name, SHD_FROM_OLDEST, &s),
                         "making a name") ||
                !is_good(shd_subscription_close(s), "leaving it"))
                return false;
        }
    }
    return books->failures == 0;
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t storm(double length, uint64_t kills_max)
{
    double end = seconds() + length;
    uint64_t kills = 0;

    while (seconds() < end && kills < kills_max &&
           workers + PLACES_MAX < WORKERS_EVER && books->failures == 0) {
        struct place *p = &places[random_next() % places_count];

        nap_us((long)(random_next() % 4000));
        if (!kill_one(p) || !begin(p))
            break;
        kills++;
        /* Else whoever needs what it held finds out by itself. */
        if (random_next() % 2 == 0)
            (void)is_good(shd_reap(segment, NULL), "reaping");
    }
    return kills;
}

/* ---- in the end ----------------------------------------------------------- */

static void check_lock(const char *name, uint32_t kind, uint32_t permits)
{
    struct shd_lock_info info = {.struct_size = sizeof(info)};
    struct shd_grant grant;
    shd_lock *lock;

    if (!is_good(shd_lock_open(segment, name, kind, NULL, &lock), name) ||
        !is_good(shd_lock_info(lock, &info), name))
        return;
    if (info.taken != 0 || info.waiting != 0)
        complain("%s: %u permits are held, %u are in line", name, info.taken,
                 info.waiting);
    for (uint32_t i = 0; i < permits; i++)
        (void)is_good(shd_lock_acquire(lock, 0, 0, &grant),
                      "acquiring each permit");
    if (shd_lock_acquire(lock, 0, 0, &grant) != SHD_BUSY)
        complain("%s: a permit too many", name);
}

static void check_topic(bool lossless, const struct progress *progress)
{
    struct shd_topic_info info = {.struct_size = sizeof(info)};
    shd_topic *topic = open_topic(lossless);

    if (topic == NULL || !is_good(shd_topic_info(topic, &info), "a topic"))
        return;
    if (info.cursors != NAMES)
        complain("%u cursors instead of %u", info.cursors, NAMES);
    /* A publisher that was killed may have published and not said so. */
    if (info.published < books->published[lossless])
        complain("%" PRIu64 " events published, %" PRIu64 " acknowledged",
                 info.published, books->published[lossless]);
    for (uint32_t i = 0; i < NAMES; i++) {
        const struct got *g = &progress[i].got[progress[i].which];

        if (g->upto != info.published ||
            g->received + g->missed != info.published)
            complain("name %u of %s: %" PRIu64 " received + %" PRIu64
                     " missed up to %" PRIu64 ", published %" PRIu64,
                     i, info.name, g->received, g->missed, g->upto,
                     info.published);
    }
}

static void check_all(void)
{
    char report[256] = "";
    uint32_t reaped;

    (void)is_good(shd_reap(segment, &reaped), "reaping");
    if (shd_segment_check(segment, report, sizeof(report)) != SHD_OK)
        complain("check: %s", report);
    check_lock("lock", SHD_OBJECT_LOCK, 1);
    check_lock("semaphore", SHD_OBJECT_SEMAPHORE, PERMITS);
    check_topic(false, books->named);
    check_topic(true, books->strict);
    if (shd_segment_check(segment, report, sizeof(report)) != SHD_OK)
        complain("check: %s", report);
}

static void row(const char *what, uint64_t n)
{
    printf("  %-44s %12" PRIu64 "\n", what, n);
}

static void print_table(uint64_t kills)
{
    struct got all[2] = {{0, 0, 0}, {0, 0, 0}};

    for (uint32_t i = 0; i < NAMES; i++) {
        const struct got *g = &books->named[i].got[books->named[i].which];
        const struct got *s = &books->strict[i].got[books->strict[i].which];

        all[0].received += g->received;
        all[0].missed += g->missed;
        all[1].received += s->received;
        all[1].missed += s->missed;
    }
    row("workers killed", kills);
    row("times the lock was acquired", books->acquired);
    row("times its holder was told of a death", books->lock.died);
    row("times the semaphore was entered", books->entered);
    row("events published, lossy", books->published[0]);
    row("received of them, by name", all[0].received);
    row("missed of them, by name, and told", all[0].missed);
    row("events published, lossless", books->published[1]);
    row("received of them, by name", all[1].received);
    row("missed of them while nobody was there", all[1].missed);
    row("times a listener was lapped", books->lapped);
}

int main(int argc, char **argv)
{
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .size_bytes = 64u << 20,
                                    .workers_max = 128};
    double length = 10;
    uint64_t kills_max = UINT64_MAX, kills;

    seed = ((uint64_t)getpid() << 20 ^ (uint64_t)time(NULL)) | 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seconds") == 0)
            length = strtod(argv[i + 1], NULL);
        else if (strcmp(argv[i], "--kills") == 0)
            kills_max = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10) * 2 + 1;
        else
            argc = 0;
    }
    if (argc % 2 == 0) {
        fprintf(stderr, "usage: sharing [--seconds S] [--kills N] "
                        "[--seed N]\n");
        return 2;
    }
    books = mmap(NULL, sizeof(*books), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (books == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    printf("seed %" PRIu64 "\n", seed / 2);
    if (!is_good(shd_segment_create(NULL, &o, &segment), "a segment"))
        return 1;
    if (!make_names())
        return 1;
    if (!begin_all()) {
        perror("fork");
        return 1;
    }
    kills = storm(length, kills_max);
    atomic_store64(&books->stop_publishing, 1);
    (void)end_all(true);
    atomic_store64(&books->stop, 1);
    (void)end_all(false);
    check_all();
    print_table(kills);
    printf("%d passed, %" PRIu64 " failed\n", books->failures == 0,
           books->failures);
    return books->failures != 0;
}
