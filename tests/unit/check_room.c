/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite room: what goes when there is no room, in which order, and that what
 * is moved to make some is the same afterwards. */
#include "tests/unit/fixture.h"

#include <time.h>

#define MIB (1u << 20)

static char *name(unsigned i)
{
    static char key[4][16];
    static unsigned turn;
    char *k = key[turn++ % 4];

    snprintf(k, 16, "k%u", i);
    return k;
}

/* Fills up with values of one length, evicting nothing: how many. */
static unsigned fill(size_t len, int64_t ttl_ms)
{
    unsigned n = 0;

    while (store(SHD_SET | SHD_SAFE, name(n), len, n, ttl_ms, 0, NULL) ==
           SHD_OK)
        n++;
    ck_assert_uint_gt(n, 10);
    ck_assert_uint_eq(info().evictions, 0);
    return n;
}

/* ---- how much fits ---- */

/* Bytes of the capacity for each item, of those that fit before the first
 * is evicted. Keys of 16 bytes. */
static double bytes_each(uint64_t capacity, size_t (*length)(void))
{
    static const char zeroes[2001];
    uint32_t forcible = 0;
    char key[24];
    unsigned n = 0;

    start(capacity);
    srand(4711);
    for (;; n++) {
        snprintf(key, sizeof(key), "key:%012u", n);
        expect(shd_store(dict, SHD_SET, key, 16, SHD_STRING, zeroes, length(),
                         0, 0, 0, &forcible),
               SHD_OK);
        if (forcible)
            break;
    }
    sound();
    return (double)capacity / n;
}

static size_t of_32_bytes(void)
{
    return 32;
}

/* 8 to 2000, each doubling about as likely. */
static size_t of_mixed_bytes(void)
{
    size_t power = (size_t)8 << (unsigned)rand() % 8;

    return (power + (size_t)rand() % power) % 2001;
}

START_TEST(a_small_item_takes_at_most_86_bytes)
{
    ck_assert_double_le(bytes_each(MIB, of_32_bytes), 86);
}
END_TEST

START_TEST(a_mixed_item_takes_a_quarter_more_than_its_bytes_and_32)
{
    double payload = 0, each;

    srand(4711);
    for (unsigned i = 0; i < 3000; i++)
        payload += (double)of_mixed_bytes() / 3000;
    each = bytes_each(2 * MIB, of_mixed_bytes);
    ck_assert_double_le(each, 1.25 * (payload + 16 + 32));
}
END_TEST

/* ---- which goes ------------------------------------------------------- */

static size_t of_1700_bytes(void)
{
    return 1700;
}

/* Each takes two cells, whose pages get their memory a MiB at a time. */
START_TEST(values_in_two_cells_take_all_the_memory)
{
    double each = bytes_each(16 * MIB, of_1700_bytes);

    ck_assert_double_lt(each, 1.08 * (32 + 16 + 1704 + 32));
}
END_TEST

START_TEST(the_least_recently_stored_goes_first)
{
    uint32_t forcible = 0;
    unsigned n;

    start(65536);
    n = fill(1000, 0);
    for (unsigned i = 0; i < n; i++) {
        expect(store(SHD_SET, name(n + i), 1000, n + i, 0, 0, &forcible),
               SHD_OK);
        ck_assert_uint_eq(forcible, 1);
        for (unsigned j = 0; j < 2 * n; j++)
            ck_assert_msg(is_there(name(j)) == (j > i && j <= n + i),
                          "after %u stores too many, %u is %s", i, j,
                          is_there(name(j)) ? "there" : "gone");
    }
    ck_assert_uint_eq(info().evictions, n);
    sound();
}
END_TEST

