/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite dict: opening, laying out, describing and destroying dicts, handles
 * in threads and processes. */
#include "tests/unit/fixture.h"

#include <pthread.h>
#include <sys/socket.h>

#define MIB (1u << 20)

static int open_dict(const char *name, uint64_t capacity, uint32_t shards,
                     shd_dict **out)
{
    struct shd_dict_options o = dict_options(capacity, shards, 0);

    return shd_dict_open(segment, name, &o, out);
}

/* ---- opening ---------------------------------------------------------- */

START_TEST(opening_again_gives_the_same_handle_which_is_counted)
{
    shd_dict *again, *third;
    struct shd_value v;

    start(MIB);
    expect(open_dict("d", MIB, 0, &again), SHD_OK);
    expect(shd_dict_open(segment, "d", NULL, &third), SHD_OK);
    ck_assert_ptr_eq(again, dict);
    ck_assert_ptr_eq(third, dict);
    expect(shd_dict_close(dict), SHD_OK);
    expect(shd_dict_close(dict), SHD_OK);
    expect(set("k", 5, 1), SHD_OK);
    expect(shd_dict_close(dict), SHD_OK);
    expect(set("k", 5, 1), SHD_CLOSED);
    expect(get("k", &v), SHD_CLOSED);
    expect(del("k"), SHD_CLOSED);
    expect(shd_dict_info(dict, &(struct shd_dict_info){.struct_size = 8}),
           SHD_CLOSED);
    expect(shd_dict_close(dict), SHD_CLOSED);
    expect(shd_dict_close(NULL), SHD_INVAL);
    /* It is all there when it is opened anew. */
    expect(shd_dict_open(segment, "d", NULL, &dict), SHD_OK);
    holds("k", 5, 1);
}
END_TEST

START_TEST(closing_the_segment_closes_its_dicts)
{
    struct shd_value v;

    start(MIB);
    expect(shd_segment_close(segment), SHD_OK);
    expect(get("k", &v), SHD_CLOSED);
    expect(set("k", 5, 1), SHD_CLOSED);
    expect(shd_dict_open(segment, "d", NULL, &dict), SHD_CLOSED);
}
END_TEST

START_TEST(what_cannot_be_opened_says_why)
{
    struct shd_dict_options o = dict_options(MIB, 0, 0);
    shd_dict *d = NULL;

    start(MIB);
    expect(shd_dict_open(segment, "missing", NULL, &d), SHD_NOTFOUND);
    expect(open_dict("missing", 0, 0, &d), SHD_NOTFOUND);
    expect(open_dict("d", 2 * MIB, 0, &d), SHD_MISMATCH);
    expect_said("a capacity of 1048576 bytes, not 2097152");
    expect(open_dict("d", 0, 0, &d), SHD_OK);
    expect(open_dict("small", 8191, 0, &d), SHD_INVAL);
    expect_said("8191");
    expect(open_dict("odd", MIB, 3, &d), SHD_INVAL);
    expect(open_dict("many", MIB, 512, &d), SHD_INVAL);
    for (uint32_t shards = 8; shards <= 256; shards *= 2) {
        expect(open_dict("crowded", 8192, shards, &d), SHD_INVAL);
        expect_said("too small for");
    }
    expect(open_dict("huge", 1ull << 37, 0, &d), SHD_INVAL);
    expect(open_dict("large", 1ull << 30, 0, &d), SHD_NOMEM);
    expect(shd_dict_open(segment, NULL, &o, &d), SHD_INVAL);
    expect(shd_dict_open(segment, "x", &o, NULL), SHD_INVAL);
    expect(shd_dict_open(NULL, "x", &o, &d), SHD_INVAL);
    o.struct_size = 0;
    expect(shd_dict_open(segment, "x", &o, &d), SHD_INVAL);
    o.struct_size = sizeof(o) + 1;
    expect(shd_dict_open(segment, "x", &o, &d), SHD_INVAL);
    sound();
}
END_TEST

