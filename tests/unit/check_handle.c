/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite handle: shm/api/handle.c, api/segment.c and api/worker.c, through the
 * public functions. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "shm/api/handle.h"
#include "shm/guard/txn.h"
#include "tests/unit/support.h"

#define NAME support_name
#define OTHER support_other

static shd_segment *segment;
static struct shd_segment_options options;

static void set_up(void)
{
    (void)unlink(support_file);
    (void)unlink(support_other_file);
    unsetenv("SHDICT_WORKER");
    unsetenv("SHDICT_GENERATION");
    options = support_options();
    expect(shd_segment_create(NAME, &options, &segment), SHD_OK);
}

static void tear_down(void)
{
    (void)unlink(support_file);
    (void)unlink(support_other_file);
}

static struct shd_worker_info worker(shd_segment *s, uint32_t index)
{
    struct shd_worker_info info = {.struct_size = sizeof(info)};

    expect(shd_worker_info(s, index, &info), SHD_OK);
    return info;
}

static struct shd_segment_info info_of(shd_segment *s)
{
    struct shd_segment_info info = {.struct_size = sizeof(info)};

    expect(shd_segment_info(s, &info), SHD_OK);
    return info;
}

static shd_dict *open_dict(shd_segment *s)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = 65536};
    shd_dict *dict = NULL;

    expect(shd_dict_open(s, "pages", &o, &dict), SHD_OK);
    return dict;
}

static shd_segment *attach_readonly(void)
{
    struct shd_segment_options o = options;
    shd_segment *r = NULL;

    o.flags = SHD_ATTACH_READONLY;
    expect(shd_segment_attach(NAME, &o, &r), SHD_OK);
    return r;
}

static void expect_clean(shd_segment *s)
{
    char report[256];
    int rc = shd_segment_check(s, report, sizeof(report));

    ck_assert_msg(rc == SHD_OK, "%s: %s", shd_strerror_name(rc), report);
    ck_assert_str_eq(report, "");
}

/* ---- attach and close ------------------------------------------------- */

START_TEST(the_version_is_that_of_the_header)
{
    char text[32];

    snprintf(text, sizeof(text), "%d.%d.%d", SHD_VERSION_MAJOR,
             SHD_VERSION_MINOR, SHD_VERSION_PATCH);
    ck_assert_str_eq(shd_version(), text);
}
END_TEST

START_TEST(attaching_twice_gives_the_same_handle_with_two_closes)
{
    shd_segment *again;

    expect(shd_segment_attach(NAME, NULL, &again), SHD_OK);
    ck_assert_ptr_eq(again, segment);
    /* By whatever name. */
    expect(shd_segment_attach(support_file, NULL, &again), SHD_OK);
    ck_assert_ptr_eq(again, segment);
    expect(shd_segment_close(segment), SHD_OK);
    expect(shd_segment_close(segment), SHD_OK);
    info_of(segment);
    expect(shd_segment_close(segment), SHD_OK);
    expect(shd_segment_close(segment), SHD_CLOSED);
}
END_TEST

START_TEST(a_closed_handle_answers_closed_everywhere)
{
    struct shd_segment_info info = {.struct_size = sizeof(info)};
    struct shd_object_info object = {.struct_size = sizeof(object)};
    struct shd_worker_info w = {.struct_size = sizeof(w)};
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = 65536};
    shd_dict *dict = open_dict(segment), *other;
    struct shd_value v;
    char report[64];

    expect(shd_segment_close(segment), SHD_OK);
    expect(shd_segment_close(segment), SHD_CLOSED);
    expect(shd_segment_fd(segment), SHD_CLOSED);
    expect(shd_segment_info(segment, &info), SHD_CLOSED);
    expect(shd_segment_check(segment, report, sizeof(report)), SHD_CLOSED);
    expect(shd_object_info(segment, 0, &object), SHD_CLOSED);
    expect(shd_worker_join(segment, NULL), SHD_CLOSED);
    expect(shd_worker_info(segment, 0, &w), SHD_CLOSED);
    expect(shd_reap(segment, NULL), SHD_CLOSED);
    expect(shd_worker_leave(segment), SHD_CLOSED);
    expect(shd_dict_open(segment, "pages", &o, &other), SHD_CLOSED);
    expect(shd_dict_destroy(segment, "pages"), SHD_CLOSED);
    expect(shd_get(dict, "k", 1, NULL, 0, &v), SHD_CLOSED);
    expect(shd_set(dict, "k", 1, "v", 1, 0), SHD_CLOSED);
    expect_said("closed");
}
END_TEST

