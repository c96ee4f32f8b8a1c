/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite registry: worker/registry.c over a real segment with 4 worker slots.
 * A worker is a process with an attachment (and so a file description) of its
 * own; here children attach by name.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "shm/base/error.h"
#include "shm/guard/reading.h"
#include "shm/guard/txn.h"
#include "shm/base/clock.h"
#include "shm/segment/header.h"
#include "shm/worker/roster.h"
#include "tests/unit/support.h"

#define NAME support_name
#define SLOTS 4u

static struct segment segment;
static struct guard_env env;
static const struct registry_self self = {
    .worker_id = 7, .generation = 3, .name = "unit"};

static void set_up(void)
{
    (void)unlink(support_file);
    support_segment(NAME, &segment, &env);
}

static void tear_down(void)
{
    segment_close(&segment);
    (void)unlink(support_file);
}

static struct registry_slot *slot(uint32_t index)
{
    return (struct registry_slot *)(void *)(segment.base +
                                            segment.workers_at) +
           index;
}

static uint64_t join(void)
{
    uint64_t incarnation = 0;

    expect(registry_join(&env, &self, &incarnation), SHD_OK);
    return incarnation;
}

/* In a child: an attachment and a registration of its own. */
static void become_worker(void)
{
    struct shd_segment_options o = support_options();
    static struct segment own;
    uint64_t incarnation;

    if (segment_attach(NAME, &o, FINGERPRINT, &own) != SHD_OK)
        _exit(1);
    env.segment = &own;
    env.incarnation = 0;
    if (registry_join(&env, &self, &incarnation) != SHD_OK)
        _exit(2);
    env.incarnation = incarnation;
}

static pid_t live_worker(void)
{
    pid_t child;

    dying_child(child, {
        become_worker();
        raise(SIGSTOP);
    });
    support_wait_stopped(child);
    return child;
}

static void dead_worker(void)
{
    pid_t child;

    dying_child(child, become_worker());
    support_wait_killed(child);
}

static void expect_sound(void)
{
    char report[256] = "";
    int rc = registry_check(&env, report, sizeof(report));

    ck_assert_msg(rc == SHD_OK, "%s: %s", shd_strerror_name(rc), report);
}

static uint32_t reap(void)
{
    uint32_t n = 99;

    expect(registry_reap(&env, catalogue_guards(&segment), &n), SHD_OK);
    return n;
}

/* ---- joining and leaving ---------------------------------------------- */

START_TEST(an_empty_registry_has_no_workers)
{
    struct registry_slot copy;
    bool dead;

    for (uint32_t i = 0; i < SLOTS; i++)
        expect(registry_at(&env, i, &copy, &dead), SHD_NOTFOUND);
    expect(registry_at(&env, SLOTS, &copy, &dead), SHD_INVAL);
    expect(registry_leave(&env), SHD_INVAL);
    ck_assert_uint_eq(reap(), 0);
    expect_sound();
}
END_TEST

START_TEST(a_worker_that_joins_is_described)
{
    uint64_t incarnation = join();
    struct registry_slot copy;
    struct stat st;
    bool dead = true;

    ck_assert_uint_eq(incarnation, 0x10000);
    env.incarnation = incarnation;
    expect(registry_at(&env, 0, &copy, &dead), SHD_OK);
    ck_assert(!dead);
    ck_assert_uint_eq(copy.incarnation, incarnation);
    ck_assert_int_eq((pid_t)copy.pid, getpid());
    ck_assert_int_eq(copy.worker_id, 7);
    ck_assert_uint_eq(copy.generation, 3);
    ck_assert_str_eq(copy.name, "unit");
    ck_assert_int_eq(stat("/proc/self/ns/pid", &st), 0);
    ck_assert_uint_eq(copy.pid_namespace, st.st_ino);
    ck_assert_uint_gt(copy.joined_ms, 1700000000000ull);
    ck_assert_uint_gt(copy.start_time, 0);
    expect_sound();
}
END_TEST

