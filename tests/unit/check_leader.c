/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite leader: the public leader, and what ipc/permits.c does for it. Other
 * workers are children that stay alive; to act as one of them a test takes its
 * incarnation on.
 */
#include <poll.h>

#include "shm/api/handle.h"
#include "tests/unit/support.h"

static shd_segment *segment;
static shd_leader *leader;
/* Not this process: its byte of liveness cannot be seen by itself. */
static uint64_t own, tester;
static pid_t own_pid;

static pid_t other(uint64_t *incarnation);

static void set_up(void)
{
    struct shd_lock_options o = {.struct_size = sizeof(o),
                                 .flags = SHD_LOCK_CREATE};

    struct shd_segment_options so = {.struct_size = sizeof(so),
                                     .size_bytes = 16 << 20,
                                     .workers_max = 16};

    expect(shd_segment_create(NULL, &so, &segment), SHD_OK);
    expect(shd_leader_open(segment, "l", &o, &leader), SHD_OK);
    expect(shd_worker_join(segment, &tester), SHD_OK);
    own_pid = other(&own);
    segment->env.incarnation = own;
}

static void tear_down(void)
{
    char report[256] = "";
    int rc;

    segment->env.incarnation = tester;
    rc = shd_segment_check(segment, report, sizeof(report));

    ck_assert_msg(rc == SHD_OK, "check: %s: %s", shd_strerror_name(rc),
                  report);
    support_kill(own_pid);
    expect(shd_segment_close(segment), SHD_OK);
}

static void as(uint64_t incarnation)
{
    segment->env.incarnation = incarnation;
}

