/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite slab: memory/slab.c against a list of what has been handed out. Each
 * cell is filled to its last byte with its own number, and looked at before
 * it is freed: two cells that overlap are seen.
 */
#include "shm/memory/cell.h"
#include "tests/unit/arena.h"

#define CELLS_MAX 20000u

static struct {
    uint32_t ref, bytes;
} held[CELLS_MAX];
static uint32_t held_count;
static uint64_t held_bytes;

static void start(uint32_t pages)
{
    arena_start(pages);
    held_count = 0;
    held_bytes = 0;
}

static unsigned char *bytes_of(uint32_t ref)
{
    return arena_segment.base + (uint64_t)ref * SEGMENT_UNIT;
}

static int try_alloc(uint32_t class, uint32_t *ref)
{
    struct txn t;
    int rc = slab_prepare(&arena_pages, &arena->slab, class);

    if (rc != SHD_OK)
        return rc;
    arena_begin(&t, SLAB_ALLOC_WORDS);
    rc = slab_alloc(&arena_pages, &arena->slab, &t, ARENA_OWNER, class,
                    PAGE_NONE, ref);
    if (rc == SHD_OK)
        txn_commit(&t);
    else
        txn_abort(&t);
    return rc;
}

static bool alloc(uint32_t class)
{
    uint32_t ref, bytes = slab_class_bytes(class);
    int rc = try_alloc(class, &ref);

    ck_assert(rc == SHD_OK || rc == SHD_NOMEM);
    if (rc != SHD_OK)
        return false;
    ck_assert_uint_lt(held_count, CELLS_MAX);
    ck_assert_uint_eq(slab_cell_bytes(&arena_pages, ARENA_OWNER, ref), bytes);
    for (uint32_t i = 0; i < bytes; i += 4)
        memcpy(bytes_of(ref) + i, &ref, 4);
    held[held_count].ref = ref;
    held[held_count++].bytes = bytes;
    held_bytes += bytes;
    return true;
}

static int try_free(struct slab *s, uint32_t owner, uint32_t ref)
{
    struct txn t;
    int rc;

    /* The log asserts that no more is stored. */
    arena_begin(&t, slab_frees_briefly(&arena_pages, owner, ref)
                        ? SLAB_FREE_BRIEF_WORDS
                        : SLAB_FREE_WORDS);
    rc = slab_free(&arena_pages, s, &t, owner, ref);
    if (rc == SHD_OK)
        txn_commit(&t);
    else
        txn_abort(&t);
    return rc;
}

static void free_held(uint32_t i)
{
    uint32_t ref = held[i].ref;

    for (uint32_t k = 0; k < held[i].bytes; k += 4) {
        if (memcmp(bytes_of(ref) + k, &ref, 4) != 0)
            ck_abort_msg("cell %u was written to by another", ref);
    }
    ck_assert_int_eq(try_free(&arena->slab, ARENA_OWNER, ref), SHD_OK);
    held_bytes -= held[i].bytes;
    held[i] = held[--held_count];
}

static int check(char *report, size_t size)
{
    uint64_t cells;

    return slab_check(&arena_pages, &arena->slab, ARENA_OWNER, &cells, report,
                      size);
}

static void expect_sound(void)
{
    uint64_t cells = 0;

    arena_expect_sound(slab_check(&arena_pages, &arena->slab, ARENA_OWNER,
                                  &cells, report, sizeof(report)));
    ck_assert_uint_eq(cells, held_count);
    ck_assert_uint_eq(arena->slab.bytes, held_bytes);
    arena_expect_sound(
        pages_check(&arena_pages, ARENA_OWNER, ARENA_OWNER + 1, report,
                    sizeof(report)));
}

START_TEST(a_class_is_the_smallest_that_holds_the_bytes)
{
    for (uint64_t n = 0; n <= SLAB_CELL_MAX; n++) {
        uint32_t c = slab_class(n);

        ck_assert_uint_lt(c, SLAB_CLASSES);
        ck_assert_uint_ge(slab_class_bytes(c), n);
        if (c > 0)
            ck_assert_uint_lt(slab_class_bytes(c - 1), n);
        ck_assert_uint_eq(slab_class_bytes(c) % SEGMENT_UNIT, 0);
    }
    ck_assert_uint_eq(slab_class(SLAB_CELL_MAX + 1), SLAB_CLASSES);
    ck_assert_uint_eq(slab_class(UINT64_MAX), SLAB_CLASSES);
    ck_assert_uint_eq(slab_class_bytes(0), SLAB_CELL_MIN);
}
END_TEST

