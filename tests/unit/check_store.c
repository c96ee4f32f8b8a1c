/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite store: set, add, replace, safe, delete, incr, ttl, expire, get,
 * get_stale, through the public functions.
 * valgrind: no, it takes mount()'s type for a string where there is none. */
#include "tests/unit/fixture.h"

#include <fcntl.h>
#include <math.h>

#define MIB (1u << 20)
#define CHAIN CHAIN_DATA_MAX

/* ---- keys and values -------------------------------------------------- */

static const size_t key_lengths[] = {1,    7,    8,    9,     1023,  1024,
                                     1025, 4071, 4072, 4073,  4096,  8144,
                                     8145, 20000, 65534, 65535};
static const size_t value_lengths[] = {
    0,         1,         7,         8,         9,         16,
    17,        256,       257,       1000,      3000,      3064,
    4055,      4056,      4057,      4064,      4072,      4073,
    4096,      4100,      2 * CHAIN - 1, 2 * CHAIN, 2 * CHAIN + 1,
    3 * CHAIN - 1, 3 * CHAIN, 3 * CHAIN + 1, 100000};
#define KEYS ((int)(sizeof(key_lengths) / sizeof(key_lengths[0])))
#define VALUES (sizeof(value_lengths) / sizeof(value_lengths[0]))

static unsigned char key_bytes[65536];

