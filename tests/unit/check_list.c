/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite list: memory/list.c against an array. */
#include "tests/unit/arena.h"

#define CELLS 300u

static uint32_t refs[CELLS]; /* cells, */
static uint32_t place[CELLS]; /* where each is in the array + 1, or 0 */
static uint32_t array[CELLS];
static uint32_t count;

static void start(void)
{
    struct txn t;

    arena_start(100);
    count = 0;
    memset(place, 0, sizeof(place));
    for (uint32_t i = 0; i < CELLS; i++) {
        ck_assert_int_eq(slab_prepare(&arena_pages, &arena->slab, 4), SHD_OK);
        arena_begin(&t, SLAB_ALLOC_WORDS);
        ck_assert_int_eq(slab_alloc(&arena_pages, &arena->slab, &t,
                                    ARENA_OWNER, 4, PAGE_NONE, &refs[i]),
                         SHD_OK);
        txn_commit(&t);
        memset(arena_cell(refs[i]), 0xa5, sizeof(struct cell));
    }
}

static int check(char *report, size_t size)
{
    return list_check(&arena_pages, &arena->list, count, report, size);
}

/* Both ways, it is what the array says; and no other word was touched. */
static void expect_the_array(void)
{
    uint32_t ref = arena->list.first, back = arena->list.last;

    arena_expect_sound(check(report, sizeof(report)));
    for (uint32_t i = 0; i < count; i++) {
        const struct cell *c = arena_cell(ref), *b = arena_cell(back);

        if (ref != refs[array[i]] || back != refs[array[count - 1 - i]])
            ck_abort_msg("number %u of %u is another cell", i, count);
        if (c->word[0] != 0xa5a5a5a5 || c->word[1] != 0xa5a5a5a5 ||
            c->meta != 0xa5a5a5a5 || c->len != 0xa5a5a5a5)
            ck_abort_msg("a word beside the links has changed");
        ref = c->word[LIST_NEXT];
        back = b->word[LIST_PREV];
    }
    ck_assert_uint_eq(ref, 0);
    ck_assert_uint_eq(back, 0);
}

static void model_remove(uint32_t i)
{
    uint32_t at = place[i] - 1;

    memmove(&array[at], &array[at + 1], (count - at - 1) * sizeof(array[0]));
    count--;
    place[i] = 0;
    for (uint32_t k = at; k < count; k++)
        place[array[k]] = k + 1;
}

static void model_push(uint32_t i)
{
    memmove(&array[1], &array[0], count * sizeof(array[0]));
    array[0] = i;
    count++;
    for (uint32_t k = 0; k < count; k++)
        place[array[k]] = k + 1;
}

/* Cell i: pushed if it is out, removed or replaced by the next one that is
 * out if it is in. */
static int change(struct txn *t, uint32_t i, bool keep)
{
    struct list *l = &arena->list;
    uint32_t other = (i + 1) % CELLS;
    int rc;

    if (place[i] == 0) {
        rc = list_push(&arena_pages, t, l, refs[i]);
        if (keep)
            model_push(i);
    } else if (place[other] != 0 || arena_random(2) == 0) {
        rc = list_remove(&arena_pages, t, l, refs[i]);
        if (keep)
            model_remove(i);
    } else {
        rc = list_replace(&arena_pages, t, l, refs[i], refs[other]);
        if (keep) {
            array[place[i] - 1] = other;
            place[other] = place[i];
            place[i] = 0;
        }
    }
    return rc;
}

START_TEST(random_changes_agree_with_an_array)
{
    struct txn t;

    start();
    for (uint32_t i = 0; i < 30000; i++) {
        uint32_t range = i / 1000 % 3 == 0 ? 4 : CELLS;

        arena_begin(&t, LIST_WORDS);
        ck_assert_int_eq(change(&t, arena_random(range), true), SHD_OK);
        txn_commit(&t);
        if (range == 4 || i % 100 == 0)
            expect_the_array();
    }
    for (uint32_t i = 0; i < CELLS; i++) {
        if (place[i] == 0)
            continue;
        arena_begin(&t, LIST_WORDS);
        ck_assert_int_eq(
            list_remove(&arena_pages, &t, &arena->list, refs[i]), SHD_OK);
        txn_commit(&t);
        model_remove(i);
    }
    ck_assert_uint_eq(arena->list.first, 0);
    ck_assert_uint_eq(arena->list.last, 0);
    expect_the_array();
    arena_stop();
}
END_TEST

