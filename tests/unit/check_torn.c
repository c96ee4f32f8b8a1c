/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Suite torn: what a reader does with bytes that change, or make no sense,
 * while it looks at them. It may answer anything, but touches nothing outside
 * the page it was led to and writes nothing outside the caller's buffer.
 *
 * valgrind: no, it runs one thread at a time, so that nothing is ever torn.
 */
#include <pthread.h>

#include "shm/api/handle.h"
#include "shm/dict/forest.h"
#include "shm/dict/move.h"
#include "tests/unit/support.h"

#define SCANS 200000
#define SHORT 8u
#define LONG 1000u
#define KEY "12345678"
static_assert(sizeof(KEY) - 1 == SHORT, "key");

static shd_segment *segment;
static shd_dict *dict;
static bool stop;

static void set_up(void)
{
    struct shd_segment_options so = support_options();
    /* Few roots, so that whatever the hash's seed some tree has branches. */
    struct shd_dict_options o = {
        .struct_size = sizeof(o), .capacity_bytes = 65536, .entries_hint = 16};

    so.wait_ms = 20000; /* a busy machine, and sanitizers */
    expect(shd_segment_create(NULL, &so, &segment), SHD_OK);
    expect(shd_dict_open(segment, "torn", &o, &dict), SHD_OK);
    expect(shd_set(dict, KEY, SHORT, "value", 5, 0), SHD_OK);
    stop = false;
}

static void tear_down(void)
{
    expect(shd_segment_close(segment), SHD_OK);
}

static struct entry *entry_of_key(void)
{
    struct place at = dict_place(&dict->dict, KEY, SHORT);
    struct entry *e;
    uint32_t ref;

    ck_assert_int_eq(forest_find(&dict->dict, &at, KEY, SHORT, &ref), 1);
    e = entry_at(&dict->dict.pages, ref);
    ck_assert_ptr_nonnull(e);
    return e;
}

/* As if the cell went back and forth between two entries. */
static void *flip_key_length(void *entry)
{
    struct entry *e = entry;

    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        atomic_store64(&e->key_expires, (uint64_t)LONG << 48);
        atomic_store64(&e->key_expires, (uint64_t)SHORT << 48);
    }
    return NULL;
}

