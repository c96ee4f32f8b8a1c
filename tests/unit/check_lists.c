/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite lists: push, pop and llen, through the public functions. */
#include "tests/unit/fixture.h"

#define MIB (1u << 20)

static unsigned char long_key[65536];

/* ---- the model: elements by seed; element n has a length of its own ------ */

#define ELEMENTS_MAX 400

static size_t element_len(unsigned seed)
{
    static const size_t lengths[] = {0,    1,    8,    100,  1000,
                                     4071, 4072, 4073, 9000, 24};

    return lengths[seed % 10];
}

static void a_deque_of(const void *key, size_t key_len, int turns)
{
    unsigned model[ELEMENTS_MAX];
    unsigned n = 0, seed = 0;

    for (int turn = 0; turn < turns; turn++) {
        int left = (int)random_below(2);
        bool grow = random_below(100) < (turn / 200 % 2 == 0 ? 70u : 30u);
        uint64_t length = 99;

        if (grow && n < ELEMENTS_MAX) {
            size_t len = element_len(++seed);

            expect(shd_push(dict, left, key, key_len, SHD_STRING,
                            pattern(bytes_in, len, seed), len, 0, &length),
                   SHD_OK);
            ck_assert_uint_eq(length, n + 1);
            if (left != 0)
                memmove(model + 1, model, n * sizeof(*model));
            model[left != 0 ? 0 : n] = seed;
            n++;
        } else if (n > 0) {
            unsigned want = model[left != 0 ? 0 : n - 1];

            pops_bytes(left, key, key_len, element_len(want), want);
            n--;
            if (left != 0)
                memmove(model, model + 1, n * sizeof(*model));
        } else {
            expect(shd_pop(dict, left, key, key_len, NULL, 0,
                           &(struct shd_value){0}),
                   SHD_NOTFOUND);
        }
        expect(shd_llen(dict, key, key_len, &length), SHD_OK);
        ck_assert_uint_eq(length, n);
        if (turn % 50 == 0)
            sound();
    }
    while (n > 0) {
        pops_bytes(0, key, key_len, element_len(model[n - 1]), model[n - 1]);
        n--;
    }
    all_is_free();
}

START_TEST(a_list_is_a_deque_of_elements_of_any_length)
{
    static const size_t key_lengths[] = {1, 8, 1024, 1025, 9000, 65535};

    start(4 * MIB);
    pattern(long_key, sizeof(long_key), 3);
    a_deque_of(long_key, key_lengths[_i], 1500);
}
END_TEST

START_TEST(lists_hold_numbers_beside_strings)
{
    struct shd_value v;
    uint64_t n;

    start(MIB);
    expect(shd_push(dict, 1, "l", 1, SHD_NUMBER, NULL, 0, -0.5, &n), SHD_OK);
    ck_assert_uint_eq(n, 1);
    expect(shd_push(dict, 0, "l", 1, SHD_STRING, NULL, 0, 0, &n), SHD_OK);
    ck_assert_uint_eq(n, 2);
    expect(shd_pop(dict, 1, "l", 1, NULL, 0, &v), SHD_OK);
    ck_assert_uint_eq(v.type, SHD_NUMBER);
    ck_assert_double_eq(v.number, -0.5);
    expect(shd_pop(dict, 1, "l", 1, NULL, 0, &v), SHD_OK);
    ck_assert_uint_eq(v.type, SHD_STRING);
    ck_assert_uint_eq(v.len, 0);
    all_is_free();
}
END_TEST

START_TEST(the_last_pop_takes_the_key_along)
{
    struct shd_value v;

    start(MIB);
    for (int left = 0; left < 2; left++) {
        expect(push(left, "l", 5000, 1), SHD_OK);
        pops(left, "l", 5000, 1);
        expect(get_stale("l", &v), SHD_NOTFOUND);
        ck_assert_uint_eq(llen("l"), 0);
        all_is_free();
    }
}
END_TEST

START_TEST(a_pop_into_a_buffer_too_small_takes_nothing)
{
    static const size_t lengths[] = {10, 3000, 9000};
    struct shd_value v;

    start(MIB);
    for (int i = 0; i < 3; i++) {
        expect(push(0, "l", lengths[i], 4), SHD_OK);
        expect(shd_pop(dict, 0, "l", 1, bytes_out, lengths[i] - 1, &v),
               SHD_SPACE);
        ck_assert_uint_eq(v.len, lengths[i]);
        ck_assert_uint_eq(llen("l"), 1);
        sound();
        expect(shd_pop(dict, 0, "l", 1, bytes_out, v.len, &v), SHD_OK);
    }
    all_is_free();
}
END_TEST

