/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite watch: shd_watch over real processes. What counts time (hangs, locks)
 * is driven by the watch's own ticks, and the child is made to do something
 * or nothing between two of them: no result depends on how fast this runs.
 *
 * valgrind: no (that of Debian 12 knows no pidfds)
 */
#include <errno.h>
#include <poll.h>
#include <sys/stat.h>

#include "shm/api/handle.h"
#include "shm/guard/txn.h"
#include "shm/worker/roster.h"
#include "tests/unit/support.h"

#define FOR_EVER 60000 /* ms: longer than any machine takes */

static shd_segment *segment;
static shd_dict *dict;
static struct shd_watch_event event;
static int to_child[2], from_child[2];

static void set_up(void)
{
    struct shd_segment_options o = support_options();
    struct shd_dict_options d = {.struct_size = sizeof(d),
                                 .capacity_bytes = 65536};

    (void)unlink(support_file);
    o.workers_max = 6;
    expect(shd_segment_create(support_name, &o, &segment), SHD_OK);
    expect(shd_dict_open(segment, "d", &d, &dict), SHD_OK);
    ck_assert_int_eq(pipe(to_child), 0);
    ck_assert_int_eq(pipe(from_child), 0);
}

static void tear_down(void)
{
    shd_segment_close(segment);
    (void)unlink(support_file);
}

static shd_watch *open_watch(uint32_t flags, uint32_t hang_ms,
                             uint32_t lock_ms)
{
    struct shd_watch_options o = {.struct_size = sizeof(o),
                                  .flags = flags,
                                  .hang_ms = hang_ms,
                                  .lock_ms = lock_ms};
    shd_watch *w;

    expect(shd_watch_open(segment, &o, &w), SHD_OK);
    return w;
}

static int next(shd_watch *w, int64_t timeout_ms)
{
    event.struct_size = sizeof(event);
    return shd_watch_next(w, timeout_ms, &event);
}

static void expect_event(shd_watch *w, uint32_t kind, pid_t pid)
{
    int rc;

    do
        rc = next(w, FOR_EVER);
    while (rc == SHD_NOTFOUND); /* a signal: SIGCHLD */
    expect(rc, SHD_OK);
    ck_assert_uint_eq(event.event, kind);
    ck_assert_uint_eq(event.pid, (uint32_t)pid);
}

static void expect_nothing(shd_watch *w)
{
    expect(next(w, 0), SHD_NOTFOUND);
}

/* ---- children that do one thing when they are told to ------------------- */

static void await_word(void)
{
    char c;

    if (read(to_child[0], &c, 1) != 1)
        _exit(3);
}

static void answer_word(void)
{
    if (write(from_child[1], "", 1) != 1)
        _exit(4);
}

static void poke(void)
{
    char c;

    ck_assert_int_eq(write(to_child[1], "", 1), 1);
    ck_assert_int_eq(read(from_child[0], &c, 1), 1);
}

static pid_t start(void (*work)(void))
{
    pid_t pid = fork();
    char c;

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        if (shd_worker_join(segment, NULL) != SHD_OK)
            _exit(1);
        work();
        _exit(2);
    }
    ck_assert_int_eq(read(from_child[0], &c, 1), 1);
    return pid;
}

static void idle(void)
{
    answer_word();
    for (;;)
        pause();
}

static struct registry_slot *slot(uint32_t index)
{
    return registry_slot_at(&segment->segment, index);
}

static void kill_child(pid_t pid)
{
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    support_wait_killed(pid);
}

/* ---- deaths and joins --------------------------------------------------- */