START_TEST(random_cells_never_overlap_and_all_come_back)
{
    uint32_t fill = 50;

    start(100);
    for (uint32_t i = 0; i < 40000; i++) {
        if (i % 3000 == 0)
            fill = 25 + arena_random(60);
        if (arena_random(100) < fill)
            (void)alloc(arena_random(SLAB_CLASSES));
        else if (held_count > 0)
            free_held(arena_random(held_count));
        if (i % 500 == 0)
            expect_sound();
    }
    while (held_count > 0)
        free_held(held_count - 1);
    expect_sound();
    ck_assert_uint_eq(arena->slab.pages, 0);
    ck_assert_uint_eq(pages_free(&arena_pages), 100);
    arena_stop();
}
END_TEST

START_TEST(every_class_fills_all_pages_and_gives_them_back)
{
    uint32_t cells = PAGE_BYTES / slab_class_bytes((uint32_t)_i);

    start(70);
    while (alloc((uint32_t)_i))
        ;
    ck_assert_uint_eq(held_count, cells * 70);
    expect_sound();
    for (uint32_t i = 0; i < SLAB_CLASSES; i++)
        ck_assert(!alloc(i));
    while (held_count > 0)
        free_held(arena_random(held_count));
    expect_sound();
    ck_assert_uint_eq(pages_free(&arena_pages), 70);
    arena_stop();
}
END_TEST

START_TEST(an_aborted_change_leaves_every_byte_as_it_was)
{
    uint32_t ref;
    struct txn t;

    start(40);
    for (uint32_t i = 0; i < 1500; i++) {
        uint32_t class = arena_random(SLAB_CLASSES);
        bool by_recovery = i % 2 == 0;
        int rc;

        if (held_count < 200 || arena_random(2) == 0)
            (void)alloc(class);
        else
            free_held(arena_random(held_count));
        if (i % 5 != 0 || held_count == 0 ||
            slab_prepare(&arena_pages, &arena->slab, class) != SHD_OK)
            continue;
        arena_remember();
        arena_begin(&t, SLAB_FREE_WORDS + SLAB_ALLOC_WORDS);
        rc = slab_free(&arena_pages, &arena->slab, &t, ARENA_OWNER,
                       held[arena_random(held_count)].ref);
        ck_assert_int_eq(rc, SHD_OK);
        rc = slab_alloc(&arena_pages, &arena->slab, &t, ARENA_OWNER, class,
                        PAGE_NONE, &ref);
        ck_assert_int_eq(rc, SHD_OK);
        if (by_recovery)
            ck_assert_int_eq(txn_recover(&arena_segment, arena_guard),
                             SHD_OK);
        else
            txn_abort(&t);
        arena_expect_remembered();
    }
    expect_sound();
    arena_stop();
}
END_TEST

START_TEST(freeing_what_is_no_cell_in_use_is_corrupt)
{
    uint32_t ref;

    start(40);
    ck_assert_int_eq(try_alloc(3, &ref), SHD_OK);
    ck_assert_int_eq(try_alloc(3, &ref), SHD_OK);
    arena_remember();
    ck_assert_int_eq(try_free(&arena->slab, ARENA_OWNER, ref + 1),
                     SHD_CORRUPT); /* inside a cell */
    ck_assert_int_eq(try_free(&arena->slab, ARENA_OWNER, ref + 7),
                     SHD_CORRUPT); /* the next, which is free */
    ck_assert_int_eq(try_free(&arena->slab, ARENA_OWNER, ref + 256),
                     SHD_CORRUPT); /* a page that is nobody's */
    ck_assert_int_eq(try_free(&arena->slab, ARENA_OWNER, 0), SHD_CORRUPT);
    ck_assert_int_eq(try_free(&arena->slab, ARENA_OWNER, UINT32_MAX),
                     SHD_CORRUPT);
    ck_assert_int_eq(try_free(&arena->other, ARENA_OWNER - 1, ref),
                     SHD_CORRUPT); /* another shard's */
    arena_expect_remembered();
    ck_assert_int_eq(try_free(&arena->slab, ARENA_OWNER, ref), SHD_OK);
    ck_assert_int_eq(try_free(&arena->slab, ARENA_OWNER, ref), SHD_CORRUPT);
    ck_assert_uint_eq(slab_cell_bytes(&arena_pages, ARENA_OWNER, ref), 0);
    arena_stop();
}
END_TEST

