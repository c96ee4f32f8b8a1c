/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite pages: memory/pages.c. */
#include "tests/unit/arena.h"

static uint32_t claim(uint32_t owner)
{
    struct txn t;
    uint32_t n;

    if (pages_prepare(&arena_pages) != SHD_OK)
        return PAGE_NONE;
    arena_begin(&t, 0);
    n = pages_claim(&arena_pages, &t, owner);
    txn_commit(&t);
    return n;
}

static void release(uint32_t n)
{
    struct txn t;

    arena_begin(&t, 0);
    pages_release(&arena_pages, &t, n,
                  atomic_load32(&arena_pages.table[n].owner));
    txn_commit(&t);
}

static int check(char *report, size_t size)
{
    return pages_check(&arena_pages, ARENA_OWNER, 10, report, size);
}

START_TEST(a_claimed_page_is_the_lowest_free_one)
{
    arena_start(200);
    for (uint32_t n = 0; n < 150; n++)
        ck_assert_uint_eq(claim(ARENA_OWNER), n);
    release(130);
    release(7);
    release(64);
    ck_assert_uint_eq(claim(1), 7);
    ck_assert_uint_eq(claim(2), 64);
    ck_assert_uint_eq(claim(3), 130);
    ck_assert_uint_eq(claim(4), 150);
    ck_assert_uint_eq(arena_pages.table[64].owner, 2);
    arena_expect_sound(check(report, sizeof(report)));
    arena_stop();
}
END_TEST

START_TEST(all_pages_can_be_claimed_and_then_none)
{
    uint32_t counts[] = {1, 63, 64, 65, 700};
    uint32_t count = counts[_i];

    arena_start(count);
    ck_assert_uint_eq(pages_free(&arena_pages), count);
    for (uint32_t n = 0; n < count; n++)
        ck_assert_uint_eq(claim(ARENA_OWNER), n);
    ck_assert_int_eq(pages_prepare(&arena_pages), SHD_NOMEM);
    ck_assert_uint_eq(claim(ARENA_OWNER), PAGE_NONE);
    ck_assert_uint_eq(pages_free(&arena_pages), 0);
    arena_expect_sound(check(report, sizeof(report)));
    for (uint32_t n = 0; n < count; n++)
        release(n);
    ck_assert_uint_eq(pages_free(&arena_pages), count);
    arena_expect_sound(check(report, sizeof(report)));
    arena_stop();
}
END_TEST

static void set_committed(uint64_t pages)
{
    arena->bounds.state = pages << 32;
}

START_TEST(memory_is_committed_only_when_it_is_needed)
{
    struct txn t;
    uint64_t before;

    arena_start(600);
    ck_assert_uint_eq(pages_committed(&arena_pages), 0);
    ck_assert_uint_eq(pages_ready(&arena_pages, 1000, true), 0);
    arena_begin(&t, 0); /* without pages_prepare */
    ck_assert_uint_eq(pages_claim(&arena_pages, &t, ARENA_OWNER), PAGE_NONE);
    txn_abort(&t);
    ck_assert_uint_eq(claim(ARENA_OWNER), 0);
    before = pages_committed(&arena_pages);
    ck_assert_uint_gt(before, 0);
    ck_assert_uint_lt(before, 600);
    ck_assert_uint_eq(pages_ready(&arena_pages, 1000, true), before - 1);
    for (uint64_t n = 1; n < before; n++)
        ck_assert_uint_eq(claim(ARENA_OWNER), n);
    ck_assert_uint_eq(pages_committed(&arena_pages), before);
    ck_assert_uint_eq(pages_ready(&arena_pages, 1000, true), 0);
    ck_assert_uint_eq(claim(ARENA_OWNER), before);
    ck_assert_uint_gt(pages_committed(&arena_pages), before);
    while (pages_extend(&arena_pages) == SHD_OK)
        ck_assert_uint_le(pages_committed(&arena_pages), 600);
    ck_assert_uint_eq(pages_committed(&arena_pages), 600);
    set_committed(100); /* in the middle of a word of the map */
    release(50);
    release(70);
    ck_assert_uint_eq(pages_ready(&arena_pages, 1000, true), 2);
    release(100);
    ck_assert_uint_eq(pages_ready(&arena_pages, 1000, true), 2);
    ck_assert_uint_eq(pages_free(&arena_pages), 600 - before - 1 + 3);
    arena_stop();
}
END_TEST

