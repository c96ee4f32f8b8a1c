/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ipc: operations on a queue, a topic and a semaphore by several workers, any
 * of which may die before any of its stores, beside models of them:
 *   queue   each message that was pushed is popped or acknowledged once, or is
 *           still there; first deliveries are in the order of pushing; what the
 *           dead had comes back, and its attempts are counted
 *   topic   what a subscriber gets and what it is told it missed is what was
 *           published, in order
 *   permits no more than there are, tokens only grow, the dead hold none
 */
#include "fuzz/workers.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/base/clock.h"

#define STEPS_MAX 250u
#define MESSAGES 256u
#define DELIVERIES_MAX 3u
#define PERMITS 2u
#define GRANTS 64u
#define LONGEST 20000u
#define NOBODY UINT32_MAX

static const uint8_t *data;
static size_t left;
static const char *doing;

static shd_segment *segment;
static shd_queue *queue;
static shd_topic *topic;
static shd_lock *lock;
static unsigned char buffer[LONGEST + 64], bytes[LONGEST + 64];

struct message {
    bool there;
    uint32_t len, attempts, holder;
    uint32_t open; /* deliveries since the last one known, that may have
                      happened or not */
    uint64_t lease, ready_at;
};

struct grant {
    uint32_t worker;
    uint64_t token;
};

static struct model {
    struct message message[MESSAGES];
    uint32_t messages;
    uint64_t published, next[WORKERS];
    uint32_t event_len[MESSAGES];
    struct grant grant[GRANTS];
    uint32_t grants;
    uint64_t token; /* the largest so far */
} m;

static shd_subscription *subscription[WORKERS];

static _Noreturn __attribute__((format(printf, 1, 2))) void
fail(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "ipc: %s: ", doing);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, " (%s)\n", shd_last_error());
    abort();
}

static uint64_t draw(uint64_t below)
{
    uint64_t z = 0;

    for (uint64_t n = below - 1; n > 0 && left > 0; n >>= 8) {
        z = z << 8 | *data++;
        left--;
    }
    return z % below;
}

static void expect(int rc, int wanted)
{
    if (rc != wanted)
        fail("gave %s, should be %s", shd_strerror_name(rc),
             shd_strerror_name(wanted));
}

static void build(void)
{
    const struct shd_segment_options o = {.struct_size = sizeof(o),
                                          .size_bytes = 512 << 10,
                                          .workers_max = 8,
                                          .objects_max = 4,
                                          .locks_max = 6,
                                          .wait_ms = 10};
    const struct shd_queue_options q = {.struct_size = sizeof(q),
                                        .capacity_bytes = 48 << 10,
                                        .deliveries_max = DELIVERIES_MAX};
    const struct shd_topic_options t = {.struct_size = sizeof(t),
                                        .flags = SHD_TOPIC_CREATE,
                                        .capacity_bytes = 4096,
                                        .subscribers_max = WORKERS};
    const struct shd_lock_options l = {.struct_size = sizeof(l),
                                       .flags = SHD_LOCK_CREATE,
                                       .permits = PERMITS,
                                       .waiters_max = 4};

    doing = "build";
    workers_build();
    expect(shd_segment_create(NULL, &o, &segment), SHD_OK);
    expect(shd_queue_open(segment, "q", &q, &queue), SHD_OK);
    expect(shd_topic_open(segment, "t", &t, &topic), SHD_OK);
    expect(shd_lock_open(segment, "s", SHD_OBJECT_SEMAPHORE, &l, &lock),
           SHD_OK);
    workers_keep(segment);
}

static uint32_t some_len(void)
{
    switch (draw(4)) {
    case 0: return 4;
    case 1: return 4 + (uint32_t)draw(200);
    case 2: return 4 + (uint32_t)draw(3000);
    default: return draw(8) == 0 ? LONGEST : 30;
    }
}

/* Message or event number n. */
static void fill(unsigned char *to, uint32_t n, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        to[i] = (unsigned char)(n * 31 + i * 7);
    memcpy(to, &n, 4);
}

