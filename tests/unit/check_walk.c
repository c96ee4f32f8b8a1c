/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite walk: scan, and the list of keys. */
#include "tests/unit/fixture.h"

#define MIB (1u << 20)
#define KEYS 3000u

static char *name(unsigned i)
{
    static char key[16];

    snprintf(key, sizeof(key), "k%u", i);
    return key;
}

static unsigned number(const void *key, size_t len)
{
    char text[16] = "";

    ck_assert_uint_lt(len, sizeof(text));
    memcpy(text, key, len);
    return (unsigned)strtoul(text + 1, NULL, 10);
}

static void shape(int i)
{
    static const struct {
        uint32_t shards;
        uint64_t entries;
    } shapes[] = {{1, 0}, {1, 1}, {8, 0}, {256, 100000}};

    /* No store here evicts: each shard has pages of its own by class. */
    start_named(NULL, 24 * MIB, shapes[i].shards, shapes[i].entries);
}

/* ---- scan ------------------------------------------------------------- */

static char cursor[65536];
static size_t cursor_len;
static struct shd_value found;

static int scan_next(bool first, uint32_t flags)
{
    char after[65536];

    memcpy(after, cursor, cursor_len);
    return shd_scan(dict, first ? NULL : after, cursor_len, flags, cursor,
                    65535, &cursor_len, bytes_out, VALUE_MAX, &found);
}

START_TEST(a_scan_gives_every_key_once_with_its_value)
{
    static unsigned seen[KEYS];
    unsigned n = 0;
    int rc;

    shape(_i);
    for (unsigned i = 0; i < KEYS; i++)
        expect(set(name(i), i % 100, i), SHD_OK);
    for (rc = scan_next(true, 0); rc == SHD_OK; rc = scan_next(false, 0)) {
        unsigned i = number(cursor, cursor_len);

        ck_assert_uint_eq(seen[i]++, 0);
        ck_assert_uint_eq(found.type, SHD_STRING);
        ck_assert_uint_eq(found.len, i % 100);
        ck_assert_int_eq(memcmp(bytes_out, pattern(bytes_in, i % 100, i),
                                i % 100),
                         0);
        n++;
    }
    expect(rc, SHD_NOTFOUND);
    ck_assert_uint_eq(n, KEYS);
}
END_TEST

START_TEST(keys_that_stay_are_met_once_while_others_come_and_go)
{
    static unsigned seen[KEYS];
    int rc;

    shape(_i);
    for (unsigned i = 0; i < KEYS; i++)
        expect(set(name(i), 10, i), SHD_OK);
    for (rc = scan_next(true, 0); rc == SHD_OK; rc = scan_next(false, 0)) {
        unsigned i = number(cursor, cursor_len);

        if (i < KEYS)
            seen[i]++;
        /* Thirds: one stays as it is, one is written over, one goes, among
         * them the key just met. */
        if (i < KEYS && i % 3 == 2)
            expect(del(name(i)), SHD_OK);
        for (int k = 0; k < 3; k++) {
            unsigned r = random_below(KEYS);

            if (r % 3 == 1)
                expect(set(name(r), random_below(3000), r), SHD_OK);
            else if (r % 3 == 2)
                (void)del(name(r));
            (void)set(name(KEYS + random_below(KEYS)), 10, r);
        }
    }
    expect(rc, SHD_NOTFOUND);
    for (unsigned i = 0; i < KEYS; i++) {
        if (i % 3 == 2)
            ck_assert_uint_le(seen[i], 1);
        else
            ck_assert_msg(seen[i] == 1, "key %u was met %u times", i, seen[i]);
    }
    sound();
}
END_TEST

START_TEST(a_scan_goes_on_from_a_key_that_is_not_stored)
{
    unsigned n = 0, rest = 0;
    char at[16];
    int rc;

    shape(_i);
    for (unsigned i = 0; i < 500; i++)
        expect(set(name(i), 1, i), SHD_OK);
    for (rc = scan_next(true, 0); rc == SHD_OK && n < 200;
         rc = scan_next(false, 0))
        n++;
    snprintf(at, sizeof(at), "%.*s", (int)cursor_len, cursor);
    expect(del(at), SHD_OK);
    for (rc = scan_next(false, 0); rc == SHD_OK; rc = scan_next(false, 0))
        rest++;
    ck_assert_uint_eq(n + 1 + rest, 500);
}
END_TEST