START_TEST(a_key_that_grows_after_it_was_measured_stays_in_its_buffer)
{
    unsigned char buffer[SHORT + LONG], beyond[LONG];
    struct shd_value v;
    pthread_t thread;
    size_t len;

    ck_assert_int_eq(
        pthread_create(&thread, NULL, flip_key_length, entry_of_key()), 0);
    memset(buffer, 0xee, sizeof(buffer));
    memset(beyond, 0xee, sizeof(beyond));
    for (int i = 0; i < SCANS; i++) {
        int rc = shd_scan(dict, NULL, 0, 0, buffer, SHORT, &len, NULL, 0, &v);

        ck_assert(rc == SHD_OK || rc == SHD_SPACE || rc == SHD_CORRUPT);
        if (memcmp(buffer + SHORT, beyond, LONG) != 0)
            ck_abort_msg("scan number %d wrote past the buffer's end", i);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

/* Lengths that are written in place, into new cells, and as chains. */
static const size_t lengths[] = {64, 70, 200, 300, 1500, 4100, 12000};
#define LENGTHS (sizeof(lengths) / sizeof(lengths[0]))
#define LENGTH_MAX 12000u

/* All bytes of a value are its length's number. */
static void *write_one_key(void *unused)
{
    unsigned char bytes[LENGTH_MAX];

    (void)unused;
    for (unsigned i = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) {
        size_t len = lengths[i % LENGTHS];

        memset(bytes, (int)(i % LENGTHS), len);
        expect(shd_set(dict, KEY, SHORT, bytes, len, 0), SHD_OK);
    }
    return NULL;
}

START_TEST(readers_beside_a_writer_see_whole_values_only)
{
    unsigned char out[LENGTH_MAX];
    unsigned seen[LENGTHS] = {0}, kinds = 0;
    pthread_t thread;

    memset(out, 0, lengths[0]);
    expect(shd_set(dict, KEY, SHORT, out, lengths[0], 0), SHD_OK);
    ck_assert_int_eq(pthread_create(&thread, NULL, write_one_key, NULL), 0);
    /* A busy machine may be long in letting the writer run at all. */
    for (int n = 0; n < 60000 || kinds < LENGTHS; n++) {
        struct shd_value v;
        unsigned i = 0;

        expect(shd_get(dict, KEY, SHORT, out, sizeof(out), &v), SHD_OK);
        while (i < LENGTHS && lengths[i] != v.len)
            i++;
        ck_assert_uint_lt(i, LENGTHS);
        for (size_t b = 0; b < v.len; b++) {
            if (out[b] != i)
                ck_abort_msg("byte %zu of %zu is %u", b, lengths[i], out[b]);
        }
        kinds += seen[i]++ == 0;
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

/* A cell of the test's own, `room` bytes before the end of the dict's first
 * page. */
static struct cell *cell_before_end(uint32_t room, uint32_t *ref)
{
    const struct pages *p = &dict->dict.pages;
    struct cell *c;

    *ref = (uint32_t)((p->at + PAGE_BYTES - room) / SEGMENT_UNIT);
    c = cell_at(p, *ref, sizeof(*c));
    ck_assert_ptr_nonnull(c);
    memset(c, 0, room);
    return c;
}

START_TEST(flags_past_the_pages_end_are_not_followed)
{
    struct shd_value v;
    uint32_t ref;
    struct cell *c = cell_before_end(48, &ref);
    struct entry *e = (struct entry *)(void *)c;

    c->meta =
        SHD_STRING | CELL_ENTRY << CELL_KIND_SHIFT | CELL_FLAGS | CELL_CHAINED;
    e->key_expires = (uint64_t)(ENTRY_KEY_INLINE + 1) << 48;
    expect(entry_describe(&dict->dict, c, &v), SHD_CORRUPT);
    expect(entry_value(&dict->dict, c, NULL, 0, ENTRY_PARTIAL, &v),
           SHD_CORRUPT);
}
END_TEST

START_TEST(a_version_past_the_pages_end_is_not_renewed)
{
    const struct dict *d = &dict->dict;
    struct entry *e = NULL;
    uint64_t *beyond;
    char key[33] = "";
    uint32_t ref;

    /* They fill a page of cells of 64 bytes to its end. */
    for (int i = 0; i < 64; i++) {
        snprintf(key, sizeof(key), "%032d", i);
        expect(shd_set(dict, key, 32, "", 0, 0), SHD_OK);
    }
    for (int i = 0; i < 64 && e == NULL; i++) {
        struct place at;

        snprintf(key, sizeof(key), "%032d", i);
        at = dict_place(d, key, 32);
        ck_assert_int_eq(forest_find(d, &at, key, 32, &ref), 1);
        e = entry_at(&d->pages, ref);
        if (cell_room(&d->pages, e) != 64)
            e = NULL;
    }
    ck_assert_ptr_nonnull(e);
    e->cell.meta |= CELL_VERSIONED << CELL_KIND_SHIFT;
    beyond = (uint64_t *)(void *)((unsigned char *)e + 64);
    ck_assert_uint_eq(*beyond, 0);
    expect(shd_expire(dict, key, 32, 1000), SHD_CORRUPT);
    expect(shd_touch(dict, key, 32, 1000), SHD_CORRUPT);
    ck_assert_uint_eq(*beyond, 0);
}
END_TEST

START_TEST(a_chain_is_skipped_by_whole_words_or_not_at_all)
{
    unsigned char out[8];
    uint32_t ref;
    struct cell *c = cell_before_end(64, &ref);

    c->meta = SHD_STRING | CELL_CHAIN << CELL_KIND_SHIFT;
    c->word[CHAIN_NEXT] = ref;
    c->len = 37;
    expect(chain_read(&dict->dict.pages, ref, 40, out, 1), SHD_CORRUPT);
    c->len = 40;
    expect(chain_read(&dict->dict.pages, ref, 40, out, 1), SHD_OK);
}
END_TEST

START_TEST(a_hit_leaves_its_mark_only_under_the_lock)
{
    const struct dict *d = &dict->dict;
    struct place at = dict_place(d, KEY, SHORT);
    struct shd_value v;
    char buffer[8];
    uint32_t ref;

    /* Whoever destroys the dict has had the lock: a mark without it may fall
     * into what has come to lie there since. */
    expect(guard_lock(d->env, dict_guard(d, at.shard)), SHD_OK);
    expect(shd_get(dict, KEY, SHORT, buffer, sizeof(buffer), &v), SHD_OK);
    expect(forest_find(d, &at, KEY, SHORT, &ref), 1);
    ck_assert(!dict_is_marked(d, ref));
    guard_unlock(dict_guard(d, at.shard));
    expect(shd_get(dict, KEY, SHORT, buffer, sizeof(buffer), &v), SHD_OK);
    ck_assert(dict_is_marked(d, ref));
}
END_TEST

START_TEST(a_destroyed_dict_is_gone_for_every_question)
{
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    struct shd_keys *keys;
    struct shd_value v;
    uint64_t bytes;
    size_t len;
    char key[8];

    expect(shd_dict_destroy(segment, "torn"), SHD_OK);
    expect(shd_get(dict, KEY, SHORT, NULL, 0, &v), SHD_GONE);
    expect(shd_set(dict, KEY, SHORT, "value", 5, 0), SHD_GONE);
    expect(shd_delete(dict, KEY, SHORT), SHD_GONE);
    expect(shd_scan(dict, NULL, 0, 0, key, sizeof(key), &len, NULL, 0, &v),
           SHD_GONE);
    expect(shd_keys_get(dict, 0, &keys), SHD_GONE);
    expect(shd_flush_expired(dict, 0, NULL), SHD_GONE);
    expect(shd_flush_all(dict), SHD_GONE);
    expect(shd_dict_info(dict, &info), SHD_GONE);
    expect(shd_capacity(dict, &bytes), SHD_GONE);
    expect(shd_free_space(dict, &bytes), SHD_GONE);
}
END_TEST

static uint64_t committed(void)
{
    struct shd_segment_info info = {.struct_size = sizeof(info)};

    expect(shd_segment_info(segment, &info), SHD_OK);
    return info.committed_bytes;
}

/* Whoever touches what was given back to the system takes it anew, and where
 * the file system is full by now is killed by SIGBUS. */
START_TEST(what_a_destroyed_dict_has_given_back_is_not_touched)
{
    static char big[20000];
    struct shd_dict_account account = {.struct_size = sizeof(account)};
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    const void *keys[] = {KEY};
    const size_t lens[] = {SHORT};
    const void *bytes[] = {"value"};
    struct shd_value v = {.type = SHD_STRING, .len = 5};
    int32_t codes[1];
    uint64_t before, n;
    size_t at[1], len;
    char key[16];

    expect(shd_get(dict, KEY, SHORT, key, sizeof(key), &v), SHD_OK);
    expect(shd_dict_destroy(segment, "torn"), SHD_OK);
    before = committed();
#define takes_nothing(call)                                                   \
    do {                                                                      \
        expect(call, SHD_GONE);                                               \
        ck_assert_uint_eq(committed(), before);                               \
    } while (0)
    takes_nothing(shd_get(dict, KEY, SHORT, key, sizeof(key), &v));
    takes_nothing(shd_set(dict, KEY, SHORT, "value", 5, 0));
    takes_nothing(shd_set(dict, KEY, SHORT, big, sizeof(big), 0));
    takes_nothing(shd_get_multi(dict, 1, keys, lens, key, sizeof(key), &v, at,
                                codes));
    v = (struct shd_value){.type = SHD_STRING, .len = 5};
    takes_nothing(shd_set_multi(dict, SHD_SET, 1, keys, lens, &v, bytes, codes,
                                NULL));
    takes_nothing(shd_append(dict, 0, KEY, SHORT, "more", 4, NULL, 0, 0, NULL,
                             NULL));
    takes_nothing(shd_scan(dict, NULL, 0, 0, key, sizeof(key), &len, NULL, 0,
                           &v));
    takes_nothing(shd_flush_expired(dict, 0, NULL));
    takes_nothing(shd_flush_all(dict));
    takes_nothing(shd_dict_info(dict, &info));
    takes_nothing(shd_capacity(dict, &n));
    takes_nothing(shd_free_space(dict, &n));
    takes_nothing(shd_dict_account(dict, &account));
    takes_nothing(shd_pop(dict, 0, KEY, SHORT, key, sizeof(key), &v));
    takes_nothing(shd_dict_resize(dict, 131072));
    takes_nothing(shd_dict_resize(dict, 1ull << 36));
#undef takes_nothing
}
END_TEST

START_TEST(an_lru_list_in_a_circle_ends_as_corrupt)
{
    struct entry *e = entry_of_key();
    struct shd_keys *keys;
    uint32_t ref = dict->dict.shard[0].lru.first;

    e->cell.word[LIST_PREV] = ref;
    expect(shd_keys_get(dict, 0, &keys), SHD_CORRUPT);
    expect_said("circles");
}
END_TEST

static void make_and_destroy(void)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = 65536};
    shd_dict *d;

    for (int i = 0; i < 2000; i++) {
        if (shd_dict_open(segment, "brief", &o, &d) != SHD_OK ||
            shd_dict_close(d) != SHD_OK ||
            shd_dict_destroy(segment, "brief") != SHD_OK)
            _exit(1);
    }
}

START_TEST(opening_beside_destroying_finds_a_dict_or_none)
{
    pid_t child;

    dying_child(child, make_and_destroy());
    for (;;) {
        siginfo_t ended = {0};
        shd_dict *d;
        int rc = shd_dict_open(segment, "brief", NULL, &d);

        ck_assert_msg(rc == SHD_OK || rc == SHD_NOTFOUND, "%s: %s",
                      shd_strerror_name(rc), shd_last_error());
        if (rc == SHD_OK)
            expect(shd_dict_close(d), SHD_OK);
        ck_assert_int_eq(
            waitid(P_PID, (id_t)child, &ended, WEXITED | WNOHANG | WNOWAIT),
            0);
        if (ended.si_pid == child)
            break;
    }
    support_wait_killed(child);
}
END_TEST

/* A root whose tree is one node with two children, or fails. */
static struct entry *root_of_three(void)
{
    const struct dict *d = &dict->dict;

    for (int i = 0; i < 200; i++) {
        char key[16];
        int n = snprintf(key, sizeof(key), "key-%d", i);

        expect(shd_set(dict, key, (size_t)n, "v", 1, 0), SHD_OK);
        uint32_t grain = index_grain(atomic_load64(&d->pages.bounds->state));

        for (uint32_t root = 0; root < index_roots(d, grain); root++) {
            struct entry *e = entry_at(&d->pages, d->roots[grain][root]);

            if (e != NULL && e->cell.word[0] != 0 && e->cell.word[1] != 0)
                return e;
        }
    }
    ck_abort_msg("no tree has three nodes");
    return NULL;
}

START_TEST(a_damaged_link_does_not_lead_a_change_out_of_its_dict)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = 65536};
    struct entry *top, *left;
    unsigned char key[16];
    shd_dict *other;
    uint32_t len;
    uint64_t *foreign;

    expect(shd_dict_open(segment, "other", &o, &other), SHD_OK);
    foreign = (uint64_t *)(void *)other->dict.shard->pad;
    /* To a multiple of 16 from the segment's start. */
    foreign += segment_offset(dict->dict.env->segment, foreign) % 16 / 8;
    top = root_of_three();
    left = entry_at(&dict->dict.pages, top->cell.word[0]);
    ck_assert_ptr_nonnull(left);
    /* Black, its going makes the tree look at its sibling. */
    left->cell.meta &= ~CELL_RED;
    top->cell.word[1] =
        (uint32_t)(segment_offset(dict->dict.env->segment, foreign) /
                   SEGMENT_UNIT);
    len = entry_key_len(left->key_expires);
    ck_assert_uint_le(len, sizeof(key));
    expect(entry_key(&dict->dict, left, len, key), SHD_OK);
    expect(shd_delete(dict, key, len), SHD_CORRUPT);
    for (int i = 0; i < 8; i++)
        ck_assert_uint_eq(foreign[i], 0);
}
END_TEST