/* In place, by a new cell, by a push, by incr: each counts as a use. */
START_TEST(changing_an_entry_makes_it_the_last_to_go)
{
    unsigned n;
    double sum;

    start(65536);
    expect(set("in place", 50, 1), SHD_OK);
    expect(set("new cell", 50, 1), SHD_OK);
    expect(push(0, "list", 50, 1), SHD_OK);
    expect(set_number("counter", 1), SHD_OK);
    n = fill(1000, 0);
    expect(del(name(n - 1)), SHD_OK);
    expect(del(name(n - 2)), SHD_OK);
    expect(del(name(n - 3)), SHD_OK);
    expect(set("in place", 51, 1), SHD_OK);
    expect(set("new cell", 900, 1), SHD_OK);
    expect(push(1, "list", 50, 1), SHD_OK);
    expect(shd_incr(dict, "counter", 7, 1, 0, 0, 0, &sum, NULL), SHD_OK);
    for (unsigned i = 0; i < n - 3; i++)
        expect(set(name(n + i), 1000, 1), SHD_OK);
    ck_assert_uint_gt(info().evictions, n / 2);
    ck_assert(is_there("in place"));
    ck_assert(is_there("new cell"));
    ck_assert_uint_eq(llen("list"), 2);
    holds_number("counter", 2);
    sound();
}
END_TEST

/* All that tells of the order of age, of all shards. */
static uint64_t order_now(void)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < inner->shards; i++)
        sum = sum * 31 + inner->shard[i].shuffles * 7 +
              inner->shard[i].lru.first;
    return sum;
}

static void change_all(void)
{
    double sum;

    expect(set("in place", 50, 2), SHD_OK);
    expect(store(SHD_SET, "flags", 50, 2, 0, 7, NULL), SHD_OK);
    expect(set_number("number", 2), SHD_OK);
    expect(shd_incr(dict, "counter", 7, 1, 0, 0, 0, &sum, NULL), SHD_OK);
    expect(push(0, "list", 50, 2), SHD_OK);
    expect(shd_append(dict, 0, "text", 4, "x", 1, NULL, 0, 0, NULL, NULL),
           SHD_OK);
}

/* Among several shards a change where the entry is marks it; one shard has an
 * order, in which it goes to the front. */
START_TEST(a_change_in_place_marks_or_moves_the_entry)
{
    static const char *const keys[] = {"in place", "flags", "number",
                                       "counter",  "list",  "text"};
    enum { KEYS = sizeof(keys) / sizeof(keys[0]) };
    const bool one = _i == 0;
    uint64_t order;

    start_named(NULL, MIB, one ? 1 : 4, 0);
    expect(set("in place", 50, 1), SHD_OK);
    expect(store(SHD_SET, "flags", 50, 1, 0, 7, NULL), SHD_OK);
    expect(set_number("number", 1), SHD_OK);
    expect(set_number("counter", 1), SHD_OK);
    expect(push(0, "list", 50, 1), SHD_OK);
    expect(set("text", 41, 1), SHD_OK);
    for (unsigned i = 0; i < 50; i++)
        expect(set(name(i), 50, i), SHD_OK);
    order = order_now();
    for (unsigned i = 0; i < KEYS; i++)
        ck_assert(!is_marked(keys[i]));
    change_all();
    for (unsigned i = 0; i < KEYS; i++)
        ck_assert_msg(is_marked(keys[i]) == !one, "%s", keys[i]);
    ck_assert_int_eq(order_now() == order, !one);
    /* To be touched is to be moved, by its name. */
    expect(shd_touch(dict, "text", 4, 0), SHD_OK);
    expect(shd_touch(dict, "flags", 5, 0), SHD_OK);
    ck_assert_uint_ne(order_now(), order);
    sound();
}
END_TEST

START_TEST(an_entry_read_since_gets_a_second_chance)
{
    struct shd_value v;
    unsigned n;

    start(131072);
    n = fill(1000, 0);
    expect(get(name(0), &v), SHD_OK);
    expect(get_stale(name(1), &v), SHD_OK);
    ck_assert(is_marked("k0"));
    expect(set(name(n), 1000, 1), SHD_OK);
    ck_assert(is_there(name(0)));
    ck_assert(is_there(name(1)));
    ck_assert(!is_there(name(2)));
    ck_assert(!is_marked("k0"));
    /* It has gone to the front: all others go before it. */
    for (unsigned i = 1; i < n - 2; i++)
        expect(set(name(n + i), 1000, 1), SHD_OK);
    ck_assert(is_there(name(0)));
    ck_assert(is_there(name(1)));
    expect(set(name(3 * n), 1000, 1), SHD_OK);
    ck_assert(!is_there(name(0)));
    sound();
}
END_TEST

