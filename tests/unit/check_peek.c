/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite peek: an entry and a list are looked at, and stay as they are. */
#include "tests/unit/fixture.h"

#define N 100

static struct shd_value values[N];
static size_t at[N];
static uint32_t count;
static uint64_t length;

static int list_read(uint64_t from, uint32_t max, size_t size)
{
    return shd_list_read(dict, "list", 4, 0, from, max, bytes_out, size,
                         values, at, &count, &length);
}

static void fill(unsigned n)
{
    start(1 << 20);
    for (unsigned i = 0; i < n; i++)
        expect(push(0, "list", i == 7 ? 9000 : i, i), SHD_OK);
}

/* Elements from.. are those that were pushed. */
static void are(uint64_t from, uint32_t n)
{
    ck_assert_uint_eq(count, n);
    for (uint32_t i = 0; i < n; i++) {
        unsigned seed = (unsigned)from + i;
        size_t len = seed == 7 ? 9000 : seed;

        ck_assert_uint_eq(values[i].type, SHD_STRING);
        ck_assert_uint_eq(values[i].len, len);
        ck_assert_mem_eq(bytes_out + at[i], pattern(bytes_in, len, seed),
                         len);
    }
}

START_TEST(a_list_is_read_from_any_element_on)
{
    fill(50);
    for (uint64_t from = 0; from < 50; from++) {
        expect(list_read(from, 10, VALUE_MAX), SHD_OK);
        ck_assert_uint_eq(length, 50);
        are(from, from > 40 ? (uint32_t)(50 - from) : 10);
    }
    expect(list_read(50, 10, VALUE_MAX), SHD_OK);
    are(0, 0);
    expect(list_read(UINT64_MAX, 10, VALUE_MAX), SHD_OK);
    are(0, 0);
    ck_assert_uint_eq(llen("list"), 50);
    sound();
}
END_TEST

START_TEST(what_does_not_fit_comes_next)
{
    fill(20);
    expect(list_read(5, 10, 40), SHD_OK);
    are(5, 2);
    expect(list_read(7, 10, 8999), SHD_SPACE);
    ck_assert_uint_eq(values[0].len, 9000);
    expect(list_read(7, 10, 9000), SHD_OK);
    are(7, 1);
    expect(list_read(0, 0, 0), SHD_OK);
    ck_assert_uint_eq(length, 20);
}
END_TEST

START_TEST(numbers_have_no_bytes)
{
    start(1 << 20);
    expect(shd_push(dict, 0, "list", 4, SHD_NUMBER, NULL, 0, 2.5, NULL),
           SHD_OK);
    expect(list_read(0, 1, 0), SHD_OK);
    ck_assert_uint_eq(count, 1);
    ck_assert_uint_eq(values[0].type, SHD_NUMBER);
    ck_assert_double_eq(values[0].number, 2.5);
}
END_TEST

START_TEST(what_is_no_list_is_told)
{
    start(1 << 20);
    expect(list_read(0, 1, 0), SHD_NOTFOUND);
    expect(set("list", 3, 1), SHD_OK);
    expect(list_read(0, 1, 0), SHD_NOTLIST);
    expect(shd_list_read(dict, "list", 4, 8, 0, 0, NULL, 0, NULL, NULL,
                         &count, &length),
           SHD_INVAL);
    expect(shd_list_read(dict, "list", 4, 0, 0, 1, NULL, 0, NULL, NULL,
                         &count, &length),
           SHD_INVAL);
    expect(shd_list_read(dict, "", 0, 0, 0, 0, NULL, 0, NULL, NULL, &count,
                         &length),
           SHD_EMPTYKEY);
}
END_TEST

START_TEST(a_damaged_list_is_corrupt)
{
    struct entry_list *l;

    fill(20);
    l = entry_list(&inner->pages, &entry_of("list")->cell);
    cell_of(l->first)->word[CHAIN_NEXT] = 3;
    expect(list_read(0, 10, VALUE_MAX), SHD_CORRUPT);
    expect_said("contradicts itself");
    l->count = UINT32_MAX;
    expect(list_read(5, 10, VALUE_MAX), SHD_CORRUPT);
}
END_TEST

START_TEST(an_entry_tells_all_it_knows)
{
    struct shd_entry_info i = {.struct_size = sizeof(i)};
    uint64_t version;
    struct shd_value v;

    start(1 << 20);
    expect(store(SHD_SET, "k", 12, 1, 100000, -5, NULL), SHD_OK);
    expect(shd_entry_info(dict, "k", 1, &i), SHD_OK);
    ck_assert_uint_eq(i.type, SHD_STRING);
    ck_assert_uint_eq(i.len, 12);
    ck_assert_int_eq(i.flags, -5);
    ck_assert_int_gt(i.ttl_ms, 0);
    ck_assert_uint_eq(i.version, 0);
    ck_assert_uint_eq(i.used, 0);
    ck_assert_uint_lt(i.age_min_s, 1000);
    expect(shd_get_versioned(dict, "k", 1, bytes_out, 12, &v, &version),
           SHD_OK);
    expect(shd_entry_info(dict, "k", 1, &i), SHD_OK);
    ck_assert_uint_eq(i.version, version);
    expect(set_number("n", 7), SHD_OK);
    expect(shd_entry_info(dict, "n", 1, &i), SHD_OK);
    ck_assert_double_eq(i.number, 7);
    expect(shd_entry_info(dict, "none", 4, &i), SHD_NOTFOUND);
    i.struct_size = 1;
    expect(shd_entry_info(dict, "k", 1, &i), SHD_INVAL);
    sound();
}
END_TEST

