/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite multi: shd_get_multi, shd_set_multi. */
#include "tests/unit/fixture.h"

#define MIB (1u << 20)
#define MANY 200u

static char text[MANY][16];
static const void *keys[MANY];
static size_t key_lens[MANY];
static struct shd_value values[MANY];
static size_t at[MANY];
static int32_t codes[MANY];
static const void *bytes[MANY];

/* Keys k0, k1 ... each with 3 * i % 700 bytes of the pattern of i, every
 * tenth a number. */
static void make(uint32_t n)
{
    static unsigned char pool[MANY][700];

    for (uint32_t i = 0; i < n; i++) {
        key_lens[i] = (size_t)snprintf(text[i], sizeof(text[i]), "k%u", i);
        keys[i] = text[i];
        bytes[i] = pattern(pool[i], sizeof(pool[i]), i);
        values[i] =
            (struct shd_value){.type = i % 10 == 9 ? SHD_NUMBER : SHD_STRING,
                               .len = i % 10 == 9 ? 0 : 3 * i % 700,
                               .number = i,
                               .flags = (int32_t)i % 3};
    }
}

static int set_multi(uint32_t n)
{
    return shd_set_multi(dict, SHD_SET, n, keys, key_lens, values, bytes,
                         codes, NULL);
}

static int get_multi(uint32_t n, size_t size)
{
    return shd_get_multi(dict, n, keys, key_lens, bytes_out, size, values, at,
                         codes);
}

static void is_as_made(uint32_t i)
{
    ck_assert_int_eq(codes[i], SHD_OK);
    ck_assert_int_eq(values[i].flags, (int32_t)i % 3);
    if (i % 10 == 9) {
        ck_assert_uint_eq(values[i].type, SHD_NUMBER);
        ck_assert_double_eq(values[i].number, i);
        return;
    }
    ck_assert_uint_eq(values[i].type, SHD_STRING);
    ck_assert_uint_eq(values[i].len, 3 * i % 700);
    ck_assert_int_eq(memcmp(bytes_out + at[i], bytes[i], values[i].len), 0);
}