static uint32_t number_in(const unsigned char *from, uint64_t len)
{
    uint32_t n;

    if (len < 4)
        fail("%" PRIu64 " bytes", len);
    memcpy(&n, from, 4);
    return n;
}

/* ---- queue ------------------------------------------------------------------ */

static struct shd_queue_info queue_info(void)
{
    struct shd_queue_info i = {.struct_size = sizeof(i)};

    expect(shd_queue_info(queue, &i), SHD_OK);
    return i;
}

static bool is_buried(const struct message *x)
{
    return x->attempts >= DELIVERIES_MAX;
}

static bool is_ready(const struct message *x)
{
    return x->there && x->holder == NOBODY && x->open == 0 && !is_buried(x) &&
           x->ready_at <= clock_now_ms();
}

/* What was given is what was pushed, in its turn. */
static struct message *given(const struct shd_message *got)
{
    uint32_t n = number_in(buffer, got->len);
    struct message *x = &m.message[n % MESSAGES];

    if (n >= m.messages || !x->there)
        fail("message %" PRIu32 " is not in the queue", n);
    if (x->holder != NOBODY)
        fail("message %" PRIu32 " is another worker's", n);
    if (got->len != x->len)
        fail("%" PRIu64 " bytes, should be %" PRIu32, got->len, x->len);
    fill(bytes, n, x->len);
    if (memcmp(buffer, bytes, x->len) != 0)
        fail("message %" PRIu32 " has other bytes", n);
    if (x->ready_at > clock_now_ms())
        fail("message %" PRIu32 " is delayed", n);
    if (got->attempts < x->attempts + 1 ||
        got->attempts > x->attempts + 1 + x->open)
        fail("attempt %" PRIu32 " after %" PRIu32, got->attempts, x->attempts);
    for (uint32_t i = 0; got->attempts == 1 && i < n; i++) {
        if (is_ready(&m.message[i]) && m.message[i].attempts == 0 &&
            m.message[i].ready_at == 0 && x->ready_at == 0)
            fail("message %" PRIu32 " before %" PRIu32, n, i);
    }
    x->attempts = got->attempts;
    x->open = 0;
    return x;
}

static void nothing_given(void)
{
    for (uint32_t i = 0; i < m.messages; i++) {
        if (is_ready(&m.message[i]))
            fail("message %" PRIu32 " is there, and was not given", i);
    }
}

static void push(uint64_t stop)
{
    struct message x = {.there = true, .holder = NOBODY, .len = some_len()};
    int64_t delay = draw(4) == 0 ? (int64_t)draw(2000) : 0;
    uint64_t before = queue_info().pushed;
    volatile bool died = true;
    volatile int rc = SHD_OK;

    if (m.messages == MESSAGES)
        return;
    if (delay > 0)
        x.ready_at = clock_now_ms() + (uint64_t)delay;
    fill(bytes, m.messages, x.len);
    if (workers_try(stop)) {
        rc = shd_queue_push(queue, bytes, x.len, delay, 0, NULL);
        workers_done();
        died = false;
    }
    if (died) {
        expect(shd_reap(segment, NULL), SHD_OK);
        rc = queue_info().pushed > before ? SHD_OK : SHD_FULL;
    }
    if (rc != SHD_FULL)
        expect(rc, SHD_OK);
    if (rc == SHD_OK)
        m.message[m.messages++] = x;
}

/* In steps; between them another one may die. */
static void reserve(void)
{
    struct message x = {.there = true, .holder = NOBODY, .len = some_len()};
    uint64_t lease;
    int rc;

    if (m.messages == MESSAGES)
        return;
    rc = shd_queue_reserve(queue, x.len, 0, &lease);
    if (rc == SHD_FULL)
        return;
    expect(rc, SHD_OK);
    fill(bytes, m.messages, x.len);
    expect(shd_queue_write(queue, lease, 0, bytes, x.len / 2), SHD_OK);
    expect(shd_queue_write(queue, lease, x.len / 2, bytes + x.len / 2,
                           x.len - x.len / 2),
           SHD_OK);
    if (draw(3) == 0) {
        expect(shd_queue_cancel(queue, lease), SHD_OK);
        return;
    }
    expect(shd_queue_commit(queue, lease, 0, NULL), SHD_OK);
    m.message[m.messages++] = x;
}

