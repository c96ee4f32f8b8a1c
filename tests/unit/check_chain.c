/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite chain: memory/chain.c and the copying in memory/cell.c. */
#include "tests/unit/arena.h"

#include "shm/memory/chain.h"

#define VALUE_MAX 40000u

static unsigned char value[VALUE_MAX + 16], out[VALUE_MAX + 16];

static void fill_value(void)
{
    for (uint32_t i = 0; i < sizeof(value); i++)
        value[i] = (unsigned char)arena_random(256);
}

static struct chain_site chain_site(void)
{
    return (struct chain_site){.pages = &arena_pages,
                               .slab = &arena->slab,
                               .guard = arena_guard,
                               .owner = ARENA_OWNER,
                               .pending = &arena->pending,
                               .built = &arena->chains};
}

static int build(const struct chain_source *source)
{
    uint64_t left = chain_source_len(source);

    while (left > 0) {
        const struct chain_site site = chain_site();
        int rc = chain_build_step(&site, chain_class(left), &left);

        if (rc != SHD_OK)
            return rc;
    }
    const struct chain_site site = chain_site();

    return chain_fill(&site, source, 0);
}

static void build_value(uint64_t len)
{
    struct chain_source s = {
        .first = value, .first_len = len, .first_bytes = len};

    arena->pending = 0;
    ck_assert_int_eq(build(&s), SHD_OK);
}

static int check(uint64_t len, uint32_t of, char *report, size_t size)
{
    uint64_t cells = 0;

    return chain_check(&arena_pages, ARENA_OWNER, arena->pending, of, len,
                       &cells, report, size);
}

/* Frees it as a shard would: cell by cell, from the head. */
static void free_chain(void)
{
    uint32_t ref = arena->pending;
    struct txn t;

    while (ref != 0) {
        uint32_t next = arena_cell(ref)->word[CHAIN_NEXT];

        arena_begin(&t, SLAB_FREE_WORDS + 1);
        txn_store32(&t, &arena->pending, next);
        ck_assert_int_eq(
            slab_free(&arena_pages, &arena->slab, &t, ARENA_OWNER, ref),
            SHD_OK);
        txn_commit(&t);
        ref = next;
    }
}

static const uint32_t lengths[] = {
    1,    7,    8,    9,    24,   25,    4071,  4072,
    4073, 4080, 8143, 8144, 8145, 10000, 12216, 39999,
};
#define LENGTHS (int)(sizeof(lengths) / sizeof(lengths[0]))

START_TEST(a_value_of_any_length_comes_back_as_it_was)
{
    uint32_t len = lengths[_i];

    arena_start(64);
    fill_value();
    build_value(len);
    arena_expect_sound(check(len, 0, report, sizeof(report)));
    memset(out, 0xcc, sizeof(out));
    ck_assert_int_eq(chain_read(&arena_pages, arena->pending, 0, out, len),
                     SHD_OK);
    ck_assert_mem_eq(out, value, len);
    ck_assert_uint_eq(out[len], 0xcc);
    for (int i = 0; i < 2000; i++) {
        uint32_t from = arena_random(len), n = arena_random(len - from + 1);

        memset(out, 0xcc, n + 1);
        if (chain_read(&arena_pages, arena->pending, from, out, n) != SHD_OK ||
            memcmp(out, value + from, n) != 0 || out[n] != 0xcc)
            ck_abort_msg("%u bytes from %u of %u", n, from, len);
    }
    ck_assert_int_eq(chain_read(&arena_pages, arena->pending, 0, out, len + 1),
                     SHD_CORRUPT);
    free_chain();
    ck_assert_uint_eq(pages_free(&arena_pages), 64);
    arena_stop();
}
END_TEST

START_TEST(a_chain_of_one_cell_takes_one_transaction)
{
    arena_start(64);
    fill_value();
    for (uint32_t len = 1; len <= CHAIN_DATA_MAX; len += 1 + len / 8) {
        struct chain_source s = {.second = value, .second_len = len};
        const struct chain_site site = chain_site();
        uint64_t built = arena->chains;
        struct txn t;

        ck_assert_int_eq(
            slab_prepare(&arena_pages, &arena->slab, chain_class(len)),
            SHD_OK);
        arena_begin(&t, CHAIN_ONE_WORDS);
        ck_assert_int_eq(chain_build_one(&site, &t, &s, chain_class(len), 77,
                                         &arena->pending),
                         SHD_OK);
        txn_commit(&t);
        /* A number of its own: what lay there before is another chain. */
        ck_assert_uint_eq(arena->chains, built + 1);
        ck_assert_uint_eq(arena_cell(arena->pending)->word[CHAIN_NUMBER],
                          built + 1);
        arena_expect_sound(check(len, 77, report, sizeof(report)));
        ck_assert_int_eq(
            chain_read(&arena_pages, arena->pending, 0, out, len), SHD_OK);
        ck_assert_mem_eq(out, value, len);
        free_chain();
    }
    ck_assert_uint_eq(pages_free(&arena_pages), 64);
    arena_stop();
}
END_TEST

