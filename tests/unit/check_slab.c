/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite slab: memory/slab.c against a naive model, and its checker against
 * damage of one thing at a time. */
#include "tests/unit/bench.h"

#define PAGES 200u
#define CELLS_MAX 3000u

static struct slab *slab;

static void start(void)
{
    bench_start(PAGES);
    slab = &heads->slab[0];
}

static uint32_t page_of(uint32_t ref)
{
    return pages_number(&pages, (uint64_t)ref * SEGMENT_UNIT);
}

static struct page *page_at(uint32_t ref)
{
    return &pages.table[page_of(ref)];
}

static uint64_t cells_counted;
#define check_slab() \
    slab_check(&pages, slab, 1, &cells_counted, report, sizeof(report))

static int free_of(uint32_t owner, uint32_t ref)
{
    struct txn t;
    int rc;

    begin(&t);
    rc = slab_free(&pages, slab, &t, owner, ref);
    txn_abort(&t);
    return rc;
}

static int alloc_of(uint32_t class, uint32_t avoid)
{
    struct txn t;
    uint32_t ref;
    int rc;

    begin(&t);
    rc = slab_alloc(&pages, slab, &t, 1, class, avoid, &ref);
    txn_abort(&t);
    return rc;
}

static void expiry_set(uint32_t page, uint64_t expires)
{
    struct txn t;

    begin(&t);
    expect(slab_expiry_set(&pages, slab, &t, page, expires), SHD_OK);
    ck_assert_uint_le(t.undo, SLAB_EXPIRY_WORDS);
    txn_commit(&t);
}

static void expiry_lower(uint32_t page, uint64_t expires)
{
    struct txn t;

    begin(&t);
    expect(slab_expiry_lower(&pages, slab, &t, page, expires), SHD_OK);
    txn_commit(&t);
}

START_TEST(each_size_gets_the_smallest_class_that_holds_it)
{
    ck_assert_uint_eq(slab_class(0), 0);
    for (uint32_t c = 0; c < SLAB_CLASSES; c++) {
        uint32_t bytes = slab_class_bytes(c);

        ck_assert_uint_eq(bytes % SEGMENT_UNIT, 0);
        ck_assert_uint_eq(slab_class(bytes), c);
        ck_assert_uint_eq(slab_class(bytes + 1), c + 1);
        /* No class is more than 1.5 times the one before, but for the last
         * two, which divide a page. */
        if (c > 0 && c < 12)
            ck_assert_uint_le(bytes * 2, slab_class_bytes(c - 1) * 3);
    }
    ck_assert_uint_eq(slab_class_bytes(0), SLAB_CELL_MIN);
    ck_assert_uint_eq(slab_class_bytes(SLAB_CLASSES - 1), SLAB_CELL_MAX);
}
END_TEST

/* _i: a class. Three pages full, then freed from the middle outwards. */
START_TEST(cells_fill_their_page_without_overlap_and_the_page_goes_back)
{
    uint32_t class = (uint32_t)_i, bytes = slab_class_bytes(class);
    uint32_t per_page = PAGE_BYTES / bytes, n = per_page * 3;
    uint32_t refs[3 * PAGE_BYTES / SLAB_CELL_MIN];

    start();
    for (uint32_t i = 0; i < n; i++) {
        refs[i] = take_cell(class);
        ck_assert_uint_eq(page_of(refs[i]), i / per_page);
        ck_assert_uint_eq(((uint64_t)refs[i] * 16 - pages.at) % 4096,
                          i % per_page * bytes);
        ck_assert_uint_eq(slab_cell_bytes(&pages, 1, refs[i]), bytes);
        ck_assert(slab_has_free(&pages, slab, class, PAGE_NONE) ==
                  ((i + 1) % per_page != 0));
    }
    ck_assert_uint_eq(slab->bytes, (uint64_t)n * bytes);
    ck_assert_uint_eq(slab->pages, 3);
    expect_sound(check_slab());
    ck_assert_uint_eq(cells_counted, n);
    for (uint32_t i = 0; i < n; i++) {
        give_cell(refs[(i + n / 2) % n]);
        ck_assert_uint_eq(slab_cell_bytes(&pages, 1, refs[(i + n / 2) % n]),
                          0);
        expect_sound(check_slab());
        ck_assert_uint_eq(cells_counted, n - i - 1);
    }
    ck_assert_uint_eq(pages_free(&pages), PAGES);
    ck_assert_uint_eq(slab->pages, 0);
    ck_assert_uint_eq(slab->bytes, 0);
}
END_TEST

