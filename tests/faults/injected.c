/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For each action: the first call that can fail fails, then the second, until
 * one round needs no more calls. Each round is a child with a segment that is
 * new. Afterwards the action has succeeded, or failed with one of its codes
 * and changed nothing; no descriptor and no mapping is left over; the segment
 * is sound; and without the fault the same action succeeds.
 */
#include "tests/faults/faults.h"
#include "tests/faults/inject.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS_MAX 5000u

static shd_segment *segment;
static shd_dict *dict;
static struct shd_segment_options options;
static uint32_t more_flags;
static bool *hit_in_child;

static void nothing(void)
{
}

static void with_segment(void)
{
    shd_segment *s = make_segment(16);

    make_dict(s, "d", 1 << 20);
    EXPECT(shd_segment_close(s), SHD_OK);
}

static void attached(void)
{
    with_segment();
    EXPECT(shd_segment_attach(segment_name(), &options, &segment), SHD_OK);
    EXPECT(shd_dict_open(segment, "d", NULL, &dict), SHD_OK);
}

static void filled(void)
{
    attached();
    for (unsigned i = 0; i < 200; i++)
        EXPECT(store(dict, i, 1000), SHD_OK);
}

/* ---- the actions: what they give, and how the same is undone ------------ */

static int close_it(int rc)
{
    if (rc == SHD_OK)
        EXPECT(shd_segment_close(segment), SHD_OK);
    return rc;
}

static int create_named(void)
{
    return close_it(shd_segment_create(segment_name(), &options, &segment));
}

static int create_anonymous(void)
{
    return close_it(shd_segment_create(NULL, &options, &segment));
}

static int open_either(void)
{
    return close_it(shd_segment_open(segment_name(), &options, &segment));
}

static int attach(void)
{
    return close_it(shd_segment_attach(segment_name(), &options, &segment));
}

static int attach_readonly(void)
{
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .flags = SHD_ATTACH_READONLY};

    return close_it(shd_segment_attach(segment_name(), &o, &segment));
}

static int open_new_dict(void)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = 1 << 20};
    shd_dict *d;
    int rc = shd_dict_open(segment, "new", &o, &d);

    if (rc == SHD_OK)
        EXPECT(shd_dict_close(d), SHD_OK);
    return rc;
}

static int open_old_dict(void)
{
    shd_dict *d;
    int rc = shd_dict_open(segment, "d", NULL, &d);

    if (rc == SHD_OK)
        EXPECT(shd_dict_close(d), SHD_OK);
    return rc;
}

static int grow(void)
{
    return shd_dict_resize(dict, 4 << 20);
}

static int shrink(void)
{
    return shd_dict_resize(dict, 128 << 10);
}

static int store_many(void)
{
    int worst = SHD_OK;

    for (unsigned i = 0; i < 40; i++) {
        int rc = store(dict, i, 30000);

        worst = rc != SHD_OK ? rc : worst;
        /* A store that failed has kept what was there. */
        rc = look(dict, i);
        if (rc != SHD_OK && rc != SHD_NOTFOUND && rc != SHD_BUSY)
            return rc;
    }
    return worst;
}

static int destroy_dict(void)
{
    return shd_dict_destroy(segment, "d");
}

static int use_queue(void)
{
    struct shd_queue_options o = {.struct_size = sizeof(o),
                                  .capacity_bytes = 64 << 10};
    struct shd_message m;
    shd_queue *q;
    char buf[16];
    int rc = shd_queue_open(segment, "q", &o, &q);

    if (rc == SHD_OK)
        rc = shd_queue_push(q, "message", 7, 0, 0, NULL);
    if (rc == SHD_OK)
        rc = shd_queue_take(q, buf, sizeof(buf), 0, &m);
    if (rc == SHD_OK)
        rc = shd_queue_ack(q, m.lease);
    if (rc == SHD_OK)
        rc = shd_queue_pop(q, buf, sizeof(buf), 20, &m);
    return rc == SHD_NOTFOUND ? SHD_OK : rc;
}