START_TEST(a_page_beyond_what_is_committed_has_no_number)
{
    arena_start(600);
    ck_assert_uint_eq(pages_number(&arena_pages, ARENA_PAGES_AT), PAGE_NONE);
    ck_assert_uint_eq(claim(ARENA_OWNER), 0);
    ck_assert_uint_eq(pages_number(&arena_pages, ARENA_PAGES_AT), 0);
    ck_assert_uint_eq(pages_number(&arena_pages, ARENA_PAGES_AT + 4095), 0);
    ck_assert_uint_eq(pages_number(&arena_pages, ARENA_PAGES_AT + 4096), 1);
    ck_assert_uint_eq(pages_number(&arena_pages, ARENA_PAGES_AT - 1),
                      PAGE_NONE);
    ck_assert_uint_eq(
        pages_number(&arena_pages,
                     ARENA_PAGES_AT + pages_committed(&arena_pages) * PAGE_BYTES),
        PAGE_NONE);
    set_committed(1u << 30); /* damage must not lead outside */
    pages_follow(&arena_pages);
    ck_assert_uint_eq(
        pages_number(&arena_pages, ARENA_PAGES_AT + 600ull * PAGE_BYTES),
        PAGE_NONE);
    ck_assert_uint_eq(
        pages_number(&arena_pages, ARENA_PAGES_AT + 599ull * PAGE_BYTES),
        599);
    ck_assert_uint_eq(
        pages_number(&arena_pages, ARENA_PAGES_AT + 600ull * PAGE_BYTES),
        PAGE_NONE);
    arena_stop();
}
END_TEST

START_TEST(what_an_unfinished_transaction_claimed_goes_back)
{
    struct txn t;

    arena_start(200);
    ck_assert_uint_eq(claim(ARENA_OWNER), 0);
    arena_remember();
    arena_begin(&t, 0);
    for (uint32_t n = 1; n <= GUARD_CLAIMS_MAX; n++)
        ck_assert_uint_eq(pages_claim(&arena_pages, &t, ARENA_OWNER), n);
    if (_i == 0) {
        txn_abort(&t);
    } else {
        ck_assert_int_eq(txn_recover(&arena_segment, arena_guard), SHD_OK);
        ck_assert_uint_eq(arena_guard->seq & 1, 0);
    }
    arena_expect_remembered();
    arena_expect_sound(check(report, sizeof(report)));
    arena_stop();
}
END_TEST

START_TEST(a_release_happens_only_with_the_commit)
{
    struct txn t;

    arena_start(200);
    ck_assert_uint_eq(claim(ARENA_OWNER), 0);
    arena_remember();
    arena_begin(&t, 0);
    pages_release(&arena_pages, &t, 0, ARENA_OWNER);
    arena_expect_remembered();
    txn_abort(&t);
    arena_expect_remembered();
    release(0);
    ck_assert_uint_eq(arena_pages.table[0].owner, 0);
    ck_assert_uint_eq(pages_free(&arena_pages), 200);
    arena_stop();
}
END_TEST

START_TEST(a_page_whose_owner_word_is_taken_is_passed_over)
{
    arena_start(200);
    ck_assert_uint_eq(claim(ARENA_OWNER), 0);
    /* Another shard has swapped the word and not cleared the bit yet. */
    arena_pages.table[1].owner = 3;
    ck_assert_uint_eq(claim(ARENA_OWNER), 2);
    ck_assert_uint_eq(arena_pages.table[1].owner, 3);
    arena_stop();
}
END_TEST

START_TEST(check_names_an_owner_that_contradicts_the_map)
{
    arena_start(200);
    ck_assert_uint_eq(claim(ARENA_OWNER), 0);
    ck_assert_uint_eq(claim(ARENA_OWNER), 1);
    arena_remember();
    arena_pages.table[1].owner = 0;
    arena_expect_named(check(report, sizeof(report)),
                       "page 1 has owner 0 and is not free in the map");
    arena_restore();
    arena_pages.map[0] |= 2;
    arena_expect_named(check(report, sizeof(report)),
                       "page 1 has owner 7 and is free in the map");
    arena_restore();
    arena_pages.table[1].owner = 10;
    arena_expect_named(check(report, sizeof(report)), "page 1 has owner 10");
    arena_restore();
    set_committed(201);
    arena_expect_named(check(report, sizeof(report)), "201 committed of 200");
    arena_stop();
}
END_TEST

static uint64_t memory(void)
{
    uint64_t bytes;

    ck_assert_int_eq(segment_committed(&arena_segment, &bytes), SHD_OK);
    return bytes;
}

