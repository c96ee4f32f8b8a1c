/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite dict check: what dict/check.c finds when one thing in a dict has been
 * damaged, and that it finds nothing wrong in what dead workers leave. */
#include "tests/unit/fixture.h"

static struct shard *shard;
static unsigned char long_key[3000];

/* One of each: an inline string, one that expires, a chain, a long key, a
 * list with a chained element, a list under a long key, a number. */
static void start_to_damage(void)
{
    start(1 << 20);
    shard = inner->shard;
    pattern(long_key, sizeof(long_key), 3);
    expect(set("inline", 20, 1), SHD_OK);
    expect(set_ttl("expires", 1000000), SHD_OK);
    expect(set("chain", 10000, 2), SHD_OK);
    expect(shd_set(dict, long_key, 2000, "value", 5, 0), SHD_OK);
    expect(push(0, "list", 10, 3), SHD_OK);
    expect(push(0, "list", 9000, 4), SHD_OK);
    expect(shd_push(dict, 0, "list", 4, SHD_NUMBER, NULL, 0, 7, NULL), SHD_OK);
    expect(shd_push(dict, 0, long_key, 3000, SHD_STRING, "e", 1, 0, NULL),
           SHD_OK);
    expect(set_number("number", 1), SHD_OK);
    sound();
}

static struct entry_list *list_of(const char *key)
{
    struct entry_list *l = entry_list(&inner->pages, &entry_of(key)->cell);

    ck_assert_ptr_nonnull(l);
    return l;
}

static struct page *page_of(uint32_t ref)
{
    return &inner->pages
                .table[pages_number(&inner->pages, (uint64_t)ref * 16)];
}

/* A cell next to one in use, in its page, that is free. */
static uint32_t free_cell_beside(uint32_t ref)
{
    struct page *p = page_of(ref);
    uint32_t bytes = slab_class_bytes(page_class(p));
    uint32_t bit;

    ck_assert_uint_ne(p->free_map[0], 0);
    bit = (uint32_t)__builtin_ctzll(p->free_map[0]);
    return (uint32_t)((inner->pages.at +
                       (uint64_t)(p - inner->pages.table) * PAGE_BYTES +
                       bit * bytes) /
                      16);
}

START_TEST(names_a_tree_that_leads_to_a_free_cell)
{
    start_to_damage();
    ck_assert_uint_eq(roots_now()[root_number("inline")], ref_of("inline"));
    roots_now()[root_number("inline")] = free_cell_beside(ref_of("inline"));
    expect_check_names("a tree names no cell in use");
}
END_TEST

START_TEST(names_a_tree_that_leads_outside)
{
    start_to_damage();
    roots_now()[root_number("inline")] = UINT32_MAX;
    expect_check_names("tree");
    roots_now()[root_number("inline")] = 1; /* the segment's header */
    expect_check_names("tree");
}
END_TEST

START_TEST(names_an_entry_that_is_under_no_root)
{
    start_to_damage();
    roots_now()[root_number("inline")] = 0;
    expect_check_names("counts 7 entries and its trees hold 6");
}
END_TEST

START_TEST(names_a_key_under_the_wrong_root)
{
    uint32_t ref;

    start_to_damage();
    ref = ref_of("inline");
    roots_now()[root_number("inline")] = 0;
    for (uint32_t i = 0;; i++) {
        if (roots_now()[i] == 0 && i != root_number("inline")) {
            roots_now()[i] = ref;
            break;
        }
    }
    expect_check_names("a key is under the wrong root");
}
END_TEST

START_TEST(names_a_hash_that_is_not_the_keys)
{
    start_to_damage();
    entry_of("inline")->cell.meta ^= 1u << 20;
    expect_check_names("a key is under the wrong root");
}
END_TEST

START_TEST(names_a_key_that_has_changed)
{
    start_to_damage();
    *(unsigned char *)(entry_of("inline") + 1) ^= 1;
    expect_check_names("a key is under the wrong root");
}
END_TEST

