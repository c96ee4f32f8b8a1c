/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite topic: ipc/topic*.c and api/topic.c.
 * valgrind: no: workers that run beside each other take turns there
 */
#include "tests/unit/ipc.h"

#include "shm/ipc/topic.h"

#include <poll.h>

static shd_topic *topic;
static shd_subscription *sub;
static unsigned char buf[1 << 20], data[1 << 20];
static struct shd_event events[4096];
static uint32_t count;
static uint64_t missed;

static struct topic *inner(void)
{
    return (struct topic *)(void *)((struct handle_object *)(void *)topic)
        ->view;
}

static void start(uint64_t capacity, uint32_t flags)
{
    struct shd_topic_options o = {.struct_size = sizeof(o),
                                  .flags = SHD_TOPIC_CREATE | flags,
                                  .capacity_bytes = capacity,
                                  .subscribers_max = 4};

    start_segment();
    expect(shd_topic_open(segment, "t", &o, &topic), SHD_OK);
}

/* Event number n has n % 97 bytes of the pattern n, unless len says so. */
static void publish_n(uint64_t first, uint64_t last)
{
    for (uint64_t n = first; n <= last; n++) {
        uint64_t seq = 0;

        pattern(data, n % 97, (unsigned)n);
        expect(shd_topic_publish(topic, data, n % 97, 0, &seq), SHD_OK);
        ck_assert_uint_eq(seq, n);
    }
}

static int next(uint32_t max)
{
    return shd_subscription_next(sub, buf, sizeof(buf), 0, events, max, &count,
                                 &missed);
}

static void is_event(uint32_t index, uint64_t n)
{
    ck_assert_uint_eq(events[index].seq, n);
    ck_assert_uint_eq(events[index].len, n % 97);
    pattern(data, n % 97, (unsigned)n);
    ck_assert_int_eq(memcmp(buf + events[index].at, data, n % 97), 0);
}

/* All that there is, from `from` to `to`, after `gone` that were missed. */
static void gets(uint64_t gone, uint64_t from, uint64_t to)
{
    uint64_t first_missed = 0;

    for (uint64_t n = from; n <= to; n += count) {
        expect(next(4096), SHD_OK);
        first_missed += missed;
        ck_assert_uint_gt(count, 0);
        for (uint32_t i = 0; i < count; i++)
            is_event(i, n + i);
    }
    ck_assert_uint_eq(first_missed, gone);
    expect(next(1), SHD_NOTFOUND);
}

static void subscribe(const char *name, uint32_t from)
{
    expect(shd_topic_subscribe(topic, name, from, &sub), SHD_OK);
}

static struct shd_topic_info info(void)
{
    struct shd_topic_info i = {.struct_size = sizeof(i)};

    expect(shd_topic_info(topic, &i), SHD_OK);
    return i;
}

START_TEST(a_topic_is_made_once_and_opened_with_what_it_has)
{
    struct shd_topic_options o = {.struct_size = sizeof(o),
                                  .capacity_bytes = 8192};
    shd_topic *again;

    start(8192, 0);
    expect(shd_topic_open(segment, "t", NULL, &again), SHD_OK);
    ck_assert_ptr_eq(again, topic);
    expect(shd_topic_open(segment, "t", &o, &again), SHD_OK);
    o.capacity_bytes = 16384;
    expect(shd_topic_open(segment, "t", &o, &again), SHD_MISMATCH);
    expect_said("8192 bytes, not 16384");
    o.capacity_bytes = 0;
    o.flags = SHD_TOPIC_LOSSLESS;
    expect(shd_topic_open(segment, "t", &o, &again), SHD_MISMATCH);
    expect(shd_topic_open(segment, "u", NULL, &again), SHD_NOTFOUND);
    o.flags = SHD_TOPIC_CREATE;
    o.capacity_bytes = 100;
    expect(shd_topic_open(segment, "u", &o, &again), SHD_INVAL);
    o.capacity_bytes = 8192;
    o.subscribers_max = 65536;
    expect(shd_topic_open(segment, "u", &o, &again), SHD_INVAL);
    o.subscribers_max = 0;
    o.flags = 64;
    expect(shd_topic_open(segment, "u", &o, &again), SHD_INVAL);
    sound();
}
END_TEST

