/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite account: every byte of a dict is explained, once.
 *
 * valgrind: no, it runs one thread at a time, and the writer goes first.
 */
#include "tests/unit/fixture.h"

#include <pthread.h>

#include "shm/dict/account.h"

#define MIB (1u << 20)

static struct shd_dict_account a;

static char *name(unsigned i)
{
    static char key[16];

    snprintf(key, sizeof(key), "k%u", i);
    return key;
}

/* Takes the account, which must be the whole. */
static void take(void)
{
    uint64_t cells = 0, pages = 0;

    a.struct_size = sizeof(a);
    expect(shd_dict_account(dict, &a), SHD_OK);
    ck_assert_uint_eq(account_sum(&a), a.capacity_bytes);
    ck_assert_uint_eq(a.classes, SLAB_CLASSES);
    for (uint32_t c = 0; c < a.classes; c++) {
        cells += a.class_free_cells[c] * a.class_cell_bytes[c];
        pages += a.class_pages[c];
    }
    ck_assert_uint_eq(cells, a.free_cells_bytes);
    ck_assert_uint_eq(pages + a.free_pages_bytes / 4096, a.pages);
}

START_TEST(an_empty_dict_is_its_index_and_free_pages)
{
    static const struct {
        uint64_t capacity;
        uint32_t shards;
        uint64_t entries;
    } dicts[] = {{8192, 1, 0},     {8193, 1, 0},      {65536, 4, 0},
                 {MIB, 16, 0},     {MIB + 1, 1, 1},   {8 * MIB, 256, 0},
                 {300000, 2, 777}, {12288, 1, 100000}};

    start_named(NULL, dicts[_i].capacity, dicts[_i].shards, dicts[_i].entries);
    take();
    ck_assert_uint_eq(a.capacity_bytes,
                      (dicts[_i].capacity + 4095) / 4096 * 4096);
    ck_assert_uint_eq(a.free_pages_bytes, info().pages * 4096);
    ck_assert_uint_eq(a.shards_bytes, 512ull * dicts[_i].shards);
    ck_assert_uint_eq(a.roots_bytes, info().roots * 4);
    ck_assert_uint_eq(a.marks_bytes, a.pages * 16);
    ck_assert_uint_eq(a.table_bytes, a.pages * 48);
    ck_assert_uint_eq(a.live_bytes + a.garbage_bytes + a.expired_bytes, 0);
    ck_assert_uint_eq(a.pages_needed, 0);
    ck_assert_uint_eq(a.safe_value_max_bytes, a.value_max_bytes);
    sound();
}
END_TEST

START_TEST(each_byte_of_an_entry_has_its_name)
{
    start(MIB);
    /* 32 + 8 + 30 of a cell of 80 */
    expect(set("key", 30, 1), SHD_OK);
    take();
    ck_assert_uint_eq(a.live_bytes, 33);
    ck_assert_uint_eq(a.entry_bytes, 37);
    ck_assert_uint_eq(a.rounding_bytes, 10);
    ck_assert_uint_eq(a.free_cells_bytes, 50 * 80);
    ck_assert_uint_eq(a.page_tail_bytes, 16);
    /* a number with flags: 32 + 8 + 8 + 8 of 64 */
    expect(
        shd_store(dict, SHD_SET, "n", 1, SHD_NUMBER, NULL, 0, 7, 0, 3, NULL),
        SHD_OK);
    take();
    ck_assert_uint_eq(a.live_bytes, 33 + 9);
    ck_assert_uint_eq(a.entry_bytes, 37 + 47);
    ck_assert_uint_eq(a.rounding_bytes, 10 + 8);
    expect(del("key"), SHD_OK);
    expect(del("n"), SHD_OK);
    /* 32 + 8 + 8 + 928 of 1024; 4072 + 24 of 4096 */
    expect(set("c", 5000, 1), SHD_OK);
    take();
    ck_assert_uint_eq(a.live_bytes, 5001);
    ck_assert_uint_eq(a.entry_bytes, 47);
    ck_assert_uint_eq(a.chain_bytes, 24);
    ck_assert_uint_eq(a.rounding_bytes, 1024 - 976);
    ck_assert_uint_eq(a.entries_live, 1);
    expect(del("c"), SHD_OK);
    /* 32 + 8 + 16 of 64; 24 + 30 of 64; 24 + 8 of 48; and a chain's owner */
    expect(push(0, "l", 30, 1), SHD_OK);
    expect(shd_push(dict, 0, "l", 1, SHD_NUMBER, NULL, 0, 1, NULL), SHD_OK);
    expect(push(0, "l", 4080, 1), SHD_OK);
    take();
    ck_assert_uint_eq(a.live_bytes, 1 + 30 + 8 + 4080);
    ck_assert_uint_eq(a.entry_bytes, 55);
    ck_assert_uint_eq(a.list_bytes, 24 + 24 + 32);
    ck_assert_uint_eq(a.chain_bytes, 48);
    ck_assert_uint_eq(a.rounding_bytes, 8 + 10 + 16 + 16 + 16);
    expect(del("l"), SHD_OK);
    take();
    ck_assert_uint_eq(a.free_pages_bytes, a.pages * 4096);
}
END_TEST

