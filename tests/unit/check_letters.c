/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite letters: dead letters that go to another queue. Who dies in the middle
 * of it is tests/crash's; here are what happens when nobody does, and the states
 * that a dead mover leaves, made by hand.
 */
#include "shm/ipc/letters.h"
#include "shm/api/object.h"
#include "tests/unit/support.h"

static shd_segment *segment;
static shd_queue *from, *to;
static char buf[70000], bytes[70000];

static struct shd_queue_options options(const char *dead_to)
{
    struct shd_queue_options o;

    memset(&o, 0, sizeof(o));
    o.struct_size = sizeof(o);
    o.deliveries_max = dead_to != NULL;
    o.dead_to = dead_to;
    return o;
}

static void open_from(void)
{
    struct shd_queue_options o = options("to");

    expect(shd_queue_open(segment, "from", &o, &from), SHD_OK);
}

static void open_to(uint64_t messages_max)
{
    struct shd_queue_options o = options(NULL);

    o.messages_max = messages_max;
    expect(shd_queue_open(segment, "to", &o, &to), SHD_OK);
}

static void set_up(void)
{
    struct shd_segment_options o;

    memset(&o, 0, sizeof(o));
    o.struct_size = sizeof(o);
    o.size_bytes = 32 << 20;
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

static struct shd_queue_info info(shd_queue *q)
{
    struct shd_queue_info i = {.struct_size = sizeof(i)};

    expect(shd_queue_info(q, &i), SHD_OK);
    return i;
}

static const struct queue *inside(shd_queue *q)
{
    return (const struct queue *)(const void *)((struct handle_object *)(void *)
                                                    q)
        ->view;
}

static void push(shd_queue *q, size_t len)
{
    expect(shd_queue_push(q, bytes, len, 0, 0, NULL), SHD_OK);
}

/* The next message becomes a dead letter. */
static void bury(void)
{
    struct shd_message m;

    expect(shd_queue_take(from, buf, sizeof(buf), 0, &m), SHD_OK);
    expect(shd_queue_nack(from, m.lease, 0), SHD_OK);
}

static struct shd_message pop(shd_queue *q, size_t len)
{
    struct shd_message m;

    expect(shd_queue_pop(q, buf, sizeof(buf), 0, &m), SHD_OK);
    ck_assert_uint_eq(m.len, len);
    ck_assert_int_eq(memcmp(buf, bytes, len), 0);
    return m;
}

static void expect_empty(shd_queue *q)
{
    struct shd_message m;

    expect(shd_queue_pop(q, buf, sizeof(buf), 0, &m), SHD_NOTFOUND);
}

/* ---- nobody dies -------------------------------------------------------- */

START_TEST(a_letter_is_a_message_of_the_other_queue)
{
    struct shd_message was, is;

    open_to(0);
    open_from();
    push(to, 3);
    push(from, 10);
    expect(shd_queue_peek(from, SHD_MESSAGE_READY, 0, NULL, 0, &was), SHD_OK);
    bury();
    ck_assert_uint_eq(info(from).dead, 0);
    ck_assert_uint_eq(info(from).buried, 1);
    ck_assert_uint_eq(info(from).forwarded, 1);
    ck_assert_uint_eq(info(from).cells_used, 0);
    ck_assert_uint_eq(info(from).bytes, 0);
    ck_assert_str_eq(info(from).dead_to, "to");
    ck_assert_str_eq(info(to).dead_to, "");
    ck_assert_uint_eq(info(to).ready, 2);
    ck_assert_uint_eq(info(to).reservations, 0);
    pop(to, 3);
    is = pop(to, 10);
    ck_assert_uint_eq(is.id, 2);
    ck_assert_uint_eq(is.attempts, 1); /* this one */
    ck_assert_uint_eq(is.from, was.from);
    ck_assert_uint_eq(is.pushed_ms, was.pushed_ms);
    expect_empty(to);
}
END_TEST

START_TEST(letters_of_any_length_go)
{
    static const size_t lengths[] = {0, 1, 160, 161, 4095, 4096, 4097, 16384,
                                     16385, 69999};

    open_to(0);
    open_from();
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        push(from, lengths[i]);
        bury();
        pop(to, lengths[i]);
    }
    ck_assert_uint_eq(info(from).forwarded, 10);
    ck_assert_uint_eq(info(from).cells_used, 0);
    ck_assert_uint_eq(info(to).cells_used, 0);
}
END_TEST

