/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite forest: finding keys among many under few roots. */
#include "tests/unit/fixture.h"

#define KEYS 3000u

static char *name(unsigned i)
{
    static char key[16];

    snprintf(key, sizeof(key), "key %u", i);
    return key;
}

/* 16 roots, so about 190 keys under each; 4 shards of 16 roots. */
static void start_few_roots(int i)
{
    start_named(NULL, 4 << 20, i == 0 ? 1 : 4, 1);
    ck_assert_uint_eq(info().roots, 16 * inner->shards);
    for (unsigned k = 0; k < KEYS; k++)
        expect(set(name(k), 8, k), SHD_OK);
}

START_TEST(every_key_is_found_and_no_other)
{
    start_few_roots(_i);
    for (unsigned k = 0; k < 2 * KEYS; k++) {
        struct place at = dict_place(inner, name(k), strlen(name(k)));
        struct tree_path path;
        uint32_t ref = 0;

        ck_assert_uint_eq(at.shard, root_number(name(k)) / 16);
        ck_assert_int_eq(forest_find(inner, &at, name(k), strlen(name(k)),
                                     &ref),
                         k < KEYS);
        ck_assert_int_eq(forest_path(inner, &at, name(k), strlen(name(k)),
                                     &path),
                         k < KEYS);
        if (k < KEYS) {
            struct place own;

            ck_assert_uint_eq(path.ref[path.depth - 1], ref);
            expect(forest_path_of(inner, at.shard, ref, &own, &path), 1);
            ck_assert_ptr_eq(own.root, at.root);
            ck_assert_ptr_eq(own.root, roots_now() + root_number(name(k)));
            ck_assert_uint_eq(own.hash, at.hash);
            ck_assert_uint_eq(path.ref[path.depth - 1], ref);
        }
    }
    sound();
}
END_TEST

START_TEST(the_order_under_a_root_meets_every_key_once)
{
    unsigned n = 0;

    start_few_roots(_i);
    for (uint32_t root = 0; root < inner->shards << 4; root++) {
        uint32_t *top = roots_now() + root, last = 0, ref;
        char key[16];
        size_t len = 0;
        int rc = forest_after(inner, top, 0, NULL, 0, &ref);

        while (rc == 1) {
            const struct entry *e = entry_at(&inner->pages, ref);
            uint32_t hash = e->cell.meta >> CELL_HASH_SHIFT;

            if (len > 0)
                ck_assert_int_lt(entry_order(inner, last, key, len, e), 0);
            last = hash;
            len = entry_key_len(e->key_expires);
            expect(entry_key(inner, e, (uint32_t)len, key), SHD_OK);
            n++;
            rc = forest_after(inner, top, last, key, len, &ref);
        }
        ck_assert_int_eq(rc, 0);
    }
    ck_assert_uint_eq(n, KEYS);
}
END_TEST

START_TEST(shards_share_the_keys_about_evenly)
{
    start_few_roots(1);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_uint_gt(inner->shard[i].entries, KEYS / 4 - 150);
        ck_assert_uint_lt(inner->shard[i].entries, KEYS / 4 + 150);
    }
}
END_TEST

START_TEST(what_does_not_lead_where_it_belongs_is_corrupt)
{
    struct tree_path path;
    struct place at;
    uint32_t ref;
    uint64_t *hash;

    start(1 << 20);
    memset(bytes_in, 'x', 2000);
    expect(set("k", 5, 1), SHD_OK);
    memset(bytes_in, 'x', 2000);
    expect(shd_set(dict, bytes_in, 2000, "v", 1, 0), SHD_OK);
    ref = ref_of("k");
    expect(forest_path_of(inner, 1, ref, &at, &path), SHD_CORRUPT);
    expect(forest_path_of(inner, 0, UINT32_MAX, &at, &path), SHD_CORRUPT);
    expect_said("a link leads outside");
    entry_of("k")->key_expires = 2ull << 48;
    expect(forest_path_of(inner, 0, ref, &at, &path), SHD_CORRUPT);
    entry_at(&inner->pages, ref)->key_expires = 1ull << 48;
    expect(forest_path_of(inner, 0, ref, &at, &path), 1);
    memset(bytes_in, 'x', 2000);
    ref = ref_of_bytes(bytes_in, 2000);
    expect(forest_path_of(inner, 0, ref, &at, &path), 1);
    hash = (uint64_t *)(void *)(entry_at(&inner->pages, ref) + 1) + 1;
    *hash ^= 1ull << 60;
    expect(forest_path_of(inner, 0, ref, &at, &path), SHD_CORRUPT);
    *hash ^= 1ull << 60;
    *(hash - 1) = UINT32_MAX; /* its chain */
    expect(forest_path_of(inner, 0, ref, &at, &path), SHD_CORRUPT);
    at = dict_place(inner, bytes_in, 2000);
    expect(forest_find(inner, &at, bytes_in, 2000, &ref), SHD_CORRUPT);
    expect(forest_path(inner, &at, bytes_in, 2000, &path), SHD_CORRUPT);
    expect_said("a key leads outside");
    expect(forest_after(inner, at.root, at.hash, bytes_in, 2000, &ref),
           SHD_CORRUPT);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("forest");
    TCase *c = tcase_create("forest");

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, every_key_is_found_and_no_other, 0, 2);
    tcase_add_loop_test(c, the_order_under_a_root_meets_every_key_once, 0, 2);
    tcase_add_test(c, shards_share_the_keys_about_evenly);
    tcase_add_test(c, what_does_not_lead_where_it_belongs_is_corrupt);
    suite_add_tcase(s, c);
    return run_suite(s);
}