START_TEST(what_has_expired_is_told_apart_with_all_it_owns)
{
    uint64_t used;

    start_named(NULL, MIB, _i == 0 ? 1 : 8, 0);
    for (unsigned i = 0; i < 20; i++) {
        expect(store(SHD_SET, name(i), 20 + i, i, 1000, 0, NULL), SHD_OK);
        expect(store(SHD_SET, name(100 + i), 5000 + i, i, 1000, 0, NULL),
               SHD_OK);
        for (unsigned e = 0; e < 5; e++)
            expect(push(0, name(200 + i), e == 2 ? 4200 : 30, 1), SHD_OK);
        expect(shd_expire(dict, name(200 + i), strlen(name(200 + i)), 1000),
               SHD_OK);
    }
    take();
    ck_assert_uint_eq(a.expired_bytes, 0);
    ck_assert_uint_eq(a.entries_live, 60);
    used = info().cells_bytes;
    clock_test_advance(1000);
    take();
    ck_assert_uint_eq(a.expired_bytes, used);
    ck_assert_uint_eq(a.entries_expired, 60);
    ck_assert_uint_eq(a.pages_needed, 0);
    /* Nor do those that live beside them change that. */
    for (unsigned i = 0; i < 20; i++) {
        expect(store(SHD_ADD | SHD_SAFE, name(300 + i), 5000, i, 0, 0, NULL),
               SHD_OK);
        expect(push(0, name(400 + i), 30, 1), SHD_OK);
    }
    take();
    ck_assert_uint_eq(a.expired_bytes + a.live_bytes + a.entry_bytes +
                          a.list_bytes + a.chain_bytes + a.rounding_bytes,
                      info().cells_bytes);
    ck_assert_uint_eq(a.expired_bytes, used);
    ck_assert_uint_eq(a.entries_live, 40);
    expect(shd_flush_expired(dict, 0, NULL), SHD_OK);
    take();
    ck_assert_uint_eq(a.expired_bytes, 0);
}
END_TEST

/* In a child: dies with a chain half built, or with a list on the garbage. */
static void leave_garbage(bool built)
{
    struct chain_source s = {.second = bytes_in, .second_len = 50000};
    const struct chain_site site = {.pages = &inner->pages,
                                    .slab = &inner->shard->slab,
                                    .guard = dict_guard(inner, 0),
                                    .owner = 1,
                                    .pending = &inner->shard->pending[0],
                                    .built = &inner->shard->chains};
    uint64_t left = s.second_len;
    struct tree_path path;
    struct place at = dict_place(inner, "l", 1);
    struct txn t;

    if (handle_writer(segment) != SHD_OK || dict_lock(inner, 0) != SHD_OK)
        _exit(1);
    while (built && left > 20000) {
        if (chain_build_step(&site, chain_class(left), &left) != SHD_OK)
            _exit(1);
    }
    if (built)
        return;
    if (forest_path(inner, &at, "l", 1, &path) != 1)
        _exit(1);
    txn_begin(&t, &segment->segment, dict_guard(inner, 0), ROOM_REMOVE_WORDS);
    if (room_remove(inner, 0, &t, &at, &path, ROOM_DELETED) != SHD_OK)
        _exit(1);
    txn_commit(&t);
}

START_TEST(what_a_dead_worker_left_is_garbage)
{
    uint64_t live;

    start(MIB);
    expect(set("k", 10000, 1), SHD_OK);
    take();
    live = info().cells_bytes;
    expect(push(0, "l", 30, 1), SHD_OK);
    expect(push(0, "l", 9000, 1), SHD_OK);
    dying_worker(leave_garbage(false));
    take();
    ck_assert_uint_eq(a.garbage_bytes, info().cells_bytes - live);
    ck_assert_uint_gt(a.garbage_bytes, 9000);
    ck_assert_uint_eq(a.entries_live, 1);
    sound();
    expect(del("k"), SHD_OK);
    all_is_free();
    dying_worker(leave_garbage(true));
    take();
    ck_assert_uint_eq(a.garbage_bytes, info().cells_bytes);
    ck_assert_uint_gt(a.garbage_bytes, 30000);
    ck_assert_uint_eq(a.live_bytes, 0);
    sound();
}
END_TEST

