/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite guard: guard/guard.c, guard/txn.c and guard/reading.c over a real
 * segment, with real deaths. The words that the transactions change lie in
 * the first page of the segment's extents.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "shm/base/error.h"
#include "shm/guard/reading.h"
#include "shm/guard/robust.h"
#include "shm/guard/txn.h"
#include "tests/unit/support.h"

#define WORDS 6
#define GUARD 2 /* the one under test */

static struct segment segment;
static struct guard_env env;
static struct guard *guard;
static uint64_t *words; /* WORDS of them, 100 + i; then owner, map */
static uint32_t *owner;
static uint64_t *map;

static void set_up(void)
{
    support_segment(NULL, &segment, &env);
    expect(segment_commit(&segment, segment.extents_at, SEGMENT_PAGE), SHD_OK);
    guard = guard_at(&segment, GUARD);
    expect(segment_commit(&segment, segment_offset(&segment, guard),
                          sizeof(*guard)),
           SHD_OK);
    words = segment_at(&segment, segment.extents_at, SEGMENT_PAGE);
    for (uint64_t i = 0; i < WORDS; i++)
        words[i] = 100 + i;
    map = &words[WORDS];
    *map = ~0ull;
    owner = (uint32_t *)&words[WORDS + 1];
    env.incarnation = 0x10000;
}

static void tear_down(void)
{
    segment_close(&segment);
}

static void expect_words(uint64_t base)
{
    for (uint64_t i = 0; i < WORDS; i++)
        ck_assert_uint_eq(words[i], base + i);
}

static void expect_at_rest(void)
{
    char report[256];

    ck_assert_uint_eq(guard->seq & 1, 0);
    ck_assert_uint_eq(guard->state, 0);
    expect(guard_check(guard, report, sizeof(report)), SHD_OK);
}

/* A transaction with the first n of its stores. */
static void begin_and_store(struct txn *t, uint64_t n)
{
    txn_begin(t, &segment, guard, WORDS);
    for (uint64_t i = 0; i < n; i++)
        txn_store64(t, &words[i], 200 + i);
}

/* ---- the lock --------------------------------------------------------- */

START_TEST(a_lock_is_taken_and_let_go)
{
    expect(guard_lock(&env, guard), SHD_OK);
    ck_assert_uint_eq(guard_holder(guard), env.incarnation);
    guard_unlock(guard);
    ck_assert_uint_eq(guard_holder(guard), 0);
    ck_assert_uint_eq(guard->recoveries, 0);
    ck_assert_uint_eq(guard->waits, 0);
    expect_at_rest();
}
END_TEST

static uint32_t *lock_word(void)
{
    return &guard->lock;
}

/* Keeps the lock until somebody sleeps for it. */
static void *lock_until_wanted(void *unused)
{
    (void)unused;
    if (guard_lock(&env, guard) != SHD_OK)
        return "not locked";
    while ((atomic_load32(lock_word()) & FUTEX_WAITERS) == 0)
        support_sleep_ms(1);
    guard_unlock(guard);
    return NULL;
}

START_TEST(waiting_for_a_live_owner_ends_when_it_lets_go)
{
    pthread_t thread;
    void *result;

    ck_assert_int_eq(pthread_create(&thread, NULL, lock_until_wanted, NULL),
                     0);
    while (guard_holder(guard) == 0)
        support_sleep_ms(1);
    expect(guard_trylock(&env, guard), SHD_BUSY);
    env.wait_ms = 30000;
    expect(guard_lock(&env, guard), SHD_OK);
    ck_assert_uint_eq(guard->waits, 1);
    guard_unlock(guard);
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_ptr_null(result);
}
END_TEST

START_TEST(a_stopped_owner_is_busy_after_the_bound_and_recovered_once_killed)
{
    int64_t start, waited;
    pid_t child;

    env.wait_ms = 80;
    dying_child(child, {
        struct txn t;

        if (guard_lock(&env, guard) == SHD_OK) {
            begin_and_store(&t, 3);
            raise(SIGSTOP);
        }
        _exit(1);
    });
    support_wait_stopped(child);
    start = support_now_ms();
    expect(guard_lock(&env, guard), SHD_BUSY);
    waited = support_now_ms() - start;
    expect_said("80 ms");
    ck_assert_int_ge(waited, 79);
    ck_assert_int_lt(waited, 2000);
    expect(guard_reap(&env, guard), 0);
    ck_assert_uint_eq(words[0], 200);
    support_kill(child);
    expect(guard_lock(&env, guard), SHD_OK);
    expect_words(100);
    guard_unlock(guard);
}
END_TEST

START_TEST(a_thread_has_one_lock_at_a_time)
{
    uint32_t other = 0;

    expect(guard_lock(&env, guard), SHD_OK);
    ck_assert_int_eq(robust_trylock(&guard->lock), EBUSY);
    ck_assert_int_eq(robust_trylock(&other), EDEADLK);
    ck_assert_uint_eq(other, 0);
    guard_unlock(guard);
    ck_assert_int_eq(robust_trylock(&other), 0);
    expect(guard_lock(&env, guard), SHD_SYS);
    expect_said("deadlock");
    ck_assert_int_eq(robust_unlock(&other), 0);
}
END_TEST

