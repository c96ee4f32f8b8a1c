/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite object: ipc/object.c and ipc/wait.c over a real segment, and the bell
 * of worker/doorbell.c. Sleepers and ringers are processes of their own.
 */
#include <poll.h>

#include "shm/api/handle.h"
#include "shm/ipc/object.h"
#include "shm/worker/doorbell.h"
#include "tests/unit/support.h"

static struct segment segment;
#define THING 77u /* a kind of which nobody asks what is in it */

static struct guard_env env;
static const struct registry_self self = {.worker_id = 1, .name = "unit"};

static int initialize(const struct object *o, void *context)
{
    uint64_t *word = object_own(o, 0, 8);

    *word = *(uint64_t *)context;
    return SHD_OK;
}

static struct object_spec spec_of(uint64_t *first)
{
    return (struct object_spec){.kind = THING,
                                .guards = 1,
                                .places = 2,
                                .size_bytes = 100,
                                .own_bytes = 5000,
                                .own_commit = 5000,
                                .initialize = initialize,
                                .context = first};
}

static struct object object;
static uint64_t first_word = 42;

static void set_up(void)
{
    struct object_spec spec = spec_of(&first_word);
    bool created;

    (void)unlink(support_file);
    support_segment(support_name, &segment, &env);
    expect(registry_join(&env, &self, &env.incarnation), SHD_OK);
    expect(object_open(&env, "thing", THING, &spec, &object,
                       &created),
           SHD_OK);
    ck_assert(created);
}

static void tear_down(void)
{
    segment_close(&segment);
    (void)unlink(support_file);
}

/* In a child: a worker of its own. */
static void become_worker(void)
{
    struct shd_segment_options o = support_options();
    static struct segment own;

    if (segment_attach(support_name, &o, FINGERPRINT, &own) != SHD_OK)
        _exit(1);
    env.segment = &own;
    env.incarnation = 0;
    if (registry_join(&env, &self, &env.incarnation) != SHD_OK ||
        object_open(&env, "thing", THING, NULL, &object, NULL) !=
            SHD_OK)
        _exit(2);
}

static void expect_ended(pid_t pid)
{
    int status;

    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0,
                  "the child ended with status 0x%x", status);
}

static void post(uint32_t place, uint32_t count)
{
    struct object_notice n;

    object_notice_begin(&n);
    expect(object_lock(&object, 0), SHD_OK);
    object_post(&object, place, count, &n);
    object_unlock(&object, 0);
    object_deliver(&object, &n);
}

/* ---- open -------------------------------------------------------------- */

START_TEST(an_object_is_filled_before_it_is_found)
{
    struct object o;
    bool created;
    uint64_t other = 43;
    struct object_spec spec = spec_of(&other);

    expect(object_open(&env, "thing", THING, &spec, &o, &created),
           SHD_OK);
    ck_assert(!created);
    ck_assert_uint_eq(*(uint64_t *)object_own(&o, 0, 8), 42);
    ck_assert_uint_eq(o.generation, object.generation);
    ck_assert_ptr_null(object_own(&o, 4996, 8));
    ck_assert_ptr_null(object_own(&o, 5001, 0));
    ck_assert_ptr_nonnull(object_own(&o, 4992, 8));
}
END_TEST

START_TEST(what_is_of_another_kind_or_not_there_is_not_opened)
{
    struct object o;

    expect(object_open(&env, "thing", SHD_OBJECT_QUEUE, NULL, &o, NULL),
           SHD_MISMATCH);
    expect_said("is a unknown, no queue");
    expect(object_open(&env, "nothing", THING, NULL, &o, NULL),
           SHD_NOTFOUND);
    expect(object_open(&env, "a/b", THING, NULL, &o, NULL),
           SHD_NAME);
}
END_TEST

START_TEST(a_damaged_header_opens_nothing)
{
    struct object_header kept = *object.header;
    struct object o;
    static const size_t words[] = {
        offsetof(struct object_header, generation),
        offsetof(struct object_header, kind),
        offsetof(struct object_header, places),
        offsetof(struct object_header, own_bytes),
        offsetof(struct object_header, bells_at)};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        ((unsigned char *)object.header)[words[i] + 3] ^= 0x5a;
        expect(object_open(&env, "thing", THING, NULL, &o, NULL),
               SHD_CORRUPT);
        *object.header = kept;
    }
    expect(object_open(&env, "thing", THING, NULL, &o, NULL),
           SHD_OK);
}
END_TEST

