/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite lease: elements of lists on a lease. */
#include "tests/unit/fixture.h"

#include "shm/dict/lease.h"

#define MIB (1u << 20)

static unsigned char long_key[65536];

static int take(int left, const char *key, struct shd_value *v,
                uint64_t *lease)
{
    return shd_ltake(dict, left, key, strlen(key), bytes_out, VALUE_MAX, v,
                     lease);
}

static uint64_t takes(int left, const char *key, size_t len, unsigned seed)
{
    struct shd_value v;
    uint64_t lease = 0;

    expect(take(left, key, &v, &lease), SHD_OK);
    ck_assert_uint_eq(v.type, SHD_STRING);
    ck_assert_uint_eq(v.len, len);
    pattern(bytes_in, len, seed);
    ck_assert_int_eq(memcmp(bytes_out, bytes_in, len), 0);
    ck_assert_uint_ne(lease, 0);
    return lease;
}

static int lmove(const char *from, int from_left, const char *to, int to_left,
                 struct shd_value *v)
{
    return shd_lmove(dict, from_left, from, strlen(from), to_left, to,
                     strlen(to), bytes_out, VALUE_MAX, v);
}

/* `count` elements of some lengths, numbered from the left. */
static void fill(const char *key, unsigned count)
{
    for (unsigned i = 1; i <= count; i++)
        expect(push(0, key, 10 * i, i), SHD_OK);
}

/* ---- leases --------------------------------------------------------------
 */

START_TEST(a_leased_element_is_nobody_elses)
{
    struct shd_value v;
    uint64_t lease;

    start(MIB);
    fill("l", 3);
    lease = takes(1, "l", 10, 1);
    ck_assert_uint_eq(llen("l"), 2);
    ck_assert_uint_eq(info().leases, 1);
    sound();
    pops(1, "l", 20, 2);
    pops(1, "l", 30, 3);
    expect(shd_pop(dict, 1, "l", 1, NULL, 0, &v), SHD_NOTFOUND);
    ck_assert_uint_eq(llen("l"), 0);
    expect(get("l", &v), SHD_ISLIST);
    sound();
    expect(shd_lack(dict, lease), SHD_OK);
    expect(get("l", &v), SHD_NOTFOUND);
    expect(shd_lack(dict, lease), SHD_LOST);
    expect(shd_lnack(dict, lease), SHD_LOST);
    all_is_free();
}
END_TEST

START_TEST(what_is_given_back_is_at_the_end_it_came_from)
{
    uint64_t lease[4];

    start(MIB);
    fill("l", 6);
    lease[0] = takes(1, "l", 10, 1);
    lease[1] = takes(0, "l", 60, 6);
    lease[2] = takes(1, "l", 20, 2);
    lease[3] = takes(0, "l", 50, 5);
    for (int i = 3; i >= 0; i--) {
        expect(shd_lnack(dict, lease[i]), SHD_OK);
        sound();
    }
    ck_assert_uint_eq(llen("l"), 6);
    for (unsigned i = 1; i <= 6; i++)
        pops(1, "l", 10 * i, i);
    all_is_free();
}
END_TEST

START_TEST(the_only_element_goes_back_into_an_empty_list)
{
    start(MIB);
    for (int left = 0; left < 2; left++) {
        uint64_t lease;

        fill("l", 1);
        lease = takes(left, "l", 10, 1);
        ck_assert_uint_eq(llen("l"), 0);
        expect(shd_lnack(dict, lease), SHD_OK);
        sound();
        ck_assert_uint_eq(llen("l"), 1);
        pops(!left, "l", 10, 1);
        all_is_free();
    }
}
END_TEST

START_TEST(a_list_of_leased_elements_is_pushed_to)
{
    uint64_t a, b;

    start(MIB);
    fill("l", 2);
    a = takes(1, "l", 10, 1);
    b = takes(1, "l", 20, 2);
    for (int left = 0; left < 2; left++) {
        uint64_t length;

        expect(shd_push(dict, left, "l", 1, SHD_NUMBER, NULL, 0, 7, &length),
               SHD_OK);
        ck_assert_uint_eq(length, 1);
        sound();
        expect(shd_pop(dict, left, "l", 1, NULL, 0, &(struct shd_value){0}),
               SHD_OK);
        sound();
    }
    expect(shd_lnack(dict, a), SHD_OK);
    expect(push(1, "l", 5, 9), SHD_OK);
    expect(shd_lack(dict, b), SHD_OK);
    pops(1, "l", 5, 9);
    pops(1, "l", 10, 1);
    all_is_free();
}
END_TEST

