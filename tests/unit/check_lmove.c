/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite lmove: elements that go from list to list. */
#include "tests/unit/fixture.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

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

static void moves(const char *from, int from_left, const char *to, int to_left,
                  size_t len, unsigned seed)
{
    struct shd_value v;

    expect(lmove(from, from_left, to, to_left, &v), SHD_OK);
    ck_assert_uint_eq(v.type, SHD_STRING);
    ck_assert_uint_eq(v.len, len);
    pattern(bytes_in, len, seed);
    ck_assert_int_eq(memcmp(bytes_out, bytes_in, len), 0);
}

/* `count` elements of some lengths, numbered from the left. */
static void fill(const char *key, unsigned count)
{
    for (unsigned i = 1; i <= count; i++)
        expect(push(0, key, 10 * i, i), SHD_OK);
}

static bool same_shard(const char *a, const char *b)
{
    return dict_place(inner, a, strlen(a)).shard ==
           dict_place(inner, b, strlen(b)).shard;
}

/* A key of the other shard, or of the same. */
static const char *key_beside(const char *key, bool same)
{
    static char other[16];

    for (int i = 0;; i++) {
        snprintf(other, sizeof(other), "to%d", i);
        if (same_shard(key, other) == same)
            return other;
    }
}

/* Two shards, and the key of a list in one or the other. */
static const char *start_two(bool same)
{
    start_named(NULL, MIB, 2, 0);
    return key_beside("l", same);
}

/* ---- moving ---------------------------------------------------------------
 */

/* All four pairs of ends, to a list that is there or not. */
START_TEST(an_element_moves_from_end_to_end)
{
    const char *to = start_two(_i == 0);

    for (int ends = 0; ends < 8; ends++) {
        int from_left = ends & 1, to_left = ends >> 1 & 1, there = ends >> 2;
        unsigned n = from_left ? 1 : 3;

        fill("l", 3);
        if (there)
            expect(push(0, to, 5, 9), SHD_OK);
        moves("l", from_left, to, to_left, 10 * n, n);
        sound();
        ck_assert_uint_eq(llen("l"), 2);
        ck_assert_uint_eq(llen(to), 1u + (unsigned)there);
        pops(to_left, to, 10 * n, n);
        expect(del("l"), SHD_OK);
        if (there)
            pops(0, to, 5, 9);
        all_is_free();
    }
}
END_TEST

START_TEST(the_last_element_takes_its_list_along)
{
    const char *to = start_two(_i == 0);
    struct shd_value v;

    fill("l", 1);
    moves("l", 0, to, 0, 10, 1);
    expect(get("l", &v), SHD_NOTFOUND);
    moves(to, 0, "l", 0, 10, 1);
    expect(get(to, &v), SHD_NOTFOUND);
    pops(0, "l", 10, 1);
    all_is_free();
}
END_TEST

START_TEST(elements_of_any_length_and_numbers_move)
{
    static const size_t lengths[] = {0, 1, 4071, 4073, 9000, 70000, 300000};
    const char *to;
    struct shd_value v;

    start_named(NULL, 4 * MIB, 2, 0);
    to = key_beside("l", _i == 0);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        expect(push(0, "l", lengths[i], 7), SHD_OK);
        moves("l", 0, to, 0, lengths[i], 7);
        sound();
        pops(0, to, lengths[i], 7);
        all_is_free();
    }
    expect(shd_push(dict, 0, "l", 1, SHD_NUMBER, NULL, 0, 2.5, NULL), SHD_OK);
    expect(lmove("l", 0, to, 0, &v), SHD_OK);
    ck_assert_double_eq(v.number, 2.5);
    expect(shd_pop(dict, 0, to, strlen(to), NULL, 0, &v), SHD_OK);
    ck_assert_double_eq(v.number, 2.5);
    all_is_free();
}
END_TEST

START_TEST(to_a_key_of_any_length)
{
    static const size_t key_lengths[] = {1, 8, 1024, 1025, 9000, 65535};
    size_t len = key_lengths[_i];
    struct shd_value v;

    start_named(NULL, 4 * MIB, 2, 0);
    for (unsigned seed = 0; seed < 8; seed++) {
        fill("l", 2);
        pattern(long_key, sizeof(long_key), seed);
        for (int i = 0; i < 2; i++)
            expect(shd_lmove(dict, 1, "l", 1, 0, long_key, len, bytes_out,
                             VALUE_MAX, &v),
                   SHD_OK);
        sound();
        pops_bytes(1, long_key, len, 10, 1);
        pops_bytes(1, long_key, len, 20, 2);
        all_is_free();
    }
}
END_TEST

