/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite protect: a host that scribbles into a segment (SHD_WRITE_PROTECT). It
 * is the host: what it calls is public, and only its stray stores know where
 * the segment lies. Each case runs with protection keys, if there are any, and
 * with mprotect.
 *
 * valgrind: no. It knows no protection keys, and is slow at signals.
 */
#include "tests/unit/expect.h"

#include <pthread.h>
#include <setjmp.h>
#include <sys/time.h>

#include "shm/api/handle.h"
#include "shm/base/atomic.h"

#define PAD_AT 400u /* in the header, of no meaning to anybody */

static const char *const ways[] = {"1", "mprotect"};
#define WAYS 2

static char name[40], name2[48], name3[48], file[64], file2[64];
static shd_segment *segment;
static shd_dict *dict;

static struct shd_segment_options options(uint32_t flags)
{
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .flags = flags,
                                    .size_bytes = 64u << 20,
                                    .workers_max = 16,
                                    .objects_max = 16,
                                    .locks_max = 64};

    return o;
}

static uint32_t protection(shd_segment *s)
{
    struct shd_segment_info info = {.struct_size = sizeof(info)};

    expect(shd_segment_info(s, &info), SHD_OK);
    return info.write_protect;
}

static void begin_with(const char *way, uint32_t flags)
{
    struct shd_segment_options so = options(flags);
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = 1u << 20};

    if (way != NULL)
        ck_assert_int_eq(setenv("SHDICT_WRITE_PROTECT", way, 1), 0);
    else
        ck_assert_int_eq(unsetenv("SHDICT_WRITE_PROTECT"), 0);
    expect(shd_segment_create(NULL, &so, &segment), SHD_OK);
    expect(shd_dict_open(segment, "d", &o, &dict), SHD_OK);
}

static void begin(int way)
{
    begin_with(ways[way], 0);
    ck_assert_uint_ne(protection(segment), 0);
    if (way == 1)
        ck_assert_uint_eq(protection(segment), SHD_PROTECT_PAGES);
}

static int set(const char *key)
{
    return shd_set(dict, key, strlen(key), "value", 5, 0);
}

static void holds(const char *key)
{
    struct shd_value v;
    char buf[8];

    expect(shd_get(dict, key, strlen(key), buf, sizeof(buf), &v), SHD_OK);
    ck_assert_uint_eq(v.len, 5);
    ck_assert_mem_eq(buf, "value", 5);
}

/* ---- stray stores ------------------------------------------------------- */

static __thread sigjmp_buf caught;
static __thread volatile sig_atomic_t watching;

static void on_fault(int signal_number)
{
    if (watching)
        siglongjmp(caught, 1);
    (void)signal(signal_number, SIG_DFL);
}

static void catch_faults(void)
{
    struct sigaction how = {.sa_handler = on_fault};

    ck_assert_int_eq(sigaction(SIGSEGV, &how, NULL), 0);
}

/* Is this store stopped at its instruction? */
static bool is_stopped(unsigned char *at)
{
    bool stopped = true;

    if (sigsetjmp(caught, 1) == 0) {
        watching = 1;
        *(volatile unsigned char *)at = 0;
        stopped = false;
    }
    watching = 0;
    return stopped;
}

/* Where a stray store might go, where it would do the least. */
static bool stray_is_stopped(shd_segment *s)
{
    return is_stopped(s->segment.base + PAD_AT);
}

/* The header, a lock, a worker's slot, a dict. */
static void strays_are_stopped(shd_segment *s, const char *after)
{
    const struct segment *g = &s->segment;
    const uint64_t at[] = {PAD_AT, g->guards_at + 2 * SEGMENT_GUARD_BYTES,
                           g->workers_at, g->extents_at};

    for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++)
        ck_assert_msg(is_stopped(g->base + at[i]),
                      "a stray store %u after %s", i, after);
}

START_TEST(a_stray_store_is_stopped_and_a_call_is_not)
{
    begin(_i);
    catch_faults();
    for (int i = 0; i < 3; i++) {
        expect(set("k"), SHD_OK);
        strays_are_stopped(segment, "set");
        holds("k");
        strays_are_stopped(segment, "get");
    }
    expect(shd_segment_close(segment), SHD_OK);
}
END_TEST