START_TEST(a_new_topic_has_nothing)
{
    start(8192, 0);
    subscribe(NULL, SHD_FROM_OLDEST);
    expect(next(1), SHD_NOTFOUND);
    ck_assert_uint_eq(info().published, 0);
    ck_assert_uint_eq(info().oldest, 1);
    ck_assert_uint_eq(info().kept_bytes, 0);
    sound();
}
END_TEST

START_TEST(every_subscriber_gets_every_event_in_one_order)
{
    shd_subscription *first;

    start(65536, 0);
    subscribe(NULL, SHD_FROM_NOW);
    first = sub;
    subscribe(NULL, SHD_FROM_NOW);
    publish_n(1, 200);
    gets(0, 1, 200);
    expect(shd_subscription_close(sub), SHD_OK);
    sub = first;
    gets(0, 1, 200);
    publish_n(201, 203);
    gets(0, 201, 203);
    sound();
    expect(shd_subscription_close(first), SHD_OK);
    sub = NULL;
}
END_TEST

START_TEST(from_now_and_from_the_oldest)
{
    start(65536, 0);
    publish_n(1, 10);
    subscribe(NULL, SHD_FROM_NOW);
    publish_n(11, 12);
    gets(0, 11, 12);
    expect(shd_subscription_close(sub), SHD_OK);
    subscribe(NULL, SHD_FROM_OLDEST);
    gets(0, 1, 12);
}
END_TEST

START_TEST(who_is_lapped_is_told_how_many_it_missed)
{
    uint64_t oldest;

    start(4096, 0);
    subscribe(NULL, SHD_FROM_NOW);
    publish_n(1, 3);
    expect(next(2), SHD_OK);
    ck_assert_uint_eq(count, 2);
    publish_n(4, 1000);
    oldest = info().oldest;
    ck_assert_uint_gt(oldest, 900);
    gets(oldest - 3, oldest, 1000);
    sound();
}
END_TEST

START_TEST(an_event_as_large_as_the_ring)
{
    start(4096, 0);
    subscribe(NULL, SHD_FROM_NOW);
    publish_n(1, 12);
    pattern(data, 4080, 9);
    expect(shd_topic_publish(topic, data, 4081, 0, NULL), SHD_TOOBIG);
    expect(shd_topic_publish(topic, data, 4080, 0, NULL), SHD_OK);
    ck_assert_uint_eq(info().kept_bytes, 4096);
    expect(next(4), SHD_OK);
    ck_assert_uint_eq(missed, 12);
    ck_assert_uint_eq(count, 1);
    ck_assert_uint_eq(events[0].len, 4080);
    pattern(data, 4080, 9);
    ck_assert_int_eq(memcmp(buf, data, 4080), 0);
    sound();
}
END_TEST

START_TEST(events_go_round_the_end_in_two_pieces)
{
    start(4096, 0);
    subscribe(NULL, SHD_FROM_NOW);
    for (unsigned n = 0; n < 3000; n++) {
        size_t len = (n * 37) % 700;

        pattern(data, len, n);
        expect(shd_topic_publish(topic, data, len, 0, NULL), SHD_OK);
        expect(next(4), SHD_OK);
        ck_assert_uint_eq(missed, 0);
        ck_assert_uint_eq(count, 1);
        ck_assert_uint_eq(events[0].len, len);
        pattern(data, len, n);
        ck_assert_int_eq(memcmp(buf, data, len), 0);
    }
    sound();
}
END_TEST

START_TEST(many_at_once_are_one_row_of_numbers)
{
    static const void *all[300];
    static size_t len[300];
    static uint64_t seqs[300];
    uint32_t n;

    start(65536, 0);
    subscribe(NULL, SHD_FROM_NOW);
    publish_n(1, 3);
    for (uint32_t i = 0; i < 300; i++) {
        len[i] = (4 + i) % 97;
        all[i] = data + 100 * i;
        pattern(data + 100 * i, len[i], 4 + i);
    }
    expect(shd_topic_publish_many(topic, 300, all, len, 0, seqs, &n), SHD_OK);
    ck_assert_uint_eq(n, 300);
    for (uint32_t i = 0; i < 300; i++)
        ck_assert_uint_eq(seqs[i], 4 + i);
    gets(0, 1, 303);
    expect(shd_topic_publish_many(topic, 0, NULL, NULL, 0, NULL, &n), SHD_OK);
    expect(shd_topic_publish_many(topic, 1, all, len, 0, NULL, NULL),
           SHD_INVAL);
    all[2] = NULL;
    expect(shd_topic_publish_many(topic, 3, all, len, 0, NULL, &n), SHD_INVAL);
    ck_assert_uint_eq(n, 0);
    all[2] = data;
    len[2] = 65536;
    expect(shd_topic_publish_many(topic, 3, all, len, 0, NULL, &n),
           SHD_TOOBIG);
    ck_assert_uint_eq(n, 2);
    ck_assert_uint_eq(info().published, 305);
    sound();
}
END_TEST