START_TEST(a_lock_dropped_without_a_wake_up_is_found_within_slices)
{
    uint32_t *word = lock_word();
    int status;
    pid_t child;

    /* As if this thread had it; then as if the wake-up had gone to a waiter
     * that was killed. */
    atomic_store32(word, (uint32_t)syscall(SYS_gettid));
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        env.wait_ms = 10000;
        _exit(guard_lock(&env, guard) == SHD_OK ? 0 : 1);
    }
    while ((atomic_load32(word) & FUTEX_WAITERS) == 0)
        support_sleep_ms(1);
    support_sleep_ms(5);
    int64_t start = support_now_ms();
    atomic_store32(word, 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_int_lt(support_now_ms() - start, 2000);
}
END_TEST

/* Is the process asleep in futex()? */
static bool sleeps_in_futex(pid_t pid)
{
    char path[64], text[64] = "";
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/syscall", (int)pid);
    fd = open(path, O_RDONLY);
    if (fd < 0)
        return false;
    if (read(fd, text, sizeof(text) - 1) < 0)
        text[0] = '\0';
    close(fd);
    return strtol(text, NULL, 10) == SYS_futex && text[0] != 'r';
}

START_TEST(a_kick_wakes_every_stranded_waiter)
{
    uint32_t *word = lock_word();
    pid_t child[3];
    int status;

    for (int i = 0; i < 3; i++) {
        child[i] = fork();
        ck_assert_int_ge(child[i], 0);
        if (child[i] == 0) {
            /* Asleep on a free lock, with no end: what is left of a waiter
             * whose wake-up was lost. */
            long rc = syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0);

            _exit(rc == 0 ? 0 : 1);
        }
    }
    for (int i = 0; i < 3; i++)
        while (!sleeps_in_futex(child[i]))
            support_sleep_ms(1);
    guard_kick(guard);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(waitpid(child[i], &status, 0), child[i]);
        ck_assert_int_eq(status, 0);
    }
}
END_TEST

static void lose_owner(pid_t *child)
{
    dying_child(*child, {
        static struct robust_list_head empty;
        struct txn t;

        if (guard_lock(&env, guard) != SHD_OK)
            _exit(1);
        begin_and_store(&t, 4);
        /* The kernel walks an empty list at death: the lock word goes on
         * naming a thread that is gone. */
        empty.list.next = &empty.list;
        syscall(SYS_set_robust_list, &empty, sizeof(empty));
    });
}