START_TEST(elements_of_any_length_are_leased)
{
    static const size_t lengths[] = {0, 1, 4071, 4073, 9000, 70000, 300000};

    start(4 * MIB);
    for (int back = 0; back < 2; back++) {
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
            uint64_t lease;

            expect(push(0, "l", lengths[i], 7), SHD_OK);
            lease = takes(0, "l", lengths[i], 7);
            sound();
            expect(back ? shd_lnack(dict, lease) : shd_lack(dict, lease),
                   SHD_OK);
            sound();
            if (back)
                pops(0, "l", lengths[i], 7);
            all_is_free();
        }
    }
}
END_TEST

START_TEST(lists_under_keys_of_any_length_lease)
{
    static const size_t key_lengths[] = {1, 8, 1024, 1025, 9000, 65535};
    size_t len = key_lengths[_i];
    struct shd_value v;
    uint64_t a, b;

    start(4 * MIB);
    pattern(long_key, sizeof(long_key), 3);
    for (int i = 0; i < 2; i++)
        expect(shd_push(dict, 0, long_key, len, SHD_NUMBER, NULL, 0, i, NULL),
               SHD_OK);
    expect(shd_ltake(dict, 1, long_key, len, NULL, 0, &v, &a), SHD_OK);
    expect(shd_ltake(dict, 1, long_key, len, NULL, 0, &v, &b), SHD_OK);
    sound();
    expect(shd_lnack(dict, a), SHD_OK);
    expect(shd_lack(dict, b), SHD_OK);
    expect(shd_ltake(dict, 1, long_key, len, NULL, 0, &v, &a), SHD_OK);
    ck_assert_double_eq(v.number, 0);
    expect(shd_lack(dict, a), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(a_buffer_too_small_leases_nothing)
{
    struct shd_value v;
    uint64_t lease = 5;

    start(MIB);
    fill("l", 3);
    expect(shd_ltake(dict, 0, "l", 1, bytes_out, 29, &v, &lease), SHD_SPACE);
    ck_assert_uint_eq(v.len, 30);
    ck_assert_uint_eq(lease, 0);
    ck_assert_uint_eq(info().leases, 0);
    ck_assert_uint_eq(llen("l"), 3);
}
END_TEST

START_TEST(refusals_are_those_of_a_pop)
{
    struct shd_value v;
    uint64_t lease;

    start(MIB);
    expect(take(0, "none", &v, &lease), SHD_NOTFOUND);
    expect(set("s", 10, 1), SHD_OK);
    expect(take(0, "s", &v, &lease), SHD_NOTLIST);
    expect(shd_ltake(dict, 0, "l", 1, NULL, 0, NULL, &lease), SHD_INVAL);
    expect(shd_ltake(dict, 0, "l", 1, NULL, 0, &v, NULL), SHD_INVAL);
    expect(shd_ltake(dict, 0, "l", 1, NULL, 5, &v, &lease), SHD_INVAL);
    expect(shd_lack(dict, 0), SHD_LOST);
    expect(shd_lack(dict, UINT64_MAX), SHD_LOST);
    expect(shd_lnack(dict, 1 << 8), SHD_LOST);
}
END_TEST

/* What becomes of a list takes along what is leased out of it. */
START_TEST(who_has_an_element_of_a_list_that_went_has_lost_it)
{
    uint64_t a, b, c;

    start(MIB);
    fill("l", 5);
    a = takes(1, "l", 10, 1);
    b = takes(0, "l", 50, 5);
    switch (_i) {
    case 0:
        expect(del("l"), SHD_OK);
        break;
    case 1:
        expect(set("l", 20, 3), SHD_OK);
        break;
    case 2: /* pushed to anew once it has expired */
        expect(shd_expire(dict, "l", 1, 1), SHD_OK);
        while (is_there("l"))
            usleep(200);
        expect(push(0, "l", 10, 1), SHD_OK);
        break;
    default: /* gone, and another list with leases is there */
        expect(del("l"), SHD_OK);
        fill("l", 2);
        c = takes(1, "l", 10, 1);
        expect(shd_lack(dict, a), SHD_LOST);
        expect(shd_lack(dict, c), SHD_OK);
    }
    sound();
    expect(shd_lack(dict, a), SHD_LOST);
    expect(shd_lnack(dict, b), SHD_LOST);
    ck_assert_uint_eq(info().leases, 0);
    expect(del("l"), _i == 0 ? SHD_NOTFOUND : SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(an_expired_list_gets_its_elements_back_and_stays_expired)
{
    uint64_t lease;

    start(MIB);
    fill("l", 2);
    lease = takes(1, "l", 10, 1);
    expect(shd_expire(dict, "l", 1, 1), SHD_OK);
    while (is_there("l"))
        usleep(200);
    expect(shd_lnack(dict, lease), SHD_OK);
    sound();
    ck_assert_uint_eq(llen("l"), 0);
    expect(shd_expire(dict, "l", 1, 0), SHD_OK);
    ck_assert_uint_eq(llen("l"), 2);
    pops(1, "l", 10, 1);
}
END_TEST

/* A thousand leases, ended in any order, beside a model of the list. */
START_TEST(leases_end_in_any_order)
{
    enum { MANY = 1000 };
    static uint64_t lease[MANY];
    unsigned live = 0, back = 0;

    start(4 * MIB);
    for (unsigned i = 0; i < MANY; i++)
        expect(push(0, "l", i % 90, i), SHD_OK);
    for (unsigned i = 0; i < MANY; i++, live++)
        lease[i] = takes(1, "l", i % 90, i);
    sound();
    while (live > 0) {
        unsigned i = (unsigned)random_below(live);

        if (random_below(3) == 0) {
            expect(shd_lnack(dict, lease[i]), SHD_OK);
            back++;
        } else {
            expect(shd_lack(dict, lease[i]), SHD_OK);
        }
        lease[i] = lease[--live];
        if (live % 100 == 0)
            sound();
    }
    ck_assert_uint_eq(llen("l"), back);
    ck_assert_uint_eq(info().leases, 0);
    expect(del("l"), SHD_OK);
    all_is_free();
}
END_TEST

/* Cells move when pages are vacated: leases and what they name with them. */
START_TEST(leases_outlive_the_moving_of_cells)
{
    enum { MANY = 300 };
    static uint64_t lease[MANY];
    char key[16];

    start(256 << 10);
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(key, sizeof(key), "k%u", i);
        expect(push(0, "l", 20, i), SHD_OK);
        expect(push(0, key, 50, i), SHD_OK);
    }
    for (unsigned i = 0; i < MANY; i++)
        lease[i] = takes(1, "l", 20, i);
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(key, sizeof(key), "k%u", i);
        if (i % 8 != 0)
            expect(del(key), SHD_OK);
        if (i % 4 != 0)
            expect(shd_lack(dict, lease[i]), SHD_OK);
    }
    for (unsigned i = 0;
         store(SHD_SET | SHD_SAFE, "big", 1000 * i, i, 0, 0, NULL) == SHD_OK;
         i++)
        sound();
    ck_assert_uint_gt(info().moves, 0);
    for (unsigned i = MANY - 4; i < MANY; i -= 4)
        expect(shd_lnack(dict, lease[i]), SHD_OK);
    sound();
    for (unsigned i = 0; i < MANY; i += 4)
        pops(1, "l", 20, i);
}
END_TEST

START_TEST(eviction_takes_leased_elements_along)
{
    uint64_t lease;

    start(64 << 10);
    fill("l", 3);
    lease = takes(1, "l", 10, 1);
    for (unsigned i = 0; is_there("l"); i++) {
        char key[16];

        snprintf(key, sizeof(key), "k%u", i);
        expect(set(key, 20, i), SHD_OK);
    }
    sound();
    expect(shd_lack(dict, lease), SHD_LOST);
    ck_assert_uint_eq(info().leases, 0);
}
END_TEST

START_TEST(a_full_dict_leases_nothing_and_gives_back_without_room)
{
    struct shd_value v;
    uint64_t a, b;

    start(32 << 10);
    fill("l", 2);
    a = takes(1, "l", 10, 1);
    for (unsigned len = 4000; len > 0; len /= 2)
        while (push(0, "f", len, 1) == SHD_OK)
            ;
    while (take(1, "f", &v, &b) == SHD_OK)
        ;
    expect(take(1, "f", &v, &b), SHD_NOMEM);
    sound();
    expect(shd_lnack(dict, a), SHD_OK);
    sound();
    pops(1, "l", 10, 1);
}
END_TEST

/* ---- the dead ------------------------------------------------------------
 */

START_TEST(what_a_dead_worker_had_comes_back)
{
    struct shd_value v;
    uint32_t reaped;

    start_named(NULL, MIB, 4, 0);
    for (int i = 0; i < 40; i++) {
        char key[8];

        snprintf(key, sizeof(key), "l%d", i % 8);
        expect(push(0, key, 10, (unsigned)i), SHD_OK);
    }
    dying_worker({
        for (int i = 0; i < 40; i++) {
            char key[8];
            uint64_t lease;

            snprintf(key, sizeof(key), "l%d", i % 8);
            expect(take(1, key, &v, &lease), SHD_OK);
        }
    });
    ck_assert_uint_eq(info().leases, 40);
    sound();
    expect(shd_reap(segment, &reaped), SHD_OK);
    ck_assert_uint_eq(reaped, 1);
    ck_assert_uint_eq(info().leases, 0);
    sound();
    for (int i = 0; i < 8; i++) {
        char key[8];

        snprintf(key, sizeof(key), "l%d", i);
        ck_assert_uint_eq(llen(key), 5);
        expect(del(key), SHD_OK);
    }
    all_is_free();
}
END_TEST

START_TEST(who_finds_nothing_looks_for_the_dead)
{
    struct shd_value v;
    uint64_t lease;

    start(MIB);
    fill("l", 1);
    dying_worker(takes(0, "l", 10, 1));
    if (_i == 0) {
        pops(0, "l", 10, 1);
    } else if (_i == 1) {
        lease = takes(0, "l", 10, 1);
        expect(shd_lack(dict, lease), SHD_OK);
    } else {
        expect(lmove("l", 1, "m", 1, &v), SHD_OK);
        pops(0, "m", 10, 1);
    }
    all_is_free();
}
END_TEST

START_TEST(what_a_live_worker_has_stays_its_own)
{
    struct shd_value v;
    uint64_t lease;
    int status;
    pid_t pid;

    start(MIB);
    fill("l", 1);
    lease = takes(0, "l", 10, 1);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        uint64_t mine;

        expect(take(0, "l", &v, &mine), SHD_NOTFOUND);
        expect(shd_lack(dict, lease), SHD_LOST);
        expect(shd_lnack(dict, lease), SHD_LOST);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    expect(shd_lack(dict, lease), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(a_worker_that_leaves_gives_back)
{
    start(MIB);
    fill("l", 1);
    takes(0, "l", 10, 1);
    expect(shd_worker_leave(segment), SHD_OK);
    pops(0, "l", 10, 1);
    all_is_free();
}
END_TEST

START_TEST(leases_show_as_held)
{
    struct shd_hold hold = {.struct_size = sizeof(hold)};
    uint64_t me, lease;

    start_named(NULL, MIB, 4, 0);
    expect(shd_worker_join(segment, &me), SHD_OK);
    fill("l", 3);
    fill("m", 3);
    expect(shd_worker_hold(segment, me, 1, &hold), SHD_NOTFOUND);
    lease = takes(0, "l", 30, 3);
    takes(0, "m", 30, 3);
    expect(shd_worker_hold(segment, me, 1, &hold), SHD_OK);
    ck_assert_uint_eq(hold.count, 2);
    ck_assert_uint_eq(hold.kind, SHD_OBJECT_DICT);
    expect(shd_lack(dict, lease), SHD_OK);
    expect(shd_worker_hold(segment, me, 1, &hold), SHD_OK);
    ck_assert_uint_eq(hold.count, 1);
}
END_TEST

/* Each lease of the dict, in turn: how many. */
static unsigned each(int (*look)(const struct shd_lease_info *l,
                                 const char *key, size_t len))
{
    struct shd_lease_info l = {.struct_size = sizeof(l)};
    unsigned n = 0;
    size_t len;
    int rc;

    for (;; n++) {
        rc = shd_lease_next(dict, &l, long_key, sizeof(long_key), &len);
        if (rc == SHD_NOTFOUND)
            return n;
        expect(rc, SHD_OK);
        ck_assert_int_eq(look(&l, (const char *)long_key, len), 1);
    }
}

static uint64_t me;
static char of_list[8];
static uint32_t seen;

static int is_mine(const struct shd_lease_info *l, const char *key,
                   size_t len)
{
    unsigned i = (unsigned)(key[0] - 'a');

    ck_assert_uint_eq(len, 1);
    ck_assert_uint_eq(seen >> i & 1, 0);
    seen |= 1u << i;
    return l->holder == me && l->dead == 0 && l->moving == 0 &&
           l->type == (i == 0 ? SHD_NUMBER : SHD_STRING) &&
           l->len == (i == 0 ? 0 : i);
}

static int is_dead_ones(const struct shd_lease_info *l, const char *key,
                        size_t len)
{
    return l->holder != me && l->dead == 1 && l->moving == 0 &&
           len == strlen(of_list) && memcmp(key, of_list, len) == 0;
}

START_TEST(each_lease_is_told_once)
{
    struct shd_lease_info l = {.struct_size = sizeof(l)};
    struct shd_value v;
    uint64_t lease[26], length;
    size_t len;

    start_named(NULL, MIB, 4, 0);
    expect(shd_worker_join(segment, &me), SHD_OK);
    ck_assert_uint_eq(each(is_mine), 0);
    expect(shd_push(dict, 1, "a", 1, SHD_NUMBER, NULL, 0, 7, &length), SHD_OK);
    for (unsigned i = 0; i < 26; i++) {
        char key[2] = {(char)('a' + i), 0};

        if (i > 0)
            expect(push(1, key, i, i), SHD_OK);
        expect(take(1, key, &v, &lease[i]), SHD_OK);
    }
    seen = 0;
    ck_assert_uint_eq(each(is_mine), 26);
    ck_assert_uint_eq(seen, (1u << 26) - 1);
    expect(shd_lease_next(dict, &l, NULL, 0, &len), SHD_SPACE);
    ck_assert_uint_eq(len, 1);
    ck_assert_uint_eq(l.holder, 0);
    for (unsigned i = 0; i < 26; i++)
        expect(shd_lack(dict, lease[i]), SHD_OK);
    ck_assert_uint_eq(each(is_mine), 0);
    l.struct_size = 0;
    expect(shd_lease_next(dict, &l, NULL, 0, &len), SHD_INVAL);
    all_is_free();
}
END_TEST

START_TEST(leases_of_the_dead_are_told_and_of_lists_that_went_not)
{
    struct shd_value v;
    uint64_t lease;

    start(MIB);
    expect(shd_worker_join(segment, &me), SHD_OK);
    fill("l", 2);
    fill("m", 1);
    dying_worker(expect(take(1, "l", &v, &lease), SHD_OK));
    snprintf(of_list, sizeof(of_list), "l");
    ck_assert_uint_eq(each(is_dead_ones), 1);
    expect(shd_reap(segment, NULL), SHD_OK);
    ck_assert_uint_eq(each(is_dead_ones), 0);
    takes(1, "m", 10, 1);
    expect(del("m"), SHD_OK);
    ck_assert_uint_eq(each(is_dead_ones), 0);
}
END_TEST

/* ---- checks and repair
 * ------------------------------------------------------ */

static struct lease *the_lease(void)
{
    const struct lease *l;

    for (uint32_t i = 0; i < inner->shards; i++)
        if (lease_after(inner, i, 0, 0, &l) == 1)
            return (struct lease *)(uintptr_t)l;
    ck_abort_msg("there is no lease");
}

START_TEST(damage_to_leases_is_named)
{
    struct lease *l;

    start(MIB);
    fill("l", 3);
    takes(0, "l", 30, 3);
    l = the_lease();
    switch (_i) {
    case 0:
        l->cell.word[LEASE_LINK] = 0;
        expect_check_names("has no lease");
        break;
    case 1:
        l->order++;
        expect_check_names("of another list");
        break;
    case 2:
        l->holder = 0;
        expect_check_names("never given");
        break;
    case 3:
        l->number += 1 << 8;
        expect_check_names("never given");
        break;
    case 4:
        l->cell.len = lease_how(false, LEASE_LANDED, 0);
        expect_check_names("stage");
        break;
    case 5:
        inner->shard[0].n_leases++;
        expect_check_names("counts 2 leases");
        break;
    case 6:
        inner->shard[0].leases = 0;
        expect_check_names("counts 1 leases");
        break;
    case 7:
        entry_list(&inner->pages, &entry_of("l")->cell)->leased = 0;
        expect_check_names("0 elements are leased");
        break;
    case 8:
        cell_of(l->cell.word[LEASE_LINK])->word[1]++;
        expect_check_names("do not mirror");
        break;
    case 9:
        l->cell.meta &= ~CELL_TYPE_MASK;
        expect_check_names("no lease");
        break;
    case 10:
        l->cell.len = lease_how(false, 9, 0);
        expect_check_names("never given");
        break;
    default:
        cell_of(entry_list(&inner->pages, &entry_of("l")->cell)->first)
            ->word[LEASE_LINK] = 4711;
        expect_check_names("is leased");
    }
}
END_TEST

static int repairs(void)
{
    struct shd_repair done = {.struct_size = sizeof(done)};
    static char report[4096];

    return shd_segment_repair(segment, &done, report, sizeof(report));
}

START_TEST(repair_keeps_leases)
{
    uint64_t a, b;

    start(MIB);
    fill("l", 5);
    fill("m", 1);
    a = takes(0, "l", 50, 5);
    b = takes(0, "m", 10, 1);
    inner->shard[0].lru.first = 4711;
    inner->shard[0].leases = 4711;
    inner->shard[0].n_leases = 77;
    expect(repairs(), SHD_OK);
    sound();
    ck_assert_uint_eq(info().leases, 2);
    expect(shd_lack(dict, a), SHD_OK);
    expect(shd_lnack(dict, b), SHD_OK);
    sound();
    pops(0, "m", 10, 1);
    ck_assert_uint_eq(llen("l"), 4);
    expect(del("l"), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(repair_cuts_what_is_damaged_of_leased_elements)
{
    struct entry_list *l;
    uint64_t lease[3];

    start(MIB);
    fill("l", 5);
    for (unsigned i = 0; i < 3; i++)
        lease[i] = takes(1, "l", 10 * (i + 1), i + 1);
    l = entry_list(&inner->pages, &entry_of("l")->cell);
    /* 3 2 1 are leased, in that order: the second one's lease is another. */
    cell_of(cell_of(l->leased)->word[CHAIN_NEXT])->word[LEASE_LINK] = 4711;
    expect(repairs(), SHD_OK);
    sound();
    ck_assert_uint_eq(info().leases, 1);
    expect(shd_lnack(dict, lease[0]), SHD_LOST);
    expect(shd_lnack(dict, lease[1]), SHD_LOST);
    expect(shd_lnack(dict, lease[2]), SHD_OK);
    for (unsigned i = 3; i <= 5; i++)
        pops(1, "l", 10 * i, i);
    all_is_free();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lease");
    TCase *one = tcase_create("leases"), *dead = tcase_create("dead");
    TCase *bad = tcase_create("damage");

    tcase_add_test(one, a_leased_element_is_nobody_elses);
    tcase_add_test(one, what_is_given_back_is_at_the_end_it_came_from);
    tcase_add_test(one, the_only_element_goes_back_into_an_empty_list);
    tcase_add_test(one, a_list_of_leased_elements_is_pushed_to);
    tcase_add_test(one, elements_of_any_length_are_leased);
    tcase_add_loop_test(one, lists_under_keys_of_any_length_lease, 0, 6);
    tcase_add_test(one, a_buffer_too_small_leases_nothing);
    tcase_add_test(one, refusals_are_those_of_a_pop);
    tcase_add_loop_test(
        one, who_has_an_element_of_a_list_that_went_has_lost_it, 0, 4);
    tcase_add_test(one,
                   an_expired_list_gets_its_elements_back_and_stays_expired);
    tcase_add_test(one, leases_end_in_any_order);
    tcase_add_test(one, leases_outlive_the_moving_of_cells);
    tcase_add_test(one, eviction_takes_leased_elements_along);
    tcase_add_test(one,
                   a_full_dict_leases_nothing_and_gives_back_without_room);
    suite_add_tcase(s, one);
    tcase_add_test(dead, what_a_dead_worker_had_comes_back);
    tcase_add_loop_test(dead, who_finds_nothing_looks_for_the_dead, 0, 3);
    tcase_add_test(dead, what_a_live_worker_has_stays_its_own);
    tcase_add_test(dead, a_worker_that_leaves_gives_back);
    tcase_add_test(dead, leases_show_as_held);
    tcase_add_test(dead, each_lease_is_told_once);
    tcase_add_test(dead, leases_of_the_dead_are_told_and_of_lists_that_went_not);
    suite_add_tcase(s, dead);
    tcase_add_loop_test(bad, damage_to_leases_is_named, 0, 12);
    tcase_add_test(bad, repair_keeps_leases);
    tcase_add_test(bad, repair_cuts_what_is_damaged_of_leased_elements);
    suite_add_tcase(s, bad);
    return run_suite(s);
}