START_TEST(many_at_once_lose_what_does_not_fit_and_no_more)
{
    static const void *all[300];
    static size_t len[300];
    uint32_t n;

    start(4096, 0);
    subscribe(NULL, SHD_FROM_NOW);
    for (uint32_t i = 0; i < 300; i++) {
        len[i] = 100; /* 128 in the ring, which holds 32, and two more */
        all[i] = data;
    }
    expect(shd_topic_publish_many(topic, 300, all, len, 0, NULL, &n), SHD_OK);
    ck_assert_uint_eq(n, 300);
    expect(next(4096), SHD_OK);
    ck_assert_uint_eq(missed + count, 300);
    ck_assert_uint_ge(count, 32);
    ck_assert_uint_le(count, 34);
    sound();
}
END_TEST

START_TEST(of_many_as_many_are_published_as_a_lossless_topic_has_room_for)
{
    static const void *all[300];
    static size_t len[300];
    uint32_t n;

    start(4096, SHD_TOPIC_LOSSLESS);
    subscribe(NULL, SHD_FROM_NOW);
    for (uint32_t i = 0; i < 300; i++) {
        len[i] = 100;
        all[i] = data;
    }
    expect(shd_topic_publish_many(topic, 300, all, len, 0, NULL, &n),
           SHD_FULL);
    ck_assert_uint_eq(n, 34);
    expect(next(10), SHD_OK);
    expect(shd_subscription_acknowledge(sub), SHD_OK);
    expect(shd_topic_publish_many(topic, 300, all, len, 0, NULL, &n),
           SHD_FULL);
    ck_assert_uint_eq(n, 10);
    for (uint32_t got = 0; got < 34; got += count) {
        expect(next(4096), SHD_OK);
        ck_assert_uint_eq(missed, 0);
    }
    expect(next(1), SHD_NOTFOUND);
    sound();
}
END_TEST

START_TEST(a_buffer_that_is_too_small_loses_nothing)
{
    start(65536, 0);
    subscribe(NULL, SHD_FROM_NOW);
    publish_n(1, 100);
    expect(shd_subscription_next(sub, buf, 10, 0, events, 100, &count,
                                 &missed),
           SHD_OK);
    /* 1 + 2 + 3 + 4 bytes. */
    ck_assert_uint_eq(count, 4);
    expect(shd_subscription_next(sub, buf, 4, 0, events, 100, &count,
                                 &missed),
           SHD_SPACE);
    ck_assert_uint_eq(events[0].len, 5);
    ck_assert_uint_eq(count, 0);
    gets(0, 5, 100);
}
END_TEST

START_TEST(arguments_are_checked)
{
    shd_subscription *s;

    start(8192, 0);
    subscribe(NULL, SHD_FROM_NOW);
    expect(shd_topic_publish(NULL, "x", 1, 0, NULL), SHD_INVAL);
    expect(shd_topic_publish(topic, NULL, 1, 0, NULL), SHD_INVAL);
    expect(shd_topic_publish(topic, "x", 1, -2, NULL), SHD_INVAL);
    expect(shd_topic_subscribe(topic, NULL, 7, &s), SHD_INVAL);
    expect(shd_topic_subscribe(topic, "", 0, &s), SHD_NAME);
    expect(shd_topic_subscribe(topic, "a/b", 0, &s), SHD_NAME);
    expect(shd_subscription_next(sub, buf, 1, 0, events, 0, &count, &missed),
           SHD_INVAL);
    expect(shd_subscription_next(NULL, buf, 1, 0, events, 1, &count, &missed),
           SHD_INVAL);
    expect(shd_subscription_close(NULL), SHD_INVAL);
    expect(shd_topic_close(topic), SHD_OK);
    expect(shd_topic_publish(topic, "x", 1, 0, NULL), SHD_CLOSED);
    expect(shd_subscription_next(sub, buf, 1, 0, events, 1, &count, &missed),
           SHD_CLOSED);
    expect(shd_subscription_close(sub), SHD_OK);
}
END_TEST