START_TEST(a_destroyed_object_is_gone_for_who_has_it_open)
{
    expect(object_destroy(&env, "thing"), SHD_OK);
    expect(object_lock(&object, 0), SHD_GONE);
    expect_said("unknown 'thing' has been destroyed");
    expect(object_destroy(&env, "thing"), SHD_NOTFOUND);
}
END_TEST

/* ---- waiting ----------------------------------------------------------- */

/* Sleeps at the place until *word is not 42 any more. */
static int wait_for_word(void)
{
    const uint64_t *word = object_own(&object, 0, 8);
    int slices = 0;

    for (;;) {
        uint32_t turn;
        int rc = object_lock(&object, 0);

        if (rc != SHD_OK)
            return rc;
        if (atomic_load64(word) != 42) {
            object_unlock(&object, 0);
            return slices;
        }
        turn = wait_arm(object_place(&object, 0));
        object_unlock(&object, 0);
        wait_sleep(object_place(&object, 0), turn, WAIT_NEVER);
        slices++;
    }
}

static void wait_until_armed(void)
{
    while (atomic_load32(&object_place(&object, 0)->armed) == 0)
        support_sleep_ms(1);
}

START_TEST(a_sleeper_is_woken_by_a_post)
{
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        become_worker();
        _exit(wait_for_word() >= 1 ? 0 : 3);
    }
    wait_until_armed();
    expect(object_lock(&object, 0), SHD_OK);
    atomic_store64(object_own(&object, 0, 8), 43);
    object_unlock(&object, 0);
    post(0, 1);
    expect_ended(pid);
}
END_TEST

START_TEST(many_that_wait_for_one_are_all_woken_in_the_end)
{
    pid_t pids[3];

    for (int i = 0; i < 3; i++) {
        pids[i] = fork();
        ck_assert_int_ge(pids[i], 0);
        if (pids[i] == 0) {
            become_worker();
            _exit(wait_for_word() >= 0 ? 0 : 3);
        }
    }
    wait_until_armed();
    expect(object_lock(&object, 0), SHD_OK);
    atomic_store64(object_own(&object, 0, 8), 43);
    object_unlock(&object, 0);
    post(0, WAIT_ALL);
    for (int i = 0; i < 3; i++)
        expect_ended(pids[i]);
}
END_TEST

START_TEST(destroying_wakes_who_waits)
{
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        become_worker();
        _exit(wait_for_word() == SHD_GONE ? 0 : 3);
    }
    wait_until_armed();
    expect(object_destroy(&env, "thing"), SHD_OK);
    expect_ended(pid);
}
END_TEST

START_TEST(a_slice_ends_a_sleep_that_nobody_ends)
{
    struct guard_wait *w = object_place(&object, 0);
    int64_t begin = support_now_ms();

    wait_sleep(w, wait_arm(w), WAIT_NEVER);
    ck_assert_int_ge(support_now_ms() - begin, WAIT_SLICE_MS - 20);
    /* Armed, and nobody there: the first wake finds that out. */
    post(0, 1);
    ck_assert_uint_eq(w->armed, 0);
}
END_TEST

START_TEST(who_armed_before_a_post_does_not_sleep)
{
    struct guard_wait *w = object_place(&object, 0);
    uint32_t turn = wait_arm(w);

    post(0, 1);
    ck_assert_uint_ne(atomic_load32(&w->turn), turn);
    turn = wait_arm(w);
    guard_kick(object_guard(&object, 0));
    ck_assert_uint_ne(atomic_load32(&w->turn), turn);
    ck_assert_uint_eq(w->armed, 0);
}
END_TEST

START_TEST(deadlines_are_checked)
{
    uint64_t until;

    expect(wait_deadline(-2, &until), SHD_INVAL);
    expect(wait_deadline(0, &until), SHD_OK);
    ck_assert_uint_eq(until, 0);
    expect(wait_deadline(SHD_FOREVER, &until), SHD_OK);
    ck_assert(until == WAIT_NEVER);
}
END_TEST

/* ---- bells ------------------------------------------------------------- */

static bool is_readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, ms) == 1;
}

static int armed_bell(void)
{
    int fd = -1;

    expect(doorbell_open(&env, &fd), SHD_OK);
    expect(object_lock(&object, 0), SHD_OK);
    expect(object_arm_bell(&object, 1), SHD_OK);
    object_unlock(&object, 0);
    return fd;
}

