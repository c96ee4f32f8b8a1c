/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite resize: dict/resize.c, and what the reservation promises. */
#include "tests/unit/fixture.h"

#include <pthread.h>

#include "shm/dict/resize.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

static void start_in(const char *name, uint64_t segment_bytes,
                     struct shd_dict_options o)
{
    struct shd_segment_options so = segment_options();

    so.size_bytes = segment_bytes;
    o.struct_size = sizeof(o);
    expect(shd_segment_create(name, &so, &segment), SHD_OK);
    expect(shd_dict_open(segment, "d", &o, &dict), SHD_OK);
    inner = &dict->dict;
}

static void start_max(uint64_t capacity, uint64_t max, uint32_t shards)
{
    struct shd_dict_options o = {.capacity_bytes = capacity,
                                 .capacity_max_bytes = max,
                                 .shards = shards};

    start_in(NULL, 8 * GIB, o);
}

static uint64_t committed(void)
{
    struct shd_segment_info i = {.struct_size = sizeof(i)};

    expect(shd_segment_info(segment, &i), SHD_OK);
    return i.committed_bytes;
}

static void name_key(char *key, unsigned n)
{
    snprintf(key, 32, "key:%u", n);
}

/* Keys 0 .. n - 1, of lengths that spread over the classes. */
static size_t length_of(unsigned n)
{
    return n * 37 % 900;
}

static void fill(unsigned n)
{
    char key[32];

    for (unsigned i = 0; i < n; i++) {
        name_key(key, i);
        expect(set(key, length_of(i), i), SHD_OK);
    }
}

/* How many of them are there; those that are, are whole. */
static unsigned count(unsigned from, unsigned n)
{
    struct shd_value v;
    unsigned there = 0;
    char key[32];

    for (unsigned i = from; i < n; i++) {
        int rc;

        name_key(key, i);
        rc = get(key, &v);
        if (rc == SHD_NOTFOUND)
            continue;
        expect(rc, SHD_OK);
        there++;
        ck_assert_uint_eq(v.len, length_of(i));
        pattern(bytes_in, v.len, i);
        ck_assert_int_eq(memcmp(bytes_out, bytes_in, v.len), 0);
    }
    return there;
}

/* Empties the dict. */
static void nothing_leaks(void)
{
    expect(shd_flush_all(dict), SHD_OK);
    expect(shd_flush_expired(dict, 0, NULL), SHD_OK);
    all_is_free();
}

static void resized(uint64_t capacity)
{
    struct shd_dict_info i;
    uint64_t bytes;

    expect(shd_dict_resize(dict, capacity), SHD_OK);
    sound();
    i = info();
    ck_assert_uint_eq(i.capacity_bytes, capacity);
    ck_assert_uint_eq(i.resizing, 0);
    ck_assert_uint_le(i.pages_committed, i.pages);
    ck_assert_uint_le(i.index_bytes + i.pages * 4096,
                      (capacity + 4095) / 4096 * 4096);
    expect(shd_capacity(dict, &bytes), SHD_OK);
    ck_assert_uint_eq(bytes, capacity);
    /* Descriptors and bits have gone as well, to the page. */
    ck_assert_uint_eq(i.index_bytes,
                      dict_index_bytes(inner, i.pages,
                                       dict_grain_of(inner, capacity)));
    /* The roots are as many as if it had been made so. */
    ck_assert_uint_eq(
        i.roots, index_roots(inner, dict_grain_of(inner, capacity)));
}

/* ---- up ---------------------------------------------------------------- */

START_TEST(a_dict_grows_and_keeps_what_it_has)
{
    static const uint32_t shards[] = {1, 4};
    uint64_t steps[] = {MIB + 4096, 2 * MIB, 3 * MIB + 17, 16 * MIB};

    start_max(MIB, 16 * MIB, shards[_i]);
    fill(1500);
    ck_assert_uint_eq(info().evictions, 0);
    for (unsigned i = 0; i < 4; i++) {
        resized(steps[i]);
        ck_assert_uint_eq(count(0, 1500), 1500);
    }
    fill(20000);
    ck_assert_uint_eq(info().evictions, 0);
    ck_assert_uint_eq(count(0, 20000), 20000);
    ck_assert_uint_eq(info().resizes, 4);
    sound();
}
END_TEST