START_TEST(a_destroyed_topic_is_gone_for_all)
{
    start(8192, 0);
    subscribe(NULL, SHD_FROM_NOW);
    publish_n(1, 5);
    expect(next(2), SHD_OK);
    expect(shd_object_destroy(segment, "t"), SHD_OK);
    expect(next(2), SHD_GONE);
    expect(shd_topic_publish(topic, "x", 1, 0, NULL), SHD_GONE);
    expect(shd_subscription_close(sub), SHD_OK);
    sound();
}
END_TEST

/* ---- names --------------------------------------------------------------- */

START_TEST(a_name_goes_on_after_what_was_done_with)
{
    start(65536, 0);
    publish_n(1, 4);
    subscribe("me", SHD_FROM_OLDEST);
    expect(next(2), SHD_OK);
    expect(shd_subscription_close(sub), SHD_OK);
    /* `from` counts only the first time. */
    subscribe("me", SHD_FROM_NOW);
    gets(0, 3, 4);
    publish_n(5, 9);
    expect(next(2), SHD_OK);
    expect(shd_subscription_acknowledge(sub), SHD_OK);
    expect(shd_subscription_close(sub), SHD_OK);
    subscribe("me", SHD_FROM_NOW);
    gets(0, 7, 9);
    sound();
}
END_TEST

START_TEST(a_dead_subscribers_name_gets_again_what_was_not_done_with)
{
    start(65536, 0);
    publish_n(1, 10);
    dying_worker({
        subscribe("me", SHD_FROM_OLDEST);
        expect(next(3), SHD_OK); /* 1 to 3 */
        expect(next(3), SHD_OK); /* 4 to 6: 1 to 3 are done with */
    });
    sound();
    subscribe("me", SHD_FROM_NOW);
    gets(0, 4, 10);
    sound();
}
END_TEST

START_TEST(a_name_of_a_live_worker_is_taken)
{
    shd_subscription *s;
    pid_t pid;

    start(65536, 0);
    stopped_worker(pid, subscribe("me", SHD_FROM_OLDEST));
    expect(shd_topic_subscribe(topic, "me", 0, &s), SHD_EXISTS);
    expect(shd_topic_forget(topic, "me"), SHD_EXISTS);
    kill_worker(pid);
    expect(shd_topic_subscribe(topic, "me", 0, &s), SHD_OK);
    sound();
    expect(shd_subscription_close(s), SHD_OK);
}
END_TEST

START_TEST(a_name_that_was_lapped_is_told)
{
    uint64_t oldest;

    start(4096, 0);
    subscribe("me", SHD_FROM_OLDEST);
    publish_n(1, 5);
    expect(next(5), SHD_OK);
    expect(shd_subscription_close(sub), SHD_OK);
    publish_n(6, 500);
    sound();
    oldest = info().oldest;
    subscribe("me", SHD_FROM_OLDEST);
    gets(oldest - 6, oldest, 500);
    sound();
}
END_TEST

START_TEST(names_are_forgotten_and_their_room_is_used_again)
{
    shd_subscription *s;
    char name[16];

    start(8192, 0);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "n%d", i);
        expect(shd_topic_subscribe(topic, name, 0, &s), SHD_OK);
        expect(shd_subscription_close(s), SHD_OK);
        if (i >= 3)
            expect(shd_topic_forget(topic, name), SHD_OK);
    }
    expect(shd_topic_subscribe(topic, "x", 0, &s), SHD_OK);
    sub = s;
    expect(shd_topic_subscribe(topic, "y", 0, &s), SHD_FULL);
    expect(shd_topic_forget(topic, "n9"), SHD_NOTFOUND);
    ck_assert_uint_eq(info().cursors, 4);
    sound();
}
END_TEST

START_TEST(a_childs_copy_of_a_name_is_its_parents)
{
    pid_t pid;

    start(8192, 0);
    subscribe("me", SHD_FROM_NOW);
    publish_n(1, 2);
    running_worker(pid, {
        expect(next(1), SHD_LOST);
        expect(shd_subscription_close(sub), SHD_OK);
        subscribe(NULL, SHD_FROM_OLDEST);
        gets(0, 1, 2);
    });
    ends_well(pid);
    gets(0, 1, 2);
    sound();
}
END_TEST