START_TEST(random_changes_agree_with_a_naive_model)
{
    static uint32_t ref[CELLS_MAX];
    static uint32_t size[CELLS_MAX];
    uint32_t n = 0;
    uint64_t bytes = 0;

    start();
    for (int turn = 0; turn < 20000; turn++) {
        bool grow = random_below(100) < (turn / 4000 % 2 == 0 ? 60u : 35u);

        if (grow && n < CELLS_MAX) {
            uint32_t class = random_below(SLAB_CLASSES);

            if (slab_prepare(&pages, slab, class) != SHD_OK)
                continue;
            ref[n] = take_cell(class);
            size[n] = slab_class_bytes(class);
            for (uint32_t i = 0; i < n; i += 13)
                ck_assert_uint_ne(ref[i], ref[n]);
            memset(bench.base + (uint64_t)ref[n] * 16, (int)(n & 0xff),
                   size[n]);
            bytes += size[n++];
        } else if (n > 0) {
            uint32_t i = random_below(n);
            struct txn t;

            if (random_below(3) == 0)
                expiry_lower(page_of(ref[i]), 1 + random_below(1000));
            begin(&t);
            expect(slab_free(&pages, slab, &t, 1, ref[i]), SHD_OK);
            ck_assert_uint_le(t.undo, SLAB_FREE_WORDS);
            txn_commit(&t);
            bytes -= size[i];
            ref[i] = ref[--n];
            size[i] = size[n];
        }
        ck_assert_uint_eq(slab->bytes, bytes);
        if (turn % 200 == 0) {
            expect_sound(check_slab());
            ck_assert_uint_eq(cells_counted, n);
            expect_sound(pages_check(&pages, 1, 2, report, sizeof(report)));
        }
    }
    while (n > 0)
        give_cell(ref[--n]);
    expect_sound(check_slab());
    ck_assert_uint_eq(pages_free(&pages), PAGES);
}
END_TEST

START_TEST(a_page_to_avoid_is_avoided)
{
    uint32_t a, b, ref;
    struct txn t;

    start();
    a = take_cell(5);
    ck_assert(slab_has_free(&pages, slab, 5, PAGE_NONE));
    ck_assert(!slab_has_free(&pages, slab, 5, page_of(a)));
    begin(&t);
    expect(slab_alloc(&pages, slab, &t, 1, 5, page_of(a), &b), SHD_OK);
    txn_commit(&t);
    ck_assert_uint_ne(page_of(a), page_of(b));
    ck_assert(slab_has_free(&pages, slab, 5, page_of(a)));
    ck_assert(slab_has_free(&pages, slab, 5, page_of(b)));
    /* The page of b is the first in the list: the next one serves. */
    begin(&t);
    expect(slab_alloc(&pages, slab, &t, 1, 5, page_of(b), &ref), SHD_OK);
    txn_commit(&t);
    ck_assert_uint_eq(page_of(ref), page_of(a));
    expect_sound(check_slab());
}
END_TEST

