/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite pages: memory/pages.c. */
#include "tests/unit/bench.h"

#include <fcntl.h>
#include <pthread.h>

static uint32_t claim_one(uint32_t owner)
{
    struct txn t;
    uint32_t n;

    begin(&t);
    n = pages_claim(&pages, &t, owner);
    txn_commit(&t);
    return n;
}

static bool is_free(uint32_t n)
{
    return (pages.map[n / 64] >> n % 64 & 1) != 0;
}

#define check_pages() pages_check(&pages, 1, 3, report, sizeof(report))

START_TEST(fresh_pages_are_all_free_and_none_is_committed)
{
    bench_start(130);
    ck_assert_uint_eq(pages_free(&pages), 130);
    ck_assert_uint_eq(pages_ready(&pages), 0);
    ck_assert_uint_eq(claim_one(1), PAGE_NONE);
    expect_sound(check_pages());
}
END_TEST

START_TEST(claims_take_the_lowest_free_page)
{
    struct txn t;

    bench_start(130);
    expect(pages_prepare(&pages), SHD_OK);
    for (uint32_t n = 0; n < 130; n++) {
        ck_assert_uint_eq(claim_one(1 + n % 2), n);
        ck_assert_uint_eq(pages.table[n].owner, 1 + n % 2);
        ck_assert(!is_free(n));
    }
    ck_assert_uint_eq(pages_free(&pages), 0);
    expect(pages_prepare(&pages), SHD_NOMEM);
    ck_assert_uint_eq(claim_one(1), PAGE_NONE);
    begin(&t);
    pages_release(&pages, &t, 70);
    pages_release(&pages, &t, 7);
    txn_commit(&t);
    ck_assert_uint_eq(pages_free(&pages), 2);
    ck_assert_uint_eq(claim_one(2), 7);
    ck_assert_uint_eq(claim_one(2), 70);
    expect_sound(check_pages());
}
END_TEST

START_TEST(a_claim_that_is_not_committed_goes_back)
{
    struct txn t;

    bench_start(10);
    expect(pages_prepare(&pages), SHD_OK);
    begin(&t);
    ck_assert_uint_eq(pages_claim(&pages, &t, 1), 0);
    ck_assert_uint_eq(pages_claim(&pages, &t, 1), 1);
    txn_abort(&t);
    ck_assert_uint_eq(pages_free(&pages), 10);
    ck_assert_uint_eq(pages.table[0].owner, 0);
    expect_sound(check_pages());
}
END_TEST

START_TEST(a_release_happens_with_the_commit)
{
    struct txn t;

    bench_start(10);
    expect(pages_prepare(&pages), SHD_OK);
    ck_assert_uint_eq(claim_one(2), 0);
    begin(&t);
    pages_release(&pages, &t, 0);
    ck_assert_uint_eq(pages.table[0].owner, 2);
    txn_abort(&t);
    ck_assert_uint_eq(pages.table[0].owner, 2);
    ck_assert(!is_free(0));
    begin(&t);
    pages_release(&pages, &t, 0);
    txn_commit(&t);
    ck_assert_uint_eq(pages.table[0].owner, 0);
    ck_assert(is_free(0));
}
END_TEST

START_TEST(memory_is_taken_from_the_system_piece_by_piece)
{
    bench_start(600);
    expect(pages_prepare(&pages), SHD_OK);
    ck_assert_uint_eq(heads->committed, 256);
    ck_assert_uint_eq(pages_ready(&pages), 256);
    for (uint32_t n = 0; n < 256; n++)
        ck_assert_uint_eq(claim_one(1), n);
    ck_assert_uint_eq(claim_one(1), PAGE_NONE);
    expect(pages_prepare(&pages), SHD_OK);
    ck_assert_uint_eq(heads->committed, 512);
    expect(pages_extend(&pages), SHD_OK);
    ck_assert_uint_eq(heads->committed, 600);
    ck_assert_uint_eq(pages_ready(&pages), 600 - 256);
    expect(pages_extend(&pages), SHD_NOMEM);
}
END_TEST

START_TEST(only_committed_pages_have_a_number)
{
    bench_start(600);
    ck_assert_uint_eq(pages_number(&pages, pages.at), PAGE_NONE);
    expect(pages_prepare(&pages), SHD_OK);
    ck_assert_uint_eq(pages_number(&pages, pages.at - 1), PAGE_NONE);
    ck_assert_uint_eq(pages_number(&pages, 0), PAGE_NONE);
    ck_assert_uint_eq(pages_number(&pages, pages.at), 0);
    ck_assert_uint_eq(pages_number(&pages, pages.at + 256 * 4096 - 1), 255);
    ck_assert_uint_eq(pages_number(&pages, pages.at + 256 * 4096), PAGE_NONE);
    ck_assert_uint_eq(pages_number(&pages, UINT64_MAX), PAGE_NONE);
    expect(pages_extend(&pages), SHD_OK);
    ck_assert_uint_eq(pages_number(&pages, pages.at + 256 * 4096), 256);
    /* A watermark past the table is not believed. */
    heads->committed = 5000;
    ck_assert_uint_eq(pages_number(&pages, pages.at + 599 * 4096), 599);
    ck_assert_uint_eq(pages_number(&pages, pages.at + 600 * 4096), PAGE_NONE);
    ck_assert_uint_eq(pages_number(&pages, pages.at + 601 * 4096), PAGE_NONE);
}
END_TEST

