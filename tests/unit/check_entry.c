/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite entry: the shapes of entries and nodes, their order, and that no
 * length in them is believed. */
#include "tests/unit/fixture.h"

static unsigned char key[65536], value[65536];

static struct item shaped(size_t key_len, uint32_t type, size_t len,
                          int32_t flags)
{
    struct item item = {.key = key,
                        .key_len = key_len,
                        .type = type,
                        .value = value,
                        .len = len,
                        .flags = flags};

    expect(item_shape(inner, &item), SHD_OK);
    return item;
}

START_TEST(an_item_takes_the_smallest_cell_that_holds_it)
{
    static const struct {
        size_t key_len;
        uint32_t type;
        size_t len;
        int32_t flags;
        uint32_t bytes; /* of the cell */
        uint64_t chain; /* bytes in it */
    } shapes[] = {
        {1, SHD_NUMBER, 0, 0, 48, 0},
        {8, SHD_BOOLEAN, 0, 0, 48, 0},
        {8, SHD_NUMBER, 0, 1, 64, 0},
        {1, SHD_STRING, 0, 0, 48, 0},
        {1, SHD_STRING, 8, 0, 48, 0},
        {1, SHD_STRING, 9, 0, 64, 0},
        {1, SHD_STRING, 24, 0, 64, 0},
        {1, SHD_STRING, 24, 1, 80, 0},
        {9, SHD_STRING, 24, 0, 80, 0},
        {1, SHD_LIST, 0, 0, 64, 0},
        {1, SHD_STRING, 472, 0, 512, 0},
        {1, SHD_STRING, 632, 0, 672, 0},
        {1, SHD_STRING, 633, 0, 672, 9},
        {1, SHD_STRING, 680, 0, 448, 280},
        {1, SHD_STRING, 776, 0, 816, 0},
        {1, SHD_STRING, 4056, 0, 4096, 0},
        {1, SHD_STRING, 4057, 0, 64, 4049},
        {1, SHD_STRING, 4048, 1, 4096, 0},
        {1, SHD_STRING, 4049, 1, 64, 4041},
        {1, SHD_STRING, 4096, 0, 80, 4072},
        {1, SHD_STRING, 8112, 0, 4096, 4072},
        {1, SHD_STRING, 8113, 0, 48, 8113},
        {1024, SHD_STRING, 3040, 0, 4096, 0},
        {1024, SHD_STRING, 3041, 0, 1360, 3033},
        {1025, SHD_NUMBER, 0, 0, 64, 1032},
        {1025, SHD_STRING, 0, 0, 48, 1032},
        {1025, SHD_STRING, 1, 0, 48, 1033},
        {1025, SHD_STRING, 10, 5, 64, 1042},
        {1032, SHD_LIST, 0, 0, 64, 1032},
        {65535, SHD_STRING, 100, 0, 48, 65636},
    };

    start(1 << 20);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct item item = shaped(shapes[i].key_len, shapes[i].type,
                                  shapes[i].len, shapes[i].flags);

        ck_assert_msg(slab_class_bytes(item.class) == shapes[i].bytes,
                      "shape %zu takes a cell of %u bytes, not %u", i,
                      slab_class_bytes(item.class), shapes[i].bytes);
        ck_assert_msg(chain_source_len(&item.chain) == shapes[i].chain,
                      "shape %zu has a chain of %llu bytes", i,
                      (unsigned long long)chain_source_len(&item.chain));
        ck_assert(item.has_chain == (shapes[i].chain > 0));
        ck_assert(((item.meta & CELL_FLAGS) != 0) == (shapes[i].flags != 0));
    }
}
END_TEST

