/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite permits: ipc/permits*.c and api/lock.c.
 * valgrind: no: workers that wait for each other take turns there
 */
#include "tests/unit/ipc.h"

#include "shm/guard/txn.h"
#include "shm/ipc/permits.h"

#include <poll.h>

static shd_lock *lock;
static struct shd_grant grant;

static struct permits *inner(void)
{
    return (struct permits *)(void *)((struct handle_object *)(void *)lock)
        ->view;
}

static void open_kind(const char *name, uint32_t kind, uint32_t permits)
{
    struct shd_lock_options o = {.struct_size = sizeof(o),
                                 .flags = SHD_LOCK_CREATE,
                                 .permits = permits,
                                 .waiters_max = 6};

    expect(shd_lock_open(segment, name, kind, &o, &lock), SHD_OK);
}

static void start(uint32_t kind, uint32_t permits)
{
    start_segment();
    open_kind("l", kind, permits);
}

static int try(void)
{
    return shd_lock_acquire(lock, 0, 0, &grant);
}

/* The token. */
static uint64_t acquire(void)
{
    expect(try(), SHD_OK);
    return grant.token;
}

static struct shd_lock_info info(void)
{
    struct shd_lock_info i = {.struct_size = sizeof(i)};

    expect(shd_lock_info(lock, &i), SHD_OK);
    return i;
}

/* Until that many stand in line; the test's own time limit bounds it. */
static void until_waiting(uint32_t n)
{
    while (info().waiting != n)
        usleep(1000);
}

START_TEST(a_lock_is_made_once_and_opened_with_what_it_has)
{
    struct shd_lock_options o = {.struct_size = sizeof(o), .permits = 4};
    shd_lock *again;

    start(SHD_OBJECT_SEMAPHORE, 3);
    expect(shd_lock_open(segment, "l", SHD_OBJECT_SEMAPHORE, NULL, &again),
           SHD_OK);
    ck_assert_ptr_eq(again, lock);
    expect(shd_lock_open(segment, "l", SHD_OBJECT_SEMAPHORE, &o, &again),
           SHD_MISMATCH);
    expect_said("3 permits, not 4");
    expect(shd_lock_open(segment, "l", SHD_OBJECT_LOCK, NULL, &again),
           SHD_MISMATCH);
    expect(shd_lock_open(segment, "x", SHD_OBJECT_LOCK, NULL, &again),
           SHD_NOTFOUND);
    expect(shd_lock_open(segment, "x", SHD_OBJECT_LOCK, &o, &again),
           SHD_INVAL);
    expect(shd_lock_open(segment, "x", SHD_OBJECT_TOPIC, NULL, &again),
           SHD_INVAL);
    o.permits = 65536;
    o.flags = SHD_LOCK_CREATE;
    expect(shd_lock_open(segment, "x", SHD_OBJECT_SEMAPHORE, &o, &again),
           SHD_INVAL);
    sound();
}
END_TEST

START_TEST(a_lock_is_held_by_one_and_given_back)
{
    uint64_t token;
    int64_t ttl = 7;

    start(SHD_OBJECT_LOCK, 0);
    token = acquire();
    ck_assert_uint_eq(grant.former, SHD_FORMER_RELEASED);
    expect(try(), SHD_BUSY);
    expect(shd_lock_acquire(lock, 20, 0, &grant), SHD_BUSY);
    expect(shd_lock_check(lock, token, &ttl), SHD_OK);
    ck_assert_int_eq(ttl, 0);
    ck_assert_uint_eq(info().taken, 1);
    ck_assert_uint_eq(info().waiting, 0);
    expect(shd_lock_release(lock, token), SHD_OK);
    expect(shd_lock_release(lock, token), SHD_LOST);
    expect(shd_lock_check(lock, token, NULL), SHD_LOST);
    ck_assert_uint_eq(info().taken, 0);
    sound();
}
END_TEST

