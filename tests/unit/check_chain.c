/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite chain: memory/chain.c. */
#include "tests/unit/bench.h"

#define BYTES_MAX (5 * CHAIN_DATA_MAX + 100)
#define OF 4242u

static unsigned char bytes[BYTES_MAX], out[BYTES_MAX + 8];
static uint32_t *pending;

static const uint64_t lengths[] = {1,
                                   7,
                                   8,
                                   9,
                                   CHAIN_DATA_MAX - 1,
                                   CHAIN_DATA_MAX,
                                   CHAIN_DATA_MAX + 1,
                                   2 * CHAIN_DATA_MAX - 1,
                                   2 * CHAIN_DATA_MAX,
                                   2 * CHAIN_DATA_MAX + 1,
                                   4 * CHAIN_DATA_MAX,
                                   5 * CHAIN_DATA_MAX + 99};
#define LENGTHS ((int)(sizeof(lengths) / sizeof(lengths[0])))

static void start(void)
{
    bench_start(16);
    pending = heads->pending;
    pattern(bytes, sizeof(bytes), 9);
}

static struct cell *at(uint32_t ref)
{
    return cell_at(&pages, ref, sizeof(struct cell));
}

static int step(const struct chain_source *s, uint64_t *left)
{
    return chain_build_step(&pages, &heads->slab[0], guards[0], 1, pending, s,
                            left);
}

/* Builds a chain and makes it belong to OF. */
static uint32_t build(const struct chain_source *s)
{
    uint64_t left = chain_source_len(s);
    uint32_t head;

    while (left > 0) {
        uint64_t before = left;

        expect(step(s, &left), SHD_OK);
        ck_assert_uint_lt(left, before);
    }
    head = *pending;
    *pending = 0;
    at(head)->word[CHAIN_OF] = OF;
    return head;
}

static uint32_t build_bytes(uint64_t len)
{
    struct chain_source s = {.second = bytes, .second_len = len};

    return build(&s);
}

static uint64_t cells_counted;
#define check_chain(head, total)                                              \
    chain_check(&pages, 1, (head), OF, (total), &cells_counted, report,       \
                sizeof(report))

START_TEST(a_chain_holds_what_was_put_in)
{
    uint64_t len = lengths[_i];
    uint32_t head;

    start();
    head = build_bytes(len);
    memset(out, 0x55, sizeof(out));
    expect(chain_read(&pages, head, 0, out, len), SHD_OK);
    ck_assert_int_eq(memcmp(out, bytes, len), 0);
    ck_assert_uint_eq(out[len], 0x55);
    ck_assert_int_eq(chain_compare(&pages, head, bytes, len), 0);
    bytes[len - 1] ^= 1;
    ck_assert_int_ne(chain_compare(&pages, head, bytes, len), 0);
    ck_assert_int_eq(chain_compare(&pages, head, bytes, len - 1), 0);
    cells_counted = 0;
    expect_sound(check_chain(head, len));
    ck_assert_uint_eq(cells_counted, chain_pages(len));
    expect(chain_read(&pages, head, 1, out, len), SHD_CORRUPT);
}
END_TEST

START_TEST(any_part_can_be_read)
{
    uint64_t len = 3 * CHAIN_DATA_MAX + 50;
    uint32_t head;

    start();
    head = build_bytes(len);
    /* A part begins at a multiple of 8, as values after a key do. */
    for (int i = 0; i < 400; i++) {
        uint64_t from = random_below((uint32_t)len / 8) * 8ull;
        uint64_t n = random_below((uint32_t)(len - from) + 1);

        memset(out, 0x55, sizeof(out));
        expect(chain_read(&pages, head, from, out, n), SHD_OK);
        ck_assert_int_eq(memcmp(out, bytes + from, n), 0);
        ck_assert_uint_eq(out[n], 0x55);
    }
    expect(chain_read(&pages, head, len, out, 0), SHD_OK);
}
END_TEST

