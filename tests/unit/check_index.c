/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite index: dict/index.c, and that nobody notices it: while entries are
 * under two arrays of roots everything works as ever.
 * valgrind: no (a minute of it; asan sees the same) */
#include "tests/unit/fixture.h"

#include "shm/dict/index.h"
#include "shm/dict/resize.h"

#include <unistd.h>

#define MIB (1ull << 20)
#define KEYS 600u

/* Entries in the tree of each root: the most, and of how many. */
static uint32_t tallest(void)
{
    uint32_t most = 0;

    for (uint32_t i = 0; i < roots_count(); i++) {
        struct tree_path path;
        uint32_t n = 0;
        int rc;

        if (roots_now()[i] == 0)
            continue;
        rc = tree_first(&segment->segment, &inner->pages.nodes, roots_now()[i],
                        &path);
        for (; rc == 1; n++)
            rc = tree_next(&segment->segment, &inner->pages.nodes, &path);
        most = n > most ? n : most;
    }
    return most;
}

static void start_growing(uint64_t capacity, uint64_t max, uint32_t shards,
                          uint64_t entries)
{
    struct shd_segment_options so = segment_options();
    struct shd_dict_options o = dict_options(capacity, shards, entries);

    so.size_bytes = 8ull << 30;
    o.capacity_max_bytes = max;
    expect(shd_segment_create(NULL, &so, &segment), SHD_OK);
    expect(shd_dict_open(segment, "d", &o, &dict), SHD_OK);
    inner = &dict->dict;
}

/* Of all kinds: every 50th is longer than fits into a cell. */
static char *name(unsigned i)
{
    static char key[2000];
    int n = snprintf(key, sizeof(key), "key %u", i);

    if (i % 50 == 49) {
        memset(key + n, 'x', 1500);
        key[n + 1500] = '\0';
    }
    return key;
}

static void fill(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        expect(set(name(i), i % 90, i), SHD_OK);
}

static void has_all(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        holds(name(i), i % 90, i);
}

/* ---- by resizing ------------------------------------------------------- */

