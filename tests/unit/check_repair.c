/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite repair: what is damaged is named, repaired, and nothing that was not
 * hit is lost or comes back from the dead. */
#include "tests/unit/fixture.h"

#include "shm/dict/check.h"

static struct shd_repair done;
static char text[8192];
static unsigned char long_key[3000];

static int repair(void)
{
    int rc;

    memset(&done, 0, sizeof(done));
    done.struct_size = sizeof(done);
    rc = shd_segment_repair(segment, &done, text, sizeof(text));
    if (rc != SHD_OK)
        fprintf(stderr, "%s", text);
    return rc;
}

/* It is damaged; then repaired, and the report tells `what`. */
#define expect_repaired(what)                                                 \
    do {                                                                      \
        char why_[256] = "";                                                  \
        ck_assert_int_eq(shd_segment_check(segment, why_, sizeof(why_)),      \
                         SHD_CORRUPT);                                        \
        expect(repair(), SHD_OK);                                             \
        ck_assert_msg(strstr(text, (what)) != NULL, "'%s' does not tell '%s'",\
                      text, (what));                                          \
        sound();                                                              \
    } while (0)

static void fill(void)
{
    pattern(long_key, sizeof(long_key), 3);
    expect(set("inline", 20, 1), SHD_OK);
    expect(set_ttl("expires", 1000000), SHD_OK);
    expect(set("chain", 10000, 2), SHD_OK);
    expect(shd_set(dict, long_key, 2000, "value", 5, 0), SHD_OK);
    expect(push(0, "list", 10, 3), SHD_OK);
    expect(push(0, "list", 9000, 4), SHD_OK);
    expect(push(0, "list", 11, 5), SHD_OK);
    expect(set_number("number", 1), SHD_OK);
    expect(store(SHD_SET, "flags", 30, 7, 0, 77, NULL), SHD_OK);
    sound();
}

static void start_filled(void)
{
    start(1 << 20);
    fill();
}

/* All that fill() stored but what is in `lost`. */
static void all_but(const char *lost)
{
    struct shd_value v;

    if (strcmp(lost, "inline") != 0)
        holds("inline", 20, 1);
    if (strcmp(lost, "expires") != 0) {
        int64_t ttl;

        expect(shd_ttl(dict, "expires", 7, &ttl), SHD_OK);
        ck_assert_int_gt(ttl, 900000);
    }
    if (strcmp(lost, "chain") != 0)
        holds("chain", 10000, 2);
    expect(shd_get(dict, long_key, 2000, bytes_out, VALUE_MAX, &v), SHD_OK);
    if (strcmp(lost, "number") != 0)
        holds_number("number", 1);
    expect(get("flags", &v), SHD_OK);
    ck_assert_int_eq(v.flags, 77);
    if (strcmp(lost, "list") != 0) {
        ck_assert_uint_eq(llen("list"), 3);
        pops(1, "list", 10, 3);
        pops(1, "list", 9000, 4);
        pops(1, "list", 11, 5);
    }
    sound();
}

static struct page *page_of(uint32_t ref)
{
    return &inner->pages.table[pages_number(&inner->pages,
                                            (uint64_t)ref * 16)];
}

START_TEST(of_what_is_sound_nothing_is_done)
{
    start_filled();
    expect(repair(), SHD_OK);
    ck_assert_str_eq(text, "");
    ck_assert_uint_eq(done.rebuilt + done.reset + done.bounds, 0);
    all_but("");
}
END_TEST

START_TEST(a_lost_root_is_found_again)
{
    start_filled();
    roots_now()[root_number("inline")] = 0;
    expect_repaired("rebuilt from its cells: 7 entries kept, 0 lost");
    ck_assert_uint_eq(done.rebuilt, 1);
    ck_assert_uint_eq(done.entries_kept, 7);
    all_but("");
}
END_TEST

START_TEST(all_roots_lost_are_found_again)
{
    start_filled();
    memset(roots_now(), 0, sizeof(uint32_t) * roots_count());
    expect_repaired("7 entries kept, 0 lost");
    all_but("");
}
END_TEST

START_TEST(a_shard_head_of_noise_is_made_anew)
{
    start_filled();
    pattern((unsigned char *)inner->shard, 140, 99);
    expect_repaired("7 entries kept");
    all_but("");
}
END_TEST

START_TEST(links_of_the_lru_list_keep_their_order)
{
    shd_keys *keys;
    size_t len;

    start_filled();
    entry_of("chain")->cell.word[LIST_NEXT] = 12345;
    expect_repaired("7 entries kept, 0 lost");
    expect(shd_keys_get(dict, 1, &keys), SHD_OK);
    ck_assert_mem_eq(shd_keys_at(keys, 0, &len), "inline", 6);
    shd_keys_free(keys);
    all_but("");
}
END_TEST

