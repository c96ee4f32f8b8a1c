/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite capacity: the whole of a dict can be used, by whichever shard and by
 * values of any length, before anything is evicted. */
#include "tests/unit/fixture.h"

#define MIB (1u << 20)

/* A key of that shard (any: UINT32_MAX), another one for each n. */
static char *key_in(uint32_t shard, unsigned n)
{
    static char key[32];

    for (unsigned i = 0;; i++) {
        int len = snprintf(key, sizeof(key), "k%u.%u", n, i);

        if (shard == UINT32_MAX ||
            dict_place(inner, key, (size_t)len).shard == shard)
            return key;
    }
}

/* Of all the bytes of the dict's pages, so many must be in cells of entries
 * when the first one is evicted. */
static void is_full(unsigned percent)
{
    struct shd_dict_info i = info();

    ck_assert_uint_eq(i.evictions, 0);
    ck_assert_uint_ge(i.cells_bytes * 100, i.pages * 4096 * percent);
}

static void fill_until_it_evicts(uint32_t shard, size_t len, unsigned percent)
{
    struct shd_dict_info before;
    uint32_t forcible = 0;

    for (unsigned n = 0; forcible == 0; n++) {
        before = info();
        expect(store(SHD_SET, key_in(shard, n), len, n, 0, 0, &forcible),
               SHD_OK);
    }
    ck_assert_uint_eq(before.evictions, 0);
    ck_assert_uint_ge(before.cells_bytes * 100, before.pages * 4096 * percent);
    sound();
}

static const size_t lengths[] = {10, 100, 1000, 2000, 4000, 20000, 40000};

START_TEST(one_hot_shard_uses_the_whole_capacity)
{
    start_named(NULL, 2 * MIB, 16, 0);
    fill_until_it_evicts(5, lengths[_i], 95);
}
END_TEST

START_TEST(all_shards_together_use_the_whole_capacity)
{
    start_named(NULL, 8 * MIB, 4, 0);
    fill_until_it_evicts(UINT32_MAX, lengths[_i], 95);
}
END_TEST

START_TEST(a_few_huge_values_use_the_whole_capacity)
{
    static const unsigned values[] = {1, 2, 3, 7, 19};
    unsigned n = values[_i];
    size_t len;

    start_named(NULL, 2 * MIB, 8, 0);
    /* A page for the entries of each shard, whole pages for the values. */
    len = (info().pages - 8) / n * CHAIN_DATA_MAX;
    for (unsigned i = 0; i < n; i++)
        expect(store(SHD_SET | SHD_SAFE, key_in(UINT32_MAX, i), len, i, 0, 0,
                     NULL),
               SHD_OK);
    is_full(95);
    for (unsigned i = 0; i < n; i++)
        holds(key_in(UINT32_MAX, i), len, i);
}
END_TEST

START_TEST(huge_values_of_one_shard_use_the_whole_capacity)
{
    size_t len;

    start_named(NULL, 2 * MIB, 8, 0);
    len = info().value_max_bytes / 5;
    for (unsigned i = 0; i < 5; i++)
        expect(
            store(SHD_SET | SHD_SAFE, key_in(3, i), len - 4096, i, 0, 0, NULL),
            SHD_OK);
    is_full(97);
    for (unsigned i = 0; i < 5; i++)
        holds(key_in(3, i), len - 4096, i);
}
END_TEST

START_TEST(the_smallest_dict_holds_lists_and_sizes_that_differ)
{
    uint32_t forcible = 0;
    unsigned n = 0;

    start(8192);
    ck_assert_uint_eq(info().pages, 1);
    while (push(0, "list", 10 + n % 30, n) == SHD_OK)
        n++;
    ck_assert_uint_gt(n, 60);
    ck_assert_uint_eq(llen("list"), n);
    for (unsigned i = n; i-- > 0;)
        pops(0, "list", 10 + i % 30, i);
    all_is_free();
    /* Small ones go where large ones are, one for one. */
    for (unsigned i = 0; i < 7; i++)
        expect(store(SHD_SET | SHD_SAFE, key_in(UINT32_MAX, i), 500, i, 0, 0,
                     NULL),
               SHD_OK);
    expect(store(SHD_SET | SHD_SAFE, "small", 5, 1, 0, 0, NULL), SHD_NOMEM);
    expect(store(SHD_SET, "small", 5, 1, 0, 0, &forcible), SHD_OK);
    ck_assert_uint_eq(forcible, 1);
    ck_assert_uint_eq(info().evictions, 1);
    ck_assert_uint_eq(info().entries, 7);
    sound();
}
END_TEST

START_TEST(the_last_of_the_old_goes_only_when_all_others_have)
{
    uint32_t forcible = 0;
    uint64_t max;

    /* Alone in its shard, and half of the dict. */
    start_named(NULL, MIB, 4, 0);
    max = info().value_max_bytes;
    expect(set(key_in(1, 0), max / 2, 1), SHD_OK);
    for (unsigned i = 0; i < 1500; i++)
        expect(set(key_in(2, i), 200, i), SHD_OK);
    ck_assert_uint_eq(info().entries, 1501);
    expect(store(SHD_SET, key_in(1, 0), max / 2 - 20000, 2, 0, 0, &forcible),
           SHD_OK);
    holds(key_in(1, 0), max / 2 - 20000, 2);
    ck_assert_uint_gt(info().evictions, 0);
    ck_assert_uint_lt(info().entries, 1501);
    sound();
}
END_TEST

START_TEST(what_one_store_frees_is_bounded_and_the_rest_is_not_lost)
{
    uint64_t before;

    /* A list of small elements, which are all garbage at once. */
    start(2 * MIB);
    for (unsigned i = 0; i < 12000; i++)
        expect(push(0, "list", 10, 1), SHD_OK);
    for (unsigned n = 0; store(SHD_SET | SHD_SAFE, key_in(0, n), 1000, 1, 0, 0,
                               NULL) == SHD_OK;)
        n++;
    before = info().free_bytes;
    expect(set("new", 3000, 1), SHD_OK);
    ck_assert_uint_eq(info().evictions, 1);
    ck_assert_uint_ne(inner->shard->garbage, 0);
    ck_assert_uint_ge(info().free_bytes, before + 3000 * 48);
    sound();
    /* Whoever comes next goes on. */
    for (unsigned i = 0; i < 10 && inner->shard->garbage != 0; i++)
        expect(set("new", 3000, i), SHD_OK);
    ck_assert_uint_eq(inner->shard->garbage, 0);
    ck_assert_uint_eq(info().evictions, 1);
    sound();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("capacity");
    TCase *c = tcase_create("capacity");

    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, one_hot_shard_uses_the_whole_capacity, 0, 7);
    tcase_add_loop_test(c, all_shards_together_use_the_whole_capacity, 0, 7);
    tcase_add_loop_test(c, a_few_huge_values_use_the_whole_capacity, 0, 5);
    tcase_add_test(c, huge_values_of_one_shard_use_the_whole_capacity);
    tcase_add_test(c, the_smallest_dict_holds_lists_and_sizes_that_differ);
    tcase_add_test(c, the_last_of_the_old_goes_only_when_all_others_have);
    tcase_add_test(c,
                   what_one_store_frees_is_bounded_and_the_rest_is_not_lost);
    suite_add_tcase(s, c);
    return run_suite(s);
}
