/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite list: memory/list.c against an array, and its checker against damage
 * of one link at a time. */
#include "tests/unit/bench.h"

#define CELLS 40u

static uint32_t cells[CELLS];

static void start(void)
{
    bench_start(8);
    for (uint32_t i = 0; i < CELLS; i++)
        cells[i] = take_cell(1);
}

static struct cell *at(uint32_t ref)
{
    return cell_at(&pages, ref, sizeof(struct cell));
}

static int push(uint32_t ref)
{
    struct txn t;
    int rc;

    begin(&t);
    rc = list_push(&pages, &t, &heads->list, ref);
    ck_assert_uint_le(t.undo, LIST_WORDS);
    if (rc == SHD_OK)
        txn_commit(&t);
    else
        txn_abort(&t);
    return rc;
}

static int remove_cell(uint32_t ref)
{
    struct txn t;
    int rc;

    begin(&t);
    rc = list_remove(&pages, &t, &heads->list, ref);
    ck_assert_uint_le(t.undo, LIST_WORDS);
    if (rc == SHD_OK)
        txn_commit(&t);
    else
        txn_abort(&t);
    return rc;
}

static int replace(uint32_t old, uint32_t new)
{
    struct txn t;
    int rc;

    begin(&t);
    rc = list_replace(&pages, &t, &heads->list, old, new);
    ck_assert_uint_le(t.undo, LIST_WORDS);
    if (rc == SHD_OK)
        txn_commit(&t);
    else
        txn_abort(&t);
    return rc;
}

#define check_list(n) \
    list_check(&pages, &heads->list, (n), report, sizeof(report))

/* model[0] is the front. */
static void agrees(const uint32_t *model, uint32_t n)
{
    uint32_t ref = heads->list.first;

    for (uint32_t i = 0; i < n; i++) {
        ck_assert_uint_eq(ref, model[i]);
        ref = at(ref)->word[LIST_NEXT];
    }
    ck_assert_uint_eq(ref, 0);
    expect_sound(check_list(n));
}

START_TEST(random_changes_agree_with_an_array)
{
    uint32_t model[CELLS] = {0}, spare[CELLS], n = 0, spares = CELLS;

    start();
    memcpy(spare, cells, sizeof(spare));
    agrees(model, 0);
    for (int turn = 0; turn < 5000; turn++) {
        uint32_t what = random_below(3);

        if (what == 0 && spares > 0) {
            memmove(model + 1, model, n * sizeof(*model));
            model[0] = spare[--spares];
            n++;
            expect(push(model[0]), SHD_OK);
        } else if (what == 1 && n > 0) {
            uint32_t i = random_below(n);

            expect(remove_cell(model[i]), SHD_OK);
            spare[spares++] = model[i];
            memmove(model + i, model + i + 1, (--n - i) * sizeof(*model));
        } else if (n > 0 && spares > 0) {
            uint32_t i = random_below(n), old = model[i];

            model[i] = spare[spares - 1];
            spare[spares - 1] = old;
            expect(replace(old, model[i]), SHD_OK);
        }
        agrees(model, n);
    }
}
END_TEST

START_TEST(an_aborted_change_leaves_every_byte_as_it_was)
{
    static unsigned char before[8 * PAGE_BYTES];
    struct snapshot *s;
    struct txn t;

    start();
    for (uint32_t i = 0; i < 5; i++)
        expect(push(cells[i]), SHD_OK);
    s = snapshot_take();
    memcpy(before, pages_address(&pages, 0), sizeof(before));
    begin(&t);
    expect(list_remove(&pages, &t, &heads->list, cells[0]), SHD_OK);
    expect(list_remove(&pages, &t, &heads->list, cells[4]), SHD_OK);
    expect(list_replace(&pages, &t, &heads->list, cells[2], cells[9]),
           SHD_OK);
    expect(list_push(&pages, &t, &heads->list, cells[0]), SHD_OK);
    txn_abort(&t);
    ck_assert_int_eq(memcmp(before, pages_address(&pages, 0), sizeof(before)),
                     0);
    snapshot_unchanged(s);
    expect_sound(check_list(5));
}
END_TEST

/* ---- damage ----------------------------------------------------------- */