START_TEST(a_heartbeat_is_told_by_its_age)
{
    struct registry_slot copy;
    bool dead;

    roster_beat(&env); /* not registered: nothing */
    env.incarnation = join();
    expect(registry_at(&env, 0, &copy, &dead), SHD_OK);
    ck_assert_int_eq(roster_silent_ms(&copy), -1);
    roster_beat(&env);
    expect(registry_at(&env, 0, &copy, &dead), SHD_OK);
    ck_assert_int_ge(roster_silent_ms(&copy), 0);
    clock_test_advance(5000);
    ck_assert_int_ge(roster_silent_ms(&copy), 5000);
    roster_beat(&env);
    expect(registry_at(&env, 0, &copy, &dead), SHD_OK);
    ck_assert_int_lt(roster_silent_ms(&copy), 5000);
    expect(registry_leave(&env), SHD_OK);
    env.incarnation = join();
    expect(registry_at(&env, 0, &copy, &dead), SHD_OK);
    ck_assert_int_eq(roster_silent_ms(&copy), -1);
    expect_sound();
}
END_TEST

START_TEST(a_phase_is_of_one_incarnation)
{
    struct registry_slot copy;
    bool dead;

    env.incarnation = join();
    expect(registry_at(&env, 0, &copy, &dead), SHD_OK);
    ck_assert_uint_eq(copy.phase, SHD_PHASE_NONE);
    expect(roster_set_phase(&env, env.incarnation, SHD_PHASE_READY), SHD_OK);
    expect(registry_at(&env, 0, &copy, &dead), SHD_OK);
    ck_assert_uint_eq(copy.phase, SHD_PHASE_READY);
    expect(roster_set_phase(&env, env.incarnation + 0x10000,
                            SHD_PHASE_DRAINING),
           SHD_NOTFOUND);
    expect(roster_set_phase(&env, 0, SHD_PHASE_DRAINING), SHD_NOTFOUND);
    expect(roster_set_phase(&env, 0x1ffff, SHD_PHASE_DRAINING),
           SHD_NOTFOUND);
    expect(registry_at(&env, 0, &copy, &dead), SHD_OK);
    ck_assert_uint_eq(copy.phase, SHD_PHASE_READY);
    expect_sound();
}
END_TEST

START_TEST(generations_grow_and_older_workers_drain)
{
    struct registry_slot copy;
    uint32_t generation, marked;
    bool dead;

    expect(roster_next_generation(&env, &generation), SHD_OK);
    ck_assert_uint_eq(generation, 1);
    env.incarnation = join(); /* of generation 3 */
    expect(roster_next_generation(&env, &generation), SHD_OK);
    ck_assert_uint_eq(generation, 4);
    expect(roster_drain(&env, 3, &marked), SHD_OK);
    ck_assert_uint_eq(marked, 0);
    expect(roster_drain(&env, 4, &marked), SHD_OK);
    ck_assert_uint_eq(marked, 1);
    expect(roster_drain(&env, 4, &marked), SHD_OK);
    ck_assert_uint_eq(marked, 0);
    expect(registry_at(&env, 0, &copy, &dead), SHD_OK);
    ck_assert_uint_eq(copy.phase, SHD_PHASE_DRAINING);
    expect(registry_leave(&env), SHD_OK);
    expect(roster_next_generation(&env, &generation), SHD_OK);
    ck_assert_uint_eq(generation, 5);
    segment_header(&segment)->generation = UINT32_MAX;
    expect(roster_next_generation(&env, &generation), SHD_FULL);
}
END_TEST

START_TEST(an_incarnation_names_its_slot_and_never_comes_again)
{
    uint64_t last = 0;

    for (int i = 0; i < 10; i++) {
        env.incarnation = join();
        ck_assert_uint_gt(env.incarnation >> 16, last >> 16);
        ck_assert_uint_eq(env.incarnation & 0xffff, 0);
        last = env.incarnation;
        expect(registry_leave(&env), SHD_OK);
        ck_assert_uint_eq(slot(0)->incarnation, 0);
        env.incarnation = 0;
        ck_assert(registry_is_dead(&env, last));
    }
    ck_assert_uint_eq(segment_header(&segment)->incarnations, 10);
    ck_assert_uint_eq(segment_header(&segment)->deaths, 0);
    expect_sound();
}
END_TEST