START_TEST(a_lost_owner_that_is_a_zombie_is_recovered)
{
    siginfo_t info;
    pid_t child;

    lose_owner(&child);
    ck_assert_int_eq(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    ck_assert_uint_eq(guard->lock & FUTEX_OWNER_DIED,
                      0);
    expect(guard_lock(&env, guard), SHD_OK);
    expect_words(100);
    ck_assert_uint_eq(guard->recoveries, 1);
    guard_unlock(guard);
    support_wait_killed(child);
}
END_TEST

START_TEST(a_lost_owner_is_recovered_within_the_last_slice)
{
    pid_t child;

    env.wait_ms = 1;
    lose_owner(&child);
    support_wait_killed(child);
    expect(guard_lock(&env, guard), SHD_OK);
    expect_words(100);
    ck_assert_uint_eq(guard->recoveries, 1);
    guard_unlock(guard);
}
END_TEST

START_TEST(a_lost_owner_that_is_gone_is_recovered_by_a_reap)
{
    pid_t child;

    lose_owner(&child);
    support_wait_killed(child);
    ck_assert_uint_eq(guard->lock & FUTEX_OWNER_DIED,
                      0);
    expect(guard_reap(&env, guard), 1);
    expect_words(100);
    expect(guard_reap(&env, guard), 0);
    expect_at_rest();
}
END_TEST

START_TEST(a_lost_live_owner_is_left_alone)
{
    uint32_t *word = lock_word();
    int pipe_fd[2];
    pid_t child;
    char c;

    ck_assert_int_eq(pipe(pipe_fd), 0);
    dying_child(child, {
        if (guard_lock(&env, guard) != SHD_OK)
            _exit(1);
        if (write(pipe_fd[1], "x", 1) != 1)
            _exit(1);
        pause();
    });
    ck_assert_int_eq(read(pipe_fd[0], &c, 1), 1);
    env.wait_ms = 100;
    expect(guard_reap(&env, guard), 0);
    expect(guard_lock(&env, guard), SHD_BUSY);
    ck_assert_int_eq((pid_t)(atomic_load32(word) & FUTEX_TID_MASK), child);
    support_kill(child);
}
END_TEST

START_TEST(reaping_a_free_lock_does_nothing)
{
    expect(guard_reap(&env, guard), 0);
    ck_assert_uint_eq(guard->recoveries, 0);
    expect(guard_lock(&env, guard), SHD_OK);
    guard_unlock(guard);
}
END_TEST

START_TEST(there_is_no_guard_past_the_table)
{
    ck_assert_ptr_nonnull(guard_at(&segment, segment.locks_max - 1));
    ck_assert_ptr_null(guard_at(&segment, segment.locks_max));
    ck_assert_ptr_null(guard_at(&segment, UINT32_MAX));
}
END_TEST

/* ---- transactions ----------------------------------------------------- */

START_TEST(a_committed_transaction_stays)
{
    struct txn t;
    uint64_t seq = guard->seq;

    expect(guard_lock(&env, guard), SHD_OK);
    begin_and_store(&t, WORDS);
    ck_assert_uint_eq(guard->seq, seq + 1);
    txn_commit(&t);
    guard_unlock(guard);
    expect_words(200);
    ck_assert_uint_eq(guard->seq, seq + 2);
    expect_at_rest();
}
END_TEST

START_TEST(an_aborted_transaction_was_never_there)
{
    struct txn t;
    uint64_t seq = guard->seq;

    expect(guard_lock(&env, guard), SHD_OK);
    begin_and_store(&t, WORDS - 1);
    /* The same word twice: the oldest value must win. */
    txn_store64(&t, &words[0], 999);
    txn_abort(&t);
    guard_unlock(guard);
    expect_words(100);
    ck_assert_uint_eq(guard->seq, seq + 2);
    expect_at_rest();
}
END_TEST

START_TEST(halves_of_words_are_undone_with_their_neighbours)
{
    uint32_t *half = (uint32_t *)(void *)words;
    uint64_t before = words[0];
    struct txn t;

    expect(guard_lock(&env, guard), SHD_OK);
    txn_begin(&t, &segment, guard, 2);
    txn_store32(&t, &half[1], 0xabcd);
    txn_store32(&t, &half[0], 0x1234);
    ck_assert_uint_eq(words[0], 0xabcd00001234ull);
    txn_abort(&t);
    ck_assert_uint_eq(words[0], before);
    guard_unlock(guard);
}
END_TEST

START_TEST(a_death_after_any_store_undoes_all_of_them)
{
    for (uint64_t n = 0; n <= WORDS; n++) {
        uint64_t seq = guard->seq;
        pid_t child;

        dying_child(child, {
            struct txn t;

            if (guard_lock(&env, guard) != SHD_OK)
                _exit(1);
            begin_and_store(&t, n);
        });
        support_wait_killed(child);
        ck_assert_uint_eq(guard->seq, seq + 1);
        for (uint64_t i = 0; i < n; i++)
            ck_assert_uint_eq(words[i], 200 + i);
        expect(guard_lock(&env, guard), SHD_OK);
        expect_words(100);
        /* Forward: a reader that began before must not be fooled. */
        ck_assert_uint_eq(guard->seq, seq + 2);
        guard_unlock(guard);
        ck_assert_uint_eq(guard->recoveries, n + 1);
        expect_at_rest();
    }
}
END_TEST

START_TEST(a_death_between_log_and_store_changes_nothing)
{
    pid_t child;

    dying_child(child, {
        struct txn t;

        if (guard_lock(&env, guard) != SHD_OK)
            _exit(1);
        txn_begin(&t, &segment, guard, WORDS);
        txn_log(&t, &words[0]);
    });
    support_wait_killed(child);
    expect(guard_reap(&env, guard), 1);
    expect_words(100);
    expect_at_rest();
}
END_TEST

START_TEST(a_death_after_commit_keeps_everything)
{
    pid_t child;

    dying_child(child, {
        struct txn t;

        if (guard_lock(&env, guard) != SHD_OK)
            _exit(1);
        begin_and_store(&t, WORDS);
        txn_commit(&t);
    });
    support_wait_killed(child);
    expect(guard_reap(&env, guard), 1);
    expect_words(200);
    expect_at_rest();
}
END_TEST

START_TEST(a_death_between_commit_and_the_even_counter_keeps_everything)
{
    uint64_t seq = guard->seq;
    pid_t child;

    dying_child(child, {
        struct txn t;

        if (guard_lock(&env, guard) != SHD_OK)
            _exit(1);
        begin_and_store(&t, WORDS);
        atomic_store64(&guard->state, 0); /* the commit, and no more */
    });
    support_wait_killed(child);
    expect(guard_reap(&env, guard), 1);
    expect_words(200);
    ck_assert_uint_eq(guard->seq, seq + 2);
    expect_at_rest();
}
END_TEST

START_TEST(recovery_cut_off_anywhere_runs_again)
{
    /* The log as it is after n stores, replayed by hand from the newest on
     * for m entries: that is what a dead recoverer leaves. */
    for (uint64_t m = 0; m <= WORDS; m++) {
        pid_t child;

        dying_child(child, {
            struct txn t;

            if (guard_lock(&env, guard) != SHD_OK)
                _exit(1);
            begin_and_store(&t, WORDS);
        });
        support_wait_killed(child);
        dying_child(child, {
            /* EOWNERDEAD, and death before it is recovered. */
            if (robust_trylock(&guard->lock) != EOWNERDEAD)
                _exit(1);
            for (uint64_t i = WORDS; i-- > WORDS - m;)
                words[i] = 100 + i;
        });
        support_wait_killed(child);
        expect(guard_lock(&env, guard), SHD_OK);
        expect_words(100);
        guard_unlock(guard);
        expect_at_rest();
    }
}
END_TEST

START_TEST(a_full_log_is_undone)
{
    uint64_t *many = words + 64;
    pid_t child;

    expect(segment_commit(&segment, segment.extents_at, 2 * SEGMENT_PAGE),
           SHD_OK);
    for (uint64_t i = 0; i < GUARD_UNDO_MAX; i++)
        many[i] = i;
    dying_child(child, {
        struct txn t;

        if (guard_lock(&env, guard) != SHD_OK)
            _exit(1);
        txn_begin(&t, &segment, guard, GUARD_UNDO_MAX);
        for (uint64_t i = 0; i < GUARD_UNDO_MAX; i++)
            txn_store64(&t, &many[i], ~0ull);
    });
    support_wait_killed(child);
    expect(guard_reap(&env, guard), 1);
    for (uint64_t i = 0; i < GUARD_UNDO_MAX; i++)
        ck_assert_uint_eq(many[i], i);
}
END_TEST

/* ---- claims and releases ---------------------------------------------- */

START_TEST(a_claim_takes_what_is_free_and_only_that)
{
    struct txn t;

    expect(guard_lock(&env, guard), SHD_OK);
    txn_begin(&t, &segment, guard, 0);
    ck_assert(txn_claim(&t, owner, 5, map, 3));
    ck_assert(!txn_claim(&t, owner, 5, map, 3));
    txn_commit(&t);
    ck_assert_uint_eq(*owner, 5);
    ck_assert_uint_eq(*map, ~(1ull << 3));
    txn_begin(&t, &segment, guard, 0);
    ck_assert(!txn_claim(&t, owner, 6, map, 3));
    txn_abort(&t);
    ck_assert_uint_eq(*owner, 5);
    guard_unlock(guard);
    expect_at_rest();
}
END_TEST

START_TEST(a_claim_is_given_back_by_abort_and_by_death)
{
    struct txn t;
    pid_t child;

    expect(guard_lock(&env, guard), SHD_OK);
    txn_begin(&t, &segment, guard, 1);
    ck_assert(txn_claim(&t, owner, 5, map, 3));
    txn_store64(&t, &words[0], 1);
    txn_abort(&t);
    guard_unlock(guard);
    ck_assert_uint_eq(*owner, 0);
    ck_assert_uint_eq(*map, ~0ull);
    expect_words(100);
    dying_child(child, {
        if (guard_lock(&env, guard) != SHD_OK)
            _exit(1);
        txn_begin(&t, &segment, guard, 1);
        if (!txn_claim(&t, owner, 5, map, 3))
            _exit(1);
        txn_store64(&t, &words[0], 1);
    });
    support_wait_killed(child);
    ck_assert_uint_eq(*owner, 5);
    expect(guard_reap(&env, guard), 1);
    ck_assert_uint_eq(*owner, 0);
    ck_assert_uint_eq(*map, ~0ull);
    expect_words(100);
}
END_TEST

START_TEST(a_claim_that_was_logged_and_lost_is_not_given_back)
{
    pid_t child;

    *owner = 9; /* another shard's */
    *map = 0;
    dying_child(child, {
        struct txn t;

        if (guard_lock(&env, guard) != SHD_OK)
            _exit(1);
        txn_begin(&t, &segment, guard, 0);
        /* Take it as ours for the log's sake, and be cut off before the
         * swap. */
        *owner = 0;
        if (!txn_claim(&t, owner, 5, map, 3))
            _exit(1);
        *owner = 9;
    });
    support_wait_killed(child);
    expect(guard_reap(&env, guard), 1);
    ck_assert_uint_eq(*owner, 9);
    ck_assert_uint_eq(*map, 0);
}
END_TEST

/* Dies by its own store: giving back the first of two claims, after it has
 * given back the second, whose owner word shares 8 bytes with a logged one. */
static void die_while_giving_back(uint32_t *owners, uint64_t *far_map)
{
    struct txn t;

    signal(SIGSEGV, SIG_DFL);
    if (guard_lock(&env, guard) != SHD_OK)
        _exit(1);
    txn_begin(&t, &segment, guard, 1);
    if (!txn_claim(&t, &owners[0], 5, far_map, 1) ||
        !txn_claim(&t, &owners[2], 5, map, 2))
        _exit(1);
    txn_store32(&t, &owners[3], 77);
    if (mprotect(far_map, SEGMENT_PAGE, PROT_READ) != 0)
        _exit(1);
    txn_abort(&t);
}

START_TEST(undoing_that_was_cut_off_spares_who_claimed_since)
{
    uint32_t *owners = (uint32_t *)(void *)&words[16];
    uint64_t *far_map = segment_at(
        &segment, segment.extents_at + SEGMENT_PAGE, SEGMENT_PAGE);
    pid_t child;
    int status;

    expect(segment_commit(&segment, segment.extents_at, 2 * SEGMENT_PAGE),
           SHD_OK);
    *far_map = ~0ull;
    owners[3] = 33;
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        die_while_giving_back(owners, far_map);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV,
                  "the child ended with status 0x%x", status);
    ck_assert_uint_eq(owners[0], 5);
    ck_assert_uint_eq(owners[2], 0);
    ck_assert_uint_eq(owners[3], 33);
    /* Another guard's transaction takes it, and uses its words. */
    owners[2] = 9;
    owners[3] = 99;
    *map &= ~(1ull << 2);
    expect(guard_reap(&env, guard), 1);
    ck_assert_uint_eq(owners[2], 9);
    ck_assert_uint_eq(owners[3], 99);
    ck_assert_uint_eq(*map, ~(1ull << 2));
    ck_assert_uint_eq(owners[0], 0);
    ck_assert_uint_eq(*far_map, ~0ull);
    expect_at_rest();
}
END_TEST