START_TEST(they_wait_for_a_queue_that_is_made_later)
{
    open_from();
    push(from, 1);
    push(from, 2);
    bury();
    bury();
    ck_assert_uint_eq(info(from).dead, 2);
    open_to(0);
    pop(to, 1);
    pop(to, 2);
    expect_empty(to);
    ck_assert_uint_eq(info(from).dead, 0);
}
END_TEST

START_TEST(they_wait_for_room)
{
    open_to(1);
    open_from();
    push(to, 9);
    push(from, 1);
    push(from, 2);
    bury();
    bury();
    ck_assert_uint_eq(info(from).dead, 2);
    ck_assert_uint_eq(info(from).forwarded, 0);
    pop(to, 9);
    pop(to, 1);
    pop(to, 2);
    expect_empty(to);
}
END_TEST

START_TEST(more_go_at_a_time_than_one_call_moves)
{
    open_from();
    for (size_t i = 1; i <= 200; i++) {
        push(from, i);
        bury();
    }
    open_to(0);
    for (size_t i = 1; i <= 200; i++)
        pop(to, i);
    expect_empty(to);
    ck_assert_uint_eq(info(from).forwarded, 200);
}
END_TEST

START_TEST(one_that_is_too_long_stays_and_holds_up_nobody)
{
    struct shd_queue_options o = options(NULL);

    o.capacity_bytes = 1024;
    expect(shd_queue_open(segment, "to", &o, &to), SHD_OK);
    open_from();
    push(from, 5000);
    push(from, 5);
    bury();
    bury();
    pop(to, 5);
    expect_empty(to);
    ck_assert_uint_eq(info(from).dead, 1);
    ck_assert_uint_eq(info(from).forwarded, 1);
}
END_TEST

START_TEST(they_stay_where_the_name_is_of_no_queue)
{
    struct shd_lock_options o = {.struct_size = sizeof(o),
                                 .flags = SHD_LOCK_CREATE};
    shd_lock *lock;
    uint64_t n;

    expect(shd_lock_open(segment, "to", SHD_OBJECT_LOCK, &o, &lock), SHD_OK);
    open_from();
    push(from, 5);
    bury();
    ck_assert_uint_eq(info(from).dead, 1);
    expect(shd_queue_requeue(from, 0, &n), SHD_OK);
    ck_assert_uint_eq(n, 1);
    pop(from, 5);
}
END_TEST

START_TEST(an_event_loop_that_looks_for_messages_gets_them)
{
    open_from();
    push(from, 4);
    bury();
    open_to(0);
    ck_assert_int_eq(shd_queue_arm(to, 0, NULL), 1);
    pop(to, 4);
    ck_assert_int_eq(shd_queue_arm(to, 0, NULL), 0);
}
END_TEST

START_TEST(who_waits_for_letters_is_woken)
{
    struct shd_message m;
    int status;
    pid_t pid;

    open_to(0);
    open_from();
    push(from, 7);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        support_sleep_ms(20);
        bury();
        _exit(0);
    }
    expect(shd_queue_pop(to, buf, sizeof(buf), SHD_FOREVER, &m), SHD_OK);
    ck_assert_uint_eq(m.len, 7);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(two_queues_may_send_each_other_their_letters)
{
    struct shd_queue_options o = options("from");

    open_from();
    expect(shd_queue_open(segment, "to", &o, &to), SHD_OK);
    push(from, 5);
    for (int i = 0; i < 3; i++) {
        struct shd_message m;

        bury();
        expect(shd_queue_take(to, buf, sizeof(buf), 0, &m), SHD_OK);
        expect(shd_queue_nack(to, m.lease, 0), SHD_OK);
    }
    pop(from, 5);
    expect_empty(to);
    expect_empty(from);
}
END_TEST