START_TEST(names_an_entry_of_another_kind_or_type)
{
    struct entry *e;

    start_to_damage();
    e = entry_of("inline");
    e->cell.meta |= CELL_NODE << CELL_KIND_SHIFT;
    expect_check_names("a tree names what is no entry");
    e->cell.meta &= ~(3u << CELL_KIND_SHIFT);
    e->cell.meta |= CELL_TYPE_MASK;
    expect_check_names("a tree names what is no entry");
    e->cell.meta &= ~CELL_TYPE_MASK;
    expect_check_names("a tree names what is no entry");
}
END_TEST

START_TEST(names_an_entry_without_a_key)
{
    struct entry *e;

    start_to_damage();
    e = entry_of("inline");
    e->key_expires &= ENTRY_EXPIRES_MASK;
    expect_check_names("a tree names what is no entry");
}
END_TEST

START_TEST(names_a_value_longer_than_its_cell)
{
    start_to_damage();
    entry_of("inline")->cell.len = 25;
    expect_check_names("a value is longer than its cell");
    entry_of("inline")->cell.len = UINT32_MAX;
    expect_check_names("a value is longer than its cell");
}
END_TEST

START_TEST(names_a_number_in_a_cell_too_short)
{
    start_to_damage();
    /* Flags that are not there move the value past the cell. */
    entry_of("number")->cell.meta |= CELL_FLAGS;
    expect_check_names("a value is longer than its cell");
}
END_TEST

START_TEST(names_an_expiry_before_its_pages_bound)
{
    struct entry *e;

    start_to_damage();
    e = entry_of("expires");
    e->key_expires -= 1;
    expect_check_names("a page's bound is later than an expiry in it");
    e->key_expires += 1;
    sound();
    entry_of("chain")->key_expires += 5; /* in a page without a bound */
    expect_check_names("a page's bound is later than an expiry in it");
}
END_TEST

START_TEST(names_a_chain_that_is_broken)
{
    struct cell *c, *head;
    uint32_t *word;

    start_to_damage();
    c = &entry_of("chain")->cell;
    word = entry_chain(&inner->pages, c);
    head = cell_of(*word);
    c->len--;
    expect_check_names("chain");
    c->len++;
    head->word[CHAIN_OF]++;
    expect_check_names("has a wrong link back");
    head->word[CHAIN_OF]--;
    *word = 0;
    expect_check_names("leads to no cell in use");
}
END_TEST

START_TEST(names_a_long_keys_chain_that_is_broken)
{
    struct entry *e;

    start_to_damage();
    e = entry_at(&inner->pages, ref_of_bytes(long_key, 2000));
    cell_of(*(uint32_t *)(e + 1))->word[CHAIN_BACK] = 1;
    expect_check_names("has a wrong link back");
    cell_of(*(uint32_t *)(e + 1))->word[CHAIN_BACK] = 0;
    *(uint32_t *)(e + 1) = UINT32_MAX;
    expect_check_names("a tree names what is no entry");
}
END_TEST

START_TEST(names_a_long_keys_hash_that_is_anothers)
{
    start_to_damage();
    *entry_long_hash(entry_at(&inner->pages, ref_of_bytes(long_key, 2000))) ^=
        1ull << 63;
    expect_check_names("a long key's hash is another's");
}
END_TEST

START_TEST(names_a_list_whose_count_is_wrong)
{
    start_to_damage();
    list_of("list")->count = 4;
    expect_check_names("a list's count or end is wrong");
    list_of("list")->count = 2;
    expect_check_names("a list is longer than its count");
    list_of("list")->count = 0;
    expect_check_names("a list is empty");
}
END_TEST

START_TEST(names_a_list_whose_ends_are_wrong)
{
    struct entry_list *l;

    start_to_damage();
    l = list_of("list");
    l->last = l->first;
    expect_check_names("a list's count or end is wrong");
    l = list_of("list");
    l->first = UINT32_MAX;
    expect_check_names("a list names no cell in use");
    l->first = ref_of("inline");
    expect_check_names("a list names what is no node");
}
END_TEST

