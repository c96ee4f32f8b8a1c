/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite cas: shd_cas, shd_get_versioned, shd_store_versioned. */
#include "tests/unit/fixture.h"

#include <math.h>

#define MIB (1u << 20)

static const size_t lengths[] = {0,    1,    7,    8,    100,  257,  1000,
                                 4040, 4056, 4057, 4064, 9000, 30000};
#define LENGTHS ((int)(sizeof(lengths) / sizeof(lengths[0])))

/* cas from a string of pattern `from` to one of pattern `to`. */
static int cas_bytes(const char *key, size_t from_len, unsigned from,
                     size_t to_len, unsigned to)
{
    static unsigned char old[VALUE_MAX];

    return shd_cas(dict, key, strlen(key), SHD_STRING,
                   pattern(old, from_len, from), from_len, 0, SHD_STRING,
                   pattern(bytes_in, to_len, to), to_len, 0, 0, 0, NULL);
}

static int cas_number(const char *key, double from, double to)
{
    return shd_cas(dict, key, strlen(key), SHD_NUMBER, NULL, 0, from,
                   SHD_NUMBER, NULL, 0, to, 0, 0, NULL);
}

static uint64_t version(const char *key)
{
    struct shd_value v;
    uint64_t n = 0;

    expect(shd_get_versioned(dict, key, strlen(key), bytes_out, VALUE_MAX, &v,
                             &n),
           SHD_OK);
    ck_assert_uint_ne(n, 0);
    return n;
}

static int store_versioned(const char *key, size_t len, unsigned seed,
                           uint64_t *n)
{
    return shd_store_versioned(dict, key, strlen(key), SHD_STRING,
                               pattern(bytes_in, len, seed), len, 0, 0, 0, n,
                               NULL);
}

/* ---- by value --------------------------------------------------------- */