START_TEST(joins_and_deaths_are_told_and_the_dead_are_reaped)
{
    shd_watch *w = open_watch(0, 0, 0);
    struct pollfd p = {.fd = shd_watch_fd(w), .events = POLLIN};
    struct shd_worker_info info = {.struct_size = sizeof(info)};
    pid_t child;

    expect_nothing(w);
    child = start(idle);
    ck_assert_int_eq(poll(&p, 1, FOR_EVER), 1);
    expect_event(w, SHD_WATCH_JOINED, child);
    ck_assert_int_eq(event.worker_id, -1);
    kill_child(child);
    ck_assert_int_eq(poll(&p, 1, FOR_EVER), 1);
    expect_event(w, SHD_WATCH_DIED, child);
    ck_assert_uint_gt(event.at_ns, 0);
    ck_assert_uint_eq(event.recovered, 0);
    expect(shd_worker_info(segment, 1, &info), SHD_NOTFOUND);
    expect_nothing(w);
    expect(shd_watch_close(w), SHD_OK);
}
END_TEST

START_TEST(who_was_there_before_is_told_first_and_the_dead_too)
{
    pid_t dead = start(idle), alive;
    shd_watch *w;

    kill_child(dead);
    alive = start(idle); /* reaps as it joins: a forked one does */
    w = open_watch(0, 0, 0);
    expect_event(w, SHD_WATCH_JOINED, alive);
    kill_child(alive);
    expect_event(w, SHD_WATCH_DIED, alive);
    expect(shd_watch_close(w), SHD_OK);
}
END_TEST

START_TEST(several_that_die_at_once_are_told_one_after_the_other)
{
    shd_watch *w = open_watch(0, 0, 0);
    pid_t child[4];
    uint32_t told = 0;

    for (int i = 0; i < 4; i++) {
        child[i] = start(idle);
        expect_event(w, SHD_WATCH_JOINED, child[i]);
    }
    for (int i = 0; i < 4; i++)
        kill_child(child[i]);
    for (int n = 0; n < 4; n++) {
        expect(next(w, FOR_EVER), SHD_OK);
        ck_assert_uint_eq(event.event, SHD_WATCH_DIED);
        for (uint32_t i = 0; i < 4; i++)
            told |= (uint32_t)(event.pid == (uint32_t)child[i]) << i;
    }
    ck_assert_uint_eq(told, 15);
    expect_nothing(w);
    expect(shd_watch_close(w), SHD_OK);
}
END_TEST

static void leave(void)
{
    answer_word();
    await_word();
    if (shd_worker_leave(segment) != SHD_OK)
        _exit(5);
    answer_word();
    for (;;)
        pause();
}

START_TEST(who_leaves_has_not_died)
{
    shd_watch *w = open_watch(0, 0, 0);
    pid_t child = start(leave);

    expect_event(w, SHD_WATCH_JOINED, child);
    poke();
    expect_event(w, SHD_WATCH_LEFT, child);
    kill_child(child);
    expect_nothing(w);
    expect(shd_watch_close(w), SHD_OK);
}
END_TEST

START_TEST(one_that_somebody_else_has_reaped_has_died)
{
    shd_watch *w = open_watch(0, 0, 0);
    pid_t child = start(leave);
    uint32_t n;

    expect_event(w, SHD_WATCH_JOINED, child);
    kill_child(child);
    expect(shd_reap(segment, &n), SHD_OK);
    ck_assert_uint_eq(n, 1);
    /* And another has its slot by now. */
    child = start(leave);
    for (int rc = SHD_NOTFOUND;
         rc == SHD_NOTFOUND || event.event == SHD_WATCH_JOINED;) {
        rc = next(w, FOR_EVER);
        if (rc != SHD_NOTFOUND) /* a signal */
            expect(rc, SHD_OK);
    }
    ck_assert_uint_eq(event.event, SHD_WATCH_DIED);
    kill_child(child);
    expect(shd_watch_close(w), SHD_OK);
}
END_TEST

static void change_phase(void)
{
    for (uint32_t phase = SHD_PHASE_STARTING; phase <= SHD_PHASE_DRAINING;
         phase++) {
        answer_word();
        await_word();
        if (shd_worker_set_phase(segment, 0, phase) != SHD_OK)
            _exit(5);
    }
    answer_word();
    pause();
}

