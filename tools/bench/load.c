/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shdict-bench-load - one peer under the workloads of tools/bench/run.
 *
 *   shdict-bench-load PEER DIRECTORY KEYS VALUE-BYTES [full]
 *
 * makes the peer's dictionary and fills it (KEYS keys; with `full` about four
 * times of what it holds), says `ready BYTES`, and then reads lines from its
 * standard input:
 *
 *   OPERATION WORKERS p|t MILLISECONDS u|z
 *
 * p: processes, t: threads; u: every key as likely, z: Zipf (0.99). Each
 * worker is pinned to a processor of its own as far as there are enough. The
 * answer is a line of JSON, or `none` if the peer has no such operation.
 *
 * Every 32nd call is timed by itself, for the percentiles; where that clock
 * costs as much as the call it is taken off (its least, measured before).
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "floor.h"
#include "load.h"

#define WORKERS_MAX 256
#define TIMED_EVERY 32
#define WARM_MS 500
#define ZIPF_SAMPLES (1u << 18)
#define BUCKETS (64 * 16)

static const struct peer *const peers[] = {
    &peer_shdict,
#ifdef HAVE_TDB
    &peer_tdb,
#endif
#ifdef HAVE_LMDB
    &peer_lmdb,
#endif
#ifdef HAVE_BOOST
    &peer_boost,     &peer_boost_robust,
#endif
#ifdef HAVE_MEMCACHED
    &peer_memcached,
#endif
#ifdef HAVE_REDIS
    &peer_redis,
#endif
};

/* What a worker has done, in memory that all see. */
struct tally {
    uint64_t calls, hits, failures;
    double ns;      /* of wall time, for `calls` */
    double cpu_ns;  /* of processor time */
    double max;     /* the slowest call that was timed */
    uint64_t faults, switches; /* pages mapped, times put off the processor */
    uint64_t timed;
    uint64_t bucket[BUCKETS]; /* 16 to each doubling */
};

struct shared {
    pthread_barrier_t start;
    struct tally worker[WORKERS_MAX];
};

struct job {
    const struct peer *peer;
    char op[16];
    int workers;
    bool threads, zipf;
    double ms;
};

static uint64_t keys;
static size_t value_bytes;
static bool full;
static uint32_t *zipf;
static double clock_ns;
static struct shared *shared;