static void *stray_of_a_thread(void *go)
{
    if (go != NULL) {
        char c;

        ck_assert_int_eq(read(*(int *)go, &c, 1), 1);
        ck_assert(stray_is_stopped(segment));
    }
    for (int i = 0; i < 2; i++) {
        expect(set("thread"), SHD_OK);
        holds("thread");
        ck_assert(stray_is_stopped(segment));
    }
    return NULL;
}

START_TEST(threads_from_before_and_after_are_stopped)
{
    pthread_t before, after;
    int go[2];

    catch_faults();
    ck_assert_int_eq(pipe(go), 0);
    ck_assert_int_eq(
        pthread_create(&before, NULL, stray_of_a_thread, &go[0]), 0);
    begin(_i);
    ck_assert_int_eq(write(go[1], "x", 1), 1);
    ck_assert_int_eq(pthread_join(before, NULL), 0);
    ck_assert_int_eq(pthread_create(&after, NULL, stray_of_a_thread, NULL), 0);
    ck_assert_int_eq(pthread_join(after, NULL), 0);
    holds("thread");
    ck_assert(stray_is_stopped(segment));
}
END_TEST

static volatile sig_atomic_t handled;

static void call_in_handler(int signal_number)
{
    (void)signal_number;
    if (shd_worker_beat(segment) == SHD_OK)
        handled++;
}

/* Also one that comes in the middle of a call. */
START_TEST(a_signal_handler_may_call)
{
    struct sigaction how = {.sa_handler = call_in_handler,
                            .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};

    begin(_i);
    catch_faults();
    expect(shd_worker_beat(segment), SHD_OK);
    ck_assert_int_eq(sigaction(SIGALRM, &how, NULL), 0);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
    while (handled < 100) {
        expect(set("k"), SHD_OK);
        holds("k");
    }
    ck_assert_int_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
    ck_assert(stray_is_stopped(segment));
}
END_TEST

/* ---- fork --------------------------------------------------------------- */

static void in_a_child(void (*action)(void), int want)
{
    pid_t pid = fork();
    int status;

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        (void)signal(SIGSEGV, SIG_DFL);
        action();
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    if (want != 0)
        ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == want,
                      "the child ended with status 0x%x", (unsigned)status);
    else
        ck_assert_msg(status == 0, "the child ended with status 0x%x",
                      (unsigned)status);
}

static void work(void)
{
    expect(set("child"), SHD_OK);
    holds("child");
}

static void work_and_scribble(void)
{
    work();
    segment->segment.base[PAD_AT] = 0;
}

START_TEST(a_child_works_and_is_stopped_as_its_parent)
{
    begin(_i);
    catch_faults();
    in_a_child(work, 0);
    in_a_child(work_and_scribble, SIGSEGV);
    holds("child");
    ck_assert(stray_is_stopped(segment));
}
END_TEST

static void *take_forever(void *q)
{
    struct shd_message m;
    char buf[8];

    expect(shd_queue_pop(q, buf, sizeof(buf), SHD_FOREVER, &m), SHD_OK);
    return NULL;
}

/* The one that sleeps in a call lets nobody write, but for a moment; the child
 * has no such thread. */
START_TEST(a_thread_that_waits_does_not_open_the_segment)
{
    struct shd_queue_options o = {.struct_size = sizeof(o)};
    pthread_t thread;
    shd_queue *q;

    begin(_i);
    catch_faults();
    expect(shd_queue_open(segment, "q", &o, &q), SHD_OK);
    ck_assert_int_eq(pthread_create(&thread, NULL, take_forever, q), 0);
    for (int stopped = 0; stopped < 100;) {
        stopped += stray_is_stopped(segment);
        expect(set("k"), SHD_OK);
    }
    in_a_child(work_and_scribble, SIGSEGV);
    expect(shd_queue_push(q, "x", 1, 0, 0, NULL), SHD_OK);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert(stray_is_stopped(segment));
}
END_TEST

/* ---- death -------------------------------------------------------------- */

static int told[2];

static void stay_in_handler(int signal_number)
{
    (void)signal_number;
    (void)!write(told[1], "x", 1);
    for (;;)
        (void)pause();
}