/* Who died was given one, or not: all that could have been it are open. */
static void maybe_given(void)
{
    for (uint32_t i = 0; i < m.messages; i++) {
        if (m.message[i].there && m.message[i].holder == NOBODY &&
            m.message[i].ready_at <= clock_now_ms())
            m.message[i].open++;
    }
}

/* What is gone since is found by what is left. */
static void find_gone(uint64_t popped)
{
    bool there[MESSAGES] = {false};
    uint64_t gone = 0;

    for (uint32_t which = SHD_MESSAGE_READY; which <= SHD_MESSAGE_DEAD; which++)
        for (uint64_t i = 0;; i++) {
            struct shd_message got;
            int rc = shd_queue_peek(queue, which, i, buffer, sizeof(buffer),
                                    &got);

            if (rc == SHD_NOTFOUND)
                break;
            expect(rc, SHD_OK);
            if (which == SHD_MESSAGE_RESERVED)
                continue;
            there[number_in(buffer, got.len) % MESSAGES] = true;
        }
    for (uint32_t i = 0; i < m.messages; i++) {
        if (there[i] && !m.message[i].there)
            fail("message %" PRIu32 " is there again", i);
        if (!there[i] && m.message[i].there) {
            m.message[i].there = false;
            gone++;
        }
    }
    if (gone != popped)
        fail("%" PRIu64 " messages are gone, %" PRIu64 " were taken", gone,
             popped);
}

static void take(bool keep, uint64_t stop)
{
    size_t size = draw(8) == 0 ? draw(100) : sizeof(buffer);
    uint64_t before = queue_info().popped;
    volatile bool died = true;
    volatile int rc = SHD_OK;
    struct shd_message got;

    if (workers_try(stop)) {
        rc = (keep ? shd_queue_take : shd_queue_pop)(queue, buffer, size, 0,
                                                     &got);
        workers_done();
        died = false;
    }
    if (died) {
        expect(shd_reap(segment, NULL), SHD_OK);
        find_gone(queue_info().popped - before);
        maybe_given();
        return;
    }
    if (rc == SHD_NOTFOUND) {
        nothing_given();
        return;
    }
    if (rc == SHD_SPACE) {
        if (got.len <= size)
            fail("%" PRIu64 " bytes do not fit in %zu", got.len, size);
        return;
    }
    expect(rc, SHD_OK);
    struct message *x = given(&got);
    x->there = keep;
    if (keep) {
        x->holder = workers_current();
        x->lease = got.lease;
    }
}

/* Any message somebody has; or none. */
static struct message *some_held(void)
{
    uint32_t from = (uint32_t)draw(MESSAGES);

    for (uint32_t i = 0; i < m.messages; i++) {
        struct message *x = &m.message[(from + i) % m.messages];

        if (x->there && x->holder != NOBODY)
            return x;
    }
    return NULL;
}

static void settle(uint64_t stop)
{
    struct message *x = some_held();
    uint64_t what = draw(4), before = queue_info().acked, now;
    int64_t delay = draw(3) == 0 ? (int64_t)draw(2000) : 0;
    volatile bool died = true;
    volatile int rc = SHD_OK;
    bool mine;

    if (x == NULL)
        return;
    mine = x->holder == workers_current();
    if (workers_try(stop)) {
        if (what < 2)
            rc = shd_queue_ack(queue, x->lease);
        else if (what == 2)
            rc = shd_queue_nack(queue, x->lease, delay);
        else
            rc = shd_queue_extend(queue, x->lease, 0);
        workers_done();
        died = false;
    }
    if (!died)
        expect(rc, mine ? SHD_OK : SHD_LOST);
    if (died) {
        expect(shd_reap(segment, NULL), SHD_OK);
        now = queue_info().acked;
        if (now > before)
            x->there = false;
        else if (mine && what == 2)
            x->open++; /* it may have been put off */
        find_gone(0);
        return;
    }
    if (!mine)
        return;
    if (what < 2)
        x->there = false;
    if (what == 2) {
        x->holder = NOBODY;
        x->ready_at = delay > 0 ? clock_now_ms() + (uint64_t)delay : 1;
    }
}