START_TEST(a_full_dict_has_room_once_it_has_grown)
{
    uint64_t evictions, pages;

    start_max(256 * KIB, MIB, 1);
    fill(2000);
    evictions = info().evictions;
    ck_assert_uint_gt(evictions, 0);
    pages = info().pages;
    resized(300 * KIB); /* within a word of the map */
    ck_assert_uint_eq(info().pages, pages + 11);
    for (unsigned i = 0; i < 10; i++)
        expect(set(&"abcdefghijk"[i], 4000, i), SHD_OK);
    ck_assert_uint_eq(info().evictions, evictions);
    sound();
}
END_TEST

START_TEST(values_may_be_as_long_as_the_dict_has_become)
{
    uint64_t before;

    start_max(64 * KIB, 2 * MIB, 1);
    before = info().value_max_bytes;
    expect(set("long", 500000, 3), SHD_TOOBIG);
    resized(MIB);
    ck_assert_uint_gt(info().value_max_bytes, 10 * before);
    expect(set("long", 500000, 3), SHD_OK);
    holds("long", 500000, 3);
    resized(64 * KIB);
    expect(set("long", 500000, 3), SHD_TOOBIG);
    expect(get("long", &(struct shd_value){0}), SHD_NOTFOUND);
    ck_assert_uint_eq(info().value_max_bytes, before);
    nothing_leaks();
}
END_TEST

START_TEST(growing_beyond_the_reservation_says_how_far_it_goes)
{
    start_max(MIB, 4 * MIB, 1);
    fill(100);
    expect(shd_dict_resize(dict, 4 * MIB + 1), SHD_INVAL);
    expect_said("can have 4194304 bytes at most");
    expect_said("capacity_max_bytes");
    ck_assert_uint_eq(info().capacity_bytes, MIB);
    ck_assert_uint_eq(info().resizes, 0);
    resized(4 * MIB);
    /* All but what more roots take. */
    ck_assert_uint_eq(info().roots, 4 * MIB / 128);
    ck_assert_uint_ge(info().pages, inner->pages.max - 4 * MIB / 32 / 4096);
}
END_TEST

START_TEST(a_dict_grows_by_more_than_one_step_takes)
{
    uint64_t before;

    start_max(MIB, 2 * GIB, 1);
    fill(100);
    before = committed();
    resized(GIB);
    ck_assert_uint_eq(info().resizes, 4);
    /* 64 bytes a page, a root for each 128, and nothing for the pages. */
    ck_assert_uint_lt(committed() - before, GIB / 60 + GIB / 32);
    ck_assert_uint_eq(count(0, 100), 100);
    resized(MIB);
    ck_assert_uint_eq(count(0, 100), 100);
    ck_assert_uint_le(committed(), before);
}
END_TEST

/* ---- down -------------------------------------------------------------- */

START_TEST(what_fits_survives_shrinking)
{
    static const uint32_t shards[] = {1, 2, 8};
    uint64_t before;
    char key[32];

    start_max(8 * MIB, 8 * MIB, shards[_i]);
    fill(12000);
    ck_assert_uint_eq(info().evictions, 0);
    /* Holes everywhere, most of the rest is high up. */
    for (unsigned i = 0; i < 12000; i++) {
        name_key(key, i);
        if (i % 5 != 0)
            expect(del(key), SHD_OK);
    }
    before = committed();
    resized(3 * MIB);
    ck_assert_uint_eq(info().evictions, 0);
    ck_assert_uint_eq(info().entries, 2400);
    for (unsigned i = 0; i < 12000; i += 5)
        ck_assert_uint_eq(count(i, i + 1), 1);
    ck_assert_uint_lt(committed(), before - 4 * MIB);
    ck_assert_uint_gt(info().moves, 0);
}
END_TEST

START_TEST(memory_goes_back_to_the_system)
{
    uint64_t empty, full;

    start_max(512 * KIB, 64 * MIB, 1);
    empty = committed();
    resized(64 * MIB);
    fill(60000);
    full = committed();
    ck_assert_uint_gt(full, empty + 20 * MIB);
    resized(512 * KIB);
    ck_assert_uint_le(committed(), empty + 512 * KIB);
    ck_assert_uint_gt(count(0, 60000), 300);
    nothing_leaks();
    /* And again, to the same. */
    resized(64 * MIB);
    fill(60000);
    /* Memory is taken a MiB at a time. */
    ck_assert_uint_le(committed(), full + MIB);
    ck_assert_uint_eq(count(0, 60000), 60000);
}
END_TEST