START_TEST(tokens_only_grow_and_are_good_once)
{
    uint64_t last = 0;

    start(SHD_OBJECT_SEMAPHORE, 5);
    for (int i = 0; i < 100; i++) {
        uint64_t a = acquire(), b = acquire();

        ck_assert_uint_gt(a, last);
        ck_assert_uint_gt(b, a);
        last = b;
        expect(shd_lock_release(lock, a), SHD_OK);
        expect(shd_lock_release(lock, a), SHD_LOST);
        expect(shd_lock_release(lock, b), SHD_OK);
    }
    expect(shd_lock_release(lock, 0), SHD_LOST);
    expect(shd_lock_release(lock, last + 5), SHD_LOST);
    sound();
}
END_TEST

START_TEST(a_semaphore_has_its_permits_and_no_more)
{
    uint64_t token[3];

    start(SHD_OBJECT_SEMAPHORE, 3);
    for (int i = 0; i < 3; i++)
        token[i] = acquire();
    expect(try(), SHD_BUSY);
    expect(shd_lock_release(lock, token[1]), SHD_OK);
    (void)acquire();
    expect(try(), SHD_BUSY);
    ck_assert_uint_eq(info().taken, 3);
    sound();
}
END_TEST

START_TEST(another_workers_token_is_not_ones_own)
{
    uint64_t token;
    pid_t pid;

    start(SHD_OBJECT_LOCK, 0);
    token = acquire();
    running_worker(pid, {
        expect(shd_lock_release(lock, token), SHD_LOST);
        expect(shd_lock_check(lock, token, NULL), SHD_LOST);
        expect(shd_lock_extend(lock, token, 5), SHD_LOST);
        expect(try(), SHD_BUSY);
    });
    ends_well(pid);
    expect(shd_lock_check(lock, token, NULL), SHD_OK);
}
END_TEST

START_TEST(arguments_are_checked)
{
    start(SHD_OBJECT_LOCK, 0);
    expect(shd_lock_acquire(NULL, 0, 0, &grant), SHD_INVAL);
    expect(shd_lock_acquire(lock, -2, 0, &grant), SHD_INVAL);
    expect(shd_lock_acquire(lock, 0, -1, &grant), SHD_INVAL);
    expect(shd_lock_acquire(lock, 0, 0, NULL), SHD_INVAL);
    expect(shd_lock_poll(lock, 77, &grant), SHD_LOST);
    expect(shd_lock_cancel(lock, 65535, &grant), SHD_LOST);
    expect(shd_lock_close(lock), SHD_OK);
    expect(shd_lock_acquire(lock, 0, 0, &grant), SHD_CLOSED);
}
END_TEST

/* ---- deaths -------------------------------------------------------------- */

START_TEST(a_dead_holders_lock_is_had_at_once_and_marked)
{
    uint64_t token;

    start(SHD_OBJECT_LOCK, 0);
    dying_worker((void)acquire());
    token = acquire();
    ck_assert_uint_eq(grant.former, SHD_FORMER_DIED);
    ck_assert_uint_eq(token, 2);
    ck_assert_uint_eq(info().deaths, 1);
    expect(shd_lock_release(lock, token), SHD_OK);
    (void)acquire();
    ck_assert_uint_eq(grant.former, SHD_FORMER_RELEASED);
    sound();
}
END_TEST

START_TEST(a_reap_gives_back_what_the_dead_held)
{
    uint32_t reaped = 0;

    start(SHD_OBJECT_SEMAPHORE, 4);
    dying_worker({
        (void)acquire();
        (void)acquire();
        (void)acquire();
    });
    ck_assert_uint_eq(info().taken, 3);
    expect(shd_reap(segment, &reaped), SHD_OK);
    ck_assert_uint_eq(reaped, 1);
    ck_assert_uint_eq(info().taken, 0);
    ck_assert_uint_eq(info().deaths, 3);
    sound();
}
END_TEST

START_TEST(a_waiter_gets_the_lock_of_a_holder_that_dies)
{
    pid_t holder, waiter;

    start(SHD_OBJECT_LOCK, 0);
    stopped_worker(holder, (void)acquire());
    running_worker(waiter, {
        expect(shd_lock_acquire(lock, 20000, 0, &grant), SHD_OK);
        ck_assert_uint_eq(grant.former, SHD_FORMER_DIED);
    });
    until_waiting(1);
    kill_worker(holder);
    /* Nobody reaps: the waiter finds out by itself. */
    ends_well(waiter);
    sound();
    ck_assert_uint_eq(acquire(), 3);
}
END_TEST