/* ---- topic ------------------------------------------------------------------ */

static void publish(uint64_t stop)
{
    struct shd_topic_info i = {.struct_size = sizeof(i)};
    uint32_t len = some_len() % 3000 + 4, n = (uint32_t)m.published + 1;
    volatile bool died = true;
    uint64_t seq = 0;

    fill(bytes, n, len);
    if (workers_try(stop)) {
        expect(shd_topic_publish(topic, bytes, len, 0, &seq), SHD_OK);
        workers_done();
        died = false;
    }
    if (!died && seq != n)
        fail("event %" PRIu64 ", should be %" PRIu32, seq, n);
    if (died)
        expect(shd_reap(segment, NULL), SHD_OK);
    expect(shd_topic_info(topic, &i), SHD_OK);
    if (i.published != m.published && i.published != n)
        fail("%" PRIu64 " published, should be %" PRIu32, i.published, n);
    m.published = i.published;
    m.event_len[n % MESSAGES] = len;
}

static void unsubscribe(uint32_t worker)
{
    if (subscription[worker] != NULL)
        (void)shd_subscription_close(subscription[worker]);
    subscription[worker] = NULL;
}

static void subscribe(void)
{
    uint32_t w = workers_current();
    struct shd_topic_info i = {.struct_size = sizeof(i)};
    bool oldest = draw(2) != 0;

    unsubscribe(w);
    expect(shd_topic_info(topic, &i), SHD_OK);
    expect(shd_topic_subscribe(topic, NULL,
                               oldest ? SHD_FROM_OLDEST : SHD_FROM_NOW,
                               &subscription[w]),
           SHD_OK);
    m.next[w] = oldest ? i.oldest : m.published + 1;
}

static void hear(void)
{
    uint32_t w = workers_current(), count = 0;
    struct shd_event event[4];
    uint64_t missed = 0;
    int rc;

    if (subscription[w] == NULL)
        return;
    rc = shd_subscription_next(subscription[w], buffer, sizeof(buffer), 0,
                               event, 4, &count, &missed);
    if (rc == SHD_NOTFOUND) {
        if (m.next[w] != m.published + 1)
            fail("event %" PRIu64 " of %" PRIu64 " was not given", m.next[w],
                 m.published);
        return;
    }
    expect(rc, SHD_OK);
    m.next[w] += missed;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t seq = event[i].seq;
        uint32_t len = m.event_len[seq % MESSAGES];

        if (seq != m.next[w] || event[i].len != len)
            fail("event %" PRIu64 " of %" PRIu64 " bytes, should be %" PRIu64
                 " of %" PRIu32, seq, event[i].len, m.next[w], len);
        fill(bytes, (uint32_t)seq, len);
        if (memcmp(buffer + event[i].at, bytes, len) != 0)
            fail("event %" PRIu64 " has other bytes", seq);
        m.next[w]++;
    }
}

/* ---- permits ---------------------------------------------------------------- */

static void acquire(uint64_t stop)
{
    volatile bool died = true;
    volatile int rc = SHD_OK;
    struct shd_grant g;

    if (m.grants == GRANTS)
        return;
    if (workers_try(stop)) {
        rc = shd_lock_acquire(lock, 0, 0, &g);
        workers_done();
        died = false;
    }
    if (died)
        return;
    expect(rc, m.grants < PERMITS ? SHD_OK : SHD_BUSY);
    if (rc != SHD_OK)
        return;
    if (g.token <= m.token)
        fail("token %" PRIu64 " after %" PRIu64, g.token, m.token);
    m.token = g.token;
    m.grant[m.grants++] = (struct grant){workers_current(), g.token};
}