START_TEST(cursors_are_shown)
{
    struct shd_cursor_info c = {.struct_size = sizeof(c)};

    start(8192, 0);
    subscribe("me", SHD_FROM_NOW);
    publish_n(1, 7);
    expect(next(3), SHD_OK);
    expect(shd_subscription_acknowledge(sub), SHD_OK);
    expect(shd_topic_cursor(topic, 0, &c), SHD_OK);
    ck_assert_str_eq(c.name, "me");
    ck_assert_uint_eq(c.owner, me());
    ck_assert_uint_eq(c.next, 4);
    ck_assert_uint_eq(c.behind, 4);
    expect(shd_topic_cursor(topic, 1, &c), SHD_NOTFOUND);
    expect(shd_topic_cursor(topic, 4, &c), SHD_INVAL);
}
END_TEST

/* ---- lossless ------------------------------------------------------------ */

static void fill_up(uint64_t *published)
{
    int rc;

    pattern(data, 100, 1);
    while ((rc = shd_topic_publish(topic, data, 100, 0, NULL)) == SHD_OK)
        (*published)++;
    expect(rc, SHD_FULL);
}

START_TEST(a_lossless_topic_is_full_before_it_loses_anything)
{
    uint64_t n = 0;

    start(4096, SHD_TOPIC_LOSSLESS);
    subscribe(NULL, SHD_FROM_NOW);
    fill_up(&n);
    ck_assert_uint_eq(n, (4096 + 4096 / 16) / 128);
    expect(shd_topic_publish(topic, data, 100, 30, NULL), SHD_FULL);
    expect(next(1), SHD_OK);
    /* It is not done with yet. */
    expect(shd_topic_publish(topic, data, 100, 0, NULL), SHD_FULL);
    expect(shd_subscription_acknowledge(sub), SHD_OK);
    expect(shd_topic_publish(topic, data, 100, 0, NULL), SHD_OK);
    expect(shd_topic_publish(topic, data, 100, 0, NULL), SHD_FULL);
    sound();
    expect(shd_subscription_close(sub), SHD_OK);
    n = 0;
    expect(shd_topic_publish(topic, data, 100, 0, NULL), SHD_OK);
    ck_assert_uint_eq(info().cursors, 0);
    sound();
}
END_TEST

START_TEST(a_dead_subscriber_holds_nobody_up)
{
    uint64_t n = 0;
    pid_t pid;

    start(4096, SHD_TOPIC_LOSSLESS);
    stopped_worker(pid, subscribe(NULL, SHD_FROM_NOW));
    fill_up(&n);
    kill_worker(pid);
    expect(shd_topic_publish(topic, data, 100, 0, NULL), SHD_OK);
    ck_assert_uint_eq(info().cursors, 0);
    sound();
}
END_TEST

START_TEST(a_dead_name_of_a_lossless_topic_is_lapped_and_told)
{
    uint64_t oldest;

    start(4096, SHD_TOPIC_LOSSLESS);
    dying_worker(subscribe("me", SHD_FROM_NOW));
    publish_n(1, 500);
    oldest = info().oldest;
    subscribe("me", SHD_FROM_NOW);
    gets(oldest - 1, oldest, 500);
    sound();
}
END_TEST

START_TEST(a_publisher_waits_for_the_slowest)
{
    uint64_t n = 0;
    pid_t pid;

    start(4096, SHD_TOPIC_LOSSLESS);
    subscribe(NULL, SHD_FROM_NOW);
    fill_up(&n);
    running_worker(pid, expect(shd_topic_publish(topic, data, 100, 20000,
                                                 NULL),
                               SHD_OK));
    usleep(20000);
    expect(next(1), SHD_OK);
    expect(shd_subscription_acknowledge(sub), SHD_OK);
    ends_well(pid);
    sound();
}
END_TEST

/* ---- waiting ------------------------------------------------------------- */

START_TEST(who_waits_is_woken_by_an_event)
{
    pid_t pid;

    start(8192, 0);
    subscribe(NULL, SHD_FROM_NOW);
    running_worker(pid, {
        usleep(20000);
        publish_n(1, 1);
    });
    expect(shd_subscription_next(sub, buf, sizeof(buf), 20000, events, 1,
                                 &count, &missed),
           SHD_OK);
    is_event(0, 1);
    ends_well(pid);
    expect(shd_subscription_next(sub, buf, sizeof(buf), 20, events, 1, &count,
                                 &missed),
           SHD_NOTFOUND);
}
END_TEST