/* ---- long values ------------------------------------------------------- */

#define LONG_KEY "long"
#define LONG_BYTES 900000u
static unsigned char long_value[LONG_BYTES], long_out[LONG_BYTES + 8];

static void set_up_long(void)
{
    struct shd_segment_options so = support_options();
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = 4u << 20,
                                 .shards = 1,
                                 .entries_hint = 1000};

    so.size_bytes = 16u << 20;
    so.wait_ms = 20000; /* a busy machine, and sanitizers */
    expect(shd_segment_create(NULL, &so, &segment), SHD_OK);
    expect(shd_dict_open(segment, "torn", &o, &dict), SHD_OK);
    stop = false;
}

/* All its bytes are the same, and tell its length. */
static void set_long(unsigned which)
{
    memset(long_value, (int)which, LONG_BYTES);
    expect(shd_set(dict, LONG_KEY, 4, long_value, LONG_BYTES - which * 997, 0),
           SHD_OK);
}

static void is_one_of_the_long(const struct shd_value *v)
{
    unsigned which = long_out[0];

    ck_assert_uint_eq(v->len, LONG_BYTES - which * 997);
    for (uint64_t i = 0; i < v->len; i++) {
        if (long_out[i] != which)
            ck_abort_msg("byte %llu is %u in a value of %u",
                         (unsigned long long)i, long_out[i], which);
    }
}