START_TEST(the_end_of_a_page_that_holds_no_whole_cell_is_no_cell)
{
    uint32_t ref, class = slab_class(304), end;

    start(4);
    ck_assert_int_eq(try_alloc(class, &ref), SHD_OK);
    end = PAGE_BYTES / 304 * 304 / SEGMENT_UNIT;
    ck_assert_uint_lt(end * SEGMENT_UNIT, PAGE_BYTES);
    ck_assert_uint_eq(slab_cell_bytes(&arena_pages, ARENA_OWNER, ref), 304);
    ck_assert_uint_eq(slab_cell_bytes(&arena_pages, ARENA_OWNER, ref + end),
                      0);
    arena_stop();
}
END_TEST

START_TEST(a_page_to_be_avoided_gives_no_cell)
{
    uint32_t first, ref, page;
    struct txn t;

    start(40);
    ck_assert_int_eq(try_alloc(5, &first), SHD_OK);
    page = pages_number(&arena_pages, (uint64_t)first * SEGMENT_UNIT);
    ck_assert(slab_has_free(&arena_pages, &arena->slab, 5, PAGE_NONE));
    ck_assert(!slab_has_free(&arena_pages, &arena->slab, 5, page));
    arena_begin(&t, SLAB_ALLOC_WORDS);
    ck_assert_int_eq(slab_alloc(&arena_pages, &arena->slab, &t, ARENA_OWNER,
                                5, page, &ref),
                     SHD_OK);
    txn_commit(&t);
    ck_assert_uint_ne(
        pages_number(&arena_pages, (uint64_t)ref * SEGMENT_UNIT), page);
    ck_assert(slab_has_free(&arena_pages, &arena->slab, 5, page));
    arena_stop();
}
END_TEST

START_TEST(walking_a_page_gives_each_cell_in_use_once)
{
    uint32_t at = 0, ref, seen = 0;

    start(4);
    for (uint32_t i = 0; i < 60; i++)
        ck_assert(alloc(1));
    for (uint32_t i = 0; i < 30; i++)
        free_held(arena_random(held_count));
    while ((ref = slab_next_used(&arena_pages, 0, &at)) != 0) {
        uint32_t i = 0;

        while (i < held_count && held[i].ref != ref)
            i++;
        ck_assert_uint_lt(i, held_count);
        seen++;
    }
    ck_assert_uint_eq(seen, held_count);
    arena_stop();
}
END_TEST

/* ---- expiry ----------------------------------------------------------- */

START_TEST(the_page_that_expires_first_comes_first)
{
    uint64_t bound[60] = {0}, got;
    struct txn t;

    start(60);
    for (uint32_t n = 0; n < 60; n++)
        ck_assert(alloc(SLAB_CLASSES - 1)); /* a page each */
    for (uint32_t i = 0; i < 5000; i++) {
        uint32_t n = arena_random(60), first;
        uint64_t ms = arena_random(8) == 0
                          ? 0
                          : 1 + arena_random(i % 2 == 0 ? 50 : 5000);
        uint64_t least = 0;
        int rc;

        arena_begin(&t, SLAB_EXPIRY_WORDS);
        if (arena_random(2) == 0) {
            rc = slab_expiry_set(&arena_pages, &arena->slab, &t, n, ms);
            bound[n] = ms;
        } else {
            rc = slab_expiry_lower(&arena_pages, &arena->slab, &t, n, ms);
            if (ms != 0 && (bound[n] == 0 || ms < bound[n]))
                bound[n] = ms;
        }
        ck_assert_int_eq(rc, SHD_OK);
        txn_commit(&t);
        ck_assert_uint_eq(arena_pages.table[n].expiry & PAGE_EXPIRY_MASK,
                          bound[n]);
        for (uint32_t k = 0; k < 60; k++) {
            if (bound[k] != 0 && (least == 0 || bound[k] < least))
                least = bound[k];
        }
        first = slab_expiry_first(&arena_pages, &arena->slab, &got);
        if (least == 0) {
            ck_assert_uint_eq(first, PAGE_NONE);
        } else {
            ck_assert_uint_eq(got, least);
            ck_assert_uint_eq(bound[first], least);
        }
        if (i % 50 == 0)
            expect_sound();
    }
    while (held_count > 0) /* out of the tree with their last cell */
        free_held(held_count - 1);
    ck_assert_uint_eq(arena->slab.expiry_root, 0);
    expect_sound();
    arena_stop();
}
END_TEST