static int use_topic_and_lock(void)
{
    struct shd_topic_options to = {.struct_size = sizeof(to),
                                   .flags = SHD_TOPIC_CREATE,
                                   .capacity_bytes = 64 << 10};
    struct shd_lock_options lo = {.struct_size = sizeof(lo),
                                  .flags = SHD_LOCK_CREATE};
    struct shd_grant grant;
    shd_topic *t;
    shd_lock *l;
    int rc = shd_topic_open(segment, "t", &to, &t);

    if (rc == SHD_OK)
        rc = shd_topic_publish(t, "event", 5, 0, NULL);
    if (rc == SHD_OK)
        rc = shd_lock_open(segment, "l", SHD_OBJECT_LOCK, &lo, &l);
    if (rc == SHD_OK)
        rc = shd_lock_acquire(l, 20, 0, &grant);
    if (rc == SHD_OK)
        rc = shd_lock_release(l, grant.token);
    return rc;
}

static int join_and_leave(void)
{
    uint64_t incarnation;
    int rc = shd_worker_join(segment, &incarnation);

    if (rc == SHD_OK)
        rc = shd_worker_fd(segment) < 0 ? SHD_SYS : SHD_OK;
    if (rc == SHD_OK)
        rc = shd_worker_leave(segment);
    return rc;
}

static int watch(void)
{
    struct shd_watch_options o = {.struct_size = sizeof(o),
                                  .flags = SHD_WATCH_SUPERVISE,
                                  .hang_ms = 1000,
                                  .lock_ms = 1000};
    struct shd_watch_event e = {.struct_size = sizeof(e)};
    shd_watch *w;
    int rc = shd_watch_open(segment, &o, &w);

    if (rc != SHD_OK)
        return rc;
    rc = shd_watch_fd(w);
    if (rc >= 0)
        rc = shd_watch_next(w, 0, &e);
    EXPECT(shd_watch_close(w), SHD_OK);
    return rc == SHD_NOTFOUND ? SHD_OK : rc;
}

/* The child of a fork makes itself a worker, or says why it cannot. */
static int change_in_a_child(void)
{
    pid_t pid = fork();
    int result;

    if (pid == 0) {
        result = store(dict, 7, 10);
        *hit_in_child = inject_hit() != NULL;
        if (look(dict, 8) != SHD_OK)
            _exit(200);
        _exit(-result);
    }
    if (pid < 0)
        return errno == EAGAIN ? SHD_SYS : SHD_CORRUPT;
    result = child_result(pid);
    return result < 0 || result == 200 ? SHD_CORRUPT : -result;
}

static int reap_the_dead(void)
{
    uint32_t reaped;
    int rc = shd_reap(segment, &reaped);

    if (rc == SHD_OK && reaped > 1)
        return SHD_CORRUPT;
    return rc;
}

static void with_a_dead_worker(void)
{
    pid_t pid;

    filled();
    pid = fork();
    if (pid == 0) {
        EXPECT(store(dict, 1, 1000), SHD_OK);
        raise(9);
    }
    if (child_result(pid) != -9)
        fail("the worker did not die");
}

static int tell_about(void)
{
    struct shd_segment_info i = {.struct_size = sizeof(i)};
    struct shd_dict_info di = {.struct_size = sizeof(di)};
    char report[200];
    int rc = shd_segment_info(segment, &i);

    if (rc == SHD_OK)
        rc = shd_dict_info(dict, &di);
    if (rc == SHD_OK)
        rc = shd_segment_fd(segment) < 0 ? SHD_SYS : SHD_OK;
    if (rc == SHD_OK)
        rc = shd_segment_check(segment, report, sizeof(report));
    return rc;
}

static int repair(void)
{
    struct shd_repair done = {.struct_size = sizeof(done)};
    char report[400];

    return shd_segment_repair(segment, &done, report, sizeof(report));
}

static int destroy_segment(void)
{
    return shd_segment_destroy(segment_name());
}

