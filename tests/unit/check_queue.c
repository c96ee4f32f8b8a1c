/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite queue: the public queue, and ipc/queue.c and ipc/cells.c below it.
 * Consumers and producers that die are children that kill themselves.
 */
#include <poll.h>

#include "shm/api/object.h"
#include "shm/base/clock.h"
#include "shm/ipc/queue.h"
#include "tests/unit/support.h"

static shd_segment *segment;
static shd_queue *queue;
static char buf[300000], bytes[300000];

static struct shd_queue_options options(void)
{
    struct shd_queue_options o;

    memset(&o, 0, sizeof(o));
    o.struct_size = sizeof(o);
    return o;
}

static void make(const struct shd_queue_options *o)
{
    expect(shd_queue_open(segment, "q", o, &queue), SHD_OK);
}

static void set_up(void)
{
    struct shd_segment_options o;

    memset(&o, 0, sizeof(o));
    o.struct_size = sizeof(o);
    o.size_bytes = 16 << 20;
    o.workers_max = 16;
    expect(shd_segment_create(NULL, &o, &segment), SHD_OK);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(i * 7 + i / 251);
}

static void check_all(void)
{
    char report[256] = "";
    int rc = shd_segment_check(segment, report, sizeof(report));

    ck_assert_msg(rc == SHD_OK, "check: %s: %s", shd_strerror_name(rc),
                  report);
}

static void tear_down(void)
{
    check_all();
    expect(shd_segment_close(segment), SHD_OK);
}

static struct shd_queue_info info(void)
{
    struct shd_queue_info i = {.struct_size = sizeof(i)};

    expect(shd_queue_info(queue, &i), SHD_OK);
    return i;
}

static void push(const char *text)
{
    expect(shd_queue_push(queue, text, strlen(text), 0, 0, NULL), SHD_OK);
}

static struct shd_message take(const char *text)
{
    struct shd_message m;

    memset(buf, 0, 100);
    expect(shd_queue_take(queue, buf, sizeof(buf), 0, &m), SHD_OK);
    ck_assert_uint_eq(m.len, strlen(text));
    ck_assert_str_eq(buf, text);
    return m;
}

static void pop(const char *text)
{
    struct shd_message m;

    memset(buf, 0, 100);
    expect(shd_queue_pop(queue, buf, sizeof(buf), 0, &m), SHD_OK);
    ck_assert_str_eq(buf, text);
}

static void pop_n(uint32_t n)
{
    struct shd_message m;

    for (uint32_t i = 0; i < n; i++)
        expect(shd_queue_pop(queue, buf, sizeof(buf), 0, &m), SHD_OK);
}

static void expect_empty(void)
{
    struct shd_message m;

    expect(shd_queue_pop(queue, buf, sizeof(buf), 0, &m), SHD_NOTFOUND);
}

/* ---- open -------------------------------------------------------------- */

START_TEST(a_pop_is_a_delivery_and_counted_as_popped)
{
    struct shd_queue_options o = options();
    struct shd_message m;

    make(&o);
    expect(shd_queue_push(queue, bytes, 10, 0, 0, NULL), SHD_OK);
    expect(shd_queue_push(queue, bytes, 50000, 0, 0, NULL), SHD_OK);
    for (int i = 0; i < 2; i++) {
        expect(shd_queue_pop(queue, buf, sizeof(buf), 0, &m), SHD_OK);
        ck_assert_uint_eq(m.attempts, 1);
    }
    ck_assert_uint_eq(info().popped, 2);
    ck_assert_uint_eq(info().acked, 0);
}
END_TEST

START_TEST(a_queue_is_made_once_and_opened_by_its_name)
{
    struct shd_queue_options o = options();
    shd_queue *again;

    expect(shd_queue_open(segment, "q", NULL, &queue), SHD_NOTFOUND);
    o.lease_ms = 500;
    make(&o);
    expect(shd_queue_open(segment, "q", NULL, &again), SHD_OK);
    ck_assert_ptr_eq(again, queue);
    ck_assert_uint_eq(info().capacity_bytes, 1 << 20);
    ck_assert_uint_eq(info().lease_ms, 500);
    o.lease_ms = 501;
    expect(shd_queue_open(segment, "q", &o, &again), SHD_MISMATCH);
    expect_said("lease_ms 500, not 501");
    expect(shd_queue_close(queue), SHD_OK);
    push("x");
    expect(shd_queue_close(queue), SHD_OK);
    expect(shd_queue_push(queue, "x", 1, 0, 0, NULL), SHD_CLOSED);
}
END_TEST

START_TEST(what_cannot_be_is_refused)
{
    struct shd_queue_options o = options();
    struct shd_message m;
    shd_queue *q;

    o.capacity_bytes = 100;
    expect(shd_queue_open(segment, "q", &o, &q), SHD_INVAL);
    o.capacity_bytes = 65ull << 30;
    expect(shd_queue_open(segment, "q", &o, &q), SHD_INVAL);
    o = options();
    o.struct_size = 1000;
    expect(shd_queue_open(segment, "q", &o, &q), SHD_INVAL);
    o = options();
    make(&o);
    expect(shd_queue_push(queue, NULL, 1, 0, 0, NULL), SHD_INVAL);
    expect(shd_queue_push(queue, "x", 1, -1, 0, NULL), SHD_INVAL);
    expect(shd_queue_push(queue, "x", 1, 0, -2, NULL), SHD_INVAL);
    expect(shd_queue_push(queue, "x", 5ull << 32, 0, 0, NULL), SHD_TOOBIG);
    expect(shd_queue_push(queue, bytes, 2 << 20, 0, 0, NULL), SHD_TOOBIG);
    expect(shd_queue_pop(queue, buf, 1, 0, NULL), SHD_INVAL);
    expect(shd_queue_peek(queue, 9, 0, buf, 1, &m), SHD_INVAL);
    expect(shd_queue_drain(queue, SHD_MESSAGE_LEASED, 0, NULL), SHD_INVAL);
    expect(shd_queue_ack(NULL, 1), SHD_INVAL);
}
END_TEST