START_TEST(the_bell_rings_once_for_news)
{
    struct pollfd p = {.events = POLLIN};

    start(8192, 0);
    subscribe(NULL, SHD_FROM_NOW);
    p.fd = shd_worker_fd(segment);
    ck_assert_int_ge(p.fd, 0);
    expect(shd_subscription_arm(sub), SHD_OK);
    ck_assert_int_eq(poll(&p, 1, 0), 0);
    publish_n(1, 1);
    ck_assert_int_eq(poll(&p, 1, 10000), 1);
    expect(shd_worker_fd_clear(segment), SHD_OK);
    ck_assert_int_eq(shd_subscription_arm(sub), 1);
    gets(0, 1, 1);
    expect(shd_subscription_arm(sub), SHD_OK);
    ck_assert_int_eq(poll(&p, 1, 0), 0);
}
END_TEST

/* ---- deaths -------------------------------------------------------------- */

/* A publisher of event 2 that dies before it has told the header, with the
 * event's number stored or without. */
static void publisher_dies(bool published)
{
    const struct topic *t = inner();
    struct topic_header *h = t->header;
    uint64_t kept = h->kept;

    dying_worker({
        uint64_t head = h->tail_at + (kept & UINT32_MAX) * TOPIC_UNIT;

        publish_n(2, 2);
        expect(object_lock(&t->object, 0), SHD_OK);
        h->kept = kept;
        if (!published)
            memset(t->ring + head % t->ring_bytes, 0, 8);
    });
}

START_TEST(an_event_without_its_number_is_not_seen)
{
    start(8192, 0);
    subscribe(NULL, SHD_FROM_NOW);
    publish_n(1, 1);
    publisher_dies(false);
    gets(0, 1, 1);
    publish_n(2, 2);
    gets(0, 2, 2);
    sound();
}
END_TEST

START_TEST(an_event_with_its_number_is_there_whatever_the_header_says)
{
    start(8192, 0);
    subscribe(NULL, SHD_FROM_NOW);
    publish_n(1, 1);
    publisher_dies(true);
    ck_assert_uint_eq(info().published, 2);
    sound();
    gets(0, 1, 2);
    expect(shd_subscription_close(sub), SHD_OK);
    subscribe(NULL, SHD_FROM_OLDEST);
    gets(0, 1, 2);
    expect(shd_subscription_close(sub), SHD_OK);
    subscribe(NULL, SHD_FROM_NOW);
    publish_n(3, 3);
    gets(0, 3, 3);
    sound();
}
END_TEST

START_TEST(a_tail_that_was_not_committed_loses_nothing)
{
    struct topic *t;

    start(8192, 0);
    subscribe(NULL, SHD_FROM_NOW);
    publish_n(1, 3);
    t = inner();
    dying_worker({
        struct txn txn;

        (void)me();
        expect(object_lock(&t->object, 0), SHD_OK);
        txn_begin(&txn, t->object.env->segment, topic_guard(t), 2);
        txn_store64(&txn, &t->header->tail_at, 64);
        txn_store64(&txn, &t->header->tail_seq, 3);
    });
    gets(0, 1, 3);
    sound();
}
END_TEST

/* ---- damage -------------------------------------------------------------- */

static void start_damaged(void)
{
    start(8192, 0);
    publish_n(1, 300);
    subscribe("me", SHD_FROM_OLDEST);
    expect(next(5), SHD_OK);
    expect(shd_subscription_acknowledge(sub), SHD_OK);
    sound();
}

START_TEST(a_damaged_head_is_named)
{
    start_damaged();
    inner()->header->kept++;
    expect_check_names("damaged is event");
    inner()->header->kept += 1 << 20;
    expect_check_names("head and tail contradict");
    expect(shd_topic_publish(topic, "x", 1, 0, NULL), SHD_CORRUPT);
    expect(next(4096), SHD_OK); /* what lies there in a row */
    expect(shd_topic_subscribe(topic, NULL, SHD_FROM_NOW, &sub), SHD_CORRUPT);
}
END_TEST

START_TEST(a_damaged_number_is_named)
{
    start_damaged();
    inner()->header->kept += 1ull << 32;
    expect_check_names("the head's number is not 300");
}
END_TEST