#define OWN(code) (1u << -(code))
#define USUAL (OWN(SHD_NOMEM) | OWN(SHD_SYS))

struct action {
    void (*prepare)(void);
    int (*act)(void);
    uint32_t codes; /* that it may fail with */
    bool makes_file, ends_file;
    unsigned keeps; /* descriptors a success leaves open */
    int again;      /* what the same gives after a failure; 0: success */
};

/* ---- the rounds --------------------------------------------------------- */

static bool file_exists(void)
{
    char path[100];
    struct stat st;

    snprintf(path, sizeof(path), "/dev/shm/shdict-%s", segment_name());
    return lstat(path, &st) == 0;
}

/* 0: the action needs fewer calls; 1: one failed. */
static int round_of(const struct action *a, unsigned nth)
{
    unsigned descriptors, mappings;
    const char *hit;
    int rc;

    hit_in_child = mmap(NULL, sizeof(*hit_in_child), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (hit_in_child == MAP_FAILED)
        fail("mmap: %m");
    options = options_of(16);
    options.flags = more_flags;
    options.wait_ms = 200;
    a->prepare();
    descriptors = open_descriptors();
    mappings = open_mappings();
    inject_arm(nth);
    rc = a->act();
    hit = *hit_in_child ? "in the child" : inject_hit();
    inject_arm(0);
    if (hit == NULL && rc != SHD_OK)
        fail("without a fault: %s (%s)", shd_strerror_name(rc),
             shd_last_error());
    if (rc != SHD_OK && (a->codes & OWN(rc)) == 0)
        fail("call %u, %s: %s (%s)", nth, hit, shd_strerror_name(rc),
             shd_last_error());
    if (rc != SHD_OK && shd_last_error()[0] == '\0')
        fail("call %u, %s: %s without a sentence", nth, hit,
             shd_strerror_name(rc));
    if (rc != SHD_OK && a->makes_file && file_exists())
        fail("call %u, %s: it failed with %s, and there is a file", nth, hit,
             shd_strerror_name(rc));
    if (rc != SHD_OK && a->ends_file && !file_exists())
        fail("call %u, %s: it failed with %s, and the file is gone", nth, hit,
             shd_strerror_name(rc));
    if (open_descriptors() > descriptors + a->keeps)
        fail("call %u, %s, %s: %u descriptors, before it were %u", nth,
             hit != NULL ? hit : "none", shd_strerror_name(rc),
             open_descriptors(), descriptors);
    if (open_mappings() != mappings)
        fail("call %u, %s, %s: %u mappings, before it were %u", nth,
             hit != NULL ? hit : "none", shd_strerror_name(rc),
             open_mappings(), mappings);
    if (file_exists())
        expect_sound();
    if (rc != SHD_OK) {
        rc = a->act();
        if (rc != SHD_OK && rc != a->again)
            fail("call %u, %s: without a fault it then gives %s (%s)", nth,
                 hit, shd_strerror_name(rc), shd_last_error());
    }
    return hit != NULL;
}

static void rounds(const struct action *a)
{
    for (unsigned nth = 1; nth < ROUNDS_MAX; nth++) {
        pid_t pid;
        int result, rc;

        fflush(stdout);
        pid = fork();
        if (pid == 0) {
            alarm(60);
            _exit(round_of(a, nth) == 0 ? 100 : 0);
        }
        result = child_result(pid);
        rc = shd_segment_destroy(segment_name());
        (void)rc;
        if (result == 100) {
            printf("    %u calls failed in turn\n", nth - 1);
            if (nth < 3)
                fail("nothing was made to fail");
            return;
        }
        if (result != 0)
            fail("round %u ended with %d", nth, result);
    }
    fail("it comes to no end");
}

#define ACTION(title, ...)                                                    \
    static void title(void)                                                   \
    {                                                                         \
        static const struct action a = {__VA_ARGS__};                         \
        rounds(&a);                                                           \
    }

#define CREATING                                                              \
    (USUAL | OWN(SHD_UNSUPPORTED) | OWN(SHD_PERM) | OWN(SHD_NAMESPACE))

ACTION(creating_a_named_segment, .prepare = nothing, .act = create_named,
       .codes = CREATING, .makes_file = true)
ACTION(creating_an_anonymous_segment, .prepare = nothing, .act = create_anonymous,
       .codes = CREATING)
ACTION(opening_what_is_not_there, .prepare = nothing, .act = open_either,
       .codes = CREATING, .makes_file = true)
ACTION(opening_what_is_there, .prepare = with_segment, .act = open_either,
       .codes = CREATING)
ACTION(attaching, .prepare = with_segment, .act = attach,
       .codes = USUAL | OWN(SHD_UNSUPPORTED))
ACTION(attaching_read_only, .prepare = with_segment, .act = attach_readonly,
       .codes = USUAL | OWN(SHD_UNSUPPORTED))
ACTION(making_a_dict, .prepare = attached, .act = open_new_dict,
       .codes = USUAL)
ACTION(opening_a_dict, .prepare = attached, .act = open_old_dict,
       .codes = USUAL)
ACTION(growing_a_dict, .prepare = filled, .act = grow,
       .codes = USUAL)
ACTION(shrinking_a_dict, .prepare = filled, .act = shrink,
       .codes = USUAL)
ACTION(storing, .prepare = attached, .act = store_many,
       .codes = USUAL)
ACTION(destroying_a_dict, .prepare = filled, .act = destroy_dict,
       .codes = USUAL, .again = SHD_NOTFOUND) /* half done: see shdict.h */
ACTION(using_a_queue, .prepare = attached, .act = use_queue,
       .codes = USUAL, .keeps = 2)
ACTION(using_a_topic_and_a_lock, .prepare = attached, .act = use_topic_and_lock,
       .codes = USUAL, .keeps = 2)
ACTION(joining_with_a_bell, .prepare = attached, .act = join_and_leave,
       .codes = USUAL, .keeps = 2)
ACTION(watching_workers, .prepare = filled, .act = watch,
       .codes = USUAL, .keeps = 1)
ACTION(changing_in_a_child, .prepare = filled, .act = change_in_a_child,
       .codes = USUAL)
ACTION(reaping, .prepare = with_a_dead_worker, .act = reap_the_dead,
       .codes = USUAL)
ACTION(telling_and_checking, .prepare = filled, .act = tell_about,
       .codes = USUAL, .keeps = 1)
ACTION(repairing, .prepare = filled, .act = repair,
       .codes = USUAL)
ACTION(removing_a_segment, .prepare = with_segment, .act = destroy_segment,
       .codes = USUAL | OWN(SHD_UNSUPPORTED),
       .ends_file = true)

static void creating_with_placing(void)
{
    more_flags = SHD_HUGE_PAGES | SHD_PREFAULT | SHD_INTERLEAVE;
    creating_a_named_segment();
}

static void making_a_prefaulted_dict(void)
{
    more_flags = SHD_PREFAULT;
    making_a_dict();
}

#define CASE(title) {#title, title}
const struct fault_case INJECTED[] = {CASE(creating_a_named_segment),
                                      CASE(creating_an_anonymous_segment),
                                      CASE(creating_with_placing),
                                      CASE(opening_what_is_not_there),
                                      CASE(opening_what_is_there),
                                      CASE(attaching),
                                      CASE(attaching_read_only),
                                      CASE(making_a_dict),
                                      CASE(making_a_prefaulted_dict),
                                      CASE(opening_a_dict),
                                      CASE(growing_a_dict),
                                      CASE(shrinking_a_dict),
                                      CASE(storing),
                                      CASE(destroying_a_dict),
                                      CASE(using_a_queue),
                                      CASE(using_a_topic_and_a_lock),
                                      CASE(joining_with_a_bell),
                                      CASE(watching_workers),
                                      CASE(changing_in_a_child),
                                      CASE(reaping),
                                      CASE(telling_and_checking),
                                      CASE(repairing),
                                      CASE(removing_a_segment),
                                      {NULL, NULL}};