/* Entries that fill a dict of one shard; of which every other one is read; and
 * then others are stored until all those have had their second chance. Their
 * number. */
static unsigned fill_and_turn(size_t len)
{
    struct shd_value v;
    unsigned n;

    start_named(NULL, 131072, 1, 0);
    n = fill(len, 0);
    for (unsigned i = 1; i < n; i += 2)
        expect(get(name(i), &v), SHD_OK);
    for (unsigned i = 0; i < n / 2; i++)
        expect(set(name(n + i), len, 1), SHD_OK);
    return n;
}

static unsigned count_there(unsigned from, unsigned to, unsigned step)
{
    unsigned there = 0;

    for (unsigned i = from; i < to; i += step)
        there += is_there(name(i));
    return there;
}

START_TEST(second_chances_that_are_not_taken_end)
{
    unsigned n = fill_and_turn(20), more = n + n / 2, old, new;
    const struct shard *s = &dict->dict.shard[0];

    ck_assert_uint_eq(s->vain, 0);
    while (s->vain < 128) {
        ck_assert_uint_lt(more, 3 * n);
        expect(set(name(more++), 20, 1), SHD_OK);
    }
    old = count_there(1, n, 2);
    new = count_there(n, more, 1);
    ck_assert_uint_gt(old, 100);
    /* All of those that were read before anything else was stored go now,
     * and of what was stored since none does. */
    for (unsigned i = 0; i < old; i++)
        expect(set(name(more + i), 20, 1), SHD_OK);
    ck_assert_uint_eq(count_there(1, n, 2), 0);
    ck_assert_uint_eq(count_there(n, more, 1), new);
    sound();
    /* After that the list says again who goes, and nothing is in doubt. */
    expect(set(name(more + old), 20, 1), SHD_OK);
    ck_assert_uint_eq(s->vain, 0);
    ck_assert_uint_eq(s->swept, 0);
    ck_assert_uint_eq(count_there(n, more, 1), new - 1);
    sound();
}
END_TEST

START_TEST(a_second_chance_that_is_taken_clears_the_others)
{
    struct shd_value v;
    unsigned n = fill_and_turn(20), more = n + n / 2, old;
    const struct shard *s = &dict->dict.shard[0];

    while (s->vain < 100)
        expect(set(name(more++), 20, 1), SHD_OK);
    for (unsigned i = 1; i < n; i += 2)
        if (is_there(name(i)))
            expect(get(name(i), &v), SHD_OK);
    old = count_there(1, n, 2);
    ck_assert_uint_gt(old, 50);
    for (unsigned i = 0; i < n / 4; i++)
        expect(set(name(more++), 20, 1), SHD_OK);
    ck_assert_uint_eq(s->vain, 0);
    ck_assert_uint_eq(count_there(1, n, 2), old);
    sound();
}
END_TEST

/* The smallest cells have three bits for two of them. */
START_TEST(a_mark_is_no_other_cells)
{
    unsigned n = fill_and_turn(8);
    const struct dict *d = &dict->dict;

    for (unsigned i = 0; i < 2 * n; i++) {
        uint32_t ref, other;

        if (!is_there(name(i)))
            continue;
        ref = ref_of(name(i));
        dict_set_mark(d, ref, false);
        dict_set_chance(d, ref, false);
        for (unsigned j = 0; j < 2; j++) {
            other = ref + (j == 0 ? 3 : UINT32_MAX - 2);
            if (cell_page(&d->pages, other) != cell_page(&d->pages, ref))
                continue;
            dict_set_mark(d, other, true);
            dict_set_chance(d, other, true);
        }
        ck_assert(!dict_is_marked(d, ref));
        ck_assert(!dict_had_chance(d, ref));
    }
    for (unsigned i = 0; i < n; i++)
        expect(set(name(3 * n + i), 8, 1), SHD_OK);
    sound();
}
END_TEST

