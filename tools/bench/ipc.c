/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shdict-bench-ipc: messages between processes, beside the kernel's ways and
 * boost's, in one run on one machine. Only ratios within a run mean anything.
 *
 *   latency     one message at a time there and back; half of that is one way.
 *               busy: the receiver asks again and again; blocking: it sleeps
 *   throughput  as fast as it goes, nothing lost. The topic is lossless, and
 *               read in batches, as its users would; the others, for want of
 *               batches, one by one
 *   1:N         each message to all N: the topic once, the others N times
 *   N:1, N:N    N senders; 1 receiver, or N: each message to all of them for
 *               the topic, to one of them for the others, whose own way that
 *               is, so that row says what a delivery costs
 *
 * A rate counts deliveries. The line of a cache that two processes hand to
 * each other is the floor of all of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <mqueue.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/base/atomic.h"
#include "shm/shdict.h"
#ifdef HAVE_BOOST
#include "tools/bench/ipc_boost.h"
#endif

#define SIZE_MAX_BYTES 65536u
#define CHANNELS_MAX 8u
#define BATCH 64u
#define RING_BYTES (1u << 20)
#define QUEUE_BYTES (256u << 10)

/* ---- ways to send --------------------------------------------------------- */

/* A channel leads from any sender to a receiver; a topic is one for all. */
struct channel {
    int fd[2];
    mqd_t mq;
    void *boost;
    char name[64];
    shd_topic *topic;
    shd_subscription *subscription;
    uint32_t have, next; /* of the batch */
    struct shd_event events[BATCH];
    unsigned char *buf;
};

struct way {
    const char *name;
    bool broadcast; /* one channel serves all receivers */
    size_t largest;
    bool (*make)(struct channel *c, size_t size);
    bool (*receiver)(struct channel *c);
    /* 1: done. 0: not without waiting. -1: failed. */
    int (*send)(struct channel *c, const void *data, size_t len, bool wait);
    int (*receive)(struct channel *c, void *to, size_t size, bool wait);
    void (*drop)(struct channel *c);
};

static shd_segment *segment;
static uint32_t made;

static bool make_topic(struct channel *c, size_t size)
{
    struct shd_topic_options o = {
        .struct_size = sizeof(o),
        .flags = SHD_TOPIC_CREATE | SHD_TOPIC_LOSSLESS,
        .capacity_bytes = size > 4096 ? 4 * RING_BYTES : RING_BYTES};

    snprintf(c->name, sizeof(c->name), "t%u", made++);
    return shd_topic_open(segment, c->name, &o, &c->topic) == SHD_OK;
}

static bool receiver_topic(struct channel *c)
{
    c->buf = malloc(2 * SIZE_MAX_BYTES);
    c->have = c->next = 0;
    return c->buf != NULL &&
           shd_topic_subscribe(c->topic, NULL, SHD_FROM_OLDEST,
                               &c->subscription) == SHD_OK;
}

static int send_topic(struct channel *c, const void *data, size_t len,
                      bool wait)
{
    int rc = shd_topic_publish(c->topic, data, len, wait ? 20000 : 0, NULL);

    return rc == SHD_OK ? 1 : rc == SHD_FULL ? 0 : -1;
}

static int receive_topic(struct channel *c, void *to, size_t size, bool wait)
{
    uint64_t missed;

    (void)size;
    if (c->next == c->have) {
        int rc = shd_subscription_next(c->subscription, c->buf,
                                       2 * SIZE_MAX_BYTES, wait ? 20000 : 0,
                                       c->events, BATCH, &c->have, &missed);

        c->next = 0;
        if (rc != SHD_OK) {
            c->have = 0;
            return rc == SHD_NOTFOUND ? 0 : -1;
        }
    }
    /* The data lies in this process's memory: that is where the others' end
     * up as well. */
    memcpy(to, c->buf + c->events[c->next].at, 8);
    c->next++;
    return 1;
}

static void drop_topic(struct channel *c)
{
    (void)shd_topic_close(c->topic);
    (void)!shd_object_destroy(segment, c->name);
}

static int again(ssize_t n)
{
    return n >= 0 ? 1 : errno == EAGAIN || errno == ETIMEDOUT ? 0 : -1;
}

static bool make_pipe(struct channel *c, size_t size)
{
    (void)size;
    if (pipe2(c->fd, O_CLOEXEC) != 0)
        return false;
    (void)fcntl(c->fd[1], F_SETPIPE_SZ, (int)QUEUE_BYTES);
    return true;
}