START_TEST(an_armed_bell_is_rung_once_by_another_process)
{
    int fd = armed_bell();
    pid_t pid;

    ck_assert(!is_readable(fd, 0));
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        become_worker();
        post(0, 1); /* another place */
        post(1, 1);
        post(1, 1);
        _exit(0);
    }
    ck_assert(is_readable(fd, 10000));
    expect_ended(pid);
    expect(doorbell_clear(fd), SHD_OK);
    ck_assert(!is_readable(fd, 0));
    ck_assert_uint_eq(object.header->belled[1], 0);
    post(1, WAIT_ALL);
    ck_assert(!is_readable(fd, 0));
    ck_assert_int_eq(close(fd), 0);
}
END_TEST

START_TEST(a_full_bell_and_a_dead_workers_hold_up_nobody)
{
    int fd = armed_bell();
    uint32_t index = registry_index(env.incarnation);

    for (int i = 0; i < 5000; i++)
        doorbell_ring(&env, index);
    ck_assert(is_readable(fd, 0));
    expect(doorbell_clear(fd), SHD_OK);
    ck_assert(!is_readable(fd, 0));
    ck_assert_int_eq(close(fd), 0);
    doorbell_ring(&env, index); /* nobody listens any more */
    doorbell_ring(&env, 77);    /* no such slot */
    post(1, 1);
}
END_TEST

START_TEST(one_of_two_armed_bells_rings_for_one)
{
    int fd = armed_bell();
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        become_worker();
        close(fd);
        fd = armed_bell();
        raise(SIGSTOP);
        _exit(is_readable(fd, 0) ? 1 : 0);
    }
    support_wait_stopped(pid);
    post(1, 1);
    kill(pid, SIGCONT);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(is_readable(fd, 0) + WEXITSTATUS(status), 1);
    ck_assert_uint_eq(object.header->belled[1], 1);
    post(1, WAIT_ALL);
    ck_assert_uint_eq(object.header->belled[1], 0);
    close(fd);
}
END_TEST

START_TEST(a_reap_rings_every_bell)
{
    int fd = armed_bell();

    expect(object_reap_all(&env), SHD_OK);
    ck_assert(is_readable(fd, 0));
    close(fd);
}
END_TEST

/* ---- kinds ------------------------------------------------------------- */

START_TEST(kinds_have_names)
{
    ck_assert_str_eq(object_kind_name(SHD_OBJECT_DICT), "dict");
    ck_assert_str_eq(object_kind_name(SHD_OBJECT_LEADER), "leader");
    ck_assert_str_eq(object_kind_name(0), "unknown");
    ck_assert_str_eq(object_kind_name(1000), "unknown");
    ck_assert_ptr_null(object_kind(SHD_OBJECT_DICT));
}
END_TEST

static TCase *new_case(Suite *suite, const char *name)
{
    TCase *c = tcase_create(name);

    suite_add_tcase(suite, c);
    tcase_add_checked_fixture(c, set_up, tear_down);
    return c;
}

int main(void)
{
    Suite *suite = suite_create("object");
    TCase *c = new_case(suite, "open");

    support_names("object");
    tcase_add_test(c, an_object_is_filled_before_it_is_found);
    tcase_add_test(c, what_is_of_another_kind_or_not_there_is_not_opened);
    tcase_add_test(c, a_damaged_header_opens_nothing);
    tcase_add_test(c, a_destroyed_object_is_gone_for_who_has_it_open);
    c = new_case(suite, "wait");
    tcase_add_test(c, a_sleeper_is_woken_by_a_post);
    tcase_add_test(c, many_that_wait_for_one_are_all_woken_in_the_end);
    tcase_add_test(c, destroying_wakes_who_waits);
    tcase_add_test(c, a_slice_ends_a_sleep_that_nobody_ends);
    tcase_add_test(c, who_armed_before_a_post_does_not_sleep);
    tcase_add_test(c, deadlines_are_checked);
    c = new_case(suite, "bell");
    tcase_add_test(c, an_armed_bell_is_rung_once_by_another_process);
    tcase_add_test(c, a_full_bell_and_a_dead_workers_hold_up_nobody);
    tcase_add_test(c, one_of_two_armed_bells_rings_for_one);
    tcase_add_test(c, a_reap_rings_every_bell);
    c = new_case(suite, "kinds");
    tcase_add_test(c, kinds_have_names);
    return support_run(suite);
}