/* Whatever the words are that tell how far it has come. */
START_TEST(damaged_words_of_second_chances_do_no_harm)
{
    unsigned n = fill_and_turn(20);
    struct shard *s = &dict->dict.shard[0];

    for (unsigned i = 0; i < 2 * n; i++) {
        s->vain = (uint32_t)rand();
        s->swept = i % 3 == 0 ? UINT32_MAX : (uint32_t)rand() % 64;
        expect(set(name(2 * n + i), 20, 1), SHD_OK);
    }
    sound();
}
END_TEST

START_TEST(asking_for_the_time_to_live_is_no_use)
{
    int64_t ttl;
    unsigned n;

    start_named(NULL, 131072, 1, 2700);
    n = fill(1000, 0);
    expect(shd_ttl(dict, "k0", 2, &ttl), SHD_OK);
    expect(shd_expire(dict, "k0", 2, 0), SHD_OK);
    expect(set(name(n), 1000, 1), SHD_OK);
    ck_assert(!is_there(name(0)));
}
END_TEST

START_TEST(with_every_entry_read_a_store_still_ends)
{
    uint32_t forcible = 0;
    struct shd_value v;
    unsigned n;

    start(MIB);
    n = fill(100, 0);
    for (unsigned i = 0; i < n; i++)
        expect(get(name(i), &v), SHD_OK);
    expect(store(SHD_SET, "one more", 100, 1, 0, 0, &forcible), SHD_OK);
    ck_assert_uint_eq(forcible, 1);
    ck_assert_uint_le(info().evictions, 1);
    sound();
}
END_TEST

START_TEST(what_has_expired_goes_before_what_is_live)
{
    uint32_t forcible = 9;
    unsigned n;

    start(65536);
    expect(set("old and live", 1000, 1), SHD_OK);
    n = fill(1000, 1000);
    clock_test_advance(1000);
    for (unsigned i = 0; i < n; i++) {
        expect(store(SHD_SET, name(n + i), 1000, 1, 0, 0, &forcible), SHD_OK);
        ck_assert_uint_eq(forcible, 0);
    }
    holds("old and live", 1000, 1);
    ck_assert_uint_eq(info().evictions, 0);
    ck_assert_uint_eq(info().expirations, n);
    sound();
}
END_TEST

/* Keys that are stored though they had expired at `then`. (An entry that
 * expires this very moment has a ttl of -1 as well.) */
static unsigned count_expired(unsigned keys, uint64_t then)
{
    unsigned n = 0;

    for (unsigned i = 0; i < keys; i++) {
        int64_t ttl = 0;
        int rc = shd_ttl(dict, name(i), strlen(name(i)), &ttl);

        ck_assert(rc == SHD_OK || rc == SHD_NOTFOUND);
        n += rc == SHD_OK && ttl < 0 &&
             clock_now_ms() - (uint64_t)-ttl < then;
    }
    return n;
}

/* In whichever shard it lies, of whatever size. */
START_TEST(nothing_live_goes_while_anything_expired_is_left)
{
    enum { KEYS = 500 };
    static const uint32_t shards[] = {1, 4, 16};
    unsigned forced = 0, lapsed = 0;

    start_named(NULL, 512u << 10, shards[_i], 0);
    srand(4711);
    for (unsigned i = 0; i < 2000; i++) {
        const char *key = name((unsigned)rand() % KEYS);
        size_t len = (size_t)(rand() % (rand() % 8 == 0 ? 9000 : 2500));
        int64_t ttl_ms = rand() % 2 == 0 ? 0 : 1 + rand() % 900;
        uint32_t forcible = 0;
        uint64_t then;

        clock_test_advance((unsigned)rand() % 4);
        then = clock_now_ms();
        lapsed += i % 8 == 0 && count_expired(KEYS, then) > 0;
        expect(store(SHD_SET, key, len, i, ttl_ms, 0, &forcible), SHD_OK);
        if (forcible) {
            forced++;
            ck_assert_uint_eq(count_expired(KEYS, then), 0);
        }
    }
    /* Both came about. */
    ck_assert_uint_gt(forced, 50);
    ck_assert_uint_gt(lapsed, 20);
    ck_assert_uint_gt(info().expirations, 100);
    sound();
}
END_TEST