START_TEST(cas_stores_only_over_the_same_bytes)
{
    size_t len = lengths[_i];

    start(MIB);
    for (int i = 0; i < LENGTHS; i++) {
        expect(set("k", len, 1), SHD_OK);
        if (len > 0) {
            expect(cas_bytes("k", len, 2, lengths[i], 3), SHD_CHANGED);
            expect(cas_bytes("k", len - 1, 1, lengths[i], 3), SHD_CHANGED);
        }
        expect(cas_bytes("k", len + 1, 1, lengths[i], 3), SHD_CHANGED);
        holds("k", len, 1);
        expect(cas_bytes("k", len, 1, lengths[i], 3), SHD_OK);
        holds("k", lengths[i], 3);
    }
    expect(del("k"), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(cas_sees_the_last_byte_of_a_chain_under_a_long_key)
{
    static unsigned char key[ENTRY_KEY_MAX], old[VALUE_MAX];

    start(MIB);
    pattern(key, 5001, 9);
    pattern(old, 20000, 4);
    expect(shd_set(dict, key, 5001, old, 20000, 0), SHD_OK);
    old[19999] ^= 1;
    expect(shd_cas(dict, key, 5001, SHD_STRING, old, 20000, 0, SHD_NUMBER,
                   NULL, 0, 1, 0, 0, NULL),
           SHD_CHANGED);
    old[19999] ^= 1;
    expect(shd_cas(dict, key, 5001, SHD_STRING, old, 20000, 0, SHD_NIL, NULL,
                   0, 0, 0, 0, NULL),
           SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(cas_compares_numbers_as_numbers_and_types_as_types)
{
    start(MIB);
    expect(set_number("n", 0), SHD_OK);
    expect(cas_number("n", 1, 2), SHD_CHANGED);
    expect(cas_number("n", -0.0, NAN), SHD_OK);
    expect(cas_number("n", 0, 2), SHD_CHANGED);
    expect(cas_number("n", NAN, 1), SHD_OK);
    holds_number("n", 1);
    expect(shd_cas(dict, "n", 1, SHD_BOOLEAN, NULL, 0, 1, SHD_NUMBER, NULL, 0,
                   2, 0, 0, NULL),
           SHD_CHANGED);
    expect(shd_cas(dict, "n", 1, SHD_STRING, "1", 1, 0, SHD_NUMBER, NULL, 0, 2,
                   0, 0, NULL),
           SHD_CHANGED);
    expect(push(1, "l", 3, 1), SHD_OK);
    expect(cas_bytes("l", 3, 1, 3, 2), SHD_CHANGED);
    holds_number("n", 1);
    ck_assert_uint_eq(llen("l"), 1);
}
END_TEST

START_TEST(cas_of_nothing_adds_and_to_nothing_deletes)
{
    start(MIB);
    expect(shd_cas(dict, "k", 1, SHD_NIL, NULL, 0, 0, SHD_NIL, NULL, 0, 0, 0,
                   0, NULL),
           SHD_OK);
    expect(cas_number("k", 1, 2), SHD_NOTFOUND);
    expect(shd_cas(dict, "k", 1, SHD_NIL, NULL, 0, 0, SHD_NUMBER, NULL, 0, 5,
                   0, 0, NULL),
           SHD_OK);
    expect(shd_cas(dict, "k", 1, SHD_NIL, NULL, 0, 0, SHD_NUMBER, NULL, 0, 6,
                   0, 0, NULL),
           SHD_EXISTS);
    expect(shd_cas(dict, "k", 1, SHD_NIL, NULL, 0, 0, SHD_NIL, NULL, 0, 0, 0,
                   0, NULL),
           SHD_EXISTS);
    holds_number("k", 5);
    expect(shd_cas(dict, "k", 1, SHD_NUMBER, NULL, 0, 4, SHD_NIL, NULL, 0, 0,
                   0, 0, NULL),
           SHD_CHANGED);
    expect(shd_cas(dict, "k", 1, SHD_NUMBER, NULL, 0, 5, SHD_NIL, NULL, 0, 0,
                   0, 0, NULL),
           SHD_OK);
    expect(shd_cas(dict, "k", 1, SHD_NUMBER, NULL, 0, 5, SHD_NIL, NULL, 0, 0,
                   0, 0, NULL),
           SHD_NOTFOUND);
    all_is_free();
}
END_TEST

START_TEST(an_expired_value_is_none)
{
    start(MIB);
    expect(set_ttl("k", 5), SHD_OK);
    clock_test_advance(6);
    expect(shd_cas(dict, "k", 1, SHD_STRING, pattern(bytes_in, 1, 1), 1, 0,
                   SHD_NIL, NULL, 0, 0, 0, 0, NULL),
           SHD_NOTFOUND);
    expect(cas_bytes("k", 1, 1, 5, 2), SHD_NOTFOUND);
    expect(shd_cas(dict, "k", 1, SHD_NIL, NULL, 0, 0, SHD_NUMBER, NULL, 0, 5,
                   0, 0, NULL),
           SHD_OK);
    holds_number("k", 5);
}
END_TEST

START_TEST(cas_replaces_flags_and_expiry)
{
    struct shd_value v;

    start(MIB);
    expect(store(SHD_SET, "k", 10, 1, 1000000, 7, NULL), SHD_OK);
    expect(cas_bytes("k", 10, 1, 10, 2), SHD_OK);
    expect(get("k", &v), SHD_OK);
    ck_assert_int_eq(v.flags, 0);
    ck_assert_int_eq(v.ttl_ms, 0);
    pattern(bytes_in, 10, 2);
    expect(shd_cas(dict, "k", 1, SHD_STRING, bytes_in, 10, 0, SHD_BOOLEAN,
                   NULL, 0, 1, 500000, -3, NULL),
           SHD_OK);
    expect(get("k", &v), SHD_OK);
    ck_assert_uint_eq(v.type, SHD_BOOLEAN);
    ck_assert_int_eq(v.flags, -3);
    ck_assert_int_gt(v.ttl_ms, 0);
}
END_TEST

START_TEST(arguments_outside_their_limits_are_refused)
{
    uint64_t n = 0;
    struct shd_value v;

    start(MIB);
    expect(shd_cas(dict, "", 0, SHD_NIL, NULL, 0, 0, SHD_NIL, NULL, 0, 0, 0, 0,
                   NULL),
           SHD_EMPTYKEY);
    expect(shd_cas(dict, "k", 1, SHD_LIST, NULL, 0, 0, SHD_NIL, NULL, 0, 0, 0,
                   0, NULL),
           SHD_INVAL);
    expect(
        shd_cas(dict, "k", 1, SHD_NIL, NULL, 0, 0, 99, NULL, 0, 0, 0, 0, NULL),
        SHD_INVAL);
    expect(shd_cas(dict, "k", 1, SHD_NIL, NULL, 0, 0, SHD_BOOLEAN, NULL, 0, 2,
                   0, 0, NULL),
           SHD_INVAL);
    expect(shd_cas(dict, "k", 1, SHD_NIL, NULL, 0, 0, SHD_NUMBER, NULL, 0, 2,
                   -1, 0, NULL),
           SHD_INVAL);
    expect(shd_store_versioned(dict, "k", 1, SHD_NUMBER, NULL, 0, 2, 0, 0,
                               NULL, NULL),
           SHD_INVAL);
    expect(shd_store_versioned(dict, "k", 1, SHD_LIST, NULL, 0, 2, 0, 0, &n,
                               NULL),
           SHD_INVAL);
    expect(shd_get_versioned(dict, "k", 1, NULL, 0, &v, NULL), SHD_INVAL);
    expect(shd_get_versioned(dict, "k", 1, NULL, 0, &v, &n), SHD_NOTFOUND);
    all_is_free();
}
END_TEST

/* Room is made of others, but never of the value that is compared. */
START_TEST(cas_never_removes_the_value_it_compares)
{
    uint32_t forcible = 0;
    struct shd_dict_info i;
    size_t most;

    start(64 * 1024);
    i = info();
    most = i.value_max_bytes;
    expect(set("a", most - 3 * 4096, 1), SHD_OK);
    for (int n = 0; n < 300; n++) {
        char key[16];

        snprintf(key, sizeof(key), "k%d", n);
        expect(set(key, 20, 1), SHD_OK);
        expect(shd_touch(dict, "a", 1, SHD_KEEP_TTL), SHD_OK);
    }
    ck_assert(is_there("a"));
    pattern(bytes_in, most, 2);
    static unsigned char old[VALUE_MAX];
    pattern(old, most, 1);
    expect(shd_cas(dict, "a", 1, SHD_STRING, old, most - 3 * 4096, 0,
                   SHD_STRING, bytes_in, most - 3 * 4096, 0, 0, 0, &forcible),
           SHD_NOMEM);
    holds("a", most - 3 * 4096, 1);
    sound();
    expect(shd_cas(dict, "a", 1, SHD_STRING, pattern(old, most - 3 * 4096, 1),
                   most - 3 * 4096, 0, SHD_NUMBER, NULL, 0, 1, 0, 0,
                   &forcible),
           SHD_OK);
    holds_number("a", 1);
    sound();
}
END_TEST

/* ---- by version ------------------------------------------------------- */

START_TEST(a_version_stays_until_something_changes)
{
    size_t len = lengths[_i];
    uint64_t first, n;
    struct shd_value v;
    double sum;

    start(MIB);
    expect(store(SHD_SET, "k", len, 1, 5000000, 3, NULL), SHD_OK);
    first = version("k");
    ck_assert_uint_eq(version("k"), first);
    holds("k", len, 1);
    expect(get("k", &v), SHD_OK);
    ck_assert_int_eq(v.flags, 3);
    ck_assert_int_gt(v.ttl_ms, 4000000);
    sound();
    expect(set("other", 20, 1), SHD_OK);
    expect(shd_touch(dict, "k", 1, SHD_KEEP_TTL), SHD_OK);
    ck_assert_uint_eq(version("k"), first);
    n = first;
#define CHANGES(call)                                                         \
    do {                                                                      \
        expect(call, SHD_OK);                                                 \
        ck_assert_uint_gt(version("k"), n);                                   \
        n = version("k");                                                     \
        sound();                                                              \
    } while (0)
    CHANGES(set("k", len, 2));
    CHANGES(set("k", len, 2));
    CHANGES(shd_expire(dict, "k", 1, 1000000));
    CHANGES(shd_touch(dict, "k", 1, 2000000));
    CHANGES(shd_append(dict, 0, "k", 1, "x", 1, NULL, 0, 0, NULL, NULL));
    CHANGES(shd_append(dict, 1, "k", 1, "x", 1, NULL, 0, 0, NULL, NULL));
    CHANGES(store(SHD_REPLACE, "k", len + 100, 2, 0, 0, NULL));
    CHANGES(set_number("k", 4));
    CHANGES(shd_incr(dict, "k", 1, 1, 0, 0, 0, &sum, NULL));
    CHANGES(shd_cas(dict, "k", 1, SHD_NUMBER, NULL, 0, 5, SHD_NUMBER, NULL, 0,
                    5, 0, 0, NULL));
    expect(del("k"), SHD_OK);
    CHANGES(set_number("k", 5));
    expect(del("k"), SHD_OK);
    expect(del("other"), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(a_store_by_version_wants_that_version)
{
    size_t len = lengths[_i];
    uint64_t n, stale;

    start(MIB);
    for (int i = 0; i < LENGTHS; i++) {
        n = 0;
        expect(store_versioned("k", len, 1, &n), SHD_OK);
        ck_assert_uint_eq(version("k"), n);
        stale = n;
        expect(store_versioned("k", lengths[i], 2, &n), SHD_OK);
        ck_assert_uint_gt(n, stale);
        ck_assert_uint_eq(version("k"), n);
        expect(store_versioned("k", 10, 3, &stale), SHD_CHANGED);
        holds("k", lengths[i], 2);
        stale = 0;
        expect(store_versioned("k", 10, 3, &stale), SHD_EXISTS);
        ck_assert_uint_eq(stale, 0);
        sound();
        stale = n;
        expect(shd_store_versioned(dict, "k", 1, SHD_NIL, NULL, 0, 0, 0, 0, &n,
                                   NULL),
               SHD_OK);
        ck_assert_uint_eq(n, 0);
        expect(store_versioned("k", 10, 3, &stale), SHD_NOTFOUND);
    }
    all_is_free();
}
END_TEST

/* Without a version of its own, an entry never has the one asked for. */
START_TEST(a_version_does_not_outlive_a_store_in_another_cell)
{
    uint64_t n = 0, stale;

    start(MIB);
    expect(store_versioned("k", 10, 1, &n), SHD_OK);
    stale = n;
    expect(set("k", 2000, 2), SHD_OK);
    ck_assert(!cell_is_versioned(entry_of("k")->cell.meta));
    expect(store_versioned("k", 10, 3, &stale), SHD_CHANGED);
    expect(del("k"), SHD_OK);
    expect(set("k", 10, 1), SHD_OK);
    expect(store_versioned("k", 10, 3, &stale), SHD_CHANGED);
    expect(shd_expire(dict, "k", 1, 5), SHD_OK);
    clock_test_advance(6);
    expect(store_versioned("k", 10, 3, &stale), SHD_NOTFOUND);
    ck_assert(!is_there("k"));
}
END_TEST

START_TEST(reading_a_version_again_takes_no_lock)
{
    uint64_t first, seq;

    start(MIB);
    expect(set("k", 30000, 1), SHD_OK);
    first = version("k");
    seq = dict_guard(inner, 0)->seq;
    ck_assert_uint_eq(version("k"), first);
    ck_assert_uint_eq(dict_guard(inner, 0)->seq, seq);
}
END_TEST

START_TEST(a_buffer_too_small_gives_the_need_and_no_version)
{
    uint64_t n = 77;
    struct shd_value v;

    start(MIB);
    expect(set("k", 300, 1), SHD_OK);
    expect(shd_get_versioned(dict, "k", 1, bytes_out, 299, &v, &n), SHD_SPACE);
    ck_assert_uint_eq(v.len, 300);
    ck_assert_uint_eq(n, 77);
    ck_assert(!cell_is_versioned(entry_of("k")->cell.meta));
    expect(shd_get_versioned(dict, "k", 1, bytes_out, 300, &v, &n), SHD_OK);
    expect(push(1, "l", 3, 1), SHD_OK);
    expect(shd_get_versioned(dict, "l", 1, bytes_out, 300, &v, &n),
           SHD_ISLIST);
}
END_TEST

START_TEST(values_under_long_keys_have_versions)
{
    static unsigned char key[ENTRY_KEY_MAX];
    struct shd_value v;
    uint64_t n, again;

    start(MIB);
    pattern(key, 3001, 9);
    for (int i = 0; i < 4; i++) {
        int32_t flags = i & 1;
        bool number = i >= 2;

        pattern(bytes_in, 5000, 3);
        expect(shd_store(dict, SHD_SET, key, 3001,
                         number ? SHD_NUMBER : SHD_STRING, bytes_in,
                         number ? 0 : 5000, 8, 900000, flags, NULL),
               SHD_OK);
        expect(
            shd_get_versioned(dict, key, 3001, bytes_out, VALUE_MAX, &v, &n),
            SHD_OK);
        sound();
        expect(shd_get_versioned(dict, key, 3001, bytes_out, VALUE_MAX, &v,
                                 &again),
               SHD_OK);
        ck_assert_uint_eq(again, n);
        ck_assert_int_eq(v.flags, flags);
        ck_assert_int_gt(v.ttl_ms, 0);
        if (number)
            ck_assert_double_eq(v.number, 8);
        else
            ck_assert_int_eq(memcmp(bytes_out, bytes_in, 5000), 0);
    }
    expect(shd_delete(dict, key, 3001), SHD_OK);
    all_is_free();
}
END_TEST

/* In a full dict others go, as for a store; the entry itself never does. */
START_TEST(the_first_version_makes_room)
{
    char key[16];

    start(64 * 1024);
    expect(set("long", 20000, 1), SHD_OK);
    for (int n = 0; n < 2000; n++) {
        snprintf(key, sizeof(key), "k%d", n);
        expect(set(key, 24, (unsigned)n), SHD_OK);
        if (n % 50 == 0)
            expect(shd_touch(dict, "long", 4, SHD_KEEP_TTL), SHD_OK);
    }
    ck_assert_uint_gt(info().evictions, 0);
    (void)version("long");
    holds("long", 20000, 1);
    sound();
    for (int n = 1900; n < 2000; n++) {
        snprintf(key, sizeof(key), "k%d", n);
        if (!is_there(key))
            continue;
        (void)version(key);
        holds(key, 24, (unsigned)n);
    }
    holds("long", 20000, 1);
    sound();
}
END_TEST

START_TEST(a_version_survives_the_moving_of_its_cell)
{
    uint64_t moves, n[40];
    char key[16];

    start(64 * 1024);
    for (int i = 0; i < 40; i++) {
        snprintf(key, sizeof(key), "v%d", i);
        n[i] = 0;
        expect(store_versioned(key, 60, 1, &n[i]), SHD_OK);
        for (int k = 0; k < 6; k++) {
            snprintf(key, sizeof(key), "k%d.%d", i, k);
            expect(set(key, 70, 1), SHD_OK);
        }
    }
    for (int i = 0; i < 240; i++) {
        snprintf(key, sizeof(key), "k%d.%d", i / 6, i % 6);
        (void)del(key);
    }
    moves = info().moves;
    for (int i = 0; i < 12; i++) {
        snprintf(key, sizeof(key), "b%d", i);
        (void)store(SHD_SET | SHD_SAFE, key, 4000, 1, 0, 0, NULL);
    }
    ck_assert_uint_gt(info().moves, moves);
    for (int i = 0; i < 40; i++) {
        snprintf(key, sizeof(key), "v%d", i);
        ck_assert_uint_eq(version(key), n[i]);
    }
    sound();
}
END_TEST

START_TEST(a_version_never_given_is_named)
{
    uint64_t n = 0;
    struct entry *e;
    uint64_t *word;

    start(MIB);
    expect(store_versioned("k", 10, 1, &n), SHD_OK);
    sound();
    e = entry_of("k");
    word = (uint64_t *)(void *)((unsigned char *)e +
                                entry_version_at(e->cell.meta, 1));
    ck_assert_uint_eq(*word, n);
    *word = 0;
    expect_check_names("a version that was never given");
    *word = UINT64_MAX;
    expect_check_names("a version that was never given");
    *word = n;
    sound();
}
END_TEST

/* Counting by cas and by version in processes that are killed: not a count
 * too many or too few. */
START_TEST(counting_by_condition_survives_kills)
{
    double value = 0;
    struct shd_value v;
    uint64_t n;

    start(MIB);
    expect(set_number("c", 0), SHD_OK);
    for (int i = 0; i < 20; i++) {
        dying_worker({
            for (int k = 0; k < 100; k++) {
                expect(get("c", &v), SHD_OK);
                expect(cas_number("c", v.number, v.number + 1), SHD_OK);
                expect(shd_get_versioned(dict, "c", 1, NULL, 0, &v, &n),
                       SHD_OK);
                expect(shd_store_versioned(dict, "c", 1, SHD_NUMBER, NULL, 0,
                                           v.number + 1, 0, 0, &n, NULL),
                       SHD_OK);
            }
        });
        value += 200;
        holds_number("c", value);
    }
    sound();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cas");
    TCase *c = tcase_create("cas");

    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, cas_stores_only_over_the_same_bytes, 0, LENGTHS);
    tcase_add_test(c, cas_sees_the_last_byte_of_a_chain_under_a_long_key);
    tcase_add_test(c, cas_compares_numbers_as_numbers_and_types_as_types);
    tcase_add_test(c, cas_of_nothing_adds_and_to_nothing_deletes);
    tcase_add_test(c, an_expired_value_is_none);
    tcase_add_test(c, cas_replaces_flags_and_expiry);
    tcase_add_test(c, arguments_outside_their_limits_are_refused);
    tcase_add_test(c, cas_never_removes_the_value_it_compares);
    tcase_add_loop_test(c, a_version_stays_until_something_changes, 0,
                        LENGTHS);
    tcase_add_loop_test(c, a_store_by_version_wants_that_version, 0, LENGTHS);
    tcase_add_test(c, a_version_does_not_outlive_a_store_in_another_cell);
    tcase_add_test(c, reading_a_version_again_takes_no_lock);
    tcase_add_test(c, a_buffer_too_small_gives_the_need_and_no_version);
    tcase_add_test(c, values_under_long_keys_have_versions);
    tcase_add_test(c, the_first_version_makes_room);
    tcase_add_test(c, a_version_survives_the_moving_of_its_cell);
    tcase_add_test(c, a_version_never_given_is_named);
    tcase_add_test(c, counting_by_condition_survives_kills);
    suite_add_tcase(s, c);
    return run_suite(s);
}