static void release(uint64_t stop)
{
    uint32_t n = (uint32_t)draw(GRANTS);
    volatile bool died = true;
    volatile int rc = SHD_OK;

    if (m.grants == 0) {
        expect(shd_lock_release(lock, n), SHD_LOST);
        return;
    }
    n %= m.grants;
    bool mine = m.grant[n].worker == workers_current();
    if (workers_try(stop)) {
        rc = shd_lock_release(lock, m.grant[n].token);
        workers_done();
        died = false;
    }
    if (died)
        return;
    expect(rc, mine ? SHD_OK : SHD_LOST);
    if (mine)
        m.grant[n] = m.grant[--m.grants];
}

/* ---- workers ---------------------------------------------------------------- */

/* What that worker had is nobody's. */
static void bury(uint32_t worker)
{
    for (uint32_t i = 0; i < m.messages; i++) {
        if (m.message[i].holder == worker) {
            m.message[i].holder = NOBODY;
            m.message[i].ready_at = 1;
        }
    }
    for (uint32_t i = m.grants; i-- > 0;) {
        if (m.grant[i].worker == worker)
            m.grant[i] = m.grant[--m.grants];
    }
    unsubscribe(worker);
}

static void worker(void)
{
    uint32_t w = (uint32_t)draw(WORKERS);

    if (draw(3) != 0) {
        workers_become(w);
        return;
    }
    workers_kill(w);
    if (w == workers_current())
        expect(shd_worker_join(segment, NULL), SHD_OK);
    expect(shd_reap(segment, NULL), SHD_OK);
    bury(w);
}

static void check(void)
{
    struct shd_queue_info i = queue_info();
    char report[300] = "";
    uint64_t n = 0;

    doing = "check";
    for (uint32_t x = 0; x < m.messages; x++)
        n += m.message[x].there;
    if (i.ready + i.delayed + i.leased + i.dead != n)
        fail("%" PRIu32 " ready, %" PRIu32 " delayed, %" PRIu32
             " leased and %" PRIu32 " dead should be %" PRIu64,
             i.ready, i.delayed, i.leased, i.dead, n);
    if (shd_segment_check(segment, report, sizeof(report)) != SHD_OK)
        fail("%s", report);
}

static void step(void)
{
    uint64_t what = draw(16);
    uint64_t stop = draw(3) == 0 ? 1 + draw(draw(4) == 0 ? 1500 : 100) : 0;
    uint64_t self = workers_incarnation(workers_current());
    uint32_t w = workers_current();
    static const char *const NAMES[] = {
        "push",    "push",   "push",      "pop",  "take",    "take",
        "settle",  "settle", "publish",   "hear", "hear",    "subscribe",
        "acquire", "release", "worker",   "other"};

    doing = NAMES[what];
    switch (what) {
    case 0:
    case 1: push(stop); break;
    case 2: reserve(); break;
    case 3: take(false, stop); break;
    case 4:
    case 5: take(true, stop); break;
    case 6:
    case 7: settle(stop); break;
    case 8: publish(stop); break;
    case 9:
    case 10: hear(); break;
    case 11: subscribe(); break;
    case 12: acquire(stop); break;
    case 13: release(stop); break;
    case 14: worker(); return;
    default:
        if (draw(2) == 0)
            clock_test_advance(draw(3000));
        else
            check();
        return;
    }
    /* It died in it: another one has its place. */
    if (self != 0 && workers_incarnation(w) != self) {
        doing = "after a death";
        expect(shd_worker_join(segment, NULL), SHD_OK);
        expect(shd_reap(segment, NULL), SHD_OK);
        bury(w);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    if (segment == NULL)
        build();
    workers_begin(segment);
    memset(&m, 0, sizeof(m));
    data = input;
    left = size;
    for (uint32_t i = 1; i < WORKERS; i++) {
        workers_become(i);
        expect(shd_worker_join(segment, NULL), SHD_OK);
    }
    workers_become(0);
    for (uint32_t i = 0; left > 0 && i < STEPS_MAX; i++)
        step();
    check();
    for (uint32_t i = 0; i < WORKERS; i++)
        unsubscribe(i);
    workers_end();
    return 0;
}