START_TEST(a_full_dict_keeps_the_last_used_ones)
{
    unsigned kept;

    start_max(4 * MIB, 4 * MIB, 1);
    fill(20000);
    ck_assert_uint_gt(info().evictions, 0);
    resized(MIB);
    kept = count(0, 20000);
    ck_assert_uint_gt(kept, 1000);
    /* The newest, as far as whole pages of several classes let one say. */
    ck_assert_uint_gt(count(20000 - kept / 2, 20000), kept / 4);
}
END_TEST

START_TEST(expired_ones_go_first)
{
    char key[32];

    start_max(2 * MIB, 2 * MIB, 1);
    for (unsigned i = 0; i < 800; i++) {
        name_key(key, i);
        expect(set(key, length_of(i), i), SHD_OK);
        snprintf(key, sizeof(key), "old:%u", i);
        expect(store(SHD_SET, key, 900, i, 10, 0, NULL), SHD_OK);
    }
    clock_test_advance(20);
    resized(600 * KIB);
    ck_assert_uint_eq(info().evictions, 0);
    ck_assert_uint_gt(info().expirations, 0);
    ck_assert_uint_eq(count(0, 800), 800);
}
END_TEST

START_TEST(chains_and_lists_move)
{
    char key[32];
    struct shd_value v;
    uint64_t n;

    start_max(4 * MIB, 4 * MIB, 1);
    for (unsigned i = 0; i < 6; i++) {
        /* Something to be removed below everything that stays. */
        snprintf(key, sizeof(key), "gone:%u", i);
        expect(set(key, 300000, i), SHD_OK);
    }
    for (unsigned i = 0; i < 5; i++) {
        snprintf(key, sizeof(key), "long:%u", i);
        expect(set(key, 55000 + i * 1000, i), SHD_OK);
        for (unsigned k = 0; k < 20; k++) {
            size_t len = k == 7 ? 9000 : k * 13;

            expect(shd_push(dict, 0, "list", 4, SHD_STRING,
                            pattern(bytes_in, len, i * 20 + k), len, 0, NULL),
                   SHD_OK);
        }
    }
    memset(bytes_in, 'k', 5000);
    expect(shd_set(dict, bytes_in, 5000, "of a long key", 13, 0), SHD_OK);
    for (unsigned i = 0; i < 6; i++) {
        snprintf(key, sizeof(key), "gone:%u", i);
        expect(del(key), SHD_OK);
    }
    ck_assert_uint_eq(info().evictions, 0);
    resized(600 * KIB);
    ck_assert_uint_eq(info().evictions, 0);
    for (unsigned i = 0; i < 5; i++) {
        snprintf(key, sizeof(key), "long:%u", i);
        holds(key, 55000 + i * 1000, i);
    }
    memset(bytes_in, 'k', 5000);
    expect(shd_get(dict, bytes_in, 5000, bytes_out, VALUE_MAX, &v), SHD_OK);
    ck_assert_int_eq(memcmp(bytes_out, "of a long key", 13), 0);
    expect(shd_llen(dict, "list", 4, &n), SHD_OK);
    ck_assert_uint_eq(n, 100);
    for (unsigned i = 0; i < 100; i++) {
        size_t len = i % 20 == 7 ? 9000 : i % 20 * 13;

        expect(shd_pop(dict, 1, "list", 4, bytes_out, VALUE_MAX, &v), SHD_OK);
        ck_assert_uint_eq(v.len, len);
        pattern(bytes_in, len, i);
        ck_assert_int_eq(memcmp(bytes_out, bytes_in, len), 0);
    }
    sound();
}
END_TEST

START_TEST(a_dict_shrinks_to_its_index_and_a_page)
{
    uint64_t least = 8192;

    start_max(MIB, MIB, 2);
    fill(3000);
    while (dict_pages_of(inner, least, dict_grain_of(inner, least)) == 0)
        least += 4096;
    expect(shd_dict_resize(dict, least - 4096), SHD_INVAL);
    expect_said("it needs at least");
    expect(shd_dict_resize(dict, 0), SHD_INVAL);
    expect(shd_dict_resize(dict, 4096), SHD_INVAL);
    ck_assert_uint_eq(info().resizes, 0);
    resized(least);
    ck_assert_uint_eq(info().pages, 1);
    expect(set("k", 100, 1), SHD_OK);
    holds("k", 100, 1);
    expect(set("another", 1000, 2), SHD_OK);
    holds("another", 1000, 2);
    sound();
    resized(MIB);
    holds("another", 1000, 2);
    fill(500);
    ck_assert_uint_eq(count(0, 500), 500);
    nothing_leaks();
}
END_TEST