START_TEST(a_node_takes_the_smallest_cell_that_holds_it)
{
    static const struct {
        uint32_t type;
        size_t len;
        uint32_t bytes;
        uint64_t chain;
    } shapes[] = {{SHD_NUMBER, 0, 48, 0},      {SHD_STRING, 0, 48, 0},
                  {SHD_STRING, 24, 48, 0},     {SHD_STRING, 25, 64, 0},
                  {SHD_STRING, 4072, 4096, 0}, {SHD_STRING, 4073, 48, 4073}};

    start(1 << 20);
    for (size_t i = 0; i < 6; i++) {
        struct item item = {
            .type = shapes[i].type, .value = value, .len = shapes[i].len};

        expect(item_shape_node(inner, &item), SHD_OK);
        ck_assert_uint_eq(slab_class_bytes(item.class), shapes[i].bytes);
        ck_assert_uint_eq(chain_source_len(&item.chain), shapes[i].chain);
    }
}
END_TEST

START_TEST(what_needs_more_pages_than_there_are_is_too_big)
{
    struct item item = {.key = key, .key_len = 1, .type = SHD_STRING,
                        .value = value};
    uint64_t pages;

    start(65536);
    pages = pages_count(&inner->pages);
    item.len = (pages - 1) * CHAIN_DATA_MAX;
    expect(item_shape(inner, &item), SHD_OK);
    expect(item_shape_node(inner, &item), SHD_OK);
    item.len++;
    expect(item_shape(inner, &item), SHD_TOOBIG);
    expect(item_shape_node(inner, &item), SHD_TOOBIG);
    expect_said("pages of 4096 bytes, the dict 'd' has");
    item.len = UINT32_MAX + 1ull;
    expect(item_shape(inner, &item), SHD_TOOBIG);
    ck_assert_uint_eq(dict_value_max(inner, 1), (pages - 1) * CHAIN_DATA_MAX);
    ck_assert_uint_eq(dict_value_max(inner, 2000),
                      (pages - 1) * CHAIN_DATA_MAX - 2000);
    ck_assert_uint_eq(dict_value_max(inner, 65535), 0);
}
END_TEST

START_TEST(what_dict_value_max_says_can_be_stored_and_no_more)
{
    static const size_t key_lengths[] = {1, 8, 9, 1024, 1025, 4000};
    size_t n = key_lengths[_i % 6];
    uint64_t max;

    start(_i < 6 ? 8192 : 32768);
    max = dict_value_max(inner, n);
    if (max > 0) {
        expect(shd_set(dict, key, n, bytes_in, max, 0), SHD_OK);
        sound();
    }
    expect(shd_set(dict, key, n, bytes_in, max + 1, 0), SHD_TOOBIG);
}
END_TEST

/* ---- order ------------------------------------------------------------ */

START_TEST(entries_are_ordered_by_hash_then_length_then_bytes)
{
    struct entry *e;
    uint32_t hash;

    start(1 << 20);
    expect(set("abc", 3, 1), SHD_OK);
    e = entry_of("abc");
    hash = e->cell.meta >> CELL_HASH_SHIFT;
    ck_assert_int_eq(entry_order(inner, hash, "abc", 3, e), 0);
    ck_assert_int_gt(entry_order(inner, hash + 1, "abc", 3, e), 0);
    ck_assert_int_lt(entry_order(inner, hash - 1, "abc", 3, e), 0);
    ck_assert_int_lt(entry_order(inner, hash, "zz", 2, e), 0);
    ck_assert_int_gt(entry_order(inner, hash, "aaaa", 4, e), 0);
    ck_assert_int_ne(entry_order(inner, hash, "abd", 3, e), 0);
    ck_assert_int_ne(entry_order(inner, hash, "abb", 3, e), 0);
    ck_assert_int_ne(entry_order(inner, hash, "abd", 3, e) > 0,
                     entry_order(inner, hash, "abb", 3, e) > 0);
}
END_TEST

/* ---- lengths that cannot be ------------------------------------------- */