START_TEST(a_destroyed_queue_is_gone)
{
    make(&(struct shd_queue_options){.struct_size = sizeof(
                                         struct shd_queue_options)});
    expect(shd_queue_destroy(segment, "q"), SHD_OK);
    expect(shd_queue_push(queue, "x", 1, 0, 0, NULL), SHD_GONE);
    expect(shd_queue_destroy(segment, "q"), SHD_NOTFOUND);
}
END_TEST

/* ---- in and out -------------------------------------------------------- */

static void make_default(void)
{
    struct shd_queue_options o = options();

    make(&o);
}

START_TEST(first_in_is_first_out)
{
    struct shd_message m;

    make_default();
    push("one");
    push("two");
    push("three");
    m = take("one");
    ck_assert_uint_eq(m.id, 1);
    ck_assert_uint_eq(m.attempts, 1);
    ck_assert_uint_eq(m.state, SHD_MESSAGE_LEASED);
    pop("two");
    pop("three");
    expect_empty();
    ck_assert_uint_eq(info().leased, 1);
    expect(shd_queue_ack(queue, m.lease), SHD_OK);
    expect(shd_queue_ack(queue, m.lease), SHD_LOST);
    ck_assert_uint_eq(info().cells_used, 0);
    ck_assert_uint_eq(info().popped, 2);
    ck_assert_uint_eq(info().acked, 1);
}
END_TEST

START_TEST(messages_of_every_length_come_out_as_they_went_in)
{
    static const size_t lengths[] = {0,    1,    7,    8,     95,   159,
                                     160,  161,  407,  408,   409,  4096,
                                     9999, 16384, 16385, 70001, 250000};
    struct shd_message m;

    make_default();
    for (size_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
            expect(shd_queue_push(queue, bytes + i, lengths[i], 0, 0, NULL),
                   SHD_OK);
        }
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
            memset(buf, 0x55, sizeof(buf));
            if (round == 1) {
                expect(shd_queue_pop(queue, buf, sizeof(buf), 0, &m), SHD_OK);
            } else {
                expect(shd_queue_take(queue, buf, sizeof(buf), 0, &m),
                       SHD_OK);
                expect(shd_queue_ack(queue, m.lease), SHD_OK);
            }
            ck_assert_uint_eq(m.len, lengths[i]);
            ck_assert_int_eq(memcmp(buf, bytes + i, lengths[i]), 0);
            ck_assert_int_eq(buf[lengths[i]], 0x55);
        }
        check_all();
        ck_assert_uint_eq(info().cells_used, 0);
    }
}
END_TEST

START_TEST(what_does_not_fit_the_buffer_stays)
{
    struct shd_message m;

    make_default();
    push("twelve bytes");
    expect(shd_queue_pop(queue, buf, 11, 0, &m), SHD_SPACE);
    ck_assert_uint_eq(m.len, 12);
    expect(shd_queue_take(queue, buf, 0, 0, &m), SHD_SPACE);
    pop("twelve bytes");
}
END_TEST

START_TEST(a_full_queue_refuses_and_room_comes_back)
{
    struct shd_queue_options o = options();
    uint64_t n = 0;
    int rc;

    o.capacity_bytes = 256 * 100;
    make(&o);
    while ((rc = shd_queue_push(queue, bytes, 100, 0, 0, NULL)) == SHD_OK)
        n++;
    expect(rc, SHD_FULL);
    ck_assert_uint_eq(n, 100);
    expect(shd_queue_push(queue, bytes, 100, 0, 30, NULL), SHD_FULL);
    ck_assert_int_eq(shd_queue_arm(queue, 1, NULL), 0);
    expect(shd_queue_drain(queue, 0, 1, &n), SHD_OK);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(shd_queue_arm(queue, 1, NULL), 1);
    expect(shd_queue_push(queue, bytes, 100, 0, 0, NULL), SHD_OK);
    expect(shd_queue_push(queue, bytes, 161, 0, 0, NULL), SHD_FULL);
    expect(shd_queue_drain(queue, 0, 0, &n), SHD_OK);
    ck_assert_uint_eq(n, 100);
    /* Whatever lay where: it has room for one that takes all of it. */
    expect(shd_queue_push(queue, bytes, 160 + 99 * 248, 0, 0, NULL), SHD_OK);
    expect(shd_queue_push(queue, bytes, 0, 0, 0, NULL), SHD_FULL);
    ck_assert_uint_eq(info().cells_used, 100);
}
END_TEST

START_TEST(a_bound_of_messages_counts_what_is_out_on_lease)
{
    struct shd_queue_options o = options();
    struct shd_message m;

    o.messages_max = 2;
    make(&o);
    push("a");
    push("b");
    expect(shd_queue_push(queue, "c", 1, 0, 0, NULL), SHD_FULL);
    m = take("a");
    expect(shd_queue_push(queue, "c", 1, 0, 0, NULL), SHD_FULL);
    expect(shd_queue_ack(queue, m.lease), SHD_OK);
    push("c");
}
END_TEST