START_TEST(leaving_frees_the_slot_and_its_byte)
{
    struct registry_slot copy;
    bool dead;
    pid_t child;

    env.incarnation = join();
    child = live_worker();
    ck_assert_uint_eq(slot(1)->incarnation, 0x20001);
    expect(registry_leave(&env), SHD_OK);
    expect(registry_at(&env, 0, &copy, &dead), SHD_NOTFOUND);
    support_kill(child);
    child = live_worker();
    ck_assert_uint_eq(slot(0)->incarnation, 0x30000);
    support_kill(child);
}
END_TEST

START_TEST(who_left_frees_nobody_elses_slot)
{
    env.incarnation = join();
    slot(0)->incarnation = 0x90000;
    expect(registry_leave(&env), SHD_OK);
    ck_assert_uint_eq(slot(0)->incarnation, 0x90000);
}
END_TEST

START_TEST(a_slot_whose_byte_is_taken_is_passed_over)
{
    struct shd_segment_options o = support_options();
    struct segment other;

    expect(segment_attach(NAME, &o, FINGERPRINT, &other), SHD_OK);
    expect(segment_liveness_lock(&other, 0), SHD_OK);
    ck_assert_uint_eq(join() & 0xffff, 1);
    segment_close(&other);
}
END_TEST

START_TEST(live_workers_fill_the_registry)
{
    pid_t child[SLOTS];
    uint64_t incarnation;

    for (uint32_t i = 0; i < SLOTS; i++)
        child[i] = live_worker();
    expect(registry_join(&env, &self, &incarnation), SHD_FULL);
    expect_said("workers_max");
    support_kill(child[2]);
    /* The dead one's slot is freed for whoever needs it. */
    env.incarnation = join();
    ck_assert_uint_eq(env.incarnation, 5 << 16 | 2);
    ck_assert_uint_eq(segment_header(&segment)->deaths, 1);
    expect_sound();
    for (uint32_t i = 0; i < SLOTS; i++)
        if (i != 2)
            support_kill(child[i]);
}
END_TEST

/* ---- looking ---------------------------------------------------------- */