START_TEST(phases_are_told)
{
    shd_watch *w = open_watch(0, 0, 0);
    pid_t child = start(change_phase);

    expect_event(w, SHD_WATCH_JOINED, child);
    ck_assert_uint_eq(event.phase, SHD_PHASE_NONE);
    for (uint32_t phase = SHD_PHASE_STARTING; phase <= SHD_PHASE_DRAINING;
         phase++) {
        poke();
        expect_event(w, SHD_WATCH_PHASE, child);
        ck_assert_uint_eq(event.phase, phase);
    }
    kill_child(child);
    expect_event(w, SHD_WATCH_DIED, child);
    expect(shd_watch_close(w), SHD_OK);
}
END_TEST

/* ---- hangs and locks ---------------------------------------------------- */

static void beat_when_told(void)
{
    for (;;) {
        if (shd_worker_beat(segment) != SHD_OK)
            _exit(5);
        answer_word();
        await_word();
    }
}

/* A tick of the watch after the other, each with `between` before it. */
static void ticks(shd_watch *w, int n, void (*between)(void))
{
    struct pollfd p = {.fd = shd_watch_fd(w), .events = POLLIN};

    for (int i = 0; i < n; i++) {
        if (between != NULL)
            between();
        /* Coarse time has to have moved on for the next heartbeat. */
        usleep(15000);
        ck_assert_int_eq(poll(&p, 1, FOR_EVER), 1);
        expect_nothing(w);
    }
}

START_TEST(a_heart_that_stops_is_told_once_and_one_that_beats_is_not)
{
    shd_watch *w = open_watch(0, 160, 0);
    pid_t child = start(beat_when_told);

    expect_event(w, SHD_WATCH_JOINED, child);
    ticks(w, 12, poke);
    expect_event(w, SHD_WATCH_HUNG, child);
    ck_assert_uint_ge(event.for_ms, 160);
    ticks(w, 8, NULL);
    /* It beats again, and stops again. */
    poke();
    expect_event(w, SHD_WATCH_HUNG, child);
    kill_child(child);
    expect_event(w, SHD_WATCH_DIED, child);
    expect(shd_watch_close(w), SHD_OK);
}
END_TEST

START_TEST(who_has_never_beaten_does_not_hang)
{
    shd_watch *w = open_watch(0, 160, 160);
    pid_t child = start(idle);

    expect_event(w, SHD_WATCH_JOINED, child);
    ticks(w, 12, NULL);
    kill_child(child);
    expect_event(w, SHD_WATCH_DIED, child);
    expect(shd_watch_close(w), SHD_OK);
}
END_TEST

/* Holds the dict's lock all the time, and changes something when told. */
static void hold(void)
{
    struct guard *g = guard_at(&segment->segment, GUARD_FIRST_OBJECT);
    struct txn t;

    if (guard_lock(&segment->env, g) != SHD_OK)
        _exit(5);
    for (;;) {
        txn_begin(&t, &segment->segment, g, 1);
        txn_commit(&t);
        answer_word();
        await_word();
    }
}

START_TEST(who_sits_on_a_lock_is_told_once_and_who_works_under_it_is_not)
{
    shd_watch *w = open_watch(0, 0, 160);
    pid_t child = start(hold);

    expect_event(w, SHD_WATCH_JOINED, child);
    ticks(w, 12, poke);
    expect_event(w, SHD_WATCH_STUCK, child);
    ck_assert_uint_ge(event.for_ms, 160);
    ck_assert_str_eq(event.object, "d");
    ck_assert_uint_ne(event.incarnation, 0);
    ticks(w, 8, NULL);
    expect(shd_worker_signal(segment, event.incarnation, SIGKILL), SHD_OK);
    support_wait_killed(child);
    expect_event(w, SHD_WATCH_DIED, child);
    ck_assert_uint_eq(event.recovered, 1);
    expect(shd_set(dict, "k", 1, "v", 1, 0), SHD_OK);
    expect(shd_watch_close(w), SHD_OK);
}
END_TEST

/* The same, by stores that are transactions by themselves. */
static void hold_alone(void)
{
    struct guard *g = guard_at(&segment->segment, GUARD_FIRST_OBJECT);

    if (guard_lock(&segment->env, g) != SHD_OK)
        _exit(5);
    for (;;) {
        txn_store64_alone(g, &g->waits, 0);
        answer_word();
        await_word();
    }
}