START_TEST(a_reservation_is_filled_in_pieces_and_handed_on)
{
    uint64_t lease, id;
    struct shd_message m;

    make_default();
    expect(shd_queue_reserve(queue, 1000, 0, &lease), SHD_OK);
    push("later");
    expect(shd_queue_write(queue, lease, 0, bytes, 3), SHD_OK);
    expect(shd_queue_write(queue, lease, 3, bytes + 3, 600), SHD_OK);
    expect(shd_queue_write(queue, lease, 603, bytes + 603, 397), SHD_OK);
    expect(shd_queue_write(queue, lease, 999, bytes, 2), SHD_INVAL);
    expect(shd_queue_ack(queue, lease), SHD_LOST);
    pop("later");
    expect_empty();
    ck_assert_uint_eq(info().reservations, 1);
    expect(shd_queue_commit(queue, lease, 0, &id), SHD_OK);
    ck_assert_uint_eq(id, 1);
    expect(shd_queue_commit(queue, lease, 0, &id), SHD_LOST);
    expect(shd_queue_pop(queue, buf, sizeof(buf), 0, &m), SHD_OK);
    ck_assert_int_eq(memcmp(buf, bytes, 1000), 0);
    expect(shd_queue_reserve(queue, 1000, 0, &lease), SHD_OK);
    expect(shd_queue_cancel(queue, lease), SHD_OK);
    expect(shd_queue_write(queue, lease, 0, bytes, 3), SHD_LOST);
    ck_assert_uint_eq(info().cells_used, 0);
}
END_TEST

/* ---- what comes back --------------------------------------------------- */

START_TEST(what_is_given_back_comes_first_and_counts_its_deliveries)
{
    struct shd_message m;

    make_default();
    push("a");
    push("b");
    m = take("a");
    expect(shd_queue_nack(queue, m.lease, 0), SHD_OK);
    expect(shd_queue_nack(queue, m.lease, 0), SHD_LOST);
    m = take("a");
    ck_assert_uint_eq(m.attempts, 2);
    ck_assert_uint_eq(info().redelivered, 1);
    expect(shd_queue_ack(queue, m.lease), SHD_OK);
    pop("b");
}
END_TEST

START_TEST(delays_are_kept)
{
    struct shd_message m;
    int64_t again;

    make_default();
    expect(shd_queue_push(queue, "late", 4, 500, 0, NULL), SHD_OK);
    expect(shd_queue_push(queue, "later", 5, 900, 0, NULL), SHD_OK);
    push("now");
    pop("now");
    expect_empty();
    ck_assert_int_eq(shd_queue_arm(queue, 0, &again), 0);
    ck_assert(again > 0 && again <= 500);
    ck_assert_uint_eq(info().delayed, 2);
    clock_test_advance(500);
    m = take("late");
    expect_empty();
    expect(shd_queue_nack(queue, m.lease, 100), SHD_OK);
    expect_empty();
    clock_test_advance(100);
    pop("late");
    clock_test_advance(400);
    pop("later");
    ck_assert_int_eq(shd_queue_arm(queue, 0, &again), 0);
    ck_assert_int_eq(again, -1);
}
END_TEST

START_TEST(a_lease_ends_and_a_late_acknowledgement_fails)
{
    struct shd_queue_options o = options();
    struct shd_message m, again;
    int64_t look;

    o.lease_ms = 1000;
    make(&o);
    push("a");
    m = take("a");
    ck_assert(m.when_ms > 0 && m.when_ms <= 1000);
    clock_test_advance(999 - 500);
    expect(shd_queue_extend(queue, m.lease, 2000), SHD_OK);
    clock_test_advance(1900);
    expect_empty();
    clock_test_advance(100);
    again = take("a");
    ck_assert_uint_eq(again.attempts, 2);
    expect(shd_queue_ack(queue, m.lease), SHD_LOST);
    expect(shd_queue_extend(queue, m.lease, 5), SHD_LOST);
    expect(shd_queue_extend(queue, again.lease, 0), SHD_OK);
    clock_test_advance(100000);
    expect_empty();
    ck_assert_int_eq(shd_queue_arm(queue, 0, &look), 0);
    ck_assert(look > 0 && look <= 1000);
    expect(shd_queue_ack(queue, again.lease), SHD_OK);
    ck_assert_uint_eq(info().expired, 1);
}
END_TEST

START_TEST(too_many_deliveries_make_a_dead_letter)
{
    struct shd_queue_options o = options();
    struct shd_message m;
    uint64_t n;

    o.deliveries_max = 2;
    make(&o);
    push("poison");
    push("good");
    for (int i = 0; i < 2; i++) {
        m = take("poison");
        expect(shd_queue_nack(queue, m.lease, 0), SHD_OK);
    }
    pop("good");
    expect_empty();
    ck_assert_uint_eq(info().dead, 1);
    ck_assert_uint_eq(info().buried, 1);
    expect(shd_queue_peek(queue, SHD_MESSAGE_DEAD, 0, buf, 3, &m), SHD_OK);
    ck_assert_int_eq(memcmp(buf, "poi", 3), 0);
    ck_assert_uint_eq(m.len, 6);
    ck_assert_uint_eq(m.attempts, 2);
    expect(shd_queue_requeue(queue, 0, &n), SHD_OK);
    ck_assert_uint_eq(n, 1);
    m = take("poison");
    ck_assert_uint_eq(m.attempts, 1);
    expect(shd_queue_nack(queue, m.lease, 0), SHD_OK);
    m = take("poison");
    expect(shd_queue_nack(queue, m.lease, 500), SHD_OK);
    expect(shd_queue_drain(queue, SHD_MESSAGE_DEAD, 0, &n), SHD_OK);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(info().cells_used, 0);
}
END_TEST