/* ---- damage ----------------------------------------------------------- */

static struct page *page_of(uint32_t i)
{
    return &arena_pages.table[pages_number(
        &arena_pages, (uint64_t)held[i].ref * SEGMENT_UNIT)];
}

START_TEST(check_names_what_is_damaged)
{
    struct page *page, *other;
    struct txn t;

    start(40);
    ck_assert(alloc(2));
    ck_assert(alloc(2));
    ck_assert(alloc(9));
    page = page_of(0);
    other = page_of(2);
    arena_begin(&t, SLAB_EXPIRY_WORDS);
    ck_assert_int_eq(
        slab_expiry_set(&arena_pages, &arena->slab, &t, 0, 500), SHD_OK);
    txn_commit(&t);
    expect_sound();
    arena_remember();

#define DAMAGE(change, name)                                                  \
    change;                                                                   \
    arena_expect_named(check(report, sizeof(report)), name);                  \
    arena_restore()

    DAMAGE(page->info = (page->info & ~0xffu) | SLAB_CLASSES,
           "page 0 has no such size class");
    DAMAGE(page->free_map[1] |= 1ull << 63,
           "page 0 has a free cell past its end");
    DAMAGE(page->free_map[0] ^= 4, "page 0 counts its free cells wrongly");
    DAMAGE(page->info += 1u << 8, "page 0 counts its free cells wrongly");
    DAMAGE(page->free_map[0] |= 3; page->info += 2u << 8,
           "page 0 is empty and has not gone back");
    DAMAGE(page->expiry &= ~PAGE_EXPIRY_MASK,
           "page 0 is wrongly in or out of the tree");
    DAMAGE(other->info |= PAGE_IN_TREE,
           "page 1 is wrongly in or out of the tree");
    DAMAGE(other->prev = 5, "class 9 is broken at page 1");
    DAMAGE(other->next = 1, "class 9 is broken at page 0");
    DAMAGE(arena->slab.partial[9] = 1000, "class 9 is broken at page 999");
    DAMAGE(arena->slab.partial[9] = 0, "1 of 2 pages with free cells");
    DAMAGE(arena->slab.soonest = 501, "nothing does before 501");
    DAMAGE(arena->slab.soonest = 0, "nothing does before 0");
    DAMAGE(page->info |= PAGE_RED, "the root is red");
    DAMAGE(arena->slab.bytes += 16, "shard counts 2 pages and");
    DAMAGE(arena->slab.pages++, "shard counts 3 pages and");
    expect_sound();
    arena_stop();
}
END_TEST

START_TEST(allocating_from_a_damaged_list_is_corrupt)
{
    uint32_t ref;

    start(40);
    ck_assert(alloc(2));
    arena_remember();
    arena->slab.partial[2] = 1000;
    ck_assert_int_eq(try_alloc(2, &ref), SHD_CORRUPT);
    arena_restore();
    page_of(0)->owner = 3;
    ck_assert_int_eq(try_alloc(2, &ref), SHD_CORRUPT);
    arena_restore();
    page_of(0)->free_map[0] = 0;
    page_of(0)->free_map[1] = 0;
    ck_assert_int_eq(try_alloc(2, &ref), SHD_CORRUPT);
    arena_restore();
    page_of(0)->free_map[0] = 0;
    page_of(0)->free_map[1] = 1ull << 63;
    ck_assert_int_eq(try_alloc(2, &ref), SHD_CORRUPT);
    arena_restore();
    expect_sound();
    arena_stop();
}
END_TEST