START_TEST(names_list_links_that_do_not_mirror)
{
    struct cell *n;

    start_to_damage();
    n = cell_of(list_of("list")->first);
    n->word[CHAIN_BACK] = list_of("list")->last;
    expect_check_names("a list's links do not mirror");
    n->word[CHAIN_BACK] = ref_of("list");
    sound();
    n->word[CHAIN_NEXT] = list_of("list")->last; /* leaves one out */
    expect_check_names("a list's links do not mirror");
    n->word[CHAIN_NEXT] = 0;
    expect_check_names("a list names no cell in use");
}
END_TEST

START_TEST(names_a_node_that_is_none)
{
    struct cell *n;

    start_to_damage();
    n = cell_of(list_of("list")->last); /* a number */
    n->meta = (n->meta & ~CELL_TYPE_MASK) | SHD_LIST;
    expect_check_names("a list names what is no node");
    n->meta = (n->meta & ~CELL_TYPE_MASK) | SHD_BOOLEAN;
    expect_check_names("a list names what is no node");
    n->meta = (n->meta & ~CELL_TYPE_MASK) | SHD_NUMBER;
    sound();
    n = cell_of(list_of("list")->first); /* 10 bytes */
    n->len = 25;
    expect_check_names("a node's value is longer than its cell");
}
END_TEST

START_TEST(names_an_elements_chain_that_is_broken)
{
    struct cell *n;

    start_to_damage();
    n = cell_of(cell_of(list_of("list")->first)->word[CHAIN_NEXT]);
    ck_assert_uint_ne(n->meta & CELL_CHAINED, 0);
    n->len++;
    expect_check_names("chain");
}
END_TEST

START_TEST(names_the_chain_of_a_value_that_begins_in_its_cell)
{
    struct entry *e;
    uint32_t *word, was;

    start_to_damage();
    expect(set("split", 1700, 5), SHD_OK);
    holds("split", 1700, 5);
    e = entry_of("split");
    ck_assert_uint_ne(e->cell.meta & CELL_CHAINED, 0);
    word = entry_chain(&inner->pages, &e->cell);
    ck_assert_ptr_nonnull(word);
    was = word[1];
    ck_assert_uint_gt(was, 0);
    word[1] = 1701;
    expect_check_names("a value's chain begins past its end");
    word[1] = UINT32_MAX;
    expect_check_names("a value's chain begins past its end");
    word[1] = was - 8;
    expect_check_names("chain");
    word[1] = was;
    sound();
}
END_TEST

START_TEST(names_the_lru_list)
{
    start_to_damage();
    cell_of(shard->lru.first)->word[LIST_PREV] = shard->lru.last;
    expect_check_names("list: broken at cell");
    cell_of(shard->lru.first)->word[LIST_PREV] = 0;
    shard->entries++;
    expect_check_names("list: ends at");
}
END_TEST

START_TEST(names_a_cell_that_has_leaked)
{
    struct txn t;
    uint32_t ref;

    start_to_damage();
    expect(dict_lock(inner, 0), SHD_OK);
    txn_begin(&t, &segment->segment, dict_guard(inner, 0), 20);
    expect(slab_alloc(&inner->pages, &shard->slab, &t, 1,
                      page_class(page_of(ref_of("inline"))), PAGE_NONE, &ref),
           SHD_OK);
    txn_commit(&t);
    dict_unlock(inner, 0);
    expect_check_names("cells are handed out and");
}
END_TEST

START_TEST(names_a_page_that_has_leaked)
{
    start_to_damage();
    inner->pages.map[1] &= ~2ull;
    expect_check_names("page 65 has owner 0 and is not free in the map");
}
END_TEST

START_TEST(names_an_owned_page_that_is_free_in_the_map)
{
    start_to_damage();
    inner->pages.map[0] |= 1;
    expect_check_names("page 0 has owner 1 and is free in the map");
}
END_TEST

START_TEST(names_a_page_of_no_shard)
{
    start_to_damage();
    inner->pages.table[100].owner = 2;
    expect_check_names("page 100 has owner 2");
}
END_TEST

START_TEST(names_a_page_whose_count_is_wrong)
{
    start_to_damage();
    page_of(ref_of("inline"))->info += 1 << 8;
    expect_check_names("counts its free cells wrongly");
}
END_TEST