START_TEST(draining_takes_what_is_asked_for)
{
    struct shd_message m;
    uint64_t n;

    make_default();
    for (int i = 0; i < 200; i++) {
        push("ready");
        expect(shd_queue_push(queue, "delayed", 7, 1000 + i % 7, 0, NULL),
               SHD_OK);
    }
    m = take("ready");
    expect(shd_queue_extend(queue, m.lease, 500), SHD_OK);
    expect(shd_queue_drain(queue, SHD_MESSAGE_READY, 10, &n), SHD_OK);
    ck_assert_uint_eq(n, 10);
    expect(shd_queue_drain(queue, SHD_MESSAGE_DELAYED, 30, &n), SHD_OK);
    ck_assert_uint_eq(n, 30);
    ck_assert_uint_eq(info().delayed, 170);
    check_all();
    expect(shd_queue_drain(queue, 0, 0, &n), SHD_OK);
    ck_assert_uint_eq(n, 170 + 189);
    ck_assert_uint_eq(info().leased, 1);
    expect(shd_queue_ack(queue, m.lease), SHD_OK);
}
END_TEST

START_TEST(peeking_shows_each_and_changes_nothing)
{
    struct shd_message m;
    uint64_t lease;

    make_default();
    push("a");
    push("b");
    expect(shd_queue_push(queue, "d", 1, 500, 0, NULL), SHD_OK);
    expect(shd_queue_reserve(queue, 5, 0, &lease), SHD_OK);
    take("a");
    push("c");
    expect(shd_queue_peek(queue, SHD_MESSAGE_READY, 0, buf, 1, &m), SHD_OK);
    ck_assert_int_eq(buf[0], 'b');
    expect(shd_queue_peek(queue, SHD_MESSAGE_READY, 1, buf, 1, &m), SHD_OK);
    ck_assert_int_eq(buf[0], 'c');
    expect(shd_queue_peek(queue, SHD_MESSAGE_READY, 2, buf, 1, &m),
           SHD_NOTFOUND);
    expect(shd_queue_peek(queue, SHD_MESSAGE_LEASED, 0, buf, 1, &m), SHD_OK);
    ck_assert_int_eq(buf[0], 'a');
    ck_assert_uint_ne(m.holder, 0);
    expect(shd_queue_peek(queue, SHD_MESSAGE_LEASED, 1, buf, 1, &m),
           SHD_NOTFOUND);
    expect(shd_queue_peek(queue, SHD_MESSAGE_RESERVED, 0, buf, 1, &m),
           SHD_OK);
    expect(shd_queue_peek(queue, SHD_MESSAGE_DELAYED, 0, buf, 1, &m), SHD_OK);
    ck_assert_int_eq(buf[0], 'd');
    ck_assert(m.when_ms > 0);
    ck_assert_uint_eq(info().ready, 2);
}
END_TEST

/* ---- many at once ------------------------------------------------------ */

#define MANY 300u

static const void *texts[MANY];
static size_t lengths[MANY], places[MANY];
static struct shd_message got[MANY];
static uint64_t numbers[MANY], leases[MANY];
static int32_t codes[MANY];
static uint32_t n;

/* Message i has a length and bytes of its own. */
static void many(uint32_t count, size_t longest)
{
    for (uint32_t i = 0; i < count; i++) {
        lengths[i] = i * 37 % (longest + 1);
        texts[i] = bytes + i;
    }
}

static void is_message(uint32_t i, const struct shd_message *m, size_t at)
{
    ck_assert_uint_eq(m->len, lengths[i]);
    ck_assert_int_eq(memcmp(buf + at, texts[i], lengths[i]), 0);
}

static int push_many(uint32_t count)
{
    return shd_queue_push_many(queue, count, texts, lengths, 0, 0, numbers,
                               &n);
}

static int take_many(uint32_t count)
{
    return shd_queue_take_many(queue, count, buf, sizeof(buf), 0, got, places,
                               &n);
}

static int pop_many(uint32_t count, size_t size)
{
    return shd_queue_pop_many(queue, count, buf, size, 0, got, places, &n);
}

START_TEST(many_come_out_in_the_order_they_went_in)
{
    struct shd_queue_options o = options();
    uint32_t done = 0;

    make(&o);
    many(MANY, 400);
    lengths[100] = 20000; /* goes by itself */
    expect(push_many(MANY), SHD_OK);
    ck_assert_uint_eq(n, MANY);
    check_all();
    for (uint32_t i = 0; i < MANY; i++)
        ck_assert_uint_eq(numbers[i], i + 1);
    while (done < MANY) {
        expect(take_many(MANY), SHD_OK);
        ck_assert_uint_ge(n, 1);
        ck_assert_uint_le(n, QUEUE_BATCH_MAX);
        for (uint32_t i = 0; i < n; i++) {
            is_message(done + i, &got[i], places[i]);
            ck_assert_uint_eq(got[i].id, done + i + 1);
            ck_assert_uint_eq(got[i].attempts, 1);
            ck_assert_uint_eq(got[i].state, SHD_MESSAGE_LEASED);
            leases[done + i] = got[i].lease;
        }
        done += n;
    }
    ck_assert_uint_eq(info().leased, MANY);
    check_all();
    expect(shd_queue_ack_many(queue, MANY, leases, codes), SHD_OK);
    for (uint32_t i = 0; i < MANY; i++)
        ck_assert_int_eq(codes[i], SHD_OK);
    ck_assert_uint_eq(info().acked, MANY);
    ck_assert_uint_eq(info().cells_used, 0);
    ck_assert_uint_eq(info().bytes, 0);
    expect(shd_queue_ack_many(queue, MANY, leases, codes), SHD_LOST);
    for (uint32_t i = 0; i < MANY; i++)
        ck_assert_int_eq(codes[i], SHD_LOST);
}
END_TEST