static struct cell *cell_of_long(unsigned n)
{
    const struct pages *p = &dict->dict.pages;
    struct place at = dict_place(&dict->dict, LONG_KEY, 4);
    struct cell *c;
    uint32_t ref;

    ck_assert_int_eq(forest_find(&dict->dict, &at, LONG_KEY, 4, &ref), 1);
    c = cell_at(p, ref, sizeof(*c));
    ref = *entry_chain(p, c);
    while (n-- > 0)
        ref = cell_at(p, ref, sizeof(*c))->word[CHAIN_NEXT];
    return cell_at(p, ref, sizeof(*c));
}

static struct chain_cursor cursor_of_long(void)
{
    struct place at = dict_place(&dict->dict, LONG_KEY, 4);
    struct chain_cursor c;
    struct shd_value v;
    uint32_t ref;

    ck_assert_int_eq(forest_find(&dict->dict, &at, LONG_KEY, 4, &ref), 1);
    ck_assert_int_eq(
        entry_long_value(&dict->dict, 0,
                         cell_at(&dict->dict.pages, ref, sizeof(struct cell)),
                         LONG_BYTES, &c, &v),
        1);
    return c;
}

static bool slice_valid(const struct chain_cursor *c)
{
    return chain_slice_valid(&dict->dict.pages, dict_owner(0),
                             dict->dict.shard[0].chains, c);
}