START_TEST(a_list_rotates)
{
    start(MIB);
    fill("l", 3);
    moves("l", 1, "l", 0, 10, 1); /* 2 3 1 */
    moves("l", 1, "l", 1, 20, 2); /* the same */
    moves("l", 0, "l", 1, 10, 1); /* 1 2 3 */
    sound();
    for (unsigned i = 1; i <= 3; i++)
        pops(1, "l", 10 * i, i);
    fill("l", 1);
    for (int ends = 0; ends < 4; ends++)
        moves("l", ends & 1, "l", ends >> 1, 10, 1);
    takes(1, "l", 10, 1);
    fill("l", 1);
    moves("l", 0, "l", 1, 10, 1);
    sound();
    expect(del("l"), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(leased_elements_stay_where_they_are)
{
    const char *to = start_two(_i == 0);
    struct shd_value v;
    uint64_t a, b;

    fill("l", 2);
    a = takes(1, "l", 10, 1);
    moves("l", 1, to, 1, 20, 2);
    expect(lmove("l", 1, to, 1, &v), SHD_NOTFOUND);
    b = takes(1, to, 20, 2);
    expect(shd_lnack(dict, a), SHD_OK);
    moves("l", 0, to, 0, 10, 1);
    sound();
    expect(shd_lack(dict, b), SHD_OK);
    pops(0, to, 10, 1);
    all_is_free();
}
END_TEST

START_TEST(a_refused_move_leaves_all_as_it_was)
{
    const char *to = start_two(_i == 0);
    struct shd_value v;

    expect(lmove("l", 0, to, 0, &v), SHD_NOTFOUND);
    fill("l", 2);
    expect(set(to, 10, 1), SHD_OK);
    expect(lmove("l", 0, to, 0, &v), SHD_NOTLIST);
    expect(lmove(to, 0, "l", 0, &v), SHD_NOTLIST);
    expect(shd_lmove(dict, 0, "l", 1, 0, "m", 1, bytes_out, 19, &v),
           SHD_SPACE);
    ck_assert_uint_eq(v.len, 20);
    expect(shd_lmove(dict, 0, "l", 1, 0, "m", 1, NULL, 0, NULL), SHD_INVAL);
    expect(shd_lmove(dict, 0, "l", 1, 0, NULL, 0, bytes_out, 99, &v),
           SHD_EMPTYKEY);
    sound();
    ck_assert_uint_eq(info().leases, 0);
    pops(1, "l", 10, 1);
    pops(1, "l", 20, 2);
    expect(del(to), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(without_room_the_element_is_back)
{
    const char *to;
    struct shd_value v;

    start_named(NULL, 64 << 10, 2, 0);
    to = key_beside("l", false);
    expect(push(0, "l", 9000, 1), SHD_OK);
    expect(push(0, "l", 10, 1), SHD_OK);
    for (unsigned len = 4000; len > 0; len /= 2)
        while (push(0, "f", len, 1) == SHD_OK)
            ;
    expect(lmove("l", 1, to, 1, &v), SHD_NOMEM);
    sound();
    ck_assert_uint_eq(info().leases, 0);
    pops(1, "l", 9000, 1);
}
END_TEST

START_TEST(an_expiry_is_the_lists_own)
{
    const char *to = start_two(_i == 0);
    int64_t ttl;

    fill("l", 3);
    expect(shd_expire(dict, "l", 1, 50000), SHD_OK);
    moves("l", 0, to, 0, 30, 3);
    expect(shd_ttl(dict, to, strlen(to), &ttl), SHD_OK);
    ck_assert_int_eq(ttl, 0);
    expect(shd_ttl(dict, "l", 1, &ttl), SHD_OK);
    ck_assert_int_gt(ttl, 0);
    expect(shd_expire(dict, to, strlen(to), 1), SHD_OK);
    while (is_there(to))
        usleep(200);
    moves("l", 0, to, 0, 20, 2);
    ck_assert_uint_eq(llen(to), 1);
    expect(shd_ttl(dict, to, strlen(to), &ttl), SHD_OK);
    ck_assert_int_eq(ttl, 0);
    sound();
}
END_TEST

/* ---- a move between shards, cut off ----------------------------------------
 */

/* The first steps of a move by a worker that then dies: 1 pinned, 2 copied, 3
 * landed. */
static void move_partly(const char *to, int steps)
{
    struct place at = dict_place(inner, to, strlen(to));
    struct item element = {.type = SHD_STRING, .value = bytes_out, .len = 10};
    struct lease_add add = {.how = lease_how(false, LEASE_PLAIN, 0)};
    struct shd_value v;
    uint64_t number, me;

    expect(shd_worker_join(segment, &me), SHD_OK);
    expect(leases_take(inner, true, "l", 1, bytes_out, VALUE_MAX, &v,
                       lease_how(true, LEASE_PINNED, at.shard), &number),
           SHD_OK);
    add.holder = me;
    add.number = number;
    if (steps > 1)
        expect(store_arrive(inner, &element, to, strlen(to), &add), SHD_OK);
    if (steps > 2)
        expect(leases_land(inner, me, number), SHD_OK);
}

static void dies_moving(const char *to, int steps)
{
    dying_worker(move_partly(to, steps));
}

/* Two that reap at once: the second has seen a lease that the first ends. */
START_TEST(who_comes_late_finds_a_move_over)
{
    for (int steps = 1; steps <= 3; steps++) {
        const char *to = start_two(false);
        struct place at = dict_place(inner, to, strlen(to));
        struct place from = dict_place(inner, "l", 1);
        uint64_t number = UINT64_MAX, holder = 0;
        const struct lease *l;

        fill("l", 1);
        dies_moving(to, steps);
        ck_assert_int_eq(
            lease_before(inner, from.shard, UINT64_MAX, number, &l), 1);
        holder = atomic_load64(&l->holder);
        number = atomic_load64(&l->number);
        for (int i = 0; i < 3; i++) {
            expect(leases_resolve(inner, holder, number, from.shard), SHD_OK);
            expect(leases_resolve(inner, holder, number, at.shard), SHD_OK);
        }
        sound();
        ck_assert_uint_eq(info().leases, 0);
        pops(0, steps == 3 ? to : "l", 10, 1);
        all_is_free();
    }
}
END_TEST

START_TEST(a_move_is_told_as_leases_of_both_shards)
{
    for (int steps = 1; steps <= 3; steps++) {
        const char *to = start_two(false);
        struct shd_lease_info l = {.struct_size = sizeof(l)};
        unsigned n = 0;
        char key[16];
        size_t len;

        fill("l", 1);
        dies_moving(to, steps);
        while (shd_lease_next(dict, &l, key, sizeof(key), &len) == SHD_OK) {
            const char *list = l.shard == dict_place(inner, "l", 1).shard
                                   ? "l"
                                   : to;

            ck_assert_uint_eq(l.moving, 1);
            ck_assert_uint_eq(l.dead, 1);
            ck_assert_uint_eq(l.len, l.type == SHD_STRING ? 10 : 0);
            ck_assert_uint_eq(len, l.type == 0 ? 0 : strlen(list));
            ck_assert_int_eq(memcmp(key, list, len), 0);
            n++;
        }
        ck_assert_uint_eq(n, steps == 1 ? 1 : 2);
        expect(shd_reap(segment, NULL), SHD_OK);
        sound();
    }
}
END_TEST

/* A process that has the shard's lock, and stands still. */
static pid_t sits_on(uint32_t shard)
{
    pid_t child = fork();
    int status;

    ck_assert_int_ge(child, 0);
    if (child == 0) {
        if (dict_lock(inner, shard) != SHD_OK)
            _exit(1);
        (void)raise(SIGSTOP);
        _exit(1);
    }
    ck_assert_int_eq(waitpid(child, &status, WUNTRACED), child);
    ck_assert(WIFSTOPPED(status));
    return child;
}

START_TEST(a_move_that_a_busy_lock_keeps_from_its_end_ends_with_a_later_call)
{
    const char *to = start_two(false);
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = 65536};
    shd_dict *other;
    struct shd_value v;
    pid_t child;

    fill("l", 1);
    child = sits_on(dict_place(inner, to, strlen(to)).shard);
    segment->env.wait_ms = 30;
    for (uint64_t i = 1; i <= 2; i++) {
        expect(lmove("l", 1, to, 0, &v), SHD_BUSY);
        ck_assert_uint_eq(llen("l"), 1);
        ck_assert_uint_eq(info().leases, i);
    }
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    /* Not with one on another dict. */
    expect(shd_dict_open(segment, "other", &o, &other), SHD_OK);
    expect(shd_lmove(other, 1, "l", 1, 0, "m", 1, bytes_out, VALUE_MAX, &v),
           SHD_NOTFOUND);
    ck_assert_uint_eq(info().leases, 2);
    moves("l", 1, to, 0, 10, 1);
    ck_assert_uint_eq(info().leases, 0);
    sound();
    pops(0, to, 10, 1);
    expect(shd_dict_close(other), SHD_OK);
    all_is_free();
}
END_TEST

START_TEST(a_dead_workers_move_is_done_or_not)
{
    for (int steps = 1; steps <= 3; steps++) {
        for (int how = 0; how < 3; how++) {
            const char *to = start_two(false);
            bool moved = steps == 3;
            struct shd_value v;
            uint32_t n;

            fill("l", 1);
            dies_moving(to, steps);
            sound();
            if (how == 0)
                expect(shd_reap(segment, &n), SHD_OK);
            else if (how == 1)
                expect(shd_pop(dict, 0, moved ? "none" : to,
                               moved ? 4 : strlen(to), bytes_out, VALUE_MAX,
                               &v),
                       SHD_NOTFOUND);
            sound();
            if (moved) {
                pops(0, to, 10, 1);
                expect(shd_pop(dict, 0, "l", 1, NULL, 0, &v), SHD_NOTFOUND);
            } else {
                pops(0, "l", 10, 1);
                expect(shd_pop(dict, 0, to, strlen(to), NULL, 0, &v),
                       SHD_NOTFOUND);
            }
            expect(shd_reap(segment, &n), SHD_OK);
            ck_assert_uint_eq(info().leases, 0);
            all_is_free();
        }
    }
}
END_TEST

START_TEST(a_move_whose_lists_went_is_over)
{
    for (int steps = 1; steps <= 3; steps++) {
        for (int which = 0; which < 3; which++) {
            const char *to = start_two(false);
            struct shd_value v;
            uint32_t n;

            fill("l", 1);
            dies_moving(to, steps);
            if (which != 0)
                (void)!shd_delete(dict, "l", 1);
            if (which != 1)
                (void)!shd_delete(dict, to, strlen(to));
            sound();
            expect(shd_reap(segment, &n), SHD_OK);
            ck_assert_uint_eq(info().leases, 0);
            sound();
            /* Once at most. */
            n = shd_pop(dict, 0, "l", 1, bytes_out, VALUE_MAX, &v) == SHD_OK;
            n += shd_pop(dict, 0, to, strlen(to), bytes_out, VALUE_MAX, &v) ==
                 SHD_OK;
            ck_assert_uint_eq(n, (which == 0 && steps < 3) ||
                                     (which == 1 && steps == 3));
            all_is_free();
        }
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lmove");
    TCase *move = tcase_create("moves");

    tcase_add_loop_test(move, an_element_moves_from_end_to_end, 0, 2);
    tcase_add_loop_test(move, the_last_element_takes_its_list_along, 0, 2);
    tcase_add_loop_test(move, elements_of_any_length_and_numbers_move, 0, 2);
    tcase_add_loop_test(move, to_a_key_of_any_length, 0, 6);
    tcase_add_test(move, a_list_rotates);
    tcase_add_loop_test(move, leased_elements_stay_where_they_are, 0, 2);
    tcase_add_loop_test(move, a_refused_move_leaves_all_as_it_was, 0, 2);
    tcase_add_test(move, without_room_the_element_is_back);
    tcase_add_loop_test(move, an_expiry_is_the_lists_own, 0, 2);
    tcase_add_test(move, a_move_is_told_as_leases_of_both_shards);
    tcase_add_test(
        move, a_move_that_a_busy_lock_keeps_from_its_end_ends_with_a_later_call);
    tcase_add_test(move, a_dead_workers_move_is_done_or_not);
    tcase_add_test(move, who_comes_late_finds_a_move_over);
    tcase_add_test(move, a_move_whose_lists_went_is_over);
    suite_add_tcase(s, move);
    return run_suite(s);
}
