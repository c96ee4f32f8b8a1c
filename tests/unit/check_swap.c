/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite swap: a long value over another, which keeps its entry, and may take
 * the cells of the one that was there before that. */
#include "tests/unit/fixture.h"

#include "shm/dict/attempt.h"

#define MIB (1u << 20)
#define LONG (20 * CHAIN_DATA_MAX) /* more than one slice */

static uint32_t chain_of(const char *key)
{
    return *entry_chain(&inner->pages, &entry_of(key)->cell);
}

static uint32_t garbage(void)
{
    return inner->shard[dict_place(inner, "k", 1).shard].garbage;
}

/* Pairs of lengths of which the second takes the place of the first. */
static const size_t pairs[][2] = {
    {4073, 4078},     {4100, 4103},  {4300, 4320}, {8200, 8200},
    {9000, 15000},    {15000, 9000}, {4080, 9000}, {40000, 40000},
    {LONG, LONG - 7}, {LONG, 20000}, {9000, LONG},
};
#define PAIRS (int)(sizeof(pairs) / sizeof(pairs[0]))

START_TEST(the_entry_stays_and_the_value_is_another)
{
    const size_t *len = pairs[_i];

    for (int flags = 0; flags < 2; flags++) {
        uint32_t ref;

        start_named(NULL, 4 * MIB, 1 + 3 * (uint32_t)flags, 0);
        expect(store(SHD_SET, "k", len[0], 1, 0, flags, NULL), SHD_OK);
        ref = ref_of("k");
        for (unsigned seed = 2; seed < 9; seed++) {
            struct shd_value v;

            expect(store(SHD_SET, "k", len[seed % 2 == 0], seed,
                         seed % 3 == 0 ? 5000 : 0, 2 * flags, NULL),
                   SHD_OK);
            if (seed == 2)
                ck_assert_uint_eq(ref_of("k"), ref);
            holds("k", len[seed % 2 == 0], seed);
            expect(get("k", &v), SHD_OK);
            ck_assert_int_eq(v.flags, 2 * flags);
            ck_assert_int_eq(v.ttl_ms > 0, seed % 3 == 0);
            sound();
        }
        ck_assert_uint_eq(info().entries, 1);
        expect(del("k"), SHD_OK);
        all_is_free();
    }
}
END_TEST

START_TEST(an_expired_one_is_replaced_as_well)
{
    start(4 * MIB);
    expect(store(SHD_SET, "k", 9000, 1, 1, 0, NULL), SHD_OK);
    while (is_there("k"))
        continue;
    expect(store(SHD_ADD, "k", 9000, 2, 0, 0, NULL), SHD_OK);
    holds("k", 9000, 2);
    sound();
}
END_TEST

/* The third store takes the cells of the first, and so on: two chains, turn by
 * turn. */
START_TEST(stored_again_it_takes_the_cells_it_had_before)
{
    const size_t lengths[] = {4100, 9000, LONG};

    start(4 * MIB);
    for (int i = 0; i < 3; i++) {
        uint32_t chain[2];
        struct shd_dict_info before;

        expect(set("k", lengths[i], 0), SHD_OK);
        expect(set("k", lengths[i], 1), SHD_OK);
        ck_assert_uint_ne(garbage(), 0);
        chain[1] = chain_of("k");
        chain[0] = garbage();
        before = info();
        for (unsigned n = 2; n < 10; n++) {
            expect(set("k", lengths[i], n), SHD_OK);
            holds("k", lengths[i], n);
            ck_assert_uint_eq(chain_of("k"), chain[n % 2]);
            ck_assert_uint_eq(garbage(), chain[(n + 1) % 2]);
            sound();
        }
        ck_assert_uint_eq(info().free_bytes, before.free_bytes);
        /* Of another key of the shard as well. */
        expect(set("other", lengths[i], 5), SHD_OK);
        holds("other", lengths[i], 5);
        holds("k", lengths[i], 9);
        expect(del("other"), SHD_OK);
        expect(del("k"), SHD_OK);
        all_is_free();
    }
}
END_TEST