START_TEST(a_slice_counts_as_long_as_its_cells_are_the_chains)
{
    const struct pages *p = &dict->dict.pages;
    unsigned char *to = long_out;
    uint64_t left = LONG_BYTES;
    struct chain_cursor c;

    set_long(0);
    c = cursor_of_long();
    expect(chain_slice_copy(p, &c, &to, &left), SHD_OK);
    ck_assert_uint_eq(c.n, CHAIN_SLICE_CELLS);
    ck_assert_uint_eq(left, LONG_BYTES - CHAIN_SLICE_BYTES);
    ck_assert(slice_valid(&c));
    /* Other changes, of other chains as well, do not matter. */
    expect(shd_set(dict, "other", 5, long_value, 300000, 0), SHD_OK);
    expect(shd_set(dict, "other", 5, long_value, 20, 0), SHD_OK);
    ck_assert(slice_valid(&c));
    /* The same cells again, but another chain. */
    expect(shd_delete(dict, LONG_KEY, 4), SHD_OK);
    ck_assert(!slice_valid(&c));
    set_long(0);
    ck_assert_uint_eq(cursor_of_long().ref != 0, 1);
    ck_assert(!slice_valid(&c));
    c = cursor_of_long();
    expect(chain_slice_copy(p, &c, &to, &left), SHD_OK);
    ck_assert(slice_valid(&c));
    /* So many chains later the same number may be another's. */
    dict->dict.shard[0].chains += UINT32_MAX;
    ck_assert(!slice_valid(&c));
}
END_TEST