START_TEST(a_dead_waiter_is_passed_over)
{
    uint64_t token;
    pid_t dead, alive;

    start(SHD_OBJECT_LOCK, 0);
    token = acquire();
    running_worker(dead, expect(shd_lock_acquire(lock, 20000, 0, &grant),
                                SHD_OK));
    until_waiting(1);
    running_worker(alive, {
        expect(shd_lock_acquire(lock, 20000, 0, &grant), SHD_OK);
        ck_assert_uint_eq(grant.former, SHD_FORMER_RELEASED);
    });
    until_waiting(2);
    kill_worker(dead);
    expect(shd_lock_release(lock, token), SHD_OK);
    ends_well(alive);
    expect(shd_reap(segment, NULL), SHD_OK);
    ck_assert_uint_eq(info().waiting, 0);
    ck_assert_uint_eq(info().taken, 0);
    sound();
}
END_TEST

START_TEST(one_that_dies_with_a_grant_it_never_saw_loses_nothing)
{
    uint64_t token;
    pid_t pid;
    uint64_t ticket;

    start(SHD_OBJECT_LOCK, 0);
    token = acquire();
    stopped_worker(pid,
                   expect(shd_lock_request(lock, 0, &grant, &ticket), 1));
    expect(shd_lock_release(lock, token), SHD_OK);
    expect(try(), SHD_BUSY);
    ck_assert_uint_eq(info().taken, 1);
    kill_worker(pid);
    (void)acquire();
    ck_assert_uint_eq(grant.former, SHD_FORMER_DIED);
    sound();
    expect(shd_reap(segment, NULL), SHD_OK);
    sound();
}
END_TEST

/* ---- the line ------------------------------------------------------------ */

START_TEST(waiters_get_their_turn_in_the_order_of_asking)
{
    uint64_t token;
    pid_t pid[4];

    start(SHD_OBJECT_LOCK, 0);
    token = acquire();
    for (int i = 0; i < 4; i++) {
        running_worker(pid[i], {
            expect(shd_lock_acquire(lock, 20000, 0, &grant), SHD_OK);
            /* The holder's is 1. */
            ck_assert_uint_eq(grant.token, 2u + (unsigned)i);
            expect(shd_lock_release(lock, grant.token), SHD_OK);
        });
        until_waiting((uint32_t)i + 1);
    }
    /* Who comes by does not get in before them. */
    expect(try(), SHD_BUSY);
    expect(shd_lock_release(lock, token), SHD_OK);
    for (int i = 0; i < 4; i++)
        ends_well(pid[i]);
    ck_assert_uint_eq(acquire(), 6);
    sound();
}
END_TEST

START_TEST(a_waiter_that_gives_up_leaves_the_line)
{
    uint64_t token, ticket[6], one_more;

    start(SHD_OBJECT_LOCK, 0);
    token = acquire();
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 6; i++)
            expect(shd_lock_request(lock, 0, &grant, &ticket[i]), 1);
        expect(shd_lock_request(lock, 0, &grant, &one_more), SHD_FULL);
        sound();
        /* From the middle, the end, the beginning. */
        for (int i = 0; i < 6; i++) {
            int k = (i * 5 + 3) % 6;

            expect(shd_lock_poll(lock, ticket[k], &grant), 1);
            expect(shd_lock_cancel(lock, ticket[k], &grant), 1);
            expect(shd_lock_cancel(lock, ticket[k], &grant), SHD_LOST);
            sound();
        }
    }
    expect(shd_lock_release(lock, token), SHD_OK);
    ck_assert_uint_eq(info().taken, 0);
    sound();
}
END_TEST