START_TEST(up_and_down_at_random)
{
    start_max(512 * KIB, 8 * MIB, 4);
    for (unsigned i = 0; i < 30; i++) {
        uint64_t capacity =
            128 * KIB + random_below(_i == 0 ? 700 * KIB : 8000 * KIB);

        fill(random_below(4000));
        resized(capacity);
        (void)count(0, 4000);
    }
    nothing_leaks();
}
END_TEST

START_TEST(the_same_capacity_is_no_change)
{
    start_max(MIB, MIB, 1);
    fill(100);
    expect(shd_dict_resize(dict, MIB), SHD_OK);
    ck_assert_uint_eq(info().resizes, 0);
    expect(shd_dict_resize(dict, MIB - 1), SHD_OK);
    ck_assert_uint_eq(info().capacity_bytes, MIB - 1);
    sound();
}
END_TEST

/* ---- others ------------------------------------------------------------ */

START_TEST(another_process_sees_the_new_size)
{
    int to[2], from[2];
    uint64_t capacity;
    char byte;
    pid_t pid;

    start_max(MIB, 8 * MIB, 2);
    fill(1000);
    ck_assert_int_eq(pipe(to) | pipe(from), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        unsigned there = count(0, 1000);

        close(to[1]);
        close(from[0]);
        while (there == 1000 && read(to[0], &byte, 1) == 1) {
            uint64_t wanted = byte == 'u' ? 8 * MIB : MIB;
            bool good = shd_capacity(dict, &capacity) == SHD_OK &&
                        capacity == wanted && count(0, 1000) == 1000;

            if (good && byte == 'u')
                fill(9000);
            good = good && (byte != 'u' || count(0, 9000) == 9000);
            if (!good || write(from[1], &byte, 1) != 1)
                break;
        }
        _exit(0);
    }
    close(to[0]);
    close(from[1]);
    expect(shd_dict_resize(dict, 8 * MIB), SHD_OK);
    ck_assert_int_eq(write(to[1], "u", 1), 1);
    ck_assert_int_eq(read(from[0], &byte, 1), 1);
    ck_assert_uint_eq(count(0, 9000), 9000);
    for (unsigned i = 1000; i < 9000; i++) {
        char key[32];

        name_key(key, i);
        expect(del(key), SHD_OK);
    }
    resized(MIB);
    ck_assert_int_eq(write(to[1], "d", 1), 1);
    ck_assert_int_eq(read(from[0], &byte, 1), 1);
    close(to[1]);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    sound();
}
END_TEST

static char path[64];

static void remove_segment(void)
{
    if (path[0] != '\0')
        expect(shd_segment_destroy(path), SHD_OK);
}

START_TEST(a_read_only_attachment_follows_and_cannot_resize)
{
    struct shd_segment_options so = {.struct_size = sizeof(so),
                                     .flags = SHD_ATTACH_READONLY};
    struct shd_dict_options o = {.capacity_bytes = MIB,
                                 .capacity_max_bytes = 16 * MIB};
    shd_segment *r;
    shd_dict *d;
    uint64_t bytes;
    char report[200];

    snprintf(path, sizeof(path), "/dev/shm/unit-resize-%d", (int)getpid());
    start_in(path, 64 * MIB, o);
    fill(500);
    expect(shd_segment_attach(path, &so, &r), SHD_OK);
    expect(shd_dict_open(r, "d", NULL, &d), SHD_OK);
    expect(shd_dict_resize(d, 2 * MIB), SHD_READONLY);
    for (unsigned i = 0; i < 10; i++) {
        shd_dict *own = dict;
        unsigned n;

        resized(i % 2 == 0 ? 16 * MIB : 300 * KIB);
        fill(i % 2 == 0 ? 20000 : 300);
        n = count(0, 20000);
        dict = d;
        ck_assert_uint_eq(count(0, 20000), n);
        dict = own;
        expect(shd_capacity(d, &bytes), SHD_OK);
        ck_assert_uint_eq(bytes, i % 2 == 0 ? 16 * MIB : 300 * KIB);
        expect(shd_segment_check(r, report, sizeof(report)), SHD_OK);
    }
    remove_segment();
}
END_TEST