START_TEST(what_lies_at_the_head_and_is_no_event_is_named)
{
    struct topic_header *h;
    struct topic *t;

    start_damaged();
    t = inner();
    h = t->header;
    t->ring[(h->tail_at + (h->kept & UINT32_MAX) * TOPIC_UNIT) %
            t->ring_bytes] = 7;
    expect_check_names("neither nothing nor an event is number 301");
    expect(next(4096), SHD_OK);
    expect(next(1), SHD_CORRUPT);
    /* A publisher that is not told that one may have died there writes over
     * it; one that is looks. */
    h->sealed = 0;
    expect(shd_topic_publish(topic, "x", 1, 0, NULL), SHD_CORRUPT);
}
END_TEST

START_TEST(a_damaged_event_is_named_and_never_followed)
{
    struct topic *t;
    struct topic_event *e;

    start_damaged();
    t = inner();
    e = (struct topic_event *)(void *)(t->ring +
                                       t->header->tail_at %
                                           t->ring_bytes);
    e->len = 0xfffffff0;
    expect_check_names("damaged is event");
    expect(shd_subscription_close(sub), SHD_OK);
    subscribe(NULL, SHD_FROM_OLDEST);
    expect(next(1), SHD_CORRUPT);
    pattern(data, 3000, 1);
    expect(shd_topic_publish(topic, data, 3000, 0, NULL), SHD_CORRUPT);
}
END_TEST

START_TEST(damaged_cursors_are_named)
{
    struct topic_header *h;
    struct topic_cursor *c;

    start_damaged();
    h = inner()->header;
    c = inner()->cursors;
    h->subscribers = 3;
    expect_check_names("the count of cursors is not 1");
    h->subscribers = 1;
    c->seq++;
    expect_check_names("not at an event is cursor 0");
    c->seq--;
    c->at += 1 << 20;
    expect_check_names("past the head is cursor 0");
    c->at -= 1 << 20;
    c->name[0] = '\0';
    expect_check_names("without a name is cursor 0");
    c->name[0] = 'm';
    c->state = 9;
    expect_check_names("an unknown state has cursor 0");
    c->state = TOPIC_CURSOR_PLAIN;
    c->owner = 0;
    expect_check_names("nobody's is cursor 0");
    c->state = TOPIC_CURSOR_FREE;
    expect_check_names("neither free nor used is cursor 0");
    c->state = TOPIC_CURSOR_NAMED;
    h->cursors_free = 1;
    expect_check_names("in use is free cursor 0");
    h->cursors_free = 99;
    expect_check_names("the list of free cursors is broken at 99");
    h->cursors_free = 0;
    h->cursors_used = 99;
    expect_check_names("more cursors than there is room for: 99");
    h->cursors_used = 1;
    sound();
}
END_TEST

START_TEST(a_live_subscriber_left_behind_in_a_lossless_topic_is_named)
{
    start(4096, SHD_TOPIC_LOSSLESS);
    subscribe(NULL, SHD_FROM_NOW);
    publish_n(1, 3);
    inner()->header->tail_at = 32;
    inner()->header->tail_seq = 2;
    inner()->header->kept -= 1ull << 32 | 2;
    expect_check_names("left behind in a lossless topic is cursor 0");
}
END_TEST

START_TEST(who_takes_a_lapped_name_over_is_no_damage)
{
    start(4096, SHD_TOPIC_LOSSLESS);
    subscribe("me", SHD_FROM_NOW);
    expect(shd_subscription_close(sub), SHD_OK);
    publish_n(1, 200);
    subscribe("me", SHD_FROM_NOW);
    sound();
    expect(next(4096), SHD_OK);
    ck_assert_uint_eq(missed + info().published - info().oldest + 1, 200);
    sound();
}
END_TEST

START_TEST(damaged_sizes_are_named)
{
    shd_topic *again;

    start_damaged();
    inner()->header->capacity_bytes *= 2;
    expect(shd_topic_close(topic), SHD_OK);
    expect(shd_topic_open(segment, "t", NULL, &again), SHD_CORRUPT);
    expect_check_names("its sizes are not those of its room");
}
END_TEST

/* ---- beside each other --------------------------------------------------- */

/* Publishers and subscribers at full speed in a small ring: what is received
 * is whole, in order, and with what was missed is all. */