START_TEST(who_works_under_a_lock_by_single_stores_does_not_sit_on_it)
{
    shd_watch *w = open_watch(0, 0, 160);
    pid_t child = start(hold_alone);

    expect_event(w, SHD_WATCH_JOINED, child);
    ticks(w, 12, poke);
    kill_child(child);
    expect_event(w, SHD_WATCH_DIED, child);
    expect(shd_watch_close(w), SHD_OK);
}
END_TEST

static void hold_as_another(void)
{
    struct guard *g = guard_at(&segment->segment, GUARD_FIRST_OBJECT);

    if (guard_lock(&segment->env, g) != SHD_OK)
        _exit(5);
    atomic_store64(&g->owner, 1ull << 16);
    answer_word();
    for (;;)
        pause();
}

START_TEST(the_holder_is_found_by_its_thread_whatever_the_owner_word_says)
{
    shd_watch *w;
    pid_t child;

    expect(shd_worker_join(segment, NULL), SHD_OK); /* incarnation 1 << 16 */
    w = open_watch(0, 0, 160);
    child = start(hold_as_another);
    expect_event(w, SHD_WATCH_JOINED, child);
    expect_event(w, SHD_WATCH_STUCK, child);
    kill_child(child);
    expect_event(w, SHD_WATCH_DIED, child);
    expect(shd_watch_close(w), SHD_OK);
}
END_TEST

/* ---- the supervisor ----------------------------------------------------- */

static void claim_in_child(void)
{
    (void)open_watch(SHD_WATCH_SUPERVISE, 0, 0);
    answer_word();
    for (;;)
        pause();
}

START_TEST(there_is_one_supervisor_and_its_death_makes_room)
{
    struct shd_watch_options o = {.struct_size = sizeof(o),
                                  .flags = SHD_WATCH_SUPERVISE};
    struct shd_worker_info info = {.struct_size = sizeof(info)};
    pid_t child = start(claim_in_child);
    char text[40];
    shd_watch *w;

    expect(shd_watch_open(segment, &o, &w), SHD_EXISTS);
    snprintf(text, sizeof(text), "process %d supervises", (int)child);
    expect_said(text);
    /* Slot 0 is this process's, which has made the dict. */
    expect(shd_worker_info(segment, 1, &info), SHD_OK);
    ck_assert_uint_eq(info.pid, (uint32_t)child);
    ck_assert_uint_eq(info.supervisor, 1);
    kill_child(child);
    expect(shd_watch_open(segment, &o, &w), SHD_OK);
    expect(shd_watch_close(w), SHD_OK);
    expect(shd_watch_open(segment, &o, &w), SHD_OK);
    expect(shd_watch_close(w), SHD_OK);
}
END_TEST

START_TEST(a_child_has_no_watch_and_keeps_the_claim_only_if_told_to)
{
    for (uint32_t held = 0; held < 2; held++) {
        uint32_t flags =
            SHD_WATCH_SUPERVISE | (held ? SHD_WATCH_HOLD_IN_CHILDREN : 0);
        shd_watch *w = open_watch(flags, 0, 0);
        pid_t child = fork();
        char c;

        ck_assert_int_ge(child, 0);
        if (child == 0) {
            if (next(w, 0) != SHD_CLOSED)
                _exit(1);
            answer_word();
            for (;;)
                pause();
        }
        ck_assert_int_eq(read(from_child[0], &c, 1), 1);
        expect(shd_watch_close(w), SHD_OK);
        struct shd_watch_options o = {.struct_size = sizeof(o),
                                      .flags = SHD_WATCH_SUPERVISE};
        expect(shd_watch_open(segment, &o, &w), held ? SHD_EXISTS : SHD_OK);
        kill_child(child);
        if (held)
            expect(shd_watch_open(segment, &o, &w), SHD_OK);
        expect(shd_watch_close(w), SHD_OK);
    }
}
END_TEST