START_TEST(an_aborted_change_leaves_everything_as_it_was)
{
    uint32_t ref[4] = {0};
    struct snapshot *s;
    struct txn t;
    uint32_t got;

    start();
    for (int i = 0; i < 3; i++)
        ref[i] = take_cell(12); /* two a page */
    ref[3] = take_cell(3);
    expiry_set(page_of(ref[2]), 77);
    s = snapshot_take();
    for (int i = 0; i < 4; i++)
        expect(free_of(1, ref[i]), SHD_OK);
    expect(alloc_of(12, PAGE_NONE), SHD_OK);
    expect(alloc_of(3, PAGE_NONE), SHD_OK);
    begin(&t);
    expect(slab_expiry_set(&pages, slab, &t, page_of(ref[2]), 0), SHD_OK);
    expect(slab_expiry_lower(&pages, slab, &t, page_of(ref[0]), 5), SHD_OK);
    for (int i = 0; i < 4; i++)
        expect(slab_free(&pages, slab, &t, 1, ref[i]), SHD_OK);
    for (int i = 0; i < 4; i++)
        expect(slab_alloc(&pages, slab, &t, 1, 3, PAGE_NONE, &got), SHD_OK);
    txn_abort(&t);
    /* The descriptor of a page that was claimed and given back may hold
     * anything: nobody owns it. */
    memset(&pages.table[3], 0, sizeof(struct page));
    snapshot_unchanged(s);
    expect_sound(check_slab());
}
END_TEST

START_TEST(freeing_twice_is_corrupt)
{
    uint32_t a, b;

    start();
    a = take_cell(4);
    b = take_cell(4);
    give_cell(a);
    expect(free_of(1, a), SHD_CORRUPT);
    expect_said("freeing what is no cell in use");
    give_cell(b);
    /* Now the page has gone back as well. */
    expect(free_of(1, b), SHD_CORRUPT);
}
END_TEST

START_TEST(freeing_what_is_no_cell_of_the_shard_is_corrupt)
{
    uint32_t a, tail;

    start();
    a = take_cell(3); /* 112: 36 cells, 64 bytes are left over */
    tail = (uint32_t)((pages.at + 36 * 112) / 16);
    expect(free_of(2, a), SHD_CORRUPT);
    expect(free_of(1, a + 1), SHD_CORRUPT);
    expect(free_of(1, tail), SHD_CORRUPT);
    expect(free_of(1, 0), SHD_CORRUPT);
    expect(free_of(1, UINT32_MAX), SHD_CORRUPT);
    expect(free_of(1, a + 256), SHD_CORRUPT);
    ck_assert_uint_eq(slab_cell_bytes(&pages, 1, a), 112);
    ck_assert_uint_eq(slab_cell_bytes(&pages, 2, a), 0);
    ck_assert_uint_eq(slab_cell_bytes(&pages, 1, a + 1), 0);
    ck_assert_uint_eq(slab_cell_bytes(&pages, 1, tail), 0);
    ck_assert_uint_eq(slab_cell_bytes(&pages, 1, UINT32_MAX), 0);
}
END_TEST

START_TEST(without_a_free_page_there_is_no_memory)
{
    bench_start(2);
    slab = &heads->slab[0];
    (void)take_cell(13);
    (void)take_cell(0);
    expect(slab_prepare(&pages, slab, 0), SHD_OK);
    expect(slab_prepare(&pages, slab, 13), SHD_NOMEM);
    expect(slab_prepare(&pages, slab, 1), SHD_NOMEM);
    expect(alloc_of(1, PAGE_NONE), SHD_NOMEM);
    expect_sound(check_slab());
}
END_TEST

START_TEST(cells_in_use_are_met_once_each)
{
    uint32_t refs[20], at = 0, met = 0, ref;

    start();
    for (int i = 0; i < 20; i++)
        refs[i] = take_cell(6);
    for (int i = 0; i < 12; i += 3) {
        give_cell(refs[i]);
        refs[i] = 0;
    }
    while ((ref = slab_next_used(&pages, 0, &at)) != 0) {
        int i = 0;

        while (i < 20 && refs[i] != ref)
            i++;
        ck_assert_int_lt(i, 20);
        refs[i] = 0;
        met++;
    }
    ck_assert_uint_eq(met, PAGE_BYTES / 304 - 4);
    ck_assert_uint_eq(slab_next_used(&pages, 0, &at), 0);
    pages.table[0].info |= 0xff;
    at = 0;
    ck_assert_uint_eq(slab_next_used(&pages, 0, &at), 0);
}
END_TEST