START_TEST(names_garbage_that_leads_nowhere)
{
    start_to_damage();
    shard->garbage = UINT32_MAX;
    expect_check_names("the garbage names no cell in use");
    shard->garbage = free_cell_beside(ref_of("inline"));
    expect_check_names("the garbage names no cell in use");
    shard->garbage = 0;
    shard->pending[1] = UINT32_MAX;
    expect_check_names("what is being built is no cell in use");
}
END_TEST

START_TEST(names_what_is_garbage_and_in_use)
{
    start_to_damage();
    shard->garbage = ref_of("number");
    expect_check_names("cells are handed out and");
    /* A list, a chain: with all they own. */
    shard->garbage = ref_of("list");
    expect_check_names("cells are handed out and");
    shard->garbage = ref_of_bytes(long_key, 3000);
    expect_check_names("cells are handed out and");
    /* A chain's number is no link to more garbage. */
    shard->garbage = *entry_chain(&inner->pages, &entry_of("chain")->cell);
    expect_check_names("the garbage names no cell in use");
}
END_TEST

START_TEST(garbage_in_a_cycle_does_not_hang_it)
{
    uint32_t head, ref;

    start_to_damage();
    head = *entry_chain(&inner->pages, &entry_of("chain")->cell);
    /* Its number leads back to it, were it a link. */
    for (ref = head; ref != 0; ref = cell_of(ref)->word[CHAIN_NEXT])
        cell_of(ref)->word[CHAIN_NUMBER] = head;
    sound();
    shard->garbage = head;
    expect_check_names("cells are handed out and");
}
END_TEST

START_TEST(names_a_guard_that_is_not_at_rest)
{
    struct guard *g;

    start_to_damage();
    g = dict_guard(inner, 0);
    g->damaged = 1;
    expect_check_names("guard: its log was found damaged");
    g->damaged = 0;
    g->state = 3;
    expect_check_names("guard: its log is not empty");
}
END_TEST

START_TEST(names_a_header_that_is_damaged)
{
    struct dict_header *h;
    struct catalogue_object o;

    start_to_damage();
    expect(catalogue_find(&segment->env, "d", &o), SHD_OK);
    h = segment_at(&segment->segment, o.extent_at, sizeof(*h));
    h->generation++;
    expect_check_names("its header is damaged");
    h->generation--;
    h->shards = 3;
    expect_check_names("its header is damaged");
    h->shards = 1;
    h->order_bits = 61;
    expect_check_names("its header is damaged");
    h->order_bits = 60;
    expect_check_names("its parts lie outside it");
    h->order_bits = inner->order_bits;
    h->grain_min = 7;
    expect_check_names("its header is damaged");
    h->grain_min = h->grain_first + 1;
    expect_check_names("its header is damaged");
    h->grain_min = inner->grain_min;
    h->grain_first = 25;
    expect_check_names("its header is damaged");
    h->grain_first = inner->grain_first;
    h->capacity_first = 0;
    expect_check_names("its header is damaged");
    h->capacity_first = 1 << 20;
    h->arrays_at = 8;
    expect_check_names("its parts lie outside it");
    h->arrays_at = segment_offset(&segment->segment,
                                  inner->roots[GRAIN_MAX]);
    h->pages_max += 1 << 20;
    expect_check_names("its parts lie outside it");
    h->pages_max -= 1 << 20;
    h->roots_at = UINT64_MAX - 7;
    expect_check_names("its parts lie outside it");
    h->roots_at = segment_offset(&segment->segment, roots_now());
    sound();
}
END_TEST

/* ---- dead workers ----------------------------------------------------- */

/* In a child: holds the lock and dies after some steps of a chain. */
static void build_some_of_a_chain(int slot, int steps)
{
    struct chain_source s = {.second = bytes_in, .second_len = 50000};
    const struct chain_site site = {.pages = &inner->pages,
                                    .slab = &shard->slab,
                                    .guard = dict_guard(inner, 0),
                                    .owner = 1,
                                    .pending = &shard->pending[slot],
                                    .built = &shard->chains};
    uint64_t left = s.second_len;

    if (handle_writer(segment) != SHD_OK || dict_lock(inner, 0) != SHD_OK)
        _exit(1);
    for (int i = 0; i < steps; i++) {
        if (chain_build_step(&site, chain_class(left), &left) != SHD_OK)
            _exit(1);
    }
}