START_TEST(an_expired_entry_stays_while_there_is_room)
{
    struct shd_value v;

    start(MIB);
    expect(set_ttl("k", 10), SHD_OK);
    clock_test_advance(10);
    for (unsigned i = 0; i < 200; i++)
        expect(set(name(i), 500, i), SHD_OK);
    expect(get_stale("k", &v), SHD_OK);
}
END_TEST

/* ---- safe stores ------------------------------------------------------ */

START_TEST(a_safe_store_evicts_nothing_and_keeps_the_old_value)
{
    static const size_t lengths[] = {1001, 1500, 3000, 4057, 9000, 40000};
    uint32_t forcible = 9;
    double sum;
    unsigned n;

    start(65536);
    expect(store(SHD_SET, "flagged", 50, 3, 1000000, 7, NULL), SHD_OK);
    n = fill(1000, 0);
    for (int i = 0; i < 6; i++) {
        if (slab_class(lengths[i] + 40) == slab_class(1040))
            continue;
        expect(store(SHD_SET | SHD_SAFE, "k3", lengths[i], 99, 0, 0,
                     &forcible),
               SHD_NOMEM);
        ck_assert_uint_eq(forcible, 0);
        expect(store(SHD_ADD | SHD_SAFE, "new", lengths[i], 99, 0, 0, NULL),
               SHD_NOMEM);
        expect(store(SHD_REPLACE | SHD_SAFE, "flagged", lengths[i], 99, 0, 0,
                     NULL),
               SHD_NOMEM);
        sound();
    }
    for (unsigned i = 0; i < n; i++)
        holds(name(i), 1000, i);
    holds("flagged", 50, 3);
    ck_assert_uint_eq(info().entries, n + 1);
    ck_assert_uint_eq(info().evictions, 0);
    /* What fits into its own cell needs no room. */
    expect(store(SHD_SET | SHD_SAFE, "k3", 5, 5, 0, 0, NULL), SHD_OK);
    holds("k3", 5, 5);
    expect(shd_incr(dict, "k4", 2, 1, 1, 0, 0, &sum, NULL), SHD_NOTNUMBER);
    sound();
}
END_TEST

START_TEST(a_safe_store_takes_the_room_of_what_has_expired)
{
    unsigned n;

    start(65536);
    n = fill(1000, 1000);
    expect(store(SHD_SET | SHD_SAFE, "big", 20000, 1, 0, 0, NULL), SHD_NOMEM);
    clock_test_advance(1000);
    expect(store(SHD_SET | SHD_SAFE, "big", 20000, 1, 0, 0, NULL), SHD_OK);
    holds("big", 20000, 1);
    ck_assert_uint_gt(info().expirations, 0);
    ck_assert_uint_le(info().expirations, n);
    sound();
}
END_TEST

/* ---- moving ----------------------------------------------------------- */

/* Every other entry goes, so that no page is free and half of each is. Some
 * own lists and chains, some have long keys. */
static unsigned char long_key[16][2000];

static void fill_with_holes(unsigned *n)
{
    for (unsigned i = 0; i < 16; i++) {
        pattern(long_key[i], sizeof(long_key[i]), i);
        long_key[i][0] = (unsigned char)i;
        expect(shd_push(dict, 1, long_key[i], 2000, SHD_STRING,
                        pattern(bytes_in, 5000, i), 5000, 0, NULL),
               SHD_OK);
        for (unsigned e = 0; e < 9; e++)
            expect(shd_push(dict, (int)e % 2, long_key[i], 2000, SHD_STRING,
                            pattern(bytes_in, 20 + e, e), 20 + e, 0, NULL),
                   SHD_OK);
        expect(store(SHD_SET, name(100000 + i), 4200 + i, i, 5000000, (int)i,
                     NULL),
               SHD_OK);
    }
    for (*n = 0; store(SHD_SET | SHD_SAFE, name(*n), 20 + *n % 7, *n,
                       1000000 + *n, 0, NULL) == SHD_OK;)
        ++*n;
    for (unsigned i = 0; i < *n; i += 2)
        expect(del(name(i)), SHD_OK);
    for (unsigned i = 0; i < 16; i += 2) {
        expect(shd_delete(dict, long_key[i], 2000), SHD_OK);
        expect(del(name(100000 + i)), SHD_OK);
    }
    sound();
}