START_TEST(a_key_that_changed_is_lost)
{
    start_filled();
    *(unsigned char *)(entry_of("inline") + 1) ^= 1;
    expect_repaired("6 entries kept, 1 lost");
    ck_assert_uint_eq(done.entries_lost, 1);
    expect(del("inline"), SHD_NOTFOUND);
    all_but("inline");
}
END_TEST

START_TEST(a_long_keys_hash_costs_nothing)
{
    start_filled();
    *entry_long_hash(entry_at(&inner->pages, ref_of_bytes(long_key, 2000))) ^=
        1ull << 63;
    expect_repaired("7 entries kept, 0 lost");
    all_but("");
    expect(shd_delete(dict, long_key, 2000), SHD_OK);
    sound();
}
END_TEST

START_TEST(a_broken_chain_loses_its_entry_by_name)
{
    uint32_t *chain;

    start_filled();
    chain = entry_chain(&inner->pages, &entry_of("chain")->cell);
    *chain += 256;
    expect_repaired("lost \"chain\"");
    all_but("chain");
}
END_TEST

START_TEST(a_list_is_cut_where_it_breaks)
{
    struct entry_list *l;
    struct cell *first;

    start_filled();
    l = entry_list(&inner->pages, &entry_of("list")->cell);
    first = cell_of(l->first);
    first->word[CHAIN_NEXT] = 77;
    expect_repaired("2 elements of lists lost");
    ck_assert_uint_eq(done.elements_lost, 2);
    ck_assert_uint_eq(llen("list"), 1);
    all_but("list");
}
END_TEST

START_TEST(a_wrong_count_of_a_list_costs_nothing)
{
    start_filled();
    entry_list(&inner->pages, &entry_of("list")->cell)->count = 1u << 30;
    expect_repaired("0 elements of lists lost");
    all_but("");
}
END_TEST

START_TEST(a_page_descriptor_of_noise_is_made_anew)
{
    start_filled();
    pattern((unsigned char *)page_of(ref_of("inline")), sizeof(struct page),
            9);
    expect_repaired("");
    all_but("");
}
END_TEST

START_TEST(a_free_map_of_zeroes_and_of_ones)
{
    start_filled();
    memset(page_of(ref_of("inline"))->free_map, 0, 16);
    expect_repaired("0 lost");
    memset(page_of(ref_of("inline"))->free_map, 0xff, 16);
    expect_repaired("0 lost");
    all_but("");
}
END_TEST

START_TEST(the_tree_of_expiries_is_made_anew)
{
    start_filled();
    inner->shard->slab.expiry_root = 1;
    expect_repaired("0 lost");
    inner->shard->slab.expiry_root = 0;
    expect_repaired("0 lost");
    all_but("");
}
END_TEST

START_TEST(what_was_deleted_does_not_come_back)
{
    uint32_t ref;

    start_filled();
    /* On the garbage, and its head is lost. */
    ref = ref_of("list");
    expect(guard_lock(inner->env, dict_guard(inner, 0)), SHD_OK);
    struct tree_path path;
    struct place at;
    struct txn t;

    expect(forest_path_of(inner, 0, ref, &at, &path), 1);
    txn_begin(&t, inner->env->segment, dict_guard(inner, 0),
              ROOM_REMOVE_WORDS);
    expect(room_remove(inner, 0, &t, &at, &path, ROOM_DELETED), SHD_OK);
    txn_commit(&t);
    guard_unlock(dict_guard(inner, 0));
    ck_assert_uint_eq(inner->shard->garbage, ref);
    inner->shard->garbage = 3;
    expect_repaired("6 entries kept");
    ck_assert_uint_eq(llen("list"), 0);
    all_but("list");
}
END_TEST

START_TEST(a_damaged_log_is_not_replayed)
{
    struct guard *g;

    start_filled();
    g = dict_guard(inner, 0);
    dying_worker({
        expect(guard_lock(inner->env, g), SHD_OK);
        struct txn t;

        txn_begin(&t, inner->env->segment, g, 4);
        txn_store64(&t, &inner->shard->entries, 12);
        g->undo[0].old = 99; /* and something scribbles over the log */
    });
    expect(set("other", 3, 1), SHD_CORRUPT);
    expect_repaired("rebuilt from its cells: 7 entries kept");
    expect(set("other", 3, 1), SHD_OK);
    all_but("");
}
END_TEST

