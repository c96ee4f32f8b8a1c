/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite collisions: somebody who knows the seed stores keys of one hash. What
 * a lookup then costs is counted, not measured: in nodes that it compares. */
#include "tests/unit/fixture.h"

#include "shm/base/hash.h"
#include "tools/bench/collide.h"

static const unsigned ATTACK[] = {1000, 8000, 30000};

static unsigned char *evil(uint64_t n)
{
    static unsigned char key[COLLIDE_BYTES];

    /* In no order that the tree could like. */
    collide_key(key, inner->env->segment->hash_seed,
                n * 0x9e3779b97f4a7c15ull);
    return key;
}

static void store_evil(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        expect(shd_set(dict, evil(i), COLLIDE_BYTES, &i, sizeof(i), 0),
               SHD_OK);
}

/* A red-black tree of n nodes is no deeper. */
static unsigned depth_bound(unsigned n)
{
    unsigned log = 0;

    while (n + 1 > 1u << log)
        log++;
    return 2 * log;
}

static unsigned compared(const void *key, size_t len, int there)
{
    struct place at = dict_place(inner, key, len);
    struct tree_path path;

    ck_assert_int_eq(forest_path(inner, &at, key, len, &path), there);
    return path.depth;
}

START_TEST(the_keys_do_collide)
{
    uint64_t seed, first;

    start_named(NULL, 4 << 20, 1, 0);
    seed = inner->env->segment->hash_seed;
    first = hash_bytes(evil(0), COLLIDE_BYTES, seed);
    for (unsigned i = 1; i < 1000; i++)
        ck_assert_uint_eq(hash_bytes(evil(i), COLLIDE_BYTES, seed), first);
    /* But not for who does not know the seed. */
    ck_assert_uint_ne(hash_bytes(evil(1), COLLIDE_BYTES, seed + 1),
                      hash_bytes(evil(2), COLLIDE_BYTES, seed + 1));
}
END_TEST

START_TEST(a_lookup_compares_no_more_than_the_logarithm)
{
    unsigned stored = 0;

    start_named(NULL, 16 << 20, _i == 0 ? 1 : 4, 0);
    for (unsigned step = 0; step < 3; step++) {
        unsigned n = ATTACK[step], worst = 0;

        store_evil(stored, n);
        stored = n;
        for (unsigned i = 0; i < n; i++) {
            unsigned c = compared(evil(i), COLLIDE_BYTES, 1);

            worst = c > worst ? c : worst;
        }
        ck_assert_uint_le(worst, depth_bound(n));
        /* One that is not there, which has to be looked for. */
        ck_assert_uint_le(compared(evil(n + 1), COLLIDE_BYTES, 0),
                          depth_bound(n));
    }
    sound();
}
END_TEST

START_TEST(removing_keeps_the_tree_low)
{
    unsigned n = ATTACK[1], worst = 0;

    start_named(NULL, 16 << 20, 1, 0);
    store_evil(0, n);
    for (unsigned i = 0; i < n; i++) {
        if (i % 8 != 0)
            expect(shd_delete(dict, evil(i), COLLIDE_BYTES), SHD_OK);
    }
    for (unsigned i = 0; i < n; i += 8) {
        unsigned c = compared(evil(i), COLLIDE_BYTES, 1);

        worst = c > worst ? c : worst;
    }
    ck_assert_uint_le(worst, depth_bound(n / 8));
    sound();
}
END_TEST

/* Those of everybody else lie under other roots. */
START_TEST(other_keys_cost_what_they_did)
{
    unsigned long before = 0, after = 0;
    char key[24];

    start_named(NULL, 16 << 20, 4, 0);
    for (unsigned i = 0; i < 1000; i++) {
        int len = snprintf(key, sizeof(key), "ordinary %u", i);

        expect(shd_set(dict, key, (size_t)len, &i, sizeof(i), 0), SHD_OK);
    }
    for (unsigned i = 0; i < 1000; i++) {
        int len = snprintf(key, sizeof(key), "ordinary %u", i);

        before += compared(key, (size_t)len, 1);
    }
    store_evil(0, ATTACK[1]);
    for (unsigned i = 0; i < 1000; i++) {
        int len = snprintf(key, sizeof(key), "ordinary %u", i);
        struct place at = dict_place(inner, key, (size_t)len);
        struct place theirs = dict_place(inner, evil(0), COLLIDE_BYTES);

        if (at.order >> inner->grain_first !=
            theirs.order >> inner->grain_first)
            after += compared(key, (size_t)len, 1);
    }
    ck_assert_uint_le(after, before);
}
END_TEST

START_TEST(all_of_them_are_read_and_removed_like_others)
{
    unsigned n = ATTACK[0], got = 0;
    struct shd_value v;

    start_named(NULL, 16 << 20, 4, 0);
    store_evil(0, n);
    for (unsigned i = 0; i < n; i++) {
        expect(shd_get(dict, evil(i), COLLIDE_BYTES, &got, sizeof(got), &v),
               SHD_OK);
        ck_assert_uint_eq(got, i);
        expect(shd_delete(dict, evil(i), COLLIDE_BYTES), SHD_OK);
        expect(shd_get(dict, evil(i), COLLIDE_BYTES, &got, sizeof(got), &v),
               SHD_NOTFOUND);
    }
    sound();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("collisions");
    TCase *tcase = tcase_create("all");

    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, the_keys_do_collide);
    tcase_add_loop_test(tcase, a_lookup_compares_no_more_than_the_logarithm, 0,
                        2);
    tcase_add_test(tcase, removing_keeps_the_tree_low);
    tcase_add_test(tcase, other_keys_cost_what_they_did);
    tcase_add_test(tcase, all_of_them_are_read_and_removed_like_others);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