START_TEST(a_cell_that_has_left_and_come_back_is_another)
{
    const struct dict *d = &dict->dict;
    unsigned char *to = long_out;
    uint64_t left = LONG_BYTES;
    struct chain_cursor c;
    uint32_t ref;
    int moves = 0;

    set_long(0);
    c = cursor_of_long();
    expect(chain_slice_copy(&d->pages, &c, &to, &left), SHD_OK);
    ck_assert(slice_valid(&c));
    expect(dict_lock(d, 0), SHD_OK);
    ref = c.cell[1];
    /* In between, something else lay there, and may have been copied. */
    do {
        expect(move_cell(d, 0, ref, cell_page(&d->pages, ref), true), SHD_OK);
        ref = cursor_of_long().ref;
        ck_assert_int_lt(moves++, 10);
    } while (ref != c.cell[1]);
    dict_unlock(d, 0);
    ck_assert(!slice_valid(&c));
}
END_TEST

/* How long this build, on this machine, takes to read the value alone, ns. */
static long read_long_ns(void)
{
    struct timespec from, to;
    struct shd_value v;

    ck_assert_int_eq(clock_gettime(CLOCK_MONOTONIC, &from), 0);
    expect(shd_get(dict, LONG_KEY, 4, long_out, LONG_BYTES, &v), SHD_OK);
    ck_assert_int_eq(clock_gettime(CLOCK_MONOTONIC, &to), 0);
    return (to.tv_sec - from.tv_sec) * 1000000000l + to.tv_nsec - from.tv_nsec;
}

/* Keeps the lock for ever, and opens a transaction now and then. */
static void hold_and_change(long pause_ns)
{
    struct guard *g = dict_guard(&dict->dict, 0);
    const struct timespec pause = {.tv_sec = pause_ns / 1000000000l,
                                   .tv_nsec = pause_ns % 1000000000l};
    struct txn t;

    if (handle_writer(segment) != SHD_OK || dict_lock(&dict->dict, 0) != 0)
        _exit(1);
    for (;;) {
        txn_begin(&t, &segment->segment, g, 1);
        txn_store64(&t, &dict->dict.shard[0].evictions, 0);
        txn_commit(&t);
        (void)nanosleep(&pause, NULL);
    }
}

START_TEST(a_long_value_is_read_beside_changes_while_the_lock_is_taken)
{
    const uint64_t *seq = &dict_guard(&dict->dict, 0)->seq;
    struct shd_value v;
    uint64_t before;
    long pause_ns;
    pid_t child;
    char key[8];
    size_t len;

    set_long(7);
    /* Room for a slice between two changes, none for the whole value. */
    static_assert(LONG_BYTES > 12 * CHAIN_SLICE_BYTES, "enough slices");
    pause_ns = read_long_ns() / 4;
    before = atomic_load64(seq);
    dying_child(child, hold_and_change(pause_ns));
    while (atomic_load64(seq) < before + 20)
        support_sleep_ms(1);
    for (int i = 0; i < 20; i++) {
        memset(long_out, 0xee, sizeof(long_out));
        expect(shd_get(dict, LONG_KEY, 4, long_out, LONG_BYTES, &v), SHD_OK);
        is_one_of_the_long(&v);
        ck_assert_uint_eq(long_out[v.len], 0xee);
        expect(shd_scan(dict, NULL, 0, 0, key, sizeof(key), &len, long_out,
                        LONG_BYTES, &v),
               SHD_OK);
        is_one_of_the_long(&v);
    }
    support_kill(child);
}
END_TEST