START_TEST(no_handle_is_invalid_everywhere)
{
    struct shd_segment_info info = {.struct_size = sizeof(info)};
    struct shd_worker_info w = {.struct_size = sizeof(w)};
    char report[64];

    expect(shd_segment_close(NULL), SHD_INVAL);
    expect(shd_segment_fd(NULL), SHD_INVAL);
    expect(shd_segment_info(NULL, &info), SHD_INVAL);
    expect(shd_segment_check(NULL, report, sizeof(report)), SHD_INVAL);
    expect(shd_worker_join(NULL, NULL), SHD_INVAL);
    expect(shd_worker_info(NULL, 0, &w), SHD_INVAL);
    expect(shd_reap(NULL, NULL), SHD_INVAL);
    expect(shd_worker_leave(NULL), SHD_INVAL);
    expect(shd_segment_create(OTHER, NULL, NULL), SHD_INVAL);
    expect(shd_segment_attach(NAME, NULL, NULL), SHD_INVAL);
    expect(shd_segment_open(NAME, NULL, NULL), SHD_INVAL);
}
END_TEST

START_TEST(structs_of_another_size_are_refused)
{
    struct shd_segment_info info = {.struct_size = 8};
    struct shd_worker_info w = {.struct_size = 0};
    struct shd_object_info object = {.struct_size = 4096};

    expect(shd_segment_info(segment, &info), SHD_INVAL);
    expect_said("struct_size");
    expect(shd_segment_info(segment, NULL), SHD_INVAL);
    expect(shd_worker_info(segment, 0, &w), SHD_INVAL);
    expect(shd_object_info(segment, 0, &object), SHD_INVAL);
    expect(shd_segment_check(segment, NULL, 10), SHD_INVAL);
}
END_TEST