START_TEST(a_release_happens_at_commit_and_not_before)
{
    struct txn t;

    *owner = 5;
    *map = 0;
    expect(guard_lock(&env, guard), SHD_OK);
    txn_begin(&t, &segment, guard, 0);
    txn_release(&t, owner, 5, map, 7);
    ck_assert_uint_eq(*owner, 5);
    txn_abort(&t);
    ck_assert_uint_eq(*owner, 5);
    ck_assert_uint_eq(*map, 0);
    txn_begin(&t, &segment, guard, 0);
    txn_release(&t, owner, 5, map, 7);
    txn_commit(&t);
    ck_assert_uint_eq(*owner, 0);
    ck_assert_uint_eq(*map, 1ull << 7);
    guard_unlock(guard);
    expect_at_rest();
}
END_TEST

START_TEST(releases_of_a_dead_committer_are_completed_from_any_point)
{
    /* 0: nothing done yet; 1: the bit is set; 2: the owner word too. */
    for (int done = 0; done < 3; done++) {
        pid_t child;

        *owner = 5;
        *map = 0;
        dying_child(child, {
            struct txn t;

            if (guard_lock(&env, guard) != SHD_OK)
                _exit(1);
            txn_begin(&t, &segment, guard, 1);
            txn_store64(&t, &words[0], 200);
            txn_release(&t, owner, 5, map, 7);
            atomic_store64(&guard->state, txn_state(0, 0, 1));
            if (done > 0)
                *map = 1ull << 7;
            if (done > 1)
                *owner = 0;
        });
        support_wait_killed(child);
        expect(guard_reap(&env, guard), 1);
        ck_assert_uint_eq(words[0], 200);
        ck_assert_uint_eq(*owner, 0);
        ck_assert_uint_eq(*map, 1ull << 7);
        expect_at_rest();
    }
}
END_TEST