START_TEST(opening_it_asks_for_the_capacity_that_it_has)
{
    struct shd_object_info object = {.struct_size = sizeof(object)};
    struct shd_dict_options o = dict_options(MIB, 1, 0);
    shd_dict *again;

    start_max(MIB, 4 * MIB, 1);
    resized(2 * MIB);
    expect(shd_dict_open(segment, "d", &o, &again), SHD_MISMATCH);
    expect_said("exists with a capacity of 2097152 bytes, not 1048576");
    expect_said("resize");
    o.flags = SHD_DICT_ANY_CAPACITY;
    expect(shd_dict_open(segment, "d", &o, &again), SHD_OK);
    ck_assert_ptr_eq(again, dict);
    o.flags = 2;
    expect(shd_dict_open(segment, "d", &o, &again), SHD_INVAL);
    o.flags = 0;
    o.capacity_bytes = 2 * MIB;
    expect(shd_dict_open(segment, "d", &o, &again), SHD_OK);
    expect(shd_object_info(segment, 0, &object), SHD_OK);
    ck_assert_uint_eq(object.size_bytes, 2 * MIB);
    expect(shd_dict_destroy(segment, "d"), SHD_OK);
    expect(shd_dict_resize(dict, MIB), SHD_GONE);
    expect(shd_dict_resize(dict, GIB), SHD_GONE);
}
END_TEST

/* A child that holds the lock of a shard, stopped. */
static pid_t stopped_holder(uint32_t shard)
{
    int status;
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        uint64_t incarnation;

        if (shd_worker_join(segment, &incarnation) != SHD_OK ||
            dict_lock(inner, shard) != SHD_OK)
            _exit(1);
        raise(SIGSTOP);
        dict_unlock(inner, shard);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
    ck_assert(WIFSTOPPED(status));
    return pid;
}

/* Shrunk as far as a stopped worker lets it be. */
static pid_t shrunk_halfway(uint32_t shard)
{
    pid_t pid;

    start_max(4 * MIB, 8 * MIB, 4);
    fill(5500);
    ck_assert_uint_eq(info().evictions, 0);
    pid = stopped_holder(shard);
    segment->env.wait_ms = 20;
    expect(shd_dict_resize(dict, MIB), SHD_BUSY);
    segment->env.wait_ms = 2000;
    ck_assert_uint_eq(info().capacity_bytes, MIB);
    ck_assert_uint_eq(info().resizing, 1);
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    wait_killed(pid);
    sound();
    return pid;
}

START_TEST(a_resize_that_was_cut_off_is_finished_by_the_next)
{
    (void)shrunk_halfway(1 + (uint32_t)_i % 3);
    ck_assert_uint_eq(count(0, 5500), 5500);
    fill(50);
    sound();
    resized(MIB);
    ck_assert_uint_lt(count(0, 5500), 4000);
    nothing_leaks();
}
END_TEST

START_TEST(growing_again_takes_back_what_was_not_removed_yet)
{
    (void)shrunk_halfway(1 + (uint32_t)_i % 3);
    resized(_i < 3 ? 4 * MIB : 3 * MIB + 500 * KIB + 4096ull * (unsigned)_i);
    if (_i < 3)
        ck_assert_uint_eq(count(0, 5500), 5500);
    /* Free cells of pages that had left are given out again. */
    ck_assert_uint_eq(info().evictions > 0, _i >= 3 && count(0, 5500) < 5500);
    resized(8 * MIB);
    fill(12000);
    ck_assert_uint_eq(count(0, 12000), 12000);
    nothing_leaks();
}
END_TEST

START_TEST(of_two_the_later_decides)
{
    struct dict_header *h;
    pid_t holder, first;
    int status;

    start_max(4 * MIB, 8 * MIB, 4);
    fill(2000);
    h = inner->header;
    holder = stopped_holder(2);
    first = fork();
    ck_assert_int_ge(first, 0);
    if (first == 0) {
        segment->env.wait_ms = 60000;
        _exit(shd_dict_resize(dict, MIB) == SHD_BUSY &&
                      strstr(shd_last_error(), "has taken over") != NULL
                  ? 0
                  : 1);
    }
    while (atomic_load64(&h->unsettled) == 0)
        usleep(1000);
    /* As another one's change counts. */
    atomic_store64(&h->resizes, atomic_load64(&h->resizes) + 1);
    ck_assert_int_eq(kill(holder, SIGCONT), 0);
    ck_assert_int_eq(waitpid(first, &status, 0), first);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(waitpid(holder, &status, 0), holder);
    sound();
    ck_assert_uint_eq(info().resizing, 1);
    resized(2 * MIB);
}
END_TEST