START_TEST(a_log_that_can_be_believed_is_rolled_back)
{
    struct guard *g;

    start_filled();
    g = dict_guard(inner, 0);
    dying_worker({
        expect(guard_lock(inner->env, g), SHD_OK);
        struct txn t;

        txn_begin(&t, inner->env->segment, g, 4);
        txn_store64(&t, &inner->shard->entries, 12);
    });
    expect(repair(), SHD_OK);
    ck_assert_uint_eq(done.rolled_back, 1);
    ck_assert_uint_eq(done.rebuilt, 0);
    sound();
    all_but("");
}
END_TEST

START_TEST(a_lock_that_names_nobody_is_freed)
{
    start_filled();
    /* No thread has that number. */
    dict_guard(inner, 0)->lock = 0x3ffffffe;
    expect(repair(), SHD_OK);
    expect(set("other", 3, 1), SHD_OK);
    sound();
    all_but("");
}
END_TEST

START_TEST(a_lock_that_says_it_is_anothers_is_the_dicts_again)
{
    uint64_t object;

    start_filled();
    object = dict_guard(inner, 0)->object;
    dict_guard(inner, 0)->object = 7777;
    expect(set("other", 3, 1), SHD_GONE);
    expect(repair(), SHD_OK);
    ck_assert_uint_eq(dict_guard(inner, 0)->object, object);
    all_but("");
}
END_TEST

START_TEST(bounds_of_pages_that_cannot_be_are_set)
{
    start_filled();
    inner->header->bounds.limit = 1u << 30;
    expect_repaired("the limit of its pages cannot be");
    pages_set_committed(&inner->pages, 1);
    expect_repaired("have memory");
    inner->header->capacity_bytes = 1;
    expect_repaired("capacity");
    all_but("");
}
END_TEST

/* Of several shards only those that are hit are rebuilt. */
START_TEST(a_page_finds_its_shard_again)
{
    static char key[16];
    struct page *p;
    uint32_t was;

    start_named(NULL, 4 << 20, 4, 0);
    for (int i = 0; i < 2000; i++) {
        snprintf(key, sizeof(key), "key %d", i);
        expect(set(key, 40, (unsigned)i), SHD_OK);
    }
    sound();
    for (uint32_t bad = 0; bad < 7; bad++) {
        p = page_of(ref_of("key 5"));
        was = p->owner;
        if (bad == was)
            continue;
        p->owner = bad == 6 ? 0xdeadbeef : bad;
        expect_repaired("went back to shard");
        ck_assert_uint_eq(p->owner, was);
        ck_assert_uint_eq(done.entries_lost, 0);
        ck_assert_uint_eq(done.rebuilt + done.reset, 0);
    }
    for (int i = 0; i < 2000; i++) {
        snprintf(key, sizeof(key), "key %d", i);
        holds(key, 40, (unsigned)i);
    }
}
END_TEST

START_TEST(a_damaged_header_is_beyond_repair)
{
    start_filled();
    inner->header->roots_at = 3;
    ck_assert_int_eq(repair(), SHD_CORRUPT);
    ck_assert_ptr_nonnull(strstr(text, "it can only be removed"));
    expect(shd_dict_destroy(segment, "d"), SHD_OK);
    sound();
}
END_TEST

/* ---- noise ------------------------------------------------------------ */

#define KEYS 400

static void name(char *key, unsigned i)
{
    snprintf(key, 32, "key number %u", i);
}

static void fill_many(unsigned seed)
{
    char key[32];

    start_named(NULL, 2 << 20, 2, 0);
    random_state ^= seed * 0x2545f4914f6cdd1dull;
    for (unsigned i = 0; i < KEYS; i++) {
        name(key, i);
        if (i % 7 == 3) {
            for (unsigned n = 0; n < 1 + i % 5; n++)
                expect(push(0, key, 30, i), SHD_OK);
        } else {
            expect(store(SHD_SET, key, i % 31 == 0 ? 9000 : 10 + i, i,
                         i % 3 == 0 ? 1000000 : 0, (int32_t)(i % 2), NULL),
                   SHD_OK);
        }
    }
    for (unsigned i = 0; i < KEYS; i += 5) {
        name(key, i);
        expect(del(key), SHD_OK);
    }
}

/* Right, or gone; never another value, never what was deleted. */
static unsigned judge(bool bytes_too)
{
    char key[32];
    unsigned n = 0;

    for (unsigned i = 0; i < KEYS; i++) {
        struct shd_value v;
        int rc;

        name(key, i);
        rc = get(key, &v);
        if (rc == SHD_NOTFOUND)
            continue;
        ck_assert_uint_ne(i % 5, 0);
        n++;
        if (i % 7 == 3 || !bytes_too)
            continue;
        expect(rc, SHD_OK);
        holds(key, i % 31 == 0 ? 9000 : 10 + i, i);
    }
    return n;
}