START_TEST(two_pieces_are_joined_and_the_gap_is_zeroes)
{
    static const uint64_t first[] = {1025, 4071, 4072, 4073, 8143, 9000};
    struct chain_source s;
    uint64_t padded = (first[_i] + 7) / 8 * 8, second = 5000;
    uint32_t head;

    start();
    s = (struct chain_source){bytes, padded, first[_i], bytes + 3, second};
    ck_assert_uint_eq(chain_source_len(&s), padded + second);
    head = build(&s);
    expect(chain_read(&pages, head, 0, out, first[_i]), SHD_OK);
    ck_assert_int_eq(memcmp(out, bytes, first[_i]), 0);
    expect(chain_read(&pages, head, padded, out, second), SHD_OK);
    ck_assert_int_eq(memcmp(out, bytes + 3, second), 0);
    cells_counted = 0;
    expect_sound(check_chain(head, padded + second));
}
END_TEST

START_TEST(pages_are_counted_by_the_cells_of_a_chain)
{
    ck_assert_uint_eq(chain_pages(0), 0);
    ck_assert_uint_eq(chain_pages(1), 1);
    ck_assert_uint_eq(chain_pages(CHAIN_DATA_MAX), 1);
    ck_assert_uint_eq(chain_pages(CHAIN_DATA_MAX + 1), 2);
    ck_assert_uint_eq(chain_pages(UINT32_MAX), 1054757);
}
END_TEST

START_TEST(a_chain_being_built_is_reached_from_its_pending_word)
{
    struct chain_source s = {.second = bytes,
                             .second_len = 3 * CHAIN_DATA_MAX + 5};
    uint64_t left = s.second_len, cells = 0;

    start();
    while (left > 0) {
        uint64_t built, slab_cells, had;

        expect(step(&s, &left), SHD_OK);
        built = s.second_len - left;
        had = ++cells;
        cells_counted = 0;
        expect_sound(chain_check(&pages, 1, *pending, 0, built,
                                 &cells_counted, report, sizeof(report)));
        ck_assert_uint_eq(cells_counted, had);
        expect_sound(slab_check(&pages, &heads->slab[0], 1, &slab_cells,
                                report, sizeof(report)));
        ck_assert_uint_eq(slab_cells, had);
    }
}
END_TEST

START_TEST(without_memory_a_step_changes_nothing_and_can_be_made_again)
{
    struct chain_source s = {.second = bytes,
                             .second_len = 3 * CHAIN_DATA_MAX};
    uint64_t left = s.second_len, before;
    uint32_t head, other;

    bench_start(3);
    pending = heads->pending;
    pattern(bytes, sizeof(bytes), 9);
    other = take_cell(13);
    expect(step(&s, &left), SHD_OK);
    expect(step(&s, &left), SHD_OK);
    head = *pending;
    before = left;
    expect(step(&s, &left), SHD_NOMEM);
    ck_assert_uint_eq(left, before);
    ck_assert_uint_eq(*pending, head);
    give_cell(other);
    expect(step(&s, &left), SHD_OK);
    ck_assert_uint_eq(left, 0);
    expect(chain_read(&pages, *pending, 0, out, s.second_len), SHD_OK);
    ck_assert_int_eq(memcmp(out, bytes, s.second_len), 0);
}
END_TEST

START_TEST(a_step_onto_a_head_outside_is_corrupt)
{
    struct chain_source s = {.second = bytes, .second_len = 10};
    uint64_t left = 10, cells;

    start();
    *pending = UINT32_MAX;
    expect(step(&s, &left), SHD_CORRUPT);
    ck_assert_uint_eq(left, 10);
    expect_sound(slab_check(&pages, &heads->slab[0], 1, &cells, report,
                            sizeof(report)));
    ck_assert_uint_eq(cells, 0);
}
END_TEST

/* ---- damage ----------------------------------------------------------- */

#define LEN (3 * (uint64_t)CHAIN_DATA_MAX + 50)

static uint32_t link_of[4];

static void start_to_damage(void)
{
    start();
    link_of[0] = build_bytes(LEN);
    for (int i = 1; i < 4; i++)
        link_of[i] = at(link_of[i - 1])->word[CHAIN_NEXT];
    expect_sound(check_chain(link_of[0], LEN));
}

START_TEST(check_names_a_link_that_leads_nowhere)
{
    start_to_damage();
    at(link_of[1])->word[CHAIN_NEXT] = UINT32_MAX;
    expect_named(check_chain(link_of[0], LEN), "leads to no cell in use");
    expect(chain_read(&pages, link_of[0], 0, out, LEN), SHD_CORRUPT);
    ck_assert_int_eq(chain_compare(&pages, link_of[0], bytes, LEN), 2);
    /* A page that has never been handed out. */
    at(link_of[1])->word[CHAIN_NEXT] = (uint32_t)(pages.at / 16) + 256 * 9;
    expect_named(check_chain(link_of[0], LEN), "leads to no cell in use");
}
END_TEST