/* Threads of one process read, store and resize. */
struct crowd {
    uint32_t stop;
    uint64_t done;
};

static void *reads(void *context)
{
    struct crowd *c = context;
    unsigned char *buf = malloc(VALUE_MAX), *wanted = malloc(VALUE_MAX);
    struct shd_value v;
    char key[32];

    for (unsigned i = 0; atomic_load32(&c->stop) == 0; i = (i + 7) % 3000) {
        int rc;

        name_key(key, i);
        rc = shd_get(dict, key, strlen(key), buf, VALUE_MAX, &v);
        if (rc == SHD_NOTFOUND)
            continue;
        if (rc != SHD_OK || v.len != length_of(i) ||
            memcmp(buf, pattern(wanted, v.len, i), v.len) != 0)
            abort();
        atomic_store64(&c->done, c->done + 1);
    }
    free(buf);
    free(wanted);
    return NULL;
}

static void *stores(void *context)
{
    struct crowd *c = context;
    unsigned char *buf = malloc(VALUE_MAX);
    char key[32];

    for (unsigned i = 0; atomic_load32(&c->stop) == 0; i = (i + 11) % 3000) {
        name_key(key, i);
        if (shd_set(dict, key, strlen(key), pattern(buf, length_of(i), i),
                    length_of(i), 0) != SHD_OK)
            abort();
        atomic_store64(&c->done, c->done + 1);
    }
    free(buf);
    return NULL;
}

START_TEST(readers_and_writers_go_on_meanwhile)
{
    struct crowd c[3] = {{0, 0}, {0, 0}, {0, 0}};
    pthread_t t[3];

    start_max(MIB, 8 * MIB, 4);
    fill(3000);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(
            pthread_create(&t[i], NULL, i < 2 ? reads : stores, &c[i]), 0);
    for (unsigned i = 0; i < 40; i++) {
        uint64_t capacity = i % 2 == 0 ? 300 * KIB + i * 4096 : 8 * MIB;

        expect(shd_dict_resize(dict, capacity), SHD_OK);
    }
    for (int i = 0; i < 3; i++)
        while (atomic_load64(&c[i].done) < 1000)
            usleep(1000);
    for (int i = 0; i < 3; i++) {
        atomic_store32(&c[i].stop, 1);
        ck_assert_int_eq(pthread_join(t[i], NULL), 0);
    }
    sound();
    nothing_leaks();
}
END_TEST

/* ---- the reservation --------------------------------------------------- */

START_TEST(what_is_reserved_and_unused_costs_no_memory)
{
    uint64_t bytes[2];

    for (int i = 0; i < 2; i++) {
        struct shd_dict_options o = {.capacity_bytes = 4 * MIB};
        uint64_t before;

        o.capacity_max_bytes = i == 0 ? 4 * MIB : 32 * GIB;
        start_in(NULL, 64 * GIB,
                 (struct shd_dict_options){.capacity_bytes = 8192});
        before = committed();
        o.struct_size = sizeof(o);
        expect(shd_dict_open(segment, "other", &o, &dict), SHD_OK);
        inner = &dict->dict;
        fill(1000);
        sound();
        bytes[i] = committed() - before;
        ck_assert_uint_le(bytes[i], 4 * MIB + 2 * 8192);
    }
    /* The map's end and the table's beginning are apart: a page at most. */
    ck_assert_uint_le(bytes[1], bytes[0] + 4096);
}
END_TEST

START_TEST(by_default_there_is_room_to_grow)
{
    struct shd_dict_options o = {.capacity_bytes = 8 * MIB, .shards = 1};
    char name[16];
    unsigned n = 0;

    start_in(NULL, 8 * GIB, o);
    ck_assert_uint_ge(info().capacity_max_bytes, 15 * 8 * MIB);
    ck_assert_uint_le(info().capacity_max_bytes, 16 * 8 * MIB);
    o.struct_size = sizeof(o);
    expect(shd_segment_close(segment), SHD_OK);
    /* And for hundreds of others. */
    struct shd_segment_options so = {
        .struct_size = sizeof(so), .size_bytes = 8 * GIB, .objects_max = 256};
    expect(shd_segment_create(NULL, &so, &segment), SHD_OK);
    for (; n < 180; n++) {
        snprintf(name, sizeof(name), "d%u", n);
        expect(shd_dict_open(segment, name, &o, &dict), SHD_OK);
    }
    inner = &dict->dict;
    ck_assert_uint_ge(info().capacity_max_bytes, 8 * MIB);
    sound();
}
END_TEST