START_TEST(many_are_popped_as_fit_the_buffer)
{
    struct shd_queue_options o = options();

    make(&o);
    many(10, 300);
    lengths[0] = 100;
    expect(push_many(10), SHD_OK);
    expect(pop_many(10, 99), SHD_SPACE);
    ck_assert_uint_eq(got[0].len, 100);
    ck_assert_uint_eq(n, 0);
    expect(pop_many(10, 100 + lengths[1]), SHD_OK);
    ck_assert_uint_eq(n, 2);
    is_message(0, &got[0], places[0]);
    is_message(1, &got[1], places[1]);
    expect(pop_many(3, sizeof(buf)), SHD_OK);
    ck_assert_uint_eq(n, 3);
    check_all();
    expect(pop_many(MANY, sizeof(buf)), SHD_OK);
    ck_assert_uint_eq(n, 5);
    is_message(9, &got[4], places[4]);
    ck_assert_uint_eq(got[4].attempts, 1);
    expect(pop_many(MANY, sizeof(buf)), SHD_NOTFOUND);
    ck_assert_uint_eq(info().popped, 10);
    ck_assert_uint_eq(info().cells_used, 0);
}
END_TEST

START_TEST(of_many_as_many_go_in_as_there_is_room_for)
{
    struct shd_queue_options o = options();

    o.capacity_bytes = 20 * 256;
    make(&o);
    many(MANY, 100);
    expect(push_many(MANY), SHD_FULL);
    ck_assert_uint_eq(n, 20);
    check_all();
    pop_n(5);
    lengths[3] = 500; /* three cells */
    expect(push_many(MANY), SHD_FULL);
    ck_assert_uint_eq(n, 3);
    ck_assert_uint_eq(info().ready, 18);
    lengths[1] = 30000;
    pop_n(18);
    expect(push_many(MANY), SHD_TOOBIG);
    ck_assert_uint_eq(n, 1);
}
END_TEST

START_TEST(many_at_once_keep_the_bound_of_messages)
{
    struct shd_queue_options o = options();

    o.messages_max = 7;
    make(&o);
    many(MANY, 100);
    push("x");
    expect(push_many(MANY), SHD_FULL);
    ck_assert_uint_eq(n, 6);
    ck_assert_uint_eq(info().ready, 7);
}
END_TEST

START_TEST(many_with_a_delay_come_when_it_is_over)
{
    struct shd_queue_options o = options();

    make(&o);
    many(5, 100);
    expect(shd_queue_push_many(queue, 5, texts, lengths, 50000, 0, numbers,
                               &n),
           SHD_OK);
    ck_assert_uint_eq(info().delayed, 5);
    expect(take_many(5), SHD_NOTFOUND);
    clock_test_advance(50001);
    expect(take_many(5), SHD_OK);
    ck_assert_uint_eq(n, 5);
    for (uint32_t i = 0; i < 5; i++)
        is_message(i, &got[i], places[i]);
}
END_TEST

START_TEST(leases_given_together_end_each_by_itself)
{
    struct shd_queue_options o = options();

    o.lease_ms = 100000;
    make(&o);
    many(6, 100);
    expect(push_many(6), SHD_OK);
    expect(take_many(6), SHD_OK);
    ck_assert_uint_eq(n, 6);
    check_all();
    for (uint32_t i = 0; i < 6; i++) {
        ck_assert_int_ge(got[i].when_ms, 0);
        leases[i] = got[5 - i].lease;
    }
    expect(shd_queue_extend(queue, leases[1], 0), SHD_OK);
    expect(shd_queue_extend(queue, leases[3], 500000), SHD_OK);
    expect(shd_queue_ack_many(queue, 3, leases, codes), SHD_OK);
    check_all();
    ck_assert_uint_eq(info().acked, 3);
    clock_test_advance(100001);
    expect(take_many(6), SHD_OK);
    ck_assert_uint_eq(n, 2);
    ck_assert_uint_eq(got[0].attempts, 2);
    expect(shd_queue_ack_many(queue, 6, leases, codes), SHD_LOST);
    for (uint32_t i = 0; i < 6; i++)
        ck_assert_int_eq(codes[i], i == 3 ? SHD_OK : SHD_LOST);
}
END_TEST

START_TEST(acknowledged_in_any_order_and_twice)
{
    struct shd_queue_options o = options();
    static const uint32_t order[] = {3, 4, 5, 0, 9, 8, 3, 1, 2, 7};

    make(&o);
    many(10, 400);
    expect(push_many(10), SHD_OK);
    expect(take_many(10), SHD_OK);
    for (uint32_t i = 0; i < 10; i++)
        leases[i] = got[order[i]].lease;
    leases[10] = 0;
    expect(shd_queue_ack_many(queue, 11, leases, codes), SHD_LOST);
    for (uint32_t i = 0; i < 11; i++)
        ck_assert_int_eq(codes[i], i == 6 || i == 10 ? SHD_LOST : SHD_OK);
    ck_assert_uint_eq(info().acked, 9);
    ck_assert_uint_eq(info().leased, 1);
    check_all();
    expect(shd_queue_nack(queue, got[6].lease, 0), SHD_OK);
    expect(shd_queue_pop(queue, buf, sizeof(buf), 0, got), SHD_OK);
    ck_assert_uint_eq(got[0].id, 7);
}
END_TEST

