/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite mailbox: the public mailbox, and ipc/mailbox.c and
 * ipc/mailbox_object.c below it. Other workers are children; to look through
 * another's eyes at a certain moment, a test takes its incarnation on.
 */
#include <poll.h>

#include "shm/api/handle.h"
#include "shm/api/object.h"
#include "shm/ipc/mailbox.h"
#include "tests/unit/support.h"

static shd_segment *segment;
static shd_mailbox *mailbox;
static char buf[300000], bytes[300000];
static uint64_t me;

static void make(uint64_t capacity, uint64_t box)
{
    struct shd_mailbox_options o = {.struct_size = sizeof(o),
                                    .capacity_bytes = capacity,
                                    .box_bytes = box};

    expect(shd_mailbox_open(segment, "m", &o, &mailbox), SHD_OK);
}

static void set_up(void)
{
    struct shd_segment_options o;

    memset(&o, 0, sizeof(o));
    o.struct_size = sizeof(o);
    o.size_bytes = 16 << 20;
    o.workers_max = 70;
    expect(shd_segment_create(NULL, &o, &segment), SHD_OK);
    expect(shd_worker_join(segment, &me), SHD_OK);
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

static struct shd_mailbox_info info(void)
{
    struct shd_mailbox_info i = {.struct_size = sizeof(i)};

    expect(shd_mailbox_info(mailbox, &i), SHD_OK);
    return i;
}

/* ---- other workers ----------------------------------------------------- */

/* A child that listens and stops; it dies when it is killed. */
static pid_t other(uint64_t *incarnation, int32_t worker_id)
{
    int said[2];
    uint64_t number = 0;
    pid_t pid;

    ck_assert_int_eq(pipe(said), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        segment->self.worker_id = worker_id;
        segment->self.generation = 1;
        if (shd_worker_join(segment, &number) != SHD_OK ||
            shd_mailbox_listen(mailbox) != SHD_OK ||
            write(said[1], &number, sizeof(number)) != sizeof(number))
            _exit(1);
        for (;;)
            (void)pause();
    }
    close(said[1]);
    ck_assert_int_eq(read(said[0], &number, sizeof(number)), sizeof(number));
    close(said[0]);
    *incarnation = number;
    return pid;
}

/* What follows is done as that worker. */
static void as(uint64_t incarnation)
{
    segment->env.incarnation = incarnation;
}

static void post(uint64_t to, const char *text)
{
    expect(shd_mailbox_post(mailbox, to, text, strlen(text), 0, NULL),
           SHD_OK);
}

static struct shd_mail receive(const char *text)
{
    struct shd_mail m;

    memset(buf, 0, 100);
    expect(shd_mailbox_receive(mailbox, buf, sizeof(buf), 0, &m), SHD_OK);
    ck_assert_uint_eq(m.len, strlen(text));
    ck_assert_str_eq(buf, text);
    return m;
}

static uint64_t request(uint64_t to, const char *text)
{
    uint64_t number;

    expect(shd_mailbox_request(mailbox, to, text, strlen(text), 0, 0,
                               &number),
           SHD_OK);
    return number;
}

static void expect_nothing(void)
{
    struct shd_mail m;

    expect(shd_mailbox_receive(mailbox, buf, sizeof(buf), 0, &m),
           SHD_NOTFOUND);
}

static int await(uint64_t number, struct shd_mail *m)
{
    memset(buf, 0, 100);
    return shd_mailbox_await(mailbox, number, buf, sizeof(buf), 0, m);
}

/* ---- open -------------------------------------------------------------- */

START_TEST(a_mailbox_is_made_once_and_opened_by_its_name)
{
    struct shd_mailbox_options o = {.struct_size = sizeof(o)};
    shd_mailbox *again;

    expect(shd_mailbox_open(segment, "m", NULL, &again), SHD_NOTFOUND);
    make(0, 0);
    expect(shd_mailbox_open(segment, "m", NULL, &again), SHD_OK);
    ck_assert_ptr_eq(again, mailbox);
    o.box_bytes = 1000;
    expect(shd_mailbox_open(segment, "m", &o, &again), SHD_MISMATCH);
    expect_said("box_bytes 262144, not 1000");
    expect(shd_mailbox_close(mailbox), SHD_OK);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    expect(shd_mailbox_close(mailbox), SHD_OK);
    expect(shd_mailbox_listen(mailbox), SHD_CLOSED);
}
END_TEST

START_TEST(what_cannot_be_is_refused)
{
    struct shd_mailbox_options o = {.struct_size = sizeof(o)};
    struct shd_mail m;
    uint64_t n;

    o.capacity_bytes = 100;
    expect(shd_mailbox_open(segment, "m", &o, &mailbox), SHD_INVAL);
    o.capacity_bytes = 65ull << 30;
    expect(shd_mailbox_open(segment, "m", &o, &mailbox), SHD_INVAL);
    make(65536, 0);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    expect(shd_mailbox_post(mailbox, me, NULL, 1, 0, NULL), SHD_INVAL);
    expect(shd_mailbox_post(mailbox, me, "x", 1, -2, NULL), SHD_INVAL);
    expect(shd_mailbox_post(mailbox, me, bytes, 17000, 0, NULL), SHD_TOOBIG);
    expect(shd_mailbox_post(mailbox, 0, "x", 1, 0, NULL), SHD_DEAD);
    expect(shd_mailbox_post(mailbox, 99, "x", 1, 0, NULL), SHD_DEAD);
    expect(shd_mailbox_request(mailbox, me, "x", 1, 17000, 0, &n),
           SHD_TOOBIG);
    expect(shd_mailbox_receive(mailbox, buf, 1, 0, NULL), SHD_INVAL);
    expect(shd_mailbox_await(mailbox, 5, buf, 1, 0, &m), SHD_NOTFOUND);
    expect(shd_mailbox_answer(mailbox, 5, "x", 1, 0), SHD_LOST);
    expect(shd_mailbox_cancel(mailbox, 5), SHD_NOTFOUND);
    expect(shd_mailbox_find(mailbox, -1, &n), SHD_INVAL);
}
END_TEST

/* ---- posts ------------------------------------------------------------- */

START_TEST(posts_come_in_their_order_and_to_their_worker)
{
    struct shd_mail m;
    uint64_t you;
    pid_t pid;

    make(0, 0);
    expect(shd_mailbox_post(mailbox, me, "x", 1, 0, NULL), SHD_NOTFOUND);
    expect_said("does not listen");
    expect_nothing();
    pid = other(&you, -1);
    post(you, "one");
    post(me, "mine");
    post(you, "two");
    m = receive("mine");
    ck_assert_uint_eq(m.from, me);
    ck_assert_uint_eq(m.to, me);
    ck_assert_uint_eq(m.request, 0);
    expect_nothing();
    as(you);
    m = receive("one");
    ck_assert_uint_eq(m.id, 1);
    receive("two");
    expect_nothing();
    as(me);
    ck_assert_uint_eq(info().sent, 3);
    ck_assert_uint_eq(info().received, 3);
    ck_assert_uint_eq(info().cells_used, 0);
    support_kill(pid);
}
END_TEST

START_TEST(messages_of_every_length_come_out_as_they_went_in)
{
    static const size_t LENS[] = {0,    1,     159,   160,   161,   410,
                                  5000, 16384, 16385, 20000, 200000};
    struct shd_mail m;
    uint64_t number;

    make(2 << 20, 0);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    for (size_t i = 0; i < sizeof(LENS) / sizeof(LENS[0]); i++) {
        size_t len = LENS[i], back = LENS[sizeof(LENS) / sizeof(LENS[0]) - 1 -
                                          i];

        expect(shd_mailbox_post(mailbox, me, bytes + i, len, 0, NULL),
               SHD_OK);
        if (len > 0)
            expect(shd_mailbox_receive(mailbox, buf, len - 1, 0, &m),
                   SHD_SPACE);
        expect(shd_mailbox_receive(mailbox, buf, sizeof(buf), 0, &m), SHD_OK);
        ck_assert_uint_eq(m.len, len);
        ck_assert_mem_eq(buf, bytes + i, len);
        expect(shd_mailbox_request(mailbox, me, bytes + i, len, 0, 0,
                                   &number),
               SHD_OK);
        expect(shd_mailbox_receive(mailbox, buf, sizeof(buf), 0, &m), SHD_OK);
        ck_assert_mem_eq(buf, bytes + i, len);
        ck_assert_uint_eq(m.request, number);
        expect(shd_mailbox_answer(mailbox, number, bytes + 9, back, 0),
               SHD_OK);
        check_all();
        if (back > 0)
            expect(shd_mailbox_await(mailbox, number, buf, back - 1, 0, &m),
                   SHD_SPACE);
        expect(shd_mailbox_await(mailbox, number, buf, sizeof(buf), 0, &m),
               SHD_OK);
        ck_assert_uint_eq(m.len, back);
        ck_assert_mem_eq(buf, bytes + 9, back);
        ck_assert_uint_eq(info().cells_used, 0);
        ck_assert_uint_eq(info().bytes, 0);
    }
}
END_TEST

START_TEST(a_full_box_refuses_and_others_have_room)
{
    struct shd_mailbox_info i;
    uint64_t you;
    uint32_t n = 0;
    pid_t pid;

    make(16384, 4096);
    pid = other(&you, -1);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    while (shd_mailbox_post(mailbox, you, bytes, 100, 0, NULL) == SHD_OK)
        n++;
    i = info();
    ck_assert_uint_eq(n, 4096 / i.cell_bytes);
    expect(shd_mailbox_post(mailbox, you, bytes, 100, 0, NULL), SHD_FULL);
    ck_assert_int_eq(shd_mailbox_arm_room(mailbox, you, 100), 0);
    expect(shd_mailbox_post(mailbox, you, bytes, 100, 20, NULL), SHD_FULL);
    post(me, "room here");
    as(you);
    expect(shd_mailbox_receive(mailbox, buf, sizeof(buf), 0,
                               &(struct shd_mail){.len = 0}),
           SHD_OK);
    as(me);
    ck_assert_int_eq(shd_mailbox_arm_room(mailbox, you, 100), 1);
    expect(shd_mailbox_post(mailbox, you, bytes, 100, 0, NULL), SHD_OK);
    /* What the dead have kept full is had back. */
    support_kill(pid);
    expect(shd_mailbox_post(mailbox, you, bytes, 100, 0, NULL), SHD_DEAD);
    receive("room here");
    ck_assert_uint_eq(info().cells_used, 0);
}
END_TEST

START_TEST(post_all_reaches_each_other_worker_that_listens)
{
    uint64_t you[3];
    uint32_t reached;
    pid_t pid[3];

    make(0, 0);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    for (int i = 0; i < 3; i++)
        pid[i] = other(&you[i], -1);
    expect(shd_mailbox_post_all(mailbox, "all", 3, 0, &reached), SHD_OK);
    ck_assert_uint_eq(reached, 3);
    expect_nothing();
    for (int i = 0; i < 3; i++) {
        as(you[i]);
        receive("all");
        expect_nothing();
    }
    as(me);
    for (int i = 0; i < 3; i++)
        support_kill(pid[i]);
}
END_TEST

START_TEST(a_worker_is_found_by_its_id)
{
    uint64_t old, new, found;
    pid_t pid[2];

    make(0, 0);
    expect(shd_mailbox_find(mailbox, 3, &found), SHD_NOTFOUND);
    pid[0] = other(&old, 3);
    expect(shd_mailbox_find(mailbox, 3, &found), SHD_OK);
    ck_assert_uint_eq(found, old);
    pid[1] = other(&new, 3);
    registry_slot_at(&segment->segment, registry_index(new))->generation = 2;
    expect(shd_mailbox_find(mailbox, 3, &found), SHD_OK);
    ck_assert_uint_eq(found, new);
    expect(shd_worker_set_phase(segment, new, SHD_PHASE_DRAINING), SHD_OK);
    expect(shd_mailbox_find(mailbox, 3, &found), SHD_OK);
    ck_assert_uint_eq(found, old);
    support_kill(pid[0]);
    expect(shd_reap(segment, NULL), SHD_OK);
    expect(shd_mailbox_find(mailbox, 3, &found), SHD_OK);
    ck_assert_uint_eq(found, new);
    support_kill(pid[1]);
}
END_TEST

/* ---- requests ---------------------------------------------------------- */

START_TEST(a_request_is_answered_once)
{
    struct shd_mail m;
    uint64_t you, n;
    pid_t pid;

    make(0, 0);
    pid = other(&you, -1);
    n = request(you, "question");
    ck_assert_int_eq(await(n, &m), 1);
    ck_assert_int_eq(shd_mailbox_arm(mailbox), 0);
    as(you);
    m = receive("question");
    ck_assert_uint_eq(m.request, n);
    ck_assert_uint_eq(m.from, me);
    /* Of another's request nobody learns. */
    ck_assert_int_eq(await(n, &m), SHD_NOTFOUND);
    expect(shd_mailbox_answer(mailbox, n, "answer", 6, 0), SHD_OK);
    expect(shd_mailbox_answer(mailbox, n, "answer", 6, 0), SHD_LOST);
    as(me);
    ck_assert_int_eq(shd_mailbox_arm(mailbox), 1);
    expect(await(n, &m), SHD_OK);
    ck_assert_str_eq(buf, "answer");
    ck_assert_uint_eq(m.from, me);
    ck_assert_uint_eq(m.to, you);
    expect(await(n, &m), SHD_NOTFOUND);
    n = request(you, "another");
    as(you);
    m = receive("another");
    expect(shd_mailbox_decline(mailbox, m.request), SHD_OK);
    as(me);
    expect(await(n, &m), SHD_LOST);
    expect_said("declined");
    ck_assert_uint_eq(info().answered, 1);
    ck_assert_uint_eq(info().declined, 1);
    ck_assert_uint_eq(info().cells_used, 0);
    support_kill(pid);
}
END_TEST

START_TEST(a_cancelled_request_leaves_nothing)
{
    struct shd_mail m;
    uint64_t you, n;
    pid_t pid;

    make(0, 0);
    pid = other(&you, -1);
    n = request(you, "unread");
    expect(shd_mailbox_cancel(mailbox, n), SHD_OK);
    expect(shd_mailbox_cancel(mailbox, n), SHD_NOTFOUND);
    as(you);
    expect_nothing();
    as(me);
    n = request(you, "taken");
    as(you);
    m = receive("taken");
    as(me);
    expect(shd_mailbox_cancel(mailbox, n), SHD_OK);
    ck_assert_uint_eq(info().cells_used, 0);
    as(you);
    expect(shd_mailbox_answer(mailbox, m.request, "late", 4, 0), SHD_LOST);
    expect(shd_mailbox_decline(mailbox, m.request), SHD_LOST);
    as(me);
    n = request(you, "answered");
    as(you);
    m = receive("answered");
    expect(shd_mailbox_answer(mailbox, m.request, "x", 1, 0), SHD_OK);
    as(me);
    expect(shd_mailbox_cancel(mailbox, n), SHD_OK);
    expect(await(n, &m), SHD_NOTFOUND);
    ck_assert_uint_eq(info().cells_used, 0);
    ck_assert_uint_eq(info().withdrawn, 2);
    support_kill(pid);
}
END_TEST

START_TEST(a_long_answer_has_the_room_that_was_asked_for)
{
    struct shd_mail m;
    uint64_t you, n, small;
    pid_t pid;

    make(16384, 8192);
    pid = other(&you, -1);
    expect(shd_mailbox_request(mailbox, you, "q", 1, 4000, 0, &n), SHD_OK);
    small = request(you, "small");
    as(you);
    receive("q");
    receive("small");
    as(me);
    while (shd_mailbox_post(mailbox, you, bytes, 100, 0, NULL) == SHD_OK)
        continue;
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    while (shd_mailbox_post(mailbox, me, bytes, 100, 0, NULL) == SHD_OK)
        continue;
    as(you);
    expect(shd_mailbox_answer(mailbox, small, bytes, 4000, 0), SHD_FULL);
    expect(shd_mailbox_answer(mailbox, small, bytes, 40000, 0), SHD_TOOBIG);
    expect(shd_mailbox_answer(mailbox, n, bytes, 4000, 0), SHD_OK);
    expect(shd_mailbox_answer(mailbox, small, bytes, 100, 0), SHD_OK);
    as(me);
    expect(await(n, &m), SHD_OK);
    ck_assert_uint_eq(m.len, 4000);
    ck_assert_mem_eq(buf, bytes, 4000);
    expect(await(small, &m), SHD_OK);
    support_kill(pid);
}
END_TEST

START_TEST(leaving_fails_requests_and_drops_posts)
{
    struct shd_mail m;
    uint64_t you, n[2], own;
    pid_t pid;

    make(0, 0);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    pid = other(&you, -1);
    n[0] = request(you, "taken");
    n[1] = request(you, "unread");
    post(you, "post");
    as(you);
    receive("taken");
    own = request(me, "mine");
    expect(shd_mailbox_leave(mailbox), SHD_OK);
    as(me);
    expect(await(n[0], &m), SHD_DEAD);
    expect_said("after it had taken");
    ck_assert_uint_eq(m.received, 1);
    expect(await(n[1], &m), SHD_DEAD);
    expect_said("before it took");
    ck_assert_uint_eq(m.received, 0);
    expect(shd_mailbox_post(mailbox, you, "x", 1, 0, NULL), SHD_NOTFOUND);
    m = receive("mine");
    expect(shd_mailbox_answer(mailbox, m.request, "yes", 3, 0), SHD_OK);
    as(you);
    expect(await(own, &m), SHD_OK);
    as(me);
    ck_assert_uint_eq(info().cells_used, 0);
    support_kill(pid);
}
END_TEST

/* ---- death ------------------------------------------------------------- */

START_TEST(a_dead_receiver_fails_its_requests)
{
    struct shd_mail m;
    uint64_t you, n[2];
    pid_t pid;

    make(0, 0);
    pid = other(&you, -1);
    n[0] = request(you, "taken");
    n[1] = request(you, "unread");
    post(you, "post");
    as(you);
    receive("taken");
    as(me);
    support_kill(pid);
    /* Who asks finds out by itself. */
    expect(await(n[0], &m), SHD_DEAD);
    ck_assert_uint_eq(m.received, 1);
    expect(await(n[1], &m), SHD_DEAD);
    ck_assert_uint_eq(m.received, 0);
    ck_assert_uint_eq(info().failed, 2);
    ck_assert_uint_eq(info().cells_used, 0);
    ck_assert_uint_eq(info().boxes, 1);
    expect(shd_mailbox_request(mailbox, you, "x", 1, 0, 0, n), SHD_DEAD);
}
END_TEST

START_TEST(a_waiting_requester_is_told_of_a_death)
{
    struct shd_mail m;
    uint64_t you;
    pid_t pid, killer;

    make(0, 0);
    pid = other(&you, -1);
    killer = fork();
    ck_assert_int_ge(killer, 0);
    if (killer == 0) {
        support_sleep_ms(50);
        (void)kill(pid, SIGKILL);
        _exit(0);
    }
    expect(shd_mailbox_call(mailbox, you, "q", 1, buf, sizeof(buf),
                            SHD_FOREVER, &m),
           SHD_DEAD);
    ck_assert_int_eq(waitpid(killer, NULL, 0), killer);
    support_wait_killed(pid);
}
END_TEST

START_TEST(a_dead_requester_leaves_nothing)
{
    struct shd_mail m;
    uint64_t you, n[3];
    pid_t pid;

    make(0, 0);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    pid = other(&you, -1);
    as(you);
    n[0] = request(me, "answered");
    n[1] = request(me, "taken");
    n[2] = request(me, "unread");
    post(me, "post");
    as(me);
    receive("answered");
    receive("taken");
    expect(shd_mailbox_answer(mailbox, n[0], "x", 1, 0), SHD_OK);
    support_kill(pid);
    expect(shd_reap(segment, NULL), SHD_OK);
    check_all();
    expect(shd_mailbox_answer(mailbox, n[1], "x", 1, 0), SHD_LOST);
    /* The request is withdrawn; what was posted had been sent. */
    m = receive("post");
    ck_assert_uint_eq(m.from, you);
    expect_nothing();
    ck_assert_uint_eq(info().withdrawn, 2);
    ck_assert_uint_eq(info().answered, 1);
    ck_assert_uint_eq(info().cells_used, 0);
    ck_assert_uint_eq(info().boxes, 1);
}
END_TEST

START_TEST(many_of_the_dead_are_buried_in_steps)
{
    struct shd_mail m;
    uint64_t you, n[300];
    pid_t pid;

    make(0, 0);
    pid = other(&you, -1);
    for (int i = 0; i < 300; i++)
        n[i] = request(you, "q");
    support_kill(pid);
    expect(shd_reap(segment, NULL), SHD_OK);
    check_all();
    for (int i = 0; i < 300; i++)
        expect(await(n[i], &m), SHD_DEAD);
    ck_assert_uint_eq(info().cells_used, 0);
}
END_TEST

START_TEST(a_slot_is_had_again_after_a_death_that_nobody_reaped)
{
    uint64_t you, next;
    pid_t pid;

    make(0, 0);
    pid = other(&you, -1);
    post(you, "never read");
    support_kill(pid);
    /* The slot alone: as if a reap were cut off after it. */
    registry_slot_at(&segment->segment, registry_index(you))->incarnation = 0;
    pid = other(&next, -1);
    ck_assert_uint_eq(registry_index(next), registry_index(you));
    as(next);
    expect_nothing();
    as(me);
    expect(shd_mailbox_post(mailbox, you, "x", 1, 0, NULL), SHD_DEAD);
    post(next, "to the new one");
    ck_assert_uint_eq(info().unread, 1);
    support_kill(pid);
}
END_TEST

/* ---- waiting ----------------------------------------------------------- */

START_TEST(who_waits_gets_the_mail_and_its_answer)
{
    struct shd_mail m;
    uint64_t n = 0;
    int status;
    pid_t pid;

    make(0, 0);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        for (n = 0; n < 300; n++) {
            if (shd_mailbox_call(mailbox, me, &n, sizeof(n), buf, sizeof(buf),
                                 SHD_FOREVER, &m) != SHD_OK ||
                m.len != sizeof(n) || memcmp(buf, &n, sizeof(n)) != 0)
                _exit(1);
        }
        _exit(0);
    }
    for (uint64_t i = 0; i < 300; i++) {
        expect(shd_mailbox_receive(mailbox, buf, sizeof(buf), SHD_FOREVER,
                                   &m),
               SHD_OK);
        memcpy(&n, buf, sizeof(n));
        ck_assert_uint_eq(n, i);
        expect(shd_mailbox_answer(mailbox, m.request, buf, m.len, 0), SHD_OK);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert_uint_eq(info().answered, 300);
}
END_TEST

START_TEST(who_waits_for_room_gets_it)
{
    struct shd_mail m;
    int status;
    pid_t pid;

    make(16384, 1024);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        for (int i = 0; i < 200; i++)
            if (shd_mailbox_post(mailbox, me, &i, sizeof(i), SHD_FOREVER,
                                 NULL) != SHD_OK)
                _exit(1);
        _exit(0);
    }
    for (int i = 0; i < 200; i++) {
        int n;

        expect(shd_mailbox_receive(mailbox, buf, sizeof(buf), SHD_FOREVER,
                                   &m),
               SHD_OK);
        memcpy(&n, buf, sizeof(n));
        ck_assert_int_eq(n, i);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}
END_TEST

static bool rung(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

START_TEST(an_armed_bell_rings_for_mail_answers_and_deaths)
{
    struct shd_mail m;
    uint64_t you, n;
    pid_t pid;
    int fd;

    make(0, 0);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    fd = shd_worker_fd(segment);
    ck_assert_int_ge(fd, 0);
    pid = other(&you, -1);
    ck_assert_int_eq(shd_mailbox_arm(mailbox), 0);
    ck_assert(!rung(fd));
    as(you);
    post(me, "ring");
    as(me);
    ck_assert(rung(fd));
    expect(shd_worker_fd_clear(segment), SHD_OK);
    ck_assert_int_eq(shd_mailbox_arm(mailbox), 1);
    receive("ring");
    n = request(you, "q");
    ck_assert_int_eq(shd_mailbox_arm(mailbox), 0);
    as(you);
    receive("q");
    expect(shd_mailbox_answer(mailbox, n, "a", 1, 0), SHD_OK);
    as(me);
    ck_assert(rung(fd));
    expect(shd_worker_fd_clear(segment), SHD_OK);
    expect(await(n, &m), SHD_OK);
    n = request(you, "q");
    ck_assert_int_eq(shd_mailbox_arm(mailbox), 0);
    support_kill(pid);
    expect(shd_reap(segment, NULL), SHD_OK);
    ck_assert(rung(fd));
    expect(await(n, &m), SHD_DEAD);
}
END_TEST

START_TEST(a_call_that_is_not_answered_in_time_is_cancelled)
{
    struct shd_mail m;
    uint64_t you;
    pid_t pid;

    make(0, 0);
    pid = other(&you, -1);
    expect(shd_mailbox_call(mailbox, you, "q", 1, buf, sizeof(buf), 20, &m),
           SHD_BUSY);
    ck_assert_uint_eq(info().cells_used, 0);
    as(you);
    expect_nothing();
    as(me);
    support_kill(pid);
}
END_TEST

START_TEST(a_lock_that_is_kept_is_busy_and_nothing_is_damaged)
{
    const uint32_t wait_ms = segment->env.wait_ms;
    int said[2], status;
    char byte;
    pid_t pid;

    make(0, 0);
    ck_assert_int_eq(pipe(said), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        if (shd_worker_join(segment, NULL) != SHD_OK ||
            object_lock(&((struct handle_object *)(void *)mailbox)->object,
                        0) != SHD_OK ||
            write(said[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            (void)pause();
    }
    close(said[1]);
    ck_assert_int_eq(read(said[0], &byte, 1), 1);
    close(said[0]);
    segment->env.wait_ms = 20;
    expect(shd_mailbox_listen(mailbox), SHD_BUSY);
    segment->env.wait_ms = wait_ms;
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
}
END_TEST

/* ---- looking and checking ---------------------------------------------- */

START_TEST(peeking_shows_each_and_changes_nothing)
{
    struct shd_box_info box = {.struct_size = sizeof(box)};
    uint32_t index = registry_index(me);
    struct shd_mail m;

    make(0, 0);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    post(me, "a");
    (void)request(me, "b");
    expect(shd_mailbox_box(mailbox, index, &box), SHD_OK);
    ck_assert_uint_eq(box.owner, me);
    ck_assert_uint_eq(box.waiting, 2);
    expect(shd_mailbox_box(mailbox, 69, &box), SHD_NOTFOUND);
    expect(shd_mailbox_box(mailbox, 70, &box), SHD_INVAL);
    expect(shd_mailbox_peek(mailbox, index, 1, buf, sizeof(buf), &m), SHD_OK);
    ck_assert_int_eq(buf[0], 'b');
    ck_assert_uint_ne(m.request, 0);
    expect(shd_mailbox_peek(mailbox, index, 2, buf, sizeof(buf), &m),
           SHD_NOTFOUND);
    receive("a");
    receive("b");
}
END_TEST

static const struct mailbox *inside(void)
{
    return (const struct mailbox *)(const void *)((struct handle_object *)
                                                      (void *)mailbox)
        ->view;
}

static struct message *cell(uint32_t n)
{
    const struct mailbox *b = inside();

    return (struct message *)(void *)(b->object.env->segment->base +
                                      b->cells.at + n * b->cells.bytes);
}

enum { HEADER = 99, BOX = 98 };
static const struct {
    uint32_t cell;
    size_t at, bytes;
    uint64_t value;
    const char *named;
} damages[] = {
    {0, offsetof(struct message, state), 4, 77, "one of the taken"},
    {1, offsetof(struct message, state), 4, MAIL_TAKEN, "one of the inbox"},
    {1, offsetof(struct message, holder), 8, 0, "the box of another"},
    {1, offsetof(struct message, lease), 8, 99, "never given"},
    {1, offsetof(struct message, cells), 4, 0, "its cells differ"},
    {2, offsetof(struct message, from), 8, 5, "the box of another"},
    {2, offsetof(struct message, prev), 4, 5, "answers"},
    {BOX, offsetof(struct mailbox_box, n_inbox), 4, 9, "inbox"},
    {BOX, offsetof(struct mailbox_box, n_taken), 4, 9, "taken"},
    {BOX, offsetof(struct mailbox_box, n_answers), 4, 9, "answers"},
    {BOX, offsetof(struct mailbox_box, cells), 4, 9, "cells in an inbox"},
    {BOX, offsetof(struct mailbox_box, owner), 8, 0, "nobody's box"},
    {BOX, offsetof(struct mailbox_box, owner), 8, 1 << 16 | 9,
     "owner of another"},
    {HEADER, offsetof(struct mailbox_header, bytes), 8, 7, "bytes"},
    {HEADER, offsetof(struct mailbox_header, sent), 8, 70, "what was sent"},
    {HEADER, offsetof(struct mailbox_header, requests), 8, 70,
     "the requests are not"},
    {HEADER, offsetof(struct mailbox_header, boxes), 4, 7, "its boxes"},
    {HEADER, offsetof(struct mailbox_header, cells) +
                 offsetof(struct cells_header, used), 4, 1, "in messages"},
};

START_TEST(check_names_what_is_damaged)
{
    unsigned char *p;
    uint64_t kept = 0, n;
    char report_[256] = "";

    make(0, 0);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    (void)request(me, "taken");
    n = request(me, "inbox");
    expect(shd_mailbox_cancel(mailbox, n), SHD_OK);
    receive("taken");
    post(me, "inbox");
    n = request(me, "answered");
    as(me);
    {
        struct shd_mail m;

        receive("inbox");
        m = receive("answered");
        expect(shd_mailbox_answer(mailbox, m.request, "x", 1, 0), SHD_OK);
    }
    post(me, "inbox");
    check_all();
    p = damages[_i].cell == HEADER ? (unsigned char *)inside()->header
        : damages[_i].cell == BOX
            ? (unsigned char *)&inside()->boxes[registry_index(me)]
            : (unsigned char *)cell(damages[_i].cell);
    p += damages[_i].at;
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
    uint64_t random = 88172645463325252ull + (unsigned)_i, n[3], more;
    size_t boxes = 70 * sizeof(struct mailbox_box);
    size_t size = sizeof(struct mailbox_header) + boxes + 12 * 256;
    unsigned char *header, *image = malloc(size);
    int ignored = 0;
    struct shd_mail m;

    ck_assert_ptr_nonnull(image);
    make(256 * 40, 0);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    n[0] = request(me, "a");
    n[1] = request(me, "b");
    receive("a");
    receive("b");
    expect(shd_mailbox_answer(mailbox, n[1], bytes, 700, 0), SHD_OK);
    post(me, "c");
    n[2] = request(me, "d");
    header = (unsigned char *)inside()->header;
    memcpy(image, header, size);
    for (int round = 0; round < 150; round++) {
        size_t at;
        uint32_t word;

        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        at = random % (size - 4) & ~(size_t)3;
        /* Of the boxes this worker's is the one that is used. */
        if (at >= sizeof(struct mailbox_header) &&
            at < sizeof(struct mailbox_header) + boxes)
            at = sizeof(struct mailbox_header) + at % 64 +
                 64ul * registry_index(me);
        word = random & 1 << 20 ? (uint32_t)(random >> 32)
                                : (uint32_t)(random >> 32) % 300;
        memcpy(header + at, &word, sizeof(word));
        ignored |= shd_mailbox_await(mailbox, n[1], buf, sizeof(buf), 0, &m);
        ignored |= shd_mailbox_answer(mailbox, n[0], bytes, 900, 0);
        ignored |= shd_mailbox_cancel(mailbox, n[2]);
        ignored |= shd_mailbox_receive(mailbox, buf, sizeof(buf), 0, &m);
        ignored |= shd_mailbox_peek(mailbox, registry_index(me), 1, buf,
                                    sizeof(buf), &m);
        ignored |= shd_mailbox_request(mailbox, me, "x", 1, 0, 0, &more);
        ignored |= shd_mailbox_post(mailbox, me, bytes, 600, 0, NULL);
        ignored |= shd_mailbox_arm(mailbox);
        ignored |= mailbox_bury(inside(), me, true);
        ignored |= mailbox_bury(inside(), me, false);
        ignored |= shd_segment_check(segment, buf, 200);
        memcpy(header, image, size);
    }
    ck_assert_int_le(ignored, 0x7fffffff);
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

START_TEST(that_there_is_no_mail_is_seen_without_the_lock)
{
    struct shd_mail m;

    make(65536, 0);
    expect(shd_mailbox_listen(mailbox), SHD_OK);
    expect(object_lock(&inside()->object, 0), SHD_OK);
    expect(shd_mailbox_receive(mailbox, buf, sizeof(buf), 0, &m),
           SHD_NOTFOUND);
    object_unlock(&inside()->object, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mailbox");
    TCase *c = new_case(suite, "open");

    support_names("mailbox");
    tcase_add_test(c, a_mailbox_is_made_once_and_opened_by_its_name);
    tcase_add_test(c, that_there_is_no_mail_is_seen_without_the_lock);
    tcase_add_test(c, what_cannot_be_is_refused);
    c = new_case(suite, "posts");
    tcase_add_test(c, posts_come_in_their_order_and_to_their_worker);
    tcase_add_test(c, messages_of_every_length_come_out_as_they_went_in);
    tcase_add_test(c, a_full_box_refuses_and_others_have_room);
    tcase_add_test(c, post_all_reaches_each_other_worker_that_listens);
    tcase_add_test(c, a_worker_is_found_by_its_id);
    c = new_case(suite, "requests");
    tcase_add_test(c, a_request_is_answered_once);
    tcase_add_test(c, a_cancelled_request_leaves_nothing);
    tcase_add_test(c, a_long_answer_has_the_room_that_was_asked_for);
    tcase_add_test(c, leaving_fails_requests_and_drops_posts);
    c = new_case(suite, "death");
    tcase_add_test(c, a_dead_receiver_fails_its_requests);
    tcase_add_test(c, a_waiting_requester_is_told_of_a_death);
    tcase_add_test(c, a_dead_requester_leaves_nothing);
    tcase_add_test(c, many_of_the_dead_are_buried_in_steps);
    tcase_add_test(c, a_slot_is_had_again_after_a_death_that_nobody_reaped);
    c = new_case(suite, "wait");
    tcase_add_test(c, who_waits_gets_the_mail_and_its_answer);
    tcase_add_test(c, who_waits_for_room_gets_it);
    tcase_add_test(c, an_armed_bell_rings_for_mail_answers_and_deaths);
    tcase_add_test(c, a_call_that_is_not_answered_in_time_is_cancelled);
    tcase_add_test(c, a_lock_that_is_kept_is_busy_and_nothing_is_damaged);
    c = new_case(suite, "check");
    tcase_add_test(c, peeking_shows_each_and_changes_nothing);
    tcase_add_loop_test(c, check_names_what_is_damaged, 0,
                        (int)(sizeof(damages) / sizeof(damages[0])));
    tcase_add_loop_test(c, damage_anywhere_is_survived, 0, 4);
    return support_run(suite);
}