START_TEST(the_earliest_page_to_expire_comes_first)
{
    static uint64_t bound[PAGES];
    uint64_t expires;

    start();
    ck_assert_uint_eq(slab_expiry_first(&pages, slab, &expires), PAGE_NONE);
    for (uint32_t i = 0; i < PAGES; i++)
        ck_assert_uint_eq(page_of(take_cell(13)), i);
    for (int turn = 0; turn < 3000; turn++) {
        uint32_t page = random_below(PAGES), first;
        uint64_t least = UINT64_MAX, to = random_below(50);

        if (random_below(2) == 0) {
            expiry_set(page, to);
            bound[page] = to;
        } else {
            expiry_lower(page, to);
            if (to != 0 && (bound[page] == 0 || to < bound[page]))
                bound[page] = to;
        }
        for (uint32_t i = 0; i < PAGES; i++) {
            if (bound[i] != 0 && bound[i] < least)
                least = bound[i];
        }
        first = slab_expiry_first(&pages, slab, &expires);
        if (least == UINT64_MAX) {
            ck_assert_uint_eq(first, PAGE_NONE);
        } else {
            ck_assert_uint_eq(expires, least);
            ck_assert_uint_eq(bound[first], least);
        }
        if (turn % 100 == 0)
            expect_sound(check_slab());
    }
    expect_sound(check_slab());
}
END_TEST

START_TEST(a_page_that_goes_back_leaves_the_tree_of_expiries)
{
    uint64_t expires;
    uint32_t a, b;

    start();
    a = take_cell(13);
    b = take_cell(13);
    expiry_set(page_of(a), 10);
    expiry_set(page_of(b), 20);
    give_cell(a);
    ck_assert_uint_eq(slab_expiry_first(&pages, slab, &expires), page_of(b));
    ck_assert_uint_eq(expires, 20);
    give_cell(b);
    ck_assert_uint_eq(slab_expiry_first(&pages, slab, &expires), PAGE_NONE);
    a = take_cell(13);
    ck_assert_uint_eq(page_at(a)->expiry & PAGE_EXPIRY_MASK, 0);
    expect_sound(check_slab());
}
END_TEST

/* ---- damage ----------------------------------------------------------- */

/* Pages 0 and 1: class 7 (400 bytes, 10 cells), full and with 5 free cells;
 * page 2: class 0 with one cell; 3 and 4: whole pages that expire. */
static uint32_t first_of_page[5];

static void start_to_damage(void)
{
    start();
    for (int i = 0; i < 15; i++) {
        uint32_t ref = take_cell(7);

        if (i % 10 == 0)
            first_of_page[i / 10] = ref;
    }
    first_of_page[2] = take_cell(0);
    first_of_page[3] = take_cell(13);
    first_of_page[4] = take_cell(13);
    expiry_set(3, 100);
    expiry_set(4, 200);
    expect_sound(check_slab());
}

START_TEST(check_names_a_size_class_that_is_none)
{
    start_to_damage();
    pages.table[1].info |= 0xff;
    expect_named(check_slab(), "page 1 has no such size class");
}
END_TEST

START_TEST(check_names_a_free_cell_past_the_end_of_its_page)
{
    start_to_damage();
    pages.table[1].free_map[0] |= 1ull << 10;
    expect_named(check_slab(), "page 1 has a free cell past its end");
    pages.table[1].free_map[0] &= ~(1ull << 10);
    pages.table[2].free_map[1] |= 1ull << 63;
    expect_named(check_slab(), "page 2 has a free cell past its end");
}
END_TEST

START_TEST(check_names_a_cell_that_is_free_and_in_use)
{
    start_to_damage();
    pages.table[1].free_map[0] |= 1;
    expect_named(check_slab(), "page 1 counts its free cells wrongly");
}
END_TEST

START_TEST(check_names_a_count_of_free_cells_that_is_wrong)
{
    start_to_damage();
    pages.table[1].info += 1 << 8;
    expect_named(check_slab(), "page 1 counts its free cells wrongly");
}
END_TEST