START_TEST(what_many_at_once_are_given_is_checked)
{
    struct shd_queue_options o = options();

    make(&o);
    many(3, 10);
    lengths[1] = 5;
    texts[1] = NULL;
    expect(push_many(3), SHD_INVAL);
    ck_assert_uint_eq(n, 0);
    expect(shd_queue_push_many(queue, 0, NULL, NULL, 0, 0, NULL, &n), SHD_OK);
    expect(shd_queue_push_many(queue, 1, texts, NULL, 0, 0, NULL, &n),
           SHD_INVAL);
    expect(shd_queue_push_many(queue, 1, texts, lengths, -1, 0, NULL, &n),
           SHD_INVAL);
    expect(shd_queue_push_many(queue, 1, texts, lengths, 0, 0, NULL, NULL),
           SHD_INVAL);
    expect(take_many(0), SHD_INVAL);
    expect(shd_queue_pop_many(queue, 1, buf, 9, 0, got, NULL, &n), SHD_INVAL);
    expect(shd_queue_take_many(queue, 1, buf, 9, -2, got, places, &n),
           SHD_INVAL);
    expect(shd_queue_ack_many(queue, 1, NULL, codes), SHD_INVAL);
    expect(shd_queue_ack_many(queue, 0, NULL, codes), SHD_OK);
    ck_assert_uint_eq(info().ready, 0);
}
END_TEST

START_TEST(many_that_wait_for_room_all_get_in)
{
    struct shd_queue_options o = options();
    uint32_t done = 0;
    int status;
    pid_t pid;

    o.capacity_bytes = 20 * 256;
    make(&o);
    many(MANY, 100);
    pid = fork();
    if (pid == 0) {
        int rc = shd_queue_push_many(queue, MANY, texts, lengths, 0,
                                     SHD_FOREVER, NULL, &n);
        _exit(rc == SHD_OK && n == MANY ? 0 : 1);
    }
    ck_assert_int_gt(pid, 0);
    while (done < MANY) {
        expect(shd_queue_pop_many(queue, 7, buf, sizeof(buf), SHD_FOREVER, got,
                                  places, &n),
               SHD_OK);
        for (uint32_t i = 0; i < n; i++)
            is_message(done + i, &got[i], places[i]);
        done += n;
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}
END_TEST

/* ---- deaths ------------------------------------------------------------ */

START_TEST(what_a_dead_consumer_had_comes_back)
{
    struct shd_message m;
    pid_t pid;

    make_default();
    push("a");
    push("b");
    dying_child(pid, {
        take("a");
        take("b");
    });
    support_wait_killed(pid);
    ck_assert_uint_eq(info().leased, 2);
    /* Nobody has reaped: who finds nothing looks. */
    m = take("b");
    ck_assert_uint_eq(m.attempts, 2);
    take("a");
    ck_assert_uint_eq(info().orphaned, 2);
}
END_TEST

START_TEST(a_reap_gives_back_leases_and_reservations)
{
    struct shd_message m;
    uint64_t lease;
    pid_t pid;

    make_default();
    push("a");
    dying_child(pid, {
        take("a");
        expect(shd_queue_reserve(queue, 70000, 0, &lease), SHD_OK);
    });
    support_wait_killed(pid);
    ck_assert_uint_eq(info().reservations, 1);
    expect(shd_reap(segment, NULL), SHD_OK);
    ck_assert_uint_eq(info().reservations, 0);
    ck_assert_uint_eq(info().ready, 1);
    ck_assert_uint_eq(info().cells_used, 1);
    m = take("a");
    expect(shd_queue_ack(queue, m.lease), SHD_OK);
}
END_TEST

START_TEST(a_lease_is_of_one_worker_alone)
{
    struct shd_message m;
    int status;
    pid_t pid;

    make_default();
    push("a");
    m = take("a");
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0)
        _exit(shd_queue_ack(queue, m.lease) == SHD_LOST ? 0 : 1);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    expect(shd_queue_ack(queue, m.lease), SHD_OK);
}
END_TEST

/* ---- waiting ----------------------------------------------------------- */

START_TEST(who_waits_gets_what_is_pushed)
{
    struct shd_message m;
    int status;
    pid_t pid;

    make_default();
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        support_sleep_ms(20);
        _exit(shd_queue_push(queue, "hello", 5, 0, 0, NULL) == SHD_OK ? 0 : 1);
    }
    expect(shd_queue_pop(queue, buf, sizeof(buf), 20000, &m), SHD_OK);
    ck_assert_uint_eq(m.len, 5);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    expect(shd_queue_pop(queue, buf, sizeof(buf), 20, &m), SHD_NOTFOUND);
}
END_TEST

START_TEST(who_waits_for_room_gets_it)
{
    struct shd_queue_options o = options();
    struct shd_message m;
    int status;
    pid_t pid;

    o.messages_max = 1;
    make(&o);
    push("a");
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        support_sleep_ms(20);
        _exit(shd_queue_pop(queue, buf, sizeof(buf), 0, &m) == SHD_OK ? 0 : 1);
    }
    expect(shd_queue_push(queue, "b", 1, 0, SHD_FOREVER, NULL), SHD_OK);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    pop("b");
}
END_TEST

START_TEST(who_waits_is_given_what_a_dead_consumer_had)
{
    struct shd_message m;
    pid_t pid;

    make_default();
    push("a");
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        take("a");
        raise(SIGSTOP);
        _exit(1);
    }
    support_wait_stopped(pid);
    expect(shd_queue_take(queue, buf, sizeof(buf), 20, &m), SHD_NOTFOUND);
    support_kill(pid);
    expect(shd_queue_take(queue, buf, sizeof(buf), SHD_FOREVER, &m), SHD_OK);
    ck_assert_uint_eq(m.attempts, 2);
}
END_TEST