START_TEST(where_room_is_scarce_less_is_reserved)
{
    struct shd_dict_options o = {.capacity_bytes = 48 * MIB};

    start_in(NULL, 64 * MIB, o);
    ck_assert_uint_eq(info().capacity_max_bytes, 48 * MIB);
    expect(shd_dict_resize(dict, 50 * MIB), SHD_INVAL);
    resized(8 * MIB);
    resized(48 * MIB);
}
END_TEST

START_TEST(small_dicts_lose_no_page_to_it)
{
    static const uint64_t sizes[] = {8 * KIB, 16 * KIB, 64 * KIB};
    struct shd_dict_options o = {.capacity_bytes = sizes[_i]};
    uint64_t pages;

    start_in(NULL, 8 * GIB, o);
    ck_assert_uint_ge(info().capacity_max_bytes, 16 * sizes[_i]);
    pages = info().pages;
    o.capacity_max_bytes = sizes[_i];
    start_in(NULL, 8 * GIB, o);
    ck_assert_uint_eq(info().pages, pages);
}
END_TEST

START_TEST(a_maximum_below_the_capacity_is_refused)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = 2 * MIB,
                                 .capacity_max_bytes = MIB};
    shd_dict *d;

    start(MIB);
    expect(shd_dict_open(segment, "e", &o, &d), SHD_INVAL);
    expect_said("capacity_max_bytes");
    o.capacity_max_bytes = 65 * GIB;
    expect(shd_dict_open(segment, "e", &o, &d), SHD_INVAL);
    o.capacity_max_bytes = 63 * MIB;
    expect(shd_dict_open(segment, "e", &o, &d), SHD_NOMEM);
}
END_TEST

/* ---- trouble ----------------------------------------------------------- */

START_TEST(a_full_file_system_refuses_and_changes_nothing)
{
    struct shd_dict_options o = {.capacity_bytes = 256 * KIB,
                                 .capacity_max_bytes = 2 * GIB};
    char directory[] = "/tmp/unit-resize-XXXXXX";
    uint64_t before;

    ck_assert_ptr_nonnull(mkdtemp(directory));
    if (!mount_tmpfs(directory, "1500k"))
        return;
    snprintf(path, sizeof(path), "%s/s", directory);
    start_in(path, 4 * GIB, o);
    fill(300);
    before = committed();
    expect(shd_dict_resize(dict, GIB), SHD_NOMEM);
    sound();
    ck_assert_uint_eq(info().capacity_bytes, 256 * KIB);
    ck_assert_uint_eq(info().resizing, 0);
    ck_assert_uint_le(committed(), before);
    ck_assert_uint_eq(count(0, 300), 300);
    /* Descriptors fit, and the pages do not: stores evict. */
    resized(16 * MIB);
    fill(5000);
    ck_assert_uint_gt(info().evictions, 0);
    sound();
    resized(128 * KIB);
    fill(5000);
    nothing_leaks();
    remove_segment();
}
END_TEST

