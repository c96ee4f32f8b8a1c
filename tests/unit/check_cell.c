/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite cell: memory/cell.c. */
#include "tests/unit/bench.h"

#define LENGTH_MAX 70u

static uint64_t words[LENGTH_MAX / 8 + 3];
static unsigned char *const cell = (unsigned char *)&words[1];

START_TEST(every_length_comes_back_as_it_went_in)
{
    unsigned char in[LENGTH_MAX], out[LENGTH_MAX + 1];

    pattern(in, sizeof(in), 3);
    for (size_t len = 0; len <= LENGTH_MAX; len++) {
        memset(words, 0xee, sizeof(words));
        memset(out, 0x11, sizeof(out));
        cell_fill(cell, in, len);
        ck_assert_int_eq(memcmp(cell, in, len), 0);
        /* The last word's rest is zeroes, and nothing is touched beyond. */
        for (size_t i = len; i < (len + 7) / 8 * 8; i++)
            ck_assert_uint_eq(cell[i], 0);
        ck_assert_uint_eq(cell[(len + 7) / 8 * 8], 0xee);
        ck_assert_uint_eq(cell[-1], 0xee);
        cell_copy_out(out, cell, len);
        ck_assert_int_eq(memcmp(out, in, len), 0);
        ck_assert_uint_eq(out[len], 0x11);
    }
}
END_TEST

START_TEST(comparing_sees_every_byte_and_none_past_the_length)
{
    unsigned char in[LENGTH_MAX];

    for (size_t len = 0; len <= LENGTH_MAX; len++) {
        pattern(in, sizeof(in), 5);
        memset(words, 0xee, sizeof(words));
        cell_fill(cell, in, len);
        for (size_t i = len; i < (len + 7) / 8 * 8; i++)
            cell[i] = 0x77;
        ck_assert_int_eq(cell_compare(cell, in, len), 0);
        for (size_t i = 0; i < len; i++) {
            int before;

            in[i] ^= 0x40;
            before = cell_compare(cell, in, len);
            ck_assert_int_ne(before, 0);
            /* The other way round it is the other way round. */
            uint64_t other[LENGTH_MAX / 8 + 1];
            unsigned char mine[LENGTH_MAX];

            memcpy(mine, cell, len);
            cell_fill(other, in, len);
            ck_assert_int_eq(cell_compare(other, mine, len), -before);
            in[i] ^= 0x40;
        }
    }
}
END_TEST

START_TEST(comparing_is_transitive)
{
    uint64_t value[40];

    for (int i = 0; i < 40; i++)
        value[i] = random_next() >> random_below(50);
    for (size_t len = 1; len <= 8; len += 7) {
        for (int a = 0; a < 40; a++) {
            for (int b = 0; b < 40; b++) {
                for (int c = 0; c < 40; c++) {
                    if (cell_compare(&value[a], &value[b], len) < 0 &&
                        cell_compare(&value[b], &value[c], len) < 0)
                        ck_assert_int_lt(
                            cell_compare(&value[a], &value[c], len), 0);
                }
            }
        }
    }
}
END_TEST

START_TEST(a_cell_lies_in_one_committed_page)
{
    uint32_t first;

    bench_start(3);
    first = (uint32_t)(pages.at / 16);
    ck_assert_ptr_null(cell_at(&pages, first, 24));
    expect(pages_prepare(&pages), SHD_OK);
    ck_assert_ptr_eq(cell_at(&pages, first, 24), pages_address(&pages, 0));
    ck_assert_ptr_eq(cell_at(&pages, first + 256, 4096),
                     pages_address(&pages, 1));
    ck_assert_ptr_null(cell_at(&pages, first + 1, 4096));
    ck_assert_ptr_nonnull(cell_at(&pages, first + 254, 32));
    ck_assert_ptr_null(cell_at(&pages, first + 254, 33));
    ck_assert_ptr_null(cell_at(&pages, first + 255, 24));
    ck_assert_ptr_null(cell_at(&pages, first + 3 * 256, 24));
    ck_assert_ptr_null(cell_at(&pages, first - 1, 16));
    ck_assert_ptr_null(cell_at(&pages, 0, 24));
    ck_assert_ptr_null(cell_at(&pages, UINT32_MAX, 24));
    ck_assert_uint_eq(cell_room(&pages, pages_address(&pages, 1)), 4096);
    ck_assert_uint_eq(cell_room(&pages, pages_address(&pages, 1) + 4080), 16);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cell");
    TCase *c = tcase_create("cell");

    tcase_add_test(c, every_length_comes_back_as_it_went_in);
    tcase_add_test(c, comparing_sees_every_byte_and_none_past_the_length);
    tcase_add_test(c, comparing_is_transitive);
    tcase_add_test(c, a_cell_lies_in_one_committed_page);
    suite_add_tcase(s, c);
    return run_suite(s);
}