START_TEST(an_armed_bell_rings_at_a_push)
{
    struct pollfd p = {.events = POLLIN};
    pid_t pid;

    make_default();
    p.fd = shd_worker_fd(segment);
    ck_assert_int_ge(p.fd, 0);
    ck_assert_int_eq(shd_worker_fd(segment), p.fd);
    ck_assert_int_eq(shd_queue_arm(queue, 0, NULL), 0);
    ck_assert_int_eq(poll(&p, 1, 0), 0);
    dying_child(pid, push("ring"));
    ck_assert_int_eq(poll(&p, 1, 20000), 1);
    support_wait_killed(pid);
    expect(shd_worker_fd_clear(segment), SHD_OK);
    ck_assert_int_eq(poll(&p, 1, 0), 0);
    ck_assert_int_eq(shd_queue_arm(queue, 0, NULL), 1);
    pop("ring");
    ck_assert_int_eq(shd_queue_arm(queue, 0, NULL), 0);
}
END_TEST

/* ---- check ------------------------------------------------------------- */

static const struct queue *inside(void)
{
    return (const struct queue *)(const void *)((struct handle_object *)(void *)
                                                    queue)
        ->view;
}

static struct message *cell(uint32_t number)
{
    const struct queue *q = inside();

    return (struct message *)(void *)(segment->segment.base + q->cells.at +
                                      number * q->cells.bytes);
}

static const struct {
    uint32_t cell; /* 99: the header */
    size_t at, bytes;
    uint64_t value;
    const char *named;
} damages[] = {
    {0, offsetof(struct message, state), 4, 77, "one of the held"},
    {0, offsetof(struct message, cells), 4, 2, "its cells differ"},
    {0, offsetof(struct message, last), 4, 1, "its last cell"},
    {1, offsetof(struct message, after), 4, 4, "broken"},
    {1, offsetof(struct message, holder), 8, 0, "held by nobody"},
    {1, offsetof(struct message, lease), 8, 99, "lease was never given"},
    {2, offsetof(struct message, when), 8, 0, "none"},
    {2, offsetof(struct message, state), 1, 1, "neither delayed nor leased"},
    {3, offsetof(struct message, next), 4, 0, "chain leads"},
    {99, offsetof(struct queue_header, n_ready), 4, 7, "ready"},
    {99, offsetof(struct queue_header, n_dead), 4, 7, "dead"},
    {99, offsetof(struct queue_header, n_delayed), 4, 7, "tree of times"},
    {99, offsetof(struct queue_header, n_leased), 4, 7, "held"},
    {99, offsetof(struct queue_header, bytes), 8, 7, "bytes"},
    {99, offsetof(struct queue_header, pushed), 8, 70, "pushed"},
    {99, offsetof(struct queue_header, expired), 8, 70, "came back"},
    {99, offsetof(struct queue_header, cells) +
             offsetof(struct cells_header, free), 4, 0, "lost"},
    {99, offsetof(struct queue_header, cells) +
             offsetof(struct cells_header, used), 4, 1, "in messages"},
    {99, offsetof(struct queue_header, cells) +
             offsetof(struct cells_header, fresh), 8, 1u << 30, "more cells"},
    {99, offsetof(struct queue_header, cells) +
             offsetof(struct cells_header, cell_bytes), 8, 100, "outside"},
};

START_TEST(check_names_what_is_damaged)
{
    struct shd_queue_options o = options();
    struct shd_message m;
    unsigned char *p;
    uint64_t kept = 0;
    char report_[256] = "";

    o.deliveries_max = 1;
    make(&o);
    push("leased");  /* cell 0 */
    push("leased");  /* cell 1 */
    m = take("leased");
    expect(shd_queue_extend(queue, m.lease, 5000), SHD_OK);
    take("leased");
    expect(shd_queue_push(queue, "delayed", 7, 1000, 0, NULL), SHD_OK); /* 2 */
    expect(shd_queue_push(queue, bytes, 1000, 0, 0, NULL), SHD_OK); /* 3 .. */
    push("gone");
    push("dead");
    expect(shd_queue_pop(queue, buf, sizeof(buf), 0, &m), SHD_OK);
    expect(shd_queue_push(queue, bytes, 600, 0, 0, NULL), SHD_OK);
    pop("gone");
    m = take("dead");
    expect(shd_queue_nack(queue, m.lease, 0), SHD_OK);
    check_all();
    p = damages[_i].cell == 99
            ? (unsigned char *)inside()->header + damages[_i].at
            : (unsigned char *)cell(damages[_i].cell) + damages[_i].at;
    memcpy(&kept, p, damages[_i].bytes);
    memcpy(p, &damages[_i].value, damages[_i].bytes);
    ck_assert_int_eq(shd_segment_check(segment, report_, sizeof(report_)),
                     SHD_CORRUPT);
    ck_assert_msg(strstr(report_, damages[_i].named) != NULL,
                  "'%s' does not name '%s'", report_, damages[_i].named);
    memcpy(p, &kept, damages[_i].bytes);
}
END_TEST