START_TEST(what_a_dead_consumer_had_goes_as_well)
{
    struct shd_message m;
    pid_t pid;

    open_to(0);
    open_from();
    push(from, 6);
    dying_child(pid, {
        expect(shd_queue_take(from, buf, sizeof(buf), 0, &m), SHD_OK);
    });
    support_wait_killed(pid);
    expect(shd_reap(segment, NULL), SHD_OK);
    pop(to, 6);
    ck_assert_uint_eq(info(from).orphaned, 1);
}
END_TEST

START_TEST(the_option_is_checked)
{
    struct shd_queue_options o = options("to");

    expect(shd_queue_open(segment, "to", &o, &to), SHD_INVAL);
    expect_said("itself");
    o.dead_to = "a/b";
    expect(shd_queue_open(segment, "from", &o, &from), SHD_NAME);
    o.dead_to = "";
    expect(shd_queue_open(segment, "from", &o, &from), SHD_NAME);
    open_from();
    o.dead_to = "elsewhere";
    expect(shd_queue_open(segment, "from", &o, &from), SHD_MISMATCH);
    expect_said("'to'");
    o.dead_to = NULL;
    expect(shd_queue_open(segment, "from", &o, &from), SHD_OK);
    expect(shd_queue_close(from), SHD_OK);
    o = options("x");
    expect(shd_queue_open(segment, "plain", &(struct shd_queue_options){
                                                .struct_size = sizeof(o)},
                          &to),
           SHD_OK);
    expect(shd_queue_open(segment, "plain", &o, &to), SHD_MISMATCH);
}
END_TEST

/* ---- what a dead mover leaves ------------------------------------------- */

static uint64_t dead_one(void)
{
    pid_t pid;

    dying_child(pid, { expect(shd_worker_join(segment, NULL), SHD_OK); });
    support_wait_killed(pid);
    for (uint32_t n = 0;; n++) {
        struct shd_worker_info w = {.struct_size = sizeof(w)};
        int rc = shd_worker_info(segment, n, &w);

        ck_assert_int_ne(rc, SHD_INVAL);
        if (rc == SHD_OK && w.pid == (uint32_t)pid)
            return w.incarnation;
    }
}

/* A letter is pinned by that one, and not copied. */
static void pin_by(uint64_t mover)
{
    struct queue_header *h = inside(from)->header;
    struct message *m = cells_at(&inside(from)->cells, h->dead.first);

    ck_assert_ptr_nonnull(m);
    ck_assert_uint_eq(h->dead.first, h->dead.last);
    h->letter = h->dead.first;
    h->dead.first = h->dead.last = 0;
    h->n_dead = 0;
    h->stage = LETTER_PINNED;
    h->mover = mover;
    m->prev = m->after = 0;
    check_all();
}

/* The letter of 8 bytes has been buried while nobody could take it. */
static void with_a_letter(void)
{
    open_from();
    push(from, 8);
    bury();
    ck_assert_uint_eq(info(from).dead, 1);
}

START_TEST(what_a_dead_mover_pinned_goes_on)
{
    with_a_letter();
    pin_by(dead_one());
    ck_assert_uint_eq(info(from).dead, 1);
    open_to(0);
    pop(to, 8);
    expect_empty(to);
}
END_TEST

START_TEST(what_nobody_moves_any_more_goes_on)
{
    with_a_letter();
    pin_by(0);
    open_to(0);
    pop(to, 8);
    expect_empty(to);
}
END_TEST