START_TEST(what_was_granted_is_not_lost_by_leaving)
{
    uint64_t token, ticket;

    start(SHD_OBJECT_LOCK, 0);
    token = acquire();
    expect(shd_lock_request(lock, 0, &grant, &ticket), 1);
    expect(shd_lock_release(lock, token), SHD_OK);
    expect(shd_lock_cancel(lock, ticket, &grant), SHD_OK);
    expect(shd_lock_release(lock, grant.token), SHD_OK);
    expect(shd_lock_poll(lock, ticket, &grant), SHD_LOST);
    sound();
}
END_TEST

START_TEST(the_bell_rings_when_it_is_granted)
{
    struct pollfd p = {.events = POLLIN};
    uint64_t token, ticket;

    start(SHD_OBJECT_LOCK, 0);
    p.fd = shd_worker_fd(segment);
    ck_assert_int_ge(p.fd, 0);
    token = acquire();
    expect(shd_lock_request(lock, 0, &grant, &ticket), 1);
    ck_assert_int_eq(poll(&p, 1, 0), 0);
    expect(shd_lock_poll(lock, ticket, &grant), 1);
    expect(shd_lock_release(lock, token), SHD_OK);
    ck_assert_int_eq(poll(&p, 1, 10000), 1);
    expect(shd_worker_fd_clear(segment), SHD_OK);
    expect(shd_lock_poll(lock, ticket, &grant), SHD_OK);
    expect(shd_lock_check(lock, grant.token, NULL), SHD_OK);
    sound();
}
END_TEST

START_TEST(destroying_a_lock_ends_the_wait_for_it)
{
    pid_t pid;

    start(SHD_OBJECT_LOCK, 0);
    (void)acquire();
    running_worker(pid, expect(shd_lock_acquire(lock, 20000, 0, &grant),
                               SHD_GONE));
    until_waiting(1);
    expect(shd_object_destroy(segment, "l"), SHD_OK);
    ends_well(pid);
    expect(try(), SHD_GONE);
    sound();
}
END_TEST

/* ---- times to live ------------------------------------------------------- */

START_TEST(a_lock_whose_time_is_up_can_be_taken)
{
    uint64_t token;
    int64_t ttl;

    start(SHD_OBJECT_LOCK, 0);
    expect(shd_lock_acquire(lock, 0, 1000, &grant), SHD_OK);
    token = grant.token;
    expect(shd_lock_check(lock, token, &ttl), SHD_OK);
    ck_assert(ttl > 0 && ttl <= 1000);
    expect(try(), SHD_BUSY);
    clock_test_advance(1001);
    expect(shd_lock_check(lock, token, &ttl), SHD_LOST);
    (void)acquire();
    ck_assert_uint_eq(grant.former, SHD_FORMER_EXPIRED);
    expect(shd_lock_release(lock, token), SHD_LOST);
    expect(shd_lock_extend(lock, token, 5), SHD_LOST);
    ck_assert_uint_eq(info().expirations, 1);
    sound();
}
END_TEST

START_TEST(a_time_to_live_is_extended_and_ended)
{
    int64_t ttl;

    start(SHD_OBJECT_LOCK, 0);
    expect(shd_lock_acquire(lock, 0, 1000, &grant), SHD_OK);
    expect(shd_lock_extend(lock, grant.token, 5000), SHD_OK);
    clock_test_advance(2000);
    expect(shd_lock_check(lock, grant.token, &ttl), SHD_OK);
    ck_assert(ttl > 2000 && ttl <= 3000);
    expect(shd_lock_extend(lock, grant.token, 0), SHD_OK);
    clock_test_advance(100000);
    expect(shd_lock_check(lock, grant.token, &ttl), SHD_OK);
    ck_assert_int_eq(ttl, 0);
    expect(shd_lock_extend(lock, grant.token, 5), SHD_OK);
    sound();
    expect(shd_lock_release(lock, grant.token), SHD_OK);
    sound();
}
END_TEST

START_TEST(who_waits_gets_a_lock_when_its_time_is_up)
{
    uint64_t first;

    start(SHD_OBJECT_LOCK, 0);
    expect(shd_lock_acquire(lock, 0, 50, &grant), SHD_OK);
    first = grant.token;
    expect(shd_lock_acquire(lock, 20000, 0, &grant), SHD_OK);
    ck_assert_uint_eq(grant.former, SHD_FORMER_EXPIRED);
    ck_assert_uint_gt(grant.token, first);
    sound();
}
END_TEST