/* Front to back: cells 4 3 2 1 0. */
static void start_to_damage(void)
{
    start();
    for (uint32_t i = 0; i < 5; i++)
        expect(push(cells[i]), SHD_OK);
    expect_sound(check_list(5));
}

START_TEST(check_names_a_link_back_that_does_not_mirror)
{
    char text[40];

    start_to_damage();
    at(cells[2])->word[LIST_PREV] = cells[4];
    snprintf(text, sizeof(text), "broken at cell %u, number 2 of 5", cells[2]);
    expect_named(check_list(5), text);
}
END_TEST

START_TEST(check_names_a_link_that_skips_a_cell)
{
    start_to_damage();
    at(cells[3])->word[LIST_NEXT] = cells[1];
    expect_named(check_list(5), "number 2 of 5");
}
END_TEST

START_TEST(check_names_a_link_that_leads_outside)
{
    start_to_damage();
    at(cells[1])->word[LIST_NEXT] = UINT32_MAX;
    expect_named(check_list(5), "broken at cell 4294967295, number 4 of 5");
}
END_TEST

START_TEST(check_names_a_cycle)
{
    start_to_damage();
    at(cells[0])->word[LIST_NEXT] = cells[4];
    at(cells[4])->word[LIST_PREV] = cells[0];
    /* From the front it leads back to the first, whose prev is not 0. */
    expect_named(check_list(5), "broken at cell");
}
END_TEST

START_TEST(check_names_a_cell_too_few_or_too_many)
{
    start_to_damage();
    expect_named(check_list(6), "after 5 cells, not at");
    expect_named(check_list(4), "number 5 of 4");
}
END_TEST

START_TEST(check_names_an_end_that_is_not_the_end)
{
    start_to_damage();
    heads->list.last = cells[1];
    expect_named(check_list(5), "ends at");
    heads->list.last = cells[0];
    at(cells[1])->word[LIST_NEXT] = 0;
    expect_named(check_list(5), "after 4 cells");
}
END_TEST

START_TEST(damage_is_corrupt_to_those_who_meet_it)
{
    start_to_damage();
    expect(push(UINT32_MAX), SHD_CORRUPT);
    expect(remove_cell(UINT32_MAX), SHD_CORRUPT);
    expect(replace(UINT32_MAX, cells[9]), SHD_CORRUPT);
    expect(replace(cells[1], UINT32_MAX), SHD_CORRUPT);
    heads->list.first = 3;
    expect(push(cells[9]), SHD_CORRUPT);
    expect_said("leads outside");
    expect(remove_cell(cells[4]), SHD_CORRUPT);
    expect_said("its ends are not its ends");
    heads->list.first = cells[4];
    heads->list.last = cells[1];
    expect(remove_cell(cells[0]), SHD_CORRUPT);
    heads->list.last = cells[0];
    at(cells[2])->word[LIST_PREV] = UINT32_MAX;
    expect(remove_cell(cells[2]), SHD_CORRUPT);
    at(cells[2])->word[LIST_PREV] = cells[3];
    at(cells[2])->word[LIST_NEXT] = UINT32_MAX;
    expect(remove_cell(cells[2]), SHD_CORRUPT);
    expect_said("leads outside");
    at(cells[2])->word[LIST_NEXT] = cells[1];
    /* None of these has changed anything. */
    expect_sound(check_list(5));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("list");
    TCase *c = tcase_create("list");

    tcase_set_timeout(c, 60);
    tcase_add_test(c, random_changes_agree_with_an_array);
    tcase_add_test(c, an_aborted_change_leaves_every_byte_as_it_was);
    tcase_add_test(c, check_names_a_link_back_that_does_not_mirror);
    tcase_add_test(c, check_names_a_link_that_skips_a_cell);
    tcase_add_test(c, check_names_a_link_that_leads_outside);
    tcase_add_test(c, check_names_a_cycle);
    tcase_add_test(c, check_names_a_cell_too_few_or_too_many);
    tcase_add_test(c, check_names_an_end_that_is_not_the_end);
    tcase_add_test(c, damage_is_corrupt_to_those_who_meet_it);
    suite_add_tcase(s, c);
    return run_suite(s);
}