START_TEST(two_pieces_come_back_as_if_joined)
{
    arena_start(64);
    fill_value();
    for (int i = 0; i < 200; i++) {
        uint32_t first = arena_random(1500) * 8;
        uint32_t real = first < 8 ? first : first - arena_random(8);
        uint32_t second = 1 + arena_random(9000);
        struct chain_source s = {.first = value,
                                 .first_len = first,
                                 .first_bytes = real,
                                 .second = value + 20000,
                                 .second_len = second};

        arena->pending = 0;
        ck_assert_int_eq(build(&s), SHD_OK);
        arena_expect_sound(check(first + second, 0, report, sizeof(report)));
        ck_assert_int_eq(
            chain_read(&arena_pages, arena->pending, 0, out, first + second),
            SHD_OK);
        ck_assert_int_eq(memcmp(out, value, real), 0);
        ck_assert_int_eq(memcmp(out + first, value + 20000, second), 0);
        free_chain();
    }
    ck_assert_uint_eq(pages_free(&arena_pages), 64);
    arena_stop();
}
END_TEST

START_TEST(comparing_finds_the_byte_that_differs)
{
    uint32_t len = lengths[_i];

    arena_start(64);
    fill_value();
    build_value(len);
    ck_assert_int_eq(chain_compare(&arena_pages, arena->pending, value, len),
                     0);
    for (int i = 0; i < 300; i++) {
        uint32_t at = arena_random(len);
        int there, back;

        memcpy(out, value, len);
        out[at] ^= (unsigned char)(1 + arena_random(255));
        there = chain_compare(&arena_pages, arena->pending, out, len);
        ck_assert(there == 1 || there == -1);
        /* An order: the other way round it is the other one. */
        back = cell_compare(value, out, len);
        ck_assert_int_eq(there, back);
        ck_assert_int_eq(cell_compare(out, value, len), -back);
    }
    ck_assert_int_eq(
        chain_compare(&arena_pages, arena->pending, value, len + 1), 2);
    arena_stop();
}
END_TEST

START_TEST(copying_a_cell_keeps_to_its_length)
{
    static uint64_t cell[10], copy[10];

    for (uint32_t len = 0; len <= 64; len++) {
        memset(cell, 0xee, sizeof(cell));
        fill_value();
        cell_fill(cell, value, len);
        ck_assert_int_eq(memcmp(cell, value, len), 0);
        /* Up to the end of the word it may write, not beyond. */
        ck_assert_uint_eq(((unsigned char *)cell)[(len + 7) / 8 * 8], 0xee);
        memset(copy, 0xdd, sizeof(copy));
        cell_copy_out(copy, cell, len);
        ck_assert_int_eq(memcmp(copy, value, len), 0);
        ck_assert_uint_eq(((unsigned char *)copy)[len], 0xdd);
        ck_assert_int_eq(cell_compare(cell, value, len), 0);
    }
}
END_TEST

START_TEST(a_chain_that_finds_no_room_hangs_on_pending)
{
    struct chain_source s = {
        .first = value, .first_len = VALUE_MAX, .first_bytes = VALUE_MAX};
    uint64_t built;

    arena_start(4); /* 10 would be needed */
    ck_assert_uint_eq(chain_pages(VALUE_MAX), 10);
    ck_assert_int_eq(build(&s), SHD_NOMEM);
    ck_assert_uint_ne(arena->pending, 0);
    built = VALUE_MAX - (10 - 4) * (uint64_t)CHAIN_DATA_MAX;
    arena_expect_sound(check(built, 0, report, sizeof(report)));
    free_chain();
    ck_assert_uint_eq(pages_free(&arena_pages), 4);
    arena_stop();
}
END_TEST