START_TEST(a_release_of_a_dead_committer_spares_the_next_owner)
{
    pid_t child;

    *map = 0;
    *owner = 5;
    dying_child(child, {
        struct txn t;

        if (guard_lock(&env, guard) != SHD_OK)
            _exit(1);
        txn_begin(&t, &segment, guard, 0);
        txn_release(&t, owner, 5, map, 7);
        atomic_store64(&guard->state, txn_state(0, 0, 1));
        *owner = 6; /* it was done, and another took it since */
    });
    support_wait_killed(child);
    expect(guard_reap(&env, guard), 1);
    ck_assert_uint_eq(*owner, 6);
    ck_assert_uint_eq(*map, 0);
}
END_TEST

/* ---- damage ----------------------------------------------------------- */

/* A child dies with 3 stores done; then the damage; then nobody gets the
 * lock, and nothing was put back. */
static void expect_not_replayed(void (*damage)(void))
{
    pid_t child;

    dying_child(child, {
        struct txn t;

        if (guard_lock(&env, guard) != SHD_OK)
            _exit(1);
        begin_and_store(&t, 3);
    });
    support_wait_killed(child);
    damage();
    expect(guard_lock(&env, guard), SHD_CORRUPT);
    for (uint64_t i = 0; i < 3; i++)
        ck_assert_uint_eq(words[i], 200 + i);
    ck_assert_uint_ne(guard->damaged, 0);
    expect_named(guard_check(guard, report_, sizeof(report_)),
                 "found damaged");
    expect(guard_lock(&env, guard), SHD_CORRUPT);
    expect(guard_trylock(&env, guard), SHD_CORRUPT);
    ck_assert_uint_eq(guard_holder(guard), 0);
}

static void damage_old_value(void)
{
    guard->undo[1].old ^= 1;
}
static void damage_where(void)
{
    guard->undo[0].where ^= 8;
}
static void damage_where_to_outside(void)
{
    /* With a tag that fits: only the bounds can tell. */
    uint64_t where = segment.size / 8;

    guard->undo[2].where =
        where | txn_tag(where, guard->undo[2].old, txn_salt(guard->seq));
}
static void damage_count_of_undo(void)
{
    guard->state = GUARD_UNDO_MAX + 1;
}
static void damage_count_beyond_the_log(void)
{
    guard->state = 4;
}
static void damage_with_an_old_log(void)
{
    guard->seq += 2;
}
static void damage_claims(void)
{
    guard->state = txn_state(3, 1, 0);
}
static void damage_releases(void)
{
    guard->state = txn_state(3, 0, 1);
}
static void damage_claims_beside_releases(void)
{
    guard->state = txn_state(0, 1, 1);
}
static void damage_releases_alone(void)
{
    guard->state = txn_state(0, 0, 1);
}
static void damage_count_of_releases(void)
{
    guard->state = txn_state(0, 0, GUARD_RELEASES_MAX + 1);
}
static void damage_upper_bits(void)
{
    guard->state |= 1ull << 50;
}
static void damage_seq_to_even(void)
{
    guard->seq++;
}

static void (*const damages[])(void) = {damage_old_value,
                                        damage_where,
                                        damage_where_to_outside,
                                        damage_count_of_undo,
                                        damage_count_beyond_the_log,
                                        damage_with_an_old_log,
                                        damage_claims,
                                        damage_releases,
                                        damage_claims_beside_releases,
                                        damage_releases_alone,
                                        damage_count_of_releases,
                                        damage_upper_bits,
                                        damage_seq_to_even};

START_TEST(a_damaged_log_is_never_replayed)
{
    expect_not_replayed(damages[_i]);
}
END_TEST