START_TEST(damage_is_named_and_followed_nowhere)
{
    struct dict_header *h;
    struct pages_bounds good;
    struct page *p;

    start_max(MIB, 4 * MIB, 1);
    fill(200);
    h = inner->header;
    good = h->bounds;
    h->bounds.limit = inner->pages.max + 1ull;
    expect_check_names("its header is damaged");
    expect(shd_dict_resize(dict, 2 * MIB), SHD_CORRUPT);
    expect(set("k", 100, 1), SHD_OK);
    h->bounds.limit = 0;
    expect_check_names("its header is damaged");
    expect(shd_dict_resize(dict, 2 * MIB), SHD_CORRUPT);
    expect(set("another", 3000, 1), SHD_CORRUPT);
    expect(set("large", 30000, 1), SHD_TOOBIG);
    h->bounds.limit = good.limit - 1;
    expect_check_names("resized halfway");
    h->bounds.limit = good.limit + 1;
    expect_check_names("the limit of its pages cannot be");
    expect(shd_dict_resize(dict, 2 * MIB), SHD_CORRUPT);
    h->bounds.limit = h->bounds.described = good.limit + 1;
    expect_check_names("its capacity is not what its limit was made from");
    h->bounds = good;
    h->bounds.described++;
    expect_check_names("resized halfway");
    pages_set_committed(&inner->pages, good.described + 1);
    h->bounds.described = good.described;
    expect_check_names("more pages are committed than described");
    h->bounds = good;
    h->unsettled = 2;
    expect_check_names("resized halfway");
    h->unsettled = 0;
    h->capacity_bytes += 8192;
    expect_check_names("its capacity is not");
    h->capacity_bytes -= 8192;
    h->capacity_bytes |= 0xfffffffull << 36;
    expect_check_names("its capacity is not");
    h->capacity_bytes &= ~(0xfffffffull << 36);
    h->capacity_max_bytes |= 0xfffffffull << 36;
    expect_check_names("its header is damaged");
    expect(shd_dict_resize(dict, UINT64_MAX - 4095), SHD_INVAL);
    h->capacity_max_bytes &= ~(0xfffffffull << 36);
    p = &inner->pages.table[0];
    ck_assert_uint_ne(p->owner, 0);
    p->info |= PAGE_LEAVING;
    expect_check_names("page 0 is leaving, and nothing is resized");
    p->info &= ~PAGE_LEAVING;
    sound();
    resized(2 * MIB);
    /* A page that says it is another's holds up the emptying, not its heap. */
    p = &inner->pages.table[inner->pages.bounds->limit - 1];
    p->owner = 77;
    expect(shd_dict_resize(dict, MIB), SHD_CORRUPT);
    expect_said("has an owner");
    p->owner = 0;
    resized(MIB);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("resize");
    TCase *t = tcase_create("up");

    tcase_add_loop_test(t, a_dict_grows_and_keeps_what_it_has, 0, 2);
    tcase_add_test(t, a_full_dict_has_room_once_it_has_grown);
    tcase_add_test(t, values_may_be_as_long_as_the_dict_has_become);
    tcase_add_test(t, growing_beyond_the_reservation_says_how_far_it_goes);
    tcase_add_test(t, a_dict_grows_by_more_than_one_step_takes);
    suite_add_tcase(s, t);
    t = tcase_create("down");
    tcase_add_loop_test(t, what_fits_survives_shrinking, 0, 3);
    tcase_add_test(t, memory_goes_back_to_the_system);
    tcase_add_test(t, a_full_dict_keeps_the_last_used_ones);
    tcase_add_test(t, expired_ones_go_first);
    tcase_add_test(t, chains_and_lists_move);
    tcase_add_test(t, a_dict_shrinks_to_its_index_and_a_page);
    tcase_add_loop_test(t, up_and_down_at_random, 0, 2);
    tcase_add_test(t, the_same_capacity_is_no_change);
    suite_add_tcase(s, t);
    t = tcase_create("others");
    tcase_add_test(t, another_process_sees_the_new_size);
    tcase_add_test(t, a_read_only_attachment_follows_and_cannot_resize);
    tcase_add_test(t, opening_it_asks_for_the_capacity_that_it_has);
    tcase_add_loop_test(t, a_resize_that_was_cut_off_is_finished_by_the_next,
                        0, 3);
    tcase_add_loop_test(t, growing_again_takes_back_what_was_not_removed_yet,
                        0, 6);
    tcase_add_test(t, of_two_the_later_decides);
    tcase_add_test(t, readers_and_writers_go_on_meanwhile);
    suite_add_tcase(s, t);
    t = tcase_create("reservation");
    tcase_add_test(t, what_is_reserved_and_unused_costs_no_memory);
    tcase_add_test(t, by_default_there_is_room_to_grow);
    tcase_add_test(t, where_room_is_scarce_less_is_reserved);
    tcase_add_loop_test(t, small_dicts_lose_no_page_to_it, 0, 3);
    tcase_add_test(t, a_maximum_below_the_capacity_is_refused);
    suite_add_tcase(s, t);
    t = tcase_create("trouble");
    tcase_add_test(t, a_full_file_system_refuses_and_changes_nothing);
    tcase_add_test(t, damage_is_named_and_followed_nowhere);
    suite_add_tcase(s, t);
    return run_suite(s);
}