/* ---- looking ------------------------------------------------------------- */

START_TEST(holders_are_shown)
{
    struct shd_holder h = {.struct_size = sizeof(h)};

    start(SHD_OBJECT_SEMAPHORE, 3);
    expect(shd_lock_acquire(lock, 0, 5000, &grant), SHD_OK);
    dying_worker((void)acquire());
    expect(shd_lock_holder(lock, 0, &h), SHD_OK);
    ck_assert_uint_eq(h.owner, me());
    ck_assert_uint_eq(h.dead, 0);
    ck_assert_uint_eq(h.token, grant.token);
    ck_assert(h.ttl_ms > 0 && h.ttl_ms <= 5000);
    expect(shd_lock_holder(lock, 1, &h), SHD_OK);
    ck_assert_uint_eq(h.dead, 1);
    ck_assert_int_eq(h.ttl_ms, 0);
    expect(shd_lock_holder(lock, 2, &h), SHD_NOTFOUND);
    expect(shd_lock_holder(lock, 3, &h), SHD_INVAL);
}
END_TEST

/* ---- damage -------------------------------------------------------------- */

static void start_damaged(void)
{
    uint64_t ticket;

    start(SHD_OBJECT_SEMAPHORE, 4);
    for (int i = 0; i < 4; i++)
        (void)acquire();
    expect(shd_lock_request(lock, 0, &grant, &ticket), 1);
    expect(shd_lock_request(lock, 0, &grant, &ticket), 1);
    expect(shd_lock_request(lock, 0, &grant, &ticket), 1);
    expect(shd_lock_cancel(lock, ticket, &grant), 1);
    sound();
}

#define damaged(word, value, text)                                            \
    do {                                                                      \
        __typeof__(word) was_ = (word);                                       \
        (word) = (value);                                                     \
        expect_check_names(text);                                             \
        (word) = was_;                                                        \
        sound();                                                              \
    } while (0)

START_TEST(damage_is_named)
{
    struct permits_header *h;
    struct permit_slot *s;
    struct permit_waiter *w;

    start_damaged();
    h = inner()->header;
    s = inner()->slots;
    w = inner()->waiters;
    damaged(h->permits, 5, "its numbers of permits and waiters");
    damaged(h->slots_taken, 3, "the count of permits taken is not 4");
    damaged(h->limited, 1, "the count of permits with a limit is not 0");
    damaged(h->slots_free, 2, "a free permit has an owner: number 1");
    damaged(h->slots_free, 9, "the list of free permits is broken at 9");
    damaged(h->tokens, 2, "a token that was never given: permit");
    damaged(s[1].token, 8, "a token that was never given: permit 1");
    damaged(s[2].owner, 0, "neither free nor taken is permit 2");
    damaged(s[2].mark, 5, "an unknown mark: permit 2");
    damaged(h->waiting, 1, "the count of waiters is not 2");
    damaged(h->waiters_first, 0, "the last in line is not 0");
    damaged(h->waiters_first, 7, "the line of waiters is broken at 7");
    damaged(h->waiters_last, 1, "the last in line is not 2");
    damaged(w[1].next, 1, "the line of waiters is broken at 1");
    damaged(w[1].prev, 0, "a waiter does not know who is before it: 1");
    damaged(w[1].ticket, 1, "out of turn is waiter 1");
    damaged(w[1].state, PERMIT_GRANTED, "in line, but not waiting, is waiter 1");
    damaged(w[0].owner, 0, "nobody's is waiter 0");
    damaged(w[2].state, 9, "in use is free waiter 2");
    damaged(h->waiters_free, 0, "neither in line nor free is waiter 2");
    damaged(h->waiters_free, 8, "the list of free waiters is broken at 8");
    damaged(h->waiters_used, 99, "more waiters than there is room for: 99");
}
END_TEST