START_TEST(any_key_holds_any_value)
{
    size_t key_len = key_lengths[_i];

    start(MIB);
    pattern(key_bytes, sizeof(key_bytes), 77);
    for (size_t i = 0; i < VALUES; i++) {
        size_t len = value_lengths[i];
        unsigned seed = (unsigned)i + 1;

        expect(shd_set(dict, key_bytes, key_len,
                       pattern(bytes_in, len, seed), len, 0),
               SHD_OK);
        holds_bytes(key_bytes, key_len, len, seed);
        sound();
    }
    ck_assert_uint_eq(info().entries, 1);
    expect(shd_delete(dict, key_bytes, key_len), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(every_value_follows_every_other)
{
    start(MIB);
    for (size_t a = 0; a < VALUES; a++) {
        for (size_t b = 0; b < VALUES; b++) {
            expect(store(SHD_SET, "k", value_lengths[a], 1, 0, (int)a % 2,
                         NULL),
                   SHD_OK);
            expect(store(SHD_SET, "k", value_lengths[b], 2, 0, (int)b % 3,
                         NULL),
                   SHD_OK);
            holds("k", value_lengths[b], 2);
        }
    }
    sound();
    expect(del("k"), SHD_OK);
    all_is_free();
}
END_TEST

/* The sizes at which a value passes from one class of cells to the next. */
START_TEST(values_around_every_size_class_come_back)
{
    start(MIB);
    for (uint32_t c = 0; c < SLAB_CLASSES; c++) {
        for (int around = -2; around <= 2; around++) {
            int len = (int)slab_class_bytes(c) - (int)sizeof(struct entry) -
                      8 + around;

            if (len < 0)
                continue;
            expect(set("key", (size_t)len, c), SHD_OK);
            holds("key", (size_t)len, c);
        }
        sound();
    }
    expect(del("key"), SHD_OK);
    all_is_free();
}
END_TEST

/* Begun in one cell and ended in another, where the classes are far apart. */
START_TEST(a_value_in_two_cells_is_like_any_other)
{
    static const size_t lengths[] = {1320, 1321, 1500, 1699, 1700, 2000,
                                     2001, 2300, 3000, 3999, 4063, 4064};
    unsigned split = 0;
    struct shd_value v;

    start(MIB);
    for (unsigned i = 0; i < 12; i++) {
        size_t len = lengths[i];

        expect(store(SHD_SET, "key", len, i, 5000, 7, NULL), SHD_OK);
        holds("key", len, i);
        split += (entry_of("key")->cell.meta & CELL_CHAINED) != 0;
        expect(shd_get(dict, "key", 3, bytes_out, len - 1, &v), SHD_SPACE);
        ck_assert_uint_eq(v.len, len);
        ck_assert_int_eq(v.flags, 7);
        expect(store(SHD_REPLACE, "key", len, i + 50, 0, 0, NULL), SHD_OK);
        holds("key", len, i + 50);
        sound();
    }
    ck_assert_uint_ge(split, 5);
    expect(del("key"), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(keys_may_hold_any_byte_and_differ_in_one)
{
    start(MIB);
    for (int i = 0; i < 256; i++) {
        unsigned char key[3] = {0, (unsigned char)i, 0};

        expect(shd_set(dict, key, 3, &i, sizeof(i), 0), SHD_OK);
        expect(shd_set(dict, key, 2, &i, 1, 0), SHD_OK);
    }
    ck_assert_uint_eq(info().entries, 512);
    for (int i = 0; i < 256; i++) {
        unsigned char key[3] = {0, (unsigned char)i, 0};
        struct shd_value v;
        int got = -1;

        expect(shd_get(dict, key, 3, &got, sizeof(got), &v), SHD_OK);
        ck_assert_int_eq(got, i);
        expect(shd_delete(dict, key, 3), SHD_OK);
        expect(shd_get(dict, key, 3, &got, sizeof(got), &v), SHD_NOTFOUND);
        expect(shd_delete(dict, key, 2), SHD_OK);
    }
    all_is_free();
}
END_TEST

START_TEST(long_keys_that_differ_at_the_end_are_two)
{
    start(MIB);
    pattern(key_bytes, sizeof(key_bytes), 5);
    expect(shd_set(dict, key_bytes, 65535, "one", 3, 0), SHD_OK);
    key_bytes[65534] ^= 1;
    expect(shd_set(dict, key_bytes, 65535, "two", 3, 0), SHD_OK);
    ck_assert_uint_eq(info().entries, 2);
    expect(shd_delete(dict, key_bytes, 65535), SHD_OK);
    key_bytes[65534] ^= 1;
    expect(shd_get(dict, key_bytes, 65535, bytes_out, 3,
                   &(struct shd_value){0}),
           SHD_OK);
    ck_assert_int_eq(memcmp(bytes_out, "one", 3), 0);
    sound();
}
END_TEST

START_TEST(empty_and_too_long_keys_are_refused)
{
    struct shd_value v;
    int64_t ttl;
    uint64_t n;
    double sum;

    start(MIB);
#define REFUSED(key, len, code)                                               \
    expect(shd_get(dict, key, len, NULL, 0, &v), code);                       \
    expect(shd_get_stale(dict, key, len, NULL, 0, &v), code);                 \
    expect(shd_set(dict, key, len, "v", 1, 0), code);                         \
    expect(shd_delete(dict, key, len), code);                                 \
    expect(shd_incr(dict, key, len, 1, 1, 0, 0, &sum, NULL), code);           \
    expect(shd_ttl(dict, key, len, &ttl), code);                              \
    expect(shd_expire(dict, key, len, 0), code);                              \
    expect(shd_push(dict, 1, key, len, SHD_NUMBER, NULL, 0, 1, NULL), code);  \
    expect(shd_pop(dict, 1, key, len, NULL, 0, &v), code);                    \
    expect(shd_llen(dict, key, len, &n), code);                               \
    expect(shd_scan(dict, key, len, 0, key_bytes, 1, &(size_t){0}, NULL, 0,   \
                    &v),                                                      \
           code)
    REFUSED("", 0, SHD_EMPTYKEY);
    REFUSED(key_bytes, 65536, SHD_LONGKEY);
    expect_said("65536 bytes: at most 65535");
    expect(shd_set(dict, NULL, 1, "v", 1, 0), SHD_INVAL);
    expect(shd_get(dict, NULL, 1, NULL, 0, &v), SHD_INVAL);
    all_is_free();
}
END_TEST

START_TEST(arguments_outside_their_limits_are_refused)
{
    struct shd_value v;

    start(MIB);
    expect(set("k", 3, 1), SHD_OK);
    expect(shd_store(dict, 3, "k", 1, SHD_STRING, "x", 1, 0, 0, 0, NULL),
           SHD_INVAL);
    expect(shd_store(dict, 8, "k", 1, SHD_STRING, "x", 1, 0, 0, 0, NULL),
           SHD_INVAL);
    expect(shd_store(dict, 0, "k", 1, SHD_NIL, NULL, 0, 0, 0, 0, NULL),
           SHD_INVAL);
    expect(shd_store(dict, 0, "k", 1, SHD_LIST, NULL, 0, 0, 0, 0, NULL),
           SHD_INVAL);
    expect(shd_store(dict, 0, "k", 1, 99, NULL, 0, 0, 0, 0, NULL), SHD_INVAL);
    expect(shd_store(dict, 0, "k", 1, SHD_STRING, NULL, 1, 0, 0, 0, NULL),
           SHD_INVAL);
    expect(shd_store(dict, 0, "k", 1, SHD_BOOLEAN, NULL, 0, 2, 0, 0, NULL),
           SHD_INVAL);
    expect(shd_set(dict, "k", 1, "x", 1, -1), SHD_INVAL);
    expect_said("-1 ms");
    expect(shd_expire(dict, "k", 1, -1), SHD_INVAL);
    expect(shd_incr(dict, "n", 1, 1, 1, 0, -1, NULL, NULL), SHD_INVAL);
    expect(shd_get(dict, "k", 1, NULL, 1, &v), SHD_INVAL);
    expect(shd_get(dict, "k", 1, NULL, 0, NULL), SHD_INVAL);
    expect(shd_ttl(dict, "k", 1, NULL), SHD_INVAL);
    expect(shd_set(NULL, "k", 1, "x", 1, 0), SHD_INVAL);
    expect(shd_get(NULL, "k", 1, NULL, 0, &v), SHD_INVAL);
    holds("k", 3, 1);
    ck_assert_uint_eq(info().entries, 1);
}
END_TEST

START_TEST(a_buffer_too_small_tells_the_need)
{
    static const size_t lengths[] = {5, 300, 4000, 9000};
    struct shd_value v;

    start(MIB);
    for (int i = 0; i < 4; i++) {
        expect(set("k", lengths[i], 1), SHD_OK);
        memset(bytes_out, 0x5a, 16);
        expect(shd_get(dict, "k", 1, bytes_out, lengths[i] - 1, &v),
               SHD_SPACE);
        ck_assert_uint_eq(v.len, lengths[i]);
        ck_assert_uint_eq(bytes_out[0], 0x5a);
        expect(shd_get(dict, "k", 1, NULL, 0, &v), SHD_SPACE);
        expect(shd_get(dict, "k", 1, bytes_out, v.len, &v), SHD_OK);
    }
    expect(set("k", 0, 1), SHD_OK);
    expect(shd_get(dict, "k", 1, NULL, 0, &v), SHD_OK);
    ck_assert_uint_eq(v.len, 0);
}
END_TEST

/* ---- types and flags -------------------------------------------------- */

static int store_type(uint32_t type, int32_t flags)
{
    return shd_store(dict, SHD_SET, "k", 1, type, "text", 4,
                     type == SHD_BOOLEAN ? 1 : 2.5, 0, flags, NULL);
}

static void has_type(uint32_t type, int32_t flags)
{
    struct shd_value v;

    expect(get("k", &v), SHD_OK);
    ck_assert_uint_eq(v.type, type);
    ck_assert_int_eq(v.flags, flags);
    ck_assert_int_eq(v.ttl_ms, 0);
    if (type == SHD_STRING) {
        ck_assert_uint_eq(v.len, 4);
        ck_assert_int_eq(memcmp(bytes_out, "text", 4), 0);
    } else {
        ck_assert_double_eq(v.number, type == SHD_BOOLEAN ? 1 : 2.5);
    }
}

START_TEST(every_type_follows_every_other_with_flags_and_without)
{
    static const int32_t flags[] = {0, 1, -1, INT32_MIN, INT32_MAX};

    start(MIB);
    for (uint32_t a = SHD_STRING; a <= SHD_LIST; a++) {
        for (uint32_t b = SHD_STRING; b <= SHD_BOOLEAN; b++) {
            for (int i = 0; i < 5; i++) {
                for (int j = 0; j < 5; j++) {
                    if (a == SHD_LIST) {
                        expect(del("k"), SHD_OK);
                        expect(push(i % 2, "k", 10, 1), SHD_OK);
                    } else {
                        expect(store_type(a, flags[i]), SHD_OK);
                        has_type(a, flags[i]);
                    }
                    expect(store_type(b, flags[j]), SHD_OK);
                    has_type(b, flags[j]);
                }
            }
            sound();
        }
    }
    expect(del("k"), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(numbers_keep_every_bit)
{
    static const double numbers[] = {0.0,  -0.0, 1e308, -1e-308, 5e-324,
                                     9007199254740993.0, 0.1};

    start(MIB);
    for (int i = 0; i < 7; i++) {
        struct shd_value v;

        expect(set_number("n", numbers[i]), SHD_OK);
        expect(get("n", &v), SHD_OK);
        ck_assert_int_eq(memcmp(&v.number, &numbers[i], 8), 0);
    }
    expect(set_number("n", INFINITY), SHD_OK);
    holds_number("n", INFINITY);
    expect(set_number("n", NAN), SHD_OK);
    struct shd_value v;
    expect(get("n", &v), SHD_OK);
    ck_assert(isnan(v.number));
    expect(shd_store(dict, SHD_SET, "b", 1, SHD_BOOLEAN, NULL, 0, 0, 0, 0,
                     NULL),
           SHD_OK);
    expect(get("b", &v), SHD_OK);
    ck_assert_uint_eq(v.type, SHD_BOOLEAN);
    ck_assert_double_eq(v.number, 0);
}
END_TEST

START_TEST(a_value_of_about_the_same_class_is_written_in_place)
{
    uint32_t ref;

    start(MIB);
    expect(set("k", 100, 1), SHD_OK);
    ref = ref_of("k");
    expect(set("k", 90, 2), SHD_OK);
    ck_assert_uint_eq(ref_of("k"), ref);
    holds("k", 90, 2);
    expect(set("k", 101, 3), SHD_OK);
    ck_assert_uint_eq(ref_of("k"), ref);
    holds("k", 101, 3);
    /* One class less is enough of a reason to stay, two are not. */
    expect(set("k", 80, 4), SHD_OK);
    ck_assert_uint_eq(ref_of("k"), ref);
    holds("k", 80, 4);
    expect(set("k", 100, 5), SHD_OK);
    ck_assert_uint_eq(ref_of("k"), ref);
    holds("k", 100, 5);
    expect(set("k", 72, 6), SHD_OK);
    ck_assert_uint_ne(ref_of("k"), ref);
    holds("k", 72, 6);
    ref = ref_of("k");
    expect(set("k", 8, 3), SHD_OK);
    ck_assert_uint_ne(ref_of("k"), ref);
    ref = ref_of("k");
    expect(set_number("k", 5), SHD_OK);
    ck_assert_uint_eq(ref_of("k"), ref);
    holds_number("k", 5);
    /* Flags take room of their own. */
    expect(store(SHD_SET, "k", 3, 1, 0, 9, NULL), SHD_OK);
    ck_assert_uint_ne(ref_of("k"), ref);
    ref = ref_of("k");
    expect(store(SHD_SET, "k", 4, 1, 0, 10, NULL), SHD_OK);
    ck_assert_uint_eq(ref_of("k"), ref);
    /* Too many words for the log. */
    expect(set("k", 300, 1), SHD_OK);
    ref = ref_of("k");
    expect(set("k", 301, 2), SHD_OK);
    ck_assert_uint_ne(ref_of("k"), ref);
    holds("k", 301, 2);
    sound();
}
END_TEST

/* ---- add, replace ----------------------------------------------------- */

START_TEST(add_stores_only_what_is_missing_or_expired)
{
    start(MIB);
    expect(store(SHD_ADD, "k", 5, 1, 50, 7, NULL), SHD_OK);
    expect(store(SHD_ADD, "k", 5, 2, 0, 0, NULL), SHD_EXISTS);
    expect(store(SHD_ADD | SHD_SAFE, "k", 9000, 2, 0, 0, NULL), SHD_EXISTS);
    holds("k", 5, 1);
    clock_test_advance(50);
    expect(store(SHD_ADD, "k", 6, 3, 0, 0, NULL), SHD_OK);
    holds("k", 6, 3);
    expect(push(1, "l", 5, 1), SHD_OK);
    expect(store(SHD_ADD, "l", 5, 1, 0, 0, NULL), SHD_EXISTS);
    ck_assert_uint_eq(llen("l"), 1);
    sound();
}
END_TEST

START_TEST(replace_stores_only_over_what_is_live)
{
    struct shd_value v;

    start(MIB);
    expect(store(SHD_REPLACE, "k", 5, 1, 0, 0, NULL), SHD_NOTFOUND);
    expect(store(SHD_REPLACE | SHD_SAFE, "k", 9000, 1, 0, 0, NULL),
           SHD_NOTFOUND);
    expect(store(SHD_SET, "k", 5, 1, 50, 7, NULL), SHD_OK);
    expect(store(SHD_REPLACE, "k", 6, 2, 0, 0, NULL), SHD_OK);
    holds("k", 6, 2);
    expect(get("k", &v), SHD_OK);
    ck_assert_int_eq(v.flags, 0);
    ck_assert_int_eq(v.ttl_ms, 0);
    expect(set_ttl("k", 50), SHD_OK);
    clock_test_advance(50);
    expect(store(SHD_REPLACE, "k", 6, 3, 0, 0, NULL), SHD_NOTFOUND);
    for (int i = 0; i < 30; i++)
        expect(push(0, "l", 300, 1), SHD_OK);
    expect(store(SHD_REPLACE, "l", 9000, 4, 0, 0, NULL), SHD_OK);
    holds("l", 9000, 4);
    expect(del("l"), SHD_OK);
    expect(shd_flush_expired(dict, 0, NULL), SHD_OK);
    all_is_free();
}
END_TEST

/* ---- expiry ----------------------------------------------------------- */

START_TEST(an_entry_expires_at_its_time_and_stays_readable_as_stale)
{
    struct shd_value v;
    int64_t ttl;

    start(MIB);
    /* Time stands still as far as the test can tell: an hour is long. */
    expect(store(SHD_SET, "k", 5, 1, 3600000, 3, NULL), SHD_OK);
    expect(get("k", &v), SHD_OK);
    ck_assert_int_gt(v.ttl_ms, 3500000);
    ck_assert_int_le(v.ttl_ms, 3600000);
    clock_test_advance(3600000);
    expect(get("k", &v), SHD_NOTFOUND);
    expect(get_stale("k", &v), SHD_OK);
    ck_assert_int_lt(v.ttl_ms, 0);
    ck_assert_int_eq(v.flags, 3);
    ck_assert_int_eq(memcmp(bytes_out, pattern(bytes_in, 5, 1), 5), 0);
    expect(shd_ttl(dict, "k", 1, &ttl), SHD_OK);
    ck_assert_int_lt(ttl, 0);
    expect(del("k"), SHD_NOTFOUND);
    expect(get_stale("k", &v), SHD_NOTFOUND);
    expect(shd_ttl(dict, "k", 1, &ttl), SHD_NOTFOUND);
    all_is_free();
}
END_TEST

START_TEST(the_instant_itself_is_expired)
{
    struct entry *e;
    struct shd_value v;
    uint64_t now;

    start(MIB);
    expect(set_ttl("k", 3600000), SHD_OK);
    e = entry_of("k");
    do {
        now = clock_now_ms();
        e->key_expires = (e->key_expires & ~ENTRY_EXPIRES_MASK) | now;
        expect(get_stale("k", &v), SHD_OK);
    } while (clock_now_ms() != now);
    /* No ms had passed: 0 left, which would mean never. */
    ck_assert_int_eq(v.ttl_ms, -1);
    expect(get("k", &v), SHD_NOTFOUND);
}
END_TEST

START_TEST(times_beyond_the_year_10000_never_expire)
{
    struct shd_value v;

    start(MIB);
    expect(set_ttl("max", INT64_MAX), SHD_OK);
    expect(set_ttl("over", (int64_t)ENTRY_EXPIRES_MASK), SHD_OK);
    expect(get("max", &v), SHD_OK);
    ck_assert_int_eq(v.ttl_ms, 0);
    expect(get("over", &v), SHD_OK);
    ck_assert_int_eq(v.ttl_ms, 0);
    expect(set_ttl("below", (int64_t)(ENTRY_EXPIRES_MASK - clock_now_ms()) -
                                60000),
           SHD_OK);
    expect(get("below", &v), SHD_OK);
    ck_assert_int_gt(v.ttl_ms, INT64_C(200000000000000));
    sound();
    expect(shd_expire(dict, "below", 5, INT64_MAX), SHD_OK);
    expect(get("below", &v), SHD_OK);
    ck_assert_int_eq(v.ttl_ms, 0);
}
END_TEST

START_TEST(expire_sets_the_time_and_revives)
{
    struct shd_value v;

    start(MIB);
    expect(shd_expire(dict, "k", 1, 5), SHD_NOTFOUND);
    expect(set("k", 5, 1), SHD_OK);
    expect(shd_expire(dict, "k", 1, 1000000), SHD_OK);
    expect(get("k", &v), SHD_OK);
    ck_assert_int_gt(v.ttl_ms, 900000);
    expect(shd_expire(dict, "k", 1, 0), SHD_OK);
    expect(get("k", &v), SHD_OK);
    ck_assert_int_eq(v.ttl_ms, 0);
    expect(shd_expire(dict, "k", 1, 100), SHD_OK);
    clock_test_advance(100);
    expect(get("k", &v), SHD_NOTFOUND);
    sound();
    expect(shd_expire(dict, "k", 1, 1000000), SHD_OK);
    holds("k", 5, 1);
    /* A bound that is too early overlooks nothing. */
    clock_test_advance(1000000);
    expect(get("k", &v), SHD_NOTFOUND);
    expect(shd_flush_expired(dict, 0, NULL), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(storing_over_takes_the_new_time_to_live)
{
    struct shd_value v;

    start(MIB);
    expect(set_ttl("k", 1000), SHD_OK);
    expect(set_ttl("k", 0), SHD_OK);
    clock_test_advance(2000);
    expect(get("k", &v), SHD_OK);
    ck_assert_int_eq(v.ttl_ms, 0);
    expect(set_ttl("k", 500), SHD_OK);
    sound();
    clock_test_advance(500);
    expect(get("k", &v), SHD_NOTFOUND);
    expect(set_ttl("k", 500), SHD_OK);
    expect(get("k", &v), SHD_OK);
    sound();
}
END_TEST

/* ---- incr ------------------------------------------------------------- */

START_TEST(incr_adds_and_keeps_expiry_and_flags)
{
    struct shd_value v;
    double sum = 99;
    uint32_t forcible = 9;

    start(MIB);
    expect(shd_incr(dict, "n", 1, 1, 0, 0, 0, &sum, NULL), SHD_NOTFOUND);
    ck_assert_double_eq(sum, 99);
    expect(shd_incr(dict, "n", 1, 2.5, 1, 10, 5000, &sum, &forcible), SHD_OK);
    ck_assert_double_eq(sum, 12.5);
    ck_assert_uint_eq(forcible, 0);
    expect(shd_incr(dict, "n", 1, -20, 1, 1000, 0, &sum, NULL), SHD_OK);
    ck_assert_double_eq(sum, -7.5);
    expect(get("n", &v), SHD_OK);
    ck_assert_int_gt(v.ttl_ms, 0);
    expect(shd_store(dict, SHD_SET, "n", 1, SHD_NUMBER, NULL, 0, 4, 900000,
                     -5, NULL),
           SHD_OK);
    expect(shd_incr(dict, "n", 1, 1, 0, 0, 0, NULL, NULL), SHD_OK);
    expect(get("n", &v), SHD_OK);
    ck_assert_double_eq(v.number, 5);
    ck_assert_int_eq(v.flags, -5);
    ck_assert_int_gt(v.ttl_ms, 800000);
    sound();
}
END_TEST

START_TEST(incr_over_an_expired_value_begins_anew)
{
    struct shd_value v;
    double sum;

    start(MIB);
    expect(store(SHD_SET, "k", 9000, 1, 10, 3, NULL), SHD_OK);
    clock_test_advance(10);
    expect(shd_incr(dict, "k", 1, 1, 0, 0, 0, &sum, NULL), SHD_NOTFOUND);
    expect(get_stale("k", &v), SHD_OK);
    expect(shd_incr(dict, "k", 1, 1, 1, 6, 0, &sum, NULL), SHD_OK);
    ck_assert_double_eq(sum, 7);
    expect(get("k", &v), SHD_OK);
    ck_assert_int_eq(v.flags, 0);
    ck_assert_int_eq(v.ttl_ms, 0);
    expect(del("k"), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(incr_of_what_is_no_number_is_refused)
{
    double sum = 1;

    start(MIB);
    expect(set("s", 2, 1), SHD_OK);
    expect(push(0, "l", 2, 1), SHD_OK);
    expect(shd_store(dict, SHD_SET, "b", 1, SHD_BOOLEAN, NULL, 0, 1, 0, 0,
                     NULL),
           SHD_OK);
    for (const char *k = "slb"; *k != '\0'; k++) {
        expect(shd_incr(dict, k, 1, 1, 0, 0, 0, &sum, NULL), SHD_NOTNUMBER);
        expect(shd_incr(dict, k, 1, 1, 1, 0, 0, &sum, NULL), SHD_NOTNUMBER);
    }
    ck_assert_double_eq(sum, 1);
    holds("s", 2, 1);
}
END_TEST

START_TEST(incr_of_a_long_key_works_too)
{
    double sum;

    start(MIB);
    pattern(key_bytes, 3000, 1);
    for (int i = 1; i <= 3; i++) {
        expect(shd_incr(dict, key_bytes, 3000, 2, 1, 0, 0, &sum, NULL),
               SHD_OK);
        ck_assert_double_eq(sum, 2 * i);
    }
    sound();
    expect(shd_delete(dict, key_bytes, 3000), SHD_OK);
    all_is_free();
}
END_TEST

/* ---- what does not fit ------------------------------------------------ */

START_TEST(a_value_larger_than_the_dict_is_too_big_and_changes_nothing)
{
    uint64_t max;
    uint32_t forcible = 9;

    start(MIB);
    max = info().value_max_bytes;
    expect(set("k", 5, 1), SHD_OK);
    expect(set("other", 5, 2), SHD_OK);
    expect(store(SHD_SET, "k", max + 1, 3, 0, 0, &forcible), SHD_TOOBIG);
    expect(store(SHD_SET | SHD_SAFE, "k", max + 1, 3, 0, 0, NULL),
           SHD_TOOBIG);
    ck_assert_uint_eq(forcible, 0);
    holds("k", 5, 1);
    holds("other", 5, 2);
    if (sizeof(size_t) > 4)
        expect(shd_set(dict, "k", 1, bytes_in, (size_t)UINT32_MAX + 1, 0),
               SHD_TOOBIG);
    sound();
}
END_TEST

/* As for what fits, what the key holds decides first. */
START_TEST(a_value_larger_than_the_dict_says_first_what_the_key_is)
{
    double sum;
    uint64_t max;

    start(65536);
    max = info().value_max_bytes;
    expect(set("live", 5, 1), SHD_OK);
    expect(store(SHD_SET, "expired", 5, 1, 1000, 0, NULL), SHD_OK);
    clock_test_advance(1000);
    expect(store(SHD_ADD, "live", max + 1, 1, 0, 0, NULL), SHD_EXISTS);
    expect(store(SHD_ADD, "expired", max + 1, 1, 0, 0, NULL), SHD_TOOBIG);
    expect(store(SHD_ADD, "missing", max + 1, 1, 0, 0, NULL), SHD_TOOBIG);
    expect(store(SHD_REPLACE, "live", max + 1, 1, 0, 0, NULL), SHD_TOOBIG);
    expect(store(SHD_REPLACE, "expired", max + 1, 1, 0, 0, NULL),
           SHD_NOTFOUND);
    expect(store(SHD_REPLACE, "missing", max + 1, 1, 0, 0, NULL),
           SHD_NOTFOUND);
    expect(shd_push(dict, 1, "live", 4, SHD_STRING, bytes_in, max + 1, 0,
                    NULL),
           SHD_NOTLIST);
    /* A key that is too long by itself. */
    ck_assert_uint_gt(65535, max);
    expect(shd_incr(dict, key_bytes, 65535, 1, 0, 0, 0, &sum, NULL),
           SHD_NOTFOUND);
    expect(shd_incr(dict, key_bytes, 65535, 1, 1, 0, 0, &sum, NULL),
           SHD_TOOBIG);
    holds("live", 5, 1);
    sound();
}
END_TEST

START_TEST(the_largest_value_fits_exactly)
{
    static const uint64_t capacities[] = {8192, 12288, 20480, 65536, MIB};
    uint64_t max;

    start(capacities[_i]);
    max = info().value_max_bytes;
    ck_assert_uint_gt(max, 3000);
    expect(set("k", max, 1), SHD_OK);
    holds("k", max, 1);
    sound();
    expect(set("k", max + 1, 2), SHD_TOOBIG);
    holds("k", max, 1);
    /* Over itself, which needs all its room at once. */
    expect(set("k", max, 3), SHD_OK);
    holds("k", max, 3);
    sound();
    expect(store(SHD_SET | SHD_SAFE, "j", max, 3, 0, 0, NULL), SHD_NOMEM);
    holds("k", max, 3);
    expect(del("k"), SHD_OK);
    all_is_free();
    expect(store(SHD_SET | SHD_SAFE, "j", max, 3, 0, 0, NULL), SHD_OK);
    holds("j", max, 3);
}
END_TEST

/* ---- a system without memory ------------------------------------------ */

START_TEST(a_full_file_system_is_no_memory_and_the_dict_goes_on)
{
    char directory[] = "/tmp/check_store.XXXXXX";
    char name[64], key[16];
    uint32_t stored = 0, forcible = 0;
    int rc;

    ck_assert_ptr_nonnull(mkdtemp(directory));
    if (!mount_tmpfs(directory, "3m")) {
        ck_assert_int_eq(rmdir(directory), 0);
        return;
    }
    snprintf(name, sizeof(name), "%s/segment", directory);
    start_named(name, 16 * MIB, 1, 1000);
    do {
        snprintf(key, sizeof(key), "k%u", stored);
        rc = store(SHD_SET | SHD_SAFE, key, 3000, stored, 0, 0, NULL);
        stored += rc == SHD_OK;
    } while (rc == SHD_OK && stored < 4000);
    expect(rc, SHD_NOMEM);
    ck_assert_uint_gt(stored, 50);
    sound();
    ck_assert_uint_gt(info().pages_free, 1000);
    /* A plain one evicts, for want of memory. */
    expect(store(SHD_SET, "plain", 60000, 6, 0, 0, &forcible), SHD_OK);
    ck_assert_uint_eq(forcible, 1);
    holds("plain", 60000, 6);
    /* More than the file system has: it fails, and the old value stays. */
    expect(set("last", 10, 7), SHD_OK);
    expect(store(SHD_SET | SHD_SAFE, "last", VALUE_MAX, 8, 0, 0, NULL),
           SHD_NOMEM);
    holds("last", 10, 7);
    sound();
    ck_assert_int_eq(umount2(directory, MNT_DETACH), 0);
    ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

/* Takes what is left of the tmpfs. */
static int balloon(const char *directory)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "%s/balloon", directory);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(unlink(path), 0);
    for (off_t at = 0; posix_fallocate(fd, at, 4096) == 0; at += 4096)
        ck_assert_int_lt(at, 64 * MIB);
    return fd;
}

START_TEST(memory_refused_in_the_middle_leaves_everything_as_it_was)
{
    char directory[] = "/tmp/check_store.XXXXXX";
    static uint32_t roots[1 << 16];
    size_t roots_bytes, len = 20 * 4096;
    uint64_t committed, cells;
    char name[64];
    int fd;

    ck_assert_ptr_nonnull(mkdtemp(directory));
    if (!mount_tmpfs(directory, "6m")) {
        ck_assert_int_eq(rmdir(directory), 0);
        return;
    }
    snprintf(name, sizeof(name), "%s/segment", directory);
    start_named(name, 2 * MIB, 1, 0);
    roots_bytes = sizeof(uint32_t) * roots_count();
    ck_assert_uint_le(roots_bytes, sizeof(roots));
    expect(set("k", 5, 1), SHD_OK);
    fd = balloon(directory);
    /* All committed pages but a few are taken. */
    for (int i = 0; pages_ready(&inner->pages, 1000, true) > 4; i++) {
        char key[16];

        snprintf(key, sizeof(key), "fill%d", i);
        expect(set(key, 4000, 1), SHD_OK);
    }
    committed = info().pages_committed;
    cells = info().cells_bytes;
    ck_assert_uint_lt(committed, info().pages);
    memcpy(roots, roots_now(), roots_bytes);
    expect(store(SHD_SET | SHD_SAFE, "k", len, 2, 0, 0, NULL), SHD_NOMEM);
    expect(push(0, "l", len, 2), SHD_NOMEM);
    ck_assert_uint_eq(info().pages_committed, committed);
    ck_assert_uint_eq(info().cells_bytes, cells);
    ck_assert_int_eq(memcmp(roots, roots_now(), roots_bytes), 0);
    ck_assert_uint_eq(pages_ready(&inner->pages, 1000, true), 4);
    ck_assert_uint_eq(inner->shard[0].garbage, 0);
    holds("k", 5, 1);
    holds("fill3", 4000, 1);
    ck_assert_uint_eq(llen("l"), 0);
    sound();
    close(fd);
    expect(store(SHD_SET | SHD_SAFE, "k", len, 2, 0, 0, NULL), SHD_OK);
    expect(push(0, "l", len, 2), SHD_OK);
    holds("k", len, 2);
    sound();
    ck_assert_int_eq(umount2(directory, MNT_DETACH), 0);
    ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

/* ---- random ----------------------------------------------------------- */

#define MODEL_KEYS 150

START_TEST(random_stores_agree_with_a_naive_model)
{
    struct {
        bool there;
        size_t len;
        unsigned seed;
    } model[MODEL_KEYS] = {{0}};

    start_named(NULL, 4 * MIB, _i == 0 ? 1 : 4, _i == 2 ? 1 : 0);
    for (int turn = 0; turn < 20000; turn++) {
        unsigned k = random_below(MODEL_KEYS);
        unsigned seed = random_below(1000);
        size_t len = random_below(30) == 0 ? random_below(30000)
                                           : random_below(500);
        uint32_t op = random_below(3);
        char key[16];

        snprintf(key, sizeof(key), "key %u", k);
        if (random_below(4) == 0) {
            expect(del(key), model[k].there ? SHD_OK : SHD_NOTFOUND);
            model[k].there = false;
            continue;
        }
        if ((op == SHD_ADD && model[k].there) ||
            (op == SHD_REPLACE && !model[k].there)) {
            expect(store(op, key, len, seed, 0, 0, NULL),
                   op == SHD_ADD ? SHD_EXISTS : SHD_NOTFOUND);
        } else {
            expect(store(op | random_below(2) * SHD_SAFE, key, len, seed, 0,
                         (int)seed % 2, NULL),
                   SHD_OK);
            model[k].there = true;
            model[k].len = len;
            model[k].seed = seed;
        }
        if (model[k].there)
            holds(key, model[k].len, model[k].seed);
        if (turn % 2000 == 0)
            sound();
    }
    for (unsigned k = 0; k < MODEL_KEYS; k++) {
        char key[16];

        snprintf(key, sizeof(key), "key %u", k);
        if (model[k].there)
            holds(key, model[k].len, model[k].seed);
        expect(del(key), model[k].there ? SHD_OK : SHD_NOTFOUND);
    }
    all_is_free();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("store");
    TCase *c = tcase_create("store");

    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, any_key_holds_any_value, 0, KEYS);
    tcase_add_test(c, every_value_follows_every_other);
    tcase_add_test(c, values_around_every_size_class_come_back);
    tcase_add_test(c, a_value_in_two_cells_is_like_any_other);
    tcase_add_test(c, keys_may_hold_any_byte_and_differ_in_one);
    tcase_add_test(c, long_keys_that_differ_at_the_end_are_two);
    tcase_add_test(c, empty_and_too_long_keys_are_refused);
    tcase_add_test(c, arguments_outside_their_limits_are_refused);
    tcase_add_test(c, a_buffer_too_small_tells_the_need);
    tcase_add_test(c, every_type_follows_every_other_with_flags_and_without);
    tcase_add_test(c, numbers_keep_every_bit);
    tcase_add_test(c, a_value_of_about_the_same_class_is_written_in_place);
    tcase_add_test(c, add_stores_only_what_is_missing_or_expired);
    tcase_add_test(c, replace_stores_only_over_what_is_live);
    tcase_add_test(c,
                   an_entry_expires_at_its_time_and_stays_readable_as_stale);
    tcase_add_test(c, the_instant_itself_is_expired);
    tcase_add_test(c, times_beyond_the_year_10000_never_expire);
    tcase_add_test(c, expire_sets_the_time_and_revives);
    tcase_add_test(c, storing_over_takes_the_new_time_to_live);
    tcase_add_test(c, incr_adds_and_keeps_expiry_and_flags);
    tcase_add_test(c, incr_over_an_expired_value_begins_anew);
    tcase_add_test(c, incr_of_what_is_no_number_is_refused);
    tcase_add_test(c, incr_of_a_long_key_works_too);
    tcase_add_test(
        c, a_value_larger_than_the_dict_is_too_big_and_changes_nothing);
    tcase_add_test(
        c, a_value_larger_than_the_dict_says_first_what_the_key_is);
    tcase_add_loop_test(c, the_largest_value_fits_exactly, 0, 5);
    tcase_add_test(c, a_full_file_system_is_no_memory_and_the_dict_goes_on);
    tcase_add_test(c,
                   memory_refused_in_the_middle_leaves_everything_as_it_was);
    tcase_add_loop_test(c, random_stores_agree_with_a_naive_model, 0, 3);
    suite_add_tcase(s, c);
    return run_suite(s);
}