static void set_waiting(int fd, bool wait)
{
    int flags = fcntl(fd, F_GETFL);
    int wanted = wait ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;

    if (flags != wanted)
        (void)fcntl(fd, F_SETFL, wanted);
}

/* A pipe has no messages: all of one is written, and read. */
static int send_pipe(struct channel *c, const void *data, size_t len,
                     bool wait)
{
    const unsigned char *p = data;
    size_t done = 0;

    (void)wait;
    while (done < len) {
        ssize_t n = write(c->fd[1], p + done, len - done);

        if (n < 0 && errno != EINTR)
            return -1;
        done += n > 0 ? (size_t)n : 0;
    }
    return 1;
}

static int receive_pipe(struct channel *c, void *to, size_t size, bool wait)
{
    unsigned char *p = to;
    size_t done = 0;

    while (done < size) {
        ssize_t n = read(c->fd[0], p + done, size - done);

        if (n < 0 && errno == EAGAIN && done == 0 && !wait)
            return 0;
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return -1;
        done += n > 0 ? (size_t)n : 0;
    }
    return 1;
}

static void drop_fds(struct channel *c)
{
    (void)close(c->fd[0]);
    (void)close(c->fd[1]);
}

static bool make_socket(struct channel *c, size_t size)
{
    int room = (int)(4 * QUEUE_BYTES);

    (void)size;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, c->fd) != 0)
        return false;
    (void)setsockopt(c->fd[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    return true;
}

static int send_socket(struct channel *c, const void *data, size_t len,
                       bool wait)
{
    return again(send(c->fd[1], data, len, wait ? 0 : MSG_DONTWAIT));
}

static int receive_socket(struct channel *c, void *to, size_t size, bool wait)
{
    return again(recv(c->fd[0], to, size, wait ? 0 : MSG_DONTWAIT));
}

static bool make_mq(struct channel *c, size_t size)
{
    struct mq_attr a = {.mq_maxmsg = 10, .mq_msgsize = (long)size};

    /* As deep as the system allows. */
    for (long depth = 256; depth >= 8; depth /= 2) {
        snprintf(c->name, sizeof(c->name), "/shdict-bench-%d-%u",
                 (int)getpid(), made++);
        a.mq_maxmsg = depth;
        c->mq = mq_open(c->name, O_RDWR | O_CREAT | O_EXCL, 0600, &a);
        if (c->mq != (mqd_t)-1)
            return true;
    }
    return false;
}

static int send_mq(struct channel *c, const void *data, size_t len, bool wait)
{
    struct timespec never = {0, 0};

    return again(wait ? mq_send(c->mq, data, len, 0)
                      : mq_timedsend(c->mq, data, len, 0, &never));
}

static int receive_mq(struct channel *c, void *to, size_t size, bool wait)
{
    struct timespec never = {0, 0};

    return again(wait ? mq_receive(c->mq, to, size, NULL)
                      : mq_timedreceive(c->mq, to, size, NULL, &never));
}

static void drop_mq(struct channel *c)
{
    (void)mq_close(c->mq);
    (void)mq_unlink(c->name);
}

#ifdef HAVE_BOOST
static bool make_boost(struct channel *c, size_t size)
{
    size_t depth = size > 4096 ? 64 : 1024;

    snprintf(c->name, sizeof(c->name), "shdict-bench-%d-%u", (int)getpid(),
             made++);
    c->boost = boost_make(c->name, depth, size);
    return c->boost != NULL;
}

static int send_boost(struct channel *c, const void *data, size_t len,
                      bool wait)
{
    return boost_send(c->boost, data, len, wait);
}

static int receive_boost(struct channel *c, void *to, size_t size, bool wait)
{
    return boost_receive(c->boost, to, size, wait);
}

static void drop_boost(struct channel *c)
{
    boost_drop(c->name);
}
#endif

static const struct way WAYS[] = {
    {"shdict topic", true, SIZE_MAX_BYTES, make_topic, receiver_topic,
     send_topic, receive_topic, drop_topic},
    {"pipe", false, SIZE_MAX_BYTES, make_pipe, NULL, send_pipe, receive_pipe,
     drop_fds},
    {"unix socket", false, SIZE_MAX_BYTES, make_socket, NULL, send_socket,
     receive_socket, drop_fds},
    {"posix mq", false, 8192, make_mq, NULL, send_mq, receive_mq, drop_mq},
#ifdef HAVE_BOOST
    {"boost mq", false, SIZE_MAX_BYTES, make_boost, NULL, send_boost,
     receive_boost, drop_boost},
#endif
};
#define WAYS_COUNT (sizeof(WAYS) / sizeof(WAYS[0]))

/* ---- processes ------------------------------------------------------------ */

struct shared {
    uint64_t ready, go, failed;
    uint64_t line[16]; /* handed to and fro */
    struct {           /* of each child: what it has done */
        uint64_t count, at_end, pad[6];
    } done[2 * CHANNELS_MAX];
};
static struct shared *shared;

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

static void count(uint32_t child)
{
    uint64_t *n = &shared->done[child].count;

    atomic_store64(n, atomic_load64(n) + 1);
}

/* Sends, or receives, one; again and again if it is busy. */
static void send_one(const struct way *w, struct channel *c, const void *data,
                     size_t len, bool busy)
{
    int rc = 0;

    while (rc == 0) {
        rc = w->send(c, data, len, !busy);
        if (rc == 0)
            atomic_pause();
    }
    if (rc < 0)
        fail();
}

static void receive_one(const struct way *w, struct channel *c, void *to,
                        size_t size, bool busy)
{
    int rc = 0;

    while (rc == 0) {
        rc = w->receive(c, to, size, !busy);
        if (rc == 0)
            atomic_pause();
    }
    if (rc < 0)
        fail();
}

static void prepare_receiver(const struct way *w, struct channel *c, bool busy)
{
    if (w->receiver != NULL && !w->receiver(c))
        fail();
    if (w->drop == drop_fds)
        set_waiting(c->fd[0], !busy);
}

/* ---- latency -------------------------------------------------------------- */

static double line_latency(double length)
{
    uint64_t *word = &shared->line[8];
    pid_t pid[2];
    double took;

    memset(shared, 0, sizeof(*shared));
    for (uint64_t side = 0; side < 2; side++) {
        pid[side] = begin();
        if (pid[side] != 0)
            continue;
        line_up();
        for (uint64_t i = 0;; i += 2) {
            while (atomic_load64(word) != i + side)
                atomic_pause();
            atomic_store64(word, i + side + 1);
            count((uint32_t)side);
        }
    }
    (void)race(pid, 2, length, &took);
    return took / (double)(shared->done[0].at_end + 1) / 2 * 1e9;
}

/* ns one way; < 0: it cannot. */
static double latency(const struct way *w, size_t size, double length,
                      bool busy)
{
    static unsigned char data[SIZE_MAX_BYTES];
    struct channel there = {0}, back = {0};
    pid_t pid[2];
    double took;
    bool good;

    if (size > w->largest || !w->make(&there, size) || !w->make(&back, size))
        return -1;
    memset(shared, 0, sizeof(*shared));
    for (int side = 0; side < 2; side++) {
        struct channel *out = side == 0 ? &there : &back;
        struct channel *in = side == 0 ? &back : &there;

        pid[side] = begin();
        if (pid[side] != 0)
            continue;
        prepare_receiver(w, in, busy);
        line_up();
        for (;;) {
            if (side == 0)
                send_one(w, out, data, size, busy);
            receive_one(w, in, data, size, busy);
            if (side == 1)
                send_one(w, out, data, size, busy);
            count((uint32_t)side);
        }
    }
    good = race(pid, 2, length, &took) && shared->done[0].at_end > 0;
    w->drop(&there);
    w->drop(&back);
    return good ? took / (double)shared->done[0].at_end / 2 * 1e9 : -1;
}

/* ---- throughput ----------------------------------------------------------- */

static _Noreturn void sender(const struct way *w, struct channel *c,
                             uint32_t channels, size_t size, uint32_t first,
                             bool to_all)
{
    static unsigned char data[SIZE_MAX_BYTES];

    line_up();
    for (uint64_t i = 0;; i++)
        for (uint32_t k = 0; k < (to_all ? channels : 1); k++)
            send_one(w, &c[(first + i + k) % channels], data, size, false);
}

static _Noreturn void receiver(const struct way *w, struct channel *c,
                               size_t size, uint32_t child)
{
    static unsigned char data[SIZE_MAX_BYTES];

    prepare_receiver(w, c, false);
    line_up();
    for (;;) {
        receive_one(w, c, data, size, false);
        count(child);
    }
}

/* Deliveries a second; < 0: it cannot. `to_all`: each message to all
 * receivers; else (for who has one channel a receiver) to them in turn. */
static double throughput(const struct way *w, size_t size, uint32_t senders,
                         uint32_t receivers, double length, bool to_all)
{
    struct channel c[CHANNELS_MAX] = {0};
    uint32_t channels = w->broadcast ? 1 : receivers;
    pid_t pid[2 * CHANNELS_MAX];
    uint64_t got = 0;
    double took;
    bool good;

    if (size > w->largest)
        return -1;
    for (uint32_t i = 0; i < channels; i++)
        if (!w->make(&c[i], size))
            return -1;
    memset(shared, 0, sizeof(*shared));
    /* Receivers first: what nobody has subscribed to need not be read. */
    for (uint32_t i = 0; i < receivers; i++) {
        pid[i] = begin();
        if (pid[i] == 0)
            receiver(w, &c[w->broadcast ? 0 : i], size, i);
    }
    while (atomic_load64(&shared->ready) < receivers &&
           atomic_load64(&shared->failed) == 0)
        sched_yield();
    for (uint32_t i = 0; i < senders; i++) {
        pid[receivers + i] = begin();
        if (pid[receivers + i] == 0)
            sender(w, c, channels, size, i, to_all && !w->broadcast);
    }
    good = race(pid, receivers + senders, length, &took);
    for (uint32_t i = 0; i < channels; i++)
        w->drop(&c[i]);
    for (uint32_t i = 0; i < receivers; i++)
        got += shared->done[i].at_end;
    return good && got > 0 ? (double)got / took : -1;
}

/* ---- tables --------------------------------------------------------------- */

static const size_t SIZES[] = {8, 64, 1024, 8192, 65536};
#define SIZES_COUNT (sizeof(SIZES) / sizeof(SIZES[0]))

static bool json;
static bool any_json;

static void begin_table(const char *title, const char *unit)
{
    if (json)
        return;
    printf("\n%s, %s\n  %-14s", title, unit, "bytes");
    for (size_t i = 0; i < SIZES_COUNT; i++)
        printf(" %18zu", SIZES[i]);
    printf("\n");
}

/* The ratio is to ours in the same column: over 1, ours is better. */
static void cell(const char *table, const char *way, size_t size, double value,
                 double ratio)
{
    if (json) {
        printf("%s\n  {\"table\": \"%s\", \"way\": \"%s\", \"bytes\": %zu, "
               "\"value\": ",
               any_json ? "," : "", table, way, size);
        any_json = true;
        if (value < 0)
            printf("null}");
        else
            printf("%.1f, \"ours_better_by\": %.2f}", value, ratio);
        return;
    }
    if (value < 0)
        printf(" %18s", "-");
    else
        printf(" %11.0f %5.1fx", value, ratio);
}

static void table_latency(const char *title, double length, bool busy)
{
    double ours[SIZES_COUNT];

    begin_table(title, "ns one way (times ours)");
    for (size_t w = 0; w < WAYS_COUNT; w++) {
        if (!json)
            printf("  %-14s", WAYS[w].name);
        for (size_t i = 0; i < SIZES_COUNT; i++) {
            double ns = latency(&WAYS[w], SIZES[i], length, busy);

            if (w == 0)
                ours[i] = ns;
            cell(title, WAYS[w].name, SIZES[i], ns, ns / ours[i]);
            fflush(stdout);
        }
        if (!json)
            printf("\n");
    }
}

static void table_throughput(const char *title, uint32_t senders,
                             uint32_t receivers, double length, bool to_all)
{
    double ours[SIZES_COUNT];

    begin_table(title, "deliveries a second (ours is so many times it)");
    for (size_t w = 0; w < WAYS_COUNT; w++) {
        if (!json)
            printf("  %-14s", WAYS[w].name);
        for (size_t i = 0; i < SIZES_COUNT; i++) {
            double rate = throughput(&WAYS[w], SIZES[i], senders, receivers,
                                     length, to_all);

            if (w == 0)
                ours[i] = rate;
            cell(title, WAYS[w].name, SIZES[i], rate, ours[i] / rate);
            fflush(stdout);
        }
        if (!json)
            printf("\n");
    }
}

int main(int argc, char **argv)
{
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .size_bytes = 256u << 20,
                                    .workers_max = 256};
    struct rlimit room = {RLIM_INFINITY, RLIM_INFINITY};
    bool quick = false;
    double length, floor_ns;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            quick = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else {
            fprintf(stderr, "usage: shdict-bench-ipc [--quick] [--json]\n");
            return 2;
        }
    }
    length = quick ? 0.02 : 0.5;
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
    table_throughput("1:1", 1, 1, length, true);
    table_throughput("1:4", 1, 4, length, true);
    table_throughput("4:1", 4, 1, length, true);
    table_throughput("4:4", 4, 4, length, false);
    if (json)
        printf("\n]}\n");
    return 0;
}