START_TEST(what_was_pinned_is_a_letter_again_without_the_other_queue)
{
    uint64_t n;

    with_a_letter();
    pin_by(dead_one());
    expect(shd_reap(segment, NULL), SHD_OK);
    ck_assert_uint_eq(inside(from)->header->stage, LETTER_NONE);
    expect(shd_queue_requeue(from, 0, &n), SHD_OK);
    ck_assert_uint_eq(n, 1);
    pop(from, 8);
}
END_TEST

START_TEST(a_live_mover_is_left_alone)
{
    pid_t pid = fork();
    uint64_t mover = 0;

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        expect(shd_worker_join(segment, NULL), SHD_OK);
        raise(SIGSTOP);
        _exit(1);
    }
    support_wait_stopped(pid);
    with_a_letter();
    for (uint32_t n = 0; mover == 0; n++) {
        struct shd_worker_info w = {.struct_size = sizeof(w)};

        if (shd_worker_info(segment, n, &w) == SHD_OK &&
            w.pid == (uint32_t)pid)
            mover = w.incarnation;
    }
    pin_by(mover);
    open_to(0);
    expect_empty(to);
    expect(shd_reap(segment, NULL), SHD_OK);
    expect_empty(to);
    support_kill(pid);
    expect(shd_reap(segment, NULL), SHD_OK);
    pop(to, 8);
}
END_TEST

/* A copy that has its tag already. */
static void tag_a_copy(uint64_t tag)
{
    uint64_t lease;

    expect(queue_letter_room(inside(to), 8, &lease), SHD_OK);
    expect(queue_write(inside(to), lease, 0, bytes, 8), SHD_OK);
    expect(queue_letter_mark(inside(to), lease, tag, 1, 2), SHD_OK);
    ck_assert_uint_eq(info(to).reservations, 1);
}

START_TEST(a_tagged_copy_is_not_made_twice)
{
    with_a_letter();
    pin_by(dead_one());
    open_to(0);
    tag_a_copy(inside(from)->object.generation);
    pop(to, 8);
    expect_empty(to);
    expect_empty(from);
    ck_assert_uint_eq(info(from).forwarded, 1);
}
END_TEST

/* The copy that a look has seen has gone since; another has its tag. */
START_TEST(a_late_look_leaves_the_next_letter_alone)
{
    const struct queue *q;
    uint64_t tag, seen;

    open_from();
    open_to(0);
    q = inside(to);
    tag = inside(from)->object.generation;
    tag_a_copy(tag);
    seen = atomic_load64(&queue_letter_find(q, tag, 0)->lease);
    expect(queue_letter_arrive(q, tag, seen), SHD_OK);
    pop(to, 8);
    tag_a_copy(tag);
    expect(queue_letter_arrive(q, tag, seen), SHD_NOTFOUND);
    ck_assert_uint_eq(info(to).reservations, 1);
    expect(queue_letter_arrive(q, tag, 0), SHD_OK);
    pop(to, 8);
}
END_TEST

START_TEST(a_copy_that_landed_is_handed_out)
{
    struct queue_header *h;

    open_from();
    open_to(0);
    h = inside(from)->header;
    h->stage = LETTER_LANDED;
    h->mover = dead_one();
    tag_a_copy(inside(from)->object.generation);
    pop(to, 8);
    expect_empty(to);
    ck_assert_uint_eq(h->stage, LETTER_NONE);
}
END_TEST

START_TEST(a_copy_whose_queue_is_gone_is_all_there_is)
{
    open_from();
    open_to(0);
    tag_a_copy(inside(from)->object.generation);
    expect(shd_queue_destroy(segment, "from"), SHD_OK);
    expect(shd_reap(segment, NULL), SHD_OK);
    pop(to, 8);
    expect_empty(to);
}
END_TEST

/* Of a pinned one it is another matter. */
START_TEST(a_reservation_without_a_tag_goes_with_its_mover)
{
    uint64_t lease;
    pid_t pid;

    with_a_letter();
    open_to(0);
    dying_child(pid, {
        expect(shd_worker_join(segment, NULL), SHD_OK);
        expect(queue_letter_room(inside(to), 8, &lease), SHD_OK);
    });
    support_wait_killed(pid);
    pin_by(0);
    expect(shd_reap(segment, NULL), SHD_OK);
    pop(to, 8);
    expect_empty(to);
    ck_assert_uint_eq(info(to).cells_used, 0);
}
END_TEST

