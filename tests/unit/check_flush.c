/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite flush: marking everything as expired, and freeing what has. */
#include "tests/unit/fixture.h"

#define MIB (1u << 20)

static char *name(unsigned i)
{
    static char key[16];

    snprintf(key, sizeof(key), "k%u", i);
    return key;
}

START_TEST(flush_all_expires_everything_and_stale_reads_still_see_it)
{
    struct shd_value v;
    uint64_t freed;

    start_named(NULL, 4 * MIB, _i == 0 ? 1 : 16, 0);
    for (unsigned i = 0; i < 2000; i++)
        expect(store(SHD_SET, name(i), i % 300, i, i % 3 == 0 ? 100000 : 0,
                     (int)i % 2, NULL),
               SHD_OK);
    for (unsigned i = 2000; i < 2100; i++) {
        expect(push(0, name(i), 100, 1), SHD_OK);
        expect(push(0, name(i), 5000, 1), SHD_OK);
    }
    expect(set("long", 100000, 1), SHD_OK);
    expect(shd_flush_all(dict), SHD_OK);
    sound();
    ck_assert_uint_eq(info().entries, 2101);
    for (unsigned i = 0; i < 2000; i++) {
        expect(get(name(i), &v), SHD_NOTFOUND);
        expect(get_stale(name(i), &v), SHD_OK);
        ck_assert_int_lt(v.ttl_ms, 0);
        ck_assert_uint_eq(v.len, i % 300);
        ck_assert_int_eq(v.flags, (int)i % 2);
    }
    ck_assert_uint_eq(llen(name(2000)), 0);
    expect(shd_flush_expired(dict, 0, &freed), SHD_OK);
    ck_assert_uint_eq(freed, 2101);
    ck_assert_uint_eq(info().expirations, 2101);
    ck_assert_uint_eq(info().evictions, 0);
    all_is_free();
}
END_TEST

START_TEST(flush_all_does_not_make_what_has_expired_younger)
{
    struct shd_value v;

    start(MIB);
    expect(set_ttl("k", 1000), SHD_OK);
    clock_test_advance(60000);
    expect(shd_flush_all(dict), SHD_OK);
    expect(get_stale("k", &v), SHD_OK);
    ck_assert_int_le(v.ttl_ms, -59000);
}
END_TEST

START_TEST(what_is_stored_after_a_flush_lives)
{
    start(MIB);
    expect(set("k", 10, 1), SHD_OK);
    expect(shd_flush_all(dict), SHD_OK);
    expect(shd_flush_all(dict), SHD_OK);
    expect(store(SHD_ADD, "k", 12, 2, 0, 0, NULL), SHD_OK);
    expect(set("j", 12, 2), SHD_OK);
    expect(shd_flush_expired(dict, 0, NULL), SHD_OK);
    holds("k", 12, 2);
    holds("j", 12, 2);
    sound();
}
END_TEST

START_TEST(flush_expired_frees_no_more_than_asked)
{
    uint64_t freed, sum = 0;

    start_named(NULL, 4 * MIB, _i == 0 ? 1 : 4, 0);
    expect(shd_flush_expired(dict, 0, &freed), SHD_OK);
    ck_assert_uint_eq(freed, 0);
    for (unsigned i = 0; i < 1000; i++)
        expect(set_ttl(name(i), i < 700 ? 10 : 0), SHD_OK);
    clock_test_advance(10);
    for (uint64_t max = 1; sum < 700; max *= 3) {
        uint64_t left = 700 - sum;

        expect(shd_flush_expired(dict, max, &freed), SHD_OK);
        ck_assert_uint_eq(freed, max < left ? max : left);
        sum += freed;
        ck_assert_uint_eq(info().entries, 1000 - sum);
        sound();
    }
    expect(shd_flush_expired(dict, 0, &freed), SHD_OK);
    ck_assert_uint_eq(freed, 0);
    for (unsigned i = 700; i < 1000; i++)
        ck_assert(is_there(name(i)));
}
END_TEST

START_TEST(the_earliest_to_expire_are_found_among_later_ones)
{
    uint64_t freed;

    start(MIB);
    for (unsigned i = 0; i < 1000; i++)
        expect(set_ttl(name(i), 1000 * (1 + (i * 7919) % 1000)), SHD_OK);
    for (unsigned s = 1; s <= 1000; s += 37) {
        clock_test_advance(37000);
        expect(shd_flush_expired(dict, 0, &freed), SHD_OK);
        for (unsigned i = 0; i < 1000; i += 11) {
            struct shd_value v;
            int rc = get_stale(name(i), &v);

            /* What is still stored has not expired. */
            if (rc == SHD_OK)
                ck_assert_int_gt(v.ttl_ms, 0);
        }
        sound();
    }
    all_is_free();
}
END_TEST

START_TEST(a_bound_that_is_too_early_is_raised)
{
    uint64_t freed;

    start(MIB);
    for (unsigned i = 0; i < 100; i++)
        expect(set_ttl(name(i), 1000), SHD_OK);
    for (unsigned i = 0; i < 100; i++)
        expect(shd_expire(dict, name(i), strlen(name(i)),
                          i % 2 == 0 ? 0 : 5000),
               SHD_OK);
    clock_test_advance(1000);
    expect(shd_flush_expired(dict, 0, &freed), SHD_OK);
    ck_assert_uint_eq(freed, 0);
    sound();
    clock_test_advance(4000);
    expect(shd_flush_expired(dict, 0, &freed), SHD_OK);
    ck_assert_uint_eq(freed, 50);
    sound();
}
END_TEST

START_TEST(a_tree_of_expiries_that_names_a_foreign_page_is_corrupt)
{
    start_named(NULL, 4 * MIB, 2, 0);
    for (unsigned i = 0; i < 20; i++)
        expect(set_ttl(name(i), 10), SHD_OK);
    clock_test_advance(10);
    inner->shard[0].slab.expiry_root = inner->shard[1].slab.expiry_root;
    expect(shd_flush_expired(dict, 0, NULL), SHD_CORRUPT);
    expect_said("the tree of expiries names another's page");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flush");
    TCase *c = tcase_create("flush");

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(
        c, flush_all_expires_everything_and_stale_reads_still_see_it, 0, 2);
    tcase_add_test(c, flush_all_does_not_make_what_has_expired_younger);
    tcase_add_test(c, what_is_stored_after_a_flush_lives);
    tcase_add_loop_test(c, flush_expired_frees_no_more_than_asked, 0, 2);
    tcase_add_test(c, the_earliest_to_expire_are_found_among_later_ones);
    tcase_add_test(c, a_bound_that_is_too_early_is_raised);
    tcase_add_test(c, a_tree_of_expiries_that_names_a_foreign_page_is_corrupt);
    suite_add_tcase(s, c);
    return run_suite(s);
}