START_TEST(a_key_that_crosses_its_page_is_corrupt)
{
    struct entry *e;
    uint64_t was;

    start(1 << 20);
    expect(set("k", 5, 1), SHD_OK);
    /* Beside the end of its page an inline key cannot be long. */
    for (int i = 0; i < 84; i++) {
        char name[16];

        snprintf(name, sizeof(name), "k%d", i);
        expect(set(name, 5, 1), SHD_OK);
        if (cell_room(&inner->pages, entry_of(name)) < 100)
            memcpy(key, name, sizeof(name));
    }
    e = entry_of((const char *)key);
    ck_assert_uint_lt(cell_room(&inner->pages, e), 100);
    was = e->key_expires;
    e->key_expires = (was & ENTRY_EXPIRES_MASK) | 1000ull << 48;
    expect(entry_key(inner, e, 1000, value), SHD_CORRUPT);
    ck_assert_int_eq(entry_order(inner,
                                 e->cell.meta >> CELL_HASH_SHIFT, key, 1000,
                                 e),
                     ENTRY_CORRUPT);
    struct shd_value v;
    expect(entry_describe(inner, &e->cell, &v), SHD_CORRUPT);
    ck_assert_ptr_null(entry_list(&inner->pages, &e->cell));
    ck_assert_ptr_null(entry_chain(&inner->pages, &e->cell));
    e->cell.meta |= CELL_CHAINED;
    expect(entry_value(inner, &e->cell, value, 100, false, &v), SHD_CORRUPT);
    /* A long one is in a chain, which is not there. */
    e->key_expires = (was & ENTRY_EXPIRES_MASK) | 1025ull << 48;
    expect(entry_key(inner, e, 1025, value), SHD_CORRUPT);
    ck_assert_int_eq(entry_order(inner,
                                 e->cell.meta >> CELL_HASH_SHIFT, key, 1025,
                                 e),
                     ENTRY_CORRUPT);
}
END_TEST

START_TEST(a_list_or_a_number_at_the_end_of_its_page_is_corrupt)
{
    struct cell *c;
    struct shd_value v;
    char name[16];

    start(1 << 20);
    /* The last 48-byte cell of a page ends 16 bytes before it. */
    for (int i = 0; i < 85; i++) {
        snprintf(name, sizeof(name), "k%d", i);
        expect(set_number(name, 1), SHD_OK);
    }
    c = &entry_of(name)->cell;
    ck_assert_uint_eq(cell_room(&inner->pages, c), 64);
    c->meta = (c->meta & ~CELL_TYPE_MASK) | SHD_LIST;
    expect(entry_describe(inner, c, &v), SHD_OK);
    c->meta |= CELL_FLAGS;
    expect(entry_describe(inner, c, &v), SHD_OK);
    /* Nine bytes of key more, and it would not fit. */
    ((struct entry *)(void *)c)->key_expires = 17ull << 48;
    expect(entry_describe(inner, c, &v), SHD_CORRUPT);
    ck_assert_ptr_null(entry_list(&inner->pages, c));
    c->meta = (c->meta & ~CELL_TYPE_MASK) | SHD_NUMBER;
    expect(entry_describe(inner, c, &v), SHD_CORRUPT);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("entry");
    TCase *c = tcase_create("entry");

    tcase_add_test(c, an_item_takes_the_smallest_cell_that_holds_it);
    tcase_add_test(c, a_node_takes_the_smallest_cell_that_holds_it);
    tcase_add_test(c, what_needs_more_pages_than_there_are_is_too_big);
    tcase_add_loop_test(
        c, what_dict_value_max_says_can_be_stored_and_no_more, 0, 12);
    tcase_add_test(c, entries_are_ordered_by_hash_then_length_then_bytes);
    tcase_add_test(c, a_key_that_crosses_its_page_is_corrupt);
    tcase_add_test(c, a_list_or_a_number_at_the_end_of_its_page_is_corrupt);
    suite_add_tcase(s, c);
    return run_suite(s);
}