START_TEST(check_names_a_cell_of_another_kind)
{
    start_to_damage();
    at(link_of[2])->meta &= ~(3u << CELL_KIND_SHIFT);
    expect_named(check_chain(link_of[0], LEN), "cell of another kind");
}
END_TEST

START_TEST(check_names_a_link_back_that_does_not_mirror)
{
    start_to_damage();
    at(link_of[2])->word[CHAIN_BACK] = link_of[0];
    expect_named(check_chain(link_of[0], LEN), "wrong link back");
}
END_TEST

START_TEST(check_names_a_chain_that_belongs_to_another)
{
    start_to_damage();
    at(link_of[0])->word[CHAIN_OF] = OF + 1;
    expect_named(check_chain(link_of[0], LEN), "wrong link back");
    at(link_of[0])->word[CHAIN_OF] = OF;
    at(link_of[1])->word[CHAIN_OF] = OF;
    expect_named(check_chain(link_of[0], LEN), "wrong link back");
}
END_TEST

START_TEST(check_names_a_cell_of_a_wrong_length)
{
    start_to_damage();
    at(link_of[1])->len--;
    expect_named(check_chain(link_of[0], LEN), "wrong length");
    at(link_of[1])->len++;
    at(link_of[3])->len++;
    expect_named(check_chain(link_of[0], LEN), "wrong length");
    /* A length no cell can have. */
    at(link_of[1])->len = CHAIN_DATA_MAX + 1;
    expect_named(check_chain(link_of[0], LEN), "leads to no cell in use that");
    expect(chain_read(&pages, link_of[0], 0, out, LEN), SHD_CORRUPT);
    at(link_of[1])->len = 0;
    expect_named(check_chain(link_of[0], LEN), "leads to no cell in use that");
    expect(chain_read(&pages, link_of[0], 0, out, LEN), SHD_CORRUPT);
}
END_TEST

START_TEST(check_names_a_chain_that_is_too_long_or_too_short)
{
    start_to_damage();
    at(link_of[3])->word[CHAIN_NEXT] = link_of[0];
    expect_named(check_chain(link_of[0], LEN), "goes on past its length");
    at(link_of[3])->word[CHAIN_NEXT] = 0;
    expect_named(check_chain(link_of[0], LEN + 4096), "wrong length");
    at(link_of[2])->word[CHAIN_NEXT] = 0;
    expect_named(check_chain(link_of[0], LEN), "leads to no cell in use");
}
END_TEST

START_TEST(reading_a_chain_in_a_cycle_ends)
{
    start_to_damage();
    at(link_of[3])->word[CHAIN_NEXT] = link_of[0];
    expect(chain_read(&pages, link_of[0], UINT32_MAX, out, 8), SHD_OK);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("chain");
    TCase *c = tcase_create("chain");

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, a_chain_holds_what_was_put_in, 0, LENGTHS);
    tcase_add_test(c, any_part_can_be_read);
    tcase_add_loop_test(c, two_pieces_are_joined_and_the_gap_is_zeroes, 0, 6);
    tcase_add_test(c, pages_are_counted_by_the_cells_of_a_chain);
    tcase_add_test(c, a_chain_being_built_is_reached_from_its_pending_word);
    tcase_add_test(
        c, without_memory_a_step_changes_nothing_and_can_be_made_again);
    tcase_add_test(c, a_step_onto_a_head_outside_is_corrupt);
    tcase_add_test(c, check_names_a_link_that_leads_nowhere);
    tcase_add_test(c, check_names_a_cell_of_another_kind);
    tcase_add_test(c, check_names_a_link_back_that_does_not_mirror);
    tcase_add_test(c, check_names_a_chain_that_belongs_to_another);
    tcase_add_test(c, check_names_a_cell_of_a_wrong_length);
    tcase_add_test(c, check_names_a_chain_that_is_too_long_or_too_short);
    tcase_add_test(c, reading_a_chain_in_a_cycle_ends);
    suite_add_tcase(s, c);
    return run_suite(s);
}
