/* SPDX-License-Identifier: BSD-2-Clause */
/* Suite read: reading without the lock, after dead writers, from read-only
 * attachments, and from damaged trees. */
#include "tests/unit/fixture.h"

#include <signal.h>
#include <time.h>

#define MIB (1u << 20)

static uint64_t guard_seq(void)
{
    return atomic_load64(&dict_guard(inner, 0)->seq);
}

START_TEST(a_read_takes_no_lock_and_a_second_hit_writes_nothing)
{
    struct shd_value v;
    start(MIB);
    expect(set("k", 5, 1), SHD_OK);
    expect(set("chain", 9000, 1), SHD_OK);
    expect(set("other", 5, 1), SHD_OK);
    ck_assert(!is_marked("k"));
    uint64_t seq = guard_seq();
    expect(get("k", &v), SHD_OK);
    expect(get("chain", &v), SHD_OK);
    ck_assert(is_marked("k"));
    /* Held by this thread, which could not take it again. */
    expect(dict_lock(inner, 0), SHD_OK);
    expect(get("k", &v), SHD_OK);
    expect(get("chain", &v), SHD_OK);
    expect(get("missing", &v), SHD_NOTFOUND);
    /* A mark that would have to wait is not set. */
    holds("other", 5, 1);
    ck_assert(!is_marked("other"));
    ck_assert_uint_eq(guard_seq(), seq);
    /* With the pages write-protected a store would be the end. */
    uint64_t from = segment_offset(&segment->segment, inner->shard);
    from -= from % 4096;
    ck_assert_int_eq(mprotect(segment->segment.base + from,
                              segment->segment.size - from, PROT_READ),
                     0);
    expect(get("k", &v), SHD_OK);
    expect(get("chain", &v), SHD_OK);
    expect(get("missing", &v), SHD_NOTFOUND);
    ck_assert_int_eq(mprotect(segment->segment.base + from,
                              segment->segment.size - from,
                              PROT_READ | PROT_WRITE),
                     0);
    dict_unlock(inner, 0);
}
END_TEST

START_TEST(only_live_entries_are_marked)
{
    struct shd_value v;
    int64_t ttl;

    start(MIB);
    expect(set_ttl("k", 100), SHD_OK);
    expect(shd_ttl(dict, "k", 1, &ttl), SHD_OK);
    ck_assert(!is_marked("k"));
    clock_test_advance(100);
    expect(get_stale("k", &v), SHD_OK);
    expect(get("k", &v), SHD_NOTFOUND);
    ck_assert(!is_marked("k"));
    expect(shd_expire(dict, "k", 1, 0), SHD_OK);
    ck_assert(!is_marked("k"));
    expect(get_stale("k", &v), SHD_OK);
    ck_assert(is_marked("k"));
}
END_TEST

/* ---- after dead writers ----------------------------------------------- */

static void die_in_a_store(void)
{
    struct txn t;
    struct entry *e;

    if (handle_writer(segment) != SHD_OK || dict_lock(inner, 0) != SHD_OK)
        _exit(1);
    e = entry_of("k");
    txn_begin(&t, &segment->segment, dict_guard(inner, 0), 10);
    txn_store32(&t, &e->cell.len, 3);
    txn_store64(&t, (uint64_t *)(void *)(e + 1), 77); /* its key */
}

START_TEST(a_reader_recovers_what_a_dead_writer_has_begun)
{
    start(MIB);
    expect(set("k", 5, 1), SHD_OK);
    dying_worker(die_in_a_store());
    ck_assert_uint_eq(guard_seq() & 1, 1);
    holds("k", 5, 1);
    ck_assert_uint_eq(guard_seq() & 1, 0);
    ck_assert_uint_eq(info().recoveries, 1);
    sound();
}
END_TEST

/* In a transaction until the readers have given up being lucky, and then the
 * lock's holder for ever. */
static void keep_the_lock(int ready)
{
    const struct timespec long_enough = {.tv_nsec = 100000000};
    struct txn t;

    if (handle_writer(segment) != SHD_OK || dict_lock(inner, 0) != SHD_OK)
        _exit(1);
    txn_begin(&t, &segment->segment, dict_guard(inner, 0), 10);
    txn_store32(&t, &entry_of("k")->cell.len, 3);
    if (write(ready, "", 1) != 1)
        _exit(2);
    (void)nanosleep(&long_enough, NULL);
    txn_commit(&t);
    for (;;)
        (void)pause();
}