START_TEST(what_is_no_list_is_refused_and_kept)
{
    struct shd_value v;
    uint64_t n = 5;

    start(MIB);
    expect(set("s", 9000, 1), SHD_OK);
    expect(set_number("n", 1), SHD_OK);
    expect(push(0, "s", 9000, 1), SHD_NOTLIST);
    expect(push(1, "n", 1, 1), SHD_NOTLIST);
    expect(shd_pop(dict, 0, "s", 1, bytes_out, 9000, &v), SHD_NOTLIST);
    expect(shd_pop(dict, 0, "n", 1, bytes_out, 9000, &v), SHD_NOTLIST);
    expect(shd_llen(dict, "s", 1, &n), SHD_NOTLIST);
    ck_assert_uint_eq(n, 5);
    holds("s", 9000, 1);
    ck_assert_uint_eq(llen("missing"), 0);
    expect(shd_pop(dict, 0, "missing", 7, bytes_out, 9000, &v), SHD_NOTFOUND);
    sound();
}
END_TEST

START_TEST(a_list_cannot_be_got)
{
    struct shd_value v;

    start(MIB);
    expect(push(0, "l", 5, 1), SHD_OK);
    expect(get("l", &v), SHD_ISLIST);
    expect(get_stale("l", &v), SHD_ISLIST);
    expect(shd_expire(dict, "l", 1, 100), SHD_OK);
    clock_test_advance(100);
    expect(get("l", &v), SHD_NOTFOUND);
    expect(get_stale("l", &v), SHD_ISLIST);
}
END_TEST

START_TEST(arguments_outside_their_limits_are_refused)
{
    struct shd_value v;

    start(MIB);
    expect(shd_push(dict, 0, "l", 1, SHD_BOOLEAN, NULL, 0, 1, NULL),
           SHD_INVAL);
    expect(shd_push(dict, 0, "l", 1, SHD_LIST, NULL, 0, 1, NULL), SHD_INVAL);
    expect(shd_push(dict, 0, "l", 1, SHD_STRING, NULL, 1, 1, NULL),
           SHD_INVAL);
    expect(shd_pop(dict, 0, "l", 1, NULL, 1, &v), SHD_INVAL);
    expect(shd_pop(dict, 0, "l", 1, NULL, 0, NULL), SHD_INVAL);
    expect(shd_llen(dict, "l", 1, NULL), SHD_INVAL);
    all_is_free();
}
END_TEST

START_TEST(a_live_list_keeps_its_expiry)
{
    int64_t ttl;

    start(MIB);
    expect(push(0, "l", 5, 1), SHD_OK);
    expect(shd_ttl(dict, "l", 1, &ttl), SHD_OK);
    ck_assert_int_eq(ttl, 0);
    expect(shd_expire(dict, "l", 1, 100000), SHD_OK);
    expect(push(0, "l", 5, 1), SHD_OK);
    pops(1, "l", 5, 1);
    expect(shd_ttl(dict, "l", 1, &ttl), SHD_OK);
    ck_assert_int_gt(ttl, 90000);
    sound();
}
END_TEST

START_TEST(an_expired_list_is_empty_and_a_push_begins_anew)
{
    struct shd_value v;
    int64_t ttl;

    start(MIB);
    for (int i = 0; i < 100; i++)
        expect(push(0, "l", 500, 1), SHD_OK);
    expect(push(0, "l", 9000, 1), SHD_OK);
    expect(shd_expire(dict, "l", 1, 100), SHD_OK);
    clock_test_advance(100);
    ck_assert_uint_eq(llen("l"), 0);
    expect(shd_pop(dict, 0, "l", 1, bytes_out, 9000, &v), SHD_NOTFOUND);
    expect(push(0, "l", 7, 2), SHD_OK);
    ck_assert_uint_eq(llen("l"), 1);
    expect(shd_ttl(dict, "l", 1, &ttl), SHD_OK);
    ck_assert_int_eq(ttl, 0);
    sound();
    pops(0, "l", 7, 2);
    all_is_free();
}
END_TEST

START_TEST(an_expired_value_gives_way_to_a_list)
{
    start(MIB);
    expect(store(SHD_SET, "k", 9000, 1, 50, 3, NULL), SHD_OK);
    pattern(long_key, sizeof(long_key), 3);
    expect(shd_set(dict, long_key, 5000, bytes_in, 9000, 50), SHD_OK);
    clock_test_advance(50);
    expect(push(1, "k", 6000, 2), SHD_OK);
    expect(shd_push(dict, 1, long_key, 5000, SHD_STRING,
                    pattern(bytes_in, 6000, 2), 6000, 0, NULL),
           SHD_OK);
    sound();
    pops(1, "k", 6000, 2);
    pops_bytes(1, long_key, 5000, 6000, 2);
    all_is_free();
}
END_TEST

/* ---- without room ----------------------------------------------------- */