static void what_was_kept_is_the_same(unsigned n)
{
    struct shd_value v;

    for (unsigned i = 1; i < n; i += 2) {
        holds(name(i), 20 + i % 7, i);
        expect(get(name(i), &v), SHD_OK);
        ck_assert_int_gt(v.ttl_ms, 900000);
    }
    for (unsigned i = 1; i < 16; i += 2) {
        holds(name(100000 + i), 4200 + i, i);
        expect(get(name(100000 + i), &v), SHD_OK);
        ck_assert_int_eq(v.flags, (int)i);
        /* From the left: 7 5 3 1, the long one, 0 2 4 6 8. */
        for (int e = 7; e > 0; e -= 2)
            pops_bytes(1, long_key[i], 2000, 20 + (size_t)e, (unsigned)e);
        pops_bytes(1, long_key[i], 2000, 5000, i);
        for (unsigned e = 0; e < 9; e += 2)
            pops_bytes(1, long_key[i], 2000, 20 + e, e);
    }
}

START_TEST(a_safe_store_compacts_and_moves_entries_lists_and_chains)
{
    unsigned n;
    uint64_t stored = 0;

    start_named(NULL, MIB, _i == 0 ? 1 : 4, 0);
    fill_with_holes(&n);
    while (store(SHD_SET | SHD_SAFE, name(200000 + (unsigned)stored), 4000,
                 1, 0, 0, NULL) == SHD_OK)
        stored++;
    ck_assert_uint_gt(info().moves, 100);
    ck_assert_uint_eq(info().evictions, 0);
    /* What was half empty is nearly full now. */
    ck_assert_uint_gt(stored, 40);
    sound();
    what_was_kept_is_the_same(n);
    sound();
    for (unsigned i = 1; i < n; i += 2)
        expect(del(name(i)), SHD_OK);
    for (unsigned i = 1; i < 16; i += 2)
        expect(del(name(100000 + i)), SHD_OK);
    while (stored > 0)
        expect(del(name(200000 + (unsigned)--stored)), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(moved_entries_still_expire)
{
    unsigned n;
    uint64_t freed;

    start(MIB);
    fill_with_holes(&n);
    for (unsigned i = 0; store(SHD_SET | SHD_SAFE, name(200000 + i), 4000, 1,
                               0, 0, NULL) == SHD_OK;)
        i++;
    ck_assert_uint_gt(info().moves, 100);
    clock_test_advance(5000000);
    expect(shd_flush_expired(dict, 0, &freed), SHD_OK);
    ck_assert_uint_eq(freed, n / 2 + 8);
    sound();
}
END_TEST

/* ---- any size into any mix -------------------------------------------- */

START_TEST(a_plain_store_of_what_fits_succeeds_in_any_full_dict)
{
    static const struct {
        uint64_t capacity;
        uint32_t shards;
    } dicts[] = {{8192, 1},  {12288, 1},   {20480, 1},  {65536, 1},
                 {65536, 2}, {262144, 4}, {1 << 20, 1}, {1 << 20, 16}};
    uint64_t max;

    start_named(NULL, dicts[_i].capacity, dicts[_i].shards, 0);
    max = info().value_max_bytes;
    for (int turn = 0; turn < 3000; turn++) {
        size_t len = random_below(3) == 0 ? random_below((uint32_t)max + 1)
                     : random_below(2) == 0
                         ? random_below(4100 < max ? 4100 : (uint32_t)max)
                         : random_below(60);
        unsigned k = random_below(2000);

        if (len > VALUE_MAX || len > max - 8)
            len = max - 8;
        expect(set(name(k), len, k), SHD_OK);
        holds(name(k), len, k);
        if (random_below(10) == 0)
            (void)push(0, name(5000 + random_below(20)),
                       random_below(300), 1);
        if (turn % 200 == 0)
            sound();
    }
    sound();
    expect(set("k", max, 9), SHD_OK);
    holds("k", max, 9);
    ck_assert_uint_gt(info().evictions, 0);
    expect(shd_flush_all(dict), SHD_OK);
    expect(shd_flush_expired(dict, 0, NULL), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(one_shard_takes_the_room_of_all)
{
    unsigned n;
    uint64_t max;

    start_named(NULL, MIB, 8, 0);
    n = fill(700, 0);
    max = info().value_max_bytes;
    expect(store(SHD_SET | SHD_SAFE, "big", max / 2, 1, 0, 0, NULL),
           SHD_NOMEM);
    for (unsigned i = 0; i < n; i++)
        holds(name(i), 700, i);
    expect(set("big", max, 1), SHD_OK);
    holds("big", max, 1);
    ck_assert_uint_eq(info().entries, 1);
    sound();
}
END_TEST

/* Lengths of values, and whether their keys are all of one shard. */
static const struct {
    size_t least, most;
    bool hot;
} fillings[] = {{32, 32, true},          {8, 2000, true},
                {8, 2000, false},        {3000, 9000, true},
                {50000, 300000, false},  {500000, 900000, true},
                {1000000, 1000000, false}};
#define FILLINGS (int)(sizeof(fillings) / sizeof(fillings[0]))

START_TEST(the_whole_of_a_dict_holds_entries_before_the_first_goes)
{
    static const char zeroes[1000000];
    size_t least = fillings[_i].least, most = fillings[_i].most;
    uint32_t forcible = 0;
    uint64_t filled = 0;
    double part;

    start_named(NULL, 16 * MIB, 8, 0);
    for (unsigned k = 0; forcible == 0; k++) {
        size_t len = least + random_below((uint32_t)(most - least + 1));
        char *key = name(k);

        if (fillings[_i].hot && dict_place(inner, key, strlen(key)).shard != 5)
            continue;
        filled = info().cells_bytes;
        expect(shd_store(dict, SHD_SET, key, strlen(key), SHD_STRING, zeroes,
                         len, 0, 0, 0, &forcible),
               SHD_OK);
    }
    /* The last one found no room: up to its own length may be left. */
    if (least > 4096)
        filled += most;
    part = (double)filled / (double)(info().pages * 4096);
    ck_assert_msg(part >= 0.95, "%.4f of the pages", part);
    sound();
}
END_TEST

START_TEST(a_safe_store_takes_the_one_page_another_shard_can_spare)
{
    unsigned n = 0, met = 0, deleted = 0;

    start_named(NULL, 131072, 2, 0);
    n = fill(60, 0);
    /* Holes for one page's cells, spread over the pages of shard 0. */
    for (unsigned i = 0; i < n && deleted < 60; i++) {
        char *key = name(i);

        if (dict_place(inner, key, strlen(key)).shard == 0 &&
            met++ % 5 == 0) {
            expect(del(key), SHD_OK);
            deleted++;
        }
    }
    ck_assert_uint_eq(info().pages_free, 0);
    for (unsigned i = 0;; i++) {
        char *key = name(900000 + i);

        if (dict_place(inner, key, strlen(key)).shard == 1) {
            expect(store(SHD_SET | SHD_SAFE, key, 4000, 1, 0, 0, NULL),
                   SHD_OK);
            holds(key, 4000, 1);
            break;
        }
    }
    ck_assert_uint_eq(info().evictions, 0);
    sound();
}
END_TEST

/* ---- garbage ---------------------------------------------------------- */

/* A worker that takes the lock whenever there is garbage, and keeps it. */
static void hold_the_lock_on_garbage(uint32_t *caught)
{
    const struct timespec half = {.tv_nsec = 300000000};
    struct guard *g = dict_guard(inner, 0);

    while (atomic_load32(caught) == 0) {
        if (atomic_load32(&inner->shard[0].garbage) == 0 ||
            guard_trylock(&segment->env, g) != SHD_OK)
            continue;
        if (atomic_load32(&inner->shard[0].garbage) != 0) {
            atomic_store32(caught, 1);
            (void)nanosleep(&half, NULL);
        }
        guard_unlock(g);
    }
}

START_TEST(a_change_that_is_done_says_so_though_its_garbage_must_wait)
{
    uint32_t *caught = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid;

    ck_assert_ptr_ne(caught, MAP_FAILED);
    start(4 * MIB);
    segment->env.wait_ms = 50;
    expect(set("k", 1, 1), SHD_OK);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        if (handle_writer(segment) == SHD_OK)
            hold_the_lock_on_garbage(caught);
        kill(getpid(), SIGKILL);
    }
    while (atomic_load32(caught) == 0) {
        for (int i = 0; i < 3000; i++) {
            int rc = push(0, "l", 10, 1);

            ck_assert(rc == SHD_OK || rc == SHD_BUSY);
        }
        /* Either it has been deleted, and says so; or not, and it is there. */
        int rc = del("l");
        if (rc != SHD_OK) {
            expect(rc, SHD_BUSY);
            ck_assert_uint_gt(llen("l"), 0);
        }
    }
    wait_killed(pid);
    (void)del("l");
    expect(set("k", 1, 1), SHD_OK);
    expect(del("k"), SHD_OK);
    all_is_free();
}
END_TEST

/* ---- damage ----------------------------------------------------------- */

START_TEST(links_that_lead_outside_are_corrupt_to_who_makes_room)
{
    struct shard *s;
    uint32_t last;

    start(65536);
    (void)fill(1000, 0);
    s = inner->shard;
    last = s->lru.last;
    s->lru.last = UINT32_MAX;
    expect(set("new", 1000, 1), SHD_CORRUPT);
    s->lru.last = last;
    roots_now()[root_number("k0")] = 0;
    expect(set("new", 1000, 1), SHD_CORRUPT);
    expect_said("an entry is not where its key belongs");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("room");
    TCase *c = tcase_create("room");

    tcase_set_timeout(c, 180);
    tcase_add_test(c, a_small_item_takes_at_most_86_bytes);
    tcase_add_test(c,
                   a_mixed_item_takes_a_quarter_more_than_its_bytes_and_32);
    tcase_add_test(c, values_in_two_cells_take_all_the_memory);
    tcase_add_test(c, the_least_recently_stored_goes_first);
    tcase_add_test(c, changing_an_entry_makes_it_the_last_to_go);
    tcase_add_loop_test(c, a_change_in_place_marks_or_moves_the_entry, 0, 2);
    tcase_add_test(c, an_entry_read_since_gets_a_second_chance);
    tcase_add_test(c, second_chances_that_are_not_taken_end);
    tcase_add_test(c, a_second_chance_that_is_taken_clears_the_others);
    tcase_add_test(c, a_mark_is_no_other_cells);
    tcase_add_test(c, damaged_words_of_second_chances_do_no_harm);
    tcase_add_test(c, asking_for_the_time_to_live_is_no_use);
    tcase_add_test(c, with_every_entry_read_a_store_still_ends);
    tcase_add_test(c, what_has_expired_goes_before_what_is_live);
    tcase_add_loop_test(c, nothing_live_goes_while_anything_expired_is_left,
                        0, 3);
    tcase_add_test(c, an_expired_entry_stays_while_there_is_room);
    tcase_add_test(c, a_safe_store_evicts_nothing_and_keeps_the_old_value);
    tcase_add_test(c, a_safe_store_takes_the_room_of_what_has_expired);
    tcase_add_loop_test(
        c, a_safe_store_compacts_and_moves_entries_lists_and_chains, 0, 2);
    tcase_add_test(c, moved_entries_still_expire);
    tcase_add_loop_test(
        c, a_plain_store_of_what_fits_succeeds_in_any_full_dict, 0, 8);
    tcase_add_loop_test(c,
                        the_whole_of_a_dict_holds_entries_before_the_first_goes,
                        0, FILLINGS);
    tcase_add_test(c, one_shard_takes_the_room_of_all);
    tcase_add_test(
        c, a_safe_store_takes_the_one_page_another_shard_can_spare);
    tcase_add_test(
        c, a_change_that_is_done_says_so_though_its_garbage_must_wait);
    tcase_add_test(c, links_that_lead_outside_are_corrupt_to_who_makes_room);
    suite_add_tcase(s, c);
    return run_suite(s);
}