static int leave(uint32_t page, bool leaving)
{
    struct txn t;
    int rc;

    arena_begin(&t, SLAB_LEAVE_WORDS);
    rc = slab_leave(&arena_pages, &arena->slab, &t, page, leaving);
    if (rc == SHD_OK)
        txn_commit(&t);
    else
        txn_abort(&t);
    return rc;
}

static uint32_t held_page(uint32_t i)
{
    return cell_page(&arena_pages, held[i].ref);
}

START_TEST(a_page_that_leaves_hands_out_nothing_and_can_come_back)
{
    uint32_t class = slab_class(368), cells = 4096 / 368;

    start(6);
    for (uint32_t i = 0; i < 2 * cells - 3; i++)
        ck_assert(alloc(class));
    ck_assert_uint_eq(held_page(0), 0);
    ck_assert_uint_eq(held_page(cells), 1);
    /* One with free cells, and one without. */
    ck_assert_int_eq(leave(1, true), SHD_OK);
    ck_assert_int_eq(leave(0, true), SHD_OK);
    ck_assert_int_eq(leave(0, true), SHD_OK);
    expect_sound();
    ck_assert(alloc(class));
    ck_assert_uint_eq(held_page(held_count - 1), 2);
    /* What is freed in them is not given out again. */
    free_held(3);
    expect_sound();
    for (uint32_t i = 0; i < cells - 1; i++)
        ck_assert(alloc(class));
    ck_assert(alloc(class));
    ck_assert_uint_eq(held_page(held_count - 1), 3);
    expect_sound();
    ck_assert_int_eq(leave(0, false), SHD_OK);
    ck_assert_int_eq(leave(1, false), SHD_OK);
    expect_sound();
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert(alloc(class));
        ck_assert_uint_le(held_page(held_count - 1), 1);
    }
    ck_assert_int_eq(leave(0, true), SHD_OK);
    ck_assert_int_eq(leave(1, true), SHD_OK);
    while (held_count > 0)
        free_held(0);
    expect_sound();
    /* Emptied, they went back as others do, and forgot that they left. */
    ck_assert_uint_eq(pages_free(&arena_pages), 6);
    ck_assert(alloc(class));
    ck_assert_uint_eq(arena_pages.table[0].info & PAGE_LEAVING, 0);
    arena_pages.table[0].info |= 0xff;
    ck_assert_int_eq(leave(0, true), SHD_CORRUPT);
    arena_stop();
}
END_TEST

START_TEST(a_page_that_leaves_and_is_listed_is_named)
{
    start(3);
    ck_assert(alloc(4));
    arena_pages.table[0].info |= PAGE_LEAVING;
    arena_expect_named(check(report, sizeof(report)),
                       "list of free cells of class 4 is broken at page 0");
    arena_stop();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("slab");
    TCase *c = tcase_create("cells");

    tcase_set_timeout(c, 120);
    tcase_add_test(c, a_class_is_the_smallest_that_holds_the_bytes);
    tcase_add_test(c, random_cells_never_overlap_and_all_come_back);
    tcase_add_loop_test(c, every_class_fills_all_pages_and_gives_them_back, 0,
                        (int)SLAB_CLASSES);
    tcase_add_test(c, an_aborted_change_leaves_every_byte_as_it_was);
    tcase_add_test(c, freeing_what_is_no_cell_in_use_is_corrupt);
    tcase_add_test(c, the_end_of_a_page_that_holds_no_whole_cell_is_no_cell);
    tcase_add_test(c, a_page_to_be_avoided_gives_no_cell);
    tcase_add_test(c, a_page_that_leaves_hands_out_nothing_and_can_come_back);
    tcase_add_test(c, walking_a_page_gives_each_cell_in_use_once);
    tcase_add_test(c, the_page_that_expires_first_comes_first);
    suite_add_tcase(s, c);
    c = tcase_create("damage");
    tcase_add_test(c, check_names_what_is_damaged);
    tcase_add_test(c, a_page_that_leaves_and_is_listed_is_named);
    tcase_add_test(c, allocating_from_a_damaged_list_is_corrupt);
    suite_add_tcase(s, c);
    return arena_run(s);
}
