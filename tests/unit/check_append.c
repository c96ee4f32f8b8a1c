/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite append: shd_append, shd_take, shd_touch, shd_push_expire. */
#include "tests/unit/fixture.h"

#define MIB (1u << 20)
#define CHAIN CHAIN_DATA_MAX

static const size_t lengths[] = {
    0,         1,     7,         8,         100,           511,  512,
    513,       1000,  4000,      4055,      4056,          4063, 4064,
    CHAIN - 1, CHAIN, CHAIN + 1, 2 * CHAIN, 3 * CHAIN - 5, 30000};
#define LENGTHS ((int)(sizeof(lengths) / sizeof(lengths[0])))

/* What the value must be, added to by the same calls. */
static unsigned char joined[VALUE_MAX];
static size_t joined_len;

static int append(int left, const char *key, size_t key_len, size_t len,
                  unsigned seed)
{
    uint64_t length = 0;
    int rc = shd_append(dict, left, key, key_len, pattern(bytes_in, len, seed),
                        len, NULL, 0, 0, &length, NULL);

    if (rc != SHD_OK)
        return rc;
    memmove(joined + (left ? len : 0), joined, joined_len);
    memcpy(joined + (left ? 0 : joined_len), bytes_in, len);
    joined_len += len;
    ck_assert_uint_eq(length, joined_len);
    return rc;
}

static void begin(const char *key, size_t key_len, size_t len)
{
    pattern(joined, len, 1);
    joined_len = len;
    expect(shd_set(dict, key, key_len, joined, len, 0), SHD_OK);
}

static void holds_joined(const char *key, size_t key_len)
{
    struct shd_value v;

    memset(bytes_out, 0x5a, joined_len + 8);
    expect(shd_get(dict, key, key_len, bytes_out, joined_len, &v), SHD_OK);
    ck_assert_uint_eq(v.len, joined_len);
    ck_assert_int_eq(memcmp(bytes_out, joined, joined_len), 0);
    ck_assert_uint_eq(bytes_out[joined_len], 0x5a);
}

