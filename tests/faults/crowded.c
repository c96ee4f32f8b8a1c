/* SPDX-License-Identifier: BSD-2-Clause */
/* Storms: of signals, clocks that jump, workers by the thousand, deaths. */
#include "tests/faults/faults.h"
#include "tests/faults/inject.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* FAULTS_WORKERS: registering looks at each other one's lock, of which the
 * kernel keeps a list: 3000 take minutes. */
#define MOST 20000u
#define USUAL_MANY 400u
#define TOO_MANY 100u
#define SIGNAL_US 200

/* ---- signals ------------------------------------------------------------ */

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
    (void)number;
    signals++;
}

static void begin_signals(void)
{
    struct sigaction a = {.sa_handler = count_signal}; /* no SA_RESTART */
    struct itimerval t = {.it_interval.tv_usec = SIGNAL_US,
                          .it_value.tv_usec = SIGNAL_US};

    alarm(0); /* it is the same timer */
    if (sigaction(SIGALRM, &a, NULL) != 0 ||
        setitimer(ITIMER_REAL, &t, NULL) != 0)
        fail("timer: %m");
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Whatever interrupts it, a wait ends at its deadline, not before. */
static void expect_waits(const char *what, int64_t from, int64_t ms)
{
    if (now_ms() - from < ms - 1)
        fail("%s: %lld ms instead of %lld", what,
             (long long)(now_ms() - from), (long long)ms);
}

static void waits_in_a_storm_of_signals_keep_their_deadlines(void)
{
    struct shd_topic_options to = {.struct_size = sizeof(to),
                                   .flags = SHD_TOPIC_CREATE,
                                   .capacity_bytes = 64 << 10};
    struct shd_lock_options lo = {.struct_size = sizeof(lo),
                                  .flags = SHD_LOCK_CREATE};
    struct shd_queue_options qo = {.struct_size = sizeof(qo)};
    shd_segment *s = make_segment(16);
    struct shd_message m;
    struct shd_grant g;
    int ready[2];
    char buf[16];
    shd_queue *q;
    shd_lock *l;
    int64_t from;
    pid_t pid;

    if (pipe(ready) != 0)
        fail("pipe: %m");
    EXPECT(shd_queue_open(s, "q", &qo, &q), SHD_OK);
    EXPECT(shd_lock_open(s, "l", SHD_OBJECT_LOCK, &lo, &l), SHD_OK);
    pid = fork();
    if (pid == 0) {
        EXPECT(shd_lock_acquire(l, 0, 0, &g), SHD_OK);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    if (read(ready[0], buf, 1) != 1)
        fail("the other worker");
    begin_signals();
    for (int i = 0; i < 3; i++) {
        int rc;

        from = now_ms();
        expect_rc(shd_queue_pop(q, buf, sizeof(buf), 60, &m), SHD_NOTFOUND,
                  "popping from an empty queue");
        expect_waits("pop", from, 60);
        from = now_ms();
        rc = shd_lock_acquire(l, 60, 0, &g);
        if (rc == SHD_OK)
            fail("a lock of another's was acquired");
        expect_waits("acquire", from, 60);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    EXPECT(shd_lock_acquire(l, 20000, 0, &g), SHD_OK);
    if (signals < 100)
        fail("only %d signals", (int)signals);
    expect_sound();
}

static void operations_in_a_storm_of_signals_are_whole(void)
{
    shd_segment *s = make_segment(64);
    shd_dict *d = make_dict(s, "d", 8 << 20);
    double sum = 0, expected = 0;

    begin_signals();
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 400; i++) {
            EXPECT(store(d, i, i * 37 % 20000), SHD_OK);
            EXPECT(look(d, i), SHD_OK);
            EXPECT(shd_incr(d, "n", 1, 1, 1, 0, 0, &sum, NULL), SHD_OK);
            expected++;
        }
        EXPECT(shd_dict_resize(d, (round % 2 ? 8u : 32u) << 20), SHD_OK);
        EXPECT(shd_reap(s, NULL), SHD_OK);
    }
    shd_segment *other;
    EXPECT(shd_segment_attach(segment_name(), NULL, &other), SHD_OK);
    EXPECT(shd_segment_close(other), SHD_OK);
    if (sum != expected)
        fail("%g counted, not %g", sum, expected);
    expect_sound();
}

/* ---- clocks ------------------------------------------------------------- */

static int64_t ttl(shd_dict *d, const char *key)
{
    int64_t ms = -1;
    int rc = shd_ttl(d, key, strlen(key), &ms);

    return rc == SHD_OK ? ms : INT64_MIN;
}

static void the_wall_clock_neither_expires_nor_revives(void)
{
    static const long long jumps[] = {10LL * 365 * 86400, -10LL * 365 * 86400,
                                      3600, -3600, 0};
    struct shd_queue_options qo = {.struct_size = sizeof(qo),
                                   .lease_ms = 3600000};
    shd_segment *s = make_segment(16);
    shd_dict *d = make_dict(s, "d", 1 << 20);
    struct timespec nap = {.tv_nsec = 40000000};
    struct shd_message m;
    struct shd_value v;
    char buf[16];
    shd_queue *q;

    EXPECT(shd_queue_open(s, "q", &qo, &q), SHD_OK);
    EXPECT(shd_set(d, "hour", 4, "v", 1, 3600000), SHD_OK);
    EXPECT(shd_queue_push(q, "m", 1, 0, 0, NULL), SHD_OK);
    EXPECT(shd_queue_take(q, buf, sizeof(buf), 0, &m), SHD_OK);
    for (unsigned i = 0; i < sizeof(jumps) / sizeof(jumps[0]); i++) {
        struct shd_message late;

        inject_wall_clock(jumps[i]);
        EXPECT(shd_get(d, "hour", 4, buf, sizeof(buf), &v), SHD_OK);
        if (ttl(d, "hour") < 3000000 || ttl(d, "hour") > 3600000)
            fail("%lld ms are left of an hour after a jump of %lld s",
                 (long long)ttl(d, "hour"), jumps[i]);
        EXPECT(shd_set(d, "short", 5, "v", 1, 30), SHD_OK);
        EXPECT(shd_queue_push(q, "late", 4, 30, 0, NULL), SHD_OK);
        inject_wall_clock(-jumps[i]);
        nanosleep(&nap, NULL);
        expect_rc(shd_get(d, "short", 5, buf, sizeof(buf), &v), SHD_NOTFOUND,
                  "what expired");
        EXPECT(shd_queue_pop(q, buf, sizeof(buf), 60000, &late), SHD_OK);
        EXPECT(shd_queue_extend(q, m.lease, 3600000), SHD_OK);
    }
    EXPECT(shd_queue_ack(q, m.lease), SHD_OK);
    expect_sound();
}

/* ---- workers ------------------------------------------------------------ */

struct crowd {
    unsigned joined, full, other, done;
    double sum;
};

static struct crowd *crowd;

static void make_crowd(void)
{
    crowd = mmap(NULL, sizeof(*crowd), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (crowd == MAP_FAILED)
        fail("mmap: %m");
}

static void count_in(unsigned *n)
{
    __atomic_add_fetch(n, 1, __ATOMIC_SEQ_CST);
}

static unsigned in_slots(shd_segment *s, uint32_t most)
{
    struct shd_worker_info w = {.struct_size = sizeof(w)};
    unsigned n = 0;

    for (uint32_t i = 0; i < most; i++)
        n += shd_worker_info(s, i, &w) == SHD_OK;
    return n;
}

static void thousands_of_workers_register_and_no_more_than_there_are_slots(
    void)
{
    struct shd_segment_options o = options_of(64);
    static pid_t pids[MOST + TOO_MANY];
    const char *many = getenv("FAULTS_WORKERS");
    unsigned workers = many != NULL ? (unsigned)atoi(many) : USUAL_MANY;
    uint32_t reaped = 0;
    shd_segment *s;
    shd_dict *d;

    if (workers > MOST)
        fail("FAULTS_WORKERS is over %u", MOST);
    o.workers_max = workers;
    EXPECT(shd_segment_create(segment_name(), &o, &s), SHD_OK);
    {
        struct shd_dict_options dopt = {.struct_size = sizeof(dopt),
                                        .capacity_bytes = 8 << 20};

        EXPECT(shd_dict_open(s, "d", &dopt, &d), SHD_OK);
        EXPECT(shd_worker_leave(s), SHD_OK);
    }
    make_crowd();
    for (unsigned i = 0; i < workers + TOO_MANY; i++) {
        pids[i] = fork();
        if (pids[i] < 0)
            fail("fork %u: %m", i);
        if (pids[i] == 0) {
            int rc = store(d, i, 20);

            count_in(rc == SHD_OK     ? &crowd->joined
                     : rc == SHD_FULL ? &crowd->full
                                      : &crowd->other);
            if (rc != SHD_OK && rc != SHD_FULL)
                fail("worker %u: %s (%s)", i, shd_strerror_name(rc),
                     shd_last_error());
            pause();
            _exit(0);
        }
    }
    while (__atomic_load_n(&crowd->joined, __ATOMIC_SEQ_CST) +
               __atomic_load_n(&crowd->full, __ATOMIC_SEQ_CST) +
               __atomic_load_n(&crowd->other, __ATOMIC_SEQ_CST) <
           workers + TOO_MANY)
        usleep(1000);
    printf("    %u joined, %u were told that all slots are taken\n",
           crowd->joined, crowd->full);
    if (crowd->joined != workers || crowd->full != TOO_MANY)
        fail("not as many as there are slots");
    for (unsigned i = 0; i < workers + TOO_MANY; i++)
        kill(pids[i], SIGKILL);
    for (unsigned i = 0; i < workers + TOO_MANY; i++)
        waitpid(pids[i], NULL, 0);
    EXPECT(shd_reap(s, &reaped), SHD_OK);
    if (in_slots(s, workers) > 1)
        fail("%u slots are taken after the reap", in_slots(s, workers));
    unsigned there = 0;
    for (unsigned i = 0; i < workers + TOO_MANY; i++)
        there += look(d, i) == SHD_OK;
    if (there != workers)
        fail("%u of their values are there", there);
    expect_sound();
}

/* Each forks two more, changes something, and ends by itself or not. */
static _Noreturn void generation(shd_dict *d, unsigned depth, unsigned number)
{
    double sum;
    int rc;

    for (unsigned i = 0; depth > 0 && i < 2;) {
        pid_t pid = fork();

        if (pid < 0)
            fail("fork: %m");
        if (pid > 0) {
            i++;
            continue;
        }
        depth--;
        number = number * 2 + i;
        i = 0;
    }
    rc = shd_incr(d, "n", 1, 1, 1, 0, 0, &sum, NULL);
    if (rc == SHD_OK)
        count_in(&crowd->done);
    else if (rc == SHD_FULL)
        count_in(&crowd->full);
    else
        count_in(&crowd->other);
    if (number % 3 == 0)
        raise(SIGKILL);
    while (wait(NULL) > 0)
        continue;
    _exit(0);
}

static void a_bomb_of_forks_loses_nothing(void)
{
    struct shd_segment_options o = options_of(16);
    double sum = 0;
    shd_segment *s;
    shd_dict *d;
    uint32_t reaped;

    o.workers_max = 64; /* fewer than there will be at once */
    EXPECT(shd_segment_create(segment_name(), &o, &s), SHD_OK);
    d = make_dict(s, "d", 1 << 20);
    EXPECT(shd_worker_leave(s), SHD_OK);
    make_crowd();
    for (unsigned i = 0; i < 12; i++) {
        pid_t pid = fork();

        if (pid == 0)
            generation(d, 5, i + 1);
        if (pid < 0)
            fail("fork: %m");
    }
    while (wait(NULL) > 0)
        continue;
    /* Those whose parents were killed are nobody's children. */
    for (int i = 0; i < 30000 &&
                    __atomic_load_n(&crowd->done, __ATOMIC_SEQ_CST) +
                            __atomic_load_n(&crowd->full, __ATOMIC_SEQ_CST) +
                            __atomic_load_n(&crowd->other, __ATOMIC_SEQ_CST) <
                        12 * 63;
         i++)
        usleep(1000);
    printf("    %u counted, %u found no slot, %u failed otherwise\n",
           crowd->done, crowd->full, crowd->other);
    if (crowd->other != 0 || crowd->done + crowd->full != 12 * 63)
        fail("some ended in another way");
    EXPECT(shd_incr(d, "n", 1, 0, 1, 0, 0, &sum, NULL), SHD_OK);
    if (sum != crowd->done)
        fail("%g are counted", sum);
    /* The last may be about to end. */
    for (int i = 0; i < 30000 && in_slots(s, 64) > 1; i++) {
        EXPECT(shd_reap(s, &reaped), SHD_OK);
        usleep(1000);
    }
    if (in_slots(s, 64) != 1)
        fail("%u slots are taken", in_slots(s, 64));
    expect_sound();
}

static void a_storm_of_deaths_loses_nothing(void)
{
    enum { AT_ONCE = 40, ROUNDS = 12 };
    shd_segment *s = make_segment(64);
    shd_dict *d = make_dict(s, "d", 4 << 20);
    pid_t pids[AT_ONCE];

    make_crowd();
    EXPECT(store(d, 99999, 500), SHD_OK);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned before = crowd->done;

        for (unsigned i = 0; i < AT_ONCE; i++) {
            pids[i] = fork();
            if (pids[i] < 0)
                fail("fork: %m");
            if (pids[i] == 0) {
                for (unsigned n = i;; n += 7) {
                    int rc = store(d, n % 400, n * 13 % 3000);

                    if (rc != SHD_OK && rc != SHD_BUSY)
                        _exit(1);
                    count_in(&crowd->done);
                }
            }
        }
        while (__atomic_load_n(&crowd->done, __ATOMIC_SEQ_CST) <
               before + 20 * AT_ONCE)
            usleep(500);
        for (unsigned i = 0; i < AT_ONCE; i++)
            kill(pids[i], SIGKILL);
        for (unsigned i = 0; i < AT_ONCE; i++)
            if (child_result(pids[i]) != -SIGKILL)
                fail("a worker ended by itself");
        EXPECT(store(d, 1, 100), SHD_OK);
        EXPECT(shd_reap(s, NULL), SHD_OK);
        EXPECT(look(d, 99999), SHD_OK);
        expect_sound();
    }
    if (in_slots(s, 64) != 1)
        fail("%u slots are taken", in_slots(s, 64));
}

#define CASE(title) {#title, title}
const struct fault_case CROWDED[] = {
    CASE(waits_in_a_storm_of_signals_keep_their_deadlines),
    CASE(operations_in_a_storm_of_signals_are_whole),
    CASE(the_wall_clock_neither_expires_nor_revives),
    CASE(thousands_of_workers_register_and_no_more_than_there_are_slots),
    CASE(a_bomb_of_forks_loses_nothing),
    CASE(a_storm_of_deaths_loses_nothing),
    {NULL, NULL}};