START_TEST(a_scan_skips_expired_entries_unless_asked)
{
    unsigned live = 0, all = 0;
    int rc;

    shape(_i);
    for (unsigned i = 0; i < 300; i++)
        expect(set_ttl(name(i), i % 2 == 0 ? 0 : 100), SHD_OK);
    clock_test_advance(100);
    for (rc = scan_next(true, 0); rc == SHD_OK; rc = scan_next(false, 0)) {
        ck_assert_int_eq(found.ttl_ms, 0);
        live++;
    }
    expect(rc, SHD_NOTFOUND);
    for (rc = scan_next(true, SHD_SCAN_EXPIRED); rc == SHD_OK;
         rc = scan_next(false, SHD_SCAN_EXPIRED))
        all++;
    expect(rc, SHD_NOTFOUND);
    ck_assert_uint_eq(live, 150);
    ck_assert_uint_eq(all, 300);
}
END_TEST

START_TEST(a_scan_meets_lists_long_keys_and_long_values)
{
    static char key[65535];
    unsigned lists = 0, strings = 0;
    int rc;

    start(4 * MIB);
    memset(key, 'x', sizeof(key));
    expect(shd_set(dict, key, sizeof(key), pattern(bytes_in, 20000, 4), 20000,
                   0),
           SHD_OK);
    expect(push(0, "l", 5, 1), SHD_OK);
    expect(push(0, "l", 5, 1), SHD_OK);
    expect(shd_push(dict, 0, key, 2000, SHD_NUMBER, NULL, 0, 1, NULL),
           SHD_OK);
    expect(set_number("n", 3), SHD_OK);
    for (rc = scan_next(true, 0); rc == SHD_OK; rc = scan_next(false, 0)) {
        if (found.type == SHD_LIST) {
            lists++;
            ck_assert_uint_eq(found.len, cursor_len == 1 ? 2 : 1);
        } else if (found.type == SHD_STRING) {
            strings++;
            ck_assert_uint_eq(cursor_len, 65535);
            ck_assert_int_eq(memcmp(cursor, key, sizeof(key)), 0);
            ck_assert_uint_eq(found.len, 20000);
            pattern(bytes_in, 20000, 4);
            ck_assert_int_eq(memcmp(bytes_out, bytes_in, 20000), 0);
        } else {
            ck_assert_double_eq(found.number, 3);
        }
    }
    expect(rc, SHD_NOTFOUND);
    ck_assert_uint_eq(lists, 2);
    ck_assert_uint_eq(strings, 1);
}
END_TEST

START_TEST(a_scan_without_room_for_values_still_gives_keys)
{
    size_t len;

    start(MIB);
    expect(set("key", 500, 1), SHD_OK);
    expect(shd_scan(dict, NULL, 0, 0, cursor, 3, &len, NULL, 0, &found),
           SHD_OK);
    ck_assert_uint_eq(len, 3);
    ck_assert_uint_eq(found.len, 500);
    expect(shd_scan(dict, NULL, 0, 0, cursor, 2, &len, NULL, 0, &found),
           SHD_SPACE);
    ck_assert_uint_eq(len, 3);
    /* One that is not shown needs no room for its key. */
    expect(shd_expire(dict, "key", 3, 5), SHD_OK);
    clock_test_advance(5);
    expect(shd_scan(dict, NULL, 0, 0, cursor, 2, &len, NULL, 0, &found),
           SHD_NOTFOUND);
}
END_TEST

START_TEST(arguments_outside_their_limits_are_refused)
{
    size_t len;

    start(MIB);
    expect(shd_scan(dict, NULL, 0, 0, NULL, 3, &len, NULL, 0, &found),
           SHD_INVAL);
    expect(shd_scan(dict, NULL, 0, 0, cursor, 3, NULL, NULL, 0, &found),
           SHD_INVAL);
    expect(shd_scan(dict, NULL, 0, 0, cursor, 3, &len, NULL, 0, NULL),
           SHD_INVAL);
    expect(shd_scan(dict, NULL, 0, 0, cursor, 3, &len, NULL, 1, &found),
           SHD_INVAL);
    expect(shd_scan(dict, NULL, 0, 2, cursor, 3, &len, NULL, 0, &found),
           SHD_INVAL);
    expect(shd_scan(dict, "", 0, 0, cursor, 3, &len, NULL, 0, &found),
           SHD_EMPTYKEY);
    expect(shd_scan(dict, NULL, 0, 0, cursor, 3, &len, NULL, 0, &found),
           SHD_NOTFOUND);
    expect(shd_keys_get(dict, 0, NULL), SHD_INVAL);
}
END_TEST