START_TEST(a_step_cut_off_leaves_the_chain_as_it_was)
{
    uint64_t left = VALUE_MAX;
    struct chain_site site;
    struct txn t;
    uint32_t ref;

    arena_start(64);
    site = chain_site();
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(chain_build_step(&site, chain_class(left), &left),
                         SHD_OK);
    arena_remember();
    /* What the step does first, and then its process dies. */
    arena_begin(&t, SLAB_ALLOC_WORDS);
    ck_assert_int_eq(slab_alloc(&arena_pages, &arena->slab, &t, ARENA_OWNER,
                                13, PAGE_NONE, &ref),
                     SHD_OK);
    ck_assert_int_eq(txn_recover(&arena_segment, arena_guard), SHD_OK);
    arena_expect_remembered();
    free_chain();
    ck_assert_uint_eq(pages_free(&arena_pages), 64);
    arena_stop();
}
END_TEST

START_TEST(check_names_what_is_damaged)
{
    uint32_t len = 9000, second;
    struct cell *head, *next;

    arena_start(64);
    fill_value();
    build_value(len);
    head = arena_cell(arena->pending);
    second = head->word[CHAIN_NEXT];
    next = arena_cell(second);
    arena_expect_sound(check(len, 0, report, sizeof(report)));
    arena_remember();

#define DAMAGE(change, total, of, name)                                       \
    change;                                                                   \
    arena_expect_named(check(total, of, report, sizeof(report)), name);       \
    arena_restore()

    DAMAGE(head->word[CHAIN_NEXT] = UINT32_MAX, len, 0,
           "leads to no cell in use");
    DAMAGE(head->word[CHAIN_NEXT] = second + 1, len, 0,
           "leads to no cell in use");
    DAMAGE(head->len = 0, len, 0, "leads to no cell in use");
    DAMAGE(head->len = PAGE_BYTES, len, 0, "leads to no cell in use");
    DAMAGE(head->meta = SHD_STRING, len, 0, "a cell of another kind");
    DAMAGE(next->word[CHAIN_BACK] = second, len, 0, "a wrong link back");
    DAMAGE(head->word[CHAIN_BACK] = second, len, 0, "a wrong link back");
    DAMAGE(head->word[CHAIN_OF] = 5, len, 0, "a wrong link back");
    DAMAGE(next->len = 4000, len, 0, "a cell of a wrong length");
    DAMAGE((void)0, len - 1, 0, "a cell of a wrong length");
    DAMAGE((void)0, len, 77, "a wrong link back");
    DAMAGE((void)0, 2 * CHAIN_DATA_MAX, 0, "goes on past its length");
    DAMAGE(next->word[CHAIN_NEXT] = 0, len, 0, "leads to no cell in use");
    arena_expect_sound(check(len, 0, report, sizeof(report)));
    arena_stop();
}
END_TEST

START_TEST(reading_a_damaged_chain_is_corrupt_and_follows_nothing)
{
    uint32_t len = 9000;
    struct cell *head;

    arena_start(64);
    fill_value();
    build_value(len);
    head = arena_cell(arena->pending);
    arena_remember();
    head->word[CHAIN_NEXT] = UINT32_MAX;
    ck_assert_int_eq(chain_read(&arena_pages, arena->pending, 0, out, len),
                     SHD_CORRUPT);
    ck_assert_int_eq(chain_compare(&arena_pages, arena->pending, value, len),
                     2);
    arena_restore();
    head->len = UINT32_MAX;
    ck_assert_int_eq(chain_read(&arena_pages, arena->pending, 0, out, len),
                     SHD_CORRUPT);
    arena_restore();
    /* A cycle: reading ends when it has its bytes, or at the first link that
     * is none. */
    head->word[CHAIN_NEXT] = arena->pending;
    ck_assert_int_eq(chain_read(&arena_pages, arena->pending, 0, out, len),
                     SHD_OK);
    ck_assert_int_eq(chain_read(&arena_pages, 0, 0, out, 1), SHD_CORRUPT);
    arena_stop();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("chain");
    TCase *c = tcase_create("chain");

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, a_value_of_any_length_comes_back_as_it_was, 0,
                        LENGTHS);
    tcase_add_test(c, a_chain_of_one_cell_takes_one_transaction);
    tcase_add_test(c, two_pieces_come_back_as_if_joined);
    tcase_add_loop_test(c, comparing_finds_the_byte_that_differs, 0, LENGTHS);
    tcase_add_test(c, copying_a_cell_keeps_to_its_length);
    tcase_add_test(c, a_chain_that_finds_no_room_hangs_on_pending);
    tcase_add_test(c, a_step_cut_off_leaves_the_chain_as_it_was);
    tcase_add_test(c, check_names_what_is_damaged);
    tcase_add_test(c, reading_a_damaged_chain_is_corrupt_and_follows_nothing);
    suite_add_tcase(s, c);
    return arena_run(s);
}