START_TEST(an_aborted_change_leaves_every_byte_as_it_was)
{
    struct txn t;

    start();
    for (uint32_t i = 0; i < 900; i++) {
        bool keep = i % 3 != 0;

        if (!keep)
            arena_remember();
        arena_begin(&t, LIST_WORDS);
        ck_assert_int_eq(change(&t, arena_random(20), keep), SHD_OK);
        if (keep) {
            txn_commit(&t);
            continue;
        }
        if (i % 2 == 0)
            txn_abort(&t);
        else
            ck_assert_int_eq(txn_recover(&arena_segment, arena_guard),
                             SHD_OK);
        arena_expect_remembered();
    }
    expect_the_array();
    arena_stop();
}
END_TEST

/* Cells 4 3 2 1 0. */
static void start_five(void)
{
    struct txn t;

    start();
    for (uint32_t i = 0; i < 5; i++) {
        arena_begin(&t, LIST_WORDS);
        ck_assert_int_eq(list_push(&arena_pages, &t, &arena->list, refs[i]),
                         SHD_OK);
        txn_commit(&t);
        model_push(i);
    }
    expect_the_array();
    arena_remember();
}

START_TEST(check_names_what_is_damaged)
{
    char where[40];

    start_five();
    snprintf(where, sizeof(where), "broken at cell %u", refs[2]);
    arena_cell(refs[2])->word[LIST_PREV] = refs[4];
    arena_expect_named(check(report, sizeof(report)), where);
    arena_restore();
    arena_cell(refs[3])->word[LIST_NEXT] = UINT32_MAX;
    arena_expect_named(check(report, sizeof(report)),
                       "broken at cell 4294967295");
    arena_restore();
    arena_cell(refs[0])->word[LIST_NEXT] = refs[4]; /* a cycle */
    snprintf(where, sizeof(where), "broken at cell %u", refs[4]);
    arena_expect_named(check(report, sizeof(report)), where);
    arena_restore();
    arena_cell(refs[2])->word[LIST_NEXT] = 0; /* cut in two */
    snprintf(where, sizeof(where), "ends at %u after 3 cells", refs[2]);
    arena_expect_named(check(report, sizeof(report)), where);
    arena_restore();
    arena->list.last = refs[1];
    snprintf(where, sizeof(where), "ends at %u after 5 cells", refs[0]);
    arena_expect_named(check(report, sizeof(report)), where);
    arena_restore();
    count = 6;
    arena_expect_named(check(report, sizeof(report)), "after 6");
    count = 4;
    arena_expect_named(check(report, sizeof(report)), "number 5 of 4");
    count = 5;
    expect_the_array();
    arena_stop();
}
END_TEST

static void expect_corrupt(int rc, struct txn *t)
{
    ck_assert_int_eq(rc, SHD_CORRUPT);
    txn_abort(t);
    arena_restore();
}

START_TEST(changes_beside_damage_are_corrupt_and_follow_nothing)
{
    struct list *l;
    struct txn t;

    start_five();
    l = &arena->list;
    arena_begin(&t, LIST_WORDS);
    expect_corrupt(list_push(&arena_pages, &t, l, UINT32_MAX), &t);
    arena_begin(&t, LIST_WORDS);
    expect_corrupt(list_remove(&arena_pages, &t, l, UINT32_MAX), &t);
    arena_begin(&t, LIST_WORDS);
    expect_corrupt(list_replace(&arena_pages, &t, l, refs[2], 1), &t);
    l->first = UINT32_MAX;
    arena_begin(&t, LIST_WORDS);
    expect_corrupt(list_push(&arena_pages, &t, l, refs[9]), &t);
    arena_cell(refs[2])->word[LIST_PREV] = UINT32_MAX;
    arena_begin(&t, LIST_WORDS);
    expect_corrupt(list_remove(&arena_pages, &t, l, refs[2]), &t);
    arena_cell(refs[2])->word[LIST_NEXT] = UINT32_MAX;
    arena_begin(&t, LIST_WORDS);
    expect_corrupt(list_remove(&arena_pages, &t, l, refs[2]), &t);
    /* In the middle by its links, at an end by the head. */
    arena_cell(refs[2])->word[LIST_PREV] = 0;
    arena_begin(&t, LIST_WORDS);
    expect_corrupt(list_remove(&arena_pages, &t, l, refs[2]), &t);
    l->last = refs[2];
    arena_begin(&t, LIST_WORDS);
    expect_corrupt(list_remove(&arena_pages, &t, l, refs[2]), &t);
    expect_the_array();
    arena_stop();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("list");
    TCase *c = tcase_create("list");

    tcase_set_timeout(c, 60);
    tcase_add_test(c, random_changes_agree_with_an_array);
    tcase_add_test(c, an_aborted_change_leaves_every_byte_as_it_was);
    tcase_add_test(c, check_names_what_is_damaged);
    tcase_add_test(c, changes_beside_damage_are_corrupt_and_follow_nothing);
    suite_add_tcase(s, c);
    return arena_run(s);
}