START_TEST(a_tree_that_leads_outside_is_corrupt_and_ends_the_walk)
{
    size_t len;

    start(MIB);
    expect(set("key", 5, 1), SHD_OK);
    roots_now()[root_number("key")] = UINT32_MAX;
    expect(shd_scan(dict, NULL, 0, 0, cursor, 65535, &len, NULL, 0, &found),
           SHD_CORRUPT);
    inner->shard[0].lru.last = UINT32_MAX;
    shd_keys *k;
    expect(shd_keys_get(dict, 0, &k), SHD_CORRUPT);
    expect_said("the LRU list leads outside");
}
END_TEST

/* ---- lists of keys ---------------------------------------------------- */

static unsigned key_at(const shd_keys *k, uint64_t i)
{
    size_t len;
    const char *key = shd_keys_at(k, i, &len);

    ck_assert_ptr_nonnull(key);
    return number(key, len);
}

START_TEST(keys_come_the_least_recently_stored_first)
{
    shd_keys *k;
    double sum;

    start(4 * MIB);
    expect(shd_keys_get(dict, 0, &k), SHD_OK);
    ck_assert_uint_eq(shd_keys_count(k), 0);
    ck_assert_ptr_null(shd_keys_at(k, 0, NULL));
    shd_keys_free(k);
    for (unsigned i = 0; i < KEYS; i++)
        expect(set(name(i), 10, i), SHD_OK);
    for (unsigned i = 0; i < KEYS; i += 2)
        expect(set(name(i), i % 4 == 0 ? 10 : 500, i), SHD_OK);
    expect(shd_incr(dict, "k0", 2, 1, 0, 0, 0, &sum, NULL), SHD_NOTNUMBER);
    expect(shd_keys_get(dict, 0, &k), SHD_OK);
    ck_assert_uint_eq(shd_keys_count(k), KEYS);
    for (unsigned i = 0; i < KEYS; i++)
        ck_assert_uint_eq(key_at(k, i), i < KEYS / 2 ? 2 * i + 1
                                                     : 2 * (i - KEYS / 2));
    ck_assert_ptr_null(shd_keys_at(k, KEYS, NULL));
    shd_keys_free(k);
    expect(shd_keys_get(dict, 7, &k), SHD_OK);
    ck_assert_uint_eq(shd_keys_count(k), 7);
    for (unsigned i = 0; i < 7; i++)
        ck_assert_uint_eq(key_at(k, i), 2 * i + 1);
    shd_keys_free(k);
    shd_keys_free(NULL);
    ck_assert_uint_eq(shd_keys_count(NULL), 0);
    ck_assert_ptr_null(shd_keys_at(NULL, 0, NULL));
}
END_TEST

START_TEST(keys_leave_out_what_has_expired_and_include_lists)
{
    shd_keys *k;

    start(MIB);
    for (unsigned i = 0; i < 600; i++)
        expect(set_ttl(name(i), i % 3 == 0 ? 100 : 0), SHD_OK);
    expect(push(0, "k999", 5, 1), SHD_OK);
    clock_test_advance(100);
    expect(shd_keys_get(dict, 0, &k), SHD_OK);
    ck_assert_uint_eq(shd_keys_count(k), 401);
    ck_assert_uint_eq(key_at(k, 0), 1);
    ck_assert_uint_eq(key_at(k, 400), 999);
    shd_keys_free(k);
}
END_TEST

START_TEST(long_keys_fill_more_than_one_batch)
{
    static char key[65535];
    shd_keys *k;

    start(4 * MIB);
    memset(key, 'y', sizeof(key));
    for (int i = 0; i < 10; i++) {
        key[0] = (char)('a' + i);
        expect(shd_set(dict, key, sizeof(key), "v", 1, 0), SHD_OK);
    }
    expect(shd_keys_get(dict, 0, &k), SHD_OK);
    ck_assert_uint_eq(shd_keys_count(k), 10);
    for (uint64_t i = 0; i < 10; i++) {
        size_t len;
        const char *got = shd_keys_at(k, i, &len);

        ck_assert_uint_eq(len, sizeof(key));
        key[0] = (char)('a' + i);
        ck_assert_int_eq(memcmp(got, key, len), 0);
    }
    shd_keys_free(k);
}
END_TEST