/* As a transaction of number 1 would have tagged it. */
static void fit_tag(struct guard_claim *c)
{
    c->tag = txn_tag(c->owner_at ^ (uint64_t)c->owner << 36,
                     c->map_at ^ (uint64_t)c->bit << 40, txn_salt(1));
}

START_TEST(a_claim_that_cannot_be_is_not_given_back)
{
    struct guard_claim c = {.owner_at = segment_offset(&segment, owner),
                            .map_at = segment_offset(&segment, map),
                            .owner = 5,
                            .bit = 3};
    struct guard_claim wrong[7] = {c, c, c, c, c, c, c};

    *owner = 5;
    *map = 0;
    wrong[0].bit = 64;
    wrong[1].owner = 0;
    wrong[2].owner_at += 2;
    wrong[3].map_at += 4;
    wrong[4].owner_at = segment.size;
    wrong[5].map_at = segment.size;
    for (int i = 0; i < 7; i++) {
        fit_tag(&wrong[i]);
        wrong[i].tag ^= i == 6 ? 1ull << 50 : 0;
        ck_assert(!txn_give_back(&segment, &wrong[i], 1));
        ck_assert_uint_eq(*owner, 5);
        ck_assert_uint_eq(*map, 0);
    }
    fit_tag(&c);
    ck_assert(!txn_give_back(&segment, &c, 3));
    ck_assert(txn_give_back(&segment, &c, 1));
    ck_assert_uint_eq(*owner, 0);
    ck_assert_uint_eq(*map, 1ull << 3);
}
END_TEST

START_TEST(a_claim_that_was_overwritten_is_not_given_back_by_an_abort)
{
    struct txn t;

    expect(guard_lock(&env, guard), SHD_OK);
    txn_begin(&t, &segment, guard, 0);
    ck_assert(txn_claim(&t, owner, 5, map, 3));
    guard->claims[0].bit = 4;
    txn_abort(&t);
    ck_assert_uint_eq(*owner, 5);
    ck_assert_uint_eq(*map, ~(1ull << 3));
    ck_assert_uint_eq(guard->damaged, 1);
    guard_unlock(guard);
}
END_TEST

START_TEST(a_live_owner_that_leaves_its_log_open_is_noticed)
{
    guard->state = txn_state(1, 0, 0);
    expect_named(guard_check(guard, report_, sizeof(report_)),
                 "log is not empty");
    expect(guard_lock(&env, guard), SHD_CORRUPT);
    guard->state = 0;
    guard->seq |= 1;
    expect_named(guard_check(guard, report_, sizeof(report_)),
                 "sequence counter is odd");
    expect(guard_lock(&env, guard), SHD_CORRUPT);
    guard->seq++;
    expect(guard_lock(&env, guard), SHD_OK);
    guard_unlock(guard);
}
END_TEST

START_TEST(a_lock_unlocked_without_repair_is_corrupt_not_a_hang)
{
    pid_t child;

    dying_child(child, {
        struct txn t;

        if (guard_lock(&env, guard) != SHD_OK)
            _exit(1);
        begin_and_store(&t, 4);
    });
    support_wait_killed(child);
    ck_assert_int_eq(robust_trylock(&guard->lock), EOWNERDEAD);
    ck_assert_int_eq(robust_unlock(&guard->lock), 0);
    expect(guard_lock(&env, guard), SHD_CORRUPT);
}
END_TEST

/* ---- who overwrites it while it is held ------------------------------- */

START_TEST(an_overwritten_lock_word_is_left_to_whoever_has_it)
{
    expect(guard_lock(&env, guard), SHD_OK);
    atomic_store32(lock_word(), 0);
    guard_unlock(guard);
    ck_assert_uint_eq(*lock_word(), 0);
    expect(guard_lock(&env, guard), SHD_OK);
    /* A thread that does not exist: over the largest pid_max. */
    atomic_store32(lock_word(), 0x10000000u);
    guard_unlock(guard);
    ck_assert_uint_eq(*lock_word(), 0x10000000u);
    expect(guard_lock(&env, guard), SHD_OK);
    guard_unlock(guard);
    ck_assert_uint_eq(*lock_word(), 0);
}
END_TEST

START_TEST(a_lock_word_that_names_who_does_not_hold_it_is_taken)
{
    atomic_store32(lock_word(), (uint32_t)syscall(SYS_gettid));
    expect(guard_lock(&env, guard), SHD_OK);
    guard_unlock(guard);
    expect_at_rest();
}
END_TEST

START_TEST(all_of_a_lock_but_its_word_may_be_overwritten)
{
    expect(guard_lock(&env, guard), SHD_OK);
    memset(guard->pad1, 0x5a, sizeof(guard->pad1));
    guard_unlock(guard);
    expect(guard_lock(&env, guard), SHD_OK);
    guard_unlock(guard);
}
END_TEST

START_TEST(a_word_alone_is_stored_and_shows_that_the_holder_moves)
{
    struct guard_holding before;
    uint64_t seq = guard->seq;

    expect(guard_lock_only(&env, guard), SHD_OK);
    before = guard_held_by(guard);
    txn_store64_alone(guard, &guard->waits, 77);
    ck_assert_uint_eq(guard->waits, 77);
    ck_assert_uint_eq(guard_held_by(guard).seq, seq);
    ck_assert_uint_ne(guard_held_by(guard).alone, before.alone);
    guard_unlock(guard);
    expect_at_rest();
}
END_TEST