START_TEST(what_does_not_fit_the_next_is_freed)
{
    start(4 * MIB);
    expect(set("k", 9000, 1), SHD_OK);
    expect(set("k", 9000, 2), SHD_OK);
    ck_assert_uint_ne(garbage(), 0);
    expect(set("short", 20, 1), SHD_OK);
    ck_assert_uint_eq(garbage(), 0);
    expect(set("k", 9000, 3), SHD_OK);
    ck_assert_uint_ne(garbage(), 0);
    expect(set("k", 30000, 4), SHD_OK);
    holds("k", 30000, 4);
    sound();
    expect(del("k"), SHD_OK);
    expect(del("short"), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(what_is_much_of_the_dict_is_freed_at_once)
{
    start(MIB);
    for (unsigned seed = 0; seed < 5; seed++) {
        expect(set("k", 100000, seed), SHD_OK);
        ck_assert_uint_eq(garbage(), 0);
    }
    holds("k", 100000, 4);
}
END_TEST

/* Of another shard: before a safe store fails, and plain ones sooner or later:
 * each shard has its turn to give room. */
START_TEST(who_needs_room_takes_it)
{
    uint32_t op = SHD_SET | (_i == 0 ? 0 : SHD_SAFE), forcible = 0;
    char key[16];
    int rc = SHD_OK;

    start_named(NULL, 4 * MIB, 4, 0);
    expect(set("k", 20000, 1), SHD_OK);
    expect(set("k", 20000, 2), SHD_OK);
    ck_assert_uint_ne(garbage(), 0);
    for (int n = 0; n < 5000 && rc == SHD_OK; n++) {
        snprintf(key, sizeof(key), "%d", n);
        /* The spare one's own shard would free it. */
        if (dict_place(inner, key, strlen(key)).shard !=
            dict_place(inner, "k", 1).shard)
            rc = store(op, key, 4000, 3, 0, 0, &forcible);
    }
    ck_assert_uint_eq(forcible, _i == 0);
    expect(rc, _i == 0 ? SHD_OK : SHD_NOMEM);
    ck_assert_uint_eq(garbage(), 0);
    sound();
}
END_TEST

/* A reader that was copying it must not take the new bytes for the old. */
START_TEST(its_cells_are_others_for_who_was_reading_them)
{
    uint32_t shard = 0;
    unsigned char *to = bytes_out;
    struct chain_cursor c;
    struct shd_value v;
    uint64_t left = LONG;

    start(4 * MIB);
    expect(set("k", LONG, 1), SHD_OK);
    ck_assert_int_eq(entry_long_value(inner, shard, &entry_of("k")->cell,
                                      VALUE_MAX, &c, &v),
                     1);
    expect(chain_slice_copy(&inner->pages, &c, &to, &left), SHD_OK);
    ck_assert(chain_slice_valid(&inner->pages, dict_owner(shard),
                                inner->shard[shard].chains, &c));
    /* The second slice: its cells stay what they are while they are spare. */
    expect(chain_slice_copy(&inner->pages, &c, &to, &left), SHD_OK);
    ck_assert_uint_eq(left, 0);
    expect(set("k", LONG, 2), SHD_OK);
    ck_assert(chain_slice_valid(&inner->pages, dict_owner(shard),
                                inner->shard[shard].chains, &c));
    ck_assert_int_eq(memcmp(bytes_out, pattern(bytes_in, LONG, 1), LONG), 0);
    expect(set("k", LONG, 3), SHD_OK);
    ck_assert(!chain_slice_valid(&inner->pages, dict_owner(shard),
                                 inner->shard[shard].chains, &c));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("swap");
    TCase *c = tcase_create("swap");

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, the_entry_stays_and_the_value_is_another, 0, PAIRS);
    tcase_add_test(c, an_expired_one_is_replaced_as_well);
    tcase_add_test(c, stored_again_it_takes_the_cells_it_had_before);
    tcase_add_test(c, what_does_not_fit_the_next_is_freed);
    tcase_add_test(c, what_is_much_of_the_dict_is_freed_at_once);
    tcase_add_loop_test(c, who_needs_room_takes_it, 0, 2);
    tcase_add_test(c, its_cells_are_others_for_who_was_reading_them);
    suite_add_tcase(s, c);
    return run_suite(s);
}