/* The walk over ages loses its place when entries move between two batches:
 * `add` is where the test can come in between. */
struct disturbed {
    unsigned seen[2 * KEYS];
    unsigned given;
    int how;
};

static int add(void *context, const void *key, size_t len)
{
    struct disturbed *s = context;
    unsigned i = number(key, len);

    s->seen[i]++;
    s->given++;
    if (s->given % 300 == 200) {
        /* Some of what stays is written again, some of the rest goes. */
        if (s->how == 0)
            expect(set(name(2 * random_below(KEYS / 2)), 700, 1), SHD_OK);
        else
            (void)del(name(2 * random_below(KEYS / 2) + 1));
        expect(set(name(KEYS + random_below(KEYS)), 10, 1), SHD_OK);
    }
    return SHD_OK;
}

static bool seen(void *context, const void *key, size_t len)
{
    const struct disturbed *s = context;

    return s->seen[number(key, len)] > 0;
}

START_TEST(keys_that_stay_are_listed_once_though_entries_move)
{
    static struct disturbed s;

    start_named(NULL, 4 * MIB, _i % 2 == 0 ? 1 : 4, 0);
    s.how = _i / 2;
    for (unsigned i = 0; i < KEYS; i++)
        expect(set(name(i), 10, i), SHD_OK);
    expect(walk_keys(inner, 0, add, seen, &s), SHD_OK);
    for (unsigned i = 0; i < KEYS; i++) {
        if (i % 2 == 0)
            ck_assert_msg(s.seen[i] == 1, "key %u was given %u times", i,
                          s.seen[i]);
        else
            ck_assert_uint_le(s.seen[i], 1);
    }
    sound();
}
END_TEST

static int add_until(void *context, const void *key, size_t len)
{
    unsigned *left = context;

    (void)key;
    (void)len;
    return (*left)-- > 0 ? SHD_OK : SHD_NOMEM;
}

static bool never_seen(void *context, const void *key, size_t len)
{
    (void)context;
    (void)key;
    (void)len;
    return false;
}

START_TEST(a_walk_ends_with_the_error_of_who_takes_the_keys)
{
    unsigned left = 500;

    start(MIB);
    for (unsigned i = 0; i < 1000; i++)
        expect(set(name(i), 10, i), SHD_OK);
    expect(walk_keys(inner, 0, add_until, never_seen, &left), SHD_NOMEM);
    left = 5000;
    expect(walk_keys(inner, 300, add_until, never_seen, &left), SHD_OK);
    ck_assert_uint_eq(left, 4700);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("walk");
    TCase *c = tcase_create("walk");

    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, a_scan_gives_every_key_once_with_its_value, 0, 4);
    tcase_add_loop_test(
        c, keys_that_stay_are_met_once_while_others_come_and_go, 0, 4);
    tcase_add_loop_test(c, a_scan_goes_on_from_a_key_that_is_not_stored, 0,
                        4);
    tcase_add_loop_test(c, a_scan_skips_expired_entries_unless_asked, 0, 4);
    tcase_add_test(c, a_scan_meets_lists_long_keys_and_long_values);
    tcase_add_test(c, a_scan_without_room_for_values_still_gives_keys);
    tcase_add_test(c, arguments_outside_their_limits_are_refused);
    tcase_add_test(c, a_tree_that_leads_outside_is_corrupt_and_ends_the_walk);
    tcase_add_test(c, keys_come_the_least_recently_stored_first);
    tcase_add_test(c, keys_leave_out_what_has_expired_and_include_lists);
    tcase_add_test(c, long_keys_fill_more_than_one_batch);
    tcase_add_loop_test(c, keys_that_stay_are_listed_once_though_entries_move,
                        0, 4);
    tcase_add_test(c, a_walk_ends_with_the_error_of_who_takes_the_keys);
    suite_add_tcase(s, c);
    return run_suite(s);
}