static double now_ns(clockid_t id)
{
    struct timespec t;

    if (clock_gettime(id, &t) != 0)
        abort();
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

struct hand {
    const struct job *job;
    struct tally *tally;
    int number;
    uint64_t random;
    uint64_t fresh; /* numbers of keys that nobody has used */
    uint64_t turn;
    char *value, *buf;
};

static uint64_t next_random(struct hand *h)
{
    h->random ^= h->random >> 12;
    h->random ^= h->random << 25;
    h->random ^= h->random >> 27;
    return h->random * 0x2545f4914f6cdd1dull;
}

static uint64_t pick(struct hand *h)
{
    uint64_t r = next_random(h) >> 32;

    return h->job->zipf ? zipf[r & (ZIPF_SAMPLES - 1)] : r * keys >> 32;
}

static size_t make_key(char *to, const char *prefix, uint64_t n)
{
    char digits[20];
    size_t d = 0, len = strlen(prefix);

    memcpy(to, prefix, len);
    do {
        digits[d++] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    while (d > 0)
        to[len++] = digits[--d];
    return len;
}

/* ---- workloads: one call each, 1 a hit, 0 none, -1 --------------------- */

typedef int call(struct hand *h);

static int do_nothing(struct hand *h)
{
    char key[32];

    return make_key(key, "key:", pick(h)) > 0;
}

static int do_get(struct hand *h)
{
    char key[32];
    size_t len = make_key(key, "key:", pick(h));

    return h->job->peer->get(key, len, h->buf, value_bytes);
}

static int do_miss(struct hand *h)
{
    char key[32];
    size_t len = make_key(key, "not:", pick(h));

    return h->job->peer->get(key, len, h->buf, value_bytes) == 0 ? 1 : -1;
}

static int do_set(struct hand *h)
{
    char key[32];
    size_t len = make_key(key, "key:", pick(h));

    h->value[0] = (char)h->turn++;
    return h->job->peer->set(key, len, h->value, value_bytes);
}

/* Another size each time, so that it does not fit where it was. */
static int do_resize(struct hand *h)
{
    char key[32];
    size_t len = make_key(key, "key:", pick(h));

    return h->job->peer->set(key, len, h->value,
                             h->turn++ % 2 ? value_bytes : value_bytes / 3);
}

static int do_add(struct hand *h)
{
    char key[32];
    size_t len = make_key(key, "add:", h->fresh++);

    return h->job->peer->add(key, len, h->value, value_bytes);
}

static int do_del(struct hand *h)
{
    char key[32];
    size_t len = make_key(key, "add:", --h->fresh);

    return h->job->peer->del(key, len);
}

/* A new key, then it goes again: both count. */
static int do_new(struct hand *h)
{
    return h->turn++ % 2 ? do_del(h) : do_add(h);
}

static int do_fill(struct hand *h)
{
    char key[32];
    size_t len = make_key(key, "more:", h->fresh++);

    return h->job->peer->set(key, len, h->value, value_bytes);
}

static int do_incr1(struct hand *h)
{
    return h->job->peer->incr("counter", 7);
}

static int do_incr(struct hand *h)
{
    char key[32];
    size_t len = make_key(key, "sum:", pick(h) % 1000);

    return h->job->peer->incr(key, len);
}

static int do_mix95(struct hand *h)
{
    return h->turn++ % 20 == 0 ? do_set(h) : do_get(h);
}

static int do_mix50(struct hand *h)
{
    return h->turn++ % 2 == 0 ? do_set(h) : do_get(h);
}

static int do_multi(struct hand *h)
{
    static __thread char text[MULTI][32];
    const char *k[MULTI];
    size_t lens[MULTI];

    for (int i = 0; i < MULTI; i++) {
        lens[i] = make_key(text[i], "key:", pick(h));
        k[i] = text[i];
    }
    return h->job->peer->multi(k, lens, h->buf, MULTI * value_bytes);
}

static int do_list(struct hand *h)
{
    return h->turn++ % 2
               ? h->job->peer->pop("list", 4, h->buf, value_bytes)
               : h->job->peer->push("list", 4, h->value, value_bytes);
}

/* The first worker walks; what counts is what the others get done. */
static int do_scan(struct hand *h)
{
    if (h->number == 0)
        return h->job->peer->scan();
    return do_mix95(h);
}

static call *call_of(const struct peer *p, const char *op)
{
    static const struct {
        const char *name;
        call *run;
    } all[] = {{"nothing", do_nothing}, {"get", do_get},
               {"miss", do_miss},       {"set", do_set},
               {"resize", do_resize},   {"new", do_new},
               {"fill", do_fill},       {"incr1", do_incr1},
               {"incr", do_incr},       {"mix95", do_mix95},
               {"mix50", do_mix50},     {"multi", do_multi},
               {"list", do_list},       {"scan", do_scan}};

    if ((!strcmp(op, "multi") && p->multi == NULL) ||
        (!strcmp(op, "list") && p->push == NULL) ||
        (!strcmp(op, "scan") && p->scan == NULL))
        return NULL;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (strcmp(op, all[i].name) == 0)
            return all[i].run;
    }
    return NULL;
}

/* ---- workers ----------------------------------------------------------- */

static unsigned bucket_of(double ns)
{
    uint64_t n = ns < 1 ? 1 : (uint64_t)ns;
    unsigned top = 63 - (unsigned)__builtin_clzll(n);
    unsigned part =
        top < 4 ? (unsigned)(n << (4 - top)) & 15 : (n >> (top - 4)) & 15;

    return top * 16 + part;
}

static double bucket_ns(unsigned b)
{
    return ldexp(1 + (b % 16 + 0.5) / 16, (int)(b / 16));
}

static void time_one(struct hand *h, call *run)
{
    struct tally *t = h->tally;
    double from = now_ns(CLOCK_MONOTONIC), ns;
    int rc = run(h);

    ns = now_ns(CLOCK_MONOTONIC) - from - clock_ns;
    t->hits += rc > 0;
    t->failures += rc < 0;
    if (ns > t->max)
        t->max = ns;
    t->bucket[bucket_of(ns)]++;
    t->timed++;
}

static void pin(int number)
{
    cpu_set_t all, one;
    int n = 0, want;

    if (sched_getaffinity(0, sizeof(all), &all) != 0)
        return;
    want = number % CPU_COUNT(&all);
    for (int c = 0; c < CPU_SETSIZE; c++) {
        if (CPU_ISSET(c, &all) && n++ == want) {
            CPU_ZERO(&one);
            CPU_SET(c, &one);
            /* Where it is refused the scheduler places it. */
            (void)sched_setaffinity(0, sizeof(one), &one);
            return;
        }
    }
}

/* A process maps a page when it first touches it, and of some peers it is known
 * as a writer from its first store on, which would be what is measured: all
 * keys are read before, for up to WARM_MS, and one is stored. */
static void warm(const struct job *job, struct hand *h)
{
    double end = now_ns(CLOCK_MONOTONIC) + WARM_MS * 1e6;
    char key[32];

    if (strcmp(job->op, "nothing") == 0)
        return;
    for (uint64_t i = 0; i < keys; i++) {
        size_t len = make_key(key, "key:", i);

        (void)job->peer->get(key, len, h->buf, value_bytes);
        if (i % 64 == 0 && now_ns(CLOCK_MONOTONIC) > end)
            break;
    }
    if (job->peer->set(key, make_key(key, "key:", 0), h->value, value_bytes) <
        0)
        h->tally->failures++;
}

/* Of this thread, from now on if `sign` is negative, until now. */
static void count_usage(struct tally *t, int sign)
{
    struct rusage u;

    if (getrusage(RUSAGE_THREAD, &u) != 0)
        abort();
    t->faults += (uint64_t)(sign * (u.ru_minflt + u.ru_majflt));
    t->switches += (uint64_t)(sign * (u.ru_nivcsw + u.ru_nvcsw));
}

static int work(const struct job *job, int number)
{
    struct tally *t = &shared->worker[number];
    struct hand h = {.job = job,
                     .tally = t,
                     .number = number,
                     .random = 88172645463325252ull + 7919u * (uint64_t)number,
                     .fresh = (uint64_t)number << 40,
                     .value = calloc(1, value_bytes + 1),
                     .buf = calloc(MULTI, value_bytes + 1)};
    call *run = call_of(job->peer, job->op);
    double from, cpu, end;
    cpu_set_t before;
    int rc = 0;

    rc = sched_getaffinity(0, sizeof(before), &before);
    if (rc != 0 || h.value == NULL || h.buf == NULL)
        return 1;
    memset(t, 0, sizeof(*t));
    pin(number);
    if (job->peer->attach() != 0)
        return 1;
    warm(job, &h);
    pthread_barrier_wait(&shared->start);
    count_usage(t, -1);
    from = now_ns(CLOCK_MONOTONIC);
    cpu = now_ns(CLOCK_THREAD_CPUTIME_ID);
    end = from + job->ms * 1e6;
    do {
        for (int i = 1; i < TIMED_EVERY; i++) {
            rc = run(&h);
            t->hits += rc > 0;
            t->failures += rc < 0;
        }
        time_one(&h, run);
        t->calls += TIMED_EVERY;
    } while (now_ns(CLOCK_MONOTONIC) < end && t->failures == 0);
    t->ns = now_ns(CLOCK_MONOTONIC) - from;
    t->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
    count_usage(t, 1);
    /* To end a process takes the others' time: not while one of them measures.
     */
    pthread_barrier_wait(&shared->start);
    if (!job->threads && job->peer->end != NULL)
        job->peer->end();
    free(h.value);
    free(h.buf);
    (void)sched_setaffinity(0, sizeof(before), &before);
    return 0;
}

struct thread {
    const struct job *job;
    int number;
};

static void *thread_main(void *context)
{
    struct thread *t = context;

    if (work(t->job, t->number) != 0)
        exit(1);
    return NULL;
}

static bool run_threads(const struct job *job)
{
    pthread_t id[WORKERS_MAX];
    struct thread t[WORKERS_MAX];

    for (int i = 0; i < job->workers; i++) {
        t[i] = (struct thread){job, i};
        if (pthread_create(&id[i], NULL, thread_main, &t[i]) != 0)
            return false;
    }
    for (int i = 0; i < job->workers; i++)
        pthread_join(id[i], NULL);
    return true;
}

static bool run_processes(const struct job *job)
{
    bool good = true;
    int status;

    for (int i = 0; i < job->workers; i++) {
        pid_t pid = fork();

        if (pid < 0)
            exit(1);
        if (pid == 0)
            _exit(work(job, i));
    }
    /* A server is a child as well: only workers end. */
    for (int i = 0; i < job->workers; i++) {
        if (wait(&status) < 0 || status != 0)
            good = false;
    }
    return good;
}

static double percentile(const uint64_t *bucket, uint64_t n, double share)
{
    uint64_t seen = 0;

    for (unsigned b = 0; b < BUCKETS; b++) {
        seen += bucket[b];
        if (seen > 0 && (double)seen >= share * (double)n)
            return bucket_ns(b);
    }
    return 0;
}

static void answer(const struct job *job)
{
    struct tally sum = {0};
    double rate = 0;
    /* The one that walks is not counted among those that work beside it. */
    int first = strcmp(job->op, "scan") == 0 && job->workers > 1;

    for (int i = first; i < job->workers; i++) {
        const struct tally *t = &shared->worker[i];

        sum.calls += t->calls;
        sum.hits += t->hits;
        sum.failures += t->failures;
        sum.timed += t->timed;
        sum.faults += t->faults;
        sum.switches += t->switches;
        sum.cpu_ns += t->cpu_ns;
        rate += (double)t->calls / t->ns * 1e9;
        if (t->max > sum.max)
            sum.max = t->max;
        for (unsigned b = 0; b < BUCKETS; b++)
            sum.bucket[b] += t->bucket[b];
    }
    printf("{\"calls\": %llu, \"hits\": %llu, \"failures\": %llu, "
           "\"faults\": %llu, \"switches\": %llu, "
           "\"per_second\": %.0f, \"cpu_ns\": %.1f, \"p50\": %.0f, \"p90\": "
           "%.0f, \"p99\": %.0f, \"p99.9\": %.0f, \"p99.99\": %.0f, \"max\": "
           "%.0f}\n",
           (unsigned long long)sum.calls, (unsigned long long)sum.hits,
           (unsigned long long)sum.failures, (unsigned long long)sum.faults,
           (unsigned long long)sum.switches, rate,
           sum.cpu_ns / (double)sum.calls,
           percentile(sum.bucket, sum.timed, 0.5),
           percentile(sum.bucket, sum.timed, 0.9),
           percentile(sum.bucket, sum.timed, 0.99),
           percentile(sum.bucket, sum.timed, 0.999),
           percentile(sum.bucket, sum.timed, 0.9999), sum.max);
}

/* ---- before ------------------------------------------------------------ */

/* Key n with a weight of 1 / (n + 1)^0.99; scattered over the numbers. */
static void make_zipf(void)
{
    double sum = 0, *upto = malloc(keys * sizeof(*upto));
    uint64_t random = 88172645463325252ull;

    zipf = malloc(ZIPF_SAMPLES * sizeof(*zipf));
    if (upto == NULL || zipf == NULL)
        abort();
    for (uint64_t i = 0; i < keys; i++)
        upto[i] = sum += 1 / pow((double)i + 1, 0.99);
    for (unsigned i = 0; i < ZIPF_SAMPLES; i++) {
        uint64_t low = 0, high = keys - 1;
        double at;

        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        at = (double)(random * 0x2545f4914f6cdd1dull >> 11) / 9007199254740992. *
             sum;
        while (low < high) {
            uint64_t mid = (low + high) / 2;

            if (upto[mid] < at)
                low = mid + 1;
            else
                high = mid;
        }
        zipf[i] = (uint32_t)(low * 2654435761u % keys);
    }
    free(upto);
}

static void measure_clock(void)
{
    clock_ns = 1e9;
    for (int i = 0; i < 2000; i++) {
        double from = now_ns(CLOCK_MONOTONIC);
        double ns = now_ns(CLOCK_MONOTONIC) - from;

        if (ns < clock_ns)
            clock_ns = ns;
    }
}

static bool fill(const struct peer *p)
{
    char *value = calloc(1, value_bytes + 1), key[32];
    bool good = p->attach() == 0 && value != NULL;

    for (uint64_t i = 0; good && i < keys; i++)
        good = p->set(key, make_key(key, "key:", i), value, value_bytes) >=
               (full ? 0 : 1);
    if (good && p->end != NULL)
        p->end();
    free(value);
    return good;
}

static void *map_shared(size_t bytes)
{
    void *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (m == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return m;
}

static bool run_job(const struct job *job)
{
    pthread_barrierattr_t a;

    if (pthread_barrierattr_init(&a) != 0 ||
        pthread_barrierattr_setpshared(&a, PTHREAD_PROCESS_SHARED) != 0 ||
        pthread_barrier_init(&shared->start, &a, (unsigned)job->workers) != 0)
        return false;
    if (job->workers == 1)
        return work(job, 0) == 0;
    return job->threads ? run_threads(job) : run_processes(job);
}

static int serve(const struct peer *p)
{
    struct job job = {.peer = p};
    char kind, how;

    while (scanf("%15s %d %c %lf %c", job.op, &job.workers, &kind, &job.ms,
                 &how) == 5) {
        job.threads = kind == 't';
        job.zipf = how == 'z';
        if (call_of(p, job.op) == NULL || job.workers < 1 ||
            job.workers > WORKERS_MAX || (job.threads && !p->threads)) {
            printf("none\n");
        } else if (!run_job(&job)) {
            fprintf(stderr, "shdict-bench-load: %s: a worker failed\n",
                    job.op);
            return 1;
        } else {
            answer(&job);
        }
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    const struct peer *p = NULL;

    if (argc == 2 && strcmp(argv[1], "floor") == 0)
        return floor_print();
    if (argc == 2 && strcmp(argv[1], "peers") == 0) {
        for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); i++)
            printf("%s\n", peers[i]->name);
        return 0;
    }
    for (size_t i = 0; argc >= 5 && i < sizeof(peers) / sizeof(peers[0]); i++)
        if (strcmp(peers[i]->name, argv[1]) == 0)
            p = peers[i];
    if (p == NULL) {
        fprintf(stderr, "usage: shdict-bench-load peers | floor\n"
                        "       shdict-bench-load PEER DIRECTORY KEYS "
                        "VALUE-BYTES [full]\n");
        return 2;
    }
    keys = strtoull(argv[3], NULL, 10);
    value_bytes = strtoull(argv[4], NULL, 10);
    full = argc > 5;
    if (keys < 1 || keys > UINT32_MAX || value_bytes < 3 ||
        value_bytes > 1 << 24)
        return 2;
    shared = map_shared(sizeof(*shared));
    make_zipf();
    measure_clock();
    if (p->make(argv[2], keys, value_bytes, full) != 0 || !fill(p)) {
        printf("none\n");
        return 0;
    }
    printf("ready\n");
    fflush(stdout);
    return serve(p);
}