START_TEST(a_worker_killed_with_a_chain_half_built_leaves_garbage)
{
    start_to_damage();
    for (int slot = 0; slot < 2; slot++) {
        uint64_t before = info().cells_bytes;

        dying_worker(build_some_of_a_chain(slot, 5));
        ck_assert_uint_ne(shard->pending[slot], 0);
        ck_assert_uint_gt(info().cells_bytes, before);
        sound();
        expect(set("inline", 20, 9), SHD_OK);
        ck_assert_uint_eq(shard->pending[slot], 0);
        ck_assert_uint_eq(shard->garbage, 0);
        ck_assert_uint_eq(info().cells_bytes, before);
        sound();
    }
    ck_assert_uint_eq(info().recoveries, 2);
    holds("chain", 10000, 2);
}
END_TEST

static void die_inside_a_transaction(void)
{
    struct place at = dict_place(inner, "list", 4);
    struct tree_path path;
    struct txn t;

    if (handle_writer(segment) != SHD_OK || dict_lock(inner, 0) != SHD_OK ||
        forest_path(inner, &at, "list", 4, &path) != 1)
        _exit(1);
    txn_begin(&t, &segment->segment, dict_guard(inner, 0), GUARD_UNDO_MAX);
    if (room_remove(inner, 0, &t, &at, &path, ROOM_DELETED) != SHD_OK)
        _exit(1);
}

START_TEST(a_worker_killed_inside_a_transaction_has_done_nothing)
{
    start_to_damage();
    dying_worker(die_inside_a_transaction());
    ck_assert_uint_eq(llen("list"), 3);
    sound();
    ck_assert_uint_eq(info().recoveries, 1);
    ck_assert_uint_eq(info().entries, 7);
    pops(1, "list", 10, 3);
}
END_TEST

static void die_with_garbage(const void *key, size_t len, int collect)
{
    struct place at = dict_place(inner, key, len);
    struct tree_path path;
    struct txn t;

    if (handle_writer(segment) != SHD_OK || dict_lock(inner, 0) != SHD_OK ||
        forest_path(inner, &at, key, len, &path) != 1)
        _exit(1);
    txn_begin(&t, &segment->segment, dict_guard(inner, 0), GUARD_UNDO_MAX);
    if (room_remove(inner, 0, &t, &at, &path, ROOM_DELETED) != SHD_OK)
        _exit(1);
    txn_commit(&t);
    while (collect-- > 0) {
        if (room_collect(inner, 0) != 1)
            _exit(1);
    }
}