START_TEST(a_lock_is_not_taken_twice)
{
    env.wait_ms = 50;
    expect(guard_lock(&env, guard), SHD_OK);
    expect(guard_trylock(&env, guard), SHD_BUSY);
    expect(guard_lock(&env, guard), SHD_BUSY);
    guard_unlock(guard);
    expect_at_rest();
}
END_TEST

START_TEST(an_abort_undoes_only_what_its_own_transaction_logged)
{
    struct txn t;

    expect(guard_lock(&env, guard), SHD_OK);
    begin_and_store(&t, 4);
    guard->undo[1].where++; /* another word than the one that was logged */
    words[2] = 7;
    txn_abort(&t);
    ck_assert_uint_eq(words[0], 100);
    ck_assert_uint_eq(words[1], 201);
    ck_assert_uint_eq(words[2], 102);
    ck_assert_uint_eq(guard->damaged, 1);
    guard_unlock(guard);
    expect(guard_lock(&env, guard), SHD_CORRUPT);
}
END_TEST

START_TEST(a_release_that_was_overwritten_is_not_done)
{
    uint32_t *owned = (uint32_t *)(void *)&words[0];
    struct txn t;

    words[0] = words[1] = 0;
    *owned = 5;
    expect(guard_lock(&env, guard), SHD_OK);
    txn_begin(&t, &segment, guard, WORDS);
    txn_release(&t, owned, 5, &words[1], 3);
    guard->releases[0].map_at += 8;
    txn_commit(&t);
    ck_assert_uint_eq(words[1], 0);
    ck_assert_uint_eq(words[2], 102);
    ck_assert_uint_eq(guard->damaged, 1);
    guard_unlock(guard);
}
END_TEST

START_TEST(a_transaction_begins_over_a_counter_and_a_log_that_were_overwritten)
{
    struct txn t;

    expect(guard_lock(&env, guard), SHD_OK);
    guard->seq = 41;
    guard->state = UINT64_MAX;
    begin_and_store(&t, 4);
    ck_assert_uint_eq(guard->seq, 43);
    txn_abort(&t);
    expect_words(100);
    guard_unlock(guard);
    ck_assert_uint_eq(guard->seq, 44);
    expect_at_rest();
}
END_TEST

/* ---- reading ---------------------------------------------------------- */

START_TEST(a_read_section_sees_that_something_changed)
{
    struct txn t;
    uint64_t seq;

    ck_assert(read_begin(guard, &seq));
    ck_assert(read_valid(guard, seq));
    expect(guard_lock(&env, guard), SHD_OK);
    txn_begin(&t, &segment, guard, 1);
    ck_assert(!read_valid(guard, seq));
    ck_assert(!read_begin(guard, &seq));
    txn_commit(&t);
    guard_unlock(guard);
    ck_assert(read_begin(guard, &seq));
}
END_TEST

START_TEST(a_reader_of_a_dead_writers_data_takes_the_lock_and_recovers)
{
    struct reading r;
    uint64_t copy[WORDS];
    uint32_t rounds = 0;
    pid_t child;

    dying_child(child, {
        struct txn t;

        if (guard_lock(&env, guard) != SHD_OK)
            _exit(1);
        begin_and_store(&t, 2);
    });
    support_wait_killed(child);
    reading_begin(&r, &env, guard);
    do {
        expect(reading_try(&r), SHD_OK);
        reading_copy(copy, words, sizeof(copy));
        rounds++;
    } while (!reading_done(&r));
    ck_assert_uint_eq(rounds, 1);
    for (uint64_t i = 0; i < WORDS; i++)
        ck_assert_uint_eq(copy[i], 100 + i);
    ck_assert_uint_eq(guard->recoveries, 1);
    ck_assert_uint_eq(guard_holder(guard), 0);
    expect(guard_trylock(&env, guard), SHD_OK);
    guard_unlock(guard);
}
END_TEST

/* How it sees past a sound log is in check_read and check_catalogue. */
START_TEST(a_read_only_reader_beside_a_damaged_log_gives_up_as_busy)
{
    struct reading r;
    pid_t child;

    dying_child(child, {
        struct txn t;

        if (guard_lock(&env, guard) != SHD_OK)
            _exit(1);
        begin_and_store(&t, 2);
    });
    support_wait_killed(child);
    guard->undo[0].where ^= 8;
    segment.writable = false;
    reading_begin(&r, &env, guard);
    expect(reading_try(&r), SHD_BUSY);
    segment.writable = true;
}
END_TEST

static uint32_t stop_writing;

static void *write_pairs(void *unused)
{
    (void)unused;
    for (uint64_t n = 0; !atomic_load32(&stop_writing); n++) {
        struct txn t;

        if (guard_lock(&env, guard) != SHD_OK)
            return "not locked";
        txn_begin(&t, &segment, guard, WORDS);
        for (uint64_t i = 0; i < WORDS; i++)
            txn_store64(&t, &words[i], n + i);
        txn_commit(&t);
        guard_unlock(guard);
    }
    return NULL;
}