START_TEST(a_free_permit_beside_a_waiter_is_named)
{
    struct permits_header *h;

    start_damaged();
    h = inner()->header;
    inner()->slots[3].owner = 0;
    inner()->slots[3].next = 0;
    h->slots_free = 4;
    h->slots_taken = 3;
    expect_check_names("somebody waits, and free is permit 3");
}
END_TEST

START_TEST(a_damaged_line_is_corrupt_and_never_followed)
{
    start_damaged();
    inner()->header->waiters_first = 77777;
    expect(shd_lock_release(lock, inner()->slots[0].token), SHD_CORRUPT);
    inner()->header->waiters_first = 1;
    inner()->waiters[0].next = 77777;
    expect(shd_lock_release(lock, inner()->slots[0].token), SHD_CORRUPT);
    inner()->waiters[0].next = 2;
    expect(shd_lock_release(lock, inner()->slots[0].token), SHD_OK);
    sound();
}
END_TEST

/* ---- beside each other --------------------------------------------------- */

/* Counting with plain loads and stores under the lock: none is lost, whoever
 * dies on the way. */
START_TEST(never_two_holders)
{
    enum { WORKERS = 4, EACH = 300 };
    volatile uint64_t *shared =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
             -1, 0);
    pid_t pid[WORKERS];

    ck_assert_ptr_ne((void *)shared, MAP_FAILED);
    start(SHD_OBJECT_LOCK, 0);
    for (int i = 0; i < WORKERS; i++)
        running_worker(pid[i], {
            for (int n = 0; n < EACH; n++) {
                uint64_t was;
                expect(shd_lock_acquire(lock, 20000, 0, &grant), SHD_OK);
                was = shared[0];
                ck_assert_uint_gt(grant.token, shared[1]);
                shared[1] = grant.token;
                if (n % 16 == 0)
                    sched_yield();
                shared[0] = was + 1;
                expect(shd_lock_release(lock, grant.token), SHD_OK);
            }
        });
    for (int i = 0; i < WORKERS; i++)
        ends_well(pid[i]);
    ck_assert_uint_eq(shared[0], WORKERS * EACH);
    ck_assert_uint_eq(info().grants, WORKERS * EACH);
    ck_assert_uint_eq(info().taken, 0);
    sound();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("permits");
    TCase *c = tcase_create("permits");

    tcase_set_timeout(c, 60);
    tcase_add_test(c, a_lock_is_made_once_and_opened_with_what_it_has);
    tcase_add_test(c, a_lock_is_held_by_one_and_given_back);
    tcase_add_test(c, tokens_only_grow_and_are_good_once);
    tcase_add_test(c, a_semaphore_has_its_permits_and_no_more);
    tcase_add_test(c, another_workers_token_is_not_ones_own);
    tcase_add_test(c, arguments_are_checked);
    tcase_add_test(c, a_dead_holders_lock_is_had_at_once_and_marked);
    tcase_add_test(c, a_reap_gives_back_what_the_dead_held);
    tcase_add_test(c, a_waiter_gets_the_lock_of_a_holder_that_dies);
    tcase_add_test(c, a_dead_waiter_is_passed_over);
    tcase_add_test(c, one_that_dies_with_a_grant_it_never_saw_loses_nothing);
    tcase_add_test(c, waiters_get_their_turn_in_the_order_of_asking);
    tcase_add_test(c, a_waiter_that_gives_up_leaves_the_line);
    tcase_add_test(c, what_was_granted_is_not_lost_by_leaving);
    tcase_add_test(c, the_bell_rings_when_it_is_granted);
    tcase_add_test(c, destroying_a_lock_ends_the_wait_for_it);
    tcase_add_test(c, a_lock_whose_time_is_up_can_be_taken);
    tcase_add_test(c, a_time_to_live_is_extended_and_ended);
    tcase_add_test(c, who_waits_gets_a_lock_when_its_time_is_up);
    tcase_add_test(c, holders_are_shown);
    tcase_add_test(c, damage_is_named);
    tcase_add_test(c, a_free_permit_beside_a_waiter_is_named);
    tcase_add_test(c, a_damaged_line_is_corrupt_and_never_followed);
    tcase_add_test(c, never_two_holders);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