START_TEST(the_index_follows_the_capacity)
{
    static const uint32_t shards[] = {1, 4};

    start_growing(MIB, 256 * MIB, shards[_i], 0);
    ck_assert_uint_eq(info().roots, MIB / 128);
    fill(0, 5000);
    for (uint64_t times = 2; times <= 256; times *= times == 2 ? 16 : 8) {
        expect(shd_dict_resize(dict, times * MIB), SHD_OK);
        ck_assert_uint_eq(info().roots, times * MIB / 128);
        ck_assert_uint_eq(info().resizing, 0);
        has_all(0, 5000);
        sound();
    }
    fill(5000, 30000);
    ck_assert_uint_le(tallest(), 8);
    expect(shd_dict_resize(dict, 16 * MIB), SHD_OK);
    ck_assert_uint_eq(info().roots, 16 * MIB / 128);
    has_all(0, 30000);
    sound();
    expect(shd_dict_resize(dict, MIB / 8), SHD_OK);
    ck_assert_uint_eq(info().roots, MIB / 8 / 128);
    sound();
    /* Fewer than fill a page there are not. */
    expect(shd_dict_resize(dict, 65536), SHD_OK);
    ck_assert_uint_eq(info().roots, 1024);
    sound();
    expect(shd_dict_resize(dict, MIB), SHD_OK);
    fill(0, 3000);
    has_all(0, 3000);
    expect(shd_flush_all(dict), SHD_OK);
    expect(shd_flush_expired(dict, 0, NULL), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(what_was_said_of_entries_counts)
{
    /* One for 512 bytes, at any capacity. */
    start_growing(MIB, 16 * MIB, 1, 2048);
    ck_assert_uint_eq(info().roots, 2048);
    expect(shd_dict_resize(dict, 16 * MIB), SHD_OK);
    ck_assert_uint_eq(info().roots, 32768);
    expect(shd_dict_resize(dict, MIB / 2), SHD_OK);
    ck_assert_uint_eq(info().roots, 1024);
    /* More than there could be at first: how many there will be. */
    start_growing(MIB, 256 * MIB, 1, 65536);
    ck_assert_uint_eq(info().roots, 65536);
    expect(shd_dict_resize(dict, 4 * MIB), SHD_OK);
    ck_assert_uint_eq(info().roots, 65536);
    expect(shd_dict_resize(dict, 64 * MIB), SHD_OK);
    ck_assert_uint_eq(info().roots, 64 * MIB / 128);
    sound();
}
END_TEST

/* Where a page for roots would be one of a few. */
START_TEST(small_dicts_keep_theirs)
{
    start_growing(8192, 65536, 1, 0);
    expect(shd_dict_resize(dict, 32768), SHD_OK);
    ck_assert_uint_eq(info().roots, 64);
    expect(shd_dict_resize(dict, 65536), SHD_OK);
    ck_assert_uint_eq(info().roots, 512);
    expect(shd_dict_resize(dict, 8192), SHD_OK);
    ck_assert_uint_eq(info().roots, 64);
    sound();
}
END_TEST

START_TEST(without_address_room_the_index_stays)
{
    struct shd_segment_options so = segment_options();
    struct shd_dict_options o = dict_options(40 * MIB, 1, 0);

    so.size_bytes = 40 * MIB + MIB / 2;
    o.capacity_max_bytes = 40 * MIB;
    expect(shd_segment_create(NULL, &so, &segment), SHD_OK);
    expect(shd_dict_open(segment, "d", &o, &dict), SHD_OK);
    inner = &dict->dict;
    fill(0, KEYS);
    expect(shd_dict_resize(dict, 20 * MIB), SHD_OK);
    ck_assert_uint_eq(info().roots, 1u << 18);
    has_all(0, KEYS);
    sound();
}
END_TEST

START_TEST(without_memory_for_more_roots_nothing_changes)
{
    char directory[] = "/tmp/check_index.XXXXXX";
    struct shd_dict_options o = dict_options(MIB, 1, 0);
    struct shd_segment_options so = segment_options();
    uint64_t before, after;
    char path[64];

    ck_assert_ptr_nonnull(mkdtemp(directory));
    if (!mount_tmpfs(directory, "8m")) {
        ck_assert_int_eq(rmdir(directory), 0);
        return;
    }
    snprintf(path, sizeof(path), "%s/segment", directory);
    so.size_bytes = 4ull << 30;
    o.capacity_max_bytes = 1024 * MIB;
    expect(shd_segment_create(path, &so, &segment), SHD_OK);
    expect(shd_dict_open(segment, "d", &o, &dict), SHD_OK);
    inner = &dict->dict;
    fill(0, KEYS);
    expect(segment_committed(&segment->segment, &before), SHD_OK);
    expect(shd_dict_resize(dict, 512 * MIB), SHD_NOMEM);
    ck_assert_uint_eq(info().capacity_bytes, MIB);
    ck_assert_uint_eq(info().resizing, 0);
    expect(segment_committed(&segment->segment, &after), SHD_OK);
    ck_assert_uint_eq(after, before);
    sound();
    expect(shd_dict_resize(dict, 16 * MIB), SHD_OK);
    has_all(0, KEYS);
    sound();
    ck_assert_int_eq(umount2(directory, MNT_DETACH), 0);
    ck_assert_int_eq(rmdir(directory), 0);
}
END_TEST

/* ---- in the middle ----------------------------------------------------- */

/* As resize.c begins, and goes on with, a change of the index. */
static void begin(uint32_t grain)
{
    uint32_t was = grain_now();

    ck_assert_uint_ne(grain, was);
    expect(dict_lock(inner, 0), SHD_OK);
    inner->header->unsettled = 1;
    inner->header->arrays |= 1ull << grain;
    expect(index_clear(inner, grain, 0, index_bytes(inner, grain)), SHD_OK);
    expect(pages_set_tag(&inner->pages,
                         index_tag(grain, was, inner->header->bounds.state)),
           SHD_OK);
    dict_unlock(inner, 0);
}

/* A step in each shard: is there more? */
static bool go_on(uint64_t *root)
{
    bool more = false;

    for (uint32_t i = 0; i < inner->shards; i++) {
        int rc;

        expect(dict_lock(inner, i), SHD_OK);
        rc = index_move(inner, i, &root[i]);
        ck_assert_int_ge(rc, 0);
        more = more || rc == 1;
        dict_unlock(inner, i);
    }
    return more;
}

static void roots_from(uint64_t *root)
{
    uint32_t former = index_former(atomic_load64(&inner->pages.bounds->state));

    for (uint32_t i = 0; i < inner->shards; i++)
        root[i] = index_first(inner, i, former);
}

static const struct {
    uint32_t shards;
    int finer; /* by how many grains; below 0: coarser */
} moves[] = {{1, 1}, {1, -1}, {4, 5}, {4, -3}};

static void start_moving(int i)
{
    start_growing(MIB, 128 * MIB, moves[i].shards, 0);
    fill(0, KEYS);
    begin((uint32_t)((int)grain_now() - moves[i].finer));
}

/* All that can be done to a key, whichever root it is under. */
static void do_all(unsigned turn)
{
    char key[24];
    double number;
    int64_t ttl;

    fill(KEYS, 2 * KEYS); /* new ones, and the second time old ones */
    has_all(0, 2 * KEYS);
    for (unsigned i = KEYS; i < 2 * KEYS; i += 2) {
        expect(del(name(i)), SHD_OK);
        ck_assert(!is_there(name(i)));
        expect(shd_ttl(dict, name(i), strlen(name(i)), &ttl), SHD_NOTFOUND);
    }
    for (unsigned i = 0; i < 50; i++) {
        snprintf(key, sizeof(key), "number %u", i);
        expect(shd_incr(dict, key, strlen(key), 1, 1, 0, 0, &number, NULL),
               SHD_OK);
        ck_assert_double_eq(number, turn + 1);
        snprintf(key, sizeof(key), "list %u", i);
        expect(push(0, key, 10, i), SHD_OK);
        ck_assert_uint_eq(llen(key), 1);
        pops(1, key, 10, i);
        snprintf(key, sizeof(key), "grows %u", i);
        expect(set(key, 20 * turn, i), SHD_OK);
        expect(shd_expire(dict, key, strlen(key), 100000), SHD_OK);
        holds(key, 20 * turn, i);
    }
}

static bool is_moving(void)
{
    return index_moves(atomic_load64(&inner->pages.bounds->state));
}

/* Each turn's stores end the change; another one, the other way, begins. */
START_TEST(in_the_middle_everything_works)
{
    uint64_t root[4], capacity;
    uint32_t from, to;

    start_moving(_i);
    to = grain_now();
    from = (uint32_t)((int)to + moves[_i].finer);
    capacity = info().capacity_bytes;
    for (unsigned turn = 0; turn < 4; turn++) {
        roots_from(root);
        if (turn > 1)
            (void)go_on(root);
        sound();
        has_all(0, KEYS); /* before stores help */
        do_all(turn);
        sound();
        if (!is_moving())
            begin(grain_now() == to ? from : to);
    }
    sound();
    expect(shd_dict_resize(dict, capacity), SHD_OK);
    ck_assert_uint_eq(info().resizing, 0);
    has_all(0, KEYS);
    sound();
}
END_TEST

/* The longest it may take: each store of a shard moves 8 entries, or passes
 * 256 roots, or what is left of either. */
START_TEST(stores_end_a_change_that_was_left)
{
    unsigned stores = 0, most;
    uint64_t capacity;
    uint32_t from;

    start_moving(_i);
    capacity = info().capacity_bytes;
    from = (uint32_t)((int)grain_now() + moves[_i].finer);
    most =
        64 + 4 * (2 * KEYS / 8 + 2 * (unsigned)index_roots(inner, from) / 256);
    while (is_moving()) {
        char key[24];

        snprintf(key, sizeof(key), "more %u", stores);
        expect(set(key, 5, 1), SHD_OK);
        ck_assert_uint_lt(++stores, most);
        if (stores % 100 == 0)
            sound();
    }
    ck_assert_uint_gt(stores, 8);
    has_all(0, KEYS);
    sound();
    /* The former roots have their memory until somebody resizes. */
    ck_assert_uint_eq(info().resizing, 1);
    expect(shd_dict_resize(dict, capacity), SHD_OK);
    ck_assert_uint_eq(info().resizing, 0);
    has_all(0, KEYS);
    sound();
}
END_TEST

/* What another change, or nobody, has written there. */
START_TEST(a_damaged_word_of_helping_loses_nothing)
{
    start_moving(2);
    for (unsigned i = 0; is_moving() && i < 2000; i++) {
        for (uint32_t shard = 0; shard < inner->shards; shard++)
            inner->shard[shard].helped =
                i < 100 ? (uint64_t)rand() << 32 | (unsigned)rand() : 0;
        expect(set(name(i % KEYS), (i + 7) % 90, 1), SHD_OK);
    }
    expect(shd_dict_resize(dict, MIB), SHD_OK);
    for (unsigned i = 0; i < KEYS; i++)
        ck_assert(is_there(name(i)));
    sound();
}
END_TEST

START_TEST(a_walk_meets_every_key_once_while_it_moves)
{
    static bool met[KEYS];
    struct shd_value v;
    unsigned char key[65536 + 1] = "";
    uint64_t root[4];
    size_t len = 0;
    unsigned n = 0;
    int rc;

    start_moving(_i);
    roots_from(root);
    /* It moves on each dozen of keys; and later another way. */
    while ((rc = shd_scan(dict, n == 0 ? NULL : key, len, 0, key, 65536, &len,
                          bytes_out, VALUE_MAX, &v)) == SHD_OK) {
        unsigned number = 0;

        key[len] = '\0';
        ck_assert_int_eq(sscanf((char *)key, "key %u", &number), 1);
        ck_assert_uint_lt(number, KEYS);
        ck_assert(!met[number]);
        met[number] = true;
        if (++n % 12 == 0)
            (void)go_on(root);
        if (n == KEYS / 2) {
            expect(shd_dict_resize(dict, 4 * MIB), SHD_OK);
            begin(grain_now() + 1);
            roots_from(root);
        }
    }
    expect(rc, SHD_NOTFOUND);
    ck_assert_uint_eq(n, KEYS);
    expect(shd_dict_resize(dict, MIB), SHD_OK);
    sound();
}
END_TEST

START_TEST(a_full_dict_evicts_in_the_middle)
{
    uint64_t root[1];

    start_growing(MIB, 16 * MIB, 1, 0);
    for (unsigned i = 0; i < 9000; i++)
        expect(set(name(i), 100, i), SHD_OK);
    ck_assert_uint_gt(info().evictions, 0);
    begin(grain_now() + (_i == 0 ? 2 : (uint32_t)-2));
    roots_from(root);
    for (unsigned i = 9000; go_on(root) || i < 12000; i++) {
        expect(set(name(i), 100, i), SHD_OK);
        if (i % 500 == 0)
            sound();
    }
    expect(shd_dict_resize(dict, 16 * MIB), SHD_OK);
    sound();
}
END_TEST

START_TEST(many_keys_at_a_time_are_got_in_the_middle)
{
    static char names[48][16], values[48 * 90];
    struct shd_value got[48];
    const void *keys[48];
    uint64_t root[4];
    int32_t codes[48];
    size_t lens[48], at[48];

    start_moving(_i);
    roots_from(root);
    for (unsigned i = 0; i < 48; i++) {
        lens[i] = (size_t)snprintf(names[i], sizeof(names[i]), "key %u", i);
        keys[i] = names[i];
    }
    do {
        expect(shd_get_multi(dict, 48, keys, lens, values, sizeof(values), got,
                             at, codes),
               SHD_OK);
        for (unsigned i = 0; i < 48; i++)
            ck_assert_int_eq(codes[i], SHD_OK);
    } while (go_on(root));
}
END_TEST

/* ---- damage ------------------------------------------------------------ */

START_TEST(an_entry_under_a_root_of_the_wrong_array_is_named)
{
    uint64_t root[4];
    uint32_t former, number, ref;

    start_moving(0);
    roots_from(root);
    former = index_former(inner->header->bounds.state);
    number = (uint32_t)(dict_place(inner, "key 1", 5).order >> former);
    ref = inner->roots[former][number];
    ck_assert_uint_ne(ref, 0);
    /* Under both. */
    *index_root(inner, grain_now(), dict_place(inner, "key 1", 5).order) = ref;
    expect_check_names("its trees hold");
    *index_root(inner, grain_now(), dict_place(inner, "key 1", 5).order) = 0;
    sound();
    /* Under another one. */
    inner->roots[former][number] = 0;
    while (inner->roots[former][++number % index_roots(inner, former)] != 0)
        ;
    inner->roots[former][number % index_roots(inner, former)] = ref;
    expect_check_names("a key is under the wrong root");
    expect(shd_dict_resize(dict, MIB), SHD_CORRUPT);
    expect_said("under a root that is not its own");
}
END_TEST

static struct shd_repair repaired(void)
{
    static char text[4096];
    struct shd_repair done = {.struct_size = sizeof(done)};

    expect(shd_segment_repair(segment, &done, text, sizeof(text)), SHD_OK);
    return done;
}

START_TEST(a_shard_is_repaired_in_the_middle)
{
    uint64_t root[4];

    start_moving(_i);
    roots_from(root);
    (void)go_on(root);
    *index_root(inner, grain_now(), dict_place(inner, "key 1", 5).order) =
        UINT32_MAX;
    *index_root(inner, index_former(inner->header->bounds.state),
                dict_place(inner, "key 2", 5).order) = UINT32_MAX;
    ck_assert_uint_ge(repaired().rebuilt, 1);
    has_all(0, KEYS);
    sound();
    expect(shd_dict_resize(dict, 2 * MIB), SHD_OK);
    has_all(0, KEYS);
    sound();
}
END_TEST

START_TEST(a_tag_that_cannot_be_is_named_and_mended)
{
    static const uint64_t tags[] = {0, 0x1919, 0x4040, 0xffff, 0x0700, 0x3f3f};
    struct shd_value v;
    uint64_t state;

    start_growing(MIB, 16 * MIB, 1, 0);
    fill(0, KEYS);
    state = inner->header->bounds.state & ~0xffffull;
    inner->header->bounds.state = state | tags[_i];
    expect_check_names("its header is damaged");
    expect(get("key 1", &v), SHD_CORRUPT);
    expect(set("key 1", 10, 1), SHD_CORRUPT);
    expect(shd_dict_resize(dict, 2 * MIB), SHD_CORRUPT);
    ck_assert_uint_ge(repaired().bounds, 1);
    has_all(0, KEYS);
    sound();
    expect(shd_dict_resize(dict, 16 * MIB), SHD_OK);
    expect(shd_dict_resize(dict, MIB), SHD_OK);
    has_all(0, KEYS);
    sound();
}
END_TEST

/* It names an array that is there, and is not the one. */
START_TEST(a_tag_that_is_wrong_is_named_and_mended)
{
    uint32_t grain;

    start_growing(MIB, 16 * MIB, 1, 0);
    fill(0, KEYS);
    grain = grain_now();
    expect(
        pages_set_tag(&inner->pages, index_tag(grain - 1, grain - 1,
                                               inner->header->bounds.state)),
        SHD_OK);
    expect_check_names("it is resized halfway, and says it is not");
    ck_assert_uint_ge(repaired().bounds, 1);
    ck_assert_uint_eq(info().resizing, 1);
    has_all(0, KEYS);
    sound();
    expect(shd_dict_resize(dict, MIB), SHD_OK);
    ck_assert_uint_eq(info().resizing, 0);
    ck_assert_uint_eq(grain_now(), grain);
    has_all(0, KEYS);
    sound();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("index");
    TCase *c = tcase_create("resized");
    int n = (int)(sizeof(moves) / sizeof(moves[0]));

    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, the_index_follows_the_capacity, 0, 2);
    tcase_add_test(c, what_was_said_of_entries_counts);
    tcase_add_test(c, small_dicts_keep_theirs);
    tcase_add_test(c, without_address_room_the_index_stays);
    tcase_add_test(c, without_memory_for_more_roots_nothing_changes);
    suite_add_tcase(s, c);
    c = tcase_create("moving");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, in_the_middle_everything_works, 0, n);
    tcase_add_loop_test(c, stores_end_a_change_that_was_left, 0, n);
    tcase_add_test(c, a_damaged_word_of_helping_loses_nothing);
    tcase_add_loop_test(c, a_walk_meets_every_key_once_while_it_moves, 0, n);
    tcase_add_loop_test(c, a_full_dict_evicts_in_the_middle, 0, 2);
    tcase_add_loop_test(c, many_keys_at_a_time_are_got_in_the_middle, 0, n);
    suite_add_tcase(s, c);
    c = tcase_create("damaged");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, an_entry_under_a_root_of_the_wrong_array_is_named);
    tcase_add_loop_test(c, a_shard_is_repaired_in_the_middle, 0, n);
    tcase_add_loop_test(c, a_tag_that_cannot_be_is_named_and_mended, 0, 6);
    tcase_add_test(c, a_tag_that_is_wrong_is_named_and_mended);
    suite_add_tcase(s, c);
    return run_suite(s);
}
