/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite clock: base/clock.c. */
#include "shm/base/clock.h"
#include "tests/unit/support.h"

START_TEST(now_counts_milliseconds_of_the_monotonic_clock)
{
    int64_t before = support_now_ms();
    uint64_t now = clock_now_ms();
    int64_t after = support_now_ms();

    /* One is added, so that it is never 0. */
    ck_assert_int_ge((int64_t)now, before + 1);
    ck_assert_int_le((int64_t)now, after + 1);
}
END_TEST

START_TEST(now_never_goes_back)
{
    uint64_t last = 0;

    for (int i = 0; i < 100000; i++) {
        uint64_t now = clock_now_ms();

        ck_assert_uint_ge(now, last);
        last = now;
    }
}
END_TEST

START_TEST(coarse_is_at_most_a_tick_behind)
{
    for (int i = 0; i < 1000; i++) {
        uint64_t before = clock_now_ms();
        uint64_t coarse = clock_coarse_ms();

        ck_assert_uint_le(coarse, clock_now_ms());
        ck_assert_uint_ge(coarse + 11, before);
    }
}
END_TEST

START_TEST(is_past_agrees_with_now_around_the_deadline)
{
    for (int round = 0; round < 30; round++) {
        uint64_t deadline = clock_now_ms() + 3;

        for (;;) {
            uint64_t before = clock_now_ms();
            bool past = clock_is_past(deadline);
            uint64_t after = clock_now_ms();

            /* Only while the deadline passes between the two looks may the
             * answer be either. */
            if (before >= deadline)
                ck_assert_msg(past, "%llu is not past at %llu",
                              (unsigned long long)deadline,
                              (unsigned long long)before);
            if (after < deadline)
                ck_assert_msg(!past, "%llu is past at %llu",
                              (unsigned long long)deadline,
                              (unsigned long long)after);
            if (past)
                break;
        }
    }
}
END_TEST

START_TEST(a_far_deadline_is_not_past_and_an_old_one_is)
{
    ck_assert(!clock_is_past(clock_now_ms() + 100000));
    ck_assert(!clock_is_past(UINT64_MAX));
    ck_assert(clock_is_past(1));
    ck_assert(clock_is_past(clock_now_ms()));
}
END_TEST

START_TEST(a_test_can_move_time_forward)
{
    uint64_t now = clock_now_ms();
    uint64_t deadline = now + 3600000;

    ck_assert(!clock_is_past(deadline));
    clock_test_advance(3600000);
    ck_assert(clock_is_past(deadline));
    ck_assert_uint_ge(clock_now_ms(), deadline);
    ck_assert_uint_ge(clock_coarse_ms() + 11, deadline);
}
END_TEST

START_TEST(wall_is_the_time_of_day)
{
    time_t before = time(NULL);
    uint64_t wall = clock_wall_ms();

    ck_assert_uint_ge(wall / 1000 + 1, (uint64_t)before);
    ck_assert_uint_le(wall / 1000, (uint64_t)time(NULL) + 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("clock");
    TCase *c = tcase_create("clock");

    tcase_add_test(c, now_counts_milliseconds_of_the_monotonic_clock);
    tcase_add_test(c, now_never_goes_back);
    tcase_add_test(c, coarse_is_at_most_a_tick_behind);
    tcase_add_test(c, is_past_agrees_with_now_around_the_deadline);
    tcase_add_test(c, a_far_deadline_is_not_past_and_an_old_one_is);
    tcase_add_test(c, a_test_can_move_time_forward);
    tcase_add_test(c, wall_is_the_time_of_day);
    suite_add_tcase(suite, c);
    return support_run(suite);
}