START_TEST(received_and_missed_are_published)
{
    enum { PUBLISHERS = 2, EACH = 10000 };
    uint64_t want = 1, got = 0, lost = 0;
    pid_t pid[PUBLISHERS];

    start(4096, 0);
    subscribe(NULL, SHD_FROM_NOW);
    for (int i = 0; i < PUBLISHERS; i++)
        running_worker(pid[i], {
            for (unsigned n = 0; n < EACH; n++) {
                size_t len = 8 + n % 90;
                pattern(data, len, n);
                memcpy(data, &n, sizeof(n));
                expect(shd_topic_publish(topic, data, len, 0, NULL), SHD_OK);
            }
        });
    while (got + lost < PUBLISHERS * EACH) {
        expect(shd_subscription_next(sub, buf, sizeof(buf), 20000, events, 64,
                                     &count, &missed),
               SHD_OK);
        lost += missed;
        want += missed;
        for (uint32_t i = 0; i < count; i++) {
            unsigned n;
            memcpy(&n, buf + events[i].at, sizeof(n));
            ck_assert_uint_eq(events[i].seq, want++);
            ck_assert_uint_eq(events[i].len, 8 + n % 90);
            pattern(data, events[i].len, n);
            memcpy(data, &n, sizeof(n));
            ck_assert_int_eq(
                memcmp(buf + events[i].at, data, events[i].len), 0);
        }
        got += count;
    }
    ck_assert_uint_eq(got + lost, PUBLISHERS * EACH);
    ck_assert_uint_gt(got, 0);
    for (int i = 0; i < PUBLISHERS; i++)
        ends_well(pid[i]);
    sound();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("topic");
    TCase *c = tcase_create("topic");

    tcase_set_timeout(c, 60);
    tcase_add_test(c, a_topic_is_made_once_and_opened_with_what_it_has);
    tcase_add_test(c, a_new_topic_has_nothing);
    tcase_add_test(c, every_subscriber_gets_every_event_in_one_order);
    tcase_add_test(c, from_now_and_from_the_oldest);
    tcase_add_test(c, who_is_lapped_is_told_how_many_it_missed);
    tcase_add_test(c, an_event_as_large_as_the_ring);
    tcase_add_test(c, events_go_round_the_end_in_two_pieces);
    tcase_add_test(c, many_at_once_are_one_row_of_numbers);
    tcase_add_test(c, many_at_once_lose_what_does_not_fit_and_no_more);
    tcase_add_test(
        c, of_many_as_many_are_published_as_a_lossless_topic_has_room_for);
    tcase_add_test(c, a_buffer_that_is_too_small_loses_nothing);
    tcase_add_test(c, arguments_are_checked);
    tcase_add_test(c, a_destroyed_topic_is_gone_for_all);
    tcase_add_test(c, a_name_goes_on_after_what_was_done_with);
    tcase_add_test(c, a_dead_subscribers_name_gets_again_what_was_not_done_with);
    tcase_add_test(c, a_name_of_a_live_worker_is_taken);
    tcase_add_test(c, a_name_that_was_lapped_is_told);
    tcase_add_test(c, names_are_forgotten_and_their_room_is_used_again);
    tcase_add_test(c, a_childs_copy_of_a_name_is_its_parents);
    tcase_add_test(c, cursors_are_shown);
    tcase_add_test(c, a_lossless_topic_is_full_before_it_loses_anything);
    tcase_add_test(c, a_dead_subscriber_holds_nobody_up);
    tcase_add_test(c, a_dead_name_of_a_lossless_topic_is_lapped_and_told);
    tcase_add_test(c, a_publisher_waits_for_the_slowest);
    tcase_add_test(c, who_waits_is_woken_by_an_event);
    tcase_add_test(c, the_bell_rings_once_for_news);
    tcase_add_test(c, an_event_without_its_number_is_not_seen);
    tcase_add_test(c, an_event_with_its_number_is_there_whatever_the_header_says);
    tcase_add_test(c, a_tail_that_was_not_committed_loses_nothing);
    tcase_add_test(c, a_damaged_head_is_named);
    tcase_add_test(c, a_damaged_number_is_named);
    tcase_add_test(c, what_lies_at_the_head_and_is_no_event_is_named);
    tcase_add_test(c, a_damaged_event_is_named_and_never_followed);
    tcase_add_test(c, damaged_cursors_are_named);
    tcase_add_test(c,
                   a_live_subscriber_left_behind_in_a_lossless_topic_is_named);
    tcase_add_test(c, who_takes_a_lapped_name_over_is_no_damage);
    tcase_add_test(c, damaged_sizes_are_named);
    tcase_add_test(c, received_and_missed_are_published);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