/* Still a dict: all can be stored and taken away. */
static void usable(void)
{
    char key[32];

    for (unsigned i = 0; i < KEYS; i++) {
        name(key, i);
        expect(set(key, 100 + i, i), SHD_OK);
        holds(key, 100 + i, i);
    }
    sound();
    for (unsigned i = 0; i < KEYS; i++) {
        name(key, i);
        expect(del(key), SHD_OK);
    }
    sound();
}

/* Scribbles over `words` words from..to of the segment. */
static void scribble(const void *from, const void *to, unsigned words)
{
    uint64_t *p = (uint64_t *)(uintptr_t)from;
    uint64_t n = (uint64_t)((const uint64_t *)to - p);

    for (unsigned i = 0; i < words; i++) {
        uint64_t *at = &p[random_next() % n];

        switch (random_below(4)) {
        case 0:
            *at = 0;
            break;
        case 1:
            *at ^= 1ull << random_below(64);
            break;
        case 2:
            *at = p[random_next() % n];
            break;
        default:
            *at = random_next() << 20 ^ random_next();
        }
    }
}

START_TEST(noise_in_the_index_costs_no_wrong_value)
{
    fill_many((unsigned)_i);
    scribble(inner->shard, inner->pages.table + 300, 1u << _i % 8);
    expect(repair(), SHD_OK);
    sound();
    judge(true);
    usable();
}
END_TEST

START_TEST(noise_in_the_pages_leaves_a_sound_dict)
{
    unsigned char *first;

    fill_many((unsigned)_i + 100);
    first = inner->env->segment->base + inner->pages.at;
    scribble(first, first + 200 * PAGE_BYTES, 1u << _i % 10);
    expect(repair(), SHD_OK);
    sound();
    judge(false);
    usable();
}
END_TEST

START_TEST(a_repair_that_is_killed_is_done_again)
{
    unsigned before;

    fill_many(1);
    before = judge(true);
    for (unsigned delay = 0; delay < 40; delay++) {
        pid_t pid;

        memset(roots_now(), 0, sizeof(uint32_t) * roots_count() / 2);
        inner->shard[0].slab.expiry_root = 1;
        pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0)
            _exit(repair() == SHD_OK ? 0 : 1);
        usleep(delay * 50);
        kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        expect(repair(), SHD_OK);
        sound();
        ck_assert_uint_eq(judge(true), before);
    }
    usable();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("repair");
    TCase *tests = tcase_create("repair");

    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, of_what_is_sound_nothing_is_done);
    tcase_add_test(tests, a_lost_root_is_found_again);
    tcase_add_test(tests, all_roots_lost_are_found_again);
    tcase_add_test(tests, a_shard_head_of_noise_is_made_anew);
    tcase_add_test(tests, links_of_the_lru_list_keep_their_order);
    tcase_add_test(tests, a_key_that_changed_is_lost);
    tcase_add_test(tests, a_long_keys_hash_costs_nothing);
    tcase_add_test(tests, a_broken_chain_loses_its_entry_by_name);
    tcase_add_test(tests, a_list_is_cut_where_it_breaks);
    tcase_add_test(tests, a_wrong_count_of_a_list_costs_nothing);
    tcase_add_test(tests, a_page_descriptor_of_noise_is_made_anew);
    tcase_add_test(tests, a_free_map_of_zeroes_and_of_ones);
    tcase_add_test(tests, the_tree_of_expiries_is_made_anew);
    tcase_add_test(tests, what_was_deleted_does_not_come_back);
    tcase_add_test(tests, a_damaged_log_is_not_replayed);
    tcase_add_test(tests, a_log_that_can_be_believed_is_rolled_back);
    tcase_add_test(tests, a_lock_that_names_nobody_is_freed);
    tcase_add_test(tests,
                   a_lock_that_says_it_is_anothers_is_the_dicts_again);
    tcase_add_test(tests, bounds_of_pages_that_cannot_be_are_set);
    tcase_add_test(tests, a_page_finds_its_shard_again);
    tcase_add_test(tests, a_damaged_header_is_beyond_repair);
    tcase_add_loop_test(tests, noise_in_the_index_costs_no_wrong_value, 0, 40);
    tcase_add_loop_test(tests, noise_in_the_pages_leaves_a_sound_dict, 0, 40);
    tcase_add_test(tests, a_repair_that_is_killed_is_done_again);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