START_TEST(wrong_arguments_are_refused)
{
    struct shd_watch_options o = {.struct_size = sizeof(o), .flags = 4};
    shd_watch *w = NULL;

    expect(shd_watch_open(segment, &o, &w), SHD_INVAL);
    o.flags = 0;
    o.struct_size = 1;
    expect(shd_watch_open(segment, &o, &w), SHD_INVAL);
    expect(shd_watch_open(segment, NULL, NULL), SHD_INVAL);
    expect(shd_watch_open(segment, NULL, &w), SHD_OK);
    event.struct_size = 1;
    expect(shd_watch_next(w, 0, &event), SHD_INVAL);
    expect(shd_watch_next(w, 0, NULL), SHD_INVAL);
    expect(shd_watch_close(w), SHD_OK);
    expect(shd_watch_close(NULL), SHD_INVAL);
    expect(shd_watch_fd(NULL), SHD_INVAL);
}
END_TEST

START_TEST(a_process_is_proved_to_be_the_workers)
{
    pid_t child = start(idle);
    uint64_t incarnation = slot(1)->incarnation;
    const struct guard_env *env = &segment->env;
    int pidfd;

    expect(roster_process(env, incarnation, &pidfd), SHD_OK);
    ck_assert_int_ge(pidfd, 0);
    ck_assert_int_eq(close(pidfd), 0);
    expect(roster_process(env, incarnation + 0x10000, &pidfd), SHD_NOTFOUND);
    expect(roster_process(env, 0, &pidfd), SHD_NOTFOUND);
    expect(roster_process(env, 0x1ffff, &pidfd), SHD_NOTFOUND);
    ck_assert_int_eq(pidfd, -1);
    expect(shd_worker_signal(segment, incarnation, 0), SHD_OK);
    expect(shd_worker_signal(segment, incarnation, 1000), SHD_INVAL);
    /* A damaged slot names somebody else. */
    slot(1)->pid = 1;
    expect(roster_process(env, incarnation, &pidfd), SHD_CORRUPT);
    expect(shd_worker_signal(segment, incarnation, 0), SHD_CORRUPT);
    slot(1)->pid = 0x80000001u;
    expect(roster_process(env, incarnation, &pidfd), SHD_CORRUPT);
    slot(1)->pid = (uint32_t)child;
    slot(1)->pid_namespace++;
    expect(roster_process(env, incarnation, &pidfd), SHD_NAMESPACE);
    slot(1)->pid_namespace--;
    kill_child(child);
    expect(roster_process(env, incarnation, &pidfd), SHD_NOTFOUND);
    expect(shd_worker_signal(segment, incarnation, 0), SHD_NOTFOUND);
    expect(shd_reap(segment, NULL), SHD_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("watch");
    TCase *c = tcase_create("watch");

    support_names("watch");
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 120);
    suite_add_tcase(suite, c);
    tcase_add_test(c, joins_and_deaths_are_told_and_the_dead_are_reaped);
    tcase_add_test(c, who_was_there_before_is_told_first_and_the_dead_too);
    tcase_add_test(c, several_that_die_at_once_are_told_one_after_the_other);
    tcase_add_test(c, who_leaves_has_not_died);
    tcase_add_test(c, one_that_somebody_else_has_reaped_has_died);
    tcase_add_test(c, phases_are_told);
    tcase_add_test(c,
                   a_heart_that_stops_is_told_once_and_one_that_beats_is_not);
    tcase_add_test(c, who_has_never_beaten_does_not_hang);
    tcase_add_test(
        c, who_sits_on_a_lock_is_told_once_and_who_works_under_it_is_not);
    tcase_add_test(c,
                   who_works_under_a_lock_by_single_stores_does_not_sit_on_it);
    tcase_add_test(
        c, the_holder_is_found_by_its_thread_whatever_the_owner_word_says);
    tcase_add_test(c, there_is_one_supervisor_and_its_death_makes_room);
    tcase_add_test(c,
                   a_child_has_no_watch_and_keeps_the_claim_only_if_told_to);
    tcase_add_test(c, wrong_arguments_are_refused);
    tcase_add_test(c, a_process_is_proved_to_be_the_workers);
    return support_run(suite);
}