static void lock_and_stay(void)
{
    (void)signal(SIGUSR1, stay_in_handler);
    (void)protect_enter();
    expect(shd_set(dict, "k", 1, "other", 5, 0), SHD_OK);
    expect(dict_lock(&dict->dict, 0), SHD_OK);
    (void)raise(SIGUSR1);
}

/* A handler has no right to the key: the kernel's mark of the death may be
 * missing then. */
START_TEST(who_is_killed_in_a_handler_in_a_call_is_answered_for)
{
    pid_t pid;
    char c;

    begin(_i);
    catch_faults();
    expect(set("k"), SHD_OK);
    ck_assert_int_eq(pipe(told), 0);
    pid = fork();
    if (pid == 0) {
        lock_and_stay();
        _exit(1);
    }
    ck_assert_int_eq(read(told[0], &c, 1), 1);
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    expect(set("k"), SHD_OK);
    holds("k");
    ck_assert(stray_is_stopped(segment));
}
END_TEST

/* ---- asking for it ------------------------------------------------------ */

START_TEST(it_is_asked_for_by_flag_or_environment)
{
    static const struct {
        const char *way;
        uint32_t flags;
        bool on;
    } asked[] = {
        {NULL, 0, false},           {"0", 0, false}, {"yes", 0, false},
        {NULL, SHD_WRITE_PROTECT, true}, {"1", 0, true},
        {"0", SHD_WRITE_PROTECT, true},
    };

    begin_with(asked[_i].way, asked[_i].flags);
    catch_faults();
    ck_assert_int_eq(protection(segment) != 0, asked[_i].on);
    expect(set("k"), SHD_OK);
    ck_assert_int_eq(stray_is_stopped(segment), asked[_i].on);
    holds("k");
}
END_TEST

START_TEST(what_can_only_be_read_needs_none)
{
    struct shd_segment_options o = options(SHD_ATTACH_READONLY);
    shd_segment *looker;
    shd_dict *d;
    struct shd_value v;
    char link[32], buf[8];

    begin(_i);
    catch_faults();
    expect(set("k"), SHD_OK);
    snprintf(link, sizeof(link), "fd:%d", shd_segment_fd(segment));
    expect(shd_segment_attach(link, &o, &looker), SHD_OK);
    ck_assert_uint_eq(protection(looker), 0);
    expect(shd_dict_open(looker, "d", NULL, &d), SHD_OK);
    expect(shd_get(d, "k", 1, buf, sizeof(buf), &v), SHD_OK);
    ck_assert(stray_is_stopped(looker));
    expect(shd_segment_close(looker), SHD_OK);
    ck_assert(stray_is_stopped(segment));
}
END_TEST

START_TEST(segments_come_and_go)
{
    struct shd_segment_options o = options(0);
    shd_segment *other;

    begin(_i);
    catch_faults();
    for (int i = 0; i < 3; i++) {
        expect(shd_segment_create(NULL, &o, &other), SHD_OK);
        ck_assert(stray_is_stopped(other));
        expect(shd_worker_join(other, NULL), SHD_OK);
        expect(set("k"), SHD_OK);
        ck_assert(stray_is_stopped(other));
        ck_assert(stray_is_stopped(segment));
        expect(shd_segment_close(other), SHD_OK);
        expect(set("k"), SHD_OK);
        ck_assert(stray_is_stopped(segment));
    }
    /* One that is not protected beside one that is. */
    ck_assert_int_eq(unsetenv("SHDICT_WRITE_PROTECT"), 0);
    expect(shd_segment_create(NULL, &o, &other), SHD_OK);
    ck_assert(!stray_is_stopped(other));
    ck_assert(stray_is_stopped(segment));
    expect(shd_segment_close(segment), SHD_OK);
    expect(shd_worker_join(other, NULL), SHD_OK);
}
END_TEST

/* ---- every function ----------------------------------------------------- */

static char called[16384];