START_TEST(any_string_can_be_added_to_any_other)
{
    size_t len = lengths[_i];

    start(MIB);
    for (int left = 0; left < 2; left++) {
        for (int i = 0; i < LENGTHS; i++) {
            begin("k", 1, len);
            expect(append(left, "k", 1, lengths[i], 2), SHD_OK);
            holds_joined("k", 1);
            expect(append(left, "k", 1, 3, 4), SHD_OK);
            holds_joined("k", 1);
            sound();
        }
    }
    ck_assert_uint_eq(info().entries, 1);
    expect(del("k"), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(a_string_grows_through_every_class_and_into_a_chain)
{
    static const size_t steps[] = {1, 3, 8, 50, 300, 700, 5000};
    size_t step = steps[_i];

    start(MIB);
    begin("k", 1, 0);
    while (joined_len < (step < 8 ? 5000 : 40000)) {
        expect(append(0, "k", 1, step, (unsigned)joined_len), SHD_OK);
        if (joined_len % 7 == 0 || step > 100)
            holds_joined("k", 1);
    }
    holds_joined("k", 1);
    sound();
    expect(del("k"), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(under_a_long_key_too)
{
    static unsigned char key[ENTRY_KEY_MAX];
    static const size_t key_lens[] = {1025, CHAIN, CHAIN + 3, 65535};
    size_t key_len = key_lens[_i];

    start(MIB);
    pattern(key, sizeof(key), 5);
    for (int left = 0; left < 2; left++) {
        begin((const char *)key, key_len, 0);
        for (int i = 0; i < 30; i++) {
            expect(append(left, (const char *)key, key_len,
                          (size_t)i * 40 % 900, (unsigned)i),
                   SHD_OK);
            holds_joined((const char *)key, key_len);
        }
        sound();
    }
    expect(shd_delete(dict, key, key_len), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(expiry_flags_and_being_versioned_stay)
{
    static const size_t adds[] = {5, 300, 3000, 9000, 600};
    struct shd_value v;
    uint64_t version, last = 0;

    start(MIB);
    pattern(joined, 10, 1);
    joined_len = 10;
    expect(store(SHD_SET, "k", 10, 1, 5000000, 9, NULL), SHD_OK);
    for (size_t i = 0; i < sizeof(adds) / sizeof(adds[0]); i++) {
        expect(append((int)i % 2, "k", 1, adds[i], 3), SHD_OK);
        holds_joined("k", 1);
        expect(shd_get_versioned(dict, "k", 1, bytes_out, VALUE_MAX, &v,
                                 &version),
               SHD_OK);
        ck_assert_int_eq(v.flags, 9);
        ck_assert_int_gt(v.ttl_ms, 4000000);
        ck_assert_uint_gt(version, last);
        last = version;
        expect(append(0, "k", 1, adds[i], 3), SHD_OK);
        ck_assert(cell_is_versioned(entry_of("k")->cell.meta));
        sound();
    }
}
END_TEST

START_TEST(what_is_missing_is_begun_with_init_or_not_found)
{
    struct shd_value v;
    uint64_t length = 0;

    start(MIB);
    expect(append(0, "k", 1, 3, 1), SHD_NOTFOUND);
    expect(shd_append(dict, 0, "k", 1, "def", 3, "abc", 3, 50000, &length, NULL),
           SHD_OK);
    ck_assert_uint_eq(length, 6);
    expect(get("k", &v), SHD_OK);
    ck_assert_int_eq(memcmp(bytes_out, "abcdef", 6), 0);
    ck_assert_int_gt(v.ttl_ms, 0);
    clock_test_advance(50001);
    expect(append(0, "k", 1, 3, 1), SHD_NOTFOUND);
    expect(shd_append(dict, 1, "k", 1, "def", 3, "abc", 3, 0, &length, NULL),
           SHD_OK);
    expect(get("k", &v), SHD_OK);
    ck_assert_int_eq(memcmp(bytes_out, "defabc", 6), 0);
    expect(shd_append(dict, 1, "k", 1, "x", 1, "abc", 3, 0, &length, NULL),
           SHD_OK);
    ck_assert_uint_eq(length, 7);
    expect(shd_append(dict, 0, "e", 1, NULL, 0, "", 0, 0, &length, NULL),
           SHD_OK);
    ck_assert_uint_eq(length, 0);
    sound();
}
END_TEST

START_TEST(what_is_no_string_is_refused_and_kept)
{
    start(MIB);
    expect(set_number("n", 5), SHD_OK);
    expect(append(0, "n", 1, 3, 1), SHD_NOTSTRING);
    expect(append(1, "n", 1, 3, 1), SHD_NOTSTRING);
    expect(push(1, "l", 3, 1), SHD_OK);
    expect(append(0, "l", 1, 3, 1), SHD_NOTSTRING);
    expect(shd_append(dict, 0, "l", 1, "x", 1, "y", 1, 0, NULL, NULL),
           SHD_NOTSTRING);
    expect(shd_append(dict, 0, "n", 1, NULL, 1, NULL, 0, 0, NULL, NULL),
           SHD_INVAL);
    expect(shd_append(dict, 0, "n", 1, "x", 1, "y", 1, -1, NULL, NULL),
           SHD_INVAL);
    expect(shd_append(dict, 0, "", 0, "x", 1, "y", 1, 0, NULL, NULL),
           SHD_EMPTYKEY);
    holds_number("n", 5);
}
END_TEST

/* All but the last page, whatever the steps; and the last one, too, when the
 * end lies in a whole page. */
START_TEST(what_is_larger_than_the_dict_is_too_big_and_what_fits_fits)
{
    static const size_t steps[] = {1500, 3000, CHAIN, 9000};
    size_t most, step = steps[_i];

    start(64 * 1024);
    most = info().value_max_bytes;
    begin("k", 1, 5000);
    while (joined_len + step <= most - CHAIN)
        expect(append(0, "k", 1, step, 2), SHD_OK);
    expect(append(0, "k", 1, most - CHAIN - joined_len, 3), SHD_OK);
    sound();
    expect(append(0, "k", 1, most - joined_len, 3), SHD_OK);
    ck_assert_uint_eq(joined_len, most);
    holds_joined("k", 1);
    expect(append(0, "k", 1, 1, 3), SHD_TOOBIG);
    expect(append(1, "k", 1, 1, 3), SHD_TOOBIG);
    holds_joined("k", 1);
    sound();
}
END_TEST

/* Others go to make room, the value itself does not. */
START_TEST(appending_makes_room)
{
    uint32_t forcible = 0;
    char key[16];

    start(64 * 1024);
    begin("a", 1, 10);
    for (int n = 0; n < 2000; n++) {
        snprintf(key, sizeof(key), "k%d", n);
        expect(set(key, 24, 1), SHD_OK);
        if (n % 50 == 0)
            expect(shd_touch(dict, "a", 1, SHD_KEEP_TTL), SHD_OK);
    }
    for (int n = 0; n < 30; n++) {
        uint32_t forced = 0;

        pattern(bytes_in, 500, 2);
        expect(shd_append(dict, n % 8 == 0, "a", 1, bytes_in, 500, NULL, 0, 0,
                          NULL, &forced),
               SHD_OK);
        memmove(joined + (n % 8 == 0 ? 500 : 0), joined, joined_len);
        memcpy(joined + (n % 8 == 0 ? 0 : joined_len), bytes_in, 500);
        joined_len += 500;
        forcible |= forced;
        holds_joined("a", 1);
    }
    ck_assert_uint_eq(forcible, 1);
    sound();
}
END_TEST

/* A long value is not copied to add to it: it may be larger than the rest. */
START_TEST(adding_to_a_chain_needs_no_second_one)
{
    start(256 * 1024);
    begin("a", 1, 180000);
    expect(append(0, "a", 1, 10000, 2), SHD_OK);
    expect(append(0, "a", 1, 600, 2), SHD_OK);
    holds_joined("a", 1);
    expect(append(1, "a", 1, 600, 2), SHD_NOMEM);
    holds_joined("a", 1);
    sound();
}
END_TEST

START_TEST(links_that_lead_outside_are_corrupt)
{
    uint32_t *chain, head;

    start(MIB);
    begin("a", 1, 20000);
    chain = entry_chain(&inner->pages, &entry_of("a")->cell);
    head = *chain;
    *chain = UINT32_MAX;
    expect(append(0, "a", 1, 10, 2), SHD_CORRUPT);
    expect_said("a chain leads outside");
    *chain = head;
    uint32_t next = cell_of(head)->word[CHAIN_NEXT];
    cell_of(head)->word[CHAIN_NEXT] = head;
    expect(append(0, "a", 1, 10, 2), SHD_CORRUPT);
    cell_of(head)->word[CHAIN_NEXT] = next;
    begin("b", 1, 10);
    entry_of("b")->cell.len = UINT32_MAX - 20;
    expect(append(0, "b", 1, 10, 2), SHD_TOOBIG);
    entry_of("b")->cell.len = 100000;
    expect(append(0, "b", 1, 10, 2), SHD_CORRUPT);
    entry_of("b")->cell.len = 10;
    sound();
}
END_TEST

/* ---- take ------------------------------------------------------------- */

START_TEST(taking_reads_and_deletes)
{
    size_t len = lengths[_i];
    struct shd_value v;

    start(MIB);
    expect(store(SHD_SET, "k", len, 3, 1000000, 5, NULL), SHD_OK);
    if (len > 0) {
        expect(shd_take(dict, "k", 1, bytes_out, len - 1, &v), SHD_SPACE);
        ck_assert_uint_eq(v.len, len);
        holds("k", len, 3);
    }
    expect(shd_take(dict, "k", 1, bytes_out, len, &v), SHD_OK);
    ck_assert_uint_eq(v.type, SHD_STRING);
    ck_assert_uint_eq(v.len, len);
    ck_assert_int_eq(v.flags, 5);
    ck_assert_int_gt(v.ttl_ms, 0);
    ck_assert_int_eq(memcmp(bytes_out, pattern(bytes_in, len, 3), len), 0);
    expect(shd_take(dict, "k", 1, bytes_out, len, &v), SHD_NOTFOUND);
    all_is_free();
}
END_TEST

START_TEST(taking_leaves_lists_and_finds_nothing_expired)
{
    struct shd_value v;

    start(MIB);
    expect(push(1, "l", 3, 1), SHD_OK);
    expect(shd_take(dict, "l", 1, bytes_out, 10, &v), SHD_ISLIST);
    ck_assert_uint_eq(llen("l"), 1);
    expect(set_number("n", 5), SHD_OK);
    expect(shd_take(dict, "n", 1, NULL, 0, &v), SHD_OK);
    ck_assert_double_eq(v.number, 5);
    expect(set_ttl("k", 5), SHD_OK);
    clock_test_advance(6);
    expect(shd_take(dict, "k", 1, bytes_out, 10, &v), SHD_NOTFOUND);
    expect(shd_take(dict, "k", 1, bytes_out, 10, NULL), SHD_INVAL);
    expect(shd_take(dict, "k", 1, NULL, 10, &v), SHD_INVAL);
}
END_TEST

/* ---- touch ------------------------------------------------------------ */

START_TEST(touching_makes_it_the_last_to_go_and_may_set_its_expiry)
{
    struct shd_value v;
    int64_t ttl;

    start(MIB);
    expect(set_ttl("a", 1000000), SHD_OK);
    expect(set("b", 3, 1), SHD_OK);
    ck_assert_uint_eq(inner->shard[0].lru.last, ref_of("a"));
    expect(shd_touch(dict, "a", 1, SHD_KEEP_TTL), SHD_OK);
    ck_assert_uint_eq(inner->shard[0].lru.last, ref_of("b"));
    expect(get("a", &v), SHD_OK);
    ck_assert_int_gt(v.ttl_ms, 900000);
    expect(shd_touch(dict, "a", 1, 100000), SHD_OK);
    expect(shd_ttl(dict, "a", 1, &ttl), SHD_OK);
    ck_assert_int_le(ttl, 100000);
    sound();
    expect(shd_touch(dict, "a", 1, 0), SHD_OK);
    expect(shd_ttl(dict, "a", 1, &ttl), SHD_OK);
    ck_assert_int_eq(ttl, 0);
    expect(shd_touch(dict, "a", 1, -2), SHD_INVAL);
    expect(shd_touch(dict, "c", 1, 0), SHD_NOTFOUND);
    expect(push(1, "l", 3, 1), SHD_OK);
    expect(shd_touch(dict, "l", 1, 20000), SHD_OK);
    clock_test_advance(20001);
    expect(shd_touch(dict, "l", 1, 20), SHD_NOTFOUND);
    ck_assert_uint_eq(llen("l"), 0);
    sound();
}
END_TEST

/* ---- expiry of lists -------------------------------------------------- */

static int push_expire(int left, const char *key, size_t len, int64_t ttl_ms)
{
    uint64_t length = 0;

    return shd_push_expire(dict, left, key, strlen(key), SHD_STRING,
                           pattern(bytes_in, len, 1), len, 0, ttl_ms, &length);
}

static int64_t ttl_of(const char *key)
{
    int64_t ttl = 0;

    expect(shd_ttl(dict, key, strlen(key), &ttl), SHD_OK);
    return ttl;
}

START_TEST(lists_have_a_time_to_live)
{
    start(MIB);
    expect(push(1, "l", 3, 1), SHD_OK);
    ck_assert_int_eq(ttl_of("l"), 0);
    expect(shd_expire(dict, "l", 1, 500000), SHD_OK);
    ck_assert_int_gt(ttl_of("l"), 400000);
    expect(push(0, "l", 3, 2), SHD_OK);
    ck_assert_int_gt(ttl_of("l"), 400000);
    pops(1, "l", 3, 1);
    ck_assert_int_gt(ttl_of("l"), 400000);
    clock_test_advance(500001);
    ck_assert_int_lt(ttl_of("l"), 0);
    ck_assert_uint_eq(llen("l"), 0);
    expect(shd_expire(dict, "l", 1, 500000), SHD_OK);
    ck_assert_uint_eq(llen("l"), 1);
    expect(shd_expire(dict, "l", 1, 0), SHD_OK);
    ck_assert_int_eq(ttl_of("l"), 0);
    sound();
    pops(1, "l", 3, 2);
    all_is_free();
}
END_TEST

START_TEST(a_push_may_set_the_lists_time_to_live)
{
    for (int left = 0; left < 2; left++) {
        start(MIB);
        expect(push_expire(left, "l", 3, 500000), SHD_OK);
        ck_assert_int_gt(ttl_of("l"), 400000);
        sound();
        expect(push_expire(left, "l", 3, 100000), SHD_OK);
        ck_assert_int_le(ttl_of("l"), 100000);
        sound();
        expect(push_expire(left, "l", 3, 0), SHD_OK);
        ck_assert_int_eq(ttl_of("l"), 0);
        expect(push_expire(left, "l", 3, 100000), SHD_OK);
        expect(push(left, "l", 3, 1), SHD_OK);
        ck_assert_uint_eq(llen("l"), 5);
        ck_assert_int_gt(ttl_of("l"), 0);
        clock_test_advance(100001);
        ck_assert_uint_eq(llen("l"), 0);
        expect(push_expire(left, "l", 3, 100000), SHD_OK);
        ck_assert_uint_eq(llen("l"), 1);
        ck_assert_int_gt(ttl_of("l"), 0);
        expect(push_expire(left, "l", 3, -1), SHD_INVAL);
        expect(set("s", 3, 1), SHD_OK);
        expect(push_expire(left, "s", 3, 100000), SHD_NOTLIST);
        ck_assert_int_eq(ttl_of("s"), 0);
        sound();
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("append");
    TCase *c = tcase_create("append");

    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, any_string_can_be_added_to_any_other, 0, LENGTHS);
    tcase_add_loop_test(c, a_string_grows_through_every_class_and_into_a_chain,
                        0, 7);
    tcase_add_loop_test(c, under_a_long_key_too, 0, 4);
    tcase_add_test(c, expiry_flags_and_being_versioned_stay);
    tcase_add_test(c, what_is_missing_is_begun_with_init_or_not_found);
    tcase_add_test(c, what_is_no_string_is_refused_and_kept);
    tcase_add_loop_test(
        c, what_is_larger_than_the_dict_is_too_big_and_what_fits_fits, 0, 4);
    tcase_add_test(c, appending_makes_room);
    tcase_add_test(c, adding_to_a_chain_needs_no_second_one);
    tcase_add_test(c, links_that_lead_outside_are_corrupt);
    tcase_add_loop_test(c, taking_reads_and_deletes, 0, LENGTHS);
    tcase_add_test(c, taking_leaves_lists_and_finds_nothing_expired);
    tcase_add_test(c, touching_makes_it_the_last_to_go_and_may_set_its_expiry);
    tcase_add_test(c, lists_have_a_time_to_live);
    tcase_add_test(c, a_push_may_set_the_lists_time_to_live);
    suite_add_tcase(s, c);
    return run_suite(s);
}