START_TEST(nothing_is_claimed_from_the_limit_on)
{
    arena_start(200);
    arena->bounds.limit = 70;
    ck_assert_uint_eq(pages_count(&arena_pages), 70);
    ck_assert_uint_eq(pages_free(&arena_pages), 70);
    for (uint32_t n = 0; n < 70; n++)
        ck_assert_uint_eq(claim(ARENA_OWNER), n);
    ck_assert_uint_eq(pages_committed(&arena_pages), 70);
    ck_assert_int_eq(pages_prepare(&arena_pages), SHD_NOMEM);
    ck_assert_int_eq(pages_extend(&arena_pages), SHD_NOMEM);
    ck_assert_uint_eq(pages_free(&arena_pages), 0);
    ck_assert_uint_eq(pages_ready(&arena_pages, 1000, true), 0);
    arena_expect_sound(check(report, sizeof(report)));
    /* The last word of the map is looked at again. */
    arena->bounds.limit = 71;
    ck_assert_uint_eq(claim(ARENA_OWNER), 70);
    /* Owned above the limit, as while a dict shrinks. */
    arena->bounds.limit = 60;
    arena_expect_sound(check(report, sizeof(report)));
    release(65);
    release(3);
    ck_assert_uint_eq(pages_free(&arena_pages), 1);
    ck_assert_uint_eq(claim(ARENA_OWNER), 3);
    ck_assert_uint_eq(claim(ARENA_OWNER), PAGE_NONE);
    arena_expect_sound(check(report, sizeof(report)));
    /* Damaged, it leads to no page without a descriptor. */
    arena->bounds.limit = UINT64_MAX;
    ck_assert_uint_eq(pages_count(&arena_pages), 200);
    arena->bounds.described = 100;
    ck_assert_uint_eq(pages_count(&arena_pages), 100);
    arena_stop();
}
END_TEST

START_TEST(dropped_pages_give_back_their_memory_and_come_again)
{
    uint64_t before;

    arena_start(200);
    for (uint32_t n = 0; n < 200; n++) {
        ck_assert_uint_eq(claim(ARENA_OWNER), n);
        memset(pages_address(&arena_pages, n), 0x77, PAGE_BYTES);
    }
    for (uint32_t n = 100; n < 200; n++)
        release(n);
    before = memory();
    arena->bounds.limit = 100;
    ck_assert_int_eq(pages_drop(&arena_pages, 99, 200), SHD_CORRUPT);
    ck_assert_uint_eq(memory(), before);
    ck_assert_int_eq(pages_drop(&arena_pages, 150, 200), SHD_OK);
    ck_assert_uint_eq(pages_committed(&arena_pages), 150);
    ck_assert_int_eq(pages_drop(&arena_pages, 100, 150), SHD_OK);
    ck_assert_uint_eq(pages_committed(&arena_pages), 100);
    ck_assert_uint_eq(memory(), before - 100 * PAGE_BYTES);
    /* Of the descriptors as many as lie alone in their memory. */
    ck_assert_int_eq(pages_forget(&arena_pages, 100), SHD_OK);
    ck_assert_uint_lt(memory(), before - 100 * PAGE_BYTES);
    arena->bounds.described = 100;
    arena_expect_sound(check(report, sizeof(report)));
    pages_follow(&arena_pages);
    ck_assert_uint_eq(
        pages_number(&arena_pages, ARENA_PAGES_AT + 100ull * PAGE_BYTES),
        PAGE_NONE);
    for (uint32_t i = 0; i < PAGE_BYTES; i += 512)
        ck_assert_uint_eq(pages_address(&arena_pages, 99)[i], 0x77);
    ck_assert_int_eq(pages_describe(&arena_pages, 100, 180), SHD_OK);
    pages_offer(&arena_pages, 100, 180, 150);
    arena->bounds.limit = arena->bounds.described = 180;
    ck_assert_uint_eq(pages_free(&arena_pages), 80);
    for (uint32_t n = 100; n < 180; n++) {
        ck_assert_uint_eq(claim(ARENA_OWNER), n);
        ck_assert_uint_eq(pages_address(&arena_pages, n)[8], 0);
    }
    ck_assert_uint_eq(claim(ARENA_OWNER), PAGE_NONE);
    arena_expect_sound(check(report, sizeof(report)));
    arena_stop();
}
END_TEST