START_TEST(a_reader_looks_again_while_the_lock_is_kept)
{
    struct shd_value v;
    int ready[2];
    pid_t child;
    char byte;

    start(MIB);
    expect(set("k", 5, 1), SHD_OK);
    ck_assert_int_eq(pipe(ready), 0);
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        keep_the_lock(ready[1]);
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    segment->env.wait_ms = 60000;
    expect(get("k", &v), SHD_OK);
    ck_assert_uint_eq(v.len, 3);
    ck_assert_uint_eq(guard_holder(dict_guard(inner, 0)) != 0, 1);
    segment->env.wait_ms = 50;
    expect(del("k"), SHD_BUSY);
    expect_said("within 50 ms");
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
}
END_TEST

/* ---- read-only -------------------------------------------------------- */

static char segment_name[64];
static pid_t writer_pid;

static void die_with_a_damaged_log(void)
{
    die_in_a_store();
    dict_guard(inner, 0)->undo[1].old ^= 1;
}

/* Changes k's length to 3 and n's value to 9, with a stop in between. */
static void stop_in_a_store(void)
{
    const double nine = 9;
    struct entry *n;
    struct txn t;

    if (handle_writer(segment) != SHD_OK || dict_lock(inner, 0) != SHD_OK)
        _exit(1);
    n = entry_of("n");
    txn_begin(&t, &segment->segment, dict_guard(inner, 0), 10);
    txn_store32(&t, &entry_of("k")->cell.len, 3);
    if (raise(SIGSTOP) != 0)
        _exit(2);
    cell_store(&t,
               (unsigned char *)n +
                   entry_value_at(n->cell.meta,
                                  entry_key_len(n->key_expires)),
               &nine, sizeof(nine));
    txn_commit(&t);
    dict_unlock(inner, 0);
}

/* What is there to be read is stored by another process, which ends with
 * `last`: one process has one handle of a segment. */
static void start_readonly(void (*last)(void))
{
    struct shd_segment_options o = segment_options();
    pid_t pid;
    int status;

    snprintf(segment_name, sizeof(segment_name), "check-read-%d",
             (int)getpid());
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        start_named(segment_name, MIB, 1, 0);
        expect(set("k", 5, 1), SHD_OK);
        expect(set("chain", 9000, 2), SHD_OK);
        expect(set_number("n", 4), SHD_OK);
        for (int i = 0; i < 5; i++)
            expect(push(0, "l", 50, 1), SHD_OK);
        if (last != NULL)
            last();
        _exit(0);
    }
    writer_pid = pid;
    ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
    ck_assert(WIFSTOPPED(status) || status == 0);
    o.flags = SHD_ATTACH_READONLY;
    o.wait_ms = 30;
    expect(shd_segment_attach(segment_name, &o, &segment), SHD_OK);
    expect(shd_segment_destroy(segment_name), SHD_OK);
    expect(shd_dict_open(segment, "d", NULL, &dict), SHD_OK);
    inner = &dict->dict;
}

START_TEST(a_read_only_attachment_reads_everything)
{
    struct shd_value v;
    shd_keys *k;
    size_t len;
    char key[16];

    start_readonly(NULL);
    holds("k", 5, 1);
    holds("chain", 9000, 2);
    holds_number("n", 4);
    ck_assert_uint_eq(llen("l"), 5);
    expect(get_stale("l", &v), SHD_ISLIST);
    ck_assert(!is_marked("k"));
    expect(shd_scan(dict, NULL, 0, 0, key, sizeof(key), &len, NULL, 0, &v),
           SHD_OK);
    expect(shd_keys_get(dict, 0, &k), SHD_OK);
    ck_assert_uint_eq(shd_keys_count(k), 4);
    shd_keys_free(k);
    expect(shd_keys_get(dict, 2, &k), SHD_OK);
    ck_assert_uint_eq(shd_keys_count(k), 2);
    shd_keys_free(k);
    ck_assert_uint_eq(info().entries, 4);
    sound();
}
END_TEST