START_TEST(a_full_file_system_gives_what_it_has_and_then_no_memory)
{
    char directory[] = "/tmp/check_pages.XXXXXX";
    char path[64];
    uint64_t had;
    int fd;

    ck_assert_ptr_nonnull(mkdtemp(directory));
    if (!mount_tmpfs(directory, "128k")) {
        ck_assert_int_eq(rmdir(directory), 0);
        return;
    }
    snprintf(path, sizeof(path), "%s/bench", directory);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bench_start_on(fd, 100);
    for (had = 0; pages_prepare(&pages) == SHD_OK; had++)
        ck_assert_uint_eq(claim_one(1), had);
    ck_assert_uint_gt(had, 8);
    ck_assert_uint_lt(had, 32);
    expect(pages_prepare(&pages), SHD_NOMEM);
    ck_assert_uint_eq(heads->committed, had);
    ck_assert_uint_eq(pages_free(&pages), 100 - had);
    expect_sound(check_pages());
    ck_assert_int_eq(umount2(directory, MNT_DETACH), 0);
    ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

#define PAGES_EACH 500u

static void *claim_and_release(void *arg)
{
    uint32_t shard = *(uint32_t *)arg;
    uint32_t mine[8], n = 0;

    for (uint32_t i = 0; i < 4 * PAGES_EACH; i++) {
        struct txn t;

        begin_on(&t, shard);
        if (n < 8) {
            uint32_t page = pages_claim(&pages, &t, shard + 1);

            if (page != PAGE_NONE) {
                /* Whoever owns a page may write to it. */
                atomic_store64(&pages.table[page].expiry, shard + 1);
                mine[n++] = page;
            }
        } else {
            while (n > 4) {
                if (atomic_load64(&pages.table[mine[--n]].expiry) != shard + 1)
                    return "another has written to a page of mine";
                pages_release(&pages, &t, mine[n]);
            }
        }
        /* Now and then the eighth, just claimed, is not kept. */
        if (i % 7 == 0 && n == 8) {
            txn_abort(&t);
            n--;
        } else {
            txn_commit(&t);
        }
    }
    return NULL;
}

START_TEST(shards_that_compete_never_own_the_same_page)
{
    uint32_t shard[2] = {0, 1};
    pthread_t thread[2];

    bench_start(12);
    expect(pages_prepare(&pages), SHD_OK);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, claim_and_release,
                                        &shard[i]),
                         0);
    /* A third one that checks beside them finds no fault. */
    for (int i = 0; i < 2000; i++)
        expect_sound(pages_check(&pages, 3, 4, report, sizeof(report)));
    for (int i = 0; i < 2; i++) {
        void *fault;

        ck_assert_int_eq(pthread_join(thread[i], &fault), 0);
        ck_assert_msg(fault == NULL, "%s", (const char *)fault);
    }
    expect_sound(check_pages());
}
END_TEST

START_TEST(check_names_an_owned_page_that_is_free_in_the_map)
{
    bench_start(70);
    expect(pages_prepare(&pages), SHD_OK);
    ck_assert_uint_eq(claim_one(2), 0);
    ck_assert_uint_eq(claim_one(1), 1);
    pages.map[0] |= 2;
    expect_named(check_pages(), "page 1 has owner 1 and is free in the map");
    /* Another shard may be about to claim it. */
    pages.map[0] &= ~2ull;
    pages.map[0] |= 1;
    expect_sound(check_pages());
}
END_TEST

START_TEST(check_names_a_page_that_nobody_owns_or_can_find)
{
    bench_start(70);
    pages.map[1] &= ~(1ull << 3);
    expect_named(check_pages(), "page 67 has owner 0 and is not free");
}
END_TEST

START_TEST(check_names_an_owner_that_is_no_shard)
{
    bench_start(70);
    expect(pages_prepare(&pages), SHD_OK);
    ck_assert_uint_eq(claim_one(2), 0);
    expect_sound(check_pages());
    pages.table[0].owner = 3;
    expect_named(check_pages(), "page 0 has owner 3");
}
END_TEST

START_TEST(check_names_a_watermark_past_the_end)
{
    bench_start(70);
    heads->committed = 71;
    expect_named(check_pages(), "71 committed of 70");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pages");
    TCase *c = tcase_create("pages");

    tcase_set_timeout(c, 60);
    tcase_add_test(c, fresh_pages_are_all_free_and_none_is_committed);
    tcase_add_test(c, claims_take_the_lowest_free_page);
    tcase_add_test(c, a_claim_that_is_not_committed_goes_back);
    tcase_add_test(c, a_release_happens_with_the_commit);
    tcase_add_test(c, memory_is_taken_from_the_system_piece_by_piece);
    tcase_add_test(c, only_committed_pages_have_a_number);
    tcase_add_test(c, a_full_file_system_gives_what_it_has_and_then_no_memory);
    tcase_add_test(c, shards_that_compete_never_own_the_same_page);
    tcase_add_test(c, check_names_an_owned_page_that_is_free_in_the_map);
    tcase_add_test(c, check_names_a_page_that_nobody_owns_or_can_find);
    tcase_add_test(c, check_names_an_owner_that_is_no_shard);
    tcase_add_test(c, check_names_a_watermark_past_the_end);
    suite_add_tcase(s, c);
    return run_suite(s);
}