START_TEST(check_names_an_empty_page_that_is_still_owned)
{
    start_to_damage();
    pages.table[3].free_map[0] = 1;
    pages.table[3].info += 1 << 8;
    expect_named(check_slab(), "page 3 is empty and has not gone back");
}
END_TEST

START_TEST(check_names_a_page_that_is_wrongly_in_the_tree_of_expiries)
{
    start_to_damage();
    pages.table[3].info &= ~PAGE_IN_TREE;
    expect_named(check_slab(), "page 3 is wrongly in or out of the tree");
    pages.table[3].info |= PAGE_IN_TREE;
    pages.table[1].expiry |= 7;
    expect_named(check_slab(), "page 1 is wrongly in or out of the tree");
}
END_TEST

START_TEST(check_names_a_broken_list_of_free_cells)
{
    start_to_damage();
    pages.table[1].prev = 3;
    expect_named(check_slab(), "list of free cells of class 7 is broken at "
                               "page 1");
    pages.table[1].prev = 0;
    pages.table[1].next = 3; /* a page of another class */
    expect_named(check_slab(), "class 7 is broken at page 2");
    pages.table[1].next = 2; /* itself */
    expect_named(check_slab(), "class 7 is broken at page 1");
    pages.table[1].next = PAGES + 1;
    expect_named(check_slab(), "class 7 is broken at page 200");
    pages.table[1].next = 1; /* a full page */
    expect_named(check_slab(), "class 7 is broken at page 0");
    pages.table[1].next = 8; /* nobody's */
    expect_named(check_slab(), "class 7 is broken at page 7");
}
END_TEST

START_TEST(check_names_a_page_with_free_cells_that_no_list_has)
{
    start_to_damage();
    slab->partial[7] = 0;
    expect_named(check_slab(), "1 of 2 pages with free cells are listed");
}
END_TEST

START_TEST(check_names_counts_of_the_shard_that_are_wrong)
{
    start_to_damage();
    slab->bytes += 48;
    expect_named(check_slab(), "shard counts 5 pages and 14288 bytes, its "
                               "pages say 5 and 14240");
    slab->bytes -= 48;
    slab->pages++;
    expect_named(check_slab(), "shard counts 6 pages");
}
END_TEST

START_TEST(check_names_a_page_that_the_tree_of_expiries_lacks)
{
    start_to_damage();
    slab->expiry_root = 0;
    expect_named(check_slab(), "0 of 2 with expiries are in the tree");
}
END_TEST

START_TEST(check_names_a_bound_out_of_the_trees_order)
{
    start_to_damage();
    pages.table[3].expiry = 300;
    expect_named(check_slab(), "tree");
}
END_TEST

START_TEST(damage_is_corrupt_to_those_who_meet_it)
{
    struct txn t;
    uint64_t expires;
    uint32_t root;

    start_to_damage();
    slab->partial[7] = 3; /* page 2, of class 0 */
    expect(alloc_of(7, PAGE_NONE), SHD_CORRUPT);
    expect_said("leads to a page of another owner");
    slab->partial[7] = UINT32_MAX;
    expect(alloc_of(7, PAGE_NONE), SHD_CORRUPT);
    ck_assert(slab_has_free(&pages, slab, 7, 0));
    slab->partial[7] = 1; /* page 0 is full */
    expect(alloc_of(7, PAGE_NONE), SHD_CORRUPT);
    expect_said("has none");
    pages.table[0].free_map[0] = 1ull << 40;
    pages.table[0].info += 1 << 8;
    expect(alloc_of(7, PAGE_NONE), SHD_CORRUPT);
    expect_said("a free cell past its page");
    /* Its last free cell: it would have to leave a list that does not begin
     * with it. */
    pages.table[0].free_map[0] = 1;
    pages.table[0].prev = 5000;
    expect(alloc_of(7, PAGE_NONE), SHD_CORRUPT);
    pages.table[0].prev = 0;
    pages.table[0].next = 5000;
    expect(alloc_of(7, PAGE_NONE), SHD_CORRUPT);
    pages.table[2].prev = 0;
    slab->partial[0] = 2;
    expect(free_of(1, first_of_page[2]), SHD_CORRUPT);
    pages.table[1].info |= 0xff00;
    expect(free_of(1, first_of_page[1]), SHD_CORRUPT);
    expect_said("more free cells than cells");

    root = slab->expiry_root;
    slab->expiry_root = UINT32_MAX;
    ck_assert_uint_eq(slab_expiry_first(&pages, slab, &expires), PAGE_NONE);
    begin(&t);
    expect(slab_expiry_set(&pages, slab, &t, 3, 5), SHD_CORRUPT);
    txn_abort(&t);
    expect(free_of(1, first_of_page[3]), SHD_CORRUPT);
    /* A node that is no page of the table. */
    slab->expiry_root = BENCH_HEADS_AT / 16 + 16;
    ck_assert_uint_eq(slab_expiry_first(&pages, slab, &expires), PAGE_NONE);
    slab->expiry_root = root;
}
END_TEST