START_TEST(a_read_only_attachment_is_refused_every_change)
{
    struct shd_dict_options o = dict_options(MIB, 0, 0);
    struct shd_value v;
    shd_dict *other;
    double sum;

    start_readonly(NULL);
    expect(set("k", 6, 2), SHD_READONLY);
    expect(store(SHD_ADD, "k", 6, 2, 0, 0, NULL), SHD_READONLY);
    expect(del("k"), SHD_READONLY);
    expect(shd_incr(dict, "n", 1, 1, 0, 0, 0, &sum, NULL), SHD_READONLY);
    expect(shd_expire(dict, "k", 1, 5), SHD_READONLY);
    expect(shd_flush_all(dict), SHD_READONLY);
    expect(shd_flush_expired(dict, 0, NULL), SHD_READONLY);
    expect(push(0, "l", 6, 1), SHD_READONLY);
    expect(shd_pop(dict, 0, "l", 1, bytes_out, 100, &v), SHD_READONLY);
    expect(shd_dict_open(segment, "new", &o, &other), SHD_READONLY);
    expect(shd_dict_destroy(segment, "d"), SHD_READONLY);
    holds("k", 5, 1);
    sound();
}
END_TEST

START_TEST(a_read_only_reader_sees_past_a_dead_writer)
{
    const uint64_t *mapped;
    shd_keys *k;

    start_readonly(die_in_a_store);
    mapped = &dict_guard(inner, 0)->seq;
    for (int i = 0; i < 2; i++) {
        holds("k", 5, 1);
        holds("chain", 9000, 2);
        holds_number("n", 4);
        ck_assert_uint_eq(llen("l"), 5);
        expect(shd_keys_get(dict, 0, &k), SHD_OK);
        ck_assert_uint_eq(shd_keys_count(k), 4);
        shd_keys_free(k);
        sound();
        /* The file itself is as it was left, and shows through again. */
        ck_assert_uint_eq(atomic_load64(mapped) & 1, 1);
        ck_assert_uint_eq(entry_of("chain")->cell.len, 9000);
    }
    expect(set("k", 6, 2), SHD_READONLY);
}
END_TEST

/* With a page that is nobody's before, and after. */
static void die_with_a_page(bool released)
{
    struct guard *g = dict_guard(inner, 0);
    struct slab *slab = &inner->shard[0].slab;
    uint32_t class = SLAB_CLASSES - 1, ref;
    struct txn t;

    if (handle_writer(segment) != SHD_OK || dict_lock(inner, 0) != SHD_OK ||
        slab_prepare(&inner->pages, slab, class) != SHD_OK)
        _exit(1);
    txn_begin(&t, &segment->segment, g, 2 * SLAB_ALLOC_WORDS);
    if (slab_alloc(&inner->pages, slab, &t, dict_owner(0), class, PAGE_NONE,
                   &ref) != SHD_OK)
        _exit(1);
    if (!released)
        return;
    txn_commit(&t);
    txn_begin(&t, &segment->segment, g, SLAB_FREE_WORDS);
    if (slab_free(&inner->pages, slab, &t, dict_owner(0), ref) != SHD_OK)
        _exit(1);
    /* The commit, and nothing after it. */
    atomic_store64(&g->state, txn_state(0, 0, t.releases));
}

static void die_with_a_claim(void)
{
    die_with_a_page(false);
}

static void die_with_a_release(void)
{
    die_with_a_page(true);
}

START_TEST(a_read_only_check_gives_back_what_the_dead_had_claimed)
{
    void (*const last[])(void) = {die_with_a_claim, die_with_a_release};
    const struct guard *g;

    start_readonly(last[_i]);
    g = dict_guard(inner, 0);
    ck_assert_uint_eq(atomic_load64(&g->seq) & 1, 1);
    ck_assert_uint_ne(atomic_load64(&g->state), 0);
    sound();
    holds("k", 5, 1);
    ck_assert_uint_ne(atomic_load64(&g->state), 0);
}
END_TEST