START_TEST(only_pages_without_owner_are_offered)
{
    arena_start(200);
    for (uint32_t n = 0; n < 130; n++)
        ck_assert_uint_eq(claim(n % 2 == 0 ? ARENA_OWNER : 3), n);
    for (uint32_t n = 0; n < 130; n += 3)
        release(n);
    memset(arena_pages.map, 0, 16);
    pages_offer(&arena_pages, 5, 125, 200);
    for (uint32_t n = 0; n < 128; n++)
        ck_assert_uint_eq(arena_pages.map[n / 64] >> n % 64 & 1,
                          n >= 5 && n < 125 && n % 3 == 0);
    arena_stop();
}
END_TEST

/* Pages 0 .. 599 of 700 are taken, and the process has found that out so lately
 * that it does not look there again, as it does in a large dict. */
static void start_trusting(void)
{
    arena_start(700);
    for (uint32_t n = 0; n < 600; n++)
        ck_assert_uint_eq(claim(ARENA_OWNER), n);
    while (pages_extend(&arena_pages) == SHD_OK)
        ;
    arena_pages.full_below = 600 / 64;
    arena_pages.trusted = 100;
}

/* Another process's claim, of which this one does not know. */
static void taken_by_another(uint32_t n)
{
    arena_pages.map[n / 64] &= ~(1ull << n % 64);
    arena_pages.table[n].owner = 3;
}

START_TEST(what_this_process_gave_back_counts_where_it_does_not_look)
{
    start_trusting();
    release(5);
    release(70);
    ck_assert_uint_eq(pages_ready(&arena_pages, 1000, false), 102);
    ck_assert_uint_eq(pages_ready(&arena_pages, 1, false), 2);
    taken_by_another(70);
    ck_assert_uint_eq(pages_ready(&arena_pages, 1000, false), 101);
    ck_assert_uint_eq(claim(ARENA_OWNER), 5);
    release(5); /* for the second time, and counts once */
    ck_assert_uint_eq(pages_ready(&arena_pages, 1000, false), 101);
    ck_assert_uint_eq(pages_ready(&arena_pages, 0, true), 0);
    ck_assert_uint_eq(pages_ready(&arena_pages, 1000, true), 101);
    arena_expect_sound(check(report, sizeof(report)));
    arena_stop();
}
END_TEST

START_TEST(what_others_took_of_it_is_passed_over)
{
    start_trusting();
    for (uint32_t n = 0; n < PAGES_RECENT; n++)
        release(10 + n);
    for (uint32_t n = 0; n < PAGES_RECENT; n++)
        taken_by_another(10 + n);
    ck_assert_uint_eq(pages_ready(&arena_pages, 1000, false), 100);
    ck_assert_uint_eq(claim(ARENA_OWNER), 600);
    arena_expect_sound(check(report, sizeof(report)));
    arena_stop();
}
END_TEST

START_TEST(of_more_than_it_can_remember_it_looks_for_the_rest)
{
    start_trusting();
    for (uint32_t n = 0; n <= PAGES_RECENT; n++)
        release(130 + n);
    ck_assert_uint_eq(pages_ready(&arena_pages, 1000, true),
                      PAGES_RECENT + 1 + 100);
    for (uint32_t n = 0; n <= PAGES_RECENT; n++)
        ck_assert_uint_eq(claim(ARENA_OWNER), 130 + n);
    ck_assert_uint_eq(claim(ARENA_OWNER), 600);
    arena_expect_sound(check(report, sizeof(report)));
    arena_stop();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pages");
    TCase *c = tcase_create("pages");

    tcase_add_test(c, a_claimed_page_is_the_lowest_free_one);
    tcase_add_loop_test(c, all_pages_can_be_claimed_and_then_none, 0, 5);
    tcase_add_test(c, memory_is_committed_only_when_it_is_needed);
    tcase_add_test(c, a_page_beyond_what_is_committed_has_no_number);
    tcase_add_loop_test(c, what_an_unfinished_transaction_claimed_goes_back,
                        0, 2);
    tcase_add_test(c, nothing_is_claimed_from_the_limit_on);
    tcase_add_test(c, dropped_pages_give_back_their_memory_and_come_again);
    tcase_add_test(c, only_pages_without_owner_are_offered);
    tcase_add_test(c, what_this_process_gave_back_counts_where_it_does_not_look);
    tcase_add_test(c, what_others_took_of_it_is_passed_over);
    tcase_add_test(c, of_more_than_it_can_remember_it_looks_for_the_rest);
    tcase_add_test(c, a_release_happens_only_with_the_commit);
    tcase_add_test(c, a_page_whose_owner_word_is_taken_is_passed_over);
    tcase_add_test(c, check_names_an_owner_that_contradicts_the_map);
    suite_add_tcase(s, c);
    return arena_run(s);
}