START_TEST(a_page_twice_in_the_tree_of_expiries_is_corrupt)
{
    struct txn t;

    start_to_damage();
    /* It says that it is out of the tree, and hangs there at 100 still. The
     * bound it is given is the one it has there. */
    pages.table[3].info &= ~PAGE_IN_TREE;
    pages.table[3].expiry = 99;
    begin(&t);
    expect(slab_expiry_set(&pages, slab, &t, 3, 100), SHD_CORRUPT);
    expect_said("twice in the tree");
    txn_abort(&t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("slab");
    TCase *c = tcase_create("slab");

    tcase_set_timeout(c, 120);
    tcase_add_test(c, each_size_gets_the_smallest_class_that_holds_it);
    tcase_add_loop_test(
        c, cells_fill_their_page_without_overlap_and_the_page_goes_back, 0,
        SLAB_CLASSES);
    tcase_add_test(c, random_changes_agree_with_a_naive_model);
    tcase_add_test(c, a_page_to_avoid_is_avoided);
    tcase_add_test(c, an_aborted_change_leaves_everything_as_it_was);
    tcase_add_test(c, freeing_twice_is_corrupt);
    tcase_add_test(c, freeing_what_is_no_cell_of_the_shard_is_corrupt);
    tcase_add_test(c, without_a_free_page_there_is_no_memory);
    tcase_add_test(c, cells_in_use_are_met_once_each);
    tcase_add_test(c, the_earliest_page_to_expire_comes_first);
    tcase_add_test(c, a_page_that_goes_back_leaves_the_tree_of_expiries);
    suite_add_tcase(s, c);

    c = tcase_create("damage");
    tcase_add_test(c, check_names_a_size_class_that_is_none);
    tcase_add_test(c, check_names_a_free_cell_past_the_end_of_its_page);
    tcase_add_test(c, check_names_a_cell_that_is_free_and_in_use);
    tcase_add_test(c, check_names_a_count_of_free_cells_that_is_wrong);
    tcase_add_test(c, check_names_an_empty_page_that_is_still_owned);
    tcase_add_test(c,
                   check_names_a_page_that_is_wrongly_in_the_tree_of_expiries);
    tcase_add_test(c, check_names_a_broken_list_of_free_cells);
    tcase_add_test(c, check_names_a_page_with_free_cells_that_no_list_has);
    tcase_add_test(c, check_names_counts_of_the_shard_that_are_wrong);
    tcase_add_test(c, check_names_a_page_that_the_tree_of_expiries_lacks);
    tcase_add_test(c, check_names_a_bound_out_of_the_trees_order);
    tcase_add_test(c, damage_is_corrupt_to_those_who_meet_it);
    tcase_add_test(c, a_page_twice_in_the_tree_of_expiries_is_corrupt);
    suite_add_tcase(s, c);
    return run_suite(s);
}