/* ---- damage ------------------------------------------------------------- */

static const struct {
    size_t at, bytes;
    uint64_t value;
    const char *named;
} damages[] = {
    {offsetof(struct queue_header, stage), 4, 3, "contradicts itself"},
    {offsetof(struct queue_header, stage), 4, 2, "contradicts itself"},
    {offsetof(struct queue_header, stage), 4, 0, "contradicts itself"},
    {offsetof(struct queue_header, letter), 4, 0, "contradicts itself"},
    {offsetof(struct queue_header, letter), 4, 1, "no dead letter"},
    {offsetof(struct queue_header, forwarded), 8, 9, "pushed"},
    {offsetof(struct queue_header, dead_to) + 56, 8, UINT64_MAX, ""},
};

START_TEST(check_names_what_is_damaged)
{
    char report_[256] = "";
    struct shd_message m;
    unsigned char *p;

    with_a_letter();
    pin_by(0);
    p = (unsigned char *)inside(from)->header + damages[_i].at;
    if (damages[_i].named[0] == '\0')
        memset(inside(from)->header->dead_to, 'x', 64);
    memcpy(p, &damages[_i].value, damages[_i].bytes);
    ck_assert_int_eq(shd_segment_check(segment, report_, sizeof(report_)),
                     SHD_CORRUPT);
    ck_assert_msg(strstr(report_, damages[_i].named[0] == '\0'
                                      ? "has no end"
                                      : damages[_i].named) != NULL,
                  "'%s' does not name '%s'", report_, damages[_i].named);
    /* Whatever becomes of it, nobody crashes or hangs. */
    open_to(0);
    (void)!shd_queue_pop(to, buf, sizeof(buf), 0, &m);
    (void)!shd_reap(segment, NULL);
    expect(shd_queue_destroy(segment, "from"), SHD_OK);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("letters");
    TCase *c = tcase_create("letters");

    support_names("letters");
    suite_add_tcase(s, c);
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_test(c, a_letter_is_a_message_of_the_other_queue);
    tcase_add_test(c, letters_of_any_length_go);
    tcase_add_test(c, they_wait_for_a_queue_that_is_made_later);
    tcase_add_test(c, they_wait_for_room);
    tcase_add_test(c, more_go_at_a_time_than_one_call_moves);
    tcase_add_test(c, one_that_is_too_long_stays_and_holds_up_nobody);
    tcase_add_test(c, they_stay_where_the_name_is_of_no_queue);
    tcase_add_test(c, an_event_loop_that_looks_for_messages_gets_them);
    tcase_add_test(c, who_waits_for_letters_is_woken);
    tcase_add_test(c, two_queues_may_send_each_other_their_letters);
    tcase_add_test(c, what_a_dead_consumer_had_goes_as_well);
    tcase_add_test(c, the_option_is_checked);
    tcase_add_test(c, what_a_dead_mover_pinned_goes_on);
    tcase_add_test(c, what_nobody_moves_any_more_goes_on);
    tcase_add_test(c,
                   what_was_pinned_is_a_letter_again_without_the_other_queue);
    tcase_add_test(c, a_live_mover_is_left_alone);
    tcase_add_test(c, a_tagged_copy_is_not_made_twice);
    tcase_add_test(c, a_late_look_leaves_the_next_letter_alone);
    tcase_add_test(c, a_copy_that_landed_is_handed_out);
    tcase_add_test(c, a_copy_whose_queue_is_gone_is_all_there_is);
    tcase_add_test(c, a_reservation_without_a_tag_goes_with_its_mover);
    tcase_add_loop_test(c, check_names_what_is_damaged, 0,
                        (int)(sizeof(damages) / sizeof(damages[0])));
    return support_run(s);
}