/* Whatever word of it is damaged, nothing crashes or hangs. */
START_TEST(damage_anywhere_is_survived)
{
    struct shd_message m;
    uint64_t drained, lease;
    struct shd_queue_options o = options();
    unsigned char *header;
    size_t size;
    unsigned char *image;
    uint64_t random = 88172645463325252ull + (unsigned)_i;

    o.capacity_bytes = 256 * 40;
    make(&o);
    many(5, 400);
    push("a");
    push("b");
    expect(shd_queue_push(queue, bytes, 900, 0, 0, NULL), SHD_OK);
    expect(shd_queue_push(queue, "d", 1, 1000, 0, NULL), SHD_OK);
    expect(shd_queue_push(queue, "e", 1, 1001, 0, NULL), SHD_OK);
    m = take("a");
    header = (unsigned char *)inside()->header;
    size = sizeof(struct queue_header) + 12 * 256;
    image = malloc(size);
    ck_assert_ptr_nonnull(image);
    memcpy(image, header, size);
    for (int round = 0; round < 100; round++) {
        size_t at;
        int ignored = 0;

        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        /* The constants are looked at when it is opened. */
        at = 96 + random % (size - 96) / 4 * 4;
        random = random * 6364136223846793005ull + 1;
        memcpy(header + at, &(uint32_t){(uint32_t)(random >> 32)}, 4);
        ignored |= shd_queue_push(queue, bytes, 500, 0, 0, NULL);
        ignored |= shd_queue_pop(queue, buf, sizeof(buf), 0, &m);
        ignored |= shd_queue_take(queue, buf, sizeof(buf), 0, &m);
        ignored |= shd_queue_ack(queue, m.lease);
        ignored |= shd_queue_push_many(queue, 5, texts, lengths, 0, 0, NULL,
                                       &n);
        ignored |= shd_queue_take_many(queue, 3, buf, sizeof(buf), 0, got,
                                       places, &n);
        for (uint32_t i = 0; i < 3; i++)
            leases[i] = got[i].lease;
        ignored |= shd_queue_ack_many(queue, 3, leases, codes);
        ignored |= shd_queue_pop_many(queue, 3, buf, sizeof(buf), 0, got,
                                      places, &n);
        ignored |= shd_queue_reserve(queue, 300, 0, &lease);
        ignored |= shd_queue_write(queue, lease, 100, bytes, 150);
        ignored |= shd_queue_commit(queue, lease, 10, NULL);
        for (uint32_t which = 1; which <= 5; which++)
            ignored |= shd_queue_peek(queue, which, 3, buf, 600, &m);
        ignored |= shd_queue_requeue(queue, 3, &drained);
        ignored |= shd_queue_drain(queue, 0, 3, &drained);
        ignored |= shd_queue_drain(queue, SHD_MESSAGE_DEAD, 3, &drained);
        ignored |= shd_queue_arm(queue, 0, NULL);
        ignored |= queue_reap(&inside()->object);
        ignored |= shd_segment_check(segment, buf, 200);
        ck_assert_int_le(ignored, 0x7fffffff);
        memcpy(header, image, size);
    }
    free(image);
}
END_TEST

static TCase *new_case(Suite *suite, const char *name)
{
    TCase *c = tcase_create(name);

    suite_add_tcase(suite, c);
    tcase_add_checked_fixture(c, set_up, tear_down);
    return c;
}

/* Who asks again and again keeps from the lock; the holder of it does not keep
 * it from the answer. */
START_TEST(that_there_is_nothing_is_seen_without_the_lock)
{
    struct shd_message m;

    make_default();
    push("one");
    pop("one");
    expect(object_lock(&inside()->object, 0), SHD_OK);
    expect(shd_queue_pop(queue, buf, sizeof(buf), 0, &m), SHD_NOTFOUND);
    object_unlock(&inside()->object, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("queue");
    TCase *c = new_case(suite, "open");

    support_names("queue");
    tcase_add_test(c, a_pop_is_a_delivery_and_counted_as_popped);
    tcase_add_test(c, a_queue_is_made_once_and_opened_by_its_name);
    tcase_add_test(c, what_cannot_be_is_refused);
    tcase_add_test(c, a_destroyed_queue_is_gone);
    c = new_case(suite, "in and out");
    tcase_add_test(c, that_there_is_nothing_is_seen_without_the_lock);
    tcase_add_test(c, first_in_is_first_out);
    tcase_add_test(c, messages_of_every_length_come_out_as_they_went_in);
    tcase_add_test(c, what_does_not_fit_the_buffer_stays);
    tcase_add_test(c, a_full_queue_refuses_and_room_comes_back);
    tcase_add_test(c, a_bound_of_messages_counts_what_is_out_on_lease);
    tcase_add_test(c, a_reservation_is_filled_in_pieces_and_handed_on);
    c = new_case(suite, "back");
    tcase_add_test(c, what_is_given_back_comes_first_and_counts_its_deliveries);
    tcase_add_test(c, delays_are_kept);
    tcase_add_test(c, a_lease_ends_and_a_late_acknowledgement_fails);
    tcase_add_test(c, too_many_deliveries_make_a_dead_letter);
    tcase_add_test(c, draining_takes_what_is_asked_for);
    tcase_add_test(c, peeking_shows_each_and_changes_nothing);
    c = new_case(suite, "many");
    tcase_add_test(c, many_come_out_in_the_order_they_went_in);
    tcase_add_test(c, many_are_popped_as_fit_the_buffer);
    tcase_add_test(c, of_many_as_many_go_in_as_there_is_room_for);
    tcase_add_test(c, many_at_once_keep_the_bound_of_messages);
    tcase_add_test(c, many_with_a_delay_come_when_it_is_over);
    tcase_add_test(c, leases_given_together_end_each_by_itself);
    tcase_add_test(c, acknowledged_in_any_order_and_twice);
    tcase_add_test(c, what_many_at_once_are_given_is_checked);
    tcase_add_test(c, many_that_wait_for_room_all_get_in);
    c = new_case(suite, "death");
    tcase_add_test(c, what_a_dead_consumer_had_comes_back);
    tcase_add_test(c, a_reap_gives_back_leases_and_reservations);
    tcase_add_test(c, a_lease_is_of_one_worker_alone);
    c = new_case(suite, "wait");
    tcase_add_test(c, who_waits_gets_what_is_pushed);
    tcase_add_test(c, who_waits_for_room_gets_it);
    tcase_add_test(c, who_waits_is_given_what_a_dead_consumer_had);
    tcase_add_test(c, an_armed_bell_rings_at_a_push);
    c = new_case(suite, "check");
    tcase_add_loop_test(c, check_names_what_is_damaged, 0,
                        (int)(sizeof(damages) / sizeof(damages[0])));
    tcase_add_loop_test(c, damage_anywhere_is_survived, 0, 4);
    return support_run(suite);
}