START_TEST(
    a_safe_store_has_the_room_it_is_told_and_no_more_is_told_than_there_is)
{
    start_named(NULL, MIB, _i == 0 ? 1 : 4, 0);
    for (unsigned i = 0; store(SHD_SET | SHD_SAFE, name(i), i * 7 % 3000, i, 0,
                               0, NULL) == SHD_OK;)
        i++;
    for (unsigned i = 0; i < 100; i++)
        (void)del(name(i * 5));
    for (unsigned i = 0; i < 4; i++) {
        char key = (char)('a' + i);

        take();
        ck_assert_uint_gt(a.safe_value_max_bytes, 0);
        expect(shd_store(dict, SHD_ADD | SHD_SAFE, &key, 1, SHD_STRING,
                         bytes_in, a.safe_value_max_bytes, 0, 0, 0, NULL),
               SHD_OK);
        sound();
        expect(shd_delete(dict, &key, 1), SHD_OK);
    }
    ck_assert_uint_eq(info().evictions, 0);
}
END_TEST

static void *change_things(void *stop)
{
    for (unsigned i = 0; !__atomic_load_n((bool *)stop, __ATOMIC_RELAXED);
         i++) {
        char key[16];
        int n = snprintf(key, sizeof(key), "t%u", i % 300);

        expect(shd_set(dict, key, (size_t)n, bytes_in, i * 31 % 9000, i % 3),
               SHD_OK);
    }
    return NULL;
}

START_TEST(the_sum_is_exact_beside_writers)
{
    bool stop = false;
    pthread_t thread;

    start_named(NULL, MIB, _i == 0 ? 1 : 8, 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, change_things, &stop), 0);
    for (int i = 0; i < 100; i++)
        take();
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    take();
}
END_TEST

START_TEST(who_asks_for_nothing_else_is_told_all_the_same)
{
    start(MIB);
    for (unsigned i = 0; i < 10; i++)
        expect(set(name(i), 100, i), SHD_OK);
    /* As a process that has just opened it. */
    inner->pages.state = PAGES_STATE_UNSEEN;
    inner->pages.nodes.end = inner->pages.at;
    take();
    ck_assert_uint_eq(a.entries_live, 10);
}
END_TEST

START_TEST(parts_that_are_not_the_whole_are_named)
{
    struct dict_header *h;
    char report[256];

    start(MIB);
    sound();
    h = (struct dict_header *)(void *)((char *)inner->shard - sizeof(*h));
    h->roots_at -= 8;
    expect(shd_segment_check(segment, report, sizeof(report)), SHD_CORRUPT);
    ck_assert_ptr_nonnull(strstr(report, "parts of its index overlap"));
    h->roots_at += 8;
    sound();
    /* A dict that says it is larger than what it is made of. */
    h->capacity_bytes += 5 * 4096;
    a.struct_size = sizeof(a);
    expect(shd_dict_account(dict, &a), SHD_CORRUPT);
    expect_said("not as long as its capacity");
}
END_TEST

START_TEST(an_owner_that_is_no_shard_is_corrupt)
{
    start(MIB);
    inner->pages.table[7].owner = 99;
    a.struct_size = sizeof(a);
    expect(shd_dict_account(dict, &a), SHD_CORRUPT);
    expect_said("an owner that is no shard");
}
END_TEST

START_TEST(who_knows_a_shorter_struct_gets_that_much)
{
    start(MIB);
    memset(&a, 0x77, sizeof(a));
    a.struct_size = 16;
    expect(shd_dict_account(dict, &a), SHD_OK);
    ck_assert_uint_eq(a.capacity_bytes, MIB);
    ck_assert_uint_eq(a.live_bytes, 0x7777777777777777);
    a.struct_size = 0;
    expect(shd_dict_account(dict, &a), SHD_INVAL);
    expect(shd_dict_account(dict, NULL), SHD_INVAL);
    expect(shd_dict_account(NULL, &a), SHD_INVAL);
    expect(shd_dict_destroy(segment, "d"), SHD_OK);
    a.struct_size = sizeof(a);
    expect(shd_dict_account(dict, &a), SHD_GONE);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("account");
    TCase *c = tcase_create("account");

    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, an_empty_dict_is_its_index_and_free_pages, 0, 8);
    tcase_add_test(c, each_byte_of_an_entry_has_its_name);
    tcase_add_loop_test(c, what_has_expired_is_told_apart_with_all_it_owns, 0,
                        2);
    tcase_add_test(c, what_a_dead_worker_left_is_garbage);
    tcase_add_loop_test(
        c,
        a_safe_store_has_the_room_it_is_told_and_no_more_is_told_than_there_is,
        0, 2);
    tcase_add_loop_test(c, the_sum_is_exact_beside_writers, 0, 2);
    tcase_add_test(c, who_asks_for_nothing_else_is_told_all_the_same);
    tcase_add_test(c, parts_that_are_not_the_whole_are_named);
    tcase_add_test(c, an_owner_that_is_no_shard_is_corrupt);
    tcase_add_test(c, who_knows_a_shorter_struct_gets_that_much);
    suite_add_tcase(s, c);
    return run_suite(s);
}