START_TEST(a_reader_beside_a_writer_sees_one_state)
{
    pthread_t thread;
    void *result;
    uint64_t last = 0, changes = 0;

    for (uint64_t i = 0; i < WORDS; i++)
        words[i] = i;
    ck_assert_int_eq(pthread_create(&thread, NULL, write_pairs, NULL), 0);
    /* However long that takes on a machine that has other things to do. */
    while (changes <= 100) {
        uint64_t copy[WORDS];
        struct reading r;

        reading_begin(&r, &env, guard);
        do {
            expect(reading_try(&r), SHD_OK);
            reading_copy(copy, words, sizeof(copy));
        } while (!reading_done(&r));
        for (uint64_t i = 0; i < WORDS; i++)
            ck_assert_uint_eq(copy[i], copy[0] + i);
        changes += copy[0] != last;
        last = copy[0];
    }
    atomic_store32(&stop_writing, 1);
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    ck_assert_ptr_null(result);
}
END_TEST

static TCase *new_case(Suite *suite, const char *name)
{
    TCase *c = tcase_create(name);

    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 60);
    suite_add_tcase(suite, c);
    return c;
}

static void add_lock_cases(TCase *c)
{
    tcase_add_test(c, a_lock_is_taken_and_let_go);
    tcase_add_test(c, waiting_for_a_live_owner_ends_when_it_lets_go);
    tcase_add_test(
        c, a_stopped_owner_is_busy_after_the_bound_and_recovered_once_killed);
    tcase_add_test(c, a_thread_has_one_lock_at_a_time);
    tcase_add_test(c, a_lock_dropped_without_a_wake_up_is_found_within_slices);
    tcase_add_test(c, a_kick_wakes_every_stranded_waiter);
    tcase_add_test(c, a_lost_owner_that_is_a_zombie_is_recovered);
    tcase_add_test(c, a_lost_owner_is_recovered_within_the_last_slice);
    tcase_add_test(c, a_lost_owner_that_is_gone_is_recovered_by_a_reap);
    tcase_add_test(c, a_lost_live_owner_is_left_alone);
    tcase_add_test(c, reaping_a_free_lock_does_nothing);
    tcase_add_test(c, there_is_no_guard_past_the_table);
}

static void add_transaction_cases(TCase *c)
{
    tcase_add_test(c, a_committed_transaction_stays);
    tcase_add_test(c, an_aborted_transaction_was_never_there);
    tcase_add_test(c, halves_of_words_are_undone_with_their_neighbours);
    tcase_add_test(c, a_death_after_any_store_undoes_all_of_them);
    tcase_add_test(c, a_death_between_log_and_store_changes_nothing);
    tcase_add_test(c, a_death_after_commit_keeps_everything);
    tcase_add_test(
        c, a_death_between_commit_and_the_even_counter_keeps_everything);
    tcase_add_test(c, recovery_cut_off_anywhere_runs_again);
    tcase_add_test(c, a_full_log_is_undone);
}

static void add_claim_cases(TCase *c)
{
    tcase_add_test(c, a_claim_takes_what_is_free_and_only_that);
    tcase_add_test(c, a_claim_is_given_back_by_abort_and_by_death);
    tcase_add_test(c, a_claim_that_was_logged_and_lost_is_not_given_back);
    tcase_add_test(c, undoing_that_was_cut_off_spares_who_claimed_since);
    tcase_add_test(c, a_release_happens_at_commit_and_not_before);
    tcase_add_test(c,
                   releases_of_a_dead_committer_are_completed_from_any_point);
    tcase_add_test(c, a_release_of_a_dead_committer_spares_the_next_owner);
}

static void add_damage_cases(TCase *c)
{
    tcase_add_loop_test(c, a_damaged_log_is_never_replayed, 0,
                        (int)(sizeof(damages) / sizeof(damages[0])));
    tcase_add_test(c, a_claim_that_cannot_be_is_not_given_back);
    tcase_add_test(c,
                   a_claim_that_was_overwritten_is_not_given_back_by_an_abort);
    tcase_add_test(c, a_live_owner_that_leaves_its_log_open_is_noticed);
    tcase_add_test(c, a_lock_unlocked_without_repair_is_corrupt_not_a_hang);
    tcase_add_test(c, an_overwritten_lock_word_is_left_to_whoever_has_it);
    tcase_add_test(c, a_lock_word_that_names_who_does_not_hold_it_is_taken);
    tcase_add_test(c, all_of_a_lock_but_its_word_may_be_overwritten);
    tcase_add_test(c, a_word_alone_is_stored_and_shows_that_the_holder_moves);
    tcase_add_test(c, a_lock_is_not_taken_twice);
    tcase_add_test(c, an_abort_undoes_only_what_its_own_transaction_logged);
    tcase_add_test(c, a_release_that_was_overwritten_is_not_done);
    tcase_add_test(
        c, a_transaction_begins_over_a_counter_and_a_log_that_were_overwritten);
}

static void add_reading_cases(TCase *c)
{
    tcase_add_test(c, a_read_section_sees_that_something_changed);
    tcase_add_test(
        c, a_reader_of_a_dead_writers_data_takes_the_lock_and_recovers);
    tcase_add_test(c,
                   a_read_only_reader_beside_a_damaged_log_gives_up_as_busy);
    tcase_add_test(c, a_reader_beside_a_writer_sees_one_state);
}

int main(void)
{
    Suite *suite = suite_create("guard");

    add_lock_cases(new_case(suite, "lock"));
    add_transaction_cases(new_case(suite, "transaction"));
    add_claim_cases(new_case(suite, "claim"));
    add_damage_cases(new_case(suite, "damage"));
    add_reading_cases(new_case(suite, "reading"));
    return support_run(suite);
}