START_TEST(a_shard_tells_what_it_holds)
{
    struct shd_shard_info i = {.struct_size = sizeof(i)};
    uint64_t entries = 0;

    start_named(NULL, 4 << 20, 4, 0);
    for (int k = 0; k < 100; k++) {
        char key[16];

        snprintf(key, sizeof(key), "k%d", k);
        expect(set(key, 5, 1), SHD_OK);
    }
    for (uint32_t n = 0; n < 4; n++) {
        expect(shd_shard_info(dict, n, &i), SHD_OK);
        entries += i.entries;
        ck_assert_uint_ge(i.changes, i.entries);
        ck_assert_uint_ge(i.pages, i.entries > 0);
        ck_assert_uint_eq(i.holder, 0);
    }
    ck_assert_uint_eq(entries, 100);
    expect(guard_lock(inner->env, dict_guard(inner, 2)), SHD_OK);
    expect(shd_shard_info(dict, 2, &i), SHD_OK);
    ck_assert_uint_eq(i.holder, inner->env->incarnation);
    guard_unlock(dict_guard(inner, 2));
    expect(shd_shard_info(dict, 4, &i), SHD_INVAL);
}
END_TEST

/* ---- counters --------------------------------------------------------- */

static void counts(uint64_t hits, uint64_t misses)
{
    struct shd_dict_info i = info();

    ck_assert_uint_eq(i.hits, hits);
    ck_assert_uint_eq(i.misses, misses);
}

START_TEST(hits_and_misses_are_counted)
{
    const void *keys[3] = {"a", "none", "a"};
    size_t lens[3] = {1, 4, 1}, offsets[3];
    struct shd_value v, vs[3];
    int32_t codes[3];
    int64_t ttl;

    start(1 << 20);
    counts(0, 0);
    expect(get("a", &v), SHD_NOTFOUND);
    expect(set("a", 5, 1), SHD_OK);
    expect(get("a", &v), SHD_OK);
    expect(shd_get(dict, "a", 1, bytes_out, 1, &v), SHD_SPACE);
    counts(2, 1);
    /* Only looked at. */
    expect(shd_ttl(dict, "a", 1, &ttl), SHD_OK);
    ck_assert_uint_eq(llen("b"), 0);
    counts(2, 1);
    expect(shd_get_multi(dict, 3, keys, lens, bytes_out, 100, vs, offsets,
                         codes),
           SHD_OK);
    counts(4, 2);
    ck_assert_uint_ge(info().changes, 1);
}
END_TEST

START_TEST(a_child_counts_in_a_line_of_its_own)
{
    struct shd_value v;

    start(1 << 20);
    expect(set("a", 5, 1), SHD_OK);
    expect(get("a", &v), SHD_OK);
    dying_worker({
        expect(get("a", &v), SHD_OK);
        expect(get("none", &v), SHD_NOTFOUND);
        expect(set("a", 5, 1), SHD_OK); /* registered: another line */
        expect(get("a", &v), SHD_OK);
    });
    counts(3, 1);
    expect(get("a", &v), SHD_OK);
    counts(4, 1);
    sound();
}
END_TEST

START_TEST(another_dict_in_its_place_begins_at_zero)
{
    struct shd_dict_options o = dict_options(1 << 20, 1, 0);
    uint64_t *late;
    struct shd_value v;

    start(1 << 20);
    expect(set("a", 5, 1), SHD_OK);
    expect(get("a", &v), SHD_OK);
    counts(1, 0);
    late = (uint64_t *)(uintptr_t)inner->counters;
    expect(shd_dict_destroy(segment, "d"), SHD_OK);
    expect(shd_dict_open(segment, "e", &o, &dict), SHD_OK);
    counts(0, 0);
    /* A count that comes too late hits nothing but counters. */
    late[0]++;
    late[1]++;
    sound();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("peek");
    TCase *tests = tcase_create("peek");

    tcase_add_test(tests, a_list_is_read_from_any_element_on);
    tcase_add_test(tests, what_does_not_fit_comes_next);
    tcase_add_test(tests, numbers_have_no_bytes);
    tcase_add_test(tests, what_is_no_list_is_told);
    tcase_add_test(tests, a_damaged_list_is_corrupt);
    tcase_add_test(tests, an_entry_tells_all_it_knows);
    tcase_add_test(tests, a_shard_tells_what_it_holds);
    tcase_add_test(tests, hits_and_misses_are_counted);
    tcase_add_test(tests, a_child_counts_in_a_line_of_its_own);
    tcase_add_test(tests, another_dict_in_its_place_begins_at_zero);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