/* A worker that does nothing by itself. */
static pid_t other(uint64_t *incarnation)
{
    uint64_t number = 0;
    int said[2];
    pid_t pid;

    ck_assert_int_eq(pipe(said), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        if (shd_worker_join(segment, &number) != SHD_OK ||
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

static int look(struct shd_grant *g)
{
    return shd_leader_look(leader, 0, g);
}

static uint64_t expect_leads(uint64_t incarnation)
{
    struct shd_grant g;

    as(incarnation);
    expect(look(&g), SHD_OK);
    as(own);
    return g.token;
}

static void expect_follows(uint64_t incarnation)
{
    struct shd_grant g;

    as(incarnation);
    ck_assert_int_eq(look(&g), 1);
    as(own);
}

static void drain(uint64_t incarnation)
{
    expect(shd_worker_set_phase(segment, incarnation, SHD_PHASE_DRAINING),
           SHD_OK);
}

START_TEST(the_first_leads_until_it_resigns)
{
    uint64_t you, first, second;
    pid_t pid = other(&you);

    first = expect_leads(own);
    ck_assert_uint_eq(expect_leads(own), first);
    expect_follows(you);
    expect_follows(you);
    expect(shd_leader_resign(leader), SHD_OK);
    /* It leads without having looked. */
    expect_follows(own);
    second = expect_leads(you);
    ck_assert_uint_gt(second, first);
    ck_assert_uint_eq(expect_leads(you), second);
    as(you);
    expect(shd_leader_resign(leader), SHD_OK);
    expect(shd_leader_resign(leader), SHD_OK);
    as(own);
    ck_assert_uint_gt(expect_leads(own), second);
    support_kill(pid);
}
END_TEST

START_TEST(resigning_leaves_the_line_too)
{
    uint64_t you;
    pid_t pid = other(&you);

    expect_leads(own);
    expect_follows(you);
    as(you);
    expect(shd_leader_resign(leader), SHD_OK);
    as(own);
    expect(shd_leader_resign(leader), SHD_OK);
    expect_leads(own);
    support_kill(pid);
}
END_TEST

START_TEST(the_dead_are_followed_at_once)
{
    struct shd_lock_info i = {.struct_size = sizeof(i)};
    struct shd_grant g;
    uint64_t you, third;
    shd_lock *lock;
    pid_t pid = other(&you), pid3 = other(&third);

    expect_leads(you);
    expect_follows(third);
    expect_follows(own);
    support_kill(pid);
    /* Whoever looks finds out; the first in line has it. */
    expect_follows(own);
    as(third);
    expect(look(&g), SHD_OK);
    as(own);
    ck_assert_uint_eq(g.former, SHD_FORMER_DIED);
    support_kill(pid3);
    expect(shd_reap(segment, NULL), SHD_OK);
    expect_leads(own);
    expect(shd_lock_open(segment, "l", SHD_OBJECT_LEADER, NULL, &lock),
           SHD_OK);
    expect(shd_lock_info(lock, &i), SHD_OK);
    ck_assert_uint_eq(i.deaths, 2);
    ck_assert_uint_eq(i.kind, SHD_OBJECT_LEADER);
}
END_TEST

START_TEST(one_that_drains_hands_over_when_another_stands)
{
    uint64_t you, third, token;
    pid_t pid = other(&you), pid3 = other(&third);

    token = expect_leads(you);
    drain(you);
    /* There is nobody else. */
    ck_assert_uint_eq(expect_leads(you), token);
    drain(third);
    expect_follows(third);
    ck_assert_uint_eq(expect_leads(you), token);
    expect_follows(own);
    /* Not before it has said so itself. */
    expect_follows(own);
    expect_follows(you);
    ck_assert_uint_gt(expect_leads(own), token);
    expect(shd_leader_resign(leader), SHD_OK);
    expect_follows(you);
    expect_follows(third);
    support_kill(pid);
    support_kill(pid3);
}
END_TEST

START_TEST(one_in_line_that_drains_is_passed_over)
{
    uint64_t you, third;
    pid_t pid = other(&you), pid3 = other(&third);

    expect_leads(own);
    expect_follows(you);
    expect_follows(third);
    drain(you);
    expect(shd_leader_resign(leader), SHD_OK);
    expect_leads(third);
    expect_follows(you);
    support_kill(pid);
    support_kill(pid3);
}
END_TEST

static bool rung(void)
{
    struct pollfd p = {.fd = shd_worker_fd(segment), .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

START_TEST(the_bell_rings_for_who_leads_and_for_who_drains)
{
    uint64_t you;
    pid_t pid = other(&you);

    ck_assert(!rung());
    expect_leads(you);
    expect_follows(own);
    ck_assert(!rung());
    as(you);
    expect(shd_leader_resign(leader), SHD_OK);
    as(own);
    ck_assert(rung());
    expect(shd_worker_fd_clear(segment), SHD_OK);
    expect_leads(own);
    drain(own);
    ck_assert(rung());
    support_kill(pid);
}
END_TEST

START_TEST(who_waits_leads_when_the_leader_dies)
{
    struct shd_grant g;
    uint64_t you;
    pid_t pid = other(&you), killer;

    expect_leads(you);
    ck_assert_int_eq(shd_leader_look(leader, 20, &g), 1);
    killer = fork();
    ck_assert_int_ge(killer, 0);
    if (killer == 0) {
        support_sleep_ms(30);
        (void)kill(pid, SIGKILL);
        _exit(0);
    }
    expect(shd_leader_look(leader, SHD_FOREVER, &g), SHD_OK);
    ck_assert_uint_eq(g.former, SHD_FORMER_DIED);
    support_wait_killed(pid);
    ck_assert_int_eq(waitpid(killer, NULL, 0), killer);
}
END_TEST

START_TEST(a_leader_is_no_lock)
{
    struct shd_lock_options o = {.struct_size = sizeof(o),
                                 .flags = SHD_LOCK_CREATE};
    struct shd_grant g;
    shd_leader *again;
    shd_lock *lock;

    expect(shd_lock_open(segment, "l", SHD_OBJECT_LOCK, &o, &lock),
           SHD_MISMATCH);
    expect(shd_lock_open(segment, "m", SHD_OBJECT_LEADER, &o, &lock),
           SHD_INVAL);
    expect(shd_lock_open(segment, "l", SHD_OBJECT_LEADER, NULL, &lock),
           SHD_OK);
    expect(shd_lock_acquire(lock, 0, 0, &g), SHD_INVAL);
    expect_said("shd_leader_look");
    expect(shd_leader_open(segment, "n", NULL, &again), SHD_NOTFOUND);
    o.permits = 2;
    expect(shd_leader_open(segment, "l", &o, &again), SHD_INVAL);
    expect(shd_leader_look(leader, 0, NULL), SHD_INVAL);
    expect(shd_leader_look(leader, -2, &g), SHD_INVAL);
    expect(shd_leader_close(leader), SHD_OK);
    expect(shd_lock_close(lock), SHD_OK);
    expect(look(&g), SHD_CLOSED);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("leader");
    TCase *c = tcase_create("leader");

    support_names("leader");
    suite_add_tcase(suite, c);
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_test(c, the_first_leads_until_it_resigns);
    tcase_add_test(c, resigning_leaves_the_line_too);
    tcase_add_test(c, the_dead_are_followed_at_once);
    tcase_add_test(c, one_that_drains_hands_over_when_another_stands);
    tcase_add_test(c, one_in_line_that_drains_is_passed_over);
    tcase_add_test(c, the_bell_rings_for_who_leads_and_for_who_drains);
    tcase_add_test(c, who_waits_leads_when_the_leader_dies);
    tcase_add_test(c, a_leader_is_no_lock);
    return support_run(suite);
}