START_TEST(a_push_without_room_is_no_memory_and_evicts_nothing)
{
    uint32_t n = 0;
    char key[16];
    int rc;

    start(65536);
    for (;;) {
        snprintf(key, sizeof(key), "k%u", n);
        if (store(SHD_SET | SHD_SAFE, key, 2000, n, 0, 0, NULL) != SHD_OK)
            break;
        n++;
    }
    ck_assert_uint_gt(n, 10);
    expect(push(0, "new", 2000, 1), SHD_NOMEM);
    expect(push(0, "new", 9000, 1), SHD_NOMEM);
    pattern(long_key, sizeof(long_key), 3);
    expect(shd_push(dict, 0, long_key, 5000, SHD_STRING, "x", 1, 0, NULL),
           SHD_NOMEM);
    ck_assert_uint_eq(info().entries, n);
    ck_assert_uint_eq(info().evictions, 0);
    ck_assert_uint_eq(llen("new"), 0);
    sound();
    expect(del("k0"), SHD_OK);
    expect(del("k1"), SHD_OK);
    expect(del("k2"), SHD_OK);
    expect(del("k3"), SHD_OK);
    /* To the brim: then a push fails and the list is as it was. */
    for (uint64_t i = 0; (rc = push(0, "new", 100, 1)) == SHD_OK; i++)
        ck_assert_uint_eq(llen("new"), i + 1);
    expect(rc, SHD_NOMEM);
    sound();
    for (uint64_t i = llen("new"); i > 0; i--)
        pops(1, "new", 100, 1);
    for (uint32_t i = 4; i < n; i++) {
        snprintf(key, sizeof(key), "k%u", i);
        holds(key, 2000, i);
    }
}
END_TEST

START_TEST(a_push_makes_room_of_what_has_expired)
{
    char key[16];
    uint32_t n = 0;

    start(65536);
    do
        snprintf(key, sizeof(key), "k%u", n++);
    while (store(SHD_SET | SHD_SAFE, key, 900, n, 1000, 0, NULL) == SHD_OK);
    expect(push(0, "new", 3000, 1), SHD_NOMEM);
    clock_test_advance(1000);
    expect(push(0, "new", 3000, 1), SHD_OK);
    ck_assert_uint_gt(info().expirations, 0);
    pops(0, "new", 3000, 1);
    sound();
}
END_TEST

START_TEST(an_element_larger_than_the_dict_is_too_big)
{
    start(65536);
    expect(push(0, "l", 65536, 1), SHD_TOOBIG);
    expect(push(0, "l", info().pages * 4096, 1), SHD_TOOBIG);
    all_is_free();
}
END_TEST

/* ---- damage ----------------------------------------------------------- */

START_TEST(links_that_lead_outside_are_corrupt)
{
    struct entry_list *l;
    struct shd_value v;
    uint32_t first, next;

    start(MIB);
    expect(push(0, "l", 5, 1), SHD_OK);
    expect(push(0, "l", 5, 2), SHD_OK);
    l = entry_list(&inner->pages, &entry_of("l")->cell);
    first = l->first;
    l->first = UINT32_MAX;
    expect(push(1, "l", 5, 1), SHD_CORRUPT);
    expect_said("a list leads outside");
    expect(shd_pop(dict, 1, "l", 1, bytes_out, 9, &v), SHD_CORRUPT);
    l->first = ref_of("l"); /* no node */
    expect(shd_pop(dict, 1, "l", 1, bytes_out, 9, &v), SHD_CORRUPT);
    l->first = first;
    next = cell_of(first)->word[CHAIN_NEXT];
    cell_of(first)->word[CHAIN_NEXT] = UINT32_MAX;
    expect(shd_pop(dict, 1, "l", 1, bytes_out, 9, &v), SHD_CORRUPT);
    cell_of(first)->word[CHAIN_NEXT] = ref_of("l");
    expect(shd_pop(dict, 1, "l", 1, bytes_out, 9, &v), SHD_CORRUPT);
    cell_of(first)->word[CHAIN_NEXT] = next;
    /* None of these has changed anything. */
    sound();
    ck_assert_uint_eq(llen("l"), 2);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lists");
    TCase *c = tcase_create("lists");

    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, a_list_is_a_deque_of_elements_of_any_length, 0, 6);
    tcase_add_test(c, lists_hold_numbers_beside_strings);
    tcase_add_test(c, the_last_pop_takes_the_key_along);
    tcase_add_test(c, a_pop_into_a_buffer_too_small_takes_nothing);
    tcase_add_test(c, what_is_no_list_is_refused_and_kept);
    tcase_add_test(c, a_list_cannot_be_got);
    tcase_add_test(c, arguments_outside_their_limits_are_refused);
    tcase_add_test(c, a_live_list_keeps_its_expiry);
    tcase_add_test(c, an_expired_list_is_empty_and_a_push_begins_anew);
    tcase_add_test(c, an_expired_value_gives_way_to_a_list);
    tcase_add_test(c, a_push_without_room_is_no_memory_and_evicts_nothing);
    tcase_add_test(c, a_push_makes_room_of_what_has_expired);
    tcase_add_test(c, an_element_larger_than_the_dict_is_too_big);
    tcase_add_test(c, links_that_lead_outside_are_corrupt);
    suite_add_tcase(s, c);
    return run_suite(s);
}