START_TEST(a_read_only_reader_sees_past_a_stopped_writer_and_then_its_change)
{
    struct shd_value v;
    int status;

    start_readonly(stop_in_a_store);
    holds("k", 5, 1);
    holds_number("n", 4);
    sound();
    ck_assert_int_eq(kill(writer_pid, SIGCONT), 0);
    ck_assert_int_eq(waitpid(writer_pid, &status, 0), writer_pid);
    ck_assert_int_eq(status, 0);
    expect(get("k", &v), SHD_OK);
    ck_assert_uint_eq(v.len, 3);
    holds_number("n", 9);
    sound();
}
END_TEST

START_TEST(a_read_only_reader_of_a_damaged_log_is_busy)
{
    struct shd_value v;
    shd_keys *k;
    size_t len;
    char key[16];

    start_readonly(die_with_a_damaged_log);
    expect(get("k", &v), SHD_BUSY);
    expect_said("never stood still");
    expect(shd_scan(dict, NULL, 0, 0, key, sizeof(key), &len, NULL, 0, &v),
           SHD_BUSY);
    expect(shd_keys_get(dict, 0, &k), SHD_BUSY);
}
END_TEST

/* ---- damage ----------------------------------------------------------- */

START_TEST(what_contradicts_itself_is_corrupt_and_not_followed)
{
    struct shd_value v;
    struct entry *e;
    uint32_t *root, ref, *chain;
    int64_t ttl;

    start(MIB);
    expect(set("k", 5, 1), SHD_OK);
    e = entry_of("k");
    e->cell.len = 5000;
    expect(get("k", &v), SHD_CORRUPT);
    expect_said("an entry contradicts itself");
    e->cell.len = 5;
    e->cell.meta |= CELL_TYPE_MASK;
    expect(get("k", &v), SHD_CORRUPT);
    expect(shd_ttl(dict, "k", 1, &ttl), SHD_CORRUPT);
    e->cell.meta = (e->cell.meta & ~CELL_TYPE_MASK) | SHD_STRING;
    holds("k", 5, 1);
    root = &roots_now()[root_number("k")];
    ref = *root;
    *root = UINT32_MAX;
    expect(get("k", &v), SHD_CORRUPT);
    expect(set("k", 5, 1), SHD_CORRUPT);
    *root = ref;
    expect(set("chain", 9000, 1), SHD_OK);
    chain = entry_chain(&inner->pages, &entry_of("chain")->cell);
    *chain = UINT32_MAX;
    expect(get("chain", &v), SHD_CORRUPT);
}
END_TEST

START_TEST(a_tree_in_a_cycle_is_corrupt_and_ends)
{
    struct shd_value v;
    struct entry *e;

    start(MIB);
    expect(set("k", 5, 1), SHD_OK);
    e = entry_of("k");
    e->cell.word[0] = e->cell.word[1] = ref_of("k");
    e->cell.meta ^= 1u << CELL_HASH_SHIFT; /* so that it is not met */
    expect(get("k", &v), SHD_CORRUPT);
    expect(set("k", 5, 1), SHD_CORRUPT);
    expect_said("leads outside or is too deep");
    char key[16];
    size_t len;
    expect(shd_scan(dict, NULL, 0, 0, key, sizeof(key), &len, NULL, 0, &v),
           SHD_CORRUPT);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("read");
    TCase *c = tcase_create("read");

    tcase_set_timeout(c, 120);
    tcase_add_test(c,
                   a_read_takes_no_lock_and_a_second_hit_writes_nothing);
    tcase_add_test(c, only_live_entries_are_marked);
    tcase_add_test(c, a_reader_recovers_what_a_dead_writer_has_begun);
    tcase_add_test(c, a_reader_looks_again_while_the_lock_is_kept);
    tcase_add_test(c, a_read_only_attachment_reads_everything);
    tcase_add_test(c, a_read_only_attachment_is_refused_every_change);
    tcase_add_test(c, a_read_only_reader_sees_past_a_dead_writer);
    tcase_add_loop_test(
        c, a_read_only_check_gives_back_what_the_dead_had_claimed, 0, 2);
    tcase_add_test(
        c, a_read_only_reader_sees_past_a_stopped_writer_and_then_its_change);
    tcase_add_test(c, a_read_only_reader_of_a_damaged_log_is_busy);
    tcase_add_test(c, what_contradicts_itself_is_corrupt_and_not_followed);
    tcase_add_test(c, a_tree_in_a_cycle_is_corrupt_and_ends);
    suite_add_tcase(s, c);
    return run_suite(s);
}