static void *replace_long(void *unused)
{
    (void)unused;
    for (unsigned i = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) {
        char key[16];
        int n = snprintf(key, sizeof(key), "k%u", i % 50);

        if (i % 30 == 0)
            set_long(i / 30 % 100);
        expect(shd_set(dict, key, (size_t)n, long_value, i % 3000, 0), SHD_OK);
        if (i % 70 == 0)
            expect(shd_delete(dict, LONG_KEY, 4), SHD_OK);
    }
    return NULL;
}

START_TEST(a_long_value_is_never_torn_though_it_is_replaced)
{
    unsigned found = 0;
    pthread_t thread;
    struct shd_value v;
    char key[16];
    size_t len;

    set_long(0);
    ck_assert_int_eq(pthread_create(&thread, NULL, replace_long, NULL), 0);
    for (int i = 0; i < 300 || found < 50; i++) {
        int rc = shd_get(dict, LONG_KEY, 4, long_out, LONG_BYTES, &v);

        ck_assert(rc == SHD_OK || rc == SHD_NOTFOUND);
        if (rc == SHD_OK) {
            is_one_of_the_long(&v);
            found++;
        }
        rc = shd_scan(dict, NULL, 0, 0, key, sizeof(key), &len, long_out,
                      LONG_BYTES, &v);
        if (rc == SHD_OK && len == 4 && memcmp(key, LONG_KEY, 4) == 0)
            is_one_of_the_long(&v);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

/* Byte number i is i % 251, however long it is. */
static void *append_long(void *unused)
{
    unsigned char part[6000];
    uint64_t len = 0;

    (void)unused;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        uint64_t n = 1 + len * 7 % 5999;

        for (uint64_t i = 0; i < n; i++)
            part[i] = (unsigned char)((len + i) % 251);
        if (len + n > LONG_BYTES) {
            expect(shd_delete(dict, LONG_KEY, 4), SHD_OK);
            len = 0;
            continue;
        }
        expect(shd_append(dict, 0, LONG_KEY, 4, part, n, "", 0, 0, &len, NULL),
               SHD_OK);
    }
    return NULL;
}

START_TEST(a_long_value_is_whole_though_it_is_appended_to)
{
    unsigned found = 0;
    pthread_t thread;
    struct shd_value v;

    ck_assert_int_eq(pthread_create(&thread, NULL, append_long, NULL), 0);
    for (int i = 0; i < 300 || found < 50; i++) {
        int rc = shd_get(dict, LONG_KEY, 4, long_out, LONG_BYTES, &v);

        ck_assert(rc == SHD_OK || rc == SHD_NOTFOUND);
        if (rc != SHD_OK)
            continue;
        for (uint64_t n = 0; n < v.len; n++) {
            if (long_out[n] != n % 251)
                ck_abort_msg("byte %llu of %llu is %u", (unsigned long long)n,
                             (unsigned long long)v.len, long_out[n]);
        }
        found += v.len > CHAIN_SLICE_BYTES;
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

/* Pushes elements of its own while others are popped. */
static void *push_long(void *unused)
{
    unsigned char *bytes = malloc(120000);

    (void)unused;
    ck_assert_ptr_nonnull(bytes);
    for (unsigned i = 0; i < 200; i++) {
        memset(bytes, (int)i, 120000);
        expect(shd_push(dict, 1, "list", 4, SHD_STRING, bytes, 80000 + i * 100,
                        0, NULL),
               SHD_OK);
        expect(shd_set(dict, KEY, SHORT, bytes, i * 10, 0), SHD_OK);
        for (uint64_t n = 10; n > 8;)
            expect(shd_llen(dict, "list", 4, &n), SHD_OK);
    }
    free(bytes);
    return NULL;
}

START_TEST(long_elements_are_popped_once_and_whole)
{
    struct shd_value v;
    pthread_t thread;
    bool seen[200] = {false};

    ck_assert_int_eq(pthread_create(&thread, NULL, push_long, NULL), 0);
    for (unsigned n = 0; n < 200;) {
        int rc =
            shd_pop(dict, n % 3 == 0, "list", 4, long_out, LONG_BYTES, &v);

        if (rc == SHD_NOTFOUND)
            continue;
        expect(rc, SHD_OK);
        ck_assert_uint_eq(v.len, 80000 + long_out[0] * 100u);
        for (uint64_t i = 0; i < v.len; i++) {
            if (long_out[i] != long_out[0])
                ck_abort_msg("element %u is torn", long_out[0]);
        }
        ck_assert(!seen[long_out[0]]);
        seen[long_out[0]] = true;
        n++;
    }
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    expect(shd_pop(dict, 0, "list", 4, long_out, LONG_BYTES, &v),
           SHD_NOTFOUND);
}
END_TEST

static void *never_the_same(void *word)
{
    for (uint32_t i = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++)
        atomic_store32(word, i);
    return NULL;
}

START_TEST(a_value_that_is_replaced_each_time_is_read_under_the_lock)
{
    struct shd_value v;
    pthread_t thread;

    set_long(9);
    /* As if that cell were another chain's whenever it is looked at. */
    ck_assert_int_eq(pthread_create(&thread, NULL, never_the_same,
                                    &cell_of_long(40)->word[CHAIN_NUMBER]),
                     0);
    for (int i = 0; i < 20; i++) {
        expect(shd_get(dict, LONG_KEY, 4, long_out, LONG_BYTES, &v), SHD_OK);
        is_one_of_the_long(&v);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

START_TEST(a_long_value_that_leads_outside_is_corrupt)
{
    struct shd_value v;
    char key[8];
    size_t len;

    set_long(9);
    cell_of_long(40)->word[CHAIN_NEXT] = UINT32_MAX;
    expect(shd_get(dict, LONG_KEY, 4, long_out, LONG_BYTES, &v), SHD_CORRUPT);
    expect_said("an entry contradicts itself");
    expect(shd_scan(dict, NULL, 0, 0, key, sizeof(key), &len, long_out,
                    LONG_BYTES, &v),
           SHD_CORRUPT);
    expect(shd_get(dict, LONG_KEY, 4, long_out, 100, &v), SHD_SPACE);
    expect(shd_dict_destroy(segment, "torn"), SHD_OK);
    expect(shd_get(dict, LONG_KEY, 4, long_out, LONG_BYTES, &v), SHD_GONE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("torn");
    TCase *c = tcase_create("reading");

    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 120);
    tcase_add_test(c,
                   a_key_that_grows_after_it_was_measured_stays_in_its_buffer);
    tcase_add_test(c, readers_beside_a_writer_see_whole_values_only);
    tcase_add_test(c, flags_past_the_pages_end_are_not_followed);
    tcase_add_test(c, a_version_past_the_pages_end_is_not_renewed);
    tcase_add_test(c, a_chain_is_skipped_by_whole_words_or_not_at_all);
    tcase_add_test(c, an_lru_list_in_a_circle_ends_as_corrupt);
    tcase_add_test(c, a_damaged_link_does_not_lead_a_change_out_of_its_dict);
    suite_add_tcase(suite, c);
    c = tcase_create("destroyed");
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_test(c, a_hit_leaves_its_mark_only_under_the_lock);
    tcase_add_test(c, a_destroyed_dict_is_gone_for_every_question);
    tcase_add_test(c, what_a_destroyed_dict_has_given_back_is_not_touched);
    tcase_add_test(c, opening_beside_destroying_finds_a_dict_or_none);
    suite_add_tcase(suite, c);
    c = tcase_create("long values");
    tcase_add_checked_fixture(c, set_up_long, tear_down);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, a_slice_counts_as_long_as_its_cells_are_the_chains);
    tcase_add_test(c, a_cell_that_has_left_and_come_back_is_another);
    tcase_add_test(
        c, a_long_value_is_read_beside_changes_while_the_lock_is_taken);
    tcase_add_test(c, a_long_value_is_never_torn_though_it_is_replaced);
    tcase_add_test(c, a_long_value_is_whole_though_it_is_appended_to);
    tcase_add_test(c, long_elements_are_popped_once_and_whole);
    tcase_add_test(c,
                   a_value_that_is_replaced_each_time_is_read_under_the_lock);
    tcase_add_test(c, a_long_value_that_leads_outside_is_corrupt);
    suite_add_tcase(suite, c);
    return support_run(suite);
}