START_TEST(what_a_dead_worker_has_removed_is_freed_by_the_next)
{
    start_to_damage();
    for (int i = 0; i < 300; i++)
        expect(push(1, "list", 30, 1), SHD_OK);
    expect(set("long chain", 900000 / 2, 1), SHD_OK);
    dying_worker(die_with_garbage("list", 4, 1));
    ck_assert_uint_ne(shard->garbage, 0);
    sound();
    ck_assert_uint_eq(llen("list"), 0);
    expect(del("missing"), SHD_NOTFOUND);
    ck_assert_uint_eq(shard->garbage, 0);
    sound();
    dying_worker(die_with_garbage("long chain", 10, 1));
    dying_worker(die_with_garbage("chain", 5, 0));
    dying_worker(die_with_garbage(long_key, 3000, 0));
    dying_worker(die_with_garbage(long_key, 2000, 0));
    ck_assert_uint_ne(shard->garbage, 0);
    sound();
    expect(del("inline"), SHD_OK);
    ck_assert_uint_eq(shard->garbage, 0);
    expect(del("number"), SHD_OK);
    expect(del("expires"), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(damaged_garbage_is_corrupt_to_who_collects_it)
{
    struct entry_list *l;
    uint32_t *word;
    uint32_t ref;

    start_to_damage();
    shard->garbage = UINT32_MAX;
    /* What was asked for is done all the same. */
    expect(set("inline", 20, 1), SHD_OK);
    expect(room_collect(inner, 0), SHD_CORRUPT);
    expect_said("the garbage leads outside");
    shard->garbage = ref = ref_of("list");
    l = list_of("list");
    word = &l->first;
    *word = UINT32_MAX;
    expect(room_collect(inner, 0), SHD_CORRUPT);
    expect_said("a list leads outside");
    shard->garbage = ref_of("chain");
    word = entry_chain(&inner->pages, &entry_of("chain")->cell);
    ref = *word;
    *word = UINT32_MAX;
    expect(room_collect(inner, 0), SHD_CORRUPT);
    expect_said("a chain leads outside");
    *word = ref;
    shard->garbage = ref;
    cell_of(ref)->word[CHAIN_NEXT] = UINT32_MAX;
    expect(room_collect(inner, 0), SHD_CORRUPT);
    expect_said("a chain leads outside");
    shard->garbage = 0;
    shard->pending[0] = UINT32_MAX;
    expect(del("missing"), SHD_CORRUPT);
    expect_said("what was being built leads outside");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("dict check");
    TCase *c = tcase_create("damage");

    tcase_add_test(c, names_a_tree_that_leads_to_a_free_cell);
    tcase_add_test(c, names_a_tree_that_leads_outside);
    tcase_add_test(c, names_an_entry_that_is_under_no_root);
    tcase_add_test(c, names_a_key_under_the_wrong_root);
    tcase_add_test(c, names_a_hash_that_is_not_the_keys);
    tcase_add_test(c, names_a_key_that_has_changed);
    tcase_add_test(c, names_an_entry_of_another_kind_or_type);
    tcase_add_test(c, names_an_entry_without_a_key);
    tcase_add_test(c, names_a_value_longer_than_its_cell);
    tcase_add_test(c, names_a_number_in_a_cell_too_short);
    tcase_add_test(c, names_an_expiry_before_its_pages_bound);
    tcase_add_test(c, names_a_chain_that_is_broken);
    tcase_add_test(c, names_a_long_keys_chain_that_is_broken);
    tcase_add_test(c, names_a_long_keys_hash_that_is_anothers);
    tcase_add_test(c, names_a_list_whose_count_is_wrong);
    tcase_add_test(c, names_a_list_whose_ends_are_wrong);
    tcase_add_test(c, names_list_links_that_do_not_mirror);
    tcase_add_test(c, names_a_node_that_is_none);
    tcase_add_test(c, names_an_elements_chain_that_is_broken);
    tcase_add_test(c, names_the_chain_of_a_value_that_begins_in_its_cell);
    tcase_add_test(c, names_the_lru_list);
    tcase_add_test(c, names_a_cell_that_has_leaked);
    tcase_add_test(c, names_a_page_that_has_leaked);
    tcase_add_test(c, names_an_owned_page_that_is_free_in_the_map);
    tcase_add_test(c, names_a_page_of_no_shard);
    tcase_add_test(c, names_a_page_whose_count_is_wrong);
    tcase_add_test(c, names_garbage_that_leads_nowhere);
    tcase_add_test(c, names_what_is_garbage_and_in_use);
    tcase_add_test(c, garbage_in_a_cycle_does_not_hang_it);
    tcase_add_test(c, names_a_guard_that_is_not_at_rest);
    tcase_add_test(c, names_a_header_that_is_damaged);
    tcase_add_test(c, damaged_garbage_is_corrupt_to_who_collects_it);
    suite_add_tcase(s, c);

    c = tcase_create("dead workers");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, a_worker_killed_with_a_chain_half_built_leaves_garbage);
    tcase_add_test(c, a_worker_killed_inside_a_transaction_has_done_nothing);
    tcase_add_test(c, what_a_dead_worker_has_removed_is_freed_by_the_next);
    suite_add_tcase(s, c);
    return run_suite(s);
}