START_TEST(a_stopped_worker_lives_and_a_killed_one_is_dead)
{
    pid_t child = live_worker();
    struct registry_slot copy;
    siginfo_t info;
    bool dead;

    expect(registry_at(&env, 0, &copy, &dead), SHD_OK);
    ck_assert(!dead);
    ck_assert(!registry_is_dead(&env, copy.incarnation));
    ck_assert_uint_eq(reap(), 0);
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    ck_assert_int_eq(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    /* kill(pid, 0) still succeeds on the zombie. */
    ck_assert_int_eq(kill(child, 0), 0);
    expect(registry_at(&env, 0, &copy, &dead), SHD_OK);
    ck_assert(dead);
    ck_assert(registry_is_dead(&env, copy.incarnation));
    support_wait_killed(child);
}
END_TEST

START_TEST(nobody_and_nonsense_are_dead_and_oneself_is_not)
{
    ck_assert(registry_is_dead(&env, 0));
    ck_assert(registry_is_dead(&env, 1 << 16 | SLOTS));
    ck_assert(registry_is_dead(&env, ~0ull));
    env.incarnation = join();
    ck_assert(!registry_is_dead(&env, env.incarnation));
    ck_assert(registry_is_dead(&env, env.incarnation + (1 << 16)));
}
END_TEST

START_TEST(a_read_only_attachment_sees_the_workers)
{
    struct shd_segment_options o = support_options();
    struct guard_env e = env;
    struct registry_slot copy;
    struct segment r;
    char report[256];
    pid_t child;
    bool dead;

    o.flags = SHD_ATTACH_READONLY;
    expect(segment_attach(NAME, &o, FINGERPRINT, &r), SHD_OK);
    e.segment = &r;
    child = live_worker();
    expect(registry_at(&e, 0, &copy, &dead), SHD_OK);
    ck_assert_int_eq((pid_t)copy.pid, child);
    ck_assert(!dead);
    expect(registry_check(&e, report, sizeof(report)), SHD_OK);
    support_kill(child);
    expect(registry_at(&e, 0, &copy, &dead), SHD_OK);
    ck_assert(dead);
    segment_close(&r);
}
END_TEST

/* ---- reaping ---------------------------------------------------------- */

START_TEST(a_dead_worker_is_reaped_once)
{
    struct registry_slot copy;
    bool dead;

    dead_worker();
    dead_worker();
    env.incarnation = join();
    ck_assert_uint_eq(reap(), 2);
    expect(registry_at(&env, 0, &copy, &dead), SHD_NOTFOUND);
    expect(registry_at(&env, 1, &copy, &dead), SHD_NOTFOUND);
    expect(registry_at(&env, 2, &copy, &dead), SHD_OK);
    ck_assert_uint_eq(segment_header(&segment)->deaths, 2);
    ck_assert_uint_eq(reap(), 0);
    ck_assert_uint_eq(segment_header(&segment)->deaths, 2);
    expect_sound();
}
END_TEST

START_TEST(reaping_does_not_need_a_registration)
{
    dead_worker();
    ck_assert_uint_eq(env.incarnation, 0);
    ck_assert_uint_eq(reap(), 1);
}
END_TEST

START_TEST(reaping_undoes_what_the_dead_were_doing)
{
    struct guard *g = guard_at(&segment, GUARD_CATALOGUE);
    uint64_t *generations = &segment_header(&segment)->generations;
    pid_t child;

    dying_child(child, {
        struct txn t;

        become_worker();
        if (guard_lock(&env, guard_at(env.segment, GUARD_CATALOGUE)) != SHD_OK)
            _exit(1);
        txn_begin(&t, env.segment, guard_at(env.segment, GUARD_CATALOGUE), 1);
        txn_store64(&t, &segment_header(env.segment)->generations, 55);
    });
    support_wait_killed(child);
    ck_assert_uint_eq(*generations, 55);
    ck_assert_uint_eq(reap(), 1);
    ck_assert_uint_eq(*generations, 0);
    ck_assert_uint_eq(g->recoveries, 1);
    ck_assert_uint_eq(guard_holder(g), 0);
}
END_TEST

START_TEST(a_death_before_registration_is_undone_too)
{
    struct guard *g = guard_at(&segment, GUARD_REGISTRY);
    pid_t child;

    dying_child(child, {
        if (guard_lock(&env, g) != SHD_OK)
            _exit(1);
    });
    support_wait_killed(child);
    ck_assert_uint_eq(reap(), 0);
    ck_assert_uint_eq(g->recoveries, 1);
}
END_TEST

START_TEST(reaping_wakes_all_waiters)
{
    struct guard *g = guard_at(&segment, GUARD_CATALOGUE);
    uint32_t *word = &g->lock;
    char path[64], text[64];
    pid_t child = fork();
    int status;

    ck_assert_int_ge(child, 0);
    if (child == 0)
        _exit(syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0) != 0);
    snprintf(path, sizeof(path), "/proc/%d/syscall", (int)child);
    do {
        FILE *f = fopen(path, "r");

        ck_assert_ptr_nonnull(f);
        if (fgets(text, sizeof(text), f) == NULL)
            text[0] = '\0';
        fclose(f);
    } while (strtol(text, NULL, 10) != SYS_futex || text[0] == 'r');
    ck_assert_uint_eq(reap(), 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(a_damaged_lock_does_not_keep_the_dead_from_being_reaped)
{
    uint32_t n;
    pid_t child;

    dying_child(child, {
        struct guard *g;
        struct txn t;

        become_worker();
        g = guard_at(env.segment, GUARD_CATALOGUE);
        if (guard_lock(&env, g) != SHD_OK)
            _exit(1);
        txn_begin(&t, env.segment, g, 1);
        txn_store64(&t, &segment_header(env.segment)->generations, 55);
        g->undo[0].old++;
    });
    support_wait_killed(child);
    expect(registry_reap(&env, catalogue_guards(&segment), &n), SHD_CORRUPT);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(reap(), 0);
}
END_TEST

START_TEST(a_death_inside_leave_is_a_death_and_reaped_at_once)
{
    pid_t child;

    dying_child(child, {
        struct guard *g;
        struct txn t;

        become_worker();
        g = guard_at(env.segment, GUARD_REGISTRY);
        if (guard_lock(&env, g) != SHD_OK)
            _exit(1);
        txn_begin(&t, env.segment, g, 1);
        txn_store64(&t, segment_at(env.segment, env.segment->workers_at, 8),
                    0);
    });
    support_wait_killed(child);
    ck_assert_uint_eq(slot(0)->incarnation, 0);
    ck_assert_uint_eq(reap(), 1);
    ck_assert_uint_eq(slot(0)->incarnation, 0);
    ck_assert_uint_eq(segment_header(&segment)->deaths, 1);
}
END_TEST

START_TEST(a_death_inside_join_leaves_a_free_slot)
{
    /* As publish() does it, cut off after each of its stores. */
    for (int stores = 0; stores <= 17; stores++) {
        uint64_t before = segment_header(&segment)->incarnations;
        pid_t child;

        dying_child(child, {
            struct guard *g = guard_at(&segment, GUARD_REGISTRY);
            struct txn t;

            if (guard_lock(&env, g) != SHD_OK)
                _exit(1);
            txn_begin(&t, &segment, g, 17);
            if (stores > 0)
                txn_store64(&t, &segment_header(&segment)->incarnations, 99);
            for (int i = 1; i < stores; i++)
                txn_store64(&t, (uint64_t *)(void *)slot(0) + i - 1, ~0ull);
        });
        support_wait_killed(child);
        ck_assert_uint_eq(reap(), 0);
        ck_assert_uint_eq(slot(0)->incarnation, 0);
        ck_assert_uint_eq(segment_header(&segment)->incarnations, before);
        expect_sound();
    }
    ck_assert_uint_eq(join(), 0x10000);
}
END_TEST

/* As of a committed join: the bare counter may be that of one in flight, which
 * a kill undoes. */
static uint64_t incarnations_given(void)
{
    uint64_t given;
    struct reading r;

    reading_begin(&r, &env, guard_at(&segment, GUARD_REGISTRY));
    do {
        expect(reading_try(&r), SHD_OK);
        given = atomic_load64(&segment_header(&segment)->incarnations);
    } while (!reading_done(&r));
    return given;
}

START_TEST(a_storm_of_workers_leaves_no_slot_behind)
{
    uint64_t reaped = 0, incarnations = 0;

    for (int n = 0; n < 100; n++) {
        pid_t child[3];

        for (int i = 0; i < 3; i++) {
            child[i] = fork();
            ck_assert_int_ge(child[i], 0);
            if (child[i] == 0) {
                become_worker();
                for (;;) {
                    if (registry_leave(&env) != SHD_OK)
                        _exit(3);
                    env.incarnation = 0;
                    if (registry_join(&env, &self, &env.incarnation) != SHD_OK)
                        _exit(4);
                    /* Joining costs more than leaving: linger, so that about
                     * as many die inside as outside. */
                    for (int spin = 0; spin < 20000; spin++)
                        atomic_pause();
                }
            }
        }
        /* On a busy machine the first may be long in coming. */
        for (int ms = 0; ms < 10000 && incarnations_given() == incarnations;
             ms++)
            support_sleep_ms(1);
        support_sleep_ms(n % 4);
        for (int i = 0; i < 3; i++)
            support_kill(child[i]);
        expect_sound();
        reaped += reap();
        for (uint32_t i = 0; i < SLOTS; i++)
            ck_assert_uint_eq(slot(i)->incarnation, 0);
        expect_sound();
        ck_assert_uint_gt(incarnations_given(), incarnations);
        incarnations = incarnations_given();
    }
    ck_assert_uint_gt(reaped, 0);
    ck_assert_uint_eq(segment_header(&segment)->deaths, reaped);
}
END_TEST

/* ---- damage ----------------------------------------------------------- */

static void damage_index(void)
{
    slot(1)->incarnation ^= 2;
}
static void damage_counter(void)
{
    slot(1)->incarnation += 7 << 16;
}
static void damage_counter_to_none(void)
{
    slot(1)->incarnation &= 0xffff;
}
static void damage_counter_to_anothers(void)
{
    slot(1)->incarnation = 1 << 16 | 1;
}
static void damage_name(void)
{
    memset(slot(0)->name, 'x', sizeof(slot(0)->name));
}
static void damage_phase(void)
{
    slot(0)->phase = SHD_PHASE_DRAINING + 1;
}

static void damage_deaths(void)
{
    segment_header(&segment)->deaths = 3;
}

static const struct {
    void (*damage)(void);
    const char *says;
} damages[] = {
    {damage_index, "slot 1: incarnation is of another slot"},
    {damage_counter, "slot 1: incarnation was never given"},
    {damage_counter_to_none, "slot 1: incarnation was never given"},
    {damage_counter_to_anothers, "incarnation 1 was given to two slots"},
    {damage_name, "slot 0: name"},
    {damage_phase, "slot 0: no such phase"},
    {damage_deaths, "more workers have died"},
};

START_TEST(check_names_what_is_damaged)
{
    struct registry_slot copy;
    bool dead;

    join();
    dead_worker();
    expect_sound();
    damages[_i].damage();
    expect_named(registry_check(&env, report_, sizeof(report_)),
                 damages[_i].says);
    /* A name without an end is cut, not read past. */
    expect(registry_at(&env, 0, &copy, &dead), SHD_OK);
    ck_assert_uint_lt(strlen(copy.name), sizeof(copy.name));
}
END_TEST

static TCase *new_case(Suite *suite, const char *name)
{
    TCase *c = tcase_create(name);

    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 60);
    suite_add_tcase(suite, c);
    return c;
}

int main(void)
{
    Suite *suite = suite_create("registry");
    TCase *c = new_case(suite, "join");

    support_names("registry");
    tcase_add_test(c, an_empty_registry_has_no_workers);
    tcase_add_test(c, a_worker_that_joins_is_described);
    tcase_add_test(c, an_incarnation_names_its_slot_and_never_comes_again);
    tcase_add_test(c, leaving_frees_the_slot_and_its_byte);
    tcase_add_test(c, who_left_frees_nobody_elses_slot);
    tcase_add_test(c, a_slot_whose_byte_is_taken_is_passed_over);
    tcase_add_test(c, live_workers_fill_the_registry);
    c = new_case(suite, "roster");
    tcase_add_test(c, a_heartbeat_is_told_by_its_age);
    tcase_add_test(c, a_phase_is_of_one_incarnation);
    tcase_add_test(c, generations_grow_and_older_workers_drain);
    c = new_case(suite, "look");
    tcase_add_test(c, a_stopped_worker_lives_and_a_killed_one_is_dead);
    tcase_add_test(c, nobody_and_nonsense_are_dead_and_oneself_is_not);
    tcase_add_test(c, a_read_only_attachment_sees_the_workers);
    c = new_case(suite, "reap");
    tcase_add_test(c, a_dead_worker_is_reaped_once);
    tcase_add_test(c, reaping_does_not_need_a_registration);
    tcase_add_test(c, reaping_undoes_what_the_dead_were_doing);
    tcase_add_test(c, a_death_before_registration_is_undone_too);
    tcase_add_test(c, reaping_wakes_all_waiters);
    tcase_add_test(c, a_damaged_lock_does_not_keep_the_dead_from_being_reaped);
    tcase_add_test(c, a_death_inside_leave_is_a_death_and_reaped_at_once);
    tcase_add_test(c, a_death_inside_join_leaves_a_free_slot);
    tcase_add_test(c, a_storm_of_workers_leaves_no_slot_behind);
    c = new_case(suite, "check");
    tcase_add_loop_test(c, check_names_what_is_damaged, 0,
                        (int)(sizeof(damages) / sizeof(damages[0])));
    return support_run(suite);
}