/* It has said what it should; and now the host scribbles. */
static void did(const char *function, int got, int want)
{
    char word[80];

    ck_assert_msg(got == want, "%s says %d (%s: %s), not %d", function, got,
                  shd_strerror_name(got), shd_last_error(), want);
    snprintf(word, sizeof(word), " %.*s;", (int)strcspn(function, "("),
             function);
    if (strstr(called, word) == NULL) {
        ck_assert_uint_lt(strlen(called) + strlen(word), sizeof(called));
        strcat(called, word);
    }
    if (segment != NULL && atomic_load32(&segment->open) > 0)
        strays_are_stopped(segment, function);
}

#define SAYS(want, function, ...)                                             \
    did(#function, function(__VA_ARGS__), want)
#define OK(function, ...) SAYS(SHD_OK, function, __VA_ARGS__)
#define SOME(function, ...)                                                   \
    did(#function, function(__VA_ARGS__) >= 0 ? SHD_OK : SHD_SYS, SHD_OK)
#define FREE(function) did(#function, (function, SHD_OK), SHD_OK)
#define KEY "k", 1
#define SIZED(type, variable)                                                 \
    struct type variable = {.struct_size = sizeof(variable)}

static void each_of_segments(void)
{
    struct shd_segment_options so = options(0);
    SIZED(shd_segment_info, info);
    SIZED(shd_repair, repaired);
    char report[256];
    uint64_t done, total;
    shd_segment *again;

    OK(shd_segment_create, name, &so, &segment);
    OK(shd_segment_attach, name, NULL, &again);
    OK(shd_segment_close, again);
    OK(shd_segment_open, name, NULL, &again);
    OK(shd_segment_close, again);
    SOME(shd_segment_fd, segment);
    OK(shd_segment_info, segment, &info);
    OK(shd_segment_check, segment, report, sizeof(report));
    OK(shd_check_progress, segment, &done, &total);
    OK(shd_segment_repair, segment, &repaired, report, sizeof(report));
    FREE(shd_version());
    FREE(shd_strerror(0));
    FREE(shd_strerror_name(0));
    FREE(shd_last_error());
    FREE(shd_object_kind_name(1));
}

static void each_of_keeping(void)
{
    SIZED(shd_keep_info, info);
    shd_save *save;
    shd_restore *restore;
    shd_segment *kept;
    int rc;

    OK(shd_segment_save, segment, file, NULL, &info);
    OK(shd_save_open, segment, file2, NULL, &save);
    while ((rc = shd_save_step(save)) == 1)
        SOME(shd_save_step, save);
    did("shd_save_step", rc, SHD_OK);
    OK(shd_save_info, save, &info);
    OK(shd_save_close, save);
    OK(shd_segment_restore, file, name2, NULL, &info, &kept);
    strays_are_stopped(kept, "a restore");
    OK(shd_segment_close, kept);
    OK(shd_restore_open, file, name3, NULL, &restore);
    while ((rc = shd_restore_step(restore)) == 1)
        strays_are_stopped(segment, "a step of a restore");
    did("shd_restore_step", rc, SHD_OK);
    OK(shd_restore_info, restore, &info);
    OK(shd_restore_close, restore, &kept);
    strays_are_stopped(kept, "a restore by steps");
    OK(shd_segment_close, kept);
    OK(shd_segment_destroy, name2);
    OK(shd_segment_destroy, name3);
}

static void each_of_workers(void)
{
    SIZED(shd_worker_info, worker);
    SIZED(shd_object_info, object);
    SIZED(shd_hold, hold);
    SIZED(shd_watch_event, event);
    SIZED(shd_region, region);
    uint64_t me;
    uint32_t n;
    shd_watch *watch;
    shd_layout *layout;

    OK(shd_worker_join, segment, &me);
    OK(shd_worker_info, segment, (uint32_t)(me & 0xffff), &worker);
    SAYS(1, shd_worker_is_alive, segment, me);
    OK(shd_reap, segment, &n);
    OK(shd_worker_beat, segment);
    OK(shd_worker_set_phase, segment, me, SHD_PHASE_READY);
    OK(shd_worker_signal, segment, me, 0);
    SAYS(SHD_NOTFOUND, shd_worker_hold, segment, me, 1, &hold);
    OK(shd_generation_next, segment, &n);
    OK(shd_generation_drain, segment, n, &n);
    SOME(shd_worker_fd, segment);
    OK(shd_worker_fd_clear, segment);
    OK(shd_watch_open, segment, NULL, &watch);
    SOME(shd_watch_fd, watch);
    SAYS(SHD_NOTFOUND, shd_watch_next, watch, 1, &event);
    OK(shd_watch_close, watch);
    OK(shd_object_info, segment, 0, &object);
    OK(shd_layout_get, segment, &layout);
    FREE(shd_layout_count(layout));
    OK(shd_layout_at, layout, 0, &region);
    shd_layout_free(layout);
    did("shd_layout_free", 0, 0);
}

static void each_of_dicts(void)
{
    SIZED(shd_dict_options, o);
    SIZED(shd_dict_info, info);
    SIZED(shd_shard_info, shard);
    SIZED(shd_dict_account, account);
    shd_dict *d;
    struct shd_page page;
    uint32_t n;
    uint64_t bytes;

    o.capacity_bytes = 1u << 20;
    OK(shd_dict_open, segment, "d", &o, &dict);
    OK(shd_dict_open, segment, "other", &o, &d);
    OK(shd_dict_close, d);
    OK(shd_dict_destroy, segment, "other");
    OK(shd_dict_resize, dict, 2u << 20);
    OK(shd_dict_info, dict, &info);
    OK(shd_shard_info, dict, 0, &shard);
    OK(shd_dict_account, dict, &account);
    OK(shd_dict_pages, dict, 0, &page, 1, &n);
    OK(shd_capacity, dict, &bytes);
    OK(shd_free_space, dict, &bytes);
}

static void each_of_values(void)
{
    static char long_value[20000];
    struct shd_value v, values[2];
    uint32_t forcible;
    uint64_t version, length;
    int64_t ttl_ms;
    double sum;
    char buf[64];

    OK(shd_set, dict, KEY, "a", 1, 0);
    OK(shd_set, dict, "long", 4, long_value, sizeof(long_value), 0);
    OK(shd_get, dict, KEY, buf, sizeof(buf), &v);
    OK(shd_get_stale, dict, KEY, buf, sizeof(buf), &v);
    OK(shd_store, dict, SHD_ADD, "n", 1, SHD_NUMBER, NULL, 0, 1, 60000, 0,
       &forcible);
    OK(shd_incr, dict, "n", 1, 1, 0, 0, 0, &sum, &forcible);
    OK(shd_append, dict, 0, KEY, "b", 1, NULL, 0, 0, &length, &forcible);
    OK(shd_ttl, dict, "n", 1, &ttl_ms);
    OK(shd_expire, dict, KEY, 60000);
    OK(shd_touch, dict, KEY, 60000);
    OK(shd_cas, dict, KEY, SHD_STRING, "ab", 2, 0, SHD_STRING, "c", 1, 0, 0, 0,
       &forcible);
    OK(shd_get_versioned, dict, KEY, buf, sizeof(buf), &v, &version);
    OK(shd_store_versioned, dict, KEY, SHD_STRING, "d", 1, 0, 0, 0, &version,
       &forcible);
    {
        const void *keys[] = {"m1", "m2"}, *bytes[] = {"x", "y"};
        const size_t lens[] = {2, 2};
        size_t at[2];
        int32_t codes[2];

        values[0] = values[1] =
            (struct shd_value){.type = SHD_STRING, .len = 1};
        OK(shd_set_multi, dict, SHD_SET, 2, keys, lens, values, bytes, codes,
           &forcible);
        OK(shd_get_multi, dict, 2, keys, lens, buf, sizeof(buf), values, at,
           codes);
    }
    OK(shd_take, dict, KEY, buf, sizeof(buf), &v);
    OK(shd_delete, dict, "m1", 2);
}

static void each_of_lists(void)
{
    SIZED(shd_entry_info, entry);
    SIZED(shd_lease_info, lease);
    struct shd_value v, values[2];
    char key[64], buf[64];
    size_t key_len, at[2];
    uint32_t n;
    uint64_t length;
    shd_keys *keys;

    OK(shd_push, dict, 0, "l", 1, SHD_STRING, "x", 1, 0, &length);
    OK(shd_push_expire, dict, 1, "l", 1, SHD_NUMBER, NULL, 0, 2, 60000,
       &length);
    OK(shd_push, dict, 0, "l", 1, SHD_STRING, "y", 1, 0, &length);
    OK(shd_llen, dict, "l", 1, &length);
    OK(shd_list_read, dict, "l", 1, 0, 0, 2, buf, sizeof(buf), values, at, &n,
       &length);
    OK(shd_lmove, dict, 1, "l", 1, 0, "m", 1, buf, sizeof(buf), &v);
    OK(shd_ltake, dict, 1, "m", 1, buf, sizeof(buf), &v, &length);
    OK(shd_lnack, dict, length);
    OK(shd_ltake, dict, 1, "m", 1, buf, sizeof(buf), &v, &length);
    OK(shd_lease_next, dict, &lease, key, sizeof(key), &key_len);
    OK(shd_lack, dict, length);
    OK(shd_pop, dict, 0, "l", 1, buf, sizeof(buf), &v);
    OK(shd_scan, dict, NULL, 0, 0, key, sizeof(key), &key_len, NULL, 0, &v);
    OK(shd_entry_info, dict, "l", 1, &entry);
    OK(shd_keys_get, dict, 0, &keys);
    FREE(shd_keys_count(keys));
    FREE(shd_keys_at(keys, 0, NULL));
    shd_keys_free(keys);
    did("shd_keys_free", 0, 0);
    OK(shd_flush_all, dict);
    OK(shd_flush_expired, dict, 0, &length);
}

static void each_of_queues(void)
{
    SIZED(shd_queue_options, o);
    SIZED(shd_queue_info, info);
    struct shd_message m;
    uint64_t id, lease, n;
    int64_t again_ms;
    shd_queue *q;
    char buf[16];

    OK(shd_queue_open, segment, "q", &o, &q);
    OK(shd_queue_push, q, "x", 1, 0, 0, &id);
    OK(shd_queue_reserve, q, 2, 0, &lease);
    OK(shd_queue_write, q, lease, 0, "yz", 2);
    OK(shd_queue_commit, q, lease, 0, &id);
    OK(shd_queue_reserve, q, 2, 0, &lease);
    OK(shd_queue_cancel, q, lease);
    OK(shd_queue_peek, q, SHD_MESSAGE_READY, 0, buf, sizeof(buf), &m);
    OK(shd_queue_take, q, buf, sizeof(buf), 0, &m);
    OK(shd_queue_extend, q, m.lease, 60000);
    OK(shd_queue_nack, q, m.lease, 0);
    OK(shd_queue_take, q, buf, sizeof(buf), 0, &m);
    OK(shd_queue_ack, q, m.lease);
    OK(shd_queue_pop, q, buf, sizeof(buf), 0, &m);
    SAYS(SHD_NOTFOUND, shd_queue_pop, q, buf, sizeof(buf), 1, &m);
    OK(shd_queue_arm, q, 0, &again_ms);
    OK(shd_queue_push, q, "x", 1, 0, 0, &id);
    OK(shd_queue_drain, q, SHD_MESSAGE_READY, 1, &n);
    OK(shd_queue_requeue, q, 1, &n);
    {
        const void *data[] = {"x", "y"};
        const size_t lens[] = {1, 1};
        struct shd_message many[2];
        uint64_t ids[2], leases[2];
        int32_t codes[2];
        uint32_t done;
        size_t at[2];

        OK(shd_queue_push_many, q, 2, data, lens, 0, 0, ids, &done);
        OK(shd_queue_take_many, q, 2, buf, sizeof(buf), 0, many, at, &done);
        leases[0] = many[0].lease;
        leases[1] = many[1].lease;
        OK(shd_queue_ack_many, q, 2, leases, codes);
        OK(shd_queue_push_many, q, 2, data, lens, 0, 0, ids, &done);
        OK(shd_queue_pop_many, q, 2, buf, sizeof(buf), 0, many, at, &done);
    }
    OK(shd_queue_info, q, &info);
    OK(shd_queue_close, q);
    OK(shd_queue_destroy, segment, "q");
}

static void each_of_topics(void)
{
    SIZED(shd_topic_options, o);
    SIZED(shd_topic_info, info);
    SIZED(shd_cursor_info, cursor);
    struct shd_event event;
    shd_topic *t;
    shd_subscription *s;
    uint32_t n;
    uint64_t seq, missed;
    char buf[16];

    o.flags = SHD_TOPIC_CREATE;
    OK(shd_topic_open, segment, "t", &o, &t);
    OK(shd_topic_subscribe, t, "me", SHD_FROM_NOW, &s);
    OK(shd_subscription_arm, s);
    OK(shd_topic_publish, t, "x", 1, 0, &seq);
    OK(shd_subscription_next, s, buf, sizeof(buf), 0, &event, 1, &n, &missed);
    OK(shd_subscription_acknowledge, s);
    {
        const void *data[] = {"x"};
        const size_t lens[] = {1};

        OK(shd_topic_publish_many, t, 1, data, lens, 0, &seq, &n);
        OK(shd_subscription_next, s, buf, sizeof(buf), 0, &event, 1, &n,
           &missed);
    }
    SAYS(SHD_NOTFOUND, shd_subscription_next, s, buf, sizeof(buf), 1, &event,
         1, &n, &missed);
    OK(shd_topic_info, t, &info);
    OK(shd_topic_cursor, t, 0, &cursor);
    OK(shd_subscription_close, s);
    OK(shd_topic_forget, t, "me");
    OK(shd_topic_close, t);
}

static void each_of_mailboxes(void)
{
    SIZED(shd_mailbox_options, o);
    SIZED(shd_mailbox_info, info);
    SIZED(shd_box_info, box);
    struct shd_mail m;
    shd_mailbox *b;
    uint64_t me, id, request;
    uint32_t n;
    char buf[16];

    OK(shd_worker_join, segment, &me);
    OK(shd_mailbox_open, segment, "m", &o, &b);
    OK(shd_mailbox_listen, b);
    SAYS(SHD_NOTFOUND, shd_mailbox_find, b, 77, &id);
    OK(shd_mailbox_arm, b);
    OK(shd_mailbox_post, b, me, "x", 1, 0, &id);
    OK(shd_mailbox_post_all, b, "x", 1, 0, &n);
    OK(shd_mailbox_info, b, &info);
    OK(shd_mailbox_box, b, (uint32_t)(me & 0xffff), &box);
    OK(shd_mailbox_peek, b, (uint32_t)(me & 0xffff), 0, buf, sizeof(buf), &m);
    OK(shd_mailbox_receive, b, buf, sizeof(buf), 0, &m);
    OK(shd_mailbox_request, b, me, "q", 1, 0, 0, &request);
    OK(shd_mailbox_receive, b, buf, sizeof(buf), 0, &m);
    OK(shd_mailbox_answer, b, m.request, "a", 1, 0);
    OK(shd_mailbox_await, b, request, buf, sizeof(buf), 0, &m);
    OK(shd_mailbox_request, b, me, "q", 1, 0, 0, &request);
    OK(shd_mailbox_receive, b, buf, sizeof(buf), 0, &m);
    OK(shd_mailbox_decline, b, m.request);
    SAYS(SHD_LOST, shd_mailbox_await, b, request, buf, sizeof(buf), 0, &m);
    OK(shd_mailbox_request, b, me, "q", 1, 0, 0, &request);
    OK(shd_mailbox_cancel, b, request);
    SAYS(SHD_BUSY, shd_mailbox_call, b, me, "q", 1, buf, sizeof(buf), 1, &m);
    SAYS(1, shd_mailbox_arm_room, b, me, 1);
    OK(shd_mailbox_leave, b);
    OK(shd_mailbox_close, b);
}

static void each_of_locks(void)
{
    SIZED(shd_lock_options, o);
    SIZED(shd_lock_info, info);
    SIZED(shd_holder, holder);
    struct shd_grant grant;
    uint64_t ticket;
    int64_t ttl_ms;
    shd_lock *l;
    shd_leader *leader;

    o.flags = SHD_LOCK_CREATE;
    OK(shd_lock_open, segment, "l", SHD_OBJECT_LOCK, &o, &l);
    OK(shd_lock_acquire, l, 0, 0, &grant);
    OK(shd_lock_check, l, grant.token, &ttl_ms);
    OK(shd_lock_extend, l, grant.token, 60000);
    OK(shd_lock_info, l, &info);
    OK(shd_lock_holder, l, 0, &holder);
    {
        struct shd_grant later;

        SAYS(SHD_BUSY, shd_lock_acquire, l, 1, 0, &later);
        SAYS(1, shd_lock_request, l, 0, &later, &ticket);
        SAYS(1, shd_lock_cancel, l, ticket, &later);
        SAYS(1, shd_lock_request, l, 0, &later, &ticket);
        OK(shd_lock_release, l, grant.token);
        OK(shd_lock_poll, l, ticket, &later);
    }
    OK(shd_lock_close, l);
    OK(shd_leader_open, segment, "leader", &o, &leader);
    OK(shd_leader_look, leader, 0, &grant);
    OK(shd_leader_resign, leader);
    OK(shd_leader_close, leader);
}

/* All that the library exports has been called. */
static void none_is_left_out(void)
{
    char path[512] = __FILE__, line[128], function[80], word[96];
    char *unit = strstr(path, "tests/unit/");
    unsigned functions = 0;
    FILE *map;

    ck_assert_ptr_nonnull(unit);
    strcpy(unit, "shm/libshdict.map");
    map = fopen(path, "re");
    ck_assert_ptr_nonnull(map);
    while (fgets(line, sizeof(line), map) != NULL) {
        if (sscanf(line, " %79[a-z_0-9];", function) != 1 ||
            strncmp(function, "shd_", 4) != 0)
            continue;
        snprintf(word, sizeof(word), " %s;", function);
        ck_assert_msg(strstr(called, word) != NULL,
                      "%s is called by nobody here", function);
        functions++;
    }
    fclose(map);
    ck_assert_uint_gt(functions, 100);
}

START_TEST(every_function_works_and_every_stray_store_after_it_is_stopped)
{
    ck_assert_int_eq(setenv("SHDICT_WRITE_PROTECT", ways[_i], 1), 0);
    snprintf(name, sizeof(name), "unit-protect-%d", (int)getpid());
    snprintf(name2, sizeof(name2), "%s.2", name);
    snprintf(name3, sizeof(name3), "%s.3", name);
    snprintf(file, sizeof(file), "/tmp/%s.kept", name);
    snprintf(file2, sizeof(file2), "/tmp/%s.kept2", name);
    catch_faults();
    each_of_segments();
    OK(shd_segment_destroy, name);
    each_of_dicts();
    each_of_workers();
    each_of_values();
    each_of_lists();
    each_of_queues();
    each_of_topics();
    each_of_mailboxes();
    each_of_locks();
    OK(shd_object_destroy, segment, "leader");
    each_of_keeping();
    {
        char report[256];

        OK(shd_segment_check, segment, report, sizeof(report));
    }
    OK(shd_worker_leave, segment);
    OK(shd_segment_close, segment);
    none_is_left_out();
    ck_assert_int_eq(unlink(file), 0);
    ck_assert_int_eq(unlink(file2), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("protect");
    TCase *c = tcase_create("protect");

    /* Its own way, in each case. */
    (void)unsetenv("SHDICT_WRITE_PROTECT");
    tcase_add_loop_test(c, a_stray_store_is_stopped_and_a_call_is_not, 0,
                        WAYS);
    tcase_add_loop_test(c, threads_from_before_and_after_are_stopped, 0, WAYS);
    tcase_add_loop_test(c, a_signal_handler_may_call, 0, WAYS);
    tcase_add_loop_test(c, a_child_works_and_is_stopped_as_its_parent, 0,
                        WAYS);
    tcase_add_loop_test(c, a_thread_that_waits_does_not_open_the_segment, 0,
                        WAYS);
    tcase_add_loop_test(
        c, who_is_killed_in_a_handler_in_a_call_is_answered_for, 0, WAYS);
    tcase_add_loop_test(c, it_is_asked_for_by_flag_or_environment, 0, 6);
    tcase_add_loop_test(c, what_can_only_be_read_needs_none, 0, WAYS);
    tcase_add_loop_test(c, segments_come_and_go, 0, WAYS);
    tcase_add_loop_test(
        c, every_function_works_and_every_stray_store_after_it_is_stopped, 0,
        WAYS);
    suite_add_tcase(s, c);

    SRunner *r = srunner_create(s);

    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