START_TEST(a_closed_handle_is_revived_with_everything_in_it)
{
    unsigned char *old_base = segment->segment.base;
    shd_dict *dict = open_dict(segment);
    shd_segment *again;
    struct shd_value v;
    char buf[8];
    void *in_the_way;

    expect(shd_set(dict, "k", 1, "value", 5, 0), SHD_OK);
    expect(shd_segment_close(segment), SHD_OK);
    /* The next mapping must not come to lie where the last one was. */
    in_the_way =
        mmap(old_base, 4096, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    ck_assert_ptr_eq(in_the_way, old_base);
    expect(shd_segment_attach(NAME, NULL, &again), SHD_OK);
    ck_assert_ptr_eq(again, segment);
    ck_assert_ptr_ne(again->segment.base, old_base);
    /* The dict's handle stays closed until it is opened. */
    expect(shd_get(dict, "k", 1, buf, sizeof(buf), &v), SHD_CLOSED);
    dict = open_dict(again);
    expect(shd_get(dict, "k", 1, buf, sizeof(buf), &v), SHD_OK);
    ck_assert_int_eq(memcmp(buf, "value", 5), 0);
    expect(shd_set(dict, "k", 1, "other", 5, 0), SHD_OK);
    expect_clean(again);
}
END_TEST

START_TEST(closed_handles_are_kept_apart_but_not_for_ever)
{
    static shd_segment *seen[HANDLE_CLOSED_MAX + 100];
    uint32_t distinct = 0;

    for (uint32_t i = 0; i < HANDLE_CLOSED_MAX + 100; i++) {
        shd_segment *s;
        uint32_t j = 0;

        expect(shd_segment_create(NULL, &options, &s), SHD_OK);
        while (j < distinct && seen[j] != s)
            j++;
        if (j == distinct)
            seen[distinct++] = s;
        expect(shd_segment_close(s), SHD_OK);
        expect(shd_segment_close(s), SHD_CLOSED);
    }
    ck_assert_uint_ge(distinct, HANDLE_CLOSED_MAX);
    ck_assert_uint_le(distinct, HANDLE_CLOSED_MAX + 1);
    info_of(segment);
}
END_TEST

START_TEST(open_attaches_or_creates)
{
    struct shd_segment_options o = options;
    shd_segment *a, *b;

    expect(shd_segment_open(NAME, &options, &a), SHD_OK);
    ck_assert_ptr_eq(a, segment);
    o.flags = SHD_ATTACH_READONLY;
    expect(shd_segment_open(OTHER, &o, &b), SHD_NOTFOUND);
    expect(shd_segment_open("fd:98765", &options, &b), SHD_NOTFOUND);
    expect(shd_segment_open(NULL, &options, &b), SHD_NAME);
    expect(shd_segment_open("a/b", &options, &b), SHD_NAME);
    expect(shd_segment_open(OTHER, &options, &b), SHD_OK);
    ck_assert_ptr_ne(a, b);
    expect(shd_segment_create(OTHER, &options, &b), SHD_EXISTS);
}
END_TEST

START_TEST(all_that_race_to_open_get_the_same_segment)
{
    for (int round = 0; round < 20; round++) {
        uint64_t seeds[4];
        int pipes[2];
        pid_t child[4];

        ck_assert_int_eq(pipe(pipes), 0);
        for (int i = 0; i < 4; i++) {
            child[i] = fork();
            ck_assert_int_ge(child[i], 0);
            if (child[i] == 0) {
                uint64_t seed = 0;
                shd_segment *s;

                if (shd_segment_open(OTHER, &options, &s) == SHD_OK)
                    seed = s->segment.hash_seed;
                _exit(write(pipes[1], &seed, 8) != 8);
            }
        }
        for (int i = 0; i < 4; i++) {
            ck_assert_int_eq(waitpid(child[i], NULL, 0), child[i]);
            ck_assert_int_eq(read(pipes[0], &seeds[i], 8), 8);
            ck_assert_uint_ne(seeds[i], 0);
            ck_assert_uint_eq(seeds[i], seeds[0]);
        }
        close(pipes[0]);
        close(pipes[1]);
        expect(shd_segment_destroy(OTHER), SHD_OK);
    }
}
END_TEST

START_TEST(a_destroyed_segment_goes_on_for_those_who_have_it)
{
    shd_segment *other;

    expect(shd_segment_destroy(NAME), SHD_OK);
    expect(shd_segment_attach(NAME, &options, &other), SHD_NOTFOUND);
    expect(shd_worker_join(segment, NULL), SHD_OK);
    expect(shd_segment_create(NAME, &options, &other), SHD_OK);
    ck_assert_ptr_ne(other, segment);
    expect_clean(segment);
}
END_TEST

START_TEST(a_read_only_handle_reads_and_changes_nothing)
{
    shd_dict *dict = open_dict(segment);
    shd_segment *r;
    struct shd_value v;
    shd_dict *d;
    char buf[8];

    expect(shd_set(dict, "k", 1, "value", 5, 0), SHD_OK);
    r = attach_readonly();
    ck_assert_ptr_ne(r, segment);
    ck_assert_uint_eq(info_of(r).readonly, 1);
    ck_assert_uint_eq(info_of(segment).readonly, 0);
    expect(shd_worker_join(r, NULL), SHD_READONLY);
    expect(shd_reap(r, NULL), SHD_READONLY);
    expect(shd_dict_destroy(r, "pages"), SHD_READONLY);
    expect(shd_dict_open(r, "pages", NULL, &d), SHD_OK);
    expect(shd_get(d, "k", 1, buf, sizeof(buf), &v), SHD_OK);
    expect(shd_set(d, "k", 1, "value", 5, 0), SHD_READONLY);
    worker(r, 0);
    expect_clean(r);
}
END_TEST

START_TEST(info_tells_what_the_segment_is)
{
    struct shd_segment_info info = info_of(segment);

    ck_assert_str_eq(info.path, support_file);
    ck_assert_uint_eq(info.layout_version, SEGMENT_LAYOUT_VERSION);
    ck_assert_uint_eq(info.size_bytes, segment->segment.size);
    ck_assert_uint_eq(info.workers_max, 4);
    ck_assert_uint_eq(info.objects_max, 6);
    ck_assert_uint_eq(info.locks_max, 12);
    ck_assert_uint_eq(info.incarnations, 0);
    ck_assert_uint_gt(info.committed_bytes, 4096);
    ck_assert_uint_gt(info.created_ms, 1700000000000ull);
    ck_assert_uint_gt(info.creator_pid_namespace, 0);
    expect(shd_worker_join(segment, NULL), SHD_OK);
    ck_assert_uint_eq(info_of(segment).incarnations, 1);
}
END_TEST

START_TEST(objects_are_listed_by_slot)
{
    struct shd_object_info object = {.struct_size = sizeof(object)};

    expect(shd_object_info(segment, 0, &object), SHD_NOTFOUND);
    open_dict(segment);
    expect(shd_object_info(segment, 0, &object), SHD_OK);
    ck_assert_str_eq(object.name, "pages");
    ck_assert_uint_eq(object.kind, SHD_OBJECT_DICT);
    ck_assert_uint_eq(object.size_bytes, 65536);
    ck_assert_uint_eq(object.generation, 1);
    expect(shd_object_info(segment, 6, &object), SHD_INVAL);
}
END_TEST

START_TEST(the_bound_of_waits_is_the_callers)
{
    shd_segment *other;

    ck_assert_uint_eq(segment->env.wait_ms, 2000);
    options.wait_ms = 70;
    expect(shd_segment_create(OTHER, &options, &other), SHD_OK);
    ck_assert_uint_eq(other->env.wait_ms, 70);
}
END_TEST

START_TEST(the_shared_descriptor_carries_no_life)
{
    shd_segment *again;
    char name[20];
    int fd = shd_segment_fd(segment);
    pid_t child;
    int status;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(shd_segment_fd(segment), fd);
    ck_assert_int_ne(fd, segment->segment.fd);
    ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    snprintf(name, sizeof(name), "fd:%d", fd);
    expect(shd_segment_attach(name, NULL, &again), SHD_OK);
    ck_assert_ptr_eq(again, segment);
    expect(shd_worker_join(segment, NULL), SHD_OK);
    /* A lock through it meets the process's own. */
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct flock l = {.l_type = F_WRLCK,
                          .l_whence = SEEK_SET,
                          .l_start = 1ll << 40,
                          .l_len = 1};

        _exit(fcntl(fd, F_OFD_SETLK, &l) == -1 && errno == EAGAIN ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

/* ---- workers ---------------------------------------------------------- */

START_TEST(the_first_change_registers_and_reads_do_not)
{
    struct shd_worker_info w = {.struct_size = sizeof(w)};
    struct shd_value v;
    shd_dict *dict = open_dict(segment);

    expect(shd_worker_leave(segment), SHD_OK);
    expect(shd_get(dict, "k", 1, NULL, 0, &v), SHD_NOTFOUND);
    expect(shd_worker_info(segment, 0, &w), SHD_NOTFOUND);
    expect(shd_worker_leave(segment), SHD_OK);
    expect(shd_set(dict, "k", 1, "v", 1, 0), SHD_OK);
    ck_assert_int_eq((pid_t)worker(segment, 0).pid, getpid());
    expect(shd_worker_leave(segment), SHD_OK);
    expect(shd_worker_info(segment, 0, &w), SHD_NOTFOUND);
    expect(shd_worker_info(segment, 4, &w), SHD_INVAL);
}
END_TEST

START_TEST(joining_twice_is_joining_once)
{
    uint64_t first = 0, second = 0;

    expect(shd_worker_join(segment, &first), SHD_OK);
    expect(shd_worker_join(segment, &second), SHD_OK);
    ck_assert_uint_eq(first, second);
    ck_assert_uint_eq(info_of(segment).incarnations, 1);
    expect(shd_worker_leave(segment), SHD_OK);
    expect(shd_worker_join(segment, &second), SHD_OK);
    ck_assert_uint_gt(second >> 16, first >> 16);
}
END_TEST

START_TEST(the_last_close_frees_the_slot)
{
    struct shd_worker_info w = {.struct_size = sizeof(w)};
    shd_segment *r = attach_readonly();

    expect(shd_worker_join(segment, NULL), SHD_OK);
    worker(r, 0);
    expect(shd_segment_close(segment), SHD_OK);
    expect(shd_worker_info(r, 0, &w), SHD_NOTFOUND);
    ck_assert_uint_eq(info_of(r).deaths, 0);
}
END_TEST

START_TEST(a_worker_says_what_its_options_say)
{
    struct shd_segment_options o = options;
    struct shd_worker_info w;
    shd_segment *s;

    setenv("SHDICT_WORKER", "9", 1);
    o.worker_id = 5;
    o.generation = 2;
    o.worker_name = "exactly thirty-one bytes long, ";
    expect(shd_segment_create(OTHER, &o, &s), SHD_OK);
    expect(shd_worker_join(s, NULL), SHD_OK);
    w = worker(s, 0);
    ck_assert_int_eq(w.worker_id, 5);
    ck_assert_uint_eq(w.generation, 2);
    ck_assert_str_eq(w.name, "exactly thirty-one bytes long, ");
    ck_assert_uint_eq(w.state, SHD_WORKER_ALIVE);
    ck_assert_uint_eq(w.locks_held, 0);
}
END_TEST

static const struct {
    const char *id, *generation;
    int32_t want_id;
    uint32_t want_generation;
} environments[] = {
    {NULL, NULL, -1, 0},
    {"0", "7", 0, 7},
    {"2147483647", "4294967295", 2147483647, 4294967295u},
    {"2147483648", "4294967296", -1, 0},
    {"", "", -1, 0},
    {"3x", " 3", -1, 0},
    {"-3", "-3", -1, 0},
};

START_TEST(a_worker_says_what_its_environment_says)
{
    shd_segment *s;

    if (environments[_i].id != NULL) {
        setenv("SHDICT_WORKER", environments[_i].id, 1);
        setenv("SHDICT_GENERATION", environments[_i].generation, 1);
    }
    expect(shd_segment_create(OTHER, &options, &s), SHD_OK);
    expect(shd_worker_join(s, NULL), SHD_OK);
    ck_assert_int_eq(worker(s, 0).worker_id, environments[_i].want_id);
    ck_assert_uint_eq(worker(s, 0).generation,
                      environments[_i].want_generation);
    ck_assert_str_eq(worker(s, 0).name, program_invocation_short_name);
}
END_TEST

static pthread_barrier_t barrier;

static void *join_together(void *out)
{
    pthread_barrier_wait(&barrier);
    return shd_worker_join(segment, out) == SHD_OK ? NULL : "failed";
}

START_TEST(threads_that_change_first_together_are_one_worker)
{
    uint64_t incarnation[8] = {0};
    pthread_t thread[8];
    void *result;

    pthread_barrier_init(&barrier, NULL, 8);
    for (int i = 0; i < 8; i++)
        ck_assert_int_eq(
            pthread_create(&thread[i], NULL, join_together, &incarnation[i]),
            0);
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(pthread_join(thread[i], &result), 0);
        ck_assert_ptr_null(result);
        ck_assert_uint_eq(incarnation[i], 0x10000);
    }
    ck_assert_uint_eq(info_of(segment).incarnations, 1);
}
END_TEST

/* ---- fork ------------------------------------------------------------- */

static bool registered_enough;

static void *register_again(void *failed)
{
    for (int i = 0; i < 5000; i++) {
        uint64_t incarnation;

        if (shd_worker_join(segment, &incarnation) != SHD_OK)
            *(bool *)failed = true;
        support_sleep_ms(0);
        if (shd_worker_leave(segment) != SHD_OK)
            *(bool *)failed = true;
    }
    __atomic_store_n(&registered_enough, true, __ATOMIC_RELEASE);
    return NULL;
}

START_TEST(a_reap_spares_its_own_process_while_it_registers)
{
    bool failed = false;
    pthread_t thread;
    uint32_t reaped;

    registered_enough = false;
    ck_assert_int_eq(pthread_create(&thread, NULL, register_again, &failed),
                     0);
    while (!__atomic_load_n(&registered_enough, __ATOMIC_ACQUIRE)) {
        expect(shd_reap(segment, &reaped), SHD_OK);
        ck_assert_uint_eq(reaped, 0);
    }
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert(!failed);
    ck_assert_uint_eq(info_of(segment).deaths, 0);
}
END_TEST

START_TEST(a_forked_child_is_a_worker_of_its_own)
{
    shd_dict *dict = open_dict(segment);
    struct shd_worker_info mine, childs;
    uint32_t n;
    pid_t child;

    expect(shd_worker_join(segment, NULL), SHD_OK);
    mine = worker(segment, 0);
    dying_child(child, {
        if (segment->env.incarnation != 0 ||
            shd_set(dict, "child", 5, "v", 1, 0) != SHD_OK)
            _exit(1);
        raise(SIGSTOP);
    });
    support_wait_stopped(child);
    childs = worker(segment, 1);
    ck_assert_int_eq((pid_t)childs.pid, child);
    ck_assert_uint_ne(childs.incarnation, mine.incarnation);
    ck_assert_uint_eq(childs.state, SHD_WORKER_ALIVE);
    ck_assert_uint_eq(worker(segment, 0).incarnation, mine.incarnation);
    support_kill(child);
    ck_assert_uint_eq(worker(segment, 1).state, SHD_WORKER_DEAD);
    ck_assert_uint_eq(worker(segment, 0).state, SHD_WORKER_ALIVE);
    expect(shd_reap(segment, &n), SHD_OK);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(info_of(segment).deaths, 1);
    expect(shd_worker_leave(segment), SHD_OK);
}
END_TEST

START_TEST(a_forked_child_that_registers_frees_the_slots_of_the_dead)
{
    pid_t child;

    dying_child(child, {
        if (shd_worker_join(segment, NULL) != SHD_OK)
            _exit(1);
    });
    support_wait_killed(child);
    /* Who is no child of a fork leaves that to others. */
    expect(shd_worker_join(segment, NULL), SHD_OK);
    ck_assert_uint_eq(worker(segment, 0).state, SHD_WORKER_DEAD);
    dying_child(child, {
        if (shd_worker_join(segment, NULL) != SHD_OK)
            _exit(1);
        raise(SIGSTOP);
    });
    support_wait_stopped(child);
    ck_assert_uint_eq(info_of(segment).deaths, 1);
    struct shd_worker_info info = {.struct_size = sizeof(info)};
    expect(shd_worker_info(segment, 0, &info), SHD_NOTFOUND);
    ck_assert_uint_eq(worker(segment, 1).state, SHD_WORKER_ALIVE);
    ck_assert_uint_eq(worker(segment, 2).state, SHD_WORKER_ALIVE);
    support_kill(child);
    expect_clean(segment);
}
END_TEST

START_TEST(what_is_held_is_attached_without_opening_it)
{
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .flags = SHD_ATTACH_HELD};
    shd_segment *again = NULL, *other = NULL;
    int status;
    pid_t child;

    expect(shd_segment_attach(OTHER, &o, &again), SHD_NOTFOUND);
    expect_said("does not hold");
    expect(shd_segment_attach("fd:0", &o, &again), SHD_NAME);
    expect(shd_segment_create(OTHER, &o, &again), SHD_INVAL);
    expect(shd_segment_open(OTHER, &o, &again), SHD_NOTFOUND);
    o.flags |= SHD_ATTACH_READONLY;
    expect(shd_segment_attach(NAME, &o, &again), SHD_INVAL);
    o.flags = SHD_ATTACH_HELD;

    /* Also by a child that may not open the file any more. */
    child = fork();
    if (child == 0) {
        if (chmod(support_file, 0) != 0)
            _exit(1);
        if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _exit(2);
        if (shd_segment_attach(NAME, NULL, &again) != SHD_PERM)
            _exit(3);
        if (shd_segment_attach(NAME, &o, &again) != SHD_OK ||
            again != segment ||
            shd_set(open_dict(again), "k", 1, "v", 1, 0) != SHD_OK)
            _exit(4);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);

    /* The name may be another's by now: what is held stays what it is. */
    expect(shd_segment_destroy(NAME), SHD_OK);
    expect(shd_segment_attach(NAME, &o, &again), SHD_OK);
    ck_assert_ptr_eq(again, segment);
    expect(shd_segment_close(again), SHD_OK);
    expect(shd_segment_close(segment), SHD_OK);
    expect(shd_segment_attach(NAME, &o, &other), SHD_NOTFOUND);
}
END_TEST

START_TEST(a_dead_parent_is_not_kept_alive_by_its_children)
{
    int ready[2];
    pid_t parent, child;
    uint32_t n;

    ck_assert_int_eq(pipe(ready), 0);
    dying_child(parent, {
        if (shd_worker_join(segment, NULL) != SHD_OK ||
            shd_segment_fd(segment) < 0)
            _exit(1);
        child = fork();
        if (child == 0) {
            /* One that never touches the segment, and has the mapping and
             * every descriptor all the same. */
            child = getpid();
            if (write(ready[1], &child, sizeof(child)) != sizeof(child))
                _exit(1);
            for (;;)
                pause();
        }
        waitpid(child, NULL, 0);
    });
    ck_assert_int_eq(read(ready[0], &child, sizeof(child)), sizeof(child));
    ck_assert_uint_eq(worker(segment, 0).state, SHD_WORKER_ALIVE);
    support_kill(parent);
    ck_assert_uint_eq(worker(segment, 0).state, SHD_WORKER_DEAD);
    expect(shd_reap(segment, &n), SHD_OK);
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(kill(child, SIGKILL), 0);
}
END_TEST

START_TEST(a_child_that_closes_does_not_end_its_parents_registration)
{
    int status;
    pid_t child;

    expect(shd_worker_join(segment, NULL), SHD_OK);
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        _exit(shd_segment_close(segment) == SHD_OK ? 0 : 1);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_uint_eq(worker(segment, 0).state, SHD_WORKER_ALIVE);
    ck_assert_int_eq(
        segment_liveness_is_locked(&attach_readonly()->segment, 0), 1);
}
END_TEST

static uint32_t stop;

static void *join_and_leave(void *unused)
{
    (void)unused;
    while (!atomic_load32(&stop))
        if (shd_worker_join(segment, NULL) != SHD_OK ||
            shd_worker_leave(segment) != SHD_OK)
            return "failed";
    return NULL;
}

START_TEST(forking_while_other_threads_register_is_safe)
{
    pthread_t thread;
    void *result;
    int status;

    ck_assert_int_eq(pthread_create(&thread, NULL, join_and_leave, NULL), 0);
    for (int i = 0; i < 100; i++) {
        pid_t child = fork();

        ck_assert_int_ge(child, 0);
        if (child == 0) {
            alarm(20);
            if (segment->env.incarnation != 0)
                _exit(1);
            _exit(shd_worker_join(segment, NULL) == SHD_OK ? 0 : 2);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_msg(status == 0, "child %d: 0x%x", i, status);
    }
    atomic_store32(&stop, 1);
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_ptr_null(result);
    expect_clean(segment);
}
END_TEST

START_TEST(a_child_without_descriptors_reads_and_says_why_it_cannot_write)
{
    shd_dict *dict = open_dict(segment);
    struct rlimit limit;
    int status;
    pid_t child;

    expect(shd_set(dict, "k", 1, "v", 1, 0), SHD_OK);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = 3;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    child = fork();
    if (child == 0) {
        struct shd_value v;
        char buf[4];

        if (shd_get(dict, "k", 1, buf, sizeof(buf), &v) != SHD_OK)
            _exit(1);
        if (shd_set(dict, "k", 1, "w", 1, 0) != SHD_SYS ||
            strstr(shd_last_error(), "after fork") == NULL)
            _exit(2);
        _exit(0);
    }
    limit.rlim_cur = before;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_int_ge(child, 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(status == 0, "the child ended with 0x%x", status);
}
END_TEST

/* ---- reap and check --------------------------------------------------- */

/* The worker holds that many of one object, and nothing of any other. */
static void expect_hold(uint64_t incarnation, uint32_t index, uint64_t count,
                        const char *object)
{
    struct shd_hold hold = {.struct_size = sizeof(hold)};

    for (uint32_t i = 0; i <= 6; i++) {
        if (i != index) {
            expect(shd_worker_hold(segment, incarnation, i, &hold),
                   SHD_NOTFOUND);
            continue;
        }
        expect(shd_worker_hold(segment, incarnation, i, &hold), SHD_OK);
        ck_assert_uint_eq(hold.count, count);
        ck_assert_uint_eq(hold.kind, SHD_OBJECT_DICT);
        ck_assert_str_eq(hold.object, object);
    }
    expect(shd_worker_hold(segment, incarnation, 7, &hold), SHD_INVAL);
    expect(shd_worker_hold(segment, 0, 0, &hold), SHD_INVAL);
}

START_TEST(held_locks_are_counted_and_a_reap_recovers_them)
{
    shd_dict *dict = open_dict(segment);
    uint32_t n;
    pid_t child;

    (void)dict;
    dying_child(child, {
        struct guard *g = guard_at(&segment->segment, GUARD_FIRST_OBJECT);
        struct txn t;

        if (shd_worker_join(segment, NULL) != SHD_OK ||
            guard_lock(&segment->env, g) != SHD_OK)
            _exit(1);
        txn_begin(&t, &segment->segment, g, 1);
        raise(SIGSTOP);
    });
    support_wait_stopped(child);
    ck_assert_uint_eq(worker(segment, 1).locks_held, 1);
    ck_assert_uint_eq(worker(segment, 0).locks_held, 0);
    expect_hold(worker(segment, 1).incarnation, 1, 1, "pages");
    /* Its lock is not to be had, so it is passed over. */
    support_kill(child);
    ck_assert_uint_eq(worker(segment, 1).state, SHD_WORKER_DEAD);
    expect(shd_reap(segment, &n), SHD_OK);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(info_of(segment).recoveries, 1);
    expect_clean(segment);
}
END_TEST

START_TEST(a_reap_finishes_what_a_dead_process_was_destroying)
{
    struct shd_object_info object = {.struct_size = sizeof(object)};
    struct catalogue_object *slot;
    uint64_t before = info_of(segment).committed_bytes;

    open_dict(segment);
    slot = segment_at(&segment->segment, segment->segment.catalogue_at,
                      sizeof(*slot));
    slot->state = CATALOGUE_DYING; /* all that the dead one got done */
    expect(shd_object_info(segment, 0, &object), SHD_NOTFOUND);
    expect(shd_reap(segment, NULL), SHD_OK);
    ck_assert_uint_eq(slot->state, CATALOGUE_FREE);
    /* Its lock and its counters stay for the next object. */
    ck_assert_uint_eq(info_of(segment).committed_bytes,
                      before + SEGMENT_GUARD_BYTES + SEGMENT_COUNTERS_BYTES);
    expect_clean(segment);
}
END_TEST

START_TEST(check_is_clean_beside_a_working_segment)
{
    shd_segment *r = attach_readonly();
    shd_dict *dict = open_dict(segment);
    char key[16];

    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        expect(shd_set(dict, key, strlen(key), key, sizeof(key), 0), SHD_OK);
    }
    expect_clean(segment);
    expect_clean(r);
}
END_TEST

static void damage_header(void)
{
    segment_header(&segment->segment)->locks_max = 13;
}
static void damage_catalogue(void)
{
    struct catalogue_object *slot =
        segment_at(&segment->segment, segment->segment.catalogue_at, 128);

    slot->extent_at = 4096;
}
static void damage_registry(void)
{
    struct registry_slot *slot =
        segment_at(&segment->segment, segment->segment.workers_at, 128);

    slot->incarnation = 5;
}
static void damage_log(void)
{
    guard_at(&segment->segment, GUARD_FIRST_OBJECT)->damaged = 1;
}
static void damage_state(void)
{
    guard_at(&segment->segment, GUARD_CATALOGUE)->state = 1;
}
static void damage_dict(void)
{
    struct catalogue_object *slot =
        segment_at(&segment->segment, segment->segment.catalogue_at, 128);
    struct dict_header *h =
        segment_at(&segment->segment, slot->extent_at, sizeof(*h));

    h->shards_at = 0;
}

static const struct {
    void (*damage)(void);
    const char *says;
} damages[] = {
    {damage_header, "header:"},
    {damage_catalogue, "catalogue: slot 0: extent"},
    {damage_registry, "registry: slot 0"},
    {damage_log, "lock 2: guard: its log was found damaged"},
    {damage_state, "lock 1: guard: its log is not empty"},
    {damage_dict, "dict"},
};

START_TEST(check_names_damage_on_every_floor)
{
    char report[256];
    int rc;

    open_dict(segment);
    damages[_i].damage();
    rc = shd_segment_check(segment, report, sizeof(report));
    ck_assert_msg(rc == SHD_CORRUPT, "%s", shd_strerror_name(rc));
    ck_assert_msg(strstr(report, damages[_i].says) != NULL, "%s", report);
    expect_said(report);
}
END_TEST

START_TEST(a_read_only_check_sees_past_a_dead_writers_open_work)
{
    shd_segment *r = attach_readonly();
    char report[256];
    pid_t child;

    open_dict(segment);
    dying_child(child, {
        struct guard *g = guard_at(&segment->segment, GUARD_FIRST_OBJECT);
        struct txn t;

        if (guard_lock(&segment->env, g) != SHD_OK)
            _exit(1);
        txn_begin(&t, &segment->segment, g, 1);
    });
    support_wait_killed(child);
    expect_clean(r);
    ck_assert_uint_eq(
        guard_at(&segment->segment, GUARD_FIRST_OBJECT)->seq & 1, 1);
    /* The writer's check recovers as any locker would. */
    expect_clean(segment);
    expect_clean(r);
    guard_at(&segment->segment, GUARD_FIRST_OBJECT)->damaged = 1;
    expect(shd_segment_check(r, report, sizeof(report)), SHD_CORRUPT);
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

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static void add_attach_cases(TCase *c)
{
    tcase_add_test(c, the_version_is_that_of_the_header);
    tcase_add_test(c, attaching_twice_gives_the_same_handle_with_two_closes);
    tcase_add_test(c, a_closed_handle_answers_closed_everywhere);
    tcase_add_test(c, no_handle_is_invalid_everywhere);
    tcase_add_test(c, structs_of_another_size_are_refused);
    tcase_add_test(c, a_closed_handle_is_revived_with_everything_in_it);
    tcase_add_test(c, closed_handles_are_kept_apart_but_not_for_ever);
    tcase_add_test(c, open_attaches_or_creates);
    tcase_add_test(c, all_that_race_to_open_get_the_same_segment);
    tcase_add_test(c, a_destroyed_segment_goes_on_for_those_who_have_it);
    tcase_add_test(c, a_read_only_handle_reads_and_changes_nothing);
    tcase_add_test(c, info_tells_what_the_segment_is);
    tcase_add_test(c, objects_are_listed_by_slot);
    tcase_add_test(c, the_bound_of_waits_is_the_callers);
    tcase_add_test(c, the_shared_descriptor_carries_no_life);
}

static void add_worker_cases(TCase *c)
{
    tcase_add_test(c, the_first_change_registers_and_reads_do_not);
    tcase_add_test(c, joining_twice_is_joining_once);
    tcase_add_test(c, the_last_close_frees_the_slot);
    tcase_add_test(c, a_worker_says_what_its_options_say);
    tcase_add_loop_test(c, a_worker_says_what_its_environment_says, 0,
                        COUNT(environments));
    tcase_add_test(c, threads_that_change_first_together_are_one_worker);
}

static void add_fork_cases(TCase *c)
{
    tcase_add_test(c, a_reap_spares_its_own_process_while_it_registers);
    tcase_add_test(c, a_forked_child_is_a_worker_of_its_own);
    tcase_add_test(c, a_forked_child_that_registers_frees_the_slots_of_the_dead);
    tcase_add_test(c, what_is_held_is_attached_without_opening_it);
    tcase_add_test(c, a_dead_parent_is_not_kept_alive_by_its_children);
    tcase_add_test(c,
                   a_child_that_closes_does_not_end_its_parents_registration);
    tcase_add_test(c, forking_while_other_threads_register_is_safe);
    tcase_add_test(
        c, a_child_without_descriptors_reads_and_says_why_it_cannot_write);
}

static void add_check_cases(TCase *c)
{
    tcase_add_test(c, held_locks_are_counted_and_a_reap_recovers_them);
    tcase_add_test(c, a_reap_finishes_what_a_dead_process_was_destroying);
    tcase_add_test(c, check_is_clean_beside_a_working_segment);
    tcase_add_loop_test(c, check_names_damage_on_every_floor, 0,
                        COUNT(damages));
    tcase_add_test(
        c, a_read_only_check_sees_past_a_dead_writers_open_work);
}

int main(void)
{
    Suite *suite = suite_create("handle");

    support_names("handle");
    add_attach_cases(new_case(suite, "attach"));
    add_worker_cases(new_case(suite, "worker"));
    add_fork_cases(new_case(suite, "fork"));
    add_check_cases(new_case(suite, "check"));
    return support_run(suite);
}