START_TEST(names_have_limits)
{
    char name[65];
    shd_dict *d;

    start(MIB);
    memset(name, 'n', sizeof(name));
    name[64] = '\0';
    expect(open_dict(name, 8192, 0, &d), SHD_NAME);
    name[63] = '\0';
    expect(open_dict(name, 8192, 0, &d), SHD_OK);
    ck_assert_str_eq(d->dict.name, name);
    expect(open_dict("", 8192, 0, &d), SHD_NAME);
    expect(open_dict("a/b", 8192, 0, &d), SHD_NAME);
    expect(open_dict("a\tb", 8192, 0, &d), SHD_NAME);
    expect(open_dict("a\x7f", 8192, 0, &d), SHD_NAME);
    expect(open_dict("spaces and \xc3\xa9 are fine", 8192, 0, &d), SHD_OK);
}
END_TEST

START_TEST(objects_and_locks_run_out_cleanly)
{
    shd_dict *d;
    char name[16];
    int rc, n;

    start(MIB);
    for (n = 1; n < 20; n++) {
        snprintf(name, sizeof(name), "d%d", n);
        rc = open_dict(name, 16384, 0, &d);
        if (rc != SHD_OK)
            break;
    }
    expect(rc, SHD_FULL);
    ck_assert_int_eq(n, 8);
    expect(shd_dict_destroy(segment, "d3"), SHD_OK);
    expect(open_dict("locks", MIB, 256, &d), SHD_OK);
    expect(shd_dict_destroy(segment, "d4"), SHD_OK);
    expect(open_dict("more locks", MIB, 64, &d), SHD_FULL);
    expect(open_dict("again", 16384, 1, &d), SHD_OK);
    sound();
}
END_TEST

/* ---- layout ----------------------------------------------------------- */

struct region {
    const void *at;
    uint64_t bytes;
};

static void regions_are_apart(void)
{
    const struct index_shape shape = {inner->order_bits, inner->grain_first,
                                      inner->grain_min};
    struct catalogue_object o;
    struct region r[7];

    expect(catalogue_find(&segment->env, "d", &o), SHD_OK);
    r[0] = (struct region){segment_at(&segment->segment, o.extent_at, 256),
                           256};
    r[1] = (struct region){inner->shard, inner->shards * 512ull};
    r[2] = (struct region){roots_now(), roots_count() * 4ull};
    r[3] = (struct region){inner->pages.map,
                           (inner->pages.max + 63) / 64 * 8ull};
    r[4] = (struct region){inner->pages.table, inner->pages.max * 64ull};
    r[5] = (struct region){pages_address(&inner->pages, 0),
                           inner->pages.max * 4096ull};
    r[6] = (struct region){pages_address(&inner->pages, inner->pages.max),
                           index_arrays_bytes(&shape)};
    for (int i = 0; i < 7; i++) {
        uint64_t at = segment_offset(&segment->segment, r[i].at);

        ck_assert_uint_ge(at, o.extent_at);
        ck_assert_uint_le(at + r[i].bytes, o.extent_at + o.extent_bytes);
        if (i > 0)
            ck_assert((const char *)r[i].at >=
                      (const char *)r[i - 1].at + r[i - 1].bytes);
    }
    ck_assert_uint_eq(segment_offset(&segment->segment, r[5].at) % 4096, 0);
    ck_assert_uint_eq(segment_offset(&segment->segment, r[4].at) % 16, 0);
    ck_assert_uint_eq(segment_offset(&segment->segment, r[6].at) + r[6].bytes,
                      o.extent_at + o.extent_bytes);
}

/* What of the capacity no page could be made of: less than a page, and what
 * rounding the parts to pages takes. */
static void capacity_is_used_up(void)
{
    struct shd_dict_info i = info();
    uint64_t used = i.index_bytes + i.pages * 4096;
    uint64_t capacity = (i.capacity_bytes + 4095) / 4096 * 4096;

    ck_assert_uint_le(used, capacity);
    ck_assert_uint_gt(used + 2 * 4096, capacity);
    ck_assert_uint_le(i.capacity_bytes, i.capacity_max_bytes);
}