START_TEST(what_is_stored_together_is_read_together)
{
    static const uint32_t counts[] = {0, 1, 2, 31, 32, 33, 64, 65, MANY};
    uint32_t n = counts[_i];

    start_named(NULL, 4 * MIB, 2, 0);
    make(n);
    expect(set_multi(n), SHD_OK);
    ck_assert_uint_eq(info().entries, n);
    memset(values, 0xee, sizeof(values));
    expect(get_multi(n, VALUE_MAX), SHD_OK);
    for (uint32_t i = 0; i < n; i++) {
        struct shd_value v;

        is_as_made(i);
        expect(shd_get(dict, keys[i], key_lens[i], bytes_in, VALUE_MAX, &v),
               SHD_OK);
        ck_assert_uint_eq(v.type, values[i].type);
        ck_assert_uint_eq(v.len, values[i].len);
    }
    for (uint32_t i = 0; i < n; i++)
        values[i].type = SHD_NIL;
    expect(set_multi(n), SHD_OK);
    expect(set_multi(n), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(each_key_gets_its_own_answer)
{
    start(MIB);
    make(8);
    expect(set_multi(8), SHD_OK);
    expect(del("k1"), SHD_OK);
    expect(del("k2"), SHD_OK);
    expect(push(1, "k2", 4, 1), SHD_OK);
    expect(shd_expire(dict, "k3", 2, 5), SHD_OK);
    clock_test_advance(6);
    expect(get_multi(8, VALUE_MAX), SHD_OK);
    ck_assert_int_eq(codes[1], SHD_NOTFOUND);
    ck_assert_uint_eq(values[1].type, SHD_NIL);
    ck_assert_int_eq(codes[2], SHD_ISLIST);
    ck_assert_int_eq(codes[3], SHD_NOTFOUND);
    is_as_made(0);
    is_as_made(4);
    is_as_made(7);
    key_lens[5] = 0;
    key_lens[6] = 70000;
    keys[7] = NULL;
    expect(get_multi(8, VALUE_MAX), SHD_EMPTYKEY);
    is_as_made(4);
    ck_assert_int_eq(codes[5], SHD_EMPTYKEY);
    ck_assert_int_eq(codes[6], SHD_LONGKEY);
    ck_assert_int_eq(codes[7], SHD_INVAL);
}
END_TEST

START_TEST(what_does_not_fit_into_the_buffer_leaves_room_for_the_next)
{
    start(MIB);
    make(4);
    values[0].len = 100;
    values[1].len = 600;
    values[2].len = 50;
    values[3].len = 0;
    expect(set_multi(4), SHD_OK);
    memset(bytes_out, 0x5a, 200);
    expect(get_multi(4, 150), SHD_SPACE);
    ck_assert_int_eq(codes[0], SHD_OK);
    ck_assert_int_eq(codes[1], SHD_SPACE);
    ck_assert_uint_eq(values[1].len, 600);
    ck_assert_int_eq(codes[2], SHD_OK);
    ck_assert_int_eq(codes[3], SHD_OK);
    ck_assert_int_eq(memcmp(bytes_out, bytes[0], 100), 0);
    ck_assert_int_eq(memcmp(bytes_out + at[2], bytes[2], 50), 0);
    ck_assert_uint_eq(bytes_out[150], 0x5a);
}
END_TEST

START_TEST(storing_obeys_the_operation_and_goes_on_after_a_failure)
{
    uint32_t forcible = 7;

    start(MIB);
    make(4);
    expect(set_number("k1", 77), SHD_OK);
    expect(shd_set_multi(dict, SHD_ADD, 4, keys, key_lens, values, bytes,
                         codes, &forcible),
           SHD_EXISTS);
    ck_assert_int_eq(codes[0], SHD_OK);
    ck_assert_int_eq(codes[1], SHD_EXISTS);
    ck_assert_int_eq(codes[3], SHD_OK);
    ck_assert_uint_eq(forcible, 0);
    holds_number("k1", 77);
    values[2].type = SHD_NIL;
    values[3].type = SHD_LIST;
    expect(shd_set_multi(dict, SHD_REPLACE, 4, keys, key_lens, values, bytes,
                         codes, &forcible),
           SHD_INVAL);
    ck_assert_int_eq(codes[1], SHD_OK);
    ck_assert_int_eq(codes[2], SHD_INVAL);
    ck_assert_int_eq(codes[3], SHD_INVAL);
    values[0].ttl_ms = -1;
    expect(set_multi(1), SHD_INVAL);
    expect(
        shd_set_multi(dict, 3, 1, keys, key_lens, values, bytes, codes, NULL),
        SHD_INVAL);
    expect(shd_set_multi(dict, SHD_SET, 1, keys, NULL, values, bytes, codes,
                         NULL),
           SHD_INVAL);
    expect(shd_get_multi(dict, 1, NULL, key_lens, NULL, 0, values, at, codes),
           SHD_INVAL);
    expect(shd_get_multi(dict, 1, keys, key_lens, NULL, 9, values, at, codes),
           SHD_INVAL);
    sound();
}
END_TEST

START_TEST(a_closed_dict_answers_so_for_each_key)
{
    start(MIB);
    make(3);
    expect(shd_dict_close(dict), SHD_OK);
    expect(get_multi(3, 10), SHD_CLOSED);
    ck_assert_int_eq(codes[2], SHD_CLOSED);
    codes[2] = 0;
    expect(set_multi(3), SHD_CLOSED);
    ck_assert_int_eq(codes[2], SHD_CLOSED);
}
END_TEST

START_TEST(a_full_dict_evicts_for_many_too)
{
    uint32_t forcible = 0;

    start(64 * 1024);
    for (int round = 0; round < 20; round++) {
        make(100);
        for (uint32_t i = 0; i < 100; i++)
            key_lens[i] =
                (size_t)snprintf(text[i], sizeof(text[i]), "%d.%u", round, i);
        expect(shd_set_multi(dict, SHD_SET, 100, keys, key_lens, values, bytes,
                             codes, &forcible),
               SHD_OK);
        sound();
    }
    ck_assert_uint_eq(forcible, 1);
    ck_assert_uint_gt(info().evictions, 0);
}
END_TEST

/* What is loaded in advance may be anything. */
START_TEST(damaged_links_are_corrupt_and_no_crash)
{
    start(MIB);
    make(40);
    expect(set_multi(40), SHD_OK);
    for (uint32_t i = 0; i < roots_count(); i++) {
        if (roots_now()[i] != 0)
            roots_now()[i] = (uint32_t)random_next();
    }
    for (int i = 0; i < 1000; i++) {
        (void)!get_multi(40, VALUE_MAX);
        roots_now()[random_below(roots_count())] =
            (uint32_t)random_next() >> random_below(20);
    }
    ck_assert_int_eq(get_multi(40, VALUE_MAX), SHD_CORRUPT);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("multi");
    TCase *c = tcase_create("multi");

    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, what_is_stored_together_is_read_together, 0, 9);
    tcase_add_test(c, each_key_gets_its_own_answer);
    tcase_add_test(c,
                   what_does_not_fit_into_the_buffer_leaves_room_for_the_next);
    tcase_add_test(c, storing_obeys_the_operation_and_goes_on_after_a_failure);
    tcase_add_test(c, a_closed_dict_answers_so_for_each_key);
    tcase_add_test(c, a_full_dict_evicts_for_many_too);
    tcase_add_test(c, damaged_links_are_corrupt_and_no_crash);
    suite_add_tcase(s, c);
    return run_suite(s);
}