START_TEST(the_parts_of_a_dict_lie_apart_and_fill_its_capacity)
{
    static const uint64_t capacities[] = {8192,  8193,     12288,    20000,
                                          65536, MIB,      3 * MIB,  4 * MIB,
                                          5 * MIB, 16 * MIB, 40 * MIB};
    static const uint32_t shards_by_default[] = {1, 1, 1, 1, 1, 1,
                                                 1, 8, 8, 8, 16};
    struct shd_dict_info i;

    start(capacities[_i]);
    start_named(NULL, capacities[_i], 0, 0);
    ck_assert_uint_eq(inner->shards, shards_by_default[_i]);
    regions_are_apart();
    i = info();
    ck_assert_uint_eq(i.capacity_bytes, capacities[_i]);
    capacity_is_used_up();
    expect(set("k", 100, 1), SHD_OK);
    holds("k", 100, 1);
    sound();
    expect(del("k"), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(shards_and_roots_are_as_asked)
{
    static const struct {
        uint32_t shards;
        uint64_t entries;
        uint32_t root_bits;
    } asked[] = {{1, 1, 4},       {1, 16, 4},    {1, 100, 6}, {2, 4096, 11},
                 {256, 1, 4},     {64, 32768, 9},
                 {4, 1ull << 60, 13}, /* no more than entries could be */
                 {1, 0, 14}};

    start_named(NULL, 2 * MIB, asked[_i].shards, asked[_i].entries);
    ck_assert_uint_eq(inner->shards, asked[_i].shards);
    ck_assert_uint_eq(info().roots,
                      (uint64_t)inner->shards << asked[_i].root_bits);
    regions_are_apart();
    for (int k = 0; k < 200; k++) {
        char key[16];

        snprintf(key, sizeof(key), "k%d", k);
        expect(set(key, 30, 1), SHD_OK);
    }
    ck_assert_uint_eq(info().entries, 200);
    sound();
}
END_TEST

/* ---- what it says of itself ------------------------------------------- */

START_TEST(the_numbers_of_a_dict_are_those_of_what_is_in_it)
{
    struct shd_dict_info i;
    uint64_t bytes;

    start_named(NULL, 4 * MIB, 4, 0);
    i = info();
    ck_assert_str_eq(i.name, "d");
    ck_assert_uint_eq(i.shards, 4);
    ck_assert_uint_ne(i.generation, 0);
    ck_assert_uint_eq(i.free_bytes, i.pages * 4096);
    ck_assert_uint_eq(i.value_max_bytes, (i.pages - 1) * CHAIN_DATA_MAX);
    expect(set("k", 8, 1), SHD_OK);
    expect(set("chain", 8144, 1), SHD_OK);
    expect(set_ttl("expires", 10), SHD_OK);
    i = info();
    ck_assert_uint_eq(i.entries, 3);
    ck_assert_uint_eq(i.cells_bytes, 48 + 48 + 2 * 4096 + 48);
    ck_assert_uint_eq(i.free_bytes, i.pages * 4096 - i.cells_bytes);
    ck_assert_uint_gt(i.pages_committed, 0);
    clock_test_advance(10);
    expect(shd_flush_expired(dict, 0, NULL), SHD_OK);
    ck_assert_uint_eq(info().expirations, 1);
    expect(shd_capacity(dict, &bytes), SHD_OK);
    ck_assert_uint_eq(bytes, 4 * MIB);
    expect(shd_free_space(dict, &bytes), SHD_OK);
    ck_assert_uint_eq(bytes, info().free_bytes);
    expect(shd_capacity(dict, NULL), SHD_INVAL);
    expect(shd_free_space(dict, NULL), SHD_INVAL);
    expect(shd_dict_info(dict, NULL), SHD_INVAL);
}
END_TEST

START_TEST(a_caller_of_an_older_version_gets_what_it_knows)
{
    struct shd_dict_info i;

    start(MIB);
    memset(&i, 0xee, sizeof(i));
    i.struct_size = 24;
    expect(shd_dict_info(dict, &i), SHD_OK);
    ck_assert_uint_eq(i.struct_size, 24);
    ck_assert_uint_eq(i.capacity_bytes, MIB);
    ck_assert_uint_eq(i.free_bytes, 0xeeeeeeeeeeeeeeeeull);
    i.struct_size = 3;
    expect(shd_dict_info(dict, &i), SHD_INVAL);
    i.struct_size = sizeof(i) + 100;
    expect(shd_dict_info(dict, &i), SHD_OK);
    ck_assert_uint_eq(i.struct_size, sizeof(i));
}
END_TEST

/* ---- destroying ------------------------------------------------------- */

static void all_answer(int code)
{
    struct shd_value v;
    uint64_t n;
    int64_t ttl;
    double sum;
    size_t len;
    char key[16];
    shd_keys *k;

    expect(get("k", &v), code);
    expect(get_stale("k", &v), code);
    expect(set("k", 5, 1), code);
    expect(store(SHD_ADD | SHD_SAFE, "k", 50000, 1, 0, 0, NULL), code);
    expect(del("k"), code);
    expect(shd_incr(dict, "k", 1, 1, 1, 0, 0, &sum, NULL), code);
    expect(shd_ttl(dict, "k", 1, &ttl), code);
    expect(shd_expire(dict, "k", 1, 1), code);
    expect(push(0, "l", 5, 1), code);
    expect(shd_pop(dict, 0, "l", 1, bytes_out, 10, &v), code);
    expect(shd_llen(dict, "l", 1, &n), code);
    expect(shd_scan(dict, NULL, 0, 0, key, 8, &len, NULL, 0, &v), code);
    expect(shd_keys_get(dict, 0, &k), code);
    expect(shd_flush_expired(dict, 0, NULL), code);
}

START_TEST(a_destroyed_dict_answers_gone_and_one_of_its_name_is_another)
{
    uint64_t generation;
    shd_dict *old;

    start(MIB);
    expect(set("k", 5, 1), SHD_OK);
    expect(push(0, "l", 5, 1), SHD_OK);
    generation = info().generation;
    expect(shd_dict_destroy(segment, "d"), SHD_OK);
    expect(shd_dict_destroy(segment, "d"), SHD_NOTFOUND);
    expect(shd_dict_destroy(segment, NULL), SHD_INVAL);
    all_answer(SHD_GONE);
    sound();
    old = dict;
    expect(open_dict("d", 2 * MIB, 1, &dict), SHD_OK);
    ck_assert_ptr_ne(dict, old);
    inner = &dict->dict;
    ck_assert_uint_ne(info().generation, generation);
    ck_assert_uint_eq(info().entries, 0);
    all_is_free();
    expect(set("k", 6, 2), SHD_OK);
    dict = old;
    all_answer(SHD_GONE);
    expect(shd_dict_close(old), SHD_OK);
}
END_TEST

START_TEST(destroying_while_another_process_works_is_seen_there)
{
    int ends[2], status;
    pid_t pid;
    char c = 0;

    start(MIB);
    expect(set("k", 5, 1), SHD_OK);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct shd_value v;
        int rc;

        rc = get("k", &v);
        if (rc != SHD_OK || write(ends[0], &c, 1) != 1 ||
            read(ends[0], &c, 1) != 1)
            _exit(1);
        if (get("k", &v) != SHD_GONE || set("k", 5, 1) != SHD_GONE)
            _exit(2);
        _exit(0);
    }
    ck_assert_int_eq(read(ends[1], &c, 1), 1);
    expect(shd_dict_destroy(segment, "d"), SHD_OK);
    ck_assert_int_eq(write(ends[1], &c, 1), 1);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(dicts_of_one_segment_do_not_evict_each_other)
{
    shd_dict *first, *second;

    start(65536);
    first = dict;
    expect(open_dict("other", 65536, 1, &second), SHD_OK);
    for (int i = 0; i < 10; i++) {
        char key[16];

        snprintf(key, sizeof(key), "k%d", i);
        expect(set(key, 100, (unsigned)i), SHD_OK);
    }
    dict = second;
    for (int i = 0; i < 1000; i++) {
        char key[16];

        snprintf(key, sizeof(key), "k%d", i);
        expect(set(key, 900, 99), SHD_OK);
    }
    ck_assert_uint_gt(info().evictions, 500);
    dict = first;
    for (int i = 0; i < 10; i++) {
        char key[16];

        snprintf(key, sizeof(key), "k%d", i);
        holds(key, 100, (unsigned)i);
    }
    ck_assert_uint_eq(info().evictions, 0);
    sound();
}
END_TEST

/* ---- threads and processes -------------------------------------------- */

#define THREADS 4u
#define TURNS 4000u

struct worker {
    uint64_t seed;
    unsigned char out[8192], in[8192];
};

static uint32_t below(struct worker *w, uint32_t n)
{
    w->seed ^= w->seed << 13;
    w->seed ^= w->seed >> 7;
    w->seed ^= w->seed << 17;
    return (uint32_t)((w->seed >> 16) % n);
}

static const char *one_turn(struct worker *w)
{
    unsigned k = below(w, 200);
    size_t len = below(w, 40) == 0 ? 6000 : below(w, 400);
    struct shd_value v;
    uint64_t n;
    char key[16];
    double sum;
    int rc;

    snprintf(key, sizeof(key), "k%u", k);
    /* Every value of a key is a prefix of the key's pattern. */
    switch (below(w, 9)) {
    case 0:
    case 1:
        rc = shd_store(dict, below(w, 3) | below(w, 2) * SHD_SAFE, key,
                       strlen(key), SHD_STRING, pattern(w->in, len, k), len,
                       0, below(w, 4) == 0 ? 1 : 0, (int)below(w, 2), NULL);
        return rc == SHD_OK || rc == SHD_EXISTS || rc == SHD_NOTFOUND ||
                       rc == SHD_NOMEM
                   ? NULL
                   : shd_last_error();
    case 2:
    case 3:
        rc = shd_get_stale(dict, key, strlen(key), w->out, sizeof(w->out),
                           &v);
        if (rc == SHD_NOTFOUND)
            return NULL;
        if (rc != SHD_OK)
            return shd_last_error();
        pattern(w->in, v.len, k);
        return memcmp(w->in, w->out, v.len) == 0 ? NULL : "a torn value";
    case 4:
        rc = shd_delete(dict, key, strlen(key));
        return rc == SHD_OK || rc == SHD_NOTFOUND ? NULL : shd_last_error();
    case 5:
        rc = shd_incr(dict, "counter", 7, 1, 1, 0, 0, &sum, NULL);
        return rc == SHD_OK ? NULL : shd_last_error();
    case 6:
        rc = shd_push(dict, 0, "list", 4, SHD_STRING, pattern(w->in, 50, 7),
                      50, 0, &n);
        return rc == SHD_OK || rc == SHD_NOMEM ? NULL : shd_last_error();
    case 7:
        rc = shd_pop(dict, 1, "list", 4, w->out, sizeof(w->out), &v);
        if (rc == SHD_NOTFOUND)
            return NULL;
        if (rc != SHD_OK)
            return shd_last_error();
        pattern(w->in, 50, 7);
        return v.len == 50 && memcmp(w->in, w->out, 50) == 0
                   ? NULL
                   : "a torn element";
    default:
        rc = below(w, 50) == 0 ? shd_flush_expired(dict, 10, &n)
                               : shd_expire(dict, key, strlen(key),
                                            below(w, 3));
        return rc == SHD_OK || rc == SHD_NOTFOUND ? NULL : shd_last_error();
    }
}

static void *work(void *arg)
{
    struct worker *w = arg;

    for (unsigned i = 0; i < TURNS; i++) {
        const char *fault = one_turn(w);

        if (fault != NULL)
            return strdup(fault);
    }
    return NULL;
}

START_TEST(threads_share_a_handle)
{
    static struct worker workers[THREADS];
    pthread_t thread[THREADS];

    start_named(NULL, _i == 0 ? 65536 : MIB, _i == 0 ? 1 : 4, 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i].seed = 77 + i;
        ck_assert_int_eq(pthread_create(&thread[i], NULL, work, &workers[i]),
                         0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        void *fault;

        ck_assert_int_eq(pthread_join(thread[i], &fault), 0);
        ck_assert_msg(fault == NULL, "%s", (char *)fault);
    }
    sound();
    expect(shd_flush_all(dict), SHD_OK);
    expect(shd_flush_expired(dict, 0, NULL), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(no_increment_of_any_process_is_lost)
{
    pid_t pid[3];
    double sum;

    start(MIB);
    for (int i = 0; i < 3; i++) {
        pid[i] = fork();
        ck_assert_int_ge(pid[i], 0);
        if (pid[i] == 0) {
            for (int n = 0; n < 5000; n++) {
                if (shd_incr(dict, "n", 1, 1, 1, 0, 0, &sum, NULL) != SHD_OK)
                    _exit(1);
            }
            _exit(0);
        }
    }
    for (int i = 0; i < 3; i++) {
        int status;

        ck_assert_int_eq(waitpid(pid[i], &status, 0), pid[i]);
        ck_assert_int_eq(status, 0);
    }
    holds_number("n", 15000);
    sound();
}
END_TEST

/* ---- damage ----------------------------------------------------------- */

START_TEST(a_damaged_header_is_not_opened)
{
    struct dict_header *h;
    struct catalogue_object o;
    shd_dict *d;

    start(MIB);
    expect(catalogue_find(&segment->env, "d", &o), SHD_OK);
    h = segment_at(&segment->segment, o.extent_at, sizeof(*h));
    h->pages_at += 8;
    expect(shd_dict_open(segment, "d", NULL, &d), SHD_CORRUPT);
    expect_said("its header is damaged");
    h->pages_at -= 8;
    h->map_at = UINT64_MAX - 7;
    expect(shd_dict_open(segment, "d", NULL, &d), SHD_CORRUPT);
    expect_said("its parts lie outside it");
}
END_TEST

START_TEST(an_object_of_another_kind_is_no_dict)
{
    struct catalogue_object *o;
    shd_dict *d;

    start(MIB);
    o = segment_at(&segment->segment, segment->segment.catalogue_at,
                   sizeof(*o));
    ck_assert_str_eq(o->name, "d");
    o->kind = 2;
    expect(shd_dict_open(segment, "d", NULL, &d), SHD_MISMATCH);
    expect_said("is no dict");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("dict");
    TCase *c = tcase_create("dict");

    tcase_set_timeout(c, 120);
    tcase_add_test(c, opening_again_gives_the_same_handle_which_is_counted);
    tcase_add_test(c, closing_the_segment_closes_its_dicts);
    tcase_add_test(c, what_cannot_be_opened_says_why);
    tcase_add_test(c, names_have_limits);
    tcase_add_test(c, objects_and_locks_run_out_cleanly);
    tcase_add_loop_test(
        c, the_parts_of_a_dict_lie_apart_and_fill_its_capacity, 0, 11);
    tcase_add_loop_test(c, shards_and_roots_are_as_asked, 0, 8);
    tcase_add_test(c, the_numbers_of_a_dict_are_those_of_what_is_in_it);
    tcase_add_test(c, a_caller_of_an_older_version_gets_what_it_knows);
    tcase_add_test(
        c, a_destroyed_dict_answers_gone_and_one_of_its_name_is_another);
    tcase_add_test(c, destroying_while_another_process_works_is_seen_there);
    tcase_add_test(c, dicts_of_one_segment_do_not_evict_each_other);
    tcase_add_loop_test(c, threads_share_a_handle, 0, 2);
    tcase_add_test(c, no_increment_of_any_process_is_lost);
    tcase_add_test(c, a_damaged_header_is_not_opened);
    tcase_add_test(c, an_object_of_another_kind_is_no_dict);
    suite_add_tcase(s, c);
    return run_suite(s);
}
